from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from typing import TypeVar

import pytest

from fastindex.system import signals
from fastindex.system.crew import Crew, Task

_Pieces = Task[list[int]]
_Result = TypeVar("_Result")


def keep(result: _Result, _: object) -> _Result:
    return result


@pytest.fixture(params=[1, 2, 8])
def crew(request: pytest.FixtureRequest) -> Iterator[Crew]:
    before = threading.active_count()
    crew = Crew(request.param)
    yield crew
    crew.close()
    assert threading.active_count() == before


def test_each_gets_what_came_of_its_task(crew: Crew) -> None:
    tasks = [crew.submit(partial(keep, [number])) for number in range(100)]
    assert [crew.wait(task) for task in tasks] == [[number] for number in range(100)]
    assert crew.working <= crew.size


def test_one_alone_starts_no_thread() -> None:
    crew = Crew(1)
    here = threading.get_ident()
    tasks = [crew.submit(lambda _: threading.get_ident()) for _ in range(10)]
    assert {crew.wait(task) for task in tasks} == {here}
    assert crew.working == 1


def test_many_wait_side_by_side() -> None:
    crew = Crew(1)
    crew.grow(4)
    barrier = threading.Barrier(4, timeout=10)
    tasks = [crew.submit(lambda _: [barrier.wait()]) for _ in range(4)]
    assert sorted(crew.wait(task)[0] for task in tasks) == [0, 1, 2, 3]
    assert crew.working == 4
    crew.close()


def split_numbers(crew: Crew, task: _Pieces, depth: int) -> list[int] | None:
    if depth == 0:
        return [1]
    works = [lambda part: split_numbers(crew, part, depth - 1)] * 3
    crew.split(task, works, lambda parts: [sum(part[0] for part in parts)])
    return None


def test_parts_of_parts_are_joined(crew: Crew) -> None:
    tasks = [crew.submit(lambda task: split_numbers(crew, task, 4)) for _ in range(5)]
    assert [crew.wait(task) for task in tasks] == [[81]] * 5


def test_parts_are_joined_in_their_order(crew: Crew) -> None:
    def split(task: _Pieces) -> None:
        works = [partial(keep, number) for number in range(1, 50)]
        crew.split(task, works, list)

    assert crew.wait(crew.submit(split)) == list(range(1, 50))


@pytest.mark.parametrize("place", ["task", "part", "join"])
def test_an_error_comes_to_who_waits(crew: Crew, place: str) -> None:
    def fail(*_: object) -> list[int]:
        raise ValueError(place)

    def split(task: _Pieces) -> None:
        works = [fail if place == "part" else lambda _: [1], lambda _: [1]]
        crew.split(task, works, fail if place == "join" else lambda parts: parts[0])

    tasks = [crew.submit(lambda _: [2]), crew.submit(fail if place == "task" else split)]
    with pytest.raises(ValueError, match=place):
        [crew.wait(task) for task in tasks]


def test_what_has_not_begun_is_not_done_after_the_end() -> None:
    crew = Crew(3)
    done: list[int] = []
    gate = threading.Event()

    def work(_: Task[bool]) -> bool:
        gate.wait(10)
        done.append(1)
        return True

    for _ in range(20):
        crew.submit(work)
    timer = threading.Timer(0.05, gate.set)
    timer.start()
    crew.close()
    timer.join()
    assert crew.stop[0] == 1
    assert len(done) <= 2


class Held:
    """Something that is to be free in the end, as an open directory is."""


def test_what_is_given_up_is_free_in_the_end() -> None:
    crew = Crew(1)
    held = Held()
    freed = weakref.ref(held)
    task: Task[list[Held]] = Task(partial(keep, []))
    gc.disable()
    try:
        crew.split(task, [partial(keep, held)], list)
        crew.close()
        del held, task
        assert freed() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_fewer_threads_than_wanted_do_the_work(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def start_two(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise error("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    crew = Crew(64)
    tasks = [crew.submit(lambda _: [1]) for _ in range(100)]
    assert sum(crew.wait(task)[0] for task in tasks) == 100
    assert (crew.working, crew.size) == (3, 3)
    crew.close()
    assert not any(thread.is_alive() for thread in started)


def test_a_signal_ends_the_wait_for_another_thread() -> None:
    crew = Crew(2)
    gate = threading.Event()
    with signals.handled():
        tasks = [crew.submit(lambda _: [gate.wait(20)]) for _ in range(2)]
        while crew.working < 2:
            time.sleep(0.01)
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        began = time.monotonic()
        with pytest.raises(signals.Interrupted):
            crew.wait(tasks[1])
        assert time.monotonic() - began < 10
        timer.join()
    gate.set()
    crew.close()

"""Worker processes that start at once."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from fastindex.errors import FastindexError
from fastindex.events import Observer
from fastindex.operations.bench.rounds import ROUNDS, Step, TimedWorkers

TINY = 0.0003


class Log(Observer):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def log(self, message: str) -> None:
        self.messages.append(message)


def _slow(size_bytes: int) -> Step:
    """A step that takes longer than a round."""

    def step() -> int:
        time.sleep(0.002)
        return size_bytes

    return step


def _sleepy(size_bytes: int) -> Step:
    def step() -> int:
        time.sleep(0.01)
        return size_bytes

    return step


def _useless(_: int) -> Step:
    return lambda: 0


def _die(_: int) -> Step:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _out_of_memory(_: int) -> Step:
    raise MemoryError


def _out_of_mappings(_: int) -> Step:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def _write_pid(path: str) -> Step:
    (Path(path) / str(os.getpid())).touch()
    return lambda: 1


def test_all_that_is_done_counts() -> None:
    with TimedWorkers(Observer()) as workers:
        assert workers.measure("", _slow, [7, 14], TINY)[1] == 21 * ROUNDS
        assert workers.measure("", _slow, [7, 7, 7], TINY)[1] == 21 * ROUNDS


def test_the_speed_is_that_of_all_workers() -> None:
    with TimedWorkers(Observer()) as workers:
        speed, size_bytes = workers.measure("", _sleepy, [500, 500], 0.3)
    # 50,000 bytes a second each; a busy machine is slower, none is faster.
    assert 0 < speed <= 101_000
    assert size_bytes <= 500 * 2 * 33


def test_each_figure_is_logged_with_its_name() -> None:
    log = Log()
    with TimedWorkers(log) as workers:
        workers.measure("SHA-256", _slow, [1], TINY)
    assert log.messages == ["SHA-256: 0.00 GB/s"]


def test_work_that_does_nothing_ends_too() -> None:
    with TimedWorkers(Observer()) as workers:
        assert workers.measure("", _useless, [1, 2], TINY) == (0.0, 0)


def test_workers_are_used_again(tmp_path: Path) -> None:
    with TimedWorkers(Observer()) as workers:
        workers.measure("", _write_pid, [str(tmp_path)], TINY)
        workers.measure("", _write_pid, [str(tmp_path)] * 2, TINY)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("prepare", [_die, _out_of_memory, _out_of_mappings])
def test_a_worker_that_dies_or_lacks_memory_is_an_error(prepare: object) -> None:
    with (
        TimedWorkers(Observer()) as workers,
        pytest.raises(FastindexError, match="died or ran out of memory"),
    ):
        workers.measure("", prepare, [1, 2], TINY)  # type: ignore[arg-type]
    assert not multiprocessing.active_children()


def test_no_worker_outlives_the_context() -> None:
    with TimedWorkers(Observer()) as workers:
        workers.measure("", _slow, [1, 2], TINY)
        assert len(multiprocessing.active_children()) == 2
    assert not multiprocessing.active_children()

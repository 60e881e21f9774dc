"""Which files a worker takes together."""

from __future__ import annotations

import itertools
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from fastindex.hashing.batches import (
    BATCH_BYTES,
    TINY_BYTES,
    Queue,
    batch_together,
    group_tasks,
    join_batches,
)
from fastindex.hashing.strategy import Strategy
from fastindex.hashing.tasks import Batch, EngineSetup, FileRef, RootTask
from fastindex.system.stamps import Stamp

NUMBERS = itertools.count()


def root(size_bytes: int, metadata: int = 0) -> RootTask:
    refs = [
        FileRef("/f", Stamp(size, 1, 1, next(NUMBERS))) for size in (size_bytes, *[10] * metadata)
    ]
    return RootTask(refs[0], tuple(refs[1:]))


FEW = (1.0, 1.9, 1.5, 1.2)
"""Of a CPU to which a third lane is a burden."""
MANY = (1.0, 1.5, 1.8, 2.0)
"""Of one to which it is not."""


def sizes(tasks: list[RootTask], jobs: int, speeds: tuple[float, ...]) -> list[list[int]]:
    """Return the sizes of the roots in each batch, in units of a batch's most bytes."""
    strategy = Strategy(jobs, EngineSetup("lanes"), speeds)
    made = join_batches(group_tasks(tasks, strategy, wants_blake3=False), jobs)
    for batch in made:
        assert batch.files_at_once == len(batch.tasks)
    return [[task.root.stamp.size_bytes // BATCH_BYTES for task in batch.tasks] for batch in made]


def test_files_of_a_size_are_read_side_by_side_where_that_is_quicker() -> None:
    files = [root(size * BATCH_BYTES) for size in (1, 9, 2, 8)]
    assert sizes(files, 1, FEW) == [[9, 8], [2, 1]]
    assert sizes(files, 1, (1.0,)) == [[9], [8], [2], [1]]
    pairs = [root(size * BATCH_BYTES, metadata=1) for size in (1, 9, 2, 8)]
    assert sizes(pairs, 1, FEW) == [[9], [8], [2], [1]]
    assert sizes(pairs, 1, MANY) == [[9, 8], [2, 1]]


def test_no_worker_idles_so_that_another_can_fill_its_lanes() -> None:
    assert sizes([root(BATCH_BYTES) for _ in range(4)], 4, MANY) == [[1]] * 4
    assert sizes([root(BATCH_BYTES) for _ in range(4)], 2, MANY) == [[1, 1]] * 2
    assert sizes([root(9 * BATCH_BYTES), root(BATCH_BYTES)], 2, MANY) == [[9], [1]]


def test_the_rest_of_a_longer_file_has_the_worker_to_itself() -> None:
    """Side by side to the end would take longer than one after the other."""
    files = [root(size * BATCH_BYTES) for size in (9, 1)]
    assert sizes(files, 1, (1.0, 1.12)) == [[9, 1]]


def test_files_side_by_side_have_no_more_digests_than_there_are_lanes() -> None:
    files = [root(12 * BATCH_BYTES, 2), root(8 * BATCH_BYTES, 2), root(BATCH_BYTES)]
    assert sizes(files, 1, MANY) == [[12], [8, 1]]


def test_a_file_with_many_digests_is_alone() -> None:
    for metadata in (3, 9):
        files = [root(BATCH_BYTES, metadata) for _ in range(3)]
        assert sizes(files, 1, MANY) == [[1]] * 3


def test_small_files_share_a_batch_and_the_lanes() -> None:
    for metadata, speeds, at_once in ((0, FEW, 2), (0, MANY, 4), (1, FEW, 1), (1, MANY, 2)):
        files = [root(100, metadata) for _ in range(10)]
        (batch,) = group_tasks(files, Strategy(2, EngineSetup("lanes"), speeds), wants_blake3=False)
        assert len(batch.tasks) == 10
        assert batch.files_at_once == at_once


def test_the_file_with_most_digests_says_how_many_small_ones_are_read_at_once() -> None:
    files = [root(100), root(100, metadata=1), root(100)]
    (batch,) = group_tasks(files, Strategy(2, EngineSetup("lanes"), FEW), wants_blake3=False)
    assert batch.files_at_once == 1


def test_each_batch_of_small_files_is_filled() -> None:
    files = [root(BATCH_BYTES // 2) for _ in range(6)]
    made = group_tasks(files, Strategy(2), wants_blake3=False)
    assert [len(batch.tasks) for batch in made] == [2, 2, 2]


def test_little_work_is_in_batches_small_enough_to_fill_the_lanes_of_all_workers() -> None:
    files = [root(1 << 20) for _ in range(96)]
    how = Strategy(2, EngineSetup("lanes"), MANY)
    made = group_tasks(files, how, wants_blake3=False)
    assert {len(batch.tasks) for batch in made} == {4}
    assert {(batch.files_at_once, batch.speeds) for batch in made} == {(1, MANY)}
    alone = group_tasks(files, Strategy(2), wants_blake3=False)
    assert [len(batch.tasks) for batch in alone] == [32, 32, 32]


def test_tiny_files_are_read_beside_no_others() -> None:
    files = [root(TINY_BYTES - 1) for _ in range(3)] + [root(TINY_BYTES)]
    made = group_tasks(files, Strategy(2, EngineSetup("lanes"), MANY), wants_blake3=False)
    assert [(len(batch.tasks), batch.speeds) for batch in made] == [(3, (1.0,)), (1, MANY)]


def held_sizes(batches: deque[Batch], workers: int) -> list[list[int]]:
    """Return the sizes of the batches that each worker has at the start, in ``BATCH_BYTES``."""
    queue = Queue(batches, workers)
    desks = [queue.new_desk() for _ in range(workers)]
    held: list[list[int]] = [[] for _ in desks]
    for desk, _, batch in queue.deal(desks):
        held[desks.index(desk)].append(batch.size_bytes // BATCH_BYTES)
    return held


def test_workers_have_as_many_batches_as_lets_all_end_soonest() -> None:
    steep = (1.0, 2.0, 3.0, 4.0)
    strategy = Strategy(2, EngineSetup("lanes"), steep)
    files = [root(size * BATCH_BYTES) for size in (1000, *[100] * 40)]
    batches = group_tasks(files, strategy, wants_blake3=False)
    first, second = held_sizes(batches, 2)
    assert not batches
    assert (first[0], second) == (1000, [100] * 4)


def test_a_batch_alone_is_dealt_in_its_turn_and_to_a_worker_without_any() -> None:
    strategy = Strategy(1, EngineSetup("lanes"), (1.0, 2.0, 3.0, 4.0))
    files = [root(size * BATCH_BYTES) for size in (9, 8, 7, 6, 4, 3, 2, 1)]
    shared = list(group_tasks(files, strategy, wants_blake3=True))
    alone = group_tasks([root(5 * BATCH_BYTES)], strategy, wants_blake3=True, wants_sha256=False)
    queue = Queue(deque([*shared[:4], *alone, *shared[4:]]), 1)
    assert not queue.plan.group_files
    desk = queue.new_desk()
    sizes: dict[int, int] = {}
    while queue or desk.held:
        sizes |= {
            number: batch.size_bytes // BATCH_BYTES for _, number, batch in queue.deal([desk])
        }
        held = [sizes[number] for _, number, _ in desk.held]
        assert held == [5] or 5 not in held
        desk.remove(desk.held[0][1], was_read=True)
    assert sorted(sizes.values()) == list(range(1, 10))


def test_metadata_that_roots_share_counts_once() -> None:
    first, second = root(100, metadata=2), root(200)
    (batch,) = group_tasks(
        [first, RootTask(second.root, first.metadata)], Strategy(1), wants_blake3=False
    )
    assert batch.size_bytes == 100 + 200 + 2 * 10


def test_what_belongs_together_stays_in_order() -> None:
    tasks = (root(100), root(3 * BATCH_BYTES), root(200))
    batch = batch_together(tasks, Strategy(2, EngineSetup("lanes"), FEW), wants_blake3=True)
    assert batch.tasks == tasks
    assert batch.size_bytes == 300 + 3 * BATCH_BYTES
    assert (batch.engine.name, batch.files_at_once) == ("lanes", 2)
    assert batch.wants_blake3
    assert batch.wants_sha256


@given(
    files=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30),
    jobs=st.integers(1, 20),
    speeds=st.lists(st.floats(0.5, 4), min_size=0, max_size=3),
)
def test_each_root_is_in_one_batch(
    files: list[tuple[int, int]], jobs: int, speeds: list[float]
) -> None:
    tasks = [root(size * BATCH_BYTES // 2, metadata) for size, metadata in files]
    how = Strategy(jobs, EngineSetup("lanes"), (1.0, *speeds))
    made = group_tasks(tasks, how, wants_blake3=True)
    assert sorted(task.root.stamp.inode for batch in made for task in batch.tasks) == [
        task.root.stamp.inode for task in tasks
    ]
    told = [batch.size_bytes for batch in made]
    assert told == sorted(told, reverse=True)
    assert {batch.engine.name for batch in made} <= {"lanes"}
    assert all(1 <= batch.files_at_once <= len(batch.tasks) for batch in made)
    quick = group_tasks(tasks, how, wants_blake3=True, wants_sha256=False)
    assert {batch.files_at_once for batch in quick} <= {1}

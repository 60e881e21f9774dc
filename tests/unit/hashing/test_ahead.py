"""Reading ahead of the hashing."""

from __future__ import annotations

import _thread
import mmap
import os
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.hashing import ahead
from fastindex.hashing.ahead import Ring, choose_ring, read_ahead


class Source:
    """A file in memory, read a little at a time.

    Args:
        content: its bytes.
        most: the most that a read returns, as on network file systems.
        fails_at: reads from here on fail.
    """

    def __init__(self, content: bytes, most: int = 1 << 20, fails_at: int | None = None) -> None:
        self.content = content
        self.threads: list[int] = []
        self._most = most
        self._fails_at = fails_at

    def read(self, descriptor: int, buffer: memoryview, offset: int) -> int:
        """Read into ``buffer`` from ``offset`` on."""
        self.threads.append(threading.get_ident())
        if self._fails_at is not None and offset >= self._fails_at:
            raise OSError(5, "Input/output error")
        piece = self.content[offset:][: min(len(buffer), self._most)]
        buffer[: len(piece)] = piece
        return len(piece)


def pieces_of(
    source: Source,
    piece_bytes: int,
    offset: int = 0,
    size_bytes: int | None = None,
    unit_bytes: int = 1,
) -> Generator[memoryview, None, None]:
    """Return the pieces of ``source``."""
    size_bytes = len(source.content) if size_bytes is None else size_bytes
    with Path(os.devnull).open("rb") as file:
        yield from read_ahead(
            source.read, file.fileno(), piece_bytes, offset, size_bytes, unit_bytes=unit_bytes
        )


@given(
    content=st.binary(max_size=300),
    most=st.integers(1, 50),
    piece_bytes=st.integers(1, 100),
    unit_bytes=st.sampled_from([1, 8, 32]),
    data=st.data(),
)
def test_pieces_come_in_order_and_hold_until_the_next(
    content: bytes, most: int, piece_bytes: int, unit_bytes: int, data: st.DataObject
) -> None:
    offset = data.draw(st.integers(0, len(content)))
    source = Source(content, most)
    pieces = [bytes(p) for p in pieces_of(source, piece_bytes, offset, None, unit_bytes)]
    assert b"".join(pieces) == content[offset:]
    assert all(len(piece) <= piece_bytes for piece in pieces)


@given(
    size_bytes=st.integers(1, 1000),
    piece_bytes=st.integers(1, 100),
    offset=st.integers(0, 1000),
)
def test_reads_are_aligned_up_to_the_end_of_the_file(
    size_bytes: int, piece_bytes: int, offset: int
) -> None:
    places: list[tuple[int, int]] = []
    source = Source(os.urandom(size_bytes))

    def read(descriptor: int, buffer: memoryview, at: int) -> int:
        places.append((at, len(buffer)))
        return source.read(descriptor, buffer, at)

    offset = min(offset, size_bytes)
    with Path(os.devnull).open("rb") as file:
        pieces = read_ahead(read, file.fileno(), piece_bytes, offset, size_bytes, unit_bytes=32)
        assert b"".join(map(bytes, pieces)) == source.content[offset:]
    assert all((at % 32, length % 32) == (0, 0) or at == size_bytes for at, length in places)


@pytest.mark.parametrize(
    ("piece_bytes", "expected"),
    [
        (8 << 20, Ring(4, 1, 8 << 20)),
        (512 << 10, Ring(4, 4, 2 << 20)),
        (256 << 10, Ring(2, 2, 1 << 20)),
        (174_720, Ring(2, 2, 700_416)),
    ],
)
def test_past_the_page_cache_reads_are_large_and_aligned(piece_bytes: int, expected: Ring) -> None:
    assert choose_ring(piece_bytes, 4096) == expected


def test_past_the_page_cache_several_reads_are_under_way() -> None:
    source = Source(os.urandom(100_000))
    goes_on = threading.Event()
    under_way: list[int] = []

    def read(descriptor: int, buffer: memoryview, at: int) -> int:
        under_way.append(at)
        goes_on.wait(60)
        return source.read(descriptor, buffer, at)

    def release() -> None:
        until = time.monotonic() + 60
        while len(under_way) < 2 and time.monotonic() < until:
            time.sleep(0.001)
        goes_on.set()

    releasing = threading.Thread(target=release)
    with Path(os.devnull).open("rb") as file:
        pieces = read_ahead(read, file.fileno(), 500, 0, 100_000, unit_bytes=10)
        releasing.start()
        lengths = [len(piece) for piece in pieces]
    releasing.join()
    assert sorted(under_way[:2]) == [0, 2000]
    assert lengths == [500] * 200


def test_a_piece_is_not_written_over_while_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "RING_BYTES", 200)
    source = Source(os.urandom(2000))
    at = 0
    for piece in pieces_of(source, 100):
        time.sleep(0.002)  # time to fill all the others
        assert bytes(piece) == source.content[at : at + 100]
        at += 100
    assert at == 2000


@pytest.mark.parametrize("bound", ["RING_BYTES", "MAX_PIECES"])
def test_it_reads_in_another_thread_and_not_far_ahead(
    monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(ahead, bound, {"RING_BYTES": 500, "MAX_PIECES": 5}[bound])
    source = Source(bytes(10_000))
    with closing(pieces_of(source, 100)) as pieces:
        next(pieces)
        deadline = time.monotonic() + 60
        while len(source.threads) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(source.threads) == 5
    assert threading.get_ident() not in source.threads


@pytest.fixture
def file() -> Iterator[BinaryIO]:
    """Return an open file."""
    with Path(os.devnull).open("rb") as opened:
        yield opened


def test_leaving_early_waits_for_the_read_under_way_and_starts_no_other(file: BinaryIO) -> None:
    source = Source(bytes(10_000))
    is_second, goes_on = threading.Event(), threading.Event()
    ended: list[int] = []

    def read(descriptor: int, buffer: memoryview, offset: int) -> int:
        if offset > 0:
            is_second.set()
            goes_on.wait(60)
            time.sleep(0.05)
        count = source.read(descriptor, buffer, offset)
        ended.append(offset)
        return count

    pieces = read_ahead(read, file.fileno(), 100, 0, 10_000)
    next(pieces)
    assert is_second.wait(60)
    goes_on.set()
    pieces.close()
    assert ended == [0, 100]


def test_a_read_that_hangs_holds_nobody_up_and_keeps_its_own_descriptor(
    file: BinaryIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "END_SECONDS", 0.05)
    is_second, goes_on = threading.Event(), threading.Event()
    used: list[int] = []

    def read(descriptor: int, buffer: memoryview, offset: int) -> int:
        used.append(descriptor)
        if offset > 0:
            is_second.set()
            goes_on.wait(60)
            used.append(os.fstat(descriptor).st_ino)
        return len(buffer)

    pieces = read_ahead(read, file.fileno(), 100, 0, 10_000)
    next(pieces)
    assert is_second.wait(60)
    pieces.close()  # does not wait for ever
    inode = os.fstat(file.fileno()).st_ino
    file.close()
    goes_on.set()
    until = time.monotonic() + 60
    while is_open(used[0]) and time.monotonic() < until:
        time.sleep(0.01)
    assert used == [used[0], used[0], inode]
    assert not is_open(used[0])


def is_open(descriptor: int) -> bool:
    """Return whether a descriptor is open."""
    return Path(f"/proc/self/fd/{descriptor}").is_symlink()


def test_an_error_comes_after_what_was_read_before_it() -> None:
    source = Source(bytes(range(200)), fails_at=150)
    read = b""
    with pytest.raises(OSError, match="Input/output"):  # noqa: PT012
        for piece in pieces_of(source, 50):
            read += bytes(piece)
    assert read == source.content[:150]


def test_a_file_that_grows_is_read_past_its_size_but_not_for_ever() -> None:
    source = Source(bytes(10_000))
    read = b"".join(map(bytes, pieces_of(source, 100, 0, 250)))
    assert len(read) == 300


@pytest.mark.parametrize("denied", ["thread", "memory", "descriptor"])
def test_without_a_thread_or_memory_it_reads_all_the_same(
    monkeypatch: pytest.MonkeyPatch, denied: str
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no thread") if denied == "thread" else OSError(12, "no memory")

    if denied == "thread":
        monkeypatch.setattr(_thread, "start_new_thread", refuse)
    else:
        module, name = {"memory": (mmap, "mmap"), "descriptor": (os, "dup")}[denied]
        monkeypatch.setattr(module, name, refuse)
    source = Source(bytes(range(250)) * 3)
    assert b"".join(map(bytes, pieces_of(source, 100, 50))) == source.content[50:]
    assert len(b"".join(map(bytes, pieces_of(source, 100, 50, 260)))) == 300
    assert set(source.threads) == {threading.get_ident()}

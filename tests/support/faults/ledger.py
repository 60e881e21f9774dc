"""What every file of a tree held, and when: so that any digest of it can be judged later.

A file is of pages; each page tells by its bytes which write it came from. Each change is
one system call of one page, or of none, and noted before and after it: from the moment
before, the new content may be read; until the moment after, the old one.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

PAGE_BYTES = 4096

Content = tuple[tuple[int, int, int], ...]
"""Runs of pages: (which write, first page, the one after the last)."""


def fresh(write: int, pages: int) -> Content:
    """Return a content that one write made."""
    return ((write, 0, pages),) if pages else ()


def page_count(content: Content) -> int:
    return content[-1][2] if content else 0


def cut(content: Content, start: int, stop: int) -> Content:
    """Return the pages of ``content`` from ``start`` up to ``stop``."""
    return tuple(
        (write, max(first, start), min(last, stop))
        for write, first, last in content
        if max(first, start) < min(last, stop)
    )


def with_page(content: Content, page: int, write: int) -> Content:
    """Return ``content`` with one page overwritten, or appended."""
    parts = [
        *cut(content, 0, page),
        (write, page, page + 1),
        *cut(content, page + 1, page_count(content)),
    ]
    merged: list[tuple[int, int, int]] = []
    for write_, first, last in parts:
        if merged and (merged[-1][0], merged[-1][2]) == (write_, first):
            merged.append((write_, merged.pop()[1], last))
        else:
            merged.append((write_, first, last))
    return tuple(merged)


def page_bytes(write: int, page: int) -> bytes:
    """Return a page; the first one of a file starts as a squashfs and as a tarball do."""
    made = bytearray(struct.pack(">QQ", write, page) * (PAGE_BYTES // 16))
    if page == 0:
        made[:4], made[257:262] = b"hsqs", b"ustar"
        made[40:48] = struct.pack("<Q", 96)  # the bytes in use
    return bytes(made)


def bytes_of(content: Content) -> bytes:
    return b"".join(
        page_bytes(write, page) for write, first, last in content for page in range(first, last)
    )


@dataclass(eq=False)
class State:
    """What one path held for a while.

    Attributes:
        content: the bytes.
        began: the moment before it came, by ``time.monotonic_ns``.
        ended: the moment after it went; None while it is there.
        mtime_ns: its modification time; None until it is known.
    """

    content: Content
    began: int
    ended: int | None = None
    mtime_ns: int | None = None

    @property
    def size_bytes(self) -> int:
        return page_count(self.content) * PAGE_BYTES

    def was_there(self, since: int, until: int) -> bool:
        """Return whether it may have been seen between two moments."""
        return self.began <= until and (self.ended is None or self.ended >= since)


@dataclass(eq=False)
class Inode:
    """A file, whatever its names."""

    content: Content
    mtime_ns: int | None = None
    paths: set[str] = field(default_factory=set)


class Ledger:
    """The files of a tree, now and ever.

    Args:
        root: of the mirror; all paths are relative to it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.states: dict[str, list[State]] = defaultdict(list)
        self.inodes: dict[str, Inode] = {}
        self.changes = 0
        self._digests: dict[tuple[Content, ...], tuple[str, str]] = {}

    def sha256(self, *contents: Content) -> str:
        """Return the digest of contents, one after the other."""
        return self._both(contents)[0]

    def blake3(self, content: Content) -> str:
        return self._both((content,))[1]

    def _both(self, contents: tuple[Content, ...]) -> tuple[str, str]:
        if contents not in self._digests:
            data = b"".join(map(bytes_of, contents))
            self._digests[contents] = hashlib.sha256(data).hexdigest(), blake3(data).hexdigest()
        return self._digests[contents]

    def create(self, path: str) -> None:
        """Make an empty file."""
        inode = Inode(())
        self._appear(path, inode)
        os.close(os.open(self.root / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        self._stamp(inode)

    def put(self, path: str, content: Content) -> None:
        """Write a new file aside and rename it to its place."""
        aside = (self.root / path).with_name(".aside.part")
        aside.write_bytes(bytes_of(content))
        inode = Inode(content, aside.stat().st_mtime_ns)
        before = list(self.states[path][-1:])
        self._appear(path, inode)
        os.rename(aside, self.root / path)
        self._end(before)

    def write_pages(self, path: str, pages: range, write: int) -> None:
        """Overwrite pages in place, or append them, one call a page."""
        inode = self.inodes[path]
        descriptor = os.open(self.root / path, os.O_WRONLY)
        try:
            for page in pages:
                before = self._change(inode, with_page(inode.content, page, write))
                os.pwrite(descriptor, page_bytes(write, page), page * PAGE_BYTES)
                self._end(before)
                self._stamp(inode)
        finally:
            os.close(descriptor)

    def truncate(self, path: str, pages: int) -> None:
        inode = self.inodes[path]
        before = self._change(inode, cut(inode.content, 0, pages))
        os.truncate(self.root / path, pages * PAGE_BYTES)
        self._end(before)
        self._stamp(inode)

    def link(self, source: str, path: str) -> None:
        """Give a file a second name, in the place of another file."""
        aside = (self.root / path).with_name(".aside.part")
        os.link(self.root / source, aside)
        before = [self.states[path][-1]] if path in self.inodes else []
        self._appear(path, self.inodes[source])
        os.rename(aside, self.root / path)
        self._end(before)

    def remove(self, path: str) -> None:
        before = self.states[path][-1:]
        os.unlink(self.root / path)
        self._end(before)
        self.inodes.pop(path).paths.discard(path)

    def rename(self, source: str, target: str) -> None:
        """Rename a file, or a directory with all that lies in it; nothing is in its place."""
        moved = {path: target + path[len(source) :] for path in self.below(source)}
        before = [self.states[path][-1] for path in moved]
        for path, new in moved.items():
            inode = self.inodes.pop(path)
            inode.paths.discard(path)
            self._appear(new, inode)
        os.rename(self.root / source, self.root / target)
        self._end(before)

    def below(self, place: str) -> list[str]:
        """Return the files at ``place`` or below it."""
        paths = list(self.inodes)  # a copy, as other writers' come and go
        return sorted(path for path in paths if path == place or path.startswith(place + "/"))

    def _appear(self, path: str, inode: Inode) -> None:
        if path in self.inodes:
            self.inodes[path].paths.discard(path)
        self.inodes[path] = inode
        inode.paths.add(path)
        state = State(inode.content, time.monotonic_ns(), mtime_ns=inode.mtime_ns)
        self.states[path].append(state)

    def _change(self, inode: Inode, content: Content) -> list[State]:
        before = [self.states[path][-1] for path in inode.paths]
        inode.content = content
        began = time.monotonic_ns()
        for path in inode.paths:
            self.states[path].append(State(content, began))
        return before

    def _end(self, states: list[State]) -> None:
        ended = time.monotonic_ns()
        for state in states:
            state.ended = state.ended or ended
        self.changes += 1

    def _stamp(self, inode: Inode) -> None:
        path = next(iter(inode.paths))
        inode.mtime_ns = os.stat(self.root / path).st_mtime_ns
        for name in inode.paths:
            self.states[name][-1].mtime_ns = inode.mtime_ns

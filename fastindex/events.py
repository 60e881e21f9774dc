"""What an operation reports: findings, steps, and the observer that hears of them."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Literal, TypeVar

from msgspec import Struct

from fastindex.errors import Code

_Thing = TypeVar("_Thing")


class Finding(Struct, frozen=True):
    """Something about the tree that a person should know."""

    code: Code
    """What kind of thing it is, for programs."""
    path: str
    """What it is about, relative to ROOT."""
    problem: str
    """What is wrong."""
    remedy: str
    """What to do about it."""
    versions_left_out: int = 0
    """How many versions are not published because of it; an unreadable directory counts as one."""
    files_left_out: int = 0
    """How many files are not published because of it, although their version is."""


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings by path, each once."""
    return tuple(sorted(dict.fromkeys(findings), key=_by_path))


def _by_path(finding: Finding) -> tuple[str, str, str]:
    return finding.path, finding.code, finding.problem


class Change(Struct, frozen=True):
    """A difference between what is published and what this run found."""

    kind: Literal["added", "removed", "changed"]
    """What happens to the version or the product's fields."""
    stream: str
    """The stream of the product."""
    product: str
    """The product's key, OS:RELEASE:ARCH:VARIANT."""
    version: str
    """The version's name; empty if it is the product's own fields that change."""
    size_bytes: int = 0
    """Total size of the version's files after the change; of a removed version, before it."""
    files: tuple[str, ...] = ()
    """Paths of the files that clients find, lose, or find changed, relative to the output
    directory: what a cache in front of the mirror has to forget."""


class Step(Struct, frozen=True):
    """Something that an operation would do; only a dry run reports steps."""

    verb: str
    """What would be done: mkdir, copy, link, move, write, rename, compare, encode, publish,
    withdraw, delete, or delete later."""
    path: str
    """The file or directory that it would be done to."""
    target: str = ""
    """Where that would go or be compared with; empty: it stays where it is."""
    size_bytes: int = 0
    """The size of the file; 0: not a file, or not read."""


class Observer:
    """Hears how an operation goes. Subclass it and override the methods that you need.

    The methods here do nothing. All calls come from the thread that runs the operation.
    """

    wants_progress: bool = False
    """Whether ``bytes_hashed`` is worth calling often."""

    def hashing_started(self, total_bytes: int) -> None:
        """Called before the first byte is read; ``total_bytes`` are to be read in all."""

    def bytes_hashed(self, done_bytes: int) -> None:
        """Called from time to time; ``done_bytes`` have been read so far, in all."""

    def hashing_finished(self) -> None:
        """Called when reading ends, also after an error."""

    def counting_started(self, activity: str, unit: str, total: int) -> None:
        """Called before many things are done one after the other.

        Args:
            activity: what is done, such as ``scanning``.
            unit: what it is done to, such as ``product``.
            total: to how many; 0: nobody knows.
        """

    def counted(self, done: int) -> None:
        """Called from time to time; so many have been done so far."""

    def counting_finished(self) -> None:
        """Called when all have been done, also after an error."""

    def note(self, message: str) -> None:
        """Called with what a person should know at once, such as what the run waits for."""

    def warn(self, finding: Finding) -> None:
        """Called at the end for each finding: what a person should know about the tree."""

    def log(self, message: str) -> None:
        """Called with a detail that only a curious person wants to know."""


class HeldBackFindings(Observer):
    """Passes progress on, and keeps findings: the next build of a run finds most of them again.

    Args:
        observer: who hears of the progress, and later of the findings.
    """

    def __init__(self, observer: Observer) -> None:
        self.wants_progress = observer.wants_progress
        self._observer = observer
        self._findings: list[Finding] = []

    def hashing_started(self, total_bytes: int) -> None:
        """Pass it on."""
        self._observer.hashing_started(total_bytes)

    def bytes_hashed(self, done_bytes: int) -> None:
        """Pass it on."""
        self._observer.bytes_hashed(done_bytes)

    def hashing_finished(self) -> None:
        """Pass it on."""
        self._observer.hashing_finished()

    def counting_started(self, activity: str, unit: str, total: int) -> None:
        """Pass it on."""
        self._observer.counting_started(activity, unit, total)

    def counted(self, done: int) -> None:
        """Pass it on."""
        self._observer.counted(done)

    def counting_finished(self) -> None:
        """Pass it on."""
        self._observer.counting_finished()

    def note(self, message: str) -> None:
        """Pass it on."""
        self._observer.note(message)

    def warn(self, finding: Finding) -> None:
        """Keep it."""
        self._findings.append(finding)

    def log(self, message: str) -> None:
        """Pass it on."""
        self._observer.log(message)

    def release(self) -> None:
        """Report the findings."""
        for finding in self._findings:
            self._observer.warn(finding)


def count(
    observer: Observer, activity: str, unit: str, total: int, things: Iterable[_Thing]
) -> Generator[_Thing, None, None]:
    """Yield ``things``, and tell the observer how many have been asked for.

    Args:
        observer: the observer.
        activity: as for ``Observer.counting_started``, like ``unit`` and ``total``.
        unit: see there.
        total: see there.
        things: what something is done to.
    """
    observer.counting_started(activity, unit, total)
    try:
        for done, thing in enumerate(things):
            observer.counted(done)
            yield thing
    finally:
        observer.counting_finished()


def report_findings(observer: Observer, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Report the findings to ``observer`` by path, each once; return them in that order."""
    ordered = sort_findings(findings)
    for finding in ordered:
        observer.warn(finding)
    return ordered

"""Makes the deltas of one version: each is decoded again, and compared, before it may appear.

xdelta3 reads the roots through descriptors that are opened here, so that no name of a stranger is
on its command line and nobody can put another file in the way. What it writes comes through a pipe:
a delta that becomes too large costs no more than what it may be.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, suppress
from typing import Literal

from msgspec import Struct

from fastindex.catalogue.contract import describe_sha256, describe_size
from fastindex.errors import Code, RefusalError, suggest_remedy
from fastindex.events import Finding
from fastindex.formats.content import HEAD_BYTES, find_fault
from fastindex.formats.names import classify
from fastindex.hashing.options import HashingOptions
from fastindex.hashing.stream import StreamDigest
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.staging import Staging, hidden_path
from fastindex.operations.deltas.choosing import Root, WantedDelta, find_window_bytes
from fastindex.system import directories, files
from fastindex.system.new_file import NewFile, UnwritableError
from fastindex.system.programs import StoppedError, ToolError, stream_tool
from fastindex.system.stamps import Stamp, stamp_of

SUFFIX = ".delta"
"""Ends the name of the hidden directory in which the deltas of a version are made."""
_WINDOW_BYTES = 1 << 20
_START_SECONDS = 120.0
_MIN_BYTES_PER_SECOND = 500_000
"""xdelta3 is thirty times as fast on a machine that has nothing else to do."""
_HASHING = HashingOptions(blake3=False)
_AGAIN = "run fastindex deltas again; if it stays, run fastindex verify --sha256"


class MakingOptions(Struct, frozen=True):
    """How deltas are made."""

    program: str
    """The absolute path of xdelta3."""
    max_ratio: float
    """A delta may be so many per cent of the root."""
    is_unwanted: Callable[[], bool]
    """Asked from time to time whether to give up."""


class Outcome(Struct, frozen=True):
    """What became of a delta."""

    wanted: WantedDelta
    """The delta."""
    kind: Literal["made", "too large", "failed", "stopped"]
    """How it ended."""
    size_bytes: int = 0
    """Its size, if it is made."""
    finding: Finding | None = None
    """Why it failed."""


class _FailedError(Exception):
    """A delta cannot be made.

    Args:
        finding: why.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.problem)
        self.finding = finding


class _TooLargeError(Exception):
    """A delta is too large to be of use."""


class MadeVersion:
    """The deltas of one version, in a hidden directory beside it. Close it in the end.

    Args:
        mirror: the mirror.
        wanted: the deltas; all are of one version.
        options: how they are made.
    """

    def __init__(
        self, mirror: Mirror, wanted: Sequence[WantedDelta], options: MakingOptions
    ) -> None:
        self.wanted = wanted
        """The deltas."""
        self.outcomes: list[Outcome] = []
        """What became of each."""
        self._mirror = mirror
        self._options = options
        self._staging: Staging | None = None

    def make(self) -> MadeVersion:
        """Make them, in any thread; return this. What fails is an outcome."""
        for wanted in self.wanted:
            self.outcomes.append(self._make_one(wanted))
        return self

    def publish(self) -> None:
        """Move those that were made into the version.

        Raises:
            OSError: the version is gone, or cannot be written.
        """
        if self._staging is not None:
            self._staging.publish_rest()

    def close(self) -> None:
        """Remove the hidden directory with all that is still in it. Errors are ignored."""
        if self._staging is not None:
            try:
                self._staging.keep_only(frozenset())
            except OSError:
                pass  # a later run, or prune, removes it
            finally:
                self._staging.close()
                self._staging = None

    def _make_one(self, wanted: WantedDelta) -> Outcome:
        try:
            return Outcome(wanted, "made", self._write(wanted))
        except _TooLargeError:
            return Outcome(wanted, "too large")
        except StoppedError:
            return Outcome(wanted, "stopped")
        except (_FailedError, RefusalError, OSError) as error:
            return Outcome(wanted, "failed", finding=_explain(wanted, error))

    def _write(self, wanted: WantedDelta) -> int:
        """Make a delta in the hidden directory; return its size, in bytes."""
        with ExitStack() as stack:
            base = stack.enter_context(closing(_OpenRoot(self._mirror, wanted.base)))
            target = stack.enter_context(closing(_OpenRoot(self._mirror, wanted.target)))
            base.check_digest()
            if self._staging is None:
                self._staging = Staging(
                    self._mirror, wanted.version, is_resumable=True, suffix=SUFFIX
                )
                self._staging.keep_only(frozenset())
            try:
                size_bytes = self._encode(wanted, base, target, self._staging)
                self._check(wanted, base, self._staging)
                for root in (base, target):
                    root.check_unchanged()
            except BaseException:
                self._staging.remove(wanted.name)
                raise
        return size_bytes

    def _encode(
        self, wanted: WantedDelta, base: _OpenRoot, target: _OpenRoot, staging: Staging
    ) -> int:
        window = find_window_bytes(wanted.base)
        words = ("-e", "-c", "-q", "-D", "-S", "none", "-A", "-B", str(window))
        most_bytes = int(wanted.target.size_bytes * self._options.max_ratio / 100)
        size_bytes = 0
        with (
            NewFile(f"{staging.path}/{wanted.name}") as file,
            closing(self._run(wanted, words, base, target.descriptor)) as pieces,
        ):
            for piece in pieces:
                size_bytes += len(piece)
                if size_bytes > most_bytes:
                    raise _TooLargeError
                file.write(memoryview(piece))
            # That of the root: who looks at times alone need not wait for it to settle.
            file.finish(target.stamp.mtime_ns)
        return size_bytes

    def _check(self, wanted: WantedDelta, base: _OpenRoot, staging: Staging) -> None:
        """Decode a delta as a client does, and compare what it gives with what is published."""
        digest = StreamDigest(_HASHING)
        words = ("-d", "-c", "-q", "-D", "-R")
        with (
            directories.closing(staging.open_file(wanted.name)) as delta,
            closing(self._run(wanted, words, base, delta)) as pieces,
        ):
            for piece in pieces:
                digest.update(piece)
                if digest.size_bytes > wanted.target.size_bytes:
                    break
        if (digest.size_bytes, digest.sha256) != (wanted.target.size_bytes, wanted.target.sha256):
            name = os.path.basename(wanted.target.path)
            problem = f"does not give {name} as it is published, so it was thrown away"
            raise _FailedError(Finding(Code.DELTA_FAILED, wanted.path, problem, _AGAIN))

    def _run(
        self, wanted: WantedDelta, words: Sequence[str], base: _OpenRoot, stdin: int
    ) -> Generator[bytes, None, None]:
        """Run xdelta3 on a base and an input; yield what it writes."""
        source = f"/proc/self/fd/{base.descriptor}"
        command = [self._options.program, *words, "-s", source]
        total = wanted.base.size_bytes + wanted.target.size_bytes
        limit = _START_SECONDS + total / _MIN_BYTES_PER_SECOND
        output = stream_tool(command, stdin, [base.descriptor], limit, self._options.is_unwanted)
        try:
            with closing(output):
                yield from output
        except StoppedError:
            raise
        except ToolError as error:
            problem = f"cannot be made: xdelta3 {error}"
            raise _FailedError(Finding(Code.DELTA_FAILED, wanted.path, problem, _AGAIN)) from error


def clear_leftover(mirror: Mirror, version: str) -> None:
    """Remove the hidden directory that a killed run left beside a version, if there is one.

    Errors are ignored: prune removes it in its time.

    Args:
        mirror: the mirror.
        version: the version, relative to ROOT.
    """
    if os.path.lexists(hidden_path(mirror.path(version)) + SUFFIX):
        with suppress(RefusalError, OSError):
            staging = Staging(mirror, version, is_resumable=True, suffix=SUFFIX)
            try:
                staging.keep_only(frozenset())
            finally:
                staging.close()


def _explain(wanted: WantedDelta, error: _FailedError | RefusalError | OSError) -> Finding:
    """Return why a delta could not be made."""
    if isinstance(error, _FailedError):
        return error.finding
    if isinstance(error, RefusalError):
        return Finding(error.code, wanted.version, error.problem, error.remedy)
    is_own = isinstance(error, UnwritableError)
    code, verb = (Code.NOT_WRITTEN, "written") if is_own else (Code.DELTA_FAILED, "made")
    problem = f"cannot be {verb} ({error.strerror or error})"
    return Finding(code, wanted.path, problem, suggest_remedy(error))


class _OpenRoot:
    """A root that is open for reading; it must be what is published, and stay so.

    Args:
        mirror: the mirror.
        root: the root.

    Raises:
        _FailedError: it cannot be opened, or is not what is published.
    """

    def __init__(self, mirror: Mirror, root: Root) -> None:
        self._root = root
        try:
            self.descriptor = mirror.open_file(root.path)
        except OSError as error:
            problem = f"cannot be read ({error.strerror or error})"
            remedy = "see fastindex verify, and put the right file back"
            raise _FailedError(Finding(Code.UNREADABLE, root.path, problem, remedy)) from error
        try:
            status = os.fstat(self.descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise self._fail(Code.NOT_A_FILE, "is not a regular file")
            self.stamp: Stamp = stamp_of(status)
            if status.st_size != root.size_bytes:
                problem = describe_size(status.st_size, root.size_bytes)
                raise self._fail(Code.CHECKSUM_MISMATCH, problem)
            role = classify(os.path.basename(root.path))
            head = files.read_span(self.descriptor, 0, min(HEAD_BYTES, status.st_size))
            fault = None if role is None else find_fault(role, head, status.st_size)
            if fault is not None:
                raise self._fail(fault.code, fault.problem)
        except BaseException:
            self.close()
            raise

    def check_digest(self) -> None:
        """Read all of it; raises _FailedError if it is not what clients have.

        A client's base is what was published. With other bytes here, each client would fail.
        """
        digest = StreamDigest(_HASHING)
        for piece in files.read_windows(self.descriptor, _WINDOW_BYTES, self._root.size_bytes):
            digest.update(piece)
        self.check_unchanged()
        if digest.sha256 != self._root.sha256:
            problem = describe_sha256(digest.sha256, self._root.sha256)
            raise self._fail(Code.CHECKSUM_MISMATCH, problem)

    def check_unchanged(self) -> None:
        """Raise _FailedError if it has changed since it was opened."""
        if stamp_of(os.fstat(self.descriptor)) != self.stamp:
            raise self._fail(Code.CHANGED, "changed while a delta was made")

    def close(self) -> None:
        """Close it."""
        directories.close(self.descriptor)

    def _fail(self, code: Code, problem: str) -> _FailedError:
        remedy = "see fastindex verify, and put the right file back"
        return _FailedError(Finding(code, self._root.path, problem, remedy))

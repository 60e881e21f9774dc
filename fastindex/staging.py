"""A version directory that is whole or not there: made hidden, synced, then renamed.

``.VERSION`` stands beside where ``VERSION`` will stand. It holds ``.importing``, which is
locked while the import runs and marks what a killed one left: only a hidden directory
with that mark is ever cleaned up, as others hide what they are still uploading, too.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, suppress

from fastindex import atomic
from fastindex.errors import LockHeldError, PublishError, RefusalError
from fastindex.scan import bounds_of, is_inside

MARK = ".importing"
_DIRECTORY_MODE = 0o755


_WRITABLE = "give this user the right to write there, or make room"


class StagingError(RefusalError):
    """A version that cannot be put into the tree."""


class Staging:
    """The hidden directory of one import; locked from the start, gone at the end.

    Args:
        root: absolute path of ROOT.
        version_path: STREAM/OS/RELEASE/ARCH/VARIANT/VERSION.

    Raises:
        StagingError: the directory cannot be made, one of another's is in its place, or
            another import of this version is running.
    """

    def __init__(self, root: str, version_path: str) -> None:
        self._target = f"{root}/{version_path}"
        self._product = os.path.dirname(self._target)
        self.path = hidden_path(self._target)
        self._exit = ExitStack()
        if not is_inside(self._product, bounds_of(root, version_path.partition("/")[0])):
            raise StagingError(
                f"{self._product} leads out of the mirror, to {os.path.realpath(self._product)}",
                "remove the symlink on its way",
            )
        try:
            _make_directories(self.path)
            self._require_ours()
            mark = os.path.join(self.path, MARK)
            self._exit.enter_context(atomic.lock(mark, wait_seconds=0))
            self._empty()
        except LockHeldError as error:
            raise StagingError(
                "another import of this version is running", "wait for it"
            ) from error
        except (OSError, PublishError) as error:
            self._exit.close()
            raise StagingError(f"cannot be put into the tree: {error}", _WRITABLE) from error

    def _require_ours(self) -> None:
        names = os.listdir(self.path)
        if names and MARK not in names:
            raise StagingError(
                f"{self.path} is in the way: somebody is uploading this version, or was",
                "rename it to its place, or remove it",
            )

    def link(self, source: str, name: str, status: os.stat_result) -> bool:
        """Hard-link ``source``, which must still be the file of ``status``, as ``name``.

        Returns whether that worked; not across file systems, nor where the system forbids.
        """
        path = os.path.join(self.path, name)
        try:
            os.link(source, path, follow_symlinks=False)
        except OSError:
            return False
        if os.path.samestat(os.lstat(path), status):
            return True
        os.unlink(path)
        return False

    def sync(self, name: str) -> None:
        """Make the bytes of a linked file survive a power cut; raises OSError."""
        descriptor = os.open(os.path.join(self.path, name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def twin(self, first: str, name: str) -> None:
        """Let ``name`` be a hard link to ``first``, as in the source; raises OSError."""
        os.link(os.path.join(self.path, first), os.path.join(self.path, name))

    def write(self, name: str, content: bytes, mtime_ns: int) -> None:
        """Put a small file into the directory; raises OSError."""
        with atomic.NewFile(os.path.join(self.path, name)) as file:
            file.write(memoryview(content))
            file.finish(mtime_ns)

    def publish(self) -> None:
        """Make the version visible, whole and synced.

        Raises:
            OSError: it is not visible; something has come in its place, for instance.
        """
        atomic.sync_directory(self.path)
        os.rename(self.path, self._target)
        self.path = self._target
        with suppress(OSError):
            os.unlink(os.path.join(self._target, MARK))
        atomic.sync_directory(self._product)

    def close(self) -> None:
        """Remove the directory, if it has not been published, and let go of the lock."""
        if self.path != self._target:
            with suppress(OSError):
                self._empty()
                os.unlink(os.path.join(self.path, MARK))
                os.rmdir(self.path)
        self._exit.close()

    def _empty(self) -> None:
        for name in os.listdir(self.path):
            if name != MARK:
                os.unlink(os.path.join(self.path, name))


def hidden_path(path: str) -> str:
    """Return where what is to be at ``path`` is made."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}")


def tidy(version: str) -> None:
    """Remove the mark that an import killed just after publishing ``version`` left in it."""
    with suppress(OSError):
        os.unlink(os.path.join(version, MARK))


def remove_source(path: str, status: os.stat_result) -> bool:
    """Remove a file that has been moved into the tree, if it is still that of ``status``."""
    try:
        found = os.lstat(path)
        is_same = os.path.samestat(found, status) and found.st_mtime_ns == status.st_mtime_ns
        if is_same:
            os.unlink(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return is_same


def is_readable_for_all(path: str, *, may_change: bool) -> bool:
    """Return whether a web server may read ``path``, after a change of its mode if allowed."""
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o444 != 0o444 and may_change:
        with suppress(OSError):
            os.chmod(path, mode | 0o444)
            return True
    return mode & 0o444 == 0o444


def status_of_file(path: str) -> os.stat_result | None:
    """Return the status of a regular file; None where there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _make_directories(path: str) -> None:
    """Make ``path`` and what is missing above it, for all to list, whatever the umask."""
    missing: list[str] = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(directory)
            # Keeps a set-group-ID bit, which mkdir has inherited.
            os.chmod(directory, stat.S_IMODE(os.stat(directory).st_mode) | _DIRECTORY_MODE)
        atomic.sync_directory(os.path.dirname(directory))

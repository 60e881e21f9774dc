"""A version directory that is whole or not there: made hidden, synced, then renamed.

``.VERSION`` stands beside where ``VERSION`` will stand. It holds ``.importing``, which is
locked while the import runs and marks what a killed one left: only a hidden directory
with that mark is ever cleaned up, as others hide what they are still uploading, too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Set
from contextlib import ExitStack, suppress

from fastindex.errors import LockHeldError, PublishError, RefusalError
from fastindex.formats.simplestreams import CACHE_NAME, CachedItem
from fastindex.mirror import cache
from fastindex.mirror.mirror import Mirror
from fastindex.system import directories, locks
from fastindex.system.new_file import NewFile

MARK = ".importing"
_WRITABLE = "give this user the right to write there, or make room"


class StagingError(RefusalError):
    """A version that cannot be put into the tree."""


class Staging:
    """The hidden directory of one import; locked from the start, gone at the end.

    Args:
        mirror: the mirror.
        version_path: STREAM/OS/RELEASE/ARCH/VARIANT/VERSION.

    Raises:
        StagingError: the directory cannot be made, one of another's is in its place, or
            another import of this version is running.
    """

    def __init__(self, mirror: Mirror, version_path: str) -> None:
        product, self._name = os.path.split(mirror.path(version_path))
        # The real path, of which no name is a symlink: what comes in its way is not followed.
        self._product_path = directories.real_path(product)
        self.path = hidden_path(f"{self._product_path}/{self._name}")
        self._hidden = os.path.basename(self.path)
        self._is_published = False
        self._mirror = mirror
        self._version_path = version_path
        if not f"{self._product_path}/".startswith(mirror.bounds):
            raise StagingError(
                f"{product} leads out of the mirror, to {self._product_path}",
                "remove the symlink that leads there",
            )
        with ExitStack() as stack:
            try:
                opened = directories.open_below("/", self._product_path, make=True)
                self._product = stack.enter_context(directories.closing(opened))
                self._directory = stack.enter_context(directories.closing(self._open()))
                self._require_ours()
                mark = os.path.join(self.path, MARK)
                stack.enter_context(locks.lock(mark, 0, self._directory))
                self._empty()
            except LockHeldError as error:
                raise StagingError(
                    "another import of this version is running", "wait until it ends"
                ) from error
            except (OSError, PublishError) as error:
                raise StagingError(f"cannot create it in the tree: {error}", _WRITABLE) from error
            self._exit = stack.pop_all()

    def _open(self) -> int:
        with suppress(FileNotFoundError):
            status = os.stat(self._hidden, dir_fd=self._product, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                raise self._in_the_way("it is not a directory")
        return directories.open_in(self._product, self._hidden, make=True)

    def _require_ours(self) -> None:
        names = os.listdir(self._directory)
        if names and MARK not in names:
            raise self._in_the_way("it holds files that are not an import's")

    def _in_the_way(self, why: str) -> StagingError:
        return StagingError(
            f"{self.path} is in the way: {why}",
            "rename it to the name without the dot, or remove it",
        )

    def link(self, source: str, name: str, status: os.stat_result) -> bool:
        """Hard-link ``source``, which must still be the file of ``status``, as ``name``.

        Returns whether that worked; not across file systems, nor where the system forbids.
        """
        try:
            os.link(source, name, dst_dir_fd=self._directory, follow_symlinks=False)
            there = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
            if os.path.samestat(there, status):
                return True
            os.unlink(name, dir_fd=self._directory)
        except OSError:
            return False
        return False

    def sync_link(self, name: str, *, may_change: bool) -> bool:
        """Make the bytes of a hard-linked file survive a power cut.

        Returns:
            Whether a web server may read it, after a change of its mode if that is allowed.

        Raises:
            OSError: it cannot be synced.
        """
        descriptor = directories.open_file(name, self._directory)
        try:
            os.fsync(descriptor)
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if mode & 0o444 != 0o444 and may_change:
                with suppress(OSError):
                    os.fchmod(descriptor, mode | 0o444)
                    return True
            return mode & 0o444 == 0o444
        finally:
            os.close(descriptor)

    def link_twin(self, first: str, name: str) -> None:
        """Make ``name`` a hard link to ``first``, as it was in the source; raises OSError."""
        here = self._directory
        os.link(first, name, src_dir_fd=here, dst_dir_fd=here, follow_symlinks=False)

    def write(self, name: str, content: bytes, mtime_ns: int) -> None:
        """Put a small file into the directory; raises OSError."""
        with NewFile(os.path.join(self.path, name)) as file:
            file.write(memoryview(content))
            file.finish(mtime_ns)

    def write_cache(self, items: dict[str, CachedItem], metadata_ftypes: Set[str]) -> None:
        """Save the version's cache where the mirror keeps it; raises OSError."""
        if self._mirror.cache_dir is not None:
            cache.save(self._mirror, self._version_path, items, metadata_ftypes)
            return
        path = os.path.join(self.path, CACHE_NAME)
        cache.save_in(self._directory, path, items, metadata_ftypes)

    def publish(self) -> None:
        """Make the version visible, whole and synced.

        Raises:
            OSError: it is not visible; something has come in its place, for instance.
        """
        os.fsync(self._directory)
        above = self._product
        os.rename(self._hidden, self._name, src_dir_fd=above, dst_dir_fd=above)
        self._is_published = True
        with suppress(OSError):
            os.unlink(MARK, dir_fd=self._directory)
        os.fsync(above)

    def close(self) -> None:
        """Remove the directory, if it has not been published, and let go of the lock."""
        if not self._is_published:
            with suppress(OSError):
                self._empty()
                os.unlink(MARK, dir_fd=self._directory)
                os.rmdir(self._hidden, dir_fd=self._product)
        self._exit.close()

    def _empty(self) -> None:
        for name in os.listdir(self._directory):
            if name != MARK:
                os.unlink(name, dir_fd=self._directory)


def hidden_path(path: str) -> str:
    """Return where what is to be at ``path`` is made."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}")


def remove_mark(mirror: Mirror, version_path: str) -> None:
    """Remove the mark that an import killed just after publishing a version left in it."""
    path = mirror.path(version_path)
    with suppress(OSError), directories.open_inside(path, mirror.bounds) as directory:
        os.unlink(MARK, dir_fd=directory)


def remove_source(path: str, status: os.stat_result) -> bool:
    """Remove a file that has been moved into the tree, if it is still that of ``status``."""
    above, name = os.path.split(path)
    try:
        with directories.closing(directories.open_below(above, "")) as directory:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            is_same = os.path.samestat(found, status) and found.st_mtime_ns == status.st_mtime_ns
            if is_same:
                os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return is_same


def status_of_regular_file(path: str) -> os.stat_result | None:
    """Return the status of a regular file; None where there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None

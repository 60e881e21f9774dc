"""A version directory appears complete or not at all: filled while hidden, synced, renamed.

``.VERSION`` is next to where ``VERSION`` will be. It contains ``.importing``, which is locked
while the import runs and marks the remains of a killed one. Only a hidden directory with that
mark is ever emptied: uploaders hide unfinished directories, too. Another import may rename the
directory between the moment when this one opens it and the moment when it has the lock. So what
was opened is looked at again under the lock, and once more after it has been renamed.

A source is removed only if the tree has the same bytes under another directory entry.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Set
from contextlib import ExitStack, suppress

from fastindex.errors import Code, LockHeldError, PublishError, RefusalError, suggest_remedy
from fastindex.formats.simplestreams import (
    CACHE_NAME,
    UNDECODABLE,
    CachedItem,
    decode_state,
    encode_state,
)
from fastindex.mirror import cache
from fastindex.mirror.mirror import Mirror
from fastindex.system import atomic, directories, locks
from fastindex.system.files import read_small_file
from fastindex.system.new_file import NewFile
from fastindex.system.stamps import Stamp, stamp_of

MARK = ".importing"
"""A file in the hidden directory of an import."""
NOTES = ".notes"
"""What one that may be resumed leaves to the next one."""
_MAX_NOTES_BYTES = 64 << 10


class StagingError(RefusalError):
    """A version cannot be put into the tree."""

    code = Code.NOT_WRITTEN


class LinkError(StagingError):
    """A symlink leads out of the mirror."""

    code = Code.LINK_LEADS_OUT


class OvertakenError(StagingError):
    """Another import has just made the version."""

    code = Code.VERSION_EXISTS


def require_writable(mirror: Mirror, version_path: str) -> None:
    """Check that a version can be put into the tree, before there is anything to put there.

    Raises:
        StagingError: this user may not write there.
    """
    directory = mirror.path(os.path.dirname(version_path))
    while not os.path.exists(directory):
        directory = os.path.dirname(directory)
    if not os.path.isdir(directory):
        raise _cannot_create(OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), directory))
    if not os.access(directory, os.W_OK | os.X_OK):
        is_read_only = os.statvfs(directory).f_flag & os.ST_RDONLY
        number = errno.EROFS if is_read_only else errno.EACCES
        raise _cannot_create(OSError(number, os.strerror(number), directory))


def _cannot_create(error: OSError) -> StagingError:
    problem = f"cannot create {error.filename} ({error.strerror or error})"
    return StagingError(problem, suggest_remedy(error))


class Staging:
    """The hidden directory of one import: locked from the start, published or removed at the end.

    Args:
        mirror: the mirror.
        version_path: STREAM/OS/RELEASE/ARCH/VARIANT/VERSION.
        is_resumable: keep what an earlier one left, and leave what is not published to a later one;
            if the version is there, publish what it lacks.
        suffix: what follows the name of the hidden directory, so that it is another one than that
            of an import of the same version.

    Raises:
        StagingError: the directory cannot be created, somebody else's is in its place, or
            another import of this version is running. OvertakenError: another import has made
            this version since the caller looked.
    """

    def __init__(
        self, mirror: Mirror, version_path: str, *, is_resumable: bool = False, suffix: str = ""
    ) -> None:
        self._is_resumable = is_resumable
        self._is_rest = False
        product, self._name = os.path.split(version_path)
        try:
            # The real path has no symlinks. One that is put there later is not followed.
            self._product_path = os.path.join(*mirror.find_place(product))
        except directories.LeadsOutError as error:
            raise LinkError(
                f"{mirror.path(product)} is or goes through a symlink that leads elsewhere",
                "remove the symlink, or allow where it leads with --allow-links DIR",
            ) from error
        self.path = hidden_path(f"{self._product_path}/{self._name}") + suffix
        self._hidden = os.path.basename(self.path)
        self._mirror = mirror
        self._version_path = version_path
        with ExitStack() as stack:
            try:
                opened = directories.open_below("/", self._product_path, make=True)
                self._product = stack.enter_context(directories.closing(opened))
                self._directory = stack.enter_context(directories.closing(self._open()))
                self._require_ours()
                mark = os.path.join(self.path, MARK)
                stack.enter_context(locks.lock(mark, 0, self._directory))
                self._require_absent()
                if not is_resumable:
                    self._empty()
            except LockHeldError as error:
                raise StagingError(
                    "another import of this version is running", "wait until it ends"
                ) from error
            except PublishError as error:
                problem = f"cannot create the version directory: {error}"
                raise StagingError(problem, "see what is there") from error
            except OSError as error:
                error.filename = error.filename or self.path
                raise _cannot_create(error) from error
            self._exit = stack.pop_all()

    def _open(self) -> int:
        with suppress(FileNotFoundError):
            status = os.stat(self._hidden, dir_fd=self._product, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                raise self._obstacle_error("it is not a directory")
        return directories.open_in(self._product, self._hidden, make=True)

    def _require_ours(self) -> None:
        names = os.listdir(self._directory)
        if names and MARK not in names:
            raise self._obstacle_error("it contains files that no import put there")

    def _require_absent(self) -> None:
        """Check, with the lock, that the version is absent and the directory is the hidden one."""
        is_hidden = locks.is_at(self._directory, self._hidden, self._product)
        if not is_hidden:
            with suppress(OSError):  # this import's lock made it in another's version
                os.unlink(MARK, dir_fd=self._directory)
        is_there = not self._is_resumable and _exists(self._name, self._product)
        if not is_hidden or is_there:
            raise OvertakenError("another import has just made this version", "import it again")

    def _obstacle_error(self, why: str) -> StagingError:
        return StagingError(
            f"{self.path} is in the way: {why}",
            "rename it without the leading dot, or remove it",
        )

    def stat_file(self, name: str) -> os.stat_result | None:
        """Return the status of a regular file in the directory; None if there is none.

        Raises:
            OSError: it cannot be told.
        """
        try:
            status = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    def open_file(self, name: str) -> int:
        """Open a file in the directory for reading; the caller closes its descriptor.

        Raises:
            OSError: it cannot be opened.
        """
        return directories.open_file(name, self._directory)

    def keep_only(self, names: Set[str]) -> None:
        """Remove what an earlier one left, but for the files with these names.

        Raises:
            OSError: it cannot be removed.
        """
        for name in os.listdir(self._directory):
            if name not in (MARK, NOTES) and (name not in names or self.stat_file(name) is None):
                os.unlink(name, dir_fd=self._directory)

    def remove(self, name: str) -> None:
        """Remove a file from the directory, if it is there.

        Raises:
            OSError: it cannot be removed.
        """
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._directory)

    def write_notes(self, notes: dict[str, str]) -> None:
        """Leave notes to a later one; they vanish when the version is published.

        Raises:
            OSError: they cannot be written.
        """
        path, data = os.path.join(self.path, NOTES), encode_state(notes)
        atomic.replace_file(path, data, is_durable=False, directory=self._directory)

    def link(self, source: str, name: str, status: os.stat_result) -> bool:
        """Hard-link a file into the directory.

        Args:
            source: its path.
            name: its name in the directory.
            status: of the file that must still be at ``source``.

        Returns:
            Whether it is linked. Across file systems, and where the system forbids it, it
            is not.
        """
        try:
            os.link(source, name, dst_dir_fd=self._directory, follow_symlinks=False)
            linked = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
            if os.path.samestat(linked, status):
                return True
            os.unlink(name, dir_fd=self._directory)
        except OSError:
            return False
        return False

    def sync_link(self, name: str, *, may_change: bool) -> bool:
        """Make the bytes of a hard-linked file survive a power cut.

        Args:
            name: its name in the directory.
            may_change: whether its mode may be changed so that everybody can read it.

        Returns:
            Whether everybody, hence the web server, can read it now.

        Raises:
            OSError: it cannot be opened or synced.
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
        """Hard-link a file in the directory under another name, as it was in the source.

        Args:
            first: the file's name.
            name: the new name.

        Raises:
            OSError: it cannot be linked.
        """
        here = self._directory
        os.link(first, name, src_dir_fd=here, dst_dir_fd=here, follow_symlinks=False)

    def write(self, name: str, content: bytes, mtime_ns: int) -> None:
        """Write a small file into the directory.

        Args:
            name: its name in the directory.
            content: its bytes.
            mtime_ns: its modification time, in ns since the epoch.

        Raises:
            OSError: it cannot be written.
        """
        with NewFile(os.path.join(self.path, name)) as file:
            file.write(memoryview(content))
            file.finish(mtime_ns)

    def write_cache(self, items: dict[str, CachedItem], metadata_ftypes: Set[str]) -> None:
        """Write the version's cache to where the mirror keeps it.

        Args:
            items: file name → item.
            metadata_ftypes: the ftypes of the metadata files in the version.

        Raises:
            OSError: it cannot be written.
        """
        data = cache.encode_cache(items, metadata_ftypes)
        if self._mirror.cache_dir is not None:
            cache.save(self._mirror, self._version_path, data)
            return
        cache.save_in(self._directory, os.path.join(self.path, CACHE_NAME), data)

    def publish(self) -> None:
        """Sync the directory and give it its visible name.

        If the version is there already, it gets the files that it lacks, and keeps its own.

        Raises:
            OSError: it cannot be synced or renamed, for instance because another directory
                has that name by now; or another directory was put in its place and got the name.
        """
        self.remove(NOTES)
        os.fsync(self._directory)
        above = self._product
        if self._is_resumable and _exists(self._name, above):
            self.publish_rest()
            return
        os.rename(self._hidden, self._name, src_dir_fd=above, dst_dir_fd=above)
        if not locks.is_at(self._directory, self._name, above):
            raise OSError(None, "another directory was put in its place meanwhile", self.path)
        os.fsync(above)

    def publish_rest(self) -> None:
        """Move what the visible version lacks into it, each file whole; the cache comes last.

        Raises:
            OSError: there is no such version, or a file cannot be moved or the move not be synced.
        """
        self._is_rest = True
        here = self._directory
        version = directories.open_in(self._product, self._name)
        with directories.closing(version):
            names = [name for name in os.listdir(here) if name not in (MARK, CACHE_NAME)]
            for name in names:
                if _exists(name, version):
                    os.unlink(name, dir_fd=here)
                else:
                    os.rename(name, name, src_dir_fd=here, dst_dir_fd=version)
            with suppress(FileNotFoundError):
                os.rename(CACHE_NAME, CACHE_NAME, src_dir_fd=here, dst_dir_fd=version)
            os.fsync(version)
            os.fsync(here)

    def complete(self) -> None:
        """Remove the mark of the published directory: nothing of the import is left to be done.

        A directory that is still hidden keeps it: it goes when it is closed. Errors are ignored.
        """
        if self._is_rest:
            return
        with suppress(OSError):
            os.unlink(MARK, dir_fd=self._directory)

    def close(self) -> None:
        """Release the lock; remove the directory unless it is published, or may be resumed.

        What counts is the name that it has on the disk: a rename may have been done although it,
        or what followed it, was said to have failed.
        """
        with suppress(OSError):
            is_left = self._is_resumable and self._has_files()
            if not is_left and locks.is_at(self._directory, self._hidden, self._product):
                self._empty()
                os.unlink(MARK, dir_fd=self._directory)
                os.rmdir(self._hidden, dir_fd=self._product)
        self._exit.close()

    def _has_files(self) -> bool:
        return any(name not in (MARK, NOTES) for name in os.listdir(self._directory))

    def _empty(self) -> None:
        for name in os.listdir(self._directory):
            if name != MARK:
                os.unlink(name, dir_fd=self._directory)


class Scratch:
    """Files that an import makes itself, in a temporary directory of their own."""

    def __init__(self) -> None:
        self._directory = ""
        self._count = 0

    def write(self, name: str, content: bytes, mtime_ns: int) -> str:
        """Write a file; return its path.

        Args:
            name: its name.
            content: its bytes.
            mtime_ns: its modification time, in ns since the epoch.

        Raises:
            OSError: it cannot be written.
        """
        # The real path, as no symlink on the way to a new file is followed.
        self._directory = self._directory or directories.real_path(tempfile.mkdtemp())
        self._count += 1
        above = f"{self._directory}/{self._count}"
        os.mkdir(above)
        with NewFile(f"{above}/{name}") as file:
            file.write(memoryview(content))
            file.finish(mtime_ns)
        return f"{above}/{name}"

    def close(self) -> None:
        """Remove them all. Errors are ignored."""
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)


def write_settings(mirror: Mirror, path: str, content: bytes) -> None:
    """Write a settings file into a product's directory, atomically.

    Args:
        mirror: the mirror.
        path: the file, relative to ROOT.
        content: its bytes.

    Raises:
        OSError: it cannot be written; the old one is unchanged.
    """
    with mirror.open_directory(os.path.dirname(path)) as directory:
        atomic.replace_file(mirror.path(path), content, directory=directory)


def hidden_path(path: str) -> str:
    """Return the path of the hidden directory that is renamed to ``path`` in the end."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}")


def read_notes(hidden: str) -> dict[str, str]:
    """Return the notes that an earlier one left in a hidden directory, if they can be used."""
    try:
        return decode_state(read_small_file(f"{hidden}/{NOTES}", _MAX_NOTES_BYTES), dict[str, str])
    except (OSError, *UNDECODABLE):
        return {}


def has_mark(mirror: Mirror, version_path: str) -> bool:
    """Return whether the import of a version was killed before it removed all sources.

    Args:
        mirror: the mirror.
        version_path: the version, relative to ROOT.
    """
    with suppress(OSError), mirror.open_directory(version_path) as directory:
        os.stat(MARK, dir_fd=directory, follow_symlinks=False)
        return True
    return False


def remove_mark(mirror: Mirror, version_path: str) -> None:
    """Remove the mark of an import that was killed after it published a version.

    Errors are ignored.

    Args:
        mirror: the mirror.
        version_path: the version, relative to ROOT.
    """
    with suppress(OSError), mirror.open_directory(version_path) as directory:
        os.unlink(MARK, dir_fd=directory)


def remove_source(
    mirror: Mirror, path: str, status: os.stat_result, target: str, stamp: Stamp | None = None
) -> str:
    """Remove a source file of which the tree has a copy; the caller knows that it is equal.

    Args:
        mirror: the mirror.
        path: the source.
        status: of the file that was imported; another file at ``path`` is not removed.
        target: the copy in the tree, an absolute path. Symlinks may lead to it.
        stamp: what the copy must have; None: any.

    Returns:
        Why the source stays, for people; "" if it is gone.
    """
    above, name = os.path.split(path)
    try:
        with directories.closing(directories.open_below(above, "")) as directory:
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                return ""
            if not os.path.samestat(found, status) or found.st_mtime_ns != status.st_mtime_ns:
                return "it has changed since it was imported"
            if not _has_another_entry(mirror, target, stamp, directory, name, found):
                return "it is itself the file that the version in the tree leads to"
            os.unlink(name, dir_fd=directory)
    except OSError as error:
        return f"{error.strerror or error}"
    return ""


def _has_another_entry(
    mirror: Mirror,
    target: str,
    stamp: Stamp | None,
    directory: int,
    name: str,
    found: os.stat_result,
) -> bool:
    """Return whether the file in the tree stays when the entry ``name`` is removed.

    Raises:
        OSError: the file in the tree is missing, has changed or is not in the mirror.
    """
    top, real = mirror.find_place(os.path.relpath(target, mirror.root))
    there, kept_name = os.path.split(real)
    with directories.closing(directories.open_below(top, there)) as above:
        kept = os.stat(kept_name, dir_fd=above, follow_symlinks=False)
        if not stat.S_ISREG(kept.st_mode) or stamp not in (None, stamp_of(kept)):
            raise OSError(None, "the file in the tree has changed meanwhile")
        is_entry = name == kept_name and os.path.samestat(os.fstat(directory), os.fstat(above))
    # A bind mount or a file system that ignores case shows one entry under two names.
    return not is_entry and (kept.st_nlink > 1 or not os.path.samestat(kept, found))


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def stat_regular_file(path: str) -> os.stat_result | None:
    """Return the status of the regular file at ``path``; None if there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None

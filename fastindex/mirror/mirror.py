"""Where a mirror's files are: one value, made once and passed to every operation."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

from msgspec import Struct
from msgspec.structs import replace
from xxhash import xxh3_128_hexdigest

from fastindex.errors import (
    PublishError,
    ResourceError,
    TreeError,
    UsageError,
    translate_system_errors,
)
from fastindex.formats.names import PRODUCT_DEPTH, is_stream_name
from fastindex.formats.simplestreams import CACHE_NAME, STREAMS_DIRECTORY, product_file_path
from fastindex.mirror.levels import explain_missing_stream, find_version
from fastindex.system import atomic, directories, locks
from fastindex.system.files import exists, read_small_file

DEFAULT_STREAMS = ("images",)
LOCK_NAME = ".lock"
"""The mirror's lock, in ``streams/``."""
OWNER_NAME = ".root"
"""A file in a cache directory with the real path of the root whose caches are in it. The caches of
other roots are in a directory of their own each: equal paths, sizes and times below two roots do
not make equal files."""
_OTHERS_NAME = ".other-roots"
_MAX_OWNER_BYTES = 1 << 16


class Mirror(Struct, frozen=True):
    """The directories of a mirror, as absolute paths. Make one with ``Mirror.at``."""

    root: str
    """The directory that the web server serves; it contains the stream directories."""
    output: str
    """The directory that contains ``streams/``, or will."""
    cache_dir: str | None
    """Where the ``.items.json`` caches go; None: into the tree."""
    streams: tuple[str, ...]
    """Names of the stream directories in ``root``; each has its own product file."""
    bounds: tuple[str, ...]
    """Prefixes of the real paths that belong to the mirror, each with a final ``/``: ROOT, the
    streams, which may be symlinks to other disks, and ``allowed_links``. Nothing else is read,
    written or deleted."""
    allowed_links: tuple[str, ...] = ()
    """Prefixes of the real paths that any symlink in the tree may lead to, each with a final
    ``/``. All other symlinks must stay within their product's directory."""

    @classmethod
    @translate_system_errors()
    def at(
        cls,
        root: str | os.PathLike[str],
        *,
        output: str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        streams: Sequence[str] = DEFAULT_STREAMS,
        allow_links: Sequence[str | os.PathLike[str]] = (),
    ) -> Mirror:
        """Return the mirror at ``root``. The directories need not exist yet.

        Args:
            root: the directory that the web server serves.
            output: the directory for ``streams/``; None: ``root``.
            cache_dir: the directory for the caches; None or ``root``: they go into the tree.
            streams: names of stream directories in ``root``.
            allow_links: directories that any symlink in the tree may lead to.

        Raises:
            UsageError: a path or a stream cannot have its name, a stream is named twice or
                there is none, or ``streams`` is a ``str``, which would be a stream a letter.
            ResourceError: a path is relative, and the current directory has been deleted.
        """
        absolute_root = make_absolute(root)
        names = _check_streams(streams)
        if isinstance(allow_links, str | os.PathLike):
            raise UsageError(f"allow_links must be a sequence of paths, such as ({allow_links!r},)")
        allowed = directories.bounds_of(*map(make_absolute, allow_links)) if allow_links else ()
        return cls(
            absolute_root,
            absolute_root if output is None else make_absolute(output),
            _find_cache_dir(absolute_root, cache_dir),
            names,
            (*directories.bounds_of(absolute_root, *names), *allowed),
            allowed,
        )

    def with_streams(self, streams: Sequence[str]) -> Mirror:
        """Return the same mirror with other streams.

        Args:
            streams: names of stream directories in ``root``.

        Raises:
            UsageError: as ``at`` does for ``streams``.
        """
        return Mirror.at(
            self.root,
            output=self.output,
            cache_dir=self.cache_dir,
            streams=streams,
            allow_links=self.allowed_links,
        )

    def path(self, relative: str) -> str:
        """Return the absolute path of ``relative``, a path relative to ROOT."""
        return f"{self.root}/{relative}"

    def cache_path(self, version_path: str) -> str:
        """Return the absolute path of the cache of a version (a path relative to ROOT)."""
        return f"{self.cache_dir or self.root}/{version_path}/{CACHE_NAME}"

    @contextmanager
    def open_directory(self, relative: str) -> Iterator[int]:
        """Open a directory of the tree, and close it when the context ends.

        Symlinks may lead to it from within its product's directory, or to ``allowed_links``. An
        uploader who puts another one in the way, even while this runs, gets an error: what is
        written, deleted or read through the descriptor is his own.

        Args:
            relative: a path relative to ROOT, which starts with the stream.

        Raises:
            LeadsOutError: a symlink leads to where it may not.
            OSError: the directory cannot be opened, or a symlink has been put in its way.
        """
        stream, _, rest = relative.partition("/")
        try:
            descriptor = directories.open_below(self.path(stream), rest)
        except OSError as error:
            if error.errno not in directories.SYMLINK_ERRNOS:
                raise
            descriptor = directories.open_below(*self.find_place(relative))
        with directories.closing(descriptor):
            yield descriptor

    def open_file(self, relative: str) -> int:
        """Open a file of the tree for reading, as ``open_directory`` opens its directory.

        Args:
            relative: a path relative to ROOT, which starts with the stream.

        Returns:
            Its descriptor; the caller closes it.

        Raises:
            LeadsOutError: a symlink leads to where it may not.
            OSError: the file cannot be opened, or a symlink has been put in its way.
        """
        above, name = os.path.split(relative)
        try:
            with self.open_directory(above) as directory:
                return directories.open_file(name, directory)
        except OSError as error:
            if error.errno not in directories.SYMLINK_ERRNOS:
                raise
        top, real = self.find_place(relative)
        above, name = os.path.split(real)
        with directories.closing(directories.open_below(top, above)) as directory:
            return directories.open_file(name, directory)

    def find_place(self, relative: str) -> tuple[str, str]:
        """Return where a path in the tree leads: a trusted directory, and a real path below it.

        A symlink may lead to anywhere in its product's directory; above the products, as that of a
        settings file, to what is beside it.

        Args:
            relative: a path relative to ROOT, which starts with the stream. It need not exist.

        Raises:
            LeadsOutError: they lead to where they may not.
        """
        path = self.path(relative)
        real = directories.real_path(path)
        for allowed in self.allowed_links:
            if f"{real}/".startswith(allowed):
                return allowed, real[len(allowed) :]
        stream, *names = relative.split("/")
        top = os.path.join(directories.real_path(self.path(stream)), "")
        if len(names) < PRODUCT_DEPTH:
            is_own = os.path.dirname(real) == os.path.join(top, *names[:-1]).rstrip("/")
        else:
            is_own = f"{real}/".startswith(os.path.join(top, *names[:PRODUCT_DEPTH], ""))
        if not is_own:
            raise directories.LeadsOutError(path)
        return top, real[len(top) :]

    def state_path(self, name: str) -> str:
        """Return the absolute path of ``name``, a file in ``streams/`` for the next runs."""
        return os.path.join(self.output, STREAMS_DIRECTORY, name)

    def claim_cache_dir(self) -> Mirror:
        """Record that the cache directory is this root's, unless it is another's already.

        Returns:
            The mirror, with a cache directory that no other root uses.
        """
        if self.cache_dir is None or _OTHERS_NAME in self.cache_dir.split(os.sep):
            return self
        owner = os.path.join(self.cache_dir, OWNER_NAME)
        # A directory that cannot be written holds no caches that could be mixed up.
        with suppress(OSError, PublishError), locks.lock(f"{owner}.lock", math.inf):
            if not exists(owner):
                real_root = os.fsencode(directories.real_path(self.root))
                atomic.replace_file(owner, real_root + b"\n", is_durable=False)
        return replace(self, cache_dir=_find_cache_dir(self.root, self.cache_dir))

    def lock(self, wait_seconds: float) -> AbstractContextManager[None]:
        """Return a context that holds the mirror's lock; only one run at a time has it.

        Args:
            wait_seconds: how long to wait for another run; 0: not at all.

        Raises:
            LockHeldError: on entry: another run holds it.
            PublishError: on entry: it cannot be created.
        """
        return locks.lock(self.state_path(LOCK_NAME), wait_seconds)

    def require_root(self) -> None:
        """Check that ``root`` is a directory, and neither a stream directory nor a part of one.

        Raises:
            TreeError: it is not.
        """
        if not os.path.isdir(self.root):
            raise TreeError(
                f"{self.root}: no such directory; ROOT must be the directory that the web "
                "server serves"
            )
        own = (*self.streams, STREAMS_DIRECTORY)
        if any(os.path.lexists(os.path.join(self.root, name)) for name in own):
            return
        parent, name = os.path.split(self.root)
        is_published = os.path.isfile(os.path.join(parent, product_file_path(name)))
        if is_published and self.output != parent:
            raise TreeError(
                f"{self.root}: this looks like the stream directory of {parent}; "
                f"give {parent} for ROOT"
            )
        if len(find_version(self.root)) == PRODUCT_DEPTH + 1:
            problem, remedy = explain_missing_stream(self.root, self.streams[0])
            raise TreeError(f"{self.root}: {problem}; {remedy}")


def _find_cache_dir(root: str, cache_dir: str | os.PathLike[str] | None) -> str | None:
    if cache_dir is None:
        return None
    path = make_absolute(cache_dir)
    real_root = directories.real_path(root)
    if directories.real_path(path) == real_root:
        return None
    try:
        owner = read_small_file(os.path.join(path, OWNER_NAME), _MAX_OWNER_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError):
        return path
    if owner == real_root:
        return path
    return os.path.join(path, _OTHERS_NAME, xxh3_128_hexdigest(os.fsencode(real_root)))


def make_absolute(path: str | os.PathLike[str]) -> str:
    """Return ``path`` as an absolute path; only symlinks before a ``..`` are resolved.

    A ``..`` after a symlink means the parent of the directory that the symlink leads to.

    Raises:
        UsageError: it is a path of bytes, is empty or has a character that no path can have.
        ResourceError: it is relative, and the current directory has been deleted.
    """
    name = os.fspath(path)
    if not isinstance(name, str) or not name or not _can_be_path(name):
        raise UsageError(f"{name!r} cannot be a path; give the path of a directory or file")
    parts = name.split(os.sep)
    try:
        if os.pardir not in parts:
            return os.path.abspath(name)
        end = len(parts) - parts[::-1].index(os.pardir)
        head = directories.real_path(os.sep.join(parts[:end]))
        if not head:
            raise UsageError(f"{name!r}: too many levels of symlinks; give a shorter path")
        return os.path.abspath(os.path.join(head, *parts[end:]))
    except FileNotFoundError as error:
        raise ResourceError(
            f"{name!r}: the current directory has been deleted; give an absolute path"
        ) from error


def _can_be_path(name: str) -> bool:
    """Return whether a file could be called so: no null byte, no lone surrogate."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _check_streams(streams: Sequence[str]) -> tuple[str, ...]:
    if isinstance(streams, str):
        raise UsageError(f"streams must be a sequence of names, such as ({streams!r},)")
    names = tuple(streams)
    if not names or len(set(names)) < len(names):
        raise UsageError("--stream: name at least one stream, and each of them once")
    for name in names:
        if not isinstance(name, str) or not is_stream_name(name):
            raise UsageError(f"--stream {name!r}: not a valid name of a stream directory")
    return names

"""The public API: a mirror, and a method for everything that can be done with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from typing import final

from fastindex.catalogue.images import Image
from fastindex.errors import UsageError
from fastindex.events import Observer
from fastindex.formats.image_metadata import Naming
from fastindex.hashing.options import HashingOptions
from fastindex.mirror import mirror as places
from fastindex.operations.build.options import BuildOptions, BuildReport
from fastindex.operations.build.pipeline import build
from fastindex.operations.importer.options import ImportOptions, ImportReport, Mode
from fastindex.operations.prune.options import (
    DEFAULT_GRACE_SECONDS,
    DEFAULT_KEEP,
    PruneOptions,
    PruneReport,
)
from fastindex.operations.verify.options import Method, VerifyOptions, VerifyReport


@final
class Mirror:
    """A mirror of Incus and LXD images.

    Every method raises ``fastindex.FastindexError`` or one of its subclasses, and nothing
    else, where the mirror, the options or the system make it fail. Methods may be called in
    any thread; only one run at a time changes a mirror, which its lock guarantees.

    Args:
        root: the directory that a web server serves: the one with the stream directories.
        output: where ``streams/`` goes; None: into ``root``.
        cache_dir: where the ``.items.json`` caches go; None: into the tree.
        streams: names of the stream directories in ``root``.

    Raises:
        UsageError: a path is empty; a stream cannot have its name or is named twice; or
            ``streams`` is a ``str``.
    """

    __slots__ = ("_places",)

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        output: str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        streams: Sequence[str] = places.DEFAULT_STREAMS,
    ) -> None:
        self._places = places.Mirror.at(root, output=output, cache_dir=cache_dir, streams=streams)

    def __repr__(self) -> str:
        at = self._places
        return (
            f"Mirror({at.root!r}, output={at.output!r}, cache_dir={at.cache_dir!r}, "
            f"streams={at.streams!r})"
        )

    @property
    def root(self) -> str:
        """The absolute path of the directory that is served."""
        return self._places.root

    @property
    def output(self) -> str:
        """The absolute path of the directory with ``streams/``."""
        return self._places.output

    @property
    def cache_dir(self) -> str | None:
        """The absolute path of the caches; None: they are in the tree."""
        return self._places.cache_dir

    @property
    def streams(self) -> tuple[str, ...]:
        """The names of its stream directories."""
        return self._places.streams

    def build(
        self,
        *,
        jobs: int | None = None,
        engine: str = "auto",
        blake3: bool = True,
        rehash: bool = False,
        recheck: str = "",
        settle_seconds: float = 0,
        wait_seconds: float = 0,
        force: bool = False,
        dry_run: bool = False,
        executor: Executor | None = None,
        observer: Observer | None = None,
    ) -> BuildReport:
        """Hash what is new, and write the catalogue that clients read.

        Args:
            jobs: worker processes; None: as many as CPUs that this process may use. In a
                process with several threads, threads do the work.
            engine: what computes SHA-256: ``auto``, ``hashlib`` or ``lanes``.
            blake3: compute BLAKE3 too, for later scrubbing.
            rehash: read every file again, whatever the cache says.
            recheck: the share of versions to read again and compare, as ``1/30``.
            settle_seconds: leave versions with files younger than this for the next run.
            wait_seconds: how long to wait for the lock; ``inf``: for ever.
            force: publish even where more than half of the versions, or all, would go.
            dry_run: write nothing, take no lock; the report tells what would change.
            executor: where to hash instead of workers of our own; it is not shut down.
            observer: told of progress and findings.

        Returns:
            What was done, with a finding for everything that was left out.

        Raises:
            UsageError: options that make no sense.
            TreeError: a stream directory is missing or has become empty, or what an earlier
                run left cannot be read.
            BrakeError: more than half of the published versions would go.
            LockHeldError: another run holds the lock.
            PublishError: the catalogue could not be written.
            ResourceError: the system ran out of something.
        """
        options = BuildOptions(
            hashing=HashingOptions(jobs=jobs, engine=engine, blake3=blake3),
            rehash=rehash,
            recheck=recheck,
            settle_seconds=settle_seconds,
            wait_seconds=wait_seconds,
            force=force,
            dry_run=dry_run,
        )
        return build(self._places, options, executor=executor, observer=observer)

    def diff(
        self,
        *,
        jobs: int | None = None,
        engine: str = "auto",
        executor: Executor | None = None,
        observer: Observer | None = None,
    ) -> BuildReport:
        """Tell what the next build would change; a dry run of it.

        Args:
            jobs: as for ``build``.
            engine: as for ``build``.
            executor: as for ``build``.
            observer: told of progress and findings.

        Returns:
            The report of the build; ``changes`` is what would change, ``refusal`` why the
            build would publish nothing.

        Raises:
            UsageError: options that make no sense.
            TreeError: as for ``build``.
            ResourceError: the system ran out of something.
        """
        return self.build(
            jobs=jobs, engine=engine, dry_run=True, executor=executor, observer=observer
        )

    def import_images(
        self,
        sources: Iterable[str | os.PathLike[str]],
        *,
        mode: Mode = "move",
        os: str = "",
        release: str = "",
        arch: str = "",
        variant: str = "",
        version: str = "",
        from_serial: bool = False,
        jobs: int | None = None,
        engine: str = "auto",
        blake3: bool = True,
        dry_run: bool = False,
        executor: Executor | None = None,
        observer: Observer | None = None,
    ) -> ImportReport:
        """Put images that builders made into the tree, each complete or not at all.

        Args:
            sources: directories, one image each, and files.
            mode: what becomes of the sources: ``move``, ``copy`` or ``link``.
            os: the distribution; empty: what the image's metadata says. Likewise ``release``,
                ``arch`` and ``variant``.
            release: see ``os``.
            arch: see ``os``.
            variant: see ``os``.
            version: the version's name; empty: the creation date, as ``20240505_05:24``.
            from_serial: take the builder's serial for the version's name.
            jobs: as for ``build``.
            engine: as for ``build``.
            blake3: as for ``build``.
            dry_run: change nothing; the report tells each step.
            executor: as for ``build``.
            observer: told of progress and findings.

        Returns:
            What was done; an image that could not be imported is a finding and a count.

        Raises:
            UsageError: options that make no sense, or the mirror has several streams.
            TreeError: the root directory is missing, or what is withdrawn cannot be read.
            PublishError: that a withdrawal is forgotten could not be written.
            ResourceError: the system ran out of something.
        """
        from fastindex.operations.importer.run import import_images

        options = ImportOptions(
            sources=_list_paths("sources", sources),
            mode=mode,
            naming=Naming(
                os=os,
                release=release,
                arch=arch,
                variant=variant,
                version=version,
                from_serial=from_serial,
            ),
            hashing=HashingOptions(jobs=jobs, engine=engine, blake3=blake3),
            dry_run=dry_run,
        )
        return import_images(self._places, options, executor=executor, observer=observer)

    def verify(
        self,
        *,
        method: Method = "known",
        jobs: int | None = None,
        engine: str = "auto",
        executor: Executor | None = None,
        observer: Observer | None = None,
    ) -> VerifyReport:
        """Check all that is published against the disk, and against the contract.

        Args:
            method: ``known``: BLAKE3 where the caches know it, SHA-256 elsewhere;
                ``sha256``: what clients check; ``quick``: names and sizes only.
            jobs: as for ``build``.
            engine: as for ``build``.
            executor: as for ``build``.
            observer: told of progress and findings.

        Returns:
            All mismatches; it never stops at the first.

        Raises:
            UsageError: options that make no sense.
            TreeError: the root directory is missing, or nothing is published.
            ResourceError: the system ran out of something.
        """
        from fastindex.operations.verify.run import verify

        options = VerifyOptions(method=method, hashing=HashingOptions(jobs=jobs, engine=engine))
        return verify(self._places, options, executor=executor, observer=observer)

    def list(self, *, every_version: bool = False) -> tuple[Image, ...]:
        """Return the published images as clients see them, product by product, newest first.

        Args:
            every_version: not only the newest image of each product and type.

        Raises:
            TreeError: nothing is published.
            ResourceError: the system ran out of something.
        """
        from fastindex.operations.listing import list_published

        return list_published(self._places, every_version=every_version).images

    def prune(
        self,
        *,
        keep: int = DEFAULT_KEEP,
        keep_days: int = 0,
        grace_seconds: float = DEFAULT_GRACE_SECONDS,
        settle_seconds: float = 0,
        wait_seconds: float = 0,
        jobs: int | None = None,
        engine: str = "auto",
        dry_run: bool = False,
        observer: Observer | None = None,
    ) -> PruneReport:
        """Withdraw old versions; delete what was withdrawn long enough ago.

        Args:
            keep: how many versions of each product stay, at least 1.
            keep_days: versions dated less than this many days ago stay, too.
            grace_seconds: how long files outlive the last catalogue that named them.
            settle_seconds: as for ``build``, which this ends with.
            wait_seconds: as for ``build``.
            jobs: as for ``build``.
            engine: as for ``build``.
            dry_run: change nothing; the report tells each step.
            observer: told of progress and findings.

        Raises:
            FastindexError: as for ``build``; what was to be deleted waits.
        """
        from fastindex.operations.prune.run import prune

        build_options = _build_options(settle_seconds, wait_seconds, jobs, engine, dry_run)
        options = PruneOptions(
            keep=keep, keep_days=keep_days, grace_seconds=grace_seconds, build=build_options
        )
        return prune(self._places, options, observer=observer)

    def remove(
        self,
        names: Iterable[str],
        *,
        grace_seconds: float = DEFAULT_GRACE_SECONDS,
        settle_seconds: float = 0,
        wait_seconds: float = 0,
        jobs: int | None = None,
        engine: str = "auto",
        dry_run: bool = False,
        observer: Observer | None = None,
    ) -> PruneReport:
        """Withdraw images; delete their files once the grace has passed.

        Args:
            names: fingerprints, their prefixes (4 digits or more), or aliases.
            grace_seconds: as for ``prune``.
            settle_seconds: as for ``build``, which this ends with.
            wait_seconds: as for ``build``.
            jobs: as for ``build``.
            engine: as for ``build``.
            dry_run: change nothing; the report tells each step.
            observer: told of progress and findings.

        Raises:
            UsageError: a name fits no image, or a prefix several.
            FastindexError: as for ``build``.
        """
        from fastindex.operations.prune.run import remove

        build_options = _build_options(settle_seconds, wait_seconds, jobs, engine, dry_run)
        options = PruneOptions(grace_seconds=grace_seconds, build=build_options)
        return remove(self._places, options, _list_names("names", names), observer=observer)

    def restore(
        self,
        versions: Iterable[str],
        *,
        settle_seconds: float = 0,
        wait_seconds: float = 0,
        jobs: int | None = None,
        engine: str = "auto",
        dry_run: bool = False,
        observer: Observer | None = None,
    ) -> PruneReport:
        """Publish withdrawn versions again, while their files are there.

        Args:
            versions: STREAM/OS/RELEASE/ARCH/VARIANT/VERSION, or an unambiguous end of it.
            settle_seconds: as for ``build``, which this ends with.
            wait_seconds: as for ``build``.
            jobs: as for ``build``.
            engine: as for ``build``.
            dry_run: change nothing; the report tells each step.
            observer: told of progress and findings.

        Raises:
            UsageError: one is not withdrawn.
            TreeError: the files of one are gone.
            FastindexError: as for ``build``.
        """
        from fastindex.operations.prune.run import restore

        build_options = _build_options(settle_seconds, wait_seconds, jobs, engine, dry_run)
        options = PruneOptions(build=build_options)
        return restore(self._places, options, _list_names("versions", versions), observer=observer)


def _build_options(
    settle_seconds: float, wait_seconds: float, jobs: int | None, engine: str, dry_run: bool
) -> BuildOptions:
    return BuildOptions(
        hashing=HashingOptions(jobs=jobs, engine=engine),
        settle_seconds=settle_seconds,
        wait_seconds=wait_seconds,
        dry_run=dry_run,
    )


def _list_paths(what: str, paths: Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    """Return ``paths``; raises UsageError where they are a single one."""
    _refuse_single(what, paths)
    return tuple(os.fspath(path) for path in paths)


def _list_names(what: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return ``names``; raises UsageError where they are a single one, or one is no ``str``."""
    _refuse_single(what, names)
    listed = tuple(names)
    for name in listed:
        if not isinstance(name, str):
            raise UsageError(f"{what} must be strings, not {name!r}")
    return listed


def _refuse_single(what: str, values: object) -> None:
    """Raise UsageError where ``values`` is a path or a name, not several."""
    if isinstance(values, str | bytes | os.PathLike):
        raise UsageError(f"{what} must be a sequence, such as [{values!r}]")

"""The public API: a mirror, with a method for everything that can be done to it."""

from __future__ import annotations

import math
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
from fastindex.operations.builder.options import BuildOptions, BuildReport
from fastindex.operations.builder.pipeline import build
from fastindex.operations.check.options import (
    DEFAULT_EXPIRY_SECONDS,
    CheckOptions,
    CheckReport,
)
from fastindex.operations.deltas.options import DEFAULT_MAX_RATIO, DeltasOptions, DeltasReport
from fastindex.operations.importer.options import ImportOptions, ImportReport, Mode
from fastindex.operations.prune.options import (
    DEFAULT_GRACE_SECONDS,
    DEFAULT_KEEP,
    PruneOptions,
    PruneReport,
)
from fastindex.operations.pull.options import DEFAULT_KEEP as DEFAULT_KEEP_PULLED
from fastindex.operations.pull.options import PullOptions, PullReport
from fastindex.operations.push.options import PushOptions, PushReport
from fastindex.operations.status.options import StatusOptions, StatusReport
from fastindex.operations.verify.options import Method, VerifyOptions, VerifyReport
from fastindex.remote.options import RemoteOptions
from fastindex.remote.store_options import StoreOptions


@final
class Mirror:
    """A mirror of Incus and LXD images.

    Where the mirror, the options or the system make a method fail, it raises a subclass of
    ``fastindex.FastindexError`` and nothing else. An argument of a wrong type may raise
    ``TypeError``. Methods may be called in any thread; the mirror's lock makes sure that only one
    run at a time changes it.

    Args:
        root: the directory that the web server serves, with the stream directories in it. A
            relative path is made absolute once: later changes of the current directory do not
            matter.
        output: the directory below which ``streams/`` is published; None: ``root``.
        cache_dir: the directory below which the ``.items.json`` caches are kept; None: the tree.
        streams: names of the stream directories in ``root``.
        allow_links: directories that any symlink in the tree may lead to; all others must stay
            within the directory of their product.

    Raises:
        UsageError: a path or a stream cannot have its name, a stream is named twice, there is
            none, or ``streams`` is a ``str``.
        ResourceError: a path is relative, and the current directory has been deleted.
    """

    __slots__ = ("_places",)

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        output: str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        streams: Sequence[str] = places.DEFAULT_STREAMS,
        allow_links: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        self._places = places.Mirror.at(
            root, output=output, cache_dir=cache_dir, streams=streams, allow_links=allow_links
        )

    def _find_places(self) -> places.Mirror:
        """Return where everything is now: a stream may have become a symlink to another disk."""
        return self._places.with_streams(self._places.streams)

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
        """The absolute path of the directory below which ``streams/`` is published."""
        return self._places.output

    @property
    def cache_dir(self) -> str | None:
        """The absolute path of the directory with the caches; None: they are in the tree."""
        return self._places.cache_dir

    @property
    def streams(self) -> tuple[str, ...]:
        """The names of the stream directories."""
        return self._places.streams

    def build(
        self,
        *,
        jobs: int | None = None,
        engine: str = "auto",
        cluster: str = "",
        blake3: bool = True,
        rehash: bool = False,
        adopt: bool = False,
        recheck: str = "",
        settle_seconds: float = 0,
        wait_seconds: float = 0,
        force: bool = False,
        dry_run: bool = False,
        list_changes: bool = False,
        scanners: int | None = None,
        executor: Executor | None = None,
        observer: Observer | None = None,
    ) -> BuildReport:
        """Hash what is new, and write the catalogue that clients read.

        Args:
            jobs: worker processes; None: one for each CPU that this process may use. A process
                that has several threads hashes in threads instead.
            engine: what computes SHA-256: ``auto``, ``hashlib`` or ``lanes``.
            cluster: hash on the workers of a dask scheduler: its address, or the path of its file.
                ``jobs`` is then for each machine. Empty: here.
            blake3: compute BLAKE3 too, which ``verify`` reads faster.
            rehash: read every file again, whatever the caches say.
            adopt: where the mirror has a cache directory, believe the caches in the tree for
                versions that it does not know yet.
            recheck: the share of versions to read again and compare with the caches, such as
                ``1/30``; another share each day.
            settle_seconds: leave versions with files younger than this for the next run.
            wait_seconds: how long to wait for another run to end; ``math.inf``: for ever.
            force: publish even if more than half of a stream's versions, or all, would go.
            dry_run: write nothing and take no lock; the report says what would change.
            list_changes: report what changes in a real run, too.
            scanners: threads that list directories; None: one for each job, and more where calls
                wait for a disk or a server.
            executor: hash in this instead of worker processes; it is not shut down.
            observer: told of progress and findings.

        Returns:
            What was done, with a finding for everything that was left out.

        Raises:
            UsageError: an option makes no sense.
            TreeError: a stream directory is missing or has become empty, or a file that an
                earlier run left in ``streams/`` cannot be used.
            BrakeError: more than half of a stream's published versions would go.
            LockHeldError: another run holds the lock.
            PublishError: the lock or the catalogue cannot be written.
            ResourceError: the system ran out of something, or a disk or a directory failed.
        """
        options = BuildOptions(
            hashing=HashingOptions(jobs=jobs, engine=engine, blake3=blake3, cluster=cluster),
            rehash=rehash,
            adopt=adopt,
            recheck=recheck,
            settle_seconds=settle_seconds,
            wait_seconds=wait_seconds,
            force=force,
            dry_run=dry_run,
            list_changes=list_changes,
            scanners=scanners,
        )
        return build(self._find_places(), options, executor=executor, observer=observer)

    def diff(
        self,
        *,
        jobs: int | None = None,
        engine: str = "auto",
        cluster: str = "",
        executor: Executor | None = None,
        observer: Observer | None = None,
    ) -> BuildReport:
        """Return what the next build would change, by a dry run of it.

        Args:
            jobs: as for ``build``.
            engine: as for ``build``.
            cluster: as for ``build``.
            executor: as for ``build``.
            observer: told of progress and findings.

        Returns:
            The report of the build. Its ``changes`` are what would change, its ``refusal`` is why
            the build would publish nothing.

        Raises:
            UsageError: an option makes no sense.
            TreeError: a stream directory is missing, or a file that an earlier run left in
                ``streams/`` cannot be used.
            ResourceError: the system ran out of something, or a disk or a directory failed.
        """
        return self.build(
            jobs=jobs,
            engine=engine,
            cluster=cluster,
            dry_run=True,
            executor=executor,
            observer=observer,
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
        recursive: bool = False,
        aliases: Iterable[str] = (),
        jobs: int | None = None,
        engine: str = "auto",
        cluster: str = "",
        blake3: bool = True,
        dry_run: bool = False,
        executor: Executor | None = None,
        observer: Observer | None = None,
    ) -> ImportReport:
        """Put images that builders made into the tree: each complete, or not at all.

        Args:
            sources: directories of images, or files.
            mode: what to do with the sources: ``move``, ``copy``, or ``link`` (hard-link where the
                file system allows it, else copy).
            os: the distribution; empty: as the image's metadata says. Likewise ``release``,
                ``arch`` and ``variant``.
            release: see ``os``.
            arch: see ``os``.
            variant: see ``os``.
            version: the version's name; empty: the creation date, such as ``20240505_05:24``.
            from_serial: use the builder's serial as the version's name.
            recursive: look for images in the directories below a source, too.
            aliases: what the product is to be called, too, in its ``.product.toml``.
            jobs: as for ``build``.
            engine: as for ``build``.
            cluster: as for ``build``.
            blake3: as for ``build``.
            dry_run: change nothing, and read no image through; the report says each step.
            executor: as for ``build``.
            observer: told of progress and findings.

        Returns:
            What was done; an image that could not be imported is a finding and a count.

        Raises:
            UsageError: an option makes no sense, there is no source, the mirror has several
                streams, or there are aliases for several products.
            TreeError: the root directory is missing or a stream directory, or the record of
                what is withdrawn cannot be used.
            ResourceError: the system ran out of something, or a disk or a directory failed.
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
            hashing=HashingOptions(jobs=jobs, engine=engine, blake3=blake3, cluster=cluster),
            is_recursive=recursive,
            aliases=_list_names("aliases", aliases),
            dry_run=dry_run,
        )
        return import_images(self._find_places(), options, executor=executor, observer=observer)

    def pull(
        self,
        url: str,
        *,
        filters: Iterable[str] = (),
        keep: int = DEFAULT_KEEP_PULLED,
        stream: str = "",
        mirrors: Iterable[str] = (),
        connections: int = 4,
        limit_bytes_per_second: float = 0,
        moved_from: str = "",
        lag_seconds: float = math.inf,
        keyring: str | os.PathLike[str] = "",
        ca_file: str | os.PathLike[str] = "",
        user_agent: str = "fastindex",
        allow_private: bool = False,
        wait_seconds: float = 0,
        force: bool = False,
        jobs: int | None = None,
        engine: str = "auto",
        cluster: str = "",
        blake3: bool = True,
        dry_run: bool = False,
        observer: Observer | None = None,
    ) -> PullReport:
        """Bring the mirror to what an upstream has of what is asked for, and publish it.

        Args:
            url: the upstream: what stands before ``/streams/v1/index.json``.
            filters: what to pull, such as ``os=debian arch=amd64``; of several, one must hold.
            keep: how many of the newest versions of each product.
            stream: the directory in ROOT that all goes into; empty: as the upstream's paths say,
                else ``images``.
            mirrors: URLs where the files are, too, if the upstream fails to deliver one.
            connections: how many files, or parts of files, to fetch side by side.
            limit_bytes_per_second: how fast to fetch in all; 0: as fast as it goes.
            moved_from: the address of the same upstream until now; empty: this one.
            lag_seconds: how old the newest version may be.
            keyring: a keyring of GnuPG by a key of which the catalogue must be signed.
            ca_file: a PEM file with the certificates to trust; empty: those of the system.
            user_agent: how requests name the program.
            allow_private: follow redirects to private addresses, too.
            wait_seconds: as for ``build``, which this ends with.
            force: go on although the upstream has shrunk or become older; and as for ``build``.
            jobs: as for ``build``.
            engine: as for ``build``.
            cluster: as for ``build``.
            blake3: as for ``build``.
            dry_run: change nothing; the report says each step.
            observer: told of progress and findings.

        Returns:
            What was done. Its ``exit_code`` is 0 only if all that was asked for is here.

        Raises:
            UsageError: an option makes no sense, or nothing was pulled from ``moved_from``.
            TreeError: the upstream has nothing, or nothing of what is asked for; or a record of
                earlier runs cannot be used.
            BrakeError: the upstream has shrunk, or is older than it was; or as for ``build``.
            LockHeldError: another run holds the lock.
            ResourceError: the disk is too small; or the system ran out of something.
            FastindexError: the upstream's catalogue cannot be had, clients reject it, or it is not
                signed as it must be; or as for ``build``. What was fetched is kept for later.
        """
        from fastindex.operations.pull.run import pull

        options = PullOptions(
            url=url,
            filters=_list_names("filters", filters),
            keep=keep,
            stream=stream,
            mirrors=_list_names("mirrors", mirrors),
            moved_from=moved_from,
            lag_seconds=lag_seconds,
            keyring=os.fspath(keyring),
            remote=RemoteOptions(
                user_agent=user_agent,
                connections=connections,
                ca_file=os.fspath(ca_file),
                allow_private=allow_private,
                limit_bytes_per_second=limit_bytes_per_second,
            ),
            build=BuildOptions(
                hashing=HashingOptions(jobs=jobs, engine=engine, blake3=blake3, cluster=cluster),
                wait_seconds=wait_seconds,
                force=force,
                dry_run=dry_run,
            ),
        )
        return pull(self._find_places(), options, observer=observer)

    def push(
        self,
        url: str,
        *,
        grace_seconds: float = DEFAULT_GRACE_SECONDS,
        connections: int = 8,
        endpoint: str = "",
        allow_http: bool = False,
        wait_seconds: float = 0,
        force: bool = False,
        dry_run: bool = False,
        observer: Observer | None = None,
    ) -> PushReport:
        """Make a bucket have what is published; the index is put there last.

        Args:
            url: ``s3://BUCKET/PREFIX``, or the same with ``gs``, ``az`` or ``file``. Credentials
                come from the environment, and from the files of the providers' own tools.
            grace_seconds: how long objects outlive the last catalogue in the bucket that named
                them.
            connections: how many objects, or parts of them, to put there side by side.
            endpoint: the server of a bucket that is compatible with S3; empty: as the environment
                says.
            allow_http: let the server be asked without TLS although it is on another machine.
            wait_seconds: how long to wait for another run to end; ``math.inf``: for ever.
            force: push although most of what is in the bucket would go.
            dry_run: change nothing; the report says what would be done.
            observer: told of progress and findings.

        Returns:
            What was done. With a ``refusal``, the catalogue in the bucket is the one before.

        Raises:
            UsageError: an argument makes no sense, or the extra ``push`` is not installed.
            LockHeldError: another run is publishing.
            FastindexError: nothing is published, or the store cannot be used; the catalogue in the
                bucket is whole.
        """
        from fastindex.operations.push.run import push

        options = PushOptions(
            target=url,
            grace_seconds=grace_seconds,
            wait_seconds=wait_seconds,
            force=force,
            dry_run=dry_run,
            store=StoreOptions(connections=connections, endpoint=endpoint, allow_http=allow_http),
        )
        return push(self._find_places(), options, observer=observer)

    def verify(
        self,
        *,
        method: Method = "known",
        jobs: int | None = None,
        engine: str = "auto",
        cluster: str = "",
        executor: Executor | None = None,
        observer: Observer | None = None,
    ) -> VerifyReport:
        """Check all that is published against the disk, and against what clients accept.

        Args:
            method: ``known``: BLAKE3 where the caches know it, SHA-256 elsewhere;
                ``sha256``: what clients check; ``quick``: names and sizes only.
            jobs: as for ``build``.
            engine: as for ``build``.
            cluster: as for ``build``.
            executor: as for ``build``.
            observer: told of progress and findings.

        Returns:
            Every mismatch, as the check does not stop at the first.

        Raises:
            UsageError: an option makes no sense.
            TreeError: the root directory is missing, or nothing is published.
            ResourceError: the system ran out of something, or a disk or a directory failed.
        """
        from fastindex.operations.verify.run import verify

        options = VerifyOptions(
            method=method, hashing=HashingOptions(jobs=jobs, engine=engine, cluster=cluster)
        )
        return verify(self._find_places(), options, executor=executor, observer=observer)

    def status(
        self, *, max_age_seconds: float = math.inf, grace_seconds: float = DEFAULT_GRACE_SECONDS
    ) -> StatusReport:
        """Return how the mirror is: what is published, and what a person should see to.

        Only what is published and what runs recorded is read. The command line records runs; those
        of this class leave no record.

        Args:
            max_age_seconds: how old the newest version of a product may be, unless its
                ``.product.toml`` says so.
            grace_seconds: the grace that ``prune`` is run with.

        Raises:
            UsageError: an option makes no sense.
            TreeError: the root directory is missing, nothing is published, or a record of earlier
                runs cannot be read.
            ResourceError: the system ran out of something, or a disk failed.
        """
        from fastindex.operations.status.run import find_status

        options = StatusOptions(max_age_seconds=max_age_seconds, grace_seconds=grace_seconds)
        return find_status(self._find_places(), options)

    def list(
        self,
        *,
        every_version: bool = False,
        filters: Iterable[str] = (),
        observer: Observer | None = None,
    ) -> tuple[Image, ...]:
        """Return the published images as clients see them, by product, the newest first.

        Args:
            every_version: return every version, not only the newest of each product and type.
            filters: what to return, such as ``os=debian arch=amd64,arm64``; an image is returned
                if one of them accepts it. Without any, all are.
            observer: told of findings, and of values in the filters that nothing has.

        Raises:
            UsageError: a filter is wrong, or ``filters`` is a ``str``.
            TreeError: nothing is published.
            ResourceError: the system ran out of something, or a disk or a directory failed.
        """
        from fastindex.formats.filters import parse_filters
        from fastindex.operations.listing import list_published

        chosen = parse_filters(_list_names("filters", filters))
        listing = list_published(
            self._find_places(), every_version=every_version, filters=chosen, observer=observer
        )
        return listing.images

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
        """Publish what is new, withdraw old versions, and delete what was withdrawn long ago.

        Args:
            keep: how many published versions of each product to keep, at least 1.
            keep_days: also keep versions dated less than this many days ago.
            grace_seconds: how long files outlive the last catalogue that named them.
            settle_seconds: as for ``build``, which this ends with.
            wait_seconds: as for ``build``.
            jobs: as for ``build``.
            engine: as for ``build``.
            dry_run: change nothing; the report says each step.
            observer: told of progress and findings.

        Raises:
            UsageError: an option makes no sense.
            TreeError: the tree is published in another output directory, and not in this one.
            FastindexError: as for ``build``; a later run deletes what was to be deleted.
        """
        from fastindex.operations.prune.run import prune

        build_options = _make_build_options(settle_seconds, wait_seconds, jobs, engine, dry_run)
        options = PruneOptions(
            keep=keep, keep_days=keep_days, grace_seconds=grace_seconds, build=build_options
        )
        return prune(self._find_places(), options, observer=observer)

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
        """Withdraw images, versions or products; delete their files once the grace has passed.

        Args:
            names: fingerprints, their prefixes (4 digits or more) or aliases: of those images all
                copies go. Or paths of versions or products, or unambiguous ends of them.
            grace_seconds: as for ``prune``.
            settle_seconds: as for ``build``, which this ends with.
            wait_seconds: as for ``build``.
            jobs: as for ``build``.
            engine: as for ``build``.
            dry_run: change nothing; the report says each step.
            observer: told of progress and findings.

        Raises:
            UsageError: an option makes no sense, a name fits nothing, or several things, or
                ``names`` is a ``str``.
            TreeError: nothing is published.
            FastindexError: as for ``build``; a later run deletes what was to be deleted.
        """
        from fastindex.operations.prune.run import remove

        build_options = _make_build_options(settle_seconds, wait_seconds, jobs, engine, dry_run)
        options = PruneOptions(grace_seconds=grace_seconds, build=build_options)
        return remove(self._find_places(), options, _list_names("names", names), observer=observer)

    def make_deltas(
        self,
        *,
        per_root: int = 1,
        with_machines: bool = False,
        max_ratio: float = DEFAULT_MAX_RATIO,
        max_memory_bytes: int | None = None,
        settle_seconds: float = 0,
        wait_seconds: float = 0,
        jobs: int | None = None,
        engine: str = "auto",
        dry_run: bool = False,
        observer: Observer | None = None,
    ) -> DeltasReport:
        """Make deltas to the newest published version of each product, and publish them.

        Args:
            per_root: from how many of the versions before the newest one.
            with_machines: make deltas of the disks of virtual machines, too, which Incus cannot
                use.
            max_ratio: how large a delta may be, in per cent of the root.
            max_memory_bytes: how much memory to use in all; None: half of what the machine has.
            settle_seconds: as for ``build``, which this ends with.
            wait_seconds: how long to wait for another run of the same.
            jobs: how many to make side by side; None: one for each CPU.
            engine: as for ``build``.
            dry_run: change nothing; the report says each step.
            observer: told of progress and findings.

        Returns:
            What was made. Its ``exit_code`` is 3 if one could not be made.

        Raises:
            UsageError: an option makes no sense.
            TreeError: nothing is published.
            ResourceError: xdelta3 is not installed.
            FastindexError: as for ``build``; the next build publishes what was made.
        """
        from fastindex.operations.deltas.run import make_deltas

        options = DeltasOptions(
            per_root=per_root,
            with_machines=with_machines,
            max_ratio=max_ratio,
            jobs=jobs,
            max_memory_bytes=max_memory_bytes,
            build=_make_build_options(settle_seconds, wait_seconds, jobs, engine, dry_run),
        )
        return make_deltas(self._find_places(), options, observer=observer)

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
        """Publish withdrawn versions again, as long as their files are there.

        Args:
            versions: paths of versions, or of products with all their withdrawn versions whose
                files are there; or unambiguous ends of them. A product's key will do as well.
            settle_seconds: as for ``build``, which this ends with.
            wait_seconds: as for ``build``.
            jobs: as for ``build``.
            engine: as for ``build``.
            dry_run: change nothing; the report says each step.
            observer: told of progress and findings.

        Raises:
            UsageError: an option makes no sense, a version is not withdrawn, or ``versions`` is a
                ``str``.
            TreeError: the files of a version are gone.
            FastindexError: as for ``build``.
        """
        from fastindex.operations.prune.run import restore

        build_options = _make_build_options(settle_seconds, wait_seconds, jobs, engine, dry_run)
        options = PruneOptions(build=build_options)
        return restore(
            self._find_places(), options, _list_names("versions", versions), observer=observer
        )


def check(
    url: str,
    *,
    filters: Sequence[str] = (),
    sample: int = 0,
    full: bool = False,
    expiry_seconds: float = DEFAULT_EXPIRY_SECONDS,
    max_age_seconds: float | None = None,
    upstream: str = "",
    lag_seconds: float | None = None,
    connections: int = 4,
    limit_bytes_per_second: float = 0,
    ca_file: str | os.PathLike[str] = "",
    user_agent: str = "fastindex",
    allow_private: bool = False,
    observer: Observer | None = None,
) -> CheckReport:
    """Check a mirror from outside, as clients see it.

    Args:
        url: the mirror: what stands before ``/streams/v1/``.
        filters: as for ``Mirror.pull``: whose files to ask for. The catalogue is checked as a
            whole.
        sample: how many images to read, chosen at random.
        full: read all images.
        expiry_seconds: how long the server's certificate must be valid from now on.
        max_age_seconds: how old the newest version of each product may be; None: as old as it is.
        upstream: the URL of a mirror that this one follows, to be compared with; empty: none.
        lag_seconds: for how long the upstream may have had a newer version; None: not at all.
        connections: how many files, or parts of files, are asked for side by side.
        limit_bytes_per_second: how fast to read in all; 0: no limit.
        ca_file: a PEM file of the certificates to trust; empty: those of the system.
        user_agent: what requests call this program.
        allow_private: follow redirects to private addresses, too.
        observer: told of progress and findings.

    Returns:
        All that is wrong: the check does not stop at the first.

    Raises:
        UsageError: an option makes no sense.
        FastindexError: the mirror cannot be checked: its server does not answer, or its catalogue
            exceeds a bound.
    """
    from fastindex.operations.check.run import check as run_check

    options = CheckOptions(
        url=url,
        filters=_list_names("filters", filters),
        sample=sample,
        full=full,
        expiry_seconds=expiry_seconds,
        max_age_seconds=max_age_seconds,
        upstream=upstream,
        lag_seconds=lag_seconds,
        remote=RemoteOptions(
            user_agent=user_agent,
            connections=connections,
            ca_file=os.fspath(ca_file),
            allow_private=allow_private,
            limit_bytes_per_second=limit_bytes_per_second,
        ),
    )
    return run_check(options, observer=observer)


def _make_build_options(
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
    """Return ``names``; raises UsageError where they are a single one, or one is not a ``str``."""
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

"""One version on its way into the tree: staged hidden, held against the upstream, published."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

from msgspec import Struct

from fastindex.errors import Code, suggest_remedy
from fastindex.events import Finding
from fastindex.formats.names import find_root_ftype
from fastindex.formats.simplestreams import (
    VIRTUAL_MACHINE,
    CachedItem,
)
from fastindex.hashing.options import HashingOptions
from fastindex.hashing.tasks import Digested, FileDigest, Outcome
from fastindex.mirror import staging
from fastindex.mirror.cache import NO_CACHE
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import FoundVersion
from fastindex.operations.plan import merge, plan_version, select
from fastindex.operations.pull.arrival import Arrival
from fastindex.operations.pull.mapping import WantedFile
from fastindex.operations.pull.wanted import WantedVersion
from fastindex.system.stamps import COARSEST_TICK_NS, Stamp


class Staged(Struct, frozen=True):
    """What an earlier run left of a version."""

    sizes: dict[str, int] = {}
    """File name → how many of its first bytes are there."""
    validators: dict[str, str] = {}
    """File name → what vouches for them."""


_AGAIN = "run again; if it stays so, tell who runs the upstream"


class PullJob:
    """The pull of one version; nothing of it is touched before its first bytes come.

    Args:
        mirror: the mirror.
        wanted: the version.
        hashing: how it is hashed.
        staged: what an earlier run left of it.
        local: SHA-256 → path of a file of the mirror with those bytes, by what is published.
    """

    def __init__(
        self,
        mirror: Mirror,
        wanted: WantedVersion,
        hashing: HashingOptions,
        staged: Staged,
        local: Mapping[str, str],
    ) -> None:
        self.wanted = wanted
        self.warnings: list[Finding] = []
        self.refusal: Finding | None = None
        """Why it cannot be staged, as far as is known."""
        self.unusable: set[str] = set()
        """SHA-256 of those of its files that are not to be had from the mirror itself."""
        self._mirror = mirror
        self._staged = staged
        self._local = local
        self._staging: staging.Staging | None = None
        self._working = threading.Lock()
        self._validators = dict(staged.validators)
        try:
            staging.require_writable(mirror, wanted.path)
        except staging.StagingError as error:
            self._refuse(error)
        self.arrivals = self._make_arrivals(hashing)
        """Its files, metadata first."""

    def _make_arrivals(self, hashing: HashingOptions) -> list[Arrival]:
        # Another time for each arrival: a file that comes again must not pass for the old one. Old
        # enough for its digests to be cached at once.
        mtime_ns = time.time_ns() - COARSEST_TICK_NS
        arrivals: list[Arrival] = []
        metadata: list[Arrival] = []
        for file in self.wanted.files:
            start = self._staged.sizes.get(file.name, 0)
            if file.sha256 in self._local:
                start = file.size_bytes
            after = metadata if file.role.kind == "root" else ()
            arrival = Arrival(file, start, self._open, hashing, after, mtime_ns, self._note)
            arrivals.append(arrival)
            if file.role.kind == "metadata":
                metadata.append(arrival)
        return arrivals

    def _open(self) -> staging.Staging:
        """Return where the version is staged; stage it first.

        Raises:
            OSError: that cannot be.
        """
        with self._working:
            if self._staging is None:
                if self.refusal is not None:
                    raise OSError(None, self.refusal.problem)
                try:
                    self._staging = self._stage()
                except staging.StagingError as error:
                    self._refuse(error)
                    raise OSError(None, error.problem) from error
            return self._staging

    def _refuse(self, error: staging.StagingError) -> None:
        self.refusal = self._fail(error.code, error.problem, error.remedy)

    def _stage(self) -> staging.Staging:
        staged = staging.Staging(self._mirror, self.wanted.path, is_resumable=True)
        try:
            staged.keep_only(self._staged.sizes.keys())
            for file in self.wanted.files:
                source = self._local.get(file.sha256)
                if source is not None and file.name not in self._staged.sizes:
                    self._link(staged, source, file)
        except BaseException:
            staged.close()
            raise
        return staged

    def _link(self, staged: staging.Staging, source: str, file: WantedFile) -> None:
        """Link a file of the mirror.

        Raises:
            OSError: that cannot be; it must be fetched.
        """
        try:
            status = os.stat(source, follow_symlinks=False)
            if status.st_size != file.size_bytes or not staged.link(source, file.name, status):
                raise OSError(None, f"{source} cannot be linked")
        except OSError:
            self.unusable.add(file.sha256)
            raise

    def _note(self, name: str, validator: str) -> None:
        """Keep what vouches for the bytes of a file, for the next run.

        Raises:
            OSError: it cannot be kept.
        """
        where = self._open()
        with self._working:
            if self._validators.get(name, "") != validator:
                self._validators[name] = validator
                where.write_notes(self._validators)

    def find_validator(self, name: str) -> str:
        """Return what vouches for the bytes of a file that are there from before; "": nothing."""
        return self._staged.validators.get(name, "")

    @property
    def bytes_linked(self) -> int:
        """How many bytes need not be fetched, as other versions have them."""
        return sum(file.size_bytes for file in self.wanted.files if file.sha256 in self._local)

    def finish(self) -> Finding | None:
        """Publish the version in the tree, with its cache; return why that cannot be."""
        try:
            for one in self.arrivals:
                one.take()
            finding = self.find_mismatch()
            if finding is not None:
                return finding
            where = self._open()
            items, version = self._make_items(where)
            self._write_cache(where, items, version)
            where.publish()
        except OSError as error:
            return self.refusal or self._fail(
                Code.NOT_WRITTEN,
                f"cannot be written ({error.strerror or error})",
                f"{suggest_remedy(error)}, then run again",
            )
        where.complete()
        return None

    def find_mismatch(self) -> Finding | None:
        """Return how the files differ from what the upstream says, or why they are no image."""
        metadata = [one for one in self.arrivals if one.wanted.role.kind == "metadata"]
        for one in self.arrivals:
            if one.sha256 != one.wanted.sha256:
                problem = (
                    f"{one.wanted.path} has the SHA-256 {one.sha256}, but the catalogue says "
                    f"{one.wanted.sha256}"
                )
                return self._fail(Code.CHECKSUM_MISMATCH, problem, _AGAIN)
            fault = one.find_fault()
            if fault is not None:
                return self._fail(fault.code, f"{one.wanted.path} {fault.problem}", _AGAIN)
            if not one.has_begun_with(metadata):
                problem = f"{one.wanted.path} arrived before its metadata, which came again"
                return self._fail(Code.CHECKSUM_MISMATCH, problem, _AGAIN)
            for first, fingerprint in zip(metadata, one.fingerprints, strict=False):
                expected = first.wanted.fingerprints.get(one.wanted.role.ftype, fingerprint)
                if expected != fingerprint:
                    problem = (
                        f"{first.wanted.path} and {one.wanted.path} have the fingerprint "
                        f"{fingerprint}, but the catalogue says {expected}"
                    )
                    return self._fail(Code.CHECKSUM_MISMATCH, problem, _AGAIN)
        return None

    def forget_mismatches(self) -> None:
        """Have files with wrong bytes fetched from the beginning.

        Raises:
            OSError: they cannot be removed.
        """
        right = {one.wanted.name for one in self.arrivals if one.sha256 == one.wanted.sha256}
        for one in self.arrivals:
            source = self._local.get(one.wanted.sha256)
            if one.wanted.name not in right and source is not None:
                self.unusable.add(one.wanted.sha256)
                path = os.path.relpath(source, self._mirror.root)
                problem = "has other bytes than are published"
                remedy = f"see fastindex verify --sha256 {self._mirror.root}"
                self.warnings.append(Finding(Code.DAMAGED, path, problem, remedy))
        self._open().keep_only(right)

    def _make_items(self, where: staging.Staging) -> tuple[dict[str, CachedItem], FoundVersion]:
        arrived = [(one, *one.make_digest()) for one in self.arrivals]
        found = tuple(sorted((file for _, file, _ in arrived), key=lambda file: file.name))
        version = FoundVersion(self.wanted.name, self.wanted.path, found)
        bases = frozenset(
            (find_root_ftype(file.role.ftype), file.role.delta_base)
            for file in found
            if file.role.delta_base
        )
        selection, _ = select(version, bases)
        metadata = {
            file.stamp: digest for one, file, digest in arrived if file.role.kind == "metadata"
        }
        outcomes: dict[Stamp, Outcome] = {}
        for one, file, digest in arrived:
            if file.role.kind == "metadata":
                continue
            fingerprints = dict(zip(metadata, one.fingerprints, strict=False))
            known: dict[Stamp, FileDigest] = metadata if fingerprints else {}
            combined_type = _find_combined_type(where, one)
            outcomes[file.stamp] = Digested(
                digest, dict(known), fingerprints, file.stamp.size_bytes, 1, combined_type
            )
        plan = plan_version(self.wanted.product, version, selection, NO_CACHE)
        items, _ = merge(plan, outcomes)
        return items, version

    def _write_cache(
        self, where: staging.Staging, items: dict[str, CachedItem], version: FoundVersion
    ) -> None:
        try:
            where.write_cache(items, version.metadata_ftypes)
        except OSError as error:
            problem = f"its cache cannot be written ({error.strerror or error})"
            remedy = f"{suggest_remedy(error)}; the build reads the image again"
            self.warnings.append(Finding(Code.CACHE_NOT_WRITTEN, self.wanted.path, problem, remedy))

    def _fail(self, code: Code, problem: str, remedy: str) -> Finding:
        return Finding(code, self.wanted.path, problem, remedy, versions_left_out=1)

    def close(self) -> None:
        """Release everything; what has arrived of the version is kept for the next run."""
        for one in self.arrivals:
            one.fail()
            one.close()
        if self._staging is not None:
            self._staging.close()


def find_staged(mirror: Mirror, wanted: WantedVersion) -> Staged:
    """Return what an earlier run left of a version."""
    hidden = staging.hidden_path(mirror.path(wanted.path))
    sizes: dict[str, int] = {}
    for file in wanted.files:
        with suppress(OSError):
            status = os.stat(f"{hidden}/{file.name}", follow_symlinks=False)
            is_whole = status.st_size == file.size_bytes
            if stat.S_ISREG(status.st_mode) and (
                is_whole or (status.st_size < file.size_bytes and status.st_nlink == 1)
            ):
                sizes[file.name] = status.st_size
    return Staged(sizes, staging.read_notes(hidden)) if sizes else Staged()


def _find_combined_type(where: staging.Staging, one: Arrival) -> str:
    if one.wanted.role.kind != "unified":
        return ""
    from fastindex.formats.tarball import is_virtual_machine  # only if needed

    return VIRTUAL_MACHINE if is_virtual_machine(f"{where.path}/{one.wanted.name}") else ""

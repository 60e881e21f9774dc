"""What the stages of a build start from, and what a product follows from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct
from xxhash import xxh3_128

from fastindex.errors import Code
from fastindex.formats.simplestreams import CHECKSUMS_NAME, IMAGE_YAML_NAME
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.scan import ScannedProduct
from fastindex.mirror.settings import SettingsReader
from fastindex.mirror.settle import SettlePeriod
from fastindex.mirror.state import known, snapshot, withdrawals
from fastindex.mirror.state.damage import DamagedFiles
from fastindex.mirror.state.deltas import ONE_DELTA, DeltaRules
from fastindex.mirror.state.known import KnownProduct, KnownStreams
from fastindex.mirror.state.withdrawals import Withdrawals
from fastindex.mirror.tree import FoundVersion
from fastindex.operations.builder.options import BuildOptions


class StaleStateError(Exception):
    """What is known from the last run does not fit what is published."""


class BuildInputs(Struct):
    """What the stages of a build start from, besides the mirror and the options."""

    settings: SettingsReader
    """Reads the settings files in the tree."""
    period: SettlePeriod
    """Says which versions are too young."""
    damaged: DamagedFiles
    """Files that are known to be damaged; kept up to date."""
    withdrawn: Withdrawals
    """What is withdrawn: it is no accident that it goes."""
    context: bytes
    """Digest of what all products follow from."""
    known: KnownStreams
    """What the last run knew of the products."""
    published: str = ""
    """Digest of the catalogue that is published; "": a part of it is missing."""
    delta_rules: DeltaRules = ONE_DELTA
    """Which deltas are published."""

    def list_noted(self) -> set[str]:
        """Return the products of which something is withdrawn or known to be damaged, as paths."""
        withdrawn = {path.rpartition("/")[0] for path in self.withdrawn}
        return withdrawn | self.damaged.list_products()


class Settled(Struct, frozen=True):
    """Products whose versions need no look."""

    listings: dict[str, bytes]
    """Path of a product → its listing."""
    products: int
    """How many products are known, these and others."""


def list_settled(mirror: Mirror, max_versions: int) -> Settled:
    """Return the products of which the last build published everything, and had nothing to say.

    If the listing of one is the same now, each version in it is complete and published: of a
    product that loses a version to another, as a copy, no listing is kept.

    Args:
        mirror: the mirror.
        max_versions: how many versions of a product may be published.
    """
    mirror = mirror.claim_cache_dir()
    context, published = snapshot.digest_context(mirror), snapshot.digest_published(mirror)
    streams = known.load(mirror, context, published.streams).streams.values()
    noted = {path.rpartition("/")[0] for path in withdrawals.load(mirror)}
    noted |= DamagedFiles(mirror).list_products()
    listings = {
        product.path: product.listing
        for stream in streams
        for product in stream.products
        if product.listing and product.inputs and not product.findings
        if product.versions <= max_versions and product.path not in noted
    }
    return Settled(listings, sum(len(stream.products) for stream in streams))


class ExaminedProduct(Struct):
    """A product as it is in the tree, held against what is known of it."""

    scanned: ScannedProduct
    """What the scan found, without what is withdrawn."""
    inputs: bytes
    """A digest of all that it follows from."""
    known: KnownProduct | None
    """What is known of it, if it follows from the same as in the last run."""


class Examiner:
    """Tells which products are as the last run found them.

    Args:
        mirror: the mirror.
        options: which of them must be looked at in any case.
        inputs: what the build starts from.
    """

    def __init__(self, mirror: Mirror, options: BuildOptions, inputs: BuildInputs) -> None:
        self._mirror = mirror
        self._inputs = inputs
        self._rehash = options.rehash
        self._settles = options.settle_seconds > 0
        self._share = options.find_share()
        self._known = {
            product.path: product
            for known in inputs.known.streams.values()
            for product in known.products
            if product.inputs and not self._rehash and not self._has_begun(product)
        }
        self._noted = inputs.list_noted()
        self._tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%Y%m%d}"

    def _has_begun(self, known: KnownProduct) -> bool:
        """Return whether a version that lacked a part may be an upload that has just begun."""
        return self._settles and any(
            finding.code is Code.INCOMPLETE_VERSION
            and self._inputs.period.is_new_directory(finding.path)
            for finding in known.findings
        )

    @property
    def listings(self) -> dict[str, bytes]:
        """Path of a product → its listing, if an equal one tells that it is as it was."""
        if self._share is not None:
            return {}
        return {
            path: product.listing
            for path, product in self._known.items()
            if product.listing and path not in self._noted
        }

    def examine(self, scanned: ScannedProduct) -> ExaminedProduct:
        """Hold a product against what is known of it.

        Raises:
            OSError: the system is out of descriptors or memory.
        """
        path = scanned.product.path
        known = self._known.get(path)
        versions = scanned.versions
        if versions is None:
            return ExaminedProduct(scanned, known.inputs if known else b"", known)
        withdrawn = self._inputs.withdrawn
        if path in self._noted:
            scanned.listing = b""  # the notes count, too
        scanned.findings += withdrawals.find_newer_files(self._mirror, versions, withdrawn)
        versions = scanned.versions = withdrawals.drop_versions(versions, withdrawn)
        inputs = self._digest(scanned, versions)
        is_due = self._share is not None and any(
            self._share.is_due(version.path) for version in versions
        )
        is_known = known is not None and known.inputs == inputs and not is_due
        return ExaminedProduct(scanned, inputs, known if is_known else None)

    def _digest(self, scanned: ScannedProduct, versions: Sequence[FoundVersion]) -> bytes:
        """Return a digest of all that a product follows from; empty if that will not be the same.

        A version that is dated in the future is worth a finding only until then.
        """
        if any(version.name[:8] > self._tomorrow for version in versions):
            return b""
        product = scanned.product
        described = "\0\0".join(_describe(scanned, versions))
        hasher = xxh3_128(described.encode("utf-8", "surrogatepass"))
        if product.path in self._noted:
            damage = self._inputs.damaged.describe_product(product.path)
            hasher.update(repr(damage).encode("utf-8", "surrogatepass"))
        for path in product.dotfiles:
            hasher.update(self._inputs.settings.digest(path))
        for path in _list_companions(versions):
            hasher.update(self._inputs.settings.digest_once(path))
        return hasher.digest()


def _describe(scanned: ScannedProduct, versions: Sequence[FoundVersion]) -> list[str]:
    """Return the names and stamps that a product follows from, and what the scan says of it."""
    product = scanned.product
    lines = [f"{product.path}\0{product.dotfiles}"]
    for version in versions:
        lines.append(version.name)
        if version.broken:
            lines.append(f"{version.broken}")
        if version.checksums is not None:
            lines.append(CHECKSUMS_NAME)
        lines += [
            f"{file.name}\0{file.stamp.size_bytes} {file.stamp.mtime_ns}" for file in version.files
        ]
        if version.image_yaml is not None:
            lines.append(IMAGE_YAML_NAME)
    return [*lines, *map(repr, scanned.findings)]


def _list_companions(versions: Iterable[FoundVersion]) -> Iterator[str]:
    """Yield the files in versions that are read for what they say, as paths relative to ROOT."""
    for version in versions:
        if version.image_yaml is not None:
            yield f"{version.path}/{IMAGE_YAML_NAME}"
        if version.checksums is not None:
            yield f"{version.path}/{CHECKSUMS_NAME}"

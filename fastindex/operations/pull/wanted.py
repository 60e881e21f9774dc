"""What a pull wants of an upstream: versions, each with its files, as they will be in the tree."""

from __future__ import annotations

from msgspec import Struct

from fastindex.events import Finding
from fastindex.formats.names import FileRole
from fastindex.mirror.tree import FoundProduct
from fastindex.operations.pull.settings import PulledSettings


class WantedFile(Struct, frozen=True, gc=False):
    """A file of a version that is wanted."""

    name: str
    """Its name in the version directory."""
    role: FileRole
    """What its name means."""
    path: str
    """Where the upstream has it, relative to its URL."""
    size_bytes: int
    """Its length."""
    sha256: str
    """64 hex digits."""
    fingerprints: dict[str, str] = {}
    """Of metadata: ftype of a root → sha256(metadata ‖ root), 64 hex digits."""


class WantedVersion(Struct, frozen=True):
    """A version that is wanted."""

    product: FoundProduct
    """Its product, as it is or will be in the tree."""
    name: str
    """The name of its directory."""
    files: tuple[WantedFile, ...]
    """Its files: metadata first, then the others, the largest first."""

    @property
    def path(self) -> str:
        """STREAM/OS/RELEASE/ARCH/VARIANT/VERSION."""
        return f"{self.product.path}/{self.name}"

    @property
    def size_bytes(self) -> int:
        """The length of its files together."""
        return sum(file.size_bytes for file in self.files)


class OfferedProduct(Struct, frozen=True):
    """A product that the upstream has, and that was asked for."""

    product: FoundProduct
    """As it is or will be in the tree."""
    key: str
    """The upstream's name for it: its stream there, and its key in that."""
    newest: str
    """The name of the newest version that the upstream has of it."""
    versions: tuple[WantedVersion, ...]
    """Those that are wanted, the newest first."""
    settings: PulledSettings
    """What its settings files must say so that the product is as the upstream has it."""


class Offer(Struct, frozen=True):
    """What the upstream has of what was asked for."""

    products: tuple[OfferedProduct, ...]
    """What was asked for."""
    listed: frozenset[str]
    """The upstream's names for all products that it has."""
    findings: tuple[Finding, ...] = ()
    """What of it cannot be used."""
    failed: int = 0
    """How many versions that were asked for cannot be used."""

"""What a pull wants of an upstream: versions, each with its files, as they will be in the tree."""

from __future__ import annotations

from msgspec import Struct

from fastindex.events import Finding
from fastindex.mirror.tree import FoundProduct
from fastindex.operations.pull.mapping import WantedFile
from fastindex.operations.pull.settings import PulledSettings


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

    @property
    def versions(self) -> list[WantedVersion]:
        """All that are wanted, of all products."""
        return [version for one in self.products for version in one.versions]

    @property
    def paths(self) -> set[str]:
        """Their paths."""
        return {version.path for version in self.versions}

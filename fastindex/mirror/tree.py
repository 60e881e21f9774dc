"""What a scan finds in the tree: products, versions and files, as frozen values."""

from __future__ import annotations

from msgspec import Struct

from fastindex.formats.names import FileRole, ProductName
from fastindex.formats.simplestreams import METADATA_FTYPES, UNIFIED_FTYPES
from fastindex.system.stamps import Stamp

_FTYPES_OF_A_CLIENT = METADATA_FTYPES | UNIFIED_FTYPES


class FoundFile(Struct, frozen=True, gc=False):
    """A file that has a role in the catalogue by its name."""

    name: str
    """Its name within the version directory."""
    role: FileRole
    """What its name means."""
    stamp: Stamp
    """Its size, modification time and identity."""


class FoundVersion(Struct, frozen=True, gc=False):
    """A version directory with a valid name."""

    name: str
    """The directory's name; clients sort by it and read the date from it."""
    path: str
    """Relative to ROOT."""
    files: tuple[FoundFile, ...]
    """The usable files that have a role, sorted by name."""
    broken: tuple[str, ...] = ()
    """ftypes of the files that cannot be used, sorted."""
    image_yaml: Stamp | None = None
    """The stamp of the builder's ``image.yaml`` in it; None if there is none."""
    checksums: Stamp | None = None
    """The stamp of its ``SHA256SUMS``; None if there is none that can be used."""

    @property
    def metadata_ftypes(self) -> frozenset[str]:
        """The ftypes of all its metadata files and unified images, usable or not."""
        return _FTYPES_OF_A_CLIENT.intersection(
            [*self.broken, *[file.role.ftype for file in self.files]]
        )


class FoundProduct(Struct, frozen=True, gc=False):
    """A variant directory."""

    stream: str
    """The stream that contains it."""
    name: ProductName
    """Its OS, release, architecture and variant."""
    path: str
    """Relative to ROOT."""
    dotfiles: tuple[str, ...]
    """Settings files from the variant directory up to the stream, the nearest first; paths
    relative to ROOT."""


Found = tuple[FoundProduct, list[FoundVersion]]
"""A product and its versions, oldest first."""

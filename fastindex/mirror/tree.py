"""What a scan finds in the tree: products, versions and files as frozen values."""

from __future__ import annotations

from msgspec import Struct

from fastindex.formats.names import FileRole, ProductName
from fastindex.formats.simplestreams import INCUS_METADATA, LXD_METADATA
from fastindex.system.stamps import Stamp


class FoundFile(Struct, frozen=True, gc=False):
    """A file that has a role in the catalogue, as its directory entry says."""

    name: str
    """Its name within the version directory."""
    role: FileRole
    """What the name means."""
    stamp: Stamp
    """Its size, time and identity."""


class FoundVersion(Struct, frozen=True, gc=False):
    """A version directory with a valid name."""

    name: str
    """The directory's name, which clients sort by and read the date from."""
    path: str
    """Relative to ROOT."""
    files: tuple[FoundFile, ...]
    """Those with a role, by name."""
    broken: tuple[str, ...] = ()
    """ftypes of files that lie there but cannot be used."""
    has_image_yaml: bool = False
    """Whether the builder's ``image.yaml`` lies there."""

    @property
    def metadata_ftypes(self) -> frozenset[str]:
        """The kinds of metadata that lie in the version, usable or not."""
        present = {file.role.ftype for file in self.files if file.role.kind == "metadata"}
        return frozenset(present.union({INCUS_METADATA, LXD_METADATA}.intersection(self.broken)))


class FoundProduct(Struct, frozen=True, gc=False):
    """A variant directory."""

    stream: str
    """The stream that it lies in."""
    name: ProductName
    """Its OS, release, architecture and variant."""
    path: str
    """Relative to ROOT."""
    dotfiles: tuple[str, ...]
    """Settings files from the variant directory up to the stream, nearest first, then the
    newest version's ``image.yaml``; relative to ROOT."""


Found = tuple[FoundProduct, list[FoundVersion]]
"""A product and its versions, oldest first."""

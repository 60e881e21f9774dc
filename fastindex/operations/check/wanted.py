"""Pure: what the catalogue says of files → what to ask for, and which of it to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from fastindex.catalogue.contract import Claim, get_claim, is_unsafe_path, list_fingerprints
from fastindex.formats.simplestreams import (
    COMBINED_FIELD,
    METADATA_FTYPES,
    UNIFIED_FTYPES,
    Item,
    Version,
)

if TYPE_CHECKING:
    from random import Random


class Wanted(Struct, frozen=True):
    """A file that the catalogue names."""

    label: str
    """The version, as STREAM/OS/RELEASE/ARCH/VARIANT/VERSION."""
    path: str
    """Where it is, relative to the URL."""
    size_bytes: int
    """How long it is, says the catalogue."""
    sha256: str
    """Its digest, says the catalogue."""

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


class Image(Struct, frozen=True):
    """A file to read, with the metadata that it has fingerprints with."""

    file: Wanted
    """The root, the unified image or the delta."""
    metadata: tuple[tuple[Wanted, str], ...]
    """Each metadata file, and the fingerprint of both, says the catalogue."""


def list_files(label: str, version: Version) -> list[Wanted]:
    """Return the files of a version that can be asked for, each once."""
    return [*_list_claims(label, version).values()]


def _list_claims(label: str, version: Version) -> dict[Claim, Wanted]:
    return {
        get_claim(item): _make_wanted(label, item)
        for item in version.items.values()
        if not is_unsafe_path(item.path)
    }


def _make_wanted(label: str, item: Item) -> Wanted:
    return Wanted(label, item.path, item.size, item.sha256)


def list_images(label: str, version: Version, *, every_file: bool) -> Iterator[Image]:
    """Yield the images of a version.

    Args:
        label: the version.
        version: as published.
        every_file: yield what is no image, too, so that no file is left out.
    """
    claims = _list_claims(label, version)
    covered: set[Claim] = set()
    pairs: dict[Claim, dict[Claim, str]] = {}
    for metadata, root, combined in list_fingerprints(version):
        first, second = get_claim(metadata), get_claim(root)
        if first in claims and second in claims:
            pairs.setdefault(second, {})[first] = combined
            covered.add(first)
    for item in version.items.values():
        claim = get_claim(item)
        if claim not in claims or item.ftype in METADATA_FTYPES:
            continue
        is_image = item.ftype in COMBINED_FIELD or item.ftype in UNIFIED_FTYPES
        if (is_image or every_file) and claim not in covered:
            covered.add(claim)
            beside = pairs.get(claim, {})
            yield Image(
                claims[claim], tuple((claims[one], digest) for one, digest in beside.items())
            )
    if every_file:
        yield from (Image(one, ()) for claim, one in claims.items() if claim not in covered)


def choose_sample(images: Iterable[Image], count: int, chance: Random) -> list[Image]:
    """Return ``count`` of the images, or all if there are fewer; each is as likely as the others.

    Args:
        images: as many as there are; only the chosen ones are kept.
        count: how many.
        chance: decides.
    """
    chosen: list[Image] = []
    for number, image in enumerate(images):
        if number < count:
            chosen.append(image)
        elif (place := chance.randrange(number + 1)) < count:
            chosen[place] = image
    return chosen

"""The published images, as clients see them."""

from __future__ import annotations

from msgspec import Struct

from fastindex.catalogue.images import Image, list_images
from fastindex.catalogue.published import open_catalogue
from fastindex.errors import translate_system_errors
from fastindex.events import Observer, report_findings
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import outputs


class Listing(Struct, frozen=True):
    """What is published."""

    images: tuple[Image, ...]
    """By product, the newest first."""
    is_damaged: bool
    """Whether clients reject the catalogue or skip a part of it, or a part of it was lost; what
    can be read is listed."""


@translate_system_errors()
def list_published(
    mirror: Mirror, *, every_version: bool, observer: Observer | None = None
) -> Listing:
    """Return the published images.

    Args:
        mirror: where everything lies.
        every_version: return every version, not only the newest of each product and type.
        observer: told of findings.

    Raises:
        TreeError: ROOT is missing, or nothing is published.
        ResourceError: the system ran out of something, or a disk or a directory failed.
    """
    mirror.require_root()
    outputs.require_readable_catalogue(mirror)
    with open_catalogue(mirror.output) as published:
        report_findings(observer or Observer(), published.findings)
        images = list_images(published.sorted_products())
        chosen = tuple(image for image in images if every_version or image.is_newest)
        return Listing(chosen, bool(published.mismatches))

"""Pure: how old a mirror is, and how far it is behind another one."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from fastindex.catalogue.images import PublishedProduct, choose_images
from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.filters import Filters
from fastindex.formats.names import (
    ARCHITECTURES,
    MICRO_ARCHITECTURES,
    find_version_time,
    is_version_name,
    name_published_product,
    product_label,
)


class Dated(Struct, frozen=True):
    """A product, and the versions of it that clients see."""

    path: str
    """STREAM/OS/RELEASE/ARCH/VARIANT."""
    stream: str
    """The stream."""
    name: tuple[str, str, str, str]
    """OS, release, architecture and variant, the same for all tools that write catalogues."""
    versions: tuple[str, ...]
    """The names of the versions, the oldest first; never empty."""


def date_product(published: PublishedProduct, filters: Filters) -> Dated | None:
    """Return a product with the versions of which clients see an image that the filters accept.

    None: there are none.
    """
    stream, key, product = published
    serials = {image.serial for image in choose_images(published, filters)}
    versions = sorted(filter(is_version_name, serials), key=find_version_time)
    if not versions:
        return None
    name = name_published_product(key, product.os, product.release, product.arch, product.variant)
    arch = product.arch
    if arch not in MICRO_ARCHITECTURES:
        arch = ARCHITECTURES.get(arch, arch)
    names = (name.os.casefold(), name.release.casefold(), arch, name.variant or "default")
    return Dated(product_label(stream, key), stream, names, tuple(versions))


def find_outdated(products: Iterable[Dated], max_age_seconds: float, now: float) -> list[Finding]:
    """Return a finding for each product whose newest version is too old.

    Args:
        products: the products.
        max_age_seconds: how old it may be.
        now: seconds since 1970.
    """
    findings: list[Finding] = []
    for one in products:
        newest = one.versions[-1]
        age_seconds = now - find_version_time(newest)
        if age_seconds > max_age_seconds:
            problem = f"its newest version, {newest}, is {describe_time(age_seconds)} old"
            remedy = "see why nothing newer is published, or allow more with --max-age"
            findings.append(Finding(Code.PRODUCT_OLD, one.path, problem, remedy))
    return findings


def find_behind(
    ours: Iterable[Dated], theirs: Iterable[Dated], url: str, lag_seconds: float, now: float
) -> list[Finding]:
    """Return a finding for each product of which an upstream has had newer versions for too long.

    A mirror need not have old versions. One that lacks a product is behind by its age.

    Args:
        ours: the products of the mirror.
        theirs: those of the upstream.
        url: the upstream, as messages show it.
        lag_seconds: for how long it may have had them.
        now: seconds since 1970.
    """
    newest: dict[tuple[str, ...], float] = {}
    for one in ours:
        for name in (one.name, (one.stream, *one.name)):
            time = find_version_time(one.versions[-1])
            newest[name] = max(time, newest.get(name, time))
    findings: list[Finding] = []
    for one in theirs:
        # Another stream may have the same product, and newer versions of it.
        known = newest.get((one.stream, *one.name), newest.get(one.name))
        missing = [
            name for name in one.versions if known is None or find_version_time(name) > known
        ]
        if not missing:
            continue
        behind_seconds = now - find_version_time(missing[0])
        if behind_seconds > lag_seconds:
            what = missing[0] if len(missing) == 1 else f"{len(missing):,} versions"
            problem = (
                f"lacks {what} that {url} has had for {describe_time(behind_seconds)}"
                if known is not None
                else f"is missing; {url} has had {what} for {describe_time(behind_seconds)}"
            )
            remedy = "see why it is not pulled, or allow more with --lag"
            findings.append(Finding(Code.MIRROR_BEHIND, one.path, problem, remedy))
    return findings


def describe_time(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 2 * 86400:
        return f"{seconds / 3600:,.1f} hours"
    return f"{seconds / 86400:,.1f} days"

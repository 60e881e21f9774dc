"""Pure: an upstream's catalogue → what is wanted of it, with its place in the tree."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.simplestreams import PRODUCT_TOML_NAME
from fastindex.formats.upstream import Refusal, UpstreamProduct
from fastindex.mirror.tree import FoundProduct
from fastindex.operations.pull.mapping import (
    DEFAULT_STREAM,
    MappedVersion,
    Place,
    WantedFile,
    map_products,
    map_version,
)
from fastindex.operations.pull.settings import make_settings
from fastindex.operations.pull.upstream import UpstreamCatalogue
from fastindex.operations.pull.wanted import Offer, OfferedProduct, WantedVersion

_MAX_TOLD = 100
_LEFT_OUT = "it is left out; ask who runs the upstream to correct it, or exclude it with --filter"


def make_offer(
    catalogue: UpstreamCatalogue, keep: int, stream: str, removed: Collection[str]
) -> Offer:
    """Return what is wanted of an upstream.

    Args:
        catalogue: what it publishes of what was asked for.
        keep: how many of the newest versions of each product are wanted.
        stream: the stream directory of all of it; empty: as the paths of the upstream say.
        removed: paths of versions that were removed here, and so are not wanted.
    """
    findings: list[Finding] = []
    failed = 0
    products = [one for _, file in catalogue.files for one in file.products]
    for file in (file for _, file in catalogue.files):
        findings += map(_refuse, file.refusals)
        failed += file.refused
    findings += map(_refuse, catalogue.index.refusals)
    mapped, refusals = map_products(products, stream or DEFAULT_STREAM)
    findings += map(_refuse, refusals)
    failed += len(refusals)
    offered: list[OfferedProduct] = []
    for one in mapped:
        place = Place(stream, one.place.name) if stream else one.place
        versions, wrong = _choose_versions(one.product, place, keep, removed)
        findings += map(_refuse, wrong)
        failed += len(wrong)
        if not versions:
            continue
        product = FoundProduct(place.stream, place.name, place.path, ())
        wanted = tuple(_want(product, version, versions) for version in versions)
        key = name_product(one.product.stream, one.product.key)
        newest = one.product.newest
        settings = make_settings(one.product, place)
        findings += [_tell_left_out(place.path, what) for what in settings.left_out]
        offered.append(OfferedProduct(product, key, newest, wanted, settings))
    listed = frozenset(
        name_product(entry.stream, key) for entry, _ in catalogue.files for key in entry.keys
    )
    return Offer(tuple(offered), listed, tuple(findings), failed)


def name_product(stream: str, key: str) -> str:
    """Return the name of an upstream's product that is recorded."""
    return f"{stream} {key}"


def _choose_versions(
    product: UpstreamProduct, place: Place, keep: int, removed: Collection[str]
) -> tuple[list[MappedVersion], list[Refusal]]:
    """Return the newest versions that can be used, the newest first, and what is wrong with others.

    Args:
        product: the product.
        place: where it belongs.
        keep: how many.
        removed: paths of versions that nobody wants here.
    """
    chosen: list[MappedVersion] = []
    refusals: list[Refusal] = []
    left = keep
    for name in sorted(product.versions, reverse=True):
        if not left:
            break
        if f"{place.path}/{name}" in removed:
            # No older one takes its place, or prune and pull would never agree.
            left -= 1
            continue
        mapped = map_version(place, product.versions[name])
        if isinstance(mapped, str):
            refusals.append(Refusal(product.key, name, mapped))
        else:
            chosen.append(mapped)
            left -= 1
    return chosen, refusals


def _want(
    product: FoundProduct, version: MappedVersion, chosen: Iterable[MappedVersion]
) -> WantedVersion:
    bases = {one.name for one in chosen if one is not version}
    files = [
        file for file in version.files if file.role.kind != "delta" or file.role.delta_base in bases
    ]
    return WantedVersion(product, version.name, tuple(sorted(files, key=_by_turn)))


def _by_turn(file: WantedFile) -> tuple[bool, int]:
    return file.role.kind != "metadata", -file.size_bytes


def _tell_left_out(path: str, what: str) -> Finding:
    problem = f"the upstream says something that cannot be said here, and is left out: {what}"
    remedy = f"write it into {PRODUCT_TOML_NAME} yourself, if you need it"
    return Finding(Code.BAD_SETTINGS, path, problem, remedy)


def _refuse(refusal: Refusal) -> Finding:
    where = f"{refusal.key[:_MAX_TOLD]} {refusal.version[:_MAX_TOLD]}".rstrip()
    return Finding(Code.UPSTREAM_FAILED, where, refusal.reason, _LEFT_OUT, versions_left_out=1)

"""Last stage: note what each product was made from; the next run keeps those that are as before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from msgspec.structs import replace

from fastindex.catalogue.aliases import Claim
from fastindex.catalogue.streams import OtherProduct, StreamSummary
from fastindex.events import Finding
from fastindex.formats.names import ProductName
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import known, snapshot
from fastindex.mirror.state.known import KnownProduct, KnownStream
from fastindex.mirror.state.snapshot import Snapshot
from fastindex.operations.builder.assembling import Assembled, Entry


def save_known(
    mirror: Mirror,
    context: bytes,
    assembled: Assembled,
    passing: Set[str],
    settings: Mapping[str, list[Finding]],
    findings: Iterable[Finding] | None,
) -> None:
    """Save what is known of the products that have been published.

    Args:
        mirror: the mirror.
        context: digest of what all products follow from.
        assembled: what has been published.
        passing: products that the next run must look at again, as paths.
        settings: settings file → what a person should know of it.
        findings: what a person should know that is about several products; None: the next run
            must not take for granted that it has nothing to do.
    """
    digests = snapshot.digest_published(mirror)
    checksums: list[bytes] = []
    by_stream: dict[str, list[KnownProduct]] = {draft.stream: [] for draft in assembled.drafts}
    for entry in assembled.entries:
        if entry.product.stream in by_stream:
            by_stream[entry.product.stream].append(_describe(entry, passing))
    for stream, products in by_stream.items():
        its_settings = {
            path: found
            for path, found in settings.items()
            if path.startswith(f"{stream}/") and known.can_be_saved(found, path)
        }
        noted = KnownStream(
            context,
            digests.streams.get(stream, b""),
            products,
            its_settings,
            assembled.fingerprints[stream].tobytes(),
        )
        checksums.append(known.save(mirror, stream, noted))
    if findings is not None and all(checksums):
        last = Snapshot(
            known=snapshot.digest_known(mirror, checksums),
            published=digests.everything,
            findings=Snapshot.select_lasting(findings),
        )
        snapshot.save(mirror, last)


def _describe(entry: Entry, passing: Set[str]) -> KnownProduct:
    """Return what is known of a product now."""
    product, origin = entry.product, entry.origin
    default = tuple(product.name.default_aliases)
    claims = None if entry.claims == default else entry.claims
    aliases = None if entry.aliases == entry.claims else entry.aliases
    if isinstance(origin, KnownProduct):
        return origin if origin.aliases == aliases else replace(origin, aliases=aliases)
    examined = origin.planned.examined
    is_lasting = origin.is_lasting and product.path not in passing
    is_lasting = is_lasting and known.can_be_saved(origin.findings, *entry.claims)
    return KnownProduct(
        product.path,
        examined.scanned.listing if is_lasting else b"",
        examined.inputs if is_lasting else b"",
        origin.versions,
        origin.files,
        origin.planned.is_present,
        claims,
        aliases,
        origin.findings if is_lasting else (),
    )


def summarize_known(stream: KnownStream) -> StreamSummary:
    """Return what is known of a stream as the rules for the whole catalogue need it."""
    products: dict[str, OtherProduct] = {}
    for product in stream.products:
        if product.versions:
            name = ProductName(*product.path.split("/")[1:])
            _, aliases = product.list_aliases(name.default_aliases)
            claim = Claim(name, product.path, aliases)
            products[name.key] = OtherProduct(claim, name.arch, product.versions)
    return StreamSummary(stream.published, products, stream.list_fingerprints())

"""Third stage: items → product files, without images that clients could not tell apart."""

from __future__ import annotations

from msgspec import Struct

from fastindex.catalogue.assembly import assemble_product
from fastindex.catalogue.conflicts import remove_borrowed_aliases, resolve_conflicts
from fastindex.catalogue.lint import find_pitfalls
from fastindex.catalogue.publication import read_published_fingerprints
from fastindex.events import Finding
from fastindex.formats.simplestreams import Product, ProductFile
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.settings import SettingsReader
from fastindex.mirror.tree import FoundProduct
from fastindex.operations.builder.planning import VersionItems


class Assembled(Struct):
    """The catalogue, not yet published."""

    documents: list[ProductFile]
    """The product file of each stream."""
    findings: list[Finding]
    """What was left out, and what people stumble over."""


def assemble(
    mirror: Mirror, found: list[tuple[FoundProduct, VersionItems]], settings: SettingsReader
) -> Assembled:
    """Return the catalogue of what was found and digested."""
    products: dict[str, dict[str, Product]] = {name: {} for name in mirror.streams}
    paths: dict[tuple[str, str], str] = {}
    for product, versions in sorted(found, key=lambda pair: pair[0].name.key):
        if versions:
            key = product.name.key
            said = settings.merge(product.dotfiles)
            products[product.stream][key] = assemble_product(product.name, said, versions)
            paths[product.stream, key] = product.path
    documents, duplicates = _resolve_conflicts(
        mirror,
        [ProductFile(content_id=name, products=entries) for name, entries in products.items()],
    )
    documents, borrowed = remove_borrowed_aliases(documents, paths)
    pitfalls = find_pitfalls(documents, paths)
    return Assembled(documents, [*settings.findings, *duplicates, *borrowed, *pitfalls])


def _resolve_conflicts(
    mirror: Mirror, documents: list[ProductFile]
) -> tuple[list[ProductFile], list[Finding]]:
    kept, findings = resolve_conflicts(documents)
    if findings:  # rare: only then what is published is worth reading
        owners = read_published_fingerprints(mirror.output, mirror.streams)
        kept, findings = resolve_conflicts(documents, owners)
    return kept, findings

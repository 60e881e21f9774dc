"""Third stage: items → product files, without what clients could not tell apart.

All streams of the index are one publication: those that are not built now take part as they are
published.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from fastindex.catalogue.aliases import (
    Claim,
    assign_aliases,
    bound_stream,
    describe_bounds,
    list_aliases,
)
from fastindex.catalogue.assembly import assemble_product, bound_requirements
from fastindex.catalogue.conflicts import (
    drop_dead_deltas,
    list_fingerprints,
    resolve_conflicts,
)
from fastindex.catalogue.lint import find_pitfalls
from fastindex.catalogue.publication import read_published_fingerprints
from fastindex.events import Finding
from fastindex.formats.names import name_published_product, version_label
from fastindex.formats.settings import Settings
from fastindex.formats.simplestreams import IMAGE_YAML_NAME, Product, ProductFile, Version
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.settings import SettingsReader
from fastindex.mirror.tree import FoundProduct
from fastindex.operations.builder.planning import VersionItems


class Assembled(Struct):
    """The catalogue, not yet published."""

    documents: list[ProductFile]
    """The product file of each stream that is built."""
    other_documents: list[ProductFile]
    """The product files of other streams that must change because of those."""
    findings: list[Finding]
    """What was left out, and what people stumble over."""


class Tree(Struct, frozen=True):
    """What was found in the tree, and digested."""

    products: Sequence[tuple[FoundProduct, VersionItems]]
    """The products of all streams that were scanned, also those without usable versions."""
    image_yamls: Mapping[str, Collection[str]]
    """Path of a product → the names of its versions that have an ``image.yaml``."""
    settings: SettingsReader
    """Reads the settings files."""


class _Described(Struct, frozen=True):
    """A product directory with what is published of it, and what its settings say."""

    product: FoundProduct
    settings: Settings
    claim: Claim
    versions: Mapping[str, Version]


def assemble(
    mirror: Mirror, tree: Tree, streams: Sequence[str], others: Sequence[ProductFile]
) -> Assembled:
    """Return the catalogue of what was found and digested.

    Args:
        mirror: the mirror.
        tree: what was found.
        streams: those to make product files for.
        others: the published product files of all other streams.
    """
    findings: list[Finding] = []
    bare = _make_bare_files(tree, streams)
    bare, unique, duplicates = _resolve_conflicts(mirror, bare, others)
    published = {file.content_id: file.products for file in bare}
    found = [
        _describe(tree, product, published.get(product.stream, {}), findings)
        for product, _ in sorted(tree.products, key=lambda pair: pair[0].name.key)
    ]
    claims = [one.claim for one in found]
    foreign = [_list_claims(file) for file in unique]
    kept, taken = assign_aliases([*claims, *(claim for some in foreign for claim in some)])
    documents, paths, exceeding = _make_documents(streams, found, kept)
    remaining = iter(kept[len(claims) :])
    changed = [
        _apply_aliases(file, [next(remaining) for _ in some])
        for file, some in zip(unique, foreign, strict=True)
    ]
    pitfalls = find_pitfalls(documents, paths, datetime.now(UTC).date(), changed)
    findings = [*tree.settings.findings, *findings, *duplicates, *taken, *exceeding, *pitfalls]
    other_documents = [new for new, old in zip(changed, others, strict=True) if new is not old]
    return Assembled(documents, other_documents, findings)


def _make_bare_files(tree: Tree, streams: Sequence[str]) -> list[ProductFile]:
    """Return product files with nothing but the images."""
    products: dict[str, dict[str, Product]] = {stream: {} for stream in streams}
    for product, versions in sorted(tree.products, key=lambda pair: pair[0].name.key):
        if versions and product.stream in products:
            items = sorted(versions.items())
            products[product.stream][product.name.key] = Product(
                versions={name: Version(items=files) for name, files in items}
            )
    return [ProductFile(content_id=name, products=entries) for name, entries in products.items()]


def _resolve_conflicts(
    mirror: Mirror, bare: list[ProductFile], others: Sequence[ProductFile]
) -> tuple[list[ProductFile], list[ProductFile], list[Finding]]:
    """Return both without images that clients could not tell apart, and what was left out."""
    files = [*bare, *others]
    kept, findings = resolve_conflicts(files)
    if findings:  # rare: only then what is published is worth reading
        owners = read_published_fingerprints(mirror.output, mirror.streams)
        for file in others:
            for fingerprint, owner in list_fingerprints(file):
                owners.setdefault(fingerprint, owner)
        kept, findings = resolve_conflicts(files, owners)
    mine = [_drop_dead_deltas(file) for file in kept[: len(bare)]]
    return mine, kept[len(bare) :], findings


def _drop_dead_deltas(file: ProductFile) -> ProductFile:
    products = {
        key: replace(product, versions=drop_dead_deltas(product.versions))
        for key, product in file.products.items()
    }
    return replace(file, products=products)


def _describe(
    tree: Tree, product: FoundProduct, published: Mapping[str, Product], findings: list[Finding]
) -> _Described:
    """Return a product with its settings; what exceeds the bounds is added to ``findings``."""
    entry = published.get(product.name.key)
    versions = entry.versions if entry is not None else {}
    dotfiles = product.dotfiles
    newest = max(versions, default="")
    if newest in tree.image_yamls.get(product.path, ()):
        # What an upload says that is not published must not change the product.
        dotfiles = (*dotfiles, f"{product.path}/{newest}/{IMAGE_YAML_NAME}")
    settings = tree.settings.merge(dotfiles)
    aliases, left_out = list_aliases(product.name, settings)
    if versions:
        settings, exceeding = bound_requirements(product.path, settings)
        findings += exceeding
        findings += [describe_bounds(product.path, left_out)] if left_out else []
    claim = Claim(product.name, product.path, aliases, is_published=bool(versions))
    return _Described(product, settings, claim, versions)


def _list_claims(file: ProductFile) -> list[Claim]:
    """Return the claims of a product file that is published by another run or another tool."""
    return [
        Claim(
            name_published_product(key, entry.os, entry.release, entry.arch, entry.variant),
            version_label(file.content_id, key, "").removesuffix("/"),
            tuple(filter(None, entry.aliases.split(","))),
        )
        for key, entry in file.products.items()
    ]


def _make_documents(
    streams: Sequence[str], found: Sequence[_Described], aliases: Sequence[tuple[str, ...]]
) -> tuple[list[ProductFile], dict[tuple[str, str], str], list[Finding]]:
    """Return the product files, (stream, product key) → directory, and aliases left out."""
    documents: list[ProductFile] = []
    paths: dict[tuple[str, str], str] = {}
    findings: list[Finding] = []
    for stream in streams:
        mine = [
            (one, names)
            for one, names in zip(found, aliases, strict=False)
            if one.versions and one.product.stream == stream
        ]
        claims = [(one.product.name, names) for one, names in mine]
        bounded, exceeding = bound_stream(stream, claims)
        findings += exceeding
        entries: dict[str, Product] = {}
        for (one, _), names in zip(mine, bounded, strict=True):
            name = one.product.name
            items = {version: entry.items for version, entry in one.versions.items()}
            entries[name.key] = assemble_product(name, one.settings, names, items)
            paths[stream, name.key] = one.product.path
        documents.append(ProductFile(content_id=stream, products=entries))
    return documents, paths, findings


def _apply_aliases(file: ProductFile, aliases: Sequence[tuple[str, ...]]) -> ProductFile:
    """Return ``file`` with the aliases that its products keep; itself if they keep all."""
    products = {
        key: entry
        if len(names) == len(list(filter(None, entry.aliases.split(","))))
        else replace(entry, aliases=",".join(names))
        for (key, entry), names in zip(file.products.items(), aliases, strict=True)
    }
    is_same = all(products[key] is entry for key, entry in file.products.items())
    return file if is_same else replace(file, products=products)

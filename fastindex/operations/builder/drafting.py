"""Third stage: a product whose items are known → its bytes, and what the global rules need of it.

Its items are dropped then, so that memory never holds the catalogue.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from fastindex.catalogue.aliases import describe_bounds, list_aliases
from fastindex.catalogue.assembly import assemble_product, bound_requirements
from fastindex.catalogue.conflicts import drop_dead_deltas
from fastindex.catalogue.contested import number_images
from fastindex.catalogue.drafts import Piece, PieceWriter
from fastindex.catalogue.lint import find_pitfalls
from fastindex.events import Finding
from fastindex.formats.settings import Settings
from fastindex.formats.simplestreams import IMAGE_YAML_NAME, Product, Version
from fastindex.mirror.settings import SettingsReader
from fastindex.mirror.tree import FoundProduct
from fastindex.operations.builder.planning import PlannedProduct
from fastindex.operations.builder.published import PublishedStreams


class DraftedProduct(Struct, frozen=True):
    """A product that was looked at, as it is to be published."""

    planned: PlannedProduct
    """The product with what was left out of it; its items are gone."""
    claims: tuple[str, ...]
    """The aliases that it claims."""
    piece: Piece | None
    """Its bytes, with the aliases that it claims; None: nothing of it is published."""
    versions: int
    """How many versions are published."""
    files: int
    """How many files they consist of."""
    fingerprints: array[int]
    """The numbers of its images."""
    findings: tuple[Finding, ...]
    """What a person should know of it, besides what the scan and the global rules find."""
    is_lasting: bool
    """Whether the next run would make the same of it from the same inputs."""

    @property
    def product(self) -> FoundProduct:
        """The product directory."""
        return self.planned.product


class Drafter:
    """Makes the bytes of products.

    Args:
        settings: reads the settings files.
        published: the published files, from which bytes that are equal are taken.
        writer: keeps the bytes of the others.
    """

    def __init__(
        self, settings: SettingsReader, published: PublishedStreams, writer: PieceWriter
    ) -> None:
        self._settings = settings
        self._published = published
        self._writer = writer
        self._today = datetime.now(UTC).date()

    def draft(self, planned: PlannedProduct) -> DraftedProduct:
        """Return a product as it is to be published, as far as its own rules go.

        Args:
            planned: the product; its items are emptied.
        """
        versions = drop_dead_deltas(
            {name: Version(items=items) for name, items in sorted(planned.items.items())}
        )
        planned.items.clear()
        return self.draft_versions(planned, versions)

    def draft_versions(
        self, planned: PlannedProduct, versions: Mapping[str, Version]
    ) -> DraftedProduct:
        """Return a product as it is to be published.

        Args:
            planned: the product.
            versions: those of its versions that are published.
        """
        product = planned.product
        dotfiles = product.dotfiles
        newest = max(versions, default="")
        image_yaml = f"{product.path}/{newest}/{IMAGE_YAML_NAME}"
        if newest in planned.image_yamls:
            # What an upload says that is not published must not change the product.
            dotfiles = (*dotfiles, image_yaml)
        settings = self._settings.merge(dotfiles)
        claims, left_out = list_aliases(product.name, settings)
        findings = [*planned.findings, *self._settings.findings.get(image_yaml, ())]
        piece = None
        fingerprints: array[int] = array("Q")
        if versions:
            settings, exceeding = bound_requirements(product.path, settings)
            findings += exceeding
            findings += [describe_bounds(product.path, left_out)] if left_out else []
            made = self._assemble(product, settings, claims, versions)
            findings += find_pitfalls(made, product.path, self._today)
            published = self._published.find(product.stream)
            piece = self._writer.write(product.stream, product.name.key, made, published)
            fingerprints.extend(number_images(versions))
        return DraftedProduct(
            planned,
            claims,
            piece,
            len(versions),
            sum(len({item.path for item in one.items.values()}) for one in versions.values()),
            fingerprints,
            tuple(findings),
            planned.is_final and self._settings.unreadable.isdisjoint(dotfiles),
        )

    def _assemble(
        self,
        product: FoundProduct,
        settings: Settings,
        claims: tuple[str, ...],
        versions: Mapping[str, Version],
    ) -> Product:
        items = {name: version.items for name, version in versions.items()}
        return assemble_product(product.name, settings, claims, items)

    def redraft(self, drafted: DraftedProduct, product: Product | None) -> DraftedProduct:
        """Return a drafted product that has lost images which another one has, too.

        Args:
            drafted: the product.
            product: what is left of it; None: nothing.
        """
        versions = product.versions if product is not None else {}
        return replace(self.draft_versions(drafted.planned, versions), is_lasting=False)

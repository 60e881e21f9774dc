"""Pure: recognised files → the version that each image becomes, and the steps to it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from msgspec import Struct

from fastindex.errors import Code
from fastindex.events import Finding, Step
from fastindex.formats.image_metadata import (
    MetadataError,
    Naming,
    Place,
    choose_place,
    parse_metadata_yaml,
)
from fastindex.formats.recognition import Part
from fastindex.formats.simplestreams import CACHE_NAME
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.staging import hidden_path
from fastindex.mirror.tree import FoundFile, FoundProduct, FoundVersion
from fastindex.operations.importer.grouping import find_rivals
from fastindex.operations.importer.options import Mode
from fastindex.operations.plan import PlannedVersion, Selection, find_missing_part
from fastindex.system.stamps import stamp_of


class Extra(Struct, frozen=True):
    """A file that goes along but is not an item: ``image.yaml``."""

    path: str
    """Its path."""
    name: str
    """The name that it gets in the tree."""
    status: os.stat_result
    """Its status when it was found."""
    is_kept: bool = False
    """Whether it stays where it is even if the image is moved."""


class Image(Struct, frozen=True):
    """The files of one image in a source."""

    label: str
    """What a person calls it: the directory, or its first file."""
    parts: list[Part]
    """Its files."""
    checksums: dict[str, str]
    """What the ``SHA256SUMS`` beside them says: path → 64 hex digits."""
    extras: tuple[Extra, ...] = ()
    """Files that go along."""


class ImportPlan(Struct, frozen=True):
    """An image and the version that it becomes."""

    label: str
    """What a person calls it."""
    planned: PlannedVersion
    """The version, all of which must be read; its files have the names that they get in the tree,
    and the stamps of the sources."""
    parts: dict[str, Part]
    """Name in the tree → source."""
    checksums: dict[str, str]
    """Name in the tree → the SHA-256 that it must have, as 64 hex digits."""
    extras: tuple[Extra, ...]
    """Files that go along."""
    missing: Finding | None
    """Why its files alone are not an image; they may be a part of a version that exists."""
    requirements: dict[str, str]
    """What its metadata says that it requires of its host; not checked."""
    warnings: tuple[Finding, ...]
    """What a person should know about it."""

    @property
    def version_path(self) -> str:
        """STREAM/OS/RELEASE/ARCH/VARIANT/VERSION."""
        return self.planned.version.path


def plan_import(image: Image, stream: str, naming: Naming) -> ImportPlan | Finding:
    """Decide which version an image becomes, or return why it cannot be imported.

    Args:
        image: its files.
        stream: the stream directory's name.
        naming: names that replace those in the metadata.
    """
    rivals = find_rivals(image.parts)
    if rivals is not None:
        first, second = rivals
        return _refuse(
            Code.BAD_SOURCE,
            second.path,
            f"this file and {first.path} would both become the image's {first.name}",
            "import each image by itself",
        )
    described = sorted(
        (part for part in image.parts if part.metadata_yaml is not None), key=rank_for_naming
    )
    if not described:
        return _refuse(
            Code.BAD_SOURCE,
            image.label,
            "has no metadata: none of its files is a tarball with a metadata.yaml",
            "add the builder's incus.tar.xz or lxd.tar.xz, or have it made: say what the image is "
            "with --os, --release and --arch",
        )
    places: list[Place] = []
    requirements: dict[str, str] = {}
    for part in described:
        try:
            metadata = parse_metadata_yaml(part.metadata_yaml or b"")
            places.append(choose_place(metadata, naming, int(part.status.st_mtime)))
            requirements = {**metadata.requirements, **requirements}
        except MetadataError as error:
            return _refuse(error.code, part.path, error.problem, error.remedy)
    chosen = places[0]
    for part, other in zip(described, places, strict=True):
        if other.product != chosen.product:
            return _refuse(
                Code.BAD_METADATA,
                part.path,
                f"belongs to {other.product.directory}, but {described[0].path} to "
                f"{chosen.product.directory}",
                "import each image by itself",
            )
    warnings = [_warn_of_machine(part) for part in image.parts if part.is_virtual_machine]
    if chosen.is_dated_by_file:
        problem = "its creation_date is no date, as in reproducible builds; that of the file is "
        warnings.append(
            Finding(
                Code.BAD_METADATA,
                described[0].path,
                f"{problem}taken: {chosen.version}",
                "set another with --version-name",
            )
        )
    return _make_plan(image, stream, chosen, requirements, tuple(warnings))


def _warn_of_machine(part: Part) -> Finding:
    return Finding(
        Code.MACHINE_AS_CONTAINER,
        part.path,
        "Incus before 7.0.1 takes a unified image of a virtual machine for a container",
        "import it as two files, the metadata and a qcow2 disk, if older clients matter",
    )


def _make_plan(
    image: Image,
    stream: str,
    chosen: Place,
    requirements: dict[str, str],
    warnings: tuple[Finding, ...],
) -> ImportPlan:
    path = f"{stream}/{chosen.product.directory}"
    product = FoundProduct(stream, chosen.product, path, ())
    parts = {part.name: part for part in sorted(image.parts, key=_get_name)}
    files = tuple(_describe_part(part) for part in parts.values())
    version = FoundVersion(chosen.version, f"{path}/{chosen.version}", files)
    selection = Selection(
        tuple(file for file in files if file.role.kind == "metadata"),
        tuple(file for file in files if file.role.kind == "root"),
        tuple(file for file in files if file.role.kind in ("unified", "delta")),
    )
    missing = find_missing_part(version, selection)
    pending = (*selection.roots, *selection.singles)
    names = {part.found_at: name for name, part in parts.items()}
    return ImportPlan(
        image.label,
        PlannedVersion(product, version, selection, {}, pending, is_worth_saving=False),
        parts,
        {names[path]: digest for path, digest in image.checksums.items()},
        image.extras,
        missing and _refuse(missing.code, image.label, missing.problem, missing.remedy),
        requirements,
        warnings,
    )


def _get_name(part: Part) -> str:
    return part.name


def rank_for_naming(part: Part) -> tuple[bool, bool, bool]:
    """Return a sort key: the metadata of Incus names the version, that of a unified image last."""
    has_none = part.metadata_yaml is None
    return (has_none, part.role.kind == "unified", not part.name.startswith("incus"))


def _describe_part(part: Part) -> FoundFile:
    return FoundFile(part.name, part.role, stamp_of(part.status))


def _refuse(code: Code, path: str, problem: str, remedy: str) -> Finding:
    return Finding(code, path, problem, remedy, versions_left_out=1)


def list_steps(plan: ImportPlan, mirror: Mirror, mode: Mode, *, exists: bool) -> Iterator[Step]:
    """Yield the steps of ``plan``, in order.

    Args:
        plan: what to do.
        mirror: the mirror.
        mode: what to do with the sources.
        exists: whether the version exists already.
    """
    version = mirror.path(plan.version_path)
    if exists:
        for name, part in plan.parts.items():
            yield Step("compare", part.path, f"{version}/{name}", part.status.st_size)
        return
    hidden = hidden_path(version)
    yield Step("mkdir", hidden)
    for name, part in plan.parts.items():
        if part.is_made:
            yield Step("write", f"{hidden}/{name}")
            continue
        verb = "copy" if part.is_linked and mode == "move" else mode
        yield Step(verb, part.path, f"{hidden}/{name}", part.status.st_size)
    for extra in plan.extras:
        verb = "copy" if extra.is_kept else mode
        yield Step(verb, extra.path, f"{hidden}/{extra.name}", extra.status.st_size)
    cache = mirror.cache_path(plan.version_path) if mirror.cache_dir else f"{hidden}/{CACHE_NAME}"
    yield Step("write", cache)
    yield Step("rename", hidden, version)

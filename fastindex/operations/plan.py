"""Pure: what was found, and what is cached → what to reuse, and what to read.

A root is read once, with every metadata file that it has a fingerprint with. Hard links and
symlinks to one root are one task, whichever versions they are in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.simplestreams import COMBINED_FIELD, SQUASHFS, CachedItem, fingerprint_fields
from fastindex.hashing.tasks import Failed, FileDigest, FileRef, Outcome, RootTask
from fastindex.mirror.cache import Cached, accept_item, has_sound_digests
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import FoundFile, FoundProduct, FoundVersion
from fastindex.system.stamps import Stamp

_NOTHING = CachedItem(ftype="", path="-", size=0, sha256="0" * 64)
_NO_FINGERPRINTS = dict.fromkeys(COMBINED_FIELD.values(), "")


class Selection(Struct, frozen=True, gc=False):
    """The files of a version that become items of the catalogue, one for each ftype."""

    metadata: tuple[FoundFile, ...]
    """At most one for Incus, and one for LXD."""
    roots: tuple[FoundFile, ...]
    """Split roots: each has a fingerprint with each metadata."""
    singles: tuple[FoundFile, ...]
    """Unified images and deltas: they have no fingerprint with another file."""

    @property
    def files(self) -> tuple[FoundFile, ...]:
        """All of them."""
        return (*self.metadata, *self.roots, *self.singles)


class PlannedVersion(Struct, frozen=True):
    """A version: what is known of it, and what must be read."""

    product: FoundProduct
    """Whose version it is."""
    version: FoundVersion
    """As found."""
    selection: Selection
    """Which of its files become items."""
    items: dict[str, CachedItem]
    """What the cache vouches for, by file name, with ftypes and paths as they are now."""
    pending: tuple[FoundFile, ...]
    """Roots and singles that must be read."""
    is_worth_saving: bool
    """Whether to save the cache although nothing is read: its digests have no keys, as the seed
    tool (antifob's simplestreams.py) writes them, or it comes from the tree although the mirror
    keeps its caches elsewhere."""


def select(
    version: FoundVersion, siblings: Iterable[FoundVersion]
) -> tuple[Selection, list[Finding]]:
    """Choose the files of ``version`` that become items: of each ftype the one of lowest rank.

    Of its deltas, it is the one from the newest base that is among ``siblings``, the versions of
    its product, and has a squashfs.
    """
    chosen: dict[str, FoundFile] = {}
    findings: list[Finding] = []
    deltas: list[FoundFile] = []
    for file in version.files:
        role = file.role
        if role.kind == "delta":
            deltas.append(file)
            continue
        rival = chosen.get(role.ftype)
        if rival is None:
            chosen[role.ftype] = file
            continue
        kept, dropped = (file, rival) if role.rank < rival.role.rank else (rival, file)
        chosen[role.ftype] = kept
        findings.append(
            Finding(
                Code.SECOND_FILE,
                f"{version.path}/{dropped.name}",
                f"a second {role.ftype}; {kept.name} is published instead",
                "remove one of the two",
                files_left_out=1,
            )
        )
    metadata: list[FoundFile] = []
    roots: list[FoundFile] = []
    singles: list[FoundFile] = []
    of_kind = {"metadata": metadata, "root": roots, "unified": singles}
    for file in chosen.values():
        of_kind[file.role.kind].append(file)
    if deltas and SQUASHFS in chosen:
        singles += _find_usable_deltas(deltas, version, siblings)[-1:]
    return Selection(tuple(metadata), tuple(roots), tuple(singles)), findings


def _find_usable_deltas(
    deltas: list[FoundFile], version: FoundVersion, siblings: Iterable[FoundVersion]
) -> list[FoundFile]:
    """Return the deltas whose base is a sibling with a squashfs, oldest base first."""
    bases = {
        other.name
        for other in siblings
        if other.name != version.name and any(file.role.ftype == SQUASHFS for file in other.files)
    }
    usable = [delta for delta in deltas if delta.role.delta_base in bases]
    return sorted(usable, key=lambda delta: (delta.role.delta_base, delta.name))


def find_missing_part(version: FoundVersion, selection: Selection) -> Finding | None:
    """Return why ``version`` is not an image, or None if it is one."""
    if any(file.role.kind == "unified" for file in selection.singles):
        return None
    if not selection.metadata:
        problem = "has no usable metadata file (incus.tar.xz or lxd.tar.xz)"
    elif not selection.roots:
        problem = "has no usable root file (rootfs.squashfs, rootfs.tar.xz or disk.qcow2)"
    else:
        return None
    return Finding(
        Code.INCOMPLETE_VERSION,
        version.path,
        problem,
        "add the missing file, or remove the directory",
        versions_left_out=1,
    )


def plan_version(
    product: FoundProduct, version: FoundVersion, selection: Selection, cached: Cached
) -> PlannedVersion:
    """Decide what the cache vouches for, and what must be read.

    A fingerprint is valid only while the keys of both its files are; otherwise its root is read
    again.
    """
    items: dict[str, CachedItem] = {}
    is_worth_saving = cached.is_from_tree
    for file in selection.files:
        known = cached.items.get(file.name)
        item = accept_item(known, file, cached.mtime_ns)
        if item is not None:
            items[file.name] = _update_item(item, version, file)
            is_worth_saving = is_worth_saving or item is not known
    if not has_sound_digests(_list_digests(selection, items)):
        items = {}
    pending = [
        root
        for root in selection.roots
        if root.name not in items
        or not all(
            getattr(items.get(metadata.name, _NOTHING), root.role.combined)
            for metadata in selection.metadata
        )
    ]
    pending += [single for single in selection.singles if single.name not in items]
    return PlannedVersion(product, version, selection, items, tuple(pending), is_worth_saving)


def _update_item(item: CachedItem, version: FoundVersion, file: FoundFile) -> CachedItem:
    """Return a cached item with the ftype and path that the file has now.

    The seed tool writes other ftypes, and versions can be moved.
    """
    path, role = f"{version.path}/{file.name}", file.role
    if (item.path, item.ftype, item.delta_base) == (path, role.ftype, role.delta_base):
        return item
    return replace(item, path=path, ftype=role.ftype, delta_base=role.delta_base)


def _list_digests(selection: Selection, items: Mapping[str, CachedItem]) -> list[str]:
    """Return all digests in ``items`` that the catalogue would rely on."""
    digests = [item.sha256 for item in items.values()]
    digests += [item.blake3 for item in items.values() if item.blake3]
    for metadata in selection.metadata:
        item = items.get(metadata.name)
        if item is not None:
            digests += [
                fingerprint
                for root in selection.roots
                if (fingerprint := getattr(item, root.role.combined))
            ]
    return digests


def count_reused(plan: PlannedVersion) -> int:
    """Return how many files of a version are not read; metadata is read if any root is."""
    if not plan.pending:
        return len(plan.items)
    return sum(
        file not in plan.pending for file in (*plan.selection.roots, *plan.selection.singles)
    )


def list_tasks(mirror: Mirror, planned: Iterable[PlannedVersion]) -> list[RootTask]:
    """Return what must be read: each root once, with all its metadata files."""
    refs: dict[Stamp, FileRef] = {}
    metadata_of: dict[Stamp, dict[Stamp, FileRef]] = {}
    unified: set[Stamp] = set()
    for plan in planned:
        for file in plan.pending:
            refs.setdefault(file.stamp, _make_ref(mirror, plan.version, file))
            needed = metadata_of.setdefault(file.stamp, {})
            if file.role.kind == "root":
                for metadata in plan.selection.metadata:
                    needed.setdefault(metadata.stamp, _make_ref(mirror, plan.version, metadata))
            elif file.role.kind == "unified":
                unified.add(file.stamp)
    return [
        RootTask(ref, tuple(metadata_of[stamp].values()), stamp in unified)
        for stamp, ref in refs.items()
    ]


def _make_ref(mirror: Mirror, version: FoundVersion, file: FoundFile) -> FileRef:
    return FileRef(mirror.path(f"{version.path}/{file.name}"), file.stamp)


def merge(
    plan: PlannedVersion, outcomes: Mapping[Stamp, Outcome]
) -> tuple[dict[str, CachedItem], list[Finding]]:
    """Merge a version's cached items with the outcomes of its pending files.

    Args:
        plan: the version.
        outcomes: by the stamp of a pending file; one that is missing has not been read yet.

    Returns:
        File name → item, with exactly the fingerprints that are valid now; and a finding for
        each file that failed.
    """
    version, selection = plan.version, plan.selection
    digests: dict[str, FileDigest] = {}
    types: dict[str, str] = {}
    failures: dict[str, Failed] = {}
    fingerprints: dict[str, dict[str, str]] = {file.name: {} for file in selection.metadata}
    for file in plan.pending:
        outcome = outcomes.get(file.stamp)
        if outcome is None:
            continue
        if isinstance(outcome, Failed):
            failures[file.name] = outcome
            continue
        digests[file.name] = outcome.root
        types[file.name] = outcome.combined_type
        if file.role.kind != "root":
            continue
        for metadata in selection.metadata:
            digest = outcome.metadata[metadata.stamp]
            if isinstance(digest, Failed):
                failures[metadata.name] = digest
            else:
                digests[metadata.name] = digest
                fingerprints[metadata.name][file.role.combined] = outcome.fingerprints[
                    metadata.stamp
                ]
    still_valid = [root for root in selection.roots if root not in plan.pending]
    items: dict[str, CachedItem] = {}
    for file in selection.files:
        known = plan.items.get(file.name)
        is_pending = file in plan.pending
        item = _make_item(version, file, digests.get(file.name), None if is_pending else known)
        if item is None:
            continue
        if file.role.kind == "metadata":
            held = {
                root.role.combined: getattr(known, root.role.combined)
                for root in still_valid
                if known is not None
            }
            fields = fingerprint_fields({**held, **fingerprints[file.name]})
            item = replace(item, **{**_NO_FINGERPRINTS, **fields})
        elif types.get(file.name):
            item = replace(item, combined_type=types[file.name])
        items[file.name] = item
    findings = [
        Finding(
            failure.code,
            f"{version.path}/{name}",
            failure.problem,
            failure.remedy,
            files_left_out=int(not failure.costs_version),
            versions_left_out=int(failure.costs_version),
        )
        for name, failure in failures.items()
    ]
    return items, findings


def _make_item(
    version: FoundVersion, file: FoundFile, digest: FileDigest | None, known: CachedItem | None
) -> CachedItem | None:
    if digest is None:
        return known
    return CachedItem(
        ftype=file.role.ftype,
        path=f"{version.path}/{file.name}",
        size=file.stamp.size_bytes,
        sha256=digest.sha256,
        key=digest.key,
        blake3=digest.blake3,
        delta_base=file.role.delta_base,
    )


def find_future_stamps(
    plan: PlannedVersion, items: Mapping[str, CachedItem], now_ns: int
) -> list[Finding]:
    """Return a finding for each file with a time in the future: every run reads it again."""
    return [
        Finding(
            Code.TIME_IN_FUTURE,
            f"{plan.version.path}/{file.name}",
            "was modified in the future, by the clock, so every run reads it again",
            "touch it, and check the clocks",
        )
        for file in plan.selection.files
        if file.stamp.mtime_ns > now_ns and file.name in items
    ]

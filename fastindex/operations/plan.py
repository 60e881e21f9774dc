"""Pure: found + cached → reuse this, hash that; largest first.

A root is read once, with every metadata file that it has a fingerprint with; hard
links and symlinks to one root are one task, whichever versions they stand in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from fastindex.events import Finding
from fastindex.formats.simplestreams import COMBINED_FIELD, SQUASHFS, CachedItem, fingerprint_fields
from fastindex.mirror.cache import has_sound_digests, trusted
from fastindex.mirror.tree import (
    Cached,
    Failed,
    FileDigest,
    FileId,
    FileRef,
    FoundFile,
    FoundProduct,
    FoundVersion,
    Outcome,
    PlannedVersion,
    RootTask,
    Selection,
)

_NOTHING = CachedItem(ftype="", path="-", size=0, sha256="0" * 64)
_NO_FINGERPRINTS = dict.fromkeys(COMBINED_FIELD.values(), "")


def select(
    version: FoundVersion, siblings: Iterable[FoundVersion]
) -> tuple[Selection, list[Finding]]:
    """Choose the files of ``version`` that take part: one an ftype, the lowest rank.

    Of its deltas the one from the newest base is taken, if that base is among its
    ``siblings``, the versions of its product, with a squashfs of its own.
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
        kept, left = (file, rival) if role.rank < rival.role.rank else (rival, file)
        chosen[role.ftype] = kept
        findings.append(
            Finding(
                f"{version.path}/{left.name}",
                f"a second {role.ftype}: {kept.name} is published, this is not",
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
        singles += _usable_deltas(deltas, version, siblings)[-1:]
    return Selection(tuple(metadata), tuple(roots), tuple(singles)), findings


def _usable_deltas(
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


def missing_part(version: FoundVersion, selection: Selection) -> Finding | None:
    """Return why ``version`` can be no image, or None where it can."""
    if any(file.role.kind == "unified" for file in selection.singles):
        return None
    if not selection.metadata:
        problem = "no metadata file (incus.tar.xz or lxd.tar.xz) that can be used"
    elif not selection.roots:
        problem = "no root file (rootfs.squashfs, rootfs.tar.xz, disk.qcow2) that can be used"
    else:
        return None
    return Finding(
        version.path,
        problem,
        "add the missing file, or remove the directory",
        versions_left_out=1,
    )


def plan_version(
    product: FoundProduct, version: FoundVersion, selection: Selection, cached: Cached
) -> PlannedVersion:
    """Decide what the cache vouches for and what must be read.

    A fingerprint stands only if the keys of both its files hold; otherwise its root
    is read again.
    """
    items: dict[str, CachedItem] = {}
    is_adopted = False
    for file in selection.files:
        known = cached.items.get(file.name)
        item = trusted(known, file, cached.mtime_ns)
        if item is not None:
            items[file.name] = item
            is_adopted = is_adopted or item is not known
    if not has_sound_digests(_digests(selection, items)):
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
    return PlannedVersion(product, version, selection, items, tuple(pending), is_adopted)


def _digests(selection: Selection, items: Mapping[str, CachedItem]) -> list[str]:
    """Return all digests in ``items`` that would be relied on."""
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
    """Return how many files of a version are not read: metadata is, if any root is."""
    if not plan.pending:
        return len(plan.items)
    return sum(
        file not in plan.pending for file in (*plan.selection.roots, *plan.selection.singles)
    )


def tasks(planned: Iterable[PlannedVersion], root: str) -> list[RootTask]:
    """Return what must be read: each root once, with all metadata that it goes with.

    Args:
        planned: all versions.
        root: absolute path of ROOT.
    """
    refs: dict[FileId, FileRef] = {}
    metadata_of: dict[FileId, dict[FileId, FileRef]] = {}
    unified: set[FileId] = set()
    for plan in planned:
        for file in plan.pending:
            refs.setdefault(file.id, _ref(root, plan.version, file))
            needed = metadata_of.setdefault(file.id, {})
            if file.role.kind == "root":
                for metadata in plan.selection.metadata:
                    needed.setdefault(metadata.id, _ref(root, plan.version, metadata))
            elif file.role.kind == "unified":
                unified.add(file.id)
    return [RootTask(refs[id_], tuple(metadata_of[id_].values()), id_ in unified) for id_ in refs]


def _ref(root: str, version: FoundVersion, file: FoundFile) -> FileRef:
    return FileRef(
        f"{root}/{version.path}/{file.name}",
        file.size_bytes,
        file.mtime_ns,
        file.device,
        file.inode,
    )


def merge(
    plan: PlannedVersion, outcomes: Mapping[FileId, Outcome]
) -> tuple[dict[str, CachedItem], list[Finding]]:
    """Bring a version's cached items and the outcomes of its pending files together.

    Args:
        plan: the version.
        outcomes: by the pending file's identity; those missing are not read yet.

    Returns:
        File name → item, with exactly the fingerprints that hold now, and a finding
        for each file that failed.
    """
    version, selection = plan.version, plan.selection
    digests: dict[str, FileDigest] = {}
    types: dict[str, str] = {}
    failures: dict[str, Failed] = {}
    fingerprints: dict[str, dict[str, str]] = {file.name: {} for file in selection.metadata}
    for file in plan.pending:
        outcome = outcomes.get(file.id)
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
            digest = outcome.metadata[metadata.id]
            if isinstance(digest, Failed):
                failures[metadata.name] = digest
            else:
                digests[metadata.name] = digest
                fingerprints[metadata.name][file.role.combined] = outcome.fingerprints[metadata.id]
    still_good = [root for root in selection.roots if root not in plan.pending]
    items: dict[str, CachedItem] = {}
    for file in selection.files:
        known = plan.items.get(file.name)
        is_pending = file in plan.pending
        item = _item(version, file, digests.get(file.name), None if is_pending else known)
        if item is None:
            continue
        if file.role.kind == "metadata":
            held = {
                root.role.combined: getattr(known, root.role.combined)
                for root in still_good
                if known is not None
            }
            fields = fingerprint_fields({**held, **fingerprints[file.name]})
            item = msgspec.structs.replace(item, **{**_NO_FINGERPRINTS, **fields})
        elif types.get(file.name):
            item = msgspec.structs.replace(item, combined_type=types[file.name])
        items[file.name] = item
    findings = [
        Finding(
            f"{version.path}/{name}",
            failure.problem,
            failure.remedy,
            files_left_out=int(not failure.costs_version),
            versions_left_out=int(failure.costs_version),
        )
        for name, failure in failures.items()
    ]
    return items, findings


def _item(
    version: FoundVersion, file: FoundFile, digest: FileDigest | None, known: CachedItem | None
) -> CachedItem | None:
    if digest is None:
        return known
    return CachedItem(
        ftype=file.role.ftype,
        path=f"{version.path}/{file.name}",
        size=file.size_bytes,
        sha256=digest.sha256,
        key=digest.key,
        blake3=digest.blake3,
        delta_base=file.role.delta_base,
    )


def future_stamps(
    plan: PlannedVersion, items: Mapping[str, CachedItem], now_ns: int
) -> list[Finding]:
    """Return a finding for each file whose mtime lies ahead: it is read on every run."""
    return [
        Finding(
            f"{plan.version.path}/{file.name}",
            "its modification time lies in the future, so every run reads it again",
            "touch it, and check the clocks",
        )
        for file in plan.selection.files
        if file.mtime_ns > now_ns and file.name in items
    ]

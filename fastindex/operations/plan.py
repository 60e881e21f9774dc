"""Pure: what was found, and what is cached → what to reuse, and what to read.

A root is read once, with every metadata file that it has a fingerprint with. Hard links and
symlinks to one root are one task, whichever versions they are in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.checksums import Checksums
from fastindex.formats.content import find_fault
from fastindex.formats.names import FileRole, find_root_ftype
from fastindex.formats.simplestreams import (
    CHECKSUMS_NAME,
    COMBINED_FIELD,
    MAX_DAMAGE_CHARACTERS,
    CachedItem,
    Item,
    fingerprint_fields,
    has_sound_digests,
)
from fastindex.hashing.tasks import Failed, FileDigest, FileRef, Outcome, RootTask
from fastindex.mirror.cache import Cached, accept_item
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state.damage import CHANGED, Damage
from fastindex.mirror.state.deltas import ONE_DELTA, DeltaRules
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
    tool (antifob's simplestreams.py) writes them, or it does not say yet what else is known."""
    known: dict[str, CachedItem] = {}
    """What the cache knows of files whose stamps have not changed. If such a file is read again,
    for whatever reason, it must have the same digest, or it is damaged."""
    checksums: Checksums | None = None
    """What its ``SHA256SUMS`` says; None if it has none."""
    published: dict[str, Item] | None = None
    """What is published of it, which alone may be published of it now, as it has young files; None
    if any content will do."""
    right: dict[str, str] = {}
    """The SHA-256 that its damaged files had when they were all right, by name. It goes before
    what the cache knows."""

    def find_right_digest(self, name: str) -> str:
        """Return the SHA-256 that a file must have under its stamp; "" if any will do."""
        known = self.known.get(name)
        return self.right.get(name) or ("" if known is None else known.sha256)


DeltaBases = Set[tuple[str, str]]
"""The ftype of a root that a delta may start from, and the name of its version."""


def find_delta_bases(versions: Iterable[FoundVersion]) -> DeltaBases:
    """Return the roots of the versions of a product: a delta may start from each."""
    return frozenset(
        (file.role.ftype, version.name)
        for version in versions
        for file in version.files
        if file.role.kind == "root"
    )


def select(
    version: FoundVersion, bases: DeltaBases, rules: DeltaRules = ONE_DELTA
) -> tuple[Selection, list[Finding]]:
    """Choose the files of ``version`` that become items: of each ftype the one of lowest rank.

    Args:
        version: the version.
        bases: the roots that a delta may start from. Of the version's deltas, those from the
            newest of them are chosen.
        rules: how many.
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
    if deltas:
        singles += _choose_deltas(version.name, deltas, chosen, bases, rules)
    return Selection(tuple(metadata), tuple(roots), tuple(singles)), findings


def _choose_deltas(
    version: str,
    deltas: Iterable[FoundFile],
    chosen: Collection[str],
    bases: DeltaBases,
    rules: DeltaRules,
) -> list[FoundFile]:
    """Return the deltas to publish, of each root those from the newest bases, one from each."""
    usable: dict[str, dict[str, FoundFile]] = {}
    for delta in sorted(deltas, key=_by_delta_base):
        role = delta.role
        root = find_root_ftype(role.ftype)
        is_wanted = rules.with_machines or not role.is_machine_delta
        if is_wanted and root in chosen and (root, role.delta_base) in bases:
            usable.setdefault(root, {})[role.delta_base] = delta
    for of_root in usable.values():
        of_root.pop(version, None)
    return [
        delta for of_root in usable.values() for delta in [*of_root.values()][-rules.per_root :]
    ]


def _by_delta_base(delta: FoundFile) -> tuple[str, str]:
    return delta.role.delta_base, delta.name


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
    remedy = "add the missing file, or remove the directory"
    if version.broken:
        remedy = "repair the files of it that are named on their own"
    return Finding(
        Code.INCOMPLETE_VERSION,
        version.path,
        problem,
        remedy,
        versions_left_out=1,
    )


def plan_version(
    product: FoundProduct,
    version: FoundVersion,
    selection: Selection,
    cached: Cached,
    checksums: Checksums | None = None,
    published: dict[str, Item] | None = None,
) -> PlannedVersion:
    """Decide what the cache vouches for, and what must be read.

    A fingerprint is valid only while the keys of both its files are; otherwise its root is read
    again.
    """
    items: dict[str, CachedItem] = {}
    is_worth_saving = cached.is_worth_saving
    for file in selection.files:
        known = cached.items.get(file.name)
        item = accept_item(known, file, cached.mtime_ns)
        if item is not None:
            items[file.name] = _update_item(item, version, file)
            is_worth_saving = is_worth_saving or item is not known
    if items and not has_sound_digests(_list_digests(selection, items)):
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
    return PlannedVersion(
        product,
        version,
        selection,
        items,
        tuple(pending),
        is_worth_saving,
        items,
        checksums,
        published,
    )


def read_again(plan: PlannedVersion) -> PlannedVersion:
    """Return the plan of reading all files of a version and comparing them with its cache."""
    pending = (*plan.selection.roots, *plan.selection.singles)
    return replace(plan, items={}, pending=pending)


def read_damaged_again(plan: PlannedVersion, damaged: Mapping[str, Damage]) -> PlannedVersion:
    """Return the plan of reading a version again some of whose files are known to be damaged.

    Args:
        plan: the version.
        damaged: its damaged files, by name.
    """
    right = {name: damage.sha256 for name, damage in damaged.items() if damage.sha256}
    return replace(read_again(plan), right=right)


def can_recover(plan: PlannedVersion, damaged: Mapping[str, Damage]) -> bool:
    """Return whether reading damaged files again can tell if they are all right by now.

    It cannot if bytes were wrong, and nobody knows the digest of the right ones.
    """
    return all(
        damage.sha256 or damage.problem != CHANGED or plan.find_right_digest(name)
        for name, damage in damaged.items()
    )


def note_damage(
    plan: PlannedVersion, items: Mapping[str, CachedItem], damaged: Mapping[str, Damage]
) -> dict[str, CachedItem]:
    """Return what the cache of a version with damaged files must say: file name → item.

    The digests stay those of the right bytes.

    Args:
        plan: the version.
        items: those of its files that could be read.
        damaged: those that were found damaged.
    """
    noted = dict(plan.known)
    for file in plan.selection.files:
        name, damage = file.name, damaged.get(file.name)
        item = plan.known.get(name)
        if damage is None:
            if item is not None and name in items:
                noted[name] = replace(item, damaged="", changed_ns=0)
            continue
        if item is None:
            item = CachedItem(
                ftype=file.role.ftype,
                path=f"{plan.version.path}/{name}",
                size=file.stamp.size_bytes,
                sha256=damage.sha256,
                key=damage.key,
                delta_base=file.role.delta_base,
            )
        # Other digests are those of bytes that were accepted in another output.
        if item.sha256 == damage.sha256:
            problem = damage.problem[:MAX_DAMAGE_CHARACTERS]
            noted[name] = replace(item, damaged=problem, changed_ns=damage.changed_ns)
    return noted


def find_damaged(plan: PlannedVersion, items: Mapping[str, CachedItem]) -> list[str]:
    """Return the files that were read and have other bytes than they must have, by name.

    Args:
        plan: the version.
        items: what is known of its files now.
    """
    return [
        name
        for name, item in items.items()
        if plan.find_right_digest(name) not in ("", item.sha256)
    ]


def check_against_checksums(plan: PlannedVersion, items: Mapping[str, CachedItem]) -> list[Finding]:
    """Hold the files of a version against its ``SHA256SUMS``.

    Args:
        plan: the version.
        items: what is known of its files.

    Returns:
        A finding for each file that differs, which costs the version; and one if the
        ``SHA256SUMS`` is of no use.
    """
    sums = plan.checksums
    if sums is None:
        return []
    path = plan.version.path
    wrong = [
        (name, item.sha256, sums.digests[name])
        for name, item in items.items()
        if sums.digests.get(name, item.sha256) != item.sha256
    ]
    findings = [
        Finding(
            Code.CHECKSUM_MISMATCH,
            f"{path}/{name}",
            f"its SHA-256 is {found}, but {CHECKSUMS_NAME} says {expected}",
            f"upload it again, or correct {CHECKSUMS_NAME}",
            versions_left_out=int(number == 0),
        )
        for number, (name, found, expected) in enumerate(wrong)
    ]
    problem = sums.find_problem([file.name for file in plan.version.files])
    if problem:
        where, remedy = f"{path}/{CHECKSUMS_NAME}", "correct or remove it"
        findings.append(
            Finding(Code.BAD_CHECKSUMS, where, f"{problem}; images may be unchecked", remedy)
        )
    return findings


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
    plans = list(planned)
    shared = _find_shared(plans)
    linked: list[PlannedVersion] = []
    tasks: list[RootTask] = []
    for plan in plans:
        files = (*plan.selection.metadata, *plan.pending)
        if shared and any(file.stamp in shared for file in files):
            linked.append(plan)
            continue
        above = mirror.path(plan.version.path)
        metadata = tuple([_make_only_ref(above, file) for file in plan.selection.metadata])
        for file in plan.pending:
            kind = file.role.kind
            needed = metadata if kind == "root" else ()
            tasks.append(RootTask(_make_only_ref(above, file), needed, kind == "unified"))
    return tasks + _list_linked_tasks(mirror, linked)


def _make_only_ref(above: str, file: FoundFile) -> FileRef:
    """Return the reference to a file in the directory ``above`` that has one name."""
    return FileRef(f"{above}/{file.name}", file.stamp, roles=(file.role,))


def _find_shared(planned: Iterable[PlannedVersion]) -> set[Stamp]:
    """Return the stamps that several of the files to read have."""
    seen: set[Stamp] = set()
    shared: set[Stamp] = set()
    for plan in planned:
        for file in (*plan.selection.metadata, *plan.pending):
            stamp = file.stamp
            if stamp in seen:
                shared.add(stamp)
            seen.add(stamp)
    return shared


def _list_linked_tasks(mirror: Mirror, planned: Iterable[PlannedVersion]) -> list[RootTask]:
    names_of: dict[Stamp, _Names] = {}
    metadata_of: dict[Stamp, dict[Stamp, None]] = {}
    unified: set[Stamp] = set()
    for plan in planned:
        for file in plan.pending:
            _add_name(names_of, mirror, plan.version, file)
            needed = metadata_of.setdefault(file.stamp, {})
            if file.role.kind == "root":
                for metadata in plan.selection.metadata:
                    _add_name(names_of, mirror, plan.version, metadata)
                    needed[metadata.stamp] = None
            elif file.role.kind == "unified":
                unified.add(file.stamp)
    refs = {stamp: _make_ref(stamp, names) for stamp, names in names_of.items()}
    return [
        RootTask(refs[stamp], tuple(map(refs.__getitem__, metadata)), stamp in unified)
        for stamp, metadata in metadata_of.items()
    ]


_Names = tuple[dict[str, None], dict[FileRole, None]]
"""The paths of a file, and what its names say that it is; each once, in order."""


def _add_name(
    names_of: dict[Stamp, _Names], mirror: Mirror, version: FoundVersion, file: FoundFile
) -> None:
    paths, roles = names_of.setdefault(file.stamp, ({}, {}))
    paths[mirror.path(f"{version.path}/{file.name}")] = None
    roles[file.role] = None


def _make_ref(stamp: Stamp, names: _Names) -> FileRef:
    paths, roles = names
    path, *others = paths
    return FileRef(path, stamp, roles=tuple(roles), other_paths=tuple(others))


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
    read = _ReadFiles({}, {}, {}, {file.name: {} for file in selection.metadata})
    for file in plan.pending:
        outcome = outcomes.get(file.stamp)
        if outcome is not None:
            read.add(file, outcome, selection)
    still_valid = [root for root in selection.roots if root not in plan.pending]
    items: dict[str, CachedItem] = {}
    for file in selection.files:
        name = file.name
        known, digest = plan.items.get(name), read.digests.get(name)
        if file.role.kind == "metadata":
            held = {
                root.role.combined: getattr(known, root.role.combined)
                for root in still_valid
                if known is not None
            }
            fields = fingerprint_fields({**held, **read.fingerprints[name]})
            if digest is not None:
                items[name] = _make_item(version, file, digest, fields)
            elif known is not None:
                items[name] = replace(known, **{**_NO_FINGERPRINTS, **fields})
        elif digest is not None:
            items[name] = _make_item(version, file, digest, {"combined_type": read.types[name]})
        elif known is not None and file not in plan.pending:
            items[name] = known
    findings = [
        Finding(
            failure.code,
            f"{version.path}/{name}",
            failure.problem,
            failure.remedy,
            files_left_out=int(not failure.costs_version),
            versions_left_out=int(failure.costs_version),
        )
        for name, failure in read.failures.items()
    ]
    return items, findings


class _ReadFiles(Struct):
    """What came of reading the pending files of a version; the keys are file names."""

    digests: dict[str, FileDigest]
    types: dict[str, str]
    failures: dict[str, Failed]
    fingerprints: dict[str, dict[str, str]]

    def add(self, file: FoundFile, outcome: Outcome, selection: Selection) -> None:
        """Add the outcome of a pending file, and of the metadata that was read with it."""
        if isinstance(outcome, Failed) and outcome.metadata:
            for metadata in selection.metadata:
                self._add_digest(metadata, outcome.metadata[metadata.stamp])
            return
        if isinstance(outcome, Failed):
            misfit = _find_misfit(file, outcome.head) if outcome.head else None
            self.failures[file.name] = misfit or outcome
            return
        if not self._add_digest(file, outcome.root):
            return
        self.types[file.name] = outcome.combined_type
        if file.role.kind != "root":
            return
        for metadata in selection.metadata:
            if self._add_digest(metadata, outcome.metadata[metadata.stamp]):
                fingerprint = outcome.fingerprints[metadata.stamp]
                self.fingerprints[metadata.name][file.role.combined] = fingerprint

    def _add_digest(self, file: FoundFile, digest: FileDigest | Failed) -> bool:
        """Add a digest or a failure; return whether the file can be used."""
        misfit = _find_misfit(file, digest.head) if digest.head else None
        if misfit is not None:
            self.failures[file.name] = misfit
        elif isinstance(digest, Failed):
            self.failures[file.name] = digest
        else:
            self.digests[file.name] = digest
            return True
        return False


def _find_misfit(file: FoundFile, head: bytes) -> Failed | None:
    """Return why a file is not what its name says; other names of the same file may fit."""
    fault = find_fault(file.role, head, file.stamp.size_bytes)
    return None if fault is None else Failed(fault.code, fault.problem, fault.remedy)


def _make_item(
    version: FoundVersion, file: FoundFile, digest: FileDigest, fields: Mapping[str, Any]
) -> CachedItem:
    return CachedItem(
        ftype=file.role.ftype,
        path=f"{version.path}/{file.name}",
        size=file.stamp.size_bytes,
        sha256=digest.sha256,
        key=digest.key,
        blake3=digest.blake3,
        delta_base=file.role.delta_base,
        checked=digest.is_checked,
        **fields,
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

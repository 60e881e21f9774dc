"""One image on its way into the tree: what must be read, and what to do with the outcome.

A new version is made in a staging directory (``Creation``); one that exists is compared with the
source (``Comparison``). Both say what must be read, take the outcomes, and either succeed or
return a finding.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from fastindex.errors import Code, suggest_remedy
from fastindex.events import Finding
from fastindex.formats.simplestreams import CachedItem
from fastindex.hashing.tasks import Digested, Failed, FileDigest, FileRef, Outcome, RootTask
from fastindex.mirror import cache, staging
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import FoundFile
from fastindex.operations.importer.options import ImportOptions
from fastindex.operations.importer.plan import Extra, ImportPlan, rank_for_naming
from fastindex.operations.importer.settings import plan_changes
from fastindex.operations.plan import merge
from fastindex.system.directories import LeadsOutError, real_path
from fastindex.system.files import has_content, read_same_file
from fastindex.system.stamps import Stamp, stamp_of

_MAX_EXTRA_BYTES = 1 << 20
_CHECK = "check it and remove it by hand"


class ImportJob(Protocol):
    """The import of one image, be it a new version or one that exists."""

    plan: ImportPlan
    """What to import."""
    tasks: tuple[RootTask, ...]
    """What must be read."""
    warnings: list[Finding]
    """What a person should know although the import succeeded."""
    is_new: bool
    """Whether the version is new in the tree."""

    def finish(self, outcomes: dict[str, Outcome]) -> Finding | None:
        """Finish the import, given the outcome for each task's path; return why it failed."""

    def close(self) -> None:
        """Release everything, and undo what is not finished."""


def start_job(
    plan: ImportPlan, mirror: Mirror, options: ImportOptions, is_published: Callable[[str], bool]
) -> ImportJob | Finding:
    """Start an import.

    Args:
        plan: what to do.
        mirror: the mirror.
        options: what to do with the sources, and what to call the product.
        is_published: whether the catalogue names a version, given relative to ROOT.

    Returns:
        The job, which the caller closes; or why the image cannot be imported.
    """
    try:
        if not _exists(plan, mirror):
            try:
                return Creation(plan, mirror, options)
            except staging.OvertakenError:
                if not _exists(plan, mirror):
                    raise
        return Comparison(plan, mirror, options, is_published)
    except staging.StagingError as error:
        return _fail(error.code, plan.label, error.problem, error.remedy)
    except OSError as error:
        return fail_to_write(plan, error)


def _exists(plan: ImportPlan, mirror: Mirror) -> bool:
    return os.path.lexists(mirror.path(plan.version_path))


class Creation:
    """The import of an image as a new version.

    Args:
        plan: what to do.
        mirror: the mirror.
        options: what to do with the sources, and what to call the product.

    Raises:
        staging.StagingError: the version cannot be put into the tree.
    """

    is_new = True

    def __init__(self, plan: ImportPlan, mirror: Mirror, options: ImportOptions) -> None:
        self.plan = plan
        self.warnings: list[Finding] = []
        self._mode = options.mode
        self._aliases = options.aliases
        self._linked: list[str] = []
        self._twins: list[tuple[str, str]] = []
        self._mirror = mirror
        self._staging = staging.Staging(mirror, plan.version_path)
        try:
            self._refs = self._stage()
            self.tasks = self._list_tasks()
        except BaseException:
            self._staging.close()
            raise

    def _stage(self) -> dict[str, FileRef]:
        """Link what can be linked; return what must be read, by its name in the tree."""
        refs: dict[str, FileRef] = {}
        first_of: dict[Stamp, str] = {}
        for file in self.plan.planned.version.files:
            part = self.plan.parts[file.name]
            staged = f"{self._staging.path}/{file.name}"
            may_link = self._mode == "link" or (self._mode == "move" and not part.is_linked)
            if may_link and self._staging.link(part.path, file.name, part.status):
                self._linked.append(file.name)
                refs[file.name] = _make_ref(staged, file)
            elif file.stamp in first_of:
                self._twins.append((first_of[file.stamp], file.name))
            else:
                first_of[file.stamp] = file.name
                refs[file.name] = _make_ref(part.path, file, copy_to=staged)
        return refs

    def _list_tasks(self) -> tuple[RootTask, ...]:
        selection = self.plan.planned.selection
        metadata = {
            file.stamp: self._refs[file.name]
            for file in selection.metadata
            if file.name in self._refs
        }
        tasks: dict[Stamp, RootTask] = {}
        for file in (*selection.roots, *selection.singles):
            if file.name in self._refs:
                beside = tuple(metadata.values()) if file.role.kind == "root" else ()
                is_unified = file.role.kind == "unified"
                tasks.setdefault(file.stamp, RootTask(self._refs[file.name], beside, is_unified))
        if not selection.roots:
            tasks |= {id_: RootTask(ref) for id_, ref in metadata.items()}
        return tuple(tasks.values())

    def finish(self, outcomes: dict[str, Outcome]) -> Finding | None:
        """Publish the version in the tree, with its cache; then remove the sources, on a move."""
        digests = _collect_digests(self.tasks, outcomes)
        failed = _find_failure(self.plan, digests)
        if failed is not None:
            return failed
        of_file = {task.root.stamp: outcomes[task.root.path] for task in self.tasks}
        items, _ = merge(self.plan.planned, of_file)
        try:
            for first, name in self._twins:
                self._staging.link_twin(first, name)
            for extra in self.plan.extras:
                content = read_same_file(extra.path, extra.status, _MAX_EXTRA_BYTES)
                self._staging.write(extra.name, content, extra.status.st_mtime_ns)
            self._sync_links()
            self._write_cache(items)
            self._staging.publish()
        except OSError as error:
            return fail_to_write(self.plan, error)
        self.warnings += plan_changes(self._mirror, self.plan, self._aliases).write(self._mirror)
        if self._mode == "move":
            self.warnings += _remove_sources(self.plan, self._mirror, self.plan.extras, {})
        self._staging.complete()
        return None

    def _write_cache(self, items: dict[str, CachedItem]) -> None:
        try:
            self._staging.write_cache(items, self.plan.planned.version.metadata_ftypes)
        except OSError as error:
            problem = f"its cache cannot be written ({error.strerror or error})"
            remedy = f"{suggest_remedy(error)}; the next build will read the image again"
            self.warnings.append(
                Finding(Code.CACHE_NOT_WRITTEN, self.plan.version_path, problem, remedy)
            )

    def _sync_links(self) -> None:
        """Make sure that files which this import did not write are on the disk and readable."""
        may_change = self._mode == "move"
        for name in self._linked:
            if not self._staging.sync_link(name, may_change=may_change):
                problem = "not readable by everyone, so the web server may be unable to serve it"
                where = f"{self.plan.version_path}/{name}"
                self.warnings.append(
                    Finding(Code.NOT_SERVABLE, where, problem, "run chmod a+r on it")
                )

    def close(self) -> None:
        """Undo what is not finished."""
        self._staging.close()


class Comparison:
    """The import of an image whose version exists: the two are compared.

    A copy believes the version's cache; a move reads both sides, because it may remove the last
    good copy: a file can rot under an unchanged stamp. Neither reads files that the source and
    the version share as hard links.

    A move removes the source only if the version is sure to stay: the catalogue publishes it, or
    it comes from a move that was interrupted. Any other may be withdrawn in the record of another
    output directory, and its files deleted soon.
    """

    is_new = False

    def __init__(
        self,
        plan: ImportPlan,
        mirror: Mirror,
        options: ImportOptions,
        is_published: Callable[[str], bool],
    ) -> None:
        self.plan = plan
        self.warnings: list[Finding] = []
        self._mode = options.mode
        self._aliases = options.aliases
        self._is_published = is_published
        self._mirror = mirror
        self._target = mirror.path(plan.version_path)
        self._known: dict[str, str] = {}
        self._existing: dict[str, FileRef] = {}
        self._sources: dict[str, FileRef] = {}
        self._stamps: dict[str, Stamp] = {}
        self._difference = self._find_difference()
        refs = (*self._sources.values(), *self._existing.values())
        tasks = {ref.stamp: RootTask(ref) for ref in refs}
        self.tasks = () if self._difference else tuple(tasks.values())

    def _find_difference(self) -> str:
        """Find out what must be read; return how the version differs, as far as stamps tell."""
        cached = cache.load(self._mirror, self.plan.version_path)
        for file in self.plan.planned.version.files:
            name = file.name
            path = self._locate(name)
            status = staging.stat_regular_file(path)
            if status is None:
                return f"without {name}"
            if status.st_size != file.stamp.size_bytes:
                return f"with a different {name}"
            found = FoundFile(name, file.role, stamp_of(status))
            self._stamps[name] = found.stamp
            is_shared = os.path.samestat(status, self.plan.parts[name].status)
            if is_shared and name not in self.plan.checksums:
                continue
            self._sources[name] = _make_ref(self.plan.parts[name].path, file)
            item = cache.accept_item(cached.items.get(name), found, cached.mtime_ns)
            if item is not None and not item.damaged and self._mode != "move":
                self._known[name] = item.sha256
            else:
                self._existing[name] = _make_ref(path, found)
        return ""

    def _locate(self, name: str) -> str:
        """Return the real path of a file of the version.

        Raises:
            staging.LinkError: a symlink leads to where it may not.
        """
        try:
            return os.path.join(*self._mirror.find_place(f"{self.plan.version_path}/{name}"))
        except LeadsOutError as error:
            raise staging.LinkError(
                f"{self.plan.version_path} exists already, but is or contains a symlink that "
                f"leads elsewhere, to {real_path(f'{self._target}/{name}')}",
                "remove the symlink, or allow where it leads with --allow-links DIR",
            ) from error

    def finish(self, outcomes: dict[str, Outcome]) -> Finding | None:
        """Return how the version differs from the source; if it does not, finish a move."""
        failed = None if self._difference else self._compare(outcomes)
        if failed is not None:
            return failed
        if self._difference:
            return _fail(
                Code.VERSION_EXISTS,
                self.plan.label,
                f"{self.plan.version_path} exists already, {self._difference}",
                "name this version with --version-name, or remove the existing one",
            )
        equal = self._find_equal_extras()
        self.warnings += plan_changes(self._mirror, self.plan, self._aliases).write(self._mirror)
        if self._mode == "move":
            self.warnings += self._remove_sources(equal)
        staging.remove_mark(self._mirror, self.plan.version_path)
        return None

    def _compare(self, outcomes: dict[str, Outcome]) -> Finding | None:
        """Compare what was read; return why that is not possible."""
        digests = _collect_digests(self.tasks, outcomes)
        failed = _find_failure(self.plan, digests)
        if failed is not None:
            return failed
        for name, ref in self._sources.items():
            ours = digests[ref.stamp]
            there = digests[self._existing[name].stamp] if name in self._existing else None
            if isinstance(there, Failed):
                return _fail(there.code, f"{self._target}/{name}", there.problem, there.remedy)
            known = there.sha256 if there is not None else self._known[name]
            if isinstance(ours, Failed) or ours.sha256 != known:
                self._difference = f"with a different {name}"
        return None

    def _find_equal_extras(self) -> tuple[Extra, ...]:
        """Return the companions that the version has, too; warn of the others."""
        equal: list[Extra] = []
        for extra in self.plan.extras:
            name = extra.name
            path = self._locate(name)
            try:
                content = read_same_file(extra.path, extra.status, _MAX_EXTRA_BYTES)
                is_equal = has_content(path, content)
            except OSError:
                is_equal = False
            if is_equal:
                equal.append(extra)
                continue
            what = "another" if os.path.lexists(path) else "no"
            self.warnings.append(
                Finding(
                    Code.SOURCE_KEPT,
                    extra.path,
                    f"stays here: {self.plan.version_path} exists, with {what} {name}",
                    f"copy it there if it is the right one, else remove it; that is {path}",
                )
            )
        return tuple(equal)

    def _remove_sources(self, extras: tuple[Extra, ...]) -> list[Finding]:
        path = self.plan.version_path
        if staging.has_mark(self._mirror, path) or self._is_published(path):
            return _remove_sources(self.plan, self._mirror, extras, self._stamps)
        problem = f"not removed: the version exists, but {self._mirror.output} does not publish it"
        return [
            Finding(
                Code.SOURCE_KEPT,
                self.plan.label,
                problem,
                "build, or name its --output; then import again",
            )
        ]

    def close(self) -> None:
        """Do nothing: nothing was changed."""


def _remove_sources(
    plan: ImportPlan, mirror: Mirror, extras: tuple[Extra, ...], stamps: dict[str, Stamp]
) -> list[Finding]:
    """Remove sources that the tree has by now; return a finding for each that stays.

    The metadata goes last: it says where the image belongs, so an import that is killed in
    between can be repeated.

    Args:
        plan: what was imported.
        mirror: the mirror.
        extras: the companions to remove.
        stamps: name in the tree → the stamp that the copy there must have.
    """
    sources = [(one.path, one.status, one.name) for one in extras if not one.is_kept]
    parts = sorted(plan.parts.values(), key=rank_for_naming, reverse=True)
    sources += [(part.path, part.status, part.name) for part in parts if not part.is_linked]
    version = mirror.path(plan.version_path)
    findings: list[Finding] = []
    linked = [part.found_at for part in parts if part.is_linked]
    if linked:
        problem = "copied, not moved: a symlink leads to it"
        findings.append(Finding(Code.SOURCE_KEPT, linked[-1], problem, "remove it by hand"))
    for path, status, name in sources:
        reason = staging.remove_source(mirror, path, status, f"{version}/{name}", stamps.get(name))
        if reason:
            findings.append(Finding(Code.SOURCE_KEPT, path, f"not removed: {reason}", _CHECK))
    return findings


def fail_to_write(plan: ImportPlan, error: OSError) -> Finding:
    """Return that an image cannot be imported because of ``error``."""
    return _fail(
        Code.NOT_WRITTEN,
        plan.label,
        f"{plan.version_path}: cannot be written ({error.strerror or error})",
        f"{suggest_remedy(error)}, then run again",
    )


def _make_ref(path: str, file: FoundFile, copy_to: str = "") -> FileRef:
    return FileRef(path, file.stamp, copy_to)


def _collect_digests(
    tasks: tuple[RootTask, ...], outcomes: dict[str, Outcome]
) -> dict[Stamp, FileDigest | Failed]:
    """Return the digest, or the failure, of each file that was read."""
    digests: dict[Stamp, FileDigest | Failed] = {}
    for task in tasks:
        outcome = outcomes[task.root.path]
        if isinstance(outcome, Digested):
            digests |= {task.root.stamp: outcome.root, **outcome.metadata}
        else:
            digests[task.root.stamp] = outcome
    return digests


def _find_failure(plan: ImportPlan, digests: dict[Stamp, FileDigest | Failed]) -> Finding | None:
    """Return why the source cannot be imported: unreadable, or different from its SHA256SUMS."""
    for file in plan.planned.version.files:
        path = plan.parts[file.name].path
        digest = digests.get(file.stamp)
        if isinstance(digest, Failed):
            return _fail(digest.code, path, digest.problem, digest.remedy)
        expected = plan.checksums.get(file.name)
        if digest is not None and expected not in (None, digest.sha256):
            return _fail(
                Code.CHECKSUM_MISMATCH,
                path,
                f"its SHA-256 is {digest.sha256}, but SHA256SUMS says {expected}",
                "fetch it again; nothing of this image was imported",
            )
    return None


def _fail(code: Code, path: str, problem: str, remedy: str) -> Finding:
    return Finding(code, path, problem, remedy, versions_left_out=1)

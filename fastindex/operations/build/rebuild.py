"""The rest of the pipeline, top to bottom: plan → digest → catalogue → publish."""

from __future__ import annotations

import os
import time
from contextlib import closing
from typing import TYPE_CHECKING

from fastindex.catalogue import assembly, conflicts, publication
from fastindex.errors import FastindexError
from fastindex.events import Finding, Observer
from fastindex.formats.simplestreams import Item, Product, ProductFile
from fastindex.mirror import cache
from fastindex.mirror.settings import SettingsReader
from fastindex.mirror.settle import Settling
from fastindex.mirror.state import notes
from fastindex.mirror.tree import (
    FileId,
    Found,
    FoundProduct,
    FoundVersion,
    Notes,
    Outcome,
    PlannedVersion,
)
from fastindex.operations import plan
from fastindex.operations.build import recheck
from fastindex.operations.build.options import BuildOptions, BuildReport
from fastindex.operations.build.pending import Waiting
from fastindex.system import directories

if TYPE_CHECKING:
    from concurrent.futures import Executor

Entries = dict[str, dict[str, Item]]
"""Version name → file name → item, of one product."""


class Rebuild:
    """One pass over a tree that has changed.

    Args:
        options: what to do.
        root: absolute path of ROOT.
        output: absolute path of the directory with ``streams/``.
        observer: told of progress.
        settings: reads the settings files in the tree.
        findings: those of the scan; more are added.
        noted: what earlier runs noted.
        settling: tells what is too young.
    """

    def __init__(
        self,
        options: BuildOptions,
        root: str,
        output: str,
        observer: Observer,
        settings: SettingsReader,
        findings: list[Finding],
        noted: Notes,
        settling: Settling,
    ) -> None:
        self._options = options
        self._notes = noted
        self._share = recheck.parse_share(options.recheck) if options.recheck else None
        self._day = recheck.today() if options.recheck_day is None else options.recheck_day
        self._rechecked: dict[str, assembly.Digests] = {}
        self._root = root
        self._bounds = directories.bounds_of(root, *options.streams)
        self._output = output
        self._observer = observer
        self._settings = settings
        self._findings = findings
        self._settling = settling
        self._left_to_settle = 0
        self._reused = 0
        self._hashed = 0
        self._bytes_read = 0
        self._hashing_seconds = 0.0
        self._has_young_or_failed = False
        self._unsaved: list[tuple[str, str]] = []

    def run(
        self, found: list[Found], executor: Executor | None, began: float
    ) -> tuple[BuildReport, bool]:
        """Carry all stages out.

        Args:
            found: what the scan saw; emptied on the way, to free its memory.
            executor: where to hash, or None.
            began: when the run began, by ``time.perf_counter``.

        Returns:
            The report, and whether the same tree would give the same again: nothing
            failed, nothing was too young to trust.
        """
        before = dict(self._notes.damaged)
        try:
            known, pending = self._plan(found)
            self._digest(pending, known, executor)
        finally:
            if self._notes.damaged != before and not self._options.dry_run:
                notes.save_damaged(self._output, self._notes.damaged)
        documents = self._catalogue(known)
        drafts = [publication.draft(self._output, document) for document in documents]
        dry_run = self._options.dry_run
        refusal = ""
        try:
            publication.check(drafts, force=self._options.force, withdrawn=self._notes.withdrawn)
        except FastindexError as error:
            if not dry_run:
                self._tell_findings()  # often the reason
                raise
            refusal = str(error)
        wrote = () if dry_run else publication.write(self._output, drafts)
        changes = [c for draft in drafts for c in publication.changes(draft)] if dry_run else []
        if self._unsaved:
            self._findings.append(_unsaved(self._unsaved))
        products = [entry for document in documents for entry in document.products.values()]
        findings = self._tell_findings()
        report = BuildReport(
            products=len(products),
            versions=sum(len(entry.versions) for entry in products),
            files_hashed=self._hashed,
            files_reused=self._reused,
            bytes_read=self._bytes_read,
            hashing_seconds=self._hashing_seconds,
            seconds=time.perf_counter() - began,
            versions_settling=self._left_to_settle,
            findings=findings,
            changes=tuple(changes),
            refusal=refusal,
            product_files={d.document.content_id: d.data for d in drafts} if dry_run else {},
            wrote=wrote,
        )
        is_final = not (self._has_young_or_failed or self._left_to_settle or self._unsaved)
        return report, is_final

    def _tell_findings(self) -> tuple[Finding, ...]:
        findings = tuple(sorted(self._findings, key=lambda finding: finding.path))
        for finding in findings:
            self._observer.warn(finding)
        return findings

    def _plan(
        self, found: list[Found]
    ) -> tuple[list[tuple[FoundProduct, Entries]], list[PlannedVersion]]:
        """Take from the caches what they vouch for; find out what must be read.

        What needs no reading becomes catalogue items at once, product by product, so
        that memory does not hold the caches of the whole mirror.
        """
        known: list[tuple[FoundProduct, Entries]] = []
        pending: list[PlannedVersion] = []
        found.reverse()
        while found:
            product, versions = found.pop()
            entries: Entries = {}
            known.append((product, entries))
            for version in versions:
                planned = self._plan_version(product, version, versions)
                if planned is None:
                    continue
                self._reused += plan.count_reused(planned)
                if planned.pending:
                    pending.append(planned)
                    continue
                if planned.is_adopted:
                    self._save(planned, planned.items)
                self._enter(entries, planned, planned.items)
        return known, pending

    def _plan_version(
        self, product: FoundProduct, found: FoundVersion, siblings: list[FoundVersion]
    ) -> PlannedVersion | None:
        if self._settling.is_young(found):
            self._left_to_settle += 1
            self._findings += self._settling.ahead(found)
            self._observer.log(f"{found.path}: has young files, left for the next run")
            return None
        selection, findings = plan.select(found, siblings)
        self._findings += findings
        missing = plan.missing_part(found, selection)
        if missing is not None:
            self._findings.append(missing)
            return None
        recheck.forget_changed(found, self._notes.damaged, is_accepted=self._options.rehash)
        if self._options.rehash:
            return plan.plan_version(product, found, selection, cache.NO_CACHE)
        cached = cache.load(self._root, self._options.cache_dir, found.path)
        planned = plan.plan_version(product, found, selection, cached)
        damage = recheck.known_damage(planned, self._notes.damaged)
        if damage:
            self._findings += damage
            return None
        if self._share is not None and recheck.is_due(found.path, self._share, self._day):
            self._rechecked[found.path] = planned.items
            return plan.plan_version(product, found, selection, cache.NO_CACHE)
        return planned

    def _enter(self, entries: Entries, planned: PlannedVersion, digests: assembly.Digests) -> None:
        items = assembly.version_items(planned, digests)
        if isinstance(items, Finding):
            self._findings.append(items)
        else:
            entries[planned.version.name] = items

    def _digest(
        self,
        pending: list[PlannedVersion],
        known: list[tuple[FoundProduct, Entries]],
        executor: Executor | None,
    ) -> None:
        """Read what must be read; keep what was learned, even when interrupted."""
        tasks = plan.tasks(pending, self._root)
        if not tasks:
            return
        from fastindex.hashing import pool  # 15 ms that a run with nothing to read does not need
        from fastindex.hashing.batches import grouped
        from fastindex.hashing.strategy import prepare, refuse_shortage

        began = time.perf_counter()
        waiting = Waiting(pending)
        pending.clear()
        entries_of = {product.path: entries for product, entries in known}
        roots = (task.root for task in tasks)
        how = prepare(self._options.jobs, self._options.engine, roots, self._observer)
        batches = grouped(tasks, how, wants_blake3=self._options.blake3)
        del tasks
        try:
            # Closing ends the workers at once, before anything else is tidied up.
            with closing(pool.observed(batches, how.jobs, executor, self._observer)) as results:
                for batch, outcomes in results:
                    refuse_shortage(batch, outcomes)
                    for version in waiting.completed_by(batch, outcomes):
                        digests = self._keep(version, waiting.outcomes)
                        if digests is not None:
                            self._enter(entries_of[version.product.path], version, digests)
                        waiting.release(version)
        finally:
            for version in waiting.begun():
                self._keep(version, waiting.outcomes)
            self._hashing_seconds = time.perf_counter() - began
            self._bytes_read, self._hashed = waiting.bytes_read, waiting.files_read

    def _keep(
        self, planned: PlannedVersion, outcomes: dict[FileId, Outcome]
    ) -> assembly.Digests | None:
        """Save what is known of a version now; return it, or None where it is left out."""
        items, findings = plan.merge(planned, outcomes)
        self._findings += findings
        self._findings += plan.future_stamps(planned, items, time.time_ns())
        if findings or not all(item.key for item in items.values()):
            self._has_young_or_failed = True
        known = self._rechecked.pop(planned.version.path, {})
        damage = self._damage(planned, known, items)
        if damage:
            self._findings += damage
            return None  # and the cache keeps what was right
        if items.keys() >= known.keys():
            self._save(planned, items)
        self._observer.log(f"{planned.version.path}: hashed")
        return None if any(finding.versions_left_out for finding in findings) else items

    def _damage(
        self, planned: PlannedVersion, known: assembly.Digests, items: assembly.Digests
    ) -> list[Finding]:
        """Hold a version that was read again against what was known; note what differs."""
        damaged = [
            name
            for name, item in items.items()
            if name in known and known[name].sha256 != item.sha256
        ]
        for name in damaged:
            self._notes.damaged[f"{planned.version.path}/{name}"] = known[name].key or ""
        return [recheck.damage(f"{planned.version.path}/{name}") for name in damaged]

    def _save(self, planned: PlannedVersion, items: assembly.Digests) -> None:
        if self._options.dry_run or not items:
            return
        elsewhere = self._options.cache_dir
        path = cache.cache_path(elsewhere or self._root, planned.version.path)
        ftypes = planned.metadata_ftypes
        try:
            if elsewhere:
                cache.save(path, items, ftypes)
                return
            with directories.inside(os.path.dirname(path), self._bounds) as directory:
                cache.save(path, items, ftypes, directory)
        except FileNotFoundError:
            pass  # the version was removed meanwhile, and with it the use of its cache
        except OSError as error:
            self._unsaved.append((path, error.strerror or str(error)))

    def _catalogue(self, known: list[tuple[FoundProduct, Entries]]) -> list[ProductFile]:
        """Return the product file of each stream, free of conflicts."""
        products: dict[str, dict[str, Product]] = {name: {} for name in self._options.streams}
        paths: dict[tuple[str, str], str] = {}
        for found, entries in sorted(known, key=lambda pair: pair[0].key):
            if entries:
                settings = self._settings.merged(found.dotfiles)
                entry = assembly.product(found, settings, entries)
                products[found.stream][found.key] = entry
                paths[found.stream, found.key] = found.path
        documents, taken = self._without_conflicts(
            [ProductFile(content_id=name, products=entries) for name, entries in products.items()]
        )
        documents, borrowed = conflicts.without_borrowed_aliases(documents, paths)
        self._findings += self._settings.findings
        self._findings += taken
        self._findings += borrowed
        self._findings += assembly.lint(documents, paths)
        return documents

    def _without_conflicts(
        self, documents: list[ProductFile]
    ) -> tuple[list[ProductFile], list[Finding]]:
        kept, findings = conflicts.without_conflicts(documents)
        if findings:  # rare: only then what is published is worth reading
            incumbents = publication.published_fingerprints(self._output, self._options.streams)
            kept, findings = conflicts.without_conflicts(documents, incumbents)
        return kept, findings


def _unsaved(failures: list[tuple[str, str]]) -> Finding:
    path, reason = failures[0]
    others = f", nor can {len(failures) - 1} others" if len(failures) > 1 else ""
    return Finding(
        path,
        f"cannot be written ({reason}){others}; the next run will read those files again",
        "give this user the right to write there, or name a --cache-dir",
    )

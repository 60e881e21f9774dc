"""The stages of a build of a tree that has changed: plan → digest → draft → assemble → publish."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import ExitStack
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from fastindex.catalogue.aliases import Claim
from fastindex.catalogue.changes import find_changes
from fastindex.catalogue.companions import Makers
from fastindex.catalogue.conflicts import drop_dead_deltas
from fastindex.catalogue.drafts import Draft, PieceWriter
from fastindex.catalogue.publication import (
    Refusal,
    Write,
    plan_writes,
    review_draft,
)
from fastindex.catalogue.streams import OtherStreams, StreamSummary, read_other_streams
from fastindex.errors import Code, FastindexError, TreeError
from fastindex.events import Change, Finding, Observer, report_findings
from fastindex.formats.quantities import format_duration
from fastindex.formats.simplestreams import STREAMS_DIRECTORY, product_file_path
from fastindex.mirror.levels import explain_missing_stream
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import known, withdrawals
from fastindex.mirror.state.known import KnownStream
from fastindex.operations.builder.assembling import Assembled, Assembler, Origin, Tree
from fastindex.operations.builder.caches import CacheWriter
from fastindex.operations.builder.digesting import digest_pending
from fastindex.operations.builder.drafting import DraftedProduct, Drafter
from fastindex.operations.builder.inputs import BuildInputs, ExaminedProduct
from fastindex.operations.builder.lasting import find_changed
from fastindex.operations.builder.options import BuildOptions, BuildReport
from fastindex.operations.builder.owners import claim_unpublished
from fastindex.operations.builder.planning import BuildPlan, PlannedProduct, Planner
from fastindex.operations.builder.published import PublishedStreams
from fastindex.operations.builder.publishing import Published, publish
from fastindex.operations.builder.recording import save_known, summarize_known
from fastindex.system.spool import Spool

if TYPE_CHECKING:
    from concurrent.futures import Executor


_LONG_SECONDS = 10
"""After reading for so long, files are looked at again before they are published."""
_FEW_SPOILED = 2
"""Up to so many versions go without ``--force`` because their files were damaged or replaced, even
if they are all that a small stream has. More of them, and most of a stream, may be a controller
that returns garbage."""


class Rebuild:
    """A build of a tree in which something has changed.

    Args:
        mirror: the mirror; its lock is held, except for a dry run.
        options: how to build.
        inputs: what the build starts from.
        observer: told of progress and findings.
        stack: closes files in the end.
    """

    def __init__(
        self,
        mirror: Mirror,
        options: BuildOptions,
        inputs: BuildInputs,
        observer: Observer,
        stack: ExitStack,
    ) -> None:
        self._mirror = mirror
        self._stack = stack
        self._options = options
        self._inputs = inputs
        self._observer = observer
        self._caches = CacheWriter(mirror, is_dry_run=options.dry_run)
        self._published = PublishedStreams(mirror, stack)
        directory = os.path.join(mirror.output, STREAMS_DIRECTORY)
        spool = Spool(None if options.dry_run else directory)
        stack.callback(spool.close)
        self._writer = PieceWriter(spool)
        self._drafter = Drafter(inputs.settings, self._published, self._writer)
        self._planner = Planner(mirror, options, inputs, self._caches, self._published, observer)
        self._tree = Tree([], [])
        self._present: dict[str, set[str]] = {}
        self._findings: list[Finding] = []
        self._settings_files: set[str] = set()
        self._files_reused = 0
        self._noted = inputs.list_noted()

    def take(self, examined: ExaminedProduct) -> None:
        """Take a product as the scan finds it.

        Raises:
            FastindexError: as ``build``.
        """
        scanned = examined.scanned
        product = scanned.product
        self._settings_files.update(product.dotfiles)
        self._findings += scanned.findings
        before = examined.known
        if before is not None:
            if before.listing != scanned.listing:
                before = replace(before, listing=scanned.listing)
            self._tree.kept.append((product, before))
            self._files_reused += before.files
            if before.is_present:
                self._present.setdefault(product.stream, set()).add(product.name.key)
            return
        if scanned.versions:
            self._present.setdefault(product.stream, set()).add(product.name.key)
        planned = self._planner.plan_product(examined)
        if planned is not None:
            self._draft(planned)

    def _draft(self, planned: PlannedProduct) -> None:
        self._files_reused += planned.files_reused
        self._tree.drafted.append(self._drafter.draft(planned))

    def finish(
        self, findings: Iterable[Finding], executor: Executor | None, began: float
    ) -> BuildReport:
        """Digest what must be read, publish, and note what the next run needs to know.

        Args:
            findings: what was left out besides what was taken.
            executor: hash in this instead of worker processes; None: in those.
            began: when the run started, by ``time.perf_counter``.

        Raises:
            FastindexError: as ``build``.
        """
        mirror, options, observer = self._mirror, self._options, self._observer
        damaged = self._inputs.damaged
        scanning_seconds = time.perf_counter() - began
        try:
            plan = self._planner.finish()
            digested = digest_pending(
                mirror, options, plan, damaged, self._caches, observer, executor, self._draft
            )
        finally:
            if not options.dry_run:
                damaged.save_changes()
        for planned in plan.waiting.values():  # nothing of these may be read after all
            self._draft(planned)
        if digested.seconds >= _LONG_SECONDS:
            self._tree.drafted[:] = map(self._leave_out_changed, self._tree.drafted)
        digested_at = time.perf_counter()
        general = [*findings, *self._findings]
        origins: list[Origin] = [known for _, known in self._tree.kept]
        origins += self._tree.drafted
        findings = [*general, *self._list_findings(origins)]
        reasons = _explain_empty_streams(mirror, options, self._tree, plan, findings)
        publication = self._prepare(findings, reasons)
        # Products that lose images to others say something else now.
        origins = [entry.origin for entry in publication.assembled.entries]
        findings = [*general, *self._list_findings(origins), *publication.findings]
        if publication.refusal is not None and not options.dry_run:
            report_findings(observer, findings)  # often the reason
            raise publication.refusal
        drafts = publication.assembled.drafts
        changes = publication.list_changes() if options.dry_run or options.list_changes else ()
        writes = publication.plan_writes(mirror.output) if options.dry_run else []
        done = (
            Published(())
            if options.dry_run
            else publication.publish(mirror, options.makers, self._inputs.published)
        )
        findings += done.findings
        shown = drafts if options.dry_run else []
        published = [entry for entry in publication.assembled.entries if entry.piece is not None]
        report = BuildReport(
            products=len(published),
            versions=sum(entry.versions for entry in published),
            files_hashed=digested.files_hashed,
            files_reused=self._files_reused,
            bytes_read=digested.bytes_read,
            hashing_seconds=digested.seconds,
            seconds=time.perf_counter() - began,
            scanning_seconds=scanning_seconds,
            publishing_seconds=time.perf_counter() - digested_at,
            versions_settling=plan.settling.total(),
            findings=report_findings(observer, [*findings, *self._caches.describe_failures()]),
            changes=changes,
            refusal=str(publication.refusal or ""),
            product_files={draft.stream: b"".join(draft.read_chunks()) for draft in shown},
            would_write=tuple(dict.fromkeys(write.path for write in writes)),
            wrote=done.wrote,
        )
        if not options.dry_run:
            save_known(
                mirror,
                self._inputs.context,
                publication.assembled,
                (self._inputs.list_noted() - self._noted) | self._caches.failed_products,
                self._list_settings(self._inputs.known.streams),
                publication.findings if publication.is_lasting else None,
            )
        return report

    def _leave_out_changed(self, drafted: DraftedProduct) -> DraftedProduct:
        """Return a product without the versions that others have changed or removed by now."""
        if drafted.piece is None:
            return drafted
        product, planned = drafted.piece.decode(), drafted.planned
        changed = find_changed(self._mirror, product.versions, planned.states)
        if not changed:
            return drafted
        planned.findings += changed.values()
        rest = {name: one for name, one in product.versions.items() if name not in changed}
        return self._drafter.redraft(drafted, replace(product, versions=drop_dead_deltas(rest)))

    def _list_findings(self, products: Iterable[Origin]) -> Iterator[Finding]:
        """Yield what was left out of products, or is worth knowing of them and their settings."""
        for product in products:
            yield from product.findings
        for some in self._list_settings(self._inputs.known.streams).values():
            yield from some

    def _list_settings(self, known: Mapping[str, KnownStream]) -> dict[str, list[Finding]]:
        """Return what is wrong with the settings files that hold for any product."""
        parsed = self._inputs.settings.findings
        found: dict[str, list[Finding]] = {}
        for path in self._settings_files:
            stream = known.get(path.partition("/")[0])
            noted = stream.settings if stream is not None else {}
            found[path] = parsed[path] if path in parsed else noted.get(path, [])
        return {path: some for path, some in found.items() if some}

    def _prepare(
        self, findings: Iterable[Finding], reasons: Mapping[str, tuple[str, str]]
    ) -> _Publication:
        """Assemble and check what is published.

        A stream that would lose too much stays as it is published, and takes part as such. The
        others go on without it.

        Args:
            findings: what was left out of the products.
            reasons: stream → why it has nothing to publish, and what to do about it.

        Raises:
            PublishError: clients would not read what was meant.
        """
        mirror = self._mirror
        expected = _find_expected(self._inputs, findings)
        assembler = Assembler(
            mirror,
            self._tree,
            self._inputs.known.streams,
            self._published,
            self._drafter,
            self._writer,
        )
        refused: dict[str, Refusal] = {}
        unpublished: list[Claim] | None = None
        while True:
            streams = [one for one in mirror.streams if one not in refused] or mirror.streams
            others = read_other_streams(mirror.output, streams, self._summarize)
            for other in others.streams:
                self._stack.callback(other.file.close)
            if unpublished is None:
                unpublished = claim_unpublished(mirror, others, self._inputs.settings)
            assembled = assembler.assemble(streams, others.streams, unpublished)
            reviews = [
                review_draft(
                    draft,
                    force=self._options.force,
                    withdrawn=expected,
                    present=self._present.get(draft.stream, ()),
                )
                for draft in assembled.drafts
            ]
            new = {
                review.refusal.stream: _explain(review.refusal, reasons)
                for review in reviews
                if review.refusal is not None
            }
            is_nothing_left = len(refused | new) == len(mirror.streams)
            if not new or is_nothing_left:
                break
            refused |= new
        found = [*others.findings, *_find_abandoned(mirror, others), *assembled.findings]
        found += [finding for review in reviews for finding in review.findings]
        found += [refusal.finding for refusal in refused.values()]
        refusal = next(iter(new.values())).error if new else None
        return _Publication(assembled, others, found, refused, refusal)

    def _summarize(self, stream: str) -> StreamSummary | None:
        """Return what the last run that built another stream knew of it."""
        found = known.load_stream(self._mirror, stream, self._inputs.context)
        return None if found is None else summarize_known(found)


class _Publication(Struct, frozen=True):
    """What a run publishes."""

    assembled: Assembled
    """The products, and the product files of the streams that are built and of others."""
    others: OtherStreams
    """What is published of the streams that are not built, or not published now."""
    findings: list[Finding]
    """What was left out, and what goes."""
    refused: dict[str, Refusal]
    """Stream → why it stays as it is published."""
    refusal: FastindexError | None = None
    """Why nothing is published at all."""

    @property
    def is_lasting(self) -> bool:
        """Whether the next run would publish the same, and tell the same of it.

        What other streams have lost is told once: the next run finds them without it.
        """
        return not self.refused and all(draft.is_published for draft in self.assembled.other_drafts)

    @property
    def _drafts(self) -> list[Draft]:
        return [*self.assembled.drafts, *self.assembled.other_drafts]

    def list_changes(self) -> tuple[Change, ...]:
        """Return how all of it differs from what is published."""
        return tuple(change for draft in self._drafts for change in find_changes(draft))

    def plan_writes(self, output: str) -> list[Write]:
        """Return the catalogue files that would be written."""
        if self.refusal is not None:
            return []
        return plan_writes(output, self._drafts, self.others)

    def publish(self, mirror: Mirror, makers: Makers, before: str) -> Published:
        """Write the catalogue files and what accompanies them.

        Args:
            mirror: the mirror.
            makers: of what accompanies the catalogue.
            before: the digest of the catalogue that is published.
        """
        writes = self.plan_writes(mirror.output)
        return publish(mirror, writes, makers, time.time(), drafts=self._drafts, before=before)


def _find_expected(inputs: BuildInputs, findings: Iterable[Finding]) -> Set[str]:
    """Return the versions whose absence is no accident."""
    # What is published of these no longer holds, and each is named.
    spoiled = {f.path.rpartition("/")[0] for f in findings if f.code is Code.DAMAGED}
    spoiled |= {f.path for f in findings if f.code is Code.STILL_CHANGING}
    withdrawn = withdrawals.list_withdrawn_versions(inputs.withdrawn)
    return withdrawn | (spoiled if len(spoiled) <= _FEW_SPOILED else frozenset())


def _explain(refusal: Refusal, reasons: Mapping[str, tuple[str, str]]) -> Refusal:
    """Return ``refusal`` with the reason why its stream is empty, if that is known."""
    if not refusal.is_empty or refusal.stream not in reasons:
        return refusal
    problem, remedy = reasons[refusal.stream]
    return replace(refusal, problem=problem, remedy=remedy)


def _explain_empty_streams(
    mirror: Mirror,
    options: BuildOptions,
    tree: Tree,
    plan: BuildPlan,
    findings: Iterable[Finding],
) -> dict[str, tuple[str, str]]:
    """Return why streams have nothing to publish, if that is known: the problem and the remedy.

    Raises:
        TreeError: none has, and one is the tree of another tool.
    """
    filled = {product.stream for product, known in tree.kept if known.versions}
    filled |= {drafted.product.stream for drafted in tree.drafted if drafted.versions}
    foreign = [finding for finding in findings if finding.code is Code.FOREIGN_TREE]
    if foreign and not filled:
        raise TreeError("\n".join(f"{f.path}: {f.problem}; {f.remedy}" for f in foreign))
    reasons = {finding.path: (finding.problem, finding.remedy) for finding in foreign}
    period = format_duration(options.settle_seconds)
    for stream, count in plan.settling.items():
        versions = "the only version is" if count == 1 else f"all {count:,} versions are"
        remedy = "run again later, or with a shorter --settle"
        reasons.setdefault(stream, (f"{versions} younger than {period}", remedy))
    for stream in set(mirror.streams) - filled - reasons.keys():
        problem, remedy = explain_missing_stream(mirror.root, stream)
        if problem:
            reasons[stream] = (problem, remedy)
    return reasons


def _find_abandoned(mirror: Mirror, others: OtherStreams) -> list[Finding]:
    """Return a finding for each other stream that is published, but has no directory."""
    return [
        Finding(
            Code.BAD_CATALOGUE,
            product_file_path(other.stream),
            f"is published, but {mirror.path(other.stream)} is not there",
            "mount it; if the stream is gone or has another name now, remove this file",
            versions_left_out=sum(product.versions for product in other.products.values()),
        )
        for other in others.streams
        if other.products and not os.path.isdir(mirror.path(other.stream))
    ]

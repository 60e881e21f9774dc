"""The stages of a build of a tree that has changed: plan → digest → assemble → publish."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from fastindex.catalogue.changes import find_changes
from fastindex.catalogue.publication import (
    Draft,
    Refusal,
    Write,
    check_decoding,
    draft_product_file,
    plan_writes,
    publish_drafts,
    review_draft,
)
from fastindex.catalogue.streams import OtherStreams, read_other_streams
from fastindex.errors import Code, FastindexError, TreeError
from fastindex.events import Finding, Observer
from fastindex.formats.simplestreams import product_file_path
from fastindex.mirror.levels import explain_missing_stream
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.settle import format_duration
from fastindex.operations.builder.assembling import Tree, assemble
from fastindex.operations.builder.caches import CacheWriter
from fastindex.operations.builder.digesting import digest_pending
from fastindex.operations.builder.inputs import RebuildInputs
from fastindex.operations.builder.options import BuildOptions, BuildReport
from fastindex.operations.builder.planning import BuildPlan, plan_build

if TYPE_CHECKING:
    from concurrent.futures import Executor


_FEW_SPOILED = 2
"""Up to so many versions go without ``--force`` because their files were damaged or replaced, even
if they are all that a small stream has. More of them, and most of a stream, may be a controller
that returns garbage."""


def rebuild(
    mirror: Mirror,
    options: BuildOptions,
    inputs: RebuildInputs,
    observer: Observer,
    executor: Executor | None,
    began: float,
) -> tuple[BuildReport, bool]:
    """Run all stages.

    Args:
        mirror: the mirror; its lock is held, except for a dry run.
        options: how to build.
        inputs: what is in the tree, and what earlier runs left; the scan is emptied on
            the way, to free its memory.
        observer: told of progress and findings.
        executor: hash in this instead of worker processes; None: in those.
        began: when the run started, by ``time.perf_counter``.

    Returns:
        The report, and whether it is final: the same tree would give the same again, as nothing
        failed or was too young to trust.

    Raises:
        FastindexError: as ``build``.
    """
    caches = CacheWriter(mirror, is_dry_run=options.dry_run)
    damaged = inputs.damaged
    found = inputs.scanned.found
    present = {(product.stream, product.name.key) for product, versions in found if versions}
    image_yamls = {
        product.path: names
        for product, versions in found
        if (names := {version.name for version in versions if version.image_yaml is not None})
    }
    del found  # it is emptied on the way
    findings = inputs.scanned.findings
    try:
        plan = plan_build(mirror, options, inputs, caches, observer)
        digested = digest_pending(mirror, options, plan, damaged, caches, observer, executor)
    finally:
        if not options.dry_run:
            damaged.save_changes()
    for product, versions in plan.products:
        versions.update(digested.items.pop(product.path, {}))
    findings += [*plan.findings, *digested.findings]
    tree = Tree(plan.products, image_yamls, inputs.settings)
    # What is published of these no longer holds, and each is named.
    spoiled = {f.path.rpartition("/")[0] for f in findings if f.code is Code.DAMAGED}
    spoiled |= {f.path for f in findings if f.code is Code.STILL_CHANGING}
    expected = inputs.withdrawn | (spoiled if len(spoiled) <= _FEW_SPOILED else frozenset())
    reasons = _explain_empty_streams(mirror, options, plan, findings)
    publication = _prepare(mirror, options, tree, expected, present, reasons)
    findings += publication.findings
    if publication.refusal is not None and not options.dry_run:
        _warn(observer, findings)  # often the reason
        raise publication.refusal
    drafts = publication.drafts
    writes = publication.plan_writes(mirror.output) if options.dry_run else []
    wrote = () if options.dry_run else publication.publish(mirror.output)
    documents = [draft.document for draft in drafts]
    products = [entry for document in documents for entry in document.products.values()]
    shown = drafts if options.dry_run else []
    report = BuildReport(
        products=len(products),
        versions=sum(len(entry.versions) for entry in products),
        files_hashed=digested.files_hashed,
        files_reused=plan.files_reused,
        bytes_read=digested.bytes_read,
        hashing_seconds=digested.seconds,
        seconds=time.perf_counter() - began,
        versions_settling=plan.settling.total(),
        findings=_warn(observer, [*findings, *caches.describe_failures()]),
        changes=tuple(
            change
            for draft in (*shown, *(publication.other_drafts if shown else ()))
            for change in find_changes(draft)
        ),
        refusal=str(publication.refusal or ""),
        product_files={draft.document.content_id: draft.data for draft in shown},
        would_write=tuple(dict.fromkeys(write.path for write in writes)),
        wrote=wrote,
    )
    is_final = digested.is_final and plan.is_final and not caches.has_failed
    # What other streams have lost is told once: the next run finds them without it.
    has_changed_others = any(not draft.is_published for draft in publication.other_drafts)
    return report, is_final and not publication.refused and not has_changed_others


class _Publication(Struct, frozen=True):
    """What a run publishes."""

    drafts: list[Draft]
    """The product files of the streams that are built."""
    other_drafts: list[Draft]
    """The product files of other streams that must change because of those."""
    others: OtherStreams
    """What is published of the streams without a draft in ``drafts``."""
    findings: list[Finding]
    """What was left out, and what goes."""
    refused: dict[str, Refusal]
    """Stream → why it stays as it is published."""
    refusal: FastindexError | None = None
    """Why nothing is published at all."""

    def plan_writes(self, output: str) -> list[Write]:
        """Return the catalogue files that would be written."""
        if self.refusal is not None:
            return []
        return plan_writes(output, [*self.drafts, *self.other_drafts], self.others)

    def publish(self, output: str) -> tuple[str, ...]:
        """Write the catalogue files; return their paths."""
        return publish_drafts(output, [*self.drafts, *self.other_drafts], self.others)


def _prepare(
    mirror: Mirror,
    options: BuildOptions,
    tree: Tree,
    withdrawn: frozenset[str],
    present: Set[tuple[str, str]],
    reasons: Mapping[str, tuple[str, str]],
) -> _Publication:
    """Assemble and check what is published.

    A stream that would lose too much stays as it is published, and takes part as such. The
    others go on without it.

    Args:
        mirror: the mirror.
        options: how to build.
        tree: what was found and digested.
        withdrawn: versions whose absence is no accident.
        present: (stream, key) of each product that has versions in the tree.
        reasons: stream → why it has nothing to publish, and what to do about it.

    Raises:
        PublishError: clients would not read what was meant.
    """
    refused: dict[str, Refusal] = {}
    while True:
        streams = [stream for stream in mirror.streams if stream not in refused] or mirror.streams
        others = read_other_streams(mirror.output, streams)
        assembled = assemble(mirror, tree, streams, others.files)
        drafts, other_drafts = (
            [draft_product_file(mirror.output, document) for document in documents]
            for documents in (assembled.documents, assembled.other_documents)
        )
        reviews = [
            review_draft(
                draft,
                force=options.force,
                withdrawn=withdrawn,
                present={key for stream, key in present if stream == draft.document.content_id},
            )
            for draft in drafts
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
    for draft in (*drafts, *other_drafts):
        check_decoding(draft)
    findings = [*others.findings, *_find_abandoned(mirror, others), *assembled.findings]
    findings += [finding for review in reviews for finding in review.findings]
    findings += [refusal.finding for refusal in refused.values()]
    refusal = next(iter(new.values())).error if new else None
    return _Publication(drafts, other_drafts, others, findings, refused, refusal)


def _explain(refusal: Refusal, reasons: Mapping[str, tuple[str, str]]) -> Refusal:
    """Return ``refusal`` with the reason why its stream is empty, if that is known."""
    if not refusal.is_empty or refusal.stream not in reasons:
        return refusal
    problem, remedy = reasons[refusal.stream]
    return replace(refusal, problem=problem, remedy=remedy)


def _explain_empty_streams(
    mirror: Mirror, options: BuildOptions, plan: BuildPlan, findings: list[Finding]
) -> dict[str, tuple[str, str]]:
    """Return why streams have nothing to publish, if that is known: the problem and the remedy.

    Raises:
        TreeError: none has, and one is the tree of another tool.
    """
    filled = {product.stream for product, versions in plan.products if versions}
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


def _warn(observer: Observer, findings: list[Finding]) -> tuple[Finding, ...]:
    """Report all findings to the observer, by path; return them in that order."""
    ordered = tuple(sorted(findings, key=lambda finding: finding.path))
    for finding in ordered:
        observer.warn(finding)
    return ordered


def _find_abandoned(mirror: Mirror, others: OtherStreams) -> list[Finding]:
    """Return a finding for each other stream that is published, but has no directory."""
    return [
        Finding(
            Code.BAD_CATALOGUE,
            product_file_path(file.content_id),
            f"is published, but {mirror.path(file.content_id)} is not there",
            "mount it; if the stream is gone or has another name now, remove this file",
            versions_left_out=sum(len(product.versions) for product in file.products.values()),
        )
        for file in others.files
        if file.products and not os.path.isdir(mirror.path(file.content_id))
    ]

"""The stages of a build of a tree that has changed: plan → digest → assemble → publish."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fastindex.catalogue.changes import find_changes
from fastindex.catalogue.publication import check_drafts, draft_product_file, publish_drafts
from fastindex.errors import Code, FastindexError, TreeError
from fastindex.events import Finding, Observer
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.settle import format_duration
from fastindex.operations.builder.assembling import assemble
from fastindex.operations.builder.caches import CacheWriter
from fastindex.operations.builder.digesting import digest_pending
from fastindex.operations.builder.inputs import RebuildInputs
from fastindex.operations.builder.options import BuildOptions, BuildReport
from fastindex.operations.builder.planning import BuildPlan, plan_build

if TYPE_CHECKING:
    from concurrent.futures import Executor


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
    findings = inputs.scanned.findings
    try:
        plan = plan_build(mirror, options, inputs, caches, observer)
        digested = digest_pending(mirror, options, plan, damaged, caches, observer, executor)
    finally:
        if not options.dry_run:
            damaged.save_changes()
    for product, versions in plan.products:
        versions.update(digested.items.pop(product.path, {}))
    _refuse_empty_streams(mirror, options, plan, findings)
    assembled = assemble(mirror, plan.products, inputs.settings)
    findings += [*plan.findings, *digested.findings, *assembled.findings]
    drafts = [draft_product_file(mirror.output, document) for document in assembled.documents]
    refusal = ""
    try:
        # What is published of these no longer holds, and each is named.
        gone = {f.path.rpartition("/")[0] for f in findings if f.code is Code.DAMAGED}
        gone |= {f.path for f in findings if f.code is Code.STILL_CHANGING}
        check_drafts(drafts, force=options.force, withdrawn=inputs.withdrawn | gone)
    except FastindexError as error:
        if not options.dry_run:
            _warn(observer, findings)  # often the reason
            raise
        refusal = str(error)
    wrote = () if options.dry_run else publish_drafts(mirror.output, drafts)
    shown = drafts if options.dry_run else []
    products = [entry for document in assembled.documents for entry in document.products.values()]
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
        changes=tuple(change for draft in shown for change in find_changes(draft)),
        refusal=refusal,
        product_files={draft.document.content_id: draft.data for draft in shown},
        wrote=wrote,
    )
    is_final = digested.is_final and not plan.settling and not caches.has_failed
    return report, is_final


def _refuse_empty_streams(
    mirror: Mirror, options: BuildOptions, plan: BuildPlan, findings: list[Finding]
) -> None:
    """Say why nothing can be published, if the reason is known.

    Raises:
        TreeError: every stream is empty, as all its versions are too young, or it is another
            tool's tree.
    """
    filled = {product.stream for product, versions in plan.products if versions}
    if filled:
        return
    foreign = [finding for finding in findings if finding.code is Code.FOREIGN_TREE]
    if foreign:
        raise TreeError("\n".join(f"{f.path}: {f.problem}; {f.remedy}" for f in foreign))
    if plan.settling and not options.force:
        count = plan.settling.total()
        versions = "the only version is" if count == 1 else f"all {count:,} versions are"
        raise TreeError(
            f"{mirror.root}: {versions} younger than {format_duration(options.settle_seconds)}: "
            "nothing to publish yet; run again later, or with a shorter --settle"
        )


def _warn(observer: Observer, findings: list[Finding]) -> tuple[Finding, ...]:
    """Report all findings to the observer, by path; return them in that order."""
    ordered = tuple(sorted(findings, key=lambda finding: finding.path))
    for finding in ordered:
        observer.warn(finding)
    return ordered

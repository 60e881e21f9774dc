"""A pull from end to end: catalogue → what is wanted → files in the tree → build.

Nothing here changes what is published until all that can be fetched is in the tree. Then, under the
mirror's lock, settings are written and an ordinary build publishes all of it, which reads no file
again. What the upstream has no more is withdrawn after that, and another build publishes the rest.
A run that is killed anywhere leaves hidden directories, with which the next one goes on.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

from msgspec.structs import replace

from fastindex.errors import Code, FastindexError, TreeError, UsageError, translate_system_errors
from fastindex.events import Finding, HeldBackFindings, Observer, report_findings
from fastindex.formats.filters import Filters, parse_filters
from fastindex.mirror import staging
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.space import find_free_bytes
from fastindex.mirror.state import pulled, snapshot, withdrawals
from fastindex.mirror.state.pulled import CatalogueFile, PulledProduct, Upstream
from fastindex.mirror.state.withdrawals import Withdrawals
from fastindex.operations.builder.options import BuildReport, join_reports
from fastindex.operations.builder.pipeline import build
from fastindex.operations.pull.choosing import make_offer
from fastindex.operations.pull.fetching import Failure, Fetcher
from fastindex.operations.pull.gaps import find_gaps
from fastindex.operations.pull.judging import (
    choose_withdrawals,
    find_lag,
    find_removed,
    find_restored,
    record_intended,
    record_outcome,
    require_plausible,
    require_same_streams,
)
from fastindex.operations.pull.options import PullOptions, PullReport
from fastindex.operations.pull.planning import (
    PullPlan,
    list_steps,
    plan_pull,
    require_mounted,
    require_space,
)
from fastindex.operations.pull.signatures import Keyring
from fastindex.operations.pull.upstream import UpstreamReader
from fastindex.operations.pull.wanted import Offer
from fastindex.operations.pull.writing import lacks_settings, write_settings
from fastindex.remote.addresses import check_url
from fastindex.remote.client import Client
from fastindex.remote.errors import FetchError
from fastindex.system import locks

_LOCK = ".pull.lock"
_RULES = 1
"""Raise it when a pull chooses otherwise of the same upstream: the next one then looks again."""


@translate_system_errors()
def pull(mirror: Mirror, options: PullOptions, *, observer: Observer | None = None) -> PullReport:
    """Bring a mirror to what an upstream has of what is asked for, and publish it.

    Args:
        mirror: the mirror.
        options: what to pull, and how.
        observer: told of progress and findings.

    Raises:
        UsageError: an option makes no sense, or nothing was pulled from ``moved_from``.
        FetchError: the upstream does not deliver its catalogue.
        UpstreamError: clients reject its catalogue, or it exceeds a bound.
        SignatureError: its catalogue is not signed as it must be.
        TreeError: it has nothing, or nothing of what is asked for; or a record of earlier runs
            cannot be used.
        BrakeError: it has shrunk, or is older than it was; or as for ``build``.
        ResourceError: the disk is too small; or the system ran out of something.
        LockHeldError: another run holds the lock.
        FastindexError: as ``build``. What was fetched is kept for the next run.
    """
    options.check()
    for url in (options.url, *options.mirrors):
        check_url(url)
    filters = parse_filters(options.filters)
    keyring = Keyring(options.keyring) if options.keyring else None
    mirror.require_root()
    wait_seconds = options.build.wait_seconds
    is_dry = options.build.dry_run
    with nullcontext() if is_dry else locks.lock(mirror.state_path(_LOCK), wait_seconds):
        return _Pull(mirror, options, filters, keyring, observer or Observer()).run()


class _Pull:
    """One run."""

    def __init__(
        self,
        mirror: Mirror,
        options: PullOptions,
        filters: Filters,
        keyring: Keyring | None,
        observer: Observer,
    ) -> None:
        self._began = time.perf_counter()
        self._mirror = mirror
        self._options = options
        self._filters = filters
        self._keyring = keyring
        self._observer = observer
        self._url = options.url.rstrip("/")
        self._moved_from = options.moved_from.rstrip("/")
        known = self._load()
        if self._moved_from and self._url not in known:
            raise UsageError(
                f"--moved-from {self._moved_from}: nothing was pulled from there; "
                + (f"give one of {', '.join(known)}" if known else "leave it out")
            )
        self._known = known
        self._upstream = known.get(self._url, Upstream())
        self._removed = find_removed(
            self._upstream.products,
            withdrawals.list_withdrawn_versions(withdrawals.load(mirror)),
        )
        self._wanted = _digest_wishes(mirror, options, keyring)

    def _load(self) -> dict[str, Upstream]:
        """Return what is known of upstreams, by their present addresses."""
        return pulled.move(pulled.load(self._mirror), self._moved_from, self._url)

    def run(self) -> PullReport:
        """Do all of it."""
        with Client(self._options.remote, self._observer) as client:
            reader = UpstreamReader(client, self._url, self._keyring)
            report = self._try_unchanged(reader)
            if report is not None:
                return report
            return self._pull(client, reader)

    def _try_unchanged(self, reader: UpstreamReader) -> PullReport | None:
        """Only build, if nothing has changed since a pull that was complete; else return None."""
        upstream = self._upstream
        mirror = self._add_streams(upstream.products)
        is_known = upstream.wanted == self._wanted and upstream.published == _digest(mirror)
        if self._options.build.dry_run or not is_known or lacks_settings(mirror, upstream.products):
            return None
        if not reader.is_unchanged(upstream.catalogue):
            return None
        held_back = HeldBackFindings(self._observer)
        try:
            built = build(mirror, self._options.build, observer=held_back)
        except FastindexError:
            held_back.release()
            raise
        if upstream.published != _digest(mirror):  # the tree has lost or gained something
            return None
        held_back.release()
        existing = sum(len(product.versions) for product in upstream.products.values())
        newest = [product.newest for product in upstream.products.values()]
        return self._report(newest, existing=existing, built=built)

    def _pull(self, client: Client, reader: UpstreamReader) -> PullReport:
        options = self._options
        for path in self._removed:
            self._observer.log(f"{path}: was removed here, and is not pulled again")
        offer, state = self._read_offer(reader)
        mirror = self._add_streams(one.product.path for one in offer.products)
        plan = plan_pull(mirror, offer)
        if options.build.dry_run:
            return self._report_plan(mirror, offer, plan)
        require_mounted(mirror, self._upstream.products, is_forced=options.build.force)
        require_space(mirror, plan)
        self._remove_marks(mirror, plan.existing)
        self._note_intended(offer, plan)
        fetcher = Fetcher(mirror, client, options.build.hashing, self._observer)
        began = time.perf_counter()
        bases = [self._url, *(url.rstrip("/") for url in options.mirrors)]
        failures = fetcher.fetch(plan, bases)
        if any(failure.is_worth_retrying for failure in failures):
            try:
                is_unchanged = reader.is_unchanged(state)
            except FetchError:  # what has come is published, and what failed is named
                pass
            else:
                if is_unchanged:
                    plan = replace(plan, missing=tuple(failure.wanted for failure in failures))
                    bases.reverse()
                else:
                    offer, state = self._read_offer(reader)
                    mirror = self._add_streams(one.product.path for one in offer.products)
                    plan = plan_pull(mirror, offer)
                    require_space(mirror, plan)
                    self._note_intended(offer, plan)
                failures = fetcher.fetch(plan, bases)
        seconds = time.perf_counter() - began
        return self._publish(mirror, offer, state, fetcher, failures, seconds)

    def _read_offer(self, reader: UpstreamReader) -> tuple[Offer, dict[str, CatalogueFile]]:
        """Return what the upstream has of what is asked for, and what its catalogue is.

        Raises:
            TreeError: it has nothing, or nothing of what is asked for.
            BrakeError: it has shrunk, or is older than it was.
        """
        catalogue = reader.read(self._filters)
        offer = make_offer(catalogue, self._options.keep, self._options.stream, self._removed)
        known = self._upstream.products
        if not self._options.build.force:
            require_plausible(self._url, offer, known)
        require_same_streams(self._url, offer, known, self._options.stream)
        unused = self._filters.find_unused()
        if not offer.products:
            # A version that cannot be used is a better reason than a name that nothing has.
            why = [f"{one.path}: {one.problem}; {one.remedy}" for one in (*offer.findings, *unused)]
            why.append(
                "see what it has by a --dry-run without --filter"
                if self._options.filters
                else "ask who runs the upstream"
            )
            raise TreeError(
                f"{self._url}: has nothing of what is asked for that can be used; nothing was "
                f"changed; {why[0]}"
            )
        return replace(
            offer, findings=(*offer.findings, *unused, *self._find_moves(offer))
        ), catalogue.state

    def _find_moves(self, offer: Offer) -> list[Finding]:
        """Return, when an address is new, from which others most of it was pulled before."""
        if self._url in self._known:
            return []
        paths = {one.product.path for one in offer.products}
        return [
            Finding(
                Code.UPSTREAM_MOVED,
                self._url,
                f"most of this was pulled from {url} before",
                f"if that is the same upstream, give --moved-from {url} once, or what it withdraws "
                "stays here",
            )
            for url, upstream in self._known.items()
            if 2 * len(paths & upstream.products.keys()) > len(paths)
        ]

    def _add_streams(self, products: Iterable[str]) -> Mirror:
        """Return the mirror with the streams of ``products`` added."""
        own = [name for name in self._mirror.streams if os.path.isdir(self._mirror.path(name))]
        streams = dict.fromkeys((*own, *(product.partition("/")[0] for product in products)))
        return self._mirror.with_streams([*streams] or self._mirror.streams)

    def _remove_marks(self, mirror: Mirror, existing: Iterable[str]) -> None:
        """Remove what a killed run left in versions that it had just put into the tree."""
        known = _list_pulled(self._upstream.products)
        for path in existing:
            if path in known and os.path.lexists(f"{mirror.path(path)}/{staging.MARK}"):
                staging.remove_mark(mirror, path)

    def _note_intended(self, offer: Offer, plan: PullPlan) -> None:
        """Record what will be fetched: if this run is killed, it is known to be pulled."""
        intended = {version.path for version in plan.missing}
        with self._mirror.lock(math.inf):
            self._save(record_intended(offer, self._upstream.products, intended))

    def _save(self, products: dict[str, PulledProduct], **complete: Any) -> None:
        """Record what is pulled; the mirror's lock is held.

        Args:
            products: what is pulled.
            complete: what else is known if all that was asked for is here.
        """
        known = self._load()
        before = known.get(self._url, Upstream()).products
        products = {path: one.agree(before.get(path)) for path, one in products.items()}
        self._upstream = Upstream(products, **complete)
        if products or self._url in known:
            pulled.save(self._mirror, {**known, self._url: self._upstream})

    def _publish(
        self,
        mirror: Mirror,
        offer: Offer,
        state: dict[str, CatalogueFile],
        fetcher: Fetcher,
        failures: list[Failure],
        seconds: float,
    ) -> PullReport:
        """Publish what is here, then withdraw what the upstream has no more, and publish again."""
        findings = [*offer.findings, *fetcher.warnings, *(one.finding for one in failures)]
        absent = {one.wanted.path for one in failures}
        wanted = offer.paths
        with mirror.lock(self._options.build.wait_seconds):
            restored = self._restore(mirror, wanted)
            unwritten = write_settings(mirror, offer.products)
            findings += unwritten
            held_back = HeldBackFindings(self._observer)
            try:
                built = self._build(mirror, held_back)
            except FastindexError as error:
                held_back.release()
                report_findings(self._observer, findings)
                if isinstance(error, TreeError) and failures and not _find_present(mirror, offer):
                    raise TreeError(
                        f"{self._url}: nothing of what was asked for could be pulled; nothing was "
                        "changed; see the warnings above"
                    ) from error
                raise
            gaps = find_gaps(mirror, offer.versions, absent)
            going = self._withdraw(mirror, offer, wanted - absent - {gap.path for gap in gaps})
            if going:
                built = join_reports(built, self._build(mirror, self._observer))
                gaps = find_gaps(mirror, offer.versions, absent)
            else:
                held_back.release()
            findings += gaps
            failed = absent | {gap.path for gap in gaps}
            count = offer.failed + len(failures) + len(gaps) + len(unwritten)
            here = record_intended(offer, self._upstream.products, restored)
            products = record_outcome(here, withdrawals.load(mirror), _find_lost(mirror, here))
            if count:
                self._save(products)
            else:
                self._save(
                    products, catalogue=state, wanted=self._wanted, published=_digest(mirror)
                )
        return self._report(
            [one.newest for one in offer.products],
            pulled=tuple(sorted({*fetcher.pulled} - failed)),
            existing=len(wanted - failed - {*fetcher.pulled}),
            withdrawn=tuple(sorted(going)),
            failed=count,
            findings=tuple(findings),
            bytes_fetched=fetcher.bytes_fetched,
            bytes_linked=fetcher.bytes_linked,
            fetching_seconds=seconds,
            built=built,
        )

    def _build(self, mirror: Mirror, observer: Observer) -> BuildReport:
        return build(mirror, self._options.build, observer=observer, is_locked=True)

    def _restore(self, mirror: Mirror, wanted: Collection[str]) -> list[str]:
        """Forget that pulls withdrew what the upstream has again; return that."""
        known = withdrawals.load(mirror)
        recorded = self._load().get(self._url, Upstream()).products
        restored = find_restored(wanted, recorded, known)
        if restored:
            kept = {path: known[path] for path in known if path not in restored}
            withdrawals.save(mirror, kept)
        return restored

    def _withdraw(self, mirror: Mirror, offer: Offer, present: Collection[str]) -> Withdrawals:
        """Record as withdrawn what the upstream has no more; return that.

        Args:
            mirror: the mirror.
            offer: what the upstream has.
            present: paths of the wanted versions that are published.
        """
        known = withdrawals.load(mirror)
        chosen = choose_withdrawals(offer, self._upstream.products, present, self._filters)
        going = {
            path: withdrawal
            for path, withdrawal in chosen.items()
            if path not in known and os.path.lexists(mirror.path(path))
        }
        if going:
            now = time.time()
            withdrawals.save(mirror, withdrawals.merge(known, withdrawals.stamp(going, now)))
        return going

    def _report_plan(self, mirror: Mirror, offer: Offer, plan: PullPlan) -> PullReport:
        going = choose_withdrawals(
            offer,
            self._upstream.products,
            offer.paths,
            self._filters,
        )
        return self._report(
            [one.newest for one in offer.products],
            existing=len(plan.existing),
            failed=offer.failed,
            findings=offer.findings,
            steps=list_steps(mirror, plan, sorted(going)),
            bytes_to_fetch=plan.bytes_to_fetch,
            bytes_free=find_free_bytes(mirror),
        )

    def _report(
        self, newest: Iterable[str], *, findings: tuple[Finding, ...] = (), **done: Any
    ) -> PullReport:
        """Return the report; report the findings to the observer, but for those of the build."""
        lag = find_lag(self._url, newest, self._options.lag_seconds, time.time())
        told = report_findings(self._observer, (*findings, *([lag] if lag else ())))
        return PullReport(
            findings=told,
            is_behind=lag is not None,
            seconds=time.perf_counter() - self._began,
            **done,
        )


def _find_present(mirror: Mirror, offer: Offer) -> set[str]:
    """Return the paths of the wanted versions that are in the tree."""
    return {path for path in offer.paths if os.path.lexists(mirror.path(path))}


def _find_lost(mirror: Mirror, products: Mapping[str, PulledProduct]) -> set[str]:
    """Return the paths of versions that did not arrive in the end, or are in the tree no more."""
    return {path for path in _list_pulled(products) if not os.path.lexists(mirror.path(path))}


def _list_pulled(products: Mapping[str, PulledProduct]) -> set[str]:
    return pulled.list_paths(products, lambda one: one.versions)


def _digest(mirror: Mirror) -> str:
    return snapshot.digest_published(mirror).everything


def _digest_wishes(mirror: Mirror, options: PullOptions, keyring: Keyring | None) -> str:
    """Return a digest of what decides what is wanted of an upstream."""
    wishes = (_RULES, options.filters, options.keep, options.stream, mirror.streams)
    keys = "" if keyring is None else keyring.digest
    return pulled.digest(repr((*wishes, keys)).encode("utf-8", "surrogatepass"))

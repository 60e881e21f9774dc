"""The status of a mirror: reads what is published and what runs recorded, and changes nothing."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from fastindex.catalogue.summary import ProductSummary, UnreadableFile, summarize_published
from fastindex.errors import translate_system_errors
from fastindex.formats.names import find_version_time, is_version_name
from fastindex.formats.simplestreams import PRODUCT_TOML_NAME
from fastindex.mirror import removal
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.settings import SettingsReader
from fastindex.mirror.space import find_free_bytes
from fastindex.mirror.state import outputs, runs, withdrawals
from fastindex.mirror.state.damage import DamagedFiles
from fastindex.mirror.state.runs import RunRecord
from fastindex.mirror.state.withdrawals import Withdrawals
from fastindex.operations.status.judging import choose_known, count_recent_bytes, judge
from fastindex.operations.status.options import (
    DamagedFile,
    ProductStatus,
    RunStatus,
    StatusOptions,
    StatusReport,
    StreamStatus,
    WaitingVersion,
)


class Survey(Struct, frozen=True):
    """How a mirror is, whatever became of its runs."""

    status: StatusReport
    """What a status tells, without runs, what they told, and findings."""
    unreadable: tuple[UnreadableFile, ...]
    """The catalogue files that cannot be read."""
    now: float
    """When it was so: seconds since 1970."""


def find_status(
    mirror: Mirror, options: StatusOptions, *, now: float | None = None
) -> StatusReport:
    """Return how a mirror is.

    Args:
        mirror: the mirror.
        options: what is healthy.
        now: seconds since 1970; None: by the clock.

    Raises:
        UsageError: an option makes no sense.
        TreeError: ROOT is missing, nothing is published, or a record of earlier runs cannot be
            read.
        ResourceError: the system ran out of something, or a disk failed.
    """
    return judge_runs(mirror, survey(mirror, options, now=now))


@translate_system_errors()
def survey(mirror: Mirror, options: StatusOptions, *, now: float | None = None) -> Survey:
    """Return how a mirror is, whatever became of its runs. This takes the time of a status.

    Args:
        mirror: the mirror.
        options: what is healthy.
        now: seconds since 1970; None: by the clock.

    Raises:
        UsageError: an option makes no sense.
        TreeError: ROOT is missing, nothing is published, or a record of earlier runs cannot be
            read.
        ResourceError: the system ran out of something, or a disk failed.
    """
    options.check()
    mirror.require_root()
    outputs.require_readable_catalogue(mirror)
    now = time.time() if now is None else now
    found = list(summarize_published(mirror.output))
    summaries = [one for one in found if isinstance(one, ProductSummary)]
    products = _AgeFinder(mirror, options, now).list_products(summaries)
    withdrawn = withdrawals.load(mirror)
    damaged = tuple(
        DamagedFile(path, damage.problem)
        for path, damage in DamagedFiles(mirror).list_all()
        if not withdrawals.covers(withdrawn, path)  # it goes anyway
    )
    sizes = [(name, size) for one in summaries for name, size in one.versions.items()]
    per_day = count_recent_bytes([one for one in sizes if is_version_name(one[0])], now)
    free = find_free_bytes(mirror)
    status = StatusReport(
        streams=_sum_up_streams(summaries),
        products=products,
        runs=(),
        known=(),
        waiting=_list_waiting(withdrawn, options, now),
        damaged=damaged,
        leftovers=_list_leftovers(mirror, summaries, now),
        bytes_free=free,
        bytes_per_day=per_day,
        days_left=free / per_day if per_day else None,
        findings=(),
    )
    return Survey(status, tuple(one for one in found if isinstance(one, UnreadableFile)), now)


@translate_system_errors()
def judge_runs(mirror: Mirror, found: Survey) -> StatusReport:
    """Return how a mirror is.

    Args:
        mirror: the mirror.
        found: how it is, whatever became of its runs.

    Raises:
        ResourceError: the system ran out of something, or a disk failed.
    """
    records, faults = runs.load_all(mirror)
    ended = tuple(_describe_run(one, found.now) for one in runs.sort_newest_first(records))
    known = choose_known(records)
    findings = judge(
        unreadable=found.unreadable,
        runs=ended,
        unknown_runs=faults,
        known=known,
        damaged=found.status.damaged,
        products=found.status.products,
        root=mirror.root,
    )
    return replace(found.status, runs=ended, known=known, findings=tuple(findings))


class _AgeFinder:
    """Finds how old products are, and how old they may be.

    Args:
        mirror: the mirror.
        options: what is healthy.
        now: seconds since 1970.
    """

    def __init__(self, mirror: Mirror, options: StatusOptions, now: float) -> None:
        self._mirror = mirror
        self._options = options
        self._now = now
        self._settings = SettingsReader(mirror)
        self._ages: dict[str, float] = {}

    def list_products(self, summaries: Sequence[ProductSummary]) -> tuple[ProductStatus, ...]:
        """Return the products whose versions have dates, those with the oldest images first."""
        found = [self._find(one) for one in summaries]
        return tuple(sorted((one for one in found if one is not None), key=_by_age, reverse=True))

    def _find(self, summary: ProductSummary) -> ProductStatus | None:
        names = [name for name in summary.versions if is_version_name(name)]
        if not names:
            return None
        newest = max(names, key=find_version_time)
        age = max(0.0, self._now - find_version_time(newest))
        limit = self._find_limit(summary.path)
        return ProductStatus(
            summary.path, newest, round(age), limit if math.isfinite(limit) else None
        )

    def _find_limit(self, path: str) -> float:
        """Return how old the products at a path may be: the nearest settings file says so."""
        if path not in self._ages:
            above = os.path.dirname(path)
            limit = self._find_limit(above) if above else self._options.max_age_seconds
            file = f"{path}/{PRODUCT_TOML_NAME}"
            if os.path.lexists(self._mirror.path(file)):
                own = self._settings.merge([file]).max_age_seconds
                limit = limit if own is None else own
            self._ages[path] = limit
        return self._ages[path]


def _sum_up_streams(summaries: Sequence[ProductSummary]) -> tuple[StreamStatus, ...]:
    streams: dict[str, list[ProductSummary]] = {}
    for one in summaries:
        streams.setdefault(one.stream, []).append(one)
    return tuple(
        StreamStatus(
            name,
            len(products),
            sum(len(one.versions) for one in products),
            sum(sum(one.versions.values()) for one in products),
        )
        for name, products in streams.items()
    )


def _describe_run(record: RunRecord, now: float) -> RunStatus:
    return RunStatus(
        record.command,
        _format_time(record.began),
        round(max(0.0, now - record.ended), 3),
        record.seconds,
        record.exit_code,
        record.errors,
        record.streams,
    )


def _list_waiting(
    withdrawn: Withdrawals, options: StatusOptions, now: float
) -> tuple[WaitingVersion, ...]:
    return tuple(
        WaitingVersion(
            path,
            _format_time(one.grace_began(now) + options.grace_seconds)
            if one.unpublished_at
            else "",
        )
        for path, one in sorted(withdrawn.items())
    )


def _list_leftovers(
    mirror: Mirror, summaries: Sequence[ProductSummary], now: float
) -> tuple[str, ...]:
    before_ns = round((now - removal.ABANDONED_SECONDS) * 1e9)
    return tuple(
        path for one in summaries for path in removal.find_leftovers(mirror, one.path, before_ns)
    )


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _by_age(product: ProductStatus) -> float:
    return product.age_seconds

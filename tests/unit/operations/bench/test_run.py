"""``measure``, whole."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from fastindex.cli.bench_tables import format_report
from fastindex.errors import UsageError
from fastindex.hashing import engine
from fastindex.operations.bench import BenchOptions, BenchReport, measure
from fastindex.operations.bench.memory import plan

TINY = 0.0003


@pytest.mark.parametrize(
    "options",
    [
        BenchOptions(seconds=0),
        BenchOptions(seconds=float("nan")),
        BenchOptions(seconds=float("inf")),
        BenchOptions(run_bytes=0),
        BenchOptions(run_bytes=10**400),
        BenchOptions(jobs=0),
        BenchOptions(engine="md5"),
    ],
)
def test_invalid_options_are_refused(options: BenchOptions) -> None:
    with pytest.raises(UsageError):
        measure(options)


def test_without_the_extension_lanes_are_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine.usable_engine.cache_clear()
    monkeypatch.setattr(engine, "why_no_lanes", lambda: "the moon is wrong")
    report = measure(BenchOptions(jobs=1, seconds=TINY))
    engine.usable_engine.cache_clear()
    assert {figure.engine for figure in report.hashing} == {"hashlib", ""}
    assert report.engine == "hashlib"
    assert "no lanes: the moon is wrong" in format_report(report)


def test_what_was_planned_is_what_is_reported(images: Path) -> None:
    report = measure(BenchOptions(path=str(images), jobs=2, seconds=TINY))
    has_lanes = not engine.why_no_lanes()
    wide_from = next(f.wide_from for f in report.hashing if f.algorithm == "build")
    planned = plan(2, report.engine, has_lanes=has_lanes, wide_from=wide_from)
    assert [(f.algorithm, f.lanes, f.threads, f.jobs) for f in report.hashing] == [
        (task.algorithm, task.lanes, task.threads, task.jobs) for task in planned
    ]
    assert report.disk is not None
    assert [figure.readers for figure in report.disk.figures] == [1, 2, 4]
    assert report.advice.all_seconds is not None


def test_without_o_direct_the_disk_is_measured_by_dropping_pages(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_DIRECT")
    report = measure(BenchOptions(path=str(images), jobs=1, seconds=TINY))
    assert report.disk is not None
    assert report.disk.method == "dropped"
    assert all(figure.bytes_per_second > 0 for figure in report.disk.figures)
    assert any(line.startswith("the disk (pages dropped) ") for line in format_report(report))


def test_it_works_in_a_thread() -> None:
    """There, workers are spawned, not forked: what they are sent must survive that."""
    reports: list[BenchReport] = []
    options = BenchOptions(jobs=1, seconds=TINY)
    thread = threading.Thread(target=lambda: reports.append(measure(options)))
    thread.start()
    thread.join()
    assert reports[0].jobs == 1


def test_a_file_system_in_memory_still_gets_advice_for_the_cpu(memory: Path) -> None:
    file = memory / "x"
    file.write_bytes(b"x")
    report = measure(BenchOptions(path=str(file), jobs=1, seconds=TINY))
    assert report.disk is None
    assert report.advice.limit == "unknown"

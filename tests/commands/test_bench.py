"""``fastindex bench``, as a user runs it. No test asks how long anything takes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fastindex.hashing import engine
from fastindex.hashing.digest import BUFFER_BYTES
from fastindex.operations.bench import BenchReport
from fastindex.operations.bench.memory import plan
from tests.support.command import COMMAND, UNMEASURED, Run
from tests.support.large_files import large_files

TINY = 0.0003
"""A ``--seconds`` with which each measurement is a piece or two."""


@pytest.fixture(scope="module")
def images() -> Iterator[Path]:
    """Return a directory with just enough to measure."""
    with large_files() as root:
        yield root


def stamps_below(root: Path) -> dict[str, tuple[int, int, int]]:
    """Return name → what any write would change."""
    return {
        str(path): (status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        for path in root.rglob("*")
        if (status := path.lstat())
    }


def test_the_table_and_the_advice_are_printed(fastindex: Run, images: Path) -> None:
    before = stamps_below(images)
    result = fastindex("bench", images, "--seconds", TINY, "--jobs", 2, "--gigabytes", "2.5")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    for start in (
        "GB/s, by processes ",
        "SHA-256, hashlib ",
        "BLAKE3, 1 thread ",
        "BLAKE3, 2 threads ",
        "xxh3 ",
        "a build: ",
        "the disk (O_DIRECT) ",
        "Use --jobs ",
        "A run over 2.5 GB takes ",
    ):
        assert any(line.startswith(start) for line in lines)
    assert stamps_below(images) == before


def test_json_has_the_whole_report(fastindex: Run, images: Path) -> None:
    result = fastindex("bench", "--json", "--jobs", 3, "--seconds", TINY, images)
    assert result.returncode == 0, result.stderr
    report = msgspec.convert(json.loads(result.stdout)["bench"], BenchReport)
    assert report.jobs == 3
    assert report.disk is not None
    assert {figure.readers for figure in report.disk.figures} == {1, 2, 3, 4}
    assert {figure.buffer_bytes for figure in report.disk.figures} == {BUFFER_BYTES}
    assert all(figure.bytes_per_second > 0 for figure in report.disk.figures)
    assert all(figure.bytes_per_second > 0 for figure in report.hashing)
    assert report.advice.run_bytes == 100 * 10**9


def test_the_keys_of_the_json_stay(fastindex: Run, images: Path) -> None:
    """To remove or rename a key, increase ``SCHEMA`` of reports and change this test."""
    document = json.loads(
        fastindex("bench", "--json", "--jobs", 1, "--seconds", TINY, images).stdout
    )["bench"]
    assert {name: " ".join(sorted(value)) for name, value in _objects(document)} == {
        "": "advice cpus disk engine hashing jobs missing_for_lanes seconds",
        "hashing": "algorithm buffer_bytes bytes_per_second engine jobs kernel lanes threads"
        " wide_from",
        "disk": "bytes_read figures file_system is_rotational method offered_bytes path "
        "total_bytes",
        "figures": "buffer_bytes bytes_per_second readers",
        "advice": "all_seconds bytes_per_second cpu_bytes_per_second disk_bytes_per_second "
        "jobs limit run_bytes run_seconds",
    }


def _objects(value: object, name: str = "") -> Iterator[tuple[str, dict[str, object]]]:
    if isinstance(value, list):
        for each in value:
            yield from _objects(each, name)
    elif isinstance(value, dict):
        yield name, value
        for key, each in value.items():
            yield from _objects(each, key)


def test_verbose_prints_each_figure(fastindex: Run) -> None:
    result = fastindex("bench", "-v", "--jobs", 1, "--seconds", TINY)
    figures = [line for line in result.stderr.splitlines() if line.endswith(" GB/s")]
    assert len(figures) == len(plan(1, "hashlib", has_lanes=not engine.why_no_lanes()))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--seconds", "0"], 2),
        (["--seconds", "-1"], 2),
        (["--gigabytes", "0"], 2),
        (["--gigabytes", "nan"], 2),
        (["--gigabytes", "many"], 2),
        (["--jobs", "0"], 2),
        (["--engine", "md5"], 2),
        (["one", "two"], 2),
        (["no-such-path"], 1),
        (["."], 1),
    ],
)
def test_what_cannot_be_done_is_an_error(fastindex: Run, arguments: list[str], code: int) -> None:
    result = fastindex("bench", *arguments)
    assert result.returncode == code
    assert result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def _group_is_gone(group: int) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("number", "codes"),
    [
        (signal.SIGINT, {130, -2}),
        (signal.SIGTERM, {143, -15}),
        (signal.SIGHUP, {129, -1}),
        (signal.SIGKILL, {-9}),
    ],
)
def test_a_signal_ends_it_and_all_its_workers(number: int, codes: set[int], images: Path) -> None:
    """SIGINT as a terminal sends it, to all; the others to the parent alone."""
    process = subprocess.Popen(
        [COMMAND, "bench", "-v", "--jobs", "2", "--seconds", "2", images],
        env=UNMEASURED,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline()  # the first figure: the workers are running
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode in codes
    assert stdout == b""
    assert b"Traceback" not in stderr
    assert _group_is_gone(process.pid)

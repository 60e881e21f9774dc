"""``import fastindex``: the same as the command, as a typed function."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import fastindex
from fastindex.hashing.engine import usable_engine
from tests.support.command import UNMEASURED
from tests.support.trees import published, version, write_tree


def test_build_reports_what_it_did(tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), **version("debian/12/amd64/default/latest")})
    report = fastindex.Mirror(tmp_path).build()
    assert (report.products, report.versions) == (1, 1)
    assert (report.files_hashed, report.files_reused, report.bytes_read) == (2, 0, 96)
    assert report.versions_left_out == 1
    assert report.exit_code is fastindex.ExitCode.LEFT_OUT
    assert report.wrote == ("streams/v1/images.json", "streams/v1/index.json")
    (finding,) = report.findings
    assert finding.path == "images/debian/12/amd64/default/latest"
    again = fastindex.Mirror(tmp_path).build()
    assert (again.files_hashed, again.files_reused, again.wrote) == (0, 2, ())
    assert again.findings == report.findings


def test_build_takes_an_executor_and_tells_an_observer(tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), **version("debian/12/amd64/default/latest")})
    told: list[object] = []

    class Listener(fastindex.Observer):
        wants_progress = True

        def hashing_started(self, total_bytes: int) -> None:
            told.append(total_bytes)

        def bytes_hashed(self, done_bytes: int) -> None:
            told.append(done_bytes)

        def hashing_finished(self) -> None:
            told.append("end")

        def warn(self, finding: fastindex.Finding) -> None:
            told.append(finding)

        def log(self, message: str) -> None:
            told.append(message)

    with ThreadPoolExecutor(2) as executor:
        mirror = fastindex.Mirror(tmp_path)
        mirror.build(blake3=False, executor=executor, observer=Listener())
    note = "images/debian/12/amd64/default/20240505_05:24: hashed"
    warned = told.pop()
    assert told == [f"SHA-256 by {usable_engine('auto').name}", 96, 96, note, "end"]
    assert isinstance(warned, fastindex.Finding)
    assert len(published(tmp_path)) == 1


def test_a_dry_run_reports_changes_and_the_product_file(tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    report = fastindex.Mirror(tmp_path).build(dry_run=True)
    assert report.changes == (
        fastindex.Change("added", "images", "debian:12:amd64:default", "20240505_05:24", 96),
    )
    assert b"debian:12:amd64:default" in report.product_files["images"]
    assert not (tmp_path / "streams").exists()


def test_errors_share_one_base_and_carry_their_code(tmp_path: Path) -> None:
    with pytest.raises(fastindex.TreeError) as caught:
        fastindex.Mirror(tmp_path).build()
    assert isinstance(caught.value, fastindex.FastindexError)
    assert caught.value.exit_code == 1
    with pytest.raises(fastindex.UsageError):
        fastindex.Mirror(tmp_path).build(jobs=0)


def test_every_public_name_is_there() -> None:
    for name in fastindex.__all__:
        assert getattr(fastindex, name).__doc__
    with pytest.raises(AttributeError):
        fastindex.no_such_name  # noqa: B018


def test_the_command_starts_without_the_heavy_modules() -> None:
    code = (
        "import sys; from fastindex.cli import main; main.main(['--version']);"
        "print(sorted({'msgspec', 'tqdm', 'multiprocessing'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=UNMEASURED, capture_output=True, check=True
    )
    assert result.stdout.splitlines()[-1] == b"[]"

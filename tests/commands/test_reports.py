"""What runs report to programs, and what they tell once only."""

from __future__ import annotations

import json
import os
import re
import subprocess
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastindex.errors import Code
from tests.support.command import COMMAND, Run, run_command
from tests.support.trees import version, write_tree

PRODUCT = "images/debian/12/amd64/default"
OLD, NEW = "20240505_05:24", "20240506_05:24"
HEAD = {
    *("schema", "program", "command", "root", "output", "streams", "began", "seconds"),
    *("exit_code", "errors", "findings"),
}
TODAY = re.compile(r"20\d\d-\d\d-\d\d")


@pytest.fixture
def fastindex(tmp_path: Path) -> Run:
    """Return the command as operators have it: it remembers what it has told."""
    return partial(run_command, cwd=tmp_path, is_forgetful=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "mirror", version(f"debian/12/amd64/default/{OLD}"))


def report_of(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(run.stdout)
    assert document["schema"] == 1
    assert document["exit_code"] == run.returncode
    assert document.keys() >= HEAD
    return document


def test_a_build_reports_versions_and_files(fastindex: Run, root: Path) -> None:
    report = report_of(fastindex("--json", root))
    assert report["command"] == "build"
    assert (report["root"], report["output"], report["streams"]) == (
        *(str(root), str(root)),
        ["images"],
    )
    began = datetime.strptime(report["began"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert 0 <= datetime.now(UTC).timestamp() - began.timestamp() < 3600
    (change,) = report["build"]["changes"]
    assert (change["kind"], change["version"]) == ("added", OLD)
    files = [f"{PRODUCT}/{OLD}/{name}" for name in ("incus.tar.xz", "rootfs.squashfs")]
    assert change["files"] == files
    assert report["build"]["wrote"] == ["streams/v1/images.json", "streams/v1/index.json"]
    report = report_of(fastindex("--json", root))
    assert (report["build"]["changes"], report["build"]["wrote"]) == ([], [])


@pytest.mark.parametrize(
    ("words", "section"),
    [
        (["build"], "build"),
        (["diff"], "build"),
        (["verify"], "verify"),
        (["prune"], "prune"),
        (["prune", "--dry-run"], "prune"),
        (["remove", "debian/12"], "prune"),
        (["import", "source"], "import"),
        (["pull", "file:upstream"], "pull"),
        (["check"], "check"),
        (["deltas"], "deltas"),
    ],
)
def test_all_commands_have_one_form(
    fastindex: Run, root: Path, tmp_path: Path, words: list[str], section: str
) -> None:
    write_tree(root, version(f"debian/12/amd64/default/{NEW}"))
    fastindex(root)
    if "import" in words:
        write_tree(tmp_path / "source", {"rootfs.squashfs": b"no image"})
    if "pull" in words:
        words = ["pull", root.as_uri()]
        root = tmp_path / "copy"
        root.mkdir()
    path = tmp_path / "report.json"
    place = root.as_uri() if "check" in words else root
    done = fastindex(*words, "--json", "--report", path, place)
    report = report_of(done)
    assert report["command"] == words[0]
    assert json.loads(path.read_bytes()) == report
    allowed = {section, "build"} if section in ("pull", "prune", "deltas") else {section}
    assert section in report
    assert report.keys() - HEAD <= allowed
    for name in report.keys() - HEAD:
        assert not {"findings", "built", "product_files"} & report[name].keys()


def test_a_failure_is_reported_too(fastindex: Run, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = fastindex("--report", path, tmp_path / "missing")
    assert done.returncode == 1
    report = json.loads(path.read_bytes())
    assert report["exit_code"] == 1
    (error,) = report["errors"]
    assert error in done.stderr
    assert "no such directory" in error
    assert "build" not in report
    report = report_of(fastindex("--json", tmp_path / "missing"))
    assert report["errors"] == [error]


@pytest.mark.parametrize("place", ["missing/report.json", "directory"])
def test_a_report_that_cannot_be_written_is_told_and_changes_nothing_else(
    fastindex: Run, root: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "missing").write_bytes(b"")  # where a directory is needed
    done = fastindex("--report", tmp_path / place, root)
    assert done.returncode == 3
    assert f"{tmp_path / place}: the report cannot be written" in done.stderr
    assert (root / "streams/v1/index.json").exists()
    assert not list((tmp_path / "directory").iterdir())


def test_the_report_of_a_relative_path_is_written_where_the_run_began(
    fastindex: Run, root: Path, tmp_path: Path
) -> None:
    assert fastindex("--report", "report.json", root).returncode == 0
    assert json.loads((tmp_path / "report.json").read_bytes())["command"] == "build"


def test_a_path_that_is_not_utf_8_is_escaped(fastindex: Run, tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"r\xff")
    write_tree(root, version())
    os.mkdir(os.fsencode(root) + b"/images/\xfe")
    report = report_of(fastindex("--json", root))
    assert report["root"].endswith("r\\udcff")
    assert fastindex(root).stderr.count("known since") == 1


def test_a_finding_has_a_code_a_remedy_and_its_day(fastindex: Run, root: Path) -> None:
    bad_version(root, "20240507_05:24")
    report = report_of(fastindex("--json", root))
    assert report["exit_code"] == 3
    assert report["findings"]
    for finding in report["findings"]:
        assert Code(finding["code"])
        assert finding["remedy"]
        assert TODAY.fullmatch(finding["since"])


def bad_version(root: Path, name: str) -> None:
    write_tree(root, version(f"debian/12/amd64/default/{name}"))
    (root / f"{PRODUCT}/{name}/rootfs.squashfs").unlink()


def test_what_is_known_is_counted_and_what_is_new_is_told(fastindex: Run, root: Path) -> None:
    bad_version(root, "20240507_05:24")
    first = fastindex(root)
    assert first.returncode == 3
    assert first.stderr.count("warning: ") == 1
    assert "known since" not in first.stderr
    bad_version(root, "20240508_05:24")
    second = fastindex(root)
    assert second.returncode == 3
    assert second.stderr.count("warning: ") == 1
    assert f"{PRODUCT}/20240508_05:24" in second.stderr
    assert re.search(
        rf"fastindex: 1 warning known since 20..-..-..; fastindex status {re.escape(str(root))} "
        "lists it\n",
        second.stderr,
    )
    third = fastindex("-q", root)
    assert third.returncode == 3
    assert re.fullmatch(
        r"fastindex: 2 warnings known since .*; fastindex status .* lists them\n", third.stderr
    )
    assert fastindex("-v", root).stderr.count("warning: ") == 2
    assert fastindex("--dry-run", root).stderr.count("warning: ") == 2
    assert len(report_of(fastindex("--json", root))["findings"]) == 2


def test_what_is_known_and_harmless_is_not_counted_under_a_timer(
    fastindex: Run, root: Path
) -> None:
    write_tree(root, version("debian/12/amd64/default/20990101_05:24"))
    assert fastindex("-q", root).stderr.count("warning: ") == 1
    assert (fastindex("-q", root).returncode, fastindex("-q", root).stderr) == (0, "")
    assert "1 warning known since" in fastindex(root).stderr


def test_what_was_mended_and_comes_again_is_told_again(fastindex: Run, root: Path) -> None:
    bad_version(root, "20240507_05:24")
    fastindex(root)
    path = root / f"{PRODUCT}/20240507_05:24"
    path.rename(root.parent / "aside")
    assert fastindex(root).returncode == 0
    (root.parent / "aside").rename(path)
    assert fastindex(root).stderr.count("warning: ") == 1


def test_the_day_stays_that_of_the_first_run(fastindex: Run, root: Path) -> None:
    bad_version(root, "20240507_05:24")
    fastindex(root)
    record = root / "streams/.run-build.json"
    record.write_text(re.sub(r'"since":"[^"]*"', '"since":"2020-02-02"', record.read_text()))
    assert "1 warning known since 2020-02-02; " in fastindex(root).stderr
    (finding,) = report_of(fastindex("--json", root))["findings"]
    assert finding["since"] == "2020-02-02"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"findings": 5}', b"\xff", b"[" * 100_000, bytes(50)]
)
def test_a_record_that_cannot_be_read_does_no_harm(
    fastindex: Run, root: Path, content: bytes
) -> None:
    bad_version(root, "20240507_05:24")
    fastindex(root)
    (root / "streams/.run-build.json").write_bytes(content)
    assert fastindex(root).stderr.count("warning: ") == 1
    assert "1 warning known" in fastindex(root).stderr


def test_a_run_that_waits_for_another_forgets_nothing(fastindex: Run, root: Path) -> None:
    bad_version(root, "20240507_05:24")
    fastindex(root)
    with subprocess.Popen(["flock", "-F", root / "streams/.lock", "sleep", "600"]) as holder:
        while fastindex(root).returncode != 75:
            pass
        record = json.loads((root / "streams/.run-build.json").read_bytes())
        holder.kill()
    assert record["exit_code"] == 75
    assert 0 < record["succeeded"] < record["began"]
    assert "1 warning known since" in fastindex(root).stderr


def test_print_and_json_exclude_each_other(fastindex: Run, root: Path) -> None:
    done = fastindex("--print", "--json", root)
    assert done.returncode == 2
    assert "--json does nothing with --print" in done.stderr


def test_standard_output_has_nothing_but_the_report(root: Path) -> None:
    done = subprocess.run(
        [COMMAND, "prune", "--json", "-v", root], check=False, capture_output=True, text=True
    )
    assert report_of(done)["prune"]["withdrawn"] == []

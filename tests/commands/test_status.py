"""``fastindex status``: how a mirror is."""

from __future__ import annotations

import json
import os
import subprocess
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastindex.operations.status.judging import count_recent_bytes
from tests.support.command import Run, run_command
from tests.support.trees import catalogue, stamps, version, write_tree

DEBIAN, ALPINE = "debian/12/amd64/default", "alpine/3.20/arm64/default"
OLD, NEW = "20240505_05:24", "20240506_05:24"
INDEX, PRODUCTS = "streams/v1/index.json", "streams/v1/images.json"


@pytest.fixture
def fastindex(tmp_path: Path) -> Run:
    """Return the command as operators have it: it remembers what it has told."""
    return partial(run_command, cwd=tmp_path, is_forgetful=False)


@pytest.fixture
def root(tmp_path: Path, fastindex: Run) -> Path:
    """Return a mirror that is published, and well."""
    root = write_tree(
        tmp_path / "mirror",
        {
            **version(f"{DEBIAN}/{OLD}"),
            **version(f"{DEBIAN}/{NEW}"),
            **version(f"{ALPINE}/{NEW}"),
        },
    )
    assert fastindex(root).returncode == 0
    return root


def lines_of(text: str, heading: str) -> list[str]:
    """Return what a status tells under a heading."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(heading))
    found = [lines[start][11:]]
    for line in lines[start + 1 :]:
        if not line.startswith(" " * 11):
            break
        found.append(line[11:])
    return found


def status(fastindex: Run, *words: object) -> dict[str, Any]:
    done = fastindex("status", "--json", *words)
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["exit_code"] == done.returncode
    section: dict[str, Any] = document["status"]
    return section


def test_a_healthy_mirror(fastindex: Run, root: Path) -> None:
    before = stamps(root)
    done = fastindex("status", root)
    assert (done.returncode, done.stderr) == (0, "fastindex: healthy\n")
    sizes = {
        item["path"]: item["size"]
        for product in catalogue(root)["products"].values()
        for one in product["versions"].values()
        for item in one["items"].values()
    }
    size = sum(sizes.values())
    assert lines_of(done.stdout, "published") == [f"2 products, 3 versions, {size / 1000:.1f} kB"]
    (run,) = lines_of(done.stdout, "runs")
    assert run.startswith("build: 20")
    assert run.endswith(" ago, exit code 0")
    for heading in ("left out", "damaged", "too old", "withdrawn", "leftovers", "warnings"):
        assert lines_of(done.stdout, heading) == ["nothing"]
    assert " free" in lines_of(done.stdout, "disk")[0]
    assert stamps(root) == before
    assert (fastindex("status", "-q", root).stdout, fastindex("status", "-q", root).stderr) == (
        *("", ""),
    )


def test_several_streams_are_told_apart(fastindex: Run, root: Path) -> None:
    write_tree(root, {f"daily/{ALPINE}/20240507_05:24/{n}": c for n, c in files_of().items()})
    assert fastindex("--stream", "images", "--stream", "daily", root).returncode == 0
    lines = lines_of(fastindex("status", root).stdout, "published")
    assert lines[0].startswith("3 products, 4 versions, ")
    assert [line.split(": ")[0].strip() for line in lines[1:]] == ["daily", "images"]


def files_of() -> dict[str, bytes]:
    return {
        os.path.basename(path): content
        for path, content in version("void/current/amd64/default/20240507_05:24").items()
        if isinstance(content, bytes)
    }


def test_what_is_left_out_is_listed(fastindex: Run, root: Path) -> None:
    write_tree(root, version(f"{ALPINE}/{OLD}"))
    (root / f"images/{ALPINE}/{OLD}/rootfs.squashfs").unlink()
    assert fastindex(root).returncode == 3
    done = fastindex("status", root)
    assert done.returncode == 3
    (line,) = lines_of(done.stdout, "left out")
    assert line.startswith(f"images/{ALPINE}/{OLD}: ")
    assert "(known since 20" in line
    assert done.stderr == "fastindex: not healthy: not-published (1)\n"
    quiet = fastindex("status", "-q", root)
    assert quiet.stdout == ""
    assert f"warning: images/{ALPINE}/{OLD}: " in quiet.stderr
    assert fastindex("prune", "--keep", 5, root).returncode == 3
    assert len(lines_of(fastindex("status", root).stdout, "left out")) == 1
    write_tree(root, version(f"{ALPINE}/{OLD}"))
    assert fastindex(root).returncode == 0  # what prune told before no longer holds
    assert fastindex("status", root).returncode == 0


def test_long_lists_are_cut(fastindex: Run, root: Path) -> None:
    for number in range(30):
        write_tree(root, version(f"void/{number}/amd64/default/{OLD}"))
        (root / f"images/void/{number}/amd64/default/{OLD}/rootfs.squashfs").unlink()
    fastindex(root)
    lines = lines_of(fastindex("status", root).stdout, "left out")
    assert len(lines) == 21
    assert lines[-1] == "and 10 more; -v lists all"
    assert len(lines_of(fastindex("status", "-v", root).stdout, "left out")) == 30


def test_a_run_that_failed_is_told_until_one_succeeds(fastindex: Run, root: Path) -> None:
    (root / "images").rename(root / "aside")
    (root / "images").mkdir()
    assert fastindex(root).returncode == 1
    done = fastindex("status", root)
    assert done.returncode == 3
    assert "exit code 1; " in lines_of(done.stdout, "runs")[0]
    assert "warning: build: the last run, 20" in fastindex("status", "-q", root).stderr
    (root / "images").rmdir()
    (root / "aside").rename(root / "images")
    assert fastindex(root).returncode == 0
    assert fastindex("status", root).returncode == 0


@pytest.mark.parametrize("kind", ["torn", "directory"])
def test_a_record_that_cannot_be_read_is_told(fastindex: Run, root: Path, kind: str) -> None:
    fastindex(root)
    path = root / "streams/.run-build.json"
    if kind == "torn":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        path.unlink()
        path.mkdir()
    done = fastindex("status", root)
    assert done.returncode == 3
    assert "not healthy: bad-record (1)" in done.stderr
    (line,) = lines_of(done.stdout, "runs")
    assert line.startswith("streams/.run-build.json: cannot be read (")
    assert "; run that command again, or remove the file" in line
    path.rmdir() if path.is_dir() else path.unlink()
    assert fastindex("status", root).returncode == 0


def test_a_failure_counts_until_the_work_is_done(fastindex: Run, root: Path) -> None:
    assert fastindex("import", "missing", root).returncode == 1  # by hand
    assert fastindex("status", root).returncode == 0
    assert fastindex("pull", "file:///missing", root).returncode == 1
    assert fastindex("status", root).returncode == 3
    assert fastindex(root).returncode == 0  # which pulls nothing
    assert fastindex("status", root).returncode == 3
    assert fastindex("prune", "--json", "--report", root, root).returncode == 3
    assert "warning: prune: the last run, 20" in fastindex("status", "-q", root).stderr
    assert fastindex(root).returncode == 0
    assert "prune: " not in fastindex("status", "-q", root).stderr


def test_what_is_left_out_is_named_where_only_what_is_wrong_is_asked_for(
    fastindex: Run, root: Path
) -> None:
    write_tree(root, version(f"{ALPINE}/{OLD}"))
    (root / f"images/{ALPINE}/{OLD}/rootfs.squashfs").unlink()
    fastindex(root)
    done = fastindex("status", "-q", root)
    assert (done.returncode, done.stdout) == (3, "")
    total, line = done.stderr.splitlines()
    assert total.startswith(f"fastindex: warning: {root}: the last run left 1 version out; ")
    assert line.startswith(f"fastindex: warning: images/{ALPINE}/{OLD}: ")
    assert "(known since 20" in line


def test_a_run_of_one_stream_says_nothing_about_another(fastindex: Run, root: Path) -> None:
    write_tree(root, {f"daily/{ALPINE}/20240507_05:24/{n}": c for n, c in files_of().items()})
    write_tree(root, version(f"{ALPINE}/{OLD}"))
    (root / f"images/{ALPINE}/{OLD}/rootfs.squashfs").unlink()
    both = ("--stream", "images", "--stream", "daily")
    assert fastindex(*both, root).returncode == 3
    for words in (["build"], ["prune"]):
        assert fastindex(*words, "--stream", "daily", root).returncode == 0
        done = fastindex("status", *both, root)
        assert done.returncode == 3
        assert lines_of(done.stdout, "left out")[0].startswith(f"images/{ALPINE}/{OLD}: ")
    write_tree(root, version(f"{ALPINE}/{OLD}"))
    assert fastindex(*both, root).returncode == 0
    assert fastindex("status", root).returncode == 0


def test_another_run_that_holds_the_lock_is_told(fastindex: Run, root: Path) -> None:
    with subprocess.Popen(["flock", "-F", root / "streams/.lock", "sleep", "600"]) as holder:
        while fastindex(root).returncode != 75:
            pass
        assert "ended with 75" in fastindex("status", "-q", root).stderr
        holder.kill()
    assert fastindex(root).returncode == 0
    assert fastindex("status", root).returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        {"products": {}},
        {"format": "products:2.0"},
        {"datatype": "other"},
    ],
)
def test_what_clients_reject_or_have_lost_is_not_healthy(
    fastindex: Run, root: Path, change: dict[str, Any]
) -> None:
    document = json.loads((root / PRODUCTS).read_bytes())
    (root / PRODUCTS).write_text(json.dumps(document | change))
    assert "not healthy: bad-catalogue (1)" in fastindex("status", root).stderr


@pytest.mark.parametrize("index", [{}, {"index": {}, "format": "index:1.0"}])
def test_an_index_without_streams_is_not_healthy(
    fastindex: Run, root: Path, index: dict[str, Any]
) -> None:
    (root / INDEX).write_text(json.dumps(index))
    assert "bad-catalogue (1)" in fastindex("status", root).stderr


def test_damage_is_listed(fastindex: Run, root: Path) -> None:
    path = root / f"images/{DEBIAN}/{NEW}/rootfs.squashfs"
    before = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fastindex("--recheck", "1/1", root).returncode == 3
    done = fastindex("status", root)
    assert done.returncode == 3
    assert lines_of(done.stdout, "damaged")[0].startswith(f"images/{DEBIAN}/{NEW}/rootfs.squashfs")
    assert "not healthy: damaged (1), not-published (1)" in done.stderr


def test_damage_of_what_is_withdrawn_matters_no_more(fastindex: Run, root: Path) -> None:
    path = root / f"images/{DEBIAN}/{OLD}/rootfs.squashfs"
    before = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fastindex("--recheck", "1/1", root).returncode == 3
    assert lines_of(fastindex("status", root).stdout, "damaged")[0].startswith(f"images/{DEBIAN}")
    assert fastindex("remove", f"{DEBIAN}/{OLD}", root).returncode == 0
    done = fastindex("status", root)
    assert done.returncode == 0, done.stderr
    assert lines_of(done.stdout, "damaged") == ["nothing"]
    # It is told again if it is to be published after all, but not when it is gone.
    fastindex("prune", "--undo", f"{DEBIAN}/{OLD}", root)
    assert fastindex("status", root).returncode == 3
    assert fastindex("remove", "--grace", "0", f"{DEBIAN}/{OLD}", root).returncode == 0
    assert fastindex("status", root).returncode == 0


def test_what_is_withdrawn_waits_for_its_grace(fastindex: Run, root: Path) -> None:
    assert fastindex("prune", "--keep", 1, root).returncode == 0
    done = fastindex("status", "--grace", "1d", root)
    (line,) = lines_of(done.stdout, "withdrawn")
    path, _, when = line.partition(": deleted after ")
    assert path == f"images/{DEBIAN}/{OLD}"
    until = datetime.strptime(when, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    assert abs(until - time.time() - 86400) < 3600
    assert done.returncode == 0


def test_leftovers_are_listed(fastindex: Run, root: Path) -> None:
    hidden = root / f"images/{DEBIAN}/.20240507_05:24"
    hidden.mkdir()
    (hidden / "rootfs.squashfs").write_bytes(b"half")
    for path in (hidden / "rootfs.squashfs", hidden):
        os.utime(path, (0, 0))
    assert lines_of(fastindex("status", root).stdout, "leftovers") == ["nothing"]  # not for a day
    hidden.rename(hidden.with_name(f"{hidden.name}.pruned"))  # nobody goes on with those
    leftover = f"images/{DEBIAN}/.20240507_05:24.pruned"
    assert lines_of(fastindex("status", root).stdout, "leftovers") == [leftover]
    assert fastindex("status", root).returncode == 0


@pytest.mark.parametrize(
    ("settings", "words", "old"),
    [
        ({}, [], set()),
        ({}, ["--max-age", "1d"], {DEBIAN, ALPINE}),
        ({}, ["--max-age", "9999d"], set()),
        ({f"images/{DEBIAN}": "1d"}, [], {DEBIAN}),
        ({"images/debian": "1d"}, [], {DEBIAN}),
        ({"images": "1d", f"images/{ALPINE}": "9999d"}, [], {DEBIAN}),
        ({f"images/{ALPINE}": "9999d"}, ["--max-age", "1d"], {DEBIAN}),
    ],
)
def test_products_without_new_images_are_told(
    fastindex: Run, root: Path, settings: dict[str, str], words: list[str], old: set[str]
) -> None:
    for place, age in settings.items():
        (root / place / ".product.toml").write_text(f'max_age = "{age}"\n')
    assert fastindex(root).returncode == 0
    section = status(fastindex, *words, root)
    told = {one["path"] for one in section["findings"]} if "findings" in section else set()
    done = fastindex("status", *words, root)
    assert done.returncode == (3 if old else 0)
    told = {
        line.partition(": newest ")[0].removeprefix("images/")
        for line in lines_of(done.stdout, "too old")
    }
    assert told == (old or {"nothing"})
    for product in old:
        quiet = fastindex("status", "-q", *words, root).stderr
        assert f"warning: images/{product}: its newest version, {NEW}, is older than 1d" in quiet


@pytest.mark.parametrize("age", ["soon", "", "-1d", 5, True])
def test_an_age_that_is_none_is_told_by_the_build(fastindex: Run, root: Path, age: object) -> None:
    (root / f"images/{DEBIAN}/.product.toml").write_text(f"max_age = {json.dumps(age)}\n")
    done = fastindex(root)
    assert done.returncode == 0
    assert "'max_age' must be a time such as " in done.stderr


def test_the_oldest_product_comes_first_in_the_report(fastindex: Run, root: Path) -> None:
    write_tree(root, version("void/current/amd64/default/20230101_05:24"))
    fastindex(root)
    products = status(fastindex, root)["products"]
    assert products[0]["path"] == "images/void/current/amd64/default"
    assert products[0]["newest"] == "20230101_05:24"
    expected = time.time() - datetime(2023, 1, 1, 5, 24, tzinfo=UTC).timestamp()
    assert abs(products[0]["age_seconds"] - expected) < 3600
    assert len(products) == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\0" * 50])
def test_a_product_file_that_clients_reject_is_told(
    fastindex: Run, root: Path, content: bytes
) -> None:
    (root / PRODUCTS).write_bytes(content)
    done = fastindex("status", root)
    assert done.returncode == 3
    assert "not healthy: bad-catalogue (1)" in done.stderr
    assert any(
        line.startswith(f"{PRODUCTS}: ") and "fastindex verify" in line
        for line in lines_of(done.stdout, "published")
    )


@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_without_an_index_there_is_nothing_to_tell(
    fastindex: Run, root: Path, content: bytes | None
) -> None:
    (root / INDEX).unlink()
    if content is not None:
        (root / INDEX).write_bytes(content)
    done = fastindex("status", root)
    assert done.returncode == 1
    assert f"{root}/{INDEX}: " in done.stderr


def test_names_of_strangers_do_not_reach_the_terminal(fastindex: Run, root: Path) -> None:
    document = (root / PRODUCTS).read_text().replace('"20240505_05:24"', '"2024\\u001b[2J"')
    (root / PRODUCTS).write_text(document)
    done = fastindex("status", "-v", "--max-age", "1d", root)
    assert "\x1b" not in done.stdout + done.stderr


def test_the_pace_is_that_of_the_last_two_weeks() -> None:
    now = datetime(2024, 5, 20, tzinfo=UTC).timestamp()
    versions = [("20240519_05:24", 1400), ("20240507_05:24", 1400), ("20240501", 10**9)]
    assert count_recent_bytes(versions, now) == 200
    assert count_recent_bytes([("20250101", 10**9)], now) == 0

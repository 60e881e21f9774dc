"""Times that make no sense, file systems that keep few of them, and clocks that are set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command import Run
from tests.support.contents import make_content
from tests.support.faults.scenarios import check_caches, check_files, generation, run
from tests.support.trees import OLD_NS, published, version, write_file, write_tree

PRODUCT = "images/debian/12/amd64/default"
VERSION = f"{PRODUCT}/20240505_05:24"
LABEL = "debian:12:amd64:default 20240505_05:24"
HOUR = 3600
SECOND_NS = 1_000_000_000

TIMES = {
    "the epoch": 0,
    "just before it": -1,
    "1901": -(1 << 31) * SECOND_NS,
    "long ago": -(1 << 40) * SECOND_NS,
    "2038": ((1 << 31) - 1) * SECOND_NS + 999_999_999,
    "after 2038": ((1 << 31) + 1) * SECOND_NS + 1,
    "the last nanosecond of 64 bits": (1 << 63) - 1,
    "after 2262": (1 << 63) + 1,
    "2446": (1 << 34) * SECOND_NS,
    "the year 30,000": 900_000_000_000 * SECOND_NS,
}

SHIFTED = """
import sys, time
shift = int(sys.argv.pop(1))
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + shift
time.time_ns = lambda: real_ns() + shift * 1_000_000_000
from fastindex.cli import main as cli
sys.exit(cli.main(sys.argv[1:]))
"""


def at(seconds: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command when the clock is ``seconds`` ahead of the file system's."""
    return run(sys.executable, "-c", SHIFTED, str(seconds), *map(str, arguments))


def swap_case(path: Path) -> bytes:
    """Return other bytes of a squashfs, of equal length."""
    content = path.read_bytes()
    return content[:96] + content[96:].swapcase()


@pytest.fixture(params=["tmp_path", "memory", pytest.param("coarse", marks=pytest.mark.root)])
def place(request: pytest.FixtureRequest) -> Path:
    """Return a directory on each kind of file system."""
    directory: Path = request.getfixturevalue(request.param)
    return directory


def test_any_modification_time_will_do(fastindex: Run, place: Path) -> None:
    """Those that the file system cannot keep are what it makes of them."""
    root = place / "mirror"
    for number, time_ns in enumerate(TIMES.values()):
        write_tree(root, version(f"debian/{number}/amd64/default/20240505_05:24"), time_ns)
    for options in ((), ("--settle", "0.1"), ("--rehash",)):
        time.sleep(0.2)
        result = fastindex(*options, root)
        assert result.returncode == 0, result.stderr
        assert len(published(root)) == len(TIMES)
        check_files(root, generation(root))
    for number in range(len(TIMES)):
        path = root / f"images/debian/{number}/amd64/default/20240505_05:24/rootfs.squashfs"
        path.write_bytes(swap_case(path))
    assert fastindex(root).returncode == 0
    check_files(root, generation(root))
    check_caches(root)
    assert fastindex("verify", "--sha256", root).returncode == 0


def test_a_clock_that_is_set_costs_no_digest(fastindex: Run, tmp_path: Path) -> None:
    root = write_tree(tmp_path, version())
    write_file(root / VERSION / "rootfs.squashfs", b"new", time.time_ns())
    contents = [make_content("rootfs.squashfs", b"%03d" % number) for number in range(8)]
    for hours, content in zip((24, 0, -24, 0, 1, -1, 0, 24), contents, strict=True):
        (root / VERSION / "rootfs.squashfs").write_bytes(content)
        result = at(hours * HOUR, root)
        assert result.returncode == 0, result.stderr
        check_files(root, generation(root))
    assert fastindex(root).returncode == 0
    check_files(root, generation(root))


def test_a_modification_time_ahead_does_not_keep_a_version_out(
    fastindex: Run, tmp_path: Path
) -> None:
    root = write_tree(tmp_path, version())
    write_file(root / VERSION / "rootfs.squashfs", b"new", 2 * OLD_NS)
    assert fastindex("--settle", "1h", "--force", root).returncode == 0
    assert published(root) == set(), "somebody has just put it there"
    time.sleep(0.3)
    result = fastindex("--settle", "0.2", root)
    assert published(root) == {LABEL}
    assert result.returncode == 0
    assert "was modified in the future" in result.stderr


def test_what_was_changed_in_the_future_is_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {**version(), **version("debian/13/amd64/default/20240505_05:24")})
    (root / VERSION / "rootfs.squashfs").write_bytes(b"just now, which is tomorrow")
    result = at(-24 * HOUR, "--settle", "2m", root)
    assert result.returncode == 3
    assert f"{VERSION}/rootfs.squashfs: changed in the future" in result.stderr
    assert published(root) == {"debian:13:amd64:default 20240505_05:24"}


def _withdrawn(root: Path) -> dict[str, dict[str, float]]:
    noted: dict[str, dict[str, float]] = json.loads((root / "streams/.withdrawn.json").read_bytes())
    return noted


def test_a_withdrawal_noted_in_the_future_gets_its_grace_and_no_more(
    fastindex: Run, tmp_path: Path
) -> None:
    write_tree(tmp_path, version() | version("debian/12/amd64/default/20240506_05:24"))
    assert fastindex(tmp_path).returncode == 0
    assert at(240 * HOUR, "prune", "--keep", "1", tmp_path).returncode == 0
    assert _withdrawn(tmp_path)[VERSION]["unpublished_at"] > time.time() + 200 * HOUR
    plan = fastindex("prune", "--dry-run", "--grace", "2h", tmp_path)
    assert plan.stdout.split("\n")[0].split() == ["delete", "later", VERSION]
    assert fastindex("prune", "--grace", "2h", tmp_path).returncode == 0
    assert (tmp_path / VERSION).exists()
    assert _withdrawn(tmp_path)[VERSION]["unpublished_at"] <= time.time()
    time.sleep(0.2)
    result = fastindex("prune", "--grace", "0.1", tmp_path)
    assert result.stdout == f"deleted {VERSION}\n"
    assert not (tmp_path / VERSION).exists()


def test_a_seed_cache_from_the_future_vouches_for_nothing(fastindex: Run, tmp_path: Path) -> None:
    """What it was made of may be older than the file that is there now."""
    root = write_tree(tmp_path, version())
    assert fastindex(root).returncode == 0
    cache = root / VERSION / ".items.json"
    items = json.loads(cache.read_bytes())
    for item in items.values():
        del item["key"]
    cache.write_text(json.dumps(items))
    os.utime(cache, (time.time() + HOUR, time.time() + HOUR))
    path = root / VERSION / "rootfs.squashfs"
    write_file(path, swap_case(path), time.time_ns() - 60 * SECOND_NS)
    assert fastindex(root).returncode == 0
    check_files(root, generation(root))

"""``--metrics``: what Prometheus is told after a run."""

from __future__ import annotations

import os
import re
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from fastindex.operations.status.metrics import Metric, format_metrics
from tests.support.command import Run, run_command
from tests.support.documentation import CHECKOUT
from tests.support.tools import needs
from tests.support.trees import version, write_tree

DEBIAN, ALPINE = "debian/12/amd64/default", "alpine/3.20/arm64/default"
OLD, NEW = "20240505_05:24", "20240506_05:24"
SAMPLE = re.compile(r"(?P<name>[a-z_]+)\{(?P<labels>.*)\} (?P<value>[0-9.]+)")
Samples = dict[tuple[str, str], float]


@pytest.fixture
def fastindex(tmp_path: Path) -> Run:
    """Return the command as operators have it: it remembers what it has told."""
    return partial(run_command, cwd=tmp_path, is_forgetful=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(
        tmp_path / "mirror", {**version(f"{DEBIAN}/{OLD}"), **version(f"{ALPINE}/{NEW}")}
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fastindex.prom"


def read(path: Path, root: Path) -> Samples:
    """Return name and other labels → value; whatever is there, promtool accepts it."""
    promtool = needs("promtool", "apt-get install prometheus")
    checked = subprocess.run(
        [promtool, "check", "metrics"],
        input=path.read_bytes(),
        check=False,
        capture_output=True,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    samples: Samples = {}
    for line in path.read_text().splitlines():
        match = SAMPLE.fullmatch(line)
        assert match is not None or line.startswith(("# HELP fastindex_", "# TYPE fastindex_"))
        if match is not None:
            own = f'root="{root}"'
            assert match["labels"].startswith(own)
            key = match["name"], match["labels"].removeprefix(own).lstrip(",")
            assert key not in samples
            samples[key] = float(match["value"])
    return samples


def test_a_build_writes_metrics(fastindex: Run, root: Path, path: Path) -> None:
    began = time.time()
    assert fastindex("--metrics", path, root).returncode == 0
    found = read(path, root)
    build = 'command="build"'
    assert found["fastindex_last_run_exit_code", build] == 0
    assert began - 2 <= found["fastindex_last_run_timestamp_seconds", build] <= time.time()
    assert (
        found["fastindex_last_success_timestamp_seconds", build]
        == found["fastindex_last_run_timestamp_seconds", build]
    )
    assert found["fastindex_last_run_read_bytes", build] > 0
    assert found["fastindex_published_versions", 'stream="images"'] == 2
    newest = "fastindex_product_newest_timestamp_seconds"
    assert found[newest, f'stream="images",product="{DEBIAN}"'] == 1714886640
    assert found["fastindex_healthy", ""] == 1
    assert found["fastindex_catalogue_readable", ""] == 1
    assert found["fastindex_left_out_versions", 'code=""'] == 0
    stages = [key for key in found if key[0] == "fastindex_last_run_stage_duration_seconds"]
    assert len(stages) == 4


def test_a_run_that_fails_keeps_the_last_success(fastindex: Run, root: Path, path: Path) -> None:
    fastindex(root)
    fastindex("--metrics", path, root)
    before = read(path, root)
    (root / "images").rename(root / "aside")
    (root / "images").mkdir()
    assert fastindex("--metrics", path, root).returncode == 1
    after = read(path, root)
    build = 'command="build"'
    assert after["fastindex_last_run_exit_code", build] == 1
    success = "fastindex_last_success_timestamp_seconds", build
    assert after[success] == before[success] > 0
    assert after["fastindex_healthy", ""] == 0


def test_what_is_left_out_is_counted_by_kind(fastindex: Run, root: Path, path: Path) -> None:
    write_tree(root, version(f"{ALPINE}/{OLD}"))
    (root / f"images/{ALPINE}/{OLD}/rootfs.squashfs").unlink()
    assert fastindex("--metrics", path, root).returncode == 3
    found = read(path, root)
    code = 'code="incomplete-version"'
    assert found["fastindex_findings", code] == 1
    assert found["fastindex_left_out_versions", code] == 1
    assert found["fastindex_healthy", ""] == 0
    assert found["fastindex_last_success_timestamp_seconds", 'command="build"'] > 0


def test_all_commands_are_in_one_file(fastindex: Run, root: Path, path: Path) -> None:
    write_tree(root, version(f"{DEBIAN}/{NEW}"))
    fastindex(root)
    assert fastindex("prune", "--keep", 1, "--metrics", path, root).returncode == 0
    found = read(path, root)
    assert found["fastindex_last_run_exit_code", 'command="build"'] == 0
    assert found["fastindex_last_run_exit_code", 'command="prune"'] == 0
    assert found["fastindex_withdrawn_versions", ""] == 1


def test_a_wait_for_a_lock_is_measured(fastindex: Run, root: Path, path: Path) -> None:
    fastindex(root)
    lock = root / "streams/.lock"
    with subprocess.Popen(
        ["flock", lock, "sh", "-c", "echo; sleep 1"], stdout=subprocess.PIPE
    ) as p:
        assert p.stdout is not None
        p.stdout.readline()
        assert fastindex("--wait", "--metrics", path, root).returncode == 0
    assert read(path, root)["fastindex_last_run_lock_wait_seconds", 'command="build"'] > 0.2


def test_a_dry_run_writes_no_metrics(fastindex: Run, root: Path, path: Path) -> None:
    fastindex("--dry-run", "--metrics", path, root)
    assert not path.exists()


def test_a_torn_index_is_told(fastindex: Run, root: Path, path: Path) -> None:
    assert fastindex("import", "--metrics", path, "missing", root).returncode == 1
    found = read(path, root)
    assert found["fastindex_catalogue_readable", ""] == found["fastindex_healthy", ""] == 0
    assert found["fastindex_last_run_exit_code", 'command="import"'] == 1
    assert not [name for name, _ in found if "published" in name]


def test_metrics_that_cannot_be_written_change_nothing_else(
    fastindex: Run, root: Path, path: Path
) -> None:
    path.mkdir()
    done = fastindex("--metrics", path, root)
    assert done.returncode == 3
    assert f"{path}: the metrics cannot be written" in done.stderr
    assert (root / "streams/v1/index.json").exists()


def test_labels_of_strangers_are_escaped(tmp_path: Path, path: Path) -> None:
    root = '/srv/a"b\\c\nd' + os.fsdecode(b"\xff")
    path.write_bytes(format_metrics([Metric("x_bytes", "Text.", [({"y": '"} 1\n'}, 0.5)])], root))
    promtool = needs("promtool", "apt-get install prometheus")
    subprocess.run([promtool, "check", "metrics"], stdin=path.open(), check=True)
    (line,) = (line for line in path.read_text().splitlines() if line[0] != "#")
    assert line.endswith('y="\\"} 1\\n"} 0.500')


def test_the_guide_names_every_metric_and_its_rules_hold(
    fastindex: Run, root: Path, path: Path, tmp_path: Path
) -> None:
    (root / f"images/{DEBIAN}/.product.toml").write_text('max_age = "1d"\n')
    write_tree(root, version(f"{ALPINE}/{OLD}"))
    (root / f"images/{ALPINE}/{OLD}/rootfs.squashfs").unlink()
    fastindex("--metrics", path, root)
    page = (CHECKOUT / "docs/how-to/monitor.md").read_text()
    named = set(re.findall(r"`(fastindex_[a-z_]+)`", page))
    named |= {f"fastindex_published_{rest}" for rest in re.findall(r"`…_([a-z_]+)`", page)}
    assert {name for name, _ in read(path, root)} == named
    rules = tmp_path / "rules.yml"
    rules.write_text(page.partition("```yaml\n")[2].partition("```")[0])
    promtool = needs("promtool", "apt-get install prometheus")
    checked = subprocess.run([promtool, "check", "rules", rules], check=True, capture_output=True)
    assert b"SUCCESS: 6 rules found" in checked.stdout
    assert set(re.findall(r"fastindex_[a-z_]+", rules.read_text())) <= named

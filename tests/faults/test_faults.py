"""The campaign of faults in a short form, and faults that are real.

The whole: ``python -m tests.support.faults.campaign``.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import Workshop
from tests.support.command import Run
from tests.support.faults.campaign import ALL, chosen, errors_at
from tests.support.faults.injection import points, survives_error, survives_kill
from tests.support.faults.moments import VICTIMS, survives_moment
from tests.support.faults.scenarios import Place, Scenario, check_files, generation
from tests.support.file_systems import file_system_of
from tests.support.sizes import sized
from tests.support.trees import version, write_tree

point_count = sized("--points", short=3, full=40)
"""Of each scenario; others in each run of the tests would make CI a game of chance."""


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ALL, ids=lambda scenario: scenario.name)
def test_nothing_is_lost_at_sampled_points(
    tmp_path: Path, workshop: Workshop, scenario: Scenario, point_count: int
) -> None:
    place = Place(tmp_path / "place", scenario, workshop)
    found = points(place)
    assert len(found) > 20
    chance = random.Random(scenario.name)
    killed = [survives_kill(place, point) for point in chosen(found, point_count, chance)]
    assert sum(killed) > point_count / 2
    workers = [point for point in found if point.is_worker]
    assert bool(workers) == scenario.has_workers
    for point in chosen(workers, min(point_count // 2, len(workers)), chance):
        survives_kill(place, point)
    for victim in VICTIMS:
        if victim != "worker" or scenario.has_workers:
            survives_moment(place, victim, chance)
    for point, error in errors_at(found, point_count, chance):
        survives_error(place, point, error)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 256 KiB."""
    with file_system_of("256k", tmp_path / "mounted") as path:
        yield path


@pytest.mark.root
def test_a_disk_that_fills_leaves_the_old_catalogue(
    fastindex: Run, tmp_path: Path, mounted: Path
) -> None:
    root = write_tree(tmp_path / "mirror", version())
    assert fastindex("--output", mounted, root).returncode == 0
    before = generation(mounted)
    for number in range(400):
        write_tree(root, version(f"debian/{number}/amd64/default/20240505_05:24"))
    result = fastindex("--output", mounted, root)
    assert result.returncode == 1
    assert "No space left on device" in result.stderr
    assert str(mounted / "streams/v1/images.json") in result.stderr
    assert "Traceback" not in result.stderr
    assert generation(mounted) == before
    assert {path.name for path in (mounted / "streams/v1").iterdir()} == {
        "images.json",
        "index.json",
    }
    subprocess.run(["mount", "-o", "remount,size=8m", mounted], check=True)
    assert fastindex("--output", mounted, root).returncode == 0
    assert len(generation(mounted)["products"]["streams/v1/images.json"]["products"]) == 400


@pytest.mark.root
def test_a_read_only_mount_leaves_the_old_catalogue(
    fastindex: Run, tmp_path: Path, mounted: Path
) -> None:
    root = write_tree(mounted, version())
    assert fastindex(root).returncode == 0
    before = generation(root)
    write_tree(root, version("debian/13/amd64/default/20240505_05:24"))
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    result = fastindex(root)
    assert result.returncode == 1
    assert "Read-only file system" in result.stderr
    assert "Traceback" not in result.stderr
    assert generation(root) == before
    output = tmp_path / "output"
    cache = tmp_path / "cache"
    assert fastindex("--output", output, "--cache-dir", cache, root).returncode == 0
    check_files(root, generation(output))
    assert fastindex("verify", "--output", output, "--cache-dir", cache, root).returncode == 0

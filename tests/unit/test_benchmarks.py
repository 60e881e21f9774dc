"""What the benchmarks rest on; none of it asserts on time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from contenders import big_mirror, engine_pairs
from latency import measure
from latency_fs import CannotMountError
from make_mirror import make_tiny_mirror
from measure import CANNOT_MEASURE, in_own_process, seconds_and_mib, speed, tell, tell_lines
from nightly import Command, build, with_new_version
from plot import draw, is_wide, read, short, whiskers
from run_all import FIGURES, command_of
from simulated import ITEMS_A_VERSION, build_simulated, document
from system_calls import Added, added, count_calls

from fastindex.formats.simplestreams import ProductFile, decode, encode
from tests.support.command import UNMEASURED, Run
from tests.support.tools import needs
from tests.support.trees import version, write_tree

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_simulated_catalogue_is_one_that_clients_accept() -> None:
    made = document(25)
    assert decode(encode(made), ProductFile) == made
    versions = [entry for product in made.products.values() for entry in product.versions.values()]
    assert len(made.products) == 3
    assert len(versions) == 25
    assert {len(version.items) for version in versions} == {ITEMS_A_VERSION}
    assert encode(document(25)) == encode(made)


def test_a_simulated_mirror_is_built_as_one_on_disk_is(tmp_path: Path) -> None:
    _, first = in_own_process(build_simulated, tmp_path, 25)
    assert (tmp_path / "streams/v1/images.json").read_bytes() == encode(document(25))
    assert (first.products, first.versions, first.files_reused) == (3, 25, 25 * ITEMS_A_VERSION)
    _, again = in_own_process(build_simulated, tmp_path, 25)
    assert (again.versions, again.wrote, again.files_reused) == (25, (), first.files_reused)
    _, more = in_own_process(build_simulated, tmp_path, 25, 1)
    assert (more.versions, more.wrote) == (26, ("streams/v1/images.json",))


@pytest.mark.parametrize("metadata", [1, 2])
def test_each_root_of_a_mirror_has_as_many_fingerprints_as_metadata_files(
    fastindex: Run, tmp_path: Path, metadata: int
) -> None:
    with big_mirror(tmp_path, 2, 5000, metadata) as mirror:
        assert fastindex(mirror.root).returncode == 0
        cached = json.loads(mirror.roots[0].with_name(".items.json").read_bytes())
    fingerprints = {item.get("combined_squashfs_sha256") for item in cached.values()} - {None}
    assert len(fingerprints) == metadata == mirror.digests - 1


def test_memory_is_that_of_the_largest_process() -> None:
    assert seconds_and_mib(["true"])[1] < 20
    assert seconds_and_mib(["sh", "-c", "head -c 40000000 /dev/zero | tail -c 40000000"])[1] > 30


def test_a_new_version_is_seen_by_one_run_and_taken_away_again(tmp_path: Path) -> None:
    make_tiny_mirror(tmp_path, 2, "squashfs")
    catalogue = tmp_path / "streams/v1/images.json"
    seconds_and_mib(build(tmp_path))
    before = catalogue.read_bytes()
    seen: list[int] = []

    def run(command: Command) -> tuple[float, float]:
        measured = seconds_and_mib(command)
        file = decode(catalogue.read_bytes(), ProductFile)
        seen.append(sum(len(product.versions) for product in file.products.values()))
        return measured

    with_new_version(run, tmp_path)
    assert seen == [3, 2]
    assert catalogue.read_bytes() == before


def test_runs_are_measured_where_each_request_waits(tmp_path: Path) -> None:
    tree, slow = tmp_path / "tree", tmp_path / "slow"
    tree.mkdir()
    slow.mkdir()
    try:
        seconds = measure(2, 1.0, 2, tree, slow)
    except CannotMountError as error:
        pytest.skip(str(error))
    assert [len(runs) for runs in seconds.values()] == [2, 2, 2]
    assert min(seconds["find"]) > 0.010


def test_where_no_file_system_can_be_mounted_a_benchmark_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "latency.py", "--dir", tmp_path],
        env={**os.environ, "CC": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == CANNOT_MEASURE
    assert re.search("/dev/fuse is missing|cannot be compiled", done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_calls_are_counted_of_all_processes() -> None:
    needs("strace", "apt-get install strace")
    counts = [
        count_calls(
            ["sh", "-c", f"cat {' '.join(['/dev/null'] * times)} & wait; test -e /; test -e /"],
            UNMEASURED,
        )
        for times in (2, 12)
    ]
    few, many = counts
    assert many["openat"] - few["openat"] == many["close"] - few["close"] == 10
    assert few["stat"] >= 2


def test_calls_are_told_by_directory_and_by_file(tmp_path: Path) -> None:
    fewer, more = tmp_path / "fewer", tmp_path / "more"
    write_tree(fewer, version())
    write_tree(more, {**version(), **version("debian/13/amd64/default/20240505_05:24")})
    write_tree(more, {"images/debian/13/amd64/default/.hidden": b"no file of an image"})
    calls = Counter(openat=10, stat=5), Counter(openat=14, stat=9, close=4)
    assert added(fewer, more, calls) == Added(
        directories=4, files=2, calls=Counter(openat=4, stat=4, close=4)
    )
    assert added(fewer, more, calls).each() == {
        "openat a directory": 1.0,
        "getdents64 a directory": 0.0,
        "close a directory": 1.0,
        "stat a file": 2.0,
        "all others a directory": 0.0,
    }


def test_speeds_are_told_of_engines_side_by_side() -> None:
    names = ["a --engine hashlib", "a --engine lanes", "b --engine lanes", "c"]
    assert engine_pairs(names) == [("a --engine lanes", "a --engine hashlib")]
    assert speed([2.0, 2.0, 9.0], [1.0, 3.0, 4.0]) == 1.5


def test_plots_know_their_scales() -> None:
    assert whiskers([3.0, 1.0, 2.0]) == (1.0, 1.0)
    assert is_wide([1, 10])
    assert not is_wide([0, 10])
    assert [short(number) for number in (8, 1500, 10_000, 1_000_000)] == ["8", "1500", "10k", "1M"]


def test_equal_records_give_equal_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install '.[bench]'")
    bars, lines = tmp_path / "bars.json", tmp_path / "lines.json"
    tell("Bars", {"a": [1.0, 1.5], "b": [2.0]}, "a", {"rounds": 2}, bars, pairs=[("b", "a")])
    tell_lines("Lines", "versions", {"seconds": {"a": {1: [1.0], 1000: [90.0]}}}, {}, lines)
    for record in (bars, lines):
        targets = [tmp_path / "1.svg", tmp_path / "2.svg"]
        for target in targets:
            draw(read(record), target)
        assert targets[0].read_bytes() == targets[1].read_bytes()


def test_every_benchmark_gives_a_figure() -> None:
    scripts = {figure.command.split()[0] for figure in FIGURES}
    assert scripts == {
        path.name
        for path in BENCHMARKS.glob("*.py")
        if "argument_parser(__doc__" in path.read_text()
        and path.name != "compare.py"  # of two installations, not of this one
    }
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)


def test_a_figure_that_makes_no_files_takes_no_directory() -> None:
    commands = [command_of(figure, Path("r"), Path("d"), is_tiny=True) for figure in FIGURES]
    assert [("--dir" in command) for command in commands] == [
        figure.takes_directory for figure in FIGURES
    ]


def test_every_recorded_figure_has_a_plot_and_can_be_read() -> None:
    records = sorted((BENCHMARKS / "results").glob("*.json"))
    assert all(read(path).title for path in records)
    assert all(path.with_suffix(".svg").is_file() for path in records)

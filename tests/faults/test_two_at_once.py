"""Commands that are started together on one mirror."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.support.builders import Workshop
from tests.support.faults.scenarios import check_caches
from tests.support.faults.two_at_once import Crowds, second_name
from tests.support.sizes import sized
from tests.support.trees import version, write_tree

crowd_count = sized("--crowds", short=1, full=50)


def test_a_crowd_of_commands_takes_turns(
    tmp_path: Path, workshop: Workshop, crowd_count: int
) -> None:
    crowds = Crowds(tmp_path, workshop, seed=crowd_count)
    with second_name(crowds.root, tmp_path / "bound") as is_mounted:
        if is_mounted:
            crowds.names.append(str(tmp_path / "bound"))
        for _ in range(crowd_count):
            crowds.play()
        crowds.finish()
    print(crowd_count, "crowds:", dict(sorted(crowds.codes.items())))
    # One crowd may find nobody in its way.
    assert crowd_count < 10 or {code for _, code in crowds.codes} >= {3, 75}


SLOW = """
import sys, time
from fastindex.cli import main as cli
from fastindex.system import atomic
write_all = atomic._write_all
def slowly(descriptor, data):
    write_all(descriptor, data[:99])
    time.sleep(0.02)
    write_all(descriptor, data[99:])
atomic._write_all = slowly
sys.stdin.readline()
sys.exit(cli.main(sys.argv[1:]))
"""


def test_builds_with_locks_of_their_own_take_turns_at_the_caches(tmp_path: Path) -> None:
    root = tmp_path / "mirror"
    for number in range(40):
        write_tree(root, version(f"debian/{number}/amd64/default/20240505_05:24"))
    builds = [
        subprocess.Popen(
            [sys.executable, "-c", SLOW, "-j1", "--rehash", "--output", tmp_path / output, root],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for output in "abcd"
    ]
    time.sleep(0.5)  # so that all have started
    for process in builds:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    while any(process.poll() is None for process in builds):
        for cache in root.rglob(".items.json"):
            assert len(json.loads(cache.read_bytes())) == 3  # whole at every moment
    for process in builds:
        _, told = process.communicate(timeout=60)
        assert "cannot be written" not in told
        assert process.returncode == 0
    check_caches(root)
    assert not list(root.rglob("*.tmp"))

"""SIGKILL at any moment of an import: a version is whole or not there, no source is lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.builders import METADATA, PRODUCT, VERSION, Workshop, age
from tests.support.command import COMMAND, UNMEASURED, Run
from tests.support.sizes import sized, spread

IMAGES = 3
NAMES = {"incus.tar.xz", "rootfs.squashfs", "disk.qcow2"}
moment_count = sized("--moments", short=10, full=34)


def contents(directory: Path) -> dict[str, bytes]:
    found = directory.iterdir() if directory.is_dir() else []
    return {path.name: path.read_bytes() for path in found if path.name in NAMES}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["--move", "--copy", "--link"])
def test_an_import_that_is_killed_can_be_done_again(
    fastindex: Run, workshop: Workshop, tmp_path: Path, mode: str, moment_count: int
) -> None:
    originals = tmp_path / "originals"
    for number in range(IMAGES):
        text = METADATA.replace(": 12", f": {number}")
        disk = workshop.split(originals / str(number), text) / "disk.qcow2"
        workshop.put(workshop.disk, disk)
        os.truncate(disk, 24 << 20)
        age(disk)
    whole = {number: contents(originals / str(number)) for number in range(IMAGES)}
    work = tmp_path / "work"
    sources, root = work / "sources", work / "mirror"
    versions = [root / f"images/debian/{number}/amd64/default/{VERSION}" for number in range(3)]
    every = [str(sources / str(number)) for number in range(IMAGES)]
    command = [str(COMMAND), "import", "-j2", mode, *every, str(root)]
    randomness = random.Random(mode)

    def start_afresh() -> None:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(originals, sources)
        root.mkdir()

    start_afresh()
    began = time.monotonic()
    subprocess.run(command, env=UNMEASURED, check=True, capture_output=True)
    seconds = time.monotonic() - began
    published = 0
    for share in spread(moment_count, randomness):
        start_afresh()
        with subprocess.Popen(
            command,
            env=UNMEASURED,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,
        ) as process:
            time.sleep((0.2 + share) * seconds)
            os.killpg(process.pid, signal.SIGKILL)
        count = sum(version.exists() for version in versions)
        published += count
        # How long it takes depends on what else runs: later after none, sooner after all.
        seconds *= {0: 1.3, IMAGES: 0.8}.get(count, 1)
        for number, version in enumerate(versions):
            if version.exists():
                assert contents(version) == whole[number]
            else:
                assert contents(sources / str(number)) == whole[number]
            left = contents(sources / str(number))
            assert left.items() <= whole[number].items()
        remaining = [n for n in range(IMAGES) if contents(sources / str(n))]
        if remaining:
            again = fastindex("import", mode, *(sources / str(n) for n in remaining), root)
            assert again.returncode == 0, again.stderr
        for number, version in enumerate(versions):
            assert contents(version) == whole[number]
            # Killed after it removed the last source, it leaves its mark, which does no harm.
            mark = set() if number in remaining else {".importing"}
            assert {path.name for path in version.iterdir()} <= NAMES | {".items.json"} | mark
            assert [path.name for path in version.parent.iterdir()] == [VERSION]
        if mode == "--move":
            assert not any(contents(sources / str(number)) for number in range(IMAGES))
    assert 0 < published < IMAGES * moment_count  # the moments lay on both sides


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_import_that_is_stopped_tidies_up(
    workshop: Workshop, tmp_path: Path, number: int, code: int
) -> None:
    root, source = tmp_path / "mirror", workshop.split(tmp_path / "source")
    root.mkdir()
    os.truncate(source / "rootfs.squashfs", 1 << 30)
    age(source / "rootfs.squashfs")
    hidden = root / f"{PRODUCT}/.{VERSION}"
    command = [str(COMMAND), "import", "--copy", str(source), str(root)]
    with subprocess.Popen(command, env=UNMEASURED, stderr=subprocess.PIPE, text=True) as process:
        while not (hidden / "rootfs.squashfs").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, told = process.communicate(timeout=30)
    assert process.returncode == code
    assert "nothing was half-written" in told
    assert list(hidden.parent.iterdir()) == []
    assert {path.name for path in source.iterdir()} == {"incus.tar.xz", "rootfs.squashfs"}

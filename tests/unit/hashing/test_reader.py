"""What a build takes from the disk, seen by ``strace``."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.builders import Workshop, age
from tests.support.command import COMMAND, Run
from tests.support.file_systems import drop_pages
from tests.support.tools import needs
from tests.support.trees import forget_state, published, version, write_file, write_tree

READS = "read,pread64,preadv,preadv2,readv"


def bytes_read_below(root: Path, *arguments: str, below: str = "") -> int:
    """Run a build; return how many bytes it read from files below ``root``/images.

    Or another command, and below another directory.
    """
    trace = root.with_name(f"{root.name}.trace")
    strace = needs("strace", "apt-get install strace")
    subprocess.run(
        [strace, "-f", "-qq", "-y", "-e", f"trace={READS}", "-o", trace, COMMAND, *arguments, root],
        check=True,
        capture_output=True,
    )
    total = 0
    of_process: dict[str, bool] = {}
    for line in trace.read_text(errors="replace").splitlines():
        process = line.split()[0]
        if f"<{below or f'{root}/images'}" in line:
            of_process[process] = True
        elif "resumed" not in line:
            of_process[process] = False
        result = re.search(r"= (\d+)$", line)
        if result and of_process.get(process):
            total += int(result[1])
    return total


@pytest.mark.parametrize("jobs", ["1", "4"])
def test_every_byte_is_read_once(tmp_path: Path, jobs: str) -> None:
    root = tmp_path / "root"
    for number in range(4):
        path = f"debian/12/amd64/default/2024050{number + 1}"
        files = {
            name: os.urandom(size)
            for name, size in (
                ("incus_tar_xz", 1000),
                ("lxd_tar_xz", 1100),
                ("rootfs_squashfs", 24 << 20),
                ("rootfs_tar_xz", 5 << 20),
                ("disk_qcow2", 9 << 20),
            )
        }
        write_tree(root, version(path, **files))
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    read = bytes_read_below(root, "--jobs", jobs)
    assert size <= read <= 1.02 * size
    forget_state(root)
    assert bytes_read_below(root, "--jobs", jobs) < 20_000  # caches only


def test_a_hot_file_stays_in_memory(fastindex: Run, tmp_path: Path) -> None:
    """A build that reads uncached files leaves pages alone that were there before."""
    hot = tmp_path / "images/hot/1/amd64/default/20240505/rootfs.squashfs"
    cold = tmp_path / "images/cold/1/amd64/default/20240505/rootfs.squashfs"
    for path in (hot, cold):
        tree = version(f"{path.parts[-6]}/1/amd64/default/20240505")
        write_tree(tmp_path, tree)
        write_file(path, os.urandom(16 << 20))
        drop_pages(path)
    if resident(cold) or not knows_dontcache(cold):
        pytest.skip("this kernel or file system has no uncached buffered reads (Linux 6.14)")
    control = tmp_path / "control"
    control.write_bytes(os.urandom(1 << 20))
    drop_pages(control)
    for _ in range(3):
        for path in (hot, control):
            path.read_bytes()
        before = resident(hot)
        kept = resident(control)
        assert fastindex("--rehash", tmp_path).returncode == 0
        if resident(control) == kept:
            break
    else:
        pytest.skip("this machine gives idle pages back within seconds")
    assert 0 < before == resident(hot)
    # A run leaves the few pages that it asked about, of which the next one must not be misled.
    for _ in range(3):
        assert resident(cold) < 1 << 20
        assert fastindex("--rehash", tmp_path).returncode == 0


def resident(path: Path) -> int:
    """Return how many bytes of ``path`` are in the page cache."""
    fincore = needs("fincore", "apt-get install util-linux")
    command = [fincore, "--bytes", "--noheadings", "--raw", "--output", "RES", str(path)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def knows_dontcache(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, 0x80)
        except OSError:
            return False
    drop_pages(path)
    return True


@pytest.mark.parametrize("mode", ["--copy", "--move"])
def test_an_import_reads_every_byte_once_and_the_build_after_it_none(
    tmp_path: Path, workshop: Workshop, mode: str
) -> None:
    root, source = tmp_path / "root", workshop.split(tmp_path / "source")
    root.mkdir()
    with (source / "rootfs.squashfs").open("ab") as file:
        file.write(os.urandom(40 << 20))
    age(source / "rootfs.squashfs")
    size = sum(path.stat().st_size for path in source.iterdir())
    read = bytes_read_below(root, "import", mode, str(source), below=str(tmp_path))
    assert size <= read <= 1.02 * size
    assert bytes_read_below(root) < 20_000  # caches only
    assert len(published(root)) == 1

"""A delta between two roots: size, time and memory, beside ``xdelta3 -e -9``.

    python benchmarks/deltas.py OLD.squashfs NEW.squashfs
    python benchmarks/deltas.py                       two small ones that it makes: a smoke run

Two versions of a real Debian (as root):

    debootstrap --variant=minbase --include=systemd-sysv bookworm old
    cp -a old new
    chroot new apt-get update
    chroot new apt-get -y dist-upgrade
    chroot new apt-get -y install --no-install-recommends openssh-server curl vim-tiny
    for one in old new; do mksquashfs $one $one.squashfs -noappend -comp zstd; done

*fastindex deltas* reads and checks the old root, makes the delta, decodes it, compares, and
publishes it, at low priority. The others only make it.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import fastindex_command

_PRODUCT = "images/debian/12/amd64/default"
_NAMES = ("20240505_05:24", "20240506_05:24")
_OLD_SECONDS = 1_700_000_000


def measure(old: Path, new: Path, work: Path) -> None:
    """Print a table."""
    print(
        f"old root {old.stat().st_size / 1e6:,.1f} MB, new root {new.stat().st_size / 1e6:,.1f} MB"
    )
    print("| | MB | % of the new root | seconds | CPU seconds | peak memory, MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    window = max(1 << 19, 1 << (old.stat().st_size - 1).bit_length())
    for words in ("-9", "-3", f"-S none -A -B {window}"):
        path = work / "delta"
        command = ["xdelta3", "-e", "-f", *words.split(), "-s", str(old), str(new), str(path)]
        figures = _run(command)
        _tell(f"`xdelta3 -e {words}`", path, new, figures)
        figures = _run(["xdelta3", "-d", "-f", "-s", str(old), str(path), str(work / "decoded")])
        _tell("decoding it, as a client does", None, new, figures)
    root = work / "mirror"
    for name, source in zip(_NAMES, (old, new), strict=True):
        version = root / _PRODUCT / name
        version.mkdir(parents=True)
        shutil.copy(source, version / "rootfs.squashfs")
        (work / "metadata.yaml").write_text(name)
        subprocess.run(
            ["tar", "--force-local", "-C", work, "-cJf", version / "incus.tar.xz", "metadata.yaml"],
            check=True,
        )
        for path in version.iterdir():
            os.utime(path, (_OLD_SECONDS, _OLD_SECONDS))
    subprocess.run([fastindex_command(), "-q", root], check=True)
    figures = _run([str(fastindex_command()), "deltas", "-q", "--max-ratio=100", str(root)])
    (made,) = root.rglob("*.vcdiff")
    _tell("fastindex deltas (xdelta3's memory)", made, new, figures)


def _tell(what: str, path: Path | None, new: Path, figures: tuple[float, float, float]) -> None:
    seconds, cpu, mib = figures
    cells = ["", ""]
    if path is not None:
        size = path.stat().st_size
        cells = [f"{size / 1e6:.1f}", f"{100 * size / new.stat().st_size:.0f}"]
    print(
        "|",
        " | ".join([what, *cells, f"{seconds:.1f}", f"{cpu:.1f}", f"{mib:.0f}"]),
        "|",
        flush=True,
    )


def _run(command: list[str]) -> tuple[float, float, float]:
    """Return the seconds that a command takes, by the clock and of CPUs, and its peak memory."""
    began = time.perf_counter()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:  # so that the figures are of this command alone
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        os.write(writer, f"{used.ru_utime + used.ru_stime} {used.ru_maxrss}".encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    with os.fdopen(reader) as pipe:
        cpu, peak = pipe.read().split()
        return time.perf_counter() - began, float(cpu), int(peak) / 1024


def _make_small(work: Path) -> tuple[Path, Path]:
    chance = random.Random(1)
    tree = work / "tree"
    tree.mkdir()
    for number in range(40):
        (tree / f"f{number}").write_bytes(chance.randbytes(100_000))
    roots = work / "old.squashfs", work / "new.squashfs"
    for root in roots:
        subprocess.run(
            ["mksquashfs", tree, root, "-noappend", "-quiet", "-no-progress"], check=True
        )
        (tree / "f7").write_bytes(chance.randbytes(50_000))
    return roots


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "roots", nargs="*", type=Path, metavar="ROOT", help="the old and the new root"
    )
    arguments = parser.parse_args()
    if shutil.which("xdelta3") is None:
        print("xdelta3 is not installed: apt-get install xdelta3", file=sys.stderr)
        return 1
    if len(arguments.roots) not in (0, 2):
        parser.error("give two roots: the old and the new one")
    with tempfile.TemporaryDirectory() as directory:
        old, new = arguments.roots or _make_small(Path(directory))
        measure(old, new, Path(directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A directory behind a file system with latency: ``latency_fs.c``, compiled, mounted, unmounted.

    python benchmarks/latency_fs.py DIRECTORY MOUNT_POINT [--wait 1.0]

serves until Ctrl-C. Needs /dev/fuse, the right to mount, a C compiler and libfuse's headers
(``apt-get install fuse3 gcc libc6-dev libfuse3-dev``).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from measure import CANNOT_MEASURE

DEVICE = Path("/dev/fuse")
SOURCE = Path(__file__).with_suffix(".c")
PACKAGES = "fuse3 gcc libc6-dev libfuse3-dev"
_PATIENCE_SECONDS = 10


class CannotMountError(Exception):
    """This machine or this user cannot have a file system with latency; says why."""


@contextlib.contextmanager
def mounted_with_latency(
    directory: Path, mount_point: Path, *, wait_ms: float = 1.0
) -> Iterator[None]:
    """Mount ``directory`` at ``mount_point`` too, where each request waits ``wait_ms``.

    Each component of a path, ``stat``, ``open``, read of a listing or of a file, and each
    change is a request: the kernel keeps nothing. Any number of them wait at once. What is
    done in ``directory`` itself is seen at once and costs no wait.

    Raises:
        CannotMountError: with the reason, where this machine or this user cannot.
    """
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        raise CannotMountError(f"{DEVICE} is missing or may not be opened")
    with tempfile.TemporaryDirectory(prefix="latency_fs.") as made:
        program = Path(made, "latency_fs")
        _compile(program)
        wait_us = round(wait_ms * 1000)
        with _served([program, directory, mount_point, str(wait_us)], Path(made, "stderr")):
            yield


def _compile(program: Path) -> None:
    """Compile the file system; raises CannotMountError where that fails."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise CannotMountError(f"there is no C compiler: apt-get install {PACKAGES}")
    command: list[str | Path] = [compiler, "-O2", SOURCE, "-lfuse3", "-lpthread", "-o", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        complaint = next((line for line in done.stderr.splitlines() if "error" in line), "")
        raise CannotMountError(
            f"{SOURCE.name} cannot be compiled ({complaint.strip()}): apt-get install {PACKAGES}"
        )


@contextlib.contextmanager
def _served(words: list[str | Path], stderr: Path) -> Iterator[None]:
    """Let the file system serve; raises CannotMountError if it does not start."""
    with (
        stderr.open("wb") as complaints,
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=complaints, text=True) as server,
    ):
        try:
            if server.stdout is None or server.stdout.readline() != "mounted\n":
                server.wait(_PATIENCE_SECONDS)
                raise CannotMountError(f"it cannot be mounted: {stderr.read_text().strip()}")
            yield
        finally:
            server.terminate()
            try:
                server.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()


def main() -> int:
    """Mount what the command line names until the user ends it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, metavar="DIRECTORY")
    parser.add_argument("mount_point", type=Path, metavar="MOUNT_POINT")
    parser.add_argument("--wait", type=float, default=1.0, help="ms a request (default: 1.0)")
    arguments = parser.parse_args()
    try:
        with mounted_with_latency(
            arguments.directory, arguments.mount_point, wait_ms=arguments.wait
        ):
            signal.pause()
    except CannotMountError as error:
        print(error, file=sys.stderr)
        return CANNOT_MEASURE
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Big files, and who reads them: builds by engine, bare hashing, other programs.

Shared by ``warm_build``, ``cold_build``, ``scaling``, ``verify`` and ``import_copy``.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from make_mirror import make_mirror, size_argument
from measure import engines, fastindex_command, in_workers, wall_seconds

_BUFFER_BYTES = 512 * 1024
_BASELINE_BUFFER_BYTES = 4096
_METADATA = ("incus", "lxd")


@dataclass(frozen=True, slots=True)
class Mirror:
    """A mirror of big files."""

    root: Path
    """The directory that is served."""
    roots: list[Path]
    """Its squashfs files."""
    metadata: tuple[str, ...]
    """Which metadata files, of different contents, lie beside each."""

    @property
    def digests(self) -> int:
        """How many SHA-256 each root goes into: its own and its fingerprints."""
        return 1 + len(self.metadata)


Contender = Callable[[Mirror], float]
"""Does its work on a mirror; returns the seconds it took."""


def add_mirror_options(parser: argparse.ArgumentParser) -> None:
    """Let ``parser`` take the number and the size of the files, and of jobs."""
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--size", type=size_argument, default="512M")
    parser.add_argument("--jobs", type=int, default=2)


def add_build_options(parser: argparse.ArgumentParser) -> None:
    """Let ``parser`` take what a benchmark of whole builds is told."""
    add_mirror_options(parser)
    parser.add_argument(
        "--metadata", type=int, choices=(1, 2), default=2, help="distinct files for each root"
    )
    parser.add_argument("--quick", action="store_true", help="fastindex by engine, nobody else")


@contextmanager
def big_mirror(
    directory: Path | None, files: int, size_bytes: int, metadata: int
) -> Iterator[Mirror]:
    """Make a mirror of ``files`` roots of one product below ``directory`` for a while."""
    with tempfile.TemporaryDirectory(dir=directory) as made:
        root = Path(made, "mirror")
        make_mirror(
            root,
            versions=files,
            per_product=files,
            size_bytes=size_bytes,
            roots=("squashfs",),
            metadata=_METADATA[:metadata],
            seed=1,
        )
        os.sync()  # the disk is to be done with writing them
        yield Mirror(root, sorted(root.glob("images/**/rootfs.squashfs")), _METADATA[:metadata])


def facts(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the options that a figure depends on, by name."""
    return {
        "files": arguments.files,
        "MiB each": arguments.size >> 20,
        "jobs": arguments.jobs,
        "rounds": arguments.rounds,
    }


def build(mirror: Mirror, jobs: int, *options: str) -> float:
    """Index ``mirror`` with the installed command, as if for the first time."""
    shutil.rmtree(mirror.root / "streams", ignore_errors=True)
    command: list[str | Path] = [fastindex_command(), "-q", "--rehash", "--jobs", str(jobs)]
    return wall_seconds([*command, *options, mirror.root])


def hash_bare(roots: list[Path], jobs: int, digests: int, *, is_aligned: bool = True) -> float:
    """Only read ``roots`` and update ``digests`` hashlib objects, in ``jobs`` processes."""
    return in_workers(partial(_hash_bare, digests=digests, is_aligned=is_aligned), roots, jobs)


def _hash_bare(paths: list[Path], digests: int, is_aligned: bool) -> None:
    buffer = mmap.mmap(-1, _BUFFER_BYTES) if is_aligned else bytearray(_BUFFER_BYTES)
    view = memoryview(buffer)
    for path in paths:
        hashers = [hashlib.sha256() for _ in range(digests)]
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                for hasher in hashers:
                    hasher.update(view[:count])
        for hasher in hashers:
            hasher.hexdigest()


def _pass_for_each_digest(paths: list[Path], metadata: tuple[str, ...]) -> None:
    for path in paths:
        for names in ((), *((f"{client}.tar.xz",) for client in metadata)):
            hasher = hashlib.sha256()
            for name in (*names, path.name):
                with path.with_name(name).open("rb", buffering=0) as file:
                    while piece := file.read(_BASELINE_BUFFER_BYTES):
                        hasher.update(piece)
            hasher.hexdigest()


def build_name(engine: str, *options: str) -> str:
    """Return what a contender is called that builds with ``engine``."""
    return " ".join(("fastindex --engine", engine, *options))


def build_contenders(jobs: int, digests: int, *, is_quick: bool) -> dict[str, Contender]:
    """Return all who hash a mirror, by name.

    Args:
        jobs: how many processes each may use.
        digests: how many SHA-256 a root needs.
        is_quick: only fastindex.
    """
    contenders: dict[str, Contender] = {}
    for options in (("--no-blake3",), ()):
        for engine in engines():
            contenders[build_name(engine, *options)] = partial(
                _build, jobs=jobs, options=("--engine", engine, *options)
            )
    if is_quick:
        return contenders
    if shutil.which("incus-simplestreams"):  # after a build, as it wants the catalogue
        contenders["incus-simplestreams verify"] = verify_with_incus

    def bare(mirror: Mirror, is_aligned: bool) -> float:
        return hash_bare(mirror.roots, jobs, digests, is_aligned=is_aligned)

    def baseline(mirror: Mirror) -> float:
        work = partial(_pass_for_each_digest, metadata=mirror.metadata)
        return in_workers(work, mirror.roots, 1)

    contenders["bare hashlib"] = partial(bare, is_aligned=False)
    contenders["bare hashlib, aligned buffer"] = partial(bare, is_aligned=True)
    contenders[f"4 KiB reads, {digests} passes, 1 process"] = baseline
    for program, command in programs(jobs).items():
        contenders[f"{program}, 1 digest"] = partial(_run_program, command=command, jobs=jobs)
    return contenders


def _build(mirror: Mirror, jobs: int, options: tuple[str, ...]) -> float:
    return build(mirror, jobs, *options)


def verify_with_incus(mirror: Mirror) -> float:
    """Let ``incus-simplestreams verify`` (one thread) hold ``mirror`` against its catalogue."""
    return wall_seconds(["incus-simplestreams", "verify"], mirror.root)


def programs(jobs: int) -> dict[str, list[str]]:
    """Return the programs that are here and compute a digest of the files they are given."""
    commands = {
        "sha256sum": ["sha256sum"],
        "openssl dgst": ["openssl", "dgst", "-sha256"],
        "b3sum": ["b3sum", "--num-threads", str(jobs)],
    }
    return {name: command for name, command in commands.items() if shutil.which(command[0])}


def _run_program(mirror: Mirror, command: list[str], jobs: int) -> float:
    """Run ``command`` for each root, ``jobs`` at a time; b3sum, with its threads, for all."""
    began = time.perf_counter()
    at_a_time = ["-P1"] if command[0] == "b3sum" else ["-n1", f"-P{jobs}"]
    subprocess.run(
        ["xargs", "-0", *at_a_time, *command],
        input=b"\0".join(map(bytes, mirror.roots)),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


def versions_of_others() -> dict[str, object]:
    """Return the versions of the other programs that take part."""
    commands = {
        "sha256sum": ("sha256sum", "--version"),
        "openssl": ("openssl", "version"),
        "b3sum": ("b3sum", "--version"),
        "incus-simplestreams": ("incus-simplestreams", "--version"),
    }
    found: dict[str, object] = {}
    for name, command in commands.items():
        if shutil.which(name):
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            words = said.splitlines()[0].split()
            found[name] = next(word for word in words if word[0].isdigit())
    return found


def engine_pairs(names: list[str]) -> list[tuple[str, str]]:
    """Return the contenders that differ in the engine only: (with lanes, with hashlib)."""
    return [
        (name, other)
        for name in names
        if "--engine lanes" in name
        and (other := name.replace("--engine lanes", "--engine hashlib")) in names
    ]

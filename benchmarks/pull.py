"""Pulling from nginx with TLS on 127.0.0.1, beside curl; and pulls that find little to do.

    python benchmarks/pull.py files                             8 × 512 MiB, five rounds
    python benchmarks/pull.py unchanged                         20,000 versions, nothing new
    python benchmarks/pull.py products                          10 products of 100,000
    python benchmarks/pull.py files --files 2 --size 16M --rounds 1            a smoke run
    python benchmarks/pull.py unchanged --versions 100 --rounds 1
    python benchmarks/pull.py products --products 1000 --rounds 1

*files*: all files of a mirror, into an empty directory. *curl* fetches them four at a time and
does nothing else; *curl, synced* then syncs them, as a pull does. A pull computes all digests
of each file on the way (SHA-256, fingerprints, BLAKE3), holds them against the catalogue, and
publishes; it ends when all is on the disk.

*unchanged*: a pull of what is here already, beside a build of it that finds nothing new.

*products*: the first pull of 10 products of one small version each, by --filter, out of a
catalogue with many; time and peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from contenders import add_mirror_options, big_mirror, facts
from make_mirror import TINY_BYTES, make_mirror, make_tiny_mirror
from measure import (
    CANNOT_MEASURE,
    alternate,
    argument_parser,
    fastindex_command,
    pinned_in_memory,
    seconds_and_mib,
    tell,
    wall_seconds,
)
from nightly import Command, build
from web_server import WebServer, serve

_CONNECTIONS = 4
_CHOSEN = 10


def _pull(server: WebServer, root: Path, *options: str) -> Command:
    command: Command = [fastindex_command(), "pull", "-q", "--ca", server.certificate]
    return [*command, *options, server.url, root]


def measure_files(arguments: argparse.Namespace) -> None:
    """Fetch the files of a mirror of big ones."""
    if shutil.which("curl") is None:
        print("curl is not installed: apt-get install curl", file=sys.stderr)
        raise SystemExit(CANNOT_MEASURE)
    count, size = arguments.files, arguments.size
    with (
        big_mirror(arguments.dir, count, size, metadata=arguments.metadata) as source,
        tempfile.TemporaryDirectory(dir=arguments.dir) as made,
    ):
        wall_seconds(build(source.root))
        target = Path(made, "target")
        with (
            serve(source.root, arguments.dir) as server,
            pinned_in_memory(source.roots) as is_pinned,
        ):
            paths = [path.relative_to(source.root) for path in source.root.glob("images/**/*.*")]
            files = [path for path in paths if not path.name.startswith(".")]
            pull = _pull(server, target, "--jobs", str(arguments.jobs), "--keep", str(count))

            def curl() -> None:
                _curl(server, files, target)

            def curl_synced() -> None:
                curl()
                subprocess.run(["sync", *target.rglob("*.*")], check=True)

            def timed(work: Callable[[], object]) -> float:
                shutil.rmtree(target, ignore_errors=True)
                target.mkdir()
                os.sync()  # the disk is to be done with what came before
                began = time.perf_counter()
                work()
                return time.perf_counter() - began

            contenders = {
                "curl --parallel": partial(timed, curl),
                "curl --parallel, synced": partial(timed, curl_synced),
                "fastindex pull --no-blake3": partial(
                    timed, partial(wall_seconds, [*pull, "--no-blake3"])
                ),
                "fastindex pull": partial(timed, partial(wall_seconds, pull)),
            }
            timed(curl)  # a run that does not count: memory comes from the host, the disk grows
            seconds = alternate(contenders, arguments.rounds)
    tell(
        "Pull of big files over TLS on 127.0.0.1",
        seconds,
        "curl --parallel",
        {**facts(arguments), "digests": 1 + arguments.metadata, "pinned": is_pinned},
        arguments.record,
        pairs=[("fastindex pull", "curl --parallel, synced")],
    )


def _curl(server: WebServer, files: list[Path], target: Path) -> None:
    lines = [f'url = "{server.url}/{path}"\noutput = "{target / path}"' for path in files]
    options: Command = ["--silent", "--fail", "--create-dirs", "--cacert", server.certificate]
    parallel: Command = ["--parallel", "--parallel-max", str(_CONNECTIONS), "--config", "-"]
    subprocess.run(
        ["curl", *options, *parallel], input="\n".join(lines).encode(), check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def measure_unchanged(arguments: argparse.Namespace) -> None:
    """Pull what is here already."""
    with tempfile.TemporaryDirectory(dir=arguments.dir) as made:
        upstream, root = Path(made, "upstream"), Path(made, "mirror")
        make_tiny_mirror(upstream, arguments.versions, "squashfs", "disk")
        wall_seconds(build(upstream))
        # What a pull would fetch, without its time; it finds all in place, and notes that.
        shutil.copytree(upstream, root, ignore=shutil.ignore_patterns("streams"))
        with serve(upstream, arguments.dir) as server:
            pull = _pull(server, root, "--keep", str(arguments.versions))
            wall_seconds(pull)
            wall_seconds(pull)
            before = server.count_requests()
            wall_seconds(pull)
            requests = server.count_requests() - before
            contenders = {
                "fastindex, nothing to do": partial(seconds_and_mib, build(root)),
                "fastindex pull, nothing new": partial(seconds_and_mib, pull),
            }
            runs = alternate(contenders, arguments.rounds)
    notes = {"versions": arguments.versions, "requests": requests, "rounds": arguments.rounds}
    seconds = {name: [one for one, _ in of_one] for name, of_one in runs.items()}
    tell("Pull with nothing new", seconds, next(iter(contenders)), notes, arguments.record)


def measure_products(arguments: argparse.Namespace) -> None:
    """Pull a few products out of many."""
    with tempfile.TemporaryDirectory(dir=arguments.dir) as made:
        upstream, root = Path(made, "upstream"), Path(made, "mirror")
        make_mirror(
            upstream,
            versions=_CHOSEN,
            per_product=1,
            size_bytes=TINY_BYTES,
            roots=("squashfs", "disk"),
            metadata=("incus", "lxd"),
            seed=1,
        )
        wall_seconds(build(upstream))
        _add_products(upstream, arguments.products)
        with serve(upstream, arguments.dir) as server:
            command = _pull(server, root, "--filter", "os!~^os")

            def pull() -> tuple[float, float]:
                shutil.rmtree(root, ignore_errors=True)
                root.mkdir()
                return seconds_and_mib(command)

            runs = alternate({"fastindex pull --filter": pull}, arguments.rounds)
    catalogue = {"products": arguments.products, "chosen": _CHOSEN, "rounds": arguments.rounds}
    for place, (title, unit) in enumerate((("Time", "s"), ("Peak memory", "MiB"))):
        figures = {name: [run[place] for run in of_one] for name, of_one in runs.items()}
        record: Path | None = arguments.record
        if record is not None and place:
            record = record.with_stem(f"{record.stem}_memory")
        words = f"{title} of a pull of few products of many"
        tell(words, figures, next(iter(runs)), catalogue, record, unit=unit)


def _add_products(upstream: Path, count: int) -> None:
    """Let a catalogue have ``count`` products; those that are added have no files."""
    index_path, images_path = (upstream / f"streams/v1/{name}.json" for name in ("index", "images"))
    index, images = (json.loads(path.read_bytes()) for path in (index_path, images_path))
    products: dict[str, object] = images["products"]
    key, model = next(iter(images["products"].items()))
    text, place = json.dumps(model), key.replace(":", "/")
    for number in range(count - len(products)):
        name = f"os{number // 40}:r{number % 40}:amd64:default"
        os_name, release, arch, _ = name.split(":")
        names = {"os": os_name, "release": release, "release_title": release, "arch": arch}
        names["aliases"] = f"{os_name}/{release}/default,{os_name}/{release}"
        products[name] = {**json.loads(text.replace(place, name.replace(":", "/"))), **names}
    index["index"]["images"]["products"] = sorted(products)
    images_path.write_text(json.dumps(images), encoding="utf-8")
    index_path.write_text(json.dumps(index), encoding="utf-8")


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("part", choices=("files", "unchanged", "products"))
    add_mirror_options(parser)
    parser.add_argument(
        "--metadata", type=int, choices=(1, 2), default=1, help="distinct files for each root"
    )
    parser.add_argument("--versions", type=int, default=20_000)
    parser.add_argument("--products", type=int, default=100_000)
    arguments = parser.parse_args()
    parts = {
        "files": measure_files,
        "unchanged": measure_unchanged,
        "products": measure_products,
    }
    parts[arguments.part](arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())

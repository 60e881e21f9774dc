"""Random faults of an upstream: no wrong byte is ever published, and 0 means that all is here."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastindex import Mirror
from fastindex.errors import ExitCode
from tests.support.clients.mirror_server import Certificate
from tests.support.command import run_command
from tests.support.contents import make_content
from tests.support.faults.pulls import pull_at_once
from tests.support.faults.upstream_server import Asked, Fault, UpstreamServer, serve_upstream
from tests.support.sizes import sized
from tests.support.trees import Files, sha256, version, write_tree

pull_count = sized("--pulls", short=60, full=1000)

INDEX, PRODUCTS = "streams/v1/index.json", "streams/v1/images.json"
ALPINE, DEBIAN, VOID, GENTOO = (
    "alpine/3.20/arm64/default",
    "debian/12/amd64/default",
    "void/current/amd64/default",
    "gentoo/current/amd64/systemd",
)
GENERATIONS: Sequence[dict[str, Sequence[int]]] = (
    {ALPINE: (1,), DEBIAN: (1, 2), VOID: (1,)},
    {ALPINE: (1, 2), DEBIAN: (2, 3), VOID: (2,)},
    {ALPINE: (2, 3), DEBIAN: (3,), GENTOO: (3,)},
)
"""What an upstream has, one after the other: product → days of its versions."""
LOCATIONS = ("https://localhost:1/", "http://127.0.0.1/", "/x")


@dataclass(frozen=True)
class World:
    """An upstream at several times, and its server."""

    server: UpstreamServer
    generations: list[Path]
    first_mirror: Path
    """A mirror of the first generation."""
    truth: dict[str, str]
    """Path of each file that the upstream ever had → its SHA-256."""


def make_generation(root: Path, products: dict[str, Sequence[int]]) -> Path:
    tree: Files = {}
    for product, days in products.items():
        for day in days:
            path = f"{product}/2024050{day}_05:24"
            body = random.Random(path).randbytes(40_000)
            tree |= version(
                path,
                incus_tar_xz=make_content("incus.tar.xz", path),
                rootfs_squashfs=make_content("rootfs.squashfs", body),
            )
    write_tree(root, tree)
    done = run_command(root, cwd=root)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[World]:
    work = tmp_path_factory.mktemp("world")
    generations = [
        make_generation(work / str(number), products) for number, products in enumerate(GENERATIONS)
    ]
    truth = {
        str(path.relative_to(root)): sha256(path.read_bytes())
        for root in generations
        for path in (root / "images").rglob("[a-z]*")
        if path.is_file()
    }
    with serve_upstream(generations[0], certificate) as server:
        first = work / "first"
        first.mkdir()
        assert pull_at_once(server, first, keep=2, timeout_seconds=20).exit_code == 0
        yield World(server, generations, first, truth)


def find_wrong_bytes(world: World, root: Path) -> list[str]:
    """Return the published files that are not what the upstream once had, byte for byte."""
    if not (root / PRODUCTS).exists():
        return []
    wrong = []
    for product in json.loads((root / PRODUCTS).read_bytes())["products"].values():
        for one in product["versions"].values():
            assert {"incus.tar.xz", "squashfs"} <= {item["ftype"] for item in one["items"].values()}
            for item in one["items"].values():
                path = root / item["path"]
                digests = {sha256(path.read_bytes()), item["sha256"], world.truth[item["path"]]}
                if len(digests) > 1:
                    wrong.append(item["path"])
    return wrong


def make_fault(chance: random.Random, path: str, world: World) -> Fault:
    """Return anything that may go wrong with the answer to a request."""
    place = chance.choice([0, 1, 100, chance.randrange(50_000)])
    is_catalogue = path.startswith("streams/")
    html = b"<html><body>Please log in.</body></html>"
    kinds = [
        Fault(cut=place),
        Fault(cut=place, is_whole=True),
        Fault(status=429, headers={"Retry-After": "0"}),
        Fault(status=503),
        Fault(status=500),
        Fault(status=404),
        Fault(is_whole=True),
        Fault(flipped=place),
        Fault(flipped=place, is_whole=True),
        Fault(longer=chance.choice([-1, 1, 10_000])),
        Fault(status=302, headers={"Location": chance.choice(LOCATIONS)}),
        Fault(content=b""),
        Fault(content=html),
        Fault(content=bytes(chance.randrange(1, 50_000))),
    ]
    if chance.random() < 0.1:
        return Fault(stall=place)
    if not is_catalogue:
        return chance.choice([*kinds, Fault(is_endless=True), Fault(content=bytes(40_096))])
    other = (chance.choice(world.generations) / path).read_bytes()
    torn = other[: chance.randrange(len(other))]
    return chance.choice([*kinds, Fault(content=other), Fault(content=torn)])


def pull_with_faults(world: World, root: Path, chance: random.Random) -> ExitCode:
    """Pull once while much goes wrong, and see that nothing wrong is published."""
    share = chance.choice([0.02, 0.1, 0.3, 0.6])
    newer = chance.randrange(world.generations.index(world.server.root), 3)
    swap_at = chance.choice([1000, chance.randrange(25)])
    wrong: list[str] = []

    def choose(asked: Asked) -> Fault | None:
        wrong.extend(find_wrong_bytes(world, root))
        if len(world.server.requests) > swap_at:
            world.server.root = world.generations[newer]
        return make_fault(chance, asked.path, world) if chance.random() < share else None

    before = read_catalogue(root)
    world.server.behave()
    world.server.choose = choose
    pulled = pull_at_once(
        world.server,
        root,
        keep=2,
        mirrors=[world.server.url] if chance.random() < 0.3 else [],
        timeout_seconds=0.2,
        connections=chance.choice([1, 2, 4]),
    )
    world.server.behave()
    assert pulled.exit_code in {ExitCode.DONE, ExitCode.FAILED, ExitCode.LEFT_OUT}
    assert (wrong or find_wrong_bytes(world, root)) == []
    assert pulled.told.replace("\n", "").isprintable()
    if pulled.exit_code == ExitCode.FAILED:
        assert read_catalogue(root) == before, pulled.told
    if pulled.exit_code == ExitCode.DONE:
        # An older index may have been served: then what only that has stays.
        here = read_products(root).items()
        assert any(read_products(one).items() <= here for one in world.generations)
    assert pulled.exit_code == ExitCode.DONE or pulled.told
    return pulled.exit_code


def read_catalogue(root: Path) -> bytes:
    path = root / PRODUCTS
    return path.read_bytes() if path.exists() else b""


def read_products(root: Path) -> dict[str, str]:
    """Return what is published: product → all of it, as JSON."""
    products = json.loads(read_catalogue(root))["products"]
    return {key: json.dumps(product, sort_keys=True) for key, product in products.items()}


def pull_and_recover(world: World, work: Path, seed: int) -> list[ExitCode]:
    """Pull once or twice with random faults, and then without any; return the exit codes."""
    chance = random.Random(seed)
    root = work / "mirror"
    world.server.behave()
    world.server.root = world.generations[0]
    if chance.random() < 0.5:
        shutil.copytree(world.first_mirror, root)
        world.server.root = world.generations[1]
    else:
        root.mkdir()
    codes = [pull_with_faults(world, root, chance) for _ in range(chance.choice([1, 1, 2]))]
    last = pull_at_once(world.server, root, keep=2, force=True, timeout_seconds=20)
    assert last.exit_code == ExitCode.DONE, last.told
    assert read_catalogue(root) == read_catalogue(world.server.root)
    assert find_wrong_bytes(world, root) == []
    report = Mirror(root).verify(method="sha256")
    assert not report.mismatches
    assert os.listdir(work) == ["mirror"]
    shutil.rmtree(work)
    return codes


def test_no_wrong_byte_is_published_whatever_the_upstream_does(
    world: World, tmp_path: Path, pull_count: int
) -> None:
    counts: Counter[ExitCode] = Counter()
    for seed in range(pull_count):
        work = tmp_path / str(seed)
        work.mkdir()
        try:
            counts.update(pull_and_recover(world, work, seed))
        except BaseException as error:
            error.add_note(f"seed {seed}; {len(world.server.requests)} requests")
            raise
    print(f"{pull_count} pulls, and how they ended with faults: {counts}")
    assert set(counts) == {ExitCode.DONE, ExitCode.FAILED, ExitCode.LEFT_OUT}

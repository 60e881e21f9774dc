"""Scenarios that make the command tell each kind of finding, and what it told then."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct

from fastindex.errors import Code
from tests.support.builders import METADATA, PRODUCT, VERSION, Workshop
from tests.support.clients.mirror_server import Certificate, serve
from tests.support.command import NOBODY, Run, load_all_modules, run_as_nobody
from tests.support.contents import make_content, make_squashfs
from tests.support.deltas import disturb, series
from tests.support.trees import (
    OLD_NS,
    Files,
    forget_state,
    in_stream,
    version,
    write_file,
    write_tree,
)
from tests.support.upstreams import HEX

INDEX, IMAGES, DAILY = (f"streams/v1/{name}.json" for name in ("index", "images", "daily"))
DEBIAN, OLD, NEW = "debian/12/amd64/default", "20240505_05:24", "20240506_05:24"
ALPINE = f"images/alpine/3.20/arm64/default/{OLD}"
PATH = f"images/{DEBIAN}/{OLD}"
METADATA_NAME, ROOT_NAME = "incus.tar.xz", "rootfs.squashfs"
IMPORTED = f"{PRODUCT}/{VERSION}"

WITH_METRICS = ("build", "pull", "prune", "remove", "deltas", "import")
"""The commands that write metrics."""
WITH_MISMATCHES = ("verify", "check")


class Case(Struct, frozen=True):
    """What a scenario has set up."""

    path: str
    """What must be named."""
    words: tuple[object, ...] = ()
    """What the command line says besides."""
    settings: str | None = None
    """Of the web server that the mirror is checked through; None: it is checked as files."""
    is_weak: bool = False
    """Whether a user runs the command whom file modes bind."""


@dataclass(frozen=True)
class Place:
    """Where a scenario takes place: an empty mirror in an empty directory, and what it needs."""

    work: Path
    root: Path
    fastindex: Run
    find_workshop: Callable[[], Workshop]
    find_certificate: Callable[[], Certificate]
    find_memory: Callable[[], Path]
    set_variable: Callable[[str, str], None]
    """Sets a variable of the environment, until the test ends."""

    def build(self, *options: object, tree: Files | None = None) -> None:
        """Build the mirror, however that ends; ``tree`` is written before."""
        write_tree(self.root, tree or {})
        done = self.fastindex(*options, self.root)
        assert done.returncode in (0, 3), done.stderr

    def edit(self, change: Callable[[dict[str, Any]], object], path: str = IMAGES) -> None:
        """Change the product of Debian in a published catalogue."""
        document = json.loads((self.root / path).read_bytes())
        change(document["products"]["debian:12:amd64:default"])
        (self.root / path).write_text(json.dumps(document))

    def disturb_xdelta3(self, line: str) -> None:
        """Make xdelta3 do what a line of a shell script says."""
        self.set_variable("PATH", f"{disturb(self.work, line)}:{os.environ['PATH']}")

    def rot(self, path: str = f"{PATH}/{ROOT_NAME}") -> str:
        """Change the last byte of a file, but not its stamp; return its path."""
        file = self.root / path
        before = file.stat().st_mtime_ns
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        os.utime(file, ns=(before, before))
        return path

    def make_sources(self, text: str = METADATA) -> tuple[Path, Path]:
        """Make what builders leave: an image that can be imported, and another, which may not."""
        workshop = self.find_workshop()
        good = METADATA.replace("os: debian", "os: alpine")
        return (
            workshop.split(self.work / "good", good),
            workshop.split(self.work / "source", text),
        )

    def make_upstream(self, *trees: Files) -> Path:
        """Make an upstream, which publishes these."""
        upstream = self.work / "upstream"
        upstream.mkdir(exist_ok=True)
        for tree in trees:
            write_tree(upstream, tree)
        assert self.fastindex("--force", upstream).returncode == 0
        return upstream


Scenario = Callable[[Place], Case]
SCENARIOS: dict[tuple[Code, str], Scenario] = {}
"""A kind of finding, and the command that tells it → what makes it do so."""


def tells(code: Code, *commands: str) -> Callable[[Scenario], Scenario]:
    """Say that a scenario makes each of ``commands`` tell ``code``."""

    def add(scenario: Scenario) -> Scenario:
        for command in commands:
            assert (code, command) not in SCENARIOS
            SCENARIOS[code, command] = scenario
        return scenario

    return add


class Told(Struct, frozen=True):
    """What a command told."""

    exit_code: int
    report: dict[str, Any]
    """As ``--json`` gives it."""
    stdout: str
    """What is printed without ``--json``; empty unless mismatches are printed there."""
    stderr: str
    metrics: str
    """What ``--metrics`` wrote; empty if the command writes none."""

    def list_all(self) -> list[dict[str, Any]]:
        """Return all findings, and the mismatches of verify and check."""
        section = self.report.get(self.report["command"], {})
        return [*self.report["findings"], *section.get("mismatches", [])]


def run(place: Place, command: str, case: Case) -> Told:
    """Run a command where a scenario has set something up."""
    if command in WITH_MISMATCHES and not (place.root / INDEX).exists():
        place.build()
    if command != "check":
        return _run(place, command, case, place.root)
    if case.settings is None:
        return _run(place, command, case, f"file://{place.root}")
    server = place.work / "nginx"
    server.mkdir()
    certificate = place.find_certificate()
    with serve(place.root, server, certificate, case.settings) as mirror:
        return _run(place, command, case, "--ca", certificate.path, mirror.url)


def _run(place: Place, command: str, case: Case, *where: object) -> Told:
    name = [] if command == "build" else [command]
    metrics, report = place.work / "metrics", place.work / "report"
    last = [] if command == "bench" else where
    words = [*name, "--report", report, *case.words]
    if command in WITH_METRICS:
        words += ["--metrics", metrics]
    is_status = command == "status"  # it tells what others recorded, and on one screen
    words += ["-q"] if is_status else []
    if case.is_weak:
        code, stderr = _run_weakly(place, *words)
    else:
        done = place.fastindex(*words, "--json", *last, is_forgetful=not is_status)
        code, stderr = done.returncode, done.stderr
        assert json.loads(done.stdout) == json.loads(report.read_bytes())
    printed = ""
    if command in WITH_MISMATCHES:
        printed = place.fastindex(*name, *case.words, *last).stdout
    return Told(
        code,
        json.loads(report.read_bytes()),
        printed,
        stderr,
        metrics.read_text() if command in WITH_METRICS else "",
    )


def _run_weakly(place: Place, *words: object) -> tuple[int, str]:
    """Build as a user whom file modes bind, and to whom all in the place belongs."""
    load_all_modules()
    if os.geteuid() == 0:
        for path in (place.work, *place.work.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        for parent in place.work.parents[:3]:  # as pytest makes them
            parent.chmod(parent.stat().st_mode | 0o005)
    return run_as_nobody(place.root, *map(str, words))


# What a build leaves out


@tells(Code.BAD_NAME, "build")
def name_a_version_without_a_date(place: Place) -> Case:
    write_tree(place.root, version() | version(f"{DEBIAN}/latest"))
    return Case(f"images/{DEBIAN}/latest")


@tells(Code.UNKNOWN_ARCHITECTURE, "build")
def misspell_an_architecture(place: Place) -> Case:
    write_tree(place.root, version() | version(f"debian/12/amd46/default/{OLD}"))
    return Case("images/debian/12/amd46/default")


@tells(Code.INCOMPLETE_VERSION, "build")
def forget_the_root(place: Place) -> Case:
    write_tree(place.root, version() | version(f"{DEBIAN}/{NEW}", incus_tar_xz=b"alone"))
    return Case(f"images/{DEBIAN}/{NEW}")


def put_beside(place: Place, name: str, content: bytes | str | None) -> Case:
    """Put a file into a version that is an image without it."""
    write_tree(place.root, {**version(), f"{PATH}/{name}": content})
    return Case(f"{PATH}/{name}")


@tells(Code.SECOND_FILE, "build")
def put_two_roots(place: Place) -> Case:
    return put_beside(place, "root.squashfs", b"another")


@tells(Code.EMPTY_FILE, "build")
def put_an_empty_file(place: Place) -> Case:
    return put_beside(place, "disk.qcow2", b"")


@tells(Code.NOT_A_FILE, "build")
def put_a_directory(place: Place) -> Case:
    return put_beside(place, "disk.qcow2", None)


@tells(Code.LINK_LEADS_OUT, "build")
def put_a_link(place: Place) -> Case:
    (place.work / "disk.qcow2").write_bytes(make_content("disk.qcow2", "x"))
    return put_beside(place, "disk.qcow2", f"{place.work}/disk.qcow2")


@tells(Code.WRONG_CONTENT, "build")
def put_a_page(place: Place) -> Case:
    case = put_beside(place, "disk.qcow2", b"x")
    (place.root / case.path).write_bytes(b"<!DOCTYPE html><p>404 Not Found")
    return case


@tells(Code.TRUNCATED, "build")
def put_half_a_file(place: Place) -> Case:
    write_tree(place.root, version() | version(ALPINE.removeprefix("images/")))
    path = f"{ALPINE}/{ROOT_NAME}"
    (place.root / path).write_bytes(make_squashfs(b"half of it", 10_000))
    return Case(path)


@tells(Code.SPARSE_FILE, "build")
def put_holes(place: Place) -> Case:
    case = put_beside(place, "disk.qcow2", b"x")
    os.truncate(place.root / case.path, 1 << 40)
    return case


@tells(Code.NOT_A_DIRECTORY, "build")
def put_a_file_for_a_version(place: Place) -> Case:
    write_tree(place.root, {**version(), f"images/{DEBIAN}/{NEW}": b"x"})
    return Case(f"images/{DEBIAN}/{NEW}")


@tells(Code.MISPLACED_FILE, "build")
def put_files_too_high(place: Place) -> Case:
    write_tree(place.root, {**version(), "images/debian/incus.tar.xz": b"x"})
    return Case("images/debian")


@tells(Code.FOREIGN_TREE, "build")
def put_what_another_tool_made(place: Place) -> Case:
    write_tree(place.root, {**version(), f"images/{HEX}.incus.tar.xz": b"x"})
    return Case("images")


@tells(Code.UNREADABLE, "build")
def lock_a_directory(place: Place) -> Case:
    write_tree(place.root, version() | version(ALPINE.removeprefix("images/")))
    (place.root / "images/alpine").chmod(0)
    return Case("images/alpine", is_weak=True)


@tells(Code.NOT_PERMITTED, "build")
def lock_a_file(place: Place) -> Case:
    write_tree(place.root, version() | version(ALPINE.removeprefix("images/")))
    (place.root / ALPINE / ROOT_NAME).chmod(0)
    return Case(f"{ALPINE}/{ROOT_NAME}", is_weak=True)


@tells(Code.CHECKSUM_MISMATCH, "build")
def name_another_digest(place: Place) -> Case:
    sums = f"{'0' * 64}  {ROOT_NAME}\n".encode()
    tree = version() | version(ALPINE.removeprefix("images/"))
    write_tree(place.root, {**tree, f"{ALPINE}/SHA256SUMS": sums})
    return Case(f"{ALPINE}/{ROOT_NAME}")


@tells(Code.DUPLICATE_IMAGE, "build")
def copy_an_image(place: Place) -> Case:
    write_tree(place.root, version())
    shutil.copytree(place.root / f"images/{DEBIAN}/{OLD}", place.root / f"images/{DEBIAN}/{NEW}")
    return Case(f"{PATH}/{ROOT_NAME}")


@tells(Code.DAMAGED, "build")
def let_a_disk_rot(place: Place) -> Case:
    place.build(tree=version() | version(f"{DEBIAN}/{NEW}"))
    return Case(place.rot(), ("--recheck", "1/1"))


@tells(Code.STILL_CHANGING, "build")
def replace_a_published_root(place: Place) -> Case:
    place.build(tree=version() | version(f"{DEBIAN}/{NEW}"))
    write_file(place.root / PATH / ROOT_NAME, b"another", time.time_ns() - 60 * 10**9)
    return Case(PATH, ("--settle", "1h"))


@tells(Code.TOO_MUCH_WORK, "build")
def link_one_root_very_often(place: Place) -> Case:
    tree: Files = version()
    for number in range(257):
        tree |= version(f"void/1/amd64/default/20240101_{number:04}", incus_tar_xz=b"%d" % number)
    write_tree(place.root, tree)
    first = place.root / PATH / ROOT_NAME
    for directory in (place.root / "images/void/1/amd64/default").iterdir():
        os.link(first, directory / ROOT_NAME)
    return Case("images/void/1/amd64/default/20240101_0256")


@tells(Code.STREAM_REFUSED, "build")
def forget_to_mount_a_stream(place: Place) -> Case:
    write_tree(place.root, version())
    return Case("daily", ("--stream", "images", "--stream", "daily"))


@tells(Code.BAD_CATALOGUE, "build")
def unmount_a_published_stream(place: Place) -> Case:
    tree = version() | in_stream("daily", version("void/1/amd64/default/20240505"))
    place.build("--stream", "images", "--stream", "daily", tree=tree)
    shutil.rmtree(place.root / "daily")
    return Case(DAILY)


@tells(Code.VERSION_WITHDRAWN, "build")
def upload_again_what_is_withdrawn(place: Place) -> Case:
    place.build(tree=version() | version(f"{DEBIAN}/{NEW}"))
    assert place.fastindex("prune", "--keep", 1, place.root).returncode == 0
    write_file(place.root / PATH / ROOT_NAME, b"another", time.time_ns() + 10**9)
    return Case(PATH)


@tells(Code.BAD_RECORD, "build")
def tear_a_record(place: Place) -> Case:
    write_tree(place.root, version())
    (place.root / ".outputs.json").write_bytes(b"{")
    return Case(f"{place.root}/.outputs.json")


# What surprises people


@tells(Code.ALIAS_SHARED, "build", "verify", "check")
def share_an_alias(place: Place) -> Case:
    write_tree(place.root, version() | version(ALPINE.removeprefix("images/")))
    ubuntu = f"images/ubuntu/noble/amd64/default/{OLD}"
    write_tree(place.root, version(ubuntu.removeprefix("images/")))
    for product in ("debian/12", "ubuntu/noble"):
        (place.root / f"images/{product}/.product.toml").write_text('aliases = ["stable"]\n')
    return Case("images/ubuntu/noble/amd64/default")


@tells(Code.NO_ALIAS, "build", "verify", "check")
def take_all_aliases_away(place: Place) -> Case:
    write_tree(place.root, version())
    (place.root / "images/debian/.product.toml").write_text("replace_aliases = true\n")
    return Case(f"images/{DEBIAN}")


@tells(Code.MIXED_VERSION_NAMES, "build", "verify", "check")
def mix_styles_of_names(place: Place) -> Case:
    write_tree(place.root, version() | version(f"{DEBIAN}/20240506"))
    return Case(f"images/{DEBIAN}")


@tells(Code.DATE_IN_FUTURE, "build", "verify", "check")
def date_a_version_in_the_future(place: Place) -> Case:
    write_tree(place.root, version(f"{DEBIAN}/99991231_00:00"))
    return Case(f"images/{DEBIAN}/99991231_00:00")


@tells(Code.MACHINE_AS_CONTAINER, "build", "verify", "check")
def publish_a_unified_machine(place: Place) -> Case:
    path = f"{PATH}/incus_combined.tar.gz"
    place.find_workshop().unified(place.root / path, vm=True)
    return Case(path)


@tells(Code.AMBIGUOUS_IMAGE, "build", "verify", "check")
def publish_a_unified_container_beside_a_squashfs(place: Place) -> Case:
    write_tree(place.root, version())
    place.find_workshop().unified(place.root / PATH / "incus_combined.tar.gz")
    return Case(PATH)


@tells(Code.ALIAS_TAKEN, "build")
def claim_a_foreign_alias(place: Place) -> Case:
    write_tree(place.root, version() | version(f"ubuntu/noble/amd64/default/{OLD}"))
    (place.root / "images/ubuntu/.product.toml").write_text('aliases = ["debian/12"]\n')
    return Case("images/ubuntu/noble/amd64/default")


@tells(Code.LIMIT_EXCEEDED, "build")
def claim_very_many_aliases(place: Place) -> Case:
    write_tree(place.root, version())
    names = json.dumps([f"{number:0100}" for number in range(50)])
    (place.root / "images/debian/.product.toml").write_text(f"aliases = {names}\n")
    return Case(f"images/{DEBIAN}")


@tells(Code.BAD_SETTINGS, "build")
def write_settings_that_are_none(place: Place) -> Case:
    write_tree(place.root, version())
    (place.root / "images/debian/.product.toml").write_text("aliases = [\n")
    return Case("images/debian/.product.toml")


@tells(Code.BAD_CHECKSUMS, "build")
def write_checksums_of_nothing(place: Place) -> Case:
    write_tree(place.root, {**version(), f"{PATH}/SHA256SUMS": b"hello\n"})
    return Case(f"{PATH}/SHA256SUMS")


@tells(Code.CACHE_NOT_WRITTEN, "build")
def put_a_file_for_the_caches(place: Place) -> Case:
    write_tree(place.root, version())
    (place.work / "caches").touch()
    return Case(f"{place.work}/caches/{PATH}/.items.json", ("--cache-dir", place.work / "caches"))


@tells(Code.NOT_SERVABLE, "build")
def keep_a_file_to_oneself(place: Place) -> Case:
    write_tree(place.root, version())
    (place.root / PATH / ROOT_NAME).chmod(0o600)
    return Case(f"{PATH}/{ROOT_NAME}")


@tells(Code.TIME_IN_FUTURE, "build")
def have_a_wrong_clock(place: Place) -> Case:
    write_tree(place.root, version(), time.time_ns() + 86_400 * 10**9)
    return Case(f"{PATH}/{ROOT_NAME}")


@tells(Code.DIRECTORY_VANISHED, "build")
def unmount_an_architecture(place: Place) -> Case:
    tree = version() | version(f"{DEBIAN}/{NEW}") | version(ALPINE.removeprefix("images/"))
    place.build(tree=tree)
    shutil.rmtree(place.root / "images/alpine")
    return Case("images/alpine")


@tells(Code.INDEX_REBUILT, "build")
def lose_the_index(place: Place) -> Case:
    place.build(tree=version())
    (place.root / INDEX).unlink()
    return Case(INDEX)


@tells(Code.STALE_COPY, "build")
def leave_an_old_copy(place: Place) -> Case:
    place.build(tree=version())
    write_file(place.root / "streams/v1/images.json.gz", b"old")
    return Case("streams/v1/images.json.gz")


@tells(Code.COMPANIONS_REMOVED, "build")
def ask_for_less(place: Place) -> Case:
    place.build("--gzip", tree=version())
    return Case("streams/v1/images.json.gz")


@tells(Code.PRODUCT_LOST, "build")
def lose_a_product_of_another_stream(place: Place) -> Case:
    tree = version() | in_stream("daily", version())
    write_tree(place.root, tree)
    write_file(place.root / PATH.replace("images", "daily") / ROOT_NAME, b"another")
    place.build("--stream", "images", "--stream", "daily")
    document = json.loads((place.root / DAILY).read_bytes())
    document["products"].clear()
    (place.root / DAILY).write_text(json.dumps(document))
    forget_state(place.root)
    return Case(DAILY)


@tells(Code.OTHER_OUTPUT, "build")
def forget_the_output(place: Place) -> Case:
    place.build("--output", place.work / "www", tree=version())
    return Case(str(place.root))


# What verify and check call damage


@tells(Code.MISSING_FILE, "verify")
def lose_a_file(place: Place) -> Case:
    place.build(tree=version())
    (place.root / PATH / ROOT_NAME).unlink()
    return Case(f"{PATH}/{ROOT_NAME}")


@tells(Code.MISSING_FILE, "check")
def lose_a_file_of_a_server(place: Place) -> Case:
    case = lose_a_file(place)
    return Case(case.path, settings="")


@tells(Code.CHECKSUM_MISMATCH, "verify", "check")
def cut_a_file(place: Place) -> Case:
    place.build(tree=version())
    path = place.root / PATH / ROOT_NAME
    path.write_bytes(path.read_bytes()[:-1])
    return Case(f"{PATH}/{ROOT_NAME}")


@tells(Code.DAMAGED, "verify")
def let_the_disk_of_a_published_file_rot(place: Place) -> Case:
    place.build(tree=version())
    return Case(place.rot())


@tells(Code.NOT_A_FILE, "verify")
def replace_a_file_by_a_directory(place: Place) -> Case:
    place.build(tree=version())
    (place.root / PATH / ROOT_NAME).unlink()
    (place.root / PATH / ROOT_NAME).mkdir()
    return Case(f"{PATH}/{ROOT_NAME}")


@tells(Code.LINK_LEADS_OUT, "verify")
def replace_a_file_by_a_link(place: Place) -> Case:
    place.build(tree=version())
    path = place.root / PATH / ROOT_NAME
    path.symlink_to(path.rename(place.work / ROOT_NAME))
    return Case(f"{PATH}/{ROOT_NAME}")


@tells(Code.UNREADABLE, "verify")
def link_a_file_to_itself(place: Place) -> Case:
    place.build(tree=version())
    path = place.root / PATH / ROOT_NAME
    path.unlink()
    path.symlink_to(ROOT_NAME)
    return Case(f"{PATH}/{ROOT_NAME}")


@tells(Code.UNREADABLE, "check")
def forbid_a_file(place: Place) -> Case:
    place.build(tree=version())
    path = f"{PATH}/{ROOT_NAME}"
    return Case(path, settings=f'location = "/{path}" {{ return 403; }}')


@tells(Code.BAD_CATALOGUE, "verify", "check")
def tear_a_product_file(place: Place) -> Case:
    place.build(tree=version())
    path = place.root / IMAGES
    path.write_bytes(path.read_bytes()[:-20])
    return Case(IMAGES)


@tells(Code.BAD_NAME, "verify", "check")
def publish_a_version_without_a_date(place: Place) -> Case:
    place.build(tree=version())
    place.edit(lambda product: product.update(versions={"latest": product["versions"][OLD]}))
    return Case(f"images/{DEBIAN}/latest")


@tells(Code.INCOMPLETE_VERSION, "verify", "check")
def publish_a_root_alone(place: Place) -> Case:
    place.build(tree=version())

    def change(product: dict[str, Any]) -> None:
        items = product["versions"][OLD]["items"]
        product["versions"][OLD]["items"] = {ROOT_NAME: items[ROOT_NAME]}

    place.edit(change)
    return Case(PATH)


@tells(Code.UNKNOWN_ARCHITECTURE, "verify", "check")
def publish_a_misspelt_architecture(place: Place) -> Case:
    place.build(tree=version())
    place.edit(lambda product: product.update(arch="amd46"))
    return Case(f"images/{DEBIAN}")


@tells(Code.DUPLICATE_IMAGE, "verify", "check")
def publish_an_image_twice(place: Place) -> Case:
    place.build(tree=version() | version(f"{DEBIAN}/{NEW}"))
    for name in (METADATA_NAME, ROOT_NAME):
        content = (place.root / PATH / name).read_bytes()
        write_file(place.root / f"images/{DEBIAN}/{NEW}" / name, content)

    def change(product: dict[str, Any]) -> None:
        old, new = (product["versions"][name]["items"] for name in (OLD, NEW))
        for name, item in old.items():
            new[name] = {**item, "path": item["path"].replace(OLD, NEW)}

    place.edit(change)
    return Case(f"{PATH}/{ROOT_NAME}")


@tells(Code.PRODUCT_LOST, "verify", "check")
def lose_a_product(place: Place) -> Case:
    place.build(tree=version() | version(ALPINE.removeprefix("images/")))
    document = json.loads((place.root / IMAGES).read_bytes())
    del document["products"]["alpine:3.20:arm64:default"]
    (place.root / IMAGES).write_text(json.dumps(document))
    return Case(IMAGES)


@tells(Code.INSECURE, "check")
def redirect_to_plain_http(place: Place) -> Case:
    place.build(tree=version())
    path = f"{PATH}/{ROOT_NAME}"
    settings = f'location = "/{path}" {{ return 302 http://localhost:1/; }}'
    return Case(path, settings=settings)


@tells(Code.INDEX_OUTDATED, "verify", "check")
def leave_the_index_behind(place: Place) -> Case:
    place.build(tree=version())
    before = (place.root / INDEX).read_bytes()
    place.build(tree=version(ALPINE.removeprefix("images/")))
    (place.root / INDEX).write_bytes(before)
    return Case(IMAGES)


# What check has to say of a server, and of other mirrors


def serve_badly(place: Place, settings: str, path: str = f"{PATH}/{ROOT_NAME}") -> Case:
    """Serve a file in some way; return that it must be named."""
    place.build(tree=version())
    return Case(path, settings=f'location = "/{path}" {{ {settings} }}')


@tells(Code.CACHED_TOO_LONG, "check")
def cache_for_a_day(place: Place) -> Case:
    return serve_badly(place, 'add_header Cache-Control "max-age=86400";', INDEX)


@tells(Code.NOT_RESUMABLE, "check")
def serve_no_ranges(place: Place) -> Case:
    return serve_badly(place, "max_ranges 0;")


@tells(Code.COMPRESSED_FILE, "check")
def compress_an_image(place: Place) -> Case:
    return serve_badly(place, "gzip on; gzip_min_length 1; gzip_types *;")


@tells(Code.SIZE_UNKNOWN, "check")
def serve_what_may_change_on_the_way(place: Place) -> Case:
    return serve_badly(place, "ssi on; ssi_types *;")


@tells(Code.PLAIN_HTTP, "check")
def answer_plain_http(place: Place) -> Case:
    place.build(tree=version())
    return Case(INDEX, settings="error_page 497 =200 /streams/v1/index.json;")


@tells(Code.CERTIFICATE_EXPIRES, "check")
def let_a_certificate_run_out(place: Place) -> Case:
    place.build(tree=version())
    return Case("https://localhost:…", ("--expiry", "60d"), "")


@tells(Code.PRODUCT_OLD, "check")
def let_a_product_grow_old(place: Place) -> Case:
    place.build(tree=version())
    return Case(f"images/{DEBIAN}", ("--max-age", "10d"))


@tells(Code.MIRROR_BEHIND, "check")
def fall_behind(place: Place) -> Case:
    place.build(tree=version())
    upstream = place.make_upstream(version(), version(f"{DEBIAN}/{NEW}"))
    return Case(f"images/{DEBIAN}", ("--upstream", f"file://{upstream}"))


@tells(Code.UPSTREAM_FAILED, "check")
def name_an_upstream_that_is_none(place: Place) -> Case:
    place.build(tree=version())
    url = f"file://{place.work}/nowhere"
    return Case(url, ("--upstream", url))


@tells(Code.UNUSED_FILTER, "check")
def misspell_a_filter(place: Place) -> Case:
    place.build(tree=version())
    return Case("filter os=debain", ("--filter", "os=debain"))


# What deltas tells

DELTAS = series(DEBIAN, [OLD, NEW])


@tells(Code.CHECKSUM_MISMATCH, "deltas")
def start_from_what_has_rotted(place: Place) -> Case:
    place.build(tree=DELTAS)
    return Case(place.rot())


@tells(Code.DELTA_FAILED, "deltas")
def make_a_delta_in_vain(place: Place) -> Case:
    place.build(tree=DELTAS)
    place.disturb_xdelta3("echo 'out of memory' >&2; exit 1")
    return Case(f"images/{DEBIAN}/{NEW}/delta-{OLD}.vcdiff")


@tells(Code.MACHINE_DELTAS, "deltas")
def ask_for_deltas_of_disks(place: Place) -> Case:
    place.build(tree=DELTAS)
    return Case("disk.qcow2", ("--vm",))


@tells(Code.NOT_WRITTEN, "deltas")
def make_a_delta_where_something_is(place: Place) -> Case:
    place.build(tree=DELTAS)
    write_tree(place.root, {f"images/{DEBIAN}/.{NEW}.delta/mine": b"mine"})
    return Case(f"images/{DEBIAN}/{NEW}")


# What a pull tells


def pull(upstream: Path, path: str, *options: object) -> Case:
    """Return that ``path`` must be named by a pull from ``upstream``."""
    return Case(path, (*options, f"file://{upstream}"))


@tells(Code.UNUSED_FILTER, "pull")
def misspell_a_filter_of_a_pull(place: Place) -> Case:
    options = ("--filter", "os=debian", "--filter", "os=debain")
    return pull(place.make_upstream(version()), "filter os=debain", *options)


@tells(Code.UPSTREAM_BEHIND, "pull")
def pull_from_an_upstream_that_sleeps(place: Place) -> Case:
    upstream = place.make_upstream(version())
    return pull(upstream, f"file://{upstream}", "--lag", "1d")


@tells(Code.UPSTREAM_MOVED, "pull")
def pull_what_came_from_elsewhere(place: Place) -> Case:
    upstream = place.make_upstream(version())
    done = place.fastindex("pull", f"file://{upstream}", place.root)
    assert done.returncode == 0, done.stderr
    moved = upstream.rename(upstream.with_name("moved"))
    return pull(moved, f"file://{moved}")


@tells(Code.UPSTREAM_FAILED, "pull")
def pull_what_is_not_there(place: Place) -> Case:
    upstream = place.make_upstream(version(), version(ALPINE.removeprefix("images/")))
    (upstream / ALPINE / ROOT_NAME).unlink()
    return pull(upstream, ALPINE)


@tells(Code.CHECKSUM_MISMATCH, "pull")
def pull_other_bytes(place: Place) -> Case:
    upstream = place.make_upstream(version(), version(ALPINE.removeprefix("images/")))
    place.rot(f"{upstream}/{ALPINE}/{ROOT_NAME}")
    return pull(upstream, ALPINE)


@tells(Code.NOT_WRITTEN, "pull")
def pull_over_a_file(place: Place) -> Case:
    upstream = place.make_upstream(version(), version(ALPINE.removeprefix("images/")))
    write_tree(place.root, {"images/alpine/3.20/arm64": b"x"})
    return pull(upstream, ALPINE)


@tells(Code.BAD_SETTINGS, "pull")
def pull_what_cannot_be_said(place: Place) -> Case:
    upstream = place.make_upstream(version())
    document = json.loads((upstream / IMAGES).read_bytes())
    (product,) = document["products"].values()
    product["release_title"] = "a\x1b[2J"
    (upstream / IMAGES).write_text(json.dumps(document))
    return pull(upstream, f"images/{DEBIAN}")


@tells(Code.DAMAGED, "pull")
def pull_what_another_version_has_damaged(place: Place) -> Case:
    upstream = place.make_upstream(version())
    done = place.fastindex("pull", f"file://{upstream}", place.root)
    assert done.returncode == 0, done.stderr
    root = (place.root / PATH / ROOT_NAME).read_bytes()
    damaged = place.rot()
    metadata = make_content(METADATA_NAME, "another")
    newer = version(f"{DEBIAN}/{NEW}", incus_tar_xz=metadata, rootfs_squashfs=root)
    return pull(place.make_upstream(newer), damaged, "--keep", 2)


@tells(Code.CACHE_NOT_WRITTEN, "pull")
def pull_without_a_place_for_caches(place: Place) -> Case:
    (place.work / "caches").touch()
    return pull(place.make_upstream(version()), PATH, "--cache-dir", place.work / "caches")


# What an import tells


@tells(Code.BAD_SOURCE, "import")
def import_what_is_not_there(place: Place) -> Case:
    good, _ = place.make_sources()
    return Case(f"{place.work}/nowhere", (good, place.work / "nowhere"))


@tells(Code.BAD_METADATA, "import")
def import_metadata_without_a_name(place: Place) -> Case:
    good, source = place.make_sources(METADATA.replace("  os: debian\n", ""))
    return Case(f"{source}/{METADATA_NAME}", (good, source))


@tells(Code.INCOMPLETE_VERSION, "import")
def import_metadata_alone(place: Place) -> Case:
    good, source = place.make_sources()
    (source / ROOT_NAME).unlink()
    return Case(str(source), (good, source))


@tells(Code.TRUNCATED, "import")
def import_half_a_root(place: Place) -> Case:
    good, source = place.make_sources()
    os.truncate(source / ROOT_NAME, 5000)
    return Case(f"{source}/{ROOT_NAME}", (good, source))


@tells(Code.WRONG_CONTENT, "import")
def import_a_page(place: Place) -> Case:
    good, source = place.make_sources()
    (source / ROOT_NAME).write_bytes(b"<!DOCTYPE html><p>404 Not Found")
    return Case(f"{source}/{ROOT_NAME}", (good, source))


@tells(Code.EMPTY_FILE, "import")
def import_an_empty_root(place: Place) -> Case:
    good, source = place.make_sources()
    (source / ROOT_NAME).write_bytes(b"")
    return Case(f"{source}/{ROOT_NAME}", (good, source))


@tells(Code.NOT_A_FILE, "import")
def import_a_pipe(place: Place) -> Case:
    good, source = place.make_sources()
    (source / ROOT_NAME).unlink()
    os.mkfifo(source / ROOT_NAME)
    return Case(f"{source}/{ROOT_NAME}", (good, source))


@tells(Code.CHECKSUM_MISMATCH, "import")
def import_other_bytes(place: Place) -> Case:
    good, source = place.make_sources()
    sums = f"{'0' * 64}  {ROOT_NAME}\n{'0' * 64}  {METADATA_NAME}\n"
    (source / "SHA256SUMS").write_text(sums)
    return Case(f"{source}/{METADATA_NAME}", (good, source))


@tells(Code.BAD_CHECKSUMS, "import")
def import_with_checksums_of_nothing(place: Place) -> Case:
    good, source = place.make_sources()
    (source / "SHA256SUMS").write_text("hello\n")
    return Case(f"{source}/SHA256SUMS", (good, source))


@tells(Code.LINK_LEADS_OUT, "import")
def import_through_a_link(place: Place) -> Case:
    good, source = place.make_sources()
    (place.work / "outside").mkdir()
    write_tree(place.root, {"images/debian": f"{place.work}/outside"})
    return Case(str(source), (good, source))


@tells(Code.NOT_WRITTEN, "import")
def import_over_a_file(place: Place) -> Case:
    good, source = place.make_sources()
    write_tree(place.root, {"images/debian": b"x"})
    return Case(str(source), (good, source))


@tells(Code.VERSION_EXISTS, "import")
def import_another_image_of_that_name(place: Place) -> Case:
    good, source = place.make_sources()
    assert place.fastindex("import", "--copy", source, place.root).returncode == 0
    place.rot(f"{source}/{ROOT_NAME}")
    os.utime(source / ROOT_NAME, ns=(OLD_NS + 1, OLD_NS + 1))
    return Case(str(source), (good, source))


@tells(Code.VERSION_WITHDRAWN, "import")
def import_what_is_withdrawn(place: Place) -> Case:
    good, source = place.make_sources()
    assert place.fastindex("import", "--copy", "--index", source, place.root).returncode == 0
    assert place.fastindex("remove", "debian/12", place.root).returncode == 0
    return Case(str(source), (good, source))


@tells(Code.IGNORED_FILE, "import")
def import_beside_a_note(place: Place) -> Case:
    good, source = place.make_sources()
    (source / "notes.txt").write_text("hello")
    return Case(f"{source}/notes.txt", (good, source))


@tells(Code.SOURCE_KEPT, "import")
def move_what_a_link_leads_to(place: Place) -> Case:
    good, source = place.make_sources()
    link = place.work / "link"
    link.mkdir()
    for name in (METADATA_NAME, ROOT_NAME):
        (link / name).symlink_to(source / name)
    return Case(f"{link}/{METADATA_NAME}", ("--move", good, link))


@tells(Code.NOT_SERVABLE, "import")
def link_what_is_ones_own(place: Place) -> Case:
    good, source = place.make_sources()
    (source / ROOT_NAME).chmod(0o600)
    return Case(f"{IMPORTED}/{ROOT_NAME}", ("--link", good, source))


@tells(Code.MACHINE_AS_CONTAINER, "import")
def import_a_unified_machine(place: Place) -> Case:
    path = place.find_workshop().unified(place.work / "machine/image.tar.gz", vm=True)
    return Case(str(path), (path,))


@tells(Code.CACHE_NOT_WRITTEN, "import")
def import_without_a_place_for_caches(place: Place) -> Case:
    good, source = place.make_sources()
    (place.work / "caches").touch()
    return Case(IMPORTED, ("--cache-dir", place.work / "caches", good, source))


@tells(Code.BAD_SETTINGS, "import")
def import_aliases_where_settings_are_none(place: Place) -> Case:
    _, source = place.make_sources()
    write_tree(place.root, {f"{PRODUCT}/.product.toml": b"aliases = [\n"})
    return Case(f"{PRODUCT}/.product.toml", ("--alias", "mine", source))


# What prune and remove tell


def publish_two(place: Place) -> None:
    """Publish two versions of a product."""
    place.build(tree=version() | version(f"{DEBIAN}/{NEW}"))


@tells(Code.NOT_DELETED, "prune")
def link_to_what_is_to_be_deleted(place: Place) -> Case:
    publish_two(place)
    link = f"images/{DEBIAN}/20240601"
    write_tree(place.root, {f"{link}/{METADATA_NAME}": b"another"})
    (place.root / link / ROOT_NAME).symlink_to(f"../{OLD}/{ROOT_NAME}")
    return Case(PATH, ("--keep", 1, "--grace", 0))


@tells(Code.BAD_CATALOGUE, "prune")
def tear_the_catalogue_of_another_output(place: Place) -> Case:
    publish_two(place)
    www = place.work / "www"
    place.build("--output", www)
    (www / INDEX).write_bytes(b"{")
    return Case(f"{www}/streams", ("--keep", 1, "--grace", 0))


@tells(Code.OTHER_OUTPUT, "prune")
def forget_that_there_is_another_output(place: Place) -> Case:
    place.build("--output", place.work / "www", tree=version() | version(f"{DEBIAN}/{NEW}"))
    (place.root / ".outputs.json").unlink()
    return Case(str(place.root), ("--keep", 1))


# What push tells


def push_to_a_directory(place: Place) -> Path:
    """Push a mirror of one version to a directory, which is returned."""
    bucket = place.work / "bucket"
    bucket.mkdir()
    place.build(tree=version())
    done = place.fastindex("push", place.root, f"file://{bucket}")
    assert done.returncode == 0, done.stderr
    return bucket


def prepare_a_first_push(place: Place) -> tuple[str, ...]:
    """Build a mirror of one version; return the URL of a directory to push it to."""
    (place.work / "bucket").mkdir()
    place.build(tree=version())
    return (f"file://{place.work}/bucket",)


@tells(Code.BAD_RECORD, "push")
def tear_the_manifest(place: Place) -> Case:
    bucket = push_to_a_directory(place)
    (bucket / "streams/.push.json").write_bytes(b"{")
    return Case(f"file://{bucket}/streams/.push.json", (f"file://{bucket}",))


@tells(Code.CONTENT_REPLACED, "push")
def publish_other_bytes_under_a_name(place: Place) -> Case:
    bucket = push_to_a_directory(place)
    write_file(place.root / PATH / ROOT_NAME, make_squashfs(b"other"), OLD_NS + 10**10)
    place.build()
    return Case(f"{PATH}/{ROOT_NAME}", (f"file://{bucket}",))


@tells(Code.CHANGED, "push")
def let_a_published_file_grow(place: Place) -> Case:
    words = prepare_a_first_push(place)
    with (place.root / PATH / ROOT_NAME).open("ab") as file:
        file.write(b"more")
    return Case(f"{PATH}/{ROOT_NAME}", words)


@tells(Code.CHECKSUM_MISMATCH, "push")
def rot_before_a_push(place: Place) -> Case:
    words = prepare_a_first_push(place)
    return Case(place.rot(), words)


@tells(Code.MISSING_FILE, "push")
def lose_a_file_before_a_push(place: Place) -> Case:
    words = prepare_a_first_push(place)
    (place.root / PATH / ROOT_NAME).unlink()
    return Case(f"{PATH}/{ROOT_NAME}", words)


@tells(Code.STORE_FAILED, "push")
def let_the_store_fail(place: Place) -> Case:
    words = prepare_a_first_push(place)
    (place.work / "bucket/images").write_bytes(b"in the way")
    return Case(f"{PATH}/{ROOT_NAME}", words)


@tells(Code.TRUNCATED, "push")
def truncate_before_a_push(place: Place) -> Case:
    words = prepare_a_first_push(place)
    os.truncate(place.root / PATH / ROOT_NAME, 8)
    return Case(f"{PATH}/{ROOT_NAME}", words)


@tells(Code.UNREADABLE, "push")
def put_a_directory_in_the_place_of_a_file(place: Place) -> Case:
    words = prepare_a_first_push(place)
    (place.root / PATH / ROOT_NAME).unlink()
    (place.root / PATH / ROOT_NAME).mkdir()
    return Case(f"{PATH}/{ROOT_NAME}", words)


# What status and bench tell


@tells(Code.RUN_FAILED, "status")
def fail(place: Place) -> Case:
    place.build(tree=version())
    shutil.rmtree(place.root / "images")
    (place.root / "images").mkdir()
    assert place.fastindex(place.root).returncode == 1
    return Case("build")


@tells(Code.BAD_RECORD, "status")
def tear_the_record_of_a_run(place: Place) -> Case:
    place.build(tree=version())
    (place.root / "streams/.run-build.json").write_bytes(b"{")
    return Case("streams/.run-build.json")


@tells(Code.NOT_PUBLISHED, "status")
def leave_something_out(place: Place) -> Case:
    place.build(tree=version() | version(f"{DEBIAN}/{NEW}", incus_tar_xz=b"alone"))
    return Case(str(place.root))


@tells(Code.DAMAGED, "status")
def find_damage(place: Place) -> Case:
    place.build(tree=version() | version(f"{DEBIAN}/{NEW}"))
    path = place.rot()
    place.build("--recheck", "1/1")
    return Case(path)


@tells(Code.PRODUCT_OLD, "status")
def grow_old(place: Place) -> Case:
    place.build(tree=version())
    return Case(f"images/{DEBIAN}", ("--max-age", "10d"))


@tells(Code.BAD_CATALOGUE, "status")
def tear_what_is_published(place: Place) -> Case:
    return tear_a_product_file(place)


@tells(Code.NOT_MEASURED, "bench")
def measure_memory(place: Place) -> Case:
    file = place.find_memory() / "x"
    file.write_bytes(b"x")
    return Case(str(file), ("--seconds", 0.0003, "--jobs", 1, file))

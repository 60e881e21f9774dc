"""What is disturbed: a build, an import, a prune, a remove; and what must hold whenever it ends.

No image is lost: whatever bytes the undisturbed command keeps, of the tree and of the sources, are
there after a disturbed one as well. The published catalogue is whole, and names what is there.
"""

from __future__ import annotations

import atexit
import copy
import gzip
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from fastindex.mirror.state.runs import RECORDED_COMMANDS
from tests.support.builders import CREATED, METADATA, Workshop
from tests.support.command import COMMAND, run_command
from tests.support.contents import make_content, make_tarball
from tests.support.deltas import series
from tests.support.faults import telling
from tests.support.signing import Signer, make_signer
from tests.support.tools import needs
from tests.support.trees import (
    OLD_NS,
    Files,
    in_stream,
    sha256,
    stamps,
    version,
    write_file,
    write_tree,
)

LATER = """
import sys, time
days, now = int(sys.argv[1]), time.time
time.time = lambda: now() + 86400 * days
from fastindex.cli import main as cli
sys.exit(cli.main(sys.argv[2:]))
"""
"""Runs the command some days later: nobody can make a change time older."""

PRODUCTS = ("debian/12/amd64/default", "alpine/3.20/arm64/cloud")
OLD, MIDDLE, NEW = "20240501_05:24", "20240502_05:24", "20240503_05:24"
ROOT_BYTES = 300_000
"""Of a root: more than one buffer's worth is read where the buffer is a test's."""

BIG_BYTES = 33 << 20
"""Of a root that a worker gets alone; two of them are worth workers."""

BASE: Files = {
    **version(f"{PRODUCTS[0]}/{OLD}"),
    **version(f"{PRODUCTS[0]}/{MIDDLE}"),
    **version(f"{PRODUCTS[1]}/{OLD}"),
}
IMPORTED = "images/debian/12/amd64/default/20240505_05:24"
"""Where the delivery goes: as its metadata says."""
ADDED: Files = {
    f"images/{PRODUCTS[0]}/{NEW}/incus.tar.xz": b"incus",
    f"images/{PRODUCTS[0]}/{NEW}/lxd.tar.xz": b"lxd",
    f"images/{PRODUCTS[0]}/{NEW}/rootfs.squashfs": bytes(ROOT_BYTES),
    **version(f"{PRODUCTS[1]}/{NEW}"),
}


@dataclass(frozen=True)
class Scenario:
    """A command that is disturbed, on a mirror with one generation published.

    Attributes:
        name: what it is called.
        arguments: the command's, before ROOT.
        prepare: changes a published tree so that there is something to do.
        base: the tree that is published at first.
        options: of each command: which streams, and where they are published.
        ending: another command that is needed to end what a disturbed one began.
        days_later: how many days after the preparation the command runs, by its own clock.
        keeps_all: whether it deletes nothing at all.
        settings: what the configuration says of the mirror, with ``{work}`` as in arguments; it
            says what ``options`` say. Empty: the command uses none.
        is_reader: whether it changes nothing at all.
    """

    name: str
    arguments: tuple[str, ...]
    prepare: Callable[[Path], None]
    base: Files = field(default_factory=lambda: BASE)
    options: tuple[str, ...] = ()
    ending: tuple[str, ...] = ()
    days_later: int = 0
    keeps_all: bool = False
    settings: str = ""
    is_reader: bool = False

    def command(self, root: Path) -> list[str]:
        """Return the command line; ``{work}`` in an argument is what ROOT lies in."""
        return self._words(root, self.arguments, self._own_options)

    def build(self, root: Path) -> list[str]:
        """Return the command line of a build."""
        streams = () if self.is_import else self.options
        return self._words(root, ("-q",), streams or _streams_of(self.base))

    def finish(self, root: Path) -> list[str]:
        """Return the command line that ends what a disturbed command began."""
        return self._words(root, self.ending or self.arguments, self._own_options)

    @property
    def _own_options(self) -> tuple[str, ...]:
        return () if self.settings or self.is_push else self.options

    def _words(self, root: Path, *words: tuple[str, ...]) -> list[str]:
        filled = [word.format(work=root.parent) for part in words for word in part]
        first = [str(COMMAND)]
        if self.days_later:
            first = [sys.executable, "-c", LATER, str(self.days_later)]
        if self.is_signed:
            first = ["env", f"GNUPGHOME={find_signer().home}", *first]
        return [*first, *filled, str(root)]

    def output(self, root: Path) -> Path:
        """Return the directory that the catalogue is published in."""
        return root.with_name("www") if "--output" in self.options else root

    @property
    def is_import(self) -> bool:
        """Whether it is an import, which leaves the catalogue as it is."""
        return self.arguments[0] == "import"

    @property
    def is_pull(self) -> bool:
        """Whether it publishes what is new before it withdraws what is old."""
        return self.arguments[0] in ("pull", "nightly")

    @property
    def tells(self) -> bool:
        """Whether it writes reports, metrics or both."""
        return bool(self.settings) or "--report" in self.arguments

    @property
    def has_workers(self) -> bool:
        """Whether it starts processes."""
        return "-j2" in self.arguments or self.is_deltas

    @property
    def is_deltas(self) -> bool:
        """Whether the processes that it starts are not replaced."""
        return self.arguments[0] == "deltas" or "\ndeltas =" in self.settings

    @property
    def is_push(self) -> bool:
        """Whether it changes a bucket, and nothing of the mirror."""
        return self.arguments[0] == "push"

    @property
    def has_bucket(self) -> bool:
        """Whether it pushes, if only in the end."""
        return BUCKET in (*self.arguments, *self.settings.split('"'))

    @property
    def is_signed(self) -> bool:
        """Whether GnuPG runs, which may be disturbed as well."""
        return "--sign" in self.options


def _streams_of(tree: Files) -> tuple[str, ...]:
    """Return the options for the streams of a tree."""
    streams = dict.fromkeys(path.partition("/")[0] for path in tree)
    return tuple(word for stream in streams for word in ("--stream", stream))


def _add(root: Path) -> None:
    write_tree(root, ADDED)


def _add_big(root: Path) -> None:
    _add(root)
    for product in PRODUCTS:
        path = root / f"images/{product}/{NEW}/rootfs.squashfs"
        with path.open("r+b") as file:
            file.truncate(BIG_BYTES)
        os.utime(path, ns=(OLD_NS, OLD_NS))


def _add_product(root: Path) -> None:
    """Add versions, and a product, which gets a page that the first page leads to."""
    _add(root)
    write_tree(root, version(f"void/1/amd64/default/{NEW}"))


def _nothing(root: Path) -> None:
    del root


def _deliver(root: Path) -> None:
    shutil.copytree(root.parent.parent / "delivery", root.parent / "delivery")


def _add_and_leave(root: Path) -> None:
    """Add versions, and leave what a prune is to clean up and what it is not."""
    _add(root)
    product = root / "images" / PRODUCTS[0]
    write_tree(product, {".20240401/incus.tar.xz": b"left"})
    (product / ".20240403.pruned").mkdir()
    (product / ".20240403.pruned/notes.txt").write_text("mine")


def _copy_about(root: Path) -> None:
    """Put copies of an image into another product and another stream."""
    source = root / f"images/{PRODUCTS[0]}/{MIDDLE}"
    for path in (f"images/evil/1/amd64/default/{OLD}", f"daily/evil/1/amd64/default/{OLD}"):
        shutil.copytree(source, root / path, ignore=shutil.ignore_patterns(".*"))


def _deliver_everything(root: Path) -> None:
    """Deliver a new image, one that is in the tree already, and another of that name."""
    _deliver(root)
    for number in range(2):
        source = root.with_name(f"existing{number}")
        source.mkdir()
        for name in ("incus.tar.xz", "rootfs.squashfs"):
            shutil.copy2(root / EXISTING / name, source / name)
    write_file(source / "rootfs.squashfs", make_content("rootfs.squashfs", "elsewise"))


def _deliver_links(root: Path) -> None:
    """Deliver an image whose files are symlinks, partly into the tree itself."""
    _deliver(root)
    delivery = root.parent / "delivery"
    real = delivery.rename(delivery.with_name("real"))
    delivery.mkdir()
    for path in real.iterdir():
        (delivery / path.name).symlink_to(f"../real/{path.name}")


def _link_product(root: Path) -> None:
    """Make the product that the delivery goes to a symlink to another one."""
    _deliver(root)
    product = root / "images" / PRODUCTS[0]
    real = product.rename(product.with_name("real"))
    product.symlink_to(real.name)


LINKED: Files = {
    f"images/{PRODUCTS[0]}/.{OLD}/incus.tar.xz": make_content("incus.tar.xz", "hidden"),
    f"images/{PRODUCTS[0]}/.{OLD}/rootfs.squashfs": make_content("rootfs.squashfs", "hidden"),
    f"images/{PRODUCTS[0]}/{OLD}": f".{OLD}",
    f"images/{PRODUCTS[0]}/.20240401/rootfs.squashfs": make_content("rootfs.squashfs", "shared"),
    f"images/{PRODUCTS[0]}/{MIDDLE}/incus.tar.xz": make_content("incus.tar.xz", "middle"),
    f"images/{PRODUCTS[0]}/{MIDDLE}/rootfs.squashfs": make_content("rootfs.squashfs", "middle"),
    f"images/{PRODUCTS[0]}/{NEW}/incus.tar.xz": make_content("incus.tar.xz", "new"),
    f"images/{PRODUCTS[0]}/{NEW}/rootfs.squashfs": f"../{MIDDLE}/rootfs.squashfs",
    f"images/{PRODUCTS[0]}/20240504/incus.tar.xz": make_content("incus.tar.xz", "newest"),
    f"images/{PRODUCTS[0]}/20240504/rootfs.squashfs": "../.20240401/rootfs.squashfs",
    **version(f"{PRODUCTS[1]}/{OLD}"),
}
"""A version that is a symlink to a hidden directory, and files that are symlinks: into another
version, which is withdrawn before, and into a hidden directory."""

EXISTING = "images/debian/12/amd64/default/20240504_05:24"
WITH_EXISTING: Files = {
    **BASE,
    f"{EXISTING}/incus.tar.xz": make_tarball(
        {"metadata.yaml": METADATA.replace(str(CREATED), str(CREATED - 86400)).encode()}
    ),
    f"{EXISTING}/rootfs.squashfs": make_content("rootfs.squashfs", "existing"),
}

TWO_STREAMS: Files = {
    **BASE,
    **in_stream("daily", version(f"void/current/amd64/default/{OLD}")),
    **in_stream("daily", version(f"void/current/amd64/default/{MIDDLE}")),
}
WWW = ("--output", "{work}/www")
REMOVED = sha256(
    *(make_content(name, f"{PRODUCTS[0]}/{MIDDLE}") for name in ("incus.tar.xz", "rootfs.squashfs"))
)
"""The fingerprint of the image that is removed."""

STREAMS = ("--stream", "images", "--stream", "daily")
PAGE_SETTINGS = "etc/page.toml"
ACCOMPANIED = (
    *("--gzip", "--zstd", "--lists"),
    *("--page", "--page-settings", f"{{work}}/{PAGE_SETTINGS}"),
)
SIGNED = ("--sign", "mirror@example.org")
PRUNE = ("prune", "--keep", "1", "--grace", "0")

PULL = ("pull", "-q", "--connections", "1", "file://{work}/upstream")
"""With one connection the calls of all runs come in the same order."""


def _pull_base(root: Path) -> None:
    """Pull from an upstream, which then publishes more and withdraws a version."""
    upstream = root.with_name("upstream")
    shutil.rmtree(root)
    root.mkdir()
    write_tree(upstream, PULLED)
    for command in ((upstream,), (*PULL[:-1], f"file://{upstream}", root)):
        done = run(str(COMMAND), *map(str, command))
        assert done.returncode == 0, done.stderr
    shutil.rmtree(upstream / f"images/{PRODUCTS[1]}/{OLD}")
    write_tree(upstream, {**version(f"{PRODUCTS[0]}/{MIDDLE}"), **version(f"{PRODUCTS[1]}/{NEW}")})
    assert run(str(COMMAND), str(upstream)).returncode == 0


NIGHT = ("nightly", "-q", "--config", f"{{work}}/{telling.SETTINGS}")
SETTINGS = """\
keep = 1
recheck = "1/1"
jobs = 1
{more}
[[mirror.main.pull]]
url = "file://{{work}}/upstream"
connections = 1
"""
TOLD = (
    "--json",
    "--report",
    f"{{work}}/{telling.REPORT}",
    "--metrics",
    f"{{work}}/{telling.METRICS}",
)


def _find_upstream(root: Path) -> None:
    """Publish an upstream that has more than the mirror, and older versions."""
    upstream = root.with_name("upstream")
    write_tree(upstream, {**PULLED, **version(f"void/1/amd64/default/{NEW}")})
    assert run(str(COMMAND), str(upstream)).returncode == 0
    write_tree(root, version(f"{PRODUCTS[1]}/{MIDDLE}"))


PULLED: Files = {**version(f"{PRODUCTS[0]}/{OLD}"), **version(f"{PRODUCTS[1]}/{OLD}")}

BUCKET = "file://{work}/bucket"
PUSH = ("push", "-q", "--connections", "1", "--grace", "0", BUCKET)


def _push_base(root: Path) -> None:
    """Push, then publish more and without a version."""
    bucket = root.with_name("bucket")
    bucket.mkdir()
    push = [word.format(work=root.parent) for word in PUSH]
    build = [word.format(work=root.parent) for word in ACCOMPANIED]
    # first, as the companions are copies, which are nobody's
    for command in ((*build, root), (*push, root), (*build, root)):
        done = run(str(COMMAND), *map(str, command))
        assert done.returncode == 0, done.stderr
        if command[0] == "push":
            shutil.rmtree(root / f"images/{PRODUCTS[0]}/{OLD}")
            _add_product(root)


def _find_upstream_and_bucket(root: Path) -> None:
    """Push, then publish an upstream that has more than the mirror."""
    root.with_name("bucket").mkdir()
    for words in (ACCOMPANIED, PUSH):
        done = run(str(COMMAND), *(word.format(work=root.parent) for word in words), str(root))
        assert done.returncode == 0, done.stderr
    _find_upstream(root)


DELTAS = ("deltas", "-q", "-j1", "--from", "2")
SIMILAR: Files = {**series(PRODUCTS[0], [OLD, MIDDLE, NEW]), **series(PRODUCTS[1], [OLD, NEW])}

SCENARIOS = (
    Scenario("build", ("-j1",), _add_product),
    Scenario("deltas", DELTAS, _nothing, SIMILAR, keeps_all=True),
    Scenario("build, two workers", ("-j2", "--rehash"), _add_big),
    Scenario("prune", PRUNE, _nothing),
    Scenario("import, move", ("import", "--move", "{work}/delivery"), _deliver, keeps_all=True),
    Scenario(
        "nightly",
        NIGHT,
        _find_upstream,
        settings=SETTINGS.format(more=f'metrics = "{{work}}/{telling.METRICS}"\ngrace = "0"'),
    ),
    Scenario("push", PUSH, _push_base, options=ACCOMPANIED),
    Scenario("import, copy", ("import", "--copy", "{work}/delivery"), _deliver, keeps_all=True),
)

MORE_SCENARIOS = (
    Scenario("prune, new and left", PRUNE, _add_and_leave, days_later=3),
    Scenario("prune, grace", ("prune", "--keep", "1"), _add, keeps_all=True),
    Scenario(
        "nightly, elsewhere",
        NIGHT,
        _find_upstream,
        keeps_all=True,
        options=(*WWW, "--cache-dir", "{work}/cache"),
        settings=SETTINGS.format(
            more=f'output = "{{work}}/www"\ncache_dir = "{{work}}/cache"\n'
            f'report = "{{work}}/{telling.REPORT}"\nmetrics = "{{work}}/{telling.METRICS}"'
        ),
    ),
    Scenario("build, told", ("-j1", *TOLD), _add),
    Scenario("status", ("status", *TOLD[:3]), _nothing, is_reader=True),
    Scenario("build, accompanied", ("-j1",), _add_product, options=ACCOMPANIED),
    Scenario("build, signed", ("-j1",), _add_product, options=(*ACCOMPANIED, *SIGNED)),
    Scenario(
        "nightly, everything",
        NIGHT,
        _find_upstream_and_bucket,
        {**version(f"{PRODUCTS[0]}/{OLD}"), **series(PRODUCTS[0], [MIDDLE, NEW])},
        ACCOMPANIED,
        settings=SETTINGS.replace("keep = 1", "keep = 2").format(
            more='grace = "0"\ngzip = true\nzstd = true\nlists = true\npage = true\n'
            f'page_settings = "{{work}}/{PAGE_SETTINGS}"\ndeltas = 1\npush = "{BUCKET}"'
        ),
    ),
    Scenario("prune, accompanied", PRUNE, _add, options=ACCOMPANIED),
    Scenario(
        "prune, streams, accompanied", PRUNE, _add, TWO_STREAMS, (*STREAMS, *WWW, *ACCOMPANIED)
    ),
    Scenario("prune, links", PRUNE, _nothing, LINKED),
    Scenario("prune, links later", PRUNE, _nothing, LINKED, days_later=3),
    Scenario("prune, streams", PRUNE, _add, TWO_STREAMS, STREAMS),
    Scenario("prune, output", PRUNE, _add, BASE, WWW),
    Scenario("build, streams and output", ("-j1",), _add, TWO_STREAMS, (*STREAMS, *WWW)),
    Scenario(
        "remove, copies",
        ("remove", "--grace", "0", REMOVED),
        _copy_about,
        TWO_STREAMS,
        STREAMS,
        ("prune", "--keep", "9", "--grace", "0"),
    ),
    Scenario(
        "remove, product",
        ("remove", "debian/12/amd64/default"),
        _nothing,
        TWO_STREAMS,
        STREAMS,
        ("prune", "--keep", "9"),
        keeps_all=True,
    ),
    Scenario("pull", PULL, _pull_base, PULLED, keeps_all=True),
    Scenario(
        "import, everything",
        ("import", "--move", "{work}/delivery", "{work}/existing0", "{work}/existing1"),
        _deliver_everything,
        WITH_EXISTING,
        keeps_all=True,
    ),
    Scenario(
        "import, another stream",
        ("import", "--move", "--stream", "daily", "{work}/delivery"),
        _deliver,
        TWO_STREAMS,
        keeps_all=True,
    ),
    Scenario(
        "import, linked sources",
        ("import", "--copy", "{work}/delivery"),
        _deliver_links,
        keeps_all=True,
    ),
    Scenario(
        "import, linked product",
        ("import", "--move", "{work}/delivery"),
        _link_product,
        keeps_all=True,
    ),
)


NOTES = {
    *(".items.json", ".lock", ".snapshot.json", ".withdrawn.json", ".damaged.json"),
    *(".deltas.json", ".deltas.lock", ".summaries.json", ".push.json"),
    *(".pulled.json", ".pull.lock", ".nightly.lock", ".nightly-report.json"),
    *(".companions.json", ".outputs.json", ".products-images.state", ".products-daily.state"),
    *(f".run-{command}.json" for command in RECORDED_COMMANDS),
}
"""What runs leave for the next ones."""


TORN = (AssertionError, ValueError, LookupError, OSError, EOFError, zlib.error, zstd.ZstdError)
"""What is raised where something is lost: by what is held against the disk, or by decoders."""


class Place:
    """A directory in which one scenario is played again and again.

    Args:
        directory: an empty one.
        scenario: what is played.
        workshop: makes what is imported.

    ``seconds`` is what an undisturbed run took.
    """

    def __init__(self, directory: Path, scenario: Scenario, workshop: Workshop) -> None:
        self.scenario = scenario
        workshop.split(directory / "delivery")
        self.root = directory / "work/mirror"
        self._pristine = directory / "pristine"
        write_tree(self.root, scenario.base)
        if "--page" in scenario.options:
            settings = self.root.parent / PAGE_SETTINGS
            settings.parent.mkdir()
            settings.write_text("product_pages = 0\n")
            settings.chmod(0o600)
        done = run(*scenario.build(self.root))
        assert done.returncode in {0, 3}, done.stderr
        self.before = generation(scenario.output(self.root))
        self.root.parent.rename(self._pristine)
        self.start_afresh()
        # A prune and a remove may publish before they withdraw.
        run(*scenario.build(self.root))
        self.between = generation(scenario.output(self.root))
        self.start_afresh()
        given = self._contents()
        began = time.monotonic()
        done = run(*scenario.command(self.root))
        self.seconds = time.monotonic() - began
        self.code = done.returncode
        assert self.code in ({0, 1, 3} if scenario.is_import else {0}), done.stderr
        self.kept = given & self._contents()
        assert self.kept == given or not scenario.keeps_all, given - self.kept
        if scenario.is_import:
            run(*scenario.build(self.root))
        self.after = generation(scenario.output(self.root))
        self._hidden = self._list_hidden()
        self._bucket = self._list_bucket()

    def _contents(self) -> set[str]:
        return contents(self.root.parent)

    def _list_bucket(self) -> set[Path]:
        bucket = self.root.with_name("bucket")
        return {path.relative_to(bucket) for path in bucket.rglob("*") if path.is_file()}

    def _list_hidden(self) -> set[Path]:
        return {path for path in self.root.rglob("*") if _is_temporary(path.name)}

    def start_afresh(self) -> None:
        """Make the mirror anew, with the old generation published and something to do."""
        shutil.rmtree(self.root.parent, ignore_errors=True)
        shutil.copytree(self._pristine, self.root.parent, symlinks=True)
        self.scenario.prepare(self.root)
        if self.scenario.tells:
            output = self.scenario.output(self.root)
            telling.prepare(self.root, output, self.scenario.settings)
        self._stamps = stamps(self.root)

    def check(self, *, is_left_out: bool = False, has_failed: bool = False) -> None:
        """Hold what lies there now, after a disturbed run, against what must always hold.

        Args:
            is_left_out: whether the run told that it left something out.
            has_failed: whether a call was made to fail. A prune whose first build could not read
                something withdraws less, as what is not published does not count.
        """
        root = self.root
        self._check_catalogue(self.scenario.output(root), root, is_left_out, has_failed)
        if self.scenario.has_bucket:
            bucket = root.with_name("bucket")
            self._check_catalogue(bucket, bucket, is_left_out, has_failed)
        check_caches(root)
        lost = self.kept - self._contents()
        assert not lost, f"lost: {sorted(lost)}"
        assert not self.scenario.is_reader or stamps(root) == self._stamps
        if self.scenario.tells:
            telling.check(root, self.scenario.output(root))

    def _check_catalogue(
        self, output: Path, root: Path, is_left_out: bool, has_failed: bool
    ) -> None:
        published = generation(output, is_between=True)
        known = (self.before, self.between, self.after)
        if self.scenario.is_import:
            assert published == self.before, "the catalogue is not an import's to change"
        elif is_left_out or self.scenario.is_pull or (has_failed and self.between != self.after):
            # A pull publishes what is new before it withdraws what is old.
            assert versions(published) <= set().union(*map(versions, known)), "never was"
            assert is_left_out or versions(published) >= versions(self.before) & versions(
                self.after
            )
        else:
            for path, file in published["products"].items():
                told = "neither one generation nor the next"
                assert file in [one["products"].get(path) for one in known], told
        check_files(root, published)
        check_companions(output, root)

    def finish(self) -> None:
        """Run once more, undisturbed; all is to be as if nothing had been."""
        is_moved = "--move" in self.scenario.arguments and self._is_imported()
        done = run(*self.scenario.command(self.root))
        is_gone = self.scenario.arguments[0] == "remove" and done.returncode == 2
        # A pull tells of what a read that failed has left out, before that is read again.
        is_told = bool(self.scenario.settings) and done.returncode == 3
        # Its sources may be gone, or what it was to remove.
        is_expected = is_told or is_moved or is_gone
        assert is_expected or done.returncode in {0, self.code}, done.stderr
        run(*self.scenario.build(self.root))
        if not self.scenario.is_import:
            # A copy that could not be read is published by that build.
            run(*self.scenario.command(self.root))
            done = run(*self.scenario.finish(self.root))
            assert not self.scenario.settings or done.returncode == self.code, done.stderr
        output = self.scenario.output(self.root)
        published = generation(output)
        check_files(self.root, published)
        if self.scenario.arguments[0] == "deltas":
            # While the newest version could not be read, the one before it got a delta.
            published = without_more_deltas(published, self.after)
        assert published == self.after
        check_caches(self.root)
        if "--gzip" in self.scenario.options:
            check_companions(output, self.root)
            check_same_generation(output)
        if self.scenario.has_bucket:
            bucket = self.root.with_name("bucket")
            assert generation(bucket) == self.after, "the bucket has an older one"
            check_files(bucket, self.after)
            check_companions(bucket, bucket)
            check_same_generation(bucket)
            assert self._list_bucket() == self._bucket, self._list_bucket() ^ self._bucket
        left = self._list_hidden() - self._hidden
        if is_moved or self.scenario.is_pull:
            # a mark whose removal was made to fail; harms nobody
            left = {path for path in left if path.name != ".importing"}
        assert not left, left
        lost = self.kept - self._contents()
        assert not lost, f"lost: {sorted(lost)}"
        if self.scenario.tells:
            telling.check_ended(self.root, output)

    def _is_imported(self) -> bool:
        names = ("images", "daily")
        paths = (self.root / IMPORTED.replace("images", name, 1) for name in names)
        return any(path.exists() for path in paths)


def _is_temporary(name: str) -> bool:
    return (name.startswith(".") and name not in NOTES) or name.endswith(".tmp")


def run(
    *command: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, undisturbed."""
    if command[0] == str(COMMAND) and environment is None:
        return run_command(*command[1:], cwd=Path.cwd(), patience=120)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=environment
    )


def contents(directory: Path) -> set[str]:
    """Return the digests of all files of images below ``directory``; what runs note is none."""
    return {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
        if not _is_temporary(path.name) and path.name not in NOTES
        if not {"streams", "told"} & set(path.parts)
    }


def generation(root: Path, *, is_between: bool = False) -> dict[str, Any]:
    """Return the published catalogue, as clients decode it; raises where it is torn.

    Args:
        root: the directory with ``streams/``.
        is_between: whether a run may have been stopped between two of its files.
    """
    index = json.loads((root / "streams/v1/index.json").read_bytes())
    files = {
        entry["path"]: json.loads((root / entry["path"]).read_bytes())
        for entry in index["index"].values()
    }
    for entry in index["index"].values():
        products = files[entry["path"]]["products"]
        assert is_between or sorted(entry["products"]) == sorted(products)
    return {"products": files, "index": {k: v["products"] for k, v in index["index"].items()}}


def without_more_deltas(published: dict[str, Any], than: dict[str, Any]) -> dict[str, Any]:
    """Return a generation without the deltas that another one does not have."""
    kept = copy.deepcopy(published)
    for path, file in kept["products"].items():
        for key, product in file["products"].items():
            of_others = than["products"].get(path, file)["products"].get(key, product)["versions"]
            for name, one in product["versions"].items():
                wanted = of_others.get(name, one)["items"]
                for item in [*one["items"]]:
                    if item.startswith("delta-") and item not in wanted:
                        del one["items"][item]
    return kept


def versions(published: dict[str, Any]) -> set[str]:
    """Return the names of all versions of a generation."""
    return {
        f"{path} {key} {name}"
        for path, file in published["products"].items()
        for key, product in file["products"].items()
        for name in product["versions"]
    }


def check_files(root: Path, published: dict[str, Any]) -> None:
    """Hold each published file's presence, size and digest against the disk."""
    for file in published["products"].values():
        for product in file["products"].values():
            for entry in product["versions"].values():
                for item in entry["items"].values():
                    data = (root / item["path"]).read_bytes()
                    assert len(data) == item["size"], item["path"]
                    assert hashlib.sha256(data).hexdigest() == item["sha256"], item["path"]


def check_companions(output: Path, root: Path) -> None:
    """Hold what clients that take companions see against the disk: a generation, maybe an older."""
    directory = output / "streams/v1"
    for name, read in _COPIES.items():
        if (directory / f"index{name}").exists():
            index = json.loads(read(directory / f"index{name}"))["index"]
            files = {
                entry["path"]: json.loads(read(output / _find_copy(entry["path"], name)))
                for entry in index.values()
            }
            for entry in index.values():
                told = f"index{name} names what is not there"
                assert {*entry["products"]} <= {*files[entry["path"]]["products"]}, told
            check_files(root, {"products": files})
    if (output / "index.html").exists():
        check_page(output)
    if (output / "streams/files.txt").exists():
        for line in (output / "streams/files.txt").read_text().splitlines():
            if line.startswith(("#", ";")):
                continue
            assert any((place / line).exists() for place in (output, root)), f"files.txt: {line}"


def _find_copy(path: str, name: str) -> str:
    """Return the path of the companion of a catalogue file; a signed index names signed files."""
    return f"{path.removesuffix('.json').removesuffix('.sjson')}{name}"


def _call_gpgv() -> list[str | Path]:
    return [needs("gpgv", "apt-get install gpgv"), "--keyring", find_signer().keyring]


def _read_signed(path: Path) -> bytes:
    done = subprocess.run([*_call_gpgv(), "--output", "-", path], capture_output=True, check=False)
    assert done.returncode == 0, f"{path}: {done.stderr!r}"
    return done.stdout


_COPIES: dict[str, Callable[[Path], bytes]] = {
    ".json.gz": lambda path: gzip.decompress(path.read_bytes()),
    ".json.zst": lambda path: zstd.decompress(path.read_bytes()),
    ".sjson": _read_signed,
}
"""How clients read the copies of a catalogue file."""


@cache
def find_signer() -> Signer:
    """Return who signs; the agent with the key lives as long as this process."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(make_signer("mirror"))


def check_page(output: Path) -> None:
    """Hold the page against the disk: each is whole, and each link leads to what is there."""
    pages = [output / "index.html", *(output / _PAGES).glob("*.html")]
    for page in pages:
        text = page.read_text()
        assert text.rstrip().endswith("</html>"), f"{page}: torn"
        for link in re.findall(r'(?:href|src)="([^"#:?]+)"', text):
            path = (page.parent / html.unescape(unquote(link))).resolve()
            assert path.exists() or path.suffix not in _OURS, f"{page}: leads to {link}"
    assert (output / "feed.atom").read_text().rstrip().endswith("</feed>"), "feed.atom: torn"


_OURS = (".html", ".css", ".js", ".atom")


def check_same_generation(output: Path) -> None:
    """Hold what accompanies the catalogue against that, after a run that nobody disturbed."""
    for path in (output / "streams/v1").glob("*.json"):
        assert gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes()) == path.read_bytes()
        assert zstd.decompress(path.with_name(f"{path.name}.zst").read_bytes()) == path.read_bytes()
        if path.with_name(f"{path.name}.gpg").exists():
            subprocess.run([*_call_gpgv(), f"{path}.gpg", path], capture_output=True, check=True)
            signed = json.loads(_read_signed(path.with_suffix(".sjson")))
            plain = json.loads(path.read_bytes().replace(b'.json"', b'.sjson"'))
            assert signed == plain, path
    trace = json.loads((output / "streams/trace.json").read_bytes())
    for entry in (*trace["catalogue"], *trace["lists"]):
        data = (output / entry["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], entry["path"]
    if (output / "index.html").exists():
        names = set((output / _PAGES).glob("*.html"))
        text = (output / "index.html").read_text()
        linked = {(output / html.unescape(unquote(link))) for link in _PRODUCT_LINK.findall(text)}
        assert names == linked, "pages that nothing leads to"


_PAGES = "streams/page"
_PRODUCT_LINK = re.compile(rf'href="({_PAGES}/[^"#]+\.html)')


def check_caches(root: Path) -> None:
    """Hold each digest of each cache that decodes against the file beside it."""
    for record in root.rglob(".items.json"):
        try:
            items = json.loads(record.read_bytes())
        except ValueError:
            continue  # ignored by the next run, too
        for name, item in items.items():
            path = record.with_name(name)
            if isinstance(item, dict) and "sha256" in item and path.is_file():
                data = path.read_bytes()
                if os.stat(path).st_mtime_ns == OLD_NS and len(data) == item.get("size"):
                    assert hashlib.sha256(data).hexdigest() == item["sha256"], path

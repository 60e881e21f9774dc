"""Twin mirrors: one keeps what its runs leave for later ones, the other one is run from nothing.

Both get the same changes, and both publish. Before each run, the second one, the reference, loses
all that runs leave to be faster: the snapshot, what is known of products and, unless they are to be
kept, the caches. After each run both must have published the same bytes and have said the same.

What the reference keeps is what a run must know and cannot see in the tree: what is published, what
is withdrawn or damaged, and where else the tree is published.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import datetime, tzinfo
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import fastindex
from fastindex.errors import Code, FastindexError
from fastindex.events import Finding
from fastindex.formats.names import default_aliases
from fastindex.operations.builder.options import BuildReport
from fastindex.operations.prune.options import PruneReport
from tests.support.command import load_all_modules
from tests.support.contents import make_content
from tests.support.faults.twin_trees import SECOND_NS, TwinTree, choose
from tests.support.trees import version, write_tree

KEPT_NOTES = {".lock", ".damaged.json", ".withdrawn.json", ".outputs.json"}
"""What is hidden in ``streams/`` but is not there to make runs faster."""
OUTPUTS = ("mirror", "output")
"""Beside each other; the first is ROOT."""

Outcome = dict[str, object]
"""What a run said, without what may differ: times, and how many files it had to read."""


@dataclass(frozen=True)
class Run:
    """A run of fastindex on a mirror.

    Attributes:
        operation: build, prune, remove or restore.
        what: which version to remove or to restore.
        streams: to build, in this order.
        output: one of ``OUTPUTS``.
        has_cache_dir: keep caches outside the tree.
        allows_links: to what is outside the mirror.
        jobs: as for ``build``; and so on.
        program: the version of the program; 0 is this one.
    """

    operation: str = "build"
    what: int = 0
    streams: tuple[str, ...] = ("images",)
    output: str = OUTPUTS[0]
    has_cache_dir: bool = False
    allows_links: bool = False
    jobs: int = 1
    settle_seconds: int = 0
    recheck: str = ""
    rehash: bool = False
    adopt: bool = False
    blake3: bool = True
    force: bool = False
    dry_run: bool = False
    program: int = 0

    def __repr__(self) -> str:
        """Return only what is unusual."""
        usual = {one.name: one.default for one in fields(self)}
        told = [f"{n}={getattr(self, n)!r}" for n in usual if getattr(self, n) != usual[n]]
        return f"Run({', '.join(told)})"


@dataclass(frozen=True)
class Disturbance:
    """What ends a run early: at its ``call``-th system call that changes something.

    Attributes:
        kind: ``kill``: the process dies. ``interrupt``: Ctrl-C. ``full``: that call fails.
        call: from 1 on.
    """

    kind: str
    call: int


@dataclass(frozen=True)
class Forgery:
    """A change of a file that runs leave, or of a published one; numbers as in ``Change``."""

    kind: str
    where: int
    how: int


class TwinMirrors:
    """The mirrors, with one tree each.

    Args:
        place: an empty directory.
        keeps_caches: whether the reference keeps its caches.
    """

    def __init__(self, place: Path, *, keeps_caches: bool) -> None:
        self._places = tuple(str(place / name) for name in ("subject", "certain"))
        for one in self._places:
            os.makedirs(f"{one}/mirror/images")
            os.makedirs(f"{one}/mirror/daily")
            write_tree(Path(one) / "outside", _OUTSIDE)
        roots = [Path(one) / "mirror" for one in self._places]
        self.tree = TwinTree((roots[0], roots[1]))
        self._keeps_caches = keeps_caches
        self._later_seconds = 0
        self._has_lied = False
        self._states: dict[str, list[bytes]] = {}
        """Name of a state file → what it was after earlier runs."""
        self._catalogues: dict[str, list[bytes]] = {}
        """Name of a published file → what it was after earlier runs."""
        self.tell_time(0)

    def tell_time(self, later_seconds: int) -> None:
        """Set the clock of both mirrors: to now, and as much later as was asked for so far."""
        self._later_seconds += later_seconds
        self.tree.now_ns = time.time_ns() + self._later_seconds * SECOND_NS

    # What is done to both mirrors.

    def run(self, run: Run, disturbance: Disturbance | None = None) -> None:
        """Run both, and compare what came of it; raises AssertionError if it is not the same.

        With a disturbance, the subject is run once more before, and that run does not end well.
        """
        if disturbance is not None:
            self._disturb(run, disturbance)
            if self._keeps_caches:
                # What a killed run has noted of damage spares the next one reading the rest of
                # that version, and finding what else is wrong with it.
                self._run_both(run)
            elif disturbance.call % 2:
                return  # what comes next finds what was left
        subject, certain = self._run_both(run)
        self._compare(subject, certain)
        self._remember()

    def forge(self, forgery: Forgery) -> None:
        """Change a published file of both mirrors, or a state file of the subject."""
        if forgery.kind in CATALOGUE_FORGERIES:
            self._forge_catalogue(forgery)
        elif forgery.kind in CACHE_FORGERIES:
            self._forge_cache(forgery)
        elif forgery.kind in NOTE_FORGERIES:
            self._forge_note(forgery)
        else:
            self._forge_state(forgery)

    def check_trees(self) -> None:
        """Check that both trees still are the same, so that all that was compared meant something.

        Raises:
            AssertionError: they are not.
        """
        assert self.tree.listing(0) == self.tree.listing(1)

    def _run_both(self, run: Run) -> tuple[Outcome, Outcome]:
        target = self._find_target(run)
        subject = self._run_one(0, run, target)
        self._forget()
        certain = self._run_one(1, run, target)
        if run.operation != "build":
            # Times of withdrawals are compared with times of later changes: a tick lies between.
            time.sleep(0.005)
        return subject, certain

    def _disturb(self, run: Run, disturbance: Disturbance) -> None:
        """Run the subject and end it early; the reference gets what it has published."""
        target = self._find_target(run)
        if disturbance.kind == "kill":
            child = os.fork()
            if not child:
                signal.alarm(60)
                try:
                    with _disturbed(disturbance):
                        self._run_one(0, run, target)
                finally:
                    os.kill(os.getpid(), signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            assert os.WTERMSIG(status) == signal.SIGKILL, status
        else:
            with _disturbed(disturbance), suppress(_Interrupted):
                self._run_one(0, run, target)
        for output in OUTPUTS:
            one, other = (f"{place}/{output}/streams/v1" for place in self._places)
            shutil.rmtree(other, ignore_errors=True)
            if os.path.isdir(one):
                shutil.copytree(one, other)
        one, other = self.tree.paths(".outputs.json")
        if os.path.exists(one):
            record = Path(one).read_text().replace(self._places[0], self._places[1])
            Path(other).write_text(record)

    def _run_one(self, number: int, run: Run, target: str) -> Outcome:
        place = self._places[number]
        with _clock(self.tree.now_ns), _program(run.program), ExitStack() as stack:
            mirror = fastindex.Mirror(
                f"{place}/mirror",
                output=f"{place}/{run.output}",
                cache_dir=f"{place}/mirror/cache" if run.has_cache_dir else None,
                streams=run.streams,
                allow_links=(f"{place}/outside",) if run.allows_links else (),
            )
            executor = None
            if run.jobs > 1:
                executor = stack.enter_context(ThreadPoolExecutor(run.jobs))
            try:
                if run.operation == "build":
                    report: BuildReport | PruneReport = mirror.build(
                        jobs=run.jobs,
                        engine="hashlib",
                        blake3=run.blake3,
                        rehash=run.rehash,
                        adopt=run.adopt,
                        recheck=run.recheck,
                        settle_seconds=run.settle_seconds,
                        force=run.force,
                        dry_run=run.dry_run,
                        executor=executor,
                    )
                else:
                    report = _run_upkeep(mirror, run, target)
            except FastindexError as error:
                outcome: Outcome = {"error": type(error).__name__, "message": str(error)}
            else:
                outcome = _select(report)
        return {name: _normalise(value, place) for name, value in outcome.items()}

    def _find_target(self, run: Run) -> str:
        """Return the version that ``run`` is about, if it is about one."""
        if run.operation == "remove":
            return self.tree.version(run.what) or "none"
        if run.operation == "restore":
            with suppress(OSError, ValueError):
                record = f"{self._places[0]}/{run.output}/streams/.withdrawn.json"
                return choose(sorted(json.loads(Path(record).read_bytes())), run.what) or "none"
        return "none"

    def _forget(self) -> None:
        """Let the reference lose what makes runs faster."""
        place = self._places[1]
        for output in OUTPUTS:
            for path in _list_states(f"{place}/{output}/streams"):
                os.unlink(path)
        if not self._keeps_caches:
            for path in _list_caches(f"{place}/mirror"):
                os.unlink(path)

    def _compare(self, subject: Outcome, certain: Outcome) -> None:
        for output in OUTPUTS:
            one, other = (_read_catalogue(f"{place}/{output}") for place in self._places)
            for name in sorted(one | other):
                if one.get(name) != other.get(name):
                    raise AssertionError(
                        f"{output}: {name} is not the same:\n"
                        f"{_show_difference(one.get(name), other.get(name))}\n"
                        f"subject: {subject}\nreference: {certain}"
                    )
        if not self._keeps_caches:
            subject, certain = map(_forget_consequences, (subject, certain))
        wrong = [name for name in subject | certain if subject.get(name) != certain.get(name)]
        if self._has_lied:
            # Only the operator can write there. What a forged state says that is not published,
            # such as findings, is told as it stands there.
            wrong = [name for name in wrong if name in {"error", "wrote", "product_files"}]
        if wrong:
            lines = [f"{n}:\n  {subject.get(n)!r}\n  {certain.get(n)!r}" for n in sorted(wrong)]
            raise AssertionError("subject and reference differ in\n" + "\n".join(lines))

    def _remember(self) -> None:
        """Keep what the runs left, so that it can come back later."""
        for output in OUTPUTS:
            for path in _list_states(f"{self._places[0]}/{output}/streams"):
                known = self._states.setdefault(os.path.basename(path), [])
                data = Path(path).read_bytes()
                if data not in known:
                    known.append(data)
            for name, data in _read_catalogue(f"{self._places[0]}/{output}").items():
                known = self._catalogues.setdefault(name, [])
                if data not in known:
                    known.append(data)

    # What is done to what runs leave.

    def _forge_state(self, forgery: Forgery) -> None:
        """Delete, tear or replace a file that makes runs faster."""
        paths = [
            path
            for output in OUTPUTS
            for path in _list_states(f"{self._places[0]}/{output}/streams")
        ]
        path = choose(paths, forgery.where)
        if path is None:
            return
        if forgery.kind == "delete all state":
            for one in paths:
                os.unlink(one)
            return
        if forgery.kind == "delete state":
            os.unlink(path)
            return
        name = os.path.basename(path)
        data = Path(path).read_bytes()
        twins = path.replace(self._places[0], self._places[1])
        others = {
            "older state": self._states.get(name, []),
            "state of another file": [Path(one).read_bytes() for one in paths if one != path],
            "state of a twin": [Path(twins).read_bytes()] if os.path.exists(twins) else [],
            "state of another mirror": _list_foreign_states().get(name, []),
        }
        if forgery.kind == "torn state":
            data = data[: len(data) * (forgery.how % 8) // 8]
        elif forgery.kind == "flipped state" and data:
            self._has_lied = True
            position = forgery.how * 7919 % len(data)
            data = (
                data[:position]
                + bytes([data[position] ^ 1 << forgery.how % 8])
                + data[position + 1 :]
            )
        else:
            data = choose(others.get(forgery.kind, []), forgery.how) or data
        Path(path).write_bytes(data)

    def _forge_cache(self, forgery: Forgery) -> None:
        """Delete, tear or spoil a cache; only where no digest that is known there is needed."""
        path = choose(_list_caches(f"{self._places[0]}/mirror"), forgery.where)
        if path is None or self._keeps_caches:
            return
        if forgery.how % 3:
            with open(path, "r+b") as file:
                file.truncate(forgery.how)
        else:
            os.unlink(path)

    def _forge_catalogue(self, forgery: Forgery) -> None:
        """Delete, tear, edit or replace a published file of both mirrors."""
        output = OUTPUTS[forgery.how % 8 == 7]
        directory = f"{self._places[0]}/{output}/streams/v1"
        if not os.path.isdir(directory):
            return
        name = choose(sorted(_read_catalogue(f"{self._places[0]}/{output}")), forgery.where)
        if name is None:
            return
        data: bytes | None = Path(f"{directory}/{name}").read_bytes()
        assert data is not None
        if forgery.kind == "delete published":
            data = None
        elif forgery.kind == "torn published":
            data = data[: len(data) * (forgery.how % 4) // 4]
        elif forgery.kind == "edited published":
            data = _edit(data, forgery.how)
        elif forgery.kind == "older published":
            data = choose(self._catalogues.get(name, []), forgery.how) or data
        else:
            name = ("other.json", "index.json", "daily.json")[forgery.how % 3]
        for place in self._places:
            path = f"{place}/{output}/streams/v1/{name}"
            times = None
            with suppress(OSError):
                times = os.stat(path)
            if data is None:
                with suppress(FileNotFoundError):
                    os.unlink(path)
                continue
            Path(path).write_bytes(data)
            if times is not None and forgery.how % 2:
                os.utime(path, ns=(times.st_mtime_ns, times.st_mtime_ns))

    def _forge_note(self, forgery: Forgery) -> None:
        """Write what is withdrawn or where else the tree is published, as an operator does."""
        output = OUTPUTS[forgery.how % 8 == 7]
        for number, place in enumerate(self._places):
            directory = f"{place}/{output}/streams"
            os.makedirs(directory, exist_ok=True)
            if forgery.kind == "outputs":
                path = f"{place}/mirror/.outputs.json"
                outputs = [f"{place}/output", f"{place}/third"][: forgery.how % 3]
                data = json.dumps(outputs).encode() if forgery.where % 4 else b"{"
            elif forgery.kind == "damaged":
                path = f"{directory}/.damaged.json"
                data = self._note_damage(number, forgery) if forgery.where % 4 else b"{}"
            else:
                path = f"{directory}/.withdrawn.json"
                data = self._note_withdrawals(forgery)
            if forgery.how % 5 == 4:
                with suppress(FileNotFoundError):
                    os.unlink(path)
            else:
                Path(path).write_bytes(data)

    def _note_withdrawals(self, forgery: Forgery) -> bytes:
        if forgery.where % 16 == 15:
            return b"{"
        versions = self.tree.directories(6)
        notes: dict[str, dict[str, object]] = {}
        for number in range(forgery.where % 3):
            path = choose(versions, forgery.how + number)
            if path is not None:
                files = ["rootfs.squashfs", "lxd.tar.xz"][: forgery.where // 3 % 3]
                times = {"withdrawn_at": 1.0} if forgery.how % 2 else {}
                notes[path] = {**({"files": files} if files else {}), **times}
        return json.dumps(notes).encode("utf-8", "replace")

    def _note_damage(self, number: int, forgery: Forgery) -> bytes:
        """Return a record with one file that is not damaged, and was not changed since."""
        version = self.tree.version(forgery.where)
        path = None if version is None else choose(self.tree.files(version), forgery.how)
        if path is None or not self._keeps_caches:
            return b"{}"
        try:
            status = os.stat(self.tree.paths(path)[number])
        except OSError:
            return b"{}"
        from fastindex.system.stamps import stamp_of

        note = {"key": stamp_of(status).key, "sha256": "0" * 64 if forgery.how % 2 else ""}
        return json.dumps({path: {**note, "changed_ns": status.st_ctime_ns}}).encode()


STATE_FORGERIES = (
    "delete state",
    "delete all state",
    "torn state",
    "flipped state",
    "older state",
    "state of a twin",
    "state of another mirror",
    "state of another file",
)
CATALOGUE_FORGERIES = (
    "delete published",
    "torn published",
    "edited published",
    "older published",
    "published elsewhere",
)
CACHE_FORGERIES = ("cache",)
NOTE_FORGERIES = ("withdrawn", "outputs", "damaged")

_OUTSIDE = {
    "rootfs.squashfs": make_content("rootfs.squashfs", b"outside"),
    "incus.tar.xz": make_content("incus.tar.xz", b"outside"),
    ".requirements": b'{"nesting": "true"}',
    "image.yaml": b"simplestream:\n  distro_name: Outside\n",
}


def _run_upkeep(mirror: fastindex.Mirror, run: Run, target: str) -> PruneReport:
    if run.operation == "prune":
        return mirror.prune(
            keep=1 + run.what % 2,
            grace_seconds=run.what // 2 % 2 * 7200,
            settle_seconds=run.settle_seconds,
            jobs=run.jobs,
            dry_run=run.dry_run,
        )
    if run.operation == "remove":
        grace_seconds = run.what // 2 % 2 * 7200
        return mirror.remove([target], grace_seconds=grace_seconds, dry_run=run.dry_run)
    return mirror.restore([target], dry_run=run.dry_run)


def _is_noticed(finding: Finding) -> bool:
    """Return whether a run with state must tell of it, too.

    An unchanged run makes no call for the mode of a directory.
    """
    return finding.code is not Code.NOT_SERVABLE or "a+rx" not in finding.remedy


def _select(report: BuildReport | PruneReport | None) -> Outcome:
    """Return what of a report must be the same."""
    if report is None:
        return {}
    if isinstance(report, PruneReport):
        names = ("withdrawn", "deleted", "waiting", "restored", "steps", "exit_code")
        selected = {f"upkeep's {name}": getattr(report, name) for name in names}
        findings = {"upkeep's findings": sorted(map(repr, filter(_is_noticed, report.findings)))}
        return {**_select(report.built), **selected, **findings}
    return {
        "products": report.products,
        "versions": report.versions,
        "settling": report.versions_settling,
        "findings": sorted(map(repr, filter(_is_noticed, report.findings))),
        "changes": sorted(map(repr, report.changes)),
        "refusal": report.refusal,
        "product_files": report.product_files,
        "would_write": report.would_write,
        "wrote": report.wrote,
        "exit_code": report.exit_code,
    }


def _forget_consequences(outcome: Outcome) -> Outcome:
    """Return ``outcome`` without what follows from a file that is not what its name says.

    A version's metadata may be known from its cache, and can be held against a SHA256SUMS. Without
    a cache it is not read if the root fails, and the version has no file that could be read.
    """
    findings = outcome.get("findings")
    if not isinstance(findings, list):
        return outcome
    misfits = {
        _directory_of(finding)
        for finding in findings
        if "code=<Code.WRONG_CONTENT" in finding or "code=<Code.TRUNCATED" in finding
    }
    kept = [
        finding
        for finding in findings
        if not re.search(
            r"code=<Code\.(INCOMPLETE_VERSION|CHECKSUM_MISMATCH|BAD_CHECKSUMS)", finding
        )
        or not {_path_of(finding), _directory_of(finding)} & misfits
    ]
    return {**outcome, "findings": kept}


def _path_of(finding: str) -> str:
    match = re.search(r"path='([^']*)'", finding)
    return match[1] if match else ""


def _directory_of(finding: str) -> str:
    return os.path.dirname(_path_of(finding))


def _normalise(value: object, place: str) -> object:
    """Return ``value`` as a mirror at any place would say it."""
    if isinstance(value, str):
        return value.replace(place, "PLACE")
    if isinstance(value, list | tuple):
        return sorted(_normalise(str(one), place) for one in value)  # type: ignore[type-var]
    return value


def _list_states(directory: str) -> list[str]:
    """Return the files in ``streams/`` that make runs faster, sorted."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    paths = [f"{directory}/{name}" for name in sorted(names)]
    return [
        path
        for path in paths
        if (name := os.path.basename(path))[0] == "."
        and name not in KEPT_NOTES
        and os.path.isfile(path)
    ]


def _list_caches(root: str) -> list[str]:
    """Return the caches in a tree and in its cache directory, sorted."""
    return sorted(
        os.path.join(directory, ".items.json")
        for directory, _, names in os.walk(root)
        if ".items.json" in names
    )


def _read_catalogue(output: str) -> dict[str, bytes]:
    """Return the visible files in ``streams/v1`` by name."""
    try:
        names = os.listdir(f"{output}/streams/v1")
    except OSError:
        return {}
    return {
        name: Path(f"{output}/streams/v1/{name}").read_bytes() for name in names if name[0] != "."
    }


def _show_difference(one: bytes | None, other: bytes | None) -> str:
    """Return where two files differ, for people."""
    if one is None or other is None:
        return f"the {'subject' if one is None else 'reference'} has none"
    pairs = enumerate(zip(one, other, strict=False))
    at = next((number for number, (a, b) in pairs if a != b), min(len(one), len(other)))
    nearby = slice(max(0, at - 150), at + 150)
    return f"from byte {at:,} on:\nsubject:   {one[nearby]!r}\nreference: {other[nearby]!r}"


def _edit(data: bytes, how: int) -> bytes:
    """Return a published file as somebody could have edited it."""
    try:
        document: dict[str, Any] = json.loads(data)
        products: dict[str, Any] = document.get("products") or document["index"]
        key = choose(sorted(products), how)
        assert key is not None
        entry = products[key]
        if how % 6 == 0:
            del products[key]
        elif how % 6 == 1:
            entry["aliases"] = "mine"
        elif how % 6 == 2:
            del entry["versions"][min(entry["versions"])]
        elif how % 6 == 3:
            document["products"] = dict(reversed(products.items()))
        elif how % 6 == 4:
            return data.replace(b"debian", b"DEBIAN")
        else:
            return json.dumps(document, indent=1).encode()
        return json.dumps(document, separators=(",", ":")).encode()
    except (ValueError, KeyError, TypeError, AssertionError, AttributeError):
        return data[::-1]


@cache
def _list_foreign_states() -> dict[str, list[bytes]]:
    """Return what runs leave in another mirror, by name."""
    with TemporaryDirectory() as directory:
        for name in ("20240505_05:24", "20240506_05:24"):
            write_tree(Path(directory), version(f"debian/12/amd64/default/{name}"))
        fastindex.Mirror(directory).build(jobs=1)
        return {
            os.path.basename(path): [Path(path).read_bytes()]
            for path in _list_states(f"{directory}/streams")
        }


# The world as runs see it.


@cache
def _find_modules(name: str, value: object) -> Sequence[Any]:
    """Return the modules of fastindex in which ``name`` stands for ``value``."""
    load_all_modules()
    return [
        module
        for path, module in sys.modules.items()
        if path.startswith("fastindex") and getattr(module, name, None) == value
    ]


class _Datetime(datetime):
    """Asks the clock of this module instead of the system's."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> _Datetime:
        return cls.fromtimestamp(time.time(), tz)


@contextmanager
def _clock(now_ns: int) -> Iterator[None]:
    """Let the clock stand still."""
    with ExitStack() as stack:
        stack.enter_context(patch("time.time_ns", lambda: now_ns))
        stack.enter_context(patch("time.time", lambda: now_ns / SECOND_NS))
        for module in _find_modules("datetime", datetime):
            stack.enter_context(patch.object(module, "datetime", _Datetime))
        yield


@contextmanager
def _program(number: int) -> Iterator[None]:
    """Let this be another version of the program, with other aliases; 0: itself."""
    with ExitStack() as stack:
        for module in _find_modules("__version__", fastindex.__version__) if number else ():
            stack.enter_context(patch.object(module, "__version__", f"0.{number}"))
        for module in _find_modules("default_aliases", default_aliases) if number else ():
            stack.enter_context(
                patch.object(
                    module,
                    "default_aliases",
                    lambda *names: [*default_aliases(*names), f"{'/'.join(names)}/{number}"],
                )
            )
        yield


class _Interrupted(BaseException):
    """As KeyboardInterrupt."""


_CALLS = (
    *("open", "write", "writev", "pwrite", "pwritev", "sendfile", "copy_file_range", "truncate"),
    *("ftruncate", "rename", "replace", "unlink", "mkdir", "fsync", "link", "utime"),
)
"""Functions of ``os`` that change something; of ``open``, only what may make a file."""


@contextmanager
def _disturbed(disturbance: Disturbance) -> Iterator[None]:
    """Let a call that changes something be the last, or fail."""
    count = 0

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def disturbed(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            if name == "open" and not (len(arguments) > 1 and arguments[1] & os.O_CREAT):
                return call(*arguments, **options)
            count += 1
            if count == disturbance.call:
                if name == "write":
                    call(arguments[0], memoryview(arguments[1])[: len(arguments[1]) // 2])
                if disturbance.kind == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if disturbance.kind == "interrupt":
                    raise _Interrupted
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*arguments, **options)

        return disturbed

    with ExitStack() as stack:
        for name in _CALLS:
            stack.enter_context(patch.object(os, name, wrap(name, getattr(os, name))))
        yield

"""``import fastindex``: what the commands do, from a program.

Whatever the mirror, the options or the system are like, a method ends in a report or in a
FastindexError: the table below tries what an engineer or a stranger could come up with.
"""

from __future__ import annotations

import gc
import math
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import fastindex
from fastindex.hashing import batches, pool
from fastindex.hashing.engine import usable_engine
from fastindex.hashing.tasks import EngineSetup
from tests.support.command import UNMEASURED
from tests.support.trees import in_stream, published, version, write_tree

IMAGE = "debian/12/amd64/default/20240505_05:24"
SOURCE = f"images/{IMAGE}"
SIZE_BYTES = sum(len(content) for content in version().values() if isinstance(content, bytes))
METHODS: dict[str, Callable[[fastindex.Mirror], object]] = {
    "build": lambda mirror: mirror.build(),
    "build, dry": lambda mirror: mirror.build(dry_run=True),
    "rehash": lambda mirror: mirror.build(rehash=True, force=True),
    "diff": lambda mirror: mirror.diff(),
    "import_images": lambda mirror: mirror.import_images([mirror.root], mode="copy"),
    "list": lambda mirror: mirror.list(),
    "prune": lambda mirror: mirror.prune(keep=1, grace_seconds=0),
    "prune, dry": lambda mirror: mirror.prune(keep=1, dry_run=True),
    "remove": lambda mirror: mirror.remove(["debian/12"]),
    "restore": lambda mirror: mirror.restore([IMAGE]),
    "verify": lambda mirror: mirror.verify(),
}


def failure(call: Callable[[], object]) -> fastindex.FastindexError | None:
    """Return the error of ``call``, if it has one; any other exception fails the test."""
    try:
        call()
    except fastindex.FastindexError as error:
        return error
    return None


@pytest.fixture
def mirror(tmp_path: Path) -> fastindex.Mirror:
    """Return a published mirror of two versions."""
    root = write_tree(
        tmp_path / "root", {**version(IMAGE), **version("debian/12/amd64/default/20240506_05:24")}
    )
    mirror = fastindex.Mirror(root)
    mirror.build()
    return mirror


def test_build_reports_what_it_did(tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), **version("debian/12/amd64/default/latest")})
    report = fastindex.Mirror(tmp_path).build()
    assert (report.products, report.versions) == (1, 1)
    assert (report.files_hashed, report.files_reused, report.bytes_read) == (2, 0, SIZE_BYTES)
    assert report.versions_left_out == 1
    assert report.exit_code is fastindex.ExitCode.LEFT_OUT
    assert report.wrote == ("streams/v1/images.json", "streams/v1/index.json")
    (finding,) = report.findings
    assert finding.path == "images/debian/12/amd64/default/latest"
    again = fastindex.Mirror(tmp_path).build()
    assert (again.files_hashed, again.files_reused, again.wrote) == (0, 2, ())
    assert again.findings == report.findings


def test_build_takes_an_executor_and_tells_an_observer(tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), **version("debian/12/amd64/default/latest")})
    told: list[object] = []

    class Listener(fastindex.Observer):
        wants_progress = True

        def hashing_started(self, total_bytes: int) -> None:
            told.append(total_bytes)

        def bytes_hashed(self, done_bytes: int) -> None:
            told.append(done_bytes)

        def hashing_finished(self) -> None:
            told.append("end")

        def warn(self, finding: fastindex.Finding) -> None:
            told.append(finding)

        def log(self, message: str) -> None:
            told.append(message)

    with ThreadPoolExecutor(2) as executor:
        mirror = fastindex.Mirror(tmp_path)
        mirror.build(blake3=False, executor=executor, observer=Listener())
    note = "images/debian/12/amd64/default/20240505_05:24: hashed"
    warned = told.pop()
    assert str(told.pop(0)).startswith("scanned 7 directories and 4 files in ")
    name = usable_engine(EngineSetup("auto")).name
    assert told == [f"SHA-256 by {name}", SIZE_BYTES, SIZE_BYTES, note, "end"]
    assert isinstance(warned, fastindex.Finding)
    assert len(published(tmp_path)) == 1


def test_a_dry_run_reports_changes_and_the_product_file(tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    report = fastindex.Mirror(tmp_path).build(dry_run=True)
    assert report.changes == (
        fastindex.Change(
            "added",
            "images",
            "debian:12:amd64:default",
            "20240505_05:24",
            SIZE_BYTES,
            tuple(f"images/{IMAGE}/{name}" for name in ("incus.tar.xz", "rootfs.squashfs")),
        ),
    )
    assert b"debian:12:amd64:default" in report.product_files["images"]
    assert not (tmp_path / "streams").exists()


def test_a_build_reports_what_it_changes_if_asked(tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    mirror = fastindex.Mirror(tmp_path)
    expected = mirror.build(dry_run=True).changes
    report = mirror.build(list_changes=True)
    assert report.changes == expected != ()
    assert report.wrote == ("streams/v1/images.json", "streams/v1/index.json")
    assert mirror.build(list_changes=True).changes == ()
    assert mirror.build(list_changes=True, rehash=True).changes == ()


def test_the_time_of_a_build_is_told_by_stage(tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    for rehash in (False, False, True):
        report = fastindex.Mirror(tmp_path).build(rehash=rehash)
        parts = (report.scanning_seconds, report.hashing_seconds, report.publishing_seconds)
        assert 0 < sum(parts) <= report.seconds


def test_the_status_is_what_the_command_tells(tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    mirror = fastindex.Mirror(tmp_path)
    with pytest.raises(fastindex.TreeError):
        mirror.status()
    mirror.build()
    report = mirror.status()
    assert [(one.name, one.versions, one.size_bytes) for one in report.streams] == [
        ("images", 1, SIZE_BYTES)
    ]
    assert report.exit_code == 0
    assert mirror.status(max_age_seconds=86400).exit_code == 3
    with pytest.raises(fastindex.UsageError):
        mirror.status(max_age_seconds=-1)


class Counter(fastindex.Observer):
    """Notes what is counted."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def counting_started(self, activity: str, unit: str, total: int) -> None:
        self.told.append((activity, unit, total))

    def counted(self, done: int) -> None:
        self.told.append(done)

    def counting_finished(self) -> None:
        self.told.append("end")


def test_scans_and_deletions_are_counted(tmp_path: Path) -> None:
    for day in (1, 2):
        write_tree(tmp_path, version(f"debian/12/amd64/default/2024050{day}_05:24"))
    write_tree(tmp_path, version("alpine/3/amd64/default/20240501_05:24"))
    mirror, first, second = fastindex.Mirror(tmp_path), Counter(), Counter()
    mirror.build(observer=first)
    assert first.told == [("scanning", "product", 0), 0, 1, "end"]  # nobody knows how many
    mirror.build(observer=second)
    assert second.told == [("scanning", "product", 2), 0, 1, "end"]
    mirror.prune(keep=1)
    last = Counter()
    mirror.prune(keep=1, grace_seconds=0, observer=last)
    start = last.told.index(("deleting", "version", 1))
    assert last.told[start : start + 3] == [("deleting", "version", 1), 0, "end"]


def test_errors_share_one_base_and_carry_their_code(tmp_path: Path) -> None:
    with pytest.raises(fastindex.TreeError) as caught:
        fastindex.Mirror(tmp_path).build()
    assert isinstance(caught.value, fastindex.FastindexError)
    assert caught.value.exit_code == 1
    with pytest.raises(fastindex.UsageError):
        fastindex.Mirror(tmp_path).build(jobs=0)


@pytest.mark.parametrize("argument", ["root", "output", "cache_dir"])
@pytest.mark.parametrize("path", ["", "\0", "a\0b", "\ud800", b"x", b""])
def test_what_cannot_be_a_path_is_wrong_usage(
    mirror: fastindex.Mirror, argument: str, path: Any
) -> None:
    arguments = {"root": mirror.root, argument: path}
    with pytest.raises(fastindex.UsageError, match="cannot be a path"):
        fastindex.Mirror(**arguments)
    with pytest.raises(fastindex.UsageError, match="cannot be a path"):
        mirror.import_images([path])


@pytest.mark.parametrize("argument", ["root", "output", "cache_dir"])
@pytest.mark.parametrize(
    "path", ["\udc80", "a\nb", "x" * 300, "/".join(["x" * 200] * 40), "/dev/null", "..", "a/../b"]
)
def test_an_odd_path_is_a_report_or_our_error(
    mirror: fastindex.Mirror,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    argument: str,
    path: str,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    arguments: dict[str, Any] = {"root": mirror.root, argument: path}
    for method, call in METHODS.items():
        error = failure(partial(call, fastindex.Mirror(**arguments)))
        if argument == "root" and (method, path) != ("import_images", ".."):
            assert isinstance(error, fastindex.TreeError), method


def call_at(call: Callable[[fastindex.Mirror], object], root: str | Path) -> None:
    call(fastindex.Mirror(root))


def chain_of_links(directory: Path) -> Path:
    """Make more symlinks, each to the next, than anything follows; return the first."""
    directory.mkdir()
    target = directory
    for number in range(1500):
        link = directory / str(number)
        link.symlink_to(target)
        target = link
    return target


def test_a_stream_that_has_moved_to_another_disk_is_still_the_mirrors(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", version())
    mirror = fastindex.Mirror(root)
    assert mirror.build().exit_code == 0
    (root / "images").rename(tmp_path / "disk")
    (root / "images").symlink_to(tmp_path / "disk")
    report = mirror.build(rehash=True)
    assert (report.findings, report.exit_code) == ((), 0)


def test_links_that_nothing_follows_are_our_error(mirror: fastindex.Mirror, tmp_path: Path) -> None:
    chain = chain_of_links(tmp_path / "chain")
    # From 3.13 on, Python resolves what is before the dots, however many links there are.
    roots = (chain,) if sys.version_info >= (3, 13) else (chain, f"{chain}/..")
    for root in roots:
        for call in METHODS.values():
            error = failure(partial(call_at, call, root))
            assert isinstance(error, fastindex.TreeError | fastindex.UsageError)
    (Path(mirror.root) / "daily").symlink_to(chain)
    with pytest.raises(fastindex.TreeError, match="daily"):
        fastindex.Mirror(mirror.root, streams=["daily"]).build()
    assert mirror.import_images([chain]).failed == 1


@pytest.mark.parametrize("day", ["20240505_05:24", "20240506_05:24"])
def test_an_uploader_who_links_without_end_does_not_stop_a_prune(
    mirror: fastindex.Mirror, tmp_path: Path, day: str
) -> None:
    write_tree(Path(mirror.root), version("debian/12/amd64/default/20240507_05:24"))
    mirror.build()
    assert mirror.prune(keep=2).withdrawn == (SOURCE,)
    place = Path(mirror.root, SOURCE).with_name(day)
    shutil.rmtree(place)
    place.symlink_to(chain_of_links(tmp_path / "chain"))
    assert failure(lambda: mirror.prune(keep=2, grace_seconds=0)) is None


def test_a_deleted_current_directory_is_our_error(
    mirror: fastindex.Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for path in (".", "images", "a/../b"):
        with pytest.raises(fastindex.ResourceError, match="give an absolute path"):
            fastindex.Mirror(path)
    assert mirror.build().versions == 2


@pytest.mark.parametrize(
    "streams",
    [
        *("images", b"images", [], [""], ["\0"], ["\ud800"], [".."], ["a/b"], ["streams"]),
        *([5], ["images", "images"]),
    ],
)
def test_what_cannot_be_streams_is_wrong_usage(tmp_path: Path, streams: Any) -> None:
    with pytest.raises(fastindex.UsageError, match="stream"):
        fastindex.Mirror(tmp_path, streams=streams)


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("build", {"jobs": 0}),
        ("build", {"jobs": 1.5}),
        ("verify", {"jobs": -1}),
        ("diff", {"engine": "none"}),
        ("build", {"settle_seconds": -1}),
        ("build", {"settle_seconds": math.nan}),
        ("build", {"wait_seconds": -1}),
        ("build", {"wait_seconds": math.nan}),
        ("build", {"recheck": "x"}),
        ("build", {"recheck": "0/1"}),
        ("build", {"recheck": "2/1"}),
        ("prune", {"keep": 0}),
        ("prune", {"keep": -3}),
        ("prune", {"keep": math.nan}),
        ("prune", {"keep_days": -1}),
        ("prune", {"keep_days": math.nan}),
        ("prune", {"grace_seconds": -1}),
        ("prune", {"grace_seconds": math.nan}),
        ("verify", {"method": "slow"}),
        ("remove", {"names": "debian/12"}),
        ("remove", {"names": b"debian/12"}),
        ("remove", {"names": [""]}),
        ("remove", {"names": ["\0"]}),
        ("remove", {"names": [b"debian/12"]}),
        ("restore", {"versions": IMAGE}),
        ("restore", {"versions": [""]}),
        ("restore", {"versions": ["\0"]}),
        ("restore", {"versions": [5]}),
        ("import_images", {"sources": "images"}),
        ("import_images", {"sources": Path("images")}),
        ("import_images", {"sources": []}),
        ("import_images", {"sources": [SOURCE], "mode": "steal"}),
    ],
)
def test_values_that_make_no_sense_are_wrong_usage(
    mirror: fastindex.Mirror, method: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(fastindex.UsageError):
        getattr(mirror, method)(**wrong)
    assert mirror.build().versions == 2


@pytest.mark.parametrize(
    ("method", "wide"),
    [
        ("build", {"settle_seconds": math.inf}),
        ("build", {"settle_seconds": 1e300}),
        ("build", {"wait_seconds": math.inf}),
        ("build", {"jobs": 10**30}),
        ("prune", {"keep": 10**30}),
        ("prune", {"keep_days": 10**30}),
        ("prune", {"grace_seconds": math.inf}),
        ("prune", {"settle_seconds": math.inf, "dry_run": True}),
        ("remove", {"names": []}),
        ("restore", {"versions": []}),
    ],
)
def test_values_without_end_are_taken_as_they_are(
    mirror: fastindex.Mirror, method: str, wide: dict[str, Any]
) -> None:
    error = failure(lambda: getattr(mirror, method)(**wide))
    is_empty_on_purpose = wide.get("settle_seconds") is not None
    assert error is None or is_empty_on_purpose


@pytest.mark.parametrize("name", ["\0", "a/b", "\ud800", "..", "x" * 300, " ", ":"])
@pytest.mark.parametrize("field", ["os", "release", "arch", "variant", "version"])
def test_names_that_the_tree_cannot_have_are_findings(
    mirror: fastindex.Mirror, tmp_path: Path, field: str, name: str
) -> None:
    source = write_tree(tmp_path / "made", {"rootfs.squashfs": b"hsqs", "image.img": b"x"})
    names: Any = {field: name}  # mypy cannot see that they are strings
    report = mirror.import_images([source, Path(mirror.root) / SOURCE], mode="copy", **names)
    assert report.failed == 2
    assert report.imported == ()


PLACES = (
    "streams",
    "streams/v1",
    "streams/.lock",
    "streams/v1/index.json",
    "streams/v1/images.json",
    "streams/.withdrawn.json",
    "streams/.damaged.json",
    "streams/.snapshot.json",
    "streams/.products-images.state",
    "images",
    "images/.requirements",
    f"{SOURCE}/.items.json",
)
CONTENTS: dict[str, bytes | None] = {
    "a directory": None,
    "empty": b"",
    "torn": b"{",
    "zeros": bytes(50),
    "deep": b"[" * 100_000,
    "not UTF-8": b"\xff",
    "null": b"null",
    "surrogate": b'{"\\ud800":1}',
    "huge number": b"1" * 5000,
    "null byte": b'{"images/\\u0000":{"files":["\\u0000"],"unpublished_at":5}}',
    "null byte in a file": b'{"%s":{"files":["\\u0000"],"unpublished_at":5}}' % SOURCE.encode(),
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("place", PLACES)
def test_a_spoiled_tree_is_a_report_or_our_error(
    mirror: fastindex.Mirror, place: str, content: str
) -> None:
    path = Path(mirror.root) / place
    for method, call in METHODS.items():
        spoil(path, CONTENTS[content])
        error = failure(partial(call, mirror))
        assert error is None or error.exit_code in {1, 2}, method


def spoil(path: Path, content: bytes | None) -> None:
    """Put a file of ``content``, or a directory, in the place of ``path``."""
    if path.is_dir():
        shutil.rmtree(path)
    for parent in path.parents:
        if parent.is_file():
            parent.unlink()
    path.unlink(missing_ok=True)
    write_tree(
        path.parent, {f"{path.name}/file": b"x"} if content is None else {path.name: content}
    )


def test_an_executor_that_takes_no_work_is_our_error(mirror: fastindex.Mirror) -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(fastindex.ResourceError, match="shut down"):
        mirror.build(rehash=True, executor=executor)
    with pytest.raises(fastindex.ResourceError, match="shut down"):
        mirror.verify(method="sha256", executor=executor)


def test_a_lack_of_threads_is_our_error(
    mirror: fastindex.Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(batches, "BATCH_BYTES", 1)
    monkeypatch.setattr(pool, "LITTLE_BYTES", 0)
    monkeypatch.setattr(pool, "LITTLE_TASKS", 0)
    monkeypatch.setattr("threading.active_count", lambda: 2)
    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor.submit", refuse)
    with pytest.raises(fastindex.ResourceError, match="use fewer --jobs"):
        mirror.build(rehash=True, jobs=2)


def test_public_names_and_no_others_are_listed() -> None:
    assert dir(fastindex) == sorted([*fastindex.__all__, "__version__"])
    for name in fastindex.__all__:
        value = getattr(fastindex, name)
        assert value.__doc__
        assert value.__name__ == name
        get_type_hints(value)  # for programs that read them, as documentation tools do
    with pytest.raises(AttributeError):
        fastindex.no_such_name  # noqa: B018


EVERY_NAME = Path(__file__).with_name("every_public_name.py")


def test_a_program_that_uses_every_public_name_is_well_typed(tmp_path: Path) -> None:
    if find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    text = EVERY_NAME.read_text()
    assert [name for name in fastindex.__all__ if f"fastindex.{name}" not in text] == []
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        tmp_path,
        EVERY_NAME,
    ]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_reports_are_frozen(mirror: fastindex.Mirror) -> None:
    reports = [
        mirror.build(),
        mirror.import_images([mirror.root], mode="copy"),
        mirror.verify(),
        mirror.prune(),
        *mirror.list(),
        *mirror.import_images([mirror.root], mode="copy").findings,
    ]
    assert len({type(report) for report in reports}) == 6
    for report in reports:
        field = type(report).__struct_fields__[0]
        with pytest.raises(AttributeError):
            setattr(report, field, None)


def test_an_observer_does_nothing_of_itself() -> None:
    observer = fastindex.Observer()
    before = dict(vars(observer))
    answers = (
        observer.hashing_started(1),  # type: ignore[func-returns-value]
        observer.bytes_hashed(1),  # type: ignore[func-returns-value]
        observer.hashing_finished(),  # type: ignore[func-returns-value]
        observer.warn(fastindex.Finding(fastindex.Code.UNREADABLE, "path", "problem", "remedy")),  # type: ignore[func-returns-value]
        observer.log("message"),  # type: ignore[func-returns-value]
    )
    assert answers == (None,) * 5
    assert not observer.wants_progress
    assert vars(observer) == before == {}


@pytest.mark.parametrize("is_enabled", [True, False])
def test_a_build_leaves_the_garbage_collector_alone(
    mirror: fastindex.Mirror, is_enabled: bool
) -> None:
    assert gc.isenabled()
    try:
        if not is_enabled:
            gc.disable()
        mirror.build(rehash=True)
        assert gc.isenabled() == is_enabled
    finally:
        gc.enable()


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """Return a tree whose files are worth two workers."""
    root = tmp_path / "big"
    for number in range(2):
        files = version(f"debian/{number}/amd64/default/20240505_05:24")
        write_tree(root, {path: f"{number}".encode() + bytes(36 << 20) for path in files})
    return root


def test_a_build_with_workers_warns_of_nothing(big: Path) -> None:
    code = (
        "import fastindex, pathlib, sys\n"
        "report = fastindex.Mirror(pathlib.Path(sys.argv[1])).build(jobs=2)\n"
        "print(report.versions, 'multiprocessing' in sys.modules)"
    )
    command: list[str | Path] = [sys.executable, "-W", "error", "-c", code, big]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.stdout, result.stderr) == ("2 True\n", "")


def test_a_build_works_in_a_thread_of_a_program_without_a_main_guard(
    big: Path, tmp_path: Path
) -> None:
    program = tmp_path / "host.py"
    program.write_text(
        textwrap.dedent("""\
            import gc, signal, sys, threading
            import fastindex

            print("started", flush=True)  # once: no worker runs this program again
            numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            handlers = [signal.getsignal(number) for number in numbers]
            reports = []

            def build():
                reports.append(fastindex.Mirror(sys.argv[1]).build(jobs=2))

            thread = threading.Thread(target=build)
            thread.start()
            turns = 0
            while thread.is_alive():
                turns += 1
                assert gc.isenabled()
            (report,) = reports
            assert handlers == [signal.getsignal(number) for number in numbers]
            print(report.versions, report.files_hashed, report.exit_code.name, turns > 10)
        """)
    )
    command: list[str | Path] = [sys.executable, "-W", "error", program, big]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.stdout, result.stderr) == ("started\n2 4 DONE True\n", "")


def test_the_command_starts_without_the_heavy_modules() -> None:
    code = (
        "import sys; from fastindex.cli import main; main.main(['--version']);"
        "print(sorted({'msgspec', 'tqdm', 'multiprocessing'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=UNMEASURED, capture_output=True, check=True
    )
    assert result.stdout.splitlines()[-1] == b"[]"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """A service may build for years, beside streams that others build."""
    write_tree(tmp_path, version("debian/12/amd64/default/20240101"))
    write_tree(tmp_path, in_stream("daily", version("alpine/3/amd64/default/20240101")))
    fastindex.Mirror(tmp_path, streams=["images", "daily"]).build()
    mirror = fastindex.Mirror(tmp_path)
    before = set(os.listdir("/proc/self/fd"))
    for day in (2, 3):
        write_tree(tmp_path, version(f"debian/12/amd64/default/2024010{day}"))
        mirror.build(jobs=1)
        mirror.prune(keep=1, grace_seconds=0, jobs=1)
    assert set(os.listdir("/proc/self/fd")) <= before

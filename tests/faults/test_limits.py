"""A system that is out of something: a message and an exit code, and a whole catalogue."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import fastindex
from fastindex.errors import FastindexError, ResourceError
from fastindex.hashing.batches import BATCH_BYTES
from fastindex.system import listing
from tests.support.builders import Workshop
from tests.support.command import COMMAND, UNMEASURED, AsNobody
from tests.support.faults.scenarios import check_caches, check_files, generation
from tests.support.trees import OLD_NS, forget_state, version, write_tree

VERSIONS = 260
"""So many tasks that workers are started."""
CROWD = {
    path: content
    for number in range(VERSIONS)
    for path, content in version(f"crowd/{number}/amd64/default/20240501_05:24").items()
}
ADDED = version("debian/12/amd64/default/20240501_05:24")
MIB = 1 << 20
SIZES_MIB = [512, 44, 40, 36, 30, 26, 24, 22, 20, 18, 16, 14]
"""Of address space, down to where Python itself does not start."""
ALL_SIZES_MIB = [512, *range(100, 8, -1)]
ENVIRONMENT = {key: UNMEASURED[key] for key in UNMEASURED.keys() - {"PYTHONDONTWRITEBYTECODE"}}
"""What is compiled already takes no memory for that."""
_SECONDS = 120
_HASHLIBS_OWN = "unsupported hash type"
"""In what hashlib itself logs where its extensions find no memory; the run's end follows."""


@pytest.fixture(
    params=[
        pytest.param(SIZES_MIB, id="some"),
        pytest.param(ALL_SIZES_MIB, id="all", marks=pytest.mark.campaign),
    ]
)
def sizes_mib(request: pytest.FixtureRequest) -> list[int]:
    """Return the sizes of address space to try, the largest first."""
    sizes: list[int] = request.param
    return sizes


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a mirror with a generation published, which many processes may look at."""
    root = write_tree(tmp_path_factory.mktemp("limits") / "mirror", CROWD)
    for words in (["-q"], ["list"]):
        assert limited([COMMAND, *words, root]).returncode == 0
    return root


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    """Return a mirror with a generation published, and something to add."""
    copy = tmp_path / "mirror"
    subprocess.run(["cp", "-a", pristine, copy], check=True)
    return write_tree(copy, ADDED)


class Mirror:
    """A mirror that limited runs are tried on.

    Args:
        root: of the mirror, with a version to add.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.before = generation(root)

    def holds(self, done: subprocess.CompletedProcess[str]) -> None:
        """See that a run ended in order and lost nothing; then that the next one does all."""
        told = f"{done.args}: {done.returncode}\n{done.stderr}"
        assert "Traceback" not in done.stderr or _HASHLIBS_OWN in done.stderr, told
        assert done.returncode in {0, 1}, told
        assert (done.returncode == 0) or "fastindex: error: " in done.stderr, told
        published = generation(self.root)
        assert published == self.before or _versions(published) == VERSIONS + 1, told
        check_files(self.root, published)
        check_caches(self.root)

    def finish(self) -> None:
        """Run without limits; all is to be published."""
        done = limited([COMMAND, "-q", self.root])
        assert (done.returncode, done.stderr) == (0, "")
        assert _versions(generation(self.root)) == VERSIONS + 1


def _versions(published: dict[str, Any]) -> int:
    (file,) = published["products"].values()
    return sum(len(product["versions"]) for product in file["products"].values())


def limited(
    command: Sequence[str | Path], limit: int | None = None, value: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` with a limit of ``resource`` set to ``value``."""

    def prepare() -> None:
        if limit is not None:
            resource.setrlimit(limit, (value, value))

    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
        env=ENVIRONMENT,
        preexec_fn=prepare,
    )


@pytest.mark.parametrize("descriptors", [32, 12])
def test_few_open_files_are_enough_or_named(root: Path, descriptors: int) -> None:
    mirror = Mirror(root)
    files = (resource.RLIMIT_NOFILE, descriptors)
    for jobs in (16, 2, 1):
        forget_state(root)
        done = limited([COMMAND, f"-j{jobs}", "--rehash", root], *files)
        mirror.holds(done)
        if done.returncode:
            assert "Too many open files); use fewer --jobs" in done.stderr
    assert done.returncode == 0  # with one job, it is enough
    for command in (["list"], ["verify", "-j1"], ["verify", "-j2"], ["diff"]):
        done = limited([COMMAND, *command, root], *files)
        mirror.holds(done)
        assert done.returncode == 0 or command == ["verify", "-j2"], done.stderr
    done = limited([COMMAND, "prune", "-j1", "--keep", "1", "--grace", "0", root], *files)
    assert (done.returncode, done.stderr[:11]) == (0, "fastindex: ")
    mirror.finish()


def test_few_open_files_are_enough_for_an_import(
    root: Path, workshop: Workshop, tmp_path: Path
) -> None:
    source = workshop.split(tmp_path / "source")
    done = limited(
        [COMMAND, "import", "--index", "--copy", "-j2", source, root], resource.RLIMIT_NOFILE, 32
    )
    assert (done.returncode, done.stdout) == (0, "images/debian/12/amd64/default/20240505_05:24\n")
    assert _versions(generation(root)) == VERSIONS + 2
    check_files(root, generation(root))


def _startable(sizes: Sequence[int]) -> list[int]:
    """Return those of the sizes (MiB of address space) in which Python comes as far as us."""
    command = [sys.executable, "-c", "import re; from fastindex.cli.main import run"]
    return [mib for mib in sizes if limited(command, resource.RLIMIT_AS, mib * MIB).returncode == 0]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_any_size_of_memory_is_enough_or_too_little_is_told(
    root: Path, jobs: int, sizes_mib: list[int]
) -> None:
    mirror = Mirror(root)
    sizes = _startable(sizes_mib)
    assert len(sizes) > 5
    codes = []
    for mib in sizes:
        forget_state(root)
        done = limited([COMMAND, f"-j{jobs}", "--rehash", root], resource.RLIMIT_AS, mib * MIB)
        mirror.holds(done)
        codes.append(done.returncode)
    assert codes[0] == 0
    assert codes[-1] == 1
    mirror.finish()


def test_as_many_threads_list_as_fit_into_little_memory(tmp_path: Path) -> None:
    for number in range(600):
        write_tree(tmp_path, version(f"debian/{number}/amd64/default/20240505_05:24"))
    done = limited(
        [COMMAND, "-j1", "-v", "--scanners", "64", tmp_path], resource.RLIMIT_AS, 512 * MIB
    )
    assert done.returncode == 0, done.stderr
    assert "2 threads" in done.stderr


def test_listing_in_little_memory_is_told(root: Path, sizes_mib: list[int]) -> None:
    mirror = Mirror(root)
    for mib in _startable(sizes_mib[-5:]):
        mirror.holds(limited([COMMAND, "list", root], resource.RLIMIT_AS, mib * MIB))


@pytest.mark.root
def test_few_processes_are_enough_or_named(root: Path, fastindex_as_nobody: AsNobody) -> None:
    mirror = Mirror(root)
    subprocess.run(["chown", "-R", "65534", root], check=True)
    for parent in root.parents[:4]:
        parent.chmod(parent.stat().st_mode | 0o005)
    codes = []
    for most in (1, 2, 3, 4, 5, 6, 8, 200):
        code, told = fastindex_as_nobody(root, "-j2", "--rehash", most_processes=most)
        mirror.holds(subprocess.CompletedProcess(f"{most} processes", code, "", told))
        assert code == 0 or "cannot start worker processes" in told, (code, told)
        codes.append(code)
    assert codes[0] == 1
    assert codes[-1] == 0
    mirror.finish()


@pytest.mark.root
def test_blake3_does_without_threads_where_none_can_be_started(
    tmp_path: Path, fastindex_as_nobody: AsNobody
) -> None:
    root = write_tree(tmp_path / "mirror", ADDED)
    for image in root.rglob("rootfs.squashfs"):
        os.truncate(image, BATCH_BYTES)
        os.utime(image, ns=(OLD_NS, OLD_NS))
    assert limited([COMMAND, "-q", root]).returncode == 0
    subprocess.run(["chown", "-R", "65534", root], check=True)
    for parent in root.parents[:4]:
        parent.chmod(parent.stat().st_mode | 0o005)
    code, told = fastindex_as_nobody(root, "verify", "-j2", most_processes=1)
    assert (code, told.splitlines()[-1].endswith("0 mismatches")) == (0, True), told


def test_a_worker_without_a_thread_ends_the_run_with_a_message(root: Path) -> None:
    mirror = Mirror(root)
    script = """
import _thread, sys
from fastindex.cli import main as cli
def fail(*arguments): raise RuntimeError("can't start new thread")
_thread.start_new_thread = fail
sys.exit(cli.main(sys.argv[1:]))
"""
    forget_state(root)
    done = limited([sys.executable, "-c", script, "-j2", "--rehash", root])
    mirror.holds(done)
    assert "cannot start worker processes (can't start new thread)" in done.stderr
    assert done.returncode == 1
    mirror.finish()


@pytest.mark.parametrize(
    ("call", "name"),
    [("scandir", "EMFILE"), ("open", "ENFILE"), ("preadv", "ENOMEM"), ("stat", "ENOMEM")],
)
def test_nothing_is_left_out_for_what_the_system_lacks(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str, name: str
) -> None:
    real = getattr(os, call)
    number = getattr(errno, name)

    def fail(path: Any, *arguments: Any, **named: Any) -> Any:
        where = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fsdecode(path)
        # In one version, and neither its cache nor the published catalogue.
        if "/crowd/7/" in where and where.endswith(("05:24", "squashfs")):
            raise OSError(number, os.strerror(number), where)
        return real(path, *arguments, **named)

    before = generation(root)
    monkeypatch.setattr(listing, "_list_directories", listing.list_in_python)
    monkeypatch.setattr(os, call, fail)
    mirror = fastindex.Mirror(root)
    if call == "stat":
        with pytest.raises(FastindexError, match=os.strerror(number)):
            mirror.verify()
    else:
        with pytest.raises(FastindexError, match=os.strerror(number)):
            mirror.build(jobs=1, rehash=True, force=True)
    if call in {"open", "preadv"}:
        with pytest.raises(FastindexError, match=os.strerror(number)):
            mirror.verify(jobs=1, method="sha256")
    assert generation(root) == before
    monkeypatch.undo()
    mirror.build(jobs=1, rehash=True, force=True)
    assert _versions(generation(root)) == VERSIONS + 1


def test_settings_are_not_left_out_for_what_the_system_lacks(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(root, {"images/debian/.requirements": b'{"nesting": "true"}'})
    real = os.open

    def fail(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith(".requirements"):
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return real(path, *arguments, **named)

    before = generation(root)
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(ResourceError, match="Too many open files"):
        fastindex.Mirror(root).build(jobs=1)
    assert generation(root) == before


def _shell(line: str, root: Path, *, is_buffered: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a line of shell, in which ``fastindex`` and ``$ROOT`` are what they should be."""
    path = f"{COMMAND.parent}:{os.environ['PATH']}"
    unbuffered = "" if is_buffered else "1"
    environment = {**ENVIRONMENT, "ROOT": str(root), "PATH": path, "PYTHONUNBUFFERED": unbuffered}
    return subprocess.run(
        ["bash", "-c", line],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


@pytest.mark.parametrize("is_buffered", [True, False])
@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("(sleep 0.5; fastindex list --json $ROOT) | true; exit ${PIPESTATUS[0]}", 1, ""),
        ("fastindex list $ROOT > /dev/full", 1, "standard output: No space left on device"),
        ("fastindex --print $ROOT > /dev/full", 1, "standard output: No space left on device"),
        ("fastindex list $ROOT >&-", 0, ""),
        ("fastindex --print $ROOT >&- 2>&-", 0, ""),
        ("fastindex verify -q --sha256 -j2 $ROOT 2>&- >&- <&-", 0, ""),
        ("fastindex list /nonexistent 2> /dev/full", 1, ""),
        ("fastindex list /nonexistent 2>&-", 1, ""),
        ("fastindex --nonsense $ROOT 2> /dev/full", 2, ""),
        ("fastindex --nonsense $ROOT 2>&-", 2, ""),
    ],
)
def test_nobody_who_listens_costs_no_more_than_the_words(
    pristine: Path, line: str, code: int, told: str, is_buffered: bool
) -> None:
    done = _shell(line, pristine, is_buffered=is_buffered)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr
    assert told or not done.stderr
    assert generation(pristine)


@pytest.mark.parametrize(
    "where",
    ["2>&-", ">&- 2>&- <&-", "2> /dev/full", "-v -j2 --rehash 2> /dev/full", "-v 2>&1 | true"],
)
def test_a_build_that_nobody_listens_to_is_done(root: Path, where: str) -> None:
    done = _shell(f"fastindex $ROOT {where}; exit ${{PIPESTATUS[0]}}", root)
    assert done.returncode == 0
    assert _versions(generation(root)) == VERSIONS + 1
    check_files(root, generation(root))


def test_a_version_that_cannot_be_told_is_an_error(pristine: Path) -> None:
    done = _shell("fastindex --version > /dev/full", pristine)
    assert done.returncode == 1
    assert done.stderr.startswith("fastindex: error: standard output: No space left on device")


_HUNGRY = """
import os, sys
from fastindex.cli import main as cli
from fastindex.hashing.digest import Digester
real, parent = Digester.take, os.getpid()
def hungry(digester, number, batch):
    if os.getpid() != parent and any("/crowd/7/" in task.root.path for task in batch.tasks):
        bytearray(b"x") * (1 << 30)
    real(digester, number, batch)
Digester.take = hungry
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def memory_group() -> Iterator[Callable[[int], Path]]:
    """Return what makes a group of processes that the kernel gives no more memory than so much."""
    name = f"fastindex-test-{os.getpid()}"
    made: list[Path] = []

    def make(most_bytes: int) -> Path:
        for top, limit in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
            group = Path("/sys/fs/cgroup", top, name)
            try:
                group.mkdir()
                made.append(group)
                (group / limit).write_text(str(most_bytes))
            except OSError:
                continue
            for swap in ("memory.memsw.limit_in_bytes", "memory.swap.max"):
                with contextlib.suppress(OSError):
                    (group / swap).write_text("0" if "max" in swap else str(most_bytes))
            return group
        pytest.skip("no right to make a memory cgroup")

    yield make
    for group in made:
        group.rmdir()


def _in_group(group: Path, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', group, *command],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def test_a_worker_that_the_kernel_kills_for_memory_costs_its_file_only(
    root: Path, memory_group: Callable[[int], Path]
) -> None:
    group = memory_group(150 * MIB)
    done = _in_group(group, [sys.executable, "-c", _HUNGRY, "-j2", "--rehash", root])
    assert "Traceback" not in done.stderr
    assert done.returncode == 3
    assert "images/crowd/7/amd64/default/20240501_05:24" in done.stderr
    assert "killed for lack of memory?" in done.stderr
    assert "use fewer --jobs" in done.stderr
    assert _versions(generation(root)) == VERSIONS  # one more, one less
    check_files(root, generation(root))
    check_caches(root)
    Mirror(root).finish()


def test_a_run_that_the_kernel_kills_for_memory_leaves_the_old_catalogue(
    root: Path, memory_group: Callable[[int], Path]
) -> None:
    mirror = Mirror(root)
    done = _in_group(memory_group(4 * MIB), [COMMAND, "-j2", "--rehash", root])
    assert done.returncode == -signal.SIGKILL
    assert generation(root) == mirror.before
    check_caches(root)
    mirror.finish()

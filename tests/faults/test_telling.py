"""What a run tells cannot be told: the publication is as it would be, and the run says so.

Reports, metrics, records, the configuration and the operator's programs, on disks that are full,
read-only or gone, and at places that are no files.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.command import COMMAND, UNMEASURED, Run, run_command
from tests.support.faults.scenarios import check_files, generation
from tests.support.file_systems import file_system_of
from tests.support.trees import published, version, write_tree

DEBIAN, ALPINE = "debian/12/amd64/default", "alpine/3.20/arm64/default"
OLD, NEW = "20240505_05:24", "20240506_05:24"
WHAT = ("report", "metrics")


@pytest.fixture
def fastindex(tmp_path: Path) -> Run:
    return partial(run_command, cwd=tmp_path, is_forgetful=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "mirror", version(f"{DEBIAN}/{OLD}"))


def assert_published(root: Path, count: int) -> None:
    """All is published, and nothing half-written lies beside it."""
    found = generation(root)
    check_files(root, found)
    assert len(published(root)) == count
    assert not list(root.rglob(".*.tmp"))


def assert_only_told(
    done: subprocess.CompletedProcess[str], what: str, path: Path, words: str
) -> None:
    """The run says what it could not write, and what to do, once, and only that."""
    assert done.returncode == 3, done.stderr
    told = f"fastindex: error: {path}: the {what} cannot be written ({words}; all else was done as"
    assert told in done.stderr, done.stderr
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr


def fill(directory: Path) -> Path:
    """Fill the file system of a directory; return the file that does."""
    path = directory / "filling"
    with pytest.raises(OSError, match="No space left"):
        path.write_bytes(bytes(2 << 20))
    assert path.stat().st_size
    return path


@contextmanager
def full(path: Path) -> Iterator[Path]:
    """Mount a file system without a free byte."""
    with file_system_of("64k", path):
        (path / "old").write_bytes(b"old\n")
        fill(path)
        yield path


@contextmanager
def read_only(path: Path) -> Iterator[Path]:
    """Mount a file system that nobody can write."""
    with file_system_of("64k", path):
        (path / "old").write_bytes(b"old\n")
        subprocess.run(["mount", "-o", "remount,ro", path], check=True)
        yield path


PLACES = (
    (full, "No space left on device); free some space there"),
    (read_only, "Read-only file system); mount it for writing"),
)


@pytest.mark.root
@pytest.mark.parametrize(("mount", "words"), PLACES)
@pytest.mark.parametrize("what", WHAT)
def test_a_disk_that_takes_no_report_costs_the_report_alone(
    fastindex: Run, root: Path, tmp_path: Path, mount: object, words: str, what: str
) -> None:
    assert callable(mount)
    other = {"report": "metrics", "metrics": "report"}[what]
    with mount(tmp_path / "place") as place:
        options = [f"--{what}", place / "old", f"--{other}", tmp_path / "told"]
        assert_only_told(fastindex(*options, root), what, place / "old", words)
        assert (place / "old").read_bytes() == b"old\n"
        assert not list(place.glob(".*"))
    assert_published(root, 1)
    assert (tmp_path / "told").stat().st_size > 100


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("kind", ["directory", "fifo", "symlink", "dangling", "device"])
def test_what_is_no_file_is_not_replaced(
    fastindex: Run, root: Path, tmp_path: Path, what: str, kind: str
) -> None:
    path = tmp_path / "told"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))  # /dev/full
        except PermissionError:
            pytest.skip("no right to make a device")
    else:
        path.symlink_to("elsewhere")
        if kind == "symlink":
            path.with_name("elsewhere").write_bytes(b"mine")
    before = path.lstat()
    done = fastindex(f"--{what}", path, root)
    words = "not a regular file); check what is there, and the disk"
    assert_only_told(done, what, path, words)
    assert_published(root, 1)
    after = path.lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    if kind == "symlink":
        assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("what", WHAT)
def test_a_directory_that_is_missing_is_made(
    fastindex: Run, root: Path, tmp_path: Path, what: str
) -> None:
    path = tmp_path / "not/yet/told"
    assert fastindex(f"--{what}", path, root).returncode == 0
    assert path.stat().st_size > 100


def test_standard_output_that_takes_no_report_costs_the_report_alone(
    root: Path, tmp_path: Path
) -> None:
    told = tmp_path / "report.json"
    with Path("/dev/full").open("wb") as full_device:
        done = subprocess.run(
            [COMMAND, "--json", "--report", told, root],
            stdout=full_device,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    words = "No space left on device); free some space there"
    assert_only_told(done, "report", Path("standard output"), words)
    assert json.loads(told.read_bytes())["exit_code"] == 0
    assert_published(root, 1)


def test_a_report_file_that_cannot_be_written_does_not_cost_the_one_on_standard_output(
    fastindex: Run, root: Path, tmp_path: Path
) -> None:
    done = fastindex("--json", "--report", tmp_path, root)
    assert done.returncode == 3
    assert json.loads(done.stdout)["build"]["versions"] == 1


@pytest.mark.parametrize("what", WHAT)
def test_a_run_that_failed_has_failed_although_it_cannot_be_told(
    fastindex: Run, root: Path, tmp_path: Path, what: str
) -> None:
    fastindex(root)
    (root / "images").rename(root / "aside")
    (root / "images").mkdir()
    assert fastindex(f"--{what}", tmp_path, root).returncode == 1


# Nights


class Night:
    """A mirror with a configuration, whose programs write what they are told."""

    def __init__(self, directory: Path, root: Path) -> None:
        self.root = root
        self.settings = directory / "fastindex.toml"
        self.log = directory / "hooked"
        self.hook = directory / "hook"
        self.hook.write_text(f'#!/bin/sh\necho "$1 $FASTINDEX_EXIT_CODE" >> {self.log}\n')
        self.hook.chmod(0o755)
        self.write()

    def write(self, *lines: str) -> None:
        """Write the configuration."""
        hooks = [f'{name} = ["{self.hook}", "{name}"]' for name in ("on_publish", "on_failure")]
        text = "\n".join(["[mirror.main]", f'root = "{self.root}"', *hooks, *lines, ""])
        self.settings.write_text(text)
        self.settings.chmod(0o600)

    def command(self) -> list[object]:
        """Return its words."""
        return ["nightly", "--config", self.settings]

    def hooked(self) -> list[str]:
        """Return what programs ran since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def night(tmp_path: Path, root: Path) -> Night:
    return Night(tmp_path, root)


@pytest.mark.root
@pytest.mark.parametrize(("mount", "words"), PLACES)
@pytest.mark.parametrize("what", WHAT)
def test_a_night_that_cannot_tell_publishes_and_runs_its_programs(
    fastindex: Run, night: Night, tmp_path: Path, mount: object, words: str, what: str
) -> None:
    assert callable(mount)
    upstream = write_tree(tmp_path / "upstream", version(f"{ALPINE}/{NEW}"))
    fastindex(upstream)
    with mount(tmp_path / "place") as place:
        source = ["[[mirror.main.pull]]", f'url = "{upstream.as_uri()}"']
        night.write(f'{what} = "{place}/old"', *source)
        assert_only_told(fastindex(*night.command()), what, place / "old", words)
    assert night.hooked() == ["on_publish 3", "on_failure 3"]
    assert_published(night.root, 2)


@pytest.mark.root
def test_a_night_on_a_full_disk_keeps_what_is_published(fastindex: Run, tmp_path: Path) -> None:
    with file_system_of("1m", tmp_path / "mirror") as root:
        write_tree(root, version(f"{DEBIAN}/{OLD}"))
        fastindex(root)
        before = generation(root)
        night = Night(tmp_path, root)
        report = tmp_path / "report.json"
        night.write(f'report = "{report}"', f'cache_dir = "{tmp_path}/cache"')
        write_tree(root, version(f"{ALPINE}/{NEW}"))
        filling = fill(root)
        done = fastindex(*night.command())
        assert done.returncode == 1, done.stderr
        assert f"{root}/streams/" in done.stderr
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        assert generation(root) == before
        assert json.loads(report.read_bytes())["exit_code"] == 1
        assert night.hooked() == ["on_failure 1"]
        filling.unlink()
        assert fastindex(*night.command()).returncode == 0
        assert night.hooked() == ["on_publish 0"]
        assert_published(root, 2)


@pytest.mark.root
def test_a_night_in_a_read_only_mirror_fails_and_tells(fastindex: Run, tmp_path: Path) -> None:
    with file_system_of("1m", tmp_path / "mirror") as root:
        write_tree(root, version(f"{DEBIAN}/{OLD}"))
        fastindex(root)
        before = generation(root)
        night = Night(tmp_path, root)
        report, metrics = tmp_path / "report.json", tmp_path / "metrics.prom"
        night.write(f'report = "{report}"', f'metrics = "{metrics}"')
        subprocess.run(["mount", "-o", "remount,ro", root], check=True)
        done = fastindex(*night.command())
        assert done.returncode == 1
        assert f"{root}/streams/.nightly.lock" in done.stderr
        assert "Read-only file system" in done.stderr
        assert "Traceback" not in done.stderr
        assert generation(root) == before
        assert json.loads(report.read_bytes())["exit_code"] == 1
        assert "fastindex_catalogue_readable" in metrics.read_text()
        assert night.hooked() == ["on_failure 1"]


def test_a_configuration_that_is_gone_or_cannot_be_read_stops_the_night(
    fastindex: Run, night: Night, tmp_path: Path
) -> None:
    fastindex(*night.command())
    before = generation(night.root)
    write_tree(night.root, version(f"{DEBIAN}/{NEW}"))
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "gone/fastindex.toml", tmp_path, tmp_path / "fifo"):
        done = fastindex("nightly", "--config", path)
        assert done.returncode == 2
        assert str(path) in done.stderr
        assert "or use --config with another file or with none" in done.stderr
    assert generation(night.root) == before


@pytest.mark.root
def test_a_configuration_on_a_read_only_disk_is_used(
    fastindex: Run, night: Night, tmp_path: Path
) -> None:
    with file_system_of("64k", tmp_path / "etc") as place:
        night.settings = place / "fastindex.toml"
        night.write()
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        assert fastindex(*night.command()).returncode == 0
    assert_published(night.root, 1)


def test_a_night_without_a_home_finds_its_configuration(root: Path, night: Night) -> None:
    environment = {"PATH": os.environ["PATH"], "FASTINDEX_CONFIG": str(night.settings)}
    done = subprocess.run(
        [COMMAND, "nightly"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert_published(root, 1)


def test_a_killed_night_leaves_its_program_running_and_nothing_locked(
    fastindex: Run, night: Night
) -> None:
    """Nobody is left who could end it; it ends by itself, and the next night does not wait."""
    fifo = night.hook.with_name("fifo")
    os.mkfifo(fifo)
    night.hook.write_text(f"#!/bin/sh\necho begun >> {night.log}\nread line < {fifo}\n")
    command = [str(COMMAND), *map(str, night.command())]
    with subprocess.Popen(command, env=UNMEASURED, stderr=subprocess.DEVNULL) as process:
        while not night.log.exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert_published(night.root, 1)
    assert fastindex(*night.command()).returncode == 0
    assert night.hooked() == ["begun"]
    with fifo.open("w") as file:  # waits until the program, which still runs, reads it
        file.write("end\n")

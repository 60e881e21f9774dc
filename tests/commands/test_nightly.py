"""``fastindex nightly``: all steps of a night in one run, and the programs of the configuration."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import COMMAND, UNMEASURED, Run, run_command
from tests.support.tools import needs
from tests.support.trees import published, stamps, version, write_tree

DEBIAN, ALPINE = "debian/12/amd64/default", "alpine/3.20/arm64/default"
OLD, NEW = "20240505_05:24", "20240506_05:24"


@pytest.fixture
def fastindex(tmp_path: Path) -> Run:
    """Return the command as operators have it: it remembers what it has told."""
    return partial(run_command, cwd=tmp_path, is_forgetful=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "mirror", version(f"{DEBIAN}/{OLD}"))


class Settings:
    """A configuration with one mirror."""

    def __init__(self, directory: Path, root: Path) -> None:
        self.path = directory / "fastindex.toml"
        self.root = root
        self.write()

    def write(self, *lines: str) -> None:
        """Write the configuration: the root, and ``lines`` in the table of the mirror."""
        self.path.write_text("\n".join(["[mirror.main]", f'root = "{self.root}"', *lines, ""]))
        self.path.chmod(0o600)

    def words(self, *words: object) -> list[object]:
        """Return the words of a command line that uses it."""
        return ["nightly", "--config", self.path, *words]


@pytest.fixture
def settings(tmp_path: Path, root: Path) -> Settings:
    place = tmp_path / "etc"
    place.mkdir(mode=0o755)
    return Settings(place, root)


def hook(path: Path, *lines: str) -> str:
    """Write a program; return how a configuration names it."""
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return f'["{path}", "one word"]'


def versions(root: Path) -> set[str]:
    """Return the published versions, as OS/RELEASE/ARCH/VARIANT/VERSION."""
    return {name.replace(" ", ":").replace(":", "/", 4) for name in published(root)}


def report_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_a_night_publishes_prunes_and_tells(
    fastindex: Run, settings: Settings, root: Path, tmp_path: Path
) -> None:
    write_tree(root, {**version(f"{DEBIAN}/{NEW}"), **version(f"{DEBIAN}/20240507_05:24")})
    report, metrics = tmp_path / "report.json", tmp_path / "metrics.prom"
    settings.write("keep = 2", f'report = "{report}"', f'metrics = "{metrics}"', 'max_age = "1d"')
    done = fastindex(*settings.words("main"))
    assert done.returncode == 3, done.stderr
    assert versions(root) == {f"{DEBIAN}/{NEW}", f"{DEBIAN}/20240507_05:24"}
    assert (
        f"warning: images/{DEBIAN}: its newest version, 20240507_05:24, is older than 1d"
        in done.stderr
    )
    told = report_of(report)
    assert told["command"] == "nightly"
    assert told["exit_code"] == 3
    assert [one["code"] for one in told["findings"]] == ["product-old"]
    assert told["prune"]["withdrawn"] == [f"images/{DEBIAN}/{OLD}"]
    assert {change["kind"] for change in told["build"]["changes"]} == {"added", "removed"}
    assert told["status"]["streams"][0]["versions"] == 2
    assert 'fastindex_last_run_exit_code{root="' in metrics.read_text()
    assert 'command="nightly"} 3' in metrics.read_text()
    assert f'fastindex_product_old{{root="{root}",stream="images",' in metrics.read_text()
    again = fastindex(*settings.words("main"))
    assert "1 warning known since" in again.stderr
    assert "older than" not in again.stderr


def test_a_quiet_night_prints_what_is_wrong_and_nothing_else(
    fastindex: Run, settings: Settings, root: Path, tmp_path: Path
) -> None:
    upstream = write_tree(tmp_path / "upstream", version(f"{ALPINE}/{NEW}"))
    fastindex(upstream)
    write_tree(root, version(f"{DEBIAN}/{NEW}"))
    source = ["[[mirror.main.pull]]", f'url = "{upstream.as_uri()}"']
    settings.write("keep = 1", 'grace = "0s"', *source)
    done = fastindex(*settings.words("--quiet"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert versions(root) == {f"{DEBIAN}/{NEW}", f"{ALPINE}/{NEW}"}


def test_what_the_first_night_would_do_is_told(
    fastindex: Run, settings: Settings, root: Path, tmp_path: Path
) -> None:
    upstream = write_tree(tmp_path / "upstream", version(f"{ALPINE}/{NEW}"))
    fastindex(upstream)
    settings.write("keep = 1", "[[mirror.main.pull]]", f'url = "{upstream.as_uri()}"')
    shutil.rmtree(root / "images")
    done = fastindex(*settings.words("--dry-run"))
    assert done.returncode == 0, done.stderr
    assert f"pull  images/{ALPINE}/{NEW}" in done.stdout
    assert [*root.iterdir()] == []


def test_that_nothing_is_published_is_told_once(
    fastindex: Run, settings: Settings, root: Path
) -> None:
    settings.write("deltas = 1")
    shutil.rmtree(root / "images/debian")
    done = fastindex(*settings.words())
    assert done.returncode == 1
    assert done.stderr.count("error:") == 1
    assert "has no versions to publish" in done.stderr


def test_nothing_is_withdrawn_where_nobody_asked_for_it(
    fastindex: Run, settings: Settings, root: Path
) -> None:
    for day in range(1, 9):
        write_tree(root, version(f"{DEBIAN}/2024060{day}_05:24"))
    assert fastindex(*settings.words()).returncode == 0
    assert len(versions(root)) == 9
    assert fastindex("nightly", "--config", "none", root).returncode == 0
    assert len(versions(root)) == 9


def test_metrics_do_not_read_the_catalogue_once_more(
    fastindex: Run, settings: Settings, tmp_path: Path
) -> None:
    strace = needs("strace", "apt-get install strace")
    assert fastindex(*settings.words()).returncode == 0
    counts: list[int] = []
    for lines in ([], [f'metrics = "{tmp_path}/metrics.prom"']):
        settings.write(*lines)
        log = tmp_path / "calls"
        words = [str(word) for word in (COMMAND, *settings.words("--quiet"))]
        traced = [strace, "-f", "-e", "trace=openat", "-o", str(log), *words]
        subprocess.run(traced, env=UNMEASURED, check=True)
        counts.append(log.read_text().count('images.json", '))
    assert (tmp_path / "metrics.prom").exists()
    assert counts[0] == counts[1] > 0


def test_a_night_pulls_first(fastindex: Run, settings: Settings, tmp_path: Path) -> None:
    upstream = write_tree(tmp_path / "upstream", version(f"{ALPINE}/{NEW}"))
    fastindex(upstream)
    settings.write("[[mirror.main.pull]]", f'url = "{upstream.as_uri()}"')
    done = fastindex(*settings.words("--json"))
    assert done.returncode == 0, done.stderr
    assert versions(settings.root) == {f"{DEBIAN}/{OLD}", f"{ALPINE}/{NEW}"}
    told = json.loads(done.stdout)
    assert told[f"pull {upstream.as_uri()}"]["pulled"] == [f"images/{ALPINE}/{NEW}"]


def test_a_night_and_its_report_and_the_status_agree(
    fastindex: Run, settings: Settings, root: Path, tmp_path: Path
) -> None:
    report, told = tmp_path / "report.json", tmp_path / "told"
    program = hook(tmp_path / "hook", f"cat $FASTINDEX_REPORT > {told}")
    (tmp_path / "metrics").mkdir()
    settings.write(
        f'metrics = "{tmp_path}/metrics"', f'report = "{report}"', f"on_failure = {program}"
    )
    done = fastindex(*settings.words())
    assert done.returncode == 3
    assert "the metrics cannot be written" in done.stderr
    for document in (report_of(report), report_of(told)):
        assert document["exit_code"] == 3
        assert "the metrics cannot be written" in document["errors"][0]
    done = fastindex("status", "-q", root)
    assert done.returncode == 3
    assert "warning: nightly: the last run, 20" in done.stderr
    assert "the metrics cannot be written" in done.stderr
    (tmp_path / "metrics").rmdir()
    assert fastindex(*settings.words()).returncode == 0
    assert fastindex("status", "-q", root).returncode == 0


def test_a_program_gets_no_report_of_another_night(
    fastindex: Run, settings: Settings, root: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    program = hook(tmp_path / "hook", f'echo "[$FASTINDEX_REPORT]" > {told}')
    (tmp_path / "report").mkdir()
    settings.write(f'report = "{tmp_path}/report"', f"on_failure = {program}")
    assert fastindex(*settings.words()).returncode == 3
    assert told.read_text() == "[]\n"


def test_a_source_that_fails_stops_nothing_else(
    fastindex: Run, settings: Settings, tmp_path: Path
) -> None:
    upstream = write_tree(tmp_path / "upstream", version(f"{ALPINE}/{NEW}"))
    fastindex(upstream)
    settings.write(
        *("[[mirror.main.pull]]", 'url = "file:///missing"'),
        *("[[mirror.main.pull]]", f'url = "{upstream.as_uri()}"'),
    )
    done = fastindex(*settings.words())
    assert done.returncode == 1
    assert versions(settings.root) == {f"{DEBIAN}/{OLD}", f"{ALPINE}/{NEW}"}
    assert done.stderr.count("error: ") == 1
    again = fastindex("status", "--config", settings.path, "main")
    assert again.returncode == 3
    assert "not healthy: run-failed (2)" in again.stderr  # the night, and the pull in it


def test_what_stops_several_steps_is_told_once(
    fastindex: Run, settings: Settings, root: Path, tmp_path: Path
) -> None:
    upstream = write_tree(tmp_path / "upstream", version(f"{ALPINE}/{NEW}"))
    assert fastindex(upstream).returncode == 0
    cluster = tmp_path / "missing.json"
    settings.write(f'cluster = "{cluster}"', "[[mirror.main.pull]]", f'url = "{upstream.as_uri()}"')
    done = fastindex(*settings.words())
    assert done.returncode == 1
    assert done.stderr.count(f"error: --cluster {cluster}: cannot be read") == 1


def test_a_build_does_not_make_up_for_a_pull(
    fastindex: Run, settings: Settings, root: Path, tmp_path: Path
) -> None:
    upstream = write_tree(tmp_path / "upstream", version(f"{ALPINE}/{NEW}"))
    fastindex(upstream)
    settings.write("[[mirror.main.pull]]", f'url = "{upstream.as_uri()}"')
    image = upstream / f"images/{ALPINE}/{NEW}/rootfs.squashfs"
    right = image.read_bytes()
    image.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    assert fastindex(*settings.words()).returncode == 3
    for _ in range(2):
        done = fastindex("status", root)
        assert done.returncode == 3
        assert f"images/{ALPINE}/{NEW}: " in done.stdout
        assert fastindex(root).returncode == 0
    image.write_bytes(right)
    assert fastindex(*settings.words()).returncode == 0
    assert fastindex("status", root).returncode == 0
    upstream.rename(tmp_path / "aside")
    assert fastindex(*settings.words()).returncode == 1
    assert fastindex(root).returncode == 0
    assert "warning: pull: the last run, 20" in fastindex("status", "-q", root).stderr


def test_what_a_pull_by_hand_missed_is_mended_by_the_night(
    fastindex: Run, settings: Settings, root: Path, tmp_path: Path
) -> None:
    upstream = write_tree(tmp_path / "upstream", version(f"{ALPINE}/{NEW}"))
    fastindex(upstream)
    settings.write("[[mirror.main.pull]]", f'url = "{upstream.as_uri()}"')
    image = upstream / f"images/{ALPINE}/{NEW}/rootfs.squashfs"
    right = image.read_bytes()
    image.write_bytes(b"x" * len(right))
    assert fastindex("pull", upstream.as_uri(), root).returncode == 3
    image.write_bytes(right)
    assert fastindex(*settings.words()).returncode == 0
    assert fastindex("status", root).returncode == 0


def test_metrics_tell_of_a_night_whose_disk_is_gone(
    fastindex: Run, settings: Settings, root: Path, tmp_path: Path
) -> None:
    settings.write(f'metrics = "{tmp_path}/metrics"')
    assert fastindex(*settings.words()).returncode == 0
    root.rename(tmp_path / "aside")
    root.mkdir()
    assert fastindex(*settings.words()).returncode == 1
    told = (tmp_path / "metrics").read_text()
    assert 'command="nightly"} 1\n' in told
    assert f'fastindex_healthy{{root="{root}"}} 0\n' in told


def test_a_share_is_read_again(fastindex: Run, settings: Settings, root: Path) -> None:
    settings.write('recheck = "1/1"')
    assert fastindex(*settings.words()).returncode == 0
    path = root / f"images/{DEBIAN}/{OLD}/rootfs.squashfs"
    before, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    write_tree(root, version(f"{DEBIAN}/{NEW}"))
    done = fastindex(*settings.words())
    assert done.returncode == 3
    assert f"images/{DEBIAN}/{OLD}/rootfs.squashfs: damaged: " in done.stderr
    assert done.stderr.count("damaged: ") == 1
    assert versions(root) == {f"{DEBIAN}/{NEW}"}


def test_all_mirrors_have_their_night(fastindex: Run, settings: Settings, tmp_path: Path) -> None:
    other = write_tree(tmp_path / "other", version(f"{ALPINE}/{NEW}"))
    settings.write("", "[mirror.broken]", f'root = "{tmp_path}/missing"')
    text = settings.path.read_text()
    settings.path.write_text(f'{text}[mirror.other]\nroot = "{other}"\n')
    done = fastindex(*settings.words())
    assert done.returncode == 1
    assert "fastindex: broken: error: " in done.stderr
    assert versions(settings.root) == {f"{DEBIAN}/{OLD}"}
    assert versions(other) == {f"{ALPINE}/{NEW}"}
    assert fastindex(*settings.words("--report", tmp_path / "r")).returncode == 2
    assert fastindex(*settings.words("othr")).returncode == 2


def test_a_dry_run_changes_nothing(fastindex: Run, settings: Settings, root: Path) -> None:
    settings.write("keep = 1", f"on_failure = {hook(settings.path.with_name('hook'), 'exit 1')}")
    fastindex(*settings.words())
    write_tree(root, version(f"{DEBIAN}/{NEW}"))
    before = stamps(root)
    done = fastindex(*settings.words("-n"))
    assert done.returncode == 0, done.stderr
    assert f"withdraw images/{DEBIAN}/{OLD}" in done.stdout
    assert stamps(root) == before


def test_one_night_at_a_time(fastindex: Run, settings: Settings, root: Path) -> None:
    fastindex(*settings.words())
    with subprocess.Popen(["flock", root / "streams/.nightly.lock", "sleep", "600"]) as holder:
        while fastindex(*settings.words()).returncode != 75:
            pass
        holder.kill()


# Programs


def test_programs_are_told_what_happened(
    fastindex: Run, settings: Settings, root: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    line = f'echo "$0 $1 $FASTINDEX_MIRROR $FASTINDEX_EXIT_CODE $(pwd)" >> {told}'
    keep = f"cp $FASTINDEX_REPORT {tmp_path}/copy"
    published_program = hook(tmp_path / "published", line, keep, "echo said by it")
    failed_program = hook(tmp_path / "failed", line)
    settings.write(f"on_publish = {published_program}", f"on_failure = {failed_program}")
    done = fastindex(*settings.words())
    assert done.returncode == 0, done.stderr
    assert told.read_text() == f"{tmp_path}/published one word main 0 /\n"
    assert "said by it\n" in done.stderr
    assert done.stdout == ""
    assert report_of(tmp_path / "copy")["build"]["changes"][0]["kind"] == "added"
    told.unlink()
    assert fastindex(*settings.words()).returncode == 0  # nothing was published
    assert not told.exists()
    write_tree(root, version(f"{ALPINE}/{NEW}"))
    (root / f"images/{ALPINE}/{NEW}/rootfs.squashfs").unlink()
    assert fastindex(*settings.words()).returncode == 3
    assert told.read_text() == f"{tmp_path}/failed one word main 3 /\n"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["exit 7"], "ended with 7"),
        (["kill -9 $$"], "was ended by signal 9"),
        (None, "cannot be started (No such file or directory)"),
    ],
)
def test_a_program_that_fails_is_told(
    fastindex: Run, settings: Settings, root: Path, tmp_path: Path, lines: Any, problem: str
) -> None:
    path = tmp_path / "hook"
    named = f'["{path}"]' if lines is None else hook(path, *lines)
    settings.write(f"on_publish = {named}")
    done = fastindex(*settings.words())
    assert done.returncode == 3
    assert f"warning: on_publish: {path} {problem}; " in done.stderr
    assert "nightly: the last run, 20" in fastindex("status", "-q", root).stderr
    assert versions(root) == {f"{DEBIAN}/{OLD}"}


def test_a_signal_ends_a_program_too(settings: Settings, root: Path, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    settings.write(f"on_publish = {hook(tmp_path / 'hook', f'echo $$ > {pid}', 'sleep 600')}")
    command = [str(COMMAND), *map(str, settings.words())]
    with subprocess.Popen(command, env=UNMEASURED, stderr=subprocess.DEVNULL) as process:
        while not pid.exists() or not pid.read_text():
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()
    assert versions(root) == {f"{DEBIAN}/{OLD}"}

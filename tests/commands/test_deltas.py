"""``fastindex deltas``: made from what is published, checked, put in place, published, and gone."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastindex.cli.output import format_size
from tests.support.clients.canonical import make_delta
from tests.support.command import COMMAND, UNMEASURED, Run
from tests.support.contents import make_qcow2
from tests.support.deltas import (
    count_calls,
    decode_as_the_daemon,
    disturb,
    find_xdelta3,
    list_deltas,
    list_hidden,
    make_random_squashfs,
    read_record,
    series,
    similar_roots,
)
from tests.support.sizes import sized
from tests.support.trees import OLD_NS, catalogue, forget_state, stamps, version, write_tree

DEBIAN, ALPINE = "debian/12/amd64/default", "alpine/3.20/arm64/default"
FIRST, SECOND, THIRD = "20240505_05:24", "20240506_05:24", "20240507_05:24"
OLD = f"images/{DEBIAN}/{FIRST}"
NEW = f"images/{DEBIAN}/{SECOND}"
DELTA = f"{NEW}/delta-{FIRST}.vcdiff"

pair_count = sized("--pairs", short=8, full=100)


@pytest.fixture
def root(fastindex: Run, tmp_path: Path) -> Path:
    """Return a mirror with two published versions of a product."""
    find_xdelta3()
    root = write_tree(tmp_path / "mirror", series(DEBIAN, [FIRST, SECOND]))
    assert fastindex(root).returncode == 0
    return root


Disturb = Callable[..., None]


@pytest.fixture
def disturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disturb:
    """Return what puts a disturbed xdelta3 in the place of the real one."""

    def put(*lines: str) -> None:
        place = disturb(tmp_path, *lines)
        monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")

    return put


def check(root: Path, work: Path, *paths: str) -> None:
    """See that these deltas are published, and each gives what is published of its version."""
    assert {*list_deltas(root)} == {*paths}
    for path, content in decode_as_the_daemon(root, work).items():
        assert content == (root / path).with_name("rootfs.squashfs").read_bytes()
    assert list_hidden(root) == set()


def test_a_delta_is_made_and_published(fastindex: Run, root: Path, tmp_path: Path) -> None:
    done = fastindex("deltas", root)
    assert (done.returncode, done.stdout) == (0, f"{DELTA}\n"), done.stderr
    check(root, tmp_path, DELTA)
    item = list_deltas(root)[DELTA]
    content = (root / DELTA).read_bytes()
    assert item["delta_base"] == FIRST
    assert item["sha256"] == hashlib.sha256(content).hexdigest()
    assert (root / DELTA).stat().st_mode & 0o777 == 0o644
    assert len(content) < 10_000
    assert "1 delta made, 0 there already, 0 too large, 0 failed" in done.stderr
    assert fastindex("verify", "--sha256", root).returncode == 0
    assert b"rootfs" not in content  # no name of a file


def test_nothing_is_made_twice(fastindex: Run, root: Path, tmp_path: Path) -> None:
    assert fastindex("deltas", root).returncode == 0
    before = stamps(root / "streams/v1") | stamps(root / "images")
    done = fastindex("deltas", root)
    assert (done.returncode, done.stdout) == (0, "")
    assert "0 deltas made, 1 there already" in done.stderr
    assert stamps(root / "streams/v1") | stamps(root / "images") == before
    write_tree(root, series(DEBIAN, [FIRST, SECOND, THIRD]) | {OLD: None, NEW: None})
    assert fastindex(root).returncode == 0
    assert fastindex("deltas", root).stdout == f"images/{DEBIAN}/{THIRD}/delta-{SECOND}.vcdiff\n"
    check(root, tmp_path, DELTA, f"images/{DEBIAN}/{THIRD}/delta-{SECOND}.vcdiff")


@pytest.mark.slow
def test_random_pairs_decode_to_the_same_bytes(
    fastindex: Run, tmp_path: Path, pair_count: int
) -> None:
    chance = random.Random(pair_count)
    root = tmp_path / "mirror"
    for number in range(pair_count):
        product = f"os{number}/1/amd64/default"
        write_tree(root, {**version(f"{product}/{FIRST}"), **version(f"{product}/{SECOND}")})
        targets = [root / f"images/{product}/{day}/rootfs.squashfs" for day in (FIRST, SECOND)]
        make_random_squashfs(tmp_path / "work", chance, targets)
    assert fastindex(root).returncode == 0
    done = fastindex("deltas", "--max-ratio", "100", root, patience=300)
    assert done.returncode == 0, done.stderr
    decoded = decode_as_the_daemon(root, tmp_path)
    assert len(decoded) > pair_count / 2
    for path, content in decoded.items():
        assert content == (root / path).with_name("rootfs.squashfs").read_bytes()
    assert list_hidden(root) == set()


def test_a_dry_run_says_what_it_would_make(fastindex: Run, root: Path) -> None:
    before = stamps(root)
    done = fastindex("deltas", "-n", root)
    assert done.returncode == 0
    size = (root / NEW / "rootfs.squashfs").stat().st_size
    assert done.stdout == f"encode {NEW}/rootfs.squashfs -> {DELTA} ({format_size(size)})\n"
    assert stamps(root) == before
    assert not (root / "streams/.deltas.lock").exists()


def test_the_report_has_a_section(fastindex: Run, root: Path) -> None:
    report = json.loads(fastindex("deltas", "--json", root).stdout)
    told = report["deltas"]
    assert (told["made"], told["too_large"], told["failed"]) == ([DELTA], 0, 0)
    assert told["bytes_made"] == (root / DELTA).stat().st_size
    assert told["bytes_replaced"] == (root / NEW / "rootfs.squashfs").stat().st_size
    assert [change["kind"] for change in report["build"]["changes"]] == ["changed"]
    assert DELTA in report["build"]["changes"][0]["files"]


def test_without_xdelta3_nothing_is_done(
    fastindex: Run, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = stamps(root)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = fastindex("deltas", root)
    assert done.returncode == 1
    assert "deltas need xdelta3, which is not installed (Debian: apt-get" in done.stderr
    assert stamps(root) == before


def test_what_is_too_large_is_dropped_and_not_made_again(
    fastindex: Run, root: Path, tmp_path: Path, disturbed: Disturb
) -> None:
    for number, content in enumerate((similar_roots(1, 1)[0], similar_roots(1, 2)[0])):
        place = f"images/{ALPINE}/{(FIRST, SECOND)[number]}"
        write_tree(
            root, {f"{place}/rootfs.squashfs": content, f"{place}/incus.tar.xz": place.encode()}
        )
    assert fastindex(root).returncode == 0
    disturbed()
    done = fastindex("deltas", root)
    assert done.returncode == 0
    assert "1 delta made, 0 there already, 1 too large, 0 failed" in done.stderr
    check(root, tmp_path, DELTA)
    path = f"images/{ALPINE}/{SECOND}/delta-{FIRST}.vcdiff"
    assert read_record(root)["refusals"].keys() == {path}
    assert count_calls(tmp_path) == (2, 1)
    assert "1 too large" in fastindex("deltas", root).stderr
    assert "1 too large" in fastindex("deltas", "--max-ratio", "50", root).stderr
    assert count_calls(tmp_path) == (2, 1)
    assert fastindex("deltas", "--max-ratio", "70%", root).returncode == 0
    assert count_calls(tmp_path) == (3, 1)
    other = root / f"images/{ALPINE}/{SECOND}/rootfs.squashfs"
    shutil.copy(root / f"images/{ALPINE}/{FIRST}/rootfs.squashfs", other)
    os.utime(other, ns=(OLD_NS + 1, OLD_NS + 1))
    assert fastindex(root).returncode == 0
    assert fastindex("deltas", root).stdout == f"{path}\n"
    assert read_record(root)["refusals"] == {}


LIES = {
    "a bit flipped": 'if [ $1 = -e ]; then $real "$@" | { head -c 200; head -c 1 >/dev/null; '
    "printf x; cat; }; exit; fi",
    "cut off": 'if [ $1 = -e ]; then $real "$@" | head -c 300; exit; fi',
    "of another root": 'if [ $1 = -e ]; then head -c 150000 | $real "$@"; exit; fi',
    "nothing": "if [ $1 = -e ]; then exit 0; fi",
    "fails": 'if [ $1 = -e ]; then echo "no more memory" >&2; exit 1; fi',
    "killed": "if [ $1 = -e ]; then kill -9 $$; fi",
    "other bytes when decoded": 'if [ $1 = -d ]; then $real "$@"; printf x; exit; fi',
    "endless when decoded": "if [ $1 = -d ]; then exec yes; fi",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_delta_that_lies_does_not_appear(
    fastindex: Run, root: Path, disturbed: Disturb, lie: str
) -> None:
    disturbed(LIES[lie])
    done = fastindex("deltas", root)
    assert done.returncode == 3, done.stderr
    assert f"warning: {DELTA}: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "1 failed" in done.stderr
    assert list_deltas(root) == {}
    assert list_hidden(root) == set()
    assert list(root.rglob("*.vcdiff")) == []


def test_what_it_says_is_told_and_what_it_started_is_killed(
    fastindex: Run, root: Path, disturbed: Disturb, tmp_path: Path
) -> None:
    disturbed(LIES["fails"])
    assert "xdelta3 ended with 1: no more memory; run" in fastindex("deltas", root).stderr
    disturbed(f"sleep 60 & echo $! > {tmp_path}/pid")
    assert fastindex("deltas", root).returncode == 0
    pid = int((tmp_path / "pid").read_text())
    assert has_ended(pid)


def has_ended(pid: int) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":  # whoever is the parent of orphans here may never look
            return True
        time.sleep(0.02)
    return False


def test_a_base_that_has_rotted_gives_none(fastindex: Run, root: Path) -> None:
    """It decodes here, with the same rotten base, and nowhere else."""
    file = root / OLD / "rootfs.squashfs"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(OLD_NS, OLD_NS))
    done = fastindex("deltas", root)
    assert done.returncode == 3
    assert f"warning: {OLD}/rootfs.squashfs: its SHA-256 is " in done.stderr
    assert list(root.rglob("*.vcdiff")) == []


@pytest.mark.parametrize("end", [OLD, NEW])
def test_what_is_no_squashfs_any_more_gives_none(fastindex: Run, root: Path, end: str) -> None:
    file = root / end / "rootfs.squashfs"
    file.write_bytes(b"no squashfs".ljust(file.stat().st_size))
    done = fastindex("deltas", root)
    assert done.returncode == 3
    assert f"{end}/rootfs.squashfs: is not a squashfs, judging by its first bytes" in done.stderr
    file.unlink()
    assert (
        f"{end}/rootfs.squashfs: cannot be read (No such file" in fastindex("deltas", root).stderr
    )
    os.mkfifo(file)
    assert f"{end}/rootfs.squashfs: is not a regular file" in fastindex("deltas", root).stderr
    assert list(root.rglob("*.vcdiff")) == []


@pytest.mark.parametrize("end", [OLD, NEW])
def test_a_root_that_changes_meanwhile_gives_none(
    fastindex: Run, root: Path, disturbed: Disturb, end: str
) -> None:
    disturbed(f'if [ $1 = -d ]; then touch "{root}/{end}/rootfs.squashfs"; fi')
    done = fastindex("deltas", root)
    assert done.returncode == 3
    assert f"{end}/rootfs.squashfs: changed while a delta was made" in done.stderr
    assert list(root.rglob("*.vcdiff")) == []


@pytest.mark.parametrize("gone", [OLD, NEW])
def test_a_version_that_goes_meanwhile_is_not_made_again(
    fastindex: Run, root: Path, disturbed: Disturb, gone: str
) -> None:
    write_tree(root, series(ALPINE, [FIRST, SECOND]))
    assert fastindex(root).returncode == 0
    disturbed(f'if [ $1 = -d ]; then rm -rf "{root}/{gone}"; fi')
    done = fastindex("deltas", "-v", root)
    assert done.returncode == 0, done.stderr
    assert (root / gone).exists() is False
    expected = {f"images/{ALPINE}/{SECOND}/delta-{FIRST}.vcdiff"}
    assert {*list_deltas(root)} == expected
    assert list_hidden(root) == set()


@pytest.mark.parametrize("word", [OLD, NEW])
def test_a_version_that_is_withdrawn_meanwhile_gets_none(
    fastindex: Run, root: Path, disturbed: Disturb, word: str
) -> None:
    environment = "FASTINDEX_CONFIG=none"
    remove = f'{environment} {COMMAND} remove -q {word} "{root}" >/dev/null 2>&1'
    disturbed(f"if [ $1 = -d ]; then {remove}; fi")
    done = fastindex("deltas", "-v", root)
    assert done.returncode == 0, done.stderr
    assert "was withdrawn or deleted meanwhile" in done.stderr
    assert list(root.rglob("*.vcdiff")) == []


def test_a_version_that_is_a_symlink_gets_none(fastindex: Run, root: Path) -> None:
    product = root / "images" / DEBIAN
    (product / SECOND).rename(product / f".{SECOND}")
    (product / SECOND).symlink_to(f".{SECOND}")
    assert fastindex(root).returncode == 0
    done = fastindex("deltas", "-v", root)
    assert done.returncode == 0
    assert f"{NEW}: gets no delta: it is a symlink, or withdrawn" in done.stderr
    assert list(root.rglob("*.vcdiff")) == []


def test_a_base_that_is_a_symlink_is_followed_in_its_product_only(
    fastindex: Run, root: Path, tmp_path: Path
) -> None:
    product = root / "images" / DEBIAN
    (product / FIRST).rename(product / ".hidden")
    (product / FIRST).symlink_to(".hidden")
    assert fastindex(root).returncode == 0
    file = product / ".hidden/rootfs.squashfs"
    outside = tmp_path / "outside"
    file.rename(outside)
    file.symlink_to(outside)
    done = fastindex("deltas", root)
    assert done.returncode == 3
    assert "rootfs.squashfs: cannot be read (leads out of the mirror)" in done.stderr
    file.unlink()
    outside.rename(file)
    assert fastindex("deltas", root).returncode == 0
    assert {*list_deltas(root)} == {DELTA}


def test_what_is_in_the_way_is_left_and_named(fastindex: Run, root: Path) -> None:
    hidden = root / "images" / DEBIAN / f".{SECOND}.delta"
    write_tree(hidden, {"mine.txt": b"mine"})
    done = fastindex("deltas", root)
    assert done.returncode == 3
    assert f".{SECOND}.delta is in the way: it contains files that no import" in done.stderr
    assert (hidden / "mine.txt").read_bytes() == b"mine"
    shutil.rmtree(hidden)
    hidden.symlink_to("/etc")
    assert "is in the way" in fastindex("deltas", root).stderr
    assert list_deltas(root) == {}


@pytest.mark.root
def test_odd_names_and_places_are_no_trouble(fastindex: Run, tmp_path: Path) -> None:
    find_xdelta3()
    product, long = "größe $(id)'\"/-s/amd64/--", f"20240506{'x' * 240}"
    root = write_tree(tmp_path / "mir ror", series(product, ["20240505; id", "20240506\\n"]))
    write_tree(root, series(DEBIAN, ["20240505" + "x" * 240, long]))
    assert fastindex(root).returncode == 0
    done = fastindex("deltas", root)
    assert done.returncode == 0, done.stderr
    assert [*list_deltas(root)] == [f"images/{product}/20240506\\n/delta-20240505; id.vcdiff"]


def test_several_are_published_where_that_is_asked_for(
    fastindex: Run, root: Path, tmp_path: Path
) -> None:
    write_tree(
        root,
        {
            path: content
            for path, content in series(DEBIAN, [FIRST, SECOND, THIRD]).items()
            if THIRD in path
        },
    )
    assert fastindex(root).returncode == 0
    done = fastindex("deltas", "--from", "2", root)
    assert done.returncode == 0, done.stderr
    newest = f"images/{DEBIAN}/{THIRD}"
    both = {f"{newest}/delta-{base}.vcdiff" for base in (FIRST, SECOND)}
    check(root, tmp_path, *both)
    forget_state(root)
    assert fastindex(root).returncode == 0
    assert {*list_deltas(root)} == both
    assert fastindex("deltas", root).returncode == 0
    assert {*list_deltas(root)} == {f"{newest}/delta-{SECOND}.vcdiff"}


def test_disks_get_deltas_only_where_that_is_asked_for(fastindex: Run, root: Path) -> None:
    for day, disk in zip((FIRST, SECOND), similar_roots(2, "disk"), strict=True):
        write_tree(root, {f"images/{DEBIAN}/{day}/disk.qcow2": make_qcow2(disk)})
    assert fastindex(root).returncode == 0
    assert fastindex("deltas", root).returncode == 0
    assert {*list_deltas(root)} == {DELTA}
    done = fastindex("deltas", "--vm", root)
    assert done.returncode == 0
    assert "with which Incus cannot refresh machines" in done.stderr
    found = list_deltas(root)
    path = f"{NEW}/delta-{FIRST}.qcow2.vcdiff"
    assert {*found} == {DELTA, path}
    assert (found[path]["ftype"], found[path]["delta_base"]) == ("disk-kvm.img.vcdiff", FIRST)
    assert fastindex("deltas", root).returncode == 0
    assert {*list_deltas(root)} == {DELTA}


def test_memory_is_bounded(fastindex: Run, root: Path) -> None:
    write_tree(root, series(ALPINE, [FIRST, SECOND]))
    assert fastindex(root).returncode == 0
    done = fastindex("deltas", "-n", "--jobs", "2", "--max-memory", "100M", root)
    assert "2 deltas to make, 0 there already, 0 too large; 1 job with 67.6 MB" in done.stderr
    done = fastindex("deltas", "--max-memory", "1M", root)
    assert done.returncode == 3
    assert f"{DELTA}: takes 68 MB of memory to make, and there are 1 MB for it" in done.stderr
    assert "2 failed" in done.stderr


@pytest.fixture
def waiting(
    root: Path, disturbed: Disturb, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Yield a run that makes a delta, which does not end, and the process that makes it."""
    disturbed(f"echo $$ > {tmp_path}/pid", f"until [ -e {tmp_path}/go ]; do sleep 0.05; done")
    words: list[str | Path] = [COMMAND, "deltas", "-v", root]
    environment = UNMEASURED | {"PATH": os.environ["PATH"]}
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
        pid = tmp_path / "pid"
        until = time.monotonic() + 20
        while not (pid.exists() and pid.read_text()) and time.monotonic() < until:
            time.sleep(0.02)
        yield process, int(pid.read_text())
        (tmp_path / "go").touch()


def test_no_build_waits_for_a_delta_but_another_run_does(
    fastindex: Run, root: Path, waiting: tuple[subprocess.Popen[str], int], tmp_path: Path
) -> None:
    process, _ = waiting
    write_tree(root, version(f"{ALPINE}/{FIRST}"))
    assert fastindex(root).returncode == 0
    done = fastindex("deltas", root)
    assert done.returncode == 75
    assert ".deltas.lock" in done.stderr
    (tmp_path / "go").touch()
    assert process.wait(30) == 0
    check(root, tmp_path, DELTA)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_all_of_it(
    fastindex: Run,
    root: Path,
    waiting: tuple[subprocess.Popen[str], int],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    process, maker = waiting
    process.send_signal(number)
    is_killed = number == signal.SIGKILL
    assert process.wait(30) == (-number if is_killed else 128 + number)
    if is_killed:
        (tmp_path / "go").touch()  # now it writes, to nobody
    assert has_ended(maker)
    assert not (root / DELTA).exists()
    assert bool(list_hidden(root)) == is_killed
    (tmp_path / "go").touch()
    assert fastindex("deltas", root).returncode == 0
    check(root, tmp_path, DELTA)


def test_what_a_killed_run_left_is_a_leftover_like_others(fastindex: Run, root: Path) -> None:
    hidden = root / "images" / DEBIAN / f".{SECOND}.delta"
    write_tree(hidden, {".importing": b"", f"delta-{FIRST}.vcdiff": b"torn"})
    code = (
        "import sys, time\nnow = time.time\ntime.time = lambda: now() + 3 * 86400\n"
        "from fastindex.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    )
    assert fastindex("prune", root).returncode == 0
    assert hidden.exists()
    words: list[str | Path] = [COMMAND.with_name("python"), "-c", code, "prune", root]
    subprocess.run(words, check=True, capture_output=True)
    assert not hidden.exists()


def test_what_was_put_in_place_and_not_published_is_published(
    fastindex: Run, root: Path, disturbed: Disturb, tmp_path: Path
) -> None:
    base, target = (root / end / "rootfs.squashfs" for end in (OLD, NEW))
    make_delta(base, target, root / DELTA)
    disturbed()
    hidden = root / "images" / DEBIAN / f".{SECOND}.delta"
    write_tree(hidden, {".importing": b""})  # of the run that was killed
    assert fastindex("deltas", root).returncode == 0
    assert count_calls(tmp_path) == (0, 0)
    check(root, tmp_path, DELTA)


def test_a_delta_goes_with_the_version_that_it_starts_from(fastindex: Run, root: Path) -> None:
    write_tree(
        root,
        {
            path: content
            for path, content in series(DEBIAN, [FIRST, SECOND, THIRD]).items()
            if THIRD in path
        },
    )
    assert fastindex("deltas", root).returncode == 0  # of what is published by now
    assert fastindex(root).returncode == 0
    assert fastindex("deltas", root).returncode == 0
    assert len(list_deltas(root)) == 2
    assert fastindex("prune", "--keep", "2", root).returncode == 0
    newest = f"images/{DEBIAN}/{THIRD}/delta-{SECOND}.vcdiff"
    assert {*list_deltas(root)} == {newest}
    assert (root / DELTA).exists()
    done = fastindex("prune", "-n", "--keep", "2", "--grace", "0", root)
    assert done.stdout == f"delete {OLD}\ndelete {DELTA}\n"
    freed = sum(path.stat().st_size for path in (*(root / OLD).iterdir(), root / DELTA))
    report = json.loads(fastindex("prune", "--json", "--keep", "2", "--grace", "0", root).stdout)[
        "prune"
    ]
    assert report["deleted"] == [OLD, DELTA]
    assert report["bytes_freed"] == freed
    assert not (root / DELTA).exists()
    assert {*list_deltas(root)} == {newest}
    assert fastindex("verify", "--sha256", root).returncode == 0


def test_a_delta_that_something_leads_to_stays(fastindex: Run, root: Path) -> None:
    assert fastindex("deltas", root).returncode == 0
    link = root / "images" / DEBIAN / "link.vcdiff"
    link.symlink_to(f"{SECOND}/delta-{FIRST}.vcdiff")
    fastindex("prune", "--keep", "1", root)
    fastindex("prune", "--keep", "1", "--grace", "0", root)
    assert not (root / OLD).exists()
    assert (root / DELTA).exists()


def test_restored_its_delta_is_published_again(fastindex: Run, root: Path) -> None:
    assert fastindex("deltas", root).returncode == 0
    assert fastindex("prune", "--keep", "1", root).returncode == 0
    assert list_deltas(root) == {}
    assert fastindex("prune", "--undo", OLD, root).returncode == 0
    assert {*list_deltas(root)} == {DELTA}


def test_a_night_makes_deltas(fastindex: Run, root: Path, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir(mode=0o755)
    settings = etc / "fastindex.toml"
    settings.write_text(f'[mirror.main]\nroot = "{root}"\ndeltas = 1\nmax_ratio = 50\n')
    settings.chmod(0o600)
    write_tree(root, series(ALPINE, [FIRST, SECOND]))
    done = fastindex("nightly", "--config", settings, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["deltas"]["made"]) == 2
    kinds = {(one["product"], one["kind"]) for one in report["build"]["changes"]}
    assert ("alpine:3.20:arm64:default", "added") in kinds  # by the build before the deltas
    assert ("debian:12:amd64:default", "changed") in kinds
    assert len(list_deltas(root)) == 2
    settings.write_text(f'[mirror.main]\nroot = "{root}"\n')
    assert "deltas" not in json.loads(fastindex("nightly", "--config", settings, "--json").stdout)
    done = fastindex("deltas", "--config", settings, "main")
    assert "2 there already" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--max-ratio", "0"], "must be more than 0 and at most 100 per cent, not '0'"),
        (["--max-ratio", "nan"], "must be more than 0 and at most 100 per cent, not 'nan'"),
        (["--from", "11"], "--from must be an integer from 1 to 10"),
        (["--max-memory", "much"], "must be a number of bytes, such as 500M or 2G, not 'much'"),
    ],
)
def test_wrong_usage(fastindex: Run, root: Path, words: list[str], told: str) -> None:
    done = fastindex("deltas", *words, root)
    assert done.returncode == 2
    assert told in done.stderr


def test_nothing_published_is_an_error(fastindex: Run, tmp_path: Path) -> None:
    find_xdelta3()
    root = write_tree(tmp_path / "mirror", version())
    done = fastindex("deltas", root)
    assert done.returncode == 1
    assert "nothing is published" in done.stderr


def test_other_streams_and_records_are_left_alone(
    fastindex: Run, root: Path, tmp_path: Path
) -> None:
    (root / "streams/.deltas.json").write_text("torn")
    daily = {
        path.replace("images/", "daily/", 1): content
        for path, content in series(ALPINE, [FIRST, SECOND]).items()
    }
    write_tree(root, daily)
    both = ("--stream", "images", "--stream", "daily")
    assert fastindex(*both, root).returncode == 0
    done = fastindex("deltas", "--stream", "daily", root)
    assert done.stdout == f"daily/{ALPINE}/{SECOND}/delta-{FIRST}.vcdiff\n"
    assert list_deltas(root) == {}
    assert len(list_deltas(root, "daily")) == 1
    assert catalogue(root)["products"]
    assert fastindex("deltas", *both, root).returncode == 0
    check(root, tmp_path, DELTA)

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

import fastindex as package
from fastindex.cli.main import main
from fastindex.hashing.engine import describe_engine
from tests.support.command import COMMAND, Run
from tests.support.trees import OLD_NS, published, stamps, version, write_file, write_tree


def test_version_and_module_are_the_same_command(fastindex: Run) -> None:
    wanted = f"fastindex {package.__version__}\nSHA-256 by {describe_engine()}\n"
    assert fastindex("--version").stdout == wanted
    module = subprocess.run(
        [sys.executable, "-m", "fastindex", "--version"], capture_output=True, text=True, check=True
    )
    assert module.stdout == wanted


def test_help_has_examples_and_exit_codes(fastindex: Run) -> None:
    text = fastindex("--help").stdout
    assert "fastindex --jobs 16" in text
    for code in ("0 ", "1 ", "2 ", "3 ", "75 ", "130 ", "143 "):
        assert code in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["one", "two"],
        ["--jobs", "0"],
        ["--jobs", "-1"],
        ["--jobs", "many"],
        ["--jobs", "²"],
        ["--settle", "-1"],
        ["--settle", "nan"],
        ["--wait=soon"],
        ["--no-such-option"],
        ["--rehas"],
        ["-q", "-v"],
        ["--stream", "index"],
        ["--stream", "streams"],
        ["--stream", "../etc"],
        ["--stream", ".hidden"],
        ["--stream", ""],
        ["--stream", "a", "--stream", "a"],
        ["--print", "--stream", "a", "--stream", "b"],
    ],
)
def test_wrong_usage_is_2(fastindex: Run, tmp_path: Path, arguments: list[str]) -> None:
    write_tree(tmp_path, version())
    before = stamps(tmp_path)
    result = fastindex(*arguments)
    assert result.returncode == 2
    assert result.stderr
    assert "Traceback" not in result.stderr
    assert stamps(tmp_path) == before


@pytest.mark.parametrize("words", [["verfy"], ["build", "mirror"], ["help"], [""]])
def test_a_word_that_is_no_command_is_told(
    fastindex: Run, tmp_path: Path, words: list[str]
) -> None:
    write_tree(tmp_path / "mirror", version())
    result = fastindex(*words)
    assert result.returncode == 2
    assert f"{words[0]!r} is neither a command (import, " in result.stderr
    assert fastindex("mirror").returncode == 0


def test_root_is_the_current_directory_by_default(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    assert fastindex(cwd=tmp_path).returncode == 0
    assert len(published(tmp_path)) == 1


def test_the_seed_tools_option_is_accepted(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    assert fastindex("-N", tmp_path).returncode == 0
    assert len(published(tmp_path)) == 1


@pytest.mark.parametrize(
    "words", [["--wait"], ["--wait", "5"], ["--wait=5"], ["--wait", "5m"], ["--wait", "--"]]
)
def test_wait_takes_a_time_or_nothing(fastindex: Run, tmp_path: Path, words: list[str]) -> None:
    write_tree(tmp_path, version())
    assert fastindex(*words, tmp_path).returncode == 0
    if "--" not in words:
        assert fastindex(tmp_path, *words).returncode == 0


def test_a_root_named_like_a_number_of_seconds(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path / "5", version())
    assert fastindex("--wait", "./5").returncode == 0
    assert len(published(tmp_path / "5")) == 1


def test_one_summary_line_under_a_timer(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), **version("debian/12/amd64/default/latest")})
    result = fastindex(tmp_path)
    assert result.stdout == ""
    warning, summary = result.stderr.splitlines()
    assert warning.startswith("fastindex: warning: images/debian/12/amd64/default/latest: ")
    assert re.fullmatch(
        r"fastindex: 1 version of 1 product published; 2 files hashed, 0 reused; 9\d B read at "
        r"\d+\.\d\d GB/s in \d+\.\d\d s; 1 warning, 1 version left out",
        summary,
    )


def test_quiet_tells_warnings_only_and_verbose_each_step(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    assert fastindex("-q", tmp_path).stderr == ""
    write_tree(tmp_path, version("debian/12/amd64/default/latest"))
    (line,) = fastindex("-q", tmp_path).stderr.splitlines()
    assert "latest" in line
    lines = fastindex("-v", "--rehash", tmp_path).stderr.splitlines()
    assert "fastindex: images/debian/12/amd64/default/20240505_05:24: hashed" in lines


def test_an_unchanged_run_tells_the_same_warnings_again(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), **version("debian/12/amd64/default/latest")})
    first, second = fastindex(tmp_path), fastindex(tmp_path)
    assert (first.returncode, second.returncode) == (3, 3)
    assert first.stderr.splitlines()[0] == second.stderr.splitlines()[0]
    assert "0 files hashed, 2 reused" in second.stderr
    assert "1 version left out" in second.stderr


def test_names_cannot_move_the_terminals_cursor(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), **version("a\x1b[2Jb\u202ec\n/1/amd64/x/20240101")})
    stderr = fastindex(tmp_path).stderr
    assert r"images/a\x1b[2Jb\u202ec\n: the name contains" in stderr
    assert "\x1b" not in stderr
    assert len(stderr.splitlines()) == 2


def test_settling_versions_are_left_for_the_next_run(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    young = version("debian/12/amd64/default/20240506_05:24")
    write_tree(tmp_path, young, time.time_ns() - 10 * 10**9)
    result = fastindex("--settle", "3600", tmp_path)
    assert result.returncode == 0
    assert result.stderr.endswith("; 1 version too young\n")
    assert len(published(tmp_path)) == 1
    assert fastindex("--settle", "5", tmp_path).returncode == 0
    assert len(published(tmp_path)) == 2
    # Nothing has changed since, and yet the answer is another one.
    fastindex("--settle", "3600", tmp_path)
    assert len(published(tmp_path)) == 1


def test_a_file_from_the_future_is_told(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version(), time.time_ns() + 10**15)
    result = fastindex(tmp_path)
    assert result.returncode == 0
    assert "was modified in the future" in result.stderr
    assert "2 files hashed" in fastindex(tmp_path).stderr


def test_rehash_finds_what_stamps_do_not_tell(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    fastindex(tmp_path)
    before = (tmp_path / "streams/v1/images.json").read_bytes()
    root = tmp_path / "images/debian/12/amd64/default/20240505_05:24/rootfs.squashfs"
    write_file(root, bytes(len(root.read_bytes())), OLD_NS)
    fastindex(tmp_path)
    assert (tmp_path / "streams/v1/images.json").read_bytes() == before
    fastindex("--rehash", tmp_path)
    assert (tmp_path / "streams/v1/images.json").read_bytes() != before


def test_one_job_and_many_warm_and_cold_give_the_same_bytes(fastindex: Run, tmp_path: Path) -> None:
    tree = {
        path: content
        for os_name in ("debian", "alpine")
        for arch in ("amd64", "arm64")
        for day in range(10, 25)
        for path, content in version(f"{os_name}/1/{arch}/default/202405{day}_05:24").items()
    }
    seen: set[bytes] = set()
    for jobs in (1, 8):
        root = write_tree(tmp_path / str(jobs), tree)
        for cache in ("cold", "warm", "unchanged"):
            if cache == "warm":
                (root / "streams").rename(root / "old")
            result = fastindex("--jobs", jobs, root)
            assert result.returncode == 0, result.stderr
            seen.add(
                (root / "streams/v1/images.json").read_bytes()
                + (root / "streams/v1/index.json").read_bytes()
            )
    assert len(seen) == 1


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {p: c for d in range(10, 30) for p, c in version(f"a/1/amd64/x/202401{d}").items()},
    )
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        result = subprocess.run(
            [COMMAND, "--print", tmp_path], stdout=stdout, stderr=subprocess.PIPE, check=False
        )
    assert b"Traceback" not in result.stderr
    assert result.returncode == 1


def test_a_bar_moves_within_one_big_file_on_a_terminal(tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), **version("debian/13/amd64/default/20240505_05:24")})
    for root in tmp_path.rglob("rootfs.squashfs"):
        os.truncate(root, 700 << 20)
        os.utime(root, ns=(OLD_NS, OLD_NS))
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen([COMMAND, "-j2", tmp_path], stderr=terminal)
    os.close(terminal)
    output = b""
    while True:
        try:
            piece = os.read(controller, 4096)
        except OSError:  # the terminal's other side is closed
            break
        output += piece
    os.close(controller)
    assert process.wait() == 0
    percents = {int(word) for word in re.findall(rb"hashing:\s+(\d+)%", output)}
    assert len(percents) > 4
    assert re.search(rb"\[\d\d:\d\d<\d\d:\d\d, [\d.]+[MG]B/s\]", output)
    assert output.rstrip().endswith(b"0 versions left out")


def test_main_can_be_called_and_returns_the_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path, version())
    assert main(["--version"]) == 0
    assert main(["--jobs", "0"]) == 2
    assert main([str(tmp_path)]) == 0
    assert main([str(tmp_path / "none")]) == 1
    assert "none: no such directory" in capsys.readouterr().err

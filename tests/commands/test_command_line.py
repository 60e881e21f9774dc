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
from fastindex.cli.words import COMMANDS
from fastindex.hashing.engine import describe_engine
from fastindex.mirror.mirror import Mirror
from tests.support.builders import Workshop
from tests.support.command import COMMAND, Run
from tests.support.contents import make_squashfs
from tests.support.large_files import stretch
from tests.support.trees import OLD_NS, published, stamps, version, write_file, write_tree


def test_version_and_module_are_the_same_command(fastindex: Run) -> None:
    wanted = f"fastindex {package.__version__}\n{describe_engine()}\n"
    assert fastindex("--version").stdout == wanted
    module = subprocess.run(
        [sys.executable, "-m", "fastindex", "--version"], capture_output=True, text=True, check=True
    )
    assert module.stdout == wanted


SIGNALLED = {129, 130, 143}
CODES = {
    "build": {0, 1, 2, 3, 75} | SIGNALLED,
    "pull": {0, 1, 2, 3, 75} | SIGNALLED,
    "import": {0, 1, 2, 3, 75} | SIGNALLED,
    "check": {0, 1, 2, 3, 4} | SIGNALLED,
    "verify": {0, 1, 2, 4} | SIGNALLED,
    "list": {0, 1, 2, 4} | SIGNALLED,
    "diff": {0, 1, 2, 3} | SIGNALLED,
    "prune": {0, 1, 2, 3, 75} | SIGNALLED,
    "remove": {0, 1, 2, 3, 75} | SIGNALLED,
    "deltas": {0, 1, 2, 3, 75} | SIGNALLED,
    "status": {0, 1, 2, 3} | SIGNALLED,
    "push": {0, 1, 2, 75} | SIGNALLED,
    "nightly": {0, 1, 2, 3, 75} | SIGNALLED,
    "serve": {0, 1, 2, 3},
    "units": {0, 1, 2},
    "bench": {0, 1, 2} | SIGNALLED,
    "config": {0, 2},
    "completion": {0, 2},
    "help": {0, 2},
}
"""What each command can end with."""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_the_exit_codes_of_this_command(fastindex: Run, command: str) -> None:
    text = fastindex(command, "--help").stdout
    examples, _, table = text.partition("\nexamples:\n")[2].partition("\nexit codes:\n")
    assert "  fastindex " in examples
    rows = [row.split(maxsplit=1) for row in table.splitlines()]
    assert {int(code) for code, _ in rows} == CODES[command]
    assert len({meaning for _, meaning in rows}) == len(rows)


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verfy"], "'verfy' is neither a command nor a directory here; did you mean verify?"),
        (["lst", "mirror"], "did you mean list?"),
        (["lst", "--all", "mirror"], "did you mean list?"),  # which the build does not have
        (["-q", "lst", "mirror"], "did you mean list?"),
        (["--jobs", "2", "-j", "2", "lst", "mirror"], "did you mean list?"),
        (
            ["frobnicate", "mirror"],
            "a directory here; the commands are build, pull, import, verify, ",
        ),
        ([""], "'' is neither a command nor a directory here; the commands are "),
        (["help", "imprt"], "'imprt' is not a command; did you mean import?"),
        (["help", "frobnicate"], "is not a command; the commands are build, "),
        (["--rehas", "mirror"], "--rehas: no such option; did you mean --rehash?"),
        (["--setle", "2m", "mirror"], "--setle: no such option; did you mean --settle?"),
        (["--setle=2m", "mirror"], "--setle: no such option; did you mean --settle?"),
        (["list", "--al", "mirror"], "--al: no such option; did you mean --all?"),
        (["--al", "list", "mirror"], "--al: no such option; did you mean --all?"),
        (["prune", "--dryrun", "mirror"], "--dryrun: no such option; did you mean --dry-run?"),
        (["remove", "--gracee", "1h", "x", "mirror"], "did you mean --grace?"),
        (["import", "--vesion-name", "x", "a", "mirror"], "did you mean --version-name?"),
        (["-x", "mirror"], "-x: no such option\n"),
        (["mirror", "other"], "'other' is one argument too many\n"),
        (["mirror", "list"], "'list' is one argument too many; a command comes before ROOT"),
        (["help", "list", "verify"], "'verify' is one argument too many"),
        (["--output"], "--output: needs a value"),
        (["--rehash=yes", "mirror"], "--rehash: takes no value, and so not 'yes'"),
        (["-q", "-v", "mirror"], "-v/--verbose: cannot be used together with -q/--quiet"),
        (["import", "source"], "missing: ROOT"),
    ],
)
def test_what_was_mistyped_is_told_with_what_was_meant(
    fastindex: Run, tmp_path: Path, words: list[str], said: str
) -> None:
    write_tree(tmp_path / "mirror", version())
    before = stamps(tmp_path)
    result = fastindex(*words)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("fastindex: error: ")
    assert said in result.stderr
    assert result.stderr.endswith("--help explains the command and its options\n")
    assert stamps(tmp_path) == before


def test_options_may_stand_before_the_command(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    assert fastindex("-q", "build", tmp_path).stderr == ""
    row = fastindex("list", tmp_path).stdout
    assert "debian/12" in row
    for words in (
        ["-q", "list"],
        ["--quiet", "list"],
        ["-v", "list"],
        ["--output", ".", "list"],
        ["--output=.", "list"],
        ["--output", ".", "-q", "list", "--all"],
    ):
        result = fastindex(*words, tmp_path)
        assert (result.returncode, result.stdout, result.stderr) == (0, row, ""), words
    for words in (["--jobs", "1"], ["-j", "1"], ["-qj", "1"], ["-j1"], ["-q", "--sha256"]):
        assert fastindex(*words, "verify", tmp_path).returncode == 0
    assert fastindex("--json", "verify", tmp_path).stdout.startswith("{")
    assert fastindex("--version", "verify").stdout == fastindex("--version").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_quiet_or_verbose_and_says_its_version(
    fastindex: Run, command: str
) -> None:
    shown = fastindex("help", command)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == fastindex("--help", command).stdout == fastindex(command, "-h").stdout
    for option in ("-q, --quiet", "-v, --verbose", "--version"):
        assert f"\n  {option} " in shown.stdout


def test_a_directory_that_is_called_like_a_command_is_given_as_a_path(
    fastindex: Run, tmp_path: Path
) -> None:
    for command in COMMANDS:
        write_tree(tmp_path / command, version())
        assert fastindex(f"./{command}").returncode == 0
        assert len(published(tmp_path / command)) == 1
    assert fastindex("build", "build").returncode == 0
    assert fastindex("--", "help").returncode == 0
    assert fastindex("build").returncode == 1  # the current directory has no images/


def test_root_is_the_current_directory_by_default(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    assert fastindex(cwd=tmp_path).returncode == 0
    assert len(published(tmp_path)) == 1


def test_the_seed_tools_option_is_accepted(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    assert fastindex("-N", tmp_path).returncode == 0
    assert len(published(tmp_path)) == 1


@pytest.mark.parametrize(
    "words",
    [["--wait"], ["--wait", "5"], ["--wait=5"], ["--wait", "1h5m"], ["--wait", "--"]],
)
def test_wait_takes_a_time_or_nothing(fastindex: Run, tmp_path: Path, words: list[str]) -> None:
    write_tree(tmp_path, version())
    for command in ((), ("build",), ("prune",)):
        assert fastindex(*command, *words, tmp_path).returncode == 0
        if "--" not in words:
            assert fastindex(*words, *command, tmp_path).returncode == 0
            assert fastindex(*command, tmp_path, *words).returncode == 0


def test_an_import_waits_no_longer_than_it_is_told(
    fastindex: Run, workshop: Workshop, tmp_path: Path
) -> None:
    source, root = workshop.split(tmp_path / "source"), tmp_path / "mirror"
    root.mkdir()
    with Mirror.at(root).lock(0):
        result = fastindex("--wait", "0", "import", "--index", source, root)
        assert result.returncode == 75
        assert "1 version imported" in result.stderr
        assert "another run (pid" in result.stderr
    assert fastindex(root).returncode == 0
    assert len(published(root)) == 1


@pytest.mark.parametrize("option", ["--settle", "--wait", "--grace", "--seconds"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["2x"], "2x"),
        (["5", "minutes"], "5 minutes"),
        (["5 minutes"], "5 minutes"),
        (["2h", "30m"], "2h 30m"),
        (["-5"], "-5"),
        (["-5m"], "-5m"),
        ([""], ""),
        (["5,5"], "5,5"),
        (["1e3"], "1e3"),
        (["30m1"], "30m1"),
        (["9" * 10], "9999999999"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_time_is_told_as_such(
    fastindex: Run, tmp_path: Path, option: str, words: list[str], said: str
) -> None:
    write_tree(tmp_path, version())
    command = {"--grace": "prune", "--seconds": "bench"}.get(option, "build")
    before = stamps(tmp_path)
    for line in ([command, option, *words, "."], [command, ".", option, *words]):
        result = fastindex(*line)
        assert result.returncode == 2
        assert f"{option}: must be a time such as 90 (seconds), 30m" in result.stderr
        assert f"or 1d, not {said!r}\n" in result.stderr
    assert stamps(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--adopt .", "--adopt does nothing without --cache-dir; add that, or leave out --adopt"),
        ("import --wait 5 source .", "--wait does nothing without --index; add that, or"),
        ("--rehash --recheck 1/30 .", "--recheck: cannot be used together with --rehash"),
        ("prune --undo a --keep 5 .", "--keep does nothing with --undo; leave out one of the two"),
        ("prune --undo a --keep-days 5 .", "--keep-days does nothing with --undo"),
        ("prune --undo a --grace 0 .", "--grace does nothing with --undo"),
        ("-i source --print .", "--print does nothing with -i"),
        ("-i source --settle 5 .", "--settle does nothing with -i"),
        ("-i source --wait 5 .", "--wait does nothing with -i"),
        ("-i source --stream a --stream b .", "an import goes into one stream"),
    ],
)
def test_an_option_that_would_do_nothing_is_wrong_usage(
    fastindex: Run, tmp_path: Path, words: str, said: str
) -> None:
    write_tree(tmp_path, version())
    before = stamps(tmp_path)
    result = fastindex(*words.split())
    assert (result.returncode, result.stdout) == (2, "")
    assert f"fastindex: error: {said}" in result.stderr
    assert stamps(tmp_path) == before


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
        r"fastindex: 1 version of 1 product published; 2 files hashed, 0 reused; 3\d\d B read at "
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
    # It is known to be whole, so its age does not matter any more.
    result = fastindex("--settle", "3600", tmp_path)
    assert "too young" not in result.stderr
    assert len(published(tmp_path)) == 2


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
    write_file(root, make_squashfs(bytes(root.stat().st_size - 96)), OLD_NS)
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
        stretch(root, 700 << 20)
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
    assert b"0 versions left out\r\n" in output


def test_main_can_be_called_and_returns_the_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path, version())
    assert main(["--version"]) == 0
    assert main(["--jobs", "0"]) == 2
    assert main([str(tmp_path)]) == 0
    assert main([str(tmp_path / "none")]) == 1
    assert "none: no such directory" in capsys.readouterr().err


COMMANDS_WITH_ROOT = [
    (),
    ("list",),
    ("verify",),
    ("diff",),
    ("prune",),
    ("remove", "debian/12"),
    ("import", "source"),
    ("import", "--dry-run", "source"),
]


@pytest.mark.parametrize("words", COMMANDS_WITH_ROOT, ids=" ".join)
def test_a_stream_directory_given_for_root_is_told(
    fastindex: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    write_tree(tmp_path / "mirror", version())
    write_tree(tmp_path / "source", {})
    for is_published in (False, True):
        if is_published:
            assert fastindex("-q", "mirror").returncode == 0
        before = stamps(tmp_path)
        result = fastindex(*words, "mirror/images")
        assert result.returncode == 1
        where = tmp_path / "mirror"
        problem = "the stream level images/ is missing above debian/12/amd64/default/20240505_05:24"
        if is_published:
            problem = f"this looks like the stream directory of {where}"
        assert f"{where}/images: {problem}; give {where} for ROOT" in result.stderr
        assert stamps(tmp_path) == before


@pytest.mark.parametrize("words", COMMANDS_WITH_ROOT[:5], ids=" ".join)
def test_a_root_that_is_not_there_is_told(
    fastindex: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    result = fastindex(*words, "./mirrro")
    assert result.returncode == 1
    assert result.stderr.startswith(
        f"fastindex: error: {tmp_path}/mirrro: no such directory; ROOT "
    )
    assert "run fastindex" not in result.stderr

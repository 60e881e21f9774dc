"""The configuration: which file is in force, who may write it, and what its values do."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastindex.cli import configuration as module
from fastindex.cli.configuration import fill_in, find_source_values, find_values
from fastindex.cli.words import COMMANDS
from fastindex.errors import ExitCode, find_worst
from fastindex.formats.configuration import (
    MIRROR_KEYS,
    PULL_KEYS,
    MirrorConfiguration,
    PullSource,
    parse_configuration,
)
from tests.support.command import NOBODY, AsNobody, Run, umask
from tests.support.trees import Files, in_stream, published, stamps, version, write_tree
from tests.unit.formats.test_configuration import FULL

DAILY = in_stream("images-daily", version("debian/13/amd64/default/20240505_05:24"))


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    """Make no directory that the group may write, whatever the umask of who runs the tests."""
    with umask(0o022):
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home without a configuration, which is looked for there."""
    path = tmp_path / "home"
    path.mkdir()
    monkeypatch.delenv("FASTINDEX_CONFIG")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(path))
    return path


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """Return the root of a mirror with two streams."""
    root = tmp_path / "srv"
    write_tree(root, version() | DAILY)
    return root


def configure(path: Path, root: Path, name: str = "main", more: str = "") -> Path:
    """Write a configuration with one mirror, of two streams."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'[mirror.{name}]\nroot = "{root}"\nstreams = ["images", "images-daily"]\n{more}'
    )
    path.chmod(0o644)
    return path


def is_built(root: Path) -> bool:
    """Return whether both streams are published."""
    return bool(published(root)) and bool(published(root, "images-daily"))


def test_a_name_stands_for_its_mirror(fastindex: Run, tmp_path: Path, mirror: Path) -> None:
    file = configure(tmp_path / "c.toml", mirror)
    result = fastindex("main", "--config", file)
    assert (result.returncode, result.stdout) == (0, "")
    assert is_built(mirror)
    assert fastindex("--config", file, "build", "main").returncode == 0
    assert fastindex("--config=c.toml", "-q", "verify", "main").returncode == 0
    assert "main" not in os.listdir(tmp_path)


@pytest.mark.parametrize("word", ["srv", "./srv/", "{root}", "srv/../srv", "link"])
def test_so_does_the_path_of_its_root(
    fastindex: Run, tmp_path: Path, mirror: Path, word: str
) -> None:
    file = configure(tmp_path / "c.toml", mirror)
    (tmp_path / "link").symlink_to(mirror)
    assert fastindex("--config", file, word.format(root=mirror)).returncode == 0
    assert is_built(mirror)


def test_so_does_the_current_directory(fastindex: Run, tmp_path: Path, mirror: Path) -> None:
    file = configure(tmp_path / "c.toml", mirror)
    assert fastindex("--config", file, cwd=mirror).returncode == 0
    assert is_built(mirror)


def test_with_another_output_it_is_another_mirror(
    fastindex: Run, tmp_path: Path, mirror: Path
) -> None:
    file = configure(tmp_path / "c.toml", mirror)
    assert fastindex("--config", file, "--output", "www", mirror).returncode == 0
    assert os.listdir(tmp_path / "www/streams/v1") != []
    assert not (tmp_path / "www/streams/v1/images-daily.json").exists()


def test_one_root_with_two_outputs_is_asked_for_by_name_or_output(
    fastindex: Run, tmp_path: Path, mirror: Path
) -> None:
    file = configure(
        tmp_path / "c.toml",
        mirror,
        more=f'[mirror.other]\nroot = "{mirror}"\noutput = "{tmp_path}/www"\n',
    )
    result = fastindex("--config", file, mirror)
    assert result.returncode == 2
    assert f"is the root of several mirrors in {file}; write main or other" in result.stderr
    assert fastindex("--config", file, "--output", mirror, mirror).returncode == 0
    assert is_built(mirror)
    assert fastindex("--config", file, "other").returncode == 0
    assert published(tmp_path / "www")


def test_none_is_no_configuration(fastindex: Run, home: Path, mirror: Path) -> None:
    configure(home / ".config/fastindex/config.toml", mirror, more="nonsense = 1\n")
    assert fastindex(mirror).returncode == 2
    assert fastindex("--config", "none", mirror).returncode == 0
    assert not (mirror / "streams/v1/images-daily.json").exists()
    assert fastindex("--config", "none", "main").returncode == 2


def in_force(fastindex: Run, *words: object) -> tuple[int, str]:
    """Return the exit code and which file is in force."""
    result = fastindex("config", "--json", *words)
    return result.returncode, json.loads(result.stdout)["file"] if not result.returncode else ""


def test_the_first_file_that_exists_is_used_alone(
    fastindex: Run, home: Path, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert in_force(fastindex)[0] == 0
    in_home = configure(home / ".config/fastindex/config.toml", mirror, "a")
    assert in_force(fastindex) == (0, str(in_home))
    in_xdg = configure(tmp_path / "xdg/fastindex/config.toml", mirror, "b")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert in_force(fastindex) == (0, str(in_xdg))
    assert fastindex("build", "a").returncode == 2
    in_variable = configure(tmp_path / "variable.toml", mirror, "c")
    monkeypatch.setenv("FASTINDEX_CONFIG", str(in_variable))
    assert in_force(fastindex) == (0, str(in_variable))
    by_option = configure(tmp_path / "option.toml", mirror, "d")
    assert in_force(fastindex, "--config", "option.toml") == (0, str(by_option))
    monkeypatch.setenv("FASTINDEX_CONFIG", "none")
    assert fastindex("config").stdout.startswith("# no configuration")
    monkeypatch.setenv("FASTINDEX_CONFIG", "")
    assert in_force(fastindex) == (0, str(in_xdg))


def test_what_is_named_must_exist(
    fastindex: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = fastindex("config", "--config", "c.toml")
    assert result.returncode == 2
    assert f"{tmp_path}/c.toml: cannot be read: No such file or directory" in result.stderr
    assert fastindex("config", "--config", "").returncode == 2
    monkeypatch.setenv("FASTINDEX_CONFIG", str(tmp_path / "c.toml"))
    assert fastindex("config").returncode == 2


def test_the_current_directory_and_root_are_not_looked_into(
    fastindex: Run, home: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fastindex.toml", "config.toml", ".config/fastindex/config.toml"):
        configure(mirror / name, mirror, more="nonsense = 1")
    configure(mirror / "fastindex/config.toml", mirror, more="nonsense = 1")
    monkeypatch.setenv("HOME", "")
    assert fastindex("list", cwd=mirror).returncode == 1
    monkeypatch.setenv("XDG_CONFIG_HOME", ".")
    assert fastindex("list", cwd=mirror).returncode == 1
    monkeypatch.setenv("FASTINDEX_CONFIG", "config.toml")
    result = fastindex("list", cwd=mirror)
    assert result.returncode == 2
    assert "FASTINDEX_CONFIG: must be an absolute path or none" in result.stderr


def test_the_files_that_are_looked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = str(home / ".config/fastindex/config.toml")
    assert module.list_places() == [own, "/etc/fastindex.toml"]
    monkeypatch.delenv("HOME")
    assert module.list_places() == ["/etc/fastindex.toml"]


@pytest.mark.root
def test_a_home_that_this_user_may_not_enter_is_not_its_own(
    fastindex_as_nobody: AsNobody, home: Path, mirror: Path
) -> None:
    configure(home / ".config/fastindex/config.toml", mirror, more="nonsense = 1\n")
    home.chmod(0o700)
    for above in mirror.parents[:4]:
        above.chmod(above.stat().st_mode | 0o005)
    for path in (mirror, *mirror.rglob("*")):
        os.chown(path, NOBODY, -1)
    assert fastindex_as_nobody(mirror)[0] == 0
    home.chmod(0o755)
    code, said = fastindex_as_nobody(mirror)
    assert code == 2
    assert 'unknown key "nonsense"' in said


def make_fifo(file: Path) -> None:
    """Put a FIFO, whose reader would wait for ever, in the place of a file."""
    file.unlink()
    os.mkfifo(file, 0o600)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda file: file.chmod(0o666), "others may change it: {file}: all users may write it"),
        (lambda file: file.chmod(0o664), "others may change it: {file}: the group"),
        (lambda file: file.parent.chmod(0o777), "others may change it: {above}: all users may"),
        (lambda file: file.write_bytes(b"#" * 70_000), "cannot be read: larger than 65536 bytes"),
        (make_fifo, "read: not a regular file"),
        (lambda file: (file.unlink(), file.mkdir()), "read: not a regular file"),
        (lambda file: (file.unlink(), file.symlink_to("x")), "No such file or directory"),
        (lambda file: (file.unlink(), file.symlink_to(file)), "Too many levels"),
        (lambda file: file.write_bytes(b"[mirror"), "config.toml:1: not TOML"),
    ],
)
def test_what_cannot_be_trusted_or_used_is_refused(
    fastindex: Run,
    home: Path,
    mirror: Path,
    spoil: Callable[[Path], object],
    told: str,
) -> None:
    file = configure(home / "fastindex/config.toml", mirror)
    spoil(file)
    before = stamps(mirror)
    for words in (["main"], ["verify", "main"], ["config"], ["build", "--all"], ["pull", "main"]):
        result = fastindex(*words, "--config", file)
        assert (result.returncode, result.stdout) == (2, "")
        assert told.format(file=file, above=file.parent) in result.stderr
        assert "Traceback" not in result.stderr
    assert stamps(mirror) == before
    assert fastindex("--version", "--config", file).returncode == 0


@pytest.mark.root
def test_the_file_of_another_user_is_refused(fastindex: Run, tmp_path: Path, mirror: Path) -> None:
    file = configure(tmp_path / "c.toml", mirror)
    os.chown(file, NOBODY, -1)
    result = fastindex("main", "--config", file)
    assert result.returncode == 2
    assert f"{file}: belongs to the user {NOBODY}, who may change it" in result.stderr


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        ('report = "{root}/streams/v1/index.json"', "", '"report" must not lie among the images'),
        ('metrics = "{root}/images/x"', "", '"metrics" must not lie among the images'),
        ('metrics = "{other}/link/v1/x"', "", '"metrics" must not lie among the images'),
        ('report = "{other}/r"', 'metrics = "{other}/../other/r"', "must not be the report of a"),
        ("", 'output = "{root}/../root"', "must not be the output of a"),
    ],
)
def test_no_run_writes_where_another_one_does(
    fastindex: Run, tmp_path: Path, first: str, second: str, problem: str
) -> None:
    places = {"root": tmp_path / "root", "other": tmp_path / "other"}
    for place in places.values():
        (place / "streams").mkdir(parents=True)
        (place / "images").mkdir()
    (places["other"] / "link").symlink_to(places["root"] / "streams")
    text = f'[mirror.a]\nroot = "{{root}}"\n{first}\n[mirror.b]\nroot = "{{other}}"\n{second}\n'
    file = tmp_path / "etc" / "c.toml"
    file.parent.mkdir(mode=0o755)
    file.write_text(text.format(**places))
    file.chmod(0o600)
    done = fastindex("config", "--config", file)
    assert done.returncode == 2
    assert problem in done.stderr
    assert f"{file}:" in done.stderr


def test_a_symlink_among_trusted_directories_is_followed(
    fastindex: Run, tmp_path: Path, mirror: Path
) -> None:
    configure(tmp_path / "store/c.toml", mirror)
    (tmp_path / "c.toml").symlink_to("store/c.toml")
    assert fastindex("main", "--config", "c.toml").returncode == 0


@pytest.mark.parametrize("place", ["root", "output", "stream"])
def test_a_file_in_a_mirror_is_refused(
    fastindex: Run, tmp_path: Path, mirror: Path, place: str
) -> None:
    (mirror / "images").rename(tmp_path / "disk2")
    (mirror / "images").symlink_to(tmp_path / "disk2")
    www = tmp_path / "www"
    inside = {"root": mirror, "output": www, "stream": tmp_path / "disk2"}[place] / "debian/c.toml"
    configure(inside, mirror, more=f'output = "{www}"\n')
    (tmp_path / "link.toml").symlink_to(inside)
    result = fastindex("config", "--config", "link.toml")
    assert result.returncode == 2
    assert f"as it lies in the mirror {mirror}, where uploaders write; move it" in result.stderr


def test_a_file_in_a_mirror_that_it_does_not_name_is_refused(
    fastindex: Run, home: Path, tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home of a service's user may be ROOT."""
    assert fastindex(mirror).returncode == 0
    configure(mirror / ".config/fastindex/config.toml", tmp_path / "other")
    monkeypatch.setenv("HOME", str(mirror))
    result = fastindex(mirror)
    assert result.returncode == 2
    assert f"config.toml: not used, as it lies in the mirror {mirror}, where " in result.stderr


def test_a_name_that_is_a_directory_too_is_told_with_both_ways_to_write_it(
    fastindex: Run, tmp_path: Path, mirror: Path
) -> None:
    file = configure(tmp_path / "c.toml", mirror)
    write_tree(tmp_path / "main", version("alpine/3.20/amd64/default/20240505_05:24"))
    before = stamps(tmp_path)
    for command in ("build", "verify", "list", "diff", "prune"):
        result = fastindex(command, "--config", file, "main")
        assert result.returncode == 2
        assert "'main' is a mirror in " in result.stderr
        assert f"write ./main for the directory, {mirror} for the mirror" in result.stderr
    assert stamps(tmp_path) == before
    assert fastindex("--config", file, "./main").returncode == 0
    assert published(tmp_path / "main") == {"alpine:3.20:amd64:default 20240505_05:24"}
    assert fastindex("--config", file, mirror).returncode == 0
    assert is_built(mirror)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["mian"], "'mian' is neither a command, a mirror nor a directory here; did you mean main"),
        (["build", "mian"], "did you mean main?"),
        (["verfy"], "did you mean verify?"),
        (["list", "mian"], "'mian' is neither a mirror in {file} nor a directory here; did you me"),
        (["pull", "mian"], "'mian' is neither a URL nor a mirror in {file}; did you mean main?"),
        (["pull", "main"], "the mirror main has no source; give a URL, or add a table [[mirror.ma"),
        (["pull", "main", "srv"], "the mirror main has its ROOT; leave out srv"),
        (["config", "mian"], "{file}: has no mirror 'mian'; did you mean main?"),
        (["remove", "main"], "main is a mirror; name the images to remove before it"),
        (["build", "--all", "main"], "--all builds each mirror in the configuration; leave out 'm"),
        (["build", "--all", "--print"], "--print does nothing with --all; leave out one"),
        (["build", "--all", "--output", "x"], "--output does nothing with --all"),
        (["build", "--all", "--report", "x"], "--report does nothing with --all"),
        (["build", "--all", "--metrics", "x"], "--metrics does nothing with --all"),
        (["--adopt", "main"], "--adopt does nothing without --cache-dir"),
        (["--print", "main"], "--print prints one product file; give one --stream only"),
    ],
)
def test_wrong_usage_is_told(
    fastindex: Run, tmp_path: Path, mirror: Path, words: list[str], told: str
) -> None:
    file = configure(tmp_path / "c.toml", mirror)
    before = stamps(mirror)
    result = fastindex(*words, "--config", file)
    assert (result.returncode, result.stdout) == (2, "")
    assert told.format(file=file) in result.stderr
    assert stamps(mirror) == before


def test_all_mirrors_are_built_and_the_worst_exit_code_is_told(
    fastindex: Run, tmp_path: Path, mirror: Path
) -> None:
    write_tree(tmp_path / "b", version())
    (tmp_path / "b/images/debian/12/amd64/default/20240505_05:24/rootfs.squashfs").write_bytes(b"")
    more = "".join(
        f'[mirror.{name}]\nroot = "{tmp_path}/{name}"\n' for name in ("b", "missing", "last")
    )
    write_tree(tmp_path / "last", version())
    file = configure(tmp_path / "c.toml", mirror, more=more)
    result = fastindex("build", "--all", "--config", file)
    assert result.returncode == 1
    said = [line.removeprefix("fastindex: ") for line in result.stderr.splitlines()]
    assert [line.split(":")[0] for line in said if "published; " in line] == ["main", "b", "last"]
    assert any(line.startswith("missing: error: ") for line in said)
    assert {line.split(": ")[0] for line in said} == {"main", "b", "missing", "last"}
    assert is_built(mirror)
    assert published(tmp_path / "last")
    again = fastindex("build", "--all", "-n", "--config", file)
    assert next(line for line in again.stdout.splitlines() if line.endswith(":")) == "main:"
    assert fastindex("build", "--all").returncode == 2
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    assert "has no mirror" in fastindex("build", "--all", "--config", empty).stderr


def test_the_worst_exit_code() -> None:
    assert find_worst([]) is ExitCode.DONE
    assert find_worst([0, 3, 75, 0]) is ExitCode.LOCKED
    assert find_worst([75, 1, 3]) is ExitCode.FAILED
    assert find_worst([1, 130]) is ExitCode.INTERRUPTED
    assert {find_worst([code]) for code in ExitCode} == {*ExitCode}


def test_the_command_line_wins_over_the_file(fastindex: Run, tmp_path: Path, mirror: Path) -> None:
    file = configure(tmp_path / "c.toml", mirror, more='settle = "1000d"\nkeep = 1\n')
    write_tree(mirror, version("debian/12/amd64/default/20250101_00:00"), mtime_ns=int(1.7e18))
    assert fastindex("main", "--config", file, "--stream", "images-daily").returncode == 0
    assert not (mirror / "streams/v1/images.json").exists()
    assert fastindex("main", "--config", file, "--settle", "0").returncode == 0
    assert len(published(mirror)) == 2


def test_remove_and_import_take_a_name(
    fastindex: Run, tmp_path: Path, mirror: Path, source: Path
) -> None:
    file = configure(tmp_path / "c.toml", mirror)
    assert fastindex("main", "--config", file).returncode == 0
    name = "images-daily/debian/13/amd64/default/20240505_05:24"
    result = fastindex("remove", "--config", file, name, "main")
    assert (result.returncode, result.stdout) == (0, f"withdrawn {name}\n")
    result = fastindex(
        "import", "--config", file, "--version-name", "20240601_00:00", source, "main"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("images/")
    assert (mirror / result.stdout.strip()).is_dir()


def test_pull_takes_its_sources_from_the_file(fastindex: Run, tmp_path: Path, mirror: Path) -> None:
    for name in ("one", "two"):
        tree: Files = {}
        for os_name in ("debian", "alpine"):
            tree |= version(f"{os_name}/{name}/amd64/default/20240505_05:24")
        write_tree(tmp_path / name, tree)
        assert fastindex(tmp_path / name).returncode == 0
    sources = "".join(
        f'[[mirror.main.pull]]\nurl = "file://{tmp_path}/{name}"\n{more}'
        for name, more in (("one", ""), ("two", 'filters = ["os=alpine"]\nstream = "alpine"\n'))
    )
    file = configure(tmp_path / "c.toml", mirror, more=f'filters = ["os=debian"]\n{sources}')
    result = fastindex("pull", "main", "--config", file)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [
        "images/debian/one/amd64/default/20240505_05:24",
        "alpine/alpine/two/amd64/default/20240505_05:24",
    ]
    assert f"fastindex: file://{tmp_path}/two: 1 version pulled" in result.stderr
    assert is_built(mirror)
    report = json.loads(fastindex("pull", "main", "--json", "--config", file).stdout)
    for name in ("one", "two"):
        assert report[f"pull file://{tmp_path}/{name}"]["existing"] == 1
    assert report["build"]["versions"] == 4
    result = fastindex("pull", "main", "-n", "--filter", "os=none", "--config", file)
    assert result.returncode == 1
    assert result.stderr.count("error: ") == 2


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the parser of a command."""
    name = {"import": "import_images"}.get(command, command)
    parser: argparse.ArgumentParser = importlib.import_module(f"fastindex.cli.{name}").make_parser()
    return parser


CONFIGURED = [
    command
    for command in COMMANDS
    if command not in ("config", "units", "help")
    and "--config" in parser_of(command)._option_string_actions
]
"""The commands whose options a mirror of the configuration sets."""

PUBLISHING = {"build", "pull", "import", "prune", "remove", "deltas"}
"""The commands that publish."""
REACHES = {
    "output": {
        "deltas",
        "build",
        "pull",
        "import",
        "verify",
        "list",
        "diff",
        "prune",
        "remove",
        "serve",
        "status",
        "push",
    },
    "cache_dir": {"deltas", "build", "pull", "import", "verify", "diff", "prune", "remove", "push"},
    "allow_links": {
        "serve",
        "push",
        "deltas",
        "build",
        "pull",
        "import",
        "verify",
        "diff",
        "prune",
        "remove",
    },
    "streams": {"deltas", "build", "import", "diff", "prune", "remove", "status"},
    "jobs": {"deltas", "build", "pull", "import", "verify", "diff", "prune", "remove"},
    "cluster": {"deltas", "build", "pull", "import", "verify", "diff", "prune", "remove"},
    "engine": {"deltas", "build", "pull", "import", "verify", "diff", "prune", "remove"},
    "scanners": {"deltas", "build", "pull", "diff", "prune", "remove"},
    "blake3": {"build", "pull", "import"},
    "settle": {"deltas", "build", "prune", "remove"},
    "recheck": {"build", "prune"},
    "wait": {"deltas", "build", "pull", "import", "nightly", "prune", "remove", "push"},
    "keep": {"prune"},
    "keep_days": {"prune"},
    "grace": {"prune", "remove", "status", "push"},
    "filters": {"pull"},
    "max_age": {"status"},
    "gzip": PUBLISHING,
    "zstd": PUBLISHING,
    "lists": PUBLISHING,
    "sign": PUBLISHING,
    "page": PUBLISHING,
    "page_settings": PUBLISHING,
    "metrics": {"deltas", "build", "pull", "import", "nightly", "prune", "remove", "push"},
    "deltas": {"deltas"},
    "max_ratio": {"deltas"},
    "machine_deltas": {"deltas"},
    "push_endpoint": {"push"},
    "push_allow_http": {"push"},
}
"""Key → the commands whose options it sets. A pull takes the streams another way."""
ELSEWHERE = {"root", "on_publish", "on_failure", "report", "push"}
POSITIONALS = {"pull": ["u"], "import": ["s", "r"], "remove": ["i"]}


def values_of(command: str, values: dict[str, Any], *words: str) -> dict[str, Any]:
    """Return the arguments of a command with ``values`` from a file."""
    parser: Any = parser_of(command)
    words = (*POSITIONALS.get(command, []), *words)
    return vars(fill_in(parser, words, values, read=parser.parse_intermixed_args))


@pytest.mark.parametrize("command", CONFIGURED)
def test_each_key_reaches_the_options_of_its_meaning_and_no_others(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASTINDEX_ENGINE", raising=False)
    text = FULL.replace('["images", "images-daily"]', '["first", "second"]')
    text = text.replace('"inf"', '"5m"')  # which an import waits anyway
    main = parse_configuration("c", text.encode()).mirrors["main"]
    without = values_of(command, {})
    assert {*REACHES} | ELSEWHERE == {*MIRROR_KEYS}
    assert set().union(*REACHES.values()) == {*CONFIGURED}
    for key, commands in REACHES.items():
        one = MirrorConfiguration(
            name="m",
            root="/r",
            lines={key: 1},
            **{MIRROR_KEYS[key].field: getattr(main, MIRROR_KEYS[key].field)},
        )
        found = values_of(command, find_values(one, command))
        changed = {name for name, value in found.items() if value != without[name]}
        assert bool(changed) == (command in commands), (key, changed)
        for name in changed:
            value = getattr(main, MIRROR_KEYS[key].field)
            wanted = {"no_blake3": True}.get(name, [*value] if isinstance(value, tuple) else value)
            if command == "import" and name == "stream":
                wanted = "first"
            assert found[name] == wanted


def test_each_key_of_a_source_reaches_its_option() -> None:
    source = parse_configuration("c", FULL.encode()).mirrors["main"].pull[0]
    without = values_of("pull", {})
    for key in {*PULL_KEYS} - {"url"}:
        field = PULL_KEYS[key].field
        one = PullSource(url="u", lines={key: 1}, **{field: getattr(source, field)})
        found = values_of("pull", find_source_values(one))
        (changed,) = (name for name, value in found.items() if value != without[name])
        value = getattr(source, field)
        assert found[changed] == ([*value] if isinstance(value, tuple) else value)


def test_the_defaults_are_those_of_the_options() -> None:
    mirror = MirrorConfiguration(name="m", root="/r")
    for command in CONFIGURED:
        without = values_of(command, {})
        every = find_values(
            MirrorConfiguration(name="m", root="/r", lines=dict.fromkeys(REACHES, 1)), command
        )
        for name, value in values_of(command, every).items():
            usual = without[name]
            if name == "stream" and usual is None and command != "pull":
                usual = ["images"]
            if (command, name) != ("import", "wait"):  # which waits as long as it takes
                assert (value or None) == (usual or None), (command, name)
    source = PullSource(url="u", lines=dict.fromkeys(PULL_KEYS, 1))
    assert mirror.wait_seconds == values_of("build", {})["wait"]
    without = values_of("pull", {})
    for name, value in values_of("pull", find_source_values(source)).items():
        assert (value or None) == (without[name] or None), name


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--stream", "a"], "stream", ["a"]),
        (["--allow-links", "/a", "--allow-links", "/b"], "allow_links", ["/a", "/b"]),
        (["--jobs", "3"], "jobs", 3),
        (["--engine", "auto"], "engine", "auto"),
        (["--settle", "0"], "settle", 0.0),
        (["--recheck", "1/2"], "recheck", "1/2"),
        (["--rehash"], "recheck", ""),
        (["--wait=5"], "wait", 5.0),
        (["--cache-dir", "/c"], "cache_dir", "/c"),
        ([], "jobs", 8),
    ],
)
def test_an_option_wins_even_with_the_value_that_is_its_default(
    words: list[str], name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASTINDEX_ENGINE", raising=False)
    main = parse_configuration("c", FULL.encode()).mirrors["main"]
    assert values_of("build", find_values(main, "build"), *words)[name] == value


def test_the_environment_wins_over_the_file(
    fastindex: Run, tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = configure(tmp_path / "c.toml", mirror, more='engine = "hashlib"\n')
    configured = parse_configuration("c", file.read_bytes()).mirrors["main"]
    assert find_values(configured, "build")["engine"] == "hashlib"
    monkeypatch.setenv("FASTINDEX_ENGINE", "auto")
    assert "engine" not in find_values(configured, "build")
    assert 'engine = "auto"   # FASTINDEX_ENGINE' in fastindex("config", "--config", file).stdout


def test_config_prints_toml_that_says_the_same(fastindex: Run, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(FULL)
    result = fastindex("config", "--config", file)
    assert (result.returncode, result.stderr) == (0, "")
    before = parse_configuration("c", FULL.encode())
    after = parse_configuration("c", result.stdout.encode())
    for name, mirror in before.mirrors.items():
        for key in MIRROR_KEYS.values():
            assert getattr(after.mirrors[name], key.field) == getattr(mirror, key.field)
        for one, other in zip(mirror.pull, after.mirrors[name].pull, strict=True):
            for key in PULL_KEYS.values():
                assert getattr(one, key.field) == getattr(other, key.field)
    rows = FULL.splitlines()
    for row in result.stdout.splitlines():
        setting, _, origin = row.rpartition("   # ")
        if setting and origin != "default":
            path, _, line = origin.partition(":")
            assert path == str(file)
            assert rows[int(line) - 1].partition(" ")[0] == setting.partition(" ")[0]
    assert "keep = 3   # default" in result.stdout
    assert f'grace = "1d"   # {file}:3' in result.stdout


def test_config_prints_one_mirror_and_json(fastindex: Run, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(FULL)
    small = tomllib.loads(fastindex("config", "small", "--config", file).stdout)
    assert [*small["mirror"]] == ["small"]
    document = json.loads(fastindex("config", "--json", "--config", file).stdout)
    main = document["mirrors"]["main"]
    assert document["file"] == str(file)
    assert main["jobs"] == {"value": 8, "from": f"{file}:11"}
    assert main["pull"][1]["filters"]["from"] == f"{file}:21"
    assert main["pull"][0]["limit_rate"]["value"] == 20_000_000
    assert document["mirrors"]["small"]["max_age"] == {"value": None, "from": "default"}
    assert fastindex("config", "-q", "--config", file).stdout == ""


def test_config_without_a_configuration(fastindex: Run, home: Path) -> None:
    result = fastindex("config")
    assert (result.returncode, result.stderr) == (0, "")
    assert str(home / ".config/fastindex/config.toml") in result.stdout
    assert json.loads(fastindex("config", "--json").stdout) == {"file": None, "mirrors": {}}
    assert fastindex("config", "main").returncode == 2


PAGE = Path(__file__).parents[2] / "docs/reference/configuration.md"


def test_the_page_has_every_key_in_its_table_and_an_example_that_works() -> None:
    text = PAGE.read_text(encoding="utf-8")
    mirror_table, source_table = text.split("\n| Key | ")[1:]
    rows = dict(re.findall(r"^\| `(\w+)`( \*)? \|", mirror_table, re.MULTILINE))
    assert [*rows] == [*MIRROR_KEYS, "pull"]
    assert {key for key in MIRROR_KEYS if rows[key]} == {
        key for key, known in MIRROR_KEYS.items() if not known.is_shared
    }
    assert re.findall(r"^\| `(\w+)` \|", source_table, re.MULTILINE) == [*PULL_KEYS]
    example = text.split("```toml\n")[1].split("```")[0]
    assert [*parse_configuration("c", example.encode()).mirrors] == ["main", "testing"]

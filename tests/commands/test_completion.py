"""Real shells complete command lines, and nothing that a stranger named is run or quoted."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import pytest

from fastindex.cli.candidates import MAX_CANDIDATES
from fastindex.cli.completion import SCRIPTS
from fastindex.cli.words import COMMANDS
from tests.support.command import COMMAND, Run
from tests.support.shells import Shell, shell
from tests.support.tools import needs
from tests.support.trees import in_stream, version, write_tree

PRODUCT = "debian/12/amd64/default"
OLD, NEW = "20240505_05:24", "20240506_05:24"
WORD_BREAKS = " \t\n\"'@><=;|&(:"
TYPED = {
    "fastindex rem": "remove",
    "fastindex -q --jobs 4 ver": "verify",
    "fastindex help di": "diff",
    "fastindex completion fi": "fish",
    "fastindex list --fil": "--filter",
    "fastindex --engine la": "lanes",
    "fastindex --engine=la": "--engine=lanes",
    "fastindex remove im": "images",
    "fastindex remove images/d": "images/debian/",
    f"fastindex remove images/{PRODUCT}/{NEW[:8]}": f"images/{PRODUCT}/{NEW}",
    "fastindex remove zeta/1": "zeta/1",
    "fastindex list --filter re": "release=",
    "fastindex list --filter os=debian,z": "os=debian,zeta",
    "fastindex list --filter=variant!=d": "--filter=variant!=default",
    "fastindex list --filter 'arch=amd64 os=z": "arch=amd64 os=zeta",
    f"fastindex list --filter version={NEW[:8]}": f"version={NEW}",
    f"fastindex prune --undo images/{PRODUCT}/2": f"images/{PRODUCT}/{OLD}",
    "fastindex prune --stream images-": "images-daily",
    "fastindex diff --cache-dir ca": "caches/",
    "fastindex diff --output=ca": "--output=caches/",
    "fastindex bench ca": "caches/",
    "fastindex import upl": "upload.tar.xz",
    "fastindex pull https://example.org ca": "caches/",
    "fastindex nonsense --fil": "--fil",
}
"""What is typed → the last word of the line that the shell makes of it."""

HOSTILE = (
    "$(touch pwned)",
    "`touch pwned`",
    "x;touch pwned",
    "x\ntouch pwned",
    "'touch pwned'",
    '"$(touch pwned)"',
    "x&touch pwned",
    "x y",
    "~root",
    "--force",
    "\x1b[2Jx",
    "{x,y}",
    "x*",
    "=ls",
)


@pytest.fixture
def root(fastindex: Run, tmp_path: Path) -> Path:
    """Return a mirror with two streams and a withdrawn version, and other files beside them."""
    tree = version(f"{PRODUCT}/{OLD}") | version(f"{PRODUCT}/{NEW}")
    tree |= version(f"zeta/1/amd64/default/{NEW}")
    root = write_tree(tmp_path / "root", tree)
    write_tree(root, in_stream("images-daily", version(f"daily/1/amd64/default/{NEW}")))
    assert fastindex("-q", "--stream=images", "--stream=images-daily", root).returncode == 0
    assert fastindex("-q", "remove", f"images/{PRODUCT}/{OLD}", root).returncode == 0
    (root / "caches").mkdir()
    (root / "upload.tar.xz").touch()
    return root


def environment(home: Path) -> dict[str, str]:
    path = f"{COMMAND.parent}:{os.environ['PATH']}"
    return {
        "PATH": path,
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "XDG_DATA_DIRS": str(home / "share"),
    }


def open_shell(name: str, cwd: Path, home: Path, *load: str) -> AbstractContextManager[Shell]:
    """Start bash or zsh, without anybody's settings, and run the lines ``load``."""
    program = needs(name, f"apt-get install {name}")
    if name == "bash":
        command = [program, "--norc", "--noprofile", "-i"]
        settings = (
            "enable-bracketed-paste off",
            "show-all-if-ambiguous on",
            "page-completions off",
        )
        lines = [f"bind 'set {setting}'" for setting in settings]
    else:
        command = [program, "-f", "-i"]
        lines = ["unset zle_bracketed_paste", "bindkey -e", "unsetopt auto_remove_slash"]
    return shell(command, [*lines, *load], cwd, environment(home))


def ask_fish(line: str, cwd: Path, home: Path, load: str) -> list[str]:
    """Return the words that fish has for the last word of ``line``."""
    script = f"{load}\ncomplete --do-complete $argv[1]"
    done = subprocess.run(
        [needs("fish", "apt-get install fish"), "--no-config", "--command", script, line],
        cwd=cwd,
        env=environment(home),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return [found.partition("\t")[0] for found in done.stdout.splitlines()]


LOAD = {
    "bash": ["source <(fastindex completion bash)"],
    "zsh": ["autoload -Uz compinit && compinit -u -D", "source <(fastindex completion zsh)"],
    "fish": ["fastindex completion fish | source"],
}
"""What the documentation says, by shell."""


def ask(printed: Run, cwd: Path, *words: str) -> list[str]:
    """Return the lines that a script is told."""
    done = printed("completion", "--candidates", "--", *words, cwd=cwd)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_a_shell_completes_what_is_typed(root: Path, tmp_path: Path, name: str) -> None:
    with open_shell(name, root, tmp_path, *LOAD[name]) as running:
        completed = {line: running.complete(line)[-1] for line in TYPED}
    assert completed == TYPED


def test_fish_completes_what_is_typed(root: Path, tmp_path: Path) -> None:
    (load,) = LOAD["fish"]
    for line, word in TYPED.items():
        words = ask_fish(line, root, tmp_path, load) or [line.rpartition(" ")[2]]
        assert os.path.commonprefix(words) == word  # noqa: RUF071  # as far as they are equal


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_a_shell_shows_what_there_is_to_choose_from(root: Path, tmp_path: Path, name: str) -> None:
    with open_shell(name, root, tmp_path, *LOAD[name]) as running:
        assert {*COMMANDS, "caches/"} <= running.list("fastindex ")
        assert {"debian/", "zeta/", "images/", "images-daily/"} <= running.list("fastindex remove ")
        assert {"--filter", "--json", "--all"} <= running.list("fastindex list --")


def test_the_catalogue_is_that_of_the_place_that_is_named(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    for line in (
        f"fastindex list {root} --filter os=z",
        f"fastindex list --output {root} --filter os=z",
        f"fastindex list --output={root} --filter os=z",
    ):
        with open_shell("bash", elsewhere, tmp_path, *LOAD["bash"]) as running:
            assert running.complete(line)[-1] == "os=zeta"
    root.rename(elsewhere / "a root")
    with open_shell("bash", tmp_path, tmp_path, *LOAD["bash"]) as running:
        assert running.complete("fastindex list 'else where/a root' --filter os=z")[-1] == "os=zeta"
        assert (
            running.complete("fastindex list else\\ where/a\\ root --filter os=z")[-1] == "os=zeta"
        )


@pytest.fixture
def hostile(root: Path) -> Path:
    """Return the mirror after a stranger has named everything in its catalogue, and directories."""
    path = root / "streams/v1/images.json"
    document = msgspec.json.decode(path.read_bytes())
    (product, *_) = document["products"].values()
    (made, *_) = product["versions"].values()
    product["aliases"] = ",".join([*HOSTILE, "sound"])
    product["versions"] |= {f"20240507_{name}": made for name in HOSTILE}
    document["products"] |= {
        f"{name}:1:amd64:default": {**product, "os": name, "release": name} for name in HOSTILE
    }
    path.write_bytes(msgspec.json.encode(document))
    for name in HOSTILE:
        (root / name).mkdir()
    return root


def test_only_harmless_names_are_candidates(fastindex: Run, hostile: Path) -> None:
    for line in ("fastindex remove ", f"fastindex remove images/{PRODUCT}/2"):
        names = ask(fastindex, hostile, "bash", line, "", WORD_BREAKS)[1:]
        assert names
        assert [name for name in names if not re.fullmatch(r"[\w./:=-]+", name)] == []
    assert "sound" in ask(fastindex, hostile, "bash", "fastindex remove ", "", WORD_BREAKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_no_name_is_run(hostile: Path, tmp_path: Path, name: str) -> None:
    lines = (
        "fastindex ",
        "fastindex remove ",
        f"fastindex remove images/{PRODUCT}/",
        "fastindex list --filter alias=",
        "fastindex diff --output=",
    )
    each = {"bash": "bind 'TAB: menu-complete'", "zsh": "setopt menu_complete"}
    with open_shell(name, hostile, tmp_path, *LOAD[name], each[name]) as running:
        for line in lines:
            # They are run as words of another command: a name may not become several.
            tried = [running.complete(line, number) for number in range(1, len(HOSTILE) + 4)]
            assert len({words[-1] for words in tried}) > 1
            assert max(map(len, tried)) == len(line.split(" "))
    assert not [*hostile.rglob("pwned")]


def test_fish_runs_no_name(hostile: Path, tmp_path: Path) -> None:
    (load,) = LOAD["fish"]
    names = ask_fish("fastindex remove ", hostile, tmp_path, load)
    assert "sound" in names
    assert not {*names} & {*HOSTILE}
    assert not [*hostile.rglob("pwned")]


def test_what_cannot_be_read_is_met_with_silence(fastindex: Run, root: Path) -> None:
    (root / "streams/v1/images.json").write_bytes(b"{")
    (root / "streams/v1/index.json").write_bytes(b"{")
    done = fastindex(
        *("completion", "--candidates", "--", "zsh", "2", "fastindex", "remove", "", root), cwd=root
    )
    assert (done.stdout, done.stderr) == ("directories\n", "")


def test_too_many_candidates_are_none(fastindex: Run, root: Path) -> None:
    path = root / "streams/v1/images.json"
    document = msgspec.json.decode(path.read_bytes())
    (product, *_) = document["products"].values()
    product["aliases"] = ",".join(f"a{number}" for number in range(MAX_CANDIDATES + 1))
    path.write_bytes(msgspec.json.encode(document))
    line = "fastindex remove "
    assert ask(fastindex, root, "bash", line, "", WORD_BREAKS)[1:] == []
    assert len(ask(fastindex, root, "bash", f"{line}a1", "", WORD_BREAKS)) > 100


@pytest.mark.parametrize("words", [["sh"], ["bash"], ["zsh", "x"], ["zsh", "9"], []])
def test_a_script_of_another_version_gets_nothing(fastindex: Run, words: list[str]) -> None:
    done = fastindex("completion", "--candidates", "--", *words)
    assert done.returncode == 2
    assert done.stdout == ""


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_of_a_shell_is_printed(fastindex: Run, name: str) -> None:
    done = fastindex("completion", name)
    assert done.returncode == 0
    assert "completion --candidates" in done.stdout


def test_an_unknown_shell_is_refused(fastindex: Run) -> None:
    done = fastindex("completion", "csh")
    assert done.returncode == 2
    assert "csh" in done.stderr

"""What a person at a terminal sees, and a pipe does not."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from pathlib import Path

import pytest

from tests.support.command import COMMAND, Run
from tests.support.trees import version, write_tree

DEBIAN = "debian/12/amd64/default"
OLD, NEW = "20240505_05:24", "20240506_05:24"
COLOUR = re.compile(r"\x1b\[\d+m")


def on_terminal(
    *words: object, columns: int = 100, environment: dict[str, str] | None = None
) -> tuple[int, str]:
    """Run the command at a terminal; return its exit code, and what the terminal got."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    parts: list[bytes] = []

    def read() -> None:
        while True:
            try:
                parts.append(os.read(controller, 4096))
            except OSError:  # the terminal's other side is closed
                return

    reader = threading.Thread(target=read)
    reader.start()
    bare = {name: text for name, text in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    done = subprocess.run(
        [COMMAND, *map(str, words)],
        check=False,
        stdout=terminal,
        stderr=terminal,
        env=bare | {"TERM": "xterm"} | (environment or {}),
    )
    os.close(terminal)
    reader.join()
    os.close(controller)
    return done.returncode, b"".join(parts).decode().replace("\r\n", "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "mirror", version(f"{DEBIAN}/{OLD}"))


def test_the_first_build_says_what_comes_next(root: Path, fastindex: Run) -> None:
    _, told = on_terminal(root)
    assert f"this is the first catalogue of {root}: " in told
    assert "  incus remote add NAME https://HOST/ --protocol simplestreams\n" in told
    assert f"  fastindex list {root} shows what clients see\n" in told
    assert "first catalogue" not in on_terminal("--rehash", root)[1]


@pytest.mark.parametrize("words", [["-q"], ["--dry-run"]])
def test_no_hint_where_nobody_wants_one(root: Path, fastindex: Run, words: list[str]) -> None:
    assert "first catalogue" not in on_terminal(*words, root)[1]
    assert "first catalogue" not in fastindex(*words, root).stderr


def test_a_pipe_gets_no_hint(root: Path, fastindex: Run) -> None:
    assert "first catalogue" not in fastindex(root).stderr


@pytest.mark.parametrize(
    ("environment", "has_colours"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals_that_show_them(
    root: Path, fastindex: Run, environment: dict[str, str], has_colours: bool
) -> None:
    write_tree(root, version(f"{DEBIAN}/{NEW}"))
    (root / f"images/{DEBIAN}/{NEW}/rootfs.squashfs").unlink()
    for words in ([root], ["list", root], ["status", root], [root / "missing"]):
        _, told = on_terminal(*words, environment=environment)
        assert bool(COLOUR.search(told)) is has_colours, told
        piped = fastindex(*words)
        assert not COLOUR.search(piped.stdout + piped.stderr)
    assert "\x1b[33mwarning:\x1b[0m images/" in on_terminal("-v", root)[1]
    assert "\x1b[31merror:\x1b[0m " in on_terminal(root / "missing")[1]


def test_a_name_cannot_bring_its_own_colours(root: Path) -> None:
    write_tree(root, version("debian/\x1b[31m/amd64/default/20240505_05:24"))
    assert "\x1b[31m" not in on_terminal("-v", root)[1]


@pytest.mark.parametrize(
    ("columns", "heads"),
    [
        (40, "ALIAS ARCH DATE"),
        (60, "ALIAS ARCH TYPE DATE"),
        (80, "ALIAS FINGERPRINT VARIANT ARCH TYPE SIZE DATE"),
        (200, "ALIAS FINGERPRINT OS RELEASE VARIANT ARCH TYPE SIZE DATE SERIAL"),
    ],
)
def test_a_list_fits_the_terminal(root: Path, fastindex: Run, columns: int, heads: str) -> None:
    write_tree(root, version("almalinux/9/amd64/cloud/20240505_05:24"))
    fastindex(root)
    code, told = on_terminal("list", root, columns=columns)
    lines = COLOUR.sub("", told).splitlines()
    assert code == 0
    assert max(map(len, lines)) <= columns
    assert " ".join(lines[0].split()) == heads
    assert len(lines) == 3


def test_an_alias_is_cut_where_nothing_else_helps(root: Path, fastindex: Run) -> None:
    write_tree(root, version(f"{'a' * 60}/9/amd64/cloud/20240505_05:24"))
    fastindex(root)
    lines = COLOUR.sub("", on_terminal("list", root, columns=40)[1]).splitlines()
    assert max(map(len, lines)) == 40
    assert any("aaa…  2024-05-05" in line for line in lines)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("product", ["alpine", "debian", "void"]),
        ("alias", ["void", "alpine", "debian"]),
        ("date", ["void", "debian", "alpine"]),
        ("size", ["alpine", "void", "debian"]),
    ],
)
def test_a_list_can_be_sorted(root: Path, fastindex: Run, key: str, expected: list[str]) -> None:
    for os_name, day, size in (("alpine", "20230101_00:00", 900), ("void", "20240601_00:00", 500)):
        write_tree(root, version(f"{os_name}/1/amd64/default/{day}"))
        with (root / f"images/{os_name}/1/amd64/default/{day}/rootfs.squashfs").open("ab") as file:
            file.write(bytes(size))
    (root / "images/void/1/amd64/default/.product.toml").write_text(
        'aliases = ["a"]\nreplace_aliases = true\n'
    )
    fastindex(root)
    rows = fastindex("list", "--sort", key, root).stdout.splitlines()[1:]
    assert [row.split()[2] for row in rows] == expected


def test_an_unknown_key_is_told(root: Path, fastindex: Run) -> None:
    done = fastindex("list", "--sort", "colour", root)
    assert done.returncode == 2
    assert "product" in done.stderr

"""The manual pages say what the parsers know, and readers of manual pages like them."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastindex.cli.main import find_command
from fastindex.cli.words import COMMANDS
from tests.support.documentation import CHECKOUT
from tests.support.tools import needs


def write_pages(directory: Path) -> Path:
    script = CHECKOUT / "docs/manual.py"
    subprocess.run([sys.executable, script, directory], check=True)
    return directory


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pages(tmp_path_factory.mktemp("manual") / "man1")


def read(pages: Path, command: str) -> str:
    """Return what a reader sees of a page, in one line."""
    program = needs("mandoc", "apt-get install mandoc")
    path = pages / f"fastindex-{command}.1"
    done = subprocess.run(
        [program, "-T", "utf8", "-O", "width=1000", path],
        cwd=pages.parent,  # of which an alias names a page
        capture_output=True,
        text=True,
        check=True,
    )
    return re.sub(r".\x08", "", done.stdout)


def test_each_command_has_a_page_and_so_has_the_program(pages: Path) -> None:
    names = {path.name for path in pages.iterdir()}
    assert names == {"fastindex.1", *(f"fastindex-{command}.1" for command in COMMANDS)}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_has_every_option_and_what_it_means(pages: Path, command: str) -> None:
    make_parser, _ = find_command(command)
    parser = make_parser()
    options = read(pages, command).partition("\nOPTIONS\n")[2].partition("\nEXAMPLES\n")[0]
    shown = " ".join(options.split())
    for action in parser._actions:
        help_text = parser._get_formatter()._expand_help(action)
        assert help_text not in ("", argparse.SUPPRESS)
        assert f" {', '.join(action.option_strings)}" in f" {shown}"
        assert " ".join(help_text.split()) in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_has_the_examples_and_the_exit_codes(pages: Path, command: str) -> None:
    make_parser, _ = find_command(command)
    epilog = make_parser().epilog or ""
    shown = read(pages, command)
    table = epilog.partition("\nexit codes:\n")[2]
    assert table
    for line in table.splitlines():
        assert line.strip() in shown
    assert "fastindex" in shown.partition("\nEXAMPLES\n")[2].partition("\nEXIT CODES\n")[0]


@pytest.mark.parametrize("command", COMMANDS[:-1])  # but for help
def test_a_page_has_what_the_documentation_says(pages: Path, command: str) -> None:
    text = (CHECKOUT / f"docs/commands/{command}.md").read_text(encoding="utf-8")
    shown = read(pages, command)
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)
    for section in sections:
        assert f"\n{section.upper()}\n" in shown
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    assert spans
    for span in spans:
        assert " ".join(span.replace(r"\|", "|").split()) in " ".join(shown.split())


def test_the_page_of_the_program_names_all_commands(pages: Path) -> None:
    shown = read(pages, "build")
    for command in set(COMMANDS) - {"build"}:
        assert f"fastindex-{command}(1)" in shown


def test_readers_have_nothing_to_complain_of(pages: Path) -> None:
    man = needs("man", "apt-get install man-db")
    mandoc = needs("mandoc", "apt-get install mandoc")
    for page in sorted(pages.iterdir()):
        for command in (
            (man, "--warnings", "--local-file", "--troff-device=utf8", "--ditroff"),
            (mandoc, "-T", "lint", "-W", "error"),
        ):
            done = subprocess.run(
                [*command, page], cwd=pages.parent, capture_output=True, text=True, check=False
            )
            complaints = done.stderr + (done.stdout if command[0] == mandoc else "")
            assert (complaints, done.returncode) == ("", 0)


def test_the_pages_are_the_same_each_time(pages: Path, tmp_path: Path) -> None:
    again = write_pages(tmp_path / "man1")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in pages.iterdir()
    }

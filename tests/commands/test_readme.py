"""The README says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastindex.errors import ExitCode
from tests.conftest import Run

README = (Path(__file__).parents[2] / "README.md").read_text()


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z0-9-]*", text))


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize(
    ("command", "heading"),
    [
        ((), "Build"),
        (("import",), "Import what builders make"),
        (("verify",), "Verify what is published"),
        (("list",), "List, and see what would change"),
        (("prune",), "Prune old versions, remove images"),
        (("bench",), "Measure this machine"),
    ],
)
def test_every_option_is_explained_and_no_other(
    fastindex: Run, command: tuple[str, ...], heading: str
) -> None:
    text = section("Use").partition(f"\n### {heading}\n")[2].partition("\n### ")[0]
    table = "".join(line for line in text.splitlines(True) if line.startswith("| `-"))
    said = fastindex(*command, "--help").stdout.partition("examples:")[0]
    assert options_in(table) == options_in(said)


def test_every_exit_code_is_explained() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \|", section("Use"), re.MULTILINE)
    assert {int(code) for row in rows for code in row.split(",")} == set(ExitCode)


@pytest.mark.parametrize("mark", ["try", "tests"])
def test_the_commands_are_one_pasteable_line(mark: str) -> None:
    block = README.partition(f"<!-- {mark} -->\n```sh\n")[2].partition("```")[0]
    assert len(block.splitlines()) == 1


def test_every_picture_is_there() -> None:
    root = Path(__file__).parents[2]
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert [picture for picture in pictures if not (root / picture).is_file()] == []

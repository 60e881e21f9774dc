from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastindex.formats.requirements import check_requirements
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.settings import SettingsReader
from tests.support.command import Run
from tests.support.trees import catalogue, version, write_tree

PRODUCT = "images/debian/12/amd64/default"
KEY = "debian:12:amd64:default"


def test_the_nearest_wins_key_by_key_and_the_kinds_stay_apart(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            f"{PRODUCT}/.requirements": b'{"secureboot": "false"}',
            f"{PRODUCT}/.lxd_requirements": ".requirements",
            "images/.requirements": b'{"secureboot": "true", "nesting": "true"}',
        },
    )
    reader = SettingsReader(Mirror.at(tmp_path))
    names = (".lxd_requirements", ".requirements")
    merged = reader.merge((*(f"{PRODUCT}/{name}" for name in names), "images/.requirements"))
    assert merged.requirements == {"nesting": "true", "secureboot": "false"}
    assert merged.lxd_requirements == {"secureboot": "false"}
    assert not any(reader.findings.values())


@pytest.mark.parametrize(
    ("text", "value"), [("true", "true"), ("false", "false"), ("1", "1"), ("1.5", "1.5")]
)
def test_scalars_become_the_strings_that_clients_expect(
    fastindex: Run, tmp_path: Path, text: str, value: str
) -> None:
    content = f'{{"secureboot": {text}}}'.encode()
    write_tree(tmp_path, {**version(), f"{PRODUCT}/.requirements": content})
    result = fastindex(tmp_path)
    assert result.returncode == 0
    assert f"{PRODUCT}/.requirements: 'secureboot' must be a string" in result.stderr
    assert catalogue(tmp_path)["products"][KEY]["requirements"] == {"secureboot": value}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'"secureboot"',
        b"null",
        b'{"secureboot": null}',
        b'{"secureboot": ["false"]}',
        b'{"secureboot": {}}',
        b'{"secureboot": "\xff"}',
        b'{"secureboot": "\\ud800"}',
        b'{"secureboot": NaN}',
        b"\x00" * 64,
        b"[" * 100_000,
        b'{"nesting": "' + b"x" * 70_000 + b'"}',
    ],
)
def test_a_file_that_cannot_be_used_is_left_out_with_a_warning(
    fastindex: Run, tmp_path: Path, content: bytes
) -> None:
    write_tree(
        tmp_path,
        {
            **version(),
            f"{PRODUCT}/.requirements": content,
            "images/.requirements": b'{"nesting": "true"}',
        },
    )
    result = fastindex(tmp_path)
    assert result.returncode == 0
    assert f"warning: {PRODUCT}/.requirements: cannot be used" in result.stderr
    assert "Traceback" not in result.stderr
    assert catalogue(tmp_path)["products"][KEY]["requirements"] == {"nesting": "true"}


def test_a_dotfile_that_is_a_fifo_hangs_nobody(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    os.mkfifo(tmp_path / "images/.requirements")
    result = fastindex(tmp_path)
    assert "images/.requirements: cannot be used (not a regular file)" in result.stderr


def test_unknown_keys_are_told_but_published(tmp_path: Path) -> None:
    values, (finding,) = check_requirements("a", {"secure_boot": "false"}, is_for_lxd=False)
    assert values == {"secure_boot": "false"}
    assert "secure_boot" in finding.problem
    _, (finding,) = check_requirements("a", {"cdrom_agent": "true"}, is_for_lxd=True)
    assert "cdrom_agent" in finding.problem


def test_lxd_requirements_are_absent_where_there_are_none(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version())
    fastindex(tmp_path)
    assert "lxd_requirements" not in catalogue(tmp_path)["products"][KEY]


def test_a_changed_dotfile_reaches_the_catalogue(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), f"{PRODUCT}/.requirements": b'{"nesting": "true"}'})
    fastindex(tmp_path)
    write_tree(tmp_path, {f"{PRODUCT}/.requirements": b'{"nesting": "fals"}'})  # same stamp
    fastindex(tmp_path)
    assert catalogue(tmp_path)["products"][KEY]["requirements"] == {"nesting": "fals"}

"""What is said of a tree that lacks a level."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastindex.mirror.levels import (
    describe_missing_levels,
    explain_missing_stream,
    find_version,
)
from tests.support.trees import write_tree

NAMES = ("images", "debian", "12", "amd64", "default", "20240505_05:24")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "the levels OS/RELEASE/ARCH/VARIANT/VERSION are missing"),
        (("debian", "12", "amd64", "cloud"), "the level VERSION is missing"),
        (("debian", "12", "amd64", "20240505"), "the level VARIANT is missing above 20240505"),
        (("debian", "12", "x86", "20240505"), "the level VARIANT is missing above 20240505"),
        (("a", "b", "c", "20240505"), "a level is missing above 20240505"),
        (("amd64", "20240505"), "3 levels are missing above 20240505"),
    ],
)
def test_missing_levels_in_words(names: tuple[str, ...], words: str) -> None:
    assert describe_missing_levels(names).startswith(words)


@pytest.mark.parametrize("depth", range(1, 7))
@pytest.mark.parametrize("top", ["images", "daily"])
def test_a_version_is_found_at_each_depth(tmp_path: Path, depth: int, top: str) -> None:
    names = (top, *NAMES[1:])
    write_tree(tmp_path, {f"{'/'.join(names)}/incus.tar.xz": b""})
    root = tmp_path.joinpath(*names[:-depth])
    assert find_version(str(root)) == names[-depth:]


@pytest.mark.parametrize(
    "path",
    [
        "x/images/debian/12/amd64/default/20240505",
        "a/b/c/d/20240505",
        "debian/12/amd64/20240505",
        "debian/12/amd64/default/latest",
        "debian/12/amd64/.default/20240505",
        "debian/12/amd64/default/20240505.part",
        "20240505",
    ],
)
def test_nothing_else_is_taken_for_one(tmp_path: Path, path: str) -> None:
    write_tree(tmp_path, {f"{path}/incus.tar.xz": b""})
    assert find_version(str(tmp_path)) == ()
    assert explain_missing_stream(str(tmp_path), "images") == ("", "")


@pytest.mark.parametrize(
    ("path", "root", "problem", "remedy"),
    [
        (
            NAMES[1:],
            "mirror",
            "the stream level images/ is missing above debian/12/amd64/default/20240505_05:24",
            "move the directories into {}/mirror/images, or give {} for ROOT, with --stream mirror",
        ),
        (
            NAMES,
            "mirror/images",
            "the stream level images/ is missing above debian/12/amd64/default/20240505_05:24",
            "give {}/mirror for ROOT, if this is in a tree already, or move the directories into "
            "{}/mirror/images/images",
        ),
        (
            NAMES[2:],
            "mirror",
            "the levels images/OS are missing above 12/amd64/default/20240505_05:24",
            "move the directories into {}/mirror/images/OS",
        ),
        (
            NAMES,
            "mirror/images/debian",
            "the levels images/OS are missing above 12/amd64/default/20240505_05:24",
            "give {}/mirror for ROOT, if this is in a tree already, or move the directories into "
            "{}/mirror/images/debian/images/OS",
        ),
        (NAMES, "mirror", "", ""),
    ],
)
def test_missing_upper_levels_in_words(
    tmp_path: Path, path: tuple[str, ...], root: str, problem: str, remedy: str
) -> None:
    write_tree(tmp_path, {f"mirror/{'/'.join(path)}/incus.tar.xz": b""})
    said = explain_missing_stream(f"{tmp_path}/{root}", "images")
    assert said == (problem, remedy.format(tmp_path, tmp_path))

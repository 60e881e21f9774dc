"""What the word under the cursor can become, without a shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastindex import Mirror
from fastindex.cli.candidates import MAX_CANDIDATES, complete
from fastindex.cli.words import COMMANDS
from fastindex.errors import TreeError
from tests.support.trees import version, write_tree

DEBIAN = "images/debian/12/amd64/default"
OLD, NEW = "20240505_05:24", "20240506_05:24"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a published mirror in which a version is withdrawn."""
    root = tmp_path_factory.mktemp("mirror")
    for name in (OLD, NEW):
        write_tree(root, version(f"debian/12/amd64/default/{name}"))
    write_tree(root, version(f"alpine/3.20/arm64/cloud/{NEW}"))
    write_tree(root, {"images/debian/.product.toml": b'aliases = ["evil$(id)", "stable"]\n'})
    mirror = Mirror(root)
    mirror.build()
    mirror.prune(keep=1)
    return root


def words_of(root: Path, *words: str) -> list[str]:
    *before, current = words
    return [one.word for one in complete(before, current, [str(root)]).candidates]


def test_commands_and_options(root: Path) -> None:
    assert words_of(root, "") == [*COMMANDS]
    assert words_of(root, "ver") == ["verify"]
    assert words_of(root, "verify", "--qu") == ["--quick", "--quiet"]
    assert words_of(root, "-q", "verify", "--sh") == ["--sha256"]
    assert words_of(root, "help", "che") == ["check"]
    assert words_of(root, "completion", "") == ["bash", "zsh", "fish"]
    assert words_of(root, "build", "--engine", "la") == ["lanes"]
    assert words_of(root, "build", "--engine=la") == ["--engine=lanes"]
    assert words_of(root, "build", "--jobs", "") == []
    assert words_of(root, "build", "--no-such=") == []
    hints = {one.word: one.hint for one in complete(["verify"], "--", []).candidates}
    assert hints["--quick"] == "check names and sizes only, without reading images"
    assert all(len(hint) < 64 for hint in hints.values())


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (["build", ""], "directories"),
        (["build", "--cache-dir", ""], "directories"),
        (["build", "--report", ""], "files"),
        (["import", ""], "files"),
        (["remove", "no-such-image"], "directories"),
        (["verify", "--sha"], "none"),
        (["list", "root", "one too many"], "none"),
    ],
)
def test_paths_are_left_to_the_shell(root: Path, words: list[str], paths: str) -> None:
    *before, current = words
    assert complete(before, current, [str(root)]).paths == paths


def test_images(root: Path) -> None:
    assert words_of(root, "remove", "deb") == ["debian/"]
    assert words_of(root, "remove", "debian/") == ["debian/12", "debian/12/"]
    assert words_of(root, "remove", "stab") == ["stable"]
    assert words_of(root, "remove", "evil") == []
    assert words_of(root, "remove", f"{DEBIAN[:-4]}") == [DEBIAN, f"{DEBIAN}/"]
    assert words_of(root, "remove", f"{DEBIAN}/") == [f"{DEBIAN}/{NEW}"]
    fingerprint = Mirror(root).list()[0].fingerprint
    assert words_of(root, "remove", fingerprint[:6]) == [fingerprint]
    assert words_of(root, "prune", "--undo", "") == ["images/"]
    assert words_of(root, "prune", "--undo", f"{DEBIAN}/") == [f"{DEBIAN}/{OLD}"]
    assert words_of(root, "build", "--stream", "") == ["images"]
    assert words_of(root, "build", "--output", str(root), "--stream=") == ["--stream=images"]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("o", ["os="]),
        ("os=", ["os=alpine", "os=debian"]),
        ("os=alpine,d", ["os=alpine,debian"]),
        ("os=alpine arch!=", ["os=alpine arch!=amd64", "os=alpine arch!=arm64"]),
        ("type=c", ["type=container"]),
        ("release=", ["release=12", "release=3.20"]),
        ("variant=", ["variant=cloud", "variant=default"]),
        ("version=", [f"version={NEW}"]),
        ("alias=stab", ["alias=stable"]),
        ("label=", []),
        ("os~", []),
    ],
)
def test_filters(root: Path, typed: str, expected: list[str]) -> None:
    assert words_of(root, "list", "--filter", typed) == expected


def test_too_many_are_none_and_no_catalogue_is_an_error(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TreeError):
        complete(["remove"], "deb", ["\0", "-x"])
    assert len(COMMANDS) < MAX_CANDIDATES
    monkeypatch.setattr("fastindex.cli.candidates.MAX_CANDIDATES", 1)
    assert words_of(root, "remove", "debian/") == []

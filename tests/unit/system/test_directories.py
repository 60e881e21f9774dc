"""Where symlinks lead, in as many steps as an honest path needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastindex.system.directories import MAX_LINKS, MAX_STEPS, bounds_of, is_inside, real_path
from tests.support.trees import write_tree


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("place")
    write_tree(
        made,
        {
            "a/b/c": b"x",
            "a/up": "..",
            "a/same": ".",
            "a/slashes": "..//.//a/",
            "link": "a/b",
            "through": "link/../b/c",
            "absolute": f"{made}/a/b",
            "dangling": "a/none/../x",
            "root": "/",
            "above": "../../../../../../../..",
            "a/b/loop": "../b/loop",
        },
    )
    return made


WORDS = ("a", "b", "c", "up", "same", "slashes", "link", "through", "absolute", "dangling")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.sampled_from((*WORDS, "root", "above", "..", ".", "")), max_size=8))
def test_it_is_what_python_says_where_nobody_is_hostile(place: Path, names: list[str]) -> None:
    path = "/".join((str(place), *names))
    assert real_path(path) == os.path.realpath(path)


def test_a_relative_path_starts_in_the_current_directory(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place / "link")
    for path in ("", ".", "..", "c", "../b/c", "../../through"):
        assert real_path(path) == os.path.realpath(path)
    monkeypatch.chdir("/")
    assert (real_path("usr"), real_path("")) == (os.path.realpath("/usr"), "/")


@pytest.mark.parametrize("links", [1, MAX_LINKS - 1, MAX_LINKS, MAX_LINKS + 1, 2000])
def test_a_chain_of_links_ends_where_the_system_gives_up(tmp_path: Path, links: int) -> None:
    (tmp_path / "0").write_bytes(b"x")
    for number in range(links):
        (tmp_path / str(number + 1)).symlink_to(str(number))
    path = f"{tmp_path}/{links}"
    assert real_path(path) == (f"{tmp_path}/0" if links <= MAX_LINKS else "")
    try:
        os.stat(path)
        is_followed = True
    except OSError:
        is_followed = False
    assert is_followed is bool(real_path(path))


@pytest.mark.parametrize("names", [MAX_STEPS - 50, MAX_STEPS + 1])
def test_a_path_of_too_many_names_leads_nowhere(tmp_path: Path, names: int) -> None:
    path = f"{tmp_path}/{'./' * names}"
    assert real_path(path) == (str(tmp_path) if names < MAX_STEPS else "")


@pytest.mark.parametrize("kind", ["self", "ring", "tree"])
def test_links_that_would_take_for_ever_are_given_up_at_once(tmp_path: Path, kind: str) -> None:
    """Each link of the tree names the next one 200 times: 200 ** 30 steps in all."""
    match kind:
        case "self":
            (tmp_path / "0").symlink_to("0")
        case "ring":
            write_tree(tmp_path, {"0": "1", "1": "2", "2": f"{tmp_path}/0"})
        case "tree":
            (tmp_path / "30").mkdir()
            for number in range(30):
                (tmp_path / str(number)).symlink_to(f"{number + 1}/../" * 200 + str(number + 1))
    steps = 0
    read = os.readlink

    def count(path: str) -> str:
        nonlocal steps
        steps += 1
        return read(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "readlink", count)
        assert real_path(f"{tmp_path}/0") == ""
    assert steps <= MAX_STEPS


def test_what_leads_nowhere_is_inside_nothing(tmp_path: Path) -> None:
    write_tree(tmp_path, {"loop": "loop", "in/file": b"", "link": "in/file", "out": "/etc"})
    bounds = bounds_of(str(tmp_path))
    assert is_inside(f"{tmp_path}/link", bounds)
    assert is_inside(str(tmp_path), bounds)
    assert is_inside(f"{tmp_path}/none", bounds)
    for path in ("loop", "loop/x", "out", "out/passwd", ".."):
        assert not is_inside(f"{tmp_path}/{path}", bounds)
    assert not is_inside(f"{tmp_path}/loop", ("",)[:0])
    assert not is_inside(f"{tmp_path}/loop", ("/",))


def test_a_current_directory_that_is_gone_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(FileNotFoundError):
        real_path("x")
    assert real_path(f"{tmp_path}/x") == f"{tmp_path}/x"

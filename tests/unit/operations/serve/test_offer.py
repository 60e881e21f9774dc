"""What may be served, now and for a while after it was published."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fastindex import Mirror
from fastindex.errors import TreeError
from fastindex.mirror.mirror import Mirror as Places
from fastindex.operations.serve import offer
from tests.support.trees import version, write_tree

NEWEST = "images/debian/12/amd64/default/20240505_05:24/rootfs.squashfs"
OLDER = "images/debian/12/amd64/default/20240404_05:24/rootfs.squashfs"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tree(tmp_path, {**version(), **version("debian/12/amd64/default/20240404_05:24")})
    Mirror(tmp_path).build()
    return tmp_path


def drop(root: Path) -> None:
    """Publish without the older version, which nobody has withdrawn."""
    Path(root, OLDER).parent.rename(root / "elsewhere")
    Mirror(root).build()


def test_what_was_published_a_moment_ago_may_be_asked_for(root: Path) -> None:
    places = Places.at(root)
    before = offer.read_offer(places)
    drop(root)
    after = offer.read_offer(places, before)
    assert OLDER not in after.images
    assert after.has_image(OLDER)
    assert after.has_image(NEWEST)
    assert offer.read_offer(places, after).has_image(OLDER)
    assert not offer.read_offer(places).has_image(OLDER)


def test_in_the_end_it_is_forgotten(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places.at(root)
    before = offer.read_offer(places)
    drop(root)
    after = offer.read_offer(places, before)
    later = time.monotonic() + offer.REMEMBERED_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not after.has_image(OLDER)
    assert offer.read_offer(places, after).earlier == {}


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../b", ".hidden", "a/.b", "", "a//b"])
def test_a_catalogue_cannot_offer_what_lies_elsewhere_or_is_hidden(path: str) -> None:
    assert not offer.is_shown(path)


def test_a_record_that_cannot_be_read_is_passed_over(root: Path) -> None:
    (root / "streams/.withdrawn.json").write_text("{")
    assert offer.read_offer(Places.at(root)).withdrawn == {}


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_without_an_index_there_is_nothing(root: Path, content: str | None) -> None:
    index = root / "streams/v1/index.json"
    index.unlink()
    if content is not None:
        index.write_text(content)
    with pytest.raises(TreeError, match="cannot read the catalogue"):
        offer.read_offer(Places.at(root))

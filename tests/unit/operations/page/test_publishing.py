"""The page as a part of a publication."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastindex.catalogue.companions import Makers
from fastindex.errors import Code, PublishError
from fastindex.formats.page_settings import PageOptions
from fastindex.mirror.mirror import Mirror
from fastindex.operations.builder.options import BuildOptions, BuildReport
from fastindex.operations.builder.pipeline import build
from fastindex.operations.page import PageMaker
from tests.support.trees import version, write_tree

PAGES = {"index.html", "feed.atom"}


def publish(root: Path, options: PageOptions | None) -> BuildReport:
    makers = Makers(of_all=(PageMaker(options),)) if options is not None else Makers()
    return build(Mirror.at(root), BuildOptions(makers=makers))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tree(tmp_path, version("debian/12/amd64/default/20240505_05:24"))
    return tmp_path


def test_the_page_is_written_once(root: Path) -> None:
    assert set(publish(root, PageOptions()).wrote) >= PAGES
    assert publish(root, PageOptions()).wrote == ()


def test_a_new_version_is_on_the_page_and_in_the_feed(root: Path) -> None:
    publish(root, PageOptions())
    write_tree(root, version("debian/12/amd64/default/20240506_05:24"))
    assert set(publish(root, PageOptions()).wrote) >= PAGES
    for name in PAGES:
        assert b"20240506_05:24" in (root / name).read_bytes()


def test_other_options_make_another_page_and_leave_the_catalogue(root: Path) -> None:
    publish(root, PageOptions())
    wrote = publish(root, PageOptions(product_pages=0)).wrote
    assert "streams/page/images~debian~12~amd64~default.html" in wrote
    assert not any(path.startswith("streams/v1/") for path in wrote)


def test_pages_that_are_not_made_any_more_go(root: Path) -> None:
    publish(root, PageOptions(product_pages=0))
    publish(root, PageOptions())
    assert not list(root.glob("streams/page/*"))
    report = publish(root, None)
    assert not (root / "index.html").exists()
    assert Code.COMPANIONS_REMOVED in {finding.code for finding in report.findings}


def test_a_page_of_somebody_else_stays_and_nothing_is_published(root: Path) -> None:
    (root / "index.html").write_text("mine")
    with pytest.raises(PublishError, match=r"index\.html: is not a file that fastindex made"):
        publish(root, PageOptions())
    assert (root / "index.html").read_text() == "mine"
    assert not (root / "streams/v1/index.json").exists()


def test_a_page_that_somebody_put_in_its_place_stays_when_it_is_not_asked_for(root: Path) -> None:
    publish(root, PageOptions())
    (root / "index.html").write_text("mine")
    publish(root, None)
    assert (root / "index.html").read_text() == "mine"

"""The page as files: what it shows, where it is, and that it depends on the catalogue alone."""

from __future__ import annotations

import gzip
import os
import random
import re
import shlex
import sys
import xml.etree.ElementTree as ET
from datetime import date
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_products import make_product, make_products
from msgspec.structs import replace

from fastindex.errors import PublishError, UsageError
from fastindex.formats.names import ProductName
from fastindex.formats.page_settings import DARK, PageOptions, PageSettingsError
from fastindex.formats.simplestreams import Product, Version
from fastindex.operations.page import PageMaker, read_page_settings
from fastindex.operations.page.content import (
    MAX_VERSIONS,
    describe_product,
    name_page,
    show,
    show_size,
)
from fastindex.operations.page.feed import MAX_ENTRIES
from fastindex.operations.page.rendering import HTML_MARKER, TemplateError
from tests.support.catalogues import container, item, metadata, version
from tests.support.pages import HOSTILE_NAMES, MARK, Made, make_hostile_products, make_page

ATOM = {"a": "http://www.w3.org/2005/Atom"}
NAME = ProductName("debian", "12", "amd64", "default")


def debian(count: int = 2, **fields: object) -> Product:
    return replace(make_product(NAME, "Debian", count, random.Random(1)), **fields)


def made(product: Product, name: ProductName = NAME, stream: str = "images") -> Made:
    return stream, name.key, product


class Elements(HTMLParser):
    """Keeps the elements of a page, and its text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def commands(page: bytes) -> list[str]:
    """Return the lines of a page that launch something."""
    lines = re.findall(r"<code>((?:incus|lxc) launch .*?)</code>", page.decode())
    return [unescape(re.sub(r"</?span[^>]*>", "", line)) for line in lines]


def test_a_small_mirror_has_one_page_and_a_feed(tmp_path: Path) -> None:
    files = make_page(tmp_path, make_products(5))
    assert sorted(files) == ["feed.atom", "index.html"]
    assert files["index.html"].count(b"<article") == 5


def test_a_large_mirror_has_a_page_a_product(tmp_path: Path) -> None:
    options = PageOptions(product_pages=4)
    files = make_page(tmp_path, make_products(5), options)
    pages = [path for path in files if path.startswith("streams/page/") and path.endswith(".html")]
    assert len(pages) == 5
    assert {"streams/page/style.css", "streams/page/script.js"} < files.keys()
    assert b"<article" not in files["index.html"]
    links = {tag[1].get("href") for tag in Elements(files["index.html"]).tags if tag[0] == "a"}
    assert set(pages) <= links
    assert files == make_page(tmp_path, make_products(5), options)


def test_each_product_is_there_once_however_many_there_are(tmp_path: Path) -> None:
    for count in (0, 1, 3, 4, 5, 9):
        files = make_page(tmp_path, make_products(count), PageOptions(product_pages=4))
        assert files["index.html"].count(b'<th scope="row">') == count
        assert sum(path.endswith(".html") for path in files) == 1 + (count if count > 4 else 0)


def test_an_empty_mirror_says_so(tmp_path: Path) -> None:
    files = make_page(tmp_path, [])
    assert "There are no images yet." in Elements(files["index.html"]).text
    assert ET.fromstring(files["feed.atom"]).findall("a:entry", ATOM) == []


def test_all_that_people_ask_for_is_shown(tmp_path: Path) -> None:
    product = debian(support_eol="2028-06-30", requirements={"nesting": "true"})
    page = make_page(tmp_path, [made(product)])["index.html"]
    text = Elements(page).text
    for word in ("Debian", "12 (bookworm)", "amd64", "default", "2028-06-30", "nesting=true"):
        assert word in text
    for entry in product.versions.values():
        assert entry.items["incus.tar.xz"].combined_squashfs_sha256 in text
        assert entry.items["incus.tar.xz"].combined_disk_kvm_img_sha256 in text


def test_lines_are_those_that_clients_need(tmp_path: Path) -> None:
    product = debian(1, requirements={"secureboot": "false"})
    page = make_page(tmp_path, [made(product)], PageOptions(remote="example"))["index.html"]
    assert commands(page) == [
        "incus launch example:debian/12",  # at the top
        "lxc launch example:debian/12",
        "incus launch example:debian/12",
        "incus launch example:debian/12 --vm -c security.secureboot=false",
        "lxc launch example:debian/12",
        "lxc launch example:debian/12 --vm -c security.secureboot=false",
    ]


def test_each_client_gets_lines_for_what_it_sees(tmp_path: Path) -> None:
    lxd = version(metadata("lxd.tar.xz", "squashfs"), item("squashfs"))
    incus = version(metadata("incus.tar.xz", "disk-kvm.img"), item("disk-kvm.img"))
    product = debian(versions={"20240505_05:24": lxd, "20240504_05:24": incus})
    page = make_page(tmp_path, [made(product)])["index.html"]
    assert commands(page)[2:] == [
        "incus launch mirror:debian/12 --vm",
        "lxc launch mirror:debian/12",
    ]


def test_a_product_without_a_usable_alias_is_launched_by_its_fingerprint(tmp_path: Path) -> None:
    product = debian(1, aliases="a\x1b[2J,b\nc")
    (entry,) = product.versions.values()
    page = make_page(tmp_path, [made(product)])["index.html"]
    fingerprint = entry.items["incus.tar.xz"].combined_squashfs_sha256
    assert f"incus launch mirror:{fingerprint}" in commands(page)


def test_a_shell_takes_the_name_of_an_image_for_one_word(tmp_path: Path) -> None:
    products = make_hostile_products(debian(1))
    page = make_page(tmp_path, products)["index.html"]
    targets = [one["data-t"] or "" for tag, one in Elements(page).tags if "data-t" in one]
    assert len(targets) == len(products)
    for target in targets:
        (word,) = shlex.split(target)
        assert word.startswith("mirror:")
    for command in commands(page):
        words = shlex.split(command)
        assert words[1] == "launch"
        assert words[2].startswith("mirror:")
        assert words[3:] in ([], ["--vm"])
        assert words[2].isprintable()


def test_what_clients_do_not_see_is_not_shown(tmp_path: Path) -> None:
    unseen = [
        replace(debian(), arch="amd65"),
        replace(debian(), versions={"20240505": Version(items={"a": item("squashfs")})}),
        replace(debian(), versions={"now": container()}),
        replace(debian(), versions={}),
    ]
    products = [("images", f"a:b:c:{number}", one) for number, one in enumerate(unseen)]
    assert b'<th scope="row">' not in make_page(tmp_path, products)["index.html"]


def test_older_versions_are_counted(tmp_path: Path) -> None:
    page = make_page(tmp_path, [made(debian(MAX_VERSIONS + 3))])["index.html"]
    assert page.count(b'<th scope="rowgroup"') == MAX_VERSIONS
    assert b"3 older versions in the catalogue" in page


@pytest.mark.parametrize("eol", ["2024-02-30", "soon", "0000-00-00", "2024-1-1", "٢٠٢٤-٠١-٠١"])
def test_what_is_no_day_is_no_end_of_life(tmp_path: Path, eol: str) -> None:
    page = make_page(tmp_path, [made(debian(support_eol=eol))])["index.html"]
    assert b'class="eol"' not in page


def test_newer_releases_come_first(tmp_path: Path) -> None:
    releases = ("9", "10", "3.9", "3.10", "current", "1" * 5000)
    products = [
        ("images", f"x:{release}:amd64:default", debian(1, release=release, release_title=""))
        for release in releases
    ]
    page = make_page(tmp_path, products)["index.html"].decode()
    found = re.findall(r'<th scope="row"><a[^>]*><bdi>([^<]*)', page)
    assert found == ["current", show("1" * 5000), "10", "9", "3.10", "3.9"]


# Names


def test_no_markup_comes_from_names(tmp_path: Path) -> None:
    clean = make_page(tmp_path, [made(debian(1))] * 40)
    dirty = make_page(tmp_path, make_hostile_products(debian(1)))
    allowed = {tag for tag, _ in Elements(clean["index.html"]).tags} | {"small", "nav", "li", "ul"}
    elements = Elements(dirty["index.html"])
    assert {tag for tag, _ in elements.tags} <= allowed
    for tag, attributes in elements.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert not (attributes.get("href") or "").startswith(("javascript:", "data:text"))
    assert sum(tag == "script" for tag, _ in elements.tags) == 1


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    page = make_page(tmp_path, make_hostile_products(debian(1)))["index.html"]
    text = Elements(page).text
    assert [name for name in HOSTILE_NAMES if show(name) not in text] == []


@given(st.text())
def test_what_is_shown_has_a_shape_and_is_harmless_in_xml(text: str) -> None:
    shown = show(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable() or len(text) > 300
    element = ET.Element("a")
    element.text = shown
    assert ET.fromstring(ET.tostring(element)).text == (shown or None)


@given(st.text(max_size=30), st.text(max_size=600))
def test_the_name_of_a_page_is_safe(stream: str, key: str) -> None:
    name = name_page(stream, key)
    assert re.fullmatch(r"[a-z0-9._~-]+", name.replace("_", "-"))
    assert len(name) <= 250
    assert name[0] != "."


@given(
    st.lists(
        st.tuples(st.text("aA~-:._", max_size=4), st.text("aA~-:._/", max_size=9)), unique=True
    )
)
def test_two_products_have_two_pages(products: list[tuple[str, str]]) -> None:
    assert len({name_page(*one) for one in products}) == len(products)


def test_no_product_can_be_named_as_the_page_of_another() -> None:
    stream, _, digest = name_page("images", "é").partition("~")
    assert stream == "images"
    assert name_page(stream, digest) != f"{stream}~{digest}"


def test_usual_products_have_readable_pages() -> None:
    assert name_page("images", "debian:12:x86_64:default") == "images~debian~12~x86_64~default"


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (-5, "0.0 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (98_300_000, "98.3 MB"),
        ((1 << 63) - 1, "9.2 EB"),
    ],
)
def test_sizes_are_for_people(size: int, shown: str) -> None:
    assert show_size(size) == shown


def test_a_product_alone_says_where_it_is_shown() -> None:
    for has_page, href in ((True, "streams/page/{}.html"), (False, "#{}")):
        shown = describe_product("images", NAME.key, debian(), remote="m", has_page=has_page)
        assert shown is not None
        assert shown.row.href == href.format(name_page("images", NAME.key))


# The feed


def test_the_feed_has_the_newest_versions(tmp_path: Path) -> None:
    products = list(make_products(80, versions=4))
    feed = ET.fromstring(make_page(tmp_path, products)["feed.atom"])
    times = [entry.findtext("a:updated", "", ATOM) for entry in feed.findall("a:entry", ATOM)]
    names = [name for _, _, product in products for name in product.versions]
    newest = sorted((f"{n[:4]}-{n[4:6]}-{n[6:8]}T{n[9:]}:00Z" for n in names), reverse=True)
    assert times == newest[:MAX_ENTRIES]
    assert feed.findtext("a:updated", "", ATOM) == times[0]
    ids = {entry.findtext("a:id", "", ATOM) for entry in feed.findall("a:entry", ATOM)}
    assert len(ids) == MAX_ENTRIES


def test_the_feed_does_not_depend_on_the_order_of_products(tmp_path: Path) -> None:
    products = list(make_products(80, versions=4))
    feeds = {make_page(tmp_path, order)["feed.atom"] for order in (products, products[::-1])}
    assert len(feeds) == 1


def test_the_feed_of_hostile_names_is_xml(tmp_path: Path) -> None:
    feed = ET.fromstring(make_page(tmp_path, make_hostile_products(debian(1)))["feed.atom"])
    entries = feed.findall("a:entry", ATOM)
    assert len(entries) == len(HOSTILE_NAMES)
    assert {child.tag for entry in entries for child in entry.iter()} == {
        f"{{{ATOM['a']}}}{name}" for name in ("entry", "id", "title", "updated", "link", "content")
    }
    titles = [entry.findtext("a:title", "", ATOM) for entry in entries]
    assert all(any(show(name) in title for title in titles) for name in HOSTILE_NAMES)


@pytest.mark.parametrize("product_pages", [0, 9])
def test_the_feed_leads_to_where_more_is(tmp_path: Path, product_pages: int) -> None:
    options = PageOptions(url="https://example.org/sub", product_pages=product_pages)
    files = make_page(tmp_path, [made(debian(1))], options)
    entry = ET.fromstring(files["feed.atom"]).find("a:entry/a:link", ATOM)
    assert entry is not None
    path, _, anchor = entry.attrib["href"].removeprefix("https://example.org/sub/").partition("#")
    assert path in files
    assert not anchor or f'id="{anchor}"'.encode() in files[path]


# What is not ours, and what does not change


@pytest.mark.parametrize("name", ["index.html", "feed.atom"])
@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_a_file_of_the_operators_stays(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        (tmp_path / "mine").write_text(HTML_MARKER)
        path.symlink_to("mine")
    else:
        path.write_text("<!doctype html><title>Mine</title>")
    with pytest.raises(PublishError, match=f"{name}: is not a file that fastindex made"):
        make_page(tmp_path, make_products(1))


@pytest.mark.parametrize("content", [b"", bytes(9000)])
def test_what_a_power_cut_left_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index.html").write_bytes(content)
    assert make_page(tmp_path, make_products(1))


def test_a_page_of_an_earlier_run_is_ours(tmp_path: Path) -> None:
    logo = "data:image/png;base64," + "A" * 80_000
    for options in (PageOptions(), PageOptions(title="<" * 9_000, logo=logo, url="https://x")):
        for name, content in make_page(tmp_path, make_products(1), options).items():
            (tmp_path / name).write_bytes(content)
    assert make_page(tmp_path, make_products(1))


def test_the_fingerprint_tells_other_options_and_templates() -> None:
    options = [
        PageOptions(),
        PageOptions(title="x"),
        PageOptions(light=DARK),
        PageOptions(templates={"style.css": ""}),
    ]
    assert len({PageMaker(one).fingerprint for one in options}) == len(options)
    assert PageMaker().fingerprint == PageMaker(PageOptions()).fingerprint


def test_nothing_on_the_page_depends_on_the_day(tmp_path: Path) -> None:
    today = date.today().isoformat()  # which no version of these has
    files = make_page(tmp_path, [made(container_product())])
    assert not any(today.encode() in content for content in files.values())
    assert b"ago" not in files["index.html"].partition(b"<script>")[0]


def container_product() -> Product:
    return debian(versions={"20240505_05:24": container()})


def test_500_products_are_within_the_budget(tmp_path: Path) -> None:
    page = make_page(tmp_path, make_products(500))["index.html"]
    assert len(gzip.compress(page, 6)) <= 150_000


# The operator's own


def write_settings(directory: Path, text: str) -> Path:
    path = directory / "page.toml"
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def _usual_umask() -> object:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_words_and_logo_of_the_operator_are_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "logo.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    text = 'title="A & B"\ntext="One <b>."\nfooter="Ours"\nlogo="logo.svg"\nurl="https://x.org/y"\n'
    options = read_page_settings(
        str(write_settings(tmp_path, text + '[links]\nImprint = "imprint.html"'))
    )
    files = make_page(tmp_path, make_products(3), replace(options, product_pages=0))
    page = Elements(files["index.html"])
    for word in ("A & B", "One <b>.", "Ours", "incus remote add mirror https://x.org/y --protocol"):
        assert word in page.text
    (image,) = [attributes for tag, attributes in page.tags if tag == "img"]
    assert (image["src"] or "").startswith("data:image/svg+xml;base64,")
    for path, content in files.items():
        if path.endswith(".html"):
            root = "../../" if "/" in path else ""
            assert f'<a href="{root}imprint.html">'.encode() in content


def test_a_template_of_the_operators_is_used(tmp_path: Path) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "details.html").write_text("<b>{{ product.row.os }} is mine</b>")
    options = read_page_settings(str(write_settings(tmp_path, 'templates = "templates"')))
    page = make_page(tmp_path, [made(debian(os="<i>"))], options)["index.html"]
    assert b"<b>&lt;i&gt; is mine</b>" in page


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("details.html", "a\n{{ nothing }}", "/t/details.html:2: 'nothing' is undefined; correct"),
        ("details.html", "a\n{% if %}", "details.html:2: Expected an expression"),
        (
            "details.html",
            "{{ 1 / 0 }}",
            "/t/details.html:1: division by zero; correct",
        ),
        ("base.html", "<html>", "index.html: what it makes lacks <meta name="),
        ("feed.atom", "<feed/>", "feed.atom: what it makes lacks <generator>fastindex"),
        ("script.js", "{{ x", "script.js:1: unexpected end of template"),
    ],
)
def test_a_template_that_is_wrong_is_named(
    tmp_path: Path, name: str, text: str, complaint: str
) -> None:
    options = PageOptions(templates={name: text}, template_directory="/t")
    with pytest.raises(TemplateError, match=re.escape(complaint)):
        make_page(tmp_path, make_products(1), options)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('logo = "nothing.png"', "nothing.png: cannot be read: No such file or directory ("),
        ('logo = "page.toml"', "page.toml: must be a picture (.gif, "),
        ('logo = "large.png"', "large.png: cannot be read: "),
        ('templates = "nothing"', "nothing: No such file or directory; name a directory"),
        ('templates = "strange"', "strange/indexx.html: no template has that name; the names are "),
        ('titel = "x"', "page.toml:1: unknown key"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "large.png").write_bytes(b"x" * 70_000)
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange/indexx.html").touch()
    with pytest.raises(PageSettingsError, match=re.escape(complaint)):
        read_page_settings(str(write_settings(tmp_path, text)))


@pytest.mark.parametrize("name", ["page.toml", "logo.png", "templates/base.html"])
def test_settings_that_others_may_write_are_not_used(tmp_path: Path, name: str) -> None:
    (tmp_path / "logo.png").touch()
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/base.html").touch()
    path = write_settings(tmp_path, 'logo = "logo.png"\ntemplates = "templates"')
    (tmp_path / name).chmod(0o666)
    with pytest.raises(PageSettingsError, match="not used, as others may change it"):
        read_page_settings(str(path))


def test_the_marks_of_hostile_names_are_those_that_the_browser_tests_look_for() -> None:
    assert len(set(HOSTILE_NAMES)) == 40
    assert sum(MARK in name for name in HOSTILE_NAMES) > 15


def test_what_installs_jinja_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UsageError, match=re.escape("pip install jinja2")):
        make_page(tmp_path, make_products(1))

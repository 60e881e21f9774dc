"""The page in a real browser: names stay names, and people can use it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from made_up_products import make_product, make_products
from msgspec.structs import replace
from playwright.sync_api import Browser, Page

from fastindex.formats.names import ProductName
from fastindex.formats.page_settings import PageOptions
from fastindex.operations.page.content import show
from tests.support.pages import (
    HOSTILE_NAMES,
    MARK,
    Made,
    make_hostile_products,
    make_page,
    write_page,
)

pytestmark = pytest.mark.slow
WIDTHS = (360, 768, 1440)
SCHEMES = ("light", "dark")
NAME = ProductName("debian", "12", "amd64", "default")
NEAR = PageOptions(product_pages=1000)
FAR = PageOptions(product_pages=0)

FORBIDDEN = {"img", "svg", "math", "iframe", "object", "form", "base", "textarea"}
INVENTORY = """() => {
    const all = [...document.querySelectorAll('*')];
    const attributes = all.flatMap((one) => one.getAttributeNames());
    return [all.map((one) => one.localName), attributes.filter((name) => name.startsWith('on'))];
}"""


def products() -> list[Made]:
    """Return products that have all that a page can show."""
    rich = make_product(NAME, "Debian", 25, random.Random(1), eol="2020-06-30")
    return [
        *make_products(14),
        ("images", "rich:1:amd64:x", replace(rich, requirements={"nesting": "true"})),
    ]


def hostile() -> list[Made]:
    return make_hostile_products(make_product(NAME, "Debian", 1, random.Random(1)))


@pytest.fixture(scope="module")
def url(site: tuple[Path, str]) -> str:
    """Serve all pages, each below a path of its own; return the URL above them."""
    directory, address = site
    for name, made, options in (
        ("few", products(), NEAR),
        ("many/sub path", products(), FAR),
        ("hostile", hostile(), NEAR),
        ("hostile-many", hostile(), FAR),
    ):
        output = directory / name
        output.mkdir(parents=True)
        write_page(output, make_page(output, made, options))
    return address


@contextmanager
def opened(browser: Browser, address: str, **context: Any) -> Iterator[Page]:
    """Yield a tab; whatever goes wrong in it, such as a refused script, is an error."""
    complaints: list[str] = []
    own = browser.new_context(**context)
    page = own.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    if context.get("java_script_enabled", True):
        page.add_init_script(f"window.{MARK} = (n) => console.log('hostile ' + n)")
    page.goto(address)
    yield page
    host = address.split("/")[2]
    assert [one for one in requests if not one.startswith((f"http://{host}/", "data:"))] == []
    assert complaints == []
    own.close()


def pages_of(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*.html"))


@pytest.mark.parametrize("name", ["hostile", "hostile-many"])
def test_names_of_strangers_run_nothing_and_bring_no_element(
    chromium: Browser, url: str, site: tuple[Path, str], name: str
) -> None:
    paths = pages_of(site[0] / name)
    assert len(paths) == (1 if name == "hostile" else 41)
    with opened(chromium, f"{url}/{name}/index.html") as page:
        for path in paths:
            page.goto(f"{url}/{name}/{path}")
            names, handlers = page.evaluate(INVENTORY)
            assert not set(names) & FORBIDDEN
            assert [names.count(one) for one in ("script", "style", "title")] == (
                [1, 1, 1] if path == "index.html" else [1, 0, 1]
            )
            assert handlers == []
        for element in page.locator("h1 bdi, td bdi, th bdi").all()[:3]:
            element.hover()
        assert page.evaluate("location.host") == url.split("/")[2]


def test_names_of_strangers_are_shown_as_they_are(chromium: Browser, url: str) -> None:
    with opened(chromium, f"{url}/hostile/index.html") as page:
        shown = set(page.locator(".os h2 bdi").all_text_contents())
        assert shown == {show(name) for name in HOSTILE_NAMES}
        rows = page.locator(".os tbody tr")
        assert rows.count() == len(HOSTILE_NAMES)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["few", "many/sub path", "hostile", "hostile-many"])
def test_nothing_is_wider_than_the_window(
    chromium: Browser, url: str, site: tuple[Path, str], name: str, width: int
) -> None:
    size = {"width": width, "height": 800}
    with opened(chromium, f"{url}/{name}/index.html", viewport=size) as page:
        for path in pages_of(site[0] / name)[-3:]:
            page.goto(f"{url}/{name}/{path}")
            assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        ("few", 360, "dark"),
        ("few", 768, "light"),
        ("few", 1440, "dark"),
        ("many/sub path", 360, "light"),
        ("many/sub path", 1440, "light"),
        ("hostile-many", 360, "light"),
        ("hostile-many", 1440, "dark"),
    ],
)
def test_axe_finds_no_violation(
    chromium: Browser, url: str, site: tuple[Path, str], name: str, width: int, scheme: str
) -> None:
    size = {"width": width, "height": 900}
    with opened(
        chromium, f"{url}/{name}/index.html", viewport=size, color_scheme=scheme, bypass_csp=True
    ) as page:
        for one in ("index.html", pages_of(site[0] / name)[-1]):
            page.goto(f"{url}/{name}/{one}")
            result = Axe().run(page)
            assert result.violations_count == 0, result.generate_report()


def test_all_is_there_without_javascript(chromium: Browser, url: str) -> None:
    with opened(chromium, f"{url}/few/index.html", java_script_enabled=False) as page:
        assert page.locator(".os tbody tr:visible").count() == len(products())
        assert not page.locator(".filter").is_visible()
        assert page.locator("button:visible").count() == 0
        assert page.locator(".start .line:visible").count() == 2
        text = page.locator(".line:visible").first.inner_text()
        assert text == "incus remote add mirror https://THIS-SERVER --protocol simplestreams"
        page.get_by_text("LXD", exact=True).first.click()
        assert page.locator(".line:visible").first.inner_text().startswith("lxc remote add mirror ")


def test_a_mirror_below_a_path_knows_its_address_and_its_pages(chromium: Browser, url: str) -> None:
    with opened(chromium, f"{url}/many/sub%20path/") as page:
        shown = page.locator(".line:visible code").first.inner_text()
        address = f"{url}/many/sub%20path"
        assert shown == f"incus remote add mirror {address} --protocol simplestreams"
        page.locator(".os tbody a").first.click()
        page.wait_for_url("**/streams/page/*.html")
        assert page.locator("h1").inner_text().startswith("AlmaLinux 10 default")
        assert page.evaluate("getComputedStyle(document.querySelector('.line')).display") == "flex"
        page.locator(".back a").click()
        page.wait_for_url("**/sub%20path/index.html")
        for link in page.locator("footer a").all():
            assert "/sub%20path/" in link.evaluate("one => one.href")


def test_dates_become_ages(chromium: Browser, url: str) -> None:
    with opened(chromium, f"{url}/few/index.html") as page:
        assert page.locator("td time + .age").count() == page.locator("td time:not(.eol)").count()
        assert page.locator(".ended").first.inner_text() == "ended 2020-06-30"


def test_words_and_choices_filter_what_is_shown(chromium: Browser, url: str) -> None:
    with opened(chromium, f"{url}/few/index.html") as page:
        rows = page.locator(".os tbody tr:visible")
        everything = rows.count()
        page.get_by_label("Search images").fill("almalinux CLOUD")
        found = rows.count()
        assert 0 < found < everything
        assert all("cloud" in text for text in rows.all_text_contents())
        assert page.locator(".os:visible h2 bdi").all_text_contents() == ["AlmaLinux"]
        assert page.locator("#count").inner_text() == f"{found} images"
        page.get_by_label("Architecture").select_option("arm64")
        assert 0 < rows.count() < found
        page.get_by_label("Type", exact=True).select_option("v")
        assert all("VM" in text for text in rows.all_text_contents())
        assert "q=almalinux+CLOUD&arch=arm64&type=v" in page.url
        filtered = rows.count()
        page.reload()
        assert rows.count() == filtered
        page.get_by_label("Search images").fill("nothing has this")
        assert rows.count() == 0
        page.get_by_role("button", name="Show all").click()
        assert rows.count() == everything
        assert "?" not in page.url


def test_the_words_of_buttons_and_ages_are_not_searched(chromium: Browser, url: str) -> None:
    with opened(chromium, f"{url}/few/index.html?q=copy") as page:
        assert page.locator(".os tbody tr:visible").count() == 0
        assert page.locator(".none").is_visible()


def test_lines_are_copied_for_the_client_that_is_chosen(chromium: Browser, url: str) -> None:
    rights = ["clipboard-read", "clipboard-write"]
    with opened(chromium, f"{url}/few/index.html", permissions=rights) as page:
        copied = "navigator.clipboard.readText()"
        page.locator(".os tbody button").first.click()
        assert page.evaluate(copied) == "incus launch mirror:almalinux/10"
        page.get_by_text("LXD", exact=True).first.click()
        page.locator(".os tbody button").first.click()
        assert page.evaluate(copied) == "lxc launch mirror:almalinux/10"
        assert "lxc launch" in page.locator("#told").inner_text()


def test_the_keyboard_reaches_what_the_mouse_does_and_the_focus_is_seen(
    chromium: Browser, url: str
) -> None:
    with opened(chromium, f"{url}/few/index.html") as page:
        seen = []
        for _ in range(12):
            page.keyboard.press("Tab")
            seen.append(
                page.evaluate(
                    "(() => { const e = document.activeElement, s = e.matches('[type=radio]') ? "
                    "e.nextElementSibling : e; return [e.localName, "
                    "getComputedStyle(s).outlineStyle]; })()"
                )
            )
        assert {name for name, _ in seen} >= {"input", "button", "select", "a"}
        assert all(outline != "none" for _, outline in seen)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_is_as_dark_as_its_surrounding(chromium: Browser, url: str, scheme: str) -> None:
    with opened(chromium, f"{url}/few/index.html", color_scheme=scheme) as page:
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert back == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 28)"}[scheme]


def test_a_file_of_the_page_works_without_a_server(
    chromium: Browser, site: tuple[Path, str], url: str
) -> None:
    own = chromium.new_context()
    page = own.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(f"file://{site[0]}/few/index.html")
    assert page.locator(".filter").is_visible()
    assert page.locator(".line:visible code").first.inner_text().count("https://THIS-SERVER") == 1
    page.get_by_label("Search images").fill("debian")
    assert page.locator(".os tbody tr:visible").count() == 1
    assert complaints == []
    own.close()

"""Pages as tests need them: a generation made of values, and names that would break a page."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from fastindex.catalogue.companions import CatalogueFile, Generation
from fastindex.catalogue.product_files import FileProducts
from fastindex.formats.simplestreams import Product, ProductFile, encode, product_file_path
from fastindex.operations.page import PageMaker, PageOptions

Made = tuple[str, str, Product]
"""Stream, key, product."""


def make_page(
    output: Path, products: Iterable[Made], options: PageOptions | None = None
) -> dict[str, bytes]:
    """Return the files of the page of a generation: path → content.

    Args:
        output: where that is to be published.
        products: its products; all of one stream.
        options: how the operator wants the page.
    """
    entries = {key: product for _, key, product in products}
    with tempfile.TemporaryDirectory() as staging:
        place = Path(staging, "images.json")
        place.write_bytes(encode(ProductFile(content_id="images", products=entries)))
        file = CatalogueFile(product_file_path("images"), "images", str(place))
        with closing(FileProducts(file.place)) as held:
            generation = Generation(str(output), [file], {"images": held}, published_at=0)
            made = PageMaker(options).make(generation)
            return {one.path: b"".join(one.chunks or ()) for one in made}


def write_page(output: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        target = output / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


MARK = "hostile"
"""What a script of a hostile name would call in the browser: ``hostile(NUMBER)``."""
_SCRIPT = f"{MARK}(1)"
HOSTILE_NAMES = (
    f"<script>{_SCRIPT}</script>",
    f"</title><script>{_SCRIPT}</script>",
    f"</style><script>{_SCRIPT}</script>",
    f"</textarea><script>{_SCRIPT}</script>",
    f"</script><script>{_SCRIPT}</script>",
    f"</table></main><script>{_SCRIPT}</script>",
    f"<img src=x onerror={_SCRIPT}>",
    f"<svg/onload={_SCRIPT}>",
    f"<svg><script>{_SCRIPT}</script></svg>",
    f"<math><mtext></form><form><mglyph><style></math><img src onerror={_SCRIPT}>",
    f'"><img src=x onerror="{_SCRIPT}">',
    f"'><img src=x onerror='{_SCRIPT}'>",
    f'" onfocus="{_SCRIPT}" autofocus="',
    f"' onmouseover='{_SCRIPT}' x='",
    f"` onload={_SCRIPT} `",
    f"javascript:{_SCRIPT}",
    f"data:text/html,<script>{_SCRIPT}</script>",
    f"<a href=javascript:{_SCRIPT}>click</a>",
    f"<iframe srcdoc='<script>parent.{_SCRIPT}</script>'></iframe>",
    f"<meta http-equiv=refresh content='0;url=javascript:{_SCRIPT}'>",
    "<base href=https://example.org/>",
    "<link rel=stylesheet href=https://example.org/x.css>",
    "<form action=https://example.org/><button>send",
    f"<!--><script>{_SCRIPT}</script>-->",
    f"<![CDATA[<script>{_SCRIPT}</script>]]>",
    "]]></content></entry><entry><title>forged",
    "&lt;script&gt;&amp;&#x3c;&quot;",
    "{{ 7 * 7 }}{% raw %}${7*7}#{7*7}",
    "\u202etxt.exe\u202c left",
    "\u2066isolated\u2069\u200bzero\ufeff",
    "con\x00trol\x07\x1b[31mred\x7f\x85",
    "line\nbreak\r\ttab\u2028separated",
    "non\ufffe\uffffcharacters",
    "عربي عبرית",
    "z\u0301\u0302\u0303\u0304\u0305\u0306\u0307\u0308\u0309\u030a" * 5,
    "m; rm -rf ~ #$(reboot)`reboot`",
    "'; rm -rf ~ '",
    "../../../../etc/passwd",
    "%2e%2e%2f?query#fragment",
    "W" * 255,
)
"""40 names: markup, other languages, what is invisible, long, for a shell, for a path."""


def make_hostile_products(product: Product) -> list[Made]:
    """Return a product a name, which each of its texts has."""
    from msgspec.structs import replace

    return [
        (
            "images",
            f"{name}:{name}:amd64:{name}",
            replace(
                product,
                aliases=f"{name}/x" if number % 2 else name,
                os=name,
                release=name,
                release_title=name,
                release_codename=name,
                variant=name,
                support_eol=name,
                requirements={name: name},
                versions={
                    f"{version[:8]}{name}": content for version, content in product.versions.items()
                },
            ),
        )
        for number, name in enumerate(HOSTILE_NAMES)
    ]

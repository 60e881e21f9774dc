"""The pictures of the page in the documentation.

python -m tests.browser.screenshots [DIRECTORY]: take them, in docs/_static.
"""

from __future__ import annotations

import os
import sys
import tempfile
from base64 import b64decode, b64encode
from pathlib import Path
from shutil import which

from made_up_products import make_products
from playwright.sync_api import sync_playwright

from fastindex.formats.page_settings import PageOptions
from tests.support.pages import make_page, write_page

OPTIONS = PageOptions(
    title="Images of Example",
    text="Fresh images for Incus and LXD, built every night. Everybody may use them.",
    footer="Run by the computing centre of Example.",
    links=(("Imprint", "https://example.org/imprint"),),
    url="https://images.example.org",
    remote="example",
)
ALPINE = "streams/page/images~alpine~3.22~amd64~cloud.html"
PICTURES = (
    ("page-1440", "index.html", 1440, 900, "light"),
    ("page-768", "index.html?q=debian", 768, 900, "dark"),
    ("page-360", ALPINE, 360, 760, "light"),
)
_PACK = """async (url) => {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL("image/webp", 0.9);
}"""
_NOW = "2026-11-29T09:00:00Z"


def take_pictures(directory: Path) -> None:
    """Take them."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as made, sync_playwright() as tool:
        output = Path(made)
        write_page(output, make_page(output, make_products(500), OPTIONS))
        browser = tool.chromium.launch(executable_path=which("chromium"), args=sandbox)
        for name, path, width, height, scheme in PICTURES:
            size = {"width": width, "height": height}
            context = browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
            page = context.new_page()
            page.clock.set_fixed_time(_NOW)
            page.goto(f"file://{output}/{path}")
            picture = b64encode(page.screenshot()).decode()
            page.goto("about:blank")
            packed = page.evaluate(_PACK, f"data:image/png;base64,{picture}")
            (directory / f"{name}.webp").write_bytes(b64decode(packed.partition(",")[2]))
        browser.close()


if __name__ == "__main__":
    here = Path(__file__).parents[2]
    sys.path.insert(0, str(here / "benchmarks"))
    take_pictures(Path(sys.argv[1]) if len(sys.argv) > 1 else here / "docs/_static")

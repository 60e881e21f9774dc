"""What the page costs: CPU seconds to make it beside a reading of the catalogue, and its size.

    python benchmarks/page.py                             2,000 products of 1 and of 10 versions
    python benchmarks/page.py --products 20 --rounds 1    a smoke run

The catalogue is on disk. *read* decodes all of it; *page* does that, too, and makes all pages, in
a process of its own, with the import of Jinja2 and the compilation of the templates.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from made_up_products import make_products
from measure import alternate, argument_parser, tell

from fastindex.catalogue.companions import CatalogueFile, Generation
from fastindex.catalogue.product_files import FileProducts
from fastindex.formats.simplestreams import ProductFile, encode, product_file_path
from fastindex.operations.page import PageMaker

_STREAM = "images"


def write_catalogue(output: Path, products: int, versions: int) -> Generation:
    """Write a product file of made-up products; return the generation."""
    made = {key: product for _, key, product in make_products(products, versions)}
    path = output / product_file_path(_STREAM)
    path.parent.mkdir(parents=True)
    path.write_bytes(encode(ProductFile(content_id=_STREAM, products=made)))
    return read_generation(output)


def read_generation(output: Path) -> Generation:
    """Return the generation that was written."""
    path = product_file_path(_STREAM)
    file = CatalogueFile(path, _STREAM, str(output / path))
    return Generation(str(output), [file], {_STREAM: FileProducts(file.place)}, published_at=0)


def read(output: Path) -> float:
    """Return the CPU seconds that it takes to decode the catalogue."""
    began = time.process_time()
    for _ in read_generation(output).read_products():
        pass
    return time.process_time() - began


def make(output: Path) -> float:
    """Return the CPU seconds that it takes to decode the catalogue and make the page."""
    began = time.process_time()
    for companion in PageMaker().make(read_generation(output)):
        b"".join(companion.chunks or ())
    return time.process_time() - began


def make_in_own_process(output: Path) -> float:
    """Return the same, of a process without a garbage collector, as the command is."""
    program = f"import gc, page; gc.disable(); print(page.make(page.Path({str(output)!r})))"
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, check=True, cwd=Path(__file__).parent, capture_output=True)
    return float(said.stdout)


def measure_size(output: Path) -> dict[str, int]:
    """Return the bytes of the first page, compressed and not, of the feed and of all."""
    generation = read_generation(output)
    files = {one.path: b"".join(one.chunks or ()) for one in PageMaker().make(generation)}
    return {
        "files": len(files),
        "all bytes": sum(map(len, files.values())),
        "index.html": len(files["index.html"]),
        "index.html, gzip -6": len(gzip.compress(files["index.html"], 6)),
        "feed.atom": len(files["feed.atom"]),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argument_parser(__doc__)
    parser.add_argument("--products", type=int, default=2000)
    options = parser.parse_args()
    contenders: dict[str, Callable[[], float]] = {}
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        for versions in (1, 10):
            output = Path(directory) / str(versions)
            write_catalogue(output, options.products, versions)
            name = f"{options.products:,} products of {versions}"
            contenders[f"read, {name}"] = partial(read, output)
            contenders[f"page, {name}"] = partial(make_in_own_process, output)
            sizes = measure_size(output)
            print(f"{name}: {', '.join(f'{what} {size:,}' for what, size in sizes.items())}")
        runs = alternate(contenders, options.rounds)
        facts = {"products": options.products}
        tell("Page", runs, next(iter(contenders)), facts, options.record)


if __name__ == "__main__":
    main()

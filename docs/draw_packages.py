"""Draws the packages and their floors: ``python docs/draw_packages.py`` writes packages.svg.

What stands on a floor may import what stands below it, and not its neighbours.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

FLOORS = (
    (("cli", "words → options → exit code; prints"),),
    (("operations", "what a user asks for: build, importer, pull, verify, prune, bench"),),
    (
        ("mirror", "the tree on disk"),
        ("hashing", "bytes → digests"),
        ("catalogue", "what clients see"),
        ("remote", "HTTP, whatever servers do"),
    ),
    (("formats", "untrusted bytes → values"), ("system", "the operating system, safely")),
    (("errors", "every exception, every exit code"), ("events", "Observer, Finding, Step")),
)
"""From the top: each floor's packages, with what lives there."""

_WIDTH, _HEIGHT, _GAP, _ARROW, _MARGIN = 720, 64, 16, 30, 8
_FILLS = ("#dbeafe", "#e0e7ff", "#dcfce7", "#fef3c7", "#f1f5f9")
_STYLE = (
    "text { font-family: system-ui, sans-serif; text-anchor: middle; fill: #1e293b }"
    " .name { font-size: 17px; font-weight: 600 } .what { font-size: 12.5px }"
    " rect { stroke: #475569; stroke-width: 1.2 } line { stroke: #475569; stroke-width: 1.6 }"
    " .page { fill: #ffffff; stroke: none }"
)


def draw() -> str:
    """Return the picture as SVG."""
    height = len(FLOORS) * (_HEIGHT + _ARROW) - _ARROW + 2 * _MARGIN
    width = _WIDTH + 2 * _MARGIN
    shapes = [f'<rect class="page" width="{width}" height="{height}"/>']
    for floor, (packages, fill) in enumerate(zip(FLOORS, _FILLS, strict=True)):
        top = _MARGIN + floor * (_HEIGHT + _ARROW)
        box = (_WIDTH - _GAP * (len(packages) - 1)) / len(packages)
        for place, (name, what) in enumerate(packages):
            left = _MARGIN + place * (box + _GAP)
            middle = left + box / 2
            shapes += [
                f'<rect x="{left:g}" y="{top}" width="{box:g}" height="{_HEIGHT}" rx="8" '
                f'fill="{fill}"/>',
                f'<text class="name" x="{middle:g}" y="{top + 27}">{name}</text>',
                f'<text class="what" x="{middle:g}" y="{top + 47}">{escape(what)}</text>',
            ]
        if floor:
            center = _MARGIN + _WIDTH / 2
            shapes.append(
                f'<line x1="{center:g}" y1="{top - _ARROW + 3}" x2="{center:g}" y2="{top - 5}" '
                'marker-end="url(#head)"/>'
            )
    lines = "\n".join(f"  {shape}" for shape in shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img">\n'
        "  <title>The packages of fastindex and their floors</title>\n"
        f"  <style>{_STYLE}</style>\n"
        '  <defs><marker id="head" markerWidth="8" markerHeight="8" refX="5" refY="4" '
        'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#475569"/></marker></defs>\n'
        f"{lines}\n</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_name("packages.svg").write_text(draw(), encoding="utf-8")

"""Draw the recorded figures: an SVG beside each JSON file.

    python benchmarks/plot.py                              all of benchmarks/results
    python benchmarks/plot.py benchmarks/results/verify.json

Needs matplotlib (``pip install '.[bench]'``). Bars and points are medians, whiskers and bands
reach from the best to the worst run. Equal figures give equal files, so that a diff shows
what has changed; the background is white, as no ink is readable on both a light and a dark
page.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RESULTS = Path(__file__).with_name("results")

# Okabe and Ito's colours, which the colour-blind can tell apart
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_OTHERS_COLOUR = "#999999"
_OURS = "fastindex"
_WIDTH_INCHES = 8.0


class Record(Struct, frozen=True, kw_only=True):
    """What ``measure.tell`` and ``measure.tell_lines`` write."""

    title: str
    facts: dict[str, object]
    unit: str = ""
    baseline: str = ""
    runs: dict[str, list[float]] = {}
    x: str = ""
    panels: dict[str, dict[str, dict[int, list[float]]]] = {}


def read(path: Path) -> Record:
    """Return the record in ``path``; raises ``msgspec.DecodeError`` where it is none."""
    return msgspec.json.decode(path.read_bytes(), type=Record)


def draw(record: Record, target: Path) -> None:
    """Draw ``record`` into the SVG file ``target``."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style = mpl.rc_context(
        {
            "axes.spines.right": False,
            "axes.spines.top": False,
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: one layout everywhere
            "font.size": 9,
            "svg.fonttype": "none",  # text stays text
            "svg.hashsalt": "fastindex",
        }
    )
    with style:
        height = 2.6 + 0.3 * len(record.runs) if record.runs else 4.2
        figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained", facecolor="white")
        figure.suptitle(record.title, fontsize=11, fontweight="bold")
        if record.runs:
            _draw_bars(figure.subplots(), record)
        else:
            _draw_panels(figure, record)
        figure.supxlabel(in_words(record.facts), fontsize=7, color="#555555")
        no_stamp = {"Date": None, "Creator": None}
        figure.savefig(target, format="svg", metadata=no_stamp)


def _draw_bars(axes: Axes, record: Record) -> None:
    middles = [statistics.median(runs) for runs in record.runs.values()]
    for place, (name, runs) in enumerate(record.runs.items()):
        middle = middles[place]
        below, above = whiskers(runs)
        axes.barh(place, middle, color=colour_of(name, list(record.runs)))
        if len(runs) > 1:
            axes.errorbar(middle, place, xerr=[[below], [above]], color="black", capsize=3)
        axes.annotate(
            f"{middle:.3g}",
            (middle + above, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(record.runs)), list(record.runs))
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel(f"{record.unit} (less is better)")


def _draw_panels(figure: Figure, record: Record) -> None:
    from matplotlib.ticker import LogLocator

    (all_axes,) = figure.subplots(1, len(record.panels), squeeze=False)
    for axes, (unit, series) in zip(all_axes, record.panels.items(), strict=True):
        for colour, (name, points) in zip(_COLOURS, series.items(), strict=False):
            _draw_line(axes, name, points, colour)
        places = sorted({x for points in series.values() for x in points})
        if is_wide(places):
            axes.set_xscale("log")
        if is_wide([run for points in series.values() for runs in points.values() for run in runs]):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xticks(places, [short(place) for place in places])
        axes.minorticks_off()
        axes.grid(visible=True, color="#dddddd", linewidth=0.5)
        axes.set_xlabel(record.x)
        axes.set_ylabel(unit)
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)


def _draw_line(axes: Axes, name: str, points: Mapping[int, Sequence[float]], colour: str) -> None:
    places = sorted(points)
    axes.plot(
        places,
        [statistics.median(points[place]) for place in places],
        marker="o",
        markersize=3,
        linewidth=1.2,
        color=colour,
        label=name,
    )
    axes.fill_between(
        places,
        [min(points[place]) for place in places],
        [max(points[place]) for place in places],
        color=colour,
        alpha=0.2,
        linewidth=0,
    )


def colour_of(name: str, names: Sequence[str]) -> str:
    """Return the colour of a bar: ours stand out, and among them the slower engine less."""
    if not name.startswith(_OURS) and any(other.startswith(_OURS) for other in names):
        return _OTHERS_COLOUR
    return _COLOURS[5 if "--engine hashlib" in name else 0]


def whiskers(runs: Sequence[float]) -> tuple[float, float]:
    """Return how far the least and the greatest of ``runs`` are from their median."""
    middle = statistics.median(runs)
    return middle - min(runs), max(runs) - middle


def is_wide(values: Sequence[float]) -> bool:
    """Return whether ``values`` are better seen on a logarithmic scale."""
    return min(values) > 0 and max(values) / min(values) >= 10


def short(value: int) -> str:
    """Return ``value`` in few characters: 64, 10k, 1M."""
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if value >= unit and value % unit == 0:
            return f"{value // unit}{name}"
    return str(value)


def in_words(facts: Mapping[str, object]) -> str:
    """Return ``facts`` in lines that fit below a plot."""
    text = "; ".join(f"{name} {value}" for name, value in facts.items())
    return textwrap.fill(text, 130, break_on_hyphens=False)


def main() -> int:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("records", nargs="*", type=Path, metavar="JSON")
    arguments = parser.parse_args()
    try:
        import matplotlib as mpl  # noqa: F401
    except ImportError:
        print("plots need matplotlib: pip install '.[bench]'", file=sys.stderr)
        return 1
    for path in arguments.records or sorted(RESULTS.glob("*.json")):
        draw(read(path), path.with_suffix(".svg"))
        print(path.with_suffix(".svg"))
    return 0


if __name__ == "__main__":
    sys.exit(main())

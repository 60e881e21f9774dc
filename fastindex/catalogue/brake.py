"""Pure: how much of what is published an operator would miss.

Each directory counts as much as its siblings: a distribution with a thousand versions no more
than one with a single version. So an uploader who adds versions to one directory, and removes
them again, cannot make it look as if most of the stream were gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction

from fastindex.errors import Code
from fastindex.events import Finding

PublishedVersion = tuple[str, str]
"""The key of a product, and the name of one of its versions."""

_LEVELS = 4
"""A key of fastindex has four parts: OS, release, architecture and variant."""


def measure_loss(
    published: Mapping[str, int],
    gone: Collection[PublishedVersion],
    renewed: Collection[str] = (),
) -> Fraction:
    """Return how much of a stream is lost, from 0 to 1.

    Of a product it is the share of its versions that are gone; if it has a new one, that takes the
    place of one of them, as a nightly build does. Of a directory, it is the mean of what is in it.

    Args:
        published: product key → how many versions were published.
        gone: those of them that are not any more, although nobody withdrew them.
        renewed: the keys of products that have a version that was not published.
    """
    lost = Counter(key for key, _ in gone) - Counter(renewed)
    return _average({_find_path(key): Fraction(lost[key], published[key]) for key in published})


def _find_path(key: str) -> tuple[str, ...]:
    """Return the directories of a product; those of another tool's key may be empty."""
    parts = [*key.split(":", _LEVELS - 1), *[""] * _LEVELS]
    return (*parts[:_LEVELS], key)


def _average(losses: Mapping[tuple[str, ...], Fraction]) -> Fraction:
    """Return the mean loss of the directories that are at the start of the paths."""
    if () in losses or not losses:
        return losses.get((), Fraction(0))
    children: dict[str, dict[tuple[str, ...], Fraction]] = {}
    for path, loss in losses.items():
        children.setdefault(path[0], {})[path[1:]] = loss
    return sum(map(_average, children.values()), Fraction(0)) / len(children)


def find_vanished(
    stream: str,
    published: Iterable[str],
    gone: Collection[PublishedVersion],
    remaining: Iterable[str],
) -> list[Finding]:
    """Return a finding for each directory of which nothing is published any more.

    Args:
        stream: the stream.
        published: the keys of the products that were published.
        gone: the versions that were published and are not any more, although nobody withdrew them.
        remaining: the keys of the products that are published now.

    Returns:
        The findings; of directories within each other only the topmost is named.
    """
    lost = Counter(key for key, _ in gone)
    alive = {
        path[:depth]
        for path in map(_find_path, {*remaining, *(key for key in published if not lost[key])})
        for depth in range(1, _LEVELS + 1)
    }
    versions: Counter[str] = Counter()
    for key, count in lost.items():
        path = _find_path(key)
        for depth in range(1, _LEVELS + 1):
            if path[:depth] not in alive:
                versions["/".join(filter(None, (stream, *path[:depth])))] += count
                break
    return [
        Finding(
            Code.DIRECTORY_VANISHED,
            directory,
            f"nothing of {directory} is published any more; "
            + ("1 version was" if count == 1 else f"{count:,} versions were")
            + " (is a disk not mounted?)",
            "mount its disk; if it is gone on purpose, there is nothing to do (fastindex remove "
            "says so beforehand)",
        )
        for directory, count in sorted(versions.items())
    ]

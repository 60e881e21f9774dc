"""Random sequences of changes and runs, for twin mirrors."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from hypothesis import strategies as st

from tests.support.faults.twin_mirrors import (
    CACHE_FORGERIES,
    CATALOGUE_FORGERIES,
    NOTE_FORGERIES,
    OUTPUTS,
    STATE_FORGERIES,
    Disturbance,
    Forgery,
    Run,
    TwinMirrors,
)
from tests.support.faults.twin_trees import CHANGES, DAMAGES, Change

SHARED_MEMORY = Path("/dev/shm")
MOST_CALLS = 48
"""Nearly all builds of the small trees here end before so many calls that change something."""


@dataclass(frozen=True)
class Step:
    """Changes, and a run after them."""

    changes: tuple[Change | Forgery, ...]
    run: Run
    disturbance: Disturbance | None
    later_seconds: int
    """How long after the last step."""


NUMBER = st.integers(0, 255)


def _changes(*, keeps_caches: bool) -> st.SearchStrategy[Change | Forgery]:
    kinds = [*CHANGES, *CHANGES]
    kinds += ["add a version", "add a new version", "change settings"] * 3
    kinds += ["rewrite settings", "change a companion"] * 3
    kinds += [*DAMAGES, "corrupt", "corrupt"] if keeps_caches else []
    state, published = [*STATE_FORGERIES], [*CATALOGUE_FORGERIES]
    notes = [note for note in NOTE_FORGERIES if keeps_caches or note != "damaged"]
    caches = [] if keeps_caches else [*CACHE_FORGERIES]
    change = st.builds(Change, st.sampled_from(kinds), NUMBER, NUMBER, NUMBER)
    forged = [*state, *state, *published, *notes, *caches]
    forgery = st.builds(Forgery, st.sampled_from(forged), NUMBER, NUMBER)
    return st.one_of(change, change, change, forgery)


def _calm_changes(*, keeps_caches: bool) -> st.SearchStrategy[Change | Forgery]:
    kinds = [*CHANGES, *["rewrite settings", "change a companion"] * 6]
    kinds += ["add a dated version"] * 3
    kinds += ["corrupt", "repair"] * 2 if keeps_caches else []
    change = st.builds(Change, st.sampled_from(kinds), NUMBER, NUMBER, NUMBER)
    published = st.builds(Forgery, st.sampled_from(CATALOGUE_FORGERIES), NUMBER, NUMBER)
    return st.one_of(*[change] * 7, published)


def _runs(*, keeps_caches: bool) -> st.SearchStrategy[Run]:
    """Return runs that differ little from a usual one, as most do in life."""
    streams = [("images",), ("images", "daily"), ("daily", "images"), ("daily",)]
    fields: dict[str, list[object]] = {
        "streams": [*streams],
        "output": [OUTPUTS[1]],
        "has_cache_dir": [True],
        "allows_links": [True],
        "jobs": [2],
        "rehash": [True],
        "adopt": [True],
        "blake3": [False],
        "force": [True],
        "dry_run": [True],
        "program": [1, 2],
        "recheck": ["1/1", "1/2"],
    }
    if keeps_caches:
        fields["settle_seconds"] = [1800]
        fields["operation"] = ["prune", "remove", "restore"]
    other = st.sampled_from([(name, value) for name in fields for value in fields[name]])
    others = st.lists(other, max_size=2)
    return st.builds(lambda pairs, what: Run(what=what, **dict(pairs)), others, NUMBER)


@cache
def sequences(*, keeps_caches: bool) -> st.SearchStrategy[tuple[Step, ...]]:
    """Return sequences of 2 to 8 steps; most of the runs of one are of the same kind.

    Args:
        keeps_caches: whether they are for twins of which both keep their caches.
    """
    run = _runs(keeps_caches=keeps_caches)
    usual = run.map(
        lambda one: replace(one, operation="build", dry_run=False, rehash=False, recheck="")
    )
    kind = st.sampled_from(("interrupt", "full", "interrupt", "kill"))
    disturbance = st.builds(Disturbance, kind, st.integers(1, MOST_CALLS))
    change = _changes(keeps_caches=keeps_caches)
    later = st.sampled_from((0, 0, 0, 0, 700, 86_400, 3 * 86_400))
    steps = st.lists(
        st.tuples(
            st.lists(change, min_size=1, max_size=5),
            st.none() | st.none() | run,
            st.one_of(*[st.none()] * 7, disturbance),
            later,
        ),
        min_size=2,
        max_size=6,
    )
    # Where little happens between two runs alike, the second one has least to do, and so most to
    # overlook.
    calm = _calm_changes(keeps_caches=keeps_caches).map(lambda one: [one])
    calm_steps = st.lists(
        st.tuples(
            st.one_of(st.just([]), calm, calm, calm),
            st.one_of(*[st.none()] * 7, run),
            st.none(),
            later,
        ),
        min_size=4,
        max_size=8,
    )
    return st.builds(_make_sequence, usual, st.booleans(), steps | calm_steps)


_DrawnStep = tuple[list[Change | Forgery], Run | None, Disturbance | None, int]


def _make_sequence(usual: Run, has_two: bool, steps: list[_DrawnStep]) -> tuple[Step, ...]:
    if has_two:
        usual = replace(usual, streams=("images", "daily"))
    made = (Step(tuple(changes), run or usual, end, later) for changes, run, end, later in steps)
    return tuple(
        step if step.run.operation == "build" else replace(step, disturbance=None) for step in made
    )


def play(steps: tuple[Step, ...], *, keeps_caches: bool) -> None:
    """Play a sequence to twins; raises AssertionError where they come to differ."""
    place = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as directory:
        twins = TwinMirrors(Path(directory), keeps_caches=keeps_caches)
        for change in FIRST:
            twins.tree.apply(change)
        for step in steps:
            for one in step.changes:
                if isinstance(one, Change):
                    twins.tree.apply(one)
                else:
                    twins.forge(one)
            twins.tell_time(step.later_seconds)
            twins.run(step.run, step.disturbance)
        twins.check_trees()


FIRST = (
    Change("add a version", 0, 0, 0),
    Change("add a version", 0, 1, 1),
    Change("add a version", 3, 0, 3),
    Change("add a version", 4, 0, 2),
    Change("change settings", 0, 0, 1),
    Change("change settings", 4, 2, 1),
    Change("change an image.yaml", 1, 0, 0),
    Change("change a SHA256SUMS", 2, 0, 0),
)
"""Each tree begins with one product of ``daily`` and two of ``images``, and some settings."""

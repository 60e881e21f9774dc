"""The brake counts directories, each as much as its siblings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.catalogue.brake import PublishedVersion, find_vanished, measure_loss
from fastindex.errors import Code

HALF = Fraction(1, 2)


def versions(word: str) -> set[PublishedVersion]:
    """Return versions: ``d/12:3`` are three of debian's release 12."""
    names = {"d": "debian", "e": "evil", "f": "fedora"}
    found = set()
    for part in word.split():
        where, count = part.split("=")
        os_name, release = where.split("/")
        key = f"{names[os_name]}:{release}:amd64:default"
        found |= {(key, f"2024010{number}") for number in range(int(count))}
    return found


def count(published: Collection[PublishedVersion]) -> Counter[str]:
    """Return how many versions each product has."""
    return Counter(key for key, _ in published)


@pytest.mark.parametrize(
    ("published", "kept", "loss"),
    [
        ("d/12=4", "d/12=4", Fraction(0)),
        ("d/12=4", "d/12=1", Fraction(3, 4)),
        ("d/12=4", "", Fraction(1)),
        ("d/12=2 d/13=2", "d/12=2", HALF),
        ("d/12=1 e/1=9", "d/12=1", HALF),  # nine of ten versions, one of two distributions
        ("d/12=1 e/1=1 e/2=1 e/3=1 e/4=1", "d/12=1", HALF),
        ("d/12=1 e/1=1 e/2=1", "d/12=1 e/1=1", Fraction(1, 4)),
        ("d/12=1 e/1=9 f/1=1", "e/1=9", Fraction(2, 3)),
        ("d/12=5 e/1=5 f/1=5", "d/12=2 e/1=2 f/1=2", Fraction(3, 5)),
        ("", "", Fraction(0)),
    ],
)
def test_a_loss_is_the_mean_of_the_losses_below(published: str, kept: str, loss: Fraction) -> None:
    before = versions(published)
    assert measure_loss(count(before), before - versions(kept)) == loss


def test_the_order_of_a_key_of_another_tool_does_not_matter() -> None:
    before = {("com.ubuntu:a:b:c:d:e", "1"), ("x", "1"), ("x:", "1"), ("x:y", "1")}
    assert measure_loss(count(before), before) == 1
    assert measure_loss(count(before), {("x:y", "1")}) == Fraction(1, 4)


_PATHS = st.lists(st.sampled_from(("a", "b", "c")), min_size=4, max_size=4).map(":".join)
_PUBLISHED = st.sets(st.tuples(_PATHS, st.sampled_from(("1", "2", "3"))), min_size=1)


@given(_PUBLISHED, st.integers(min_value=1, max_value=4), st.data())
def test_one_directory_of_several_cannot_pull_it(
    published: set[PublishedVersion], depth: int, data: st.DataObject
) -> None:
    """Whatever the uploader of one directory removes there, and however much there was."""
    paths = {tuple(key.split(":")[:depth]) for key, _ in published}
    own = data.draw(st.sampled_from(sorted(paths)))
    siblings = {path for path in paths if path[:-1] == own[:-1]}
    below = {one for one in published if tuple(one[0].split(":")[:depth]) == own}
    gone = data.draw(st.sets(st.sampled_from(sorted(below))))
    if len(siblings) > 1:
        assert measure_loss(count(published), gone) <= HALF
    assert 0 <= measure_loss(count(published), gone) <= 1


@given(_PUBLISHED)
def test_if_all_is_gone_all_is_lost(published: set[PublishedVersion]) -> None:
    assert measure_loss(count(published), published) == 1
    assert measure_loss(count(published), set()) == 0


@pytest.mark.parametrize(
    ("published", "kept", "told"),
    [
        ("d/12=1 d/13=2 e/1=1", "e/1=1", {"images/debian": "3 versions were"}),
        ("d/12=1 d/13=2 e/1=1", "d/13=2 e/1=1", {"images/debian/12": "1 version was"}),
        ("d/12=3", "d/12=1", {}),
        ("d/12=1 e/1=1", "", {"images/debian": "1 version", "images/evil": "1 version"}),
    ],
)
def test_a_directory_that_vanishes_is_named(
    published: str, kept: str, told: dict[str, str]
) -> None:
    before, after = versions(published), versions(kept)
    found = find_vanished("images", count(before), before - after, count(after))
    assert [finding.path for finding in found] == sorted(told)
    for finding in found:
        assert finding.code == Code.DIRECTORY_VANISHED
        assert f"nothing of {finding.path} is published any more" in finding.problem
        assert told[finding.path] in finding.problem
        assert not finding.versions_left_out


def test_what_is_withdrawn_has_not_vanished() -> None:
    before = versions("d/12=2 e/1=1")
    assert find_vanished("images", count(before), set(), {"evil:1:amd64:default"}) == []


def test_a_new_version_takes_the_place_of_one_that_goes() -> None:
    before = versions("d/12=2 e/1=1")
    gone = versions("d/12=2")
    (key,) = count(gone)
    assert measure_loss(count(before), gone) == HALF
    assert measure_loss(count(before), gone, {key}) == HALF / 2
    assert measure_loss(count(gone), gone, {key}) == HALF
    assert measure_loss(count(before), gone, {"other:1:a:b"}) == HALF

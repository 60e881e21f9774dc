"""Which numbers several images have: as if all images of the catalogue were compared."""

from __future__ import annotations

from array import array
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fastindex.catalogue import contested
from fastindex.catalogue.contested import (
    find_contested,
    list_image_fingerprints,
    number_fingerprint,
    number_images,
    update,
)
from fastindex.catalogue.fingerprints import find_images
from fastindex.formats.simplestreams import Version
from tests.support.catalogues import container, digest, item, metadata, version

MANY = contested._FEW + 1  # both ways of updating must do the same


@pytest.mark.parametrize(
    ("new", "held", "freed", "expected"),
    [
        ({}, [], {}, set()),
        ({1: 1, 2: 1}, [[3, 4], [5]], {}, set()),
        ({1: 2}, [], {}, {1}),  # twice in what is new
        ({1: 1}, [[1]], {}, {1}),  # new, and published by another
        ({1: 1}, [[1]], {1: 1}, set()),  # moved from one product to another
        ({1: 1}, [[1], [1]], {1: 1}, {1}),
        ({1: 1}, [[1], [1]], {1: 2}, set()),
        ({1: 2}, [[1]], {1: 1}, {1}),
        ({}, [[1], [1]], {}, {1}),  # in two streams that were built by themselves
        ({}, [[1], [1]], {1: 1}, set()),  # one of them dropped it
        ({}, [[1], [1], [1]], {1: 1}, {1}),
        ({}, [[1, 1]], {}, set()),  # told apart by the last run
        ({1: 1}, [[1, 1]], {1: 1}, {1}),
        ({7: 1}, [[1, 3, 7], [2, 3, 8]], {}, {3, 7}),
    ],
)
def test_a_number_of_several_images_is_contested(
    new: dict[int, int], held: list[list[int]], freed: dict[int, int], expected: set[int]
) -> None:
    fresh = array("Q", Counter(new).elements())
    assert find_contested([fresh], [array("Q", numbers) for numbers in held], freed) == expected


_NUMBERS = st.integers(0, 5) | st.integers((1 << 64) - 3, (1 << 64) - 1)
_STREAM = st.tuples(
    st.sets(_NUMBERS),  # published by the last run
    st.sets(_NUMBERS),  # of those, not kept as they are
    st.lists(_NUMBERS, max_size=6),  # published by products that are new or have changed
)


@given(st.lists(_STREAM, max_size=4), st.lists(_NUMBERS, max_size=4))
def test_it_is_as_if_all_images_were_counted(
    streams: list[tuple[set[int], set[int], list[int]]], foreign: list[int]
) -> None:
    images: Counter[int] = Counter(foreign)
    for published, dropped, made in streams:
        images.update(published - dropped)
        images.update(made)
    new = [array("Q", foreign)]
    freed: Counter[int] = Counter()
    for published, dropped, made in streams:
        new.append(array("Q", made))
        freed.update(published & dropped)
    held = [array("Q", sorted(published)) for published, _, _ in streams]
    expected = {number for number, count in images.items() if count > 1}
    assert find_contested(new, held, freed) == expected


@given(
    st.lists(_NUMBERS),
    st.lists(_NUMBERS, max_size=9),
    st.lists(_NUMBERS, max_size=9),
    st.booleans(),
)
def test_the_numbers_of_a_stream_follow_its_images(
    held: list[int], freed: list[int], new: list[int], is_large: bool
) -> None:
    added = array("Q", [*new, *range(100, 100 + MANY * is_large)])
    before = array("Q", sorted(held))
    after = update(before, Counter(freed), added)
    expected = Counter(held) - Counter(freed)
    expected.update(added)
    assert after.typecode == "Q"
    assert list(after) == sorted(expected.elements())
    assert list(before) == sorted(held), "what was known before must not change"


def test_each_image_has_its_numbers() -> None:
    both = container("a")  # both clients see the same fingerprint of each metadata file
    own = version(
        metadata("incus.tar.xz", "squashfs"), metadata("lxd.tar.xz", "squashfs"), item("squashfs")
    )
    unified = version(item("incus_combined.tar.gz", "u"))
    told = list(list_image_fingerprints({"1": both, "2": own, "3": unified}))
    assert sorted(told) == sorted(
        [
            digest("a+squashfs"),
            digest("incus.tar.xz+squashfs"),
            digest("lxd.tar.xz+squashfs"),
            digest("u"),
        ]
    )
    assert list(number_images({"1": both})) == [number_fingerprint(digest("a+squashfs"))]


def test_an_image_that_two_versions_have_counts_twice() -> None:
    numbers = list(number_images({"1": container("a"), "2": container("a", path="other")}))
    assert len(numbers) == 2
    assert len(set(numbers)) == 1


def test_what_no_client_sees_has_no_number() -> None:
    lone = Version(items={"squashfs": item("squashfs")})
    unmatched = version(metadata("incus.tar.xz"), item("squashfs"))
    assert not any(any(seen) for _, _, seen in find_images(unmatched.items))
    assert list(number_images({"1": lone, "2": unmatched, "3": Version()})) == []


def test_a_number_is_that_of_any_text() -> None:
    """Another tool's catalogue may have anything in the place of a fingerprint."""
    texts = ("", "a", "A", "é", "\ud800", digest("a"))
    numbers = {number_fingerprint(text) for text in texts}
    assert len(numbers) == len(texts)
    assert all(0 <= number < 1 << 64 for number in numbers)
    odd = replace(metadata("incus.tar.xz"), combined_squashfs_sha256="\ud800")
    assert len(list(number_images({"1": version(odd, item("squashfs"))}))) == 1

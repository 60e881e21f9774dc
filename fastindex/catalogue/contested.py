"""Pure: which images of a catalogue may have a fingerprint in common, found by numbers.

A catalogue of a million versions has millions of fingerprints. Nearly always all are different,
which their hashes of 64 bits tell. Where two of these are equal, the fingerprints themselves are
compared (see ``conflicts``).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, combinations, pairwise

from xxhash import xxh3_64_intdigest

from fastindex.catalogue.fingerprints import find_images
from fastindex.formats.simplestreams import Version

_FEW = 256
"""Up to so many changes, each number is put into its place; more are sorted anew."""
_BUCKETS = 256
_BUCKET_SHIFT = 56  # of numbers of 64 bits, the first eight choose the bucket


def number_images(versions: Mapping[str, Version]) -> Iterator[int]:
    """Yield the number of each fingerprint of each image, as often as there are such images."""
    for fingerprint in list_image_fingerprints(versions):
        yield number_fingerprint(fingerprint)


def list_image_fingerprints(versions: Mapping[str, Version]) -> Iterator[str]:
    """Yield the fingerprints of each image; one that both clients see alike is yielded once."""
    for version in versions.values():
        for _, _, fingerprints in find_images(version.items):
            yield from {*filter(None, fingerprints)}


def number_fingerprint(fingerprint: str) -> int:
    """Return a number of 64 bits that stands for a fingerprint."""
    return xxh3_64_intdigest(fingerprint.encode("utf-8", "surrogatepass"))


def find_contested(
    new: Sequence[array[int]], held: Sequence[array[int]], freed: Mapping[int, int]
) -> set[int]:
    """Return the numbers that more than one image of the new catalogue has.

    Args:
        new: the numbers of the images that the last run did not publish so.
        held: for each stream that the last run published, the sorted numbers of its images. What
            has one number within a stream has been told apart by that run.
        freed: number → how many of those images are not published any more, or are in ``new``.
    """
    contested = {
        number
        for bucket in _sort_in_buckets(chain(*new))
        for number, following in pairwise(bucket)
        if number == following
    }
    if held:
        contested |= {n for n in chain(*new) if _count(held, n) > freed.get(n, 0)}
    for one, other in combinations(held, 2):
        shared = set(one).intersection(other)
        contested |= {n for n in shared if _count(held, n) > freed.get(n, 0) + 1}
    return contested


def _sort_in_buckets(numbers: Iterable[int]) -> Iterator[list[int]]:
    """Yield all numbers, sorted, in lists that are small enough to be made one by one."""
    buckets = [array("Q") for _ in range(_BUCKETS)]
    for number in numbers:
        buckets[number >> _BUCKET_SHIFT].append(number)
    for bucket in buckets:
        yield sorted(bucket)


def _count(held: Sequence[array[int]], number: int) -> int:
    return sum(bisect_right(numbers, number) - bisect_left(numbers, number) for numbers in held)


def update(held: array[int], freed: Counter[int], new: array[int]) -> array[int]:
    """Return the sorted numbers of a stream after a change.

    Args:
        held: the sorted numbers before.
        freed: number → how often to leave it out.
        new: the numbers to add.
    """
    if len(new) + freed.total() > _FEW:
        return array("Q", chain(*_sort_in_buckets(chain(_leave_out(held, freed), new))))
    numbers = array("Q", held)
    for number in freed.elements():
        place = bisect_left(numbers, number)
        if place < len(numbers) and numbers[place] == number:
            del numbers[place]
    for number in new:
        numbers.insert(bisect_left(numbers, number), number)
    return numbers


def _leave_out(numbers: Iterable[int], freed: Counter[int]) -> Iterator[int]:
    left = Counter(freed)
    for number in numbers:
        if left and left[number] > 0:
            left[number] -= 1
        else:
            yield number

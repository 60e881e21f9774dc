"""What is answered: RFC 9110, as far as it matters for files."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.operations.serve.answers import (
    CATALOGUE_CACHING,
    IMAGE_CACHING,
    Answer,
    Resource,
    accepts_gzip,
    answer,
    make_tag,
    refuse,
)
from fastindex.system.stamps import Stamp

MODIFIED = 1_700_000_000
STAMP = Stamp(1000, MODIFIED * 1_000_000_000 + 5, 1, 2)
IMAGE = Resource("images/a/rootfs.squashfs", STAMP, is_image=True)
DOCUMENT = Resource("streams/v1/images.json", STAMP, is_image=False, has_forms=True)
TAG = make_tag(IMAGE)


def get(resource: Resource = IMAGE, method: str = "GET", **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return answer(method, fields, resource)


def test_an_image_may_be_kept_for_ever_and_a_catalogue_may_not() -> None:
    assert get(IMAGE).headers["Cache-Control"] == IMAGE_CACHING
    assert "immutable" in IMAGE_CACHING
    assert get(DOCUMENT).headers["Cache-Control"] == CATALOGUE_CACHING
    assert "immutable" not in CATALOGUE_CACHING


def test_a_whole_file() -> None:
    told = get()
    assert (told.status, told.first, told.length) == (200, 0, 1000)
    assert told.headers["Content-Length"] == "1000"
    assert told.headers["Content-Type"] == "application/octet-stream"
    assert told.headers["Last-Modified"] == formatdate(MODIFIED, usegmt=True)
    assert "Vary" not in told.headers


def test_head_tells_the_same_and_sends_nothing() -> None:
    told = get(method="HEAD", Range="bytes=0-9")
    assert (told.status, told.length) == (200, 0)
    assert told.headers == get().headers


def test_the_compressed_form_is_another_thing() -> None:
    packed = Resource(DOCUMENT.path, STAMP, is_image=False, is_gzipped=True, has_forms=True)
    plain, told = get(DOCUMENT), get(packed)
    assert told.headers["Content-Encoding"] == "gzip"
    assert told.headers["Content-Type"] == plain.headers["Content-Type"] == "application/json"
    assert told.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
    assert told.headers["ETag"] != plain.headers["ETag"]


@pytest.mark.parametrize(
    ("range_", "first", "length"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 10),
        ("bytes=990-", 990, 10),
        ("bytes=990-5000", 990, 10),
        ("bytes=-10", 990, 10),
        ("bytes=-5000", 0, 1000),
        ("Bytes = 10 - 19", 10, 10),
    ],
)
def test_a_range(range_: str, first: int, length: int) -> None:
    told = get(Range=range_)
    assert (told.status, told.first, told.length) == (206, first, length)
    assert told.headers["Content-Range"] == f"bytes {first}-{first + length - 1}/1000"
    assert told.headers["Content-Length"] == str(length)


@pytest.mark.parametrize("range_", ["bytes=1000-", "bytes=5000-6000", "bytes=-0"])
def test_a_range_that_is_not_there(range_: str) -> None:
    told = get(Range=range_)
    assert (told.status, told.length) == (416, 0)
    assert told.headers["Content-Range"] == "bytes */1000"


@pytest.mark.parametrize(
    "range_",
    ["bytes=0-1,5-6", "bytes=9-1", "bytes=-", "lines=0-1", "bytes=a-b", f"bytes=0-{'9' * 40}"],
)
def test_other_ranges_are_passed_over(range_: str) -> None:
    told = get(Range=range_)
    assert (told.status, told.length) == (200, 1000)


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (TAG, 206),
        (formatdate(MODIFIED, usegmt=True), 206),
        (f"W/{TAG}", 200),
        ('"other"', 200),
        (formatdate(MODIFIED - 1, usegmt=True), 200),
        (formatdate(MODIFIED + 1, usegmt=True), 200),
    ],
)
def test_a_part_of_what_the_client_has_the_rest_of(condition: str, status: int) -> None:
    assert get(Range="bytes=0-9", If_Range=condition).status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": TAG}, 304),
        ({"If-None-Match": f'"other", W/{TAG}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-Modified-Since": formatdate(MODIFIED, usegmt=True)}, 304),
        ({"If-Modified-Since": formatdate(MODIFIED - 1, usegmt=True)}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        (
            {
                "If-None-Match": '"other"',
                "If-Modified-Since": formatdate(MODIFIED, usegmt=True),
            },
            200,
        ),
        ({"If-Match": TAG}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Unmodified-Since": formatdate(MODIFIED, usegmt=True)}, 200),
        ({"If-Unmodified-Since": formatdate(MODIFIED - 1, usegmt=True)}, 412),
    ],
)
def test_conditions(headers: dict[str, str], status: int) -> None:
    told = answer("GET", headers, IMAGE)
    assert told.status == status
    assert told.length == (1000 if status == 200 else 0)


@pytest.mark.parametrize(
    ("accepted", "is_gzip"),
    [
        ("gzip", True),
        ("GZIP;q=0.5", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("*", True),
        ("*, gzip;q=0", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("identity", False),
        ("", False),
    ],
)
def test_who_takes_gzip(accepted: str, is_gzip: bool) -> None:
    assert accepts_gzip({"Accept-Encoding": accepted}) is is_gzip


def test_a_refusal_is_not_kept_by_caches() -> None:
    assert refuse(404).headers["Cache-Control"] == "no-store"
    assert refuse(405).headers["Allow"] == "GET, HEAD"


@given(
    st.sampled_from(["Range", "If-Range", "If-None-Match", "If-Modified-Since", "If-Match"]),
    st.text(max_size=40),
    st.text(max_size=40),
)
def test_whatever_is_sent_the_bytes_are_of_the_file(name: str, value: str, range_: str) -> None:
    told = answer("GET", {"Range": f"bytes={range_}", name: value}, IMAGE)
    assert 0 <= told.first <= told.first + told.length <= 1000

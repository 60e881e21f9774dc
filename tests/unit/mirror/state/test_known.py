"""``.products-STREAM.state``: it comes back, or is not believed."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from xxhash import xxh3_128_digest

from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.simplestreams import pack_state
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import known
from fastindex.mirror.state.known import KnownProduct, KnownStream
from tests.support.trees import write_tree

CONTEXT, PUBLISHED = b"c" * 16, b"p" * 16
FINDING = Finding(Code.UNREADABLE, "images/a", "wrong", "fix it", versions_left_out=1)
PRODUCT = KnownProduct(
    path="images/debian/12/amd64/default",
    listing=b"l" * 16,
    inputs=b"i" * 16,
    versions=2,
    files=5,
    is_present=True,
    claims=None,
    aliases=("debian/12", "é"),
    findings=(FINDING,),
)
EMPTY = KnownProduct("images/é/1/amd64/default", b"", b"", 0, 0, False, ("a",), None, ())
STREAM = KnownStream(
    context=CONTEXT,
    published=PUBLISHED,
    products=[PRODUCT, EMPTY],
    settings={"images/.requirements": [FINDING]},
    fingerprints=array("Q", [1, 2, (1 << 64) - 1]).tobytes(),
)
FILE = "streams/.products-images.state"


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    write_tree(tmp_path, {"images": None, "daily": None})
    return Mirror.at(tmp_path, streams=("images", "daily"))


def load(
    mirror: Mirror, context: bytes = CONTEXT, published: bytes = PUBLISHED
) -> dict[str, KnownStream]:
    found = known.load(mirror, context, {"images": published})
    assert found.streams.keys() == found.checksums.keys()
    return found.streams


def test_what_is_known_comes_back(mirror: Mirror, tmp_path: Path) -> None:
    assert load(mirror) == {}
    checksum = known.save(mirror, "images", STREAM)
    assert load(mirror) == {"images": STREAM}
    assert STREAM.list_fingerprints().tolist() == [1, 2, (1 << 64) - 1]
    assert known.load(mirror, CONTEXT, {"images": PUBLISHED}).checksums == {"images": checksum}
    assert len(checksum) == 16
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o644


def test_equal_knowledge_has_an_equal_checksum_and_other_knowledge_another(
    mirror: Mirror,
) -> None:
    checksums = [
        known.save(mirror, "images", one)
        for one in (
            STREAM,
            STREAM,
            replace(STREAM, products=[PRODUCT]),
            replace(STREAM, products=[EMPTY, PRODUCT]),
            replace(STREAM, products=[replace(PRODUCT, aliases=None), EMPTY]),
            replace(STREAM, settings={}),
            replace(STREAM, fingerprints=b""),
        )
    ]
    assert checksums[0] == checksums[1]
    assert len(set(checksums)) == 6


def test_each_stream_is_known_by_itself(mirror: Mirror) -> None:
    daily = replace(STREAM, published=b"d" * 16, products=[EMPTY])
    checksums = {
        "images": known.save(mirror, "images", STREAM),
        "daily": known.save(mirror, "daily", daily),
    }
    found = known.load(mirror, CONTEXT, {"images": PUBLISHED, "daily": b"d" * 16})
    assert found.streams == {"images": STREAM, "daily": daily}
    assert found.checksums == checksums
    assert load(mirror) == {"images": STREAM}  # the product file of the other is gone
    only = known.load(mirror.with_streams(("daily",)), CONTEXT, {"daily": b"d" * 16})
    assert only.streams == {"daily": daily}


def test_of_another_context_or_catalogue_nothing_is_believed(mirror: Mirror) -> None:
    known.save(mirror, "images", STREAM)
    assert load(mirror, context=b"x" * 16) == {}
    assert load(mirror, published=b"x" * 16) == {}
    assert known.load(mirror, CONTEXT, {}).streams == {}


def test_what_was_saved_without_a_catalogue_is_not_believed(mirror: Mirror) -> None:
    known.save(mirror, "images", replace(STREAM, published=b""))
    assert known.load(mirror, CONTEXT, {}).streams == {}


def signed(body: bytes) -> bytes:
    return xxh3_128_digest(body) + body


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda data: data[:-1],
        lambda data: data[:20],
        lambda data: data[:16],
        lambda data: data + b"\0",
        lambda data: bytes(len(data)),
        lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:],
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda _: signed(b""),
        lambda _: signed(b"{}"),
        lambda _: signed(b"\xc0"),  # null
        lambda _: signed(b"\x91" * 100_000),  # nested too deeply
        lambda _: signed(pack_state([CONTEXT, PUBLISHED])),  # of a release with fewer fields
        lambda _: signed(pack_state([CONTEXT, PUBLISHED, [[1, 2]], {}, b""])),
        lambda _: signed(pack_state([CONTEXT, PUBLISHED, [], {"a": [{"code": "none"}]}, b""])),
        lambda _: signed(b"\xa1\xff"),  # not UTF-8
    ],
)
def test_a_torn_or_foreign_file_is_not_believed(
    mirror: Mirror, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    known.save(mirror, "images", STREAM)
    path = tmp_path / FILE
    path.write_bytes(spoil(path.read_bytes()))
    assert load(mirror) == {}
    known.save(mirror, "images", STREAM)
    assert load(mirror) == {"images": STREAM}


@pytest.mark.parametrize("obstacle", ["directory", "dangling", "FIFO"])
def test_what_cannot_be_read_or_written_is_no_error(
    mirror: Mirror, tmp_path: Path, obstacle: str
) -> None:
    path = tmp_path / FILE
    path.parent.mkdir()
    match obstacle:
        case "directory":
            path.mkdir()
        case "dangling":
            path.symlink_to("nowhere")
        case "FIFO":
            os.mkfifo(path)
    assert load(mirror) == {}
    checksum = known.save(mirror, "images", STREAM)
    is_saved = obstacle != "directory"  # anything else is replaced
    assert bool(checksum) is is_saved
    assert load(mirror) == ({"images": STREAM} if is_saved else {})


@pytest.mark.parametrize("field", ["path", "problem", "remedy"])
def test_what_is_not_valid_utf8_cannot_be_saved(field: str) -> None:
    assert known.can_be_saved([FINDING], "a", "é")
    assert known.can_be_saved([])
    assert not known.can_be_saved([FINDING], "\udcff")
    assert not known.can_be_saved([FINDING, replace(FINDING, **{field: "\udcff"})])

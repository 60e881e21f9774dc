"""The pure parts of a check: headers, ages, and what to ask for."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from fastindex.catalogue.published import Mismatch
from fastindex.errors import Code, ExitCode, UsageError
from fastindex.events import Finding
from fastindex.formats.filters import Filters, parse_filters
from fastindex.formats.simplestreams import Item, Product, Version
from fastindex.operations.check.freshness import Dated, date_product, find_behind, find_outdated
from fastindex.operations.check.headers import NO_RANGES, NO_VALIDATOR, Tally, find_cache_fault
from fastindex.operations.check.options import CheckOptions, CheckReport
from fastindex.operations.check.wanted import Image, Wanted, choose_sample, list_files, list_images
from fastindex.remote.answers import Answered

NOW = datetime(2026, 11, 28, tzinfo=UTC).timestamp()
DATE = "Sat, 28 Nov 2026 18:00:00 GMT"
HEX = "0123456789abcdef" * 4


def cached(**headers: str) -> Finding | None:
    return find_cache_fault("streams/v1/index.json", Answered(200, 1, **headers))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"cache_control": "no-cache, max-age=999999"},
        {"cache_control": "no-store"},
        {"cache_control": "public, max-age=3600"},
        {"cache_control": 'max-age="60"', "expires": "Sun, 29 Nov 2036 18:00:00 GMT", "date": DATE},
        {"cache_control": "max-age=junk"},
        {"cache_control": "\x00=;,,=9"},
        {"expires": "0", "date": DATE},
        {"expires": "Sat, 28 Nov 2026 18:05:00 GMT", "date": DATE},
        {"expires": "Sat, 28 Nov 2026 18:05:00 GMT"},
        {"expires": "Sat, 28 Nov 99999999 18:05:00 GMT", "date": DATE},
        {"expires": "Sun, 29 Nov 2026 18:00:00 -0000", "date": DATE},  # not comparable
    ],
)
def test_headers_that_hide_nothing_new(headers: dict[str, str]) -> None:
    assert cached(**headers) is None


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"cache_control": "max-age=3601"}, "for 1.0 hours"),
        ({"cache_control": "MAX-AGE = 86400"}, "for 24.0 hours"),
        ({"cache_control": "max-age=60, s-maxage=7200"}, "for 2.0 hours"),
        ({"cache_control": "max-age=60,immutable"}, "is immutable"),
        ({"expires": "Sun, 29 Nov 2026 18:00:00 GMT", "date": DATE}, "for 24.0 hours"),
    ],
)
def test_headers_that_hide_what_is_new(headers: dict[str, str], said: str) -> None:
    found = cached(**headers)
    assert found is not None
    assert (found.code, found.path) == (Code.CACHED_TOO_LONG, "streams/v1/index.json")
    assert said in found.problem


def test_what_is_to_be_said_of_many_files_is_said_once() -> None:
    tally = Tally()
    assert tally.list_findings() == []
    for path in ("b", "a", "c"):
        tally.add(NO_VALIDATOR, path)
    tally.add(NO_RANGES, "d", 2)
    first, second = tally.list_findings()
    assert (first.path, first.problem) == ("a", NO_VALIDATOR.problem + " (as 2 other files)")
    assert (second.path, second.problem) == ("d", NO_RANGES.problem + " (as 1 other file)")


# Ages


def dated(release: str, *versions: str, stream: str = "images") -> Dated:
    name = ("debian", release, "x86_64", "default")
    return Dated(f"{stream}/debian/{release}/amd64/default", stream, name, versions)


def test_products_whose_newest_version_is_too_old() -> None:
    products = [dated("12", "20240101", "20261127_23:00"), dated("13", "20261120")]
    assert find_outdated(products, math.inf, NOW) == []
    (found,) = find_outdated(products, 86400, NOW)
    assert (found.code, found.path) == (Code.PRODUCT_OLD, products[1].path)
    assert found.problem == "its newest version, 20261120, is 8.0 days old"
    assert len(find_outdated(products, 3599, NOW)) == 2


def behind(ours: list[Dated], theirs: list[Dated], lag_seconds: float = 0) -> list[tuple[str, str]]:
    found = find_behind(ours, theirs, "https://a", lag_seconds, NOW)
    assert {one.code for one in found} <= {Code.MIRROR_BEHIND}
    return [(one.path, one.problem) for one in found]


def test_a_mirror_may_lack_old_versions_only() -> None:
    ours = [dated("12", "20261126_05:24")]
    assert behind(ours, [dated("12", "20240101", "20261126_05:24")]) == []
    assert behind(ours, [dated("12", "20261126_0524")]) == []  # in another style
    assert behind(ours, [dated("12", "20261126_05:24", "20261127", "20261127_12:00")]) == [
        (ours[0].path, "lacks 2 versions that https://a has had for 24.0 hours")
    ]
    assert behind(ours, [dated("12", "20261127")], 86400) == []
    assert behind(ours, [dated("13", "20261118")]) == [
        (dated("13").path, "is missing; https://a has had 20261118 for 10.0 days")
    ]
    assert behind([], []) == []


def test_streams_of_one_product_are_told_apart_where_both_have_them() -> None:
    ours = [dated("12", "20261101"), dated("12", "20261127", stream="daily")]
    theirs = [dated("12", "20261110"), dated("12", "20261127", stream="daily")]
    assert [path for path, _ in behind(ours, theirs)] == ["images/debian/12/amd64/default"]
    assert behind([dated("12", "20261127", stream="mine")], theirs) == []


def product(**fields: Any) -> Product:
    items = {
        "lxd.tar.xz": item("lxd.tar.xz", "m", combined_squashfs_sha256=HEX),
        "squashfs": item("squashfs", "r"),
    }
    versions = {name: Version(items=items) for name in ("20240102", "20240101", "x")}
    settings = {"os": "Ubuntu", "release": "jammy", "arch": "amd64", "versions": versions}
    return Product(**{**settings, **fields})


def item(ftype: str, path: str, **fields: Any) -> Item:
    return Item(ftype=ftype, path=path, size=1, sha256=HEX, **fields)


def test_products_of_other_tools_have_the_same_names() -> None:
    ours = date_product(
        ("images", "ubuntu:jammy:amd64:default", product(variant="default")), Filters()
    )
    key = "com.ubuntu.cloud:server:22.04:amd64"
    theirs = date_product(("com.ubuntu.cloud:released", key, product()), Filters())
    assert ours is not None
    assert theirs is not None
    assert ours.name == theirs.name == ("ubuntu", "jammy", "x86_64", "default")
    assert ours.versions == ("20240101", "20240102")
    assert date_product(("a", key, product(versions={})), Filters()) is None
    assert date_product(("a", key, product()), parse_filters(["os=debian"])) is None


# What to ask for, and what to read


BOTH = Version(
    items={
        "incus.tar.xz": item("incus.tar.xz", "v/m", combined_squashfs_sha256=HEX),
        "lxd.tar.xz": item("lxd.tar.xz", "v/m", combined_squashfs_sha256=HEX),
        "squashfs": item("squashfs", "v/r"),
        "disk-kvm.img": item("disk-kvm.img", "v/d"),  # without a fingerprint
        "delta": item("squashfs.vcdiff", "v/x", delta_base="20240101"),
        "out": item("squashfs", "../r"),
        "top": item("squashfs", "/r"),
        "none": item("squashfs", ""),
    }
)


def test_each_file_is_asked_for_once_and_none_outside() -> None:
    files = list_files("a", BOTH)
    assert [file.path for file in files] == ["v/m", "v/r", "v/d", "v/x"]
    assert {file.label for file in files} == {"a"}


def test_what_is_read_of_a_version() -> None:
    def read(*, every_file: bool) -> list[tuple[str, list[str]]]:
        images = list_images("a", sound, every_file=every_file)
        return [(one.file.path, [file.path for file, _ in one.metadata]) for one in images]

    items = {key: one for key, one in BOTH.items.items() if key not in ("out", "top", "none")}
    sound = Version(items={**items, "lone": item("lxd.tar.xz", "v/l")})
    assert read(every_file=False) == [("v/r", ["v/m"]), ("v/d", [])]
    assert read(every_file=True) == [("v/r", ["v/m"]), ("v/d", []), ("v/x", []), ("v/l", [])]


def test_a_sample_is_any_of_the_images() -> None:
    images = [Image(Wanted("a", str(number), 1, HEX), ()) for number in range(20)]
    assert choose_sample(images, 30, random.Random(1)) == images
    seen: set[str] = set()
    for seed in range(100):
        chosen = choose_sample(iter(images), 3, random.Random(seed))
        assert len({image.file.path for image in chosen}) == 3
        seen |= {image.file.path for image in chosen}
    assert len(seen) == 20


# Options and reports


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sample": -1}, "--sample"),
        ({"sample": 1, "full": True}, "--full"),
        ({"lag_seconds": 1.0}, "--upstream"),
        ({"expiry_seconds": math.nan}, "--expiry"),
        ({"max_age_seconds": -1.0}, "--max-age"),
        ({"url": "https://a/streams/v1/index.json"}, "so https://a$"),
        ({"upstream": "https://b/streams/v1"}, "so https://b$"),
    ],
)
def test_options_that_make_no_sense(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        CheckOptions(**{"url": "https://a", **changes}).check()


def test_the_exit_code() -> None:
    finding = Finding(Code.NO_ALIAS, "a", "b", "c")
    mismatch = Mismatch(Code.BAD_NAME, "a", "", "b")
    assert CheckReport().exit_code is ExitCode.DONE
    assert CheckReport(findings=(finding,)).exit_code is ExitCode.LEFT_OUT
    both = CheckReport(findings=(finding,), mismatches=(mismatch,))
    assert both.exit_code is ExitCode.DAMAGED

"""Catalogues of strangers: what can be used is read, what cannot is named, all is bounded."""

from __future__ import annotations

import json
import re
import tracemalloc
from typing import Any

import pytest

from fastindex.formats import upstream
from fastindex.formats.filters import Filters, parse_filters
from fastindex.formats.upstream import (
    Refusal,
    UpstreamError,
    UpstreamProducts,
    find_path_fault,
    parse_index,
    parse_products,
    require_bounded_index,
    require_bounded_products,
)
from tests.support.upstreams import (
    FINGERPRINT,
    HEX,
    canonical_product,
    flat_product,
    index_json,
    item,
    parse,
    product_json,
)

ENTRY = {
    "datatype": "image-downloads",
    "format": "products:1.0",
    "path": "streams/v1/images.json",
    "products": ["a:b:amd64:default"],
}


def product(**fields: object) -> dict[str, Any]:
    """Return a product with one version of a container."""
    metadata = item("incus.tar.xz", "images/x/incus.tar.xz", combined_squashfs_sha256=FINGERPRINT)
    root = item("squashfs", "images/x/rootfs.squashfs")
    items = {"incus.tar.xz": metadata, "rootfs.squashfs": root}
    plain = {"arch": "amd64", "os": "a", "release": "b", "variant": "default", "aliases": "a/b"}
    return {**plain, "versions": {"20240505": {"items": items}}, **fields}


def read(products: object, *filters: str, **bounds: int) -> UpstreamProducts:
    return parse_products(
        product_json(products), "images", "file", parse_filters(filters), **bounds
    )


def refusals(products: object) -> list[tuple[str, str, str]]:
    found = read(products)
    assert not found.products
    return [(one.key, one.version, one.reason) for one in found.refusals]


NO_CATALOGUE = [
    (b"", "is empty"),
    (bytes(5000), "consists of NUL bytes"),
    (b"\n<!DOCTYPE html><title>404</title>", "is a web page, not JSON"),
    (b'{"format": "index:1.0", "index": {', "is cut off"),
    (b'{"format": "products:1.0", "products": {"a": {', "is cut off"),
    (b"[]", "clients reject it"),
    (b'{"index": 1, "products": 1}', "clients reject it"),
    (b'{"index": {"a": null}, "products": {"a": null}}', "clients reject it"),
    (b'{"index": {"\xff": {}}, "products": {"\xff": {}}}', "clients reject it"),
    (b'{"index": {"a": {"b":' + b"[" * 200_000, "is nested too deeply"),
    (b'{"products": {"a": {"b":' + b"[" * 200_000, "is nested too deeply"),
    (b"\x1f\x8b\x08\0", "clients reject it"),
    (b"\xef\xbb\xbf{}", "clients reject it"),
]


@pytest.mark.parametrize(("data", "problem"), NO_CATALOGUE)
def test_what_is_no_catalogue_is_an_error(data: bytes, problem: str) -> None:
    if b'"products": {' not in data or b'"index"' in data:
        with pytest.raises(UpstreamError, match=re.escape(f"streams/v1/index.json: {problem}")):
            parse_index(data, "streams/v1/index.json")
    if b'"index": {' not in data or b'"products"' in data:
        with pytest.raises(UpstreamError, match=re.escape(f"images.json: {problem}")):
            parse_products(data, "images", "images.json", Filters())


def test_the_index_names_the_product_files_of_images() -> None:
    entries = {
        "images": {**ENTRY, "unknown": {"field": [1]}},
        "com.ubuntu.cloud:released:download": {**ENTRY, "path": "streams/v1/c.json"},
        "com.ubuntu.cloud:released:aws": {**ENTRY, "datatype": "image-ids", "path": "/x"},
        "empty": {**ENTRY, "products": []},
        "null": {**ENTRY, "products": None},
        "newer": {**ENTRY, "format": "products:2.0"},
        "out": {**ENTRY, "path": "../../etc/passwd"},
        "number": {**ENTRY, "path": 1},
        "long": {**ENTRY, "products": ["a" * 1001]},
    }
    index = parse_index(index_json(entries, updated="Sun, 05 May 2024 05:24:00 +0000"), "index")
    assert [(entry.stream, entry.path, entry.keys) for entry in index.entries] == [
        ("images", "streams/v1/images.json", ("a:b:amd64:default",)),
        ("com.ubuntu.cloud:released:download", "streams/v1/c.json", ("a:b:amd64:default",)),
    ]
    assert index.updated == "Sun, 05 May 2024 05:24:00 +0000"
    assert [(one.key, one.reason) for one in index.refusals] == [
        ("newer", "its format is 'products:2.0', not products:1.0"),
        ("out", "its path '../../etc/passwd' has a part that is empty, '.' or '..'"),
        ("number", "clients reject it: Expected `str | null`, got `int` - at `$.path`"),
        ("long", "a name in it is longer than 1,000 characters"),
    ]


def test_the_index_has_its_format() -> None:
    with pytest.raises(UpstreamError, match=r"its format is 'products:1\.0', not index:1\.0"):
        parse_index(product_json({}), "index")
    assert parse_index(index_json(None), "index").entries == ()


def test_the_index_is_bounded() -> None:
    entries = {str(number): ENTRY for number in range(1001)}
    with pytest.raises(UpstreamError, match="more than 1,000 product files, which is the limit"):
        parse_index(index_json(entries), "index")
    del entries["0"]
    assert len(parse_index(index_json(entries), "index").entries) == 1000
    many = {"a": {**ENTRY, "products": ["x"] * 6}, "b": {**ENTRY, "products": ["x"] * 6}}
    with pytest.raises(UpstreamError, match="more than 11 products, which is the limit"):
        parse_index(index_json(many), "index", max_products=11)
    assert len(parse_index(index_json(many), "index", max_products=12).entries) == 2


def test_ten_million_names_are_not_decoded() -> None:
    data = b'{"format":"index:1.0","index":{"a":{"products":[%s""]}}}' % (b'"",' * 10_000_000)
    tracemalloc.start()
    with pytest.raises(UpstreamError, match="more than 200,000 products"):
        parse_index(data, "index")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_millions_of_products_are_counted_before_they_are_kept() -> None:
    data = b'{"products":{%s"":{}}}' % (b'"":{},' * 3_000_000)
    tracemalloc.start()
    with pytest.raises(UpstreamError, match="file: it has more than 200,000 products"):
        parse_products(data, "images", "file", Filters())
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_the_number_of_products_is_bounded() -> None:
    products = {str(number): product() for number in range(3)}
    assert read(products, max_products=3).total == 3
    with pytest.raises(UpstreamError, match="more than 2 products, which is the limit"):
        read(products, max_products=2)


def test_a_product_file_is_one() -> None:
    for field, value in (("format", "index:1.0"), ("datatype", "image-ids")):
        with pytest.raises(UpstreamError, match=f"it says that it is '{value}', not"):
            parse_products(product_json({}, **{field: value}), "images", "file", Filters())
    for data in (b"{}", b'{"products":null}', product_json({}, format=None)):
        assert parse_products(data, "images", "file", Filters()).total == 0


def test_all_fields_are_read() -> None:
    key, wire = canonical_product()
    wire["requirements"] = {"secureboot": "false"}
    wire["lxd_requirements"] = {"nesting": None}
    (found,) = parse({key: wire}, "com.ubuntu.cloud:released:download")
    assert (found.key, found.stream) == (key, "com.ubuntu.cloud:released:download")
    assert (found.os, found.release, found.arch, found.variant) == ("ubuntu", "jammy", "amd64", "")
    assert (found.release_title, found.release_codename) == ("22.04 LTS", "Jammy Jellyfish")
    assert (found.version, found.support_eol, found.supported) == ("22.04", "2027-06-01", True)
    assert found.aliases == ("22.04", "j", "jammy", "lts")
    assert (found.requirements, found.lxd_requirements) == (
        {"secureboot": "false"},
        {"nesting": ""},
    )
    (version,) = found.versions.values()
    assert (version.name, version.label) == ("20240505", "release")
    assert version.wanted == {"container", "vm"}
    items = {one.name: one for one in version.items}
    assert set(items) == {
        *("disk1.img", "disk-kvm.img", "lxd.tar.xz", "root.tar.xz", "squashfs", "squashfs.vcdiff")
    }
    assert items["lxd.tar.xz"].fingerprints == {
        "squashfs": HEX[::-1],
        "root.tar.xz": HEX,
        "disk1.img": FINGERPRINT,
    }
    delta = items["squashfs.vcdiff"]
    assert (delta.ftype, delta.delta_base) == ("squashfs.vcdiff", "20240401")
    assert (delta.size_bytes, delta.sha256) == (5, HEX)


def test_what_is_missing_or_null_is_empty_as_for_clients() -> None:
    wire = product(aliases=None, os=None, variant=None, requirements=None, supported=None)
    wire["versions"]["20240505"]["label"] = None
    wire["versions"]["20240505"]["items"]["null"] = {"ftype": None, "size": None}
    (found,) = parse({"a": wire})
    assert (found.os, found.variant, found.aliases, found.supported) == ("", "", (), False)
    assert len(found.versions["20240505"].items) == 2


def test_an_architecture_that_is_said_twice_is_understood() -> None:
    (found,) = parse({"a": product(arch="x86_64\nx86_64")})
    assert found.arch == "x86_64"
    assert read({"a": product(arch="x86_64\nx86_64")}, "arch=amd64").products


def test_digests_are_lowercase() -> None:
    key, wire = flat_product()
    wire["versions"]["202405050524"]["items"]["incus.tar.xz"]["sha256"] = HEX.upper()
    (found,) = parse({key: wire})
    (metadata, *_) = found.versions["202405050524"].items
    assert metadata.sha256 == HEX
    assert metadata.fingerprints["disk-kvm.img"] == HEX


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"arch": 1}, "clients reject it: Expected `str | null`, got `int` - at `$.arch`"),
        ({"release": 22.04}, "clients reject it: "),
        ({"supported": "yes"}, "clients reject it: "),
        ({"requirements": {"secureboot": False}}, "clients reject it: "),
        ({"versions": []}, "clients reject it: "),
        ({"os": "a" * 1001}, "one of its fields has more than 1,000 characters"),
        ({"requirements": {"a" * 1001: ""}}, "one of its fields has more than 1,000 characters"),
        ({"lxd_requirements": {"": "a" * 1001}}, "one of its fields has more than 1,000"),
        ({"aliases": "a" * 65_537}, "its aliases have more than 65,536 characters"),
        ({"versions": {str(n): {} for n in range(10_001)}}, "it has more than 10,000 versions"),
        ({"x": "a" * (16 << 20)}, "it has more than 16,777,216 bytes"),
    ],
)
def test_a_bad_product_is_left_out(fields: dict[str, object], reason: str) -> None:
    ((key, version, told),) = refusals({"bad": product(**fields)})
    assert (key, version) == ("bad", "")
    assert told.startswith(reason)
    found = read({"bad": product(**fields), "good": product()})
    assert [one.key for one in found.products] == ["good"]
    assert (found.refused, found.total) == (1, 2)


def test_a_long_key_is_left_out() -> None:
    ((key, _, reason),) = refusals({"a" * 1001: product()})
    assert len(key) == 1000
    assert "its key more than 1,000 characters" in reason


def with_item(**fields: object) -> dict[str, Any]:
    wire = product()
    wire["versions"]["20240505"]["items"]["bad"] = {**item("disk1.img", "images/x/d"), **fields}
    return wire


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"size": -1}, "its item 'bad' has a size of -1 bytes; the limit is 1,099,511,627,776"),
        ({"size": (1 << 40) + 1}, "has a size of 1,099,511,627,777 bytes"),
        ({"size": 1 << 70}, "clients reject it"),
        ({"size": "5"}, "clients reject it"),
        ({"sha256": ""}, "has a digest that is not 64 hexadecimal digits: ''"),
        ({"sha256": "g" * 64}, "has a digest that is not 64 hexadecimal digits"),
        ({"sha256": "0" * 65}, "clients reject it"),
        ({"path": "/etc/passwd"}, "has a path that has a part that is empty"),
        ({"path": "images/../../x"}, "has a path that has a part that is empty, '.' or '..'"),
        ({"path": "images//x"}, "has a path that has a part that is empty"),
        ({"path": "images/%2e%2e/x"}, "has a path that contains '%'"),
        ({"path": "images\\x"}, "has a path that contains '\\\\'"),
        ({"path": "images/\x1b[2J"}, "has a path that contains '\\x1b'"),
        ({"path": "é" * 501}, "has a path that has more than 1,000 bytes"),
        ({"delta_base": "a" * 1001}, "has a name or a base of more than 1,000 characters"),
        (
            {"ftype": "lxd.tar.xz", "combined_squashfs_sha256": "0"},
            "has a digest that is not 64 hexadecimal digits: '0'",
        ),
    ],
)
def test_a_bad_version_is_left_out(fields: dict[str, object], reason: str) -> None:
    wire = with_item(**fields)
    ((key, version, told),) = refusals({"a": wire})
    assert (key, version) == ("a", "20240505")
    assert reason in told
    assert told.isprintable()
    wire["versions"]["20240506"] = product()["versions"]["20240505"]
    found = read({"a": wire})
    assert [[*one.versions] for one in found.products] == [["20240506"]]


def test_what_clients_skip_is_no_fault() -> None:
    for fields in ({"ftype": "ova", "sha256": "?", "path": "/x"}, {"path": ""}):
        (found,) = parse({"a": with_item(**fields)})
        assert len(found.versions["20240505"].items) == 2


def test_items_and_names_of_versions_are_bounded() -> None:
    wire = product()
    items = {str(number): item("disk1.img", "x") for number in range(201)}
    wire["versions"] = {"20240505": {"items": items}, "2" * 1001: {}, "20240506": 1}
    assert [(version[:8], reason) for _, version, reason in refusals({"a": wire})] == [
        ("20240505", "it has more than 200 items"),
        ("20240506", "clients reject it: Expected `object`, got `int`"),
        ("22222222", "a version's name has more than 1,000 characters"),
    ]


def test_a_version_without_an_image_is_nothing() -> None:
    wire = product()
    del wire["versions"]["20240505"]["items"]["incus.tar.xz"]
    found = read({"a": wire, "b": product(versions={})})
    assert (found.products, found.refused, found.total) == ((), 0, 2)


def test_types_are_those_of_images_that_clients_see() -> None:
    wire = with_item()  # a disk without a fingerprint
    assert parse({"a": wire})[0].versions["20240505"].wanted == {"container"}
    assert not read({"a": wire}, "type=vm").products
    unified = item("incus_combined.tar.gz", "images/x/u", combined_type="virtual-machine")
    wire["versions"]["20240505"]["items"]["unified"] = unified
    (found,) = read({"a": wire}, "type=vm").products
    assert found.versions["20240505"].wanted == {"vm"}


def test_only_what_filters_accept_is_decoded() -> None:
    versions = {"20240505": product()["versions"]["20240505"], "20240506": {"items": 1}}
    products = {
        "a": product(versions=versions),
        "b": product(os="x", versions=1),
        "c": product(aliases="c"),
    }
    found = read(products, "os=a alias=a/b version=20240505")
    assert [(one.key, [*one.versions]) for one in found.products] == [("a", ["20240505"])]
    assert found.refused == 1  # what cannot be read may be meant


def test_a_directory_of_ours_is_a_name_of_the_distribution() -> None:
    wire = product(os="Debian GNU/Linux", release="12")
    assert read({"debian:12:amd64:default": wire}, "os=debian").products
    assert not read({"debian:12:default:amd64": wire}, "os=debian").products


def test_only_some_refusals_are_kept() -> None:
    found = read({str(number): product(arch=1) for number in range(1100)})
    assert (len(found.refusals), found.refused) == (upstream.MAX_REFUSALS, 1100)
    assert found.refusals[0] == Refusal("0", "", found.refusals[0].reason)


@pytest.mark.parametrize(
    ("path", "is_fit"),
    [
        ("images/debian/12/amd64/default/20240505_05:24/rootfs.squashfs", True),
        ("a", True),
        ("a..b/...", True),
        ("é" * 500, True),
        ("", False),
        (".", False),
        ("a/", False),
        ("a/./b", False),
        ("a\u2028b", False),
        ("a\ud800b", False),
        ("a\x85b", False),
    ],
)
def test_paths_lead_to_files_below(path: str, is_fit: bool) -> None:
    assert (not find_path_fault(path)) is is_fit


def test_json_of_any_form_is_read() -> None:
    data = json.dumps(json.loads(product_json({"a": product()})), indent=2, sort_keys=True)
    assert parse_products(data.encode(), "images", "file", Filters()).total == 1


# Bounds of what is read by other parsers


def test_bounds_let_catalogues_pass_good_or_bad() -> None:
    assert require_bounded_products(product_json({"a": {}, "b": {}}), "file") == 2
    for data in (b"", b"<html>", b"{", b'{"products": []}', b'{"products": {"a": 1}}', b"\xff"):
        assert require_bounded_products(data, "file") == 0
        require_bounded_index(data, "file")


def test_more_products_than_allowed_are_refused() -> None:
    data = product_json({str(number): {} for number in range(11)})
    assert require_bounded_products(data, "file", max_products=11) == 11
    with pytest.raises(UpstreamError, match="file: it has more than 10 products"):
        require_bounded_products(data, "file", max_products=10)
    with pytest.raises(UpstreamError):
        require_bounded_products(b"[" + b"[]," * 20, "file", max_products=10)
    with pytest.raises(UpstreamError):
        require_bounded_index(b'"' * 300_000, "file", max_products=10)


def test_a_large_file_must_be_readable_product_by_product(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream, "MAX_WHOLE_BYTES", 200)
    padding = "x" * 300
    assert require_bounded_products(product_json({"a": {"os": padding}}), "file") == 1
    for data in (
        product_json({"a": {"os": padding}, "b": None}),
        product_json({"a": {"os": padding, "release": None}}),
        product_json({"a": {"os": padding}}).replace(b'"a":', b'"a": {}, "a":'),
        product_json({"a": {"os": padding}})[:-1],
        b'{"products": []}' + b" " * 300,
    ):
        with pytest.raises(UpstreamError):
            require_bounded_products(data, "file")
    monkeypatch.setattr(upstream, "MAX_PRODUCT_BYTES", 300)
    with pytest.raises(UpstreamError, match="a product in it has more than 300 bytes"):
        require_bounded_products(product_json({"a": {"os": padding}}), "file")

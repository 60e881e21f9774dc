"""``metadata.yaml`` in the forms seen in the wild, and the places that they lead to."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.formats.image_metadata import (
    ImageMetadata,
    MetadataError,
    Naming,
    Place,
    choose_place,
    parse_metadata_yaml,
)
from fastindex.formats.names import ProductName, find_forbidden_character, is_version_name
from tests.support.hostile_yaml import BILLION_LAUGHS

DATE = "1714886640"
DEBIAN = ImageMetadata(
    os="debian",
    release="12",
    variant="",
    architecture="amd64",
    serial="20240505_0524",
    creation_date=DATE,
)
DISTROBUILDER = """\
architecture: x86_64
creation_date: 1714886640
expiry_date: 1717478640
properties:
  architecture: amd64
  description: Debian bookworm amd64 (20240505_0524)
  name: debian-bookworm-amd64-default-20240505_0524
  os: debian
  release: bookworm
  serial: "20240505_0524"
  variant: default
templates:
  /etc/hostname:
    when:
    - create
    - copy
    create_only: false
    template: hostname.tpl
    properties: {}
"""
IN_THE_WILD = {
    "distrobuilder": (DISTROBUILDER, "debian/bookworm/amd64/default/20240505_05:24"),
    "nested templates that hold os: keys": (
        "architecture: aarch64\ncreation_date: 1714886640\n"
        "templates:\n  /etc/x:\n    template: x.tpl\n    properties:\n      os: wrong\n"
        "      release: wrong\n      variant: wrong\n"
        "properties:\n  os: alpine\n  release: 3.20\n",
        "alpine/3.20/arm64/default/20240505_05:24",
    ),
    "flow style": (
        "{architecture: x86_64, creation_date: 1714886640, "
        "properties: {os: ubuntu, release: 22.10, variant: cloud}}",
        "ubuntu/22.10/amd64/cloud/20240505_05:24",
    ),
    "JSON": (
        json.dumps(
            {
                "architecture": "armv7l",
                "creation_date": 1714886640,
                "properties": {"os": "debian", "release": "12"},
            }
        ),
        "debian/12/armhf/default/20240505_05:24",
    ),
    "comments": (
        "# made by hand\narchitecture: i686 # old\ncreation_date: 1714886640\n"
        "properties:\n  # os: no\n  os: gentoo # yes\n  release: current\n",
        "gentoo/current/i386/default/20240505_05:24",
    ),
    "quotes": (
        "\"architecture\": 'ppc64le'\ncreation_date: '1714886640'\n"
        'properties:\n  "os": "open\\x73use"\n  release: \'15.6\'\n  variant: ""\n',
        "opensuse/15.6/ppc64el/default/20240505_05:24",
    ),
    "CRLF": (
        DISTROBUILDER.replace("\n", "\r\n"),
        "debian/bookworm/amd64/default/20240505_05:24",
    ),
    "BOM": ("\ufeff" + DISTROBUILDER, "debian/bookworm/amd64/default/20240505_05:24"),
    "no variant": (
        DISTROBUILDER.replace("  variant: default\n", ""),
        "debian/bookworm/amd64/default/20240505_05:24",
    ),
    "integer release": (
        DISTROBUILDER.replace("release: bookworm", "release: 12"),
        "debian/12/amd64/default/20240505_05:24",
    ),
    "a release that looks like a truth value": (
        DISTROBUILDER.replace("release: bookworm", "release: no"),
        "debian/no/amd64/default/20240505_05:24",
    ),
    "a release that looks like a number in octal": (
        DISTROBUILDER.replace("release: bookworm", "release: 010"),
        "debian/010/amd64/default/20240505_05:24",
    ),
    "all at the top level": (
        "architecture: riscv64\ncreation_date: 1714886640\nos: debian\nrelease: sid\n",
        "debian/sid/riscv64/default/20240505_05:24",
    ),
    "properties win over the top level": (
        "architecture: x86_64\ncreation_date: 1714886640\nos: wrong\nrelease: wrong\n"
        "properties: {os: debian, release: 12, architecture: amd64}\n",
        "debian/12/amd64/default/20240505_05:24",
    ),
    "empty properties": (
        "architecture: x86_64\ncreation_date: 1714886640\nos: debian\nrelease: 12\nproperties:\n",
        "debian/12/amd64/default/20240505_05:24",
    ),
    "nulls": (
        "architecture: x86_64\ncreation_date: 1714886640\n"
        "properties: {os: debian, release: 12, variant: ~, architecture: null}\n",
        "debian/12/amd64/default/20240505_05:24",
    ),
    "folded text, tags and documents": (
        "%YAML 1.1\n---\narchitecture: !!str x86_64\ncreation_date: !!int 1714886640\n"
        "properties:\n  description: >\n    os: wrong\n    release: wrong\n"
        "  os: debian\n  release: !!float 12\n...\n---\nos: wrong\n",
        "debian/12/amd64/default/20240505_05:24",
    ),
    "UTF-8": (
        DISTROBUILDER.replace("os: debian", "os: débian"),
        "débian/bookworm/amd64/default/20240505_05:24",
    ),
}


@pytest.mark.parametrize("form", IN_THE_WILD)
def test_forms_seen_in_the_wild(form: str) -> None:
    text, path = IN_THE_WILD[form]
    found = choose_place(parse_metadata_yaml(text.encode()), Naming())
    assert f"{found.product.directory}/{found.version}" == path


@pytest.mark.parametrize(
    "content",
    [b"", b"- os", b"os", b"os: [", b"\x00", BILLION_LAUGHS, b"a: &a x\nb: *a", b"[" * 10_000],
)
def test_what_is_no_metadata_is_refused(content: bytes) -> None:
    with pytest.raises(MetadataError, match=r"its metadata.yaml (cannot be used|is not a mapping)"):
        parse_metadata_yaml(content)


@pytest.mark.parametrize(
    ("naming", "expected"),
    [
        (Naming(), Place(ProductName("debian", "12", "amd64", "default"), "20240505_05:24")),
        (
            Naming(from_serial=True),
            Place(ProductName("debian", "12", "amd64", "default"), "20240505_0524"),
        ),
        (
            Naming(version="20240506", os="d", release="r", arch="aarch64", variant="v"),
            Place(ProductName("d", "r", "arm64", "v"), "20240506"),
        ),
    ],
)
def test_the_operator_can_name_all(naming: Naming, expected: Place) -> None:
    assert choose_place(DEBIAN, naming) == expected


UNFIT = ["../../etc", "..", ".", ".hidden", "a/b", "/", "a,b", "a:b", "a%41", "a\nb", "a\x1bb"]
UNFIT += ["a\x7f", "\udcff", "a.part", "lost+found", "x" * 256, "é" * 128, "\x85"]


@pytest.mark.parametrize("name", UNFIT)
@pytest.mark.parametrize("key", ["os", "release", "variant", "arch"])
def test_what_is_no_single_path_component_is_refused(key: str, name: str) -> None:
    with pytest.raises(MetadataError) as raised:
        choose_place(DEBIAN, msgspec.structs.replace(Naming(), **{key: name}))
    assert f"--{key}" in raised.value.remedy


@pytest.mark.parametrize(
    ("metadata", "option"),
    [
        ({"os": ""}, "--os"),
        ({"release": ""}, "--release"),
        ({"architecture": ""}, "--arch"),
        ({"architecture": "pdp11"}, "--arch"),
        ({"architecture": "AMD64"}, "--arch"),
        ({"creation_date": ""}, "--serial or --version-name"),
        ({"creation_date": "yesterday"}, "--serial or --version-name"),
        ({"creation_date": "99999999999999"}, "--serial or --version-name"),
        ({"creation_date": "-99999999999"}, "--serial or --version-name"),
        ({"creation_date": "1714886640.5"}, "--serial or --version-name"),
    ],
)
def test_what_is_missing_or_unknown_is_named(metadata: dict[str, str], option: str) -> None:
    fields = {name: getattr(DEBIAN, name) for name in DEBIAN.__struct_fields__}
    with pytest.raises(MetadataError) as raised:
        choose_place(ImageMetadata(**{**fields, **metadata}), Naming())
    assert option in raised.value.remedy


@pytest.mark.parametrize("version", ["latest", "2024", "20241301", ".20240505", "20240505/x", "%"])
def test_what_is_no_version_name_is_refused(version: str) -> None:
    with pytest.raises(MetadataError):
        choose_place(DEBIAN, Naming(version=version))


@given(st.text(), st.text(), st.text(), st.text(), st.text())
def test_a_place_is_always_four_components_and_a_version(
    os: str, release: str, variant: str, serial: str, date: str
) -> None:
    metadata = ImageMetadata(os, release, variant, "x86_64", serial, date)
    for naming in (Naming(), Naming(from_serial=True)):
        try:
            found = choose_place(metadata, naming)
        except MetadataError:
            continue
        components = [*found.product.directory.split("/"), found.version]
        assert len(components) == 5
        assert is_version_name(found.version)
        for component in components:
            assert component[0] != "."
            assert component == component.strip()
            assert find_forbidden_character(component) is None

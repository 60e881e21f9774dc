from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.errors import Code, UsageError
from fastindex.formats.filters import (
    MAX_NAME_CHARACTERS,
    Filters,
    ProductNames,
    parse_filter,
    parse_filters,
)

DEBIAN = ProductNames(
    ("debian", "Debian GNU/Linux"), "12", "amd64", "default", ["debian/12", "stable"]
)


def accepts(*texts: str, product: ProductNames = DEBIAN, version: str = "20240505") -> set[str]:
    """Return the types that the filters accept of a product's version, which is labelled."""
    filters = parse_filters(texts)
    candidates = filters.match_version(filters.match_product(product), version, "nightly")
    return set(filters.match_types(candidates, {"container", "vm"}))


@pytest.mark.parametrize(
    ("text", "is_accepted"),
    [
        ("os=debian", True),
        ("os=alpine,DEBIAN", True),
        ("os=alpine", False),
        ("os!=debian", False),
        ("os!=alpine,fedora", True),
        ("os!=alpine,debian", False),
        (r"os~gnu/linux$ os~^debian\sgnu", True),
        ("os~^gnu", False),
        ("os~^DEBIAN", True),
        ("os!~^gnu", True),
        ("os!~gnu", False),
        ("release~^1[0-2]{1,2}$", True),
        ("arch=x86_64", True),
        ("arch=amd64,arm64", True),
        ("arch~^(amd64|arm64)$", True),
        ("arch~^x86_64$", True),
        ("arch=x86_64_v3", False),
        ("arch!=x86_64", False),
        ("variant=default variant!=cloud", True),
        ("alias=stable", True),
        ("alias!=debian/12", False),
        ("alias!~^debian/1[13]", True),
        ("version=20240505", True),
        ("version~^2023", False),
        ("label=nightly version!~_", True),
        ("label!=nightly", False),
        ("os=debian release=11", False),
    ],
)
def test_a_word_accepts_or_not(text: str, is_accepted: bool) -> None:
    assert accepts(text) == ({"container", "vm"} if is_accepted else set())


@pytest.mark.parametrize(
    ("texts", "types"),
    [
        ([], {"container", "vm"}),
        (["type=vm"], {"vm"}),
        (["type=virtual-machine,container"], {"container", "vm"}),
        (["type!=container"], {"vm"}),
        (["type~^v"], {"vm"}),
        (["type!~machine"], {"container"}),
        (["type=vm type=container"], set()),
        (["os=debian type=vm", "os=alpine type=container"], {"vm"}),
        (["os=debian type=vm", "version=20240505 type=container"], {"container", "vm"}),
        (["os=debian type=vm", "version=2023 type=container"], {"vm"}),
    ],
)
def test_one_of_several_must_hold(texts: list[str], types: set[str]) -> None:
    assert accepts(*texts) == types


def test_an_architecture_is_known_by_all_its_names_but_a_part_of_it_is_another() -> None:
    for name in ("arm64", "aarch64", "arm64_generic", "ARM64"):
        product = DEBIAN._replace(arch=name)
        assert accepts("arch=aarch64", product=product)
        assert accepts("arch~^arm64$", product=product)
    assert not accepts("arch=amd64", product=DEBIAN._replace(arch="x86_64_v3"))
    assert accepts("arch=x86_64_v3", product=DEBIAN._replace(arch="x86_64_v3"))


def test_no_variant_is_the_default_one() -> None:
    assert accepts("variant=default", product=DEBIAN._replace(variant=""))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty; write words such as os=debian"),
        (" \n", "is empty"),
        ("debian", "'debian' has no operator; write words such as"),
        ("oss=debian", "'oss' is not a key; did you mean os?; the keys are os, release, arch"),
        ("Variant=x", "did you mean variant?"),
        ("=debian", "'' is not a key; the keys are"),
        ("os==debian", "has two operators; the operators are =, !=, ~ and !~"),
        ("os=~debian", "has two operators"),
        ("os=", "'os=' lacks a value"),
        ("os=debian,,alpine", "lacks a value"),
        ("os!=,", "lacks a value"),
        ("os~", "lacks a value"),
        ("os~(", "'(' is not a regular expression (missing )"),
        ("os~a{99999999999}", "is not a regular expression"),
        ("type=machine", "'machine' is not a type; the types are container and vm"),
        ("os=debian x", "the filter 'os=debian x' is wrong: 'x' has no operator"),
    ],
)
def test_what_is_wrong_is_told(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=re.escape(problem)):
        parse_filter(text)


def test_values_that_nothing_had_are_told_with_the_nearest_name() -> None:
    filters = parse_filters(
        [
            "os=Debain,debian arch=aarch64 alias=stabel version!=20240506 type=vm label~x",
            "release!=99 arch=x86_64 label=nightlies type=container",
        ]
    )
    candidates = filters.match_product(DEBIAN)
    candidates = filters.match_version(candidates, "20240505", "nightly")
    assert filters.match_types(candidates, {"container"}) == set()
    found = [(one.path, one.remedy) for one in filters.find_unused()]
    assert sorted(found) == [
        ("filter alias=stabel", "did you mean stable?"),
        ("filter arch=aarch64", "correct it, or leave it out"),
        ("filter label=nightlies", "did you mean nightly?"),
        ("filter os=Debain", "did you mean debian?"),
        ("filter type=vm", "correct it, or leave it out"),
    ]
    assert {one.code for one in filters.find_unused()} == {Code.UNUSED_FILTER}


def test_only_the_beginning_of_a_long_name_is_looked_at() -> None:
    long = DEBIAN._replace(release="a" * MAX_NAME_CHARACTERS + "b")
    assert accepts("release~a$", product=long)
    assert not accepts("release~b", product=long)


@given(st.text(max_size=40), st.text(max_size=20))
def test_any_text_is_a_filter_or_wrong_usage(text: str, name: str) -> None:
    try:
        filters = parse_filters([text])
    except UsageError:
        return
    product = ProductNames((name,), name, name, name, [name])
    assert Filters().match_product(product)
    filters.match_types(filters.match_version(filters.match_product(product), name, name), {"vm"})
    filters.find_unused()


@given(st.text(max_size=20).filter(lambda text: len(text.split()) == 1 and "," not in text))
def test_a_name_equals_itself(name: str) -> None:
    product = ProductNames((name,), name, name, name, [name])
    if name[0] in "=~" or name != name.strip() or name.split() != [name]:
        return
    for key in ("os", "release", "variant", "alias", "arch"):
        assert accepts(f"{key}={name}", product=product), key
        assert not accepts(f"{key}!={name}", product=product), key

"""What an upstream says of a product becomes settings that say the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fastindex.catalogue.aliases import list_aliases
from fastindex.formats.product_toml import parse_product_toml
from fastindex.formats.settings import Settings
from fastindex.formats.upstream import UpstreamProduct
from fastindex.operations.pull.mapping import Place, find_place
from fastindex.operations.pull.settings import (
    MARK,
    PulledSettings,
    find_pulled_lxd_requirements,
    is_pulled,
    make_settings,
)
from tests.support.upstreams import canonical_product, flat_product, parse

(FLAT,) = parse(dict([flat_product()]))
(UBUNTU,) = parse(dict([canonical_product()]))
OWN = replace(
    FLAT,
    key="debian:12:amd64:default",
    os="debian",
    arch="amd64",
    aliases=("debian/12/default", "debian/12"),
)


def made(product: UpstreamProduct) -> PulledSettings:
    place = find_place(product)
    assert isinstance(place, Place)
    return make_settings(product, place)


def read(made: PulledSettings) -> Settings:
    """Return what our own parser reads; it finds nothing wrong with the file itself."""
    content = made.product_toml or b""
    settings, findings = parse_product_toml(".product.toml", content)
    wrong = [one for one in findings if "no client enforces" not in one.problem]
    assert wrong == []
    return settings


def test_nothing_is_said_where_the_directories_say_it_all() -> None:
    assert made(OWN) == PulledSettings(None, None, ())


def test_all_fields_are_said() -> None:
    found = made(replace(UBUNTU, requirements={"secureboot": "false"}, os="ubuntu"))
    assert read(found) == Settings(
        release_title="22.04 LTS",
        release_codename="Jammy Jellyfish",
        version="22.04",
        support_eol="2027-06-01",
        supported=True,
        label="release",
        aliases=("22.04", "j", "jammy", "lts"),
        requirements={"secureboot": "false"},
    )
    assert found.left_out == ()


def test_a_product_of_another_layout_has_the_default_aliases_besides() -> None:
    assert read(made(FLAT)).aliases == ("mine",)
    assert read(made(FLAT)).replace_aliases is None


@pytest.mark.parametrize(
    ("aliases", "expected", "is_replaced"),
    [
        (("debian/12/default", "debian/12", "a"), ("a",), None),
        (("debian/12",), ("debian/12",), True),
        ((), (), True),
        (("a", "debian/12/default", "debian/12"), ("a", "debian/12/default", "debian/12"), True),
    ],
)
def test_a_product_of_our_layout_has_exactly_its_aliases(
    aliases: tuple[str, ...], expected: tuple[str, ...], is_replaced: bool | None
) -> None:
    settings = read(made(replace(OWN, aliases=aliases)))
    assert (settings.aliases, settings.replace_aliases) == (expected, is_replaced)
    place = find_place(OWN)
    assert isinstance(place, Place)
    assert list_aliases(place.name, settings) == (aliases, 0)


def test_what_lxd_requires_is_a_file_of_its_own_that_is_known_again() -> None:
    found = made(replace(OWN, lxd_requirements={"nesting": "true", "cgroup": "v1"}))
    assert found.lxd_requirements == b'{"cgroup":"v1","nesting":"true"}\n'
    assert found.product_toml is not None
    assert read(found) == Settings()
    assert find_pulled_lxd_requirements(found.product_toml) == found.lxd_requirements
    assert find_pulled_lxd_requirements(found.product_toml.removeprefix(MARK)) is None
    for content in (b"", MARK, MARK + b"\n", MARK + b"\nos = 'x'\n"):
        assert find_pulled_lxd_requirements(content) is None


def test_the_mark_is_the_first_line() -> None:
    content = made(FLAT).product_toml
    assert content is not None
    assert is_pulled(content)
    assert is_pulled(MARK)
    for other in (b"", b"os = 'x'\n" + MARK, MARK + b" ", b" " + MARK, b"# " + MARK):
        assert not is_pulled(other)


@pytest.mark.parametrize(
    ("fields", "left_out"),
    [
        ({"os": "a\x1b[2J"}, "its os"),
        ({"release_title": " x"}, "its release_title"),
        ({"release_codename": "x" * 256}, "its release_codename"),
        ({"version": "a\nb = 1"}, "its version"),
        ({"support_eol": "2027-6-1"}, "its support_eol, which is not a date"),
        ({"support_eol": "2027-02-30"}, "its support_eol, which is not a date"),
        ({"support_eol": "2027-W01-1"}, "its support_eol, which is not a date"),
        ({"aliases": (*OWN.aliases, "{os}")}, "its alias '{os}'"),
        ({"aliases": (*OWN.aliases, "a%b")}, "its alias 'a%b'"),
        ({"aliases": (*OWN.aliases, "x" * 256)}, f"its alias {'x' * 255!r}"),
        ({"requirements": {"a\0": ""}}, "'a\\x00' of its requirements"),
        ({"lxd_requirements": {"a": "\0"}}, "'a' of its lxd_requirements"),
    ],
)
def test_what_cannot_be_said_is_left_out(fields: dict[str, object], left_out: str) -> None:
    assert made(replace(OWN, **fields)) == PulledSettings(None, None, (left_out,))


def test_many_aliases_and_requirements_are_bounded() -> None:
    aliases = tuple(f"a{number}" for number in range(200))
    found = made(replace(OWN, aliases=(*OWN.aliases, *aliases)))
    assert len(read(found).aliases or ()) == 98
    assert len(found.left_out) == 102
    long = tuple(f"{number}" + "x" * 200 for number in range(50))
    found = made(replace(OWN, aliases=(*OWN.aliases, *long)))
    assert len(",".join((*OWN.aliases, *(read(found).aliases or ())))) < 4096
    requirements = {str(number): "x" for number in range(100)}
    found = made(replace(OWN, requirements=requirements, lxd_requirements=requirements))
    assert len(read(found).requirements) == 64
    assert len(json.loads(found.lxd_requirements or b"")) == 64


texts = st.text(max_size=30)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "os": texts,
            "release_title": texts,
            "release_codename": texts,
            "version": texts,
            "support_eol": st.one_of(texts, st.dates().map(str)),
            "supported": st.booleans(),
            "aliases": st.lists(texts, max_size=5).map(tuple),
            "requirements": st.dictionaries(texts, texts, max_size=5),
            "lxd_requirements": st.dictionaries(texts, texts, max_size=5),
        },
    )
)
def test_whatever_is_said_our_parser_reads_it(fields: dict[str, object]) -> None:
    product = replace(OWN, **fields)
    found = made(product)
    settings = read(found)
    left_out = " ".join(found.left_out)
    for key in ("release_codename", "version", "support_eol"):
        said = getattr(product, key)
        assert (getattr(settings, key) or "") == ("" if f"its {key}" in left_out else said)
    assert (settings.supported or False) is product.supported
    assert set(settings.requirements.items()) <= set(product.requirements.items())
    assert set(settings.aliases or ()) <= set(product.aliases)

"""Aliases belong to directories, and are bounded."""

from __future__ import annotations

import pytest

from fastindex.catalogue import aliases as module
from fastindex.catalogue.aliases import Claim, assign_aliases, bound_stream, list_aliases
from fastindex.errors import Code
from fastindex.formats.names import ProductName
from fastindex.formats.settings import Settings

NAME = ProductName("debian", "12", "amd64", "default")


@pytest.mark.parametrize(
    ("name", "settings", "aliases"),
    [
        (NAME, Settings(), ["debian/12/default", "debian/12"]),
        (NAME, Settings(aliases=("x", "x")), ["debian/12/default", "debian/12", "x"]),
        (NAME, Settings(aliases=("debian/12", "x")), ["debian/12/default", "debian/12", "x"]),
        (NAME, Settings(aliases=("x", "y"), replace_aliases=True), ["x", "y"]),
        (NAME, Settings(replace_aliases=True), []),
        (
            NAME,
            Settings(aliases=("{os}-{release}-{variant}-{arch}", "{no}"), replace_aliases=True),
            ["debian-12-default-amd64", "{no}"],
        ),
        (
            ProductName("void", "current", "amd64", "musl"),
            Settings(),
            ["void/current/musl", "void/musl"],
        ),
        (
            ProductName("void", "current", "x86_64_v3", "default"),
            Settings(),
            [
                f"{alias}/x86_64_v3"
                for alias in ("void/current/default", "void/current", "void/default", "void")
            ],
        ),
    ],
)
def test_aliases_are_the_default_ones_and_the_operators(
    name: ProductName, settings: Settings, aliases: list[str]
) -> None:
    assert list_aliases(name, settings) == (tuple(aliases), 0)


@pytest.mark.parametrize(
    ("said", "kept", "left_out"),
    [
        (["x" * 255], 3, 0),
        (["x" * 256], 2, 1),
        (["{os}" * 8 + "x" * 207], 3, 0),  # 255 characters when filled in
        (["{os}" * 8 + "x" * 208], 2, 1),
        ([str(number) for number in range(98)], 100, 0),
        ([str(number) for number in range(200)], 100, 102),
        ([f"{number:0255}" for number in range(20)], 2 + 15, 5),  # 4,096 characters in all
    ],
)
def test_what_exceeds_the_bounds_is_left_out(said: list[str], kept: int, left_out: int) -> None:
    aliases, dropped = list_aliases(NAME, Settings(aliases=tuple(said)))
    assert (len(aliases), dropped) == (kept, left_out)
    assert aliases[:2] == ("debian/12/default", "debian/12")
    assert sum(len(alias) + 1 for alias in aliases) <= module.MAX_PRODUCT_CHARACTERS


def test_a_default_alias_is_bounded_too() -> None:
    name = ProductName("o", "r" * 200, "amd64", "v" * 100)
    assert list_aliases(name, Settings()) == ((), 1)


def claim(path: str, *aliases: str, is_published: bool = True) -> Claim:
    _, os_name, release, arch, variant = path.split("/")
    name = ProductName(os_name, release, arch, variant)
    said, _ = list_aliases(name, Settings(aliases=aliases))
    return Claim(name, path, said, is_published)


DEBIAN = "images/debian/12/amd64/default"


@pytest.mark.parametrize("is_published", [True, False])
@pytest.mark.parametrize("other", ["images", "daily"])
@pytest.mark.parametrize("alias", ["debian/12", "debian/12/default", "debian/12/amd64"])
def test_a_directory_owns_its_aliases(is_published: bool, other: str, alias: str) -> None:
    claims = [claim(f"{other}/evil/1/amd64/default", alias, "mine")]
    claims.append(claim(DEBIAN, is_published=is_published))
    kept, (finding,) = assign_aliases(claims)
    assert kept == [("evil/1/default", "evil/1", "mine"), ("debian/12/default", "debian/12")]
    assert (finding.code, finding.path) == (Code.ALIAS_TAKEN, claims[0].path)
    assert f"{alias!r} belongs to {DEBIAN}" in finding.problem


def test_of_a_directory_without_versions_nothing_is_told() -> None:
    claims = [claim("images/evil/1/amd64/default", "debian/12", is_published=False), claim(DEBIAN)]
    kept, findings = assign_aliases(claims)
    assert (kept[0], findings) == (("evil/1/default", "evil/1"), [])


def test_two_streams_with_the_same_directories_both_keep_their_aliases() -> None:
    claims = [claim(DEBIAN), claim("daily/debian/12/arm64/default")]
    kept, findings = assign_aliases(claims)
    assert kept == [("debian/12/default", "debian/12")] * 2
    assert findings == []


@pytest.mark.parametrize(
    ("micro", "plain", "kept"),
    [
        ((), (), ()),
        (("stable",), ("stable",), ()),
        (("stable",), (), ("stable",)),
        (("stable/amd64",), ("stable",), ()),  # as clients also call it
        (("debian/12",), (), ()),
        (("fast",), ("stable",), ("fast",)),
    ],
)
@pytest.mark.parametrize("is_published", [True, False])
def test_a_micro_architecture_shares_no_alias_with_the_plain_product(
    micro: tuple[str, ...], plain: tuple[str, ...], kept: tuple[str, ...], is_published: bool
) -> None:
    claims = [
        claim("images/debian/12/x86_64_v3/default", *micro),
        claim(DEBIAN, *plain, is_published=is_published),
        claim("images/debian/12/arm64/default", "fast"),  # other machines: no conflict
    ]
    found, findings = assign_aliases(claims)
    own = ("debian/12/default/x86_64_v3", "debian/12/x86_64_v3")
    assert found[0] == (*own, *kept)
    assert len(findings) == len(micro) - len(kept)
    assert found[1] == claims[1].aliases


def test_a_variant_named_like_a_micro_architecture_goes_before_it() -> None:
    claims = [
        claim("images/debian/12/x86_64_v3/default"),
        claim("images/debian/12/amd64/x86_64_v3"),
    ]
    kept, _ = assign_aliases(claims)
    assert kept == [("debian/12/default/x86_64_v3",), ("debian/12/x86_64_v3",)]


def test_a_stream_is_bounded_and_nobody_crowds_out_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STREAM_CHARACTERS", 10_000)
    greedy = [
        (ProductName("aaa", str(number), "amd64", "x"), f"{number:0200}") for number in range(100)
    ]
    claims = [(name, (*name.default_aliases, more)) for name, more in greedy]
    claims.append((NAME, (*NAME.default_aliases, "stable", "bookworm")))
    kept, (finding,) = bound_stream("images", claims)
    assert kept[-1] == claims[-1][1]
    assert kept[:-1] == [tuple(name.default_aliases) for name, _ in greedy]
    assert (finding.code, finding.path) == (Code.LIMIT_EXCEEDED, "images")
    assert finding.problem.startswith("100 aliases left out")


def test_default_aliases_go_last_but_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STREAM_CHARACTERS", 100)
    names = [ProductName("o", f"{number:030}", "amd64", "x") for number in range(10)]
    claims = [(name, (*name.default_aliases, "more")) for name in names]
    claims.append((ProductName("o", "1", "amd64", "x"), ("o/1/x",)))
    kept, (finding,) = bound_stream("images", claims)
    assert sum(len(alias) + 1 for some in kept for alias in some) <= 100
    assert kept[-1] == ("o/1/x",)
    assert "10 aliases left out" in finding.problem


def test_within_the_bounds_nothing_changes() -> None:
    claims = [(NAME, ("debian/12/default", "debian/12", "x"))]
    assert bound_stream("images", claims) == ([claims[0][1]], [])

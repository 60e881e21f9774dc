"""What clients accept but people stumble over."""

from __future__ import annotations

from datetime import date

import pytest
from msgspec.structs import replace

from fastindex.catalogue.lint import Sharer, find_nameless, find_pitfalls, find_shared_aliases
from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.simplestreams import Item, Product
from tests.support.catalogues import container, item, metadata, product, version

TODAY = date(2024, 5, 7)
A, B = "a:1:amd64:default", "b:1:amd64:default"


def pitfalls(products: dict[str, Product]) -> list[tuple[str, str]]:
    return [(finding.path, finding.problem) for finding in find_all(products)]


def find_all(products: dict[str, Product]) -> list[Finding]:
    paths = {key: f"images/{key[0]}" for key in products}
    findings = find_shared_aliases([sharer(products[key], paths[key]) for key in products], [])
    for key, one in products.items():
        findings += find_pitfalls(one, paths[key], TODAY)
    assert not any(finding.versions_left_out or finding.files_left_out for finding in findings)
    return findings


def sharer(one: Product, path: str) -> Sharer:
    return Sharer(path, one.arch, tuple(one.aliases.split(",")))


def find_ambiguous(products: dict[str, Product]) -> list[str]:
    found = find_all(products)
    return [finding.path for finding in found if finding.code == Code.AMBIGUOUS_IMAGE]


@pytest.mark.parametrize(
    ("first", "second", "arch", "told"),
    [
        ("x", "x", "amd64", "shares the alias 'x' with images/a: clients choose one"),
        ("x", "x", "x86_64", "shares the alias 'x' with images/a: clients choose one"),
        (
            "x,yy",
            "yy,x",
            "amd64",
            "shares 2 aliases with images/a, such as 'x': clients choose one",
        ),
        ("x", "x", "arm64", ""),
        ("x", "y", "amd64", ""),
    ],
)
def test_an_alias_of_two_products(first: str, second: str, arch: str, told: str) -> None:
    products = {
        A: product({"20240505": container()}, aliases=first),
        B: product({"20240505": container()}, aliases=second, arch=arch),
    }
    found = pitfalls(products)
    assert [path for path, _ in found] == ["images/b"] * bool(told)
    assert all(problem.startswith(told) for _, problem in found)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("20240505_05:24", "20240506_05:24"), False),
        (("20240505_05:24", "202405060524"), True),
        (("20240505_0524", "20240506_05:24"), True),
        ((), False),
    ],
)
def test_versions_of_mixed_styles(names: tuple[str, ...], told: bool) -> None:
    found = pitfalls({A: product({name: container() for name in names})})
    assert [path for path, _ in found] == ["images/a"] * told
    for _, problem in found:
        assert f"({', '.join(sorted(names))})" in problem


INCUS = metadata("incus.tar.xz", "squashfs")
LXD = metadata("lxd.tar.xz", "squashfs")
SQUASHFS = item("squashfs")
UNIFIED = item("incus_combined.tar.gz")
MACHINE = item("incus_combined.tar.gz", combined_type="virtual-machine")


@pytest.mark.parametrize(
    ("items", "is_ambiguous"),
    [
        ((INCUS, SQUASHFS, UNIFIED), True),
        ((LXD, SQUASHFS, item("lxd_combined.tar.gz")), True),
        ((LXD, SQUASHFS, UNIFIED), False),  # no client sees both
        ((INCUS, SQUASHFS, MACHINE), False),
        ((INCUS, LXD, SQUASHFS, UNIFIED, replace(UNIFIED, ftype="lxd_combined.tar.gz")), True),
        ((INCUS, SQUASHFS), False),
        ((UNIFIED,), False),
    ],
)
def test_a_squashfs_and_a_unified_container(items: tuple[Item, ...], is_ambiguous: bool) -> None:
    found = find_ambiguous({A: product({"20240505": container(), "20240506": version(*items)})})
    assert found == ["images/a/20240506"] * is_ambiguous
    older = find_ambiguous({A: product({"20240505": version(*items), "20240506": container()})})
    assert older == []  # only of the newest version clients take an alias


def test_a_unified_image_of_a_machine_is_told_of_once() -> None:
    machines = {name: version(MACHINE, path=f"p/{name}") for name in ("20240505", "20240506")}
    (finding,) = find_all({A: product({**machines, "20240507": container()})})
    assert finding.code == Code.MACHINE_AS_CONTAINER
    assert finding.path == "p/20240506/incus_combined.tar.gz"
    assert "Incus before 7.0.1 takes it for a container" in finding.problem


@pytest.mark.parametrize(
    ("name", "is_told"),
    [("20240507_23:59", False), ("20240508_05:24", False), ("20240509", True), ("99991231", True)],
)
def test_a_version_dated_after_tomorrow(name: str, is_told: bool) -> None:
    found = find_all({A: product({"20240505": container(), name: container(name)})})
    dated = [finding.path for finding in found if finding.code == Code.DATE_IN_FUTURE]
    assert dated == [f"images/a/{name}"] * is_told


def test_an_alias_is_shared_with_a_product_of_another_stream_too() -> None:
    """The other stream is not looked at: its products have no findings of their own."""
    others = [Sharer("daily/b", "amd64", ("x", "y")), Sharer("daily/c", "amd64", ("x", "y"))]
    mine = [Sharer("images/a", "amd64", ("x", "z")), Sharer("images/b", "amd64", ("z",))]
    first, second = find_shared_aliases(mine, others)
    assert (first.code, first.path) == (Code.ALIAS_SHARED, "images/a")
    assert "'x' with daily/b" in first.problem
    assert (second.code, second.path) == (Code.ALIAS_SHARED, "images/b")
    assert "'z' with images/a" in second.problem


def test_aliases_of_several_products() -> None:
    others = [Sharer("images/a", "amd64", ("x",)), Sharer("images/b", "amd64", ("yy", "zz"))]
    (finding,) = find_shared_aliases([Sharer("images/c", "amd64", ("yy", "x", "zz"))], others)
    told = "shares 3 aliases with 2 products, such as 'x' with images/a: clients choose one"
    assert finding.problem == told


def test_a_product_shares_no_alias_with_itself() -> None:
    assert find_shared_aliases([Sharer("images/a", "amd64", ("x", "x"))], []) == []


def test_a_product_without_an_alias_is_told() -> None:
    (finding,) = find_nameless(
        [Sharer("images/a", "amd64", ("x",)), Sharer("images/b", "amd64", ())]
    )
    assert (finding.code, finding.path) == (Code.NO_ALIAS, "images/b")
    assert finding.problem == "has no alias: clients find its images by fingerprint only"

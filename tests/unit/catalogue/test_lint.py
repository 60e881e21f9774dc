"""What clients accept but people stumble over."""

from __future__ import annotations

import pytest

from fastindex.catalogue.lint import find_pitfalls
from fastindex.formats.simplestreams import Item, Product
from tests.support.catalogues import container, item, metadata, product, product_file, version

A, B = "a:1:amd64:default", "b:1:amd64:default"


def pitfalls(products: dict[str, Product]) -> list[tuple[str, str]]:
    paths = {("images", key): f"images/{key[0]}" for key in products}
    findings = find_pitfalls([product_file(products)], paths)
    assert not any(finding.versions_left_out or finding.files_left_out for finding in findings)
    return [(finding.path, finding.problem) for finding in findings]


@pytest.mark.parametrize(
    ("first", "second", "arch", "told"),
    [
        ("x", "x", "amd64", "shares the alias 'x' with images/a: clients choose one"),
        ("x", "x", "x86_64", "shares the alias 'x' with images/a: clients choose one"),
        ("x,yy", "yy,x", "amd64", "shares the alias 'x' with images/a, and 1 more: clients"),
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
        ((INCUS, SQUASHFS), False),
        ((UNIFIED,), False),
    ],
)
def test_a_squashfs_and_a_unified_container(items: tuple[Item, ...], is_ambiguous: bool) -> None:
    found = pitfalls({A: product({"20240505": container(), "20240506": version(*items)})})
    assert [path for path, _ in found] == ["images/a/20240506"] * is_ambiguous
    older = pitfalls({A: product({"20240505": version(*items), "20240506": container()})})
    assert older == []  # only of the newest version clients take an alias

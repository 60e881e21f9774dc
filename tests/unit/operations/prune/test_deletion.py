"""How much work a deletion is: it grows with the mirror, not with its square."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pytest

import fastindex
from fastindex.catalogue.published import HeldCatalogue
from tests.support.trees import Files, version, write_tree

DAYS = ("20240505_05:24", "20240506_05:24")


class CountedPaths(set[str]):
    """Published paths that count how many of them were looked at one after the other."""

    looked_at = 0

    def __iter__(self) -> Iterator[str]:
        for path in super().__iter__():
            CountedPaths.looked_at += 1
            yield path


def count_operations(root: Path, products: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Prune ``products`` products of a version each; return paths looked at, and resolved."""
    tree: Files = {}
    for number in range(products):
        for day in DAYS:
            tree |= version(f"debian/{number}/amd64/default/{day}")
    mirror = fastindex.Mirror(write_tree(root, tree))
    mirror.build()
    resolve = os.readlink
    resolved: list[str] = []

    read = vars(HeldCatalogue)["paths"].func
    counted = cached_property(lambda held: CountedPaths(read(held) or ()))
    counted.__set_name__(HeldCatalogue, "paths")

    def resolve_counted(path: str) -> str:
        resolved.append(path)
        return resolve(path)

    CountedPaths.looked_at = 0
    with monkeypatch.context() as patch:
        patch.setattr(HeldCatalogue, "paths", counted)
        patch.setattr("fastindex.operations.prune.in_use.os.readlink", resolve_counted)
        report = mirror.prune(keep=1, grace_seconds=0)
    assert len(report.deleted) == products
    assert not any(os.path.lexists(root / path) for path in report.deleted)
    return CountedPaths.looked_at, len(resolved)


def test_published_paths_are_not_scanned_once_per_withdrawal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = count_operations(tmp_path / "few", 8, monkeypatch)
    many = count_operations(tmp_path / "many", 32, monkeypatch)
    for of_few, of_many in zip(few, many, strict=True):
        assert of_few > 0
        assert of_many <= 4 * of_few

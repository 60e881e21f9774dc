"""``.withdrawn.json``: what is no longer published, and since when."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastindex.errors import TreeError
from fastindex.formats.names import FileRole, ProductName
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import withdrawals
from fastindex.mirror.state.withdrawals import Withdrawal, drop_withdrawn, list_withdrawn_versions
from fastindex.mirror.tree import Found, FoundFile, FoundProduct, FoundVersion
from fastindex.system.stamps import Stamp

PATH = "images/debian/12/amd64/default"


def found(**versions: tuple[str, ...]) -> list[Found]:
    """Return a product with versions (``v20240505``) of files."""
    made = [
        FoundVersion(
            name[1:],
            f"{PATH}/{name[1:]}",
            tuple(FoundFile(file, FileRole("root", file), Stamp(1, 1, 1, 1)) for file in files),
        )
        for name, files in versions.items()
    ]
    return [
        (FoundProduct("images", ProductName("debian", "12", "amd64", "default"), PATH, ()), made)
    ]


TREE = found(v20240505=("a", "b"), v20240506=("a", "b"))


@pytest.mark.parametrize(
    ("withdrawn", "expected"),
    [
        ({}, {"20240505": "ab", "20240506": "ab"}),
        ({f"{PATH}/20240505": Withdrawal()}, {"20240506": "ab"}),
        ({f"{PATH}/20240505": Withdrawal(files=("a",))}, {"20240505": "b", "20240506": "ab"}),
        ({f"{PATH}/20240505": Withdrawal(files=("a", "b"))}, {"20240505": "", "20240506": "ab"}),
        ({f"{PATH}/20240505": Withdrawal(files=("x",))}, {"20240505": "ab", "20240506": "ab"}),
        ({f"{PATH}/20240507": Withdrawal()}, {"20240505": "ab", "20240506": "ab"}),
        ({PATH: Withdrawal()}, {"20240505": "ab", "20240506": "ab"}),
        ({f"{PATH}/20240505": Withdrawal(), f"{PATH}/20240506": Withdrawal()}, {}),
    ],
)
def test_what_is_withdrawn_is_dropped_and_nothing_else(
    withdrawn: withdrawals.Withdrawals, expected: dict[str, str]
) -> None:
    ((product, versions),) = drop_withdrawn(TREE, withdrawn)
    assert product is TREE[0][0]
    assert {one.name: "".join(file.name for file in one.files) for one in versions} == expected


def test_only_entire_versions_are_listed() -> None:
    given = {"a": Withdrawal(), "b": Withdrawal(files=("f",)), "c": Withdrawal(unpublished_at=5)}
    assert list_withdrawn_versions(given) == {"a", "c"}


@pytest.mark.parametrize(
    ("unpublished_at", "began"), [(0, 100), (40.5, 40.5), (100, 100), (100.1, 100), (9e9, 100)]
)
def test_the_grace_begins_when_it_was_seen_but_never_in_the_future(
    unpublished_at: float, began: float
) -> None:
    assert Withdrawal(unpublished_at=unpublished_at).grace_began(100) == began


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    mirror = Mirror.at(tmp_path)
    assert withdrawals.load(mirror) == {}
    record = {
        f"{PATH}/20240505": Withdrawal(unpublished_at=1.5, files=("a",), is_asked_for=True),
        f"{PATH}/20240506": Withdrawal(),
    }
    withdrawals.save(mirror, record)
    assert withdrawals.load(mirror) == record
    path = tmp_path / "streams/.withdrawn.json"
    assert f'"{PATH}/20240506":{{}}'.encode() in path.read_bytes()
    path.write_bytes(b"[]")
    with pytest.raises(TreeError, match="remove it to publish everything in the tree"):
        withdrawals.load(mirror)

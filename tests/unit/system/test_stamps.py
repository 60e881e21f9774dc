from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.system.stamps import COARSEST_TICK_NS, Stamp, stamp_of
from tests.support.trees import OLD_NS

NUMBERS = st.integers(0, 2**63 - 1)


def test_a_stamp_has_size_time_and_identity(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    os.utime(path, ns=(1, OLD_NS))
    status = path.stat()
    assert stamp_of(status) == Stamp(5, OLD_NS, status.st_dev, status.st_ino)


def test_links_to_one_file_share_its_stamp_and_a_copy_has_another(tmp_path: Path) -> None:
    for name in ("file", "copy"):
        (tmp_path / name).write_bytes(b"12345")
        os.utime(tmp_path / name, ns=(OLD_NS, OLD_NS))
    (tmp_path / "hard").hardlink_to(tmp_path / "file")
    (tmp_path / "symlink").symlink_to("file")
    file, copy, hard, symlink = (
        stamp_of((tmp_path / name).stat()) for name in ("file", "copy", "hard", "symlink")
    )
    assert file == hard == symlink
    assert file != copy
    assert file.key == copy.key


def test_keys_stay_as_caches_have_them() -> None:
    """A change would make every ``.items.json`` in use worthless."""
    assert Stamp(5, 1_714_886_640_000_000_000, 1, 2).key == "768c901e569dcef3"
    assert Stamp(0, 0, 0, 0).key == "ba119253536a137c"


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_a_key_depends_on_size_and_time_only(size: int, time: int, one: int, two: int) -> None:
    key = Stamp(size, time, one, two).key
    assert key == Stamp(size, time, two, one).key
    assert len(key) == 16
    assert key != Stamp(size + 1, time, one, two).key
    assert key != Stamp(size, time + 1, one, two).key


@pytest.mark.parametrize(
    ("age_ns", "is_trusted"),
    [
        (COARSEST_TICK_NS + 1, True),
        (COARSEST_TICK_NS, True),
        (COARSEST_TICK_NS - 1, False),
        (0, False),
        (-COARSEST_TICK_NS, False),  # from the future
    ],
)
def test_a_young_file_has_no_key(age_ns: int, is_trusted: bool) -> None:
    stamp = Stamp(5, OLD_NS, 1, 2)
    assert stamp.key_if_trusted(OLD_NS + age_ns) == (stamp.key if is_trusted else "")

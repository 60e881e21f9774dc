"""What strangers upload: the rest is published, in bounded time and memory, and it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.faults.hostile import check_build, check_upkeep, new_mirror
from tests.support.faults.hostile_trees import CASES, LIGHT, Case


@pytest.mark.campaign
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_rest_is_published_and_the_culprit_named(tmp_path: Path, case: Case) -> None:
    mirror = new_mirror(tmp_path)
    case.plant(mirror.root / "images" / case.os_name)
    check_build(mirror, [case])
    check_upkeep(mirror)


def test_the_rest_is_published_whatever_lies_beside_it(tmp_path: Path) -> None:
    mirror = new_mirror(tmp_path)
    for case in LIGHT:
        case.plant(mirror.root / "images" / case.os_name)
    check_build(mirror, LIGHT)
    check_upkeep(mirror)
    check_build(mirror, LIGHT)  # with the caches, and what the first run remembers

"""A run with nothing to do looks at each directory and at each file once, by ``strace``."""

from __future__ import annotations

from pathlib import Path

import pytest
from nightly import build
from system_calls import OTHERS, added, count_calls, make_trees

from fastindex.system import listing
from tests.support.command import UNMEASURED
from tests.support.tools import needs

VERSIONS = 200
_FEW = 3


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two indexed mirrors: of 10 products and of 20, each with 10 versions of 4 files."""
    return make_trees(tmp_path_factory.mktemp("trees"), VERSIONS)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_unchanged_tree_costs_one_listing_a_directory_and_one_stat_a_file(
    trees: tuple[Path, Path], jobs: str
) -> None:
    needs("strace", "apt-get install strace")
    if not listing.IS_QUICK:
        pytest.skip("without the extension, Python opens each directory in its own way")
    fewer, more = (count_calls(build(root, "--jobs", jobs), UNMEASURED) for root in trees)
    further = added(*trees, (fewer, more))
    assert (further.directories, further.files) == (10 + VERSIONS // 2, 4 * VERSIONS // 2)
    most = {
        "openat": further.directories,
        "getdents64": 2 * further.directories,  # the second says that it was all
        "close": further.directories,
        "stat": further.files,
    }
    # A few calls at the start are not the same in each run.
    assert {kind: n for kind in most if (n := further.calls[kind]) > most[kind] + _FEW} == {}
    assert further.calls[OTHERS] <= further.directories / 10  # state that is longer

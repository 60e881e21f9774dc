"""Builds of trees that others change, in a short form.

The whole: ``python -m tests.support.faults.changing``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.faults.changing import Campaign

SECONDS = 3


@pytest.mark.slow
def test_no_digest_is_wrong_while_files_change(tmp_path: Path) -> None:
    figures = Campaign(tmp_path / "mirror", seed=1).run(SECONDS)
    assert not figures.wrong, "\n".join(figures.wrong)
    assert figures.published > 50
    assert figures.changes.total() > 20


@pytest.mark.slow
@pytest.mark.root
def test_nor_where_the_file_system_keeps_whole_seconds(coarse: Path) -> None:
    figures = Campaign(coarse / "mirror", seed=1).run(SECONDS)
    assert not figures.wrong, "\n".join(figures.wrong)
    assert figures.published > 50

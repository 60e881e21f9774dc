"""Each kind of finding is told, in all ways, as the reference says: a real command finds each."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from fastindex.errors import Code
from tests.support.builders import Workshop
from tests.support.clients.mirror_server import Certificate
from tests.support.command import Run
from tests.support.documentation import CHECKOUT
from tests.support.findings import SCENARIOS, WITH_METRICS, Place, Told, run

PAGE = CHECKOUT / "docs/reference/findings.md"
EXCUSED = {
    # Only a CPU that computes wrongly would do; a broken engine is tried in tests/unit/hashing.
    (Code.ENGINE_DISAGREES, "build"),
    # Takes a race with the reader, which tests/faults/test_changing.py runs for long.
    (Code.CHANGED, "build"),
    # The report is written before the programs run, as they may read it: test_nightly.py.
    (Code.HOOK_FAILED, "nightly"),
    # Takes a server of S3: test_push.py.
    (Code.STORE_UNGUARDED, "push"),
}
"""What the page has, but no scenario produces."""
COLUMNS = ("Code", "Meaning", "Text", "What to do", "Left out", "Told by")


class Row(Struct, frozen=True):
    """A row of the reference, of one command."""

    meaning: str
    text: str
    remedy: str
    left_out: str
    exit_code: int


def read_rows() -> dict[tuple[str, str], Row]:
    """Return code and command → what the reference says."""
    rows: dict[tuple[str, str], Row] = {}
    titles: list[str] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if cells[0] == COLUMNS[0]:
            titles = cells
            assert set(titles) <= set(COLUMNS)
        elif not cells[0].startswith("---"):
            row = dict(zip(titles, cells, strict=True))
            told = re.findall(r"`(\w+)` (\d+)", row["Told by"])
            assert ", ".join(f"`{command}` {code}" for command, code in told) == row["Told by"]
            for command, exit_code in told:
                key = row["Code"].strip("`"), command
                assert key not in rows
                left_out = row.get("Left out", "–")
                words = (row["Meaning"], row["Text"], row["What to do"], left_out)
                rows[key] = Row(*words, int(exit_code))
    return rows


ROWS = read_rows()


@pytest.fixture
def place(
    tmp_path: Path,
    root: Path,
    fastindex: Run,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    """Return an empty mirror; what takes long to make is made when it is needed."""
    workshop: Callable[[], Workshop] = partial(request.getfixturevalue, "workshop")
    certificate: Callable[[], Certificate] = partial(request.getfixturevalue, "certificate")
    memory: Callable[[], Path] = partial(request.getfixturevalue, "memory")
    return Place(tmp_path, root, fastindex, workshop, certificate, memory, monkeypatch.setenv)


def fits(shown: str, real: str) -> bool:
    """Return whether a text is as it is shown, where … stands for anything."""
    pattern = ".+".join(map(re.escape, shown.split("…")))
    return re.fullmatch(pattern, real, re.DOTALL) is not None


def test_the_reference_has_each_code() -> None:
    assert {code for code, _ in ROWS} == set(Code)
    assert {*ROWS} == {*SCENARIOS} | EXCUSED
    assert not {*SCENARIOS} & EXCUSED
    assert all(row.meaning and row.text and row.remedy for row in ROWS.values())


@pytest.mark.parametrize(("code", "command"), SCENARIOS, ids=str)
def test_a_finding_is_told_as_the_reference_says(place: Place, code: Code, command: str) -> None:
    row = ROWS[code, command]
    case = SCENARIOS[code, command](place)
    told = run(place, command, case)
    assert told.exit_code == told.report["exit_code"] == row.exit_code, told.stderr
    (one,) = (
        one for one in told.list_all() if one["code"] == code and fits(case.path, find_path(one))
    )
    check_text(place, row, told, one)
    check_metrics(code, command, told)


def find_path(one: dict[str, Any]) -> str:
    """Return what a finding or a mismatch is about."""
    path: str = one["path"] if "path" in one else f"{one['version']}/{one['file']}".rstrip("/")
    return path


def check_text(place: Place, row: Row, told: Told, one: dict[str, Any]) -> None:
    """See that a finding or mismatch is printed, in words that the reference has, too."""

    def show(text: str) -> str:
        return text.replace(str(place.root), "/srv/images").replace(str(place.work), "/srv")

    assert fits(row.text, show(one["problem"]))
    if "version" in one:
        version, file, problem = one["version"], one["file"], one["problem"]
        assert f"{version}\n  {file}{': ' * bool(file)}{problem}\n" in told.stdout
        return
    assert fits(row.remedy, show(one["remedy"]))
    assert f"warning: {one['path']}: {one['problem']}; {one['remedy']}\n" in told.stderr
    assert bool(one["versions_left_out"]) == ("version" in row.left_out)
    assert bool(one["files_left_out"]) == ("file" in row.left_out)


def check_metrics(code: Code, command: str, told: Told) -> None:
    """See that what a build told is counted."""
    sample = re.compile(rf'^fastindex_findings\{{.*,code="{code}"\}} (\d+)$', re.MULTILINE)
    counts = [int(count) for count in sample.findall(told.metrics)]
    found = [one for one in told.report["findings"] if one["code"] == code]
    is_counted = command in WITH_METRICS and command != "import"
    assert counts == ([len(found)] if is_counted else [])

"""How a run hashes follows from the options, the engine and the disks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fastindex.events import Finding, Observer
from fastindex.hashing import strategy
from fastindex.hashing.engine import Engine, usable_engine
from fastindex.hashing.options import HashingOptions
from fastindex.hashing.speeds import Speeds
from fastindex.hashing.strategy import Strategy, choose_strategy
from fastindex.hashing.tasks import EngineSetup, FileRef
from fastindex.system.stamps import Stamp

SPEEDS = (1.0, 1.5, 1.8)
MADE = EngineSetup("made", 0, 3)


class Listener(Observer):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.warnings: list[Finding] = []
        self.messages: list[str] = []

    def warn(self, finding: Finding) -> None:
        self.warnings.append(finding)

    def log(self, message: str) -> None:
        self.messages.append(message)


def refs(*devices: int) -> list[FileRef]:
    return [FileRef("/f", Stamp(1, 1, device, number)) for number, device in enumerate(devices)]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what sets the engine that can be used; device 8 rotates; there are 5 CPUs."""
    monkeypatch.setattr(strategy, "is_rotational", lambda device: device == 8)
    monkeypatch.setattr(strategy, "measure_speeds", lambda jobs, most: Speeds(MADE, SPEEDS))
    monkeypatch.setattr(strategy, "count_usable_cpus", lambda: 5)
    hashlib = usable_engine(EngineSetup())

    def use(name: str, lanes: int, problem: str = "") -> None:
        made = Engine(name, hashlib.sha256, hashlib.update, lanes, problem)
        monkeypatch.setattr(strategy, "usable_engine", lambda _: made)

    return use


@pytest.mark.parametrize(
    ("jobs", "lanes", "devices", "expected"),
    [
        (3, 4, [1, 2], Strategy(3, MADE, SPEEDS)),
        (None, 4, [1], Strategy(5, MADE, SPEEDS)),
        (None, 4, [], Strategy(5, EngineSetup("made"))),
        (3, 1, [1], Strategy(3, EngineSetup("made"))),
        (3, 4, [8], Strategy(3, EngineSetup("made"))),
        (3, 4, [1, 8], Strategy(3, EngineSetup("made"))),
    ],
)
def test_files_are_read_side_by_side_on_disks_that_do_not_rotate(
    engine: Callable[..., None],
    jobs: int | None,
    lanes: int,
    devices: list[int],
    expected: Strategy,
) -> None:
    engine("made", lanes)
    listener = Listener()
    options = HashingOptions(jobs=jobs, engine="hashlib")
    assert choose_strategy(options, refs(*devices), listener) == expected
    assert listener.messages == ["SHA-256 by made"]
    assert listener.warnings == []


def test_an_engine_that_computes_wrong_digests_is_told(engine: Callable[..., None]) -> None:
    engine("hashlib", 1, "3 of 9 wrong")
    listener = Listener()
    chosen = choose_strategy(HashingOptions(engine="hashlib"), refs(1), listener)
    assert chosen.engine == EngineSetup("hashlib")
    (warning,) = listener.warnings
    assert "lanes disagrees with hashlib (3 of 9 wrong)" in warning.problem
    assert "--engine hashlib" in warning.remedy
    assert (warning.versions_left_out, warning.files_left_out) == (0, 0)

"""What strangers hand in: the rest is imported, within bounds, and nothing goes elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import COMMAND
from tests.support.faults.hostile_deliveries import DELIVERIES, METADATA, Delivery, image
from tests.support.faults.watched import Watched, watch
from tests.support.trees import published


def check_import(place: Path, deliveries: tuple[Delivery, ...]) -> Watched:
    """Import a good image beside ``deliveries``; raises AssertionError where a promise breaks."""
    root, sources = place / "mirror", place / "sources"
    root.mkdir()
    good = image(sources / "good", METADATA % "good")
    made: list[Path] = []
    for number, delivery in enumerate(deliveries):
        directory = sources / str(number)
        directory.mkdir()
        delivery.make(directory)
        made.append(directory)
    done = watch([COMMAND, "import", "--copy", "--index", "-j2", *made, good, root])
    assert done.code in {0, 3}, done.told
    assert "Traceback" not in done.told, done.told
    assert len(done.told) < 1_000_000
    assert "good:1:amd64:default 20240505_05:24" in published(root)
    unnamed: list[str] = []
    for directory, delivery in zip(made, deliveries, strict=True):
        lines = [line for line in done.told.splitlines() if f"{directory}" in line]
        named = any("warning" in line and delivery.told in line for line in lines)
        if delivery.told and not named:
            unnamed.append(f"{delivery.name}: {lines}")
    assert not unnamed, "\n".join(unnamed)
    assert not done.outside(root, sources)
    assert all(Path(path).is_relative_to(root) for path in done.written)
    return done


@pytest.mark.campaign
@pytest.mark.parametrize("delivery", DELIVERIES, ids=lambda delivery: delivery.name)
def test_the_rest_is_imported(tmp_path: Path, delivery: Delivery) -> None:
    check_import(tmp_path, (delivery,))


@pytest.mark.slow
def test_the_rest_is_imported_whatever_comes_with_it(tmp_path: Path) -> None:
    check_import(tmp_path, DELIVERIES)

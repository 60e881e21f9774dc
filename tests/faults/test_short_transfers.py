"""Each read and write of a file moves a part only, as the kernel may: all comes out the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.builders import Workshop
from tests.support.command import COMMAND
from tests.support.faults.scenarios import SCENARIOS, Place, Scenario, generation, run
from tests.support.tools import needs

READS = "import os, sys; print(len(os.read(os.open(sys.argv[1], os.O_RDONLY), 60_000)))"


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment in which transfers end short."""
    gcc = needs("gcc", "apt-get install gcc libc6-dev")
    directory = tmp_path_factory.mktemp("preloaded")
    library = directory / "short_transfers.so"
    source = Path(__file__).parents[1] / "support/faults/short_transfers.c"
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([gcc, *flags, source, "-ldl", "-o", library], check=True)
    file = directory / "file"
    file.write_bytes(bytes(60_000))
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    read = subprocess.run(
        [sys.executable, "-c", READS, file], env=environment, capture_output=True, check=True
    )
    assert 0 < int(read.stdout) < 60_000
    return environment


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_short_reads_and_writes_change_nothing(
    tmp_path: Path, workshop: Workshop, scenario: Scenario, preloaded: dict[str, str]
) -> None:
    place = Place(tmp_path / "place", scenario, workshop)
    place.start_afresh()
    for command in (
        scenario.command(place.root),
        [str(COMMAND), "-q", str(place.root)],
        [str(COMMAND), "verify", "--sha256", str(place.root)],
    ):
        done = run(*command, environment=preloaded)
        assert done.returncode == 0, done.stderr
    assert generation(place.root) == place.after
    place.finish()


def test_what_a_file_is_shows_in_its_first_bytes_however_they_come(
    tmp_path: Path, workshop: Workshop, preloaded: dict[str, str]
) -> None:
    delivery = workshop.split(tmp_path / "delivery")
    for seed in range(1, 9):
        environment = preloaded | {"SHORT_TRANSFERS_SEED": str(seed)}
        root = tmp_path / f"mirror{seed}"
        root.mkdir()
        done = run(
            str(COMMAND), "import", "--copy", str(delivery), str(root), environment=environment
        )
        assert done.returncode == 0, done.stderr
        names = {path.name for path in root.glob("images/*/*/*/*/*/*")}
        assert {"incus.tar.xz", "rootfs.squashfs"} <= names

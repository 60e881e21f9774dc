"""What all tests share: fixtures, and options for how much of a campaign runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
import pytest

from fastindex.system.disks import find_file_system_type
from tests.support.builders import Workshop
from tests.support.clients.mirror_server import Certificate, make_certificate
from tests.support.command import AsNobody, Run, load_all_modules, run_as_nobody, run_command
from tests.support.file_systems import coarse_file_system

SIZES = {
    "--crowds": "crowds of commands that are started together",
    "--kills": "kills of pulls at random moments",
    "--load-seconds": "seconds for which clients load the mirror",
    "--moments": "moments of each command at which it is killed",
    "--pairs": "random pairs of roots of which deltas are made",
    "--points": "system calls of each scenario at which it is killed, and at which it fails",
    "--pulls": "pulls with random faults of the upstream",
    "--sequences": "random sequences of changes and runs, of each kind",
    "--trees": "random trees, good and hostile",
}
"""Options for the sizes that people vary, and their help; the tests hold the usual sizes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sizes", "how much the tests do")
    for name, words in SIZES.items():
        group.addoption(name, type=int, metavar="N", help=words)


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.register_profile("shared machines", deadline=None)
    hypothesis.settings.load_profile("shared machines")
    os.environ["FASTINDEX_CONFIG"] = "none"  # whoever runs the tests may have a configuration
    # pytest-xdist would begin with the files of many tests and end with those that take longest.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False
    # A shell ignores it for what it starts in the background; what the tests start would too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup does
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers() -> int | None:
    """Return what ``-n auto`` stands for: one more than CPUs, as some tests wait for a clock."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return len(os.sched_getaffinity(0)) + 1


def pytest_runtest_setup(item: pytest.Item) -> None:
    if os.geteuid() != 0 and item.get_closest_marker("root"):
        pytest.skip("needs root's rights")


@pytest.fixture
def coarse(tmp_path: Path) -> Iterator[Path]:
    """Return a file system that keeps whole seconds."""
    with coarse_file_system(tmp_path / "coarse") as path:
        yield path


@pytest.fixture
def memory() -> Iterator[Path]:
    """Return an empty directory on a tmpfs."""
    if find_file_system_type(os.stat("/dev/shm").st_dev) != "tmpfs":
        pytest.skip("/dev/shm is not a tmpfs")
    with TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


@pytest.fixture
def fastindex(tmp_path: Path) -> Run:
    """Return what runs the installed command, in ``tmp_path`` unless told otherwise."""
    return partial(run_command, cwd=tmp_path)


@pytest.fixture
def fastindex_as_nobody() -> AsNobody:
    """Return what builds as a user whom file modes bind."""
    load_all_modules()
    return run_as_nobody


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Return what makes builders' output."""
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Return the certificate that servers show and clients trust."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))

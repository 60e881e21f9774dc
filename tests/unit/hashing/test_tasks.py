"""Values that pass between processes: they come through a pipe as they were."""

from __future__ import annotations

from multiprocessing import Pipe

import pytest

from fastindex.errors import Code
from fastindex.hashing.tasks import (
    Batch,
    Digested,
    EngineSetup,
    Failed,
    FileDigest,
    FileRef,
    RootTask,
)
from fastindex.system.stamps import Stamp

STAMPS = [Stamp(5, 1, 2, number) for number in range(3)]
REFS = [FileRef(f"/f\udcff{number}", stamp, "/copy") for number, stamp in enumerate(STAMPS)]
DIGEST = FileDigest("a" * 64, "b" * 64, "c" * 16)
LANES = EngineSetup("lanes", 9)
FAILED = Failed(Code.UNREADABLE, "p", "r", costs_version=True, is_shortage=True)


@pytest.mark.parametrize(
    "value",
    [
        Batch((RootTask(REFS[0], tuple(REFS[1:]), True),), 15, True, False, 4, LANES, 2),
        Digested(
            DIGEST, {STAMPS[1]: FAILED, STAMPS[2]: DIGEST}, {STAMPS[2]: "d" * 64}, 10, 2, "vm"
        ),
        FAILED,
    ],
)
def test_a_value_comes_through_a_pipe_as_it_was(value: object) -> None:
    receiver, sender = Pipe(duplex=False)
    with receiver, sender:
        sender.send(value)
        assert receiver.recv() == value


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_root_goes_to_a_state_of_its_own_and_one_for_each_metadata(count: int) -> None:
    assert RootTask(REFS[0], tuple(REFS[1 : 1 + count])).lanes == 1 + count

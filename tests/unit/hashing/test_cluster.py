"""What this side of a cluster makes of what workers say; no worker is needed for that."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import asdict, replace

from fastindex.errors import Code
from fastindex.formats.clusters import (
    DigestMessage,
    FailureMessage,
    Introduction,
    OutcomeMessage,
    RootFailureMessage,
    SightMessage,
    decode_answer,
    decode_introduction,
    decode_parcel,
)
from fastindex.formats.errors import FormatError
from fastindex.formats.names import FileRole
from fastindex.hashing import cluster_worker
from fastindex.hashing.cluster_answers import (
    OnlyThereError,
    check_failures,
    find_difference,
    has_failure,
    make_parcel,
    read_outcomes,
)
from fastindex.hashing.cluster_connection import explain_greeting
from fastindex.hashing.digest import digest_batch
from fastindex.hashing.tasks import Batch, Digested, Failed, FileDigest, FileRef, RootTask
from fastindex.system.stamps import Stamp, stamp_of

ROLE = FileRole("root", "squashfs")
METADATA = FileRef("/m", Stamp(10, 20, 3, 40), roles=(FileRole("metadata", "incus.tar.xz"),))
ROOT = FileRef("/r\udcff", Stamp(11, 21, 3, 41), roles=(ROLE,), other_paths=("/s",))
BATCH = Batch((RootTask(ROOT, (METADATA,)), RootTask(METADATA)), 31, wants_blake3=True)
LATER_NS = 10_000_000_000
DIGEST = DigestMessage(b"\1" * 32, b"\2" * 32, is_checked=True, head=b"")
FAILURE = FailureMessage(Code.UNREADABLE, "p", "r", True, False, b"head")
ROOT_FAILURE = RootFailureMessage(**asdict(FAILURE))
FAILED = Failed(Code.UNREADABLE, "p", "r", True, False, b"head")
OUTCOMES = (
    OutcomeMessage(DIGEST, (DIGEST,), (b"\3" * 32,), 21, 2, ""),
    OutcomeMessage(DIGEST, (), (), 10, 1, "virtual-machine"),
)


def digest_of(ref: FileRef) -> FileDigest:
    return FileDigest("01" * 32, "02" * 32, ref.stamp.key, is_checked=True)


def test_outcomes_have_the_stamps_and_keys_of_this_machine() -> None:
    assert read_outcomes(BATCH, OUTCOMES, LATER_NS) == (
        Digested(
            digest_of(ROOT),
            {METADATA.stamp: digest_of(METADATA)},
            {METADATA.stamp: "03" * 32},
            21,
            2,
        ),
        Digested(digest_of(METADATA), {}, {}, 10, 1, "virtual-machine"),
    )


def test_a_file_that_was_young_here_gets_no_key_whatever_the_worker_says() -> None:
    young = read_outcomes(BATCH, OUTCOMES, 100)
    assert [outcome.root.key for outcome in young if isinstance(outcome, Digested)] == ["", ""]


def test_failures_are_as_here() -> None:
    part = OutcomeMessage(DIGEST, (FAILURE,), (b"",), 21, 2, "")
    failed, all_failed = read_outcomes(
        Batch((BATCH.tasks[0],) * 2, 0, wants_blake3=True),
        (part, replace(ROOT_FAILURE, metadata=(FAILURE,))),
        LATER_NS,
    )
    assert isinstance(failed, Digested)
    assert failed.metadata == {METADATA.stamp: FAILED}
    assert failed.fingerprints == {}
    assert all_failed == replace(FAILED, metadata={METADATA.stamp: FAILED})


def do_nothing(just_read: int) -> None:
    """Take no note of what was read."""


@pytest.fixture
def small(tmp_path: Path) -> tuple[Batch, Path, Path]:
    """Return a batch of one root with two metadata files, the root, and one of them."""
    names = ("root", "one", "two")
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    root, *metadata = (
        FileRef(str(path), stamp_of(path.stat())) for path in map(tmp_path.joinpath, names)
    )
    batch = Batch((RootTask(root, tuple(metadata)),), 10, wants_blake3=True)
    return batch, tmp_path / "root", tmp_path / "one"


def test_a_failure_of_a_root_counts_only_if_it_fails_here(small: tuple[Batch, Path, Path]) -> None:
    batch, root, _ = small
    with pytest.raises(OnlyThereError, match=r"/root p, but here it can be read"):
        check_failures(batch, [FAILED], do_nothing)
    root.unlink()
    (failed,) = check_failures(batch, [FAILED], do_nothing)
    assert isinstance(failed, Failed)
    assert failed.problem == "was removed during the run"


def test_a_failure_of_metadata_counts_only_if_it_fails_here(
    small: tuple[Batch, Path, Path],
) -> None:
    batch, _, one = small
    (good,) = digest_batch(batch, do_nothing)
    assert isinstance(good, Digested)
    assert not has_failure(good)
    first = batch.tasks[0].metadata[0].stamp
    partly = replace(good, metadata=good.metadata | {first: FAILED})
    assert has_failure(partly)
    with pytest.raises(OnlyThereError, match=r"/one p, but here"):
        check_failures(batch, [partly], do_nothing)
    one.unlink()
    (checked,) = check_failures(batch, [partly], do_nothing)
    assert isinstance(checked, Digested)
    failed = checked.metadata[first]
    assert isinstance(failed, Failed)
    assert failed.problem == "was removed during the run"
    assert (checked.root, len(checked.metadata)) == (good.root, 2)


@pytest.mark.parametrize("question", [b"", b"\xff", b"[" * 200_000])
def test_a_worker_answers_whatever_it_is_asked(question: bytes) -> None:
    assert decode_introduction(cluster_worker.introduce(question)).problem
    assert decode_answer(cluster_worker.digest(question)).problem


WHOLE = OUTCOMES[0]


@pytest.mark.parametrize(
    "messages",
    [
        (),
        OUTCOMES * 2,
        (replace(WHOLE, metadata=()), OUTCOMES[1]),
        (replace(WHOLE, fingerprints=()), OUTCOMES[1]),
        (replace(WHOLE, fingerprints=(b"\3" * 31,)), OUTCOMES[1]),
        (replace(WHOLE, root=replace(DIGEST, sha256=b"")), OUTCOMES[1]),
        (replace(WHOLE, root=replace(DIGEST, blake3=b"\1" * 16)), OUTCOMES[1]),
        (replace(ROOT_FAILURE, metadata=(FAILURE, FAILURE)), OUTCOMES[1]),
        (replace(WHOLE, bytes_read=22), OUTCOMES[1]),
        (replace(WHOLE, files_read=3), OUTCOMES[1]),
        (WHOLE, WHOLE),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(
    messages: Sequence[OutcomeMessage | RootFailureMessage],
) -> None:
    with pytest.raises(FormatError):
        read_outcomes(BATCH, messages, LATER_NS)


def test_digests_that_nobody_asked_for_are_refused() -> None:
    quick = replace(BATCH, wants_sha256=False, tasks=BATCH.tasks[1:])
    with pytest.raises(FormatError):
        read_outcomes(quick, OUTCOMES[1:], LATER_NS)
    mine = (replace(OUTCOMES[1], root=replace(DIGEST, sha256=b"")),)
    assert isinstance(read_outcomes(quick, mine, LATER_NS)[0], Digested)


def test_a_parcel_says_all_but_the_device() -> None:
    parcel = decode_parcel(make_parcel(BATCH, "p", "lanes"))
    assert (parcel.process, parcel.engine) == ("p", "lanes")
    root = parcel.tasks[0].root
    assert root.paths == (b"/r\xff", b"/s")
    assert (root.size_bytes, root.mtime_ns, root.inode, root.roles) == (11, 21, 41, (ROLE,))
    assert parcel.tasks[0].metadata == (parcel.tasks[1].root,)


def introduce(path: Path) -> tuple[Introduction, FileRef]:
    ref = FileRef(str(path), stamp_of(path.stat()))
    own = cluster_worker.describe_self()
    return replace(own, sights=(cluster_worker.look_at(str(path)),)), ref


def test_a_worker_that_is_as_this_process_can_be_used(tmp_path: Path) -> None:
    introduction, ref = introduce(tmp_path)
    assert find_difference(introduction, [ref]) == ""


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"version": "0"}, "has fastindex 0, not"),
        ({"python": "2.7"}, "has Python 2.7, not"),
        ({"problem": "OSError: no"}, "fails (OSError: no); see its log"),
        ({"engine_problem": "no lanes"}, "no lanes"),
        ({"sights": ()}, "does not say what it sees"),
        ({"sights": (SightMessage("Permission denied"),)}, ": Permission denied; mount the same"),
        ({"sights": (SightMessage("", 1, 2, 3),)}, ": another file (size 1, here "),
    ],
)
def test_how_a_worker_differs_is_told(
    tmp_path: Path, changed: dict[str, object], told: str
) -> None:
    introduction, ref = introduce(tmp_path)
    assert told in find_difference(replace(introduction, **changed), [ref])


@pytest.mark.parametrize("what", ["inode", "mtime_ns"])
def test_a_copy_with_the_same_name_and_size_is_another_file(tmp_path: Path, what: str) -> None:
    introduction, ref = introduce(tmp_path)
    sight = introduction.sights[0]
    other = replace(sight, **{what: getattr(sight, what) + 1})
    assert "another file (" in find_difference(replace(introduction, sights=(other,)), [ref])


def test_a_file_that_has_changed_here_too_tells_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"1")
    ref = FileRef(str(file), stamp_of(file.stat()))
    file.unlink()
    introduction = replace(
        cluster_worker.describe_self(), sights=(cluster_worker.look_at(str(file)),)
    )
    assert find_difference(introduction, [ref]) == ""


def test_the_library_is_loaded_only_where_it_is_used() -> None:
    code = (
        "import sys, fastindex.hashing.cluster, fastindex.hashing.cluster_worker\n"
        "sys.exit('distributed' in sys.modules or 'dask' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0


ADDRESS = "tcp://10.0.0.1:8786"


@pytest.mark.parametrize(
    ("greeting", "told"),
    [
        (struct.pack("<Q", 205), ""),
        (b"HTTP/1.1", "something else (it says 'HTTP/1.1')"),
        (b"SSH-2.0-", "something else (it says 'SSH-2.0-')"),
        (b"", "if it is a scheduler with TLS, write tls://10.0.0.1:8786"),
        (b"220 \xff\r\n", "something else"),
        (bytes.fromhex("1503010002022f"), "with TLS, write tls://10.0.0.1:8786"),
    ],
)
def test_who_greets_otherwise_than_dask_is_told(greeting: bytes, told: str) -> None:
    explained = explain_greeting(ADDRESS, greeting)
    assert bool(explained) == bool(told)
    assert told in explained
    assert explained.isprintable()

from __future__ import annotations

import hashlib
import os
import random
import resource
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastindex.errors import Code
from fastindex.formats.names import classify
from fastindex.hashing import digest, reader
from fastindex.hashing.engine import ENGINES, why_no_lanes
from fastindex.hashing.tasks import Batch, Digested, EngineSetup, Failed, FileRef, Outcome, RootTask
from fastindex.system.stamps import Stamp, stamp_of
from tests.support.contents import make_squashfs
from tests.support.trees import OLD_NS, write_file


def ref(path: Path) -> FileRef:
    status = path.stat()
    return FileRef(str(path), stamp_of(status))


def run(*tasks: RootTask, wants_blake3: bool = True) -> tuple[tuple[Outcome, ...], int]:
    read: list[int] = []
    outcomes = digest.digest_batch(Batch(tasks, 0, wants_blake3), read.append)
    return outcomes, sum(read)


def open_below(directory: Path) -> list[str]:
    opened = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [path for path in opened if path.startswith(str(directory))]


def one(task: RootTask) -> Outcome:
    (outcome,), _ = run(task)
    return outcome


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    root=st.integers(0, 3 * 4096),
    metadata=st.lists(st.binary(max_size=100), max_size=3),
    buffer_bytes=st.sampled_from([1, 63, 64, 4096]),
)
def test_digests_are_hashlibs(
    tmp_path: Path, root: int, metadata: list[bytes], buffer_bytes: int
) -> None:
    content = os.urandom(root)
    write_file(tmp_path / "root", content)
    for number, data in enumerate(metadata):
        write_file(tmp_path / str(number), data)
    refs = tuple(ref(tmp_path / str(number)) for number in range(len(metadata)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest, "BUFFER_BYTES", buffer_bytes)
        outcome = one(RootTask(ref(tmp_path / "root"), refs))
    assert isinstance(outcome, Digested)
    assert outcome.root.sha256 == hashlib.sha256(content).hexdigest()
    assert outcome.root.blake3 == blake3(content).hexdigest()
    assert outcome.root.key == Stamp(root, OLD_NS, 0, 0).key
    for data, metadata_ref in zip(metadata, refs, strict=True):
        combined = outcome.fingerprints[metadata_ref.stamp]
        assert combined == hashlib.sha256(data + content).hexdigest()


def test_every_byte_is_read_once(tmp_path: Path) -> None:
    for name, size in (("a", 1000), ("b", 2000), ("root", 5000), ("disk", 7000)):
        write_file(tmp_path / name, os.urandom(size))
    metadata = (ref(tmp_path / "a"), ref(tmp_path / "b"))
    tasks = [RootTask(ref(tmp_path / name), metadata) for name in ("root", "disk")]
    outcomes, read = run(*tasks)
    assert read == 15000
    assert [o.bytes_read for o in outcomes if isinstance(o, Digested)] == [8000, 7000]
    assert [o.files_read for o in outcomes if isinstance(o, Digested)] == [3, 1]


def test_blake3_is_left_out_where_not_wanted(tmp_path: Path) -> None:
    write_file(tmp_path / "root", b"x")
    (outcome,), _ = run(RootTask(ref(tmp_path / "root")), wants_blake3=False)
    assert isinstance(outcome, Digested)
    assert outcome.root.blake3 == ""


def test_sha256_is_left_out_where_not_wanted(tmp_path: Path) -> None:
    write_file(tmp_path / "root", b"x")
    batch = Batch((RootTask(ref(tmp_path / "root")),), 0, True, wants_sha256=False)
    (outcome,) = digest.digest_batch(batch, lambda _: None)
    assert isinstance(outcome, Digested)
    assert outcome.root.sha256 == ""
    assert outcome.root.blake3 == blake3(b"x").hexdigest()


def test_a_young_file_gets_no_key(tmp_path: Path) -> None:
    write_file(tmp_path / "root", b"x", time.time_ns())
    outcome = one(RootTask(ref(tmp_path / "root")))
    assert isinstance(outcome, Digested)
    assert outcome.root.key == ""


@pytest.mark.parametrize("change", ["append", "truncate", "touch", "replace", "remove", "fifo"])
@pytest.mark.parametrize("when", ["before", "while"])
def test_a_file_that_changes_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, when: str
) -> None:
    path = tmp_path / "root"
    write_file(path, bytes(100_000))
    task = RootTask(ref(path))

    def spoil() -> None:
        match change:
            case "append":
                with path.open("ab") as file:
                    file.write(b"more")
                os.utime(path, ns=(OLD_NS, OLD_NS))
            case "truncate":
                os.truncate(path, 50_000)
                os.utime(path, ns=(OLD_NS, OLD_NS))
            case "touch":
                os.utime(path, ns=(OLD_NS, OLD_NS + 1))
            case "replace":
                write_file(tmp_path / "new", bytes(100_000))
                os.replace(tmp_path / "new", path)
            case "remove":
                path.unlink()
            case "fifo":
                path.unlink()
                os.mkfifo(path)

    monkeypatch.setattr(digest, "BUFFER_BYTES", 4096)
    calls: list[int] = []

    def advance(count: int) -> None:
        if not calls:
            spoil()
        calls.append(count)

    if when == "before":
        spoil()
        (outcome,) = digest.digest_batch(Batch((task,), 0, True), calls.append)
    else:
        (outcome,) = digest.digest_batch(Batch((task,), 0, True), advance)
    assert isinstance(outcome, Failed)
    assert outcome.problem.startswith("was removed" if change == "remove" else "changed")


def test_a_read_that_fails_is_a_failure_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "bad", bytes(10_000))
    write_file(tmp_path / "good", b"good")
    bad = (tmp_path / "bad").stat().st_ino
    real = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if offset and os.fstat(descriptor).st_ino == bad:
            raise OSError(5, "Input/output error")
        return real(descriptor, buffers, offset, flags)

    monkeypatch.setattr(digest, "BUFFER_BYTES", 4096)
    monkeypatch.setattr(os, "preadv", preadv)
    (failed, fine), _ = run(RootTask(ref(tmp_path / "bad")), RootTask(ref(tmp_path / "good")))
    assert isinstance(failed, Failed)
    assert "Input/output error" in failed.problem
    assert isinstance(fine, Digested)


def test_a_file_that_ends_early_is_a_failure_though_its_stamp_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "root", bytes(10_000))
    real = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        return real(descriptor, buffers, offset, flags) if offset == 0 else 0

    monkeypatch.setattr(digest, "BUFFER_BYTES", 4096)
    monkeypatch.setattr(os, "preadv", preadv)
    assert isinstance(one(RootTask(ref(tmp_path / "root"))), Failed)


def test_a_metadata_file_that_fails_leaves_the_other_its_fingerprint(tmp_path: Path) -> None:
    write_file(tmp_path / "incus", b"incus")
    write_file(tmp_path / "lxd", b"lxd")
    write_file(tmp_path / "root", b"root")
    incus, lxd, root = (ref(tmp_path / name) for name in ("incus", "lxd", "root"))
    (tmp_path / "lxd").unlink()
    outcome = one(RootTask(root, (incus, lxd)))
    assert isinstance(outcome, Digested)
    assert isinstance(outcome.metadata[lxd.stamp], Failed)
    assert outcome.fingerprints == {incus.stamp: hashlib.sha256(b"incusroot").hexdigest()}
    (tmp_path / "incus").unlink()
    assert isinstance(one(RootTask(root, (incus, lxd))), Failed)


def named(path: Path, *names: str) -> FileRef:
    roles = [role for name in names if (role := classify(name)) is not None]
    assert len(roles) == len(names)
    return msgspec.structs.replace(ref(path), roles=tuple(roles))


def test_a_file_that_is_not_what_its_name_says_is_not_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "BUFFER_BYTES", 4096)
    write_file(tmp_path / "root", b"<html>" + bytes(100_000))
    (outcome,), read = run(RootTask(named(tmp_path / "root", "rootfs.squashfs")))
    assert isinstance(outcome, Failed)
    assert (outcome.code, read) == (Code.WRONG_CONTENT, 0)
    assert outcome.head == (b"<html>" + bytes(506))
    assert not open_below(tmp_path)


@pytest.mark.parametrize("buffer_bytes", [1, 100, 511, 512, 513, 4096])
@pytest.mark.parametrize("size", [0, 300, 5000])
def test_a_file_that_fits_one_of_its_names_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffer_bytes: int, size: int
) -> None:
    """However little comes at once, as from network file systems."""
    monkeypatch.setattr(digest, "BUFFER_BYTES", buffer_bytes)
    content = make_squashfs(os.urandom(size))
    write_file(tmp_path / "root", content)
    for names in (("rootfs.squashfs",), ("disk.qcow2", "rootfs.squashfs")):
        outcome = one(RootTask(named(tmp_path / "root", *names)))
        assert isinstance(outcome, Digested)
        assert outcome.root.is_checked
        assert outcome.root.head == (content[:512] if len(names) > 1 else b"")
        assert outcome.root.sha256 == hashlib.sha256(content).hexdigest()
    outcome = one(RootTask(named(tmp_path / "root", "disk.qcow2", "rootfs.tar.xz")))
    assert isinstance(outcome, Failed)
    assert outcome.head == content[:512]
    outcome = one(RootTask(ref(tmp_path / "root")))
    assert isinstance(outcome, Digested)
    assert (outcome.root.is_checked, outcome.root.head) == (False, b"")


def test_of_a_root_whose_metadata_all_fails_the_metadata_is_to_blame(tmp_path: Path) -> None:
    for name in ("incus", "lxd"):
        write_file(tmp_path / name, b"<html>" + name.encode())
    write_file(tmp_path / "root", make_squashfs(bytes(5000)))
    incus = named(tmp_path / "incus", "incus.tar.xz")
    lxd = named(tmp_path / "lxd", "lxd.tar.xz")
    (outcome,), read = run(RootTask(named(tmp_path / "root", "rootfs.squashfs"), (incus, lxd)))
    assert isinstance(outcome, Failed)
    assert (outcome.head, read) == (None, 0)
    assert {stamp: failed.head for stamp, failed in outcome.metadata.items()} == {
        incus.stamp: b"<html>incus",
        lxd.stamp: b"<html>lxd",
    }


@pytest.mark.parametrize("which", ["root", "metadata", "both"])
@pytest.mark.parametrize("others", [1, 3])
def test_a_path_that_fails_decides_nothing_for_another_path(
    tmp_path: Path, which: str, others: int
) -> None:
    """A stranger's link to a file may stop to lead there, or lead over too many others."""
    write_file(tmp_path / "metadata", b"metadata")
    write_file(tmp_path / "root", b"root")
    for number in range(45):
        (tmp_path / f"link{number}").symlink_to(f"link{number + 1}")
    bad = ["gone", "link0", "/proc/self/mem"][:others]

    def by_way_of(name: str) -> FileRef:
        path = str(tmp_path / name)
        if which not in (name, "both"):
            return ref(tmp_path / name)
        paths = (*(str(tmp_path / name) for name in bad[1:]), path, str(tmp_path / "never"))
        good = ref(tmp_path / name)
        return msgspec.structs.replace(good, path=str(tmp_path / bad[0]), other_paths=paths)

    outcome = one(RootTask(by_way_of("root"), (by_way_of("metadata"),)))
    assert isinstance(outcome, Digested)
    assert outcome.root.sha256 == hashlib.sha256(b"root").hexdigest()
    assert [*outcome.fingerprints.values()] == [hashlib.sha256(b"metadataroot").hexdigest()]
    (tmp_path / "root").unlink()
    outcome = one(
        RootTask(msgspec.structs.replace(by_way_of("metadata"), path="/", other_paths=("/gone",)))
    )
    assert isinstance(outcome, Failed)


def test_a_misfit_is_not_read_by_its_other_paths(tmp_path: Path) -> None:
    write_file(tmp_path / "root", b"junk")
    wrong = msgspec.structs.replace(
        named(tmp_path / "root", "disk.qcow2"), other_paths=(str(tmp_path / "gone"),)
    )
    outcome = one(RootTask(wrong))
    assert isinstance(outcome, Failed)
    assert outcome.code is Code.WRONG_CONTENT


def test_a_file_system_without_the_flag_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "root", bytes(10_000))
    real = os.preadv
    flags_seen: list[int] = []

    def preadv(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        flags_seen.append(flags)
        if flags:
            raise OSError(95, "Operation not supported")
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(reader, "_without_flag", set())
    assert isinstance(one(RootTask(ref(tmp_path / "root"))), Digested)
    assert flags_seen == [0x80, 0]


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "auto"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    roots=st.lists(
        st.tuples(st.integers(0, 20_000), st.integers(0, 3), st.booleans()), min_size=1, max_size=6
    ),
    files_at_once=st.integers(1, 4),
    wants_blake3=st.booleans(),
)
def test_files_that_are_read_side_by_side_are_digested_as_alone(
    tmp_path: Path,
    engine: str,
    roots: list[tuple[int, int, bool]],
    files_at_once: int,
    wants_blake3: bool,
) -> None:
    """Each root: its size, its number of metadata files, and whether it is gone by then."""
    if engine == "lanes" and why_no_lanes():
        pytest.skip(why_no_lanes())
    metadata = [os.urandom(size) for size in (1, 64, 700)]
    for number, content in enumerate(metadata):
        write_file(tmp_path / f"metadata{number}", content)
    contents = [os.urandom(size) for size, _, _ in roots]
    tasks: list[RootTask] = []
    for number, (content, (_, count, _)) in enumerate(zip(contents, roots, strict=True)):
        write_file(tmp_path / f"root{number}", content)
        refs = tuple(ref(tmp_path / f"metadata{other}") for other in range(count))
        tasks.append(RootTask(ref(tmp_path / f"root{number}"), refs))
    for number, (_, _, is_gone) in enumerate(roots):
        if is_gone:
            (tmp_path / f"root{number}").unlink()
    read: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest, "BUFFER_BYTES", 4096)
        how = EngineSetup(engine)
        batch = Batch(tuple(tasks), 0, wants_blake3, engine=how, files_at_once=files_at_once)
        outcomes = digest.digest_batch(batch, read.append)
    assert len(outcomes) == len(roots)
    bytes_told = 0
    for outcome, content, (_, count, is_gone) in zip(outcomes, contents, roots, strict=True):
        if is_gone:
            assert isinstance(outcome, Failed)
            assert outcome.problem.startswith("was removed")
            continue
        assert isinstance(outcome, Digested)
        assert outcome.root.sha256 == hashlib.sha256(content).hexdigest()
        assert outcome.root.blake3 == (blake3(content).hexdigest() if wants_blake3 else "")
        assert list(outcome.fingerprints.values()) == [
            hashlib.sha256(metadata[number] + content).hexdigest() for number in range(count)
        ]
        bytes_told += outcome.bytes_read
    if not any(is_gone for _, _, is_gone in roots):
        assert bytes_told == sum(read)


def test_so_many_files_are_read_at_once_as_the_batch_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("metadata", *"abcdef"):
        write_file(tmp_path / name, os.urandom(5000))
    metadata = (ref(tmp_path / "metadata"),)
    most_open: list[int] = []

    def advance(count: int) -> None:
        most_open.append(len(open_below(tmp_path)))

    monkeypatch.setattr(digest, "BUFFER_BYTES", 4096)
    for most in (1, 2, 4):
        most_open.clear()
        tasks = tuple(RootTask(ref(tmp_path / name), metadata) for name in "abcdef")
        digest.digest_batch(Batch(tasks, 0, True, files_at_once=most), advance)
        assert max(most_open) == most


@pytest.mark.parametrize("size_bytes", [10_000, digest.SMALL_BYTES + 1])
def test_a_file_that_grows_after_its_last_byte_was_read_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    path = tmp_path / "root"
    write_file(path, bytes(size_bytes))
    real = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        count = real(descriptor, buffers, offset, flags)
        if count == 0 or size_bytes <= digest.SMALL_BYTES:
            with path.open("ab") as file:
                file.write(b"more")
            os.utime(path, ns=(OLD_NS, OLD_NS))
        return count

    monkeypatch.setattr(os, "preadv", preadv)
    outcome = one(RootTask(ref(path)))
    assert path.stat().st_size == size_bytes + 4
    assert isinstance(outcome, Failed)
    assert outcome.problem.startswith("changed")


def test_a_file_that_settles_while_it_is_read_gets_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mtime_ns = OLD_NS + 1  # no whole second, for which a run would wait
    write_file(tmp_path / "root", b"x", mtime_ns)
    clock = [mtime_ns]
    monkeypatch.setattr(time, "time_ns", lambda: clock[0])
    batch = Batch((RootTask(ref(tmp_path / "root")),), 0, True)
    (young,) = digest.digest_batch(batch, lambda _: clock.append(clock.pop() + 10**12))
    (settled,) = digest.digest_batch(batch, lambda _: None)
    assert isinstance(young, Digested)
    assert young.root.key == ""
    assert isinstance(settled, Digested)
    assert settled.root.key == Stamp(1, mtime_ns, 0, 0).key


@pytest.mark.root
def test_a_write_in_the_same_second_while_a_file_is_read_is_noticed(
    coarse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = coarse / "root"
    monkeypatch.setattr(digest, "BUFFER_BYTES", 4096)
    time.sleep(1 - time.time() % 1)  # all below could be done in the second that begins
    path.write_bytes(bytes(8192))
    read: list[int] = []

    def advance(count: int) -> None:
        if not read:
            path.write_bytes(b"x" * 8192)
        read.append(count)

    (outcome,) = digest.digest_batch(Batch((RootTask(ref(path)),), 0, True), advance)
    assert isinstance(outcome, Failed)
    assert outcome.problem.startswith("changed")


def test_metadata_that_cannot_be_read_is_tried_once_for_all_its_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bad", "good", "root", "disk"):
        write_file(tmp_path / name, name.encode())
    bad, good = ref(tmp_path / "bad"), ref(tmp_path / "good")
    real = os.preadv
    tries: list[int] = []

    def preadv(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if os.fstat(descriptor).st_ino == bad.stamp.inode:
            tries.append(flags)
            raise OSError(5, "Input/output error")
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(reader, "_without_flag", set())
    outcomes, _ = run(*(RootTask(ref(tmp_path / name), (bad, good)) for name in ("root", "disk")))
    for outcome in outcomes:
        assert isinstance(outcome, Digested)
        assert isinstance(outcome.metadata[bad.stamp], Failed)
    assert tries == [0x80]  # nor again without the flag: it is not what failed
    assert not reader._without_flag


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "auto"])
def test_a_file_that_fails_in_the_middle_leaves_those_beside_it_their_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    if engine == "lanes" and why_no_lanes():
        pytest.skip(why_no_lanes())
    contents = [os.urandom(10_000 + number) for number in range(4)]
    for number, content in enumerate(contents):
        write_file(tmp_path / str(number), content)
    refs = [ref(tmp_path / str(number)) for number in range(4)]
    real = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if offset > 4000 and os.fstat(descriptor).st_ino == refs[1].stamp.inode:
            raise OSError(5, "Input/output error")
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(digest, "BUFFER_BYTES", 4096)
    monkeypatch.setattr(os, "preadv", preadv)
    batch = Batch(tuple(map(RootTask, refs)), 0, True, engine=EngineSetup(engine), files_at_once=3)
    outcomes = digest.digest_batch(batch, lambda _: None)
    assert [isinstance(outcome, Failed) for outcome in outcomes] == [False, True, False, False]
    for outcome, content in zip(outcomes, contents, strict=True):
        if isinstance(outcome, Digested):
            assert outcome.root.sha256 == hashlib.sha256(content).hexdigest()
            assert outcome.root.blake3 == blake3(content).hexdigest()


def test_no_file_is_left_open_when_the_reading_is_broken_off(tmp_path: Path) -> None:
    tasks: list[RootTask] = []
    for name in "ab":
        write_file(tmp_path / name, bytes(5000))
        copy_to = str(tmp_path / f"{name}.copy")
        tasks.append(RootTask(msgspec.structs.replace(ref(tmp_path / name), copy_to=copy_to)))
    opened: list[str] = []

    def advance(_: int) -> None:
        opened.extend(open_below(tmp_path))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        digest.digest_batch(Batch(tuple(tasks), 0, True, files_at_once=2), advance)
    assert len(opened) == 4
    assert not open_below(tmp_path)
    assert stopped.tb  # it keeps all alive that the reading held


@pytest.mark.parametrize("error", [BlockingIOError(11, "again"), OSError(95, "not supported")])
def test_from_the_first_piece_on_that_is_not_in_memory_a_thread_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    content = os.urandom(100_000)
    write_file(tmp_path / "root", content)
    real = os.preadv
    threads: dict[int, int] = {}

    def preadv(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags & reader.RWF_NOWAIT and offset >= 40_000:
            raise error
        threads[offset] = threading.get_ident()
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(digest, "BUFFER_BYTES", 4096)
    monkeypatch.setattr(reader, "_without_nowait", set())
    monkeypatch.setattr(reader, "_is_always_in_memory", lambda _: False)
    monkeypatch.setattr(os, "preadv", preadv)
    outcome = one(RootTask(ref(tmp_path / "root")))
    assert isinstance(outcome, Digested)
    assert outcome.root.sha256 == hashlib.sha256(content).hexdigest()
    here = {offset for offset, thread in threads.items() if thread == threading.get_ident()}
    assert here == set(range(0, 40_000, 4096))
    assert bool(reader._without_nowait) == (error.errno == 95)


def test_what_is_always_in_memory_is_read_without_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "root", bytes(100_000))
    real = os.preadv
    flags_seen: set[int] = set()

    def preadv(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        flags_seen.add(flags)
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(digest, "BUFFER_BYTES", 4096)
    monkeypatch.setattr(reader, "_is_always_in_memory", lambda _: True)
    monkeypatch.setattr(os, "preadv", preadv)
    assert isinstance(one(RootTask(ref(tmp_path / "root"))), Digested)
    assert not any(flags & reader.RWF_NOWAIT for flags in flags_seen)


def make_roots(directory: Path, sizes: Sequence[int]) -> tuple[list[bytes], list[RootTask]]:
    contents = [os.urandom(size) for size in sizes]
    for number, content in enumerate(contents):
        write_file(directory / f"root{number}", content)
    return contents, [RootTask(ref(directory / f"root{number}")) for number in range(len(sizes))]


def check_roots(contents: Sequence[bytes], outcomes: Sequence[Outcome]) -> None:
    for content, outcome in zip(contents, outcomes, strict=True):
        assert isinstance(outcome, Digested)
        assert outcome.root.sha256 == hashlib.sha256(content).hexdigest()
        assert outcome.root.blake3 == blake3(content).hexdigest()


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "auto"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 40_000), min_size=1, max_size=20),
    places=st.integers(1, 17),
    seed=st.randoms(use_true_random=False),
)
def test_batches_that_come_while_others_are_read_are_digested_as_alone(
    tmp_path: Path, engine: str, sizes: list[int], places: int, seed: random.Random
) -> None:
    if engine == "lanes" and why_no_lanes():
        pytest.skip(why_no_lanes())
    contents, tasks = make_roots(tmp_path, sizes)
    setup = EngineSetup(engine, 9 if engine == "lanes" else 0)
    batches = [Batch((task,), 0, True, engine=setup) for task in tasks]
    outcomes: dict[int, Outcome] = {}
    read: list[int] = []
    waiting = list(enumerate(batches))
    held = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest, "BUFFER_BYTES", 4096)
        digester = digest.Digester(read.append)
        while waiting or held:
            while waiting and held < places and (not held or seed.random() < 0.7):
                digester.take(*waiting.pop(0))
                held += 1
            for finished in digester.read_on():
                (outcomes[finished.number],) = finished.outcomes
                assert finished.bytes_read == sizes[finished.number]
                assert finished.was_read
                held -= 1
    assert not digester.is_busy
    check_roots(contents, [outcomes[number] for number in range(len(sizes))])
    assert sum(read) == sum(sizes)


def test_a_batch_is_done_before_one_beside_it_that_is_longer(tmp_path: Path) -> None:
    contents, tasks = make_roots(tmp_path, [3_000_000, 500_000])
    digester = digest.Digester(lambda _: None)
    for number, task in enumerate(tasks):
        digester.take(number, Batch((task,), 0, True))
    ended: list[int] = []
    outcomes: dict[int, Outcome] = {}
    while digester.is_busy:
        for finished in digester.read_on():
            ended.append(finished.number)
            (outcomes[finished.number],) = finished.outcomes
    assert ended == [1, 0]
    check_roots(contents, [outcomes[0], outcomes[1]])


@pytest.mark.parametrize("has_metadata", [False, True])
@pytest.mark.parametrize("is_one_batch", [False, True])
def test_with_too_few_descriptors_for_all_files_at_once_they_wait_for_each_other(
    tmp_path: Path, has_metadata: bool, is_one_batch: bool
) -> None:
    contents, tasks = make_roots(tmp_path, [30_000 + 5000 * number for number in range(9)])
    if has_metadata:
        write_file(tmp_path / "metadata", b"metadata")
        metadata = (ref(tmp_path / "metadata"),)
        tasks = [RootTask(task.root, metadata) for task in tasks]
    groups = [tuple(tasks)] if is_one_batch else [(task,) for task in tasks]
    outcomes: dict[int, tuple[Outcome, ...]] = {}
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = os.open("/", os.O_RDONLY)
    os.close(first)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + 4, limits[1]))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(digest, "BUFFER_BYTES", 4096)
            digester = digest.Digester(lambda _: None)
            for number, group in enumerate(groups):
                digester.take(number, Batch(group, 0, True, files_at_once=9))
                outcomes |= {done.number: done.outcomes for done in digester.read_on()}
            while digester.is_busy:
                outcomes |= {done.number: done.outcomes for done in digester.read_on()}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    made = [outcome for number in range(len(groups)) for outcome in outcomes[number]]
    check_roots(contents, made)
    if has_metadata:
        for content, outcome in zip(contents, made, strict=True):
            assert isinstance(outcome, Digested)
            combined = hashlib.sha256(b"metadata" + content).hexdigest()
            assert list(outcome.fingerprints.values()) == [combined]


def test_without_a_descriptor_for_a_file_alone_the_shortage_is_told(tmp_path: Path) -> None:
    _, tasks = make_roots(tmp_path, [30_000] * 2)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = os.open("/", os.O_RDONLY)
    os.close(first)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first, limits[1]))
    try:
        outcomes, _ = run(*tasks)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert [outcome.is_shortage for outcome in outcomes if isinstance(outcome, Failed)] == [
        True
    ] * 2

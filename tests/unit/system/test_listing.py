from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastindex.system import listing
from fastindex.system.listing import Records, Shape

try:
    from fastindex.system import _listing
except ImportError:
    _listing = None  # type: ignore[assignment]

Lister = Callable[..., tuple[list[Records], int, int, int, int, int]]
needs_extension = pytest.mark.skipif(_listing is None, reason="the extension is not built")
LISTERS = [
    pytest.param("extension", marks=needs_extension),
    "python",
]


@pytest.fixture(params=LISTERS)
def lister(request: pytest.FixtureRequest) -> Lister:
    return get_lister(request.param)


def get_lister(name: str) -> Lister:
    return _listing.list_directories if name == "extension" else listing.list_in_python


def list_one(lister: Lister, path: Path, shape: Shape = Shape.LEVEL) -> Records:
    (records,), *_ = lister(-1, [os.fsencode(path)], shape, bytearray(1))
    return records


def names_in(records: Records) -> list[str]:
    return [name for (kind, *_), _, name in listing.unpack(records) if kind != listing.LISTED]


def test_a_version_is_told_with_the_stamps_of_its_files(lister: Lister, tmp_path: Path) -> None:
    for name, content in (("b", b"12"), ("a", b""), (".hidden", b""), (".requirements", b"")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a").chmod(0o600)
    (tmp_path / "d").mkdir()
    records = list_one(lister, tmp_path, Shape.VERSION)
    a, b = (tmp_path / name for name in "ab")
    assert list(listing.unpack(records)) == [
        ((listing.LISTED, 0, 0, 3, 0), (0, 0), ""),
        (
            (listing.FILE, 0, 0, *divmod(a.stat().st_mtime_ns, 10**9)),
            (a.stat().st_dev, a.stat().st_ino),
            "a",
        ),
        (
            (listing.FILE, listing.IS_READABLE, 2, *divmod(b.stat().st_mtime_ns, 10**9)),
            (b.stat().st_dev, b.stat().st_ino),
            "b",
        ),
        ((listing.DIRECTORY, 0, 0, 0, 0), (0, 0), "d"),
    ]
    assert records[3:] == (b"", 0)


def test_settings_are_told_above_the_versions_with_what_nobody_can_set(
    lister: Lister, tmp_path: Path
) -> None:
    (tmp_path / ".product.toml").write_bytes(b"x")
    (tmp_path / "note").write_bytes(b"x")
    records = list_one(lister, tmp_path)
    note = ((listing.FILE, 0, 0, 0, 0), (0, 0), "note")  # its times do not matter there
    assert list(listing.unpack(records))[2:] == [note]
    status = (tmp_path / ".product.toml").stat()
    expected = struct.pack("<qQQ", status.st_ctime_ns, status.st_ino, status.st_dev)
    assert records[3:] == (expected, listing.IS_YOUNG)
    assert listing.find_settings(records) == [".product.toml"]


def test_settings_grow_old(lister: Lister, tmp_path: Path) -> None:
    (tmp_path / ".product.toml").write_bytes(b"x")
    time.sleep(2.1)
    assert list_one(lister, tmp_path)[4] == 0


def test_a_product_is_told_with_its_versions(lister: Lister, tmp_path: Path) -> None:
    for name in ("20240506", "20240505"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(b"x")
    records = list_one(lister, tmp_path, Shape.PRODUCT)
    apart = [
        list_one(lister, tmp_path),
        list_one(lister, tmp_path / "20240505", Shape.VERSION),
        list_one(lister, tmp_path / "20240506", Shape.VERSION),
    ]
    assert records == listing.join_records(apart)
    assert listing.find_directories(records) == [b"20240505", b"20240506"]


def test_odd_things_are_told_by_their_kind(
    lister: Lister, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    for shape in Shape:
        records = list_one(lister, tmp_path, shape)
        kinds = [chr(kind) for (kind, *_), _, _ in listing.unpack(records)]
        assert (kinds, records[4]) == (["D", "p", "l", "s"], listing.IS_ODD)
    assert [chr(kind) for (kind, *_), _, _ in listing.unpack(list_one(lister, Path("/dev")))].count(
        "c"
    ) > 3


@pytest.mark.parametrize(
    ("path", "number"),
    [("none", errno.ENOENT), ("file", errno.ENOTDIR), ("loop", errno.ELOOP)],
)
def test_what_cannot_be_listed_is_told_with_the_error(
    lister: Lister, tmp_path: Path, path: str, number: int
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    records = list_one(lister, tmp_path / path)
    assert records == listing.record_failure(number)
    assert records[4] == listing.IS_ODD


def test_below_a_descriptor_no_link_is_followed(lister: Lister, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        listed = lister(descriptor, [b"real", b"link", b""], Shape.LEVEL, bytearray(1))
    finally:
        os.close(descriptor)
    real, link, top = listed[0]
    assert real[4] == 0
    assert link == listing.record_failure(errno.ENOTDIR)
    assert names_in(top) == ["link", "real"]
    assert names_in(list_one(lister, tmp_path / "link")) == []


@pytest.mark.parametrize("shape", list(Shape))
def test_names_are_sorted_as_bytes_and_need_not_be_text(
    lister: Lister, tmp_path: Path, shape: Shape
) -> None:
    given = [b"\xff", b"\xed\xa0\x80", "ä".encode(), b"b", b"B", b"\n", b"x" * 255]
    for name in given:
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    records = list_one(lister, tmp_path, shape)
    assert names_in(records) == [os.fsdecode(name) for name in sorted(given)]


def test_a_directory_of_many_names_is_listed_whole(lister: Lister, tmp_path: Path) -> None:
    names = [f"{number:0200}" for number in range(3000)]  # more than fits into one call
    for name in names:
        (tmp_path / name).touch()
    listed = lister(-1, [os.fsencode(tmp_path)], Shape.VERSION, bytearray(1))
    assert names_in(listed[0][0]) == names
    assert listed[-2:] == (1, 3000)


def test_a_shortage_is_an_error(lister: Lister, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(tmp_path, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files") as caught:
            list_one(lister, tmp_path, Shape.PRODUCT)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert caught.value.errno == errno.EMFILE
    assert os.fsdecode(caught.value.filename) == str(tmp_path)


def test_no_descriptor_stays_open(lister: Lister, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    before = sorted(os.listdir("/proc/self/fd"))
    list_one(lister, tmp_path, Shape.PRODUCT)
    lister(-1, [os.fsencode(tmp_path)] * 2, Shape.PRODUCT, bytearray(b"\1"))
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_it_stops_when_told_to(lister: Lister, tmp_path: Path) -> None:
    paths = [os.fsencode(tmp_path)] * 3
    assert lister(-1, paths, Shape.LEVEL, bytearray(b"\1"))[0] == []


def test_what_would_take_long_is_left_to_another_call(lister: Lister, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).touch()
    paths = [os.fsencode(tmp_path)] * 20_000
    records, *_ = lister(-1, paths, Shape.VERSION, bytearray(1))
    assert 0 < len(records) < len(paths)


class _ArrivedError(Exception):
    pass


def list_often(lister: Lister, path: Path) -> None:
    for _ in range(100):
        list_one(lister, path, Shape.VERSION)


def test_a_signal_is_handled_while_it_lists(lister: Lister, tmp_path: Path) -> None:
    for number in range(50_000):
        os.mknod(tmp_path / str(number))

    def arrive(number: int, frame: object) -> None:
        raise _ArrivedError

    def list_until_it_arrives() -> None:
        # Again and again: what is raised in a destructor is lost.
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.5)
        list_often(lister, tmp_path)

    before = signal.signal(signal.SIGALRM, arrive)
    try:
        with pytest.raises(_ArrivedError):
            list_until_it_arrives()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@needs_extension
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((-1, [b"a\0b"], 0, bytearray(1)), ValueError),
        ((-1, ["text"], 0, bytearray(1)), TypeError),
        ((-1, 7, 0, bytearray(1)), TypeError),
        ((-1, [b"/"], 3, bytearray(1)), ValueError),
        ((-1, [b"/"], -1, bytearray(1)), ValueError),
        ((-1, [b"/"], 0, b""), ValueError),
        ((-1, [b"/"], 0, "x"), TypeError),
        ((-1, [b"/"], 0), TypeError),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: tuple[object, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        _listing.list_directories(*arguments)  # type: ignore[arg-type]


KINDS = st.sampled_from(["file", "file", "empty", "private", "sparse", "directory", "link", "fifo"])
NAMES = st.one_of(
    st.sampled_from(["a", "b", ".requirements", ".product.toml", ".lxd_requirements", ".x", "~"]),
    st.binary(min_size=1, max_size=255)
    .filter(lambda name: not {0, ord("/")} & {*name} and name not in {b".", b".."})
    .map(os.fsdecode),
)


def make(path: Path, kind: str) -> None:
    match kind:
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to("a")
        case "fifo":
            os.mkfifo(path)
        case _:
            path.write_bytes(b"" if kind == "empty" else b"x")
            path.chmod(0o600 if kind == "private" else 0o644)
            if kind == "sparse":
                os.truncate(path, listing.SPARSE_BYTES)


@needs_extension
@settings(deadline=None)
@given(
    st.dictionaries(NAMES, KINDS, max_size=8),
    st.dictionaries(st.tuples(NAMES, NAMES), KINDS, max_size=8),
)
def test_python_and_the_extension_agree(
    above: dict[str, str], below: dict[tuple[str, str], str]
) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        for name, kind in above.items():
            make(root / name, kind)
        for (directory, name), kind in below.items():
            if not os.path.lexists(root / directory):
                (root / directory).mkdir()
            if (root / directory).is_dir() and not os.path.lexists(root / directory / name):
                make(root / directory / name, kind)
        for shape in Shape:
            arguments = (-1, [os.fsencode(root)], shape, bytearray(1))
            ours, theirs = _listing.list_directories(*arguments), listing.list_in_python(*arguments)
            assert ours[0] == theirs[0]
            assert ours[4:] == theirs[4:]
    finally:
        shutil.rmtree(root)


@needs_extension
def test_the_extension_knows_what_is_sparse(tmp_path: Path) -> None:
    edge = listing.SPARSE_BYTES
    for size in (edge - 1, edge, edge * 3 + 1):
        for blocks in (0, 1, edge // listing.MIN_DENSITY // 4096, 900):
            with (tmp_path / f"{size}.{blocks}").open("wb") as file:
                file.truncate(size)
                if blocks:
                    os.posix_fallocate(file.fileno(), 0, blocks * 4096)
    arguments = (-1, [os.fsencode(tmp_path)], Shape.VERSION, bytearray(1))
    records = _listing.list_directories(*arguments)[0]
    assert records == listing.list_in_python(*arguments)[0]
    marks = {marks for (_, marks, *_), _, _ in listing.unpack(records[0])}
    assert listing.IS_READABLE | listing.IS_SPARSE in marks
    assert listing.IS_READABLE in marks

"""A qcow2 disk that ends early is noticed, and no whole one is taken for one that does."""

from __future__ import annotations

import os
import random
import shlex
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.formats import qcow2
from fastindex.formats.qcow2 import DiskError, check_disk
from tests.support.contents import make_disk, make_qcow2
from tests.support.tools import needs

CLUSTER = 512
DATA = 2560
"""Where the data starts of what ``make_disk`` returns."""
COPIED, COMPRESSED, ALL_ZEROS, EXTENDED = 1 << 63, 1 << 62, 1, 1 << 4

CONVERTED = [
    *(f"cluster_size={size}" for size in ("512", "4k", "64k", "2M")),
    *(f"compat=0.10,cluster_size={size}" for size in ("512", "64k")),
    *(f"extended_l2=on,cluster_size={size}" for size in ("16k", "64k", "2M")),
    *(f"preallocation={how}" for how in ("metadata", "falloc", "full")),
    "extended_l2=on,preallocation=metadata",
    "refcount_bits=1",
    "lazy_refcounts=on",
]
CREATED = [
    "cluster_size=512",
    "cluster_size=64k",
    "cluster_size=2M",
    "compat=0.10",
    "extended_l2=on",
]
COMPRESSED_TOO = [
    *(f"cluster_size={size}" for size in ("512", "64k", "2M")),
    *("compat=0.10", "extended_l2=on", "compression_type=zstd"),
]
CHANGED = {
    "grown": ["qemu-img resize -q {disk} 10G"],
    "grown with metadata": ["qemu-img resize -q --preallocation=metadata {disk} 20M"],
    "shrunk": ["qemu-img resize -q --shrink {disk} 1300k"],
    "wider refcounts": ["qemu-img amend -f qcow2 -o refcount_bits=64 {disk}"],
    "zeros": ["qemu-io -c 'write -z 0 1M' -c 'discard 1M 64k' {disk}"],
    "a snapshot": ["qemu-img snapshot -c s {disk}", "qemu-io -c 'write 1000k 100k' {disk}"],
    "one sector": ["qemu-img resize -q {disk} 64M", "qemu-io -c 'write 63M 512' {disk}"],
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a raw disk of 4 MiB: noise, text, a hole and noise."""
    path = tmp_path_factory.mktemp("raw") / "raw"
    randomness = random.Random(1)
    with path.open("wb") as file:
        file.write(randomness.randbytes(1 << 20) + b"some text\n" * 50_000)
        file.seek(3 << 20)
        file.write(randomness.randbytes(1 << 20))
    return path


def run(command: str, **paths: Path) -> None:
    words = shlex.split(command.format(**paths))
    needs(words[0], "apt-get install qemu-utils")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def is_whole(path: Path) -> bool:
    try:
        check_disk(str(path))
    except DiskError:
        return False
    return True


def cut_anywhere(path: Path, least_bytes: int) -> None:
    """Assert that each cut of at least so many bytes is noticed."""
    size, randomness = path.stat().st_size, random.Random(str(path.name))
    most_bytes = size - (1 << int.from_bytes(path.read_bytes()[20:24], "big"))
    cuts = {least_bytes, *(randomness.randint(least_bytes, most_bytes) for _ in range(20))}
    for cut in sorted(cuts):  # each shortens it further
        os.truncate(path, size - cut)
        assert not is_whole(path), cut


@pytest.mark.parametrize("options", CONVERTED)
def test_what_qemu_img_writes_is_whole_until_it_is_cut_off(
    tmp_path: Path, raw: Path, options: str
) -> None:
    disk = tmp_path / "disk"
    run(f"qemu-img convert -f raw -O qcow2 -o {options} {{raw}} {{disk}}", raw=raw, disk=disk)
    assert is_whole(disk)
    cut_anywhere(disk, 1)


@pytest.mark.parametrize("options", COMPRESSED_TOO)
def test_of_compressed_data_all_but_a_sector_must_be_there(
    tmp_path: Path, raw: Path, options: str
) -> None:
    disk = tmp_path / "disk"
    run(f"qemu-img convert -c -f raw -O qcow2 -o {options} {{raw}} {{disk}}", raw=raw, disk=disk)
    assert is_whole(disk)
    cut_anywhere(disk, 513)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        *((options, size) for options in CREATED for size in ("1", "1000", "10G")),
        *(("cluster_size=64k", size) for size in ("64k", "10T")),
    ],
)
def test_an_empty_disk_is_whole_until_it_is_cut_off(
    tmp_path: Path, options: str, size: str
) -> None:
    disk = tmp_path / "disk"
    run(f"qemu-img create -q -f qcow2 -o {options} {{disk}} {size}", disk=disk)
    assert is_whole(disk)
    cut_anywhere(disk, 8)


@pytest.mark.parametrize("how", ["metadata", "falloc", "full"])
@pytest.mark.parametrize("options", ["cluster_size=512", "cluster_size=64k", "extended_l2=on"])
def test_a_disk_whose_clusters_have_their_places_is_whole_until_it_is_cut_off(
    tmp_path: Path, options: str, how: str
) -> None:
    disk = tmp_path / "disk"
    create = f"qemu-img create -q -f qcow2 -o {options},preallocation={how} {{disk}}"
    run(f"{create} {3 << 20}", disk=disk)
    assert is_whole(disk)
    os.truncate(disk, disk.stat().st_size // 2)
    # Of a cluster without a written subcluster nothing is read.
    assert is_whole(disk) is (options == "extended_l2=on")


@pytest.mark.parametrize("options", ["cluster_size=512", "cluster_size=64k", "extended_l2=on"])
@pytest.mark.parametrize("change", CHANGED)
def test_a_disk_that_was_changed_is_whole(
    tmp_path: Path, raw: Path, options: str, change: str
) -> None:
    disk = tmp_path / "disk"
    convert = f"qemu-img convert -f raw -O qcow2 -o {options} {{raw}} {{disk}}"
    run(convert, raw=raw, disk=disk)
    for command in CHANGED[change]:
        run(command, disk=disk)
    assert is_whole(disk)
    os.truncate(disk, 1 << 20)
    assert not is_whole(disk)


@pytest.mark.parametrize("size", [1, 511, 513, 70_000])
@pytest.mark.parametrize("options", ["cluster_size=512", "cluster_size=64k", "extended_l2=on"])
def test_the_end_of_the_disk_need_not_fill_a_cluster(
    tmp_path: Path, size: int, options: str
) -> None:
    raw, disk = tmp_path / "raw", tmp_path / "disk"
    raw.write_bytes(random.Random(1).randbytes(size))
    for how in ("", "-c"):
        convert = f"qemu-img convert {how} -f raw -O qcow2 -o {options} {{raw}} {{disk}}"
        run(convert, raw=raw, disk=disk)
        assert is_whole(disk)


def of(content: bytes, tmp_path: Path) -> bool:
    path = tmp_path / "made"
    path.write_bytes(content)
    return is_whole(path)


@pytest.mark.parametrize(
    ("entry", "needed_bytes"),
    [
        (COPIED | DATA, 512),
        (DATA, 512),  # as after a snapshot
        (COPIED | (DATA + 512), 1024),
        (COPIED | DATA | ALL_ZEROS, 0),  # nobody reads it
        (ALL_ZEROS, 0),
        (COMPRESSED | DATA, 1),
        (COMPRESSED | (DATA + 511), 512),
        (COMPRESSED | 1 << 61 | DATA, 512),  # in two sectors, of which the last may be missing
        (COMPRESSED | 1 << 61 | (DATA + 511), 512),
    ],
)
def test_a_cluster_must_be_there(tmp_path: Path, entry: int, needed_bytes: int) -> None:
    for place in (0, 7, 63):
        for more_bytes in (0, 1, 2000):
            words = [0] * 64
            words[place] = entry
            assert of(make_disk(words, data_bytes=needed_bytes + more_bytes), tmp_path)
        if needed_bytes:
            assert not of(make_disk(words, data_bytes=needed_bytes - 1), tmp_path)


@pytest.mark.parametrize(
    ("bitmap", "needed_bytes"),
    [
        (0, 0),
        (1, 16),
        (0b101, 48),
        (1 << 31, 512),
        ((1 << 32) - 1, 512),
        (1 << 32, 0),
        (1 << 63, 0),
    ],
)
def test_a_subcluster_must_be_there_if_it_was_written(
    tmp_path: Path, bitmap: int, needed_bytes: int
) -> None:
    words = [0, 0, COPIED | DATA, bitmap]
    assert of(make_disk(words, data_bytes=needed_bytes, features=EXTENDED), tmp_path)
    if needed_bytes:
        assert not of(make_disk(words, data_bytes=needed_bytes - 1, features=EXTENDED), tmp_path)


def test_of_the_last_cluster_only_what_belongs_to_the_disk_must_be_there(tmp_path: Path) -> None:
    words = [0, COPIED | DATA]
    assert of(make_disk(words, data_bytes=100, disk_bytes=512 + 100), tmp_path)
    assert not of(make_disk(words, data_bytes=99, disk_bytes=512 + 100), tmp_path)
    assert of(make_disk(words, disk_bytes=512), tmp_path)  # it is behind the end of the disk
    second = [0, 2048]  # each L2 table covers 32 KiB
    assert of(make_disk(words, second, data_bytes=9, disk_bytes=(32 << 10) + 521), tmp_path)
    assert not of(make_disk(words, second, data_bytes=8, disk_bytes=(32 << 10) + 521), tmp_path)


def test_the_flags_of_version_2_are_not_looked_at(tmp_path: Path) -> None:
    words = [0, COPIED | DATA]
    content = make_disk(words, data_bytes=512, version=2, features=(1 << 64) - 1)
    assert of(content, tmp_path)
    assert not of(content[:-1], tmp_path)


def test_a_file_shorter_than_a_cluster_has_no_tables_to_be_held_against_it(tmp_path: Path) -> None:
    for version, bits in ((2, 16), (3, 16), (3, 9), (3, 21)):
        content = make_qcow2(b"", version, bits)
        for size in (72, len(content), (1 << bits) - 1):
            assert of(content.ljust(size, b"x")[:size], tmp_path)
        assert not of(content.ljust(1 << bits, b"x"), tmp_path)


def test_each_table_must_be_there(tmp_path: Path) -> None:
    whole = make_disk([])
    assert of(whole, tmp_path)
    for size in range(512, len(whole), 7):
        assert not of(whole[:size], tmp_path), size
    l1_only = make_disk([], [0])
    for size in (*range(512, len(l1_only), 7), 1543, 1544):
        assert of(l1_only[:size], tmp_path) is (size >= 1544)
    for offset in (4096, (1 << 56) - 512):
        assert not of(make_disk([], [offset]), tmp_path)
        content = bytearray(whole)
        content[512:520] = offset.to_bytes(8, "big")  # the refcount block
        assert not of(bytes(content), tmp_path)


def test_entries_that_name_one_table_again_and_again_do_not_cost_more_than_the_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "made"
    content = bytearray(make_disk([], data_bytes=20 << 10))
    content[36:48] = (2048).to_bytes(4, "big") + DATA.to_bytes(8, "big")  # the L1 table, at the end
    clusters = len(content) // CLUSTER
    for count in (clusters, clusters + 1, 2048):
        content[DATA : DATA + 8 * count] = (2048).to_bytes(8, "big") * count
        path.write_bytes(content)
        if count > clusters:
            with pytest.raises(DiskError, match="more tables than clusters"):
                check_disk(str(path))
        else:
            check_disk(str(path))


@pytest.mark.parametrize(("offset", "name"), [(36, "L1 table"), (56, "refcount table")])
def test_a_table_that_qemu_would_not_open_is_not_read(
    tmp_path: Path, offset: int, name: str
) -> None:
    content = bytearray(make_disk([]))
    content[offset : offset + 4] = b"\xff" * 4
    path = tmp_path / "made"
    path.write_bytes(content)
    os.truncate(path, 1 << 40)  # it would have room
    with pytest.raises(DiskError, match=f"its {name} has more than"):
        check_disk(str(path))


def test_time_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made").write_bytes(make_disk([]))
    monkeypatch.setattr(qcow2, "MAX_CPU_SECONDS", 0.0)
    with pytest.raises(DiskError, match="took more than"):
        check_disk(str(tmp_path / "made"))


def find_end(entry: int, second: int, *, is_extended: bool) -> int:
    """Return how long a file must be that has what an entry names."""
    if entry & COMPRESSED:
        offset, more = entry & ((1 << 61) - 1), entry >> 61 & 1
        return max(offset + 1, (offset // 512 + more) * 512)
    offset = entry & 0x00FF_FFFF_FFFF_FE00
    if is_extended:
        size = next((bit + 1 for bit in range(31, -1, -1) if second >> bit & 1), 0) * 16
    else:
        size = 0 if entry & ALL_ZEROS else 512
    return offset + size if offset and size else 0


OFFSETS = st.integers(0, 20).map(lambda cluster: DATA + cluster * 512)
ENTRIES = st.one_of(
    st.just(0),
    OFFSETS.map(lambda offset: COPIED | offset),
    OFFSETS,
    OFFSETS.map(lambda offset: COPIED | offset | ALL_ZEROS),
    st.builds(
        lambda offset, byte, more: COMPRESSED | more << 61 | offset + byte,
        *(OFFSETS, st.integers(0, 511), st.integers(0, 1)),
    ),
    st.sampled_from([1 << 55, COMPRESSED | 1 << 60, 1 << 32]),
)


@given(st.lists(ENTRIES, max_size=64), st.integers(0, 20 * 512), st.booleans())
def test_tables_are_checked_all_at_once_as_entry_by_entry(
    tmp_path_factory: pytest.TempPathFactory,
    entries: list[int],
    data_bytes: int,
    is_extended: bool,
) -> None:
    words = [*entries, 0]
    step = 2 if is_extended else 1
    pairs = zip(words[::step], words[1::step] if is_extended else words, strict=False)
    end = max((find_end(*pair, is_extended=is_extended) for pair in pairs), default=0)
    content = make_disk(words[:64], data_bytes=data_bytes, features=EXTENDED if is_extended else 0)
    assert of(content, tmp_path_factory.getbasetemp()) is (end <= len(content))


@given(st.binary(max_size=600), st.integers(0, 3000))
def test_any_bytes_are_whole_or_not(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, start: int
) -> None:
    disk = make_disk([COPIED | DATA], data_bytes=512)
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(disk[:24] + (disk[:start] + content + disk[start + len(content) :])[24:])
    with suppress(DiskError):  # and no other error
        check_disk(str(path))

"""What strangers hand in for import: each case a file or two in a directory of its own."""

from __future__ import annotations

import functools
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.targets import zstd
from tests.support.contents import make_squashfs
from tests.support.faults.hostile_trees import ALIENS
from tests.support.trees import OLD_NS

METADATA = """\
architecture: x86_64
creation_date: 1714886640
properties: {os: %s, release: "1", variant: default}
"""


@dataclass(frozen=True)
class Delivery:
    """Something handed in beside a good image.

    Attributes:
        name: what it is called.
        make: puts it into an empty directory.
        told: what a warning says of it; empty: it can be imported, or needs no warning.
    """

    name: str
    make: Callable[[Path], object]
    told: str


def tarball(*members: tuple[str, bytes, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """Return a tarball of members: name, type, content."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as tar:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(content), "/etc/shadow"
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@functools.cache
def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return a tar header, whatever follows it; ``size`` may be below zero."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def _pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header("a", len(records), kind) + records.ljust(-(-len(records) // 512) * 512, b"\0")


def image(directory: Path, metadata: str | bytes, root: bytes = b"") -> Path:
    """Put an image as distrobuilder leaves it into ``directory``; return that."""
    directory.mkdir(parents=True, exist_ok=True)
    content = metadata.encode() if isinstance(metadata, str) else metadata
    packed = tarball(("metadata.yaml", tarfile.REGTYPE, content))
    (directory / "incus.tar.xz").write_bytes(lzma.compress(packed, preset=0))
    return with_root(directory, root)


def with_root(directory: Path, root: bytes = b"") -> Path:
    """Put a root beside metadata; make both old."""
    (directory / "rootfs.squashfs").write_bytes(make_squashfs(root or os.fsencode(directory)))
    for path in directory.iterdir():
        if not path.is_symlink() and path.is_file():
            os.utime(path, ns=(OLD_NS, OLD_NS))
    return directory


def _described(metadata: str | bytes) -> Callable[[Path], object]:
    return lambda directory: image(directory, metadata)


def _named(os_name: str) -> Callable[[Path], object]:
    return _described(METADATA % os_name)


def _packed(content: bytes | Callable[[], bytes]) -> Callable[[Path], object]:
    """Return a delivery whose metadata is a tarball of these bytes."""

    def make(directory: Path) -> None:
        packed = content if isinstance(content, bytes) else content()
        (directory / "incus.tar.xz").write_bytes(packed)
        with_root(directory)

    return make


def _sound() -> bytes:
    return tarball(("metadata.yaml", tarfile.REGTYPE, (METADATA % "evil").encode()))


def _zeros(count: int, start: bytes) -> bytes:
    """Return ``count`` times 64 MiB of zeros after ``start``, as xz of many streams."""
    return lzma.compress(start) + lzma.compress(bytes(64 << 20), preset=0) * count


def _attributes(size: int) -> bytes:
    """Return attributes of which each record starts within the one before it."""
    return b"2 " * (size // 2) + b"="


def _global_attributes() -> bytes:
    records = (b"%d k%06d=%s\n" % (1000, n, b"x" * 986) for n in range(200_000))
    return gzip.compress(b"".join(_pax(record, tarfile.XGLTYPE) for record in records), 1)


def _long_names() -> bytes:
    names = (b"%06d" % n + b"x" * 900_000 for n in range(400))
    chain = b"".join(_pax(name, tarfile.GNUTYPE_LONGNAME) + header("a", 0) for name in names)
    return gzip.compress(chain, 1)


def _at_the_end(directory: Path) -> None:
    """Put metadata.yaml at the end of a tarball of 100 GiB."""
    path = directory / "incus.tar.xz"
    path.write_bytes(header("templates/a", 100 << 30))
    os.truncate(path, (100 << 30) + 512)
    with path.open("ab") as file:
        file.write(_sound())
    with_root(directory)


def _large_checksums(directory: Path) -> None:
    image(directory, METADATA % "evil")
    (directory / "SHA256SUMS").write_bytes(b"a" * 64 + b" x" + b" " * 1_000_000 + b"y\n")


def _alien(name: str, what: str) -> Callable[[Path], object]:
    def make(directory: Path) -> None:
        image(directory, METADATA % "evil")
        (directory / name).unlink(missing_ok=True)
        ALIENS[what](directory / name)

    return make


SPECIALS = (
    *("link to a device", "link to a secret", "chain of 2,000 links"),
    *("FIFO", "socket", "device"),
)
BASE = tarfile.REGTYPE
PLAIN = (METADATA % "evil").encode()
BOMB = header("templates/a", 1 << 40)
FEW = "the name or attributes of a member are too long"

DELIVERIES = (
    *(
        Delivery(f"a name of {name!r:.40}", _named(name), told)
        for name, told in {
            '"\\e[31mred"': "\\x1b[31mred",
            '"a\\nb"': "\\n",
            "../../x": "../../x",
            '".."': "dot",
            '""': "has no os",
            "x" * 900_000: "too long",
            '"a/b"': "a/b",
            '"debian,b"': "','",
            "!!python/object/apply:os.system [touch /x]": "has no os",
            '"\\u202egpj"': "\\u202e",
            '"\\0"': "\\x00",
        }.items()
    ),
    Delivery("YAML aliases", _described("a: &a [x]\nb: [*a, *a]\n"), "alias"),
    Delivery("nested YAML", _described("[" * 500_000), "metadata.yaml"),
    Delivery("no YAML", _described(b"\xff\0"), "metadata.yaml"),
    Delivery("duplicate keys", _described(METADATA % "evil" + "architecture: x\n"), "'x'"),
    Delivery("merge keys", _described("<<: {os: a}\n" + METADATA % "merged"), ""),
    Delivery(
        "a date for a number",
        _described(METADATA.replace("1714886640", "2024-05-05") % "b"),
        "seconds",
    ),
    Delivery(
        "an octal number", _described(METADATA.replace("1714886640", "0o17") % "b"), "seconds"
    ),
    Delivery(
        "5,000 digits", _described(METADATA.replace("1714886640", "9" * 5000) % "b"), "seconds"
    ),
    Delivery(
        "a negative date",
        _described(METADATA.replace("1714886640", "-99999999999999") % "b"),
        "seconds",
    ),
    Delivery("absolute names", _packed(tarball(("/metadata.yaml", BASE, PLAIN))), "incus.tar.xz"),
    Delivery("names of dots", _packed(tarball(("../metadata.yaml", BASE, PLAIN))), "incus.tar.xz"),
    *(
        Delivery(
            f"metadata as a {what}",
            _packed(tarball(("metadata.yaml", kind, b""))),
            "not a regular file",
        )
        for what, kind in (
            ("link", tarfile.SYMTYPE),
            ("hard link", tarfile.LNKTYPE),
            ("device", tarfile.CHRTYPE),
            ("sparse file", tarfile.GNUTYPE_SPARSE),
        )
    ),
    Delivery(
        "metadata of 1 GiB", _packed(header("metadata.yaml", 1 << 30) + bytes(4096)), "larger than"
    ),
    Delivery(
        "thousands of metadata",
        _packed(lambda: tarball(*[("metadata.yaml", BASE, b"a: b")] * 5000)),
        "has no creation_date",
    ),
    Delivery("metadata at the end of 100 GiB", _at_the_end, "put metadata.yaml first"),
    Delivery(
        "negative sizes",
        _packed(lambda: header("a", -1 << 40) + _sound()),
        "invalid number in a header",
    ),
    Delivery(
        "sizes past 64 bits",
        _packed(lambda: header("a", 1 << 80) + _sound()),
        "damaged",
    ),
    Delivery(
        "wrong checksums", _packed(lambda: _sound().replace(b"0000644", b"0000755", 1)), "checksum"
    ),
    Delivery("truncated", _packed(lambda: lzma.compress(_sound() + os.urandom(9000))[:-5000]), ""),
    Delivery(
        "attributes of 1 GiB", _packed(header("a", 1 << 30, tarfile.XHDTYPE) + bytes(4096)), FEW
    ),
    Delivery(
        "attributes of digits", _packed(lambda: _pax(b"0" * 1_000_000) + _sound()), "attributes"
    ),
    Delivery(
        "attributes within each other",
        _packed(lambda: _pax(_attributes(1_000_000)) + _sound()),
        "attributes",
    ),
    Delivery("200,000 attributes for all", _packed(_global_attributes), ""),
    Delivery("a size that is none", _packed(lambda: _pax(b"12 size=1e9\n") + _sound()), "size"),
    Delivery(
        "long name of 1 GiB",
        _packed(header("a", 1 << 30, tarfile.GNUTYPE_LONGNAME) + bytes(4096)),
        FEW,
    ),
    Delivery("400 names of a megabyte", _packed(_long_names), ""),
    Delivery("xz of 1 TiB of zeros", _packed(lambda: _zeros(100, BOMB)), "times its size"),
    Delivery("zstd of zeros", _packed(lambda: zstd(BOMB + bytes(200 << 20))), "times its size"),
    Delivery(
        "xz of two streams",
        _packed(lambda: lzma.compress(_sound()[:700]) + lzma.compress(_sound()[700:])),
        "",
    ),
    Delivery("a million empty streams", _packed(lambda: gzip.compress(b"") * 1_000_000), ""),
    Delivery("SHA256SUMS of blanks", _large_checksums, ""),
    Delivery(
        "SHA256SUMS out of the delivery", _alien("SHA256SUMS", "link to a secret"), "SHA256SUMS"
    ),
    Delivery("SHA256SUMS that never opens", _alien("SHA256SUMS", "FIFO"), "SHA256SUMS"),
    *(
        Delivery(f"{what} as {name}", _alien(name, what), name)
        for what in SPECIALS
        for name in ("incus.tar.xz", "rootfs.squashfs")
    ),
    *(
        Delivery(f"{what} as image.yaml", _alien("image.yaml", what), "")
        for what in ("link to a secret", "FIFO", "device")
    ),
)

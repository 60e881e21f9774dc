"""What strangers upload: the rest is published, in bounded time and memory, and it is named."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import COMMAND
from tests.needed_tools import needs
from tests.trees import OLD_NS, published, version, write_tree

GOOD = "debian/12/amd64/default"
EVIL = "images/evil/1/amd64/default"
MEMORY_BYTES = 512 << 20
"""Address space beyond what starts; a process that keeps to it holds little in memory."""
SECONDS = 60

Plant = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """Something planted beside a good version.

    Attributes:
        name: what it is called.
        plant: puts it below the directory of the evil product.
        told: what a warning says of it; empty: it harms nobody and needs none.
    """

    name: str
    plant: Plant
    told: str


def _whole(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("incus.tar.xz", "rootfs.squashfs"):
        (directory / name).write_bytes(os.fsencode(f"{name} of {directory.name}"))
        os.utime(directory / name, ns=(OLD_NS, OLD_NS))
    return directory


def _named(name: str | bytes) -> Plant:
    """Plant a whole version below an OS of that name."""

    def plant(product: Path) -> None:
        images = os.fsencode(product.parents[3])
        directory = os.path.join(images, os.fsencode(name), b"1/amd64/default/20240505_05:24")
        _whole(Path(os.fsdecode(directory)))

    return plant


def _linked(target: str) -> Plant:
    """Plant a root that is a link."""

    def plant(product: Path) -> None:
        root = _whole(product / "20240505_05:24") / "rootfs.squashfs"
        root.unlink()
        root.symlink_to(target)

    return plant


def _special(make: Callable[[Path], object]) -> Plant:
    """Plant a root that ``make`` makes."""

    def plant(product: Path) -> None:
        root = _whole(product / "20240505_05:24") / "rootfs.squashfs"
        root.unlink()
        make(root)

    return plant


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(path.parent, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


def _sparse(path: Path) -> None:
    """Make a file of holes, as large as the file system lets it be."""
    path.touch()
    for shift in range(62, 40, -1):
        with suppress(OSError):
            os.truncate(path, 1 << shift)
            break
    os.utime(path, ns=(OLD_NS, OLD_NS))


def _setting(name: str, content: bytes | Callable[[Path], None]) -> Plant:
    """Plant a settings file beside a whole version's directory."""

    def plant(product: Path) -> None:
        _whole(product / "20240505_05:24")
        if isinstance(content, bytes):
            (product / name).write_bytes(content)
        else:
            content(product / name)

    return plant


def _in_version(name: str, content: bytes) -> Plant:
    def plant(product: Path) -> None:
        (_whole(product / "20240505_05:24") / name).write_bytes(content)

    return plant


def _many_files(product: Path) -> None:
    directory = _whole(product / "20240505_05:24")
    for number in range(100_000):
        (directory / f"{number}.txt").touch()


def _loop(product: Path) -> None:
    product.mkdir(parents=True)
    (product / "20240505_05:24").symlink_to("20240506_05:24")
    (product / "20240506_05:24").symlink_to("20240505_05:24")


def _up_and_out(product: Path) -> None:
    product.mkdir(parents=True)
    (product / "20240505_05:24").symlink_to("../../../../../../outside")


def _large(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 30)


NESTED = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
ALIASES = b"aliases = [" + b",".join(b'"alias%d"' % n for n in range(10_000)) + b"]\n"
LONG = "n" * 255

CASES = (
    Case("newline", _named("new\nline"), "new\\nline"),
    Case("escape", _named("\x1b[31mred"), "\\x1b[31mred"),
    Case("quotes", _named("'quo\"tes`"), ""),
    Case("markup", _named("<script>alert(1)<"), ""),
    Case("right to left", _named("evil\u202egpj"), "\\u202e"),
    Case("long name", _named(LONG), ""),
    Case("no UTF-8", _named(b"\xff\xfe"), "\\udcff"),
    Case("link to a device", _linked("/dev/zero"), "lead"),
    Case("link to a secret", _linked("/etc/shadow"), "lead"),
    Case("link into proc", _linked("/proc/self/mem"), "lead"),
    Case("link out by dots", _up_and_out, "lead"),
    Case("link to itself", _linked("rootfs.squashfs"), "rootfs.squashfs"),
    Case("links in a loop", _loop, ""),
    Case("FIFO", _special(os.mkfifo), "FIFO"),
    Case("socket", _special(_socket), "socket"),
    Case("sparse, as large as can be", _special(_sparse), "holes"),
    Case("100,000 files", _many_files, ""),
    Case("10,000 aliases", _setting(".product.toml", ALIASES), ""),
    Case("requirements nested", _setting(".requirements", NESTED), ".requirements"),
    Case("requirements of 1 GiB", _setting(".requirements", _large), ".requirements"),
    Case("requirements twice", _setting(".requirements", b'{"a":"1","a":"2"}'), ".requirements"),
    Case("requirements NaN", _setting(".requirements", b'{"a":NaN}'), ".requirements"),
    Case("requirements past 64 bits", _setting(".requirements", b'{"a":' + b"9" * 99 + b"}"), ""),
    Case("requirements as a FIFO", _setting(".requirements", os.mkfifo), ".requirements"),
    Case("product nested", _setting(".product.toml", b"a=" + b"[" * 99_999), ".product.toml"),
    Case("product of 1 GiB", _setting(".product.toml", _large), ".product.toml"),
    Case("image.yaml, laughing", _in_version("image.yaml", b"a: &a [x]\nb: [*a, *a]\n"), ""),
    Case("image.yaml nested", _in_version("image.yaml", b"[" * 100_000), "image.yaml"),
    Case("cache nested", _in_version(".items.json", NESTED), ""),
    Case("cache of NaN", _in_version(".items.json", b'{"incus.tar.xz":NaN}'), ""),
)


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_rest_is_published_and_the_culprit_named(tmp_path: Path, case: Case) -> None:
    outside = _whole(tmp_path / "outside")
    root = write_tree(tmp_path / "mirror", version(f"{GOOD}/20240505_05:24"))
    case.plant(root / EVIL)
    trace = tmp_path / "trace"
    strace = needs("strace", "apt-get install strace")
    options = ["-f", "-qq", "-e", "trace=openat,open"]
    command: list[str | Path] = [strace, *options, "-o", trace, COMMAND, "-j2", root]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        preexec_fn=_limited,
    )
    assert result.returncode in {0, 3}, result.stderr
    assert "Traceback" not in result.stderr
    assert "debian:12:amd64:default 20240505_05:24" in published(root)
    assert case.told in result.stderr
    assert bool(case.told) <= ("warning" in result.stderr)
    # What a terminal would obey is escaped.
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", result.stderr)
    opened = set(re.findall(r'open(?:at)?\((?:AT_FDCWD, )?"((?:[^"\\]|\\.)*)"', trace.read_text()))
    assert not opened & {"/etc/shadow", "/dev/zero", "/proc/self/mem"}
    assert not any(path.startswith(str(outside)) for path in opened)
    json.loads((root / "streams/v1/images.json").read_bytes())

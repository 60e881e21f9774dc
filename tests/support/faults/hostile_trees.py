"""What strangers put into a mirror: a corpus, each case below an OS of its own."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.contents import make_content
from tests.support.trees import OLD_NS

Plant = Callable[[Path], object]
"""Puts something at or below a path that is not there yet."""

VERSION = "20240505_05:24"
PRODUCT = "1/amd64/default"
OUTSIDE = "outside"
"""A directory beside the mirror with a whole version in it, and settings files."""


@dataclass(frozen=True)
class Case:
    """Something planted beside good versions.

    Attributes:
        name: what it is called.
        plant: puts it at ``images/OS``; odd names it puts beside that.
        told: what the warning says that names it; empty: it harms nobody and needs none.
        is_heavy: whether it takes many seconds to plant or to bear.
    """

    name: str
    plant: Plant
    told: str
    is_heavy: bool = False

    @property
    def os_name(self) -> str:
        """The OS that it is planted below."""
        return os_name(self.name)


def os_name(name: str) -> str:
    """Return the OS of the case called ``name``."""
    return "evil-" + "".join(c if c.isalnum() else "-" for c in name)


def whole(directory: Path) -> Path:
    """Make a whole version at ``directory``, unlike any other; return it."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("incus.tar.xz", "rootfs.squashfs"):
        (directory / name).write_bytes(make_content(name, f"{name} of {directory}"))
        os.utime(directory / name, ns=(OLD_NS, OLD_NS))
    return directory


def plant_outside(place: Path) -> Path:
    """Make what no run may read at ``place``; return it."""
    version = whole(place / PRODUCT / VERSION)
    for name in (".requirements", ".product.toml", "image.yaml", ".items.json"):
        (version / name).write_text("{}")
    return place


def _beside(name: str | bytes) -> Plant:
    """Plant a whole version below an OS of that name."""

    def plant(os_directory: Path) -> None:
        directory = os.path.join(os.fsencode(os_directory.parent), os.fsencode(name))
        whole(Path(os.fsdecode(directory)) / PRODUCT / VERSION)

    return plant


# What may stand in the place of a file or directory.


def _link(target: str) -> Plant:
    def plant(path: Path) -> None:
        path.symlink_to(target)
        if os.geteuid() == 0:
            os.lchown(path, 65_534, 65_534)  # a stranger's, as root's may lead to root's files

    return plant


def _out(path: Path) -> None:
    """Link out of the mirror by dots, to what would be fine if it were inside."""
    images = next(parent for parent in path.parents if parent.name == "images")
    depth = len(path.relative_to(images).parts)
    below = {1: "", 2: "1", 3: "1/amd64", 4: PRODUCT}.get(depth, f"{PRODUCT}/{VERSION}")
    name = f"/{path.name}" if depth == 6 else ""
    path.symlink_to("../" * (depth + 1) + f"{OUTSIDE}/{below}{name}")


def _itself(path: Path) -> None:
    path.symlink_to(path.name)


def _chain(path: Path) -> None:
    """Link over 2,000 links, more than a program's stack may bear."""
    hidden = path.parent / f".chain-{path.name}"
    hidden.mkdir()
    for number in range(2000):
        (hidden / str(number)).symlink_to(str(number + 1))
    (hidden / "2000").symlink_to("/etc/shadow")
    path.symlink_to(f"{hidden.name}/0")


def _widening(path: Path) -> None:
    """Link over links that each stand for two of the next: 2^50 steps."""
    hidden = path.parent / f".wide-{path.name}"
    hidden.mkdir()
    for number in range(50):
        (hidden / str(number)).symlink_to(f"{number + 1}/../{number + 1}")
    (hidden / "50").mkdir()
    path.symlink_to(f"{hidden.name}/0")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(path.parent, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


def _device(path: Path) -> None:
    """Make a device of endless zeros; a directory where only root may."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o644, os.makedev(1, 5))
    except OSError:
        path.mkdir()


def _sparse(path: Path) -> None:
    """Make a file of holes, as large as the file system lets it be."""
    path.touch()
    for shift in range(62, 40, -1):
        with suppress(OSError):
            os.truncate(path, 1 << shift)
            break
    os.utime(path, ns=(OLD_NS, OLD_NS))


def _gibibyte(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 30)


def _directory(path: Path) -> None:
    path.mkdir()


ALIENS: dict[str, Plant] = {
    "link to a device": _link("/dev/zero"),
    "link to a secret": _link("/etc/shadow"),
    "link into proc": _link("/proc/self/mem"),
    "link to a system's directory": _link("/etc"),
    "link to proc": _link("/proc"),
    "link out by dots": _out,
    "link to itself": _itself,
    "link to nowhere": _link("nowhere"),
    "chain of 2,000 links": _chain,
    "links that widen": _widening,
    "FIFO": os.mkfifo,
    "socket": _socket,
    "device": _device,
    "sparse, as large as can be": _sparse,
}
"""What a stranger may put in the place of a file or a directory."""

DIRECTORIES = {"OS": "", "product": PRODUCT, "version": f"{PRODUCT}/{VERSION}"}
FILES = {
    "root": f"{PRODUCT}/{VERSION}/rootfs.squashfs",
    "metadata": f"{PRODUCT}/{VERSION}/incus.tar.xz",
    "requirements": f"{PRODUCT}/.requirements",
    "product.toml": f"{PRODUCT}/.product.toml",
    "lxd_requirements": ".lxd_requirements",
    "image.yaml": f"{PRODUCT}/{VERSION}/image.yaml",
    "cache": f"{PRODUCT}/{VERSION}/.items.json",
}


def _put(place: str, alien: Plant) -> Plant:
    """Plant ``alien`` at ``place`` below the OS, in an otherwise whole version if it is a file."""

    def plant(os_directory: Path) -> None:
        path = os_directory / place if place else os_directory
        if place in FILES.values():
            whole(os_directory / PRODUCT / VERSION)
            path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        alien(path)

    return plant


def _matrix() -> Iterator[Case]:
    """Yield a case for each alien in each place."""
    for what, alien in ALIENS.items():
        for place, path in DIRECTORIES.items():
            # Above the versions files may stand that are somebody's notes.
            is_note = "sparse" in what and place != "version"
            name = f"{what} as {place}"
            told = "" if is_note else f"{Path(os_name(name), path)}: "
            yield Case(name, _put(path, alien), told)
        for place, path in FILES.items():
            told = "" if place == "cache" else os.path.basename(path)
            yield Case(f"{what} as {place}", _put(path, alien), told)
    for place in ("root", "metadata", "requirements", "product.toml", "lxd_requirements"):
        yield Case(f"directory as {place}", _put(FILES[place], _directory), "not a regular file")
    for place in ("cache", "image.yaml"):
        yield Case(f"directory as {place}", _put(FILES[place], _directory), "")


def _setting(name: str, content: bytes | Plant) -> Plant:
    """Plant a settings file beside a whole version's directory."""

    def plant(os_directory: Path) -> None:
        product = whole(os_directory / PRODUCT / VERSION).parent
        if isinstance(content, bytes):
            (product / name).write_bytes(content)
        else:
            content(product / name)

    return plant


def _in_version(name: str, content: bytes | Plant) -> Plant:
    return _setting(f"{VERSION}/{name}", content)


NESTED = b'{"a":' * 100_000 + b"1" + b"}" * 100_000


def _settings() -> Iterator[Case]:
    def requirements(name: str, content: bytes, told: str = ".requirements") -> Case:
        return Case(f"requirements {name}", _setting(".requirements", content), told)

    def toml(name: str, content: bytes, told: str = ".product.toml") -> Case:
        return Case(f"product {name}", _setting(".product.toml", content), told)

    def yaml(name: str, content: bytes, told: str = "image.yaml") -> Case:
        return Case(f"image.yaml {name}", _in_version("image.yaml", content), told)

    for file in (".requirements", ".lxd_requirements", ".product.toml"):
        yield Case(f"{file} of 1 GiB", _setting(file, _gibibyte), file)
    yield Case("image.yaml of 1 GiB", _in_version("image.yaml", _gibibyte), "image.yaml")
    yield requirements("nested", NESTED)
    yield requirements("twice", b'{"a":"1","a":"2"}')
    yield requirements("NaN", b'{"a":NaN}')
    yield requirements("past 64 bits", b'{"a":' + b"9" * 99 + b"}")
    yield requirements("past all bits", b'{"a":' + b"9" * 9999 + b"}")
    yield requirements("past all floats", b'{"a":1e999}')
    yield requirements("no UTF-8", b'{"a":"\xff"}')
    yield requirements("half a surrogate", b'{"a":"\\ud800"}')
    yield requirements("of control characters", b'{"a\\u001b[31m":"\\u0000\\n"}')
    yield requirements("long", b'{"a":"' + b"x" * 60_000 + b'"}')
    yield requirements("many", json.dumps({f"k{n}": "v" for n in range(5000)}).encode())
    yield requirements("as a list", b"[1, 2]")
    yield requirements("empty", b"")
    yield toml("nested", b"a=" + b"[" * 60_000)
    yield toml("of a deep key", b"a" + b".a" * 30_000 + b"=1")
    yield toml("of a deep table", b"[a" + b".a" * 30_000 + b"]\n" + b"")
    yield toml("of 8,000 keys", b"".join(b"a%d=1\n" % number for number in range(8000)))
    yield toml("of 5,000 digits", b"a=" + b"9" * 5000)
    yield toml("of 6,000 hex digits", b"requirements={a=0x" + b"f" * 6000 + b"}")
    yield toml("of infinity", b"requirements={a=inf}")
    yield toml("no UTF-8", b'os="\xff"')
    yield toml("of markup", b'os="<script>alert(1)</script>"\nrelease_title="<b>"\n', "")
    yield toml("of newlines", b'os="a\\nb"\nrelease_title="\\u001b[31m\\u202e"\n')
    yield toml("of a long title", b'release_title="' + b"x" * 60_000 + b'"')
    yield toml("of 10,000 aliases", b"aliases=[" + b'"a",' * 10_000 + b"]")
    yield toml("of a growing alias", b'aliases=["' + b"{os}" * 10_000 + b'"]')
    yield toml("of a date that is none", b'support_eol="2024-02-30"')
    yield toml("of wrong types", b'os=1\nsupported="yes"\naliases="a"\nrequirements=[]\n')
    yield toml("with debian's alias", b'aliases=["debian/12"]', "debian/12")
    yield toml("with debian's alias and architecture", b'aliases=["debian/12/amd64"]', "debian/12")
    yield yaml("laughing", b"a: &a [x]\nb: [*a, *a]\n")
    yield yaml("with a long alias", b"a: *" + b"x" * 100_000)
    yield yaml("nested", b"[" * 100_000)
    yield yaml("of tags", b"simplestream: !!python/object/apply:os.system ['touch /x']\n", "")
    yield yaml("of merge keys", b"simplestream: {<<: {distro_name: a}}\n", "")
    yield yaml("of a long name", b"simplestream: {distro_name: " + b"x" * 90_000 + b"}")
    yield yaml("of control characters", b'simplestream: {distro_name: "a\\n\\e[31m"}')
    yield yaml(
        "of many aliases", b"simplestream: {release_aliases: {1: '" + b"a," * 40_000 + b"'}}"
    )
    rules = b"".join(b"k%d: v, " % number for number in range(9_000))
    yield yaml(
        "of many requirements", b"simplestream: {requirements: [{requirements: {" + rules + b"}}]}"
    )
    yield yaml("no UTF-8", b"simplestream: {distro_name: \xff}")


def _cache_cases() -> Iterator[Case]:
    def item(**changes: object) -> bytes:
        path = f"images/x/{PRODUCT}/{VERSION}/rootfs.squashfs"
        digest = "a" * 64
        fields = {"ftype": "squashfs", "path": path, "size": 5, "sha256": digest, **changes}
        return json.dumps({"rootfs.squashfs": fields}).encode()

    for name, content in {
        "nested": NESTED,
        "of NaN": b'{"incus.tar.xz":NaN}',
        "of duplicate keys": b'{"incus.tar.xz":1,"incus.tar.xz":2}',
        "past 64 bits": item(size=1 << 70),
        "of negative sizes": item(size=-5),
        "of wrong types": item(size="5", sha256=7, path=None),
        "of digests in upper case": item(sha256="A" * 64),
        "of short digests": item(sha256="abc"),
        "of a name with a slash": b'{"../../x/rootfs.squashfs":' + item()[20:],
        "of another's path": item(path="/etc/shadow"),
        "of no UTF-8": b'{"\xff":1}',
        "empty": b"",
        "torn": item()[:50],
    }.items():
        yield Case(f"cache {name}", _in_version(".items.json", content), "")
    yield Case("cache of 1 GiB", _in_version(".items.json", _gibibyte), "")


def _long_names(os_directory: Path) -> None:
    """Names of 255 bytes at each level."""
    names = (
        os_directory.name.ljust(255, "n"),
        "r" * 255,
        "amd64",
        "v" * 255,
        "20240505".ljust(255, "0"),
    )
    whole(os_directory.parent.joinpath(*names))


def _long_path(os_directory: Path) -> None:
    """A path past PATH_MAX, made step by step, in a version and in place of one."""
    whole(os_directory / PRODUCT / VERSION)
    for start in (os_directory / PRODUCT / VERSION, os_directory / "2"):
        start.mkdir(exist_ok=True)
        here = os.open(start, os.O_RDONLY)
        for _ in range(30):
            os.mkdir("d" * 255, dir_fd=here)
            below = os.open("d" * 255, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)


def _many(directory: Path, name: Callable[[int], str], count: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (directory / name(number)).mkdir()


def _version_name(number: int) -> str:
    return f"20240505_{number:06}"


def _many_files(os_directory: Path) -> None:
    directory = whole(os_directory / PRODUCT / VERSION)
    for number in range(100_000):
        (directory / f"{number}.txt").touch()


def _many_products(os_directory: Path) -> None:
    """Each a whole version, with a long definition, below settings as large as may be."""
    aliases = b",".join(b'"%s%03d"' % (b"a" * 250, number) for number in range(100))
    for number in range(3000):
        directory = whole(os_directory / f"1/amd64/v{number}/{VERSION}")
        if number == 0:
            (directory / "image.yaml").write_bytes(b"a: b\n" * 20_000)
        else:
            first = os_directory / f"1/amd64/v0/{VERSION}/image.yaml"
            (directory / "image.yaml").hardlink_to(first)
    (os_directory / ".product.toml").write_bytes(b"aliases=[" + aliases + b"]\n")


def _copies(os_directory: Path) -> None:
    """Bring debian's own files under another name, which stands before it."""
    directory = os_directory.with_name("aaa") / PRODUCT / VERSION
    directory.mkdir(parents=True)
    for source in (os_directory.parent / "debian/12/amd64/default" / VERSION).iterdir():
        if source.name[0] != ".":
            (directory / source.name).hardlink_to(source)


def _forged(os_directory: Path) -> None:
    """Claim debian's fingerprint in a cache."""
    from fastindex.system.stamps import Stamp

    directory = whole(os_directory.with_name("aab") / PRODUCT / VERSION)
    good = os_directory.parent / "debian/12/amd64/default" / VERSION / ".items.json"
    items = json.loads(good.read_bytes())
    for name in ("incus.tar.xz", "rootfs.squashfs"):
        size = (directory / name).stat().st_size
        items[name] |= {"size": size, "key": Stamp(size, OLD_NS, 0, 0).key}
    (directory / ".items.json").write_text(json.dumps(items))


def _versions(*names: str) -> Plant:
    def plant(os_directory: Path) -> None:
        for name in names:
            whole(os_directory / PRODUCT / name)

    return plant


def _names() -> Iterator[Case]:
    yield Case("newline", _beside("new\nline"), "new\\nline")
    yield Case("escape", _beside("\x1b[31mred"), "\\x1b[31mred")
    yield Case("quotes", _beside("'quo\"tes`\\"), "")
    yield Case("markup", _beside("<script>alert(1)<"), "")
    yield Case("right to left", _beside("evil\u202egpj"), "\\u202e")
    yield Case("no UTF-8", _beside(b"\xff\xfe"), "\\udcff")
    yield Case("percent", _beside("%2e%2e"), "%2e%2e")
    yield Case("colon", _beside("debian:12:amd64"), "debian:12:amd64")
    yield Case("comma", _beside("a,debian"), "a,debian")
    yield Case("other case", _beside("Debian"), "")
    yield Case("long names", _long_names, "")
    yield Case("paths past PATH_MAX", _long_path, "")


def _crowds() -> Iterator[Case]:
    yield Case("100,000 files", _many_files, "", is_heavy=True)
    yield Case(
        "100,000 empty versions",
        lambda path: _many(path / PRODUCT, _version_name, 100_000),
        "no metadata",
        is_heavy=True,
    )
    yield Case(
        "100,000 versions that are none",
        lambda path: _many(path / PRODUCT, str, 100_000),
        "not a version name",
        is_heavy=True,
    )
    yield Case("100,000 releases", lambda path: _many(path, str, 100_000), "", is_heavy=True)
    yield Case("3,000 products of many names", _many_products, "", is_heavy=True)


def _products() -> Iterator[Case]:
    yield Case("copies of debian", _copies, "same image")
    yield Case("forged fingerprint of debian", _forged, "same image")
    yield Case(
        "all of debian, linked",
        lambda path: path.with_name("aac").symlink_to("debian"),
        "same image",
    )
    yield Case("dates of no calendar", _versions("20240230_05:24", "00000000", "99991399"), "date")
    yield Case("digits of no alphabet", _versions("²⁰²⁴⁰⁵⁰⁵", "٢٠٢٤٠٥٠٥"), "date")
    yield Case("a version's name with markup", _versions("20240505<b>", "20240506\n"), "\\n")
    yield Case("a version that is a file", _version_file, "20240506_05:24: is not a directory")
    yield Case(
        "a release named as a file", lambda path: whole(path / "incus.tar.xz/amd64/d" / VERSION), ""
    )


def _linked(os_directory: Path) -> None:
    os_directory.with_name("aac").symlink_to("debian")


def _version_file(os_directory: Path) -> None:
    product = whole(os_directory / PRODUCT / VERSION).parent
    (product / "20240506_05:24").write_bytes(b"no directory")


CASES = (*_names(), *_products(), *_settings(), *_cache_cases(), *_matrix(), *_crowds())
LIGHT = tuple(case for case in CASES if not case.is_heavy)

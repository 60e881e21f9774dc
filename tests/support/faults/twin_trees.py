"""Two equal trees, and changes of both: what uploaders, builders, operators and disks do to one.

A change is drawn as its name and three numbers. What the numbers stand for is looked up in the
first tree, so the same change does the same to both, and a shorter sequence of changes stays one.

No two contents have one stamp, except after ``corrupt`` and in settings files: fastindex does not
promise to notice such a change of an image, an ``image.yaml`` or a ``SHA256SUMS``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TypeVar

from tests.support.contents import make_content
from tests.support.trees import OLD_NS

Chosen = TypeVar("Chosen")

SECOND_NS = 1_000_000_000
_NO_STREAMS = ("streams", "cache")
"""What runs leave in ROOT."""
STREAMS = ("images", "daily")
PRODUCTS = (
    "images/debian/12/amd64/default",
    "images/debian/12/amd64/cloud",
    "images/debian/12/arm64/default",
    "images/alpine/3.20/amd64/default",
    "daily/debian/12/amd64/default",
    "daily/alpine/3.20/amd64/default",
    "images/debian/12/odd64/default",
    "images/debian/stable/x86_64/default",
)
VERSIONS = ("20240505_05:24", "20240506_05:24", "20240507_05:24", "202405080524", "20240505")
DOTFILES = (".requirements", ".lxd_requirements", ".product.toml")
DISKS = (".squashfs", ".qcow2", ".img", ".vcdiff")
"""Ends of names of files whose last byte is not looked at: any byte there will do."""
_SETTINGS = {
    "requirements": (
        b'{"secureboot": "false"}',
        b'{"secureboot": "maybe"}',
        b'{"nesting": "true"}',
        b'{"privileged": true}',
        b'{"cgroup": [1]}',
        b"{",
        b"",
        b"\xff",
    ),
    "toml": (
        b'release_title = "A"\n',
        b'release_title = "B"\n',
        b'aliases = ["stable"]\n',
        b'aliases = ["newest"]\n',
        b'aliases = ["stable", "debian/12", "alpine/3.20/cloud"]\nlabel = "x"\n',
        b'aliases = ["{os}/now"]\nreplace_aliases = true\n',
        b'os = "Other"\nsupported = false\n[requirements]\nsecureboot = "false"\n',
        b"aliases = 3\nunknown = 1\n",
        b"= torn",
    ),
    "yaml": (
        b"simplestream:\n  distro_name: Debian Linux\n",
        b"simplestream:\n  release_aliases:\n    '12': bookworm,stable\n",
        b"simplestream:\n  requirements:\n  - requirements:\n      nesting: true\n",
        b"simplestream:\n  requirements:\n  - variants: [cloud]\n    requirements:\n"
        b"      secureboot: false\n",
        b"simplestream: [",
        b"",
    ),
}
_WHOLE = (
    ("incus.tar.xz", "rootfs.squashfs"),
    ("incus.tar.xz", "rootfs.squashfs"),
    ("lxd.tar.xz", "rootfs.squashfs"),
    ("incus.tar.xz", "lxd.tar.xz", "rootfs.squashfs", "disk.qcow2"),
    ("incus_combined.tar.gz",),
    ("incus.tar.xz", "rootfs.tar.xz"),
    ("incus.tar.xz", "disk.qcow2"),
    ("rootfs.squashfs",),
    (),
)
FILES = (
    "incus.tar.xz",
    "rootfs.squashfs",
    "lxd.tar.xz",
    "disk.qcow2",
    "root.squashfs",
    "rootfs.tar.xz",
    "incus.tar.gz",
    "incus_combined.tar.gz",
    f"rootfs.{VERSIONS[0]}.vcdiff",
    f"rootfs.{VERSIONS[1]}.vcdiff",
    "disk1.img",
    "notes.txt",
    "rootfs.squashfs.part",
)
_GARBAGE = (b"<html>404</html>\n", b"", b"\0" * 600, b"hsqs")
_MODES = (0o600, 0o644, 0o700, 0o755, 0o640, 0o750)
_BAD_NAMES = ("a:b", "a, b", "-x", "20240230", "20240505/nested", "new\nline", "\udcff", "n" * 200)


@cache
def content_of(name: str, salt: int) -> bytes:
    """Return a file called ``name`` that is what its name says; equal salts give equal roots."""
    return make_content(name, b"%04d" % salt)


@dataclass(frozen=True)
class Change:
    """A change: the name of one of ``CHANGES`` or ``DAMAGES``, and what it does it to."""

    kind: str
    where: int
    what: int
    how: int


class TwinTree:
    """Two trees that all is done to.

    Args:
        roots: of the two mirrors; directories that are there, with nothing in them.
    """

    def __init__(self, roots: tuple[Path, Path]) -> None:
        self.roots = tuple(map(os.fspath, roots))
        self.now_ns = 0
        """The time of the mirrors."""
        self.right: dict[str, bytes] = {}
        """Files that a disk has changed → what they were."""
        self._stamps = 0

    def apply(self, change: Change) -> None:
        """Do ``change``, as far as there is something to do it to."""
        {**CHANGES, **DAMAGES}[change.kind](self, change)

    # What is there, in the first tree.

    def directories(self, depth: int) -> list[str]:
        """Return the visible directories ``depth`` levels below ROOT, sorted."""
        found = [""]
        for _ in range(depth):
            found = [path for above in found for path in self.below(above)]
        return found

    def below(self, directory: str) -> Iterator[str]:
        with suppress(OSError):
            for name in sorted(os.listdir(os.path.join(self.roots[0], directory))):
                path = os.path.join(directory, name)
                if name[0] != "." and path not in _NO_STREAMS and self.is_directory(path):
                    yield path

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(os.path.join(self.roots[0], path))

    def is_there(self, path: str) -> bool:
        return os.path.lexists(os.path.join(self.roots[0], path))

    def files(self, directory: str) -> list[str]:
        """Return the visible files, links and the like in ``directory``, sorted."""
        return [
            path
            for name in sorted(os.listdir(os.path.join(self.roots[0], directory)))
            if name[0] != "." and not self.is_directory(path := f"{directory}/{name}")
        ]

    def version(self, number: int) -> str | None:
        return choose(self.directories(6), number)

    def product(self, number: int) -> str | None:
        return choose(self.directories(5), number)

    def file(self, change: Change) -> str | None:
        """Return a file of a version."""
        version = self.version(change.where)
        return None if version is None else choose(self.files(version), change.what)

    def listing(self, number: int) -> list[str]:
        """Return all visible names of a tree with kinds, sizes and times, to compare them."""
        lines = []
        root = self.roots[number]
        for directory, names, others in os.walk(root):
            names[:] = sorted(name for name in names if name[0] != ".")
            if directory == root:
                names[:] = [name for name in names if name not in _NO_STREAMS]
            for name in (*names, *others):
                status = os.lstat(path := os.path.join(directory, name))
                is_file = stat.S_ISREG(status.st_mode)
                times = (status.st_size, status.st_mtime_ns) if is_file else ()
                if name[0] != "." or name in DOTFILES:
                    lines.append(f"{os.path.relpath(path, root)} {status.st_mode:o} {times}")
        return sorted(lines)

    # What can be done to both trees. What cannot be done to one cannot be done to the other.

    def paths(self, path: str) -> list[str]:
        return [os.path.join(root, path) for root in self.roots]

    def new_time_ns(self, age: int) -> int:
        """Return a time that no other file has: mostly long ago, else young, now or to come."""
        self._stamps += 1
        if age % 8 < 5:
            return OLD_NS + self._stamps * SECOND_NS + self._stamps
        if age % 8 == 5:
            return self.now_ns - 100 * SECOND_NS + self._stamps
        return self.now_ns + (7200 * SECOND_NS if age % 8 == 7 else 0) + self._stamps

    def write(self, path: str, content: bytes, mtime_ns: int, *, in_place: bool = False) -> None:
        """Write a file: a new one, or into the one that is there, with all its hard links."""
        for one in self.paths(path):
            with suppress(OSError, ValueError):
                os.makedirs(os.path.dirname(one), exist_ok=True)
                is_overwritten = in_place and os.path.isfile(one)  # never a FIFO, which waits
                if not is_overwritten and not os.path.isdir(one):
                    with suppress(FileNotFoundError):
                        os.unlink(one)
                with open(one, "wb") as file:
                    file.write(content)
                os.utime(one, ns=(mtime_ns, mtime_ns))

    def write_settings(self, path: str, content: bytes, how: int) -> None:
        """Write a settings file; some have the size and the time of the one before."""
        statuses = [_status(one) for one in self.paths(path)]
        old = statuses[0]
        mtime_ns = self.new_time_ns(how) if old is None or how % 2 else old.st_mtime_ns
        self.write(path, content, mtime_ns, in_place=how % 3 == 0)
        for one, before in zip(self.paths(path), statuses, strict=True):
            # A change within one tick of the clock, which even the inode's change time does not
            # show, would have to be read to be known.
            while (
                before is not None
                and (after := _status(one)) is not None
                and after.st_ctime_ns == before.st_ctime_ns
            ):
                os.utime(one, ns=(mtime_ns, mtime_ns))

    def make_version(self, version: str, names: tuple[str, ...], salt: int, age: int) -> None:
        for one in self.paths(version):
            with suppress(OSError):
                os.makedirs(one, exist_ok=True)
        for name in names:
            self.write(f"{version}/{name}", content_of(name, salt), self.new_time_ns(age))

    def remove(self, path: str) -> None:
        for one in self.paths(path):
            if os.path.islink(one) or not os.path.isdir(one):
                with suppress(OSError):
                    os.unlink(one)
            else:
                shutil.rmtree(one, ignore_errors=True)

    def rename(self, path: str, target: str) -> None:
        """Rename something, unless the new name is taken."""
        if self.is_there(target) or f"{target}/".startswith(f"{path}/"):
            return
        for one, other in zip(self.paths(path), self.paths(target), strict=True):
            with suppress(OSError):
                os.makedirs(os.path.dirname(other), exist_ok=True)
                os.rename(one, other)

    def symlink(self, target: str, path: str) -> None:
        """Put a symlink in the place of whatever file is at ``path``."""
        for one, root in zip(self.paths(path), self.roots, strict=True):
            with suppress(OSError):
                with suppress(FileNotFoundError):
                    os.unlink(one)
                os.symlink(target.replace("BASE", os.path.dirname(root)), one)

    def touch(self, path: str, mtime_ns: int) -> None:
        for one in self.paths(path):
            with suppress(OSError):
                os.utime(one, ns=(mtime_ns, mtime_ns), follow_symlinks=False)


def choose(items: list[Chosen], number: int) -> Chosen | None:
    return items[number % len(items)] if items else None


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _add_version(tree: TwinTree, change: Change) -> None:
    product = PRODUCTS[change.where % len(PRODUCTS)]
    version = VERSIONS[change.what % len(VERSIONS)]
    tree.make_version(
        f"{product}/{version}", _WHOLE[change.how % len(_WHOLE)], change.how % 4, change.what
    )


def _add_new_version(tree: TwinTree, change: Change) -> None:
    """Add what a nightly build adds: a whole version with bytes of its own."""
    product = tree.product(change.where)
    if product is not None:
        version = f"{product}/202406{change.what % 28 + 1:02}_05:24"
        if not tree.is_there(version):
            tree.make_version(version, _WHOLE[0], 1000 + 100 * change.where + change.what, 0)


def _add_dated_version(tree: TwinTree, change: Change) -> None:
    """Add a version dated today, or some days ahead."""
    product = tree.product(change.where)
    if product is not None:
        today = datetime.fromtimestamp(tree.now_ns / SECOND_NS, UTC)
        date = f"{today + timedelta(days=change.what % 5):%Y%m%d}"
        tree.make_version(f"{product}/{date}", _WHOLE[0], 10 + change.how % 4, change.how)


def _remove_version(tree: TwinTree, change: Change) -> None:
    if (version := tree.version(change.where)) is not None:
        tree.remove(version)


def _rename_version(tree: TwinTree, change: Change) -> None:
    if (version := tree.version(change.where)) is not None:
        name = VERSIONS[change.what % len(VERSIONS)]
        tree.rename(version, f"{os.path.dirname(version)}/{name}")


def _move_version(tree: TwinTree, change: Change) -> None:
    if (version := tree.version(change.where)) is not None:
        product = PRODUCTS[change.what % len(PRODUCTS)]
        tree.rename(version, f"{product}/{os.path.basename(version)}")


def _copy_version(tree: TwinTree, change: Change) -> None:
    """Copy or hard-link a version, with its times: the same images twice."""
    version = tree.version(change.where)
    target = f"{PRODUCTS[change.what % len(PRODUCTS)]}/{VERSIONS[change.how % len(VERSIONS)]}"
    if version is None or tree.is_there(target):
        return
    names = [os.path.basename(path) for path in tree.files(version)]
    for one, other in zip(tree.paths(version), tree.paths(target), strict=True):
        with suppress(OSError):
            os.makedirs(other)
            for name in names:
                if os.path.isfile(f"{one}/{name}"):
                    (os.link if change.how % 2 else shutil.copy2)(
                        f"{one}/{name}", f"{other}/{name}"
                    )


def _move_product(tree: TwinTree, change: Change) -> None:
    if (product := tree.product(change.where)) is not None:
        tree.rename(product, PRODUCTS[change.what % len(PRODUCTS)])


def _remove_product(tree: TwinTree, change: Change) -> None:
    if (product := tree.product(change.where)) is not None:
        tree.remove(product)


def _hide_stream(tree: TwinTree, change: Change) -> None:
    """Let a stream go as if its disk were not mounted, or come back."""
    stream = STREAMS[change.where % 2]
    if tree.is_there(stream):
        tree.rename(stream, f".{stream}")
        if change.what % 4 == 0:
            for one in tree.paths(stream):
                os.makedirs(one, exist_ok=True)
    else:
        tree.rename(f".{stream}", stream)


def _add_file(tree: TwinTree, change: Change) -> None:
    if (version := tree.version(change.where)) is not None:
        name = FILES[change.what % len(FILES)]
        content = content_of(name, change.how % 4)
        tree.write(f"{version}/{name}", content, tree.new_time_ns(change.how))


def _remove_file(tree: TwinTree, change: Change) -> None:
    if (path := tree.file(change)) is not None:
        tree.remove(path)


def _rename_file(tree: TwinTree, change: Change) -> None:
    if (path := tree.file(change)) is not None:
        tree.rename(path, f"{os.path.dirname(path)}/{FILES[change.how % len(FILES)]}")


def _swap_files(tree: TwinTree, change: Change) -> None:
    """Let two files swap their names, as a correction by mv does."""
    path = tree.file(change)
    other = tree.file(Change("", change.how, change.what, 0))
    if path is not None and other is not None and path != other:
        aside = f"{os.path.dirname(path)}/.aside"
        tree.rename(path, aside)
        tree.rename(other, path)
        tree.rename(aside, other)


def _touch_file(tree: TwinTree, change: Change) -> None:
    if (path := tree.file(change)) is not None:
        tree.touch(path, tree.new_time_ns(change.how))


def _change_file(tree: TwinTree, change: Change) -> None:
    """Give a file other bytes; a hard link's other names get them, too."""
    if (path := tree.file(change)) is not None:
        content = content_of(os.path.basename(path), 20 + change.how % 4)
        tree.write(path, content, tree.new_time_ns(change.how), in_place=change.how % 2 == 0)


def _spoil_file(tree: TwinTree, change: Change) -> None:
    """Put something else in the place of a file."""
    path = tree.file(change)
    if path is None:
        return
    if change.how % 4:
        tree.write(path, _GARBAGE[change.how % len(_GARBAGE)], tree.new_time_ns(change.how))
        return
    tree.remove(path)
    for one in tree.paths(path):
        with suppress(OSError):
            if change.how % 3 == 0:
                os.mkdir(one)
            elif change.how % 3 == 1:
                os.mkfifo(one)
            else:
                with open(one, "wb") as file:
                    file.truncate(65 << 20)
    tree.touch(path, tree.new_time_ns(0))


def _link_file(tree: TwinTree, change: Change) -> None:
    """Give a file of a version a hard link in another."""
    path, version = tree.file(change), tree.version(change.how)
    if path is None or version is None or tree.is_there(f"{version}/{os.path.basename(path)}"):
        return
    for one, other in zip(tree.paths(path), tree.paths(version), strict=True):
        with suppress(OSError):
            os.link(one, f"{other}/{os.path.basename(one)}", follow_symlinks=False)


def _symlink_file(tree: TwinTree, change: Change) -> None:
    """Replace a file, mostly by a link to one of the same name in the product."""
    path = tree.file(change)
    if path is None:
        return
    version, name = os.path.split(path)
    others = [
        other
        for other in tree.directories(6)
        if os.path.dirname(other) == os.path.dirname(version) and other != version
    ]
    target = choose(others, change.how)
    targets = [
        f"../{os.path.basename(target)}/{name}" if target else name,
        "BASE/outside/rootfs.squashfs",
        "missing",
        f"../../../arm64/default/{VERSIONS[0]}/{name}",
    ]
    tree.symlink(targets[max(0, change.how % 8 - 4)], path)


def _symlink_version(tree: TwinTree, change: Change) -> None:
    """Make a link to a version or to a directory outside, as another version."""
    version = tree.version(change.where)
    if version is not None:
        name = VERSIONS[change.what % len(VERSIONS)]
        path = f"{os.path.dirname(version)}/{name}"
        if not tree.is_there(path):
            target = os.path.basename(version) if change.how % 3 else "BASE/outside"
            tree.symlink(target, path)


def _change_settings(tree: TwinTree, change: Change) -> None:
    """Write, replace or remove a settings file at any level of the tree."""
    above = choose([d for depth in range(1, 6) for d in tree.directories(depth)], change.where)
    if above is None:
        return
    name = DOTFILES[change.what % 3]
    kind = "toml" if name == ".product.toml" else "requirements"
    number = change.what // 3
    path = f"{above}/{name}"
    if number % 10 == 9:
        tree.remove(path)
    else:
        content = _SETTINGS[kind][number % len(_SETTINGS[kind])]
        tree.write_settings(path, content, change.how)


def _rewrite_settings(tree: TwinTree, change: Change) -> None:
    """Write a settings file that is there anew."""
    known = [
        f"{directory}/{name}"
        for depth in range(1, 6)
        for directory in tree.directories(depth)
        for name in DOTFILES
        if tree.is_there(f"{directory}/{name}")
    ]
    path = choose(known, change.where)
    if path is not None:
        contents = _SETTINGS["toml" if path.endswith(".toml") else "requirements"]
        tree.write_settings(path, contents[change.what % len(contents)], change.how)


def _change_companion(tree: TwinTree, change: Change) -> None:
    """Change an ``image.yaml`` or a ``SHA256SUMS`` that is there."""
    kinds = {"image.yaml": _change_image_yaml, "SHA256SUMS": _change_checksums}
    versions = tree.directories(6)
    known = [
        (number, kind)
        for number, version in enumerate(versions)
        for kind in kinds
        if tree.is_there(f"{version}/{kind}")
    ]
    chosen = choose(known, change.where)
    if chosen is not None:
        number, kind = chosen
        kinds[kind](tree, Change("", number, change.what, change.how))


def _link_settings(tree: TwinTree, change: Change) -> None:
    """Make a link of a settings file: to its sibling, into a version, or out."""
    directory = tree.directories(1 + change.where % 5)
    above = choose(directory, change.how)
    if above is None:
        return
    version = os.path.basename(choose(list(tree.below(above)), change.how) or "x")
    if change.what % 4 == 0:
        tree.write_settings(f"{above}/{version}/.settings", _SETTINGS["requirements"][0], 1)
    targets = (f"{version}/.settings", ".requirements", "BASE/outside/.requirements", "../x")
    name = DOTFILES[change.what % 2]
    tree.symlink(targets[change.what % 4], f"{above}/{name}")


def _change_link_target(tree: TwinTree, change: Change) -> None:
    """Change what a link of a settings file leads to."""
    contents = _SETTINGS["requirements"]
    for version in tree.directories(6):
        if tree.is_there(f"{version}/.settings"):
            content = contents[change.what % len(contents)]
            tree.write_settings(f"{version}/.settings", content, change.how)
            return


def _change_image_yaml(tree: TwinTree, change: Change) -> None:
    if (version := tree.version(change.where)) is not None:
        path = f"{version}/image.yaml"
        if change.what % 8 == 7:
            tree.remove(path)
        elif change.what % 8 == 6:
            tree.symlink("BASE/outside/image.yaml", path)
        else:
            contents = _SETTINGS["yaml"]
            content = contents[change.what % len(contents)]
            tree.write(path, content, tree.new_time_ns(change.how))


def _change_checksums(tree: TwinTree, change: Change) -> None:
    """Write a SHA256SUMS: right, wrong, torn, or of other files; or remove it."""
    version = tree.version(change.where)
    if version is None:
        return
    lines = []
    for path in tree.files(version):
        one = Path(tree.roots[0], path)
        if one.is_file() and one.stat().st_size < 1 << 20:  # not a FIFO
            digest = hashlib.sha256(one.read_bytes()).hexdigest()
            lines.append(f"{digest}  {one.name}\n")
    text = "".join(lines)
    texts = (text, text, text.swapcase(), f"{'0' * 64}  rootfs.squashfs\n", text[:-20], "", "x  y")
    path = f"{version}/SHA256SUMS"
    if change.what % 8 == 7:
        tree.remove(path)
    else:
        content = os.fsencode(texts[change.what % 8])
        tree.write(path, content, tree.new_time_ns(change.how))


def _change_mode(tree: TwinTree, change: Change) -> None:
    """Change who may read a file or a directory; its owner always may."""
    depth = 1 + change.where % 6
    path = choose(tree.directories(depth), change.what)
    if path is not None and depth == 6 and change.how % 2:
        path = choose(tree.files(path), change.what) or path
    if path is None:
        return
    is_directory = tree.is_directory(path)
    mode = _MODES[change.how % len(_MODES)] | (0o700 if is_directory else 0)
    for one in tree.paths(path):
        with suppress(OSError):
            os.chmod(one, mode)


def _add_bad_name(tree: TwinTree, change: Change) -> None:
    """Put a version below a name that fits nowhere, or files where no versions are."""
    depth = 1 + change.where % 5
    above = choose(tree.directories(depth), change.what)
    if above is None:
        return
    if change.how % 4 == 0:
        tree.write(f"{above}/rootfs.squashfs", content_of("rootfs.squashfs", 0), OLD_NS)
    elif change.how % 4 == 1:
        tree.write(f"{above}/{VERSIONS[change.what % 5]}", b"file", OLD_NS)
    else:
        parts = ("debian", "12", "amd64", "default")[depth:]
        name = _BAD_NAMES[change.how % len(_BAD_NAMES)]
        version = "/".join((above, name, *parts))
        tree.make_version(version, _WHOLE[0], 30, 0)


def _remove_bad_name(tree: TwinTree, change: Change) -> None:
    odd = [
        path
        for depth in range(2, 7)
        for path in tree.directories(depth)
        if os.path.basename(path) in _BAD_NAMES or os.path.basename(path) == "odd64"
    ]
    if (path := choose(odd, change.where)) is not None:
        tree.remove(path)


def _corrupt(tree: TwinTree, change: Change) -> None:
    """Change the last byte of a disk as a failing controller does; its stamp stays."""
    path = tree.file(change)
    if path is None or not path.endswith(DISKS):
        return
    for one in tree.paths(path):
        with suppress(OSError):
            status = os.stat(one)
            if not os.path.isfile(one) or not 100 < status.st_size < 1 << 20:
                return
            with open(one, "r+b") as file:
                content = file.read()
                tree.right.setdefault(path, content)
                file.seek(-1, os.SEEK_END)
                file.write(bytes([content[-1] ^ 1]))
            os.utime(one, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _repair(tree: TwinTree, change: Change) -> None:
    """Put the right bytes back, with the times of the file, as ``cp -p`` does."""
    path = choose(sorted(tree.right), change.where)
    if path is None:
        return
    right = tree.right.pop(path)
    for one in tree.paths(path):
        status = _status(one)
        if status is not None and os.path.isfile(one) and status.st_size == len(right):
            with open(one, "r+b") as file:
                file.write(right)
            os.utime(one, ns=(status.st_mtime_ns, status.st_mtime_ns))


CHANGES: dict[str, Callable[[TwinTree, Change], None]] = {
    "add a new version": _add_new_version,
    "add a version": _add_version,
    "add a dated version": _add_dated_version,
    "remove a version": _remove_version,
    "rename a version": _rename_version,
    "move a version": _move_version,
    "copy a version": _copy_version,
    "move a product": _move_product,
    "remove a product": _remove_product,
    "hide a stream": _hide_stream,
    "add a file": _add_file,
    "remove a file": _remove_file,
    "rename a file": _rename_file,
    "swap files": _swap_files,
    "touch a file": _touch_file,
    "change a file": _change_file,
    "spoil a file": _spoil_file,
    "link a file": _link_file,
    "symlink a file": _symlink_file,
    "symlink a version": _symlink_version,
    "change settings": _change_settings,
    "rewrite settings": _rewrite_settings,
    "link settings": _link_settings,
    "change a link's target": _change_link_target,
    "change an image.yaml": _change_image_yaml,
    "change a SHA256SUMS": _change_checksums,
    "change a companion": _change_companion,
    "change a mode": _change_mode,
    "add a bad name": _add_bad_name,
    "remove a bad name": _remove_bad_name,
}
"""What people and programs do to a tree."""

DAMAGES: dict[str, Callable[[TwinTree, Change], None]] = {"corrupt": _corrupt, "repair": _repair}
"""What a failing disk does, and what is done about it."""

"""Random trees: no traceback, and a catalogue that every client accepts."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from fastindex.cli.main import main
from tests.support import client_model
from tests.support.sizes import sized
from tests.support.trees import published, sha256, version, write_tree

ODD = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=6
).filter(lambda name: name not in {".", ".."})
BYTES = st.binary(min_size=1, max_size=4).map(
    lambda raw: os.fsdecode(raw.replace(b"/", b"-").replace(b"\0", b"-").replace(b".", b"-"))
)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
).map(lambda value: str(value).replace("'", '"').encode("utf-8", "replace"))
DOTFILE = st.one_of(
    JSON, st.binary(max_size=20), st.just(b'{"secureboot": "false"}'), st.just(b'{"nesting": 1}')
)
ITEMS = st.one_of(
    JSON,
    st.binary(max_size=40),
    st.builds(
        lambda name, digest, size, key: (
            f'{{"{name}": {{"ftype": "squashfs", "path": "x/{name}", "size": {size}, '
            f'"sha256": "{digest}", "combined_squashfs_sha256": "{digest}"{key}}}}}'
        ).encode(),
        st.sampled_from(["incus.tar.xz", "lxd.tar.xz", "rootfs.squashfs", "disk.qcow2"]),
        st.sampled_from(["A" * 64, "zz" * 32, "\\u0000" * 64, "short"]),
        st.integers(0, 3),
        st.sampled_from(["", ', "key": ""', ', "key": "0000000000000000"', ', "key": 5']),
    ),
)
FILE = st.sampled_from(
    [
        "incus.tar.xz",
        "incus.tar.gz",
        "lxd.tar.xz",
        "rootfs.squashfs",
        "root.squashfs",
        "rootfs.tar.xz",
        "disk.qcow2",
        "disk1.img",
        "incus_combined.tar.xz",
        "rootfs.20240505_05:24.vcdiff",
        "rootfs.squashfs.part",
        "meta.tar.xz",
    ]
)
CONTENT = st.one_of(
    st.binary(max_size=3),
    st.binary(max_size=3),
    st.none(),  # a directory in a file's place
    st.sampled_from(["/etc/hostname", "loop", "../../x", "rootfs.squashfs", "missing"]),
)
ANY_FILES = st.dictionaries(st.one_of(FILE, FILE, FILE, ODD), CONTENT, max_size=6)
WHOLE_FILES = st.fixed_dictionaries(
    {"incus.tar.xz": st.binary(max_size=3), "rootfs.squashfs": st.binary(max_size=3)},
    optional={".items.json": ITEMS, "lxd.tar.xz": CONTENT, "disk.qcow2": CONTENT},
)
VERSION = st.builds(
    lambda parts, odd, place, files: (
        [*parts[:place], odd, *parts[place + 1 :]] if place < len(parts) else list(parts),
        files,
    ),
    st.tuples(
        st.sampled_from(["debian", "alpine"]),
        st.sampled_from(["12", "3.20"]),
        st.sampled_from(["amd64", "x86_64", "arm64"]),
        st.sampled_from(["default", "cloud"]),
        st.sampled_from(["20240505_05:24", "20240506_05:24", "202405070524"]),
    ),
    ODD | BYTES,
    st.integers(0, 14),  # two of three names are good throughout
    WHOLE_FILES | WHOLE_FILES | ANY_FILES,
)
DOTFILES = st.dictionaries(
    st.sampled_from(
        [
            "images/.requirements",
            "images/debian/.lxd_requirements",
            "images/debian/12/.requirements",
            "images/debian/12/amd64/default/.requirements",
        ]
    ),
    DOTFILE,
    max_size=2,
)


tree_count = sized("--trees", short=150, full=2000)


def test_any_tree_gives_a_catalogue_that_clients_accept(
    capfd: pytest.CaptureFixture[str], tree_count: int
) -> None:
    @settings(max_examples=tree_count, suppress_health_check=[HealthCheck.too_slow])
    @given(
        versions=st.lists(VERSION, min_size=1, max_size=5), dotfiles=DOTFILES, force=st.booleans()
    )
    def check(
        versions: list[tuple[list[str], dict[str, bytes | str | None]]],
        dotfiles: dict[str, bytes],
        force: bool,
    ) -> None:
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            write_tree(root, version("sound/1/amd64/default/20240505_05:24"))
            for tree in (
                {f"images/{'/'.join(parts)}/{name}": content for name, content in files.items()}
                for parts, files in versions
            ):
                plant(root, tree)
            plant(root, dotfiles)
            for arguments in (["--print"], [], [], ["--rehash"]):
                code = main([*arguments, *(["--force"] if force else []), "-j1", directory])
                assert code in {0, 3}
                assert "Traceback" not in capfd.readouterr().err
            event(f"exit code {code}")
            assert "sound:1:amd64:default 20240505_05:24" in published(root)
            for client in ("incus", "lxd"):
                check_images(root, client)

    check()


def plant(root: Path, tree: dict[str, bytes | str | None] | dict[str, bytes]) -> None:
    """Write what of ``tree`` the file system takes: random names may collide."""
    for path, content in tree.items():
        try:
            write_tree(root, {path: content})
        except OSError:
            event("the file system refused a name")


def check_images(root: Path, client: str) -> None:
    seen = client_model.images(root, client)
    event(f"{min(len(seen), 4)} images")
    for fingerprint, images in seen.items():
        (image,) = images
        contents = [(root / file["path"]).read_bytes() for file in image["files"]]
        assert fingerprint == sha256(*contents)
        for file, content in zip(image["files"], contents, strict=True):
            assert (file["size"], file["sha256"]) == (len(content), sha256(content))
            assert (root / file["path"]).resolve().is_relative_to(root.resolve())

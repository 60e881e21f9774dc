"""Random hostile uploads beside good products: those stay as they are, byte for byte."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from fastindex.cli.main import main
from tests.fuzz.targets import TARGETS
from tests.support.faults.hostile import GOOD, entries
from tests.support.faults.hostile_trees import ALIENS, OUTSIDE, VERSION, plant_outside, whole
from tests.support.sizes import sized
from tests.support.trees import version, write_tree

tree_count = sized("--trees", short=30, full=1000)

NASTY = st.text(
    st.sampled_from("aA.:,%~#?*\\\"'`<>&;$ \n\r\t\x1b\x7f\u202e\u200b\u2028\u0300é\ud800\udcff-_0"),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in {".", ".."} and not name.startswith("\ud800"))
LEVELS = st.tuples(
    NASTY | st.sampled_from(["debian", "evil", "Debian", "n" * 255]),
    NASTY | st.sampled_from(["12", "current"]),
    NASTY | st.sampled_from(["amd64", "arm64", "AMD64"]),
    NASTY | st.sampled_from(["evil", "default", "amd64"]),
    NASTY.map("20240505".__add__) | st.sampled_from([VERSION, "20240230", "99999999"]),
)
SETTINGS = {
    ".requirements": "requirements",
    ".lxd_requirements": "requirements",
    ".product.toml": "product_toml",
    f"{VERSION}/image.yaml": "image_yaml",
    f"{VERSION}/.items.json": "cache",
    f"{VERSION}/incus_combined.tar.gz": "tarball",
}
KINDS = [kind for kind in ALIENS if "2,000" not in kind]
"""Without what takes seconds to plant; test_hostile plants it at each place."""
TARGET_OF = {os.path.basename(name): target for name, target in SETTINGS.items()}


@st.composite
def uploads(draw: st.DrawFn) -> tuple[tuple[str, ...], int, str, str, bytes]:
    """Draw a version's path, how deep an alien stands, its name and kind, or bytes instead."""
    names = draw(LEVELS)
    depth = draw(st.integers(0, 5))
    name = draw(st.sampled_from([*TARGET_OF, "incus.tar.xz", "rootfs.squashfs", "disk.qcow2"]))
    kind = draw(st.sampled_from(["", "", *KINDS]))
    seeds = TARGETS[TARGET_OF.get(name, "state")].seeds()
    content = draw(st.sampled_from(seeds) | st.binary(max_size=40))
    return names, depth, name, kind, content


def plant(root: Path, upload: tuple[tuple[str, ...], int, str, str, bytes]) -> None:
    """Put an upload into the tree, as far as the file system takes it; nothing good is touched."""
    names, depth, name, kind, content = upload
    directory = root / "images" / Path(*names)
    if "/".join(names[:4]) in GOOD:
        return
    with suppress(OSError, UnicodeEncodeError):
        whole(directory)
        place = (directory, *directory.parents)[5 - depth] / name if depth else directory / name
        if str(place.parent.relative_to(root / "images")) in {"debian", "debian/12"}:
            return  # above good products only their operator writes
        place.unlink(missing_ok=True)
        if kind:
            ALIENS[kind](place)
        else:
            place.write_bytes(content)
        event(kind or "bytes")


def test_good_products_stay_as_they_are(capfd: pytest.CaptureFixture[str], tree_count: int) -> None:
    @settings(max_examples=tree_count, suppress_health_check=[HealthCheck.too_slow])
    @given(drawn=st.lists(uploads(), min_size=1, max_size=4))
    def check(drawn: list[tuple[tuple[str, ...], int, str, str, bytes]]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory) / "mirror"
            plant_outside(Path(directory) / OUTSIDE)
            for product in GOOD:
                write_tree(root, version(f"{product}/{VERSION}"))
            assert main(["-qj1", str(root)]) == 0
            good = entries(root)
            for upload in drawn:
                plant(root, upload)
            capfd.readouterr()
            for words in (["-j1"], ["-j1", "--rehash"], ["verify"], ["list"], ["diff"]):
                assert main([*words, str(root)]) in {0, 3}
            told = capfd.readouterr()
            assert "Traceback" not in told.err
            assert all(line.isprintable() for line in (told.err + told.out).splitlines())
            keys = {key for key, _ in good}
            assert [(key, entry) for key, entry in entries(root) if key in keys] == good

    check()

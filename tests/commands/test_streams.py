"""Several streams are one publication, whichever of them a run builds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import client_model
from tests.support.command import Run
from tests.support.trees import (
    OLD_NS,
    Files,
    catalogue,
    in_stream,
    published,
    stamps,
    version,
    write_file,
    write_tree,
)

NAME = "20240505_05:24"
DEBIAN = f"debian/12/amd64/default/{NAME}"
KEY = f"debian:12:amd64:default {NAME}"
ALL = ("--stream", "images", "--stream", "daily", "--stream", "weekly")
STREAMS = ALL[1::2]


def copy(root: Path, old: str, new: str) -> None:
    (root / new).parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(root / old, root / new)


def verify(fastindex: Run, root: Path) -> int:
    return fastindex("verify", "-q", root).returncode


def names_of(root: Path, key: str, stream: str = "images") -> list[str]:
    names: str = catalogue(root, stream)["products"][key]["aliases"]
    return names.split(",")


@pytest.fixture
def root(fastindex: Run, tmp_path: Path) -> Path:
    """Return a mirror with debian in its stream ``images``, and something in ``daily``."""
    tree = version(DEBIAN) | in_stream("daily", version(f"fedora/40/amd64/default/{NAME}"))
    made = write_tree(tmp_path / "root", tree)
    assert fastindex("-q", made).returncode == 0
    assert fastindex("-q", "--stream", "daily", made).returncode == 0
    return made


@pytest.mark.parametrize("victim", ["images", "daily"])
def test_a_copy_in_a_stream_that_is_built_alone_takes_nothing(
    fastindex: Run, root: Path, victim: str
) -> None:
    other = "daily" if victim == "images" else "images"
    (owner,) = (root / victim).glob("*/*/*/*/*")
    copy(root, str(owner.relative_to(root)), f"{other}/aaa/1/amd64/default/{NAME}")
    before = (root / f"streams/v1/{victim}.json").read_bytes()
    told = fastindex("--stream", other, root)
    assert told.returncode == 3
    assert f"{other}/aaa/1/amd64/default/{NAME}/rootfs.squashfs: the same image" in told.stderr
    assert (root / f"streams/v1/{victim}.json").read_bytes() == before
    assert verify(fastindex, root) == 0
    for client in ("incus", "lxd"):
        assert all(len(found) == 1 for found in client_model.images(root, client).values())
    assert fastindex("--stream", other, root).returncode == 3  # and it stays so
    assert fastindex("--stream", victim, root).returncode == 0


def test_an_alias_of_another_streams_directories_cannot_be_taken(
    fastindex: Run, root: Path
) -> None:
    write_tree(root, in_stream("daily", version(f"evil/1/amd64/default/{NAME}")))
    said = b'aliases = ["debian/12", "debian/12/amd64", "mine"]\n'
    write_tree(root, {"daily/evil/.product.toml": said})
    told = fastindex("--stream", "daily", root)
    assert "the alias 'debian/12' belongs to images/debian/12/amd64/default" in told.stderr
    assert names_of(root, "evil:1:amd64:default", "daily") == ["evil/1/default", "evil/1", "mine"]
    assert verify(fastindex, root) == 0


@pytest.mark.parametrize("said", ["", 'aliases = ["own"]', "replace_aliases = true"])
def test_an_empty_directory_of_another_stream_keeps_its_aliases(
    fastindex: Run, root: Path, said: str
) -> None:
    """Whether its stream is built, too, or not."""
    (root / "images/ubuntu/24.04/amd64/default").mkdir(parents=True)
    write_tree(root, {"images/ubuntu/24.04/amd64/default/.product.toml": said.encode()})
    write_tree(root, in_stream("daily", version(f"evil/1/amd64/default/{NAME}")))
    write_tree(root, {"daily/evil/.product.toml": b'aliases = ["ubuntu/24.04"]\n'})
    is_given_up = said == "replace_aliases = true"
    for streams in (("daily",), ("images",), ("daily",), ("daily", "images"), ("daily",)):
        # Forget the last run, so that this one looks at everything.
        (root / "streams/.snapshot.json").unlink(missing_ok=True)
        told = fastindex(*(word for stream in streams for word in ("--stream", stream)), root)
        belongs = "the alias 'ubuntu/24.04' belongs to images/ubuntu/24.04/amd64/default"
        assert (belongs in told.stderr) == (not is_given_up and "daily" in streams)
        found = names_of(root, "evil:1:amd64:default", "daily")
        assert found == ["evil/1/default", "evil/1", *["ubuntu/24.04"] * is_given_up]


def test_an_alias_goes_back_to_the_product_that_is_named_so(fastindex: Run, root: Path) -> None:
    """It was free when the other stream was published."""
    write_tree(root, in_stream("daily", version(f"evil/1/amd64/default/{NAME}")))
    write_tree(root, {"daily/evil/.product.toml": b'aliases = ["ubuntu/24.04", "mine"]\n'})
    fastindex("--stream", "daily", root)
    key = "evil:1:amd64:default"
    assert "ubuntu/24.04" in names_of(root, key, "daily")
    write_tree(root, version(f"ubuntu/24.04/amd64/default/{NAME}"))
    would = fastindex("diff", root)
    assert would.returncode == 3
    assert f"~ daily {key} (aliases, requirements or other fields)" in would.stdout
    assert fastindex(root).returncode == 0
    assert names_of(root, key, "daily") == ["evil/1/default", "evil/1", "mine"]
    assert "ubuntu/24.04" in names_of(root, "ubuntu:24.04:amd64:default")
    assert fastindex("--stream", "daily", root).returncode == 0
    assert names_of(root, key, "daily") == ["evil/1/default", "evil/1", "mine"]


def test_what_another_stream_loses_is_told_once(fastindex: Run, root: Path) -> None:
    """A run from nothing finds it gone; so does one that remembers the last."""
    write_tree(root, in_stream("daily", version(f"evil/1/amd64/default/{NAME}")))
    write_tree(root, {"daily/evil/.product.toml": b'aliases = ["ubuntu/24.04"]\n'})
    fastindex("--stream", "daily", root)
    write_tree(root, version(f"ubuntu/24.04/amd64/default/{NAME}"))
    told = "the alias 'ubuntu/24.04' belongs to images/ubuntu/24.04/amd64/default"
    assert told in fastindex(root).stderr
    assert told not in fastindex(root).stderr
    (root / "streams/.snapshot.json").unlink()
    assert told not in fastindex(root).stderr


def test_a_run_with_nothing_to_do_sees_that_another_stream_has_changed(
    fastindex: Run, root: Path
) -> None:
    copy(root, f"images/{DEBIAN}", f"daily/aaa/1/amd64/default/{NAME}")
    assert fastindex(root).returncode == 0
    assert fastindex("--stream", "daily", root).returncode == 3
    shutil.rmtree(root / "images/debian/12")
    write_tree(root, version(f"debian/11/amd64/default/{NAME}"))
    assert fastindex("--force", root).returncode == 0
    # Nothing has changed in daily itself, but it may have the image now.
    assert fastindex("--stream", "daily", root).returncode == 0
    assert f"aaa:1:amd64:default {NAME}" in published(root, "daily")
    assert verify(fastindex, root) == 0


def test_a_stream_that_is_refused_does_not_block_the_others(fastindex: Run, root: Path) -> None:
    write_tree(root, version(f"debian/13/amd64/default/{NAME}"))
    write_tree(root, in_stream("daily", version(f"fedora/40/amd64/default/{NAME[:-1]}5")))
    shutil.rmtree(root / "images/debian/12")
    (root / "images/debian/13").rename(root / ".13")
    write_tree(root, version(f"debian/14/amd64/default/{NAME}"))
    told = fastindex("--stream", "images", "--stream", "daily", root)
    assert told.returncode == 3
    assert "warning: images: 1 of the 1 published versions would be dropped" in told.stderr
    assert "1 version left out" in told.stderr
    assert published(root) == {KEY}
    assert len(published(root, "daily")) == 2
    again = fastindex("--stream", "images", "--stream", "daily", root)
    assert (again.returncode, published(root)) == (3, {KEY})
    assert fastindex(root).returncode == 1  # all of the run's streams are refused
    assert fastindex("--force", "--stream", "images", "--stream", "daily", root).returncode == 0
    assert published(root) == {f"debian:14:amd64:default {NAME}"}


def test_what_a_refused_stream_keeps_nobody_else_gets(fastindex: Run, root: Path) -> None:
    """Its images leave the tree for another stream, but it stays as it is published."""
    copy(root, f"images/{DEBIAN}", f"daily/debian/12/amd64/default/{NAME}")
    shutil.rmtree(root / "images/debian")
    both = ("--stream", "daily", "--stream", "images")
    told = fastindex(*both, root)
    assert told.returncode == 3
    assert "warning: images: the stream has no versions to publish" in told.stderr
    assert published(root) == {KEY}
    assert published(root, "daily") == {f"fedora:40:amd64:default {NAME}"}
    assert fastindex(*both, "--force", root).returncode == 0
    assert KEY in published(root, "daily")
    assert published(root) == set()
    assert verify(fastindex, root) == 0


def test_streams_that_are_all_refused_fail_the_run(fastindex: Run, root: Path) -> None:
    for stream in ("images", "daily"):
        shutil.rmtree(root / stream)
        (root / stream).mkdir()
    before = stamps(root / "streams/v1")
    for options in ((), ("--dry-run",)):
        told = fastindex("--stream", "images", "--stream", "daily", *options, root)
        assert told.returncode == 1
        assert "so nothing was published" in told.stderr
    assert stamps(root / "streams/v1") == before


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"format":"index:1.0","ind'])
def test_a_lost_index_is_made_anew_from_the_product_files(
    fastindex: Run, root: Path, content: bytes | None
) -> None:
    index = root / "streams/v1/index.json"
    before = index.read_bytes()
    index.unlink()
    if content is not None:
        write_file(index, content)
    told = fastindex(root)
    assert told.returncode == 0
    assert "warning: streams/v1/index.json: cannot be used" in told.stderr
    assert "(other streams: daily)" in told.stderr
    assert index.read_bytes() == before
    assert "warning:" not in fastindex(root).stderr


KILLED = """
import os, sys
left, real = int(sys.argv.pop(1)), os.rename
def rename(old, new, **options):
    global left
    real(old, new, **options)
    if new.endswith(".json") and not new.startswith("."):
        left -= 1
        if not left:
            os.kill(os.getpid(), 9)
os.rename = rename
from fastindex.cli import run
sys.argv[0] = "fastindex"
run()
"""


def build_and_kill(root: Path, *arguments: str, after: int) -> int:
    """Build; kill the run after so many renames of catalogue files. Return its exit code."""
    command = [sys.executable, "-c", KILLED, str(after), "-q", *arguments, str(root)]
    return subprocess.run(command, check=False, timeout=60, stderr=subprocess.DEVNULL).returncode


def withdraw(root: Path, versions: list[str]) -> None:
    """Withdraw versions as ``remove`` records it, so that their files are still there."""
    one = {"is_asked_for": True, "unpublished_at": OLD_NS / 1e9 + 1}
    record = dict.fromkeys(versions, one)
    write_tree(root, {"streams/.withdrawn.json": json.dumps(record).encode()})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a-images b-daily", "a-daily b-daily"),
        ("a-images b-daily", "a-images b-images"),
        ("a-images b-daily", "a-daily b-images"),  # they swap
        ("a-images b-daily c-weekly", "a-daily b-weekly c-images"),
        ("a-images b-daily c-weekly", "a-weekly b-images c-daily"),
        ("a-images b-daily c-weekly", "a-images b-images c-images"),
    ],
)
def test_images_that_move_between_streams_are_never_published_twice(
    fastindex: Run, tmp_path: Path, before: str, after: str
) -> None:
    """Wherever a run is killed, clients find each image at most once, and its files."""
    images = [place.split("-")[0] for place in before.split()]
    tree: Files = {}
    for stream in STREAMS:
        tree |= in_stream(stream, version(f"kept-{stream}/1/amd64/default/{NAME}"))
        for image in images:
            tree |= in_stream(stream, version(f"{image}/1/amd64/default/{NAME}"))
    root = write_tree(tmp_path / "root", tree)

    def choose(layout: str) -> None:
        chosen = {f"{place.split('-')[1]}/{place.split('-')[0]}" for place in layout.split()}
        every = {f"{stream}/{image}" for stream in STREAMS for image in images}
        withdraw(root, [f"{place}/1/amd64/default/{NAME}" for place in every - chosen])

    choose(before)
    assert fastindex("-q", *ALL, root).returncode == 0
    assert verify(fastindex, root) == 0
    old = tmp_path / "old"
    shutil.copytree(root / "streams", old)
    for number in range(1, 10):
        shutil.rmtree(root / "streams")
        shutil.copytree(old, root / "streams")
        choose(after)
        code = build_and_kill(root, *ALL, after=number)
        assert code in (0, -9)
        assert verify(fastindex, root) == 0, number
        for client in ("incus", "lxd"):
            seen = client_model.images(root, client) if code == 0 else {}
            assert all(len(found) == 1 for found in seen.values())
        if code == 0:
            break
        assert fastindex("-q", *ALL, root).returncode == 0  # the next run finishes it
        assert verify(fastindex, root) == 0
    assert number > 2
    for place in after.split():
        image, stream = place.split("-")
        assert f"{image}:1:amd64:default {NAME}" in published(root, stream)


def test_an_image_that_is_promoted_is_in_one_stream_whenever_the_run_is_killed(
    fastindex: Run, tmp_path: Path
) -> None:
    daily = version(f"debian/13/amd64/default/{NAME}") | version(f"debian/12/amd64/default/{NAME}")
    tree = version(f"debian/11/amd64/default/{NAME}") | in_stream("daily", daily)
    root = write_tree(tmp_path / "root", tree)
    both = ALL[:4]
    assert fastindex("-q", *both, root).returncode == 0
    (root / "images/debian/12/amd64").mkdir(parents=True)
    (root / "daily/debian/12/amd64/default").rename(root / "images/debian/12/amd64/default")
    assert build_and_kill(root, *both, after=2) == -9  # the index, and the file of daily
    assert verify(fastindex, root) == 0
    assert published(root) | published(root, "daily") == {
        f"debian:{release}:amd64:default {NAME}" for release in (11, 13)
    }
    assert fastindex("-q", *both, root).returncode == 0
    assert f"debian:12:amd64:default {NAME}" in published(root)


def test_two_streams_that_share_an_alias_are_told_of_when_either_is_built(
    fastindex: Run, root: Path
) -> None:
    write_tree(root, in_stream("daily", version(f"debian/12/amd64/default/{NAME}6")))
    write_file(
        root / f"daily/debian/12/amd64/default/{NAME}6/rootfs.squashfs",
        (root / f"images/{DEBIAN}/rootfs.squashfs").read_bytes() + b"x",
    )
    told = fastindex("--stream", "daily", root)
    assert (
        "shares 2 aliases with images/debian/12/amd64/default, such as 'debian/12'" in told.stderr
    )


def test_the_catalogue_of_another_stream_costs_nothing_where_nothing_changes(
    fastindex: Run, root: Path
) -> None:
    before = stamps(root / "streams/v1")
    assert fastindex(root).returncode == 0
    assert fastindex("--stream", "daily", root).returncode == 0
    assert stamps(root / "streams/v1") == before


def test_a_published_stream_whose_directory_is_gone_is_told_by_every_run(
    fastindex: Run, tmp_path: Path
) -> None:
    tree = version("debian/12/amd64/default/20240505") | in_stream(
        "daily", version("alpine/3.20/amd64/default/20240505")
    )
    root = write_tree(tmp_path / "root", tree)
    assert fastindex("--stream", "images", "--stream", "daily", root).returncode == 0
    assert fastindex(root).returncode == 0
    (root / "daily").rename(tmp_path / "unmounted")
    for _ in range(2):
        result = fastindex(root)
        assert result.returncode == 3
        assert "streams/v1/daily.json: is published, but" in result.stderr
        assert "mount it" in result.stderr
    (tmp_path / "unmounted").rename(root / "daily")
    assert fastindex(root).returncode == 0

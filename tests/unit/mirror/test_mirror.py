"""Where a mirror's files are: absolute paths, streams, bounds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastindex
from fastindex.errors import LockHeldError, TreeError, UsageError
from fastindex.mirror.mirror import Mirror, make_absolute
from tests.support.command import UNMEASURED
from tests.support.trees import write_tree

VERSION = "images/debian/12/amd64/default/20240505"


def test_every_directory_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mirror = Mirror.at("root/", output="./out", cache_dir=Path("caches"))
    assert mirror.root == f"{tmp_path}/root"
    assert mirror.output == f"{tmp_path}/out"
    assert mirror.cache_dir == f"{tmp_path}/caches"
    assert mirror.streams == ("images",)
    alone = Mirror.at(tmp_path)
    assert (alone.root, alone.output, alone.cache_dir) == (str(tmp_path), str(tmp_path), None)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("here", "here"),
        ("here/mirror/.", "here/mirror"),
        ("here//mirror/", "here/mirror"),
        ("here/..", "there"),
        ("here/../mirror", "there/mirror"),
        ("here/../../here", "here"),
        ("there/../here", "here"),
        ("there/below/here", "there/below/here"),
        ("there/here/../here", "there/below/here"),
    ],
)
def test_only_symlinks_before_dots_are_resolved(tmp_path: Path, path: str, expected: str) -> None:
    """``here`` is ``there/below``, and so ``here/..`` is ``there``."""
    write_tree(tmp_path, {"there/below": None, "here": "there/below", "there/here": "below/x"})
    (tmp_path / "there/below/x").mkdir()
    assert make_absolute(f"{tmp_path}/{path}") == f"{tmp_path}/{expected}"


@pytest.mark.parametrize("path", ["", b"", b"/srv/images", "a\0b", "a\ud800b"])
@pytest.mark.parametrize("place", ["root", "output", "cache_dir"])
def test_what_is_not_a_path_is_wrong_usage(path: str, place: str) -> None:
    places = {"root": "/srv/images", place: path}
    with pytest.raises(UsageError, match="cannot be a path"):
        Mirror.at(places.pop("root"), **places)


@pytest.mark.parametrize(
    ("streams", "words"),
    [
        ("daily", r"must be a sequence of names, such as \('daily',\)"),
        ([], "at least one"),
        (["images", "images"], "each of them once"),
        ([""], "not a valid name"),
        (["streams"], "not a valid name"),
        (["index"], "not a valid name"),
        ([".hidden"], "not a valid name"),
        (["a/b"], "not a valid name"),
        (["a:b"], "not a valid name"),
        (["a,b"], "not a valid name"),
        (["a\udcff"], "not a valid name"),
        ([b"images"], "not a valid name"),
    ],
)
def test_impossible_streams_are_wrong_usage(streams: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Mirror.at("/srv/images", streams=streams)
    with pytest.raises(UsageError, match=words):
        Mirror.at("/srv/images").with_streams(streams)
    with pytest.raises(fastindex.UsageError, match=words):
        fastindex.Mirror("/srv/images", streams=streams)


def test_bounds_are_the_real_directories_of_the_root_and_its_streams(tmp_path: Path) -> None:
    tree = {"disk/daily": None, "root/images": None, "root/daily": "../disk/daily", "link": "root"}
    write_tree(tmp_path, tree)
    mirror = Mirror.at(tmp_path / "link", streams=("images", "daily"))
    assert mirror.root == f"{tmp_path}/link"
    assert mirror.streams == ("images", "daily")
    root = f"{tmp_path}/root"
    assert mirror.bounds == (f"{root}/", f"{root}/images/", f"{tmp_path}/disk/daily/")
    assert mirror.with_streams(["images"]).bounds == (f"{root}/", f"{root}/images/")
    everything = (f"{root}/", f"{root}/images/", f"{tmp_path}/disk/daily/")
    assert Mirror.at(root, streams=iter(["images", "daily"])).bounds == everything  # type: ignore[arg-type]


def test_other_streams_are_in_the_same_places(tmp_path: Path) -> None:
    mirror = Mirror.at(tmp_path / "root", output=tmp_path / "out", cache_dir=tmp_path / "caches")
    other = mirror.with_streams(["daily"])
    assert other.streams == ("daily",)
    assert (other.root, other.output, other.cache_dir) == (
        mirror.root,
        mirror.output,
        mirror.cache_dir,
    )


def test_caches_are_in_the_tree_or_in_their_own_and_state_is_in_the_output() -> None:
    plain = Mirror.at("/srv/images")
    assert plain.path(VERSION) == f"/srv/images/{VERSION}"
    assert plain.cache_path(VERSION) == f"/srv/images/{VERSION}/.items.json"
    assert plain.state_path(".lock") == "/srv/images/streams/.lock"
    apart = Mirror.at("/srv/images", output="/srv/out", cache_dir="/var/cache/f")
    assert apart.cache_path(VERSION) == f"/var/cache/f/{VERSION}/.items.json"
    assert apart.state_path(".damaged.json") == "/srv/out/streams/.damaged.json"


def test_a_cache_directory_that_is_the_root_means_the_tree(tmp_path: Path) -> None:
    write_tree(tmp_path, {"root": None, "link": "root"})
    for path in ("root", "root/", "link"):
        mirror = Mirror.at(tmp_path / "root", cache_dir=f"{tmp_path}/{path}")
        assert mirror.cache_dir is None
    assert Mirror.at(tmp_path / "root", cache_dir=tmp_path).cache_dir == str(tmp_path)


def test_a_cache_directory_belongs_to_the_root_that_comes_first(tmp_path: Path) -> None:
    """Files of equal paths, sizes and times below two roots need not be equal."""
    write_tree(tmp_path, {"one": None, "two": None, "three": None, "link": "one"})
    caches = tmp_path / "caches"

    def claimed(root: str) -> Mirror:
        return Mirror.at(tmp_path / root, cache_dir=caches).claim_cache_dir()

    assert Mirror.at(tmp_path / "two", cache_dir=caches).cache_dir == str(caches)
    assert claimed("one").cache_dir == str(caches)
    assert (caches / ".root").read_text() == f"{tmp_path}/one\n"
    others = {claimed(root).cache_dir for root in ("two", "three")}
    assert len(others) == 2
    for other in others:
        assert other is not None
        assert Path(other).parent == caches / ".other-roots"
    for root in ("one", "link", "two", "three"):  # from then on, without a claim too
        mirror = Mirror.at(tmp_path / root, cache_dir=caches)
        assert mirror.cache_dir == claimed(root).cache_dir
        assert mirror.with_streams(["daily"]).cache_dir == mirror.cache_dir
        assert mirror.claim_cache_dir() == mirror
    assert claimed("link").cache_dir == str(caches)
    assert (caches / ".root").read_text() == f"{tmp_path}/one\n"


def test_a_root_with_its_caches_in_the_tree_claims_nothing(tmp_path: Path) -> None:
    mirror = Mirror.at(tmp_path)
    assert mirror.claim_cache_dir() is mirror
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("owner", [b"", b"/nowhere\n", b"\xff\n", b"x" * 100_000, None])
def test_an_owner_that_cannot_be_read_or_is_another_is_never_replaced(
    tmp_path: Path, owner: bytes | None
) -> None:
    caches = write_tree(tmp_path / "caches", {"x": b""})
    if owner is None:
        (caches / ".root").mkdir()
    else:
        (caches / ".root").write_bytes(owner)
    before = Mirror.at(tmp_path / "root", cache_dir=caches)
    assert before.claim_cache_dir() == before
    is_readable = owner in (b"", b"/nowhere\n")
    assert (before.cache_dir != str(caches)) is is_readable
    assert owner is None or (caches / ".root").read_bytes() == owner


def test_a_cache_directory_that_cannot_be_written_is_as_it_was(tmp_path: Path) -> None:
    write_tree(tmp_path, {"caches": b"a file"})
    mirror = Mirror.at(tmp_path / "root", cache_dir=tmp_path / "caches")
    assert mirror.claim_cache_dir().cache_dir == f"{tmp_path}/caches"


def test_links_are_allowed_below_real_directories(tmp_path: Path) -> None:
    write_tree(tmp_path, {"disk": None, "link": "disk"})
    mirror = Mirror.at(tmp_path / "root", allow_links=[tmp_path / "link", "/srv/../mnt"])
    assert mirror.allowed_links == (f"{tmp_path}/disk/", "/mnt/")
    assert set(mirror.allowed_links) < set(mirror.bounds)
    assert mirror.with_streams(["daily"]).allowed_links == mirror.allowed_links
    assert Mirror.at(tmp_path / "root").allowed_links == ()
    for wrong in ("/mnt", Path("/mnt")):
        with pytest.raises(UsageError, match="must be a sequence of paths"):
            Mirror.at("/srv/images", allow_links=wrong)  # type: ignore[arg-type]
        with pytest.raises(fastindex.UsageError, match="must be a sequence of paths"):
            fastindex.Mirror("/srv/images", allow_links=wrong)  # type: ignore[arg-type]


def test_the_lock_is_one_per_output(tmp_path: Path) -> None:
    mirror = Mirror.at(tmp_path / "root", output=tmp_path / "out")
    with mirror.lock(0):
        with pytest.raises(LockHeldError), Mirror.at("/", output=tmp_path / "out").lock(0):
            pass
        with Mirror.at(tmp_path / "root", output=tmp_path / "other").lock(0):
            pass
    with mirror.lock(0):
        assert (tmp_path / "out/streams/.lock").is_file()


def test_a_root_that_is_not_a_directory_is_told(tmp_path: Path) -> None:
    write_tree(tmp_path, {"file": b""})
    Mirror.at(tmp_path).require_root()
    for name in ("file", "missing"):
        with pytest.raises(TreeError, match=f"{name}: no such directory"):
            Mirror.at(tmp_path / name).require_root()


DEEP = {"debian/12/amd64/default/20240505/incus.tar.xz": b""}


@pytest.mark.parametrize(
    ("tree", "root"),
    [
        ({"mirror/streams/v1/images.json": b"", "mirror/images/debian/x": b""}, "mirror/images"),
        ({"mirror/streams/v1/daily.json": b"", "mirror/daily/debian/x": b""}, "mirror/daily"),
    ],
    ids=["published", "published, another stream"],
)
def test_a_stream_directory_given_for_root_is_told(
    tmp_path: Path, tree: dict[str, bytes], root: str
) -> None:
    write_tree(tmp_path, tree)
    with pytest.raises(TreeError) as caught:
        Mirror.at(tmp_path / root).require_root()
    mirror = tmp_path / "mirror"
    assert str(caught.value) == (
        f"{tmp_path}/{root}: this looks like the stream directory of {mirror}; "
        f"give {mirror} for ROOT"
    )


def test_a_root_without_the_stream_level_is_told(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"mirror/{path}": b"" for path in DEEP})
    with pytest.raises(TreeError, match="mirror: the stream level images/ is missing above debian"):
        Mirror.at(tmp_path / "mirror").require_root()


@pytest.mark.parametrize(
    ("tree", "root", "output"),
    [
        ({"images/.keep": b""}, "images", None),  # a new ROOT that is called so
        ({f"images/images/{path}": b"" for path in DEEP}, "images", None),
        ({"streams/v1/images.json": b"", "images/images/x": b""}, "images", None),
        ({"streams/v1/images.json": b"", "images/.keep": b""}, "images", ""),  # published there
        ({"streams/v1/images.json": b"", "other/.keep": b""}, "other", None),
        ({"images/streams/v1/index.json": b"", **DEEP}, "images", None),
        ({f"daily/{path}": b"" for path in DEEP}, "", None),  # ROOT, of which a stream is missing
        ({f"www/daily/{path}": b"" for path in DEEP}, "", None),
        ({"a/b/c/d/20240505/f": b""}, "", None),
        ({"a/b/amd64/d/lost+found/f": b""}, "", None),
    ],
)
def test_no_other_directory_is_taken_for_a_stream(
    tmp_path: Path, tree: dict[str, bytes], root: str, output: str | None
) -> None:
    write_tree(tmp_path, tree)
    where = None if output is None else tmp_path / output
    Mirror.at(tmp_path / root, output=where).require_root()


def test_a_look_at_what_root_is_follows_no_links(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"elsewhere/{path}": b"" for path in DEEP})
    (tmp_path / "root").mkdir()
    (tmp_path / "root/debian").symlink_to("../elsewhere/debian")
    Mirror.at(tmp_path / "root").require_root()


def test_a_relative_path_needs_a_current_directory(tmp_path: Path) -> None:
    code = """
import os, sys, fastindex
os.rmdir(os.getcwd())
assert fastindex.Mirror("/srv/images").root == "/srv/images"
for path in ("images", "../images"):
    try:
        fastindex.Mirror(path)
    except fastindex.ResourceError as error:
        print(error)
"""
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "gone",
        env={**UNMEASURED, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{path!r}: the current directory has been deleted; give an absolute path"
        for path in ("images", "../images")
    ]

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import fastindex as package
from fastindex.catalogue import drafts
from fastindex.errors import PublishError
from fastindex.formats.simplestreams import encode_piece
from tests.support.catalogues import draft_product_file, publish_drafts
from tests.support.command import Run
from tests.support.trees import (
    catalogue,
    forget_state,
    in_stream,
    product_file,
    published,
    stamps,
    version,
    write_tree,
)

DIGEST = "ab" * 32
DAYS = [f"2024050{day}_05:24" for day in range(1, 8)]


def many(days: list[str] = DAYS) -> dict[str, bytes | str | None]:
    return {
        path: content
        for day in days
        for path, content in version(f"debian/12/amd64/default/{day}").items()
    }


def size_of(day: str) -> int:
    return sum(map(len, many([day]).values()))  # type: ignore[arg-type]  # there are no links


def remove(root: Path, days: list[str]) -> None:
    for day in days:
        (root / f"images/debian/12/amd64/default/{day}").rename(root / f".{day}")


def streams(root: Path) -> dict[str, tuple[int, int]]:
    return stamps(root / "streams/v1")


def test_products_and_versions_are_sorted_and_end_in_a_newline(
    fastindex: Run, tmp_path: Path
) -> None:
    write_tree(tmp_path, {**many(), **version("alpine/3/arm64/x/20240101")})
    fastindex(tmp_path)
    data = (tmp_path / "streams/v1/images.json").read_bytes()
    document = json.loads(data)
    assert data.endswith(b"}\n")
    assert list(document["products"]) == sorted(document["products"])
    for product in document["products"].values():
        assert list(product["versions"]) == sorted(product["versions"])
        for entry in product["versions"].values():
            assert list(entry["items"]) == sorted(entry["items"])


def test_equal_content_is_not_written_again(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, many())
    fastindex(tmp_path)
    before = stamps(tmp_path)
    assert fastindex(tmp_path).returncode == 0
    forget_state(tmp_path)
    assert fastindex("--rehash", tmp_path).returncode == 0
    after = stamps(tmp_path)
    changed = {path for path in before if before[path] != after.get(path)}
    assert {os.path.basename(path) for path in changed} <= {
        ".items.json",
        ".snapshot.json",
        ".products-images.state",
        ".lock",
    }
    assert fastindex(tmp_path).returncode == 0
    assert stamps(tmp_path) == after | {"streams/.lock": stamps(tmp_path)["streams/.lock"]}


def test_files_are_readable_by_the_web_server_whatever_the_umask(
    fastindex: Run, tmp_path: Path
) -> None:
    write_tree(tmp_path, many())
    before = os.umask(0o077)
    try:
        fastindex(tmp_path)
    finally:
        os.umask(before)
    for path in (tmp_path / "streams/v1").iterdir():
        assert path.stat().st_mode & 0o777 == 0o644


def test_the_brake_stops_a_run_that_would_drop_most(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, many())
    fastindex(tmp_path)
    before = streams(tmp_path)
    remove(tmp_path, DAYS[:4])
    result = fastindex(tmp_path)
    assert result.returncode == 1
    assert "4 of the 7 published versions would be dropped" in result.stderr
    assert streams(tmp_path) == before
    dry = fastindex("--dry-run", tmp_path)
    assert dry.returncode == 1
    assert dry.stdout.count("- images debian:12:amd64:default") == 4
    assert "would be dropped" in dry.stderr
    assert fastindex("--force", tmp_path).returncode == 0
    assert len(published(tmp_path)) == 3


def test_half_of_the_versions_may_go(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, many(DAYS[:6]))
    fastindex(tmp_path)
    remove(tmp_path, DAYS[:3])
    assert fastindex(tmp_path).returncode == 0
    assert len(published(tmp_path)) == 3


@pytest.mark.parametrize("published_before", [b"", b"\0" * 100, b'{"products": 1}', b"{"])
def test_a_torn_catalogue_is_replaced(
    fastindex: Run, tmp_path: Path, published_before: bytes
) -> None:
    write_tree(tmp_path, {**many(), "streams/v1/images.json": published_before})
    write_tree(tmp_path, {"streams/v1/index.json": published_before})
    assert fastindex(tmp_path).returncode == 0
    assert len(published(tmp_path)) == 7


def test_an_empty_stream_is_published_only_where_it_was_empty_or_forced(
    fastindex: Run, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    result = fastindex(tmp_path)
    assert result.returncode == 1
    assert "the stream has no versions to publish" in result.stderr
    assert not list(tmp_path.glob("streams/v1/*"))
    assert fastindex("--force", tmp_path).returncode == 0
    assert catalogue(tmp_path)["products"] == {}
    assert fastindex(tmp_path).returncode == 0
    write_tree(tmp_path, many(DAYS[:1]))
    assert fastindex(tmp_path).returncode == 0
    remove(tmp_path, DAYS[:1])
    assert fastindex(tmp_path).returncode == 1
    assert len(published(tmp_path)) == 1


def test_a_run_that_publishes_nothing_says_what_is_wrong_with_the_tree(
    fastindex: Run, tmp_path: Path
) -> None:
    write_tree(tmp_path, version(rootfs_squashfs=b"no metadata beside it"))
    result = fastindex(tmp_path)
    assert result.returncode == 1
    warning, error = result.stderr.splitlines()
    assert "default/20240505_05:24: has no usable metadata file" in warning
    assert "error: images: the stream has no versions to publish" in error


def test_a_missing_stream_directory_leaves_no_trace(fastindex: Run, tmp_path: Path) -> None:
    result = fastindex(tmp_path)
    assert result.returncode == 1
    assert "images: cannot list the stream directory" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("has_images", [False, True])
def test_a_tree_without_the_stream_level_says_what_is_missing(
    fastindex: Run, tmp_path: Path, has_images: bool
) -> None:
    """With the empty directory ``images``, with ``streams``, or with neither."""
    root = write_tree(tmp_path / "root", in_stream(".", version()))
    (root / ("images" if has_images else "streams")).mkdir()
    result = fastindex(root)
    assert result.returncode == 1
    assert "the stream level images/ is missing above debian/12/amd64/default" in result.stderr
    assert f"move the directories into {root}/images" in result.stderr
    assert "is a disk not mounted?" not in result.stderr


def test_versions_in_a_stream_that_was_not_named_are_told(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, in_stream("daily", version()))
    result = fastindex(tmp_path)
    assert result.returncode == 1
    assert "images: cannot list the stream directory" in result.stderr
    assert "there are versions in daily/, which --stream daily names" in result.stderr


def test_an_index_names_all_streams_that_were_published(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, {**many(), **in_stream("daily", version("a/1/amd64/x/20240101"))})
    fastindex("--stream", "daily", "--stream", "images", tmp_path)
    fastindex(tmp_path)

    def named() -> dict[str, str]:
        index = json.loads((tmp_path / "streams/v1/index.json").read_bytes())["index"]
        return {stream: entry["path"] for stream, entry in index.items()}

    assert named() == {"daily": "streams/v1/daily.json", "images": "streams/v1/images.json"}
    (tmp_path / "streams/v1/daily.json").unlink()
    forget_state(tmp_path)
    fastindex(tmp_path)
    assert named() == {"images": "streams/v1/images.json"}


@pytest.mark.parametrize("target", ["images.json", "index.json", ".images.json.tmp"])
def test_a_planted_symlink_is_replaced_and_never_followed(
    fastindex: Run, tmp_path: Path, target: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    root = write_tree(tmp_path / "root", {**many(), f"streams/v1/{target}": str(victim)})
    assert fastindex(root).returncode == 0
    assert victim.read_bytes() == b"precious"
    assert len(published(root)) == 7
    assert not list(root.glob("streams/v1/.*"))


def test_a_full_disk_leaves_the_old_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = product_file(DIGEST)
    old = draft_product_file(str(tmp_path), document)
    publish_drafts(str(tmp_path), [old])
    before = streams(tmp_path)
    new = draft_product_file(str(tmp_path), product_file("cd" * 32))

    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(PublishError, match=r"images.json: cannot be written \(No space left"):
        publish_drafts(str(tmp_path), [new])
    assert streams(tmp_path) == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.replace(b'"size":', b'"size":"1","size":'),
        lambda data: data.replace(b'"arch":"amd64"', b'"arch":"arm64"'),
        lambda data: data[:-1],
    ],
)
def test_what_does_not_decode_to_what_was_encoded_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[bytes], bytes]
) -> None:
    write_tree(tmp_path, version())
    monkeypatch.setattr(drafts, "encode_piece", lambda product: spoil(encode_piece(product)))
    with pytest.raises(PublishError, match="please report"):
        package.Mirror(tmp_path).build()
    assert not (tmp_path / "streams/v1").exists()


def test_a_dry_run_writes_nothing_and_names_what_would_change(
    fastindex: Run, tmp_path: Path
) -> None:
    write_tree(tmp_path, many(DAYS[:4]))
    fresh = stamps(tmp_path)
    result = fastindex("-n", tmp_path)
    assert result.returncode == 0
    assert result.stderr.startswith("fastindex: 4 versions of 1 product to publish; ")
    assert stamps(tmp_path) == fresh
    assert not (tmp_path / "streams").exists()
    assert result.stdout.splitlines() == [
        f"+ images debian:12:amd64:default {day} ({size_of(day)} B)" for day in DAYS[:4]
    ]
    fastindex(tmp_path)
    assert fastindex("--dry-run", tmp_path).stdout == ""
    remove(tmp_path, DAYS[:1])
    write_tree(tmp_path, {**many(DAYS[4:5]), "images/.requirements": b'{"nesting": "true"}'})
    changed = f"images/debian/12/amd64/default/{DAYS[1]}/rootfs.squashfs"
    root_bytes = (tmp_path / changed).stat().st_size
    write_tree(tmp_path, {changed: b"another"}, mtime_ns=1_700_000_009_000_000_000)
    before = stamps(tmp_path)
    result = fastindex("--dry-run", tmp_path)
    assert stamps(tmp_path) == before
    assert result.stdout.splitlines() == [
        "~ images debian:12:amd64:default (aliases, requirements or other fields)",
        f"- images debian:12:amd64:default {DAYS[0]} ({size_of(DAYS[0])} B)",
        f"~ images debian:12:amd64:default {DAYS[1]} ({size_of(DAYS[1]) - root_bytes + 103} B)",
        f"+ images debian:12:amd64:default {DAYS[4]} ({size_of(DAYS[4])} B)",
    ]


def test_print_gives_the_product_file_and_writes_nothing(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, many())
    fresh = stamps(tmp_path)
    printed = fastindex("--print", tmp_path)
    assert printed.returncode == 0
    assert stamps(tmp_path) == fresh
    fastindex(tmp_path)
    assert printed.stdout.encode() == (tmp_path / "streams/v1/images.json").read_bytes()


def releases(os_name: str, *names: int) -> dict[str, bytes | str | None]:
    tree: dict[str, bytes | str | None] = {}
    for name in names:
        tree |= version(f"{os_name}/{name}/amd64/default/20240505_05:24")
    return tree


def test_an_uploader_who_removes_his_own_versions_pulls_no_brake(
    fastindex: Run, tmp_path: Path
) -> None:
    write_tree(tmp_path, releases("debian", 1, 2, 3) | releases("evil", *range(10)))
    assert fastindex(tmp_path).returncode == 0
    (tmp_path / "images/evil").rename(tmp_path / ".evil")
    write_tree(tmp_path, releases("debian", 4))
    result = fastindex(tmp_path)
    assert result.returncode == 0
    assert (
        "warning: images/evil: nothing of images/evil is published any more; 10 versions were "
        "(is a disk not mounted?)"
    ) in result.stderr
    assert len(published(tmp_path)) == 4
    again = fastindex(tmp_path)  # it has been told
    assert "warning:" not in again.stderr


def test_most_distributions_of_a_stream_are_not_dropped_by_mistake(
    fastindex: Run, tmp_path: Path
) -> None:
    """Though they have few of its versions."""
    few = releases("fedora", 1) | releases("alpine", 1)
    write_tree(tmp_path, releases("debian", *range(10)) | few)
    assert fastindex(tmp_path).returncode == 0
    for name in ("fedora", "alpine"):
        (tmp_path / "images" / name).rename(tmp_path / f".{name}")
    result = fastindex(tmp_path)
    assert result.returncode == 1
    assert "2 of the 12 published versions would be dropped" in result.stderr
    assert fastindex("--force", tmp_path).returncode == 0


def test_what_is_withdrawn_is_not_told_as_vanished(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, releases("debian", 1, 2, 3))
    assert fastindex(tmp_path).returncode == 0
    told = fastindex("remove", "debian/1", tmp_path)
    assert told.returncode == 0
    assert "is published any more" not in told.stderr


def test_a_version_dated_in_the_future_is_told_of_until_its_day(
    fastindex: Run, tmp_path: Path
) -> None:
    tree = version("debian/12/amd64/default/20240505_05:24")
    write_tree(tmp_path, tree | version("debian/12/amd64/default/99991231_05:24"))
    for _ in range(2):
        result = fastindex(tmp_path)
        assert result.returncode == 0
        assert "default/99991231_05:24: is dated in the future" in result.stderr

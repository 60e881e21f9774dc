"""A tree that is published with ``--output``: a run without it says so, and deletes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import outputs
from tests.support.command import Run
from tests.support.trees import Files, published, stamps, version, write_tree

PRODUCT = "debian/12/amd64/default"
DAYS = [f"2024050{day}_05:24" for day in range(1, 5)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a tree of four versions."""
    tree: Files = {}
    for day in DAYS:
        tree |= version(f"{PRODUCT}/{day}")
    return write_tree(tmp_path / "root", tree)


@pytest.fixture
def www(fastindex: Run, root: Path, tmp_path: Path) -> Path:
    """Return the directory in which the tree is published."""
    output = tmp_path / "www"
    assert fastindex("-q", "--output", output, root).returncode == 0
    return output


def on_disk(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "images" / PRODUCT).iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ("prune", "--keep", "1", "--grace", "0"),
        ("prune", "-n", "--keep", "1"),
        ("remove", "debian/12"),
        ("remove", "-n", "debian/12"),
        ("prune", "--undo", f"{PRODUCT}/{DAYS[0]}"),
        ("list",),
        ("verify",),
    ],
)
def test_a_run_without_the_output_is_refused(
    fastindex: Run, root: Path, www: Path, command: tuple[str, ...]
) -> None:
    before = stamps(root)
    result = fastindex(*command, root)
    assert result.returncode == 1
    expected = (
        f"nothing is published in {root}, but the tree is published in {www}; "
        f"name it with --output {www}"
    )
    assert expected in result.stderr
    assert stamps(root) == before
    assert not (root / "streams").exists()


@pytest.mark.parametrize("command", ["list", "verify"])
def test_what_reads_a_catalogue_tells_where_there_is_one(
    fastindex: Run, root: Path, www: Path, command: str
) -> None:
    other, third = root.parent / "other", root.parent / "third"
    assert fastindex("-q", "--output", other, root).returncode == 0
    nothing = f"error: nothing is published in {third}, but the tree is published in"
    told = fastindex(command, "--output", third, root)
    assert f"{nothing} {other}, {www}; name one of these with --output\n" in told.stderr
    (root / ".outputs.json").unlink()
    told = fastindex(command, "--output", third, root)
    assert told.returncode == 1
    assert f"error: nothing is published in {third}; run fastindex ROOT to" in told.stderr
    assert fastindex(root).returncode == 0
    told = fastindex(command, "--output", third, root)
    assert f"{nothing} {root}; leave out --output\n" in told.stderr
    # A record that cannot be used is no reason not to read what is there.
    (root / ".outputs.json").write_bytes(b"{")
    assert fastindex(command, root).returncode == 0
    told = fastindex(command, "--output", third, root)
    assert told.returncode == 1
    assert f"{root}/.outputs.json: cannot be used" in told.stderr


@pytest.mark.parametrize("is_cached_elsewhere", [True, False])
def test_it_is_refused_wherever_the_caches_are(
    fastindex: Run, root: Path, tmp_path: Path, is_cached_elsewhere: bool
) -> None:
    caches = ("--cache-dir", tmp_path / "caches") if is_cached_elsewhere else ()
    assert fastindex("--output", tmp_path / "www", *caches, root).returncode == 0
    assert fastindex("prune", "--keep", "1", "--grace", "0", root).returncode == 1
    assert on_disk(root) == DAYS


def test_a_build_without_the_output_says_so_once(fastindex: Run, root: Path, www: Path) -> None:
    result = fastindex(root)
    assert result.returncode == 0
    assert f"but the tree is published in {www}; name that directory" in result.stderr
    assert len(published(root)) == 4
    assert "warning:" not in fastindex(root).stderr


def test_what_another_catalogue_names_is_not_deleted(fastindex: Run, root: Path, www: Path) -> None:
    """Neither by a run at ROOT, nor by one with another output; it waits."""
    assert fastindex(root).returncode == 0
    # The other run has the grace to follow.
    for options, code in (
        (("--grace", "1h"), 0),
        (("--grace", "0", "-n"), 3),
        (("--grace", "0"), 3),
    ):
        result = fastindex("prune", "--keep", "2", *options, root)
        assert result.returncode == code
        assert "deleted" not in result.stdout
        told = f"{www}/streams: still names 2 withdrawn versions, so they were not deleted"
        assert result.stderr.count(told) == (code == 3)
        assert (f"with prune or remove with --output {www}" in result.stderr) == (code == 3)
    assert (
        f"remove that directory and its entry in {root}/.outputs.json (a JSON list)"
        in result.stderr
    )
    assert len(published(root)) == 2
    assert on_disk(root) == DAYS
    assert fastindex("verify", "--output", www, root).returncode == 0
    assert fastindex("prune", "--keep", "2", "--grace", "0", "--output", www, root).returncode == 0
    assert on_disk(root) == DAYS[2:]
    result = fastindex("remove", "--grace", "0", DAYS[3], "--output", www, root)
    assert result.returncode == 3
    told = f"{root}/streams: still names 1 withdrawn version, so it was not deleted"
    assert told in result.stderr
    assert "with prune or remove without --output" in result.stderr
    assert fastindex("verify", root).returncode == 0


def test_a_leftover_that_another_catalogue_names_is_not_deleted(
    fastindex: Run, root: Path, www: Path
) -> None:
    assert fastindex(root).returncode == 0
    product = root / "images" / PRODUCT
    (product / DAYS[0]).rename(product / f".{DAYS[0]}.pruned")
    path = www / "streams/v1/images.json"
    path.write_text(path.read_text().replace(f"/{DAYS[0]}/", f"/.{DAYS[0]}.pruned/"))
    assert fastindex("prune", root).returncode == 0
    assert (product / f".{DAYS[0]}.pruned/rootfs.squashfs").exists()


@pytest.mark.parametrize("damage", ["torn", "no index"])
def test_nothing_is_deleted_while_another_catalogue_cannot_be_read(
    fastindex: Run, root: Path, www: Path, damage: str
) -> None:
    assert fastindex(root).returncode == 0
    if damage == "torn":
        (www / "streams/v1/images.json").write_bytes(b"{")
    else:
        (www / "streams/v1/index.json").unlink()
    result = fastindex("prune", "--keep", "2", "--grace", "0", root)
    assert result.returncode == 3
    told = f"{www}/streams: cannot be read completely, so no old version was withdrawn or deleted"
    assert result.stderr.count(told) == 1
    assert result.stdout == ""
    assert len(published(root)) == 4
    result = fastindex("prune", "-n", "--keep", "2", "--grace", "0", root)
    assert (result.returncode, result.stdout) == (3, "")
    assert f"with --output {www} to see why" in result.stderr
    assert f"remove its entry in {root}/.outputs.json (a JSON list)" in result.stderr
    # What was asked for goes from the catalogue all the same.
    result = fastindex("remove", "--grace", "0", DAYS[3], root)
    assert result.returncode == 3
    assert result.stdout == f"withdrawn images/{PRODUCT}/{DAYS[3]}\n"
    assert f"{www}/streams: cannot be read completely, so nothing was deleted" in result.stderr
    assert len(published(root)) == 3
    assert on_disk(root) == DAYS


@pytest.mark.parametrize("remains", ["nothing", "an empty directory", "no streams/v1"])
def test_an_output_that_is_gone_still_keeps_its_files(
    fastindex: Run, root: Path, www: Path, remains: str
) -> None:
    """Its disk may not be mounted."""
    assert fastindex(root).returncode == 0
    if remains == "no streams/v1":
        (www / "streams/v1").rename(www / "away")
    else:
        www.rename(www.with_name("away"))
        if remains == "an empty directory":
            www.mkdir()
    for _ in range(2):
        result = fastindex("prune", "--keep", "2", "--grace", "0", root)
        assert result.returncode == 3
        assert f"{www}/streams: cannot be read completely, so no old version" in result.stderr
        assert on_disk(root) == DAYS
    (root / ".outputs.json").unlink()
    assert fastindex("prune", "--keep", "2", "--grace", "0", root).returncode == 0
    assert on_disk(root) == DAYS[-2:]


def test_root_by_another_name_is_no_other_output(fastindex: Run, root: Path) -> None:
    (root.parent / "name").symlink_to(root)
    assert fastindex("--output", root.parent / "name", root).returncode == 0
    assert not (root / ".outputs.json").exists()
    assert fastindex("prune", "--keep", "2", root).returncode == 0


def test_the_first_run_on_a_tree_that_was_indexed_before_deletes_nothing(
    fastindex: Run, root: Path, www: Path
) -> None:
    """As by an earlier release, which did not leave word of its output."""
    (root / ".outputs.json").unlink()
    result = fastindex("prune", "--keep", "2", "--grace", "0", root)
    assert result.returncode == 0
    told = f"{root}: was published for the first time, so nothing is deleted yet; later runs will"
    assert told in result.stderr
    assert "this is as it should be, unless the tree is published in another" in result.stderr
    assert on_disk(root) == DAYS
    assert len(published(root)) == 2
    assert fastindex("verify", "--output", www, root).returncode == 0
    # The other catalogue is known from its next build on.
    assert fastindex("--output", www, root).returncode == 0
    assert fastindex("prune", "--keep", "2", "--grace", "0", root).returncode == 3
    assert on_disk(root) == DAYS


def test_a_fresh_tree_is_pruned_at_once(fastindex: Run, root: Path) -> None:
    result = fastindex("prune", "--keep", "2", "--grace", "0", root)
    assert (result.returncode, on_disk(root)) == (0, DAYS[2:])


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"a": 1}', b'["relative"]', b'["/a\\u0000b"]', b"[1]"]
)
def test_a_record_that_cannot_be_used_stops_what_deletes_and_no_build(
    fastindex: Run, root: Path, www: Path, content: bytes
) -> None:
    """It may have named any directory, so it is no word that the tree has no other output."""
    assert fastindex(root).returncode == 0
    record = root / ".outputs.json"
    record.write_bytes(content)
    told = f"{record}: cannot be used"
    for command in (
        ("prune", "--keep", "1", "--grace", "0"),
        ("prune", "-n"),
        ("remove", "debian/12"),
        ("remove", "-n", "debian/12"),
        ("prune", "--undo", DAYS[0]),
    ):
        for place in ((), ("--output", www)):
            result = fastindex(*command, *place, root)
            assert result.returncode == 1
            assert told in result.stderr
    assert (on_disk(root), len(published(root)), len(published(www))) == (DAYS, 4, 4)
    for place in ((), ("--output", www), ("--output", root.parent / "third")):
        for _ in range(2):  # the second run has nothing to do
            result = fastindex(*place, root)
            assert result.returncode == 3
            assert told in result.stderr
    assert record.read_bytes() == content
    assert len(published(root.parent / "third")) == 4
    record.write_text(json.dumps([str(www)]))
    assert fastindex(root).returncode == 0


def test_a_record_that_names_nothing_is_none(root: Path) -> None:
    (root / ".outputs.json").write_bytes(b"[]")
    assert outputs.find_others(Mirror.at(root)) == []
    outputs.record(Mirror.at(root, output=root.parent / "www"))
    assert json.loads((root / ".outputs.json").read_bytes()) == [str(root.parent / "www")]


def test_where_it_cannot_be_recorded_is_no_obstacle(root: Path) -> None:
    (root / ".outputs.json").mkdir()
    outputs.record(Mirror.at(root, output=root.parent / "www"))
    assert (root / ".outputs.json").is_dir()

"""Modes, groups, planted links and swapped directories: nothing is written where it must not be."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

import fastindex as package
from fastindex.errors import ExitCode, LockHeldError
from fastindex.mirror import cache, removal, staging
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.settings import SettingsReader
from fastindex.operations.importer import job
from fastindex.system import locks
from tests.support.builders import Workshop
from tests.support.clients.mirror_server import Certificate
from tests.support.command import COMMAND, Run, umask
from tests.support.faults.upstream_server import serve_upstream
from tests.support.tools import needs
from tests.support.trees import OLD_NS, Files, published, version, write_file, write_tree

PRODUCT = "images/debian/12/amd64/default"
OLD, NEW = "20240501_05:24", "20240505_05:24"
SECRET = "hunter2-of-the-operator"
TREE: Files = {
    **version(f"debian/12/amd64/default/{OLD}"),
    **version(f"debian/12/amd64/default/{NEW}"),
}
is_root = os.geteuid() == 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "root", TREE)


@pytest.fixture
def precious(tmp_path: Path) -> Iterator[Path]:
    """Give a file outside the mirror that must be as it was when the test ends."""
    path = tmp_path / "precious"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    yield path
    assert path.read_text() == f"{SECRET}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Give a directory outside the mirror that nothing may change."""
    path = write_tree(tmp_path / "outside", {"rootfs.squashfs": b"precious", "incus.tar.xz": b"m"})
    before = {name.name: name.read_bytes() for name in path.iterdir()}
    yield path
    assert {name.name: name.read_bytes() for name in path.iterdir()} == before


def written(*tops: Path) -> Iterator[Path]:
    for top in tops:
        yield from (path for path in (top, *top.rglob("*")) if not path.is_symlink())


@pytest.mark.parametrize("mask", [0o000, 0o027, 0o077])
@pytest.mark.parametrize("is_inherited", [False, True], ids=["no setgid", "setgid"])
def test_modes_and_groups_follow_the_directory_and_not_the_umask(
    fastindex: Run, workshop: Workshop, root: Path, tmp_path: Path, mask: int, is_inherited: bool
) -> None:
    workshop.split(tmp_path / "source")
    workshop.put(workshop.squashfs, root / PRODUCT / OLD / "rootfs.squashfs")
    group = 65533 if is_root else os.getegid()
    for path in (tmp_path / "output", tmp_path / "caches", *written(root)):
        if not path.exists():
            path.mkdir()
        os.chown(path, -1, group)
        if is_inherited and path.is_dir():
            path.chmod(0o2755)
    known = {path.stat().st_ino for path in written(root)}
    places = ("--output", tmp_path / "output", "--cache-dir", tmp_path / "caches")
    with umask(mask):
        runs = [
            fastindex("import", "--copy", "--os", "alpine", tmp_path / "source", root),
            fastindex(*places, root),
            fastindex(root),
            fastindex("prune", "--keep", "1", root),
        ]
    assert [run.returncode for run in runs] == [0, 0, 0, 0], [run.stderr for run in runs]
    made = [
        *(path for path in written(root) if path.stat().st_ino not in known),
        *(tmp_path / "output").rglob("*"),
        *(tmp_path / "caches").rglob("*"),
    ]
    names = {path.name for path in made}
    assert {"streams", "v1", "images.json", "index.json", ".lock", ".snapshot.json"} <= names
    assert ".products-images.state" in names
    assert {".withdrawn.json", ".items.json", "alpine", "rootfs.squashfs", OLD} <= names
    bit = stat.S_ISGID if is_inherited else 0
    for path in made:
        expected = 0o755 | bit if path.is_dir() else 0o644
        assert (stat.S_IMODE(path.stat().st_mode), path) == (expected, path)
        assert (path.stat().st_gid, path) == (group, path)


@pytest.mark.root
def test_a_new_file_takes_the_directorys_group_not_the_old_files(
    fastindex: Run, root: Path
) -> None:
    fastindex(root)
    path = root / "streams/v1/images.json"
    os.chown(path, -1, 65532)
    path.chmod(0o600)
    os.chown(path.parent, -1, 65533)
    write_tree(root, version("debian/13/amd64/default/20240505_05:24"))
    assert fastindex(root).returncode == 0
    assert path.stat().st_gid == 65533
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_no_other_user_group_or_capability_is_asked_for(root: Path, tmp_path: Path) -> None:
    strace = needs("strace", "apt-get install strace")
    calls = "setuid,setgid,setreuid,setregid,setresuid,setresgid,setfsuid,setfsgid,setgroups,capset"
    log = tmp_path / "trace"
    result = subprocess.run(
        [strace, "-f", "-qq", "-e", f"trace={calls}", "-o", log, COMMAND, "-j2", "-v", root],
        capture_output=True,
        text=True,
        check=True,
    )
    assert log.read_text() == ""
    assert "privilege" not in result.stderr
    assert (root / "streams/v1/images.json").stat().st_uid == os.geteuid()


def test_an_ordinary_user_needs_no_more_than_the_tree(
    root: Path, fastindex_as_nobody: Callable[[Path], tuple[int, str]]
) -> None:
    if is_root:
        for path in root.parents[:4]:
            path.chmod(path.stat().st_mode | 0o005)
        for path in written(root):
            os.chown(path, 65534, 65534)
    assert fastindex_as_nobody(root)[0] == 0
    assert len(published(root)) == 2


def test_nothing_is_fetched_for_a_product_that_cannot_be_written(
    root: Path, tmp_path: Path, certificate: Certificate
) -> None:
    package.Mirror(root).build()
    product = tmp_path / "mirror" / PRODUCT
    product.mkdir(parents=True)
    product.chmod(0o555)
    bound: list[str] = [needs("setpriv", "apt-get install util-linux"), "--bounding-set=-all"]
    with serve_upstream(root, certificate) as server:
        pull: list[str | Path] = [COMMAND, "pull", "--keep=2", "--ca", certificate.path, server.url]
        done = subprocess.run(
            [*(bound if is_root else ()), *pull, tmp_path / "mirror"],
            check=False,
            capture_output=True,
            text=True,
        )
        asked = server.paths()
    assert done.returncode == ExitCode.FAILED, done.stderr  # there is nothing to publish
    assert done.stderr.count(f"cannot create {product} (Permission denied)") == 2
    assert "give this user write permission there" in done.stderr
    assert not [path for path in asked if PRODUCT in path]


def _symlink(path: Path, target: Path) -> None:
    path.symlink_to(target)


def _hard_link(path: Path, target: Path) -> None:
    os.link(target, path)


@pytest.mark.parametrize("plant", [_symlink, _hard_link])
@pytest.mark.parametrize(
    "name",
    [
        "streams/v1/images.json",
        "streams/v1/index.json",
        "streams/v1/.images.json.tmp",
        "streams/v1/.index.json.tmp",
        "streams/.snapshot.json",
        "streams/.snapshot.json.tmp",
        "streams/.products-images.state",
        "streams/.products-images.state.tmp",
        "streams/.withdrawn.json.tmp",
        f"{PRODUCT}/{OLD}/.items.json",
        f"{PRODUCT}/{OLD}/.items.json.tmp",
    ],
)
def test_a_planted_link_is_replaced_and_never_written_through(
    fastindex: Run, root: Path, precious: Path, name: str, plant: Callable[[Path, Path], None]
) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    plant(path, precious)
    result = fastindex(root)
    assert result.returncode == 0
    assert fastindex("prune", "--keep", "1", root).returncode == 0
    assert published(root) == {f"debian:12:amd64:default {NEW}"}
    assert SECRET not in result.stdout + result.stderr
    assert not path.exists() or not path.samefile(precious)


def test_a_lock_that_is_a_symlink_is_refused(fastindex: Run, root: Path, precious: Path) -> None:
    (root / "streams").mkdir()
    (root / "streams/.lock").symlink_to(precious)
    result = fastindex(root)
    assert result.returncode == 1
    assert f"{root}/streams/.lock: cannot open the lock file" in result.stderr


def test_a_lock_that_is_a_hard_link_is_held_and_not_written(tmp_path: Path, precious: Path) -> None:
    """A backup that hard-links the whole tree makes it one, too."""
    path = str(tmp_path / ".lock")
    os.link(precious, path)
    with locks.lock(path, 0), pytest.raises(LockHeldError) as caught, locks.lock(path, 0):
        pass
    assert "pid unknown" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", [".withdrawn.json", ".damaged.json"])
def test_a_record_that_is_a_symlink_to_something_else_stops_the_run(
    fastindex: Run, root: Path, precious: Path, name: str
) -> None:
    (root / "streams").mkdir()
    (root / "streams" / name).symlink_to(precious)
    result = fastindex(root)
    assert result.returncode == 1
    assert f"{root}/streams/{name}: cannot be read" in result.stderr
    assert SECRET not in result.stderr


@pytest.mark.parametrize("link", ["streams", "streams/v1"])
def test_the_operator_may_link_streams_elsewhere(
    fastindex: Run, root: Path, tmp_path: Path, link: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(tmp_path / "elsewhere")
    assert fastindex(root).returncode == 0
    assert list((tmp_path / "elsewhere").rglob("images.json"))


class _Swapping(Executor):
    """Reads as it is told, then lets ``swap`` happen before anybody learns what came out."""

    def __init__(self, swap: Callable[[], object]) -> None:
        self._swap = swap

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        self._swap()
        return future


def test_a_version_that_is_swapped_for_a_link_takes_no_cache_out(
    root: Path, tmp_path: Path
) -> None:
    upload, elsewhere = root / PRODUCT / NEW, tmp_path / "elsewhere"

    def swap() -> None:
        if not upload.is_symlink():
            upload.rename(elsewhere)
            upload.symlink_to(elsewhere)

    report = package.Mirror(root).build(jobs=1, executor=_Swapping(swap))
    assert {path.name for path in elsewhere.iterdir()} == {"incus.tar.xz", "rootfs.squashfs"}
    assert [finding.path for finding in report.findings] == [f"{upload}/.items.json"]
    assert "leads out of the mirror" in report.findings[0].problem


def test_a_version_that_is_swapped_at_the_last_moment_takes_no_cache_out(
    root: Path, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, moved = root / PRODUCT / NEW, tmp_path / "moved"
    save_in = cache.save_in

    def swap(directory: int, path: str, *rest: Any) -> None:
        if path.startswith(str(upload)):
            upload.rename(moved)
            upload.symlink_to(outside)
        save_in(directory, path, *rest)

    monkeypatch.setattr(cache, "save_in", swap)
    package.Mirror(root).build(jobs=1)
    assert (moved / ".items.json").is_file()


def test_a_version_that_is_removed_meanwhile_does_not_come_back(root: Path) -> None:
    upload = root / PRODUCT / NEW
    swap = _Swapping(lambda: shutil.rmtree(upload, ignore_errors=True))
    package.Mirror(root).build(jobs=1, executor=swap)
    assert not upload.exists()


def test_a_version_that_is_a_link_within_the_mirror_gets_its_cache(
    fastindex: Run, root: Path
) -> None:
    release = root / "images/debian/12"
    (root / "pool").mkdir()
    release.symlink_to(release.rename(root / "pool/12"))
    assert fastindex("--allow-links", root / "pool", root).returncode == 0
    assert (root / f"pool/12/amd64/default/{NEW}/.items.json").is_file()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".requirements", f'{{"{SECRET}": "{SECRET}"}}'),
        (".requirements", f'{{"secureboot": {SECRET}}}'),
        (".lxd_requirements", f'{{"{SECRET}": true}}'),
        (".product.toml", f'{SECRET} = "x"'),
        (".product.toml", f"{SECRET} {SECRET}"),
        (f"{NEW}/image.yaml", f"simplestream: {{distro_name: {SECRET}}}"),
        (f"{NEW}/image.yaml", f"password: '{SECRET}\n{SECRET}: ["),
        (f"{NEW}/.items.json", f'{{"{SECRET}": "{SECRET}"}}'),
    ],
)
def test_what_lies_outside_is_neither_told_nor_published(
    fastindex: Run, root: Path, tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / "secret").write_text(content)
    (root / PRODUCT / name).symlink_to(tmp_path / "secret")
    result = fastindex("-v", root)
    assert result.returncode in {0, 3}
    assert SECRET not in result.stdout + result.stderr
    for path in (root / "streams").rglob("*.json"):
        assert SECRET not in path.read_text(), path
    # As if it had become a link only after the scan had looked.
    settings = SettingsReader(Mirror.at(root))
    merged = settings.merge([f"{PRODUCT}/{name}"])
    told = settings.findings[f"{PRODUCT}/{name}"]
    assert SECRET not in f"{merged} {told}"
    assert name.endswith(".items.json") or "leads out of the mirror" in told[0].problem


def test_settings_that_are_no_yaml_are_not_quoted(root: Path) -> None:
    write_file(root / PRODUCT / NEW / "image.yaml", f"a: '{SECRET}\nb: [{SECRET}".encode())
    settings = SettingsReader(Mirror.at(root))
    settings.merge([f"{PRODUCT}/{NEW}/image.yaml"])
    ((finding,),) = settings.findings.values()
    assert "not valid YAML" in finding.problem
    assert "line 2" in finding.problem
    assert SECRET not in finding.problem


def test_the_environment_is_not_told(
    fastindex: Run, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    (root / PRODUCT / NEW / "rootfs.squashfs").unlink()
    (root / PRODUCT / ".product.toml").write_text("= no TOML")
    for arguments in (["-v"], ["--no-such"], ["verify", "--json"], ["import", "none"], ["prune"]):
        result = fastindex(*arguments, root)
        assert SECRET not in result.stdout + result.stderr


class TestImport:
    """Whoever may upload to a product may plant links beside what is imported."""

    @pytest.fixture
    def hidden(self, root: Path) -> Path:
        (root / PRODUCT / NEW).rename(root / PRODUCT / "20230101")
        return root / PRODUCT / f".{NEW}"

    @pytest.fixture
    def source(self, workshop: Workshop, tmp_path: Path) -> Path:
        return workshop.split(tmp_path / "source")

    @pytest.mark.parametrize("names", [[], [staging.MARK]])
    def test_a_link_in_the_staging_directorys_place_is_not_followed(
        self, fastindex: Run, root: Path, hidden: Path, source: Path, tmp_path: Path, names: Any
    ) -> None:
        elsewhere = write_tree(tmp_path / "elsewhere", dict.fromkeys(["."], None))
        for name in names:
            (elsewhere / name).touch()
        hidden.symlink_to(elsewhere)
        result = fastindex("import", "--copy", source, root)
        assert result.returncode == 1
        assert f"{hidden} is in the way: it is not a directory" in result.stderr
        assert sorted(os.listdir(elsewhere)) == names
        assert not (root / PRODUCT / NEW).exists()

    def test_a_mark_that_is_a_hard_link_is_not_written_through(
        self, fastindex: Run, root: Path, hidden: Path, source: Path, precious: Path
    ) -> None:
        hidden.mkdir()
        os.link(precious, hidden / staging.MARK)
        assert fastindex("import", "--copy", source, root).returncode == 0
        assert (root / PRODUCT / NEW / "rootfs.squashfs").is_file()

    def test_a_product_that_is_swapped_for_a_link_leads_nothing_out(
        self, root: Path, hidden: Path, outside: Path
    ) -> None:
        made = staging.Staging(Mirror.at(root), f"{PRODUCT}/{NEW}")
        product = root / PRODUCT
        product.rename(root / "moved")
        product.symlink_to(outside)
        with pytest.raises(OSError, match=r"rootfs\.squashfs"):
            made.write("rootfs.squashfs", b"new", OLD_NS)
        made.write_cache({}, set())
        made.publish()
        made.complete()
        made.close()
        assert os.listdir(root / "moved" / NEW) == [".items.json"]
        assert not hidden.exists()

    def test_a_staged_file_that_is_swapped_for_a_link_lends_its_mode_to_nobody(
        self, root: Path, hidden: Path, precious: Path
    ) -> None:
        made = staging.Staging(Mirror.at(root), f"{PRODUCT}/{NEW}")
        (hidden / "rootfs.squashfs").symlink_to(precious)
        with pytest.raises(OSError, match="symbolic links"):
            made.sync_link("rootfs.squashfs", may_change=True)
        made.close()
        assert not hidden.exists()

    def test_a_builders_note_that_is_swapped_for_a_link_is_not_taken_along(
        self,
        fastindex: Run,
        root: Path,
        hidden: Path,
        source: Path,
        precious: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        note = source / "image.yaml"
        note.write_text("image: {}\n")
        begin = job.Creation.finish

        def swap(job: job.Creation, outcomes: Any) -> Any:
            note.unlink()
            note.symlink_to(precious)
            return begin(job, outcomes)

        monkeypatch.setattr(job.Creation, "finish", swap)
        assert package.Mirror(root).import_images([source], mode="copy").failed == 1
        assert not (root / PRODUCT / NEW).exists()

    def test_a_source_that_is_swapped_for_another_is_not_removed(
        self, tmp_path: Path, outside: Path
    ) -> None:
        source = write_tree(tmp_path / "source", {"rootfs.squashfs": b"mine"})
        status = (source / "rootfs.squashfs").lstat()
        source.rename(tmp_path / "moved")
        source.symlink_to(outside)
        write_tree(tmp_path / "root", {f"{PRODUCT}/{NEW}/rootfs.squashfs": b"mine"})
        mirror = Mirror.at(tmp_path / "root")
        target = mirror.path(f"{PRODUCT}/{NEW}/rootfs.squashfs")
        swapped = str(source / "rootfs.squashfs")
        assert "has changed" in staging.remove_source(mirror, swapped, status, target)

    def test_a_comparison_leaves_other_peoples_marks(self, root: Path, outside: Path) -> None:
        (root / PRODUCT / "20220101").symlink_to(outside)
        write_file(outside / staging.MARK, b"")
        staging.remove_mark(Mirror.at(root), f"{PRODUCT}/20220101")
        assert (outside / staging.MARK).exists()
        (outside / staging.MARK).unlink()


class TestRemoval:
    """Whoever may upload to a product may swap what is being deleted for a link."""

    @pytest.fixture(params=[OLD, f".{OLD}.pruned"])
    def swapped(
        self,
        request: pytest.FixtureRequest,
        root: Path,
        outside: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Path:
        """Let a directory become a link just after it was seen to be one."""
        path = root / PRODUCT / str(request.param)
        check = removal._require_directory

        def swap(name: str, above: int) -> None:
            check(name, above)
            if name == path.name:
                path.rename(root / "moved")
                path.symlink_to(outside)

        monkeypatch.setattr(removal, "_require_directory", swap)
        return path

    def test_a_version(self, root: Path, swapped: Path) -> None:
        with pytest.raises(OSError, match=r"Not a directory|not a directory"):
            removal.remove_version(Mirror.at(root), f"{PRODUCT}/{OLD}")
        assert len(list((root / "moved").iterdir())) == 2

    def test_one_file(self, root: Path, swapped: Path) -> None:
        path = root / PRODUCT / OLD / "rootfs.squashfs"
        if swapped.name == OLD:
            with pytest.raises(OSError, match="Not a directory"):
                removal.remove_file(Mirror.at(root), f"{PRODUCT}/{OLD}/rootfs.squashfs")
        else:
            removal.remove_file(Mirror.at(root), f"{PRODUCT}/{OLD}/rootfs.squashfs")
            assert not path.exists()

    def test_what_a_link_above_leads_to(self, root: Path, outside: Path) -> None:
        product = root / PRODUCT
        product.rename(root / "moved")
        product.symlink_to(outside.parent)
        with pytest.raises(OSError, match="leads out of the mirror"):
            removal.remove_leftover(Mirror.at(root), f"{PRODUCT}/outside", 1 << 62)
        with pytest.raises(OSError, match="leads out of the mirror"):
            removal.remove_file(Mirror.at(root), f"{PRODUCT}/outside/rootfs.squashfs")
        with pytest.raises(OSError, match="leads out of the mirror"):
            removal.remove_version(Mirror.at(root), f"{PRODUCT}/outside")


def test_a_way_up_is_no_way_in(root: Path) -> None:
    with (
        pytest.raises(OSError, match="leads out of the mirror"),
        Mirror.at(root).open_directory("images/../../outside"),
    ):
        pass

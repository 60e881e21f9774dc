"""``fastindex remove``: what was asked for goes, wherever it is, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.support.command import Run
from tests.support.contents import make_content
from tests.support.trees import Files, in_stream, published, stamps, version, write_tree

PRODUCT = "debian/12/amd64/default"
KEY = "debian:12:amd64:default"
OLD, NEW = "20240505_05:24", "20240506_05:24"
STREAMS = ("--stream", "images", "--stream", "images-daily")


@pytest.fixture
def root(fastindex: Run, tmp_path: Path) -> Path:
    """Return an indexed mirror of two versions of one product, and one of another."""
    tree = version(f"{PRODUCT}/{OLD}") | version(f"{PRODUCT}/{NEW}")
    made = write_tree(tmp_path / "root", tree | version(f"zeta/1/amd64/default/{OLD}"))
    assert fastindex("-q", made).returncode == 0
    return made


def fingerprint(fastindex: Run, root: Path, path: str) -> str:
    """Return the fingerprint of a published version."""
    rows = json.loads(fastindex("list", "--all", "--json", root).stdout)
    key, _, serial = path.rpartition("/")
    (found,) = (
        row["fingerprint"]
        for row in rows
        if row["serial"] == serial and row["os"].lower() == key.split("/")[0]
    )
    assert isinstance(found, str)
    return found


def copy(root: Path, version_path: str, target: str) -> None:
    shutil.copytree(root / version_path, root / target, copy_function=shutil.copy2)


def test_what_is_done_is_not_printed_for_the_quiet(fastindex: Run, root: Path) -> None:
    would = fastindex("remove", "-q", "-n", "debian/12", root)
    assert f"withdraw images/{PRODUCT}/{NEW}" in would.stdout.splitlines()
    done = fastindex("remove", "-q", "debian/12", root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("is_known", [True, False], ids=["cached", "not yet cached"])
@pytest.mark.parametrize("by", ["fingerprint", "alias"])
def test_no_copy_appears_in_the_place_of_an_image(
    fastindex: Run, root: Path, by: str, is_known: bool
) -> None:
    """In another product, in the same one under another date, and in another stream."""
    word = fingerprint(fastindex, root, f"{PRODUCT}/{NEW}") if by == "fingerprint" else "debian/12"
    copy(root, f"images/{PRODUCT}/{NEW}", f"images/evil/1/amd64/default/{NEW}")
    copy(root, f"images/{PRODUCT}/{NEW}", f"images/{PRODUCT}/20240501_05:24")
    copy(root, f"images/{PRODUCT}/{NEW}", f"images-daily/evil/1/amd64/default/{NEW}")
    write_tree(root, in_stream("images-daily", version(f"zeta/2/amd64/default/{OLD}")))
    if is_known:
        assert fastindex(*STREAMS, root).returncode == 3
    else:
        for cache in root.rglob("evil/**/.items.json"):
            cache.unlink()
        (root / f"images/{PRODUCT}/20240501_05:24/.items.json").unlink()
    result = fastindex("remove", word, *STREAMS, root)
    assert result.returncode == 0, result.stderr
    assert published(root) == {f"{KEY} {OLD}", f"zeta:1:amd64:default {OLD}"}
    assert published(root, "images-daily") == {f"zeta:2:amd64:default {OLD}"}
    assert fastindex(*STREAMS, root).returncode == 0
    assert published(root) == {f"{KEY} {OLD}", f"zeta:1:amd64:default {OLD}"}


def test_a_copy_that_has_other_content_by_now_stays(fastindex: Run, root: Path) -> None:
    copy(root, f"images/{PRODUCT}/{NEW}", f"images/evil/1/amd64/default/{NEW}")
    assert fastindex(root).returncode == 3
    word = fingerprint(fastindex, root, f"{PRODUCT}/{NEW}")
    write_tree(root, version(f"evil/1/amd64/default/{NEW}"), mtime_ns=1_700_000_001 * 10**9)
    assert fastindex("remove", word, root).returncode == 0
    assert f"evil:1:amd64:default {NEW}" in published(root)
    assert f"{KEY} {NEW}" not in published(root)


@pytest.mark.parametrize("word", ["debian/13", "20240507_05:24", "debian/13/amd64/default"])
def test_an_image_goes_from_the_stream_that_it_is_in(fastindex: Run, root: Path, word: str) -> None:
    write_tree(root, in_stream("images-daily", version("debian/13/amd64/default/20240507_05:24")))
    assert fastindex("-q", *STREAMS, root).returncode == 0
    before = published(root)
    result = fastindex("remove", "--grace", "0", word, root)
    path = "images-daily/debian/13/amd64/default/20240507_05:24"
    assert (result.returncode, result.stderr.count("warning: ")) == (0, 0), result.stderr
    assert result.stdout == f"withdrawn {path}\ndeleted {path}\n"
    assert published(root, "images-daily") == set()
    assert published(root) == before
    assert fastindex("remove", word, root).returncode == 2


def test_a_mirror_without_the_default_stream(fastindex: Run, tmp_path: Path) -> None:
    root = write_tree(tmp_path, in_stream("daily", version(f"{PRODUCT}/{OLD}")))
    assert fastindex("-q", "--stream", "daily", root).returncode == 0
    assert fastindex("remove", "debian/12", root).returncode == 0
    assert published(root, "daily") == set()
    assert not (root / "streams/v1/images.json").exists()


WORDS = (
    f"images/{PRODUCT}/{OLD}",
    f"{PRODUCT}/{OLD}",
    f"default/{OLD}/",
    f"/images/{PRODUCT}/{OLD}",
    f"ROOT/images/{PRODUCT}/{OLD}",
    f"./images/{PRODUCT}/{OLD}",
    f"images//{PRODUCT}/./{OLD}",
)


@pytest.mark.parametrize("word", WORDS)
def test_a_version_goes_by_its_path(fastindex: Run, root: Path, word: str) -> None:
    path = word.replace("ROOT", str(root))
    if word.startswith("default"):
        shutil.rmtree(root / "images/zeta")
        fastindex("--force", root)
    result = fastindex("remove", "--grace", "0", path, root)
    paths = f"withdrawn images/{PRODUCT}/{OLD}\ndeleted images/{PRODUCT}/{OLD}\n"
    assert (result.returncode, result.stdout) == (0, paths), result.stderr
    assert {name for name in published(root) if name.startswith(KEY)} == {f"{KEY} {NEW}"}
    assert sorted(os.listdir(root / "images" / PRODUCT)) == [NEW]


def test_a_path_may_be_as_the_shell_completes_it(fastindex: Run, root: Path) -> None:
    word = f"{root.name}/images/{PRODUCT}/{OLD}/"
    assert fastindex("remove", word, root.name).returncode == 0
    assert f"{KEY} {OLD}" not in published(root)


def test_a_version_or_product_is_not_taken_for_root(fastindex: Run, root: Path) -> None:
    inside = [f"images/{PRODUCT}/{OLD}", "images/zeta/1/amd64/default"]
    result = fastindex.func("remove", *inside, cwd=root)  # type: ignore[attr-defined]
    assert result.returncode == 0, result.stderr
    assert published(root) == {f"{KEY} {NEW}"}


@pytest.mark.parametrize("word", [PRODUCT, f"images/{PRODUCT}/", f"./images//{PRODUCT}", KEY])
def test_a_whole_product_goes_without_force(fastindex: Run, root: Path, word: str) -> None:
    result = fastindex("remove", "--grace", "0", word, root)
    assert result.returncode == 0, result.stderr
    assert published(root) == {f"zeta:1:amd64:default {OLD}"}
    assert os.listdir(root / "images" / PRODUCT) == []
    result = fastindex("remove", "--grace", "0", "zeta:1:amd64:default", root)
    assert result.returncode == 0, result.stderr
    assert published(root) == set()
    assert fastindex(root).returncode == 0


def test_a_copy_takes_the_place_of_a_product_that_was_named(fastindex: Run, root: Path) -> None:
    """It is the place that was named: somebody may be renaming a product."""
    copy(root, f"images/{PRODUCT}/{NEW}", f"images/devuan/5/amd64/default/{NEW}")
    assert fastindex(root).returncode == 3
    assert fastindex("remove", "--grace", "0", PRODUCT, root).returncode == 0
    assert published(root) == {f"devuan:5:amd64:default {NEW}", f"zeta:1:amd64:default {OLD}"}


def test_a_version_that_is_not_published_goes(fastindex: Run, root: Path) -> None:
    (root / f"images/{PRODUCT}/20240507").mkdir()
    (root / f"images/{PRODUCT}/20240507/incus.tar.xz").write_bytes(b"i")
    assert fastindex("remove", "--grace", "0", f"{PRODUCT}/20240507", root).returncode == 0
    assert not (root / f"images/{PRODUCT}/20240507").exists()
    assert len(published(root)) == 3


def test_a_withdrawn_version_is_deleted_at_once_if_its_path_is_named(
    fastindex: Run, root: Path
) -> None:
    assert fastindex("prune", "--keep", "1", root).returncode == 0
    result = fastindex("remove", "--grace", "0", f"{PRODUCT}/{OLD}", root)
    assert "deleted" in result.stdout
    assert os.listdir(root / "images" / PRODUCT) == [NEW]


def test_only_what_was_named_is_deleted(fastindex: Run, root: Path) -> None:
    """Neither what others withdrew nor leftovers: those have their own grace."""
    assert fastindex("prune", "--keep", "1", root).returncode == 0
    (root / f"images/{PRODUCT}/.20240404.pruned").mkdir()
    before = sorted(os.listdir(root / "images" / PRODUCT))
    for options in (["-n"], []):
        result = fastindex("remove", "--grace", "0", *options, "zeta/1", root)
        assert "debian" not in result.stdout
    assert result.stdout.splitlines() == [
        f"withdrawn images/zeta/1/amd64/default/{OLD}",
        f"deleted images/zeta/1/amd64/default/{OLD}",
    ]
    assert sorted(os.listdir(root / "images" / PRODUCT)) == before
    assert "1 to be deleted by a later run" in result.stderr


def test_what_fits_several_versions_or_products_is_refused(fastindex: Run, root: Path) -> None:
    parts = {
        name.replace(".", "_"): make_content(name, "daily")
        for name in ("incus.tar.xz", "rootfs.squashfs")
    }
    write_tree(root, in_stream("images-daily", version(f"{PRODUCT}/{OLD}", **parts)))
    assert fastindex("-q", *STREAMS, root).returncode == 0
    for word in (OLD, f"{PRODUCT}/{OLD}", PRODUCT, KEY):
        result = fastindex("remove", word, *STREAMS, root)
        assert result.returncode == 2, word
        assert "fits several" in result.stderr
        assert f"  images-daily/{PRODUCT}" in result.stderr
    assert len(published(root)) == 3


def test_nobody_can_claim_the_path_of_another_product(fastindex: Run, root: Path) -> None:
    toml = f'aliases = ["{PRODUCT}", "{KEY}"]\n'.encode()
    write_tree(root, {"images/zeta/1/amd64/default/.product.toml": toml})
    fastindex(root)
    for word in (PRODUCT, KEY):
        result = fastindex("remove", "-n", word, root)
        assert "zeta" not in result.stdout
        assert f"withdraw images/{PRODUCT}/{NEW}" in result.stdout


def test_a_word_that_is_both_a_version_and_a_fingerprint_is_refused(
    fastindex: Run, tmp_path: Path
) -> None:
    root = write_tree(tmp_path, version(f"{PRODUCT}/{OLD}"))
    assert fastindex("-q", root).returncode == 0
    tree: Files = version(f"{PRODUCT}/20240606")
    write_tree(root, tree)
    path = root / "streams/v1/images.json"
    word = fingerprint(fastindex, root, f"{PRODUCT}/{OLD}")
    path.write_text(path.read_text().replace(word, "20240606" + word[8:]))
    result = fastindex("remove", "20240606", root)
    assert result.returncode == 2
    assert "fits several things" in result.stderr


def test_an_image_can_be_removed_while_another_stream_is_not_mounted(
    fastindex: Run, root: Path
) -> None:
    write_tree(root, in_stream("images-daily", version("debian/13/amd64/default/20240507_05:24")))
    assert fastindex("-q", *STREAMS, root).returncode == 0
    shutil.move(root / "images", root.parent / "elsewhere")
    before = published(root)
    result = fastindex("remove", "debian/13", root)
    assert result.returncode == 3
    assert "streams/v1/images.json: is published, but" in result.stderr
    assert (published(root), published(root, "images-daily")) == (before, set())


def test_another_stream_that_cannot_be_published_is_no_obstacle(fastindex: Run, root: Path) -> None:
    write_tree(root, in_stream("images-daily", version("debian/13/amd64/default/20240507_05:24")))
    assert fastindex("-q", *STREAMS, root).returncode == 0
    for name in ("debian", "zeta"):
        shutil.move(root / "images" / name, root / f"unmounted-{name}")
    assert fastindex(*STREAMS, root).returncode == 3  # images stays as it was published
    before = published(root)
    assert fastindex("remove", "debian/13", *STREAMS, root).returncode == 0
    assert (published(root), published(root, "images-daily")) == (before, set())
    shutil.move(root / "images-daily", root / "unmounted")
    (root / "streams/.withdrawn.json").write_text("{}")
    shutil.move(root / "unmounted-zeta", root / "images/zeta")
    result = fastindex("remove", "zeta/1", root)
    assert result.returncode == 0
    assert "nothing of images/debian is published any more" in result.stderr


@pytest.mark.parametrize("key", ["com.example:released:download", ".hidden", "a/b"])
@pytest.mark.parametrize("options", [(), ("-n",)])
def test_an_image_of_a_stream_that_another_tool_named_stays(
    fastindex: Run, root: Path, key: str, options: tuple[str, ...]
) -> None:
    index = root / "streams/v1/index.json"
    index.write_text(index.read_text().replace('"index":{"images"', f'"index":{{"{key}"'))
    before = stamps(root)
    result = fastindex("remove", *options, "debian/12", root)
    assert result.returncode == 1
    assert f"is published in the stream '{key}'" in result.stderr
    assert "remove it with the tool that published it" in result.stderr
    assert "--stream" not in result.stderr
    assert stamps(root) == before


def test_an_image_of_a_stream_that_is_not_mounted_stays(fastindex: Run, root: Path) -> None:
    write_tree(root, in_stream("images-daily", version("debian/13/amd64/default/20240507_05:24")))
    assert fastindex("-q", *STREAMS, root).returncode == 0
    shutil.move(root / "images-daily", root / "unmounted")
    result = fastindex("remove", "debian/13", root)
    assert result.returncode == 1
    assert "images-daily: cannot list the stream directory" in result.stderr
    assert not (root / "streams/.withdrawn.json").exists()
    assert len(published(root, "images-daily")) == 1


def test_nobody_can_claim_the_fingerprint_of_an_image(fastindex: Run, root: Path) -> None:
    whole = fingerprint(fastindex, root, f"{PRODUCT}/{NEW}")
    write_tree(root, version("decoy/1/amd64/default/20240501"))
    (root / "images/decoy/.product.toml").write_text(f'aliases = ["{whole[:12]}"]')
    assert fastindex("-q", root).returncode == 0
    before = published(root)
    result = fastindex("remove", whole[:12], root)
    assert result.returncode == 2
    assert "an alias of one image and the start of another's fingerprint" in result.stderr
    assert published(root) == before
    assert fastindex("remove", whole, root).returncode == 0
    assert len(published(root)) == len(before) - 1


def test_what_cannot_be_found_in_a_torn_catalogue_is_told_as_that(
    fastindex: Run, root: Path
) -> None:
    word = fingerprint(fastindex, root, f"{PRODUCT}/{NEW}")
    product_file = root / "streams/v1/images.json"
    product_file.write_bytes(product_file.read_bytes()[:100])
    result = fastindex("remove", word, root)
    assert result.returncode == 1
    assert f"{word!r}: no published image" in result.stderr
    assert "streams/v1/images.json: " in result.stderr
    assert (root / f"images/{PRODUCT}/{NEW}/rootfs.squashfs").exists()


def test_what_a_product_file_lost_is_told_as_that(fastindex: Run, root: Path) -> None:
    path = root / "streams/v1/images.json"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "products": {}}))
    told = fastindex("remove", "debian/12", root)
    assert told.returncode == 1
    assert "streams/v1/images.json: lacks 2 products that the index names, such as" in told.stderr

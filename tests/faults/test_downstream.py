"""A mirror of the mirror, made by the documented script, never names what it does not have."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.support.command import COMMAND
from tests.support.downstream import Downstream, run_rsyncd
from tests.support.trees import published, version, write_tree

PRODUCTS = ("debian/12/amd64/default", "alpine/3/amd64/default", "void/1/arm64/default")
LISTS = ("--lists", "--gzip")


def fastindex(*words: str | Path) -> None:
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_404_while_upstream_publishes_prunes_and_removes(tmp_path: Path) -> None:
    root = tmp_path / "upstream"
    for product in PRODUCTS:
        write_tree(root, version(f"{product}/20240101"))
    fastindex(*LISTS, root)
    has_ended = threading.Event()
    failures: list[str] = []
    looks = 0

    def publish() -> None:
        for day in range(2, 26):
            product = PRODUCTS[day % 3]
            write_tree(root, version(f"{product}/202401{day:02}"))
            fastindex("prune", "--keep", "2", "--grace", "30s", *LISTS, root)
            if day % 7 == 0:
                fastindex("remove", "--grace", "30s", *LISTS, f"{product}/202401{day:02}", root)
        has_ended.set()

    def look() -> None:
        nonlocal looks
        while not has_ended.is_set():
            failures.extend(downstream.find_missing())
            looks += 1

    with run_rsyncd(root, tmp_path) as url:
        downstream = Downstream(tmp_path, url)
        first = downstream.fetch()
        assert first.returncode == 0, first.stderr
        threads = [threading.Thread(target=one) for one in (publish, look)]
        for thread in threads:
            thread.start()
        ended = []
        while not has_ended.is_set():
            ended.append(downstream.fetch().returncode)
        for thread in threads:
            thread.join()
        last = downstream.fetch()
    assert last.returncode == 0, last.stderr
    assert failures == []
    assert looks > 5
    assert 0 in ended
    assert published(downstream.root) == published(root)
    trace = "streams/trace.json"
    assert (downstream.root / trace).read_bytes() == (root / trace).read_bytes()
    assert (downstream.root / "streams/v1/index.json.gz").exists()


def test_what_is_not_named_for_two_hours_goes(tmp_path: Path) -> None:
    root = tmp_path / "upstream"
    old, new = (f"{PRODUCTS[0]}/2024010{day}" for day in (1, 2))
    write_tree(root, version(old) | version(new))
    fastindex(*LISTS, root)
    with run_rsyncd(root, tmp_path) as url:
        downstream = Downstream(tmp_path, url)
        assert downstream.fetch().returncode == 0
        fastindex("remove", "--grace", "0", *LISTS, old, root)
        assert downstream.fetch().returncode == 0
        assert downstream.fetch().returncode == 0
        gone = downstream.root / f"images/{old}/root.squashfs"
        listed = [*(downstream.root / f"images/{old}").iterdir()]
        assert listed, gone
        os.utime(downstream.root / ".published", (time.time() - 7300,) * 2)
        assert downstream.fetch().returncode == 0
    assert not [*(downstream.root / f"images/{old}").iterdir()]
    assert downstream.find_missing() == []
    assert [*(downstream.root / f"images/{new}").iterdir()]
    assert not [*downstream.root.glob(".new-*")]


@pytest.mark.parametrize("damage", ["index", "list"])
def test_files_that_do_not_belong_together_change_nothing(tmp_path: Path, damage: str) -> None:
    root = tmp_path / "upstream"
    write_tree(root, version(f"{PRODUCTS[0]}/20240101"))
    fastindex(*LISTS, root)
    with run_rsyncd(root, tmp_path) as url:
        downstream = Downstream(tmp_path, url)
        assert downstream.fetch().returncode == 0
        before = (downstream.root / "streams/v1/index.json").read_bytes()
        name = "streams/v1/index.json" if damage == "index" else "streams/files.txt"
        (root / name).write_bytes((root / name).read_bytes() + b"\n")
        done = downstream.fetch()
    assert (done.returncode, "is of another generation" in done.stderr) == (1, True)
    assert (downstream.root / "streams/v1/index.json").read_bytes() == before


def test_what_upstream_does_not_make_any_more_goes_and_what_is_ours_stays(tmp_path: Path) -> None:
    root = tmp_path / "upstream"
    write_tree(root, version(f"{PRODUCTS[0]}/20240101"))
    fastindex(*LISTS, "--page", root)
    with run_rsyncd(root, tmp_path) as url:
        downstream = Downstream(tmp_path, url)
        assert downstream.fetch().returncode == 0
        assert (downstream.root / "index.html").exists()
        own = {"robots.txt": "mine", "notes/a.txt": "mine", "images/.hidden": "mine"}
        for name, text in own.items():
            (downstream.root / name).parent.mkdir(exist_ok=True)
            (downstream.root / name).write_text(text)
        write_tree(root, version(f"{PRODUCTS[0]}/20240102"))
        fastindex("--lists", root)
        os.utime(downstream.root / ".published", (time.time() - 7300,) * 2)
        done = downstream.fetch()
        assert done.returncode == 0, done.stderr
        left = {str(path.relative_to(downstream.root)) for path in downstream.root.rglob("*.*")}
        assert not [path for path in left if path.endswith((".gz", ".html", ".atom"))]
        assert {name: (downstream.root / name).read_text() for name in own} == own
        fastindex(root)
        done = downstream.fetch()
    assert (done.returncode, "ask there for fastindex --lists" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr
    assert downstream.find_missing() == []


def test_streams_with_names_that_rsync_takes_for_comments(tmp_path: Path) -> None:
    root = tmp_path / "upstream"
    names = ("#x", ";y", "# catalogue", "-z")
    for number, name in enumerate(names):
        one = version(f"{PRODUCTS[0]}-{number}/2024010{number + 1}")
        write_tree(root, {path.replace("images/", f"{name}/", 1): one[path] for path in one})
    fastindex(*LISTS, *(f"--stream={name}" for name in names), root)
    with run_rsyncd(root, tmp_path) as url:
        downstream = Downstream(tmp_path, url)
        for _ in range(2):
            done = downstream.fetch()
            assert done.returncode == 0, done.stderr
            assert downstream.find_missing() == []
            os.utime(downstream.root / ".published", (time.time() - 7300,) * 2)


def test_a_run_that_is_killed_before_the_index_deletes_nothing_that_it_names(
    tmp_path: Path,
) -> None:
    root = tmp_path / "upstream"
    old, new = (f"{PRODUCTS[0]}/2024010{day}" for day in (1, 2))
    write_tree(root, version(old))
    fastindex(*LISTS, root)
    with run_rsyncd(root, tmp_path) as url:
        downstream = Downstream(tmp_path, url)
        assert downstream.fetch().returncode == 0
        os.utime(downstream.root / ".published", (time.time() - 7300,) * 2)
        write_tree(root, version(new))
        fastindex("remove", "--grace", "0", *LISTS, old, root)
        script = tmp_path / "mirror-images"
        whole = script.read_text()
        script.write_text(whole.replace("rsync --times --recursive --delete --exclude", "exit 1 #"))
        assert downstream.fetch().returncode == 1
        script.write_text(whole)
        assert downstream.fetch().returncode == 0
    assert [*(downstream.root / f"images/{old}").iterdir()]  # cached catalogues still name it


def test_a_transfer_that_breaks_off_again_and_again_ends_some_day(tmp_path: Path) -> None:
    root = tmp_path / "upstream"
    write_tree(root, version(f"{PRODUCTS[0]}/20240101"))
    fastindex(*LISTS, root)
    with run_rsyncd(root, tmp_path) as url:
        downstream = Downstream(tmp_path, url)
        assert downstream.fetch().returncode == 0
        for day in range(2, 8):
            write_tree(root, version(f"{PRODUCTS[day % 3]}/2024010{day}"))
        fastindex(*LISTS, root)
        script = tmp_path / "mirror-images"
        whole = script.read_text()
        count = 0
        for _ in range(2):
            os.utime(downstream.root / ".published", (time.time() - 7300,) * 2)
            some = 'head -n 6 "$new/images.txt" > "$new/some" && mv "$new/some" "$new/images.txt"; '
            command = 'rsync --times --files-from="$new/images.txt" "$from/" "$to/"'
            assert command in whole
            script.write_text(whole.replace(command, f"{some}{command}; exit 1"))
            assert downstream.fetch().returncode == 1
            count = len([*(downstream.root / "images").rglob("*.squashfs")])
        assert count >= 3
        script.write_text(whole)
        assert downstream.fetch().returncode == 0
    assert downstream.find_missing() == []

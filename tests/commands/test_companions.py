"""What accompanies the catalogue is of the same generation, and goes when it is not asked for."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from tests.support.command import COMMAND, Run
from tests.support.signing import Signer, make_signer
from tests.support.tools import needs
from tests.support.trees import in_stream, published, stamps, version, write_file, write_tree

PRODUCT = "debian/12/amd64/default"
OLD, NEW = f"{PRODUCT}/20240505_05:24", f"{PRODUCT}/20240506_05:24"
ALL = ("--gzip", "--zstd", "--lists")
CATALOGUE = ("streams/v1/images.json", "streams/v1/index.json")
LISTS = {"streams/files.txt", "streams/fullfiletimelist", "streams/trace.json"}


@pytest.fixture
def signer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Signer]:
    with make_signer("mirror") as made:
        monkeypatch.setenv("GNUPGHOME", str(made.home))
        yield made


def list_served(root: Path) -> set[str]:
    """Return what is in ``streams/``, but for what is hidden."""
    return {
        str(path.relative_to(root)) for path in (root / "streams").rglob("[!.]*") if path.is_file()
    }


def unpack(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    return zstd.decompress(path.read_bytes())


def assert_one_generation(root: Path, streams: tuple[str, ...] = ("images",)) -> None:
    for path in (*(f"streams/v1/{stream}.json" for stream in streams), CATALOGUE[1]):
        data = (root / path).read_bytes()
        for suffix in (".gz", ".zst"):
            assert unpack(root / f"{path}{suffix}") == data, path + suffix


def test_compressed_copies_and_lists_follow_each_build(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version(OLD))
    assert fastindex(*ALL, tmp_path).returncode == 0
    assert_one_generation(tmp_path)
    copies = {f"{path}{suffix}" for path in CATALOGUE for suffix in (".gz", ".zst")}
    assert list_served(tmp_path) == {*CATALOGUE, *copies, *LISTS}
    write_tree(tmp_path, version(NEW))
    assert fastindex(*ALL, tmp_path).returncode == 0
    assert_one_generation(tmp_path)
    assert len(published(tmp_path)) == 2


def test_what_is_equal_is_not_made_again(fastindex: Run, tmp_path: Path) -> None:
    write_tree(
        tmp_path, {**version(OLD), **in_stream("daily", version("alpine/3/amd64/x/20240101"))}
    )
    streams = ("--stream", "images", "--stream", "daily")
    fastindex(*ALL, *streams, tmp_path)
    before = stamps(tmp_path / "streams")
    assert fastindex(*ALL, *streams, tmp_path).returncode == 0
    after = stamps(tmp_path / "streams")
    assert {name for name in before if before[name] != after[name]} <= {".lock", ".run-build.json"}
    write_tree(tmp_path, version(NEW))
    fastindex(*ALL, *streams, tmp_path)
    last = stamps(tmp_path / "streams")
    assert last["v1/images.json.gz"] != after["v1/images.json.gz"]
    assert last["v1/daily.json.gz"] == after["v1/daily.json.gz"]
    assert last["v1/index.json.gz"] == after["v1/index.json.gz"]
    assert_one_generation(tmp_path, ("images", "daily"))


def test_a_new_option_is_made_though_nothing_else_has_changed(
    fastindex: Run, tmp_path: Path
) -> None:
    write_tree(tmp_path, version(OLD))
    fastindex(tmp_path)
    before = {path: (tmp_path / path).stat().st_mtime_ns for path in CATALOGUE}
    done = fastindex(*ALL, tmp_path)
    assert (done.returncode, "nothing read" in done.stderr) == (0, True)
    assert_one_generation(tmp_path)
    assert {path: (tmp_path / path).stat().st_mtime_ns for path in CATALOGUE} == before


def test_what_is_not_asked_for_any_more_is_removed_and_told_once(
    fastindex: Run, tmp_path: Path
) -> None:
    write_tree(tmp_path, version(OLD))
    fastindex(*ALL, tmp_path)
    done = fastindex("--zstd", tmp_path)
    assert done.returncode == 0
    assert "streams/v1/images.json.gz: was removed, with 1 more, as this run was not" in done.stderr
    assert "asked for --gzip" in done.stderr
    assert "--lists" in done.stderr
    assert "--zstd;" not in done.stderr
    assert list_served(tmp_path) == {*CATALOGUE, *(f"{path}.zst" for path in CATALOGUE)}
    assert "removed" not in fastindex("--zstd", tmp_path).stderr
    write_tree(tmp_path, version(NEW))
    assert "--zstd" in fastindex(tmp_path).stderr
    assert list_served(tmp_path) == {*CATALOGUE}
    assert not (tmp_path / "streams/.companions.json").exists()


def test_what_a_killed_run_left_is_removed_by_one_that_writes_other_files(
    fastindex: Run, tmp_path: Path
) -> None:
    """A run that was killed between two files leaves the second one's new content."""
    write_tree(tmp_path, version(OLD))
    fastindex("--gzip", tmp_path)
    place = tmp_path / "streams/v1"
    left = ("index.json.1", "images.json.gz", "images.sjson.2", "index.json.gpg")
    for name in (*left, "mine"):
        (place / f".{name}.tmp").write_bytes(b"half")
    write_tree(tmp_path, version(NEW))
    assert fastindex(tmp_path).returncode == 0
    assert {path.name for path in place.glob(".*")} == {".mine.tmp"}


def test_what_leads_to_the_rest_is_removed_first(fastindex: Run, tmp_path: Path) -> None:
    """Whoever is killed between them leaves no copy of the index that names what is gone."""
    root, trace = write_tree(tmp_path / "mirror", version(OLD)), tmp_path / "trace"
    settings = tmp_path / "page.toml"
    settings.write_text("product_pages = 0\n")
    page = ("--page", "--page-settings", settings)
    assert fastindex("--gzip", *page, root).returncode == 0
    strace = needs("strace", "apt-get install strace")
    traced = [strace, "-f", "-qq", "-e", "trace=unlinkat", "-o", str(trace)]
    subprocess.run([*traced, COMMAND, "-q", root], check=True)
    removed = re.findall(r'"([^."][^"]*\.(?:gz|html))"', trace.read_text())
    assert removed[0] == "index.json.gz"
    pages = [name for name in removed if name.endswith(".html")]
    assert pages[0] == "index.html"
    assert len(pages) == 2
    assert removed[-1] == "images.json.gz"


@pytest.mark.parametrize("command", [("prune",), ("remove", NEW)])
def test_other_commands_make_it_too(
    fastindex: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    write_tree(tmp_path, version(OLD) | version(NEW))
    fastindex(*ALL, tmp_path)
    write_tree(tmp_path, version(f"{PRODUCT}/20240507_05:24"))
    assert fastindex(*command, *ALL, tmp_path).returncode == 0
    assert_one_generation(tmp_path)


def test_what_somebody_else_has_put_there_stays_when_the_option_goes(
    fastindex: Run, tmp_path: Path
) -> None:
    write_tree(tmp_path, version(OLD))
    fastindex("--gzip", tmp_path)
    (tmp_path / "streams/v1/images.json.gz").write_bytes(b"mine")
    fastindex(tmp_path)
    assert (tmp_path / "streams/v1/images.json.gz").read_bytes() == b"mine"
    assert not (tmp_path / "streams/v1/index.json.gz").exists()


@pytest.mark.parametrize("damage", ["torn", "gone", "record"])
def test_what_is_damaged_is_made_again(fastindex: Run, tmp_path: Path, damage: str) -> None:
    write_tree(tmp_path, version(OLD))
    fastindex(*ALL, tmp_path)
    copy = tmp_path / "streams/v1/images.json.gz"
    if damage == "torn":
        os.truncate(copy, 20)
    elif damage == "gone":
        copy.unlink()
    else:
        write_file(tmp_path / "streams/.companions.json", b"{")
        os.truncate(copy, 20)
    assert fastindex(*ALL, tmp_path).returncode == 0
    assert_one_generation(tmp_path)


def test_lists_name_all_files_and_agree_with_the_trace(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version(OLD) | version(NEW))
    fastindex("--gzip", "--lists", tmp_path)
    trace = json.loads((tmp_path / "streams/trace.json").read_bytes())
    for entry in (*trace["catalogue"], *trace["lists"]):
        data = (tmp_path / entry["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["size"], entry["sha256"])
    images, _, rest = (tmp_path / "streams/files.txt").read_text().partition("# catalogue\n")
    on_disk = {
        str(path.relative_to(tmp_path))
        for path in (tmp_path / "images").rglob("[!.]*")
        if path.is_file()
    }
    assert set(images.splitlines()) == on_disk
    assert set(rest.splitlines()) == list_served(tmp_path)
    assert rest.splitlines()[-3:] == [CATALOGUE[1], f"{CATALOGUE[1]}.gz", "streams/trace.json"]
    assert (trace["versions"], trace["files"], trace["products"]) == (2, len(on_disk), 1)
    assert trace["bytes"] == sum((tmp_path / path).stat().st_size for path in on_disk)
    times = (tmp_path / "streams/fullfiletimelist").read_text().splitlines()
    for line in times[times.index("[Files]") + 1 : times.index("[End]") - 1]:
        mtime, kind, size, path = line.split("\t")
        status = (tmp_path / path).stat()
        assert (int(mtime), kind, int(size)) == (int(status.st_mtime), "f", status.st_size)


def read_made(root: Path) -> dict[str, bytes]:
    """Return all that is in ``streams/`` and is not the catalogue, and the page and the feed."""
    paths = [*(list_served(root) - {*CATALOGUE}), "index.html", "feed.atom"]
    made = {path: (root / path).read_bytes() for path in paths}
    trace = json.loads(made["streams/trace.json"])
    trace.pop("published_at")
    return {**made, "streams/trace.json": json.dumps(trace).encode()}


def test_what_is_brought_up_to_date_is_what_would_be_made_anew(
    fastindex: Run, tmp_path: Path
) -> None:
    """Products come, change and go, in two streams; some have names that others start with."""
    root, settings = tmp_path / "mirror", tmp_path / "page.toml"
    settings.write_text("product_pages = 0\n")
    settings.chmod(0o644)
    products = [PRODUCT, f"{PRODUCT}2", "debian/12/amd64/de", "alpine/3/amd64/x", "void/1/arm64/x"]
    for number, one in enumerate(products):
        write_tree(root, version(f"{one}/20240101"))
        write_tree(root, in_stream("daily", version(f"{one}-d/2024010{number + 1}")))
    more = ("--lists", "--page", "--page-settings", settings)
    command = ("--stream", "images", "--stream", "daily", "--force", *more, root)
    assert fastindex(*command).returncode == 0
    for number, one in enumerate((*products, products[0])):
        write_tree(root, version(f"{one}/2024020{number + 1}"))
        if number % 2:
            (root / f"images/{products[number - 1]}").rename(root / f".gone{number}")
        assert fastindex(*command).returncode == 0
        made = read_made(root)
        (root / "streams/.companions.json").unlink()
        for path in made:
            (root / path).unlink()
        assert fastindex(*command).returncode == 0
        assert read_made(root) == made
        assert len([path for path in made if path.startswith("streams/page/images~")]) > 2


def test_pages_of_products_that_are_as_they_were_stay(fastindex: Run, tmp_path: Path) -> None:
    root, settings = tmp_path / "mirror", tmp_path / "page.toml"
    settings.write_text("product_pages = 0\n")
    settings.chmod(0o644)
    write_tree(root, version(OLD))
    write_tree(root, version("alpine/3/amd64/x/20240101"))
    command = ("--page", "--page-settings", settings, root)
    assert fastindex(*command).returncode == 0
    before = stamps(root / "streams/page")
    write_tree(root, version(NEW))
    assert fastindex(*command).returncode == 0
    after = stamps(root / "streams/page")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"images~debian~12~amd64~default.html", ".summaries.json"}
    (root / "images/alpine").rename(root / ".alpine")
    assert fastindex(*command, "--force").returncode == 0
    assert "images~alpine~3~amd64~x.html" not in stamps(root / "streams/page")


def test_the_trace_keeps_the_time_of_its_generation(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version(OLD))
    fastindex("--lists", tmp_path)
    before = (tmp_path / "streams/trace.json").read_bytes()
    fastindex("--lists", "--gzip", tmp_path)
    now = json.loads((tmp_path / "streams/trace.json").read_bytes())
    assert now["published_at"] == json.loads(before)["published_at"]
    assert now["generation"] == json.loads(before)["generation"]


def read_with_gpgv(signer: Signer, message: Path) -> bytes:
    done = subprocess.run(
        ["gpgv", "--keyring", signer.keyring, "--output", "-", message],
        capture_output=True,
        check=True,
    )
    return done.stdout


def test_signatures_hold_for_whoever_has_the_key(
    fastindex: Run, tmp_path: Path, signer: Signer
) -> None:
    write_tree(tmp_path, version(OLD) | version(NEW))
    assert fastindex("--sign", "mirror@example.org", tmp_path).returncode == 0
    for path in CATALOGUE:
        content = json.loads((tmp_path / path).read_bytes())
        signed = json.loads(read_with_gpgv(signer, (tmp_path / path).with_suffix(".sjson")))
        if path == CATALOGUE[1]:
            assert signed["index"]["images"].pop("path") == "streams/v1/images.sjson"
            content["index"]["images"].pop("path")
        assert signed == content
        detached = [f"{tmp_path / path}.gpg", f"{tmp_path / path}"]
        subprocess.run(["gpgv", "--keyring", str(signer.keyring), *detached], check=True)


def test_the_reference_reader_accepts_the_signatures(
    fastindex: Run, tmp_path: Path, signer: Signer
) -> None:
    write_tree(tmp_path, version(OLD) | version(NEW))
    fastindex("--sign", "mirror@example.org", tmp_path)
    query = str(Path(sys.executable).with_name("sstream-query"))
    words = ["--keyring", str(signer.keyring), "--json", f"{tmp_path}/streams/v1/index.sjson"]
    done = subprocess.run([query, *words], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    found = {item["version_name"] for item in json.loads(done.stdout)}
    assert found == {OLD.rpartition("/")[2], NEW.rpartition("/")[2]}
    images = tmp_path / "streams/v1/images.sjson"
    images.write_bytes(images.read_bytes().replace(b"20240505", b"20240504"))
    done = subprocess.run([query, *words], capture_output=True, check=False, text=True)
    assert done.returncode != 0


@pytest.mark.parametrize("key", ["nobody@example.org", "--homedir", "expired@example.org"])
def test_a_signature_that_fails_stops_the_publication(
    fastindex: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    write_tree(tmp_path, version(OLD))
    fastindex(tmp_path)
    before = stamps(tmp_path / "streams/v1")
    write_tree(tmp_path, version(NEW))
    with make_signer("expired", is_expired=True) as expired:
        monkeypatch.setenv("GNUPGHOME", str(expired.home))
        done = fastindex(f"--sign={key}", tmp_path)
    assert done.returncode in (1, 2)
    assert "--sign" in done.stderr or "not signed, so nothing was published" in done.stderr
    assert stamps(tmp_path / "streams/v1") == before
    assert "Traceback" not in done.stderr


def test_lines_that_gnupg_would_cut_are_not_signed(
    fastindex: Run, tmp_path: Path, signer: Signer
) -> None:
    """They are long in the catalogue itself, which has one line."""
    for day in range(1, 29):
        write_tree(tmp_path, version(f"{PRODUCT}/202401{day:02}"))
    assert fastindex("--sign", "mirror@example.org", tmp_path).returncode == 0
    assert max(map(len, (tmp_path / CATALOGUE[0]).read_bytes().split(b"\n"))) > 20_000
    text = (tmp_path / CATALOGUE[0]).with_suffix(".sjson").read_bytes()
    assert max(map(len, text.split(b"\n"))) < 1_000
    signed = json.loads(read_with_gpgv(signer, (tmp_path / CATALOGUE[0]).with_suffix(".sjson")))
    assert signed == json.loads((tmp_path / CATALOGUE[0]).read_bytes())


def test_a_disk_that_is_full_at_the_last_page_changes_nothing(
    fastindex: Run, tmp_path: Path
) -> None:
    """All is written aside before the first file takes its place."""
    root, settings = tmp_path / "mirror", tmp_path / "page.toml"
    settings.write_text("product_pages = 0\n")
    settings.chmod(0o644)
    write_tree(root, version(OLD))
    command = ("--gzip", "--lists", "--page", "--page-settings", settings, root)
    assert fastindex(*command).returncode == 0
    before = stamps(root / "streams")
    write_tree(root, version(NEW))
    (root / "streams/.trace.json.tmp").mkdir()  # as if it could not be written
    done = fastindex(*command)
    assert done.returncode == 1
    after = stamps(root / "streams")
    served = {name for name in before if not os.path.basename(name).startswith(".")}
    assert {name: before[name] for name in served} == {name: after[name] for name in served}
    (root / "streams/.trace.json.tmp").rmdir()
    assert fastindex(*command).returncode == 0
    assert not [*(root / "streams").rglob("*.tmp")]


def test_what_a_killed_run_left_aside_goes(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version(OLD))
    fastindex("--page", "--gzip", tmp_path)
    record = tmp_path / "streams/.companions.json"
    document = json.loads(record.read_bytes())
    document["published"] = ""
    document["files"]["streams/page/gone.html"] = ["", "", "page", None]
    record.write_text(json.dumps(document))
    (tmp_path / "streams/page").mkdir()
    write_file(tmp_path / "streams/page/.gone.html.tmp", b"<html>")
    write_tree(tmp_path, version(NEW))
    assert fastindex("--page", "--gzip", tmp_path).returncode == 0
    assert not (tmp_path / "streams/page/.gone.html.tmp").exists()


def test_a_forged_record_removes_nothing_else(fastindex: Run, tmp_path: Path) -> None:
    root = tmp_path / "mirror"
    write_tree(root, version(OLD))
    fastindex("--gzip", root)
    victims = ["../victim", f"images/{OLD}/incus.tar.xz", "streams/v1/images.json", "notes.txt"]
    (tmp_path / "victim").write_text("mine")
    (root / "notes.txt").write_text("mine")
    record = root / "streams/.companions.json"
    document = json.loads(record.read_bytes())
    for path in victims:
        found = (root / path).stat()
        stamp = {
            "size_bytes": found.st_size,
            "mtime_ns": found.st_mtime_ns,
            "device": found.st_dev,
            "inode": found.st_ino,
        }
        document["files"][path] = ["", "", "gzip", stamp]
    record.write_text(json.dumps(document))
    assert fastindex(root).returncode == 0
    assert all((root / path).exists() for path in victims)
    assert not (root / "streams/v1/images.json.gz").exists()


def test_pages_are_not_written_through_a_symlink(fastindex: Run, tmp_path: Path) -> None:
    root, settings, out = tmp_path / "mirror", tmp_path / "page.toml", tmp_path / "out"
    settings.write_text("product_pages = 0\n")
    settings.chmod(0o644)
    write_tree(root, version(OLD))
    fastindex(root)
    out.mkdir()
    (root / "streams/page").symlink_to(out)
    done = fastindex("--page", "--page-settings", settings, root)
    assert (done.returncode, "is a symlink" in done.stderr) == (1, True)
    assert not [*out.iterdir()]


def test_a_copy_whose_record_is_lost_is_told_of(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, version(OLD))
    fastindex("--gzip", tmp_path)
    (tmp_path / "streams/.companions.json").unlink()
    write_tree(tmp_path, version(NEW))
    told = "streams/v1/images.json.gz: is older than images.json"
    assert told in fastindex(tmp_path).stderr
    assert told in fastindex(tmp_path).stderr
    assert "is older" not in fastindex("--gzip", tmp_path).stderr


def test_nobody_is_asked_for_a_passphrase(fastindex: Run, tmp_path: Path, signer: Signer) -> None:
    """A pinentry that waits would hold the mirror up for hours."""
    write_tree(tmp_path, version(OLD))
    asked = tmp_path / "asked"
    pinentry = tmp_path / "pinentry"
    pinentry.write_text(f"#!/bin/sh\ntouch {asked}\nexec sleep 60\n")
    pinentry.chmod(0o755)
    (signer.home / "gpg-agent.conf").write_text(f"pinentry-program {pinentry}\n")
    words = ["--batch", "--pinentry-mode", "loopback", "--passphrase", "secret"]
    key = ["--quick-gen-key", "locked <locked@example.org>", "ed25519", "sign", "never"]
    subprocess.run(["gpg", *words, *key], check=True, capture_output=True)
    for stop in ("gpg-agent",):
        subprocess.run(["gpgconf", "--kill", stop], check=True)
    done = fastindex("--sign", "locked@example.org", tmp_path)
    assert (done.returncode, "nothing was published" in done.stderr) == (1, True)
    assert not asked.exists()
    assert fastindex("--sign", "", tmp_path).returncode == 2

"""Catalogues that are signed with keys of the real GnuPG, or not as they must be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command import Run
from tests.support.signing import Signer, make_signer
from tests.support.trees import published, stamps, version, write_tree

INDEX, IMAGES = "streams/v1/index.json", "streams/v1/images.json"
OLDER = version("debian/12/amd64/default/20240505_05:24")
NEWER = version("debian/12/amd64/default/20240506_05:24")
KEY = "debian:12:amd64:default"

Sign = Callable[[Path], None]


@pytest.fixture(scope="module")
def trusted() -> Iterator[Signer]:
    """Return whoever the operator trusts."""
    with make_signer("trusted") as signer:
        yield signer


@pytest.fixture(scope="module")
def stranger() -> Iterator[Signer]:
    """Return whoever the operator does not know."""
    with make_signer("stranger") as signer:
        yield signer


@pytest.fixture(scope="module")
def expired() -> Iterator[Signer]:
    """Return whoever was trusted for a month, years ago."""
    with make_signer("expired", is_expired=True) as signer:
        yield signer


@pytest.fixture
def upstream(tmp_path: Path, fastindex: Run) -> Path:
    """Return a published tree, unsigned."""
    root = write_tree(tmp_path / "upstream", OLDER | NEWER)
    assert fastindex(root).returncode == 0
    return root


class Puller:
    """Pulls the upstream into a copy that demands signatures."""

    def __init__(self, fastindex: Run, upstream: Path, copy: Path, keyring: Path) -> None:
        self._words = ("pull", "--keyring", keyring, "--keep", "2", upstream.as_uri(), copy)
        self._fastindex = fastindex
        self._copy = copy
        copy.mkdir()

    def succeed(self) -> None:
        """See that the copy has all."""
        done = self._fastindex(*self._words)
        assert done.returncode == 0, done.stderr
        assert published(self._copy) == {f"{KEY} 20240505_05:24", f"{KEY} 20240506_05:24"}

    def fail(self, *words: str, exit_code: int = 1) -> None:
        """See that nothing changes, and that it is told why."""
        before = self._look()
        done = self._fastindex(*self._words)
        assert done.returncode == exit_code, done.stderr
        for word in words:
            assert word in done.stderr
        assert exit_code == 2 or "nothing was changed" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert self._look() == before

    def _look(self) -> dict[str, tuple[int, int]]:
        """Return what is in the copy, but for locks."""
        return {
            name: stamp for name, stamp in stamps(self._copy).items() if not name.endswith(".lock")
        }


@pytest.fixture
def puller(fastindex: Run, upstream: Path, tmp_path: Path, trusted: Signer) -> Puller:
    """Return what pulls and trusts one key."""
    return Puller(fastindex, upstream, tmp_path / "copy", trusted.keyring)


def sign(root: Path, signer: Signer, kind: str = "clear") -> None:
    """Sign a catalogue as Canonical does: in the signed index, paths end in .sjson."""
    index, images = root / INDEX, root / IMAGES
    if kind == "clear":
        signer.sign_clear(images)
        plain = index.read_bytes()
        index.write_bytes(plain.replace(b"images.json", b"images.sjson"))
        signer.sign_clear(index)
        index.write_bytes(plain)
    else:
        for path in (index, images):
            signer.sign_detached(path)


@pytest.mark.parametrize("kind", ["clear", "detached"])
def test_a_signed_catalogue_is_taken(
    upstream: Path, puller: Puller, trusted: Signer, kind: str
) -> None:
    sign(upstream, trusted, kind)
    puller.succeed()
    puller.succeed()


def test_what_is_signed_counts_not_what_lies_beside_it(
    upstream: Path, puller: Puller, trusted: Signer
) -> None:
    sign(upstream, trusted)
    (upstream / INDEX).write_bytes(b"{}")
    (upstream / IMAGES).write_bytes(b"{}")
    puller.succeed()


@pytest.mark.parametrize("missing", [INDEX, IMAGES])
@pytest.mark.parametrize("kind", ["clear", "detached"])
def test_an_unsigned_file_is_refused(
    upstream: Path, puller: Puller, trusted: Signer, kind: str, missing: str
) -> None:
    sign(upstream, trusted, kind)
    path = upstream / missing
    (path.with_suffix(".sjson") if kind == "clear" else Path(f"{path}.gpg")).unlink()
    puller.fail(f"{missing}: is not signed: the server lacks ", ".sjson", ".json.gpg", "--keyring")


@pytest.mark.parametrize("kind", ["clear", "detached"])
def test_another_key_is_refused(
    upstream: Path, puller: Puller, stranger: Signer, trusted: Signer, kind: str
) -> None:
    sign(upstream, stranger, kind)
    puller.fail("it is signed with the key ", f"which is not in {trusted.keyring}", "ask who runs")


@pytest.mark.parametrize("kind", ["clear", "detached"])
def test_an_expired_key_is_refused(
    upstream: Path, fastindex: Run, tmp_path: Path, expired: Signer, kind: str
) -> None:
    """gpgv itself accepts it."""
    sign(upstream, expired, kind)
    Puller(fastindex, upstream, tmp_path / "copy", expired.keyring).fail("which has expired")


@pytest.mark.parametrize("path", [INDEX, IMAGES])
@pytest.mark.parametrize("kind", ["clear", "detached"])
def test_content_that_was_changed_after_signing_is_refused(
    upstream: Path, puller: Puller, trusted: Signer, kind: str, path: str
) -> None:
    sign(upstream, trusted, kind)
    changed = upstream / path
    if kind == "clear":
        changed = changed.with_suffix(".sjson")
    changed.write_bytes(changed.read_bytes().replace(b"amd64", b"arm64", 1))
    puller.fail(changed.name, "its content is not what was signed with the key ")


def test_the_signature_of_another_file_is_refused(
    upstream: Path, puller: Puller, trusted: Signer
) -> None:
    sign(upstream, trusted, "detached")
    shutil.copy(upstream / f"{INDEX}.gpg", upstream / f"{IMAGES}.gpg")
    puller.fail("images.json", "its content is not what was signed with the key ")


def test_another_signed_file_in_the_place_of_the_index_is_refused(
    upstream: Path, puller: Puller, trusted: Signer
) -> None:
    sign(upstream, trusted)
    shutil.copy((upstream / IMAGES).with_suffix(".sjson"), (upstream / INDEX).with_suffix(".sjson"))
    puller.fail("index.json: its format is 'products:1.0', not index:1.0")


@pytest.mark.parametrize("kind", ["clear", "detached"])
def test_another_signed_stream_in_the_place_of_one_is_refused(
    upstream: Path, puller: Puller, trusted: Signer, kind: str
) -> None:
    products = json.loads((upstream / IMAGES).read_bytes())
    (upstream / IMAGES).write_text(json.dumps(products | {"content_id": "daily"}))
    sign(upstream, trusted, kind)
    puller.fail("it is signed, but as 'daily', and the index names it for 'images'")


def test_a_signed_stream_that_does_not_say_which_it_is_is_taken(
    upstream: Path, puller: Puller, trusted: Signer
) -> None:
    products = json.loads((upstream / IMAGES).read_bytes())
    del products["content_id"]
    (upstream / IMAGES).write_text(json.dumps(products))
    sign(upstream, trusted)
    puller.succeed()


@pytest.mark.parametrize("where", ["before", "after"])
def test_text_outside_of_what_is_signed_is_refused(
    upstream: Path, puller: Puller, trusted: Signer, where: str
) -> None:
    sign(upstream, trusted)
    path = (upstream / IMAGES).with_suffix(".sjson")
    message, other = path.read_bytes(), b'{"products": {}}\n'
    path.write_bytes(other + message if where == "before" else message + other)
    puller.fail("images.sjson: it has text outside of what is signed")


@pytest.mark.parametrize("second", ["trusted", "stranger"])
def test_two_messages_in_one_file_are_refused(
    upstream: Path, puller: Puller, trusted: Signer, stranger: Signer, second: str
) -> None:
    sign(upstream, trusted)
    path = (upstream / IMAGES).with_suffix(".sjson")
    message = path.read_bytes()
    {"trusted": trusted, "stranger": stranger}[second].sign_clear(upstream / IMAGES)
    path.write_bytes(message + path.read_bytes())
    puller.fail("images.sjson: it has text outside of what is signed")


@pytest.mark.parametrize("content", [b'{"products": {}}', b"", b"\0" * 4096, b"<html>"])
def test_a_file_that_is_only_called_signed_is_refused(
    upstream: Path, puller: Puller, trusted: Signer, content: bytes
) -> None:
    sign(upstream, trusted)
    (upstream / IMAGES).with_suffix(".sjson").write_bytes(content)
    puller.fail("images.sjson: it is not signed")


@pytest.mark.parametrize("content", [b"", b"no signature", b"\x89" * 100])
def test_a_detached_signature_that_is_none_is_refused(
    upstream: Path, puller: Puller, trusted: Signer, content: bytes
) -> None:
    sign(upstream, trusted, "detached")
    (upstream / f"{IMAGES}.gpg").write_bytes(content)
    puller.fail("images.json: ")


@pytest.mark.parametrize(
    "path", ["../images.sjson", "https://example.org/images.sjson", "/etc/passwd"]
)
def test_a_signed_index_that_leads_elsewhere_is_refused(
    upstream: Path, puller: Puller, trusted: Signer, path: str
) -> None:
    sign(upstream, trusted)
    index = json.loads((upstream / INDEX).read_bytes())
    index["index"]["images"]["path"] = path
    (upstream / INDEX).write_text(json.dumps(index))
    trusted.sign_clear(upstream / INDEX)
    puller.fail("has no images that can be used: images: ", repr(path))


def test_lines_that_gnupg_cuts_need_a_detached_signature(
    upstream: Path, puller: Puller, trusted: Signer
) -> None:
    images = upstream / IMAGES
    document = json.loads(images.read_bytes())
    document["comment"] = "x" * 30_000
    images.write_text(json.dumps(document))
    sign(upstream, trusted)
    signed = images.with_suffix(".sjson").read_bytes()
    assert b"x" * 10_000 in signed
    assert b"x" * 20_000 not in signed
    puller.fail("images.sjson: has lines of more than 19,990 characters", "images.json.gpg")
    trusted.sign_detached(images)
    puller.succeed()


def test_lines_that_gnupg_leaves_are_no_harm(
    upstream: Path, puller: Puller, trusted: Signer
) -> None:
    images = upstream / IMAGES
    document = json.loads(images.read_bytes())
    document["comment"] = "x" * 19_000
    images.write_text(json.dumps(document, indent=1))
    sign(upstream, trusted)
    puller.succeed()


def test_another_keyring_is_asked_for_a_catalogue_that_has_not_changed(
    upstream: Path,
    puller: Puller,
    trusted: Signer,
    stranger: Signer,
    tmp_path: Path,
    fastindex: Run,
) -> None:
    sign(upstream, trusted)
    keyring = tmp_path / "keys.gpg"
    shutil.copy(trusted.keyring, keyring)
    pulling = Puller(fastindex, upstream, tmp_path / "other", keyring)
    pulling.succeed()
    shutil.copy(stranger.keyring, keyring)
    pulling.fail(f"which is not in {keyring}")


def test_a_keyring_that_gpgv_does_not_read_is_told(
    upstream: Path, trusted: Signer, tmp_path: Path, fastindex: Run
) -> None:
    sign(upstream, trusted)
    keyring = tmp_path / "keys.asc"
    trusted.export_armored(keyring)
    done = fastindex("pull", "--keyring", keyring, upstream.as_uri(), tmp_path)
    assert done.returncode == 2
    assert f"gpg --dearmor < {keyring} > {keyring}.gpg" in done.stderr


def test_signatures_are_not_skipped_where_gpgv_is_missing(
    upstream: Path, trusted: Signer, puller: Puller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sign(upstream, trusted)
    monkeypatch.setenv("PATH", str(tmp_path))
    puller.fail("--keyring needs gpgv, which is not installed", exit_code=2)

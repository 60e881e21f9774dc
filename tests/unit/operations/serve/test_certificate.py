"""Certificates that are made: who trusts them, what for, and when they are renewed."""

from __future__ import annotations

import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fastindex.errors import ResourceError, UsageError
from fastindex.operations.serve.certificate import find_directory, prepare
from tests.support.tools import needs

pytest.importorskip("cryptography")

NAMES = ("images.lan", "localhost", "127.0.0.1", "::1", "192.168.7.9")
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state/fastindex/serve"


def contents(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.glob("[a-z]*")}


def renewed(place: Path, names: tuple[str, ...], now: datetime) -> set[str]:
    """Return the files that another preparation writes."""
    before = contents(place)
    prepare(str(place), names, now)
    return {name for name, content in contents(place).items() if before[name] != content}


def verify(authority: Path, certificate: Path, *words: str) -> bool:
    """Return whether openssl accepts a certificate."""
    openssl = needs("openssl", "apt-get install openssl")
    command = [openssl, "verify", "-x509_strict", "-purpose", "sslserver", *words]
    at = ["-attime", str(int(NOW.timestamp()))]
    files = ["-CAfile", str(authority), str(certificate)]
    return not subprocess.run([*command, *at, *files], capture_output=True, check=False).returncode


def test_nobody_else_may_read_the_keys(place: Path) -> None:
    prepare(str(place), NAMES, NOW)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.glob("[a-z]*")}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "server.crt": 0o644, "server.key": 0o600}
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_a_directory_that_others_may_enter_becomes_private(place: Path) -> None:
    place.mkdir(parents=True, mode=0o755)
    place.chmod(0o755)
    prepare(str(place), NAMES, NOW)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_openssl_accepts_it_for_its_names_only(place: Path) -> None:
    made = prepare(str(place), NAMES, NOW)
    files = Path(made.authority), Path(made.path)
    assert verify(*files)
    assert verify(*files, "-verify_hostname", "images.lan")
    assert verify(*files, "-verify_ip", "192.168.7.9")
    assert not verify(*files, "-verify_hostname", "example.org")


def test_the_authority_cannot_sign_for_others(place: Path, tmp_path: Path) -> None:
    made = prepare(str(place), NAMES, NOW)
    prepare(str(tmp_path / "thief"), ("images.lan", "example.org", "203.0.113.5"), NOW)
    thief = tmp_path / "thief"
    openssl = needs("openssl", "apt-get install openssl")
    for name, is_good in (
        ("DNS:images.lan", True),
        ("IP:10.1.2.3", True),
        ("DNS:example.org", False),
        ("IP:203.0.113.5", False),
    ):
        forged, request, extensions = (tmp_path / one for one in ("forged", "request", "ext"))
        extensions.write_text(
            f"basicConstraints=critical,CA:FALSE\nsubjectAltName={name}\n"
            "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        key = [openssl, "req", "-new", "-key", str(thief / "server.key"), "-subj", "/CN=x"]
        subprocess.run([*key, "-out", str(request)], check=True, capture_output=True)
        sign = [openssl, "x509", "-req", "-in", str(request), "-CA", made.authority]
        sign += ["-CAkey", str(place / "ca.key"), "-days", "3000", "-extfile", str(extensions)]
        subprocess.run([*sign, "-out", str(forged)], check=True, capture_output=True)
        command = [openssl, "verify", "-CAfile", made.authority]
        at = ["-attime", str(int((datetime.now(UTC) + timedelta(days=1500)).timestamp()))]
        done = subprocess.run([*command, *at, str(forged)], capture_output=True, check=False)
        assert (done.returncode == 0) is is_good, (name, done.stderr)


def test_what_holds_is_kept(place: Path) -> None:
    first = prepare(str(place), NAMES, NOW)
    assert not first.has_replaced_authority
    assert renewed(place, NAMES, NOW + timedelta(days=59)) == set()


def test_a_certificate_is_renewed_before_it_expires_and_clients_need_not_know(place: Path) -> None:
    prepare(str(place), NAMES, NOW)
    assert renewed(place, NAMES, NOW + timedelta(days=61)) == {"server.crt", "server.key"}


def test_an_address_of_a_lan_may_change(place: Path) -> None:
    prepare(str(place), NAMES, NOW)
    changed = (*NAMES[:-1], "10.0.0.5")
    assert renewed(place, changed, NOW) == {"server.crt", "server.key"}


@pytest.mark.parametrize("name", ["other.lan", "203.0.113.5"])
def test_another_name_or_public_address_needs_another_authority(place: Path, name: str) -> None:
    prepare(str(place), NAMES, NOW)
    assert prepare(str(place), (*NAMES, name), NOW).has_replaced_authority
    assert renewed(place, (*NAMES, name), NOW) == set()


def test_an_authority_is_replaced_a_year_before_it_expires(place: Path) -> None:
    prepare(str(place), NAMES, NOW)
    assert prepare(str(place), NAMES, NOW + timedelta(days=3300)).has_replaced_authority


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "server.crt", "server.key"])
@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\n", None])
def test_what_is_torn_or_missing_is_made_anew(
    place: Path, name: str, content: bytes | None
) -> None:
    prepare(str(place), NAMES, NOW)
    (place / name).unlink()
    if content is not None:
        (place / name).write_bytes(content)
    made = prepare(str(place), NAMES, NOW)
    assert verify(Path(made.authority), Path(made.path))


def test_a_key_of_another_kind_is_not_used(place: Path) -> None:
    prepare(str(place), NAMES, NOW)
    openssl = needs("openssl", "apt-get install openssl")
    words = [openssl, "genpkey", "-algorithm", "ed25519", "-out", str(place / "server.key")]
    subprocess.run(words, check=True, capture_output=True)
    made = prepare(str(place), NAMES, NOW)
    assert verify(Path(made.authority), Path(made.path))


def test_a_key_that_others_may_change_is_refused(place: Path) -> None:
    prepare(str(place), NAMES, NOW)
    (place / "ca.key").chmod(0o666)
    with pytest.raises(ResourceError, match=r"ca\.key: all users may write it"):
        prepare(str(place), NAMES, NOW)


def test_a_link_in_place_of_the_directory_is_refused(place: Path, tmp_path: Path) -> None:
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path)
    with pytest.raises(ResourceError):
        prepare(str(place), NAMES, NOW)


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert find_directory() == "/state/fastindex/serve"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert find_directory() == "/home/me/.local/state/fastindex/serve"
    monkeypatch.setenv("HOME", "")
    with pytest.raises(UsageError, match="XDG_STATE_HOME"):
        find_directory()

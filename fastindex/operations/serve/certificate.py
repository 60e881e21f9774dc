"""The certificate of a server that nobody has given one, by an authority of its own.

Clients trust the authority once, and the certificates that it signs may change. It is bound to the
names of this machine and to private addresses: whoever steals its key can pretend to be this
server, but no other one.
"""

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from fastindex.errors import ResourceError, UsageError
from fastindex.operations.serve.addresses import parse_address
from fastindex.system import locks
from fastindex.system.private import make_private_directory, replace_private_file
from fastindex.system.trust import read_trusted_file

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

AUTHORITY = "ca.crt"
"""What clients are told to trust, in the directory of the certificates."""
_AUTHORITY_KEY = "ca.key"
_CERTIFICATE = "server.crt"
_KEY = "server.key"
_LOCK = ".lock"
_MAX_BYTES = 1 << 16
_AUTHORITY_DAYS = 3650
_CERTIFICATE_DAYS = 90
_RENEWED_DAYS = 30
"""A certificate is renewed when it has so many days left; the authority with a year left."""
_LEEWAY = timedelta(hours=1)
"""How much the clock of a client may be behind."""
_MAX_NAME = 64
"""The length of a common name (RFC 5280)."""
_PRIVATE = (
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8"),
    *("fc00::/7", "fe80::/10", "::1/128"),
)
"""Where an address of this machine may change without a new authority."""


class Certificate(Struct, frozen=True):
    """What a server shows."""

    path: str
    """The PEM file of the certificate."""
    key: str
    """The PEM file of its key."""
    authority: str = ""
    """The PEM file that clients must trust; empty: it is the operator's matter."""
    has_replaced_authority: bool = False
    """Whether that has just been made, in place of another one."""


def find_directory() -> str:
    """Return where certificates are kept: below XDG_STATE_HOME.

    Raises:
        UsageError: there is no such place.
    """
    above = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(above):  # the XDG specification says to ignore it then
        above = os.path.join(os.environ.get("HOME", ""), ".local/state")
    if not os.path.isabs(above):
        raise UsageError(
            "neither XDG_STATE_HOME nor HOME is an absolute path: there is no place for a "
            "certificate; set one of them, or use --cert and --key"
        )
    return os.path.join(above, "fastindex/serve")


def prepare(directory: str, names: tuple[str, ...], now: datetime | None = None) -> Certificate:
    """Return a certificate for ``names`` that holds for a while; make or renew it where needed.

    Args:
        directory: where it is kept. Only this user may read the keys.
        names: what clients call the server.
        now: the time; None: that of the clock.

    Raises:
        ResourceError: it can be neither read nor made.
        LockHeldError: another server has been making it for a while.
    """
    now = now or datetime.now(UTC)
    made = [os.path.join(directory, name) for name in (_CERTIFICATE, _KEY, AUTHORITY)]
    try:
        make_private_directory(directory)
        with locks.lock(os.path.join(directory, _LOCK), 10):
            known = _load(directory, AUTHORITY, _AUTHORITY_KEY)
            if known is not None and _can_sign(known[0], names, now):
                authority = known
            else:
                authority = _make_authority(directory, names, now)
            present = _load(directory, _CERTIFICATE, _KEY)
            if present is None or not _holds(present[0], authority[0], names, now):
                _make_certificate(directory, authority, names, now)
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        raise ResourceError(
            f"{directory}: cannot use or make the certificate there: "
            f"{what}{error.strerror or error}; mend that, or use --cert and --key"
        ) from error
    has_replaced = known is not None and authority is not known
    return Certificate(made[0], made[1], made[2], has_replaced)


_Pair = tuple["x509.Certificate", "EllipticCurvePrivateKey"]


def _load(directory: str, certificate: str, key: str) -> _Pair | None:
    """Return a certificate and its key; None: they are missing, torn, or do not belong together.

    Raises:
        OSError: they cannot be read, or others may change them.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        _, shown = read_trusted_file(os.path.join(directory, certificate), _MAX_BYTES)
        _, secret = read_trusted_file(os.path.join(directory, key), _MAX_BYTES)
        first = x509.load_pem_x509_certificates(shown)[0]
        loaded = load_pem_private_key(secret, None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not isinstance(loaded, EllipticCurvePrivateKey):
        return None
    return (first, loaded) if first.public_key() == loaded.public_key() else None


def _can_sign(authority: x509.Certificate, names: tuple[str, ...], now: datetime) -> bool:
    """Return whether an authority will hold for a year, and may sign for ``names``."""
    from cryptography import x509

    try:
        bounds = authority.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return False
    permitted = [subtree.value for subtree in bounds.permitted_subtrees or ()]
    networks = [one for one in permitted if not isinstance(one, str)]
    for name in names:
        address = parse_address(name)
        if address is None:
            if name not in permitted:
                return False
        elif not any(address in network for network in networks):
            return False
    left = authority.not_valid_after_utc - now
    return authority.not_valid_before_utc <= now and left > timedelta(days=365)


def _holds(
    shown: x509.Certificate, authority: x509.Certificate, names: tuple[str, ...], now: datetime
) -> bool:
    """Return whether a certificate is the authority's, for just ``names``, and not due."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        shown.verify_directly_issued_by(authority)
        told = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    left = shown.not_valid_after_utc - now
    is_due = left < timedelta(days=_RENEWED_DAYS) or shown.not_valid_before_utc > now
    return not is_due and list(told) == _name_all(names)


def _make_authority(directory: str, names: tuple[str, ...], now: datetime) -> _Pair:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    own = [address for name in names if (address := parse_address(name)) is not None]
    networks = [ipaddress.ip_network(network) for network in _PRIVATE]
    networks += [ipaddress.ip_network(one) for one in own if not any(one in n for n in networks)]
    hosts = [name for name in names if parse_address(name) is None]
    permitted: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
    permitted += [x509.IPAddress(network) for network in networks]
    subject = _name_subject(f"fastindex serve at {names[0]}, {now:%Y-%m-%d %H:%M:%S}")
    usage = _make_usage(is_authority=True)
    certificate = _sign(
        _start(subject, subject, key, now, _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .add_extension(usage, critical=True),
        key,
        key,
    )
    _save(directory, _AUTHORITY_KEY, key)
    _save(directory, AUTHORITY, certificate)
    return certificate, key


def _make_certificate(
    directory: str, authority: _Pair, names: tuple[str, ...], now: datetime
) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    issuer, signing = authority
    key = ec.generate_private_key(ec.SECP256R1())
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = _sign(
        _start(_name_subject(names[0]), issuer.subject, key, now, _CERTIFICATE_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_make_usage(is_authority=False), critical=True)
        .add_extension(purpose, critical=False)
        .add_extension(x509.SubjectAlternativeName(_name_all(names)), critical=False),
        key,
        signing,
    )
    _save(directory, _KEY, key)
    _save(directory, _CERTIFICATE, certificate)


def _start(
    subject: x509.Name,
    issuer: x509.Name,
    key: EllipticCurvePrivateKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LEEWAY)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _sign(
    builder: x509.CertificateBuilder,
    key: EllipticCurvePrivateKey,
    signing: EllipticCurvePrivateKey,
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    if key is not signing:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
        builder = builder.add_extension(issuer, critical=False)
    return builder.sign(signing, hashes.SHA256())


def _make_usage(*, is_authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name_subject(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_MAX_NAME])])


def _name_all(names: tuple[str, ...]) -> list[x509.GeneralName]:
    from cryptography import x509

    return [
        x509.DNSName(name) if (address := parse_address(name)) is None else x509.IPAddress(address)
        for name in names
    ]


def _save(directory: str, name: str, content: x509.Certificate | EllipticCurvePrivateKey) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    if isinstance(content, x509.Certificate):
        data = content.public_bytes(serialization.Encoding.PEM)
    else:
        data = content.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    is_secret = not isinstance(content, x509.Certificate)
    replace_private_file(os.path.join(directory, name), data, mode=0o600 if is_secret else 0o644)

"""Signed catalogues: verified by gpgv with the operator's keyring, before anything is parsed.

Upstreams sign a catalogue file ``X.json`` in one of two ways: ``X.sjson`` has the same content in a
clear-signed message, ``X.json.gpg`` is a detached signature. What gpgv prints is what was signed.

GnuPG cuts long lines of clear-signed text when it signs, and the signature is good: of a file with
such lines, only the detached signature counts. gpgv accepts keys that have expired, and text around
what is signed; both are refused here.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess  # nosec B404  # gpgv, with names of ours
from contextlib import ExitStack
from typing import Final

from msgspec import Struct

from fastindex.errors import FastindexError, UsageError
from fastindex.mirror.state import pulled
from fastindex.remote.addresses import join_url, show_text, show_url
from fastindex.remote.client import Client, Document
from fastindex.remote.errors import FetchError
from fastindex.system import files

_MAX_SIGNATURE_BYTES = 1 << 20
_MAX_KEYRING_BYTES = 16 << 20
_SECONDS = 120
_MAX_LINE_BYTES: Final = 19_990
"""What GnuPG surely leaves of a line of clear-signed text; it cuts at 19,993 to 19,995."""
_FRAME: Final = (
    b"-----BEGIN PGP SIGNED MESSAGE-----",
    b"-----BEGIN PGP SIGNATURE-----",
    b"-----END PGP SIGNATURE-----",
)
"""The lines of a clear-signed message that begin with five hyphens: no line of its text does."""
_STATUS = "[GNUPG:] "


class SignatureError(FastindexError):
    """A catalogue file is not signed, or by nobody whom the operator trusts."""


class SignedFile(Struct, frozen=True):
    """A catalogue file that is signed by somebody whom the operator trusts."""

    path: str
    """Where it is, relative to the URL."""
    document: Document
    """As the server has it."""
    content: bytes
    """What is signed of it."""


class Keyring:
    """The keys that the operator trusts.

    Args:
        path: the keyring of GnuPG.

    Raises:
        UsageError: it is no readable file, or gpgv is not installed.
    """

    def __init__(self, path: str) -> None:
        if not (os.path.isfile(path) and os.access(path, os.R_OK)):
            raise UsageError(f"--keyring {path}: not a readable file; make one with gpg --export")
        program = shutil.which("gpgv")
        if program is None:
            raise UsageError("--keyring needs gpgv, which is not installed (Debian: gpgv)")
        content = files.read_small_file(path, _MAX_KEYRING_BYTES)
        if content.lstrip().startswith(b"-----BEGIN"):
            raise UsageError(
                f"--keyring {path}: is text, which gpgv does not read; make a keyring of it with "
                f"gpg --dearmor < {path} > {path}.gpg"
            )
        self.digest = pulled.digest(content)
        """Changes when the keys do."""
        self._path = os.path.abspath(path)
        self._program = program

    def fetch(self, client: Client, url: str, path: str, max_bytes: int) -> SignedFile:
        """Return a catalogue file, as it is signed.

        Args:
            client: asks the server.
            url: the upstream.
            path: the file, relative to the URL.
            max_bytes: the largest size that is accepted.

        Raises:
            SignatureError: there is no signature by one of the keys.
            FetchError: the server fails.
        """
        stem = path.removesuffix(".sjson").removesuffix(".json")
        clear = f"{stem}.sjson"
        plain = path if path != clear else f"{stem}.json"
        message = _fetch(client, url, clear, max_bytes)
        if message is not None and not _has_long_lines(message.content):
            where = show_url(join_url(url, clear))
            return SignedFile(clear, message, self._verify_clear(where, message.content))
        document = _fetch(client, url, plain, max_bytes)
        signature = _fetch(client, url, f"{plain}.gpg", _MAX_SIGNATURE_BYTES)
        if document is not None and signature is not None:
            where = show_url(join_url(url, plain))
            self._verify(where, document.content, signature.content)
            return SignedFile(plain, document, document.content)
        if message is not None:
            raise SignatureError(
                f"{show_url(join_url(url, clear))}: has lines of more than {_MAX_LINE_BYTES:,} "
                "characters, which GnuPG cuts when it signs such a file; nothing was changed; ask "
                "who runs the upstream to wrap the lines, or to publish a detached signature as "
                f"{os.path.basename(plain)}.gpg"
            )
        raise SignatureError(
            f"{show_url(join_url(url, plain))}: is not signed: the server lacks "
            f"{os.path.basename(clear)}, and {os.path.basename(plain)} with "
            f"{os.path.basename(plain)}.gpg; nothing was changed; do without --keyring, or choose "
            "another upstream"
        )

    def _verify_clear(self, where: str, message: bytes) -> bytes:
        """Return what is signed of a clear-signed message.

        Raises:
            SignatureError: it has no signature by one of the keys, or more than one text.
        """
        lines = [line.rstrip() for line in io.BytesIO(message) if line.startswith(b"-----")]
        text = message.strip()
        is_whole = text.startswith(_FRAME[0]) and text.endswith(_FRAME[-1])
        if not lines:
            raise _distrust(where, "it is not signed")
        if tuple(lines) != _FRAME or not is_whole:
            raise _distrust(where, "it has text outside of what is signed, or is cut off")
        return self._verify(where, message, b"")

    def _verify(self, where: str, content: bytes, signature: bytes) -> bytes:
        """Return what gpgv prints; ``signature`` is a detached one, or empty.

        Raises:
            SignatureError: there is no good signature by one of the keys.
        """
        with ExitStack() as stack:
            opened = [
                stack.enter_context(files.in_memory(data)) for data in (signature, content) if data
            ]
            names = [f"/proc/self/fd/{file}" for file in opened]
            output = [] if signature else ["--output", "-"]
            command = [self._program, "--status-fd", "2", "--keyring", self._path, *output, *names]
            try:
                done = subprocess.run(  # noqa: S603  # nosec B603  # the names are ours
                    command, pass_fds=opened, capture_output=True, timeout=_SECONDS, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise SignatureError(f"{where}: gpgv cannot verify it ({error})") from error
        said = done.stderr.decode(errors="replace").splitlines()
        status = [line.removeprefix(_STATUS) for line in said if line.startswith(_STATUS)]
        if done.returncode or not any(line.startswith("GOODSIG ") for line in status):
            rest = [line.strip() for line in said if not line.startswith(_STATUS)]
            raise _distrust(where, self._explain(status) or f"gpgv says: {_join(rest)}")
        return done.stdout

    def _explain(self, status: list[str]) -> str:
        """Return why gpgv accepts no signature, from what it tells programs; empty: unknown."""
        told = {words[0]: words[1:] for words in map(str.split, status) if words}
        for word, reason in (
            ("BADSIG", "its content is not what was signed with the key {}"),
            ("EXPKEYSIG", "it is signed with the key {}, which has expired"),
            ("REVKEYSIG", "it is signed with the key {}, which was revoked"),
            ("EXPSIG", "its signature with the key {} has expired"),
            ("NO_PUBKEY", f"it is signed with the key {{}}, which is not in {self._path}"),
        ):
            if told.get(word):
                return reason.format(show_text(told[word][0]))
        return "it has no signature that gpgv can read" if "NODATA" in told else ""


def _has_long_lines(message: bytes) -> bool:
    return any(len(line) > _MAX_LINE_BYTES for line in io.BytesIO(message))


def _join(lines: list[str]) -> str:
    return show_text(" / ".join(filter(None, lines)) or "nothing")


def _distrust(where: str, reason: str) -> SignatureError:
    return SignatureError(
        f"{where}: {reason}; nothing was changed; try again later, and if that does not help, ask "
        "who runs the upstream for the key that it is signed with"
    )


def _fetch(client: Client, url: str, path: str, max_bytes: int) -> Document | None:
    """Return a file, or None if the server does not have it."""
    try:
        return client.fetch(join_url(url, path), max_bytes)
    except FetchError as error:
        if error.is_missing:
            return None
        raise

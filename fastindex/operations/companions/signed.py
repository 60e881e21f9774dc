"""Signatures of the catalogue, by GnuPG and its agent: this program never sees a passphrase.

``X.sjson`` is the text of ``X.json`` in a clear-signed message; that of the index names the
``.sjson`` of each product file, as readers expect who demand signatures
(https://launchpad.net/simplestreams). ``X.json.gpg`` is a detached signature of the bytes of
``X.json``. GnuPG cuts lines of clear-signed text at about 20,000 characters, and says that the
signature is good: so the text has short lines, and what a reader of each signature gets is
compared with what was to be signed before anything is published.
"""

from __future__ import annotations

import shutil
import subprocess  # nosec B404  # gpg and gpgv, with words of ours and the operator's key
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from msgspec import Struct
from msgspec.structs import replace

from fastindex.catalogue.companions import CatalogueFile, Companion
from fastindex.catalogue.product_files import PublishedFile
from fastindex.errors import PublishError, UsageError
from fastindex.formats.simplestreams import (
    Index,
    decode,
    encode,
    encode_key,
    frame_products,
    wrap_lines,
)
from fastindex.system import files

_SECONDS = 120
"""For one signature."""
_MAX_LINE_BYTES = 19_990
"""What GnuPG surely leaves of a line of clear-signed text; it cuts at 19,993 to 19,995."""
_MAX_SAID = 400


class SignMaker(Struct, frozen=True):
    """Makes ``X.sjson`` and ``X.json.gpg`` of each ``X.json``.

    Args:
        key: the key that signs, as ``gpg --local-user`` takes it.
    """

    key: str
    name: str = "sign"

    @property
    def fingerprint(self) -> str:
        """The key."""
        return self.key

    def make(self, file: CatalogueFile) -> Iterator[Companion]:
        """Yield the signed copy of a catalogue file, and its detached signature.

        Raises:
            UsageError: GnuPG is not installed, or has no such key.
            PublishError: it does not sign, or a reader would get something else than was signed.
            OSError: the file cannot be read.
        """
        gpg = _Gpg(self.key)
        text = b"".join(_wrap(file))
        message = gpg.run(["--clearsign", "--output", "-"], text, file)
        gpg.verify(message, None, text, file)
        yield Companion(f"{file.path.removesuffix('.json')}.sjson", (message,), file.path)
        content = b"".join(file.read_chunks())
        signature = gpg.run(["--detach-sign", "--armor", "--output", "-"], content, file)
        gpg.verify(signature, content, content, file)
        yield Companion(f"{file.path}.gpg", (signature,), file.path)


def _wrap(file: CatalogueFile) -> Iterator[bytes]:
    """Yield the text of a catalogue file in short lines.

    Raises:
        PublishError: a line would be too long all the same.
    """
    for piece in _list_pieces(file):
        if max(map(len, piece.split(b"\n"))) > _MAX_LINE_BYTES:
            raise PublishError(
                f"{file.path}: not signed, as a value in it has more than {_MAX_LINE_BYTES:,} "
                "characters, which GnuPG would cut; nothing was published; shorten it in the "
                "settings file of its product, such as a list of aliases"
            )
        yield piece


def _list_pieces(file: CatalogueFile) -> Iterator[bytes]:
    if not file.stream:
        index = decode(b"".join(file.read_chunks()), Index)
        entries = {
            stream: replace(entry, path=f"{entry.path.removesuffix('.json')}.sjson")
            for stream, entry in index.index.items()
        }
        yield wrap_lines(encode(replace(index, index=entries))) + b"\n"
        return
    head, tail = frame_products(file.stream)
    separator = b"\n"
    yield head
    with PublishedFile(file.place) as opened:
        for key in opened.keys:
            yield separator + encode_key(key) + wrap_lines(opened.read_raw(key))
            separator = b",\n"
    yield tail


class _Gpg:
    """GnuPG, with one key.

    Args:
        key: the key that signs.

    Raises:
        UsageError: a program is missing, or GnuPG has no such key.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._gpg, self._gpgv = _find_program("gpg"), _find_program("gpgv")
        if key.startswith("-") or not key:
            raise UsageError(f"--sign {key!r}: is no name of a key")
        done = _run([self._gpg, "--batch", "--no-tty", "--export", "--", key])
        if done.returncode or not done.stdout:
            raise UsageError(
                f"--sign {key}: gpg has no such key ({_shorten(done.stderr)}); "
                "list those that it has with gpg --list-secret-keys, as the user of this run"
            )
        self._ring = done.stdout

    def run(self, words: Sequence[str], content: bytes, file: CatalogueFile) -> bytes:
        """Return what gpg makes of ``content``.

        Raises:
            PublishError: it does not.
        """
        # The agent may know the passphrase; nobody is asked for it while a mirror waits.
        quiet = ["--batch", "--no-tty", "--pinentry-mode", "error"]
        command = [self._gpg, *quiet, "--local-user", self._key, *words]
        done = _run(command, content)
        if done.returncode or not done.stdout:
            raise PublishError(
                f"{file.path}: not signed, so nothing was published: gpg says: "
                f"{_shorten(done.stderr)}; see that its agent has the passphrase of {self._key}, "
                "and run again"
            )
        return done.stdout

    def verify(
        self, message: bytes, content: bytes | None, expected: bytes, file: CatalogueFile
    ) -> None:
        """Check that whoever trusts this key alone accepts what was signed, and gets it whole.

        Args:
            message: a clear-signed message, or a detached signature of ``content``.
            content: what the detached signature is of; None: it is none.
            expected: what was to be signed.
            file: the catalogue file.

        Raises:
            PublishError: they do not.
        """
        with ExitStack() as stack:
            parts = [self._ring, message] if content is None else [self._ring, message, content]
            opened = [stack.enter_context(files.in_memory(data)) for data in parts]
            ring, *names = [f"/proc/self/fd/{descriptor}" for descriptor in opened]
            output = ["--output", "-"] if content is None else []
            done = _run([self._gpgv, "--keyring", ring, *output, *names], files=opened)
        got = done.stdout if content is None else expected
        if done.returncode or got.rstrip(b"\n") != expected.rstrip(b"\n"):
            raise PublishError(
                f"{file.path}: its signature does not hold, so nothing was published: gpgv says: "
                f"{_shorten(done.stderr)}; see whether {self._key} has expired"
            )


def _find_program(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        raise UsageError(f"--sign needs {name}, which is not installed (Debian: {name})")
    return program


def _run(
    command: Sequence[str], content: bytes = b"", *, files: Sequence[int] = ()
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603  # nosec B603  # no shell
            command,
            input=content,
            pass_fds=files,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PublishError(
            f"{command[0]}: cannot be run ({error}), so nothing was published"
        ) from error


def _shorten(said: bytes) -> str:
    lines = said.decode(errors="replace").split("\n")
    return " / ".join(filter(None, map(str.strip, lines)))[:_MAX_SAID] or "nothing"

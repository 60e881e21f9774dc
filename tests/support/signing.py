"""Keys of GnuPG made for a test, and what they sign."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.tools import needs


class Signer:
    """Signs with a key of its own, as upstreams do.

    Args:
        home: an empty directory for its keys.
        name: the name in its key.
        is_expired: whether the key expired years ago, after it had signed.
    """

    def __init__(self, home: Path, name: str, *, is_expired: bool = False) -> None:
        self._gpg = needs("gpg", "apt-get install gnupg")
        needs("gpgv", "apt-get install gpgv")
        self.home = home
        """Where its keys are."""
        self._time = ["--faked-system-time", "20200102T000000"] if is_expired else []
        expires = "2020-02-01" if is_expired else "never"
        self._run("--quick-gen-key", f"{name} <{name}@example.org>", "ed25519", "sign", expires)
        self.keyring = home / "trusted.gpg"
        """A keyring with its public key."""
        self._run("--output", self.keyring, "--export")

    def export_armored(self, path: Path) -> None:
        """Write its public key as text."""
        self._run("--armor", "--output", path, "--export")

    def sign_clear(self, path: Path) -> None:
        """Put ``X.sjson``, the same clear-signed, beside ``X.json``."""
        self._run("--yes", "--output", path.with_suffix(".sjson"), "--clear-sign", path)

    def sign_detached(self, path: Path) -> None:
        """Put ``X.json.gpg``, a signature, beside ``X.json``."""
        self._run("--yes", "--output", f"{path}.gpg", "--detach-sign", path)

    def _run(self, *words: str | Path) -> None:
        options: list[str | Path] = [
            "--homedir",
            self.home,
            "--quiet",
            "--batch",
            "--passphrase",
            "",
            *self._time,
        ]
        command: list[str | Path] = [self._gpg, *options, "--pinentry-mode", "loopback", *words]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)


@contextmanager
def make_signer(name: str, *, is_expired: bool = False) -> Iterator[Signer]:
    """Return a signer; its keys, and the agent that GnuPG starts, live as long as the context."""
    # Not below the directory of a test: the path of the agent's socket would be too long.
    with tempfile.TemporaryDirectory(prefix="gnupg-") as home:
        try:
            yield Signer(Path(home), name, is_expired=is_expired)
        finally:
            gpgconf = needs("gpgconf", "apt-get install gnupg")
            stop = [gpgconf, "--homedir", home, "--kill", "gpg-agent"]
            subprocess.run(stop, capture_output=True, timeout=60, check=True)

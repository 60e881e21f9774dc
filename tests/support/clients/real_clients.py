"""The real ``lxc`` and ``incus``, each in a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.clients.image_maker import (
    INCUS_COMBINED,
    INCUS_METADATA,
    LXD_COMBINED,
    LXD_METADATA,
)

_REMOTE = "mirror"


@dataclass(frozen=True, slots=True)
class Flavour:
    """What differs between the clients."""

    tool: str
    """The command."""
    install_line: str
    """How Debian installs it."""
    home_directory: str
    """Where it keeps what it knows, below HOME."""
    metadata: str
    """The metadata file made for it."""
    combined: str
    """The unified image made for it."""
    requirements: str
    """The dotfile whose settings it is told."""


FLAVOURS = {
    "lxc": Flavour(
        tool="lxc",
        install_line="apt-get install lxd-client",
        home_directory=".config/lxc",
        metadata=LXD_METADATA,
        combined=LXD_COMBINED,
        requirements=".lxd_requirements",
    ),
    "incus": Flavour(
        tool="incus",
        install_line="apt-get install incus-client (Debian 12: -t bookworm-backports)",
        home_directory=".config/incus",
        metadata=INCUS_METADATA,
        combined=INCUS_COMBINED,
        requirements=".requirements",
    ),
}


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image as a client lists it."""

    fingerprint: str
    type: str
    """``container`` or ``virtual-machine``."""
    architecture: str
    aliases: tuple[str, ...]
    size: int
    """Bytes to download."""
    date: str
    """YYYY-MM-DD."""
    properties: dict[str, str]


class ClientError(Exception):
    """A client ended with an error; its message is what it said."""


def contents(directory: Path, *names: str) -> dict[str, bytes]:
    """Return the name and bytes of the files ``names``, or of all files, in ``directory``."""
    return {
        name: (directory / name).read_bytes()
        for name in names or [file.name for file in directory.iterdir()]
    }


@dataclass(frozen=True, slots=True)
class Client:
    """A client that knows the mirror, and nothing else, as a remote.

    It keeps catalogues for minutes: after a change of the catalogue, ask a new one.
    """

    flavour: Flavour
    home: Path
    certificate: Path

    def add_remote(self, url: str) -> None:
        """Make the mirror known."""
        (self.home / self.flavour.home_directory).mkdir(parents=True)
        self._run("remote", "add", _REMOTE, url, "--protocol", "simplestreams")

    def list_images(self) -> list[ListedImage]:
        """Return all images that the client sees."""
        entries: list[dict[str, Any]] = json.loads(
            self._run("image", "list", f"{_REMOTE}:", "--format", "json")
        )
        return [
            ListedImage(
                fingerprint=entry["fingerprint"],
                type=entry["type"],
                architecture=entry["architecture"],
                aliases=tuple(alias["name"] for alias in entry["aliases"] or []),
                size=entry["size"],
                date=entry["created_at"].removesuffix("T00:00:00Z"),
                properties=entry["properties"],
            )
            for entry in entries
        ]

    def info(self, image: str, *, vm: bool = False) -> str:
        """Return what the client tells of an image, named by alias or fingerprint."""
        return self._run("image", "info", f"{_REMOTE}:{image}", *_vm_flag(vm))

    def export(self, image: str, *, vm: bool = False) -> dict[str, bytes]:
        """Download an image, named by alias or fingerprint; return its files' contents.

        Raises:
            ClientError: if the client refuses.
        """
        with tempfile.TemporaryDirectory(dir=self.home) as directory:
            self._run("image", "export", f"{_REMOTE}:{image}", directory, *_vm_flag(vm))
            return contents(Path(directory))

    def _run(self, *arguments: str) -> str:
        # No proxies and no certificates but the mirror's: nothing of the caller's own.
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "SSL_CERT_FILE": str(self.certificate),
            "SSL_CERT_DIR": "/nonexistent",
        }
        result = subprocess.run(
            [self.flavour.tool, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if result.returncode:
            raise ClientError(result.stderr)
        return result.stdout


def _vm_flag(vm: bool) -> list[str]:
    return ["--vm"] if vm else []

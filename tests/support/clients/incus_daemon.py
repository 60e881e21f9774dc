"""A real ``incusd`` with a directory, a network and cgroups of its own, on loopback."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.clients.real_clients import FLAVOURS
from tests.support.tools import needs

_REMOTE = "mirror"
_INCUSD = "/usr/libexec/incus/incusd"
_INSTALL_LINE = "apt-get install incus-base (Debian 12: -t bookworm-backports)"

_PATIENCE_SECONDS = 180
"""How long all may take, from the start of the daemon to the order to stop."""
_LAST_PATIENCE_SECONDS = 30
"""How long each step before and after that may take."""

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)

# Each is run in a mount namespace of its own, with these arguments: a directory to mount
# cgroups on, and the name of the daemon's cgroup.
_MAKE_CGROUP = 'mount -t cgroup2 none "$1"; mkdir "$1/$2"'
_REMOVE_CGROUP = 'mount -t cgroup2 none "$1"; find "$1/$2" -depth -type d -exec rmdir {} +'
# The daemon's cgroup is the root of all cgroups that it sees, and the daemon is the first
# process of its PID namespace: its containers end with it. Its /run is empty: liblxc's locks do
# not stay there, and no resolver is found there when it asks for instance types from afar.
_START = f"""\
mount -t tmpfs none /run
mount -t cgroup2 none "$1"
echo 0 >"$1/$2/cgroup.procs"
mount --bind "$1/$2" /sys/fs/cgroup
exec unshare --cgroup --pid --fork --kill-child --mount-proc {_INCUSD} --group root
"""


class IncusError(Exception):
    """The daemon, or a command to it, or what it needs failed; its message says how."""


@contextmanager
def network_of_its_own() -> Iterator[None]:
    """Leave this thread, and what it starts, no network but a loopback of their own.

    Raises IncusError where that is not allowed.
    """
    ip = needs("ip", "apt-get install iproute2")
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _call("setns", outside, _CLONE_NEWNET)  # who may not come back must not leave
        _call("unshare", _CLONE_NEWNET)
        try:
            _run([ip, "link", "set", "lo", "up"])
            yield
        finally:
            _call("setns", outside, _CLONE_NEWNET)
    finally:
        os.close(outside)


@dataclass(frozen=True, slots=True)
class IncusDaemon:
    """A daemon that answers; its methods raise IncusError."""

    environment: dict[str, str]
    """What it and its client run with."""
    deadline: float
    """When it must have done all, on the monotonic clock."""

    def add_remote(self, url: str) -> None:
        """Make a mirror known as ``mirror``."""
        self._client("remote", "add", _REMOTE, url, "--protocol", "simplestreams")

    def import_image(self, path: Path, alias: str) -> None:
        """Make a unified image known under ``alias``."""
        self._client("image", "import", str(path), "--alias", alias)

    def launch(self, image: str, name: str) -> None:
        """Start a container."""
        try:
            self._client("launch", image, name)
        except IncusError as error:
            raise IncusError(f"{error}{self._first_error_logged_for(name)}") from error

    def copy_image(self, alias: str) -> None:
        """Fetch an image from the mirror, to be refreshed from there."""
        self._client("image", "copy", f"{_REMOTE}:{alias}", "local:", "--auto-update")

    def forget_catalogue(self, image: str) -> None:
        """Have the daemon read the mirror's catalogue again, which it keeps for an hour.

        Args:
            image: of the mirror, whose files are not there: after that, it does not trust it.
        """
        try:
            self._client("image", "copy", f"{_REMOTE}:{image}", "local:")
        except IncusError:
            return
        raise IncusError(f"{image} can be had")

    def refresh_image(self, fingerprint: str) -> None:
        """Refresh an image from where it came from."""
        self._client("image", "refresh", fingerprint)

    def list_images(self) -> list[str]:
        """Return the fingerprints of all images that the daemon has."""
        return self._client("image", "list", "--format", "csv", "--columns", "F").split()

    def exec(self, name: str, *command: str) -> str:
        """Return what a command in a container prints."""
        return self._client("exec", name, "--", *command)

    def fingerprint(self, name: str) -> str:
        """Return the fingerprint of the image that a container was made from."""
        return self._client("config", "get", name, "volatile.base_image").strip()

    def delete(self, name: str) -> None:
        """Stop and remove a container."""
        self._client("delete", "--force", name)

    def prepare(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Wait until the daemon answers, and give containers a place to be."""
        while not (Path(self.environment["INCUS_DIR"]) / "unix.socket").exists():
            if process.poll() is not None or time.monotonic() > self.deadline:
                raise IncusError(f"incusd does not answer; it said: {_last_lines(log)}")
            time.sleep(0.02)
        self._client("admin", "waitready")
        self._client("storage", "create", "pool", "dir")
        self._client("profile", "device", "add", "default", "root", "disk", "path=/", "pool=pool")

    def stop(self) -> None:
        """Stop the containers, and tell the daemon to end."""
        for order in (["stop", "--all", "--force"], ["admin", "shutdown"]):
            _run(["incus", *order], self.environment, _LAST_PATIENCE_SECONDS)

    def _client(self, *arguments: str) -> str:
        left = max(self.deadline - time.monotonic(), 0)
        return _run(["incus", "--quiet", *arguments], self.environment, left)

    def _first_error_logged_for(self, name: str) -> str:
        """Return liblxc's reason, which the others follow from."""
        try:
            lines = self._client("info", name, "--show-log").splitlines()
        except IncusError:  # the container was not made
            lines = []
        return next((f"\n{line}" for line in lines if " ERROR " in line), "")


@contextmanager
def run_daemon(certificate: Path) -> Iterator[IncusDaemon]:
    """Run a daemon while the context lasts; nothing remains of it.

    Raises IncusError where it cannot run.

    Args:
        certificate: what it trusts.
    """
    needs(_INCUSD, _INSTALL_LINE)
    needs("incus", FLAVOURS["incus"].install_line)
    needs("unshare", "apt-get install util-linux")
    with (
        # Not a directory of pytest's: containers' owners are strangers, and stay until removed.
        tempfile.TemporaryDirectory(prefix="incusd-") as work,
        _cgroup_of_its_own(Path(work)) as start,
    ):
        state, log = Path(work, "state"), Path(work, "log")
        state.mkdir()
        Path(work).chmod(0o711)  # a container's root is an ordinary user outside
        environment = {
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "HOME": work,
            "INCUS_DIR": str(state),
            "SSL_CERT_FILE": str(certificate),
            "SSL_CERT_DIR": "/nonexistent",
        }
        daemon = IncusDaemon(environment, time.monotonic() + _PATIENCE_SECONDS)
        with (
            log.open("wb") as output,
            subprocess.Popen(start, env=environment, stdout=output, stderr=output) as process,
        ):
            try:
                daemon.prepare(process, log)
                yield daemon
            finally:
                _end(daemon, process)


@contextmanager
def _cgroup_of_its_own(work: Path) -> Iterator[list[str]]:
    """Yield the command that starts the daemon in a new cgroup."""
    mount_point = work / "cgroups"
    mount_point.mkdir()

    def command(script: str) -> list[str]:
        return ["unshare", "--mount", "sh", "-ec", script, "sh", str(mount_point), work.name]

    _run(command(_MAKE_CGROUP))
    try:
        yield command(_START)
    finally:
        _run(command(_REMOVE_CGROUP))


def _end(daemon: IncusDaemon, process: subprocess.Popen[bytes]) -> None:
    """End the daemon, by force if it does not obey, and with it all that runs in it."""
    try:
        daemon.stop()
        process.wait(_LAST_PATIENCE_SECONDS)
    except (IncusError, subprocess.TimeoutExpired):
        if process.poll() is None:
            # unshare ends after the daemon, and the daemon after all in its PID namespace.
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii")
            for pid in [int(child) for child in children.split()] or [process.pid]:
                os.kill(pid, signal.SIGKILL)


def _call(name: str, *arguments: int) -> None:
    """Call a function of libc that changes the network namespace."""
    if getattr(_LIBC, name)(*arguments) != 0:
        raise IncusError(f"network namespace: {name}: {os.strerror(ctypes.get_errno())}")


def _run(
    command: list[str],
    environment: dict[str, str] | None = None,
    timeout: float = _LAST_PATIENCE_SECONDS,
) -> str:
    """Return what a command prints."""
    try:
        result = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise IncusError(str(error)) from error
    if result.returncode != 0:
        raise IncusError(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8").splitlines()[-3:])

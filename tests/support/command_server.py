"""Runs the command in processes that are forked from one which has its modules loaded.

Nearly all the time of a short command is Python's start and its imports. Each command still is a
process of its own, with its own arguments, directory, environment and descriptors, which ends as
the installed command does.

python -m tests.support.command_server DESCRIPTOR: serve the socket DESCRIPTOR until it is closed.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

_MAX_REQUEST = 1 << 20
_DESCRIPTORS = 3  # stdout, stderr, and where the exit status goes


class CommandServer:
    """The client's side: starts the server when it is first needed, one per test process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._socket: socket.socket | None = None
        self._environment: dict[str, str] = {}

    def run(
        self, arguments: list[str], cwd: Path, timeout: float
    ) -> subprocess.CompletedProcess[str] | None:
        """Run the command; None if it must be started anew, as the environment has changed.

        Raises:
            TimeoutExpired: it took longer than ``timeout`` seconds, and has been killed.
        """
        connection = self._connect()
        if _environment() != self._environment:
            return None
        reader, writer = os.pipe()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            request = json.dumps([arguments, str(cwd), _measuring()]).encode()
            descriptors = [out.fileno(), err.fileno(), writer]
            with self._lock:
                socket.send_fds(connection, [request], descriptors)
            os.close(writer)
            with open(reader, "rb") as told:
                status = _await(told, arguments, timeout)
            return subprocess.CompletedProcess(arguments, status, _text(out), _text(err))

    def _connect(self) -> socket.socket:
        """Return the socket of this process's own server."""
        with self._lock:
            is_elsewhere = _environment().get("/") != self._environment.get("/")
            if self._socket is None or self._owner != os.getpid() or is_elsewhere:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                self._owner, self._socket = os.getpid(), ours
                self._environment = _environment()
                command = [sys.executable, "-m", __name__, str(theirs.fileno())]
                # Lines are counted in the processes that it forks, not in itself.
                server = subprocess.Popen(command, env=unmeasured(), pass_fds=[theirs.fileno()])
                theirs.close()
                atexit.register(_stop, ours, server)
            return self._socket


def _environment() -> dict[str, str]:
    """Return the environment, without what pytest changes from test to test.

    The network belongs to it: a test may have had one of its own.
    """
    network = {"/": os.readlink("/proc/thread-self/ns/net")}
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return network | own


def unmeasured() -> dict[str, str]:
    """Return the environment without what asks for lines to be counted."""
    return {name: os.environ[name] for name in os.environ if not name.startswith("COVERAGE_")}


def _measuring() -> dict[str, str]:
    """Return what in the environment asks for lines to be counted."""
    return {name: os.environ[name] for name in os.environ if name.startswith("COVERAGE_")}


def _await(told: IO[bytes], arguments: list[str], timeout: float) -> int:
    """Return the exit status of the command whose process id and status come through ``told``."""
    pid = int(told.readline())
    ended = threading.Timer(timeout, os.kill, (pid, 9))
    ended.start()
    status = os.waitstatus_to_exitcode(int(told.readline()))
    if not ended.is_alive():
        raise subprocess.TimeoutExpired(arguments, timeout)
    ended.cancel()
    ended.join()  # a process with several threads hashes in threads
    return status


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _stop(connection: socket.socket, server: subprocess.Popen[bytes]) -> None:
    connection.close()
    server.wait()


def serve(descriptor: int) -> list[str]:
    """Fork a process for each request; in it, return its arguments. Never returns elsewhere."""
    with socket.socket(fileno=descriptor) as connection:
        while True:
            request, passed, _, _ = socket.recv_fds(connection, _MAX_REQUEST, _DESCRIPTORS)
            if not request:
                sys.exit()
            out, err, status = passed
            watcher = os.fork()
            if not watcher:
                break
            for number in passed:
                os.close(number)
            os.waitpid(watcher, 0)  # it ends at once
    arguments, cwd, measuring = json.loads(request)
    if os.fork():
        os._exit(0)
    child = os.fork()
    if child:
        os.write(status, b"%d\n" % child)
        os.write(status, b"%d\n" % os.waitpid(child, 0)[1])
        os._exit(0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for number in passed:
        os.close(number)
    os.chdir(cwd)
    if measuring:
        os.environ.update(measuring)
        importlib.import_module("coverage").process_startup()
    return list(arguments)


def _main() -> None:
    import fastindex
    from fastindex.cli import run

    for module in pkgutil.walk_packages(fastindex.__path__, "fastindex."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    with suppress(ImportError):
        importlib.import_module("coverage")
    gc.freeze()  # or each process would look through all modules when it ends
    sys.argv = [str(Path(sys.executable).with_name("fastindex")), *serve(int(sys.argv[1]))]
    run()


if __name__ == "__main__":
    _main()

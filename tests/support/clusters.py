"""Real schedulers and workers of dask.distributed, on 127.0.0.1."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

_PLACE = ("--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0")
PATIENCE = 30.0
"""Seconds until a process must have done what is waited for."""


def wait_until(is_so: Callable[[], object], what: str) -> None:
    """Wait until ``is_so`` returns something true; raise AssertionError when that takes long."""
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until, f"{what}: waited in vain"
        time.sleep(0.05)


class Cluster:
    """A scheduler and its workers. It ends with the context.

    Args:
        directory: an empty directory for what they write.
        port: where the scheduler listens; 0: where it can.
        options: what the command lines of all of them say besides.
    """

    def __init__(self, directory: Path, port: int = 0, options: Sequence[object] = ()) -> None:
        self.file = directory / "scheduler.json"
        """The scheduler file."""
        self._directory = directory
        self._options = options
        self._processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("scheduler", "--port", port, "--scheduler-file", self.file)
        wait_until(self._has_address, "a scheduler")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *rest: object) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    @property
    def address(self) -> str:
        """The address of the scheduler."""
        return str(json.loads(self.file.read_text())["address"])

    def _has_address(self) -> bool:
        try:
            return bool(self.address)
        except (OSError, ValueError):
            return False

    def start_worker(
        self,
        *arguments: object,
        before: Sequence[object] = (),
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a worker with one thread and no nanny; return when the scheduler knows it.

        Args:
            arguments: more of its command line.
            before: a command that starts the rest of the command line.
            environment: variables that it has besides those of this process.
        """
        log = self._directory / f"{len(self._processes)}.log"
        process = self._start(
            *("worker", self.address, "--no-nanny", "--nthreads", "1"),
            *("--local-directory", self._directory, *arguments),
            before=before,
            environment=environment,
        )
        wait_until(lambda: b"Registered to" in log.read_bytes(), "a worker")
        return process

    def _start(
        self,
        *words: object,
        before: Sequence[object] = (),
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        dask = [sys.executable, "-m", "dask", *words, *_PLACE, *self._options]
        log = self._directory / f"{len(self._processes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*map(str, before), *map(str, dask)],
                cwd=self._directory,
                env=os.environ | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._processes.append(process)
        return process


@contextmanager
def cluster_of(workers: int, directory: Path, *options: object) -> Iterator[Cluster]:
    """Start a scheduler and workers with one thread each; they end with the context."""
    directory.mkdir()
    with Cluster(directory, options=options) as cluster:
        for _ in range(workers):
            cluster.start_worker()
        yield cluster

"""Worker processes with a pipe to each: started, told, heard and ended.

They are not those of ``concurrent.futures``, which needs threads in this process and
queues that all share: where the system has no more memory or threads to give, those fall
silent for ever, or take healthy workers for dead. Here this process starts no thread and
workers share nothing, so that one that dies takes only what it had in hand, and it is
known what that was. They read and never write, so they may be killed outright; one whose
parent is gone ends by itself.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from fastindex.errors import FastindexError
from fastindex.system import signals

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkContext, SpawnContext
    from multiprocessing.process import BaseProcess

_END_SECONDS = 1.0


def count_usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_start_error(error: BaseException) -> FastindexError:
    """Return what it means, for people, that the system starts no more workers."""
    reason = getattr(error, "strerror", None) or str(error) or "out of memory"
    return FastindexError(
        f"workers cannot be started ({reason}); "
        "use fewer --jobs, or raise the limits on processes, open files and memory"
    )


class DiedError(Exception):
    """A worker was killed, and what it had in hand is lost."""


class Worker:
    """A process that answers what it is told.

    Args:
        process: started.
        pipe: our end of the pipe to it.
    """

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self.pipe = pipe
        self._process = process

    def send(self, message: object) -> None:
        """Send ``message``; that the worker is dead shows when its answer is received."""
        with suppress(OSError):
            self.pipe.send(message)

    def kill(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()

    def end(self) -> int:
        """Wait until it has ended, but not for long; return its exit code, negative if killed."""
        self._process.join(_END_SECONDS)
        self._process.kill()
        self._process.join()
        code = self._process.exitcode or 0
        self._process.close()
        self.pipe.close()
        return code


class Workers:
    """Those that were started. When the context ends, so do they: killed if by an exception.

    Args:
        main: what each does, a function of a module. It is called with its end of a pipe
            and what ``start`` was called with, and returns when it is told None.
    """

    def __init__(self, main: Callable[..., None]) -> None:
        self._main = main
        self._started: list[Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        for worker in self._started:
            if kind is None:
                worker.send(None)
            else:
                worker.kill()
        for worker in self._started:
            worker.end()

    def start(self, *arguments: object) -> Worker:
        """Start another.

        Raises:
            FastindexError: the system starts no more.
        """
        from multiprocessing.connection import Pipe  # 10 ms, with what it needs

        try:
            ours, theirs = Pipe()
            process = _context().Process(
                target=_run_worker, args=(self._main, theirs, *arguments), daemon=True
            )
            # A worker that is not deaf yet would die of a Ctrl-C.
            with signals.held():
                process.start()
                worker = Worker(process, ours)
                self._started.append(worker)
            theirs.close()
        except (OSError, RuntimeError, MemoryError) as error:
            raise worker_start_error(error) from error
        return worker

    def receive(self, worker: Worker) -> Any:
        """Wait for the answer of ``worker`` and return it.

        Raises:
            DiedError: it was killed.
            MemoryError: it had too little of that.
            Exception: whatever it raised.
        """
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError) as error:
            self._started.remove(worker)
            if worker.end() >= 0:  # Python's own end, where there is no memory for ours
                raise MemoryError from error
            raise DiedError from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def _context() -> ForkContext | SpawnContext:
    """Return what to start workers with, the quickest that is safe here."""
    import multiprocessing

    # fork takes 2 ms a worker and forkserver 50, but is safe in one thread only.
    can_fork = "fork" in multiprocessing.get_all_start_methods()
    is_alone = threading.active_count() == 1
    if can_fork and is_alone:
        return multiprocessing.get_context("fork")
    return multiprocessing.get_context("spawn")


def _run_worker(main: Callable[..., None], pipe: Connection, *arguments: object) -> None:
    try:
        try:
            _follow_parent()
            main(pipe, *arguments)
        except (EOFError, FastindexError, MemoryError):
            raise
        except Exception as error:
            import traceback

            error.add_note(traceback.format_exc())
            raise
    except EOFError:
        return  # the parent is gone
    except Exception as error:
        _send_error(pipe, error)


def _send_error(pipe: Connection, error: Exception) -> None:
    try:
        pipe.send(error)
    except OSError:
        return  # the parent is gone
    except (MemoryError, SystemError):
        os._exit(1)


def _follow_parent() -> None:
    """Make this process deaf to Ctrl-C, and end it when its parent is gone."""
    signals.leave_to_parent()
    try:
        # Not threading.Thread, whose start waits for ever for a thread that has no memory to run.
        _thread.start_new_thread(_exit_with_parent, ())
    except RuntimeError as error:
        raise worker_start_error(error) from error


def _exit_with_parent() -> None:
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

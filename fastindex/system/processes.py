"""Worker processes, each with a pipe of its own.

``concurrent.futures`` needs threads in this process and queues that all workers share. When the
system runs out of memory or threads it hangs for ever, or takes healthy workers for dead. Here
this process starts no thread and the workers share nothing. A worker that dies loses only its own
task, and it is known which one that was. Workers publish nothing, so they can be killed at any
time. They end when their parent is gone.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from fastindex.errors import FastindexError, ResourceError
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


def worker_start_error(error: BaseException) -> ResourceError:
    """Return the error for people when the system starts no more workers.

    Args:
        error: what starting one raised.
    """
    reason = getattr(error, "strerror", None) or str(error) or "out of memory"
    return ResourceError(
        f"cannot start worker processes ({reason}); "
        "use fewer --jobs, or raise the limits on processes, open files and memory"
    )


class DiedError(FastindexError):
    """A worker was killed, and its task is lost."""


def can_have_children() -> bool:
    """Return whether this process may start workers: a daemonic one, as in a Pool, may not."""
    module = sys.modules.get("multiprocessing.process")
    return module is None or not module.current_process().daemon


class Worker:
    """A process that answers messages.

    Attributes:
        pipe: the parent's end of the pipe to it.

    Args:
        process: a started process.
        pipe: the parent's end of the pipe to it.
    """

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self.pipe = pipe
        self._process = process

    def send(self, message: object) -> None:
        """Send ``message``. If the worker is dead, ``Workers.receive`` reports it."""
        with suppress(OSError):
            self.pipe.send(message)

    def kill(self) -> None:
        """Kill the process, whatever it is doing."""
        self._process.kill()

    def end(self) -> int:
        """Wait a second for the process to end, else kill it.

        Returns:
            Its exit code; that of a killed process is negative.
        """
        self._process.join(_END_SECONDS)
        self._process.kill()
        self._process.join()
        code = self._process.exitcode or 0
        with suppress(ValueError):
            self._process.close()  # where SIGCHLD is ignored, nobody can know that it has ended
        self.pipe.close()
        return code


class Workers:
    """A set of workers. They end with the context, and are killed if it ends by an exception.

    Args:
        main: the function, of a module, that each worker runs. It is called with the worker's
            end of the pipe and the arguments of ``start``, and returns on the message None.
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
        """Start another worker.

        Args:
            arguments: passed to ``main``.

        Raises:
            ResourceError: the system starts no more processes.
        """
        from multiprocessing.connection import Pipe  # takes 10 ms

        try:
            ours, theirs = Pipe()
            process = _choose_context().Process(
                target=_run_worker, args=(self._main, theirs, *arguments), daemon=True
            )
            # Ctrl-C would kill a worker that does not ignore it yet.
            with signals.blocked():
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
            DiedError: the worker was killed.
            MemoryError: the worker ran out of memory.
            Exception: the worker raised it.
        """
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError) as error:
            self._started.remove(worker)
            if worker.end() >= 0:  # it exited without an answer: no memory to send one
                raise MemoryError from error
            raise DiedError("a worker process was killed") from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def _choose_context() -> ForkContext | SpawnContext:
    """Return the quickest start method that is safe here."""
    import multiprocessing

    # fork takes 2 ms per worker and forkserver 50, but fork is safe only without threads.
    can_fork = "fork" in multiprocessing.get_all_start_methods()
    has_one_thread = threading.active_count() == 1
    if can_fork and has_one_thread:
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
    """Make this process ignore Ctrl-C, and exit when its parent is gone."""
    signals.set_worker_handlers()
    try:
        # Not threading.Thread: its start() waits for ever if the new thread gets no memory.
        _thread.start_new_thread(_exit_with_parent, ())
    except RuntimeError as error:
        raise worker_start_error(error) from error


def _exit_with_parent() -> None:
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

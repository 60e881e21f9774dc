"""What a worker of a cluster runs: it says what it is and sees, and hashes what it is sent.

``introduce`` and ``digest`` are called by name from other machines, with bytes and for bytes. What
they are called with may only grow: ``introduce`` also answers other versions, which are refused by
what it says.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, wraps
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from fastindex import __version__
from fastindex.errors import UsageError
from fastindex.events import Observer
from fastindex.formats import clusters
from fastindex.formats.clusters import (
    AnswerMessage,
    DigestMessage,
    FailureMessage,
    FileMessage,
    Introduction,
    OutcomeMessage,
    RootFailureMessage,
    SightMessage,
)
from fastindex.hashing.batches import group_tasks, join_batches
from fastindex.hashing.digest import digest_batch
from fastindex.hashing.engine import describe_setup
from fastindex.hashing.options import HashingOptions
from fastindex.hashing.reader import OPEN_FLAGS
from fastindex.hashing.strategy import Strategy, choose_strategy
from fastindex.hashing.tasks import (
    Failed,
    FileDigest,
    FileRef,
    Outcome,
    RootTask,
)
from fastindex.system.stamps import Stamp

_PROCESS = os.urandom(16).hex()
"""A name for this process that no other one has."""
_LOOK_SECONDS = 0.5
"""How often a worker looks whether anybody still waits for what it hashes, and tells how far it
is."""
_Function = Callable[[bytes], bytes]


def _answering_always(make_answer: Callable[[str], Struct]) -> Callable[[_Function], _Function]:
    """Let a function answer what went wrong: not every exception can be read elsewhere."""

    def decorate(function: _Function) -> _Function:
        @wraps(function)
        def answer(question: bytes) -> bytes:
            try:
                return function(question)
            except MemoryError:
                problem = "out of memory; use fewer --jobs, or give it more memory"
            except Exception as error:
                text = "".join(char for char in str(error)[:300] if char.isprintable())
                problem = f"{type(error).__name__}: {text}"
            return clusters.encode(make_answer(problem))

        return answer

    return decorate


@_answering_always(lambda problem: replace(describe_self(), problem=problem))
def introduce(question: bytes) -> bytes:
    """Return an ``Introduction`` of this process, as an answer to a ``Question``."""
    asked = clusters.decode_question(question)
    try:
        setup = describe_setup(_choose_strategy(asked.engine, _list_devices(asked.files)).engine)
        problem = ""
    except UsageError as error:
        setup, problem = "", str(error)
    sights = tuple(look_at(os.fsdecode(path)) for path in asked.files)
    return clusters.encode(
        replace(describe_self(), setup=setup, engine_problem=problem, sights=sights)
    )


def describe_self() -> Introduction:
    """Return what this process can say of itself without being asked anything."""
    python = ".".join(platform.python_version_tuple()[:2])
    return Introduction(__version__, python, _PROCESS, platform.node())


def look_at(path: str) -> SightMessage:
    """Return what this process sees of a file; it is opened, so that no old answer is cached."""
    try:
        descriptor = os.open(path, OPEN_FLAGS)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return SightMessage(error.strerror or "it cannot be opened")
    return SightMessage("", status.st_size, status.st_mtime_ns, status.st_ino)


@_answering_always(lambda problem: AnswerMessage((), problem=problem))
def digest(parcel: bytes) -> bytes:
    """Return an ``AnswerMessage`` for a ``ParcelMessage``."""
    asked = clusters.decode_parcel(parcel)
    if asked.process != _PROCESS:
        return clusters.encode(AnswerMessage((), is_other_process=True))
    tasks = [
        RootTask(_make_ref(task.root), tuple(map(_make_ref, task.metadata)), task.is_unified)
        for task in asked.tasks
    ]
    devices = tuple(sorted({task.root.stamp.device for task in tasks}))
    strategy = _choose_strategy(asked.engine, devices)
    advance = _watch_reading(asked.name, asked.tell_seconds)
    outcomes: dict[int, Outcome] = {}
    batches = group_tasks(
        tasks, strategy, wants_blake3=asked.wants_blake3, wants_sha256=asked.wants_sha256
    )
    for batch in join_batches(batches, 1):
        for task, outcome in zip(batch.tasks, digest_batch(batch, advance), strict=True):
            outcomes[id(task)] = outcome
    return clusters.encode(
        AnswerMessage(tuple(_make_message(task, outcomes[id(task)]) for task in tasks))
    )


def _list_devices(paths: Iterable[bytes]) -> tuple[int, ...]:
    devices = set()
    for path in paths:
        with suppress(OSError):
            devices.add(os.stat(path).st_dev)
    return tuple(sorted(devices))


@cache
def _choose_strategy(engine: str, devices: tuple[int, ...]) -> Strategy:
    """Return how to hash on this machine, measured once; a parcel is the work of one CPU."""
    files = [FileRef("", Stamp(0, 0, device, 0)) for device in devices]
    return choose_strategy(HashingOptions(jobs=1, engine=engine), files, Observer())


def _make_ref(file: FileMessage) -> FileRef:
    """Return the file with the device number that it has on this machine."""
    path, *others = map(os.fsdecode, file.paths)
    device = 0
    for candidate in (path, *others):
        with suppress(OSError):
            device = os.stat(candidate).st_dev
            break
    stamp = Stamp(file.size_bytes, file.mtime_ns, device, file.inode)
    return FileRef(path, stamp, "", file.roles, tuple(others))


def _make_message(task: RootTask, outcome: Outcome) -> OutcomeMessage | RootFailureMessage:
    stamps = [ref.stamp for ref in task.metadata]
    if isinstance(outcome, Failed):
        failures = [outcome.metadata[stamp] for stamp in stamps if stamp in outcome.metadata]
        parts = tuple(map(_make_failure, failures))
        return RootFailureMessage(**asdict(_make_failure(outcome)), metadata=parts)
    return OutcomeMessage(
        _make_digest(outcome.root),
        tuple(_make_part(outcome.metadata[stamp]) for stamp in stamps),
        tuple(bytes.fromhex(outcome.fingerprints.get(stamp, "")) for stamp in stamps),
        outcome.bytes_read,
        outcome.files_read,
        "virtual-machine" if outcome.combined_type else "",
    )


def _make_part(part: FileDigest | Failed) -> DigestMessage | FailureMessage:
    return _make_failure(part) if isinstance(part, Failed) else _make_digest(part)


def _make_digest(digest: FileDigest) -> DigestMessage:
    sha256, blake3 = bytes.fromhex(digest.sha256), bytes.fromhex(digest.blake3)
    return DigestMessage(sha256, blake3, digest.is_checked, digest.head)


def _make_failure(failed: Failed) -> FailureMessage:
    return FailureMessage(
        failed.code,
        failed.problem,
        failed.remedy,
        failed.costs_version,
        failed.is_shortage,
        failed.head,
    )


class AbandonedError(Exception):
    """Nobody waits for the digests any more."""


def _watch_reading(name: str, tell_seconds: float) -> Callable[[int], None]:
    """Return what to call with the length of each piece that is read.

    It tells how much that was under ``name`` every ``tell_seconds``, if the name is not empty, and
    raises AbandonedError if nobody waits for the digests any more.
    """
    from distributed import get_worker

    worker: Any = get_worker()
    key = worker.get_current_task()
    next_look = time.monotonic() + _LOOK_SECONDS
    next_tell = time.monotonic() + tell_seconds
    done_bytes = 0

    def advance(just_read: int) -> None:
        nonlocal next_look, next_tell, done_bytes
        done_bytes += just_read
        now = time.monotonic()
        if now < next_look:
            return
        next_look = now + _LOOK_SECONDS
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise AbandonedError
        if name and now >= next_tell:
            next_tell = now + tell_seconds
            worker.log_event(clusters.PROGRESS, [name, done_bytes])

    return advance

"""Which versions go: withdrawn first, deleted once no client can know them any more.

1. Under the lock: decide, and note what is withdrawn (``streams/.withdrawn.json``).
2. An ordinary build publishes without it.
3. Under the lock: what no published catalogue names gets its time; what has had its time
   for the grace is deleted, and its note with it.

A run that is killed anywhere is gone on with by the next: a note without a time is
published once more without, and a removal begun is ended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from msgspec.structs import replace

from fastindex.catalogue.images import SHORTEST_PREFIX, find, list_images
from fastindex.catalogue.published import published_paths, read_published
from fastindex.errors import ExitCode, TreeError, UsageError
from fastindex.events import Observer, Step
from fastindex.mirror import removal, scan
from fastindex.mirror.state import notes, withdrawals
from fastindex.mirror.state.withdrawals import Withdrawal, Withdrawals
from fastindex.mirror.tree import Found
from fastindex.operations.build.options import BuildOptions
from fastindex.operations.build.pipeline import build
from fastindex.operations.prune.deletion import Deletion
from fastindex.operations.prune.options import PruneOptions, PruneReport
from fastindex.operations.prune.retention import versions_to_withdraw
from fastindex.system import directories


def prune(options: PruneOptions, *, observer: Observer | None = None) -> PruneReport:
    """Withdraw old versions; delete what was withdrawn long enough ago.

    Raises:
        UsageError: options that make no sense.
        FastindexError: as ``build``; what was to be deleted waits.
    """
    if options.keep < 1 or options.keep_days < 0:
        raise UsageError("--keep takes a number from 1 on, --keep-days one from 0 on")
    return _Pruning(options, observer or Observer()).run(_old_versions)


def remove(
    options: PruneOptions, words: Iterable[str], *, observer: Observer | None = None
) -> PruneReport:
    """Withdraw the images that ``words`` name: fingerprints, their prefixes, or aliases.

    Raises:
        UsageError: a word names no image, or a prefix several.
        FastindexError: as ``build``.
    """
    chosen = list(words)
    return _Pruning(options, observer or Observer()).run(lambda run, _: run.named(chosen))


def restore(
    options: PruneOptions, versions: Iterable[str], *, observer: Observer | None = None
) -> PruneReport:
    """Take back that ``versions`` are withdrawn, while their files are there.

    Raises:
        UsageError: one is not withdrawn.
        FastindexError: as ``build``.
    """
    return _Pruning(options, observer or Observer()).restore(list(versions))


def _old_versions(run: _Pruning, found: list[Found]) -> Withdrawals:
    today = datetime.now(UTC).date()
    options = run.options
    published = published_paths(run.output) or ()
    going = versions_to_withdraw(found, published, options.keep, options.keep_days, today)
    return {version.path: Withdrawal() for version in going}


class _Pruning:
    """One run, and what it has done so far."""

    def __init__(self, options: PruneOptions, observer: Observer) -> None:
        self.options = options
        self._observer = observer
        self._root = scan.absolute(options.root)
        self.output = scan.absolute(options.output_dir or self._root)
        if not options.grace_seconds >= 0:
            raise UsageError("--grace takes a time from 0 on")
        for stream in options.streams:
            scan.require_stream(self._root, stream)
        self._bounds = directories.bounds_of(self._root, *options.streams)
        self._deletion = Deletion(options, self._root, self.output)

    def run(self, choose: Callable[[_Pruning, list[Found]], Withdrawals]) -> PruneReport:
        """Withdraw what ``choose`` says, publish, delete what is due."""
        if self.options.dry_run:
            known = withdrawals.load(self.output)
            found = self._scan()
            new = choose(self, withdrawals.left(found, known))
            return PruneReport(steps=tuple(self._steps(known, new, found)))
        with self._lock():
            known = self._deletion.timed(withdrawals.load(self.output))
            found = self._scan()
            new = choose(self, withdrawals.left(found, known))
            merged = _merged(known, new)
            withdrawals.save(self.output, merged)
            for name in merged:
                removal.mark_withdrawn(os.path.join(self._root, name), self._bounds)
        code = self._build()
        with self._lock():
            deleted, waiting = self._deletion.delete_withdrawn()
            # Looked at again: an upload may have gone on while the build ran.
            deleted += self._deletion.delete_given_up(self._scan())
        for finding in self._deletion.findings:
            self._observer.warn(finding)
        return PruneReport(
            withdrawn=tuple(sorted(new)),
            deleted=tuple(deleted),
            waiting=tuple(waiting),
            findings=tuple(self._deletion.findings),
            exit_code=max(code, ExitCode.LEFT_OUT) if self._deletion.has_failed else code,
        )

    def restore(self, versions: list[str]) -> PruneReport:
        """Take notes back, and publish."""
        with self._lock():
            known = withdrawals.load(self.output)
            names = [self._withdrawn_named(word, known) for word in versions]
            if self.options.dry_run:
                return PruneReport(steps=tuple(Step("publish", name) for name in names))
            for name in names:
                known.pop(name, None)
                removal.unmark_withdrawn(os.path.join(self._root, name), self._bounds)
            withdrawals.save(self.output, known)
        return PruneReport(restored=tuple(names), exit_code=self._build())

    def named(self, words: list[str]) -> Withdrawals:
        """Return what the images that ``words`` name consist of."""
        files, _ = read_published(self.output)
        images = list_images(files)
        chosen = []
        for word in words:
            hits = find(images, word)
            if not hits:
                raise UsageError(
                    f"{word!r}: no published image has that alias or fingerprint (or a "
                    f"fingerprint that starts so, with {SHORTEST_PREFIX} digits or more)"
                )
            is_alias = any(word in image.aliases for image in hits)
            if len({(image.version, image.file) for image in hits}) > 1 and not is_alias:
                candidates = "\n".join(
                    f"  {image.fingerprint} {image.version}/{image.file}" for image in hits
                )
                raise UsageError(f"{word!r} fits several images:\n{candidates}")
            chosen += hits
        gone: Withdrawals = {}
        for version in {image.version for image in chosen}:
            roots = {image.file for image in images if image.version == version}
            going = {image.file for image in chosen if image.version == version}
            part = () if going == roots else tuple(sorted(going))
            gone[version] = Withdrawal(files=part, is_asked_for=True)
        return gone

    def _withdrawn_named(self, word: str, known: Withdrawals) -> str:
        path = word.strip("/")
        # A killed run may have left the mark alone.
        marked = [
            name
            for name in (path, *(f"{stream}/{path}" for stream in self.options.streams))
            if os.path.lexists(os.path.join(self._root, name, removal.WITHDRAWN_MARK))
        ]
        hits = [name for name in known if name == path or name.endswith("/" + path)] or marked
        if len(hits) != 1:
            what = "fits several versions that are" if hits else "is no version that is"
            raise UsageError(
                f"{word!r} {what} withdrawn; withdrawn are: {', '.join(sorted(known)) or 'none'}"
            )
        if not os.path.isdir(os.path.join(self._root, hits[0])):
            raise TreeError(f"{hits[0]}: its files are gone; import it again")
        return hits[0]

    def _lock(self) -> AbstractContextManager[None]:
        return notes.lock(self.output, self.options.wait_seconds)

    def _scan(self) -> list[Found]:
        found: list[Found] = []
        for stream in self.options.streams:
            found += scan.Scan(self._root, stream).products()
        return found

    def _build(self) -> ExitCode:
        """Publish without what is withdrawn."""
        options = self.options
        report = build(
            BuildOptions(
                root=options.root,
                jobs=options.jobs,
                engine=options.engine,
                streams=options.streams,
                cache_dir=options.cache_dir,
                output_dir=options.output_dir,
                settle_seconds=options.settle_seconds,
                wait_seconds=options.wait_seconds,
            ),
            observer=self._observer,
        )
        return report.exit_code

    def _steps(self, known: Withdrawals, new: Withdrawals, found: list[Found]) -> list[Step]:
        """Return what a real run would do."""
        steps = [
            Step("withdraw", f"{name}/{file}" if file else name)
            for name, withdrawal in sorted(new.items())
            for file in withdrawal.files or ("",)
        ]
        now, grace = time.time(), self.options.grace_seconds
        for name, withdrawal in sorted(_merged(known, new).items()):
            is_due = withdrawals.begun(withdrawal, now) + grace <= now
            steps.append(Step("delete" if is_due else "delete later", name))
        return steps + [Step("delete", path) for path in self._deletion.given_up(found)]


def _merged(known: Withdrawals, new: Withdrawals) -> Withdrawals:
    """Return both; what is withdrawn in parts and as a whole is withdrawn as a whole."""
    merged = dict(known)
    for name, withdrawal in new.items():
        old = known.get(name)
        if old is None:
            merged[name] = withdrawal
        elif old.files:
            files = tuple(sorted({*old.files, *withdrawal.files})) if withdrawal.files else ()
            merged[name] = replace(withdrawal, files=files)
    return merged

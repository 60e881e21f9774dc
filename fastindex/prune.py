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

from fastindex import atomic, removal, scan, withdrawals
from fastindex.contract import STREAMS_DIRECTORY
from fastindex.errors import ExitCode, TreeError, UsageError
from fastindex.images import find, list_images
from fastindex.import_interface import Step
from fastindex.interface import BuildOptions, Observer, Silent
from fastindex.model import Finding, Found
from fastindex.pipeline import build
from fastindex.prune_plan import incomplete_versions, versions_to_withdraw
from fastindex.published import read_published
from fastindex.upkeep_interface import PruneOptions, PruneReport
from fastindex.withdrawals import Withdrawal, Withdrawals

GIVEN_UP_SECONDS = 24 * 60 * 60
"""After which nobody is taken to work on an upload or an incomplete version any more."""


def prune(options: PruneOptions, *, observer: Observer | None = None) -> PruneReport:
    """Withdraw old versions; delete what was withdrawn long enough ago.

    Raises:
        UsageError: options that make no sense.
        FastindexError: as ``build``; what was to be deleted waits.
    """
    if options.keep < 1 or options.keep_days < 0:
        raise UsageError("--keep takes a number from 1 on, --keep-days one from 0 on")
    return _Pruning(options, observer or Silent()).run(_old_versions)


def remove(
    options: PruneOptions, words: Iterable[str], *, observer: Observer | None = None
) -> PruneReport:
    """Withdraw the images that ``words`` name: fingerprints, their prefixes, or aliases.

    Raises:
        UsageError: a word names no image, or a prefix several.
        FastindexError: as ``build``.
    """
    chosen = list(words)
    return _Pruning(options, observer or Silent()).run(lambda run, _: run.named(chosen))


def restore(
    options: PruneOptions, versions: Iterable[str], *, observer: Observer | None = None
) -> PruneReport:
    """Take back that ``versions`` are withdrawn, while their files are there.

    Raises:
        UsageError: one is not withdrawn.
        FastindexError: as ``build``.
    """
    return _Pruning(options, observer or Silent()).restore(list(versions))


def _old_versions(run: _Pruning, found: list[Found]) -> Withdrawals:
    today = datetime.now(UTC).date()
    options = run.options
    published = run.published_paths() or ()
    going = versions_to_withdraw(found, published, options.keep, options.keep_days, today)
    return {version.path: Withdrawal() for version in going}


class _Pruning:
    """One run, and what it has done so far."""

    def __init__(self, options: PruneOptions, observer: Observer) -> None:
        self.options = options
        self._observer = observer
        self._root = os.path.abspath(options.root)
        self._output = os.path.abspath(options.output_dir or self._root)
        self._findings: list[Finding] = []
        self._given_up_ns = time.time_ns() - round(GIVEN_UP_SECONDS * 1e9)
        if not options.grace_seconds >= 0:
            raise UsageError("--grace takes a time from 0 on")
        for stream in options.streams:
            scan.require_stream(self._root, stream)

    def run(self, choose: Callable[[_Pruning, list[Found]], Withdrawals]) -> PruneReport:
        """Withdraw what ``choose`` says, publish, delete what is due."""
        if self.options.dry_run:
            known = withdrawals.load(self._output)
            found = self._scan()
            new = choose(self, withdrawals.left(found, known))
            return PruneReport(steps=tuple(self._steps(known, new, found)))
        with self._lock():
            known = withdrawals.load(self._output)
            found = self._scan()
            new = choose(self, withdrawals.left(found, known))
            withdrawals.save(self._output, _merged(known, new))
        code = self._build()
        with self._lock():
            deleted, waiting = self._delete_due()
            deleted += self._delete_rubbish(found)
        self._tell()
        return PruneReport(
            withdrawn=tuple(sorted(new)),
            deleted=tuple(deleted),
            waiting=tuple(waiting),
            findings=tuple(self._findings),
            exit_code=code,
        )

    def restore(self, versions: list[str]) -> PruneReport:
        """Take notes back, and publish."""
        with self._lock():
            known = withdrawals.load(self._output)
            names = [self._withdrawn_named(word, known) for word in versions]
            if self.options.dry_run:
                return PruneReport(steps=tuple(Step("publish", name) for name in names))
            for name in names:
                known.pop(name, None)
            withdrawals.save(self._output, known)
        return PruneReport(restored=tuple(names), exit_code=self._build())

    def named(self, words: list[str]) -> Withdrawals:
        """Return what the images that ``words`` name consist of."""
        files, _ = read_published(self._output)
        images = list_images(files)
        chosen = []
        for word in words:
            hits = find(images, word)
            if not hits:
                raise UsageError(f"{word!r}: no published image has that alias or fingerprint")
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
        hits = [name for name in known if name == path or name.endswith("/" + path)]
        if len(hits) != 1:
            what = "fits several versions that are" if hits else "is no version that is"
            raise UsageError(
                f"{word!r} {what} withdrawn; withdrawn are: {', '.join(sorted(known)) or 'none'}"
            )
        if not os.path.isdir(os.path.join(self._root, hits[0])):
            raise TreeError(f"{hits[0]}: its files are gone; import it again")
        return hits[0]

    def _lock(self) -> AbstractContextManager[None]:
        return atomic.lock(
            os.path.join(self._output, STREAMS_DIRECTORY, ".lock"), self.options.wait_seconds
        )

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
                streams=options.streams,
                cache_dir=options.cache_dir,
                output_dir=options.output_dir,
                wait_seconds=options.wait_seconds,
            ),
            observer=self._observer,
        )
        return report.exit_code

    def published_paths(self) -> set[str] | None:
        """Return all files that a published catalogue names, and their versions' directories.

        None where that is not clear.
        """
        try:
            files, wrong = read_published(self._output)
        except TreeError:  # nothing is published yet
            return set()
        if wrong:
            return None
        paths = {
            item.path
            for file in files
            for product in file.products.values()
            for version in product.versions.values()
            for item in version.items.values()
        }
        return paths | {os.path.dirname(path) for path in paths}

    def _delete_due(self) -> tuple[list[str], list[str]]:
        """Time what is published no more; delete what has had its grace."""
        known = withdrawals.load(self._output)
        published = self.published_paths()
        if published is None:
            self._find(self._output, "the catalogue cannot be read; nothing was deleted", "verify")
            return [], sorted(known)
        now = time.time()
        for name, withdrawal in known.items():
            if _is_named(name, withdrawal, published):
                known[name] = replace(withdrawal, unpublished_at=0)
            elif not withdrawal.unpublished_at:
                known[name] = replace(withdrawal, unpublished_at=now)
        withdrawals.save(self._output, known)
        deleted: list[str] = []
        for name, withdrawal in sorted(known.items()):
            since = withdrawal.unpublished_at
            is_due = since and since + self.options.grace_seconds <= now
            if not is_due or self._is_last(name, withdrawal, published):
                continue
            if self._delete(name, withdrawal):
                deleted.append(name)
                del known[name]
        withdrawals.save(self._output, known)
        return deleted, sorted(known)

    def _is_last(self, name: str, withdrawal: Withdrawal, published: set[str]) -> bool:
        """Return, and tell, whether what was to stay instead has become unreadable since."""
        product = os.path.dirname(name)
        is_last = not any(os.path.dirname(path) == product for path in published)
        if not is_last or withdrawal.is_asked_for:
            return False
        problem = "not deleted: nothing else of its product is published any more"
        self._find(name, problem, "mend the newer versions, or use prune --undo")
        return True

    def _delete(self, name: str, withdrawal: Withdrawal) -> bool:
        path = os.path.join(self._root, name)
        try:
            if not scan.is_inside(path, scan.bounds_of(self._root, *self.options.streams)):
                self._find(name, "leads out of the mirror; not removed", "remove the symlink")
                return False
            if withdrawal.files:
                for file in withdrawal.files:
                    removal.remove_file(os.path.join(path, file))
                return True
            self._tell_unknown(name, removal.remove_version(path))
        except OSError as error:
            self._find(name, f"cannot be removed ({error.strerror})", "look into it")
            return False
        return True

    def _delete_rubbish(self, found: list[Found]) -> list[str]:
        """Delete what was given up: hidden leftovers, and versions that can be no image."""
        published = self.published_paths()
        if published is None:
            return []
        deleted: list[str] = []
        for path in self._rubbish(found):
            if path in published:
                continue
            try:
                full = os.path.join(self._root, path)
                is_hidden = os.path.basename(path)[0] == "."
                left = removal.empty(full) if is_hidden else removal.remove_version(full)
                self._tell_unknown(path, left)
                deleted += [] if left else [path]
            except OSError as error:
                self._find(path, f"cannot be removed ({error.strerror})", "look into it")
        return deleted

    def _rubbish(self, found: list[Found]) -> list[str]:
        paths = [version.path for version in incomplete_versions(found, self._given_up_ns)]
        for product, _ in found:
            full = os.path.join(self._root, product.path)
            paths += [
                os.path.relpath(path, self._root)
                for path in removal.leftovers(full, self._given_up_ns)
            ]
        return paths

    def _tell_unknown(self, path: str, left: list[str]) -> None:
        if left:
            problem = f"emptied of what images consist of, but for {', '.join(left)}"
            self._find(path, problem, "remove it, if it is of no use")

    def _find(self, path: str, problem: str, remedy: str) -> None:
        self._findings.append(Finding(path, problem, remedy))

    def _tell(self) -> None:
        for finding in self._findings:
            self._observer.warn(finding)

    def _steps(self, known: Withdrawals, new: Withdrawals, found: list[Found]) -> list[Step]:
        """Return what a real run would do."""
        steps = [
            Step("withdraw", f"{name}/{file}" if file else name)
            for name, withdrawal in sorted(new.items())
            for file in withdrawal.files or ("",)
        ]
        now, grace = time.time(), self.options.grace_seconds
        for name, withdrawal in sorted(_merged(known, new).items()):
            since = withdrawal.unpublished_at
            is_due = since + grace <= now if since else grace == 0
            steps.append(Step("delete" if is_due else "delete later", name))
        return steps + [Step("delete", path) for path in self._rubbish(found)]


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


def _is_named(name: str, withdrawal: Withdrawal, published: set[str]) -> bool:
    if withdrawal.files:
        return any(f"{name}/{file}" in published for file in withdrawal.files)
    return name in published

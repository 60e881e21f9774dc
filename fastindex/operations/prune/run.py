"""Prune, remove and restore from end to end.

1. Under the lock: choose what to withdraw, and record it in ``streams/.withdrawn.json``.
2. An ordinary build publishes the rest.
3. Under the lock: what the published catalogue no longer names gets the time. What has had its
   time for as long as the grace is deleted, and its record with it.

The next run continues one that is killed anywhere: it publishes again without what has no time
yet, and finishes a removal that was started.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from datetime import UTC, datetime

from msgspec.structs import replace

from fastindex.catalogue.images import MIN_PREFIX_DIGITS, Image, find_named, list_images
from fastindex.catalogue.published import read_published, read_published_paths
from fastindex.errors import ExitCode, TreeError, UsageError, translate_system_errors
from fastindex.events import Observer, Step
from fastindex.formats.names import is_stream_name
from fastindex.mirror import staging
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.scan import require_streams, scan
from fastindex.mirror.state import withdrawals
from fastindex.mirror.state.withdrawals import Withdrawal, Withdrawals
from fastindex.mirror.tree import Found
from fastindex.operations.builder.pipeline import build
from fastindex.operations.prune.deletion import Deletion
from fastindex.operations.prune.options import PruneOptions, PruneReport
from fastindex.operations.prune.retention import choose_versions_to_withdraw


@translate_system_errors()
def prune(
    mirror: Mirror, options: PruneOptions, *, observer: Observer | None = None
) -> PruneReport:
    """Withdraw old versions, and delete what was withdrawn long enough ago.

    Args:
        mirror: the mirror.
        options: what stays, and for how long.
        observer: told of progress and findings.

    Raises:
        UsageError: an option makes no sense.
        FastindexError: as ``build``; a later run deletes what was to be deleted.
    """

    def choose(found: list[Found]) -> Withdrawals:
        today = datetime.now(UTC).date()
        published = read_published_paths(mirror.output) or ()
        going = choose_versions_to_withdraw(
            found, published, options.keep, options.keep_days, today
        )
        return {version.path: Withdrawal() for version in going}

    return _withdraw(mirror, options, choose, observer or Observer())


@translate_system_errors()
def remove(
    mirror: Mirror,
    options: PruneOptions,
    names: Iterable[str],
    *,
    observer: Observer | None = None,
) -> PruneReport:
    """Withdraw images, and delete their files once the grace has passed.

    Args:
        mirror: the mirror.
        options: how long files outlive the catalogues that name them.
        names: fingerprints, their prefixes (4 digits or more), or aliases.
        observer: told of progress and findings.

    Raises:
        UsageError: an option makes no sense, a name fits no image, or a prefix fits several.
        FastindexError: as ``build``; a later run deletes what was to be deleted.
    """
    chosen = list(names)
    return _withdraw(
        mirror, options, lambda _: _choose_named(mirror, chosen), observer or Observer()
    )


@translate_system_errors()
def restore(
    mirror: Mirror,
    options: PruneOptions,
    versions: Iterable[str],
    *,
    observer: Observer | None = None,
) -> PruneReport:
    """Publish withdrawn versions again, as long as their files are there.

    Args:
        mirror: the mirror.
        options: those of the build that publishes the versions.
        versions: each as STREAM/OS/RELEASE/ARCH/VARIANT/VERSION, or an unambiguous end of it.
        observer: told of progress and findings.

    Raises:
        UsageError: an option makes no sense, or a version is not withdrawn.
        TreeError: the files of a version are gone.
        FastindexError: as ``build``.
    """
    options.check()
    require_streams(mirror)
    wanted = list(versions)
    if options.build.dry_run:
        known = withdrawals.load(mirror)
        names = [_find_withdrawn(mirror, word, known) for word in wanted]
        return PruneReport(steps=tuple(Step("publish", name) for name in names))
    with mirror.lock(options.build.wait_seconds):
        known = withdrawals.load(mirror)
        names = [_find_withdrawn(mirror, word, known) for word in wanted]
        for name in names:
            known.pop(name, None)
        withdrawals.save(mirror, known)
    built = build(mirror, options.build, observer=observer)
    return PruneReport(restored=tuple(names), findings=built.findings, exit_code=built.exit_code)


def _withdraw(
    mirror: Mirror,
    options: PruneOptions,
    choose: Callable[[list[Found]], Withdrawals],
    observer: Observer,
) -> PruneReport:
    """Withdraw what ``choose`` returns, publish the rest, and delete what is due."""
    options.check()
    require_streams(mirror)
    is_dry_run = options.build.dry_run
    with nullcontext() if is_dry_run else mirror.lock(options.build.wait_seconds):
        known = withdrawals.load(mirror)
        deletion = Deletion(mirror, options.grace_seconds)
        if not is_dry_run:
            known = deletion.update_times(known)
        found = scan(mirror).found
        new = choose(withdrawals.drop_withdrawn(found, known))
        merged = _merge(known, new)
        if is_dry_run:
            return PruneReport(steps=tuple(_list_steps(deletion, options, new, merged, found)))
        for name in new:
            staging.remove_mark(mirror, name)  # no import is to take it for one that stays
        withdrawals.save(mirror, merged)
    built = build(mirror, options.build, observer=observer)
    with mirror.lock(options.build.wait_seconds):
        deletion = Deletion(_add_streams_of(mirror, merged), options.grace_seconds)
        deleted, waiting = deletion.delete_withdrawn()
        # Scanned again: an upload may have continued while the build ran.
        deleted += deletion.delete_abandoned(scan(mirror).found)
    for finding in deletion.findings:
        observer.warn(finding)
    return PruneReport(
        withdrawn=tuple(sorted(new)),
        deleted=tuple(deleted),
        waiting=tuple(waiting),
        findings=(*built.findings, *deletion.findings),
        exit_code=max(built.exit_code, ExitCode.LEFT_OUT)
        if deletion.has_failed
        else built.exit_code,
    )


def _add_streams_of(mirror: Mirror, versions: Iterable[str]) -> Mirror:
    """Return the mirror with the streams of ``versions`` added: a stream may be a symlink."""
    streams = dict.fromkeys(mirror.streams)
    streams |= dict.fromkeys(version.partition("/")[0] for version in versions)
    return mirror.with_streams([stream for stream in streams if is_stream_name(stream)])


def _choose_named(mirror: Mirror, names: list[str]) -> Withdrawals:
    """Return what to withdraw so that the images that ``names`` name are gone."""
    files, _ = read_published(mirror.output)
    images = list_images(files)
    chosen: dict[str, set[str]] = defaultdict(set)
    for name in names:
        for image in _find_images_named(images, name):
            chosen[image.version].add(image.file)
    every: dict[str, set[str]] = defaultdict(set)
    for image in images:
        every[image.version].add(image.file)
    return {
        version: Withdrawal(
            files=() if going == every[version] else tuple(sorted(going)), is_asked_for=True
        )
        for version, going in chosen.items()
    }


def _find_images_named(images: list[Image], name: str) -> list[Image]:
    hits = find_named(images, name)
    if not hits:
        raise UsageError(
            f"{name!r}: no published image has this alias, fingerprint or prefix of a "
            f"fingerprint ({MIN_PREFIX_DIGITS} digits or more)"
        )
    is_alias = any(name in image.aliases for image in hits)
    if len({(image.version, image.file) for image in hits}) > 1 and not is_alias:
        candidates = "\n".join(
            f"  {image.fingerprint} {image.version}/{image.file}" for image in hits
        )
        raise UsageError(f"{name!r} fits several images; give more digits:\n{candidates}")
    return hits


def _find_withdrawn(mirror: Mirror, word: str, known: Withdrawals) -> str:
    """Return the withdrawn version that ``word`` names."""
    path = word.strip("/")
    hits = [name for name in known if name == path or name.endswith("/" + path)]
    if len(hits) != 1:
        what = "fits several withdrawn versions" if hits else "is not a withdrawn version"
        raise UsageError(f"{word!r} {what}; withdrawn: {', '.join(sorted(known)) or 'none'}")
    if not os.path.isdir(mirror.path(hits[0])):
        raise TreeError(f"{hits[0]}: the files of this version are gone; import it again")
    return hits[0]


def _list_steps(
    deletion: Deletion,
    options: PruneOptions,
    new: Withdrawals,
    merged: Withdrawals,
    found: list[Found],
) -> list[Step]:
    """Return the steps of a real run."""
    steps = [
        Step("withdraw", f"{name}/{file}" if file else name)
        for name, withdrawal in sorted(new.items())
        for file in withdrawal.files or ("",)
    ]
    now = time.time()
    for name, withdrawal in sorted(merged.items()):
        is_due = withdrawal.grace_began(now) + options.grace_seconds <= now
        steps.append(Step("delete" if is_due else "delete later", name))
    return steps + [Step("delete", path) for path in deletion.find_abandoned(found)]


def _merge(known: Withdrawals, new: Withdrawals) -> Withdrawals:
    """Return both; a version that is withdrawn both in part and entirely is withdrawn entirely."""
    merged = dict(known)
    for name, withdrawal in new.items():
        old = known.get(name)
        if old is None:
            merged[name] = withdrawal
        elif old.files:
            files = tuple(sorted({*old.files, *withdrawal.files})) if withdrawal.files else ()
            merged[name] = replace(withdrawal, files=files)
    return merged

"""Pure: which versions to withdraw, and which are incomplete."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import date

from fastindex.mirror.tree import Found, FoundVersion
from fastindex.operations.plan import find_missing_part, select


def choose_versions_to_withdraw(
    found: Iterable[Found],
    published: Collection[str],
    keep: int,
    keep_days: int,
    today: date,
    is_young: Callable[[FoundVersion], bool] = lambda _: False,
) -> list[FoundVersion]:
    """Return the versions to withdraw: those older than the ``keep`` newest published ones.

    Only what is published counts as one that stays: the newest versions may turn out to be
    unreadable, or may be uploads that are still under way. So what is published of a product never
    becomes less than ``keep`` versions, and never nothing.

    Args:
        found: all products, without what is withdrawn already.
        published: paths of the versions that are published.
        keep: how many published versions of each product stay, at least 1.
        keep_days: versions dated less than this many days ago stay as well.
        today: the day from which to count.
        is_young: whether somebody may still be uploading a version; then it stays.

    Returns:
        Complete versions, the oldest first within a product. A delta keeps no version: where each
        version has one from the version before it, nothing would ever go.
    """
    # Not strftime: it does not pad years before 1000.
    oldest = date.fromordinal(max(1, today.toordinal() - keep_days)).isoformat().replace("-", "")
    going: list[FoundVersion] = []
    for _, versions in found:
        complete = [version for version in versions if is_complete(version)]
        known = [version for version in complete if version.path in published]
        if len(known) < max(1, keep):
            continue
        oldest_kept = known[-max(1, keep)].name
        staying = {
            version.path
            for version in complete
            if version.name >= oldest_kept
            or (keep_days and version.name[:8] > oldest)
            or (version.path not in published and is_young(version))
        }
        going += [version for version in complete if version.path not in staying]
    return going


def find_incomplete_versions(found: Iterable[Found]) -> list[FoundVersion]:
    """Return the versions that lack a file of an image, other than those with unreadable files."""
    return [
        version
        for _, versions in found
        for version in versions
        if not is_complete(version) and not version.broken
    ]


def is_complete(version: FoundVersion) -> bool:
    """Return whether ``version`` has all files that an image needs."""
    selection, _ = select(version, frozenset())
    return find_missing_part(version, selection) is None

"""Pure: which versions to withdraw, and which are incomplete."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import date

from fastindex.mirror.tree import Found, FoundVersion
from fastindex.operations.plan import find_missing_part, select


def choose_versions_to_withdraw(
    found: Iterable[Found], published: Collection[str], keep: int, keep_days: int, today: date
) -> list[FoundVersion]:
    """Return the versions to withdraw: all but the newest and the young ones of each product.

    Args:
        found: all products, without what is withdrawn already.
        published: paths of versions that are published now. ``keep`` of these stay as well, as
            newer ones may turn out to be unreadable.
        keep: how many complete versions of each product stay, at least 1.
        keep_days: versions dated less than this many days ago stay as well.
        today: the day from which to count.

    Returns:
        Complete versions, the oldest first within a product. A version stays if a delta of one
        that stays starts from it.
    """
    # Not strftime: it does not pad years before 1000.
    oldest = date.fromordinal(max(1, today.toordinal() - keep_days)).isoformat().replace("-", "")
    going: list[FoundVersion] = []
    for _, versions in found:
        complete = [version for version in versions if is_complete(version)]
        keep = max(1, keep)
        known = [version for version in complete if version.path in published]
        newest = {version.path for version in (*complete[-keep:], *known[-keep:])}
        staying = {
            version.path
            for version in complete
            if version.path in newest or (keep_days and version.name[:8] > oldest)
        }
        # The version that a delta starts from may have a delta itself, so its base stays as well.
        for version in reversed(complete):
            if version.path in staying:
                bases = {file.role.delta_base for file in version.files}
                staying |= {base.path for base in complete if base.name in bases}
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

"""Pure: which versions go."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import date

from fastindex.mirror.tree import Found, FoundVersion
from fastindex.operations.plan import find_missing_part, select


def choose_versions_to_withdraw(
    found: Iterable[Found], published: Collection[str], keep: int, keep_days: int, today: date
) -> list[FoundVersion]:
    """Return the versions that go: all but the newest and the young ones of each product.

    Args:
        found: all products, without what is withdrawn already.
        published: paths of versions that are published now: as many of them stay, too, as
            newer ones may turn out to be unreadable.
        keep: how many whole versions of each product stay, at least 1.
        keep_days: versions whose date is less than this many days ago stay.
        today: what the days are counted from.

    Returns:
        Whole versions, oldest first within a product. A version that a delta of one that
        stays starts from stays, too.
    """
    # Not strftime, which does not pad years before 1000.
    oldest = date.fromordinal(max(1, today.toordinal() - keep_days)).isoformat().replace("-", "")
    going: list[FoundVersion] = []
    for _, versions in found:
        whole = [version for version in versions if is_complete(version)]
        keep = max(1, keep)
        known = [version for version in whole if version.path in published]
        newest = {version.path for version in (*whole[-keep:], *known[-keep:])}
        staying = {
            version.path
            for version in whole
            if version.path in newest or (keep_days and version.name[:8] > oldest)
        }
        # A base may itself be a delta's version, whose base stays in its turn.
        for version in reversed(whole):
            if version.path in staying:
                bases = {file.role.delta_base for file in version.files}
                staying |= {base.path for base in whole if base.name in bases}
        going += [version for version in whole if version.path not in staying]
    return going


def find_incomplete_versions(found: Iterable[Found]) -> list[FoundVersion]:
    """Return the versions that can be no image, and not for a file that cannot be looked at."""
    return [
        version
        for _, versions in found
        for version in versions
        if not is_complete(version) and not version.broken
    ]


def is_complete(version: FoundVersion) -> bool:
    """Return whether ``version`` has the files of an image."""
    selection, _ = select(version, ())
    return find_missing_part(version, selection) is None

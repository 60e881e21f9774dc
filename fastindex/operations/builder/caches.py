"""Writes the caches of a build as digests come in, and remembers what could not be written."""

from __future__ import annotations

from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.simplestreams import CachedItem
from fastindex.mirror import cache
from fastindex.mirror.mirror import Mirror
from fastindex.operations.plan import PlannedVersion


class CacheWriter:
    """Saves the caches of versions, and remembers those that could not be written.

    Args:
        mirror: the mirror.
        is_dry_run: write nothing.
    """

    def __init__(self, mirror: Mirror, *, is_dry_run: bool) -> None:
        self._mirror = mirror
        self._is_dry_run = is_dry_run
        self._failures: list[tuple[str, str]] = []

    @property
    def has_failed(self) -> bool:
        """Whether a cache could not be written."""
        return bool(self._failures)

    def save(self, planned: PlannedVersion, items: dict[str, CachedItem]) -> None:
        """Save what is known of a version now; a failure becomes a finding."""
        if self._is_dry_run or not items:
            return
        path = planned.version.path
        try:
            cache.save(self._mirror, path, items, planned.version.metadata_ftypes)
        except FileNotFoundError:
            pass  # the version has been removed meanwhile: its cache is of no use
        except OSError as error:
            failure = (self._mirror.cache_path(path), error.strerror or str(error))
            self._failures.append(failure)

    def describe_failures(self) -> list[Finding]:
        """Return one finding about all caches that could not be written, if there are any."""
        if not self._failures:
            return []
        path, reason = self._failures[0]
        others = len(self._failures) - 1
        more = f", nor can {others} other cache{'s' if others > 1 else ''}" if others else ""
        return [
            Finding(
                Code.CACHE_NOT_WRITTEN,
                path,
                f"cannot be written ({reason}){more}; later runs may read those files again",
                "give this user the right to write there, or choose a --cache-dir",
            )
        ]

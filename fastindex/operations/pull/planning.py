"""What of an offer is here already, what is to be fetched, and whether the disk can take it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import suppress

from msgspec import Struct

from fastindex.catalogue.published import open_catalogue
from fastindex.errors import BrakeError, ResourceError, TreeError
from fastindex.events import Step
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.space import find_free_bytes
from fastindex.operations.pull.job import find_staged
from fastindex.operations.pull.wanted import Offer, WantedVersion


class PullPlan(Struct, frozen=True):
    """What is to be done for an offer."""

    existing: tuple[str, ...]
    """Paths of wanted versions that are here, with all their files."""
    missing: tuple[WantedVersion, ...]
    """Wanted versions to fetch, the largest first; some of their files may be here."""
    local: dict[str, str]
    """SHA-256 → path of a file of the mirror that should have those bytes."""
    bytes_to_fetch: int
    """What is left to fetch."""


def plan_pull(mirror: Mirror, offer: Offer) -> PullPlan:
    """Return what is here of an offer, and what is to be fetched."""
    wanted = offer.versions
    existing = tuple(one.path for one in wanted if _is_complete(mirror, one))
    here = frozenset(existing)
    missing = sorted((one for one in wanted if one.path not in here), key=_size_of, reverse=True)
    local = _find_local_files(mirror, {file.sha256 for one in missing for file in one.files})
    bytes_to_fetch = sum(_count_missing_bytes(mirror, one, local) for one in missing)
    return PullPlan(existing, tuple(missing), local, bytes_to_fetch)


def _is_complete(mirror: Mirror, version: WantedVersion) -> bool:
    """Return whether the tree has all files of a version, whatever is in them."""
    try:
        names = frozenset(os.listdir(mirror.path(version.path)))
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        # The build says so of a file in the place of a version, but not of any file above.
        return os.path.isdir(os.path.dirname(mirror.path(version.path)))
    except OSError:
        return True  # the build says what is wrong with it
    return all(file.name in names for file in version.files)


def _size_of(version: WantedVersion) -> int:
    return version.size_bytes


def _count_missing_bytes(mirror: Mirror, version: WantedVersion, local: Collection[str]) -> int:
    present = find_staged(mirror, version).sizes
    return sum(
        file.size_bytes - present.get(file.name, 0)
        for file in version.files
        if file.sha256 not in local
    )


def _find_local_files(mirror: Mirror, digests: Collection[str]) -> dict[str, str]:
    """Return which of the files with these SHA-256 digests are published here, by digest."""
    local: dict[str, str] = {}
    if not digests:
        return local
    with suppress(TreeError, OSError), open_catalogue(mirror.output) as published:
        for _, _, product in published.products():
            for version in product.versions.values():
                for item in version.items.values():
                    if item.sha256 in digests:
                        path = mirror.path(item.path)
                        if os.path.isfile(path):
                            local.setdefault(item.sha256, path)
    return local


def require_mounted(mirror: Mirror, pulled: Iterable[str], *, is_forced: bool) -> None:
    """Check that the disks of the streams are there, by what was pulled onto them.

    Args:
        mirror: the mirror.
        pulled: paths of the products that were pulled.
        is_forced: whether a stream may have become empty.

    Raises:
        TreeError: a stream is a symlink that leads nowhere.
        BrakeError: a stream is empty from which something was pulled.
    """
    filled = {path.partition("/")[0] for path in pulled}
    for stream in mirror.streams:
        path = mirror.path(stream)
        if os.path.islink(path) and not os.path.isdir(path):
            raise TreeError(
                f"{path}: is a symlink that leads nowhere; nothing was changed; mount its disk"
            )
        with suppress(FileNotFoundError):
            if any(name[0] != "." for name in os.listdir(path)):
                continue
        if stream in filled and not is_forced:
            raise BrakeError(
                f"{path}: is empty, but images were pulled into it; nothing was changed; mount its "
                "disk, or use --force to pull them again"
            )


def require_space(mirror: Mirror, plan: PullPlan) -> None:
    """Check that the disk can take what is to be fetched.

    Raises:
        ResourceError: it cannot.
    """
    free = find_free_bytes(mirror)
    if plan.bytes_to_fetch > free:
        raise ResourceError(
            f"{mirror.root}: the disk has {free:,} bytes left but for a reserve of 1 %, and "
            f"{plan.bytes_to_fetch:,} are to be fetched; nothing was changed; free some space, or "
            "choose less with --filter or --keep"
        )


def list_steps(mirror: Mirror, plan: PullPlan, withdrawn: Iterable[str]) -> tuple[Step, ...]:
    """Return what a run would do, for a dry run."""
    steps = [
        Step("link", plan.local[file.sha256], f"{one.path}/{file.name}")
        if file.sha256 in plan.local
        else Step("fetch", file.path, f"{one.path}/{file.name}", file.size_bytes)
        for one in plan.missing
        for file in one.files
        if not os.path.lexists(mirror.path(f"{one.path}/{file.name}"))
    ]
    return (*steps, *(Step("withdraw", path) for path in withdrawn))

"""Pure: what is published of a product → the deltas to make; and how many fit into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from fastindex.catalogue.contract import is_unsafe_path
from fastindex.formats.names import PRODUCT_DEPTH, classify, is_version_name, name_delta
from fastindex.formats.simplestreams import SQUASHFS, Item, Product
from fastindex.mirror.state.deltas import DeltaRules

DISK = "disk-kvm.img"
_MIN_WINDOW_BYTES = 1 << 19
_MAX_WINDOW_BYTES = 1 << 31
"""xdelta3 takes no smaller and no larger ones."""
_OTHER_MEMORY_BYTES = 64 << 20
"""What xdelta3 takes besides the window: for the input, the output and their hashes."""
_DEPTH = 1 + PRODUCT_DEPTH + 2
"""Names in the path of a root: the stream, the product, the version and the file."""


class Root(Struct, frozen=True):
    """A published root."""

    path: str
    """Relative to ROOT."""
    size_bytes: int
    """Its length, as published."""
    sha256: str
    """Its digest, as published."""


class WantedDelta(Struct, frozen=True):
    """A delta that may be made."""

    name: str
    """Its file name."""
    version: str
    """The version that it belongs to, relative to ROOT."""
    base_version: str
    """The version that it starts from, relative to ROOT."""
    base: Root
    """The root that it starts from."""
    target: Root
    """The root that it leads to."""
    ftype: str
    """The ftype of both roots."""
    is_published: bool
    """Whether clients have such a delta already."""

    @property
    def path(self) -> str:
        """Its path, relative to ROOT."""
        return f"{self.version}/{self.name}"


def choose_deltas(stream: str, product: Product, rules: DeltaRules) -> Iterator[WantedDelta]:
    """Yield the deltas to the newest published version of a product, from those before it.

    What another tool published under other paths than ours gets none.

    Args:
        stream: the stream of the product.
        product: as published.
        rules: which deltas are wanted.
    """
    for ftype in (SQUASHFS, DISK) if rules.with_machines else (SQUASHFS,):
        roots = _list_roots(stream, product, ftype)
        if not roots:
            continue
        newest, target = roots[-1]
        version = target.path.rpartition("/")[0]
        items = product.versions[newest].items.values()
        for base_name, base in roots[-1 - rules.per_root : -1]:
            name, base_version = name_delta(base_name, ftype), base.path.rpartition("/")[0]
            is_beside = base_version.rpartition("/")[0] == version.rpartition("/")[0]
            if name is None or not is_beside:
                continue
            is_published = any(
                item.ftype == f"{ftype}.vcdiff" and item.delta_base == base_name for item in items
            )
            yield WantedDelta(name, version, base_version, base, target, ftype, is_published)


def _list_roots(stream: str, product: Product, ftype: str) -> list[tuple[str, Root]]:
    """Return each version with a root of that ftype, the newest last, as clients sort them."""
    return [
        (name, Root(item.path, item.size, item.sha256))
        for name, version in sorted(product.versions.items())
        for item in version.items.values()
        if item.ftype == ftype and _is_in_place(item, stream, name)
    ]


def _is_in_place(item: Item, stream: str, version: str) -> bool:
    """Return whether a root is where this program has it."""
    names = item.path.split("/")
    role = classify(names[-1])
    return (
        len(names) == _DEPTH
        and (names[0], names[-2]) == (stream, version)
        and is_version_name(version)
        and not is_unsafe_path(item.path)
        and role is not None
        and role.ftype == item.ftype
        and item.size > 0
    )


def group_by_version(wanted: Iterable[WantedDelta]) -> list[tuple[WantedDelta, ...]]:
    """Return the deltas of each version together, those that take longest first."""
    groups: dict[str, list[WantedDelta]] = {}
    for delta in wanted:
        groups.setdefault(delta.version, []).append(delta)
    return sorted(map(tuple, groups.values()), key=_count_bytes, reverse=True)


def _count_bytes(group: Sequence[WantedDelta]) -> int:
    return sum(delta.base.size_bytes + delta.target.size_bytes for delta in group)


def find_window_bytes(base: Root) -> int:
    """Return the source window that has room for all of a base: a power of two, as xdelta3 has."""
    rounded = 1 << (base.size_bytes - 1).bit_length()
    return min(max(rounded, _MIN_WINDOW_BYTES), _MAX_WINDOW_BYTES)


def estimate_memory(base: Root) -> int:
    """Return how many bytes of memory xdelta3 takes for a delta from a base (measured)."""
    window = find_window_bytes(base)
    return min(base.size_bytes, window) + window // 2 + _OTHER_MEMORY_BYTES


def count_jobs(wanted: Iterable[WantedDelta], jobs: int, max_memory_bytes: int) -> tuple[int, int]:
    """Return how many jobs fit into memory, and how much memory they take.

    Args:
        wanted: what is to be made; each alone fits.
        jobs: how many there may be.
        max_memory_bytes: how much memory there is for all of them.
    """
    needed = sorted((estimate_memory(delta.base) for delta in wanted), reverse=True)
    if not needed:
        return 0, 0
    fitting = max(1, min(jobs, len(needed), max_memory_bytes // needed[0]))
    return fitting, sum(needed[:fitting])

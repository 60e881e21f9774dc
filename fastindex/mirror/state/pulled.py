"""``streams/.pulled.json``: what was pulled from which upstream, and what that looked like.

Only what was pulled is ever withdrawn because an upstream withdrew it. What the upstream looked
like tells a shrunk, a stale and an unchanged one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set

from msgspec import Struct
from msgspec.structs import replace
from xxhash import xxh3_128_hexdigest

from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import documents

_NAME = ".pulled.json"


class CatalogueFile(Struct, frozen=True, omit_defaults=True):
    """A catalogue file of an upstream as it was; it tells later whether it is still the same."""

    etag: str = ""
    """Its ``ETag``."""
    digest: str = ""
    """xxh3_128 of its bytes, 32 hex digits."""


def digest(data: bytes) -> str:
    """Return the digest by which it is seen whether a catalogue file, or a wish, has changed."""
    return xxh3_128_hexdigest(data)


class PulledProduct(Struct, frozen=True, omit_defaults=True):
    """A product that was pulled."""

    key: str
    """The upstream's name for it: its stream there, and its key in that."""
    newest: str
    """The name of the newest version that the upstream had of it."""
    versions: tuple[str, ...] = ()
    """Names of the versions that were pulled, and that the upstream still has."""
    removed: tuple[str, ...] = ()
    """Names of those that were withdrawn here since, by hand or by prune: they are not pulled
    again, unless they are restored."""
    has_settings: bool = False
    """Whether the upstream says more of it than its directories do; settings files say that."""
    withdrawn: tuple[str, ...] = ()
    """Names of those that a pull withdrew, as the upstream did; if that has them again, so has the
    mirror."""

    def agree(self, recorded: PulledProduct | None) -> PulledProduct:
        """Return the product with those versions removed that are recorded so by now."""
        removed = set(() if recorded is None else recorded.removed)
        withdrawn = set(self.withdrawn) - removed
        versions = {*self.versions, *self.removed} - removed - withdrawn
        return replace(
            self,
            versions=tuple(sorted(versions)),
            removed=tuple(sorted(removed)),
            withdrawn=tuple(sorted(withdrawn)),
        )

    def join(self, later: PulledProduct | None) -> PulledProduct:
        """Return the product with what was pulled of it later, under another address."""
        if later is None:
            return self
        removed = {*self.removed, *later.removed}
        withdrawn = {*self.withdrawn, *later.withdrawn} - removed
        versions = {*self.versions, *later.versions} - removed - withdrawn
        return replace(
            later,
            versions=tuple(sorted(versions)),
            removed=tuple(sorted(removed)),
            withdrawn=tuple(sorted(withdrawn)),
        )

    def move(self, names: Set[str], *, is_removed: bool) -> PulledProduct:
        """Return the product with versions noted as removed, or as not removed any more.

        Args:
            names: names of versions; others than those that were pulled do not matter.
            is_removed: which of both.
        """
        versions, removed, withdrawn = map(set, (self.versions, self.removed, self.withdrawn))
        if is_removed:
            moved = (versions | withdrawn) & names
            versions, removed, withdrawn = versions - moved, removed | moved, withdrawn - moved
        else:
            moved = (removed | withdrawn) & names
            versions, removed, withdrawn = versions | moved, removed - moved, withdrawn - moved
        return replace(
            self,
            versions=tuple(sorted(versions)),
            removed=tuple(sorted(removed)),
            withdrawn=tuple(sorted(withdrawn)),
        )


class Upstream(Struct, frozen=True, omit_defaults=True):
    """What is known of an upstream after a pull."""

    products: dict[str, PulledProduct] = {}
    """STREAM/OS/RELEASE/ARCH/VARIANT in this mirror → what was pulled of it."""
    catalogue: dict[str, CatalogueFile] = {}
    """Path of each catalogue file, relative to the URL → what it was when all that was asked for
    was here; empty: not all was."""
    wanted: str = ""
    """Digest of what was asked for then."""
    published: str = ""
    """Digest of what was published after it."""

    def join(self, later: Upstream) -> Upstream:
        """Return what is known of an upstream that had another address before.

        The next pull looks at all of it again.

        Args:
            later: what is known of it under its new address.
        """
        joined = {path: one.join(later.products.get(path)) for path, one in self.products.items()}
        return Upstream({**later.products, **joined})


def move(known: Mapping[str, Upstream], before: str, url: str) -> dict[str, Upstream]:
    """Return what is known of upstreams, of which one has moved.

    Args:
        known: what was known, by URL.
        before: its old URL; if nothing is known of that, nothing changes.
        url: its new one.
    """
    if before not in known or before == url:
        return {**known}
    moved = known[before].join(known.get(url, Upstream()))
    return {name: one for name, one in known.items() if name != before} | {url: moved}


def list_paths(
    products: Mapping[str, PulledProduct], choose: Callable[[PulledProduct], Iterable[str]]
) -> set[str]:
    """Return the paths of versions of products.

    Args:
        products: path of each → what was pulled of it.
        choose: returns the names of its versions that are meant.
    """
    return {f"{path}/{name}" for path, product in products.items() for name in choose(product)}


def load(mirror: Mirror) -> dict[str, Upstream]:
    """Return what is known of each upstream, by its URL.

    Raises:
        TreeError: the record cannot be used.
    """
    remedy = "repair it, or remove it; then versions that upstreams withdraw stay here"
    return documents.load(mirror.state_path(_NAME), dict[str, Upstream], remedy)


def save(mirror: Mirror, upstreams: dict[str, Upstream]) -> None:
    """Write what is known, durably.

    Raises:
        PublishError: it cannot be written; the old record is unchanged.
    """
    documents.save(mirror.state_path(_NAME), upstreams)


def note_removed(mirror: Mirror, versions: Iterable[str], *, is_removed: bool = True) -> None:
    """Record that versions are withdrawn here, by hand or by prune, or are restored.

    Args:
        mirror: the mirror; its lock is held.
        versions: STREAM/OS/RELEASE/ARCH/VARIANT/VERSION of each. Those that no pull brought do not
            matter.
        is_removed: False: they are restored.

    Raises:
        TreeError: the record cannot be used.
        PublishError: it cannot be written.
    """
    names: dict[str, set[str]] = {}
    for path in versions:
        product, _, name = path.rpartition("/")
        names.setdefault(product, set()).add(name)
    known = load(mirror)
    noted = {
        url: replace(
            upstream,
            products={
                path: product.move(names.get(path, set()), is_removed=is_removed)
                for path, product in upstream.products.items()
            },
        )
        for url, upstream in known.items()
    }
    if noted != known:
        save(mirror, noted)

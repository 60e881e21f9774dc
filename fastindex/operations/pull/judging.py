"""Pure: whether to believe an upstream, and what to withdraw because it did."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from msgspec.structs import replace

from fastindex.errors import BrakeError, Code, TreeError, UsageError
from fastindex.events import Finding
from fastindex.formats.filters import Filters, ProductNames
from fastindex.formats.names import find_version_time
from fastindex.formats.quantities import format_duration
from fastindex.mirror.state.pulled import PulledProduct, list_paths
from fastindex.mirror.state.withdrawals import Withdrawal, Withdrawals
from fastindex.operations.pull.wanted import Offer

_FORCE = "see what is wrong with it, or use --force if all is as it should be"


def require_plausible(url: str, offer: Offer, known: Mapping[str, PulledProduct]) -> None:
    """Check that an upstream is neither empty, nor shrunk, nor older than it was.

    Args:
        url: the upstream.
        offer: what it has now.
        known: what was pulled from it before.

    Raises:
        TreeError: it has nothing.
        BrakeError: more than half of the products that were pulled are gone, or had newer versions
            before.
    """
    if not offer.listed:
        refused = [f"{one.path}: {one.problem}" for one in offer.findings]
        why = f" that can be used: {refused[0]}" if refused else ""
        raise TreeError(
            f"{url}: has no images{why}; nothing was changed; is the address right? if so, ask who "
            "runs the upstream"
        )
    gone = [one for one in known.values() if one.key not in offer.listed]
    if 2 * len(gone) > len(known):
        raise BrakeError(
            f"{url}: of {_count(len(known))} that were pulled from there, {len(gone):,} are gone; "
            f"nothing was changed; {_FORCE}"
        )
    both = [one for one in offer.products if one.product.path in known]
    older = [one for one in both if one.newest < known[one.product.path].newest]
    if 2 * len(older) > len(both):
        raise BrakeError(
            f"{url}: is older than what was pulled from there before: the newest version of "
            f"{_count(len(older))} is gone; nothing was changed; {_FORCE}"
        )


def require_same_streams(
    url: str, offer: Offer, known: Mapping[str, PulledProduct], stream: str
) -> None:
    """Check that no product would be here a second time, in another stream.

    Args:
        url: the upstream.
        offer: what it has.
        known: what was pulled from it before.
        stream: the stream that was asked for.

    Raises:
        UsageError: one would.
    """
    before = {one.key: path for path, one in known.items() if one.versions}
    for one in offer.products:
        path = before.get(one.key, one.product.path)
        if not path.startswith(f"{one.product.stream}/"):
            raise UsageError(
                f"{url}: was pulled into {path.partition('/')[0]}/ before, so --stream "
                f"{stream or one.product.stream} would publish its images twice, which clients "
                "refuse; keep to one stream"
            )


def _count(number: int) -> str:
    return f"{number:,} product" if number == 1 else f"{number:,} products"


def choose_withdrawals(
    offer: Offer, known: Mapping[str, PulledProduct], present: Collection[str], filters: Filters
) -> Withdrawals:
    """Return which of the versions that were pulled the upstream has no more, or has newer ones of.

    A product keeps its old versions until all that is wanted of it is here. What was not asked for
    this time stays as it is.

    Args:
        offer: what the upstream has.
        known: what was pulled from it before.
        present: paths of the wanted versions that are here.
        filters: what was asked for.
    """
    going: Withdrawals = {}
    wanted = {one.product.path: one for one in offer.products}
    for path, pulled in known.items():
        offered = wanted.get(path)
        if offered is not None:
            if all(version.path in present for version in offered.versions):
                kept = {version.name for version in offered.versions}
                old = [name for name in pulled.versions if name not in kept]
                going |= {f"{path}/{name}": Withdrawal() for name in old}
        elif pulled.key not in offer.listed and _is_asked_for(path, filters):
            # Its last version goes, too, as if a person had named it.
            gone = {f"{path}/{name}": Withdrawal(is_asked_for=True) for name in pulled.versions}
            going |= gone
    return going


def _is_asked_for(path: str, filters: Filters) -> bool:
    _, os, release, arch, variant = path.split("/")
    return bool(filters.match_product(ProductNames((os,), release, arch, variant, ())))


def find_removed(known: Mapping[str, PulledProduct], withdrawn: Iterable[str]) -> list[str]:
    """Return the paths of versions that were withdrawn here, and not because an upstream did.

    Args:
        known: what was pulled.
        withdrawn: paths of the versions that are withdrawn now.
    """
    ours = list_paths(known, lambda one: one.withdrawn)
    return sorted(list_paths(known, lambda one: one.removed) | ({*withdrawn} - ours))


def find_restored(
    wanted: Iterable[str], known: Mapping[str, PulledProduct], withdrawn: Collection[str]
) -> list[str]:
    """Return which of the versions that a pull withdrew are wanted again.

    What somebody else withdrew stays so.

    Args:
        wanted: paths of what is wanted.
        known: what was pulled before.
        withdrawn: paths of all versions that are withdrawn.
    """
    again = list_paths(known, lambda one: one.withdrawn)
    return sorted(again & {*wanted} & {*withdrawn})


def record_intended(
    offer: Offer, known: Mapping[str, PulledProduct], intended: Collection[str]
) -> dict[str, PulledProduct]:
    """Return what is pulled from an upstream once all of it is here: product → its versions.

    Args:
        offer: what the upstream has.
        known: what was pulled from it before.
        intended: paths of the versions that come.
    """
    products = dict(known)
    for one in offer.products:
        path = one.product.path
        before = known.get(path, PulledProduct(one.key, one.newest))
        names = {version.name for version in one.versions if version.path in intended}
        versions = tuple(sorted(names.union(before.versions)))
        withdrawn = tuple(sorted({*before.withdrawn} - names))
        product = PulledProduct(
            one.key,
            one.newest,
            versions,
            before.removed,
            has_settings=one.settings.product_toml is not None,
            withdrawn=withdrawn,
        )
        if versions or product.removed or withdrawn:
            products[path] = product
    return products


def record_outcome(
    known: Mapping[str, PulledProduct], withdrawn: Collection[str], lost: Collection[str]
) -> dict[str, PulledProduct]:
    """Return what is pulled from an upstream after a run: product → its versions.

    Args:
        known: what was to be pulled.
        withdrawn: paths of the versions that are withdrawn.
        lost: paths of the versions that are not here.
    """
    products: dict[str, PulledProduct] = {}
    for path, one in known.items():
        gone = {name for name in one.versions if f"{path}/{name}" in lost}
        all_names = {*one.versions, *one.withdrawn} - gone
        going = {name for name in all_names if f"{path}/{name}" in withdrawn}
        product = replace(
            one,
            versions=tuple(sorted({*one.versions} - gone - going)),
            withdrawn=tuple(sorted(going)),
        )
        if product.versions or product.removed or product.withdrawn:
            products[path] = product
    return products


def find_lag(url: str, names: Iterable[str], lag_seconds: float, now: float) -> Finding | None:
    """Return that the newest version of what was asked for is older than it may be.

    Args:
        url: the upstream.
        names: the newest version of each product.
        lag_seconds: how old it may be.
        now: seconds since the epoch.
    """
    newest = max(filter(None, names), key=find_version_time, default="")
    if not newest or find_version_time(newest) >= now - lag_seconds:
        return None
    # Not how old: what is known from the night before is not told again.
    problem = f"its newest version, {newest}, is older than {format_duration(lag_seconds)}"
    remedy = "ask who runs it whether it still gets new images, or allow more with --lag"
    return Finding(Code.UPSTREAM_BEHIND, url, problem, remedy)

"""Pure: which product gets which alias.

A product directory owns its default aliases, whether or not anything of it is published: an
uploader must not be able to offer an image under the name of another, not even for a while. What
settings add is bounded after placeholders are filled in: clients download every alias of every
product, so 64 KiB from a stranger could add gigabytes to the catalogue.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

from msgspec import Struct

from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.names import ARCHITECTURES, MICRO_ARCHITECTURES, ProductName
from fastindex.formats.settings import Settings

MAX_ALIAS_CHARACTERS = 255
"""The length of one alias."""
MAX_ALIASES = 100
"""The number of aliases of one product."""
MAX_PRODUCT_CHARACTERS = 4096
"""The length of all aliases of one product, with a comma for each."""
MAX_STREAM_CHARACTERS = 16 << 20
"""The length of all aliases of one stream, with a comma for each."""

_PLACEHOLDER = re.compile(r"\{(os|release|variant|arch)\}")


class Claim(Struct, frozen=True):
    """The aliases that a product claims."""

    name: ProductName
    """Its OS, release, architecture and variant."""
    path: str
    """Its directory, for the findings."""
    aliases: tuple[str, ...]
    """The aliases, the default ones first."""
    is_published: bool = True
    """Whether it has versions; a directory without any still owns its default aliases."""


def list_aliases(name: ProductName, settings: Settings) -> tuple[tuple[str, ...], int]:
    """Return the aliases that a product claims.

    Args:
        name: its OS, release, architecture and variant.
        settings: what the settings files say about it.

    Returns:
        The aliases without duplicates, the default ones first, as far as the bounds allow; and
        how many exceed the bounds.
    """
    aliases: dict[str, None] = {}
    room = MAX_PRODUCT_CHARACTERS
    left_out = 0
    defaults = [] if settings.replace_aliases else name.default_aliases
    for alias in (*defaults, *(settings.aliases or ())):
        # What is too long is not even filled in.
        is_bounded = len(aliases) < MAX_ALIASES and _measure(alias, name) <= MAX_ALIAS_CHARACTERS
        filled = _fill_in(alias, name) if is_bounded else ""
        if filled in aliases:
            continue
        if is_bounded and len(filled) < room:
            aliases[filled] = None
            room -= len(filled) + 1
        else:
            left_out += 1
    return tuple(aliases), left_out


def _measure(alias: str, name: ProductName) -> int:
    """Return the length of ``alias`` with its placeholders filled in."""
    if "{" not in alias:
        return len(alias)
    length, os_count, release_count, variant_count, arch_count = _parse(alias)
    return (
        length
        + os_count * len(name.os)
        + release_count * len(name.release)
        + variant_count * len(name.variant)
        + arch_count * len(name.arch)
    )


@lru_cache(maxsize=4096)
def _parse(alias: str) -> tuple[int, int, int, int, int]:
    """Return the length of ``alias`` without placeholders, and how many there are of each.

    Cached: one settings file can hold for thousands of products.
    """
    counts = Counter(_PLACEHOLDER.findall(alias))
    length = len(_PLACEHOLDER.sub("", alias))
    return length, counts["os"], counts["release"], counts["variant"], counts["arch"]


def _fill_in(alias: str, name: ProductName) -> str:
    return _PLACEHOLDER.sub(lambda match: str(getattr(name, match[1])), alias)


def describe_bounds(path: str, left_out: int) -> Finding:
    """Return the finding about a product of which ``left_out`` aliases exceed the bounds."""
    return Finding(
        Code.LIMIT_EXCEEDED,
        path,
        f"{left_out} of its aliases left out: a product has at most {MAX_ALIASES}, each of at "
        f"most {MAX_ALIAS_CHARACTERS} characters, and {MAX_PRODUCT_CHARACTERS:,} in all",
        "use fewer or shorter aliases",
    )


def assign_aliases(claims: Sequence[Claim]) -> tuple[list[tuple[str, ...]], list[Finding]]:
    """Leave out aliases that belong to another product.

    An alias belongs to the products that have it by the names of their directories. One that a
    product for every x86_64 has does not go to a product for some of them, as clients would
    give its images to all.

    Args:
        claims: of the products of all streams.

    Returns:
        The aliases that each product keeps, in the order of ``claims``; and a finding for each
        that a published product loses.
    """
    owned = [claim.name.default_aliases for claim in claims]
    owners: dict[str, str] = {}
    for claim, own in zip(claims, owned, strict=True):
        for alias in own:
            if alias in claim.aliases:
                for form in _list_forms(alias, claim):
                    owners.setdefault(form, claim.path)
    kept: list[tuple[str, ...]] = []
    findings: list[Finding] = []
    for claim, own in zip(claims, owned, strict=True):
        taken = _find_borrowed(claim, own, owners)
        if taken:
            findings += _describe_taken(claim, taken)
            kept.append(tuple(alias for alias in claim.aliases if alias not in taken))
        else:
            kept.append(claim.aliases)
    findings += _withhold_from_some(claims, kept)
    return kept, findings


def _withhold_from_some(claims: Sequence[Claim], kept: list[tuple[str, ...]]) -> list[Finding]:
    """Take from products for some x86_64 the aliases that one for every x86_64 has.

    Args:
        claims: as ``assign_aliases`` has them.
        kept: the aliases that each of them keeps; changed in place.

    Returns:
        A finding for each alias that a published product loses.
    """
    some = [number for number, one in enumerate(claims) if one.name.arch in MICRO_ARCHITECTURES]
    if not some:
        return []
    plain = {
        (ARCHITECTURES.get(claim.name.arch), form): claim.path
        for claim, aliases in zip(claims, kept, strict=True)
        if claim.name.arch not in MICRO_ARCHITECTURES
        for alias in aliases
        for form in _list_forms(alias, claim)
    }
    findings: list[Finding] = []
    for number in some:
        claim = claims[number]
        arch = ARCHITECTURES[claim.name.arch]
        taken = {
            alias: owner
            for alias in kept[number]
            if (owner := plain.get((arch, alias))) is not None
        }
        kept[number] = tuple(alias for alias in kept[number] if alias not in taken)
        findings += _describe_taken(claim, taken)
    return findings


def _list_forms(alias: str, claim: Claim) -> tuple[str, str]:
    """Return what clients accept for ``alias``: they know ALIAS/ARCH, too."""
    return alias, f"{alias}/{claim.name.arch}"


def _find_borrowed(claim: Claim, own: Collection[str], owners: dict[str, str]) -> dict[str, str]:
    """Return the aliases of ``claim`` that others have by their directories → such a directory.

    Args:
        claim: the claim.
        own: its default aliases.
        owners: alias → the directory that has it.
    """
    return {
        alias: owner
        for alias in claim.aliases
        if alias not in own
        for form in _list_forms(alias, claim)
        if (owner := owners.get(form)) is not None
        and form.removesuffix(f"/{claim.name.arch}") not in own
    }


def _describe_taken(claim: Claim, taken: dict[str, str]) -> list[Finding]:
    if not claim.is_published:
        return []
    return [
        Finding(
            Code.ALIAS_TAKEN,
            claim.path,
            f"the alias {alias!r} belongs to {owner}; left out",
            "choose another alias",
        )
        for alias, owner in sorted(taken.items())
    ]


def bound_stream(
    stream: str, claims: Iterable[tuple[ProductName, tuple[str, ...]]]
) -> tuple[list[tuple[str, ...]], list[Finding]]:
    """Leave out aliases so that a stream's are not too long in all.

    The products that use the most lose first, and default aliases go last: nobody can crowd
    out the aliases of others.

    Args:
        stream: the stream.
        claims: its published products, each with its aliases.

    Returns:
        The aliases that each product keeps, in the order of ``claims``; and a finding if some
        are left out.
    """
    claims = list(claims)
    if sum(_measure_all(aliases) for _, aliases in claims) <= MAX_STREAM_CHARACTERS:
        return [aliases for _, aliases in claims], []
    defaults: list[tuple[str, ...]] = []
    others: list[tuple[str, ...]] = []
    for name, aliases in claims:
        own = frozenset(name.default_aliases)
        defaults.append(tuple(alias for alias in aliases if alias in own))
        others.append(tuple(alias for alias in aliases if alias not in own))
    before = sum(map(len, (*defaults, *others)))
    defaults = _share_out(defaults, MAX_STREAM_CHARACTERS)
    others = _share_out(others, MAX_STREAM_CHARACTERS - sum(map(_measure_all, defaults)))
    kept = [(*own, *more) for own, more in zip(defaults, others, strict=True)]
    left_out = before - sum(map(len, kept))
    if not left_out:
        return kept, []
    problem = (
        f"{left_out:,} aliases left out, of the products with the most: those of a stream have "
        f"at most {MAX_STREAM_CHARACTERS:,} characters in all"
    )
    return kept, [Finding(Code.LIMIT_EXCEEDED, stream, problem, "use fewer or shorter aliases")]


def _share_out(lists: list[tuple[str, ...]], room: int) -> list[tuple[str, ...]]:
    """Return ``lists``, the longest cut to one length so that all of them fit into ``room``."""
    sizes = [_measure_all(aliases) for aliases in lists]
    if sum(sizes) <= room:
        return lists
    low, high = 0, MAX_PRODUCT_CHARACTERS
    while low < high:
        middle = (low + high + 1) // 2
        is_fitting = sum(min(size, middle) for size in sizes) <= room
        low, high = (middle, high) if is_fitting else (low, middle - 1)
    return [
        _cut(aliases, low) if size > low else aliases
        for aliases, size in zip(lists, sizes, strict=True)
    ]


def _cut(aliases: tuple[str, ...], room: int) -> tuple[str, ...]:
    """Return the first of ``aliases`` that fit into ``room``."""
    kept: list[str] = []
    for alias in aliases:
        room -= len(alias) + 1
        if room < 0:
            break
        kept.append(alias)
    return tuple(kept)


def _measure_all(aliases: tuple[str, ...]) -> int:
    return sum(len(alias) + 1 for alias in aliases)

"""Filters: which products, versions and types of images an operator wants.

A filter is words with blanks between, such as ``os=debian,alpine arch~^(amd64|arm64)$``: all
of them must hold. A word is a key, an operator and a value:

- ``=`` one of the values, separated by commas; ``!=`` none of them. Case does not matter.
- ``~`` the rest of the word is a regular expression that is found in the name; ``!~`` it is not.

Of several filters one must hold. What a filter says is looked at in stages, so that a product that
nobody wants costs microseconds: first the names of the product, then those of a version, then
types. Regular expressions come from the operator; the names come from strangers, so their length
is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from fastindex.errors import Code, UsageError
from fastindex.events import Finding
from fastindex.formats.names import (
    ARCHITECTURES,
    MICRO_ARCHITECTURES,
    to_distribution_architecture,
)

PRODUCT_KEYS: Final = ("os", "release", "arch", "variant", "alias")
"""The keys that the names of a product decide."""
VERSION_KEYS: Final = ("version", "label")
"""The keys that a version decides."""
TYPE_KEY: Final = "type"
KEYS: Final = (*PRODUCT_KEYS, TYPE_KEY, *VERSION_KEYS)

ImageType = Literal["container", "vm"]
"""What an image is of, as filters call it."""
CONTAINER: Final = "container"
MACHINE: Final = "vm"
TYPES: Final[frozenset[ImageType]] = frozenset((CONTAINER, MACHINE))
_TYPE_NAMES: Final[dict[ImageType, tuple[str, ...]]] = {
    CONTAINER: (CONTAINER,),
    MACHINE: (MACHINE, "virtual-machine"),
}

MAX_NAME_CHARACTERS: Final = 300
"""Of a longer name, only the beginning is looked at."""
_MAX_NEAREST: Final = 1000
"""How many names of a key are remembered, for a hint at the one that is meant."""

_WORD: Final = re.compile(r"([^=!~]*)(!=|!~|=|~)(.*)", re.DOTALL)
_EXAMPLE: Final = "write words such as os=debian,alpine or arch~^(amd64|arm64)$"


class Term(Struct, frozen=True):
    """One word of a filter."""

    key: str
    """One of ``KEYS``."""
    is_negated: bool
    """Whether it holds if no name fits."""
    values: frozenset[str] = frozenset()
    """The names that fit, as ``_fold`` returns them."""
    search: Callable[[str], object] | None = None
    """Tells whether a name fits, instead of ``values``."""

    def holds(self, names: Iterable[str]) -> bool:
        """Return whether it holds for something that has ``names``."""
        if self.search is None:
            fits = not self.values.isdisjoint(names)
        else:
            fits = any(map(self.search, names))
        return fits is not self.is_negated


class Filter(Struct, frozen=True):
    """What ``--filter`` says once. One without terms accepts everything."""

    product_terms: tuple[Term, ...] = ()
    """What must hold for the names of a product."""
    version_terms: tuple[Term, ...] = ()
    """What must hold for a version."""
    types: frozenset[ImageType] = TYPES
    """The types of images that it accepts."""
    wanted: tuple[tuple[str, str], ...] = ()
    """The keys and values, as they are written, of what must be equal to a name."""


def parse_filter(text: str) -> Filter:
    """Read a filter.

    Raises:
        UsageError: it is not one; the message says what is wrong.
    """
    words = text.split()
    if not words:
        raise UsageError(f"the filter {text!r} is empty; {_EXAMPLE}")
    product_terms: list[Term] = []
    version_terms: list[Term] = []
    types = TYPES
    wanted: list[tuple[str, str]] = []
    for word in words:
        try:
            key, operator, value = _split_word(word)
            term = _make_term(key, operator, value)
        except ValueError as error:
            raise UsageError(f"the filter {text!r} is wrong: {error}") from error
        if key == TYPE_KEY:
            types &= {kind for kind, names in _TYPE_NAMES.items() if term.holds(names)}
        else:
            (product_terms if key in PRODUCT_KEYS else version_terms).append(term)
        if operator == "=":
            wanted += [(key, part) for part in value.split(",")]
    return Filter(tuple(product_terms), tuple(version_terms), types, tuple(wanted))


def _split_word(word: str) -> tuple[str, str, str]:
    match = _WORD.fullmatch(word)
    if match is None:
        raise ValueError(f"{word!r} has no operator; {_EXAMPLE}")
    key, operator, value = match.groups()
    if key not in KEYS:
        raise ValueError(f"{key!r} is not a key{_suggest(key, KEYS)}; the keys are {_list(KEYS)}")
    if operator in ("=", "!=") and value[:1] in ("=", "~"):
        raise ValueError(f"{word!r} has two operators; the operators are =, !=, ~ and !~")
    if not value or (operator in ("=", "!=") and not all(value.split(","))):
        raise ValueError(f"{word!r} lacks a value; {_EXAMPLE}")
    return key, operator, value


def _make_term(key: str, operator: str, value: str) -> Term:
    is_negated = operator[0] == "!"
    if operator[-1] == "~":
        try:
            pattern = re.compile(value, re.IGNORECASE)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{value!r} is not a regular expression ({error})") from error
        return Term(key, is_negated, search=pattern.search)
    values = [_fold(part) for part in value.split(",")]
    known = [name for names in _TYPE_NAMES.values() for name in names]
    for part in values if key == TYPE_KEY else ():
        if part not in known:
            raise ValueError(f"{part!r} is not a type; the types are {_list(sorted(TYPES))}")
    if key == "arch":
        values = [_find_main_name(part) for part in values]
    return Term(key, is_negated, frozenset(values))


def _list(names: Iterable[str]) -> str:
    *some, last = names
    return f"{', '.join(some)} and {last}"


def _suggest(word: str, known: Iterable[str]) -> str:
    import difflib  # takes 3 ms

    nearest = difflib.get_close_matches(word.casefold(), list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def _fold(name: str) -> str:
    return name[:MAX_NAME_CHARACTERS].casefold()


def _find_main_name(arch: str) -> str:
    """Return the name that stands for all names of an architecture.

    A micro-architecture is one of its own, although clients take it for x86_64.
    """
    return arch if arch in MICRO_ARCHITECTURES else ARCHITECTURES.get(arch, arch)


@lru_cache(maxsize=256)
def _list_architectures(arch: str) -> tuple[str, ...]:
    """Return the names of an architecture: its own, the main one, that of distributions."""
    own = _fold(arch)
    main = _find_main_name(own)
    return tuple(dict.fromkeys((own, main, to_distribution_architecture(main))))


class ProductNames(NamedTuple):
    """What the terms about products look at: the names as they are written."""

    os: tuple[str, ...]
    """The names of the distribution: that of its directory, and that which people write."""
    release: str
    """The release."""
    arch: str
    """The architecture; it is known by all its names."""
    variant: str
    """The variant; an empty one is ``default``."""
    aliases: Sequence[str]
    """The aliases."""

    def list_folded(self, key: str) -> tuple[str, ...]:
        """Return what a term about ``key`` looks at."""
        if key == "os":
            return tuple(map(_fold, self.os))
        if key == "release":
            return (_fold(self.release),)
        if key == "arch":
            return _list_architectures(self.arch)
        if key == "variant":
            return (_fold(self.variant or "default"),)
        return tuple(map(_fold, self.aliases))


class Filters:
    """Filters of which one must hold; without any, everything is accepted.

    They remember which of the values that must be equal to a name were never met.

    Args:
        filters: what the operator says.
    """

    def __init__(self, filters: Iterable[Filter] = ()) -> None:
        self._filters = tuple(filters) or (Filter(),)
        self._product_keys = {term.key for one in self._filters for term in one.product_terms}
        self._unmet: dict[str, dict[str, str]] = {}
        for one in self._filters:
            for key, value in one.wanted:
                name = _fold(value)
                if key == "arch":
                    name = _find_main_name(name)
                elif key == TYPE_KEY:
                    name = next(kind for kind, names in _TYPE_NAMES.items() if name in names)
                self._unmet.setdefault(key, {})[name] = value
        self._met: dict[str, set[str]] = {key: set() for key in self._unmet}

    def match_product(self, product: ProductNames) -> tuple[Filter, ...]:
        """Return the filters that may accept versions of a product; none: nothing of it is wanted.

        Args:
            product: its names.
        """
        names = {key: product.list_folded(key) for key in self._product_keys}
        for key, unmet in self._unmet.items():
            if unmet and key in names:
                self._meet(key, names[key])
        return tuple(
            one
            for one in self._filters
            if all(term.holds(names[term.key]) for term in one.product_terms)
        )

    def match_version(
        self, candidates: tuple[Filter, ...], version: str, label: str
    ) -> tuple[Filter, ...]:
        """Return the filters that may accept images of a version; none: nothing of it is wanted.

        Args:
            candidates: what ``match_product`` returned for its product.
            version: its name.
            label: its label, or "".
        """
        names = {"version": (_fold(version),), "label": (_fold(label),) if label else ()}
        for key, met in names.items():
            if self._unmet.get(key):
                self._meet(key, met)
        return tuple(
            one
            for one in candidates
            if all(term.holds(names[term.key]) for term in one.version_terms)
        )

    def match_types(
        self, candidates: tuple[Filter, ...], types: Set[ImageType]
    ) -> frozenset[ImageType]:
        """Return the types of images that are wanted of a version; none: nothing of it is.

        Args:
            candidates: what ``match_version`` returned for it.
            types: those of its images.
        """
        if self._unmet.get(TYPE_KEY):
            self._meet(TYPE_KEY, types)
        return frozenset(one for one in types if any(one in some.types for some in candidates))

    def _meet(self, key: str, names: Iterable[str]) -> None:
        unmet, met = self._unmet[key], self._met[key]
        for name in names:
            unmet.pop(name, None)
            if len(met) < _MAX_NEAREST:
                met.add(name)

    def find_unused(self) -> list[Finding]:
        """Return a finding for each value of an ``=`` that nothing had so far."""
        return list(self._find_unused())

    def _find_unused(self) -> Iterator[Finding]:
        for key, unmet in self._unmet.items():
            for name, value in unmet.items():
                hint = _suggest(name, sorted(self._met[key])).removeprefix("; ")
                yield Finding(
                    Code.UNUSED_FILTER,
                    f"filter {key}={value}",
                    f"nothing has the {key} {value!r}",
                    hint or "correct it, or leave it out",
                )


def parse_filters(texts: Iterable[str]) -> Filters:
    """Read filters of which one must hold.

    Raises:
        UsageError: one of them is wrong; the message says what.
    """
    return Filters(map(parse_filter, texts))

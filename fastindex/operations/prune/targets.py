"""The words that a person gives ``remove`` → what to withdraw.

A fingerprint or an alias stands for an image, wherever there is a copy of it: a copy that was left
out as a duplicate must not appear in its place. A path stands for a version or a product, and for
nothing else.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from msgspec import Struct

from fastindex.catalogue.fingerprints import find_images
from fastindex.catalogue.images import MIN_PREFIX_DIGITS, Image, find_by_fingerprint, find_named
from fastindex.errors import UsageError
from fastindex.formats.names import PRODUCT_DEPTH, is_version_name
from fastindex.mirror import cache
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state.withdrawals import Withdrawal, Withdrawals
from fastindex.mirror.tree import Found, FoundVersion


class Targets(Struct, frozen=True):
    """What is to be withdrawn."""

    versions: frozenset[str]
    """Paths of entire versions, relative to ROOT."""
    images: tuple[Image, ...]
    """Published images, of which all copies go as well."""

    @property
    def fingerprints(self) -> frozenset[str]:
        """The fingerprints of ``images``, for Incus and for LXD."""
        return frozenset(
            fingerprint
            for image in self.images
            for fingerprint in (image.incus_fingerprint, image.lxd_fingerprint)
            if fingerprint
        )


def find_targets(
    words: Iterable[str], images: list[Image], found: Iterable[Found], root: str
) -> Targets:
    """Return what ``words`` stand for.

    Args:
        words: fingerprints or their first digits, aliases, and paths of versions or products or an
            unambiguous end of one; a product's key is as good as its path.
        images: all published images.
        found: what is in the tree, published or not.
        root: ROOT; a path may start with it.

    Raises:
        UsageError: a word stands for nothing, or for more than one thing.
    """
    paths = {version.path for _, versions in found for version in versions}
    paths |= {image.version for image in images}
    by_product = _group_by_product(paths)
    going: set[str] = set()
    named: list[Image] = []
    for word in words:
        product, versions = _find_in_tree(word, paths, by_product, root)
        # Directories come first: nobody can claim those of others, as they can an alias.
        is_path = bool(versions) and not {"/", ":"}.isdisjoint(word)
        of_image = [] if is_path else find_named(images, word)
        _require_one(word, [product] if product else versions, of_image)
        if of_image and find_by_fingerprint(images, word) not in ([], of_image):
            raise UsageError(
                f"{word!r} is an alias of one image and the start of another's fingerprint; "
                "give the whole fingerprint, or the path of the version"
            )
        going.update(by_product[product] if product else versions)
        named += of_image
    return Targets(frozenset(going), tuple(named))


def find_withdrawn(word: str, known: Withdrawals, root: str) -> list[str]:
    """Return the withdrawn versions that ``word`` stands for: one, or those of one product.

    Args:
        word: the path of a version or product, an unambiguous end of it, or a product's key.
        known: what is withdrawn.
        root: ROOT; a path may start with it.

    Raises:
        UsageError: the word stands for nothing, or for more than one thing.
    """
    by_product = _group_by_product(known)
    product, found = _find_in_tree(word, known, by_product, root)
    if len(found) != 1:
        what = "fits several withdrawn versions" if found else "is not a withdrawn version"
        raise UsageError(f"{word!r} {what}; withdrawn: {', '.join(sorted(known)) or 'none'}")
    return sorted(by_product[product]) if product else found


def _group_by_product(paths: Iterable[str]) -> dict[str, set[str]]:
    by_product: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        by_product[os.path.dirname(path)].add(path)
    return by_product


def _find_in_tree(
    word: str, paths: Collection[str], by_product: Collection[str], root: str
) -> tuple[str, list[str]]:
    """Return the product whose path ``word`` is, with its path; or the versions that it fits.

    If ``word`` fits nothing, it may be a path as a shell completes it, from wherever the operator
    is.
    """
    product, fitting = _find_below_root(word, paths, by_product)
    if fitting:
        return product, fitting
    inside = os.path.abspath(word).removeprefix(os.path.join(root, ""))
    return _find_below_root(inside, paths, by_product)


def _find_below_root(
    word: str, paths: Collection[str], by_product: Collection[str]
) -> tuple[str, list[str]]:
    path = os.path.normpath(word).strip("/")
    if "/" not in path and path.count(":") == PRODUCT_DEPTH - 1:
        path = path.replace(":", "/")
    if is_version_name(os.path.basename(path)):
        return "", _find_ends(path, paths)
    if path.count("/") < PRODUCT_DEPTH - 1:
        return "", []
    products = _find_ends(path, by_product)
    return (products[0] if len(products) == 1 else ""), products


def _find_ends(path: str, paths: Iterable[str]) -> list[str]:
    """Return those of ``paths`` that are ``path`` or end with it, sorted."""
    return sorted(one for one in paths if one == path or one.endswith(f"/{path}"))


def _require_one(word: str, paths: list[str], images: list[Image]) -> None:
    """Raise UsageError unless ``word`` stands for one thing."""
    if not paths and not images:
        raise UsageError(
            f"{word!r}: no published image has this alias, fingerprint or prefix of a "
            f"fingerprint ({MIN_PREFIX_DIGITS} digits or more), and no version or product has "
            "this path"
        )
    is_alias = any(word in image.aliases for image in images)
    places = {(image.version, image.file) for image in images}
    if len(paths) + (1 if is_alias else len(places)) > 1:
        fits = [f"  {path}" for path in paths]
        fits += [f"  {image.fingerprint} {image.version}/{image.file}" for image in images]
        what = "images" if not paths else "versions or products" if not images else "things"
        more = "digits" if not paths else "of the path"
        raise UsageError(f"{word!r} fits several {what}; give more {more}:\n" + "\n".join(fits))


def make_withdrawals(targets: Targets, images: Iterable[Image]) -> Withdrawals:
    """Return what to withdraw so that ``targets`` are no longer published.

    Args:
        targets: what to withdraw.
        images: all published images.
    """
    fingerprints = targets.fingerprints
    going: dict[str, set[str]] = defaultdict(set)
    every: dict[str, set[str]] = defaultdict(set)
    for image in images:
        every[image.version].add(image.file)
        if not fingerprints.isdisjoint((image.incus_fingerprint, image.lxd_fingerprint)):
            going[image.version].add(image.file)
    made = {version: _withdraw(going[version], every[version]) for version in going}
    return made | {version: Withdrawal(is_asked_for=True) for version in targets.versions}


def find_copies(
    mirror: Mirror, found: Iterable[Found], fingerprints: Collection[str]
) -> Withdrawals:
    """Return what to withdraw so that no unpublished copy of an image is published instead.

    Args:
        mirror: the mirror.
        found: what is in the tree.
        fingerprints: those of the image. A version counts as far as its cache is valid; a build
            fills the caches.
    """
    copies: Withdrawals = {}
    if not fingerprints:
        return copies
    for _, versions in found:
        for version in versions:
            every: set[str] = set()
            going: set[str] = set()
            for file, claims in _list_cached_images(mirror, version):
                every.add(file)
                if not claims.isdisjoint(fingerprints):
                    going.add(file)
            if going:
                copies[version.path] = _withdraw(going, every)
    return copies


def _list_cached_images(
    mirror: Mirror, version: FoundVersion
) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the root file and the fingerprints of each image that a version's cache knows."""
    cached = cache.load(mirror, version.path)
    valid = {
        file.name
        for file in version.files
        if cache.accept_item(cached.items.get(file.name), file, cached.mtime_ns) is not None
    }
    # The cache keeps an item under the other client's name as well.
    items = {
        name: item for name, item in cached.items.items() if os.path.basename(item.path) in valid
    }
    for name, _, fingerprints in find_images(items):
        yield os.path.basename(items[name].path), frozenset(filter(None, fingerprints))


def _withdraw(going: set[str], every: set[str]) -> Withdrawal:
    return Withdrawal(files=() if going == every else tuple(sorted(going)), is_asked_for=True)

"""Pure: a product → what the page shows of it, as texts that are safe to show.

All names are strangers'. Templates escape markup; here everything that has no shape of its own is
made visible: control characters, what changes the direction of writing, what is invisible.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from msgspec import Struct

from fastindex.catalogue.images import find_type, list_roots
from fastindex.formats.filters import CONTAINER
from fastindex.formats.names import ARCHITECTURES, find_version_time, is_version_name
from fastindex.formats.simplestreams import Product
from fastindex.hashing.plain import sha256_of

PAGES_DIRECTORY = "streams/page"
"""Where all but ``index.html`` and the feed is, relative to the output directory. No stream, and
nothing of an operator's, can have that name."""
MAX_VERSIONS = 20
"""How many of its newest versions the page shows of a product."""
MAX_IN_FEED = 3
"""How many of its newest versions the feed may have of a product."""
MAX_CHARACTERS = 300
"""How much of a name or a text of a product is shown."""
_MAX_REQUIREMENTS = 16
_MAX_ALIASES = 20
_PLAIN = re.compile(r"[a-z0-9_-][a-z0-9._-]{0,59}", re.ASCII)
_UNSAFE = re.compile(r"[^a-z0-9]+")
_DIGITS = re.compile(r"([0-9]+)")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")


class ShownImage(NamedTuple):
    """An image of a version."""

    type: str
    """``container`` or ``virtual-machine``."""
    size: str
    """What a client downloads."""
    incus: str
    """Its fingerprint for Incus; empty if Incus does not see it."""
    lxd: str
    """Its fingerprint for LXD; empty if LXD does not see it."""


class ShownVersion(NamedTuple):
    """A version of a product."""

    name: str
    """Its name."""
    time: str
    """When it was built, for ``<time datetime>``."""
    day: str
    """The same for people."""
    images: list[ShownImage]
    """Its images."""


class LaunchLine(Struct, frozen=True, gc=False):
    """A line for a shell."""

    client: str
    """``incus`` or ``lxc``."""
    type: str
    """The type of the image."""
    target: str
    """The image, with the remote, for a shell."""
    options: tuple[str, ...]
    """What follows, each with its value."""


class Row(Struct, frozen=True):
    """A product on the first page."""

    name: str
    """Its file name without a suffix; as an anchor, too."""
    href: str
    """Where more about it is, from the first page."""
    os: str
    """The distribution."""
    release: str
    """The release, as people write it."""
    arch: str
    """The architecture."""
    variant: str
    """The variant."""
    word: str
    """What stands for the newest image: an alias, or a fingerprint."""
    target: str
    """The same for a shell, with the remote."""
    options: str
    """What a line to launch it ends with, if there is none but a virtual machine."""
    sizes: list[tuple[str, str]]
    """Type and size of the images of the newest version."""
    time: str
    """When that was built, for ``<time datetime>``."""
    day: str
    """The same for people."""
    fingerprint: str
    """The first digits of that of its first image."""
    eol: str
    """YYYY-MM-DD, or empty."""
    requirements: str
    """What it requires."""
    order: tuple[bool, str, str, str]
    """By what rows are sorted within their release."""
    release_order: list[tuple[int, str]]
    """By what releases are sorted, the newest last."""


class Summary(Struct, frozen=True, gc=False):
    """What the first page and the feed show of a product."""

    row: Row
    """What the first page shows."""
    stream: str
    """Its stream."""
    key: str
    """Its key in the catalogue."""
    versions: list[ShownVersion]
    """Those of its versions that may be in the feed, the newest first."""


class ShownProduct(Struct, frozen=True):
    """All that is shown of a product."""

    row: Row
    """What the first page shows."""
    key: str
    """Its key in the catalogue."""
    stream: str
    """Its stream."""
    codename: str
    """The codename of its release."""
    aliases: list[str]
    """Its aliases; each can have ``/ARCH`` after it."""
    more_aliases: int
    """How many there are more."""
    lines: list[LaunchLine]
    """How to launch its newest image."""
    versions: list[ShownVersion]
    """The newest of its versions, the newest first."""
    older_versions: int
    """How many there are more."""

    @property
    def summary(self) -> Summary:
        """What the first page and the feed show of it."""
        return Summary(self.row, self.stream, self.key, self.versions[:MAX_IN_FEED])


def show(text: str) -> str:
    """Return a stranger's text as it can be shown: cut, and with escapes for what is invisible."""
    if len(text) > MAX_CHARACTERS:
        text = f"{text[:MAX_CHARACTERS]}…"
    return text if text.isprintable() else "".join(map(_show_character, text))


def _show_character(character: str) -> str:
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def show_size(size_bytes: int) -> str:
    """Return a size for people, such as ``98.3 MB``."""
    size = max(0, size_bytes) / 1000
    unit = 0
    while size >= 999.5:
        size /= 1000
        unit += 1
    return f"{size:.0f} {_UNITS[unit]}" if size >= 99.95 else f"{size:.1f} {_UNITS[unit]}"


@lru_cache(maxsize=65536)
def show_time(version: str) -> tuple[str, str]:
    """Return when a version was built by its name, for ``<time datetime>`` and for people."""
    moment = datetime.fromtimestamp(find_version_time(version), UTC)
    day = f"{version[:4]}-{version[4:6]}-{version[6:8]}"
    return (f"{moment:%Y-%m-%dT%H:%M:00Z}" if moment.hour or moment.minute else day), day


def name_page(stream: str, key: str) -> str:
    """Return the name of a product's page, without a suffix: the same for the same product.

    Two products never have the same. The usual names stand for themselves. All others become a
    digest, after some of their letters.
    """
    parts = [stream, *key.split(":")]
    if len(parts) == 5 and all(map(_PLAIN.fullmatch, parts)):
        return "~".join(parts)
    letters = _UNSAFE.sub("-", "-".join(parts)[:200].lower())[:60].strip("-")
    digest = sha256_of([f"{stream}/{key}".encode("utf-8", "surrogatepass")])
    return f"{letters}~{digest[:32]}"


def describe_product(
    stream: str, key: str, product: Product, *, remote: str, has_page: bool
) -> ShownProduct | None:
    """Return what is shown of a product; None if clients see no image of it.

    Args:
        stream: its stream.
        key: its key in the catalogue.
        product: the product.
        remote: what clients call the mirror.
        has_page: whether it has a page of its own, rather than a part of the first.
    """
    if product.arch not in ARCHITECTURES:
        return None
    names = sorted(filter(is_version_name, product.versions), reverse=True)
    versions: list[ShownVersion] = []
    newest: dict[str, tuple[str, str]] = {}
    for name in names:
        images = [
            ShownImage(
                find_type(root),
                show_size(root.size + (metadata.size if metadata is not None else 0)),
                incus,
                lxd,
            )
            for root, metadata, (incus, lxd) in list_roots(product.versions[name].items)
        ]
        if not images:
            continue
        for image in images:
            incus, lxd = newest.get(image.type, ("", ""))
            newest[image.type] = incus or image.incus, lxd or image.lxd
        versions.append(ShownVersion(show(name), *show_time(name), images))
        if len(versions) == MAX_VERSIONS:
            break
    if not versions:
        return None
    alias = _choose_alias(product)
    row = _describe_row(stream, key, product, versions[0], newest, alias, remote, has_page)
    aliases = [one for one in product.aliases.split(",") if one]
    return ShownProduct(
        row=row,
        key=show(key),
        stream=show(stream),
        codename=show(product.release_codename),
        aliases=[show(one) for one in aliases[:_MAX_ALIASES]],
        more_aliases=max(0, len(aliases) - _MAX_ALIASES),
        lines=list(_list_lines(product, newest, alias, remote)),
        versions=versions,
        older_versions=len(names) - len(versions),
    )


def _describe_row(
    stream: str,
    key: str,
    product: Product,
    version: ShownVersion,
    newest: Mapping[str, tuple[str, str]],
    alias: str,
    remote: str,
    has_page: bool,
) -> Row:
    name = name_page(stream, key)
    fingerprint = version.images[0].incus or version.images[0].lxd
    word = alias or fingerprint
    options = () if CONTAINER in newest else _find_machine_options(product.requirements)
    return Row(
        name=name,
        href=f"{PAGES_DIRECTORY}/{name}.html" if has_page else f"#{name}",
        os=show(product.os) or "–",
        release=show(product.release_title or product.release) or "–",
        arch=product.arch,
        variant=show(product.variant),
        word=word,
        target=shlex.quote(f"{remote}:{word}"),
        options=" ".join(options),
        sizes=[(image.type, image.size) for image in _list_firsts(version.images)],
        time=version.time,
        day=version.day,
        fingerprint=fingerprint[:12],
        eol=_read_day(product.support_eol),
        requirements=_describe_requirements(product),
        order=(product.variant != "default", product.variant, product.arch, name),
        release_order=_sort_naturally(product.release),
    )


def _list_firsts(images: Iterable[ShownImage]) -> Iterable[ShownImage]:
    """Return the first image of each type, which is the one that clients take."""
    firsts: dict[str, ShownImage] = {}
    for image in images:
        firsts.setdefault(image.type, image)
    return firsts.values()


def _choose_alias(product: Product) -> str:
    """Return the shortest alias that can be typed and pasted safely; empty if there is none."""
    aliases = [
        alias
        for alias in product.aliases.split(",")
        if alias and alias.isprintable() and alias == alias.strip() and len(alias) < MAX_CHARACTERS
    ]
    return min(aliases, key=lambda alias: (len(alias), alias), default="")


def _list_lines(
    product: Product, newest: Mapping[str, tuple[str, str]], alias: str, remote: str
) -> Iterator[LaunchLine]:
    """Yield the lines for Incus, then those for LXD."""
    for number, client in enumerate(("incus", "lxc")):
        required = product.requirements
        if client == "lxc":
            required = product.lxd_requirements or required
        for type, fingerprints in newest.items():
            if fingerprints[number]:
                target = shlex.quote(f"{remote}:{alias or fingerprints[number]}")
                options = () if type == CONTAINER else _find_machine_options(required)
                yield LaunchLine(client, type, target, options)


def _find_machine_options(requirements: dict[str, str]) -> tuple[str, ...]:
    """Return how to launch a virtual machine; without secure boot if it must be."""
    if requirements.get("secureboot") == "false":
        return "--vm", "-c security.secureboot=false"
    return ("--vm",)


def _describe_requirements(product: Product) -> str:
    required = {**product.lxd_requirements, **product.requirements}
    pairs = [f"{name}={value}" for name, value in sorted(required.items())[:_MAX_REQUIREMENTS]]
    return show(", ".join(pairs)) if pairs else ""


def _read_day(text: str) -> str:
    """Return a day if ``text`` is one, YYYY-MM-DD; else an empty text."""
    if _DATE.fullmatch(text) is None:
        return ""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return ""


@lru_cache(maxsize=4096)
def _sort_naturally(release: str) -> list[tuple[int, str]]:
    """Return a key by which 9 comes before 10."""
    parts = _DIGITS.split(release[:MAX_CHARACTERS].casefold())
    return [
        (len(part.lstrip("0")), part.lstrip("0")) if number % 2 else (0, part)
        for number, part in enumerate(parts)
    ]


def sort_rows(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """Return the rows by distribution, each with the newest release first.

    Args:
        rows: the rows; they are sorted in place.
    """
    rows.sort(key=lambda row: row.order)
    rows.sort(key=lambda row: row.release_order, reverse=True)
    rows.sort(key=lambda row: (row.os.casefold(), row.os))
    return [(os, list(group)) for os, group in groupby(rows, key=lambda row: row.os)]

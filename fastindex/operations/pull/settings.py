"""Pure: what an upstream says of a product → the settings files that make a build say the same.

Only what the names of the directories do not give by themselves is written. The files begin with
a mark, so that a later pull may replace them; a file without it is an operator's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Final

import msgspec
from msgspec import Struct

from fastindex.catalogue.aliases import MAX_ALIAS_CHARACTERS, MAX_ALIASES, MAX_PRODUCT_CHARACTERS
from fastindex.formats.names import ProductName, find_forbidden_character
from fastindex.formats.requirements import MAX_REQUIREMENTS, is_displayable
from fastindex.formats.upstream import UpstreamProduct
from fastindex.operations.pull.mapping import Place

MARK: Final = b"# Written by fastindex pull, which replaces it. Without this line it is yours."
"""The first line of a ``.product.toml`` that a later pull may replace."""
_LXD_PREFIX: Final = b"# Beside it, .lxd_requirements: "
"""Before what the ``.lxd_requirements`` says that was written with it: JSON has no comments."""
_MANY_DOTS: Final = 400
"""A TOML file with more is taken for one that nests too deeply, and ignored."""


class PulledSettings(Struct, frozen=True):
    """The settings files of a product."""

    product_toml: bytes | None
    """The ``.product.toml``; None: nothing is to be said."""
    lxd_requirements: bytes | None
    """The ``.lxd_requirements``; None: nothing is to be said."""
    left_out: tuple[str, ...]
    """What cannot be said, for people."""


def make_settings(product: UpstreamProduct, place: Place) -> PulledSettings:
    """Return the settings files that make the catalogue say what the upstream says.

    Args:
        product: the product.
        place: where it belongs.
    """
    name = place.name
    left_out: list[str] = []
    values: dict[str, str] = {}
    newest = max(product.versions, default="")
    label = product.versions[newest].label if newest else ""
    for key, text, default in (
        ("os", product.os, name.os),
        ("release_title", product.release_title, name.release),
        ("release_codename", product.release_codename, ""),
        ("version", product.version, ""),
        ("label", label, ""),
    ):
        if text and text != default:
            if _is_settable(text):
                values[key] = _encode(text)
            else:
                left_out.append(f"its {key}")
    if product.support_eol:
        if _is_date(product.support_eol):
            values["support_eol"] = product.support_eol
        else:
            left_out.append("its support_eol, which is not a date")
    if product.supported:
        values["supported"] = "true"
    lines = [f"{key} = {value}" for key, value in values.items()]
    lines += _list_alias_lines(product, name, left_out)
    requirements = _choose_requirements(product.requirements, "requirements", left_out)
    if requirements:
        lines += ["", "[requirements]"]
        lines += [f"{_encode(key)} = {_encode(text)}" for key, text in requirements.items()]
    lxd = _choose_requirements(product.lxd_requirements, "lxd_requirements", left_out)
    text = "\n".join(lines)
    lxd_text = msgspec.json.encode(lxd).decode() if lxd else ""
    if text.count(".") + lxd_text.count(".") > _MANY_DOTS:  # all of them are in strings
        text, lxd_text = (one.replace(".", "\\u002e") for one in (text, lxd_text))
    head = [MARK, _LXD_PREFIX + lxd_text.encode()] if lxd_text else [MARK]
    content = b"\n".join([*head, *([text.encode()] if text else []), b""])
    return PulledSettings(
        content if text or lxd_text else None,
        f"{lxd_text}\n".encode() if lxd_text else None,
        tuple(left_out),
    )


def is_pulled(product_toml: bytes) -> bool:
    """Return whether a pull wrote a ``.product.toml``, so that the next one may replace it."""
    return product_toml.split(b"\n", 1)[0] == MARK


def find_pulled_lxd_requirements(product_toml: bytes) -> bytes | None:
    """Return the ``.lxd_requirements`` that was written with a ``.product.toml``; None: none was.

    If the file says anything else now, it is an operator's.
    """
    lines = product_toml.split(b"\n", 2)
    if not is_pulled(product_toml) or len(lines) < 2 or not lines[1].startswith(_LXD_PREFIX):
        return None
    return lines[1].removeprefix(_LXD_PREFIX) + b"\n"


def _encode(text: str) -> str:
    """Return ``text`` as TOML has it: its strings are those of JSON, if all can be displayed."""
    return msgspec.json.encode(text).decode()


def _is_settable(text: str) -> bool:
    """Return whether a ``.product.toml`` may say ``text``."""
    return bool(text) and text == text.strip() and is_displayable(text)


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _list_alias_lines(
    product: UpstreamProduct, name: ProductName, left_out: list[str]
) -> Iterator[str]:
    """Yield what gives a product its aliases; add to ``left_out`` what cannot be said.

    A product whose key names its directories gets exactly the aliases that the upstream says, any
    other has the default ones besides.
    """
    aliases, defaults = product.aliases, tuple(name.default_aliases)
    is_extended = product.key != name.key or aliases[: len(defaults)] == defaults
    wanted = [one for one in aliases if not is_extended or one not in defaults]
    chosen: list[str] = []
    room = MAX_PRODUCT_CHARACTERS - (sum(len(one) + 1 for one in defaults) if is_extended else 0)
    number = MAX_ALIASES - (len(defaults) if is_extended else 0)
    for alias in dict.fromkeys(wanted):
        is_fit = (
            len(alias) <= MAX_ALIAS_CHARACTERS
            and _is_settable(alias)
            and not set("{}") & set(alias)
            and find_forbidden_character(alias) is None
        )
        if is_fit and len(chosen) < number and len(alias) <= room:
            chosen.append(alias)
            room -= len(alias) + 1
        else:
            left_out.append(f"its alias {alias[:MAX_ALIAS_CHARACTERS]!r}")
    if chosen or not is_extended:
        yield f"aliases = [{', '.join(map(_encode, chosen))}]"
    if not is_extended:
        yield "replace_aliases = true"


def _choose_requirements(
    requirements: Mapping[str, str], what: str, left_out: list[str]
) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for key, text in sorted(requirements.items()):
        if is_displayable(key) and is_displayable(text) and len(chosen) < MAX_REQUIREMENTS:
            chosen[key] = text
        else:
            left_out.append(f"{key[:MAX_ALIAS_CHARACTERS]!r} of its {what}")
    return chosen

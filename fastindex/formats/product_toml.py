"""``.product.toml``: names, titles, aliases and requirements, set without touching code.

A key that is wrong is left out with a finding that names its line; the others hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import msgspec

from fastindex.events import Finding
from fastindex.formats.names import unfit_character
from fastindex.formats.requirements import (
    MOST_CHARACTERS,
    Scalar,
    checked_requirements,
    is_fit_text,
)
from fastindex.formats.settings import Settings

_PLACEHOLDERS = ("{os}", "{release}", "{variant}", "{arch}")
_MOST_ALIASES = 100
_MOST_PLACEHOLDERS = 8
"""In one alias: each may stand for 255 bytes."""
_MOST_KEYS = 64
_MOST_DOTS = 100
"""Before the ``=`` of a line: Python's reader takes a minute for a key ``a.a.a…`` of 64 KiB."""
_EXAMPLE = 'write TOML, for instance: release_title = "12 (bookworm)"'


def parse_product_toml(path: str, content: bytes) -> tuple[Settings, list[Finding]]:
    """Read a ``.product.toml``.

    Args:
        path: of the file, for the findings.
        content: its bytes.

    Returns:
        What it sets, nothing where it cannot be used, and what is wrong with it.
    """
    import tomllib  # 10 ms that only such a file is worth

    try:
        text = content.decode()
        if _is_deep(text):
            raise ValueError("keys that nest too deep")
        table = tomllib.loads(text)
        if len(table) > _MOST_KEYS:
            raise ValueError(f"more than {_MOST_KEYS} keys")
    # ValueError: no TOML, no UTF-8, or a number of 5,000 digits.
    except (ValueError, RecursionError) as error:
        problem = f"cannot be used ({error}); images are published without it"
        return Settings(), [Finding(path, problem, _EXAMPLE)]
    values: dict[str, Any] = {}
    findings: list[Finding] = []
    for key, value in table.items():
        where = f"{path}:{_line_of(key, text)}"
        read = _READERS.get(key)
        if read is None:
            problem = f"unknown key {key[:MOST_CHARACTERS]!r}, left out"
            findings.append(Finding(where, problem, f"use one of {', '.join(_READERS)}"))
            continue
        try:
            values[key] = read(value)
        except ValueError as error:
            findings.append(Finding(where, f"{key!r} {error}, left out", "mend it"))
    if "requirements" in values:
        values["requirements"], wrong = checked_requirements(
            path, values["requirements"], is_for_lxd=False
        )
        findings += wrong
    return Settings(**values), findings


def _is_deep(text: str) -> bool:
    """Return whether a key is made of so many parts that reading it would take long."""
    return any(line.partition("=")[0].count(".") > _MOST_DOTS for line in text.splitlines())


def _line_of(key: str, text: str) -> int:
    """Return the number of the line that sets ``key``: TOML's reader does not tell."""
    match = re.search(rf"""^[ \t]*\[*[ \t]*["']?{re.escape(key)}\b""", text, re.MULTILINE)
    return text.count("\n", 0, match.start()) + 1 if match else 1


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is no string in quotes")
    if not value or value != value.strip() or not value.isprintable():
        raise ValueError("is empty, has blanks around it or holds control characters")
    if not is_fit_text(value):
        raise ValueError(f"is longer than {MOST_CHARACTERS} characters")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")
    return value


def _day(value: object) -> str:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            pass
    raise ValueError("is no date as 2028-06-30")


def _aliases(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("is no list of strings")
    if len(value) > _MOST_ALIASES:
        raise ValueError(f"has more than {_MOST_ALIASES} names")
    return tuple(_alias(alias) for alias in value)


def _alias(value: object) -> str:
    alias = _text(value)
    if alias.count("{") > _MOST_PLACEHOLDERS:
        raise ValueError(f"has an alias with more than {_MOST_PLACEHOLDERS} placeholders")
    bare = alias
    for placeholder in _PLACEHOLDERS:
        bare = bare.replace(placeholder, "")
    if "{" in bare or "}" in bare:
        raise ValueError(f"has braces other than {', '.join(_PLACEHOLDERS)}")
    unfit = unfit_character(alias)
    if unfit is not None:
        raise ValueError(f"has the character {unfit!r}, which can stand in no alias")
    return alias


def _scalars(value: object) -> dict[str, Scalar]:
    try:
        return msgspec.convert(value, dict[str, Scalar])
    except msgspec.ValidationError as error:
        raise ValueError("is no table of strings") from error


_READERS: dict[str, Callable[[object], object]] = {
    "os": _text,
    "release_title": _text,
    "release_codename": _text,
    "version": _text,
    "support_eol": _day,
    "supported": _flag,
    "label": _text,
    "aliases": _aliases,
    "replace_aliases": _flag,
    "requirements": _scalars,
}

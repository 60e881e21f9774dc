"""``.product.toml``: the operator's names, titles, aliases and requirements of products.

Format: TOML 1.0; the keys are those of ``_READERS`` (docs/reference/settings.md). A key that is
wrong is ignored, with a finding that names its line; the others count.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime
from functools import lru_cache
from typing import Any

import msgspec

from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.names import find_forbidden_character
from fastindex.formats.quantities import parse_duration
from fastindex.formats.requirements import (
    MAX_CHARACTERS,
    Scalar,
    check_requirements,
    is_displayable,
)
from fastindex.formats.settings import Settings

_PLACEHOLDERS = ("{os}", "{release}", "{variant}", "{arch}")
_MAX_ALIASES = 100
_MAX_PLACEHOLDERS = 8
"""In one alias. Each can become 255 bytes."""
_MAX_KEYS = 64
_MAX_DOTS = 500
"""In the file. For a key of so many parts tomllib takes 10 ms; for one of 64 KiB, a minute."""
_MAX_TABLE_DOTS = 16
"""In the name of a table, whose parts tomllib goes through for each key in it."""
_EXAMPLE = 'write TOML, such as release_title = "12 (bookworm)"'


def parse_product_toml(path: str, content: bytes) -> tuple[Settings, list[Finding]]:
    """Read a ``.product.toml``.

    Args:
        path: the file, as findings name it.
        content: its bytes; the caller bounds their number.

    Returns:
        Its settings, which are empty if the file cannot be used, and what is wrong with it.
    """
    table = _load_table(content)
    if isinstance(table, str):
        problem = f"cannot be used ({table}); images are published without it"
        return Settings(), [Finding(Code.BAD_SETTINGS, path, problem, _EXAMPLE)]
    text = content.decode()
    values: dict[str, Any] = {}
    findings: list[Finding] = []
    for key, value in table.items():
        where = f"{path}:{_find_line(key, text)}"
        read = _READERS.get(key)
        if read is None:
            problem = f"unknown key {key[:MAX_CHARACTERS]!r}, ignored"
            findings.append(
                Finding(Code.BAD_SETTINGS, where, problem, f"use one of {', '.join(_READERS)}")
            )
            continue
        try:
            values[key] = read(value)
        except ValueError as error:
            findings.append(
                Finding(
                    Code.BAD_SETTINGS,
                    where,
                    f"{key!r} {error}; the key is ignored",
                    "correct or remove it",
                )
            )
    if "requirements" in values:
        values["requirements"], wrong = check_requirements(
            path, values["requirements"], is_for_lxd=False
        )
        findings += wrong
    if "max_age" in values:
        values["max_age_seconds"] = values.pop("max_age")
    return Settings(**values), findings


@lru_cache(maxsize=64)
def _load_table(content: bytes) -> dict[str, Any] | str:
    """Return what the file says, or what is wrong with it.

    Cached: a stranger can link one that takes long to parse into thousands of directories.
    """
    import tomllib  # takes 10 ms, which only such a file is worth

    try:
        text = content.decode()
        if _is_deep(text):
            return "keys nest too deeply"
        table = tomllib.loads(text)
    # ValueError: not TOML, not UTF-8, or a number of more digits than int() accepts.
    except (ValueError, RecursionError) as error:
        return str(error)
    return f"more than {_MAX_KEYS} keys" if len(table) > _MAX_KEYS else table


def _is_deep(text: str) -> bool:
    """Return whether a key could have so many parts that tomllib would take long to read it.

    Dots separate the parts of a key. Which dots are in a key, and which in a value, only a TOML
    parser can tell, so all count.
    """
    return text.count(".") > _MAX_DOTS or any(
        line.count(".") > _MAX_TABLE_DOTS for line in text.split("\n") if line.lstrip()[:1] == "["
    )


def _find_line(key: str, text: str) -> int:
    """Return the number of the line that sets ``key``, or 1 if it is not found."""
    match = re.search(rf"""^[ \t]*\[*[ \t]*["']?{re.escape(key)}\b""", text, re.MULTILINE)
    return text.count("\n", 0, match.start()) + 1 if match else 1


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string in quotes")
    if not value:
        raise ValueError("must not be empty")
    if value != value.strip():
        raise ValueError("must not start or end with white space")
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    if not is_displayable(value):
        raise ValueError(f"must not be longer than {MAX_CHARACTERS} characters")
    return value


def _read_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _read_date(value: object) -> str:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            pass
    raise ValueError("must be a date such as 2028-06-30")


def _read_duration(value: object) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError('must be a time such as "14d" or "36h"')


def _read_aliases(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("must be a list of strings")
    if len(value) > _MAX_ALIASES:
        raise ValueError(f"must not have more than {_MAX_ALIASES} names")
    return tuple(_read_alias(alias) for alias in value)


def _read_alias(value: object) -> str:
    alias = _read_text(value)
    if alias.count("{") > _MAX_PLACEHOLDERS:
        raise ValueError(f"must not have more than {_MAX_PLACEHOLDERS} placeholders in one alias")
    bare = alias
    for placeholder in _PLACEHOLDERS:
        bare = bare.replace(placeholder, "")
    if "{" in bare or "}" in bare:
        raise ValueError(f"must not contain braces other than {', '.join(_PLACEHOLDERS)}")
    forbidden = find_forbidden_character(alias)
    if forbidden is not None:
        raise ValueError(f"must not contain the character {forbidden!r}")
    return alias


def _read_scalars(value: object) -> dict[str, Scalar]:
    try:
        return msgspec.convert(value, dict[str, Scalar])
    except msgspec.ValidationError as error:
        raise ValueError("must be a table of strings") from error


_READERS: dict[str, Callable[[object], object]] = {
    "os": _read_text,
    "release_title": _read_text,
    "release_codename": _read_text,
    "version": _read_text,
    "support_eol": _read_date,
    "supported": _read_flag,
    "label": _read_text,
    "max_age": _read_duration,
    "aliases": _read_aliases,
    "replace_aliases": _read_flag,
    "requirements": _read_scalars,
}

"""TOML files of the operator, with the line of each key.

tomllib tells no lines. They are found without a second parser: each statement of a TOML file is a
TOML file of its own, and nothing shorter that starts where it starts is one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fastindex.formats.errors import FormatError

_MAX_LINES_OF_VALUE = 500
_MAX_QUOTED = 80

Path = tuple[str | int, ...]
"""Where a value stands: the names of tables and keys, and the numbers of tables in an array."""


class Key(NamedTuple):
    """A key of a table."""

    field: str
    """The field that its value becomes."""
    read: Callable[[object], object]
    """Checks and converts the value; raises ValueError, whose message follows the key."""
    is_shared: bool = True
    """Whether ``[defaults]`` may set it for all mirrors."""


def parse_located(
    path: str, content: bytes, error_class: type[FormatError]
) -> tuple[dict[str, Any], dict[Path, int]]:
    """Return what a TOML file says, and the line where each key and each table starts.

    Args:
        path: the file, as messages name it.
        content: its bytes; the caller bounds them.
        error_class: the error to raise.

    Raises:
        FormatError: of that class; the file is not TOML; the message says where.
    """
    try:
        text = content.decode()
        return tomllib.loads(text), find_lines(text)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise error_class(f"{path}:{line}: must be UTF-8; save it so") from error
    except tomllib.TOMLDecodeError as error:
        reason = re.sub(r" \(at .*\)$", "", str(error))
        raise error_class(
            f"{path}:{_find_error(str(error), content)}: not TOML: {shorten(reason)}; correct it"
        ) from error
    except (ValueError, RecursionError) as error:  # such as a number of 5,000 digits
        raise error_class(f"{path}:1: cannot be read: {shorten(str(error))}") from error


def find_nearest(word: str, known: Iterator[str] | list[str]) -> str:
    """Return a hint, for the end of a message, at the known name that is nearest to ``word``."""
    import difflib  # takes 3 ms

    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def _find_error(message: str, content: bytes) -> int:
    match = re.search(r"\(at line (\d+), column \d+\)$", message)
    return int(match[1]) if match else len(content.rstrip().split(b"\n"))


def shorten(text: str) -> str:
    """Return a text as messages quote it: its beginning, if it is long."""
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…"


def quote(text: object) -> str:
    """Return a text in quotes; escaped, if it has what a terminal would interpret."""
    shown = repr(text)
    return f'"{text}"' if isinstance(text, str) and text.isprintable() else shorten(shown)


def show(value: object) -> str:
    """Return a value as TOML has it, or nearly so."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str):
        return shorten(quote(value))
    return shorten(str(value))


def find_lines(text: str) -> dict[Path, int]:
    """Return the line where each key and each table of a TOML file starts.

    Args:
        text: what tomllib accepts.

    Raises:
        ValueError: a value has too many lines.
    """
    lines: dict[Path, int] = {}
    arrays: dict[Path, int] = {}  # array of tables → the number of its last one
    above: Path = ()
    for line, statement, table in _split_statements(text):
        if not statement.lstrip(" \t").startswith("["):
            for path in _list_paths(table):
                lines.setdefault(above + path, line)
            continue
        above = ()
        *names, last = _list_names(table)
        for name in names:
            above += (name,)
            above += (arrays[above],) if above in arrays else ()
            lines.setdefault(above, line)
        above += (last,)
        if statement.lstrip(" \t").startswith("[["):
            lines.setdefault(above, line)
            arrays[above] = arrays.get(above, -1) + 1
            above += (arrays[above],)
        lines.setdefault(above, line)
    return lines


def _split_statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield the line, the text and the value of each statement that has one.

    A statement ends with its line; only an array, a string or an inline table that is still open
    goes on. Cut off before its end, it is not TOML.
    """
    statement, first = "", 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not statement:
            first = number
        statement += f"{line}\n"
        if number != first and not any(end in line for end in ("]", "}", '"""', "'''")):
            continue
        if number - first >= _MAX_LINES_OF_VALUE:
            raise ValueError(f"line {first} has a value of more than {_MAX_LINES_OF_VALUE} lines")
        try:
            table = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        if table:
            yield first, statement, table
        statement = ""


def _list_names(table: dict[str, Any]) -> list[str]:
    """Return the names in the header of a table, from what it makes."""
    names: list[str] = []
    inner: object = table
    while isinstance(inner, dict) and inner:
        ((name, inner),) = inner.items()
        names.append(name)
    return names


def _list_paths(value: object, depth: int = 6) -> Iterator[Path]:
    """Yield the path of each key in a value, no deeper than any key that has a meaning."""
    inner: Iterator[tuple[str | int, object]] = iter(())
    if isinstance(value, dict):
        inner = iter(value.items())
    elif isinstance(value, list):
        inner = enumerate(value)
    for name, part in inner if depth else ():
        yield (name,)
        for path in _list_paths(part, depth - 1):
            yield (name, *path)


def read_text(value: object) -> str:
    """Return ``value`` if it is a text of one line.

    Raises:
        ValueError: it is not; the message says what it must be.
    """
    if not isinstance(value, str):
        raise ValueError(f"must be a string in quotes, not {show(value)}")
    if not value:
        raise ValueError("must not be empty; leave it out")
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    return value

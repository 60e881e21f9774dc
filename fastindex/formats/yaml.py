"""YAML that strangers wrote, every scalar as the string that stands there.

``3.20`` stays ``3.20``, ``no`` stays ``no``, and ``20240101_01:02`` is no number to the
base of 60. Tags make nothing. Aliases are refused (a few lines of them can stand for
gigabytes), and so is what nests deeper or goes on longer than an image's files do.
"""

from __future__ import annotations

from typing import TypeAlias

YamlValue: TypeAlias = "str | list[YamlValue] | dict[str, YamlValue] | None"

_MOST_DEPTH = 64
_MOST_EVENTS = 200_000
"""About one a scalar, and half a second of work; the definition of a distribution has 2,000."""


def load_strings(content: bytes) -> YamlValue:
    """Return the first document of ``content``; None where there is none.

    Args:
        content: YAML in UTF-8 or UTF-16, with or without a byte order mark; the caller
            bounds its length.

    Raises:
        ValueError: no YAML, or with aliases, or too deep, or too long.
    """
    import yaml  # 15 ms that only such a file is worth

    # Slower, but no other, where PyYAML was built without libyaml.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        depth = 0
        for number, event in enumerate(yaml.parse(content, Loader=loader)):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"a YAML alias (*{event.anchor})")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.DocumentEndEvent):
                break
            if depth > _MOST_DEPTH or number > _MOST_EVENTS:
                raise ValueError("YAML that nests too deep or goes on too long")
        value: YamlValue = loader(content).get_data()
    except (yaml.YAMLError, UnicodeError) as error:
        raise ValueError(f"no YAML: {_without_quotation(error)}") from error
    return value


def _without_quotation(error: Exception) -> str:
    """Return what is wrong, and where, without the lines that stand there."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"{getattr(error, 'problem', '')} (line {mark.line + 1}, column {mark.column + 1})"

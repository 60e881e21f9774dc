"""YAML from strangers, with every scalar kept as the string that was written.

``3.20`` stays ``3.20``, ``no`` stays ``no``, and ``20240101_01:02`` does not become a base-60
number. Tags have no effect. Aliases are refused, because a few lines of them can expand to
gigabytes. Nesting and length are bounded.

Format: YAML 1.1, as PyYAML and libyaml parse it.
"""

from __future__ import annotations

from typing import TypeAlias

from fastindex.formats.errors import FormatError

YamlValue: TypeAlias = "str | list[YamlValue] | dict[str, YamlValue] | None"

_MAX_DEPTH = 64
_MAX_EVENTS = 200_000
"""About one event per scalar; parsing this many takes half a second. The definition of a
distribution has 2,000."""


class YamlError(FormatError):
    """Bytes that are not YAML, or YAML with aliases, or too deep, or too long."""


def load_strings(content: bytes) -> YamlValue:
    """Return the first document of ``content``, or None if there is none.

    Args:
        content: YAML in UTF-8 or UTF-16, with or without a byte order mark. The caller
            bounds its length.

    Raises:
        YamlError: ``content`` is not YAML, contains an alias, or nests too deeply or goes on
            for too long.
    """
    import yaml  # takes 15 ms, which only such a file is worth

    # BaseLoader gives the same values, slower, where PyYAML was built without libyaml.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        depth = 0
        for number, event in enumerate(yaml.parse(content, Loader=loader)):
            if isinstance(event, yaml.AliasEvent):
                raise YamlError(f"contains a YAML alias (*{event.anchor})")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.DocumentEndEvent):
                break
            if depth > _MAX_DEPTH or number > _MAX_EVENTS:
                raise YamlError("YAML that nests too deeply or is too long")
        value: YamlValue = loader(content).get_data()
    # PyYAML lets chr()'s errors through, for "\UFFFFFFFF" where it was built without libyaml.
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise YamlError(f"not valid YAML: {_describe_error(error)}") from error
    return value


def _describe_error(error: Exception) -> str:
    """Return what is wrong and where, without quoting the file."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"{getattr(error, 'problem', '')} (line {mark.line + 1}, column {mark.column + 1})"

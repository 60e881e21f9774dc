"""``fastindex config [NAME]``: what the configuration says, and where each value comes from."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from fastindex.cli.common import (
    Parser,
    add_config,
    add_verbosity,
    list_exit_codes,
    make_console,
    make_empty_parser,
    run_reported,
)
from fastindex.cli.configuration import find_variables, list_places, load_configuration
from fastindex.cli.output import print_json, print_text
from fastindex.cli.words import suggest
from fastindex.errors import ExitCode, UsageError

if TYPE_CHECKING:
    import argparse

    from fastindex.formats.configuration import (
        Configuration,
        MirrorConfiguration,
        PullSource,
    )
    from fastindex.formats.located_toml import Key

_EPILOG = """\
examples:
  fastindex config                     all mirrors
  fastindex config main                one mirror
  fastindex config --json | jq '.mirrors.main.jobs'
  fastindex config -q --config new.toml && echo it can be used

"""
_DEFAULT = "default"


class _Setting(NamedTuple):
    """A key, with what holds for it."""

    key: str
    value: object
    """What TOML has for it; None: it is not set, and nothing holds."""
    origin: str
    """Where the value comes from."""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex config",
        "Print the configuration that is in force, as TOML, with the file and the line that each\n"
        "value comes from. What the command line of another command says wins over it.",
        _EPILOG
        + list_exit_codes(
            {
                ExitCode.DONE: "done: the configuration can be used, or there is none",
                ExitCode.USAGE: "wrong usage, or a configuration that cannot be used",
            },
            is_interruptible=False,
        ),
    )
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="the mirror to print (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    add_config(parser)
    add_verbosity(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    arguments = make_parser().parse_args(argv)
    console = make_console(arguments)
    return run_reported(console, lambda: _show(arguments))


def _show(arguments: argparse.Namespace) -> int:
    configuration = load_configuration(arguments.config)
    if configuration is None:
        if arguments.name is not None:
            raise UsageError(f"there is no mirror {arguments.name!r}, as there is no configuration")
        if arguments.json:
            print_json({"file": None, "mirrors": {}})
        elif not arguments.quiet:
            print_text(f"# no configuration; looked for {', '.join(list_places())}")
        return ExitCode.DONE
    mirrors = configuration.mirrors
    if arguments.name is not None:
        if arguments.name not in mirrors:
            hint = suggest(arguments.name, mirrors)
            raise UsageError(f"{configuration.path}: has no mirror {arguments.name!r}{hint}")
        mirrors = {arguments.name: mirrors[arguments.name]}
    if arguments.json:
        print_json({"file": configuration.path, "mirrors": _describe(configuration, mirrors)})
    elif not arguments.quiet:
        print_text("\n".join(_format(configuration, mirrors)))
    return ExitCode.DONE


def _list_settings(
    path: str, table: MirrorConfiguration | PullSource, keys: Mapping[str, Key]
) -> list[_Setting]:
    settings = []
    variables = find_variables()
    for key, known in keys.items():
        value = _to_toml(key, known.field, getattr(table, known.field))
        origin = f"{path}:{table.lines[key]}" if key in table.lines else _DEFAULT
        if key in variables:
            value, origin = os.environ[variables[key]], variables[key]
        settings.append(_Setting(key, value, origin))
    return settings


def _to_toml(key: str, field: str, value: Any) -> object:
    """Return the value of a field as the file could have it; None: as if the key were not there."""
    from fastindex.formats.quantities import format_duration

    if field.endswith("_seconds"):
        return None if math.isinf(value) and key != "wait" else format_duration(value)
    if field == "bytes_per_second":
        return round(value) or None
    if isinstance(value, tuple):
        return list(value) or None
    return None if value == "" else value


def _list_source_settings(
    path: str, mirror: MirrorConfiguration, source: PullSource
) -> list[_Setting]:
    from fastindex.formats.configuration import PULL_KEYS

    inherited = f"{path}:{mirror.lines['filters']}" if "filters" in mirror.lines else _DEFAULT
    return [
        setting._replace(origin=inherited)
        if setting.key == "filters" and setting.key not in source.lines
        else setting
        for setting in _list_settings(path, source, PULL_KEYS)
    ]


def _format(
    configuration: Configuration, mirrors: Mapping[str, MirrorConfiguration]
) -> Iterator[str]:
    """Yield the lines of a TOML file that says the same."""
    from fastindex.formats.configuration import MIRROR_KEYS

    path = configuration.path
    yield f"# {path}"
    for name, mirror in mirrors.items():
        yield f"\n[mirror.{name}]"
        yield from _format_settings(_list_settings(path, mirror, MIRROR_KEYS))
        for source in mirror.pull:
            yield f"\n[[mirror.{name}.pull]]"
            yield from _format_settings(_list_source_settings(path, mirror, source))


def _format_settings(settings: Sequence[_Setting]) -> Iterator[str]:
    for key, value, origin in settings:
        if value is not None:
            yield f"{key} = {msgspec.json.encode(value).decode()}   # {origin}"
    if unset := [key for key, value, _ in settings if value is None]:
        yield f"# not set: {', '.join(unset)}"


def _describe(
    configuration: Configuration, mirrors: Mapping[str, MirrorConfiguration]
) -> dict[str, object]:
    """Return the mirrors for JSON: each key with its value and where that comes from."""
    from fastindex.formats.configuration import MIRROR_KEYS

    def describe(settings: Sequence[_Setting]) -> dict[str, object]:
        return {key: {"value": value, "from": origin} for key, value, origin in settings}

    path = configuration.path
    return {
        name: {
            **describe(_list_settings(path, mirror, MIRROR_KEYS)),
            "pull": [
                describe(_list_source_settings(path, mirror, source)) for source in mirror.pull
            ],
        }
        for name, mirror in mirrors.items()
    }

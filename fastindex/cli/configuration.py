"""Which configuration is in force, and how its values reach the command line's parser.

The command line wins over the environment, that over the file, and the file over the defaults.
"""

from __future__ import annotations

import argparse
import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastindex.cli.words import suggest
from fastindex.errors import FastindexError, UsageError, translate_system_errors

if TYPE_CHECKING:
    from fastindex.cli.common import Parser
    from fastindex.formats.configuration import Configuration, MirrorConfiguration, PullSource

VARIABLE = "FASTINDEX_CONFIG"
"""The environment variable that names the file if ``--config`` does not."""
NO_FILE = "none"
"""What stands for no file at all, in ``--config`` and in the variable."""
SYSTEM_FILE = "/etc/fastindex.toml"
_FILE_IN_HOME = "fastindex/config.toml"

Read = Callable[[Sequence[str]], argparse.Namespace]
"""Parses a command line; a parser's own method, or what a command has instead."""


@translate_system_errors()
def load_configuration(option: str | None) -> Configuration | None:
    """Return what the configuration that is in force says; None: there is none.

    Args:
        option: the value of ``--config``.

    Raises:
        ConfigurationError: it cannot be read or used, or others may write it.
        UsageError: it cannot have its name.
        ResourceError: it cannot be told whether there is one.
    """
    path = _find_file(option)
    return None if path is None else _load_file(path)


def list_places() -> list[str]:
    """Return the files that are looked for without ``--config`` and the variable, best first."""
    above = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(above):  # the XDG specification says to ignore it then
        above = os.path.join(os.environ.get("HOME", ""), ".config")
    own = [os.path.join(above, _FILE_IN_HOME)] if os.path.isabs(above) else []
    return [*own, SYSTEM_FILE]


def _find_file(option: str | None) -> str | None:
    """Return the absolute path of the file that is in force; None: there is none."""
    chosen = option or os.environ.get(VARIABLE)
    if chosen == NO_FILE:
        return None
    if not chosen:
        return next(filter(_exists, list_places()), None)
    if not option and not os.path.isabs(chosen):
        raise UsageError(f"{VARIABLE}: must be an absolute path or {NO_FILE}, not {chosen!r}")
    from fastindex.mirror.mirror import make_absolute

    return make_absolute(chosen)


def _exists(path: str) -> bool:
    """Return whether there is a file at ``path``, be it one that cannot be used."""
    try:
        os.lstat(path)
    except OSError as error:
        # EACCES: a home that this user may not enter is that of another user.
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            return False
        raise
    return True


def _load_file(path: str) -> Configuration:
    from fastindex.formats.configuration import (
        MAX_BYTES,
        ConfigurationError,
        parse_configuration,
    )
    from fastindex.formats.simplestreams import INDEX_PATH
    from fastindex.system.directories import bounds_of
    from fastindex.system.trust import UntrustedError, read_trusted_file

    try:
        real, content = read_trusted_file(path, MAX_BYTES)
    except UntrustedError as error:
        raise ConfigurationError(
            f"{path}: not used, as others may change it: {error.filename}: {error.strerror}; "
            "give it to root or to this user, and take write permission from all others"
        ) from error
    except OSError as error:
        where = "" if error.filename in (None, path) else f"{error.filename}: "
        raise ConfigurationError(
            f"{path}: cannot be read: {where}{error.strerror}; mend that, or use --config "
            f"with another file or with {NO_FILE}"
        ) from error
    for above in _list_above(real):
        if os.path.lexists(f"{above}/{INDEX_PATH}"):
            raise ConfigurationError(_explain_inside(path, above or "/"))
    configuration = parse_configuration(path, content)
    for mirror in configuration.mirrors.values():
        output = mirror.output or mirror.root
        if real.startswith(bounds_of(mirror.root, *mirror.streams) + bounds_of(output)):
            raise ConfigurationError(_explain_inside(path, mirror.root))
    _refuse_collisions(configuration)
    return configuration


def _refuse_collisions(configuration: Configuration) -> None:
    """Check that no run writes where another one, or the catalogue or an image, is.

    Names alone are compared where the file is parsed; here symlinks are followed.

    Raises:
        ConfigurationError: one does.
    """
    from fastindex.formats.configuration import ConfigurationError
    from fastindex.formats.simplestreams import STREAMS_DIRECTORY
    from fastindex.system.directories import real_path

    mirrors = configuration.mirrors.values()
    taken = [
        f"{real_path(f'{top}/{name}')}/"
        for mirror in mirrors
        for top, names in (
            (mirror.output or mirror.root, (STREAMS_DIRECTORY,)),
            (mirror.root, mirror.streams),
        )
        for name in names
    ]
    used: dict[tuple[str, str], str] = {}
    for mirror in mirrors:
        for key, value in (
            ("output", mirror.output or mirror.root),
            ("report", mirror.report),
            ("metrics", mirror.metrics),
        ):
            real = real_path(value) if value else ""
            where = f"{configuration.path}:{mirror.lines.get(key, mirror.line)}"
            if key != "output" and f"{real}/".startswith(tuple(taken)):
                raise ConfigurationError(
                    f'{where}: "{key}" must not lie among the images or in {STREAMS_DIRECTORY}/: '
                    f"{value}"
                )
            kind = "output" if key == "output" else "file"
            other = used.setdefault((kind, real), f"{key} of {mirror.name}") if value else ""
            if other and other != f"{key} of {mirror.name}":
                raise ConfigurationError(f'{where}: "{key}" must not be the {other}, too: {value}')


def _explain_inside(path: str, root: str) -> str:
    return (
        f"{path}: not used, as it lies in the mirror {root}, where uploaders write; move it, such "
        f"as to {SYSTEM_FILE}"
    )


def _list_above(path: str) -> Iterator[str]:
    """Yield the directories above an absolute path, without final slashes; the nearest first."""
    while path:
        path = path.rpartition("/")[0]
        yield path


@contextmanager
def reported() -> Iterator[None]:
    """Print an error of the context, and raise SystemExit."""
    try:
        yield
    except FastindexError as error:
        from fastindex.cli.output import Console

        Console(0).fail(str(error))
        raise SystemExit(error.exit_code) from error


def read_arguments(
    parser: Parser, argv: Sequence[str], *, read: Read | None = None
) -> argparse.Namespace:
    """Parse a command line whose ROOT may be a mirror of the configuration.

    Args:
        parser: the command's parser.
        argv: the command line.
        read: parses it; None: ``parser.parse_args``.

    Returns:
        The arguments, as ``apply`` returns them.

    Raises:
        SystemExit: after ``--help``, and on wrong usage or with a wrong configuration.
    """
    read = read or parser.parse_args
    arguments = read(argv)
    with reported():
        configuration = load_configuration(arguments.config)
        return apply(configuration, arguments.root, arguments, parser, argv, read=read)


def apply(
    configuration: Configuration | None,
    root: str,
    arguments: argparse.Namespace,
    parser: Parser,
    argv: Sequence[str],
    *,
    read: Read,
) -> argparse.Namespace:
    """Return ``arguments`` with what the configuration says of ROOT.

    Args:
        configuration: what the file says; None: there is none.
        root: what is given for ROOT: a name or a path.
        arguments: the command line, parsed without a configuration.
        parser: the command's parser. Its defaults become those of the mirror.
        argv: the command line.
        read: parses it.

    Returns:
        The arguments; ``root`` is a path, and ``configured`` the mirror of the configuration, or
        None. What the command line does not say is as that says.

    Raises:
        UsageError: ``root`` stands for several mirrors, or for nothing.
    """
    mirror = None
    if configuration is not None:
        mirror = choose_mirror(configuration, root, vars(arguments).get("output"))
    if mirror is not None:
        arguments = fill_in(parser, argv, find_values(mirror, parser.command), read=read)
        root = mirror.root
    arguments.root, arguments.configured = root, mirror
    return arguments


def require_mirrors(configuration: Configuration | None) -> dict[str, MirrorConfiguration]:
    """Return the mirrors of a configuration, one at least.

    Raises:
        UsageError: there is none.
    """
    if configuration is None:
        raise UsageError(f"there is no configuration; write one, such as {SYSTEM_FILE}")
    if not configuration.mirrors:
        raise UsageError(f"{configuration.path}: has no mirror; add a table [mirror.NAME]")
    return configuration.mirrors


def choose_mirror(
    configuration: Configuration, word: str, output: str | None
) -> MirrorConfiguration | None:
    """Return the mirror that ROOT stands for; None: a directory that is not configured.

    A path stands for the mirror that has it for its root: a mirror's streams and places are the
    same however it is named. With another output it is another mirror.

    Args:
        configuration: what the file says.
        word: what is given for ROOT: a name or a path.
        output: the value of ``--output``.

    Raises:
        UsageError: it stands for several, or for nothing.
    """
    mirrors = configuration.mirrors
    if word in mirrors:
        if os.path.isdir(word):
            raise UsageError(
                f"{word!r} is a mirror in {configuration.path} and a directory here; write "
                f"./{word} for the directory, {mirrors[word].root} for the mirror"
            )
        return mirrors[word]
    if os.sep not in word and word and not os.path.lexists(word):
        raise UsageError(
            f"{word!r} is neither a mirror in {configuration.path} nor a directory here"
            + suggest(word, mirrors)
        )
    from fastindex.mirror.mirror import make_absolute
    from fastindex.system.directories import real_path

    root = real_path(make_absolute(word))
    found = [mirror for mirror in mirrors.values() if real_path(mirror.root) == root]
    if output is not None:
        place = real_path(make_absolute(output))
        found = [mirror for mirror in found if real_path(mirror.output or mirror.root) == place]
    if len(found) > 1:
        raise UsageError(
            f"{word} is the root of several mirrors in {configuration.path}; write "
            f"{' or '.join(mirror.name for mirror in found)}"
        )
    return found[0] if found else None


_SAME = (
    *("output", "cache_dir", "allow_links", "jobs", "engine", "scanners", "settle", "recheck"),
    "cluster",
    *("wait", "grace", "keep_days", "max_age", "metrics", "max_ratio"),
    *("gzip", "zstd", "lists", "sign", "page", "page_settings"),
)
"""Keys that mean what the option of the same name means, in all commands that have it."""
_OTHERS = {
    "deltas": {"streams": "stream", "deltas": "per_root", "machine_deltas": "vm"},
    "prune": {"streams": "stream", "keep": "keep"},
    "pull": {"filters": "filter"},
    "push": {"push_endpoint": "endpoint", "push_allow_http": "allow_http"},
}
"""Command → those of its options that mean what a key of another name, or of this one but not in
all commands, means."""
_SOURCE_OPTIONS = {"filters": "filter", "mirrors": "mirror"}


def find_variables() -> dict[str, str]:
    """Return key → the variable in the environment that is set and wins over it."""
    from fastindex.cli.common import CLUSTER_VARIABLE
    from fastindex.hashing.engine import VARIABLE as ENGINE_VARIABLE

    variables = {"cluster": CLUSTER_VARIABLE, "engine": ENGINE_VARIABLE}
    return {key: variable for key, variable in variables.items() if os.environ.get(variable)}


def find_values(mirror: MirrorConfiguration, command: str) -> dict[str, Any]:
    """Return what the configuration of a mirror sets: destination of an option → its value.

    Args:
        mirror: the mirror.
        command: for which.
    """
    from fastindex.formats.configuration import MIRROR_KEYS

    options = dict(zip(_SAME, _SAME, strict=True)) | _OTHERS.get(command, {"streams": "stream"})
    for key in find_variables():
        del options[key]
    values = {
        options[key]: getattr(mirror, MIRROR_KEYS[key].field)
        for key in mirror.lines
        if key in options
    }
    if not values.get("per_root", 1):  # none every night; who asks for some gets the usual
        del values["per_root"]
    if "blake3" in mirror.lines:
        values["no_blake3"] = not mirror.blake3
    if command == "import" and "stream" in values:
        values["stream"] = mirror.streams[0]  # it imports into one
    return values


def find_source_values(source: PullSource) -> dict[str, Any]:
    """Return what a source of a mirror sets, as ``find_values`` does."""
    from fastindex.formats.configuration import PULL_KEYS

    return {
        _SOURCE_OPTIONS.get(key, key): getattr(source, PULL_KEYS[key].field) for key in source.lines
    }


def fill_in(
    parser: Parser, argv: Sequence[str], values: Mapping[str, Any], *, read: Read
) -> argparse.Namespace:
    """Parse a command line again, with other values for what it does not say.

    Args:
        parser: the command's parser. Its defaults become ``values``.
        argv: the command line.
        values: destination → value. Destinations of other commands' options are passed over.
        read: parses it.
    """
    options = [action for action in parser._actions if action.option_strings]
    used = {
        dest: list(value) if isinstance(value, tuple) else value
        for dest, value in values.items()
        if any(action.dest == dest for action in options)
    }
    before = {action.dest: action.default for action in options}
    parser.set_defaults(**dict.fromkeys(used))  # None: which no command line can give
    arguments = read(argv)
    given = {dest for dest, value in vars(arguments).items() if value != parser.get_default(dest)}
    for group in parser._mutually_exclusive_groups:
        dests = {action.dest for action in group._group_actions}
        if given & dests:  # the file does not add what the command line could not
            used |= {dest: before[dest] for dest in dests & set(used)}
    for dest in set(used) - given:
        setattr(arguments, dest, used[dest])
    parser.set_defaults(**used)
    return arguments

"""The operator's configuration: the bytes of a TOML file → the mirrors that it describes.

Unlike the settings in the tree, which strangers write, one wrong key makes all of it an error: a
run with half a configuration could publish or withdraw what nobody meant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from fastindex.errors import ExitCode, UsageError
from fastindex.formats.clusters import check_cluster, is_address
from fastindex.formats.errors import FormatError
from fastindex.formats.filters import parse_filters
from fastindex.formats.located_toml import (
    Key,
    Path,
    find_nearest,
    parse_located,
    quote,
    read_text,
    show,
)
from fastindex.formats.names import is_stream_name
from fastindex.formats.object_stores import parse_target
from fastindex.formats.quantities import parse_duration, parse_rate, parse_share

MAX_BYTES = 64 * 1024
"""How large a configuration may be. A mirror takes one KiB."""
_MAX_ERRORS = 20
_MAX_CONNECTIONS = 64
_MAX_DELTAS = 10
_MAX_RATIO = 100
_MAX_COUNT = 1_000_000_000
_ENGINES = ("auto", "hashlib", "lanes")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)
_MIRROR = "mirror"
_DEFAULTS = "defaults"
_PULL = "pull"


class ConfigurationError(FormatError):
    """A configuration cannot be used. Each line of the message is one thing that is wrong."""

    exit_code = ExitCode.USAGE


class PullSource(Struct, frozen=True, kw_only=True):
    """An upstream of a mirror: one ``[[mirror.NAME.pull]]``. Each field has the value in force."""

    url: str
    """The upstream: what stands before ``/streams/v1/``."""
    filters: tuple[str, ...] = ()
    """What to pull: what one of them accepts; empty: all. By default the filters of the mirror."""
    keep: int = 1
    """How many of the newest versions of each product to have."""
    stream: str = ""
    """The stream directory that all goes into; empty: that of the upstream's own path."""
    mirrors: tuple[str, ...] = ()
    """URLs where the files are, too."""
    lag_seconds: float = math.inf
    """How old the newest version may be."""
    keyring: str = ""
    """The keyring by a key of which the catalogue must be signed; empty: it need not be."""
    ca: str = ""
    """The PEM file with the certificates that are trusted; empty: those of the system."""
    connections: int = 4
    """How many files, or parts of them, are fetched side by side."""
    bytes_per_second: float = 0.0
    """How fast; 0: no limit."""
    line: int = 1
    """Where its table starts."""
    lines: dict[str, int] = {}
    """Key → the line that sets it; a key that is not here has its default."""


class MirrorConfiguration(Struct, frozen=True, kw_only=True):
    """One ``[mirror.NAME]``. Each field has the value in force: the file's, else the default."""

    name: str
    """The word that stands for it on the command line."""
    root: str
    """The directory that the web server serves; an absolute path, as all others here."""
    output: str = ""
    """The directory with ``streams/`` in it; empty: the root."""
    cache_dir: str = ""
    """Where the caches are; empty: in the tree."""
    streams: tuple[str, ...] = ("images",)
    """The stream directories in the root."""
    allow_links: tuple[str, ...] = ()
    """Where symlinks in the tree may lead."""
    jobs: int | None = None
    """Worker processes; None: one for each CPU."""
    cluster: str = ""
    """The scheduler on whose workers files are hashed; empty: none. ``FASTINDEX_CLUSTER`` in the
    environment wins over it."""
    engine: str = "auto"
    """What computes SHA-256. ``FASTINDEX_ENGINE`` in the environment wins over it."""
    scanners: int | None = None
    """Threads that list directories; None: as many as are of use."""
    blake3: bool = True
    """Whether BLAKE3 is computed."""
    settle_seconds: float = 0.0
    """How young files may not be."""
    recheck: str = ""
    """The share of the versions that each build reads again, such as ``1/30``."""
    wait_seconds: float = 0.0
    """How long to wait for another run; ``inf``: as long as it takes."""
    keep: int = 3
    """How many of the newest versions of each product ``prune`` keeps."""
    keep_days: int = 0
    """How young a version must be, in days, for ``prune`` to keep it anyway."""
    grace_seconds: float = 7200.0
    """How long files stay after the last catalogue that names them."""
    filters: tuple[str, ...] = ()
    """What is pulled, where the source does not say."""
    max_age_seconds: float = math.inf
    """How old the newest version of a product may be."""
    gzip: bool = False
    """Whether compressed copies accompany the catalogue."""
    zstd: bool = False
    """Whether copies by Zstandard do."""
    lists: bool = False
    """Whether lists for mirrors of this mirror do."""
    sign: str = ""
    """The key of GnuPG whose signatures do; empty: none."""
    page: bool = False
    """Whether a page for people does."""
    page_settings: str = ""
    """The file with the settings of the page; empty: none."""
    deltas: int = 0
    """From how many of the versions before the newest one ``nightly`` makes deltas; 0: none."""
    max_ratio: float = 60.0
    """How large a delta may be, in per cent of the root."""
    machine_deltas: bool = False
    """Whether deltas of the disks of virtual machines are made, too."""
    on_publish: tuple[str, ...] = ()
    """The program, and its arguments, that runs after something was published; empty: none."""
    on_failure: tuple[str, ...] = ()
    """The program, and its arguments, that runs after a run failed; empty: none."""
    metrics: str = ""
    """The file for the metrics of a run; empty: none."""
    report: str = ""
    """The file for the report of a run; empty: none."""
    push: str = ""
    """The bucket that all is pushed to, as a URL; empty: none."""
    push_endpoint: str = ""
    """The server of that bucket; empty: as the environment says."""
    push_allow_http: bool = False
    """Whether that server may be asked without TLS."""
    pull: tuple[PullSource, ...] = ()
    """The upstreams."""
    line: int = 1
    """Where its table starts."""
    lines: dict[str, int] = {}
    """Key → the line that sets it; a key that is not here has its default."""


class Configuration(Struct, frozen=True, kw_only=True):
    """What a file says."""

    path: str
    """The file, as messages name it."""
    mirrors: dict[str, MirrorConfiguration] = {}
    """Name → mirror, in the order of the file."""


def parse_configuration(path: str, content: bytes) -> Configuration:
    """Read a configuration.

    Args:
        path: the file, as messages name it.
        content: its bytes; the caller bounds them by ``MAX_BYTES``.

    Raises:
        ConfigurationError: it cannot be used; the message says what is wrong, with the lines.
    """
    document, lines = parse_located(path, content, ConfigurationError)
    return _Reader(path, lines).read(document)


class _Reader:
    """Reads the tables of one file, and collects what is wrong with them."""

    def __init__(self, path: str, lines: Mapping[Path, int]) -> None:
        self._path = path
        self._lines = lines
        self._errors: dict[str, int] = {}  # message → line

    def read(self, document: dict[str, Any]) -> Configuration:
        known = [_DEFAULTS, _MIRROR]
        for key in document:
            if key not in known:
                self._refuse((key,), f"unknown key {quote(key)}", find_nearest(key, known), known)
        shared, shared_lines = self._read_keys((_DEFAULTS,), document, _SHARED_KEYS)
        mirrors: dict[str, MirrorConfiguration] = {}
        for name, table in self._read_table((_MIRROR,), document).items():
            if _NAME.fullmatch(name) is None:
                self._refuse(
                    (_MIRROR, name),
                    f"{quote(name)} cannot be the name of a mirror; write a letter, then letters, "
                    "digits, _ and -, at most 64 in all",
                )
                continue
            mirror = self._read_mirror(name, {name: table}, shared, shared_lines)
            if mirror is not None:
                mirrors[name] = mirror
        self._refuse_shared_files(mirrors)
        if self._errors:
            messages = sorted(self._errors, key=self._errors.__getitem__)
            more = len(messages) - _MAX_ERRORS
            rest = [f"{self._path}: {more} more things are wrong"] if more > 0 else []
            raise ConfigurationError("\n".join(messages[:_MAX_ERRORS] + rest))
        return Configuration(path=self._path, mirrors=mirrors)

    def _read_mirror(
        self,
        name: str,
        above: dict[str, Any],
        shared: dict[str, Any],
        shared_lines: dict[str, int],
    ) -> MirrorConfiguration | None:
        where: Path = (_MIRROR, name)
        own, lines = self._read_keys(where, above, MIRROR_KEYS)
        values = {**shared, **own}
        table = above[name] if isinstance(above[name], dict) else {}
        if "root" not in table:
            self._refuse(where, f'[mirror.{name}] lacks its root; add a line root = "/srv/images"')
        filters = values.get("filters", ())
        sources = self._read_sources((*where, _PULL), table.get(_PULL, []), filters)
        if "root" not in own:
            return None
        return MirrorConfiguration(
            name=name,
            pull=sources,
            line=self._find_line(where),
            lines={**shared_lines, **lines},
            **values,
        )

    def _read_sources(
        self, where: Path, tables: object, filters: tuple[str, ...]
    ) -> tuple[PullSource, ...]:
        if not (isinstance(tables, list) and all(isinstance(table, dict) for table in tables)):
            self._refuse(where, f'"pull" must be tables; write [[{_join(where)}]] above each')
            return ()
        sources = []
        for number, table in enumerate(tables):
            place = (*where, number)
            values, lines = self._read_keys(place, {number: table}, PULL_KEYS)
            if "url" not in table:
                self._refuse(place, f"[[{_join(where)}]] lacks its url")
            elif "url" in values:
                line = self._find_line(place)
                sources.append(PullSource(line=line, lines=lines, **{"filters": filters, **values}))
        return tuple(sources)

    def _read_table(self, where: Path, above: Mapping[Any, Any]) -> dict[str, Any]:
        table = above.get(where[-1], {})
        if isinstance(table, dict):
            return table
        self._refuse(where, f'"{where[-1]}" must be a table; write [{_join(where)}] above its keys')
        return {}

    def _read_keys(
        self, where: Path, above: Mapping[Any, Any], keys: Mapping[str, Key]
    ) -> tuple[dict[str, Any], dict[str, int]]:
        """Return field → value and key → line of what a table sets."""
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in self._read_table(where, above).items():
            path = (*where, key)
            known = keys.get(key)
            if known is not None:
                try:
                    values[known.field] = known.read(value)
                    lines[key] = self._find_line(path)
                except ValueError as error:
                    self._refuse(path, f"{quote(key)} {error}")
            elif where == (_DEFAULTS,) and (key in MIRROR_KEYS or key == _PULL):
                self._refuse(path, f"{quote(key)} belongs to one mirror; set it in [mirror.NAME]")
            elif key != _PULL or keys is not MIRROR_KEYS:
                hint = find_nearest(key, iter(keys))
                self._refuse(path, f"unknown key {quote(key)}", hint, list(keys))
        return values, lines

    def _refuse_shared_files(self, mirrors: dict[str, MirrorConfiguration]) -> None:
        """Refuse two mirrors that would write the same files."""
        owners: dict[tuple[str, str], str] = {}
        for name, mirror in mirrors.items():
            written = {"metrics": mirror.metrics, "report": mirror.report}
            written["output"] = mirror.output or mirror.root
            for key, path in written.items():
                first = owners.setdefault((key, path.rstrip("/")), name) if path else name
                if first != name:
                    set_by = key if key in mirror.lines else "root"
                    self._refuse(
                        (_MIRROR, name, set_by),
                        f"{quote(path)} is the {key} of the mirror {first}, too; "
                        f"give each mirror its own {key}",
                    )

    def _find_line(self, path: Path) -> int:
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def _refuse(
        self, path: Path, problem: str, hint: str = "", known: list[str] | None = None
    ) -> None:
        if known and not hint:
            hint = f"; the keys are {', '.join(known)}"
        line = self._find_line(path)
        self._errors[f"{self._path}:{line}: {problem}{hint}"] = line


def _join(where: Path) -> str:
    return ".".join(map(str, where))


def _read_path(value: object) -> str:
    path = read_text(value)
    if not path.startswith("/"):
        raise ValueError(f"must be an absolute path, not {show(path)}")
    return path


def _read_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {show(value)}")
    return value


def _read_integer(value: object, least: int, most: int = _MAX_COUNT) -> int:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not (isinstance(value, int) and is_integer and least <= value <= most):
        bounds = f"of at least {least}" if most == _MAX_COUNT else f"from {least} to {most}"
        raise ValueError(f"must be an integer {bounds}, not {show(value)}")
    return value


def _read_count(value: object) -> int:
    return _read_integer(value, 1)


def _read_days(value: object) -> int:
    return _read_integer(value, 0)


def _read_deltas(value: object) -> int:
    return _read_integer(value, 0, _MAX_DELTAS)


def _read_ratio(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (isinstance(value, int | float) and is_number and 0 < value <= _MAX_RATIO):
        raise ValueError(
            f"must be more than 0 and at most {_MAX_RATIO} per cent, not {show(value)}"
        )
    return float(value)


def _read_connections(value: object) -> int:
    return _read_integer(value, 1, _MAX_CONNECTIONS)


def _read_duration(value: object) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e10:
        return float(value)
    raise ValueError(f'must be a time such as "30m", "2h" or 90 (seconds), not {show(value)}')


def _read_wait(value: object) -> float:
    return math.inf if value == "inf" else _read_duration(value)


def _read_rate(value: object) -> float:
    if isinstance(value, str):
        return parse_rate(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e15:
        return float(value)
    raise ValueError(f'must be bytes a second, such as "20M" or 500000, not {show(value)}')


def _read_share(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f'must be a share of the versions, such as "1/30", not {show(value)}')
    parse_share(value)
    return value


def _read_engine(value: object) -> str:
    if value not in _ENGINES:
        raise ValueError(f"must be one of {', '.join(map(quote, _ENGINES))}, not {show(value)}")
    return str(value)


def _read_cluster(value: object) -> str:
    word = read_text(value)
    if word != "none":
        check_cluster(word)
        if not is_address(word):
            _read_path(word)
    return word


def _read_stream(value: object) -> str:
    name = read_text(value)
    if not is_stream_name(name):
        raise ValueError(f"{show(name)} is not a valid name of a stream directory")
    return name


def _read_list(value: object, read: Callable[[object], str], example: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"must be an array of strings, such as {example}, not {show(value)}")
    try:
        return tuple(map(read, value))
    except ValueError as error:
        raise ValueError(f"has an element that is wrong: it {error}") from error


def _read_streams(value: object) -> tuple[str, ...]:
    names = _read_list(value, read_text, '["images"]')
    for name in names:
        _read_stream(name)
    if not names or len(set(names)) < len(names):
        raise ValueError("must name at least one stream, and each of them once")
    return names


def _read_paths(value: object) -> tuple[str, ...]:
    return _read_list(value, _read_path, '["/mnt/disk2"]')


def _read_filters(value: object) -> tuple[str, ...]:
    filters = _read_list(value, read_text, '["os=debian arch=amd64"]')
    try:
        parse_filters(filters)
    except UsageError as error:
        raise ValueError(f"cannot be used: {error}") from error
    return filters


def _read_command(value: object) -> tuple[str, ...]:
    words = _read_list(value, read_text, '["/usr/local/bin/announce", "--all"]')
    if not words:
        raise ValueError("must name a program; leave it out for none")
    if not words[0].startswith("/"):
        raise ValueError(f"must start with the absolute path of a program, not {show(words[0])}")
    return words


def _read_url(value: object) -> str:
    url = read_text(value)
    if not url.startswith(("https://", "http://", "file:///")):
        raise ValueError(f"must start with https://, http:// or file:///, not {show(url)}")
    top, found, _ = url.partition("/streams/v1")
    if found:
        raise ValueError(f"is what stands before /streams/v1, so {quote(top)}")
    return url


def _read_target(value: object) -> str:
    url = read_text(value)
    parse_target(url)
    return url


def _read_endpoint(value: object) -> str:
    url = read_text(value)
    if not url.startswith(("https://", "http://")) or "@" in url:
        raise ValueError(f"must start with https:// and have no password, not {show(url)}")
    return url


def _read_urls(value: object) -> tuple[str, ...]:
    return _read_list(value, _read_url, '["https://eu.example.org"]')


MIRROR_KEYS: dict[str, Key] = {
    "root": Key("root", _read_path, is_shared=False),
    "output": Key("output", _read_path, is_shared=False),
    "cache_dir": Key("cache_dir", _read_path),
    "streams": Key("streams", _read_streams),
    "allow_links": Key("allow_links", _read_paths),
    "jobs": Key("jobs", _read_count),
    "cluster": Key("cluster", _read_cluster),
    "engine": Key("engine", _read_engine),
    "scanners": Key("scanners", _read_count),
    "blake3": Key("blake3", _read_flag),
    "settle": Key("settle_seconds", _read_duration),
    "recheck": Key("recheck", _read_share),
    "wait": Key("wait_seconds", _read_wait),
    "keep": Key("keep", _read_count),
    "keep_days": Key("keep_days", _read_days),
    "grace": Key("grace_seconds", _read_duration),
    "filters": Key("filters", _read_filters),
    "max_age": Key("max_age_seconds", _read_duration),
    "gzip": Key("gzip", _read_flag),
    "zstd": Key("zstd", _read_flag),
    "lists": Key("lists", _read_flag),
    "sign": Key("sign", read_text),
    "page": Key("page", _read_flag),
    "page_settings": Key("page_settings", _read_path),
    "deltas": Key("deltas", _read_deltas),
    "max_ratio": Key("max_ratio", _read_ratio),
    "machine_deltas": Key("machine_deltas", _read_flag),
    "on_publish": Key("on_publish", _read_command),
    "on_failure": Key("on_failure", _read_command),
    "metrics": Key("metrics", _read_path, is_shared=False),
    "report": Key("report", _read_path, is_shared=False),
    "push": Key("push", _read_target, is_shared=False),
    "push_endpoint": Key("push_endpoint", _read_endpoint),
    "push_allow_http": Key("push_allow_http", _read_flag),
}
"""The keys of ``[mirror.NAME]``."""
_SHARED_KEYS = {name: key for name, key in MIRROR_KEYS.items() if key.is_shared}
PULL_KEYS: dict[str, Key] = {
    "url": Key("url", _read_url),
    "filters": Key("filters", _read_filters),
    "keep": Key("keep", _read_count),
    "stream": Key("stream", _read_stream),
    "mirrors": Key("mirrors", _read_urls),
    "lag": Key("lag_seconds", _read_duration),
    "keyring": Key("keyring", _read_path),
    "ca": Key("ca", _read_path),
    "connections": Key("connections", _read_connections),
    "limit_rate": Key("bytes_per_second", _read_rate),
}
"""The keys of ``[[mirror.NAME.pull]]``."""

"""Pure: the configuration of a mirror → the service and the timer that run its night.

The service may do what a night needs, and nothing else: it writes where the mirror, its report and
its metrics are, and reaches the network only if something is pulled or a program runs.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator

import xxhash
from msgspec import Struct

from fastindex.errors import UsageError
from fastindex.formats.configuration import MirrorConfiguration

FAILURE_UNIT = "fastindex-failure@.service"
"""What a failed service starts."""
_MARK = "# Made by fastindex units, "
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108  # nosec B108
"""What a service does not see: homes, and the temporary files of others."""
_SANDBOX = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=tmpfs
PrivateTmp=yes
PrivateDevices=yes
PrivateIPC=yes
PrivateMounts=yes
PrivateUsers=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
RemoveIPC=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources"""
_NO_NETWORK = """\
PrivateNetwork=yes
IPAddressDeny=any
RestrictAddressFamilies=none"""
_NETWORK = "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX"


class Runner(Struct, frozen=True, kw_only=True):
    """How the night of a mirror is run."""

    program: tuple[str, ...]
    """The words that start fastindex; the first is an absolute path."""
    parts: tuple[str, ...] = ()
    """The files and directories that the program consists of, besides those words."""
    user: str = "fastindex"
    """Whose rights it has."""
    config: str
    """The configuration's absolute path, or ``none``."""


class Unit(Struct, frozen=True):
    """A unit of systemd."""

    name: str
    """The name of its file."""
    content: str
    """What the file says."""


def make_units(mirror: MirrorConfiguration, runner: Runner) -> tuple[Unit, Unit]:
    """Return the service and the timer of a mirror.

    Args:
        mirror: the mirror; one without a name is not in a configuration.
        runner: how its night is run.

    Raises:
        UsageError: all of the machine would have to be writable for it, or a path has control
            characters.
    """
    name = f"fastindex-{mirror.name}" if mirror.name else "fastindex"
    service, timer = f"{name}.service", f"{name}.timer"
    return (
        Unit(service, _sign(service, _make_service(mirror, runner))),
        Unit(timer, _sign(timer, _make_timer(mirror))),
    )


def make_cron_line(mirror: MirrorConfiguration, runner: Runner) -> str:
    """Return the line of ``/etc/cron.d/fastindex`` that runs the night of a mirror.

    Raises:
        UsageError: a path has control characters.
    """
    words = [*runner.program, "nightly", "--quiet", *_name_mirror(mirror, runner)]
    for word in words:
        _require_printable(word)
    return f"30 4 * * * {runner.user} {shlex.join(words)}".replace("%", r"\%")


def is_made_here(content: str) -> bool:
    """Return whether a unit is as ``make_units`` once made it."""
    first, _, rest = content.partition("\n")
    return first.startswith(_MARK) and _digest(rest) in first


def list_written(mirror: MirrorConfiguration) -> tuple[str, ...]:
    """Return the directories in which a night writes, none of them below another.

    Raises:
        UsageError: one of them is the root directory.
    """
    files = {"report": mirror.report, "metrics": mirror.metrics}
    places = {"root": mirror.root, "output": mirror.output, "cache_dir": mirror.cache_dir}
    places |= {key: os.path.dirname(path) for key, path in files.items()}
    places["push"] = _find_directory(mirror.push)
    for key, path in places.items():
        if path and not path.strip("/"):
            raise UsageError(
                f"{key} lies in the root directory, and so its service could write everywhere; "
                "give it a directory of its own"
            )
    return _drop_inner(filter(None, (*places.values(), *mirror.allow_links)))


def _sign(name: str, body: str) -> str:
    """Return the content of a unit, with a first line by which ``is_made_here`` knows it."""
    return f"{_MARK}{_digest(body)}; to change it: systemctl edit {name}\n{body}"


def _digest(body: str) -> str:
    return xxhash.xxh3_64_hexdigest(body.encode())


def _make_service(mirror: MirrorConfiguration, runner: Runner) -> str:
    is_online = _needs_network(mirror)
    written = list_written(mirror)
    streams = [os.path.join(mirror.root, stream) for stream in mirror.streams]
    words = [*runner.program, "nightly", *_name_mirror(mirror, runner)]
    lines = [
        "[Unit]",
        f"Description=Publish the image mirror {_escape(mirror.name or mirror.root)}",
        "Documentation=man:fastindex-nightly(1)",
        *(f"RequiresMountsFor={_quote(path)}" for path in (*written, *streams)),
        *(("Wants=network-online.target", "After=network-online.target") if is_online else ()),
        f"OnFailure={FAILURE_UNIT.replace('@', '@%N')}",
        "",
        "[Service]",
        "Type=oneshot",
        f"User={runner.user}",
        f"ExecStart={' '.join(_quote(word).replace('$', '$$') for word in words)}",
        "# 3, something was left out, is a failure: somebody is told. systemctl stop is none.",
        "SuccessExitStatus=143",
        "TimeoutStartSec=infinity",
        "KillMode=mixed",
        "OOMPolicy=continue",
        "UMask=0022",
        "CPUSchedulingPolicy=idle",
        "IOSchedulingClass=idle",
        "",
        "# It writes here only, and does what a night needs.",
        *_open_written(written, streams),
        *_open_read(mirror, runner, written),
        _SANDBOX,
        _NETWORK if is_online else _NO_NETWORK,
        "",
    ]
    return "\n".join(lines)


def _make_timer(mirror: MirrorConfiguration) -> str:
    return f"""\
[Unit]
Description=Publish the image mirror {_escape(mirror.name or mirror.root)} every night
Documentation=man:fastindex-nightly(1)

[Timer]
OnCalendar=*-*-* 04:30
RandomizedDelaySec=30m
Persistent=true

[Install]
WantedBy=timers.target
"""


def _name_mirror(mirror: MirrorConfiguration, runner: Runner) -> list[str]:
    return ["--config", runner.config, mirror.name or mirror.root]


def _needs_network(mirror: MirrorConfiguration) -> bool:
    """Return whether a night talks to servers, or runs programs that may: GnuPG has an agent."""
    urls = [url for source in mirror.pull for url in (source.url, *source.mirrors)]
    urls += [mirror.push] if mirror.push else []
    is_remote = any(not url.startswith("file:") for url in urls)
    return is_remote or bool(mirror.on_publish or mirror.on_failure or mirror.sign)


def _find_directory(url: str) -> str:
    """Return the directory that a URL of a bucket stands for; empty: it is none."""
    return url.removeprefix("file://") if url.startswith("file://") else ""


def _open_written(written: Iterable[str], streams: Iterable[str]) -> Iterator[str]:
    """Yield what lets the service write; a stream may be a link to another disk."""
    for path in written:
        kind = "BindPaths" if _is_hidden(path) else "ReadWritePaths"
        yield f"{kind}={_quote(path)}"
    for path in streams:
        if not _is_hidden(path):
            yield f"ReadWritePaths={_quote(f'-{path}')}"


def _open_read(
    mirror: MirrorConfiguration, runner: Runner, written: tuple[str, ...]
) -> Iterator[str]:
    """Yield what lets the service read what it needs of what it does not see."""
    programs = [words[0] for words in (mirror.on_publish, mirror.on_failure) if words]
    files = [path for source in mirror.pull for path in (source.keyring, source.ca)]
    files += [os.path.dirname(mirror.page_settings)] if mirror.page_settings else []
    urls = [url for source in mirror.pull for url in (source.url, *source.mirrors)]
    trees = [url.removeprefix("file://") for url in urls if url.startswith("file:")]
    paths = [runner.program[0], *runner.parts, runner.config, *programs, *files, *trees]
    for path in _drop_inner(filter(_is_hidden, paths)):
        if not any(_is_in(path, above) for above in written):
            yield f"BindReadOnlyPaths={_quote(path)}"


def _is_hidden(path: str) -> bool:
    return any(_is_in(path, above) for above in _HIDDEN)


def _is_in(path: str, above: str) -> bool:
    return f"{path}/".startswith(f"{above.rstrip('/')}/")


def _drop_inner(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the paths, normalized and in their order, without those below another."""
    tidy = list(dict.fromkeys(map(os.path.normpath, paths)))
    return tuple(
        path for path in tidy if not any(_is_in(path, above) for above in tidy if above != path)
    )


def _escape(text: str) -> str:
    """Return ``text`` so that systemd expands nothing in it."""
    return text.replace("%", "%%")


def _require_printable(word: str) -> None:
    if not word.isprintable():
        raise UsageError(f"{word!r} has control characters, which no unit can have; rename it")


def _quote(word: str) -> str:
    """Return ``word`` as one word of a list in a unit.

    Raises:
        UsageError: it has control characters.
    """
    _require_printable(word)
    escaped = _escape(word).replace("\\", r"\\").replace('"', r"\"")
    return escaped if escaped == word and not set(word) & set(" '\t;") else f'"{escaped}"'

"""What the commands share: options, the values made of them, and the end of a run."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from fastindex import __version__
from fastindex.cli.words import COMMANDS, is_option, suggest
from fastindex.errors import ExitCode, FastindexError, UsageError, find_worst
from fastindex.formats import quantities
from fastindex.hashing.engine import ENGINES, VARIABLE, describe_engine
from fastindex.system import signals

if TYPE_CHECKING:
    from fastindex.cli.output import Console
    from fastindex.formats.filters import Filters
    from fastindex.hashing.options import HashingOptions
    from fastindex.mirror.mirror import Mirror
    from fastindex.remote.options import RemoteOptions

CLUSTER_VARIABLE = "FASTINDEX_CLUSTER"
"""The environment variable that names the cluster if no option does."""
NO_CLUSTER = "none"
"""What stands for no cluster, in ``--cluster``, in the variable and in the configuration."""

_ENDED_BY = {
    ExitCode.HUNG_UP: "hung up",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.TERMINATED: "terminated",
}


def list_exit_codes(special: Mapping[ExitCode, str], *, is_interruptible: bool = True) -> str:
    """Return the table of a command's exit codes, the end of its ``--help``.

    Args:
        special: what a code means for this command, where it is not what it means for all.
        is_interruptible: whether it runs long enough for signals to matter.
    """
    meanings = {ExitCode.DONE: "done", ExitCode.USAGE: "wrong usage", **special}
    rows = [f"  {code:<3d}  {meanings[code]}" for code in sorted(meanings)]
    if is_interruptible:
        rows += [
            "  129  hung up (the terminal was closed)",
            "  130  interrupted (Ctrl-C)",
            "  143  terminated; after these three, nothing is half-written",
        ]
    return "\n".join(["exit codes:", *rows, ""])


EXIT_CODES = list_exit_codes(
    {
        ExitCode.FAILED: "failed; nothing was published",
        ExitCode.LEFT_OUT: "done, but something was left out or not deleted; each is named",
        ExitCode.LOCKED: "another run holds the lock; try again later, or use --wait",
    }
)
"""The exit codes of the commands that publish."""


_PLAIN_WORDS = {
    "expected one argument": "needs a value",
    "ignored explicit argument": "takes no value, and so not",
    "not allowed with argument": "cannot be used together with",
    "the following arguments are required:": "missing:",
}
"""What argparse says → what a person would."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and name the option that was meant."""

    @property
    def command(self) -> str:
        """The command that it parses the words of, one of ``COMMANDS``."""
        return self.prog.partition(" ")[2] or "build"

    def parse_args(  # type: ignore[override]  # one of its three signatures is enough
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        """Parse ``args``; raises SystemExit after --help and on wrong usage."""
        return self.refuse_rest(*self.parse_known_args(args, namespace))

    def parse_intermixed_args(  # type: ignore[override]  # the same
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        """Parse ``args``, options among the arguments; raises SystemExit as ``parse_args``."""
        return self.refuse_rest(*self.parse_known_intermixed_args(args, namespace))

    def refuse_rest(self, arguments: argparse.Namespace, rest: list[str]) -> argparse.Namespace:
        """Return ``arguments``, unless words are left that have no meaning."""
        for word in rest:
            if is_option(word):  # what follows may be its value
                self.refuse_option(word)
        if rest and rest != ["--"]:
            self.refuse_word(next(word for word in rest if word != "--"))
        return arguments

    def refuse_option(self, word: str) -> NoReturn:
        """Report an option that is not known."""
        name = word.partition("=")[0]
        known = [option for action in self._actions for option in action.option_strings]
        self.error(f"{name}: no such option{suggest(name, known)}")

    def refuse_word(self, word: str) -> NoReturn:
        """Report an argument that is one too many."""
        hint = "; a command comes before ROOT" if word in COMMANDS else ""
        self.error(f"{word!r} is one argument too many{hint}")

    def refuse_without(self, arguments: argparse.Namespace, option: str, needed: str) -> None:
        """Report ``option`` if ``needed`` has no value, without which it does nothing."""
        has_needed = bool(vars(arguments)[self._find_action(needed).dest])
        if self._is_given(arguments, option) and not has_needed:
            self.error(f"{option} does nothing without {needed}; add that, or leave out {option}")

    def refuse_together(
        self, arguments: argparse.Namespace, option: str, others: Sequence[str]
    ) -> None:
        """Report the first of ``others`` that is given with ``option``, where it does nothing."""
        if self._is_given(arguments, option):
            for other in others:
                if self._is_given(arguments, other):
                    self.error(f"{other} does nothing with {option}; leave out one of the two")

    def _is_given(self, arguments: argparse.Namespace, option: str) -> bool:
        """Return whether an option has another value than its default."""
        action = self._find_action(option)
        return bool(vars(arguments)[action.dest] != action.default)

    def _find_action(self, option: str) -> argparse.Action:
        return next(action for action in self._actions if option in action.option_strings)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where more is said; raise SystemExit."""
        from fastindex.cli.output import Console

        said = message.removeprefix("argument ")
        for words, plain in _PLAIN_WORDS.items():
            said = said.replace(words, plain)
        Console(0).fail(f"{said}\n{self.prog} --help explains the command and its options")
        raise SystemExit(ExitCode.USAGE)


def make_empty_parser(prog: str, description: str, epilog: str) -> Parser:
    """Return a parser with ``--help`` and ``--version`` that prints its texts as written."""
    parser = Parser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"fastindex {__version__}\n{describe_engine()}",
        help="show the version and the engine, and exit",
    )
    return parser


def add_root(parser: Parser) -> None:
    """Add ROOT, which is optional."""
    parser.add_argument(
        "root",
        metavar="ROOT",
        nargs="?",
        default=".",
        help="the directory that the web server serves, with images/ in it, or the name of a "
        "mirror in the configuration (default: the current directory)",
    )
    add_config(parser)


def add_config(parser: Parser) -> None:
    """Add ``--config``."""
    parser.add_argument(
        "--config",
        type=parse_name,
        metavar="FILE",
        help="the configuration, or none (default: FASTINDEX_CONFIG in the environment, else "
        "fastindex/config.toml in XDG_CONFIG_HOME or ~/.config, else /etc/fastindex.toml)",
    )


def add_places(parser: Parser) -> None:
    """Add ``--cache-dir``, ``--output`` and ``--allow-links``."""
    parser.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="keep the .items.json caches in DIR instead of the tree",
    )
    add_output(parser)
    add_allow_links(parser)


def add_allow_links(parser: Parser) -> None:
    """Add ``--allow-links``, which can be repeated."""
    parser.add_argument(
        "--allow-links",
        action="append",
        metavar="DIR",
        help="let any symlink in the tree lead to DIR or below it, such as another disk; "
        "repeatable (default: symlinks stay within their product's directory)",
    )


def add_output(parser: Parser) -> None:
    """Add ``--output``."""
    parser.add_argument(
        "--output", metavar="DIR", help="the directory with streams/ in it (default: ROOT)"
    )


def add_streams(parser: Parser) -> None:
    """Add ``--stream``, which can be repeated."""
    parser.add_argument(
        "--stream",
        action="append",
        metavar="NAME",
        help="a directory in ROOT, published as streams/v1/NAME.json; repeatable (default: images)",
    )


def add_filter(parser: Parser, verb: str) -> None:
    """Add ``--filter``, which can be repeated.

    Args:
        parser: gets the option.
        verb: what the command does with what a filter accepts.
    """
    parser.add_argument(
        "--filter",
        action="append",
        metavar="EXPR",
        help=f"{verb} only what EXPR accepts, such as 'os=debian,alpine arch~^(amd64|arm64)$ "
        "variant!=cloud type=vm': all words must hold; = is any of the values, != none of them, "
        "~ a regular expression, !~ the opposite; the keys are os, release, arch, variant, alias, "
        "type (container or vm), version and label; repeatable: one EXPR must hold",
    )


def add_remote(parser: Parser, side_by_side: str) -> None:
    """Add how servers are asked: ``--connections`` and what goes with it.

    Args:
        parser: gets the options.
        side_by_side: what N connections do.
    """
    parser.add_argument(
        "--connections",
        type=parse_count,
        default=4,
        metavar="N",
        help=f"{side_by_side} (default: 4)",
    )
    parser.add_argument(
        "--limit-rate",
        type=_parse_rate,
        default=0.0,
        metavar="RATE",
        help="fetch at most so many bytes a second in all, such as 20M (default: no limit)",
    )
    parser.add_argument(
        "--ca",
        default="",
        metavar="FILE",
        help="trust the certificates in this PEM file (default: those of the system)",
    )
    parser.add_argument(
        "--user-agent",
        default=f"fastindex/{__version__}",
        metavar="TEXT",
        help=f"what to call oneself (default: fastindex/{__version__})",
    )
    parser.add_argument(
        "--allow-private",
        action="store_true",
        help="follow redirects to private addresses, too",
    )


def _parse_rate(word: str) -> float:
    with as_argument_error():
        return quantities.parse_rate(word)


def add_settle(parser: Parser) -> None:
    """Add ``--settle``."""
    parser.add_argument(
        "--settle",
        type=parse_duration,
        default=0.0,
        metavar="TIME",
        help="leave versions with files younger than this (such as 120 or 2m) for the next run "
        "(default: 0)",
    )


def add_wait(parser: Parser, *, default: float = 0.0, when: str = "") -> None:
    """Add ``--wait``; a bare one gets its value in ``words``, as argparse would take ROOT for it.

    Args:
        parser: gets the option.
        default: the seconds to wait without it.
        when: what comes first in its help: when it matters.
    """
    otherwise = "fail at once" if not default else "as long as it takes"
    parser.add_argument(
        "--wait",
        type=_parse_wait,
        default=default,
        metavar="[TIME]",
        help=f"{when}wait for another run to end, for at most TIME, such as 90 or 5m; without a "
        f"TIME, as long as it takes (default: {otherwise})",
    )


def add_hashing(parser: Parser) -> None:
    """Add ``--jobs`` and ``--engine``."""
    parser.add_argument(
        "-j",
        "--jobs",
        type=parse_count,
        metavar="N",
        help="the number of worker processes (default: one for each CPU that it may use)",
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="what computes SHA-256: hashlib, or lanes, which computes several digests at once on "
        f"CPUs with SHA extensions (default: auto, which means {VARIABLE} in the environment, "
        "else the faster one)",
    )


def add_cluster(parser: Parser, what: str) -> None:
    """Add ``--cluster``.

    Args:
        parser: gets the option.
        what: what is done there.
    """
    parser.add_argument(
        "--cluster",
        type=_parse_cluster,
        metavar="ADDRESS",
        help=f"{what} on the workers of a dask scheduler, which must see the same files at the "
        "same paths: tcp://HOST:PORT, tls://HOST:PORT or its scheduler file; --jobs is for each "
        f"machine (default: {CLUSTER_VARIABLE} in the environment, else none, which means here)",
    )


def _parse_cluster(word: str) -> str:
    from fastindex.formats.clusters import check_cluster

    if word != NO_CLUSTER:
        with as_argument_error():
            check_cluster(word)
    return word


def add_recheck(parser: argparse._ActionsContainer) -> None:
    """Add ``--recheck``."""
    parser.add_argument(
        "--recheck",
        default="",
        metavar="N/M",
        help="read this share of the versions again, another share each day (1/30: all in a "
        "month), and leave out files that the disk has damaged since they were hashed",
    )


def add_scanners(parser: Parser) -> None:
    """Add ``--scanners``."""
    parser.add_argument(
        "--scanners",
        type=parse_count,
        metavar="N",
        help="list directories with at most N threads; a small tree needs fewer (default: one for "
        "each job, and up to 64 where a network file system or a cold disk makes calls wait)",
    )


def add_no_blake3(parser: Parser) -> None:
    """Add ``--no-blake3``."""
    parser.add_argument(
        "--no-blake3",
        action="store_true",
        help="do not compute BLAKE3, which later runs of verify read faster than SHA-256",
    )


def add_verbosity(parser: Parser) -> None:
    """Add ``--quiet`` and ``--verbose``."""
    verbosity = parser.add_mutually_exclusive_group()
    verbosity.add_argument(
        "-q", "--quiet", action="store_true", help="print warnings and errors only"
    )
    verbosity.add_argument("-v", "--verbose", action="store_true", help="print every step")


def add_withdrawing(parser: Parser) -> None:
    """Add what prune and remove share: the grace, and what a command that ends with a build has."""
    parser.add_argument(
        "--grace",
        type=parse_duration,
        default=7200.0,
        metavar="TIME",
        help="how long to keep files after the last catalogue that names them, such as 90, 30m, 2h "
        "or 1d; clients cache catalogues for an hour (default: 2h)",
    )
    add_ending_build(parser, "change nothing; print what would be withdrawn and deleted")


def add_ending_build(parser: Parser, dry_run: str) -> None:
    """Add what a command has that ends with a build.

    Args:
        parser: the command's.
        dry_run: the help of ``--dry-run``.
    """
    add_streams(parser)
    add_settle(parser)
    add_places(parser)
    add_wait(parser)
    parser.add_argument("-n", "--dry-run", action="store_true", help=dry_run)
    add_hashing(parser)
    add_cluster(parser, "hash what the build at the end must read")
    add_scanners(parser)
    add_verbosity(parser)


def parse_duration(word: str) -> float:
    """Parse a time as people write it, such as 30m or 1h30m, into seconds; for argparse."""
    with as_argument_error():
        return quantities.parse_duration(word)


@contextmanager
def as_argument_error() -> Iterator[None]:
    """Raise what argparse reports instead of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parse_wait(word: str) -> float:
    return math.inf if word == "inf" else parse_duration(word)


def parse_name(word: str) -> str:
    """Refuse an empty name, such as that of a variable that is not set; for argparse."""
    if not word:
        raise argparse.ArgumentTypeError("must not be empty; leave the option out")
    return word


def parse_count(word: str) -> int:
    """Parse an integer of at least 1; for argparse."""
    number = int(word) if word.isascii() and word.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, not {word!r}")
    return number


def make_console(arguments: argparse.Namespace, about: str = "") -> Console:
    """Return a console that obeys ``--quiet`` and ``--verbose``.

    Args:
        arguments: the command line.
        about: what all messages are about, where one command does several things.
    """
    from fastindex.cli.output import Console

    return Console(arguments.verbose - arguments.quiet, about)


def make_mirror(root: str, arguments: argparse.Namespace) -> Mirror:
    """Return the mirror at ``root`` that ``--output``, ``--cache-dir`` and ``--stream`` describe.

    Raises:
        UsageError: an option makes no sense.
    """
    from fastindex.mirror.mirror import DEFAULT_STREAMS, Mirror

    given = vars(arguments)
    return Mirror.at(
        root,
        output=given.get("output"),
        cache_dir=given.get("cache_dir"),
        streams=given.get("stream") or DEFAULT_STREAMS,
        allow_links=given.get("allow_links") or (),
    )


def make_filters(arguments: argparse.Namespace) -> Filters:
    """Return what ``--filter`` accepts.

    Raises:
        UsageError: a filter is wrong.
    """
    from fastindex.formats.filters import parse_filters

    return parse_filters(arguments.filter or ())


def make_remote_options(arguments: argparse.Namespace) -> RemoteOptions:
    """Return the options that ``add_remote`` adds."""
    from fastindex.remote.options import RemoteOptions

    return RemoteOptions(
        user_agent=arguments.user_agent,
        connections=arguments.connections,
        ca_file=arguments.ca,
        allow_private=arguments.allow_private,
        limit_bytes_per_second=arguments.limit_rate,
    )


def make_hashing_options(arguments: argparse.Namespace) -> HashingOptions:
    """Return the options that ``--jobs``, ``--engine``, ``--no-blake3`` and ``--cluster`` describe.

    Raises:
        UsageError: the environment names a cluster that cannot be one.
    """
    from fastindex.hashing.options import HashingOptions

    given = vars(arguments)
    return HashingOptions(
        jobs=arguments.jobs,
        engine=arguments.engine,
        blake3=not given.get("no_blake3", False),
        cluster=_find_cluster(given["cluster"]) if "cluster" in given else "",
    )


def _find_cluster(option: str | None) -> str:
    """Return the cluster that is asked for; empty: none."""
    cluster = option or os.environ.get(CLUSTER_VARIABLE, "")
    try:
        cluster = _parse_cluster(cluster) if cluster else NO_CLUSTER
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"{CLUSTER_VARIABLE}: {error}") from error
    if cluster == NO_CLUSTER:
        return ""
    from fastindex.cli.output import silence_warnings

    silence_warnings("distributed")  # of other releases elsewhere; we tell what matters of that
    return cluster


def do_in_turn(works: Iterable[Callable[[], int]]) -> ExitCode:
    """Do one after the other, whichever of them fail, until a signal ends one.

    Args:
        works: each returns an exit code.

    Returns:
        The worst of them.
    """
    codes: list[int] = []
    for work in works:
        codes.append(work())
        if codes[-1] >= ExitCode.HUNG_UP:
            break
    return find_worst(codes)


def run_reported(console: Console, work: Callable[[], int]) -> int:
    """Do ``work``, which signals may end; return its exit code, or that of its error."""
    try:
        with signals.handled():
            return work()
    except FastindexError as error:
        console.fail(str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader of stdout is gone (`| head`)
        return ExitCode.FAILED
    except MemoryError:
        console.fail("out of memory; nothing was half-written")
        return ExitCode.FAILED
    except OSError as error:  # such as a full disk behind standard output
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        console.fail(f"{what}; nothing was half-written")
        return ExitCode.FAILED
    except signals.Interrupted as end:
        code = ExitCode(128 + end.number)
        console.fail(f"{_ENDED_BY[code]}; finished work is kept, and nothing was half-written")
        return code

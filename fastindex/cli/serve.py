"""``fastindex serve [ROOT]``: serve a mirror in a LAN, or to try it."""

from __future__ import annotations

import argparse
import gc
import shlex
from collections.abc import Sequence

from fastindex.cli.common import (
    Parser,
    add_allow_links,
    add_output,
    add_root,
    add_verbosity,
    list_exit_codes,
    make_empty_parser,
    parse_duration,
)
from fastindex.cli.configuration import read_arguments
from fastindex.cli.output import flush_results, print_text
from fastindex.cli.running import Run, run_command
from fastindex.errors import ExitCode
from fastindex.operations.serve.options import DEFAULT_PORT, ServeOptions, Serving

_REMOTE = "mirror"
_TRUSTED = ".config/incus/servercerts"
"""Where the client looks for what a remote's certificate must be signed by, below HOME. It tells
the daemon, so that root need not trust it."""
_EPILOG = """\
examples:
  fastindex serve /srv/images                           for clients on this machine
  fastindex serve --listen 0.0.0.0 /srv/images          for all that reach this machine
  fastindex serve --listen :443 --cert F --key F lan    the mirror lan of the configuration
  fastindex serve --http -v /srv/images                 plain HTTP, to look at it with curl

It prints what clients must do. This server is for a LAN and for trying: nginx, Caddy or Apache
serve the public, and faster (docs/how-to/servers.md).

"""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex serve",
        "Serve the published catalogue, what accompanies it and its images by HTTPS, until\n"
        "Ctrl-C or SIGTERM. Without a certificate of yours, make one, and print what clients\n"
        "must trust.",
        _EPILOG
        + list_exit_codes(
            {
                ExitCode.DONE: "ended by a signal, after the downloads that ran",
                ExitCode.FAILED: "failed, as when nothing is published yet or the port is taken",
                ExitCode.LEFT_OUT: "ended by a signal, and cut off downloads that took too long",
            },
            is_interruptible=False,
        ),
    )
    add_root(parser)
    parser.add_argument(
        "--listen",
        type=_parse_listen,
        default=("127.0.0.1", DEFAULT_PORT),
        metavar="ADDRESS:PORT",
        help="where to listen: an address, a port behind a colon, or both; 0.0.0.0 or no address "
        "before the colon is all of this machine's, [::] those of IPv6 (default: 127.0.0.1:"
        f"{DEFAULT_PORT}, which only this machine reaches)",
    )
    parser.add_argument(
        "--name",
        action="append",
        metavar="NAME",
        help="another name or address of this machine, for the certificate; repeatable",
    )
    tls = parser.add_mutually_exclusive_group()
    tls.add_argument(
        "--cert",
        default="",
        metavar="FILE",
        help="the server's certificate and its chain, PEM; read again when it is renewed (default: "
        "make one, and keep it in fastindex/serve in XDG_STATE_HOME or ~/.local/state)",
    )
    tls.add_argument(
        "--http",
        action="store_true",
        help="plain HTTP, at a loopback address only; Incus and LXD want https",
    )
    parser.add_argument("--key", default="", metavar="FILE", help="the key of --cert, PEM")
    parser.add_argument(
        "--patience",
        type=parse_duration,
        default=10.0,
        metavar="TIME",
        help="how long downloads may go on after Ctrl-C or SIGTERM (default: 10)",
    )
    add_output(parser)
    add_allow_links(parser)
    add_verbosity(parser)
    return parser


def _parse_listen(word: str) -> tuple[str, int]:
    address, colon, port = word.rpartition(":")
    if not colon or word.endswith("]") or (address.count(":") and not address.endswith("]")):
        address, port = word, str(DEFAULT_PORT)
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise argparse.ArgumentTypeError(f"must end in a port from 1 to 65535, not {port!r}")
    return address.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104  # nosec B104  # it was asked for


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    parser = make_parser()
    arguments = read_arguments(parser, argv)
    parser.refuse_together(arguments, "--cert", ["--name"])
    parser.refuse_together(arguments, "--http", ["--name", "--key"])
    gc.enable()  # it lasts
    return run_command("serve", arguments, lambda run: _serve(run, arguments))


def _serve(run: Run, arguments: argparse.Namespace) -> int:
    from fastindex.operations.serve.run import serve

    address, port = arguments.listen
    options = ServeOptions(
        address=address,
        port=port,
        is_plain=arguments.http,
        certificate=arguments.cert,
        key=arguments.key,
        names=tuple(arguments.name or ()),
        patience_seconds=arguments.patience,
    )
    mirror = run.open_mirror(arguments.root, arguments)

    def is_ready(serving: Serving) -> None:
        run.console.hint_at_clients(_describe(mirror.root, serving))
        print_text(serving.urls[0])
        flush_results()  # whoever waits for it may begin

    cut_off = serve(mirror, options, run.console, is_ready)
    run.console.sum_up_serve(cut_off)
    return ExitCode.LEFT_OUT if cut_off else ExitCode.DONE


def _describe(root: str, serving: Serving) -> list[str]:
    """Return what to tell people when the server answers."""
    url = serving.urls[0]
    lines = [f"serving {root} at {url}; Ctrl-C ends it"]
    if len(serving.urls) > 1:
        lines.append(f"also at {', '.join(serving.urls[1:])}")
    if url.startswith("http:"):
        return [*lines, "Incus and LXD want https: leave out --http for them"]
    if serving.has_replaced_authority:
        lines.append("its certificate is by a new authority: clients must trust that anew")
    add = f"incus remote add {_REMOTE} {url} --protocol simplestreams"
    if not serving.authority:
        return [*lines, "on each client, for LXD with lxc:", f"  {add}"]
    copy, end = shlex.quote(serving.authority), f"~/{_TRUSTED}/{_REMOTE}.crt"
    trust = f"install -D -m 644 {copy} {end}"
    if not serving.is_local:
        host = url.partition("://")[2].rpartition(":")[0]
        trust = f"mkdir -p ~/{_TRUSTED} && scp {host}:{copy} {end}"
    lines += [
        "on each client, for LXD with lxc and ~/.config/lxc:"
        if not serving.is_local
        else "clients on this machine, for LXD with lxc and ~/.config/lxc:",
        f"  {add}",
        f"  {trust}",
        f"  incus launch {_REMOTE}:ALIAS; fastindex list {shlex.quote(root)} shows the aliases",
    ]
    if serving.is_local:
        lines.append("other machines do not reach it; for them, add --listen 0.0.0.0")
    return lines

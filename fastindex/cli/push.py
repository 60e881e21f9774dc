"""``fastindex push [ROOT] [URL]``: make a bucket have what is published."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from fastindex.cli.common import (
    Parser,
    add_places,
    add_root,
    add_verbosity,
    add_wait,
    list_exit_codes,
    make_empty_parser,
    parse_count,
    parse_duration,
    parse_name,
)
from fastindex.cli.configuration import read_arguments
from fastindex.cli.output import print_push_plan, print_push_report
from fastindex.cli.running import Run, add_reports, run_command
from fastindex.errors import ExitCode, UsageError

_EPILOG = """\
examples:
  fastindex push /srv/images s3://my-images           to Amazon S3, as the AWS tools are set up
  fastindex push -n /srv/images s3://my-images/lab    what would be uploaded and deleted
  fastindex push --endpoint https://s3.example.org /srv/images s3://my-images
  fastindex push main                                 to what the configuration says: push = "..."

URL is s3://BUCKET/PREFIX, or the same with gs (Google) or az (Azure), or file:///DIR. Credentials
come from the environment (AWS_ACCESS_KEY_ID, ...) and from the files of the providers' own tools.

"""


def make_parser() -> Parser:
    """Return the command's parser."""
    parser = make_empty_parser(
        "fastindex push",
        "Put what is published into an object store: files of images first, then the catalogue,\n"
        "the index last. What is there already is not uploaded again. What no catalogue in the\n"
        "bucket has named for longer than the grace is deleted. Needs the library obstore.",
        _EPILOG
        + list_exit_codes(
            {
                ExitCode.DONE: "done; the bucket has what is published",
                ExitCode.FAILED: "failed; the catalogue in the bucket is whole: the old one or the "
                "new one",
                ExitCode.LOCKED: "another run is publishing; try again later, or use --wait",
            }
        ),
    )
    add_root(parser)
    parser.add_argument(
        "url",
        metavar="URL",
        nargs="?",
        help="the bucket, and what stands before the paths in it (default: as the configuration "
        "says)",
    )
    parser.add_argument(
        "--endpoint",
        type=parse_name,
        metavar="URL",
        help="the server of an s3:// bucket that is not Amazon's (default: AWS_ENDPOINT_URL in the "
        "environment)",
    )
    parser.add_argument(
        "--allow-http",
        action="store_true",
        help="let the server be asked without TLS although it is on another machine",
    )
    parser.add_argument(
        "--connections",
        type=parse_count,
        default=8,
        metavar="N",
        help="put N objects, or parts of them, side by side; each takes some 16 MB of memory "
        "(default: 8)",
    )
    parser.add_argument(
        "--grace",
        type=parse_duration,
        default=7200.0,
        metavar="TIME",
        help="how long to keep objects after the last catalogue in the bucket that names them, "
        "such as 90, 30m, 2h or 1d (default: 2h)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="push although most of what is in the bucket would go",
    )
    parser.add_argument(
        "-n",
        "--dry-run",
        action="store_true",
        help="change nothing; print what would be uploaded and deleted",
    )
    add_places(parser)
    add_wait(parser)
    add_reports(parser, is_recorded=True)
    add_verbosity(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command; raises SystemExit after --help and on wrong usage."""
    parser = make_parser()
    arguments = read_arguments(parser, argv, read=partial(_read, parser))
    is_real = not arguments.dry_run
    return run_command(
        "push", arguments, lambda run: push_and_print(run, arguments), is_real=is_real
    )


def _read(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line in which the URL may stand alone, or before ROOT."""
    arguments = parser.parse_intermixed_args(argv)
    if "://" in arguments.root:
        arguments.root, arguments.url = arguments.url or ".", arguments.root
    return arguments


def push_and_print(run: Run, arguments: argparse.Namespace) -> int:
    """Push, and print what was done; return the exit code."""
    from fastindex.operations.push.options import PushOptions
    from fastindex.operations.push.run import push
    from fastindex.remote.store_options import StoreOptions

    mirror = run.open_mirror(arguments.root, arguments)
    configured = arguments.configured
    url = arguments.url or (configured.push if configured is not None else "")
    if not url:
        raise UsageError(
            "URL is missing: name a bucket, such as s3://BUCKET/PREFIX, or set push in the "
            "configuration"
        )
    options = PushOptions(
        target=url,
        grace_seconds=arguments.grace,
        wait_seconds=arguments.wait,
        force=arguments.force,
        dry_run=arguments.dry_run,
        store=StoreOptions(
            connections=arguments.connections,
            endpoint=arguments.endpoint or "",
            allow_http=arguments.allow_http,
        ),
    )
    run.console.activity = "uploading"
    report = push(mirror, options, observer=run.console)
    run.keep(push=report)
    if not run.is_json:
        print_push_plan(report)
    if run.lists_done:
        print_push_report(report)
    run.console.sum_up_push(report)
    return report.exit_code

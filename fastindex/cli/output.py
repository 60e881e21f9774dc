"""Everything that is printed, for people and for machines. No other module prints.

Results go to stdout, messages to stderr. Names come from strangers: characters that could control
a terminal are escaped.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn, TextIO

import msgspec

from fastindex.errors import Code
from fastindex.events import Change, Finding, Observer
from fastindex.formats.simplestreams import INDEX_PATH, VIRTUAL_MACHINE, product_file_path

if TYPE_CHECKING:
    from tqdm import tqdm

    from fastindex.catalogue.images import Image
    from fastindex.catalogue.published import Mismatch
    from fastindex.events import Step
    from fastindex.mirror.state.runs import Known, ToldFinding
    from fastindex.operations.builder.options import BuildReport
    from fastindex.operations.check.options import CheckReport
    from fastindex.operations.deltas.options import DeltasReport
    from fastindex.operations.importer.options import ImportReport
    from fastindex.operations.prune.options import PruneReport
    from fastindex.operations.pull.options import PullReport
    from fastindex.operations.push.options import PushReport
    from fastindex.operations.status.options import RunStatus, StatusReport
    from fastindex.operations.verify.options import VerifyReport

_IMAGE_COLUMNS = (
    *("ALIAS", "FINGERPRINT", "STREAM", "OS", "RELEASE", "VARIANT"),
    *("ARCH", "TYPE", "SIZE", "DATE", "SERIAL"),
)
_DISPENSABLE_COLUMNS = (
    *("SERIAL", "OS", "RELEASE", "VARIANT", "SIZE", "STREAM", "FINGERPRINT", "TYPE", "ARCH"),
)
"""The columns to omit in a narrow terminal, in this order: the alias says most of it."""
_SHORTEST_ALIAS = 12
"""To so many characters aliases are cut in a terminal that is too narrow for them."""
_BAR_DELAY_SECONDS = 0.3
"""What is done sooner needs no progress bar."""
_RED, _YELLOW, _BOLD = "31", "33", "1"
_PRIORITIES = {"error": "<3>", "warning": "<4>", "": "<6>", "verbose": "<7>"}
"""What journald reads at the start of a line: how important it is (sd-daemon(3))."""
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def escape_unprintable(text: str) -> str:
    """Return ``text`` with control characters and undecodable bytes escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def paint(text: str, colour: str, stream: TextIO) -> str:
    """Return ``text`` in a colour if ``stream`` is a terminal that shows it (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", "", None)
    return text if plain or not stream.isatty() else f"\x1b[{colour}m{text}\x1b[0m"


def _is_journal(stream: TextIO) -> bool:
    """Return whether what is written to ``stream`` goes to the journal (systemd.exec(5))."""
    place = os.environ.get("JOURNAL_STREAM")
    if not place:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # it is closed, or no file
        return False
    return place == f"{status.st_dev}:{status.st_ino}"


def _silence(stream: TextIO) -> None:
    """Discard what is buffered: else the interpreter complains about it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _name_stdout_in_errors() -> Iterator[None]:
    """Let an error of stdout name it."""
    try:
        yield
    except OSError as error:
        _silence(sys.stdout)
        error.filename = "standard output"
        raise


def flush_results() -> int:
    """Write out what is buffered for stdout; return 0, or raise OSError."""
    with _name_stdout_in_errors():
        sys.stdout.flush()
    return 0


def silence_warnings(package: str) -> None:
    """Print no warnings of a package, unless Python was told which to print."""
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=package)


class Console(Observer):
    """Prints on stderr how a run goes.

    Args:
        verbosity: -1: warnings and errors only; 0: progress and a summary too; 1: every step.
        about: what stands before each message, such as the name of a mirror; empty: nothing.
    """

    def __init__(self, verbosity: int, about: str = "") -> None:
        self._verbosity = verbosity
        self.about = about
        """What stands before each message; empty: nothing."""
        self.wants_progress = verbosity >= 0 and sys.stderr.isatty()
        self._bar: tqdm[NoReturn] | None = None
        self.activity = "hashing"
        """What the progress bar is about."""
        self.findings: list[Finding] = []
        """What was found, told or not."""
        self.errors: list[str] = []
        """Why the run failed."""
        self._known: Known = {}
        self._known_days: list[str] = []

    def hashing_started(self, total_bytes: int) -> None:
        """Show a progress bar, if stderr is a terminal."""
        self._show_bar(self.activity, "B", total_bytes)

    def bytes_hashed(self, done_bytes: int) -> None:
        """Move the progress bar to ``done_bytes``."""
        self._move_bar(done_bytes)

    def hashing_finished(self) -> None:
        """Remove the progress bar."""
        self._remove_bar()

    def counting_started(self, activity: str, unit: str, total: int) -> None:
        """Show a progress bar, if stderr is a terminal."""
        self._show_bar(activity, f" {unit}s", total)

    def counted(self, done: int) -> None:
        """Move the progress bar to ``done``."""
        self._move_bar(done)

    def counting_finished(self) -> None:
        """Remove the progress bar."""
        self._remove_bar()

    def _show_bar(self, activity: str, unit: str, total: int) -> None:
        if not self.wants_progress:
            return
        self._remove_bar()
        import threading

        from tqdm import tqdm

        # Without its helper thread and its semaphore, as workers are forked from this process.
        tqdm.monitor_interval = 0
        tqdm.set_lock(threading.RLock())
        self._bar = tqdm(
            total=total or None,
            desc=activity,
            unit=unit,
            unit_scale=True,  # by 1,000, as all sizes here
            leave=False,
            delay=_BAR_DELAY_SECONDS,
            dynamic_ncols=True,
            file=sys.stderr,
        )

    def _move_bar(self, done: int) -> None:
        if self._bar is not None:
            with suppress(OSError):  # the terminal is gone; a signal says so
                self._bar.update(max(0, done - self._bar.n))

    def _remove_bar(self) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()
            self._bar = None

    def note(self, message: str) -> None:
        """Print ``message``, unless quiet."""
        if self._verbosity >= 0:
            self._say(escape_unprintable(message))

    def log(self, message: str) -> None:
        """Print ``message`` with ``--verbose``."""
        if self._verbosity > 0:
            self._say(escape_unprintable(message), priority="verbose")

    def expect(self, known: Known) -> None:
        """Do not print what the last run has told, unless verbose; count it."""
        self._known = known

    def warn(self, finding: Finding) -> None:
        """Print a warning, unless it is known."""
        self.findings.append(finding)
        if self._verbosity < 1 and self._known:
            from fastindex.mirror.state.runs import identify

            since = self._known.get(identify(finding))
            if since is not None:
                self._known_days.append(since)
                return
        text = f"{finding.path}: {finding.problem}; {finding.remedy}"
        self._say(escape_unprintable(text), "warning", _YELLOW)

    def fail(self, message: str) -> None:
        """Print why the run failed, unless another step of it failed for the same reason."""
        if message not in self.errors:
            self._say(message, "error", _RED)
        self.errors.append(message)

    def sum_up_known(self, root: str, exit_code: int) -> None:
        """Print how much was not printed, as it is known; if quiet, only if it has consequences."""
        if self._known_days and (self._verbosity >= 0 or exit_code):
            count = _count(len(self._known_days), "warning")
            self._say(
                f"{count} known since {min(self._known_days)}; fastindex status {root} lists "
                f"{'it' if len(self._known_days) == 1 else 'them'}"
            )

    def sum_up_build(self, report: BuildReport) -> None:
        """Print the summary line, unless quiet."""
        if report.refusal:
            self.fail(report.refusal)
        if self._verbosity >= 0:
            self._say(summarize_build(report))

    def sum_up_import(self, report: ImportReport) -> None:
        """Print what existed already, and the summary line, unless quiet."""
        if self._verbosity < 0:
            return
        for path in report.existing:
            self._say(f"{path} exists already, with the same content")
        if not report.steps:
            self._say(summarize_import(report))

    def sum_up_verify(self, report: VerifyReport) -> None:
        """Print the summary line, unless quiet."""
        if self._verbosity >= 0:
            self._say(summarize_verify(report))

    def sum_up_check(self, report: CheckReport) -> None:
        """Print the summary line, unless quiet."""
        if self._verbosity >= 0:
            self._say(summarize_check(report))

    def sum_up_prune(self, report: PruneReport) -> None:
        """Print the summary lines, of the build and of what it was for, unless quiet."""
        if self._verbosity >= 0 and not report.steps:
            if report.built is not None:
                self._say(summarize_build(report.built))
            parts = [f"{len(report.withdrawn):,} withdrawn", f"{len(report.deleted):,} deleted"]
            if report.bytes_freed:
                parts[-1] += f" ({format_size(report.bytes_freed)})"
            parts.append(f"{len(report.waiting):,} to be deleted by a later run")
            if report.restored:
                parts = [f"{len(report.restored):,} published again"]
            self._say(", ".join(parts))

    def sum_up_deltas(self, report: DeltasReport) -> None:
        """Print the summary lines, of the build and of what came before, unless quiet."""
        if self._verbosity < 0:
            return
        if report.built is not None:
            self._say(summarize_build(report.built))
        self._say(summarize_deltas(report))

    def sum_up_pull(self, report: PullReport) -> None:
        """Print the summary lines, of the build and of what came before, unless quiet."""
        if self._verbosity < 0:
            return
        if report.built is not None:
            self._say(summarize_build(report.built))
        self._say(summarize_pull(report))

    def sum_up_push(self, report: PushReport) -> None:
        """Print why nothing was pushed, and the summary line, unless quiet."""
        if report.refusal:
            self.fail(report.refusal)
        if self._verbosity >= 0:
            self._say(summarize_push(report))

    def sum_up_status(self, report: StatusReport) -> None:
        """Print whether the mirror is healthy; if quiet, what is wrong, which the screen tells."""
        if self._verbosity < 0:
            for finding in report.findings:
                self.warn(finding)
            for one in report.known:
                if one.is_left_out:
                    self._say(escape_unprintable(_describe_known(one)), "warning", _YELLOW)
            return
        self.findings += report.findings
        counts = Counter(finding.code.value for finding in report.findings)
        told = ", ".join(f"{code} ({count:,})" for code, count in counts.items())
        self._say(f"not healthy: {told}" if told else "healthy")

    def hint_at_next_step(self, root: str) -> None:
        """Tell a person at a terminal what to do after the first build."""
        if self._verbosity >= 0 and sys.stderr.isatty():
            self._say(
                f"this is the first catalogue of {root}: serve that directory by HTTPS, then\n"
                "  incus remote add NAME https://HOST/ --protocol simplestreams\n"
                f"  fastindex list {root} shows what clients see"
            )

    def hint_at_clients(self, lines: Sequence[str]) -> None:
        """Tell where a server answers, and what clients must do, unless quiet."""
        if self._verbosity >= 0:
            self._say("\n  ".join(lines))

    def sum_up_serve(self, cut_off: int) -> None:
        """Print how a server ended, unless quiet."""
        if cut_off or self._verbosity >= 0:
            self._say(f"ended; {_count(cut_off, 'download')} cut off" if cut_off else "ended")

    def hint_at_units(self, lines: Sequence[str]) -> None:
        """Tell what to do after units were written, unless quiet."""
        if self._verbosity >= 0:
            self._say("\n  ".join(["next:", *lines]))

    def _say(
        self, message: str, kind: str = "", colour: str = "", *, priority: str | None = None
    ) -> None:
        start = escape_unprintable(f"{self.about}: ") if self.about else ""
        lines = [escape_unprintable(line) for line in message.splitlines()]
        if kind:
            lines[:1] = [f"{paint(f'{kind}:', colour, sys.stderr)} {''.join(lines[:1])}"]
        lines[:1] = [f"fastindex: {start}{''.join(lines[:1])}"]
        if _is_journal(sys.stderr):
            lines = [_PRIORITIES[priority or kind] + line for line in lines]
        try:
            if self._bar is not None:
                self._bar.clear()
            print("\n".join(lines), file=sys.stderr, flush=True)
        except OSError:  # nobody reads the messages; the work goes on
            _silence(sys.stderr)


def summarize_build(report: BuildReport) -> str:
    """Return the summary line of a build."""
    is_dry_run = bool(report.product_files)
    outcome = "to publish" if is_dry_run else "published"
    parts = [
        f"{_count(report.versions, 'version')} of {_count(report.products, 'product')} {outcome}",
        f"{_count(report.files_hashed, 'file')} hashed, {report.files_reused:,} reused",
        _describe_reading(report),
        f"{_count(len(report.findings), 'warning')}, "
        f"{_count(report.versions_left_out, 'version')} left out",
    ]
    if report.files_left_out:
        parts[-1] += f", {_count(report.files_left_out, 'file')} left out"
    if report.versions_settling:
        parts.append(f"{_count(report.versions_settling, 'version')} too young")
    return "; ".join(parts)


def summarize_import(report: ImportReport) -> str:
    """Return the summary line of an import."""
    return "; ".join(
        (
            f"{_count(len(report.imported), 'version')} imported, "
            f"{len(report.existing):,} existed already, {report.failed:,} failed",
            _describe_reading(report),
            _count(len(report.findings), "warning"),
        )
    )


def summarize_pull(report: PullReport) -> str:
    """Return the summary line of a pull."""
    if report.built is None:
        versions = len({step.target.rpartition("/")[0] for step in report.steps if step.size_bytes})
        return (
            f"{_count(versions, 'version')} to pull, {report.existing:,} here already; "
            f"{format_size(report.bytes_to_fetch)} to fetch, "
            f"{format_size(report.bytes_free)} free on the disk"
        )
    seconds = max(report.fetching_seconds, 1e-9)
    parts = [
        f"{_count(len(report.pulled), 'version')} pulled, {report.existing:,} here already, "
        f"{len(report.withdrawn):,} withdrawn, {report.failed:,} failed",
        f"{format_size(report.bytes_fetched)} fetched at "
        f"{format_size(round(report.bytes_fetched / seconds))}/s in {report.seconds:.2f} s"
        if report.bytes_fetched
        else f"nothing fetched in {report.seconds:.2f} s",
    ]
    if report.bytes_linked:
        parts.append(f"{format_size(report.bytes_linked)} linked")
    return "; ".join(parts)


def summarize_deltas(report: DeltasReport) -> str:
    """Return the summary line of deltas."""
    memory = f"{_count(report.jobs, 'job')} with {format_size(report.memory_bytes)} of memory"
    others = f"{report.existing:,} there already, {report.too_large:,} too large"
    if report.steps:
        return f"{_count(len(report.steps), 'delta')} to make, {others}; {memory}"
    parts = [f"{_count(len(report.made), 'delta')} made, {others}, {report.failed:,} failed"]
    if report.made:
        ratio = 100 * report.bytes_made / report.bytes_replaced
        parts.append(
            f"{format_size(report.bytes_made)} instead of {format_size(report.bytes_replaced)} "
            f"({ratio:.1f} %)"
        )
    if report.making_seconds:
        parts.append(f"{memory}, in {report.making_seconds:.2f} s")
    return "; ".join(parts)


def summarize_push(report: PushReport) -> str:
    """Return the summary line of a push."""
    uploads = [step for step in report.steps if step.verb in ("upload", "write")]
    if report.steps:
        size_bytes = sum(step.size_bytes for step in uploads)
        deleted = sum(step.verb == "delete" for step in report.steps)
        return (
            f"{_count(len(uploads), 'object')} to upload, {format_size(size_bytes)}; "
            f"{report.unchanged:,} there already; {deleted:,} to delete"
        )
    count = len(report.uploaded) + len(report.written)
    seconds = max(report.uploading_seconds, 1e-9)
    parts = [
        f"{_count(count, 'object')} uploaded to {report.target}, "
        f"{report.unchanged:,} there already, {len(report.deleted):,} deleted, "
        f"{report.waiting:,} to be deleted by a later push",
        f"{format_size(report.bytes_uploaded)} at "
        f"{format_size(round(report.bytes_uploaded / seconds))}/s in {report.seconds:.2f} s"
        if report.bytes_uploaded
        else f"nothing uploaded in {report.seconds:.2f} s",
    ]
    return "; ".join(parts)


def summarize_verify(report: VerifyReport) -> str:
    """Return the summary line of a verification."""
    return "; ".join(
        (
            f"{_count(report.files, 'file')} of {_count(report.versions, 'version')} checked",
            _describe_reading(report),
            _count(len(report.mismatches), "mismatch", "mismatches"),
        )
    )


def describe_status(report: StatusReport) -> list[tuple[str, list[str]]]:
    """Return what a status tells: a heading, and its lines, for each subject."""
    streams = report.streams
    runs = [_describe_run(run) for run in report.runs]
    left_out: list[str] = []
    others: list[str] = []
    for one in report.known:
        (left_out if one.is_left_out else others).append(_describe_known(one))
    size_bytes = sum(stream.size_bytes for stream in streams)
    published = [
        f"{_count(sum(stream.products for stream in streams), 'product')}, "
        f"{_count(sum(stream.versions for stream in streams), 'version')}, "
        f"{format_size(size_bytes)}"
    ]
    if len(streams) > 1:
        published += [
            f"  {stream.name}: {_count(stream.products, 'product')}, "
            f"{_count(stream.versions, 'version')}, {format_size(stream.size_bytes)}"
            for stream in streams
        ]
    unreadable: dict[Code, list[str]] = {Code.BAD_CATALOGUE: published, Code.BAD_RECORD: runs}
    for finding in report.findings:
        if finding.code in unreadable:
            line = f"{finding.path}: {finding.problem}; {finding.remedy}"
            unreadable[finding.code].append(line)
    disk = f"{format_size(report.bytes_free)} free"
    if report.days_left is not None:
        disk += (
            f"; new versions take {format_size(report.bytes_per_day)} a day, so without prune it "
            f"lasts {_count(int(report.days_left), 'day')}"
        )
    waiting = [
        f"{one.path}: "
        + (f"deleted after {one.deleted_after}" if one.deleted_after else "still published")
        for one in report.waiting
    ]
    old = [
        f"{one.path}: newest {one.newest}, {format_age(one.age_seconds)} old"
        for one in report.products
        if one.is_old
    ]
    found = [
        ("published", published),
        ("runs", runs or ["none is recorded"]),
        ("left out", left_out),
        ("damaged", [f"{one.path}: {one.problem}" for one in report.damaged]),
        ("too old", old),
        ("withdrawn", waiting),
        ("leftovers", list(report.leftovers)),
        ("warnings", others),
        ("disk", [disk]),
    ]
    return [(heading, lines or ["nothing"]) for heading, lines in found]


def _describe_known(finding: ToldFinding) -> str:
    text = f"{finding.path}: {finding.problem}; {finding.remedy}"
    return f"{text} (known since {finding.since})"


def _describe_run(run: RunStatus) -> str:
    ago = f"{run.command}: {run.began}, {format_age(run.age_seconds)} ago"
    why = "".join(f"; {error.splitlines()[0]}" for error in run.errors[:1] if error)
    return f"{ago}, exit code {run.exit_code}{why}"


def format_age(seconds: float) -> str:
    """Return a time for people, in the largest unit that fits."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return _count(int(seconds // length), unit)
    return _count(int(seconds), "second")


def summarize_check(report: CheckReport) -> str:
    """Return the summary line of a check."""
    mismatches = len(report.mismatches) + report.mismatches_left_out
    parts = [
        f"{_count(report.files, 'file')} of {_count(report.versions, 'version')} checked in "
        f"{report.seconds:.2f} s"
    ]
    if report.files_read:
        speed = report.bytes_read / max(report.reading_seconds, 1e-9)
        parts.append(
            f"{_count(report.files_read, 'file')} read, {format_size(report.bytes_read)} at "
            f"{format_size(round(speed))}/s"
        )
    parts.append(_count(mismatches, "mismatch", "mismatches"))
    parts.append(_count(len(report.findings), "warning"))
    return "; ".join(parts)


def _describe_reading(report: BuildReport | ImportReport | VerifyReport) -> str:
    """Return how much was read, how fast, and how long the run took."""
    if not report.bytes_read:
        return f"nothing read in {report.seconds:.2f} s"
    speed = report.bytes_read / max(report.hashing_seconds, 1e-9) / 1e9
    return f"{format_size(report.bytes_read)} read at {speed:.2f} GB/s in {report.seconds:.2f} s"


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def format_size(size_bytes: int) -> str:
    """Return a size for people, in decimal units as for disks and networks."""
    amount = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:,.0f} {unit}" if unit == "B" else f"{amount:,.1f} {unit}"


@_name_stdout_in_errors()
def print_changes(changes: tuple[Change, ...]) -> None:
    """Print one line for each change: ``+`` added, ``-`` removed, ``~`` changed."""
    for change in changes:
        where = escape_unprintable(f"{change.stream} {change.product}")
        what = escape_unprintable(change.version) or "(aliases, requirements or other fields)"
        size = f" ({format_size(change.size_bytes)})" if change.size_bytes else ""
        print(f"{_SIGNS[change.kind]} {where} {what}{size}")


@_name_stdout_in_errors()
def print_rewritten(report: BuildReport) -> None:
    """Print the catalogue files that would be written although nothing changes in them."""
    changed = {product_file_path(change.stream) for change in report.changes}
    for path in report.would_write:
        is_explained = path in changed or (path == INDEX_PATH and bool(changed))
        if not is_explained:
            print(escape_unprintable(f"~ {path} (missing, or not as it would be written)"))


@_name_stdout_in_errors()
def print_steps(steps: tuple[Step, ...]) -> None:
    """Print one line for each step."""
    for step in steps:
        target = f" -> {step.target}" if step.target else ""
        size = f" ({format_size(step.size_bytes)})" if step.size_bytes else ""
        print(escape_unprintable(f"{step.verb} {step.path}{target}{size}"))


@_name_stdout_in_errors()
def print_pull_plan(report: PullReport) -> None:
    """Print a table of what a pull would do: a row for each version, with what is to be fetched."""
    rows: dict[tuple[str, str], list[int]] = {}
    for step in report.steps:
        is_file = bool(step.target)
        where = os.path.dirname(step.target) if is_file else step.path
        verb = "withdraw" if step.verb == "withdraw" else "pull"
        counts = rows.setdefault((verb, where), [0, 0])
        counts[0] += is_file
        counts[1] += step.size_bytes
    table = [("", "VERSION", "FILES", "TO FETCH")] if rows else []
    for (verb, where), (count, size_bytes) in rows.items():
        is_pulled = verb == "pull"
        numbers = (f"{count}", format_size(size_bytes)) if is_pulled else ("", "")
        table.append((verb, escape_unprintable(where), *numbers))
    widths = [max(len(row[column]) for row in table) for column in range(4)] if table else []
    for row in table:
        cells = [row[0].ljust(widths[0]), row[1].ljust(widths[1])]
        cells += [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        print("  ".join(cells).rstrip())


@_name_stdout_in_errors()
def print_mismatches(mismatches: tuple[Mismatch, ...]) -> None:
    """Print each version, with what is wrong with it."""
    version = None
    for mismatch in mismatches:
        if mismatch.version != version:
            version = mismatch.version
            print(escape_unprintable(version))
        file = f"{mismatch.file}: " if mismatch.file else ""
        print(escape_unprintable(f"  {file}{mismatch.problem}"))


@_name_stdout_in_errors()
def print_json(document: tuple[Image, ...] | Mapping[str, object]) -> None:
    """Print images, or a configuration, as JSON, which is UTF-8 in every locale."""
    print_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


@_name_stdout_in_errors()
def print_sums(digests: Mapping[str, str]) -> None:
    """Print SHA-256 and path of files, by path, as ``sha256sum`` does."""
    for path in sorted(digests):
        print_text(f"{digests[path]}  {path}")


@_name_stdout_in_errors()
def print_images(images: Sequence[Image]) -> None:
    """Print a table of images, with as many columns as fit into the terminal.

    The stream is a column if there are several.
    """
    table = [_IMAGE_COLUMNS] + [
        tuple(
            map(
                escape_unprintable,
                (
                    min(image.aliases, key=len, default=""),
                    image.fingerprint[:12],
                    image.stream,
                    image.os,
                    image.release,
                    image.variant,
                    image.arch,
                    "VM" if image.type == VIRTUAL_MACHINE else image.type,
                    format_size(image.size),
                    image.date,
                    image.serial,
                ),
            )
        )
        for image in images
    ]
    widths = {
        name: max(len(row[column]) for row in table) for column, name in enumerate(_IMAGE_COLUMNS)
    }
    shown = list(_IMAGE_COLUMNS)
    if len({image.stream for image in images}) < 2:
        shown.remove("STREAM")
    if sys.stdout.isatty():
        import shutil  # takes 1.5 ms

        columns = shutil.get_terminal_size().columns
        for name in filter(shown.__contains__, _DISPENSABLE_COLUMNS):
            if sum(widths[name] + 2 for name in shown) - 2 > columns:
                shown.remove(name)
        excess = sum(widths[name] + 2 for name in shown) - 2 - columns
        widths["ALIAS"] = max(widths["ALIAS"] - max(excess, 0), _SHORTEST_ALIAS)
    for number, row in enumerate(table):
        cells = zip(_IMAGE_COLUMNS, row, strict=True)
        line = "  ".join(_fit(cell, widths[name]) for name, cell in cells if name in shown).rstrip()
        print(paint(line, _BOLD, sys.stdout) if not number else line)


def _fit(cell: str, width: int) -> str:
    """Return a cell in as many characters as its column has."""
    return cell.ljust(width) if len(cell) <= width else f"{cell[: width - 1]}…"


@_name_stdout_in_errors()
def print_paths(paths: tuple[str, ...]) -> None:
    """Print each path on a line of its own."""
    for path in paths:
        print(escape_unprintable(path))


def print_prune_report(report: PruneReport) -> None:
    """Print what prune, remove or restore did."""
    for verb, paths in (
        ("withdrawn", report.withdrawn),
        ("deleted", report.deleted),
        ("published", report.restored),
    ):
        print_paths(tuple(f"{verb} {path}" for path in paths))


@_name_stdout_in_errors()
def print_push_plan(report: PushReport) -> None:
    """Print a table of what a push would do."""
    rows = [("", "OBJECT", "SIZE")] if report.steps else []
    for step in report.steps:
        size = format_size(step.size_bytes) if step.verb in ("upload", "write") else ""
        rows.append((step.verb, escape_unprintable(step.path), size))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for verb, path, size in rows:
        print(f"{verb:<{widths[0]}}  {path:<{widths[1]}}  {size:>{widths[2]}}".rstrip())


def print_push_report(report: PushReport) -> None:
    """Print what a push put into the bucket, and deleted there."""
    print_paths(tuple(f"uploaded {path}" for path in (*report.uploaded, *report.written)))
    print_paths(tuple(f"deleted {path}" for path in report.deleted))


@_name_stdout_in_errors()
def print_status(report: StatusReport, max_lines: int | None) -> None:
    """Print how a mirror is.

    Args:
        report: how it is.
        max_lines: how many lines a list may have; None: any number.
    """
    for heading, lines in describe_status(report):
        shown = lines if max_lines is None else lines[:max_lines]
        rest = len(lines) - len(shown)
        more = [f"and {rest:,} more; -v lists all"] if rest else []
        for number, line in enumerate([*shown, *more]):
            head = paint(f"{heading:<11}", _BOLD, sys.stdout) if not number else " " * 11
            print(f"{head}{escape_unprintable(line)}")


@_name_stdout_in_errors()
def print_bytes(data: bytes) -> None:
    """Print ``data`` as it is."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@_name_stdout_in_errors()
def print_text(text: str) -> None:
    """Print ``text``."""
    print(text)

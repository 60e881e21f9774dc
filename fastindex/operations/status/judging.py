"""Pure: what was found about a mirror → what makes it unhealthy, and how long the disk lasts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from fastindex.catalogue.summary import UnreadableFile
from fastindex.errors import Code, ExitCode
from fastindex.events import Finding
from fastindex.formats.names import find_version_time
from fastindex.formats.quantities import format_duration
from fastindex.mirror.state.runs import RunRecord, ToldFinding, is_success, sort_newest_first
from fastindex.operations.status.options import DamagedFile, ProductStatus, RunStatus

PACE_DAYS = 14
"""How many days tell how quickly the mirror grows."""
_DAY_SECONDS = 86_400
_JUDGED_HERE = (Code.PRODUCT_OLD, Code.RUN_FAILED)
"""What a nightly run tells because ``judge`` does: it is judged anew."""
_BUILDERS = ("build", "prune", "remove", "pull", "deltas")
"""The commands that build, and so tell all that is left out."""
_SUCCESSORS = {"pull": ("pull",), "push": ("push",), "nightly": (*_BUILDERS, "nightly")}
"""Command → those whose later success makes up for it, if not those that build."""
_BY_HAND = ("import", "remove")


def judge(
    *,
    unreadable: Iterable[UnreadableFile],
    runs: Iterable[RunStatus],
    unknown_runs: Mapping[str, str],
    known: Sequence[ToldFinding],
    damaged: Sequence[DamagedFile],
    products: Iterable[ProductStatus],
    root: str,
) -> Iterator[Finding]:
    """Yield what makes a mirror unhealthy, the worst first.

    Args:
        unreadable: catalogue files that cannot be read.
        runs: the last run of each command.
        unknown_runs: records of last runs that cannot be read → why.
        known: what the last build and the last pull told.
        damaged: files that are known to be damaged.
        products: the published products.
        root: ROOT, for what to do.
    """
    for file in unreadable:
        remedy = f"see fastindex verify {root}"
        yield Finding(Code.BAD_CATALOGUE, file.path, file.problem, remedy)
    pending = list(_find_pending(runs))
    for run in pending:
        if not is_success(run.exit_code):
            yield _describe_failure(run, "see to that, and run it again")
    for path, reason in unknown_runs.items():
        problem = f"cannot be read ({reason}), so how the last run ended is not known"
        yield Finding(Code.BAD_RECORD, path, problem, "run that command again, or remove the file")
    for one in damaged:
        remedy = "put the right file back (the disk may be failing), or accept it with --rehash"
        yield Finding(Code.DAMAGED, one.path, f"damaged: {one.problem}", remedy)
    versions = sum(one.versions_left_out for one in known)
    files = sum(one.files_left_out for one in known)
    if versions or files:
        counts = [_count(versions, "version"), _count(files, "file")]
        found = " and ".join(count for count in counts if count)
        problem = f"the last run left {found} out"
        yield Finding(
            Code.NOT_PUBLISHED, root, problem, "mend what is listed as left out, and run it again"
        )
    incomplete = [run for run in pending if run.exit_code == ExitCode.LEFT_OUT]
    if incomplete and not (versions or files or damaged):
        yield _describe_failure(incomplete[0], "see what it warned of, and run it again")
    for product in products:
        if product.is_old and product.max_age_seconds is not None:
            limit = format_duration(product.max_age_seconds)
            problem = f"its newest version, {product.newest}, is older than {limit}"
            remedy = "see whether its builder still works, or allow more with max_age"
            yield Finding(Code.PRODUCT_OLD, product.path, problem, remedy)


def _find_pending(runs: Iterable[RunStatus]) -> Iterator[RunStatus]:
    """Yield the runs after which no other one has done the same work.

    What a person did by hand, as an import, says nothing about the mirror.
    """
    runs = list(runs)
    for run in runs:
        successors = _SUCCESSORS.get(run.command, _BUILDERS)
        is_done = any(
            other.age_seconds < run.age_seconds
            and other.command in successors
            and is_success(other.exit_code)
            and {*run.streams} <= {*other.streams}
            for other in runs
        )
        if run.command not in _BY_HAND and not is_done:
            yield run


def _describe_failure(run: RunStatus, remedy: str) -> Finding:
    why = f": {run.errors[0].splitlines()[0]}" if run.errors and run.errors[0] else ""
    problem = f"the last run, {run.began}, ended with {run.exit_code}{why}"
    return Finding(Code.RUN_FAILED, run.command, problem, remedy)


def choose_known(records: Collection[RunRecord]) -> tuple[ToldFinding, ...]:
    """Return what the last runs that built told of each stream, and the last pull and push.

    Args:
        records: the last run of each command.
    """
    complete = sort_newest_first(
        one for one in records if one.command in _BUILDERS and is_success(one.exit_code)
    )
    found: dict[tuple[str, str, str], ToldFinding] = {}
    covered: set[str] = set()
    for number, record in enumerate(complete):
        for one in record.findings:
            is_newer = number == 0 or one.stream in {*record.streams} - covered
            if is_newer and not one.is_of_pull:
                found[one.code, one.path, one.problem] = one
        covered.update(record.streams)
    for record in complete:
        if record.command == "pull":
            found |= {(i.code, i.path, i.problem): i for i in record.findings if i.is_of_pull}
    for record in records:
        if record.command == "push" and is_success(record.exit_code):
            found |= {(i.code, i.path, i.problem): i for i in record.findings}
    return tuple(one for one in found.values() if one.code not in _JUDGED_HERE)


def count_recent_bytes(versions: Iterable[tuple[str, int]], now: float) -> int:
    """Return how many bytes the versions of the last two weeks took a day.

    Args:
        versions: the name and the size in bytes of each.
        now: seconds since 1970.
    """
    since = now - PACE_DAYS * _DAY_SECONDS
    recent = sum(size for name, size in versions if since < find_version_time(name) <= now)
    return recent // PACE_DAYS


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun if number == 1 else noun + 's'}" if number else ""

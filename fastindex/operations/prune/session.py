"""A run of prune or remove under the mirror's lock, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import ExitStack
from types import MappingProxyType

from msgspec.structs import replace

from fastindex.catalogue.published import HeldCatalogue
from fastindex.errors import Code, ExitCode, FastindexError
from fastindex.events import Finding, HeldBackFindings, Observer
from fastindex.formats.names import is_stream_name
from fastindex.mirror import staging
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.scan import collect, scan
from fastindex.mirror.state import outputs, pulled, snapshot, withdrawals
from fastindex.mirror.state.withdrawals import Withdrawals
from fastindex.mirror.tree import Found
from fastindex.operations.builder.inputs import list_settled
from fastindex.operations.builder.options import BuildReport, join_reports
from fastindex.operations.builder.pipeline import build
from fastindex.operations.prune.deletion import Deletion
from fastindex.operations.prune.options import PruneOptions, PruneReport
from fastindex.system.processes import count_usable_cpus

Clock = Callable[[], float]
"""Returns the time in seconds since the epoch. Tests pass a later one: they cannot make a file's
change time older."""


class Session:
    """A run of prune or remove: what is withdrawn, and what it did. The mirror's lock is held.

    Args:
        mirror: the mirror.
        options: how to build, and how long files outlive the catalogues that name them.
        observer: told of progress and findings.
        clock: tells the time.
        stack: closes in the end what is held open.
        consequence: what is not done while a catalogue cannot be read.
    """

    def __init__(
        self,
        mirror: Mirror,
        options: PruneOptions,
        observer: Observer,
        clock: Clock,
        stack: ExitStack,
        consequence: str = "nothing was deleted",
    ) -> None:
        self.known: Withdrawals = {}
        """What is withdrawn."""
        self.is_alone = False
        """Whether the catalogue has no other streams and the tree no other outputs: what is
        published was checked by the build, and is read only if something can go."""
        self._mirror = mirror
        self._options = options
        self._observer = observer
        self._clock = clock
        self._consequence = consequence
        self._new: set[str] = set()
        self._built: tuple[Finding, ...] = ()
        self._report: BuildReport | None = None
        self._code = ExitCode.DONE
        self._deleted: list[str] = []
        self._bytes_freed = 0
        self._findings: list[Finding] = []
        self._has_failed = False
        self._stack = stack
        self._before: HeldCatalogue | None = None
        self._current: HeldCatalogue | None = None
        self._found: list[Found] | None = None
        self._is_unchanged = False

    def start(self) -> None:
        """Load what is withdrawn, with the times by the catalogue that clients have now."""
        self._before = self._current = HeldCatalogue(self._mirror.output, self._stack)
        others = outputs.find_others(self._mirror) or self._before.streams - {*self._mirror.streams}
        self.is_alone = not others
        self.known = self._make_deletion().update_times(withdrawals.load(self._mirror))
        if self.known:
            withdrawals.save(self._mirror, self.known)

    def read_published_paths(self) -> Set[str] | None:
        """Return what the catalogue names, as the function of that name does.

        It is read when it is first asked for, and again only after a build that may have written
        it.
        """
        if self._current is None:
            self._current = HeldCatalogue(self._mirror.output, self._stack)
        return self._current.paths

    def withdraw(self, new: Withdrawals) -> None:
        """Record that ``new`` is withdrawn as well."""
        new = withdrawals.stamp(new, self._clock())
        for name in new:
            staging.remove_mark(self._mirror, name)  # no import is to take it for one that stays
        pulled.note_removed(self._mirror, withdrawals.list_withdrawn_versions(new))
        self.known = withdrawals.merge(self.known, new)
        self._new |= new.keys()
        withdrawals.save(self._mirror, self.known)

    def build(self, mirror: Mirror, *, is_needed: bool = True) -> None:
        """Publish what is in the tree and not withdrawn.

        Args:
            mirror: the mirror, with the streams to publish.
            is_needed: raise if it fails; else the next build tells why.
        """
        held_back = HeldBackFindings(self._observer)
        current, self._current = self._current, None
        self._found, self._is_unchanged = None, False  # an upload may have continued meanwhile
        try:
            options = self._options.build
            if self._report is not None:  # what was read a moment ago need not be read again
                options = replace(options, recheck="")
            built = build(mirror, options, observer=held_back, is_locked=True)
        except FastindexError:
            if is_needed:
                held_back.release()  # often the reason
                raise
            return
        self._current = None if built.wrote else current
        self._is_unchanged = built.is_unchanged
        # What only the run that does it tells.
        passing = [finding for finding in self._built if finding.code in snapshot.PASSING]
        self._built, self._code = (*passing, *built.findings), built.exit_code
        self._report = built if self._report is None else join_reports(self._report, built)

    def can_delete(self) -> bool:
        """Return whether it is known what is published, in all outputs."""
        return self._make_deletion().is_possible

    def scan_unsettled(self) -> list[Found]:
        """Return what ``scan`` does, without the versions of products that need no look.

        All their versions are complete, and not more are published than stay anyway. It is scanned
        again only after a build or a deletion.
        """
        if self._found is None:
            settled = list_settled(self._mirror, self._options.keep)
            is_all = self._is_unchanged and len(settled.listings) == settled.products
            self._found = [] if is_all else self.scan(settled.listings)
        return self._found

    def scan(self, known: Mapping[str, bytes] = MappingProxyType({})) -> list[Found]:
        """Return what is in the tree now; what cannot be read, but could a moment ago, is told.

        Args:
            known: path of a product → the listing with which its versions need no look.
        """
        options = self._options.build
        jobs = options.hashing.jobs or count_usable_cpus()
        scanned = collect(scan(self._mirror, known=known, jobs=jobs, scanners=options.scanners))
        told = {*self._built, *self._findings}
        new = [finding for finding in scanned.findings if finding not in told]
        self._findings += new
        self._has_failed |= any(finding.versions_left_out for finding in new)
        return scanned.found

    def delete(self, *, with_leftovers: bool) -> None:
        """Delete what is due.

        Args:
            with_leftovers: of everything that is withdrawn, and what was abandoned; else only of
                what this run was asked for.
        """
        deletion = self._make_deletion()
        only = None if with_leftovers else self._new
        if self.known or not self.is_alone:
            self._deleted, _ = deletion.delete_withdrawn(only, self._observer)
            self._bytes_freed = deletion.bytes_freed
        if self._deleted:
            self._found, self._is_unchanged = None, False
        if with_leftovers and (self.is_alone or deletion.is_possible):
            abandoned = deletion.find_abandoned(self.scan_unsettled())
            # Clients may still ask for the files of what was published until now.
            spared = self._before.paths or () if abandoned and self._before else ()
            self._deleted += deletion.delete_abandoned(abandoned, spared)
        self._findings += deletion.findings
        self._has_failed |= deletion.has_failed

    def warn_of_first_run(self) -> None:
        """Tell why nothing is deleted: a catalogue that was not recorded may name it."""
        problem = "was published for the first time, so nothing is deleted yet; later runs will"
        remedy = (
            "this is as it should be, unless the tree is published in another directory, too: then "
            "build it there once more with --output, so that no run deletes what is named there"
        )
        self._findings.append(Finding(Code.OTHER_OUTPUT, self._mirror.output, problem, remedy))

    def report(self) -> PruneReport:
        """Return what was done, and report the findings to the observer."""
        findings = (*self._built, *self._findings)
        for finding in findings:
            self._observer.warn(finding)
        return PruneReport(
            withdrawn=tuple(sorted(self._new)),
            deleted=tuple(self._deleted),
            bytes_freed=self._bytes_freed,
            waiting=tuple(sorted(self.known.keys() - set(self._deleted))),
            findings=findings,
            built=self._report and replace(self._report, findings=self._built),
            exit_code=max(self._code, ExitCode.LEFT_OUT) if self._has_failed else self._code,
        )

    def _make_deletion(self) -> Deletion:
        mirror = add_streams_of(self._mirror, self.known)
        return Deletion(
            mirror,
            self._options.grace_seconds,
            self._clock(),
            self.read_published_paths,
            consequence=self._consequence,
        )


def add_streams_of(mirror: Mirror, versions: Iterable[str]) -> Mirror:
    """Return the mirror with the streams of ``versions`` added: a stream may be a symlink."""
    streams = dict.fromkeys(mirror.streams)
    streams |= dict.fromkeys(version.partition("/")[0] for version in versions)
    return mirror.with_streams([stream for stream in streams if is_stream_name(stream)])

"""Fetching: missing versions → versions in the tree, many files side by side, the largest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress

from msgspec import Struct

from fastindex.errors import Code, suggest_remedy
from fastindex.events import Finding, Observer
from fastindex.hashing.options import HashingOptions
from fastindex.mirror.mirror import Mirror
from fastindex.operations.pull.arrival import Arrival
from fastindex.operations.pull.job import PullJob, find_staged
from fastindex.operations.pull.planning import PullPlan
from fastindex.operations.pull.wanted import WantedVersion
from fastindex.remote.addresses import join_url
from fastindex.remote.client import Client
from fastindex.remote.download import Fetched, Source, Unfetched, download


class Failure(Struct, frozen=True):
    """A version that could not be pulled."""

    wanted: WantedVersion
    """The version."""
    finding: Finding
    """Why."""
    is_worth_retrying: bool
    """Whether it may go better soon: the upstream may have changed since its catalogue was read, or
    a file of the mirror was of no use."""


class Fetcher:
    """Fetches versions from an upstream into the tree of a mirror.

    Args:
        mirror: the mirror.
        client: asks the servers.
        hashing: how files are hashed.
        observer: told of progress.
    """

    def __init__(
        self,
        mirror: Mirror,
        client: Client,
        hashing: HashingOptions,
        observer: Observer,
    ) -> None:
        self.pulled: list[str] = []
        """Paths of the versions that are in the tree now."""
        self.warnings: list[Finding] = []
        """What a person should know although they are."""
        self.bytes_fetched = 0
        """How many bytes came."""
        self.bytes_linked = 0
        """How many bytes other versions had already."""
        self._mirror = mirror
        self._client = client
        self._hashing = hashing
        self._observer = observer
        self._done_bytes = 0
        self._unusable: set[str] = set()

    def fetch(self, plan: PullPlan, bases: Sequence[str]) -> list[Failure]:
        """Fetch what is missing; return what failed.

        Args:
            plan: what is missing.
            bases: the URL of the upstream, and of others that have its files, too; the first one
                is asked first.
        """
        self._observer.hashing_started(plan.bytes_to_fetch)
        self._done_bytes = 0
        local = {name: path for name, path in plan.local.items() if name not in self._unusable}
        running = [_Running(self._make_job(wanted, local)) for wanted in plan.missing]
        refused = [one for one in running if one.job.refusal is not None]
        failures = [failure for one in refused for failure in self._finish(one)]
        owners = [
            (one, arrival)
            for one in running
            if one.job.refusal is None
            for arrival in one.job.arrivals
        ]
        sources = [(_make_source(one.job, arrival, bases), arrival) for one, arrival in owners]

        def stop() -> None:  # roots wait for their metadata, which may not come any more
            for arrival in (arrival for _, arrival in owners):
                arrival.fail()

        try:
            with closing(download(self._client, sources, self._advance, stop)) as results:
                for number, result in results:
                    one, arrival = owners[number]
                    self.bytes_fetched += result.bytes_received
                    if one.end(arrival, result):
                        failures += self._finish(one)
        finally:
            for one in running:
                one.job.close()
            self._observer.hashing_finished()
        return failures

    def _advance(self, count: int) -> None:
        self._done_bytes += count
        self._observer.bytes_hashed(max(0, self._done_bytes))

    def _make_job(self, wanted: WantedVersion, local: Mapping[str, str]) -> PullJob:
        staged = find_staged(self._mirror, wanted)
        return PullJob(self._mirror, wanted, self._hashing, staged, local)

    def _finish(self, one: _Running) -> list[Failure]:
        """Publish in the tree what has arrived; return why that cannot be."""
        failure = one.finish()
        one.job.close()
        self.warnings += one.job.warnings
        self._unusable |= one.job.unusable
        if failure is not None:
            return [failure]
        path = one.job.wanted.path
        self.pulled.append(path)
        self.bytes_linked += one.job.bytes_linked
        self._observer.log(f"{path}: pulled")
        return []


class _Running:
    """A version of which files are on their way."""

    def __init__(self, job: PullJob) -> None:
        self.job = job
        self._left = len(job.arrivals)
        self._failed: list[Unfetched] = []

    def end(self, arrival: Arrival, result: Fetched | Unfetched) -> bool:
        """Note that a file has arrived, or did not; return whether it was the last."""
        if isinstance(result, Unfetched):
            arrival.fail()
            self._failed.append(result)
        self._left -= 1
        return not self._left

    def finish(self) -> Failure | None:
        """Publish the version; return why that cannot be."""
        wanted = self.job.wanted
        if self.job.refusal is not None:
            return Failure(wanted, self.job.refusal, is_worth_retrying=False)
        if self._failed:
            why = self._failed[0]
            if why.error is not None:
                is_passing = why.error.errno is None or bool(self.job.unusable)
                return Failure(wanted, _describe_error(wanted, why.error), is_passing)
            finding = _describe(wanted, Code.UPSTREAM_FAILED, why.problem, why.remedy)
            return Failure(wanted, finding, is_worth_retrying=True)
        found = self.job.finish()
        if found is None:
            return None
        is_mismatch = found.code is Code.CHECKSUM_MISMATCH
        if is_mismatch:
            with suppress(OSError):  # the next run looks again
                self.job.forget_mismatches()
        return Failure(wanted, found, is_mismatch or bool(self.job.unusable))


def _make_source(job: PullJob, arrival: Arrival, bases: Sequence[str]) -> Source:
    file = arrival.wanted
    urls = tuple(join_url(base, file.path) for base in bases)
    return Source(urls, file.size_bytes, arrival.start, job.find_validator(file.name))


def _describe(wanted: WantedVersion, code: Code, problem: str, remedy: str) -> Finding:
    return Finding(code, wanted.path, problem, remedy, versions_left_out=1)


def _describe_error(wanted: WantedVersion, error: OSError) -> Finding:
    problem = f"cannot be written ({error.strerror or error})"
    return _describe(wanted, Code.NOT_WRITTEN, problem, f"{suggest_remedy(error)}, then run again")

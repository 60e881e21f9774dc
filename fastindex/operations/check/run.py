"""A check from end to end: the catalogue, its files, the server, and the upstream."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from fastindex.catalogue.contract import check_catalogue, find_version_faults
from fastindex.catalogue.images import choose_images
from fastindex.catalogue.published import Mismatch, Published, open_catalogue_of
from fastindex.errors import Code, FastindexError, translate_system_errors
from fastindex.events import Finding, Observer, report_findings
from fastindex.formats.filters import Filters, parse_filters
from fastindex.formats.names import version_label
from fastindex.formats.simplestreams import INDEX_PATH, Product
from fastindex.operations.check.files import RemoteFiles
from fastindex.operations.check.freshness import (
    Dated,
    date_product,
    describe_time,
    find_behind,
    find_outdated,
)
from fastindex.operations.check.headers import find_cache_fault
from fastindex.operations.check.options import CheckOptions, CheckReport
from fastindex.operations.check.presence import Presence
from fastindex.operations.check.reading import Reading
from fastindex.operations.check.wanted import (
    Image,
    Wanted,
    choose_sample,
    list_files,
    list_images,
)
from fastindex.remote.addresses import (
    BadUrlError,
    check_url,
    follow,
    join_url,
    parse_url,
    show_url,
)
from fastindex.remote.client import Client
from fastindex.remote.errors import FetchError

_MAX_MISMATCHES = 100_000
"""More are counted, but not kept."""


@translate_system_errors()
def check(options: CheckOptions, *, observer: Observer | None = None) -> CheckReport:
    """Check a mirror as clients see it.

    Args:
        options: which mirror, and how.
        observer: told of progress and findings.

    Returns:
        All that is wrong: the check does not stop at the first.

    Raises:
        UsageError: an option makes no sense.
        FetchError: the mirror's index cannot be had, or its server fails again and again.
        FormatError: its catalogue exceeds a bound.
        ResourceError: the system ran out of something.
    """
    options.check()
    check_url(options.url)
    if options.upstream:
        check_url(options.upstream)
    filters = parse_filters(options.filters)
    observer = observer or Observer()
    with Client(options.remote, observer) as client:
        return _Check(client, options, filters, observer).run()


class _Check:
    """One run."""

    def __init__(
        self, client: Client, options: CheckOptions, filters: Filters, observer: Observer
    ) -> None:
        self._began = time.perf_counter()
        self._client = client
        self._options = options
        self._filters = filters
        self._observer = observer
        self._url = options.url.rstrip("/")
        self._findings: list[Finding] = []
        self._mismatches: set[Mismatch] = set()
        self._left_out = 0
        self._presence = Presence(client, self._url, observer, self._note)
        self._reading = Reading(client, self._url, observer, self._note)
        self._products: list[Dated] = []
        self._versions = 0

    def run(self) -> CheckReport:
        """Check everything."""
        with RemoteFiles(self._client, self._url) as files:
            try:
                with open_catalogue_of(files) as published:
                    self._check_files(published)
            except FetchError as error:
                if not error.is_insecure:
                    raise
                self._note(Mismatch(Code.INSECURE, INDEX_PATH, "", str(error)))
                return self._report()
            self._check_server(files)
        self._check_freshness()
        self._findings += self._filters.find_unused()
        return self._report()

    def _note(self, mismatch: Mismatch) -> None:
        if len(self._mismatches) < _MAX_MISMATCHES:
            self._mismatches.add(mismatch)
        elif mismatch not in self._mismatches:
            self._left_out += 1

    def _report(self) -> CheckReport:
        return CheckReport(
            mismatches=tuple(sorted(self._mismatches, key=_get_sort_key)),
            mismatches_left_out=self._left_out,
            findings=report_findings(self._observer, self._findings),
            products=len(self._products),
            versions=self._versions,
            files=self._presence.files,
            files_read=self._reading.files,
            bytes_read=self._reading.bytes_read,
            reading_seconds=self._reading.seconds,
            seconds=time.perf_counter() - self._began,
        )

    # The catalogue, and the files that it names

    def _check_files(self, published: Published) -> None:
        checked = check_catalogue(published)
        self._findings += [*published.findings, *checked.findings]
        for mismatch in (*published.mismatches, *checked.mismatches):
            self._note(mismatch)
        self._findings += self._presence.ask(self._list_files(published), checked.bytes)
        images = self._list_images(published)
        if self._options.sample:
            sample = choose_sample(images, self._options.sample, random.SystemRandom())
            self._reading.read(sample, sum(map(_get_size, sample)))
        elif self._options.full:
            self._reading.read(images, checked.bytes)

    def _list_files(self, published: Published) -> Iterator[Wanted]:
        """Yield the files to ask for, and note what is wrong with their versions already."""
        for stream, key, product in published.products():
            chosen = self._choose_versions((stream, key, product))
            dated = date_product((stream, key, product), self._filters)
            if dated is not None:
                self._products.append(dated)
            for name, version in product.versions.items():
                label = version_label(stream, key, name)
                for code, problem in find_version_faults(label, version):
                    self._note(Mismatch(code, label, "", problem))
                if name in chosen:
                    self._versions += 1
                    yield from list_files(label, version)

    def _list_images(self, published: Published) -> Iterator[Image]:
        """Yield the images to read: those of which all files are there."""
        bad = self._presence.bad
        for product in published.products():
            stream, key, content = product
            for name in sorted(self._choose_versions(product)):
                label = version_label(stream, key, name)
                version = content.versions[name]
                for image in list_images(label, version, every_file=self._options.full):
                    files = (image.file, *(file for file, _ in image.metadata))
                    if not any((file.label, file.path) in bad for file in files):
                        yield image

    def _choose_versions(self, product: tuple[str, str, Product]) -> set[str]:
        """Return the names of the versions whose files are to be checked."""
        if not self._options.filters:
            return {*product[2].versions}
        return {image.serial for image in choose_images(product, self._filters)}

    # The server

    def _check_server(self, files: RemoteFiles) -> None:
        if self._url.lower().startswith("file:"):
            return
        for path, answered in files.answers.items():
            fault = find_cache_fault(path, answered)
            self._findings += [fault] if fault else []
        for mismatch in files.find_other_contents():
            self._note(mismatch)
        if self._url.lower().startswith("https:"):
            self._check_expiry()
            self._check_clear()

    def _check_expiry(self) -> None:
        expiry = self._client.find_expiry(self._url)
        left_seconds = None if expiry is None else expiry - time.time()
        if expiry is None or left_seconds is None or left_seconds >= self._options.expiry_seconds:
            return
        day = f"{datetime.fromtimestamp(expiry, UTC):%Y-%m-%d %H:%M} UTC"
        problem = f"its certificate expires in {describe_time(left_seconds)}, on {day}"
        remedy = "renew it, and have the web server read it again"
        finding = Finding(Code.CERTIFICATE_EXPIRES, show_url(self._url), problem, remedy)
        self._findings.append(finding)

    def _check_clear(self) -> None:
        """Ask as clients do: first over plain HTTP, for each image."""
        for path in filter(None, (INDEX_PATH, self._presence.first)):
            url = join_url(self._url, path)
            answer = self._client.ask_in_clear(url)
            if answer is None:
                return
            if self._client.has_credentials(url):
                self._add_clear(
                    show_url(self._url),
                    "answers plain HTTP, where clients ask first: they send the password in clear",
                    "let nothing listen there, and use port 443 for https",
                )
                return
            problem = _find_leak(url, *answer)
            if problem:
                self._add_clear(path, problem, "redirect all of http to https")
                return

    def _add_clear(self, path: str, problem: str, remedy: str) -> None:
        self._findings.append(Finding(Code.PLAIN_HTTP, path, problem, remedy))

    # Other mirrors

    def _check_freshness(self) -> None:
        options = self._options
        now = time.time()
        if options.max_age_seconds is not None:
            self._findings += find_outdated(self._products, options.max_age_seconds, now)
        if not options.upstream:
            return
        url = options.upstream.rstrip("/")
        try:
            theirs = self._read_upstream(url)
        except FastindexError as error:
            remedy = f"see fastindex check {show_url(url)}"
            self._findings.append(Finding(Code.UPSTREAM_FAILED, show_url(url), str(error), remedy))
            return
        lag_seconds = options.lag_seconds or 0
        self._findings += find_behind(self._products, theirs, show_url(url), lag_seconds, now)

    def _read_upstream(self, url: str) -> list[Dated]:
        with RemoteFiles(self._client, url) as files, open_catalogue_of(files) as published:
            if published.mismatches and not published.files:
                first = published.mismatches[0]
                raise FetchError(f"{files.name(first.version)}: {first.problem}", "ask who runs it")
            dated = (date_product(product, self._filters) for product in published.products())
            return [one for one in dated if one is not None]


def _find_leak(url: str, status: int, location: str) -> str:
    """Return what is wrong with an answer over plain HTTP; empty: nothing."""
    if status in (200, 206):
        return "is served over plain HTTP as well, where clients ask for images first"
    if not 300 <= status < 400 or status == 304:
        return ""
    try:
        target = follow(parse_url("http" + url.removeprefix("https")), location)
    except BadUrlError:
        return ""
    if target.scheme == "https":
        return ""
    return f"is redirected over plain HTTP, to {target}"


def _get_sort_key(mismatch: Mismatch) -> tuple[str, str, str]:
    return (mismatch.version, mismatch.file, mismatch.problem)


def _get_size(image: Image) -> int:
    return image.file.size_bytes + sum(file.size_bytes for file, _ in image.metadata)

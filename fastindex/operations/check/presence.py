"""Whether a server has the files that a catalogue names, and how it serves them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing

from fastindex.catalogue.contract import describe_size
from fastindex.catalogue.published import Mismatch
from fastindex.errors import Code
from fastindex.events import Finding, Observer
from fastindex.operations.check.headers import (
    COMPRESSED,
    NO_RANGES,
    NO_SIZE,
    NO_VALIDATOR,
    Tally,
)
from fastindex.operations.check.wanted import Wanted
from fastindex.remote.addresses import join_url
from fastindex.remote.answers import IDENTITIES, find_total
from fastindex.remote.client import Client
from fastindex.remote.errors import FetchError
from fastindex.remote.inspection import Inspected, Inspection, inspect

_MAX_CLASSES = 200
"""So many kinds of files are asked for their first byte; servers are set up by names."""


class Presence:
    """Asks for the files of a catalogue.

    Args:
        client: asks the server.
        url: the mirror.
        observer: told of progress.
        note: told each mismatch.
    """

    def __init__(
        self,
        client: Client,
        url: str,
        observer: Observer,
        note: Callable[[Mismatch], None],
    ) -> None:
        self._client = client
        self._url = url
        self._observer = observer
        self._note = note
        self._is_remote = not url.startswith("file:")
        self._tally = Tally()
        self._classes: dict[tuple[str, bool], tuple[Wanted, int]] = {}
        self._done_bytes = 0
        self.bad: set[tuple[str, str]] = set()
        """Label and path of each file that is not worth reading."""
        self.files = 0
        """How many files were asked for."""
        self.first = ""
        """The first path, in their order, of a file that is there; empty: none is."""

    def ask(self, files: Iterable[Wanted], total_bytes: int) -> list[Finding]:
        """Ask for all files; return what is to be said of how they are served.

        Args:
            files: the files.
            total_bytes: how long they are together, about.
        """
        self._observer.hashing_started(total_bytes)
        try:
            asked = ((file, join_url(self._url, file.path)) for file in files)
            with closing(inspect(self._client, asked)) as answers:
                for file, inspection in answers:
                    self._judge(file, inspection)
        finally:
            self._observer.hashing_finished()
        if self._is_remote:
            for file, count in self._classes.values():
                self._try_range(file, count)
        return self._tally.list_findings()

    def _judge(self, file: Wanted, inspection: Inspection) -> None:
        self.files += 1
        self._done_bytes += max(file.size_bytes, 0)
        self._observer.bytes_hashed(self._done_bytes)
        if not isinstance(inspection, Inspected):
            code = Code.MISSING_FILE if inspection.is_missing else Code.UNREADABLE
            code = Code.INSECURE if inspection.is_insecure else code
            self._refuse(file, code, inspection.problem)
            return
        if inspection.size_bytes not in (None, file.size_bytes):
            problem = describe_size(inspection.size_bytes or 0, file.size_bytes)
            self._refuse(file, Code.CHECKSUM_MISMATCH, problem)
            return
        self.first = min(self.first or file.path, file.path)
        if self._is_remote:
            self._judge_headers(file, inspection)

    def _judge_headers(self, file: Wanted, inspected: Inspected) -> None:
        answered = inspected.answered
        if inspected.is_compressible:
            self._tally.add(COMPRESSED, file.path)
        elif inspected.size_bytes is None:
            self._tally.add(NO_SIZE, file.path)
        if not answered.validator:
            self._tally.add(NO_VALIDATOR, file.path)
        kind = file.name, answered.accept_ranges == "bytes"
        if file.size_bytes > 1 and (kind in self._classes or len(self._classes) < _MAX_CLASSES):
            first, count = self._classes.get(kind, (file, 0))
            self._classes[kind] = min(first, file, key=_get_path), count + 1

    def _try_range(self, file: Wanted, count: int) -> None:
        """Ask for the first byte of a file that stands for all of its name."""
        try:
            answered = self._client.find_first_byte(join_url(self._url, file.path))
        except FetchError as error:
            self._refuse(file, Code.UNREADABLE, f"answers HEAD, but not GET: {error.problem}")
            return
        size_bytes = find_total(answered)
        if size_bytes not in (None, file.size_bytes):
            problem = f"has {file.size_bytes:,} bytes by HEAD, and {size_bytes:,} by GET"
            self._refuse(file, Code.CHECKSUM_MISMATCH, problem)
        elif answered.status == 200 and answered.encoding in IDENTITIES:
            self._tally.add(NO_RANGES, file.path, count)

    def _refuse(self, file: Wanted, code: Code, problem: str) -> None:
        self.bad.add((file.label, file.path))
        self._note(Mismatch(code, file.label, file.name, problem))


def _get_path(file: Wanted) -> str:
    return file.path

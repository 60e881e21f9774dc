"""Reading images from a server: every byte is hashed as it arrives, and none is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

from fastindex.catalogue.contract import describe_fingerprint, describe_sha256
from fastindex.catalogue.published import Mismatch
from fastindex.errors import Code
from fastindex.events import Observer
from fastindex.hashing.options import HashingOptions
from fastindex.hashing.stream import StreamDigest
from fastindex.operations.check.wanted import Image, Wanted
from fastindex.remote.addresses import join_url
from fastindex.remote.client import Client
from fastindex.remote.download import Source, Unfetched, download

_GROUP_IMAGES = 2000
"""Images that are read before others are looked at."""
_HASHING = HashingOptions(blake3=False)


class _Sink:
    """Hashes a file.

    Args:
        file: the file.
        after: the metadata that it has fingerprints with.
    """

    def __init__(self, file: Wanted, after: list[StreamDigest]) -> None:
        self.file = file
        self._after = after
        self.digest = StreamDigest(_HASHING, after)

    def begin(self, validator: str) -> None:
        """Learn which state of the file comes."""

    def write(self, piece: memoryview) -> None:
        self.digest.update(piece)

    def restart(self) -> None:
        self.digest = StreamDigest(_HASHING, self._after)


class Reading:
    """Reads images.

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
        self._done_bytes = 0
        self.files = 0
        """How many files were read."""
        self.bytes_read = 0
        """How many bytes came."""
        self.seconds = 0.0
        """Wall time spent on that."""

    def read(self, images: Iterable[Image], total_bytes: int) -> None:
        """Read all images.

        Args:
            images: the images.
            total_bytes: how long they are together, about.
        """
        began = time.perf_counter()
        self._observer.hashing_started(total_bytes)
        try:
            for group in _group(images):
                self._read_group(group)
        finally:
            self._observer.hashing_finished()
            self.seconds += time.perf_counter() - began

    def _read_group(self, group: list[Image]) -> None:
        metadata = dict.fromkeys(file for image in group for file, _ in image.metadata)
        sound = self._read_files([_Sink(file, []) for file in metadata])
        sinks = [
            _Sink(
                image.file,
                [sound[file].digest for file, _ in image.metadata if file in sound],
            )
            for image in group
        ]
        whole = self._read_files(sinks)
        for image in group:
            if image.file in whole:
                self._compare_fingerprints(image, whole[image.file], sound)

    def _compare_fingerprints(self, image: Image, read: _Sink, sound: dict[Wanted, _Sink]) -> None:
        pairs = [(file, combined) for file, combined in image.metadata if file in sound]
        for (file, said), found in zip(pairs, read.digest.fingerprints, strict=True):
            if found != said:
                problem = describe_fingerprint(image.file.name, found, said)
                self._note(Mismatch(Code.CHECKSUM_MISMATCH, file.label, file.name, problem))

    def _read_files(self, sinks: list[_Sink]) -> dict[Wanted, _Sink]:
        """Read files; return those that are what the catalogue says."""
        sinks.sort(key=_get_size, reverse=True)
        sources = [
            (Source((join_url(self._url, sink.file.path),), sink.file.size_bytes), sink)
            for sink in sinks
        ]
        sound: dict[Wanted, _Sink] = {}
        with closing(download(self._client, sources, self._advance)) as results:
            for number, result in results:
                sink = sinks[number]
                self.files += 1
                self.bytes_read += result.bytes_received
                fault = _find_fault(sink, result.problem if isinstance(result, Unfetched) else "")
                if fault is None:
                    sound[sink.file] = sink
                else:
                    self._note(fault)
        return sound

    def _advance(self, count: int) -> None:
        self._done_bytes += count
        self._observer.bytes_hashed(max(0, self._done_bytes))


def _find_fault(sink: _Sink, failure: str) -> Mismatch | None:
    file = sink.file
    if failure:
        return Mismatch(Code.UNREADABLE, file.label, file.name, failure)
    found = sink.digest.sha256
    if found == file.sha256:
        return None
    problem = describe_sha256(found, file.sha256)
    return Mismatch(Code.CHECKSUM_MISMATCH, file.label, file.name, problem)


def _get_size(sink: _Sink) -> int:
    return sink.file.size_bytes


def _group(images: Iterable[Image]) -> Iterator[list[Image]]:
    group: list[Image] = []
    for image in images:
        group.append(image)
        if len(group) == _GROUP_IMAGES:
            yield group
            group = []
    if group:
        yield group

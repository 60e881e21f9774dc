"""Last stage but one: put a catalogue in the place of the old one, with all that accompanies it.

Everything is written to hidden files, and what a maker cannot make stops the run, before the first
file takes its place. Then each product file is followed by its companions, those of the whole
catalogue come next, and the index with its own comes last. So a companion is never newer than what
it describes, and a run that is killed leaves some that are older: the next one makes them again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing

from msgspec import Struct
from msgspec.structs import replace

from fastindex.catalogue.companions import (
    CatalogueFile,
    Companion,
    FileMaker,
    Generation,
    Makers,
    Products,
)
from fastindex.catalogue.drafts import Draft
from fastindex.catalogue.product_files import FileProducts
from fastindex.catalogue.publication import Write
from fastindex.errors import Code, PublishError, suggest_remedy
from fastindex.events import Finding
from fastindex.formats.simplestreams import (
    INDEX_PATH,
    MAX_CATALOGUE_BYTES,
    UNDECODABLE,
    Index,
    decode,
    product_file_path,
)
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import companions, snapshot
from fastindex.mirror.state.companions import CompanionRecord, Companions
from fastindex.system import atomic
from fastindex.system.atomic import StagedFile
from fastindex.system.files import exists, has_content, read_small_file
from fastindex.system.stamps import stamp_of

_CATALOGUE_NAME = re.compile(
    rf".+(?:{'|'.join(map(re.escape, ('.json', *companions.COPY_SUFFIXES)))})"
)
"""What is beside the index: catalogue files, and what accompanies them."""


class _Staged(Struct, frozen=True):
    """A file that waits for its place."""

    path: str
    """Relative to the output directory."""
    file: StagedFile
    """Its content."""
    of: str = ""
    """The path of the catalogue file that a companion of the whole catalogue follows; "": none."""


class _Group(Struct, frozen=True):
    """A catalogue file and its companions, as far as they are written, in that order."""

    path: str
    """The path of the catalogue file, relative to the output directory."""
    staged: list[_Staged]
    """What is to take its place."""


class Published(Struct, frozen=True):
    """What was done."""

    wrote: tuple[str, ...]
    """The paths of all that was written, relative to the output directory, each once."""
    findings: tuple[Finding, ...] = ()
    """What people should know of what was removed."""


def publish(
    mirror: Mirror,
    writes: Iterable[Write],
    makers: Makers,
    now: float,
    *,
    drafts: Iterable[Draft] = (),
    before: str = "",
) -> Published:
    """Write catalogue files, make what accompanies the catalogue, remove what did.

    Args:
        mirror: the mirror; its lock is held.
        writes: the catalogue files that differ from what is published, in their order.
        makers: of all that is to accompany the catalogue.
        now: the time, in seconds since 1970.
        drafts: what ``writes`` were planned from.
        before: the digest of the catalogue that is published; "": it is not known.

    Raises:
        PublishError: a file cannot be written; every file is complete, either old or new.
        FastindexError: a maker cannot make what it is to make; nothing was published.
    """
    with ExitStack() as stack:
        publication = _Publication(mirror, makers, now, stack)
        return publication.publish(writes, {draft.stream: draft for draft in drafts}, before)


class _Publication:
    """One run's way from what it has drafted to what is published.

    Args:
        mirror: the mirror; its lock is held.
        makers: of all that is to accompany the catalogue.
        now: the time, in seconds since 1970.
        stack: closes and removes in the end what did not take its place.
    """

    def __init__(self, mirror: Mirror, makers: Makers, now: float, stack: ExitStack) -> None:
        self._mirror = mirror
        self._makers = makers
        self._now = now
        self._stack = stack
        self._known = companions.load(mirror)
        self._sources: dict[str, str] = {}
        self._records: dict[str, CompanionRecord] = {}
        self._wrote: list[str] = []
        self._removed: dict[str, list[str]] = {}

    def publish(
        self, writes: Iterable[Write], drafts: Mapping[str, Draft], before: str
    ) -> Published:
        """Do all of it."""
        self._remove_remains()
        groups = [self._stage_group(number, write) for number, write in enumerate(writes)]
        if self._makers.fingerprints or self._known.files:
            self._publish_with_companions(groups, drafts, before)
        else:
            self._commit(groups)
        findings = (*self._describe_removed(), *companions.find_stale(self._mirror))
        return Published(tuple(dict.fromkeys(self._wrote)), findings)

    def _publish_with_companions(
        self, groups: list[_Group], drafts: Mapping[str, Draft], before: str
    ) -> None:
        places = {group.path: group.staged[0].file.place for group in groups}
        files = self._list_files(places)
        groups = [*groups, *(self._make_beside(file) for file in files if file.path not in places)]
        is_same = self._sources == self._known.sources
        published_at = self._known.published_at if is_same else self._now
        products: dict[str, Products] = {
            file.stream: drafts.get(file.stream) or self._open_products(file)
            for file in files
            if file.stream
        }
        generation = Generation(self._mirror.output, files, products, published_at)
        if before and self._known.published == before:
            changed = {stream: draft.affected for stream, draft in drafts.items()}
            generation = replace(generation, changed=changed)
        waiting = self._stage_companions(generation)
        self._save("", published_at, {**self._known.files, **self._records})
        ends = [group for group in groups if group.path == INDEX_PATH][-1:]
        self._commit([group for group in groups if group not in ends])
        self._take_places(one for one in waiting if not one.of)
        self._commit(ends)
        self._take_places(one for one in waiting if one.of)
        self._remove_others()
        everything = snapshot.digest_published(self._mirror).everything
        self._save(everything, published_at, self._records)

    def _remove_remains(self) -> None:
        """Remove what a killed run has left aside, as this run may write other files."""
        if not self._known.published:
            for path in self._known.files:
                atomic.remove_staged(self._find_path(path))
        above = self._find_path(os.path.dirname(INDEX_PATH))
        try:
            atomic.remove_stale(above, _CATALOGUE_NAME)
        except OSError as error:
            raise _explain(error.filename, error) from error

    def _find_path(self, path: str) -> str:
        return os.path.join(self._mirror.output, path)

    def _stage_group(self, number: int, write: Write) -> _Group:
        """Write a catalogue file and its companions to hidden files."""
        file = self._stage(write.path, write.chunks, number)
        group = _Group(write.path, [file])
        if self._makers.fingerprints:
            catalogue_file = _make_file(write.path, file.file.place)
            source = self._digest(catalogue_file)
            made = self._make(catalogue_file, source, self._makers.of_files)
            group.staged.extend(self._stage(one.path, one.chunks or (), number) for one in made)
        return group

    def _stage(
        self,
        path: str,
        chunks: Iterable[bytes],
        number: int = 0,
        *,
        of: str = "",
        is_durable: bool = True,
    ) -> _Staged:
        where = self._find_path(path)
        try:
            staged = atomic.stage_file(
                where, chunks, is_served=True, number=number, is_durable=is_durable
            )
        except OSError as error:
            raise _explain(where, error) from error
        self._stack.callback(staged.close)
        return _Staged(path, staged, of)

    def _make(
        self, file: CatalogueFile, source: str, makers: Iterable[FileMaker]
    ) -> Iterator[Companion]:
        """Yield the companions of a catalogue file, and record that they are its."""
        for maker in makers:
            for companion in maker.make(file):
                self._records[companion.path] = CompanionRecord(file.path, source, maker.name)
                yield companion

    def _make_beside(self, file: CatalogueFile) -> _Group:
        """Write the companions of a catalogue file that stays as it is, unless they do, too."""
        source = self._digest(file)
        due: list[FileMaker] = []
        for maker in self._makers.of_files:
            made = {
                path: record
                for path, record in self._known.files.items()
                if (record.of, record.maker) == (file.path, maker.name)
            }
            is_current = self._known.makers.get(maker.name) == maker.fingerprint and all(
                record.source == source and record.is_at(self._find_path(path))
                for path, record in made.items()
            )
            if made and is_current:
                self._records |= made
            else:
                due.append(maker)
        made_now = self._make(file, source, due)
        return _Group(file.path, [self._stage(one.path, one.chunks or ()) for one in made_now])

    def _digest(self, file: CatalogueFile) -> str:
        source = self._sources[file.path] = companions.digest_file(file.place)
        return source

    def _list_files(self, places: Mapping[str, str]) -> list[CatalogueFile]:
        """Return the files of the new catalogue: its product files and the index.

        Args:
            places: path of a file that is written → where it is now.
        """
        index = _make_file(INDEX_PATH, places.get(INDEX_PATH, self._find_path(INDEX_PATH)))
        try:
            entries = decode(read_small_file(index.place, MAX_CATALOGUE_BYTES), Index).index
        except OSError as error:
            raise _explain(index.place, error) from error
        except UNDECODABLE as error:  # somebody has changed it since it was looked at
            raise PublishError(
                f"{index.place}: cannot be read ({error}), so nothing that accompanies it was "
                "made; run again"
            ) from error
        files = [
            CatalogueFile(entry.path, stream, places.get(entry.path, self._find_path(entry.path)))
            for stream, entry in entries.items()
            if entry.path == product_file_path(stream)
        ]
        return [*(file for file in files if exists(file.place)), index]

    def _open_products(self, file: CatalogueFile) -> FileProducts:
        return self._stack.enter_context(closing(FileProducts(file.place)))

    def _stage_companions(self, generation: Generation) -> list[_Staged]:
        """Make the companions of the whole catalogue; write those that have changed aside."""
        waiting: list[_Staged] = []
        for maker in self._makers.of_all:
            known = {
                path: record
                for path, record in self._known.files.items()
                if record.maker == maker.name and record.is_at(self._find_path(path))
            }
            is_same_maker = self._known.makers.get(maker.name) == maker.fingerprint
            is_whole = is_same_maker and len(known) == self._count_made(maker.name)
            one = replace(
                generation,
                companions=tuple(self._records),
                changed=generation.changed if is_whole else None,
            )
            for companion in maker.make(one):
                if companion.chunks is None:
                    self._records[companion.path] = known[companion.path]
                    continue
                data = b"".join(companion.chunks)
                self._records[companion.path] = CompanionRecord(companion.of, "", maker.name)
                if has_content(self._find_path(companion.path), data):
                    continue
                _refuse_links(self._mirror.output, companion.path)
                # Not worth thousands of syncs: a torn page is made again by the next run.
                staged = self._stage(
                    companion.path, (data,), of=companion.of, is_durable=bool(companion.of)
                )
                staged.file.rest()
                waiting.append(staged)
        return waiting

    def _count_made(self, maker: str) -> int:
        return sum(record.maker == maker for record in self._known.files.values())

    def _commit(self, groups: Iterable[_Group]) -> None:
        for group in groups:
            self._take_places(group.staged)

    def _take_places(self, waiting: Iterable[_Staged]) -> None:
        for one in waiting:
            try:
                one.file.commit()
            except OSError as error:
                raise _explain(self._find_path(one.path), error) from error
            one.file.close()
            self._wrote.append(one.path)

    def _remove_others(self) -> None:
        """Remove what accompanied the catalogue, and does not any more.

        What somebody else has put in its place stays. What leads to the rest goes first: what
        accompanied the index, then what is less deep, such as the first page.
        """

        def rank(one: tuple[str, CompanionRecord]) -> tuple[bool, int]:
            path, record = one
            return record.of != INDEX_PATH, path.count("/")

        for path, record in sorted(self._known.files.items(), key=rank):
            where = self._find_path(path)
            if path not in self._records and (record.stamp is None or record.is_at(where)):
                try:
                    atomic.remove_file(where)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise _explain(where, error) from error
                self._removed.setdefault(record.maker, []).append(path)

    def _describe_removed(self) -> Iterator[Finding]:
        """Yield a finding for each kind of companion that this run was not asked for."""
        for maker, paths in self._removed.items():
            if maker not in self._makers.fingerprints:
                rest = f", with {len(paths) - 1:,} more," if len(paths) > 1 else ","
                yield Finding(
                    Code.COMPANIONS_REMOVED,
                    min(paths),
                    f"was removed{rest} as this run was not asked for --{maker}",
                    f"if it is to stay, give --{maker} to each run, or set it in the configuration",
                )

    def _save(self, published: str, published_at: float, paths: Iterable[str]) -> None:
        """Record what accompanies the catalogue; before it is written, without its stamps.

        Args:
            published: the digest of the published catalogue; "": not all of it is written yet.
            published_at: when that was published first.
            paths: the paths of the companions, those of before included until all is written.
        """
        records = {path: self._records.get(path) or self._known.files[path] for path in paths}
        if published:
            records = {
                path: replace(record, stamp=stamp_of(os.lstat(self._find_path(path))))
                for path, record in records.items()
            }
        makers = self._makers.fingerprints
        companions.save(
            self._mirror, Companions(published, published_at, self._sources, makers, records)
        )


def _make_file(path: str, place: str) -> CatalogueFile:
    stream = "" if path == INDEX_PATH else os.path.basename(path).removesuffix(".json")
    return CatalogueFile(path, stream, place)


def _refuse_links(output: str, path: str) -> None:
    """Check that nothing leads a companion elsewhere; ``streams/`` itself may be on another disk.

    Raises:
        PublishError: a symlink does.
    """
    above = os.path.dirname(path)
    if "/" in above and os.path.islink(os.path.join(output, above)):
        raise PublishError(
            f"{os.path.join(output, above)}: is a symlink, so nothing was published; "
            "remove it: fastindex makes this directory"
        )


def _explain(path: str, error: OSError) -> PublishError:
    return PublishError(
        f"{path}: cannot be written ({error.strerror or error}); the published file is "
        f"unchanged; {suggest_remedy(error)}, then run again, or publish elsewhere with --output"
    )

"""The push from end to end: what is published → the same in a bucket, whole at any moment.

1. Open the catalogue, all of one generation, under the mirror's lock; the rest needs no lock.
2. Read the manifest of the push before, and list the bucket. What they cannot tell, ask for.
3. Claim the bucket: write a manifest that says what will be there. Another push that claims it
   later is noticed, as the manifest is another then.
4. Put files of images there. Compare the listing with the catalogue: if anything is missing or
   differs, the catalogue in the bucket stays as it was.
5. Put the product files there, then the index, if it still is the one that was seen in step 2.
6. Delete what accompanied the catalogue before, and what had its grace; write the manifest.

The next push continues one that is killed anywhere. Nothing is deleted that the manifest does not
have, and nothing that a catalogue in the bucket named within the grace.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from fastindex.errors import BrakeError, Code, PublishError, UsageError, translate_system_errors
from fastindex.events import Finding, Observer, Step
from fastindex.formats.names import is_stream_name
from fastindex.formats.object_stores import (
    IMAGE,
    MANIFEST_PATH,
    MAX_MANIFEST_BYTES,
    Manifest,
    ManifestError,
    PushedObject,
    Target,
    decode_manifest,
    encode_manifest,
)
from fastindex.formats.simplestreams import INDEX_PATH
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import outputs, withdrawals
from fastindex.operations.push.generation import Generation, open_generation
from fastindex.operations.push.options import PushOptions, PushReport
from fastindex.operations.push.planning import (
    Plan,
    adopt,
    claim,
    conclude,
    list_unknown,
    make_plan,
    match,
    measure_loss,
)
from fastindex.operations.push.uploading import (
    Job,
    Uploader,
    describe_each,
    make_headers,
    require_same,
)
from fastindex.remote.stores import (
    PART_BYTES,
    ConflictError,
    Guards,
    Store,
    Stored,
    choose_part_bytes,
    list_stored,
    open_store,
)
from fastindex.system.directories import real_path

_MAX_OBJECTS = 20_000_000
_MAX_GUARDED_BYTES = 64 << 20
"""Larger product files are put in parts, to which no condition can be attached."""
_DELETE_AT_ONCE = 1_000
_MANIFEST_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}
_NO_GUARDS = Guards(create=False, update=False)
_OTHER_PUSH = (
    "another push to {url} is going on, so this one ended; what it put there stays; "
    "let only one machine push there, then push again"
)


@translate_system_errors()
def push(
    mirror: Mirror,
    options: PushOptions,
    *,
    observer: Observer | None = None,
    clock: Callable[[], float] = time.time,
) -> PushReport:
    """Make a bucket have what is published, and nothing that was not for longer than the grace.

    Args:
        mirror: the mirror.
        options: where to, and how.
        observer: told of progress and findings.
        clock: tells the time.

    Returns:
        What was done. With a ``refusal``, files are missing or differ, and the catalogue in the
        bucket is the one before.

    Raises:
        UsageError: an option makes no sense, or obstore is not installed.
        TreeError: nothing is published, or what is cannot be pushed.
        LockHeldError: another run holds the mirror's lock.
        BrakeError: most of what is in the bucket would go.
        StoreError: the store cannot be used.
        PublishError: another push is going on.
    """
    began = time.perf_counter()
    target = options.check()
    mirror.require_root()
    outputs.require_readable_catalogue(mirror)
    observer = observer or Observer()
    if target.scheme == "file":
        _require_apart(mirror, target)
    store = open_store(target, options.store)
    with open_generation(mirror, options.wait_seconds, is_locked=not options.dry_run) as generation:
        run = _Push(mirror, options, observer, clock, store, generation)
        report = run.plan() if options.dry_run else run.do()
    return replace(report, seconds=time.perf_counter() - began)


def _require_apart(mirror: Mirror, target: Target) -> None:
    """Check that a directory is neither in the mirror nor around it.

    Raises:
        UsageError: it is.
    """
    place = f"{real_path(target.prefix)}/"
    for own in (mirror.root, mirror.output):
        real = f"{real_path(own)}/"
        if place.startswith(real) or real.startswith(place):
            raise UsageError(f"{target.url}: is in the mirror or around it; push to another place")


class _Push:
    """One push.

    Args:
        mirror: the mirror.
        options: where to, and how.
        observer: told of progress and findings.
        clock: tells the time.
        store: where to.
        generation: what is published.
    """

    def __init__(
        self,
        mirror: Mirror,
        options: PushOptions,
        observer: Observer,
        clock: Callable[[], float],
        store: Store,
        generation: Generation,
    ) -> None:
        self._options = options
        self._observer = observer
        self._clock = clock
        self._store = store
        self._generation = generation
        self._wanted = generation.list_objects()
        streams = {path.partition("/")[0] for path in self._wanted}
        streams = {name for name in streams if is_stream_name(name)}
        self._mirror = mirror.with_streams(sorted(streams)) if streams else mirror
        self._findings: list[Finding] = []
        self._guards = _NO_GUARDS
        self._claimed: Stored | None = None
        self._refusal = ""
        self._uploaded: list[str] = []
        self._written: list[str] = []
        self._deleted: list[str] = []
        self._uploading_seconds = 0.0
        self._read_bucket()

    def _read_bucket(self) -> None:
        """Learn what is in the bucket, and decide what to do."""
        read = self._store.read(MANIFEST_PATH, MAX_MANIFEST_BYTES)
        self._seen_manifest = None if read is None else read[1]
        self._manifest = Manifest() if read is None else self._decode(read[0])
        names = {*self._wanted, *self._manifest.objects}
        self._listing = list_stored(self._store, names, _MAX_OBJECTS)
        # A listing may leave something out; what were forgotten would never be deleted.
        gone = [
            path
            for path, one in self._manifest.objects.items()
            if one.etag and path not in self._wanted and path not in self._listing
        ]
        asked = describe_each(self._store, gone, self._observer)
        self._listing |= {path: stored for path, stored in asked.items() if stored is not None}
        known = match(self._manifest, self._listing)
        unknown = list_unknown(self._wanted, self._manifest, self._listing, known)
        asked = describe_each(self._store, unknown, self._observer)
        self._known = {**known, **adopt(self._wanted, self._manifest, asked)}
        self._require_own_pages()
        self._plan = self._make_plan()

    def _require_own_pages(self) -> None:
        """Check that no page of somebody else is where ours goes; ours have their digest.

        Raises:
            PublishError: there is one.
        """
        if self._store.is_directory:
            return
        pages = (path for path in self._wanted if "/" not in path)
        strange = [path for path in pages if path in self._listing and path not in self._known]
        for path, stored in describe_each(self._store, strange, self._observer).items():
            if stored is not None and not stored.sha256:
                raise PublishError(
                    f"{self._store.target.url}/{path}: was not put there by fastindex, so nothing "
                    "was pushed; move it elsewhere, or publish without --page"
                )

    def _make_plan(self) -> Plan:
        return make_plan(
            self._wanted,
            self._generation.order,
            self._manifest,
            self._known,
            self._listing,
            now=self._clock(),
            grace_seconds=self._options.grace_seconds,
        )

    def _decode(self, data: bytes) -> Manifest:
        try:
            return decode_manifest(data)
        except ManifestError as error:
            self._warn(
                Code.BAD_RECORD,
                f"{self._store.target.url}/{MANIFEST_PATH}",
                f"cannot be used ({error}), so nothing that earlier pushes put there is deleted",
                "it is written anew; delete by hand what is left over",
            )
            return Manifest()

    def plan(self) -> PushReport:
        """Return what a push would do."""
        plan = self._plan
        steps = [
            Step("upload", path, size_bytes=self._wanted[path].size)
            for path in (*plan.upload, *plan.replace)
        ]
        steps += [Step("write", path, size_bytes=self._wanted[path].size) for path in plan.write]
        steps += [Step("delete", path) for path in (*plan.discard, *plan.delete)]
        later = set(plan.unname) - set(plan.delete)
        steps += [Step("delete later", path) for path in sorted(later)]
        self._brake()
        return self._report(steps)

    def do(self) -> PushReport:
        """Push, unless all is there; return what was done."""
        if self._plan.is_done:
            return self._report()
        self._brake()
        read_before = self._manifest.objects
        self._claim()
        began = time.perf_counter()
        try:
            if self._put_images():
                self._require_claim()
                self._put_documents()
        except ConflictError as error:
            raise PublishError(_OTHER_PUSH.format(url=self._store.target.url)) from error
        finally:
            self._uploading_seconds = time.perf_counter() - began
        if self._refusal:
            self._save({**self._manifest.objects, **self._known})
            return self._report()
        self._delete()
        self._store.remove_leftovers({*read_before, *self._wanted, MANIFEST_PATH})
        self._save(conclude(self._known, self._wanted, self._deleted, self._clock()))
        return self._report()

    def _brake(self) -> None:
        """Stop a push after which most of what the bucket's catalogue names would go.

        Raises:
            BrakeError: it would.
        """
        gone, named = measure_loss(self._known, self._wanted, withdrawals.load(self._mirror))
        if 2 * gone > named and not self._options.force:
            raise BrakeError(
                f"{self._store.target.url}: {gone:,} of the {named:,} files of images there would "
                "no longer be published, so nothing was pushed; see whether this is the right "
                "bucket and the right mirror, and use --force if this is intended"
            )

    def _claim(self) -> None:
        """Write a manifest that says what will be there, and learn which conditions hold.

        Raises:
            PublishError: another push did so meanwhile.
        """
        run = secrets.token_hex(16)
        self._manifest = claim(self._manifest, self._known, self._wanted, self._plan, run)
        data = encode_manifest(self._manifest)
        trusting = Guards(create=True, update=not self._store.is_directory)
        try:
            self._store.put(MANIFEST_PATH, data, _MANIFEST_HEADERS, trusting, self._seen_manifest)
            self._guards = self._store.find_guards(MANIFEST_PATH, data, _MANIFEST_HEADERS)
            read = self._store.read(MANIFEST_PATH, MAX_MANIFEST_BYTES)
            if read is None or read[0] != data:
                raise PublishError(_OTHER_PUSH.format(url=self._store.target.url))
            self._claimed = read[1]
        except ConflictError as error:
            raise PublishError(_OTHER_PUSH.format(url=self._store.target.url)) from error
        if not ((self._guards.create and self._guards.update) or self._store.is_directory):
            self._warn(
                Code.STORE_UNGUARDED,
                self._store.target.url,
                "the store ignores If-Match or If-None-Match, so another push at the same time may "
                "go unnoticed for seconds",
                "let only one machine push there",
            )

    def _require_claim(self) -> None:
        """Check that no other push has begun since.

        Raises:
            PublishError: one has.
        """
        stored = self._store.describe(MANIFEST_PATH)
        if stored is None or self._claimed is None or stored.etag != self._claimed.etag:
            raise PublishError(_OTHER_PUSH.format(url=self._store.target.url))

    def _put_images(self) -> bool:
        """Put files of images into the bucket; return whether all that are named are there."""
        plan = self._plan
        for path in plan.replace:
            self._warn(
                Code.CONTENT_REPLACED,
                path,
                "the bucket has other bytes of it, which caches may keep for a year",
                "give changed images a new version name",
            )
        failed: list[Finding] = []
        untried = 0
        for paths in (plan.upload, plan.replace):  # those that the old catalogue names come last
            jobs = [Job(path, self._wanted[path], self._listing.get(path)) for path in paths]
            if not jobs or failed:
                continue
            uploader = Uploader(self._mirror, self._store, self._guards, self._observer)
            outcome = uploader.run(jobs)
            self._note(outcome.done)
            failed += outcome.findings
            untried += outcome.untried
        if not failed and (plan.upload or plan.replace):
            failed += self._find_changed()
        for finding in failed:
            self._tell(finding)
        if failed:
            count = len(failed) + untried
            are = "file of images is" if count == 1 else "files of images are"
            self._refusal = (
                f"{count:,} {are} not in {self._store.target.url} as the catalogue describes them, "
                "so the catalogue there stays as it was"
            )
        return not failed

    def _note(self, done: dict[str, Stored]) -> None:
        for path, stored in sorted(done.items()):
            self._known[path] = replace(self._wanted[path], etag=stored.etag)
            self._uploaded.append(path)

    def _find_changed(self) -> list[Finding]:
        """Return a finding for each file of an image that is not there as it was put there."""
        images = {path for path, one in self._wanted.items() if one.kind == IMAGE}
        listing = list_stored(self._store, images, _MAX_OBJECTS)
        return [
            Finding(
                Code.CHANGED,
                path,
                "is missing in the bucket, or has other bytes there than a moment ago",
                "see whether somebody else pushes there, then push again",
            )
            for path in sorted(images & self._known.keys())
            if (stored := listing.get(path)) is None
            or (stored.size_bytes, stored.etag) != (self._known[path].size, self._known[path].etag)
        ]

    def _put_documents(self) -> None:
        """Put the catalogue, and what accompanies it, into the bucket; the index last.

        Raises:
            ConflictError: somebody else has changed a document since the bucket was listed.
        """
        for path in self._plan.write:
            one = self._wanted[path]
            if path == INDEX_PATH:
                self._require_claim()
            stored = self._put_document(path, one)
            self._known[path] = replace(one, etag=stored.etag)
            self._written.append(path)
        # Not before: an older index of theirs, or an older page, leads to the rest of them.
        self._remove(self._plan.discard)

    def _put_document(self, path: str, one: PushedObject) -> Stored:
        headers = make_headers(path, one)
        if one.size > _MAX_GUARDED_BYTES and path != INDEX_PATH:
            part_bytes = choose_part_bytes(one.size)
            self._store.put_in_parts(
                path,
                self._generation.read_windows(path, part_bytes),
                headers,
                part_bytes=part_bytes,
                side_by_side=self._options.store.connections,
            )
            return require_same(self._store, path, one)
        data = b"".join(self._generation.read_windows(path, PART_BYTES))
        try:
            return self._store.put(path, data, headers, self._guards, self._listing.get(path))
        except ConflictError:
            return require_same(self._store, path, one)

    def _delete(self) -> None:
        """Delete what had its grace, unless another push has begun."""
        due = self._plan.delete
        if due:
            self._require_claim()
            self._remove(due)

    def _remove(self, paths: Iterable[str]) -> None:
        names = list(paths)
        for start in range(0, len(names), _DELETE_AT_ONCE):
            some = names[start : start + _DELETE_AT_ONCE]
            self._store.delete(some)
            for path in some:
                del self._known[path]
            self._deleted += some

    def _save(self, objects: dict[str, PushedObject]) -> None:
        """Write the manifest.

        Raises:
            PublishError: another push has begun.
        """
        if not self._guards.update:
            self._require_claim()
        data = encode_manifest(replace(self._manifest, objects=objects))
        try:
            self._store.put(MANIFEST_PATH, data, _MANIFEST_HEADERS, self._guards, self._claimed)
        except ConflictError as error:
            raise PublishError(_OTHER_PUSH.format(url=self._store.target.url)) from error

    def _warn(self, code: Code, path: str, problem: str, remedy: str) -> None:
        self._tell(Finding(code, path, problem, remedy))

    def _tell(self, finding: Finding) -> None:
        self._findings.append(finding)
        self._observer.warn(finding)

    def _report(self, steps: Iterable[Step] = ()) -> PushReport:
        put = (*self._uploaded, *self._written)
        return PushReport(
            target=self._store.target.url,
            uploaded=tuple(self._uploaded),
            written=tuple(self._written),
            deleted=tuple(self._deleted),
            waiting=sum(path not in self._wanted for path in self._known),
            unchanged=self._plan.unchanged,
            bytes_uploaded=sum(self._wanted[path].size for path in put),
            listed=len(self._listing),
            findings=tuple(self._findings),
            steps=tuple(steps),
            refusal=self._refusal,
            uploading_seconds=self._uploading_seconds,
        )

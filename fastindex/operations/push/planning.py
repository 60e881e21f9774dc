"""Pure: what is published, what a manifest says and what a listing shows → what to do.

An object is *known* if the listing shows the size and the ETag that the manifest has for it. Then
its digest is that of the manifest, and nothing need be asked. Any other object that is needed is
asked for the digest in its metadata, once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from fastindex.formats.object_stores import (
    COMPANION,
    IMAGE,
    Manifest,
    PushedObject,
)
from fastindex.formats.simplestreams import INDEX_PATH
from fastindex.mirror.state.withdrawals import Withdrawals, covers
from fastindex.remote.stores import Stored

Objects = Mapping[str, PushedObject]
"""Path → object."""
Listing = Mapping[str, Stored]
"""Path → what the store says of the object."""

_TYPES = {
    ".json": "application/json",
    ".sjson": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".atom": "application/atom+xml",
    ".xml": "application/xml",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".gz": "application/gzip",
    ".xz": "application/x-xz",
    ".zst": "application/zstd",
    ".bz2": "application/x-bzip2",
    ".gpg": "application/pgp-signature",
    ".asc": "application/pgp-signature",
}
_INDEX_STEM = INDEX_PATH.removesuffix("json")
_OTHER_TYPE = "application/octet-stream"
_FOR_EVER = "public, max-age=31536000, immutable"
_SHORT = "public, max-age=60"


class Plan(Struct, frozen=True):
    """What a push has to do, in this order."""

    upload: tuple[str, ...] = ()
    """Files of images that the bucket lacks."""
    replace: tuple[str, ...] = ()
    """Files of images of which the bucket has other bytes."""
    discard: tuple[str, ...] = ()
    """What accompanied the catalogue there, and does no longer; what leads to the rest first."""
    write: tuple[str, ...] = ()
    """Catalogue files and what accompanies them; the index comes last, with its own companions."""
    unname: tuple[str, ...] = ()
    """What the new catalogue does not name, but the one before did: its grace begins."""
    rename: tuple[str, ...] = ()
    """What is named again: its grace ends."""
    delete: tuple[str, ...] = ()
    """What had its grace."""
    adopt: tuple[str, ...] = ()
    """What is there already, although the manifest does not say so."""
    forget: tuple[str, ...] = ()
    """What the manifest has, but somebody else has removed or replaced it."""
    unchanged: int = 0
    """How many objects are there as they should be."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is to be done."""
        return not any(
            (
                *(self.upload, self.replace, self.discard, self.write, self.unname),
                *(self.rename, self.delete, self.adopt, self.forget),
            )
        )


def choose_headers(path: str, kind: str) -> dict[str, str]:
    """Return how a web server, and a cache in front of it, must serve an object."""
    _, extension = os.path.splitext(path)
    return {
        "Content-Type": _TYPES.get(extension, _OTHER_TYPE),
        "Cache-Control": _FOR_EVER if kind == IMAGE else _SHORT,
    }


def order_documents(product_files: Iterable[str], of: Mapping[str, str]) -> tuple[str, ...]:
    """Return the catalogue files and what accompanies them, in the order to write them.

    Each product file is followed by its own companions; then come those of the whole catalogue,
    the index, and its own.

    Args:
        product_files: paths, in the order of the index.
        of: the path of each companion → that of the catalogue file that it describes; "" or another
            path: the whole catalogue. The deepest come first, as pages and lists lead to them.
    """
    files = [*product_files, INDEX_PATH]
    own: dict[str, list[str]] = {path: [path] for path in files}
    whole: list[str] = []
    for path in sorted(of, key=lambda path: (-path.count("/"), path)):
        own.get(of[path], whole).append(path)
    *first, last = own.values()
    return (*(path for group in first for path in group), *whole, *last)


def match(manifest: Manifest, listing: Listing) -> dict[str, PushedObject]:
    """Return the objects of a manifest that are in the listing as it has them."""
    return {
        path: one
        for path, one in manifest.objects.items()
        if one.etag
        and (stored := listing.get(path)) is not None
        and (stored.size_bytes, stored.etag) == (one.size, one.etag)
    }


def list_unknown(
    wanted: Objects, manifest: Manifest, listing: Listing, known: Objects
) -> tuple[str, ...]:
    """Return the objects in the listing of which the metadata must tell the digest.

    Args:
        wanted: what the bucket should have.
        manifest: what earlier pushes put there.
        listing: what is there.
        known: those of which the digest is known.
    """
    return tuple(
        path
        for path, stored in listing.items()
        if path not in known
        and (one := wanted.get(path) or manifest.objects.get(path)) is not None
        and one.size == stored.size_bytes
    )


def adopt(
    wanted: Objects, manifest: Manifest, asked: Mapping[str, Stored | None]
) -> dict[str, PushedObject]:
    """Return the objects whose metadata has the digest that they should have.

    Args:
        wanted: what the bucket should have.
        manifest: what earlier pushes put there, or were about to.
        asked: path → what the store says of the object; None: it has gone.
    """
    found: dict[str, PushedObject] = {}
    for path, stored in asked.items():
        for one in (wanted.get(path), manifest.objects.get(path)):
            if one is None or stored is None or not stored.etag:
                continue
            if (one.sha256, one.size) == (stored.sha256, stored.size_bytes):
                found[path] = replace(one, etag=stored.etag)
                break
    return found


def make_plan(
    wanted: Objects,
    order: Iterable[str],
    manifest: Manifest,
    known: Objects,
    listing: Listing,
    *,
    now: float,
    grace_seconds: float,
) -> Plan:
    """Return what to do.

    Args:
        wanted: what the bucket should have.
        order: the documents among it, in the order to write them.
        manifest: what earlier pushes put there.
        known: what is there, with its digest.
        listing: what is there.
        now: seconds since 1970.
        grace_seconds: how long objects outlive the last catalogue that named them.
    """
    is_there = {
        path: path in known and known[path].sha256 == one.sha256 for path, one in wanted.items()
    }
    images = sorted(
        path for path, one in wanted.items() if one.kind == IMAGE and not is_there[path]
    )
    unwanted = {path: one for path, one in known.items() if path not in wanted}
    named = {path for path, one in unwanted.items() if not one.unnamed_at}
    due = {
        path
        for path, one in unwanted.items()
        if one.unnamed_at and now - one.grace_began(now) >= grace_seconds
    }
    discard = {path for path, one in unwanted.items() if one.kind == COMPANION}
    at_once = {path for path in named if not grace_seconds}
    lost = manifest.objects.keys() - known.keys() - wanted.keys()
    return Plan(
        upload=tuple(path for path in images if path not in listing),
        replace=tuple(path for path in images if path in listing),
        discard=tuple(sorted(discard, key=_rank_removal)),
        write=tuple(path for path in order if not is_there[path]),
        unname=tuple(sorted(named - discard)),
        rename=tuple(
            sorted(path for path, there in is_there.items() if there and known[path].unnamed_at)
        ),
        delete=tuple(sorted((due | at_once) - discard)),
        adopt=tuple(
            sorted(
                path
                for path, one in known.items()
                if (old := manifest.objects.get(path)) is None
                or (old.etag, old.sha256) != (one.etag, one.sha256)
            )
        ),
        forget=tuple(sorted(lost)),
        unchanged=sum(is_there.values()),
    )


def _rank_removal(path: str) -> tuple[bool, int, str]:
    """Return the rank of a companion among those that go: what leads to others is the first."""
    return not path.startswith(_INDEX_STEM), path.count("/"), path


def measure_loss(known: Objects, wanted: Objects, withdrawn: Withdrawals) -> tuple[int, int]:
    """Return how many files of images would no longer be named, and how many are named now.

    Args:
        known: what is there.
        wanted: what the catalogue names.
        withdrawn: what goes on purpose, and is no loss.
    """
    named = [path for path, one in known.items() if one.kind == IMAGE and not one.unnamed_at]
    gone = [path for path in named if path not in wanted and not covers(withdrawn, path)]
    return len(gone), len(named)


def claim(manifest: Manifest, known: Objects, wanted: Objects, plan: Plan, run: str) -> Manifest:
    """Return the manifest of a push that begins: what is there, and what will be.

    What is about to be put there has no ETag. If the push is killed, the next one knows that it may
    be there.

    Args:
        manifest: that of the push before.
        known: what is there.
        wanted: what the bucket should have.
        plan: what will be done.
        run: names the push.
    """
    objects = {path: replace(wanted[path], etag="") for path in (*plan.upload, *plan.replace)}
    objects |= {path: replace(wanted[path], etag="") for path in plan.write if path not in known}
    return replace(manifest, run=run, objects={**known, **objects})


def conclude(
    known: Objects, wanted: Objects, gone: Iterable[str], now: float
) -> dict[str, PushedObject]:
    """Return the objects of the manifest after a catalogue was pushed.

    Args:
        known: what is there.
        wanted: what the catalogue names.
        gone: what was deleted.
        now: seconds since 1970.
    """
    deleted = set(gone)
    objects: dict[str, PushedObject] = {}
    for path, one in known.items():
        if path in deleted:
            continue
        if path in wanted:
            objects[path] = replace(one, unnamed_at=0, kind=wanted[path].kind)
        else:
            objects[path] = replace(one, unnamed_at=one.grace_began(now) if one.unnamed_at else now)
    return objects

"""``streams/.products-STREAM.state``: what each product of a published file was made from.

A product that follows from the same names, stamps and settings as in the last run is published as
it was: its bytes are taken from the published file, its caches are not opened. Beside that the
file holds what the rules for the whole catalogue need to know of such products.

It is believed only together with the product file that was written with it, and only by the release
that wrote it. If it is missing, torn or another's, every product is made from the caches again,
which costs seconds.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace
from xxhash import xxh3_128_digest

from fastindex.events import Finding
from fastindex.formats.simplestreams import (
    UNDECODABLE,
    pack_state,
    unpack_state,
)
from fastindex.mirror.mirror import Mirror
from fastindex.system import atomic, files

_CHECKSUM_BYTES = 16
_MAX_BYTES = 512 << 20
"""Five times what a mirror of a million versions takes."""


class KnownProduct(Struct, frozen=True, array_like=True):
    """A product directory as the last run found it, and what became of it."""

    path: str
    """The directory, relative to ROOT."""
    listing: bytes
    """The scan's digest of names and stamps; empty if these alone do not tell."""
    inputs: bytes
    """A digest of all that it follows from; empty if it must be made again in any case."""
    versions: int
    """How many versions are published."""
    files: int
    """How many files they consist of."""
    is_present: bool
    """Whether there are versions in the tree, published or not."""
    claims: tuple[str, ...] | None
    """The aliases that it claims; None: those of its directory."""
    aliases: tuple[str, ...] | None
    """The aliases that it is published with; None: those that it claims."""
    findings: tuple[Finding, ...]
    """What a person should know of it, besides what a scan finds."""

    def list_aliases(self, default: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the aliases that it claims, and those that it is published with.

        Args:
            default: those of its directory.
        """
        claims = tuple(default) if self.claims is None else self.claims
        return claims, claims if self.aliases is None else self.aliases


class KnownStream(Struct, frozen=True, array_like=True):
    """What is known of a published stream."""

    context: bytes
    """Digest of what all products follow from, the program included."""
    published: bytes
    """Digest of its product file."""
    products: list[KnownProduct]
    """The products, also those of which nothing is published."""
    settings: dict[str, list[Finding]]
    """Settings file above or in a product → what a person should know of it."""
    fingerprints: bytes
    """What tells the published images apart: sorted numbers of 64 bits, as ``array("Q")``."""

    def list_fingerprints(self) -> array[int]:
        """Return the numbers of the published images, sorted."""
        numbers = array("Q")
        numbers.frombytes(self.fingerprints)
        return numbers


class KnownStreams(Struct):
    """What is known of the streams of a mirror."""

    streams: dict[str, KnownStream]
    """Stream → what is known of it; without those of which nothing can be believed."""
    checksums: dict[str, bytes]
    """Stream → the checksum of the file that says so."""


def load(mirror: Mirror, context: bytes, published: Mapping[str, bytes]) -> KnownStreams:
    """Return what is known of the streams of ``mirror``.

    Args:
        mirror: the mirror.
        context: digest of what all products follow from now.
        published: stream → digest of its product file now; without those that cannot be read.
    """
    known = KnownStreams({}, {})
    for stream in mirror.streams:
        found, checksum = _read(mirror, stream)
        if found is None or found.context != context:
            continue
        if found.published == published.get(stream):
            known.streams[stream] = found
            known.checksums[stream] = checksum
    return known


def load_stream(mirror: Mirror, stream: str, context: bytes) -> KnownStream | None:
    """Return what is known of a stream that is not built; its product file may be another by now.

    Args:
        mirror: the mirror.
        stream: the stream.
        context: digest of what all products follow from now.
    """
    found, _ = _read(mirror, stream)
    return found if found is not None and found.context == context else None


def _read(mirror: Mirror, stream: str) -> tuple[KnownStream | None, bytes]:
    """Return what is known of a stream, and the checksum of the file that says so."""
    try:
        data = files.read_small_file(_find_path(mirror, stream), _MAX_BYTES)
        checksum, body = data[:_CHECKSUM_BYTES], memoryview(data)[_CHECKSUM_BYTES:]
        if xxh3_128_digest(body) == checksum:
            return unpack_state(body, KnownStream), checksum
    except (OSError, *UNDECODABLE):
        pass
    return None, b""


def save(mirror: Mirror, stream: str, known: KnownStream) -> bytes:
    """Write what is known of a stream; return the checksum, empty if it could not be written.

    Errors are ignored, as no run depends on it.
    """
    body = pack_state(known)
    checksum = xxh3_128_digest(body)
    try:
        atomic.replace_file(_find_path(mirror, stream), (checksum, body), is_durable=False)
    except OSError:
        return b""
    return checksum


def forget(mirror: Mirror) -> None:
    """Let the next run look at all products of the streams of ``mirror``.

    Raises:
        OSError: it cannot be written there.
    """
    for stream in mirror.streams:
        with suppress(FileNotFoundError):
            atomic.remove_file(_find_path(mirror, stream))


def save_listings(
    mirror: Mirror, known: KnownStreams, listings: Mapping[str, bytes]
) -> list[bytes]:
    """Save new listings of products that are otherwise as they were.

    Args:
        mirror: the mirror.
        known: what is known.
        listings: path of a product → its listing now.

    Returns:
        The checksum of each stream, as ``save`` does.
    """
    return [
        save(
            mirror,
            stream,
            replace(
                one,
                products=[
                    replace(product, listing=listings.get(product.path, product.listing))
                    for product in one.products
                ],
            ),
        )
        for stream, one in known.streams.items()
    ]


def can_be_saved(findings: Iterable[Finding], *words: str) -> bool:
    """Return whether all that is said of a product can be encoded.

    A name that is not valid UTF-8 cannot.
    """
    try:
        "\0".join((*words, *(f.path + f.problem + f.remedy for f in findings))).encode()
    except UnicodeEncodeError:
        return False
    return True


def _find_path(mirror: Mirror, stream: str) -> str:
    return mirror.state_path(f".products-{stream}.state")

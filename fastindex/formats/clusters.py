"""Where a cluster is, and what this process and its workers say to each other.

Whoever reaches a scheduler can answer in a worker's name. So an answer is held against its form:
digests are bytes of the right length, texts are bounded, and lists are as long as what was asked.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from fastindex.errors import Code
from fastindex.formats.content import HEAD_BYTES
from fastindex.formats.errors import FormatError
from fastindex.formats.names import FileRole

MAX_SCHEDULER_FILE_BYTES: Final = 1 << 20
"""A scheduler file has some hundred bytes, and names its workers at most."""
_SCHEMES = ("tcp", "tls")
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", re.ASCII)
_UNDECODABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What decoders raise, whatever the bytes are."""
_EXPECTED = "must be tcp://HOST:PORT, tls://HOST:PORT, a scheduler file (FILE.json) or none"


PROGRESS: Final = "fastindex-progress"
"""The topic of events that are a name of a parcel and the bytes of it that have been read."""


def is_address(word: str) -> bool:
    """Return whether ``word`` is an address rather than the path of a scheduler file."""
    return "://" in word


def check_cluster(word: str) -> None:
    """Check the name of a cluster.

    Args:
        word: the address of a scheduler, or the path of a scheduler file.

    Raises:
        ValueError: it is neither; the message follows the name of an option.
    """
    if not is_address(word):
        if not word.endswith(".json"):
            raise ValueError(f"{_EXPECTED}, not {word!r}")
        return
    scheme, _, place = word.partition("://")
    host, _, port = place.rpartition(":")
    is_port = port.isascii() and port.isdigit() and 0 < int(port[:6]) < 1 << 16
    if scheme not in _SCHEMES or _HOST.fullmatch(host) is None or not is_port:
        raise ValueError(f"{_EXPECTED}, not {word!r}")


def find_host(address: str) -> str:
    """Return the host of an address, such as ``10.0.0.7``; empty if it has none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def find_place(address: str) -> tuple[str, int]:
    """Return host and port of an address that ``check_cluster`` accepts."""
    place = urlsplit(address)
    return place.hostname or "", place.port or 0


class _SchedulerFile(Struct):
    address: str


def parse_scheduler_file(content: bytes) -> str:
    """Return the address of the scheduler that wrote a scheduler file.

    Args:
        content: the file; the caller bounds it by ``MAX_SCHEDULER_FILE_BYTES``.

    Raises:
        FormatError: the file is no such file, or names no address that can be used.
    """
    try:
        address = msgspec.json.decode(content, type=_SchedulerFile).address
        check_cluster(address)
    except (*_UNDECODABLE, ValueError) as error:
        raise FormatError(f"is no scheduler file: {error}") from error
    if not is_address(address):
        raise FormatError(f"is no scheduler file: its address is {address!r}")
    return address


class FileMessage(Struct, frozen=True, array_like=True, gc=False):
    """A file to read, as every machine sees it: device numbers differ between machines."""

    paths: tuple[bytes, ...]
    """Its absolute paths, the first to be tried first."""
    size_bytes: int
    """Its length."""
    mtime_ns: int
    """Modification time, since 1970."""
    inode: int
    """Its number in the file system."""
    roles: tuple[FileRole, ...] = ()
    """What its names say that it is."""


class TaskMessage(Struct, frozen=True, array_like=True):
    """A root to read once."""

    root: FileMessage
    """The root."""
    metadata: tuple[FileMessage, ...] = ()
    """Its metadata files."""
    is_unified: bool = False
    """Whether it is a unified image."""


class ParcelMessage(Struct, frozen=True, array_like=True):
    """What a worker is to hash at a time."""

    process: str
    """The process that it is for: the one that was examined."""
    tasks: tuple[TaskMessage, ...]
    """The tasks."""
    wants_blake3: bool
    """Whether to compute BLAKE3."""
    wants_sha256: bool
    """Whether to compute SHA-256 and the fingerprints."""
    engine: str
    """What computes SHA-256, as an option names it."""
    name: str = ""
    """What its progress is told by; empty: nobody wants to know."""
    tell_seconds: float = 0.0
    """How often to tell it; half a second at least."""


_Digest = Annotated[bytes, Meta(max_length=32)]
_CONTROL_FREE = r"^[^\x00-\x1f\x7f]*\Z"
_Text = Annotated[str, Meta(max_length=8192, pattern=_CONTROL_FREE)]
_Name = Annotated[str, Meta(max_length=255, pattern=_CONTROL_FREE)]
_Head = Annotated[bytes, Meta(max_length=HEAD_BYTES)]
_Count = Annotated[int, Meta(ge=0)]


class DigestMessage(Struct, frozen=True, array_like=True, tag="digest"):
    """The digests of a file."""

    sha256: _Digest
    """32 bytes; empty if not asked for."""
    blake3: _Digest
    """32 bytes; empty if not asked for."""
    is_checked: bool
    """Whether its first bytes were held against its roles."""
    head: _Head
    """Its first bytes, if they fit some of its roles but not all; else empty."""


class FailureMessage(Struct, frozen=True, array_like=True, tag="failure"):
    """A file that could not be digested."""

    code: Code
    """What kind of thing is wrong."""
    problem: _Text
    """What is wrong, for people."""
    remedy: _Text
    """What to do about it."""
    costs_version: bool
    """Whether it leaves out its version."""
    is_shortage: bool
    """Whether the machine is out of something."""
    head: _Head | None
    """The first bytes, if they fit none of its roles."""


class RootFailureMessage(FailureMessage, frozen=True, array_like=True, tag="root-failure"):
    """A root that could not be digested."""

    metadata: tuple[FailureMessage, ...] = ()
    """Why each of the metadata files failed, if the root was not read because all of them did."""


class OutcomeMessage(Struct, frozen=True, array_like=True, tag="outcome"):
    """The result of reading a root; metadata in the order of the task."""

    root: DigestMessage
    """The digests of the root."""
    metadata: tuple[DigestMessage | FailureMessage, ...]
    """The digests of each metadata file."""
    fingerprints: tuple[_Digest, ...]
    """The fingerprint with each metadata file, 32 bytes; empty where that failed."""
    bytes_read: _Count
    """Bytes that were read."""
    files_read: _Count
    """Files that were read."""
    combined_type: Literal["", "virtual-machine"]
    """What a unified image is."""


class AnswerMessage(Struct, frozen=True, array_like=True):
    """What a worker made of a parcel."""

    outcomes: tuple[OutcomeMessage | RootFailureMessage, ...]
    """An outcome for each task, in their order."""
    is_other_process: bool = False
    """Whether the parcel was for another process, and has not been looked at."""
    problem: _Text = ""
    """Why the worker could do nothing with the parcel; else empty."""


class SightMessage(Struct, frozen=True, array_like=True):
    """What a worker sees of a file."""

    problem: _Text
    """Why it cannot be opened; empty if it can."""
    size_bytes: int = 0
    """Its length."""
    mtime_ns: int = 0
    """Its modification time, since 1970."""
    inode: int = 0
    """Its number in the file system."""


class Introduction(Struct, frozen=True):
    """What a worker says of itself. As JSON, so that other versions can be told apart."""

    version: _Name
    """Its version of fastindex."""
    python: _Name
    """Its version of Python, such as ``3.13``."""
    process: _Name = ""
    """A name for its process that no other one has."""
    host: _Name = ""
    """The name of its machine."""
    setup: _Text = ""
    """With what it computes SHA-256, for people."""
    engine_problem: _Text = ""
    """Why the engine that was asked for cannot be used there; empty if it can."""
    problem: _Text = ""
    """Why it can say nothing more; else empty."""
    sights: tuple[SightMessage, ...] = ()
    """What it sees of each file that it was asked about."""


class Question(Struct, frozen=True):
    """What a worker is asked before it gets work."""

    files: tuple[bytes, ...]
    """Absolute paths of files."""
    engine: str
    """What is to compute SHA-256, as an option names it."""


def encode(message: Struct) -> bytes:
    """Return a message for a worker, or for who asked one."""
    if isinstance(message, Question | Introduction):
        return msgspec.json.encode(message)
    return msgspec.msgpack.encode(message)


def decode_question(data: object) -> Question:
    """Return what a worker is asked; raises FormatError if ``data`` is no question."""
    return _decode(data, msgspec.json.Decoder(Question))


def decode_introduction(data: object) -> Introduction:
    """Return what a worker says of itself; raises FormatError if ``data`` does not say it."""
    return _decode(data, msgspec.json.Decoder(Introduction))


def decode_parcel(data: object) -> ParcelMessage:
    """Return a worker's work; raises FormatError if ``data`` is none."""
    return _decode(data, _PARCELS)


def decode_answer(data: object) -> AnswerMessage:
    """Return what a worker answers; raises FormatError if ``data`` is no answer."""
    return _decode(data, _ANSWERS)


_PARCELS = msgspec.msgpack.Decoder(ParcelMessage)
_ANSWERS = msgspec.msgpack.Decoder(AnswerMessage)
_Message = TypeVar("_Message")
_Decoded_co = TypeVar("_Decoded_co", covariant=True)


class _Decoder(Protocol[_Decoded_co]):
    def decode(self, data: bytes, /) -> _Decoded_co: ...


def _decode(data: object, decoder: _Decoder[_Message]) -> _Message:
    if not isinstance(data, bytes):
        raise FormatError(f"expected bytes, got {type(data).__name__}")
    try:
        return decoder.decode(data)
    except _UNDECODABLE as error:
        raise FormatError(str(error)) from error

"""Where a bucket is, what its manifest says, and the files in which AWS keeps credentials.

The manifest lies in a bucket that others may write: whatever does not fit makes all of it unusable,
as it decides what is deleted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from fastindex.formats.errors import FormatError
from fastindex.formats.simplestreams import has_sound_digests

MANIFEST_PATH: Final = "streams/.push.json"
"""Where the manifest is, below the prefix."""
MAX_MANIFEST_BYTES: Final = 512 << 20
"""A larger manifest is not read; a million objects take 200 MB."""
MAX_PATH_BYTES: Final = 1024
"""S3 has no longer keys."""
SCHEMES: Final = ("s3", "gs", "az", "file")
IMAGE: Final = "image"
CATALOGUE: Final = "catalogue"
COMPANION: Final = "companion"
_SCHEMA: Final = 1
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", re.ASCII)
_EXAMPLE = "s3://BUCKET/PREFIX"


class Target(Struct, frozen=True):
    """Where objects go."""

    scheme: str
    """One of ``SCHEMES``."""
    bucket: str
    """The bucket or container; empty for ``file``."""
    prefix: str
    """What stands before the path of each object, without slashes at its ends; empty: nothing. For
    ``file``, the absolute path of a directory."""

    @property
    def url(self) -> str:
        """The target as a URL, for messages; it has no secrets."""
        if self.scheme == "file":
            return f"file://{self.prefix}"
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


def parse_target(word: str) -> Target:
    """Return the target that a URL names.

    Raises:
        ValueError: it names none; the message follows a name for the URL.
    """
    scheme, separator, rest = word.partition("://")
    if not separator or scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise ValueError(f"must start with one of {known}, such as {_EXAMPLE}")
    if "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:
        raise ValueError(
            "must be a bucket and a prefix, and nothing else; credentials come from the environment"
        )
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if prefix and not is_object_path(prefix):
        raise ValueError("has a prefix that no object can have")
    if scheme == "file":
        if bucket or not prefix:
            raise ValueError("must be an absolute path, such as file:///srv/bucket")
        return Target(scheme, "", f"/{prefix}")
    if _BUCKET.fullmatch(bucket) is None:
        raise ValueError(f"lacks the name of a bucket; write it like {_EXAMPLE}")
    return Target(scheme, bucket, prefix)


def is_object_path(path: str) -> bool:
    """Return whether ``path`` can be that of an object: relative, and nothing climbs out of it."""
    if not path.isprintable() or any(part in ("", ".", "..") for part in path.split("/")):
        return False
    return len(path.encode()) <= MAX_PATH_BYTES


class PushedObject(Struct, frozen=True, omit_defaults=True):
    """An object that a push has put into the bucket, or is about to."""

    size: Annotated[int, Meta(ge=0)]
    """In bytes."""
    sha256: Annotated[str, Meta(min_length=64, max_length=64)]
    """64 hex digits."""
    kind: str = IMAGE
    """``IMAGE``; ``CATALOGUE``: a product file or the index; ``COMPANION``: what accompanies
    these."""
    etag: Annotated[str, Meta(max_length=1024)] = ""
    """What the store calls the bytes; empty: they were about to be put there."""
    unnamed_at: float = 0
    """When a catalogue that does not name it was pushed (seconds since 1970); 0: it is named."""

    def grace_began(self, now: float) -> float:
        """Return when its grace began: now, if the clock has been set back since.

        Args:
            now: seconds since 1970; so is the result.
        """
        return self.unnamed_at if 0 < self.unnamed_at <= now else now


class Manifest(Struct, frozen=True):
    """What the pushes so far have put into a bucket."""

    schema: int = _SCHEMA
    """The version of this form."""
    run: str = ""
    """Which push wrote it."""
    objects: dict[str, PushedObject] = {}
    """Path below the prefix → object."""


class ManifestError(FormatError):
    """A manifest cannot be used."""


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest."""
    return msgspec.json.encode(manifest, order="sorted") + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """Return the manifest that ``data`` is.

    Raises:
        ManifestError: it is none, or one of another release.
    """
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ManifestError(str(error)) from error
    if manifest.schema != _SCHEMA:
        raise ManifestError(f"its schema is {manifest.schema}, not {_SCHEMA}")
    for path in manifest.objects:
        if not is_object_path(path) or path == MANIFEST_PATH:
            raise ManifestError(f"{path[:100]!r} cannot be the path of an object")
    if not has_sound_digests([one.sha256 for one in manifest.objects.values()]):
        raise ManifestError("a digest in it is not 64 hex digits")
    return manifest


_AWS_KEYS: Final = (
    *("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region"),
    "endpoint_url",
)


def read_aws_profile(credentials: str, config: str, profile: str) -> Mapping[str, str]:
    """Return what the files of the AWS tools say of a profile.

    Args:
        credentials: the text of ``~/.aws/credentials``.
        config: the text of ``~/.aws/config``.
        profile: its name.

    Returns:
        ``access_key_id``, ``secret_access_key``, ``session_token``, ``region`` and ``endpoint``, as
        far as they are set.

    Raises:
        FormatError: a file is no such file. The message quotes nothing of it.
    """
    import configparser  # takes 5 ms

    named = profile if profile == "default" else f"profile {profile}"
    found: dict[str, str] = {}
    for text, section in ((config, named), (credentials, profile)):
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(text)
            values = dict(parser[section]) if parser.has_section(section) else {}
        except configparser.Error as error:
            raise FormatError("has lines that are neither [PROFILE] nor KEY = VALUE") from error
        found |= {
            key.removeprefix("aws_").removesuffix("_url"): value
            for key, value in values.items()
            if key in _AWS_KEYS
        }
    return found

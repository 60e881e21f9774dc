"""Object stores: the only module that knows obstore, the library that talks to them.

A store promises little: it may ignore the conditions of a request, or call the same bytes by
another ETag later. What it keeps to is found out, not assumed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from msgspec import Struct

from fastindex.errors import FastindexError, UsageError, is_panic
from fastindex.formats.errors import FormatError
from fastindex.formats.object_stores import Target, read_aws_profile
from fastindex.remote.addresses import show_text
from fastindex.remote.store_options import StoreOptions
from fastindex.system import atomic
from fastindex.system.files import exists, read_small_file

if TYPE_CHECKING:
    from obstore import PutMode
    from obstore.store import ObjectStore, S3Config

PART_BYTES = 8 << 20
"""Larger objects are put in parts of this size, or larger ones."""
_MAX_PARTS = 9_000
"""S3 takes 10,000."""
DIGEST_HEADER = "sha256"
"""The name of the metadata that has the digest of an object (``x-amz-meta-sha256``)."""
_LIST_CHUNK = 1_000
_MAX_CREDENTIALS_BYTES = 1 << 20
_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_QUERY = re.compile(r"\?[^\s\"']*")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


_NO_BUCKET, _CREATE_IT = "there is no such bucket", "create it, or correct its name"


class StoreError(FastindexError):
    """A store did not do what it was asked.

    Args:
        problem: what is wrong.
        remedy: what to do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


class ConflictError(StoreError):
    """The object is another than the one that was expected: somebody else put it there."""


class Stored(Struct, frozen=True):
    """An object in the store."""

    size_bytes: int
    """Its size."""
    etag: str
    """What the store calls its bytes, without quotation marks."""
    version: str = ""
    """What some stores call this version of the object."""
    sha256: str = ""
    """The digest that its metadata has; empty: none, or not asked for."""


class Guards(Struct, frozen=True):
    """Which conditions a store keeps to."""

    create: bool
    """Whether it refuses to replace an object that was to be created."""
    update: bool
    """Whether it refuses to replace another object than the one that was seen."""


class Store:
    """The objects below a prefix. Make one with ``open_store``.

    Args:
        target: where they are.
        backend: the library's store.
        options: how it is talked to.
    """

    def __init__(self, target: Target, backend: ObjectStore, options: StoreOptions) -> None:
        self.target = target
        self.options = options
        self.is_directory = target.scheme == "file"
        """Whether it is a directory on this machine, which keeps no metadata."""
        self._backend = backend

    def list(self) -> Iterator[tuple[str, Stored]]:
        """Yield the path of each object below the prefix, and what the listing says of it.

        Raises:
            StoreError: the store cannot be listed.
        """
        import obstore

        with self._explained("list"):
            for chunk in obstore.list(self._backend, chunk_size=_LIST_CHUNK):
                for meta in chunk:
                    yield meta["path"], _make_stored(meta["size"], meta)

    def read(self, path: str, max_bytes: int) -> tuple[bytes, Stored] | None:
        """Return an object and what it is; None: there is none.

        Raises:
            StoreError: it cannot be read, or is larger than ``max_bytes``.
        """
        import obstore

        try:
            with self._explained(f"read {path}", is_missing_known=True):
                result = obstore.get(self._backend, path)
                stored = _make_stored(result.meta["size"], result.meta)
                pieces: list[bytes] = []
                size = 0
                for piece in result.stream():
                    pieces.append(bytes(piece))
                    size += len(pieces[-1])
                    if size > max_bytes:
                        raise StoreError(
                            f"{path}: larger than {max_bytes} bytes", "remove it from the bucket"
                        )
                return b"".join(pieces), stored
        except FileNotFoundError:
            return None

    def describe(self, path: str) -> Stored | None:
        """Return what an object is, with the digest in its metadata; None: there is none.

        Raises:
            StoreError: it cannot be told.
        """
        import obstore

        try:
            with self._explained(f"ask for {path}", is_missing_known=True):
                result = obstore.get(self._backend, path, options={"head": True})
                digest = result.attributes.get(DIGEST_HEADER, "")
                return _make_stored(result.meta["size"], result.meta, digest)
        except FileNotFoundError:
            return None

    def put(
        self,
        path: str,
        data: bytes,
        headers: Mapping[str, str],
        guards: Guards,
        seen: Stored | None,
    ) -> Stored:
        """Put an object in one request, unless somebody else has put another one there.

        Args:
            path: its path.
            data: its bytes.
            headers: its attributes, such as ``Content-Type``, and its metadata.
            guards: the conditions that the store keeps to; it is asked for no others.
            seen: the object that may be replaced; None: there must be none.

        Raises:
            ConflictError: there is another object.
            StoreError: it cannot be put there.
        """
        mode: PutMode = "overwrite"
        if seen is None and guards.create:
            mode = "create"
        elif seen is not None and guards.update:
            # The library passes the ETag on as it is, and some listings have it without its marks.
            etag = seen.etag if seen.etag.startswith("W/") else f'"{seen.etag}"'
            mode = {"e_tag": etag, "version": seen.version} if seen.version else {"e_tag": etag}
        return self._put(path, data, headers, mode)

    def _put(self, path: str, data: bytes, headers: Mapping[str, str], mode: PutMode) -> Stored:
        import obstore

        with self._explained(f"put {path}"):
            result = obstore.put(
                self._backend,
                path,
                data,
                attributes=None if self.is_directory else dict(headers),
                mode=mode,
                use_multipart=False,
            )
        return _make_stored(len(data), result)

    def put_in_parts(
        self,
        path: str,
        chunks: Iterator[bytes],
        headers: Mapping[str, str],
        *,
        part_bytes: int,
        side_by_side: int,
    ) -> None:
        """Put an object in parts. It appears when all are there, or not at all.

        Args:
            path: its path.
            chunks: its bytes, in pieces of ``part_bytes``. What this raises is raised here, and
                nothing appears.
            headers: as for ``put``.
            part_bytes: the size of a part.
            side_by_side: how many parts are put at once.

        Raises:
            StoreError: it cannot be put there.
        """
        import obstore

        with self._explained(f"put {path}"):
            obstore.put(
                self._backend,
                path,
                chunks,
                attributes=None if self.is_directory else dict(headers),
                use_multipart=True,
                chunk_size=part_bytes,
                max_concurrency=side_by_side,
            )

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects; none of them need be there.

        Raises:
            StoreError: one cannot be deleted.
        """
        import obstore

        if not self.is_directory:
            with self._explained("delete objects"):
                obstore.delete(self._backend, paths)
            return
        for path in paths:
            try:
                with self._explained(f"delete {path}", is_missing_known=True):
                    obstore.delete(self._backend, path)
            except FileNotFoundError:
                pass

    def remove_leftovers(self, paths: Iterable[str]) -> None:
        """Remove what pushes that were killed left beside objects: ``PATH#1``, ``PATH#2`` ...

        The library writes an object of a directory there at first, and never lists it.

        Args:
            paths: of the objects that they were about to put there.

        Raises:
            StoreError: one cannot be removed.
        """
        if not self.is_directory:
            return
        for path in paths:
            for number in count(1):
                place = os.path.join(self.target.prefix, f"{path}#{number}")
                try:
                    if not exists(place):
                        break
                    atomic.remove_file(place)
                except OSError as error:
                    raise StoreError(
                        f"{place}: cannot be removed ({error.strerror})", "see to that"
                    ) from error

    def find_guards(self, path: str, data: bytes, headers: Mapping[str, str]) -> Guards:
        """Return which conditions the store keeps to.

        Args:
            path: an object that is there.
            data: its bytes, which may be put there again.
            headers: its attributes.

        Raises:
            StoreError: it cannot be told.
        """
        if self.is_directory:
            return Guards(create=True, update=False)
        both = Guards(create=True, update=True)
        keeps = []
        for seen in (None, Stored(0, "0" * 32, "0")):
            try:
                self.put(path, data, headers, both, seen)
                keeps.append(False)
            except ConflictError:
                keeps.append(True)
        return Guards(*keeps)

    @contextmanager
    def _explained(self, what: str, *, is_missing_known: bool = False) -> Iterator[None]:
        """Raise StoreError instead of what the library raises."""
        from obstore import exceptions

        try:
            yield
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
            raise ConflictError(
                f"{self.target.url}: cannot {what}: it is there, or is another by now",
                "see whether somebody else pushes there",
            ) from error
        except FileNotFoundError as error:
            if is_missing_known:
                raise
            raise StoreError(
                f"{self.target.url}: cannot {what}: {_NO_BUCKET}", _CREATE_IT
            ) from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise StoreError(
                f"{self.target.url}: cannot {what}: permission denied",
                "check the credentials in the environment, and what they may do",
            ) from error
        except BaseException as error:
            known = (exceptions.BaseError, NotImplementedError, ValueError)
            if not isinstance(error, known) and not is_panic(error):
                raise
            if "NoSuchBucket" in str(error):
                raise StoreError(
                    f"{self.target.url}: cannot {what}: {_NO_BUCKET}", _CREATE_IT
                ) from error
            raise StoreError(
                f"{self.target.url}: cannot {what}: {_shorten(error)}", "try again later"
            ) from error


def choose_part_bytes(size_bytes: int) -> int:
    """Return the size of the parts of an object, of which a store takes a limited number."""
    least = -(-size_bytes // _MAX_PARTS)
    return max(PART_BYTES, -(-least // (1 << 20)) * (1 << 20))


def open_store(target: Target, options: StoreOptions) -> Store:
    """Return the store of ``target``; nothing is asked yet.

    Raises:
        UsageError: obstore is not installed, or the environment or an option makes no sense.
        StoreError: the store cannot be used.
    """
    options.check()
    try:
        from obstore import exceptions
        from obstore import store as backends
    except ImportError as error:
        raise UsageError(
            "push needs the library obstore; install it: pip install obstore"
        ) from error
    shared: dict[str, Any] = {
        "client_options": {
            "allow_http": options.allow_http,
            "timeout": timedelta(seconds=options.timeout_seconds),
            "connect_timeout": timedelta(seconds=min(10, options.timeout_seconds)),
        },
        "retry_config": {
            "max_retries": options.retries,
            "retry_timeout": timedelta(seconds=options.timeout_seconds),
            "backoff": {
                "init_backoff": timedelta(milliseconds=200),
                "max_backoff": timedelta(seconds=15),
                "base": 2,
            },
        },
    }
    prefix = target.prefix or None
    backend: ObjectStore
    try:
        if target.scheme == "file":
            os.stat(target.prefix)
            backend = backends.LocalStore(target.prefix)
        elif target.scheme == "s3":
            config, endpoint = _find_s3_settings(options)
            if _is_plain(endpoint):
                _require_allowed(endpoint, options)
                shared["client_options"]["allow_http"] = True
            backend = backends.S3Store(target.bucket, prefix=prefix, config=config, **shared)
        elif target.scheme == "gs":
            backend = backends.GCSStore(target.bucket, prefix=prefix, **shared)
        else:
            backend = backends.AzureStore(target.bucket, prefix=prefix, **shared)
    except FileNotFoundError as error:
        raise StoreError(f"{target.url}: there is no such directory", "create it") from error
    except (exceptions.BaseError, ValueError, OSError) as error:
        raise StoreError(
            f"{target.url}: cannot be used: {_shorten(error)}",
            "check the settings in the environment",
        ) from error
    return Store(target, backend, options)


def _find_s3_settings(options: StoreOptions) -> tuple[S3Config, str]:
    """Return what the files of the AWS tools and the options set, and the endpoint.

    The library reads the environment, which wins over the files.
    """
    config: Any = dict(_read_profile())
    environment = os.environ
    if environment.get("AWS_ACCESS_KEY_ID"):
        for name in ("access_key_id", "secret_access_key", "session_token"):
            config.pop(name, None)
    if environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION"):
        config.pop("region", None)
    named = next(filter(None, map(environment.get, _ENDPOINT_VARIABLES)), "")
    endpoint = options.endpoint or named or config.get("endpoint", "")
    config.pop("endpoint", None)
    if "@" in endpoint:
        raise UsageError(
            "the endpoint must not have a user name or a password, which messages of servers and "
            "proxies show; put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if endpoint:
        config["endpoint"] = endpoint
        config["aws_endpoint_url_s3"] = endpoint
    return config, endpoint


def _read_profile() -> Mapping[str, str]:
    home = os.path.join(os.environ.get("HOME", "/nonexistent"), ".aws")
    texts = []
    for variable, name in (
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
        ("AWS_CONFIG_FILE", "config"),
    ):
        path = os.environ.get(variable) or os.path.join(home, name)
        try:
            texts.append(read_small_file(path, _MAX_CREDENTIALS_BYTES).decode())
        except (FileNotFoundError, NotADirectoryError):
            texts.append("")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot be read; give this user read permission") from error
    try:
        return read_aws_profile(texts[0], texts[1], os.environ.get("AWS_PROFILE") or "default")
    except FormatError as error:
        raise UsageError(f"{home}: a file of the AWS tools {error}; correct it") from error


def _is_plain(endpoint: str) -> bool:
    return endpoint.lower().startswith("http://")


def _require_allowed(endpoint: str, options: StoreOptions) -> None:
    """Check that a server may be asked without TLS.

    Raises:
        UsageError: it may not.
    """
    try:
        host = urlsplit(endpoint).hostname or ""
    except ValueError:
        host = ""
    if not options.allow_http and host not in _LOOPBACK:
        raise UsageError(
            f"the endpoint {show_text(host)} is asked without TLS, so others could change what "
            "is pushed; use https://, or --allow-http if that is intended"
        )


def _make_stored(size_bytes: int, meta: Mapping[str, Any], sha256: str = "") -> Stored:
    etag = (meta["e_tag"] or "")[:1024]
    plain = etag if etag.startswith("W/") else etag.strip('"')
    return Stored(size_bytes, plain, meta["version"] or "", sha256)


def _shorten(error: BaseException) -> str:
    """Return what the library says, without what only its authors can use, and without secrets."""
    text = str(error).partition("\n\nDebug source")[0]
    return show_text(" ".join(_QUERY.sub("", text).split()))


def list_stored(store: Store, wanted: Iterable[str], max_objects: int) -> dict[str, Stored]:
    """Return what the store has of ``wanted``, whatever else it has.

    Args:
        store: the store.
        wanted: paths.
        max_objects: how many objects there may be.

    Raises:
        StoreError: it cannot be listed, or has more.
    """
    names = wanted if isinstance(wanted, set | frozenset) else set(wanted)
    found: dict[str, Stored] = {}
    for number, (path, stored) in enumerate(store.list(), 1):
        if number > max_objects:
            raise StoreError(
                f"{store.target.url}: has more than {max_objects:,} objects",
                "push below a prefix of its own",
            )
        if path in names:
            found[path] = stored
    return found

"""The client: what all requests share, and documents."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from fastindex.errors import UsageError
from fastindex.events import Observer
from fastindex.remote.addresses import Address, BadUrlError, parse_url, show_url
from fastindex.remote.answers import IDENTITIES, Answered
from fastindex.remote.errors import FetchError, PermanentError, TransientError
from fastindex.remote.options import RemoteOptions
from fastindex.system import signals

if TYPE_CHECKING:
    from ssl import SSLContext

    from fastindex.remote.sessions import Reply, Request, Session, Trust

_PIECE_BYTES = 1 << 20
_CLEAR_SECONDS = 5
"""How long to wait for a server that may drop what comes to it over plain HTTP."""

_Answer = TypeVar("_Answer")


class Document(Struct, frozen=True):
    """A small file, whole."""

    content: bytes
    """Its bytes."""
    etag: str
    """``ETag``, as the server sent it; empty: none."""
    url: str
    """Where it was in the end, after redirects."""
    answered: Answered = Answered(200, None)
    """What the headers say."""


class Retry(Struct, frozen=True):
    """Something that will be asked for again."""

    address: Address
    """What."""
    problem: str
    """Why."""
    delay_seconds: float
    """When."""


class Client:
    """Asks servers; a context manager.

    Args:
        options: how.
        observer: told what is asked for again, and why.

    Raises:
        UsageError: the options make no sense.
    """

    def __init__(self, options: RemoteOptions, observer: Observer | None = None) -> None:
        options.check()
        self.options = options
        """How the caller wants servers to be asked."""
        self._observer = observer or Observer()
        self._told: set[tuple[tuple[str, str, int], str]] = set()
        self._trust: Trust | None = None
        self._session: Session | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def fetch(
        self, url: str, max_bytes: int, known_etag: str = "", *, accept_encoding: str = "identity"
    ) -> Document | None:
        """Return a document; None if it is still the known one.

        Args:
            url: where it is.
            max_bytes: the largest size that is accepted.
            known_etag: the tag of what is known already; empty: send it in any case. A server that
                sends none sends everything each time: two catalogues of one second have the same
                ``Last-Modified``.
            accept_encoding: how the content may be compressed; ``answered`` says how it is.

        Raises:
            FetchError: it cannot be had, after all retries.
            UsageError: the URL is not to be asked, or cannot be asked with the password or the
                proxy that the environment names.
        """
        from fastindex.remote.sessions import Request

        address = _parse(url)
        request = Request(address, if_none_match=known_etag, accept_encoding=accept_encoding)
        return self._retry(address, lambda: self._fetch_once(request, max_bytes))

    def find_first_byte(self, url: str) -> Answered:
        """Ask for the first byte of a file; return what the headers say.

        Raises:
            FetchError: there is no answer, after all retries.
            UsageError: as ``fetch``.
        """
        from fastindex.remote.sessions import Request

        def ask() -> Answered:
            reply = self._find_session().open(request)
            reply.close()
            return reply.answered

        address = _parse(url)
        request = Request(address, part=(0, 1))
        return self._retry(address, ask)

    def find_expiry(self, url: str) -> float | None:
        """Return when the certificate at ``url`` expires, in seconds since 1970; None: unknown.

        Raises:
            FetchError: there is no connection, after all retries.
            UsageError: as ``fetch``.
        """
        address = _parse(url)
        if address.scheme != "https":
            return None
        return self._retry(address, lambda: self._find_session().find_expiry(address))

    def ask_in_clear(self, url: str) -> tuple[int, str] | None:
        """Ask for the headers of a file over plain HTTP, as clients of https URLs first do.

        No credentials are sent, no redirect is followed, and nothing is tried twice.

        Args:
            url: an https URL. Clients ask at its own port; at port 80 if it names none.

        Returns:
            The status, and where it redirects to. None: nobody answers HTTP there, or there is a
            proxy in between that would answer for others.
        """
        from msgspec.structs import replace

        from fastindex.remote.errors import RequestError
        from fastindex.remote.proxies import find_proxy
        from fastindex.remote.sessions import Request, Session

        address = _parse(url)
        port = 80 if address.port == 443 else address.port
        clear = replace(address, scheme="http", port=port)
        if find_proxy(clear) is not None:
            return None
        seconds = min(self.options.timeout_seconds, _CLEAR_SECONDS)
        session = Session(self.find_trust, replace(self.options, timeout_seconds=seconds))
        try:
            return session.ask_once(Request(clear, method="HEAD", is_anonymous=True))
        except RequestError:
            return None
        finally:
            session.close()

    def has_credentials(self, url: str) -> bool:
        """Return whether netrc has a password for the host of ``url``."""
        return _parse(url).host in self.find_trust().credentials

    def _retry(self, address: Address, ask: Callable[[], _Answer]) -> _Answer:
        from fastindex.remote.retrying import find_delay

        failures = 0
        while True:
            signals.check()
            try:
                return ask()
            except TransientError as error:
                failures += 1
                if failures > self.options.retries:
                    raise FetchError(f"{address}: {error.problem}", error.remedy) from error
                delay = find_delay(failures, self.options.first_delay_seconds, error.wait_seconds)
                self.tell_retry(Retry(address, error.problem, delay))
                _wait(delay)
            except PermanentError as error:
                raise FetchError(
                    f"{address}: {error.problem}",
                    error.remedy,
                    is_missing=error.is_missing,
                    is_insecure=error.is_insecure,
                ) from error

    def tell_retry(self, retry: Retry) -> None:
        """Tell what is asked for again: once for each problem of a server, else to the curious.

        Only the thread of the observer calls it.
        """
        message = f"{retry.address}: {retry.problem}; asking again in {retry.delay_seconds:.1f} s"
        kind = (retry.address.origin, retry.problem)
        if kind in self._told:
            self._observer.log(message)
        else:
            self._told.add(kind)
            self._observer.note(f"{message}, at most {self.options.retries} times")

    def open_session(self) -> Session:
        """Return a session for one thread, which closes it."""
        from fastindex.remote.sessions import Session

        return Session(self.find_trust, self.options)

    def find_trust(self) -> Trust:
        """Return what all sessions share: certificates and credentials, read when first needed.

        Raises:
            UsageError: netrc or the certificates cannot be read.
        """
        if self._trust is None:
            from fastindex.remote.credentials import read_netrc
            from fastindex.remote.sessions import Trust

            self._trust = Trust(self.options, _make_context(self.options), read_netrc())
        return self._trust

    def _find_session(self) -> Session:
        if self._session is None:
            self._session = self.open_session()
        return self._session

    def _fetch_once(self, request: Request, max_bytes: int) -> Document | None:
        reply = self._find_session().open(request)
        try:
            answered = reply.answered
            if answered.status == 304:
                return None
            encodings = (*IDENTITIES, request.accept_encoding)
            if answered.status != 200 or answered.encoding not in encodings:
                raise PermanentError(
                    "the server sends a part of it, or sends it compressed, unasked",
                    "check the server",
                )
            content = _read(reply, max_bytes)
        finally:
            reply.close()
        url = reply.request.address.url
        return Document(content, answered.etag, url, answered)


def _parse(url: str) -> Address:
    try:
        return parse_url(url)
    except BadUrlError as error:
        raise UsageError(f"{show_url(url)}: {error}") from None


def _read(reply: Reply, max_bytes: int) -> bytes:
    from fastindex.remote.retrying import CLOSED_EARLY

    length_bytes = reply.answered.length_bytes
    too_large = PermanentError(f"it is larger than {max_bytes} bytes", "check the server")
    if length_bytes is not None and length_bytes > max_bytes:
        raise too_large
    content = bytearray()
    buffer = memoryview(bytearray(_PIECE_BYTES))
    while count := reply.fill(buffer, signals.CHECK_SECONDS):
        signals.check()
        content += buffer[:count]
        if len(content) > max_bytes:
            raise too_large
    if length_bytes is not None and len(content) != length_bytes:
        raise TransientError(CLOSED_EARLY)
    return bytes(content)


def _wait(seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, signals.CHECK_SECONDS))
        signals.check()


def _make_context(options: RemoteOptions) -> SSLContext:
    import ssl

    try:
        context = ssl.create_default_context(cafile=options.ca_file or None)
    except (OSError, ValueError) as error:
        raise UsageError(f"{options.ca_file}: not a PEM file of certificates") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context

"""Connecting to the scheduler of a cluster; if that fails, it is told why.

Before dask's library connects, who listens is looked at: it says of each failure the same.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fastindex.errors import ResourceError
from fastindex.formats import clusters

_RETRY_SECONDS = 0.5
_SILENCE_SECONDS = 2.0
"""A scheduler speaks first, and at once. After so long it is told that somebody waits for it, and
who waits for a request gets one."""
_KNOCK = b"\0\0\0\n\n"
"""What web servers and those of TLS refuse, with an answer, and is too short to mean anything to
dask."""
_MAX_GREETING_BYTES = 1 << 20
_TLS_ALERT = b"\x15\x03"
_CERTIFICATES = (
    "name certificates that the scheduler knows in DASK_DISTRIBUTED__COMM__TLS__CA_FILE, "
    "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"
)


async def connect(library: Any, address: str, patience: float, note: Callable[[str], None]) -> Any:
    """Return a client of the library that is connected to a scheduler.

    Args:
        library: dask's distributed.
        address: the address of the scheduler.
        patience: how many seconds to wait for it.
        note: called with a line when it is waited for.

    Raises:
        ResourceError: nobody answers there, or somebody else.
    """
    until = time.monotonic() + patience
    arguments = _read_connection_arguments(library, address)
    await _Caller(address, patience, until, arguments["ssl_context"], note).call()
    client: Any = None
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + patience):
            await _require_scheduler(library, address, patience, arguments)
            client = library.Client(
                address, asynchronous=True, timeout=patience, set_as_default=False
            )
            await client
    except ResourceError:
        raise
    except BaseException as error:
        if client is not None:
            with suppress(Exception):
                await client.close(1)
        if not isinstance(error, Exception):
            raise
        raise ResourceError(
            f"the scheduler {address} cannot be used ({describe(error)}); look into its log, and "
            "whether it has the same release of distributed"
        ) from error
    return client


def describe(error: BaseException) -> str:
    """Return an error for people, in one line."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _read_connection_arguments(library: Any, address: str) -> dict[str, Any]:
    """Return what dask's configuration says of connections.

    Raises:
        ResourceError: the address needs certificates, and they are missing or cannot be used.
    """
    is_tls = address.startswith("tls:")
    try:
        arguments: dict[str, Any] = library.Security().get_connection_args("client")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        if not is_tls:
            return {"ssl_context": None}
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ResourceError(
            f"--cluster {address}: the certificates cannot be used ({reason}); {_CERTIFICATES}"
        ) from error
    if not is_tls:
        return arguments | {"ssl_context": None}
    if arguments["ssl_context"] is None:
        raise ResourceError(f"--cluster {address}: needs certificates; {_CERTIFICATES}")
    return arguments


class _Caller:
    """Calls at an address, to learn who is there.

    Args:
        address: the address.
        patience: how many seconds to wait, for messages.
        until: how long to wait, by the monotonic clock.
        context: for TLS; None: do without.
        note: called with a line when it is waited for.
    """

    def __init__(
        self,
        address: str,
        patience: float,
        until: float,
        context: ssl.SSLContext | None,
        note: Callable[[str], None],
    ) -> None:
        self._address = address
        self._place = clusters.find_place(address)
        self._patience = patience
        self._until = until
        self._context = context
        self._note = note
        self._has_noted = False

    async def call(self) -> None:
        """Return as soon as somebody is there who speaks as dask does; raises ResourceError."""
        while (problem := await self._try()) is not None:
            if time.monotonic() + _RETRY_SECONDS > self._until:
                raise ResourceError(
                    f"the scheduler {self._address} cannot be reached, for {self._patience:g} s "
                    f"({problem}); start it with dask scheduler, or correct --cluster"
                )
            self._wait(problem)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _try(self) -> str | None:
        """Return why nobody can be reached; None: somebody is there who speaks as dask does."""
        host, port = self._place
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
        except socket.gaierror as error:
            raise ResourceError(
                f"--cluster {self._address}: the name {host} is not known ({error.strerror}); "
                "correct it, or see to the resolver of names"
            ) from error
        problem = ""
        for *_, place in found:
            try:
                async with asyncio.timeout(max(0.1, self._until - time.monotonic())):
                    reader, writer = await asyncio.open_connection(
                        str(place[0]),
                        port,
                        ssl=self._context,
                        server_hostname=host if self._context is not None else None,
                    )
                    try:
                        await self._listen(reader, writer)
                    finally:
                        writer.transport.abort()
            except ssl.SSLError as error:
                raise ResourceError(explain_tls(self._address, error)) from error
            except TimeoutError:
                problem = "no answer"
            except OSError as error:
                problem = os.strerror(error.errno).lower() if error.errno else describe(error)
            else:
                return None
        return problem

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hear how somebody greets.

        Raises:
            ResourceError: not as dask does.
        """
        heard = asyncio.ensure_future(_read_greeting(reader))
        try:
            done, _ = await asyncio.wait({heard}, timeout=_SILENCE_SECONDS)
            if not done:
                self._wait("it does not answer")
                writer.write(_KNOCK)
            greeting = await heard
        except ConnectionError:
            if done:
                raise
            greeting = b""  # that is what it thinks of being knocked at
        finally:
            heard.cancel()
        if not greeting and self._context is None and done:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        problem = explain_greeting(self._address, greeting)
        if problem:
            raise ResourceError(problem)

    def _wait(self, problem: str) -> None:
        """Tell, once, that the scheduler is waited for."""
        if not self._has_noted:
            self._has_noted = True
            self._note(
                f"waiting for the scheduler {self._address}, at most {self._patience:g} s "
                f"({problem})"
            )


async def _read_greeting(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readexactly(8)
    except asyncio.IncompleteReadError as error:
        return error.partial


def explain_greeting(address: str, greeting: bytes) -> str:
    """Return why who greets so is no scheduler; empty: it may be one.

    Args:
        address: its address.
        greeting: the first 8 bytes that it says: of dask's, the length of a short message.
    """
    if len(greeting) == 8 and struct.unpack("<Q", greeting)[0] <= _MAX_GREETING_BYTES:
        return ""
    if greeting and not greeting.startswith(_TLS_ALERT):
        said = repr(greeting.decode("ascii", "replace"))
        return (
            f"--cluster {address}: no scheduler of dask listens there, but something else (it says "
            f"{said}); give the address that dask scheduler prints"
        )
    hangs_up = f"--cluster {address}: who listens there ends the connection; if it is a scheduler"
    if address.startswith("tls:"):
        return f"{hangs_up}, {_CERTIFICATES}"
    return f"{hangs_up} with TLS, write {address.replace('tcp:', 'tls:', 1)}"


def explain_tls(address: str, error: ssl.SSLError) -> str:
    """Return why a connection by TLS fails, and what to do about it."""
    reason = (error.reason or str(error)).lower().replace("_", " ")
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"its certificate is not accepted here: {error.verify_message}"
    elif "wrong version" in reason or "record layer" in reason or "http" in reason:
        plain = address.replace("tls:", "tcp:", 1)
        return (
            f"--cluster {address}: no TLS is spoken there; give the scheduler certificates, or "
            f"write {plain} if nobody else reaches that network"
        )
    return f"--cluster {address}: TLS fails ({reason}); {_CERTIFICATES}"


async def _require_scheduler(
    library: Any, address: str, patience: float, arguments: dict[str, Any]
) -> None:
    """Raise ResourceError if a worker listens at ``address``."""
    async with library.rpc(address, timeout=patience, connection_args=arguments) as server:
        identity = await server.identity()
    kind = identity.get("type")
    if kind in ("Worker", "Nanny"):
        scheduler = identity.get("scheduler")
        of = f", of the scheduler {scheduler}" if isinstance(scheduler, str) else ""
        raise ResourceError(
            f"--cluster {address}: that is a worker{of}, not a scheduler; give the address of the "
            "scheduler"
        )

"""What to do about a request that failed: pure functions."""

from __future__ import annotations

import os
import socket
import ssl
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPException, IncompleteRead, InvalidURL, LineTooLong, RemoteDisconnected

from fastindex.remote.addresses import show_text
from fastindex.remote.errors import PermanentError, RequestError, TransientError

MAX_DELAY_SECONDS = 60.0
"""No back-off is longer, unless the server asks for it."""
MAX_RETRY_AFTER_SECONDS = 300.0
"""No server is left alone for longer."""

CLOSED_EARLY = "the server closed the connection early"
"""What is wrong with a body that is too short."""

_TRANSIENT = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
_MISSING = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_FIRST_SERVER_ERROR = 500


def find_delay(failures: int, first_delay_seconds: float, wait_seconds: float = 0) -> float:
    """Return for how many seconds to wait before the next try.

    Args:
        failures: how often it failed in succession; at least 1.
        first_delay_seconds: the delay after the first failure; it doubles with each.
        wait_seconds: how long the server asks to be left alone.
    """
    delay = min(first_delay_seconds * 2.0 ** min(failures - 1, 30), MAX_DELAY_SECONDS)
    jitter = int.from_bytes(os.urandom(2), "big") / 0xFFFF
    return max(delay * (0.5 + jitter / 2), min(wait_seconds, MAX_RETRY_AFTER_SECONDS))


def parse_retry_after(value: str, now: float) -> float:
    """Return how many seconds ``Retry-After`` asks for; 0 if it cannot be understood.

    Args:
        value: seconds or a date.
        now: seconds since 1970.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MAX_RETRY_AFTER_SECONDS)
    try:
        until = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0
    return min(max(until - now, 0.0), MAX_RETRY_AFTER_SECONDS)


def explain_status(status: int, retry_after: str, now: float) -> RequestError:
    """Return the error that an answer stands for.

    Args:
        status: neither 200, 206, 304 nor a redirect that is followed.
        retry_after: what the server sent as ``Retry-After``.
        now: seconds since 1970.
    """
    try:
        problem = f"the server answers {status} {HTTPStatus(status).phrase}"
    except ValueError:
        problem = f"the server answers {status}"
    if status in _TRANSIENT or status >= _FIRST_SERVER_ERROR:
        return TransientError(problem, wait_seconds=parse_retry_after(retry_after, now))
    if status in _MISSING:
        return PermanentError(problem, "check the URL, or try again later", is_missing=True)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return PermanentError(problem, "it may need a password, which netrc can give")
    return PermanentError(problem, "check the URL, and the server")


def explain_failure(error: OSError | HTTPException, proxy: str = "") -> RequestError:
    """Return what a failed connection means.

    Args:
        error: how it failed.
        proxy: host and port of the proxy through which it went; empty: through none.
    """
    failure = _explain(error)
    if proxy:
        failure.problem += f", through the proxy {proxy}"
        failure.remedy += "; or see http_proxy, https_proxy and no_proxy in the environment"
    return failure


def _explain(error: OSError | HTTPException) -> RequestError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return PermanentError(
            f"the server's certificate is not valid: {show_text(error.verify_message)}",
            "if it is yours, trust it with --ca FILE",
            is_insecure=True,
        )
    if isinstance(error, ConnectionRefusedError):
        return TransientError("the connection is refused", "check the host and the port")
    problem, remedy = _name_lasting_failure(error)
    if problem:
        return PermanentError(problem, remedy)
    return TransientError(_name_failure(error))


def _name_lasting_failure(error: OSError | HTTPException) -> tuple[str, str]:
    """Return what is wrong, and what to do, if trying again does not help; else nothing."""
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
        return "the host's name cannot be resolved", "check the URL"
    if isinstance(error, LineTooLong | InvalidURL):
        return "the server's answer cannot be understood", "is that the right URL?"
    if isinstance(error, ssl.SSLError) and getattr(error, "reason", "") == "WRONG_VERSION_NUMBER":
        return "the server does not speak TLS", "is it http:// there?"
    return "", ""


def _name_failure(error: OSError | HTTPException) -> str:
    if isinstance(error, TimeoutError):
        return "the server is silent for too long, or too slow"
    if isinstance(
        error, RemoteDisconnected | IncompleteRead | ConnectionResetError | ssl.SSLEOFError
    ):
        return CLOSED_EARLY
    if isinstance(error, HTTPException):
        return "the server's answer cannot be understood"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {show_text(getattr(error, 'reason', None) or str(error))}"
    return show_text(error.strerror or str(error))

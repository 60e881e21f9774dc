"""What can go wrong with a server, by what is to be done about it."""

from __future__ import annotations

from fastindex.errors import FastindexError


class FetchError(FastindexError):
    """A document cannot be had.

    Args:
        problem: what is wrong, with the URL.
        remedy: what to do about it.
        is_missing: whether the server says that there is no such document.
        is_insecure: as in ``PermanentError``.
    """

    def __init__(
        self, problem: str, remedy: str, *, is_missing: bool = False, is_insecure: bool = False
    ) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy
        self.is_missing = is_missing
        self.is_insecure = is_insecure


class RequestError(Exception):
    """A request failed. Does not leave this package.

    Args:
        problem: what is wrong.
        remedy: what to do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy


class TransientError(RequestError):
    """It may go better next time.

    Args:
        problem: what is wrong.
        remedy: what to do about it.
        wait_seconds: how long the server asks to be left alone.
    """

    def __init__(
        self, problem: str, remedy: str = "try again later", *, wait_seconds: float = 0
    ) -> None:
        super().__init__(problem, remedy)
        self.wait_seconds = wait_seconds


class PermanentError(RequestError):
    """It would not go better next time.

    Args:
        problem: what is wrong.
        remedy: what to do about it.
        is_missing: whether the server says that there is no such file.
        is_insecure: whether its certificate is not valid, or it redirects to plain HTTP.
    """

    def __init__(
        self, problem: str, remedy: str, *, is_missing: bool = False, is_insecure: bool = False
    ) -> None:
        super().__init__(problem, remedy)
        self.is_missing = is_missing
        self.is_insecure = is_insecure


class ChangedError(RequestError):
    """The file is another than the one that was begun, or than the one that was expected."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, "try again later, when the server is up to date")


class NoHeadError(Exception):
    """The server does not answer HEAD."""


class NoRangesError(Exception):
    """The server sends the whole file, whatever part it is asked for."""

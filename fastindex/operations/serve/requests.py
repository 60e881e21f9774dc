"""Pure: the target of a request → the path that it asks for, or why there can be none."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

MAX_TARGET_CHARACTERS = 8192


class BadTargetError(ValueError):
    """A request for something that no file can be called.

    Args:
        status: what to answer.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def find_path(target: str) -> str:
    """Return the path that a request asks for, relative to the mirror.

    A query is passed over, as a server of files does. Escapes are decoded once.

    Args:
        target: what stands behind the method.

    Returns:
        A path without empty names; the last one may be empty.

    Raises:
        BadTargetError: nothing can be called so, or it is hidden.
    """
    if len(target) > MAX_TARGET_CHARACTERS:
        raise BadTargetError(414)
    path, _, _ = target.partition("?")
    scheme, is_absolute, rest = path.partition("://")
    if is_absolute and scheme.lower() in ("http", "https"):
        path = "/" + rest.partition("/")[2]
    if not path.startswith("/"):
        raise BadTargetError(400)
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise BadTargetError(400) from error
    if not decoded.isprintable():
        raise BadTargetError(400)
    names = decoded[1:].split("/")
    if any(name.startswith(".") for name in names) or "" in names[:-1]:
        raise BadTargetError(404)
    return "/".join(names)

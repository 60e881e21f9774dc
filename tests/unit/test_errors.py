"""What a person can do about an error of the system."""

from __future__ import annotations

import errno
import os

import pytest

from fastindex.errors import ResourceError, suggest_remedy, translate_system_errors


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "write permission"),
        (errno.EPERM, "write permission"),
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "mount it for writing"),
        (errno.EIO, "the disk"),
    ],
)
def test_the_remedy_fits_the_error(number: int, words: str) -> None:
    assert words in suggest_remedy(OSError(number, os.strerror(number)))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EIO, "Input/output error", "/f"), "/f: Input/output error; nothing"),
        (OSError("odd"), "odd; nothing"),
        (MemoryError(), "out of memory"),
    ],
)
def test_an_error_of_the_system_becomes_one_of_ours(error: Exception, words: str) -> None:
    with pytest.raises(ResourceError, match=words) as caught, translate_system_errors():
        raise error
    assert caught.value.__cause__ is error

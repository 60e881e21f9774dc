"""Times, rates and shares as people write them: on the command line and in the configuration."""

from __future__ import annotations

import math
import re

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = r"\d{1,9}(?:\.\d+)?|(?:\d{1,9}(?:\.\d+)?[smhd])+"
_RATE = r"(\d{1,12}(?:\.\d+)?)([kKmMgG]?)(?:i?B)?(?:/s)?"
_FACTORS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}
_SIZE = r"(\d{1,12}(?:\.\d+)?)([kKmMgG]?)(?:i?B)?"
_SHARE = r"(\d{1,6})/(\d{1,6})"


def parse_duration(word: str) -> float:
    """Return the seconds of a time such as ``90``, ``30m`` or ``1h30m``.

    Raises:
        ValueError: it is none; the message says what it must be.
    """
    if re.fullmatch(_DURATION, word, re.ASCII) is None:
        raise ValueError(f"must be a time such as 90 (seconds), 30m, 2h, 1h30m or 1d, not {word!r}")
    parts = re.findall(r"([\d.]+)([smhd]?)", word)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """Return a time as ``parse_duration`` reads it, in the largest unit that divides it.

    Args:
        seconds: not negative; of ``inf`` the result is ``inf``.
    """
    if not math.isfinite(seconds):
        return "inf"
    for unit in ("d", "h", "m"):
        number, rest = divmod(seconds, _SECONDS[unit])
        if number and not rest:
            return f"{number:.0f}{unit}"
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{seconds:f}s"


def parse_rate(word: str) -> float:
    """Return the bytes a second of a rate such as ``500k`` or ``20M``; the factors are decimal.

    Raises:
        ValueError: it is none, or 0; the message says what it must be.
    """
    match = re.fullmatch(_RATE, word, re.ASCII)
    if match is None or not float(match[1]):
        raise ValueError(f"must be a number of bytes a second, such as 500k or 20M, not {word!r}")
    return float(match[1]) * _FACTORS[match[2].lower()]


def parse_size(word: str) -> int:
    """Return the bytes of a size such as ``500M`` or ``2G``; the factors are decimal.

    Raises:
        ValueError: it is none, or 0; the message says what it must be.
    """
    match = re.fullmatch(_SIZE, word, re.ASCII)
    size_bytes = int(float(match[1]) * _FACTORS[match[2].lower()]) if match else 0
    if not size_bytes:
        raise ValueError(f"must be a number of bytes, such as 500M or 2G, not {word!r}")
    return size_bytes


def parse_share(word: str) -> tuple[int, int]:
    """Return the two numbers of a share such as ``1/30``.

    Raises:
        ValueError: it is none; the message says what it must be.
    """
    match = re.fullmatch(_SHARE, word, re.ASCII)
    part, total = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= total:
        raise ValueError("must be a share of the versions, such as 1/30")
    return part, total

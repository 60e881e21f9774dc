"""Colours as ``#rrggbb``: how well one can be read on another.

Source: Web Content Accessibility Guidelines 2.2, "relative luminance" and "contrast ratio".
"""

from __future__ import annotations

import re

MIN_CONTRAST = 4.5
"""What text of ordinary size needs (WCAG 2.2, 1.4.3)."""
_COLOUR = re.compile(r"#([0-9a-f]{3}|[0-9a-f]{6})", re.IGNORECASE | re.ASCII)


def normalize_colour(word: str) -> str:
    """Return a colour such as ``#0b57d0`` or ``#05D`` with six lowercase digits.

    Raises:
        ValueError: it is none; the message says what it must be.
    """
    match = _COLOUR.fullmatch(word)
    if match is None:
        raise ValueError(f'must be a colour such as "#0b57d0", not {word!r}')
    digits = match[1].lower()
    return f"#{digits if len(digits) == 6 else ''.join(digit * 2 for digit in digits)}"


def mix_colours(first: str, second: str, share: float) -> str:
    """Return a colour between two normalized ones; of the second it has ``share``, 0 to 1."""
    pairs = zip(_split(first), _split(second), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def measure_contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two normalized colours: 1 (the same) to 21."""
    darker, lighter = sorted((_measure_luminance(first), _measure_luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def _split(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def _measure_luminance(colour: str) -> float:
    red, green, blue = (_linearize(value / 255) for value in _split(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linearize(value: float) -> float:
    linear: float = value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
    return linear

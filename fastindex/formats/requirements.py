"""What images require of their host: ``.requirements`` and ``.lxd_requirements``.

Format: a JSON object of scalars, as the seed tool (antifob's ``simplestreams.py``) reads it. In
the catalogue the values must be strings: for a single boolean clients reject all of it
(``shared/simplestreams/products.go`` of lxc/incus).
"""

from __future__ import annotations

from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.names import INCUS_REQUIREMENT_KEYS, LXD_REQUIREMENT_KEYS
from fastindex.formats.simplestreams import UNDECODABLE, decode_requirements

Scalar = str | bool | int | float

"""A value in a requirements file, before it becomes a string."""

MAX_CHARACTERS = 255
"""The length of a text in a settings file. The text is copied into every product below, so
64 KiB from a stranger could add gigabytes to the catalogue."""
MAX_REQUIREMENTS = 64
"""In one file. Clients know six."""
_MAX_BITS = 64


def is_displayable(text: str) -> bool:
    """Return whether clients can show ``text`` on one line: it is short and printable."""
    return text.isprintable() and len(text) <= MAX_CHARACTERS


def parse_requirements(
    path: str, content: bytes, *, is_for_lxd: bool
) -> tuple[dict[str, str], list[Finding]]:
    """Read ``.requirements`` or ``.lxd_requirements``.

    Args:
        path: the file, as findings name it.
        content: its bytes.
        is_for_lxd: whether it is ``.lxd_requirements``.

    Returns:
        The requirements, which are empty if the file cannot be used, and what is wrong with it.
    """
    try:
        values = decode_requirements(content)
    except UNDECODABLE as error:
        problem = f"cannot be used ({error}); images are published without it"
        remedy = 'write a JSON object of strings, such as {"secureboot": "false"}'
        return {}, [Finding(Code.BAD_SETTINGS, path, problem, remedy)]
    return check_requirements(path, values, is_for_lxd=is_for_lxd)


def check_requirements(
    path: str, values: dict[str, Scalar], *, is_for_lxd: bool
) -> tuple[dict[str, str], list[Finding]]:
    """Turn decoded values into the strings that clients expect.

    Args:
        path: the file, as findings name it.
        values: the values as they were decoded.
        is_for_lxd: whether they are for LXD, which knows fewer keys than Incus.

    Returns:
        The requirements, and a finding for each value that was not a string, each key that
        no client enforces and each text that cannot be displayed. Of more than
        ``MAX_REQUIREMENTS`` values none is returned.
    """
    known = LXD_REQUIREMENT_KEYS if is_for_lxd else INCUS_REQUIREMENT_KEYS
    if len(values) > MAX_REQUIREMENTS:
        problem = f"more than {MAX_REQUIREMENTS} requirements; images are published without them"
        return {}, [
            Finding(Code.BAD_SETTINGS, path, problem, f"use only {', '.join(sorted(known))}")
        ]
    texts: dict[str, str] = {}
    findings: list[Finding] = []
    for key, value in values.items():
        is_accepted = is_displayable(key) and (not isinstance(value, str) or is_displayable(value))
        if not is_accepted or (isinstance(value, int) and value.bit_length() > _MAX_BITS):
            problem = (
                f"the requirement {key[:MAX_CHARACTERS]!r} is too long or contains "
                "control characters, ignored"
            )
            findings.append(Finding(Code.BAD_SETTINGS, path, problem, "correct or remove it"))
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if not isinstance(value, str):
            findings.append(
                Finding(
                    Code.BAD_SETTINGS,
                    path,
                    f"{key!r} must be a string; published as {text!r}",
                    f'write "{text}", in quotes',
                )
            )
        if key not in known:
            findings.append(
                Finding(
                    Code.BAD_SETTINGS,
                    path,
                    f"no client enforces the requirement {key!r}",
                    f"use one of {', '.join(sorted(known))}, or remove it",
                )
            )
        texts[key] = text
    return texts, findings

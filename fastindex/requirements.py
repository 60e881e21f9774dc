"""What images ask of their host: ``.requirements`` and ``.lxd_requirements``, JSON objects.

Clients take strings only: one boolean in the catalogue and they reject all of it.
"""

from __future__ import annotations

import msgspec

from fastindex.contract import decode_requirements
from fastindex.model import Finding
from fastindex.names import INCUS_REQUIREMENT_KEYS, LXD_REQUIREMENT_KEYS

Scalar = str | bool | int | float


def parse_requirements(
    path: str, content: bytes, *, is_for_lxd: bool
) -> tuple[dict[str, str], list[Finding]]:
    """Read a requirements dotfile.

    Args:
        path: of the file, for the findings.
        content: its bytes.
        is_for_lxd: which client reads it.

    Returns:
        The requirements, none where the file cannot be used, and what is wrong with it.
    """
    try:
        values = decode_requirements(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        problem = f"cannot be used ({error}); images are published without it"
        remedy = 'write a JSON object of strings, as {"secureboot": "false"}'
        return {}, [Finding(path, problem, remedy)]
    return checked_requirements(path, values, is_for_lxd=is_for_lxd)


def checked_requirements(
    path: str, values: dict[str, Scalar], *, is_for_lxd: bool
) -> tuple[dict[str, str], list[Finding]]:
    """Turn decoded values into the strings that clients expect.

    Args:
        path: of the file, for the findings.
        values: as decoded.
        is_for_lxd: which client's keys are known.

    Returns:
        The requirements, and a finding for each value that was no string and each key
        that no client enforces.
    """
    known = LXD_REQUIREMENT_KEYS if is_for_lxd else INCUS_REQUIREMENT_KEYS
    texts: dict[str, str] = {}
    findings: list[Finding] = []
    for key, value in values.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if not isinstance(value, str):
            findings.append(
                Finding(
                    path,
                    f"{key!r} is no string; published as {text!r}",
                    f'write "{text}", in quotes',
                )
            )
        if key not in known:
            findings.append(
                Finding(
                    path,
                    f"no client enforces the requirement {key!r}",
                    f"use one of {', '.join(sorted(known))}, or remove it",
                )
            )
        texts[key] = text
    return texts, findings

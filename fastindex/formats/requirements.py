"""What images ask of their host: ``.requirements`` and ``.lxd_requirements``, JSON objects.

Clients take strings only: one boolean in the catalogue and they reject all of it.
"""

from __future__ import annotations

from fastindex.events import Finding
from fastindex.formats.names import INCUS_REQUIREMENT_KEYS, LXD_REQUIREMENT_KEYS
from fastindex.formats.simplestreams import UNDECODABLE, decode_requirements

Scalar = str | bool | int | float

MOST_CHARACTERS = 255
"""Of a text that a settings file sets. It goes into each product below, so what costs a
stranger 64 KiB could cost the catalogue gigabytes."""
MOST_REQUIREMENTS = 64
"""Of one file: clients know six."""
_MOST_BITS = 64


def is_fit_text(text: str) -> bool:
    """Return whether clients can show ``text`` on one line: short, and all of it visible."""
    return text.isprintable() and len(text) <= MOST_CHARACTERS


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
    except UNDECODABLE as error:
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
        The requirements, and a finding for each value that was no string, each key that no
        client enforces and each that cannot be shown; no requirements where there are
        more than could be meant.
    """
    known = LXD_REQUIREMENT_KEYS if is_for_lxd else INCUS_REQUIREMENT_KEYS
    if len(values) > MOST_REQUIREMENTS:
        problem = f"more than {MOST_REQUIREMENTS} requirements; images are published without them"
        return {}, [Finding(path, problem, f"use some of {', '.join(sorted(known))}")]
    texts: dict[str, str] = {}
    findings: list[Finding] = []
    for key, value in values.items():
        is_fit = is_fit_text(key) and (not isinstance(value, str) or is_fit_text(value))
        if not is_fit or (isinstance(value, int) and value.bit_length() > _MOST_BITS):
            problem = (
                f"the requirement {key[:MOST_CHARACTERS]!r} is too long or holds control "
                "characters, left out"
            )
            findings.append(Finding(path, problem, "mend it"))
            continue
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

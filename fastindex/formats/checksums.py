"""``SHA256SUMS``, as ``sha256sum`` and BSD's ``sha256`` write it."""

from __future__ import annotations

import re


def parse_checksums(content: bytes) -> dict[str, str]:
    """Read a ``SHA256SUMS``: file name → 64 hex digits. Other lines are passed over.

    Both of sha256sum's forms are known, the GNU one and the BSD one (``--tag``).
    """
    sums: dict[str, str] = {}
    for spaced in content.decode("utf-8", "surrogateescape").splitlines():
        line = spaced.strip()
        gnu = re.fullmatch(r"([0-9a-fA-F]{64})\s+\*?(?:\./)?(\S.*)", line)
        bsd = re.fullmatch(r"SHA256 \((?:\./)?(.*)\) = ([0-9a-fA-F]{64})", line)
        if gnu is not None:
            sums[gnu[2]] = gnu[1].lower()
        elif bsd is not None:
            sums[bsd[1]] = bsd[2].lower()
    return sums

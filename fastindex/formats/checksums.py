"""``SHA256SUMS``: the digests that a builder publishes beside its files.

Format: the output of ``sha256sum`` (coreutils manual, "md5sum invocation") and of
``sha256sum --tag``, which is also that of BSD's ``sha256``.
"""

from __future__ import annotations

import re


def parse_checksums(content: bytes) -> dict[str, str]:
    """Read a ``SHA256SUMS``.

    Args:
        content: its bytes; the caller bounds their number.

    Returns:
        File name → 64 lowercase hex digits. A leading ``./`` is removed from names. Lines in
        neither form are ignored; of two lines with one name the last counts.
    """
    sums: dict[str, str] = {}
    for raw_line in content.decode("utf-8", "surrogateescape").splitlines():
        line = raw_line.strip()
        gnu = re.fullmatch(r"([0-9a-fA-F]{64})\s+\*?(?:\./)?(\S.*)", line)
        bsd = re.fullmatch(r"SHA256 \((?:\./)?(.*)\) = ([0-9a-fA-F]{64})", line)
        if gnu is not None:
            sums[gnu[2]] = gnu[1].lower()
        elif bsd is not None:
            sums[bsd[1]] = bsd[2].lower()
    return sums

"""``ROOT/.outputs.json``: the other directories in which the tree is published, with ``--output``.

What is withdrawn and what is published is recorded in the output directory. A run that is not given
the ``--output`` of the others would know of neither, and could delete what their catalogues name.
So each build with an output of its own leaves its path here.
"""

from __future__ import annotations

import os
from contextlib import suppress

from fastindex.errors import Code, TreeError
from fastindex.events import Finding
from fastindex.formats.simplestreams import INDEX_PATH, UNDECODABLE, decode_state, encode_state
from fastindex.mirror.mirror import Mirror
from fastindex.system import atomic, directories, files

NAME = ".outputs.json"

_MAX_BYTES = 1 << 20


def record(mirror: Mirror) -> None:
    """Record the output directory of ``mirror`` in ROOT, unless it is ROOT.

    Errors are ignored: where this user cannot write, no run of his can publish in ROOT either.

    Args:
        mirror: its lock is held.
    """
    if _is_same(mirror.output, mirror.root):
        return
    known = _load(mirror)
    if mirror.output not in known:
        with suppress(OSError, UnicodeEncodeError):
            data = encode_state(sorted({*known, mirror.output}))
            atomic.replace_file(os.path.join(mirror.root, NAME), data)


def find_others(mirror: Mirror) -> list[str]:
    """Return the other directories in which the tree is published, as absolute paths.

    One that was recorded counts although nothing is there now: its disk may not be mounted, and its
    catalogue may still be served from elsewhere.
    """
    roots = (mirror.root,) if _has_catalogue(mirror.root) else ()
    return [
        output
        for output in dict.fromkeys((*roots, *_load(mirror)))
        if not _is_same(output, mirror.output)
    ]


def has_catalogue(mirror: Mirror) -> bool:
    """Return whether anything is published in the output directory of ``mirror``."""
    return _has_catalogue(mirror.output)


def require_catalogue(mirror: Mirror) -> None:
    """Check that something is published in the output directory.

    Raises:
        TreeError: nothing is; the message names the directories in which the tree is published.
    """
    if has_catalogue(mirror):
        return
    others = find_others(mirror)
    remedy = f"name it with --output {others[0]}" if others else "run fastindex ROOT to publish it"
    raise TreeError(f"{_describe_absence(mirror, others)}; {remedy}")


def find_first_publication(mirror: Mirror) -> list[Finding]:
    """Return a finding if the tree is published elsewhere, but not yet in this output directory."""
    others = find_others(mirror)
    if has_catalogue(mirror) or not others or not _is_same(mirror.output, mirror.root):
        return []
    return [
        Finding(
            Code.OTHER_OUTPUT,
            mirror.output,
            _describe_absence(mirror, others),
            f"name that directory with --output {others[0]}, unless the tree is to be published "
            "here as well",
        )
    ]


def _describe_absence(mirror: Mirror, others: list[str]) -> str:
    absence = f"nothing is published in {mirror.output}"
    return f"{absence}, but the tree is published in {', '.join(others)}" if others else absence


def _load(mirror: Mirror) -> list[str]:
    """Return what is recorded; nothing if it cannot be read."""
    try:
        data = files.read_small_file(os.path.join(mirror.root, NAME), _MAX_BYTES)
        recorded = decode_state(data, list[str])
        return [output for output in recorded if output[:1] == "/" and "\0" not in output]
    except (OSError, *UNDECODABLE):
        return []


def _has_catalogue(output: str) -> bool:
    # Any product file will do: an index that is lost can be written again.
    try:
        with os.scandir(os.path.join(output, os.path.dirname(INDEX_PATH))) as entries:
            return any(entry.name.endswith(".json") for entry in entries)
    except (OSError, ValueError):  # ValueError: a null byte
        return False


def _is_same(output: str, other: str) -> bool:
    return directories.real_path(output) == directories.real_path(other)

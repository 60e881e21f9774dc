"""``ROOT/.outputs.json``: the other directories in which the tree is published, with ``--output``.

What is withdrawn and what is published is recorded in the output directory. A run that is not given
the ``--output`` of the others would know of neither, and could delete what their catalogues name.
So each build with an output of its own leaves its path here. A record that cannot be used may have
named any directory: a build leaves it as it is, and what deletes stops.
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
_REMEDY = (
    "write a JSON list of all directories into it in which the tree is published with --output, "
    'such as ["/srv/www"]; without it, prune could delete what they name'
)


def record(mirror: Mirror) -> None:
    """Record the output directory of ``mirror`` in ROOT, unless it is ROOT.

    Errors are ignored: where this user cannot write, no run of his can publish in ROOT either. A
    record that cannot be used is left as it is, and ``find_publication_faults`` tells it.

    Args:
        mirror: its lock is held.
    """
    if _is_same(mirror.output, mirror.root):
        return
    with suppress(TreeError, OSError, UnicodeEncodeError):
        known = _load(mirror)
        if mirror.output not in known:
            data = encode_state(sorted({*known, mirror.output}))
            atomic.replace_file(_find_path(mirror), data)


def find_others(mirror: Mirror) -> list[str]:
    """Return the other directories in which the tree is published, as absolute paths.

    One that was recorded counts although nothing is there now: its disk may not be mounted, and its
    catalogue may still be served from elsewhere.

    Raises:
        TreeError: what was recorded cannot be used.
    """
    return _select_others(mirror, _load(mirror))


def find_known_others(mirror: Mirror) -> list[str]:
    """Return what ``find_others`` does, or nothing if what was recorded cannot be used."""
    try:
        return find_others(mirror)
    except TreeError:
        return []


def has_catalogue(mirror: Mirror) -> bool:
    """Return whether anything is published in the output directory of ``mirror``."""
    return _has_catalogue(mirror.output)


def require_catalogue(mirror: Mirror) -> None:
    """Check that something is published in the output directory.

    Raises:
        TreeError: nothing is; the message names the directories in which the tree is published. Or
            these are not known.
    """
    others = find_others(mirror)
    if has_catalogue(mirror):
        return
    if not others:
        remedy = _suggest_run(mirror)
    elif len(others) > 1:
        remedy = "name one of these with --output"
    elif _is_same(others[0], mirror.root):
        remedy = "leave out --output"
    else:
        remedy = f"name it with --output {others[0]}"
    raise TreeError(f"{_describe_absence(mirror, others)}; {remedy}")


def require_readable_catalogue(mirror: Mirror) -> None:
    """Check what ``require_catalogue`` does, for who only reads the catalogue.

    If there is one, it does not matter where else the tree is published.

    Raises:
        TreeError: nothing is published in the output directory.
    """
    if not has_catalogue(mirror):
        require_catalogue(mirror)


def find_publication_faults(mirror: Mirror) -> list[Finding]:
    """Return what a build should tell about where the tree is published.

    There is a finding if it is published elsewhere, but not yet in this output directory, or if it
    is not known where it is published.
    """
    recorded, fault = _read(mirror)
    if fault:
        return [Finding(Code.BAD_RECORD, _find_path(mirror), fault, _REMEDY)]
    others = _select_others(mirror, recorded)
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


def describe_entry(mirror: Mirror) -> str:
    """Return, for people, what names an output directory for the next runs."""
    return f"its entry in {_find_path(mirror)} (a JSON list)"


def _suggest_run(mirror: Mirror) -> str:
    """Return what would publish a tree of which nothing is published anywhere."""
    from fastindex.mirror.state import pulled  # only if needed

    try:
        begun = ", ".join(pulled.load(mirror))
    except TreeError:  # who needs the record tells what is wrong with it
        begun = ""
    if not begun:
        return "run fastindex ROOT to publish it"
    return f"run the pull of {begun} again, which has not ended yet"


def _describe_absence(mirror: Mirror, others: list[str]) -> str:
    absence = f"nothing is published in {mirror.output}"
    return f"{absence}, but the tree is published in {', '.join(others)}" if others else absence


def _select_others(mirror: Mirror, recorded: list[str]) -> list[str]:
    """Return ROOT, if it has a catalogue, and what is recorded, without the output directory."""
    roots = (mirror.root,) if _has_catalogue(mirror.root) else ()
    return [
        output
        for output in dict.fromkeys((*roots, *recorded))
        if not _is_same(output, mirror.output)
    ]


def _load(mirror: Mirror) -> list[str]:
    """Return what is recorded.

    Raises:
        TreeError: it cannot be used.
    """
    recorded, fault = _read(mirror)
    if fault:
        raise TreeError(f"{_find_path(mirror)}: {fault}; {_REMEDY}")
    return recorded


def _read(mirror: Mirror) -> tuple[list[str], str]:
    """Return what is recorded, and why that cannot be used; "" if it can, or if nothing is."""
    try:
        data = files.read_small_file(_find_path(mirror), _MAX_BYTES)
        recorded = decode_state(data, list[str])
    except (FileNotFoundError, NotADirectoryError):
        return [], ""
    except (OSError, *UNDECODABLE) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        return [], f"cannot be used ({reason})"
    wrong = [output for output in recorded if output[:1] != "/" or "\0" in output]
    return ([], f"cannot be used ({wrong[0]!r} is no absolute path)") if wrong else (recorded, "")


def _find_path(mirror: Mirror) -> str:
    return os.path.join(mirror.root, NAME)


def _has_catalogue(output: str) -> bool:
    # Any product file will do: an index that is lost can be written again.
    try:
        with os.scandir(os.path.join(output, os.path.dirname(INDEX_PATH))) as entries:
            return any(entry.name.endswith(".json") for entry in entries)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null byte
        return False
    except OSError:  # there may be one
        return True


def _is_same(output: str, other: str) -> bool:
    return directories.real_path(output) == directories.real_path(other)

"""Writing units where systemd finds them, and nothing over what somebody else has written."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fastindex.errors import FastindexError, UsageError, translate_system_errors
from fastindex.operations.units.making import FAILURE_UNIT, Unit, is_made_here
from fastindex.system.atomic import replace_file
from fastindex.system.files import read_small_file

SYSTEM_DIRECTORY = "/etc/systemd/system"
_MAX_UNIT_BYTES = 1 << 20


class ForeignUnitError(FastindexError):
    """A unit is there that was not made here, or that somebody has changed."""


def read_failure_unit() -> Unit:
    """Return the example of a unit that tells of failures."""
    path = os.path.join(os.path.dirname(__file__), FAILURE_UNIT)
    return Unit(FAILURE_UNIT, read_small_file(path, _MAX_UNIT_BYTES).decode())


@translate_system_errors()
def install_units(
    units: Sequence[Unit], directory: str, *, force: bool = False, dry_run: bool = False
) -> tuple[str, ...]:
    """Write units, each whole or not at all; return the paths of what was written.

    An example is written only where there is none, as it is for its owner to change.

    Args:
        units: the units.
        directory: where they belong; it exists.
        force: replace units that were not made here, too.
        dry_run: write nothing; return the paths of what would be written.

    Raises:
        UsageError: there is no such directory.
        ForeignUnitError: a unit would replace one that was not made here; none was written.
        ResourceError: one cannot be read or written.
    """
    if not os.path.isdir(directory):
        raise UsageError(f"{directory}: is not a directory; name one with --directory")
    found = {unit.name: _read(os.path.join(directory, unit.name)) for unit in units}
    new = [unit for unit in units if _is_due(unit, found[unit.name])]
    foreign = [unit.name for unit in new if not (force or _is_ours(found[unit.name]))]
    if foreign:
        raise ForeignUnitError(
            f"{os.path.join(directory, foreign[0])}: was not made by fastindex units, or was "
            "changed since; nothing was written. Put what you need into a drop-in (systemctl edit "
            f"{foreign[0]}) and move the file away, or use --force to replace it"
        )
    paths = tuple(os.path.join(directory, unit.name) for unit in new)
    if not dry_run:
        for path, unit in zip(paths, new, strict=True):
            replace_file(path, unit.content.encode())
    return paths


def _read(path: str) -> str | None:
    """Return what a file says; None: there is none; empty: it is not a text of ours."""
    if not os.path.lexists(path):
        return None
    if os.path.islink(path) or not os.path.isfile(path):  # a link to /dev/null masks a unit
        return ""
    return read_small_file(path, _MAX_UNIT_BYTES).decode(errors="replace")


def _is_due(unit: Unit, found: str | None) -> bool:
    return found is None if unit.name == FAILURE_UNIT else found != unit.content


def _is_ours(found: str | None) -> bool:
    return found is None or is_made_here(found)

"""What a nightly run does, and what it is held against: ``find`` over the same tree.

Shared by ``unchanged_build``, ``latency`` and ``scaling``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from make_mirror import write_version
from measure import fastindex_command

Command = list[str | Path]
_NEW_VERSION = "images/debian/12/amd64/default/20250101_00:00"


def find(root: Path) -> Command:
    """Return what looks at the size and the time of each file below ``root``, with one thread."""
    return ["find", root / "images", "-type", "f", "-printf", r"%s %T@\n"]


def build(root: Path, *options: str) -> Command:
    """Return what indexes ``root`` with the installed command."""
    return [fastindex_command(), "-q", *options, root]


def with_new_version(
    run: Callable[[Command], tuple[float, float]],
    root: Path,
    beneath: Path | None = None,
    options: Sequence[str] = (),
) -> tuple[float, float]:
    """Let ``run`` index ``root`` with one version more, which is taken away again.

    Args:
        run: what runs a command and measures it.
        root: the mirror.
        beneath: where the version is written, if not in ``root`` but where that comes from.
        options: of each run.
    """
    new = (beneath or root) / _NEW_VERSION
    write_version(new)
    measured = run(build(root, *options))
    shutil.rmtree(new)
    run(build(root, *options))
    return measured

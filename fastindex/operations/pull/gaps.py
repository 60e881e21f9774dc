"""Whether what is published is what the upstream has: the end of a pull, before it says so."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from fastindex.catalogue.published import open_catalogue
from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.mirror.mirror import Mirror
from fastindex.operations.pull.wanted import WantedVersion


def find_gaps(
    mirror: Mirror, wanted: Iterable[WantedVersion], failed: Collection[str]
) -> list[Finding]:
    """Return a finding for each wanted version that is not published here as the upstream has it.

    Args:
        mirror: the mirror.
        wanted: what is wanted.
        failed: paths of versions that are known to be missing.

    Deltas do not count: clients do without, and of several for one root one is published.

    Raises:
        TreeError: nothing is published.
        OSError: the catalogue cannot be read.
    """
    missing = {
        version.path: {
            file.name: file.sha256 for file in version.files if file.role.kind != "delta"
        }
        for version in wanted
        if version.path not in failed
    }
    different: dict[str, str] = {}
    with open_catalogue(mirror.output) as published:
        for _, _, product in published.products():
            for version in product.versions.values():
                for item in version.items.values():
                    path, name = os.path.split(item.path)
                    digests = missing.get(path, {})
                    if digests.get(name) == item.sha256:
                        del digests[name]
                    elif name in digests:
                        different.setdefault(path, name)
    return [
        _describe_gap(path, different.get(path, ""), names)
        for path, names in missing.items()
        if names
    ]


def _describe_gap(path: str, different: str, missing: Collection[str]) -> Finding:
    if different:
        problem = f"is published here with a different {different} than the upstream has"
        remedy = "if the upstream is right, delete that file, then pull again"
    else:
        problem = f"is not published as the upstream has it: without {', '.join(sorted(missing))}"
        remedy = "see the warnings of the build about it"
    return Finding(Code.UPSTREAM_FAILED, path, problem, remedy, versions_left_out=1)

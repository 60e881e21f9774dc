"""What is in the sources: images that can be imported, and files that are ignored."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from msgspec import Struct

from fastindex.errors import Code
from fastindex.events import Finding, Observer
from fastindex.formats.checksums import parse_checksums
from fastindex.formats.recognition import Part, recognise
from fastindex.formats.simplestreams import CHECKSUMS_NAME, IMAGE_YAML_NAME
from fastindex.mirror.mirror import Mirror, make_absolute
from fastindex.mirror.staging import stat_regular_file
from fastindex.operations.importer.grouping import group_parts
from fastindex.operations.importer.options import ImportOptions
from fastindex.operations.importer.plan import Extra, Image
from fastindex.system.directories import is_inside, real_path
from fastindex.system.files import read_small_file

_MAX_CHECKSUMS_BYTES = 1 << 20


class Sources(Struct):
    """What was found in the sources."""

    images: list[Image]
    """Images that can be imported."""
    failures: list[Finding]
    """Sources that cannot be imported."""
    findings: list[Finding]
    """Files that are ignored, and what else a person should know."""


def find_sources(mirror: Mirror, options: ImportOptions, observer: Observer) -> Sources:
    """Return what is in the sources; nothing is changed."""
    found = Sources([], [], [])
    mirror_places = _list_places(mirror)
    of_directory: dict[str, list[str]] = {}
    for source in dict.fromkeys(map(make_absolute, options.sources)):
        if options.mode == "move" and is_inside(source, mirror_places):
            problem = "is in the mirror already; moving it could remove a published file"
            found.failures.append(Finding(Code.BAD_SOURCE, source, problem, "use --copy or --link"))
        elif os.path.isdir(source):
            try:
                names = sorted(os.listdir(source))
            except OSError as error:
                problem = f"cannot list the directory ({error.strerror})"
                remedy = "give this user the right to read it"
                found.failures.append(Finding(Code.UNREADABLE, source, problem, remedy))
                continue
            paths = [os.path.join(source, name) for name in names if name[0] != "."]
            _find_in_directory(found, source, source, paths, observer)
        elif os.path.lexists(source):
            of_directory.setdefault(os.path.dirname(source), []).append(source)
        else:
            problem = "no such file or directory"
            found.failures.append(
                Finding(Code.BAD_SOURCE, source, problem, "name a file or directory that exists")
            )
    for directory, paths in of_directory.items():
        _find_in_directory(found, paths[0], directory, paths, observer)
    return found


def _list_places(mirror: Mirror) -> tuple[str, ...]:
    """Return what real paths in the mirror begin with: ROOT, and the targets of symlinks in it.

    Any directory of ROOT may be a stream that is published to another output, and a stream may
    be a symlink to another disk.
    """
    places = list(mirror.bounds)
    with suppress(OSError), os.scandir(mirror.root) as entries:
        targets = [real_path(entry.path) for entry in entries if entry.is_symlink()]
        places += [os.path.join(target, "") for target in targets if target]
    return tuple(places)


def _find_in_directory(
    found: Sources, label: str, directory: str, paths: Iterable[str], observer: Observer
) -> None:
    """Find the images among ``paths``, files of ``directory``."""
    parts: list[Part] = []
    names = list(paths)
    for path in names:
        if os.path.isdir(path):
            observer.log(f"{path}: a directory; ignored")
            continue
        recognised = recognise(path)
        if isinstance(recognised, Part):
            parts.append(recognised)
        elif recognised.is_unexpected:
            problem = f"{recognised.reason}; ignored"
            found.findings.append(
                Finding(Code.IGNORED_FILE, path, problem, "remove it if it is of no use")
            )
        else:
            observer.log(f"{path}: {recognised.reason}; ignored")
    if not parts:
        problem = "contains no image file"
        found.failures.append(
            Finding(Code.BAD_SOURCE, label, problem, "name a directory or files of an image")
        )
        return
    checksums = _read_checksums(os.path.join(directory, CHECKSUMS_NAME), found.findings)
    extra = os.path.join(directory, IMAGE_YAML_NAME)
    status = stat_regular_file(extra) if extra in names else None
    extras = (Extra(extra, status),) if status is not None else ()
    groups = group_parts(parts)
    found.images += [
        Image(label if len(groups) == 1 else files[0].path, files, checksums, extras)
        for files in groups
    ]


def _read_checksums(path: str, findings: list[Finding]) -> dict[str, str]:
    try:
        if os.path.islink(path):  # it could lead to a file that nobody asked to import
            raise OSError("a symlink")
        return parse_checksums(read_small_file(path, _MAX_CHECKSUMS_BYTES)).digests
    except FileNotFoundError:
        return {}
    except OSError as error:
        problem = f"cannot be used ({error.strerror or error}); nothing is checked against it"
        findings.append(Finding(Code.BAD_CHECKSUMS, path, problem, "repair or remove it"))
        return {}

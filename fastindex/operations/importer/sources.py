"""What is in the sources: images that can be imported, and files that are ignored.

Symlinks are the operator's or a builder's own (``result`` of Nix). One that is named on the
command line is followed. One in a directory is followed if what it leads to belongs to the same
user as the link itself: whoever fills the directory must not publish what he could not read.
What a symlink leads to is never removed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain

from msgspec import Struct
from msgspec.structs import replace

from fastindex.catalogue.published import read_published_paths
from fastindex.errors import Code
from fastindex.events import Finding, Observer
from fastindex.formats.checksums import Checksums, parse_checksums
from fastindex.formats.image_metadata import MetadataError, make_metadata_yaml
from fastindex.formats.recognition import BadFile, Part, claims_to_be_of_image, recognise
from fastindex.formats.simplestreams import CHECKSUMS_NAME, IMAGE_YAML_NAME, INDEX_PATH
from fastindex.formats.tarball import make_metadata_tarball
from fastindex.mirror.mirror import Mirror, make_absolute
from fastindex.mirror.staging import Scratch, stat_regular_file
from fastindex.operations.importer.grouping import Group, find_rivals, group_files
from fastindex.operations.importer.options import ImportOptions
from fastindex.operations.importer.plan import Extra, Image
from fastindex.system.directories import is_inside, real_path
from fastindex.system.files import read_small_file

_MAX_CHECKSUMS_BYTES = 1 << 20
_MADE_NAME = "incus.tar.xz"
_FOREIGN_LINK = "a symlink to a file of another user, which import does not follow"


class Sources(Struct):
    """What was found in the sources."""

    images: list[Image]
    """Images that can be imported."""
    failures: list[Finding]
    """Sources that cannot be imported."""
    findings: list[Finding]
    """Files that are ignored, and what else a person should know."""


class _Candidate(Struct, frozen=True):
    """Files that may be an image."""

    label: str
    """What a person calls them."""
    group: Group
    """The files."""
    is_named: bool = False
    """Whether each file was named, and not only its directory."""


def find_sources(
    mirror: Mirror, options: ImportOptions, scratch: Scratch, observer: Observer
) -> Sources:
    """Return what is in the sources; nothing of them is changed.

    Args:
        mirror: the mirror.
        options: what to import, and how.
        scratch: for the metadata of images that come without.
        observer: told of files that are ignored as expected.
    """
    search = _Search(mirror, options, observer)
    named: dict[str, list[str]] = {}
    words = {make_absolute(word): word for word in options.sources}
    for source, word in words.items():
        if options.mode == "move" and search.is_published(source):
            problem = "is in the mirror already; moving it could remove a published file"
            search.fail(Code.BAD_SOURCE, source, problem, "use --copy or --link")
        elif options.mode == "move" and (other := _find_mirror_above(source)):
            search.refuse_mirror(source, other)
        elif os.path.isdir(source):
            search.look_into(source, is_linked=_goes_through_link(word))
        elif os.path.lexists(source):
            named.setdefault(os.path.dirname(source), []).append(source)
        else:
            search.fail(Code.BAD_SOURCE, source, *_explain_absence(source))
    for directory, paths in named.items():
        word = os.path.dirname(words[paths[0]]) or directory
        search.look_at(paths, is_linked=_goes_through_link(word))
    candidates = _join_parts(search.candidates)
    return _Assembly(search.found, options, scratch).assemble(candidates)


def _explain_absence(source: str) -> tuple[str, str]:
    """Return why a source cannot be looked at, and what to do about it."""
    try:
        os.lstat(source)
    except PermissionError:
        return "cannot be looked at (Permission denied)", "give this user the right to enter there"
    except OSError:
        pass
    return "no such file or directory", "name a file or directory that exists"


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


def _goes_through_link(word: str) -> bool:
    """Return whether any directory in ``word``, as it was given, is a symlink."""
    names = word.rstrip(os.sep).split(os.sep)
    return any(os.path.islink(os.sep.join(names[:end])) for end in range(1, len(names) + 1))


def _list_published_places(mirror: Mirror) -> Iterator[str]:
    """Yield real paths outside the mirror that published versions and files lead to.

    An import that is not told of ``--allow-links`` must not take files that the build published
    with it.
    """
    for path in sorted(read_published_paths(mirror.output) or ()):
        absolute = mirror.path(path)
        # Versions may be below symlinks; a file in one is a link itself, or where it seems to be.
        if os.path.isdir(absolute) or os.path.islink(absolute):
            real = real_path(absolute)
            if real and not f"{real}/".startswith(mirror.bounds):
                yield f"{real}/"


def _find_mirror_above(path: str) -> str:
    """Return the published mirror that ``path`` is, or is in; empty if there is none."""
    above = real_path(path)
    while above and not os.path.isfile(os.path.join(above, INDEX_PATH)):
        parent = os.path.dirname(above)
        above = parent if parent != above else ""
    return above


class _Search:
    """Looks for image files in the sources.

    Args:
        mirror: the mirror.
        options: what to import, and how.
        observer: told of files that are ignored as expected.
    """

    def __init__(self, mirror: Mirror, options: ImportOptions, observer: Observer) -> None:
        self.found = Sources([], [], [])
        self.candidates: list[_Candidate] = []
        self.places = _list_places(mirror)
        self._is_move = options.mode == "move"
        self._published = frozenset(_list_published_places(mirror) if self._is_move else ())
        self._is_recursive = options.is_recursive
        self._observer = observer

    def is_published(self, source: str) -> bool:
        """Return whether a source is in the mirror, or has files that the catalogue leads to."""
        real = f"{real_path(source)}/"
        return real.startswith(self.places) or any(
            real.startswith(place) or place.startswith(real) for place in self._published
        )

    def fail(self, code: Code, path: str, problem: str, remedy: str) -> None:
        """Add a source that cannot be imported."""
        self.found.failures.append(Finding(code, path, problem, remedy, versions_left_out=1))

    def refuse_mirror(self, path: str, mirror: str) -> None:
        """Add a source that another mirror publishes: its clients would miss what is moved."""
        where = "is" if real_path(path) == mirror else f"is in {mirror},"
        problem = f"{where} a published mirror, which a move would empty"
        remedy = "are SOURCE and ROOT swapped? If not, use --copy or --link"
        self.fail(Code.BAD_SOURCE, path, problem, remedy)

    def look_into(self, source: str, *, is_linked: bool) -> None:
        """Look for images in a directory, and in those below it if that is asked for.

        Args:
            source: the directory.
            is_linked: whether a symlink leads to it, so that its files are never moved.
        """
        has_found = has_failed = has_directories = False
        for directory, names in self._walk(source):
            if isinstance(names, OSError):
                has_failed = True
                problem = f"cannot list the directory ({names.strerror})"
                remedy = "see that it exists and that this user may read it"
                self.fail(Code.UNREADABLE, directory, problem, remedy)
                continue
            if self._is_mirror_to_move(directory):
                has_failed = True
                self.refuse_mirror(directory, directory)
                continue
            paths = [os.path.join(directory, name) for name in names if name[0] != "."]
            files = [path for path in paths if not os.path.isdir(path)]
            has_directories = has_directories or len(files) < len(paths)
            if not self._is_recursive:
                for path in sorted(set(paths) - set(files)):
                    self._observer.log(f"{path}: a directory; ignored without --recursive")
            has_found = self._collect(directory, files, is_linked=is_linked) or has_found
        if has_found or has_failed:
            return
        remedy = "name a directory or files of an image"
        if has_directories and not self._is_recursive:
            remedy = "look into its directories with --recursive, or name one of them"
        self.fail(Code.BAD_SOURCE, source, "contains no image file", remedy)

    def _walk(self, source: str) -> Iterator[tuple[str, list[str] | OSError]]:
        """Yield each directory to look into, with the names in it."""
        waiting = [source]
        while waiting:
            directory = waiting.pop()
            try:
                names = sorted(os.listdir(directory))
            except OSError as error:
                yield directory, error
                continue
            yield directory, names
            if self._is_recursive and not self._is_mirror_to_move(directory):
                paths = [os.path.join(directory, name) for name in names if name[0] != "."]
                waiting += [path for path in reversed(paths) if self._goes_into(path)]

    def _is_mirror_to_move(self, directory: str) -> bool:
        return self._is_move and os.path.isfile(os.path.join(directory, INDEX_PATH))

    def _goes_into(self, path: str) -> bool:
        return os.path.isdir(path) and not os.path.islink(path) and not is_inside(path, self.places)

    def look_at(self, paths: list[str], *, is_linked: bool) -> None:
        """Look at files of one directory that were named; as ``look_into`` does."""
        if not self._collect(paths[0], paths, is_linked=is_linked, is_named=True):
            remedy = "name a directory or files of an image"
            self.fail(Code.BAD_SOURCE, paths[0], "contains no image file", remedy)

    def _collect(
        self, label: str, paths: Iterable[str], *, is_linked: bool = False, is_named: bool = False
    ) -> bool:
        """Add the images among ``paths``, files of one directory; return whether there are any."""
        parts: list[Part] = []
        faults: list[BadFile] = []
        for path in paths:
            recognised = self._recognise(path, is_named=is_named)
            if isinstance(recognised, Part):
                parts.append(recognised)
            elif isinstance(recognised, BadFile):
                faults.append(recognised)
        # A symlink beside the file that it leads to is a second name.
        own = {(part.status.st_dev, part.status.st_ino) for part in parts if not part.is_linked}
        parts = [
            replace(part, is_linked=part.is_linked or is_linked)
            for part in parts
            if not part.is_linked or (part.status.st_dev, part.status.st_ino) not in own
        ]
        if not parts and not faults:
            return False
        groups = group_files(parts, faults)
        self.candidates += [
            _Candidate(label if len(groups) == 1 else _name_group(group), group, is_named)
            for group in groups
        ]
        return True

    def _recognise(self, path: str, *, is_named: bool) -> Part | BadFile | None:
        """Return what a file is, or None if it is of no image; follow a symlink if that is safe."""
        real = path
        if os.path.islink(path):
            real = real_path(path)
            if not is_named and not has_one_owner(path, real):
                remedy = "name that file itself, or copy it here"
                if claims_to_be_of_image(os.path.basename(path)):
                    return BadFile(path, Code.LINK_LEADS_OUT, _FOREIGN_LINK, remedy)
                finding = Finding(Code.IGNORED_FILE, path, f"{_FOREIGN_LINK}; ignored", remedy)
                self.found.findings.append(finding)
                return None
        recognised = recognise(real, path)
        if isinstance(recognised, Part):
            return replace(recognised, is_linked=real != path)
        if isinstance(recognised, BadFile):
            return recognised
        if recognised.is_unexpected:
            problem = f"{recognised.reason}; ignored"
            finding = Finding(Code.IGNORED_FILE, path, problem, recognised.remedy)
            self.found.findings.append(finding)
        else:
            self._observer.log(f"{path}: {recognised.reason}; ignored")
        return None


def has_one_owner(link: str, target: str) -> bool:
    """Return whether a symlink and the file that it leads to belong to one user."""
    try:
        return os.lstat(link).st_uid == os.lstat(target).st_uid
    except OSError:
        return True  # it leads nowhere, which is told elsewhere


def _name_group(group: Group) -> str:
    return group.parts[0].found_at if group.parts else group.faults[0].path


def _join_parts(candidates: list[_Candidate]) -> list[_Candidate]:
    """Join metadata and roots that lie in different directories.

    Files that were named, and lack their other half, are joined by their names. Directories are
    joined only if all that was named is one image: of many directories, two incomplete ones need
    not belong together.
    """
    halves = [one for one in candidates if one.is_named and not one.group.is_whole]
    joined = _join(halves)
    if not joined and not any(one.group.is_whole for one in candidates):
        halves, joined = candidates, _join(candidates)
        if len(joined) > 1:
            return candidates
    return [one for one in candidates if one not in halves] + joined if joined else candidates


def _join(halves: list[_Candidate]) -> list[_Candidate]:
    """Return the images that ``halves`` make together; empty if none is whole."""
    groups = group_files(
        [part for half in halves for part in half.group.parts],
        [fault for half in halves for fault in half.group.faults],
    )
    if not any(group.is_whole and not find_rivals(group.parts) for group in groups):
        return []
    return [_Candidate(_name_group(group), group, is_named=True) for group in groups]


class _Assembly:
    """Makes images of groups of files, with what accompanies them.

    Args:
        found: what has been found so far.
        options: what to import, and how.
        scratch: for the metadata of images that come without.
    """

    def __init__(self, found: Sources, options: ImportOptions, scratch: Scratch) -> None:
        self._found = found
        self._options = options
        self._scratch = scratch
        self._checksums: dict[str, Checksums | Finding | None] = {}

    def assemble(self, candidates: list[_Candidate]) -> Sources:
        """Return what has been found, with the images that ``candidates`` are."""
        used = [_list_directories(candidate.group) for candidate in candidates]
        images_in = Counter(chain.from_iterable(used))
        for candidate, directories in zip(candidates, used, strict=True):
            is_shared = any(images_in[directory] > 1 for directory in directories)
            image = self._make_image(candidate, directories, is_shared=is_shared)
            if isinstance(image, Finding):
                self._found.failures.append(image)
            else:
                self._found.images.append(image)
        return self._found

    def _make_image(
        self, candidate: _Candidate, directories: list[str], *, is_shared: bool
    ) -> Image | Finding:
        """Return an image, or why it cannot be imported."""
        group, label = candidate.group, candidate.label
        if group.faults:
            failures = [
                Finding(
                    fault.code,
                    fault.path,
                    f"{fault.problem}; nothing of this image is imported",
                    fault.remedy,
                    versions_left_out=int(number == 0),
                )
                for number, fault in enumerate(group.faults)
            ]
            self._found.findings += failures[1:]
            return failures[0]
        digests = self._hold_against_checksums(group, directories)
        if isinstance(digests, Finding):
            return digests
        parts = list(group.parts)
        if not group.has_metadata and group.has_root:
            made = self._make_metadata(group, label)
            if isinstance(made, Finding):
                return made
            parts += made
        return Image(label, parts, digests, self._find_extras(directories, is_shared=is_shared))

    def _make_metadata(self, group: Group, label: str) -> list[Part] | Finding:
        """Return metadata for a bare root, if its names are given; or why there cannot be any."""
        naming = self._options.naming
        if not (naming.os and naming.release and naming.arch):
            return []
        mtime = int(min(part.status.st_mtime for part in group.parts))
        try:
            content = make_metadata_tarball(make_metadata_yaml(naming, mtime), mtime)
            path = self._scratch.write(_MADE_NAME, content, mtime * 1_000_000_000)
        except MetadataError as error:
            return Finding(error.code, label, error.problem, error.remedy, versions_left_out=1)
        except OSError as error:
            problem = f"its metadata cannot be written ({error.strerror or error})"
            remedy = "make room for temporary files, or choose a place with TMPDIR"
            return Finding(Code.NOT_WRITTEN, label, problem, remedy, versions_left_out=1)
        made = recognise(path)
        return [replace(made, is_made=True)] if isinstance(made, Part) else []

    def _hold_against_checksums(
        self, group: Group, directories: list[str]
    ) -> dict[str, str] | Finding:
        """Return the digests that files must have, by path; or what is wrong with a SHA256SUMS."""
        digests: dict[str, str] = {}
        for directory in directories:
            checksums = self._read_checksums(directory)
            if checksums is None:
                continue
            if isinstance(checksums, Finding):
                return checksums
            path = os.path.join(directory, CHECKSUMS_NAME)
            paths = {
                os.path.basename(part.found_at): part.found_at
                for part in group.parts
                if os.path.dirname(part.found_at) == directory
            }
            problem = checksums.find_problem(paths)
            if problem:
                return _refuse_checksums(path, problem)
            unnamed = sorted(paths.keys() - checksums.digests.keys())
            if unnamed:
                problem = f"does not name {', '.join(unnamed)}, imported without a check"
                remedy = "make it anew: sha256sum * > SHA256SUMS"
                self._found.findings.append(Finding(Code.BAD_CHECKSUMS, path, problem, remedy))
            digests |= {
                paths[name]: checksums.digests[name] for name in paths.keys() - set(unnamed)
            }
        return digests

    def _read_checksums(self, directory: str) -> Checksums | Finding | None:
        if directory not in self._checksums:
            self._checksums[directory] = _read_checksums(os.path.join(directory, CHECKSUMS_NAME))
        return self._checksums[directory]

    def _find_extras(self, directories: list[str], *, is_shared: bool) -> tuple[Extra, ...]:
        """Return the ``image.yaml`` beside the files; if there are several, that of the metadata.

        Args:
            directories: where the files are, those of the metadata first.
            is_shared: whether another image has files there, too.
        """
        for directory in directories:
            path = os.path.join(directory, IMAGE_YAML_NAME)
            real = real_path(path) if os.path.islink(path) else path
            status = stat_regular_file(real)
            if status is None or not has_one_owner(path, real):
                continue
            if is_shared and self._options.mode == "move":
                problem = "copied, not moved: it accompanies several images"
                finding = Finding(Code.SOURCE_KEPT, path, problem, "remove it afterwards")
                if finding not in self._found.findings:
                    self._found.findings.append(finding)
            is_linked = real != path or os.path.islink(directory)
            return (Extra(real, IMAGE_YAML_NAME, status, is_shared or is_linked),)
        return ()


def _list_directories(group: Group) -> list[str]:
    """Return where the files of a group are, those with metadata first."""
    parts = sorted(group.parts, key=lambda part: part.metadata_yaml is None)
    return list(dict.fromkeys(os.path.dirname(part.found_at) for part in parts))


def _read_checksums(path: str) -> Checksums | Finding | None:
    try:
        if os.path.islink(path) and not has_one_owner(path, real_path(path)):
            raise OSError(None, _FOREIGN_LINK)
        return parse_checksums(read_small_file(path, _MAX_CHECKSUMS_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        return _refuse_checksums(path, f"cannot be read ({error.strerror or error})")


def _refuse_checksums(path: str, problem: str) -> Finding:
    problem = f"{problem}; nothing that it could vouch for is imported"
    remedy = "correct it, or remove it if nothing is to be checked"
    return Finding(Code.BAD_CHECKSUMS, path, problem, remedy, versions_left_out=1)

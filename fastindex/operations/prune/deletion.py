"""Deletes what has been unpublished for the grace, and what was abandoned.

Nothing goes that a catalogue names, in whichever output directory, or that anything visible in the
tree leads to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from functools import cached_property, partial

from msgspec import Struct
from msgspec.structs import replace

from fastindex.catalogue.published import read_published_paths
from fastindex.errors import Code, suggest_remedy
from fastindex.events import Finding, Observer, count
from fastindex.formats.simplestreams import INDEX_PATH
from fastindex.mirror import removal
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import outputs, withdrawals
from fastindex.mirror.state.withdrawals import Withdrawal, Withdrawals
from fastindex.mirror.tree import Found
from fastindex.operations.prune.in_use import PlacesInUse
from fastindex.operations.prune.retention import find_incomplete_versions
from fastindex.system import directories


class DeletionPlan(Struct, frozen=True):
    """What becomes of the versions that are withdrawn."""

    due: tuple[str, ...]
    """They have had their grace, and nothing that stays leads to them. What leads to another comes
    before it."""
    leading: dict[str, set[str]]
    """Of those, what leads to a version: if it cannot be deleted, that version stays as well."""
    waiting: tuple[str, ...]
    """A later run deletes them."""
    deltas: dict[str, tuple[str, ...]] = {}
    """Of those that go, the deltas that start from a version, in versions that stay: they have been
    unpublished for as long, and are of no use without it."""


class Deletion:
    """Deletes in one mirror, and collects findings. The caller holds the mirror's lock.

    The published catalogues are read once: make a new one after each build.

    Args:
        mirror: the mirror, with the streams of everything that may be deleted.
        grace_seconds: how long files outlive the last catalogue that named them.
        now: the time, in seconds since the epoch.
        read_own: returns what the catalogue of this mirror names, or will name by then, for a dry
            run; None: read it.
        consequence: what is not done while a catalogue cannot be read.
    """

    def __init__(
        self,
        mirror: Mirror,
        grace_seconds: float,
        now: float,
        read_own: Callable[[], Set[str] | None] | None = None,
        consequence: str = "nothing was deleted",
    ) -> None:
        self.findings: list[Finding] = []
        """What a person should know."""
        self.has_failed = False
        """Whether something could not be deleted."""
        self.bytes_freed = 0
        """How large the files were that were deleted."""
        self._mirror = mirror
        self._grace_seconds = grace_seconds
        self._now = now
        self._read_own = read_own or partial(read_published_paths, mirror.output)
        self._consequence = consequence
        self._abandoned_ns = round((now - removal.ABANDONED_SECONDS) * 1e9)

    @cached_property
    def _own_paths(self) -> Set[str] | None:
        """What the catalogue of this mirror names."""
        return self._read_own()

    @cached_property
    def _paths_by_output(self) -> dict[str, Set[str]] | None:
        """What each catalogue of the tree names; None, with a finding, if one cannot be read."""
        every: dict[str, Set[str]] = {}
        for output in (self._mirror.output, *outputs.find_others(self._mirror)):
            is_own = output == self._mirror.output
            paths = self._own_paths if is_own else read_published_paths(output)
            is_lost = not is_own and not os.path.lexists(os.path.join(output, INDEX_PATH))
            if paths is None or is_lost:
                self.has_failed = True
                problem = f"cannot be read completely, so {self._consequence}"
                remedy = "run fastindex verify to see why"
                if not is_own:
                    entry = outputs.describe_entry(self._mirror)
                    remedy = (
                        f"mount it, or run fastindex verify with --output {output} to see why; if "
                        f"it is not used any more, remove {entry}"
                    )
                self._warn(f"{output}/streams", problem, remedy, Code.BAD_CATALOGUE)
                return None
            every[output] = paths
        return every

    @cached_property
    def _published_paths(self) -> Set[str] | None:
        """What any catalogue of the tree names; None, with a finding, if one cannot be read."""
        by_output = self._paths_by_output
        if by_output is None:
            return None
        own, *others = by_output.values()
        return set(own).union(*others) if others else own

    @property
    def is_possible(self) -> bool:
        """Whether it is known what is published; if not, nothing may be deleted."""
        return self._published_paths is not None

    def update_times(self, known: Withdrawals) -> Withdrawals:
        """Return ``known`` with the times since when the published catalogues are without each.

        Call it before a catalogue is replaced, as clients cache it: what it names again loses its
        time.
        """
        published = self._published_paths if known else None
        return known if published is None else _update_times(known, published, self._now)

    def plan(self, known: Withdrawals, only: Collection[str] | None = None) -> DeletionPlan:
        """Decide what may be deleted, with a finding for each version that must stay in use.

        Args:
            known: what is withdrawn, with the present times.
            only: versions that were named now, and no others may be deleted; None: all.
        """
        if not self.is_possible:
            return DeletionPlan((), {}, tuple(sorted(known)))
        named = known.keys() if only is None else known.keys() & set(only)
        self._warn_of_outputs({name: known[name] for name in named})
        due = {
            name
            for name, withdrawal in known.items()
            if 0 < withdrawal.unpublished_at <= self._now - self._grace_seconds
            and (only is None or name in only)
            and self._has_product(name)
            and not (only is None and self._has_new_content(name, withdrawal))
        }
        going = {name for name in due if self._is_spare(name, known[name])}
        try:
            in_use = PlacesInUse(self._mirror, self._published_paths or ())
            leads = _Leads(in_use, going, known)
        except OSError as error:
            self._fail_to_look(error)
            return DeletionPlan((), {}, tuple(sorted(known)))
        for name, user in sorted(leads.find_blocked().items()):
            going.remove(name)
            if removal.is_half_removed(user):
                continue  # this run ends that removal, and the next one can delete this version
            problem = f"not deleted: {user} leads to its files"
            self._fail_because(name, problem, "replace the link by a copy, or remove it")
        waiting = tuple(sorted(known.keys() - going))
        try:
            deltas = self._find_deltas(in_use, {name for name in going if not known[name].files})
        except OSError as error:
            self._fail_to_look(error)
            deltas = {}
        return DeletionPlan(tuple(leads.sort(going)), leads.leading, waiting, deltas)

    def _find_deltas(self, in_use: PlacesInUse, going: Set[str]) -> dict[str, tuple[str, ...]]:
        """Return the deltas that start from versions which go, and that nothing else needs.

        Raises:
            OSError: the tree cannot be read.
        """
        found: dict[str, list[str]] = {}
        for product in sorted({os.path.dirname(name) for name in going}):
            for base, path in removal.find_deltas(self._mirror, product):
                is_due = base in going and os.path.dirname(path) not in going
                if is_due and not in_use.is_used(in_use.find_place(path)):
                    found.setdefault(base, []).append(path)
        return {base: tuple(paths) for base, paths in found.items()}

    def delete_withdrawn(
        self, only: Collection[str] | None = None, observer: Observer | None = None
    ) -> tuple[list[str], list[str]]:
        """Record since when what is withdrawn is unpublished; delete what has had its grace.

        Args:
            only: as for ``plan``.
            observer: told of progress.

        Returns:
            The versions that were deleted, and those that a later run will delete.

        Raises:
            TreeError: the record of what is withdrawn cannot be used.
            PublishError: the record cannot be written.
        """
        known = self.update_times(withdrawals.load(self._mirror))
        if known:
            withdrawals.save(self._mirror, known)
        plan = self.plan(known, only)
        failed: set[str] = set()
        deltas: list[str] = []
        for name in count(observer or Observer(), "deleting", "version", len(plan.due), plan.due):
            is_led_to = not failed.isdisjoint(plan.leading.get(name, ()))
            if is_led_to or not self._delete(name, known[name]):
                failed.add(name)
                continue
            starting = plan.deltas.get(name, ())
            gone = [path for path in starting if self._delete_delta(path)]
            deltas += gone
            if len(gone) < len(starting):
                failed.add(name)  # so that the next run tries again
        deleted = set(plan.due) - failed
        if deleted:
            known = {name: known[name] for name in known.keys() - deleted}
            withdrawals.save(self._mirror, known)
        return sorted((*deleted, *deltas)), sorted(known)

    def delete_abandoned(self, abandoned: Iterable[str], spared: Collection[str] = ()) -> list[str]:
        """Delete hidden leftovers, and versions that are not images; return their paths.

        Args:
            abandoned: as ``find_abandoned`` returns them.
            spared: versions that were published until now: clients may still ask for their files.
        """
        deleted: list[str] = []
        for path in abandoned:
            if path in spared:
                continue
            is_hidden = os.path.basename(path)[0] == "."
            try:
                kept = (
                    removal.remove_leftover(self._mirror, path, self._abandoned_ns)
                    if is_hidden
                    else removal.remove_version(self._mirror, path)
                )
            except FileNotFoundError:
                continue
            except OSError as error:
                self._fail(path, error)
                continue
            self._warn_of_kept(path, kept)
            deleted += [] if kept else [path]
        return deleted

    def find_abandoned(self, found: list[Found]) -> list[str]:
        """Return what was abandoned and nothing leads to, as paths relative to ROOT.

        Args:
            found: the tree as it is now.
        """
        candidates = [
            version.path
            for version in find_incomplete_versions(found)
            if not os.path.islink(self._mirror.path(version.path))
            and removal.is_abandoned(self._mirror.path(version.path), self._abandoned_ns)
        ]
        # The scan knows those that symlinks lead to, but none without a visible version.
        products = dict.fromkeys(product.path for product, _ in found)
        products |= dict.fromkeys(removal.find_product_paths(self._mirror))
        for path in products:
            candidates += removal.find_leftovers(self._mirror, path, self._abandoned_ns)
        if not candidates or self._published_paths is None:
            return []
        try:
            # Its own: what was deleted before leads nowhere any more.
            in_use = PlacesInUse(self._mirror, self._published_paths, candidates)
            return [path for path in candidates if not in_use.is_used(in_use.find_place(path))]
        except OSError as error:
            self._fail_to_look(error)
            return []

    def _has_product(self, name: str) -> bool:
        """Return whether the product's directory exists.

        If it does not, a disk may not be mounted. The record then stays, so that the version is
        not published again when the disk is back.
        """
        return os.path.isdir(os.path.dirname(self._mirror.path(name)))

    def _has_new_content(self, name: str, withdrawal: Withdrawal) -> bool:
        """Return whether a version changed within the grace: then that begins anew.

        An uploader may have used its name again, for what was never published.
        """
        if not self._grace_seconds:
            return False
        now_ns = round(self._now * 1e9)
        try:
            changed_ns = removal.find_last_change_ns(self._mirror, name, withdrawal.files, now_ns)
        except OSError as error:
            self._fail(name, error)
            return True
        return changed_ns > now_ns - round(self._grace_seconds * 1e9)

    def _is_spare(self, name: str, withdrawal: Withdrawal) -> bool:
        """Return whether something else of a version's product is published, or it may be empty.

        If not, there is a finding.
        """
        if withdrawal.is_asked_for or os.path.dirname(name) in self._published_products:
            return True
        # The versions that were to stay have become unreadable since.
        problem = "not deleted: nothing else of its product is published any more"
        self._fail_because(name, problem, "repair the newer versions, or use prune --undo")
        return False

    @cached_property
    def _published_products(self) -> set[str]:
        """Directories of the products that the catalogue of this mirror names, relative to ROOT."""
        return {os.path.dirname(path) for path in self._own_paths or ()}

    def _delete(self, name: str, withdrawal: Withdrawal) -> bool:
        """Delete a version or the files of one that are withdrawn; return whether it is gone."""
        mirror = self._mirror
        path = mirror.path(name)
        size_bytes = removal.measure(mirror, name, withdrawal.files)
        try:
            target = os.readlink(path) if os.path.islink(path) else ""
            if withdrawal.files:
                for file in withdrawal.files:
                    removal.remove_file(mirror, f"{name}/{file}")
            else:
                self._warn_of_kept(name, removal.remove_version(mirror, name))
                self._warn_of_target(name, target)
        except directories.LeadsOutError:
            problem = "not deleted: a symlink on the way to it leads elsewhere"
            self._fail_because(
                name, problem, "remove the symlink, or allow it with --allow-links DIR"
            )
            return False
        except OSError as error:
            self._fail(name, error)
            return False
        self.bytes_freed += size_bytes
        return True

    def _delete_delta(self, path: str) -> bool:
        """Delete a delta whose base is gone; return whether it is gone, too."""
        version, name = os.path.split(path)
        size_bytes = removal.measure(self._mirror, version, [name])
        try:
            removal.remove_file(self._mirror, path)
        except OSError as error:
            self._fail(path, error)
            return False
        self.bytes_freed += size_bytes
        return True

    def _warn_of_target(self, name: str, target: str) -> None:
        """Tell where the files of a version are that was a symlink.

        A hidden directory beside it is a leftover now, which goes in its turn.
        """
        if target and ("/" in target or target[0] != "."):
            problem = f"only the symlink was deleted, not {target}, where it led"
            self._warn(name, problem, "remove what is there if nobody needs it")

    def _warn_of_kept(self, path: str, kept: list[str]) -> None:
        if kept:
            problem = f"deleted, except for files that do not belong to an image: {', '.join(kept)}"
            self._warn(path, problem, "remove them if nobody needs them")

    def _warn_of_outputs(self, known: Withdrawals) -> None:
        """Name the other catalogues because of which something was not deleted after the grace.

        They have the grace to follow: each output has its own record of what is withdrawn.
        """
        began = self._now - self._grace_seconds
        overdue = {name: one for name, one in known.items() if one.withdrawn_at <= began}
        for output, paths in (self._paths_by_output or {}).items():
            held = sum(_is_named(name, one, paths) for name, one in overdue.items())
            if not held or output == self._mirror.output:
                continue
            is_root = output == self._mirror.root
            option = "without --output" if is_root else f"with --output {output}"
            entry = "" if is_root else f" and {outputs.describe_entry(self._mirror)}"
            self._fail_because(
                f"{output}/streams",
                f"still names {held:,} withdrawn version{'' if held == 1 else 's'}, so "
                f"{'it was' if held == 1 else 'they were'} not deleted",
                f"withdraw the same there, with prune or remove {option}; if it is not served any "
                f"more, remove that directory{entry}",
            )

    def _fail(self, path: str, error: OSError) -> None:
        problem = f"cannot be deleted ({error.strerror})"
        self._fail_because(path, problem, suggest_remedy(error))

    def _fail_because(self, path: str, problem: str, remedy: str) -> None:
        self.has_failed = True
        self._warn(path, problem, remedy)

    def _fail_to_look(self, error: OSError) -> None:
        self.has_failed = True
        path = os.fsdecode(error.filename or self._mirror.root)
        reason = f"cannot be read ({error.strerror})"
        problem = f"{reason}, so nothing was deleted: it may lead to what was to be deleted"
        self._warn(path, problem, "check the disk", Code.UNREADABLE)

    def _warn(self, path: str, problem: str, remedy: str, code: Code = Code.NOT_DELETED) -> None:
        self.findings.append(Finding(code, path, problem, remedy))


def drop_withdrawn_paths(paths: Set[str], withdrawn: Withdrawals) -> set[str]:
    """Return the published ``paths`` that a catalogue still names when ``withdrawn`` has left it.

    Args:
        paths: of versions and of their files, relative to ROOT.
        withdrawn: what leaves it.
    """

    def leaves(path: str) -> bool:
        above, name = os.path.split(path)
        whole, part = withdrawn.get(path), withdrawn.get(above)
        return (whole is not None and not whole.files) or (
            part is not None and (not part.files or name in part.files)
        )

    return {path for path in paths if not leaves(path)}


class _Leads:
    """Which of the versions that are to go lead to each other, or are led to from outside.

    Args:
        in_use: what leads where.
        going: the versions.
        known: what is withdrawn of them.

    Raises:
        OSError: the tree cannot be read.
    """

    def __init__(self, in_use: PlacesInUse, going: Set[str], known: Withdrawals) -> None:
        self._blocked: dict[str, str] = {}
        self._led_to: dict[str, dict[str, str]] = {}
        self.leading: dict[str, set[str]] = {}
        """Version → the others that lead to it."""
        places: dict[str, str] = {}
        for name in going:
            place = in_use.find_place(name)
            files = [os.path.join(place, file) for file in known[name].files]
            places |= dict.fromkeys(files or [place], name)
        for place, name in places.items():
            for user in in_use.find_users(place):
                owner = _find_owner(user, places)
                if owner is None:
                    self._blocked.setdefault(name, in_use.shorten(user))
                elif owner != name:
                    self._led_to.setdefault(owner, {})[name] = in_use.shorten(user)
                    self.leading.setdefault(name, set()).add(owner)

    def find_blocked(self) -> dict[str, str]:
        """Return the versions that what stays leads to, directly or not, and what does."""
        blocked = dict(self._blocked)
        queue = list(blocked)
        while queue:
            for name, user in self._led_to.get(queue.pop(), {}).items():
                if name not in blocked:
                    blocked[name] = user
                    queue.append(name)
        return blocked

    def sort(self, going: Set[str]) -> list[str]:
        """Return ``going`` such that what leads to another comes first, but for circles."""
        remaining = {name: len(self.leading.get(name, ())) for name in going}
        ready = [name for name in sorted(going) if not remaining[name]]
        in_order: dict[str, None] = {}
        while ready:
            name = ready.pop()
            in_order[name] = None
            for other in self._led_to.get(name, ()):
                if other in remaining:
                    remaining[other] -= 1
                    if not remaining[other]:
                        ready.append(other)
        return [*in_order, *sorted(going - in_order.keys())]


def _find_owner(path: str, places: Mapping[str, str]) -> str | None:
    """Return the version whose place ``path`` is, or is in; None if there is none."""
    while path not in places:
        above = os.path.dirname(path)
        if above == path:
            return None
        path = above
    return places[path]


def _update_times(known: Withdrawals, published: Set[str], now: float) -> Withdrawals:
    return {
        name: replace(withdrawal, unpublished_at=0)
        if _is_named(name, withdrawal, published)
        else replace(withdrawal, unpublished_at=withdrawal.grace_began(now))
        for name, withdrawal in known.items()
    }


def _is_named(name: str, withdrawal: Withdrawal, published: Set[str]) -> bool:
    if withdrawal.files:
        return any(f"{name}/{file}" in published for file in withdrawal.files)
    return name in published

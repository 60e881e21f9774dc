"""Pure: which big files a worker reads side by side, so that all of them are done soonest.

Lanes are cheaper together than one after another, but each is slower than a lane that has the CPU
to itself: a big file that is read beside others ends late. So a worker gets a file beside those
that it holds only if then none of them ends after a *deadline*. ``make_plan`` searches the earliest
that can be met. A worker that holds nothing gets the largest file, whatever the deadline.

With few files that may take longer than another way: workers read *groups* of files of similar
size, and get another group when they are done with one. The quicker way is taken.

A *cost* is a time, in units of the time that one SHA-256 state takes for a byte.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, insort
from collections.abc import Generator, Iterable, Sequence
from heapq import heapify, heappop, heapreplace
from operator import neg
from typing import NamedTuple

READ_COST = 0.3
"""Cost of reading a byte that is in memory: 0.2 to 0.3 on Zen 5 and Zen 4."""
BLAKE3_COST = 0.3
"""Cost of BLAKE3 for a byte."""

_CLOSE = 1.01
"""A plan that takes longer than is possible by this factor is good enough."""
_FEW = 4
"""Up to so many lanes any gain will do, and groups of any number of files are tried."""
_MIN_GAIN = 1.1
"""More must be quicker by this factor: the pieces that are read get smaller, and whether the model
holds depends on caches and on other programs."""
_NEXT_WIDTH = 0.75
_GROUP_PENALTY = 1.015
"""Groups must be quicker by this factor: a worker that gets files one by one makes up for speeds
that are not as in the model."""
_SIMULATION_COST = 1_000_000
"""The search stops when it has simulated one file for each such part of the time to plan: it takes
a hundredth of it, as a file takes about 5 µs."""


class File(NamedTuple):
    """A file to read in one go."""

    size_bytes: int
    lanes: int
    """SHA-256 states that take in its bytes."""


class Rates:
    """How quickly a worker reads and hashes.

    Attributes:
        byte_cost: cost of a byte of a file whatever its lanes.
        lane_costs: cost of a byte in so many lanes, 0 and more.
        max_lanes: the most lanes of files that are read side by side.

    Args:
        speeds: as in ``Strategy``.
        byte_cost: as above.
        most_lanes: the most lanes that one file has.
    """

    def __init__(self, speeds: Sequence[float], byte_cost: float, most_lanes: int = 1) -> None:
        self.byte_cost = byte_cost
        self.max_lanes = len(speeds)
        beyond = range(len(speeds) + 1, most_lanes + 1)
        self.lane_costs = [
            0.0,
            *(count / speed for count, speed in enumerate(speeds, 1)),
            *(count / speeds[-1] for count in beyond),
        ]

    def cost(self, files: int, lanes: int) -> float:
        """Return the cost of a byte of each of ``files`` files, which have ``lanes`` together."""
        return files * self.byte_cost + self.lane_costs[min(lanes, len(self.lane_costs) - 1)]


class Desk:
    """The files that a worker holds: it reads as many bytes of each before it reads on.

    Attributes:
        clock: the cost of what has been read.
        held: of each file the position at which it ends, its number and its lanes; in order.
        lanes: of these files together.

    Args:
        rates: how quick the worker is.
    """

    def __init__(self, rates: Rates) -> None:
        self.clock = 0.0
        self.held: list[tuple[int, int, int]] = []
        self.lanes = 0
        self._rates = rates
        self._position = 0

    def add(self, number: int, file: File) -> None:
        """Put the file ``number`` on the desk."""
        insort(self.held, (self._position + file.size_bytes, number, file.lanes))
        self.lanes += file.lanes

    def find_next_end(self) -> float:
        """Return when the first of its files ends; it holds one."""
        files = len(self.held)
        return self.clock + (self.held[0][0] - self._position) * self._rates.cost(files, self.lanes)

    def remove(self, number: int, *, was_read: bool) -> None:
        """Take the file ``number`` off the desk.

        Args:
            number: of the file.
            was_read: whether it has been read to its end; it has failed otherwise.
        """
        index = next(index for index, held in enumerate(self.held) if held[1] == number)
        if index == 0 and was_read:
            self.clock = self.find_next_end()
            self._position = self.held[0][0]
        self.lanes -= self.held.pop(index)[2]

    def find_room(self, lanes: int, deadline: float, wanted_bytes: int) -> float:
        """Return up to which size one more file lets all of them end by ``deadline``.

        Args:
            lanes: of that file.
            deadline: when all is to have ended.
            wanted_bytes: a size that is enough.

        Returns:
            Bytes; less than 0 if those that it holds end later anyway.
        """
        byte_cost, lane_costs = self._rates.byte_cost, self._rates.lane_costs
        held, held_lanes, files = self.held, self.lanes, len(self.held)
        position = self._position
        left = deadline - self.clock
        cost = lane_costs[held_lanes + lanes] + (files + 1) * byte_cost
        if max(wanted_bytes, held[-1][0] - position) * cost <= left:
            return wanted_bytes  # even if it went on as slowly as it begins
        spans = []
        for end, _, lanes_of_one in held:
            span = end - position
            cost = lane_costs[held_lanes]
            left -= span * (cost + files * byte_cost)
            spans.append((span, byte_cost + lane_costs[held_lanes + lanes] - cost))
            position = end
            held_lanes -= lanes_of_one
            files -= 1
        if left < 0:
            return -1.0
        room = 0.0
        for span, extra_cost in spans:
            if span * extra_cost > left:
                return room + left / extra_cost
            left -= span * extra_cost
            room += span
        return room + left / (byte_cost + lane_costs[lanes])


class Plan(NamedTuple):
    """What decides which file a worker gets."""

    deadline: float
    """When all is to have ended, since the start."""
    max_lanes: int
    """The most lanes of the files that a worker holds."""
    duration: float
    """When all will have ended."""
    group_files: int = 0
    """How many files a worker gets at a time, and nothing beside them; 0: it is as above."""


class Waiting:
    """Files that wait for a worker.

    Args:
        files: the largest first. Their places here are their numbers.
    """

    def __init__(self, files: Sequence[File]) -> None:
        self._files = files
        numbers: dict[int, array[int]] = {}
        for number, file in enumerate(files):
            numbers.setdefault(file.lanes, array("q")).append(number)
        self._kinds = {
            lanes: _Kind(of_kind, [files[number].size_bytes for number in of_kind])
            for lanes, of_kind in numbers.items()
        }

    def restart(self) -> None:
        """Let all files wait again."""
        for kind in self._kinds.values():
            kind.restart()

    def give(self, desk: Desk, plan: Plan) -> int | None:
        """Put the largest file that ``plan`` admits on ``desk``: the largest of all if it is empty.

        Returns:
            The number of the file; None if none is admitted.
        """
        number = _NONE
        for lanes, kind in self._kinds.items():
            place = kind.first
            if desk.held:
                if desk.lanes + lanes > plan.max_lanes:
                    continue
                size_bytes = kind.sizes[place]
                room = desk.find_room(lanes, plan.deadline, size_bytes)
                if room < size_bytes:
                    place = kind.find(room)
            number = min(number, kind.numbers[place])
        if number == _NONE:
            return None
        file = self._files[number]
        self._kinds[file.lanes].take(number)
        desk.add(number, file)
        return number


_NONE = 1 << 62
"""More than the number of any file."""


class _Kind:
    """Files with as many lanes.

    Attributes:
        numbers: of the files; behind them a place for none.
        sizes: of the files; behind them 0.
        first: the place of the largest that waits.

    Args:
        numbers: as above.
        sizes: as above, in bytes; the largest first.
    """

    def __init__(self, numbers: Iterable[int], sizes: Iterable[int]) -> None:
        self.numbers = array("q", [*numbers, _NONE])
        self.sizes = array("q", [*sizes, 0])
        self._next = array("q")
        self.restart()

    def restart(self) -> None:
        """Let all of them wait again."""
        self.first = 0
        self._next = array("q", range(len(self.numbers)))

    def find(self, max_bytes: float) -> int:
        """Return the place of the largest of up to ``max_bytes`` that waits, or that for none."""
        return self._skip(bisect_left(self.sizes, -max_bytes, self.first, key=neg))

    def take(self, number: int) -> None:
        """Let the file ``number`` wait no more."""
        place = bisect_left(self.numbers, number)
        self._next[place] = place + 1
        self.first = self._skip(self.first)

    def _skip(self, place: int) -> int:
        """Return the first place from ``place`` on whose file waits; shorten the way there."""
        following = self._next
        place = min(place, len(following) - 1)
        while (after := following[place]) != place:
            following[place] = following[after]
            place = after
        return place


def deal(
    waiting: Waiting, desks: Iterable[Desk], plan: Plan
) -> Generator[tuple[Desk, int], None, None]:
    """Put files on ``desks`` in turn, those first that hold least, until none gets another one.

    Args:
        waiting: the files.
        desks: who gets them.
        plan: what decides.

    Yields:
        A desk, and the number of the file that it has got.
    """
    takers = sorted(desks, key=_count_held)
    while takers:
        still: list[Desk] = []
        for desk in takers:
            number = waiting.give(desk, plan)
            if number is not None:
                yield desk, number
                still.append(desk)
        takers = still


def _count_held(desk: Desk) -> int:
    return len(desk.held)


def make_plan(files: Sequence[File], workers: int, rates: Rates, other_cost: float = 0.0) -> Plan:
    """Return the plan by which ``files`` are done soonest.

    Args:
        files: the largest first; at least one.
        workers: number of workers.
        rates: how quick each is.
        other_cost: of what workers read when they get no more of ``files``.
    """
    search = _Search(files, workers, rates, other_cost)
    for max_lanes in choose_widths(rates, min(file.lanes for file in files)):
        search.try_width(max_lanes)
    return search.best


def plan_groups(files: Sequence[File], workers: int, rates: Rates, other_cost: float = 0.0) -> Plan:
    """Return the best plan for workers that get a group of files at a time; as ``make_plan``."""
    lanes = min(file.lanes for file in files)
    few = min(_FEW, rates.max_lanes)
    choices = [(width // lanes, rates.max_lanes) for width in choose_widths(rates, lanes)]
    choices += [(width, few) for width in range(few, 0, -1)]
    least = _estimate_least(files, workers, rates, other_cost, rates.max_lanes)
    best = Plan(0.0, 0, math.inf)
    for width, max_lanes in choices:
        plan = Plan(0.0, max_lanes, math.inf, width)
        duration = _time_groups(files, plan, workers, rates, other_cost)
        if duration < best.duration:
            best = plan._replace(duration=duration)
        if duration <= least * _CLOSE:
            break
    return best


def _estimate_least(
    files: Sequence[File], workers: int, rates: Rates, other_cost: float, max_lanes: int
) -> float:
    """Return a time in which it cannot be done with up to ``max_lanes`` lanes side by side."""
    costs = {
        lanes: min(
            rates.cost(count, count * lanes) / count
            for count in range(1, max(1, max_lanes // lanes) + 1)
        )
        for lanes in {file.lanes for file in files}
    }
    total = sum(file.size_bytes * costs[file.lanes] for file in files)
    longest = max(file.size_bytes * rates.cost(1, file.lanes) for file in files)
    return max(longest, (total + other_cost) / workers)


def split(files: Iterable[File], plan: Plan) -> Generator[list[File], None, None]:
    """Yield the groups of ``plan``, neighbours among ``files``."""
    group: list[File] = []
    free = plan.max_lanes
    for file in files:
        if group and (len(group) == plan.group_files or file.lanes > free):
            yield group
            group, free = [], plan.max_lanes
        group.append(file)
        free -= file.lanes
    if group:
        yield group


def _time_groups(
    files: Sequence[File], plan: Plan, workers: int, rates: Rates, other_cost: float
) -> float:
    """Return when the last worker is done if each takes the next group when free."""
    ends = [0.0] * workers
    for group in split(files, plan):
        heapreplace(ends, ends[0] + _time_group(group, rates))
    return max((sum(ends) + other_cost) / workers, *ends)


def _time_group(group: list[File], rates: Rates) -> float:
    duration = 0.0
    read_bytes = 0
    lanes = sum(file.lanes for file in group)
    for count in range(len(group), 0, -1):
        file = group[count - 1]
        duration += (file.size_bytes - read_bytes) * rates.cost(count, lanes)
        read_bytes = file.size_bytes
        lanes -= file.lanes
    return duration


def choose_widths(rates: Rates, lanes: int) -> list[int]:
    """Return numbers of lanes with which reading is quicker than with fewer, the most first.

    Args:
        rates: how quick a worker is.
        lanes: of a file.

    Returns:
        Not all of them: each is less than the one before by a quarter or more.
    """
    quicker: list[int] = []
    bar = 1 / rates.cost(1, lanes)
    for files in range(2, rates.max_lanes // lanes + 1):
        width = files * lanes
        if width > _FEW >= width - lanes:
            bar *= _MIN_GAIN
        speed = files / rates.cost(files, width)
        if speed > bar:
            bar = speed
            quicker.append(width)
    widths: list[int] = []
    for width in reversed(quicker):
        if not widths or width <= widths[-1] * _NEXT_WIDTH:
            widths.append(width)
    return widths


class _Search:
    """The search for a plan: it begins with that for groups.

    Attributes:
        best: the best plan so far.

    Args:
        files: as for ``make_plan``.
        workers: likewise.
        rates: likewise.
        other_cost: likewise.
    """

    def __init__(
        self, files: Sequence[File], workers: int, rates: Rates, other_cost: float
    ) -> None:
        self.best = plan_groups(files, workers, rates, other_cost)
        self._files = files
        self._waiting = Waiting(files)
        self._workers = workers
        self._rates = rates
        self._other_cost = other_cost
        self._bar = self.best.duration * _GROUP_PENALTY
        self._simulations = max(1, int(self.best.duration / _SIMULATION_COST / len(files)))

    def try_width(self, max_lanes: int) -> None:
        """Search the best plan with up to ``max_lanes`` lanes side by side."""
        low = _estimate_least(self._files, self._workers, self._rates, self._other_cost, max_lanes)
        deadline = low * _CLOSE
        while self._simulations > 0 and self._bar > low * _CLOSE:
            self._simulations -= 1
            plan = self._simulate(deadline, max_lanes)
            if plan.duration < self._bar:
                self.best = plan
                self._bar = plan.duration
            if plan.duration > deadline:
                low = deadline
            deadline = math.sqrt(low * self._bar)

    def _simulate(self, deadline: float, max_lanes: int) -> Plan:
        """Return a plan; its duration is only right if it is less than that to be beaten."""
        plan = Plan(deadline, max_lanes, self._bar)
        waiting = self._waiting
        waiting.restart()
        desks = [Desk(self._rates) for _ in range(self._workers)]
        for _ in deal(waiting, desks, plan):
            pass
        ends = [(desk.find_next_end(), number) for number, desk in enumerate(desks) if desk.held]
        heapify(ends)
        while ends and ends[0][0] < plan.duration:
            _, number = ends[0]
            desk = desks[number]
            desk.remove(desk.held[0][1], was_read=True)
            while waiting.give(desk, plan) is not None:
                pass
            if desk.held:
                heapreplace(ends, (desk.find_next_end(), number))
            else:
                heappop(ends)
        if ends:
            return plan
        clocks = [desk.clock for desk in desks]
        duration = max((sum(clocks) + self._other_cost) / self._workers, *clocks)
        return Plan(deadline, max_lanes, duration)

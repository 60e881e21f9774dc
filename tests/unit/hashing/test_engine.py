"""The engines: that each digests as hashlib does, and which one is taken when."""

from __future__ import annotations

import gc
import hashlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastindex as package
from fastindex import hashing
from fastindex.errors import UsageError
from fastindex.events import Finding, Observer
from fastindex.hashing import engine, strategy
from fastindex.hashing.engine import Engine
from fastindex.hashing.options import HashingOptions
from fastindex.hashing.strategy import Strategy, choose_strategy
from fastindex.hashing.tasks import EngineSetup, FileRef
from fastindex.system import disks
from fastindex.system.stamps import Stamp
from tests.support.command import Run
from tests.support.trees import catalogue, version, write_tree

if TYPE_CHECKING:
    from fastindex.hashing.engine import Sha256

HAS_LANES = not engine.why_no_lanes()
needs_lanes = pytest.mark.skipif(not HAS_LANES, reason=engine.why_no_lanes())
ENGINES = ["hashlib", pytest.param("lanes", marks=needs_lanes)]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    forget = (engine.usable_engine.cache_clear, engine.find_difference_of_lanes.cache_clear)
    for each in forget:
        each()
    yield
    for each in forget:
        each()


@pytest.mark.parametrize("name", ENGINES)
@given(
    prefixes=st.lists(st.binary(max_size=200), min_size=1, max_size=6),
    pieces=st.lists(st.binary(max_size=5000), max_size=4),
)
def test_states_take_in_the_same_bytes_together(
    name: str, prefixes: list[bytes], pieces: list[bytes]
) -> None:
    chosen = engine.usable_engine(EngineSetup(name))
    assert chosen.name == name
    states = [chosen.sha256(prefix) for prefix in prefixes]
    for piece in pieces:
        chosen.update(states, [piece] * len(states))
    expected = [hashlib.sha256(prefix + b"".join(pieces)) for prefix in prefixes]
    assert [state.digest() for state in states] == [state.digest() for state in expected]
    assert [state.hexdigest() for state in states] == [state.hexdigest() for state in expected]


@needs_lanes
def test_lanes_and_hashlib_agree_on_many_random_updates() -> None:
    from tests.fuzz.lanes import fuzz

    assert fuzz(200_000, seed=20261123) >= 200_000


@needs_lanes
class TestExtension:
    """What a caller of ``_lanes`` may do wrong."""

    def test_a_state_cannot_take_part_twice(self) -> None:
        from fastindex.hashing import _lanes

        state, other = _lanes.sha256(b"a"), _lanes.sha256(b"a")
        with pytest.raises(RuntimeError, match="in use"):
            _lanes.update((other, state, state), (b"x", b"y", b"z"))
        assert state.digest() == other.digest() == hashlib.sha256(b"a").digest()
        _lanes.update((other, state), (b"x", b"y"))
        assert state.digest() == hashlib.sha256(b"ay").digest()

    def test_a_state_that_a_thread_works_on_is_left_alone(self) -> None:
        from fastindex.hashing import _lanes

        state = _lanes.sha256()
        thread = threading.Thread(target=state.update, args=(bytes(400 << 20),))
        thread.start()
        refusals = 0
        while thread.is_alive():
            for use in (state.digest, state.copy, lambda: state.update(b"x")):
                try:
                    use()
                except RuntimeError:
                    refusals += 1
                else:
                    break
            if refusals > 10:
                break
        thread.join()
        assert refusals > 2

    @pytest.mark.parametrize(
        ("states", "buffers", "error"),
        [
            ([b"no state"], [b""], TypeError),
            ([None], [b""], TypeError),
            ([hashlib.sha256()], [b""], TypeError),
            ([], [b""], ValueError),
            (None, [], TypeError),
            ([], None, TypeError),
        ],
    )
    def test_wrong_arguments_are_refused(
        self, states: Sequence[object], buffers: Sequence[bytes], error: type[Exception]
    ) -> None:
        from fastindex.hashing import _lanes

        with pytest.raises(error):
            _lanes.update(states, buffers)

    @pytest.mark.parametrize(
        ("setup", "error", "words"),
        [
            ((-1,), ValueError, "at least 0"),
            ((0, -1), ValueError, "at least 0"),
            (("9",), TypeError, "int"),
            ((0, None), TypeError, "int"),
            ((1 << 80,), OverflowError, "too large"),
            ((0, 0, 0), TypeError, "2 to 4 arguments"),
        ],
    )
    def test_what_is_no_number_of_lanes_is_refused(
        self, setup: tuple[int, ...], error: type[Exception], words: str
    ) -> None:
        from fastindex.hashing import _lanes

        state = _lanes.sha256(b"a")
        with pytest.raises(error, match=words):
            _lanes.update([state], [b"x"], *setup)
        assert state.digest() == hashlib.sha256(b"a").digest()

    @pytest.mark.parametrize("narrow_lanes", [0, 1, 2, 3, 4, 99])
    @pytest.mark.parametrize("wide_from", [0, 1, 2, 9, 16, 17, 40])
    def test_every_setup_digests_alike(self, wide_from: int, narrow_lanes: int) -> None:
        from fastindex.hashing import _lanes

        data = bytes(range(256)) * 40
        for count in range(1, 36):
            prefixes = [data[: 13 * number] for number in range(count)]
            pieces = [data[number : 5000 - 97 * number] for number in range(count)]
            states = [_lanes.sha256(prefix) for prefix in prefixes]
            _lanes.update(states, pieces, wide_from, narrow_lanes)
            for state, prefix, piece in zip(states, prefixes, pieces, strict=True):
                assert state.digest() == hashlib.sha256(prefix + piece).digest()

    def test_what_has_no_buffer_is_refused_and_changes_nothing(self) -> None:
        from fastindex.hashing import _lanes

        first, second = _lanes.sha256(), _lanes.sha256()
        with pytest.raises(TypeError):
            _lanes.update((first, second), (b"x", "text"))  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            first.update("text")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            _lanes.sha256("text")  # type: ignore[arg-type]
        with pytest.raises(BufferError):
            _lanes.update((first,), (memoryview(b"abcdef")[::2],))
        assert first.digest() == second.digest() == hashlib.sha256().digest()

    def test_states_are_made_by_the_function_alone(self) -> None:
        from fastindex.hashing import _lanes

        with pytest.raises(TypeError):
            type(_lanes.sha256())()

    def test_no_memory_is_lost(self) -> None:
        from fastindex.hashing import _lanes

        buffer = bytearray(5000)
        states = [_lanes.sha256(buffer) for _ in range(4)]
        gc.collect()  # what other tests have left would go meanwhile
        before = sys.getrefcount(buffer), sys.getrefcount(states[0]), sys.getrefcount(None)
        for _ in range(1000):
            _lanes.update(states, [buffer] * 4)
            with pytest.raises(RuntimeError):
                _lanes.update([states[0]] * 2, [buffer] * 2)
        after = sys.getrefcount(buffer), sys.getrefcount(states[0]), sys.getrefcount(None)
        assert after[:2] == before[:2]
        assert abs(after[2] - before[2]) < 900 or sys.version_info >= (3, 12)  # immortal there
        buffer.append(0)  # no view is left on it


def wrong(digest: Engine) -> Engine:
    def update(states: Sequence[Sha256], buffers: Sequence[bytes]) -> None:
        digest.update(states, buffers)
        if len(states) == 3:
            states[2].update(b"!")

    return Engine("lanes", digest.sha256, update, 4)  # type: ignore[arg-type]


def test_a_wrong_lane_is_found_out() -> None:
    good = engine.usable_engine(EngineSetup())
    four = Engine("lanes", good.sha256, good.update, 4)
    assert engine.find_difference_from_hashlib(four) == ""
    assert "3 lanes" in engine.find_difference_from_hashlib(wrong(good))


@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 5])
def test_a_fault_of_any_number_of_lanes_is_found_out(lanes: int) -> None:
    """Of one state more than there are lanes, too: a caller may hand over so many."""

    def update(states: Sequence[Sha256], buffers: Sequence[bytes]) -> None:
        for state, buffer in zip(states, buffers, strict=True):
            state.update(b"!" if len(states) == lanes else buffer)

    faulty = Engine("lanes", hashlib.sha256, update, 4)  # type: ignore[arg-type]
    assert f"with {lanes} lanes" in engine.find_difference_from_hashlib(faulty)


@pytest.mark.parametrize(("lanes", "wide_lanes"), [(3, 0), (4, 0), (4, 16)])
def test_each_number_of_lanes_is_checked_with_many_blocks(lanes: int, wide_lanes: int) -> None:
    """With equal and with unequal lengths; those of the narrow kernel with all lengths."""
    tried: dict[int, set[tuple[int, ...]]] = {}

    def update(states: Sequence[Sha256], buffers: Sequence[bytes]) -> None:
        tried.setdefault(len(states), set()).add(tuple(map(len, buffers)))
        for state, buffer in zip(states, buffers, strict=True):
            state.update(buffer)

    checked = Engine("lanes", hashlib.sha256, update, lanes, wide_lanes=wide_lanes)  # type: ignore[arg-type]
    assert engine.find_difference_from_hashlib(checked) == ""
    assert sorted(tried) == list(range(1, max(lanes, wide_lanes) + 2))
    for count, lengths in tried.items():
        several = [one for one in lengths if min(one) >= 2 * 64]
        assert len({len(set(one)) for one in several}) == min(count, 2)
        assert len(lengths) == 12 or (count > lanes + 1 and len(lengths) > 4)


def test_lanes_that_end_with_the_shortest_are_found_out() -> None:
    def update(states: Sequence[Sha256], buffers: Sequence[bytes]) -> None:
        for state, buffer in zip(states, buffers, strict=True):
            state.update(buffer[: min(map(len, buffers))])

    faulty = Engine("lanes", hashlib.sha256, update, 4)  # type: ignore[arg-type]
    assert "with 2 lanes" in engine.find_difference_from_hashlib(faulty)


class Faulty:
    """A state that loses what it took in before, or whose copy is itself."""

    def __init__(self, data: bytes, *, forgets: bool) -> None:
        self._state = hashlib.sha256(data)
        self._forgets = forgets

    def update(self, data: bytes) -> None:
        if self._forgets:
            self._state = hashlib.sha256()
        self._state.update(data)

    def digest(self) -> bytes:
        return self._state.digest()

    def copy(self) -> Faulty:
        return Faulty(b"", forgets=True) if self._forgets else self


@pytest.mark.parametrize("forgets", [True, False])
def test_states_that_forget_or_are_not_copied_are_found_out(forgets: bool) -> None:
    def sha256(data: bytes) -> Faulty:
        return Faulty(data, forgets=forgets)

    faulty = Engine("lanes", sha256, engine.usable_engine(EngineSetup()).update, 4)  # type: ignore[arg-type]
    assert "wrong digests" in engine.find_difference_from_hashlib(faulty)


@needs_lanes
@pytest.mark.parametrize("fault", [0, 1])
def test_a_fault_of_either_kernel_is_found_out(monkeypatch: pytest.MonkeyPatch, fault: int) -> None:
    from fastindex.hashing import _lanes

    if fault and not _lanes.WIDE_LANES:
        pytest.skip("this CPU has no wide kernel")

    def update(states: Sequence[Sha256], buffers: Sequence[bytes], *setup: int) -> None:
        for state, buffer in zip(states, buffers, strict=True):
            state.update(b"!" if setup[0] == fault else buffer)

    monkeypatch.setattr(_lanes, "update", update)
    assert "wrong digests with 1 lanes" in engine.find_difference_of_lanes()
    chosen = engine.usable_engine(EngineSetup("lanes", wide_from=9))
    assert chosen.name == "hashlib"
    assert chosen.problem


@needs_lanes
def test_a_run_tells_from_how_many_digests_on_the_wide_kernel_is_used() -> None:
    from fastindex.hashing import _lanes

    assert engine.describe_setup(EngineSetup()) == "hashlib"
    assert engine.describe_setup(EngineSetup("lanes", narrow_lanes=3)) == "lanes"
    said = engine.describe_setup(EngineSetup("lanes", 9))
    assert said == f"lanes, with {_lanes.WIDE_KERNEL} from 9 at once"
    assert ("where that is quicker" in engine.describe_engine()) == bool(_lanes.WIDE_LANES)
    assert _lanes.NARROW_KERNEL in engine.describe_engine()


@needs_lanes
def test_the_number_of_lanes_can_be_limited(
    fastindex: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = [FileRef("/x", Stamp(1, 1, 7, 1))]
    monkeypatch.setenv(engine.LANES_VARIABLE, "2")
    chosen = choose_strategy(HashingOptions(engine="lanes"), refs, Warned())
    assert len(chosen.speeds) == 2
    assert chosen.engine.wide_from == 0
    assert chosen.engine.narrow_lanes in (1, 2)
    assert "lanes: 2 with " in engine.describe_engine()
    assert "as FASTINDEX_LANES says" in fastindex("--version").stdout
    for wrong in ("0", "-1", "two", "\u0663"):
        monkeypatch.setenv(engine.LANES_VARIABLE, wrong)
        with pytest.raises(UsageError, match="FASTINDEX_LANES: must be an integer of at least 1"):
            choose_strategy(HashingOptions(engine="lanes"), refs, Warned())
        assert engine.describe_engine().startswith("SHA-256: FASTINDEX_LANES: must be")
    assert "\nSHA-256: FASTINDEX_LANES: must be" in fastindex("--version").stdout
    assert fastindex("--engine", "lanes", tmp_path).returncode == 2  # nothing is to be hashed
    write_tree(tmp_path, version())
    assert fastindex("--engine", "lanes", tmp_path).returncode == 2
    monkeypatch.setenv(engine.LANES_VARIABLE, "1")
    assert fastindex("--engine", "lanes", tmp_path).returncode == 0


@needs_lanes
def test_wrong_digests_mean_hashlib_and_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastindex.hashing import _lanes

    def lie(states: Sequence[Sha256], buffers: Sequence[bytes], *_: int) -> None:
        for state in states:
            state.update(b"lie")

    monkeypatch.setattr(_lanes, "update", lie)
    warnings: list[Finding] = []

    class Listener(Observer):
        def warn(self, finding: Finding) -> None:
            warnings.append(finding)

    write_tree(tmp_path, version())
    report = package.Mirror(tmp_path).build(observer=Listener())
    assert report.exit_code is package.ExitCode.DONE
    (item,) = catalogue(tmp_path)["products"]["debian:12:amd64:default"]["versions"].values()
    root = (tmp_path / item["items"]["rootfs.squashfs"]["path"]).read_bytes()
    assert item["items"]["rootfs.squashfs"]["sha256"] == hashlib.sha256(root).hexdigest()
    (warning,) = warnings
    assert "disagrees with hashlib" in warning.problem


@pytest.fixture
def no_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastindex.hashing._lanes", None)
    monkeypatch.delattr(hashing, "_lanes", raising=False)


@pytest.fixture
def no_sha(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("fastindex.hashing._lanes")
    vars(module)["SUPPORTED"] = False
    monkeypatch.setitem(sys.modules, "fastindex.hashing._lanes", module)
    monkeypatch.setattr(hashing, "_lanes", module, raising=False)


@pytest.mark.parametrize(
    ("lack", "words"),
    [("no_extension", "was not built"), ("no_sha", "no instructions for SHA-256")],
)
def test_hashlib_is_taken_where_lanes_cannot_be(
    request: pytest.FixtureRequest, lack: str, words: str
) -> None:
    request.getfixturevalue(lack)
    assert engine.usable_engine(EngineSetup(engine.requested_engine("auto"))).name == "hashlib"
    assert words in engine.describe_engine()
    with pytest.raises(UsageError, match=words):
        engine.requested_engine("lanes")
    with pytest.raises(UsageError, match=words):
        HashingOptions(jobs=1, engine="lanes").check()


def test_the_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(engine.VARIABLE, "hashlib")
    assert engine.requested_engine("auto") == "hashlib"
    assert engine.describe_engine() == "SHA-256 by hashlib, as FASTINDEX_ENGINE says"
    if HAS_LANES:
        assert engine.requested_engine("lanes") == "lanes"
    monkeypatch.setenv(engine.VARIABLE, "")
    assert engine.requested_engine("auto") == "auto"
    monkeypatch.setenv(engine.VARIABLE, "quick")
    with pytest.raises(
        UsageError, match="FASTINDEX_ENGINE: must be one of auto, hashlib, lanes, not 'quick'"
    ):
        engine.requested_engine("auto")
    assert engine.describe_engine().startswith("SHA-256: FASTINDEX_ENGINE: must be")


@pytest.mark.parametrize("name", ENGINES)
def test_the_command_tells_and_obeys(
    fastindex: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(engine.VARIABLE, "hashlib")
    assert "SHA-256 by hashlib" in fastindex("--version").stdout
    write_tree(tmp_path, version())
    result = fastindex("-v", "--engine", name, tmp_path)
    assert result.returncode == 0
    assert f"SHA-256 by {name}" in result.stderr
    result = fastindex("verify", "-v", "--sha256", "--engine", name, tmp_path)
    assert result.returncode == 0
    assert f"SHA-256 by {name}" in result.stderr


def test_a_wrong_word_in_the_environment_is_wrong_usage(
    fastindex: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path, version())
    monkeypatch.setenv(engine.VARIABLE, "quick")
    for command in ((), ("verify",), ("list",)):
        result = fastindex(*command, tmp_path)
        assert result.returncode == (1 if command == ("list",) else 2)
    assert "FASTINDEX_ENGINE" in fastindex(tmp_path).stderr
    assert fastindex("--version").returncode == 0


class Warned(Observer):
    """Takes no warnings."""

    def warn(self, finding: Finding) -> None:
        raise AssertionError(finding)


@needs_lanes
def test_on_rotating_disks_files_are_read_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fastindex.hashing import _lanes

    refs = [FileRef("/x", Stamp(1, 1, 7, number)) for number in range(3)]
    lanes = len(choose_strategy(HashingOptions(jobs=3, engine="lanes"), refs, Warned()).speeds)
    assert lanes in (_lanes.NARROW_LANES, _lanes.WIDE_LANES)
    assert choose_strategy(HashingOptions(jobs=3, engine="hashlib"), refs, Warned()).speeds == (
        1.0,
    )
    monkeypatch.setattr(strategy, "is_rotational", lambda device: device == 7)
    slow = choose_strategy(HashingOptions(jobs=3, engine="lanes"), refs, Warned())
    assert slow == Strategy(3, EngineSetup("lanes"), (1.0,))
    both = choose_strategy(
        HashingOptions(jobs=3, engine="lanes"), [*refs, FileRef("/y", Stamp(1, 1, 8, 0))], Warned()
    )
    assert both.speeds == (1.0,)


def test_what_rotates_is_told_by_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Laid out as sysfs does: a disk, its partition, and a file system with a number of its own."""
    content = {
        "/sys/dev/block/8:0/queue/rotational": b"1\n",
        "/sys/dev/block/8:1/../queue/rotational": b"1\n",
        "/sys/dev/block/1:3/queue/rotational": b"1\n",  # /dev/null plays the disk of btrfs
        "/sys/dev/block/259:0/queue/rotational": b"0\n",
        "/proc/self/mountinfo": b"30 1 0:25 / /srv rw shared:1 - btrfs /dev/null rw\n"
        b"31 1 0:26 / /tmp rw - tmpfs tmpfs rw\n",
    }

    def read(path: str, most_bytes: int) -> bytes:
        if path not in content:
            raise FileNotFoundError(2, "No such file", path)
        return content[path]

    monkeypatch.setattr(disks, "read_small_file", read)
    told = [os.makedev(*number) for number in ((8, 0), (8, 1), (259, 0), (0, 25), (0, 26), (7, 7))]
    assert [disks.is_rotational(device) for device in told] == [
        *(True, True, False, True, False, False)
    ]
    monkeypatch.undo()
    assert disks.is_rotational(os.stat(tmp_path).st_dev) in {True, False}

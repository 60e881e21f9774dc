"""A version that lacks files is completed, whatever breaks off in between."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fastindex.mirror.mirror import Mirror
from fastindex.mirror.staging import MARK
from fastindex.operations.builder.options import BuildOptions
from fastindex.operations.builder.pipeline import build
from fastindex.operations.pull.options import PullOptions
from fastindex.operations.pull.run import pull
from tests.support.trees import Files, version, write_tree

PATH = "images/debian/12/amd64/default/20240505_05:24"
CONTAINER = version()
ADDED: Files = {f"{PATH}/disk.qcow2": b"disk", f"{PATH}/lxd.tar.xz": b"lxd"}
CATALOGUE = "streams/v1/images.json"


class Upstream:
    """An upstream that adds files to a version, and a copy of what it was."""

    def __init__(self, top: Path) -> None:
        self.root = write_tree(top / "upstream", CONTAINER)
        self.copy = top / "copy"
        self.copy.mkdir()
        build(Mirror.at(self.root), BuildOptions())
        self.pull()
        write_tree(self.root, ADDED)
        build(Mirror.at(self.root), BuildOptions())

    def pull(self) -> int:
        """Pull; return the exit code."""
        return pull(Mirror.at(self.copy), PullOptions(url=self.root.as_uri())).exit_code

    def check(self) -> None:
        """See that the copy has all."""
        assert (self.copy / CATALOGUE).read_bytes() == (self.root / CATALOGUE).read_bytes()
        names = {path.name for path in (self.copy / PATH).iterdir()}
        assert names == {path.name for path in (self.root / PATH).iterdir()}

    def list_hidden(self) -> list[str]:
        """Return what is in a hidden directory of the version."""
        hidden = (self.copy / PATH).with_name(f".{Path(PATH).name}")
        return sorted(path.name for path in hidden.iterdir()) if hidden.exists() else []


def test_it_gets_what_it_lacks_and_keeps_what_it_has(tmp_path: Path) -> None:
    upstream = Upstream(tmp_path)
    before = {path.name: path.stat().st_ino for path in (upstream.copy / PATH).glob("[!.]*")}
    assert upstream.pull() == 0
    upstream.check()
    assert not (upstream.copy / PATH).with_name(f".{Path(PATH).name}").exists()
    after = {path.name: path.stat().st_ino for path in (upstream.copy / PATH).glob("[!.]*")}
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("call", ["rename", "unlink", "fsync", "link"])
def test_the_next_run_goes_on_from_anywhere(tmp_path: Path, call: str) -> None:
    for number in count():
        upstream = Upstream(tmp_path / f"{number}")
        is_killed = run_killed(upstream, call, number)
        assert upstream.pull() == 0
        upstream.check()
        # Killed at the very end, it leaves what prune takes: links, and the mark of an import.
        assert upstream.list_hidden()[:1] in ([], [MARK])
        if not is_killed:
            break
    assert number > 1


def run_killed(upstream: Upstream, call: str, number: int) -> bool:
    """Pull in another process; return whether it came to a system call, and died there.

    Args:
        upstream: what to pull.
        call: the name of the call.
        number: how many of them succeed.
    """
    child = os.fork()
    if child == 0:
        real, left = getattr(os, call), [None] * number

        def die_in_the_end(*words: Any, **more: Any) -> Any:
            if not left:
                os._exit(9)
            left.pop()
            return real(*words, **more)

        setattr(os, call, die_in_the_end)
        code = 1
        try:
            code = upstream.pull()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9

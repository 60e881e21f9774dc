"""Each byte that a pull fetches is written once, and never read again, by ``strace``."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

from tests.support.command import COMMAND, UNMEASURED, Run
from tests.support.contents import make_content
from tests.support.tools import needs
from tests.support.trees import version, write_tree

_READING = ("read", "readv", "pread64", "preadv", "preadv2")
_WRITING = ("write", "writev", "pwrite64", "pwritev", "pwritev2")
_OTHERS = ("mmap", "sendfile", "splice", "copy_file_range")
_CALL = re.compile(r"(\w+)\(.*?(/[^>\"]*)>.* = (\d+|0x[0-9a-f]+)(?:<.*)?$")
PRODUCT = "images/debian/12/amd64/default"
SIZE = 9_000_000
"""Of a root: more than two pieces."""


def calls_of(log: Path) -> tuple[Counter[str], Counter[str], set[str]]:
    """Return by path how many bytes were written and read, and what was used otherwise."""
    written: Counter[str] = Counter()
    was_read: Counter[str] = Counter()
    others: set[str] = set()
    begun: dict[str, str] = {}
    for line in log.read_text(errors="replace").splitlines():
        process, _, rest = line.partition(" ")
        if rest.endswith(" <unfinished ...>"):
            begun[process] = rest.removesuffix(" <unfinished ...>")
            continue
        if " resumed>" in rest:
            rest = begun.pop(process) + rest.partition(" resumed>")[2]
        match = _CALL.search(rest)
        if match is None:
            continue
        call, path, result = match.groups()
        if call in _WRITING:
            written[path] += int(result)
        elif call in _READING:
            was_read[path] += int(result)
        else:
            others.add(path)
    return written, was_read, others


def test_each_byte_is_written_once_and_never_read(fastindex: Run, tmp_path: Path) -> None:
    upstream, root, log = tmp_path / "upstream", tmp_path / "mirror", tmp_path / "log"
    for number in (1, 2):
        path = f"{PRODUCT}/2024050{number}_05:24"
        write_tree(upstream, version(path.removeprefix("images/")))
        content = make_content("rootfs.squashfs", bytes([number]) * SIZE)
        (upstream / path / "rootfs.squashfs").write_bytes(content)
    assert fastindex(upstream).returncode == 0
    root.mkdir()
    strace = needs("strace", "apt-get install strace")
    traced = ",".join((*_READING, *_WRITING, *_OTHERS))
    tracing: list[str | Path] = [
        strace,
        "-f",
        "-y",
        "-qq",
        "-e",
        f"trace={traced}",
        "-e",
        "signal=none",
        "-o",
        log,
    ]
    pull: list[str | Path] = [COMMAND, "pull", "-q", "--keep", "2", f"file://{upstream}", root]
    subprocess.run([*tracing, *pull], check=True, env=UNMEASURED, stdout=subprocess.DEVNULL)
    written, was_read, others = calls_of(log)
    files = [path for path in root.glob("images/**/*.*") if not path.name.startswith(".")]
    assert len(files) == 4
    for file in files:
        hidden = str(file.parent.with_name(f".{file.parent.name}") / file.name)
        assert written[hidden] == file.stat().st_size
        for name in (str(file), hidden):
            assert was_read[name] == 0
            assert name not in others

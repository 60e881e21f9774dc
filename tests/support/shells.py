"""Interactive shells on a terminal of their own, to complete lines as somebody who types."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_PATIENCE_SECONDS = 60
_SHOW = r"""show() { printf '<%s' "$@" '>' && printf '%s\n' 'end'; }"""
"""Prints each of its words, between signs that do not stand in the line itself."""


class Shell:
    """A shell that is running.

    Args:
        terminal: the descriptor of its terminal's other end.
    """

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal

    def run(self, line: str) -> str:
        """Run ``line``; return what the terminal shows until it has ended."""
        self._send(f"{line}\necho ready-$((6 * 7))\n")
        return self._read_until("ready-42")

    def complete(self, line: str, times: int = 1) -> list[str]:
        """Type ``line`` and the key that completes it; return the words of the line then.

        They are the words of a command that is run, after all that the shell expands in them.
        """
        keys = "\t" * times
        self._send(f"{line}{keys}\x01show \n")
        shown = self._read_until(">end")
        return shown[shown.rindex("<fastindex") + 1 : shown.rindex("<>end")].split("<")

    def list(self, line: str) -> set[str]:
        """Type ``line``, and the key twice; return the words that the shell shows to choose from.

        The line itself is among them as the shell shows it again.
        """
        self._send(f"{line}\t\t\x01show \n")
        shown = self._read_until(">end")
        return set(re.sub(r"\x1b\[[\d;?]*[A-Za-z]", " ", shown).split())

    def _send(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def _read_until(self, mark: str) -> str:
        shown = ""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while mark not in shown:
            ready, _, _ = select.select([self._terminal], [], [], deadline - time.monotonic())
            assert ready, f"no {mark!r} in {shown!r}"
            shown += os.read(self._terminal, 1 << 16).decode(errors="replace")
        return shown


@contextmanager
def shell(
    command: Sequence[str], start: Sequence[str], cwd: Path, environment: Mapping[str, str]
) -> Iterator[Shell]:
    """Start an interactive shell, and end it when the context does.

    Args:
        command: the shell.
        start: lines to run first.
        cwd: where it is.
        environment: all that its environment has.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.execve(command[0], [*command], {**environment, "TERM": "dumb", "COLUMNS": "200"})
    try:
        running = Shell(terminal)
        for line in [*start, _SHOW]:
            running.run(line)
        yield running
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)

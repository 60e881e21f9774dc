"""Settings that lie in the tree: ``.requirements`` and ``.lxd_requirements``.

Each is a JSON object, at any level from the variant directory up to the stream;
the nearest wins key by key, and the two kinds are merged apart. Clients take
strings only: one boolean in the catalogue and they reject all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import msgspec

from fastindex.atomic import read_small_file
from fastindex.contract import REQUIREMENTS_NAME, decode_requirements
from fastindex.model import Finding, Requirements
from fastindex.names import INCUS_REQUIREMENT_KEYS, LXD_REQUIREMENT_KEYS

_MOST_BYTES = 64 * 1024


class RequirementsReader:
    """Reads each dotfile once, however many products lie below it."""

    def __init__(self, root: str) -> None:
        self.findings: list[Finding] = []
        """What was wrong with the files used so far."""
        self._root = root
        self._contents: dict[str, bytes | OSError] = {}
        self._values: dict[str, dict[str, str]] = {}

    def contents(self, dotfiles: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield each path in ``dotfiles`` once, with its bytes or why there are none."""
        for path in dict.fromkeys(dotfiles):
            content = self._content(path)
            yield path, str(content).encode() if isinstance(content, OSError) else content

    def merged(self, dotfiles: Iterable[str]) -> Requirements:
        """Merge the dotfiles of a product.

        Args:
            dotfiles: paths relative to ROOT, nearest first.

        Returns:
            What each kind of client is told; a file that cannot be used counts as
            absent and leaves a finding.
        """
        incus: dict[str, str] = {}
        lxd: dict[str, str] = {}
        for path in dotfiles:
            target = incus if os.path.basename(path) == REQUIREMENTS_NAME else lxd
            for key, value in self._checked_values(path).items():
                target.setdefault(key, value)
        return Requirements(dict(sorted(incus.items())), dict(sorted(lxd.items())))

    def _content(self, path: str) -> bytes | OSError:
        if path not in self._contents:
            try:
                content = read_small_file(os.path.join(self._root, path), _MOST_BYTES)
            except OSError as error:
                self._contents[path] = error
            else:
                self._contents[path] = content
        return self._contents[path]

    def _checked_values(self, path: str) -> dict[str, str]:
        if path not in self._values:
            self._values[path] = self._load(path)
        return self._values[path]

    def _load(self, path: str) -> dict[str, str]:
        content = self._content(path)
        if isinstance(content, OSError):
            reason = content.strerror or str(content)
        else:
            try:
                raw = decode_requirements(content)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                reason = str(error)
            else:
                values, findings = checked_requirements(path, raw)
                self.findings += findings
                return values
        self.findings.append(
            Finding(
                path,
                f"cannot be used ({reason}); images are published without it",
                'write a JSON object of strings, as {"secureboot": "false"}',
            )
        )
        return {}


def checked_requirements(
    path: str, raw: dict[str, str | bool | int | float]
) -> tuple[dict[str, str], list[Finding]]:
    """Turn decoded values into the strings that clients expect.

    Args:
        path: of the dotfile, for the findings; its name tells which clients read it.
        raw: the decoded object.

    Returns:
        The requirements, and a finding for each value that was no string and each key
        that no client enforces.
    """
    is_incus = os.path.basename(path) == REQUIREMENTS_NAME
    known = INCUS_REQUIREMENT_KEYS if is_incus else LXD_REQUIREMENT_KEYS
    values: dict[str, str] = {}
    findings: list[Finding] = []
    for key, value in raw.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if not isinstance(value, str):
            findings.append(
                Finding(
                    path,
                    f"{key!r} is no string; published as {text!r}",
                    f'write "{key}": "{text}"',
                )
            )
        if key not in known:
            findings.append(
                Finding(
                    path,
                    f"no client enforces the requirement {key!r}",
                    f"use one of {', '.join(sorted(known))}, or remove it",
                )
            )
        values[key] = text
    return values, findings

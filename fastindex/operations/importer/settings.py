"""What an import adds to the settings of a product: requirements and aliases.

A builder may write into metadata.yaml what the image requires of its host, which clients learn
from the catalogue only. So it goes into the product's ``.requirements``, unless the operator has
set the same key, at any level. What is not written is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from fastindex.errors import Code, suggest_remedy
from fastindex.events import Finding, Step
from fastindex.formats.names import INCUS_REQUIREMENT_KEYS
from fastindex.formats.product_toml import parse_product_toml
from fastindex.formats.requirements import MAX_REQUIREMENTS, Scalar, is_displayable
from fastindex.formats.settings import Settings
from fastindex.formats.simplestreams import (
    PRODUCT_TOML_NAME,
    REQUIREMENTS_NAME,
    UNDECODABLE,
    decode_requirements,
)
from fastindex.mirror import staging
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.settings import SettingsReader
from fastindex.operations.importer.plan import ImportPlan
from fastindex.system.files import exists, read_descriptor

_MAX_BYTES = 64 << 10
_MAX_TOLD = 10
"""Keys in a message."""


class SettingsChanges(Struct, frozen=True):
    """What is to be written into the settings of a product, and what is not."""

    files: tuple[tuple[str, bytes], ...] = ()
    """Paths relative to ROOT, each with its new content."""
    findings: tuple[Finding, ...] = ()
    """What is left behind, and why."""

    def list_steps(self, mirror: Mirror) -> Iterator[Step]:
        """Yield what ``write`` would do."""
        for path, _ in self.files:
            yield Step("write", mirror.path(path))

    def write(self, mirror: Mirror) -> list[Finding]:
        """Write the files; return what is left behind, and why."""
        findings = list(self.findings)
        for path, content in self.files:
            try:
                staging.write_settings(mirror, path, content)
            except OSError as error:
                problem = f"cannot be written ({error.strerror or error}); it should say: "
                text = content.decode().strip()
                findings.append(
                    Finding(Code.BAD_SETTINGS, path, f"{problem}{text}", suggest_remedy(error))
                )
        return findings


def format_aliases(aliases: tuple[str, ...]) -> str:
    """Return ``aliases`` as a line of ``.product.toml``."""
    return f"aliases = [{', '.join(msgspec.json.encode(alias).decode() for alias in aliases)}]"


def find_bad_alias(aliases: tuple[str, ...]) -> str:
    """Return what is wrong with ``aliases``, or ""."""
    _, findings = parse_product_toml("--alias", format_aliases(aliases).encode())
    return findings[0].problem if findings else ""


def plan_changes(mirror: Mirror, plan: ImportPlan, aliases: tuple[str, ...]) -> SettingsChanges:
    """Decide what an import adds to the settings of its product.

    Args:
        mirror: the mirror.
        plan: the import.
        aliases: what the operator wants the product to be called, too.

    Raises:
        OSError: the system is out of descriptors or memory.
    """
    if not plan.requirements and not aliases:
        return SettingsChanges()
    product = plan.planned.product.path
    paths = [path for path in _list_paths(product) if exists(mirror.path(path))]
    settings = SettingsReader(mirror).merge(paths)
    requirements = _plan_requirements(mirror, plan, settings)
    named = _plan_aliases(mirror, f"{product}/{PRODUCT_TOML_NAME}", aliases, settings)
    return SettingsChanges(
        (*requirements.files, *named.files), (*requirements.findings, *named.findings)
    )


def _list_paths(product: str) -> Iterator[str]:
    """Yield the settings files that may concern a product, the nearest first."""
    path = product
    while path:
        yield f"{path}/{PRODUCT_TOML_NAME}"
        yield f"{path}/{REQUIREMENTS_NAME}"
        path = os.path.dirname(path)


def _plan_requirements(mirror: Mirror, plan: ImportPlan, settings: Settings) -> SettingsChanges:
    path = f"{plan.planned.product.path}/{REQUIREMENTS_NAME}"
    known = {key: value for key, value in plan.requirements.items() if _is_usable(key, value)}
    findings: list[Finding] = []
    unknown = sorted(plan.requirements.keys() - known.keys())
    if unknown:
        problem = f"requires what no client could enforce, left behind: {_quote(unknown)}"
        remedy = f"use one of {', '.join(sorted(INCUS_REQUIREMENT_KEYS))}, with a short value"
        findings.append(Finding(Code.BAD_METADATA, plan.label, problem, remedy))
    missing = {key: value for key, value in known.items() if key not in settings.requirements}
    for key in known.keys() - missing.keys():
        if known[key] != settings.requirements[key]:
            problem = (
                f"its metadata requires {key}={known[key]!r}, but the settings of its product "
                f"say {settings.requirements[key]!r}, which stays"
            )
            findings.append(Finding(Code.BAD_SETTINGS, plan.label, problem, f"see {path}"))
    if not missing:
        return SettingsChanges((), tuple(findings))
    present = _read_requirements(mirror, path)
    if isinstance(present, str):
        problem = f"{present}; the requirements of {plan.label} are left behind: {_quote(missing)}"
        findings.append(Finding(Code.BAD_SETTINGS, path, problem, "correct it, and add them"))
        return SettingsChanges((), tuple(findings))
    content = msgspec.json.encode(dict(sorted({**missing, **present}.items()))) + b"\n"
    return SettingsChanges(((path, content),), tuple(findings))


def _is_usable(key: str, value: str) -> bool:
    return key in INCUS_REQUIREMENT_KEYS and bool(value) and is_displayable(value)


def _quote(keys: list[str] | dict[str, str]) -> str:
    told = ", ".join(repr(key[:100]) for key in list(keys)[:_MAX_TOLD])
    return f"{told} and others" if len(keys) > _MAX_TOLD else told


def _read_requirements(mirror: Mirror, path: str) -> dict[str, Scalar] | str:
    """Return what is in a ``.requirements``, or why nothing can be added to it."""
    absolute = mirror.path(path)
    if not exists(absolute):
        return {}
    if os.path.islink(absolute):
        return "is a symlink"
    try:
        present = decode_requirements(read_descriptor(mirror.open_file(path), _MAX_BYTES, path))
    except (OSError, *UNDECODABLE) as error:
        return f"cannot be used ({error})"
    return "is full" if len(present) > MAX_REQUIREMENTS - len(INCUS_REQUIREMENT_KEYS) else present


def _plan_aliases(
    mirror: Mirror, path: str, aliases: tuple[str, ...], settings: Settings
) -> SettingsChanges:
    known = settings.aliases or ()
    missing = tuple(alias for alias in dict.fromkeys(aliases) if alias not in known)
    if not missing:
        return SettingsChanges()
    line = format_aliases((*known, *missing))
    if not exists(mirror.path(path)):
        return SettingsChanges(((path, f"{line}\n".encode()),))
    problem = f"exists, so --alias {' --alias '.join(missing)} is not added to it"
    return SettingsChanges((), (Finding(Code.BAD_SETTINGS, path, problem, f"write there: {line}"),))

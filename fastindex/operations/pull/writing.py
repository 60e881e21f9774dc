"""Writing what an upstream says of its products as settings of ours; an operator's files stay."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from fastindex.errors import Code, suggest_remedy
from fastindex.events import Finding
from fastindex.formats.simplestreams import LXD_REQUIREMENTS_NAME, PRODUCT_TOML_NAME
from fastindex.mirror import staging
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state.pulled import PulledProduct
from fastindex.operations.pull.settings import MARK, find_pulled_lxd_requirements, is_pulled
from fastindex.operations.pull.wanted import OfferedProduct
from fastindex.system.files import read_descriptor

_MAX_BYTES = 64 << 10
_NO_REQUIREMENTS = b"{}\n"


def lacks_settings(mirror: Mirror, products: Mapping[str, PulledProduct]) -> bool:
    """Return whether a product has lost the settings that tell what the upstream says of it.

    Args:
        mirror: the mirror.
        products: path → what was pulled.
    """
    return any(
        one.has_settings and not os.path.lexists(f"{mirror.path(path)}/{PRODUCT_TOML_NAME}")
        for path, one in products.items()
    )


def write_settings(mirror: Mirror, products: Iterable[OfferedProduct]) -> list[Finding]:
    """Write the settings of products that are in the tree; return what cannot be written.

    Args:
        mirror: the mirror.
        products: what the upstream says of them.
    """
    findings: list[Finding] = []
    for one in products:
        path = one.product.path
        try:
            _write(mirror, one)
        except FileNotFoundError:  # nothing of the product has arrived
            continue
        except OSError as error:
            problem = f"its settings cannot be written ({error.strerror or error})"
            findings.append(Finding(Code.BAD_SETTINGS, path, problem, suggest_remedy(error)))
    return findings


def _write(mirror: Mirror, one: OfferedProduct) -> None:
    """Write both files of a product where they are missing, or are ours and different.

    Raises:
        FileNotFoundError: there is no such product.
        OSError: they cannot be read or written.
    """
    toml_path = f"{one.product.path}/{PRODUCT_TOML_NAME}"
    lxd_path = f"{one.product.path}/{LXD_REQUIREMENTS_NAME}"
    present = _read(mirror, toml_path)
    present_lxd = _read(mirror, lxd_path)
    is_ours = present is None or is_pulled(present)
    ours = find_pulled_lxd_requirements(present or b"")
    lxd = one.settings.lxd_requirements
    # First the one that the other tells of.
    if is_ours and present_lxd in (None, ours) and (lxd or present_lxd is not None):
        _replace(mirror, lxd_path, present_lxd, lxd or _NO_REQUIREMENTS)
    toml = one.settings.product_toml
    if is_ours and (toml or present is not None):
        _replace(mirror, toml_path, present, toml or MARK + b"\n")


def _read(mirror: Mirror, path: str) -> bytes | None:
    """Return what a settings file says, or None if there is none."""
    try:
        return bytes(read_descriptor(mirror.open_file(path), _MAX_BYTES, path))
    except FileNotFoundError:
        return None


def _replace(mirror: Mirror, path: str, present: bytes | None, content: bytes) -> None:
    if present != content:
        staging.write_settings(mirror, path, content)

"""Which symlinks in the tree may be followed, and which directories clients may be unable to use.

A symlink is followed only within the directory of its product, or to where the operator allows it.
"""

from __future__ import annotations

import errno
import os
import stat

from fastindex.errors import Code, is_shortage
from fastindex.events import Finding
from fastindex.formats.names import PRODUCT_DEPTH
from fastindex.formats.simplestreams import (
    LXD_REQUIREMENTS_NAME,
    PRODUCT_TOML_NAME,
    REQUIREMENTS_NAME,
)
from fastindex.mirror.mirror import Mirror
from fastindex.system.directories import MAX_LINKS, real_path

SETTINGS_NAMES = (REQUIREMENTS_NAME, LXD_REQUIREMENTS_NAME, PRODUCT_TOML_NAME)
_USABLE_BY_OTHERS = stat.S_IXGRP | stat.S_IXOTH


class Links:
    """Says where symlinks may lead. All paths are relative to ROOT.

    Args:
        mirror: the mirror.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._allowed = mirror.allowed_links
        self._bounds: dict[str, str] = {}

    def may_follow_above(self, path: str, name: str) -> bool:
        """Return whether a symlink in ``path``, above the products, leads to a good place."""
        target = real_path(self._mirror.path(f"{path}/{name}"))
        if target and os.path.join(target, "").startswith(self._allowed):
            return True
        # Settings may share a file, as .lxd_requirements → .requirements.
        return name in SETTINGS_NAMES and target.rpartition("/")[0] == real_path(
            self._mirror.path(path)
        )

    def find_target(self, path: str) -> str | None:
        """Return the real path that the symlink at ``path``, in a product, leads to.

        None if it leads out of the product and is not allowed to, or takes too many steps.
        """
        product = "/".join(path.split("/", PRODUCT_DEPTH + 1)[: PRODUCT_DEPTH + 1])
        bound = self._bounds.get(product)
        if bound is None:
            bound = os.path.join(real_path(self._mirror.path(product)), "")
            self._bounds = {product: bound}  # the others are done, or are asked for again
        target = real_path(self._mirror.path(path))
        may_follow = bool(target) and os.path.join(target, "").startswith((bound, *self._allowed))
        return target if may_follow else None

    def refuse(self, path: str, *, is_file: bool = False) -> Finding:
        """Return the finding about a symlink that is not followed.

        Args:
            path: the symlink.
            is_file: whether it has the place of a file, wherever it leads.
        """
        is_directory = not is_file and os.path.isdir(self._mirror.path(path))
        if real_path(self._mirror.path(path)):
            problem = "a symlink that leads out of its product's directory"
            remedy = (
                "replace it with a copy or hard link of its target, or allow where it leads with "
                "--allow-links DIR"
            )
        else:
            problem = f"a symlink that leads in a circle, or over more than {MAX_LINKS} others"
            remedy = "replace it with a copy or hard link of its target, or remove it"
        return Finding(
            Code.LINK_LEADS_OUT,
            path,
            problem,
            remedy,
            versions_left_out=int(is_directory),
            files_left_out=int(not is_directory),
        )


def stat_real(path: str) -> os.stat_result:
    """Return the status of a real path.

    Raises:
        OSError: nothing is there, or what is there has become a symlink.
    """
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return status


def warn_unservable(path: str, mode: str) -> Finding:
    """Return the finding about a file or directory that only its owner can use."""
    problem = "only its owner can read it, so the web server may be unable to serve it"
    return Finding(Code.NOT_SERVABLE, path, problem, f"run chmod {mode} on it")


def is_unservable(mirror: Mirror, path: str) -> bool:
    """Return whether only the owner of a directory can use it.

    Raises:
        OSError: the system is out of memory.
    """
    try:
        return not os.stat(mirror.path(path)).st_mode & _USABLE_BY_OTHERS
    except OSError as error:
        if is_shortage(error):
            raise
        return False  # it has gone since its name was read


def warn_unservable_directory(path: str) -> Finding:
    """Return the finding about a directory that only its owner can use."""
    return warn_unservable(path, "a+rx")

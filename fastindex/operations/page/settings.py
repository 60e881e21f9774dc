"""Reads the settings of the page, with the logo and the templates that they name."""

from __future__ import annotations

import os
from base64 import b64encode

from msgspec.structs import replace

from fastindex.formats.page_settings import (
    MAX_BYTES,
    PageOptions,
    PageSettingsError,
    parse_page_settings,
)
from fastindex.operations.page.rendering import TEMPLATES
from fastindex.system.trust import UntrustedError, read_trusted_file

_MAX_LOGO_BYTES = 64 * 1024
_MAX_TEMPLATE_BYTES = 256 * 1024
_LOGO_TYPES = {
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}


def read_page_settings(path: str) -> PageOptions:
    """Return what the settings of the page say.

    The logo and the directory of templates may be relative to the directory of the file. All are
    read only where nobody else but root and this user may have written them.

    Args:
        path: the file.

    Raises:
        PageSettingsError: a file cannot be read or used, or others may change it.
    """
    options = parse_page_settings(path, _read(path, path, MAX_BYTES))
    above = os.path.dirname(os.path.abspath(path))
    logo, templates = options.logo, options.template_directory
    return replace(
        options,
        logo=_read_logo(path, os.path.join(above, logo)) if logo else "",
        templates=_read_templates(path, os.path.join(above, templates)) if templates else {},
    )


def _read_logo(settings: str, path: str) -> str:
    kind = _LOGO_TYPES.get(os.path.splitext(path)[1].lower())
    if kind is None:
        known = ", ".join(_LOGO_TYPES)
        raise PageSettingsError(f"{settings}: logo: {path}: must be a picture ({known})")
    data = _read(settings, path, _MAX_LOGO_BYTES)
    return f"data:{kind};base64,{b64encode(data).decode()}"


def _read_templates(settings: str, directory: str) -> dict[str, str]:
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise PageSettingsError(
            f"{settings}: templates: {directory}: {error.strerror}; name a directory"
        ) from error
    templates = {}
    for name in names:
        if name in TEMPLATES:
            path = os.path.join(directory, name)
            try:
                templates[name] = _read(settings, path, _MAX_TEMPLATE_BYTES).decode()
            except UnicodeDecodeError as error:
                raise PageSettingsError(f"{path}: must be UTF-8; save it so") from error
        elif not name.startswith(".") and not name.endswith("~"):
            raise PageSettingsError(
                f"{os.path.join(directory, name)}: no template has that name; the names are "
                f"{', '.join(TEMPLATES)}"
            )
    return templates


def _read(settings: str, path: str, max_bytes: int) -> bytes:
    try:
        return read_trusted_file(os.path.abspath(path), max_bytes)[1]
    except UntrustedError as error:
        raise PageSettingsError(
            f"{path}: not used, as others may change it: {error.filename}: {error.strerror}; "
            "give it to root or to this user, and take write permission from all others"
        ) from error
    except OSError as error:
        about = "" if path == settings else f" ({settings} names it)"
        raise PageSettingsError(f"{path}: cannot be read: {error.strerror}{about}") from error

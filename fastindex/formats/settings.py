"""The settings of a product, from the operator's and the builder's files in the tree."""

from __future__ import annotations

from msgspec import Struct


class Settings(Struct, frozen=True, kw_only=True):
    """The settings of a product. None means that no file sets the value."""

    os: str | None = None
    """The distribution's name, as people write it."""
    release_title: str | None = None
    """The release's name, as people write it."""
    release_codename: str | None = None
    """The release's code name."""
    version: str | None = None
    """The release's number, such as ``12``."""
    support_eol: str | None = None
    """The last day of support, ``YYYY-MM-DD``. Clients record it as the image's expiry date."""
    supported: bool | None = None
    """Whether the release is supported."""
    label: str | None = None
    """What clients show behind the description of each version."""
    aliases: tuple[str, ...] | None = None
    """More aliases; ``{os}``, ``{release}``, ``{variant}`` and ``{arch}`` are the product's."""
    replace_aliases: bool | None = None
    """Whether ``aliases`` replace the default ones, rather than adding to them."""
    max_age_seconds: float | None = None
    """How old the product's newest version may be; ``status`` tells if it is older."""
    requirements: dict[str, str] = {}
    """What images require of an Incus host; the values are strings, as clients expect."""
    lxd_requirements: dict[str, str] = {}
    """What images require of an LXD host; the values are strings, as clients expect."""

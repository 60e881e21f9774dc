"""What the operator's and the builder's files in the tree say of a product: one value."""

from __future__ import annotations

from msgspec import Struct


class Settings(Struct, frozen=True, kw_only=True):
    """What the settings files say of a product; None: they say nothing."""

    os: str | None = None
    """The distribution's name, as people write it."""
    release_title: str | None = None
    """The release's name, as people write it."""
    release_codename: str | None = None
    """The release's code name."""
    version: str | None = None
    """The release's number."""
    support_eol: str | None = None
    """The last day of support, ``YYYY-MM-DD``: when clients' images expire."""
    supported: bool | None = None
    """Whether the release is supported."""
    label: str | None = None
    """What clients show behind the description of each version."""
    aliases: tuple[str, ...] | None = None
    """More names; ``{os}``, ``{release}``, ``{variant}``, ``{arch}`` stand for the product's."""
    replace_aliases: bool | None = None
    """Whether ``aliases`` replace the default ones."""
    requirements: dict[str, str] = {}
    """What images require of an Incus host; strings, as clients want."""
    lxd_requirements: dict[str, str] = {}
    """What images require of an LXD host; strings, as clients want."""

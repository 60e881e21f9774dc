"""``image.yaml``: what lxd-imagebuilder's definition of an image says of its product.

Only the section ``simplestream`` counts. Format and meaning: ``shared/definition.go`` and
``simplestream-maintainer/stream`` of canonical/lxd-imagebuilder.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec
from msgspec import Struct

from fastindex.events import Finding
from fastindex.formats.names import default_aliases, unfit_character
from fastindex.formats.requirements import MOST_CHARACTERS, checked_requirements, is_fit_text
from fastindex.formats.settings import Settings
from fastindex.formats.yaml import load_strings

_MOST_ALIASES = 100


class _Requirements(Struct, frozen=True):
    requirements: dict[str, str] = {}
    releases: list[str] = []
    architectures: list[str] = []
    variants: list[str] = []
    types: list[str] = []


class _Section(Struct, frozen=True):
    distro_name: str = ""
    release_aliases: dict[str, str] = {}
    requirements: list[_Requirements] = []


def parse_image_yaml(path: str, content: bytes) -> tuple[Settings, list[Finding]]:
    """Read an ``image.yaml``.

    Args:
        path: STREAM/OS/RELEASE/ARCH/VARIANT/VERSION/image.yaml: what its filters are held
            against, and what findings are about.
        content: its bytes.

    Returns:
        What it sets for that product, nothing where it cannot be used, and what is wrong.
    """
    _, os_name, release, arch, variant, _, _ = path.split("/")
    section = _section(content)
    if isinstance(section, str):
        problem = f"cannot be used ({section}); images are published without it"
        return Settings(), [Finding(path, problem, "mend its section 'simplestream', or remove it")]
    requirements: dict[str, str] = {}
    for rule in section.requirements:
        if _applies(rule, release, arch, variant):
            requirements |= rule.requirements
    texts, findings = checked_requirements(path, dict(requirements), is_for_lxd=False)
    title = section.distro_name.strip()
    if not is_fit_text(title):
        problem = "'distro_name' is too long or holds control characters, left out"
        findings.append(Finding(path, problem, "mend it"))
        title = ""
    aliases: list[str] = []
    names = section.release_aliases.get(release, "").split(",", _MOST_ALIASES)
    if len(names) > _MOST_ALIASES or max(map(len, names)) > MOST_CHARACTERS:
        problem = (
            f"more than {_MOST_ALIASES} release aliases, or one of more than "
            f"{MOST_CHARACTERS} characters, left out"
        )
        findings.append(Finding(path, problem, "mend them"))
        names = []
    for name in names:
        unfit = unfit_character(name) or ("/" if "/" in name else None)
        if unfit is not None:
            problem = f"the release alias {name!r} has {unfit!r}, left out"
            findings.append(Finding(path, problem, "rename it"))
        elif name.strip():
            aliases += default_aliases(os_name, name.strip(), variant)
    settings = Settings(os=title or None, aliases=tuple(aliases) or None, requirements=texts)
    return settings, findings


@lru_cache(maxsize=64)
def _section(content: bytes) -> _Section | str:
    """Return the section that counts, or what is wrong; once for files of equal bytes.

    A builder leaves the same one in many versions, and a stranger can link one that takes
    long into thousands.
    """
    try:
        document = load_strings(content)
        said = document.get("simplestream") if isinstance(document, dict) else None
        said = said if isinstance(said, dict) else {}
        # A key without a value is an empty string to us, whatever its type.
        return msgspec.convert({key: said[key] for key in said if said[key]}, _Section)
    except ValueError as error:  # msgspec's errors are such, too
        return str(error)


def _applies(rule: _Requirements, release: str, arch: str, variant: str) -> bool:
    """Return whether a product is among those that ``rule`` is for; an empty list is all.

    One for certain types of image only is for none: requirements stand with the product.
    """
    return not rule.types and all(
        not allowed or value in allowed
        for allowed, value in (
            (rule.releases, release),
            (rule.architectures, arch),
            (rule.variants, variant),
        )
    )

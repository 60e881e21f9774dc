"""``image.yaml``: the settings of a product in lxd-imagebuilder's definition of an image.

Only its section ``simplestream`` is read. Format and meaning: ``shared/definition.go`` and
``simplestream-maintainer/stream`` of canonical/lxd-imagebuilder.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec
from msgspec import Struct

from fastindex.errors import Code
from fastindex.events import Finding
from fastindex.formats.names import default_aliases, find_forbidden_character
from fastindex.formats.requirements import MAX_CHARACTERS, check_requirements, is_displayable
from fastindex.formats.settings import Settings
from fastindex.formats.yaml import YamlError, load_strings

_MAX_ALIASES = 100


class _Rule(Struct, frozen=True):
    requirements: dict[str, str] = {}
    releases: list[str] = []
    architectures: list[str] = []
    variants: list[str] = []
    types: list[str] = []


class _Section(Struct, frozen=True):
    distro_name: str = ""
    release_aliases: dict[str, str] = {}
    requirements: list[_Rule] = []


def parse_image_yaml(path: str, content: bytes) -> tuple[Settings, list[Finding]]:
    """Read an ``image.yaml``.

    Args:
        path: STREAM/OS/RELEASE/ARCH/VARIANT/VERSION/image.yaml. Its rules apply to some
            products only, and findings name it.
        content: its bytes; the caller bounds their number.

    Returns:
        Its settings for that product, which are empty if the file cannot be used, and what is
        wrong with it.
    """
    _, os_name, release, arch, variant, _, _ = path.split("/")
    section = _parse_section(content)
    if isinstance(section, str):
        problem = f"cannot be used ({section}); images are published without it"
        return Settings(), [
            Finding(
                Code.BAD_SETTINGS,
                path,
                problem,
                "correct its section 'simplestream', or remove the file",
            )
        ]
    requirements: dict[str, str] = {}
    for rule in section.requirements:
        if _applies(rule, release, arch, variant):
            requirements |= rule.requirements
    texts, findings = check_requirements(path, dict(requirements), is_for_lxd=False)
    title = section.distro_name.strip()
    if not is_displayable(title):
        problem = "'distro_name' is too long or contains control characters, ignored"
        findings.append(Finding(Code.BAD_SETTINGS, path, problem, "correct it"))
        title = ""
    aliases: list[str] = []
    names = section.release_aliases.get(release, "").split(",", _MAX_ALIASES)
    if len(names) > _MAX_ALIASES or max(map(len, names)) > MAX_CHARACTERS:
        problem = (
            f"more than {_MAX_ALIASES} release aliases, or one of more than "
            f"{MAX_CHARACTERS} characters, ignored"
        )
        findings.append(Finding(Code.BAD_SETTINGS, path, problem, "correct them"))
        names = []
    for name in names:
        forbidden = find_forbidden_character(name) or ("/" if "/" in name else None)
        if forbidden is not None:
            problem = f"the release alias {name!r} contains {forbidden!r}, ignored"
            findings.append(Finding(Code.BAD_SETTINGS, path, problem, "rename it"))
        elif name.strip():
            aliases += default_aliases(os_name, name.strip(), arch, variant)
    settings = Settings(os=title or None, aliases=tuple(aliases) or None, requirements=texts)
    return settings, findings


@lru_cache(maxsize=64)
def _parse_section(content: bytes) -> _Section | str:
    """Return the section ``simplestream``, or what is wrong with the file.

    Cached: a builder puts the same file into many versions, and a stranger can link one that
    takes long to parse into thousands.
    """
    try:
        document = load_strings(content)
        section = document.get("simplestream") if isinstance(document, dict) else None
        section = section if isinstance(section, dict) else {}
        # load_strings returns "" for a key without a value, whatever its type should be.
        return msgspec.convert({key: section[key] for key in section if section[key]}, _Section)
    except (YamlError, msgspec.ValidationError) as error:
        return str(error)


def _applies(rule: _Rule, release: str, arch: str, variant: str) -> bool:
    """Return whether ``rule`` applies to a product; an empty list in it stands for all.

    A rule for some types of image (container, VM) applies to no product: the catalogue has
    requirements per product, not per image.
    """
    return not rule.types and all(
        not allowed or value in allowed
        for allowed, value in (
            (rule.releases, release),
            (rule.architectures, arch),
            (rule.variants, variant),
        )
    )

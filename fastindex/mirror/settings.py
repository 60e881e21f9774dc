"""Settings files in the tree, at any level from the variant directory up to the stream.

The nearest file wins, key by key; so do single requirements, separately for Incus and for
LXD. At the same level ``.product.toml`` wins over ``.requirements``. The builder's
``image.yaml`` in the newest version comes last.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import msgspec

from fastindex.errors import Code, is_shortage
from fastindex.events import Finding
from fastindex.formats.requirements import parse_requirements
from fastindex.formats.settings import Settings
from fastindex.formats.simplestreams import (
    IMAGE_YAML_NAME,
    LXD_REQUIREMENTS_NAME,
    PRODUCT_TOML_NAME,
)
from fastindex.mirror.mirror import Mirror
from fastindex.system.files import read_descriptor

_MAX_BYTES = 64 * 1024
_MAX_IMAGE_YAML_BYTES = 128 * 1024  # the definition of a distribution has about 20 KiB
_NO_SETTINGS = Settings()


class SettingsReader:
    """Parses each settings file once, however many products are below it.

    It does not keep their bytes: an uploader could hard-link one large file into a thousand
    versions. A file that changes between ``read_contents`` and ``merge`` is picked up by the
    next run.

    Args:
        mirror: the mirror.
    """

    def __init__(self, mirror: Mirror) -> None:
        self.findings: list[Finding] = []
        """What is wrong with the files that have been parsed so far."""
        self._mirror = mirror
        self._parsed: dict[str, Settings] = {}

    def read_contents(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield each distinct path with the bytes of its file, or with the error's text.

        Args:
            paths: relative to ROOT.

        Raises:
            OSError: the system is out of descriptors or memory.
        """
        for path in dict.fromkeys(paths):
            content = self._read(path)
            yield path, str(content).encode() if isinstance(content, OSError) else content

    def merge(self, paths: Iterable[str]) -> Settings:
        """Merge the settings files of a product.

        Args:
            paths: relative to ROOT, the nearest first.

        Returns:
            The merged settings. A file that cannot be used counts as absent; ``findings``
            tells why.

        Raises:
            OSError: the system is out of descriptors or memory.
        """
        values: dict[str, object] = {}
        incus: dict[str, str] = {}
        lxd: dict[str, str] = {}
        for path in paths:
            settings = self._parse_once(path)
            incus = {**settings.requirements, **incus}
            lxd = {**settings.lxd_requirements, **lxd}
            fields = msgspec.structs.asdict(settings)
            given = {key: value for key, value in fields.items() if value is not None}
            values = {**given, **values}
        values["requirements"] = dict(sorted(incus.items()))
        values["lxd_requirements"] = dict(sorted(lxd.items()))
        return Settings(**values)  # type: ignore[arg-type]  # they come from Settings

    def _parse_once(self, path: str) -> Settings:
        if path not in self._parsed:
            self._parsed[path] = self._parse(path)
        return self._parsed[path]

    def _read(self, path: str) -> bytes | OSError:
        is_image_yaml = os.path.basename(path) == IMAGE_YAML_NAME
        max_bytes = _MAX_IMAGE_YAML_BYTES if is_image_yaml else _MAX_BYTES
        try:
            # An uploader may have replaced it since the scan by a symlink that leads out.
            return read_descriptor(self._mirror.open_file(path), max_bytes, path)
        except OSError as error:
            if is_shortage(error):
                raise
            return error

    def _parse(self, path: str) -> Settings:
        content = self._read(path)
        if isinstance(content, OSError):
            reason = content.strerror or content
            problem = f"cannot be used ({reason}); images are published without it"
            self.findings.append(Finding(Code.BAD_SETTINGS, path, problem, "fix it or remove it"))
            return _NO_SETTINGS
        name = os.path.basename(path)
        if name == PRODUCT_TOML_NAME:
            from fastindex.formats.product_toml import parse_product_toml  # only if needed

            settings, findings = parse_product_toml(path, content)
            self.findings += findings
            return settings
        if name == IMAGE_YAML_NAME:
            from fastindex.formats.image_yaml import parse_image_yaml

            settings, findings = parse_image_yaml(path, content)
            self.findings += findings
            return settings
        is_for_lxd = name == LXD_REQUIREMENTS_NAME
        values, findings = parse_requirements(path, content, is_for_lxd=is_for_lxd)
        self.findings += findings
        if is_for_lxd:
            return Settings(lxd_requirements=values)
        return Settings(requirements=values)

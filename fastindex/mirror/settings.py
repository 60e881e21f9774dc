"""Settings files in the tree, at any level from the variant directory up to the stream.

The nearest file wins, key by key; so do single requirements, separately for Incus and for
LXD. At the same level ``.product.toml`` wins over ``.requirements``. The builder's
``image.yaml`` in the newest version comes last.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec
from xxhash import xxh3_128_digest

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
    versions. A file that changes between ``digest`` and ``merge`` is picked up by the next run.

    Args:
        mirror: the mirror.
    """

    def __init__(self, mirror: Mirror) -> None:
        self.findings: dict[str, list[Finding]] = {}
        """Path of each file that has been parsed so far → what is wrong with it."""
        self.unreadable: set[str] = set()
        """The paths of those that could not be read."""
        self._mirror = mirror
        self._parsed: dict[str, Settings] = {}
        self._digests: dict[str, bytes] = {}

    def digest(self, path: str) -> bytes:
        """Return a digest of the bytes of a file, or of why it cannot be read.

        Args:
            path: relative to ROOT.

        Raises:
            OSError: the system is out of descriptors or memory.
        """
        if path not in self._digests:
            self._digests[path] = self.digest_once(path)
        return self._digests[path]

    def digest_once(self, path: str) -> bytes:
        """Return what ``digest`` does, of a file that holds for one version and is not remembered.

        Args:
            path: relative to ROOT.

        Raises:
            OSError: the system is out of descriptors or memory.
        """
        content = self._read(path)
        return xxh3_128_digest(content if isinstance(content, bytes) else str(content).encode())

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
            self._parsed[path], self.findings[path] = self._parse(path)
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

    def _parse(self, path: str) -> tuple[Settings, list[Finding]]:
        content = self._read(path)
        if isinstance(content, OSError):
            self.unreadable.add(path)
            reason = content.strerror or content
            problem = f"cannot be used ({reason}); images are published without it"
            return _NO_SETTINGS, [Finding(Code.BAD_SETTINGS, path, problem, "fix it or remove it")]
        name = os.path.basename(path)
        if name == PRODUCT_TOML_NAME:
            from fastindex.formats.product_toml import parse_product_toml  # only if needed

            return parse_product_toml(path, content)
        if name == IMAGE_YAML_NAME:
            from fastindex.formats.image_yaml import parse_image_yaml

            return parse_image_yaml(path, content)
        is_for_lxd = name == LXD_REQUIREMENTS_NAME
        values, findings = parse_requirements(path, content, is_for_lxd=is_for_lxd)
        if is_for_lxd:
            return Settings(lxd_requirements=values), findings
        return Settings(requirements=values), findings

"""Settings that lie in the tree, at any level from the variant directory up to the stream.

The nearest wins, key by key; requirements too, those for Incus and for LXD apart. At one
level ``.product.toml`` wins over ``.requirements``. The builder's ``image.yaml`` in the
newest version comes last.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import msgspec

from fastindex.errors import is_shortage
from fastindex.events import Finding
from fastindex.formats.requirements import parse_requirements
from fastindex.formats.settings import Settings
from fastindex.formats.simplestreams import (
    IMAGE_YAML_NAME,
    LXD_REQUIREMENTS_NAME,
    PRODUCT_TOML_NAME,
)
from fastindex.mirror.mirror import Mirror
from fastindex.system.files import read_file_inside

_MOST_BYTES = 64 * 1024
_MOST_IMAGE_YAML_BYTES = 128 * 1024  # the definition of a whole distribution: 20 KiB
_NONE = Settings()


class SettingsReader:
    """Understands each settings file once, however many products lie below it.

    Their bytes are not kept: a megabyte that is hard-linked into a thousand versions costs a
    stranger nothing. One that changes between its two readings is seen by the next run.
    """

    def __init__(self, mirror: Mirror) -> None:
        self.findings: list[Finding] = []
        """What was wrong with the files used so far."""
        self._mirror = mirror
        self._parsed: dict[str, Settings] = {}

    def contents(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield each of ``paths`` once, with its bytes or why there are none."""
        for path in dict.fromkeys(paths):
            content = self._content(path)
            yield path, str(content).encode() if isinstance(content, OSError) else content

    def merged(self, paths: Iterable[str]) -> Settings:
        """Merge the settings files of a product.

        Args:
            paths: relative to ROOT, the nearest first.

        Returns:
            What they say; a file that cannot be used counts as absent and leaves a finding.
        """
        values: dict[str, object] = {}
        incus: dict[str, str] = {}
        lxd: dict[str, str] = {}
        for path in paths:
            settings = self._settings(path)
            incus = {**settings.requirements, **incus}
            lxd = {**settings.lxd_requirements, **lxd}
            said = msgspec.structs.asdict(settings)
            values = {**{key: value for key, value in said.items() if value is not None}, **values}
        values["requirements"] = dict(sorted(incus.items()))
        values["lxd_requirements"] = dict(sorted(lxd.items()))
        return Settings(**values)  # type: ignore[arg-type]  # they come from Settings

    def _settings(self, path: str) -> Settings:
        if path not in self._parsed:
            self._parsed[path] = self._parse(path)
        return self._parsed[path]

    def _content(self, path: str) -> bytes | OSError:
        is_image_yaml = os.path.basename(path) == IMAGE_YAML_NAME
        most_bytes = _MOST_IMAGE_YAML_BYTES if is_image_yaml else _MOST_BYTES
        try:
            # Not what an uploader has put behind it since the scan: it would be published.
            return read_file_inside(self._mirror.path(path), self._mirror.bounds, most_bytes)
        except OSError as error:
            if is_shortage(error):
                raise
            return error

    def _parse(self, path: str) -> Settings:
        content = self._content(path)
        if isinstance(content, OSError):
            reason = content.strerror or content
            problem = f"cannot be used ({reason}); images are published without it"
            self.findings.append(Finding(path, problem, "mend or remove it"))
            return _NONE
        name = os.path.basename(path)
        if name == PRODUCT_TOML_NAME:
            from fastindex.formats.product_toml import parse_product_toml  # where there is one

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

"""Settings that lie in the tree, at any level from the variant directory up to the stream.

The nearest wins, key by key; requirements too, those for Incus and for LXD apart. At one
level ``.product.toml`` wins over ``.requirements``. The builder's ``image.yaml`` in the
newest version comes last.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import msgspec

from fastindex.atomic import read_small_file
from fastindex.contract import IMAGE_YAML_NAME, LXD_REQUIREMENTS_NAME, PRODUCT_TOML_NAME
from fastindex.model import Finding, Settings
from fastindex.requirements import parse_requirements

_MOST_BYTES = 64 * 1024
_MOST_IMAGE_YAML_BYTES = 1 << 20  # the definition of a whole distribution
_NONE = Settings()


class SettingsReader:
    """Reads each settings file once, however many products lie below it."""

    def __init__(self, root: str) -> None:
        self.findings: list[Finding] = []
        """What was wrong with the files used so far."""
        self._root = root
        self._contents: dict[str, bytes | OSError] = {}
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
        if path not in self._contents:
            is_image_yaml = os.path.basename(path) == IMAGE_YAML_NAME
            most_bytes = _MOST_IMAGE_YAML_BYTES if is_image_yaml else _MOST_BYTES
            try:
                content = read_small_file(os.path.join(self._root, path), most_bytes)
            except OSError as error:
                self._contents[path] = error
            else:
                self._contents[path] = content
        return self._contents[path]

    def _parse(self, path: str) -> Settings:
        content = self._content(path)
        if isinstance(content, OSError):
            reason = content.strerror or content
            problem = f"cannot be used ({reason}); images are published without it"
            self.findings.append(Finding(path, problem, "mend or remove it"))
            return _NONE
        name = os.path.basename(path)
        if name == PRODUCT_TOML_NAME:
            from fastindex.product_toml import parse_product_toml  # where there is one

            settings, findings = parse_product_toml(path, content)
            self.findings += findings
            return settings
        if name == IMAGE_YAML_NAME:
            from fastindex.image_yaml import parse_image_yaml

            settings, findings = parse_image_yaml(path, content)
            self.findings += findings
            return settings
        is_for_lxd = name == LXD_REQUIREMENTS_NAME
        values, findings = parse_requirements(path, content, is_for_lxd=is_for_lxd)
        self.findings += findings
        if is_for_lxd:
            return Settings(lxd_requirements=values)
        return Settings(requirements=values)

"""Build hook: writes the manual pages, and compiles the extensions where that is possible.

The manual pages come from the documentation and the parsers. Wheels and source distributions have
them; what is installed for development does not.

With a C compiler on Linux the wheel carries them (``cp311-abi3``): ``system/_listing.c``, and
``hashing/_lanes.c`` on x86-64 and aarch64. Without, it is pure Python (``py3-none-any``);
fastindex then lists directories in Python and hashes with hashlib alone.
``FASTINDEX_EXTENSION=require`` makes a build without what is made for this machine an error,
``skip`` does not try.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "FASTINDEX_EXTENSION"
ROOT = Path(__file__).parent
FLAGS = (
    *("-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-s", "-Wall", "-Wextra"),
    "-DPy_LIMITED_API=0x030B0000",
)
CROSS_MACHINES = ("x86_64", "aarch64")
"""Machines that a wheel can be built for on another, with CC as a compiler for them."""


class Extension(NamedTuple):
    """A source in C."""

    source: str
    """Relative to the root of the project."""
    loss: str
    """What fastindex is without it."""
    machines: tuple[str, ...] = ()
    """What it is made for; none: all."""
    flags: tuple[str, ...] = ()
    """More flags for the compiler."""

    @property
    def target(self) -> str:
        """The file that Python imports, relative to the root of the project."""
        return str(Path(self.source).with_suffix(".abi3.so"))


EXTENSIONS = (
    Extension(
        "fastindex/hashing/_lanes.c",
        "without the quick SHA-256",
        machines=CROSS_MACHINES,
        # As the states' registers are few, the order of the source is the better one.
        flags=("-fno-schedule-insns2",),
    ),
    Extension("fastindex/system/_listing.c", "lists directories slowly"),
)


class FilesHook(BuildHookInterface):  # type: ignore[type-arg]  # of no configuration
    """Adds what is made for a wheel or a source distribution."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the files; ``version`` is ``editable`` to install this very directory."""
        is_editable = version == "editable"
        self._directory = None if is_editable else Path(tempfile.mkdtemp(prefix="fastindex-"))
        if self._directory is not None:
            self._write_manual(self._directory / "man", build_data)
        if self.target_name == "wheel":
            self._compile_all(self._directory, build_data)

    def _write_manual(self, target: Path, build_data: dict[str, Any]) -> None:
        command = [sys.executable, "-B", str(ROOT / "docs/manual.py"), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the manual pages cannot be written:\n{done.stderr}")
        for page in sorted(target.iterdir()):
            if self.target_name == "wheel":
                build_data["shared_data"][str(page)] = f"share/man/man1/{page.name}"
            else:
                build_data["force_include"][str(page)] = f"man/{page.name}"

    def _compile_all(self, directory: Path | None, build_data: dict[str, Any]) -> None:
        """Compile into ``directory``; None: beside the sources, for an editable installation."""
        wish = os.environ.get(VARIABLE, "")
        for extension in EXTENSIONS:
            built = (directory or ROOT) / extension.target
            built.parent.mkdir(parents=True, exist_ok=True)
            built.unlink(missing_ok=True)  # never an older source's
            problem = f"{VARIABLE}=skip" if wish == "skip" else _compile(extension, built)
            if not problem:
                build_data["pure_python"] = False
                build_data["tag"] = f"cp311-abi3-{_platform()}"
                if directory is not None:
                    build_data["force_include"][str(built)] = extension.target
            elif wish == "require" and _is_made_for(extension, _machine()):
                raise RuntimeError(f"{extension.source} cannot be built: {problem}")
            else:
                self.app.display_warning(f"{extension.loss}: {problem}")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made."""
        del version, build_data, artifact_path
        if self._directory is not None:
            shutil.rmtree(self._directory)


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def _machine() -> str:
    """Return which machine the compiler builds for: with a cross-compiler, another than this."""
    told = ""
    if shutil.which(_compiler()[0]) is not None:
        command = [*_compiler(), "-dumpmachine"]
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    machine = told.partition("-")[0]
    return machine if machine in CROSS_MACHINES else platform.machine()


def _platform() -> str:
    machine = _machine()
    if machine != platform.machine():
        return f"linux_{machine}"
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def _is_made_for(extension: Extension, machine: str) -> bool:
    """Return whether an extension is made for a machine."""
    return not extension.machines or machine in extension.machines


def _compile(extension: Extension, built: Path) -> str:
    """Compile into ``built``; return what went wrong, empty if nothing."""
    machine = _machine()
    if sys.platform != "linux" or not _is_made_for(extension, machine):
        wanted = " or ".join(extension.machines) or "any"
        return f"made for Linux on {wanted} machine, this is {sys.platform} on {machine}"
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "this Python has no stable ABI"
    compiler = _compiler()
    if shutil.which(compiler[0]) is None:
        return f"no C compiler ({compiler[0]})"
    command = [
        *(*compiler, *FLAGS, *extension.flags, *shlex.split(os.environ.get("CFLAGS", ""))),
        *(f"-I{sysconfig.get_path('include')}", str(ROOT / extension.source), "-o", str(built)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"{shlex.join(command)}:\n{done.stderr}"

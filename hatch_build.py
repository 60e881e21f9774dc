"""Build hook: compiles ``fastindex/hashing/_lanes.c`` where that is possible.

With a C compiler on x86-64 Linux the wheel carries the extension (``cp311-abi3``); without,
it is pure Python (``py3-none-any``), and fastindex hashes with hashlib alone.
``FASTINDEX_EXTENSION=require`` makes a build without it an error, ``skip`` does not try.
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
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "FASTINDEX_EXTENSION"
SOURCE = Path(__file__).parent / "fastindex/hashing/_lanes.c"
NAME = "_lanes.abi3.so"
FLAGS = (
    *("-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-s", "-Wall", "-Wextra"),
    # As the states' registers are few, the order of the source is the better one.
    "-fno-schedule-insns2",
    "-DPy_LIMITED_API=0x030B0000",
)


class LanesHook(BuildHookInterface):  # type: ignore[type-arg]  # of no configuration
    """Adds the extension to a wheel, or leaves the wheel as it is."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; ``version`` is ``editable`` for an installation of this very directory."""
        wish = os.environ.get(VARIABLE, "")
        is_editable = version == "editable"
        directory = SOURCE.parent if is_editable else Path(tempfile.mkdtemp(prefix="fastindex-"))
        built = directory / NAME
        built.unlink(missing_ok=True)  # never an older source's
        problem = f"{VARIABLE}=skip" if wish == "skip" else _compile(built)
        if not problem:
            build_data["pure_python"] = False
            build_data["tag"] = f"cp311-abi3-{_platform()}"
            if not is_editable:
                build_data["force_include"][str(built)] = f"fastindex/hashing/{NAME}"
            return
        if not is_editable:
            directory.rmdir()
        if wish == "require":
            raise RuntimeError(f"the extension cannot be built: {problem}")
        self.app.display_warning(f"pure Python, without the quick SHA-256: {problem}")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled for a wheel."""
        del version, artifact_path
        for built in build_data["force_include"]:
            shutil.rmtree(Path(built).parent)


def _platform() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def _compile(built: Path) -> str:
    """Compile into ``built``; return what went wrong, empty if nothing."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in {"x86_64", "AMD64"}:
        return f"made for x86-64 Linux, this is {sys.platform} on {machine}"
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "this Python has no stable ABI"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if shutil.which(compiler[0]) is None:
        return f"no C compiler ({compiler[0]})"
    command = [
        *(*compiler, *FLAGS, *shlex.split(os.environ.get("CFLAGS", ""))),
        *(f"-I{sysconfig.get_path('include')}", str(SOURCE), "-o", str(built)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"{shlex.join(command)}:\n{done.stderr}"

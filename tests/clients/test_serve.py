"""The real clients and ``fastindex serve``, by what it tells them to do."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.support.clients.image_maker import SQUASHFS, ImageMaker
from tests.support.clients.real_clients import Flavour
from tests.support.command import Run
from tests.support.serving import run_serve


def test_a_client_trusts_it_by_what_it_prints(
    maker: ImageMaker, flavour: Flavour, tmp_path: Path, fastindex: Run
) -> None:
    root, home = tmp_path / "root", tmp_path / "home"
    (home / flavour.home_directory).mkdir(parents=True)
    version = maker.add_version(root, [flavour.metadata, SQUASHFS])
    assert fastindex(root).returncode == 0
    with run_serve(root, tmp_path) as served:
        told = served.told.read_text()
        lines = re.findall(r"^    ((?:incus remote|install) .*)$", told, re.MULTILINE)
        assert len(lines) == 2
        words = " && ".join([*lines, "incus image export mirror:busybox/1.36 out"])
        if flavour.tool == "lxc":  # as it says
            words = words.replace("incus", "lxc")
        environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
        (tmp_path / "out").mkdir()
        done = subprocess.run(
            ["bash", "-ec", words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    got = {path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert got == {(version / name).read_bytes() for name in (flavour.metadata, SQUASHFS)}

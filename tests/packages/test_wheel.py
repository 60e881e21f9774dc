"""What a wheel and a source distribution have beside the package, and who finds it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from fastindex.cli.words import COMMANDS
from tests.support.documentation import CHECKOUT
from tests.support.shells import shell
from tests.support.tools import needs

PAGES = {"fastindex.1", *(f"fastindex-{command}.1" for command in COMMANDS)}
BASH = "share/bash-completion/completions/fastindex"
ZSH = "share/zsh/site-functions/_fastindex"
FISH = "share/fish/vendor_completions.d/fastindex.fish"


def build(kind: str, directory: Path, **variables: str) -> Path:
    """Build a wheel without extensions, or a source distribution, from this checkout."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", directory],
        cwd=CHECKOUT,
        env={**os.environ, "FASTINDEX_EXTENSION": "skip", **variables},
        capture_output=True,
        check=True,
    )
    (built,) = directory.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def prefix(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where pip has installed the wheel."""
    prefix = tmp_path_factory.mktemp("prefix")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--ignore-installed"]  # what is tested stays
    subprocess.run([*command, "--prefix", prefix, wheel], check=True)
    return prefix


def test_a_wheel_has_manual_pages_and_completions(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    shared = {name.partition(".data/data/")[2] for name in names if ".data/data/" in name}
    assert shared == {BASH, ZSH, FISH, *(f"share/man/man1/{page}" for page in PAGES)}


@pytest.mark.skipif(sys.platform != "linux", reason="extensions are made for Linux")
@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_a_wheel_is_for_the_machine_that_the_compiler_builds_for(
    tmp_path: Path, machine: str
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(
        f"""#!/bin/sh
if [ "$1" = -dumpmachine ]; then echo {machine}-linux-gnu; exit; fi
while [ "$1" != -o ]; do shift; done
echo made > "$2"
"""
    )
    compiler.chmod(0o755)
    made = build("wheel", tmp_path / "made", CC=str(compiler), FASTINDEX_EXTENSION="require")
    assert made.name.endswith(f"-cp311-abi3-linux_{machine}.whl")
    with zipfile.ZipFile(made) as archive:
        names = archive.namelist()
        assert archive.read("fastindex/hashing/_lanes.abi3.so") == b"made\n"
        assert archive.read("fastindex/system/_listing.abi3.so") == b"made\n"
    assert not [name for name in names if name.endswith((".c", ".h"))]


def test_a_source_distribution_has_all_that_the_extensions_are_made_of(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "fastindex").rglob("*.[ch]")}
    assert "fastindex/hashing/_sha256_arm.h" in sources
    assert names >= sources


def test_wheels_are_the_same_each_time(wheel: Path, tmp_path: Path) -> None:
    assert build("wheel", tmp_path).read_bytes() == wheel.read_bytes()


def test_a_source_distribution_has_manual_pages_and_what_makes_them(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path / "source", filter="data")
    assert names >= {f"man/{page}" for page in PAGES}
    (source,) = (tmp_path / "source").iterdir()
    subprocess.run([sys.executable, source / "docs/manual.py", tmp_path / "pages"], check=True)
    assert {path.name for path in (tmp_path / "pages").iterdir()} == PAGES


@pytest.mark.parametrize("command", COMMANDS)
def test_man_finds_the_pages(prefix: Path, command: str) -> None:
    man = needs("man", "apt-get install man-db")
    done = subprocess.run(
        [man, "--where", f"fastindex-{command}"],
        env={**os.environ, "MANPATH": str(prefix / "share/man")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(prefix / "share/man/man1/"))
    text = subprocess.run(
        [man, f"fastindex-{command}"],
        env={**os.environ, "MANPATH": str(prefix / "share/man"), "MANPAGER": "cat"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "fastindex" in text
    assert "EXIT CODES" in text


def environment(prefix: Path, home: Path) -> dict[str, str]:
    """Return an environment in which shells look for completions in ``prefix``."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "XDG_DATA_DIRS": f"{prefix}/share:/usr/share",
    }


def test_bash_finds_the_completion(prefix: Path, tmp_path: Path) -> None:
    load = "/usr/share/bash-completion/bash_completion"
    if not Path(load).exists():
        needs("bash-completion", "apt-get install bash-completion")
    command = [needs("bash", "apt-get install bash"), "--norc", "--noprofile", "-i"]
    lines = ["bind 'set enable-bracketed-paste off'", f"source {load}"]
    with shell(command, lines, tmp_path, environment(prefix, tmp_path)) as running:
        assert running.complete("fastindex completion fi")[-1] == "fish"


def test_zsh_finds_the_completion(prefix: Path, tmp_path: Path) -> None:
    command = [needs("zsh", "apt-get install zsh"), "-f", "-i"]
    path = f"fpath=({prefix}/share/zsh/site-functions $fpath)"
    lines = ["unset zle_bracketed_paste", path, "autoload -Uz compinit && compinit -u -D"]
    with shell(command, lines, tmp_path, environment(prefix, tmp_path)) as running:
        assert running.complete("fastindex completion fi")[-1] == "fish"


def test_fish_finds_the_completion(prefix: Path, tmp_path: Path) -> None:
    fish = needs("fish", "apt-get install fish")
    done = subprocess.run(
        [fish, "--command", "complete -C 'fastindex completion fi'"],
        cwd=tmp_path,
        env=environment(prefix, tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["fish"]

"""Names that the terminal's encoding, or UTF-8 itself, cannot say: no command trips over them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.builders import Workshop
from tests.support.command import COMMAND
from tests.support.trees import published, version, write_tree

LOCALES = {
    "ascii": {"PYTHONIOENCODING": "ascii:strict"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0"},
    "UTF-8": {"LC_ALL": "C.UTF-8"},
}
HAN, EMOJI, BYTES = "漢", "é😀", os.fsdecode(b"b\xff")
NAMES = ("debian", EMOJI, HAN)
ENCODINGS = {"latin-1": "latin-1", "UTF-8": "utf-8"}
"""What stdout can say, where it is more than ASCII."""


@pytest.fixture(params=LOCALES)
def locale(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def run(locale: str, cwd: Path, *arguments: str | bytes | Path) -> tuple[int, bytes, str]:
    """Run the command in ``locale``; return its exit code, stdout and stderr."""
    unset = ("LC_ALL", "LC_CTYPE", "LANG", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    result = subprocess.run(
        [COMMAND, *arguments],
        cwd=cwd,
        env=environment | LOCALES[locale],
        capture_output=True,
        timeout=60,
        check=False,
    )
    stderr = result.stderr.decode(ENCODINGS.get(locale, "ascii"))
    assert "Traceback" not in stderr
    assert "codec" not in stderr
    return result.returncode, result.stdout, stderr


def escaped(locale: str, text: str) -> str:
    """Return ``text`` as stdout says it in ``locale``."""
    encoding = ENCODINGS.get(locale, "ascii")
    return text.encode(encoding, "backslashreplace").decode(encoding)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A mirror with names that some encodings lack, and one that UTF-8 lacks."""
    root = tmp_path / "mirror"
    for name in (*NAMES, BYTES):
        for day in (5, 6):
            write_tree(root, version(f"{name}/12/amd64/default/2024050{day}_05:24"))
    return root


def test_every_command_says_all_names(locale: str, root: Path) -> None:
    def stdout_of(*arguments: str, code: int = 0) -> str:
        returned, stdout, _ = run(locale, root, *arguments)
        assert returned == code
        return stdout.decode(ENCODINGS.get(locale, "ascii"))

    def list_names(text: str) -> list[str]:
        return [name for name in (HAN, EMOJI) if escaped(locale, name) in text]

    assert list_names(stdout_of("diff", code=3)) == [HAN, EMOJI]
    assert list_names(stdout_of("--dry-run", code=3)) == [HAN, EMOJI]
    code, _, stderr = run(locale, root)
    assert code == 3
    assert r"images/b\udcff: the name is not valid UTF-8; rename it" in stderr
    assert list_names(stdout_of("list")) == [HAN, EMOJI]
    assert stdout_of("verify") == ""
    for more in (["--dry-run"], []):
        said = stdout_of("prune", "--keep", "1", *more, code=0 if more else 3)
        assert list_names(said) == [HAN, EMOJI]
        said = stdout_of("remove", *more, f"{HAN}/12", code=0 if more else 3)
        assert list_names(said) == [HAN]
    assert {product.split(":")[0] for product in published(root)} == {"debian", EMOJI}
    next(root.glob(f"images/{EMOJI}/12/amd64/default/*6_05:24/rootfs.squashfs")).unlink()
    assert list_names(stdout_of("verify", code=4)) == [EMOJI]


def test_json_is_utf_8_everywhere(locale: str, root: Path) -> None:
    run(locale, root, "-q")
    _, listed, _ = run(locale, root, "list", "--json")
    assert {image["os"] for image in json.loads(listed.decode())} == {"debian", HAN, EMOJI}
    _, printed, _ = run(locale, root, "--print")
    products = json.loads(printed.decode())["products"]
    assert sorted(products) == sorted(f"{name}:12:amd64:default" for name in NAMES)
    (root / f"images/{HAN}").rename(root / "images/gone")
    code, verified, _ = run(locale, root, "verify", "--json")
    assert code == 4
    mismatches = json.loads(verified.decode())["verify"]["mismatches"]
    assert any(HAN in wrong["version"] for wrong in mismatches)


def test_the_locale_does_not_change_the_catalogue(locale: str, root: Path) -> None:
    """Names are UTF-8, which is what clients ask a server for."""
    run("UTF-8", root, "-q")
    before = (root / "streams/v1/images.json").read_bytes()
    code, _, stderr = run(locale, root, "--rehash")
    assert code == 3
    assert "6 versions of 3 products published" in stderr
    assert (root / "streams/v1/images.json").read_bytes() == before


def test_paths_that_are_not_utf_8_are_quoted(locale: str, tmp_path: Path, root: Path) -> None:
    here = tmp_path / BYTES
    here.mkdir()
    failing: tuple[tuple[str | bytes | Path, ...], ...] = (
        ("list", b"./\xff"),
        ("verify", b"./\xff"),
        ("diff", b"./\xff"),
        ("prune", b"./\xff"),
        (b"./\xff",),
        ("import", b"./\xff", root),
        ("import", root, b"./\xff"),
        ("bench", b"./\xff"),
        ("--output", b"\xff", "list", root),
    )
    for arguments in failing:
        code, _, stderr = run(locale, here, *arguments)
        assert code == 1
        assert r"b\udcff/\udcff" in stderr or r" \udcff: " in stderr or r"./\udcff: " in stderr
    wrong: tuple[tuple[str | bytes | Path, ...], ...] = (
        (b"\xff", b"\xff"),
        (b"--\xff",),
        ("help", b"\xff"),
        ("--settle", b"\xff"),
        ("--engine", b"\xff"),
        ("--stream", b"\xff"),
        ("prune", "--undo", b"\xff", root),
        ("remove", b"\xff", root),
    )
    for arguments in wrong:
        if root in arguments:
            run("UTF-8", root, "-q")
        code, _, stderr = run(locale, here, *arguments)
        assert code == 2
        assert r"\udcff" in stderr


def test_a_mirror_below_a_path_that_is_not_utf_8_is_served(
    locale: str, tmp_path: Path, root: Path
) -> None:
    moved = root.rename(tmp_path / BYTES)
    assert run(locale, tmp_path, os.fsencode(moved))[0] == 3
    code, listed, _ = run(locale, tmp_path, "list", "--json", os.fsencode(moved))
    assert code == 0
    assert len(json.loads(listed.decode())) == 3
    code, verified, _ = run(locale, moved, "verify", "--json")
    assert code == 0
    assert json.loads(verified.decode())["verify"]["mismatches"] == []


def test_help_is_printed(locale: str, tmp_path: Path) -> None:
    for command in ("build", "import", "bench", "help"):
        code, stdout, _ = run(locale, tmp_path, command, "--help")
        assert code == 0
        assert b"exit codes:" in stdout


def test_an_import_says_names(locale: str, workshop: Workshop, tmp_path: Path, root: Path) -> None:
    source = workshop.split(tmp_path / BYTES)
    arguments = ["import", "--copy", "--os", HAN, "--variant", EMOJI]
    for more in (["--dry-run"], []):
        code, stdout, _ = run(locale, tmp_path, *arguments, *more, os.fsencode(source), root)
        assert code == 0
        for name in (HAN, EMOJI):
            assert escaped(locale, name).encode(ENCODINGS.get(locale, "ascii")) in stdout
    assert (root / f"images/{HAN}/12/amd64/{EMOJI}").is_dir()


def test_json_of_a_bench_has_a_path_that_is_not_utf_8(locale: str, tmp_path: Path) -> None:
    for number in range(2):
        with (tmp_path / BYTES).with_suffix(f".{number}").open("wb") as file:
            for _ in range(40):
                file.write(os.urandom(1 << 20))
    arguments = ["bench", "--jobs", "1", "--seconds", "0.001", "--json", "."]
    code, stdout, _ = run(locale, tmp_path, *arguments)
    assert code == 0
    assert json.loads(stdout.decode())["bench"]["advice"]["jobs"] == 1

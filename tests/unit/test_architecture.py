"""The rules of the house catch what breaks them.

The rules stand in pyproject.toml and are checked by import-linter and ruff. Here both tools run on
copies of the package into which a violation is planted.

Out of their reach: ``__import__`` of a name (``importlib`` is banned outside
``fastindex/__init__.py``), a method of an object that the caller hands in (``path.write_bytes()``;
the package cannot make such a path itself), and what a subprocess does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import fastindex

PACKAGE = Path(fastindex.__file__).parent
SETTINGS = Path(__file__).parents[2] / "pyproject.toml"
TOOLS = Path(sys.executable).parent

PRINTS = "only cli/output prints"
OPENS = "only system and mirror/staging open files to write"
WRITES = "only system, mirror/staging and mirror/removal change files"
PARSES = "only formats parses"
READS = "only formats and system read through io.FileIO"
IMPORTS = "an import by name escapes the rules"

EXCUSES = {
    "__init__.py": {IMPORTS},
    "cli/main.py": {PRINTS, OPENS},
    "cli/output.py": {PRINTS, OPENS},
    "formats/": {PARSES, READS},
    "mirror/removal.py": {WRITES},
    "mirror/staging.py": {WRITES},
    "system/": {WRITES, OPENS, READS},
}
"""What the files whose bans per-file-ignores lifts are excused from; all else holds for them."""


def copied(directory: Path) -> Path:
    """Copy the package and its settings into ``directory``; return the package's copy."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.c")
    shutil.copytree(PACKAGE, directory / "fastindex", ignore=ignored)
    shutil.copy(SETTINGS, directory)
    return directory / "fastindex"


def plant(package: Path, path: str, source: str) -> None:
    """Append ``source`` to the module at ``path``, which need not exist."""
    module = package / path
    module.parent.mkdir(exist_ok=True)
    with module.open("a") as file:
        file.write(source)


def run(package: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run one of the tools beside ``package``."""
    return subprocess.run(
        [TOOLS / command[0], *command[1:]],
        cwd=package.parent,
        env={**os.environ, "COLUMNS": "400"},  # import-linter wraps its lines
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass(frozen=True)
class Found:
    """What ruff says of one place."""

    path: str
    rule: str
    words: str


def ruff(package: Path, *arguments: str) -> list[Found]:
    """Return what ruff finds in ``package``."""
    command = ("ruff", "check", "--no-cache", "--output-format", "json", *arguments, "fastindex")
    done = run(package, *command)
    assert done.returncode in {0, 1}, done.stderr
    root = package.resolve()
    return [
        Found(
            path=str(Path(found["filename"]).resolve().relative_to(root)),
            rule=found["code"],
            words=found["message"],
        )
        for found in json.loads(done.stdout)
    ]


def unexcused(package: Path) -> list[Found]:
    """Return where ``package`` breaks a ban, an excused file those that hold for it too."""

    def is_excused(found: Found) -> bool:
        return any(
            found.words.endswith(f"is banned: {words}")
            for path, excused in EXCUSES.items()
            if found.path.startswith(path)
            for words in excused
        )

    banned = ruff(package, "--select", "TID251", "--config", "lint.per-file-ignores = {}")
    return [found for found in banned if not is_excused(found)]


def test_the_imports_keep_the_rules(tmp_path: Path) -> None:
    done = run(copied(tmp_path), "lint-imports", "--no-cache")
    assert done.returncode == 0, done.stdout


def test_the_code_keeps_the_rules(tmp_path: Path) -> None:
    package = copied(tmp_path)
    assert ruff(package) == []
    assert unexcused(package) == []


def test_each_excuse_names_what_is_there() -> None:
    assert [path for path in EXCUSES if not (PACKAGE / path).exists()] == []


@dataclass(frozen=True)
class Arrow:
    """An import that breaks a rule."""

    path: str
    source: str
    rule: str
    complaint: str


ARROWS = {
    "a lower floor imports the command line": Arrow(
        "hashing/planted_a.py",
        "import fastindex.cli.main\n",
        "Data flows one way",
        "fastindex.hashing.planted_a -> fastindex.cli.main (l.1)",
    ),
    "upwards, relative, in a function": Arrow(
        "system/planted_b.py",
        "def f():\n    from ..operations import plan\n",
        "Data flows one way",
        "fastindex.system.planted_b -> fastindex.operations.plan (l.2)",
    ),
    "upwards, for types only": Arrow(
        "catalogue/planted_c.py",
        "import typing\nif typing.TYPE_CHECKING:\n    from fastindex.operations import builder\n",
        "Data flows one way",
        "fastindex.catalogue.planted_c -> fastindex.operations.builder (l.3)",
    ),
    "mirror imports catalogue": Arrow(
        "mirror/planted_d.py",
        "import fastindex.catalogue\n",
        "Data flows one way",
        "fastindex.mirror.planted_d -> fastindex.catalogue (l.1)",
    ),
    "hashing imports mirror": Arrow(
        "hashing/planted_e.py",
        "import fastindex.mirror\n",
        "Data flows one way",
        "fastindex.hashing.planted_e -> fastindex.mirror (l.1)",
    ),
    "formats imports system": Arrow(
        "formats/planted_f.py",
        "from fastindex.system import atomic\n",
        "Data flows one way",
        "fastindex.formats.planted_f -> fastindex.system.atomic (l.1)",
    ),
    "errors imports events": Arrow(
        "errors.py",
        "from fastindex.events import Finding\n",
        "Data flows one way",
        "fastindex.errors -> fastindex.events",
    ),
    "one operation imports another": Arrow(
        "operations/importer/planted_g.py",
        "from fastindex.operations import builder\n",
        "Operations do not import each other",
        "fastindex.operations.importer.planted_g -> fastindex.operations.builder (l.1)",
    ),
    "plan imports an operation": Arrow(
        "operations/plan.py",
        "from fastindex.operations import builder\n",
        "Operations do not import each other",
        "fastindex.operations.plan -> fastindex.operations.builder",
    ),
    "prune imports another operation than build": Arrow(
        "operations/prune/planted_h.py",
        "from fastindex.operations import verify\n",
        "prune, pull and deltas use build only",
        "fastindex.operations.prune.planted_h -> fastindex.operations.verify (l.1)",
    ),
    "pull imports another operation than build": Arrow(
        "operations/pull/planted_q.py",
        "from fastindex.operations import listing\n",
        "prune, pull and deltas use build only",
        "fastindex.operations.pull.planted_q -> fastindex.operations.listing (l.1)",
    ),
    "deltas imports another operation than build": Arrow(
        "operations/deltas/planted_r.py",
        "from fastindex.operations import listing\n",
        "prune, pull and deltas use build only",
        "fastindex.operations.deltas.planted_r -> fastindex.operations.listing (l.1)",
    ),
    "a lower floor imports the package's front": Arrow(
        "catalogue/planted_i.py",
        "from fastindex import build\n",
        "Only the command line imports the package's front",
        "fastindex.catalogue.planted_i -> fastindex (l.1)",
    ),
    "a digest outside hashing": Arrow(
        "catalogue/planted_j.py",
        "from hashlib import sha256\n",
        "Only hashing computes digests",
        "fastindex.catalogue.planted_j -> hashlib (l.1)",
    ),
    "a digest outside hashing, in a function": Arrow(
        "mirror/planted_k.py",
        "def f():\n    import hashlib\n",
        "Only hashing computes digests",
        "fastindex.mirror.planted_k -> hashlib (l.2)",
    ),
    "BLAKE3 outside hashing": Arrow(
        "operations/builder/planted_l.py",
        "import blake3 as quick\n",
        "Only hashing computes digests",
        "fastindex.operations.builder.planted_l -> blake3 (l.1)",
    ),
    "a stamp's key outside": Arrow(
        "catalogue/planted_m.py",
        "import xxhash\n",
        "xxHash",
        "fastindex.catalogue.planted_m -> xxhash (l.1)",
    ),
    "YAML outside formats": Arrow(
        "mirror/planted_n.py",
        'import yaml\nyaml.load("")\n',
        "Only formats parses",
        "fastindex.mirror.planted_n -> yaml (l.1)",
    ),
    "a tarball opened outside formats": Arrow(
        "operations/importer/planted_o.py",
        "from tarfile import open as opened\n",
        "Only formats parses",
        "fastindex.operations.importer.planted_o -> tarfile (l.1)",
    ),
    "a progress bar outside the command line": Arrow(
        "operations/builder/planted_p.py",
        "from tqdm import tqdm\n",
        "Only the command line shows progress",
        "fastindex.operations.builder.planted_p -> tqdm (l.1)",
    ),
}


def broken(output: str) -> dict[str, str]:
    """Return what import-linter says of each rule that is broken."""
    told = output.partition("Broken contracts\n")[2]
    sections = re.split(r"\n(?=[^\n]+\n-{10,}\n)", told)
    return dict(section.split("\n", 1) for section in sections[1:])


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what import-linter says of a package in which all ``ARROWS`` are planted."""
    package = copied(tmp_path_factory.mktemp("arrows"))
    for arrow in ARROWS.values():
        plant(package, arrow.path, arrow.source)
    return broken(run(package, "lint-imports", "--no-cache").stdout)


@pytest.mark.parametrize("arrow", ARROWS.values(), ids=ARROWS)
def test_a_planted_import_is_caught(complaints: dict[str, str], arrow: Arrow) -> None:
    (told,) = [told for rule, told in complaints.items() if arrow.rule in rule]
    assert arrow.complaint in told


@pytest.mark.parametrize(
    ("path", "rule", "complaint"),
    [
        ("signing/__init__.py", "Data flows one way", "fastindex.signing"),
        ("operations/sign.py", "Operations do not import each other", "fastindex.operations.sign"),
    ],
)
def test_a_package_without_a_place_is_caught(
    tmp_path: Path, path: str, rule: str, complaint: str
) -> None:
    package = copied(tmp_path)
    plant(package, path, "")
    complaints = broken(run(package, "lint-imports", "--no-cache").stdout)
    (told,) = [told for name, told in complaints.items() if rule in name]
    assert complaint in told


PLANTED = {
    "catalogue/a.py": ("import os\n\nos.rename('a', 'b')\n", "TID251", WRITES),
    "catalogue/b.py": ("from os import unlink as forget\n\nforget('a')\n", "TID251", WRITES),
    "hashing/a.py": ("import os\n\n\ndef f():\n    os.link('a', 'b')\n", "TID251", WRITES),
    "hashing/b.py": ("import os\n\nos.open('a', os.O_CREAT)\n", "TID251", WRITES),
    "hashing/c.py": ("import os\n\nos.open('a', os.O_RDWR)\n", "TID251", OPENS),
    "operations/a.py": (
        "from pathlib import Path\n\nPath('a').write_bytes(b'')\n",
        "TID251",
        WRITES,
    ),
    "operations/b.py": (
        "with open('a', 'w') as file:\n    file.write('')\n",
        "PTH123",
        "`Path.open()`",
    ),
    "operations/c.py": ("import io\n\nio.open('a', 'w')\n", "TID251", WRITES),
    "operations/d.py": ("import io\n\nio.FileIO('a', 'w')\n", "TID251", READS),
    "operations/e.py": ("def f():\n    import shutil\n    shutil.rmtree('a')\n", "TID251", WRITES),
    "operations/f.py": ("import tempfile\n", "TID251", WRITES),
    "mirror/a.py": ("print('a')\n", "T201", "`print` found"),
    "mirror/b.py": ("import sys\n\nsys.stdout.write('a')\n", "TID251", PRINTS),
    "cli/a.py": ("from sys import stderr\n\nstderr.write('a')\n", "TID251", PRINTS),
    "cli/b.py": ("from pprint import pprint\n\npprint('a')\n", "T203", "`pprint` found"),
    "catalogue/c.py": ("import msgspec\n\nmsgspec.json.decode(b'1')\n", "TID251", PARSES),
    "catalogue/d.py": ("from msgspec.json import Decoder\n", "TID251", PARSES),
    "mirror/c.py": ("import importlib\n\nimportlib.import_module('a')\n", "TID251", IMPORTS),
    "mirror/d.py": ("import builtins\n\nbuiltins.open('a', 'w')\n", "TID251", WRITES),
}


def test_planted_code_is_caught(tmp_path: Path) -> None:
    package = copied(tmp_path)
    for path, (source, _, _) in PLANTED.items():
        plant(package, path, source)
    found = ruff(package)
    assert [
        path
        for path, (_, rule, words) in PLANTED.items()
        if not any(
            one.path == path and one.rule == rule and one.words.endswith(words) for one in found
        )
    ] == []


PLANTED_WHERE_EXCUSED = {
    "__init__.py": ("import os\n\nos.remove('a')\n", WRITES),
    "cli/main.py": ("import tempfile\n", WRITES),
    "cli/output.py": ("import os\n\nos.rename('a', 'b')\n", WRITES),
    "formats/a.py": ("import os\n\nos.unlink('a')\n", WRITES),
    "formats/b.py": ("import os\n\nos.open('a', os.O_WRONLY)\n", OPENS),
    "mirror/removal.py": ("import sys\n\nsys.stdout.write('a')\n", PRINTS),
    "mirror/staging.py": ("from sys import stderr\n\nstderr.write('a')\n", PRINTS),
    "system/a.py": ("import msgspec\n\nmsgspec.json.decode(b'1')\n", PARSES),
    "system/b.py": ("import importlib\n", IMPORTS),
}


def test_planted_code_is_caught_where_something_else_is_excused(tmp_path: Path) -> None:
    package = copied(tmp_path)
    for path, (source, _) in PLANTED_WHERE_EXCUSED.items():
        plant(package, path, source)
    found = unexcused(package)
    assert [
        path
        for path, (_, words) in PLANTED_WHERE_EXCUSED.items()
        if not any(one.path == path and one.words.endswith(words) for one in found)
    ] == []


def test_an_excuse_is_needed(tmp_path: Path) -> None:
    banned = ruff(copied(tmp_path), "--select", "TID251", "--config", "lint.per-file-ignores = {}")
    assert [
        (path, words)
        for path, excused in EXCUSES.items()
        for words in sorted(excused)
        if not any(one.path.startswith(path) and one.words.endswith(words) for one in banned)
    ] == []

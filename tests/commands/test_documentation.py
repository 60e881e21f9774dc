"""The documentation says what is so, and the commands that it shows do what it says."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import shutil
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest

import fastindex
from fastindex.cli.main import find_command
from fastindex.cli.words import COMMANDS, split
from fastindex.errors import ExitCode
from tests.support.clients.mirror_server import make_certificate, opener
from tests.support.clients.real_clients import FLAVOURS
from tests.support.documentation import (
    CHECKOUT,
    README,
    TUTORIAL,
    Block,
    Sandbox,
    blocks_of,
    comparable,
    installation,
    is_installation,
    run_readme,
    serve_as_shown,
    tutorial,
    tutorial_with_clients,
)
from tests.support.tools import needs

DOCS = CHECKOUT / "docs"
PAGES = sorted([*CHECKOUT.glob("*.md"), *DOCS.rglob("*.md")])
MOST_README_LINES = 180
WITH_PAGE = [*COMMANDS[:-1]]
"""All but ``help``."""
TUTORIAL_TOOLS = {
    "incus": FLAVOURS["incus"].install_line,
    "nginx": "apt-get install nginx",
    "openssl": "apt-get install openssl",
}
"""Tool → how it is installed."""


def page_id(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


def parser_of(command: str) -> argparse.ArgumentParser:
    make_parser, _ = find_command(command)
    return make_parser()


def shown_outputs(page: Path) -> dict[str, str]:
    return {b.name: comparable(b.text) for b in blocks_of(page) if b.mark.startswith("output: ")}


def block(page: Path, mark: str) -> Block:
    (found,) = [block for block in blocks_of(page) if block.mark == mark]
    return found


# The commands


@pytest.mark.parametrize("page", [README, TUTORIAL], ids=page_id)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    known = r"(run|output|serve): [\w-]+(; needs( \w+)+)?|not run: \w.{9,}|try|tests"
    unmarked = [b.line for b in blocks_of(page) if not re.fullmatch(known, b.mark)]
    assert unmarked == []
    names = [b.name for b in blocks_of(page) if b.is_run]
    assert len(names) == len(set(names))
    assert set(shown_outputs(page)) <= set(names)


def test_the_readme_shows_what_its_commands_print(tmp_path: Path) -> None:
    printed = run_readme(tmp_path)
    shown = shown_outputs(README)
    assert {"import", "build", "list"} <= set(shown)
    assert {name: comparable(printed[name]) for name in shown} == shown


def test_the_tutorial_shows_what_its_commands_print(tmp_path: Path) -> None:
    with tutorial(tmp_path) as sandbox:
        printed = run_all(sandbox, [b for b in blocks_of(TUTORIAL) if b.is_run and not b.tools])
    shown = shown_outputs(TUTORIAL)
    assert {"import", "build", "list", "verify"} <= set(printed) & set(shown)
    assert printed.items() >= {name: shown[name] for name in printed if name in shown}.items()


def test_the_tutorial_leads_real_clients_to_the_image(tmp_path: Path) -> None:
    for tool, install_line in TUTORIAL_TOOLS.items():
        needs(tool, install_line)
    blocks = [b for b in blocks_of(TUTORIAL) if b.is_run and all(map(shutil.which, b.tools))]
    with tutorial_with_clients(tmp_path) as sandbox:
        printed = run_all(sandbox, blocks)
    shown = shown_outputs(TUTORIAL)
    assert {"remote", "image-list", "aliases"} <= set(printed)
    assert {name: printed[name] for name in shown} == shown


def run_all(sandbox: Sandbox, blocks: list[Block]) -> dict[str, str]:
    return {block.name: comparable(sandbox.run(block.text)) for block in blocks}


@pytest.mark.parametrize("server", ["nginx", "caddy"])
def test_the_tutorials_web_server_serves_no_dotfiles(tmp_path: Path, server: str) -> None:
    needs("openssl", "apt-get install openssl")
    root, work = tmp_path / "root", tmp_path / "server"
    work.mkdir()
    hidden = ["streams/.lock", "images/debian/12/amd64/default/20240505_05:24/.items.json"]
    served = ["streams/v1/images.json", "images/debian/12/amd64/default/20240505_05:24/disk.qcow2"]
    for name in [*hidden, *served]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name}\n" * 1000)
    certificate = make_certificate(tmp_path)
    client = opener(certificate.path)
    client.addheaders = [("Accept-Encoding", "gzip")]
    encodings = {}
    with serve_as_shown(server, root, work, certificate) as url:
        for name in served:
            with client.open(f"{url}/{name}", timeout=10) as answer:
                encodings[name] = answer.headers["Content-Encoding"]
        for name in hidden:
            with pytest.raises(urllib.error.HTTPError, match="404") as refusal:
                client.open(f"{url}/{name}", timeout=10)
            refusal.value.close()
    assert encodings == dict(zip(served, ["gzip", None], strict=True))


INSTALLATIONS = [b for b in blocks_of(README) if b.is_run and is_installation(b)]


@pytest.mark.parametrize("shown", INSTALLATIONS, ids=lambda shown: shown.name)
def test_the_readmes_installation_gives_a_command(tmp_path: Path, shown: Block) -> None:
    with installation(tmp_path) as sandbox:
        for tool in shown.tools:
            needs(tool, f"pip install {tool}")
        run_with_an_index(sandbox, shown.text)
        (command,) = [*tmp_path.glob("bin/fastindex"), *tmp_path.glob("home/.local/bin/fastindex")]
        assert re.match(r"fastindex \d", sandbox.run(f"{command} --version"))


def test_the_line_to_try_it_indexes_a_mirror(tmp_path: Path) -> None:
    with installation(tmp_path) as sandbox:
        told = run_with_an_index(sandbox, block(README, "try").text)
    assert "12 versions of 4 products published" in told


def run_with_an_index(sandbox: Sandbox, commands: str) -> str:
    """Run what installs packages; skip the test where there is nowhere to get them from."""
    from_an_index = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "msgspec"]
    if subprocess.run(from_an_index, cwd=sandbox.work, capture_output=True, check=False).returncode:
        pytest.skip("pip reaches no package index")
    return sandbox.run(commands)


@pytest.mark.parametrize("mark", ["try", "tests"])
def test_the_line_can_be_pasted(mark: str) -> None:
    assert len(block(README, mark).text.splitlines()) == 1


# What is said


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_README_LINES


def test_every_exit_code_is_in_the_reference() -> None:
    table = (DOCS / "reference/exit-codes.md").read_text(encoding="utf-8")
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == set(ExitCode)


def test_the_api_page_describes_every_public_name() -> None:
    page = (DOCS / "reference/api.md").read_text(encoding="utf-8")
    directive = r"^\.\. auto(?:class|function):: fastindex\.(\w+)$"
    described = re.findall(directive, page, re.MULTILINE)
    assert sorted(described) == sorted(fastindex.__all__)


@pytest.mark.parametrize("command", WITH_PAGE)
def test_every_command_has_a_page_with_its_options_generated(command: str) -> None:
    page = (DOCS / f"commands/{command}.md").read_text(encoding="utf-8")
    make_parser, _ = find_command(command)
    directive = f".. sphinx_argparse_cli::\n   :module: {make_parser.__module__}\n"
    assert f"{directive}   :func: make_parser\n" in page
    assert parser_of(command).prog == f"fastindex {command}".removesuffix(" build")


def test_the_command_without_a_page_explains_the_others() -> None:
    assert {*COMMANDS} - {*WITH_PAGE} == {"help"}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_option_that_a_page_uses_is_there(page: Path) -> None:
    wrong = []
    for words in commands_in(page.read_text(encoding="utf-8")):
        command = split(words[1:]).command
        known = {option for a in parser_of(command)._actions for option in a.option_strings}
        used = {word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)}
        wrong += [f"{shlex.join(words)}: {option}" for option in sorted(used - known)]
    assert wrong == []


def commands_in(text: str) -> list[list[str]]:
    """Return the words of each fastindex command that ``text`` shows, inline or in a block."""
    inline = re.findall(r"(?<!`)`((?:\S*/)?fastindex(?: [^`]+)?)`(?!`)", text)
    lines = re.findall(r"^(?:ExecStart=|\S.* )?((?:\S*/)?fastindex .*)$", code_of(text), re.M)
    shown = [line.partition(" | ")[0].partition(" #")[0] for line in [*inline, *lines]]
    plain = [re.sub(r"\$\(.*?\)", "", line).strip("'\"") for line in shown]
    return [re.split(r"[\s\[\]]+", line) for line in plain]


def code_of(text: str) -> str:
    return "\n".join(re.findall(r"^```\w+\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_local_link_and_picture_is_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    targets = re.findall(r"\]\(<?([^)>\s]+)>?\)", re.sub(r"`[^`\n]*`", "", text))
    local = [t.partition("#")[0] for t in targets if not re.match(r"[a-z]+:|#", t)]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_script_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    modules = re.findall(r"python -m ((?:tests|benchmarks)[\w.]+)", text)
    scripts = re.findall(r"\b(?:tests|benchmarks|docs|\.ci)/[\w/]+\.(?:py|json|svg|md)\b", text)
    if page == DOCS / "benchmarks.md":
        scripts += [f"benchmarks/{name}" for name in re.findall(r"\(`(\w+\.py)", text)]
    named = [*scripts, *(f"{module.replace('.', '/')}.py" for module in modules)]
    assert [name for name in named if not (CHECKOUT / name).is_file()] == []


def test_the_architecture_page_and_its_picture_name_every_package() -> None:
    package = Path(importlib.import_module("fastindex").__file__ or "").parent
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert len(rooms) >= 7
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert rooms <= set(re.findall(r"^\| `(\w+)/?`", page, re.MULTILINE))
    picture = (DOCS / "packages.svg").read_text(encoding="utf-8")
    assert rooms <= set(re.findall(r">(\w+)</text>", picture))


def test_every_module_that_the_architecture_page_names_is_there() -> None:
    package = Path(importlib.import_module("fastindex").__file__ or "").parent
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+/[\w/]+\.py)`", page)
    assert len(named) >= 10
    assert [name for name in named if not (package / name).is_file()] == []

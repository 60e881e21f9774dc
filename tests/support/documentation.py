"""The commands that README.md and docs/tutorial.md show, run in a sandbox.

    python -m tests.support.documentation

runs them and writes what they print into the pages. The tests compare the two.

A comment above a block of code, which readers do not see, says what becomes of it:

``run: NAME``
    Run it. ``run: NAME; needs TOOL...``: where these tools are installed.
``output: NAME``
    What the block NAME prints, stdout and stderr as they come.
``not run: REASON``
    Neither run nor compared.
``serve: SERVER``
    The configuration of a web server, which serves the mirror while the commands run.
``try``, ``tests``
    One line that can be pasted, run by a test of its own and by ``.ci/run``.
"""

from __future__ import annotations

import io
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.clients.mirror_server import (
    Certificate,
    free_port,
    make_certificate,
    run_nginx,
    serve,
    wait_until_it_answers,
)
from tests.support.contents import make_squashfs
from tests.support.tools import needs

CHECKOUT = Path(__file__).parents[2]
README = CHECKOUT / "README.md"
TUTORIAL = CHECKOUT / "docs/tutorial.md"

DOMAIN = "images.example.org"
"""The mirror's name in the documentation."""
_ROOT = "/srv/images"
"""The directory that is served, in the documentation."""
_CREATED = 1_714_886_640  # 2024-05-05 05:24 UTC
_ROOT_BYTES = 100_000_000
_FILLED_BYTES = 2_000_000
"""Of the root; the rest are holes."""
_PATIENCE_SECONDS = 120
_METADATA = """\
architecture: x86_64
creation_date: {created}
properties:
  architecture: amd64
  description: {os} {release} amd64 (20240505_05:24)
  os: {os}
  release: "{release}"
  serial: "20240505_05:24"
  variant: default
"""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code."""

    line: int
    """The number of the line that opens it, from 1."""
    language: str
    """What stands behind the fence."""
    mark: str
    """What the comment above it says; empty where there is none."""
    text: str
    """The lines between the fences."""

    @property
    def name(self) -> str:
        """What its mark calls it; empty where it has no name."""
        match = re.match(r"(?:run|output|serve): ([\w-]+)", self.mark)
        return match[1] if match else ""

    @property
    def tools(self) -> tuple[str, ...]:
        """The tools that it needs beside fastindex."""
        return tuple(self.mark.partition("; needs ")[2].split())

    @property
    def is_run(self) -> bool:
        """Whether it is run with the others of its page."""
        return self.mark.startswith("run: ")


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of code of ``page`` in order."""
    blocks = []
    lines = page.read_text(encoding="utf-8").splitlines()
    numbered = iter(enumerate(lines))
    for number, line in numbered:
        fence = re.match(r"(```+)(\w*)$", line)
        if fence is None:
            continue
        above = next((told for told in reversed(lines[:number]) if told), "")
        mark = re.fullmatch(r"<!-- (.*) -->", above)
        text = []
        for _, inside in numbered:
            if inside == fence[1]:
                break
            text.append(inside)
        blocks.append(
            Block(number + 1, fence[2], mark[1] if mark else "", "".join(f"{t}\n" for t in text))
        )
    return blocks


def comparable(output: str) -> str:
    """Return ``output`` without what differs from run to run: speeds, times, fingerprints."""
    output = re.sub(r"[\d.]+ [kMG]?B/s in [\d.]+ s", "N GB/s in N s", output)
    output = re.sub(r"nothing read in [\d.]+ s", "nothing read in N s", output)
    return re.sub(r"\b(?:[0-9a-f]{64}|[0-9a-f]{12})\b", "FINGERPRINT", output)


@dataclass(slots=True)
class Sandbox:
    """A place in which shown commands run, on paths that stand for the shown ones."""

    directory: Path
    """An empty directory; HOME and all else are made in it."""
    stand_ins: dict[str, str] = field(default_factory=dict)
    """A path or URL that is shown → what stands for it."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables beside PATH, HOME and TMPDIR."""

    def __post_init__(self) -> None:
        for name in ("home", "tmp", "work"):
            (self.directory / name).mkdir()

    @property
    def work(self) -> Path:
        """The directory that the commands start in."""
        return self.directory / "work"

    def run(self, commands: str) -> str:
        """Run ``commands`` in bash, which must end with 0; return what they print."""
        for shown, real in self.stand_ins.items():
            commands = commands.replace(shown, real)
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.work,
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin",
                "HOME": str(self.directory / "home"),
                "TMPDIR": str(self.directory / "tmp"),
                "LC_ALL": "C.UTF-8",
                "PYTHONUNBUFFERED": "1",  # stdout and stderr in the order of a terminal
                **self.environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
        output = result.stdout
        assert result.returncode == 0, f"{commands}\nends with {result.returncode}:\n{output}"
        for shown, real in self.stand_ins.items():
            output = output.replace(real, shown)
        return output


def make_image(directory: Path, os_name: str, release: str) -> Path:
    """Make what a builder leaves, in ``directory``: metadata, and a root that is mostly holes."""
    directory.mkdir(parents=True)
    text = _METADATA.format(created=_CREATED, os=os_name, release=release).encode()
    tarball = io.BytesIO()
    with tarfile.open(fileobj=tarball, mode="w") as archive:
        member = tarfile.TarInfo("metadata.yaml")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    (directory / "incus.tar.xz").write_bytes(lzma.compress(tarball.getvalue()))
    with (directory / "rootfs.squashfs").open("wb") as root:
        root.write(make_squashfs(bytes(_FILLED_BYTES), _ROOT_BYTES - _FILLED_BYTES - 96))
        root.truncate(_ROOT_BYTES)
    for file in directory.iterdir():
        os.utime(file, (_CREATED, _CREATED))
    return directory


def run_readme(directory: Path) -> dict[str, str]:
    """Run README.md's commands that need no other tool; return block → output."""
    served = directory / "served"
    served.mkdir()
    sandbox = Sandbox(directory, {_ROOT: str(served)})
    make_image(sandbox.work / "build/debian-12", "debian", "12")
    blocks = [block for block in blocks_of(README) if block.is_run and not block.tools]
    return {block.name: sandbox.run(block.text) for block in blocks if not is_installation(block)}


def is_installation(block: Block) -> bool:
    """Return whether ``block`` installs fastindex, for which it needs a checkout."""
    return block.name.startswith("install-")


@contextmanager
def installation(directory: Path) -> Iterator[Sandbox]:
    """Return a sandbox that starts in a copy of the checkout, for what installs it.

    Skips the test where there is none: where only the tests lie beside an installed wheel.
    """
    if not (CHECKOUT / "fastindex").is_dir():
        pytest.skip("no checkout to install from")
    opt, bin_directory = directory / "opt", directory / "bin"
    bin_directory.mkdir()
    stand_ins = {"/opt": str(opt), "/usr/local/bin": str(bin_directory)}
    passed = ("PIP_", "UV_", "SSL_", "REQUESTS_", "http_proxy", "https_proxy", "no_proxy")
    environment = {name: value for name, value in os.environ.items() if name.startswith(passed)}
    sandbox = Sandbox(directory, stand_ins, environment)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, sandbox.work)
    no_builds = shutil.ignore_patterns("__pycache__", "*.so")
    for name in ("fastindex", "benchmarks", "docs"):
        shutil.copytree(CHECKOUT / name, sandbox.work / name, ignore=no_builds)
    yield sandbox


@contextmanager
def tutorial(directory: Path) -> Iterator[Sandbox]:
    """Return a sandbox for the tutorial, without clients: the image is there already."""
    served = directory / "served"
    sandbox = Sandbox(directory, {_ROOT: str(served)})
    make_image(sandbox.work / "debian-12", "Debian", "bookworm")
    yield sandbox


@contextmanager
def tutorial_with_clients(directory: Path) -> Iterator[Sandbox]:
    """Return a sandbox for the tutorial, in which the clients see real servers.

    The public image server is one on this machine with an image made here, and the mirror
    is nginx with the tutorial's own configuration.
    """
    served, upstream = directory / "served", directory / "upstream"
    for name in ("served", "upstream", "upstream-server", "server", "tls"):
        (directory / name).mkdir()
    certificate = make_certificate(directory / "tls")
    sandbox = Sandbox(
        directory,
        {_ROOT: str(served)},
        {"SSL_CERT_FILE": str(certificate.path), "SSL_CERT_DIR": "/nonexistent"},
    )
    image = make_image(directory / "image", "Debian", "bookworm")
    names = "--os debian --release 12"
    sandbox.run(f"fastindex import --quiet --index {names} {image} {upstream}")
    with ExitStack() as stack:
        public = stack.enter_context(serve(upstream, directory / "upstream-server", certificate))
        url = stack.enter_context(
            serve_as_shown("nginx", served, directory / "server", certificate)
        )
        sandbox.stand_ins[f"https://{DOMAIN}"] = url
        sandbox.run("mkdir -p ~/.config/lxc ~/.config/incus && incus remote remove images")
        sandbox.run(f"incus remote add images {public.url} --protocol simplestreams")
        served.rmdir()  # the tutorial makes it
        yield sandbox


@contextmanager
def serve_as_shown(server: str, root: Path, work: Path, certificate: Certificate) -> Iterator[str]:
    """Serve ``root`` with the tutorial's configuration of ``server``; return the URL.

    Args:
        server: ``nginx`` or ``caddy``.
        root: the directory to serve.
        work: an empty directory for the server.
        certificate: what the server shows.
    """
    shown = next(b.text for b in blocks_of(TUTORIAL) if b.mark == f"serve: {server}")
    port = free_port()
    url = f"https://localhost:{port}"
    shown = shown.replace(_ROOT, str(root))
    if server == "nginx":
        configuration = _with_values(
            shown,
            {
                r"listen \[::\]:443 ssl;\n": "",
                r"listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
                rf"server_name {DOMAIN};": "server_name localhost;",
                r"ssl_certificate .*;": f"ssl_certificate {certificate.path};",
                r"ssl_certificate_key .*;": f"ssl_certificate_key {certificate.key};",
            },
        )
        with run_nginx(configuration, url, work, certificate):
            yield url
    else:
        tls = f"tls {certificate.path} {certificate.key}"
        configuration = _with_values(shown, {rf"(?m)^{DOMAIN} {{": f"{url} {{\n    {tls}"})
        with _run_caddy(configuration, url, work, certificate):
            yield url


def _with_values(text: str, values: Mapping[str, str]) -> str:
    """Replace each pattern, which must be in ``text``, by its value."""
    for pattern, value in values.items():
        text, count = re.subn(pattern, value, text)
        assert count, f"the configuration has no {pattern}"
    return text


@contextmanager
def _run_caddy(
    configuration: str, url: str, work: Path, certificate: Certificate
) -> Iterator[None]:
    caddy = needs("caddy", "apt-get install caddy")
    options = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"
    (work / "Caddyfile").write_text(options + configuration, encoding="utf-8")
    command = [caddy, "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(work)}
    with subprocess.Popen(command, cwd=work, env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until_it_answers(server, url, certificate)
            yield
        finally:
            server.terminate()


def show_outputs(page: Path, outputs: Mapping[str, str]) -> bool:
    """Write into ``page`` what its commands print; return whether that changes it."""
    lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
    has_changed = False
    for block in reversed(blocks_of(page)):
        output = outputs.get(block.name)
        is_output = block.mark.startswith("output: ")
        if is_output and output is not None and comparable(output) != comparable(block.text):
            lines[block.line : block.line + len(block.text.splitlines())] = [output]
            has_changed = True
    page.write_text("".join(lines), encoding="utf-8")
    return has_changed


def main() -> int:
    """Run the commands of both pages and write their outputs into them."""
    with tempfile.TemporaryDirectory() as work:
        directory = Path(work)
        (directory / "readme").mkdir()
        (directory / "tutorial").mkdir()
        outputs = {README: run_readme(directory / "readme")}
        with tutorial_with_clients(directory / "tutorial") as sandbox:
            outputs[TUTORIAL] = {
                block.name: sandbox.run(block.text) for block in blocks_of(TUTORIAL) if block.is_run
            }
    for page, of_page in outputs.items():
        change = "rewritten" if show_outputs(page, of_page) else "as it was"
        print(f"{page.relative_to(CHECKOUT)}: {change}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A mirror on 127.0.0.1: a tree, the catalogue of it, and a real web server with TLS."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import needs

_PATIENCE_SECONDS = 10
_CONFIGURATION = """\
daemon off;
master_process off;  # no second user: the server reads what the tests may read
pid nginx.pid;
error_log error.log;
events {{ }}
http {{
    access_log access.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    types {{ application/json json; }}
    {server}
}}
"""
_SERVER = """\
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name localhost;
        ssl_protocols TLSv1.3;  # all that the clients speak
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        root {root};
        gzip on;  # for whoever asks for it
        gzip_types application/json;
    }}
"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A throw-away self-signed certificate for localhost."""

    path: Path
    """The certificate, which clients are told to trust."""
    key: Path
    """Its private key."""


def make_certificate(
    directory: Path, days: int = 2, names: str = "DNS:localhost,IP:127.0.0.1"
) -> Certificate:
    """Make a certificate in ``directory`` that is valid for ``days``, and for ``names``."""
    openssl = needs("openssl", "apt-get install openssl")
    made = Certificate(directory / "localhost.crt", directory / "localhost.key")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    # CA:TRUE stands in the certificate by openssl's own default.
    extensions = ["-addext", f"subjectAltName={names}"]
    files = ["-keyout", str(made.key), "-out", str(made.path)]
    command = [openssl, "req", "-x509", "-subj", "/CN=localhost", "-days", str(days)]
    subprocess.run(
        [*command, *key, *extensions, *files], capture_output=True, timeout=60, check=True
    )
    return made


@dataclass(frozen=True, slots=True)
class Mirror:
    """A served tree."""

    root: Path
    """ROOT, with ``images`` in it."""
    url: str
    """Where it is served."""
    server_pid: int
    """Of the web server's one process."""

    def index(self, *, exit_code: int = 0) -> str:
        """Run the installed fastindex on the tree; return what it said on stderr."""
        command = [Path(sys.executable).with_name("fastindex"), self.root]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == exit_code, result.stderr
        return result.stderr


@contextmanager
def serve(root: Path, work: Path, certificate: Certificate, settings: str = "") -> Iterator[Mirror]:
    """Serve ``root`` while the context lasts.

    Args:
        root: the tree.
        work: an empty directory for the server; its logs stay there.
        certificate: what the server shows.
        settings: what the ``server`` block of its configuration says besides; ``$server_port`` is
            its port.
    """
    port = free_port()
    url = f"https://localhost:{port}"
    server = _SERVER.format(port=port, certificate=certificate.path, key=certificate.key, root=root)
    server = server.rstrip().removesuffix("}") + settings + "\n}\n"
    with run_nginx(server, url, work, certificate) as pid:
        yield Mirror(root, url, pid)


@contextmanager
def run_nginx(server: str, url: str, work: Path, certificate: Certificate) -> Iterator[int]:
    """Run nginx while the context lasts; return the pid of its one process.

    Args:
        server: the ``server`` block of its configuration.
        url: where that makes it answer.
        work: an empty directory for the server; its logs stay there.
        certificate: what the server shows.
    """
    nginx = needs("nginx", "apt-get install nginx")
    configuration = _CONFIGURATION.format(server=server)
    (work / "nginx.conf").write_text(configuration, encoding="utf-8")
    command = [nginx, "-p", f"{work}/", "-c", "nginx.conf", "-e", "error.log"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until_it_answers(process, url, certificate)
            yield process.pid
        finally:
            process.terminate()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_it_answers(
    server: subprocess.Popen[bytes], url: str, certificate: Certificate
) -> None:
    """Wait until the web server ``server`` answers at ``url``; fail if it ends or takes long."""
    asking = opener(certificate.path)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not _answers(asking, url):
        assert server.poll() is None, f"{server.args!r} ended with {server.returncode}"
        assert time.monotonic() < deadline, f"{server.args!r} does not answer"
        time.sleep(0.02)


def opener(certificate: Path) -> urllib.request.OpenerDirector:
    """Return what asks servers that show ``certificate``, without any proxy."""
    context = ssl.create_default_context(cafile=str(certificate))
    direct, trust = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    return urllib.request.build_opener(direct, trust)


def _answers(asking: urllib.request.OpenerDirector, url: str) -> bool:
    try:
        asking.open(url, timeout=_PATIENCE_SECONDS).close()
    except urllib.error.HTTPError as refusal:
        refusal.close()  # an answer: there is nothing to see at /
    except urllib.error.URLError as failure:
        return isinstance(failure.reason, ssl.SSLCertVerificationError)
    except OSError:
        return False
    return True

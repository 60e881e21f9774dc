"""nginx with TLS on 127.0.0.1, as a mirror is served."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from measure import CANNOT_MEASURE

_PATIENCE_SECONDS = 10
_CONFIGURATION = """\
daemon off;
worker_processes auto;
pid nginx.pid;
error_log error.log;
{user}
events {{ }}
http {{
    access_log access.log;
    sendfile on;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate localhost.crt;
        ssl_certificate_key localhost.key;
        root {root};
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class WebServer:
    """A server that runs."""

    url: str
    """Where it serves."""
    certificate: Path
    """What it shows, and is to be trusted."""
    log: Path
    """A line a request."""

    def count_requests(self) -> int:
        """Return how many requests have been answered."""
        return len(self.log.read_text().splitlines())


@contextmanager
def serve(root: Path, directory: Path | None) -> Iterator[WebServer]:
    """Serve ``root`` for a while; its own files are made below ``directory``."""
    nginx = _find("nginx")
    with tempfile.TemporaryDirectory(dir=directory) as made:
        work = Path(made)
        _make_certificate(work)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        user = "user root;" if Path("/proc/self").owner() == "root" else ""
        text = _CONFIGURATION.format(port=port, root=root.resolve(), user=user)
        (work / "nginx.conf").write_text(text, encoding="utf-8")
        command = [nginx, "-p", f"{work}/", "-c", "nginx.conf", "-e", "error.log"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                _wait_for(process, port)
                url = f"https://localhost:{port}"
                yield WebServer(url, work / "localhost.crt", work / "access.log")
            finally:
                process.terminate()


def _find(tool: str) -> str:
    path = shutil.which(tool) or shutil.which(tool, path="/usr/sbin")
    if path is None:
        print(f"{tool} is not installed: apt-get install {tool}", file=sys.stderr)
        raise SystemExit(CANNOT_MEASURE)
    return path


def _make_certificate(work: Path) -> None:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", "localhost.key", "-out", "localhost.crt"]
    command = [_find("openssl"), "req", "-x509", "-subj", "/CN=localhost", "-days", "2"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, *key, *names, *files], cwd=work, check=True, capture_output=True)


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"nginx does not answer: {process.args!r}")

"""nginx, Caddy and Apache on 127.0.0.1, configured by what docs/how-to/servers.md shows."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.clients.mirror_server import Certificate, free_port, wait_until_it_answers
from tests.support.documentation import CHECKOUT, DOMAIN, blocks_of
from tests.support.tools import needs

SERVERS = ("nginx", "caddy", "apache")
PAGE = CHECKOUT / "docs/how-to/servers.md"
ROOT = "/srv/images"
"""The directory that is served, in the documentation."""
USER, PASSWORD = "user", "secret"

_NGINX = """\
daemon off;
master_process off;  # no second user: the server reads what the tests may read
pid nginx.pid;
error_log error.log;
events {{ worker_connections 2048; }}
http {{
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log access.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
{shown}
}}
"""
_APACHE = """\
ServerRoot {work}
PidFile {work}/apache.pid
ErrorLog {work}/error.log
Listen 127.0.0.1:{port}
{modules}
TypesConfig /etc/mime.types
<Directory />
    AllowOverride None
    Require all denied
</Directory>
{user}
{shown}
"""
_APACHE_MODULES = (
    *("mpm_event", "authn_core", "authn_file", "auth_basic", "authz_core", "authz_user", "dir"),
    *("mime", "ssl", "socache_shmcb", "headers", "rewrite", "filter", "deflate"),
)


@contextmanager
def run_as_shown(
    server: str, root: Path, work: Path, certificate: Certificate, *, addition: str = ""
) -> Iterator[str]:
    """Serve ``root`` by the configuration that the page shows for a server; return the URL.

    Args:
        server: one of ``SERVERS``.
        root: the directory to serve.
        work: an empty directory for the server.
        certificate: what the server shows.
        addition: ``cdn`` or ``password``: what the page adds for that.
    """
    port = free_port()
    url = f"https://localhost:{port}"
    shown = _add(server, _find_block(f"serve: {server}"), addition, work)
    shown = shown.replace(ROOT, str(root))
    certificates = {
        "/etc/ssl/private/images.example.org.key": str(certificate.key),
        "/etc/ssl/images.example.org.crt": str(certificate.path),
    }
    if server == "caddy":
        # Without asking anybody for a certificate, and without a port for orders.
        values = {
            rf"(?m)^{DOMAIN} {{": f"{url} {{\n    tls {certificate.path} {certificate.key}",
            r"(?m)^{$": "{\n    admin off",
        }
        command, environment = _prepare_caddy(_with_values(shown, values), work)
    elif server == "nginx":
        values = {
            r"listen \[::\]:443 ssl;\n": "",
            r"listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
            rf"server_name {DOMAIN};": "server_name localhost;",
            **certificates,
        }
        command, environment = _prepare_nginx(_with_values(shown, values), work)
    else:
        values = {
            r"\*:443": f"127.0.0.1:{port}",
            rf"ServerName {DOMAIN}": "ServerName localhost",
            **certificates,
        }
        command, environment = _prepare_apache(_with_values(shown, values), work, port)
    log = work / "output.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=work, env=environment, stdout=output, stderr=output
        ) as process,
    ):
        try:
            wait_until_it_answers(process, url, certificate)
            assert list_ports(process.pid) == {port}, "it listens where the page says it does not"
            yield url
        finally:
            process.terminate()


def _find_block(mark: str) -> str:
    (found,) = [block.text for block in blocks_of(PAGE) if block.mark == mark]
    return found


def _add(server: str, shown: str, addition: str, work: Path) -> str:
    """Return a configuration with what the page says to add to it."""
    if not addition:
        return shown
    added = _find_block(f"{addition}: {server}")
    if addition == "password":
        passwords = work / "htpasswd"
        openssl = needs("openssl", "apt-get install openssl")
        words = [openssl, "passwd", "-apr1", PASSWORD]
        hashed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        passwords.write_text(f"{USER}:{hashed}\n")
        added = added.replace("/etc/ssl/private/images.htpasswd", str(passwords))
        if server == "caddy":
            words = ["caddy", "hash-password", "--plaintext", PASSWORD]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            added = added.replace("HASH", done.stdout.strip())
        if server == "apache":
            return _with_values(shown, {r"        Require method GET HEAD\n": added})
    if (server, addition) == ("caddy", "cdn"):
        shown = _with_values(shown, {r"    header @images .*\n": ""})
    *lines, last = shown.splitlines(keepends=True)
    return "".join([*lines, added, last])


def _with_values(text: str, values: Mapping[str, str]) -> str:
    """Replace each pattern, which must be in ``text``, by its value."""
    for pattern, value in values.items():
        text, count = re.subn(pattern, value.replace("\\", r"\\"), text)
        assert count, f"the configuration has no {pattern}"
    return text


_Started = tuple[list[str], dict[str, str]]


def _prepare_nginx(shown: str, work: Path) -> _Started:
    nginx = needs("nginx", "apt-get install nginx")
    (work / "nginx.conf").write_text(_NGINX.format(shown=shown), encoding="utf-8")
    return [nginx, "-p", f"{work}/", "-c", "nginx.conf", "-e", "error.log"], {}


def _prepare_caddy(shown: str, work: Path) -> _Started:
    caddy = needs("caddy", "apt-get install caddy")
    (work / "Caddyfile").write_text(shown, encoding="utf-8")
    words = [caddy, "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
    return words, {"PATH": os.environ["PATH"], "HOME": str(work)}


def _prepare_apache(shown: str, work: Path, port: int) -> _Started:
    apache = needs("apache2", "apt-get install apache2-bin media-types")
    directory = "/usr/lib/apache2/modules"
    modules = [f"LoadModule {n}_module {directory}/mod_{n}.so" for n in _APACHE_MODULES]
    # Root gives its rights up to a user who must be able to read what is served.
    user = "" if os.geteuid() else "User #65534\nGroup #65534"
    text = _APACHE.format(work=work, port=port, modules="\n".join(modules), user=user, shown=shown)
    (work / "apache.conf").write_text(text, encoding="utf-8")
    return [apache, "-X", "-f", str(work / "apache.conf")], {"PATH": os.environ["PATH"]}


def list_ports(pid: int) -> set[int]:
    """Return the TCP ports at which a process listens."""
    names = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has just been closed
            names.append(os.readlink(path))
    inodes = {name[8:-1] for name in names if name.startswith("socket:[")}
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in inodes:
                ports.add(int(local.rpartition(":")[2], 16))
    return ports

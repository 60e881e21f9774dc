"""What the real clients see of a bucket that ``fastindex push`` filled, through nginx."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.clients.image_maker import INCUS_METADATA, LXD_METADATA, SQUASHFS, ImageMaker
from tests.support.clients.mirror_server import Certificate, free_port, run_nginx
from tests.support.clients.real_clients import Client, Flavour
from tests.support.command import COMMAND
from tests.support.object_store import BUCKET, KEYS, serve_store

_SERVER = """\
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_protocols TLSv1.3;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location ~ /\\. {{ return 404; }}
        location / {{ proxy_pass http://127.0.0.1:{store}/{bucket}/mirror/; }}
    }}
"""


def test_clients_fetch_from_a_bucket(
    tmp_path: Path, maker: ImageMaker, certificate: Certificate, flavour: Flavour
) -> None:
    root, work = tmp_path / "mirror", tmp_path / "nginx"
    root.mkdir()
    work.mkdir()
    directory = maker.add_version(root, [INCUS_METADATA, LXD_METADATA, SQUASHFS])
    subprocess.run([COMMAND, "-q", root], timeout=60, check=True)
    with serve_store(tmp_path / "s3", is_open=True) as store:
        environment = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": store.endpoint}
        subprocess.run(
            [COMMAND, "push", "-q", root, f"s3://{BUCKET}/mirror"],
            env=environment,
            stdout=subprocess.DEVNULL,
            timeout=60,
            check=True,
        )
        port = free_port()
        url = f"https://localhost:{port}"
        server = _SERVER.format(
            port=port,
            certificate=certificate.path,
            key=certificate.key,
            store=store.port,
            bucket=BUCKET,
        )
        with run_nginx(server, url, work, certificate):
            home = tmp_path / "home"
            home.mkdir()
            client = Client(flavour, home, certificate.path)
            client.add_remote(url)
            (image,) = client.list_images()
            exported = client.export(image.fingerprint)
    assert {*exported.values()} <= {file.read_bytes() for file in directory.iterdir()}
    assert len(exported) == 2

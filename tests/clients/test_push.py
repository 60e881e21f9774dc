"""What the real clients see of a bucket that ``fastindex push`` filled, through nginx."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.clients.image_maker import INCUS_METADATA, LXD_METADATA, SQUASHFS, ImageMaker
from tests.support.clients.mirror_server import Certificate
from tests.support.clients.real_clients import Client, Flavour
from tests.support.command import COMMAND
from tests.support.object_store import KEYS, publish_store, serve_store


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
            [COMMAND, "push", "-q", root, store.url],
            env=environment,
            stdout=subprocess.DEVNULL,
            timeout=60,
            check=True,
        )
        with publish_store(store, work, certificate) as url:
            home = tmp_path / "home"
            home.mkdir()
            client = Client(flavour, home, certificate.path)
            client.add_remote(url)
            (image,) = client.list_images()
            exported = client.export(image.fingerprint)
    assert {*exported.values()} <= {file.read_bytes() for file in directory.iterdir()}
    assert len(exported) == 2

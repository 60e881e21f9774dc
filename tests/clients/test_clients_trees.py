"""What the real clients see of trees that grow, have settings, odd names, or are broken."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.support.clients.image_maker import (
    DISK,
    INCUS_METADATA,
    LXD_METADATA,
    NEWER,
    SQUASHFS,
    ImageMaker,
    Publish,
    fingerprint,
)
from tests.support.clients.mirror_server import Mirror
from tests.support.clients.real_clients import FLAVOURS, Client, Flavour, contents

FILES = (INCUS_METADATA, LXD_METADATA, SQUASHFS)


def test_the_alias_follows_the_newest_version(
    publish: Publish,
    flavour: Flavour,
    connect: Callable[[], Client],
) -> None:
    older = publish(FILES)
    older_fingerprint = fingerprint(older / flavour.metadata, older / SQUASHFS)
    assert older_fingerprint in connect().info("busybox/1.36")

    newer = publish(FILES, version=NEWER)
    newer_fingerprint = fingerprint(newer / flavour.metadata, newer / SQUASHFS)
    client = connect()

    listed = {image.fingerprint for image in client.list_images()}
    assert listed == {older_fingerprint, newer_fingerprint}
    exported = client.export("busybox/1.36")
    assert exported == contents(newer, flavour.metadata, SQUASHFS)
    exported = client.export(older_fingerprint)
    assert exported == contents(older, flavour.metadata, SQUASHFS)


def test_requirements_reach_the_client_that_they_are_for(
    maker: ImageMaker, mirror: Mirror, connect: Callable[[], Client], flavour: Flavour
) -> None:
    version = maker.add_version(mirror.root, [*FILES, DISK])
    for other in FLAVOURS.values():
        required = {"secureboot": "false" if other == flavour else "true"}
        (version.parent / other.requirements).write_text(json.dumps(required), encoding="utf-8")
    mirror.index()

    images = connect().list_images()

    assert [image.properties["requirements.secureboot"] for image in images] == ["false"] * 2


@pytest.mark.parametrize(
    "os_name", ["Ünïcode OS", "a b", "a#b", "a?b=c", "a+b", "a&b;c", "a@b", "~a", "日本"]
)
def test_an_odd_name_is_seen_and_exported(
    publish: Publish,
    flavour: Flavour,
    connect: Callable[[], Client],
    os_name: str,
) -> None:
    version = publish(FILES, product=f"{os_name}/1.36/amd64/default")

    client = connect()
    (image,) = client.list_images()
    exported = client.export(f"{os_name}/1.36")

    assert image.properties["os"] == os_name
    assert exported == contents(version, flavour.metadata, SQUASHFS)


def test_broken_neighbours_do_not_hurt_an_image(
    maker: ImageMaker,
    mirror: Mirror,
    flavour: Flavour,
    connect: Callable[[], Client],
) -> None:
    good = maker.add_version(mirror.root, FILES)
    rootless = maker.add_version(mirror.root, [INCUS_METADATA, LXD_METADATA], version=NEWER)
    alien = maker.add_version(mirror.root, FILES, product="busybox/1.36/pdp11/default")

    said = mirror.index(exit_code=3)
    client = connect()
    (image,) = client.list_images()
    exported = client.export("busybox/1.36")

    assert str(rootless.relative_to(mirror.root)) in said
    assert str(alien.parent.relative_to(mirror.root)) in said
    assert image.fingerprint == fingerprint(good / flavour.metadata, good / SQUASHFS)
    assert exported == contents(good, flavour.metadata, SQUASHFS)

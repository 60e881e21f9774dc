"""The parsers of strangers' bytes, one function each, and the properties that must hold.

Shared by ``tests.fuzz.parsers`` (atheris) and the tests (Hypothesis). A target raises
AssertionError if a property does not hold; any other exception is a fault as well.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import json
import lzma
import os
import re
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
from xxhash import xxh3_128_digest

from fastindex.catalogue import drafts
from fastindex.catalogue.published import open_catalogue
from fastindex.cli.output import escape_unprintable
from fastindex.errors import TreeError
from fastindex.events import Finding
from fastindex.formats.checksums import parse_checksums
from fastindex.formats.completeness import check_completeness
from fastindex.formats.content import HEAD_BYTES, detect_compression, find_fault
from fastindex.formats.filters import Filters, parse_filters
from fastindex.formats.image_metadata import (
    MetadataError,
    Naming,
    choose_place,
    parse_metadata_yaml,
)
from fastindex.formats.image_yaml import parse_image_yaml
from fastindex.formats.names import ProductName, classify, find_forbidden_character
from fastindex.formats.product_toml import parse_product_toml
from fastindex.formats.qcow2 import DiskError, check_disk
from fastindex.formats.requirements import parse_requirements
from fastindex.formats.settings import Settings
from fastindex.formats.simplestreams import (
    COMBINED_FIELD,
    Product,
    ProductFile,
    decode,
    encode,
    product_file_path,
)
from fastindex.formats.tar import TarballError
from fastindex.formats.tarball import MAX_METADATA_BYTES, inspect_tarball
from fastindex.formats.upstream import (
    UpstreamError,
    find_path_fault,
    parse_index,
    parse_products,
)
from fastindex.mirror import cache
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import known, snapshot, withdrawals
from fastindex.mirror.state.damage import DamagedFiles
from fastindex.mirror.tree import FoundFile, FoundProduct, FoundVersion
from fastindex.operations import plan
from fastindex.operations.pull.mapping import MappedProduct, map_products, map_version
from fastindex.operations.pull.settings import (
    find_pulled_lxd_requirements,
    is_pulled,
    make_settings,
)
from fastindex.system.stamps import Stamp
from tests.support.builders import METADATA
from tests.support.contents import make_disk, make_qcow2
from tests.support.trees import OLD_NS
from tests.support.upstreams import canonical_product, flat_product, index_json, product_json

VERSION = "images/debian/12/amd64/default/20240505_05:24"
HEX = "0123456789abcdef" * 4
_MAX_FINDINGS = 500
_directory = tempfile.TemporaryDirectory()
HERE = Path(_directory.name)


@dataclass(frozen=True)
class Target:
    """A parser, and the inputs to start with."""

    check: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]


def _written(content: bytes, name: str) -> str:
    path = HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def check_cache(content: bytes) -> None:
    """A cache yields well-formed digests of the version's own files, or nothing."""
    path = _written(content, f"{VERSION}/.items.json")
    os.utime(path, ns=(OLD_NS + 10**10, OLD_NS + 10**10))
    cached = cache.load(Mirror.at(HERE), VERSION)
    files = tuple(
        FoundFile(name, role, Stamp(5, OLD_NS, 1, number))
        for number, name in enumerate(("incus.tar.xz", "lxd.tar.xz", "rootfs.squashfs"))
        if (role := classify(name))
    )
    product = FoundProduct("images", ProductName("debian", "12", "amd64", "default"), "", ())
    version = FoundVersion("20240505_05:24", VERSION, files)
    selection, _ = plan.select(version, frozenset())
    planned = plan.plan_version(product, version, selection, cached)
    for name, item in planned.items.items():
        assert item.path.endswith("/" + name)
        assert item.size == 5
        combined = [getattr(item, field) for field in COMBINED_FIELD.values()]
        for digest in (item.sha256, item.blake3, combined[0]):
            assert not digest or re.fullmatch("[0-9a-f]{64}", digest)
    items, findings = plan.merge(planned, {})
    assert not findings
    for name, item in items.items():
        assert item.path.rpartition("/")[2] == name
    encode(items)


def _check_settings(settings: Settings, findings: list[Finding]) -> None:
    """The settings can be encoded, and their length is bounded."""
    encoded = msgspec.json.encode(settings)
    assert msgspec.json.decode(encoded, type=Settings) == settings
    assert len(encoded) < 200_000
    texts = [settings.os, settings.release_title, settings.label, settings.version]
    texts += [*settings.requirements, *settings.requirements.values()]
    for text in texts:
        assert text is None or (text.isprintable() and len(text) <= 255)
    for alias in settings.aliases or ():
        assert alias
        assert find_forbidden_character(alias) is None
    _check_findings(findings)


def _check_findings(findings: list[Finding]) -> None:
    assert len(findings) <= _MAX_FINDINGS
    for finding in findings:
        assert escape_unprintable(finding.problem).isprintable()
        assert finding.remedy


def check_requirements(content: bytes) -> None:
    """The requirements are few, short, printable strings."""
    for is_for_lxd in (False, True):
        values, findings = parse_requirements(".requirements", content, is_for_lxd=is_for_lxd)
        _check_settings(Settings(requirements=values), findings)


def check_product_toml(content: bytes) -> None:
    """The settings have the catalogue's types and are bounded."""
    _check_settings(*parse_product_toml(".product.toml", content))


def check_image_yaml(content: bytes) -> None:
    """The settings have the catalogue's types and are bounded."""
    _check_settings(*parse_image_yaml(f"{VERSION}/image.yaml", content))


def check_metadata_yaml(content: bytes) -> None:
    """An image is refused, or its place has five valid names that lead nowhere else."""
    try:
        metadata = parse_metadata_yaml(content)
        found = choose_place(metadata, Naming())
    except MetadataError:
        return
    names = (*found.product.directory.split("/"), found.version)
    assert len(names) == 5
    for name in names:
        assert name[0] != "."
        assert find_forbidden_character(name) is None
        assert len(os.fsencode(name)) < 255


def check_tarball(content: bytes) -> None:
    """A tarball is refused, or inspected and checked; its metadata is bounded."""
    path = _written(content, "tarball")
    compression = detect_compression(content[:HEAD_BYTES])
    if compression is not None:
        with suppress(TarballError):
            check_completeness(path, compression)
    try:
        contents = inspect_tarball(path)
    except TarballError:
        return
    assert len(contents.metadata_yaml or b"") <= MAX_METADATA_BYTES


def check_qcow2(content: bytes) -> None:
    """A disk is refused, or checked to its end."""
    role = classify("disk.qcow2")
    assert role is not None
    if find_fault(role, content[:HEAD_BYTES], len(content)) is None:
        with suppress(DiskError):
            check_disk(_written(content, "disk"))


def check_tar(content: bytes) -> None:
    """As ``check_tarball``, with the headers' checksums corrected, so that more code is reached."""
    check_tarball(with_checksums(content))


def with_checksums(content: bytes) -> bytes:
    """Return ``content`` with a correct checksum in each block that could be a header."""
    corrected = bytearray(content[: 64 << 10])
    corrected[257:262] = b"ustar"
    for start in range(0, len(corrected) - 511, 512):
        block = corrected[start : start + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            corrected[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    return bytes(corrected)


def check_catalogue(content: bytes) -> None:
    """A catalogue is read, or its faults are named."""
    index = json.dumps(
        {
            "format": "index:1.0",
            "index": {
                "images": {
                    "datatype": "image-downloads",
                    "format": "products:1.0",
                    "path": product_file_path("images"),
                    "products": ["debian:12:amd64:default"],
                }
            },
        }
    )
    _written(index.encode(), "streams/v1/index.json")
    path = _written(content, product_file_path("images"))
    with open_catalogue(str(HERE)) as published:
        products = {key: product for _, key, product in published.products()}
        assert all(product == products[key] for _, key, product in published.sorted_products())
    for fault in published.mismatches:
        assert escape_unprintable(fault.problem).isprintable()
    with suppress(msgspec.DecodeError, UnicodeError):
        document = decode(content, ProductFile)
        assert document.products == products
        assert decode(encode(document), ProductFile) == document
        assert _read_by_product(path) == document.products
    _read_by_product(path)
    _written(content, "streams/v1/index.json")
    with suppress(TreeError), open_catalogue(str(HERE)):
        pass


def _read_by_product(path: str) -> dict[str, Product | None]:
    """Return the products of a product file as a build reads them."""
    file = drafts.open_published(path)
    if file is None:
        return {}
    with file:
        return {key: drafts.read_published(file, key) for key in list(file.keys)}


def check_state(content: bytes) -> None:
    """The state of an earlier run is read or stops this one.

    A snapshot and what is known of products are read, or count as missing.
    """
    mirror = Mirror.at(HERE)
    for name in (".withdrawn.json", ".damaged.json", ".snapshot.json"):
        _written(content, f"streams/{name}")
    with suppress(TreeError):
        withdrawals.load(mirror)
    with suppress(TreeError):
        DamagedFiles(mirror)
    last = snapshot.load(mirror)
    assert last is None or isinstance(last, snapshot.Snapshot)
    for data in (content, xxh3_128_digest(content) + content):
        _written(data, "streams/.products-images.state")
        assert not known.load(mirror, b"", {}).streams


def check_checksums(content: bytes) -> None:
    """Each file has 64 lowercase digits; what is not understood is a problem that can be shown."""
    checksums = parse_checksums(content)
    for digest in checksums.digests.values():
        assert re.fullmatch("[0-9a-f]{64}", digest)
    assert checksums.digests or checksums.problem
    assert escape_unprintable(checksums.problem).isprintable()
    assert len(checksums.problem) < 300


def check_upstream(content: bytes) -> None:
    """An upstream is refused, or all that is made of it stays in its place."""
    with suppress(UpstreamError):
        for entry in parse_index(content, "index").entries:
            assert not find_path_fault(entry.path)
    filters = parse_filters(["os~. type=container", "arch=arm64,amd64"])
    for chosen in (Filters(), filters):
        try:
            read = parse_products(content, "images", "file", chosen)
        except UpstreamError:
            continue
        mapped, refusals = map_products(read.products)
        for refusal in (*read.refusals, *refusals):
            assert escape_unprintable(refusal.reason).isprintable()
            assert len(refusal.reason) < 1000
        for one in mapped:
            _check_mapped(one)
    filters.find_unused()


def _check_mapped(one: MappedProduct) -> None:
    _check_names(one.place.path, 5)
    settings = make_settings(one.product, one.place)
    if settings.product_toml is not None:
        assert is_pulled(settings.product_toml)
        assert find_pulled_lxd_requirements(settings.product_toml) == settings.lxd_requirements
        read, findings = parse_product_toml(".product.toml", settings.product_toml)
        _check_settings(read, findings)
        assert all("no client enforces" in finding.problem for finding in findings)
    for version in one.product.versions.values():
        place = map_version(one.place, version)
        if isinstance(place, str):
            assert len(place) < 1000
            continue
        _check_names(place.path, 6)
        assert len({file.name for file in place.files}) == len(place.files)
        for file in place.files:
            _check_names(file.name, 1)
            assert classify(file.name)
            assert not find_path_fault(file.path)
            assert 0 <= file.size_bytes <= 1 << 40
            for digest in (file.sha256, *file.fingerprints.values()):
                assert re.fullmatch("[0-9a-f]{64}", digest)


def _check_names(path: str, depth: int) -> None:
    names = path.split("/")
    assert len(names) == depth
    for name in names:
        assert name[0] != "."
        assert find_forbidden_character(name) is None
        assert len(os.fsencode(name)) < 255


def _cache_seeds() -> list[bytes]:
    item = {"ftype": "squashfs", "path": f"{VERSION}/rootfs.squashfs", "size": 5, "sha256": HEX}
    metadata = {
        **item,
        "ftype": "incus.tar.xz",
        "path": f"{VERSION}/incus.tar.xz",
        "combined_squashfs_sha256": HEX,
        "key": Stamp(5, OLD_NS, 1, 1).key,
        "blake3": HEX,
    }
    document = {"incus.tar.xz": metadata, "rootfs.squashfs": item}
    return [
        json.dumps(document).encode(),
        b"{}",
        b"[" * 5000,
        b'{"a":NaN}',
        b'{"a":{"size":1e999}}',
    ]


def _requirements_seeds() -> list[bytes]:
    return [
        b'{"secureboot": "false"}',
        b'{"nesting": true, "a": 1.5, "b": -99999999999999999999999}',
        b'{"a":NaN}',
        b'{"a":"1","a":"2"}',
        b'"\\ud800"',
        json.dumps({f"k{number}": "v" for number in range(100)}).encode(),
    ]


def _toml_seeds() -> list[bytes]:
    return [
        b'os = "Debian"\nrelease_title = "12"\nsupport_eol = 2028-06-30\nsupported = true\n'
        b'aliases = ["{os}/{arch}", "b"]\nreplace_aliases = false\n[requirements]\nnesting = "1"\n',
        b"a=" + b"9" * 5000,
        b"requirements = {a = 0x" + b"f" * 6000 + b"}",
        b"[a.b.c]\nd.e = 1979-05-27T07:32:00Z\n[[x]]\n",
        b"os = \"\\u0000\"\n'q' = '''x'''\n",
        b"requirements = {a = inf, b = nan, c = 1e999}",
    ]


def _image_yaml_seeds() -> list[bytes]:
    return [
        b"simplestream:\n  distro_name: Debian\n  release_aliases: {12: 'bookworm,stable'}\n"
        b"  requirements:\n  - requirements: {secureboot: false}\n    releases: [12]\n",
        b"a: &a [x]\nb: [*a, *a]\n<<: *a\n",
        b"simplestream: !!python/object:os.system {}\n",
        b"? [a, b]\n: c\n",
        b'simplestream: {distro_name: "\\uD800\\0"}\n',
        "simplestream: {distro_name: é}".encode("utf-16"),
    ]


def _metadata_seeds() -> list[bytes]:
    return [
        METADATA.encode(),
        METADATA.replace("debian", "../../x").encode(),
        METADATA.replace("1_714_886_640", "9" * 30).encode(),
        b"architecture: x86_64\ncreation_date: 0o17\nproperties: {os: a, release: 1}\n",
        b"architecture: x86_64\ncreation_date: 2024-05-05\nproperties: {os: '', release: ~}\n",
    ]


class Bytes:
    """Bytes in memory, as a ``tar.Stream``."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._offset = 0

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int) -> int:
        self._offset = min(offset, len(self._content))
        return self._offset

    def read(self, size: int) -> bytes:
        piece = self._content[self._offset : self._offset + size]
        self._offset += len(piece)
        return piece


def plain_tarballs() -> Iterator[bytes]:
    """Yield tarballs of both formats, each with every kind of member."""
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=form) as tar:
            long = "x" * 120 if form != tarfile.USTAR_FORMAT else "x/" * 60
            for name, content in (
                (f"templates/é{long}", b"a"),
                ("metadata.yaml", METADATA.encode()),
                ("rootfs/etc/hostname", b"here\n"),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            for kind in (tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE):
                member = tarfile.TarInfo("/../special")
                member.type, member.linkname = kind, "/etc/shadow"
                tar.addfile(member)
        yield packed.getvalue()
    sparse = tarfile.TarInfo("metadata.yaml")
    sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "rootfs", "size": "3"}
    yield sparse.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


def zstd(content: bytes) -> bytes:
    """Compress as ``zstd`` does."""
    if sys.version_info >= (3, 14):
        from compression import zstd as library
    else:
        from backports import zstd as library

    compressed: bytes = library.compress(content)
    return compressed


def compress_lzma(content: bytes) -> bytes:
    """Compress as ``xz --format=lzma`` does."""
    return lzma.compress(content, lzma.FORMAT_ALONE)


def store_lz4(content: bytes) -> bytes:
    """Return an LZ4 frame of one block that is not compressed."""
    size = (len(content) | 1 << 31).to_bytes(4, "little")
    return b"\x04\x22\x4d\x18\x60\x70\x73" + size + content + bytes(4)


@functools.cache
def _tarball_seeds() -> list[bytes]:
    plain = next(plain_tarballs())
    compress = (lzma.compress, compress_lzma, gzip.compress, bz2.compress, zstd, store_lz4)
    return [*plain_tarballs(), *(one(plain) for one in compress), gzip.compress(b"") + plain]


def _qcow2_seeds() -> list[bytes]:
    copied, compressed, data = 1 << 63, 1 << 62, 2560
    words = [copied | data, data + 512 | 1, 0, compressed | 1 << 61 | data + 1000]
    return [
        make_disk(words, data_bytes=2048),
        make_disk(words, [2048, 0, copied | 2048], data_bytes=600, version=2),
        make_disk([copied | data, 7, 0, 1 << 32], data_bytes=512, features=1 << 4),
        make_qcow2(b"salt"),
    ]


def _catalogue_seeds() -> list[bytes]:
    item = {"ftype": "squashfs", "path": f"{VERSION}/rootfs.squashfs", "size": 5, "sha256": HEX}
    product = {
        "aliases": "a,b",
        "arch": "amd64",
        "os": "debian",
        "release": "12",
        "release_title": "12",
        "variant": "default",
        "requirements": {"nesting": "1"},
        "versions": {"20240505_05:24": {"items": {"rootfs.squashfs": item}, "label": "l"}},
    }
    document = {
        "content_id": "images",
        "datatype": "image-downloads",
        "format": "products:1.0",
        "products": {"debian:12:amd64:default": product},
    }
    encoded = json.dumps(document).encode()
    return [
        encoded,
        encoded.replace(b": 5", b': "5"'),
        encoded.replace(b'"a,b"', b'["a"]'),
        encoded.replace(b"debian:12", b"debian"),
        b'{"format":"index:1.0","index":{"images":{"datatype":"image-downloads",'
        b'"format":"products:1.0","path":"streams/v1/../x","products":["a"]}}}',
        b"[" * 5000,
    ]


def _state_seeds() -> list[bytes]:
    return [
        b'{"images/a/b/c/d/20240505":{"unpublished_at":1.5,"files":["a"],"is_asked_for":true}}',
        b'{"images/a":"key"}',
        b'{"state":"a","published":"b","products":1,"versions":1,"files":1,"findings":'
        b'[{"path":"a","problem":"b","remedy":"c"}]}',
        b"[" * 5000,
    ]


def _checksums_seeds() -> list[bytes]:
    line = HEX.encode()
    return [
        line + b"  *./a b\n",
        b"SHA256 (./a) = " + line + b"\n",
        line + b" x" + b" " * 99 + b"y",
        b"\\" + line + b"  a\\nb\nSHA2-256(a)= " + line + b"\r\n",
        b"\xef\xbb\xbf" + line + b"  a\n" + line.upper() + b"  ./a\n",
        f"{HEX}  a\n".encode("utf-16"),
    ]


def _upstream_seeds() -> list[bytes]:
    own, flat, canonical = _catalogue_seeds()[0], flat_product(), canonical_product()
    names = [b"20240505", b"debian:12:amd64", b"images/", b"delta", b"x86_64"]
    lxd = {**canonical[1], "lxd_requirements": {"nesting": "true"}}
    changed = {**lxd, "os": "..", "aliases": "a{os},%,\0" + ",b" * 200}
    both = product_json({flat[0]: flat[1], canonical[0]: canonical[1], "x": lxd, "y": changed})
    entry = {"datatype": "image-downloads", "path": "streams/v1/images.json", "products": ["a"]}
    return [
        own,
        product_json(dict([flat])),
        product_json(dict([canonical])),
        both,
        *(both.replace(name, b"../") for name in names),
        index_json({"images": entry, "a:b": {**entry, "path": "../x"}}, updated="now"),
        b'{"products":' * 5000,
        bytes(100),
        b"<html>",
    ]


TARGETS = {
    "cache": Target(check_cache, _cache_seeds),
    "requirements": Target(check_requirements, _requirements_seeds),
    "product_toml": Target(check_product_toml, _toml_seeds),
    "image_yaml": Target(check_image_yaml, _image_yaml_seeds),
    "metadata_yaml": Target(check_metadata_yaml, _metadata_seeds),
    "tarball": Target(check_tarball, _tarball_seeds),
    "qcow2": Target(check_qcow2, _qcow2_seeds),
    "tar": Target(check_tar, lambda: list(plain_tarballs())),
    "catalogue": Target(check_catalogue, _catalogue_seeds),
    "state": Target(check_state, _state_seeds),
    "checksums": Target(check_checksums, _checksums_seeds),
    "upstream": Target(check_upstream, _upstream_seeds),
}

"""A copy of a mirror is byte for byte the same catalogue, whatever its settings say."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastindex import Mirror
from fastindex.formats.names import find_forbidden_character
from tests.support.trees import Files, in_stream, version, write_tree
from tests.support.upstreams import copy_tree

TREE: Files = {
    **version("debian/12/amd64/default/20240505_05:24"),
    **version("debian/12/amd64/default/20240506_05:24"),
    "images/debian/12/amd64/default/20240506_05:24/lxd.tar.xz": b"lxd",
    "images/debian/12/amd64/default/20240506_05:24/disk.qcow2": b"disk",
    "images/debian/12/amd64/default/20240506_05:24/rootfs.20240505_05:24.vcdiff": b"delta",
    **version("debian/12/x86_64_v3/default/20240505", root_tar_gz=b"r", incus_tar_gz=b"i"),
    "images/debian/current/arm64/cloud/20240505/lxd_combined.tar.xz": b"unified",
    **version("debian/current/aarch64/default/20240505", uefi1_img=b"u", incus_tar=b"i"),
}
PRODUCTS = sorted({path.rsplit("/", 2)[0] for path in TREE})


def fit(text: str, forbidden: str = "") -> str:
    """Return what settings may say, made of ``text``."""
    return "".join(c for c in text if c.isprintable() and c not in forbidden).strip() or "x"


def fit_alias(text: str) -> str:
    return "".join(c for c in fit(text, "{}") if find_forbidden_character(c) is None)


texts = st.text(max_size=255).map(fit)
aliases = st.lists(
    st.lists(
        st.one_of(
            st.text(max_size=80).map(fit_alias),
            st.sampled_from(["{os}", "{release}", "{arch}", "{variant}", "debian/12", "a.b"]),
        ),
        max_size=4,
    ).map(lambda parts: fit("".join(parts))),
    max_size=8,
)
short_texts = st.text(max_size=20).map(fit)
requirements = st.dictionaries(short_texts, short_texts)
product_settings = st.fixed_dictionaries(
    {},
    optional={
        "os": texts,
        "release_title": texts,
        "release_codename": texts,
        "version": texts,
        "label": texts,
        "support_eol": st.dates().map(str),
        "supported": st.booleans(),
        "aliases": aliases,
        "replace_aliases": st.booleans(),
        "requirements": requirements,
        "lxd_requirements": requirements,
    },
)


def quote(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f").replace(".", "\\u002e")


def write_settings(directory: Path, chosen: dict[str, object]) -> None:
    lines = [
        f"{key} = {quote(value)}"
        for key, value in chosen.items()
        if key not in ("requirements", "lxd_requirements")
    ]
    wanted = chosen.get("requirements")
    if isinstance(wanted, dict):
        lines += ["[requirements]"]
        lines += [f"{quote(key)} = {quote(text)}" for key, text in wanted.items()]
    (directory / ".product.toml").write_text("\n".join(lines), encoding="utf-8")
    if "lxd_requirements" in chosen:
        (directory / ".lxd_requirements").write_text(json.dumps(chosen["lxd_requirements"]))


def read_catalogue(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "streams/v1").glob("*.json"))}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*PRODUCTS, "images/debian"]), product_settings))
@example({PRODUCTS[0]: {"aliases": ["." * 250 + str(number) for number in range(10)]}})
@example({PRODUCTS[0]: {"aliases": ["debian/12"], "replace_aliases": True}})
@example({PRODUCTS[0]: {"replace_aliases": True}})
@example({PRODUCTS[0]: {"lxd_requirements": {"." * 200: "." * 250}}})
def test_a_copy_is_the_same_catalogue(chosen: dict[str, dict[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory) / "source", Path(directory) / "target"
        write_tree(source, TREE)
        for path, values in chosen.items():
            write_settings(source / path, values)
        assert Mirror(source).build(jobs=1).versions == 5
        copy_tree(source, target)
        assert Mirror(target).build(jobs=1).versions == 5
        assert read_catalogue(target) == read_catalogue(source)


def test_a_copy_has_the_same_streams(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    write_tree(source, TREE)
    write_tree(source, in_stream("daily", version("debian/12/amd64/default/20240507")))
    streams = ("images", "daily")
    assert Mirror(source, streams=streams).build(jobs=1).versions == 6
    copy_tree(source, target)
    assert Mirror(target, streams=streams).build(jobs=1).versions == 6
    assert read_catalogue(target) == read_catalogue(source)
    assert sorted(read_catalogue(source)) == ["daily.json", "images.json", "index.json"]

"""The published catalogue, read to its end whatever is wrong with it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.catalogue import published as published_module
from fastindex.catalogue.published import (
    Mismatch,
    open_catalogue,
    read_published_directories,
    read_published_paths,
)
from fastindex.errors import Code, TreeError
from fastindex.formats.rejected_catalogue import decode_rejected
from fastindex.formats.simplestreams import (
    DATATYPE,
    PRODUCTS_FORMAT,
    UNDECODABLE,
    Index,
    IndexEntry,
    Product,
    ProductFile,
    decode,
    encode,
    product_file_path,
)
from tests.support.catalogues import KEY, container, product, product_file
from tests.support.trees import write_tree

INDEX, IMAGES = "streams/v1/index.json", "streams/v1/images.json"


def make_entry(path: str, keys: list[str]) -> IndexEntry:
    return IndexEntry(datatype=DATATYPE, format=PRODUCTS_FORMAT, path=path, products=keys)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return an output directory with two versions published in each of two streams."""
    entries: dict[str, IndexEntry] = {}
    for stream in ("daily", "images"):
        where = {name: container(path=f"{stream}/{name}") for name in ("20240505", "20240506")}
        path = product_file_path(stream)
        file = product_file({KEY: product(where)}, stream)
        write_tree(tmp_path, {path: encode(file)})
        entries[stream] = make_entry(path, [KEY])
    write_tree(tmp_path, {INDEX: encode(Index(index=entries))})
    return tmp_path


def edit(output: Path, path: str, change: dict[str, Any], *keys: str) -> None:
    """Update the object at ``keys`` in a catalogue file."""
    document = json.loads((output / path).read_bytes())
    place = document
    for key in keys:
        place = place[key]
    place.update(change)
    write_tree(output, {path: json.dumps(document).encode()})


def read_files(output: Path) -> tuple[list[ProductFile], list[Mismatch]]:
    """Return what can be read of the product files, and what is wrong with them."""
    with open_catalogue(str(output)) as published:
        files = {file.stream: dict[str, Product]() for file in published.files}
        for stream, key, entry in published.products():
            files[stream][key] = entry
        assert [list(files[file.stream]) for file in published.files] == [
            list(file.keys) for file in published.files
        ]
        in_order = [(stream, key) for stream, key, _ in published.sorted_products()]
        assert in_order == [(stream, key) for stream in files for key in sorted(files[stream])]
        return [product_file(files[stream], stream) for stream in files], published.mismatches


def read(output: Path) -> tuple[list[str], list[tuple[str, str]]]:
    files, mismatches = read_files(output)
    assert not any(mismatch.file for mismatch in mismatches)
    return [file.content_id for file in files], [(m.version, m.problem) for m in mismatches]


def test_a_good_catalogue_is_read_in_the_order_of_its_index(output: Path) -> None:
    assert read(output) == (["daily", "images"], [])


@pytest.mark.parametrize(
    ("change", "streams", "problem"),
    [
        ({"datatype": "image-ids"}, ["daily"], "clients skip the stream 'images'"),
        ({"datatype": ""}, ["daily"], "clients skip the stream 'images'"),
        ({"format": "products:2.0"}, ["daily", "images"], "clients skip the stream 'images'"),
        ({"path": "/etc/passwd"}, ["daily"], "its path '/etc/passwd' leads out of the mirror"),
        ({"path": "a/../../x"}, ["daily"], "its path 'a/../../x' leads out of the mirror"),
        ({"path": "none.json"}, ["daily"], "cannot be read (No such file or directory)"),
        ({"products": []}, ["daily"], "clients skip the stream 'images': the index names none of"),
    ],
)
def test_what_is_wrong_in_the_index_is_told(
    output: Path, change: dict[str, Any], streams: list[str], problem: str
) -> None:
    edit(output, INDEX, change, "index", "images")
    found, ((_, told),) = read(output)
    assert found == streams
    assert told.startswith(problem)


MORE: dict[str, dict[str, Any]] = {f"a:{number}:b:c": {} for number in range(2)}


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ([KEY, "a:b:c:d"], "lacks the product a:b:c:d, which the index names; run fastindex ROOT"),
        (["b:b:b:b", "a:b:c:d"], "lacks 2 products that the index names, such as a:b:c:d; run"),
    ],
)
def test_a_product_that_only_the_index_names_is_lost(
    output: Path, keys: list[str], problem: str
) -> None:
    edit(output, INDEX, {"products": keys}, "index", "images")
    with open_catalogue(str(output)) as published:
        pass
    assert [file.stream for file in published.files] == ["daily", "images"]
    (lost,) = published.mismatches
    assert (lost.code, lost.version, lost.file) == (Code.PRODUCT_LOST, IMAGES, "")
    assert lost.problem.startswith(problem)
    assert read_published_paths(str(output)) is None  # what it had may be published, too


def test_a_file_that_lost_all_of_its_products_is_damaged(output: Path) -> None:
    document = json.loads((output / IMAGES).read_bytes())
    write_tree(output, {IMAGES: json.dumps({**document, "products": {}}).encode()})
    streams, ((where, told),) = read(output)
    assert (streams, where) == (["daily", "images"], IMAGES)
    assert told.startswith(f"lacks the product {KEY}, which the index names")


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["a:0:b:c"], "has the product a:0:b:c, which the index does not name; clients see it"),
        ([*MORE], "has 2 products that the index does not name, such as a:0:b:c; clients see them"),
    ],
)
def test_a_product_that_the_index_does_not_name_is_no_damage(
    output: Path, more: list[str], problem: str
) -> None:
    """As a run leaves it that is killed before it writes the index."""
    edit(output, IMAGES, {key: MORE[key] for key in more}, "products")
    with open_catalogue(str(output)) as published:
        pass
    assert published.mismatches == []
    (finding,) = published.findings
    assert (finding.code, finding.path) == (Code.INDEX_OUTDATED, IMAGES)
    assert finding.problem.startswith(problem)
    assert read_published_paths(str(output)) is not None


@pytest.mark.parametrize("is_lasting", [True, False])
def test_a_build_beside_it_is_no_damage(
    output: Path, monkeypatch: pytest.MonkeyPatch, is_lasting: bool
) -> None:
    """It reads the index, then a build writes all files, then it reads the product files."""
    document = json.loads((output / IMAGES).read_bytes())
    other = {"a:b:c:d": document["products"][KEY]}
    new = json.dumps({**document, "products": other}).encode()
    check_file = published_module._check_stream

    def build(stream: str, path: str, *rest: Any) -> Any:
        if path == IMAGES and not (output / "built").exists():
            write_tree(output, {IMAGES: new, "built": b""})
            if not is_lasting:
                edit(output, INDEX, {"products": [*other]}, "index", "images")
        return check_file(stream, path, *rest)

    monkeypatch.setattr(published_module, "_check_stream", build)
    with open_catalogue(str(output)) as published:
        keys = [key for stream, key, _ in published.products() if stream == "images"]
    assert keys == ["a:b:c:d"]
    assert [one.code for one in published.mismatches] == [Code.PRODUCT_LOST] * is_lasting


def test_a_field_that_is_missing_or_null_is_an_empty_one(output: Path) -> None:
    document = json.loads((output / IMAGES).read_bytes())
    (entry,) = document["products"].values()
    for field in ("aliases", "requirements", "release_title", "variant"):
        del entry[field]
    (new,) = [entry["versions"][name] for name in ("20240506",)]
    entry["requirements"] = None
    del new["items"]["squashfs"]["size"], new["items"]["lxd.tar.xz"]
    entry["versions"]["20240505"] = {}
    del document["datatype"], document["format"], document["content_id"]
    write_tree(output, {IMAGES: json.dumps(document).encode()})
    assert read(output) == (["daily", "images"], [])
    (product_read,) = read_files(output)[0][1].products.values()
    assert (product_read.aliases, product_read.requirements) == ("", {})
    assert product_read.versions["20240505"].items == {}
    assert product_read.versions["20240506"].items["squashfs"].size == 0


@pytest.mark.parametrize("missing", ["datatype", "format", "path", "products"])
def test_an_entry_that_lacks_a_field_is_told(output: Path, missing: str) -> None:
    document = json.loads((output / INDEX).read_bytes())
    del document["index"]["images"][missing]
    write_tree(output, {INDEX: json.dumps(document).encode()})
    assert len(read(output)[1]) == 1


def test_two_product_files_of_one_basename_are_told(output: Path) -> None:
    write_tree(output, {"other/daily.json": (output / IMAGES).read_bytes()})
    edit(output, INDEX, {"path": "other/daily.json"}, "index", "images")
    _, ((where, told),) = read(output)
    assert where == INDEX
    assert told == (
        "clients mistake other/daily.json for streams/v1/daily.json: they cache files by basename"
    )


def test_a_value_of_a_wrong_type_costs_its_version_only(output: Path) -> None:
    edit(output, IMAGES, {"label": 5}, "products", KEY, "versions", "20240505")
    files, (mismatch,) = read_files(output)
    assert mismatch.version == "images/debian/12/amd64/default/20240505"
    assert mismatch.problem.startswith("clients reject the whole catalogue because of it: ")
    assert list(files[1].products[KEY].versions) == ["20240506"]


FAULTS: st.SearchStrategy[Any] = st.sampled_from(
    [5, None, [], "x", {}, {"label": 5}, {"items": {}}]
)
PLACES = st.sampled_from(
    [
        (),
        ("versions",),
        ("versions", "20240505"),
        ("versions", "20240505", "items"),
        ("versions", "20240506", "items", "squashfs", "size"),
        ("aliases",),
        ("unknown",),
    ]
)


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["a:1:b:c", KEY, "", 'x"}}']), PLACES), FAULTS, max_size=4
    ),
    st.booleans(),
)
def test_of_a_rejected_file_all_is_read_that_is_sound(
    tmp_path_factory: pytest.TempPathFactory,
    faults: dict[tuple[str, tuple[str, ...]], Any],
    is_compact: bool,
) -> None:
    where = {name: container(path=f"images/{name}") for name in ("20240505", "20240506")}
    products = dict.fromkeys(("a:1:b:c", KEY, "", 'x"}}'), product(where))
    document = json.loads(encode(product_file(products)))
    for (key, path), fault in faults.items():
        above, place = document["products"], key
        for name in path:
            if not isinstance(above[place], dict) or (
                name != path[-1] and name not in above[place]
            ):
                break
            above, place = above[place], name
        above[place] = copy.deepcopy(fault)
    separators = (",", ":") if is_compact else None
    data = json.dumps(document, separators=separators).encode() + b"\n"
    output = tmp_path_factory.mktemp("output")
    entry = make_entry(IMAGES, list(products))
    write_tree(output, {IMAGES: data, INDEX: encode(Index(index={"images": entry}))})
    try:
        sound: ProductFile | None = decode(data, ProductFile)
        reasons = []
    except UNDECODABLE:
        sound, rejections = decode_rejected("images", data)
        reasons = [rejection.reason for rejection in rejections]
    files, mismatches = read_files(output)
    assert files == ([] if sound is None else [sound])
    # One that is null is none, although the index names it.
    rejected = [one for one in mismatches if one.code is not Code.PRODUCT_LOST]
    assert [one.problem.partition(": ")[2] for one in rejected] == reasons


def test_a_file_that_is_changed_in_its_place_meanwhile_is_an_error(output: Path) -> None:
    with open_catalogue(str(output)) as published:
        data = (output / IMAGES).read_bytes()
        with (output / IMAGES).open("r+b") as file:
            file.write(b"x" * len(data))
        with pytest.raises(OSError, match="changed while it was read"):
            list(published.products())


def test_a_product_that_is_not_one_is_told_once(output: Path) -> None:
    edit(output, IMAGES, {KEY: 5}, "products")
    found, ((where, told),) = read(output)
    assert (found, where) == (["daily", "images"], IMAGES)
    assert told == f"clients reject it because of {KEY}: Expected `object`, got `int`"


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 100, b'{"format": "index:2.0"}'])
def test_a_torn_index_is_told(output: Path, content: bytes) -> None:
    write_tree(output, {INDEX: content})
    streams, ((where, told),) = read(output)
    assert (streams, where) == ([], INDEX)
    assert told.startswith("clients reject it: ")


def test_without_an_index_there_is_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match=r"index\.json: cannot read the catalogue \(No such file"):
        read_files(tmp_path)
    assert read_published_paths(str(tmp_path)) == set()


def test_paths_are_those_of_files_and_versions(output: Path) -> None:
    versions = {f"{s}/{v}" for s in ("daily", "images") for v in ("20240505", "20240506")}
    files = {f"{v}/{f}" for v in versions for f in ("incus.tar.xz", "lxd.tar.xz", "squashfs")}
    assert read_published_paths(str(output)) == versions | files
    assert read_published_directories(str(output)) == versions


@pytest.mark.parametrize("path", [INDEX, IMAGES])
@pytest.mark.parametrize("obstacle", ["torn", "dangling", "missing"])
def test_of_what_cannot_be_read_the_paths_are_unknown(
    output: Path, path: str, obstacle: str
) -> None:
    (output / path).unlink()
    if obstacle == "torn":
        write_tree(output, {path: b"{"})
    elif obstacle == "dangling":
        (output / path).symlink_to("nowhere")
    is_absent = (path, obstacle) == (INDEX, "missing")
    assert read_published_paths(str(output)) == (set() if is_absent else None)
    assert read_published_directories(str(output)) == (set() if is_absent else None)

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.formats.simplestreams import (
    CachedItem,
    Item,
    Product,
    ProductFile,
    Version,
    decode,
    decode_version_names,
    encode,
    encode_key,
    encode_piece,
    frame_products,
    get_fingerprint,
    has_sound_digests,
    survives_decoding,
    with_both_clients,
)

DIGEST = "0123456789abcdef" * 4


def item(**fields: str) -> Item:
    return Item(**{"ftype": "incus.tar.xz", "path": "images/a", "sha256": DIGEST, **fields}, size=1)


def test_items_carry_the_clients_keys() -> None:
    encoded = msgspec.json.decode(
        msgspec.json.encode(
            item(
                combined_disk_kvm_img_sha256=DIGEST,
                combined_disk1_img_sha256=DIGEST,
                combined_uefi1_img_sha256=DIGEST,
            )
        )
    )
    assert {key for key in encoded if key.startswith("combined")} == {
        "combined_disk-kvm-img_sha256",
        "combined_disk1-img_sha256",
        "combined_uefi1-img_sha256",
    }


def test_a_lone_metadata_item_stands_under_both_names() -> None:
    items = with_both_clients({"incus.tar.gz": item()}, {"incus.tar.xz"})
    assert items["lxd.tar.xz"].ftype == "lxd.tar.xz"
    assert items["lxd.tar.xz"].path == items["incus.tar.gz"].path


def test_metadata_that_failed_is_not_replaced_by_the_other() -> None:
    items = {"incus.tar.xz": item()}
    assert with_both_clients(items, {"incus.tar.xz", "lxd.tar.xz"}) == items


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ITEMS = st.builds(
    Item,
    ftype=TEXT,
    path=TEXT.filter(bool),
    size=st.integers(0, 2**62),
    sha256=st.just(DIGEST),
    combined_squashfs_sha256=st.sampled_from(["", DIGEST]),
    delta_base=TEXT,
)
PRODUCTS = st.builds(
    Product,
    **dict.fromkeys(("aliases", "arch", "os", "release", "release_title", "variant"), TEXT),
    requirements=st.dictionaries(TEXT, TEXT, max_size=2),
    lxd_requirements=st.dictionaries(TEXT, TEXT, max_size=2),
    versions=st.dictionaries(
        TEXT, st.builds(Version, items=st.dictionaries(TEXT, ITEMS, max_size=2)), max_size=2
    ),
)
FILES = st.builds(
    ProductFile, content_id=TEXT, products=st.dictionaries(TEXT, PRODUCTS, max_size=3)
)


@given(FILES)
def test_what_is_encoded_decodes_to_the_same(document: ProductFile) -> None:
    data = encode(document)
    assert data.endswith(b"}\n")
    assert decode(data, ProductFile) == document
    for product in document.products.values():
        assert survives_decoding(encode_piece(product), product)


@given(FILES)
def test_a_file_is_its_frame_keys_and_pieces(document: ProductFile) -> None:
    head, tail = frame_products(document.content_id)
    products = document.products.items()
    body = b",".join(encode_key(key) + encode_piece(product) for key, product in products)
    assert head + body + tail == encode(document)


@given(st.builds(ProductFile, products=st.dictionaries(TEXT, PRODUCTS, max_size=3)))
def test_the_names_of_versions_need_no_items(document: ProductFile) -> None:
    for product in document.products.values():
        assert decode_version_names(encode_piece(product)) == product.versions.keys()


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"{}", set()),
        (b'{"versions": null}', set()),
        (b'{"versions": {"a": 5, "b": []}, "aliases": 7}', {"a", "b"}),
    ],
)
def test_the_names_of_versions_are_those_whatever_is_in_them(data: bytes, names: set[str]) -> None:
    assert decode_version_names(data) == names


@pytest.mark.parametrize("data", [b"", b"[]", b'{"versions": []}', b"5", b"{"])
def test_what_is_no_product_has_no_versions(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_version_names(data)


def test_decoding_notices_what_was_not_encoded() -> None:
    one, other = Product(aliases="a"), Product(aliases="b")
    assert survives_decoding(encode_piece(one), one)
    assert not survives_decoding(encode_piece(one), other)
    with pytest.raises(msgspec.DecodeError):
        survives_decoding(b'{"aliases":5}', one)


@pytest.mark.parametrize(
    "wrong",
    [
        '"size": "1"',
        '"size": true',
        '"size": -1',
        '"sha256": "short"',
        '"path": ""',
        '"ftype": null',
    ],
)
def test_wrong_types_are_rejected(wrong: str) -> None:
    fields = {"ftype": '"x"', "path": '"p"', "size": "1", "sha256": f'"{DIGEST}"'}
    key, _, value = wrong.partition(": ")
    fields[key.strip('"')] = value
    text = "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(text, type=CachedItem)


def test_what_is_missing_or_null_is_empty_but_all_fields_are_written() -> None:
    data = b'{"products": {"a": {"versions": {"b": {"items": {"c": {}}}}, "requirements": null}}}'
    document = decode(data, ProductFile)
    found = document.products["a"]
    assert (found.aliases, found.arch, found.requirements) == ("", "", {})
    assert found.versions["b"].items["c"] == Item()
    written = msgspec.json.decode(encode(document))["products"]["a"]
    fields = {"aliases", "arch", "os", "release", "release_title", "variant", "requirements"}
    assert set(written) == fields | {"versions"}
    assert set(written["versions"]["b"]["items"]["c"]) == {"ftype", "path", "size", "sha256"}


@pytest.mark.parametrize(
    "value", [b'{"aliases": []}', b'{"requirements": {"a": true}}', b'{"versions": []}', b"5"]
)
def test_a_wrong_type_is_an_error(value: bytes) -> None:
    for data in (value, b'{"os": null, ' + value[1:] if value != b"5" else value):
        with pytest.raises(msgspec.ValidationError):
            decode(b'{"products": {"a": ' + data + b"}}", ProductFile)


@pytest.mark.parametrize(
    ("fields", "ftype", "fingerprint"),
    [
        ({"combined_rootxz_sha256": "new", "combined_sha256": "old"}, "root.tar.xz", "new"),
        ({"combined_sha256": "old"}, "root.tar.xz", "old"),
        ({"combined_sha256": "old"}, "squashfs", ""),
        ({"combined_squashfs_sha256": "s"}, "squashfs", "s"),
    ],
)
def test_the_fingerprint_of_old_servers_counts(
    fields: dict[str, str], ftype: str, fingerprint: str
) -> None:
    assert get_fingerprint(Item(**fields), ftype) == fingerprint  # type: ignore[arg-type]
    assert get_fingerprint(None, ftype) == ""


@pytest.mark.parametrize("client", ["incus", "lxd"])
def test_a_lone_unified_image_is_there_for_both_clients(client: str) -> None:
    ftype, other = f"{client}_combined.tar.gz", {"incus": "lxd", "lxd": "incus"}[client]
    one = Item(ftype=ftype, path="v/f.tar.xz", size=1, sha256="a", combined_type="virtual-machine")
    items = with_both_clients({"f.tar.xz": one}, {ftype, "incus.tar.xz", "lxd.tar.xz"})
    copy = items.pop(f"{other}_combined.tar.gz")
    assert items == {"f.tar.xz": one}
    assert copy == msgspec.structs.replace(one, ftype=f"{other}_combined.tar.gz")
    # The other is there, but cannot be read: its place stays empty.
    assert with_both_clients({"f": one}, {ftype, f"{other}_combined.tar.gz"}) == {"f": one}


@pytest.mark.parametrize(
    ("digests", "is_sound"),
    [
        ([], True),
        ([DIGEST, "0" * 64], True),
        (["AB" * 32], False),
        (["zz" * 32], False),
        ([DIGEST[:-1]], False),
        ([DIGEST[:-2] + "  "], False),
        ([DIGEST + "ab", DIGEST[:-2] + " a"], False),
        (["é" * 64], False),
    ],
)
def test_digests_must_be_lowercase_hex(digests: list[str], is_sound: bool) -> None:
    assert has_sound_digests(digests) is is_sound

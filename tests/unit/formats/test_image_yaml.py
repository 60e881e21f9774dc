from __future__ import annotations

from pathlib import Path

import pytest

from fastindex.formats.image_yaml import parse_image_yaml
from fastindex.formats.settings import Settings
from tests.support.command import Run
from tests.support.hostile_yaml import BILLION_LAUGHS
from tests.support.trees import catalogue, version, write_tree

PRODUCT = "images/ubuntu/noble/amd64/default"
PATH = f"{PRODUCT}/20240505_0524/image.yaml"
KEY = "ubuntu:noble:amd64:default"
DEFINITION = b"""\
image:
  distribution: ubuntu
  release: noble
simplestream:
  distro_name: Ubuntu Core
  release_aliases:
    noble: 24.04,24
    jammy: 22.04
  requirements:
  - requirements:
      secureboot: false
    releases: [noble]
    architectures: [amd64, arm64]
  - requirements:
      nesting: true
    variants:
    - cloud
packages:
  manager: apt
"""


def test_its_section_simplestream_sets_name_aliases_and_requirements() -> None:
    settings, findings = parse_image_yaml(PATH, DEFINITION)
    assert findings == []
    assert settings == Settings(
        os="Ubuntu Core",
        aliases=("ubuntu/24.04/default", "ubuntu/24.04", "ubuntu/24/default", "ubuntu/24"),
        requirements={"secureboot": "false"},
    )


@pytest.mark.parametrize(
    ("product", "requirements"),
    [
        (
            "noble/amd64/cloud",
            {"secureboot": "false", "nesting": "true"},
        ),
        ("noble/riscv64/cloud", {"nesting": "true"}),
        ("jammy/amd64/default", {}),
    ],
)
def test_requirements_go_by_their_filters(product: str, requirements: dict[str, str]) -> None:
    path = f"images/ubuntu/{product}/20240505/image.yaml"
    assert parse_image_yaml(path, DEFINITION)[0].requirements == requirements


def test_requirements_for_a_type_of_image_are_for_no_product() -> None:
    content = b"simplestream: {requirements: [{requirements: {nesting: 1}, types: [vm]}]}"
    assert parse_image_yaml(PATH, content) == (Settings(), [])


@pytest.mark.parametrize(
    "content", [b"", b"image: {}", b"simplestream:", b"simplestream: {requirements: }", b"[]", b"x"]
)
def test_one_without_the_section_says_nothing(content: bytes) -> None:
    assert parse_image_yaml(PATH, content) == (Settings(), [])


@pytest.mark.parametrize(
    "content",
    [
        b"simplestream: [",
        b"simplestream: {release_aliases: [a]}",
        b"simplestream: {requirements: {secureboot: false}}",
        BILLION_LAUGHS,
    ],
)
def test_one_that_is_wrong_is_named_and_left_out(content: bytes) -> None:
    settings, (finding,) = parse_image_yaml(PATH, content)
    assert settings == Settings()
    assert finding.path == PATH
    assert "cannot be used" in finding.problem


def test_a_name_that_breaks_the_catalogue_is_left_out() -> None:
    content = b'simplestream: {distro_name: "a\\u0007", release_aliases: {noble: "../a,b%,c"}}'
    settings, findings = parse_image_yaml(PATH, content)
    assert settings == Settings(aliases=("ubuntu/c/default", "ubuntu/c"))
    assert len(findings) == 3


def test_the_newest_version_counts_and_product_toml_wins(fastindex: Run, tmp_path: Path) -> None:
    older, newer = "ubuntu/noble/amd64/default/20240505_0524", "ubuntu/noble/amd64/default/20240506"
    tree = {**version(older), **version(newer), f"images/{older}/image.yaml": DEFINITION}
    write_tree(tmp_path, tree)
    assert fastindex(tmp_path).returncode == 0
    assert catalogue(tmp_path)["products"][KEY]["os"] == "ubuntu"
    (tmp_path / f"images/{newer}/image.yaml").write_bytes(DEFINITION)
    assert fastindex(tmp_path).returncode == 0
    product = catalogue(tmp_path)["products"][KEY]
    assert product["os"] == "Ubuntu Core"
    assert product["requirements"] == {"secureboot": "false"}
    assert product["aliases"].startswith("ubuntu/noble/default,ubuntu/noble,ubuntu/24.04/default,")
    own = b'os = "Ubuntu"\naliases = ["stable"]\n[requirements]\nsecureboot = "true"\n'
    (tmp_path / "images/.product.toml").write_bytes(own)
    assert fastindex(tmp_path).returncode == 0
    product = catalogue(tmp_path)["products"][KEY]
    assert product["os"] == "Ubuntu"
    assert product["requirements"] == {"secureboot": "true"}
    assert product["aliases"] == "ubuntu/noble/default,ubuntu/noble,stable"


def test_a_link_that_leads_out_is_not_read(fastindex: Run, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(DEFINITION)
    path = "images/ubuntu/noble/amd64/default/20240506/image.yaml"
    tree = {**version("ubuntu/noble/amd64/default/20240506"), path: str(tmp_path / "secret")}
    root = write_tree(tmp_path / "root", tree)
    result = fastindex(root)
    assert "leads out" in result.stderr
    assert catalogue(root)["products"][KEY]["os"] == "ubuntu"


@pytest.mark.parametrize(
    "section",
    [
        "{distro_name: " + "x" * 256 + "}",
        "{release_aliases: {12: '" + "a," * 200 + "'}}",
        "{release_aliases: {12: " + "a" * 256 + "}}",
        "{requirements: [{requirements: {" + ", ".join(f"k{n}: v" for n in range(65)) + "}}]}",
    ],
)
def test_what_is_out_of_proportion_is_left_out(section: str) -> None:
    path = "images/debian/12/amd64/default/20240505/image.yaml"
    settings, (finding,) = parse_image_yaml(path, f"simplestream: {section}".encode())
    assert "more than" in finding.problem or "too long" in finding.problem
    assert (settings.os, settings.aliases, settings.requirements) == (None, None, {})


def fields(root: Path) -> dict[str, object]:
    product: dict[str, object] = dict(catalogue(root)["products"][KEY])
    del product["versions"]
    return product


@pytest.mark.parametrize("state", ["empty", "settling", "incomplete", "copy", "other"])
def test_a_product_follows_the_newest_version_that_is_published(
    tmp_path: Path, fastindex: Run, state: str
) -> None:
    """What an upload that is not published says must not change what is."""
    write_tree(tmp_path, version("ubuntu/noble/amd64/default/20240505_0524"))
    write_tree(tmp_path, {PATH: DEFINITION})
    assert fastindex(tmp_path).returncode == 0
    before = fields(tmp_path)
    assert before["requirements"] == {"secureboot": "false"}
    newer = "ubuntu/noble/amd64/default/20240506_0524"
    tree = version(newer)
    match state:
        case "empty":
            tree = {f"images/{newer}": None}
        case "incomplete":
            tree.popitem()
        case "copy":
            tree = version("ubuntu/noble/amd64/default/20240505_0524")
            tree = {path.replace("20240505", "20240506"): item for path, item in tree.items()}
            write_tree(tmp_path, version("a/1/amd64/x/20240505"))
            for path, item in version("a/1/amd64/x/20240505").items():
                tree[f"images/{newer}/{path.rpartition('/')[2]}"] = item
            assert fastindex(tmp_path).returncode == 0
    write_tree(tmp_path, tree)
    if state != "empty":
        write_tree(tmp_path, {f"images/{newer}/image.yaml": b"simplestream: {distro_name: New}\n"})
    if state == "settling":
        for file in (tmp_path / "images" / newer).iterdir():
            file.touch()
    fastindex("--settle", "1h", tmp_path)
    if state == "other":  # published: now it counts
        assert fields(tmp_path)["os"] == "New"
    else:
        assert fields(tmp_path) == before


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_a_run_with_nothing_else_to_do_sees_that_it_has_changed(
    tmp_path: Path, fastindex: Run, change: str
) -> None:
    write_tree(tmp_path, version("ubuntu/noble/amd64/default/20240505_0524"))
    if change != "added":
        write_tree(tmp_path, {PATH: DEFINITION})
    assert fastindex(tmp_path).returncode == 0
    before = fields(tmp_path)
    (tmp_path / PATH).unlink(missing_ok=True)
    if change != "removed":
        write_tree(tmp_path, {PATH: b"simplestream:\n  distro_name: Changed\n"})
    assert fastindex(tmp_path).returncode == 0
    assert fields(tmp_path) != before

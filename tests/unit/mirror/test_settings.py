from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.errors import Code
from fastindex.formats.product_toml import parse_product_toml
from fastindex.formats.settings import Settings
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.settings import SettingsReader
from tests.support.command import Run
from tests.support.trees import catalogue, version, write_tree

PRODUCT = "images/debian/12/amd64/default"
KEY = "debian:12:amd64:default"
ALL = b"""\
os = "Debian GNU/Linux"
release_title = "12 (bookworm)"
release_codename = "bookworm"
version = "12"
support_eol = 2028-06-30
supported = true
label = "nightly"
aliases = ["stable", "{os}-{release}-{variant}-{arch}"]

[requirements]
secureboot = "false"
"""


def product(root: Path, key: str = KEY) -> dict[str, object]:
    found: dict[str, object] = catalogue(root)["products"][key]
    return found


def test_all_keys_reach_the_catalogue(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), f"{PRODUCT}/.product.toml": ALL})
    result = fastindex(tmp_path)
    assert result.returncode == 0
    assert "0 warnings" in result.stderr
    found = product(tmp_path)
    versions = found.pop("versions")
    assert found == {
        "aliases": "debian/12/default,debian/12,stable,debian-12-default-amd64",
        "arch": "amd64",
        "os": "Debian GNU/Linux",
        "release": "12",
        "release_title": "12 (bookworm)",
        "release_codename": "bookworm",
        "variant": "default",
        "version": "12",
        "support_eol": "2028-06-30",
        "supported": True,
        "requirements": {"secureboot": "false"},
    }
    assert isinstance(versions, dict)
    assert versions["20240505_05:24"]["label"] == "nightly"


def test_the_nearest_wins_key_by_key(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            "a/.product.toml": b'os = "near"\n[requirements]\nnesting = "true"',
            "a/.requirements": b'{"nesting": "false", "cgroup": "v1"}',
            ".product.toml": b'os = "far"\nlabel = "far"\n[requirements]\ncgroup = "v2"',
        },
    )
    reader = SettingsReader(Mirror.at(tmp_path))
    merged = reader.merge(("a/.product.toml", "a/.requirements", ".product.toml"))
    assert (merged.os, merged.label) == ("near", "far")
    assert merged.requirements == {"cgroup": "v1", "nesting": "true"}
    assert not any(reader.findings.values())


def test_what_is_wrong_is_told_by_file_and_each_is_parsed_once(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {"a/.product.toml": b"os = 1", ".requirements": b"[]", "b/.requirements": b"{}"},
    )
    reader = SettingsReader(Mirror.at(tmp_path))
    for _ in range(2):
        reader.merge(("a/.product.toml", ".requirements"))
        reader.merge(("b/.requirements", ".requirements"))
    told = {path: len(found) for path, found in reader.findings.items()}
    assert told == {"a/.product.toml": 1, ".requirements": 1, "b/.requirements": 0}
    assert reader.unreadable == set()


def test_a_file_that_cannot_be_read_is_told_and_noted(tmp_path: Path) -> None:
    """The next run must read it again, whatever its name and stamp."""
    write_tree(tmp_path, {".requirements": b"{" + b" " * 70_000, "a/.product.toml": b"os = 'a'"})
    reader = SettingsReader(Mirror.at(tmp_path))
    missing = "a/b/.product.toml"
    assert reader.merge((missing, "a/.product.toml", ".requirements")).os == "a"
    assert reader.unreadable == {missing, ".requirements"}
    for path in reader.unreadable:
        (finding,) = reader.findings[path]
        assert (finding.code, finding.path) == (Code.BAD_SETTINGS, path)
        assert "images are published without it" in finding.problem


def test_a_digest_is_that_of_the_bytes_or_of_why_there_are_none(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": b"x", "b": b"x", "c": b"y", "directory": None, "link": "/a"})
    reader = SettingsReader(Mirror.at(tmp_path))
    names = ("a", "c", "directory", "link", "missing")
    digests = [reader.digest(name) for name in names]
    assert len(set(digests)) == len(names)
    assert reader.digest("b") == digests[0]
    assert {len(digest) for digest in digests} == {16}
    again = SettingsReader(Mirror.at(tmp_path))
    assert [again.digest(name) for name in names] == digests
    assert not reader.findings  # they are told when somebody needs the settings


def test_false_is_a_setting_too(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {"a/.product.toml": b"supported = false", ".product.toml": b"supported = true"},
    )
    merged = SettingsReader(Mirror.at(tmp_path)).merge(("a/.product.toml", ".product.toml"))
    assert merged.supported is False


def test_aliases_can_replace_the_default_ones(fastindex: Run, tmp_path: Path) -> None:
    content = b'replace_aliases = true\naliases = ["one", "one", "{os}"]'
    write_tree(tmp_path, {**version(), "images/debian/.product.toml": content})
    fastindex(tmp_path)
    assert product(tmp_path)["aliases"] == "one,debian"


@pytest.mark.parametrize(
    ("variant", "aliases"),
    [
        ("default", "arch/current/default,arch/current,arch/default,arch"),
        ("cloud", "arch/current/cloud,arch/cloud"),
    ],
)
def test_a_rolling_release_has_short_aliases(
    fastindex: Run, tmp_path: Path, variant: str, aliases: str
) -> None:
    write_tree(tmp_path, version(f"arch/current/amd64/{variant}/20240505"))
    fastindex(tmp_path)
    assert product(tmp_path, f"arch:current:amd64:{variant}")["aliases"] == aliases


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("osname = 'x'", "unknown key 'osname'"),
        ("os = 12", "'os' must be a string in quotes; the key is ignored"),
        ("os = ''", "'os' must not be empty"),
        ("os = ' x'", "'os' must not start or end with white space"),
        ('os = "a\\u001bb"', "control characters"),
        ("release_title = 22.04", "'release_title' must be a string"),
        ("supported = 'yes'", "'supported' must be true or false"),
        ("supported = 1", "'supported' must be true or false"),
        ("replace_aliases = 'no'", "must be true or false"),
        ("support_eol = 'soon'", "'support_eol' must be a date such as 2028-06-30"),
        ("support_eol = '2028-02-30'", "'support_eol' must be a date such as 2028-06-30"),
        ("support_eol = 2028-06-30T10:00:00", "'support_eol' must be a date such as 2028-06-30"),
        ("aliases = 'one'", "'aliases' must be a list of strings"),
        ("aliases = ['a', 5]", "'aliases' must be a string"),
        ("aliases = ['a,b']", "must not contain the character ','"),
        ("aliases = ['{os.__class__}']", "must not contain braces other than {os}"),
        ("aliases = ['{0}']", "must not contain braces other than {os}"),
        ("requirements = 'none'", "'requirements' must be a table of strings"),
        ("requirements = {secureboot = ['x']}", "'requirements' must be a table of strings"),
    ],
)
def test_a_wrong_key_is_left_out_by_line_and_the_others_hold(
    fastindex: Run, tmp_path: Path, wrong: str, words: str
) -> None:
    content = f'# a comment\n\n{wrong}\nlabel = "kept"\n'.encode()
    write_tree(tmp_path, {**version(), f"{PRODUCT}/.product.toml": content})
    result = fastindex(tmp_path)
    assert result.returncode == 0
    warning, _ = result.stderr.splitlines()
    assert warning.startswith(f"fastindex: warning: {PRODUCT}/.product.toml:3: ")
    assert words in warning
    found = product(tmp_path)
    assert found["os"] == "debian"
    assert found["requirements"] == {}
    assert '"label":"kept"' in (tmp_path / "streams/v1/images.json").read_text()


def test_requirements_are_checked_as_those_of_dotfiles() -> None:
    settings, findings = parse_product_toml("p", b"[requirements]\nsecureboot = false\nodd = 'x'")
    assert settings.requirements == {"secureboot": "false", "odd": "x"}
    assert [finding.problem for finding in findings] == [
        "'secureboot' must be a string; published as 'false'",
        "no client enforces the requirement 'odd'",
    ]


@pytest.mark.parametrize(
    "content",
    [b"os", b"os = ", b"\xff", b"\0", b"a = " + b"[" * 5000, b"x" * 70_000, b"os='a'\nos='b'"],
)
def test_a_file_that_is_no_toml_is_left_out(fastindex: Run, tmp_path: Path, content: bytes) -> None:
    write_tree(tmp_path, {**version(), f"{PRODUCT}/.product.toml": content})
    result = fastindex(tmp_path)
    assert result.returncode == 0
    assert f"warning: {PRODUCT}/.product.toml: cannot be used" in result.stderr
    assert "Traceback" not in result.stderr
    assert product(tmp_path)["os"] == "debian"


def test_an_empty_file_sets_nothing() -> None:
    assert parse_product_toml("p", b"") == (Settings(), [])


KEYS = st.sampled_from(["os", "aliases", "supported", "support_eol", "requirements", "label", "x"])
VALUES = st.one_of(
    st.text(max_size=5).map(repr),
    st.integers().map(str),
    st.sampled_from(
        ["true", "[]", "{}", "['a']", "[1, 'a']", "{a = 1}", "2028-01-01", "1.5", "nan"]
    ),
)


@given(st.lists(st.tuples(KEYS, VALUES), max_size=5), st.binary(max_size=5))
def test_no_content_raises(pairs: list[tuple[str, str]], noise: bytes) -> None:
    text = "\n".join(f"{key} = {value}" for key, value in pairs)
    for content in (
        text.encode("utf-8", "surrogatepass"),
        text.encode("latin-1", "replace") + noise,
    ):
        settings, _ = parse_product_toml("p", content)
        assert settings.os is None or settings.os
        assert all("," not in alias for alias in settings.aliases or ())
        assert all(type(value) is str for value in settings.requirements.values())


def test_a_changed_setting_reaches_an_unchanged_tree(fastindex: Run, tmp_path: Path) -> None:
    write_tree(tmp_path, {**version(), f"{PRODUCT}/.product.toml": b'os = "One"'})
    fastindex(tmp_path)
    write_tree(tmp_path, {f"{PRODUCT}/.product.toml": b'os = "Two"'})  # same stamp
    assert "0 files hashed" in fastindex(tmp_path).stderr
    assert product(tmp_path)["os"] == "Two"

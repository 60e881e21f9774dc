from __future__ import annotations

import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fastindex.formats.yaml import YamlError, YamlValue, load_strings
from tests.support.hostile_yaml import BILLION_LAUGHS


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 3.20", {"a": "3.20"}),
        ("a: 22.10", {"a": "22.10"}),
        ("a: no", {"a": "no"}),
        ("a: 20240101_01:02", {"a": "20240101_01:02"}),
        ("a: 0x1F", {"a": "0x1F"}),
        ("a: 2024-01-01", {"a": "2024-01-01"}),
        ("a: ~", {"a": "~"}),
        ("a:", {"a": ""}),
        ("1: 2", {"1": "2"}),
        ("a: !!python/object/apply:os.system [id]", {"a": ["id"]}),
        ("- a\n- b", ["a", "b"]),
        ("", None),
        ("a: 1\n---\nb: 2", {"a": "1"}),
        ("a: &anchor x", {"a": "x"}),
        ('{"a": {"b": false}}', {"a": {"b": "false"}}),
        ("a: 1\r\nb: 2\r\n", {"a": "1", "b": "2"}),
    ],
)
def test_scalars_are_strings(text: str, value: YamlValue) -> None:
    assert load_strings(text.encode()) == value
    assert load_strings(b"\xef\xbb\xbf" + text.encode()) == value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a: &x 1\nb: *x", r"a YAML alias \(\*x\)"),
        (BILLION_LAUGHS, "a YAML alias"),
        (b"[" * 900, "too deep"),
        (b"[" * 100_000, "too deep|nesting depth"),  # newer libyaml says it itself
        (b"a: [" + b"x, " * 300_000 + b"]", "too long"),
        (b"a: [", "not valid YAML"),
        (b"a: b: c", "not valid YAML"),
        (b"? [a]\n: b", "not valid YAML"),
        (b"\x00\x01", "not valid YAML"),
        (b"\xff\xfea", "not valid YAML"),
        (b"a: \xc3\x28", "not valid YAML"),
    ],
)
def test_what_is_refused_is_told(content: bytes, reason: str) -> None:
    with pytest.raises(YamlError, match=reason):
        load_strings(content)


@pytest.mark.parametrize("escape", ["\\UFFFFFFFF", "\\U00110000"])
def test_no_other_error_escapes_where_there_is_no_libyaml(
    monkeypatch: pytest.MonkeyPatch, escape: str
) -> None:
    monkeypatch.delattr(yaml, "CBaseLoader", raising=False)
    with pytest.raises(YamlError, match="not valid YAML"):
        load_strings(f'a: "{escape}"'.encode())


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_what_is_dumped_as_strings_comes_back(value: YamlValue) -> None:
    assert load_strings(yaml.safe_dump(value).encode()) == value


@given(st.binary(max_size=300))
def test_any_bytes_give_a_value_or_a_yaml_error(content: bytes) -> None:
    with contextlib.suppress(YamlError):
        load_strings(content)

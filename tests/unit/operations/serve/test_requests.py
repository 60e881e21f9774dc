"""What a target asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.operations.serve.requests import (
    MAX_TARGET_CHARACTERS,
    BadTargetError,
    find_path,
)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/streams/v1/index.json", "streams/v1/index.json"),
        ("/streams/v1/index.json?a=../b", "streams/v1/index.json"),
        ("/images/a/20240505_05%3a24/incus.tar.xz", "images/a/20240505_05:24/incus.tar.xz"),
        ("/images/%C3%A4/x+y", "images/ä/x+y"),
        ("/", ""),
        ("/images/", "images/"),
        ("https://images.example.org/images/a", "images/a"),
        ("HTTP://images.example.org", ""),
        ("/a%252e", "a%2e"),  # decoded once
    ],
)
def test_a_target_is_a_path(target: str, path: str) -> None:
    assert find_path(target) == path


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/../etc/passwd", 404),
        ("/images/../../etc/passwd", 404),
        ("/%2e%2e/etc/passwd", 404),
        ("/images/%2E%2E%2F%2E%2E/etc/passwd", 404),
        ("/images/./a", 404),
        ("/streams/.lock", 404),
        ("/images/%2eitems.json", 404),
        ("//etc/passwd", 404),
        ("/images//a", 404),
        ("/images/a%00", 400),
        ("/images/a%0a", 400),
        ("/images/\u202ea", 400),
        ("/images/%ff", 400),
        ("/images/%e2%80%ae", 400),
        ("*", 400),
        ("", 400),
        ("images/a", 400),
        ("ftp://images.example.org/a", 400),
        ("/" + "a" * MAX_TARGET_CHARACTERS, 414),
    ],
)
def test_what_no_file_can_be_called_is_refused(target: str, status: int) -> None:
    with pytest.raises(BadTargetError) as refusal:
        find_path(target)
    assert refusal.value.status == status


@given(st.text(max_size=60))
def test_whatever_is_asked_for_leads_nowhere_else(target: str) -> None:
    try:
        path = find_path(f"/{target}")
    except BadTargetError:
        return
    assert path.isprintable()
    assert not path.startswith("/")
    assert not any(name.startswith(".") for name in path.split("/"))

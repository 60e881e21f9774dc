"""``.product.toml`` of strangers: bounded in time and in what it puts into the catalogue."""

from __future__ import annotations

import pytest

from fastindex.formats.product_toml import parse_product_toml


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a=" + b"9" * 5000, "cannot be used"),
        (b"a" + b".a" * 30_000 + b"=1", "too deep"),
        (b"[a" + b".a" * 30_000 + b"]", "too deep"),
        (b'"=".a' + b".a" * 30_000 + b"=1", "too deep"),
        (b"'='" + b".a" * 30_000 + b"=1", "too deep"),
        ('"\u2028"'.encode() + b".a" * 30_000 + b"=1", "too deep"),
        ('"\x85=\x0b="'.encode() + b" . a" * 15_000 + b"=1", "too deep"),
        (b"x = {a" + b".a" * 501 + b" = 1}", "too deep"),
        (b"a" + b".a" * 501 + b"=1", "too deep"),
        (b"".join(b"a%d.b.c.d = 1\n" % number for number in range(200)), "too deep"),
        (b"  [[a" + b".a" * 17 + b"]]\nb = 1\n", "too deep"),
        (b"".join(b"a%d=1\n" % number for number in range(8000)), "more than 64 keys"),
        (b"requirements={a=0x" + b"f" * 6000 + b"}", "too long"),
        (b'requirements={a="' + b"x" * 256 + b'"}', "too long"),
        (b'requirements={a="\\u001b"}', "control characters"),
        (b'os="' + b"x" * 256 + b'"', "must not be longer than 255"),
        (b"aliases=[" + b'"a",' * 101 + b"]", "more than 100"),
        (b'aliases=["' + b"{os}" * 9 + b'"]', "more than 8 placeholders"),
    ],
)
def test_what_is_out_of_proportion_is_left_out(content: bytes, problem: str) -> None:
    settings, (finding,) = parse_product_toml(".product.toml", content)
    assert problem in finding.problem
    assert len(finding.problem) < 1000
    assert (settings.os, settings.aliases, settings.requirements) == (None, None, {})


def test_what_is_long_but_sound_is_kept() -> None:
    aliases = ", ".join(f'"debian-{number}.{number}"' for number in range(99))
    content = f'os = "{"x" * 255}"\naliases = [\n{aliases}, "{"{os}" * 8}"]\n'
    settings, findings = parse_product_toml(".product.toml", content.encode())
    assert not findings
    assert settings.os == "x" * 255
    assert len(settings.aliases or ()) == 100

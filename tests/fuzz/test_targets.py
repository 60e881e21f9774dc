"""The properties of the parsers of strangers' bytes: the short form of tests.fuzz.parsers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.formats.tar import read_members
from tests.fuzz.targets import TARGETS, Bytes, Target, plain_tarballs, with_checksums

FOUND = {
    "catalogue": b'{"content_id":"images","datatype":"image-downloads","format":"products:1.0",'
    b'"products":{"a:b:c:d":{"versions":{"20240505":{"items":{"\xbe":{}}}}}}}',
}
"""Bytes that once broke a property, by target."""


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_past_findings_keep_the_properties(name: str) -> None:
    for content in [*TARGETS[name].seeds(), *filter(None, [FOUND.get(name)])]:
        TARGETS[name].check(content)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@given(data=st.data())
def test_mutated_seeds_keep_the_properties(target: Target, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(target.seeds()), label="seed"))
    for _ in range(data.draw(st.integers(0, 4), label="changes")):
        start = data.draw(st.integers(0, len(content)))
        length = data.draw(st.sampled_from([0, 1, 1, 8, 512]))
        content[start : start + length] = data.draw(st.binary(max_size=12))
    target.check(bytes(content))


def test_corrected_checksums_let_a_changed_header_through() -> None:
    for plain in plain_tarballs():
        names = [member.name for member in read_members(Bytes(with_checksums(plain)))]
        assert names == [member.name for member in read_members(Bytes(plain))]
        assert any("templates" in name for name in names) or names == ["rootfs"]

"""Names of clusters, and messages that anybody may have made up."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given
from msgspec.structs import asdict, replace

from fastindex.errors import Code
from fastindex.formats.clusters import (
    AnswerMessage,
    DigestMessage,
    FailureMessage,
    Introduction,
    OutcomeMessage,
    Question,
    RootFailureMessage,
    SightMessage,
    check_cluster,
    decode_answer,
    decode_introduction,
    decode_parcel,
    decode_question,
    encode,
    find_host,
    is_address,
    parse_scheduler_file,
)
from fastindex.formats.errors import FormatError


@pytest.mark.parametrize(
    "word",
    ["tcp://scheduler:8786", "tls://10.0.0.1:1", "tcp://[::1]:65535", "/srv/s.json", "s.json"],
)
def test_what_names_a_cluster_is_accepted(word: str) -> None:
    check_cluster(word)


@pytest.mark.parametrize(
    "word",
    [
        *("", "scheduler", "scheduler:8786", "http://h:1", "tcp://h", "tcp://:1", "tcp://h:"),
        *("tcp://h:0", "tcp://h:65536", "tcp://h:8786/", "tcp://h:٣", "tcp://u@h:1", "tcp://h :1"),
        *("tcp://h:" + "9" * 5000, "ucx://h:1", "inproc://1/2", "/srv/s.toml"),
    ],
)
def test_what_names_no_cluster_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"^must be tcp://HOST:PORT, tls://HOST:PORT, a scheduler"):
        check_cluster(word)


def test_the_host_of_an_address_is_found() -> None:
    assert find_host("tcp://10.0.0.7:1234") == "10.0.0.7"
    assert find_host("tls://[fe80::1]:1") == "fe80::1"
    assert find_host("inproc://") == ""
    assert find_host("tcp://[") == ""
    assert is_address("tcp://h:1")
    assert not is_address("/s.json")


def test_a_scheduler_file_names_its_address() -> None:
    content = b'{"type": "Scheduler", "address": "tls://10.0.0.1:8786", "workers": {}}'
    assert parse_scheduler_file(content) == "tls://10.0.0.1:8786"


DEEP = b"[" * 200_000 + b"]" * 200_000
FAILURE = FailureMessage(Code.UNREADABLE, "p", "r", False, False, None)


@pytest.mark.parametrize(
    "content", [b'{"address": "tcp://h:1", "x": %s}' % DEEP, b'{"address": "\xff"}']
)
def test_a_scheduler_file_that_no_decoder_can_read_is_refused(content: bytes) -> None:
    with pytest.raises(FormatError, match="is no scheduler file: "):
        parse_scheduler_file(content)


@pytest.mark.parametrize(
    "data", [b'{"version": "1", "python": "3", "x": %s}' % DEEP, b'{"version": "\xff"}']
)
def test_an_introduction_that_no_decoder_can_read_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_introduction(data)


@pytest.mark.parametrize("head", [b"\x92", b"\x91\x91"])
def test_an_answer_that_nests_without_end_is_refused(head: bytes) -> None:
    with pytest.raises(FormatError):
        decode_answer(head + b"\x91" * 200_000)


def test_failures_of_metadata_have_none_themselves() -> None:
    nested = RootFailureMessage(**asdict(FAILURE), metadata=(FAILURE,))
    assert decode_answer(encode(AnswerMessage((nested,)))).outcomes == (nested,)
    twice = RootFailureMessage(**asdict(FAILURE), metadata=(nested,))
    with pytest.raises(FormatError):
        decode_answer(encode(AnswerMessage((twice,))))


def test_a_text_that_is_no_text_is_refused() -> None:
    answer = encode(AnswerMessage((RootFailureMessage(**asdict(FAILURE)),)))
    assert decode_answer(answer)
    for other in (b"\xa1\xff", b"\xa1\n"):
        with pytest.raises(FormatError):
            decode_answer(answer.replace(b"\xa1p", other))


@pytest.mark.parametrize("text", ["a\nb", "a\n", "\x1b[31m", "\x00", "x" * 8193])
@pytest.mark.parametrize("field", ["version", "python", "process", "host", "engine_problem"])
def test_what_a_worker_says_of_itself_has_no_control_characters(field: str, text: str) -> None:
    with pytest.raises(FormatError):
        decode_introduction(encode(replace(Introduction("1", "3"), **{field: text})))
    seen = Introduction("1", "3", sights=(SightMessage(text),))
    with pytest.raises(FormatError):
        decode_introduction(encode(seen))


@given(st.binary() | st.builds(msgspec.json.encode, st.dictionaries(st.text(), st.text())))
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(FormatError, match="is no scheduler file: "):
        parse_scheduler_file(content)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.binary() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.binary() | _VALUES.map(msgspec.msgpack.encode) | _VALUES.map(msgspec.json.encode) | _VALUES
)
def test_made_up_messages_are_refused_or_have_the_right_types(data: object) -> None:
    for decode in (decode_answer, decode_parcel, decode_introduction, decode_question):
        try:
            message = decode(data)
        except FormatError:
            continue
        assert isinstance(message, msgspec.Struct)


def test_a_message_arrives_as_it_was_sent() -> None:
    digest = DigestMessage(bytes(32), b"", is_checked=True, head=b"")
    answer = AnswerMessage((OutcomeMessage(digest, (digest,), (bytes(32),), 5, 2, ""),))
    assert decode_answer(encode(answer)) == answer
    question = Question((b"/srv/\xff",), "auto")
    assert decode_question(encode(question)) == question
    introduction = Introduction("1", "3.13")
    assert decode_introduction(encode(introduction)) == introduction


@pytest.mark.parametrize(
    "message",
    [
        AnswerMessage((DigestMessage(bytes(32), b"", is_checked=True, head=b""),)),  # type: ignore[arg-type]
        AnswerMessage(
            (OutcomeMessage(DigestMessage(bytes(33), b"", True, b""), (), (), 1, 1, ""),)
        ),
        AnswerMessage(
            (OutcomeMessage(DigestMessage(b"", b"", True, bytes(513)), (), (), 1, 1, ""),)
        ),
        AnswerMessage((OutcomeMessage(DigestMessage(b"", b"", True, b""), (), (), -1, 1, ""),)),
    ],
)
def test_an_answer_that_breaks_a_bound_is_refused(message: AnswerMessage) -> None:
    with pytest.raises(FormatError):
        decode_answer(encode(message))


def test_what_other_releases_say_is_understood() -> None:
    said = b'{"version": "9.0", "python": "3.99", "news": [1, 2]}'
    assert decode_introduction(said) == Introduction("9.0", "3.99")

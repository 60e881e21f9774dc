"""Files, from servers that are well and from others."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fastindex.errors import UsageError
from fastindex.remote.board import SPARE_PIECES, Fetched, Outcome, Source, Unfetched
from fastindex.remote.download import download
from tests.support.faulty_server import MODIFIED, FaultyServer, Handler
from tests.unit.remote.conftest import MakeClient

PIECE = 64 << 10
SMALL = random.Random(1).randbytes(10_000)
LARGE = random.Random(2).randbytes(10 * PIECE + 123)


class Sink:
    """Keeps what it gets, and checks that one thread at a time gives it."""

    def __init__(self, start: bytes = b"") -> None:
        self.content = bytearray(start)
        self.restarts = 0
        self.error: OSError | None = None
        self.is_over = False
        self._in_use = threading.Lock()

    def begin(self, validator: str) -> None:
        self.validator = validator

    def write(self, piece: memoryview) -> None:
        assert self._in_use.acquire(blocking=False)
        assert not self.is_over
        if self.error is not None:
            raise self.error
        self.content += piece
        self._in_use.release()

    def restart(self) -> None:
        self.restarts += 1
        self.content.clear()


class Download:
    """Fetches one file."""

    def __init__(self, make_client: MakeClient) -> None:
        self._make_client = make_client
        self.sink = Sink()
        self.progress = 0

    def __call__(
        self,
        *urls: str,
        size: int = len(LARGE),
        start: bytes = b"",
        validator: str = "",
        **changes: object,
    ) -> Outcome:
        self.sink.content = bytearray(start)
        source = Source(urls, size, len(start), validator)
        client = self._make_client(**changes)
        ((number, outcome),) = download(client, [(source, self.sink)], self._advance)
        self.sink.is_over = True
        assert number == 0
        if isinstance(outcome, Unfetched):
            assert outcome.problem.isprintable()
        else:
            assert self.progress == size - len(start)
        return outcome

    def _advance(self, count: int) -> None:
        self.progress += count


@pytest.fixture
def fetch(make_client: MakeClient) -> Download:
    return Download(make_client)


@pytest.fixture(autouse=True)
def url(server: FaultyServer) -> str:
    server.files["/large"] = LARGE
    server.files["/small"] = SMALL
    return server.url + "/large"


@pytest.fixture(autouse=True)
def no_threads() -> Iterator[None]:
    """Check that no thread stays."""
    yield
    for thread in threading.enumerate():
        if thread.name == "fastindex-download":
            thread.join(10)
            assert not thread.is_alive()


def fetched(outcome: Outcome) -> Fetched:
    assert isinstance(outcome, Fetched), outcome
    return outcome


def unfetched(outcome: Outcome) -> Unfetched:
    assert isinstance(outcome, Unfetched), outcome
    return outcome


def parts(server: FaultyServer, path: str = "/large") -> set[int]:
    """Return where the parts begin that were asked for."""
    return {asked.start for asked in server.asked(path)}


# Servers that are well


def test_a_large_file_comes_in_pieces(server: FaultyServer, fetch: Download, url: str) -> None:
    outcome = fetched(fetch(url))
    assert fetch.sink.content == LARGE
    assert outcome == Fetched(server.etag("/large"), MODIFIED, url, len(LARGE))
    assert parts(server) == set(range(0, len(LARGE), PIECE))
    assert len(server.requests) == 11
    assert fetch.sink.restarts == 0


def test_a_small_file_comes_whole(server: FaultyServer, fetch: Download) -> None:
    fetched(fetch(server.url + "/small", size=len(SMALL)))
    assert fetch.sink.content == SMALL
    (asked,) = server.requests
    assert "range" not in asked.headers


@pytest.mark.parametrize("start", [0, 100])
def test_what_is_there_already_is_not_asked_for(
    server: FaultyServer, fetch: Download, url: str, start: int
) -> None:
    fetched(fetch(url, size=start, start=LARGE[:start]))
    assert server.requests == []


def test_a_thread_keeps_its_connection(server: FaultyServer, make_client: MakeClient) -> None:
    sinks = [Sink() for _ in range(20)]
    source = Source((server.url + "/small",), len(SMALL))
    ended = list(download(make_client(connections=2), [(source, sink) for sink in sinks]))
    assert sorted(number for number, _ in ended) == list(range(20))
    assert [sink.content for sink in sinks] == [SMALL] * 20
    assert len({asked.client_port for asked in server.requests}) <= 2


def test_threads_go_to_different_files_first(server: FaultyServer, make_client: MakeClient) -> None:
    """Both first requests must have come before either is answered."""
    together = threading.Barrier(2)

    def serve_together(handler: Handler) -> None:
        together.wait(10)
        handler.serve()

    server.files["/other"] = LARGE
    server.faults["/large"] = [serve_together]
    server.faults["/other"] = [serve_together]
    sinks = [Sink(), Sink()]
    sources = [Source((server.url + path,), len(LARGE)) for path in ("/large", "/other")]
    for _, outcome in download(make_client(connections=2), list(zip(sources, sinks, strict=True))):
        fetched(outcome)
    assert [sink.content for sink in sinks] == [LARGE] * 2


def test_an_idle_thread_joins_a_file(server: FaultyServer, fetch: Download, url: str) -> None:
    """The second piece is answered after the third has been asked for."""
    third = threading.Event()

    def serve_late(handler: Handler) -> None:
        if "bytes=65536-" in handler.headers["Range"]:
            assert third.wait(10)
        elif "bytes=131072-" in handler.headers["Range"]:
            third.set()
        handler.serve()

    server.always["/large"] = serve_late
    fetched(fetch(url, connections=2))
    assert fetch.sink.content == LARGE


def test_few_pieces_wait_in_memory(server: FaultyServer, fetch: Download, url: str) -> None:
    """While the second piece does not come, only so many others are asked for."""
    connections = 3
    others: list[int] = []
    enough = threading.Event()

    def hold_the_second(handler: Handler) -> None:
        start = int(handler.headers["Range"].removeprefix("bytes=").partition("-")[0])
        if start == PIECE:
            enough.wait(10)
            server.release.wait(0.2)  # for more that must not come
            others.append(-1)
        elif start > PIECE:
            others.append(start)
            if len(others) == connections + SPARE_PIECES - 1:
                enough.set()
        handler.serve()

    server.always["/large"] = hold_the_second
    fetched(fetch(url, connections=connections))
    assert fetch.sink.content == LARGE
    assert enough.is_set()
    assert others.index(-1) <= connections + SPARE_PIECES


def test_the_rate_can_be_limited(fetch: Download, url: str) -> None:
    fetched(fetch(url, limit_bytes_per_second=4 << 20))
    assert fetch.sink.content == LARGE


def test_local_files_are_copied(fetch: Download, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(LARGE)
    outcome = fetched(fetch((tmp_path / "large").as_uri(), start=LARGE[:1000]))
    assert fetch.sink.content == LARGE
    assert outcome.bytes_received == len(LARGE) - 1000


def test_a_local_file_of_another_size_is_refused(fetch: Download, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(SMALL)
    unfetched(fetch((tmp_path / "large").as_uri()))


# Going on


def test_a_file_goes_on_where_it_ended(server: FaultyServer, fetch: Download, url: str) -> None:
    etag = server.etag("/large")
    outcome = fetched(fetch(url, start=LARGE[:PIECE], validator=etag))
    assert fetch.sink.content == LARGE
    assert outcome.bytes_received == len(LARGE) - PIECE
    assert min(parts(server)) == PIECE
    assert server.requests[0].headers["if-range"] == etag


def test_a_file_goes_on_by_its_time(server: FaultyServer, fetch: Download, url: str) -> None:
    server.etags["/large"] = ""
    outcome = fetched(fetch(url, start=LARGE[:PIECE], validator=MODIFIED))
    assert outcome.validator == MODIFIED
    assert fetch.sink.restarts == 0
    assert server.requests[0].headers["if-range"] == MODIFIED


def test_a_file_that_was_replaced_since_begins_again(
    server: FaultyServer, fetch: Download, url: str
) -> None:
    fetched(fetch(url, start=bytes(PIECE), validator='"old"'))
    assert fetch.sink.content == LARGE
    assert fetch.sink.restarts == 1


def test_a_file_without_validators_goes_on(server: FaultyServer, fetch: Download, url: str) -> None:
    fetched(fetch(url, start=LARGE[:PIECE]))
    assert "if-range" not in server.requests[0].headers
    assert fetch.sink.content == LARGE


# Faults that pass


def answer_503(handler: Handler) -> None:
    handler.answer(503, b"busy")


def answer_429(handler: Handler) -> None:
    handler.answer(429, b"", ("Retry-After", "0"))


def hang_up(handler: Handler) -> None:
    handler.hang_up()


def cut(handler: Handler) -> None:
    """Send a third of what was asked for."""
    content = LARGE if handler.path == "/large" else SMALL
    start, end = handler.part(len(content)) or (0, len(content))
    status = 206 if handler.headers.get("Range") else 200
    content_range = f"bytes {start}-{end - 1}/{len(content)}" if status == 206 else ""
    etag = handler.state.etag(handler.path)
    headers = (("ETag", etag), ("Content-Range", content_range))
    sent = content[start : start + (end - start) // 3]
    handler.answer(status, sent, *headers, length=end - start)
    handler.hang_up()


def send_less(handler: Handler) -> None:
    """Send half of what was asked for, and say so."""
    start, end = handler.part(len(LARGE)) or (0, 0)
    end -= (end - start) // 2
    content_range = f"bytes {start}-{end - 1}/{len(LARGE)}"
    handler.answer(206, LARGE[start:end], ("Content-Range", content_range))


@pytest.mark.parametrize("fault", [answer_503, answer_429, hang_up, cut, send_less])
def test_what_may_pass_is_tried_again(
    server: FaultyServer, fetch: Download, url: str, fault: Callable[[Handler], None]
) -> None:
    server.faults["/large"] = [fault, fault, None, fault, None, None, fault, fault]
    fetched(fetch(url))
    assert fetch.sink.content == LARGE
    assert fetch.sink.restarts == 0


def test_a_small_file_goes_on_where_it_was_cut(server: FaultyServer, fetch: Download) -> None:
    server.faults["/small"] = [cut]
    fetched(fetch(server.url + "/small", size=len(SMALL)))
    assert fetch.sink.content == SMALL
    assert [asked.start for asked in server.requests] == [0, len(SMALL) // 3]
    assert server.requests[1].headers["if-range"] == server.etag("/small")


def test_retries_count_anew_when_bytes_have_come(server: FaultyServer, fetch: Download) -> None:
    content = random.Random(3).randbytes(20 * PIECE)
    server.files["/slow"] = content

    def serve_a_piece(handler: Handler) -> None:
        start, _ = handler.part(len(content)) or (0, 0)
        etag, content_range = (
            server.etag("/slow"),
            f"bytes {start}-{len(content) - 1}/{len(content)}",
        )
        headers = (("ETag", etag), ("Content-Range", content_range))
        status = 206 if handler.headers.get("Range") else 200
        body = content[start : start + 2 * PIECE]
        handler.answer(status, body, *headers, length=len(content) - start)
        handler.hang_up()

    server.always["/slow"] = serve_a_piece
    outcome = fetch(
        server.url + "/slow",
        size=len(content),
        retries=1,
        min_piece_bytes=len(content),
        max_piece_bytes=len(content),
    )
    fetched(outcome)
    assert fetch.sink.content == content


def test_a_server_that_stalls_is_asked_again(
    server: FaultyServer, fetch: Download, url: str
) -> None:
    def stall(handler: Handler) -> None:
        start, end = handler.part(len(LARGE)) or (0, 0)
        content_range = f"bytes {start}-{end - 1}/{len(LARGE)}"
        body = LARGE[start : start + 1000]
        handler.answer(206, body, ("Content-Range", content_range), length=end - start)
        server.release.wait(60)

    server.faults["/large"] = [None, stall, None, stall]
    fetched(fetch(url, timeout_seconds=0.3))
    assert fetch.sink.content == LARGE


# Faults that stay


@pytest.mark.parametrize("fault", [answer_503, answer_429, hang_up])
def test_retries_come_to_an_end(
    server: FaultyServer, fetch: Download, url: str, fault: Callable[[Handler], None]
) -> None:
    server.always["/large"] = fault
    outcome = unfetched(fetch(url, retries=2))
    assert not outcome.is_missing
    assert outcome.problem.startswith(url + ": the server ")
    assert len(server.requests) == 3


def test_what_is_missing_is_told(server: FaultyServer, fetch: Download) -> None:
    outcome = unfetched(fetch(server.url + "/missing"))
    assert outcome.is_missing
    assert len(server.requests) == 1


def test_a_server_that_fails_too_often_is_left_alone(
    server: FaultyServer, make_client: MakeClient
) -> None:
    server.always["/large"] = answer_503
    source = Source((server.url + "/large",), len(LARGE))
    client = make_client(connections=1, retries=3)
    outcomes = [outcome for _, outcome in download(client, [(source, Sink())] * 5)]
    problems = [unfetched(outcome).problem for outcome in outcomes]
    assert [problem.endswith("failed too often") for problem in problems] == [False] * 2 + [
        True
    ] * 3
    assert len(server.requests) == 4 + 1


def whole(handler: Handler) -> None:
    """Ignore Range."""
    handler.answer(
        200, handler.state.files[handler.path], ("ETag", handler.state.etag(handler.path))
    )


@pytest.mark.parametrize("start", [0, PIECE + 5])
def test_a_server_may_ignore_ranges(
    server: FaultyServer, fetch: Download, url: str, start: int
) -> None:
    server.always["/large"] = whole
    outcome = fetched(fetch(url, start=LARGE[:start]))
    assert fetch.sink.content == LARGE
    assert outcome.bytes_received == len(LARGE)
    assert len(server.requests) == 1
    assert fetch.sink.restarts == 0


def test_a_server_may_begin_to_ignore_ranges(
    server: FaultyServer, fetch: Download, url: str
) -> None:
    server.faults["/large"] = [None, None, None]
    server.always["/large"] = whole
    fetched(fetch(url))
    assert fetch.sink.content == LARGE
    assert fetch.sink.restarts == 0


def test_a_whole_file_that_is_cut_comes_again_from_its_beginning(
    server: FaultyServer, fetch: Download, url: str
) -> None:
    def cut_whole(handler: Handler) -> None:
        etag = ("ETag", server.etag("/large"))
        handler.answer(200, LARGE[: 3 * PIECE], etag, length=len(LARGE))
        handler.hang_up()

    server.faults["/large"] = [cut_whole]
    server.always["/large"] = whole
    outcome = fetched(fetch(url))
    assert fetch.sink.content == LARGE
    assert outcome.bytes_received == len(LARGE) + 3 * PIECE


def test_a_whole_file_may_come_without_a_length(
    server: FaultyServer, fetch: Download, url: str
) -> None:
    def serve_unbounded(handler: Handler) -> None:
        handler.answer(200, LARGE, ("Connection", "close"), length=None)
        handler.close_connection = True

    server.always["/large"] = serve_unbounded
    fetched(fetch(url))
    assert fetch.sink.content == LARGE


def too_long(handler: Handler) -> None:
    handler.answer(200, handler.state.files[handler.path] + b"x")


def too_long_unannounced(handler: Handler) -> None:
    body = handler.state.files[handler.path] + b"x"
    handler.answer(200, body, ("Connection", "close"), length=None)
    handler.close_connection = True


def too_short(handler: Handler) -> None:
    handler.answer(200, handler.state.files[handler.path][:-1])


def other_total(handler: Handler) -> None:
    start, end = handler.part(len(LARGE)) or (0, 1)
    content_range = f"bytes {start}-{end - 1}/{len(LARGE) + 1}"
    handler.answer(206, LARGE[start:end], ("Content-Range", content_range))


def other_part(handler: Handler) -> None:
    start, end = handler.part(len(LARGE)) or (0, 1)
    content_range = f"bytes {start + 1}-{end}/{len(LARGE)}"
    handler.answer(206, LARGE[start + 1 : end + 1], ("Content-Range", content_range))


def out_of_range(handler: Handler) -> None:
    handler.answer(416, b"", ("Content-Range", "bytes */10"))


OTHERS = [too_long, too_long_unannounced, too_short, other_total, other_part, out_of_range]


@pytest.mark.parametrize("fault", OTHERS)
def test_another_file_is_refused_after_one_more_try(
    server: FaultyServer, fetch: Download, url: str, fault: Callable[[Handler], None]
) -> None:
    server.always["/large"] = fault
    outcome = unfetched(fetch(url, connections=1))
    assert "the server" in outcome.problem
    assert not outcome.is_missing
    assert len(server.requests) == 2
    assert len(fetch.sink.content) <= len(LARGE)


@pytest.mark.parametrize("fault", OTHERS)
def test_a_file_that_is_right_the_second_time_is_taken(
    server: FaultyServer, fetch: Download, url: str, fault: Callable[[Handler], None]
) -> None:
    server.faults["/large"] = [fault]
    fetched(fetch(url))
    assert fetch.sink.content == LARGE
    assert fetch.sink.restarts == 1


def test_a_file_that_changes_on_its_way_begins_again(
    server: FaultyServer, fetch: Download, url: str
) -> None:
    def change(handler: Handler) -> None:
        server.etags["/large"] = '"new"'
        server.files["/large"] = bytes(len(LARGE))
        handler.serve()

    server.faults["/large"] = [None, None, change]
    outcome = fetched(fetch(url))
    assert fetch.sink.content == bytes(len(LARGE))
    assert fetch.sink.restarts == 1
    assert outcome.validator == '"new"'


def test_a_part_of_another_state_is_noticed(
    server: FaultyServer, fetch: Download, url: str
) -> None:
    """The server ignores If-Range."""

    def serve_another(handler: Handler) -> None:
        start, end = handler.part(len(LARGE)) or (0, 1)
        content_range = f"bytes {start}-{end - 1}/{len(LARGE)}"
        headers = (("Content-Range", content_range), ("ETag", '"other"'))
        handler.answer(206, bytes(end - start), *headers)

    server.faults["/large"] = [None, serve_another]
    fetched(fetch(url))
    assert fetch.sink.content == LARGE
    assert fetch.sink.restarts == 1


def test_a_file_that_keeps_changing_is_given_up(
    server: FaultyServer, fetch: Download, url: str
) -> None:
    def change(handler: Handler) -> None:
        server.etags["/large"] = f'"{len(server.requests)}"'
        handler.serve()

    server.always["/large"] = change
    assert "replaced" in unfetched(fetch(url)).problem


def test_a_compressed_file_is_refused(server: FaultyServer, fetch: Download, url: str) -> None:
    server.always["/large"] = lambda handler: handler.answer(
        200, LARGE, ("Content-Encoding", "gzip")
    )
    assert "compressed" in unfetched(fetch(url)).problem
    assert fetch.sink.content == b""


# Other servers


@pytest.mark.parametrize("fault", [answer_503, hang_up, too_short, None])
def test_the_next_server_is_tried(
    server: FaultyServer,
    other: FaultyServer,
    fetch: Download,
    url: str,
    fault: Callable[[Handler], None] | None,
) -> None:
    other.files["/mirror/large"] = LARGE
    if fault is None:
        del server.files["/large"]
    else:
        server.always["/large"] = fault
    outcome = fetched(fetch(url, other.url + "/mirror/large", retries=1))
    assert fetch.sink.content == LARGE
    assert outcome.url == other.url + "/mirror/large"


def test_the_next_server_goes_on_with_what_there_is(
    server: FaultyServer, other: FaultyServer, fetch: Download, url: str
) -> None:
    other.files["/large"] = LARGE
    server.faults["/large"] = [None, None, None]
    server.always["/large"] = answer_503
    fetched(fetch(url, other.url + "/large", retries=1, connections=1))
    assert fetch.sink.content == LARGE
    assert min(parts(other)) == 3 * PIECE
    assert "if-range" not in other.requests[0].headers


@pytest.mark.parametrize(("status", "is_missing"), [(404, True), (403, False)])
def test_a_file_is_missing_if_no_server_has_it(
    server: FaultyServer, other: FaultyServer, fetch: Download, status: int, *, is_missing: bool
) -> None:
    other.always["/missing"] = lambda handler: handler.answer(status, b"")
    outcome = unfetched(fetch(server.url + "/missing", other.url + "/missing"))
    assert outcome.is_missing == is_missing
    assert outcome.problem.startswith(server.url + "/missing: the server answers 404")


def test_a_url_that_is_not_to_be_asked_is_told(fetch: Download) -> None:
    outcome = unfetched(fetch("ftp://me:secret@example.org/\x1b[2J"))
    assert "secret" not in outcome.problem


# Redirects


def test_all_pieces_come_from_where_a_redirect_leads(
    make_client: MakeClient, server: FaultyServer, other: FaultyServer, fetch: Download
) -> None:
    other.files["/large"] = LARGE
    server.always["/a"] = lambda handler: handler.answer(
        302, b"", ("Location", other.url + "/large")
    )
    outcome = fetched(fetch(server.url + "/a", allow_private=True))
    assert fetch.sink.content == LARGE
    assert outcome.url == other.url + "/large"
    assert len(server.requests) == 1


def test_a_redirect_to_a_private_address_is_refused(
    server: FaultyServer, other: FaultyServer, fetch: Download
) -> None:
    server.always["/a"] = lambda handler: handler.answer(
        302, b"", ("Location", other.url + "/large")
    )
    assert "private address" in unfetched(fetch(server.url + "/a")).problem
    assert other.requests == []


# Sinks, and ends


def test_a_full_disk_ends_the_file_only(server: FaultyServer, make_client: MakeClient) -> None:
    full, good = Sink(), Sink()
    full.error = OSError(errno.ENOSPC, "No space left on device")
    sources = [
        (Source((server.url + "/large",), len(LARGE)), full),
        (Source((server.url + "/small",), len(SMALL)), good),
    ]
    outcomes = dict(download(make_client(), sources))
    failed = unfetched(outcomes[0])
    assert failed.error is full.error
    assert failed.remedy == "free some space there"
    fetched(outcomes[1])
    assert good.content == SMALL


def test_a_sink_that_is_broken_ends_all(server: FaultyServer, make_client: MakeClient) -> None:
    class Broken(Sink):
        def write(self, piece: memoryview) -> None:
            raise RuntimeError("broken")

    source = Source((server.url + "/large",), len(LARGE))
    with pytest.raises(RuntimeError, match="broken"):
        list(download(make_client(), [(source, Broken())]))


def test_a_password_over_plain_http_ends_all(
    plain: FaultyServer, fetch: Download, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine localhost login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(UsageError, match="in clear"):
        fetch(plain.url + "/large")
    assert plain.requests == []


def test_nothing_is_nothing(make_client: MakeClient) -> None:
    assert list(download(make_client(), [])) == []


def test_whoever_leaves_early_has_his_sinks_for_himself(
    server: FaultyServer, make_client: MakeClient
) -> None:
    """One file has come; another hangs, although its server may be silent for a minute."""

    def hang(handler: Handler) -> None:
        handler.answer(
            206, LARGE[:10], ("Content-Range", f"bytes 0-65535/{len(LARGE)}"), length=PIECE
        )
        server.release.wait(60)
        handler.wfile.write(LARGE[10:PIECE])

    server.always["/large"] = hang
    sinks = [Sink(), Sink()]
    sources = [
        (Source((server.url + "/large",), len(LARGE)), sinks[0]),
        (Source((server.url + "/small",), len(SMALL)), sinks[1]),
    ]
    with closing(download(make_client(timeout_seconds=60), sources)) as outcomes:
        number, _ = next(outcomes)
    assert number == 1
    for sink in sinks:
        sink.is_over = True
    kept = bytes(sinks[0].content)
    server.release.set()
    for thread in threading.enumerate():
        if thread.name == "fastindex-download":
            thread.join(10)
    assert sinks[0].content == kept


def test_an_interrupt_ends_the_threads(server: FaultyServer, make_client: MakeClient) -> None:
    class Interrupt(BaseException):
        pass

    def interrupt(count: int) -> None:
        raise Interrupt

    def hang(handler: Handler) -> None:
        headers = ("Content-Range", f"bytes 0-65535/{len(LARGE)}")
        handler.answer(206, LARGE[:10], headers, length=PIECE)
        server.release.wait(60)

    server.always["/large"] = hang
    sources = [
        (Source((server.url + "/large",), len(LARGE)), Sink()),
        (Source((server.url + "/small",), len(SMALL)), Sink()),
    ]
    with pytest.raises(Interrupt):
        list(download(make_client(timeout_seconds=60), sources, interrupt))


@pytest.mark.parametrize("seed", range(20))
def test_random_faults_yield_the_right_bytes(
    server: FaultyServer, make_client: MakeClient, seed: int
) -> None:
    """Faults that pass, in any order, over several files and threads."""
    chance = random.Random(seed)
    contents, sinks, sources = [], [], []
    for number in range(6):
        path, content = f"/{number}", chance.randbytes(chance.randrange(1, 8 * PIECE))
        server.files[path] = content
        contents.append(content)

        def cut_somewhere(handler: Handler, content: bytes = content) -> None:
            start, end = handler.part(len(content)) or (0, len(content))
            status = 206 if handler.headers.get("Range") else 200
            content_range = f"bytes {start}-{end - 1}/{len(content)}" if status == 206 else ""
            headers = (
                ("ETag", handler.state.etag(handler.path)),
                ("Content-Range", content_range),
            )
            sent = content[start : start + chance.randrange(end - start)]
            handler.answer(status, sent, *headers, length=end - start)
            handler.hang_up()

        choices = [None, None, answer_503, hang_up, cut_somewhere, whole]
        server.faults[path] = [chance.choice(choices) for _ in range(15)]
        there = chance.choice([0, chance.randrange(len(content))])
        sinks.append(Sink(content[:there]))
        sources.append((Source((server.url + path,), len(content), there), sinks[-1]))
    client = make_client(retries=50, connections=chance.randint(1, 5))
    for _, outcome in download(client, sources):
        fetched(outcome)
    assert [bytes(sink.content) for sink in sinks] == contents

"""Who holds a copy of the catalogue learns of the next one, however soon it comes.

nginx makes its ETag of a file's size and the whole second of its modification; rsync
compares the same two.
"""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.catalogues import draft_product_file, publish_drafts
from tests.support.clients.mirror_server import Certificate, Mirror, opener
from tests.support.tools import needs
from tests.support.trees import product_file

FILE = "streams/v1/images.json"
GENERATIONS = 4


def publish_generation(root: Path, number: int) -> bytes:
    """Publish catalogues of equal length, one for each digit; return the product file."""
    draft = draft_product_file(str(root), product_file(f"{number}" * 64))
    publish_drafts(str(root), [draft])
    return b"".join(draft.read_chunks())


class Downloader:
    """Asks as proxies and resuming downloaders do."""

    def __init__(self, url: str, certificate: Path) -> None:
        self._opener = opener(certificate)
        self._url = url

    def get(self, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and header of an answer; ``_`` in a name stands for ``-``."""
        asked = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self._url}/{FILE}", headers=asked)
        try:
            with self._opener.open(request, timeout=10) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code, b"", dict(error.headers)


@pytest.fixture
def downloader(mirror: Mirror, certificate: Certificate) -> Downloader:
    return Downloader(mirror.url, certificate.path)


@pytest.mark.parametrize(
    ("condition", "validator"), [("If_None_Match", "ETag"), ("If_Modified_Since", "Last-Modified")]
)
def test_a_copy_is_not_taken_for_the_next_generation(
    mirror: Mirror, downloader: Downloader, condition: str, validator: str
) -> None:
    data = publish_generation(mirror.root, 0)
    for number in range(1, GENERATIONS):
        status, body, held = downloader.get()
        assert (status, body) == (200, data)
        assert downloader.get(**{condition: held[validator]})[0] == 304
        data = publish_generation(mirror.root, number)
        status, body, _ = downloader.get(**{condition: held[validator]})
        assert (status, body) == (200, data)


@pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
def test_a_resumed_download_never_joins_two_generations(
    mirror: Mirror, downloader: Downloader, validator: str
) -> None:
    data = publish_generation(mirror.root, 0)
    for number in range(1, GENERATIONS):
        status, begun, held = downloader.get(Range="bytes=0-99")
        assert (status, begun) == (206, data[:100])
        data = publish_generation(mirror.root, number)
        status, body, _ = downloader.get(Range="bytes=100-", If_Range=held[validator])
        assert (status, body) == (200, data)


def test_rsync_takes_each_generation(tmp_path: Path) -> None:
    rsync = needs("rsync", "apt-get install rsync")
    for number in range(GENERATIONS):
        data = publish_generation(tmp_path / "mirror", number)
        subprocess.run(
            [rsync, "--archive", f"{tmp_path / 'mirror'}/", tmp_path / "second"], check=True
        )
        copy = (tmp_path / "second" / FILE).read_bytes()
        assert copy == data

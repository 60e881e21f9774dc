"""Clients take the catalogue while it is published again and again: each file is a whole one.

python -m tests.support.faults.load --versions 100000 --clients 50 --seconds 300

For half of the time real builds follow each other as fast as they can; as one of 100,000
versions takes longer than a second, for the other half each second the program's last stage
publishes one of several prepared catalogues of that size, and a real build a small stream
beside it, which changes the index. Every answer is held against the files that were
published: a body must be one of them, byte for byte, that lay there between the request and
the head of the answer, and so must a copy that is said to be good (304).
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.support.clients.mirror_server import Certificate, make_certificate, serve
from tests.support.faults.load_clients import Answer, clients
from tests.support.faults.load_publisher import Generation, Publisher, Record, make_tree


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    record: Record
    answers: list[Answer]
    wrong: list[str]
    distinct: int
    """Files that were published, each of which decodes."""
    server_mib: float
    """Peak memory of the web server."""


def wrong_answers(answers: Iterable[Answer], generations: Iterable[Generation]) -> list[str]:
    """Return what is wrong with the answers; empty where each is one whole file of its time."""
    lying: dict[tuple[str, str], list[Generation]] = defaultdict(list)
    for generation in generations:
        lying[generation.path, generation.digest].append(generation)
    wrong: list[str] = []
    for answer in answers:
        what = f"{answer.kind}: {answer.path} {answer.status}"
        found = lying[answer.path, answer.digest]
        if answer.problem:
            wrong.append(f"{what}: {answer.problem}")
        elif not found:
            wrong.append(f"{what}: no generation ({answer.digest})")
        elif not any(one.since <= answer.begun and answer.asked <= one.until for one in found):
            passed = [answer.asked - one.until for one in found if one.until < answer.asked]
            when = f"gone for {min(passed):.2f} s" if passed else "not there yet"
            wrong.append(f"{what}: a generation of another time ({when})")
    return wrong


def load(
    work: Path,
    certificate: Certificate,
    *,
    versions: int,
    client_count: int,
    seconds: float,
    pause_seconds: float,
) -> Outcome:
    """Publish and fetch for so long.

    Args:
        work: an empty directory.
        certificate: what the web server shows.
        versions: of the mirror.
        client_count: how many clients at once.
        seconds: how long; half with builds, half at a pace.
        pause_seconds: the pace.
    """
    root, kept, nginx = work / "mirror", work / "kept", work / "nginx"
    for directory in (root, kept, nginx):
        directory.mkdir(parents=True)
    make_tree(root, versions)
    record = Record(root, kept)
    publisher = Publisher(record, versions)
    publisher.finish()
    record.seconds.clear()  # it read every file
    with serve(root, nginx, certificate) as mirror:
        with clients(client_count, mirror.url, certificate.path) as answers:
            publisher.build_in_a_loop(seconds / 2)
            publisher.publish_at_a_pace(seconds / 2, pause_seconds)
            publisher.finish()
        status = Path(f"/proc/{mirror.server_pid}/status").read_text()
    server_kib = re.search(r"VmHWM:\s+(\d+)", status)
    assert server_kib is not None
    wrong = wrong_answers(answers, record.generations())
    return Outcome(record, answers, wrong, record.decode_all(), int(server_kib[1]) / 1024)


def tell(outcome: Outcome) -> None:
    """Print the figures."""
    for what, seconds in outcome.record.seconds.items():
        print(
            f"{len(seconds)} {what}: median {statistics.median(seconds):.2f} s, "
            f"longest {max(seconds):.2f} s"
        )
    published = {path: len(changes) for path, changes in outcome.record.changes.items()}
    for path, count in published.items():
        size_bytes = (outcome.record.root / path).stat().st_size
        print(f"{path}: {count} times published, {size_bytes:,} bytes")
    counts = Counter((answer.kind, answer.status) for answer in outcome.answers)
    for (kind, status), count in sorted(counts.items()):
        print(f"{kind}: {count} × {status}")
    transferred_bytes = sum(answer.size_bytes for answer in outcome.answers)
    print(
        f"{len(outcome.answers):,} answers of {transferred_bytes:,} bytes; "
        f"{outcome.distinct} distinct files decoded; peak memory: the largest build "
        f"{outcome.record.peak_mib:.0f} MiB, the web server {outcome.server_mib:.0f} MiB"
    )
    for what in outcome.wrong[:50]:
        print(f"WRONG {what}")
    print(f"{len(outcome.wrong)} wrong answers")


def main() -> int:
    """Run the load as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--pause", type=float, default=1.0, help="the pace (default: 1 s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        outcome = load(
            work / "load",
            make_certificate(work),
            versions=arguments.versions,
            client_count=arguments.clients,
            seconds=arguments.seconds,
            pause_seconds=arguments.pause,
        )
        tell(outcome)
    return int(bool(outcome.wrong))


if __name__ == "__main__":
    sys.exit(main())

"""All that is published is fetched while an operator publishes: each answer is of one generation.

python -m tests.support.faults.served --seconds 300 --clients 20

Builds, prunes, imports, removes, deltas and pushes go on, some of them side by side, with all that
may accompany the catalogue. Clients come by HTTPS, plain, compressed and for what is signed, as the
documentation's web server serves it; by the documentation's script for rsync; and to a bucket.
Of each file of the catalogue a copy is kept at the moment at which it takes its place: every answer
must be one of them, byte for byte, that lay there between the request and the head of the answer.
Whatever it names must be there, whole, until the grace has passed since it was asked for.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.clients.mirror_server import Certificate, make_certificate
from tests.support.downstream import run_rsyncd
from tests.support.faults.served_clients import Answer, Lost, Places, Seen, clients
from tests.support.faults.served_publisher import Publisher
from tests.support.faults.served_record import INDEX, Generation, Record
from tests.support.object_store import KEYS, publish_store, serve_store
from tests.support.signing import make_signer
from tests.support.web_servers import run_as_shown


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    record: Record
    seen: dict[str, Seen]
    """What clients were given, by their kind."""
    pushes: int
    """How many generations of the index came into the bucket."""
    wrong: list[str]


Generations = Mapping[str, list[Generation]]
"""Path → what was published there."""


def find_wrong_answers(answers: Iterable[Answer], generations: Generations) -> list[str]:
    """Return what is wrong with the answers; empty where each is one whole file of its time."""
    wrong: list[str] = []
    for one in answers:
        found = [each for each in generations.get(one.path, []) if each.digest == one.digest]
        if not found:
            wrong.append(f"{one.kind}: {one.path}: of no generation ({one.digest})")
        elif not any(each.since <= one.begun and one.asked <= each.until for each in found):
            passed = [one.asked - each.until for each in found if each.until < one.asked]
            when = f"gone for {min(passed):.2f} s" if passed else "not there yet"
            wrong.append(f"{one.kind}: {one.path}: a generation of another time ({when})")
    return wrong


def find_wrong_losses(lost: Iterable[Lost], withdrawn: Mapping[str, float]) -> list[str]:
    """Return the products that an index named, that were gone, and not withdrawn by then."""
    return [
        f"{one.kind}: {one.product}: in the index, and not in the product file that came after it"
        for one in lost
        if one.begun < withdrawn.get(one.product, float("inf"))
    ]


def list_pushed(pushed: Iterable[tuple[str, str, float, float]]) -> Generations:
    """Return what was in a bucket, from what each push put there, when it began and ended."""
    ends: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
    for path, digest, begun, ended in pushed:
        ends[path].append((digest, begun, ended))
    return {
        path: [
            Generation(digest, begun, until)
            for (digest, begun, _), until in zip(
                files, [*(ended for _, _, ended in files[1:]), float("inf")], strict=True
            )
        ]
        for path, files in ends.items()
    }


def load(
    work: Path, certificate: Certificate, *, client_count: int, seconds: float, grace_seconds: int
) -> Outcome:
    """Publish and fetch for so long.

    Args:
        work: an empty directory.
        certificate: what the web servers show.
        client_count: how many clients of each kind.
        seconds: how long.
        grace_seconds: how long files outlive the catalogues that name them.
    """
    places = [work / name for name in ("mirror", "kept", "nginx", "proxy", "rsync", "made")]
    for directory in places:
        directory.mkdir(parents=True)
    root, kept, nginx, proxy, rsync, made = places
    with (
        make_signer("mirror") as signer,
        serve_store(work / "s3", is_open=True) as store,
        run_as_shown("nginx", root, nginx, certificate) as url,
        publish_store(store, proxy, certificate) as bucket_url,
        run_rsyncd(root, rsync) as rsync_url,
    ):
        store.is_atomic = True
        record = Record(root, kept, {**KEYS, "GNUPGHOME": str(signer.home)})
        options = ("--gzip", "--zstd", "--lists", "--page", "--sign", "mirror@example.org")
        publisher = Publisher(record, made, store, f"{grace_seconds}s", options)
        publisher.begin()
        urls = dict.fromkeys(("plain", "gz", "signed"), url)
        urls |= {"rsync": rsync_url, "bucket": bucket_url}
        asking = Places(urls, certificate.path, signer.keyring, work, grace_seconds)
        with clients(client_count, asking) as seen:
            publisher.publish(seconds)
        wrong = [*record.wrong, *record.find_foreign_companions(signer.keyring)]
    pushed = list_pushed(publisher.pushed)
    for kind, one in seen.items():
        generations = pushed if kind == "bucket" else record.generations
        wrong += one.wrong
        wrong += find_wrong_answers(one.answers, generations)
        wrong += find_wrong_losses(one.lost, record.withdrawn)
    return Outcome(record, seen, len(pushed[INDEX]), wrong)


def tell(outcome: Outcome) -> None:
    """Print the figures."""
    runs = ", ".join(f"{count} × {what}" for what, count in outcome.record.counts.items())
    print(runs)
    for path, generations in sorted(outcome.record.generations.items()):
        if path.startswith("streams/v1/"):
            print(f"{path}: {len(generations)} times published")
    print(
        f"{outcome.record.count_deltas()} deltas published; "
        f"{outcome.pushes} generations of the index in the bucket"
    )
    for kind, seen in outcome.seen.items():
        distinct = Counter(
            answer.path for answer in {(a.path, a.digest): a for a in seen.answers}.values()
        )
        print(
            f"{kind}: {seen.visits:,} catalogues, {len(seen.answers):,} answers with "
            f"{sum(distinct.values())} distinct files of them, {seen.files:,} files of images, "
            f"{seen.late} gone after the grace, {len(seen.lost)} products withdrawn between index "
            f"and product file, {seen.retries} runs to be repeated"
        )
    for what, count in Counter(outcome.wrong).most_common(50):
        print(f"WRONG {count} × {what}")
    print(f"{len(outcome.wrong)} wrong")


def main() -> int:
    """Run the load as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=20, help="of each kind (default: 20)")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--grace", type=int, default=20, help="in seconds (default: 20)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        outcome = load(
            work / "load",
            make_certificate(work),
            client_count=arguments.clients,
            seconds=arguments.seconds,
            grace_seconds=arguments.grace,
        )
        tell(outcome)
    return int(bool(outcome.wrong))


if __name__ == "__main__":
    sys.exit(main())

"""A program that uses every public name, for mypy: nothing runs it."""

from __future__ import annotations

import math
import os
import sys
from concurrent.futures import Executor
from pathlib import Path

import fastindex


class Listener(fastindex.Observer):
    """Prints what it hears."""

    wants_progress = True

    def hashing_started(self, total_bytes: int) -> None:
        print(total_bytes)

    def bytes_hashed(self, done_bytes: int) -> None:
        print(done_bytes)

    def hashing_finished(self) -> None:
        print("done")

    def warn(self, finding: fastindex.Finding) -> None:
        print(finding.path, finding.problem, finding.remedy, finding.versions_left_out)

    def log(self, message: str) -> None:
        print(message)


def build(mirror: fastindex.Mirror, executor: Executor | None) -> fastindex.ExitCode:
    report: fastindex.BuildReport = mirror.build(
        jobs=16,
        engine="hashlib",
        recheck="1/30",
        settle_seconds=120,
        wait_seconds=math.inf,
        executor=executor,
        observer=Listener(),
    )
    changes: tuple[fastindex.Change, ...] = mirror.diff(jobs=None).changes
    for change in changes:
        print(change.kind, change.stream, change.product, change.version, change.size_bytes)
    left_out: int = report.versions_left_out + report.files_left_out
    print(left_out, report.wrote, report.refusal, report.product_files.get("images", b""))
    return report.exit_code


def bring_in(mirror: fastindex.Mirror, sources: list[str | os.PathLike[str]]) -> list[str]:
    report: fastindex.ImportReport = mirror.import_images(sources, mode="copy", os="debian")
    steps: tuple[fastindex.Step, ...] = report.steps
    return [*report.imported, *(f"{step.verb} {step.path} {step.target}" for step in steps)]


def check(mirror: fastindex.Mirror) -> str:
    report: fastindex.VerifyReport = mirror.verify(method="sha256")
    mismatches: tuple[fastindex.Mismatch, ...] = report.mismatches
    images: tuple[fastindex.Image, ...] = mirror.list(every_version=True)
    names = [image.fingerprint for image in images if image.type == "container"]
    codes: set[fastindex.Code] = {finding.code for finding in report.findings}
    return ", ".join([*names, *codes, *(mismatch.problem for mismatch in mismatches)])


def tell(mirror: fastindex.Mirror) -> list[str]:
    report: fastindex.StatusReport = mirror.status(max_age_seconds=86400.0, grace_seconds=60.0)
    streams: tuple[fastindex.StreamStatus, ...] = report.streams
    products: tuple[fastindex.ProductStatus, ...] = report.products
    runs: tuple[fastindex.RunStatus, ...] = report.runs
    known: tuple[fastindex.ToldFinding, ...] = report.known
    waiting: tuple[fastindex.WaitingVersion, ...] = report.waiting
    damaged: tuple[fastindex.DamagedFile, ...] = report.damaged
    return [
        *(stream.name for stream in streams),
        *(product.path for product in products if product.is_old),
        *(run.command for run in runs),
        *(finding.since for finding in known),
        *(version.deleted_after for version in waiting),
        *(file.path for file in damaged),
    ]


def shrink(mirror: fastindex.Mirror) -> fastindex.PruneReport:
    mirror.remove(["debian/12"], grace_seconds=0.5)
    withdrawn: tuple[str, ...] = mirror.prune(keep=2, keep_days=30).withdrawn
    return mirror.restore(iter(withdrawn), dry_run=True)


def derive(mirror: fastindex.Mirror) -> fastindex.DeltasReport:
    made: tuple[str, ...] = mirror.make_deltas(per_root=2, max_ratio=50, dry_run=True).made
    return mirror.make_deltas(max_memory_bytes=len(made) or None, jobs=1)


def put(mirror: fastindex.Mirror) -> fastindex.PushReport:
    report = mirror.push("s3://bucket/prefix", endpoint="https://s3.example.org", dry_run=True)
    waiting: int = report.waiting
    return report if waiting else mirror.push("file:///srv/bucket", grace_seconds=3600)


def follow(mirror: fastindex.Mirror) -> fastindex.PullReport:
    report = mirror.pull("https://images.example.org", filters=["os=debian"], keep=2, dry_run=True)
    fetched: int = report.bytes_fetched + report.bytes_to_fetch
    return report if fetched else mirror.pull("file:///srv/images", ca_file=Path("ca.pem"))


def look(url: str) -> fastindex.ExitCode:
    report: fastindex.CheckReport = fastindex.check(url, sample=5, max_age_seconds=86400.0)
    print(report.mismatches, report.findings, report.files, report.bytes_read)
    return report.exit_code


def main() -> int:
    try:
        mirror = fastindex.Mirror(Path("images"), output="out", cache_dir=None, streams=("a", "b"))
        print(mirror.root, mirror.output, mirror.cache_dir, mirror.streams)
        code = max(build(mirror, None), look("https://images.example.org"))
        print(
            bring_in(mirror, ["a", Path("b")]),
            check(mirror),
            shrink(mirror).exit_code,
            tell(mirror),
        )
    except (fastindex.LockHeldError, fastindex.BrakeError) as error:
        return error.exit_code
    except (fastindex.TreeError, fastindex.PublishError, fastindex.ResourceError):
        return fastindex.ExitCode.FAILED
    except fastindex.UsageError as error:
        print(error, fastindex.__version__)
        return error.exit_code
    except fastindex.FastindexError as error:
        return int(error.exit_code)
    return code


if __name__ == "__main__":
    sys.exit(main())

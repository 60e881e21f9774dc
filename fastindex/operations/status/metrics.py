"""Pure: how a mirror is → metrics for Prometheus' textfile collector.

Format: the text exposition format, version 0.0.4; names and units as
https://prometheus.io/docs/practices/naming/ has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from fastindex.formats.names import find_version_time
from fastindex.mirror.state.runs import RunRecord, ToldFinding, make_encodable
from fastindex.operations.status.options import ProductStatus, StatusReport

Labels = Mapping[str, str]


class Metric(Struct, frozen=True):
    """A gauge: something that was measured, by its labels."""

    name: str
    """Its name, without ``fastindex_``."""
    text: str
    """What it is."""
    samples: Sequence[tuple[Labels, float]]
    """Labels → value."""


def list_metrics(records: Iterable[RunRecord], status: StatusReport | None) -> Iterator[Metric]:
    """Yield the metrics of a mirror.

    Args:
        records: the last run of each command.
        status: how the mirror is; None: that cannot be told, as when its index is torn.
    """
    runs = list(records)
    yield from _describe_runs(runs)
    yield Metric(
        "catalogue_readable",
        "Whether the published index could be read after the last run.",
        [({}, float(status is not None))],
    )
    if status is not None:
        yield from _describe_publication(status)
        yield from _describe_findings(status.known)
        yield from _describe_rest(status)
    is_healthy = status is not None and not status.findings
    yield Metric("healthy", "Whether status would end with 0.", [({}, float(is_healthy))])


def format_metrics(metrics: Iterable[Metric], root: str) -> bytes:
    """Return the metrics as text, each sample with the label ``root``.

    Args:
        metrics: the metrics.
        root: ROOT.
    """
    lines: list[str] = []
    for metric in metrics:
        if metric.samples:
            name = f"fastindex_{metric.name}"
            lines += [f"# HELP {name} {metric.text}", f"# TYPE {name} gauge"]
            lines += [
                f"{name}{{{_format_labels({'root': root, **labels})}}} {_format_value(value)}"
                for labels, value in metric.samples
            ]
    return "".join(f"{line}\n" for line in lines).encode()


def _describe_runs(runs: Sequence[RunRecord]) -> Iterator[Metric]:
    for name, text, field in (
        ("last_run_timestamp_seconds", "When the last run began.", "began"),
        ("last_run_duration_seconds", "How long the last run took.", "seconds"),
        ("last_run_exit_code", "How the last run ended.", "exit_code"),
        (
            "last_success_timestamp_seconds",
            "When the last run began that did its work, exit code 0 or 3; 0: none.",
            "succeeded",
        ),
    ):
        samples = [({"command": run.command}, float(getattr(run, field))) for run in runs]
        yield Metric(name, text, samples)
    for name, text, field in (
        ("last_run_read_bytes", "Bytes of files that the last run read.", "bytes_read"),
        ("last_run_fetched_bytes", "Bytes that the last run fetched.", "bytes_fetched"),
        ("last_run_lock_wait_seconds", "How long the last run waited for locks.", "lock_seconds"),
    ):
        samples = [({"command": run.command}, float(getattr(run.figures, field))) for run in runs]
        yield Metric(name, text, samples)
    stages = [
        ({"command": run.command, "stage": stage}, float(getattr(run.figures, f"{stage}_seconds")))
        for run in runs
        for stage in ("scanning", "hashing", "publishing", "fetching")
    ]
    yield Metric("last_run_stage_duration_seconds", "How long a stage of it took.", stages)


def _describe_publication(status: StatusReport) -> Iterator[Metric]:
    for name, text, field in (
        ("published_products", "Products that are published.", "products"),
        ("published_versions", "Versions that are published.", "versions"),
        ("published_size_bytes", "The size of the published files.", "size_bytes"),
    ):
        samples = [({"stream": one.name}, float(getattr(one, field))) for one in status.streams]
        yield Metric(name, text, samples)
    yield Metric(
        "product_newest_timestamp_seconds",
        "The time in the name of a product's newest version.",
        [
            (_split_path(one.path), find_version_time(one.newest))
            for one in sorted(status.products, key=_by_path)
        ],
    )
    yield Metric(
        "product_old",
        "Whether that is older than it may be.",
        [
            (_split_path(one.path), float(one.is_old))
            for one in sorted(status.products, key=_by_path)
            if one.max_age_seconds is not None
        ],
    )


def _describe_findings(known: Sequence[ToldFinding]) -> Iterator[Metric]:
    counts = Counter(one.code for one in known)
    yield Metric(
        "findings",
        "What the last build and the last pull found, by kind.",
        [({"code": code}, float(counts[code])) for code in sorted(counts)],
    )
    versions: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for one in known:
        versions[one.code] += one.versions_left_out
        files[one.code] += one.files_left_out
    for name, found in (("versions", versions), ("files", files)):
        samples = [({"code": code}, float(found[code])) for code in sorted(found) if found[code]]
        text = f"{name.capitalize()} that are not published, by the kind of the reason."
        yield Metric(f"left_out_{name}", text, samples or [({"code": ""}, 0.0)])


def _describe_rest(status: StatusReport) -> Iterator[Metric]:
    for name, text, value in (
        ("damaged_files", "Files that are known to be damaged.", len(status.damaged)),
        ("withdrawn_versions", "Versions that wait for prune.", len(status.waiting)),
        ("leftover_directories", "Directories that prune will clear.", len(status.leftovers)),
        ("disk_free_bytes", "What the disk has left, but for 1 %.", status.bytes_free),
    ):
        yield Metric(name, text, [({}, float(value))])


def _split_path(path: str) -> Labels:
    stream, _, product = path.partition("/")
    return {"stream": stream, "product": product}


def _format_labels(labels: Labels) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())


def _escape(value: str) -> str:
    text = make_encodable(value)
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _format_value(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.3f}"


def _by_path(product: ProductStatus) -> str:
    return product.path

"""What a run tells besides the catalogue: its report, its metrics, its record, its programs.

Each is whole: what was there before, or what an undisturbed run writes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from fastindex.formats.simplestreams import decode_state
from fastindex.mirror.state.runs import RunRecord

SETTINGS = "etc/fastindex.toml"
REPORT, METRICS = "told/report.json", "told/fastindex.prom"
REPORT_IN_STREAMS = "streams/.nightly-report.json"
OLD = b"old\n"
"""What stood in a report and in metrics before."""
HOOKS = ("on_publish", "on_failure")

_HOOK = """\
#!/bin/sh
echo "$1" >> {log}
"""
_METRIC = re.compile(rb'fastindex_[a-z_]+\{root="[^"\n]+"(,[a-z]+="[^"\n]*")*\} [0-9.]+')
_LAST_METRICS = (b"fastindex_healthy", b"fastindex_catalogue_readable")
"""Either ends the metrics; the second where the index cannot be read."""


def prepare(root: Path, output: Path, settings: str) -> None:
    """Leave an old report and old metrics, and write a configuration whose programs are real.

    Args:
        root: of the mirror, in a directory of its own.
        output: the directory with ``streams/`` in it.
        settings: TOML, with ``{work}`` for that directory.
    """
    work = root.parent
    for path in _list_files(work, output):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(OLD)
    # Outside of what is disturbed: what they do is not the run's.
    log, hook = work.with_name("hooked"), work.with_name("hook")
    log.write_bytes(b"")
    hook.write_text(_HOOK.format(log=log))
    hook.chmod(0o755)
    path = work / SETTINGS
    path.parent.mkdir(exist_ok=True)
    hooks = [f'{name} = ["{hook}", "{name}"]' for name in HOOKS]
    lines = ["[mirror.main]", f'root = "{root}"', *hooks, settings.format(work=work)]
    path.write_text("\n".join(lines))
    path.chmod(0o600)


def check(root: Path, output: Path) -> None:
    """Hold what a disturbed run has told against what must always hold."""
    for path in _list_files(root.parent, output):
        content = path.read_bytes()
        assert content == OLD or _is_whole(path.name, content), f"{path}: {content[-200:]!r}"
    for path in (output / "streams").glob(".run-*.json"):
        decode_state(path.read_bytes(), RunRecord)
    ran = Counter(root.parent.with_name("hooked").read_text().splitlines())
    assert ran.keys() <= set(HOOKS), ran
    assert max(ran.values(), default=0) <= 1, ran


def check_ended(root: Path, output: Path) -> None:
    """Hold what is told once all is well: nothing is left beside it."""
    for path in _list_files(root.parent, output):
        assert not path.with_name(f".{path.name.lstrip('.')}.tmp").exists()


def _list_files(work: Path, output: Path) -> list[Path]:
    return [work / REPORT, work / METRICS, output / REPORT_IN_STREAMS]


def _is_whole(name: str, content: bytes) -> bool:
    if name.endswith(".json"):
        return content.endswith(b"}\n") and json.loads(content)["schema"] == 1
    lines = [line for line in content.splitlines() if not line.startswith(b"#")]
    is_whole = content.endswith(b"\n") and lines[-1].startswith(_LAST_METRICS)
    return is_whole and all(map(_METRIC.fullmatch, lines))

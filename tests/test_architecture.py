"""The rules that keep the house as it is, read from the imports and the syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fastindex

PACKAGE = Path(fastindex.__file__).parent
FLOORS = (
    ("errors",),
    ("interrupt",),
    ("contract",),
    ("names",),
    ("model",),
    ("interface",),
    ("import_interface",),
    ("upkeep_interface",),
    ("bench_interface",),
    ("directories",),
    ("locks",),
    ("atomic",),
    ("yaml_strings",),
    ("image_metadata",),
    ("tar_members",),
    ("tarball",),
    ("recognition",),
    ("notes",),
    ("scan",),
    ("settling",),
    ("withdrawals",),
    ("requirements",),
    ("product_toml",),
    ("image_yaml",),
    ("settings",),
    ("cache",),
    ("staging",),
    ("removal",),
    ("recheck",),
    ("snapshot",),
    ("engine",),
    ("disks",),
    ("hashing",),
    ("batching",),
    ("plan",),
    ("reading",),
    ("digest",),
    ("workers",),
    ("pool",),
    ("catalogue",),
    ("conflicts",),
    ("publish",),
    ("waiting",),
    ("rebuild",),
    ("pipeline",),
    ("published",),
    ("images",),
    ("verify_plan",),
    ("verify",),
    ("prune_plan",),
    ("deletion",),
    ("prune",),
    ("import_plan",),
    ("import_job",),
    ("importer",),
    ("bench_advice",),
    ("bench_crew",),
    ("bench_memory",),
    ("bench_parts",),
    ("bench_disk",),
    ("bench",),
    ("report",),
    ("bench_words",),
    ("command",),
    ("import_command",),
    ("verify_command",),
    ("list_command",),
    ("prune_command",),
    ("remove_command",),
    ("diff_command",),
    ("bench_command",),
    ("build_command",),
    ("cli",),
    ("__main__",),
)
"""Each may import those above it in this list, which stand lower in the house."""
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
MOST_LINES = 350


def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text())


def imports(module: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module == "fastindex":
            found |= {alias.name for alias in node.names if alias.name != "__version__"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastindex."):
            found.add((node.module or "").removeprefix("fastindex."))
    return found


def calls(module: str) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree(module)) if isinstance(node, ast.Call)}


def strings(module: str) -> set[str]:
    return {
        node.value
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_module_has_a_floor() -> None:
    assert sorted(name for floor in FLOORS for name in floor) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_upwards(module: str) -> None:
    order = [name for floor in FLOORS for name in floor]
    compiled = {"_lanes"} if module == "engine" else set()
    assert imports(module) <= set(order[: order.index(module)]) | compiled


@pytest.mark.parametrize("module", MODULES)
def test_only_report_prints(module: str) -> None:
    prints = {"print", "sys.stdout.write", "sys.stderr.write"} & calls(module)
    assert not prints or module == "report"


@pytest.mark.parametrize("module", MODULES)
def test_only_atomic_writes(module: str) -> None:
    writes = {
        "os.rename",
        "os.replace",
        "os.write",
        "os.pwritev",
        "os.unlink",
        "os.makedirs",
        "open",
    }
    assert not writes & calls(module) or module in {"atomic", "locks", "staging", "removal"}


@pytest.mark.parametrize("module", MODULES)
def test_only_digest_reads_images_and_only_it_hashes(module: str) -> None:
    # What bench reads of images it throws away: it has no path from there to a digest.
    reads = {"reading", "bench_parts", "bench_disk"}
    assert ("os.preadv" in calls(module)) is (module in reads)
    assert module not in reads or "engine" not in imports(module)
    assert "reading" not in imports(module) or module == "digest"
    assert not {"hashlib.sha256", "engine.sha256"} & calls(module) or module == "engine"


@pytest.mark.parametrize("module", MODULES)
def test_only_contract_knows_a_json_key(module: str) -> None:
    keys = {"combined_squashfs_sha256", "combined_disk-kvm-img_sha256", "image-downloads"}
    assert not keys & strings(module) or module == "contract"


@pytest.mark.parametrize("module", MODULES)
def test_modules_stay_small_and_named(module: str) -> None:
    assert len((PACKAGE / f"{module}.py").read_text().splitlines()) <= MOST_LINES
    assert module not in {"utils", "helpers", "common", "core"}

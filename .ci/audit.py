"""Whether what fastindex needs has a known vulnerability: as installed here, and at its lowest.

Ends with 1 if so. Where the advisory service cannot be reached, or does not know a package,
that is told and is no failure: the sources have not changed by it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def wanted() -> list[Requirement]:
    """Return what fastindex needs here to run and to be built."""
    project = tomllib.loads(PROJECT.read_text())
    lines = project["project"]["dependencies"] + project["build-system"]["requires"]
    return [need for line in lines if applies(need := Requirement(line))]


def applies(need: Requirement) -> bool:
    """Return whether ``need`` is one here, and of no extra."""
    return need.marker is None or need.marker.evaluate({"extra": ""})


def installed() -> dict[str, str]:
    """Return package → version of all that is needed, and of what that needs."""
    found: dict[str, str] = {}
    waiting = wanted()
    while waiting:
        name = waiting.pop().name
        if name not in found:
            found[name] = metadata.version(name)
            needs = map(Requirement, metadata.requires(name) or ())
            waiting += [need for need in needs if applies(need)]
    return found


def lowest() -> dict[str, str]:
    """Return package → lowest version that ``pyproject.toml`` allows."""
    return {
        need.name: specifier.version
        for need in wanted()
        for specifier in need.specifier
        if specifier.operator == ">="
    }


def audit(what: str, versions: dict[str, str]) -> int:
    """Ask about ``versions`` and tell the answer; return 1 where one is vulnerable."""
    with tempfile.TemporaryDirectory() as directory:
        pins = Path(directory) / "pins"
        pins.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()))
        command = [sys.executable, "-m", "pip_audit", "--progress-spinner=off", "--format=json"]
        command += ["--disable-pip", "--no-deps", "--requirement", str(pins)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answers = json.loads(done.stdout)["dependencies"]
    except ValueError:
        reason = (done.stderr.strip() or "no answer").splitlines()[-1]
        print(f"{what}: not audited, the advisory service cannot be reached ({reason})")
        return 0
    unknown = [answer["name"] for answer in answers if "skip_reason" in answer]
    bad = [answer for answer in answers if answer.get("vulns")]
    for answer in bad:
        for one in answer["vulns"]:
            fixes = ", ".join(one["fix_versions"]) or "no version"
            print(f"{what}: {answer['name']} {answer['version']}: {one['id']}, mended in {fixes}")
    if unknown:
        print(f"{what}: not audited, unknown to the advisory service: {', '.join(unknown)}")
    clean = len(answers) - len(unknown) - len(bad)
    print(f"{what}: {clean} of {len(answers)} packages without known vulnerabilities")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(audit("installed", installed()) | audit("lowest allowed", lowest()))

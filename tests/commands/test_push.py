"""``fastindex push``: the command against a real server of the S3 protocol, and what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fastindex.errors import ExitCode
from tests.support.command import COMMAND, UNMEASURED, Run
from tests.support.contents import make_content, make_squashfs
from tests.support.object_store import BUCKET, KEYS, Request, Store, serve_store
from tests.support.trees import OLD_NS, Files, sha256, stamps, version, write_file, write_tree

INDEX, PRODUCTS = "streams/v1/index.json", "streams/v1/images.json"
MANIFEST = "streams/.push.json"
DEBIAN, OLD, NEW = "debian/12/amd64/default", "20240505_05:24", "20240506_05:24"
PATH = f"images/{DEBIAN}/{OLD}"
ROOT_FILE, METADATA_FILE = f"{PATH}/rootfs.squashfs", f"{PATH}/incus.tar.xz"
BOTH = {ROOT_FILE, METADATA_FILE}

NUMBERS = count()
"""Each test has a prefix of its own."""

Push = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Return the store; all tests of this module share its process."""
    with serve_store(tmp_path_factory.mktemp("store") / "s3") as store:
        yield store


@pytest.fixture
def store(server: Store) -> Store:
    """Return an empty bucket."""
    server.prefix = f"mirror-{next(NUMBERS)}"
    server.fault = server.before = None
    server.hidden = ""
    server.keeps_conditions = True
    server.requests.clear()
    return server


@pytest.fixture
def environment(store: Store) -> dict[str, str]:
    """Return the environment of who pushes to the store."""
    return {**os.environ, **KEYS, "AWS_ENDPOINT_URL": store.endpoint}


@pytest.fixture
def push(store: Store, root: Path, environment: dict[str, str]) -> Push:
    """Return what pushes the mirror, and expects an exit code."""

    def run(*words: object, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [COMMAND, "push", *map(str, words), root, store.url],
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def build(root: Path, fastindex: Run) -> Callable[..., None]:
    """Return what writes files into the mirror, and publishes it."""

    def run(tree: Files | None = None, *options: object) -> None:
        write_tree(root, tree or {})
        done = fastindex(*options, root)
        assert done.returncode == 0, done.stderr

    return run


Build = Callable[..., None]


def big(size_bytes: int = 20_000_000, path: str = f"{DEBIAN}/{OLD}") -> Files:
    """Return a version with a root that is put in parts."""
    body = Random(size_bytes).randbytes(size_bytes)
    return version(path) | version(path, rootfs_squashfs=make_squashfs(body))


def manifest(store: Store) -> dict[str, Any]:
    """Return the objects of the manifest."""
    objects: dict[str, Any] = json.loads((store.objects / MANIFEST).read_bytes())["objects"]
    return objects


def assert_whole(store: Store) -> set[str]:
    """See that the catalogue in the bucket names nothing that is missing or differs; return it."""
    index = json.loads((store.objects / INDEX).read_bytes())
    named = set()
    for entry in index["index"].values():
        file = json.loads((store.objects / entry["path"]).read_bytes())
        for product in file["products"].values():
            for one in product["versions"].values():
                for item in one["items"].values():
                    assert sha256((store.objects / item["path"]).read_bytes()) == item["sha256"]
                    named.add(item["path"])
    return named


def same(root: Path, store: Store, path: str) -> bool:
    """Return whether a file is in the bucket as it is in the mirror."""
    return (root / path).read_bytes() == (store.objects / path).read_bytes()


def test_all_that_is_published_is_put_there_the_index_last(
    root: Path, store: Store, push: Push, build: Build
) -> None:
    build(big() | version(f"debian/13/amd64/default/{OLD}"))
    done = push()
    assert store.names() == assert_whole(store) | {INDEX, PRODUCTS}
    assert len(store.names()) == 6
    assert all(same(root, store, path) for path in store.names())
    puts = [one.path for one in store.requests if one.method in ("PUT", "POST")]
    ours = [path.removeprefix(f"/{BUCKET}/{store.prefix}/") for path in puts]
    documents = [path for path in ours if path.startswith("streams/v1")]
    assert documents == [PRODUCTS, INDEX]
    first = ours.index(PRODUCTS)
    assert not any(path.startswith("images/") for path in ours[first:])
    assert "6 objects uploaded" in done.stderr


def test_a_quiet_push_prints_nothing(push: Push, build: Build, store: Store) -> None:
    build(version(f"{DEBIAN}/{OLD}"))
    done = push("--quiet")
    assert (done.stdout, done.stderr) == ("", "")
    assert_whole(store)


def test_objects_say_how_they_are_to_be_served(
    root: Path, store: Store, push: Push, build: Build
) -> None:
    build(version())
    push()
    headers = {path: store.read_headers(path) for path in (ROOT_FILE, METADATA_FILE, INDEX)}
    assert headers[ROOT_FILE]["sha256"] == sha256((root / ROOT_FILE).read_bytes())
    assert headers[ROOT_FILE]["Cache-Control"] == "public, max-age=31536000, immutable"
    assert headers[ROOT_FILE]["Content-Type"] == "application/octet-stream"
    assert headers[METADATA_FILE]["Content-Type"] == "application/x-xz"
    assert headers[INDEX]["Content-Type"] == "application/json"
    assert headers[INDEX]["Cache-Control"] == "public, max-age=60"
    assert not any("Content-Encoding" in one for one in headers.values())


def test_a_second_push_writes_nothing_and_lists_once_a_thousand(
    store: Store, push: Push, build: Build
) -> None:
    tree: Files = {}
    for number in range(600):
        tree |= version(f"debian/{number}/amd64/default/{OLD}")
    build(tree)
    push()
    assert len(store.names()) == 1_202
    store.requests.clear()
    done = push()
    counts = store.count()
    assert set(counts) == {"list", "get"}
    assert counts["list"] <= 2  # 1,203 objects
    assert counts["get"] == 1  # the manifest
    assert "nothing uploaded" in done.stderr
    store.requests.clear()
    build(version(f"debian/0/amd64/default/{NEW}"))
    push()
    counts = store.count()
    assert counts["list"] <= 4
    assert counts["put"] == 2 + 1 + 2 + 2  # files; product file; manifests; conditions tried


def test_what_is_no_longer_named_goes_after_the_grace(
    root: Path, store: Store, push: Push, build: Build, fastindex: Run
) -> None:
    build(version() | version(f"{DEBIAN}/{NEW}"))
    push()
    assert fastindex("prune", "--keep", 1, "--grace", 0, root).returncode == 0
    assert not (root / PATH).exists()
    push("--force")
    assert store.names() >= BOTH
    assert ROOT_FILE not in assert_whole(store)
    assert {path for path, one in manifest(store).items() if "unnamed_at" in one} == BOTH
    store.requests.clear()
    push()
    assert "put" not in store.count()
    done = push("--grace", 0)
    assert not store.names() & BOTH
    assert f"deleted {ROOT_FILE}" in done.stdout
    assert not BOTH & manifest(store).keys()
    assert_whole(store)


def test_what_is_named_again_stays(
    root: Path, store: Store, push: Push, build: Build, fastindex: Run
) -> None:
    build(version() | version(f"{DEBIAN}/{NEW}"))
    push()
    assert fastindex("prune", "--keep", 1, root).returncode == 0
    push()
    assert fastindex("prune", "--undo", PATH, root).returncode == 0
    store.requests.clear()
    push("--grace", 0)
    assert store.names() >= BOTH
    assert not any("unnamed_at" in one for one in manifest(store).values())
    assert not any("rootfs" in one.path for one in store.requests if one.method == "PUT")


def test_what_others_put_there_is_never_deleted(
    root: Path, store: Store, push: Push, build: Build
) -> None:
    store.put("images/others/file", b"theirs")
    build(version())
    push("--grace", 0)
    build(version(f"{DEBIAN}/{NEW}"))
    shutil.rmtree(root / PATH)
    build(None, "--force")
    push("--grace", 0, "--force")
    assert (store.objects / "images/others/file").read_bytes() == b"theirs"
    assert not store.names() & BOTH


def test_a_page_of_somebody_else_is_not_replaced(store: Store, push: Push, build: Build) -> None:
    store.put("index.html", b"theirs")
    build(version(), "--page")
    done = push(code=ExitCode.FAILED)
    assert "index.html: was not put there by fastindex" in done.stderr
    assert store.names() == {"index.html"}
    store.remove("index.html")
    push()
    build(version(f"{DEBIAN}/{NEW}"), "--page")
    store.remove(MANIFEST)
    push()  # ours are known without the manifest, too
    assert_whole(store)


def test_a_push_of_another_mirror_is_stopped(
    tmp_path: Path, store: Store, push: Push, build: Build, fastindex: Run, root: Path
) -> None:
    build(version() | version(f"{DEBIAN}/{NEW}"))
    push()
    before = stamps(store.objects)
    shutil.rmtree(root)
    root.mkdir()
    build(version(f"alpine/3/amd64/default/{OLD}"))
    done = push(code=ExitCode.FAILED)
    assert "use --force" in done.stderr
    assert stamps(store.objects) == before
    push("--force")
    assert_whole(store)


def test_a_dry_run_tells_all_and_writes_nothing(
    root: Path, store: Store, push: Push, build: Build
) -> None:
    build(version())
    before = stamps(root)
    done = push("-n")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [(line[0], line[1]) for line in lines[1:]] == [
        ("upload", METADATA_FILE),
        ("upload", ROOT_FILE),
        ("write", PRODUCTS),
        ("write", INDEX),
    ]
    assert not {"put", "part", "delete"} & set(store.count())
    assert stamps(root) == before
    push()
    assert push("-n").stdout == ""


def break_file(root: Path, how: str) -> None:
    """Make a published file something else than the catalogue says."""
    file = root / ROOT_FILE
    if how == "missing":
        file.unlink()
    elif how == "shorter":
        os.truncate(file, file.stat().st_size - 1)
    elif how == "longer":
        with file.open("ab") as more:
            more.write(b"x")
    else:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)


@pytest.mark.parametrize("how", ["missing", "shorter", "longer", "other"])
@pytest.mark.parametrize("size_bytes", [100, 20_000_000])
def test_no_catalogue_names_what_is_not_there(
    root: Path, store: Store, push: Push, build: Build, how: str, size_bytes: int
) -> None:
    build(version(f"{DEBIAN}/{NEW}"))
    push()
    before = (store.objects / INDEX).read_bytes(), (store.objects / PRODUCTS).read_bytes()
    build(big(size_bytes))
    break_file(root, how)
    done = push(code=ExitCode.FAILED)
    assert f"warning: {ROOT_FILE}: " in done.stderr
    assert "the catalogue there stays as it was" in done.stderr
    assert ((store.objects / INDEX).read_bytes(), (store.objects / PRODUCTS).read_bytes()) == before
    assert ROOT_FILE not in store.names()
    assert_whole(store)
    write_file(root / ROOT_FILE, make_content("rootfs.squashfs", how), OLD_NS + 10**11)
    build()
    push()
    assert ROOT_FILE in assert_whole(store)


def test_a_file_that_changes_while_it_is_put_there_does_not_appear(
    root: Path, store: Store, push: Push, build: Build
) -> None:
    build(big(40_000_000))

    def change(request: Request) -> None:
        if request.kind == "part" and request.method == "PUT":
            store.before = None
            with (root / ROOT_FILE).open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"\0")

    store.before = change
    done = push("--connections", 1, code=ExitCode.FAILED)
    assert f"{ROOT_FILE}: its SHA-256 is" in done.stderr
    assert ROOT_FILE not in store.names()
    assert INDEX not in store.names()


def test_another_push_at_the_same_time_is_noticed(
    root: Path, store: Store, push: Push, build: Build, environment: dict[str, str]
) -> None:
    build(version() | version(f"debian/13/amd64/default/{OLD}"))
    second: list[int] = []

    def intrude(request: Request) -> None:
        if request.kind == "put" and request.path.endswith("rootfs.squashfs"):
            store.before = None
            words: list[str | Path] = [COMMAND, "push", root, store.url]
            second.append(subprocess.run(words, env=environment, check=False).returncode)

    store.before = intrude
    done = push(code=ExitCode.FAILED)
    assert second == [0]
    assert "another push" in done.stderr
    assert_whole(store)
    assert store.names() == assert_whole(store) | {INDEX, PRODUCTS}


@pytest.mark.parametrize("keeps_conditions", [True, False])
def test_an_index_that_somebody_changed_meanwhile_is_not_replaced(
    root: Path, store: Store, push: Push, build: Build, keeps_conditions: bool
) -> None:
    store.keeps_conditions = keeps_conditions
    build(version())
    push()
    build(version(f"alpine/3/amd64/default/{NEW}"))

    def intrude(request: Request) -> None:
        if request.kind == "put" and request.path.endswith(PRODUCTS):
            store.before = None
            target = MANIFEST if not keeps_conditions else INDEX
            store.put(target, b"{}\n")

    store.before = intrude
    done = push(code=ExitCode.FAILED)
    assert "another push" in done.stderr
    assert (store.objects / INDEX).read_bytes() != (root / INDEX).read_bytes()


def test_a_store_without_conditions_is_told(store: Store, push: Push, build: Build) -> None:
    store.keeps_conditions = False
    build(version())
    done = push("--json")
    (finding,) = json.loads(done.stdout)["findings"]
    assert finding["code"] == "store-unguarded"
    assert finding["problem"].startswith("the store ignores If-Match or If-None-Match")
    store.keeps_conditions = True
    build(version(f"{DEBIAN}/{NEW}"))
    assert json.loads(push("--json").stdout)["findings"] == []


@pytest.mark.parametrize("status", [500, 503, 0])
def test_a_store_that_stumbles_is_asked_again(
    store: Store, push: Push, build: Build, status: int
) -> None:
    build(big() | version(f"debian/13/amd64/default/{OLD}"))
    seen: set[tuple[str, str]] = set()

    def stumble(handler: Any) -> bool:
        key = handler.command, handler.path
        if key in seen:
            return False
        seen.add(key)
        handler.refuse(status, "SlowDown") if status else handler.hang_up()
        return True

    store.fault = stumble
    push()
    assert len(assert_whole(store)) == 4


def test_a_store_that_takes_nothing_is_given_up(store: Store, push: Push, build: Build) -> None:
    tree: Files = {}
    for number in range(30):
        tree |= version(f"debian/{number}/amd64/default/{OLD}")
    build(tree)

    def refuse(handler: Any) -> bool:
        is_image = handler.command == "PUT" and "/images/" in handler.path
        if is_image:
            handler.refuse(403, "AccessDenied")
        return is_image

    store.fault = refuse
    done = push(code=ExitCode.FAILED)
    assert "60 files of images are not in" in done.stderr
    assert "permission denied" in done.stderr
    tried = [one for one in store.requests if one.kind == "put" and "/images/" in one.path]
    assert len(tried) < 30
    assert INDEX not in store.names()


def test_wrong_credentials_are_told_without_them(push: Push, build: Build) -> None:
    build(version())
    wrong = dict.fromkeys(["AWS_SECRET_ACCESS_KEY"], "verysecret")
    done = push(code=ExitCode.FAILED, **wrong)
    assert "permission denied" in done.stderr
    assert "verysecret" not in done.stdout + done.stderr


def test_credentials_come_from_the_files_of_the_aws_tools(
    tmp_path: Path, store: Store, push: Push, build: Build
) -> None:
    build(version())
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        "[default]\naws_access_key_id = x\naws_secret_access_key = y\n"
        "[lab]\naws_access_key_id = accesskey\naws_secret_access_key = secretkey\n"
    )
    (tmp_path / ".aws/config").write_text(
        f"[profile lab]\nregion = us-east-1\nendpoint_url = {store.endpoint}\n"
    )
    gone = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"), "")
    push(HOME=str(tmp_path), AWS_PROFILE="lab", **gone)
    assert_whole(store)


def test_plain_http_elsewhere_needs_to_be_allowed(push: Push, build: Build) -> None:
    build(version())
    done = push(code=ExitCode.USAGE, AWS_ENDPOINT_URL="http://192.0.2.1", AWS_ALLOW_HTTP="true")
    assert "--allow-http" in done.stderr


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("http://example.org/x", "must start with one of"),
        ("s3://user:secret@bucket", "credentials come from the environment"),
        ("s3:///x", "lacks the name of a bucket"),
        ("s3://bucket/../x", "no object can have"),
        ("file://host/x", "absolute path"),
        ("s3://bucket?key=secret", "credentials come from the environment"),
    ],
)
def test_a_wrong_url_is_wrong_usage(root: Path, fastindex: Run, word: str, told: str) -> None:
    write_tree(root, version())
    assert fastindex(root).returncode == 0
    done = fastindex("push", root, word)
    assert done.returncode == ExitCode.USAGE
    assert told in done.stderr
    assert "secret" not in done.stderr


def test_no_mirror_is_pushed_into_itself(root: Path, fastindex: Run) -> None:
    write_tree(root, version())
    assert fastindex(root).returncode == 0
    before = stamps(root)
    for place in (root, root / "images", root.parent):
        done = fastindex("push", root, f"file://{place}")
        assert done.returncode == ExitCode.USAGE
        assert "push to another place" in done.stderr
    assert stamps(root) == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"schema": 2}',
        b'{"schema": 1, "objects": {"../x": {"size": 1, "sha256": "%s"}}}' % (b"0" * 64),
        b'{"schema": 1, "objects": {"x": {"size": 1, "sha256": "%s"}}}' % (b"x" * 64),
        b'{"schema": 1, "objects": {"streams/.push.json": {"size": 1, "sha256": "%s"}}}'
        % (b"0" * 64),
        b"[" * 100_000,
    ],
    ids=range(7),
)
def test_a_hostile_manifest_deletes_nothing(
    store: Store, push: Push, build: Build, content: bytes
) -> None:
    build(version())
    push()
    store.put("images/others", b"x")
    store.put(MANIFEST, content)
    build(version(f"{DEBIAN}/{NEW}"))
    done = push("--grace", 0)
    assert "cannot be used" in done.stderr
    assert (store.objects / "images/others").exists()
    assert_whole(store)


def start(words: list[object], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a push."""
    clean = {name: environment[name] for name in environment if name in {*UNMEASURED, *KEYS}}
    clean["AWS_ENDPOINT_URL"] = environment["AWS_ENDPOINT_URL"]
    return subprocess.Popen(
        [COMMAND, "push", *map(str, words)],
        env=clean,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("keeps_conditions", [True, False])
def test_a_push_may_be_killed_at_any_request(
    root: Path,
    store: Store,
    push: Push,
    build: Build,
    environment: dict[str, str],
    keeps_conditions: bool,
) -> None:
    store.keeps_conditions = keeps_conditions
    build(version(f"{DEBIAN}/{NEW}"))
    push()
    build(big(17_000_000) | version(f"debian/13/amd64/default/{OLD}"))
    for moment in range(1, 60, 1 if keeps_conditions else 4):
        store.requests.clear()
        reached = threading.Event()

        def wait(
            request: Request, moment: int = moment, reached: threading.Event = reached
        ) -> None:
            if len(store.requests) == moment:
                reached.set()
                time.sleep(0.02)

        store.before = wait
        with start([root, store.url], environment) as process:
            while process.poll() is None and not reached.wait(0.01):
                pass
            process.kill()
        store.before = None
        assert_whole(store)
        if process.returncode == 0:
            break
    else:
        pytest.fail("no push came to its end")
    push()
    assert store.names() == assert_whole(store) | {INDEX, PRODUCTS}
    assert set(manifest(store)) == store.names()


def test_what_a_killed_push_has_put_there_is_not_put_there_again(
    root: Path, store: Store, push: Push, build: Build, environment: dict[str, str]
) -> None:
    build(big(17_000_000))
    done = threading.Event()

    def stop(request: Request) -> None:
        if request.kind == "put" and request.path.endswith("incus.tar.xz"):
            done.set()
            time.sleep(0.5)

    store.before = stop
    with start([root, store.url], environment) as process:
        assert done.wait(60)
        process.kill()
    store.before = None
    assert ROOT_FILE in store.names()
    store.requests.clear()
    push()
    assert "part" not in store.count()
    assert_whole(store)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_push_ends_when_it_is_asked_to(
    root: Path, store: Store, push: Push, build: Build, environment: dict[str, str], number: int
) -> None:
    build(big(60_000_000))
    reached = threading.Event()

    def wait(request: Request) -> None:
        if request.kind == "part":
            reached.set()
            time.sleep(0.1)

    store.before = wait
    with start([root, store.url], environment) as process:
        assert reached.wait(60)
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    store.before = None
    assert INDEX not in store.names()
    push()
    assert_whole(store)


def test_names_are_put_there_as_they_are(
    root: Path, store: Store, push: Push, build: Build, fastindex: Run
) -> None:
    build(version(f"my os/1+2/amd64/a~b/{OLD}"))
    push()
    assert {path for path in assert_whole(store) if "my os/1+2/amd64/a~b" in path}


def test_what_accompanies_the_catalogue_goes_with_it(
    root: Path, store: Store, push: Push, build: Build
) -> None:
    build(version(), "--gzip", "--lists")
    push()
    extra = {f"{INDEX}.gz", f"{PRODUCTS}.gz", "streams/files.txt", "streams/trace.json"}
    assert store.names() > extra
    assert all(same(root, store, path) for path in store.names())
    puts = [one.path for one in store.requests if one.kind == "put" and "/streams/" in one.path]
    order = [path.partition("/streams/")[2] for path in puts if ".push" not in path]
    assert order[:2] == ["v1/images.json", "v1/images.json.gz"]
    assert order[2] == "v1/index.json"
    headers = store.read_headers(f"{INDEX}.gz")
    assert headers["Content-Type"] == "application/gzip"
    assert "Content-Encoding" not in headers
    build(version(f"{DEBIAN}/{NEW}"))
    done = push()
    assert not store.names() & extra
    assert f"deleted {INDEX}.gz" in done.stdout
    assert_whole(store)
    changes = [one.kind for one in store.requests if one.kind in ("put", "delete")]
    assert changes[-2:] == ["delete", "put"], "an old copy of the index leads to them"


def test_a_copy_of_another_generation_stays_behind(
    root: Path, store: Store, push: Push, build: Build
) -> None:
    build(version(), "--gzip")
    old = root / f"{PRODUCTS}.gz"
    kept, time_ns = old.read_bytes(), old.stat().st_mtime_ns
    document = json.loads((root / PRODUCTS).read_bytes())
    (root / PRODUCTS).write_text(json.dumps(document))  # as if a build were killed behind it
    push()
    assert f"{PRODUCTS}.gz" not in store.names()
    assert f"{INDEX}.gz" in store.names()
    assert (old.read_bytes(), old.stat().st_mtime_ns) == (kept, time_ns)


def test_a_half_of_two_generations_is_not_pushed(
    root: Path, store: Store, push: Push, build: Build
) -> None:
    build(version(), "--gzip")
    push()
    before = store.names()
    record = root / "streams/.companions.json"
    content = json.loads(record.read_bytes())
    build(version(f"{DEBIAN}/{NEW}"), "--gzip")
    del content["published"]
    record.write_text(json.dumps(content))  # as a build that was killed leaves it
    done = push(code=1)
    assert "a build was stopped before all was written" in done.stderr
    assert store.names() == before
    build(None, "--gzip")
    push()
    assert same(root, store, f"{PRODUCTS}.gz")


def test_what_a_listing_leaves_out_is_not_forgotten(
    root: Path, store: Store, push: Push, build: Build
) -> None:
    build(version() | version(f"{DEBIAN}/{NEW}"))
    push("--grace", 0)
    shutil.rmtree(root / PATH)
    build()
    store.hidden = ROOT_FILE
    push("--grace", 0)
    store.hidden = ""
    assert not store.names() & BOTH


def test_what_a_killed_push_left_in_a_directory_is_removed(
    tmp_path: Path, root: Path, build: Build, fastindex: Run
) -> None:
    build(version())
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    left = [f"{ROOT_FILE}#1", f"{ROOT_FILE}#2", f"{MANIFEST}#1"]
    write_tree(bucket, dict.fromkeys(left, b"half"))
    write_file(bucket / "images/mine#1", b"kept")
    assert fastindex("push", root, f"file://{bucket}").returncode == 0
    names = {str(path.relative_to(bucket)) for path in bucket.rglob("*") if path.is_file()}
    assert names == {*BOTH, PRODUCTS, INDEX, MANIFEST, "images/mine#1"}


def test_a_night_pushes_after_it_published(
    tmp_path: Path, root: Path, store: Store, environment: dict[str, str]
) -> None:
    write_tree(root, version())
    configuration = tmp_path / "config.toml"
    configuration.write_text(
        f'[mirror.main]\nroot = "{root}"\npush = "{store.url}"\n'
        f'push_endpoint = "{store.endpoint}"\nreport = "{tmp_path}/report.json"\n'
    )
    words: list[str | Path] = [COMMAND, "nightly", "--config", configuration]
    environment = environment | {"AWS_ENDPOINT_URL": ""}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_whole(store)
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert report["push"]["written"] == [PRODUCTS, INDEX]
    # A push that fails does not keep the rest from being done.
    write_tree(root, version(f"{DEBIAN}/{NEW}"))
    configuration.write_text(configuration.read_text().replace(f"s3://{BUCKET}", "s3://nowhere"))
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.FAILED
    assert "there is no such bucket" in done.stderr
    assert NEW in (root / PRODUCTS).read_text()
    done = subprocess.run(
        [COMMAND, "status", "--config", str(configuration), "main"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "push" in done.stdout


def test_the_api_pushes(root: Path, tmp_path: Path) -> None:
    import fastindex

    write_tree(root, version())
    (tmp_path / "bucket").mkdir()
    mirror = fastindex.Mirror(root)
    mirror.build()
    report = mirror.push(f"file://{tmp_path}/bucket")
    assert report.written == (PRODUCTS, INDEX)
    assert mirror.push(f"file://{tmp_path}/bucket").unchanged == 4
    assert (tmp_path / "bucket" / INDEX).read_bytes() == (root / INDEX).read_bytes()

"""The configuration: right values, or what is wrong with the line where it is wrong."""

from __future__ import annotations

import math
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastindex.formats import configuration as module
from fastindex.formats import located_toml
from fastindex.formats.configuration import (
    MAX_BYTES,
    MIRROR_KEYS,
    PULL_KEYS,
    Configuration,
    ConfigurationError,
    MirrorConfiguration,
    PullSource,
    parse_configuration,
)
from fastindex.hashing.engine import ENGINES
from fastindex.operations.deltas.options import MAX_PER_ROOT
from fastindex.remote.options import MAX_CONNECTIONS

FULL = """\
[defaults]
jobs = 16
grace = "1d"

[mirror.main]
root = "/srv/images"
output = "/srv/www"
cache_dir = "/var/cache/fastindex"
streams = ["images", "images-daily"]
allow_links = ["/mnt/disk2"]
jobs = 8
cluster = "tcp://10.0.0.1:8786"
engine = "hashlib"
scanners = 4
blake3 = false
settle = "2m"
recheck = "1/30"
wait = "inf"
keep = 5
keep_days = 30
filters = ["os=debian,alpine arch=amd64"]
max_age = "36h"
gzip = true
zstd = true
lists = true
sign = "0123456789ABCDEF"
page = true
page_settings = "/etc/fastindex/page.toml"
deltas = 2
max_ratio = 50
machine_deltas = true
on_publish = ["/usr/local/bin/announce", "--all"]
on_failure = ["/usr/bin/mail", "-s", "it failed", "root"]
metrics = "/var/lib/metrics/main.prom"
report = "/var/lib/fastindex/main.json"
push = "s3://my-images/lab"
push_endpoint = "https://s3.example.org"
push_allow_http = true

[[mirror.main.pull]]
url = "https://images.example.org"
filters = ["os=fedora"]
keep = 2
stream = "fedora"
mirrors = ["https://eu.example.org"]
lag = "2d"
keyring = "/etc/upstream.gpg"
ca = "/etc/ca.pem"
connections = 8
limit_rate = "20M"

[[mirror.main.pull]]
url = "https://other.example.org"

[mirror.small]
root = "/srv/small"
settle = 90
"""


def find_line(text: str, number: int = 0) -> int:
    """Return the line of ``FULL`` that is ``text`` for the ``number``-th time, from 0."""
    return [n for n, line in enumerate(FULL.splitlines(), 1) if line == text][number]


def find_pull(number: int) -> int:
    return find_line("[[mirror.main.pull]]", number)


def read(text: str) -> Configuration:
    return parse_configuration("c", text.encode())


def complaints(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        read(text)
    assert raised.value.exit_code == 2
    return str(raised.value).splitlines()


def test_each_key_becomes_its_value() -> None:
    main, small = read(FULL).mirrors.values()
    assert main.pull == (
        PullSource(
            url="https://images.example.org",
            filters=("os=fedora",),
            keep=2,
            stream="fedora",
            mirrors=("https://eu.example.org",),
            lag_seconds=2 * 86400,
            keyring="/etc/upstream.gpg",
            ca="/etc/ca.pem",
            connections=8,
            bytes_per_second=20e6,
            line=find_pull(0),
            lines={key: find_pull(0) + 1 + number for number, key in enumerate(PULL_KEYS)},
        ),
        PullSource(
            url="https://other.example.org",
            filters=("os=debian,alpine arch=amd64",),  # the mirror's
            line=find_pull(1),
            lines={"url": find_pull(1) + 1},
        ),
    )
    own = [key for key in MIRROR_KEYS if key != "grace"]
    assert main == MirrorConfiguration(
        name="main",
        root="/srv/images",
        output="/srv/www",
        cache_dir="/var/cache/fastindex",
        streams=("images", "images-daily"),
        allow_links=("/mnt/disk2",),
        jobs=8,
        cluster="tcp://10.0.0.1:8786",
        engine="hashlib",
        scanners=4,
        blake3=False,
        settle_seconds=120,
        recheck="1/30",
        wait_seconds=math.inf,
        keep=5,
        keep_days=30,
        grace_seconds=86400,
        filters=("os=debian,alpine arch=amd64",),
        max_age_seconds=36 * 3600,
        gzip=True,
        zstd=True,
        lists=True,
        sign="0123456789ABCDEF",
        page=True,
        page_settings="/etc/fastindex/page.toml",
        deltas=2,
        max_ratio=50.0,
        machine_deltas=True,
        on_publish=("/usr/local/bin/announce", "--all"),
        on_failure=("/usr/bin/mail", "-s", "it failed", "root"),
        metrics="/var/lib/metrics/main.prom",
        report="/var/lib/fastindex/main.json",
        push="s3://my-images/lab",
        push_endpoint="https://s3.example.org",
        push_allow_http=True,
        pull=main.pull,
        line=5,
        lines={"grace": 3, **{key: 6 + number for number, key in enumerate(own)}},
    )
    assert small == MirrorConfiguration(
        name="small",
        root="/srv/small",
        jobs=16,
        grace_seconds=86400,
        settle_seconds=90,
        line=find_line("[mirror.small]"),
        lines={
            "jobs": 2,
            "grace": 3,
            "root": find_line("[mirror.small]") + 1,
            "settle": find_line("[mirror.small]") + 2,
        },
    )


def test_nothing_is_no_mirror() -> None:
    assert read("# nothing\n") == Configuration(path="c")


def test_bounds_and_names_are_those_of_the_options() -> None:
    assert module._ENGINES == ENGINES
    assert module._MAX_CONNECTIONS == MAX_CONNECTIONS
    assert module._MAX_DELTAS == MAX_PER_ROOT


ROOT = '[mirror.m]\nroot = "/r"\n'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("job = 4", 'unknown key "job"; did you mean jobs?'),
        ("deltas = true", '"deltas" must be an integer from 0 to 10, not true'),
        ("max_ratio = 0", '"max_ratio" must be more than 0 and at most 100 per cent, not 0'),
        ("max_ratio = nan", "at most 100 per cent, not nan"),
        ("qqqq = 4", 'unknown key "qqqq"; the keys are root, output, cache_dir, '),
        ('"\\u001b" = 4', "unknown key '\\x1b'"),
        ('jobs = "four"', '"jobs" must be an integer of at least 1, not "four"'),
        ("jobs = 0", '"jobs" must be an integer of at least 1, not 0'),
        ("jobs = true", "at least 1, not true"),
        ("jobs = 1.5", "at least 1, not 1.5"),
        (f"jobs = {10**30}", "at least 1, not 1000"),
        ("jobs = 0x" + "f" * 9000, '"jobs" '),
        ("keep_days = -1", '"keep_days" must be an integer of at least 0, not -1'),
        ("settle = -1", '"settle" must be a time such as "30m", "2h" or 90 (seconds), not -1'),
        ("settle = nan", "must be a time"),
        ("settle = inf", "must be a time"),
        ("settle = true", "must be a time"),
        ('settle = "soon"', "must be a time such as 90 (seconds), 30m, 2h, 1h30m or 1d, not 'soo"),
        ('grace = "inf"', "must be a time"),
        ("grace = 10:30:00", "must be a time"),
        ('recheck = "30/1"', '"recheck" must be a share of the versions, such as 1/30'),
        ("recheck = 0.5", 'must be a share of the versions, such as "1/30", not 0.5'),
        ('cluster = "host:8786"', "must be tcp://HOST:PORT, tls://HOST:PORT, a scheduler file"),
        ('cluster = "dask.json"', "must be an absolute path, not"),
        ('engine = "fast"', 'must be one of "auto", "hashlib", "lanes", not "fast"'),
        ("engine = [1]", "must be one of"),
        ('blake3 = "no"', '"blake3" must be true or false, not "no"'),
        ('output = "www"', '"output" must be an absolute path, not "www"'),
        ('output = "~/www"', "must be an absolute path"),
        ('output = ""', "must not be empty; leave it out"),
        ('output = "/a\\u0000"', "must not contain control characters"),
        ("output = 4", '"output" must be a string in quotes, not 4'),
        ('streams = "images"', 'must be an array of strings, such as ["images"], not "images"'),
        ("streams = []", "must name at least one stream, and each of them once"),
        ('streams = ["a", "a"]', "each of them once"),
        ('streams = ["../a"]', "is not a valid name of a stream directory"),
        ("streams = [1]", "has an element that is wrong: it must be a string in quotes, not 1"),
        ('allow_links = ["disk"]', "has an element that is wrong: it must be an absolute path"),
        ('filters = ["oss=debian"]', "'oss' is not a key; did you mean os?"),
        ('filters = [""]', "must not be empty"),
        ("on_publish = []", '"on_publish" must name a program; leave it out for none'),
        ('on_publish = "true"', "must be an array of strings"),
        ('on_publish = ["./run"]', "must start with the absolute path of a program"),
        ("metrics = {}", '"metrics" must be a string in quotes, not a table'),
        ("pull = 4", '"pull" must be tables; write [[mirror.m.pull]] above each'),
        ("pull = [4]", '"pull" must be tables'),
        ('pull = [{url = "images"}]', '"url" must start with https://'),
        ('pull = [{url = "https://x/streams/v1/"}]', 'before /streams/v1, so "https://x"'),
        ("pull = [{keep = 4}]", "[[mirror.m.pull]] lacks its url"),
        ('pull = [{urls = "https://x"}]', 'unknown key "urls"; did you mean url?'),
        ('pull = [{url = "https://x", connections = 65}]', "an integer from 1 to 64, not 65"),
        ('pull = [{url = "https://x", limit_rate = "fast"}]', "number of bytes a second"),
        ('pull = [{url = "https://x", limit_rate = 0}]', "must be bytes a second"),
        ('pull = [{url = "https://x", mirrors = ["y"]}]', "must start with https://"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(line: str, problem: str) -> None:
    told = complaints(f"{ROOT}\n{line}\n")
    assert told[0].startswith("c:4: ")
    assert problem in told[0]
    assert len(told[0]) < 400


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = ", "c:1: not TOML: Invalid value; correct it"),
        ("\n\n[mirror.a", "c:3: not TOML: "),
        ("[mirror.a]\nroot = '/a'\n\nroot = '/b'\n", "c:4: not TOML: Cannot overwrite a value"),
        ("\n[mirro.a]", 'c:2: unknown key "mirro"; did you mean mirror?'),
        ("mirror = 4", 'c:1: "mirror" must be a table; write [mirror] above its keys'),
        ("[mirror]\na = 4", 'c:2: "a" must be a table; write [mirror.a] above its keys'),
        ("[mirror.a]\njobs = 1", "c:1: [mirror.a] lacks its root; add a line root ="),
        ('[mirror."a/b"]\nroot = "/a"', 'c:1: "a/b" cannot be the name of a mirror; write a '),
        ('[mirror."."]\nroot = "/a"', "cannot be the name of a mirror"),
        ('[mirror.5]\nroot = "/a"', "cannot be the name of a mirror"),
        (
            '[[mirror.a.pull]]\nurl = "https://x"\n\n[mirror.a.pull.x]\n\ny = 1\n[mirror.a]',
            'c:4: unknown key "x"; the keys are url, ',
        ),
        ("[defaults]\njob = 4", 'c:2: unknown key "job"; did you mean jobs?'),
        ("[defaults]\n\nroot = '/a'", 'c:3: "root" belongs to one mirror; set it in [mirror.NAME]'),
        ("[defaults]\n[[defaults.pull]]", 'c:2: "pull" belongs to one mirror'),
        ("a=" + "9" * 5000, "c:1: cannot be read: Exceeds the limit"),
        ("a=" + "[" * 20_000, "c:1: "),
        ("\n\na=[\n" + "'a',\n" * 600 + "]", "a value of more than 500 lines"),
    ],
)
def test_what_is_wrong_with_the_file_is_told(text: str, told: str) -> None:
    assert any(told in line for line in complaints(text))


def test_what_is_not_utf8_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"^c:2: must be UTF-8"):
        parse_configuration("c", b"# a\n\xff\n")


def test_all_that_is_wrong_is_told_by_line_up_to_twenty() -> None:
    told = complaints(ROOT + "".join(f"x{number} = 1\n" for number in range(30)))
    assert [line.split(":")[1] for line in told[:20]] == [str(3 + number) for number in range(20)]
    assert told[20:] == ["c: 10 more things are wrong"]


@pytest.mark.parametrize(
    ("second", "line", "key"),
    [
        ('root = "/r"', 6, "output"),
        ('root = "/r/"', 6, "output"),
        ('root = "/s"\noutput = "/r"', 7, "output"),
        ('root = "/s"\nmetrics = "/m"', 7, "metrics"),
        ('root = "/s"\nreport = "/t"', 7, "report"),
    ],
)
def test_two_mirrors_do_not_write_the_same_files(second: str, line: int, key: str) -> None:
    first = '[mirror.a]\nroot = "/r"\nmetrics = "/m"\nreport = "/t"'
    (told,) = complaints(f"{first}\n[mirror.b]\n{second}\n")
    assert told.startswith(f"c:{line}: ")
    assert f"is the {key} of the mirror a, too; give each mirror its own {key}" in told


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_configuration_or_an_error_with_a_line(content: bytes) -> None:
    try:
        parse_configuration("c", content)
    except ConfigurationError as error:
        for line in str(error).splitlines():
            path, number, _ = line.split(":", 2)
            assert path == "c"
            assert 1 <= int(number) <= content.count(b"\n") + 1


names = st.text("abc-_", min_size=1, max_size=4)
blanks = st.lists(st.sampled_from(["", "  ", "# root = 1", "# ]", '# """']), max_size=2)
strings = st.text("ab#=[]{}\"'\\\n ,.", max_size=12)


def quoted(text: str, style: int) -> str:
    """Return TOML for ``text``, in one of its notations."""
    basic = text.replace("\\", "\\\\").replace('"', '\\"')
    if style == 0 or ("'" in text and style == 2):
        return '"' + basic.replace("\n", "\\n") + '"'
    if style == 1:
        return f'"""\n{basic}"""'
    return f"'''\n{text}'''"


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[located_toml.Path, int]]:
    """Return a TOML file and the line of each of its keys and tables, as they were written."""
    rows: list[str] = []
    lines: dict[located_toml.Path, int] = {}

    def add_value() -> str:
        values = [quoted(draw(strings), draw(st.integers(0, 2))) for _ in range(draw(small))]
        if draw(st.booleans()):
            return draw(st.sampled_from(["1", "true", "0.5", "1979-05-27", '{a = 1, b = "}"}']))
        if draw(st.booleans()):
            return values[0] if values else '""'
        gap = draw(st.sampled_from([" ", "\n", "\n  # ]\n", " # [\n"]))
        return f"[{gap}{f',{gap}'.join(values)}{gap if values else ''}]"

    def add_keys(path: located_toml.Path) -> None:
        for key in draw(st.lists(names, max_size=3, unique=True)):
            rows.extend(draw(blanks))
            written = draw(st.sampled_from([key, f'"{key}"', f"'{key}'", f" {key} ", f"{key}.a"]))
            lines[(*path, key)] = len("\n".join(rows).split("\n")) + bool(rows)
            rows.append(f"{written} = {add_value()}{draw(st.sampled_from(['', ' # ]']))}")

    small = st.integers(0, 3)
    add_keys(())
    tops = draw(st.lists(names.map(lambda name: "t" + name), max_size=3, unique=True))
    for top in tops:
        path: located_toml.Path = (top,)
        if draw(st.booleans()):
            for number in range(draw(st.integers(1, 3))):
                rows.extend(draw(blanks))
                lines[(*path, number)] = len("\n".join(rows).split("\n")) + bool(rows)
                rows.append(f"[[{top}]]")
                add_keys((*path, number))
        else:
            inner = draw(names)
            rows.extend(draw(blanks))
            lines[(*path, inner)] = len("\n".join(rows).split("\n")) + bool(rows)
            rows.append(f' [ {top} . "{inner}" ] # [[x]]')
            add_keys((*path, inner))
    return draw(st.sampled_from(["\n", "\r\n"])).join("\n".join(rows).split("\n")), lines


@given(documents())
def test_the_line_of_each_key_is_where_it_was_written(
    document: tuple[str, dict[located_toml.Path, int]],
) -> None:
    text, lines = document
    tomllib.loads(text)  # it is TOML
    found = located_toml.find_lines(text)
    assert {path: found[path] for path in lines} == lines


def test_a_large_configuration_is_read_and_its_lines_found() -> None:
    one = '[mirror.m{0}]\nroot = "/srv/{0}"\nkeep = 5\n'
    text = "".join(one.format(number) for number in range(1200))
    assert len(text) < MAX_BYTES
    mirrors = read(text).mirrors
    assert [mirror.lines["keep"] for mirror in mirrors.values()] == [
        3 + 3 * number for number in range(1200)
    ]

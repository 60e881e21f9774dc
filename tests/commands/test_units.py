"""``fastindex units``: units that systemd takes, and that are nobody else's once they are written.

``deploy/test-units`` runs them under a systemd.
"""

from __future__ import annotations

import os
import re
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.support.command import COMMAND, UNMEASURED, Run, run_command
from tests.support.tools import needs
from tests.support.trees import version, write_tree

FAILURE = "fastindex-failure@.service"
INSTALL_LINE = "apt-get install systemd"
ONLINE = ("[[mirror.main.pull]]", 'url = "https://images.example.org"')


class Settings:
    """A configuration, and a directory for units."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "fastindex.toml"
        self.directory = directory / "units"
        self.directory.mkdir()
        self.run = partial(run_command, cwd=directory)
        self.write()

    def write(self, *lines: str, root: str = "/srv/images") -> None:
        """Write the configuration of one mirror: its root, and ``lines``."""
        self.path.write_text("\n".join(["[mirror.main]", f'root = "{root}"', *lines, ""]))
        self.path.chmod(0o600)

    def units(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run ``fastindex units``."""
        return self.run("units", "--config", self.path, *words)

    def install(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run ``fastindex units --install``."""
        return self.units("--install", "--directory", self.directory, *words)

    def service(self) -> dict[str, list[str]]:
        """Install the units; return the settings of the service: name → values."""
        assert self.install("--force").returncode == 0
        found: dict[str, list[str]] = {}
        for line in (self.directory / "fastindex-main.service").read_text().splitlines():
            name, is_setting, value = line.partition("=")
            if is_setting and not line.startswith("#"):
                found.setdefault(name, []).append(value)
        return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path)


def test_each_mirror_has_a_service_and_a_timer(settings: Settings) -> None:
    more = ('[mirror.second-one]\nroot = "/srv/second"',)
    settings.write(*more)
    done = settings.units()
    assert done.returncode == 0, done.stderr
    headings = re.findall(r"^# /etc/systemd/system/(.*)$", done.stdout, re.MULTILINE)
    one, other = "fastindex-main", "fastindex-second-one"
    timers = [f"{one}.service", f"{one}.timer", f"{other}.service", f"{other}.timer"]
    assert headings == [*timers, FAILURE]
    assert f"nightly --config {settings.path} second-one\n" in done.stdout
    assert settings.units("second-one").stdout.count("\n# /etc/") == 2
    assert not any(settings.directory.iterdir())


def test_a_directory_needs_no_configuration(fastindex: Run, tmp_path: Path) -> None:
    done = fastindex("units", "--config", "none", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "# /etc/systemd/system/fastindex.service\n" in done.stdout
    assert f"nightly --config none {tmp_path}\n" in done.stdout
    assert fastindex("units", "--config", "none").returncode == 2


def test_systemd_understands_them_and_finds_them_safe(settings: Settings) -> None:
    analyze = needs("systemd-analyze", INSTALL_LINE)
    odd = '/srv/my "images" 100% $HOME \\\\ é'.replace('"', '\\"')
    places = ('report = "/var/lib/one two/report.json"', 'cache_dir = "/home/fast/cache"')
    exposures = []
    for lines in ((), places, ONLINE, (*places, *ONLINE)):
        settings.write(*lines, root=odd)
        assert settings.install("--force").returncode == 0
        units = sorted(map(str, settings.directory.iterdir()))
        verify = [analyze, "verify", "--man=no", *units]
        verified = subprocess.run(verify, capture_output=True, text=True, check=False)
        assert (verified.returncode, verified.stderr) == (0, "")
        service = settings.directory / "fastindex-main.service"
        judge = [analyze, "security", "--offline=yes", str(service)]
        judged = subprocess.run(judge, capture_output=True, text=True, check=True)
        exposures.append(float(re.findall(r"exposure level for .*: ([0-9.]+)", judged.stdout)[0]))
    assert max(exposures[:2]) <= 0.2
    assert max(exposures[2:]) <= 1.1  # of which the network is 0.9


@pytest.mark.parametrize(
    ("lines", "is_online"),
    [
        ((), False),
        (("[[mirror.main.pull]]", 'url = "file:///srv/upstream"'), False),
        (ONLINE, True),
        (('on_publish = ["/usr/bin/purge"]',), True),
        (('on_failure = ["/usr/bin/tell"]',), True),
        (('push = "s3://bucket/images"',), True),
        (('push = "file:///srv/bucket"',), False),
        (('sign = "mirror@example.org"',), True),
    ],
)
def test_the_network_is_there_for_what_needs_it(
    settings: Settings, lines: tuple[str, ...], is_online: bool
) -> None:
    settings.write(*lines)
    service = settings.service()
    assert service.get("PrivateNetwork") == (None if is_online else ["yes"])
    assert ("network-online.target" in service.get("After", [])) == is_online
    assert service["RestrictAddressFamilies"] == [
        "AF_INET AF_INET6 AF_UNIX" if is_online else "none"
    ]


def test_a_bucket_that_is_a_directory_can_be_written(settings: Settings) -> None:
    settings.write('push = "file:///srv/bucket"', 'page_settings = "/home/op/page.toml"')
    service = settings.service()
    assert "/srv/bucket" in " ".join(service["ReadWritePaths"])
    assert "/home/op" in " ".join(service["BindReadOnlyPaths"])


def test_only_what_a_night_writes_can_be_written(settings: Settings) -> None:
    settings.write(
        *('output = "/srv/www"', 'cache_dir = "/srv/images/.cache"', 'allow_links = ["/mnt/big"]'),
        *('report = "/var/lib/fastindex/report.json"', 'metrics = "/home/prometheus/f.prom"'),
    )
    service = settings.service()
    written = ["/srv/images", "/srv/www", "/var/lib/fastindex", "/mnt/big"]
    assert service["ReadWritePaths"] == [*written, "-/srv/images/images"]
    assert service["BindPaths"] == ["/home/prometheus"]
    assert set(written) <= {*service["RequiresMountsFor"]}
    assert service["ProtectSystem"] == ["strict"]
    for name in ("ReadWritePaths", "BindPaths", "BindReadOnlyPaths"):
        assert "/" not in service.get(name, [])


def test_a_report_in_the_root_directory_is_refused(settings: Settings) -> None:
    settings.write('report = "/report.json"')
    done = settings.units()
    assert done.returncode == 2
    assert "report lies in the root directory" in done.stderr


def test_a_name_cannot_add_settings(fastindex: Run, tmp_path: Path) -> None:
    root = tmp_path / "images\nExecStartPre=+/bin/evil"
    root.mkdir(parents=True)
    for words in ((), ("--cron",)):
        done = fastindex("units", "--config", "none", *words, root)
        assert done.returncode == 2
        assert "ExecStartPre" not in done.stdout
    assert fastindex("units", "--config", "none", "--user", "a\nb", tmp_path).returncode == 2


def test_what_it_made_is_made_anew_and_nothing_else(settings: Settings) -> None:
    done = settings.install()
    assert done.returncode == 0, done.stderr
    names = ["fastindex-main.service", "fastindex-main.timer", FAILURE]
    assert done.stdout.splitlines() == [f"wrote {settings.directory / name}" for name in names]
    assert "systemctl enable --now fastindex-main.timer" in done.stderr
    assert settings.install().stdout == ""
    # It changes with the configuration.
    settings.write('report = "/var/lib/fastindex/report.json"')
    assert settings.install("-n").stdout == f"write {settings.directory / names[0]}\n"
    assert settings.install().stdout == f"wrote {settings.directory / names[0]}\n"
    # What somebody has changed or written is theirs, and the others stay as they are, too.
    path = settings.directory / names[1]
    path.write_text(path.read_text().replace("04:30", "05:30"))
    (settings.directory / FAILURE).write_text("[Unit]\n")
    settings.write()
    before = {path: path.read_text() for path in settings.directory.iterdir()}
    done = settings.install()
    assert done.returncode == 1
    assert f"{path}: was not made by fastindex units, or was changed since" in done.stderr
    assert {path: path.read_text() for path in settings.directory.iterdir()} == before
    assert settings.install("--force").returncode == 0
    assert "04:30" in path.read_text()
    assert (settings.directory / FAILURE).read_text() == "[Unit]\n"


def test_a_masked_unit_stays_masked(settings: Settings) -> None:
    timer = settings.directory / "fastindex-main.timer"
    timer.symlink_to("/dev/null")
    assert settings.install().returncode == 1
    assert timer.is_symlink()


def test_a_directory_that_is_missing_is_not_made(settings: Settings) -> None:
    settings.directory.rmdir()
    done = settings.install()
    assert done.returncode == 2
    assert not settings.directory.exists()


def test_cron_takes_a_line(fastindex: Run, settings: Settings, tmp_path: Path) -> None:
    done = settings.units("--cron", "--user", "mirror")
    line = f"nightly --quiet --config {settings.path} main\n"
    assert done.stdout.startswith("30 4 * * * mirror /")
    assert done.stdout.endswith(line)
    root = tmp_path / "100% mine"
    root.mkdir()
    assert r"100\% mine'" in fastindex("units", "--config", "none", "--cron", root).stdout


@pytest.mark.parametrize("words", [("-n",), ("--force",), ("--cron", "--install")])
def test_options_that_would_do_nothing_are_refused(
    settings: Settings, words: tuple[str, ...]
) -> None:
    assert settings.units(*words).returncode == 2


def journal_lines(tmp_path: Path, *words: object, place: str | None = None) -> list[str]:
    """Run the command with its stderr in a file that JOURNAL_STREAM names; return its lines."""
    with (tmp_path / "journal").open("w+") as journal:
        status = os.fstat(journal.fileno())
        stream = f"{status.st_dev}:{status.st_ino}" if place is None else place
        subprocess.run(
            [COMMAND, *map(str, words)],
            env={**UNMEASURED, "JOURNAL_STREAM": stream},
            stderr=journal,
            check=False,
        )
        journal.seek(0)
        return journal.read().splitlines()


def test_messages_have_priorities_in_the_journal(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "mirror", version("debian/12/amd64/default/20240505_05:24"))
    (root / "images/debian/11/amd64/default/20240505_05:24").mkdir(parents=True)
    (root / "images/debian/11/amd64/default/20240505_05:24/rootfs.squashfs").write_bytes(b"x")
    lines = journal_lines(tmp_path, "--config", "none", "-v", root)
    kinds = {line[:3]: line[3:] for line in lines}
    assert set(kinds) == {"<4>", "<6>", "<7>"}
    assert kinds["<4>"].startswith("fastindex: warning: images/debian/11/")
    assert "published" in kinds["<6>"]
    wrong = journal_lines(tmp_path, "--nonsense")
    assert len(wrong) == 2
    assert wrong[0].startswith("<3>fastindex: error: ")
    assert wrong[1].startswith("<3>fastindex --help")


@pytest.mark.parametrize("place", ["", "1:1", "nonsense"])
def test_messages_have_no_priorities_elsewhere(tmp_path: Path, place: str) -> None:
    root = write_tree(tmp_path / "mirror", version("debian/12/amd64/default/20240505_05:24"))
    lines = journal_lines(tmp_path, "--config", "none", "-v", root, place=place)
    assert lines
    assert all(line.startswith("fastindex: ") for line in lines)

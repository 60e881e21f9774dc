"""A trusted file is one that only root and this user may change, with all on the way to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastindex.system.trust import UntrustedError, read_trusted_file
from tests.support.command import NOBODY, umask


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    """Make no directory that the group may write, whatever the umask of who runs the tests."""
    with umask(0o022):
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file with a directory of its own."""
    path = tmp_path / "etc" / "file"
    path.parent.mkdir(mode=0o755)
    path.write_bytes(b"content")
    path.chmod(0o644)
    return path


def test_what_only_this_user_may_write_is_read(file: Path) -> None:
    assert read_trusted_file(str(file), 7) == (os.path.realpath(file), b"content")
    file.chmod(0o600)
    assert read_trusted_file(f"{file.parent}/../etc/./file", 7)[1] == b"content"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda file: file.chmod(0o664), "may write it (mode 0664)"),
        (lambda file: file.chmod(0o646), "all users may write it (mode 0646)"),
        (lambda file: file.parent.chmod(0o775), "may write it (mode 0775)"),
        (lambda file: file.parent.chmod(0o777), "all users may write it (mode 0777)"),
    ],
)
def test_what_others_may_write_is_refused(
    file: Path, spoil: Callable[[Path], None], told: str
) -> None:
    spoil(file)
    with pytest.raises(UntrustedError) as raised:
        read_trusted_file(str(file), 7)
    assert told in str(raised.value.strerror)
    spoilt = file if "06" in told else file.parent
    assert raised.value.filename == os.path.realpath(spoilt)


def test_a_directory_in_which_only_owners_rename_is_as_good(file: Path) -> None:
    file.parent.chmod(0o1777)
    assert read_trusted_file(str(file), 7)[1] == b"content"


@pytest.mark.root
@pytest.mark.parametrize("which", ["file", "directory", "link"])
def test_what_belongs_to_another_user_is_refused(file: Path, which: str) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    spoilt = {"file": file, "directory": file.parent, "link": link}[which]
    assert read_trusted_file(str(link), 7)[1] == b"content"
    os.chown(spoilt, NOBODY, -1, follow_symlinks=False)
    with pytest.raises(UntrustedError, match=f"belongs to the user {NOBODY}"):
        read_trusted_file(str(link), 7)


def test_a_symlink_is_followed_where_all_on_the_way_is_trusted(file: Path, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to("etc")
    link = tmp_path / "link"
    link.symlink_to("way/file")
    assert read_trusted_file(str(link), 7) == (os.path.realpath(file), b"content")
    file.parent.chmod(0o777)
    with pytest.raises(UntrustedError):
        read_trusted_file(str(link), 7)


def test_a_symlink_where_others_may_write_is_refused(file: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "link").symlink_to(file)
    assert read_trusted_file(str(shared / "link"), 7)
    shared.chmod(0o777)
    with pytest.raises(UntrustedError):
        read_trusted_file(str(shared / "link"), 7)


def test_symlinks_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        read_trusted_file(str(tmp_path / "a"), 7)


def test_a_larger_file_is_an_error(file: Path) -> None:
    with pytest.raises(OSError, match="larger than 6 bytes"):
        read_trusted_file(str(file), 6)


def test_what_is_no_file_is_an_error_and_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (str(tmp_path / "fifo"), str(tmp_path), "/dev/null"):
        with pytest.raises(OSError, match=r"not a regular file|may write it"):
            read_trusted_file(path, 7)


def test_what_is_missing_is_an_error(file: Path) -> None:
    for path in (file.with_name("none"), file / "below"):
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            read_trusted_file(str(path), 7)

"""What the next pull does about one that was killed."""

from __future__ import annotations

from pathlib import Path

from tests.support.command import Run
from tests.support.trees import version, write_tree

PRODUCT = "images/debian/12/amd64/default"
OLD, NEW = "20240505_05:24", "20240506_05:24"


def test_a_mark_in_a_version_that_was_just_pulled_is_removed(
    fastindex: Run, tmp_path: Path
) -> None:
    """A run that is killed between the rename and the removal of its mark leaves that."""
    upstream, root = tmp_path / "upstream", tmp_path / "mirror"
    root.mkdir()
    pull = ("pull", "--keep", "2", f"file://{upstream}", root)
    for name in (OLD, NEW):
        write_tree(upstream, version(f"debian/12/amd64/default/{name}"))
        assert fastindex(upstream).returncode == 0
        assert fastindex(*pull).returncode == 0
        mark = root / PRODUCT / OLD / ".importing"
        if name == OLD:
            mark.touch()
    assert {path.name for path in (root / PRODUCT).iterdir()} >= {OLD, NEW}
    assert not mark.exists()


def test_the_mark_of_an_import_stays(fastindex: Run, tmp_path: Path) -> None:
    """It tells the import that it has not removed its sources yet."""
    upstream, root = tmp_path / "upstream", tmp_path / "mirror"
    write_tree(upstream, version(f"debian/12/amd64/default/{OLD}"))
    assert fastindex(upstream).returncode == 0
    write_tree(root, version(f"debian/12/amd64/default/{OLD}"))
    (mark := root / PRODUCT / OLD / ".importing").touch()
    assert fastindex("pull", f"file://{upstream}", root).returncode == 0
    assert mark.exists()

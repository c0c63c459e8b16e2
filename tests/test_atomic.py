"""Files and folders appear whole or not at all."""

import shutil
from pathlib import Path

import pytest
from faults import changes_of, killed_at

from knee3d.atomic import whole_file, whole_folder


def test_a_file_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "new" / "table.csv"
    with whole_file(target) as partial:
        partial.write_text("done")
        assert not target.exists()
        assert partial.suffix == target.suffix
    assert target.read_text() == "done"
    assert [path.name for path in target.parent.iterdir()] == ["table.csv"]


def test_a_file_that_fails_leaves_the_old_one(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")

    def interrupted() -> None:
        with whole_file(target) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    pytest.raises(KeyboardInterrupt, interrupted)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_a_folder_replaces_the_old_one_when_it_is_whole(tmp_path):
    target = tmp_path / "case"
    target.mkdir()
    (target / "old").touch()
    with whole_folder(target) as partial:
        (partial / "new").touch()
        assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


def test_a_folder_that_fails_leaves_the_old_one_and_no_rest(tmp_path):
    target = tmp_path / "case"
    target.mkdir()
    (target / "old").touch()
    (tmp_path / ".partial-0123abcd-case").mkdir()  # of a run that was killed
    (tmp_path / ".partial-0123abcd-case" / "rest").touch()

    def full() -> None:
        with whole_folder(target) as partial:
            assert not list(partial.iterdir())
            (partial / "half").touch()
            raise OSError("disk full")

    assert "disk full" in str(pytest.raises(OSError, full).value)
    assert [path.name for path in tmp_path.iterdir()] == ["case"]
    assert [path.name for path in target.iterdir()] == ["old"]


def test_the_new_folder_is_whole_before_the_old_one_is_touched(tmp_path, monkeypatch):
    """Killed while the old one is being removed, which takes a while for thousands of slices."""
    target = tmp_path / "case"
    target.mkdir()
    (target / "old").touch()
    remove = shutil.rmtree

    def killed(path, **options):
        if path.exists() and path.name == ".old-case":
            raise KeyboardInterrupt
        remove(path, **options)

    def replace() -> None:
        with whole_folder(target) as partial:
            (partial / "new").touch()
            monkeypatch.setattr(shutil, "rmtree", killed)

    pytest.raises(KeyboardInterrupt, replace)
    assert [path.name for path in target.iterdir()] == ["new"]


def test_a_folder_is_back_after_a_failed_or_killed_exchange(tmp_path, monkeypatch):
    """Between the two renames there is a moment when neither stands there."""
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("old")
    rename = Path.rename

    def fail(self: Path, to: Path) -> Path:
        if self.name.startswith(".partial-"):
            raise OSError(5, "no")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"), whole_folder(target) as partial:
        (partial / "new").write_text("new")
    assert [path.name for path in target.iterdir()] == ["old"]
    monkeypatch.undo()
    target.rename(tmp_path / ".old-target")  # as after a kill
    with pytest.raises(ValueError, match="not now"), whole_folder(target):
        raise ValueError("not now")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert [path.name for path in target.iterdir()] == ["old"]


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_a_full_disk_is_said_with_the_path(whole, tmp_path):
    def full() -> None:
        with whole(tmp_path / "wanted"):
            Path("/dev/full").write_bytes(b"more than there is room for")

    message = str(pytest.raises(OSError, full).value)
    assert "No space left" in message
    assert str(tmp_path / "wanted") in message


def test_killed_at_any_change_a_folder_is_the_old_or_the_new_one(tmp_path):
    def work(folder: Path) -> None:
        with whole_folder(folder / "case") as partial:
            (partial / "slices").mkdir()
            (partial / "slices" / "new").write_text("new")
            (partial / "other").write_text("new")

    def begun(name: str) -> Path:
        (tmp_path / name / "case" / "slices").mkdir(parents=True)
        (tmp_path / name / "case" / "slices" / "old").write_text("old")
        return tmp_path / name

    def names(folder: Path) -> list[str]:
        found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        return sorted(str(path) for path in found if not path.parts[0].startswith("."))

    counted = begun("counted")
    count, left = changes_of(lambda: work(counted), counted), []
    assert count >= 8
    for number in range(1, count + 1):
        folder = begun(f"killed {number}")
        killed_at(number, lambda here=folder: work(here), folder)
        left.append(names(folder))
        work(folder)
        assert names(folder) == ["case/other", "case/slices/new"]
        assert [path.name for path in folder.iterdir()] == ["case"]
    assert {tuple(one) for one in left} <= {("case/slices/old",), ("case/other", "case/slices/new"), ()}
    assert left.count([]) <= 1  # between the two renames, which the next run undoes


def test_killed_at_any_change_a_file_is_the_old_or_the_new_one(tmp_path):
    target = tmp_path / "table.csv"

    def work() -> None:
        with whole_file(target) as partial:
            partial.write_text("new")

    target.write_text("old")
    count = changes_of(work, tmp_path)
    for number in range(1, count + 1):
        target.write_text("old")
        killed_at(number, work, tmp_path)
        assert target.read_text() in ("old", "new")
    assert count >= 2

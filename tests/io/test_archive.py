"""A zip file is read as the folder in it, or refused."""

import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest

from knee3d.geometry.orientation import Side
from knee3d.geometry.volume import Volume
from knee3d.io import archive
from knee3d.io.archive import ArchiveError, extracted_archive
from knee3d.io.dicom.headers import DicomError
from knee3d.io.dicom.writer import write_series
from knee3d.io.image_source import read_image

IPL = np.array([[0, 0, -0.7, 0], [0, -0.4, 0, 0], [-0.5, 0, 0, 0], [0, 0, 0, 1.0]])


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_a_zipped_series_is_the_series(tmp_path):
    volume = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), IPL)
    write_series(volume, tmp_path / "series", Side.LEFT, patient="P", description="DESS", seed=1)
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as file:
        for path in (tmp_path / "series").iterdir():
            file.write(path, f"study/deep/{path.name}")
    expected = read_image(tmp_path / "series")
    side = expected.side
    found = read_image(tmp_path / "study.zip")
    found_side = found.side
    np.testing.assert_array_equal(found.array, expected.array)
    np.testing.assert_array_equal(found.affine, expected.affine)
    assert found_side is side is Side.LEFT


def test_errors_name_the_zip(tmp_path):
    path = zipped(tmp_path / "study.zip", **{"notes.txt": b"hello"})
    with pytest.raises(DicomError, match=rf"no MR images in {path}"):
        read_image(path)


def test_nothing_stays_behind(tmp_path):
    path = zipped(tmp_path / "a.zip", **{"a/b.txt": b"hello"})
    with extracted_archive(path) as folder:
        assert (folder / "a" / "b.txt").read_bytes() == b"hello"
    assert not folder.exists()
    with extracted_archive(tmp_path) as folder:
        assert folder == tmp_path
    assert tmp_path.exists()


@pytest.mark.parametrize("name", ["../out.dcm", "a/../../out.dcm", "/etc/out.dcm", "..\\out.dcm", "C:\\out.dcm"])
def test_members_that_would_leave_their_folder_stay_in_it(tmp_path, name):
    path = zipped(tmp_path / "evil.zip", **{"fine.dcm": b"x", name: b"evil"})
    with extracted_archive(path) as folder:
        assert sorted(one.read_bytes() for one in folder.rglob("*") if one.is_file()) == [b"evil", b"x"]
    assert [one.name for one in tmp_path.rglob("*")] == ["evil.zip"]


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(ArchiveError, match="is a link"), extracted_archive(tmp_path / "link.zip"):
        pass


def test_bombs_are_refused_before_they_go_off(tmp_path):
    path = zipped(tmp_path / "bomb.zip", **{"zeros": bytes(100 << 20)})
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ArchiveError, match=r"bomb\.zip would unpack to 1 files of 0\.1 GB"), extracted_archive(path):
        pass


def test_too_many_and_too_large_are_refused(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", a=b"12345", b=b"12345")
    for name in ("MOST_FILES", "LARGEST_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(archive, name, 1)
            with pytest.raises(ArchiveError, match="that is no knee"), extracted_archive(path):
                pass


def test_broken_archives_are_named(tmp_path):
    path = zipped(tmp_path / "a.zip", a=np.random.default_rng(0).bytes(5000))
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[:3000], whole[:1000] + b"\0" * 500 + whole[1500:]):
        path.write_bytes(content)
        with (
            pytest.raises(ArchiveError, match=r"a\.zip is not a readable zip file.*fetch it again"),
            extracted_archive(path),
        ):
            pass


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_within_any_packing_names_the_zip(tmp_path, packing):
    path = tmp_path / "study.zip"
    with zipfile.ZipFile(path, "w", packing) as file:
        file.writestr("a.dcm", np.random.default_rng(0).bytes(5000))
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(range(30))
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"study\.zip.*fetch it again"), extracted_archive(path):
        pass


@pytest.mark.parametrize("members", [{"a": b"x", "a/b": b"x"}, {"n" * 300: b"x"}], ids=["file and folder", "long"])
def test_members_that_no_disk_takes_name_the_zip(tmp_path, members):
    with pytest.raises(ArchiveError, match=r"study\.zip"), extracted_archive(zipped(tmp_path / "study.zip", **members)):
        pass


def test_an_encrypted_zip_is_to_be_unpacked_by_hand(tmp_path):
    path = zipped(tmp_path / "study.zip", **{"a.dcm": b"secret"})
    content = bytearray(path.read_bytes())
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(sign) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"study\.zip is encrypted: unpack it by hand"), extracted_archive(path):
        pass

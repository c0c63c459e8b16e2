import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread

from knee3d.geometry.orientation import Side, axis_codes, reorient
from knee3d.geometry.volume import Volume
from knee3d.io.dicom import writer
from knee3d.io.dicom.series import read_series
from knee3d.io.dicom.writer import write_series

NAMES = {"patient": "P001", "description": "made-up DESS", "seed": 7}
UPRIGHT = np.array([[0, 0, -1.0], [0, -1, 0], [-1, 0, 0]])  # RAS directions of Inferior, Posterior, Left


def turned(degrees: float) -> np.ndarray:
    """Directions tilted about two axes."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ UPRIGHT


def phantom(degrees: float = 0, dtype: type = np.int16) -> Volume:
    array = np.random.default_rng(3).integers(0, 100, (6, 5, 4)).astype(dtype)
    affine = np.eye(4)
    affine[:3, :3] = turned(degrees) * [0.4, 0.3, 0.7]
    affine[:3, 3] = 12.25, -30.5, 41
    return Volume(array, affine)


def itk_volume(folder) -> Volume:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Volume(sitk.GetArrayFromImage(image).T, np.diag([-1, -1, 1, 1]) @ affine)


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("degrees", [0, 8, -20])
def test_what_is_written_is_read_back(tmp_path, degrees, side):
    volume = phantom(degrees)
    write_series(volume, tmp_path / "knee", side, **NAMES)
    back, side_back = read_series(tmp_path / "knee")
    assert side_back is side
    back = reorient(back, "IPL")
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-9)


@pytest.mark.parametrize("degrees", [0, 8, -20])
def test_simpleitk_sees_the_same(tmp_path, degrees):
    volume = phantom(degrees)
    write_series(volume, tmp_path / "knee", Side.RIGHT, **NAMES)
    theirs = itk_volume(tmp_path / "knee")
    np.testing.assert_array_equal(reorient(theirs, "IPL").array, volume.array)
    np.testing.assert_allclose(reorient(theirs, "IPL").affine, volume.affine, atol=1e-4)
    ours = read_series(tmp_path / "knee")[0]
    np.testing.assert_array_equal(ours.array, theirs.array)
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-4)


def test_rows_run_down_and_columns_run_back(tmp_path):
    volume = phantom()
    write_series(volume, tmp_path / "knee", Side.LEFT, **NAMES)
    image = dcmread(tmp_path / "knee" / "IM0003.dcm")
    np.testing.assert_array_equal(image.pixel_array, volume.array[:, :, 2])
    assert image.ImageOrientationPatient == [0, 1, 0, 0, 0, -1]  # LPS: a row to Posterior, a column to Inferior
    assert image.PixelSpacing == [0.4, 0.3]
    np.testing.assert_allclose(image.ImagePositionPatient, [-12.25 + 2 * 0.7, 30.5, 41])
    assert (image.Modality, image.BodyPartExamined, image.Laterality) == ("MR", "KNEE", "L")
    assert (image.PatientID, image.PatientIdentityRemoved, image.StudyDate) == ("P001", "YES", "")
    assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_arguments_same_bytes(tmp_path):
    for name in ("once", "again"):
        write_series(phantom(), tmp_path / name, Side.LEFT, **NAMES)
    assert contents(tmp_path / "once") == contents(tmp_path / "again")
    assert sorted(contents(tmp_path / "once")) == [f"IM000{i}.dcm" for i in range(1, 5)]


@pytest.mark.parametrize(
    "change",
    [{"patient": "P002"}, {"side": Side.RIGHT}, {"description": "other"}, {"seed": 8}, {"degrees": 5}, {"add": 1}],
)
def test_other_arguments_other_identifiers(tmp_path, change):
    volume = phantom(change.pop("degrees", 0))
    volume = volume.with_array(volume.array + change.pop("add", 0))
    write_series(phantom(), tmp_path / "once", Side.LEFT, **NAMES)
    write_series(volume, tmp_path / "other", change.pop("side", Side.LEFT), **NAMES | change)
    uids = {dcmread(path).SOPInstanceUID for path in tmp_path.rglob("*.dcm")}
    assert len(uids) == 8
    assert len({dcmread(path).SeriesInstanceUID for path in tmp_path.rglob("*.dcm")}) == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint16, ">i2"])
def test_integers_that_fit_are_written(tmp_path, dtype):
    write_series(phantom(dtype=dtype), tmp_path / "knee", Side.LEFT, **NAMES)
    back = reorient(read_series(tmp_path / "knee")[0], "IPL").array
    assert back.dtype == np.int16
    np.testing.assert_array_equal(back, phantom().array)


def sheared() -> Volume:
    affine = phantom().affine.copy()
    affine[1, 2] += 0.1
    return Volume(phantom().array, affine)


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (reorient(phantom(), "RAS"), "axes IPL.*got RAS"),
        (sheared(), "sheared"),
    ],
)
def test_what_dicom_cannot_hold_is_refused_before_anything_is_written(tmp_path, volume, message):
    with pytest.raises(ValueError, match=message):
        write_series(volume, tmp_path / "knee", Side.LEFT, **NAMES)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_writing_leaves_what_was_there(tmp_path, monkeypatch):
    write_series(phantom(), tmp_path / "knee", Side.LEFT, **NAMES)
    before = contents(tmp_path / "knee")
    write = writer.dcmwrite

    def full_disk(path, *args, **kwargs):
        if path.name == "IM0003.dcm":
            raise OSError("No space left on device")
        write(path, *args, **kwargs)

    monkeypatch.setattr(writer, "dcmwrite", full_disk)
    for name in ("knee", "new"):
        with pytest.raises(OSError, match="No space"):
            write_series(phantom(8), tmp_path / name, Side.LEFT, **NAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["knee"]
    assert contents(tmp_path / "knee") == before


def test_slices_hold_the_codes_the_reader_finds(tmp_path):
    write_series(phantom(), tmp_path / "knee", Side.LEFT, **NAMES)
    assert axis_codes(read_series(tmp_path / "knee")[0].affine) == "PIR"

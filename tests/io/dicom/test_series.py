import os
import shutil
import tracemalloc
from copy import deepcopy
from dataclasses import replace
from itertools import count
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from scanner import (
    BETWEEN_COLUMNS,
    BETWEEN_ROWS,
    COLUMNS,
    EXPECTED,
    GAP,
    ROWS,
    SLICES,
    TURNS,
    enhanced,
    pixel_values,
    rotation,
    save,
    slice_dataset,
)

from knee3d.dataset.discovery import discover_cases, is_dicom_folder
from knee3d.geometry.orientation import Side, reorient
from knee3d.geometry.volume import Volume
from knee3d.io.dicom.grid import regular_grid
from knee3d.io.dicom.headers import DicomError, read_frames
from knee3d.io.dicom.series import SeriesSelector, find_slice_grids, read_series, scan_folder
from knee3d.io.volume_file import write_volume

REAL = Path(__file__).parents[4] / "shared" / "data" / "mese_t2_dicom"
real = pytest.mark.skipif(not REAL.is_dir(), reason="no real DICOM under ../shared")


def itk_reads(files: list[Path], folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Array (x, y, z) and RAS affine as SimpleITK reads and sorts these files."""
    folder.mkdir()
    for path in files:
        (folder / path.name).symlink_to(path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("many", [False, True], ids=["classic", "enhanced"])
def test_highdicom_agrees(make_series, tmp_path, turn, many):
    """Its volumes are indexed (slice, row, column), in LPS, and may count slices from the other end."""

    def frame(image, k):
        image.FrameOfReferenceUID = "1.2.9"  # highdicom wants one

    folder = make_series(frame, turn=turn)
    images = [dcmread(path) for path in sorted(folder.iterdir())]
    if many:
        folder = save(enhanced(images), tmp_path / "e")
        theirs = hd.imread(folder / "ENHANCED.dcm").get_volume(apply_modality_transform=False)
    else:
        theirs = hd.get_volume_from_series(images, apply_modality_transform=False)
    affine = np.diag([-1, -1, 1, 1]) @ theirs.affine[:, [2, 1, 0, 3]]
    expected = reorient(Volume(theirs.array.T, affine), "IPL")
    ours = reorient(read_series(folder)[0], "IPL")
    np.testing.assert_array_equal(ours.array, expected.array)
    np.testing.assert_allclose(ours.affine, expected.affine, atol=1e-4)


# Geometry


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_every_voxel_is_where_its_file_says(make_series, turn):
    """By the standard's own formula (PS3.3 C.7.6.2.1.1), with pixels that are not square."""
    volume, _ = read_series(make_series(turn=turn))
    assert volume.shape == (COLUMNS, ROWS, SLICES)
    for column, row, k in np.ndindex(volume.shape):
        corner = np.array([-20, 30, 5]) + turn[:, 2] * GAP * k
        lps = corner + turn[:, 0] * BETWEEN_COLUMNS * column + turn[:, 1] * BETWEEN_ROWS * row
        np.testing.assert_allclose(volume.affine @ [column, row, k, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-6)
    np.testing.assert_array_equal(volume.array, EXPECTED)


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_simpleitk_agrees(make_series, tmp_path, turn):
    folder = make_series(turn=turn)
    array, affine = itk_reads(sorted(folder.iterdir()), tmp_path / "itk")
    volume, _ = read_series(folder)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)


def test_names_numbers_and_stated_distances_do_not_matter(make_series):
    straight, _ = read_series(make_series())

    def lie(image, k):
        image.InstanceNumber, image.SliceLocation = (3 * k) % 4, "7"
        image.SliceThickness, image.SpacingBetweenSlices = str(k), "0"

    folder = make_series(lie, folder="shuffled")
    for k, name in enumerate(["z", "sub/a", "m", "sub/b.ima"]):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"S{k}.dcm").rename(folder / name)
    shuffled, _ = read_series(folder)
    np.testing.assert_array_equal(shuffled.array, straight.array)
    np.testing.assert_array_equal(shuffled.affine, straight.affine)


def test_step_is_taken_from_positions(make_series):
    volume, _ = read_series(make_series())
    np.testing.assert_allclose(volume.spacing_mm, [BETWEEN_COLUMNS, BETWEEN_ROWS, GAP])


def test_rounded_tags_are_still_one_volume(make_series):
    """Scanners write some 6 digits."""

    def rounded(image, k):
        image.ImagePositionPatient = [f"{float(v):.3f}" for v in image.ImagePositionPatient]
        image.ImageOrientationPatient = [f"{float(v):.5f}" for v in image.ImageOrientationPatient]

    exact, _ = read_series(make_series(turn=TURNS["double oblique"]))
    volume, _ = read_series(make_series(rounded, TURNS["double oblique"]))
    assert volume.same_grid(exact)


@pytest.mark.parametrize("turn", ["oblique", "double oblique"])
def test_orientations_with_three_decimals_make_perpendicular_axes(make_series, tmp_path, turn):
    """Where the exact ones are, within the rounding; and labels may be written as NIfTI."""

    def rounded(image, k):
        image.ImageOrientationPatient = [f"{float(value):.3f}" for value in image.ImageOrientationPatient]
        image.ImagePositionPatient = [f"{float(value):.3f}" for value in image.ImagePositionPatient]

    exact, _ = read_series(make_series(turn=TURNS[turn], folder="exact"))
    volume, _ = read_series(make_series(rounded, turn=TURNS[turn]))
    cosines = volume.affine[:3, :3] / volume.spacing_mm
    np.testing.assert_allclose(cosines.T @ cosines, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(volume.affine, exact.affine, atol=2e-3)
    write_volume(volume, tmp_path / "v.nii.gz")


def test_memory_for_many_images_does_not_grow_with_their_square(make_series):
    (frame,) = read_frames(make_series() / "S0.dcm")
    frames = [replace(frame, position=frame.position + [0, 0, k]) for k in range(4000)]
    tracemalloc.start()
    regular_grid(frames)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # a number for each pair would be 128 MB


def moved(k: int, lps: list[float]):
    """Moves slice k by mm."""

    def change(image, index):
        if index == k:
            image.ImagePositionPatient = [float(v) + d for v, d in zip(image.ImagePositionPatient, lps, strict=True)]

    return change


def on(k: int, **tags):
    """Sets tags of slice k; None deletes."""

    def change(image, index):
        for name, value in tags.items() if index == k else ():
            if value is None:
                delattr(image, name)
            else:
                setattr(image, name, value)

    return change


def sheared(image, k):
    x, y, z = (float(v) for v in image.ImagePositionPatient)
    image.ImagePositionPatient = [x + 0.1 * k, y, z]


TURNED = [f"{v:.9f}" for v in rotation(3, 0, 0)[:, :2].T.ravel()]
REFUSED = {
    "gap": (lambda image, k: k != 1, r"evenly spaced.* 4\.000 mm between S0.dcm, S2.dcm"),
    "uneven": (moved(2, [0, 0, 0.5]), r"2\.500 mm between S1.dcm, S2.dcm; 1\.500 mm between S2.dcm, S3.dcm"),
    "duplicate": (moved(1, [0, 0, -2]), "same place: S0.dcm, S1.dcm.*remove"),
    "sideways": (moved(2, [0.4, 0, 0]), r"S2.dcm lie up to 0\.40 mm sideways"),
    "shear": (sheared, "straight above each other.*resample"),
    "orientation": (on(1, ImageOrientationPatient=TURNED), "ImageOrientationPatient must be one.* in S1.dcm; move"),
    "pixel size": (on(3, PixelSpacing=[0.5, 0.31]), r"PixelSpacing must be one.*\[0.5, 0.31\] is in S3.dcm"),
    "shape": (on(0, Rows=COLUMNS, Columns=ROWS), r"rows and columns.*\[7.0, 5.0\] is in S0.dcm"),
    "no position": (on(2, ImagePositionPatient=None), "S2.dcm lacks ImagePositionPatient: .*export"),
    "empty position": (on(2, ImagePositionPatient=""), "S2.dcm lacks ImagePositionPatient: .*export"),
    "no spacing": (on(2, PixelSpacing=None), "S2.dcm lacks PixelSpacing"),
    "no pixels": (on(2, PixelData=None), "S2.dcm lacks PixelData"),
    "no rows": (on(2, Rows=None, Columns=None), "S2.dcm lacks Rows, Columns"),
    "no orientation, no spacing": (
        on(2, ImageOrientationPatient=None, PixelSpacing=None),
        "S2.dcm lacks ImageOrientationPatient, PixelSpacing",
    ),
    "short position": (on(2, ImagePositionPatient=["1", "2"]), "S2.dcm has no usable place"),
    "no number": (on(2, ImagePositionPatient=[0, float("nan"), 4]), "S2.dcm has no usable place"),
    "no cosine": (on(2, ImageOrientationPatient=[1, 0, 0, float("nan"), 1, 0]), "S2.dcm has no usable place"),
    "zero spacing": (on(2, PixelSpacing=[0, 1]), "S2.dcm has no usable place"),
    "no unit vectors": (on(2, ImageOrientationPatient=[1, 0, 0, 0, 2, 0]), "S2.dcm has no usable place"),
    "skew vectors": (on(2, ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0]), "S2.dcm has no usable place"),
    "no series": (on(2, SeriesInstanceUID=None), "S2.dcm lacks SeriesInstanceUID"),
    "both knees": (lambda image, k: setattr(image, "ImageLaterality", "B"), "both knees.*crop"),
    "both sides": (lambda image, k: setattr(image, "Laterality", "RL"[k % 2]), "right in S.*left in S"),
    "both in one": (on(1, Laterality="R", ImageLaterality="L"), "S1.dcm says both"),
    "colour": (on(1, PhotometricInterpretation="RGB", SamplesPerPixel=3, PlanarConfiguration=0), "S1.dcm is a colour"),
    "frames": (on(1, NumberOfFrames=2), "S1.dcm has several frames without a place.*dcm2niix"),
    "one slice": (lambda image, k: k == 0, "at least 2 slices, there is only S0.dcm"),
    "nothing": (lambda image, k: False, "no MR images.*no file at all"),
    "localizers": (
        lambda image, k: setattr(image, "ImageType", ["DERIVED", "PRIMARY", "LOCALIZER"]),
        "S0.dcm: a localizer",
    ),
    "CT": (lambda image, k: setattr(image, "Modality", "CT"), "4 files skipped .S0.dcm: modality CT, not MR"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_volume_is_refused_by_name(make_series, change, message):
    with pytest.raises(DicomError, match=message) as caught:
        read_series(make_series(change, folder="case"))
    assert "Doe" not in str(caught.value)
    assert "ID4711" not in str(caught.value)
    assert "19700102" not in str(caught.value)


def test_half_of_the_folder_of_another_orientation_names_only_that_half(make_series):
    folder = make_series()
    make_series(turn=rotation(0, 90, 0), name="T{}.dcm")
    with pytest.raises(DicomError, match=r"in T0.dcm, T1.dcm, T2.dcm, T3.dcm; move"):
        read_series(folder)


@pytest.mark.parametrize("keep", [0, 100, 135, 300, 450, 700, -1])
def test_cut_off_file_is_named(make_series, keep):
    folder = make_series()
    path = folder / "S2.dcm"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DicomError, match="S2.dcm"):
        read_series(folder)


LOST = {
    "empty": lambda path: path.write_bytes(b""),
    "shorter than a preamble": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "in its header": lambda path: path.write_bytes(path.read_bytes()[:600]),
    "in its pixels": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to(path.with_name("gone"))),
}


@pytest.mark.parametrize("ending", [".dcm", "", ".IMA"])
@pytest.mark.parametrize("lose", LOST.values(), ids=LOST)
def test_a_series_without_its_last_slice_is_not_a_shorter_knee(make_series, lose, ending):
    """Nor is one whose lost file is called otherwise than the others."""
    folder = make_series(name="IM{}" + ending)
    lost = folder / f"IM3{ending}"
    lose(lost)
    with pytest.raises(DicomError, match=rf"{lost.name}\W.*(fetch|export)"):
        read_series(folder)
    assert len(scan_folder(folder).broken) == (
        lose is not LOST["in its pixels"]
    )  # a cut that is shorter than the header
    lost.unlink()
    assert read_series(folder)[0].shape[2] == 3


def test_empty_files_alone_are_no_series(tmp_path):
    (tmp_path / "IM1").touch()
    (tmp_path / "notes.txt").write_text("of someone")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert sorted(reason for _, reason in scan_folder(tmp_path).skipped) == ["empty", "empty", "not DICOM"]
    assert not scan_folder(tmp_path).broken
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for ever
    assert len(scan_folder(tmp_path).skipped) == 3


@pytest.mark.parametrize(("first", "last"), [(0, 3), (1, 4), (1, 3)])
def test_a_series_has_as_many_images_as_its_headers_say(make_series, first, last):
    """Where the numbers are those of the count; else they say nothing."""

    def change(image, k):
        image.InstanceNumber, image.ImagesInAcquisition = k + 1, 4
        return first <= k < last

    folder = make_series(change)
    with pytest.raises(DicomError, match=f"4 images.* {4 - last + first} are missing.*--incomplete"):
        read_series(folder)
    assert read_series(folder, SeriesSelector(incomplete=True))[0].shape[2] == last - first


def test_a_count_that_is_absurd_costs_no_memory(make_series):
    def change(image, k):
        image.InstanceNumber, image.ImagesInAcquisition = k + 1, 2**31 - 1

    with pytest.raises(DicomError, match="2147483643 are missing, such as number 5"):
        read_series(make_series(change))


@pytest.mark.parametrize("number", [None, 7])
def test_numbers_that_count_something_else_say_nothing_of_what_is_missing(make_series, number):
    def change(image, k):
        image.InstanceNumber, image.ImagesInAcquisition = number and number + k, 4
        return k < 3

    assert read_series(make_series(change))[0].shape[2] == 3


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("name", ["S{}.dcm", "S{}.IMA", "S{}"])
def test_files_without_a_preamble_are_read(make_series, tmp_path, implicit, name):
    expected, _ = read_series(make_series())
    folder = make_series(folder="bare", name=name)
    for path in folder.iterdir():
        image = Dataset()
        image.update(dcmread(path))
        image.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[128:132] != b"DICM"
    volume, _ = read_series(folder)
    np.testing.assert_array_equal(volume.array, expected.array)
    np.testing.assert_array_equal(volume.affine, expected.affine)
    assert is_dicom_folder(folder)
    assert len(discover_cases(tmp_path).knees) == 2


@pytest.mark.parametrize(
    ("modality", "said"),
    [("OT", "modality OT, not MR"), ("CT", "modality CT, not MR"), ("", "modality not given"), (None, "not given")],
)
def test_images_of_another_modality_are_read_when_the_user_insists(make_series, modality, said):
    def change(image, k):
        image.Modality = modality
        if modality is None:
            del image.Modality

    folder = make_series(change)
    with pytest.raises(DicomError, match=f"{said}.*--any-modality"):
        read_series(folder)
    np.testing.assert_array_equal(read_series(folder, SeriesSelector(any_modality=True))[0].array, EXPECTED)


def test_a_screenshot_among_the_slices_is_left_aside(make_series):
    folder = make_series()
    picture = slice_dataset(0, TURNS["level"])
    picture.PhotometricInterpretation, picture.SamplesPerPixel, picture.PlanarConfiguration = "RGB", 3, 0
    picture.PixelData = picture.PixelData * 3
    for name in ("ImagePositionPatient", "ImageOrientationPatient"):
        delattr(picture, name)
    dcmwrite(folder / "screen.dcm", picture, enforce_file_format=True)
    np.testing.assert_array_equal(read_series(folder)[0].array, EXPECTED)
    assert [reason for _, reason in scan_folder(folder).skipped] == ["a colour picture without a place"]


@pytest.mark.parametrize(
    ("charset", "text"),
    [("Not Supplied", "Müller".encode("cp1252")), (["ISO 2022 IR 6", "IS"], "колено".encode("cp1251"))],
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_remarks_of_pydicom_are_one_line_of_a_folder(make_series, caplog, capfd, charset, text):
    def change(image, k):
        image.SpecificCharacterSet = charset
        image.add(RawDataElement(Tag("SeriesDescription"), "LO", len(text), text, 0, False, True))

    folder = make_series(change)
    caplog.clear()  # of what is said when files are written
    capfd.readouterr()
    assert not discover_cases(folder).without_knee
    np.testing.assert_array_equal(read_series(folder)[0].array, EXPECTED)
    find_slice_grids(folder, again=True)

    (said,) = [record.message for record in caplog.records]
    assert str(folder) in said
    assert "Unknown encoding" in said
    assert capfd.readouterr().err == ""


def test_exact_copies_are_used_once_and_said(make_series, caplog):
    """Under another name, and in another folder; the same images under other identifiers are refused."""
    folder = make_series()
    shutil.copy(folder / "S1.dcm", folder / "S1 (1).dcm")
    shutil.copytree(folder, folder / "again")
    with caplog.at_level("INFO"):
        np.testing.assert_array_equal(read_series(folder)[0].array, EXPECTED)
    assert "6 files left aside (an exact copy of another file)" in caplog.text
    other = dcmread(folder / "S1.dcm")
    other.SOPInstanceUID = "1.2.3.4"
    dcmwrite(folder / "other.dcm", other, enforce_file_format=True)
    with pytest.raises(DicomError, match=r"same place: S1.* \(1\).dcm, other.dcm|same place: S1.*other.dcm"):
        read_series(folder)


def test_copies_that_differ_are_named_with_their_folders(make_series, tmp_path):
    (tmp_path / "study").mkdir()
    for name in ("a", "b"):
        make_series(folder=f"study/{name}")
    with pytest.raises(DicomError, match=r"same place: a/S0.dcm, b/S0.dcm"):
        read_series(tmp_path / "study")


def test_series_without_an_identifier_are_read(make_series):
    np.testing.assert_array_equal(
        read_series(make_series(lambda image, k: delattr(image, "SeriesInstanceUID")))[0].array, EXPECTED
    )


def test_missing_folder(tmp_path):
    with pytest.raises(NotADirectoryError, match="give the folder"):
        scan_folder(tmp_path / "nowhere")


# Which series, which echo


def test_foreign_files_are_left_aside_and_reported(make_series):
    folder = make_series()
    make_series(lambda image, k: setattr(image, "Modality", "CT"), name="CT{}")
    make_series(lambda image, k: setattr(image, "ImageType", ["ORIGINAL", "LOCALIZER"]), name="scout{}.dcm")
    make_series(on(0, SOPClassUID="1.2.840.10008.5.1.4.1.1.66"), name="raw{}.dcm")
    for k in range(1, SLICES):
        (folder / f"raw{k}.dcm").unlink()
    (folder / "notes.txt").write_text("hello")
    (folder / ".DS_Store").write_bytes(b"junk")
    np.testing.assert_array_equal(read_series(folder)[0].array, EXPECTED)
    found = scan_folder(folder)
    reasons = {path.name: reason for path, reason in found.skipped}
    assert set(reasons) == {
        f"{name}{k}{end}" for name, end in (("CT", ""), ("scout", ".dcm")) for k in range(SLICES)
    } | {
        "notes.txt",
        "raw0.dcm",
    }
    assert (reasons["notes.txt"], reasons["CT1"]) == ("not DICOM", "modality CT, not MR")
    assert (reasons["scout3.dcm"], reasons["raw0.dcm"]) == ("a localizer", "no picture")
    assert len(found.series) == 1


def second_series(image, k):
    image.SeriesInstanceUID, image.SeriesNumber, image.SeriesDescription = "1.2.4", 9, "DESS"
    image.PixelData = (pixel_values(k) + 1000).tobytes()


def test_two_series_are_listed_and_chosen_by_number_or_uid(make_series):
    folder = make_series()
    make_series(second_series, name="T{}.dcm")
    with pytest.raises(DicomError) as caught:
        read_series(folder)
    for text in ("--series", "series 8 1.2.3: echo 1 (6.5 ms, 4 images)", "series 9 1.2.4: echo 1"):
        assert text in str(caught.value)
    for name in ("9", "1.2.4"):
        np.testing.assert_array_equal(read_series(folder, SeriesSelector(name))[0].array, EXPECTED + 1000)
    np.testing.assert_array_equal(read_series(folder, SeriesSelector("8"))[0].array, EXPECTED)
    with pytest.raises(DicomError, match=r"0 series that match '7'.*\n  series 8"):
        read_series(folder, SeriesSelector("7"))


def test_lone_picture_does_not_stand_in_the_way(make_series):
    folder = make_series()
    make_series(lambda image, k: second_series(image, k) if k == 0 else False, name="T{}.dcm")
    np.testing.assert_array_equal(read_series(folder)[0].array, EXPECTED)
    with pytest.raises(DicomError, match="at least 2 slices"):
        read_series(folder, SeriesSelector("9"))


def two_echoes(make_series, first: object = 1, second: object = 2) -> Path:
    """A second echo at 20 ms with voxels 1000 higher."""

    def echo(number, time, extra):
        def change(image, k):
            image.EchoTime, image.PixelData = time, (pixel_values(k) + extra).tobytes()
            if number is None:
                del image.EchoNumbers
            else:
                image.EchoNumbers = number

        return change

    make_series(echo(second, "20", 1000), name="A{}.dcm")
    return make_series(echo(first, "6.5", 0), name="B{}.dcm")


@pytest.mark.parametrize(("first", "second"), [(1, 2), (None, None), (1, 1), ([1, 2], [1, 2])])
def test_echoes_are_told_apart_by_number_or_else_by_time(make_series, first, second):
    folder = two_echoes(make_series, first, second)
    with pytest.raises(
        DicomError, match=r"--echo N.*--echo rss.*\n.*echo 1 \(6.5 ms, 4 images\), echo 2 \(20 ms, 4 images\)"
    ):
        read_series(folder)
    for number in (1, 2):
        for spelled in (number, str(number)):
            volume, _ = read_series(folder, SeriesSelector(echo=str(spelled)))
            np.testing.assert_array_equal(volume.array, EXPECTED + 1000 * (number - 1))
            assert volume.array.dtype == np.int16
    with pytest.raises(DicomError, match="no echo '3'.*"):
        read_series(folder, SeriesSelector(echo="3"))


def test_stated_echo_numbers_are_kept(make_series):
    folder = two_echoes(make_series, 3, 5)
    assert [echo.number for echo in scan_folder(folder).series[0].echoes] == [3, 5]
    np.testing.assert_array_equal(read_series(folder, SeriesSelector(echo="5"))[0].array, EXPECTED + 1000)


def test_root_sum_of_squares(make_series):
    folder = two_echoes(make_series)
    volume, _ = read_series(folder, SeriesSelector(echo="rss"))
    assert volume.array.dtype == np.float32
    values = EXPECTED.astype(float)
    np.testing.assert_allclose(volume.array, np.sqrt(values**2 + (values + 1000) ** 2), rtol=1e-6)


def test_echoes_of_different_grids_have_no_sum(make_series):
    folder = two_echoes(make_series)
    (folder / "A3.dcm").unlink()
    with pytest.raises(DicomError, match="no sum"):
        read_series(folder, SeriesSelector(echo="rss"))


@pytest.mark.parametrize("echo", ["rss", 2, "both"])
def test_single_echo_has_no_other(make_series, echo):
    with pytest.raises(DicomError, match=f"no echo {str(echo)!r}"):
        read_series(make_series(), SeriesSelector(echo=str(echo)))


# Pixels


@pytest.mark.parametrize(
    ("dtype", "stored", "expected"),
    [("i2", 16, "i2"), ("u2", 12, "i2"), ("u2", 16, "i4"), ("u1", 8, "i2"), ("i2", 12, "i2"), ("u4", 32, "i8")],
)
@pytest.mark.parametrize("inverted", [False, True])
def test_stored_types(make_series, dtype, stored, expected, inverted):
    low, high = (0, 2**stored - 1) if dtype[0] == "u" else (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1)
    rng = np.random.default_rng(5)
    values = rng.integers(low, high, (SLICES, ROWS, COLUMNS), endpoint=True).astype(dtype)
    values[:, 0, 0], values[:, 0, 1] = low, high

    def change(image, k):
        image.BitsAllocated, image.BitsStored, image.HighBit = 8 * values.itemsize, stored, stored - 1
        image.PixelRepresentation = int(dtype[0] == "i")
        image.PixelData = values[k].tobytes() + b"\0" * (values[k].nbytes % 2)
        image["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"
        if inverted:
            image.PhotometricInterpretation = "MONOCHROME1"

    array = read_series(make_series(change))[0].array
    assert array.dtype == expected
    shown = low + high - values.astype(np.int64) if inverted else values
    np.testing.assert_array_equal(array, np.transpose(shown))


def test_rescale_of_every_slice_is_its_own(make_series):
    slopes, intercepts = [1, 2, 0.5, 1], [0, -10, 3.25, 0]

    def change(image, k):
        image.RescaleSlope, image.RescaleIntercept = slopes[k], intercepts[k]

    array = read_series(make_series(change))[0].array
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, EXPECTED * np.array(slopes) + intercepts)


def test_a_slope_of_0_counts_as_1_and_is_said_once(make_series, caplog):
    array = read_series(make_series(lambda image, k: setattr(image, "RescaleSlope", "0")))[0].array
    np.testing.assert_array_equal(array, EXPECTED)
    assert [record.message.count("RescaleSlope is 0 in 4 images") for record in caplog.records] == [1]


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("slope", [None, 2])
@pytest.mark.parametrize(
    "told",  # values of padding, the range's limit, whether pixels are signed, value representation of the attributes
    [([-1024], None, True, "SS"), ([-32768], None, True, "US"), ([-1000, -900, -1], -1, True, "SS"),
     ([60000, 65535], 60000, False, "US")],
)  # fmt: skip
def test_padding_becomes_the_lowest_value_of_the_others(make_series, caplog, told, slope, inverted):
    """Whatever the sign that its own value representation has, in every kind of pixel."""
    values, limit, signed, vr = told
    lowest = 3

    def change(image, k):
        stored = np.full((ROWS, COLUMNS), 9, np.int64)
        stored[0, :2] = lowest, 30
        stored[1, : len(values)] = values
        image.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
        image.PixelRepresentation = int(signed)
        image.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
        value = values[0] if limit is None or signed else values[-1]
        image.add_new("PixelPaddingValue", vr, value if vr == "SS" else value % 65536)
        if limit is not None:
            image.add_new("PixelPaddingRangeLimit", vr, limit)
        if slope:
            image.RescaleSlope = slope

    with caplog.at_level("INFO"):
        array = read_series(make_series(change))[0].array
    black = (-1 if signed else 65535) - 30 if inverted else lowest
    assert array.min() == black * (slope or 1)
    assert (array[: len(values), 1] == array.min()).all()
    assert sum("padding" in record.message for record in caplog.records) == 1


def test_rescale_by_nothing_keeps_integers(make_series):
    def change(image, k):
        image.RescaleSlope, image.RescaleIntercept = "1.0", "0"

    assert read_series(make_series(change))[0].array.dtype == np.int16


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda syntax: syntax.name,
)
def test_uncompressed_syntaxes_are_equal(make_series, tmp_path, syntax):
    folder = make_series()
    for path in folder.iterdir():
        image = dcmread(path)
        if syntax == ExplicitVRBigEndian:
            image.PixelData = image.pixel_array.astype(">i2").tobytes()
            image["PixelData"].VR = "OW"
        image.file_meta.TransferSyntaxUID = syntax
        dcmwrite(path, image, little_endian=syntax.is_little_endian, implicit_vr=syntax.is_implicit_VR)
        assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    volume, _ = read_series(folder)
    np.testing.assert_array_equal(volume.array, EXPECTED)
    assert volume.array.dtype == np.dtype("=i2")
    array, affine = itk_reads(sorted(folder.iterdir()), tmp_path / "itk")
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)


def compress(image: Dataset, syntax: UID, scratch: Path) -> None:
    """In place; GDCM, through SimpleITK, encodes JPEG lossless, for which pydicom has no encoder."""
    if syntax != JPEGLosslessSV1:
        image.compress(syntax, generate_instance_uid=False)
        return
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetUseCompression(True)
    writer.SetCompressor("JPEG")
    writer.SetFileName(str(scratch))
    writer.Execute(sitk.GetImageFromArray(image.pixel_array))
    encoded = dcmread(scratch)
    image.PixelData = encoded.PixelData
    image["PixelData"].VR, image["PixelData"].is_undefined_length = "OB", True
    image.file_meta.TransferSyntaxUID = encoded.file_meta.TransferSyntaxUID
    scratch.unlink()


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless], ids=lambda syntax: syntax.name
)
def test_compressed_copies_are_equal(make_series, tmp_path, syntax):
    """48 x 40 pixels: JPEG 2000 needs some room."""
    values = np.random.default_rng(2).integers(-500, 3000, (SLICES, 48, 40)).astype(np.int16)

    def change(image, k):
        image.Rows, image.Columns, image.PixelData = 48, 40, values[k].tobytes()
        compress(image, syntax, tmp_path / "scratch.dcm")

    folder = make_series(change)
    path = folder / "S1.dcm"
    assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_series(folder)[0].array, values.T)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DicomError, match="S1.dcm"):
        read_series(folder)


# Enhanced multi-frame


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_enhanced_file_is_the_series_of_its_frames(make_series, tmp_path, turn):
    """Frames in any order; a file of many is read as the many files."""
    classic, _ = read_series(make_series(turn=turn))
    images = [slice_dataset(k, turn) for k in (2, 0, 3, 1)]
    volume, side = read_series(save(enhanced(images, Laterality="L"), tmp_path / "e"))
    np.testing.assert_array_equal(volume.array, classic.array)
    np.testing.assert_array_equal(volume.affine, classic.affine)
    assert side is Side.LEFT


def test_enhanced_file_agrees_with_simpleitk(tmp_path):
    images = [slice_dataset(k, TURNS["oblique"]) for k in range(SLICES)]
    folder = save(enhanced(images), tmp_path / "e")
    volume, _ = read_series(folder)
    image = sitk.ReadImage(str(folder / "ENHANCED.dcm"))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image).T)
    np.testing.assert_allclose(volume.affine, np.diag([-1, -1, 1, 1]) @ affine, atol=1e-4)


def private_sequences(frame: Dataset, k: int) -> None:
    """What Philips (2005,140F), Siemens XA (0021,11FE), GE (0043,10A0) and Canon (700D,10A0) may put beside a frame.

    Each repeats public attributes with other values.
    """
    creators = {0x2005: ("Philips MR Imaging DD 005", 0x0F), 0x0021: ("SIEMENS MR SDI 02", 0xFE),
                0x0043: ("GEMS_PARM_01", 0xA0), 0x700D: ("TOSHIBA_MEC_MR3", 0xA0)}  # fmt: skip
    for group, (creator, element) in creators.items():
        other = Dataset()
        other.ImagePositionPatient, other.ImageOrientationPatient = [1, 2, 3 * k], [0, 1, 0, 0, 0, 1]
        other.PixelSpacing, other.RescaleSlope, other.RescaleIntercept = [9, 9], "2.5", "7"
        other.EchoTime, other.EffectiveEchoTime, other.ComplexImageComponent = str(k), float(k), "PHASE"
        other.FrameLaterality = "R"
        frame.private_block(group, creator, create=True).add_new(element, "SQ", [other])


@pytest.mark.parametrize("shared", [False, True], ids=["of each frame", "of all frames"])
def test_private_content_decides_nothing(tmp_path, shared):
    images = [slice_dataset(k, TURNS["oblique"]) for k in range(SLICES)]
    plain, side = read_series(save(enhanced(images), tmp_path / "plain"))
    image = enhanced(images)
    groups = image.SharedFunctionalGroupsSequence if shared else image.PerFrameFunctionalGroupsSequence
    for k, frame in enumerate(groups):
        private_sequences(frame, k)
    private_sequences(image, 5)
    folder = save(image, tmp_path / "private")
    volume, same_side = read_series(folder)
    np.testing.assert_array_equal(volume.array, plain.array)
    np.testing.assert_array_equal(volume.affine, plain.affine)
    assert (volume.array.dtype, same_side) == (plain.array.dtype, side)
    itk = sitk.ReadImage(str(folder / "ENHANCED.dcm"))
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ volume.affine[:, 3], [*itk.GetOrigin(), 1], atol=1e-4)


def test_public_attributes_count_in_their_own_functional_group_only(tmp_path):
    """And those of a frame more than those that all share."""
    images = [slice_dataset(k, TURNS["level"]) for k in range(SLICES)]
    expected, _ = read_series(save(enhanced(images), tmp_path / "plain"))
    image = enhanced(images)
    elsewhere, general = Dataset(), Dataset()
    elsewhere.ImagePositionPatient, elsewhere.RescaleSlope = [1, 2, 3], "4"
    general.ImagePositionPatient = [4, 5, 6]
    for frame in image.PerFrameFunctionalGroupsSequence:
        frame.FrameContentSequence, frame.RealWorldValueMappingSequence = [elsewhere], [elsewhere]
    image.SharedFunctionalGroupsSequence[0].PlanePositionSequence = [general]
    found, _ = read_series(save(image, tmp_path / "e"))
    np.testing.assert_array_equal(found.array, expected.array)
    np.testing.assert_array_equal(found.affine, expected.affine)


def test_classic_files_converted_to_an_enhanced_one_keep_their_echo_times(tmp_path):
    images = [slice_dataset(k, TURNS["level"]) for k in range(SLICES)]
    image = enhanced(images)
    for frame in image.PerFrameFunctionalGroupsSequence:
        converted = Dataset()
        converted.EchoTime = "6.5"
        del frame.MREchoSequence
        frame.UnassignedPerFrameConvertedAttributesSequence = [converted]
    (series,) = scan_folder(save(image, tmp_path / "e")).series
    assert [echo.time_ms for echo in series.echoes] == [6.5]


def test_enhanced_echoes_rescales_and_phase_are_told_apart(tmp_path):
    images = []
    for time, extra in (("20", 1000), ("6.5", 0)):
        for k in range(SLICES):
            image = slice_dataset(k, TURNS["level"])
            image.EchoTime, image.PixelData = time, (pixel_values(k) + extra).tobytes()
            image.RescaleSlope = k + 1
            images.append(image)
            phase = deepcopy(image)
            phase.ComplexImageComponent = "PHASE"
            images.append(phase)
    folder = save(enhanced(images), tmp_path / "e")
    with pytest.raises(DicomError, match=r"echo 1 \(6.5 ms, 4 images\), echo 2 \(20 ms, 4 images\)"):
        read_series(folder)
    slopes = np.arange(1, SLICES + 1)
    np.testing.assert_allclose(read_series(folder, SeriesSelector(echo="1"))[0].array, EXPECTED * slopes)
    np.testing.assert_allclose(read_series(folder, SeriesSelector(echo="2"))[0].array, (EXPECTED + 1000) * slopes)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, DeflatedExplicitVRLittleEndian], ids=str)
def test_compressed_enhanced_files(tmp_path, syntax):
    images = [slice_dataset(k, TURNS["level"]) for k in range(SLICES)]
    values = np.random.default_rng(1).integers(0, 2000, (SLICES, 48, 40)).astype(np.int16)
    for image, value in zip(images, values, strict=True):
        image.Rows, image.Columns, image.PixelData = 48, 40, value.tobytes()
    image = enhanced(images)
    if syntax.is_compressed and not syntax.is_deflated:
        image.compress(syntax, generate_instance_uid=False)
    image.file_meta.TransferSyntaxUID = syntax
    np.testing.assert_array_equal(read_series(save(image, tmp_path / "e"))[0].array, values.T)


def test_enhanced_files_that_contradict_themselves(tmp_path):
    images = [slice_dataset(k, TURNS["level"]) for k in range(SLICES)]
    with pytest.raises(DicomError, match="describes 4 frames but has 3"):
        read_series(save(enhanced(images, NumberOfFrames=3), tmp_path / "few"))
    lost = enhanced(images)
    del lost.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence
    with pytest.raises(DicomError, match=r"ENHANCED.dcm frame 3 lacks ImagePositionPatient"):
        read_series(save(lost, tmp_path / "lost"))
    short = enhanced(images)
    short.PixelData = short.PixelData[:-10]
    with pytest.raises(DicomError, match=r"cannot read ENHANCED.dcm"):
        read_series(save(short, tmp_path / "short"))


# Side


@pytest.mark.parametrize(
    ("tags", "side"),
    [
        ({}, Side.UNKNOWN),
        ({"Laterality": ""}, Side.UNKNOWN),
        ({"Laterality": "R"}, Side.RIGHT),
        ({"ImageLaterality": "L"}, Side.LEFT),
        ({"Laterality": "L", "ImageLaterality": "L"}, Side.LEFT),
        ({"Laterality": "R", "ImageLaterality": "B"}, Side.RIGHT),
        ({"Laterality": "", "ImageLaterality": "R"}, Side.RIGHT),
    ],
)
def test_side(make_series, tags, side):
    assert read_series(make_series(lambda image, k: on(k, **tags)(image, k)))[1] is side


def test_one_slice_may_speak_for_the_others(make_series):
    assert read_series(make_series(on(2, Laterality="L")))[1] is Side.LEFT


# A real multi-echo series: 8 echoes x 24 slices under one UID, sagittal oblique, big endian


@real
def test_real_series_lists_its_echoes():
    (series,) = scan_folder(REAL).series
    assert [echo.number for echo in series.echoes] == list(range(1, 9))
    assert [len(echo.frames) for echo in series.echoes] == [24] * 8
    np.testing.assert_allclose([echo.time_ms for echo in series.echoes], 6.312 * np.arange(1, 9))
    with pytest.raises(DicomError, match=r"echo 1 \(6.312 ms, 24 images\).*echo 8 \(50.496 ms, 24 images\)"):
        read_series(REAL)


@pytest.mark.slow
@real
def test_real_echoes_are_as_simpleitk_reads_them(tmp_path):
    squares = 0.0
    for echo, number in zip(scan_folder(REAL).series[0].echoes, count(1), strict=False):
        array, affine = itk_reads([frame.path for frame in echo.frames], tmp_path / str(number))
        volume, side = read_series(REAL, SeriesSelector(echo=str(number)))
        np.testing.assert_array_equal(volume.array, array)
        np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
        np.testing.assert_allclose(volume.spacing_mm, [0.625, 0.625, 4], atol=1e-4)
        assert side is Side.UNKNOWN
        squares = squares + array.astype(float) ** 2
    combined, _ = read_series(REAL, SeriesSelector("8", "rss"))
    np.testing.assert_allclose(combined.array, np.sqrt(squares), rtol=1e-6)


def test_twelve_bits_are_read_without_a_word(make_series, caplog, capfd):
    """pydicom remarks on each such file, in a log below its own."""

    def change(image, k):
        image.BitsStored, image.HighBit, image.PixelRepresentation = 12, 11, 0
        image.PixelData = (np.abs(pixel_values(k)) % 4096).astype("<u2").tobytes()

    folder = make_series(change)
    caplog.clear()
    with caplog.at_level("DEBUG"):
        read_series(folder)
    assert [record.name for record in caplog.records if record.name.startswith("pydicom")] == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("told", "side"), [("LEFT", Side.LEFT), ("RIGHT", Side.RIGHT)])
def test_laterality_in_words(make_series, told, side):
    def change(image, k):
        image.Laterality = told

    assert read_series(make_series(change))[1] is side

"""DICOM-SEG: labels go out and come back on their grid, for knee3d and for others."""

import re
from copy import deepcopy
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.sr.codedict import codes
from scanner import COLUMNS, ROWS, SLICES, TURNS, enhanced, save, slice_dataset

from knee3d.geometry.orientation import Side, to_canonical
from knee3d.geometry.volume import Volume
from knee3d.io.dicom.grid import SliceGrid
from knee3d.io.dicom.headers import DicomError
from knee3d.io.dicom.segmentation import is_segmentation, read_segmentation, write_segmentation
from knee3d.io.dicom.series import SeriesSelector, find_slice_grids, read_series
from knee3d.labels.label_names import LabelNames
from knee3d.labels.label_scheme import SCHEMES

SCHEME = SCHEMES["iwoai"]


def some_labels(grid: SliceGrid, classes: int = len(SCHEME.tissues) + 1) -> Volume:
    """Every class, at random, in every slice."""
    return Volume(np.random.default_rng(0).integers(0, classes, grid.shape, dtype=np.uint8), grid.affine)


def written(
    folder: Path, labels: Volume | None = None, scheme=SCHEME, **choice
) -> tuple[Path, Volume, list[SliceGrid]]:
    grids = find_slice_grids(folder, SeriesSelector(**choice))
    labels = some_labels(grids[0]) if labels is None else labels
    path = folder.parent / "labels.dcm"
    write_segmentation(labels, scheme, Side.LEFT, grids, path, "knee_1")
    return path, labels, grids


def on_the_grid_of(path: Path, labels: Volume) -> np.ndarray:
    read, _ = read_segmentation(path)
    return to_canonical(read).padded_to(to_canonical(labels)).array


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_labels_come_back_on_the_grid_of_the_images(make_series, turn):
    folder = make_series(turn=turn)
    path, labels, _ = written(folder)
    np.testing.assert_array_equal(on_the_grid_of(path, labels), to_canonical(labels).array)
    assert read_series(folder)[0].same_grid(labels)
    assert is_segmentation(path)
    assert not is_segmentation(folder / "S0.dcm")


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_labels_come_back_from_a_multi_frame_file(tmp_path, turn):
    """Frames lie in any order, and those of the phase belong to no slice."""
    images = []
    for k in (2, 0, 3, 1):
        images += [slice_dataset(k, turn), slice_dataset(k, turn)]
        images[-1].ComplexImageComponent = "PHASE"
    path, labels, _ = written(save(enhanced(images), tmp_path / "e"))
    np.testing.assert_array_equal(on_the_grid_of(path, labels), to_canonical(labels).array)
    referred = {
        item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for item in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    }
    assert referred == {1, 3, 5, 7}


def test_images_spread_over_several_multi_frame_files_are_all_referred_to(tmp_path):
    """Each slice refers to its own frame of its own file."""

    def place(item: pydicom.Dataset) -> tuple:
        return tuple(np.round(np.array(item.ImagePositionPatient, float), 3).tolist())

    made = {}
    for number, slices in enumerate(((3, 0), (1, 2)), start=1):
        pair = [slice_dataset(k, TURNS["level"]) for k in slices]
        made.update({place(one): (f"1.2.{number}", n) for n, one in enumerate(pair, start=1)})
        file = save(enhanced(pair, SOPInstanceUID=f"1.2.{number}"), tmp_path / "e") / "ENHANCED.dcm"
        file.rename(file.with_name(f"{number}.dcm"))
    path, labels, _ = written(tmp_path / "e")
    np.testing.assert_array_equal(on_the_grid_of(path, labels), to_canonical(labels).array)
    segmentation = pydicom.dcmread(path)
    (series,) = segmentation.ReferencedSeriesSequence
    assert {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence} == {"1.2.1", "1.2.2"}
    for item in segmentation.PerFrameFunctionalGroupsSequence:
        (source,) = item.DerivationImageSequence[0].SourceImageSequence
        referred = (source.ReferencedSOPInstanceUID, source.ReferencedFrameNumber)
        assert referred == made[place(item.PlanePositionSequence[0])]


def test_others_read_the_same(make_series):
    """highdicom and SimpleITK, segment by segment."""
    path, labels, _ = written(make_series(turn=TURNS["double oblique"]))
    slices = labels.array.T
    theirs = hd.seg.segread(path)
    uids = [image.SOPInstanceUID for image in sources_in_order(path.parent / "series")]
    volume = theirs.get_pixels_by_source_instance(uids, combine_segments=True)
    np.testing.assert_array_equal(volume, slices)
    frames = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    header = pydicom.dcmread(path)
    assert len(frames) == header.NumberOfFrames == SLICES * len(SCHEME.tissues)
    for frame, item in zip(frames, header.PerFrameFunctionalGroupsSequence, strict=True):
        value = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        np.testing.assert_array_equal(frame > 0, slices[uids.index(source)] == value)


def sources_in_order(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(folder / f"S{k}.dcm") for k in range(SLICES)]


def test_segments_have_names_colours_and_codes(make_series):
    path, _, _ = written(make_series())
    theirs = hd.seg.segread(path)
    for number, one in enumerate(SCHEME.tissues, start=1):
        described = theirs.get_segment_description(number)
        assert described.SegmentLabel == one.name
        rgb = hd.color.CIELabColor.from_dicom_value(described.RecommendedDisplayCIELabValue).to_rgb()
        np.testing.assert_allclose(rgb, one.colour, atol=2)
    plate = theirs.get_segment_description(2)
    assert plate.SegmentLabel == "medial tibial cartilage"
    assert plate.segmented_property_type == codes.SCT.Cartilage
    assert plate.segmented_property_category == codes.SCT.Tissue
    assert plate.AnatomicRegionSequence[0].CodeValue == codes.SCT.Tibia.value
    assert plate.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0].CodeValue == codes.SCT.Left.value
    modifier = plate.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert (modifier.CodeValue, modifier.CodingSchemeDesignator) == (codes.SCT.Medial.value, "SCT")


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_every_scheme_is_told_by_its_names_and_by_its_codes(make_series, scheme):
    folder = make_series()
    path, labels, _ = written(folder, some_labels(find_slice_grids(folder)[0], len(scheme.tissues) + 1), scheme)
    named = LabelNames(dict(enumerate(scheme.names, start=1)))
    assert read_segmentation(path)[1] == named
    foreign = pydicom.dcmread(path)
    for item in foreign.SegmentSequence:
        item.SegmentLabel = f"Segment {item.SegmentNumber}"
    foreign.save_as(path)
    assert read_segmentation(path)[1] == named
    foreign.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue = codes.SCT.Liver.value
    foreign.save_as(path)
    assert read_segmentation(path)[1] is None
    np.testing.assert_array_equal(on_the_grid_of(path, labels), to_canonical(labels).array)


def test_only_slices_with_tissue_are_written(make_series):
    folder = make_series()
    grid = find_slice_grids(folder)[0]
    array = np.zeros(grid.shape, np.uint8)
    array[2:4, 1, 1] = 3
    path, labels, _ = written(folder, Volume(array, grid.affine))
    assert pydicom.dcmread(path).NumberOfFrames == 1
    np.testing.assert_array_equal(on_the_grid_of(path, labels), to_canonical(labels).array)


def test_a_knee_without_any_tissue_can_be_written(make_series):
    folder = make_series()
    grid = find_slice_grids(folder)[0]
    path, labels, _ = written(folder, Volume(np.zeros(grid.shape, np.uint8), grid.affine))
    assert not on_the_grid_of(path, labels).any()


def test_all_echoes_are_referred_to(make_series):
    folder = make_series()

    def second(image, k):
        image.EchoNumbers, image.EchoTime = 2, "20"

    make_series(second, name="T{}.dcm")
    path, labels, grids = written(folder, echo="rss")
    assert len(grids) == 2
    np.testing.assert_array_equal(on_the_grid_of(path, labels), to_canonical(labels).array)
    header = pydicom.dcmread(path)
    (series,) = header.ReferencedSeriesSequence
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == {
        frame.instance for grid in grids for frame in grid.frames
    }


def test_nothing_of_the_patient_but_identifiers_of_the_images_goes_along(make_series):
    def identify(image, k):
        for tag in ("PatientComments", "InstitutionName", "ReferringPhysicianName", "StudyDescription", "StationName"):
            setattr(image, tag, "SECRET")
        image.StudyDate = image.SeriesDate = image.AcquisitionDate = "19990203"
        image.AccessionNumber = image.StudyID = "SECRET"
        block = image.private_block(0x0009, "SECRET", create=True)
        block.add_new(1, "LO", "SECRET")

    path, _, _ = written(make_series(identify))
    content = path.read_bytes()
    assert not re.search(rb"SECRET|Doe|Jane|ID4711|19700102|19990203", content)
    header = pydicom.dcmread(path)
    assert (header.PatientID, header.PatientName, header.PatientBirthDate) == ("knee_1", "knee_1^", "")
    assert header.PatientIdentityRemoved == "YES"
    assert (header.StudyInstanceUID, header.Modality) == ("1.2", "SEG")


def test_labels_of_another_shape_are_refused(make_series):
    with pytest.raises(ValueError, match=rf"shape \(2, 2, 2\), the images \({COLUMNS}, {ROWS}, {SLICES}\)"):
        written(make_series(), Volume(np.zeros((2, 2, 2), np.uint8), np.eye(4)))


def test_broken_files_are_named(make_series):
    path, _, _ = written(make_series())
    content = path.read_bytes()
    good = pydicom.dcmread(path)
    for broken in (content[:200], content[: len(content) // 2], content[:-40]):
        path.write_bytes(broken)
        with pytest.raises(DicomError, match=r"labels\.dcm"):
            read_segmentation(path)
    for tag, value in (("NumberOfFrames", 2**30), ("Rows", None), ("SegmentSequence", None)):
        bad = deepcopy(good)
        if value is None:
            delattr(bad, tag)
        else:
            setattr(bad, tag, value)
        bad.save_as(path)
        with pytest.raises(DicomError, match=r"labels\.dcm"):
            read_segmentation(path)


def test_overlapping_segments_go_to_the_first(make_series, caplog):
    """Others' files may overlap."""
    folder = make_series()
    images = sources_in_order(folder)
    for image in images:
        image.StudyDate = image.StudyTime = image.AccessionNumber = image.StudyID = image.PatientSex = ""
        image.FrameOfReferenceUID = "1.2.9"
    masks = np.zeros((SLICES, ROWS, COLUMNS, 2), np.uint8)
    masks[1, 1:3, 1:4, 0] = masks[1, 2:4, 3:6, 1] = 1  # one pixel is of both
    describe = [
        hd.seg.SegmentDescription(number, label, codes.SCT.Tissue, codes.SCT.Cartilage, "MANUAL")
        for number, label in ((1, "Patellar Cartilage"), (2, "femoral cartilage"))
    ]
    path = folder.parent / "theirs.dcm"
    hd.seg.Segmentation(
        images, masks, "FRACTIONAL", describe, "1.2.3.4", 2, "1.2.3.5", 1, "them", "them", "1", "1"
    ).save_as(path)
    labels, label_names = read_segmentation(path)
    expected = np.where(masks[..., 0] > 0, 1, 2 * (masks[..., 1] > 0)).astype(np.uint8).transpose(2, 1, 0)
    grid = Volume(expected, find_slice_grids(folder)[0].affine)
    np.testing.assert_array_equal(to_canonical(labels).padded_to(to_canonical(grid)).array, to_canonical(grid).array)
    assert "1 voxels lie in more than one channel" in caplog.text
    assert label_names == LabelNames({1: "patellar cartilage", 2: "femoral cartilage"})


def test_echoes_of_one_multi_frame_file_are_all_referred_to(tmp_path):
    images = []
    for k in range(SLICES):
        for number, time in ((1, "6.5"), (2, "20")):
            images.append(slice_dataset(k, TURNS["oblique"]))
            images[-1].EchoNumbers, images[-1].EchoTime = number, time
    path, labels, grids = written(save(enhanced(images), tmp_path / "e"), echo="rss")
    assert len(grids) == 2
    np.testing.assert_array_equal(on_the_grid_of(path, labels), to_canonical(labels).array)
    frames = {
        source.ReferencedFrameNumber
        for item in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
        for source in item.DerivationImageSequence[0].SourceImageSequence
    }
    assert frames == set(range(1, 2 * SLICES + 1))

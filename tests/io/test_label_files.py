"""Labels leave in the form that is asked for, on the grid of the image."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from knee3d.cli import main
from knee3d.dataset.preparation import PrepareConfig, read_mask_classes
from knee3d.geometry.knee_image import KneeImage
from knee3d.geometry.orientation import Side, reorient, to_canonical
from knee3d.geometry.volume import Volume
from knee3d.io.dicom.writer import write_series
from knee3d.io.image_source import ImageSource, read_image, read_mask
from knee3d.io.label_files import LABEL_FILES, check_label_format, read_labels, write_labels
from knee3d.io.slicer_segmentation import read_segments
from knee3d.io.volume_file import read_volume
from knee3d.labels.label_names import LabelNames
from knee3d.labels.label_scheme import SCHEMES

SCHEME = SCHEMES["iwoai"]
AFFINE = np.array([[0, 0, -0.7, 3], [0, -0.4, 0, 4], [-0.5, 0, 0, 5], [0, 0, 0, 1.0]])


@pytest.fixture
def knee(tmp_path):
    image = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), AFFINE)
    write_series(image, tmp_path / "dicom", Side.LEFT, patient="p", description="d", seed=0)
    return tmp_path / "dicom"


def labels_for(image: Volume) -> Volume:
    return image.with_array(np.random.default_rng(0).integers(0, 7, image.shape, dtype=np.uint8))


@pytest.mark.parametrize("form", LABEL_FILES)
@pytest.mark.parametrize("zipped", [False, True])
def test_labels_come_back_as_a_mask_of_the_same_image(knee, tmp_path, form, zipped):
    path = shutil.make_archive(str(tmp_path / "z"), "zip", knee) if zipped else knee
    source = ImageSource(type(knee)(path), Side.LEFT)
    image = read_image(source.path)
    written = write_labels(labels_for(image), SCHEME, source, form, tmp_path / "out", "knee_1")
    assert [one.name for one in (tmp_path / "out").iterdir()] == [written.name] == [LABEL_FILES[form]]
    mask = read_mask(written, lambda: read_image(source.path))
    labels, label_names = mask.on_grid_of(to_canonical(image)), mask.label_names
    np.testing.assert_array_equal(labels.array, to_canonical(labels_for(image)).array)
    assert labels.same_grid(to_canonical(image))
    assert label_names == (LabelNames(dict(enumerate(SCHEME.names, start=1))) if "seg" in form else None)
    if form != "dicom-seg":
        assert read_volume(written).same_grid(image)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(written))).T, labels_for(image).array)


def test_labels_beside_the_images_are_not_taken_for_one_of_them(knee):
    image = read_image(knee)
    write_labels(labels_for(image), SCHEME, ImageSource(knee, Side.LEFT), "dicom-seg", knee, "x")
    with pytest.raises(ValueError, match=r"labels\.dcm holds labels .DICOM-SEG. and no image"):
        read_image(knee / "labels.dcm")
    again = read_image(knee)
    np.testing.assert_array_equal(again.array, image.array)


def test_a_segmentation_of_other_images_is_refused(knee, tmp_path):
    image = read_image(knee)
    path = write_labels(labels_for(image), SCHEME, ImageSource(knee, Side.LEFT), "dicom-seg", tmp_path, "x")
    moved = image.affine.copy()
    moved[0, 3] += 0.2
    with pytest.raises(ValueError, match=r"labels\.dcm is not on the image's grid.* of another series"):
        read_mask(path, lambda: read_image(knee)).on_grid_of(to_canonical(Volume(image.array, moved)))


def test_dicom_segmentation_needs_dicom(tmp_path):
    with pytest.raises(ValueError, match=r"a\.nrrd is a file of another form; choose --format nifti"):
        check_label_format("dicom-seg", tmp_path / "a.nrrd")
    for form in set(LABEL_FILES) - {"dicom-seg"}:
        check_label_format(form, tmp_path / "a.nrrd")


def test_the_command_offers_every_form():
    (option,) = (one for one in main.commands["segment"].params if one.name == "label_format")
    assert list(option.type.choices) == list(LABEL_FILES)


def slicer_file(path: Path, array: np.ndarray, affine: np.ndarray, segments: list[tuple[str, int, int]]) -> Path:
    """As 3D Slicer writes it: (x, y, z) or, with layers, (layer, x, y, z) uint8."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    directions = ["({})".format(",".join(f"{value:.9g}" for value in lps[:3, axis])) for axis in range(3)]
    kinds = ["domain"] * 3
    if array.ndim == 4:
        directions, kinds = ["none", *directions], ["list", *kinds]
    lines = ["NRRD0004", "type: unsigned char", f"dimension: {array.ndim}", "space: left-posterior-superior",
             f"sizes: {' '.join(map(str, array.shape))}", f"space directions: {' '.join(directions)}",
             f"kinds: {' '.join(kinds)}", "encoding: raw",
             "space origin: ({})".format(",".join(f"{value:.9g}" for value in lps[:3, 3]))]  # fmt: skip
    for number, (name, value, layer) in enumerate(segments):
        lines += [f"Segment{number}_ID:=Segment_{number + 1}", f"Segment{number}_Name:={name}",
                  f"Segment{number}_LabelValue:={value}", f"Segment{number}_Layer:={layer}"]  # fmt: skip
    path.write_bytes(("\n".join(lines) + "\n\n").encode() + array.astype(np.uint8).tobytes(order="F"))
    return path


IMAGE = Volume(np.zeros((6, 7, 8), np.int16), np.diag([0.5, 0.6, 0.7, 1.0]))
TRUTH = np.zeros(IMAGE.shape, np.uint8)
TRUTH[1:3, 2:4, 2:6], TRUTH[4:5, 2:4, 2:6] = 1, 2
NAMES = ("femoral cartilage", "patellar cartilage")


def slicer_labels(path: Path, label_names: LabelNames | None = None) -> np.ndarray:
    """Classes of `SCHEME` as `prepare` gets them."""
    preparation = PrepareConfig(SCHEMES["compartments"], label_names)
    classes, _ = read_mask_classes(path, lambda: KneeImage(IMAGE.array, IMAGE.affine, Side.RIGHT), preparation)
    return reorient(classes, "RAS").array


@pytest.mark.parametrize("kind", ["whole", "part", "other order", "a layer each", "capitals"])
def test_segments_of_slicer_are_told_by_their_names(tmp_path, kind):
    array, affine, segments = TRUTH, IMAGE.affine.copy(), [(NAMES[0], 1, 0), (NAMES[1], 2, 0)]
    if kind == "part":
        array, affine[:3, 3] = TRUTH[1:5, 2:4, 2:6], [0.5, 1.2, 1.4]
    if kind == "other order":
        array, segments = np.array([0, 2, 1])[TRUTH], [(NAMES[1], 1, 0), (NAMES[0], 2, 0)]
    if kind == "a layer each":
        array, segments = np.stack([TRUTH == 2, TRUTH == 1]), [(NAMES[1], 1, 0), (NAMES[0], 1, 1)]
    if kind == "capitals":
        segments = [(name.title(), value, layer) for name, value, layer in segments]
    path = slicer_file(tmp_path / "a.seg.nrrd", array, affine, segments)
    np.testing.assert_array_equal(slicer_labels(path), np.array([0, 1, 3])[TRUTH])


def test_segments_that_overlap_go_to_the_first(tmp_path, caplog):
    grown = np.zeros_like(TRUTH)
    grown[2:4, 2:4, 2:6] = 1
    segments = [(NAMES[0], 1, 0), (NAMES[1], 2, 0), ("femur", 1, 1)]
    path = slicer_file(tmp_path / "a.seg.nrrd", np.stack([TRUTH, grown]), IMAGE.affine, segments)
    np.testing.assert_array_equal(slicer_labels(path), np.array([0, 1, 3])[TRUTH])
    assert "a.seg.nrrd: 8 voxels lie in more than one segment" in caplog.text


def test_a_label_file_that_contradicts_segments_is_refused(tmp_path):
    path = slicer_file(tmp_path / "a.seg.nrrd", TRUTH, IMAGE.affine, [(NAMES[0], 1, 0), (NAMES[1], 2, 0)])
    with pytest.raises(ValueError, match=r"a\.seg\.nrrd says that 2 is patellar.*the label file says femur"):
        slicer_labels(path, LabelNames({1: NAMES[0], 2: "femur"}))
    np.testing.assert_array_equal(
        slicer_labels(path, LabelNames({1: NAMES[0], 9: "femur"})), np.array([0, 1, 3])[TRUTH]
    )
    other = slicer_file(tmp_path / "b.seg.nrrd", TRUTH, IMAGE.affine, [("Segment_1", 1, 0), ("mine", 2, 0)])
    with pytest.raises(ValueError, match=r"b\.seg\.nrrd mean is not known"):
        slicer_labels(other)
    np.testing.assert_array_equal(
        slicer_labels(other, LabelNames(dict(enumerate(NAMES, 1)))), np.array([0, 1, 3])[TRUTH]
    )


def test_slicer_opens_labels_with_names_and_colours(tmp_path):
    scheme = SCHEMES["compartments"]
    labels = IMAGE.with_array(np.array([0, 1, 3], np.uint8)[TRUTH])
    path = write_labels(labels, scheme, ImageSource(tmp_path / "a.nrrd"), "seg-nrrd", tmp_path, "x")
    assert path.name == "labels.seg.nrrd"
    assert [one.name for one in read_segments(path)] == list(scheme.names)
    assert [one.value for one in read_segments(path)] == [1, 2, 3]
    header = path.read_bytes().partition(b"\n\n")[0].decode()
    red, green, blue = (level / 255 for level in scheme.tissues[0].colour)
    assert f"Segment0_Color:={red:.6f} {green:.6f} {blue:.6f}" in header
    assert "Segment2_Extent:=0 5 0 6 0 7" in header
    np.testing.assert_array_equal(read_labels(tmp_path, scheme, "seg-nrrd").array, labels.array)
    np.testing.assert_array_equal(slicer_labels(path), labels.array)

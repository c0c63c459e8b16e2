"""Labels leave in the form that is asked for, on the grid of the image."""

import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from knee3d.anatomy.orientation import Side, to_canonical
from knee3d.anatomy.tissue import SCHEMES, Numbering
from knee3d.anatomy.volume import Volume
from knee3d.cli import main
from knee3d.dataset.dicom.writer import write_series
from knee3d.dataset.files.volumefile import read_volume
from knee3d.dataset.labels import FORMS, check_form, write_labels
from knee3d.dataset.source import Source, read_image, read_mask

SCHEME = SCHEMES["iwoai"]
AFFINE = np.array([[0, 0, -0.7, 3], [0, -0.4, 0, 4], [-0.5, 0, 0, 5], [0, 0, 0, 1.0]])


@pytest.fixture
def knee(tmp_path):
    image = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), AFFINE)
    write_series(image, tmp_path / "dicom", Side.LEFT, patient="p", description="d", seed=0)
    return tmp_path / "dicom"


def labels_for(image: Volume) -> Volume:
    return image.with_array(np.random.default_rng(0).integers(0, 7, image.shape, dtype=np.uint8))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipped", [False, True])
def test_labels_come_back_as_a_mask_of_the_same_image(knee, tmp_path, form, zipped):
    path = shutil.make_archive(str(tmp_path / "z"), "zip", knee) if zipped else knee
    source = Source(type(knee)(path), Side.LEFT)
    image, _ = read_image(source.path)
    written = write_labels(labels_for(image), SCHEME, source, form, tmp_path / "out", "knee_1")
    assert [one.name for one in (tmp_path / "out").iterdir()] == [written.name] == [FORMS[form]]
    mask = read_mask(written, lambda: read_image(source.path))
    labels, numbering = mask.on_grid_of(to_canonical(image)), mask.numbering
    np.testing.assert_array_equal(labels.array, to_canonical(labels_for(image)).array)
    assert labels.same_grid(to_canonical(image))
    assert numbering == (Numbering(dict(enumerate(SCHEME.names, start=1))) if form == "dicom-seg" else None)
    if form != "dicom-seg":
        assert read_volume(written).same_grid(image)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(written))).T, labels_for(image).array)


def test_labels_beside_the_images_are_not_taken_for_one_of_them(knee):
    image, _ = read_image(knee)
    write_labels(labels_for(image), SCHEME, Source(knee, Side.LEFT), "dicom-seg", knee, "x")
    with pytest.raises(ValueError, match=r"labels\.dcm holds labels .DICOM-SEG. and no image"):
        read_image(knee / "labels.dcm")
    again, _ = read_image(knee)
    np.testing.assert_array_equal(again.array, image.array)


def test_a_segmentation_of_other_images_is_refused(knee, tmp_path):
    image, _ = read_image(knee)
    path = write_labels(labels_for(image), SCHEME, Source(knee, Side.LEFT), "dicom-seg", tmp_path, "x")
    moved = image.affine.copy()
    moved[0, 3] += 0.2
    with pytest.raises(ValueError, match=r"labels\.dcm is not on the image's grid.* of another series"):
        read_mask(path, lambda: read_image(knee)).on_grid_of(to_canonical(Volume(image.array, moved)))


def test_dicom_segmentation_needs_dicom(tmp_path):
    with pytest.raises(ValueError, match=r"a\.nrrd is a file of another form; choose --format nifti"):
        check_form("dicom-seg", tmp_path / "a.nrrd")
    for form in set(FORMS) - {"dicom-seg"}:
        check_form(form, tmp_path / "a.nrrd")


def test_the_command_offers_every_form():
    (option,) = (one for one in main.commands["segment"].params if one.name == "form")
    assert list(option.type.choices) == list(FORMS)

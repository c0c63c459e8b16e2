"""The door to all forms of file: what a path and a choice come to."""

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from knee3d.dataset.intensity import find_window
from knee3d.geometry.knee_image import KneeImage
from knee3d.geometry.orientation import Side, axis_codes, reorient, to_canonical
from knee3d.geometry.volume import Volume
from knee3d.io.array_file import ArrayFileError, read_array_file
from knee3d.io.dicom.headers import DicomError
from knee3d.io.dicom.writer import write_series
from knee3d.io.image_source import ReadOptions, read_image, read_mask
from knee3d.io.volume_file import VolumeFileError, write_volume

SPACING = (0.3, 0.4, 0.7)


def voxels() -> np.ndarray:
    return np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def place(codes: str = "RAS") -> np.ndarray:
    affine = np.diag([0.5, 0.6, 0.7, 1.0])
    affine[:3, 3] = 3, -4, 5
    return reorient(Volume(np.zeros((3, 4, 5)), affine), codes).affine


def test_image_from_a_file_has_no_side(tmp_path):
    write_volume(Volume(voxels(), place()), tmp_path / "v.nii.gz")
    volume = read_image(tmp_path / "v.nii.gz")
    side = volume.side
    np.testing.assert_array_equal(volume.array, voxels())
    assert side is Side.UNKNOWN


def test_another_form_is_told_all_that_are_read(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(
        VolumeFileError, match=r"notes.txt is none of .*DICOM.*\.nii\.gz.*\.nrrd.*\.im, .*\.h5.*; convert it"
    ):
        read_image(tmp_path / "notes.txt")


@pytest.mark.parametrize("choice", [ReadOptions(series="8"), ReadOptions(echo="1")])
def test_a_file_has_no_series_to_choose(tmp_path, choice):
    write_volume(Volume(voxels(), place()), tmp_path / "v.nii.gz")
    with pytest.raises(VolumeFileError, match="--series and --echo"):
        read_image(tmp_path / "v.nii.gz", choice)


def dicom_folder(folder):
    array = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
    write_series(Volume(array, place("IPL")), folder, Side.LEFT, patient="p", description="d", seed=0)
    return array


def test_image_from_a_folder_is_dicom(tmp_path):
    array = dicom_folder(tmp_path / "knee")
    volume = read_image(tmp_path / "knee", ReadOptions("1", "1"))
    side = volume.side
    np.testing.assert_array_equal(reorient(volume, "IPL").array, array)
    assert side is Side.LEFT
    for choice in (ReadOptions("2"), ReadOptions(echo="2")):
        with pytest.raises(DicomError, match="choose by|give the folder of one of them, or its number or UID"):
            read_image(tmp_path / "knee", choice)


@pytest.mark.parametrize("name", ["S.dcm", "IM1", "x.ima"])
def test_one_dicom_file_is_sent_back_for_its_folder(tmp_path, name):
    dicom_folder(tmp_path / "knee")
    path = (tmp_path / "knee" / "IM0001.dcm").rename(tmp_path / "knee" / name)
    with pytest.raises(VolumeFileError, match=r"one file of a DICOM series; give the folder, .*knee"):
        read_image(path)


# HDF5, as in the IWOAI challenge


def write_hdf5(path, array, key="data"):
    with h5py.File(path, "w") as file:
        file[key] = array
    return path


def test_hdf5_needs_a_spacing_and_has_it_along_its_axes(tmp_path):
    """Tiny floats stay what they are; axes run down, back and to the patient's right."""
    array = (voxels() * 1e-9).astype(np.float32)
    path = write_hdf5(tmp_path / "train_001_V00.im", array)
    with pytest.raises(ArrayFileError, match=r"train_001_V00\.im does not say how far.*--spacing"):
        read_image(path)
    volume = read_image(path, ReadOptions(spacing_mm=SPACING))
    side = volume.side
    np.testing.assert_array_equal(volume.array, array)
    assert axis_codes(volume.affine) == "IPR"
    np.testing.assert_allclose(volume.spacing_mm, SPACING)
    np.testing.assert_allclose(volume.affine @ [1, 1.5, 2, 1], [0, 0, 0, 1], atol=1e-9)
    assert side is Side.UNKNOWN


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -1, 1), (1, 1, float("nan")), (1, 1, 5000)])
def test_spacings_that_are_none(spacing):
    with pytest.raises(ValueError, match="--spacing"):
        ReadOptions(spacing_mm=spacing)


@pytest.mark.parametrize(
    ("array", "key", "message"),
    [
        (np.zeros((3, 4, 5)), "image", "has no array 'data'; it has: image"),
        (np.zeros((3, 4)), "data", r"must hold a volume of numbers, it has float64 \(3, 4\)"),
        (np.zeros((3, 4, 0)), "data", "must hold a volume of numbers"),
        (np.zeros((3, 4, 5), complex), "data", "must hold a volume of numbers, it has complex128"),
        (np.zeros((3, 4, 5, 6)), "data", "has channels, .*is it a mask"),
    ],
)
def test_hdf5_images_that_are_none(tmp_path, array, key, message):
    with pytest.raises(ArrayFileError, match=r"v\.im.*" + message):
        read_image(write_hdf5(tmp_path / "v.im", array, key), ReadOptions(spacing_mm=SPACING))


def test_absurd_hdf5_is_refused_before_it_is_read(tmp_path):
    """A sparse array of 4 GB of voxels in a file of some kB."""
    with h5py.File(tmp_path / "v.im", "w") as file:
        file.create_dataset("data", shape=(2048, 2048, 1024), dtype="u1", chunks=(64, 64, 64))
    with pytest.raises(ArrayFileError, match="must hold a volume of numbers"):
        read_image(tmp_path / "v.im", ReadOptions(spacing_mm=SPACING))


def test_broken_hdf5_is_named(tmp_path):
    path = write_hdf5(tmp_path / "v.im", np.random.default_rng(0).random((20, 20, 20)))
    content = path.read_bytes()
    for broken in (b"", b"hello", content[:1000], content[: len(content) // 2]):
        path.write_bytes(broken)
        with pytest.raises(ArrayFileError, match=r"cannot read v\.im"):
            read_image(path, ReadOptions(spacing_mm=SPACING))


# Masks with channels

LABELS = np.array([0, 1, 2, 3, 0, 2] * 10, dtype=np.uint8).reshape(3, 4, 5)
CHANNELS = np.stack([value == LABELS for value in (1, 2, 3)], axis=-1).astype(np.uint8)


def knee_like(labels: Volume, side: Side = Side.UNKNOWN):
    """What `read_mask` asks for the image with."""
    return lambda: KneeImage(np.zeros(labels.shape[:3], np.int16), labels.affine, side)


def test_channels_of_every_form_are_the_same_labels(tmp_path):
    affine, anywhere = place(), ReadOptions(spacing_mm=SPACING)
    nib.save(nib.Nifti1Image(CHANNELS, affine), tmp_path / "v.nii.gz")
    vector = sitk.GetImageFromArray(np.transpose(CHANNELS, (2, 1, 0, 3)), isVector=True)
    sitk.WriteImage(vector, str(tmp_path / "v.nrrd"))
    write_hdf5(tmp_path / "v.seg", CHANNELS)
    write_volume(Volume(LABELS, affine), tmp_path / "plain.nii.gz")
    grids = {
        "v.nii.gz": affine,
        "v.nrrd": np.diag([-1.0, -1.0, 1.0, 1.0]),
        "v.seg": read_array_file(tmp_path / "v.seg", SPACING).affine,
        "plain.nii.gz": affine,
    }
    for name, grid in grids.items():
        image = Volume(LABELS, grid)
        mask = read_mask(tmp_path / name, knee_like(image), anywhere)
        labels = mask.on_grid_of(to_canonical(image))
        assert labels.same_grid(to_canonical(Volume(LABELS, grid)))
        np.testing.assert_array_equal(reorient(labels, axis_codes(grid)).array, LABELS)
        assert mask.label_names is None


@pytest.mark.parametrize("kinds", ["list domain domain domain", "vector space space space"])
def test_nrrd_channels_come_first_whatever_they_are_called(tmp_path, kinds):
    """As 3D Slicer writes segmentations."""
    header = "NRRD0004\ntype: uchar\ndimension: 4\nspace: left-posterior-superior\nsizes: 3 3 4 5\nencoding: raw\n"
    header += "space directions: none (2,0,0) (0,3,0) (0,0,4)\nspace origin: (0,0,0)\n"
    header += f"kinds: {kinds}\n\n"
    voxels_first = np.moveaxis(CHANNELS, -1, 0)
    (tmp_path / "v.nrrd").write_bytes(header.encode() + voxels_first.tobytes(order="F"))
    image = Volume(LABELS, np.diag([-2.0, -3.0, 4.0, 1.0]))
    labels = read_mask(tmp_path / "v.nrrd", knee_like(image)).on_grid_of(to_canonical(image))
    np.testing.assert_array_equal(reorient(labels, "LPS").array, LABELS)


def test_a_mask_on_another_grid_is_refused_with_both_grids(tmp_path):
    write_volume(Volume(LABELS, place()), tmp_path / "v.nii.gz")
    moved = place().copy()
    moved[0, 3] += 0.1
    with pytest.raises(VolumeFileError, match=r"v\.nii\.gz is not on the image's grid: .*origin.*resample it"):
        read_mask(tmp_path / "v.nii.gz", knee_like(Volume(LABELS, moved))).on_grid_of(Volume(LABELS, moved))


@pytest.mark.parametrize("steps", [(2, 2, 1), (1, 1, 2), (3, 3, 3)])
def test_a_mask_that_was_made_coarser_and_kept_its_affine_is_refused(tmp_path, steps):
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[2:9, 3:9, 4:8] = 1
    write_volume(Volume(labels[:: steps[0], :: steps[1], :: steps[2]], place()), tmp_path / "v.nii.gz")
    image = Volume(labels, place())
    with pytest.raises(VolumeFileError, match=r"v\.nii\.gz has .* at a corner of the image.*made coarser"):
        read_mask(tmp_path / "v.nii.gz", knee_like(image)).on_grid_of(to_canonical(image))


def test_a_part_that_cuts_through_tissue_is_warned_of(tmp_path, caplog):
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[2:9, 3:9, 4:8] = 1
    image = Volume(labels, place())
    for stop, words in ((10, ""), (7, "covers")):
        caplog.clear()
        write_volume(Volume(labels[:stop], place()), tmp_path / "v.nii.gz")
        found = read_mask(tmp_path / "v.nii.gz", knee_like(image)).on_grid_of(to_canonical(image))
        assert np.count_nonzero(found.array) == np.count_nonzero(labels[:stop])
        assert words in caplog.text
        assert bool(caplog.text) == bool(words)


def test_an_image_has_no_channels(tmp_path):
    nib.save(nib.Nifti1Image(CHANNELS, place()), tmp_path / "v.nii.gz")
    with pytest.raises(VolumeFileError, match="one number per voxel"):
        read_image(tmp_path / "v.nii.gz")


@pytest.mark.parametrize("size", [(0, 0, 0), (1, 2, 1)], ids=["whole", "part"])
@pytest.mark.parametrize("name", ["v.nii.gz", "v.nrrd", "v.mha"])
def test_a_mask_may_be_rounded_and_cover_a_part(tmp_path, name, size):
    """By a tenth of a voxel's smallest side; the image's grid is kept."""
    image = to_canonical(Volume(np.zeros((7, 8, 9), np.int16), place("RAS")))
    begin = np.array([1, 1, 2]) * (sum(size) > 0)
    box = tuple(slice(first, last - more) for first, last, more in zip(begin, image.shape, size, strict=True))
    part = image.with_array(np.arange(7 * 8 * 9).reshape(image.shape) % 5).part(box)
    expected = np.zeros(image.shape)
    expected[box] = part.array
    for millimetres, fits in ((0.049, True), (0.051, False)):
        moved = part.affine.copy()
        moved[:3, 3] += millimetres
        write_volume(Volume(part.array.astype(np.uint8), moved), tmp_path / name)
        mask = read_mask(tmp_path / name, knee_like(image))
        if fits:
            labels = mask.on_grid_of(image)
            np.testing.assert_array_equal(labels.array, expected)
            np.testing.assert_array_equal(labels.affine, image.affine)
        else:
            with pytest.raises(VolumeFileError, match=rf"{name}.*(up to 0.051 mm apart, 0.050|shape)"):
                mask.on_grid_of(image)


@pytest.mark.parametrize("scale", [0.9999, 1 + 1e-5])
def test_labels_that_are_nearly_whole_are_rounded_and_said(tmp_path, caplog, scale):
    image = nib.Nifti1Image((LABELS * scale).astype(np.float32), place())
    nib.save(image, tmp_path / "v.nii.gz")
    mask = read_mask(tmp_path / "v.nii.gz", knee_like(Volume(LABELS, place())))
    np.testing.assert_array_equal(mask.labels.array, to_canonical(Volume(LABELS, place())).array)
    assert "v.nii.gz: labels are up to" in caplog.text


def test_interpolated_labels_are_called_so(tmp_path):
    between = LABELS.astype(np.float32)
    between.flat[:3] += 0.4
    nib.save(nib.Nifti1Image(between, place()), tmp_path / "v.nii.gz")
    with pytest.raises(VolumeFileError, match=r"v\.nii\.gz was interpolated: 5 % .*nearest neighbour"):
        read_mask(tmp_path / "v.nii.gz", knee_like(Volume(LABELS, place())))


def test_a_folder_may_stand_for_the_only_file_in_it(tmp_path):
    """As archives hand out a DICOM-SEG, or one mask a folder."""
    image = Volume(LABELS, place())
    (tmp_path / "mask").mkdir()
    write_volume(image, tmp_path / "mask" / "v.nii.gz")
    (tmp_path / "mask" / ".hidden").touch()
    expected = read_mask(tmp_path / "mask" / "v.nii.gz", knee_like(image)).labels
    np.testing.assert_array_equal(read_mask(tmp_path / "mask", knee_like(image)).labels.array, expected.array)
    write_volume(image, tmp_path / "mask" / "w.nii.gz")
    with pytest.raises(VolumeFileError, match=r"mask is a folder of 2 files and no mask; give"):
        read_mask(tmp_path / "mask", knee_like(image))


# Other forms of file


def test_a_numpy_array_needs_spacing_and_axes(tmp_path):
    """MRNet has slices first; which way they run nobody knows but the user."""
    np.save(tmp_path / "0000.npy", voxels())
    for choice, words in ((ReadOptions(), "--spacing"), (ReadOptions(spacing_mm=SPACING), "--axes")):
        with pytest.raises(ArrayFileError, match=rf"0000\.npy.*{words}"):
            read_image(tmp_path / "0000.npy", choice)
    for codes in ("LIP", "RIP", "SAL"):
        volume = read_image(tmp_path / "0000.npy", ReadOptions(spacing_mm=SPACING, axes=codes))
        side = volume.side
        np.testing.assert_array_equal(volume.array, voxels())
        assert axis_codes(volume.affine) == codes
        np.testing.assert_allclose(volume.spacing_mm, SPACING)
        np.testing.assert_allclose(volume.affine @ [1, 1.5, 2, 1], [0, 0, 0, 1], atol=1e-9)
        assert side is Side.UNKNOWN
    with pytest.raises(ValueError, match="R/L, A/P and S/I"):
        ReadOptions(axes="LIT")
    write_hdf5(tmp_path / "v.im", voxels())
    assert axis_codes(read_image(tmp_path / "v.im", ReadOptions(spacing_mm=SPACING, axes="SAL")).affine) == "SAL"


@pytest.mark.parametrize("array", [np.zeros((3, 4)), np.array([{}, []], dtype=object), np.zeros((3, 4, 5), complex)])
def test_numpy_arrays_that_are_no_volume(tmp_path, array):
    np.save(tmp_path / "v.npy", array)
    with pytest.raises(ArrayFileError, match=r"v\.npy"):
        read_image(tmp_path / "v.npy", ReadOptions(spacing_mm=SPACING, axes="LIP"))


def test_a_header_and_its_voxels_in_two_files(tmp_path):
    """NIfTI's pair is read by its header; whoever gives the voxels is told; one cut off, or Analyze's, is refused."""
    write_volume(Volume(voxels(), place("LIP")), tmp_path / "one.nii")
    nib.save(nib.Nifti1Pair.from_image(nib.load(tmp_path / "one.nii")), tmp_path / "pair.img")
    one, pair = read_image(tmp_path / "one.nii"), read_image(tmp_path / "pair.hdr")
    np.testing.assert_array_equal(pair.array, one.array)
    np.testing.assert_allclose(pair.affine, one.affine, atol=1e-6)
    with pytest.raises(VolumeFileError, match=r"pair\.img has no header.* pair\.hdr"):
        read_image(tmp_path / "pair.img")
    nib.AnalyzeImage(voxels(), place()).to_filename(tmp_path / "old.img")
    with pytest.raises(VolumeFileError, match=r"old\.hdr does not say how it lies"):
        read_image(tmp_path / "old.hdr")
    (tmp_path / "pair.img").write_bytes((tmp_path / "pair.img").read_bytes()[:50])
    with pytest.raises(VolumeFileError, match=r"pair\.hdr.*cut off"):
        read_image(tmp_path / "pair.hdr")


@pytest.mark.parametrize("dtype", [">i2", ">u2", ">f4", ">i4"])
def test_arrays_of_the_other_order_of_bytes_look_the_same(tmp_path, dtype):
    """Their window, too."""
    array = np.random.default_rng(0).integers(0, 900, (12, 14, 16)).astype(dtype)
    choice = ReadOptions(spacing_mm=SPACING, axes="IPL")
    windows = []
    for name, one in (("big", array), ("little", array.astype(dtype.replace(">", "<")))):
        np.save(tmp_path / f"{name}.npy", one)
        volume = read_image(tmp_path / f"{name}.npy", choice)
        assert volume.array.dtype.isnative
        windows.append(find_window(volume))
    assert windows[0] == windows[1]


def test_a_last_axis_of_one_is_no_channel_and_an_archive_no_array(tmp_path):
    np.save(tmp_path / "v.npy", voxels()[..., None])
    choice = ReadOptions(spacing_mm=SPACING, axes="IPL")
    np.testing.assert_array_equal(read_image(tmp_path / "v.npy", choice).array, voxels())
    with (tmp_path / "z.npy").open("wb") as file:
        np.savez(file, voxels())
    with pytest.raises(ArrayFileError, match=r"z\.npy is an archive"):
        read_image(tmp_path / "z.npy", choice)


# 3D Slicer


def slicer_file(path, array, fields, lists=False):
    image = sitk.GetImageFromArray(array, isVector=lists)
    for name, text in fields.items():
        image.SetMetaData(name, text)
    sitk.WriteImage(image, str(path))
    return read_mask(path, lambda: pytest.fail("the image is not asked for"))


def test_an_older_slicer_has_a_channel_for_each_segment(tmp_path):
    channels = np.zeros((4, 5, 6, 2), np.uint8)
    channels[0, ..., 0], channels[1, ..., 1] = 1, 1
    fields = {"Segment0_ID": "a", "Segment0_Name": "femur", "Segment1_ID": "b", "Segment1_Name": "tibia"}
    mask = slicer_file(tmp_path / "old.seg.nrrd", channels, fields, lists=True)
    assert dict(mask.label_names.names) == {1: "femur", 2: "tibia"}
    assert np.bincount(mask.labels.array.ravel()).tolist() == [60, 30, 30]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"Segment0_ID": "a", "Segment0_LabelValue": "1"}, "label values 2 belong to no segment"),
        ({f"Segment{n}_ID": "a" for n in (0, 2)} | {"Segment0_LabelValue": "1", "Segment2_LabelValue": "1"}, "several"),
        ({"Segment0_ID": "a", "Segment0_LabelValue": "70000"}, "not 1 to 65535"),
        ({"Segment0_ID": "a", "Segment0_LabelValue": "-1"}, "not 1 to 65535"),
    ],
)
def test_segments_that_do_not_cover_the_labels_are_refused(tmp_path, fields, words):
    with pytest.raises(VolumeFileError, match=rf"s\.seg\.nrrd.*{words}"):
        slicer_file(tmp_path / "s.seg.nrrd", (np.arange(120) % 3).astype(np.uint8).reshape(4, 5, 6), fields)


def test_segments_may_be_numbered_with_gaps(tmp_path):
    fields = {"Segment0_ID": "a", "Segment0_Name": "femur", "Segment0_LabelValue": "1",
              "Segment2_ID": "c", "Segment2_Name": "tibia", "Segment2_LabelValue": "2"}  # fmt: skip
    mask = slicer_file(tmp_path / "s.seg.nrrd", (np.arange(120) % 3).astype(np.uint8).reshape(4, 5, 6), fields)
    assert dict(mask.label_names.names) == {1: "femur", 2: "tibia"}

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from knee3d.geometry.orientation import axis_codes
from knee3d.geometry.volume import Volume
from knee3d.io import volume_file
from knee3d.io.volume_file import VolumeFileError, read_volume, write_volume

DIRECTIONS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
ORDERS = ["".join(c) for axes in permutations(("RL", "AP", "SI")) for c in product(*axes)]
ENDINGS = [".nii", ".nii.gz", ".nrrd", ".mha"]


def place(codes: str = "RAS", degrees: float = 0) -> np.ndarray:
    """Affine with these axis codes, tilted about two axes, all spacings different."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    tilt = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3] = tilt @ np.array([DIRECTIONS[code] for code in codes]).T * [0.3, 0.5, 0.7]
    affine[:3, 3] = -20.5, 31.25, 8
    return affine


def voxels(dtype: object = np.int16) -> np.ndarray:
    return np.arange(24).reshape(2, 3, 4).astype(dtype)


def sheared(by: float) -> Volume:
    affine = place()
    affine[0, 2] += by
    return Volume(voxels(), affine)


@pytest.mark.parametrize("degrees", [0, 11])
@pytest.mark.parametrize("codes", ORDERS)
def test_nifti_is_read_as_nibabel_reads_it(tmp_path, codes, degrees):
    nib.save(nib.Nifti1Image(voxels(), place(codes, degrees)), tmp_path / "v.nii.gz")
    volume = read_volume(tmp_path / "v.nii.gz")
    theirs = nib.load(tmp_path / "v.nii.gz")
    np.testing.assert_array_equal(volume.array, np.asanyarray(theirs.dataobj))
    np.testing.assert_allclose(volume.affine, theirs.affine, atol=1e-4)
    assert axis_codes(volume.affine) == codes


@pytest.mark.parametrize("codes", ORDERS)
def test_nifti_is_written_as_nibabel_expects_it(tmp_path, codes):
    volume = Volume(voxels(), place(codes, 11))
    write_volume(volume, tmp_path / "v.nii")
    theirs = nib.load(tmp_path / "v.nii")
    np.testing.assert_array_equal(np.asanyarray(theirs.dataobj), volume.array)
    np.testing.assert_allclose(theirs.affine, volume.affine, atol=1e-4)
    np.testing.assert_allclose(theirs.get_qform(), volume.affine, atol=1e-4)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("codes", ["RAS", "IPL", "ASR", "LIP"])
def test_what_is_written_is_read_back(tmp_path, ending, codes):
    volume = Volume(voxels(), place(codes, 7))
    write_volume(volume, tmp_path / f"v{ending}")
    back = read_volume(tmp_path / f"v{ending}")
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-4)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8", ">i2"])
def test_types_are_kept(tmp_path, ending, dtype):
    write_volume(Volume(voxels(dtype), place()), tmp_path / f"v{ending}")
    back = read_volume(tmp_path / f"v{ending}").array
    assert back.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(back, voxels(dtype))


def test_masks_become_numbers(tmp_path):
    write_volume(Volume(voxels() % 2 == 1, place()), tmp_path / "v.nrrd")
    back = read_volume(tmp_path / "v.nrrd").array
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, voxels() % 2)


def test_views_are_written_as_they_are_seen(tmp_path):
    array = voxels()[::-1, :, ::-1].transpose(2, 0, 1)
    write_volume(Volume(array, place()), tmp_path / "v.mha")
    np.testing.assert_array_equal(read_volume(tmp_path / "v.mha").array, array)


@pytest.mark.parametrize("ending", [".nhdr", ".mhd"])
def test_header_and_data_files_are_read(tmp_path, ending):
    image = sitk.GetImageFromArray(voxels().T)
    image.SetSpacing((0.3, 0.5, 0.7))
    image.SetOrigin((1, 2, 3))
    sitk.WriteImage(image, str(tmp_path / f"v{ending}"))
    volume = read_volume(tmp_path / f"v{ending}")
    np.testing.assert_array_equal(volume.array, voxels())
    expected = [[-0.3, 0, 0, -1], [0, -0.5, 0, -2], [0, 0, 0.7, 3], [0, 0, 0, 1]]  # LPS to RAS, once
    np.testing.assert_allclose(volume.affine, expected, atol=1e-6)


@pytest.mark.parametrize(("space", "sign"), [("right-anterior-superior", 1), ("left-posterior-superior", -1)])
def test_nrrd_space_is_heeded(tmp_path, space, sign):
    header = f"NRRD0004\ntype: uchar\ndimension: 3\nspace: {space}\nsizes: 2 3 4\nencoding: raw\n"
    header += "space directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (4,5,6)\n\n"
    (tmp_path / "v.nrrd").write_bytes(header.encode() + voxels(np.uint8).tobytes(order="F"))
    volume = read_volume(tmp_path / "v.nrrd")
    np.testing.assert_array_equal(volume.array, voxels())
    expected = [[sign, 0, 0, 4 * sign], [0, 2 * sign, 0, 5 * sign], [0, 0, 3, 6], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected)


def test_nifti_that_rescales(tmp_path):
    image = nib.Nifti1Image(voxels(), place())
    image.header.set_slope_inter(2, 5)
    nib.save(image, tmp_path / "v.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "v.nii").array, nib.load(tmp_path / "v.nii").get_fdata())


def test_a_fourth_axis_of_one_is_dropped(tmp_path):
    nib.save(nib.Nifti1Image(voxels()[..., None], place()), tmp_path / "v.nii")
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(voxels().T)]), str(tmp_path / "v.mha"))
    for name in ("v.nii", "v.mha"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).array, voxels())
    np.testing.assert_allclose(read_volume(tmp_path / "v.nii").affine, place(), atol=1e-6)


def save_colour(path):
    sitk.WriteImage(sitk.GetImageFromArray(voxels(np.uint8), isVector=False), str(path))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4, 3), np.uint8), isVector=True), str(path))


def save_doubly_placed(path, sform, qform):
    image = nib.Nifti1Image(voxels(), sform)
    image.set_qform(qform, 1)
    nib.save(image, path)


def save_unplaced_nrrd(path):
    path.write_bytes(b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n\n" + bytes(8))


def save_cut_off(path):
    noise = np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    write_volume(Volume(noise, place()), path)
    path.write_bytes(path.read_bytes()[:-2000])


UNREADABLE = {
    "time.nii": (lambda p: nib.save(nib.Nifti1Image(np.stack([voxels()] * 2, -1), place()), p), "one volume"),
    "vector.nii": (lambda p: nib.save(nib.Nifti1Image(np.zeros((2, 3, 4, 1, 3), "f4"), place()), p), "one volume"),
    "colour.mha": (save_colour, "one number per voxel"),
    "complex.nii": (lambda p: nib.save(nib.Nifti1Image(voxels(np.complex64), place()), p), "one number per voxel"),
    "flat.mha": (lambda p: sitk.WriteImage(sitk.GetImageFromArray(voxels()[0]), str(p)), "one volume"),
    "sheared.nii": (
        lambda p: nib.save(nib.Nifti1Image(voxels(), sheared(0.1).affine), p),
        "not perpendicular.*resample",
    ),
    "two scales.nii": (
        lambda p: save_doubly_placed(p, place(), place() @ np.diag([2, 1, 1, 1])),
        "sform and qform.* apart",
    ),
    "half sheared.nii": (lambda p: save_doubly_placed(p, sheared(0.3).affine, place()), "not perpendicular"),
    "unplaced.nii": (lambda p: nib.save(nib.Nifti1Image(voxels(), None), p), "how it lies.*qform and sform"),
    "unplaced.nrrd": (save_unplaced_nrrd, "how it lies.*no space"),
    "junk.nii.gz": (lambda p: p.write_bytes(b"junk"), "cannot read junk.nii.gz"),
    "empty.nrrd": (lambda p: p.write_bytes(b""), "cannot read empty.nrrd"),
    "cut.nrrd": (save_cut_off, "cannot read cut.nrrd"),
    "cut.nii": (save_cut_off, "cannot read cut.nii"),
    "cut.nii.gz": (save_cut_off, "cannot read cut.nii.gz"),
    "cut.mha": (save_cut_off, "cannot read cut.mha"),
    "picture.png": (lambda p: p.write_bytes(b"junk"), r"none of the forms.*\.nii, \.nii\.gz, \.nrrd"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_volume_is_refused_by_name(tmp_path, name):
    save, message = UNREADABLE[name]
    save(tmp_path / name)
    with pytest.raises(VolumeFileError, match=message) as caught:
        read_volume(tmp_path / name)
    assert name in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*gone.nii; volumes are read from \.nii"):
        read_volume(tmp_path / "gone.nii")


@pytest.mark.parametrize(
    ("volume", "name", "message"),
    [
        (Volume(voxels(), place()), "v.mhd", "cannot write v.mhd.*.nii"),
        (Volume(voxels(), place()), "v", "cannot write v; "),
        (Volume(voxels()[..., None], place()), "v.nii", "without channels"),
        (Volume(voxels(np.float16), place()), "v.nii", "got float16"),
        (Volume(voxels(complex), place()), "v.nii", "got complex128"),
        (sheared(0.01), "v.nii.gz", "not perpendicular.*write .nrrd"),
    ],
)
def test_what_no_file_holds_is_not_written(tmp_path, volume, name, message):
    with pytest.raises(VolumeFileError, match=message):
        write_volume(volume, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_sheared_grids_survive_where_the_form_allows(tmp_path, ending):
    write_volume(sheared(0.2), tmp_path / f"v{ending}")
    np.testing.assert_allclose(read_volume(tmp_path / f"v{ending}").affine, sheared(0.2).affine, atol=1e-6)


def test_interrupted_writing_leaves_what_was_there(tmp_path, monkeypatch):
    write_volume(Volume(voxels(), place()), tmp_path / "v.nii")
    before = (tmp_path / "v.nii").read_bytes()

    def full_disk(image, name, **options):
        with open(name, "wb") as file:
            file.write(b"half")
        raise RuntimeError("sitk::ERROR:\nNo space left on device")

    monkeypatch.setattr(volume_file.sitk, "WriteImage", full_disk)
    for name in ("v.nii", "new.nii"):
        with pytest.raises(VolumeFileError, match="No space left on device"):
            write_volume(Volume(voxels() + 1, place()), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["v.nii"]
    assert (tmp_path / "v.nii").read_bytes() == before


def test_itk_says_nothing_on_the_terminal(tmp_path, capfd):
    """Of its own accord it prints a warning with its own source lines for this file."""
    UNREADABLE["two scales.nii"][0](tmp_path / "v.nii")
    with pytest.raises(VolumeFileError, match="apart"):
        read_volume(tmp_path / "v.nii")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("codes", ["RAS", "PIR"])
def test_one_of_the_two_nifti_places_is_enough(tmp_path, codes):
    for name, sform, qform in (("q.nii", 0, 1), ("s.nii", 1, 0), ("both.nii", 2, 1)):
        image = nib.Nifti1Image(voxels(), place(codes, 9))
        image.set_sform(place(codes, 9), sform)
        image.set_qform(place(codes, 9), qform)
        nib.save(image, tmp_path / name)
        np.testing.assert_allclose(read_volume(tmp_path / name).affine, place(codes, 9), atol=1e-4)


def test_directions_with_three_decimals_are_made_perpendicular(tmp_path):
    turned = Rotation.from_euler("xyz", [17, -8, 33], degrees=True).as_matrix()
    affine = place()
    affine[:3, :3] = turned.round(3) * [0.4, 0.5, 0.7]
    image = nib.Nifti1Image(voxels(), affine)
    image.set_sform(affine, 1)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "v.nii.gz")
    volume = read_volume(tmp_path / "v.nii.gz")
    cosines = volume.affine[:3, :3] / volume.spacing_mm
    np.testing.assert_allclose(cosines.T @ cosines, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(cosines, turned, atol=1e-3)
    np.testing.assert_allclose(volume.spacing_mm, [0.4, 0.5, 0.7], rtol=1e-3)
    write_volume(volume, tmp_path / "again.nii.gz")


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (1, 2)])
def test_a_quaternion_that_contradicts_the_rows_is_refused(tmp_path, codes):
    """Also where both claim the same: a mirrored knee has medial and lateral swapped."""
    image = nib.Nifti1Image(voxels(), place("LIP"))
    image.set_sform(place("LIP"), codes[0])
    image.set_qform(np.diag([-1, 1, 1, 1]) @ place("LIP"), codes[1])
    nib.save(image, tmp_path / "v.nii.gz")
    with pytest.raises(VolumeFileError, match=r"v\.nii\.gz.* sform and qform are up to .* mm apart"):
        read_volume(tmp_path / "v.nii.gz")


@pytest.mark.parametrize("pixdim", [None, 1.0, 0.0])
def test_rows_alone_are_enough_whatever_the_voxel_sizes_say(tmp_path, pixdim):
    for codes in ORDERS:
        image = nib.Nifti1Image(voxels(), place(codes, 11))
        image.set_qform(None, 0)
        image.set_sform(place(codes, 11), 1)
        if pixdim is not None:
            image.header["pixdim"][1:4] = pixdim
        nib.save(image, tmp_path / "v.nii")
        np.testing.assert_allclose(read_volume(tmp_path / "v.nii").affine, place(codes, 11), atol=1e-4)


def test_metres_become_millimetres(tmp_path):
    scaled = place("LIP")
    scaled[:3] /= 1000
    image = nib.Nifti1Image(voxels(), scaled)
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "v.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "v.nii").affine, place("LIP"), atol=1e-3)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nan_in_nifti_is_no_intensity(tmp_path, dtype, ending):
    """ITK would make it 0, which may be grey."""
    array = voxels(dtype)
    nib.save(nib.Nifti1Image(array, place()), tmp_path / f"v{ending}")
    np.testing.assert_array_equal(read_volume(tmp_path / f"v{ending}").array, array)
    array[0, 1, 2] = np.nan
    nib.save(nib.Nifti1Image(array, place()), tmp_path / f"v{ending}")
    with pytest.raises(VolumeFileError, match="1 voxels are NaN"):
        read_volume(tmp_path / f"v{ending}")


@pytest.mark.parametrize(
    ("ending", "change", "words"),
    [
        (".mha", (b"ElementSpacing", b"Comment"), "no ElementSpacing"),
        (".mha", (b"TransformMatrix", b"Comment"), "no TransformMatrix"),
        (".mha", (b"ElementSpacing", b"DistanceUnits = m\nElementSpacing"), "unit is m"),
        (".nrrd", (b"left-posterior-superior", b"scanner-xyz"), "space is scanner-xyz"),
        (".nrrd", (b"endian:", b'space units: "um" "um" "um"\nendian:'), "space units"),
    ],
)
def test_headers_that_do_not_say_mm_of_the_patient_are_refused(tmp_path, ending, change, words):
    path = tmp_path / f"v{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(voxels()), str(path), False)
    read_volume(path)
    content = path.read_bytes()
    assert change[0] in content
    path.write_bytes(content.replace(change[0], change[1], 1))
    with pytest.raises(VolumeFileError, match=rf"v{ending}.*{words}"):
        read_volume(path)

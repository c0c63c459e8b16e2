"""Any series that a scanner and an archive may leave is read as SimpleITK reads it: voxels, place, order."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid
from scanner import slice_dataset
from scipy.spatial.transform import Rotation

from knee3d.dataset.discovery import discover_cases
from knee3d.io.dicom.series import read_series

DECIMALS = {"six": 6, "all": 10}  # with three, GDCM may take the axes for none (test_series.py has those)
PADDED = -2000


@st.composite
def recipes(draw) -> dict:
    """How a series is written."""
    return {
        "seed": draw(st.integers(0, 10_000)),
        "slices": draw(st.integers(2, 9)),
        "shape": (draw(st.integers(2, 24)), draw(st.integers(2, 24))),
        "decimals": draw(st.sampled_from(list(DECIMALS))),
        "rescaled": draw(st.booleans()),
        "private": draw(st.booleans()),
        "padded": draw(st.booleans()),
        "syntax": draw(st.sampled_from(["explicit", "implicit", "bare", "rle", "jpeg2000"])),
        "folders": draw(st.sampled_from([1, 2, 100])),
        "numbers": draw(st.sampled_from(["up", "down", "none"])),
        "ending": draw(st.sampled_from([".dcm", ".IMA", ""])),
    }


def write(recipe: dict, folder: Path) -> tuple[list[Path], np.ndarray]:
    """Files in the order of their slices, and the stored values, (column, row, slice)."""
    rng = np.random.default_rng(recipe["seed"])
    turn = Rotation.random(random_state=recipe["seed"]).as_matrix()
    rows, columns = recipe["shape"]
    if recipe["syntax"] in ("rle", "jpeg2000"):
        rows, columns = rows + 32, columns + 32  # coders need some room
    step, spacing, origin = rng.uniform(0.4, 4.5), rng.uniform(0.2, 1.0, 2), rng.uniform(-150, 150, 3)
    values = rng.integers(-1000, 3000, (recipe["slices"], rows, columns)).astype(np.int16)
    if recipe["padded"]:
        values[:, 0] = PADDED
    digits, series, files = DECIMALS[recipe["decimals"]], generate_uid(), []
    for k in range(recipe["slices"]):
        image = slice_dataset(k, np.eye(3))
        image.SeriesInstanceUID, image.Rows, image.Columns = series, rows, columns
        image.ImagePositionPatient = [f"{value:.{digits}f}"[:16] for value in origin + turn[:, 2] * step * k]
        image.ImageOrientationPatient = [f"{value:.{digits}f}" for value in turn[:, :2].T.ravel()]
        image.PixelSpacing = [f"{value:.6f}" for value in spacing]
        number = {"up": k + 1, "down": recipe["slices"] - k, "none": None}[recipe["numbers"]]
        image.InstanceNumber, image.PixelData = number, values[k].tobytes()
        if recipe["padded"]:
            image.add_new("PixelPaddingValue", "SS", PADDED)
        if recipe["rescaled"]:
            image.RescaleSlope, image.RescaleIntercept = f"{1.5 + k / 8:.3f}", "-3"
        if recipe["private"]:
            other = Dataset()
            other.ImagePositionPatient, other.RescaleSlope = [1, 2, 3], "9"
            image.private_block(0x2005, "Philips MR Imaging DD 005", create=True).add_new(0x0F, "SQ", [other])
        files.append(save(image, recipe, folder, str(rng.permutation(10**6)[0]), k))
    return files, values.T


def save(image: Dataset, recipe: dict, folder: Path, name: str, k: int) -> Path:
    path = folder / str(k * recipe["folders"] // recipe["slices"]) / f"{name}-{k}{recipe['ending']}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if recipe["syntax"] == "bare":
        bare = Dataset()
        bare.update(image)
        bare.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
        return path
    if recipe["syntax"] in ("rle", "jpeg2000"):
        image.compress(RLELossless if recipe["syntax"] == "rle" else JPEG2000Lossless, generate_instance_uid=False)
    else:
        image.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if recipe["syntax"] == "implicit" else ExplicitVRLittleEndian
        )
    dcmwrite(path, image, enforce_file_format=True, implicit_vr=recipe["syntax"] == "implicit", little_endian=True)
    return path


@pytest.mark.slow
@settings(max_examples=12)
@given(recipes())
def test_it_is_read_as_simpleitk_reads_it(recipe):
    compare_with_simpleitk(recipe)


@pytest.mark.nightly
@settings(max_examples=60)
@given(recipes())
def test_many_are_read_as_simpleitk_reads_them(recipe):
    compare_with_simpleitk(recipe)


def compare_with_simpleitk(recipe: dict) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        files, stored = write(recipe, folder)
        volume, _ = read_series(folder)
        assert len(discover_cases(folder).knees) == 1
        image = sitk.ReadImage([str(path) for path in files])
        slopes = [float(dcmread(path, force=True).get("RescaleSlope", 1)) for path in files]
        expected = stored * np.array(slopes) - (3 if recipe["rescaled"] else 0)
        if not recipe["rescaled"]:
            np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, stored)
    finally:
        shutil.rmtree(folder)
    ends = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (np.array(stored.shape) - 1)
    theirs = np.array([image.TransformIndexToPhysicalPoint(end.tolist()) for end in ends]) * [-1, -1, 1]
    ours = ends @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    assert np.abs(ours - theirs).max() < 1e-3
    padded = stored == PADDED
    if recipe["padded"]:
        assert (volume.array[padded] == volume.array[~padded].min()).all()
    np.testing.assert_allclose(volume.array[~padded], expected[~padded], rtol=1e-6, atol=1e-3)

"""iMorphics' outlines: built here from the published layout, for no file of theirs may be handed on."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from knee3d.geometry.orientation import Side, mirror_left_right
from knee3d.geometry.volume import Volume
from knee3d.io.outlines import OutlineError, read_outlines
from knee3d.labels.label_names import LABEL_NAMES

ROWS, COLUMNS, SLICES = 12, 15, 6
FIELDS = ("FemoralCartilage", "LateralTibialCartilage", "MedialTibialCartilage", "PatellarCartilage",
          "LateralMeniscus", "MedialMeniscus")  # fmt: skip
DOWN_BACK_LEFT = np.array([[0, 0, -0.5, 0], [0, -0.5, 0, 0], [-0.5, 0, 0, 0], [0, 0, 0, 1]])
IMAGE = Volume(np.zeros((ROWS, COLUMNS, SLICES), np.int16), DOWN_BACK_LEFT)


def outline(rows: range, columns: range, extra: int = 0) -> np.ndarray:
    """Around whole pixels, x along the row from the left edge, y up from the bottom edge, and unused columns."""
    left, right, top, bottom = columns.start, columns.stop, ROWS - rows.start, ROWS - rows.stop
    points = np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]], float)
    return np.hstack([points, np.ones((len(points), extra))])


def cell(*outlines: np.ndarray) -> np.ndarray:
    cells = np.empty((len(outlines), 1), object)
    for number, points in enumerate(outlines):
        cells[number, 0] = points
    return cells


def save(path: Path, slices: list[dict[str, np.ndarray]]) -> Path:
    entries = np.zeros((1, len(slices)), [(field, object) for field in FIELDS])
    for number, drawn in enumerate(slices):
        for field in FIELDS:
            entries[field][0, number] = drawn.get(field, np.zeros((0, 0)))
    savemat(path, {"datastruct": entries})
    return path


def knee() -> list[dict[str, np.ndarray]]:
    """Slices from medial to lateral."""
    slices: list[dict[str, np.ndarray]] = [{} for _ in range(SLICES)]
    for number in (0, 1):
        slices[number]["MedialTibialCartilage"] = cell(outline(range(8, 10), range(3, 7), extra=1))
    for number in (3, 4):
        slices[number]["LateralTibialCartilage"] = cell(outline(range(8, 10), range(3, 8), extra=1))
    slices[2]["FemoralCartilage"] = cell(outline(range(2, 4), range(1, 3)), outline(range(2, 6), range(9, 14)))
    return slices


def expected() -> np.ndarray:
    labels = np.zeros((ROWS, COLUMNS, SLICES), np.uint8)
    labels[8:10, 3:7, :2] = 3
    labels[8:10, 3:8, 3:5] = 2
    labels[2:4, 1:3, 2] = labels[2:6, 9:14, 2] = 1
    return labels


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, -1], ids=["from medial", "from lateral"])
@pytest.mark.parametrize("side", [Side.RIGHT, Side.LEFT])
def test_outlines_become_voxels_whatever_way_slices_count(tmp_path, side, order):
    """Canonical slices run from the patient's right to the left: in a right knee from lateral to medial."""
    path = save(tmp_path / "o.mat", knee()[::order])
    labels, label_names = read_outlines(path, IMAGE, side)
    right = expected()[:, :, ::-1]
    np.testing.assert_array_equal(labels.array, right if side is Side.RIGHT else right[:, :, ::-1])
    assert labels.same_grid(IMAGE)
    assert labels.array.dtype == np.uint8
    assert label_names == LABEL_NAMES["imorphics"]
    if side is Side.LEFT:
        np.testing.assert_array_equal(mirror_left_right(labels).array, right)


def test_a_pixel_belongs_to_the_outline_around_its_centre(tmp_path):
    slices = knee()
    shrunk, grown = outline(range(2, 4), range(1, 3)), outline(range(2, 4), range(1, 3))
    shrunk[:, :2] += [[0.4, -0.4], [-0.4, -0.4], [-0.4, 0.4], [0.4, 0.4], [0.4, -0.4]]
    grown[:, :2] -= [[0.4, -0.4], [-0.4, -0.4], [-0.4, 0.4], [0.4, 0.4], [0.4, -0.4]]
    for points in (shrunk, grown):
        slices[2]["FemoralCartilage"] = cell(points, outline(range(2, 6), range(9, 14)))
        labels, _ = read_outlines(save(tmp_path / "o.mat", slices), IMAGE, Side.LEFT)
        np.testing.assert_array_equal(labels.array, expected())


def test_one_outline_need_not_be_in_a_cell(tmp_path):
    slices = knee()
    for drawn in slices:
        for field, cells in drawn.items():
            if len(cells) == 1:
                drawn[field] = cells[0, 0]
    labels, _ = read_outlines(save(tmp_path / "o.mat", slices), IMAGE, Side.LEFT)
    np.testing.assert_array_equal(labels.array, expected())


def test_area_of_a_round_outline(tmp_path):
    angles = np.linspace(0, 2 * np.pi, 400)
    circle = np.stack([60 + 40.3 * np.cos(angles), 50 + 40.3 * np.sin(angles)], axis=1)
    slices = knee()[:2] + [{"LateralTibialCartilage": cell(circle)}]
    image = Volume(np.zeros((100, 120, 3), np.int16), IMAGE.affine)
    labels, _ = read_outlines(save(tmp_path / "o.mat", slices), image, Side.LEFT)
    rows, columns = np.nonzero(labels.array[:, :, 2])
    assert len(rows) == pytest.approx(np.pi * 40.3**2, rel=0.005)
    np.testing.assert_allclose([rows.mean() + 0.5, columns.mean() + 0.5], [50, 60], atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slices", "side", "message"),
    [
        (knee(), Side.UNKNOWN, "no side to tell"),
        ([{}, {}, *knee()[2:3], {}, {}, {}], Side.RIGHT, "no medial and lateral tissue to tell"),
        (knee()[:-1], Side.RIGHT, "outlines for 5 slices, the image 6"),
        (
            [{"FemoralCartilage": cell(outline(range(2, 4), range(10, 30)))}, *knee()[1:]],
            Side.RIGHT,
            "15 pixels beyond",
        ),
        ([{"FemoralCartilage": cell(np.full((4, 2), np.nan))}, *knee()[1:]], Side.RIGHT, "no list of points"),
        ([{"FemoralCartilage": cell(np.ones((4, 1)))}, *knee()[1:]], Side.RIGHT, "no list of points"),
        ([{"FemoralCartilage": np.array(["abc"])}, *knee()[1:]], Side.RIGHT, "no list of points"),
    ],
)
def test_outlines_that_are_no_mask_of_this_image(tmp_path, slices, side, message):
    with pytest.raises(OutlineError, match=r"o\.mat.*" + message):
        read_outlines(save(tmp_path / "o.mat", slices), IMAGE, side)


@pytest.mark.slow
def test_files_that_are_none(tmp_path):
    path = save(tmp_path / "o.mat", knee())
    content = path.read_bytes()
    for broken in (b"", b"hello", content[:300], b"MATLAB 7.3 MAT-file" + bytes(200)):
        path.write_bytes(broken)
        with pytest.raises(OutlineError, match=r"o\.mat"):
            read_outlines(path, IMAGE, Side.RIGHT)
    for other in ({"x": 1}, {"datastruct": 3}, {"datastruct": {"a": 1}}):
        savemat(path, other)
        with pytest.raises(OutlineError, match=r"o\.mat has no iMorphics outlines"):
            read_outlines(path, IMAGE, Side.RIGHT)

import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import SCHEMES
from knee3d.postprocess.confusion_matrix import OverlapScores
from knee3d.report import confusion_figure as confusion_module
from knee3d.report import overview_figure as overview_module
from knee3d.report.confusion_figure import confusion_figure
from knee3d.report.overview_figure import overview_figure
from knee3d.report.rendering import RenderingError

SCHEME = SCHEMES["compartments"]
AFFINE = np.array([[0, 0, -1.0, 20], [0, -1, 0, 30], [-1, 0, 0, 40], [0, 0, 0, 1]])


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(confusion_module, "DPI", 60)
    monkeypatch.setattr(overview_module, "DPI", 60)


@pytest.fixture
def _no_vtk(monkeypatch):
    def refuse(*_):
        raise RenderingError("no")

    monkeypatch.setattr(overview_module, "render_labels", refuse)


def knee(where=(slice(3, 8), slice(5, 9), slice(26, 34))) -> tuple[Volume, Volume]:
    """A grey cube with one block of femoral cartilage, by default superior, anterior and left."""
    labels = np.zeros((40, 40, 40), dtype=np.uint8)
    labels[where] = 1
    image = np.full(labels.shape, 60, dtype=np.uint8)
    return Volume(image, AFFINE), Volume(labels, AFFINE)


def tissue_pixels(path) -> np.ndarray:
    """(n, 2) place of red pixels above the legend, as fractions of the picture's height and width."""
    picture = imread(path)[..., :3]
    picture = picture[: int(0.85 * len(picture))]
    return np.argwhere(picture[..., 0] - picture[..., 2] > 0.15) / picture.shape[:2]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "views"), [("cartilage", 4), ("compartments", 3), ("iwoai", 1), ("bones", 2)])
def test_confusion_figure_grows_with_classes_and_views(name, views, tmp_path):
    names = SCHEMES[name].names
    matrix = np.diag(np.full(len(names) + 1, 1000)) + 10
    matrix[-1] = 0
    scores = {f"view {i}": OverlapScores(matrix * (i + 1), names) for i in range(views)}
    confusion_figure(scores, tmp_path / "confusion.png")
    picture = imread(tmp_path / "confusion.png")[..., :3]
    least = (2.6 * min(views, 2) * 60, 1.7 * (views > 3) * 60)
    assert picture.shape[1] > least[0]
    assert picture.shape[0] > least[1]
    dark = (picture[..., 2] - picture[..., 0] > 0.2) & (picture[..., 0] < 0.2)
    assert 0.02 < dark.mean() < 0.5
    assert list(tmp_path.iterdir()) == [tmp_path / "confusion.png"]


def test_confusion_figure_says_what_it_counts(tmp_path):
    scores = OverlapScores(np.array([[1234567, 10], [40, 1950]]), ("cartilage",))
    confusion_figure({"fused": scores}, tmp_path / "confusion.svg")
    text = (tmp_path / "confusion.svg").read_text()
    for words in ("1,234,567", "97.99 %", "&lt; 0.01 %", f"foreground Dice {scores.foreground_dice:.4f}", "fused"):
        assert f"<!-- {words} -->" in text
    with pytest.raises(ValueError, match="at least one"):
        confusion_figure({}, tmp_path / "none.png")


def test_what_stands_below_a_panel_is_clear_of_the_next_ones_title(tmp_path, monkeypatch):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **more: (drawn.append(self), save(self, *args, **more)))
    scores = OverlapScores(np.diag([1000, 100, 100, 100]), SCHEME.names)
    confusion_figure(dict.fromkeys(("axial", "coronal", "sagittal", "fused"), scores), tmp_path / "confusion.png")
    panels = drawn[0].axes
    gap = panels[0].xaxis.label.get_window_extent().y0 - panels[2].title.get_window_extent().y1
    assert gap > panels[2].title.get_window_extent().height / 2


@pytest.mark.usefixtures("_no_vtk")
def test_letters_are_seen_on_bright_tissue(tmp_path):
    image, labels = knee()
    white, nothing = image.with_array(np.full(image.shape, 255, np.uint8)), labels.with_array(labels.array * 0)
    overview_figure(white, nothing, SCHEME, tmp_path / "white.png")
    picture = imread(tmp_path / "white.png")[..., :3].min(axis=-1)
    rows, columns = (np.flatnonzero((picture > 0.99).mean(axis=axis) > 0.2) for axis in (1, 0))
    slices = picture[rows[0] + 2 : rows[-1] - 2, columns[0] + 2 : columns[0] + len(columns) // 4]
    assert (slices[: len(slices) // 3] < 0.6).sum() > 20  # the dark ground of the letter at the top of the first slice


@pytest.mark.usefixtures("_no_vtk")
def test_each_plane_shows_the_tissue_upright(tmp_path):
    image, labels = knee()
    overview_figure(image, labels, SCHEME, tmp_path / "overview.png")
    places = tissue_pixels(tmp_path / "overview.png")
    for column, anatomy in enumerate((("anterior", "left"), ("superior", "left"), ("superior", "anterior"))):
        inside = places[(places[:, 1] > column / 4) & (places[:, 1] < (column + 1) / 4)]
        assert len(inside) > 100
        assert (inside[:, 0] < 0.5).all(), anatomy
        right_half = inside[:, 1] * 4 - column > 0.5
        assert right_half.all() if anatomy[1] == "left" else not right_half.any(), anatomy
    assert not (places[:, 1] > 3 / 4).any()


@pytest.mark.usefixtures("_no_vtk")
def test_letters_stand_at_the_patients_directions(tmp_path):
    image, labels = knee()
    overview_figure(image, labels, SCHEME, tmp_path / "overview.svg", title="knee_a")
    words = re.findall("<!-- (.+) -->", (tmp_path / "overview.svg").read_text())
    assert "".join(word for word in words if len(word) == 1) == "APRL" + "SIRL" + "SIAP"  # top, bottom, left, right
    assert {
        "knee_a",
        "20 mm",
        "no 3D rendering on this machine",
        "femoral cartilage   160 mm\N{SUPERSCRIPT THREE}",
    } <= {*words}


@pytest.mark.usefixtures("_no_vtk")
def test_a_single_slice_and_tissue_at_the_border_can_be_drawn(tmp_path):
    image = Volume(np.zeros((12, 1, 15), dtype=np.uint8), AFFINE)
    overview_figure(image, image.with_array(np.ones(image.shape, dtype=np.uint8)), SCHEME, tmp_path / "thin.png")
    assert (tmp_path / "thin.png").exists()


@pytest.mark.usefixtures("_no_vtk")
def test_without_tissue_or_rendering_there_is_still_a_figure(tmp_path):
    image, _ = knee()
    overview_figure(image, image.with_array(np.zeros(image.shape, dtype=np.uint8)), SCHEME, tmp_path / "empty.pdf")
    assert (tmp_path / "empty.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.usefixtures("_no_vtk")
def test_pixels_are_square_in_millimetres(tmp_path):
    image, labels = knee()
    flat = AFFINE @ np.diag([1, 1, 0.25, 1])
    overview_figure(image, labels, SCHEME, tmp_path / "cube.png")
    overview_figure(Volume(image.array, flat), Volume(labels.array, flat), SCHEME, tmp_path / "flat.png")
    cube, flattened = (imread(tmp_path / f"{name}.png").shape for name in ("cube", "flat"))
    assert cube[0] == flattened[0]
    assert flattened[1] == pytest.approx(cube[1] * 2.5 / 4, rel=0.05)


def test_truth_gets_its_own_row_and_3d_the_last_column(tmp_path, monkeypatch):
    image, labels = knee()
    solid = np.full((90, 90, 3), SCHEME.tissues[0].colour, dtype=np.uint8)
    monkeypatch.setattr(overview_module, "render_labels", lambda labels, scheme, size: solid)
    overview_figure(image, labels, SCHEME, tmp_path / "one.png")
    overview_figure(image, labels, SCHEME, tmp_path / "two.png", title="case", truth=labels)
    one, two = (tissue_pixels(tmp_path / f"{name}.png") for name in ("one", "two"))
    assert len(two) == pytest.approx(2 * len(one), rel=0.15)
    assert (two[:, 0] > 0.5).any()
    assert (one[:, 1] > 3 / 4).sum() > 10_000


@pytest.mark.usefixtures("_no_vtk")
def test_what_does_not_fit_together_is_refused(tmp_path):
    image, labels = knee()
    with pytest.raises(ValueError, match="uint8"):
        overview_figure(image.with_array(image.array.astype(np.int16)), labels, SCHEME, tmp_path / "x.png")
    with pytest.raises(ValueError, match="to_canonical"):
        overview_figure(Volume(image.array, np.eye(4)), labels, SCHEME, tmp_path / "x.png")
    shifted = Volume(labels.array, AFFINE + np.outer([1, 0, 0, 0], [0, 0, 0, 5]))
    with pytest.raises(ValueError, match="truth"):
        overview_figure(image, labels, SCHEME, tmp_path / "x.png", truth=shifted)
    assert list(tmp_path.iterdir()) == []


def test_there_is_a_slice_for_every_plane():
    tissue = np.zeros((5, 7, 9), dtype=bool)
    assert [overview_module._busiest(tissue, plane.axis) for plane in Plane] == [2, 3, 4]
    tissue[1, 2, 3] = tissue[1, 2, 4] = tissue[1, 5, 4] = True
    assert [overview_module._busiest(tissue, plane.axis) for plane in Plane] == [1, 2, 4]

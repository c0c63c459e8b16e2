from pathlib import Path

import numpy as np
import pytest

from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import SCHEMES
from knee3d.report import rendering
from knee3d.report.rendering import BACKGROUND, RenderingError, render_labels

SCHEME = SCHEMES["compartments"]
# Canonical: Inferior, Posterior, Left; 1 mm.
AFFINE = np.array([[0, 0, -1.0, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])


@pytest.mark.slow
def test_tissues_appear_in_their_colours_and_upright():
    labels = np.zeros((40, 20, 20), dtype=np.uint8)
    labels[2:12, 5:15, 5:15], labels[28:38, 5:15, 5:15] = 1, 2
    try:
        picture = render_labels(Volume(labels, AFFINE), SCHEME, (120, 160))
    except RenderingError as error:
        pytest.skip(f"no OpenGL: {error}")
    assert picture.shape == (160, 120, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[0, 0], BACKGROUND)
    red, blue = picture[..., 0].astype(int) - picture[..., 2], picture[..., 2].astype(int) - picture[..., 0]
    above, below = np.argwhere(red > 60), np.argwhere(blue > 60)
    assert min(len(above), len(below)) > 1000
    assert above[:, 0].max() < 80 < below[:, 0].min()


def test_without_tissue_there_is_background_and_no_process(monkeypatch):
    monkeypatch.setattr(rendering, "_PROGRAM", Path("missing.py"))
    picture = render_labels(Volume(np.zeros((4, 4, 4), dtype=np.uint8), AFFINE), SCHEME, (30, 20))
    assert picture.shape == (20, 30, 3)
    assert (picture == BACKGROUND).all()


def test_a_crash_of_vtk_is_one_clear_error(monkeypatch, tmp_path):
    program = tmp_path / "crash.py"
    program.write_text("import os, sys\nprint('no OSMesa', file=sys.stderr, flush=True)\nos.kill(os.getpid(), 11)")
    monkeypatch.setattr(rendering, "_PROGRAM", program)
    with pytest.raises(RenderingError, match=r"no 3D rendering on this machine.*code -11.*no OSMesa"):
        render_labels(Volume(np.ones((4, 4, 4), dtype=np.uint8), AFFINE), SCHEME, (30, 20))

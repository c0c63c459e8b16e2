"""The two real label maps of ../shared, which not every machine has."""

from pathlib import Path

import pytest

LABEL_MAPS = sorted((Path(__file__).parents[2] / "shared" / "data" / "labels").glob("*.nrrd"))
has_label_maps = pytest.mark.skipif(len(LABEL_MAPS) < 2, reason="no real label maps under ../shared")


def each_label_map(test):
    """A test of whole real knees, slow with the first and in the last stage with the other."""
    others = [pytest.param(path, marks=pytest.mark.nightly) for path in LABEL_MAPS[1:]]
    cases = pytest.mark.parametrize("path", [*LABEL_MAPS[:1], *others], ids=lambda path: path.stem)
    return pytest.mark.slow(has_label_maps(cases(test)))

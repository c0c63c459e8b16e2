"""The two real label maps of ../shared, which not every machine has."""

from pathlib import Path

import pytest

LABEL_NAMES = sorted((Path(__file__).parents[2] / "shared" / "data" / "labels").glob("*.nrrd"))
has_label_maps = pytest.mark.skipif(len(LABEL_NAMES) < 2, reason="no real label maps under ../shared")


def each_label_map(test):
    """A test of whole real knees, in the last stage: they are large."""
    return pytest.mark.nightly(
        has_label_maps(pytest.mark.parametrize("path", LABEL_NAMES, ids=lambda path: path.stem)(test))
    )

"""What the journey says today it says tomorrow. A change that is meant is written down by

    KNEE3D_GOLDEN=write python -m pytest tests/golden

and the commit that changes expected.json says why.
"""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from journey import run_journey

EXPECTED = Path(__file__).with_name("expected.json")
RELATIVE, ABSOLUTE = 1e-6, 1e-9
FITTED = "fitted/weights"
"""What a search finds may differ by its last step."""
STEP = 0.01


@pytest.fixture(scope="module")
def found(made_once) -> dict[str, Any]:
    """Instead of pictures of knees, of which nothing is kept, there is a black pixel."""

    def draw(*args: Any) -> None:
        args[3].parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(args[3]), np.zeros((1, 1), np.uint8))

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("knee3d.report.overview_figure.overview_figure", draw)
            (folder / "found.json").write_text(json.dumps(run_journey(folder / "journey")))

    found = json.loads((made_once("golden", make) / "found.json").read_text())  # as it is kept
    if os.environ.get("KNEE3D_GOLDEN") == "write":
        EXPECTED.write_text(json.dumps(found, indent=1) + "\n")
    return found


def leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every text, number and null of nested mappings and lists, with the way to it."""
    if isinstance(content, dict | list) and content:
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for name, one in items:
            yield from leaves(one, f"{path}/{name}" if path else str(name))
    else:
        yield path, content


def same(path: str, one: Any, other: Any) -> bool:
    if isinstance(one, bool | str | None) or isinstance(other, bool | str | None):
        return one == other
    if path.startswith(FITTED):
        return abs(one - other) <= STEP
    return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE) or (math.isnan(one) and math.isnan(other))


@pytest.mark.slow
def test_the_journey_says_what_it_said(found):
    expected = dict(leaves(json.loads(EXPECTED.read_text())))
    there = dict(leaves(found))
    assert expected.keys() == there.keys()
    differ = {path: (expected[path], there[path]) for path in expected if not same(path, expected[path], there[path])}
    assert not differ


@pytest.mark.slow
def test_the_cohort_is_worth_keeping(found):
    """Every tissue is found in both knees and measured, and the planes differ: else nothing would be kept by it."""
    for case in found["results"].values():
        values = case["measures"]
        for tissue in ("femoral cartilage", "tibial cartilage", "patellar cartilage"):
            assert values[f"{tissue}, whole, volume"] > 100
            assert values[f"{tissue}, whole, thickness_mean"] > 0.5
        assert min(case["mesh_volumes_mm3"].values()) > 100
    alone = found["fitted"]["alone"]
    assert len({round(dice, 3) for dice in alone.values()}) == len(alone)
    assert np.ptp(list(alone.values())) > 0.01

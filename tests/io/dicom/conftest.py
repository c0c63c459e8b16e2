from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmwrite
from scanner import SLICES, rotation, slice_dataset


@pytest.fixture
def make_series(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of slices; `change(image, k)` makes what a test is about; returning False leaves out."""

    def make(change: Callable[[Dataset, int], object] | None = None, turn: np.ndarray | None = None, **names) -> Path:
        folder = tmp_path / names.get("folder", "series")
        folder.mkdir(exist_ok=True)
        for k in range(SLICES):
            image = slice_dataset(k, rotation(0, 0, 0) if turn is None else turn)
            if change is None or change(image, k) is not False:
                dcmwrite(folder / names.get("name", "S{}.dcm").format(k), image, enforce_file_format=True)
        return folder

    return make

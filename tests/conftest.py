"""Fixtures that more than one room uses."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings
from skips import Skips

from knee3d.api.data import write_phantom
from knee3d.dataset.case_collection import Case, CaseCollection, Split, save_cases
from knee3d.dataset.intensity import IntensityWindow
from knee3d.dataset.png_slices import write_slices_in_background
from knee3d.geometry.orientation import Side
from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import to_slices
from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import SCHEMES

if TYPE_CHECKING:
    from knee3d.phantom.cohort import CohortConfig


def pytest_configure(config: pytest.Config) -> None:
    """Where the tests are told to several processes, only the one that tells counts skips."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(), "skips")


SLOW = ("api", "cluster", "golden", "models", "networks", "test_losses.py", "test_metrics.py", "training")
"""Whose tests are all slow: collecting them alone takes seconds, as TensorFlow or Ray is imported."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in `SLOW`, so that it is run with them."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in SLOW and item.get_closest_marker("nightly") is None:
            item.add_marker(pytest.mark.slow)


settings.register_profile("untimed", deadline=None)  # other work on the machine must fail no test
settings.load_profile("untimed")

IPL = np.array([[0, 0, -0.7, 0], [0, -0.4, 0, 0], [-0.5, 0, 0, 0], [0, 0, 0, 1.0]])


def bright_ball(shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of a ball somewhere in the middle: what a network learns in seconds."""
    rng = np.random.default_rng(seed)
    centre = np.array(shape) / 2 + rng.uniform(-2, 2, 3)
    distance = np.linalg.norm(np.indices(shape).T - centre, axis=-1).T
    mask = (distance < min(shape) / 3).astype(np.uint8)
    image = np.clip(60 + 120 * mask + rng.normal(0, 12, shape), 0, 255).astype(np.uint8)
    return image, mask


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Knees are segmented without pictures, which take longer than all the rest."""
    monkeypatch.setattr(
        "knee3d.report.overview_figure.overview_figure", lambda *args: Path(args[3]).write_bytes(b"picture")
    )


@pytest.fixture(scope="session")
def tiny() -> str:
    """The name of a network that trains in seconds."""
    from tiny_network import TINY  # not before it is needed: it imports TensorFlow

    return TINY


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """A function that makes a folder, once for all processes of a run; tests read such a folder and change nothing.

    It takes a name and a function that fills the folder; the first process that asks calls it, the others wait.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, finished = root / name, root / f"{name}.finished"
        with FileLock(root / f"{name}.lock"):
            if not finished.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of another process, which could not make it
                folder.mkdir()
                make(folder)
                finished.touch()
        return folder

    return made


FINE = ("golden", "morphometry", "test_parametric_knee.py", "test_reporting.py", "test_demo.py", "test_notebooks.py")
"""Where it matters how exactly the made-up knee is drawn."""


@pytest.fixture(scope="module", autouse=True)
def coarse_phantom(request: pytest.FixtureRequest) -> Iterator[None]:
    """Elsewhere it is drawn from an eighth of the samples, without which it takes a second a knee."""
    with pytest.MonkeyPatch.context() as patch:
        if not {*request.path.parts} & {*FINE}:
            patch.setattr("knee3d.phantom.parametric_knee._SAMPLE_MM", 1.5)
        yield


CohortOf = Callable[..., Path]


@pytest.fixture(scope="session")
def cohort_of(made_once: MakeOnce) -> CohortOf:
    """A function that gives the table of a cohort, which is made once, as half a second a knee adds up.

    It takes the cohort, and a folder that gets a copy for a test that changes something; without one it is read only.
    """

    def made(cohort: "CohortConfig", copy: Path | None = None) -> Path:
        name = "cohort-" + re.sub(r"\W+", "-", f"{cohort.knees} {cohort.shape} {cohort.seed}").strip("-")
        there = made_once(name, lambda out: write_phantom(cohort, out, jobs=2))
        if copy is not None:
            shutil.copytree(there, copy, dirs_exist_ok=True)
        return (copy or there) / "knees.csv"

    return made


@pytest.fixture(scope="session")
def balls(tmp_path_factory: pytest.TempPathFactory) -> CaseCollection:
    """A prepared dataset of four cases, the last in test, one of another size than the others."""
    folder = tmp_path_factory.mktemp("balls")
    cases = []
    for seed, split in enumerate((Split.TRAIN, Split.TRAIN, Split.VAL, Split.TEST)):
        shape = (20, 18, 12) if seed else (16, 18, 14)
        name = f"ball{seed}"
        for kind, array in zip(("image", "mask"), bright_ball(shape, seed), strict=True):
            with ThreadPoolExecutor(2) as pool:
                for plane in Plane:
                    write_slices_in_background(
                        to_slices(Volume(array, IPL), plane), folder / name / plane.value / kind, pool
                    )
        cases.append(
            Case(
                name,
                f"P{seed}",
                "",
                Side.RIGHT,
                split,
                shape,
                IPL,
                "IPL",
                IntensityWindow(0, 255),
                True,
                fingerprint=name,
            )
        )
    dataset = CaseCollection(folder, SCHEMES["cartilage"], tuple(cases))
    save_cases(dataset)
    return dataset

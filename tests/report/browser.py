"""A Chromium without a window for tests of pages, and a made-up knee to show in it."""

import base64
import functools
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvista as pv
from matplotlib.image import imread, imsave

from knee3d.geometry.volume import Volume
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
from knee3d.labels.label_scheme import SCHEMES
from knee3d.morphometry.measurement import WHOLE, Measurement
from knee3d.morphometry.mesh import mask_surface
from knee3d.phantom.image_simulation import simulate_image
from knee3d.phantom.parametric_knee import parametric_knee
from knee3d.postprocess.confusion_matrix import OverlapScores, confusion_matrix
from knee3d.report.page import KneePage

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
SCREENSHOTS = "KNEE3D_SCREENSHOTS"
PATIENCE_S = 120
ATTEMPTS = 6
SOFTWARE_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
NO_GL = ("--disable-gpu", "--disable-3d-apis")


class Browser:
    """A driver, and what tests ask of it."""

    def __init__(self, driver: Any, screenshots: Path) -> None:
        self.driver, self.screenshots = driver, screenshots

    def open(self, path: Path) -> None:
        """Load a file, and wait until its viewer has said how it went, if it has one."""
        from selenium.webdriver.support.ui import WebDriverWait

        self.log(), self.driver.get(path.as_uri())
        if self.js("return !!document.getElementById('canvas')"):
            WebDriverWait(self.driver, PATIENCE_S).until(
                lambda _: self.js("return document.documentElement.dataset.viewer")
            )

    def js(self, program: str, *values: Any) -> Any:
        return self.driver.execute_script(program, *values)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def click(self, selector: str) -> None:
        self.js("arguments[0].click()", self.find(selector))

    def size(self, width: int, height: int) -> None:
        values = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", values)

    def media(self, kind: str = "", scheme: str = "light") -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": features})

    def canvas(self) -> np.ndarray:
        """(height, width, 3) float32 in [0, 1]: what the viewer shows now."""
        self.js("viewer.drawScene()")
        return imread(io.BytesIO(patiently(lambda: self.find("#canvas").screenshot_as_png)))[..., :3]

    def keep(self, name: str) -> None:
        """The whole page as a picture."""
        whole = {"captureBeyondViewport": True, "clip": self._all()}
        shot = patiently(lambda: self.driver.execute_cdp_cmd("Page.captureScreenshot", whole))
        (self.screenshots / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, name: str) -> bytes:
        found = self.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})
        content = base64.b64decode(found["data"])
        (self.screenshots / f"{name}.pdf").write_bytes(content)
        return content

    def log(self) -> tuple[list[str], list[str]]:
        """Since the last time: complaints in the console, and addresses asked for."""
        said = [entry["message"] for entry in self.driver.get_log("browser")]
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
        return said, asked

    def _all(self) -> dict[str, int]:
        width, height = self.js("const e = document.documentElement; return [e.clientWidth, e.scrollHeight]")
        return {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}


@contextmanager
def running(screenshots: Path, flags: tuple[str, ...] = SOFTWARE_GL) -> Iterator[Browser]:
    """Start a browser for a while; a test that asks for it is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium and chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    folder = Path(os.environ.get(SCREENSHOTS) or screenshots)
    folder.mkdir(parents=True, exist_ok=True)
    # Chromium leaves folders behind; it may still be closing them when its driver has ended.
    with tempfile.TemporaryDirectory(prefix="knee3d-", ignore_cleanup_errors=True) as scratch:
        service = webdriver.ChromeService(DRIVER, env={**os.environ, "TMPDIR": scratch})
        driver = webdriver.Chrome(options=options, service=service)
        try:
            driver.set_script_timeout(PATIENCE_S)
            yield Browser(driver, folder)
        finally:
            driver.quit()


def patiently(shoot: Callable[[], Any]) -> Any:
    """Chromium gives itself 10 s for a picture, which is not enough where other tests keep the processors busy."""
    from selenium.common.exceptions import TimeoutException

    for _ in range(ATTEMPTS - 1):
        try:
            return shoot()
        except TimeoutException:
            continue
    return shoot()


def tilted(volume: Volume, degrees: float = 12.0) -> Volume:
    """The same voxels in an oblique place far from 0, as scanners have it."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[1, 0, 0, 31.0], [0, c, -s, -17.0], [0, s, c, 8.0], [0, 0, 0, 1]])
    return Volume(volume.array, turn @ volume.affine)


SCHEME = SCHEMES["iwoai"]


@functools.cache
def made_up_knee(side: str = "R") -> KneePage:
    """A page with something of everything."""
    raw = parametric_knee((44, 54, 42), seed=5)
    scheme = SCHEME
    image = simulate_image(raw, seed=5).array
    labels = tilted(raw.with_array(labels_to_classes(raw.array, LABEL_NAMES["pymskt"], scheme)))
    grey = np.clip(image / np.percentile(image, 99.5) * 255, 0, 255).astype(np.uint8)
    meshes = {name: mask_surface(labels.with_array(labels.array == n)) for n, name in enumerate(scheme.names, start=1)}
    femoral = meshes[scheme.names[0]]
    sheet = pv.PolyData.from_regular_faces(femoral.points, femoral.regular_faces[: femoral.n_cells // 2])
    sheet.point_data["thickness_mm"] = np.linspace(0, 5, sheet.n_points)
    part = labels.part((slice(4, 40), slice(5, 50), slice(3, 40)))
    tissue = (part.array > 0).astype(np.float32)
    truth = np.roll(labels.array, 1, axis=0)
    scores = OverlapScores(confusion_matrix(truth, labels.array, scheme.classes), scheme.names)
    dice = {**dict(zip(scheme.names, scores.dice.tolist(), strict=True)), "foreground": scores.foreground_dice}
    measures = [
        Measurement(name, region, measure, value + 1000 * n)
        for n, name in enumerate(scheme.names, start=1)
        for region, measure, value in (
            (WHOLE, "volume", 234.56),
            ("anterior", "volume", 123.4),
            (WHOLE, "covered_area", 77.7),
        )
    ]
    measures += [
        Measurement(scheme.names[0], WHOLE, "thickness_mean", 2.345),
        Measurement(scheme.names[1], WHOLE, "thickness_mean", np.nan),
    ]
    return KneePage(
        case="made-up",
        side=side,
        image=labels.with_array(grey),
        labels=labels,
        scheme=scheme,
        meshes=meshes,
        thickness={scheme.names[0]: sheet},
        maps={
            "probability": part.with_array(tissue * np.float32(0.9)),
            "disagreement": part.with_array(np.where(tissue > 0, np.float32(0.5), np.float32(np.nan))),
            "thickness": part.with_array(tissue * np.float32(2.5)),
        },
        measures=measures,
        scores={"one view": dice, "fused": dice},
        confusion={"fused": scores},
        flags=("views disagree",),
        notes=("the bone-cartilage interface is inferred",),
        made={"knee3d": "0", "weights": "1/3 each"},
        pictures={"Overview": a_png()},
    )


def a_png() -> bytes:
    file = io.BytesIO()
    imsave(file, np.linspace(0, 1, 48 * 160 * 3).reshape(48, 160, 3), format="png")
    return file.getvalue()

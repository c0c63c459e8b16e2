"""Pages as a reader sees them, in Chromium without a window; screenshots are kept where KNEE3D_SCREENSHOTS says."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import NO_GL, SCHEME, Browser, a_png, made_up_knee, running

from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import SCHEMES
from knee3d.report.index_page import IndexRow, write_index
from knee3d.report.page import KneePage, write_page
from knee3d.report.page.colour_maps import COLOUR_MAPS
from knee3d.report.page.tables import DIGITS, HEADINGS
from knee3d.report.tables import UNIT_SIGNS

pytestmark = pytest.mark.slow

WINDOW = 1100, 760
A4_PIXELS = 688
AGAIN = """
const form = document.getElementById("switches"), scene = JSON.parse(document.getElementById("scene").textContent);
form.reset();
form.elements.layout[0].dispatchEvent(new Event("input", {bubbles: true}));
form.elements["tissue-1"].dispatchEvent(new Event("input", {bubbles: true}));
viewer.setRenderAzimuthElevation(...scene.view);
viewer.scene.crosshairPos = viewer.mm2frac(scene.start, 0, true);
viewer.createOnLocationChange();
document.activeElement.blur();
document.querySelectorAll("details").forEach((one) => { one.open = false; });"""
CONTRAST = 4.5
FIRST_SOON = [SCHEME.names[0], *(pytest.param(other, marks=pytest.mark.nightly) for other in SCHEME.names[1:])]
"""Tissues; the others wait for the nightly stage."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def browser(folder) -> Iterator[Browser]:
    with running(folder / "screenshots") as started:
        yield started


@pytest.fixture(scope="module")
def file(folder) -> Path:
    write_page(made_up_knee(), folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def opened(browser, file) -> Browser:
    """The page as it opens; it is not loaded again while nothing else was."""
    browser.size(*WINDOW)
    browser.media()
    if browser.driver.current_url != file.as_uri():
        browser.open(file)
    browser.js(AGAIN)
    browser.log()
    return browser


def differs(one: np.ndarray, other: np.ndarray) -> int:
    """Pixels that look different."""
    return int((np.abs(one - other).max(axis=2) > 0.05).sum())


def place(browser: Browser) -> str:
    return browser.find("#place").text


def put_crosshair(browser: Browser, mm: np.ndarray) -> None:
    browser.js("viewer.scene.crosshairPos = viewer.mm2frac(arguments[0], 0, true)", mm.tolist())
    browser.js("viewer.drawScene(); viewer.createOnLocationChange()")


def middle_of(name: str) -> np.ndarray:
    """RAS mm of the voxel in the middle of those of a tissue."""
    page = made_up_knee()
    index = np.argwhere(page.labels.array == page.scheme.names.index(name) + 1)
    nearest = index[np.abs(index - index.mean(axis=0)).sum(axis=1).argmin()]
    return (page.labels.affine @ [*nearest, 1])[:3]


def test_it_opens_from_disk_without_a_complaint_or_a_question(browser, file):
    browser.size(*WINDOW)
    browser.open(file)
    said, asked = browser.log()
    assert browser.js("return document.documentElement.dataset.viewer") == "ready", browser.find("#no-viewer").text
    assert said == []
    assert asked
    assert all(address.startswith((file.as_uri(), "data:", "blob:")) for address in asked)
    assert not browser.find("#no-viewer").is_displayed()
    shown = browser.canvas()
    assert shown.std() > 0.05
    assert len(np.unique((shown * 15).astype(int).reshape(-1, 3), axis=0)) > 30
    browser.keep("wide light")


@pytest.mark.parametrize("layout", ["together", "solid"])
@pytest.mark.parametrize("tissue", FIRST_SOON)
def test_each_tissue_can_be_hidden_in_slices_and_in_3d(tissue, layout, opened):
    number = made_up_knee().scheme.names.index(tissue) + 1
    if layout == "together":  # slices alone: the surfaces have their turn
        opened.click("[name=surfaces][value=none]")
        put_crosshair(opened, middle_of(tissue))
    else:
        opened.click("[name=layout][value=solid]")
        for other in set(range(1, 7)) - {number}:
            opened.click(f"[name=tissue-{other}]")
    before = opened.canvas()
    opened.click(f"[name=tissue-{number}]")
    hidden = opened.canvas()
    assert differs(before, hidden) > 20
    opened.click(f"[name=tissue-{number}]")
    assert differs(before, opened.canvas()) == 0


@pytest.mark.parametrize("map_number", [*(pytest.param(later, marks=pytest.mark.nightly) for later in range(2)), 2])
def test_each_map_can_be_shown_with_its_bar(map_number, opened):
    put_crosshair(opened, middle_of("femoral cartilage"))
    bar = opened.find(f"#bar-map-{map_number}")
    before = opened.canvas()
    assert not bar.is_displayed()
    opened.click(f"[name=map-{map_number}]")
    assert differs(before, opened.canvas()) > 20
    assert bar.is_displayed()
    words = {0: "probability of tissue 0.90", 1: "views that disagree 0.50", 2: "thickness 2.50 mm"}[map_number]
    assert place(opened).endswith(f": femoral cartilage, {words}")
    opened.click(f"[name=map-{map_number}]")
    assert differs(before, opened.canvas()) == 0


@pytest.mark.parametrize("layout", [pytest.param("axial", marks=pytest.mark.nightly), "coronal"])
def test_a_thickness_has_the_colour_of_its_bar_on_the_side_where_it_is(layout, browser, folder):
    """A cube of cartilage, thin in the patient's right half, which is on the left of the picture."""
    array = np.zeros((24, 24, 24), dtype=np.uint8)
    array[4:20, 4:20, 4:20] = 1
    labels = Volume(array, [[0, 0, -1, 50], [0, -1, 0, -20], [-1, 0, 0, 7], [0, 0, 0, 1]])
    thickness = np.where(np.arange(24) < 12, np.float32(1), np.float32(4)) * array
    maps = {"thickness": labels.with_array(thickness)}
    write_page(
        KneePage(case="cube", side="R", labels=labels, scheme=SCHEMES["cartilage"], maps=maps), folder / "cube.html"
    )
    browser.size(*WINDOW)
    browser.media()
    browser.open(folder / "cube.html")
    for name, value in (("labels", 0), ("maps", 100)):
        slide(browser, name, value)
    browser.click("[name=map-0]")
    browser.click(f"[name=layout][value={layout}]")
    put_crosshair(browser, (labels.affine @ [12, 12, 12, 1])[:3])
    shown = browser.canvas()
    height, width = shown.shape[:2]
    look = COLOUR_MAPS["thickness"]
    for value, shift in ((1.0, -1), (4.0, 1)):
        found = shown[height // 2 - height // 12, width // 2 + shift * height // 6]
        wanted = look.colours[int(look.bytes_of(np.array(value))), :3] / 255
        np.testing.assert_allclose(found, wanted, atol=0.03)


def test_a_map_is_drawn_on_its_tissue(opened):
    """The map is of all tissue, on a grid smaller than that of the labels, both oblique: they cover the same pixels."""
    opened.click("[name=surfaces][value=none]")
    slide(opened, "labels", 0)
    bare = opened.canvas()
    slide(opened, "labels", 100)
    labels = np.abs(opened.canvas() - bare).max(axis=2) > 0.1
    slide(opened, "labels", 0)
    slide(opened, "maps", 100)
    opened.click("[name=map-2]")
    drawn = np.abs(opened.canvas() - bare).max(axis=2) > 0.1
    assert labels.sum() > 1000
    assert (labels & drawn).sum() / (labels | drawn).sum() > 0.85


def slide(browser: Browser, name: str, value: int) -> None:
    control = browser.find(f"[name={name}]")
    browser.js(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
        control,
        value,
    )


@pytest.mark.parametrize("name", [pytest.param("labels", marks=pytest.mark.nightly), "maps"])
def test_opacity_fades(name, opened):
    opened.click("[name=map-2]")
    put_crosshair(opened, middle_of("femoral cartilage"))
    before = opened.canvas()
    slide(opened, name, 0)
    assert differs(before, opened.canvas()) > 20


def test_surfaces_are_tissues_or_thickness_or_none(opened):
    opened.click("[name=layout][value=solid]")
    shown = {}
    for kind in ("tissue", "thickness", "none"):
        opened.click(f"[name=surfaces][value={kind}]")
        shown[kind] = opened.canvas()
        assert opened.find("#bar-surfaces").is_displayed() == (kind == "thickness")
    assert min(differs(shown["tissue"], shown["none"]), differs(shown["thickness"], shown["none"])) > 1000
    assert differs(shown["tissue"], shown["thickness"]) > 1000
    opened.keep("3d")


def test_every_layout_looks_different(opened):
    shown = []
    for choice in opened.driver.find_elements("css selector", "[name=layout]"):
        opened.js("arguments[0].click()", choice)
        shown.append(opened.canvas())
    assert len(shown) == 5
    assert min(differs(one, other) for n, one in enumerate(shown) for other in shown[:n]) > 1000


def test_left_and_right_stand_where_they_are(opened):
    """The patient's right is on the left of the picture: the further right, the further left the crosshair."""
    opened.click("[name=layout][value=coronal]")
    columns = []
    for shift in (-15, 15):
        put_crosshair(opened, middle_of("femoral cartilage") + [shift, 0, 0])
        blue = opened.canvas() - np.array([0.2, 0.35, 0.55])
        columns.append(int((blue.min(axis=2) > 0).sum(axis=0).argmax()))
    assert columns[1] < columns[0]


@pytest.mark.parametrize("tissue", SCHEME.names)
def test_the_viewer_finds_a_tissue_where_it_is_and_its_surface_there(tissue, opened):
    """The grid is oblique and far from 0."""
    where = middle_of(tissue)
    put_crosshair(opened, where)
    assert place(opened).endswith(f": {tissue}")
    said = [float(number) for number in re.findall(r"[\d.]+", place(opened))[:3]]
    np.testing.assert_allclose(said, np.abs(where), atol=1.5)
    number = made_up_knee().scheme.names.index(tissue) + 1
    mesh = f"viewer.meshes.find((one) => one.name === 'mesh-{number}.mz3')"
    extents = opened.js(f"const m = {mesh}; return [[...m.extentsMin], [...m.extentsMax]]")
    points = np.asarray(made_up_knee().meshes[tissue].points)
    np.testing.assert_allclose(extents, [points.min(axis=0), points.max(axis=0)], atol=0.5)


def test_tables_say_what_was_measured(opened):
    page = made_up_knee()
    read = opened.js(
        "return Array.from(document.querySelectorAll('#measures tr'), (r) => Array.from(r.cells, (c) => c.textContent))"
    )
    values = {}
    for row in read:
        if row[0] == "Tissue":
            head = row
        else:
            tissue, region = row[0].split(" of ")[::-1] if " of " in row[0] else (row[0], "whole")
            values |= {(tissue, region, column): cell for column, cell in zip(head[1:], row[1:], strict=True)}
    for one in page.measures:
        words = f"{one.value:,.{DIGITS[one.unit]}f}" if one.value == one.value else "–"
        heading = f"{HEADINGS[one.measure]} ({UNIT_SIGNS[one.unit]})"
        assert values[one.tissue, one.region, heading] == words
    dice = opened.js("return document.querySelector('#truth tbody tr td').textContent")
    assert dice == f"{page.scores['one view']['femoral cartilage']:.4f}"


def keys(browser: Browser, *pressed: str) -> None:
    for key in pressed:
        browser.driver.switch_to.active_element.send_keys(key)


def test_keys_reach_and_work_all_switches(opened):
    from selenium.webdriver.common.keys import Keys

    active = (
        "const e = document.activeElement; return [e.name || e.id || e.className, getComputedStyle(e).outlineStyle]"
    )
    opened.find("body").send_keys(Keys.TAB)
    reached = []
    for _ in range(40):
        name, outline = opened.js(active)
        if name == "canvas":
            outline = opened.js("return getComputedStyle(document.querySelector('.screen')).outlineStyle")
        if reached and name in ("", reached[0]):  # past the last one
            break
        assert outline != "none", name
        reached.append(name)
        keys(opened, Keys.TAB)
    groups = {
        "layout",
        "canvas",
        "surfaces",
        *(f"tissue-{n}" for n in range(1, 7)),
        "map-0",
        "map-1",
        "map-2",
        "labels",
        "maps",
    }
    assert groups <= set(reached)
    assert reached[0] == "skip"

    opened.js("document.querySelector('[name=tissue-1]').focus()")
    before = opened.canvas()
    keys(opened, Keys.SPACE)
    assert differs(before, opened.canvas()) > 20
    opened.js("document.querySelector('[name=layout]').focus()")
    keys(opened, Keys.ARROW_RIGHT)
    assert opened.js("return document.getElementById('switches').elements.layout.value") == "axial"


def test_keys_move_the_crosshair_and_turn_the_knee(opened):
    from selenium.webdriver.common.keys import Keys

    opened.js("document.getElementById('canvas').focus()")
    seen = {place(opened)}
    for key in (Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.PAGE_UP):
        keys(opened, key)
        seen.add(place(opened))
    assert len(seen) == 4
    start = place(opened)
    keys(opened, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.PAGE_DOWN, Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.PAGE_UP)
    assert place(opened) == start
    opened.click("[name=layout][value=solid]")
    opened.js("document.getElementById('canvas').focus()")
    before = opened.canvas()
    keys(opened, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert differs(before, opened.canvas()) > 1000


@pytest.mark.parametrize("scheme", [pytest.param("light", marks=pytest.mark.nightly), "dark"])
def test_all_text_can_be_read(scheme, opened):
    opened.media(scheme=scheme)
    opened.js("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    program = """
        const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
        const paper = (e) => rgb(getComputedStyle(e).backgroundColor);
        const solid = (e) => !e || paper(e)[3] !== 0 ? (e ? paper(e) : [255, 255, 255]) : solid(e.parentElement);
        const text = 'h1,h2,h3,p,li,th,td,small,label,legend,summary,figcaption,caption,.ends span';
        return Array.from(document.querySelectorAll(text))
            .filter((e) => e.textContent.trim() && e.getClientRects().length)
            .map((e) => [e.tagName + ' ' + e.textContent.slice(0, 30), rgb(getComputedStyle(e).color), solid(e)])"""
    found = opened.js(program)
    assert len(found) > 100
    for words, ink, paper in found:
        assert contrast(ink[:3], paper[:3]) >= CONTRAST, (words, ink, paper)
    opened.keep(f"wide {scheme}")


def contrast(one: list[float], other: list[float]) -> float:
    """Of the web's accessibility guidelines (WCAG 2): 1 to 21."""

    def luminance(colour: list[float]) -> float:
        share = np.array(colour) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_a_phone_shows_all_without_scrolling_sideways(opened):
    opened.size(390, 844)
    assert opened.js("return document.documentElement.scrollWidth") <= 390
    assert opened.js("return document.getElementById('canvas').getBoundingClientRect().width") > 340
    opened.canvas()
    opened.keep("phone")


def test_paper_has_pictures_instead_of_the_viewer_and_whole_tables(opened):
    assert not opened.find("#pictures img").is_displayed()
    content = opened.pdf("print")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 5
    opened.size(A4_PIXELS, 1000)
    opened.media("print", "dark")
    opened.js("window.dispatchEvent(new Event('beforeprint'))")
    assert opened.find("#pictures img").is_displayed()
    assert not opened.find("#viewer").is_displayed()
    widths = opened.js("return Array.from(document.querySelectorAll('table'), (t) => t.getBoundingClientRect().right)")
    assert len(widths) >= 5
    assert max(widths) <= A4_PIXELS
    assert opened.js("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.log()[0] == []


def test_without_webgl_it_says_so_and_shows_the_pictures(file, folder):
    with running(folder / "screenshots", NO_GL) as plain:
        plain.open(file)
        assert plain.find("#no-viewer").is_displayed()
        assert "WebGL2" in plain.find("#no-viewer").text
        assert "pictures below" in plain.find("#no-viewer").text
        assert not plain.find("#switches").is_displayed()
        assert plain.find("#pictures img").is_displayed()
        assert plain.js("return document.querySelector('#pictures img').naturalWidth") == 160
        plain.keep("without webgl")


def test_labels_alone_can_be_shown(browser, folder):
    page = made_up_knee()
    write_page(replace(page, image=None, meshes={}, thickness={}, maps={}, pictures={}), folder / "labels.html")
    browser.size(*WINDOW)
    browser.media()
    browser.open(folder / "labels.html")
    said, _ = browser.log()
    assert said == []
    assert browser.js("return document.documentElement.dataset.viewer") == "ready"
    assert browser.canvas().std() > 0.01


# Many knees


@pytest.fixture
def cohort(browser, folder) -> Browser:
    rows = [
        IndexRow(
            case=f"knee {n}",
            report=f"knee {n}/report.html",
            side="LR"[n % 2],
            flags=["odd #1"] * (n % 3 == 0) + ["cut off"] * (n % 6 == 0),
            inter_view_dice=0.9 - n / 1000,
            volumes_mm3={"femoral cartilage": 1000.0 + n * 37 % 500} if n % 5 else {},
            thickness_mm={"femoral cartilage": 2.0},
            thumbnail="a #1.png",
        )
        for n in range(450)
    ]
    (folder / "a #1.png").write_bytes(a_png())
    write_index(rows, folder / "index.html")
    browser.size(*WINDOW)
    browser.media()
    browser.open(folder / "index.html")
    deadline = time.monotonic() + 60
    while not browser.js("return document.querySelector('#knees img').complete") and time.monotonic() < deadline:
        time.sleep(0.2)  # thumbnails come when they are needed
    return browser


def shown(browser: Browser, column: int) -> list[str]:
    return browser.js(
        "return Array.from(document.querySelectorAll('#knees tbody tr'), (r) => r.cells[arguments[0]].textContent)",
        column,
    )


def test_the_cohort_opens_worst_first_with_its_thumbnails(cohort):
    said, asked = cohort.log()
    assert said == []
    assert {address.rsplit("/", 1)[1] for address in asked} - {"data:,"} == {"index.html", "a%20%231.png"}
    assert shown(cohort, 1)[:2] == ["knee 444", "knee 438"]
    assert cohort.js("return document.querySelector('#knees img').naturalWidth") == 160
    assert cohort.js("return document.querySelector('#knees img').loading") == "lazy"
    assert cohort.js("return document.querySelector('#knees a').getAttribute('href')") == "knee%20444/report.html"
    cohort.keep("cohort")


def test_the_cohort_sorts_by_click_and_by_key(cohort):
    from selenium.webdriver.common.keys import Keys

    button = cohort.find("[data-column='6']")
    order = "return arguments[0].parentElement.getAttribute('aria-sort')"
    for wanted, sign in (("ascending", 1), ("descending", -1)):
        button.send_keys(Keys.ENTER) if sign > 0 else button.click()
        assert cohort.js(order, button) == wanted
        while cohort.find("#more").is_displayed():
            cohort.click("#more")
        found = [float(text.replace(",", "")) if text != "–" else None for text in shown(cohort, 6)]
        known = [value for value in found if value is not None]
        assert known == sorted(known, reverse=sign < 0)
        assert found[len(known) :] == [None] * 90
    cohort.click("[data-column='1']")
    assert shown(cohort, 1)[:3] == ["knee 0", "knee 1", "knee 2"]  # as people count
    assert cohort.js("return document.querySelectorAll('[aria-sort]:not([aria-sort=none])').length") == 1


def test_the_cohort_filters_and_shows_more(cohort):
    assert len(shown(cohort, 1)) == 200
    cohort.click("#more")
    assert len(shown(cohort, 1)) == 400
    cohort.find("#filter").send_keys("cut l")
    assert set(shown(cohort, 2)) == {"L"}
    assert len(shown(cohort, 1)) == 75
    assert cohort.find("#shown").text == "75 of 450 knees"
    cohort.find("#filter").clear()
    cohort.find("#filter").send_keys("nothing like it")
    assert shown(cohort, 1) == []
    cohort.find("#filter").clear()
    cohort.find("#flagged").click()
    assert cohort.find("#shown").text.startswith("150 of 450 knees")


def test_the_cohort_fits_a_phone(cohort):
    cohort.size(390, 844)
    assert cohort.js("return document.documentElement.scrollWidth") <= 390
    cohort.keep("cohort phone")

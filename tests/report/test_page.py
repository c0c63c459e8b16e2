import base64
import gzip
import hashlib
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import nibabel
import numpy as np
import pytest
import pyvista as pv
import SimpleITK as sitk
from browser import a_png, made_up_knee, tilted
from matplotlib.image import imsave

from knee3d.geometry.orientation import Side, to_canonical
from knee3d.geometry.volume import Volume
from knee3d.io.volume_file import read_volume
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
from knee3d.labels.label_scheme import SCHEMES
from knee3d.morphometry.measurement import UNITS, WHOLE, Measurement
from knee3d.morphometry.mesh import mask_surface
from knee3d.phantom.image_simulation import simulate_image
from knee3d.postprocess.confusion_matrix import OverlapScores
from knee3d.report.page import KneePage, write_page
from knee3d.report.page.colour_maps import BARE, COLOUR_MAPS, FIRST, LAST, NOTHING, find_colour_map
from knee3d.report.page.embedded_files import STEP_MM, gzip_bytes, nifti_bytes
from knee3d.report.page.html import render_page
from knee3d.report.page.picture import box_around_labels, coarsen_to_spacing, make_page_image, subsample
from knee3d.report.page.scene import decimate_mesh, double_sided, make_scene, thickness_colours
from knee3d.report.page.tables import DIGITS, GROUPS, HEADINGS
from knee3d.report.tables import UNIT_SIGNS, format_number

REAL_LABELS = Path(__file__).parents[3] / "shared" / "data" / "labels" / "knee_b_label.nrrd"
PLAIN = np.array([[0, 0, -0.7, 12], [0, -0.4, 0, -3], [-0.5, 0, 0, 40], [0, 0, 0, 1.0]])
OBLIQUE = tilted(Volume(np.zeros((1, 1, 1)), PLAIN)).affine
EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;"
MOST_BYTES = 12e6


class Seen(HTMLParser):
    """Elements and tables of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.tables: list[list[list[str]]] = []
        self.text: list[str] = []
        self.inline: list[tuple[str, str]] = []
        self.open, self.cell = "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open = tag
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        self.open, self.cell = "", self.cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.open in ("script", "style"):
            self.inline.append((self.open, data))
            return
        self.text.append(data)
        if self.cell:
            self.tables[-1][-1][-1] += data

    def named(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def contents(text: str, tag: str) -> list[str]:
    """Of elements without a type: data is neither run nor drawn."""
    found = [content for name, content in Seen(text).inline if name == tag]
    return found[1:] if tag == "script" else found


def scene_in(text: str) -> dict:
    return json.loads(re.search('<script type="application/json" id="scene">(.*?)</script>', text).group(1))


def unpacked(text: str) -> bytes:
    return gzip.decompress(base64.b64decode(text))


def read_nifti(content: bytes) -> Volume:
    image = nibabel.Nifti1Image.from_bytes(content)
    return Volume(np.asarray(image.dataobj), image.affine)


def read_mz3(content: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Points, triangles and colours, as the format's own page says."""
    magic, parts, triangles, points, skip = np.frombuffer(content[:16], "<u2,<u2,<u4,<u4,<u4")[0]
    assert (magic, skip) == (23117, 0)
    file = io.BytesIO(content[16:])
    corners = np.frombuffer(file.read(12 * triangles), "<i4").reshape(-1, 3)
    places = np.frombuffer(file.read(12 * points), "<f4").reshape(-1, 3)
    colours = np.frombuffer(file.read(4 * points), "u1").reshape(-1, 4) if parts & 4 else None
    assert file.read() == b""
    return places, corners, colours


@pytest.fixture(scope="module")
def page() -> KneePage:
    return made_up_knee()


@pytest.fixture(scope="module")
def text(page) -> str:
    return render_page(page)


def without_rim(volume: Volume) -> Volume:
    inner = volume.part(tuple(slice(1, size - 1) for size in volume.shape))
    assert np.count_nonzero(inner.array) == np.count_nonzero(volume.array)
    return inner


# NIfTI


@pytest.mark.parametrize("affine", [PLAIN, OBLIQUE], ids=["plain", "oblique"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_other_readers_find_voxels_where_they_are(dtype, affine, tmp_path):
    volume = Volume((np.random.default_rng(1).random((3, 5, 4)) * 200).astype(dtype), affine)
    (tmp_path / "v.nii.gz").write_bytes(gzip_bytes(nifti_bytes(volume)))
    image = nibabel.load(tmp_path / "v.nii.gz")
    assert image.get_data_dtype() == dtype
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(image.get_fdata(), volume.array)
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)

    other = sitk.ReadImage(str(tmp_path / "v.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(other).T, volume.array)
    for index in ((0, 0, 0), (2, 4, 3)):
        place = np.array(other.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]  # LPS
        np.testing.assert_allclose(place, (affine @ [*index, 1])[:3], atol=1e-4)


def test_nifti_says_whether_voxels_are_names():
    volume = Volume(np.ones((2, 2, 2), dtype=np.uint8), PLAIN)
    codes = [nibabel.Nifti1Image.from_bytes(nifti_bytes(volume, labels)).header.get_intent()[0] for labels in (0, 1)]
    assert codes == ["none", "label"]


@pytest.mark.parametrize("array", [np.zeros((2, 2, 2)), np.zeros((2, 2, 2, 2), dtype=np.uint8)])
def test_nifti_refuses_what_it_cannot_say(array):
    with pytest.raises(ValueError, match="NIfTI-1 takes"):
        nifti_bytes(Volume(array, PLAIN))


# The picture


def test_a_coarser_image_lies_where_the_fine_one_did():
    """Of a brightness that grows evenly, anti-aliasing and sampling change nothing but its rounding."""
    index = np.moveaxis(np.indices((40, 30, 20)), 0, -1)
    steps = np.array([2.0, 3.0, 4.0])
    fine = Volume((index @ steps / 1.5 + 20).astype(np.uint8), OBLIQUE)
    coarse = coarsen_to_spacing(fine, 1.1)
    assert (coarse.spacing_mm >= 1.1 - 1e-6).all()
    inner = np.moveaxis(np.indices(coarse.shape), 0, -1)[3:-3, 3:-3, 3:-3]
    places = inner @ coarse.affine[:3, :3].T + coarse.affine[:3, 3]
    back = places @ np.linalg.inv(fine.affine)[:3, :3].T + np.linalg.inv(fine.affine)[:3, 3]
    np.testing.assert_allclose(coarse.array[3:-3, 3:-3, 3:-3], back @ steps / 1.5 + 20, atol=1.5)


@pytest.mark.parametrize("spacing_mm", [0.0, 0.45, 1.0, 50.0])
def test_coarsening_never_refines_and_keeps_a_voxel(spacing_mm):
    image = Volume(np.full((6, 7, 5), 77, dtype=np.uint8), PLAIN)
    coarse = coarsen_to_spacing(image, spacing_mm)
    assert (coarse.array == 77).all()
    assert (np.array(coarse.shape) <= image.shape).all()
    assert (coarse is image) == (spacing_mm == 0)


def test_noise_is_made_to_fit():
    image = Volume(np.random.default_rng(2).integers(0, 256, (60, 60, 60)).astype(np.uint8), PLAIN)
    everything = (slice(0, 60),) * 3
    fine, small = (make_page_image(image, everything, most) for most in (10_000_000, 60_000))
    assert len(small.packed) <= 60_000 < len(fine.packed)
    assert fine.words == ""
    assert "mm" in small.words
    assert "full resolution" in small.words
    np.testing.assert_array_equal(read_nifti(gzip.decompress(fine.packed)).array, image.array)


def test_greys_are_rounded_and_black_stays_black():
    image = Volume(np.arange(256, dtype=np.uint8).reshape(16, 4, 4), PLAIN)
    coarse = subsample(image, 4)
    assert np.abs(coarse.array.astype(int) - image.array).max() <= 2
    assert len(np.unique(coarse.array)) == 65
    assert coarse.array[0, 0, 0] == 0


def test_the_margin_is_in_millimetres():
    labels = np.zeros((60, 90, 70), dtype=np.uint8)
    labels[30, 45, 35] = 3
    box = box_around_labels(Volume(labels, PLAIN), 7.0)
    assert [(side.start, side.stop) for side in box] == [(16, 45), (27, 64), (25, 46)]
    empty = box_around_labels(Volume(labels * 0, PLAIN))
    assert [side.stop - side.start for side in empty] == [60, 90, 70]


# Colours


@pytest.mark.parametrize("look", COLOUR_MAPS.values(), ids=COLOUR_MAPS)
def test_numbers_become_bytes_in_order_and_nothing_is_clear(look):
    values = np.array(
        [np.nan, 0.0, look.low - 1e-6, look.low + 1e-6, (look.low + look.high) / 2, look.high, look.high + 9]
    )
    coded = look.bytes_of(values)
    assert coded.tolist() == [NOTHING, NOTHING, NOTHING, FIRST, (FIRST + LAST) // 2, LAST, LAST]
    assert look.colours[NOTHING, 3] == 0
    assert (look.colours[FIRST:, 3] > 0).all()
    assert len(np.unique(look.colours[FIRST:, :3], axis=0)) > 200


def test_a_map_without_a_look_runs_over_its_numbers():
    look = find_colour_map("doubt", Volume(np.array([[[np.nan, 0.0, 3.0]]]), PLAIN))
    assert (look.title, look.low, look.high) == ("Doubt", 0.0, 3.0)
    nothing = find_colour_map("nothing", Volume(np.full((1, 1, 1), np.nan), PLAIN))
    assert nothing.low < nothing.high


def test_thickness_has_the_colours_of_its_bar_and_bare_bone_none():
    mesh = pv.PolyData.from_regular_faces(np.array([[0, 0, 0], [9, 0, 0], [0, 9, 0.0]]), [[0, 1, 2]])
    mesh.point_data["thickness_mm"] = [0.0, 2.5, 50.0]
    colours = thickness_colours(np.array([[8.0, 0, 0], [0, 8, 0], [1, 1, 0]]), mesh)
    bar = COLOUR_MAPS["thickness"].colours[:, :3]
    assert colours.tolist() == [bar[128].tolist(), bar[LAST].tolist(), list(BARE)]


# Surfaces


def test_a_decimated_surface_lies_where_it_lay():
    mesh = pv.Sphere(radius=20, center=(5, -30, 60), theta_resolution=90, phi_resolution=90)
    small = decimate_mesh(mesh, 3000)
    assert 2500 < small.n_cells <= 3000 < mesh.n_cells
    assert small.volume == pytest.approx(mesh.volume, rel=0.01)
    np.testing.assert_allclose(small.bounds, mesh.bounds, atol=0.2)
    assert decimate_mesh(small, 10_000).n_cells == small.n_cells


def test_a_sheet_gets_a_back():
    sheet = pv.Plane(i_resolution=2, j_resolution=2).triangulate()
    both = double_sided(sheet)
    normals = both.compute_normals(point_normals=False, consistent_normals=False, auto_orient_normals=False)["Normals"]
    assert sorted(normals[:, 2].tolist()) == [-1.0] * 8 + [1.0] * 8


@pytest.mark.parametrize("side", Side)
def test_labels_and_surfaces_in_the_file_lie_at_the_same_place(side, page):
    """Read back as a viewer does, from the file alone; the grid is oblique."""
    scene = scene_in(render_page(replace(page, side=side)))
    labels = without_rim(read_nifti(unpacked(scene["labels"])))
    image = read_nifti(unpacked(scene["image"]))
    np.testing.assert_array_equal(image.array, page.image.part(page.image.box_of(image)).array)
    assert page.labels.box_of(labels) == page.image.box_of(image)
    for value, tissue in enumerate(scene["tissues"], start=1):
        index = np.argwhere(labels.array == value)
        voxels = index @ labels.affine[:3, :3].T + labels.affine[:3, 3]
        points, corners, colours = read_mz3(unpacked(tissue["mesh"]))
        assert colours is None
        assert corners.max() == len(points) - 1
        for edge in (np.min, np.max):
            np.testing.assert_allclose(edge(points, axis=0), edge(voxels, axis=0), atol=page.labels.spacing_mm.max())
        np.testing.assert_allclose(points * (1 / STEP_MM), np.rint(points * (1 / STEP_MM)))
        closed = pv.PolyData.from_regular_faces(points.astype(float), corners)
        inside = pv.PolyData(voxels).select_interior_points(closed, check_surface=False)
        assert np.asarray(inside["selected_points"]).mean() > 0.6, tissue["name"]


def test_maps_keep_their_own_place(page):
    for found in make_scene(page)["maps"]:
        source, kept = page.maps[found["name"]], without_rim(read_nifti(unpacked(found["volume"])))
        box = source.box_of(kept)
        whole = COLOUR_MAPS[found["name"]].bytes_of(source.array)
        np.testing.assert_array_equal(kept.array, whole[box])
        assert np.count_nonzero(kept.array) == np.count_nonzero(whole)


def test_first_is_shown_a_place_with_tissue(page):
    labels = page.labels
    index = np.linalg.solve(labels.affine, [*make_scene(page)["start"], 1])[:3]
    assert labels.array[tuple(np.rint(index).astype(int))] > 0


def test_thickness_is_coloured_in_the_file(page):
    tissue = make_scene(page)["tissues"][0]
    points, _, colours = read_mz3(unpacked(tissue["thickness"]))
    expected = thickness_colours(points.astype(float), page.thickness[tissue["name"]])
    assert (np.abs(colours[:, :3].astype(int) - expected).max(axis=1) < 60).mean() > 0.95
    assert (colours[:, 3] == 255).all()


# The file


def test_nothing_is_asked_from_anywhere(text):
    seen = Seen(text)
    links = [attrs[name] for _, attrs in seen.elements for name in ("src", "href", "action", "data") if attrs.get(name)]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not [tag for tag, _ in seen.elements if tag in ("iframe", "object", "embed", "base")]
    assert "url(" not in "".join(contents(text, "style"))


def test_the_policy_allows_what_stands_in_the_file_and_nothing_else(text):
    policy = next(attrs["content"] for attrs in Seen(text).named("meta") if "http-equiv" in attrs)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    for rule, tag, count in (("script-src", "script", 2), ("style-src", "style", 2)):
        hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in contents(text, tag)]
        assert len(hashes) == count
        assert rules[rule].split() == [f"'sha256-{one}'" for one in hashes]
    assert not re.search(r"unsafe|https?:|\*", policy)


def test_no_style_and_no_script_stands_in_attributes(text):
    """The policy would not let it do anything."""
    assert not [name for _, attrs in Seen(text).elements for name in attrs if name == "style" or name.startswith("on")]


def test_the_licence_travels_with_the_viewer(text):
    assert "BSD 2-Clause License" in contents(text, "script")[0]


def test_what_comes_from_outside_is_text(page):
    measures = [Measurement(EVIL, EVIL, "volume", 1.0), Measurement(EVIL, WHOLE, "volume", 2.0)]
    dice = {EVIL: {EVIL: 0.5}}
    confusion = {EVIL: OverlapScores(np.eye(2, dtype=int), (EVIL,))}
    maps = {EVIL: page.maps["probability"]}
    evil = replace(
        page, case=EVIL, measures=measures, scores=dice, confusion=confusion, maps=maps,
        flags=[EVIL], notes=[EVIL], made={EVIL: EVIL}, pictures={EVIL: a_png()},
    )  # fmt: skip
    text = render_page(evil)
    seen = Seen(text)
    assert [attrs.get("type") for attrs in seen.named("script")] == ["application/json", None, None]
    assert all(attrs["src"].startswith("data:image/png;base64,") for attrs in seen.named("img"))
    assert "".join(seen.text).count("alert('x')") >= 14
    assert text.count("<script>alert") == 0
    assert scene_in(text)["maps"][0]["name"] == EVIL


def test_the_same_page_gives_the_same_file(page, text, tmp_path):
    write_page(page, tmp_path / "a" / "report.html")
    assert (tmp_path / "a" / "report.html").read_text() == text
    assert [path.name for path in tmp_path.rglob("*.html")] == ["report.html"]


def test_a_page_with_nothing_to_say_says_nothing(page):
    bare = KneePage(case="c", side="", labels=page.labels.with_array(page.labels.array * 0), scheme=page.scheme)
    seen = Seen(render_page(bare))
    words = "".join(seen.text)
    assert "No flag was raised" in words
    assert "Side not known" in words
    assert not seen.tables
    assert not seen.named("img")
    assert read_nifti(unpacked(make_scene(bare)["image"])).array.max() == 0


def test_flags_stand_at_the_top(page):
    words = "".join(Seen(render_page(replace(page, flags=["one", "two"]))).text)
    assert words.index("2 things look wrong") < words.index("one") < words.index("two") < words.index("The knee")


@pytest.mark.parametrize(
    ("flags", "kind", "heading"), [([], "unchecked", "No flag was raised"), (["one"], "bad", "One")]
)
def test_what_was_not_looked_at_stands_with_the_flags(page, flags, kind, heading):
    text = render_page(replace(page, flags=flags, unchecked="volumes"))
    assert f'<section class="flags {kind}"' in text
    words = "".join(Seen(text).text)
    assert words.index(heading) < words.index("Not checked: volumes.") < words.index("The knee")


def test_every_heading_is_there_in_order(text):
    levels = [int(tag[1]) for tag, _ in Seen(text).elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_every_control_has_a_label_and_every_column_a_scope(text):
    seen = Seen(text)
    assert all(attrs.get("scope") in ("col", "row") for attrs in seen.named("th"))
    inputs = len(re.findall(r"<label[^>]*>(?:(?!</label>).)*<input", text))
    assert inputs == len(seen.named("input")) > 15
    ids = [attrs["id"] for _, attrs in seen.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in seen.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attrs.get(name, ids[0]) in ids
    assert len(seen.named("main")) == len(seen.named("header")) == len(seen.named("footer")) == 1


# Tables


def test_measures_stand_in_their_rows_and_columns(page):
    names = page.scheme.names
    measures = [
        Measurement(names[1], "part", "volume", 1234.4),
        Measurement(names[0], WHOLE, "thickness_mean", 2.346),
        Measurement("other", WHOLE, "volume", 5.0),
        Measurement(names[1], WHOLE, "volume", 99999.6),
        Measurement(names[1], WHOLE, "thickness_mean", math.nan),
        Measurement(names[0], WHOLE, "thickness_sd", 0.5),
    ]
    volume, thickness = Seen(render_page(replace(page, measures=measures, scores=None, confusion=None, made={}))).tables
    assert volume == [
        ["Tissue", "Volume (mm³)"],
        [names[1], "100,000"],
        [f"part of {names[1]}", "1,234"],
        ["other", "5"],
    ]
    assert thickness == [["Tissue", "Mean (mm)", "SD (mm)"], [names[0], "2.35", "0.50"], [names[1], "–", "–"]]


def test_every_measure_has_a_heading_a_table_and_digits():
    assert set(HEADINGS) == set(UNITS) == {name for group in GROUPS.values() for name in group}
    assert set(DIGITS) == set(UNIT_SIGNS) == set(UNITS.values())


@pytest.mark.parametrize(("value", "words"), [(1234.5, "1,234.5"), (0, "0.0"), (math.nan, "–"), (-math.inf, "–")])
def test_numbers_that_are_not_known_are_a_dash(value, words):
    assert format_number(value, 1, "–") == words


def test_confusion_has_counts_and_shares_of_the_true_class(page):
    scores = OverlapScores(np.array([[99_999, 1], [0, 0]]), ("cartilage",))
    (rows,) = Seen(render_page(replace(page, measures=(), scores=None, confusion={"fused": scores}, made={}))).tables
    assert rows == [
        ["True class", "background", "cartilage"],
        ["background", "99,999 100.00 %", "1 < 0.01 %"],
        ["cartilage", "0", "0"],
    ]


# What does not fit


def wrong(**changes):
    return changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (wrong(side="left"), "'R', 'L' or ''"),
        (wrong(image=Volume(np.zeros((2, 2, 2), dtype=np.uint8), PLAIN)), "on the labels' grid"),
        (wrong(labels=Volume(np.zeros((2, 2, 2), dtype=np.int16), PLAIN), image=None), "labels are uint8"),
        (wrong(labels=Volume(np.full((2, 2, 2), 9, dtype=np.uint8), PLAIN), image=None), "labels_to_classes"),
        (wrong(meshes={"bone": pv.Sphere()}), "a mesh of 'bone'"),
        (wrong(meshes={"femoral cartilage": pv.Plane()}), "not only triangles"),
        (wrong(thickness={"femoral cartilage": pv.Sphere()}), "thickness_mm"),
        (wrong(maps={"m": Volume(np.zeros((2, 2, 2), dtype=np.uint8), PLAIN)}), "map 'm' has floats"),
        (wrong(pictures={"p": b"GIF89a"}), "not a PNG"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, words, page):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        replace(page, **changes)
    assert "\n" not in str(caught.value)


# A real knee


@pytest.mark.nightly
@pytest.mark.skipif(not REAL_LABELS.exists(), reason="no real label maps under ../shared")
def test_a_full_size_knee_fits(tmp_path):
    raw = to_canonical(read_volume(REAL_LABELS))
    scheme = SCHEMES["iwoai"]
    labels = raw.with_array(labels_to_classes(raw.array, LABEL_NAMES["pymskt"], scheme))
    grey = np.clip(simulate_image(raw, seed=3).array / 700 * 255, 0, 255).astype(np.uint8)
    meshes = {name: mask_surface(labels.with_array(labels.array == n)) for n, name in enumerate(scheme.names, start=1)}
    thickness = {}
    for name, mesh in list(meshes.items())[:4]:
        thickness[name] = mesh.copy()
        thickness[name].point_data["thickness_mm"] = np.linspace(0, 5, mesh.n_points)
    tissue = labels.part(box_around_labels(labels, 4.0))
    maps = {name: tissue.with_array((tissue.array > 0).astype(np.float32)) for name in COLOUR_MAPS}
    file = io.BytesIO()
    imsave(file, np.random.default_rng(0).random((800, 800, 3)), format="png")  # noise: 1.9 MB, as an overview has
    write_page(
        KneePage(case="knee", side="R", image=labels.with_array(grey), labels=labels, scheme=scheme, meshes=meshes,
                 thickness=thickness, maps=maps, pictures={"Overview": file.getvalue()}), tmp_path / "report.html",
    )  # fmt: skip
    assert (tmp_path / "report.html").stat().st_size < MOST_BYTES

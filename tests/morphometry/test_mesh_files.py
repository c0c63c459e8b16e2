"""Surfaces as files: every format keeps what it can hold, says its frame, and depends on nothing but the surfaces."""

import numpy as np
import pytest
import pyvista as pv

from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import SCHEMES
from knee3d.morphometry.mesh import enclosed_volume_mm3, tissue_surface
from knee3d.morphometry.mesh_files import write_surfaces

ENDINGS = (".stl", ".ply", ".vtp")
SCENES = (".ply", ".vtp")
COLOURS = {tissue.name: tissue.colour for tissue in SCHEMES["iwoai"].tissues}
NAMES = list(COLOURS)
AFFINE = np.array([[0, 0, -0.7, 130], [0, -0.4, 0, -75], [-0.5, 0, 0, 40], [0, 0, 0, 1.0]])


def slab(number: int) -> pv.PolyData:
    """A sheet of a few voxels, each tissue's at a place and of a size of its own, with a thickness at each point."""
    mask = np.zeros((10, 12, 9), dtype=bool)
    mask[2:5, 1 + number : 9, 2:7] = True
    affine = AFFINE.copy()
    affine[:3, 3] += 20 * number
    volume = Volume(mask, affine)
    mesh = tissue_surface(volume, mask.sum() * volume.voxel_mm3)
    thickness = np.linspace(number, number + 4, mesh.n_points)
    thickness[3] = np.nan
    mesh.point_data["thickness_mm"] = thickness
    return mesh


def slabs(*numbers: int) -> dict[str, pv.PolyData]:
    return {NAMES[number]: slab(number) for number in numbers}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_tissue_comes_back_where_it_was(tmp_path, ending):
    path = tmp_path / "deep" / f"one{ending}"
    write_surfaces(path, slabs(0), COLOURS)
    found, mesh = pv.read(path), slab(0)
    np.testing.assert_allclose(found.points[found.regular_faces], mesh.points[mesh.regular_faces], atol=1e-5)
    back = pv.PolyData.from_regular_faces(found.points, found.regular_faces).clean()
    assert back.n_open_edges == 0
    assert back.is_manifold
    assert enclosed_volume_mm3(back) == pytest.approx(3 * 8 * 5 * 0.14, rel=0.01)
    assert [path.name for path in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", [".stl", ".ply"])
def test_trimesh_finds_a_watertight_tissue(tmp_path, ending):
    trimesh = pytest.importorskip("trimesh")
    write_surfaces(tmp_path / f"one{ending}", slabs(1), COLOURS)
    back, points = trimesh.load_mesh(tmp_path / f"one{ending}"), slab(1).points
    assert back.is_watertight
    assert back.is_winding_consistent
    assert back.volume == pytest.approx(3 * 7 * 5 * 0.14, rel=0.01)
    np.testing.assert_allclose(back.bounds, [points.min(axis=0), points.max(axis=0)], atol=1e-5)


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_surfaces_make_the_same_bytes(tmp_path, ending):
    for folder in ("a", "b"):
        values = ("thickness_mm",) if ending == ".vtp" else ()
        write_surfaces(tmp_path / folder / f"{folder}{ending}", slabs(0), COLOURS, values)
    assert (tmp_path / "a" / f"a{ending}").read_bytes() == (tmp_path / "b" / f"b{ending}").read_bytes()


def test_stl_says_its_frame_in_80_bytes_and_is_no_text(tmp_path):
    write_surfaces(tmp_path / "one.stl", slabs(1), COLOURS)
    whole = (tmp_path / "one.stl").read_bytes()
    assert not whole.startswith(b"solid")
    assert all(word in whole[:80] for word in (b"SPACE=RAS", b"UNIT=mm", b"medial tibial cartilage"))
    assert len(whole) == 84 + 50 * slab(1).n_cells


def test_stl_normals_point_outward(tmp_path):
    write_surfaces(tmp_path / "one.stl", slabs(0), COLOURS)
    kind = [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")]
    facets = np.frombuffer((tmp_path / "one.stl").read_bytes(), dtype=kind, offset=84)
    outward = facets["corners"].mean(axis=1) - slab(0).points.mean(axis=0)
    assert np.mean(np.sum(outward * facets["normal"], axis=1) > 0) > 0.95
    np.testing.assert_allclose(np.linalg.norm(facets["normal"], axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("ending", SCENES)
def test_a_scene_keeps_tissues_apart_by_number_name_and_colour(tmp_path, ending):
    meshes = slabs(0, 1, 2, 3)
    write_surfaces(tmp_path / f"all{ending}", meshes, COLOURS)
    found = pv.read(tmp_path / f"all{ending}")
    np.testing.assert_allclose(found.points, np.concatenate([mesh.points for mesh in meshes.values()]), atol=1e-5)
    assert found.points.dtype == np.float32
    assert found.n_cells == sum(mesh.n_cells for mesh in meshes.values())
    counts = [mesh.n_points for mesh in meshes.values()]
    np.testing.assert_array_equal(
        found.point_data["RGB"], np.repeat([COLOURS[name] for name in meshes], counts, axis=0)
    )
    tissue = np.repeat([1, 2, 3, 4], counts)
    if ending == ".vtp":
        np.testing.assert_array_equal(found.point_data["tissue"], tissue)
        assert [str(found.field_data[name][0]) for name in ("SPACE", "UNIT")] == ["RAS", "mm"]
        assert [str(name) for name in found.field_data["TISSUES"]] == list(meshes)
        return
    head, _, body = (tmp_path / "all.ply").read_bytes().partition(b"end_header\n")
    lines = head.decode("ascii").splitlines()
    assert {"comment SPACE=RAS", "comment tissue 2: medial tibial cartilage"} <= set(lines)
    assert any(line.startswith("comment UNIT=mm") for line in lines)
    names = [line.split()[-1] for line in lines if line.startswith("property")][:-1]
    kind = [(name, "u1" if name in ("red", "green", "blue", "tissue") else "<f4") for name in names]
    np.testing.assert_array_equal(np.frombuffer(body, dtype=kind, count=len(tissue))["tissue"], tissue)


def test_vtp_carries_values(tmp_path):
    meshes = slabs(0, 1)
    write_surfaces(tmp_path / "all.vtp", meshes, COLOURS, ("thickness_mm",))
    values = np.concatenate([mesh.point_data["thickness_mm"] for mesh in meshes.values()]).astype(np.float32)
    found = pv.read(tmp_path / "all.vtp").point_data["thickness_mm"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values)


def test_nothing_in_a_file_tells_who_wrote_it_or_when(tmp_path, monkeypatch):
    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setenv("HOSTNAME", "somewhere")
    for ending in ENDINGS:
        write_surfaces(tmp_path / f"one{ending}", slabs(0), COLOURS)
        whole = (tmp_path / f"one{ending}").read_bytes()
        assert not any(word in whole for word in (b"somebody", b"somewhere", b"partial", tmp_path.name.encode()))


def test_what_a_format_cannot_hold_is_refused_and_nothing_is_written(tmp_path):
    for name, meshes, values in (
        ("one.obj", slabs(0), ()),
        ("none.ply", {}, ()),
        ("two.stl", slabs(0, 1), ()),
        ("one.ply", slabs(0), ("thickness_mm",)),
    ):
        with pytest.raises(ValueError, match=name):
            write_surfaces(tmp_path / name, meshes, COLOURS, values)
    assert not list(tmp_path.iterdir())

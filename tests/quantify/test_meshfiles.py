import json
import struct

import numpy as np
import pytest
import pyvista as pv

from knee3d.anatomy.tissue import SCHEMES
from knee3d.anatomy.volume import Volume
from knee3d.quantify.mesh import enclosed_mm3, tissue_surface
from knee3d.quantify.meshfiles import TissueMesh, write_meshes

ENDINGS = (".stl", ".ply", ".glb", ".vtp")
SCENES = (".ply", ".glb", ".vtp")
TISSUES = SCHEMES["iwoai"].tissues
AFFINE = np.array([[0, 0, -0.7, 130], [0, -0.4, 0, -75], [-0.5, 0, 0, 40], [0, 0, 0, 1.0]])


def slab(number: int, **more) -> TissueMesh:
    """A sheet of a few voxels, each tissue's at a place and of a size of its own."""
    mask = np.zeros((10, 12, 9), dtype=bool)
    mask[2:5, 1 + number : 9, 2:7] = True
    affine = AFFINE.copy()
    affine[:3, 3] += 20 * number
    volume = Volume(mask, affine)
    mesh = tissue_surface(volume, mask.sum() * volume.voxel_mm3)
    more = {name: make(len(mesh.points)) for name, make in more.items()}
    return TissueMesh(TISSUES[number].name, TISSUES[number].colour, mesh.points, mesh.regular_faces, **more)


def thickness(count: int) -> dict[str, np.ndarray]:
    values = np.linspace(0, 4, count)
    values[3] = np.nan
    return {"thickness_mm": values}


def rainbow(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3)).astype(np.uint8)


def opened(path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Points and triangles of each part of a file, as pyvista reads them."""
    found = pv.read(path)
    if isinstance(found, pv.MultiBlock):
        found = [block for block in found.recursive_iterator("blocks", skip_none=True)]
    else:
        found = [found]
    return [(np.asarray(mesh.points), mesh.regular_faces) for mesh in found]


def glb_parts(path) -> tuple[dict, bytes]:
    whole = path.read_bytes()
    magic, version, length, size, kind = struct.unpack_from("<4sIII4s", whole)
    assert (magic, version, length, kind) == (b"glTF", 2, len(whole), b"JSON")
    rest, kind = struct.unpack_from("<I4s", whole, 20 + size)
    assert kind == b"BIN\0"
    assert 28 + size + rest == len(whole)
    return json.loads(whole[20 : 20 + size]), whole[28 + size :]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_tissue_comes_back_where_it_was(tmp_path, ending):
    mesh = slab(0)
    path = tmp_path / "deep" / f"one{ending}"
    write_meshes(path, [mesh])
    ((points, triangles),) = opened(path)
    np.testing.assert_allclose(points[triangles], mesh.points[mesh.triangles], atol=1e-5)
    back = pv.PolyData.from_regular_faces(points, triangles).clean()
    assert back.n_open_edges == 0
    assert back.is_manifold
    assert enclosed_mm3(back) == pytest.approx(3 * 8 * 5 * 0.14, rel=0.01)
    assert [path.name for path in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", [".stl", ".ply", ".glb"])
def test_trimesh_finds_a_watertight_tissue(tmp_path, ending):
    trimesh = pytest.importorskip("trimesh")
    mesh = slab(1)
    write_meshes(tmp_path / f"one{ending}", [mesh])
    back = trimesh.load_mesh(tmp_path / f"one{ending}")
    assert back.is_watertight
    assert back.is_winding_consistent
    assert back.volume == pytest.approx(3 * 7 * 5 * 0.14, rel=0.01)
    np.testing.assert_allclose(back.bounds, [mesh.points.min(axis=0), mesh.points.max(axis=0)], atol=1e-5)


@pytest.mark.parametrize("ending", SCENES)
def test_a_scene_keeps_tissues_apart(tmp_path, ending):
    meshes = [slab(number) for number in range(4)]
    write_meshes(tmp_path / f"all{ending}", meshes)
    parts = opened(tmp_path / f"all{ending}")
    assert len(parts) == (4 if ending == ".glb" else 1)
    points = np.concatenate([part[0] for part in parts])
    np.testing.assert_allclose(points, np.concatenate([mesh.points for mesh in meshes]), atol=1e-5)
    assert sum(len(part[1]) for part in parts) == sum(len(mesh.triangles) for mesh in meshes)


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_meshes_make_the_same_bytes(tmp_path, ending):
    for folder in ("a", "b"):
        write_meshes(tmp_path / folder / f"{folder}{ending}", [slab(0, values=thickness, colours=rainbow)])
    assert (tmp_path / "a" / f"a{ending}").read_bytes() == (tmp_path / "b" / f"b{ending}").read_bytes()


def test_stl_says_its_frame_in_80_bytes_and_is_no_text(tmp_path):
    write_meshes(tmp_path / "one.stl", [slab(1)])
    whole = (tmp_path / "one.stl").read_bytes()
    assert not whole.startswith(b"solid")
    assert all(word in whole[:80] for word in (b"SPACE=RAS", b"UNIT=mm", b"medial tibial cartilage"))
    assert len(whole) == 84 + 50 * len(slab(1).triangles)
    with pytest.raises(ValueError, match="a file for each of femoral cartilage, medial tibial cartilage"):
        write_meshes(tmp_path / "two.stl", [slab(0), slab(1)])
    assert not (tmp_path / "two.stl").exists()


def test_stl_normals_point_outward(tmp_path):
    write_meshes(tmp_path / "one.stl", [slab(0)])
    kind = [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")]
    facets = np.frombuffer((tmp_path / "one.stl").read_bytes(), dtype=kind, offset=84)
    outward = facets["corners"].mean(axis=1) - slab(0).points.mean(axis=0)
    assert np.mean(np.sum(outward * facets["normal"], axis=1) > 0) > 0.95
    np.testing.assert_allclose(np.linalg.norm(facets["normal"], axis=1), 1, atol=1e-5)


def test_ply_and_vtp_say_their_frame_and_carry_colours_and_values(tmp_path):
    meshes = [slab(0, values=thickness, colours=rainbow), slab(1)]
    colours = np.concatenate([meshes[0].colours, np.tile(np.uint8(TISSUES[1].colour), (len(meshes[1].points), 1))])
    values = np.concatenate([meshes[0].values["thickness_mm"], np.full(len(meshes[1].points), np.nan)])
    tissue = np.repeat([1, 2], [len(mesh.points) for mesh in meshes])
    for ending in (".ply", ".vtp"):
        write_meshes(tmp_path / f"all{ending}", meshes)
    found = pv.read(tmp_path / "all.vtp")
    assert [str(found.field_data[name][0]) for name in ("SPACE", "UNIT")] == ["RAS", "mm"]
    assert [str(name) for name in found.field_data["TISSUES"]] == [mesh.name for mesh in meshes]
    np.testing.assert_array_equal(found.point_data["RGB"], colours)
    np.testing.assert_array_equal(found.point_data["thickness_mm"], values.astype(np.float32))
    np.testing.assert_array_equal(found.point_data["tissue"], tissue)
    np.testing.assert_array_equal(pv.read(tmp_path / "all.ply").point_data["RGB"], colours)

    head, _, body = (tmp_path / "all.ply").read_bytes().partition(b"end_header\n")
    lines = head.decode("ascii").splitlines()
    assert {"comment SPACE=RAS", "comment tissue 2: medial tibial cartilage"} <= set(lines)
    assert any(line.startswith("comment UNIT=mm") for line in lines)
    names = [line.split()[-1] for line in lines if line.startswith("property")][:-1]
    kind = [(name, "u1" if name in ("red", "green", "blue", "tissue") else "<f4") for name in names]
    rows = np.frombuffer(body, dtype=kind, count=len(values))
    np.testing.assert_array_equal(rows["thickness_mm"], values.astype(np.float32))
    np.testing.assert_array_equal(rows["tissue"], tissue)


def test_glb_names_colours_and_places_each_tissue(tmp_path):
    meshes = [slab(0), slab(1, colours=rainbow)]
    write_meshes(tmp_path / "all.glb", meshes)
    told, data = glb_parts(tmp_path / "all.glb")
    assert told["asset"]["extras"]["SPACE"] == "RAS"
    assert told["asset"]["extras"]["UNIT"] == "mm"
    assert [node["name"] for node in told["nodes"]] == [mesh.name for mesh in meshes]
    assert not any({"matrix", "rotation", "scale", "translation"} & set(node) for node in told["nodes"])

    def numbers(index: int, dtype: str) -> np.ndarray:
        accessor = told["accessors"][index]
        view = told["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        columns = 3 if accessor["type"] == "VEC3" else 1
        flat = np.frombuffer(data, dtype, accessor["count"] * columns, view["byteOffset"])
        return flat.reshape(-1, columns)

    for mesh, part in zip(meshes, told["meshes"], strict=True):
        (primitive,) = part["primitives"]
        points = numbers(primitive["attributes"]["POSITION"], "<f4")
        np.testing.assert_array_equal(points, mesh.points)
        np.testing.assert_array_equal(told["accessors"][primitive["attributes"]["POSITION"]]["min"], points.min(axis=0))
        np.testing.assert_array_equal(numbers(primitive["indices"], "<u4").reshape(-1, 3), mesh.triangles)
        normals = numbers(primitive["attributes"]["NORMAL"], "<f4")
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
        assert np.mean(np.sum((points - points.mean(axis=0)) * normals, axis=1) > 0) > 0.95

    # Light of 0 to 1 back to what screens take: the inverse of what glTF asks for.
    def screen(light: np.ndarray) -> np.ndarray:
        return 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * np.power(light, 1 / 2.4) - 0.055)

    plain, painted = (material["pbrMetallicRoughness"]["baseColorFactor"] for material in told["materials"])
    np.testing.assert_allclose(screen(np.array(plain[:3])), TISSUES[0].colour, atol=1e-3)
    assert painted == [1, 1, 1, 1]
    colours = numbers(told["meshes"][1]["primitives"][0]["attributes"]["COLOR_0"], "<f4")
    np.testing.assert_allclose(screen(colours), meshes[1].colours, atol=1e-3)
    assert "COLOR_0" not in told["meshes"][0]["primitives"][0]["attributes"]


def test_trimesh_reads_names_places_and_colours_of_a_scene(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    meshes = [slab(0), slab(1), slab(3, colours=rainbow)]
    write_meshes(tmp_path / "all.glb", meshes)
    scene = trimesh.load_scene(tmp_path / "all.glb")
    assert set(scene.geometry) == {mesh.name for mesh in meshes}
    for mesh in meshes:
        found = scene.geometry[mesh.name]
        assert found.is_watertight
        np.testing.assert_allclose(found.bounds, [mesh.points.min(axis=0), mesh.points.max(axis=0)], atol=1e-5)
    red = scene.geometry[meshes[0].name].visual.material.baseColorFactor
    assert np.asarray(red)[0] > 2 * np.asarray(red)[1]
    colours = scene.geometry[meshes[2].name].visual.vertex_attributes["color"]
    linear = ((meshes[2].colours / 255 + 0.055) / 1.055) ** 2.4
    bright = meshes[2].colours > 20
    np.testing.assert_allclose(np.asarray(colours)[:, :3][bright], linear[bright], atol=1e-3)


def test_nothing_in_a_file_tells_who_wrote_it_or_when(tmp_path, monkeypatch):
    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setenv("HOSTNAME", "somewhere")
    for ending in ENDINGS:
        write_meshes(tmp_path / f"one{ending}", [slab(0)])
        whole = (tmp_path / f"one{ending}").read_bytes()
        assert not any(word in whole for word in (b"somebody", b"somewhere", b"partial", tmp_path.name.encode()))


def test_what_is_no_mesh_is_refused_by_name(tmp_path):
    mesh = slab(0)
    good = {"name": "patella", "colour": (1, 2, 3), "points": mesh.points, "triangles": mesh.triangles}
    for wrong, said in (
        ({"name": "two\nlines"}, "one line"),
        ({"name": ""}, "one line"),
        ({"colour": (1, 2, 256)}, "RGB"),
        ({"points": mesh.points[:, :2]}, "points of 'patella'"),
        ({"points": mesh.points * np.nan}, "points of 'patella'"),
        ({"points": mesh.points[:9]}, "none of its 9 points"),
        ({"triangles": mesh.triangles[:0]}, "m above 0"),
        ({"triangles": mesh.triangles * 1.0}, "integers"),
        ({"values": {"thickness": mesh.points[1:, 0]}}, "thickness of 'patella'"),
        ({"values": {"two words": mesh.points[:, 0]}}, "one word"),
        ({"values": {"red": mesh.points[:, 0]}}, "one word"),
        ({"colours": mesh.points}, "uint8"),
    ):
        with pytest.raises(ValueError, match=said):
            TissueMesh(**{**good, **wrong})
    for path, meshes, said in (
        ("one.obj", [mesh], ".stl, .ply, .glb, .vtp"),
        ("none.glb", [], "1 to 255"),
        ("twice.glb", [mesh, mesh], "different names"),
    ):
        with pytest.raises(ValueError, match=said):
            write_meshes(tmp_path / path, meshes)
    assert not list(tmp_path.iterdir())

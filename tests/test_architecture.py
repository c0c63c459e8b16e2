"""The packages stay as planned: which may import which, where frameworks are imported, how modules are named."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import knee3d
from knee3d import Plane

PACKAGE = Path(__file__).parent.parent / "knee3d"
MODULES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}

# A package may import itself, these packages, and the modules of `SHARED`, which belong to no package.
MAY_USE = {
    "geometry": set(),
    "labels": {"geometry"},
    "io": {"geometry", "labels"},
    "dataset": {"geometry", "labels", "io"},
    "phantom": {"geometry", "labels", "io", "dataset"},
    "networks": set(),
    "losses": set(),
    "metrics": {"losses"},
    "models": {"geometry", "labels", "dataset", "networks", "postprocess"},
    "training": {"geometry", "labels", "dataset", "networks", "losses", "metrics", "models", "postprocess"},
    "inference": {"geometry", "labels", "dataset", "models", "postprocess", "morphometry"},
    "postprocess": {"geometry", "labels"},
    "morphometry": {"geometry", "labels"},
    "report": {"geometry", "labels", "models", "postprocess", "morphometry"},
    "cluster": set(),
}
SHARED = {"atomic", "choices", "lease", "progress", "recorded_settings", "records", "tensorflow_setup", "threads"}
# Frameworks and the only packages that may import them; whatever is not here, any package may use.
KERAS = {"networks", "losses", "metrics", "models", "training", "tensorflow_setup"}
USED_IN = {
    "tensorflow": KERAS,
    "keras": KERAS,
    "tensorboard": {"training"},
    "segmentation_models": {"networks", "tensorflow_setup"},
    "onnxruntime": {"models"},
    "pydicom": {"io"},
    "SimpleITK": {"io", "postprocess"},
    "cv2": {"dataset"},
    "h5py": {"io"},
    "highdicom": {"io"},
    "skimage": {"dataset", "io"},
    "sklearn": {"dataset"},
    "pyvista": {"morphometry", "report"},
    "matplotlib": {"report"},
    "ray": {"cluster"},
    "submitit": {"cluster"},
    "click": {"cli"},
}


NOTEBOOKS = sorted((PACKAGE.parent / "notebooks").glob("*.ipynb"))
NOTEBOOK_MODULES = {"knee3d", "knee3d.api", "knee3d.networks", "knee3d.losses", "knee3d.metrics"}
NOTEBOOK_PACKAGES = ("knee3d.postprocess.",)
"""What notebooks may import: the public API, and the numpy part that whoever scores or fuses predictions may use."""
MOST_NOTEBOOK_IMPORTS = 3


def package(path: Path) -> str:
    """The package that a module lies in; a module of no package stands for itself."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """Dotted names of everything that a module imports, wherever it stands, but for types alone."""
    names = []
    for_types = {
        id(inner)
        for node in ast.walk(MODULES[path])
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(MODULES[path]):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def test_packages_import_only_packages_below_them():
    for path in MODULES:
        if package(path) in MAY_USE:
            used = {name.split(".")[1] for name in imports(path) if name.startswith("knee3d.")}
            forbidden = used - MAY_USE[package(path)] - SHARED - {package(path), "__version__"}
            assert not forbidden, f"{path} imports {forbidden}"


def test_shared_modules_import_no_package():
    for name in SHARED:
        used = [used.split(".")[1] for used in imports(PACKAGE / f"{name}.py") if used.startswith("knee3d.")]
        assert set(used) <= SHARED | ({"models"} if name == "tensorflow_setup" else set())


def test_commands_and_demo_call_the_public_functions_only():
    """Beside them, the command line takes lists of choices, the sets of names to fill in, and the tables to show."""
    modules = [*(PACKAGE / "cli").glob("*.py"), PACKAGE / "demo.py"]
    names = {name for path in modules for name in imports(path) if name.startswith("knee3d.")}
    used = {name.rpartition(".")[0] for name in names if not name.startswith("knee3d.cli.")}
    types = {"knee3d.choices", "knee3d.geometry.orientation", "knee3d.geometry.plane", "knee3d.labels.label_scheme"}
    assert used <= types | {"knee3d", "knee3d.api", "knee3d.demo", "knee3d.report.tables", "knee3d.dataset.split"}


def notebook_nodes(path: Path) -> list[ast.AST]:
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    return [node for cell in cells for node in ast.walk(ast.parse("".join(cell["source"])))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_import_few_modules_and_public_ones_only(path):
    nodes = notebook_nodes(path)
    used = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    used += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    used = [name for name in used if name.split(".")[0] == "knee3d"]
    assert [name for name in used if name not in NOTEBOOK_MODULES and not name.startswith(NOTEBOOK_PACKAGES)] == []
    assert 0 < len(used) <= MOST_NOTEBOOK_IMPORTS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_use_public_names_only(path):
    (public,) = (
        ast.literal_eval(node.value)
        for node in MODULES[PACKAGE / "api" / "__init__.py"].body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    nodes = notebook_nodes(path)
    names = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "knee3d"
    }
    imported = {(node.module, alias.name) for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    parts = {name.removeprefix("knee3d.") for name in NOTEBOOK_MODULES}
    assert names | {name for module, name in imported if module == "knee3d"} <= {*knee3d.__all__, *parts}
    assert {name for module, name in imported if module == "knee3d.api"} <= set(public)


def test_frameworks_are_imported_in_their_packages_only():
    for path in MODULES:
        for name in imports(path):
            homes = USED_IN.get(name.split(".")[0])
            assert homes is None or package(path) in homes, f"{path} imports {name}"


def test_modules_are_named_after_what_they_hold():
    for path in MODULES:
        words = {path.stem, *path.relative_to(PACKAGE).parts}
        assert not {"utils", "util", "helpers", "helper", "common", "misc"} & words, path


def test_planes_are_named_in_one_file():
    """Code takes planes from the enum; help texts may show an example."""
    for path, tree in MODULES.items():
        if path.name != "plane.py":
            check_names_no_plane(path, tree)


def check_names_no_plane(path: Path, tree: ast.Module) -> None:
    words = {plane.value for plane in Plane}
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            assert not words & set(re.findall(r"[a-z]+", node.value.lower())), f"{path}:{node.lineno}"
        if isinstance(node, ast.Name | ast.Attribute | ast.arg):
            name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", "")
            assert not (words & set(name.lower().split("_"))) or name.isupper(), f"{path}:{node.lineno} {name}"


def test_every_module_says_what_it_holds_and_prints_nothing():
    for path, tree in MODULES.items():
        assert ast.get_docstring(tree), f"{path} has no docstring"
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "print"], path


def test_help_comes_without_tensorflow():
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from knee3d.cli import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        "print(*{name.split('.')[0] for name in sys.modules})\n"
    )
    loaded = set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "click" in loaded
    assert loaded.isdisjoint(
        {
            "tensorflow",
            "keras",
            "pydicom",
            "SimpleITK",
            "cv2",
            "sklearn",
            "scipy",
            "matplotlib",
            "vtk",
            "highdicom",
        }
    )

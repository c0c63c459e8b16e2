"""The house stays as drawn: who may import whom, which framework lives where, which words stand where."""

import ast
import re
import subprocess
import sys
from pathlib import Path

from knee3d import Plane

PACKAGE = Path(__file__).parent.parent / "knee3d"
MODULES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}

# A room may import itself, these rooms, and what belongs to no room: knee3d.atomic, lease, progress, records, threads.
MAY_USE = {
    "anatomy": set(),
    "dataset": {"anatomy"},
    "launch": set(),
    "learn": {"anatomy", "dataset", "postprocess"},
    "models": {"anatomy", "dataset", "learn", "postprocess"},
    "postprocess": {"anatomy"},
    "quantify": {"anatomy"},
    "report": {"anatomy", "postprocess", "quantify"},
}
SHARED = {"atomic", "lease", "progress", "records", "threads"}
# Frameworks and the only places that may import them; whatever is not here, any room may use.
LIVES_IN = {
    "tensorflow": {"learn"},
    "keras": {"learn"},
    "tensorboard": {"learn"},
    "segmentation_models": {"learn"},
    "onnxruntime": {"learn"},
    "pydicom": {"dataset"},
    "SimpleITK": {"dataset", "postprocess"},
    "cv2": {"dataset"},
    "h5py": {"dataset"},
    "highdicom": {"dataset"},
    "skimage": {"dataset"},
    "sklearn": {"dataset"},
    "pyvista": {"quantify", "report"},
    "matplotlib": {"report"},
    "ray": {"launch"},
    "submitit": {"launch"},
    "click": {"cli"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def imports(path: Path) -> list[str]:
    """Dotted names of everything that a module imports, wherever it stands."""
    names = []
    for node in ast.walk(MODULES[path]):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def test_rooms_use_only_rooms_below_them():
    for path in MODULES:
        if room(path) in MAY_USE:
            used = {name.split(".")[1] for name in imports(path) if name.startswith("knee3d.")}
            forbidden = used - MAY_USE[room(path)] - SHARED - {room(path), "__version__"}
            assert not forbidden, f"{path} imports {forbidden}"


def test_what_every_room_may_use_uses_no_room():
    for name in SHARED:
        used = [used.split(".")[1] for used in imports(PACKAGE / f"{name}.py") if used.startswith("knee3d.")]
        assert set(used) <= SHARED


def test_commands_leave_the_work_to_workflow():
    """Beside it, the command line takes types to fill in and the table to show."""
    modules = (PACKAGE / "cli").glob("*.py")
    names = {name for path in modules for name in imports(path) if name.startswith("knee3d.")}
    used = {name.rpartition(".")[0] for name in names if not name.startswith("knee3d.cli.")}
    types = {"knee3d.anatomy.directions", "knee3d.anatomy.orientation", "knee3d.anatomy.plane",
             "knee3d.anatomy.schemes", "knee3d.anatomy.tissue", "knee3d.dataset.cases", "knee3d.dataset.labels",
             "knee3d.dataset.phantom.cohort", "knee3d.dataset.prepare", "knee3d.dataset.source",
             "knee3d.dataset.split", "knee3d.learn.config"}  # fmt: skip
    assert used <= types | {"knee3d", "knee3d.demo", "knee3d.report.tables"}


def test_frameworks_live_behind_their_walls():
    for path in MODULES:
        for name in imports(path):
            homes = LIVES_IN.get(name.split(".")[0])
            assert homes is None or room(path) in homes, f"{path} imports {name}"


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


def test_the_plan_of_the_house_names_every_module():
    readme = (PACKAGE / "README.md").read_text()
    rooms = readme.partition("## The rooms")[2].partition("## Who may use whom")[0]
    named = set(re.findall(r"\w+\.py", rooms))
    assert {path.name for path in MODULES if path.name != "__init__.py"} <= named | {"demo.py"}


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

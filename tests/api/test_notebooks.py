"""Notebooks: they run, keep no outputs, define nothing, and use little beside knee3d."""

import ast
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from ipykernel.kernelspec import write_kernel_spec
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
KNOWN = {"IPython", "h5py", "knee3d", "matplotlib", "numpy", "pydicom", "tensorboard", "tensorflow"}
MADE = "made-before"
"""Tag of the cells that make what several notebooks share."""
SLOWEST_S = 900
"""For a cell, on a machine with other work: a hang is an error, slowness is none."""


def cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def nodes(path: Path) -> Iterator[ast.AST]:
    for cell in cells(path):
        yield from ast.walk(ast.parse(cell.source))


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as that of the repository, and the kernel "python3" made to be this very Python."""
    home = tmp_path_factory.mktemp("home")
    write_kernel_spec(home / "data" / "kernels" / "python3")
    working = tmp_path_factory.mktemp("repository")
    (working / "notebooks").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(home / "data"))
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(home / name.lower()))
        patch.delenv("KNEE3D_ENCODER_WEIGHTS", raising=False)
        yield working


@pytest.mark.nightly
@pytest.mark.parametrize("path", NOTEBOOKS[::-1], ids=lambda path: path.stem)
def test_notebooks_run_and_the_last_ones_need_not_the_first(path, working):
    """From the last to the first: what one of them needs it makes, and the others find it there."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=SLOWEST_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(working / "notebooks")}},
    )
    client.execute()
    outputs = list(itertools.chain.from_iterable(cell.outputs for cell in notebook.cells if cell.cell_type == "code"))
    assert any("image/png" in output.get("data", {}) for output in outputs)
    said = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stderr")
    assert not said
    assert [entry.name for entry in (working / "notebooks").iterdir()] == []
    assert [entry.name for entry in working.iterdir() if entry.name != "notebooks"] == ["runs"]


def test_there_is_one_for_each_journey_and_the_page_lists_them():
    assert len(NOTEBOOKS) == 6
    page = (NOTEBOOKS[0].parent / "README.md").read_text()
    assert [path.name for path in NOTEBOOKS if f"({path.name})" not in page] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_keep_no_outputs(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    assert [cell["id"] for cell in cells(path) if cell.outputs or cell.execution_count is not None] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_define_nothing(path):
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    assert [ast.unparse(node) for node in nodes(path) if isinstance(node, definitions)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_import_knee3d_and_what_is_well_known(path):
    names = {alias.name for node in nodes(path) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes(path) if isinstance(node, ast.ImportFrom)}
    used = {name.split(".")[0] for name in names}
    assert "knee3d" in used
    assert used - KNOWN - sys.stdlib_module_names == set()


def test_elsewhere_knee3d_is_asked_for_networks_and_for_nothing_else():
    """After what is said to be the last cell with knee3d, no name of it is used."""
    (path,) = (path for path in NOTEBOOKS if "elsewhere" in path.stem)
    whole = nbformat.read(path, as_version=4).cells
    (border,) = (number for number, cell in enumerate(whole) if cell.source.startswith("## TensorFlow alone"))
    with_knee3d, alone = (
        [ast.parse(cell.source) for cell in part if cell.cell_type == "code"]
        for part in (whole[:border], whole[border:])
    )
    ours = {"knee3d"}
    for node in itertools.chain.from_iterable(map(ast.walk, with_knee3d)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("knee3d"):
            ours |= {alias.name for alias in node.names}
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id != "work":
            ours.add(node.id)
    made = {node.id for tree in alone for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in ours}
    imported = {node.module for tree in alone for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert made == set()
    assert imported == set()


def test_notebooks_that_share_networks_make_them_alike():
    made = {path.stem: "\n".join(cell.source for cell in cells(path) if MADE in cell.metadata.get("tags", ()))
            for path in NOTEBOOKS}  # fmt: skip
    sharing = {stem: source for stem, source in made.items() if source}
    assert [stem[:2] for stem in sharing] == ["02", "03", "04", "05"]
    assert len(set(sharing.values())) == 1

"""Examples in docstrings do what they say; those of Keras parts are run in the slow stage."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "knee3d"
SLOW = ("networks", "losses", "metrics", "models", "training")


def with_examples() -> list[str]:
    """Dotted names of the modules whose docstrings have examples."""
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text()]
    return [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__") for path in paths
    ]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name.split(".")[1:2][0] in SLOW else ()) for name in with_examples()],
)
def test_examples_run(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.failed == 0


def test_public_functions_have_examples():
    """Each function and class that `knee3d` exports, but enums and plain data, shows how it is used."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (home,) = (ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
               and node.targets[0].id == "_HOME")  # fmt: skip
    without = []
    for name, module in home.items():
        body = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text()).body
        (found,) = (node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name)
        if ">>> " not in (ast.get_docstring(found) or "") and name not in ("Plane", "Side", "Segmentation"):
            without.append(name)
    assert not without

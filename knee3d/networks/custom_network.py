"""Networks of users: import them by name, and check them before training."""

import hashlib
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

Body = Callable[[int], keras.Model]
"""Number of classes -> a network of float32 pixels of 0 to 255, (batch, height, width, 3), a slice between its
neighbours, to scores (batch, height, width, classes) without a softmax."""
_NAMES = {"name", "module", "registered_name", "shared_object_id"}
STRIDE = 32
"""Height and width of what a user's network is given are multiples of it."""


@cache
def import_network_function(name: str) -> Any:
    """What a name stands for.

    Args:
        name: "package.module:function", of what can be imported or lies in the working folder, or
            "folder/file.py:function".

    Raises:
        ValueError: There is no such module, file or function, or it cannot be imported.
    """
    where, _, attribute = name.rpartition(":")
    if not where or not attribute:
        raise ValueError(f"{name!r} names no function; write module:function or file.py:function")
    try:
        module = _from_file(Path(where)) if where.endswith(".py") else _from_here(where)
    except Exception as error:  # whatever the user's module raises
        raise ValueError(f"{where}, for the network {name}, cannot be imported: {error!r}") from error
    found = getattr(module, attribute, None)
    if found is None:
        raise ValueError(f"{where} has no {attribute}, for the network {name}")
    return found


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _from_here(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a command, unlike python, does not look there
    return importlib.import_module(name)


def function_name(body: Callable[..., Any]) -> str:
    """What a function is called in records, as `import_network_function` takes it."""
    module, name = getattr(body, "__module__", ""), getattr(body, "__qualname__", type(body).__name__)
    return f"{module}:{name}"


def structure_fingerprint(model: keras.Model) -> str:
    """A fingerprint of layers, their settings and how they are connected, without weights and names."""
    told = json.loads(model.to_json())
    numbers: dict[str, int] = {}

    def unnamed(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: unnamed(value) for key, value in part.items() if key not in _NAMES}
        if isinstance(part, list):
            return [unnamed(value) for value in part]
        if isinstance(part, str) and part in known:
            return numbers.setdefault(part, len(numbers))
        return part

    known = {layer.name for layer in model._flatten_layers()}
    return hashlib.sha256(json.dumps(unnamed(told["config"]), sort_keys=True).encode()).hexdigest()[:16]


def checked_body(body: Body) -> Callable[[int, str], keras.Model]:
    """A user's function as an `Architecture.body`, what it returns looked at.

    Raises:
        ValueError: When called: what the function returns is no network that takes slices of any size and answers with
            scores of as many pixels.
    """

    def build(classes: int, encoder: str) -> keras.Model:
        try:
            model = body(classes)
        except Exception as error:  # whatever the user's function raises
            raise ValueError(f"the network of {function_name(body)} cannot be built: {error!r}") from error
        wrong = _what_is_wrong(model, classes)
        if wrong:
            raise ValueError(
                f"the network of {function_name(body)} {wrong}; it must be a keras.Model of float32 (batch, height, "
                f"width, 3), heights and widths unknown (None), to scores (batch, height, width, {classes}) "
                "without a softmax"
            )
        return model

    return build


def _what_is_wrong(model: Any, classes: int) -> str:
    if not isinstance(model, keras.Model):
        return f"is a {type(model).__name__}"
    if getattr(model, "input_shape", None) != (None, None, None, 3):
        return f"takes {getattr(model, 'input_shape', 'inputs of unknown shape')}"
    if any(isinstance(layer, keras.layers.Lambda) for layer in model._flatten_layers()):
        return "has a Lambda layer, which is not read from a file again; write a layer of your own"
    if not model.trainable_weights:
        return "has nothing to learn"
    size = (1, STRIDE, 2 * STRIDE)
    pixels = np.random.default_rng(0).uniform(0, 255, (*size, 3)).astype(np.float32)
    scores = np.asarray(model(pixels), np.float32)
    if scores.shape != (*size, classes):
        return f"answers {(*size, 3)} with {scores.shape}"
    if scores.min() >= 0 and np.allclose(scores.sum(axis=-1), 1, atol=1e-2):
        return "ends in a softmax"
    return ""

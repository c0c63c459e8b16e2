"""Pack a models folder into few small files, and unpack it: weights become whole numbers of 8 bits.

Each kernel has a scale for each of its last channels, so that the largest weight of a channel is 127. Networks of
several planes with the same weights are packed once. A packed folder has no SavedModel: unpacking writes them.

PACKED/packed.json  fusion.json
PACKED/<plane>/card.json
PACKED/<network>/network.json  weights-1.npz  weights-2.npz ...
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import knee3d.tensorflow_setup  # noqa: F401

import keras
import numpy as np

import knee3d.networks  # noqa: F401 its layers are registered with Keras
from knee3d.atomic import whole_folder
from knee3d.models.fusion_file import fusion_files
from knee3d.models.keras_file import load_keras_file
from knee3d.models.model_card import CARD, keras_file_fingerprint, load_card, saved_model_description
from knee3d.models.model_folder import list_networks
from knee3d.models.packed_record import PACKED, PackedModels
from knee3d.models.saved_model import export_saved_model

log = logging.getLogger(__name__)

NETWORK = "network.json"
FILE_BYTES = 14 << 20
"""The size of a file of weights, at most, before it is compressed; a larger array has a file of its own."""
MOST = 127
"""The largest whole number."""


def pack_models(models: Path, out: Path) -> None:
    """Pack the trained networks of a models folder, their cards and fusion weights.

    Args:
        models: The models folder.
        out: The folder to write; what stood there is replaced when the new one is whole.

    Raises:
        FileNotFoundError: Nothing is trained.
        ValueError: A network or a card cannot be read.
    """
    views = list_networks(models)
    of_content: dict[str, str] = {}
    networks = {view: of_content.setdefault(keras_file_fingerprint(models / view), view) for view in views}
    with whole_folder(out) as partial:
        for view, network in networks.items():
            (partial / view).mkdir()
            load_card(models, view).write(partial / view / CARD)
            if view == network:
                _pack_network(load_keras_file(models / view / "model.keras"), partial / view)
        for path in fusion_files(models):
            shutil.copyfile(path, partial / path.name)
        PackedModels(networks, _digests(partial)).write(partial / PACKED)


def unpack_models(packed: Path, models: Path) -> None:
    """Write the models folder that was packed; its networks have the rounded weights.

    Args:
        packed: The packed folder.
        models: The folder to write; what stood there is replaced when the new one is whole.

    Raises:
        FileNotFoundError: There is no packed folder.
        ValueError: A file is missing, is not the one that was packed, or cannot be read.
    """
    record = PackedModels.from_json((packed / PACKED).read_bytes())
    _check_files(packed, record)
    loaded: dict[str, keras.Model] = {}
    with whole_folder(models) as partial:
        for view, network in record.networks.items():
            log.info("%s: writing the SavedModel", view)
            model = loaded.get(network) or loaded.setdefault(network, _unpack_network(packed / network))
            card = load_card(packed, view)
            (partial / view).mkdir()
            model.save(partial / view / "model.keras")
            differs = export_saved_model(model, partial / view / "saved_model", saved_model_description(card))
            result = card.result and replace(card.result, saved_model_differs_by=differs)
            replace(card, result=result).write(partial / view / CARD)
        for path in fusion_files(packed):
            shutil.copyfile(path, partial / path.name)


def round_weights(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers and the scale of each of the last channels, whose product is nearly the weights.

    Args:
        weights: (..., channels) floats.

    Returns:
        (..., channels) int8 within -127 to 127, and (channels,) float32. A weight is off by half a scale at most.

    Example:
        >>> whole, scale = round_weights(np.array([[1.0, 0.1], [-0.5, 0.05]]))
        >>> whole.tolist()
        [[127, 127], [-64, 64]]
    """
    largest = np.abs(weights).max(axis=tuple(range(weights.ndim - 1)))
    scale = (np.where(largest > 0, largest, 1) / MOST).astype(np.float32)
    return np.rint(weights / scale).astype(np.int8), scale


def _pack_network(model: keras.Model, folder: Path) -> None:
    (folder / NETWORK).write_text(model.to_json())
    arrays: dict[str, np.ndarray] = {}
    for number, weights in enumerate(model.get_weights()):
        if weights.ndim > 1:
            arrays[f"{number:04d}-whole"], arrays[f"{number:04d}-scale"] = round_weights(weights)
        else:
            arrays[f"{number:04d}"] = weights
    for number, part in enumerate(_in_files(arrays), start=1):
        np.savez_compressed(folder / f"weights-{number}.npz", **part)  # type: ignore[arg-type]


def _in_files(arrays: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    part: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if part and sum(one.nbytes for one in part.values()) + array.nbytes > FILE_BYTES:
            yield part
            part = {}
        part[name] = array
    yield part


def _unpack_network(folder: Path) -> keras.Model:
    arrays: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("weights-*.npz")):
        with np.load(path, allow_pickle=False) as content:
            arrays |= {name: content[name] for name in content.files}
    numbers = sorted({name[:4] for name in arrays})
    weights = [
        arrays[number] if number in arrays else arrays[f"{number}-whole"] * arrays[f"{number}-scale"]
        for number in numbers
    ]
    try:
        model = keras.models.model_from_json((folder / NETWORK).read_text())
        model.set_weights(weights)
    except (OSError, ValueError, TypeError, KeyError) as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"the network in {folder} cannot be read ({first_line}); get the folder again") from error
    return model


def _digests(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _check_files(packed: Path, record: PackedModels) -> None:
    there = _digests(packed)
    wrong = [name for name, digest in record.digests.items() if there.get(name) != digest]
    if wrong:
        raise ValueError(f"{packed / wrong[0]} is missing, or is not the file that was packed; get the folder again")
    _check_views(packed, list(record.networks))


def _check_views(packed: Path, views: Sequence[str]) -> None:
    for view in views:
        if view in (".", "..") or not (packed / view / CARD).is_file() or Path(view).name != view:
            raise ValueError(f"{packed / PACKED} names a view {view!r} that is not in the folder; get the folder again")

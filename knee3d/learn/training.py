"""TrainConfig, and train_plane: build, compile, fit, export."""

import hashlib
import json
import logging
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from knee3d import __version__
from knee3d.anatomy.plane import Plane
from knee3d.dataset.cases import Case, Dataset, Split
from knee3d.dataset.png import read_slices
from knee3d.learn.augment import augment_batch
from knee3d.learn.callbacks import SCHEDULES, Report, standard_callbacks
from knee3d.learn.losses import PooledDice, SoftDice
from knee3d.learn.networks import NETWORKS
from knee3d.learn.networks.encoder import find_encoder_weights
from knee3d.learn.pipeline import Slices, batches, slices_of
from knee3d.learn.savedmodel import export, load_card, model_folder

log = logging.getLogger(__name__)

STATISTICS_SLICES = 100


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are the paper's (Luan et al. 2025).

    Attributes:
        network: Key of `networks.NETWORKS`.
        encoder_weights: "imagenet", "none" or a path, see `find_encoder_weights`.
        context: Neighbouring slices on each side, as channels.
        epochs: Times over the training slices.
        batch_size: Slices in a step, over all devices together.
        learning_rate: Adam's in the first epoch.
        schedule: Key of `callbacks.SCHEDULES`: what the learning rate does in later epochs.
        augment: Whether training pairs are turned, scaled, shifted and changed in contrast at random.
        seed: Of weights, order and augmentation.
        limit_slices: Use so many training (and validation) slices only; None is all.

    Raises:
        ValueError: A value makes no sense.
    """

    network: str = "unet"
    encoder_weights: str = "imagenet"
    context: int = 1
    epochs: int = 100
    batch_size: int = 2
    learning_rate: float = 1e-4
    schedule: str = "plateau"
    augment: bool = False
    seed: int = 0
    limit_slices: int | None = None

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise ValueError(f"unknown network {self.network!r}; there are: {', '.join(NETWORKS)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.schedule!r}; there are: {', '.join(SCHEDULES)}")
        if min(self.epochs, self.batch_size, self.limit_slices or 1) < 1 or self.context < 0 or self.learning_rate <= 0:
            raise ValueError(f"epochs, batch size, slices and learning rate must be above 0, context 0 or more: {self}")


def train_plane(dataset: Dataset, plane: Plane, models: Path, config: TrainConfig, overwrite: bool = False) -> Path:
    """Train one plane's network and export it.

    Args:
        dataset: Prepared, with train and val cases.
        plane: Direction of slicing.
        models: Folder of all planes; this one goes to its own folder in it.
        config: How.
        overwrite: Replace a model that was trained otherwise.

    Returns:
        The model's folder: `saved_model/`, `card.json`, `metrics.csv`, `logs/`, `best.weights.h5`. While it is being
        trained it is called `<plane>.training`, so that an interruption costs no finished model. A plane whose card
        says the same settings and data is left alone.

    Raises:
        ValueError: There is a model trained otherwise, a split is empty, or the loss became NaN.
        EncoderWeightsError: See `find_encoder_weights`.
    """
    folder = model_folder(models, plane)
    card = _card(dataset, plane, config)
    if _is_done(models, plane, card, overwrite):
        return folder
    weights = find_encoder_weights(config.encoder_weights)
    run = folder.with_name(f"{folder.name}.training")
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    keras.utils.set_random_seed(config.seed)
    train, val = (
        slices_of(dataset, dataset.of_split(split), plane, config.limit_slices) for split in (Split.TRAIN, Split.VAL)
    )
    log.info("%s: %d training and %d validation slices", plane.value, train.count, val.count)
    with strategy().scope():
        model = build(dataset.scheme.classes, config, weights)
    schedule = SCHEDULES[config.schedule](config.learning_rate, config.epochs)
    history = _fit(model, (train, val), config, standard_callbacks(run, plane.value, schedule))
    best = int(np.argmax(history["val_dice"]))
    model.load_weights(run / "best.weights.h5")
    export(model, run / "saved_model")
    scores = {key: float(values[best]) for key, values in history.items()}
    card |= {"slices": {"train": train.count, "val": val.count}, "scores": {"best_epoch": best + 1, **scores}}
    (run / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    run.rename(folder)
    return folder


def strategy() -> tf.distribute.Strategy:
    """MirroredStrategy over all visible devices; with one device TensorFlow's own, which does the same without copies.

    On a CPU the mirror of one makes training 13 % and validation three times slower.
    """
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else tf.distribute.get_strategy()


def build(classes: int, config: TrainConfig, encoder_weights: str | None) -> keras.Model:
    """A compiled network, its encoder holding `encoder_weights`.

    Raises:
        ValueError: The weights are not those of the encoder.
    """
    try:
        model = NETWORKS[config.network](classes, config.context, encoder_weights)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"encoder weights {encoder_weights} do not fit the {config.network}: {error}") from error
    _match_running_statistics(model, config.batch_size)
    adam = keras.optimizers.Adam(config.learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-8)
    model.compile(optimizer=adam, loss=SoftDice(), metrics=[PooledDice(classes)])
    return model


def _match_running_statistics(model: keras.Model, batch_size: int) -> None:
    """Let batch normalisation average over about STATISTICS_SLICES slices, whatever the batch size.

    With Keras' momentum of 0.99 it averages over 100 batches. In a short training with larger batches it then lags
    behind the weights, and validation scores tell of a network that never was.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 1 - 1 / max(2.0, STATISTICS_SLICES / batch_size)


def _fit(
    model: keras.Model, slices: tuple[Slices, Slices], config: TrainConfig, callbacks: list[keras.callbacks.Callback]
) -> dict[str, list[float]]:
    train = batches(slices[0], config.context, config.batch_size, shuffle_seed=config.seed)
    if config.augment:
        train = augment_batch(train, config.seed)
    val = batches(slices[1], config.context, config.batch_size)
    try:
        fitted = model.fit(
            train, validation_data=val, epochs=config.epochs, callbacks=callbacks, shuffle=False, verbose=0
        )
    except tf.errors.ResourceExhaustedError as error:
        raise ValueError(f"out of memory with --batch-size {config.batch_size}; try half of it") from error
    except tf.errors.OpError as error:
        for one in slices:
            _check_slices(one)
        raise ValueError(f"training stopped: {error.message}") from error
    finally:  # Keras does not end the training of callbacks when it breaks off
        for callback in callbacks:
            if isinstance(callback, keras.callbacks.CSVLogger | Report):
                callback.on_train_end()
    if not np.isfinite(fitted.history["loss"]).all():
        raise ValueError(f"the loss became NaN in epoch {len(fitted.epoch)}; try a lower --learning-rate")
    return fitted.history


def _check_slices(slices: Slices) -> None:
    """Name the PNG, if any, that stopped TensorFlow: its own account may lack the name.

    Raises:
        FileNotFoundError: It is missing.
        ValueError: It is no readable PNG.
    """
    for paths in (*slices.images, *slices.masks):
        read_slices([Path(path) for path in paths])


def _is_done(models: Path, plane: Plane, card: dict[str, Any], overwrite: bool) -> bool:
    """Whether the plane was trained so before.

    Raises:
        ValueError: It was trained otherwise and must not be overwritten.
    """
    folder = model_folder(models, plane)
    if overwrite or not (folder / "card.json").exists():
        return False
    there = load_card(models, plane)
    differ = [key for key in ("scheme", "settings", "data") if there.get(key) != card[key]]
    if differ:
        raise ValueError(
            f"{folder} holds a model with other {' and '.join(differ)}; choose another --models or give --overwrite"
        )
    log.info("%s: already trained with these settings on these cases, in %s", plane.value, folder)
    return True


def _card(dataset: Dataset, plane: Plane, config: TrainConfig) -> dict[str, Any]:
    """The model card, without what only training can tell."""
    used: dict[Split, tuple[Case, ...]] = {split: dataset.of_split(split) for split in (Split.TRAIN, Split.VAL)}
    prints = sorted((case.name, split, case.fingerprint) for split, cases in used.items() for case in cases)
    return {
        "knee3d": __version__,
        "plane": plane.value,
        "scheme": dataset.scheme.name,
        "classes": ["background", *dataset.scheme.names],
        "input": "uint8 (n, height, width, 2 * context + 1): a slice between its neighbours, as a right knee's",
        "output": "float32 (n, height, width, classes), softmax",
        "settings": asdict(config) | {"encoder_weights": Path(config.encoder_weights).name},
        "cases": {split.value: [case.name for case in cases] for split, cases in used.items()},
        "patients": {split.value: sorted({case.patient for case in cases}) for split, cases in used.items()},
        "data": hashlib.sha256(json.dumps(prints).encode()).hexdigest(),
        "spacing_mm": np.median([_spacing(case) for case in used[Split.TRAIN]], axis=0).round(4).tolist(),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
    }


def _spacing(case: Case) -> np.ndarray:
    return np.linalg.norm(case.affine[:3, :3], axis=0)

"""TrainConfig: how to train. Going: what to do about what is there already."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np

from knee3d.geometry.directions import SPREADS
from knee3d.losses import LOSSES
from knee3d.networks import Architecture, NetworkChoice, find_architecture, network_name
from knee3d.networks.augmentation import STRENGTHS
from knee3d.networks.encoder import NO_ENCODER
from knee3d.training.schedule import SCHEDULES

PATCH = (96, 96, 64)
OPTIMIZERS = ("adam", "adamw", "sgd")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are the paper's (Luan et al. 2025).

    Attributes:
        network: Which, see `networks.NetworkChoice`: a name, or a function of your own.
        encoder: One of those that the network takes, see `Architecture`; None is its first.
        encoder_weights: "imagenet", "none" or a path, see `find_encoder_weights`.
        init: Folder of a network that was trained before, or a models folder with one for each view. Layers that fit
            start with its weights, see `pretrained.load_matching_layers`; None starts with the encoder's weights.
        context: Neighbouring slices on each side, as channels.
        directions: How many directions of oblique slices one network learns,
        spread: and how they lie: key of `geometry.directions.SPREADS`.
        spacing_mm: Of oblique slices; None is the finest of the training knees, their median.
        patch: Shape of the patches of a volume, Inferior x Posterior x Left; None is `PATCH`, or what the training
            knees have if they are smaller.
        epochs: Times over the training slices.
        batch_size: Slices in a step, over all devices together.
        optimizer: One of `OPTIMIZERS`: Adam (Kingma and Ba 2015), AdamW (Loshchilov and Hutter 2019), or SGD with
            Nesterov's momentum of 0.99, as nnU-Net has it. Or an optimizer of Keras, with a learning rate that is a
            number: it is copied for each network, and its learning rate counts.
        weight_decay: Share of the weights that is taken off at each step, times the learning rate; None is the
            optimizer's own: none, but 0.004 for AdamW.
        ema: Validate and export the running average of the weights, of which a step keeps this share (Polyak and
            Juditsky 1992), such as 0.999; None takes the weights as they are. Batch normalisation's means and
            variances are running averages anyway, of the weights as they are.
        learning_rate: After warm-up.
        schedule: One of `schedule.SCHEDULES`: what the learning rate does in later epochs.
        warmup_epochs: Epochs in which the learning rate rises.
        plateau_factor: ReduceLROnPlateau: what the rate is multiplied with,
        plateau_patience: after so many epochs without a lower validation loss, see `schedule.MONITORED`,
        plateau_min_delta: lower by at least this,
        plateau_cooldown: then not again for so many epochs,
        plateau_min_lr: and never below this.
        stop_patience: End after so many epochs without a better validation Dice; None never does.
        clip_norm: Largest norm of the gradient; None leaves it alone.
        freeze_encoder_epochs: Epochs in which the encoder keeps its first weights, and its batch normalisation too. The
            optimizer starts anew after them.
        loss: Key of `losses.LOSSES`.
        loss_background: Whether the loss counts background as a class.
        augment: Key of `augmentation.STRENGTHS`.
        foreground_fraction: Share of visits to slices with tissue, see `input_pipeline.SamplingOrder`; None visits each
            slice once.
        precision: One of `PRECISIONS`.
        xla: Compile the training step with XLA.
        seed: Of weights, order and augmentation.
        limit_slices: Use so many training (and validation) slices only; None is all.

    Raises:
        ValueError: A value makes no sense.
    """

    network: NetworkChoice = "unet"
    encoder: str | None = None
    encoder_weights: str = "imagenet"
    init: str | None = None
    context: int = 1
    directions: int = 6
    spread: str = "sphere"
    spacing_mm: float | None = None
    patch: tuple[int, int, int] | None = None
    epochs: int = 100
    batch_size: int = 2
    optimizer: str | keras.optimizers.Optimizer = "adam"
    weight_decay: float | None = None
    ema: float | None = None
    learning_rate: float = 1e-4
    schedule: str = "plateau"
    warmup_epochs: int = 0
    plateau_factor: float = 0.1
    plateau_patience: int = 10
    plateau_min_delta: float = 1e-4
    plateau_cooldown: int = 0
    plateau_min_lr: float = 0.0
    stop_patience: int | None = None
    clip_norm: float | None = None
    freeze_encoder_epochs: int = 0
    loss: str = "dice"
    loss_background: bool = True
    augment: str = "medium"
    foreground_fraction: float | None = None
    precision: str = "float32"
    xla: bool = False
    seed: int = 0
    limit_slices: int | None = None

    def __post_init__(self) -> None:
        own = _own_rate(self)
        if own is not None:
            object.__setattr__(self, "learning_rate", own)
        tables = {"schedule": SCHEDULES, "loss": LOSSES, "augment": STRENGTHS, "precision": PRECISIONS,
                  "spread": SPREADS, **({} if own is not None else {"optimizer": OPTIMIZERS})}  # fmt: skip
        for name, table in tables.items():
            if getattr(self, name) not in table:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; there are: {', '.join(table)}")
        encoders = self.architecture.encoders
        if self.encoder is None:
            object.__setattr__(self, "encoder", encoders[0])
        if self.encoder == NO_ENCODER:
            object.__setattr__(self, "encoder_weights", "none")
        if self.encoder == NO_ENCODER and self.freeze_encoder_epochs:
            raise ValueError(f"freeze_encoder_epochs: {network_name(self.network)} has no encoder")
        if self.encoder not in encoders:
            raise ValueError(
                f"{network_name(self.network)} takes no encoder {self.encoder!r}, only: {', '.join(encoders)}"
            )
        self._check_numbers()

    def _check_numbers(self) -> None:
        above_0 = ("epochs", "directions", "spacing_mm", "batch_size", "learning_rate", "limit_slices", "clip_norm",
                   "stop_patience")  # fmt: skip
        at_least_0 = ("context", "warmup_epochs", "freeze_encoder_epochs", "plateau_patience", "plateau_min_delta",
                      "plateau_cooldown", "plateau_min_lr", "seed", "weight_decay")  # fmt: skip
        for name in (*above_0, *at_least_0):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf or (name in at_least_0 and value == 0)):
                raise ValueError(f"{name} must be {'above 0' if name in above_0 else '0 or more'}, got {value}")
        if self.patch is not None and (len(self.patch) != 3 or min(self.patch) < 1):
            raise ValueError(f"a patch has three sides of 1 or more voxels, got {self.patch}")
        for name in ("plateau_factor", "foreground_fraction", "ema"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {value}")

    @property
    def plateau(self) -> dict[str, float]:
        """Options of ReduceLROnPlateau."""
        name = "plateau_"
        return {field.name.removeprefix(name): getattr(self, field.name) for field in fields(self)
                if field.name.startswith(name)}  # fmt: skip

    @property
    def architecture(self) -> Architecture:
        """That of `network`."""
        return find_architecture(self.network)

    @property
    def settings(self) -> dict[str, Any]:
        """All of it for a model card, but for `init`, of which the card says more. Paths by their names only."""
        own = self.optimizer if isinstance(self.optimizer, keras.optimizers.Optimizer) else None
        said = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "init"}
        return said | {
            "network": network_name(self.network),
            "optimizer": self.optimizer if own is None else own.get_config() | {"name": type(own).__name__},
            "encoder_weights": Path(self.encoder_weights).name,
            "patch": self.patch and list(self.patch),
        }


def _own_rate(config: TrainConfig) -> float | None:
    """The learning rate of an optimizer of the user's own; None where knee3d makes it."""
    if not isinstance(config.optimizer, keras.optimizers.Optimizer):
        return None
    if config.weight_decay is not None:
        raise ValueError("weight_decay is for knee3d's optimizers; give it to the optimizer of your own")
    rate = config.optimizer.get_config().get("learning_rate")
    if not isinstance(rate, int | float):
        raise ValueError(
            "the learning rate of an optimizer of your own must be a number, as the schedule sets it epoch by epoch; "
            "schedule and warmup_epochs say how"
        )
    return float(str(np.float32(rate)))  # Keras keeps float32: 0.001 and not 0.0010000000474974513


@dataclass(frozen=True, eq=False)
class TrainingExtras:
    """What a training is given beside its settings. It changes no weights but by callbacks.

    Attributes:
        callbacks: Keras callbacks of the user. Their model is a `trainer.Trainer`, and they hear of an epoch before it
            is written down. Those of the kinds in `callbacks.REMEMBERED` are shown the epochs that were, where a
            training goes on; others begin anew.
        draw_confusion: Draws the confusion matrix for TensorBoard; None leaves the page out.
        licence: Under which the network may be used; it stands in the card and in the SavedModel.
    """

    callbacks: tuple[Any, ...] = ()
    draw_confusion: Any = None
    licence: str = ""

    def __post_init__(self) -> None:
        for one in self.callbacks:
            if not isinstance(one, keras.callbacks.Callback):
                raise ValueError(f"callbacks are of keras.callbacks.Callback, not {one!r}")


@dataclass(frozen=True)
class ResumeOptions:
    """What to do about what is there already, and where voxels are kept meanwhile.

    Attributes:
        overwrite: Replace a model, or a training that was interrupted; with `resume` only those with other settings.
        resume: Go on with a training that was interrupted.
        cache: See `sample_index.volume_reader`.
    """

    overwrite: bool = False
    resume: bool = False
    cache: str | None = None

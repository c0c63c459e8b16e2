"""TrainConfig: all settings of a training, in five parts. RunOptions: what to do about what is there already.

No framework is imported here, so that the command line and `import knee3d` stay quick.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from knee3d.choices import (
    AUGMENTATIONS,
    DIRECTION_SETS,
    LOSSES,
    MOST_OBLIQUE_VIEWS,
    NETWORK_ENCODERS,
    NO_ENCODER,
    OPTIMIZERS,
    SCHEDULES,
    TRAINING_PRECISIONS,
    VOLUME_NETWORK,
    check_choice,
    spacing_text,
)
from knee3d.geometry.view_names import OBLIQUE, SOLID
from knee3d.records import Settings

HEADER = "Settings of a knee3d training. knee3d-train DATASET --config FILE takes them; options win."
PATCH = (96, 96, 64)
"""Voxels of a patch along inferior, posterior and left, where nothing else is said."""


@dataclass(frozen=True)
class NetworkConfig:
    """Which network is trained, and which weights it begins with.

    Attributes:
        network: Name of an architecture, such as "unet"; "module:function" or "file.py:function"; or in Python a
            function of the number of classes, or an `Architecture`.
        encoder: Name of an encoder that the architecture takes, such as "vgg16". None takes its first.
        encoder_weights: "imagenet", "none", or the path of a weight file.
        init: Folder of a network that was trained before, or a models folder with one for each view: layers that fit
            begin with its weights. None begins with the weights of the encoder.
        context: Neighbours on each side of a slice, which become channels.
    """

    network: Any = "unet"
    encoder: str | None = None
    encoder_weights: str = "imagenet"
    init: str | None = None
    context: int = 1


@dataclass(frozen=True)
class OptimizerConfig:
    """How a step of training changes the weights.

    Attributes:
        optimizer: "adam" (Kingma and Ba 2015), "adamw" (Loshchilov and Hutter 2019) or "sgd" (with Nesterov's momentum
            of 0.99); or in Python a Keras optimizer, whose learning rate is a number and is then taken.
        learning_rate: Learning rate after the warm-up.
        weight_decay: Share of the weights that a step takes off, times the learning rate. None is the optimizer's own:
            none, but 0.004 for AdamW.
        ema: Validate and export the running average of the weights, of which a step keeps this share, such as 0.999
            (Polyak and Juditsky 1992). None takes the weights as they are.
        clip_norm: Largest norm of the gradient. None leaves the gradient as it is.
        loss: "dice", "dice-ce", "generalised-dice", "tversky" or "focal-tversky".
        loss_background: Whether the loss counts background as a class.
        precision: Precision of the arithmetic: "float32", "mixed_bfloat16" or "mixed_float16". Weights are float32.
        xla: Whether to compile the step with XLA.
    """

    optimizer: Any = "adam"
    learning_rate: float = 1e-4
    weight_decay: float | None = None
    ema: float | None = None
    clip_norm: float | None = None
    loss: str = "dice"
    loss_background: bool = True
    precision: str = "float32"
    xla: bool = False


@dataclass(frozen=True)
class SamplingConfig:
    """What the network is shown.

    Attributes:
        batch_size: Slices (or patches) in a step, over all devices together.
        foreground_fraction: Share of the samples of a training epoch that show tissue. None shows each slice once.
        limit_slices: Number of slices (or patches) that are used, for a quick try. None uses all.
        directions: Number of directions of oblique slices that one network learns.
        spread: Set of these directions: "sphere" or "radial".
        spacing: The voxels of the model. "native": the network sees images as they were scanned. "auto": images are
            resampled to the median voxel size of training and validation knees. One number: the size of pixels and the
            step between slices in mm; two, such as (0.55, 1.4) or "0.55,1.4": size and step; three: along Inferior,
            Posterior and Left. None is "native" where the voxels of these knees differ by 5 % at most, and "auto"
            otherwise. Of oblique slices one number; None is the finest size of the knees, their median.
        patch: Voxels of a patch of the volume along inferior, posterior and left. None is (96, 96, 64), or what the
            training knees have if they are smaller.
    """

    batch_size: int = 2
    foreground_fraction: float | None = None
    limit_slices: int | None = None
    directions: int = 6
    spread: str = "sphere"
    spacing: str | float | tuple[float, ...] | None = None
    patch: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "spacing", spacing_text(self.spacing))


@dataclass(frozen=True)
class AugmentationConfig:
    """How training samples are changed at random.

    Attributes:
        augment: "none", "light", "medium" or "strong".
    """

    augment: str = "medium"


@dataclass(frozen=True)
class ScheduleConfig:
    """How long is trained, and how the learning rate changes.

    Attributes:
        epochs: Number of times that the training slices are shown.
        schedule: "plateau": ReduceLROnPlateau. "cosine": along half a cosine. "polynomial": rate times (1 -
            epoch/epochs)^0.9. "constant".
        warmup_epochs: Number of first epochs in which the learning rate rises.
        plateau_factor: ReduceLROnPlateau: factor of the learning rate.
        plateau_patience: ReduceLROnPlateau: epochs without a lower validation loss before that.
        plateau_min_delta: ReduceLROnPlateau: a loss is lower if it is lower by at least this.
        plateau_cooldown: ReduceLROnPlateau: epochs of rest after that.
        plateau_min_lr: ReduceLROnPlateau: lowest learning rate.
        stop_patience: Epochs without a better validation Dice after which training ends. None never ends early.
        freeze_encoder_epochs: Number of first epochs in which the encoder keeps its first weights.
    """

    epochs: int = 100
    schedule: str = "plateau"
    warmup_epochs: int = 0
    plateau_factor: float = 0.1
    plateau_patience: int = 10
    plateau_min_delta: float = 1e-4
    plateau_cooldown: int = 0
    plateau_min_lr: float = 0.0
    stop_patience: int | None = None
    freeze_encoder_epochs: int = 0

    @property
    def plateau(self) -> dict[str, float]:
        """Arguments of Keras' ReduceLROnPlateau."""
        name = "plateau_"
        return {one.name.removeprefix(name): getattr(self, one.name) for one in fields(self)
                if one.name.startswith(name)}  # fmt: skip


PARTS: Mapping[str, type] = {
    "network": NetworkConfig,
    "optimizer": OptimizerConfig,
    "sampling": SamplingConfig,
    "augmentation": AugmentationConfig,
    "schedule": ScheduleConfig,
}
"""Name of each part of a `TrainConfig`, and its class. Names of settings are unique over all parts."""
_PART_OF = {one.name: part for part, kind in PARTS.items() for one in fields(kind)}


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a training. The defaults are those of the paper (Luan et al. 2025).

    Attributes:
        network: Which network, and its first weights.
        optimizer: How a step changes the weights: optimizer, loss, precision.
        sampling: What the network is shown: batches, patches, oblique directions.
        augmentation: How samples are changed at random.
        schedule: Epochs and learning rate.
        seed: Seed of weights, order and augmentation.

    Raises:
        ValueError: A setting has a value that it cannot have. The message names both.

    Example:
        >>> config = TrainConfig(schedule=ScheduleConfig(epochs=50), seed=1)
        >>> config.with_options(batch_size=4, loss="dice-ce").sampling.batch_size
        4
    """

    network: NetworkConfig = NetworkConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    sampling: SamplingConfig = SamplingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    seed: int = 0

    def __post_init__(self) -> None:
        for part in (*(getattr(self, name) for name in PARTS), self):
            _check_types(part)
        if self.sampling.patch is not None:
            patch: Any = tuple(self.sampling.patch)
            object.__setattr__(self, "sampling", replace(self.sampling, patch=patch))
        own = _own_rate(self.optimizer)
        if own is not None:
            object.__setattr__(self, "optimizer", replace(self.optimizer, learning_rate=own))
        else:
            check_choice("optimizer", self.optimizer.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule.schedule, SCHEDULES)
        check_choice("loss", self.optimizer.loss, LOSSES)
        check_choice("augment", self.augmentation.augment, AUGMENTATIONS)
        check_choice("precision", self.optimizer.precision, TRAINING_PRECISIONS)
        check_choice("spread", self.sampling.spread, DIRECTION_SETS)
        object.__setattr__(self, "network", _with_encoder(self.network, self.schedule.freeze_encoder_epochs))
        _check_numbers(self.options)

    def with_options(self, **options: Any) -> TrainConfig:
        """The same settings, some of them changed.

        Args:
            options: Names of settings of any part, and "seed", to values, such as `epochs=50`.

        Raises:
            ValueError: There is no setting of that name, or it cannot have the value.
        """
        parts: dict[str, dict[str, Any]] = {}
        top: dict[str, Any] = {}
        for name, value in options.items():
            if name == "seed":
                top["seed"] = value
            elif name in _PART_OF:
                parts.setdefault(_PART_OF[name], {})[name] = value
            else:
                check_choice("setting", name, [*_PART_OF, "seed"])
        if "network" in parts.get("network", {}) and "encoder" not in parts["network"]:
            parts["network"]["encoder"] = None  # that of the network before need not be one of this
        changed = {part: replace(getattr(self, part), **values) for part, values in parts.items()}
        return replace(self, **changed, **top)

    @property
    def options(self) -> dict[str, Any]:
        """All settings by name, on one level, as the command line has them."""
        told = {name: getattr(getattr(self, part), name) for name, part in _PART_OF.items()}
        return {**told, "seed": self.seed}

    @property
    def settings(self) -> Settings:
        """All settings but `init`, ready for a model card, which says more of that. Paths are given by name only."""
        own = None if isinstance(self.optimizer.optimizer, str) else self.optimizer.optimizer
        told = {name: value for name, value in self.options.items() if name != "init"}
        return told | {
            "network": network_name(self.network.network),
            "optimizer": self.optimizer.optimizer if own is None else own.get_config() | {"name": type(own).__name__},
            "encoder_weights": Path(self.network.encoder_weights).name,
            "patch": self.sampling.patch and list(self.sampling.patch),
        }

    @classmethod
    def from_toml(cls, path: Path | str) -> TrainConfig:
        """Read settings that `to_toml` or a training wrote, or that were written by hand.

        Args:
            path: A TOML file with a table for each part, such as [schedule], and `seed`. What is left out is default.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It cannot be read, or has a part, a setting or a value that is not known.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} does not exist; a training writes its settings as train.toml")
        try:
            content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
            for part, values in content.items():
                check_choice("part", part, [*PARTS, "seed"])
                for name in values if part in PARTS else ():
                    check_choice(f"setting in [{part}]", name, [one.name for one in fields(PARTS[part])])
            parts = {part: kind(**content[part]) for part, kind in PARTS.items() if part in content}
            return cls(**parts, **{"seed": content["seed"]} if "seed" in content else {})
        except (ValueError, TypeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"{path} is not a file of training settings: {error}") from error

    def to_toml(self) -> str:
        """The settings as TOML: a table for each part. A setting that is None is a comment.

        Folders of paths are left out, because they may name a person. A file that is not found, or a network or an
        optimizer that was an object of Python, is therefore an error when the settings are read, and never a default.

        Example:
            >>> print(TrainConfig().to_toml().splitlines()[0])
            # Settings of a knee3d training. knee3d-train DATASET --config FILE takes them; options win.
        """
        import tomlkit

        init = self.network.init
        values = {**self.options, **self.settings, "init": init and Path(init).name}
        if not isinstance(self.optimizer.optimizer, str):
            values["optimizer"] = type(self.optimizer.optimizer).__name__
        document = tomlkit.document()
        document.add(tomlkit.comment(HEADER))
        document.add("seed", tomlkit.item(self.seed))
        for part, kind in PARTS.items():
            table = tomlkit.table()
            for one in fields(kind):
                if values[one.name] is None:
                    table.add(tomlkit.comment(f"{one.name}: not set"))
                else:
                    table.add(one.name, tomlkit.item(values[one.name]))
            document.add(part, table)
        return tomlkit.dumps(document)


@dataclass(frozen=True, eq=False)
class RunOptions:
    """What to do about what is there already, and what a training is given that changes no weights but by callbacks.

    Attributes:
        resume: Go on with a training that was interrupted, or that has ended with fewer epochs.
        overwrite: Replace a model, or a training that was interrupted; with `resume` only those with other settings.
        cache: Where decoded voxels are kept: "memory" or a folder. None decodes PNGs at every epoch.
        callbacks: Keras callbacks. Their model is a `trainer.Trainer`, and they are told of an epoch before it is
            written down. Those of the kinds in `callbacks.REMEMBERED` are shown the epochs that were, where a training
            goes on; others begin anew.
        draw_confusion: Function that draws the confusion matrix for TensorBoard. None leaves the picture out.
        licence: Licence of the network, which stands in the card and in the SavedModel.
        population: Whose knees the network is trained on, in words, which stands there, too.

    Raises:
        ValueError: A callback is none of Keras.
    """

    resume: bool = False
    overwrite: bool = False
    cache: str | None = None
    callbacks: tuple[Any, ...] = ()
    draw_confusion: Callable[..., Any] | None = field(default=None, repr=False)
    licence: str = ""
    population: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "callbacks", tuple(self.callbacks))
        for one in self.callbacks:
            if isinstance(one, type) or not hasattr(one, "on_epoch_end"):
                raise ValueError(f"callbacks are of keras.callbacks.Callback, not {one!r}")


def network_name(network: Any) -> str:
    """The name of a network in records, which never import it; a file is named without its folder.

    Args:
        network: A name, "module:function", a function, or an `Architecture`.
    """
    if isinstance(network, str):
        return network.replace("\\", "/").rpartition("/")[2]
    from knee3d.networks import architecture

    return architecture.network_name(network) if callable(network) or hasattr(network, "body") else str(network)


def check_unused_settings(config: TrainConfig, view: str) -> None:
    """Refuse settings that change nothing of what is trained, rather than let anyone believe that they do.

    Args:
        config: The settings.
        view: Name of the view that is trained.

    Raises:
        ValueError: Names the setting, as the command line has it.
    """
    solid, oblique, default = view == SOLID, view == OBLIQUE, TrainConfig().options
    of_oblique, of_slices = "is of oblique slices, --plane oblique", f"is of slices; {VOLUME_NETWORK} sees the volume"
    idle = {
        "patch": (not solid, f"is of --network {VOLUME_NETWORK}"),
        "directions": (not oblique, of_oblique),
        "spread": (not oblique, of_oblique),
        "context": (solid, of_slices),
        "freeze_encoder_epochs": (solid, of_slices),
    }
    for name, (is_idle, why) in idle.items():
        if is_idle and config.options[name] != default[name]:
            raise ValueError(f"--{name.replace('_', '-')} {why}")


def _with_encoder(network: NetworkConfig, freeze_encoder_epochs: int) -> NetworkConfig:
    """The same with the encoder by name.

    Raises:
        ValueError: The network does not take this encoder, or there is no such network.
    """
    name = network_name(network.network)
    encoders: tuple[str, ...]
    if isinstance(network.network, str) and network.network in NETWORK_ENCODERS:
        encoders = NETWORK_ENCODERS[network.network]
    else:
        from knee3d.networks.architecture import find_architecture

        encoders = find_architecture(network.network).encoders
    encoder = encoders[0] if network.encoder is None else network.encoder
    if encoder not in encoders:
        raise ValueError(f"{name} takes no encoder {encoder!r}, only: {', '.join(encoders)}")
    if encoder == NO_ENCODER and freeze_encoder_epochs:
        raise ValueError(f"--freeze-encoder-epochs is of networks with an encoder; {name} has none")
    if encoder == NO_ENCODER and network.encoder_weights not in ("imagenet", "none"):
        raise ValueError(f"--encoder-weights is of networks with an encoder; {name} has none")
    weights = "none" if encoder == NO_ENCODER else network.encoder_weights
    return replace(network, encoder=encoder, encoder_weights=weights)


def _check_types(part: object) -> None:
    """Refuse settings of another type than their field says; those that may be objects of Python are looked at later.

    Raises:
        ValueError: Names the setting.
    """
    for name, hint in get_type_hints(type(part)).items():
        kinds, value = get_args(hint) or (hint,), getattr(part, name)
        if not all(kind in (bool, int, float, str, NoneType) for kind in kinds):
            continue
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        fits = (float in kinds and is_number, int in kinds and is_number and isinstance(value, Integral))
        if not any(fits) and not isinstance(value, tuple(kind for kind in kinds if kind not in (int, float))):
            wanted = " or ".join("nothing" if kind is NoneType else kind.__name__ for kind in kinds)
            raise ValueError(f"{name} must be of type {wanted}, not {type(value).__name__} ({value!r})")


def _check_numbers(options: Mapping[str, Any]) -> None:
    above_0 = ("epochs", "directions", "batch_size", "learning_rate", "limit_slices", "clip_norm",
               "stop_patience")  # fmt: skip
    at_least_0 = ("context", "warmup_epochs", "freeze_encoder_epochs", "plateau_patience", "plateau_min_delta",
                  "plateau_cooldown", "plateau_min_lr", "seed", "weight_decay")  # fmt: skip
    for name in (*above_0, *at_least_0):
        value = options[name]
        if value is not None and not (0 < value < math.inf or (name in at_least_0 and value == 0)):
            raise ValueError(f"{name} must be {'above 0' if name in above_0 else '0 or more'}, got {value}")
    if options["directions"] > MOST_OBLIQUE_VIEWS:
        raise ValueError(f"directions must be at most {MOST_OBLIQUE_VIEWS}, got {options['directions']}")
    if options["patch"] is not None and (len(options["patch"]) != 3 or min(options["patch"]) < 1):
        raise ValueError(f"a patch has three sides of 1 or more voxels, got {options['patch']}")
    for name in ("plateau_factor", "foreground_fraction", "ema"):
        value = options[name]
        if value is not None and not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {value}")


def _own_rate(config: OptimizerConfig) -> float | None:
    """The learning rate of a Keras optimizer; None where knee3d makes the optimizer."""
    if isinstance(config.optimizer, str) or not hasattr(config.optimizer, "get_config"):
        return None
    if config.weight_decay is not None:
        raise ValueError("weight_decay is for knee3d's optimizers; give it to the optimizer of your own")
    rate = config.optimizer.get_config().get("learning_rate")
    if not isinstance(rate, int | float):
        raise ValueError(
            "the learning rate of an optimizer of your own must be a number, as the schedule sets it epoch by epoch; "
            "schedule and warmup_epochs say how"
        )
    return float(f"{rate:.7g}")  # Keras keeps float32: 0.001 and not 0.0010000000474974513

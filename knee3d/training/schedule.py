"""Learning-rate schedules and early stopping.

Keras' callbacks decide. Their memory is no file of its own: it is rebuilt by showing them the epochs that were, see
`callbacks.replay_history`, so that an interrupted training goes on as if it had not been.
"""

import math

import knee3d.tensorflow_setup  # noqa: F401

import keras

MONITORED = "val_knee_loss"
"""What ReduceLROnPlateau watches: the mean over validation knees of the loss of all slices of a knee together. In the
mean over batches, a batch without a tissue counts as one in which the tissue is found."""
SCHEDULES = ("plateau", "cosine", "polynomial", "constant")
POWER = 0.9


def schedule_callbacks(
    rate: float,
    epochs: int,
    schedule: str = "plateau",
    warmup_epochs: int = 0,
    plateau: dict[str, float] | None = None,
    stop_patience: int | None = None,
) -> list[keras.callbacks.Callback]:
    """The callbacks that set the learning rate and end the training early.

    Args:
        rate: The learning rate after warm-up.
        epochs: Of the whole training.
        schedule: "plateau": ReduceLROnPlateau of `MONITORED`. "cosine": from `rate` towards 0 along half a cosine
            (Loshchilov and Hutter, SGDR, 2017), epoch by epoch. "polynomial": `rate` times (1 - epoch / epochs)^0.9
            (Isensee et al., nnU-Net, 2021). "constant": none of these.
        warmup_epochs: Epochs in which the rate rises evenly to `rate`.
        plateau: Options of ReduceLROnPlateau: factor, patience, min_delta, cooldown, min_lr.
        stop_patience: Epochs without a better validation Dice before training ends; None goes on to the last epoch.
    """

    def planned(epoch: int, now: float) -> float:
        if epoch < warmup_epochs:
            return rate * (epoch + 1) / warmup_epochs
        done = (epoch - warmup_epochs) / max(epochs - warmup_epochs, 1)
        if schedule == "cosine":
            return rate * (1 + math.cos(math.pi * done)) / 2
        if schedule == "polynomial":
            return rate * (1 - done) ** POWER
        return rate if epoch == warmup_epochs else now

    # It comes first: each writes the rate into the scores of an epoch, and the plateau does so before it lowers it.
    callbacks: list[keras.callbacks.Callback] = [keras.callbacks.LearningRateScheduler(planned)]
    if schedule == "plateau":
        callbacks.append(keras.callbacks.ReduceLROnPlateau(monitor=MONITORED, mode="min", **(plateau or {})))
    if stop_patience is not None:
        callbacks.append(keras.callbacks.EarlyStopping(monitor="val_dice", mode="max", patience=stop_patience))
    return callbacks

"""Learning rates epoch by epoch, and the same ones after a replay."""

import keras
import pytest

from knee3d.training import schedule
from knee3d.training.callbacks import replay_history

LOSSES = [1.0, 0.5, 0.6, 0.6, 0.6, 0.6, 0.4, 0.41, 0.41, 0.41]


def model():
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    network.compile(keras.optimizers.Adam(0.1))
    return network


def rates(callbacks, history=()):
    """Learning rate of each epoch, and the number of the last one."""
    network = model()
    stopped = replay_history(callbacks, network, history)
    told = []
    writes = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: told.append(logs["learning_rate"]))
    deciding = keras.callbacks.CallbackList([*callbacks, writes], model=network)
    found = [scores["learning_rate"] for scores in history]
    for epoch in range(len(history), len(LOSSES)):
        if stopped:
            break
        deciding.on_epoch_begin(epoch)
        found.append(float(network.optimizer.learning_rate))
        deciding.on_epoch_end(epoch, {schedule.MONITORED: LOSSES[epoch], "val_dice": 1 - LOSSES[epoch]})
        assert told[-1] == found[-1]  # what is written down is what the epoch was trained with
        stopped = network.stop_training
    return found


def test_plateau_goes_down_when_the_loss_stalls():
    options = {"factor": 0.5, "patience": 2, "cooldown": 1, "min_lr": 0.03}
    found = rates(schedule.schedule_callbacks(0.1, 10, plateau=options))
    assert found == pytest.approx([0.1] * 4 + [0.05] * 2 + [0.03] * 4)


def test_cosine_after_warmup():
    found = rates(schedule.schedule_callbacks(0.1, 10, "cosine", warmup_epochs=2))
    assert found[:3] == pytest.approx([0.05, 0.1, 0.1])
    assert found[6] == pytest.approx(0.05)
    assert found[-1] == pytest.approx(0.1 * 0.0380602, rel=1e-4)


def test_polynomial_as_in_nnunet():
    found = rates(schedule.schedule_callbacks(0.1, 10, "polynomial", warmup_epochs=2))
    assert found[:2] == pytest.approx([0.05, 0.1])
    assert found[2:] == pytest.approx([0.1 * (1 - done / 8) ** 0.9 for done in range(8)])


def test_plateau_after_warmup_and_constant():
    assert rates(schedule.schedule_callbacks(0.1, 10, "constant", 4)) == pytest.approx(
        [0.025, 0.05, 0.075, 0.1] + [0.1] * 6
    )
    found = rates(schedule.schedule_callbacks(0.1, 10, "plateau", 2, {"factor": 0.5, "patience": 2}))
    assert found[:4] == pytest.approx([0.05, 0.1, 0.1, 0.1])
    assert found[4] == pytest.approx(0.05)


@pytest.mark.parametrize("done", range(1, 10))
@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_after_an_interruption_it_goes_on_the_same(name, done):
    def callbacks():
        return schedule.schedule_callbacks(0.1, 10, name, 1, {"factor": 0.5, "patience": 1}, stop_patience=4)

    whole = rates(callbacks())
    history = [
        {schedule.MONITORED: loss, "val_dice": 1 - loss, "learning_rate": rate}
        for loss, rate in zip(LOSSES[:done], whole, strict=False)
    ]
    assert rates(callbacks(), history) == pytest.approx(whole)


def test_stopping_early():
    found = rates(schedule.schedule_callbacks(0.1, 10, "constant", stop_patience=2))
    assert len(found) == 4  # the best Dice is that of the second epoch

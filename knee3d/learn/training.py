"""One view's network from slices to a SavedModel, however often it is interrupted."""

import gc
import logging
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import keras

from knee3d.anatomy.plane import Plane
from knee3d.atomic import replace_folder, whole_file
from knee3d.dataset.cases import Dataset, Split
from knee3d.learn.building import bare, build
from knee3d.learn.card import describe, differences, for_saved_model, load_card, model_folder, run_folder
from knee3d.learn.config import Extras, Going, TrainConfig
from knee3d.learn.fitting import Task, fit
from knee3d.learn.networks import is_own
from knee3d.learn.networks.encoder import find_encoder_weights
from knee3d.learn.networks.own import structure_of
from knee3d.learn.pretrained import PretrainedNetwork, find_pretrained, inherit_patients, load_matching_layers
from knee3d.learn.reading import visits_of
from knee3d.learn.run import Run, environment
from knee3d.learn.savedmodel import export
from knee3d.learn.shared_network import check_planes, export_planes
from knee3d.learn.trainer import strategy
from knee3d.learn.views import SHARED, LearningView, learning_view
from knee3d.lease import BEAT_S, STALE_S, Lease, leased

log = logging.getLogger(__name__)


def train_view(
    dataset: Dataset,
    view: Plane | str,
    models: Path,
    config: TrainConfig,
    going: Going = Going(),  # noqa: B008 it is frozen
    extras: Extras = Extras(),  # noqa: B008
) -> Path:
    """Train one view's network and export it.

    Args:
        dataset: Prepared, with train and val cases.
        view: A plane, or the name of another view, see `views.learning_view`. "shared" fills the folders of all planes.
        models: Folder of all networks; this one goes to its own folder in it.
        config: How.
        going: What to do about what is there already.
        extras: Callbacks, and pictures.

    Returns:
        The model's folder: `card.json`, `saved_model/`, and what `run` says but for the checkpoints. While it is being
        trained it is called `<view>.training`, so that an interruption costs no finished model. A view whose card
        says the same settings and data is left alone; to one with fewer epochs `going.resume` adds those that it
        lacks.

    Raises:
        FileNotFoundError: There is no network to begin with.
        ValueError: There is a model trained otherwise or a training interrupted, another process trains the view, a
            split is empty, memory ran out, or the loss became NaN.
        EncoderWeightsError: See `find_encoder_weights`.
    """
    devices = strategy(min(config.batch_size, config.limit_slices or config.batch_size))
    folder = model_folder(models, view)
    seeing, card, pretrained = _planned(dataset, folder.name, config, extras)
    if _is_done(models, view, card, config, going):
        return folder
    weights = None if pretrained else find_encoder_weights(config.encoder_weights, config.encoder)
    run, finished = Run(run_folder(models, view)), Run(folder)
    longer = going.resume and _only_shorter(finished.card, card, config)
    if longer:
        card = {"licence": (finished.card or {}).get("licence", "")} | card
    train, val = (
        visits_of(seeing.stacks(dataset, dataset.of_split(split)), seeing.cutting, config.limit_slices)
        for split in (Split.TRAIN, Split.VAL)
    )
    task = Task(seeing.name, dataset.scheme, config, seeing.cutting, train, val, extras)
    with _alone(run) as lease:
        _begin(run, card, config, going)
        gc.collect()  # the network of the view before refers to itself, and Python would let go of it too late
        keras.utils.set_random_seed(config.seed)
        with devices.scope():
            model = build(dataset.scheme.classes, config, weights)
        if pretrained:
            load_matching_layers(model, pretrained, card["classes"])
        if longer and not run.checkpoints and (finished.last.is_file() or not going.overwrite):
            run.go_on_from(finished, model)
        fit(model, task, run, going.cache, lease.check)
        _finish(run, model, card, task)
        lease.check()
        replace_folder(run.folder, folder)
        Run(folder).tidy()  # last: as long as the name is not its own, a killed run finds its checkpoints
        if folder.name == SHARED:
            export_planes(models, config)
    return folder


def _planned(
    dataset: Dataset, view: str, config: TrainConfig, extras: Extras
) -> tuple[LearningView, dict[str, Any], PretrainedNetwork | None]:
    """How knees are shown, the card before training, and the network to begin with."""
    seeing = learning_view(view, config, dataset.of_split(Split.TRAIN))
    card = describe(dataset, seeing, config.settings)
    if extras.licence:
        card["licence"] = extras.licence
    if is_own(config.network):
        card["structure"] = structure_of(bare(dataset.scheme.classes, config))
    if config.init is None:
        return seeing, card, None
    pretrained = find_pretrained(config.init, view)
    return seeing, inherit_patients(card, pretrained, dataset), pretrained


def make_ready(
    dataset: Dataset, view: Plane | str, models: Path, config: TrainConfig, going: Going, extras: Extras
) -> bool:
    """Do here what comes before a training elsewhere, which then goes on in `run_folder` with `resume`.

    Returns:
        Whether there is something to train.

    Raises:
        ValueError: As `train_view`.
    """
    _, card, _ = _planned(dataset, model_folder(models, view).name, config, extras)
    if _is_done(models, view, card, config, going):
        return False
    run = Run(run_folder(models, view))
    with _alone(run):
        _begin(run, card, config, going)
    return True


def _alone(run: Run) -> AbstractContextManager[Lease]:
    """The lease on a run's folder. A process of another machine, which may have died, is given time to renew it."""
    return leased(run.folder, patience_s=STALE_S + BEAT_S)


def _is_done(models: Path, view: Plane | str, card: dict[str, Any], config: TrainConfig, going: Going) -> bool:
    """Whether the view was trained so before.

    Raises:
        ValueError: It was trained otherwise and must not be overwritten.
    """
    folder, default = model_folder(models, view), type(config)()
    if folder.name == SHARED:
        check_planes(models, card, config, going)
    for one in (folder, run_folder(models, view)):
        Run(one).check_ours()
    if (going.overwrite and not going.resume) or not (folder / "card.json").exists():
        return False
    under_way = Run(run_folder(models, view)).card
    if going.resume and under_way is not None and not differences(under_way, card, default):
        return False  # begun with `overwrite`, and interrupted
    try:
        there = load_card(models, view)
    except ValueError as error:
        if going.overwrite:
            return False
        raise ValueError(f"{error}, with --overwrite") from error
    differ = differences(there, card, default)
    shorter = bool(differ) and _only_shorter(there, card, config)
    if shorter:
        Run(folder).tidy()  # of a process that was killed before it could
    if differ and (going.overwrite or (shorter and going.resume)):
        return False
    if differ:
        raise ValueError(_how_to_go_on(folder, there, differ, shorter))
    _finish_again(models, folder, card, config)
    log.info("%s: already trained with these settings on these cases, in %s", folder.name, folder)
    return True


def _how_to_go_on(folder: Path, there: dict[str, Any], differ: str, shorter: bool) -> str:
    if shorter:
        return (
            f"{folder} was trained for {there['settings']['epochs']} epochs; to add the others say --resume, in Python "
            "Going(resume=True); to train anew --overwrite"
        )
    return (
        f"{folder} holds a model with other {differ}; choose another --models or give --overwrite, with --resume to "
        "keep what was done with these settings"
    )


def _finish_again(models: Path, folder: Path, card: dict[str, Any], config: TrainConfig) -> None:
    """Do what an interruption at the very end has left, and say what stays as it is."""
    Run(folder).tidy()
    if folder.name == SHARED:
        export_planes(models, config)
    licence = load_card(models, folder.name).get("licence", "")
    if licence != card.get("licence", licence):
        log.warning("%s: the licence stays %r, as it was said when the training ended", folder.name, licence)


def _only_shorter(there: dict[str, Any] | None, card: dict[str, Any], config: TrainConfig) -> bool:
    """Whether a finished training is the one that is asked for but for its epochs, which are fewer."""
    try:
        epochs = int((there or {})["settings"]["epochs"])
    except (KeyError, TypeError, ValueError):
        return False
    longer = {**card, "settings": {**card["settings"], "epochs": epochs}}
    return epochs < config.epochs and not differences(there or {}, longer, type(config)())


def _begin(run: Run, card: dict[str, Any], config: TrainConfig, going: Going) -> None:
    """Make the folder ready: to go on in it, or empty.

    Raises:
        ValueError: There is a training that was interrupted, and it is not said what to do, or it was another one.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    there = run.card
    differ = differences(there or {}, card, type(config)())
    anew = going.overwrite and (differ or not going.resume)
    if run.checkpoints and not anew and there is None:
        raise ValueError(
            f"{run.folder} holds checkpoints, but its card.json cannot be read, so that nobody knows of what; bring it "
            "back, or begin anew with --overwrite"
        )
    if run.checkpoints and not going.overwrite and not going.resume:
        raise ValueError(
            f"{run.folder} holds an interrupted training; go on with --resume, or begin anew with --overwrite"
        )
    if run.checkpoints and going.resume and not going.overwrite and differ:
        raise ValueError(
            f"{run.folder} holds a training with other {differ}; go on with those, or begin anew with --overwrite"
        )
    if anew or not run.checkpoints:
        for leftover in run.folder.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    for leftover in run.folder.rglob(".partial-*"):  # of a process that was killed while it wrote
        leftover.unlink()
    now = environment()
    if run.checkpoints and run.read_json("environment.json") not in (None, now):
        log.warning("the versions or devices are not those that this training began with; see environment.json")
    run.write_json("card.json", card)
    run.write_json("config.json", card["settings"])
    run.write_json("cases.json", {key: card[key] for key in ("cases", "patients", "data")})
    run.write_json("environment.json", now)


def _finish(run: Run, trained: keras.Model, card: dict[str, Any], task: Task) -> None:
    """Export the best epoch, computing in float32 whatever it was trained in, and write the card."""
    scores = run.load_best(trained)
    model = bare(task.scheme.classes, task.config)
    model.set_weights(trained.get_weights())
    with whole_file(run.folder / "model.keras") as partial:
        model.save(partial)
    shutil.rmtree(run.folder / "saved_model", ignore_errors=True)
    known = card | {
        "slices": {"train": task.train.count, "val": task.val.count},
        "scores": {"best_epoch": len(scores), **scores[-1]},
        "environment": run.read_json("environment.json"),
    }
    if task.name != SHARED:
        known["saved_model_differs_by"] = export(model, run.folder / "saved_model", for_saved_model(known))
    run.write_json("card.json", known)

"""Train the network of one view and export it; an interrupted training goes on."""

import gc
import logging
import shutil
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import knee3d.tensorflow_setup  # noqa: F401

import keras

from knee3d.atomic import replace_folder, whole_file
from knee3d.dataset.case_collection import CaseCollection, Split
from knee3d.geometry.plane import Plane
from knee3d.geometry.view_names import SHARED
from knee3d.lease import BEAT_S, STALE_S, Lease, leased
from knee3d.models.model_card import (
    CARD,
    CountBySplit,
    ModelCard,
    TrainingResult,
    load_card,
    saved_model_description,
    training_folder_of,
    view_folder,
)
from knee3d.models.model_folder import is_trained
from knee3d.models.saved_model import export_saved_model
from knee3d.networks.architecture import is_custom_network
from knee3d.networks.custom_network import structure_fingerprint
from knee3d.networks.encoder import find_encoder_weights
from knee3d.training.build_network import network_with_first_weights, untrained_network
from knee3d.training.config import RunOptions, TrainConfig, check_unused_settings
from knee3d.training.fit import FitTask, fit_network
from knee3d.training.pretrained import PretrainedNetwork, find_pretrained, inherit_patients, load_matching_layers
from knee3d.training.sample_index import index_samples
from knee3d.training.shared_network import check_plane_folders, export_planes
from knee3d.training.trainer import distribution_strategy
from knee3d.training.training_card import card_differences, new_model_card, with_epochs
from knee3d.training.training_folder import ENVIRONMENT, SETTINGS, TrainingFolder, software_environment
from knee3d.training.view_setup import ViewSetup, make_view_setup

log = logging.getLogger(__name__)


def train_view(
    dataset: CaseCollection,
    view: Plane | str,
    models: Path,
    config: TrainConfig,
    options: RunOptions = RunOptions(),  # noqa: B008 it is frozen
) -> Path:
    """Train one view's network and export it.

    Args:
        dataset: Prepared, with train and val cases.
        view: A plane, or the name of another view, see `make_view_setup.training_view`. "shared" fills the folders of
            all planes.
        models: Folder of all networks; this one goes to its own folder in it.
        config: How.
        options: What to do about what is there already, callbacks, licence.

    Returns:
        The model's folder: `card.json`, `saved_model/`, and what `run` says but for the checkpoints. While it is
        being
        trained it is called `<view>.training`, so that an interruption costs no finished model. A view whose card
        says the same settings and data is left alone; to one with fewer epochs `options.resume` adds those that it
        lacks.

    Raises:
        FileNotFoundError: There is no network to begin with.
        ValueError: There is a model trained otherwise or a training interrupted, another process trains the view, a
            split is empty, memory ran out, or the loss became NaN.
        EncoderWeightsError: See `find_encoder_weights`.
    """
    batch_size, limit = config.sampling.batch_size, config.sampling.limit_slices
    devices = distribution_strategy(min(batch_size, limit or batch_size))
    folder = view_folder(models, view)
    seeing, card, pretrained = _planned(dataset, folder.name, config, options)
    if _is_done(models, view, card, config, options):
        return folder
    weights = None if pretrained else find_encoder_weights(config.network.encoder_weights, str(config.network.encoder))
    run, finished = TrainingFolder(training_folder_of(models, view)), TrainingFolder(folder)
    longer = options.resume and _only_shorter(finished.load_card(), card, config)
    if longer:
        card = _said_before(card, finished.load_card())
    train, val = (
        index_samples(seeing.stacks(dataset, dataset.of_split(split)), seeing.sampler, limit)
        for split in (Split.TRAIN, Split.VAL)
    )
    task = FitTask(seeing.name, dataset.scheme, config, seeing.sampler, train, val, options)
    with _alone(run) as lease:
        _begin(run, card, config, options)
        gc.collect()  # the network of the view before refers to itself, and Python would let go of it too late
        keras.utils.set_random_seed(config.seed)
        with devices.scope():
            model = network_with_first_weights(dataset.scheme.classes, config, weights)
        if pretrained:
            load_matching_layers(model, pretrained, card.class_names)
        if longer and not run.checkpoints and (finished.last.is_file() or not options.overwrite):
            run.continue_from(finished, model)
        fit_network(model, task, run, options.cache, lease.renew)
        _finish(run, model, card, task)
        lease.renew()
        replace_folder(run.folder, folder)
        TrainingFolder(folder).tidy()  # last: as long as the name is not its own, a killed run finds its checkpoints
        if folder.name == SHARED:
            export_planes(models, config)
    return folder


def _planned(
    dataset: CaseCollection, view: str, config: TrainConfig, options: RunOptions
) -> tuple[ViewSetup, ModelCard, PretrainedNetwork | None]:
    """How knees are shown, the card before training, and the network to begin with."""
    check_unused_settings(config, view)
    # of both splits, which the folds of a cross-validation have in common: networks that are averaged see alike
    seeing = make_view_setup(view, config, (*dataset.of_split(Split.TRAIN), *dataset.of_split(Split.VAL)))
    card = new_model_card(dataset, seeing, config.settings, options.licence, options.population)
    if is_custom_network(config.network.network):
        structure = structure_fingerprint(untrained_network(dataset.scheme.classes, config))
        card = replace(card, structure_fingerprint=structure)
    if config.network.init is None:
        return seeing, card, None
    pretrained = find_pretrained(config.network.init, view)
    _warn_of_other_voxels(view, card, pretrained)
    return seeing, inherit_patients(card, pretrained, dataset), pretrained


def _warn_of_other_voxels(view: str, card: ModelCard, pretrained: PretrainedNetwork) -> None:
    """Warn where a network begins with one that has learned the size of tissue in other pixels."""
    theirs, mine = (_voxels_in_words(one) for one in (pretrained.card, card))
    if theirs != mine:
        log.warning(
            "%s: the network in %s has learned from %s, and this training shows it %s; --spacing changes that",
            view, pretrained.folder, theirs, mine,
        )  # fmt: skip


def _voxels_in_words(card: ModelCard) -> str:
    sizes = sorted(set(card.model_spacing_mm.values()))
    words = " and ".join(" x ".join(f"{mm:g}" for mm in size) for size in sizes)
    return f"voxels of {words} mm" if words else "the voxels of the scans"


def prepare_training_folder(
    dataset: CaseCollection,
    view: Plane | str,
    models: Path,
    config: TrainConfig,
    options: RunOptions,
) -> bool:
    """Do here what comes before a training elsewhere, which then goes on in `training_folder_of` with `resume`.

    Returns:
        Whether there is something to train.

    Raises:
        ValueError: As `train_view`.
    """
    _, card, _ = _planned(dataset, view_folder(models, view).name, config, options)
    if _is_done(models, view, card, config, options):
        return False
    run = TrainingFolder(training_folder_of(models, view))
    with _alone(run):
        _begin(run, card, config, options)
    return True


def _alone(run: TrainingFolder) -> AbstractContextManager[Lease]:
    """The lease on a run's folder. A process of another machine, which may have died, is given time to renew it."""
    return leased(run.folder, patience_s=STALE_S + BEAT_S)


def _is_done(models: Path, view: Plane | str, card: ModelCard, config: TrainConfig, options: RunOptions) -> bool:
    """Whether the view was trained so before.

    Raises:
        ValueError: It was trained otherwise and must not be overwritten.
    """
    folder, default = view_folder(models, view), type(config)()
    if folder.name == SHARED:
        check_plane_folders(models, card, config, options)
    for one in (folder, training_folder_of(models, view)):
        TrainingFolder(one).check_only_training_files()
    is_there = (folder / CARD).exists() if options.overwrite else is_trained(models, folder.name)
    if (options.overwrite and not options.resume) or not is_there:
        return False
    under_way = TrainingFolder(training_folder_of(models, view)).load_card()
    if options.resume and under_way is not None and not card_differences(under_way, card, default):
        return False  # begun with `overwrite`, and interrupted
    try:
        there = load_card(models, view)
    except ValueError as error:
        if options.overwrite:
            return False
        raise ValueError(f"{error}, with --overwrite") from error
    differ = card_differences(there, card, default)
    shorter = bool(differ) and _only_shorter(there, card, config)
    if shorter:
        TrainingFolder(folder).tidy()  # of a process that was killed before it could
    if differ and (options.overwrite or (shorter and options.resume)):
        return False
    if differ:
        raise ValueError(_how_to_go_on(folder, there, differ, shorter))
    _finish_again(models, folder, card, config)
    log.info("%s: already trained with these settings on these cases, in %s", folder.name, folder)
    return True


def _how_to_go_on(folder: Path, there: ModelCard, differ: str, shorter: bool) -> str:
    if shorter:
        return (
            f"{folder} was trained for {there.epochs} epochs; to add the others say --resume, in Python "
            "resume=True; to train anew --overwrite"
        )
    return (
        f"{folder} holds a model with other {differ}; choose another --models or give --overwrite, with --resume to "
        "keep what was done with these settings"
    )


def _finish_again(models: Path, folder: Path, card: ModelCard, config: TrainConfig) -> None:
    """Do what an interruption at the very end has left, and say what stays as it is."""
    TrainingFolder(folder).tidy()
    if folder.name == SHARED:
        export_planes(models, config)
    there = load_card(models, folder.name)
    for name, said, wanted in (
        ("licence", there.licence, card.licence), ("population", there.population, card.population)
    ):  # fmt: skip
        if wanted not in ("", said):
            log.warning("%s: the %s stays %r, as it was said when the training ended", folder.name, name, said)


def _said_before(card: ModelCard, there: ModelCard | None) -> ModelCard:
    """A card with the licence and the population of a finished training, where nothing else is said now."""
    if there is None:
        return card
    return replace(card, licence=card.licence or there.licence, population=card.population or there.population)


def _only_shorter(there: ModelCard | None, card: ModelCard, config: TrainConfig) -> bool:
    """Whether a finished training is the one that is asked for but for its epochs, which are fewer."""
    if there is None or not 0 < there.epochs < config.schedule.epochs:
        return False
    return not card_differences(there, with_epochs(card, there.epochs), type(config)())


def _begin(run: TrainingFolder, card: ModelCard, config: TrainConfig, options: RunOptions) -> None:
    """Make the folder ready: to go on in it, or empty.

    Raises:
        ValueError: There is a training that was interrupted, and it is not said what to do, or it was another one.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    there = run.load_card()
    differ = card_differences(there, card, type(config)())
    anew = options.overwrite and (differ or not options.resume)
    if run.checkpoints and not anew and there is None:
        raise ValueError(
            f"{run.folder} holds checkpoints, but its card.json cannot be read, so that nobody knows of what; bring it "
            "back, or begin anew with --overwrite"
        )
    if run.checkpoints and not options.overwrite and not options.resume:
        raise ValueError(
            f"{run.folder} holds an interrupted training; go on with --resume, or begin anew with --overwrite"
        )
    if run.checkpoints and options.resume and not options.overwrite and differ:
        raise ValueError(
            f"{run.folder} holds a training with other {differ}; go on with those, or begin anew with --overwrite"
        )
    if anew or not run.checkpoints:
        for leftover in run.folder.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    for leftover in run.folder.rglob(".partial-*"):  # of a process that was killed while it wrote
        leftover.unlink()
    now = software_environment()
    if run.checkpoints and run.load_environment() not in (None, now):
        log.warning("the versions or devices are not those that this training began with; see environment.json")
    card.write(run.folder / CARD)
    with whole_file(run.folder / SETTINGS) as partial:
        partial.write_text(config.to_toml())
    now.write(run.folder / ENVIRONMENT)


def _finish(run: TrainingFolder, trained: keras.Model, card: ModelCard, task: FitTask) -> None:
    """Export the best epoch, computing in float32 whatever it was trained in, and write the card."""
    scores = run.load_best(trained)
    model = untrained_network(task.scheme.classes, task.config)
    model.set_weights(trained.get_weights())
    with whole_file(run.folder / "model.keras") as partial:
        model.save(partial)
    shutil.rmtree(run.folder / "saved_model", ignore_errors=True)
    slices = CountBySplit(task.train.count, task.val.count)
    result = TrainingResult(len(scores), scores[-1], slices, run.load_environment() or software_environment())
    card = replace(card, result=result)
    if task.name != SHARED:
        differs = export_saved_model(model, run.folder / "saved_model", saved_model_description(card))
        card = replace(card, result=replace(result, saved_model_differs_by=differs))
    card.write(run.folder / CARD)

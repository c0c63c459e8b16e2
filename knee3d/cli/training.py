"""Commands for networks: train, card, export."""

from pathlib import Path
from typing import Any

import click

from knee3d.choices import (
    AUGMENTATIONS,
    DIRECTION_SETS,
    ENCODERS,
    LOSSES,
    NETWORKS,
    OPTIMIZERS,
    SCHEDULES,
    TRAINING_PRECISIONS,
    VOLUME_NETWORK,
)
from knee3d.cli.options import (
    FILE,
    FOLDER,
    Command,
    Numbers,
    ObliqueViews,
    jobs_option,
    models_option,
    seed_option,
    weights_option,
)
from knee3d.geometry.plane import Plane

PLANES = [plane.value for plane in Plane]
OTHER_VIEWS = ["shared", "oblique", "volume"]


class NetworkName(click.ParamType):
    """A network of ours, or where to find one of the user's."""

    name = "NAME|MODULE:FUNCTION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Text -> the same."""
        if value not in NETWORKS and ":" not in value:
            self.fail(f"{value!r} is none; say {', '.join(NETWORKS)}, or module:function", param, ctx)
        return str(value)


@click.command(cls=Command)
@click.argument("dataset", type=FOLDER)
@click.option(
    "--plane",
    type=click.Choice([*PLANES, "all", *OTHER_VIEWS]),
    help="One; all three, a network each; shared: one network for all three; oblique directions; or the volume, which "
    "unet3d sees  [default: all; volume for unet3d]",
)
@models_option
@click.option(
    "--config",
    type=FILE,
    help="Settings: a TOML file such as MODELS/<plane>/train.toml, which each training writes. Options win.",
)
@click.option(
    "--network",
    type=NetworkName(),
    default="unet",
    help=f"{', '.join(NETWORKS)}; or your own, module:function or file.py:function: see docs/how-to/add-a-network.md.",
)
@click.option(
    "--encoder",
    type=click.Choice(ENCODERS),
    show_default="vgg16",
    help="fcn, deconvnet, deeplab and segnet take vgg16 and vgg19; unet3d and your own network take no encoder.",
)
@weights_option
@click.option(
    "--init",
    metavar="FOLDER",
    help="Begin with the weights of a network that was trained before: a models folder, or that of one network.",
)
@click.option("--context", type=click.IntRange(0), default=1, help="Neighbours on each side.")
@click.option(
    "--directions",
    type=click.IntRange(1, ObliqueViews.most),
    default=6,
    help="Of oblique slices; one network learns all of them.",
)
@click.option(
    "--spread",
    type=click.Choice(DIRECTION_SETS),
    default="sphere",
    help="Of the directions: over the half sphere, or around the long axis, which all slices then contain.",
)
@click.option(
    "--spacing",
    metavar="auto|native|MM[,MM]",
    help="Voxels of the model: size of pixels, step between slices. auto: the median of the knees. native: "
    "images are not resampled [native where all training knees have one voxel size, else auto].",
)
@click.option(
    "--patch", type=Numbers(int, "96,96,64"), metavar="I,P,L", help="Voxels that unet3d sees [96,96,64, or the knee]."
)
@click.option("--epochs", type=click.IntRange(1), default=100)
@click.option("--batch-size", type=click.IntRange(1), default=2, help="Over all GPUs together; at least one for each.")
@click.option(
    "--optimizer",
    type=click.Choice(OPTIMIZERS),
    default="adam",
    help="sgd has Nesterov's momentum of 0.99 and wants a --learning-rate of about 0.01.",
)
@click.option("--weight-decay", type=click.FloatRange(0), help="Of the optimizer [none; adamw: 0.004].")
@click.option(
    "--ema",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Validate and export a running average of the weights; 0.999: after each step, 0.999 of it and 0.001 of them.",
)
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), default=1e-4)
@click.option(
    "--schedule",
    type=click.Choice(SCHEDULES),
    default="plateau",
    help="Learning rate: lower when validation stalls; along half a cosine; polynomial, rate * (1 - epoch/epochs)^0.9; "
    "or constant.",
)
@click.option("--warmup-epochs", type=click.IntRange(0), default=0, help="The rate rises in them.")
@click.option("--plateau-factor", type=float, default=0.1, help="ReduceLROnPlateau: what the rate is multiplied by.")
@click.option(
    "--plateau-patience",
    type=click.IntRange(0),
    default=10,
    help="ReduceLROnPlateau: epochs without a lower validation loss before that.",
)
@click.option(
    "--plateau-min-delta",
    type=click.FloatRange(0),
    default=1e-4,
    help="ReduceLROnPlateau: a loss counts as lower if it is by this much.",
)
@click.option(
    "--plateau-cooldown", type=click.IntRange(0), default=0, help="ReduceLROnPlateau: epochs of rest after that."
)
@click.option("--plateau-min-lr", type=click.FloatRange(0), default=0.0, help="ReduceLROnPlateau: the lowest rate.")
@click.option("--stop-patience", type=click.IntRange(1), help="End after so many epochs without a better Dice [never].")
@click.option("--clip-norm", type=click.FloatRange(0, min_open=True), help="Largest norm of the gradient [none].")
@click.option(
    "--freeze-encoder-epochs",
    type=click.IntRange(0),
    default=0,
    help="Epochs in which the encoder keeps its first weights.",
)
@click.option("--loss", type=click.Choice(LOSSES), default="dice")
@click.option(
    "--loss-background/--no-loss-background", default=True, help="Whether background counts as a class of its own."
)
@click.option(
    "--augment",
    type=click.Choice(AUGMENTATIONS),
    default="medium",
    help="Change training pairs at random.",
)
@click.option(
    "--foreground-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the training samples that show tissue [every slice once].",
)
@click.option(
    "--precision",
    type=click.Choice(TRAINING_PRECISIONS),
    default="float32",
    help="Of the arithmetic; weights are float32 always.",
)
@click.option("--xla", is_flag=True, help="Compile the training step with XLA.")
@click.option("--cache", metavar="memory|FOLDER", help="Keep decoded slices, for slow disks [decode at every visit].")
@click.option("--limit-slices", type=click.IntRange(1), help="Use so many slices (or patches) only, for a quick try.")
@click.option(
    "--folds",
    type=click.IntRange(2),
    help="Cross-validate: divide the training and validation patients into so many folds.",
)
@click.option("--fold", type=click.IntRange(1), help="Train this fold only, from 1 on [all].")
@click.option(
    "--licence",
    default="",
    metavar="TEXT",
    help="Of the networks; it is written into card.json, CARD.md and the SavedModel [none].",
)
@click.option(
    "--population",
    default="",
    metavar="TEXT",
    help='Whose knees these are, such as "OAI, Kellgren-Lawrence 0 to 3"; it is written there, too [none].',
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with a training that was interrupted, or that has ended with fewer --epochs.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Train anew. With --resume: keep models of the same settings, and replace others.",
)
@click.option(
    "--launcher",
    type=click.Choice(["local", "ray", "slurm"]),
    default="local",
    help="Train the planes here one after another, or on machines that share the disk: a Ray cluster, or one Slurm job "
    "for each.",
)
@click.option("--address", metavar="HOST:PORT|auto", help="Of the Ray cluster [one of this machine alone].")
@click.option("--slurm", multiple=True, metavar="NAME=VALUE", help="Option of sbatch; time in minutes [time=1440].")
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=3,
    help="How often a lost worker is replaced by one that goes on from its last checkpoint.",
)
@seed_option
def train(dataset: Path, plane: str | None, models: Path, config: Path | None, **options: Any) -> None:
    """Train one network per plane on the slices in DATASET.

    Defaults are the paper's: VGG16-UNet, soft Dice, Adam 1e-4, batch 2, 100 epochs, ReduceLROnPlateau; and medium
    augmentation, of which it says nothing. All visible GPUs share a batch (MirroredStrategy). Each plane gets a
    SavedModel, a model card, metrics.csv and TensorBoard logs. A plane that is already trained so is left alone.

    \b
    knee3d-train data/oai --plane all --models models --resume
    knee3d-train data/oai --plane sagittal --batch-size 16 --learning-rate 3e-4 --precision mixed_float16
    knee3d-train data/oai --plane all --folds 5 --models cross
    knee3d-train data/oai --network deeplab --models models-deeplab
    knee3d-train data/oai --network my_networks.py:small_unet --models models-small
    knee3d-train data/oai --network unet3d --loss dice-ce --patch 96,96,64 --models models-3d
    knee3d-train data/oai --plane oblique --directions 6
    knee3d-train data/oai --plane shared --models models-shared
    knee3d-train data/new --init models --models models-new --learning-rate 3e-5
    knee3d-train data/oai --epochs 200 --resume
    knee3d-train data/new --config models/sagittal/train.toml --batch-size 8 --models models-new
    knee3d-train data/oai --network fpn --encoder efficientnetb0 --models models-fpn
    knee3d-train data/oai --loss dice-ce --augment strong --foreground-fraction 0.7 --stop-patience 20
    knee3d-train data/oai --launcher ray --address 10.0.0.1:6379
    knee3d-train data/oai --batch-size 8 --launcher slurm --slurm partition=gpu --slurm gpus-per-node=4
    tensorboard --logdir models
    """
    from knee3d import api
    from knee3d.dataset.split import Folds

    settings = api.TrainConfig.from_toml(config) if config else api.TrainConfig()
    names = [name for name in settings.options if name in options]
    given = {name: options[name] for name in names if not config or _is_given(name)}
    settings = settings.with_options(**given)
    plane = plane or ("volume" if settings.network.network == VOLUME_NETWORK else "all")
    told = api.RunOptions(**{name: options[name] for name in ("resume", "overwrite", "cache", "licence", "population")})
    parts = [option.partition("=") for option in options["slurm"]]
    slurm = {name: value if equals else True for name, equals, value in parts}
    execution = api.TrainExecution(options["launcher"], options["address"], options["retries"], slurm)
    folds, fold = options["folds"], options["fold"]
    if folds is None:
        if fold is not None:
            raise click.UsageError("--fold needs --folds, how many there are")
        for folder in api.train_views(dataset, plane, models, settings, told, execution):
            click.echo(f"{folder}")
        return
    result = api.cross_validate(dataset, plane, models, settings, Folds(folds, fold), told, execution)
    for name, scores in result.views.items():
        done = len(scores.val_dice)
        spread = f" \N{PLUS-MINUS SIGN} {scores.sd:.4f}" if done > 1 else ""
        click.echo(f"{name:<10} validation Dice {scores.mean:.4f}{spread} over {done} of {folds} folds")
    click.echo(f"{models}/folds.json")


def _is_given(option: str) -> bool:
    """Whether an option is on the command line."""
    return click.get_current_context().get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE


@click.command("train-from-labels", cls=Command)
@click.argument("label_maps", type=FILE, nargs=-1, required=True)
@click.option("--out", type=FOLDER, default="from_labels", help="Gets cohorts, dataset and models.")
@click.option("--knees", type=click.IntRange(1), default=48, help="Knees to make from the label maps, and learn from.")
@click.option("--epochs", type=click.IntRange(1), help="How often each slice is shown [4].")
@click.option("--limit-slices", type=click.IntRange(1), help="Slices of an epoch, of all planes [4500].")
@click.option("--batch-size", type=click.IntRange(1), help="Slices in a step, over all devices together [4].")
@click.option(
    "--precision", type=click.Choice(TRAINING_PRECISIONS),
    help="Precision of the arithmetic; take float32 where the processor has no bfloat16 [mixed_bfloat16].",
)  # fmt: skip
@click.option("--init", metavar="FOLDER", help="Begin with the weights of a network that was trained before.")
@click.option("--licence", default="", metavar="TEXT", help="Of the networks; it is written into their cards [none].")
@weights_option
@seed_option
@jobs_option
def train_from_labels(label_maps: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Train networks from LABEL_MAPS alone, without an image.

    LABEL_MAPS are right knees numbered as pymskt does: 1 femoral, 2 medial tibial, 3 lateral tibial, 4 patellar
    cartilage, 5 femur, 6 tibia, 7 patella, 8 fibula, 9 lateral, 10 medial meniscus. Knees are deformed from them and
    rendered as scans of six protocols and of any contrast. One network learns all three planes. Finished steps are not
    done again, so the same command goes on after an interruption.

    \b
    knee3d train-from-labels knee_a.nrrd knee_b.nrrd --out runs/from_labels
    knee3d segment path/to/dicom --models runs/from_labels/models
    """
    from knee3d import api

    names = ("epochs", "limit_slices", "batch_size", "precision", "init", "encoder_weights")
    told = {name: options[name] for name in names} | {"seed": options["seed"]}
    model = api.train_from_labels(
        label_maps, out, knees=options["knees"], config=api.label_map_settings(**told), seed=options["seed"],
        jobs=options["jobs"], licence=options["licence"],
    )  # fmt: skip
    click.echo(f"{model.folder}")


@click.command(cls=Command)
@click.argument("models", type=FOLDER, default="models")
def card(models: Path) -> None:
    """Write the model cards of MODELS as a page, CARD.md, with curves.

    \b
    knee3d card models
    """
    from knee3d import api

    click.echo(f"{api.write_model_card_page(models)}")


@click.command(cls=Command)
@click.argument("models", type=FOLDER, default="models")
@click.option("--out", type=FOLDER, default="exported")
def export(models: Path, out: Path) -> None:
    """Write the trained planes as ONNX, and check that ONNX Runtime computes what the networks compute.

    The files take and give what the SavedModels do, see models/README.md. The packages needed are an extra: pip install
    'knee3d[onnx]'.

    \b
    knee3d export models --out for_dotnet
    """
    from knee3d import api

    failed = []
    for folder, difference in api.export_models_to_onnx(models, out):
        if isinstance(difference, Exception):
            failed.append(str(difference))
        else:
            click.echo(f"{folder}   differs from the network by {difference:.1e}")
    if failed:
        raise click.ClickException("; ".join(dict.fromkeys(failed)))

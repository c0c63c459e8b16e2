"""Names that options can be set to, for the command line and for checks. It imports no framework.

Tests compare each list with the table that it stands for.
"""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

NETWORKS = ("unet", "fcn", "deconvnet", "deeplab", "segnet", "pspnet", "fpn", "linknet", "unet3d")
"""Architectures, keys of `networks.architecture.NETWORKS`."""
VOLUME_NETWORK = "unet3d"
"""The architecture that sees patches of the volume instead of slices."""
ENCODERS = (
    "vgg16", "vgg19", "resnet18", "resnet34", "resnet50", "resnet101", "mobilenetv2", "efficientnetb0",
    "efficientnetb1", "efficientnetb2", "efficientnetb3", "efficientnetb4",
)  # fmt: skip
"""Encoders, keys of `networks.encoder.ENCODERS`."""
NO_ENCODER = "none"
"""The encoder of a network that has none."""
NETWORK_ENCODERS = {
    name: (NO_ENCODER,) if name == VOLUME_NETWORK else ENCODERS[:2] if name in ("fcn", "deconvnet", "deeplab", "segnet")
    else ENCODERS
    for name in NETWORKS
}  # fmt: skip
"""Architecture to the encoders that it takes; the first is its default."""
OPTIMIZERS = ("adam", "adamw", "sgd")
LOSSES = ("dice", "dice-ce", "generalised-dice", "tversky", "focal-tversky")
SCHEDULES = ("plateau", "cosine", "polynomial", "constant")
AUGMENTATIONS = ("none", "light", "medium", "strong")
TRAINING_PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
INFERENCE_PRECISIONS = ("auto", "float32", "bfloat16")
DIRECTION_SETS = ("sphere", "radial")
"""Sets of directions of oblique slices, keys of `geometry.directions.SPREADS`."""
LABEL_FORMATS = ("nifti", "nrrd", "mha", "seg-nrrd", "dicom-seg")
MESH_FORMATS = ("ply", "stl", "vtp")
FUSION_OBJECTIVES = ("foreground", "tissues")
FUSION_RULES = ("linear", "log", "vote")
SPLITS = ("train", "val", "test")
PIXEL_BITS = (8, 16)
RENDERERS = ("leg", "random-fields")
"""Ways to make images of phantoms from their labels, keys of `phantom.cohort.RENDERERS`; the first is the default."""
APPEARANCES = ("dess", "any")
"""Contrasts of the images of phantoms; the first is the default."""
MOST_OBLIQUE_VIEWS = 30
"""The largest number of directions of oblique slices."""


MANY = 12
"""If there are more choices than this, an error names the closest one first."""


def check_choice(name: str, value: object, known: Iterable[object]) -> None:
    """Refuse a value that is none of the known ones.

    Args:
        name: Name of the setting, for the message.
        value: Its value.
        known: The values that it can have.

    Raises:
        ValueError: It has another value. The message lists the known ones.

    Example:
        >>> check_choice("loss", "dise", LOSSES)
        Traceback (most recent call last):
        ValueError: unknown loss 'dise'; there are: dice, dice-ce, generalised-dice, tversky, focal-tversky
    """
    values: Collection[object] = tuple(known)
    if value not in values:
        close = get_close_matches(str(value), [str(one) for one in values], 1) if len(values) > MANY else []
        hint = f"did you mean {close[0]!r}? There are" if close else "there are"
        raise ValueError(f"unknown {name} {value!r}; {hint}: {', '.join(map(str, values))}")


AUTO_SPACING, NATIVE_SPACING = "auto", "native"
"""Words for the voxels of a model: the median of the knees, and those of each scan."""


def spacing_numbers(text: str) -> list[float]:
    """The sizes in mm of a choice of voxels such as "0.55,1.4".

    Args:
        text: One to three numbers with commas between them.

    Raises:
        ValueError: They are not one, two or three numbers of 0.05 to 10.

    Example:
        >>> spacing_numbers("0.55,1.4")
        [0.55, 1.4]
    """
    try:
        found = [] if "_" in text or not text.isascii() else [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not 1 <= len(found) <= 3 or not all(0.05 <= mm <= 10 for mm in found):
        raise ValueError(
            "--spacing is auto, native, or one to three sizes of 0.05 to 10.0 mm, such as 0.55,1.4 (size of pixels and "
            f"step between slices), not {text!r}"
        )
    return found


def spacing_text(spacing: object) -> str | None:
    """A choice of voxels as it is kept and compared, such as "0.55,1.4": equal numbers have one text.

    Args:
        spacing: None, a word, numbers with commas between them, one number, or a sequence of numbers.

    Raises:
        ValueError: It is none of these, see `spacing_numbers`.

    Example:
        >>> spacing_text((2.5, 4)) == spacing_text("2.5, 4.0") == "2.5,4"
        True
    """
    if spacing is None or (isinstance(spacing, str) and spacing in (AUTO_SPACING, NATIVE_SPACING)):
        return spacing
    values = [spacing] if isinstance(spacing, str) or not isinstance(spacing, Iterable) else list(spacing)
    return ",".join(f"{mm:.10g}" for mm in spacing_numbers(",".join(map(str, values))))


def check_type(name: str, value: object, *kinds: type) -> None:
    """Refuse an argument of another type, in words that name it.

    Args:
        name: Of the argument.
        value: What was given.
        kinds: The types that it may have.

    Raises:
        TypeError: It has none of these.

    Example:
        >>> check_type("epochs", "ten", int)
        Traceback (most recent call last):
        TypeError: epochs must be of type int, not str
    """
    if not isinstance(value, kinds):
        wanted = " or ".join(one.__name__ for one in kinds)
        raise TypeError(f"{name} must be of type {wanted}, not {type(value).__name__}")

"""Find the trained networks of a models folder or of its folds, and their fingerprints."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from knee3d.geometry.plane import Plane
from knee3d.geometry.view_names import OBLIQUE, SOLID
from knee3d.labels.label_scheme import LabelScheme
from knee3d.models.model_card import CARD, load_card


def is_trained(models: Path, view: str) -> bool:
    """Whether a view's network was trained to the end.

    Raises:
        ValueError: There is a network whose card is lost.
    """
    folder = models / view
    if (folder / CARD).is_file():
        return True
    if (folder / "model.keras").is_file() or (folder / "saved_model").is_dir():
        raise ValueError(
            f"{folder} holds a network without its {CARD}, which says what it is; bring that back, or move the folder "
            "away"
        )
    return False


def network_folders(models: Path) -> tuple[Path, ...]:
    """The folders whose networks are used together: the models folder itself, or the folders of a cross-validation.

    Folds (`fold-1-of-5`, ...) are an ensemble, as in nnU-Net: their networks' probabilities are averaged. They count
    where the folder has no network of its own. Of several cross-validations in one folder, none is taken.

    Raises:
        ValueError: There are folds of several cross-validations.
    """
    if any(is_trained(models, view) for view in _VIEWS):
        return (models,)
    folds = {path: found for path in models.glob("fold-*-of-*") if (found := _FOLD.fullmatch(path.name))}
    there = sorted(((int(found[1]), path) for path, found in folds.items() if _has_any(path)), key=lambda one: one[0])
    counts = {folds[path][2] for _, path in there}
    if len(counts) > 1:
        raise ValueError(
            f"{models} holds cross-validations of {' and of '.join(sorted(counts, key=int))} folds; move one away"
        )
    return tuple(path for _, path in there) or (models,)


def missing_folds(models: Path, view: str) -> str:
    """Name the folds in which a view is not trained, such as "2, 5 of 5"; empty if none is missing."""
    homes = network_folders(models)
    if homes == (models,):
        return ""
    count = int(_FOLD.fullmatch(homes[0].name)[2])  # type: ignore[index]
    there = {int(_FOLD.fullmatch(home.name)[1]) for home in homes if is_trained(home, view)}  # type: ignore[index]
    missing = [str(number) for number in range(1, count + 1) if number not in there]
    return f"{', '.join(missing)} of {count}" if missing else ""


_VIEWS = (*(plane.value for plane in Plane), SOLID, OBLIQUE)
_FOLD = re.compile(r"fold-(\d+)-of-(\d+)")


def _has_any(home: Path) -> bool:
    return any(is_trained(home, view) for view in _VIEWS)


def trained_views(models: Path) -> list[str]:
    """The planes, and the volume, of a models folder or its folds that were trained to the end."""
    return [view for view in _VIEWS if view != OBLIQUE and _is_anywhere(models, view)]


def _is_anywhere(models: Path, view: str) -> bool:
    return any(is_trained(home, view) for home in network_folders(models))


def list_networks(models: Path, need: bool = True) -> list[str]:
    """The networks in a folder itself, that of oblique slices too.

    Raises:
        FileNotFoundError: There is none, and one is needed.
    """
    found = [view for view in _VIEWS if is_trained(models, view)]
    if need and not found:
        homes = network_folders(models)
        if homes != (models,):
            raise FileNotFoundError(f"{models} holds the folds of a cross-validation; name one of them: {homes[0]}")
        raise _nothing_trained(models)
    return found


def _nothing_trained(models: Path) -> FileNotFoundError:
    """What to say of a folder without networks, or with none but the oblique one, which is used on request only."""
    if not models.is_dir():
        return FileNotFoundError(f"there is no folder {models}; a models folder is what knee3d-train writes")
    if _is_anywhere(models, OBLIQUE):
        return FileNotFoundError(f"{models} holds no trained plane; to use its oblique network give --views oblique:N")
    return FileNotFoundError(f"{models} holds no trained plane; train first: knee3d-train DATASET --models {models}")


def trained_networks(models: Path, planes: Sequence[str] = (), oblique: int = 0) -> tuple[str, ...]:
    """The folders of the networks that look at a knee together.

    Args:
        models: Where they lie.
        planes: Which of `trained_views`; none is every one.
        oblique: How many oblique views there are besides; one network computes all of them.

    Raises:
        FileNotFoundError: There is none, or one that is asked for is not there.
    """
    there = trained_views(models)
    names = ", ".join(there) or "none of a plane"
    if not there and not oblique:
        raise _nothing_trained(models)
    missing = [view for view in planes if view not in there]
    if missing:
        raise FileNotFoundError(f"{models} holds no {' and no '.join(missing)} plane, only {names}")
    wanted = [view for view in there if not planes or view in planes]
    if not oblique:
        return tuple(wanted)
    if not _is_anywhere(models, OBLIQUE):
        raise FileNotFoundError(
            f"{models} holds no network that was trained on oblique slices, only {names}; train one with "
            f"knee3d-train DATASET --plane {OBLIQUE} --models {models}, or leave --views out"
        )
    return (*wanted, OBLIQUE)


def label_scheme_of(models: Path, planes: Sequence[str] = (), oblique: int = 0) -> LabelScheme | None:
    """The classes of the networks, see `trained_networks`; None where cards cannot be read, which loading them says.

    Raises:
        FileNotFoundError: There is no such network.
    """
    name = trained_networks(models, planes, oblique)[0]
    home = next(home for home in network_folders(models) if is_trained(home, name))
    try:
        return load_card(home, name).scheme
    except (OSError, ValueError):
        return None


def network_fingerprint(models: Path, name: str) -> str:
    """A fingerprint of a network, or of those of all folds together.

    It is made of the index that holds a checksum of each tensor, and of how the network looks at a knee: of planes the
    name says how; of oblique slices and patches the card does.

    Raises:
        ValueError: There is no such index, or the card cannot be read.
    """
    folders = [home / name for home in network_folders(models) if is_trained(home, name)] or [models / name]
    prints = [_fingerprint_of(folder) for folder in folders]
    return prints[0] if len(prints) == 1 else hashlib.sha256(json.dumps(prints).encode()).hexdigest()[:16]


def _fingerprint_of(folder: Path) -> str:
    path, card = folder / "saved_model" / "variables" / "variables.index", load_card(folder.parent, folder.name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); train this plane again") from error
    if card.rotations or card.patch:
        seen = [card.rotations, card.patch, card.spacing_mm, card.whole_slices_only, card.directions_spread]
        content += json.dumps(seen).encode()
    if card.resampled_to:
        content += json.dumps(card.resampled_to).encode()
    return hashlib.sha256(content).hexdigest()[:16]

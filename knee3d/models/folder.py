"""Which networks lie in a models folder."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from knee3d.anatomy.plane import Plane
from knee3d.postprocess.oblique import OBLIQUE, direction_of, one_direction
from knee3d.postprocess.patches import SOLID


def is_trained(models: Path, view: str) -> bool:
    """Whether a view's network was trained to the end."""
    return (models / view / "card.json").is_file()


def trained_views(models: Path) -> list[str]:
    """The planes, and the volume, of a models folder that were trained to the end."""
    return [view for view in (*(plane.value for plane in Plane), SOLID) if is_trained(models, view)]


def _oblique_trained(models: Path) -> list[str]:
    """The networks of oblique slices of a models folder that were trained to the end."""
    names = (path.parent.name for path in sorted(models.glob(f"{OBLIQUE}*/card.json")))
    return [name for name in names if name == OBLIQUE or direction_of(name)]


def all_trained(models: Path, need: bool = True) -> list[str]:
    """`trained_views`, and the networks of oblique slices.

    Raises:
        FileNotFoundError: There is none, and one is needed.
    """
    found = [*trained_views(models), *_oblique_trained(models)]
    if need and not found:
        raise _nothing_trained(models)
    return found


def _nothing_trained(models: Path) -> FileNotFoundError:
    """What to say of a folder without networks, or with none but oblique ones, which are only asked by name."""
    if _oblique_trained(models):
        return FileNotFoundError(
            f"{models} holds no trained plane; to look with its oblique networks give --views oblique:N"
        )
    return FileNotFoundError(f"{models} holds no trained plane; train first: knee3d-train DATASET --models {models}")


def trained_networks(models: Path, planes: Sequence[str] = (), oblique: int = 0) -> tuple[str, ...]:
    """The folders of the networks that look at a knee together.

    Args:
        models: Where they lie.
        planes: Which of `trained_views`; none is every one.
        oblique: How many oblique views there are besides. One network is behind them all, or, where there is none, one
            behind each, which was trained on its direction of so many.

    Raises:
        FileNotFoundError: There is none, or one that is asked for is not there.
        ValueError: Oblique views could be of one network or of many.
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
    each = [one_direction(number, oblique) for number in range(1, oblique + 1)]
    lacking = [number for number, view in enumerate(each, start=1) if not is_trained(models, view)]
    if is_trained(models, OBLIQUE) and not lacking:
        raise ValueError(
            f"{models} holds one network for oblique slices and one for each of {oblique} directions, too; which is "
            "meant? Move the others away"
        )
    if is_trained(models, OBLIQUE):
        return (*wanted, OBLIQUE)
    if 0 < len(lacking) < oblique:
        raise FileNotFoundError(
            f"{models} holds no network for {', '.join(map(str, lacking))} of {oblique} oblique directions; train "
            f"them: knee3d-train DATASET --plane {OBLIQUE}-each --directions {oblique} --models {models} --resume"
        )
    if lacking:
        known = [direction_of(path.parent.name) for path in models.glob(f"{OBLIQUE}-*-of-*/card.json")]
        counts = sorted({direction[1] for direction in known if direction})
        if counts:
            raise FileNotFoundError(
                f"{models} holds no network for each of {oblique} oblique directions, but some for "
                f"{' or '.join(map(str, counts))}; say --views {OBLIQUE}:{counts[-1]}, or train the others"
            )
        raise FileNotFoundError(
            f"{models} holds no network that was trained on oblique slices, only {names}; train one with "
            f"knee3d-train DATASET --plane {OBLIQUE} --models {models}, or leave --views out"
        )
    return (*wanted, *each)


def mark(models: Path, name: str) -> str:
    """A fingerprint of a network: of the index that holds a checksum of each tensor, and of how it looks at a knee.

    Of planes the name says how; of oblique slices and patches the card does.

    Raises:
        ValueError: There is no such index, or the card cannot be read.
    """
    path, card = models / name / "saved_model" / "variables" / "variables.index", models / name / "card.json"
    try:
        said = json.loads(card.read_text())
        looks = [said.get(key) for key in ("turns", "patch", "spacing_mm", "whole_slices_only")]
        looks.append(said["settings"].get("spread"))
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{card} is not a readable model card; train this plane again") from error
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); train this plane again") from error
    return hashlib.sha256(content + (json.dumps(looks).encode() if looks[0] or looks[1] else b"")).hexdigest()[:16]

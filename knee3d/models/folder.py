"""Which networks lie in a models folder."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from knee3d.anatomy.plane import Plane
from knee3d.anatomy.tissue import SCHEMES, Scheme
from knee3d.postprocess.oblique import OBLIQUE
from knee3d.postprocess.patches import SOLID


def is_trained(models: Path, view: str) -> bool:
    """Whether a view's network was trained to the end."""
    return (models / view / "card.json").is_file()


def trained_views(models: Path) -> list[str]:
    """The planes, and the volume, of a models folder that were trained to the end."""
    return [view for view in (*(plane.value for plane in Plane), SOLID) if is_trained(models, view)]


def all_trained(models: Path, need: bool = True) -> list[str]:
    """`trained_views`, and the network of oblique slices.

    Raises:
        FileNotFoundError: There is none, and one is needed.
    """
    found = [*trained_views(models), *([OBLIQUE] if is_trained(models, OBLIQUE) else [])]
    if need and not found:
        raise _nothing_trained(models)
    return found


def _nothing_trained(models: Path) -> FileNotFoundError:
    """What to say of a folder without networks, or with none but the oblique one, which is used on request only."""
    if is_trained(models, OBLIQUE):
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
    if not is_trained(models, OBLIQUE):
        raise FileNotFoundError(
            f"{models} holds no network that was trained on oblique slices, only {names}; train one with "
            f"knee3d-train DATASET --plane {OBLIQUE} --models {models}, or leave --views out"
        )
    return (*wanted, OBLIQUE)


def scheme_of(models: Path, planes: Sequence[str] = (), oblique: int = 0) -> Scheme | None:
    """The classes of the networks, see `trained_networks`; None where cards cannot be read, which loading them says.

    Raises:
        FileNotFoundError: There is no such network.
    """
    card = models / trained_networks(models, planes, oblique)[0] / "card.json"
    try:
        return SCHEMES.get(json.loads(card.read_text())["scheme"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


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

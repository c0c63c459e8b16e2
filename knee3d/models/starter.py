"""The networks that come with knee3d, named "starter": unpacked into the user's cache at their first use.

In a checkout they lie packed in models/starter, and in an installed package in knee3d/starter, see `packed_models`.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import knee3d
from knee3d.lease import wait_for_lease
from knee3d.models.model_card import load_card
from knee3d.models.model_folder import list_networks
from knee3d.models.packed_record import PACKED, PackedModels

log = logging.getLogger(__name__)

STARTER = "starter"
"""What stands for the folder of these networks wherever a models folder is named."""
CACHE_VARIABLE = "KNEE3D_CACHE"
"""The environment variable that names another cache folder."""


def models_folder(models: Path | str) -> Path:
    """The models folder of a name: "starter" is that of the networks that come with knee3d.

    Args:
        models: A path, or "starter".

    Raises:
        FileNotFoundError: "starter" is asked for, and this installation has no such networks.
        ValueError: "starter" is asked for where a folder has this name, or the networks are damaged.
        OSError: The cache cannot be written.

    Example:
        >>> models_folder("models/oai")
        PosixPath('models/oai')
    """
    if str(models) != STARTER:
        return Path(models)
    if Path(STARTER).exists():
        raise ValueError(
            f"{STARTER} names the networks that come with knee3d, and {Path(STARTER).absolute()} is here, too; name "
            "that by its whole path, or start in another folder"
        )
    folder = unpacked_starter()
    population = load_card(folder, list_networks(folder)[0]).population
    log.info("the networks that come with knee3d, which learned from %s", population or "knees that nobody named")
    return folder


def is_starter(models: Path) -> bool:
    """Whether a models folder is that of the networks that come with knee3d, in the cache."""
    return models.parent == cache_folder() and models.name.startswith(f"{STARTER}-")


def packed_starter() -> Path:
    """The folder of the packed networks.

    Raises:
        FileNotFoundError: This installation has none.
    """
    package = Path(knee3d.__file__).parent
    for folder in (package / STARTER, package.parent / "models" / STARTER):
        if (folder / PACKED).is_file():
            return folder
    raise FileNotFoundError(f"this installation has no {STARTER} networks; name a folder of networks by --models")


def unpacked_starter() -> Path:
    """The models folder of the networks in the user's cache, which is written at their first use.

    Raises:
        FileNotFoundError: This installation has none.
        ValueError: A packed file is damaged.
        OSError: The cache cannot be written.
    """
    packed = packed_starter()
    content = (packed / PACKED).read_bytes()
    folder = cache_folder() / f"{STARTER}-{hashlib.sha256(content).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    try:  # before TensorFlow is imported
        PackedModels.from_json(content)
    except ValueError as error:
        raise ValueError(f"{packed / PACKED} is damaged ({error}); install knee3d again") from error
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with wait_for_lease(folder):
            if not folder.is_dir():
                from knee3d.models.packed_models import unpack_models

                log.info("unpacking the %s networks into %s, once", STARTER, folder)
                unpack_models(packed, folder)
    except OSError as error:
        raise OSError(
            f"the {STARTER} networks cannot be unpacked into {folder} ({error}); set {CACHE_VARIABLE} to another folder"
        ) from error
    return folder


def cache_folder() -> Path:
    """The folder for what can be made again: that of KNEE3D_CACHE, or knee3d in the user's cache."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "knee3d"

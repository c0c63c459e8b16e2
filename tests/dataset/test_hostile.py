"""Files that are broken at random: each ends in a volume or in an error of the room, in a moment, in little memory."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from knee3d.anatomy.orientation import Side
from knee3d.anatomy.tissue import SCHEMES
from knee3d.anatomy.volume import Volume
from knee3d.dataset.dicom.headers import DicomError
from knee3d.dataset.dicom.segmentation import write_segmentation
from knee3d.dataset.dicom.series import find_grids
from knee3d.dataset.dicom.writer import write_series
from knee3d.dataset.files.bare_arrays import BareArrayError
from knee3d.dataset.files.contours import ContourError
from knee3d.dataset.files.volumefile import VolumeFileError, write_volume
from knee3d.dataset.source import Choice, read_image, read_mask

EACH, EACH_MAT = 500, 60  # each .mat starts a process
SECONDS, BYTES = 20.0, 2 << 30
HEADER = {"dicom": 1200, "v.nii": 352, "v.nrrd": 400, "v.im": 2200, "labels.dcm": 8000, "o.mat": 2000}
MASKS = ("labels.dcm", "o.mat")
IPL = np.array([[0, 0, -0.7, 0], [0, -0.4, 0, 0], [-0.5, 0, 0, 0], [0, 0, 0, 1.0]])
TEXTS = (b"", b"\0", b"\xff" * 4, b"99999999", b"-1", b"nan", b"1e99", b"\x7f\xff\xff\xff", b"\0\0\0\x80")


def write_samples(folder: Path) -> None:
    volume = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), IPL)
    write_series(volume, folder / "dicom", Side.RIGHT, patient="P", description="DESS", seed=0)
    for name in ("v.nii", "v.nrrd"):
        write_volume(volume, folder / name)
    with h5py.File(folder / "v.im", "w") as file:
        file["data"] = volume.array
    grids = find_grids(folder / "dicom")
    labels = Volume((np.arange(60) % 7).astype(np.uint8).reshape(grids[0].shape), grids[0].affine)
    write_segmentation(labels, SCHEMES["iwoai"], Side.RIGHT, grids, folder / "labels.dcm", "P")
    entries = np.zeros((1, 5), [("MedialTibialCartilage", object), ("LateralTibialCartilage", object)])
    square = np.array([[0.0, 0], [3, 0], [3, 3], [0, 3]])
    for number in range(5):
        entries[0, number] = (square, np.zeros((0, 0))) if number < 2 else (np.zeros((0, 0)), square)
    savemat(folder / "o.mat", {"datastruct": entries}, do_compression=False)


def read(target: Path) -> None:
    if target.name in MASKS:
        image = Volume(np.zeros((3, 4, 5), np.int16), IPL)
        read_mask(target, lambda: (image, Side.RIGHT)).on_grid_of(image)
    else:
        read_image(target, Choice(spacing_mm=(0.5, 0.4, 0.7) if target.name == "v.im" else None))


def mutated(content: bytes, header: int, rng: np.random.Generator) -> bytes:
    """Some bytes of the header flipped, replaced, put in or taken out; now and then the file is cut off."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(0, min(header, max(1, len(changed)))))
        kind = rng.integers(0, 4)
        if kind == 0:
            changed[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            text = TEXTS[rng.integers(0, len(TEXTS))]
            changed[place : place + len(text)] = text
        elif kind == 2:
            changed[place:place] = rng.bytes(int(rng.integers(1, 9)))
        else:
            del changed[place : place + int(rng.integers(1, 9))]
    return bytes(changed[: rng.integers(1, len(changed))]) if rng.random() < 0.1 else bytes(changed)


def attack(folder: Path, name: str) -> dict[str, int]:
    """Read so many mutants of one sample; what was being read stands in `seed`, should the process die."""
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    target = folder / name
    victim = target / "IM0003.dcm" if target.is_dir() else target
    content = victim.read_bytes()
    ends = {"volume": 0, "refused": 0}
    for seed in range(EACH_MAT if name == "o.mat" else EACH):
        (folder / "seed").write_text(f"{name} {seed}")
        victim.write_bytes(mutated(content, HEADER[name], np.random.default_rng(seed)))
        started = time.monotonic()
        try:
            read(target)
            ends["volume"] += 1
        except (DicomError, VolumeFileError, BareArrayError, ContourError):
            ends["refused"] += 1
        assert time.monotonic() - started < SECONDS, f"{name} {seed} took too long"
    return ends


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.nightly if name == "o.mat" else ())
                                  for name in HEADER])  # fmt: skip
def test_mutants_of_valid_files_end_in_a_volume_or_in_our_own_error(tmp_path, name):
    write_samples(tmp_path)
    child = subprocess.run([sys.executable, __file__, str(tmp_path), name], capture_output=True, text=True)
    assert child.returncode == 0, f"seed {(tmp_path / 'seed').read_text()}: {child.stderr[-2000:]}"
    ends = json.loads(child.stdout.splitlines()[-1])
    assert sum(ends.values()) == (EACH_MAT if name == "o.mat" else EACH)
    assert min(ends.values()) > 0  # neither all harmless nor all hopeless


if __name__ == "__main__":
    sys.stdout.write(json.dumps(attack(Path(sys.argv[1]), sys.argv[2])))

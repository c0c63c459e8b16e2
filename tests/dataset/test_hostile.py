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

from knee3d.anatomy.orientation import Side
from knee3d.anatomy.volume import Volume
from knee3d.dataset.dicom.headers import DicomError
from knee3d.dataset.dicom.writer import write_series
from knee3d.dataset.files.hdf5 import Hdf5Error
from knee3d.dataset.files.volumefile import VolumeFileError, write_volume
from knee3d.dataset.source import Choice, read_image

EACH = 1000
SECONDS, BYTES = 20.0, 2 << 30
HEADER = {"dicom": 1200, "v.nii": 352, "v.nrrd": 400, "v.im": 2200}
IPL = np.array([[0, 0, -0.7, 0], [0, -0.4, 0, 0], [-0.5, 0, 0, 0], [0, 0, 0, 1.0]])
TEXTS = (b"", b"\0", b"\xff" * 4, b"99999999", b"-1", b"nan", b"1e99", b"\x7f\xff\xff\xff", b"\0\0\0\x80")


def write_samples(folder: Path) -> None:
    volume = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), IPL)
    write_series(volume, folder / "dicom", Side.RIGHT, patient="P", description="DESS", seed=0)
    for name in ("v.nii", "v.nrrd"):
        write_volume(volume, folder / name)
    with h5py.File(folder / "v.im", "w") as file:
        file["data"] = volume.array


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
    for seed in range(EACH):
        (folder / "seed").write_text(f"{name} {seed}")
        victim.write_bytes(mutated(content, HEADER[name], np.random.default_rng(seed)))
        started = time.monotonic()
        try:
            read_image(target, Choice(spacing_mm=(0.5, 0.4, 0.7) if name == "v.im" else None))
            ends["volume"] += 1
        except (DicomError, VolumeFileError, Hdf5Error):
            ends["refused"] += 1
        assert time.monotonic() - started < SECONDS, f"{name} {seed} took too long"
    return ends


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADER)
def test_mutants_of_valid_files_end_in_a_volume_or_in_our_own_error(tmp_path, name):
    write_samples(tmp_path)
    child = subprocess.run([sys.executable, __file__, str(tmp_path), name], capture_output=True, text=True)
    assert child.returncode == 0, f"seed {(tmp_path / 'seed').read_text()}: {child.stderr[-2000:]}"
    ends = json.loads(child.stdout.splitlines()[-1])
    assert sum(ends.values()) == EACH
    assert min(ends.values()) > 0  # neither all harmless nor all hopeless


if __name__ == "__main__":
    sys.stdout.write(json.dumps(attack(Path(sys.argv[1]), sys.argv[2])))

"""Files that are broken at random: each ends in a volume or in an error of the room, in a moment, in little memory.

More than the tests try, of one sample: python tests/io/test_hostile.py FOLDER v.nii 2000
"""

import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedMRImageStorage
from scipy.io import savemat

from knee3d.dataset.manifest import read_manifest
from knee3d.geometry.knee_image import KneeImage
from knee3d.geometry.orientation import Side
from knee3d.geometry.volume import Volume
from knee3d.io.archive import ArchiveError
from knee3d.io.array_file import ArrayFileError
from knee3d.io.dicom.headers import DicomError
from knee3d.io.dicom.segmentation import write_segmentation
from knee3d.io.dicom.series import find_slice_grids
from knee3d.io.dicom.writer import write_series
from knee3d.io.image_source import ReadOptions, read_image, read_mask
from knee3d.io.label_names_file import read_label_names
from knee3d.io.outlines import OutlineError
from knee3d.io.slicer_segmentation import segmentation_header
from knee3d.io.volume_file import VolumeFileError, write_volume
from knee3d.labels.label_scheme import SCHEMES

FEW, EACH, EACH_MAT = 100, 500, 60  # each .mat starts a process
SECONDS, BYTES = 20.0, 2 << 30
HEADER = {
    "dicom": 1200, "enhanced": 3000, "z.zip": 1200, "v.nii": 352, "pair.hdr": 348, "v.nrrd": 400, "v.im": 2200,
    "v.npy": 128, "labels.dcm": 8000, "s.seg.nrrd": 1500, "o.mat": 2000, "knees.csv": 300, "labels.ctbl": 300,
    "dataset.json": 200,
}  # fmt: skip
"""Of each file or folder of files, where it is broken: so many bytes from the beginning."""
SELDOM = ("enhanced", "z.zip", "labels.dcm", "o.mat", "labels.ctbl")
OURS = (DicomError, VolumeFileError, ArrayFileError, OutlineError, ArchiveError)
MASKS = ("labels.dcm", "s.seg.nrrd", "o.mat")
BARE = ReadOptions(spacing_mm=(0.5, 0.4, 0.7), axes="IPR")
IPL = np.array([[0, 0, -0.7, 0], [0, -0.4, 0, 0], [-0.5, 0, 0, 0], [0, 0, 0, 1.0]])
TEXTS = (b"", b"\0", b"\xff" * 4, b"99999999", b"-1", b"nan", b"1e99", b"\x7f\xff\xff\xff", b"\0\0\0\x80")


def write_samples(folder: Path) -> None:
    volume = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), IPL)
    write_series(volume, folder / "dicom", Side.RIGHT, patient="P", description="DESS", seed=0)
    for name in ("v.nii", "v.nrrd"):
        write_volume(volume, folder / name)
    nib.save(nib.Nifti1Pair.from_image(nib.load(folder / "v.nii")), folder / "pair.hdr")
    np.save(folder / "v.npy", volume.array)
    (folder / "enhanced").mkdir()
    make_enhanced(folder / "dicom").save_as(folder / "enhanced" / "IM0003.dcm")
    shutil.make_archive(str(folder / "z"), "zip", folder / "enhanced")
    names = SCHEMES["iwoai"].names
    (folder / "dataset.json").write_text(json.dumps({"labels": {name: n for n, name in enumerate(names, start=1)}}))
    table = [f"{n} {name.replace(' ', '_')} 255 0 0 255" for n, name in enumerate(names, start=1)]
    (folder / "labels.ctbl").write_text("\n".join(table))
    rows = [f"k{n},P{n},V0,{side},images/k{n}.nii,masks/k{n}.nii,train" for n, side in enumerate("RLRL")]
    (folder / "knees.csv").write_text("\n".join(["case,patient,visit,side,image,mask,split", *rows]))
    with h5py.File(folder / "v.im", "w") as file:
        file["data"] = volume.array
    grids = find_slice_grids(folder / "dicom")
    labels = Volume((np.arange(60) % 7).astype(np.uint8).reshape(grids[0].shape), grids[0].affine)
    write_volume(labels, folder / "s.seg.nrrd", segmentation_header(SCHEMES["iwoai"], labels.shape))
    write_segmentation(labels, SCHEMES["iwoai"], Side.RIGHT, grids, folder / "labels.dcm", "P")
    entries = np.zeros((1, 5), [("MedialTibialCartilage", object), ("LateralTibialCartilage", object)])
    square = np.array([[0.0, 0], [3, 0], [3, 3], [0, 3]])
    for number in range(5):
        entries[0, number] = (square, np.zeros((0, 0))) if number < 2 else (np.zeros((0, 0)), square)
    savemat(folder / "o.mat", {"datastruct": entries}, do_compression=False)


def read(target: Path) -> None:
    if target.name == "knees.csv":
        read_manifest(target, must_exist=False)
    elif target.suffix in (".ctbl", ".json"):
        read_label_names(str(target))
    elif target.name in MASKS:
        image = Volume(np.zeros((3, 4, 5), np.int16), IPL)
        read_mask(target, lambda: KneeImage(image.array, image.affine, Side.RIGHT)).on_grid_of(image)
    else:
        read_image(target, BARE if target.suffix in (".im", ".npy") else ReadOptions())


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


def make_enhanced(folder: Path) -> Dataset:
    """The slices of a folder as frames of one file."""
    images = [dcmread(path) for path in sorted(folder.iterdir())]
    many, shared, measures, orientation = images[0], Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, orientation.ImageOrientationPatient = many.PixelSpacing, many.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    places = []
    for image in images:
        place, position = Dataset(), Dataset()
        position.ImagePositionPatient = image.ImagePositionPatient
        place.PlanePositionSequence = [position]
        places.append(place)
    many.PixelData = b"".join(image.PixelData for image in images)
    many.NumberOfFrames, many.SOPClassUID = len(images), EnhancedMRImageStorage
    many.SharedFunctionalGroupsSequence, many.PerFrameFunctionalGroupsSequence = [shared], places
    return many


def attack(folder: Path, name: str, count: int) -> dict[str, int]:
    """Read so many mutants of one sample; what was being read stands in `seed`, should the process die."""
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    target = folder / name
    victim = target / "IM0003.dcm" if target.is_dir() else target
    content = victim.read_bytes()
    ends = {"volume": 0, "refused": 0}
    tables = target.suffix in (".csv", ".ctbl", ".json")
    ours = (ValueError, FileNotFoundError) if tables else OURS
    for seed in range(count):
        (folder / "seed").write_text(f"{name} {seed}")
        victim.write_bytes(mutated(content, HEADER[name], np.random.default_rng(seed)))
        started = time.monotonic()
        try:
            read(target)
            ends["volume"] += 1
        except ours as refused:
            error = str(refused)
            ends["refused"] += 1
        else:
            error = name
        assert any(one in error for one in (target.stem, ".dcm")), f"{name} {seed}: {error} names no file"
        assert time.monotonic() - started < SECONDS, f"{name} {seed} took too long"
    victim.write_bytes(content)
    return ends


def attack_in_a_process(folder: Path, names: list[str], count: int) -> list[dict[str, int]]:
    """What `attack` says of each sample."""
    write_samples(folder)
    command = [sys.executable, __file__, str(folder), ",".join(names), str(count)]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == 0, f"seed {(folder / 'seed').read_text()}: {child.stderr[-2000:]}"
    found = [json.loads(line) for line in child.stdout.splitlines() if line.startswith("{")]
    assert len(found) == len(names)
    for name, ends in zip(names, found, strict=True):
        assert sum(ends.values()) == count, name
    return found


@pytest.mark.slow
def test_a_few_mutants_of_valid_files_end_in_a_volume_or_in_our_own_error(tmp_path):
    """The first of those below, of all files in one process."""
    found = attack_in_a_process(tmp_path, [name for name in HEADER if name not in SELDOM], FEW)
    assert all(ends["refused"] for ends in found)
    assert any(ends["volume"] for ends in found)  # of some the first harmless one comes later


@pytest.mark.nightly
@pytest.mark.parametrize("name", HEADER)
def test_mutants_of_valid_files_end_in_a_volume_or_in_our_own_error(tmp_path, name):
    (ends,) = attack_in_a_process(tmp_path, [name], EACH_MAT if name == "o.mat" else EACH)
    assert min(ends.values()) > 0  # neither all harmless nor all hopeless


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(exist_ok=True)
    if not (Path(sys.argv[1]) / sys.argv[2].split(",")[0]).exists():
        write_samples(Path(sys.argv[1]))
    for name in sys.argv[2].split(","):
        sys.stdout.write(json.dumps(attack(Path(sys.argv[1]), name, int(sys.argv[3]))) + "\n")

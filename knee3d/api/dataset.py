"""Dataset: knees that were cut into PNG slices, ready for training."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knee3d.choices import check_choice
from knee3d.dataset.case_collection import CaseCollection, Split, load_cases
from knee3d.geometry.plane import Plane

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(CaseCollection):
    """Prepared knees in a folder: PNG slices in three planes, with masks where there are some.

    Attributes:
        folder: The folder, with cases.json and a folder for each knee.
        scheme: The classes of the masks.
        cases: The knees.

    Raises:
        ValueError: Two knees have one name.

    Example:
        >>> data = Dataset.load("data/oai")       # doctest: +SKIP
        >>> data.train.to_frame().side.value_counts()       # doctest: +SKIP
    """

    @classmethod
    def load(cls, folder: Path | str) -> Dataset:
        """Read a dataset that `knee3d.prepare` made.

        Args:
            folder: The folder of the dataset.

        Raises:
            FileNotFoundError: The folder holds no cases.json.
            ValueError: cases.json cannot be read.
        """
        return cls.of(load_cases(Path(folder)))

    @classmethod
    def of(cls, data: CaseCollection | Path | str) -> Dataset:
        """The dataset itself, or the one in a folder.

        Args:
            data: A dataset, or its folder.
        """
        if isinstance(data, cls):
            return data
        if isinstance(data, CaseCollection):
            return cls(**{one.name: getattr(data, one.name) for one in fields(CaseCollection)})
        return cls.load(data)

    @property
    def train(self) -> Dataset:
        """The labelled knees of the training split."""
        return self._of(Split.TRAIN)

    @property
    def val(self) -> Dataset:
        """The labelled knees of the validation split."""
        return self._of(Split.VAL)

    @property
    def test(self) -> Dataset:
        """The labelled knees of the test split."""
        return self._of(Split.TEST)

    def slices(
        self,
        plane: Plane | str,
        *,
        split: str = "train",
        batch_size: int = 8,
        context: int = 1,
        shuffle: bool | None = None,
        seed: int = 0,
        cache: str | None = None,
    ) -> tf.data.Dataset:
        """Stream slices and masks for a Keras model.

        Args:
            plane: "axial", "coronal" or "sagittal".
            split: "train", "val" or "test".
            batch_size: Slices in a batch; the last batch of an epoch may be smaller.
            context: Neighbours on each side of a slice, which become channels.
            shuffle: Whether each epoch has an order of its own. None shuffles the training split only.
            seed: Seed of the order.
            cache: None decodes PNGs at every epoch. "memory" keeps the voxels, any other text names a folder for them.

        Returns:
            Batches of (images, masks): uint8 (batch, height, width, 2 * context + 1) and uint8 (batch, height, width).
            Slices of knees of unlike size are padded with 0 below and to the right.

        Raises:
            ValueError: The split has no labelled knee, or there is no such plane.
        """
        from knee3d.training.input_pipeline import slice_batches
        from knee3d.training.sampler import SliceSampler
        from knee3d.training.slice_stack import PlaneStack

        check_choice("plane", str(getattr(plane, "value", plane)), [one.value for one in Plane])
        if batch_size < 1 or context < 0:
            raise ValueError(f"batch_size must be 1 or more and context 0 or more, got {batch_size} and {context}")
        which = Split(split)
        shuffled = which is Split.TRAIN if shuffle is None else shuffle
        stacks = [PlaneStack.of(self, case, Plane(plane)) for case in self.of_split(which)]
        return slice_batches(stacks, SliceSampler(context), batch_size, seed if shuffled else None, cache)

    def to_frame(self) -> pd.DataFrame:
        """The knees as a table.

        Returns:
            Columns case, patient, visit, side, split, labelled, and the number of voxels and the voxel size in mm along
            each of inferior, posterior and left.
        """
        import pandas as pd

        axes = ("inferior", "posterior", "left")
        rows: list[dict[str, Any]] = [
            {
                "case": case.name, "patient": case.patient, "visit": case.visit, "side": case.side.value,
                "split": case.split.value, "labelled": case.labelled,
                **{f"voxels_{axis}": size for axis, size in zip(axes, case.shape, strict=True)},
                **{f"spacing_{axis}_mm": float(mm) for axis, mm in zip(axes, case.spacing_mm, strict=True)},
            }
            for case in self.cases
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def __len__(self) -> int:
        """Number of knees."""
        return len(self.cases)

    def __repr__(self) -> str:
        splits = self.split_counts() or "no knees"
        return f"Dataset({str(self.folder)!r}, {splits}; {self.scheme.name}: {', '.join(self.scheme.names)})"

    def _of(self, split: Split) -> Dataset:
        return replace(self, cases=self.of_split(split))

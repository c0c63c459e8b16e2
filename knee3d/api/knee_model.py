"""KneeModel: the trained networks of a folder and their fusion. It segments, is fitted and is scored."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from knee3d.api.dataset import Dataset
from knee3d.api.evaluation import EvaluationConfig, evaluate_models, fit_fusion_of_models
from knee3d.api.segment_config import SegmentConfig
from knee3d.api.segment_image import segment_image
from knee3d.api.segmentation import Segmentation
from knee3d.choices import check_type
from knee3d.geometry.knee_image import KneeImage
from knee3d.geometry.orientation import Side, find_side
from knee3d.geometry.plane import Plane
from knee3d.inference.trained_models import TrainedModels, load_models, models_fingerprint
from knee3d.labels.label_scheme import LabelScheme
from knee3d.models.model_folder import label_scheme_of, trained_networks
from knee3d.models.starter import is_starter, models_folder
from knee3d.postprocess.blend import Weights
from knee3d.postprocess.fusion_fit import Fusion, FusionConfig
from knee3d.report.evaluation_scores import Evaluation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KneeModel:
    """The networks of a models folder and their fusion weights.

    Networks are read at their first use, and again where files of the folder have changed.

    Attributes:
        folder: The models folder, as `train` fills it.
        config: How knees are segmented where a call says nothing else.

    Raises:
        FileNotFoundError: The folder holds no trained network, or none of a plane that is asked for.

    Example:
        >>> model = KneeModel.load("models")                          # doctest: +SKIP
        >>> model.segment(knee3d.read("path/to/dicom")).volumes_mm3   # doctest: +SKIP
        {'femoral cartilage': 12045.1, 'tibial cartilage': 5034.2, 'patellar cartilage': 3110.9}
    """

    folder: Path
    config: SegmentConfig = SegmentConfig()
    _loaded: dict[str, TrainedModels] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        planes: Sequence[Plane | str] | Plane | str = (),
        fast: bool = False,
        precision: str = "auto",
        device: str | None = None,
    ) -> KneeModel:
        """Find the trained networks of a folder.

        Args:
            folder: The models folder, or that of the folds of a cross-validation, which are averaged. "starter": the
                networks that come with knee3d.
            planes: The planes to use, such as "sagittal". The default uses all that are there.
            fast: Whether to compute only the region of interest of each knee.
            precision: "auto", "float32" or "bfloat16", see `SegmentConfig`.
            device: "cpu", "gpu" or "gpu:1". None takes the first GPU, or the processor.

        Raises:
            FileNotFoundError: There is no trained network, or none of a plane that is asked for.
            ValueError: A setting has a value that it cannot have.
        """
        wanted = (planes,) if isinstance(planes, Plane | str) else planes
        config = SegmentConfig(
            planes=tuple(str(getattr(one, "value", one)) for one in wanted), fast=fast, precision=precision,
            device=device,
        )  # fmt: skip
        return cls(models_folder(folder), config)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", models_folder(self.folder))
        check_type("config", self.config, SegmentConfig)
        trained_networks(self.folder, self.config.planes, self.config.oblique_views)

    @property
    def view_names(self) -> tuple[str, ...]:
        """Names of the views whose networks are used, such as ("axial", "coronal", "sagittal")."""
        return trained_networks(self.folder, self.config.planes, self.config.oblique_views)

    @property
    def scheme(self) -> LabelScheme | None:
        """The classes that the networks tell apart; None where their cards cannot be read."""
        return label_scheme_of(self.folder, self.config.planes, self.config.oblique_views)

    @property
    def weights(self) -> Weights:
        """View name to fusion weight, or to a weight for each class; equal ones before `fit_fusion`."""
        return self.trained.ensemble.weights

    @property
    def trained(self) -> TrainedModels:
        """The networks, loaded, with their fusion weights."""
        from knee3d.models.backend import choose_backend

        fingerprint = models_fingerprint(self.folder, self.config.planes, self.config.oblique_views)
        if fingerprint not in self._loaded:
            backend = choose_backend(self.config.precision, self.config.device)
            found = load_models(
                self.folder, planes=self.config.planes, engine=backend, oblique=self.config.oblique_views
            )
            self._loaded.clear()
            self._loaded[fingerprint] = found
        return self._loaded[fingerprint]

    def segment(self, image: KneeImage, *, side: Side | str | None = None) -> Segmentation:
        """Segment the image of a knee.

        Args:
            image: The image, from `knee3d.read`, in any order of axes.
            side: "R" or "L" where the image does not know it. None takes the side of the image.

        Returns:
            Labels on the grid of the image, volumes in mm3, and quality flags.

        Raises:
            ValueError: The image cannot be segmented: it is constant, its side is unknown and matters, or its voxels
                are of another size than those of training.
        """
        known = image if side is None else replace(image, side=find_side(side))
        return segment_image(known, self.trained, self.config)

    def fit_fusion(
        self,
        data: Dataset | Path | str,
        *,
        objective: str = "foreground",
        rule: str = "linear",
        weights: Mapping[str, float] | None = None,
        per_tissue: bool = False,
        thresholds: bool = False,
        seed: int = 0,
    ) -> Fusion:
        """Find the weights of the views that maximise Dice on validation knees, and keep them in the models folder.

        Predictions are kept beside the models, so an interrupted fit goes on, and another rule needs no networks.

        Args:
            data: Validation knees: `data.val`, or the whole dataset, of which the validation split is taken. Of the
                folds of a cross-validation, each knee is predicted by the fold that was validated on it.
            objective: "foreground" counts all tissues as one class, as the paper does. "tissues" averages over them.
            rule: "linear": weighted mean of probabilities. "log": of their logarithms. "vote": weighted votes.
            weights: View name to weight, adding up to 1, to be taken as they are. None fits them.
            per_tissue: Whether a tissue may have weights of its own where Dice gains.
            thresholds: Whether a tissue may have a probability threshold where Dice gains.
            seed: Seed of the bootstrap over patients.

        Returns:
            The weights keyed by view name, their bootstrap intervals over patients, and the Dice that they reach.

        Raises:
            ValueError: A knee belongs to a patient whom a network was trained on, there is no tissue to fit on, or the
                networks are those that come with knee3d.
        """
        check_type("weights", {} if weights is None else weights, Mapping)
        if is_starter(self.folder):
            raise ValueError(
                "the fusion weights of the starter networks are the same for everybody; to fit others, copy "
                f"{self.folder} and fit those of the copy"
            )
        config = FusionConfig(objective, rule, weights, per_tissue, thresholds, seed)
        return fit_fusion_of_models(Dataset.of(data), self.folder, config, self.config.oblique_views)

    def evaluate(
        self,
        data: Dataset | Path | str,
        out: Path | str | None = None,
        *,
        surfaces: bool = True,
        compare: bool = False,
        pictures: bool = True,
    ) -> Evaluation:
        """Score each view and the fusion against the masks of knees.

        Args:
            data: Labelled knees of one split: `data.test`, or the whole dataset, of which the test split is taken.
            out: A folder that gets scores.json, scores.csv, confusion.png and overview/<case>.png. None writes nothing.
            surfaces: Whether to measure distances between surfaces.
            compare: Whether to score other ways of fusion too: plain mean, logarithmic pool, votes and STAPLE.
            pictures: Whether to draw each case, where `out` is given.

        Returns:
            Scores of each case and pooled, with 95 % bootstrap intervals over patients. `to_frame()` gives a table,
            `print` the most important numbers.

        Raises:
            ValueError: A patient of the validation or test split was trained on.
        """
        config = EvaluationConfig(compare, self.config.cleaning, surfaces, pictures)
        target = None if out is None else Path(out)
        return evaluate_models(Dataset.of(data), self.folder, target, config, self.config.oblique_views)

    def __repr__(self) -> str:
        scheme = self.scheme
        classes = "unreadable cards" if scheme is None else f"{scheme.name}: {', '.join(scheme.names)}"
        return f"KneeModel({str(self.folder)!r}, {' + '.join(self.view_names)}, {classes})"

"""Evaluation: the scores of each view and of the fusion, as scores.json, as CSV, and as tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table

from knee3d.geometry.view_names import FUSED
from knee3d.postprocess.assessment import CaseAssessment, ConfidenceInterval, mean_scores
from knee3d.postprocess.cleaning import NOTHING, CleaningConfig
from knee3d.postprocess.confusion_matrix import accuracy, cohens_kappa
from knee3d.records import Number, Record
from knee3d.report.quality_record import QualityRecord
from knee3d.report.tables import format_number, is_known, tables_as_text, write_csv

if TYPE_CHECKING:
    import pandas as pd

POOLED = "pooled"
MEANS = "mean"
DICE = "dice"
FEW_PATIENTS = 10
"""Below this, bootstrap intervals are rough, and too narrow: they know no other patients than these few."""
SHOWN = {
    "dice": "Dice",
    "volume_difference": "relative volume difference",
    "assd_mm": "ASSD mm",
    "hd95_mm": "HD95 mm",
}
"""Measures of the terminal's table of means, and their headings."""


@dataclass(frozen=True)
class ViewScores:
    """The scores of one view, or of the fusion, for one case or for all cases pooled. NaN is not known.

    Attributes:
        measures: The name of the measure to the tissue to the value, see `CaseAssessment.measures`. The tissues are
            followed by "foreground", which is any tissue, and by "mean", the mean over tissues.
        accuracy: The share of the voxels whose class is right.
        kappa: Cohen's kappa.
        miou_classes: The mean IoU over all classes, background included: the formula of the paper.
        miou_foreground: The IoU of any tissue against background: the numbers of the paper.
        confusion_matrix: The counts of voxels; rows are truth, columns prediction, and class 0 is background.
        absent: The tissue to the reason why its surface could not be measured.
    """

    measures: Mapping[str, Mapping[str, Number]]
    accuracy: Number
    kappa: Number
    miou_classes: Number
    miou_foreground: Number
    confusion_matrix: tuple[tuple[int, ...], ...]
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def dice(self) -> Mapping[str, float]:
        """Dice of each tissue, of "foreground" and their "mean", in [0, 1]."""
        return self.measures[DICE]


@dataclass(frozen=True)
class MeanScore:
    """A mean over cases, with its 95 % bootstrap interval over patients.

    Attributes:
        mean: The mean over the cases that have a value; NaN where no case has one.
        low: The lower end of the interval; NaN with fewer than two patients.
        high: The upper end of the interval.
        cases: The number of cases that have a value.
    """

    mean: Number
    low: Number
    high: Number
    cases: int


class ScoreRow(NamedTuple):
    """One score, as a row of scores.csv.

    Attributes:
        case: The name of the case, "pooled" for all cases together, or "mean" for the mean over cases.
        view: The name of the view.
        tissue: The name of the tissue, "foreground", "mean", or "all" for a score of all classes.
        measure: The name of the measure.
        value: The score; NaN where it is not known.
        low: The lower end of the 95 % interval of a mean; NaN for other scores.
        high: The upper end of that interval.
    """

    case: str
    view: str
    tissue: str
    measure: str
    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, eq=False)
class Evaluation(Record):
    """The scores of each view and of the fusion, as scores.json keeps them.

    Attributes:
        pooled: The name of the view to its scores over all cases together: their confusion matrices are added, so there
            are no distances of surfaces. The name of the fusion is "fused".
        cases: The name of the case to the name of the view to the scores of the case.
        means: The name of the view to the measure to the tissue to the mean over cases.
        notes: What weakens the means and their intervals, in sentences.
        split: The split of the cases: "train", "val" or "test".
        weights: The name of the view to its fusion weight, or to one weight for each class.
        cleaning: Pieces and holes that were removed from the view "fused, cleaned".
        other_voxels: The name of a case whose voxels the networks do not know, to what is wrong with them.
        quality: The name of the case to its quality control.
    """

    pooled: Mapping[str, ViewScores]
    cases: Mapping[str, Mapping[str, ViewScores]]
    means: Mapping[str, Mapping[str, Mapping[str, MeanScore]]]
    notes: tuple[str, ...]
    split: str = ""
    weights: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)
    cleaning: CleaningConfig = NOTHING
    other_voxels: Mapping[str, str] = field(default_factory=dict)
    quality: Mapping[str, QualityRecord] = field(default_factory=dict)

    @property
    def fused(self) -> ViewScores | None:
        """The scores of the fusion over all cases pooled; None where only views by themselves were scored."""
        return self.pooled.get(FUSED)

    @property
    def dice(self) -> dict[str, float]:
        """Dice of the fusion over all cases pooled, in [0, 1]: each tissue, "foreground" and "mean"; NaN if unknown."""
        return {} if self.fused is None else dict(self.fused.dice)

    def to_frame(self) -> pd.DataFrame:
        """All scores as a table in long form.

        Returns:
            Columns case ("pooled" over cases and their "mean" among them), view, tissue, measure, value, low and high,
            the ends of the 95 % interval.
        """
        import pandas as pd

        return pd.DataFrame(scores_rows(self), columns=list(ScoreRow._fields))

    def tables(self) -> tuple[Table, Table]:
        """The tables of rich that `knee3d evaluate` prints: pooled Dice, and means over cases."""
        return scores_table(self), means_table(self)

    def __str__(self) -> str:
        """The tables that `knee3d evaluate` prints."""
        return tables_as_text(*self.tables())

    def __repr__(self) -> str:
        dice = ", ".join(f"{name} {value:.3f}" for name, value in self.dice.items())
        cases = f"{len(self.cases)} case{'' if len(self.cases) == 1 else 's'}"
        return f"Evaluation({self.split}, {cases}, fused Dice: {dice})"

    def _repr_html_(self) -> str:
        """The pooled Dice as a table, for notebooks."""
        frame = self.to_frame()
        pooled = frame[(frame.case == POOLED) & (frame.measure == DICE)]
        return str(pooled.pivot(index="view", columns="tissue", values="value").to_html(float_format="{:.4f}".format))


def summarise_cases(
    cases: Mapping[str, Mapping[str, CaseAssessment]], patients: Mapping[str, str] | None = None
) -> Evaluation:
    """The scores of all cases, their pooled scores and their means.

    Args:
        cases: The name of the case to the name of the view to its assessment. Views are planes, "fused" and other ways
            of fusion, the same for each case, so that pooled columns can be compared.
        patients: The name of the case to its patient; None if each case is a patient of its own.

    Returns:
        The evaluation, which does not say yet of which split the cases are and how they were predicted.

    Raises:
        ValueError: There is no case, or cases differ in their views or their tissues.
    """
    if not cases:
        raise ValueError("there is no case to summarise")
    first, *others = cases
    views = tuple(cases[first])
    for case in others:
        if set(cases[case]) != set(views):
            raise ValueError(f"case {first!r} has views {sorted(views)} but {case!r} has {sorted(cases[case])}")
    whose = [case if patients is None else patients[case] for case in cases]
    return Evaluation(
        pooled={
            view: _scores(CaseAssessment(reduce(add, (assessed[view].scores for assessed in cases.values())), {}))
            for view in views
        },
        cases={case: {view: _scores(assessed[view]) for view in views} for case, assessed in cases.items()},
        means={
            view: {
                measure: {tissue: _mean_score(interval) for tissue, interval in tissues.items()}
                for measure, tissues in mean_scores(
                    [assessed[view].measures for assessed in cases.values()], whose
                ).items()
            }
            for view in views
        },
        notes=_notes(len(set(whose))),
    )


def _scores(assessment: CaseAssessment) -> ViewScores:
    scores = assessment.scores
    return ViewScores(
        measures=assessment.measures,
        accuracy=accuracy(scores.matrix),
        kappa=cohens_kappa(scores.matrix),
        miou_classes=scores.mean_iou_classes,
        miou_foreground=scores.foreground_iou,
        confusion_matrix=tuple(tuple(row) for row in scores.matrix.tolist()),
        absent={name: one.reason for name, one in assessment.surfaces.items() if one.reason},
    )


def _mean_score(interval: ConfidenceInterval) -> MeanScore:
    return MeanScore(interval.mean, interval.low, interval.high, interval.cases)


def _notes(patients: int) -> tuple[str, ...]:
    if patients == 1:
        return ("all cases are of one patient, which says nothing of others: there are no intervals",)
    if patients < FEW_PATIENTS:
        return (f"{patients} patients are few: intervals over them are rough, and mostly too narrow",)
    return ()


def scores_table(evaluation: Evaluation) -> Table:
    """Pooled Dice: rows are views, the fusion last, columns are tissues, foreground and mean.

    Four digits, the best of each column in bold, "-" for a tissue that is absent from both sides.
    """
    views = dict(_pooled_views(evaluation))
    table = Table(title="Dice, all cases pooled")
    table.add_column("")
    columns = []
    for tissue in next(iter(views.values())).dice:
        table.add_column(tissue, justify="right")
        columns.append(_cells([scores.dice[tissue] for scores in views.values()]))
    for view, row in zip(views, zip(*columns, strict=True), strict=True):
        table.add_row(view, *row)
    return table


def means_table(evaluation: Evaluation) -> Table:
    """Means over cases of the fused view, or of the only one: rows are tissues, columns the measures of `SHOWN`."""
    view = FUSED if FUSED in evaluation.means else next(iter(evaluation.means))
    found = {measure: tissues for measure, tissues in evaluation.means[view].items() if measure in SHOWN}
    cases = len(evaluation.cases)
    title = f"{view}: mean over {cases} case{'' if cases == 1 else 's'} (95 % interval over patients)"
    table = Table(title=title, caption="; ".join(evaluation.notes) or None, caption_justify="left")
    table.add_column("tissue")
    for measure in found:
        table.add_column(SHOWN[measure], justify="right")
    for tissue in found[DICE]:
        table.add_row(tissue, *(_interval_cell(tissues.get(tissue)) for tissues in found.values()))
    return table


def _interval_cell(interval: MeanScore | None) -> str:
    if interval is None or not is_known(interval.mean):
        return "-"
    if not is_known(interval.low):
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f}\n{interval.low:.3f} to {interval.high:.3f}"


def scores_rows(evaluation: Evaluation) -> list[ScoreRow]:
    """All scores in long form.

    Cases come first, then "pooled", then the "mean" over cases, which alone has the ends of its interval, low and
    high. Measures are those of `CaseAssessment.measures`, and accuracy, kappa, miou_classes and miou_foreground of
    "all".

    Raises:
        ValueError: A case is itself named "pooled" or "mean".
    """
    for name in (POOLED, MEANS):
        if name in evaluation.cases:
            raise ValueError(f"a case named {name!r} cannot be told from the {name} rows; give it another name")
    rows = [
        ScoreRow(case, view, tissue, measure, value)
        for case, views in [*evaluation.cases.items(), (POOLED, dict(_pooled_views(evaluation)))]
        for view, scores in views.items()
        for tissue, measure, value in _long_form(scores)
    ]
    return rows + [
        ScoreRow(MEANS, view, tissue, measure, interval.mean, interval.low, interval.high)
        for view, measures in evaluation.means.items()
        for measure, tissues in measures.items()
        for tissue, interval in tissues.items()
    ]


def write_scores_csv(evaluation: Evaluation, path: Path) -> None:
    """Write a line for each of `scores_rows`; the cell of a score that is not known is empty.

    Raises:
        ValueError: A case is itself named "pooled" or "mean".
    """
    write_csv(path, ScoreRow._fields, scores_rows(evaluation))


def _pooled_views(evaluation: Evaluation) -> Iterator[tuple[str, ViewScores]]:
    """The pooled scores of each view, those of the fusion last."""
    for view, scores in evaluation.pooled.items():
        if view != FUSED:
            yield view, scores
    if evaluation.fused is not None:
        yield FUSED, evaluation.fused


def _long_form(scores: ViewScores) -> Iterator[tuple[str, str, float]]:
    """Tissue, measure and value of each score."""
    for measure, tissues in scores.measures.items():
        for tissue, value in tissues.items():
            yield tissue, measure, value
    yield "all", "accuracy", scores.accuracy
    yield "all", "kappa", scores.kappa
    yield "all", "miou_classes", scores.miou_classes
    yield "all", "miou_foreground", scores.miou_foreground


def _cells(values: Sequence[float]) -> list[str]:
    cells = [format_number(value, 4) for value in values]
    known = [cell for cell in cells if cell != "-"]
    if len(cells) == 1 or not known:
        return cells
    return [f"[bold]{cell}[/bold]" if cell == max(known) else cell for cell in cells]

"""Scores and volumes as JSON, CSV and tables for the terminal."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from rich.console import Console
from rich.table import Table

from knee3d.atomic import whole_file
from knee3d.geometry.view_names import FUSED
from knee3d.postprocess.assessment import CaseAssessment, mean_scores
from knee3d.postprocess.confusion_matrix import accuracy, cohens_kappa

POOLED = "pooled"
MEANS = "mean"
FEW_PATIENTS = 10
"""Below this, bootstrap intervals are rough, and too narrow: they know no other patients than these few."""
UNIT_SIGNS = {"mm3": "mm³", "mm2": "mm²", "mm": "mm", "%": "%"}
"""Names of units in files, and how they are written for people."""
DIGITS = 7
"""Significant ones of numbers in CSV files, as many as float32 has; JSON has all."""
SHOWN = {
    "dice": "Dice",
    "volume_difference": "volume difference",
    "assd_mm": "ASSD mm",
    "hd95_mm": "HD95 mm",
}
"""Measures of the terminal's table of means, and their headings."""


def evaluation_summary(
    cases: Mapping[str, Mapping[str, CaseAssessment]], patients: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Every score of an evaluation, ready for JSON.

    Args:
        cases: Case name to view name to what it scored; views are plane names and "fused", the same for each case, so
            that pooled columns can be compared.
        patients: Case name to patient; None if each case is a patient of its own.

    Returns:
        {"planes": {plane: scores}, "fused": scores, "cases": {case: {view: scores}}, "means": {view: {measure:
        {tissue: {"mean", "low", "high", "cases"}}}}, "notes": [words]}. The first two are pooled over cases (their
        confusion matrices added, so without surfaces), and "fused" is None when no case has that view. Each scores is
        {measure: {tissue: value, ..., "foreground": value, "mean": value}, "accuracy", "kappa", "miou_classes": mean
        IoU over all classes, background included (the paper's formula), "miou_foreground": IoU of any tissue against
        background (the paper's numbers), "confusion_matrix": counts, rows truth}, and of a case "absent": {tissue: why
        its surface could not be measured}. Measures are those of `CaseAssessment.measures`. What cannot be said is
        None. Means are over cases, with 95 % bootstrap intervals over patients; notes say what weakens these.

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
    pooled = {
        view: _numbers(CaseAssessment(reduce(add, (assessed[view].scores for assessed in cases.values())), {}))
        for view in views
    }
    whose = [case if patients is None else patients[case] for case in cases]
    return {
        "planes": {view: numbers for view, numbers in pooled.items() if view != FUSED},
        "fused": pooled.get(FUSED),
        "cases": {case: {view: _numbers(assessed[view]) for view in views} for case, assessed in cases.items()},
        "means": {
            view: {
                measure: {tissue: to_plain_json(asdict(interval)) for tissue, interval in tissues.items()}
                for measure, tissues in mean_scores(
                    [assessed[view].measures for assessed in cases.values()], whose
                ).items()
            }
            for view in views
        },
        "notes": _notes(len(set(whose))),
    }


def _notes(patients: int) -> list[str]:
    if patients == 1:
        return ["all cases are of one patient, which says nothing of others: there are no intervals"]
    if patients < FEW_PATIENTS:
        return [f"{patients} patients are few: intervals over them are rough, and mostly too narrow"]
    return []


def scores_table(summary: Mapping[str, Any]) -> Table:
    """Pooled Dice of an `evaluation_summary`: rows are planes and fused, columns tissues, foreground and mean.

    Four digits, the best of each column in bold, "-" for a tissue that is absent from both sides.
    """
    views = _pooled_views(summary)
    table = Table(title="Dice, all cases pooled")
    table.add_column("")
    columns = []
    for tissue in next(iter(views.values()))["dice"]:
        table.add_column(tissue, justify="right")
        columns.append(_cells([numbers["dice"][tissue] for numbers in views.values()]))
    for view, row in zip(views, zip(*columns, strict=True), strict=True):
        table.add_row(view, *row)
    return table


def means_table(summary: Mapping[str, Any]) -> Table:
    """Means over cases of the fused view, or of the only one: rows are tissues, columns the measures of `SHOWN`."""
    view = FUSED if summary["fused"] is not None else next(iter(summary["means"]))
    found = {measure: tissues for measure, tissues in summary["means"][view].items() if measure in SHOWN}
    cases = len(summary["cases"])
    title = f"{view}: mean over {cases} case{'' if cases == 1 else 's'} (95 % interval over patients)"
    table = Table(title=title, caption="; ".join(summary["notes"]) or None, caption_justify="left")
    table.add_column("tissue")
    for measure in found:
        table.add_column(SHOWN[measure], justify="right")
    for tissue in found["dice"]:
        table.add_row(tissue, *(_interval_cell(tissues.get(tissue)) for tissues in found.values()))
    return table


def _interval_cell(interval: Mapping[str, Any] | None) -> str:
    if interval is None or interval["mean"] is None:
        return "-"
    if interval["low"] is None:
        return f"{interval['mean']:.3f}"
    return f"{interval['mean']:.3f}\n{interval['low']:.3f} to {interval['high']:.3f}"


def is_known(value: float | None) -> TypeGuard[float]:
    """Whether it is a finite number."""
    return value is not None and math.isfinite(value)


def format_number(value: float | None, digits: int, unknown: str = "-") -> str:
    """A number as it is looked at, with thousands parted; other words where it is not known."""
    return f"{value:,.{digits}f}" if is_known(value) else unknown


def write_json(obj: Any, path: Path) -> None:
    """Write JSON, whole or not at all; numpy numbers and arrays are taken, NaN and infinity become null."""
    write_text(json.dumps(to_plain_json(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write text in UTF-8, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


SCORES_COLUMNS = ("case", "view", "tissue", "measure", "value", "low", "high")


def scores_rows(summary: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """An `evaluation_summary` in long form, the columns of `SCORES_COLUMNS`.

    Cases come first, then "pooled", then the "mean" over cases, which alone has the ends of its interval, low and
    high. Measures are those of `CaseAssessment.measures`, and accuracy, kappa, miou_classes and miou_foreground of
    "all". What is not known is None.

    Raises:
        ValueError: A case is itself named "pooled" or "mean".
    """
    for name in (POOLED, MEANS):
        if name in summary["cases"]:
            raise ValueError(f"a case named {name!r} cannot be told from the {name} rows; give it another name")
    rows: list[tuple[Any, ...]] = [
        (case, view, tissue, measure, value, None, None)
        for case, views in [*summary["cases"].items(), (POOLED, _pooled_views(summary))]
        for view, numbers in views.items()
        for tissue, measure, value in _long_form(numbers)
    ]
    return rows + [
        (MEANS, view, tissue, measure, *(interval[key] for key in ("mean", "low", "high")))
        for view, measures in summary["means"].items()
        for measure, tissues in measures.items()
        for tissue, interval in tissues.items()
    ]


def write_scores_csv(summary: Mapping[str, Any], path: Path) -> None:
    """Write `scores_rows` of an `evaluation_summary`; what is not known is empty.

    Raises:
        ValueError: A case is itself named "pooled" or "mean".
    """
    write_csv(path, SCORES_COLUMNS, scores_rows(summary))


def tables_as_text(*tables: Table, width: int = 120) -> str:
    """Tables as plain text, for `print`.

    Args:
        tables: Tables of rich.
        width: Characters of a line.
    """
    text = io.StringIO()
    console = Console(file=text, width=width, no_color=True)
    for table in tables:
        console.print(table)
    return text.getvalue()


def write_volumes_csv(path: Path, volumes_mm3: Mapping[str, Mapping[str, float]]) -> None:
    """Write tissue volumes of cases, a row for each: case, tissue, volume_mm3.

    Args:
        path: The CSV file.
        volumes_mm3: Case to tissue to mm3.
    """
    rows = [(case, name, mm3) for case, volumes in volumes_mm3.items() for name, mm3 in volumes.items()]
    write_csv(path, ("case", "tissue", "volume_mm3"), rows)


MOST_FAILURES = 50


def _numbers(assessment: CaseAssessment) -> dict[str, Any]:
    scores = assessment.scores
    absent = {name: one.reason for name, one in assessment.surfaces.items() if one.reason}
    return to_plain_json({
        **assessment.measures,
        "accuracy": accuracy(scores.matrix),
        "kappa": cohens_kappa(scores.matrix),
        "miou_classes": scores.mean_iou_classes,
        "miou_foreground": scores.foreground_iou,
        "confusion_matrix": scores.matrix,
        **({"absent": absent} if absent else {}),
    })  # fmt: skip


def _pooled_views(summary: Mapping[str, Any]) -> dict[str, Any]:
    fused = summary["fused"]
    return {**summary["planes"], **({} if fused is None else {FUSED: fused})}


def _long_form(numbers: Mapping[str, Any]) -> Iterable[tuple[str, str, float | None]]:
    for measure, value in numbers.items():
        if isinstance(value, Mapping) and measure != "absent":
            for tissue, one in value.items():
                yield tissue, measure, one
        elif not isinstance(value, Mapping | list):
            yield "all", measure, value


def _cells(values: Sequence[float | None]) -> list[str]:
    cells = [format_number(value, 4) for value in values]
    known = [cell for cell in cells if cell != "-"]
    if len(cells) == 1 or not known:
        return cells
    return [f"[bold]{cell}[/bold]" if cell == max(known) else cell for cell in cells]


def to_plain_json(obj: Any) -> Any:
    """The same with numpy values as Python's own, and None for NaN and infinity."""
    if isinstance(obj, Mapping):
        return {str(key): to_plain_json(value) for key, value in obj.items()}
    if isinstance(obj, np.ndarray | np.generic):
        return to_plain_json(obj.tolist())
    if isinstance(obj, list | tuple):
        return [to_plain_json(value) for value in obj]
    return None if isinstance(obj, float) and not math.isfinite(obj) else obj


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], digits: int | None = DIGITS) -> None:
    """Write a table, whole or not at all; None and what is no finite number become empty cells.

    Args:
        path: The CSV file.
        header: Names of columns.
        rows: Their cells.
        digits: Significant ones of numbers with a fraction; None writes all, for tables that are read back.
    """
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_csv_cell(cell, digits) for cell in row] for row in rows)


def _csv_cell(cell: object, digits: int | None) -> object:
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return ""
    if digits is None or not isinstance(cell, float):
        return cell
    return f"{cell:.{digits}g}" if abs(cell) < 10**digits else f"{cell:.0f}"


LONGEST_NAME = 16
"""Characters of a file's name in a column; its path has all."""
_HEADINGS = ("series", "echo", "ms", "images", "voxels", "mm", "plane", "side")


def findings_lines(findings: Iterable[Mapping[str, Any]], one_line: bool) -> list[str]:
    """What could be read from a path, from `case_collection.inspection.rows`, in columns; nothing where nothing could.

    Args:
        findings: Those with a problem are left out.
        one_line: Whether path and description stand behind the numbers; otherwise below them, for narrow terminals.
    """
    whole = [one for one in findings if not one["problem"]]
    if not whole:
        return []
    cells = [_HEADINGS, *(_finding_cells(one) for one in whole)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    texts = ["path, description", *(f"{one['path']}  {one['description']}" for one in whole)]
    lines = []
    for row, text in zip(cells, texts, strict=True):
        columns = " ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        seen = "".join(letter if letter.isprintable() else "?" for letter in text).rstrip()
        lines += [f"{columns} {seen}"] if one_line else [columns.rstrip(), f"  {seen}"]
    return lines


def _finding_cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    shape, spacing = ("x".join(f"{number:.4g}" for number in one[key]) for key in ("shape", "spacing_mm"))
    name = one["name"] if len(one["name"]) <= LONGEST_NAME else f"...{one['name'][3 - LONGEST_NAME :]}"
    texts = (name, one["echo"], one["time_ms"], one["images"], shape, spacing, one["plane"], one["side"])
    return tuple("" if text is None else str(text) for text in texts)

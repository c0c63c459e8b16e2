"""Repeatability of measures, and change between two visits, from measured knees.

repeatability: OUT/repeatability.json  repeatability.csv  bland-altman.pdf
compare:         OUT/compare.json  compare.csv
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from knee3d import __version__
from knee3d.api.segmentation_record import RECORD, check_output_folder
from knee3d.api.timepoints import Timepoint, check_comparable, load_timepoint, load_timepoints, origin_differences
from knee3d.dataset.manifest import read_csv_rows
from knee3d.morphometry.change import measurement_changes
from knee3d.morphometry.repeatability import pair_measurements, repeatability_statistics
from knee3d.report.change import ComparisonResult, KneeComparison, change_rows, write_change_csv
from knee3d.report.repeatability import (
    PairedCases,
    RepeatabilityResult,
    read_repeatability,
    repeatability_rows,
    write_repeatability_csv,
)

log = logging.getLogger(__name__)

REPEATABILITY = ("repeatability.json", "repeatability.csv", "bland-altman.pdf")
COMPARISON = ("compare.json", "compare.csv")
"""Files of results, those first by which the others are known."""
COLUMNS = ("first", "second")
FEW = 10
"""Pairs below which the error of measurement itself is hardly known: its interval is 0.7 to 1.8 times it, or wider."""


@dataclass(frozen=True)
class TestRetestPair:
    """A knee that was measured twice.

    Attributes:
        first: One time.
        second: The other.
        patient: Pseudonym; empty where not said.
    """

    first: Timepoint
    second: Timepoint
    patient: str = ""


def repeatability(table: Path | str, out: Path | str = "repeatability") -> RepeatabilityResult:
    """Compute how well measures repeat, from knees that were scanned and measured twice.

    A pair that cannot be used does not stop the others.

    Args:
        table: CSV with the columns first and second, and optionally patient. Each path is the folder of a measured knee
            or its measures.csv, relative to the table.
        out: The folder that gets repeatability.json, repeatability.csv and bland-altman.pdf. Nothing is written where
            no pair can be used.

    Returns:
        Bias, 95 % limits of agreement, RMS-CV, smallest detectable change and ICC(2,1) of each measure.

    Raises:
        FileNotFoundError: There is no table.
        ValueError: It is not such a table, `out` is the folder of a knee, or it holds such files of someone else.

    Example:
        >>> repeatability("retests.csv", "repeatability").to_frame()       # doctest: +SKIP
    """
    from knee3d.report.bland_altman_figure import bland_altman_figure

    table, out = Path(table), Path(out)
    _check_place(out, REPEATABILITY)
    pairs, failures = _pairs(table)
    numbers = pair_measurements([(pair.first.measures, pair.second.measures) for pair in pairs])
    found = {quantity: repeatability_statistics(first, second) for quantity, (first, second) in numbers.items()}
    made_by, notes = _made_by(pairs)
    result = RepeatabilityResult(
        knee3d=__version__,
        pairs=tuple(PairedCases(pair.first.case, pair.second.case) for pair in pairs),
        patients=len({pair.patient or f"pair {number}" for number, pair in enumerate(pairs)}),
        failures=failures,
        notes=tuple(notes),
        made_by=made_by,
        measures=repeatability_rows(found),
    )
    for note in notes:
        log.warning("%s", note)
    if pairs:
        record, table_of_all, plots = (out / name for name in REPEATABILITY)
        result.write(record)
        write_repeatability_csv(result.measures, table_of_all)
        if any(one.pairs for one in found.values()):
            bland_altman_figure(numbers, found, plots)
    return result


def compare(
    baseline: Path | str, followup: Path | str, *, error: Path | str | None = None, out: Path | str | None = None
) -> ComparisonResult:
    """Compute what has changed of one knee or several between two visits.

    Args:
        baseline: The folder of a measured knee, a measures.csv, or a folder of such folders.
        followup: The same of the later visit. Several knees are matched by name.
        error: A repeatability.json: a change is then compared with the smallest detectable change. None cannot tell
            change from error.
        out: The folder that gets compare.json and compare.csv. None writes nothing.

    Returns:
        Baseline, follow-up, change, change in percent, and a verdict for each measure of each knee.

    Raises:
        FileNotFoundError: There is nothing at a path.
        ValueError: A table or the error is wrong, no knee has the name of another, `out` is the folder of a knee or
            holds such files of someone else, or the only two knees differ in side or scheme.

    Example:
        >>> compare("labels/9001-00", "labels/9001-12").to_frame()       # doctest: +SKIP
    """
    baseline, followup = Path(baseline), Path(followup)
    out = None if out is None else Path(out)
    if out is not None:
        _check_place(out, COMPARISON)
    repeated = None if error is None else read_repeatability(Path(error))
    smallest = None if repeated is None else repeated.smallest_detectable_changes
    of_error = {} if repeated is None else repeated.made_by
    pairs, failures = _matched(load_timepoints(baseline), load_timepoints(followup))
    for case, why in failures.items():
        log.error("%s %s", case, why)
    knees: list[KneeComparison] = []
    for pair in pairs:
        try:
            notes = check_comparable(pair.first, pair.second) + _other_error(pair, of_error)
        except ValueError as refused:
            if len(pairs) == 1 and not failures:
                raise
            failures[pair.first.case] = str(refused)
            log.error("%s", refused)
            continue
        for note in notes:
            log.warning("%s: %s", pair.first.case, note)
        rows = change_rows(measurement_changes(pair.first.measures, pair.second.measures), smallest)
        knees.append(KneeComparison(pair.first.case, pair.second.case, tuple(notes), rows))
    result = ComparisonResult(__version__, smallest is not None, tuple(knees), failures)
    if out is not None and knees:
        record, table = (out / name for name in COMPARISON)
        result.write(record)
        write_change_csv(knees, table)
    return result


def _check_place(out: Path, files: Sequence[str]) -> None:
    if (out / RECORD).is_file():
        raise ValueError(f"{out} is the folder of a knee, which holds nothing else; give another --out")
    check_output_folder(out, files[0], files[1:])


def _pairs(table: Path) -> tuple[list[TestRetestPair], dict[str, str]]:
    """The pairs of a table that can be used, and why others cannot."""
    pairs: list[TestRetestPair] = []
    failures: dict[str, str] = {}
    seen: dict[frozenset[tuple[Path, str]], int] = {}
    for line, row in read_csv_rows(table, COLUMNS).items():
        first, second, patient = row["first"], row["second"], row.get("patient", "")
        name = f"{first or '?'} and {second or '?'}"
        try:
            if not first or not second:
                raise ValueError("a pair needs both first and second")
            visits = [load_timepoint((table.parent / words).resolve()) for words in (first, second)]
            pair = TestRetestPair(visits[0], visits[1], patient)
            notes = check_comparable(pair.first, pair.second)
            _check_repeated(pair)
            both = frozenset((visit.place, visit.case) for visit in visits)
            if seen.setdefault(both, line) != line:
                raise ValueError(f"is the pair of line {seen[both]} again; remove one")
        except (ValueError, OSError) as error:
            failures[f"line {line}"] = f"{name}: {error}"
            log.error("line %d: %s: %s", line, name, error)
            continue
        for note in notes:
            log.warning("%s: %s", name, note)
        pairs.append(pair)
    return pairs, failures


def _check_repeated(pair: TestRetestPair) -> None:
    """Refuse what would make the error smaller than it is.

    Raises:
        ValueError: Both are the same table, or of the same image, segmented in the same way, or all measures are equal.
    """
    first, second = pair.first, pair.second
    if first.place == second.place or (first.origin is not None and first.origin == second.origin):
        raise ValueError("both are of one image and made in the same way, which says nothing of error; scan it twice")
    values = [{(one.tissue, one.region, one.measure): repr(one.value) for one in visit.measures}
              for visit in (first, second)]  # fmt: skip
    if values[0] == values[1]:
        raise ValueError("all measures of both are the same: is it one result under two names? scan it twice")


def _made_by(pairs: Sequence[TestRetestPair]) -> tuple[dict[str, str], list[str]]:
    """What all knees of pairs were made by, as far as it is the same; and what weakens the answer."""
    origins = [visit.origin for pair in pairs for visit in (pair.first, pair.second) if visit.origin is not None]
    notes = []
    if len({origin.scheme for origin in origins}) > 1:
        notes.append("pairs are of different schemes: each measure is from those that have it")
    patients = [pair.patient for pair in pairs if pair.patient]
    if len(set(patients)) < len(patients):
        notes.append(f"{len(patients)} pairs are of {len(set(patients))} patients: intervals take knees as independent "
                     "and are too narrow")  # fmt: skip
    if 0 < len(pairs) < FEW:
        verb = "pairs are" if len(pairs) > 1 else "pair is"
        notes.append(f"{len(pairs)} {verb} few: the smallest detectable change is uncertain, see its interval")
    first = origins[0].made_by if origins else {}
    common = {name: words for name, words in first.items() if all(one.made_by.get(name) == words for one in origins)}
    return common, notes


def _matched(
    baseline: Mapping[str, Timepoint], followup: Mapping[str, Timepoint]
) -> tuple[list[TestRetestPair], dict[str, str]]:
    """Knees of the same name; single ones whatever they are called."""
    if len(baseline) == len(followup) == 1:
        [one], [other] = baseline.values(), followup.values()
        return [TestRetestPair(one, other)], {}
    common = [case for case in baseline if case in followup]
    if not common:
        some = [", ".join([*visits][:3]) for visits in (baseline, followup)]
        raise ValueError(
            f"no knee at baseline has the name of one at follow-up: {some[0]}; {some[1]}; give one of each"
        )
    failures = {case: "is at baseline only" for case in baseline if case not in followup}
    failures |= {case: "is at follow-up only" for case in followup if case not in baseline}
    return [TestRetestPair(baseline[case], followup[case]) for case in common], failures


def _other_error(pair: TestRetestPair, of_error: Mapping[str, str]) -> list[str]:
    """Whether the error was measured of knees that were made otherwise."""
    origin = pair.second.origin
    if origin is None or not of_error:
        return []
    mine = {name: words for name, words in origin.made_by.items() if name in of_error}
    other = origin_differences({name: of_error[name] for name in mine}, mine)
    return [f"the error was measured of knees made differently: {words}" for words in other]

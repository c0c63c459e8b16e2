"""What a study found: its table, and answers in words."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from knee3d.dataset.case_collection import CaseCollection, Split
from knee3d.geometry.plane import Plane
from knee3d.postprocess.assessment import bootstrap_interval

Line = Mapping[str, Any]
COSTS = {"million parameters": ("parameters", 1e-6), "GFLOP a knee": ("gflop", 1.0), "s a knee": ("seconds", 1.0)}


def written(lines: Sequence[Line], dataset: CaseCollection, kinds: Sequence[str]) -> str:
    """The table and the answers, as Markdown.

    Args:
        lines: Of results.jsonl.
        dataset: Of the first of the kinds.
        kinds: Of voxels of the knees.
    """
    counts = {split: dataset.of_split(split) for split in (Split.TRAIN, Split.VAL, Split.TEST)}
    said = ", ".join(
        f"{len(cases)} {split.value} ({len({case.patient for case in cases})} patients)"
        for split, cases in counts.items()
    )
    said_of = list(answers(lines, kinds))
    return "\n".join([
        "# What study.py found", "",
        f"Knees: {said}. Took {sum({line['cell']: line['took'] for line in lines}.values()) / 60:.0f} minutes.", "",
        *(row for kind in kinds for row in _table(kind, lines, dataset.scheme.names)),
        f"Each network was trained once. {len(said_of)} comparisons, not corrected for their number:", "", *said_of, "",
        "What each plane sees of the training knees:", "", *balance(dataset), "",
    ])  # fmt: skip


def _table(kind: str, lines: Sequence[Line], tissues: Sequence[str]) -> Iterator[str]:
    """Of the knees of a kind; what things cost only where it is known of any."""
    mine = sorted(
        (line for line in lines if line["knees"] == kind),
        key=lambda line: (line["network"] != "unet", line["network"]),
    )
    if mine:
        costs = {name: cost for name, cost in COSTS.items() if any(cost[0] in line for line in mine)}
        head = ["network", "way", *tissues, "mean Dice (95 %)", "ASSD mm", "missed", "volume error", *costs]
        rows = [head, ["---"] * len(head), *(_row(line, tissues, costs.values()) for line in mine)]
        yield from (f"Voxels {kind}:", "", *("| " + " | ".join(row) + " |" for row in rows), "")


def _row(line: Line, tissues: Sequence[str], costs: Iterable[tuple[str, float]]) -> list[str]:
    mean = bootstrap_interval(_numbers(line["dice"]["mean"]), line["patients"])
    distances = np.array([_numbers(line["assd_mm"][tissue]) for tissue in tissues])
    errors = np.array([_numbers(line["volume_difference"][tissue]) for tissue in tissues])
    return [
        line["network"], line["way"],
        *(f"{np.nanmean(_numbers(line['dice'][tissue])):.3f}" for tissue in tissues),
        f"{mean.mean:.3f} ({mean.low:.3f} to {mean.high:.3f})",
        f"{np.nanmean(distances):.2f}" if np.isfinite(distances).any() else "",
        str(np.count_nonzero(np.isnan(distances))),
        f"{np.nanmean(np.abs(errors)):.1%}",
        *(f"{line[key] * factor:.3g}" if key in line else "" for key, factor in costs),
    ]  # fmt: skip


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def answers(lines: Sequence[Line], kinds: Sequence[str]) -> Iterator[str]:
    """What the numbers say, in words; differences are paired by knee."""
    found = {(line["network"], line["way"], line["knees"]): line for line in lines}
    planes, usual = [plane.value for plane in Plane], kinds[0]
    there = [("unet", plane, usual) for plane in planes if ("unet", plane, usual) in found]
    fitted, equal = (("unet", f"three planes, {way}", usual) for way in ("fitted", "equal"))
    for way in (fitted, equal):
        for plane in sorted(there, key=lambda key: -np.nanmean(_numbers(found[key]["dice"]["mean"])))[:1]:
            yield "- Does fusion beat the best plane (best on these very knees)? " + compared(found, way, plane)
    yield "- Do fitted weights beat equal ones? " + compared(found, fitted, equal)
    for kind in kinds:
        yield "- Does the axial plane lose? " + compared(found, ("unet", planes[0], kind), ("unet", planes[2], kind))
    others = sorted({key for key in found if "oblique" in key[1]})
    for way in others:
        yield "- Do more axes help? " + compared(found, way, equal)
    shared = ("unet", "three planes, one network, equal", usual)
    yield "- Is one network for all planes as good as three? " + compared(found, shared, equal)
    yield "- What does 3D gain? " + compared(found, ("unet3d", "volume", usual), equal)
    for network in sorted({key[0] for key in found} - {"unet", "unet3d"}):
        yield "- Is another network better? " + compared(found, (network, "three planes, equal", usual), equal)


def compared(found: Mapping[tuple[str, str, str], Line], one: tuple[str, str, str], other: tuple[str, str, str]) -> str:
    """The difference of two ways in mean Dice, each patient counting once, and whether these networks differ.

    Of networks that were trained anew with another seed it says nothing: there is one training of each.
    """
    if one not in found or other not in found:
        return "Not run yet."
    change = _numbers(found[one]["dice"]["mean"]) - _numbers(found[other]["dice"]["mean"])
    patients = np.array(found[one]["patients"])
    each = np.array([np.nanmean(change[patients == patient]) for patient in dict.fromkeys(patients)])
    interval = bootstrap_interval(each, list(dict.fromkeys(patients)))
    p = stats.wilcoxon(each).pvalue if np.any(each) else 1.0
    clear = (interval.low > 0 or interval.high < 0) and p < 0.05
    return (
        f"{one[1]} ({one[0]}) against {other[1]} ({other[0]}), {one[2]}: mean Dice {interval.mean:+.3f} "
        f"({interval.low:+.3f} to {interval.high:+.3f}), Wilcoxon p = {p:.3f}, {len(each)} patients; "
        f"{'these networks differ' if clear else 'no difference that these knees could show'}."
    )


def balance(dataset: CaseCollection) -> Iterator[str]:
    """Of each plane: spacing within its slices, how many have tissue, how much of these is tissue."""
    masks = [dataset.mask(case) for case in dataset.of_split(Split.TRAIN)]
    spacing = np.median([mask.spacing_mm for mask in masks], axis=0)
    for plane in Plane:
        across = tuple(axis for axis in range(3) if axis != plane.axis)
        shares = np.concatenate([
            np.count_nonzero(mask.array, axis=across) / np.prod([mask.shape[axis] for axis in across])
            for mask in masks
        ])  # fmt: skip
        yield (
            f"- {plane.value}: pixels of {spacing[across[0]]:.2f} x {spacing[across[1]]:.2f} mm, slices "
            f"{spacing[plane.axis]:.2f} mm apart; {np.mean(shares > 0):.0%} of them show tissue, which is "
            f"{np.mean(shares[shares > 0]):.1%} of these"
        )

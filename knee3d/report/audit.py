"""The page of an audit: counts, a row for each case, and a picture to click on."""

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from knee3d.atomic import whole_file
from knee3d.report.tables import write_csv

_PLAIN = ("case", "patient", "visit", "side", "split")
_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #1b2a41; background: #fff }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: .25em .7em; text-align: left; vertical-align: top; border-bottom: 1px solid #dde3ea }
.bad { color: #b3261e } figure { display: inline-block; margin: .5em; width: 560px; vertical-align: top }
img { width: 100%; border-radius: 4px } figcaption { font-weight: 600 } figcaption span { font-weight: 400 }
"""


def write_audit_page(summary: Mapping[str, Any], pictures: str, path: Path) -> None:
    """Write one HTML page without scripts.

    Args:
        summary: See `dataset.audit.summary_of`.
        pictures: Folder of <case>.png, relative to the page.
        path: Of the page.
    """
    tissues = summary["tissues"]
    noted = sum(bool(case["notes"]) for case in summary["cases"])
    leak = summary["leak"]
    splits = (
        (name, one["cases"], one["patients"], " ".join(f"{side}:{count}" for side, count in one["sides"].items()),
         *(f"{one['voxels'][tissue]:,}" for tissue in tissues))
        for name, one in summary["splits"].items()
    )  # fmt: skip
    cases = (
        (case["case"], case["patient"], case["visit"], case["side"] or "?", case["split"] or "unlabelled",
         " x ".join(map(str, case["shape"])), " x ".join(f"{mm:g}" for mm in case["spacing_mm"]),
         *((f"{mm3:,.0f}" for mm3 in case["mm3"]) if case["mm3"] else ["no mask"] * len(tissues)),
         "; ".join(case["notes"]))
        for case in summary["cases"]
    )  # fmt: skip
    body = [
        f"<h1>{len(summary['cases'])} cases, scheme {escape(summary['scheme'])}</h1>",
        f'<p class="bad">{escape(leak)}</p>' if leak else "<p>No patient is in two splits.</p>",
        f"<p>{noted} cases have something to look at.</p>",
        _table(("split", "cases", "patients", "sides", *(f"{tissue}, voxels" for tissue in tissues)), splits),
        _table(
            (
                "case",
                "patient",
                "visit",
                "side",
                "split",
                "voxels",
                "mm",
                *(f"{name}, mm3" for name in tissues),
                "notes",
            ),
            cases,
        ),
        *(_picture(case, pictures) for case in summary["cases"]),
    ]
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>knee3d audit</title><style>{_STYLE}</style>'
    with whole_file(path) as partial:
        partial.write_text(page + "".join(body) + "</html>\n", encoding="utf-8")


def write_audit_csv(summary: Mapping[str, Any], path: Path) -> None:
    """A row for each case; the columns of tissues hold mm3, empty without a mask."""
    tissues = summary["tissues"]
    sizes = [f"{name}_{axis}" for name in ("voxels", "spacing_mm") for axis in "IPL"]
    header = [*_PLAIN, *sizes, "window_low", "window_high", *(f"{name}_mm3" for name in tissues), "notes"]
    rows = []
    for case in summary["cases"]:
        numbers = (*case["shape"], *case["spacing_mm"], *case["window"], *(case["mm3"] or [None] * len(tissues)))
        rows.append([*(case[name] for name in _PLAIN), *numbers, "; ".join(case["notes"])])
    write_csv(path, header, rows)


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    header = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    return f"<table><tr>{header}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _picture(case: Mapping[str, Any], pictures: str) -> str:
    source = escape(f"{pictures}/{case['case']}.png")
    notes = f'<br><span class="bad">{escape("; ".join(case["notes"]))}</span>' if case["notes"] else ""
    return (
        f'<figure><a href="{source}"><img loading="lazy" src="{source}" alt="{escape(case["case"])}"></a>'
        f"<figcaption>{escape(case['case'])}{notes}</figcaption></figure>"
    )

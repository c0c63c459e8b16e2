"""measures.json: the measures of one knee with all that is needed to read them, in a form that a schema describes."""

from pathlib import Path

from knee3d import __version__
from knee3d.anatomy.orientation import Side
from knee3d.anatomy.tissue import Scheme
from knee3d.quantify.knee import Findings
from knee3d.report.tables import plain, write_json

SCHEMA = Path(__file__).with_name("assets") / "measures.schema.json"
"""JSON Schema (draft 2020-12) of what is written."""
VERSION = 1


def write_measures_json(path: Path, case: str, side: Side, scheme: Scheme, findings: Findings) -> None:
    """Write measures with their units, notes, and whether the bone-cartilage interface was inferred.

    Args:
        path: The JSON file.
        case: Name of the knee.
        side: Which.
        scheme: Of the labels.
        findings: What was measured; what is not known becomes null.
    """
    content = {
        "format": "knee3d measures",
        "version": VERSION,
        "knee3d": __version__,
        "case": case,
        "side": side.value,
        "scheme": scheme.name,
        "interface": {name: "inferred" if one.inferred else "bone" for name, one in findings.interfaces.items()},
        "parts_along": findings.landmarks and ("knee" if findings.landmarks.own_axes else "image"),
        "notes": list(findings.notes),
        "measures": [
            {"tissue": one.tissue, "region": one.region, "measure": one.measure, "unit": one.unit, "value": one.value}
            for one in findings.measures
        ],
    }
    write_json(plain(content), path)

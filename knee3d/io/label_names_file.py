"""Read and write the names of label values: JSON, dataset.json of nnU-Net, files of ITK-SNAP, FreeSurfer, 3D Slicer."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knee3d.atomic import whole_file
from knee3d.labels.label_names import LABEL_NAMES, LabelNames
from knee3d.labels.label_scheme import LabelScheme, known_tissue_names

LABELS_FILE = "labels.json"


_ITK_SNAP = re.compile(r'\s*(?P<value>\d+)(\s+[\d.]+){6}\s+"(?P<name>[^"]*)"')


_COLOUR_TABLE = re.compile(r"\s*(?P<value>\d+)\s+(?P<name>\S+)(\s+[\d.]+){4}\s*$")


def read_label_names(source: str, scheme: LabelScheme | None = None) -> LabelNames:
    """The meaning of mask values.

    Args:
        source: It is a built-in name such as "pymskt" or "iwoai", or the path of a file: JSON {"1": "femoral
            cartilage", ...}, nnU-Net's dataset.json, a label file of ITK-SNAP, or a colour table of FreeSurfer or 3D
            Slicer (.ctbl), which has "_" for blanks. Letter case does not matter.
        scheme: Whose tissues may be named besides knee3d's; None is none.

    Raises:
        FileNotFoundError: There is no such name and no such file.
        ValueError: The file has another form, or names an unknown tissue.
    """
    if source in LABEL_NAMES:
        return LABEL_NAMES[source]
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"{source} is neither a label file nor a built-in; there are: {', '.join(LABEL_NAMES)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        told = _names_in_json(text) if path.suffix.lower() == ".json" else _names_in_table(text)
        named = [(value, name.replace("_", " ").strip().lower()) for value, name in told if value != 0]
        if not named:
            raise ValueError("it names no label")
        twice = [value for value, count in Counter(value for value, _ in named).items() if count > 1]
        if twice:
            raise ValueError(f"it says twice what {twice[0]} means")
        label_names = LabelNames(dict(named))
        label_names.check_names(known_tissue_names(scheme))
        return label_names
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f'{path} is not a label table such as {{"1": "femoral cartilage"}}: {error}') from error


def _names_in_json(text: str) -> list[tuple[int, str]]:
    """Value and name, in the order of the file; nnU-Net 2 has names first."""
    content = json.loads(text, object_pairs_hook=_Pairs)
    if not isinstance(content, _Pairs):
        raise ValueError("it is no object of names")
    labels = next((value for name, value in content.pairs if name == "labels"), content)
    pairs = labels.pairs if isinstance(labels, _Pairs) else []
    if any(isinstance(value, bool | list | _Pairs) or value is None for _, value in pairs):
        raise ValueError("a label has one number and one name; nnU-Net's regions are not read, name their parts")
    if all(isinstance(value, int) for _, value in pairs):
        return [(value, str(name)) for name, value in pairs]
    return [(int(value), str(name)) for value, name in pairs]


@dataclass(frozen=True)
class _Pairs:
    """An object of JSON, in which a name may stand twice."""

    pairs: list[tuple[str, Any]]


def _names_in_table(text: str) -> list[tuple[int, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = [next(filter(None, (form.match(line) for form in (_ITK_SNAP, _COLOUR_TABLE))), None) for line in lines]
    if None in found:
        raise ValueError(f"line {lines[found.index(None)]!r} is none of ITK-SNAP, FreeSurfer or 3D Slicer")
    return [(int(line["value"]), line["name"]) for line in found if line]


def write_label_names(path: Path, names: Mapping[int, str]) -> None:
    """Write the names of mask values, as `read_label_names` reads them."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps({str(value): name for value, name in names.items()}, indent=1) + "\n")

"""Read and write knees.csv, the table of knees."""

import codecs
import csv
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from knee3d.atomic import whole_file
from knee3d.dataset.case_collection import Split
from knee3d.geometry.orientation import Side

COLUMNS = ("case", "patient", "visit", "side", "image", "mask")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ManifestRow:
    """One row: a knee that is to become a case.

    Attributes:
        case: Name, unique in the table; becomes a folder.
        patient: Pseudonym, the same for all visits and both knees of a patient.
        visit: May be empty.
        side: As the table says; unknown if it does not.
        image: A folder of DICOM, or a volume file.
        mask: A label file on the same grid; None for an unlabelled knee.
        split: None if the table has no column of that name.
        series: DICOM series, by number or UID, where the image's folder holds several; may be empty.
    """

    case: str
    patient: str
    visit: str
    side: Side
    image: Path
    mask: Path | None
    split: Split | None = None
    series: str = ""


def read_manifest(path: Path, must_exist: bool = True) -> tuple[ManifestRow, ...]:
    """Read knees.csv.

    Args:
        path: CSV with the columns of `COLUMNS`, and optionally `split` (train, val or test) and `series`, see
            `read_csv_rows`. Paths are relative to it.
        must_exist: Whether images and masks must be there.

    Raises:
        FileNotFoundError: The table is missing, or an image or mask that it names and that must exist.
        ValueError: A column is missing, a row is wrong, or the table is empty; the message has the line.
    """
    knees = []
    for line, row in read_csv_rows(path, COLUMNS).items():
        try:
            knees.append(_knee(row, path.parent, must_exist))
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"{path} line {line}: {error}") from error
    _check_together(path, knees)
    return tuple(knees)


def read_csv_rows(path: Path, columns: Sequence[str]) -> dict[int, dict[str, str]]:
    """Read a CSV file with a header, as programs for tables write it.

    Args:
        path: The file is in UTF-8, or in UTF-16 with a byte order mark. Commas, semicolons or tabs separate its cells.
        columns: The names of the columns that the file must have, in any letter case.

    Returns:
        For each row, by the number of its last line: column name in small letters to cell, without blanks around it. A
        cell is empty where the row is too short. Empty rows, and columns without a name, are left out.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no CSV, has a column twice or not at all, a row with too many cells, or no rows.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; it is a CSV file with the columns {', '.join(columns)}")
    try:
        stream = io.StringIO(_text_of(path), newline="")
        head = stream.readline()
        skipped = int(head.strip().lower().startswith("sep="))  # Excel's own line for the separator
        head = stream.readline() if skipped else head
        lines, separator = chain([head], stream), max(",;\t", key=head.count)
        reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
        there = [column.strip().lower() for column in next(reader, [])]
        rows = {}
        for row in reader:
            line = reader.line_num + skipped
            rows[line] = _cells(path, line, there, row)
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV file: {error}") from error
    missing = [column for column in columns if column not in there]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(there)[:200] or 'none'}")
    twice = sorted(column for column, count in Counter(there).items() if column and count > 1)
    if twice:
        raise ValueError(f"{path} has more than one column {', '.join(twice)}; remove or rename the others")
    rows = {line: row for line, row in rows.items() if any(row.values())}
    if not rows:
        raise ValueError(f"{path} has no rows; it needs a line for each knee under {', '.join(columns)}")
    return rows


def _text_of(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path} is not a CSV file in UTF-8 ({error.reason} in line {line}); in Excel, save it as CSV UTF-8"
        ) from error


def _cells(path: Path, line: int, columns: Sequence[str], row: Sequence[str]) -> dict[str, str]:
    """Column to cell, without blanks around it."""
    if any(cell.strip() for cell in row[len(columns) :]):
        raise ValueError(f"{path} line {line} has more cells than there are columns; put a cell with a comma in quotes")
    cells = zip_longest(columns, row[: len(columns)], fillvalue="")
    return {column: cell.strip() for column, cell in cells if column}


def write_manifest(path: Path, knees: tuple[ManifestRow, ...]) -> None:
    """Write knees.csv, whole or not at all, with the column `split` if any knee has one; paths are relative to it."""

    def relative(place: Path | None) -> str:
        return Path(os.path.relpath(place, path.parent)).as_posix() if place else ""

    split = any(knee.split is not None for knee in knees)
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, "split"] if split else COLUMNS)
        for knee in knees:
            row = [knee.case, knee.patient, knee.visit, knee.side, relative(knee.image), relative(knee.mask)]
            writer.writerow([*row, knee.split or ""] if split else row)


def _knee(row: dict[str, str], folder: Path, must_exist: bool) -> ManifestRow:
    if not _NAME.fullmatch(row["case"]):
        raise ValueError(f"case {row['case']!r} cannot be a folder's name; use letters, digits, '.', '_' and '-'")
    if not row["patient"]:
        raise ValueError(f"case {row['case']} has no patient; splits are by patient, so give a pseudonym")
    side = row["side"].upper()[:1] if row["side"].lower() in ("r", "l", "right", "left") else row["side"]
    if side not in list(Side):
        raise ValueError(f"side of {row['case']} is {row['side']!r}; write L, R or nothing")
    if not row["image"]:
        raise ValueError(f"case {row['case']} has no image")
    image, mask = _place(folder, row["image"]), _place(folder, row["mask"]) if row["mask"] else None
    for place in (image, mask):
        if must_exist and place is not None and not place.exists():
            raise FileNotFoundError(f"{place} of case {row['case']} does not exist")
    split = row.get("split")
    if split and split not in list(Split):
        raise ValueError(f"split of {row['case']} is {split!r}; write train, val or test, or leave the column out")
    return ManifestRow(
        row["case"],
        row["patient"],
        row["visit"],
        Side(side),
        image,
        mask,
        None if split is None else Split(split),
        row.get("series", ""),
    )


def _place(folder: Path, told: str) -> Path:
    """A path relative to a folder; Windows writes it with backslashes."""
    if "\0" in told:
        raise ValueError(f"path {told!r} is damaged")
    place = folder / told
    return place if place.exists() else folder / told.replace("\\", "/")


def _check_together(path: Path, knees: list[ManifestRow]) -> None:
    """Refuse rows that are fine alone and wrong together.

    Raises:
        ValueError: A case stands twice, two patients have one image, or a labelled row lacks the split of others.
    """
    # Case names become folders, and some file systems do not tell upper from lower case.
    counts = Counter(knee.case.lower() for knee in knees)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise ValueError(f"{path}: case names must be unique, but {', '.join(twice[:5])} stands more than once")
    images: dict[tuple[Path, str], ManifestRow] = {}
    for knee in knees:
        first = images.setdefault((knee.image.resolve(), knee.series), knee)
        if first.patient != knee.patient:
            raise ValueError(f"{path}: {first.case} and {knee.case} of two patients have the same image, {knee.image}")
    unsplit = [knee.case for knee in knees if knee.mask and knee.split is Split.NONE]
    if unsplit:
        raise ValueError(f"{path} has a split column, but labelled cases without a split: {', '.join(unsplit[:5])}")

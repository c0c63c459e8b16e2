"""Label tables of other programs: ITK-SNAP and FreeSurfer."""

from pathlib import Path

from knee3d.labels.label_scheme import LabelScheme
from knee3d.report.tables import write_text


def write_itksnap_table(path: Path, scheme: LabelScheme) -> None:
    """Label descriptions: number, red, green, blue, opacity, visibility of label and mesh, name in quotes."""
    rows = ['    0     0    0    0        0  0  0    "background"']
    for number, tissue in enumerate(scheme.tissues, start=1):
        red, green, blue = tissue.colour
        rows.append(f'{number:5} {red:5} {green:4} {blue:4}        1  1  1    "{tissue.name}"')
    write_text("\n".join(rows) + "\n", path)


def write_freesurfer_table(path: Path, scheme: LabelScheme) -> None:
    """Colour lookup table: number, name without blanks, red, green, blue, 255 - opacity."""
    rows = ["0 background 0 0 0 0"]
    for number, tissue in enumerate(scheme.tissues, start=1):
        rows.append(f"{number} {tissue.name.replace(' ', '_')} {' '.join(map(str, tissue.colour))} 0")
    write_text("\n".join(rows) + "\n", path)

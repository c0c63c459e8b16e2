"""Read the fields of text headers: NRRD and MetaImage."""

from pathlib import Path

_LONGEST = 1 << 18
_LAST = "elementdatafile"  # MetaImage's voxels follow this field


def read_header_fields(path: Path) -> dict[str, str]:
    """Field name in small letters without blanks -> text; empty where the file is no text.

    Args:
        path: .nrrd, .nhdr, .mha or .mhd.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        begin = file.read(_LONGEST)
    fields: dict[str, str] = {}
    for line in begin.split(b"\n"):
        text = line.decode("utf-8", "replace").strip()
        name, separator, value = text.partition("=" if path.suffix.lower() in (".mha", ".mhd") else ":")
        if not text:
            break
        if separator:
            fields[name.strip().lower().replace(" ", "")] = value.lstrip("=").strip()
        if name.strip().lower() == _LAST:
            break
    return fields

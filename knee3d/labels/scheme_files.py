"""Read label schemes of users from JSON files, and keep schemes in records.

A record names a built-in scheme and holds the whole of a user's, so that a dataset, a model or a result needs no other
file to be understood.
"""

import colorsys
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import JsonValue, PlainSerializer, PlainValidator, WithJsonSchema

from knee3d.choices import check_type
from knee3d.labels.label_scheme import SCHEMES, LabelScheme, Tissue

SCHEME_NAME = re.compile(r"[a-z][a-z0-9_]{0,15}")
"""DICOM has sixteen characters for it."""
TISSUE_NAME = re.compile(r"[a-z0-9][a-z0-9 -]{0,39}")
"""Files of meshes have it in their names."""
RESERVED = {"background": "it is class 0 of every scheme"} | dict.fromkeys(
    ("foreground", "mean", "all"), "scores of all tissues together are called so"
)
MOST_TISSUES = 100
SIDES = ("medial", "lateral")
KEYS = {"name", "sided", "tissues"}
TISSUE_KEYS = {"name", "colour", "sources", "pieces"}


def find_scheme(choice: str) -> LabelScheme:
    """The scheme of a name, or the one in a file.

    Args:
        choice: Key of `SCHEMES`, or the path of a JSON file: {"name": "effusion", "tissues": [{"name": "femoral
            cartilage"}, {"name": "effusion", "colour": "#4dbbd5", "sources": ["effusion", "synovial fluid"], "pieces":
            1}]}. Of a tissue all but the name may be missing: a colour is chosen, its source is the tissue of the same
            name in masks, and it has one piece. "sided" says whether it names medial and lateral; it is true where a
            name has one of the words.

    Raises:
        FileNotFoundError: There is no such name and no such file.
        ValueError: The file cannot be read, or does not describe a scheme.

    Example:
        >>> find_scheme("compartments").names
        ('femoral cartilage', 'tibial cartilage', 'patellar cartilage')
    """
    check_type("the scheme", choice, str)
    if choice in SCHEMES:
        return SCHEMES[choice]
    path = Path(choice)
    if not path.is_file():
        raise FileNotFoundError(f"{choice} is neither a scheme nor a JSON file of one; there are: {', '.join(SCHEMES)}")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
        if not isinstance(content, dict):
            raise ValueError("it is no object")
        return _scheme(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a label scheme: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_repeated([name for name, _ in pairs], "key")
    return dict(pairs)


def scheme_to_json(scheme: LabelScheme) -> str | dict[str, JsonValue]:
    """What a JSON record says of a scheme: the name of a built-in one, or all of a user's."""
    if SCHEMES.get(scheme.name) == scheme:
        return scheme.name
    tissues: list[JsonValue] = [
        {"name": one.name, "colour": _in_hex(one.colour), "sources": list(one.sources), "pieces": one.pieces}
        for one in scheme.tissues
    ]
    return {"name": scheme.name, "sided": scheme.sided, "tissues": tissues}


def check_scheme(scheme: LabelScheme) -> None:
    """Refuse a scheme that its record could not tell of, such as one with the name of another scheme.

    Raises:
        TypeError: It is no scheme.
        ValueError: A name, a colour or a source is not possible, or is there twice.
    """
    check_type("the scheme", scheme, LabelScheme)
    if SCHEMES.get(scheme.name) != scheme:
        scheme_from_json(scheme_to_json(scheme))


def scheme_from_json(record: Any) -> LabelScheme:
    """The scheme that `scheme_to_json` told of.

    Raises:
        ValueError: There is no such scheme, or it is damaged.
    """
    if isinstance(record, str) and record in SCHEMES:
        return SCHEMES[record]
    if not isinstance(record, dict):
        raise ValueError(f"unknown scheme {record!r}")
    return _scheme(record)


SchemeField = Annotated[
    LabelScheme,
    PlainValidator(lambda record: scheme_from_json(record)),
    PlainSerializer(lambda scheme: scheme_to_json(scheme)),
    WithJsonSchema({"anyOf": [{"enum": [*SCHEMES]}, {"type": "object", "required": ["name", "tissues"]}]}),
]
"""A scheme as a field of a record, see `scheme_to_json`."""


def _scheme(content: Mapping[str, Any]) -> LabelScheme:
    name = content.get("name")
    if not isinstance(name, str) or not SCHEME_NAME.fullmatch(name):
        raise ValueError(f"its name is {name!r}; use a to z, 0 to 9 and _, sixteen at most, a letter first")
    if name in SCHEMES:
        raise ValueError(f"{name} is the name of a built-in scheme; give it another one")
    listed = content.get("tissues")
    if not isinstance(listed, list) or not 0 < len(listed) <= MOST_TISSUES:
        raise ValueError(f"tissues must be a list of 1 to {MOST_TISSUES}")
    _refuse_unknown(content, KEYS, "the scheme")
    tissues = tuple(_tissue(one, number, len(listed)) for number, one in enumerate(listed))
    _refuse_repeated([one.name for one in tissues], "tissue")
    _refuse_repeated([source for one in tissues for source in one.sources], "source")
    taken = {source for one in tissues for source in one.sources}
    # A mask may call a class by its own name, as results of knee3d do.
    tissues = tuple(one if one.name in taken else replace(one, sources=(*one.sources, one.name)) for one in tissues)
    found = [one.name for one in tissues if _is_of_a_side(one)]
    sided = content.get("sided", bool(found))
    if not isinstance(sided, bool):
        raise ValueError(f"sided is true or false, not {sided!r}")
    if found and not sided:
        raise ValueError(f"sided is false, but {found[0]} is another tissue in a mirror")
    return LabelScheme(name, tissues, sided)


def _is_of_a_side(one: Tissue) -> bool:
    """Whether its name has one of `SIDES`, or its sources only one of them."""
    named = set(re.split("[ -]", one.name)) & set(SIDES)
    collected = set(re.split("[ -]", " ".join(one.sources))) & set(SIDES)
    return bool(named) or len(collected) == 1


def _tissue(content: Any, number: int, count: int) -> Tissue:
    if not isinstance(content, dict):
        raise ValueError(f'tissue {number + 1} is not written as {{"name": ...}}')
    name = _tissue_name(content.get("name"), f"tissue {number + 1}")
    _refuse_unknown(content, TISSUE_KEYS, name)
    sources = content.get("sources", [name])
    if not isinstance(sources, list) or not sources:
        raise ValueError(f"sources of {name} must be a list of names")
    pieces = content.get("pieces", 1)
    if not isinstance(pieces, int) or isinstance(pieces, bool) or not 0 < pieces < 100:
        raise ValueError(f"pieces of {name} must be a number of 1 or more, not {pieces!r}")
    named = tuple(_tissue_name(source, f"a source of {name}") for source in sources)
    return Tissue(name, _colour(content.get("colour"), name, number / count), named, pieces)


def _tissue_name(name: Any, of_what: str) -> str:
    """As label files are read: in small letters, with blanks."""
    found = " ".join(name.replace("_", " ").split()).lower() if isinstance(name, str) else ""
    if not TISSUE_NAME.fullmatch(found):
        raise ValueError(f"the name of {of_what} is {name!r}; use letters, digits, blanks and hyphens, forty at most")
    if found in RESERVED:
        raise ValueError(f"{found} is no tissue: {RESERVED[found]}")
    return found


def _colour(given: Any, name: str, share: float) -> tuple[int, int, int]:
    if given is None:
        red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(share, 0.65, 0.9))
        return red, green, blue
    if isinstance(given, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", given):
        return int(given[1:3], 16), int(given[3:5], 16), int(given[5:7], 16)
    raise ValueError(f'the colour of {name} is {given!r}; write it as "#e64b35"')


def _in_hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _refuse_unknown(content: Mapping[str, Any], known: set[str], of_what: str) -> None:
    unknown = sorted(set(content) - known)
    if unknown:
        raise ValueError(f"{of_what} has {', '.join(map(repr, unknown))}; known are {', '.join(sorted(known))}")


def _refuse_repeated(names: list[str], kind: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{kind} {twice[0]!r} is there twice")

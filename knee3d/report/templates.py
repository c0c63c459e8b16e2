"""Fill the templates in assets: HTML pages and model cards."""

from base64 import b64encode
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from knee3d.report.tables import format_number, is_known

UNKNOWN = "–"
"""Stands for a number that is not known."""


def load_template(template: str, **content: Any) -> str:
    """A template with its content: a whole file.

    Args:
        template: Name of a file in report/assets. A page extends frame.html.j2, and sets what that asks for.
        content: What the template shows. Text is escaped where it becomes HTML.
    """
    return _TEMPLATES.get_template(template).render(content)


def base64_text(content: bytes) -> str:
    """Bytes as text that JSON and addresses can hold."""
    return b64encode(content).decode("ascii")


def _asset(name: str) -> str:
    return files("knee3d.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hashes(contents: Sequence[str]) -> str:
    """What a policy says so that these very scripts or styles are allowed, and no others."""
    return " ".join(f"'sha256-{base64_text(sha256(one.encode()).digest())}'" for one in contents) or "'none'"


_TEMPLATES = Environment(
    loader=PackageLoader("knee3d.report", "assets"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
_TEMPLATES.globals["asset"] = _asset
_TEMPLATES.filters |= {"base64": base64_text, "hashes": _hashes, "number": partial(format_number, unknown=UNKNOWN)}
_TEMPLATES.tests["known"] = is_known

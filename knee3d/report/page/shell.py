"""The frame of an HTML file that asks for nothing: styles and scripts stand in it, and a policy forbids others."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files


def asset(name: str) -> str:
    """Text of a file in report/assets."""
    return files("knee3d.report").joinpath("assets", name).read_text(encoding="utf-8")


def document(title: str, body: str, styles: Sequence[str], scripts: Sequence[str], images: str = "data: blob:") -> str:
    """A whole HTML file.

    Args:
        title: Text.
        body: HTML of what is in <body>.
        styles: Contents of <style> elements.
        scripts: Contents of <script> elements, run after the body.
        images: Where pictures may come from, in the words of a content security policy.
    """
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        f'content="{escape(_policy(styles, scripts, images))}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>'
    )
    style = "".join(f"<style>{one}</style>" for one in styles)
    script = "".join(f"<script>{one}</script>" for one in scripts)
    return f'<!doctype html>\n<html lang="en"><head>{head}{style}</head>\n<body>{body}{script}</body></html>\n'


def _policy(styles: Sequence[str], scripts: Sequence[str], images: str) -> str:
    """Nothing but these very scripts and styles, and pictures and workers made from what the file itself holds."""
    return "; ".join([
        "default-src 'none'",
        f"script-src {_hashes(scripts)}",
        f"style-src {_hashes(styles)}",
        f"img-src {images}",
        "connect-src data: blob:",
        "worker-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
    ])  # fmt: skip


def _hashes(contents: Sequence[str]) -> str:
    return " ".join(f"'sha256-{b64encode(sha256(one.encode()).digest()).decode()}'" for one in contents) or "'none'"

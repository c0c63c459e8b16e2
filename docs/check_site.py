"""Check that pages of the built site load nothing from other computers: `python docs/check_site.py site`.

A browser loads what `src`, `srcset`, `poster`, `data` and some `<link>`s name, and what styles name in `url()` or
`@import`. Links that a reader may follow are allowed. Mermaid diagrams are not: Material loads a program
from elsewhere to draw them.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

LOADING = {"src", "srcset", "poster", "data"}
NOT_LOADED = {"canonical", "next", "prev", "alternate", "license", "author", "edit"}
"""Values of `rel` with which a `<link>` is not loaded."""
OUTSIDE = re.compile(r"(?:https?:)?//")
IN_STYLES = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""")


class _Page(HTMLParser):
    """Collects what a page loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at the attributes of an element."""
        values = {name: value or "" for name, value in attrs}
        loading = [values[name] for name in LOADING & set(values)]
        if tag == "link" and not set(values.get("rel", "").lower().split()) <= NOT_LOADED:
            loading.append(values.get("href", ""))
        if "mermaid" in values.get("class", "").split():
            self.loaded.append("a Mermaid diagram")
        self.loaded += [value for value in loading if OUTSIDE.match(value.strip())]
        self.loaded += IN_STYLES.findall(values.get("style", ""))


def outside_resources(site: Path) -> Iterator[str]:
    """One line for each thing that a file of the site loads from elsewhere."""
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css"), *site.rglob("*.svg")]):
        text = path.read_text(encoding="utf-8")
        page = _Page()
        if path.suffix != ".css":
            page.feed(text)
        for one in [*page.loaded, *(IN_STYLES.findall(text) if path.suffix == ".css" else [])]:
            yield f"{path.relative_to(site)} loads {one}"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if not (folder / "index.html").exists():
        sys.exit(f"there is no site in {folder}")
    if found := list(outside_resources(folder)):
        sys.exit("\n".join(found))

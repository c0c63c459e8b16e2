"""The documentation fits together and fits the code: links, navigation, decisions, names of modules."""

import json
import re
import sys
from pathlib import Path

import pytest
import test_architecture
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import check_site  # noqa: E402
import generate  # noqa: E402
import package_graph  # noqa: E402

GENERATED = {DOCS / path for path in generate.PAGES}
READMES = [ROOT / "README.md", ROOT / "models" / "README.md"]
PAGES = [*sorted(DOCS.rglob("*.md")), *READMES]
DECISIONS = DOCS / "explanation" / "decisions.md"


def text_without_code(path: Path) -> str:
    return re.sub(r"(?ms)^ *```.*?^ *```|`[^`\n]+`", "", path.read_text())


def anchors(path: Path) -> set[str]:
    """Of headings, as Markdown and GitHub make them."""
    headings = re.findall(r"(?m)^#+ (.+)$", path.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_what_is_there(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", text_without_code(page)):
        if not re.match(r"https?://", link):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists() or target in GENERATED, f"{page} links to {link}"
            assert not anchor or anchor in anchors(target), f"{page} links to {link}"
            assert page in READMES or DOCS in target.parents, f"{page} links to {link}, which is not in the site"


def test_every_page_is_in_the_navigation():
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {path.relative_to(DOCS).as_posix() for path in [*DOCS.rglob("*.md"), *GENERATED] if path.suffix == ".md"}
    assert sorted(listed) == sorted(pages)


def test_decisions_are_numbered_once_and_listed_under_their_topic():
    head, *topics = DECISIONS.read_text().split("\n## ")
    listed = dict(re.findall(r"(?ms)^- ([^:]+): (.*?)(?=^- |\Z)", head))
    assert list(listed) == [topic.partition("\n")[0] for topic in topics]
    every = []
    for topic in topics:
        name, _, text = topic.partition("\n")
        numbers = re.findall(r"(?m)^- \*\*(D\d+)\*\* ", text)
        assert sorted(numbers) == sorted(re.findall(r"D\d+", listed[name])), name
        every += numbers
    assert len(every) == len(set(every))


def test_decisions_that_are_quoted_exist():
    known = set(re.findall(r"\*\*(D\d+)\*\*", DECISIONS.read_text()))
    for page in PAGES:
        assert set(re.findall(r"\bD\d+\b", text_without_code(page))) <= known, page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_that_are_named_exist(page):
    """A path such as `postprocess/blend.py` is in the package or at the top; a bare file name may be anywhere."""
    folders = [ROOT / folder for folder in ("knee3d", "tests", "benchmarks", "docs")]
    names = {path.name for folder in folders for path in folder.rglob("*.py")}
    for name in re.findall(r"`((?:[\w-]+/)*[\w-]+\.py)`", page.read_text()):
        places = [ROOT / name, ROOT / "knee3d" / name]
        assert any(place.exists() for place in places) or ("/" not in name and name in names), f"{page}: {name}"


def test_packages_of_the_first_design_are_not_named():
    for page in DOCS.rglob("*.md"):
        for line in page.read_text().splitlines():
            old = re.findall(r"`(?:anatomy|learn|quantify|launch|workflow)(?:/[\w/.]*)?`", line)
            assert not old or "first edition" in line, f"{page}: {line}"


def test_the_picture_has_every_package_and_every_arrow_points_down():
    imports = package_graph.package_imports()
    assert test_architecture.SHARED == package_graph.SHARED
    drawn = re.findall(r'font-size="15"[^>]*>(\w+)<', package_graph.draw())
    assert sorted(drawn) == sorted(set(imports) - package_graph.SHARED)
    for path, what in re.findall(r"- `([\w/]+\.py)`: (.*)", package_graph.module_list()):
        assert (ROOT / "knee3d" / path).exists()
        assert what


def test_arrows_that_others_imply_are_left_out():
    imports = {"top": frozenset({"middle", "low"}), "middle": frozenset({"low"}), "low": frozenset()}
    assert package_graph.without_detours(imports)["top"] == {"middle"}
    assert package_graph.depths(imports) == {"top": 0, "middle": 1, "low": 2}
    with pytest.raises(ValueError, match="imports itself"):
        package_graph.depths({"one": frozenset({"other"}), "other": frozenset({"one"})})


def test_every_command_has_its_help_on_a_page():
    from knee3d.cli import main

    page = generate.commands()
    for name in main.commands:
        assert f"## knee3d {name}\n\n```text\nUsage: knee3d {name} " in page


@pytest.mark.parametrize(
    ("name", "text", "loads"),
    [
        ("a.html", '<a href="https://example.org">a link</a><link rel="next" href="https://example.org">', False),
        ("a.html", '<script src="js/a.js"></script><link rel="stylesheet" href="a.css"><img src="a.png">', False),
        ("a.html", '<script src="https://example.org/a.js"></script>', True),
        ("a.html", '<link rel="stylesheet" href="//example.org/a.css">', True),
        ("a.html", '<link rel="preconnect" href="https://example.org">', True),
        ("a.html", '<img src="http://example.org/a.png">', True),
        ("a.html", '<p style="background: url(https://example.org/a.png)">', True),
        ("a.html", '<pre class="mermaid">graph</pre>', True),
        ("a.css", "@import 'https://example.org/a.css';", True),
        ("a.css", "p { background: url(a.png) } /* https://example.org */", False),
    ],
)
def test_what_pages_load_from_elsewhere_is_found(tmp_path, name, text, loads):
    (tmp_path / name).write_text(text)
    assert bool(list(check_site.outside_resources(tmp_path))) is loads


def test_every_record_is_on_the_page_of_json_files():
    files = {generate.record_class(file) for file in generate.RECORDS}
    assert all(hasattr(one, "from_json") for one in files)
    others = {"Inspection"}  # the answer of inspect --json, which is no file
    texts = [path.read_text() for path in (ROOT / "knee3d").rglob("*.py")]
    written = {name for text in texts for name in re.findall(r"(?m)^class (\w+)\(Record\)", text)}
    assert {one.__name__ for one in files} == written - others
    for file in generate.RECORDS:
        Draft202012Validator.check_schema(json.loads(generate.json_schema(file)))
        assert f"schemas/{generate.schema_name(file)}" in generate.PAGES

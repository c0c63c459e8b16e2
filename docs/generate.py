"""MkDocs hook: pages and a picture that are made from the code each time the site is built.

They are never written into `docs/`: MkDocs takes their text from memory.
"""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from knee3d.records import Record

sys.path.insert(0, str(Path(__file__).parent))

import package_graph

MODULES = ("networks", "losses", "metrics", "postprocess")
"""Packages and modules that have a page of their own, with everything public in them."""
LIST_OF_MODULES = "<!-- the list of packages and modules is put here when the site is built -->"


def public_names() -> str:
    """A page with the names of `knee3d.__all__`, in their order."""
    import griffe

    import knee3d

    known = griffe.load("knee3d", search_paths=[package_graph.PACKAGE.parent]).members
    parts = ["# The package `knee3d`", "What `import knee3d` offers. Constructors and functions say what they take."]
    for name in knee3d.__all__:
        if name in MODULES:
            parts.append(f"## knee3d.{name}\n\nThis module has [a page of its own](api-{name}.md).")
        elif not name.startswith("__"):
            value = None if name in known else getattr(knee3d, name)  # a name that only `__getattr__` knows
            parts.append(f"::: {f'knee3d.{name}' if value is None else f'{value.__module__}.{value.__qualname__}'}")
            parts[-1] += "\n    options:\n      show_attribute_values: false"
    return "\n\n".join(parts)


def module_page(name: str) -> str:
    """A page with everything public in a module, or in each module of a package."""
    paths = package_graph.package_modules()[name]
    dotted = [".".join(path.relative_to(package_graph.PACKAGE.parent).with_suffix("").parts) for path in paths]
    return "\n\n".join([f"# knee3d.{name}", *(f"::: {one.removesuffix('.__init__')}" for one in dotted)])


def commands() -> str:
    """A page with the `--help` of every command, as a terminal of 80 columns shows it."""
    import click

    from knee3d.cli import main

    settings = {**main.context_settings, "terminal_width": 80, "max_content_width": 80}
    top = click.Context(main, info_name="knee3d", **settings)
    parts = [
        "# Commands",
        "Each section is what the command prints with `--help`. `knee3d-train` is `knee3d train` by another name. "
        "The default of `--jobs` is that of the computer on which this page was made.",
        f"## knee3d\n\n```text\n{main.get_help(top)}\n```",
    ]
    for name, command in main.commands.items():
        text = command.get_help(click.Context(command, info_name=name, parent=top, **settings))
        parts.append(f"## knee3d {name}\n\n```text\n{text}\n```")
    return "\n\n".join(parts)


RECORDS = {
    "cases.json": "dataset.case_collection.CaseList",
    "case.json": "dataset.case_collection.Case",
    "audit.json": "dataset.audit.DatasetAudit",
    "card.json": "models.model_card.ModelCard",
    "environment.json": "models.model_card.SoftwareEnvironment",
    "folds.json": "api.cross_validation.CrossValidationResult",
    "knee3d.json": "models.model_card.SavedModelDescription",
    "fusion.json": "models.fusion_file.FusionRecord",
    "segmentation.json": "api.segmentation_record.SegmentationRecord",
    "quality.json": "report.quality_record.QualityRecord",
    "report.json": "api.report_record.ReportRecord",
    "measures.json": "report.measures_files.MeasuresRecord",
    "scores.json": "report.evaluation_scores.Evaluation",
    "repeatability.json": "report.repeatability.RepeatabilityResult",
    "compare.json": "report.change.ComparisonResult",
    "cohort.json": "phantom.cohort.CohortRecord",
    "packed.json": "models.packed_record.PackedModels",
}
"""JSON files that knee3d writes, and the class of each in `knee3d`."""


def record_class(file: str) -> "type[Record]":
    """The class of a JSON file that knee3d writes."""
    module, _, name = f"knee3d.{RECORDS[file]}".rpartition(".")
    found: type[Record] = getattr(importlib.import_module(module), name)
    return found


def json_files() -> str:
    """A page with the fields of every JSON file that knee3d writes."""
    parts = [
        "# JSON files",
        "Each section is the class of a file. `from_json` reads the text of the file, and `to_json` makes it. Every "
        "file has the key `version`: a later version of knee3d may add keys, and changes this number only when a key "
        "changes its meaning. A number that is not known is `null` in the file and NaN in Python. The JSON Schema "
        "(draft 2020-12) of each file is linked; in Python, `json_schema()` of the class gives it.",
    ]
    for file, name in RECORDS.items():
        parts.append(f"## {file}\n\n[JSON Schema](../schemas/{schema_name(file)})\n\n::: knee3d.{name}")
        parts[-1] += "\n    options:\n      heading_level: 3\n      members: false"
    return "\n\n".join(parts)


def schema_name(file: str) -> str:
    """The name of the JSON Schema of a file."""
    return f"{file.removesuffix('.json')}.schema.json"


def json_schema(file: str) -> str:
    """The JSON Schema of a file that knee3d writes."""
    return json.dumps(record_class(file).json_schema(), indent=1, allow_nan=False) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "reference/api.md": public_names,
    **{f"reference/api-{name}.md": lambda name=name: module_page(name) for name in MODULES},
    "reference/commands.md": commands,
    "reference/json-files.md": json_files,
    **{f"schemas/{schema_name(file)}": lambda file=file: json_schema(file) for file in RECORDS},
    "images/packages.svg": package_graph.draw,
}
"""Paths in `docs/` that exist while the site is built, and what makes their content."""


def on_files(files, config):  # noqa: ANN001, ANN201
    """Add the generated files to those of `docs/`."""
    from mkdocs.structure.files import File

    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))
    return files


def on_page_markdown(markdown, **_):  # noqa: ANN001, ANN003, ANN201
    """Put the list of modules where a page asks for it."""
    return markdown.replace(LIST_OF_MODULES, package_graph.module_list())

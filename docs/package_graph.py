"""The packages of knee3d and their imports, read from the code with `ast`, as a picture (SVG) and as a list (Markdown).

A package is a folder of `knee3d/`, or a module beside these folders. Nothing of knee3d is imported.
"""

import ast
import html
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "knee3d"
SHARED = {"atomic", "choices", "lease", "progress", "recorded_settings", "records", "tensorflow_setup", "threads"}
"""Modules that any package may import (`tests/test_architecture.py`): arrows to them would hide the others."""
BOX_WIDTH, BOX_HEIGHT = 138, 44
COLUMN, ROW = 160, 96
MARGIN = 24

Imports = Mapping[str, frozenset[str]]
"""Name of a package to the names of the packages that it imports."""
Layers = list[list[str]]
"""Names from left to right, one list for each layer, the top layer first."""


def package_modules(root: Path = PACKAGE) -> dict[str, list[Path]]:
    """The modules of each package, in alphabetical order; `knee3d/__init__.py` belongs to none."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.py")):
        if path != root / "__init__.py":
            found.setdefault(path.relative_to(root).parts[0].removesuffix(".py"), []).append(path)
    return found


def summary(path: Path) -> str:
    """The first line of a module's docstring; empty if there is no module or no docstring."""
    text = ast.get_docstring(ast.parse(path.read_text())) if path.exists() else None
    return (text or "").partition("\n")[0]


def package_imports(root: Path = PACKAGE) -> Imports:
    """Which package imports which, wherever in a module the import stands."""
    modules = package_modules(root)
    return {
        name: frozenset(one for path in paths for one in _imported(path) if one in modules and one != name)
        for name, paths in modules.items()
    }


def _imported(path: Path) -> Iterable[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        names = [f"{node.module}.{name}" for name in names] if isinstance(node, ast.ImportFrom) else names
        yield from (name.split(".")[1] for name in names if name.startswith("knee3d."))


def without_detours(imports: Imports) -> Imports:
    """The imports that no chain of other imports implies, so that a picture of them can be read."""
    return {
        name: frozenset(one for one in used if not any(one in reachable(other, imports) for other in used - {one}))
        for name, used in imports.items()
    }


def reachable(name: str, imports: Imports) -> set[str]:
    """All that a package imports, directly or through others."""
    found: set[str] = set()
    waiting = [*imports[name]]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += imports[one]
    return found


def depths(imports: Imports) -> dict[str, int]:
    """The layer of each package: one below the lowest package that imports it; 0 is the top.

    Raises:
        ValueError: Packages import each other in a circle.
    """
    for name in imports:
        if name in reachable(name, imports):
            raise ValueError(f"{name} imports itself through other packages")
    found = dict.fromkeys(imports, 0)
    for _ in imports:
        for name, used in imports.items():
            for one in used:
                found[one] = max(found[one], found[name] + 1)
    return found


def module_list(root: Path = PACKAGE) -> str:
    """Markdown: each package from the top of the picture to its bottom, with its imports and modules."""
    imports, modules = package_imports(root), package_modules(root)
    layer = depths({name: used - SHARED for name, used in imports.items()})
    lines = []
    for name in sorted(modules, key=lambda one: (one in SHARED, layer[one], one)):
        paths = modules[name]
        folder = (root / name).is_dir()
        used = ", ".join(f"`{one}`" for one in sorted(imports[name])) or "no other package"
        about = summary(root / name / "__init__.py" if folder else paths[0])
        lines += [f"### {name}", "", _escaped(f"{about}"), "", f"It imports {used}.", ""]
        listed = [path for path in paths if path.name != "__init__.py" or path.parent != root / name] if folder else []
        lines += [f"- `{path.relative_to(root)}`: {_escaped(summary(path))}" for path in listed]
        lines.append("")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """A line of a docstring as Markdown that shows it as it is, but for code in backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*_\[\]])", r"\\\1", html.escape(part, quote=False))
        for part in parts
    )


def draw(root: Path = PACKAGE) -> str:
    """The picture as SVG: an arrow goes from a package to a package that it imports, always downward."""
    everything = package_imports(root)
    imports = without_detours({name: used - SHARED for name, used in everything.items() if name not in SHARED})
    layers, links = _with_waypoints(imports)
    layers = _untangled(layers, links)
    centres = _centres(layers, links)
    counts = {name: len(paths) for name, paths in package_modules(root).items()}
    width = max(x for x, _ in centres.values()) + BOX_WIDTH / 2 + MARGIN
    height = len(layers) * ROW - (ROW - BOX_HEIGHT) + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" font-family="sans-serif">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#4a5a70"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" rx="8" fill="#ffffff"/>',
    ]
    parts += [_arrow(user, used, links, centres) for user in imports for used in sorted(imports[user])]
    parts += [_box(name, counts[name], *centres[name]) for name in imports]
    return "\n".join([*parts, "</svg>\n"])


def _with_waypoints(imports: Imports) -> tuple[Layers, dict[str, list[str]]]:
    """Layers, and links between neighbouring layers: an arrow over several layers has a waypoint in each between."""
    layer = depths(imports)
    layers: Layers = [[] for _ in range(max(layer.values()) + 1)]
    links: dict[str, list[str]] = {}
    for name in sorted(imports, key=lambda one: (layer[one], one)):
        layers[layer[name]].append(name)
    for name in sorted(imports):
        for used in sorted(imports[name]):
            last = name
            for depth in range(layer[name] + 1, layer[used]):
                point = f"{name}>{used}:{depth}"
                layers[depth].append(point)
                links.setdefault(last, []).append(point)
                last = point
            links.setdefault(last, []).append(used)
    return layers, links


def _untangled(layers: Layers, links: Mapping[str, list[str]]) -> Layers:
    """Each layer in the order of what its members are linked with, until arrows cross least."""
    above = _reversed(links)
    best, least = [[*layer] for layer in layers], _crossings(layers, links)
    for turn in range(24):
        down = turn % 2 == 0
        for depth in range(1, len(layers)) if down else range(len(layers) - 2, -1, -1):
            neighbours, towards = layers[depth - 1 if down else depth + 1], above if down else links
            place = {name: number for number, name in enumerate(neighbours)}
            old = {name: number for number, name in enumerate(layers[depth])}
            layers[depth].sort(key=lambda name: _mean([place[one] for one in towards.get(name, [])], old[name]))  # noqa: B023
        if (count := _crossings(layers, links)) < least:
            best, least = [[*layer] for layer in layers], count
    return best


def _crossings(layers: Layers, links: Mapping[str, list[str]]) -> int:
    total = 0
    for upper, lower in zip(layers, layers[1:], strict=False):
        place = {name: number for number, name in enumerate(lower)}
        pairs = [(left, place[one]) for left, name in enumerate(upper) for one in links.get(name, [])]
        total += sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a in pairs for b in pairs) // 2
    return total


def _reversed(links: Mapping[str, list[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, used in links.items():
        for one in used:
            found.setdefault(one, []).append(name)
    return found


def _mean(values: list[int] | list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _centres(layers: Layers, links: Mapping[str, list[str]]) -> dict[str, tuple[float, float]]:
    """Where boxes and waypoints lie: in their order, and as near as there is room to what they are linked with."""
    above = _reversed(links)
    x = {name: number * COLUMN for layer in layers for number, name in enumerate(layer)}
    for _ in range(60):
        for layer in layers:
            wanted = {
                name: _mean([x[one] for one in [*links.get(name, []), *above.get(name, [])]], x[name]) for name in layer
            }
            right = _packed(layer, wanted)
            left = {name: -value for name, value in _packed(layer[::-1], {n: -w for n, w in wanted.items()}).items()}
            x.update({name: (right[name] + left[name]) / 2 for name in layer})
    shift = MARGIN + BOX_WIDTH / 2 - min(x.values())
    return {
        name: (x[name] + shift, MARGIN + BOX_HEIGHT / 2 + depth * ROW)
        for depth, layer in enumerate(layers)
        for name in layer
    }


def _packed(layer: list[str], wanted: Mapping[str, float]) -> dict[str, float]:
    """Places as wanted, but each far enough to the right of the one before."""
    found: dict[str, float] = {}
    edge = float("-inf")
    for name in layer:
        room = 0.5 * (COLUMN if ">" not in name else COLUMN * 0.4)
        found[name] = max(wanted[name], edge + room)
        edge = found[name] + room
    return found


def _arrow(user: str, used: str, links: Mapping[str, list[str]], centres: Mapping[str, tuple[float, float]]) -> str:
    """A smooth line from the lower edge of one box over its waypoints to the upper edge of the other."""
    chain = [name for name in centres if name.startswith(f"{user}>{used}:")]
    points = [centres[name] for name in sorted(chain, key=lambda one: int(one.rpartition(":")[2]))]
    first = points[0] if points else centres[used]
    last = points[-1] if points else centres[user]
    start = (_port(centres[user][0], first[0]), centres[user][1] + BOX_HEIGHT / 2)
    end = (_port(centres[used][0], last[0]), centres[used][1] - BOX_HEIGHT / 2)
    track = [start, *points, end]
    path = f"M{start[0]:.1f} {start[1]:.1f}"
    for (x0, y0), (x1, y1) in zip(track, track[1:], strict=False):
        bend = 0.5 * (y1 - y0)
        path += f" C{x0:.1f} {y0 + bend:.1f} {x1:.1f} {y1 - bend:.1f} {x1:.1f} {y1:.1f}"
    return f'<path d="{path}" fill="none" stroke="#4a5a70" stroke-width="1.4" marker-end="url(#tip)"/>'


def _port(centre: float, towards: float) -> float:
    """Where on the edge of a box an arrow begins or ends: on the side that it goes to."""
    reach = 0.32 * BOX_WIDTH
    return centre + max(-reach, min(reach, 0.25 * (towards - centre)))


def _box(name: str, modules: int, x: float, y: float) -> str:
    count = f"{modules} modules" if modules > 1 else "1 module"
    return (
        f'<rect x="{x - BOX_WIDTH / 2:.1f}" y="{y - BOX_HEIGHT / 2:.1f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" '
        'rx="6" fill="#e8eef7" stroke="#4a5a70"/>'
        f'<text x="{x:.1f}" y="{y - 2:.1f}" text-anchor="middle" font-size="15" fill="#142033">{name}</text>'
        f'<text x="{x:.1f}" y="{y + 14:.1f}" text-anchor="middle" font-size="11" fill="#4a5a70">{count}</text>'
    )

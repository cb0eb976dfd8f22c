"""Forget what was kept of notebooks whose code runs on something else by now.

    python -m scripts.fresh

The cache of executed notebooks, which the build and nbval share, knows a notebook by its code
alone. Here each has a key of all else that decides what it prints and draws: the modules of the
library that it imports, those which they import, the data, the pins and the Python. Where that key
is another than when it was last looked at, the kept run and the page made of it go.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

import ntk_lib

__all__ = ["imports_of", "key", "library", "main", "parsed"]

REPO = Path(__file__).parents[1]
CACHE = REPO / "_build" / "cache"
KEYS = CACHE / "keys.json"
DOCTREES = REPO / "_build" / ".doctrees"
EVERYWHERE = ["requirements.txt", "book/data/*", "ntk_lib/page/book.mplstyle"]


# ---------------------------------------------------------------- what imports what


def parsed(code: str) -> ast.Module:
    """The Python of a cell, its magics turned into calls."""
    return ast.parse(TransformerManager().transform_cell(code))


def _trees(path: Path) -> Iterator[ast.Module]:
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        yield from (parsed(cell.source) for cell in cells if cell.cell_type == "code")
    else:
        yield ast.parse(path.read_text(encoding="utf-8"))


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """A tree without what only type checkers read."""
    yield node
    typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    for child in node.orelse if typing else ast.iter_child_nodes(node):
        yield from _run(child)


def imports_of(path: Path) -> set[str]:
    """The dotted names that a file of Python or a notebook imports, wherever in it that stands.

    A name that the library hands on at its top counts as its module's.
    """
    found = set()
    for node in (node for tree in _trees(path) for node in _run(tree)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            if node.level:
                above = path.relative_to(REPO).parts[: -node.level]
                package = ".".join([*above, *filter(None, [package])])
            found |= {package, *(f"{package}.{alias.name}" for alias in node.names)}
            if package == "ntk_lib":
                homes = {ntk_lib.HOME.get(alias.name) for alias in node.names} - {None}
                found |= {f"ntk_lib.{home}" for home in homes}
    return found


def library(path: Path) -> set[Path]:
    """The files of ntk_lib that run when this file or notebook does."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        for name in imports_of(waiting.pop()):
            parts = name.split(".")
            # importing a.b.c runs a, a.b and a.b.c
            for place in (REPO.joinpath(*parts[: i + 1]) for i in range(len(parts))):
                for file in (place.with_suffix(".py"), place / "__init__.py"):
                    if parts[0] == "ntk_lib" and file.is_file() and file not in found:
                        found.add(file)
                        waiting.append(file)
    return found


# ---------------------------------------------------------------- what still holds


def key(notebook: Path) -> str:
    """A digest of what the notebook runs on besides its own code."""
    files = {file for pattern in EVERYWHERE for file in REPO.glob(pattern)} | library(notebook)
    digest = hashlib.sha256(f"{sys.prefix} {sys.version}".encode())
    for file in sorted(files):
        digest.update(f"{file.relative_to(REPO)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def forget(names: set[str]) -> None:
    """Drop what was kept of these notebooks: their runs and their pages."""
    from jupyter_cache import get_cache

    for name in names:
        DOCTREES.joinpath(f"{name}.doctree").unlink(missing_ok=True)
    if not (CACHE / "notebooks").exists():
        return
    cache = get_cache(CACHE / "notebooks")
    for record in cache.list_cache_records():
        if Path(record.uri).stem in names:
            cache.remove_cache(record.pk)
    cache.db.dispose()


def main() -> None:
    now = {path.stem: key(path) for path in sorted((REPO / "book").glob("*.ipynb"))}
    before = json.loads(KEYS.read_text(encoding="utf-8")) if KEYS.exists() else {}
    changed = {name for name in now if before.get(name) != now[name]}
    if changed:
        forget(changed)
        KEYS.parent.mkdir(parents=True, exist_ok=True)
        KEYS.write_text(json.dumps(now, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

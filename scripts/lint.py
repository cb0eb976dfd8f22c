"""What can be seen without running anything: style, and the form of notebooks and pages.

    make lint

All is looked at, whatever was found before. A line says where, what, and what to do.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from scripts import notebooks
from scripts.fresh import parsed
from scripts.notebooks import place

__all__ = ["calls", "explored", "findings", "main", "notebook_findings", "page_findings"]

REPO = Path(__file__).parents[1]
BOOK = REPO / "book"
LONGEST = 30  # lines of a cell
FIRST = "kernels.ipynb"  # whose first cell is that of all


# ---------------------------------------------------------------- code of a cell


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    """The calls of a function by its bare name."""
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [node for node in nodes if isinstance(node.func, ast.Name) and node.func.id == name]


def explored(tree: ast.AST) -> list[ast.FunctionDef]:
    """The functions under ``@explore(…)``."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and any(calls(decorator, "explore") for decorator in node.decorator_list)
    ]


def says_what_is_seen(function: ast.FunctionDef) -> bool:
    """Whether each frame of an explorer comes with a text."""
    returns = [node for node in ast.walk(function) if isinstance(node, ast.Return)]
    pairs = (isinstance(r.value, ast.Tuple) and len(r.value.elts) == 2 for r in returns)
    return bool(ast.get_docstring(function)) or all(pairs)


def draws(tree: ast.Module) -> bool:
    """Does the cell itself, not a function in it, leave a matplotlib figure to be shown?"""
    top = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    plt = {
        node.func.attr
        for statement in top
        for node in ast.walk(statement)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "plt"
    }
    last = tree.body[-1] if tree.body else None
    bare = isinstance(last, ast.Expr) and isinstance(last.value, ast.Name)
    return (bool(plt) and "close" not in plt) or (bare and last.value.id == "fig")


# ---------------------------------------------------------------- what a figure draws by chance

# Figures that reach random numbers and yet show no draw of few networks: why none can mislead.
SETTLED = {
    "regression": {
        "nearly_the_same": "nothing is drawn: a fixed direction, fifty given pictures",
        "calibration": "means over three splits of 242 labels each",
        "learning_curves": "means over ten draws, with their errors",
        "exponent": "means over twenty draws of points and truth",
        "fitted_noise": "means over twelve draws, thirty labels and 900 new points",
    },
    "permutations": {
        "networks_against_bits": "closed forms; dots are medians of ten, with ranges",
        "between_the_kernels": "means over 128 networks, with their errors",
        "real_ensembles": "means over 45 words and 40 ensembles out of 1024 networks",
    },
    "kernels": {
        "forecast_with_a_band": "the caption's numbers are those of the posterior, not of a draw",
        "error_against_number": "means over 400 draws",
    },
    "gradient_flow": {"two_pictures": "a fixed model of two parameters"},
    "wide_networks": {
        "who_would_move": "means over 200 networks",
        "gap_to_the_gaussian": "shares of 100 000 draws",
        "dual_activation": "the dots are 200 000 samples, the caption's numbers exact",
        "forecast": "the caption's numbers are those of the posterior, not of a draw",
    },
    "lazy": {
        "falling_with_the_width": "means over 50 to 100 networks, with their intervals",
        "two_costs": "means over 24 networks",
    },
    "limiting_ntk": {
        "spread_of_one_number": "4000 networks",
        "how_fast": "standard deviations of some hundred networks",
        "smallest_eigenvalue": "means over networks, with their spread",
    },
    "early_stopping": {
        "components_of_a_real_network": "means over 16 networks, with their spread",
        "deviation_against_width": "means over 16 networks, with their intervals",
        "risk_against_time": "means over 40 networks",
        "two_filters": "computed from the eigenvalues of the limit",
        "ensemble_of_trained_networks": "the statistics of 100 networks",
        "fourier_modes": "the mean of eight networks of width 1024",
    },
    "jacot_2018": {
        "drift_against_width": "means over ten networks a width; their errors stand in the text",
        "number_of_points": "mean and range of its networks; a hundred draws take a quarter hour",
        "functions_at_convergence": "all coordinates are tested against the limit's law below it",
        "digits_in_the_plane": "the digits that the book ships, and no networks",
        "one_component": "mean and spread of ten networks; a hundred sets are 1000 trainings",
        "pull_in_training": "the mean of the same ten networks",
        "size_of_the_step": "mean and spread of ten networks; a hundred sets are 1000 trainings",
    },
    "architectures": {
        "falls_with_the_width": "400 networks of each kind and width",
        "logits": "the statistics of 4000 heads",
        "trained_and_forecast": "means over four networks, each beside its forecast",
    },
    "double_descent": {
        "digits_curve": "medians of eight draws of pictures and neurons",
        "law_of_a_value": "a thousand draws, beside their law",
        "forecast": "means over three draws, beside their forecast",
        "cures": "medians of three to twelve draws",
        "more_data": "medians of eight draws",
        "lazy_peak": "medians of four networks",
    },
    "small_data": {"noise_through_bins": "means over 8 draws, with their standard errors"},
}


def free_names(node: ast.AST) -> set[str]:
    """The names that are read and not bound inside: those of the notebook, or Python's own."""
    parts = list(ast.iter_child_nodes(node))
    own: set[str] = set()
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        body = node.body if isinstance(node.body, list) else [node.body]
        own = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
        own |= set().union(*map(bound_names, body))
    if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
        own = set().union(*(bound_names(g.target) for g in node.generators))
    return set().union(*map(free_names, parts)) - own


def bound_names(node: ast.AST) -> set[str]:
    """The names that are assigned to, inside functions too."""
    names = (n for n in ast.walk(node) if isinstance(n, ast.Name))
    return {n.id for n in names if isinstance(n.ctx, ast.Store)}


def draws_numbers(node: ast.AST) -> bool:
    """Does it ask for random numbers: ``jax.random``, ``numpy.random``, a key or a seed?"""
    return any(
        (isinstance(n, ast.Attribute) and n.attr == "random")
        or (isinstance(n, ast.keyword) and n.arg in {"key", "keys", "seed"})
        for n in ast.walk(node)
    )


def random_figures(trees: list[ast.Module]) -> list[str]:
    """The figures under ``@explore`` whose drawing reaches random numbers, through any names."""
    uses: dict[str, set[str]] = {}
    chance: set[str] = set()
    for statement in (statement for tree in trees for statement in tree.body):
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names = {statement.name}
        else:
            names = bound_names(statement)
        for name in names:
            uses.setdefault(name, set()).update(free_names(statement))
            chance |= {name} if draws_numbers(statement) else set()

    def reached(name: str) -> set[str]:
        found, new = set(), {name}
        while new:
            found |= new
            new = set().union(*(uses.get(n, set()) for n in new)) - found
        return found

    figures = [function.name for tree in trees for function in explored(tree)]
    return [name for name in figures if reached(name) & chance]


def called_typical(trees: list[ast.Module]) -> set[str]:
    """The first words of the claims of ``typical``: names of figures."""
    claims = [call.args[0] for tree in trees for call in calls(tree, "typical") if call.args]
    words = [
        n.value for claim in claims for n in list(ast.walk(claim)) if isinstance(n, ast.Constant)
    ]
    return {word.split(":")[0] for word in words if isinstance(word, str)}


# ---------------------------------------------------------------- what is found

WITHOUT_TEXT = re.compile(
    r"!\[\s*\]\([^)]*\)"  # ![](picture.png)
    r"|<img\b(?![^>]*\balt=[\"'][^\"'])[^>]*"
    r"|\{(?:figure|image)\}[^\n]*\n(?!(?::\w+:[^\n]*\n)*:alt: *\S)"
)
SAY = "say in words what is to be seen, ![like this](…), <img alt=…> or :alt:"


def page_findings(text: str) -> list[str]:
    """What is wrong with the prose of a page or a cell."""
    pictures = WITHOUT_TEXT.findall(text)
    return [f"picture without alternative text, {p.strip()[:40]!r}: {SAY}" for p in pictures]


def cell_findings(cell: NotebookNode) -> Iterator[str]:
    """What is wrong with a cell of a notebook."""
    if cell.cell_type != "code":
        yield from page_findings(cell.source)
        return
    lines = len(cell.source.splitlines())
    if lines > LONGEST:
        yield f"{lines} lines of code, at most {LONGEST}: what is long belongs into the module"
    tree = parsed(cell.source)
    for function in explored(tree):
        if not says_what_is_seen(function):
            yield f"{function.name} draws without a text: return (fig, text), or give a docstring"
    if draws(tree) and not cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip():
        yield (
            "picture without alternative text: say in the cell's metadata what is to be seen, "
            '"mystnb": {"image": {"alt": …}}'
        )


def notebook_findings(path: Path, first: NotebookNode) -> list[str]:
    """What is wrong with a notebook; ``first`` is the cell that each starts with."""
    notebook = nbformat.read(path, as_version=4)
    found = notebooks.problems(path)
    start = notebook.cells[0] if notebook.cells else NotebookNode(source="")
    if (start.source, start.get("metadata")) != (first.source, first.metadata):
        found.append(f"another first cell: copy that of book/{FIRST}, which installs in Colab")
    for index, cell in enumerate(notebook.cells):
        found += [f"{place(notebook, index)}: {what}" for what in cell_findings(cell)]
    trees = [parsed(cell.source) for cell in notebook.cells[1:] if cell.cell_type == "code"]
    settled = {*called_typical(trees), *SETTLED.get(path.stem, {})}
    found += [
        f"{name} shows random draws: compare the number in its caption with a hundred other draws, "
        f'typical("{name}: …", shown, draws), or say in scripts/lint.py why none can mislead'
        for name in random_figures(trees)
        if name not in settled
    ]
    return found


def findings() -> list[str]:
    """A line for all that is wrong with notebooks and pages."""
    first = nbformat.read(BOOK / FIRST, as_version=4).cells[0]
    found = []
    for path in sorted(BOOK.iterdir()):
        if path.suffix == ".ipynb":
            here = notebook_findings(path, first)
        elif path.suffix == ".md":
            here = page_findings(path.read_text(encoding="utf-8"))
        else:
            continue
        found += [f"{path.relative_to(REPO)}, {what}" for what in here]
    return found


def main() -> int:
    ruff = [[sys.executable, "-m", "ruff", *words] for words in (["check"], ["format", "--check"])]
    failed = [
        c for c in ruff if subprocess.run([*c, "--quiet", "."], cwd=REPO, check=False).returncode
    ]
    if failed:
        print("style: `.venv/bin/ruff check --fix .` and `.venv/bin/ruff format .` mend most of it")
    found = findings()
    print("\n".join(found) or "notebooks and pages are in their form")
    return 1 if failed or found else 0


if __name__ == "__main__":
    sys.exit(main())

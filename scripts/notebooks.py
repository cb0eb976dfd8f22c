"""Keep the notebooks in their stored form: text outputs and nothing that differs between machines.

    python -m scripts.notebooks --changed book/*.ipynb   run those whose code has changed, store all
    python -m scripts.notebooks --run book/lazy.ipynb    run it and store it
    python -m scripts.notebooks --tidy book/*.ipynb      store them without running any

Stored: source, cell ids, execution counts, text outputs (so that nbval compares every printed
number), a digest of the code that printed them. Not stored: pictures, HTML, widget state, timings,
versions, empty metadata. ``make lint`` fails on one in another form.
"""

import argparse
import hashlib
import sys
from itertools import groupby
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

__all__ = ["code", "digest", "main", "normalise", "place", "problems", "written"]

REPO = Path(__file__).parents[1]
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
CELL_METADATA = {"tags", "mystnb", "jupyter", "cellView"}


def code(notebook: NotebookNode) -> list[NotebookNode]:
    """Its cells of code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def digest(notebook: NotebookNode) -> str:
    """What changes when its code does, and with nothing else."""
    sources = "\0".join(cell.source for cell in code(notebook))
    return hashlib.sha256(sources.encode()).hexdigest()[:16]


def place(notebook: NotebookNode, index: int) -> str:
    """How a person finds a cell: its number among all of them, from 1, and its first words."""
    words = notebook.cells[index].source.strip().splitlines() or ["empty"]
    start = words[0] if len(words[0]) <= 40 else f"{words[0][:40]}…"
    return f"cell {index + 1} ({start})"


# ---------------------------------------------------------------- the stored form


def normalise(notebook: NotebookNode) -> None:
    """Strip ``notebook`` to its stored form, in place."""
    ran = notebook.metadata.get("ntk", {}).get("ran", "")
    notebook.metadata = NotebookNode(
        kernelspec=KERNEL,
        language_info=NotebookNode(name="python"),
        ntk=NotebookNode(ran=ran),
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell in notebook.cells:
        cell.metadata = NotebookNode(
            {k: v for k, v in cell.metadata.items() if k in CELL_METADATA and v}
        )
        if cell.cell_type != "code":
            cell.pop("attachments", None)
            continue
        cell.outputs = [out for out in map(_text_only, cell.outputs) if out is not None]
        cell.outputs = [_joined(list(group)) for _, group in groupby(cell.outputs, key=_stream)]


def _stream(output: NotebookNode) -> str | int:
    """The same for prints that follow each other, which arrive in pieces as time has it."""
    return output.name if output.output_type == "stream" else id(output)


def _joined(outputs: list[NotebookNode]) -> NotebookNode:
    first = outputs[0]
    if first.output_type == "stream":
        first.text = "".join(output.text for output in outputs)
    return first


def _text_only(output: NotebookNode) -> NotebookNode | None:
    if "data" not in output:
        return output if output.output_type == "stream" else None
    text = output.data.get("text/plain")
    if text is None:
        return None
    output.data, output.metadata = NotebookNode({"text/plain": text}), NotebookNode()
    return output


def written(notebook: NotebookNode) -> str:
    """The text of its file."""
    return nbformat.writes(notebook, indent=1, ensure_ascii=False) + "\n"


# ---------------------------------------------------------------- what is not in that form

RUN = "`make notebooks` runs and stores it"
TIDY = "`make tidy` mends it without running anything"


def problems(path: Path) -> list[str]:
    """What keeps the notebook at ``path`` from its stored form: where, what, and what to do."""
    stored = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(stored, as_version=4)
    found = []
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        where = place(notebook, index)
        if not cell.source.strip():
            found.append(f"{where} is empty: delete it")
        if cell.execution_count is None:
            found.append(f"{where} was not run: {RUN}")
        for output in cell.outputs:
            kinds = set(output.get("data", {})) - {"text/plain"}
            if kinds:
                found.append(f"{where} stores {', '.join(sorted(kinds))}: {TIDY}")
            if output.output_type == "error":
                found.append(f"{where} stores an error: mend the cell, then {RUN}")
    if "widgets" in notebook.metadata:
        found.append(f"widget state is stored: {TIDY}")
    if not found and notebook.metadata.get("ntk", {}).get("ran") != digest(notebook):
        found.append(f"code has changed since it was run: {RUN}")
    normalise(notebook)
    if not found and written(notebook) != stored:
        found.append(f"metadata or layout is not in the stored form: {TIDY}")
    return found


# ---------------------------------------------------------------- run and store


def run(path: Path, notebook: NotebookNode) -> None:
    """Execute the notebook in place."""
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    notebook.metadata["ntk"] = NotebookNode(ran=digest(notebook))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--changed", action="store_true", help="run those whose code has changed")
    how.add_argument("--run", action="store_true", help="run all that are named")
    how.add_argument("--tidy", action="store_true", help="run none")
    parser.add_argument("notebooks", nargs="+", type=Path)
    asked = parser.parse_args()
    failed = False
    for path in asked.notebooks:
        before = path.read_text(encoding="utf-8")
        notebook = nbformat.reads(before, as_version=4)
        ran = notebook.metadata.get("ntk", {}).get("ran") == digest(notebook)
        ran = ran and all(cell.execution_count is not None for cell in code(notebook))
        if asked.run or (asked.changed and not ran):
            run(path, notebook)
            print(f"{path}: run and stored", flush=True)
        elif not ran:
            failed = True
            print(f"{path}: code has changed since it was run: {RUN}")
        normalise(notebook)
        if written(notebook) != before:
            path.write_text(written(notebook), encoding="utf-8")
            if asked.tidy:
                print(f"{path}: stored in its form")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

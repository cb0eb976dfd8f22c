"""Keep the notebooks in their stored form: text outputs and nothing that differs between machines.

    python scripts/notebooks.py book/*.ipynb           run them and store them
    python scripts/notebooks.py --check book/*.ipynb   fail if one is not in that form

Stored: source, cell ids, execution counts, text outputs (so that nbval compares every printed
number). Not stored: pictures, HTML, widget state, timings, versions, empty metadata.
"""

import argparse
import sys
from itertools import groupby
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
CELL_METADATA = {"tags", "mystnb", "jupyter", "cellView"}


def normalise(notebook: NotebookNode) -> None:
    """Strip ``notebook`` to its stored form, in place."""
    notebook.metadata = NotebookNode(kernelspec=KERNEL, language_info=NotebookNode(name="python"))
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


def problems(path: Path) -> list[str]:
    """What keeps the notebook at ``path`` from its stored form, one line a problem."""
    stored = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(stored, as_version=4)
    found = []
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        if not cell.source.strip():
            found.append(f"cell {index} is empty")
        if cell.execution_count is None:
            found.append(f"cell {index} was not run")
        for output in cell.outputs:
            kinds = set(output.get("data", {})) - {"text/plain"}
            if kinds:
                found.append(f"cell {index} stores {', '.join(sorted(kinds))}")
            if output.output_type == "error":
                found.append(f"cell {index} stores an error")
    if "widgets" in notebook.metadata:
        found.append("widget state is stored")
    normalise(notebook)
    if not found and _written(notebook) != stored:
        found.append("metadata or layout is not normalised")
    return found


def _written(notebook: NotebookNode) -> str:
    return nbformat.writes(notebook, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="run nothing, write nothing")
    parser.add_argument("notebooks", nargs="+", type=Path)
    arguments = parser.parse_args()
    failed = False
    for path in arguments.notebooks:
        if arguments.check:
            for problem in problems(path):
                failed = True
                print(f"{path}: {problem} (make notebooks mends it)")
            continue
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            store_widget_state=False,
            resources={"metadata": {"path": str(path.parent)}},
        )
        client.execute()
        normalise(notebook)
        path.write_text(_written(notebook), encoding="utf-8")
        print(f"{path}: run and stored")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

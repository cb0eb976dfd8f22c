"""For nbval: every printed number is compared; pictures, which are not stored, are not.

The last digit of a printed number may differ by one: processors add in different orders, and a
number at the edge of two roundings falls to either side. Whole numbers have to be the same.

With NOTEBOOK_CACHE, the folder of a jupyter-cache, a notebook that ran to its end is kept there for
the build of the book, which then need not run it again.
"""

import copy
import difflib
import json
import os
import re
import time

import pytest
from nbformat import NotebookNode
from nbval.plugin import IPyNbCell, IPyNbFile

CACHE = os.environ.get("NOTEBOOK_CACHE")

# ---------------------------------------------------------------- what is compared

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?")
compare_outputs = IPyNbCell.compare_outputs


def pytest_collectstart(collector: pytest.Collector) -> None:
    if isinstance(collector, IPyNbFile):
        collector.skip_compare += ("text/html", "image/svg+xml")


def last_place(number: str) -> float:
    """One unit of the last digit that is printed."""
    mantissa, _, exponent = number.partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def same_number(one: str, other: str) -> bool:
    if one == other or not {".", "e"} & {*one, *other}:
        return one == other
    return abs(float(one) - float(other)) < 1.01 * min(last_place(one), last_place(other))


def same_print(one: str, other: str) -> bool:
    """Whether two prints have the same words, and numbers at most one last digit apart."""
    words = [["".join(part.split()) for part in NUMBER.split(text)] for text in (one, other)]
    return words[0] == words[1] and all(
        map(same_number, NUMBER.findall(one), NUMBER.findall(other))
    )


def settled(test: dict, reference: dict) -> dict:
    """The output ``test``, with the text of ``reference`` where the two are the same print."""
    for place, stored in ((test, reference), (test.get("data"), reference.get("data"))):
        for key in ("text", "text/plain"):
            if place and stored and key in place and key in stored:
                place[key] = stored[key] if same_print(place[key], stored[key]) else place[key]
    return test


def compare(self: IPyNbCell, test: list, reference: list, *rest, **named) -> bool:
    if len(test) == len(reference):
        test = [settled(*pair) for pair in zip(test, reference, strict=True)]
    return compare_outputs(self, test, reference, *rest, **named)


def say_difference(self: IPyNbCell, key: str, stored: object, now: object) -> None:
    """What a reader of the log needs: the lines that differ, which is which, and what to do."""
    lines = difflib.ndiff(str(stored).splitlines(), str(now).splitlines())
    names = {"- ": "  stored: ", "+ ": "  now:    "}
    self.comparison_traceback += [names[x[:2]] + x[2:] for x in lines if x[:2] in names]


def say_failure(self: IPyNbCell, failure, plain=IPyNbCell.repr_failure) -> str:
    name = f"book/{self.path.name}"
    prompt = f"{name}, the cell that JupyterLab numbers [{self.cell.execution_count}]"
    way_out = f"If what comes out now is right, `make notebooks NOTEBOOKS={name}` stores it."
    found = [prompt, plain(self, failure)]
    return "\n".join([*found, way_out] if self.comparison_traceback else found)


IPyNbCell.compare_outputs = compare
IPyNbCell.format_output_compare = say_difference
IPyNbCell.repr_failure = say_failure
IPyNbCell.comparison_traceback = []  # of a cell that was not compared


# ---------------------------------------------------------------- what is kept

# what nbclient would keep of the explorers by listening to them
WIDGETS = "import json, ipywidgets; print(json.dumps(ipywidgets.Widget.get_manager_state()))"


def executed(notebook: IPyNbFile, cells: list[IPyNbCell]) -> NotebookNode:
    """The notebook as its kernel has left it."""
    found = copy.deepcopy(notebook.nb)
    for cell, item in zip((c for c in found.cells if c.cell_type == "code"), cells, strict=True):
        cell.outputs = copy.deepcopy(item.test_outputs)
    found.metadata.widgets = {
        "application/vnd.jupyter.widget-state+json": json.loads(printed(notebook.kernel, WIDGETS))
    }
    return found


def printed(kernel, code: str) -> str:
    """What the code prints in the kernel."""
    asked, text = kernel.execute_cell_input(code), ""
    while True:
        message = kernel.get_message("iopub", timeout=60)
        content = message["content"]
        if message["parent_header"].get("msg_id") != asked:
            continue
        if message["msg_type"] == "stream":
            text += content["text"]
        elif content.get("execution_state") == "idle":
            return text


def keep(notebook: NotebookNode, path: str, seconds: float) -> None:
    import fcntl

    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    bundle = CacheBundleIn(notebook, path, data={"execution_seconds": seconds})
    os.makedirs(CACHE, exist_ok=True)
    with open(os.path.join(CACHE, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # notebooks run side by side
        cache = get_cache(CACHE)
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        cache.db.dispose()


def setup(self: IPyNbFile, plain=IPyNbFile.setup) -> None:
    self.started = time.monotonic()
    plain(self)


def teardown(self: IPyNbFile, plain=IPyNbFile.teardown) -> None:
    seconds = time.monotonic() - self.started
    cells = [item for item in self.session.items if item.parent is self]
    ran = all(item.test_outputs is not None and not failed(item) for item in cells)
    whole = len(cells) == sum(cell.cell_type == "code" for cell in self.nb.cells)
    if CACHE and ran and whole and not self.timed_out:
        keep(executed(self, cells), str(self.path), seconds)
    plain(self)


def failed(cell: IPyNbCell) -> bool:
    return any(output.output_type == "error" for output in cell.test_outputs)


IPyNbFile.setup, IPyNbFile.teardown = setup, teardown

"""The bones of a new chapter, which pass every test of form from the first minute.

    make chapter NAME=regression TITLE="What does the kernel say about data?"

Writes book/NAME.ipynb, ntk_lib/NAME.py and tests/test_NAME.py, and puts the chapter into _toc.yml
and into the table of the front page. What is left to do is printed.
"""

import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from scripts import notebooks

__all__ = ["main", "write"]

REPO = Path(__file__).parents[1]
FIRST = "kernels"  # whose first cell is that of all

MODULE = '''\
"""{title}

Serves the chapter ``{name}``. Say here in three sentences what it is about, with the equations that
the functions below implement and where they come from.
"""

from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_lib.engine.arguments import as_array

__all__ = ["double"]


def double(x: Float[ArrayLike, " n"]) -> Float[Array, " n"]:
    """2x, entry by entry: the first function of the chapter stands here, with shapes and units.

    Raises ``TypeError`` for what is no array of real numbers.
    """
    return 2 * as_array("x", x)
'''

TEST = '''\
"""{title} Each function against another way to the same number."""

import numpy as np

from ntk_lib.{name} import double


def test_double_is_the_sum_of_two(dtype):
    x = np.linspace(-1, 1, 5, dtype=dtype)
    np.testing.assert_allclose(double(x), x + x, rtol=np.finfo(dtype).eps)
'''

SETUP = """\
import jax
import matplotlib.pyplot as plt
import numpy as np

from ntk_lib.page.check import check
from ntk_lib.page.explore import explore

jax.config.update("jax_enable_x64", True)  # printed digits are compared
x = np.linspace(-1, 1, 41)"""

CORE = """\
def double(x):
    return 2 * x


check("twice a half", double(np.array([0.5]))[0], 1.0, within=1e-15)"""

EXPLORER = '''\
@explore(power=[1, 2, 4])
def first_figure(power):
    """What is to be seen in the figure."""
    fig, ax = plt.subplots()
    y = 2 * x**power
    ax.plot(x, y, color="C0")
    ax.set(xlabel="$x$", ylabel="$2x^p$", ylim=(-2, 2), title=f"$p$ = {power}")
    return fig, f"Twice the power {power} of x rises from {y[20]:.0f} at 0 to {y[-1]:.0f} at 1."'''

OPENING = """\
# {title}

*About 30 minutes. You need … Symbols are those of the [notation page](notation.md).*

A question that a person would ask comes first, and a figure that makes it concrete."""

PREDICT = """\
**Predict, then move the slider.** What do you expect when the power grows? Will the curve

- (a) stay as it is,
- (b) flatten in the middle, or
- (c) become steeper everywhere?"""

ANSWER = """\
````{{dropdown}} Answer
(b). Powers of a number below 1 are smaller, [at power 4](#first_figure?power=4) most of all.

- (a) would need $x^p = x$, which holds at 0 and 1 alone.
- (c) is what happens near 1 only.
````

(sec-{label}-idea)=
## The idea

**One idea a paragraph.** Its core computation stands here in a few lines, whose names are those of
the formula. The library has the same function: `ntk_lib.{name}`."""

SOLUTION = 'check("{}", double(np.array([0.25]))[0], 0.5, within=1e-15)'

LIMITS = """\
(sec-{label}-limits)=
## Where it stops being true

Every chapter ends its story with the limit of its claims.

## Exercises"""

EXERCISE = """\
```{{exercise-start}} {heading}
:label: ex-{label}-{number}
```
{question}
```{{exercise-end}}
```

```{{solution-start}} ex-{label}-{number}
:class: dropdown
```
{answer}"""

END = """\
```{solution-end}
```"""

READING = """\
## Further reading

A line on what each source adds, which `book/references.bib` knows: {cite:t}`jacot2018`."""

EXERCISES = [
    ("Read the figure", "What does the figure show at $x = 1$?", "2, at each power."),
    ("Compute", "How large is $2x$ at $x = 1/4$?", "One half."),
    ("Prove", "Show that $2x = x + x$.", "$2x = (1 + 1)\\,x$."),
    ("Build", "Double a number without a multiplication.", "Add it to itself."),
]

LEFT = """\
{name} has its bones:
  book/{name}.ipynb, ntk_lib/{name}.py, tests/test_{name}.py,
  a line in _toc.yml, a row in the table of book/intro.ipynb
What is left to do:
  1. Write. The line in italics that starts with "About" stays the second of the page.
  2. `make notebooks` runs what you wrote and stores it; `make lint` says what is not in its form.
  3. Bad input of each function: a row in tests/test_refusals.py.
  4. A term that a reader may look up: an entry in book/glossary.md, linked once by {{term}}.
{order}  {last}. `make test` before a push."""


# ---------------------------------------------------------------- the notebook


def chapter(name: str, title: str, first: NotebookNode) -> NotebookNode:
    """The notebook; ``first`` is the cell that installs in Colab."""
    words = {"name": name, "title": title, "label": name.replace("_", "-")}
    hidden = {"tags": ["hide-input"]}

    def said(text: str, **more: object) -> NotebookNode:
        return new_markdown_cell(text.format(**words, **more))

    cells = [
        first.copy(),
        said(OPENING),
        new_code_cell(SETUP.format(**words), metadata=hidden),
        said(PREDICT),
        new_code_cell(EXPLORER, metadata=hidden),
        said(ANSWER),
        new_code_cell(CORE),
        said(LIMITS),
    ]
    for number, (heading, question, answer) in enumerate(EXERCISES, 1):
        cells.append(
            said(EXERCISE, number=number, heading=heading, question=question, answer=answer)
        )
        cells.append(new_code_cell(SOLUTION.format(heading.lower())))
        cells.append(new_markdown_cell(END))
    cells.append(new_markdown_cell(READING))
    for number, cell in enumerate(cells[1:], 1):
        cell.id = f"{cell.cell_type}-{number:02d}"
    return new_notebook(cells=cells)


# ---------------------------------------------------------------- where the book knows it


def with_entry(toc: str, name: str) -> str:
    """The table of contents with the chapter as the last before the appendices."""
    before, found, after = toc.partition("  - caption: Appendices\n")
    if not found:
        raise ValueError("_toc.yml needs a part with the caption Appendices")
    return f"{before}      - file: {name}\n{found}{after}"


def with_row(front: NotebookNode, name: str, title: str) -> NotebookNode:
    """The front page with the chapter as the last of its table."""
    for cell in front.cells:
        rows = re.findall(r"^\|.*\]\((\w+)\.ipynb\).*\|$", cell.source, re.M)
        if cell.cell_type == "markdown" and rows:
            lines = cell.source.split("\n")
            last = max(i for i, line in enumerate(lines) if f"]({rows[-1]}.ipynb)" in line)
            columns = lines[last].count("|") - 1
            entry = [f"[{title}]({name}.ipynb)", *["…"] * (columns - 1)]
            lines.insert(last + 1, f"| {' | '.join(entry)} |")
            cell.source = "\n".join(lines)
            return front
    raise ValueError("book/intro.ipynb needs a table whose rows link to the chapters")


def write(name: str, title: str, repo: Path = REPO) -> list[Path]:
    """Write the bones of a chapter; the files that are new or changed.

    Raises ``ValueError`` for a name that is no name of a module, one that is taken, no title.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"NAME needs small letters, digits and _, got {name!r}")
    if not title.strip():
        raise ValueError('TITLE needs the title of the chapter, a question say: TITLE="Why …?"')
    book, intro, toc = repo / "book", repo / "book" / "intro.ipynb", repo / "_toc.yml"
    new = {
        book / f"{name}.ipynb": "",
        repo / "ntk_lib" / f"{name}.py": MODULE.format(name=name, title=title),
        repo / "tests" / f"test_{name}.py": TEST.format(name=name, title=title),
    }
    if (book / f"{name}.ipynb").exists():
        raise ValueError(f"NAME needs a chapter that is not there yet, got {name!r}")
    new = {path: text for path, text in new.items() if not path.exists()}  # scale has a module
    first = nbformat.read(book / f"{FIRST}.ipynb", as_version=4).cells[0]
    made = chapter(name, title, first)
    notebooks.normalise(made)
    new[book / f"{name}.ipynb"] = notebooks.written(made)
    new[toc] = with_entry(toc.read_text(encoding="utf-8"), name)
    new[intro] = notebooks.written(with_row(nbformat.read(intro, as_version=4), name, title))
    for path, text in new.items():
        path.write_text(text, encoding="utf-8")
    return list(new)


def main() -> None:
    name, title = [*sys.argv[1:], "", ""][:2]
    try:
        write(name, title)
    except ValueError as error:
        sys.exit(f'{error}\nTry: make chapter NAME=regression TITLE="What does it say?"')
    known = f'"{name}"' in (REPO / "tests" / "test_book.py").read_text(encoding="utf-8")
    order = (
        "" if known else "  5. Its place among the chapters: CHAPTER_ORDER in tests/test_book.py.\n"
    )
    print(LEFT.format(name=name, order=order, last=5 if known else 6))


if __name__ == "__main__":
    main()

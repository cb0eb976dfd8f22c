"""Predictions and their answers, folds of checks, and what references show, in pages of a line."""

import io
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO / "book" / "extension"))

import answers  # noqa: E402, F401
import previews  # noqa: E402

# ---------------------------------------------------------------- predictions

CHOICES = "- (a) about 2,\n- (b) about *4*, or\n- (c) 16?"
ASKED = f"**Predict, then move.** By which factor $k$?\n\n{CHOICES}\n"
SAID = "(b). It is 4.\n\n- (a) would hold for $x$.\n- (c) would need more."


def answer(text: str) -> str:
    return f"````{{dropdown}} Answer\n{text}\n````\n"


GOOD = f"{ASKED}\nIn between.\n\n{answer(SAID)}"
LACKS = {
    "choices": (GOOD.replace(CHOICES, "Is it (a) 2, (b) 4?"), "needs a list of two to four"),
    "far": (GOOD.replace(CHOICES, f"And now?\n\n{CHOICES}"), "needs a list of two to four"),
    "order": (GOOD.replace("- (c)", "- (d)", 1), "needs a list of two to four"),
    "five": (GOOD.replace("16?", "16,\n- (d) 5,\n- (e) 6?"), "needs a list of two to four"),
    "plain": (GOOD.replace("16?", "16?\n- or what"), "a choice without a letter"),
    "answer": (ASKED, "has no answer"),
    "another": (f"{ASKED}\n{GOOD}", "has no answer"),
    "letter": (GOOD.replace("(b). It", "It"), "start with the letter"),
    "which": (GOOD.replace("(b). It", "(d). It"), "start with the letter"),
    "sentence": (GOOD.replace("- (c) would", "- it would"), "no sentence for (c)"),
    "none": (GOOD.replace(SAID, "(b)."), "no sentence for (a) and (c)"),
    "surplus": (GOOD.replace("need more.", "need.\n- (d) is."), "speaks of (d)"),
    "alone": (answer(SAID), "no prediction above it"),
    "twice": (f"{GOOD}\n{answer(SAID)}", "no prediction above it"),
}
FINE = {
    "good": GOOD,
    "two": f"{GOOD}\n{GOOD.replace('By which', 'And by which')}",
    "right-too": GOOD.replace("- (a) would", "- (b) holds.\n- (a) would"),
    "other-fold": f"{ASKED}\n````{{dropdown}} Proof\nIt is.\n````\n\n{answer(SAID)}",
    "no-prediction": "**Prediction** and **Predict** in a line.\n\n- (a) one,\n- (b) two.",
}


def cell(printed: str, *tags: str):
    out = [new_output("stream", text=printed)] if printed else []
    return new_code_cell("check()", outputs=out, execution_count=1, metadata={"tags": [*tags]})


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A site of all these pages: its folder, and what the build complained of, by page."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    pages = FINE | {name: text for name, (text, _) in LACKS.items()}
    for name, text in pages.items():
        head = "---\norphan: true\n---\n# A page\n\n"
        (source / f"{name}.md").write_text(head + text, encoding="utf-8")
    cells = [new_markdown_cell("# Checks")]
    cells += [cell("✓ one\nnote ✓\n✓ two\n", "hide-cell", "checks"), cell("✓ 1\n", "hide-cell")]
    cells += [cell("✓ a\n", "checks", "hide-cell"), cell("no", "hide-cell", "checks")]
    cells += [cell("✓ a", "checks")]
    kernel = {"name": "python3", "display_name": "Python 3"}
    written_in = {"name": "python", "pygments_lexer": "python3"}
    metadata = {"kernelspec": kernel, "language_info": written_in}
    notebook = new_notebook(cells=cells, metadata=metadata)
    nbformat.write(notebook, source / "index.ipynb")
    complaints = io.StringIO()
    config = {
        "extensions": ["myst_nb", "sphinx_design", "answers", "places"],
        "myst_enable_extensions": ["dollarmath"],
        "nb_execution_mode": "off",
        "root_doc": "index",
        "html_theme": "basic",
        "source_suffix": {".md": "myst-nb", ".ipynb": "myst-nb"},
    }
    with patch_docutils(), docutils_namespace():
        app = Sphinx(
            source, None, out, out / "trees", "html", config, status=None, warning=complaints
        )
        app.build()
    lines = re.sub(r"\x1b\[[\d;]*m", "", complaints.getvalue()).splitlines()
    return out, [line.removeprefix(f"{source}/") for line in lines if line]


@pytest.mark.parametrize("name", LACKS)
def test_a_prediction_that_lacks_a_part_is_a_warning_that_names_page_and_question(built, name):
    _, complaints = built
    (found,) = [line for line in complaints if line.startswith(f"{name}.md:")]
    assert LACKS[name][1] in found
    assert "By which factor" in found or "above it" in found


@pytest.mark.parametrize("name", FINE)
def test_a_whole_prediction_is_no_warning(built, name):
    _, complaints = built
    assert [line for line in complaints if line.startswith(f"{name}.md:")] == []


def test_the_page_says_which_is_which_and_reads_as_before_without_scripts(built):
    out, _ = built
    page = (out / "good.html").read_text(encoding="utf-8")
    (name,) = re.findall(r'<p class="prediction" id="(predict-\w{8})">', page)
    assert re.search(r'<ul class="choices right-b simple">\s*<li><p>\(a\) about 2', page)
    assert len(re.findall(r'<details class="[^"]*\bprediction-answer\b', page)) == 1
    assert re.findall(r'<li class="(against-\w)"', page) == ["against-a", "against-c"]
    two = (out / "two.html").read_text(encoding="utf-8")
    names = re.findall(r'id="(predict-\w{8})"', two)
    assert names[0] == name  # of the question alone
    assert len(set(names)) == 2


def test_a_fold_of_checks_says_how_many(built):
    out, complaints = built
    page = (out / "index.html").read_text(encoding="utf-8")
    said = re.findall(r'<p class="collapsed admonition-title">(.*?)</p>', page)
    assert said == ["✓ 2 checks", "Show code cell content", "✓ 1 check", "Show code cell content"]
    found = [line for line in complaints if line.startswith("index.ipynb")]
    assert [re.search(r"cell (\d)", line)[1] for line in found] == ["5", "6"]


# ---------------------------------------------------------------- previews

GLOSSARY = """<article><dl class="glossary">
<dt id="term-cost">cost<a class="headerlink" href="#term-cost" title="x">#</a></dt>\
<dt id="term-loss">loss<a class="headerlink" href="#term-loss">#</a></dt><dd><p>How bad, see
<a class="reference internal" href="#term-rate">rate</a> and
<a class="reference internal" href="a.html#s">S</a>.</p></dd>
<dt id="term-rate">rate</dt><dd><p>A number.</p></dd></dl></article>"""
CHAPTER = """<aside><a class="reference internal" href="#thm-1">not in the text</a></aside><article>
<section id="s"><div class="proof theorem admonition" id="thm-1"><p>1 (<i id="x">T</i>)</p>
<div><div>deep</div></div></div> after
<div class="math notranslate" id="equation-e"><span class="eqno">(1)</span>E</div>
<a class="reference internal" href="#thm-1">T</a> <a class="reference internal" href="#s">S</a>
<a class="reference internal" href="glossary.html#term-cost">c</a>
<a class="reference internal" href="b.html#id1" title="B">B</a>
<a class="reference internal" href="b.html#lost">L</a>
<a class="reference internal" href="#f?w=1">F</a>
<a class="reference internal" href="#equation-e">(1)</a></section></article>"""
SOURCES = '<article><div class="citation" id="id1" role="listitem"><p>Book.</p></div></article>'


def test_a_reference_shows_theorem_equation_term_or_source_and_nothing_else():
    pages = {"glossary.html": GLOSSARY, "b.html": SOURCES}
    found = previews.collect("a.html", CHAPTER, pages.__getitem__)
    assert found == {
        "#thm-1": '<div class="proof theorem admonition"><p>1 (<i>T</i>)</p> '
        "<div><div>deep</div></div></div>",
        "glossary.html#term-cost": "<p><strong>cost</strong></p><p>How bad, see "
        '<a class="reference internal" href="glossary.html#term-rate">rate</a> and '
        '<a class="reference internal" href="a.html#s">S</a>.</p>',
        "b.html#id1": '<div class="citation"><p>Book.</p></div>',
        "#equation-e": '<div class="math notranslate"><span class="eqno">(1)</span>E</div>',
    }
    assert list(previews.collect("glossary.html", GLOSSARY, lambda name: CHAPTER)) == ["#term-rate"]


@pytest.mark.parametrize("extensions", [["previews"], []])
def test_a_search_knows_the_terms_after_a_build_that_reads_another_page_alone(tmp_path, extensions):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "glossary.md").write_text("# G\n\n```{glossary}\nwidth\n  How wide.\n```\n")
    config = {
        "extensions": ["myst_parser", *extensions],
        "root_doc": "index",
        "html_theme": "basic",
        # by default what another test has registered
        "source_suffix": {".md": "markdown"},
    }
    for words in ("before", "after"):
        (source / "index.md").write_text(f"# I\n\n{words}\n\n```{{toctree}}\nglossary\n```\n")
        with patch_docutils(), docutils_namespace():
            Sphinx(source, None, out, out / "trees", "html", config, status=None).build()
    index = (out / "searchindex.js").read_text(encoding="utf-8")
    # what Sphinx does by itself, and why the extension is needed
    assert bool(re.search(r'"indexentries": \{"width"', index)) == bool(extensions)

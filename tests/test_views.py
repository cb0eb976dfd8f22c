"""Links to a frame of a figure, as the build makes and checks them. The page's part: a browser."""

import io
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

sys.path.insert(0, str(Path(__file__).parents[1] / "book" / "extension"))

import views

from ntk_lib.page.explore import _control

CONTROLS = [
    _control("width", [8, 512]),
    _control("rate", [1e-6, 0.5]),
    _control("show", ["the weights", "100 %"]),
    _control("bias", [True, False]),
]
FIGURES = {"wave": CONTROLS, "plain": []}


@pytest.mark.parametrize(
    ("link", "fragment"),
    [
        ("wave?width=512", "wave?width=512"),
        (
            "wave?rate=1e-06&show=the weights&bias=True",
            "wave?rate=1e-06&show=the%20weights&bias=True",
        ),
        ("wave?rate=10⁻⁶&width=8.0", "wave?rate=10%E2%81%BB%E2%81%B6&width=8.0"),
        ("wave?show=100%20%25", "wave?show=100%20%25"),
        ("wave?width=512&lock=width,rate&hide=bias", "wave?width=512&lock=width,rate&hide=bias"),
        ("plain?", "plain?"),
    ],
)
def test_a_link_names_values_as_the_slider_does_or_plainly(link, fragment):
    wanted = views.frame(link)
    assert views.faults(wanted, FIGURES, "here") == []
    assert wanted.fragment == fragment


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("wave?width=500", "width of wave is not '500', but one of 8, 512"),
        ("wave?width=", "width of wave is not '', but one of 8, 512"),
        ("wave?bias=1", "bias of wave is not '1', but one of True, False"),
        ("wave?depth=2", "wave has no control 'depth'; it has width, rate, show, bias"),
        ("wave?lock=width,depth", "wave has no control 'depth'; it has width, rate, show, bias"),
        ("plain?width=8", "plain has no control 'width'; it has none"),
        ("waves?width=8", "here has no figure 'waves'; it has wave, plain"),
        ("wave?width=8&width=8", "width stands there twice"),
    ],
)
def test_a_link_to_what_is_not_there_is_refused_in_words(link, fault):
    assert views.faults(views.frame(link), FIGURES, "here") == [fault]


@pytest.mark.parametrize("fragment", ["", "a-heading", "what-is-it?", "term-a?b"])
def test_other_places_are_no_frames(fragment):
    assert views.frame(fragment) is None


def notebook(text: str, *names: str) -> str:
    """A notebook as the build finds it after it has run, with explorers of these names."""
    model = {"_esm": "", "controls": CONTROLS}
    state = {name: {"state": model | {"name": name}} for name in names}
    kept = {"application/vnd.jupyter.widget-state+json": {"state": state}}
    made = v4.new_notebook(cells=[v4.new_markdown_cell(text)], metadata={"widgets": kept})
    return nbformat.writes(made)


def test_the_build_makes_plain_links_and_names_those_that_lead_nowhere(tmp_path):
    source, warnings = tmp_path / "source", io.StringIO()
    source.mkdir()
    (source / "index.ipynb").write_text(
        notebook(
            "# One\n\n[here](#wave?width=512&show=the%20weights) and *[there](other.ipynb#ripple?)*"
            "\n\nand [*no such* width](#wave?width=3), [no figure](other.ipynb#wave?width=8)",
            "wave",
        )
    )
    (source / "other.ipynb").write_text(notebook("# Other", "ripple"))
    (source / "more.md").write_text("# More\n\n[far](index.ipynb#wave?width=8&hide=rate)\n")
    with patch_docutils(), docutils_namespace():
        app = Sphinx(
            source, None, tmp_path / "out", tmp_path / "trees", "html",
            confoverrides={
                "extensions": ["myst_nb", "views"],
                "nb_execution_mode": "off",
                "html_theme": "basic",
            },
            status=None, warning=warnings,
        )  # fmt: skip
        app.build()
    pages = (tmp_path / "out" / f"{name}.html" for name in ("index", "more"))
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    links = re.findall(r'<a class="reference internal" href="([^"]*\?[^"]*)">(.*?)</a>', text)
    assert [(link, re.sub(r"</?span.*?>", "", words)) for link, words in links] == [
        ("#wave?width=512&amp;show=the%20weights", "here"),
        ("other.html#ripple?", "there"),
        ("#wave?width=3", "<em>no such</em> width"),
        ("other.html#wave?width=8", "no figure"),
        ("index.html#wave?width=8&amp;hide=rate", "far"),
    ]
    said = [line for line in warnings.getvalue().splitlines() if "wave" in line]
    assert len(said) == 2
    assert "width of wave is not '3', but one of 8, 512" in said[0]
    assert "other has no figure 'wave'; it has ripple" in said[1]
    assert all("index.ipynb:1000" in line for line in said), said

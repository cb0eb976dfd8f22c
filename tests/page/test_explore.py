"""Explorers seen from Python: what they draw, what a page gets, what they answer.

The JavaScript that shows them is tested in a browser.
"""

import gc
import itertools
import json
import re
import xml.etree.ElementTree as ET
from io import StringIO

import jaxtyping
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from ntk_lib.page import explore as module
from ntk_lib.page.explore import ALONE, BESIDE, HERE, STYLE, Explorer, explore, panels, powers, svg

mpl.use("agg")
SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
WIDTHS, KINDS = [8, 32, 128], ["sine", "cosine"]


@pytest.fixture(autouse=True, scope="module")
def no_hook():
    """What a user without the import hook meets: our own message, not the type checker's."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def figures_of_one_test_only():
    yield
    plt.close("all")


def draw_wave(width, kind, seed=0):
    """A figure with what a chapter uses: lines, a legend, mathematics, a rotated label."""
    fig, ax = plt.subplots()
    t = np.linspace(0, 2, 50)
    ax.plot(t, {"sine": np.sin, "cosine": np.cos}[kind](width * t), label=r"$\Theta_\infty$")
    ax.plot(t, 0.01 * width * t + seed, color="C1", label="other")
    ax.scatter([1.0, 1.5], [0.5, 0.1], color="C2")
    ax.text(0.3, 0.2, "word", rotation=33.3)
    ax.set(title=f"width {width}", ylabel="f")
    ax.legend()
    return fig


def wave(width, kind, seed=0):
    return draw_wave(width, kind, seed), f'Width {width}:\n   the "{kind}" <b>wave</b> & more.'


def plain(height=1):
    """One  line
    of the docstring."""
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, 1], [0, height])
    return fig


@pytest.fixture(scope="module")
def waves():
    decorated = explore(
        width=WIDTHS, kind=KINDS, start={"width": 32}, live={"width": (1, 500), "seed": (0.0, 1.5)}
    )(wave)
    return decorated.explorer


def styled(draw, *arguments):
    with plt.style.context(STYLE):
        return draw(*arguments)


# ---------------------------------------------------------------- frames


def test_every_frame_is_rebuilt_exactly_in_the_order_of_the_product(waves):
    combinations = list(itertools.product(WIDTHS, KINDS))
    assert len(waves.frames) == len(waves.texts) == len(combinations) == 6
    for index, (width, kind) in enumerate(combinations):
        with plt.style.context(STYLE):
            expected = svg(draw_wave(width, kind), name="wave")
        assert waves.picture(index) == expected
        assert waves.texts[index] == f'Width {width}: the "{kind}" <b>wave</b> & more.'


def test_frames_share_the_chunks_that_do_not_change(waves):
    assert len(set(waves.chunks)) == len(waves.chunks)
    assert set(itertools.chain(*waves.frames)) == set(range(len(waves.chunks)))
    uses = sum(len(frame) for frame in waves.frames)
    assert len(waves.chunks) < uses / 3
    # in letters too: six frames cost less than two and a half
    apart = sum(len(waves.picture(i)) for i in range(6))
    assert sum(map(len, waves.chunks)) < apart * 2.5 / 6


def test_a_frame_that_does_not_change_costs_nothing(waves):
    def still(step):
        return plain(), f"step {step}"

    one, three = (explore(step=list(range(n)))(still).explorer for n in (1, 3))
    assert one.chunks == three.chunks
    assert three.frames[0] == three.frames[1] == three.frames[2]
    assert three.texts == ["step 0", "step 1", "step 2"]


def test_the_text_is_the_docstring_unless_the_function_gives_one():
    assert explore(height=[1, 2])(plain).explorer.texts == ["One line of the docstring."] * 2


@pytest.mark.parametrize(
    ("number", "written"),
    [
        ("Ridge 1e-06: 2", "Ridge 10⁻⁶: 2"),
        ("from 2.4e-18 to -3e+05.", "from 2.4·10⁻¹⁸ to -3·10⁵."),
        ("1e+10", "10¹⁰"),
        ("21e-01", "21·10⁻¹"),
        ("be4, 0x1e+3, 1.5", "be4, 0x1e+3, 1.5"),
    ],
)
def test_texts_write_powers_of_ten_as_one_writes_them(number, written):
    assert powers(number) == written


def test_texts_and_labels_of_an_explorer_write_powers_of_ten():
    @explore(size=[1e-6, 1.0])
    def picture(size):
        return plt.figure(), f"Size {size:g}."

    assert picture.explorer.texts == ["Size 10⁻⁶.", "Size 1."]
    assert picture.explorer.controls[0]["labels"] == ["10⁻⁶", "1"]


def test_the_decorated_function_is_unchanged_and_callable(waves):
    assert explore(height=[1])(plain) is plain
    fig = plain(height=3)
    assert fig.axes[0].lines[0].get_ydata()[-1] == 3
    assert wave.explorer is waves
    assert isinstance(waves, Explorer)


def test_figures_are_drawn_in_the_style_of_the_book_and_the_callers_style_returns():
    seen = {}

    def spy():
        """Nothing to be seen."""
        seen.update(mpl.rcParams)
        return plt.figure()

    with mpl.rc_context({"font.size": 31.0}):
        explore()(spy)
        assert mpl.rcParams["font.size"] == 31.0
    assert seen["font.size"] != 31.0
    style = mpl.rc_params_from_file(STYLE, use_default_template=False)
    assert len(style) > 5
    for name, value in style.items():
        assert seen[name] == value, name


def test_the_style_tells_lines_apart_by_dashes_too():
    cycle = mpl.rc_params_from_file(STYLE, use_default_template=False)["axes.prop_cycle"]
    styles = list(cycle)
    assert len({style["color"] for style in styles}) == len(styles)
    assert len({str(style["linestyle"]) for style in styles}) == len(styles)


def test_no_figure_stays_open_when_a_function_fails():
    def silent():
        return plt.figure()

    def broken():
        plt.figure()
        raise RuntimeError("no")

    for function, error in ((silent, ValueError), (broken, RuntimeError)):
        with pytest.raises(error):
            explore()(function)
        assert plt.get_fignums() == []


# ---------------------------------------------------------------- the drawing as text


@pytest.fixture(scope="module")
def raw():
    """What matplotlib writes for the first frame."""
    with plt.style.context(STYLE):
        fig, buffer = draw_wave(8, "sine"), StringIO()
        fig.savefig(buffer, format="svg", transparent=True)
        plt.close(fig)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def drawn(waves):
    return waves.picture(0)


def test_a_picture_is_one_well_formed_svg_hidden_from_screen_readers(drawn):
    root = ET.fromstring(drawn)
    assert root.tag == SVG + "svg"
    assert root.get("aria-hidden") == "true"
    width, height = root.get("width"), root.get("height")
    assert root.get("viewBox") == f"0 0 {width} {height}"
    size = mpl.rc_params_from_file(STYLE, use_default_template=False)["figure.figsize"]
    assert [float(width), float(height)] == pytest.approx([72 * s for s in size], abs=0.1)


@pytest.mark.parametrize("noise", ["<metadata", "<!--", "<?xml", "<!DOCTYPE", "<style", "date"])
def test_a_picture_carries_no_metadata_and_no_style_of_its_own(drawn, noise):
    assert noise not in drawn


def test_a_picture_is_one_line_and_shorter_than_matplotlibs(drawn, raw):
    assert "\n" not in drawn
    assert "  " not in drawn
    assert len(drawn) < 0.8 * len(raw)


def test_the_same_figure_gives_the_same_text():
    pictures = {svg(styled(draw_wave, 8, "sine"), name="wave") for _ in range(2)}
    assert len(pictures) == 1


def test_svg_closes_the_figure():
    svg(plain(), name="plain")
    assert plt.get_fignums() == []


def numbers(text):
    return [float(t) for t in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", text)]


def test_rounding_moves_nothing_by_more_than_a_twentieth_of_a_point(drawn, raw):
    # both trees element by element; attributes that hold geometry number by number
    before = [e for e in ET.fromstring(raw).iter() if e.tag.startswith(SVG)]
    before = [e for e in before if e.tag not in (SVG + "metadata", SVG + "style")]
    after = list(ET.fromstring(drawn).iter())
    assert [e.tag for e in before] == [e.tag for e in after]
    compared = 0
    for old, new in zip(before[1:], after[1:], strict=True):
        for name in ("d", "x", "y", "transform", "points", "width", "height"):
            assert (old.get(name) is None) == (new.get(name) is None)
            if old.get(name) is not None:
                moved = np.subtract(numbers(new.get(name)), numbers(old.get(name)))
                assert np.abs(moved).max(initial=0) < 0.05001
                compared += len(moved)
    assert compared > 1000


def test_rounding_is_finer_for_small_numbers():
    shifts = {
        "0.1234": "0.12",
        "9.8765": "9.88",
        "12.3456": "12.3",
        "-0.0001": "-0",
        "50.000": "50",
    }
    for number, rounded in shifts.items():
        assert re.sub(r"-?\d+\.\d{3,}", module._rounded, number) == rounded


def factors(text, kind):
    return re.findall(kind + r"\([^)]*\)", text)


def test_scale_factors_keep_all_their_digits(drawn, raw):
    # letters are drawn in units of 1/64: 0.015625 rounded to 0.02 is 28 % too large
    assert factors(drawn, "scale") == factors(raw, "scale")
    assert "scale(0.015625)" in drawn


def test_the_factors_of_an_images_matrix_keep_their_digits_too():
    # an image of 700 pixels in 300 points: 0.43 for 0.4285… would move its edge by a point
    def image():
        fig, ax = plt.subplots()
        ax.imshow(np.arange(490_000.0).reshape(700, 700), interpolation="none")
        return fig

    buffer = StringIO()
    with plt.style.context(STYLE):
        fig = image()
        fig.savefig(buffer, format="svg", transparent=True)
        text = svg(fig, name="image")
    before, after = (
        numbers(factors(t, "matrix")[0].removeprefix("matrix")) for t in (buffer.getvalue(), text)
    )
    np.testing.assert_allclose(after[:4], before[:4], atol=1e-5)


def ids(text):
    return re.findall(r'\bid="([^"]*)"', text)


def references(text):
    return re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', text)


def test_ids_are_named_after_the_function_and_every_reference_is_met(waves):
    for index in range(6):
        picture = waves.picture(index)
        found, wanted = ids(picture), {a or b for a, b in references(picture)}
        assert found
        assert len(found) == len(set(found))
        assert all(name.startswith("wave-") for name in found)
        # none is missing, none is there that nothing refers to
        assert set(found) == wanted


def test_two_explorers_share_no_id():
    def one(width):
        return wave(width, "sine")

    def other(width):
        return wave(width, "sine")

    pictures = [explore(width=[8])(f).explorer.picture(0) for f in (one, other)]
    first, second = (set(ids(picture)) for picture in pictures)
    assert first
    assert second
    assert not first & second


def test_a_name_that_is_no_identifier_still_gives_ids_without_blanks():
    text = svg(styled(draw_wave, 8, "sine"), name="<lambda> x")
    assert ids(text)
    assert all(re.fullmatch(r"[\w-]+", name) for name in ids(text))
    ET.fromstring(text)


def test_every_colour_is_a_variable_that_falls_back_to_itself(drawn):
    variables = set(re.findall(r"var\([^()]*\)", drawn))
    left = re.sub(r"var\([^()]*\)", "", drawn)
    assert not re.search(r"#[0-9a-fA-F]{6}\b", left)
    assert "var(" not in left
    assert {"var(--ntk-ink,#000000)", "var(--ntk-c0,#0072b2)"} <= variables
    assert {"var(--ntk-c1,#d55e00)", "var(--ntk-c2,#009e73)"} <= variables


def test_letters_and_axes_take_the_ink(drawn):
    root = ET.fromstring(drawn)
    assert root.get("style") == "fill:var(--ntk-ink,#000000)"


def test_the_stylesheet_gives_each_variable_a_value_for_the_dark():
    css = (HERE / "explore.css").read_text()
    light, dark = css.split('html[data-theme="dark"]', 1)
    dark = dark[: dark.index("}")]
    assert "--ntk-ink:" in light
    for variable in module._css_variables().values():
        name = re.match(r"var\((--ntk-\w+),", variable)[1]
        assert f"{name}:" in dark


# ---------------------------------------------------------------- what a page gets


def test_the_fallback_is_the_starting_frame_with_escaped_text(waves):
    page = waves.fallback()
    start = WIDTHS.index(32) * len(KINDS)  # width 32 as asked, the first kind by default
    sentence = "Width 32: the &quot;sine&quot; &lt;b&gt;wave&lt;/b&gt; &amp; more."
    assert waves.start == [1, 0]
    assert waves.picture(start) in page
    assert f'role="img" aria-label="{sentence}"' in page
    assert f">{sentence}</figcaption>" in page
    assert f'data-explorer="{waves.model_id}"' in page
    assert "<b>" not in page
    figure = ET.fromstring(page)
    assert figure.tag == "figure"
    assert figure.find("div").get("aria-label") == waves.texts[start]


def test_the_repr_is_stable_and_short(waves):
    assert repr(waves) == "Explorer(wave: width × kind; frames: 6)"
    assert repr(explore()(plain).explorer) == "Explorer(plain: no controls; frames: 1)"


def test_a_notebook_gets_widget_picture_and_text(waves):
    data, metadata = waves._repr_mimebundle_()
    assert data["text/html"] == waves.fallback()
    assert data["text/plain"] == repr(waves)
    view = data["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == waves.model_id
    assert isinstance(metadata, dict)


def test_the_state_that_a_page_embeds_is_json(waves):
    state = waves.get_state(["name", "controls", "live", "start", "chunks", "frames", "texts"])
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    assert state["name"] == "wave"
    synced = set(waves.keys)
    assert set(state) <= synced


def test_controls_are_described_for_the_front_end(waves):
    assert waves.controls == [
        {
            "name": "width",
            "label": "width",
            "values": [8, 32, 128],
            "labels": ["8", "32", "128"],
            "kind": "slider",
        },
        {
            "name": "kind",
            "label": "kind",
            "values": ["sine", "cosine"],
            "labels": ["sine", "cosine"],
            "kind": "choice",
        },
    ]
    assert waves.live == [
        {
            "name": "width",
            "label": "width",
            "low": 1,
            "high": 500,
            "integer": True,
            "default": None,
        },
        {"name": "seed", "label": "seed", "low": 0, "high": 1.5, "integer": False, "default": 0},
    ]


@pytest.mark.parametrize(
    ("values", "kind", "labels"),
    [
        ([0.001, 0.5, 1e6], "slider", ["0.001", "0.5", "10⁶"]),
        ([1, 2.5], "slider", ["1", "2.5"]),
        ([3], "choice", ["3"]),
        ([True, False], "choice", ["True", "False"]),
        (["relu", "erf"], "choice", ["relu", "erf"]),
        ((1, 2), "slider", ["1", "2"]),
        (range(2), "slider", ["0", "1"]),
        (2 ** np.arange(2), "slider", ["1", "2"]),
        (np.array([0.5, 1.0]), "slider", ["0.5", "1"]),
    ],
)
def test_numbers_become_a_slider_and_words_a_menu(values, kind, labels):
    def chosen(some_value):
        return plain(), f"{some_value}"

    (control,) = explore(some_value=values)(chosen).explorer.controls
    assert control["kind"] == kind
    assert control["labels"] == labels
    assert control["label"] == "some value"
    assert control["values"] == list(values)
    json.dumps(control)


def test_numbers_with_a_point_keep_it_in_the_line_of_python():
    def chosen(rate, width):
        return plain(), f"{rate} {width}"

    rate, width = explore(rate=[1.0, 0.5, 1e-6], width=[8])(chosen).explorer.controls
    assert rate["python"] == ["1.0", "0.5", "1e-06"]
    assert "python" not in width


def test_without_controls_an_explorer_is_a_plain_figure():
    explorer = explore()(plain).explorer
    assert (explorer.controls, explorer.live, explorer.start) == ([], [], [])
    assert len(explorer.frames) == 1
    assert explorer.picture(0) in explorer.fallback()
    assert 'aria-label="One line of the docstring."' in explorer.fallback()


def test_without_a_start_the_first_values_are_shown():
    assert explore(height=[3, 2])(plain).explorer.start == [0]
    assert explore(height=[3, 2], start={"height": 2})(plain).explorer.start == [1]


@pytest.mark.parametrize("running", [False, True])
def test_the_explorer_is_displayed_where_ipython_runs_and_only_there(monkeypatch, running):
    shown = []
    monkeypatch.setattr(module, "get_ipython", lambda: object() if running else None)
    monkeypatch.setattr(module, "display", shown.append)
    function = explore()(plain)
    assert shown == ([function.explorer] if running else [])


# ---------------------------------------------------------------- what Python answers


@pytest.fixture
def ask(waves, monkeypatch):
    """Send a message as the front end does, return the reply."""
    sent = []
    monkeypatch.setattr(waves, "send", sent.append)

    def ask(**message):
        waves._handle_custom_msg(message, [])
        return sent.pop()

    yield ask
    assert sent == []


def test_a_ping_is_answered_by_a_pong(ask):
    assert ask(kind="ping") == {"kind": "pong"}


def test_a_question_is_answered_by_a_frame_drawn_for_it(ask, waves):
    reply = ask(kind="draw", id=3, values={"width": 77, "kind": "sine", "seed": 0.25})
    with plt.style.context(STYLE):
        expected = svg(draw_wave(77, "sine", 0.25), name="wave")
    assert reply == {
        "kind": "frame",
        "id": 3,
        "svg": expected,
        "text": 'Width 77: the "sine" <b>wave</b> & more.',
    }


def test_a_question_for_a_shown_frame_gives_that_frame(ask, waves):
    reply = ask(kind="draw", id=1, values={"width": 8, "kind": "cosine", "seed": 0})
    assert reply["svg"] == waves.picture(1)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"width": 501}, "ValueError: width needs to be between 1 and 500, got 501"),
        ({"width": 0}, "ValueError: width needs to be between 1 and 500, got 0"),
        ({"seed": 1.6}, "ValueError: seed needs to be between 0.0 and 1.5, got 1.6"),
        ({"seed": float("nan")}, "ValueError: seed needs to be between"),
        ({"width": None}, r"\w+Error: width needs .*None"),  # an empty field, NaN in JSON
        ({"width": "77"}, r"\w+Error: width needs .*77"),
        ({"kind": "tangent"}, r"\w+Error: kind needs .*tangent"),  # not live: only what is shown
        ({"colour": 1}, r"\w+Error: .*colour"),
    ],
)
def test_a_question_out_of_bounds_is_answered_by_an_error_and_not_drawn(ask, changed, says):
    reply = ask(kind="draw", id=5, values={"width": 77, "kind": "sine", "seed": 0} | changed)
    assert set(reply) == {"kind", "id", "error"}
    assert (reply["kind"], reply["id"]) == ("frame", 5)
    assert re.match(says, reply["error"]), reply["error"]


def test_a_missing_value_is_answered_by_an_error_that_names_it(ask):
    reply = ask(kind="draw", id=5, values={"kind": "sine", "seed": 0})
    assert "width" in reply["error"]


@pytest.mark.parametrize("bound", [1, 500, 0.0, 1.5])
def test_the_bounds_themselves_are_allowed(ask, bound):
    name = "width" if isinstance(bound, int) else "seed"
    values = {"width": 8, "kind": "sine", "seed": 0} | {name: bound}
    assert "svg" in ask(kind="draw", id=1, values=values)


def explorer_of(function, **options):
    explorer = explore(**options)(function).explorer
    sent = []
    explorer.send = sent.append

    def ask(**values):
        explorer._answer(explorer, {"kind": "draw", "id": 1, "values": values}, [])
        return sent.pop()

    return ask


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_after_an_answer_and_not_before(collects):
    seen = []

    def fragile(height):
        seen.append(gc.isenabled())
        if height == 13:
            raise ArithmeticError("unlucky")
        return plain(height), "a line"

    ask = explorer_of(fragile, height=[3], live={"height": (1, 20)})
    seen.clear()
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        assert "svg" in ask(height=12)
        assert "error" in ask(height=13)
        assert (seen, gc.isenabled()) == ([False, False], collects)
    finally:
        (gc.enable if before else gc.disable)()


def test_an_error_inside_the_function_is_the_reply_and_leaves_no_figure_open():
    def fragile(height):
        fig = plain(height)
        if height == 13:
            raise RuntimeError("thirteen is not drawn")
        return fig, "fine"

    ask = explorer_of(fragile, height=[1], live={"height": (1, 20)})
    assert ask(height=13) == {
        "kind": "frame",
        "id": 1,
        "error": "RuntimeError: thirteen is not drawn",
    }
    assert plt.get_fignums() == []
    assert "svg" in ask(height=12)


def test_integer_bounds_ask_for_integers_and_others_for_numbers():
    seen = []

    def typed(width, rate=0.5):
        seen.append((width, rate))
        return plain(), "fine"

    ask = explorer_of(typed, width=[8, 16], live={"width": (1, 100), "rate": (0.0, 1.0)})
    # JavaScript has one kind of number
    ask(width=12.0, rate=1)
    assert seen[-1] == (12, 1)
    assert type(seen[-1][0]) is int
    ask(width=12, rate=0.25)
    assert seen[-1] == (12, 0.25)
    ask(width=16.0, rate=0.0)
    assert type(seen[-1][0]) is int


def test_a_shown_value_outside_the_bounds_is_still_allowed():
    ask = explorer_of(plain, height=[1, 1000], live={"height": (1, 10)})
    assert "svg" in ask(height=1000)
    assert "error" in ask(height=999)


def test_a_question_does_not_change_the_frames(waves, ask):
    frames, chunks = list(waves.frames), list(waves.chunks)
    ask(kind="draw", id=2, values={"width": 5, "kind": "sine", "seed": 0})
    assert (waves.frames, waves.chunks) == (frames, chunks)


# ---------------------------------------------------------------- several drawings, letters


def test_panels_are_drawings_of_their_own_that_share_no_id():
    @explore(n=[1, 2])
    def two(n):
        figures, (left, right) = panels(2)
        left.plot([0, n], [0, 1])
        right.fill_between([0, 1], [0, n], hatch="/")
        return figures, "a line and an area"

    picture = two.explorer.picture(0)
    root = ET.fromstring(f"<div>{picture}</div>")
    assert [child.tag for child in root] == ["{http://www.w3.org/2000/svg}svg"] * 2
    ids = re.findall(r' id="([^"]+)"', picture)
    assert ids
    assert len(ids) == len(set(ids))
    assert not plt.get_fignums()


@pytest.mark.parametrize(("count", "width"), [(1, ALONE), (2, BESIDE)])
def test_letters_under_eleven_px_on_a_phone_are_refused_and_named(count, width):
    def written(size):
        figures, axes = panels(count)
        axes[-1].set_title("a title", fontsize=size)
        return figures if count > 1 else figures[0], "two axes"

    size = 11 * 72 * 3.6 / width

    @explore()
    def readable():
        return written(size)

    with pytest.raises(ValueError, match=r"'a title' is drawn in 10\.[0-9] px on a phone"):

        @explore()
        def unreadable():
            return written(size - 0.5)

    assert not plt.get_fignums()

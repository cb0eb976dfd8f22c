"""Interactive figures that live on the plain web page, and do more where Python answers.

Serves every chapter. ``explore`` draws a function's figure for every combination of its controls
and hands the frames to one widget:

    @explore(width=[8, 32, 128, 512], depth=[2, 4])
    def kernel_on_the_circle(width, depth):
        ...
        return fig, "what this frame shows"

On the web page ``explore.js`` runs without a kernel; in JupyterLab the same file runs as an
anywidget, asks Python whether it is there, and then lets the reader type any value that ``live``
allows. The first frame is also plain HTML: a page without JavaScript shows it with its text.

Colours: figures are drawn with the hexadecimal colours of ``book.mplstyle`` and black ink on a
transparent ground; each becomes a CSS variable that ``explore.css`` sets for light and for dark.
"""

import gc
import html
import inspect
import io
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anywidget
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import traitlets
from IPython import get_ipython
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from ntk_lib.engine.arguments import as_number, as_whole

__all__ = ["Explorer", "explore", "panels"]

HERE = Path(__file__).parent
STYLE = str(HERE / "book.mplstyle")
LEAST = 11  # px of a letter as the page shows it
# px that a drawing takes at the narrowest: alone on a phone, and beside another (explore.css)
ALONE, BESIDE = 358, 276
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


# ---------------------------------------------------------------- drawing


def _css_variables() -> dict[str, str]:
    """Hexadecimal colour to CSS variable: the ink, then the style's cycle as c0, c1, …"""
    with plt.style.context(STYLE):
        cycle = [style["color"] for style in mpl.rcParams["axes.prop_cycle"]]
    colours = {"#000000": "var(--ntk-ink,#000000)"}
    for i, colour in enumerate(cycle):
        key = mpl.colors.to_hex(colour)
        colours[key] = f"var(--ntk-c{i},{key})"
    return colours


def _rounded(match: re.Match) -> str:
    number = match[0]
    if number.startswith(("scale", "matrix")):
        return number
    digits = 1 if abs(float(number)) >= 10 else 2
    return f"{float(number):.{digits}f}".rstrip("0").rstrip(".")


def svg(fig: Figure, *, name: str) -> str:
    """The figure as one compact inline ``<svg>``, and the figure closed.

    Ids are made from ``name``, so that two figures on a page do not share any; ids that nothing
    refers to are dropped, coordinates rounded to a tenth of a point (a hundredth for small ones),
    colours made variables.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        # no date, no creator: the same figure gives the same text
        nothing = dict.fromkeys(["Date", "Creator", "Format", "Type"])
        fig.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    plt.close(fig)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # matplotlib's style element would apply to the whole page: explore.css has its two rules
    cut = r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>"
    text = re.sub(cut, "", text, flags=re.DOTALL)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text).groups()
    opening = (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true">'
    )
    text = opening + text[text.index(">") + 1 :]
    used = set(re.findall(r'(?:url\(|xlink:href=")#([^")]+)', text))
    prefix = re.sub(r"\W", "-", name)

    def keep(match: re.Match) -> str:
        return f' id="{prefix}-{match[1]}"' if match[1] in used else ""

    text = re.sub(r' id="([^"]*)"', keep, text)
    text = re.sub(r'(url\(|xlink:href=")#', rf"\1#{prefix}-", text)
    # scale factors keep their digits: 0.015625 is not 0.02
    text = re.sub(r"(?:scale|matrix)\([^)]*\)|-?\d+\.\d{3,}", _rounded, text)
    for colour, variable in _css_variables().items():
        text = text.replace(colour, variable)
    # letters, whose colour is the default black, carry no colour of their own
    text = text.replace("<svg ", '<svg style="fill:var(--ntk-ink,#000000)" ', 1)
    return re.sub(r"\s*\n\s*", " ", text).strip()


def powers(text: str) -> str:
    """The text with powers of ten as one writes them: 1e-06 is 10⁻⁶, 2.4e-18 is 2.4·10⁻¹⁸."""

    def power(match: re.Match) -> str:
        mantissa, exponent = match.groups()
        raised = "10" + str(int(exponent)).translate(SUPERSCRIPTS)
        return raised if mantissa == "1" else f"{mantissa}·{raised}"

    return re.sub(r"(?<![\w.])(\d+(?:\.\d+)?)e([+-]\d+)\b", power, text)


def _chunks(text: str) -> list[str]:
    """Split an SVG before each element, so that frames can share what is the same in both."""
    return re.split(r"(?=<(?:g|path|use|text|defs|clipPath|image)\b)", text)


def panels(count: int = 2, *, height: float = 2.9) -> tuple[list[Figure], list[Axes]]:
    """Figures that stand side by side where there is room and one below the other on a phone.

    A function under ``explore`` returns the list in place of one figure. ``height`` is that of each
    in inches; the width is fixed, 3.6 inches, so that letters keep their size.

    Raises ``ValueError`` for a count under 1 or a height that is not positive.
    """
    count = as_whole("count", count, least=1)
    if not (height := as_number("height", height)) > 0:
        raise ValueError(f"height needs to be positive, got {height}")
    drawn = [plt.subplots(figsize=(3.6, height)) for _ in range(count)]
    return [fig for fig, _ in drawn], [ax for _, ax in drawn]


def _check_letters(fig: Figure, width: int) -> None:
    """Refuse letters that are too small to read when the drawing is ``width`` px wide.

    Raised and lowered ones are smaller, as in any print.
    """
    scale = width / (72 * fig.get_figwidth())
    for letters in fig.findobj(Text):
        text, size = letters.get_text(), letters.get_fontsize()
        if letters.get_visible() and text.strip() and size * scale < LEAST - 0.05:
            raise ValueError(
                f"{text!r} is drawn in {size * scale:.1f} px on a phone, letters need {LEAST}: "
                f"fontsize {LEAST / scale:.1f} or more, or a figure for each panel (panels)"
            )


class Frame(NamedTuple):
    """One drawing and the sentence that says what is to be seen in it."""

    svg: str
    text: str


def _draw(function: Callable, arguments: Mapping[str, Any]) -> Frame:
    """The frame for these arguments; no figure stays open, whatever happens."""
    open_before = set(plt.get_fignums())
    try:
        with plt.style.context(STYLE):
            return _frame(function, arguments)
    finally:
        for number in set(plt.get_fignums()) - open_before:
            plt.close(number)


def _frame(function: Callable, arguments: Mapping[str, Any]) -> Frame:
    name, result = function.__name__, function(**arguments)
    drawn, text = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    figures = drawn if isinstance(drawn, list) and drawn else [drawn]
    for fig in figures:
        if not isinstance(fig, Figure):
            raise TypeError(f"{name} needs to return a matplotlib figure, got {type(fig).__name__}")
        _check_letters(fig, ALONE if len(figures) == 1 else BESIDE)
    if not isinstance(result, tuple):
        text = inspect.getdoc(function)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{name} needs a text that says what is to be seen, for {arguments}")
    names = [name] if len(figures) == 1 else [f"{name}-{i}" for i in range(len(figures))]
    drawings = [svg(fig, name=each) for fig, each in zip(figures, names, strict=True)]
    return Frame("".join(drawings), powers(" ".join(text.split())))


# ---------------------------------------------------------------- the widget


class Explorer(anywidget.AnyWidget):
    """The frames of one function, and the controls that choose among them.

    ``chunks`` and ``frames`` hold the drawings: a frame is the concatenation of the chunks it
    indexes. Frames are in the order of ``itertools.product`` over the controls' values.
    """

    _esm = HERE / "explore.js"
    _css = HERE / "explore.css"
    name = traitlets.Unicode().tag(sync=True)
    controls = traitlets.List().tag(sync=True)
    live = traitlets.List().tag(sync=True)
    start = traitlets.List().tag(sync=True)
    chunks = traitlets.List().tag(sync=True)
    frames = traitlets.List().tag(sync=True)
    texts = traitlets.List().tag(sync=True)

    def __init__(self, function: Callable, **traits: Any) -> None:
        super().__init__(**traits)
        self._function = function
        self.on_msg(self._answer)

    def _answer(self, _widget: object, message: dict, _buffers: object) -> None:
        """Say that Python is here, or draw what the reader asked for."""
        if message.get("kind") == "ping":
            self.send({"kind": "pong"})
            return
        collects = gc.isenabled()
        gc.disable()  # a look through all objects of a chapter takes 0.3 s: after the answer
        try:
            self.send({"kind": "frame", "id": message["id"]} | self._asked_for(message["values"]))
        finally:
            if collects:
                gc.enable()

    def _asked_for(self, values: Mapping[str, Any]) -> dict[str, str]:
        """The frame for these values, or the error that they cause."""
        try:
            asked = dict(values)
            self._check_asked(asked)
            return _draw(self._function, asked)._asdict()
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def _check_asked(self, asked: dict[str, Any]) -> None:
        """Refuse what neither the controls nor ``live`` allow; whole numbers become integers."""
        listed = {c["name"]: c["values"] for c in self.controls}
        bounds = {b["name"]: b for b in self.live}
        for name, value in asked.items():
            if any(type(v) is type(value) and v == value for v in listed.get(name, [])):
                continue
            bound = bounds.get(name)
            if bound is None:
                raise ValueError(f"{name} needs one of {listed.get(name, [])}, got {value!r}")
            low, high = bound["low"], bound["high"]
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} needs a number from {low} to {high}, got {value!r}")
            if not low <= value <= high:
                raise ValueError(f"{name} needs to be between {low} and {high}, got {value}")
            if bound["integer"]:
                if value != int(value):
                    raise ValueError(f"{name} needs a whole number, got {value}")
                asked[name] = int(value)
            elif isinstance(value, int):
                asked[name] = float(value)

    def picture(self, index: int) -> str:
        """The SVG of frame number ``index``."""
        return "".join(self.chunks[i] for i in self.frames[index])

    def fallback(self) -> str:
        """The starting frame as HTML: what a page shows until, or unless, JavaScript runs."""
        index = 0
        for control, position in zip(self.controls, self.start, strict=True):
            index = index * len(control["values"]) + position
        return (
            f'<figure class="ntk-explorer" data-explorer="{self.model_id}">'
            f'<div class="ntk-picture" role="img" aria-label="{html.escape(self.texts[index])}">'
            f"{self.picture(index)}</div>{self._reserved()}"
            f'<figcaption class="ntk-text">{html.escape(self.texts[index])}</figcaption></figure>'
        )

    def _reserved(self) -> str:
        """The room that the controls will take, so that nothing moves when they come."""
        rows, play = [], '<button class="ntk-play">▶</button>'
        for control, position in zip(self.controls, self.start, strict=True):
            label, words = html.escape(control["label"]), list(map(html.escape, control["labels"]))
            if control["kind"] == "choice":
                options = "".join(f"<option>{word}</option>" for word in words)
                field = f"<select>{options}</select>"
            else:
                value, longest = words[position], max(map(len, control["labels"]))
                wide = f'style="min-width:{longest}ch"'
                field = f'<input type="range" /><output {wide}>{value}</output>{play}'
                play = ""
            rows.append(f'<div class="ntk-control"><label>{label}</label>{field}</div>')
        hidden = 'style="visibility:hidden" aria-hidden="true"'
        tools = '<div class="ntk-tools"></div>'
        return f'<div class="ntk-controls" {hidden}>{"".join(rows)}</div>{tools}'

    def __repr__(self) -> str:
        controls = " × ".join(c["name"] for c in self.controls) or "no controls"
        return f"Explorer({self.name}: {controls}; frames: {len(self.frames)})"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return data | {"text/plain": repr(self), "text/html": self.fallback()}, metadata


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's, which JSON knows."""
    return value.item() if isinstance(value, np.generic) else value


def _control(name: str, values: Sequence[Any]) -> dict[str, Any]:
    if isinstance(values, str) or np.ndim(values) != 1:
        raise TypeError(f"control {name!r} needs a list of values, got {values!r}")
    values = [_plain(value) for value in values]
    if not values:
        raise ValueError(f"control {name!r} needs at least one value, got none")
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not numeric and not all(isinstance(v, str | bool) for v in values):
        raise TypeError(f"control {name!r} needs numbers or words, got {values}")
    if numeric and not all(math.isfinite(v) for v in values):
        raise ValueError(f"control {name!r} needs finite numbers, got {values}")
    if len(set(values)) < len(values):
        raise ValueError(f"control {name!r} needs different values, got {values}")
    if name in ("lock", "hide"):
        raise ValueError(f"control {name!r} needs another name: links to a frame use this one")
    control = {
        "name": name,
        "label": name.replace("_", " "),
        "values": values,
        "labels": [powers(f"{v:g}") if isinstance(v, float) else str(v) for v in values],
        "kind": "slider" if numeric and len(values) > 1 else "choice",
    }
    # JavaScript does not know 1.0 from 1, and shows the line that draws a frame
    return control | ({"python": list(map(repr, values))} if float in map(type, values) else {})


def _live(name: str, bounds: tuple, function: Callable) -> dict[str, Any]:
    try:
        low, high = map(_plain, bounds)
    except (TypeError, ValueError) as error:
        raise ValueError(f"live {name!r} needs a pair (lowest, highest), got {bounds!r}") from error
    if not all(isinstance(t, int | float) and math.isfinite(t) for t in (low, high)):
        raise TypeError(f"live {name!r} needs two finite numbers, got {bounds!r}")
    if low > high:
        raise ValueError(f"live {name!r} needs (lowest, highest) in this order, got {bounds!r}")
    default = inspect.signature(function).parameters[name].default
    return {
        "name": name,
        "label": name.replace("_", " "),
        "low": low,
        "high": high,
        "integer": isinstance(low, int) and isinstance(high, int),
        "default": None if default is inspect.Parameter.empty else default,
    }


def explore(
    *,
    start: Mapping[str, Any] | None = None,
    live: Mapping[str, tuple[float, float]] | None = None,
    **controls: Sequence[Any],
) -> Callable[[Callable], Callable]:
    """Draw the decorated function for every combination of the controls, and show the explorer.

    The function takes the controls by name and returns a matplotlib figure, or a list of them (see
    ``panels``), or a pair (figure, text): the text says what is to be seen in that frame and is
    what a screen reader hears; without it the docstring serves for all frames. Numbers become a
    slider with a play button, words and booleans a menu. Without controls the explorer is a plain
    figure.

    ``start`` is the combination shown first (default: the first value of each control). ``live``
    maps names of numeric parameters to (lowest, highest): what a reader may type when Python
    answers; a live parameter that is not a control (a seed, say) needs a default value.

    Returns the function unchanged, with the widget as its attribute ``explorer``.

    Raises ``ValueError`` for a control or live value that is not a parameter of the function, an
    empty control, one called ``lock`` or ``hide`` (links to a frame use these words), a start that
    is not among the values, a frame without text or with letters under 11 px on a phone;
    ``TypeError`` for values that are neither numbers nor words, or a function that returns no
    figure.
    """
    for argument, given in (("live", live), ("start", start)):
        if not isinstance(given, Mapping | None):
            raise TypeError(f"{argument} needs a dictionary by name, got {given!r}")
    live = dict(live or {})
    start = dict(start or {})

    def decorate(function: Callable) -> Callable:
        if not callable(function):
            raise TypeError(f"function needs a callable, got {type(function).__name__}")
        parameters = inspect.signature(function).parameters
        for kind, name in [("control", c) for c in controls] + [("live", name) for name in live]:
            if name not in parameters:
                known = ", ".join(parameters) or "none"
                raise ValueError(
                    f"{kind} {name!r} needs to be a parameter of {function.__name__} ({known})"
                )
        for name in start:
            if name not in controls:
                known = ", ".join(controls) or "none"
                raise ValueError(f"start needs names of controls ({known}), got {name!r}")
        shown = [_control(name, values) for name, values in controls.items()]
        extra = [_live(name, bounds, function) for name, bounds in live.items()]
        for bound in extra:
            if bound["name"] not in controls and bound["default"] is None:
                raise ValueError(f"live {bound['name']!r} needs a control or a default value")
        for name, parameter in parameters.items():
            variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if name not in controls and parameter.default is parameter.empty and not variable:
                raise TypeError(
                    f"{function.__name__} needs a control or a default value for each parameter, "
                    f"got none for {name!r}"
                )
        first = []
        for control in shown:
            value = start.get(control["name"], control["values"][0])
            if value not in control["values"]:
                raise ValueError(f"start needs a value of {control['name']!r}, got {value!r}")
            first.append(control["values"].index(value))

        table: dict[str, int] = {}
        frames, texts = [], []
        for values in itertools.product(*(c["values"] for c in shown)):
            frame = _draw(function, dict(zip(controls, values, strict=True)))
            chunks = _chunks(frame.svg)
            frames.append([table.setdefault(chunk, len(table)) for chunk in chunks])
            texts.append(frame.text)
        function.explorer = Explorer(
            function,
            name=function.__name__,
            controls=shown,
            live=extra,
            start=first,
            chunks=list(table),
            frames=frames,
            texts=texts,
        )
        if get_ipython() is not None:
            display(function.explorer)
        return function

    return decorate

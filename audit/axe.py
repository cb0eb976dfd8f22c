"""What axe finds on an open page, with everything open that a reader can open."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

SCROLLERS = ["scrollable-region-focusable"]

# A formula is drawn in hundreds of pieces, a cell of code in thousands, each in a few colours: axe
# looks at one piece of each kind, which takes a fifth of the time and finds the same.
ONE_OF_EACH = """() => {
  for (const formula of document.querySelectorAll('.katex')) {
    formula.replaceChildren('formula');
    formula.removeAttribute('style');
  }
  for (const code of document.querySelectorAll('pre')) {
    const seen = new Set();
    for (const piece of code.querySelectorAll('span[class]')) {
      if (seen.has(piece.className)) piece.replaceWith(...piece.childNodes);
      seen.add(piece.className);
    }
    code.normalize();
  }
}"""
# Drawings, of which axe sees the name alone, and formulas within a line, in which nothing scrolls,
# as boxes of their size: half of a page's elements and more.
BOXES = """() => {
  for (const drawn of document.querySelectorAll('svg[aria-hidden=true]')) drawn.replaceChildren();
  const within = [...document.querySelectorAll('.katex:not(.katex-display *)')];
  const sizes = within.map((formula) => formula.getBoundingClientRect());
  within.forEach((formula, i) => {
    formula.replaceChildren();
    const { width, height } = sizes[i];
    formula.style.cssText = `display: inline-block; width: ${width}px; height: ${height}px`;
  });
}"""

# The contrast of a text follows from how it and what it stands in are drawn: of texts that are
# drawn alike, each within the like, one is looked at; the contrast was three quarters of the time.
# ``LOOKS`` is called in each theme, ``ALIKE`` then leaves one text of a kind.
LOOKS = """() => {
  const how = ['color', 'backgroundColor', 'backgroundImage', 'opacity', 'fontSize', 'fontWeight',
    'textShadow', 'position', 'float', 'display', 'visibility', 'mixBlendMode', 'filter'];
  const kinds = (globalThis.axeKinds ??= new Map());
  const number = (text) => kinds.get(text) ?? (kinds.set(text, kinds.size), kinds.size - 1);
  const look = new Map();
  for (const node of document.querySelectorAll('*')) {  // what a node stands in comes before it
    const style = getComputedStyle(node);
    const drawn = how.map((name) => style[name]).join('|');
    look.set(node, number([look.get(node.parentElement), node.tagName, drawn].join('|')));
  }
  (globalThis.axeLooks ??= []).push(look);
}"""
ALIKE = """() => {
  const seen = new Set();
  for (const node of document.body.querySelectorAll('*')) {
    const texts = [...node.childNodes].filter((x) => x.nodeType === 3 && x.data.trim());
    if (!texts.length) continue;
    const kind = globalThis.axeLooks.map((look) => look.get(node)).join();
    if (seen.has(kind)) texts.forEach((text) => text.remove());
    seen.add(kind);
  }
}"""
CONTRAST = ["color-contrast"]


# not those that follow the scroll
FINISH = """() => document.getAnimations()
  .filter((animation) => animation.timeline === document.timeline)
  .forEach((animation) => animation.finish())"""


def findings(page: Page, **options) -> list[str]:
    """What axe finds, of any severity, one paragraph a place; it changes nothing on the page."""
    # preload would fetch the style sheets again, which a page opened from a file may not
    options |= {"preload": False, "resultTypes": ["violations"]}
    return [
        f"{rule['id']} ({rule['impact']}) at {' '.join(map(str, node['target']))}\n"
        f"    {node['html'][:160]}\n    {' '.join(node['failureSummary'].split())}"
        for rule in Axe().run(page, options=options).response["violations"]
        for node in rule["nodes"]
    ]


def all_findings(page: Page) -> list[str]:
    """The same for a whole page, in the light theme and in the dark, in less time.

    The page, whose clock is ours, is one that follows the system's theme. Drawings are emptied on
    the way, formulas and code cut down, and in the end of texts that are drawn alike one is left.
    """
    page.evaluate(BOXES)
    found = findings(page, runOnly=SCROLLERS)  # the same in both themes
    page.evaluate(ONE_OF_EACH)
    for scheme in ("light", "dark"):
        _in_theme(page, scheme)
        rest = findings(page, rules={name: {"enabled": False} for name in CONTRAST})
        found += [f"{scheme}: {finding}" for finding in rest]
        page.evaluate(LOOKS)
    page.evaluate(ALIKE)
    for scheme in ("dark", "light"):
        _in_theme(page, scheme)
        found += [f"{scheme}: {finding}" for finding in findings(page, runOnly=CONTRAST)]
    return found


def _in_theme(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function("(x) => document.documentElement.dataset.theme === x", arg=scheme)
    settle(page)


def unfold(page: Page) -> None:
    """Open all that a reader can open, on a page whose clock is ours."""
    # axe would see what is not laid out yet lie over what follows
    page.add_style_tag(content="* { content-visibility: visible !important }")
    settle(page)  # by now the theme has seen which code is wider than its box
    page.evaluate(
        """() => {
          document.querySelectorAll('details').forEach((node) => (node.open = true));
          document.querySelectorAll('.toggle-hidden .toggle-button').forEach((b) => b.click());
        }"""
    )
    settle(page)  # by now it has looked again, if it was told to


def settle(page: Page) -> None:
    """Let all pass that a page puts off, on a page whose clock is ours."""
    page.clock.run_for(2_000)
    page.evaluate(FINISH)  # colours that fade into those of another theme
    page.evaluate("() => document.fonts.ready.then(() => null)")

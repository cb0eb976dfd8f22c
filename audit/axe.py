"""What axe finds on an open page, with everything open that a reader can open."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

SCROLLERS = ["scrollable-region-focusable"]

# A formula is drawn in hundreds of pieces, a cell of code in thousands, each in a few colours: axe
# looks at one piece of each kind, which takes a fifth of the time and finds the same.
ONE_OF_EACH = """() => {
  for (const formula of document.querySelectorAll('.katex')) formula.replaceChildren('formula');
  for (const code of document.querySelectorAll('pre')) {
    const seen = new Set();
    for (const piece of code.querySelectorAll('span[class]')) {
      if (seen.has(piece.className)) piece.replaceWith(...piece.childNodes);
      seen.add(piece.className);
    }
    code.normalize();
  }
  for (const drawn of document.querySelectorAll('svg[aria-hidden=true]')) drawn.replaceChildren();
}"""


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

    The page, whose clock is ours, is one that follows the system's theme. Formulas and code are cut
    down on the way, and drawings, of which axe sees the name alone, emptied.
    """
    found = findings(page, runOnly=SCROLLERS)  # the same in both themes
    page.evaluate(ONE_OF_EACH)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function("(x) => document.documentElement.dataset.theme === x", arg=scheme)
        settle(page)
        found += [f"{scheme}: {finding}" for finding in findings(page)]
    return found


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

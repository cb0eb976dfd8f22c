"""Frames of figures: their addresses, tools, and what a lost file stops. From files, offline."""

import re
from urllib.parse import unquote

from playwright.sync_api import Locator, expect
from test_site import ON_A_PHONE, address, findings

from scripts.browse import Visit

PAGE, PLACE = "wide_networks.html", "prior_samples"
ON_A_DESK = {"asleep": True, "viewport": {"width": 1280, "height": 900}}


def at(query: str) -> str:
    return f"{address(PAGE)}#{PLACE}?{query}"


def figure(here: Visit, name: str = PLACE) -> Locator:
    return here.page.locator(f"figure#{name}:not([data-explorer])")


def shown(here: Visit, name: str = PLACE) -> dict[str, str]:
    """What the controls of a figure show, once it is awake."""
    expect(figure(here, name)).to_be_attached()
    return (
        figure(here, name)
        .locator("[data-control]")
        .evaluate_all(
            """(fields) => Object.fromEntries(fields.map((f) => [f.dataset.control,
          f.ariaValueText ?? f.selectedOptions[0].text]))"""
        )
    )


def reach(here: Visit, name: str) -> Locator:
    """Scroll to a figure, which wakes there."""
    here.page.wait_for_function(
        """(id) => {
          const figure = document.getElementById(id);
          figure.scrollIntoView();
          return !figure.dataset.explorer;
        }""",
        arg=name,
    )
    return figure(here, name)


def follow(here: Visit, query: str, name: str = PLACE) -> None:
    """Click a link to a frame at the beginning of the page."""
    here.page.evaluate(
        """(hash) => {
          const link = document.createElement("a");
          Object.assign(link, { href: hash, textContent: "a frame", id: "trial" });
          document.getElementById("trial")?.remove();
          document.querySelector("article h1").after(link);
          scrollTo({ top: 0, behavior: "instant" });
        }""",
        f"#{name}?{query}",
    )
    here.page.locator("#trial").click()


def test_an_address_shows_a_frame_is_written_as_controls_move_and_lasts(visit):
    here = visit(at("activation=erf&depth=4"), **ON_A_DESK)
    page = here.page
    assert shown(here) == {"depth": "4", "activation": "erf", "beta": "0"}
    expect(figure(here)).to_be_in_viewport(ratio=1)
    # one entry of the history, however often a control moves
    entries, top = page.evaluate("[history.length, scrollY]")
    slider = figure(here).locator("[data-control=depth]")
    for _ in range(40):
        slider.press("ArrowRight")
        slider.press("ArrowLeft")
    slider.press("End")
    page.wait_for_url(at("depth=16&activation=erf&beta=0"))
    assert page.evaluate("[history.length, scrollY]") == [entries, top]
    # another figure has the address now; a reload keeps both, and so does the way back
    other = "two_outputs"
    reach(here, other).locator("[data-control=width]").press("End")
    page.wait_for_url(re.compile("#two_outputs"))
    for way in (page.reload, lambda: page.goto(address("glossary.html")) and page.go_back()):
        way()
        reach(here, PLACE)
        reach(here, other)
        assert shown(here)["depth"] == "16"
        assert shown(here, other)["width"] == "64"
    assert (here.left, here.complaints) == ([], [])


def test_a_link_wakes_its_figure_and_back_returns(visit):
    here = visit(address(PAGE), **ON_A_PHONE)
    page, sentence = here.page, page_text(here)
    follow(here, "depth=4&activation=relu")
    assert shown(here)["depth"] == "4"
    expect(figure(here).locator(".ntk-picture")).to_be_in_viewport(ratio=1)
    assert page_text(here) != sentence
    assert unquote(page.url).endswith("depth=4&activation=relu&beta=0")
    expect(page.locator("#trial")).to_be_focused()  # a reader by keyboard goes on from there
    follow(here, "depth=16")
    expect(figure(here).locator("output").first).to_have_text("16")
    page.go_back()
    expect(figure(here).locator("output").first).to_have_text("4")
    # the answer of a prediction calls this
    assert page.evaluate("ntkView.go('#prior_samples?beta=1')")
    assert shown(here) == {"depth": "2", "activation": "relu", "beta": "1"}
    assert not page.evaluate("ntkView.go('#no_figure?x=1')")
    assert here.complaints == []


def page_text(here: Visit) -> str:
    return here.page.locator(f"#{PLACE} .ntk-text").inner_text()


def test_what_an_address_asks_in_vain_is_said(visit):
    here = visit(at("depth=12&beta=1e99&activation=no%&colour=red&constructor=1&x"), **ON_A_DESK)
    assert shown(here) == {"depth": "16", "activation": "relu", "beta": "1"}
    said = figure(here).locator(".ntk-said[role=status]")
    expect(said).to_have_text(
        "No frame has depth 12, this one has 16. No frame has beta 1e99, this one has 1. "
        "No frame has activation no%, this one has relu. This figure has no colour. "
        "This figure has no constructor. This figure has no x."
    )
    here.page.wait_for_url(at("depth=16&activation=relu&beta=1"))
    figure(here).locator("[data-control=depth]").press("Home")
    expect(said).to_have_text("")
    here.page.goto(address(PAGE) + "#50%")
    here.page.reload()
    reach(here, PLACE)  # and no exception
    assert here.complaints == []


def test_a_teacher_locks_and_hides_controls(visit):
    here = visit(at("depth=4&lock=depth,activation&hide=beta,nothing"), **ON_A_DESK)
    page, link = here.page, at("depth=4&activation=relu&beta=0&lock=depth,activation&hide=beta")
    assert shown(here)["depth"] == "4"
    for _ in range(2):
        controls = figure(here).locator("[data-control]")
        assert controls.evaluate_all(
            "(all) => all.map((f) => [f.disabled, f.checkVisibility()])"
        ) == [
            [True, True],
            [True, True],
            [False, False],
        ]
        expect(figure(here).locator(".ntk-play")).to_be_disabled()
        page.wait_for_url(link)
        page.reload()
        reach(here, PLACE)
    follow(here, "depth=16")
    expect(figure(here).locator("[data-control=beta]")).to_be_visible()
    expect(figure(here).locator("[data-control=depth]")).to_be_enabled()


def test_a_figure_has_a_link_a_full_screen_and_a_line_of_python(visit):
    here = visit(at("depth=4"), permissions=["clipboard-read", "clipboard-write"], **ON_A_DESK)
    page, place = here.page, figure(here)
    copied = "navigator.clipboard.readText()"
    place.get_by_role("button", name="Copy link").click()
    expect(place.locator(".ntk-said[role=status]")).to_have_text("Link copied")
    assert page.evaluate(copied) == page.url == at("depth=4&activation=relu&beta=0")

    python = place.get_by_role("button", name="Python")
    python.focus()
    page.keyboard.press("Enter")
    expect(python).to_have_attribute("aria-expanded", "true")
    place.locator("[data-control=depth]").press("ArrowRight")
    place.get_by_role("button", name="Copy", exact=True).click()
    assert page.evaluate(copied) == 'prior_samples(depth=16, activation="relu", beta=0.0)'
    assert "@explore" in place.locator("details pre").text_content()
    expect(place.get_by_role("link", name="the notebook")).to_have_attribute(
        "href", re.compile(r"^https://.*/book/wide_networks\.ipynb$")
    )
    assert findings(page) == []
    python.click()

    place.get_by_role("button", name="Full screen").click()
    leave = place.get_by_role("button", name="Leave full screen")
    expect(leave).to_be_visible()
    words = place.locator(".ntk-text").bounding_box()
    height = page.evaluate("innerHeight")
    assert words["y"] + words["height"] <= height  # they too are on the screen
    drawing = place.locator("svg").first.bounding_box()
    assert drawing["height"] > 0.6 * height
    leave.click()
    expect(place.get_by_role("button", name="Full screen")).to_be_visible()
    assert (here.left, here.complaints) == ([], [])


def test_a_file_of_frames_that_does_not_arrive_stops_its_figure_alone(visit):
    here = visit("about:blank", **ON_A_DESK)
    lost = "**/_static/explorers/wide_networks/2.js"  # of two_outputs
    here.page.context.route(lost, lambda route: route.abort())
    here.page.goto(address(PAGE))
    here.page.wait_for_function(
        "document.querySelectorAll('figure[data-explorer]:not([tabindex])').length === 1"
    )
    assert here.page.evaluate("ntkView.go('#two_outputs?width=16')")
    follow(here, "depth=16")
    assert shown(here)["depth"] == "16"
    assert [x for x in here.complaints if "ERR_FAILED" not in x] == []
    here.page.context.unroute(lost)
    here.page.evaluate("dispatchEvent(new Event('online'))")
    reach(here, "two_outputs")
    assert shown(here, "two_outputs")["width"] == "16"  # as was asked for in vain

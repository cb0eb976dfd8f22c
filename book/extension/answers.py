"""Predictions that answer back, and library checks folded into a line.

A prediction is a paragraph that starts with a bold "Predict", a list of lettered choices right
after it, and the next dropdown titled "Answer". The answer starts with the right letter, and a list
in it has a sentence for each wrong choice. The build says where one lacks a part, marks the parts
with classes, and answers.js makes choices of the list; a page without scripts keeps list and fold.

A cell tagged ``hide-cell`` and ``checks`` is folded into "✓ 4 checks", as many as it prints.
"""

import hashlib
import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx_design.shared import is_component

LOGGER = logging.getLogger(__name__)
LETTER = re.compile(r"\s*\(([a-z])\)")
LETTERS = "abcd"


# ---------------------------------------------------------------- predictions


def asks(node: nodes.Node) -> bool:
    """Whether it is a paragraph that starts with a bold "Predict"."""
    if not isinstance(node, nodes.paragraph):
        return False
    first = next((child for child in node.children if child.astext()), None)  # MyST leaves a ""
    return isinstance(first, nodes.strong) and bool(re.match(r"Predict\b", first.astext()))


def answers(node: nodes.Node) -> bool:
    """Whether it is a dropdown titled "Answer"."""
    return is_component(node, "dropdown") and node["has_title"] and node[0].astext() == "Answer"


def lettered(node: nodes.Node | None) -> dict[str, nodes.list_item]:
    """The items of a list by the letters that they start with."""
    found = {}
    for item in node.children if isinstance(node, nodes.bullet_list) else []:
        letter = LETTER.match(item.astext())
        if letter:
            found[letter[1]] = item
    return found


def after(node: nodes.Node) -> nodes.Node | None:
    """What stands next to it, below."""
    return next(iter(node.findall(include_self=False, descend=False, siblings=True)), None)


def mark(question: nodes.paragraph, answer: nodes.Element | None) -> list[str]:
    """Mark the parts of a prediction with classes; what it lacks, a sentence each."""
    listed = after(question)
    choices = lettered(listed)
    named = f"(“{question.astext()[:60]}…”)"
    if not 2 <= len(choices) <= 4 or list(choices) != list(LETTERS[: len(choices)]):
        return [f"a prediction needs a list of two to four choices, (a), (b), … {named}"]
    if len(choices) < len(listed.children):
        return [f"a prediction has a choice without a letter {named}"]
    if answer is None:
        return [f"a prediction has no answer before the next one or the end {named}"]
    said = LETTER.match(" ".join(child.astext() for child in answer.children[1:]))
    if said is None or said[1] not in choices:
        return [f"an answer needs to start with the letter of the right choice {named}"]
    sentences = {}
    for child in answer.children[1:]:
        sentences |= lettered(child)
    wrong = set(choices) - {said[1]}
    lacking = [f"({letter})" for letter in sorted(wrong - set(sentences))]
    surplus = [f"({letter})" for letter in sorted(set(sentences) - set(choices))]
    if lacking:
        return [f"an answer has no sentence for {' and '.join(lacking)} {named}"]
    if surplus:
        return [f"an answer speaks of {' and '.join(surplus)}, which is no choice {named}"]

    # by its words: what a reader chose is kept until the question is another one
    name = hashlib.sha1(question.astext().encode(), usedforsecurity=False).hexdigest()[:8]
    question["ids"].append(f"predict-{name}")
    question["classes"].append("prediction")
    listed["classes"] += ["choices", f"right-{said[1]}"]
    answer["container_classes"] = [*answer["container_classes"], "prediction-answer"]
    for letter in wrong:
        sentences[letter]["classes"].append(f"against-{letter}")
    return []


def mark_predictions(app: Sphinx, doctree: nodes.document) -> None:
    """Pair each prediction of a page with its answer."""
    parts = [node for node in doctree.findall() if asks(node) or answers(node)]
    for before, part, follows in zip([None, *parts], parts, [*parts[1:], None], strict=False):
        if asks(part):
            answer = follows if follows is not None and answers(follows) else None
            for lack in mark(part, answer):
                LOGGER.warning("%s", lack, location=part, type="answers")
        elif before is None or answers(before):
            LOGGER.warning("an answer has no prediction above it", location=part, type="answers")


# ---------------------------------------------------------------- checks


def count_checks(app: Sphinx, doctree: nodes.document) -> None:
    """Say on the fold of a cell of checks how many it holds."""
    for cell in doctree.findall(nodes.container):
        if "tag_checks" not in cell.get("classes", []):
            continue
        printed = "\n".join(
            out.astext() for out in cell.findall(nodes.literal_block) if "✓" in out.astext()
        )
        count = len(re.findall("^✓", printed, re.M))
        if not count or cell.get("hide_mode") != "all":
            lack = "a cell tagged `checks` needs the tag `hide-cell` too, and to print checks"
            LOGGER.warning(lack, location=cell, type="answers")
            continue
        said = f"✓ {count} check{'s' * (count > 1)}"
        cell["prompt_show"] = cell["prompt_hide"] = said


def setup(app: Sphinx) -> dict:
    app.connect("doctree-read", mark_predictions)
    app.connect("doctree-read", count_checks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

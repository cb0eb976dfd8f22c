"""For nbval: every printed number is compared; pictures, which are not stored, are not.

The last digit of a printed number may differ by one: processors add in different orders, and a
number at the edge of two roundings falls to either side. Whole numbers have to be the same.
"""

import re

import pytest
from nbval.plugin import IPyNbCell

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?")
compare_outputs = IPyNbCell.compare_outputs


def pytest_collectstart(collector: pytest.Collector) -> None:
    if hasattr(collector, "skip_compare"):  # a notebook
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


IPyNbCell.compare_outputs = compare

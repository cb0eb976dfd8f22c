"""Warnings of the build that say where in a notebook: its cell and the line in it.

myst-nb numbers the lines of a notebook so that line 41 of its cell 5 is line 50041.
"""

import logging
import re

from sphinx.application import Sphinx
from sphinx.util.logging import NAMESPACE, WarningStreamHandler

LINE = re.compile(r"(.*\.ipynb):(\d+)")
CELL = 10_000  # lines that myst-nb leaves for a cell


def in_words(location: str) -> str:
    """The place as a person looks for it: cells are counted from 1."""
    location = location.replace(".ip.rst", ".ipynb")  # sphinx-proof takes three letters off
    found = LINE.fullmatch(location)
    if not found or int(found[2]) < CELL:
        return location
    cell, line = divmod(int(found[2]), CELL)
    return f"{found[1]}, cell {cell}, line {line}"


class Places(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(getattr(record, "location", None), str):
            record.location = in_words(record.location)
        return True


def setup(app: Sphinx) -> dict:
    for handler in logging.getLogger(NAMESPACE).handlers:
        if isinstance(handler, WarningStreamHandler):
            # after the filter that makes a text of a node, before the one that raises
            handler.filters.insert(2, Places())
    return {"parallel_read_safe": True, "parallel_write_safe": True}

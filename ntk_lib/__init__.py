"""The library under *The Neural Tangent Kernel, Interactively*: one module a chapter.

``book/NAME.ipynb``, ``ntk_lib/NAME.py`` and ``tests/test_NAME.py`` belong together. What several
chapters share is in ``ntk_lib.engine``, what only pages need in ``ntk_lib.page``.
"""

__version__ = "0.2.0"

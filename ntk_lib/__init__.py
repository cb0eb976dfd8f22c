"""The library under *The Neural Tangent Kernel, Interactively*: one module a chapter.

``book/NAME.ipynb``, ``ntk_lib/NAME.py`` and ``tests/test_NAME.py`` belong together. Two modules
serve every chapter: ``explore`` (interactive figures) and ``check`` (claims that can fail).
"""

"""What only pages need: interactive figures (``explore``), claims that can fail (``check``), and
the style of the figures. Notebooks and the book's build import it, no other module does.

``explore`` needs the extra ``figures``: ``pip install "ntk-lib[figures]"``.
"""

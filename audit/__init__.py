"""Measurements of the built book and of its notebooks, for the maintainers of the project."""

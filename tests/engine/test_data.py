"""What the repository keeps is there, is described, and is what it says."""

import numpy as np
import pytest

from ntk_lib.engine import data
from ntk_lib.engine.data import DATA, load


def test_a_missing_file_is_named_with_those_there_are():
    with pytest.raises(FileNotFoundError, match=r"^name needs .* 'mnest'; there are .*mnist"):
        load("mnest")


def test_a_place_without_data_is_said_to_be_one(monkeypatch, tmp_path):
    monkeypatch.setattr(data, "DATA", tmp_path)
    with pytest.raises(FileNotFoundError, match="in the book's repository"):
        load("mnist")


def test_the_digits_are_digits():
    digits = load("mnist")
    assert digits["images"].shape == (4096, 28, 28)
    assert digits["images"].dtype == digits["labels"].dtype == "uint8"
    counts = np.bincount(digits["labels"], minlength=10)
    # each digit has between 9 and 11.3 % of MNIST; four standard deviations of 4096 draws
    assert counts.min() > 4096 * (0.09 - 4 * np.sqrt(0.09 / 4096))
    assert counts.max() < 4096 * (0.113 + 4 * np.sqrt(0.113 / 4096))
    # an image per digit, white on black: its border is empty, its middle is not
    assert digits["images"][:, 0].mean() < 1 < 50 < digits["images"][:, 14, 12:16].mean()


def test_every_file_of_data_is_described():
    described = (DATA / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in DATA.glob("*.npz") if path.name not in described] == []

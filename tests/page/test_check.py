"""``check`` fails when and only when a claim does; ``slope`` finds exponents and their error."""

import numpy as np
import pytest

from ntk_lib.page.check import Slope, check, slope, typical

# ---------------------------------------------------------------- check

HOLDS = [
    pytest.param(1.25, 1.0, {"within": 0.25}, id="within-includes-its-bound"),
    pytest.param(0.75, 1.0, {"within": 0.25}, id="within-from-below"),
    pytest.param(-1.0, -1.0, {"within": 0.0}, id="within-zero-asks-equality"),
    pytest.param(2.5, 2.0, {"relative": 0.25}, id="relative-includes-its-bound"),
    pytest.param(-2.5, -2.0, {"relative": 0.25}, id="relative-to-a-negative-prediction"),
    pytest.param(0.0, 0.0, {"relative": 0.1}, id="relative-zero-to-zero"),
    pytest.param(0.9, 5.0, {"below": 1.0}, id="below-ignores-the-prediction"),
    pytest.param(1.1, 5.0, {"above": 1.0}, id="above-ignores-the-prediction"),
    pytest.param(-3.0, 0.0, {"below": -2.0}, id="below-keeps-signs"),
]

FAILS = [
    pytest.param(1.26, 1.0, {"within": 0.25}, id="within-too-high"),
    pytest.param(0.74, 1.0, {"within": 0.25}, id="within-too-low"),
    pytest.param(4.0, 2.0, {"within": 1.5}, id="within-is-not-relative"),
    pytest.param(2.6, 2.0, {"relative": 0.25}, id="relative-too-high"),
    pytest.param(-1.4, -2.0, {"relative": 0.25}, id="relative-too-low"),
    pytest.param(0.3, 0.5, {"relative": 0.25}, id="relative-is-not-absolute"),
    pytest.param(1e-9, 0.0, {"relative": 0.1}, id="relative-to-zero"),
    pytest.param(2.0, -2.0, {"relative": 0.25}, id="relative-of-the-other-sign"),
    pytest.param(1.0, 0.0, {"below": 1.0}, id="below-is-strict"),
    pytest.param(1.0, 0.0, {"above": 1.0}, id="above-is-strict"),
    pytest.param(-3.0, 0.0, {"above": -2.0}, id="above-keeps-signs"),
    pytest.param(np.nan, 0.0, {"within": 1.0}, id="nan-within"),
    pytest.param(np.nan, 1.0, {"relative": 1.0}, id="nan-relative"),
    pytest.param(np.nan, 0.0, {"below": 1.0}, id="nan-below"),
    pytest.param(np.nan, 0.0, {"above": -1.0}, id="nan-above"),
    pytest.param(0.0, np.nan, {"within": 1.0}, id="nan-predicted"),
    pytest.param(np.inf, 0.0, {"within": 1.0}, id="infinite"),
]


@pytest.mark.parametrize(("measured", "predicted", "tolerance"), HOLDS)
def test_a_claim_that_holds_is_printed_once(measured, predicted, tolerance, capsys):
    check("the claim", measured, predicted, **tolerance)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("✓ the claim: ")


@pytest.mark.parametrize(("measured", "predicted", "tolerance"), FAILS)
def test_a_claim_that_does_not_hold_raises_and_prints_nothing(
    measured, predicted, tolerance, capsys
):
    with pytest.raises(AssertionError, match=r"^does not hold: the claim: "):
        check("the claim", measured, predicted, **tolerance)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        ((0.28254, 0.2825, "within", 1e-3), "a: 0.2825 (expected 0.2825 ± 0.001)"),
        ((103.0, 100.0, "relative", 0.05), "a: 103 (expected 100 ± 5)"),
        ((0.5, 0.0, "below", 1.0), "a: 0.5 (expected below 1)"),
        ((12345.0, 0.0, "above", 3.14159), "a: 1.234e+04 (expected above 3.142)"),
    ],
)
def test_the_measurement_stands_beside_what_was_expected(arguments, printed, capsys):
    measured, predicted, kind, bound = arguments
    check("a", measured, predicted, **{kind: bound})
    assert capsys.readouterr().out == f"✓ {printed}\n"


@pytest.mark.parametrize(
    ("arguments", "tolerance", "printed"),
    [
        ((0.123456, 0.125), {"within": 0.01}, "a: 0.12 (expected 0.12 ± 0.01)"),
        ((0.123456,), {"below": 0.98765}, "a: 0.12 (expected below 0.99)"),
        ((0.123456,), {"above": 0.098765}, "a: 0.12 (expected above 0.099)"),
    ],
)
def test_fewer_digits_are_printed_where_they_are_asked_for(arguments, tolerance, printed, capsys):
    check("a", *arguments, **tolerance, digits=2)
    assert capsys.readouterr().out == f"✓ {printed}\n"


@pytest.mark.parametrize(
    ("measured", "tolerance", "expected"),
    [
        (-1e-16, {"above": -1e-12}, "above -1e-12"),
        (1e-16, {"below": 1e-12}, "below 1e-12"),
        (1.5e-16, {"within": 1e-12}, "0 ± 1e-12"),
    ],
)
def test_of_a_rounding_error_no_digit_is_printed(measured, tolerance, expected, capsys):
    check("error", measured, **tolerance, digits=0)
    assert capsys.readouterr().out == f"✓ error: {expected}\n"


def test_a_failure_shows_the_measurement_all_the_same():
    with pytest.raises(AssertionError, match=r"error: 2e-12 \(expected below 1e-12\)"):
        check("error", 2e-12, below=1e-12, digits=0)


@pytest.mark.parametrize(
    ("measured", "shown"),
    [(0.0101, "0.0101"), (0.0099, "under 0.01"), (-0.0099, "under 0.01"), (-0.5, "-0.5")],
)
def test_far_below_its_bound_a_measurement_is_shown_as_that(measured, shown, capsys):
    # the digits of a rounding error differ between processors, and the notebooks are compared
    check("error", measured, below=1.0)
    assert capsys.readouterr().out == f"✓ error: {shown} (expected below 1)\n"


def test_a_failure_says_what_was_measured_and_expected():
    with pytest.raises(AssertionError) as failure:
        check("peak", 0.3, 0.2825, within=0.001)
    assert str(failure.value) == "does not hold: peak: 0.3 (expected 0.2825 ± 0.001)"


def test_the_prediction_is_zero_unless_stated():
    check("vanishes", 1e-9, within=1e-8)
    with pytest.raises(AssertionError):
        check("vanishes", 1.0, within=1e-8)


def test_check_takes_the_scalars_of_numpy_and_integers(no_hook, capsys):
    check("a", np.float32(2), 2, within=0)
    check("a", np.array(2), np.int64(2), within=0)
    assert capsys.readouterr().out.count("✓") == 2


# ---------------------------------------------------------------- slope


@pytest.mark.parametrize("exponent", [-2.0, -0.5, 0.0, 1.0, 3.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_slope_of_an_exact_power_law_is_its_exponent(exponent, weighted):
    x = np.array([1.0, 2.0, 5.0, 70.0])
    y = 3.7 * x**exponent
    fitted = slope(x, y, y * [0.1, 3.0, 0.2, 0.5] if weighted else None)
    assert fitted.value == pytest.approx(exponent, abs=1e-12)
    if not weighted:
        assert fitted.halfwidth < 1e-12


def test_slope_and_interval_agree_with_numpys_straight_line_fit():
    rng = np.random.default_rng(0)
    x = np.array([8.0, 16.0, 64.0, 100.0, 333.0])
    y = 2.0 * x**-0.5 * np.exp(0.2 * rng.normal(size=5))
    line, covariance = np.polyfit(np.log(x), np.log(y), 1, cov=True)
    assert slope(x, y) == pytest.approx((line[0], 1.96 * np.sqrt(covariance[0, 0])), rel=1e-10)


def test_weighted_slope_and_interval_agree_with_numpys_weighted_fit():
    rng = np.random.default_rng(1)
    x = np.array([8.0, 16.0, 64.0, 100.0, 333.0])
    y = 2.0 * x**-0.5 * np.exp(0.2 * rng.normal(size=5))
    y_se = y * np.array([0.01, 0.5, 0.1, 0.03, 0.2])
    # the error of log y is the relative error of y
    line, covariance = np.polyfit(np.log(x), np.log(y), 1, w=y / y_se, cov="unscaled")
    assert slope(x, y, y_se) == pytest.approx(
        (line[0], 1.96 * np.sqrt(covariance[0, 0])), rel=1e-10
    )


def test_the_interval_covers_the_truth_in_95_percent_of_experiments():
    rng = np.random.default_rng(2)
    x = 2.0 ** np.arange(6, 14)
    relative = 0.05 * np.linspace(0.5, 2.0, x.size)
    trials = 2000
    hits = 0
    for _ in range(trials):
        y = x**-0.5 * np.exp(relative * rng.normal(size=x.size))
        fitted = slope(x, y, relative * y)
        hits += abs(fitted.value + 0.5) <= fitted.halfwidth
    # four standard errors of a binomial share
    assert abs(hits / trials - 0.95) < 4 * np.sqrt(0.95 * 0.05 / trials)


def test_slope_does_not_depend_on_the_units_of_x_and_y():
    x = np.array([1.0, 3.0, 4.0, 9.0])
    y = np.array([2.0, 1.5, 0.7, 0.6])
    y_se = np.array([0.2, 0.1, 0.3, 0.1])
    assert slope(1e3 * x, 1e-4 * y) == pytest.approx(slope(x, y), rel=1e-12)
    assert slope(x, 1e-4 * y, 1e-4 * y_se) == pytest.approx(slope(x, y, y_se), rel=1e-12)


def test_a_point_with_a_small_error_decides():
    x = np.array([1.0, np.e, np.e**2])
    y = np.exp([0.0, 1.0, 0.0])
    sure, unsure = 1e-6, 1.0
    assert slope(x, y, y * [sure, sure, unsure]).value == pytest.approx(1.0, abs=1e-9)
    assert slope(x, y, y * [unsure, sure, sure]).value == pytest.approx(-1.0, abs=1e-9)


def test_slope_prints_two_digits():
    assert str(Slope(-0.4987, 0.0321)) == "-0.50 ± 0.03"


def test_slope_takes_integers_and_lists(no_hook):
    assert slope([1, 2, 4], (1, 4, 16)).value == pytest.approx(2.0, abs=1e-14)
    assert slope(np.array([1, 2, 4]), np.array([1, 4, 16])).value == pytest.approx(2.0, abs=1e-14)


# ---------------------------------------------------------------- typical

DRAWS = np.arange(101.0)  # percentiles are the numbers themselves


@pytest.mark.parametrize("shown", [20.0, 50.0, 80.0])
def test_a_number_in_the_middle_of_its_draws_is_typical(shown, capsys):
    typical("the spread", shown, DRAWS)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "✓ the spread: the number shown is in the middle 60 % of 101 draws"


@pytest.mark.parametrize("shown", [19.9, 80.1, -5.0, np.nan])
def test_a_number_outside_the_middle_is_refused(shown):
    with pytest.raises(
        AssertionError, match=r"^does not hold: the spread: .* is not in the middle"
    ):
        typical("the spread", shown, DRAWS)


def test_one_frame_of_several_that_shows_a_rare_draw_is_named():
    two = np.stack([DRAWS, 100 + DRAWS])
    typical("spreads", np.array([30.0, 130.0]), two)
    with pytest.raises(AssertionError, match="spreads, number 1 of 2: 185 is not"):
        typical("spreads", np.array([30.0, 185.0]), two)


@pytest.mark.parametrize(
    ("shown", "draws", "message"),
    [
        pytest.param(np.ones(2), DRAWS, "draws needs the shape of shown", id="no-axis-of-frames"),
        pytest.param(1.0, np.ones((2, 100)), "draws needs the shape of shown", id="axis-too-many"),
        pytest.param(1.0, np.ones(99), "at least 100 draws, got 99", id="too-few"),
        pytest.param(np.ones(0), np.ones((0, 100)), "at least one number", id="none"),
    ],
)
def test_draws_that_do_not_fit_are_refused(shown, draws, message):
    with pytest.raises(ValueError, match=message):
        typical("the spread", shown, draws)

"""The page on speed is what the stored numbers say, and bad numbers are refused."""

import copy
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ours, page, worker

RESULTS = json.loads(page.RESULTS.read_text(encoding="utf-8"))
REPO = Path(__file__).parents[1]


def slower(part, name, factor):
    """Results in which that contestant takes ``factor`` times as long."""

    def change(results):
        for row in results[part]:
            if name in row["seconds"]:
                row["seconds"][name] = [factor * second for second in row["seconds"][name]]

    return change


def larger(part, key, factor):
    """Results in which that number of our rows is ``factor`` times as large."""

    def change(results):
        for row in results[part]:
            if row.get("library", "ntk_lib") == "ntk_lib":
                row[key] *= factor

    return change


def spent(key, size, factor):
    """Results in which we need ``factor`` times as much of that on images of that size."""

    def change(results):
        for row in results["images"]:
            if row["size"] == size:
                used = np.multiply(factor, row[key]["ntk_lib"])
                row[key]["ntk_lib"] = used.tolist()

    return change


def solved(solver, key, factor):
    """Results in which that number of that solver is ``factor`` times as large."""

    def change(results):
        for row in results["solvers"]:
            if row["solver"] == solver and key in row:
                row[key] *= factor

    return change


def test_the_page_is_what_the_results_render_to():
    assert page.PAGE.read_text(encoding="utf-8") == page.render(RESULTS)


def test_the_results_are_in_their_stored_form():
    assert page.RESULTS.read_text(encoding="utf-8") == page.stored(RESULTS)


@pytest.mark.parametrize("name", page.CLAIMS)
def test_what_the_page_claims_holds_for_its_numbers(name):
    verdict = next(verdict for verdict in page.verdicts(RESULTS) if verdict.claim.name == name)
    assert verdict.holds, str(verdict)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        pytest.param(
            slower("limit", "ntk_lib", 1000),
            {
                "times faster than neural-tangents, depth 4",
                "times faster than neural-tangents, depth 11",
                "times the product alone",
            },
            id="limit",
        ),
        pytest.param(
            larger("memory", "peak", 1000),
            {"memory as a share of neural-tangents'", "MiB beyond the result, n = 20000"},
            id="memory",
        ),
        pytest.param(
            slower("empirical", "mlp_ntk", 1e6),
            {
                "times faster than structured derivatives",
                "times faster than Jacobian contraction",
            },
            id="empirical",
        ),
        pytest.param(
            slower("empirical", "structure", 100),
            {"times structured derivatives, found layers"},
            id="found layers",
        ),
        pytest.param(
            slower("models", "structure", 100),
            {
                "times faster than the best of neural-tangents, several positions",
                "times faster than the contraction, several positions",
                "times as fast as the contraction, graph network",
            },
            id="models",
        ),
        pytest.param(
            larger("numerics", "by entry", 1e9), {"relative error of an entry, relu"}, id="numerics"
        ),
        pytest.param(
            spent("processor", 8, 1000),
            {"times less processor time, images of 8 x 8"},
            id="small images",
        ),
        pytest.param(
            spent("processor", 32, 1000),
            {"times less processor time, images of 32 x 32"},
            id="images",
        ),
        pytest.param(
            spent("peak", 8, 1000),
            {
                "memory as a share of neural-tangents', images of 8 x 8",
                "MiB of a kernel of images of 8 x 8",
            },
            id="memory of images",
        ),
        *[
            pytest.param(solved(solver, key, factor), {name}, id=name)
            for solver, key, factor, name in (
                ("GPyTorch", "residual", 100, "residual of conjugate gradients"),
                ("EigenPro", "test error", 2, "test error of a library as a share of ours"),
                ("GPyTorch", "processor", 100, "GPyTorch's time by ours"),
                (
                    "regression, blocks kept",
                    "processor",
                    100,
                    "our time with blocks kept by GPyTorch's",
                ),
                ("regression", "peak", 100, "our memory by GPyTorch's"),
                ("EigenPro", "processor", 0.01, "EigenPro's time by ours"),
                ("Falkon", "processor", 0.01, "Falkon's time by ours"),
            )
        ],
    ],
)
def test_a_bad_run_is_refused_by_its_claims(change, names):
    results = copy.deepcopy(RESULTS)
    change(results)
    verdicts = {verdict.claim.name: verdict for verdict in page.verdicts(results)}
    assert names <= {name for name, verdict in verdicts.items() if not verdict.holds}
    assert all(str(verdicts[name]).startswith("✗") for name in names)


def test_every_claim_is_one_that_some_bad_run_breaks():
    """The table above names them all: 3 + 2 + 2 + 1 + 3 + 1 + 1 + 1 + 2 + 7."""
    assert len(page.CLAIMS) == 23


def test_no_number_is_no_success():
    claim = next(iter(page.CLAIMS.values()))
    assert not page.Verdict(claim, math.nan).holds
    assert not page.Verdict(claim._replace(least=False), math.nan).holds


def test_a_row_of_the_page_holds_ratios_of_medians():
    row = {"seconds": {"one": [1.0, 3.0, 2.0, 100.0, 2.0], "other": [4.0, 8.0, 1000.0]}}
    assert page.median(row, "one") == 2.0
    assert page.ratio(row, "other", "one") == 4.0


@pytest.mark.parametrize("data", ["gaussian", "equal norm", "different norms", "digits"])
def test_both_sides_get_the_same_points(data):
    n, d = 50, 64
    x = worker.points(data, n, d)
    assert x.shape == (n, d)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, worker.points(data, n, d))
    norms = np.linalg.norm(x, axis=1) / math.sqrt(d)
    if data in ("equal norm", "digits"):
        np.testing.assert_allclose(norms, 1.0, rtol=1e-6)  # float32: ε = 1.2e-7, and a root
    else:
        assert np.ptp(norms) > 0.1


def test_a_regression_problem_is_the_same_for_all():
    problem = x, targets, new, truth = worker.problem(50)
    assert (x.shape, targets.shape) == ((50, 20), (50,))
    assert (new.shape, truth.shape) == ((2000, 20), (2000,))
    assert {array.dtype for array in problem} == {np.dtype(np.float32)}
    for one, other in zip(problem, worker.problem(50), strict=True):
        np.testing.assert_array_equal(one, other)
    # coordinate i has standard deviation 1/√i; of 2000 draws it is known to 1.6 %
    np.testing.assert_allclose(new.std(axis=0) * np.sqrt(np.arange(1, 21)), 1, atol=0.07)
    assert not np.any(x[:, None] == new[None, :50])


def test_errors_of_a_solve_are_those_of_its_coefficients():
    """Of the exact solution the residual is rounding; half of it leaves half of the targets."""
    n = 1200
    x, targets, new, truth = worker.problem(n)
    alpha = np.linalg.solve(worker.laplace(x, x) + worker.SHIFT * np.eye(n), targets)
    errors = worker._errors(worker.Solved(x, alpha, 3), n, worker.laplace)
    assert errors["residual"] < 1e-10
    assert errors["steps"] == 3
    mean = np.mean((worker.laplace(new, x) @ alpha - truth) ** 2)
    assert errors["test error"] == pytest.approx(mean, rel=1e-3)  # four digits are kept
    assert worker.NOISE**2 < mean < np.var(truth) / 2
    half = worker._errors(worker.Solved(x, alpha / 2, 3), n, worker.laplace)
    assert half["residual"] == pytest.approx(0.5)
    assert "residual" not in worker._errors(worker.Solved(x[:9], alpha[:9], 3), n, worker.laplace)


def test_our_kernel_is_that_of_the_others():
    x, *_ = worker.problem(30)
    for kernel, exact in (
        (ours._laplace(x), worker.laplace(x, x)),
        (ours._laplace(x, x[:7]), worker.laplace(x, x[:7])),
    ):
        # near 0 the distance is a root of a difference: off by √ε = 3e-4 of the norm, about 2
        np.testing.assert_allclose(kernel, exact, atol=3e-4)


def test_unknown_points_are_refused():
    with pytest.raises(ValueError, match="data needs to be a known name, got 'moon'"):
        worker.points("moon", 3, 2)


def test_a_network_has_the_shapes_of_its_widths():
    layers = worker.network([4, 3, 2])
    assert [(W.shape, b.shape) for W, b in layers] == [((3, 4), (3,)), ((2, 3), (2,))]
    assert all(array.dtype == np.float32 for layer in layers for array in layer)


def test_the_peers_are_pinned():
    lines = (REPO / "benchmarks" / "peers.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert {"neural-tangents==0.6.5", "scikit-ntk==1.2.1"} <= set(pins)
    assert all("==" in pin for pin in pins)


def test_the_solvers_are_pinned():
    """To a version, or for what is published as a repository only, to a commit."""
    lines = (REPO / "benchmarks" / "solvers.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert {"gpytorch==1.15.2", "torch==2.13.0"} <= set(pins)
    commits = [pin for pin in pins if "==" not in pin]
    assert len(commits) == 2
    assert all(re.fullmatch(r"\w+ @ git\+https://[\w./-]+@[0-9a-f]{40}", pin) for pin in commits)

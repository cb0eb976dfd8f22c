"""The estimators against scikit-learn's own checks and Gaussian processes, and in its tools."""

import functools
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cases import RNG_SEED
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingRegressor, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    cross_val_score,
    learning_curve,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from ntk_lib import NTKClassifier, NTKRegressor, estimators, nngp, ntk, predict
from ntk_lib.engine.activations import leaky_relu

NETWORK = {"depth": 3, "gain": 2.0, "beta": 0.3}
BOTH = [NTKRegressor, NTKClassifier]


def data(n=24, m=7, seed=0):
    rng = np.random.default_rng([RNG_SEED, seed])
    x, new = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
    return x, np.sin(2 * x[:, 0]) + x[:, 1], new


def classes(names=("left", "right")):
    x, y, new = data()
    cuts = np.quantile(y, np.linspace(0, 1, len(names) + 1)[1:-1])
    return x, np.array(names)[np.searchsorted(cuts, y)], new


# ---------------------------------------------------------------- scikit-learn's own checks


@parametrize_with_checks([NTKRegressor(), NTKClassifier()])
def test_scikit_learns_own(no_hook, estimator, check):
    check(estimator)


# ---------------------------------------------------------------- the numbers


@pytest.mark.parametrize("by", ["ntk", "nngp"])
@pytest.mark.parametrize("time", [5.0, math.inf])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_it_gives_the_numbers_of_predict_in_float64(by, time, noise):
    x, y, new = data()
    model = NTKRegressor(by=by, time=time, noise=noise, **NETWORK).fit(x, y)
    with prediction_in_float64():
        found = predict(x, y, new, by=by, time=time, noise=noise, **NETWORK)
        mean, covariance, std = map(np.asarray, (*found, found.std))
    np.testing.assert_allclose(model.predict(new), mean, atol=1e-13)
    np.testing.assert_allclose(model.predict(new, return_cov=True)[1], covariance, atol=1e-13)
    np.testing.assert_allclose(model.predict(new, return_std=True)[1], std, atol=1e-10)
    assert model.predict(new).dtype == np.float64


def prediction_in_float64():
    return estimators.enable_x64(True)


def test_it_gives_the_numbers_of_neural_tangents():
    with np.load(Path(__file__).parent / "data" / "neural_tangents.npz") as archive:
        peer = dict(archive)
    network = json.loads(str(peer["predicted"]))
    for case, mean, covariance in zip(
        peer["predictions"], peer["mean"], peer["covariance"], strict=True
    ):
        by, time, reg = (json.loads(str(case))[key] for key in ("by", "time", "reg"))
        time = math.inf if time is None else time
        model = NTKRegressor(by=by, time=time, noise=math.sqrt(reg), **network)
        found = model.fit(peer["train"], peer["labels"]).predict(peer["test"], return_cov=True)
        np.testing.assert_allclose(found[0], mean, atol=1e-10)
        np.testing.assert_allclose(found[1], covariance, atol=1e-10)


class Nngp(Kernel):
    """The NNGP kernel as scikit-learn's Gaussian processes want one."""

    def __init__(self):  # scikit-learn reads its signature
        pass

    def __call__(self, X, Y=None, eval_gradient=False):
        with prediction_in_float64():
            return np.array(nngp(X, Y, **NETWORK))

    def diag(self, X):
        with prediction_in_float64():
            return np.array(nngp(X, **NETWORK, diagonal=True))

    def is_stationary(self):
        return False


@pytest.mark.parametrize("normalize_y", [False, True])
@pytest.mark.parametrize("outputs", [1, 2])
def test_a_last_layer_trained_to_the_end_is_a_gaussian_process(normalize_y, outputs):
    x, y, new = data()
    y = y if outputs == 1 else np.stack([3 * y + 7, y**2], axis=1)
    options = {"normalize_y": normalize_y}
    peer = GaussianProcessRegressor(Nngp(), alpha=0.2**2, optimizer=None, **options).fit(x, y)
    model = NTKRegressor(by="nngp", noise=0.2, **options, **NETWORK).fit(x, y)
    for ask in ({}, {"return_std": True}, {"return_cov": True}):
        ours, theirs = model.predict(new, **ask), peer.predict(new, **ask)
        for a, b in zip(*((t if ask else (t,)) for t in (ours, theirs)), strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, atol=1e-8)
    assert model.sample_y(new, 3).shape == peer.sample_y(new, 3).shape


def test_samples_have_the_mean_and_the_covariance_that_are_said():
    x, y, new = data(m=3)
    model = NTKRegressor(noise=0.2, normalize_y=True, **NETWORK)
    both = model.fit(x, np.stack([3 * y + 7, y**2], axis=1))
    mean, covariance = both.predict(new, return_cov=True)
    drawn, count = both.sample_y(new, 4000, random_state=1), 4000
    assert drawn.shape == (3, 2, count)
    for k in range(2):
        std = np.sqrt(np.diag(covariance[..., k]))
        np.testing.assert_allclose(
            drawn[:, k].mean(axis=1), mean[:, k], atol=5 * std.max() / math.sqrt(count)
        )
        # a product of two has at most √2 of its expectation as its spread
        bound = 5 * math.sqrt(2 / count) * std.max() ** 2
        np.testing.assert_allclose(np.cov(drawn[:, k]), covariance[..., k], atol=bound)


def test_labels_of_two_classes_are_regressed_and_of_more_one_against_the_rest():
    x, y, new = classes()
    model, signs = NTKClassifier(**NETWORK).fit(x, y), np.where(y == "right", 1.0, -1.0)
    scores = NTKRegressor(**NETWORK).fit(x, signs).predict(new)
    np.testing.assert_allclose(model.decision_function(new), scores, atol=1e-12)
    assert model.predict(new).tolist() == np.where(scores > 0, "right", "left").tolist()
    x, y, new = classes(("a", "b", "c"))
    model = NTKClassifier(**NETWORK).fit(x, y)
    for k, name in enumerate("abc"):
        scores = NTKRegressor(**NETWORK).fit(x, np.where(y == name, 1.0, -1.0)).predict(new)
        np.testing.assert_allclose(model.decision_function(new)[:, k], scores, atol=1e-12)


# ---------------------------------------------------------------- in the tools of scikit-learn


def test_in_a_pipeline_in_a_search_over_depth_and_noise():
    x, y, new = data()
    pipe = make_pipeline(StandardScaler(), NTKRegressor(gain=2.0))
    grid = {"ntkregressor__depth": [1, 3], "ntkregressor__noise": [0.01, 10.0]}
    search = GridSearchCV(pipe, grid, cv=3, n_jobs=1).fit(x * 100, y)
    assert search.best_params_["ntkregressor__noise"] == 0.01
    assert search.predict(new).shape == (7,)
    # labels as words, and a search that halves
    x, y, _ = classes()
    halved = HalvingGridSearchCV(NTKClassifier(), {"depth": [2, 4]}, cv=2, min_resources=12)
    assert set(halved.fit(x, y).predict(x)) == {"left", "right"}


@pytest.mark.parametrize("activation", ["erf", leaky_relu(0.2)])
def test_a_clone_and_a_pickle_are_the_same(activation):
    x, y, new = data()
    model = NTKRegressor(activation=activation, noise=0.1, depth=2)
    copied = clone(model)
    assert copied.get_params().keys() == model.get_params().keys()
    assert copied.noise == model.noise
    expected = model.fit(x, y).predict(new, return_std=True)
    for other in (copied.fit(x, y), pickle.loads(pickle.dumps(model))):
        for a, b in zip(other.predict(new, return_std=True), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(NotFittedError):
        clone(model).predict(new)
    assert model.set_params(depth=3, by="nngp").get_params()["depth"] == 3


@pytest.mark.parametrize("kind", BOTH)
def test_a_table_of_named_columns(kind):
    x, y, new = classes() if kind is NTKClassifier else data()
    names = ["height", "width", "mass"]
    table, index = pd.DataFrame(x, columns=names), np.arange(len(x))[::-1]
    model = kind().fit(table, pd.Series(y, index=index))
    assert model.feature_names_in_.tolist() == names
    assert model.n_features_in_ == 3
    asked = pd.DataFrame(new, columns=names)
    assert model.predict(asked).tolist() == kind().fit(x, y).predict(new).tolist()
    with pytest.raises(ValueError, match="in the same order"):
        model.predict(asked[names[::-1]])
    with pytest.raises(ValueError, match="features"):
        kind().fit(x, y).predict(new[:, :2])


def test_in_whatever_else_takes_estimators():
    x, y, _ = data()
    bagged = BaggingRegressor(NTKRegressor(), n_estimators=2, random_state=0).fit(x, y)
    assert bagged.score(x, y) > 0.5  # its samples repeat points
    sizes, _, scores = learning_curve(NTKRegressor(), x, y, cv=3, train_sizes=[8, 16])
    assert scores.shape == (len(sizes), 3)
    x, y = load_iris(return_X_y=True)
    x, y = StandardScaler().fit_transform(x), np.array(["a", "b", "c"])[y]
    assert cross_val_score(NTKClassifier(), x, y, cv=3).mean() > 0.9
    calibrated = CalibratedClassifierCV(NTKClassifier(), cv=3).fit(x, y)
    np.testing.assert_allclose(calibrated.predict_proba(x).sum(axis=1), 1)
    assert calibrated.score(x, y) > 0.9
    pair = [("ntk", NTKClassifier()), ("linear", LogisticRegression())]
    assert VotingClassifier(pair).fit(x, y).score(x, y) > 0.9


def test_arrays_of_other_kinds_and_shapes():
    x, y, new = data()
    expected = NTKRegressor().fit(x, y).predict(new)
    f4 = NTKRegressor().fit(np.asfortranarray(x, "f4"), y.astype("f4")).predict(new.tolist())
    np.testing.assert_allclose(f4, expected, atol=1e-4)
    column = NTKRegressor().fit(x, y[:, None])
    np.testing.assert_allclose(column.predict(new), expected[:, None], atol=1e-12)
    assert column.predict(new, return_std=True)[1].shape == (7, 1)
    assert column.predict(new, return_cov=True)[1].shape == (7, 7, 1)
    of_bools = NTKClassifier().fit(x, y > 0)
    assert of_bools.predict(new).dtype == bool
    ones = NTKRegressor().fit(x, (y > 0).astype(float)).predict(new)
    np.testing.assert_allclose(NTKRegressor().fit(x, y > 0).predict(new), ones)


def test_the_kernels_plug_in_as_they_are(no_hook):
    x, y, new = classes()
    tangent = functools.partial(ntk, **NETWORK)
    called = SVC(kernel=tangent).fit(x, y)
    given = SVC(kernel="precomputed").fit(np.asarray(tangent(x)), y)
    np.testing.assert_allclose(
        called.decision_function(new), given.decision_function(tangent(new, x)), atol=1e-3
    )
    x, y, new = data()
    machine = KernelRidge(kernel="precomputed", alpha=0.1).fit(tangent(x), y)
    ours = NTKRegressor(noise=math.sqrt(0.1), **NETWORK).fit(x, y)
    np.testing.assert_allclose(machine.predict(tangent(new, x)), ours.predict(new), atol=1e-4)
    with pytest.raises(ValueError, match="x needs shape"):  # one pair of points at a time
        KernelRidge(kernel=tangent).fit(x, y)


# ---------------------------------------------------------------- what is bad, small or flat


@pytest.mark.parametrize("by", ["ntk", "nngp"])
def test_one_point_and_constant_targets(by):
    x, _, new = data()
    model = NTKRegressor(by=by, normalize_y=True).fit(x[:1], [3.0])
    np.testing.assert_allclose(model.predict(new), 3)
    np.testing.assert_allclose(NTKRegressor(by=by, noise=0.0).fit(x[:1], [3.0]).predict(x[:1]), 3)
    for constant in (3.0, 0.1, 0.0):
        flat = NTKRegressor(by=by, normalize_y=True).fit(x, np.full(len(x), constant))
        np.testing.assert_allclose(flat.predict(new), constant, rtol=1e-12)
    once = NTKRegressor(by=by, normalize_y=True).fit(x, data()[1]).predict(new)
    for size in (1e-200, 1e200):  # squares that a float does not hold
        model = NTKRegressor(by=by, normalize_y=True).fit(x, size * data()[1])
        np.testing.assert_allclose(model.predict(new) / size, once, rtol=1e-9)
    plain = NTKRegressor(by=by, noise=0.0).fit(x, np.full(len(x), 3.0))
    np.testing.assert_allclose(plain.predict(x), 3, atol=1e-9)


def test_repeated_points_share_their_targets_where_there_is_noise():
    x, new = np.array([[0.0], [1.0], [1.0]]), np.array([[1.0]])
    for y in ([0.0, 2.0, 2.0], [0.0, 1.0, 3.0]):
        model = NTKRegressor(noise=1e-4).fit(x, y)
        np.testing.assert_allclose(model.predict(new), 2, atol=1e-5)
        with pytest.raises(ValueError, match=r"^x needs distinct points where noise is 0"):
            NTKRegressor(noise=0.0).fit(x, y)
    assert NTKClassifier().fit(x, ["a", "b", "b"]).predict(new) == ["b"]
    assert abs(NTKClassifier().fit(x[1:], ["a", "b"]).decision_function(new)) < 1e-12


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"X": [["a"], ["b"]]}, ValueError, "could not convert string to float"),
        ({"X": [[1.0], [math.nan]]}, ValueError, "NaN"),
        ({"X": [[1.0], [math.inf]]}, ValueError, "infinity"),
        ({"X": [1.0, 2.0]}, ValueError, "Expected 2D array"),
        ({"X": [[1e200], [2.0]]}, ValueError, "squared norm"),
        ({"X": pd.DataFrame({"a": ["u", "v"]})}, ValueError, "could not convert string to float"),
        ({"y": [1.0, math.nan]}, ValueError, "NaN"),
        ({"y": None}, ValueError, "requires y"),
        ({"y": [0.0]}, ValueError, "inconsistent numbers of samples"),
        ({"depth": 0}, ValueError, "depth needs to be at least 1"),
        ({"depth": None}, TypeError, "depth needs an integer"),
        ({"noise": -1.0}, ValueError, "noise needs a number that is 0 or more"),
        ({"time": math.nan}, ValueError, "time needs"),
        ({"by": "rbf"}, ValueError, "by needs one of ntk, nngp"),
        ({"activation": "swish"}, ValueError, "activation needs to be one of"),
        ({"gain": "2"}, TypeError, "gain needs a real number"),
    ],
)
def test_bad_input_is_refused(no_hook, kind, change, error, says):
    points = {"X": [[0.5], [1.5]], "y": [0.0, 1.0]}
    given = points | {key: value for key, value in change.items() if key in points}
    settings = {key: value for key, value in change.items() if key not in points}
    with pytest.raises(error, match=says):
        kind(**settings).fit(**given)


def test_targets_of_the_wrong_kind_are_refused(no_hook):
    x, y, new = data()
    with pytest.raises(ValueError, match=r"^y needs at least two classes, got one class: 'a'$"):
        NTKClassifier().fit(x, ["a"] * len(x))
    for mixed, kinds in ((["a", 1] * 12, "int, str"), (["a", None] * 12, "NoneType, str")):
        with pytest.raises(TypeError, match=f"^y needs labels of one kind .* got {kinds}"):
            NTKClassifier().fit(x, np.array(mixed, dtype=object))
    with pytest.raises(ValueError, match="Unknown label type"):
        NTKClassifier().fit(x, y)
    for missing in (pd.array([None, *"ab" * 11, "a"], dtype="string"), [pd.NA, *"ab" * 11, "a"]):
        with pytest.raises(ValueError, match=r"^y needs labels, got 1 missing"):
            NTKClassifier().fit(x, pd.Series(missing))
    with pytest.raises(TypeError, match=r"^normalize_y needs True or False, got 'no'"):
        NTKRegressor(normalize_y="no").fit(x, y)
    with pytest.raises(TypeError, match=r"^y needs a numeric array"):
        NTKRegressor().fit(x, np.where(y > 0, "a", "b"))
    model = NTKRegressor().fit(x, y)
    with pytest.raises(ValueError, match=r"^return_std needs to be False"):
        model.predict(new, return_std=True, return_cov=True)
    with pytest.raises(ValueError, match=r"^n_samples needs"):
        model.sample_y(new, 0)
    with pytest.raises(TypeError, match="sample_weight"):
        model.fit(x, y, sample_weight=np.ones(len(x)))
    assert not hasattr(NTKClassifier(), "predict_proba")


def test_a_fit_that_is_refused_changes_nothing():
    x, y, new = data()
    model = NTKRegressor().fit(x, y)
    before = model.predict(new)
    with pytest.raises(ValueError, match="noise"):
        model.set_params(noise=-1.0, normalize_y=True).fit(x, 100 + y)
    np.testing.assert_array_equal(model.predict(new), before)
    model = NTKClassifier().fit(x, np.where(y > 0, "yes", "no"))
    with pytest.raises(ValueError, match="noise"):
        model.set_params(noise=-1.0).fit(x, np.where(y > 0, "v", "u"))
    assert set(model.predict(x)) == {"yes", "no"}


@pytest.mark.parametrize("kind", BOTH)
def test_a_million_points_are_refused_before_the_memory_is_full(kind):
    x = np.arange(1_000_000.0)[:, None]
    with pytest.raises(MemoryError, match=r"^x needs fewer points, got 1000000: .* GB"):
        kind().fit(x, x[:, 0] > 5)


def test_without_scikit_learn_all_else_is_there_and_the_estimators_say_what_to_install():
    lines = "import sys; sys.modules['sklearn'] = None\nfrom ntk_lib import *\nprint(callable(ntk))"
    lines += "\ntry:\n    NTKRegressor()\nexcept ModuleNotFoundError as error:\n    print(error)"
    command = [sys.executable, "-W", "error", "-c", lines]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True\nNTKRegressor needs scikit-learn: pip install scikit-learn")

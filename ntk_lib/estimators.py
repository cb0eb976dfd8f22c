"""Infinitely wide networks as estimators of scikit-learn.

Stands on ``prediction``, whose numbers they give: ``NTKRegressor`` and ``NTKClassifier`` are
trained once by ``trained`` and asked as often as wanted, in ``Pipeline``, ``GridSearchCV`` and
whatever else takes estimators. They compute in float64 whatever JAX is set to.

The kernels also plug into scikit-learn as they are. ``SVC`` and ``SVR`` take a function of two sets
of points, and what takes ``kernel="precomputed"`` takes a matrix::

    SVC(kernel=functools.partial(ntk, depth=3))
    machine = KernelRidge(kernel="precomputed", alpha=0.1).fit(ntk(x, depth=3), y)
    machine.predict(ntk(new, x, depth=3))

Numbers are then float32 unless ``jax.config.update("jax_enable_x64", True)`` came first. A function
given to ``KernelRidge``, ``KernelPCA`` or ``Nystroem`` is called for one pair of points at a time,
which limit kernels refuse: these take the matrix.
"""

import math

import jax.numpy as jnp
import numpy as np

from ntk_lib.engine.activations import Activation
from ntk_lib.engine.arguments import as_array, as_whole
from ntk_lib.engine.extras import needed
from ntk_lib.engine.interpolation import enable_x64
from ntk_lib.prediction import Trained, trained

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
except ModuleNotFoundError:  # said when one is made: ``from ntk_lib import *`` works without
    _BASES = "BaseEstimator", "ClassifierMixin", "MultiOutputMixin", "RegressorMixin"
    BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin = (
        type(name, (), {}) for name in _BASES
    )

__all__ = ["NTKClassifier", "NTKRegressor"]


class _Network:
    """What both estimators are: settings of a network, and the network trained by them."""

    def __new__(cls, *args: object, **keywords: object) -> "_Network":
        needed("sklearn", by=cls.__name__, extra="estimators")
        return super().__new__(cls)

    def _train(self, x: np.ndarray, y: np.ndarray) -> None:
        network = {"depth": self.depth, "activation": self.activation}
        network |= {"gain": self.gain, "beta": self.beta}
        if self.depth is None:
            raise TypeError("depth needs an integer, the number of weight layers, got None")
        with enable_x64(True):
            run = {"noise": self.noise, "time": self.time, "by": self.by}
            self.trained_: Trained = trained(x, y, **network, **run)

    def _asked(self, X: object, how: str) -> object:
        """What the trained networks say at X, by the name of a method of theirs."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        with enable_x64(True):
            found = getattr(self.trained_, how)(jnp.asarray(X))
        if how == "mean":
            return np.array(found)
        return tuple(map(np.array, found))


class NTKRegressor(_Network, MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Regression by infinitely wide networks trained by gradient descent, for scikit-learn.

    ``depth``, ``activation``, ``gain`` and ``beta`` are those of ``ntk``; ``noise``, ``time`` and
    ``by`` those of ``predict``, which gives the same numbers. ``by="nngp"`` with an infinite
    ``time`` is a ``GaussianProcessRegressor`` with the kernel ``nngp`` and ``alpha=noise**2``. The
    default ``noise`` is not 0, since tables repeat rows: it counts in the units of the targets in
    the covariance, and the mean is that of a ridge of noise². With ``normalize_y`` targets have
    their mean taken off and are divided by their standard deviation before, ``noise`` is in units
    of that, and what is predicted is scaled back; without, networks start around 0, as
    ``predict`` has it. Inputs are best standardised, and sums are in float64.

    After ``fit``: ``trained_``, a ``Trained``, ``n_features_in_`` and, of a table,
    ``feature_names_in_``. It holds four n² numbers or fewer. There are no weights of samples.
    """

    def __init__(
        self,
        depth: int = 3,
        *,
        activation: str | Activation = "relu",
        gain: float = 1.0,
        beta: float = 0.1,
        noise: float = 0.1,
        time: float = math.inf,
        by: str = "ntk",
        normalize_y: bool = False,
    ) -> None:
        self.depth = depth
        self.activation = activation
        self.gain = gain
        self.beta = beta
        self.noise = noise
        self.time = time
        self.by = by
        self.normalize_y = normalize_y

    def fit(self, X: object, y: object) -> "NTKRegressor":
        """Train on X, (n, d), and targets y, (n,) or (n, k).

        Raises ``ValueError`` or ``TypeError`` for what scikit-learn's checks and ``trained``
        refuse, ``MemoryError`` for points whose matrices are larger than the memory.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        if not isinstance(self.normalize_y, bool | np.bool_):
            raise TypeError(f"normalize_y needs True or False, got {self.normalize_y!r}")
        with enable_x64(True):
            y = np.asarray(as_array("y", y.astype(float) if y.dtype == bool else y), float)
        middle, scale = np.zeros(y.shape[1:]), np.ones(y.shape[1:])
        if self.normalize_y:
            middle = y.mean(axis=0)
            away = np.abs(y - middle)
            top = np.max(away, axis=0)
            # targets that are constant to rounding have no scale
            flat = top <= 10 * np.finfo(float).eps * np.abs(middle)
            top = np.where(flat, 1.0, top)
            scale = np.where(flat, 1.0, top * np.sqrt(np.mean((away / top) ** 2, axis=0)))
        self._train(X, (y - middle) / scale)
        self._middle, self._scale = middle, scale  # last: a fit that is refused changes nothing
        return self

    def predict(
        self, X: object, return_std: bool = False, return_cov: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """The mean at X, (m, d), of shape (m,) or (m, k), and what is asked for beside it.

        The standard deviation has the shape of the mean; the covariance has (m, m) or (m, m, k).
        Both are of the function, not of a new noisy target, as in ``GaussianProcessRegressor``.

        Raises ``ValueError`` where both are asked for, and for X of other features.
        """
        if return_std and return_cov:
            raise ValueError("return_std needs to be False where return_cov is True, got both")
        if not (return_std or return_cov):
            return self._asked(X, "mean") * self._scale + self._middle
        mean, spread = self._asked(X, "predict" if return_cov else "mean_and_std")
        mean, scale = (
            mean * self._scale + self._middle,
            self._scale**2 if return_cov else self._scale,
        )
        return mean, spread[..., None] * scale if mean.ndim > 1 else spread * scale

    def sample_y(
        self,
        X: object,
        n_samples: int = 1,
        random_state: "int | np.random.RandomState | None" = 0,
    ) -> np.ndarray:
        """What ``n_samples`` trained networks say at X: (m, n_samples) or (m, k, n_samples).

        Raises what ``predict`` raises, and for a number of samples that is none.
        """
        count, rng = as_whole("n_samples", n_samples, least=1), check_random_state(random_state)
        mean, covariance = self._asked(X, "predict")
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        drawn = np.tensordot(root, rng.normal(size=(*mean.shape, count)), axes=(1, 0))
        scale, middle = (np.asarray(t)[..., None] for t in (self._scale, self._middle))
        return (mean[..., None] + drawn) * scale + middle


class NTKClassifier(_Network, ClassifierMixin, BaseEstimator):
    """Classification by infinitely wide networks trained on ±1 labels, for scikit-learn.

    Regression as by ``NTKRegressor``, with its settings, of one label a class: 1 in the class, -1
    outside; two classes share one. A prediction is the class of the largest score, as in
    ``RidgeClassifier``. For labels another encoding that is affine in this one, one-hot and centred
    say, gives the same predictions.

    There is no ``predict_proba``: the squared cost of labels makes no probabilities, and a score
    outside [-1, 1] is none. ``CalibratedClassifierCV(NTKClassifier())`` learns them from held-out
    points. With two classes and no noise the scores at the training points are the labels.

    After ``fit``: ``classes_``, ``trained_``, ``n_features_in_`` and, of a table,
    ``feature_names_in_``. It holds four n² numbers or fewer. There are no weights of samples.
    """

    def __init__(
        self,
        depth: int = 3,
        *,
        activation: str | Activation = "relu",
        gain: float = 1.0,
        beta: float = 0.1,
        noise: float = 0.1,
        time: float = math.inf,
        by: str = "ntk",
    ) -> None:
        self.depth = depth
        self.activation = activation
        self.gain = gain
        self.beta = beta
        self.noise = noise
        self.time = time
        self.by = by

    def fit(self, X: object, y: object) -> "NTKClassifier":
        """Train on X, (n, d), and labels y, (n,), of two classes or more, numbers or words.

        Raises ``ValueError`` for one class or labels that are missing, ``TypeError`` for labels of
        two kinds, what scikit-learn's checks and ``trained`` raise, and ``MemoryError`` for points
        whose matrices are larger than the memory.
        """
        if getattr(y, "ndim", None) == 1 and (missing := getattr(y, "isna", None)) is not None:
            missing = int(np.sum(np.asarray(missing())))
            if missing:  # scikit-learn says that the truth of NA is ambiguous, or nothing
                raise ValueError(f"y needs labels, got {missing} missing: y.notna() says which")
        X, y = validate_data(self, X, y, dtype=np.float64)
        labels = column_or_1d(y, warn=True)
        try:
            check_classification_targets(labels)
            classes, which = np.unique(labels, return_inverse=True)
        except TypeError as error:  # they have no order
            kinds = ", ".join(sorted({type(label).__name__ for label in labels}))
            raise TypeError(f"y needs labels of one kind and none missing, got {kinds}") from error
        k = len(classes)
        if k < 2:
            raise ValueError(
                f"y needs at least two classes, got one class: {classes.tolist()[0]!r}"
            )
        signs = np.where(which[:, None] == np.arange(k), 1.0, -1.0)
        self._train(X, signs[:, 1] if k == 2 else signs)
        self.classes_ = classes  # last: a fit that is refused changes nothing
        return self

    def decision_function(self, X: object) -> np.ndarray:
        """The scores at X, (m, d): the mean of the networks, (m,) for two classes or (m, k).

        Raises ``ValueError`` for X of other features.
        """
        return self._asked(X, "mean")

    def predict(self, X: object) -> np.ndarray:
        """The class of the largest score at each of m points, (m,).

        Raises ``ValueError`` for X of other features.
        """
        scores = self.decision_function(X)
        which = scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0).astype(int)
        return self.classes_[which]

"""Bad input, function by function: what is tried and what is said.

A row is (changed arguments, error, how the message begins): the function is called with the good
arguments of its entry, these changed. The message begins with the name of an argument.
"""

import functools
import importlib
import inspect
import math
import pkgutil
import re

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from cases import INFINITE, KEY, NAN, PARAMS, X

import ntk_lib
from ntk_lib import (
    architectures,
    double_descent,
    early_stopping,
    gradient_flow,
    jacot_2018,
    kernels,
    lazy,
    limiting_ntk,
    permutations,
    prediction,
    scale,
    small_data,
    wide_networks,
)
from ntk_lib.engine import activations, any_size, arguments, data, tangent_kernels
from ntk_lib.page import check, explore
from ntk_lib.wide_networks import Layer, init

# the name ntk_lib.regression is that of the function scale.regression
regression = importlib.import_module("ntk_lib.regression")
SPECTRUM = regression.Spectrum(np.ones(2), np.ones(2), np.ones(2))

EYE, ONES = np.eye(3, dtype="f4"), np.ones(3, "f4")
SKEW = np.array([[1, 0.5], [0, 1]], "f4")
# symmetric with a negative eigenvalue, and with a zero one
BOX = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], "f4")
SINGULAR = np.array([[1, 1, 1.0], [1, 2, 1.5], [1, 1.5, 1.25]], "f4")
REPEATED = np.asarray(kernels.rbf(X[[0, 1, 1]]))
ZERO_POINT = X * np.array([[1], [0], [1]], "f4")
MASKED = np.ma.masked_array(X, mask=X > 5)
OBJECTS = np.array([[object()]])
KEYS = jax.random.split(KEY, 3)
BIG = 10**400  # an integer that no float holds
HUGE = 1e300  # a number that float64 holds, and float32 does not
MANY = 2**70  # more than JAX counts to
THREE_AXES = jax.make_mesh((1, 1, 1), ("a", "b", "c"))


# ---------------------------------------------------------------- rows that functions share


def array(name):
    """What no array argument of real numbers takes."""
    return [
        ({name: NAN}, ValueError, f"{name} needs finite numbers, got 1"),
        ({name: INFINITE}, ValueError, f"{name} needs finite numbers, got 1"),
        ({name: X.astype(float) * HUGE}, ValueError, f"{name} needs finite numbers, got"),
        ({name: X * 1j}, TypeError, f"{name} needs real numbers, got dtype complex"),
        ({name: X > 2}, TypeError, f"{name} needs real numbers, got dtype bool"),
        ({name: "two points"}, TypeError, f"{name} needs a numeric array, got str"),
        ({name: None}, TypeError, f"{name} needs a numeric array, got NoneType"),
        ({name: {"a": 1}}, TypeError, f"{name} needs a numeric array, got dict"),
        ({name: OBJECTS}, TypeError, f"{name} needs a numeric array, got ndarray"),
        ({name: [[1.0], [2.0, 3.0]]}, TypeError, f"{name} needs a numeric array, got list"),
        ({name: [[10**30]]}, TypeError, f"{name} needs a numeric array, got list"),
        ({name: KEY}, TypeError, f"{name} needs a numeric array"),
        ({name: X.astype("m8[s]")}, TypeError, f"{name} needs a numeric array, got ndarray"),
        ({name: MASKED}, ValueError, f"{name} needs a number in every place, got 1 masked"),
    ]


def points(name):
    return [
        *array(name),
        ({name: 1.0}, ValueError, rf"{name} needs shape \(points, features\), got \(\)"),
        ({name: X[0]}, ValueError, rf"{name} needs shape \(points, features\), got \(2,\)"),
        ({name: X[None]}, ValueError, rf"{name} needs shape .* got \(1, 3, 2\)"),
        ({name: X[:0]}, ValueError, rf"{name} needs at least one point .* got \(0, 2\)"),
        ({name: X[:, :0]}, ValueError, rf"{name} needs .* one feature, got \(3, 0\)"),
        ({name: X * 1e25}, ValueError, f"{name} needs points whose squared norm fits into float32"),
    ]


PAIRS = [
    *points("x"),
    *[row for row in points("y") if row[0]["y"] is not None],
    ({"y": X[:, :1]}, ValueError, "y needs the 2 features of x, got 1"),
]


def number(name):
    """What no argument that is one finite number takes."""
    return [
        ({name: "two"}, TypeError, f"{name} needs a real number, got 'two'"),
        ({name: 1j}, TypeError, f"{name} needs a real number, got 1j"),
        ({name: True}, TypeError, f"{name} needs a real number, got True"),
        ({name: np.array(True)}, TypeError, f"{name} needs a real number, got"),
        ({name: np.ones(2)}, TypeError, f"{name} needs a real number, got"),
        ({name: [1.0]}, TypeError, f"{name} needs a real number, got"),
        ({name: math.nan}, ValueError, f"{name} needs a finite number, got nan"),
        ({name: -math.inf}, ValueError, f"{name} needs a finite number, got -inf"),
        ({name: BIG}, ValueError, f"{name} needs a finite number, got an integer"),
    ]


def nonnegative(name):
    return [
        *number(name),
        ({name: None}, TypeError, f"{name} needs a real number, got None"),
        ({name: math.inf}, ValueError, f"{name} needs a finite number, got inf"),
        ({name: -0.1}, ValueError, f"{name} needs a number that is 0 or more, got -0.1"),
    ]


def positive(name):
    return [
        *[row for row in nonnegative(name) if "0 or more" not in row[2]],
        ({name: 0.0}, ValueError, f"{name} needs a positive number, got 0"),
        ({name: -1.0}, ValueError, f"{name} needs a positive number, got -1"),
    ]


def fits(*names):
    return [({n: HUGE}, ValueError, f"{n} needs a number that fits into float32") for n in names]


def whole(name, least):
    floor = "0 or more" if least == 0 else f"at least {least}"
    return [
        ({name: least - 1}, ValueError, f"{name} needs to be {floor}.*, got {least - 1}"),
        ({name: -5}, ValueError, f"{name} needs to be {floor}.*, got -5"),
        ({name: MANY}, ValueError, f"{name} needs to be at most"),
        ({name: 2.0}, TypeError, f"{name} needs an integer.*, got 2.0"),
        ({name: math.nan}, TypeError, f"{name} needs an integer.*, got nan"),
        ({name: True}, TypeError, f"{name} needs an integer.*, got True"),
        ({name: "3"}, TypeError, f"{name} needs an integer.*, got '3'"),
        ({name: None}, TypeError, f"{name} needs an integer.*, got None"),
        ({name: [1]}, TypeError, f"{name} needs an integer"),
        ({name: np.timedelta64(3, "s")}, TypeError, f"{name} needs an integer"),
    ]


def word(name, choices):
    return [
        ({name: "all"}, ValueError, f"{name} needs one of {choices}, got 'all'"),
        *[({name: v}, TypeError, f"{name} needs one of .*, got") for v in (None, 1, ["a"], X)],
    ]


def random_key(name="key"):
    return [
        ({name: 0}, TypeError, f"{name} needs a random key, .* got int"),
        ({name: None}, TypeError, f"{name} needs a random key, .* got NoneType"),
        ({name: "seed"}, TypeError, f"{name} needs a random key, .* got str"),
        ({name: np.ones(2, "f4")}, TypeError, f"{name} needs a random key, .* got float32"),
        ({name: np.ones(3, "u4")}, TypeError, f"{name} needs a random key, .* got uint32"),
        ({name: KEYS}, ValueError, rf"{name} needs one random key, got several, of shape \(3,\)"),
        ({name: np.ones((2, 2), "u4")}, ValueError, f"{name} needs one random key, got several"),
    ]


def callable_of(name, of):
    return [
        ({name: value}, TypeError, f"{name} needs a {of}.*, got {type(value).__name__}")
        for value in (5, None, "tanh", X)
    ]


def counts(name, least):
    return [
        *[
            ({name: value}, TypeError, f"{name} needs a sequence of integers, got")
            for value in (5, None, "ab", b"ab", {2: 1}, 1.0, KEY)
        ],
        ({name: [2, "3"]}, TypeError, f"{name} needs integers: number 1 needs an integer"),
        ({name: [2.5, 3]}, TypeError, f"{name} needs integers: number 0 needs .* got 2.5"),
        ({name: [2, True]}, TypeError, f"{name} needs integers: number 1 needs .* got True"),
        ({name: [2, least - 1]}, ValueError, f"{name} needs integers: number 1 needs to be"),
        ({name: [[1.0], [2.0, 3.0]]}, TypeError, f"{name} needs integers: number 0 needs"),
        ({name: np.ones((2, 2), int)}, TypeError, f"{name} needs integers: number 0 needs"),
        ({name: [2, MANY]}, ValueError, f"{name} needs integers: number 1 needs to be at most"),
    ]


DTYPE = [
    ({"dtype": t}, TypeError, "dtype needs a floating dtype, got") for t in ("w", 5, int, complex)
]
ACTIVATION = [
    (
        {"activation": "swish"},
        ValueError,
        "activation needs to be one of relu, leaky_relu, erf, .*quadrature.*; got 'swish'",
    ),
    ({"activation": jnp.tanh}, TypeError, "activation needs .*quadrature"),
    ({"activation": None}, TypeError, "activation needs .* got NoneType"),
    ({"activation": ["relu"]}, TypeError, "activation needs .* got list"),
]
STEPS = [
    *counts("steps", 0),
    ({"steps": []}, ValueError, "steps needs step counts in increasing order"),
    ({"steps": [3, 1]}, ValueError, "steps needs step counts in increasing order"),
]
GAIN, BETA, DEPTH = positive("gain"), nonnegative("beta"), whole("depth", 1)
NETWORK = [*ACTIVATION, *GAIN, *BETA, *fits("gain", "beta")]
MESH = [
    ({"mesh": "eight"}, TypeError, "mesh needs a jax.sharding.Mesh, got str"),
    ({"mesh": 8}, TypeError, "mesh needs a jax.sharding.Mesh, got int"),
    ({"diagonal": True, "y": X}, ValueError, "diagonal needs one set of points"),
    ({"mesh": THREE_AXES}, ValueError, r"mesh needs one or two axes, got \('a', 'b', 'c'\)"),
]
PROBABILITY = [
    *number("miss"),
    ({"miss": 0.0}, ValueError, "miss needs a probability above 0 and below 1, got 0"),
    ({"miss": 1.0}, ValueError, "miss needs a probability above 0 and below 1, got 1"),
]
DRAWS = [*random_key(), *whole("draws", 1)]


def layer(rows, columns, biases=None, dtype="f4"):
    return Layer(jnp.ones((rows, columns), dtype), jnp.ones(biases or rows, dtype))


LAYERS = [
    ({"params": []}, ValueError, "params needs at least one layer, got none"),
    ({"params": 5}, TypeError, "params needs a list of layers, got int"),
    ({"params": None}, TypeError, "params needs a list of layers, got NoneType"),
    ({"params": {"W": X}}, TypeError, "params needs a list of layers, got dict"),
    ({"params": PARAMS[0]}, TypeError, "params needs layers with W and b, got"),
    ({"params": [(1, 2)]}, TypeError, "params needs layers with W and b, got tuple"),
    ({"params": [Layer(None, None)]}, TypeError, "params needs float arrays, got NoneType"),
    ({"params": [Layer([[1.0, 2.0]], [1.0])]}, TypeError, "params needs float arrays, got list"),
    ({"params": [layer(1, 2, dtype="i4")]}, TypeError, "params needs float arrays, got dtype int"),
    ({"params": [layer(1, 2, dtype="c8")]}, TypeError, "params needs float arrays, got dtype comp"),
    (
        {"params": [layer(3, 2, 2)]},
        ValueError,
        r"params needs W of shape .* got \(3, 2\) and \(2,\) in layer 0",
    ),
    ({"params": [Layer(jnp.ones(2), jnp.ones(2))]}, ValueError, "params needs W of shape"),
    ({"params": [Layer(jnp.ones((0, 2)), jnp.ones(0))]}, ValueError, "params needs W of shape"),
    (
        {"params": [layer(3, 2), layer(1, 4)]},
        ValueError,
        "params needs layers that fit, got 4 inputs in layer 1 after 3 outputs",
    ),
]
DIMENSION = [
    ({"x": np.ones((3, 5), "f4")}, ValueError, r"x needs a last axis of 2, .* got \(3, 5\)")
]


class Tensor:
    """As torch has it: JAX takes its dtype for none of its own."""

    __module__, dtype = "torch", object()


def pytree(name="params"):
    return [
        ({name: []}, ValueError, f"{name} needs at least one array, got an empty pytree"),
        ({name: None}, ValueError, f"{name} needs at least one array, got an empty pytree"),
        ({name: [1]}, TypeError, f"{name} needs float arrays, got int"),
        ({name: [1j]}, TypeError, f"{name} needs float arrays, got complex"),
        ({name: ["word"]}, TypeError, f"{name} needs float arrays, got str"),
        ({name: [None, object()]}, TypeError, f"{name} needs float arrays, got object"),
        ({name: jnp.ones(2, int)}, TypeError, f"{name} needs float arrays, got int"),
        ({name: [np.ones(2, bool)]}, TypeError, f"{name} needs float arrays, got bool"),
        ({name: np.array(["a"])}, TypeError, f"{name} needs float arrays, got <U1"),
        # a leaf by its path, and the way out
        (
            {name: {"w": jnp.ones(2), "step": jnp.array(3)}},
            TypeError,
            rf"{name} needs float arrays, got int\d\d at \['step'\]: leave out .* nnx.split",
        ),
        (
            {name: {"w": ONES, "rngs": [jnp.uint32(0)]}},
            TypeError,
            rf"{name} needs float arrays, got uint32 at \['rngs'\]\[0\]: leave out",
        ),
        (
            {name: [ONES, jax.random.key(0)]},
            TypeError,
            rf"{name} needs float arrays, got a random key at \[1\]: leave out",
        ),
        (
            {name: {"w": ONES, "activation": jax.nn.relu}},
            TypeError,
            rf"{name} needs float arrays, got custom_jvp at \['activation'\]: equinox: ",
        ),
        (
            {name: [Tensor()]},
            TypeError,
            rf"{name} needs float arrays of .*, got torch's Tensor at \[0\]: w\.detach\(\)\.numpy",
        ),
    ]


def symmetric(name):
    return [
        *array(name),
        ({name: ONES}, ValueError, rf"{name} needs shape \(n, n\), got \(3,\)"),
        ({name: X}, ValueError, rf"{name} needs shape \(n, n\), got \(3, 2\)"),
        ({name: EYE[:0, :0]}, ValueError, rf"{name} needs shape \(n, n\), got \(0, 0\)"),
        ({name: SKEW}, ValueError, f"{name} needs a symmetric matrix"),
        (
            {name: np.ones((3, 3, 2, 2), "f4")},
            ValueError,
            rf"{name} needs .* got \(3, 3, 2, 2\): .*as_matrix\({name}\) and targets.reshape",
        ),
    ]


INDEFINITE = [
    ({"gram": BOX}, ValueError, "gram needs a positive semi-definite matrix, .* -0.414"),
]


def shaped(name, shape, *others):
    """Arrays, and those of another shape."""
    rows = [({name: np.ones(s, "f4")}, ValueError, f"{name} needs .*{shape}") for s in others]
    return [*array(name), *rows]


SIGMA = [
    *shaped("sigma", r"shape \(3, 3\)", (3,), (2, 3), (2, 2)),
    ({"sigma": BOX}, ValueError, "sigma needs a positive semi-definite matrix, .* -0.414"),
    ({"sigma": np.triu(np.ones((3, 3)))}, ValueError, "sigma needs a symmetric matrix"),
    ({"sigma": np.ones((3, 3, 1, 1))}, ValueError, "sigma needs .*as_matrix.sigma. and targets"),
]


def one_number(name):
    """A function of arrays that should give one real float."""
    return [
        ({name: lambda p: jnp.ones(2)}, ValueError, rf"{name} needs .* got shape \(2,\)"),
        ({name: lambda p: (1.0, p)}, ValueError, f"{name} needs .* (got tuple|shape None)"),
        ({name: lambda p: None}, ValueError, f"{name} needs .* (got NoneType|shape None)"),
        ({name: lambda p: "far"}, TypeError, f"{name} needs to give arrays, got str"),
        ({name: lambda p: 1}, (TypeError, ValueError), f"{name} needs .*real.* got .*int32"),
        ({name: lambda p: 1j}, (TypeError, ValueError), f"{name} needs .*real.* got .*complex"),
    ]


def total(p):
    return jnp.sum(p)


DESCENT = [
    *callable_of("cost", "function"),
    *one_number("cost"),
    *pytree(),
    *positive("rate"),
    *fits("rate"),
    *whole("steps", 0),
]
KERNEL = [
    *callable_of("kernel", "function"),
    (
        {"kernel": lambda x, y=None: x},
        ValueError,
        r"kernel needs to give shape \(3, 3\) .* got \(3, 2\)",
    ),
    ({"kernel": lambda x, y=None: None}, ValueError, "kernel needs to give .* NoneType"),
]
SOLVER = [
    *[row for row in positive("tolerance") if row[0]["tolerance"] is not None],
    *whole("max_steps", 1),
]
LANDMARKS = [
    *whole("landmarks", 0),
    ({"landmarks": 7, "key": KEY}, ValueError, "landmarks needs at most the 3 points of x, got 7"),
    *[(row[0] | {"landmarks": 2}, *row[1:]) for row in random_key()],
    *whole("memory", 0),
]
nngp2 = functools.partial(wide_networks.nngp, depth=2)
MODEL = [
    *callable_of("f", "function"),
    *pytree(),
    ({"f": lambda p, x: x[:, 0].sum()}, ValueError, r"f needs to map x .* got \(\)"),
    ({"f": lambda p, x: x[:2, 0]}, ValueError, r"f needs .* got \(2,\)"),
    ({"f": lambda p, x: x[:, :, None]}, ValueError, r"f needs .* got \(3, 2, 1\): .*reshape\(n"),
    ({"f": lambda p, x: x[:, :0] * p[0][0]}, ValueError, r"f needs .* got \(3, 0\)"),
    ({"f": lambda p, x: (x, x)}, ValueError, r"f needs .* got a tuple of 2: return only the logi"),
    (
        {"f": lambda p, x: {"logits": x @ p[0]}},
        ValueError,
        "f needs .* got a dict of 'logits': return only the logits",
    ),
    ({"f": lambda p, x: None}, ValueError, "f needs .* got NoneType"),
    (
        {"f": lambda p, x: x["a"] @ p[0], "x": {"a": X}, "y": {"a": X, "mask": X}},
        ValueError,
        r"y needs the structure of x, got \['mask'\] in y alone",
    ),
    (
        {"f": lambda p, x: x["a"] @ p[0], "x": {"a": X}, "y": X},
        ValueError,
        r"y needs the structure of x, got \['a'\] in x alone",
    ),
    ({"f": lambda p, x: "out"}, TypeError, "f needs to give arrays, got str"),
    ({"f": lambda p, x: jnp.sign(x @ p[0]).astype(int)}, TypeError, "f needs .* floats, got int"),
    ({"f": lambda p, x: (x @ p[0]).astype(complex)}, TypeError, "f needs .* floats, got complex"),
    (
        {"f": lambda p, x: jnp.ones((3, len(x))) * p[0][0], "y": np.ones((2, 2), "f4")},
        ValueError,
        r"f needs to map y of shape \(2, 2\)",
    ),
    (
        {"f": lambda p, x: x * p[0][0], "y": np.ones((2, 3), "f4")},
        ValueError,
        r"f needs as many outputs for y as for x, got \(2, 3\) and \(3, 2\)",
    ),
]


def batch(name):
    return [
        ({name: NAN}, ValueError, f"{name} needs finite numbers, got 1"),
        ({name: X.astype(float) * HUGE}, ValueError, f"{name} needs finite numbers, got"),
        ({name: "words"}, TypeError, f"{name} needs a numeric array, got str"),
        ({name: OBJECTS}, TypeError, f"{name} needs a numeric array, got ndarray"),
        ({name: [[1.0], [2.0, 3.0]]}, TypeError, f"{name} needs a numeric array, got list"),
        ({name: [[10**30]]}, TypeError, f"{name} needs a numeric array, got list"),
        ({name: X[:0]}, ValueError, rf"{name} needs at least one input, .* \(0, 2\)"),
        ({name: 1.0}, ValueError, rf"{name} needs at least one input, .* \(\)"),
        # several arrays, of which one is at fault
        ({name: {}}, ValueError, f"{name} needs at least one array, got an empty dict"),
        (
            {name: {"ids": X, "mask": X[:2]}},
            ValueError,
            rf"{name} needs one leading axis, .* got 2 at \['mask'\] and 3 at \['ids'\]: give",
        ),
        ({name: (X, 1.0)}, ValueError, rf"{name} needs at least one input, .* \(\) at \[1\]"),
        ({name: {"a": "words"}}, TypeError, rf"{name} needs a numeric .*, got str at \['a'\]"),
        ({name: {"a": X, "b": NAN}}, ValueError, f"{name} needs finite numbers, got 1"),
    ]


def positive_line(name):
    """What slope refuses in each of its arguments."""
    return [
        ({name: [0.0, 1.0, 2.0]}, ValueError, f"{name} needs positive, finite values"),
        ({name: [-1.0, 1.0, 2.0]}, ValueError, f"{name} needs positive, finite values"),
        ({name: [np.nan, 1.0, 2.0]}, ValueError, f"{name} needs positive, finite values"),
        ({name: [np.inf, 1.0, 2.0]}, ValueError, f"{name} needs positive, finite values"),
        ({name: ["a", "b", "c"]}, TypeError, f"{name} needs a numeric array"),
        ({name: [1j, 1.0, 2.0]}, TypeError, f"{name} needs real numbers"),
        ({name: [True, True, False]}, TypeError, f"{name} needs real numbers, got dtype bool"),
        ({name: [[1.0], [2.0, 3.0]]}, TypeError, f"{name} needs a numeric array"),
        ({name: [[1.0, 2.0, 3.0]]}, ValueError, rf"{name} needs shape \(n,\)"),
        ({name: KEY}, TypeError, f"{name} needs a numeric array"),
    ]


def variances(name="q"):
    return [
        *array(name),
        ({name: 0.0}, ValueError, f"{name} needs positive variances"),
        ({name: -1.0}, ValueError, f"{name} needs positive variances"),
        ({name: True}, TypeError, f"{name} needs real numbers, got dtype bool"),
    ]


# ---------------------------------------------------------------- figures


def flat(height=1):
    """One line."""
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, 1], [0, height])
    return fig


def takes_two(width, height):
    """Needs both."""
    return flat()


def nothing_said(step=1):
    return plt.figure()


def explored(function, **options):
    return explore.explore(**options)(function)


def gives(result):
    def failing(step=1):
        return result() if callable(result) else result

    return {"function": failing, "step": [1]}


# ---------------------------------------------------------------- the table

X2 = {"x": X, "y": X}


def in_half(p, x):
    return x.astype(p[0].dtype) @ p[0]


MODEL_GOOD = {"f": lambda p, x: x @ p[0], "params": [jnp.ones(2)], "x": X}
TIMES = shaped("times", r"shape \(t,\)", (), (1, 2))

FEW = {"key": KEY, "draws": 1, "width": 2, "depth": 2, "steps": [0]}
RUNS = [
    *DRAWS,
    *whole("width", 1),
    *DEPTH,
    *STEPS,
    *positive("rate"),
    *fits("rate", "beta"),
    *ACTIVATION,
    *BETA,
]
TRAINING = [
    *points("x"),
    *DIMENSION,
    *LAYERS,
    ({"params": init((2, 3, 2), key=KEY)}, ValueError, "params needs one output to train"),
    *shaped("targets", r"shape \(3,\), one a point", (2,), (3, 1), ()),
    *positive("rate"),
    *fits("rate"),
    *NETWORK,
]

CLOUDS = np.arange(32.0).reshape(16, 2) % 7
SCORES = np.array([[0.5, 0.75], [0.25, 1.0], [0.5, 0.25]])
SCORE_ROWS = [
    *array("accuracies"),
    ({"accuracies": SCORES[0]}, ValueError, r"accuracies needs shape \(sets, methods\).* \(2,\)"),
    ({"accuracies": SCORES[:1]}, ValueError, r"accuracies needs shape .* \(1, 2\)"),
    ({"accuracies": SCORES[:, :1]}, ValueError, r"accuracies needs shape .* \(3, 1\)"),
    ({"accuracies": SCORES * 100}, ValueError, "accuracies needs numbers from 0 to 1"),
    ({"accuracies": -SCORES}, ValueError, "accuracies needs numbers from 0 to 1"),
]
IMAGES = np.ones((2, 4, 3, 1), "f4")
NET = architectures.serial(architectures.conv(3), architectures.flatten(), architectures.dense())
STDS = [row for name in ("W_std", "b_std") for row in nonnegative(name)]


def window(name):
    return [
        ({name: 0}, ValueError, f"{name} needs integers: number 0 needs to be at least 1"),
        ({name: 2.0}, TypeError, f"{name} needs a sequence of integers, got 2.0"),
        ({name: True}, TypeError, f"{name} needs a sequence of integers, got True"),
        ({name: "33"}, TypeError, f"{name} needs a sequence of integers, got '33'"),
        ({name: (3, 1.5)}, TypeError, f"{name} needs integers: number 1 needs an integer"),
        ({name: (3, 0)}, ValueError, f"{name} needs integers: number 1 needs to be at least 1"),
    ]


def images(name):
    return [
        *array(name),
        ({name: 1.0}, ValueError, rf"{name} needs shape \(n, h, w, channels\), .* got \(\)"),
        ({name: X[0]}, ValueError, rf"{name} needs shape .* got \(2,\)"),
        ({name: IMAGES[None]}, ValueError, rf"{name} needs shape .* got \(1, 2, 4, 3, 1\)"),
        ({name: IMAGES[:0]}, ValueError, rf"{name} needs at least one image .* \(0, 4, 3, 1\)"),
        ({name: IMAGES[..., :0]}, ValueError, rf"{name} needs .* one channel, got \(2, 4, 3, 0\)"),
    ]


PAIRS_OF_IMAGES = [
    *images("x"),
    *[row for row in images("y") if row[0]["y"] is not None],
    ({"y": IMAGES[:, :2]}, ValueError, r"y needs images of the shape of x, \(4, 3, 1\), got \(2,"),
    ({"x": IMAGES[..., 0]}, ValueError, r"net needs the filter before .* got \(3, 3\) .*\(4,\)"),
    ({"x": IMAGES * 1e25}, ValueError, "net needs a kernel that fits into float32"),
    *[
        ({"net": t}, TypeError, f"net needs layers, .* got {type(t).__name__}")
        for t in (None, 3, "conv", [NET], architectures.flatten)
    ],
]
TABLE = {
    # architectures
    architectures.activation: (
        {},
        [({"sigma": row[0]["activation"]}, *row[1:]) for row in ACTIVATION],
    ),
    architectures.attention: ({}, [*STDS, *nonnegative("key_std")]),
    architectures.average_pool: (
        {"window": 2},
        [
            *window("window"),
            *[row for row in window("stride") if row[0]["stride"] != 0],
            *word("padding", "SAME, CIRCULAR, VALID"),
            (
                {"stride": (1, 1, 1)},
                ValueError,
                r"window needs as many .* \(2, 2\) and \(1, 1, 1\)",
            ),
        ],
    ),
    architectures.conv: (
        {"filter": 3},
        [
            *window("filter"),
            ({"filter": ()}, ValueError, r"filter needs as many sizes as stride, at least one"),
            (
                {"filter": (3,), "stride": (1, 2)},
                ValueError,
                r"filter needs .* \(3,\) and \(1, 2\)",
            ),
            *window("stride"),
            *word("padding", "SAME, CIRCULAR, VALID"),
            *STDS,
        ],
    ),
    architectures.covariances: ({"net": NET, "x": IMAGES}, PAIRS_OF_IMAGES),
    architectures.dense: ({}, STDS),
    architectures.kernel: (
        {"net": NET, "x": IMAGES},
        [
            *PAIRS_OF_IMAGES,
            *word("of", "ntk, nngp, both"),
            ({"y": IMAGES, "diagonal": True}, ValueError, "diagonal needs one set of images"),
            (
                {"net": architectures.conv(3)},
                ValueError,
                r"net needs flatten\(\) or global_average\(\) before its end, .*\(4, 3\): covari",
            ),
        ],
    ),
    architectures.layer_norm: ({}, nonnegative("epsilon")),
    architectures.multilayer: (
        {"depth": 2},
        [row for row in [*NETWORK, *DEPTH] if "fits" not in row[2]],
    ),
    architectures.network: (
        {"net": NET, "width": 2},
        [
            *whole("width", 1),
            *whole("outputs", 1),
            *whole("heads", 1),
            *[row for row in PAIRS_OF_IMAGES if "net" in row[0]],
        ],
    ),
    # activations
    activations.as_activation: ({"activation": "relu"}, ACTIVATION),
    activations.leaky_relu: (
        {},
        [row for name in ("negative", "positive") for row in number(name)],
    ),
    activations.monomial: ({}, whole("degree", 1)),
    activations.quadrature: (
        {"function": jnp.tanh},
        [
            *callable_of("function", "callable"),
            ({"function": np.tanh}, TypeError, "function needs to take JAX arrays, .*jnp.tanh"),
            ({"function": math.tanh}, TypeError, "function needs to take JAX arrays, .*jnp.tanh"),
            ({"function": jnp.sum}, TypeError, "function needs to act entry by entry, .* got "),
            *whole("nodes", 40),
        ],
    ),
    # arguments
    arguments.as_array: (
        {"name": "v"},
        [({"value": row[0]["v"]}, *row[1:]) for row in array("v")],
    ),
    arguments.as_choice: (
        {"name": "kind", "choices": ("a", "b")},
        [({"value": row[0]["kind"]}, *row[1:]) for row in word("kind", "a, b")],
    ),
    arguments.as_counts: (
        {"name": "widths", "least": 1},
        [({"values": row[0]["widths"]}, *row[1:]) for row in counts("widths", 1)],
    ),
    arguments.as_float_dtype: (
        {"name": "dtype"},
        [({"value": row[0]["dtype"]}, *row[1:]) for row in DTYPE],
    ),
    arguments.as_inputs: (
        X2,
        [
            *PAIRS,
            ({"x": ZERO_POINT, "forbid_zero": True}, ValueError, "x needs nonzero points .* row 1"),
        ],
    ),
    arguments.as_points: (
        {"name": "at", "like": jnp.asarray(X)},
        [
            ({"points": row[0]["at"]}, *row[1:])
            for row in shaped("at", r"shape \(points, 2\)", (2,), (3, 1), (0, 2))
        ],
    ),
    arguments.as_steps: ({}, STEPS),
    arguments.as_key: (
        {"name": "key"},
        [({"value": row[0]["key"]}, *row[1:]) for row in random_key()],
    ),
    arguments.as_nonnegative: (
        {"name": "time"},
        [
            *[({"value": row[0]["time"]}, *row[1:]) for row in nonnegative("time")],
            ({"value": math.nan, "infinite": True}, ValueError, "time needs a finite number"),
            ({"value": -math.inf, "infinite": True}, ValueError, "time needs a finite number"),
        ],
    ),
    arguments.as_number: (
        {"name": "slope"},
        [({"value": row[0]["slope"]}, *row[1:]) for row in number("slope")],
    ),
    arguments.as_numeric: (
        {"name": "v"},
        [({"value": row[0]["v"]}, *row[1:]) for row in array("v") if "finite" not in row[2]],
    ),
    arguments.as_params: ({}, pytree()),
    arguments.as_positive: (
        {"name": "rate"},
        [({"value": row[0]["rate"]}, *row[1:]) for row in positive("rate")],
    ),
    arguments.as_scalar: (
        {"name": "gain", "dtype": "float32"},
        [({"value": HUGE}, ValueError, "gain needs a number that fits into float32, got 1e")],
    ),
    arguments.as_symmetric: (
        {"name": "gram"},
        [({"value": row[0]["gram"]}, *row[1:]) for row in symmetric("gram")],
    ),
    arguments.as_semidefinite: (
        {"name": "gram"},
        [({"value": row[0]["gram"]}, *row[1:]) for row in [*symmetric("gram"), *INDEFINITE]],
    ),
    arguments.as_whole: (
        {"name": "count", "least": 1},
        [({"value": row[0]["count"]}, *row[1:]) for row in whole("count", 1)],
    ),
    arguments.check_fits: (
        {"name": "gain", "dtype": "float32"},
        [({"value": -HUGE}, ValueError, "gain needs a number that fits into float32, got -1e")],
    ),
    arguments.check_numbers: (
        {"depth": 3, "gain": 1.0, "beta": 0.0},
        [*DEPTH, *GAIN, *BETA],
    ),
    arguments.check_params: ({}, LAYERS),
    arguments.output_of: (
        {"name": "cost", "function": total, "arguments": ONES},
        [({"function": lambda p: "far"}, TypeError, "cost needs to give arrays, got str")],
    ),
    # check
    check.check: (
        {"claim": "the claim", "measured": 1.0, "predicted": 1.0, "within": 1.0},
        [
            *[row for row in nonnegative("within") if row[0]["within"] is not None],
            *[
                (row[0] | {"within": None}, *row[1:])
                for name in ("relative", "below", "above")
                for row in number(name)
            ],
            ({"relative": -1.0, "within": None}, ValueError, "relative needs a number that is 0"),
            ({"within": None}, ValueError, "check needs exactly one of .*; got none"),
            ({"relative": 1.0}, ValueError, "check needs exactly one of .*; got within, relative"),
            (
                {"within": None, "below": 1.0, "above": 0.0},
                ValueError,
                "check needs exactly one of .*; got below, above",
            ),
            (
                {"relative": 0.0, "below": 0.0, "above": 0.0},
                ValueError,
                "check needs exactly one of .*; got within, relative, below, above",
            ),
            *[
                ({name: value}, TypeError, f"{name} needs a real number, got")
                for name in ("measured", "predicted")
                for value in ("much", np.ones(2), None, 1j)
            ],
            *[row for row in whole("digits", 0) if "at most" not in row[2]],
            ({"digits": 100}, ValueError, "digits needs to be at most 99, got 100"),
        ],
    ),
    check.slope: (
        {"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0]},
        [
            *[row for name in ("x", "y", "y_se") for row in positive_line(name)],
            ({"x": [1.0, 2.0]}, ValueError, "x needs .* at least 3"),
            ({"x": []}, ValueError, "x needs .* at least 3"),
            ({"x": 2.0}, ValueError, "x needs shape"),
            ({"y": [1.0, 2.0, 3.0, 4.0]}, ValueError, "y needs the length of x, 3, got 4"),
            ({"x": [1.0, 2.0, 3.0, 4.0]}, ValueError, "y needs the length of x, 4, got 3"),
            ({"y_se": [1.0, 2.0, 3.0, 4.0]}, ValueError, "y_se needs the length of x, 3, got 4"),
            ({"x": [2.0, 2.0, 2.0]}, ValueError, "x needs different values"),
        ],
    ),
    # early_stopping
    early_stopping.ridge_filter: (
        {"values": [1.0], "ridge": 0.1},
        [*array("values"), *nonnegative("ridge"), *fits("ridge")],
    ),
    early_stopping.smoother: (
        {"theta": EYE, "learnt": lambda values: values},
        [
            *shaped("theta", "shape", (5,), (2, 3), (0, 0), (2, 2, 2)),
            *shaped("theta", r".*as_matrix\(theta\) and targets.reshape\(-1\)", (3, 3, 2, 2)),
            ({"theta": SKEW}, ValueError, "theta needs a symmetric matrix"),
            *callable_of("learnt", "function"),
            ({"learnt": lambda v: None}, ValueError, "learnt needs to give a share .* NoneType"),
            ({"learnt": lambda v: v[:2]}, ValueError, r"learnt needs to give .* got \(2,\)"),
            ({"learnt": lambda v: v.astype(complex)}, ValueError, "learnt needs to give a share"),
        ],
    ),
    early_stopping.trained_ensemble: (
        {"M": EYE, "sigma": EYE, "targets": ONES},
        [
            *shaped("M", "shape", (5,), (2, 3), (0, 0)),
            *SIGMA,
            *shaped("targets", r"shape \(3,\) or \(3, k\)", (2,), (3, 0), (3, 1, 1), ()),
        ],
    ),
    early_stopping.risk: (
        {"M": EYE, "sigma": EYE, "truth": ONES, "noise": 0.1},
        [
            *shaped("M", "shape", (5,), (2, 3), (0, 0)),
            *SIGMA,
            *shaped("truth", r"shape \(3,\), one a point", (2,), (3, 1), ()),
            *nonnegative("noise"),
            *fits("noise"),
        ],
    ),
    early_stopping.best_time: (
        {"times": [1.0, 2.0, 3.0], "risks": [3.0, 1.0, 2.0]},
        [
            *shaped("times", "t at least 3", (), (2,), (3, 2)),
            *shaped("risks", r"shape of times, \(3,\)", (), (2,), (3, 2)),
            ({"times": [0.0, 1.0, 2.0]}, ValueError, "times needs positive"),
            ({"times": [1.0, 3.0, 2.0]}, ValueError, "times needs positive"),
            ({"times": [1.0, 1.0, 2.0]}, ValueError, "times needs positive"),
        ],
    ),
    early_stopping.random_networks: (
        {"widths": (2, 3, 1), "key": KEY, "draws": 2},
        [*counts("widths", 1), *DRAWS, *DTYPE],
    ),
    early_stopping.trained_networks: (
        {"x": X, "targets": np.zeros((2, 3), "f4"), "at": X, "key": KEY, "steps": [1], "width": 4},
        [
            *points("x"),
            *shaped("targets", "shape", (3,), (0, 3), (2, 4)),
            *shaped("at", r"shape \(points, 2\)", (2,), (3, 1), (0, 2)),
            *random_key(),
            *STEPS,
            *whole("width", 1),
            *DEPTH,
            *positive("rate"),
            *ACTIVATION,
            *BETA,
            *fits("rate", "beta"),
            *[row for row in whole("room", 1) if row[0]["room"] is not None],
            ({"room": 3}, ValueError, "width needs to be at most 3, got 4"),
            ({"room": 8, "activation": "cos"}, ValueError, r"activation needs σ\(0\) = 0"),
        ],
    ),
    # jacot_2018
    data.load: (
        {"name": "mnist"},
        [
            ({"name": 3}, TypeError, "name needs the name of a file in book/data, got int"),
            ({"name": "nothing"}, FileNotFoundError, "name needs a file of book/data, got 'noth"),
            ({"name": "../references"}, FileNotFoundError, "name needs a file of book/data"),
        ],
    ),
    jacot_2018.saddle: ({"key": KEY}, [*random_key(), *whole("count", 1)]),
    jacot_2018.four_angles: (
        {"arc": 1.0},
        [
            *positive("arc"),
            ({"arc": 8.4}, ValueError, "arc needs a number below 8π/3, where points would meet"),
        ],
    ),
    jacot_2018.component: (
        {"theta": EYE, "index": 1},
        [
            *symmetric("theta"),
            *whole("index", 1),
            ({"index": 4}, ValueError, "index needs to be at most 3"),
        ],
    ),
    jacot_2018.snapshots: (
        {"params": PARAMS, "x": X, "targets": ONES, "steps": [1]},
        [
            *TRAINING,
            *STEPS,
            ({"progress": 5}, TypeError, "progress needs a function of a number of steps, got int"),
        ],
    ),
    jacot_2018.kernels_in_training: (
        {"x0": X[:1], "at": X, "x": X, "targets": ONES} | FEW,
        [
            *points("x"),
            *shaped("x0", r"shape \(\w+, 2\)", (2,), (1, 3), (0, 2), (2, 2)),
            *shaped("at", r"shape \(points, 2\)", (2,), (3, 1), (0, 2)),
            *shaped("targets", r"shape \(3,\), one a point", (2,), (3, 1), ()),
            *RUNS,
            ({"room": (8,)}, ValueError, "room needs a number of neurons and one of points"),
            ({"room": (8, 0)}, ValueError, "room needs integers: number 1 needs to be at least 1"),
            ({"room": 8}, TypeError, "room needs a sequence of integers"),
            ({"room": (1, 3)}, ValueError, "width needs to be at most 1, got 2"),
            ({"room": (8, 2)}, ValueError, "x needs to have at most 2 points, got 3"),
            ({"room": (8, 3), "activation": "cos"}, ValueError, r"activation needs σ\(0\) = 0"),
            ({"room": (8, 3), "targets": ONES[:2]}, ValueError, r"targets needs shape \(3,\)"),
        ],
    ),
    jacot_2018.component_in_training: (
        {"x": X, "component": ONES, "rate": 1.0} | FEW,
        [
            *points("x"),
            *shaped("component", r"shape \(3,\)", (2,), (3, 1), ()),
            ({"component": 2 * ONES}, ValueError, "component needs mean square 1, got 4"),
            *number("size"),
            *fits("size"),
            *RUNS,
        ],
    ),
    check.typical: (
        {"claim": "spread", "shown": 50.0, "draws": np.arange(101.0)},
        [
            ({"shown": np.ones(2)}, ValueError, "draws needs the shape of shown"),
            ({"draws": np.ones((2, 101))}, ValueError, "draws needs the shape of shown"),
            ({"draws": np.ones(99)}, ValueError, "draws needs at least 100 draws, got 99"),
            (
                {"shown": np.ones(0), "draws": np.ones((0, 100))},
                ValueError,
                "shown needs at least one number",
            ),
            ({"shown": "50"}, TypeError, "shown needs a numeric array"),
            ({"draws": np.ones(101, bool)}, TypeError, "draws needs real numbers"),
        ],
    ),
    # explore
    explore.panels: (
        {},
        [
            ({"count": 0}, ValueError, "count needs to be at least 1"),
            ({"count": 1.5}, TypeError, "count needs an integer"),
            ({"height": 0.0}, ValueError, "height needs to be positive"),
            ({"height": np.nan}, ValueError, "height needs a finite number"),
            ({"height": "3"}, TypeError, "height needs a real number"),
        ],
    ),
    explored: (
        {"function": flat},
        [
            ({"colour": [1]}, ValueError, r"control 'colour' needs to be a parameter of flat \(he"),
            ({"live": {"colour": (0, 1)}}, ValueError, "live 'colour' needs to be a parameter"),
            ({"start": {"height": 1}}, ValueError, "start needs names of controls .* 'height'"),
            (
                {"height": [1], "start": {"height": 7}},
                ValueError,
                "start needs a value of 'height', got 7",
            ),
            ({"height": []}, ValueError, "control 'height' needs at least one value"),
            ({"height": [1, "two"]}, TypeError, "control 'height' needs numbers or words"),
            ({"height": [None]}, TypeError, "control 'height' needs numbers or words"),
            ({"height": [1j]}, TypeError, "control 'height' needs numbers or words"),
            ({"height": 5}, TypeError, "control 'height' needs a list of values, got 5"),
            ({"height": "abc"}, TypeError, "control 'height' needs a list of values, got 'abc'"),
            ({"height": [math.nan, 1.0]}, ValueError, "control 'height' needs finite"),
            ({"height": [1, 1]}, ValueError, "control 'height' needs different values"),
            (
                {"function": lambda lock: flat(lock), "lock": [1]},
                ValueError,
                "control 'lock' needs another name",
            ),
            (
                {"live": {"height": (1, 2, 3)}},
                ValueError,
                "live 'height' needs a pair .lowest, highest., got .1, 2, 3.",
            ),
            ({"live": {"height": 7}}, ValueError, "live 'height' needs a pair"),
            ({"live": {"height": (2, 1)}}, ValueError, "live 'height' needs .* in this order"),
            ({"live": {"height": ("a", "b")}}, TypeError, "live 'height' needs two finite"),
            (
                {"function": takes_two, "width": [1], "live": {"height": (1, 2)}},
                ValueError,
                "live 'height' needs a control or a default value",
            ),
            ({"live": 5}, TypeError, "live needs a dictionary by name, got 5"),
            ({"start": [1]}, TypeError, "start needs a dictionary by name, got"),
            ({"function": 5}, TypeError, "function needs a callable, got int"),
            (
                {"function": takes_two, "width": [1]},
                TypeError,
                "takes_two needs a control or a default value .* got none for 'height'",
            ),
            ({"function": nothing_said}, ValueError, "nothing_said needs a text that says"),
            (gives([1, 2]), TypeError, "failing needs to return a matplotlib figure, got int"),
            (gives(None), TypeError, "failing needs to return a matplotlib figure, got NoneType"),
            (gives(("fig", "text")), TypeError, "failing needs to return a matplotlib .* got str"),
            (
                gives(lambda: (flat(), "")),
                ValueError,
                "failing needs a text that says .* for {'step': 1}",
            ),
            (gives(lambda: (flat(), " \n")), ValueError, "failing needs a text that says"),
            (gives(lambda: (flat(), 7)), ValueError, "failing needs a text that says"),
            (gives(lambda: (flat(), "a", 3)), TypeError, "failing needs to return a matplotlib"),
        ],
    ),
    # gradient_flow
    gradient_flow.gradient_descent: (
        {"cost": total, "params": jnp.ones(2), "rate": 0.1, "steps": 2},
        DESCENT,
    ),
    gradient_flow.descent_path: (
        {"cost": total, "params": jnp.ones(2), "rate": 0.1, "steps": 2},
        DESCENT,
    ),
    gradient_flow.gradient_flow: (
        {"cost": total, "params": jnp.ones(2), "times": [1.0]},
        [
            *callable_of("cost", "function"),
            *one_number("cost"),
            *pytree(),
            *TIMES,
            ({"times": []}, ValueError, r"times needs .* got \(0,\)"),
            ({"times": [1.0, math.inf]}, ValueError, "times needs finite numbers, got one that is"),
            ({"times": [1.0, 0.5]}, ValueError, "times needs .* not to decrease"),
            ({"times": [-1.0, 1.0]}, ValueError, "times needs to start at 0 or later"),
            *[row for row in positive("tolerance") if row[0]["tolerance"] is not None],
            *fits("tolerance"),
            *whole("max_steps", 1),
            (
                {"params": [jnp.ones(2), jnp.ones(2, "f2")], "cost": lambda p: jnp.sum(p[0])},
                TypeError,
                "params needs one dtype, got .*float16.*float32",
            ),
        ],
    ),
    gradient_flow.linear_flow: (
        {"kernel": EYE, "start": ONES, "times": [1.0]},
        [
            *symmetric("kernel"),
            *shaped("start", r"shape \(3,\) or \(3, k\)", (2,), (3, 0), (3, 1, 1), ()),
            *[row for row in TIMES if "finite" not in row[2]],
            ({"times": [1.0, np.nan]}, ValueError, "times needs finite numbers, got 1"),
            ({"times": [1.0, -np.inf]}, ValueError, "times needs finite numbers, got 1"),
            (
                {"kernel": np.diag([1.0, 1.0, -1.0]), "times": [math.inf]},
                ValueError,
                "kernel needs to be positive semi-definite where a time is infinite, .* -1",
            ),
        ],
    ),
    gradient_flow.linear_descent: (
        {"kernel": EYE, "start": ONES, "rate": 0.1, "steps": [1]},
        [
            *symmetric("kernel"),
            *shaped("start", r"shape \(3,\) or \(3, k\)", (2,), (3, 0), (3, 1, 1), ()),
            *positive("rate"),
            *fits("rate"),
            *counts("steps", 0),
        ],
    ),
    gradient_flow.critical_rate: (
        {},
        [
            *symmetric("kernel"),
            ({"kernel": 0 * EYE}, ValueError, "kernel needs to be positive semi-definite and not"),
            ({"kernel": np.diag([1.0, -1.0])}, ValueError, "kernel needs .* from -1 to 1"),
        ],
    ),
    # kernels
    kernels.rbf: (X2, [*PAIRS, *positive("bandwidth"), *fits("bandwidth")]),
    kernels.polynomial: (
        X2 | {"degree": 2},
        [*PAIRS, *whole("degree", 1), *nonnegative("offset"), *fits("offset")],
    ),
    kernels.arc_cosine: (
        X2,
        [
            *PAIRS,
            *whole("order", 0),
            ({"order": 2}, ValueError, "order needs to be 0 or 1, got 2"),
            ({"x": ZERO_POINT}, ValueError, "x needs nonzero points .* row 1"),
            ({"y": ZERO_POINT}, ValueError, "y needs nonzero points .* row 1"),
        ],
    ),
    kernels.principal_components: ({}, symmetric("gram")),
    kernels.rkhs_norm: (
        {"gram": EYE, "coefficients": ONES},
        [*symmetric("gram"), *INDEFINITE, *shaped("coefficients", "one", (2,), (3, 1), (3, 0), ())],
    ),
    kernels.kernel_regression: (
        {"gram": EYE, "targets": ONES},
        [
            *symmetric("gram"),
            *INDEFINITE,
            ({"gram": BOX, "ridge": 0.1}, ValueError, "gram needs a positive semi-definite"),
            ({"gram": SINGULAR}, ValueError, "gram needs to be invertible in float32"),
            (
                {"gram": REPEATED},
                ValueError,
                "gram needs distinct points where ridge is 0, got equal rows 1 and 2",
            ),
            # 0 in the Gram's own precision
            ({"gram": REPEATED, "ridge": 1e-60}, ValueError, "gram needs distinct points"),
            *shaped("targets", "one row for each of 3", (2,), (3, 0), (3, 1, 1), ()),
            *nonnegative("ridge"),
            *fits("ridge"),
        ],
    ),
    kernels.left_out_errors: (
        {"gram": EYE, "targets": ONES},
        [
            *symmetric("gram"),
            *INDEFINITE,
            ({"gram": SINGULAR}, ValueError, "gram needs to be invertible in float32"),
            *shaped("targets", "one row for each of 3", (2,), (3, 0), (3, 1, 1), ()),
            *nonnegative("ridge"),
            *fits("ridge"),
        ],
    ),
    kernels.random_features: (
        {"x": X, "key": KEY, "count": 2},
        [
            *points("x"),
            *random_key(),
            *whole("count", 1),
            *word("kernel", "rbf, arc_cosine"),
            *positive("bandwidth"),
            *fits("bandwidth"),
            *whole("order", 0),
            ({"order": 3}, ValueError, "order needs to be 0 or 1, got 3"),
        ],
    ),
    kernels.kernel_gradient: (
        {"kernel": EYE, "cost": total, "outputs": ONES},
        [
            *shaped("kernel", r"shape \(m, n\)", (3,), (0, 3), (1, 3, 3)),
            *callable_of("cost", "function"),
            *one_number("cost"),
            *shaped("outputs", r"shape \(3,\)", (2,), (3, 1), ()),
        ],
    ),
    kernels.kernel_descent: (
        {"kernel": EYE, "cost": total, "rate": 0.1, "steps": 1},
        [
            *shaped("kernel", r"shape \(m, n\), m at least n", (3,), (2, 3), (3, 0)),
            ({"kernel": BOX}, ValueError, "kernel needs a positive semi-definite matrix"),
            ({"kernel": SKEW}, ValueError, "kernel needs a symmetric matrix"),
            *callable_of("cost", "function"),
            *one_number("cost"),
            *nonnegative("rate"),
            *fits("rate"),
            *whole("steps", 0),
            *[
                row
                for row in shaped("start", r"shape \(3,\)", (2,), (3, 1), ())
                if row[0]["start"] is not None
            ],
        ],
    ),
    # lazy
    lazy.linearise: (
        {"f": MODEL_GOOD["f"], "params": [jnp.ones(2)]},
        [*callable_of("f", "function"), *pytree()],
    ),
    lazy.flow_filter: (
        {"values": [1.0], "time": 1.0},
        [
            *array("values"),
            *[row for row in nonnegative("time") if row[0]["time"] is not math.inf],
            *fits("time"),
        ],
    ),
    lazy.descent_filter: (
        {"values": [1.0], "rate": 0.1, "steps": 2},
        [*array("values"), *nonnegative("rate"), *nonnegative("steps"), *fits("rate", "steps")],
    ),
    lazy.filter_arguments: (
        {"values": [1.0], "name": "ridge", "number": 1.0},
        [*array("values"), ({"number": HUGE}, ValueError, "ridge needs a number that fits into")],
    ),
    lazy.linearised_change: (
        {"gram": EYE, "cross": EYE, "missing": ONES, "times": [1.0]},
        [
            *symmetric("gram"),
            *shaped("cross", r"shape \(m, 3\)", (3,), (2, 2), ()),
            *shaped("cross", r"shape .*as_matrix\(cross\) and targets", (2, 3, 1, 1)),
            *shaped("missing", r"shape \(3,\), .*\(3, k\)", (2,), (3, 0), (3, 1, 1), ()),
            *[row for row in TIMES if "finite" not in row[2]],
            ({"times": [-1.0]}, ValueError, "times needs numbers that are 0 or more"),
            ({"times": [np.nan]}, ValueError, "times needs numbers that are 0 or more"),
            *[row for row in positive("rate") if row[0]["rate"] is not None],
            *fits("rate"),
        ],
    ),
    lazy.relative_movement: (
        {"before": PARAMS, "after": PARAMS},
        [
            *pytree("before"),
            *pytree("after"),
            ({"after": init((2, 4, 1), key=KEY)}, ValueError, "after needs the arrays of before"),
            ({"after": PARAMS[0]}, ValueError, "after needs the arrays of before"),
            (
                {"before": jax.tree.map(jnp.zeros_like, PARAMS)},
                ValueError,
                "before needs parameters that are not all zero",
            ),
        ],
    ),
    lazy.relative_curvature: (
        {"output": lambda w: jnp.sum(jax.tree.leaves(w)[0] ** 2), "params": ONES, "residual": 1.0},
        [
            *callable_of("output", "function"),
            *one_number("output"),
            *pytree(),
            ({"params": 0 * ONES}, ValueError, "params needs a point where the gradient"),
            *number("residual"),
            *fits("residual"),
        ],
    ),
    lazy.scaled: (
        {"f": MODEL_GOOD["f"], "params": [jnp.ones(2)], "alpha": 1.0},
        [*callable_of("f", "function"), *positive("alpha")],
    ),
    lazy.train: (
        {"params": PARAMS, "x": X, "targets": ONES, "steps": 1},
        TRAINING + whole("steps", 0),
    ),
    lazy.training_arguments: (
        {
            **{"params": PARAMS, "x": X, "targets": ONES, "rate": 1.0},
            **{"activation": "relu", "gain": 1.0, "beta": 0.1},
        },
        TRAINING,
    ),
    # limiting_ntk
    limiting_ntk.ntk: (X2 | {"depth": 2}, [*PAIRS, *DEPTH, *NETWORK, *MESH]),
    limiting_ntk.recursive_ntk: (X2 | {"depth": 2}, [*PAIRS, *DEPTH, *NETWORK]),
    limiting_ntk.mlp_ntk: (
        {"params": PARAMS} | X2,
        [
            *PAIRS,
            *[(row[0] | {"y": None}, *row[1:]) for row in DIMENSION],
            *LAYERS,
            *NETWORK,
            *word("outputs", "full, trace, diagonal"),
        ],
    ),
    limiting_ntk.random_kernels: (
        X2 | {"key": KEY, "draws": 2, "width": 3, "depth": 2},
        [*PAIRS, *DEPTH, *DRAWS, *whole("width", 1), *NETWORK],
    ),
    any_size.kernels_of_any_size: (
        {"x": X, "key": KEY, "draws": 2, "width": 3, "depth": 2},
        [
            *points("x"),
            *DEPTH,
            *DRAWS,
            *whole("width", 1),
            *whole("deepest", 1),
            ({"depth": 17}, ValueError, "depth needs to be at most 16, got 17"),
            *NETWORK,
        ],
    ),
    any_size.outputs_of_any_size: (
        {"x": X, "key": KEY, "draws": 2, "width": 3, "depth": 2},
        [
            *points("x"),
            *DEPTH,
            *DRAWS,
            *whole("width", 1),
            *NETWORK,
        ],
    ),
    limiting_ntk.circle_spectrum: (
        {},
        shaped("kernel", r"shape \(angles,\), at least 2", (), (1,), (0,), (3, 2)),
    ),
    limiting_ntk.plot_on_circle: (
        {"angles": ONES, "kernels": EYE, "limit": ONES, "top": 1.0, "title": "three"},
        [
            *[row for row in shaped("angles", "shape", (), (3, 2)) if "finite" not in row[2]],
            *[row for row in shaped("kernels", "shape", (3,), (3, 2)) if "finite" not in row[2]],
            *[row for row in shaped("limit", "shape", (), (2,)) if "finite" not in row[2]],
            *positive("top"),
        ],
    ),
    # permutations
    permutations.binary_words: (
        {"k": 3},
        [
            *whole("k", 1),
            ({"k": 17}, ValueError, "k needs to be at most 16, got 17"),
            *[row for row in whole("ones", 1) if row[0]["ones"] is not None],
            ({"ones": 4}, ValueError, "ones needs to be at most 3, got 4"),
            ({"k": 60, "ones": 30}, ValueError, "ones needs at most 65536 words of 60 bits"),
        ],
    ),
    permutations.word_kernel: (
        {"rho": jnp.array([0.5, -0.5]), "k": 3},
        [
            *array("rho"),
            ({"rho": np.array([0.5, -2.0])}, ValueError, "rho needs cosines .* got -2: divide"),
            *whole("k", 1),
            *nonnegative("tau"),
        ],
    ),
    permutations.bit_statistics: (
        {"k": 3, "ones": 2},
        [
            *whole("k", 2),
            *whole("ones", 1),
            ({"ones": 4}, ValueError, "ones needs to be at most 3, got 4"),
            *nonnegative("tau"),
            ({"tau": 1e200}, ValueError, "tau needs to be at most 1e"),
        ],
    ),
    permutations.chance_all_right: (
        {"k": 3, "ones": 2, "networks": 5},
        [
            *whole("k", 2),
            *whole("ones", 2),
            *whole("networks", 1),
            *nonnegative("tau"),
            *number("threshold"),
            ({"threshold": 0.7}, ValueError, "threshold needs a number between the means .* 0.7"),
            ({"threshold": -0.1}, ValueError, "threshold needs a number between the means"),
        ],
    ),
    permutations.networks_needed: (
        {"k": 3},
        [
            *whole("k", 2),
            *whole("ones", 2),
            *nonnegative("tau"),
            *number("threshold"),
            ({"threshold": 0.7}, ValueError, "threshold needs a number between the means .* 0.7"),
            *PROBABILITY,
        ],
    ),
    permutations.networks_for_all_words: (
        {"k": 3},
        [*whole("k", 2), *nonnegative("tau"), *PROBABILITY],
    ),
    permutations.trained_on_basis: (
        {"labels": EYE, "at": EYE, "key": KEY, "networks": 2, "width": 4},
        [
            *shaped("labels", r"shape \(3, outputs\)", (3,), (2, 3), (3, 0), ()),
            *array("labels"),
            *points("at"),
            *random_key(),
            *whole("networks", 1),
            *whole("width", 1),
            *nonnegative("tau"),
            *whole("steps", 0),
            *[row for row in whole("room", 1) if row[0]["room"] is not None],
            ({"room": 3}, ValueError, "width needs to be at most 3, got 4"),
        ],
    ),
    # prediction
    prediction.predict: (
        {"x": X, "targets": ONES, "x_test": X[:2], "depth": 2},
        [
            *points("x"),
            *points("x_test"),
            ({"x_test": X[:, :1]}, ValueError, "x_test needs the 2 features of x, got 1"),
            *shaped("targets", r"shape \(3,\) or \(3, k\)", (2,), (3, 0), (3, 1, 1), ()),
            *[row for row in DEPTH if row[0]["depth"] is not None],
            ({"depth": None}, TypeError, "depth needs the number of weight layers unless kernel"),
            ({"kernel": kernels.rbf}, ValueError, "depth needs to be None where a kernel is given"),
            *NETWORK,
            *[row for row in nonnegative("time") if row[0]["time"] is not math.inf],
            *nonnegative("noise"),
            ({"noise": HUGE}, ValueError, "noise needs a number whose square fits into float64"),
            *word("by", "ntk, nngp"),
            *[
                row
                for name in ("kernel", "prior")
                for row in callable_of(name, "function")
                if row[0][name] is not None
            ],
            *[(row[0] | {"depth": None}, *row[1:]) for row in KERNEL[4:]],
            (
                {"prior": lambda x, y=None: x},
                ValueError,
                r"prior needs to give shape \(3, 3\) .* got \(3, 2\)",
            ),
            ({"prior": lambda x, y=None: NAN @ NAN.T}, ValueError, "prior needs finite numbers"),
            ({"prior": lambda x, y=None: BOX}, ValueError, "prior needs .* eigenvalue of -0.414"),
            (
                {"kernel": lambda x, y=None: BOX[:, : 3 if y is None else 2], "depth": None}
                | {"x_test": X},
                ValueError,
                "kernel needs to give",
            ),
            ({"prior": nngp2, "by": "nngp"}, ValueError, "prior needs to be None where by is 'nng"),
            (
                {"x": X[[0, 1, 1]]},
                ValueError,
                "x needs distinct points where noise is 0 .* got equal rows 1 and 2",
            ),
            (
                {"kernel": kernels.rbf, "depth": None, "x": X * 1e-4},
                ValueError,
                r"noise needs to be larger .*\(1\).*noise=.*a finite time.*\(2\).*jax_enable_x64",
            ),
            (
                {"kernel": kernels.rbf, "depth": None, "x": X * 1e-4, "time": 1e9},
                ValueError,
                "time needs to be at most .* noise=.*jax_enable_x64",
            ),
        ],
    ),
    # scale
    scale.kernel_product: (
        {"kernel": kernels.rbf, "x": X, "v": ONES},
        [*KERNEL, *PAIRS, *shaped("v", r"shape \(3,\) or", (2,), (3, 2, 2), (3, 0), ())],
    ),
    scale.regression: (
        {"kernel": kernels.rbf, "x": X, "targets": ONES, "ridge": 1.0},
        [
            *KERNEL,
            *points("x"),
            *shaped("targets", r"shape \(3,\) or", (2,), (3, 0), ()),
            *nonnegative("ridge"),
            *SOLVER,
            *LANDMARKS,
        ],
    ),
    scale.flow: (
        {"kernel": kernels.rbf, "x": X, "start": ONES, "times": [1.0]},
        [
            *KERNEL,
            *points("x"),
            *shaped("start", r"shape \(3,\) or", (2,), (3, 0), ()),
            *[row for row in TIMES if "finite" not in row[2]],
            ({"times": [-1.0]}, ValueError, "times needs numbers that are 0 or more, got -1"),
            ({"times": [np.nan]}, ValueError, "times needs numbers that are 0 or more, got nan"),
            *SOLVER,
            *LANDMARKS,
        ],
    ),
    scale.conjugate_gradients: (
        {"product": lambda v: 2 * v, "b": ONES},
        [
            *callable_of("product", "function"),
            ({"product": lambda v: v[:2]}, ValueError, r"product needs .* \(3,\), got \(2,\)"),
            ({"product": lambda v: "v"}, TypeError, "product needs a numeric array, got str"),
            ({"product": lambda v: None}, TypeError, "product needs a numeric array, got None"),
            ({"product": lambda v: v.astype(complex)}, TypeError, "product needs real numbers"),
            *array("b"),
            ({"b": 1.0}, ValueError, "b needs shape"),
            ({"b": np.ones((3, 0))}, ValueError, "b needs shape"),
            *nonnegative("shift"),
            *SOLVER,
        ],
    ),
    # tangent_kernels
    tangent_kernels.empirical_ntk: (
        MODEL_GOOD,
        [
            *MODEL,
            *batch("x"),
            *batch("y"),
            *word("outputs", "full, trace, diagonal"),
            *word("method", "auto, structure, contraction, products"),
            (
                {"params": [jnp.ones(2, "bfloat16")], "f": in_half, "method": "products"},
                ValueError,
                "method needs to be auto or contraction in half precision, got .* bfloat16",
            ),
            (
                {"f": lambda p, x: (x - x.mean(0, keepdims=True)) @ p[0]},
                ValueError,
                r"f needs to treat the points of a batch one by one, .* a point comes alone: "
                r"\(1\) batch norm .* \(2\) one random key .* \(3\) a mean .* tangent_product",
            ),
            (
                {"f": lambda p, x: (x * jax.random.normal(KEY, x.shape)) @ p[0]},
                ValueError,
                r"f needs to treat the points .* when the batch is turned round: \(1\)",
            ),
        ],
    ),
    tangent_kernels.tangent_product: (
        MODEL_GOOD | {"v": ONES},
        [
            *MODEL,
            *batch("x"),
            *batch("y"),
            *shaped("v", r"shape \(3,\)", (2,), (1, 3), (3, 2), ()),
            ({"y": X[:2]}, ValueError, r"v needs shape \(2,\)"),
        ],
    ),
    tangent_kernels.as_matrix: (
        {},
        shaped("theta", "shape", (3,), (3, 3, 2), (3, 3, 2, 1), (1, 1, 1, 1, 1)),
    ),
    # wide_networks
    wide_networks.init: (
        {"widths": (2, 3, 1), "key": KEY},
        [
            *counts("widths", 1),
            ({"widths": (2,)}, ValueError, "widths needs at least"),
            ({"widths": ()}, ValueError, "widths needs at least"),
            *random_key(),
            *DTYPE,
        ],
    ),
    wide_networks.as_widths: (
        {},
        [*counts("widths", 1), ({"widths": (2,)}, ValueError, "widths needs at least")],
    ),
    wide_networks.check_dimension: ({"params": PARAMS}, DIMENSION),
    wide_networks.circle: (
        {},
        [
            *shaped("angles", r"shape \(n,\)", (), (3, 2)),
            ({"angles": []}, ValueError, "angles needs at least one angle, got none"),
        ],
    ),
    wide_networks.nngp: (X2 | {"depth": 2}, [*PAIRS, *DEPTH, *NETWORK, *MESH]),
    wide_networks.random_outputs: (
        {"x": X, "key": KEY, "draws": 2, "width": 3, "depth": 2},
        [*points("x"), *DEPTH, *DRAWS, *whole("width", 1), *NETWORK],
    ),
    wide_networks.variance_map: ({"q": 1.0}, [*variances(), *NETWORK]),
    wide_networks.susceptibility: (
        {"q": 1.0},
        [*variances(), *ACTIVATION, *GAIN, *fits("gain")],
    ),
    wide_networks.correlation_map: (
        {"rho": 0.5, "q": 1.0},
        [
            *array("rho"),
            ({"rho": 1.5}, ValueError, "rho needs correlations between -1 and 1"),
            *variances(),
            ({"q": [1.0, 2.0]}, ValueError, r"q needs one variance, .* got shape \(2,\)"),
            *NETWORK,
        ],
    ),
    wide_networks.fixed_variance: (
        {},
        [
            *NETWORK,
            ({"gain": 1.0, "beta": 0.0}, ValueError, "gain needs a value at which a positive var"),
            ({"gain": 3.0, "beta": 0.1}, ValueError, "gain needs a value at which a positive var"),
        ],
    ),
    # regression: small data
    regression.pool_spectrum: (
        {"gram": EYE, "targets": ONES},
        [
            ({"gram": SKEW}, ValueError, "gram needs a symmetric matrix"),
            ({"gram": -EYE}, ValueError, "gram needs a positive semi-definite matrix"),
            ({"targets": ONES[:2]}, ValueError, r"targets needs shape \(3,\) or \(3, outputs\)"),
            ({"targets": "even"}, TypeError, "targets needs "),
        ],
    ),
    regression.sphere_spectrum: (
        {"profile": np.exp, "dimension": 3, "degrees": 4},
        [
            ({"profile": 1.0}, TypeError, "profile needs a function of cosines, got float"),
            ({"profile": np.sum}, ValueError, r"profile needs to give shape \(2000,\)"),
            ({"dimension": 1}, ValueError, "dimension needs "),
            ({"degrees": 0}, ValueError, "degrees needs "),
            ({"degrees": 1001}, ValueError, "degrees needs "),
            ({"nodes": 3}, ValueError, "nodes needs "),
        ],
    ),
    regression.effective_ridge: (
        {"values": np.ones(3), "n": 2},
        [
            ({"values": -np.ones(3)}, ValueError, "values needs shape .* and -1 among them"),
            ({"values": np.zeros(3)}, ValueError, "values needs .* some of them not 0"),
            ({"values": np.ones((2, 2))}, ValueError, r"values needs .* got shape \(2, 2\)"),
            ({"n": 0}, ValueError, "n needs "),
            ({"ridge": -1.0}, ValueError, "ridge needs "),
            ({"multiplicity": np.ones(2)}, ValueError, r"multiplicity needs shape \(3,\)"),
            ({"multiplicity": -np.ones(3)}, ValueError, "multiplicity needs .* no negative entry"),
        ],
    ),
    regression.learning_curve: (
        {"spectrum": SPECTRUM, "sizes": [1]},
        [
            ({"spectrum": np.ones(3)}, TypeError, "spectrum needs a Spectrum, got ndarray"),
            ({"spectrum": SPECTRUM._replace(power=None)}, ValueError, "spectrum needs the power"),
            (
                {"spectrum": SPECTRUM._replace(power=np.ones(3))},
                ValueError,
                "spectrum needs 2 powers",
            ),
            (
                {"spectrum": SPECTRUM._replace(power=-np.ones(2))},
                ValueError,
                "spectrum needs .* that are 0 or more",
            ),
            ({"sizes": [0]}, ValueError, "sizes needs "),
            ({"ridge": -1.0}, ValueError, "ridge needs "),
            ({"noise": -1.0}, ValueError, "noise needs "),
        ],
    ),
    regression.removal_effects: (
        {"gram": EYE, "cross": EYE[:2], "targets": ONES},
        [
            ({"gram": SKEW}, ValueError, "gram needs "),
            ({"cross": EYE[:, :2]}, ValueError, r"cross needs shape \(m, 3\), got \(3, 2\)"),
            ({"targets": EYE}, ValueError, r"targets needs shape \(n,\)"),
            ({"ridge": -1.0}, ValueError, "ridge needs "),
        ],
    ),
    double_descent.gaussian_features: (
        {"gram": EYE, "key": KEY, "count": 2},
        [
            ({"gram": SKEW}, ValueError, "gram needs a symmetric matrix"),
            ({"gram": -EYE}, ValueError, "gram needs "),
            ({"count": 0}, ValueError, "count needs "),
            ({"key": 1}, TypeError, "key needs "),
        ],
    ),
    double_descent.tangent_features: (
        {"params": init((2, 3, 1), key=KEY), "x": np.ones((3, 2), "f4")},
        [
            ({"x": np.ones((3, 4), "f4")}, ValueError, "x needs "),
            ({"x": NAN}, ValueError, "x needs "),
            ({"params": init((2, 3, 2), key=KEY)}, ValueError, "params needs .* one output, got 2"),
            ({"params": []}, ValueError, "params needs at least one layer"),
            ({"beta": -1.0}, ValueError, "beta needs "),
            ({"activation": "step"}, ValueError, "activation needs "),
        ],
    ),
    double_descent.least_norm: (
        {"features": EYE, "targets": ONES},
        [
            ({"features": ONES}, ValueError, r"features needs shape \(n, p\)"),
            ({"features": 0 * EYE}, ValueError, "features needs .* some not 0"),
            ({"targets": ONES[:2]}, ValueError, "targets needs 3 rows"),
            ({"ridge": -1.0}, ValueError, "ridge needs "),
        ],
    ),
    double_descent.marchenko_pastur: (
        {"singular": ONES, "ratio": 0.5},
        [
            ({"singular": EYE}, ValueError, "singular needs positive numbers"),
            ({"singular": -ONES}, ValueError, "singular needs positive numbers"),
            ({"ratio": 0.0}, ValueError, "ratio needs "),
        ],
    ),
    double_descent.feature_law: (
        {"gram": EYE, "cross": EYE[:2], "variances": ONES[:2], "targets": ONES, "count": 3},
        [
            ({"gram": SKEW}, ValueError, "gram needs "),
            ({"cross": EYE[:, :2]}, ValueError, r"cross needs shape \(m, 3\)"),
            ({"variances": ONES}, ValueError, r"variances needs shape \(2,\)"),
            ({"variances": 0.1 * ONES[:2]}, ValueError, "variances needs K.* of the same kernel"),
            ({"variances": -ONES[:2]}, ValueError, "variances needs K.* of the same kernel"),
            ({"targets": EYE}, ValueError, r"targets needs shape \(3,\)"),
            ({"count": 2}, ValueError, r"count needs .* \(as many features as points\)"),
        ],
    ),
    double_descent.random_feature_curve: (
        {"spectrum": SPECTRUM, "n": 1, "counts": [2]},
        [
            ({"spectrum": np.ones(3)}, TypeError, "spectrum needs a Spectrum, got ndarray"),
            ({"spectrum": SPECTRUM._replace(power=None)}, ValueError, "spectrum needs the power"),
            (
                {"spectrum": SPECTRUM._replace(power=-np.ones(2))},
                ValueError,
                "spectrum needs .* that are 0 or more",
            ),
            ({"n": 0}, ValueError, "n needs "),
            ({"counts": [0]}, ValueError, "counts needs "),
            ({"counts": []}, ValueError, "counts needs at least one"),
            ({"ridge": -1.0}, ValueError, "ridge needs "),
            ({"noise": -1.0}, ValueError, "noise needs "),
        ],
    ),
    double_descent.train_by_adam: (
        {
            "x": np.ones((3, 2), "f4"),
            "targets": EYE,
            "at": np.ones((1, 2), "f4"),
            "key": KEY,
            "steps": [0, 1],
            "width": 2,
        },
        [
            ({"targets": ONES}, ValueError, r"targets needs shape \(3, k\)"),
            ({"at": EYE}, ValueError, "at needs "),
            ({"steps": [1, 0]}, ValueError, "steps needs "),
            ({"width": 0}, ValueError, "width needs "),
            ({"rate": 0.0}, ValueError, "rate needs "),
            ({"key": 1}, TypeError, "key needs "),
        ],
    ),
    small_data.frozen_ntks: (
        {"x": X, "depth": 3},
        [
            *[row for row in points("x") if "squared norm" not in row[2]],
            *whole("depth", 2),
        ],
    ),
    small_data.small_data: (
        {"name": "iris"},
        [
            ({"name": "irises"}, ValueError, "name needs one of australian, banana, .*'irises'"),
            ({"name": None}, TypeError, "name needs one of australian, .*None"),
            *whole("most", 20),
            *whole("seed", 0),
            ({"raw": 1}, TypeError, "raw needs True or False, got 1"),
            ({"raw": "no"}, TypeError, "raw needs True or False, got 'no'"),
        ],
    ),
    small_data.accuracy: (
        {"x": CLOUDS, "y": np.arange(16) % 2, "method": "linear"},
        [
            *[row for row in points("x") if "squared norm" not in row[2]],
            *word("method", "NTK, NNGP, RBF, .*"),
            *whole("seed", 0),
            ({"y": np.zeros(16, int)}, ValueError, "y needs two classes or more .*counts"),
            ({"y": np.arange(16)}, ValueError, "y needs two classes or more .*four points"),
            ({"y": np.arange(15) % 2}, ValueError, "y needs an integer for each of 16 points"),
            ({"y": np.ones(16)}, ValueError, "y needs an integer for each of 16 points, got float"),
            ({"y": ["a", "b"] * 8}, ValueError, "y needs an integer for each of 16 points, got <U"),
        ],
    ),
    small_data.supervised_bins: (
        {"x": CLOUDS, "y": np.arange(16) % 2},
        [
            *[row for row in points("x") if "squared norm" not in row[2]],
            ({"y": np.arange(15)}, ValueError, "y needs a label for each of 16 points"),
            ({"y": 1}, ValueError, "y needs a label for each of 16 points"),
            *whole("least", 0),
        ],
    ),
    small_data.table_summary: ({"accuracies": SCORES}, SCORE_ROWS),
    small_data.paired_tests: (
        {"accuracies": SCORES, "method": 0},
        [
            *SCORE_ROWS,
            ({"method": 2}, ValueError, "method needs to be at most 1, got 2"),
            *whole("method", 0),
        ],
    ),
}
for function in (wide_networks.apply, wide_networks.preactivations):
    TABLE[function] = (
        {"params": PARAMS, "x": X},
        [
            *array("x"),
            *shaped("x", "a last axis of 2, the network's inputs", (), (3,), (4, 3), (2, 4, 1)),
            *LAYERS,
            *ACTIVATION,
            *nonnegative("gain"),
            *BETA,
            *fits("gain", "beta"),
        ],
    )

# What has no rows, and why.
# the same training, before there are new points
TABLE[prediction.trained] = (
    {"x": X, "targets": ONES, "depth": 2},
    [
        row
        for row in TABLE[prediction.predict][1]
        if "x_test" not in row[0]
        and not re.match("prior needs (to give|finite|.*eigenvalue)", row[2])
    ],
)

WITHOUT = {
    "flatten": "takes nothing",
    "global_average": "takes nothing",
    "residual": "takes layers by position: see test_architectures",
    "serial": "takes layers by position: see test_architectures",
    "angle": "a step of a traced computation, on arrays that its callers have checked",
    "arc_cosine_at": "a step of a traced computation",
    "correlations": "a step of a traced computation",
    "unit_vectors": "a step of a traced computation",
    "mixture_of_errors": "its argument is written in the library",
    "angle_polynomials": "takes what evaluate has checked",
    "even": "a step of empirical_ntk, on what it has checked",
    "planned": "a step of empirical_ntk, on what it has checked",
    "signals": "a step of empirical_ntk, on what it has checked",
    "contract": "a step of empirical_ntk, on what it has checked",
    "layers": "a step of empirical_ntk, on what it has checked",
    "at_pairs": "takes what evaluate has checked",
    "by_angle": "a step of a traced computation",
    "by_surface": "a step of a traced computation",
    "surface": "takes what evaluate has checked",
    "surface_basis": "takes what surface has made",
    "arc_cosine_of": "a step of a traced computation",
    "geometric_mean": "a step of a traced computation",
    "safe_sqrt": "a step of a traced computation",
    "next_moments": "a step of a traced computation",
    "by_recursion": "takes what ntk and nngp have checked",
    "evaluate": "takes what ntk and nngp have checked; the mesh, which it checks, is in their rows",
    "descend": "a step of a traced computation, on arrays that its callers have checked",
    "batch_of": "two numbers that its callers have checked",
    "needed": "its argument is the name of a package, written in the library",
    "upper_mirrored": "takes what the kernels have computed",
    "is_real": "answers, and refuses nothing",
    "on_one_device": "refuses only what another host holds: see test_evaluation, on two hosts",
    "sums_in": "answers, and refuses nothing",
    "traced": "takes a function that its callers have checked",
    "run": "takes what traced gives",
    "of_several_outputs": "answers, and refuses nothing",
    "check_known": "refuses only traced values: see the test of them below",
}


def call(function, given):
    """With what may stand by position so: the names before a ``*``."""
    given = dict(given)
    takes = inspect.signature(function).parameters.values()
    first = [p.name for p in takes if p.kind in (p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    if "arguments" in first:
        return function(*[given.pop(name) for name in first])
    return function(**given)


def missed(function, given, error, says):
    """What is wrong with a refusal, or None."""
    assert re.match(r"((control|live) '\w+'|\w+) needs ", says), "the message names an argument"
    try:
        call(function, given)
    except Exception as raised:
        if not isinstance(raised, error):
            return f"{type(raised).__name__} in place of {error}: {raised}"
        return None if re.search(f"^{says}", str(raised)) else f"it says: {raised}"
    return "it is not refused"


@pytest.mark.parametrize("function", TABLE, ids=lambda f: f.__name__)
def test_bad_input_is_refused_by_name(no_hook, function):
    # thousands of rows: one test each would take ten times as long
    good, rows = TABLE[function]
    try:
        found = {
            f"row {i}, {changed}": wrong
            for i, (changed, error, says) in enumerate(rows)
            if (wrong := missed(function, good | changed, error, says))
        }
    finally:
        plt.close("all")
    assert not found, "\n".join(f"{row}: {wrong}" for row, wrong in found.items())


@pytest.mark.parametrize("function", TABLE, ids=lambda f: f.__name__)
def test_the_good_arguments_of_the_table_are_good(no_hook, function):
    good, rows = TABLE[function]
    needed = {
        name
        for name, p in inspect.signature(function).parameters.items()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    if needed <= set(good):
        call(function, good)
        plt.close("all")
    else:  # the one argument there is, bad in every row
        assert all(needed <= set(good | changed) for changed, _, _ in rows)


def public_functions():
    for module in pkgutil.walk_packages(ntk_lib.__path__, "ntk_lib."):
        if module.ispkg:
            continue
        names = importlib.import_module(module.name)
        for name in names.__all__:
            if inspect.isfunction(inspect.unwrap(getattr(names, name))):
                yield name


def test_every_public_function_has_rows_or_a_reason_to_have_none():
    tabled = {"explore" if f is explored else f.__name__ for f in TABLE}
    public = set(public_functions()) | set(WITHOUT)
    assert tabled | set(WITHOUT) == public
    assert not tabled & set(WITHOUT)


@pytest.mark.parametrize(
    ("function", "good", "name"),
    [
        pytest.param(function, TABLE[function][0], name, id=f"{function.__name__}-{name}")
        for function, names in {
            activations.leaky_relu: ("negative", "positive"),
            architectures.kernel: ("x", "y"),
            early_stopping.best_time: ("times", "risks"),
            jacot_2018.four_angles: ("arc",),
            check.check: ("measured", "predicted", "within"),
            check.slope: ("x", "y", "y_se"),
            limiting_ntk.ntk: ("depth",),
            limiting_ntk.plot_on_circle: ("angles", "kernels", "limit", "top"),
            scale.conjugate_gradients: ("b", "shift", "tolerance", "max_steps"),
            scale.flow: ("x", "start", "times", "tolerance"),
            scale.kernel_product: ("x", "v", "y"),
            scale.regression: ("x", "targets", "ridge", "tolerance"),
            wide_networks.fixed_variance: ("gain", "beta"),
        }.items()
        for name in names
    ],
)
def test_a_traced_value_is_refused_where_a_number_must_be_known(no_hook, function, good, name):
    with pytest.raises(TypeError, match=f"^{name} needs "):
        jax.eval_shape(lambda t: function(**good | {name: t}), jnp.ones(3))

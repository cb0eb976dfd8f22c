"""Bad arguments end in an error that names the argument, what it needs and what it got.

Serves every module. Values cannot be seen under a JAX transformation: there, and only there, the
checks of values (not those of shapes and dtypes) are left out.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding
from jax.typing import ArrayLike
from jaxtyping import Array, PyTree

__all__ = [
    "as_array",
    "as_choice",
    "as_counts",
    "as_float_dtype",
    "as_inputs",
    "as_key",
    "as_nonnegative",
    "as_number",
    "as_numeric",
    "as_params",
    "as_points",
    "as_positive",
    "as_scalar",
    "as_semidefinite",
    "as_steps",
    "as_symmetric",
    "as_whole",
    "check_fits",
    "check_known",
    "check_numbers",
    "check_params",
    "is_real",
    "of_several_outputs",
    "on_one_device",
    "output_of",
]


def is_real(dtype: object) -> bool:
    """Integers and floats; to NumPy a time span is an integer too, and a random key is neither."""
    integer = jnp.issubdtype(dtype, jnp.integer) and not jnp.issubdtype(dtype, np.timedelta64)
    return integer or jnp.issubdtype(dtype, jnp.floating)


def as_number(name: str, value: object) -> float:
    """``value`` as a finite float: a Python number or a scalar array.

    Raises ``TypeError`` for what is no real number, ``ValueError`` for NaN and infinity.
    """
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f"{name} needs a number known before the program runs, got a traced value")
    scalar = isinstance(value, int | float | np.number | np.ndarray | jax.Array)
    if not scalar or isinstance(value, bool) or np.ndim(value):
        raise TypeError(f"{name} needs a real number, got {value!r}")
    if not is_real(getattr(value, "dtype", float)):
        raise TypeError(f"{name} needs a real number, got {value!r}")
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError(f"{name} needs a finite number, got an integer beyond floats") from error
    if not math.isfinite(number):
        raise ValueError(f"{name} needs a finite number, got {number}")
    return number


def as_positive(name: str, value: object) -> float:
    """``value`` as a finite float above 0.

    Raises what ``as_number`` raises, and ``ValueError`` for 0 and below.
    """
    number = as_number(name, value)
    if number <= 0:
        raise ValueError(f"{name} needs a positive number, got {number}")
    return number


def as_whole(
    name: str, value: object, *, least: int, most: int = 2**31 - 1, meaning: str = ""
) -> int:
    """``value`` as an int from ``least`` to ``most``; ``meaning`` is added to the message.

    ``most`` is the largest number that JAX counts to. Raises ``TypeError`` for what is no integer,
    ``ValueError`` for one outside.
    """
    span = isinstance(value, np.timedelta64)  # an integer to NumPy
    if isinstance(value, bool) or span or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} needs an integer{meaning}, got {value!r}")
    if value < least:
        floor = "0 or more" if least == 0 else f"at least {least}"
        raise ValueError(f"{name} needs to be {floor}{meaning}, got {value}")
    if value > most:
        raise ValueError(f"{name} needs to be at most {most}{meaning}, got {value}")
    return int(value)


def as_counts(
    name: str, values: Sequence[int] | ArrayLike, *, least: int, most: int = 2**31 - 1
) -> tuple[int, ...]:
    """``values``, a sequence or a one-dimensional array, as integers from ``least`` to ``most``.

    Raises ``TypeError`` for what is no sequence of integers, ``ValueError`` for one outside.
    """
    try:
        numbers = np.asarray(values) if isinstance(values, np.ndarray | jax.Array) else values
        entries = tuple(numbers)
    except TypeError as error:
        raise TypeError(f"{name} needs a sequence of integers, got {values!r}") from error
    if isinstance(values, str | bytes | dict):
        raise TypeError(f"{name} needs a sequence of integers, got {values!r}")
    return tuple(
        as_whole(f"{name} needs integers: number {i}", n, least=least, most=most)
        for i, n in enumerate(entries)
    )


def as_steps(steps: Sequence[int]) -> tuple[int, ...]:
    """``steps`` as step counts in increasing order, at least one of them.

    Raises what ``as_counts`` raises, ``ValueError`` for no counts or counts that decrease.
    """
    counts = as_counts("steps", steps, least=0)
    if not counts or np.any(np.diff(counts) < 0):
        raise ValueError(f"steps needs step counts in increasing order, got {counts}")
    return counts


def check_fits(name: str, value: ArrayLike, dtype: object) -> None:
    """Raise ``ValueError`` for a finite number that a float of ``dtype`` cannot hold."""
    largest = float(jnp.finfo(dtype).max)
    if not isinstance(value, jax.core.Tracer) and largest < abs(value) < math.inf:
        raise ValueError(f"{name} needs a number that fits into {jnp.dtype(dtype)}, got {value}")


def as_scalar(name: str, value: ArrayLike, dtype: object) -> Array:
    """The number ``value`` as a JAX scalar of ``dtype``; raises what ``check_fits`` raises."""
    check_fits(name, value, dtype)
    return jnp.asarray(value, dtype)


def check_known(**values: object) -> None:
    """Raise ``TypeError`` for a traced value, in a function that does not run inside ``jit``."""
    for name, value in values.items():
        if isinstance(value, jax.core.Tracer):
            raise TypeError(f"{name} needs known numbers (no jit, no grad), got a traced array")


def as_key(name: str, value: object) -> Array:
    """``value``, one random key: of ``jax.random.key``, or of the older ``jax.random.PRNGKey``.

    Raises ``TypeError`` for what is no key, ``ValueError`` for an array of several.
    """
    kind = getattr(value, "dtype", type(value).__name__)
    new = not isinstance(kind, str) and jnp.issubdtype(kind, jax.dtypes.prng_key)
    try:
        jax.random.key_impl(value)  # of the older kind: are these the bits of a key?
    except (AttributeError, TypeError) as error:
        raise TypeError(f"{name} needs a random key, say jax.random.key(0), got {kind}") from error
    if np.ndim(value) != (0 if new else 1):
        raise ValueError(f"{name} needs one random key, got several, of shape {np.shape(value)}")
    return value


def as_float_dtype(name: str, value: object) -> np.dtype | None:
    """``value`` as a floating dtype that JAX has now; None stays, for JAX's default.

    Raises ``TypeError`` for anything else.
    """
    try:
        dtype = None if value is None else jnp.dtype(value)
    except TypeError as error:
        raise TypeError(f"{name} needs a floating dtype, got {value!r}") from error
    if dtype is None:
        return None
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name} needs a floating dtype, got {dtype}")
    return dtype


def as_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """``value`` as one of the words ``choices``.

    Raises ``TypeError`` for what is no string, ``ValueError`` for another word.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} needs one of {', '.join(choices)}, got {value!r}")
    if value not in choices:
        raise ValueError(f"{name} needs one of {', '.join(choices)}, got {value!r}")
    return value


def as_numeric(name: str, value: ArrayLike) -> np.ndarray | Array:
    """``value`` as a NumPy array of real numbers, finite or not; a tracer as it is.

    Foreign byte orders become the machine's own, and long doubles float64. Raises ``TypeError`` for
    what is not numeric, complex or boolean, ``ValueError`` for masked entries.
    """
    array = value if isinstance(value, jax.core.Tracer) else _as_numpy(name, value)
    if array.dtype == bool:
        raise TypeError(f"{name} needs real numbers, got dtype bool: numpy.asarray({name}, float)")
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{name} needs real numbers, got dtype {array.dtype}")
    if not is_real(array.dtype):
        raise TypeError(f"{name} needs a numeric array, got {_described(name, value)}")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        masked = np.ma.count_masked(value)
        raise ValueError(f"{name} needs a number in every place, got {masked} masked entries")
    return array


def _as_numpy(name: str, value: ArrayLike) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # random keys; ragged; tensors
        raise TypeError(f"{name} needs a numeric array, got {_described(name, value)}") from error
    if array.dtype == np.longdouble:  # JAX has nothing longer than float64
        with np.errstate(over="ignore"):
            return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _described(name: str, value: object) -> str:
    """What ``value`` is, and how to get numbers out of the tables and tensors that people have."""
    kind = type(value).__name__
    if hasattr(value, "detach"):
        return f"{kind} of {value.dtype}: {name}.detach().cpu().float().numpy() is one"
    if not (hasattr(value, "columns") and hasattr(value, "dtypes")):
        return kind
    for column, dtype in zip(value.columns, value.dtypes, strict=True):
        if not (isinstance(dtype, np.dtype) and is_real(dtype)):
            return (
                f"{kind} whose column {column!r} has dtype {dtype}: {name}.astype(float) for "
                f"numbers, pandas.get_dummies({name}).astype(float) for categories"
            )
    return kind


def as_array(name: str, value: ArrayLike, *, dtype: object = None) -> Array:
    """``value`` as a float array of ``dtype`` (default: its own, or JAX's default float).

    Raises ``TypeError`` for what is not numeric, complex or boolean, ``ValueError`` for NaN and
    infinity, also where they arise because ``dtype`` is too small.
    """
    array, traced = as_numeric(name, value), isinstance(value, jax.core.Tracer)
    if dtype is None:
        floating = jnp.issubdtype(array.dtype, jnp.floating) and not isinstance(value, list | tuple)
        dtype = jax.dtypes.canonicalize_dtype(array.dtype if floating else float)
    if not traced:
        with np.errstate(over="ignore", invalid="ignore"):
            array = array.astype(dtype, copy=False)
            total = np.sum(array)
        # a sum of finite numbers may overflow: only then are they looked at one by one
        bad = 0 if np.isfinite(total) else array.size - np.count_nonzero(np.isfinite(array))
        if bad:
            raise ValueError(f"{name} needs finite numbers, got {bad} NaN or infinite entries")
    if isinstance(value, jax.Array):
        return value.astype(dtype)
    return jnp.array(array)  # a copy: jnp.asarray would follow later changes of the caller's array


def as_nonnegative(name: str, value: ArrayLike, *, infinite: bool = False) -> float | Array:
    """``value`` as a float that is 0 or more, and finite unless ``infinite``; a tracer as it is.

    Raises what ``as_number`` raises, and ``ValueError`` for a negative number.
    """
    if isinstance(value, jax.core.Tracer):
        return value
    allowed = infinite and isinstance(value, float) and value == math.inf
    number = value if allowed else as_number(name, value)
    if number < 0:
        raise ValueError(f"{name} needs a number that is 0 or more, got {number}")
    return number


def as_symmetric(name: str, value: ArrayLike) -> Array:
    """``value`` as a float array of shape (n, n), symmetric to rounding.

    Raises what ``as_array`` raises, and ``ValueError`` for another shape, an empty matrix or one
    that differs from its transpose.
    """
    array = as_array(name, value)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not array.size:
        hint = of_several_outputs(name, array.shape)
        raise ValueError(f"{name} needs shape (n, n), got {array.shape}{hint}")
    if not isinstance(array, jax.core.Tracer):
        matrix = np.asarray(array)
        tolerance = 100 * np.finfo(matrix.dtype).eps * np.abs(matrix).max()
        if np.abs(matrix - matrix.T).max() > tolerance:
            raise ValueError(
                f"{name} needs a symmetric matrix, got one that differs from its transpose"
            )
    return array


def as_semidefinite(name: str, value: ArrayLike) -> Array:
    """``value`` as a symmetric float array without negative eigenvalues, up to rounding.

    Raises what ``as_symmetric`` raises, and ``ValueError`` for an eigenvalue below -n√ε times the
    largest entry.
    """
    array = as_symmetric(name, value)
    if not isinstance(array, jax.core.Tracer):
        matrix = np.asarray(array)
        # √eps: what rounding does to the angle between nearly parallel points
        floor = -len(matrix) * np.sqrt(np.finfo(matrix.dtype).eps) * np.abs(matrix).max()
        if (least := np.linalg.eigvalsh(matrix)[0]) < floor:
            raise ValueError(
                f"{name} needs a positive semi-definite matrix, got an eigenvalue of {least:.3g}"
            )
    return array


def of_several_outputs(name: str, shape: tuple[int, ...]) -> str:
    """What to add to a refusal of ``shape``, where it is that of a kernel of all pairs of outputs.

    Empty for a shape of other than four axes.
    """
    if len(shape) != 4:
        return ""
    return f": tangent_kernels.as_matrix({name}) and targets.reshape(-1) take all outputs at once"


def as_inputs(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    forbid_zero: bool = False,
    names: tuple[str, str] = ("x", "y"),
) -> tuple[Array, Array | None]:
    """``x`` of shape (n, d) and ``y`` of shape (m, d) as float arrays of one dtype, the wider.

    Floats of 16 bits become float32: their range and digits are too few for squares and angles.
    ``names`` are what the caller calls them.

    Raises what ``as_array`` raises and ``ValueError`` for a wrong rank, an empty array, different
    d, points whose squared norm overflows and, with ``forbid_zero``, points whose squared norm is
    zero (no angle can be taken with them).
    """
    given = zip(names, (x,) if y is None else (x, y), strict=False)
    arrays = {name: as_array(name, value) for name, value in given}
    single = np.dtype(np.float32)
    dtype = max(single, *(array.dtype for array in arrays.values()), key=lambda kind: kind.itemsize)
    for name, array in arrays.items():
        if array.ndim != 2:
            raise ValueError(f"{name} needs shape (points, features), got {array.shape}")
        if array.size == 0:
            raise ValueError(f"{name} needs at least one point and one feature, got {array.shape}")
        arrays[name] = array.astype(dtype)
        if not isinstance(array, jax.core.Tracer):
            _check_norms(name, np.asarray(arrays[name]), forbid_zero)
    x, y = arrays[names[0]], arrays.get(names[1])
    if y is not None and x.shape[1] != y.shape[1]:
        first, second = names
        raise ValueError(f"{second} needs the {x.shape[1]} features of {first}, got {y.shape[1]}")
    return x, y


def as_points(name: str, points: ArrayLike, *, like: Array) -> Array:
    """``points`` of shape (m, d) in the dtype of ``like``, which has shape (n, d).

    Raises what ``as_array`` raises, ``ValueError`` for another shape or no points.
    """
    points = as_array(name, points, dtype=like.dtype)
    if points.ndim != 2 or not len(points) or points.shape[1] != like.shape[1]:
        raise ValueError(f"{name} needs shape (points, {like.shape[1]}), got {points.shape}")
    return points


def _check_norms(name: str, points: np.ndarray, forbid_zero: bool) -> None:
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("nd,nd->n", points, points)  # no array of all squares
    if not np.all(np.isfinite(squares)):
        row = int(np.argmin(np.isfinite(squares)))
        raise ValueError(
            f"{name} needs points whose squared norm fits into {points.dtype}, got one that "
            f"overflows in row {row}"
        )
    if forbid_zero and not np.all(squares > 0):
        raise ValueError(
            f"{name} needs nonzero points when beta is 0 (this kernel takes angles), got a squared "
            f"norm of zero in row {int(np.argmin(squares))}"
        )


def on_one_device(name: str, value: PyTree) -> PyTree:
    """The pytree with each array that is spread over devices brought to the first of them.

    Raises ``ValueError`` for an array of which a part lies on another host.
    """

    def brought(leaf: object) -> object:
        if not isinstance(leaf, jax.Array) or isinstance(leaf, jax.core.Tracer):
            return leaf
        devices = leaf.sharding.device_set
        if len(devices) == 1:
            return leaf
        if not leaf.is_fully_addressable:
            raise ValueError(
                f"{name} needs arrays that this host holds, got one over {len(devices)} devices of "
                "several hosts: jax.experimental.multihost_utils.process_allgather brings it here"
            )
        first = SingleDeviceSharding(min(devices, key=lambda device: device.id))
        # the part, since the array that device_put gives may still know the axes of the mesh
        return jax.device_put(leaf, first).addressable_shards[0].data

    return jax.tree.map(brought, value)


# What is found among parameters, and the way out.
_SPLIT = "params, rest = eqx.partition(model, eqx.is_inexact_array), and eqx.combine(p, rest) in f"
_NNX = "(flax.nnx: graph, params, rest = nnx.split(model, nnx.Param, ...), nnx.merge in f)"
_NOT_TRAINED = (
    f"leave out what is not trained, a counter say, and let f read it from outside {_NNX}"
)


def _check_param(name: str, where: str, leaf: object) -> None:
    number = isinstance(leaf, int | float | complex)
    kind = getattr(leaf, "dtype", jnp.result_type(leaf) if number else type(leaf).__name__)
    if type(leaf).__module__.partition(".")[0] == "torch":
        got = f"torch's {type(leaf).__name__}{where}"
        raise TypeError(f"{name} needs float arrays of JAX or NumPy, got {got}: w.detach().numpy()")
    if isinstance(kind, str):
        way_out = f": equinox: {_SPLIT}" if callable(leaf) else ""
        raise TypeError(f"{name} needs float arrays, got {kind}{where}{way_out}")
    if jnp.issubdtype(kind, jax.dtypes.prng_key):
        raise TypeError(f"{name} needs float arrays, got a random key{where}: {_NOT_TRAINED}")
    if not jnp.issubdtype(kind, jnp.floating):
        way_out = f": {_NOT_TRAINED}" if jnp.issubdtype(kind, jnp.integer) else ""
        raise TypeError(f"{name} needs float arrays, got {kind}{where}{way_out}")


def as_params(params: PyTree, *, name: str = "params") -> PyTree:
    """The pytree with each leaf, a float array or a Python number, as a JAX array.

    Raises ``TypeError`` for a leaf that is not real and floating, naming its path, ``ValueError``
    for no leaf.
    """
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    if not leaves:
        raise ValueError(f"{name} needs at least one array, got an empty pytree")
    for path, leaf in leaves:
        _check_param(name, f" at {jax.tree_util.keystr(path)}" if path else "", leaf)
    return jax.tree.map(lambda w: jnp.asarray(w, jnp.result_type(w)), params)


def check_numbers(
    *, depth: int, gain: ArrayLike, beta: ArrayLike
) -> tuple[float | Array, float | Array]:
    """Gain and β as floats, or traced as they are, the depth checked.

    Raises ``TypeError`` for a depth that is not an integer or a gain or β that is not a number,
    ``ValueError`` for depth < 1, gain ≤ 0, β < 0, or a value that is not finite.
    """
    if isinstance(depth, bool) or not isinstance(depth, int | np.integer):
        raise TypeError(f"depth needs an integer, the number of weight layers, got {depth!r}")
    as_whole("depth", depth, least=1, meaning=" weight layer")
    if not isinstance(gain, jax.core.Tracer):
        gain = as_positive("gain", gain)
    return gain, as_nonnegative("beta", beta)


def check_params(params: Sequence) -> None:
    """A network is a non-empty sequence of layers (W, b) of float arrays.

    Raises ``TypeError`` for anything else, ``ValueError`` for an empty sequence and for layers
    whose shapes do not fit: W (n_out, n_in), b (n_out,), n_in the n_out of the layer before.
    """
    if not isinstance(params, list | tuple):
        raise TypeError(f"params needs a list of layers, got {type(params).__name__}")
    if not params:
        raise ValueError("params needs at least one layer, got none")
    width = None
    for i, layer in enumerate(params):
        if not (hasattr(layer, "W") and hasattr(layer, "b")):
            raise TypeError(f"params needs layers with W and b, got {type(layer).__name__}")
        for array in (layer.W, layer.b):
            kind = getattr(array, "dtype", None)
            if kind is None:
                raise TypeError(f"params needs float arrays, got {type(array).__name__}")
            if not jnp.issubdtype(kind, jnp.floating):
                raise TypeError(f"params needs float arrays, got dtype {kind}")
        shape = layer.W.shape
        if len(shape) != 2 or 0 in shape or layer.b.shape != shape[:1]:
            raise ValueError(
                "params needs W of shape (n_out, n_in) and b of shape (n_out,), got "
                f"{shape} and {layer.b.shape} in layer {i}"
            )
        if width not in (None, shape[1]):
            raise ValueError(
                f"params needs layers that fit, got {shape[1]} inputs in layer {i} after "
                f"{width} outputs"
            )
        width = shape[0]


def output_of(name: str, function: Callable, *arguments: PyTree) -> PyTree:
    """Shapes and dtypes of what ``function`` gives for the arguments, without computing it.

    Raises ``TypeError`` for an output that is no array, and what the function itself raises.
    """

    def looked_at(*given: PyTree) -> PyTree:
        for leaf in jax.tree.leaves(output := function(*given)):
            if not isinstance(leaf, jax.Array | np.ndarray | np.number | int | float | complex):
                raise TypeError(f"{name} needs to give arrays, got {type(leaf).__name__}")
        return output

    # new at each call: JAX keeps an answer by the function's identity, whatever it reads now
    return jax.eval_shape(looked_at, *arguments)

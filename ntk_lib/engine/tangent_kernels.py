"""Tangent kernels of any function, without a Jacobian of all points at once.

Serves the chapters ``gradient_flow``, ``limiting_ntk`` and ``scale``, and whoever has a model in
JAX. For f(x; w) with k outputs the empirical neural tangent kernel (NTK) at the parameters w is

    Θ(x, x')_ab = Σ_p ∂f_a(x)/∂w_p · ∂f_b(x')/∂w_p        (Jacot et al. 2018, section 4).

``empirical_ntk`` computes it in blocks of points, in three ways (Novak, Sohl-Dickstein and
Schoenholz 2022): the layers are found in f's trace (``structure``), so that no Jacobian of their
weights is held; the Jacobians of two blocks are multiplied; or those of one block are pushed
through f as tangent vectors. ``tangent_product`` is Θ times a vector and holds no kernel either.
"""

import functools
import math
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from ntk_lib.engine import structure
from ntk_lib.engine.arguments import as_array, as_choice, as_params, on_one_device, output_of
from ntk_lib.engine.programs import Program, Traced, run, traced

__all__ = [
    "METHODS",
    "OUTPUTS",
    "as_matrix",
    "empirical_ntk",
    "sums_in",
    "tangent_product",
    "upper_mirrored",
]

OUTPUTS = ("full", "trace", "diagonal")
METHODS = ("auto", "structure", "contraction", "products")

# The Jacobian of a block of points may take this many bytes; one point's may take more.
_BLOCK_BYTES = 2**28
# With at most so many multiplications either way takes milliseconds: not worth asking what f costs.
_SMALL = 10**7
# What a multiplication of f costs when tangents are pushed through it, in multiplications of a
# contraction, measured: little where each weight is used once for a point (2 operations), as in
# dense layers; much where it is used at many places, for a convolution with another tangent for
# each direction is no large product of matrices.
_USED_ONCE, _ONCE, _SHARED = 2.5, 0.8, 24

# Points that are looked at to see whether f treats each by itself.
_LOOKED_AT = 4
# What a float32 may lose where products of matrices are not computed in float32 (TF32, bfloat16).
_FAST_PRODUCTS = 2.0**-10

# ---------------------------------------------------------------- arguments


def _is_pytree(value: object) -> bool:
    """Several arrays with one leading axis; lists, and tuples of numbers, are one array."""
    if isinstance(value, list):
        return False
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return any(np.ndim(leaf) for leaf in jax.tree.leaves(value) if hasattr(leaf, "shape"))
    return value is not None and not jax.tree_util.all_leaves([value])


def _array(name: str, where: str, value: object) -> Array:
    """Inputs of any kind, one a row: pixels and tokens keep their dtype."""
    try:
        with np.errstate(over="ignore"):  # what overflows is refused below
            array = jnp.asarray(value)
    except (OverflowError, TypeError, ValueError) as error:
        got = f"{type(value).__name__}{where}"
        raise TypeError(f"{name} needs a numeric array, got {got}") from error
    if jnp.issubdtype(array.dtype, jnp.floating):
        as_array(name, array)  # finite?
    if array.ndim == 0 or len(array) == 0:
        got = f"{array.shape}{where}"
        raise ValueError(f"{name} needs at least one input, one a row, got shape {got}")
    return array


def _batch(name: str, value: PyTree) -> PyTree:
    """Inputs, one a row: an array, or a pytree of arrays with one leading axis."""
    value = on_one_device(name, value)
    if not _is_pytree(value):
        return _array(name, "", value)
    leaves, structure = jax.tree_util.tree_flatten_with_path(value)
    if not leaves:
        raise ValueError(f"{name} needs at least one array, got an empty {type(value).__name__}")
    paths = [jax.tree_util.keystr(path) for path, _ in leaves]
    arrays = [
        _array(name, f" at {path}", leaf) for path, (_, leaf) in zip(paths, leaves, strict=True)
    ]
    for path, array in zip(paths, arrays, strict=True):
        if len(array) != len(arrays[0]):
            raise ValueError(
                f"{name} needs one leading axis, that of the points, in all its arrays, got "
                f"{len(array)} at {path} and {len(arrays[0])} at {paths[0]}: give each point its "
                "own row, and let f read what all points share from outside"
            )
    return jax.tree.unflatten(structure, arrays)


def _check_alike(x: PyTree, y: PyTree) -> None:
    """``y`` is made up as ``x`` is."""
    if jax.tree.structure(x) == jax.tree.structure(y):
        return
    mine, others = (
        [jax.tree_util.keystr(path) or "an array" for path, _ in leaves]
        for leaves, _ in map(jax.tree_util.tree_flatten_with_path, (x, y))
    )
    odd = [path for path in [*mine, *others] if (path in mine) != (path in others)]
    found = f"{odd[0]} in {'x' if odd[0] in mine else 'y'} alone" if odd else type(y).__name__
    raise ValueError(f"y needs the structure of x, got {found}")


def _count(points: PyTree) -> int:
    return len(jax.tree.leaves(points)[0])


def _in_words(inputs: PyTree) -> str:
    if hasattr(inputs, "shape"):
        return f"of shape {inputs.shape}"
    shapes = jax.tree_util.tree_flatten_with_path(inputs)[0]
    return "of " + ", ".join(f"{leaf.shape} at {jax.tree_util.keystr(p)}" for p, leaf in shapes)


def _fits(out: PyTree, points: int) -> bool:
    """Is it one array of real floats, (points,) or (points, k)?"""
    shape = getattr(out, "shape", ())
    rows = len(shape) in (1, 2) and shape[0] == points and 0 not in shape
    return rows and jnp.issubdtype(out.dtype, jnp.floating)


def _output(f: Callable[[Any, Any], Array], params: PyTree, inputs: PyTree, name: str):
    """Shape and dtype of f's output for ``inputs``, checked."""
    out, points = output_of("f", f, params, inputs), _count(inputs)
    if _fits(out, points):
        return out
    shape = getattr(out, "shape", None)
    if shape is not None and len(shape) in (1, 2) and shape[0] == points and 0 not in shape:
        raise TypeError(f"f needs to give real floats, got {out.dtype}")
    got, way_out = type(out).__name__ if shape is None else shape, ""
    if isinstance(out, tuple | dict):
        parts = ", ".join(map(repr, out)) if isinstance(out, dict) else len(out)
        got = f"a {got} of {parts}"
        way_out = ": return only the logits, without a state or a dictionary"
    elif shape and len(shape) > 2 and shape[0] == points and 0 not in shape:
        way_out = ": make it one row a point, out.reshape(n, T*V) for T places of V logits"
    raise ValueError(
        f"f needs to map {name} {_in_words(inputs)} to ({points},) or ({points}, outputs), "
        f"got {got}{way_out}"
    )


def _outputs(f: Callable[[Any, Any], Array], params: PyTree, x: PyTree, y: PyTree | None):
    """Shape and dtype of f(x), that of f(y) being like it."""
    out = _output(f, params, x, "x")
    if y is not None:
        other = _output(f, params, y, "y")
        if other.shape[1:] != out.shape[1:]:
            raise ValueError(
                f"f needs as many outputs for y as for x, got {other.shape} and {out.shape}"
            )
    return out


def _checked(f: Callable[[Any, Any], Array], params: PyTree, x: PyTree, y: PyTree | None):
    """The arguments as arrays."""
    if not callable(f):
        raise TypeError(f"f needs a function of (params, x), got {type(f).__name__}")
    given, params = params, on_one_device("params", as_params(params))
    _warn_of_statistics(given)
    x, y = _batch("x", x), None if y is None else _batch("y", y)
    if y is not None:
        _check_alike(x, y)
    return params, x, y


def _traced(*values: PyTree) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


# ---------------------------------------------------------------- statistics among the parameters

_RUNNING = re.compile("batch_stats|(running|moving)_(mean|var|variance)")


def _is_variable(node: object) -> bool:
    """A variable of Flax, which knows what it is for."""
    kinds = {kind.__name__ for kind in type(node).__mro__ if kind.__module__.startswith("flax")}
    return bool(kinds & {"Variable", "VariableState"})


def _statistics(params: PyTree) -> list[str]:
    """Where among the parameters there are running means and variances, or may be."""
    if isinstance(params, Mapping) and "params" in params:  # Flax: variables, not parameters
        others = (k for k, v in params.items() if k != "params" and jax.tree.leaves(v))
        if found := [f"[{name!r}]" for name in others]:
            return found
    nodes = jax.tree_util.tree_flatten_with_path(params, is_leaf=_is_variable)[0]
    named = [
        (path[: len(steps) - 1], path[-1], steps, node)
        for steps, node in nodes
        for path in [[_name_of(step) for step in steps]]
        if path
    ]
    siblings: dict[tuple, set] = {}
    for above, name, _, _ in named:
        siblings.setdefault(tuple(above), set()).add(name)
    found = []
    for above, name, steps, node in named:
        beside = siblings[tuple(above)]
        normalised = {"mean", "var"} <= beside and beside & {"scale", "bias"}
        kinds = (type(node).__name__, getattr(getattr(node, "type", None), "__name__", ""))
        if (
            any(_RUNNING.fullmatch(part) for part in (*above, name))
            or (normalised and name in ("mean", "var"))
            or (_is_variable(node) and "BatchStat" in kinds)
        ):
            found.append(jax.tree_util.keystr(steps))
    return found


def _name_of(step: object) -> str:
    """A part of a leaf's path: the key of a dictionary, the name of an attribute, a number."""
    return str(next((getattr(step, a) for a in ("key", "name", "idx") if hasattr(step, a)), step))


def _warn_of_statistics(params: PyTree) -> None:
    if found := _statistics(params):
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        warnings.warn(
            f"params needs what is trained, got {', '.join(found[:3])}{more}: running statistics "
            "would be counted as parameters, which changes the kernel. Fix them in f: "
            "lambda p, x: model.apply({'params': p, 'batch_stats': stats}, x)",
            UserWarning,
            stacklevel=4,
        )


# ---------------------------------------------------------------- f as programs


class _Model(NamedTuple):
    """f as it is now, traced.

    ``forward`` at a few points; ``pull``, at one of them, gives the gradient of a combination of
    its outputs, and the outputs; ``push`` their change along a vector of parameters; ``single`` is
    f at one point.
    """

    forward: Traced
    pull: Traced
    push: Traced | None = None
    single: Traced | None = None


def _kinds(points: PyTree) -> list:
    return [(leaf.shape[1:], leaf.dtype) for leaf in jax.tree.leaves(points)]


def _looked_at(x: PyTree, y: PyTree | None) -> PyTree:
    """A few points of x and y, at least two, of shapes that fit together."""
    both = y is not None and _kinds(x) == _kinds(y)
    share = _LOOKED_AT // 2 if both else _LOOKED_AT

    def rows(points: PyTree) -> PyTree:
        n = _count(points)
        index = np.linspace(0, n - 1, min(n, share)).astype(int)
        index = index if both or n > 1 else np.zeros(2, int)
        return jax.tree.map(lambda leaf: leaf[index], points)

    if not both:
        return rows(x)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), rows(x), rows(y))


def _model(
    f: Callable, params: PyTree, x: PyTree, y: PyTree | None, *, derivatives: bool
) -> tuple[_Model, PyTree]:
    """f traced anew, its outputs checked, and the few points at which it is."""
    points = _looked_at(x, y)
    try:
        forward = traced(f, params, points, derivatives=derivatives)
    except TypeError:
        _outputs(f, params, x, y)  # says what f gives
        raise
    same = y is None or _kinds(x) == _kinds(y)
    out = forward.gives if same else _outputs(f, params, x, y)
    if same and not _fits(out, _count(points)):
        _outputs(f, params, x, y)
        _output(f, params, points, "points of x")

    def pull(params: PyTree, point: PyTree, weights: Array) -> tuple[PyTree, Array]:
        alone = jax.tree.map(lambda leaf: leaf[None], point)
        out, back = jax.vjp(lambda p: f(p, alone).reshape(-1), params)
        return back(weights)[0], out

    point = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), points)
    weights = jax.ShapeDtypeStruct((math.prod(out.shape[1:]),), out.dtype)
    return _Model(forward, traced(pull, params, point, weights, derivatives=derivatives)), points


def _with_push(
    model: _Model, f: Callable, params: PyTree, points: PyTree, *, derivatives: bool
) -> _Model:
    """The model with f's derivative along a vector of parameters, at so many ``points``."""

    def push(params: PyTree, vector: PyTree, points: PyTree) -> Array:
        def forward(p: PyTree) -> Array:
            return f(p, points).reshape(_count(points), -1)

        return jax.jvp(forward, (params,), (vector,))[1]

    return model._replace(push=traced(push, params, params, points, derivatives=derivatives))


def _with_single(
    model: _Model, f: Callable, params: PyTree, points: PyTree, *, derivatives: bool
) -> _Model:
    """The model with f at one point, whose outputs are a vector."""

    def single(params: PyTree, point: PyTree) -> Array:
        return f(params, jax.tree.map(lambda leaf: leaf[None], point)).reshape(-1)

    point = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), points)
    return model._replace(single=traced(single, params, point, derivatives=derivatives))


# ---------------------------------------------------------------- each point by itself


@jax.jit
def _differences(model: _Model, params: PyTree, points: PyTree) -> Array:
    """Size of f's outputs, and how they change with the batch: turned round, and point by point."""

    def outputs(points: PyTree) -> Array:
        return model.forward(params, points).reshape(_count(points), -1)

    def alone(point: PyTree) -> Array:
        return model.pull(params, point, jnp.zeros(together.shape[1], together.dtype))[1]

    together = outputs(points)
    turned = outputs(jax.tree.map(lambda leaf: leaf[::-1], points))[::-1]
    together, turned, single = (
        t.astype(sums_in(t.dtype)) for t in (together, turned, jax.vmap(alone)(points))
    )
    return jnp.stack([jnp.abs(t).max() for t in (together, turned - together, single - together)])


@jax.jit
def _parts(model: _Model, params: PyTree, points: PyTree) -> Array:
    """How large the parts are that f's outputs are made of: the largest |∂f/∂w · w| of a leaf w."""
    outputs = model.pull.program.takes[1][-1]

    def one(point: PyTree) -> Array:
        slopes, _ = model.pull(params, point, jnp.ones(outputs.shape, outputs.dtype))
        products = jax.tree.map(lambda g, w: jnp.abs(jnp.sum(g * w)), slopes, params)
        return jnp.stack([t.astype(jnp.float32) for t in jax.tree.leaves(products)]).max()

    return jax.vmap(one)(points).max()


def _check_each_by_itself(model: _Model, params: PyTree, points: PyTree) -> None:
    """Raise ``ValueError`` for an f whose output at a point depends on the rest of the batch."""
    precision = max(model.forward.program.precision, model.pull.program.precision)
    if jax.default_backend() != "cpu":
        precision = max(precision, _FAST_PRODUCTS)
    size, turned, alone = np.asarray(_differences(model, params, points)).tolist()
    if math.isfinite(size):  # numbers that a point alone does not have: over a deviation of 0
        turned, alone = (math.inf if math.isnan(t) else t for t in (turned, alone))
    root = math.sqrt(precision)
    if not max(turned, alone) > root * size:  # a comparison with NaN is false
        return
    # where the outputs are small differences of large parts, rounding is measured by the parts
    most = root * max(size, float(_parts(model, params, points)))
    if not max(turned, alone) > most:
        return
    when = "when the batch is turned round" if turned > most else "when a point comes alone"
    raise ValueError(
        f"f needs to treat the points of a batch one by one, got outputs that change by "
        f"{max(turned, alone) / size:.2g} of their size {when}: (1) batch norm in training mode: "
        "take the running statistics (evaluation mode); (2) one random key for the whole batch "
        "(dropout): leave it out, or make a key a point a part of x; (3) a mean over the batch: "
        "take a fixed one. tangent_product allows an f that couples its points"
    )


# ---------------------------------------------------------------- the choice


class _Plan(NamedTuple):
    """Whether by products with vectors, and how many points a block of rows and columns has."""

    products: bool
    rows: int
    columns: int


@functools.lru_cache(maxsize=256)
def _cost(program: Program) -> tuple[float, float]:
    """Operations of a program, and the bytes it moves: XLA's own count, NaN where none."""
    cost = jax.jit(program).lower(*program.takes).cost_analysis()
    if isinstance(cost, list | tuple):  # one for each device, in some versions of JAX
        cost = cost[0] if cost else None
    flops, moved = ((cost or {}).get(name, math.nan) for name in ("flops", "bytes accessed"))
    return flops, moved


def _cost_of_a_point(f: Callable, params: PyTree, x: PyTree) -> tuple[float, float]:
    """Operations of f(x) for a point, and the bytes it moves, known for a program from then on."""
    flops, moved = _cost(traced(f, params, x).program)
    return flops / _count(x), moved / _count(x)


def _is_small(params: PyTree, n: int, m: int, k: int, outputs: str) -> bool:
    """Is the contraction done in milliseconds?"""
    leaves = jax.tree.leaves(params)
    per_pair = sum(leaf.size for leaf in leaves) * k * (k if outputs == "full" else 1)
    weights = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    return n * m * per_pair <= _SMALL and max(n, m) * k * weights <= 2**20


def _by_layers(
    f: Callable, model: _Model, params: PyTree, x: PyTree, m: int, outputs: str, method: str
) -> structure.Plan | None:
    """The plan by layers, unless there are none, or "auto" finds products with vectors cheaper."""
    leaves, out = jax.tree.leaves(params), model.forward.gives
    k, item = math.prod(out.shape[1:]), sums_in(out.dtype).itemsize
    found = structure.planned(
        model.single, len(leaves), (_count(x), m), outputs, item, _BLOCK_BYTES
    )
    if found is None or method != "auto":
        return found and found[0]
    plan, cost = found
    flops, size = _cost_of_a_point(f, params, x)[0], sum(leaf.size for leaf in leaves)
    factor = _ONCE if flops <= _USED_ONCE * size else _SHARED
    return None if factor * k * flops / 2 < cost else plan  # a comparison with NaN is false


def _plan(
    f: Callable, params: PyTree, x: PyTree, m: int, k: int, outputs: str, method: str
) -> _Plan:
    n, leaves = _count(x), jax.tree.leaves(params)
    size = sum(leaf.size for leaf in leaves)
    weights = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    per_pair = size * k * (k if outputs == "full" else 1)
    if method != "products" and _is_small(params, n, m, k, outputs):
        return _Plan(False, n, m)
    flops, moved = _cost_of_a_point(f, params, x)
    if method == "auto":  # a comparison with NaN is false
        factor = _ONCE if flops <= _USED_ONCE * size else _SHARED
        method = "products" if factor * k * flops / 2 <= per_pair else "contraction"
    moved = weights if math.isnan(moved) else moved
    rows = structure.even(n, _BLOCK_BYTES / (k * max(weights, moved)))
    if method == "contraction":
        return _Plan(False, rows, rows if n == m else structure.even(m, rows))
    # many columns make large products; what f holds for a block is a part of what it moves for it
    return _Plan(
        True, rows, structure.even(m, min(max(rows, 64), 8 * _BLOCK_BYTES / (rows * k * moved)))
    )


def _is_half(dtype: np.dtype) -> bool:
    return bool(jnp.finfo(dtype).eps > jnp.finfo(jnp.float32).eps)


def sums_in(dtype: np.dtype) -> np.dtype:
    """The dtype of sums over parameters, and of the kernel: float32 for half precision.

    Raises nothing.
    """
    return jnp.dtype("float32") if _is_half(dtype) else dtype


def _method(method: str, params: PyTree, dtype: np.dtype, model: _Model) -> str:
    """The method, where half precision leaves no choice: its sums need to be those of float32."""
    half = {t.dtype.name for t in jax.tree.leaves(params) if _is_half(t.dtype)}
    half |= {dtype.name} if _is_half(dtype) else set()
    if half and method == "products":
        raise ValueError(
            f"method needs to be auto or contraction in half precision, got products with "
            f"{', '.join(sorted(half))}: the products sum over the parameters in f's own precision"
        )
    inside = model.pull.program.precision > jnp.finfo(jnp.float32).eps
    return "contraction" if method == "auto" and (half or inside) else method


# ---------------------------------------------------------------- the kernel


def _jacobian(model: _Model, params: PyTree, points: PyTree) -> PyTree:
    """∂f/∂w of each point by itself: leaves of shape (points, k, *shape of the parameter)."""
    outputs = model.pull.program.takes[1][-1]

    def one(point: PyTree) -> PyTree:
        rows = jnp.eye(*outputs.shape, dtype=outputs.dtype)
        return jax.vmap(lambda row: model.pull(params, point, row)[0])(rows)

    return jax.vmap(one)(points)


def _contract(left: PyTree, right: PyTree, dtype: np.dtype, outputs: str) -> Array:
    """Σ_p of two Jacobians: (b, c, k, k), (b, c, k) or (b, c)."""
    left, right = (
        [(t.reshape(*t.shape[:2], -1).astype(dtype),) for t in jax.tree.leaves(jacobian)]
        for jacobian in (left, right)
    )
    return structure.contract(left, right, [None] * len(left), outputs)


def _push(model: _Model, params: PyTree, left: PyTree, points: PyTree, outputs: str) -> Array:
    """The same, each row of the Jacobian ``left`` pushed through f at ``points`` as a tangent."""

    def push(vector: PyTree) -> Array:
        return model.push(params, vector, points)

    pushed = jax.vmap(jax.vmap(push))(left)  # (b, k, c, k)
    if outputs == "full":
        return pushed.transpose(0, 2, 1, 3)
    diagonal = jnp.diagonal(pushed, axis1=1, axis2=3)
    return diagonal.sum(2) if outputs == "trace" else diagonal


def _columns(points: PyTree, size: int) -> PyTree:
    """The shapes and dtypes of a block of ``size`` points."""
    return jax.tree.map(lambda t: jax.ShapeDtypeStruct((size, *t.shape[1:]), t.dtype), points)


def _cut(points: PyTree, size: int) -> PyTree:
    """Blocks of ``size`` rows; the last row fills up the last block."""
    blocks = math.ceil(_count(points) / size)
    index = jnp.minimum(jnp.arange(blocks * size), _count(points) - 1)
    return jax.tree.map(lambda t: t[index].reshape(blocks, size, *t.shape[1:]), points)


@jax.jit
def upper_mirrored(theta: Float[Array, "n n *kk"]) -> Float[Array, "n n *kk"]:
    """Θ with its lower part replaced: Θ[i, j, a, b] = Θ[j, i, b, a] to the last bit.

    ``theta`` has shape (n, n), (n, n, k) or (n, n, k, k), and so has the result. What stands where
    i > j is not looked at; where i = j the result is the mean of Θ[i, i] and its transpose.
    """
    # XLA may compute the transpose of a product as a product, with another rounding, where both
    # are in one program: therefore it is a program of its own, and inside another this is a hint
    theta = jax.lax.optimization_barrier(theta)
    shape = (len(theta), len(theta), *[1] * (theta.ndim - 2))
    row, column = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    upper = jnp.where(
        row < column, theta, jnp.where(row == column, theta / 2, jnp.zeros_like(theta))
    )
    return upper + upper.transpose(1, 0, *range(theta.ndim - 1, 1, -1))


@functools.partial(jax.jit, static_argnames=("outputs", "plan", "dtype"))
def _kernel(
    model: _Model,
    params: PyTree,
    x: PyTree,
    y: PyTree | None,
    *,
    outputs: str,
    plan: _Plan | structure.Plan,
    dtype: np.dtype,
) -> Array:
    """Θ by the plan; without ``y`` what stands below the diagonal may be left out, as zero."""
    by_layers = isinstance(plan, structure.Plan)
    products = not by_layers and plan.products

    def of(points: PyTree) -> PyTree:
        if by_layers:
            return structure.signals(model.single, params, points, dtype=dtype)
        return _jacobian(model, params, points)

    def contracted(left: PyTree, right: PyTree) -> Array:
        if by_layers:
            return structure.contract(left, right, plan.slices, outputs)
        return _contract(left, right, dtype, outputs)

    def pair(jacobian: PyTree, points: PyTree) -> Array:
        if products:
            return _push(model, params, jacobian, points, outputs).astype(dtype)
        return contracted(jacobian, of(points))

    others = x if y is None else y
    if (plan.rows, plan.columns) == (_count(x), _count(others)):  # a single block
        jacobian = of(x)
        if y is None and not products:
            return contracted(jacobian, jacobian)
        return pair(jacobian, others)
    rows, columns = _cut(x, plan.rows), _cut(others, plan.columns)
    across, along = _count(rows), _count(columns)

    def row(block: tuple[Array, PyTree]) -> Array:
        number, points = block
        jacobian = of(points)
        empty = jax.eval_shape(pair, jacobian, jax.tree.map(lambda t: t[0], columns))

        def column(block: tuple[Array, PyTree]) -> Array:
            other, points = block
            if y is not None:
                return pair(jacobian, points)
            below = (other + 1) * plan.columns <= number * plan.rows
            return jax.lax.cond(
                below, lambda: jnp.zeros(empty.shape, empty.dtype), lambda: pair(jacobian, points)
            )

        return jax.lax.map(column, (jnp.arange(along), columns))

    theta = jax.lax.map(row, (jnp.arange(across), rows))  # (blocks, blocks, b, c, …)
    theta = jnp.moveaxis(theta, 2, 1)
    theta = theta.reshape(across * plan.rows, along * plan.columns, *theta.shape[4:])
    return theta[: _count(x), : _count(others)]


def empirical_ntk(
    f: Callable[[Any, Any], Array],
    params: PyTree,
    x: PyTree,
    y: PyTree | None = None,
    *,
    outputs: str = "full",
    method: str = "auto",
) -> Float[Array, "n m *kk"]:
    """The tangent kernel Θ(x, y) of any function f at ``params``, by its definition.

    ``f(params, x)`` maps a batch (n, …) to outputs (n,) or (n, k); ``params`` is a pytree of float
    arrays, ``x`` and ``y`` are batches of n and m points of any dtype; without ``y`` the kernel of
    ``x`` with itself, symmetric to the last bit (inside ``jit`` to rounding). The units are those
    of f² over those of w². A batch is an array, or a pytree of arrays with one leading axis, made
    up alike for ``x`` and ``y``: {"ids": …, "mask": …}, (A, X), a dataclass. Lists, and tuples of
    numbers, are one array. What is spread over several devices is brought to the first.
    ``outputs`` says what is kept of the k outputs:

    - "full": Θ_ab, shape (n, m, k, k), and (n, m) for one output (``as_matrix`` makes it a matrix);
    - "trace": the sum Σ_a Θ_aa, (n, m); over k it is the mean, which some libraries call the trace;
    - "diagonal": Θ_aa, (n, m, k).

    What ``f`` reads from outside is read at every call (by JAX's rule, not this one, where f itself
    is compiled by ``jax.jit``); a new function that does the same compiles nothing. ``f`` must
    treat the points of a batch one by one, since it meets them in blocks, and singly. Batch norm in
    training mode, or one dropout key for a batch, does not: f at a few points is compared with f
    at the same in another order, and singly, and refused where it differs by more than √eps of its
    outputs, of the coarsest dtype in it. Inside ``jit``, ``grad`` or ``vmap`` that is left out.

    With parameters or outputs in half precision the sums over parameters are those of float32, and
    so is the kernel; then "auto" is the contraction, as for an f that computes in half precision.
    What is left is f's own rounding: 0.5 to 4 % of the largest entry in bfloat16 in our tests.

    ``method`` says how; all give the same to rounding. "structure" traces f at one point and finds
    where parameters enter products of matrices, convolutions and lookups, through ``jit``,
    ``checkpoint`` and ``scan``, a shared weight at several places. There two points add
    ⟨a, a'⟩⟨δ, δ'⟩, with the other factor a and the signal δ, the derivative by the product: no
    Jacobian is held. With several positions (pixels, tokens, steps) that is a sum over pairs of
    them, or the derivatives Σ_t a_t δ_tᵀ are formed, some rows at a time, whichever has fewer
    multiplications. A parameter that enters in another way (a bias, a scale, sin(W), a grouped
    convolution, inside ``custom_vjp``) is derived as for "contraction", and that one alone.
    "contraction" multiplies the Jacobians of two blocks of points: P multiplications for a pair of
    points and of outputs, where P counts the parameters. "products" pushes each row of one block's
    Jacobian through f as a tangent vector: two passes of f, whatever k is, for each row and point.
    All of them work by blocks of points that hold some 256 MiB (one point's, where that is more);
    the blocks below the diagonal are left out without ``y``.

    "auto" is the contraction for small kernels (at most 10⁷ multiplications, 1 MiB of Jacobian),
    else the structure where any is found, unless c·k·F/2 is less than its multiplications for a
    pair of points, where F counts the operations of f for a point, as XLA does, and c is 0.8 if
    F ≤ 2.5·P, and 24 otherwise: rough numbers, found by timing on two cores. Then it is the
    products, which pay for many more outputs than a layer has units. Where no structure is found
    it is the products if c·F/2 ≤ k·P (≤ P for trace and diagonal), else the contraction.
    On two cores, float32, the structure takes 13 ms where the products take 2235 (784-512-512-1,
    200 points), and half the time of the contraction for three convolutions of 64 channels on
    8 × 8 pixels and for a transformer block of 32 tokens (50 points, 10 outputs, trace).

    Raises ``TypeError`` when ``f`` is not callable, does not give real floats, or a parameter is
    not a float array; ``ValueError`` when there are no parameters, f's output does not have one row
    an input and as many outputs for ``y`` as for ``x``, f couples the points of a batch, the arrays
    of a batch differ in their leading axes, for "products" with half precision, or for another word
    in ``outputs`` or ``method``. Warns (``UserWarning``) of running means and variances among the
    parameters.
    Source: Jacot et al. 2018, section 4; the two methods and their costs: Novak, Sohl-Dickstein and
    Schoenholz 2022, section 3.
    """
    outputs = as_choice("outputs", outputs, OUTPUTS)
    method = as_choice("method", method, METHODS)
    params, x, y = _checked(f, params, x, y)
    derivatives, others = _traced(params, x, y), x if y is None else y
    model, points = _model(f, params, x, y, derivatives=derivatives)
    if not _traced(params, x, y, model):
        _check_each_by_itself(model, params, points)
    out = model.forward.gives
    k = math.prod(out.shape[1:])
    plan = None
    if method == "structure" or (
        method == "auto" and not _is_small(params, _count(x), _count(others), k, outputs)
    ):
        model = _with_single(model, f, params, points, derivatives=derivatives)
        plan = _by_layers(f, model, params, x, _count(others), outputs, method)
    if plan is None:
        method = "contraction" if method == "structure" else method
        method = _method(method, params, out.dtype, model)
        plan = _plan(f, params, x, _count(others), k, outputs, method)
    if isinstance(plan, _Plan) and plan.products:
        columns = _columns(others, plan.columns)
        model = _with_push(model, f, params, columns, derivatives=derivatives)
    theta = _kernel(model, params, x, y, outputs=outputs, plan=plan, dtype=sums_in(out.dtype))
    theta = upper_mirrored(theta) if y is None else theta
    return theta[:, :, 0, 0] if outputs == "full" and k == 1 else theta


def as_matrix(theta: Float[ArrayLike, "n m *kk"]) -> Float[Array, "nk mk"]:
    """A full kernel (n, m, k, k) as the matrix (n·k, m·k), in its own units; (n, m) as it is.

    Row i·k + a is output a at point i, as in ``f(params, x).reshape(-1)``.

    Raises ``ValueError`` for another shape, and what ``as_array`` raises.
    """
    theta = as_array("theta", theta)
    if theta.ndim == 2:
        return theta
    if theta.ndim != 4 or theta.shape[2] != theta.shape[3]:
        raise ValueError(f"theta needs shape (n, m) or (n, m, k, k), got {theta.shape}")
    n, m, k, _ = theta.shape
    return theta.transpose(0, 2, 1, 3).reshape(n * k, m * k)


# ---------------------------------------------------------------- the kernel times a vector


def tangent_product(
    f: Callable[[Any, Any], Array],
    params: PyTree,
    x: PyTree,
    v: Float[ArrayLike, "m ..."],
    y: PyTree | None = None,
) -> Float[Array, "n ..."]:
    """Θ(x, y) v, with no kernel: Σ over points j of y and outputs b of Θ(x_i, y_j)_ab v_jb.

    ``v`` has shape (m,) or (m, k), one number for each output of f at ``y`` (at ``x`` without
    ``y``), the result (n,) or (n, k) likewise, in the units of f²·v over w². One pass back at ``y``
    and one pass forward at ``x``: the cost of about four evaluations of f on all the points, and
    the memory of one with its gradient. ``f`` may couple the points of a batch here, and computes
    in its own precision. It is what an iterative solver needs (conjugate gradients, Lanczos).

    Raises and warns as ``empirical_ntk`` does for ``f``, ``params``, ``x`` and ``y``; raises
    ``ValueError`` for a ``v`` of another shape, and what
    ``as_array`` raises for one that is not finite.
    Source: Novak, Sohl-Dickstein and Schoenholz 2022, section 3 (NTK-vector products).
    """
    params, x, y = _checked(f, params, x, y)
    out, y = _outputs(f, params, x, y), x if y is None else y
    shape = (_count(y), *out.shape[1:])
    v = as_array("v", on_one_device("v", v), dtype=out.dtype)
    column = math.prod(shape[1:]) == 1 and v.shape in {(_count(y),), (_count(y), 1)}
    if v.shape != shape and not column:
        raise ValueError(f"v needs shape {shape}, a number for each output at y, got {v.shape}")

    def product(params: PyTree, x: PyTree, y: PyTree, v: Array) -> Array:
        (vector,) = jax.vjp(lambda p: f(p, y), params)[1](v)
        return jax.jvp(lambda p: f(p, x), (params,), (vector,))[1]

    arguments = (params, x, y, v.reshape(shape))
    return run(traced(product, *arguments), *arguments).reshape(_count(x), *v.shape[1:])

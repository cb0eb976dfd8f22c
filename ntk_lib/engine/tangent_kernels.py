"""Tangent kernels of any function, without a Jacobian of all points at once.

Serves the chapters ``gradient_flow``, ``limiting_ntk`` and ``scale``, and whoever has a model in
JAX. For f(x; w) with k outputs the empirical neural tangent kernel (NTK) at the parameters w is

    Θ(x, x')_ab = Σ_p ∂f_a(x)/∂w_p · ∂f_b(x')/∂w_p        (Jacot et al. 2018, section 4).

``empirical_ntk`` computes it in blocks of points, in two ways (Novak, Sohl-Dickstein and Schoenholz
2022): the Jacobians of two blocks are multiplied, or those of one block are pushed through f as
tangent vectors. ``tangent_product`` is Θ times a vector and holds no kernel either. Perceptrons
have a faster way, ``limiting_ntk.mlp_ntk``.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from ntk_lib.engine.arguments import as_array, as_choice, as_params, output_of

__all__ = ["METHODS", "OUTPUTS", "as_matrix", "empirical_ntk", "tangent_product", "upper_mirrored"]

OUTPUTS = ("full", "trace", "diagonal")
METHODS = ("auto", "contraction", "products")

# The Jacobian of a block of points may take this many bytes; one point's may take more.
_BLOCK_BYTES = 2**28
# Parameters that are contracted at a time.
_TOGETHER = 4096
# With at most so many multiplications either way takes milliseconds: not worth asking what f costs.
_SMALL = 10**7
# What a multiplication of f costs when tangents are pushed through it, in multiplications of a
# contraction, measured: little where each weight is used once for a point (2 operations), as in
# dense layers; much where it is used at many places, for a convolution with another tangent for
# each direction is no large product of matrices.
_USED_ONCE, _ONCE, _SHARED = 2.5, 0.8, 24

# ---------------------------------------------------------------- arguments


def _batch(name: str, value: ArrayLike) -> Array:
    """Inputs of any kind, one a row: pixels and tokens keep their dtype."""
    try:
        with np.errstate(over="ignore"):  # what overflows is refused below
            array = jnp.asarray(value)
    except (OverflowError, TypeError, ValueError) as error:
        raise TypeError(f"{name} needs a numeric array, got {type(value).__name__}") from error
    if jnp.issubdtype(array.dtype, jnp.floating):
        as_array(name, array)  # finite?
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(f"{name} needs at least one input, one a row, got shape {array.shape}")
    return array


def _output(f: Callable[[Any, Array], Array], params: PyTree, inputs: Array, name: str):
    """Shape and dtype of f's output for ``inputs``, checked."""
    out = output_of("f", f, params, inputs)
    shape = getattr(out, "shape", None)
    if shape is None or len(shape) not in (1, 2) or shape[0] != len(inputs) or 0 in shape:
        raise ValueError(
            f"f needs to map {name} of shape {inputs.shape} to ({len(inputs)},) or "
            f"({len(inputs)}, outputs), got {out if shape is None else shape}"
        )
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise TypeError(f"f needs to give real floats, got {out.dtype}")
    return out


def _checked(f: Callable[[Any, Array], Array], params: PyTree, x: ArrayLike, y: ArrayLike | None):
    """The arguments as arrays, f hashable, and the shape and dtype of f(x)."""
    if not callable(f):
        raise TypeError(f"f needs a function of (params, x), got {type(f).__name__}")
    params = as_params(params)
    x, y = _batch("x", x), None if y is None else _batch("y", y)
    out = _output(f, params, x, "x")
    if y is not None:
        other = _output(f, params, y, "y")
        if other.shape[1:] != out.shape[1:]:
            raise ValueError(
                f"f needs as many outputs for y as for x, got {other.shape} and {out.shape}"
            )
    try:
        hash(f)
    except TypeError:  # a module that holds arrays, say
        return (lambda p, t: f(p, t)), params, x, y, out
    return f, params, x, y, out


# ---------------------------------------------------------------- the choice


class _Plan(NamedTuple):
    """Whether by products with vectors, and how many points a block of rows and columns has."""

    products: bool
    rows: int
    columns: int


def _cost_of_a_point(f: Callable, params: PyTree, x: Array) -> tuple[float, float]:
    """Operations of f(x) for a point, and the bytes it moves: XLA's own count, NaN where none."""
    cost = jax.jit(f).lower(params, x).cost_analysis()
    if isinstance(cost, list | tuple):  # one for each device, in some versions of JAX
        cost = cost[0] if cost else None
    flops, moved = ((cost or {}).get(name, math.nan) for name in ("flops", "bytes accessed"))
    return flops / len(x), moved / len(x)


def _even(points: int, most: int | float) -> int:
    """The size of equal blocks of at most ``most`` points, at least one."""
    blocks = math.ceil(points / max(1, min(points, int(most))))
    return math.ceil(points / blocks)


def _plan(
    f: Callable, params: PyTree, x: Array, m: int, k: int, outputs: str, method: str
) -> _Plan:
    n, leaves = len(x), jax.tree.leaves(params)
    size = sum(leaf.size for leaf in leaves)
    weights = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    per_pair = size * k * (k if outputs == "full" else 1)
    if method != "products" and n * m * per_pair <= _SMALL and max(n, m) * k * weights <= 2**20:
        return _Plan(False, n, m)
    flops, moved = _cost_of_a_point(f, params, x)
    if method == "auto":  # a comparison with NaN is false
        factor = _ONCE if flops <= _USED_ONCE * size else _SHARED
        method = "products" if factor * k * flops / 2 <= per_pair else "contraction"
    moved = weights if math.isnan(moved) else moved
    rows = _even(n, _BLOCK_BYTES / (k * max(weights, moved)))
    if method == "contraction":
        return _Plan(False, rows, rows if n == m else _even(m, rows))
    # many columns make large products; what f holds for a block is a part of what it moves for it
    return _Plan(True, rows, _even(m, min(max(rows, 64), 8 * _BLOCK_BYTES / (rows * k * moved))))


# ---------------------------------------------------------------- the kernel


def _jacobian(f: Callable, params: PyTree, points: Array) -> PyTree:
    """∂f/∂w of each point by itself: leaves of shape (points, k, *shape of the parameter)."""

    def one(point: Array) -> PyTree:
        return jax.jacrev(lambda p: f(p, point[None]).reshape(-1))(params)

    return jax.vmap(one)(points)


def _over_parameters(a: Array, b: Array) -> Array:
    """a bᵀ of two tall Jacobians (rows, P), some thousand parameters at a time.

    That is two to three times as fast as one product, which XLA does not cut along so long an axis.
    """
    size = a.shape[1]
    whole = size // _TOGETHER

    def add(i: Array, total: Array) -> Array:
        part, other = (
            jax.lax.dynamic_slice_in_dim(t, i * _TOGETHER, _TOGETHER, axis=1) for t in (a, b)
        )
        return total + part @ other.T

    rest = slice(whole * _TOGETHER, size)
    total = a[:, rest] @ b[:, rest].T
    return jax.lax.fori_loop(0, whole, add, total) if whole else total


def _contract(left: PyTree, right: PyTree, dtype: object, outputs: str) -> Array:
    """Σ_p of two Jacobians: (b, c, k, k), (b, c, k) or (b, c)."""

    def part(a: Array, b: Array) -> Array:
        a, b = (t.reshape(*t.shape[:2], -1).astype(dtype) for t in (a, b))
        if outputs == "diagonal":
            return jnp.einsum("nip,mip->nmi", a, b)
        if outputs == "trace":  # as one product of matrices: much faster than over two axes
            return _over_parameters(a.reshape(len(a), -1), b.reshape(len(b), -1))
        k = a.shape[1]
        theta = _over_parameters(a.reshape(len(a) * k, -1), b.reshape(len(b) * k, -1))
        return theta.reshape(len(a), k, len(b), k).transpose(0, 2, 1, 3)

    return functools.reduce(jnp.add, map(part, jax.tree.leaves(left), jax.tree.leaves(right)))


def _push(f: Callable, params: PyTree, left: PyTree, points: Array, outputs: str) -> Array:
    """The same, each row of the Jacobian ``left`` pushed through f at ``points`` as a tangent."""

    def forward(p: PyTree) -> Array:
        return f(p, points).reshape(len(points), -1)

    def push(vector: PyTree) -> Array:
        return jax.jvp(forward, (params,), (vector,))[1]

    pushed = jax.vmap(jax.vmap(push))(left)  # (b, k, c, k)
    if outputs == "full":
        return pushed.transpose(0, 2, 1, 3)
    diagonal = jnp.diagonal(pushed, axis1=1, axis2=3)
    return diagonal.sum(2) if outputs == "trace" else diagonal


def _cut(points: Array, size: int) -> Array:
    """Blocks of ``size`` rows; the last row fills up the last block."""
    blocks = math.ceil(len(points) / size)
    index = jnp.minimum(jnp.arange(blocks * size), len(points) - 1)
    return points[index].reshape(blocks, size, *points.shape[1:])


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


@functools.partial(jax.jit, static_argnames=("f", "outputs", "plan", "dtype"))
def _kernel(
    f: Callable, params: PyTree, x: Array, y: Array | None, *, outputs: str, plan: _Plan, dtype
) -> Array:
    """Θ by the plan; without ``y`` what stands below the diagonal may be left out, as zero."""

    def pair(jacobian: PyTree, points: Array) -> Array:
        if plan.products:
            return _push(f, params, jacobian, points, outputs).astype(dtype)
        return _contract(jacobian, _jacobian(f, params, points), dtype, outputs)

    others = x if y is None else y
    if plan[1:] == (len(x), len(others)):  # a single block
        jacobian = _jacobian(f, params, x)
        if y is None and not plan.products:
            return _contract(jacobian, jacobian, dtype, outputs)
        return pair(jacobian, others)
    columns = _cut(others, plan.columns)

    def row(block: tuple[Array, Array]) -> Array:
        number, points = block
        jacobian = _jacobian(f, params, points)
        empty = jax.eval_shape(pair, jacobian, columns[0])

        def column(block: tuple[Array, Array]) -> Array:
            other, points = block
            if y is not None:
                return pair(jacobian, points)
            below = (other + 1) * plan.columns <= number * plan.rows
            return jax.lax.cond(
                below, lambda: jnp.zeros(empty.shape, empty.dtype), lambda: pair(jacobian, points)
            )

        return jax.lax.map(column, (jnp.arange(len(columns)), columns))

    rows = _cut(x, plan.rows)
    theta = jax.lax.map(row, (jnp.arange(len(rows)), rows))  # (blocks, blocks, b, c, …)
    theta = jnp.moveaxis(theta, 2, 1)
    theta = theta.reshape(len(rows) * plan.rows, len(columns) * plan.columns, *theta.shape[4:])
    return theta[: len(x), : len(others)]


def empirical_ntk(
    f: Callable[[Any, Array], Array],
    params: PyTree,
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    outputs: str = "full",
    method: str = "auto",
) -> Float[Array, "n m *kk"]:
    """The tangent kernel Θ(x, y) of any function f at ``params``, by its definition.

    ``f(params, x)`` maps a batch (n, …) to outputs (n,) or (n, k); ``params`` is a pytree of float
    arrays, ``x`` and ``y`` are batches of n and m points of any dtype; without ``y`` the kernel of
    ``x`` with itself, symmetric to the last bit (inside ``jit`` to rounding). The units are those
    of f² over those of w².
    ``outputs`` says what is kept of the k outputs:

    - "full": Θ_ab, shape (n, m, k, k), and (n, m) for one output (``as_matrix`` makes it a matrix);
    - "trace": the sum Σ_a Θ_aa, (n, m); over k it is the mean, which some libraries call the trace;
    - "diagonal": Θ_aa, (n, m, k).

    ``f`` must be a pure function, since it is compiled, and must treat the points of a batch one by
    one (no batch normalisation), since it meets them in blocks, and singly.

    ``method`` says how. "contraction" multiplies the Jacobians of two blocks of points: P
    multiplications for a pair of points and of outputs, where P counts the parameters. "products"
    pushes each row of one block's Jacobian through f as a tangent vector: two passes of f, whatever
    k is, for each row and point. Both hold the Jacobian of a block of points, 256 MiB of it (one
    point's, where that is more), the contraction two such, the products what f holds for the block;
    the blocks below the diagonal are left out without ``y``. With F the operations that XLA counts
    in f for a point, a multiplication and its addition being two,

    "auto" takes the products if c·F/2 ≤ k·P (≤ P for trace and diagonal), else the contraction,

    where c is 0.8 if F ≤ 2.5·P, and 24 otherwise: rough numbers, found by timing both on two cores.
    Dense layers use each weight once, F = 2P; for one output the methods are about even, for ten
    the products are three times as fast. A convolution uses a weight at many places (F = 105 P in
    one of ours on 8 × 8 pixels), and there the contraction is seven to nine times as fast.
    Where F is not known, and for small kernels (at most 10⁷
    multiplications, 1 MiB of Jacobian), it is the contraction.

    Raises ``TypeError`` when ``f`` is not callable, does not give real floats, or a parameter is
    not a float array; ``ValueError`` when there are no parameters, f's output does not have one row
    an input and as many outputs for ``y`` as for ``x``, or for another word in ``outputs`` or
    ``method``.
    Source: Jacot et al. 2018, section 4; the two methods and their costs: Novak, Sohl-Dickstein and
    Schoenholz 2022, section 3.
    """
    outputs = as_choice("outputs", outputs, OUTPUTS)
    method = as_choice("method", method, METHODS)
    f, params, x, y, out = _checked(f, params, x, y)
    k = math.prod(out.shape[1:])
    plan = _plan(f, params, x, len(x if y is None else y), k, outputs, method)
    theta = _kernel(f, params, x, y, outputs=outputs, plan=plan, dtype=out.dtype)
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


@functools.partial(jax.jit, static_argnames="f")
def _product(f: Callable, params: PyTree, x: Array, y: Array, v: Array) -> Array:
    (vector,) = jax.vjp(lambda p: f(p, y), params)[1](v)
    return jax.jvp(lambda p: f(p, x), (params,), (vector,))[1]


def tangent_product(
    f: Callable[[Any, Array], Array],
    params: PyTree,
    x: ArrayLike,
    v: Float[ArrayLike, "m ..."],
    y: ArrayLike | None = None,
) -> Float[Array, "n ..."]:
    """Θ(x, y) v, with no kernel: Σ over points j of y and outputs b of Θ(x_i, y_j)_ab v_jb.

    ``v`` has shape (m,) or (m, k), one number for each output of f at ``y`` (at ``x`` without
    ``y``), the result (n,) or (n, k) likewise, in the units of f²·v over w². One pass back at ``y``
    and one pass forward at ``x``: the cost of about four evaluations of f on all the points, and
    the memory of one with its gradient. ``f`` may couple the points of a batch here. It is what an
    iterative solver needs (conjugate gradients, Lanczos).

    Raises what ``empirical_ntk`` raises, ``ValueError`` for a ``v`` of another shape, and what
    ``as_array`` raises for one that is not finite.
    Source: Novak, Sohl-Dickstein and Schoenholz 2022, section 3 (NTK-vector products).
    """
    f, params, x, y, out = _checked(f, params, x, y)
    y = x if y is None else y
    shape = (len(y), *out.shape[1:])
    v = as_array("v", v, dtype=out.dtype)
    column = math.prod(shape[1:]) == 1 and v.shape in {(len(y),), (len(y), 1)}
    if v.shape != shape and not column:
        raise ValueError(f"v needs shape {shape}, a number for each output at y, got {v.shape}")
    product = _product(f, params, x, y, v.reshape(shape))
    return product.reshape(len(x), *v.shape[1:])

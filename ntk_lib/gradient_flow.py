"""Training as a flow: gradient descent, its limit of small steps, and the tangent kernel.

Serves the chapter ``gradient_flow``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from ntk_lib.arguments import as_array, as_whole
from ntk_lib.kernels import principal_components

__all__ = ["Training", "empirical_ntk", "gradient_descent", "linear_flow"]

# ---------------------------------------------------------------- descent


class Training(NamedTuple):
    """Parameters after gradient descent, and the cost before each step."""

    params: PyTree
    cost: Float[Array, " steps"]


def gradient_descent(
    cost: Callable[[Any], Array], params: PyTree, *, rate: ArrayLike, steps: int
) -> Training:
    """``steps`` steps w ← w - rate·∇C(w) on the scalar function ``cost`` of a pytree ``params``.

    It is Euler's method, with step ``rate``, on the gradient flow w' = -∇C(w).
    """

    def step(p: PyTree, _: None) -> tuple[PyTree, Array]:
        value, gradient = jax.value_and_grad(cost)(p)
        return jax.tree.map(lambda w, g: w - rate * g, p, gradient), value

    return Training(*jax.lax.scan(step, params, length=as_whole("steps", steps, least=0)))


# ---------------------------------------------------------------- the linear flow


def linear_flow(
    kernel: Float[ArrayLike, "n n"], start: Float[ArrayLike, " n"], times: Float[ArrayLike, " t"]
) -> Float[Array, "t n"]:
    """u(t) = e^(-Kt) u(0), the solution of u' = -K u for a symmetric K, at each of ``times``.

    ``kernel`` is K, shape (n, n), ``start`` is u(0), shape (n,). Returns shape (len(times), n).
    """
    values, vectors = principal_components(kernel)
    decay = jnp.exp(-jnp.outer(as_array("times", times), len(values) * values))
    return (decay * (vectors.T @ as_array("start", start))) @ vectors.T


# ---------------------------------------------------------------- the tangent kernel


def _batch(name: str, value: ArrayLike) -> Array:
    """Inputs of any kind, one a row: pixels and tokens keep their dtype."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} needs a numeric array, got {type(value).__name__}") from error
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(f"{name} needs at least one input, one a row, got shape {array.shape}")
    return array


def empirical_ntk(
    f: Callable[[Any, Array], Array],
    params: PyTree,
    x: Array,
    y: Array | None = None,
) -> Float[Array, "n m *kk"]:
    """The NTK of any function at ``params``: the sum over parameters of ∂f(x)/∂w · ∂f(x')/∂w.

    ``f(params, x)`` maps a batch (n, …) to outputs (n,) or (n, k); ``params`` is a pytree of float
    arrays. Returns (n, m) for one output and (n, m, k, k) for k > 1 outputs. The Jacobian is held:
    memory n·k·(number of parameters).

    Raises ``TypeError`` when ``f`` is not callable or a parameter is not a float array,
    ``ValueError`` when there are no parameters or f's output does not have one row an input.
    """
    if not callable(f):
        raise TypeError(f"f needs a function of (params, x), got {type(f).__name__}")
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise ValueError("params needs at least one array, got an empty pytree")
    for leaf in leaves:
        number = isinstance(leaf, int | float | complex)
        kind = getattr(leaf, "dtype", jnp.result_type(leaf) if number else type(leaf).__name__)
        if isinstance(kind, str) or not jnp.issubdtype(kind, jnp.floating):
            raise TypeError(f"params needs float arrays, got {kind}")
    x, y = _batch("x", x), None if y is None else _batch("y", y)

    def jacobian(inputs: Array, name: str) -> list[Array]:
        out = jax.eval_shape(f, params, inputs)
        shape = getattr(out, "shape", None)
        if shape is None or len(shape) not in (1, 2) or shape[0] != len(inputs):
            raise ValueError(
                f"f needs to map {name} of shape {inputs.shape} to ({len(inputs)},) or "
                f"({len(inputs)}, outputs), got {out if shape is None else shape}"
            )
        jac = jax.jacrev(lambda p: f(p, inputs).reshape(len(inputs), -1))(params)
        return [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(jac)]

    left = jacobian(x, "x")
    right = left if y is None else jacobian(y, "y")
    theta = sum(jnp.einsum("nip,mjp->nmij", a, b) for a, b in zip(left, right, strict=True))
    return theta[:, :, 0, 0] if theta.shape[2:] == (1, 1) else theta

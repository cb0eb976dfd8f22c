"""Networks at initialisation, and the Gaussian process that a very wide one is.

Serves the chapter ``wide_networks``. The network is the multilayer perceptron in the NTK
parametrisation of Jacot, Gabriel and Hongler (2018), section 2: with every parameter drawn from
N(0, 1),

    α̃^(1) = W^(0) x/√n₀ + β b^(0),        α^(ℓ) = √c σ(α̃^(ℓ)),
    α̃^(ℓ+1) = W^(ℓ) α^(ℓ)/√n_ℓ + β b^(ℓ),  f = α̃^(L).

``depth`` is L, the number of weight layers. ``gain`` is c: 1 in the paper, 2 for ReLU in
Arora et al. (2019), whose equations 7 to 9 (inputs not divided by n₀) follow from ``beta=0`` and
inputs multiplied by √n₀. In Poole et al. (2016) and Lee et al. (2018) c is σ_w² and β is σ_b,
and the first layer carries σ_w too: multiply the inputs by √c.

As the widths grow the pre-activations of a layer become independent Gaussian processes with the
covariance (the NNGP kernel)

    Σ^(1)(x, x') = xᵀx'/n₀ + β²,        Σ^(ℓ+1) = c·E[σ(u)σ(v)] + β²,
    (u, v) ~ N(0, [[a, k], [k, b]]),     a = Σ^(ℓ)(x, x), b = Σ^(ℓ)(x', x'), k = Σ^(ℓ)(x, x').

The expectation E[σ(u)σ(v)] is the *dual activation*: a function of (a, b, k), known in closed form
for the activations listed in ``ACTIVATIONS``.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from ntk_lib.engine.activations import Activation, Moments, as_activation
from ntk_lib.engine.angles import safe_sqrt
from ntk_lib.engine.arguments import (
    as_array,
    as_counts,
    as_float_dtype,
    as_inputs,
    as_key,
    as_nonnegative,
    as_number,
    as_scalar,
    as_whole,
    check_numbers,
    check_params,
)
from ntk_lib.engine.evaluation import evaluate

__all__ = [
    "Layer",
    "apply",
    "as_widths",
    "batch_of",
    "check_dimension",
    "circle",
    "correlation_map",
    "fixed_variance",
    "init",
    "next_moments",
    "nngp",
    "preactivations",
    "random_outputs",
    "susceptibility",
    "variance_map",
]

# ---------------------------------------------------------------- finite networks


class Layer(NamedTuple):
    """Weights W of shape (n_out, n_in) and biases b of shape (n_out,) of one layer."""

    W: Float[Array, "n_out n_in"]
    b: Float[Array, " n_out"]


def as_widths(widths: Sequence[int]) -> tuple[int, ...]:
    """``widths`` as integers, (n₀, n₁, …, n_L).

    Raises ``TypeError`` for what is no sequence of integers, ``ValueError`` for fewer than two
    widths or a width below 1.
    """
    widths = as_counts("widths", widths, least=1)
    if len(widths) < 2:
        raise ValueError(f"widths needs at least (n_in, n_out), got {widths}")
    return widths


def init(widths: Sequence[int], *, key: PRNGKeyArray, dtype: object = None) -> list[Layer]:
    """Draw a network: every weight and every bias independently from N(0, 1).

    ``widths`` is (n₀, n₁, …, n_L): input dimension, hidden widths, output dimension. Returns L
    layers. ``dtype`` defaults to JAX's default float.

    Raises ``TypeError`` for what is no sequence of integers, ``ValueError`` for fewer than two
    widths or a width below 1.
    """
    widths, key = as_widths(widths), as_key("key", key)
    dtype = as_float_dtype("dtype", dtype)
    shapes = [(n_out, n_in + 1) for n_in, n_out in itertools.pairwise(widths)]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    # one draw for all layers: a draw for each would take five times as long to compile
    numbers = jax.random.normal(key, (int(ends[-1]),), dtype)
    parts = zip(jnp.split(numbers, ends[:-1]), shapes, strict=True)
    tables = [part.reshape(shape) for part, shape in parts]
    return [Layer(W=table[:, :-1], b=table[:, -1]) for table in tables]


def check_dimension(params: Sequence[Layer], x: Array) -> None:
    """Raise ``ValueError`` when the rows of ``x`` are not inputs of the network."""
    n_in = params[0].W.shape[1]
    if x.shape[1] != n_in:
        raise ValueError(f"x needs a last axis of {n_in}, the network's inputs, got {x.shape}")


def preactivations(
    params: Sequence[Layer],
    x: Float[Array, "*n n_0"],
    *,
    activation: "str | Activation" = "relu",
    gain: ArrayLike = 1.0,
    beta: ArrayLike = 0.1,
) -> list[Float[Array, "*n _"]]:
    """α̃^(1), …, α̃^(L) for the inputs ``x``: one array of shape (*n, n_ℓ) a layer.

    Raises ``ValueError`` when the last axis of ``x`` is not the network's input dimension, and what
    ``as_array``, ``check_params`` and ``as_activation`` raise.
    """
    sigma = as_activation(activation).function
    check_params(params)
    x = as_array("x", x, dtype=params[0].W.dtype)
    if x.ndim == 0 or x.shape[-1] != params[0].W.shape[1]:
        n_in = params[0].W.shape[1]
        raise ValueError(f"x needs a last axis of {n_in}, the network's inputs, got {x.shape}")
    gain, beta = (
        as_scalar(name, as_nonnegative(name, t), x.dtype)
        for name, t in (("gain", gain), ("beta", beta))
    )
    alpha, layers = x, []
    for W, b in params:
        bias = jnp.broadcast_to(beta * b, (*alpha.shape[:-1], len(b)))
        layers.append(alpha @ W.T / math.sqrt(W.shape[1]) + bias)
        alpha = jnp.sqrt(gain) * sigma(layers[-1])
    return layers


def apply(
    params: Sequence[Layer],
    x: Float[Array, "*n n_0"],
    *,
    activation: "str | Activation" = "relu",
    gain: ArrayLike = 1.0,
    beta: ArrayLike = 0.1,
) -> Float[Array, "*n n_L"]:
    """The network function f(x) = α̃^(L)(x), shape (*n, n_L), for inputs of shape (*n, n₀).

    Raises what ``preactivations`` raises.
    """
    return preactivations(params, x, activation=activation, gain=gain, beta=beta)[-1]


def batch_of(draws: int, width: int) -> int:
    """How many networks to compute side by side: a divisor of ``draws``, fewer for wide networks.

    Side by side is faster for narrow networks, whose operations are too small to be worth a call
    each; a divisor, since a remainder would be compiled as a program of its own.
    """
    most = max(1, 2**16 // width**2)
    return max(k for k in range(1, min(draws, most) + 1) if draws % k == 0)


@functools.partial(jax.jit, static_argnames=("draws", "widths", "sigma"))
def _random_outputs(x, key, gain, beta, *, draws: int, widths: tuple, sigma: "Activation") -> Array:
    def one(key: Array) -> Array:
        params = init(widths, key=key, dtype=x.dtype)
        return apply(params, x, activation=sigma, gain=gain, beta=beta)[:, 0]

    return jax.lax.map(one, jax.random.split(key, draws), batch_size=batch_of(draws, max(widths)))


def random_outputs(
    x: Float[ArrayLike, "n d"],
    *,
    key: PRNGKeyArray,
    draws: int,
    width: int,
    depth: int,
    activation: "str | Activation" = "relu",
    gain: float = 1.0,
    beta: float = 0.1,
) -> Float[Array, "draws n"]:
    """Outputs f(x) at initialisation of ``draws`` networks, every hidden layer ``width`` wide.

    One output a network. Returns shape (draws, n).

    Raises ``ValueError`` for ``draws`` or ``width`` below 1, and as ``nngp`` does.
    """
    sigma = as_activation(activation)
    gain, beta = check_numbers(depth=depth, gain=gain, beta=beta)
    draws, width = as_whole("draws", draws, least=1), as_whole("width", width, least=1)
    x, _ = as_inputs(x)
    return _random_outputs(
        x,
        as_key("key", key),
        as_scalar("gain", gain, x.dtype),
        as_scalar("beta", beta, x.dtype),
        draws=draws,
        widths=(x.shape[1], *[width] * (depth - 1), 1),
        sigma=sigma,
    )


# ---------------------------------------------------------------- the NNGP kernel


def next_moments(
    moments: Moments,
    sigma: Activation,
    *,
    gain: Float[Array, ""],
    beta: Float[Array, ""],
) -> Moments:
    """From Σ^(ℓ) to Σ^(ℓ+1) = c·E[σ(u)σ(v)] + β²."""
    a, b, k, gap = sigma.moments(moments)
    above = Moments(*(gain * t + beta**2 for t in (a, b, k)))
    if gap is None:
        return above
    return above._replace(gap=_gap_with_bias(gain * a, gain * b, k >= 0, gap, beta))


def _gap_with_bias(a: Array, b: Array, ahead: Array, gap: Array, beta: Array) -> Array:
    """1 - |ρ'| of (√(ab) ρ + β²)/√((a + β²)(b + β²)) from 1 - |ρ|: sums of positive parts."""
    root_a, root_b = safe_sqrt(a), safe_sqrt(b)
    small, large = root_a * root_b, safe_sqrt(a + beta**2) * safe_sqrt(b + beta**2)
    total = large + beta**2 + small
    lost = (beta * (root_a - root_b)) ** 2 / jnp.where(total > 0, total, 1.0)  # large - small - β²
    one, other = small * gap + lost, small * (2 - gap) + lost
    nearer = jnp.where(ahead, one, jnp.minimum(other, one + 2 * beta**2))
    return nearer / jnp.where(large > 0, large, 1.0)


def _nngp(
    moments: Moments, sigma: Activation, gain: Array, beta: Array, depth: ArrayLike
) -> Float[Array, "*pairs"]:
    """Σ^(depth) from Σ^(1), layer by layer."""

    def layer(_: Array, moments: Moments) -> Moments:
        return next_moments(moments, sigma, gain=gain, beta=beta)

    return jax.lax.fori_loop(0, depth - 1, layer, moments).k


def nngp(
    x: Float[ArrayLike, "n d"],
    y: Float[ArrayLike, "m d"] | None = None,
    *,
    depth: int,
    activation: str | Activation = "relu",
    gain: ArrayLike = 1.0,
    beta: ArrayLike = 0.1,
    mesh: Mesh | None = None,
    diagonal: bool = False,
) -> Float[Array, " n *m"]:
    """Covariance Σ^(depth) of the output of an infinitely wide network at initialisation.

    ``x`` has shape (n, d) and ``y`` (m, d); without ``y`` the kernel of ``x`` with itself. Inputs
    are divided by √d, as in the paper. Returns shape (n, m), in the units of f²; how large ones are
    computed, and what ``mesh`` does, is said in ``evaluation``. With ``diagonal`` only the kernel
    of each point with itself, (n,), in memory of order n. ``gain`` and ``beta`` may be traced, for
    their gradients.

    Raises ``ValueError`` or ``TypeError`` for what ``evaluate`` refuses.
    Source: Jacot et al. 2018, Proposition 1; Lee et al. 2018.
    """
    setting = {"depth": depth, "activation": activation, "gain": gain, "beta": beta}
    return evaluate(_nngp, x, y, **setting, mesh=mesh, diagonal=diagonal)


# ---------------------------------------------------------------- depth


@functools.partial(jax.jit, static_argnames="sigma")
def _variance(q: Array, gain: Array, beta: Array, sigma: Activation) -> Array:
    return gain * sigma.dual(q, q, q) + beta**2


@functools.partial(jax.jit, static_argnames="sigma")
def _correlation(rho: Array, q: Array, gain: Array, beta: Array, sigma: Activation) -> Array:
    q = jnp.broadcast_to(q, rho.shape)
    above = sigma.moments(Moments(q, q, q * rho, 1 - jnp.abs(rho)))
    return (gain * above.k + beta**2) / _variance(q, gain, beta, sigma)


@functools.partial(jax.jit, static_argnames="sigma")
def _settled(gain: Array, beta: Array, sigma: Activation) -> tuple[Array, Array]:
    """Two successive variances after the map, iterated from 1, has settled or run away."""

    def moving(state: tuple[Array, Array, Array]) -> Array:
        before, q, steps = state
        still = abs(q - before) > 4 * jnp.finfo(q.dtype).eps * q
        return still & (q > 1e-6) & (q < 1e6) & (steps < 100_000)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        _, q, steps = state
        return q, _variance(q, gain, beta, sigma), steps + 1

    one = jnp.ones_like(gain)
    before, q, _ = jax.lax.while_loop(moving, step, (0 * one, one, 0))
    return before, q


@functools.partial(jax.jit, static_argnames="sigma")
def _susceptibility(q: Array, gain: Array, sigma: Activation) -> Array:
    return gain * sigma.dual_prime(q, q, q)


def _variances(q: ArrayLike, dtype: object = None) -> Array:
    q = as_array("q", q, dtype=dtype)
    if not isinstance(q, jax.core.Tracer) and not np.all(np.asarray(q) > 0):
        raise ValueError("q needs positive variances, got one that is not")
    return q


def _numbers(gain: float, beta: float, dtype: object) -> tuple[Array, Array]:
    gain, beta = check_numbers(depth=1, gain=gain, beta=beta)
    dtype = jnp.result_type(float) if dtype is None else dtype
    return as_scalar("gain", gain, dtype), as_scalar("beta", beta, dtype)


def variance_map(
    q: ArrayLike, *, activation: str | Activation = "relu", gain: float = 1.0, beta: float = 0.1
) -> Float[Array, "*q"]:
    """The variance c·E[σ(u)²] + β², u ~ N(0, q), of a layer above one of variance ``q``.

    ``q`` is an array of any shape, positive. Raises what ``nngp`` raises for the rest.
    Source: Poole et al. 2016, section 2.
    """
    q = _variances(q)
    return _variance(q, *_numbers(gain, beta, q.dtype), as_activation(activation))


def correlation_map(
    rho: ArrayLike,
    q: float,
    *,
    activation: str | Activation = "relu",
    gain: float = 1.0,
    beta: float = 0.1,
) -> Float[Array, "*rho"]:
    """The correlation of two points a layer up: ρ' = (c·E[σ(u)σ(v)] + β²)/(c·E[σ(u)²] + β²).

    (u, v) is Gaussian with both variances ``q`` and correlation ``rho`` (any shape, -1 to 1).

    Raises ``ValueError`` for a correlation beyond ±1 or a variance that is not positive.
    Source: Poole et al. 2016, section 2.
    """
    rho = as_array("rho", rho)
    if not isinstance(rho, jax.core.Tracer) and np.any(np.abs(rho) > 1):
        raise ValueError("rho needs correlations between -1 and 1, got one beyond")
    q = _variances(q, rho.dtype)
    if q.ndim and q.shape != rho.shape:
        raise ValueError(f"q needs one variance, or one a correlation, got shape {q.shape}")
    return _correlation(rho, q, *_numbers(gain, beta, rho.dtype), as_activation(activation))


def fixed_variance(
    *, activation: str | Activation = "relu", gain: float = 1.0, beta: float = 0.1
) -> float:
    """The variance that a layer hands on unchanged: the limit of ``variance_map`` from q = 1.

    In the units of α̃². For ReLU with gain 2 and no bias every variance is fixed, and this is 1.

    Raises ``ValueError`` when the iteration does not settle between 1e-6 and 1e6: the variance of
    deep networks vanishes or grows without bound.
    """
    gain, beta = as_number("gain", gain), as_number("beta", beta)
    before, q = map(float, _settled(*_numbers(gain, beta, None), as_activation(activation)))
    if not 1e-6 < q < 1e6 or abs(q - before) > 1e-6 * q:
        raise ValueError(
            "gain needs a value at which a positive variance is handed on unchanged, "
            f"got {gain} with beta {beta}: from 1 the variance goes to {q:.2g}"
        )
    return q


def susceptibility(
    q: ArrayLike, *, activation: str | Activation = "relu", gain: float = 1.0
) -> Float[Array, "*q"]:
    """χ = c·E[σ'(u)²], u ~ N(0, q): the slope of the correlation map at ρ = 1, at a fixed q.

    Below 1 nearby points draw together with depth (order), above 1 they part (chaos). By the same
    factor |∂f/∂α̃|² grows from a layer to the one below: gradients vanish or explode.

    Raises what ``variance_map`` raises.
    Source: Poole et al. 2016, section 2; Schoenholz et al. 2017 for the gradients.
    """
    q = _variances(q)
    return _susceptibility(q, _numbers(gain, 0.0, q.dtype)[0], as_activation(activation))


# ---------------------------------------------------------------- the circle


def circle(angles: Float[ArrayLike, " n"]) -> Float[Array, "n 2"]:
    """Points (cos γ, sin γ) of the unit circle, shape (n, 2), for angles γ in radians.

    Raises ``ValueError`` for another rank, no angles or angles that are not finite.
    """
    angles = as_array("angles", angles)
    if angles.ndim != 1:
        raise ValueError(f"angles needs shape (n,), got {angles.shape}")
    if not len(angles):
        raise ValueError("angles needs at least one angle, got none")
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)

"""Activations and their Gaussian expectations, the dual activations.

Serves every chapter about wide networks. A layer of an infinitely wide network turns the second
moments a = Σ(x, x), b = Σ(x', x'), k = Σ(x, x') of a pair of points into

    E[σ(u)σ(v)] and E[σ'(u)σ'(v)],        (u, v) ~ N(0, [[a, k], [k, b]]),

the *dual activation* and that of the derivative: functions of (a, b, k), known in closed form for
most of the activations listed in ``ACTIVATIONS``, to 1e-10 for the others, and for any smooth
function by ``quadrature``.
"""

import dataclasses
import functools
import importlib
import math
from collections.abc import Callable, Hashable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntk_lib.engine.angles import (
    angle,
    arc_cosine_at,
    arc_cosine_of,
    geometric_mean,
    safe_sqrt,
)
from ntk_lib.engine.arguments import as_number, as_whole
from ntk_lib.engine.programs import traced
from ntk_lib.engine.sigmoids import DUALS

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Moments",
    "as_activation",
    "leaky_relu",
    "monomial",
    "quadrature",
]

Dual = Callable[[Array, Array, Array], Array]


class Moments(NamedTuple):
    """Second moments of one layer: a = Σ(x, x), b = Σ(x', x'), k = Σ(x, x').

    Of n points with m others a is (n, 1), b (1, m) and k (n, m); in general they broadcast.
    ``gap`` is 1 - |ρ|, ρ = k/√(ab), where it is known better than from k: with a kink in σ the
    kernel depends on the angle, of which a rounded k near √(ab) knows half the digits.
    """

    a: Float[Array, "*rows"]
    b: Float[Array, "*columns"]
    k: Float[Array, "*pairs"]
    gap: Float[Array, "*pairs"] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Activation:
    """A nonlinearity σ with its two Gaussian expectations.

    ``dual(a, b, k)`` is E[σ(u)σ(v)] and ``dual_prime(a, b, k)`` is E[σ'(u)σ'(v)] for
    (u, v) ~ N(0, [[a, k], [k, b]]); a, b, k are arrays that broadcast against one another.
    ``slopes`` are those of σ for z < 0 and z > 0 where σ is straight on either side, that is where
    σ(tz) = tσ(z) for t > 0. ``costly`` says that an expectation takes thousands of operations.

    Compiled programs are shared by activations that are equal: whose ``key`` is, or, without one,
    whose functions compute the same from the same numbers. What these read from outside may change
    between calls of the library, not between the lines of a program.
    """

    name: str
    function: Callable[[Array], Array]
    dual: Dual
    dual_prime: Dual
    slopes: tuple[float, float] | None = None
    costly: bool = False
    key: Hashable = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Activation) and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self._compared())

    def _compared(self) -> Hashable:
        return self.key or (self.name, self.function, self.dual, self.dual_prime)

    def __reduce__(self) -> tuple:
        if isinstance(self.key, str):
            return as_activation, (self.key,)
        fields = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return _unpacked, tuple(map(_packed, fields))

    def moments(self, m: Moments) -> Moments:
        """E[σ(u)²], E[σ(v)²] and E[σ(u)σ(v)], and with ``slopes`` what their ρ leaves to 1."""
        if self.slopes is None or m.gap is None:
            return Moments(*(self.dual(*t) for t in ((m.a,) * 3, (m.b,) * 3, m[:3])))
        p, q = self.slopes
        ahead, s, kink, mixed = m.k >= 0, p * p + q * q or 1.0, (p - q) ** 2, 2 * p * q
        a, b = (p * p + q * q) / 2 * m.a, (p * p + q * q) / 2 * m.b
        arc, root = arc_cosine_at(ahead, m.gap), safe_sqrt(a) * safe_sqrt(b)
        if mixed == 0:
            return Moments(a, b, root * arc.relu, arc.rest)
        # 1 - ρ and 1 + ρ of the pair below, and of the pair of σ: sums of positive parts
        less, more = jnp.where(ahead, m.gap, 2 - m.gap), jnp.where(ahead, 2 - m.gap, m.gap)
        if mixed > 0:
            fall = kink * arc.rest + mixed * less
            rise = kink * (1 + arc.relu) + mixed * more
        else:
            behind = (p + q) ** 2 - kink * arc.relu - mixed * more
            fall = jnp.where(ahead, kink * arc.rest + mixed * less, behind)
            rise = kink * arc.relu + (p + q) ** 2 - mixed * less
        k = root * (kink * arc.relu + mixed * (more - less) / 2) / s
        return Moments(a, b, k, jnp.minimum(fall, rise) / s)

    def slope(self, m: Moments) -> Array:
        """E[σ'(u)σ'(v)]."""
        if self.slopes is None or m.gap is None:
            return self.dual_prime(m.a, m.b, m.k)
        p, q = self.slopes
        return (p - q) ** 2 / 2 * arc_cosine_at(m.k >= 0, m.gap).step + p * q


@dataclasses.dataclass(frozen=True)
class _ByName:
    """A function of JAX, which JAX does not let be pickled: where it is found."""

    module: str
    name: str


def _packed(value: object) -> object:
    """``value`` with JAX's own functions by name, also inside ``functools.partial``."""
    if isinstance(value, functools.partial):
        return functools.partial(value.func, *map(_packed, value.args))
    name = getattr(value, "__name__", None)
    for module in (jnp, jax.nn, jax.scipy.special, jax.lax) if name else ():
        if getattr(module, name, None) is value:
            return _ByName(module.__name__, name)
    return value


def _unpacked(*fields: object) -> Activation:
    def found(value: object) -> object:
        if isinstance(value, functools.partial):
            return functools.partial(value.func, *map(found, value.args))
        if isinstance(value, _ByName):
            return getattr(importlib.import_module(value.module), value.name)
        return value

    return Activation(*map(found, fields))


# ---------------------------------------------------------------- straight on either side


def leaky_relu(negative: float = 0.01, positive: float = 1.0) -> Activation:
    """σ(z) = negative·z for z < 0 and positive·z for z > 0: ReLU is ``leaky_relu(0, 1)``.

    Its duals are combinations of the arc-cosine kernels of Cho and Saul (2009). Equal slopes give
    equal activations, so that compiled code is reused.

    Raises ``TypeError`` or ``ValueError`` for a slope that is not a finite number.
    """
    p, q = as_number("negative", negative), as_number("positive", positive)
    return _straight(f"leaky_relu({p:g}, {q:g})", p, q)


def _straight(name: str, p: float, q: float) -> Activation:
    parts = (functools.partial(part, p, q) for part in (_bent, _bent_dual, _bent_dual_prime))
    return Activation(name, *parts, slopes=(p, q), key=("straight", p, q))


def _bent(p: float, q: float, z: Array) -> Array:
    return jnp.where(z > 0, q * z, p * z)


def _bent_dual(p: float, q: float, a: Array, b: Array, k: Array) -> Array:
    return (p - q) ** 2 / 2 * arc_cosine_of(a, b, k, order=1) + p * q * k


def _bent_dual_prime(p: float, q: float, a: Array, b: Array, k: Array) -> Array:
    return (p - q) ** 2 / 2 * arc_cosine_of(a, b, k, order=0) + p * q


# ---------------------------------------------------------------- erf, sine and cosine


def _erf_angle(a: Array, b: Array, k: Array) -> tuple[Array, Array, Array]:
    """h = √((1+2a)(1+2b)), and sin and cos of the angle φ with sin φ = 2k/h.

    cos²φ = 1 − 4k²/h² is written as a sum of positive parts, 1/A + 1/B − 1/(AB) + 4(ab − k²)/(AB)
    with A = 1+2a, B = 1+2b: for large a = b = k the 1 and the 4k²/h² would cancel.
    """
    big_a, big_b = 1 + 2 * a, 1 + 2 * b
    h = geometric_mean(big_a, big_b)
    mean, part = geometric_mean(a / big_a, b / big_b), k / h
    determinant = (mean - part) * (mean + part)
    rest = 1 / big_a + 1 / big_b - 1 / big_a / big_b
    cos = jnp.sqrt(rest + 4 * jnp.where(determinant >= 0, determinant, 0.0))
    return h, 2 * part, cos


def _erf_dual(a: Array, b: Array, k: Array) -> Array:
    _, sin, cos = _erf_angle(a, b, k)
    sign = jnp.where(sin >= 0, 1.0, -1.0).astype(sin.dtype)
    return 2 / math.pi * sign * angle(sign * sin, cos)


def _erf_dual_prime(a: Array, b: Array, k: Array) -> Array:
    h, _, cos = _erf_angle(a, b, k)
    return 4 / math.pi / (h * cos)


def _exp_of_negative(t: Array) -> Array:
    """e^t for t ≤ 0; a t that rounding has put above 0 counts as 0."""
    return jnp.exp(jnp.where(t > 0, 0.0, t))


# e^(-(a+b)/2) sinh k and its cosh twin: no overflow, since |k| ≤ (a+b)/2, and no lost digits at
# small k.
def _sin_dual(a: Array, b: Array, k: Array) -> Array:
    sign = jnp.where(k >= 0, 1.0, -1.0).astype(k.dtype)
    size = sign * k
    return sign * _exp_of_negative(size - (a + b) / 2) * -jnp.expm1(-2 * size) / 2


def _cos_dual(a: Array, b: Array, k: Array) -> Array:
    half = (a + b) / 2
    return (_exp_of_negative(k - half) + _exp_of_negative(-k - half)) / 2


# ---------------------------------------------------------------- powers


def monomial(degree: int) -> Activation:
    """σ(z) = z^degree, its duals by Isserlis' theorem (Gaussian moments as sums over pairings).

    E[u^p v^p] = Σ_j (p!)²/(j!·(m!)²·4^m) k^j (ab)^m with m = (p - j)/2, over the j of p's parity:
    j pairs join u to v, m pairs stay inside each. Of degree 2 and more it is not Lipschitz, so the
    theorems on wide networks do not cover it. Equal degrees give equal activations.

    Raises ``TypeError`` when ``degree`` is no integer, ``ValueError`` when it is below 1.
    """
    p = as_whole("degree", degree, least=1)
    parts = (functools.partial(part, p) for part in (_raised, _raised_dual, _raised_dual_prime))
    return Activation(f"monomial({p})", *parts, key=("monomial", p))


def _raised(p: int, z: Array) -> Array:
    return z**p


def _raised_dual(p: int, a: Array, b: Array, k: Array) -> Array:
    terms = []
    for j in range(p % 2, p + 1, 2):
        m = (p - j) // 2
        ways = math.factorial(p) ** 2 // (math.factorial(j) * math.factorial(m) ** 2)
        terms.append(ways / 4**m * k**j * (a * b) ** m)
    return sum(terms)


def _raised_dual_prime(p: int, a: Array, b: Array, k: Array) -> Array:
    return p**2 * _raised_dual(p - 1, a, b, k) * jnp.ones_like(k)


# ---------------------------------------------------------------- any smooth function

# Places in each direction, and how far they reach, in standard deviations: tried one after another.
_LEVELS = ((20, 6.5), (40, 8.5), (80, 9.5), (160, 10.5), (320, 12.0))
# What two levels may differ by, relative to E|σ(u)σ(v)|, so that the second is taken at once; and
# what they may promise for a third. For a smooth function the error falls geometrically.
_AT_ONCE, _PROMISED = 1e-7, 1e-8


def quadrature(function: Callable[[Array], Array], *, nodes: int = 320) -> Activation:
    """Any smooth elementwise ``function`` as an activation, its duals by a product rule.

    The rule is the trapezoidal rule along u + v and u - v, whose error falls geometrically for
    smooth functions. Its places are doubled, up to ``nodes`` in each direction, until the result
    stands to 1e-7 or better, in float32 to 1e-5. Where it does not, the expectation is NaN, and a
    kernel is refused: for a function with a kink or a jump, and at variances at which 320 places
    miss what the function does (tanh: above 50; but "tanh" by name has no such bound).

    Raises ``TypeError`` when ``function`` is not callable, does not take JAX arrays (NumPy's and
    ``math``'s do not) or ``nodes`` is no integer, ``ValueError`` when ``nodes`` < 40.
    """
    if not callable(function):
        raise TypeError(f"function needs a callable, got {type(function).__name__}")
    nodes = as_whole("nodes", nodes, least=40)
    name = getattr(function, "__name__", "function")
    try:
        out = jax.eval_shape(lambda z: function(z), jax.ShapeDtypeStruct((2, 3), float))
    except (TypeError, jax.errors.JAXTypeError) as error:
        raise TypeError(
            f"function needs to take JAX arrays, and {name} does not: write it with jax.numpy "
            f"(jnp.tanh for np.tanh or math.tanh), got {type(error).__name__}"
        ) from error
    if getattr(out, "shape", None) != (2, 3) or not jnp.issubdtype(out.dtype, jnp.floating):
        got = f"{out.shape} of {out.dtype}" if hasattr(out, "shape") else type(out).__name__
        raise TypeError(f"function needs to act entry by entry, (2, 3) to (2, 3) floats, got {got}")
    parts = (functools.partial(part, function, nodes) for part in (_ruled_dual, _ruled_dual_prime))
    return Activation(f"quadrature({name})", function, *parts, costly=True)


def _ruled_dual(function: Callable, nodes: int, a: Array, b: Array, k: Array) -> Array:
    return _expectation(function, nodes, (0, 0), a, b, k)


def _ruled_dual_prime(function: Callable, nodes: int, a: Array, b: Array, k: Array) -> Array:
    return _expectation(function, nodes, (1, 1), a, b, k)


def _derivative(function: Callable, order: int) -> Callable[[Array], Array]:
    if order == 0:
        return function
    below = _derivative(function, order - 1)
    return lambda z: jax.jvp(below, (z,), (jnp.ones_like(z),))[1]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _expectation(
    function: Callable, nodes: int, orders: tuple[int, int], a: Array, b: Array, k: Array
) -> Array:
    """E[σ^(i)(u) σ^(j)(v)] for the orders (i, j) of derivatives; NaN where it is not resolved."""
    f, g = (_derivative(function, order) for order in orders)
    shape = jnp.broadcast_shapes(a.shape, b.shape, k.shape)
    root = jnp.sqrt(a) * jnp.sqrt(b)
    rho = jnp.where(root > 0, k / jnp.where(root > 0, root, 1.0), 0.0)
    rho = jnp.where(rho > 1, 1.0, jnp.where(rho < -1, -1.0, rho))
    # u = √a(p z₁ + q z₂), v = √b(p z₁ − q z₂): u and v are treated alike
    p, q = safe_sqrt((1 + rho) / 2), safe_sqrt((1 - rho) / 2)

    def by_rule(level: Array) -> tuple[Array, Array]:
        counts, reaches = (jnp.asarray(t) for t in zip(*_LEVELS, strict=True))
        count, reach = counts[level], reaches[level].astype(k.dtype)
        step = 2 * reach / (count - 1).astype(k.dtype)

        def add(i: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
            z1, z2 = (step * t.astype(k.dtype) - reach for t in (i // count, i % count))
            weight = jnp.exp(-(z1 * z1 + z2 * z2) / 2) * step * step / (2 * math.pi)
            along, across = p * z1, q * z2
            u, v = jnp.sqrt(a) * (along + across), jnp.sqrt(b) * (along - across)
            value = weight * f(u) * g(v)
            return sums[0] + value, sums[1] + jnp.abs(value)

        zero = jnp.zeros(shape, k.dtype)
        return jax.lax.fori_loop(0, count * count, add, (zero, zero))

    single = k.dtype.itemsize <= 4
    at_once, promised = (1e-5, 1e-5) if single else (_AT_ONCE, _PROMISED)
    levels = sum(count <= nodes for count, _ in _LEVELS)
    unknown = jnp.full(shape, jnp.inf, k.dtype)

    def open_(state: tuple[Array, Array, Array, Array]) -> Array:
        level, _, error, _ = state
        return (level < levels) & ~jnp.all(error <= promised)

    def doubled(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        level, before, _, apart = state
        value, size = by_rule(level)
        gap = jnp.abs(value - before) / jnp.where(size > 0, size, 1.0)
        further = gap * jnp.where(apart < jnp.inf, gap / jnp.where(apart > 0, apart, 1.0), jnp.inf)
        error = jnp.where(gap <= at_once, promised * 0, jnp.where(gap <= 1e-5, further, jnp.inf))
        return level + 1, value, error, gap

    first = by_rule(jnp.asarray(0))[0]
    state = (jnp.asarray(1), first, unknown, unknown)
    _, value, error, _ = jax.lax.while_loop(open_, doubled, state)
    return jnp.where(error <= promised, value, jnp.nan)


@_expectation.defjvp
def _expectation_jvp(function, nodes, orders, at, moved):
    # by parts: ∂/∂a and ∂/∂b take two derivatives of one factor, ∂/∂k one of each (Price's theorem)
    (i, j), (a, b, k), (da, db, dk) = orders, at, moved
    slopes = (
        _expectation(function, nodes, new, a, b, k)
        for new in ((i + 2, j), (i, j + 2), (i + 1, j + 1))
    )
    of_a, of_b, of_k = slopes
    value = _expectation(function, nodes, orders, a, b, k)
    return value, of_a * da / 2 + of_b * db / 2 + of_k * dk


# ---------------------------------------------------------------- by name


def _softplus(z: Array) -> Array:
    return jnp.logaddexp(z, jnp.zeros_like(z))


def _gelu(z: Array) -> Array:
    return z * (1 + jax.scipy.special.erf(z / math.sqrt(2))) / 2


_FUNCTIONS = {
    "tanh": jnp.tanh,
    "gelu": _gelu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softplus": _softplus,
}

ACTIVATIONS: dict[str, Activation] = {
    "relu": _straight("relu", 0.0, 1.0),
    "leaky_relu": _straight("leaky_relu", 0.01, 1.0),
    "erf": Activation("erf", jax.scipy.special.erf, _erf_dual, _erf_dual_prime, key="erf"),
    "sin": Activation("sin", jnp.sin, _sin_dual, _cos_dual, key="sin"),
    "cos": Activation("cos", jnp.cos, _cos_dual, _sin_dual, key="cos"),
} | {
    name: Activation(name, function, *DUALS[name], costly=name != "gelu", key=name)
    for name, function in _FUNCTIONS.items()
}
"""Activations known by name; ``leaky_relu`` has the customary slope 0.01 for z < 0, and ``gelu`` is
z Φ(z) with the normal distribution's Φ, not its approximation by tanh."""


def as_activation(activation: "str | Activation") -> Activation:
    """The ``Activation`` of that name, or the argument itself if it is one already.

    One that is made of functions comes back with a key, taken anew at each call from what these
    compute: an answer is then never that of what they read earlier, and the same lambda, written
    anew, compiles nothing anew.

    Raises ``ValueError`` for an unknown name and ``TypeError`` for anything else.
    """
    if isinstance(activation, Activation):
        return activation if activation.key else _with_key(activation)
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(
                f"activation needs to be one of {known}, or quadrature(f) of any smooth function f "
                f"from ntk_lib; got {activation!r}"
            )
        return ACTIVATIONS[activation]
    raise TypeError(
        "activation needs a name or an Activation (quadrature(f) makes one of a function f), "
        f"got {type(activation).__name__}"
    )


def _with_key(sigma: Activation) -> Activation:
    key = [sigma.name, _computed(sigma.function, 1)]
    for dual in (sigma.dual, sigma.dual_prime):
        own = getattr(dual, "func", None) in (_ruled_dual, _ruled_dual_prime)
        key.append((dual.func, dual.args[1]) if own else _computed(dual, 3))
    return dataclasses.replace(sigma, key=tuple(key))


def _computed(function: Callable, count: int) -> Hashable:
    """What ``function`` of ``count`` numbers computes, and its derivatives, as it is now."""

    def with_slopes(*at: Array) -> tuple:
        def slope(*at: Array) -> Array:
            return jax.jvp(function, at, at)[1]

        return function(*at), slope(*at), jax.jvp(slope, at, at)[1]

    found = traced(with_slopes, *(jnp.ones((), jnp.float32),) * count)
    if any(isinstance(array, jax.core.Tracer) for array in found.arrays):
        raise TypeError(
            "activation needs a function of known numbers, got one that reads a traced value: "
            "gain and beta may be traced, the parameters of an activation may not"
        )
    return found.program, tuple(
        (a.dtype, a.shape, a.tobytes()) for a in map(np.asarray, found.arrays)
    )

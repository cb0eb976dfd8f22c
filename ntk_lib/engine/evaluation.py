"""A limit kernel at every pair of many points: block by block, and by angle where that suffices.

Serves ``nngp`` and ``ntk``. Both are a function F of three numbers a pair of points has,

    K(x, x') = F(a, b, k),        a = Σ^(1)(x, x), b = Σ^(1)(x', x'), k = Σ^(1)(x, x'),

and F is a recursion over the layers. ``evaluate`` fills the matrix of K:

- in blocks, so that beside the result little memory is needed; with one set of points only the
  blocks on and above the diagonal are computed;
- through the angle where it decides alone: when all points have one norm, or when σ is homogeneous
  and β = 0 and the norms are factors. Then F is a function of ρ = k/√(ab), and a polynomial that
  agrees with the recursion at 32 or 64 places replaces it, whose cost does not depend on the depth.
  The variable is s = √(1 − |ρ|), one polynomial for each sign of ρ. In ρ itself the kernel of ReLU
  has root singularities at ±1; in s it is analytic (1 − cos θ = 2 sin²(θ/2)), so a Chebyshev
  interpolant converges geometrically (Trefethen 2013, chapter 8);
- on many devices, each of which computes and holds its part.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from ntk_lib.engine.activations import Activation, Moments, as_activation
from ntk_lib.engine.arguments import as_inputs, as_scalar, check_numbers

__all__ = ["by_recursion", "evaluate"]

Recursion = Callable[[Moments, Activation, Array, Array, ArrayLike], Array]
"""F: (moments of the first layer, σ, gain, β, depth) to the kernel, entry by entry."""

# before JAX 0.8 it stands in jax.experimental alone
_enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64

BLOCK = 512  # rows and columns of a block: 1 MiB in float32, which a core's cache holds
SMALL = 2**23  # entries of a kernel up to which blocks are half that, or they would cost memory
NODES = (32, 64)  # places where the recursion is run to find the polynomials: enough, or more
WORTH = 2**19  # entries × layers from which the polynomials repay their making, about a millisecond
LONG = 400  # blocks from which a progress bar is shown, about two seconds


class Points(NamedTuple):
    """What a block needs to know of its points, one a row."""

    x: Float[Array, "n d"]
    a: Float[Array, " n"]  # Σ^(1)(x, x)
    root: Float[Array, " n"]  # √a
    size: Float[Array, " n"]  # the factor of this point when the angle decides
    index: Int[Array, " n"]  # which point of the data this is; -1 in a second set
    diagonal: Float[Array, " n"]  # K(x, x), for which no angle is taken


class Setting(NamedTuple):
    """What all blocks share; ``coefficients`` of the polynomials, or None for the recursion."""

    gain: Float[Array, ""]
    beta: Float[Array, ""]
    depth: ArrayLike
    coefficients: Float[Array, "2 terms"] | None


# ---------------------------------------------------------------- one block


def _points(x: Array, setting: Setting, recursion: Recursion, sigma: Activation) -> Points:
    a = jnp.sum(x * x, axis=1) / x.shape[1] + setting.beta**2
    gain, beta, depth, _ = setting
    diagonal = recursion(Moments(a, a, a), sigma, gain, beta, depth)
    one, index = jnp.ones_like(a), jnp.arange(len(a), dtype=jnp.int32)
    return Points(x, a, jnp.sqrt(a), one, index, diagonal)


@functools.partial(jax.jit, static_argnames=("recursion", "sigma"))
def _about_points(x: Array, setting: Setting, *, recursion: Recursion, sigma: Activation) -> Points:
    return _points(x, setting, recursion, sigma)._replace(x=None)  # or x would be copied


def _by_angle(rho: Array, coefficients: Array) -> Array:
    """Σ_m c_m T_m(2s − 1), s = √(1 − |ρ|), by Clenshaw's recurrence; c depends on the sign of ρ."""
    ahead = rho >= 0
    c = [jnp.where(ahead, *pair) for pair in coefficients.T]
    z = 2 * jnp.sqrt(jnp.maximum(1 - jnp.abs(rho), 0.0)) - 1
    low = high = jnp.zeros_like(z)
    for term in c[:0:-1]:
        low, high = 2 * z * low - high + term, low
    return z * low - high + c[0]


def _block(
    left: Points, right: Points, setting: Setting, recursion: Recursion, sigma: Activation
) -> Float[Array, "n m"]:
    gain, beta, depth, coefficients = setting
    k = left.x @ right.x.T / left.x.shape[1] + beta**2
    a, b = left.a[:, None], right.a[None]
    if coefficients is None:
        kernel = recursion(Moments(a, b, k), sigma, gain, beta, depth)
    else:
        rho = k / (left.root[:, None] * right.root[None])
        kernel = _by_angle(rho, coefficients) * (left.size[:, None] * right.size[None])
    same = left.index[:, None] == right.index[None]
    return jnp.where(same, left.diagonal[:, None], kernel)


@jax.jit
def _mirrored(kernel: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """(k + kᵀ)/2: exactly symmetric, as a program of its own.

    Inside the program that computes k, XLA would compute kᵀ again, with another rounding.
    """
    return (kernel + kernel.T) / 2


def by_recursion(
    recursion: Recursion,
    x: Float[Array, "n d"],
    y: Float[Array, "m d"] | None,
    *,
    sigma: Activation,
    gain: ArrayLike,
    beta: ArrayLike,
    depth: int,
) -> Float[Array, "n m"]:
    """The recursion at every pair in one piece: the reference, and what is differentiated.

    Holds several arrays of shape (n, m).
    """
    gain, beta = as_scalar("gain", gain, x.dtype), as_scalar("beta", beta, x.dtype)
    setting = Setting(gain, beta, depth, None)
    left = _points(x, setting, recursion, sigma)
    if y is None:
        return _mirrored(_block(left, left, setting, recursion, sigma))
    right = _points(y, setting, recursion, sigma)
    right = right._replace(index=jnp.full(len(y), -1, jnp.int32))
    return _block(left, right, setting, recursion, sigma)


_whole = jax.jit(by_recursion, static_argnames=("recursion", "sigma", "depth"))


# ---------------------------------------------------------------- the angle

_recursion_program = jax.jit(
    lambda moments, sigma, setting, recursion: recursion(moments, sigma, *setting[:3]),
    static_argnames=("sigma", "recursion"),
)


def _coefficients(
    recursion: Recursion, sigma: Activation, setting: Setting, q: float
) -> Float[np.ndarray, "2 terms"] | None:
    """Chebyshev coefficients of F(q, q, qρ) in s for ρ ≥ 0 and for ρ < 0; None if too many.

    Computed in float64, as many as the rounding of the setting's dtype asks for. Where the angle is
    small the recursion itself knows 12 or 13 digits in float64, so no more are asked for.
    """
    eps = float(jnp.finfo(setting.gain.dtype).eps)

    def at(z: Float[np.ndarray, " nodes"]) -> Float[np.ndarray, "nodes 2"]:
        rho = 1 - ((z + 1) / 2) ** 2
        with _enable_x64(True):
            k = jnp.asarray(q * np.stack([rho, -rho], axis=1))
            a = jnp.full_like(k, q)
            numbers = Setting(*(np.float64(t) for t in setting[:2]), setting.depth, None)
            return np.asarray(_recursion_program(Moments(a, a, k), sigma, numbers, recursion))

    for nodes in NODES:
        c = np.polynomial.chebyshev.chebinterpolate(at, nodes - 1)
        size = np.abs(c).max(axis=1)
        left_out = np.cumsum(size[::-1])[::-1] / size.sum()  # by stopping before each term
        if left_out[-4] <= max(eps / 4, 2e-13):
            terms = int(np.argmax(left_out <= eps / 4)) or nodes
            return c[: 4 * -(-terms // 4)].T  # multiples of 4: few different programs
    return None


def _with_angle(
    recursion: Recursion, left: Points, right: Points, setting: Setting, sigma: Activation
) -> tuple[Points, Points, Setting]:
    """The same, prepared for ``_by_angle`` when the angle decides and the polynomials converge."""
    variances = np.concatenate([np.asarray(left.a), np.asarray(right.a)])
    factors = sigma.homogeneous and float(setting.beta) == 0
    one_norm = np.ptp(variances) <= 16 * np.finfo(variances.dtype).eps * variances.max()
    if not (factors or one_norm) or variances.min() <= 0:
        return left, right, setting
    coefficients = _coefficients(
        recursion, sigma, setting, 1.0 if factors else float(variances.mean(dtype=np.float64))
    )
    if coefficients is None:
        return left, right, setting
    if factors:
        left, right = (points._replace(size=points.root) for points in (left, right))
    return left, right, setting._replace(coefficients=jnp.asarray(coefficients, left.x.dtype))


# ---------------------------------------------------------------- all blocks


@functools.partial(jax.jit, static_argnames=("shape", "recursion", "sigma"))
def _block_at(
    left: Points, right: Points, start: tuple, setting: Setting, *, shape: tuple, recursion, sigma
) -> Array:
    parts = (
        jax.tree.map(lambda t: jax.lax.dynamic_slice_in_dim(t, at, size), points)  # noqa: B023
        for points, at, size in zip((left, right), start, shape, strict=True)
    )
    return _block(*parts, setting, recursion, sigma)


@functools.partial(jax.jit, donate_argnums=0, static_argnames="twice")
def _insert(kernel: Array, block: Array, start: tuple, *, twice: bool) -> Array:
    """The block in its place and, if ``twice``, its transpose in the mirrored place."""
    kernel = jax.lax.dynamic_update_slice(kernel, block, start)
    return jax.lax.dynamic_update_slice(kernel, block.T, start[::-1]) if twice else kernel


def _starts(n: int, most: int) -> tuple[list[int], int]:
    """Where blocks of one size start that cover n rows; the last may overlap the one before."""
    count = -(-n // most)
    size = -(-n // count)
    return [min(i * size, n - size) for i in range(count)], size


def _in_blocks(
    left: Points, right: Points, setting: Setting, symmetric: bool, recursion, sigma
) -> Array:
    n, m = len(left.a), len(right.a)
    most = BLOCK if n * m > SMALL else BLOCK // 2
    (rows, height), (columns, breadth) = _starts(n, most), _starts(m, most)
    compute = functools.partial(
        _block_at, shape=(height, breadth), recursion=recursion, sigma=sigma
    )
    if len(rows) == len(columns) == 1:
        block = compute(left, right, (0, 0), setting)
        return _mirrored(block) if symmetric else block
    kernel = jnp.zeros((n, m), left.x.dtype)
    count = len(rows) * (len(rows) + 1) // 2 if symmetric else len(rows) * len(columns)
    with tqdm(total=count, desc="kernel", unit="block", disable=count < LONG) as bar:
        for row, i in enumerate(rows):
            for j in columns[row:] if symmetric else columns:
                block = compute(left, right, (i, j), setting)
                block = _mirrored(block) if symmetric and i == j else block
                kernel = _insert(kernel, block, (i, j), twice=symmetric and i != j)
                bar.update()
            kernel.block_until_ready()  # or the bar would run ahead of the work
    return kernel


@functools.cache
def _mesh_program(mesh: Mesh, recursion: Recursion, sigma: Activation) -> tuple[Callable, tuple]:
    """The program that fills each device's part, and where its arguments lie."""
    rows, columns = [*mesh.axis_names, None][:2]

    def part(left: Points, right: Points, setting: Setting) -> Array:
        def row(point: Points) -> Array:
            point = jax.tree.map(lambda t: t[None], point)
            return _block(point, right, setting, recursion, sigma)[0]

        return jax.lax.map(row, left, batch_size=min(BLOCK, len(left.a)))

    def spec(axis: str | None) -> Points:
        return Points(*(PartitionSpec(axis) for _ in Points._fields))

    specs = (spec(rows), spec(columns), PartitionSpec())
    result = PartitionSpec(rows, columns)
    program = jax.jit(jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=result))
    return program, jax.tree.map(lambda place: NamedSharding(mesh, place), specs)


def _on_mesh(left: Points, right: Points, setting: Setting, mesh: Mesh, recursion, sigma) -> Array:
    for name, points, axis in zip(("x", "y"), (left, right), mesh.axis_names, strict=False):
        if len(points.a) % mesh.shape[axis]:
            raise ValueError(
                f"{name} needs a number of points that the {mesh.shape[axis]} devices along the "
                f"mesh's axis {axis!r} can share evenly, got {len(points.a)}"
            )
    program, places = _mesh_program(mesh, recursion, sigma)
    return program(*map(jax.device_put, (left, right, setting), places))


def evaluate(
    recursion: Recursion,
    x: Float[ArrayLike, "n d"],
    y: Float[ArrayLike, "m d"] | None,
    *,
    depth: int,
    activation: str | Activation,
    gain: float,
    beta: float,
    mesh: Mesh | None = None,
    plain: bool = False,
) -> Float[Array, "n m"]:
    """The kernel whose recursion is given at all pairs of ``x`` and ``y`` (None: of ``x``).

    Beside the result it holds the points and a few blocks of at most 512 × 512. Under a JAX
    transformation of ``x`` or ``y``, and where ``plain``, it is ``by_recursion``. With ``mesh``, a
    ``jax.sharding.Mesh`` of one or two axes (of one host or several), the rows of the result are
    shared along the first axis and the columns along the second; each device computes its part.

    Errors are a few roundings of the dtype, in units of √(K(x, x) K(x', x')), but for a kink in σ
    and a pair of nearly parallel points in ``x`` and ``y``: their ρ is rounded, so their angle is
    known to √ε only. On the diagonal of the kernel of ``x`` with itself no angle is taken.

    Raises ``TypeError`` for a mesh that is none, ``ValueError`` for one of more than two axes and
    for points that its devices cannot share evenly, and what ``as_activation``, ``check_numbers``
    and ``as_inputs`` raise.
    """
    sigma = as_activation(activation)
    gain, beta = check_numbers(depth=depth, gain=gain, beta=beta)
    x, y = as_inputs(x, y, forbid_zero=sigma.homogeneous and beta == 0)
    if mesh is not None and not isinstance(mesh, Mesh):
        raise TypeError(f"mesh needs a jax.sharding.Mesh, got {type(mesh).__name__}")
    if mesh is not None and len(mesh.axis_names) > 2:
        raise ValueError(f"mesh needs one or two axes, got {mesh.axis_names}")
    gain, beta = as_scalar("gain", gain, x.dtype), as_scalar("beta", beta, x.dtype)
    if plain or any(isinstance(t, jax.core.Tracer) for t in (x, y)):
        return _whole(recursion, x, y, sigma=sigma, gain=gain, beta=beta, depth=depth)
    setting = Setting(gain, beta, np.int32(depth), None)
    about = functools.partial(_about_points, setting=setting, recursion=recursion, sigma=sigma)
    left = right = about(x)._replace(x=x)
    if y is not None:
        right = about(y)._replace(x=y, index=jnp.full(len(y), -1, jnp.int32))
    if len(left.a) * len(right.a) * (depth - 1) >= WORTH:
        left, right, setting = _with_angle(recursion, left, right, setting, sigma)
    if mesh is not None:
        return _on_mesh(left, right, setting, mesh, recursion, sigma)
    return _in_blocks(left, right, setting, y is None, recursion, sigma)

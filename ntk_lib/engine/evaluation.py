"""A limit kernel at every pair of many points: block by block, and from few places where it may.

Serves ``nngp`` and ``ntk``. Both are a function F of three numbers a pair of points has,

    K(x, x') = F(a, b, k),        a = Σ^(1)(x, x), b = Σ^(1)(x', x'), k = Σ^(1)(x, x'),

and F is a recursion over the layers. ``evaluate`` fills the matrix of K:

- in blocks, so that beside the result little memory is needed; with one set of points only the
  blocks on and above the diagonal are computed;
- pair by pair where an expectation costs much and the pairs are fewer than an interpolant needs;
- by interpolation where F depends on the angle alone or one of its expectations costs much: see
  ``interpolation``;
- in float64 where the points are float32 but few, so that a small kernel is exact to its rounding;
- on many devices, each of which computes and holds its part.

The angle between two points is taken from the points themselves where their cosine does not hold
it (``angles.correlations``). Where σ is straight on either side of zero and there is no bias, norms
are factors: the recursion runs on unit vectors, so that neither depth nor gain nor the size of the
points leads out of the range of the dtype before the result does.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from ntk_lib.engine.activations import Activation, Moments, as_activation
from ntk_lib.engine.angles import correlations, geometric_mean, unit_vectors
from ntk_lib.engine.arguments import as_inputs, as_scalar, check_numbers
from ntk_lib.engine.interpolation import (
    Numbers,
    Recursion,
    angle_polynomials,
    at_pairs,
    by_angle,
    by_surface,
    enable_x64,
    surface,
    surface_basis,
)

__all__ = ["by_recursion", "evaluate"]

BLOCK = 512  # rows and columns of a block: 1 MiB in float32, which a core's cache holds
SMALL = 2**23  # entries of a kernel up to which blocks are half that, or they would cost memory
WORTH = 2**19  # entries × layers from which the polynomials repay their making, about a millisecond
FEW = 4488  # pairs: as many as the smallest surface is made from (interpolation.SIZES)
TOGETHER = 256  # pairs in a run of the recursion
LONG = 400  # blocks from which a progress bar is shown, about two seconds


class Points(NamedTuple):
    """What a block needs to know of its points, one a row."""

    unit: Float[Array, "n e"]  # (x/√d, β) over its norm
    variance: Float[Array, " n"]  # where the recursion begins: Σ^(1)(x, x), or 1
    size: Float[Array, " n"]  # the factor of this point
    index: Int[Array, " n"]  # which point of the data this is; -1 in a second set
    diagonal: Float[Array, " n"]  # K(x, x), for which no angle is taken
    rows: Float[Array, "n t p"] | None = None  # of the surface, as a row and as a column
    columns: Float[Array, "n p"] | None = None


class Setting(NamedTuple):
    """What all blocks share; ``coefficients`` of the polynomials in the angle, or None."""

    gain: Float[Array, ""]
    beta: Float[Array, ""]
    depth: ArrayLike
    coefficients: Float[Array, "2 terms"] | None = None


# ---------------------------------------------------------------- one block


def _are_factors(sigma: Activation, beta: object) -> bool:
    """Whether norms are factors: σ is straight on either side of zero, and there is no bias."""
    return sigma.slopes is not None and not isinstance(beta, jax.core.Tracer) and beta == 0


def _start(
    x: Array, sigma: Activation, gain: ArrayLike, beta: ArrayLike, depth: ArrayLike, factors: bool
) -> tuple[Array, Array, Array, ArrayLike]:
    """Unit vectors, variances where the recursion begins, sizes, and the gain that it takes."""
    unit, norm = unit_vectors(x, beta)
    if not factors:
        return unit, norm * norm, jnp.ones_like(norm), gain
    p, q = sigma.slopes
    kept = (p * p + q * q) / 2  # E[σ(u)²] of u ~ N(0, 1)
    half = (jnp.asarray(depth) - 1).astype(x.dtype) / 2
    size = norm * (gain * kept) ** half
    return unit, jnp.ones_like(norm), size, jnp.ones_like(gain) / (kept or 1.0)


def _block(
    left: Points, right: Points, setting: Setting, recursion: Recursion, sigma: Activation
) -> Float[Array, "n m"]:
    gain, beta, depth, coefficients = setting
    if sigma.slopes is not None:
        rho, gap = correlations(left.unit, right.unit)
    else:
        rho, gap = left.unit @ right.unit.T, None
    if left.rows is not None:
        kernel = by_surface(rho, left.rows, right.columns)
    elif coefficients is not None:
        gap = jnp.maximum(1 - jnp.abs(rho), 0.0) if gap is None else gap
        kernel = by_angle(rho >= 0, gap, coefficients)
    else:
        a, b = left.variance[:, None], right.variance[None]
        kernel = recursion(Moments(a, b, geometric_mean(a, b) * rho, gap), sigma, gain, beta, depth)
    kernel = kernel * (left.size[:, None] * right.size[None])
    same = left.index[:, None] == right.index[None]
    return jnp.where(same, left.diagonal[:, None], kernel)


@jax.jit
def _mirrored(kernel: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """(k + kᵀ)/2: exactly symmetric, as a program of its own.

    Inside the program that computes k, XLA would compute kᵀ again, with another rounding.
    """
    return (kernel + kernel.T) / 2


def _points(
    x: Array, sigma: Activation, setting: Setting, recursion: Recursion, factors: bool
) -> tuple[Points, Array]:
    """The points, and the gain that the recursion takes."""
    gain, beta, depth, _ = setting
    unit, a, size, gain = _start(x, sigma, gain, beta, depth, factors)
    gap = None if sigma.slopes is None else jnp.zeros_like(a)
    diagonal = size * size * recursion(Moments(a, a, a, gap), sigma, gain, beta, depth)
    return Points(unit, a, size, jnp.arange(len(a), dtype=jnp.int32), diagonal), gain


def by_recursion(
    recursion: Recursion,
    x: Float[Array, "n d"],
    y: Float[Array, "m d"] | None,
    *,
    sigma: Activation,
    gain: ArrayLike,
    beta: ArrayLike,
    depth: ArrayLike,
    factors: bool = False,
    diagonal: bool = False,
) -> Float[Array, " n *m"]:
    """The recursion at every pair in one piece: the reference, and what is differentiated.

    Holds several arrays of shape (n, m). ``factors`` says that β is 0 and known to be.
    """
    gain, beta = as_scalar("gain", gain, x.dtype), as_scalar("beta", beta, x.dtype)
    left, taken = _points(x, sigma, Setting(gain, beta, depth), recursion, factors)
    if diagonal:
        return left.diagonal
    setting = Setting(taken, beta, depth)
    if y is None:
        return _mirrored(_block(left, left, setting, recursion, sigma))
    right, _ = _points(y, sigma, Setting(gain, beta, depth), recursion, factors)
    right = right._replace(index=jnp.full(len(y), -1, jnp.int32))
    return _block(left, right, setting, recursion, sigma)


_whole = jax.jit(
    by_recursion, static_argnames=("recursion", "sigma", "depth", "factors", "diagonal")
)
_about_points = jax.jit(_points, static_argnames=("sigma", "recursion", "factors"))


# ---------------------------------------------------------------- what is known of the points


def _about(
    recursion: Recursion, x: np.ndarray, sigma: Activation, numbers: Numbers, dtype: np.dtype
) -> tuple[Points, float]:
    """The points in float64, with what is known of each, and the gain that the recursion takes.

    Raises ``ValueError`` where the kernel of a point with itself is not a number of ``dtype``.
    """
    with enable_x64(True):
        setting = Setting(
            np.float64(numbers.gain), np.float64(numbers.beta), np.int32(numbers.depth)
        )
        found, gain = _about_points(
            jnp.asarray(x, float), sigma, setting, recursion, _are_factors(sigma, numbers.beta)
        )
        found = Points(*map(np.asarray, found[:5]))
    largest = float(jnp.finfo(dtype).max)
    good = np.isfinite(found.diagonal) & (np.abs(found.diagonal) <= largest)
    if not np.all(good):
        row = int(np.argmin(good))
        _refuse(sigma, numbers, row, found.diagonal[row], found.variance[row], dtype)
    return found, float(gain)


def _refuse(sigma, numbers: Numbers, row: int, value: float, variance: float, dtype) -> None:
    if math.isnan(value) and sigma.costly and not isinstance(sigma.key, str):
        raise ValueError(
            f"activation needs a function that the quadrature resolves, got {sigma.name} at "
            f"variance {variance:.3g} (row {row}) and what gain {numbers.gain:g} makes of it. (1) "
            "It has a kink or a jump: leaky_relu has its expectations in closed form, and "
            "Activation(name, function, dual, dual_prime) takes yours. (2) The variance is too "
            "large: scale the inputs, or lower the gain. (3) nodes is below 320. The page "
            "asked.html#asked-activation shows each"
        )
    size = "beyond float64" if not math.isfinite(value) else f"{value:.3g}"
    raise ValueError(
        f"gain needs a value at which the kernel fits into {dtype}, got {numbers.gain:g} "
        f"with depth {numbers.depth}: K(x, x) is {size} in row {row}, where the first variance is "
        f"{variance:.3g}. Ways out: a gain that hands variances on (2 for ReLU), smaller inputs, "
        'or float64: jax.config.update("jax_enable_x64", True). See asked.html#asked-depth'
    )


def _firsts(x: np.ndarray) -> Int[np.ndarray, " n"]:
    """For each row the first row that is equal to it."""
    rows = np.ascontiguousarray(x + 0.0)  # not -0.0
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]
    _, first, where = np.unique(keys, return_index=True, return_inverse=True)
    return first[where.reshape(-1)].astype(np.int32)


def _interpolated(
    recursion: Recursion,
    sides: tuple[Points, ...],
    sigma: Activation,
    numbers: Numbers,
    dtype: np.dtype,
) -> tuple[tuple[Points, ...], np.ndarray | None]:
    """The points with what an interpolant needs, and the coefficients of one by angle."""
    variances = np.concatenate([points.variance for points in sides])
    eps = float(jnp.finfo(dtype).eps)
    if sigma.costly:
        found = surface(recursion, sigma, numbers, variances, eps)
        if found is None:
            return sides, None
        with_rows = []
        for points in sides:
            rows, columns = surface_basis(found, points.variance)
            size = np.sqrt(points.diagonal)
            with_rows.append(points._replace(size=size, rows=rows, columns=columns))
        return tuple(with_rows), None
    if np.ptp(variances) > 16 * eps * variances.max() or variances.min() <= 0:
        return sides, None
    variance = float(variances.mean())
    return sides, angle_polynomials(recursion, sigma, numbers, variance, eps)


# ---------------------------------------------------------------- pair by pair


def _pair_by_pair(
    left: Points, right: Points, numbers: Numbers, symmetric: bool, recursion, sigma: Activation
) -> Float[np.ndarray, "n m"]:
    """The kernel of few points in float64, by a program that is the same for any number of them."""
    shape = len(left.size), len(right.size)
    row, column = np.triu_indices(shape[0]) if symmetric else map(np.ravel, np.indices(shape))
    a, b = left.variance[row], right.variance[column]
    k = np.sqrt(a) * np.sqrt(b) * np.sum(left.unit[row] * right.unit[column], axis=1)
    more = -len(row) % TOGETHER
    parts = [np.pad(t, (0, more), mode="edge").reshape(-1, TOGETHER) for t in (a, b, k)]
    found = [
        at_pairs(recursion, Moments(*part), sigma, numbers) for part in zip(*parts, strict=True)
    ]
    kernel = np.empty(shape)
    kernel[row, column] = np.concatenate(found)[: len(row)]
    if symmetric:
        kernel[column, row] = kernel[row, column]
    same = left.index[:, None] == right.index[None]
    return np.where(same, left.diagonal[:, None], kernel)


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
    n, m = len(left.size), len(right.size)
    most = BLOCK if n * m > SMALL else BLOCK // 2
    (rows, height), (columns, breadth) = _starts(n, most), _starts(m, most)
    compute = functools.partial(
        _block_at, shape=(height, breadth), recursion=recursion, sigma=sigma
    )
    if len(rows) == len(columns) == 1:
        block = compute(left, right, (0, 0), setting)
        return _mirrored(block) if symmetric else block
    kernel = jnp.zeros((n, m), left.unit.dtype)
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

        return jax.lax.map(row, left, batch_size=min(BLOCK, len(left.size)))

    def spec(axis: str | None) -> Points:
        return Points(*(PartitionSpec(axis) for _ in Points._fields))

    specs = (spec(rows), spec(columns), PartitionSpec())
    result = PartitionSpec(rows, columns)
    program = jax.jit(jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=result))
    return program, jax.tree.map(lambda place: NamedSharding(mesh, place), specs)


def _on_mesh(left: Points, right: Points, setting: Setting, mesh: Mesh, recursion, sigma) -> Array:
    for name, points, axis in zip(("x", "y"), (left, right), mesh.axis_names, strict=False):
        if len(points.size) % mesh.shape[axis]:
            raise ValueError(
                f"{name} needs a number of points that the {mesh.shape[axis]} devices along the "
                f"mesh's axis {axis!r} can share evenly, got {len(points.size)}"
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
    gain: ArrayLike,
    beta: ArrayLike,
    mesh: Mesh | None = None,
    plain: bool = False,
    diagonal: bool = False,
) -> Float[Array, " n *m"]:
    """The kernel whose recursion is given at all pairs of ``x`` and ``y`` (None: of ``x``).

    Beside the result it holds the points and a few blocks of at most 512 × 512. Under a JAX
    transformation of the points, of ``gain`` or of ``beta``, and where ``plain``, it is
    ``by_recursion``. With ``mesh``, a ``jax.sharding.Mesh`` of one or two axes (of one host or
    several), the rows of the result are shared along the first axis and the columns along the
    second; each device computes its part. With ``diagonal`` it is K(x, x) of each point, (n,).

    Errors are a few roundings of the dtype, in units of √(K(x, x) K(x', x')); in float32 kernels of
    few points have one. Equal rows are equal in the result. Rows of zeros are points like any
    other.

    Raises ``TypeError`` for a mesh that is none, ``ValueError`` for one of more than two axes,
    under a transformation and for points that its devices cannot share evenly, for ``y`` with
    ``diagonal``, a kernel that leaves the range of its dtype and a function that ``quadrature``
    does not resolve, and what ``as_activation``, ``check_numbers`` and ``as_inputs`` raise.
    """
    sigma = as_activation(activation)
    gain, beta = check_numbers(depth=depth, gain=gain, beta=beta)
    x, y = as_inputs(x, y)
    if mesh is not None and not isinstance(mesh, Mesh):
        raise TypeError(f"mesh needs a jax.sharding.Mesh, got {type(mesh).__name__}")
    if mesh is not None and len(mesh.axis_names) > 2:
        raise ValueError(f"mesh needs one or two axes, got {mesh.axis_names}")
    if diagonal and not (y is None and mesh is None):
        raise ValueError("diagonal needs one set of points and no mesh, got y or mesh beside it")
    known = {
        name: as_scalar(name, value, x.dtype) for name, value in (("gain", gain), ("beta", beta))
    }
    options = {"sigma": sigma, "depth": depth, "factors": _are_factors(sigma, beta)}
    traced = any(isinstance(t, jax.core.Tracer) for t in (x, y, gain, beta))
    if traced and mesh is not None:
        raise ValueError("mesh needs known points (no jit, no grad), got traced ones")
    if traced or plain:
        return _whole(recursion, x, y, **known, **options, diagonal=diagonal)
    numbers = Numbers(gain, beta, int(depth))
    return _evaluate(recursion, x, y, sigma, numbers, mesh, diagonal)


def _evaluate(
    recursion: Recursion,
    x: Array,
    y: Array | None,
    sigma: Activation,
    numbers: Numbers,
    mesh: Mesh | None,
    diagonal: bool,
) -> Array:
    """The same for points that are known."""
    dtype, hosts = x.dtype, [np.asarray(t) for t in (x, y) if t is not None]
    sides, taken = [], numbers.gain
    for points in hosts:
        side, taken = _about(recursion, points, sigma, numbers, dtype)
        sides.append(side)
    if diagonal:
        return jnp.asarray(sides[0].diagonal.astype(dtype))
    numbers = numbers._replace(gain=taken)
    firsts = _firsts(np.concatenate(hosts) if len(hosts) > 1 else hosts[0])
    cut = len(hosts[0])
    sides = [
        side._replace(index=part)
        for side, part in zip(sides, (firsts[:cut], firsts[cut:]), strict=False)
    ]
    pairs = len(hosts[0]) * len(hosts[-1])
    work = pairs * (numbers.depth - 1)
    with enable_x64(dtype.itemsize > 4):
        if sigma.costly and sigma.slopes is None and mesh is None and pairs <= FEW and work:
            kernel = _pair_by_pair(sides[0], sides[-1], numbers, y is None, recursion, sigma)
            kernel = jnp.asarray(kernel.astype(dtype))
        else:
            kernel = _at_once(recursion, sides, y is None, sigma, numbers, mesh, work, dtype)
        if sigma.costly and not _all_finite(kernel):
            row = int(np.argmin(np.isfinite(np.asarray(kernel)).all(axis=1)))
            _refuse(sigma, numbers, row, math.nan, sides[0].variance[row], dtype)
        firsts = (firsts,) * 2 if y is None else (firsts[:cut], _firsts_of(firsts[cut:]))
        return _with_equal_rows(kernel, *firsts)


def _at_once(
    recursion: Recursion,
    sides: list[Points],
    symmetric: bool,
    sigma: Activation,
    numbers: Numbers,
    mesh: Mesh | None,
    work: int,
    dtype: np.dtype,
) -> Array:
    """The kernel of all pairs, from an interpolant where that repays, over a mesh or in blocks."""
    coefficients = None
    if numbers.depth > 1 and (sigma.costly or work >= WORTH):
        sides, coefficients = _interpolated(recursion, tuple(sides), sigma, numbers, dtype)
    exact = work < WORTH and mesh is None and not sigma.costly
    with enable_x64(exact or dtype.itemsize > 4):
        kind = jnp.dtype(float) if exact else dtype
        left, right = (
            jax.tree.map(lambda t: _cast(t, kind), side) for side in (sides[0], sides[-1])
        )
        setting = Setting(
            *(jnp.asarray(t, kind) for t in numbers[:2]),
            np.int32(numbers.depth),
            None if coefficients is None else jnp.asarray(coefficients, kind),
        )
        if mesh is not None:
            kernel = _on_mesh(left, right, setting, mesh, recursion, sigma)
        else:
            kernel = _in_blocks(left, right, setting, symmetric, recursion, sigma)
        return kernel.astype(dtype)


@jax.jit
def _all_finite(kernel: Array) -> Array:
    return jnp.all(jnp.isfinite(kernel))


def _cast(t: np.ndarray, kind: np.dtype) -> Array:
    return jnp.asarray(t if np.issubdtype(t.dtype, np.integer) else t.astype(kind))


def _with_equal_rows(kernel: Array, *sides: np.ndarray) -> Array:
    """The kernel in which equal points have equal rows and columns, to the last bit."""
    for axis, side in enumerate(sides):
        if np.any(side != np.arange(len(side))):
            kernel = _taking(axis, kernel.sharding)(kernel, side)
    return kernel


@functools.lru_cache(maxsize=64)
def _taking(axis: int, sharding: jax.sharding.Sharding) -> Callable[[Array, np.ndarray], Array]:
    return jax.jit(functools.partial(jnp.take, axis=axis), out_shardings=sharding)


def _firsts_of(index: np.ndarray) -> np.ndarray:
    """For each number the place where it stands first."""
    _, first, where = np.unique(index, return_index=True, return_inverse=True)
    return first[where.reshape(-1)]

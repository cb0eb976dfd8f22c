"""The numerical experiments of Jacot, Gabriel and Hongler (2018), section 6, as functions.

Serves the chapter ``jacot_2018``. Three questions about a network trained by gradient descent, each
asked of many networks that differ in their random start alone:

    Figure 1   how does its tangent kernel on the circle change?     kernels_in_training
    Figure 2   which functions does it end at?                       early_stopping.trained_networks
    Figure 3   how does it learn one kernel principal component?     component_in_training

What the limit of infinite width predicts comes from earlier chapters: ``ntk``, ``trained_ensemble``
and ``kernels.principal_components``. Figure 3 trains towards f* = f₀ + c·f^(k), where f^(k) is the
k-th kernel principal component of the inputs, of mean square 1. Then in the limit

    f_t - f* = -c (1 - ηλ_k)^s f^(k)    after s = t/η steps,    -c e^(-λ_k t) f^(k) for small η,

with nothing orthogonal to f^(k): training follows a straight line.

Results that take minutes were computed once, by ``scripts/jacot_2018.py`` (``engine.data``).
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray
from tqdm import tqdm

from ntk_lib.early_stopping import starts_in_a_room
from ntk_lib.engine.activations import Activation, as_activation
from ntk_lib.engine.arguments import (
    as_array,
    as_counts,
    as_inputs,
    as_key,
    as_number,
    as_points,
    as_positive,
    as_scalar,
    as_steps,
    as_symmetric,
    as_whole,
    check_numbers,
)
from ntk_lib.gradient_flow import gradient_descent
from ntk_lib.kernels import principal_components
from ntk_lib.lazy import descend, training_arguments
from ntk_lib.limiting_ntk import mlp_ntk, mlp_ntk_of_arrays
from ntk_lib.wide_networks import Layer, apply, init

__all__ = [
    "Learning",
    "component",
    "component_in_training",
    "four_angles",
    "kernels_in_training",
    "saddle",
    "snapshots",
]

STEPS_A_CALL = 10  # between two ticks of the progress bar

# ---------------------------------------------------------------- data


def saddle(
    *, key: PRNGKeyArray, count: int = 64
) -> tuple[Float[Array, "count 2"], Float[Array, " count"]]:
    """``count`` points x ~ N(0, I) of the plane, and f*(x) = x₁x₂ at each: the task of Figure 1.

    In float32. Raises ``ValueError`` or ``TypeError`` for a count below 1 and for what is no key.
    Source: Jacot et al. 2018, section 6.1, which does not say how many points.
    """
    count = as_whole("count", count, least=1)
    x = jax.random.normal(as_key("key", key), (count, 2), jnp.float32)
    return x, x[:, 0] * x[:, 1]


def four_angles(arc: float) -> Float[np.ndarray, "4"]:
    """Four angles, equally spaced over an ``arc`` in radians that is centred at 0.3.

    The points of Figure 2, whose places the paper does not say: here the arc is the reader's. Below
    8π/3 they are four different points.

    Raises ``ValueError`` for an arc that is not positive, or not below 8π/3.
    """
    arc = as_positive("arc", arc)
    if arc >= 8 * np.pi / 3:
        raise ValueError(f"arc needs a number below 8π/3, where points would meet, got {arc:.4g}")
    return 0.3 + arc * (np.arange(4) / 3 - 0.5)


def component(theta: Float[ArrayLike, "n n"], index: int) -> tuple[float, Float[Array, " n"]]:
    """λ_k and f^(k) for k = ``index`` = 1, 2, …: a kernel principal component of n points.

    ``theta`` is the Gram matrix Θ of the points, (n, n), λ_k the k-th largest eigenvalue of Θ/n,
    and f^(k) the eigenvector scaled to mean square 1, with the sign that makes its largest entry
    positive.

    Raises ``ValueError`` for a matrix that is not symmetric or an index beyond 1 … n.
    """
    values, vectors = principal_components(as_symmetric("theta", theta))
    index = as_whole("index", index, least=1, most=len(values))
    f = vectors[:, index - 1] * len(values) ** 0.5
    return float(values[index - 1]), f * jnp.sign(f[jnp.argmax(jnp.abs(f))])


# ---------------------------------------------------------------- training, seen from outside


_descend = jax.jit(descend, static_argnames="sigma")


def snapshots(
    params: Sequence[Layer],
    x: Float[ArrayLike, "n d"],
    targets: Float[ArrayLike, " n"],
    *,
    steps: Sequence[int],
    rate: float = 1.0,
    activation: str | Activation = "relu",
    gain: float = 1.0,
    beta: float = 0.1,
    progress: Callable[[int], object] | None = None,
) -> Iterator[list[Layer]]:
    """The network after each of ``steps`` steps of gradient descent, one after the other.

    ``params`` as ``init`` draws them, with one output; ``x`` (n, d), ``targets`` (n,). ``steps``
    are step counts in increasing order, 0 for the start. The descent is that of ``lazy.train``, on
    C = ½·mean (f(x) - target)². ``progress``, if given, is called every few steps with their
    number.

    Raises ``ValueError`` for steps that decrease or are negative and for targets of another shape,
    and as ``lazy.train`` does, all before the first step.
    """
    if progress is not None and not callable(progress):
        got = type(progress).__name__
        raise TypeError(f"progress needs a function of a number of steps, got {got}")
    counts = as_steps(steps)
    (start, *arrays), sigma = training_arguments(params, x, targets, rate, activation, gain, beta)
    return _snapshots(start, arrays, counts, functools.partial(_descend, sigma=sigma), progress)


def _snapshots(params, arrays, counts, descend, progress) -> Iterator[list[Layer]]:
    done = 0
    for count in counts:
        while done < count:
            step = min(STEPS_A_CALL, count - done)
            params = descend(params, *arrays, count=step)
            done += step
            if progress is not None:
                jax.block_until_ready(params)  # or it would be told of work still to be done
                progress(step)
        yield params


def _runs(
    x: Array,
    targets: Callable[[list[Layer]], Array],
    *,
    key: PRNGKeyArray,
    draws: int,
    width: int,
    depth: int,
    steps: Sequence[int],
    **how: Any,
) -> Iterator[tuple[list[Layer], Iterator[list[Layer]]]]:
    """Each of ``draws`` random starts, with the snapshots of its training towards its targets.

    One progress bar for all, which a run of less than two seconds does not show.
    """
    check_numbers(depth=depth, gain=1.0, beta=how["beta"])
    keys = jax.random.split(as_key("key", key), as_whole("draws", draws, least=1))
    widths = (x.shape[1], *[as_whole("width", width, least=1)] * (depth - 1), 1)
    counts, name = as_steps(steps), f"training, width {width}"
    with tqdm(total=len(keys) * counts[-1], desc=name, unit="step", delay=2) as bar:
        for each in keys:
            start = init(widths, key=each, dtype=x.dtype)
            yield (
                start,
                snapshots(start, x, targets(start), steps=counts, progress=bar.update, **how),
            )


# ---------------------------------------------------------------- Figure 1


@functools.partial(jax.jit, static_argnames="sigma")
def _kernels_side_by_side(starts, x0, at, x, targets, share, segments, rate, gain, beta, *, sigma):
    """Θ_t(x₀, ·) of all ``starts``; ``share`` is 1/n for the n points ``x``, 0 for empty places."""
    shared = {"activation": sigma, "gain": gain, "beta": beta}

    def cost(params: list[Layer]) -> Array:
        return jnp.sum(share * (apply(params, x, **shared)[:, 0] - targets) ** 2) / 2

    def one(start: list[Layer]) -> Array:
        def segment(params: list[Layer], count: Array) -> tuple[list[Layer], Array]:
            params = jax.lax.fori_loop(
                0, count, lambda _, p: gradient_descent(cost, p, rate=rate, steps=1).params, params
            )
            return params, mlp_ntk_of_arrays(params, x0, at, gain, beta, sigma=sigma)[0]

        return jax.lax.scan(segment, start, segments)[1]

    return jax.vmap(one)(starts)


def _kernels_in_a_room(
    x0, at, x, targets, *, key, draws, width, depth, steps, rate, activation, beta, room
) -> Float[np.ndarray, "draws times p"]:
    keys = jax.random.split(as_key("key", key), as_whole("draws", draws, least=1))
    room = as_counts("room", room, least=1)
    if len(room) != 2:
        raise ValueError(f"room needs a number of neurons and one of points, got {room}")
    if len(x) > room[1]:
        raise ValueError(f"x needs to have at most {room[1]} points, got {len(x)}")
    width, segments = as_whole("width", width, least=1), np.diff(as_steps(steps), prepend=0)
    shape = {"inputs": x.shape[1], "width": width, "depth": depth, "room": room[0]}
    starts, gain = starts_in_a_room(keys, **shape, sigma=activation, dtype=x.dtype)
    first = jax.tree.map(lambda t: t[0], starts)
    (_, x, targets, *numbers), sigma = training_arguments(
        first, x, targets, rate, activation, gain, beta
    )
    # NumPy pads without a program for each number of points
    empty, share = room[1] - len(x), np.full(len(x), 1 / len(x), x.dtype)
    x = np.pad(np.asarray(x), ((0, empty), (0, 0)))
    targets, share = np.pad(np.asarray(targets), (0, empty)), np.pad(share, (0, empty))
    task = (x, targets, share, jnp.asarray(segments))
    return np.array(_kernels_side_by_side(starts, x0, at, *task, *numbers, sigma=sigma))


def kernels_in_training(
    x0: Float[ArrayLike, "one d"],
    at: Float[ArrayLike, "p d"],
    x: Float[ArrayLike, "n d"],
    targets: Float[ArrayLike, " n"],
    *,
    key: PRNGKeyArray,
    draws: int,
    width: int,
    depth: int = 4,
    steps: Sequence[int] = (0, 200),
    rate: float = 1.0,
    activation: str | Activation = "relu",
    beta: float = 0.1,
    room: tuple[int, int] | None = None,
) -> Float[np.ndarray, "draws times p"]:
    """Θ_t(x₀, ·) at the points ``at`` of ``draws`` networks, after each of ``steps`` of descent.

    ``x0`` is one point, shape (1, d); the networks, those of ``early_stopping.random_networks``,
    learn ``targets`` at ``x``, in the dtype of ``x``. In the units of f². Longer runs show a
    progress bar.

    ``room`` is for small networks, any of which one program then trains, all draws side by side:
    how many neurons a layer, and how many points ``x``, it has room for. The kernels are the same
    to rounding; σ(0) has to be 0, as in ``trained_networks``. There is no progress bar.

    Raises ``ValueError`` for another shape of ``x0``, for what does not fit the ``room``, and as
    ``snapshots`` and ``mlp_ntk`` do. Source: Jacot et al. 2018, section 6.1.
    """
    x, _ = as_inputs(x)
    x0, at = as_points("x0", x0, like=x), as_points("at", at, like=x)
    if len(x0) != 1:
        raise ValueError(f"x0 needs shape (1, {x.shape[1]}), one point, got {x0.shape}")
    shared = {"activation": as_activation(activation), "beta": beta}
    many = {"key": key, "draws": draws, "width": width, "depth": depth}
    if room is not None:
        how = many | shared | {"steps": steps, "rate": rate, "room": room}
        return _kernels_in_a_room(x0, at, x, targets, **how)
    runs = _runs(x, lambda _: targets, **many, steps=steps, rate=rate, **shared)
    return np.array(
        [[mlp_ntk(network, x0, at, **shared)[0] for network in path] for _, path in runs]
    )


# ---------------------------------------------------------------- Figure 3


class Learning(NamedTuple):
    """How ``draws`` networks learn f* = f₀ + c·f^(k), at each of several times."""

    along: Float[np.ndarray, "draws times"]
    """g_t = mean ((f* - f_t)·f^(k)): what is left along the component, c at the start."""
    across: Float[np.ndarray, "draws times"]
    """Root mean square of the rest h_t = f* - f_t - g_t f^(k)."""
    pull: Float[np.ndarray, "draws times"]
    """f^(k)ᵀ Θ_t f^(k)/N²: the rate at which the kernel of the moment learns the component."""
    cross: Float[np.ndarray, "draws times"]
    """f^(k)ᵀ Θ_t h_t/N²: under gradient flow dg/dt = -pull·along - cross."""


def component_in_training(
    x: Float[ArrayLike, "n d"],
    component: Float[ArrayLike, " n"],
    *,
    key: PRNGKeyArray,
    draws: int,
    width: int,
    depth: int,
    steps: Sequence[int],
    rate: float,
    size: float = 0.5,
    activation: str | Activation = "relu",
    beta: float = 0.1,
) -> Learning:
    """Train ``draws`` networks towards f₀ + size·component, and look after each of ``steps``.

    ``component`` is f^(k) at the points ``x``, shape (n,), of mean square 1; f₀ is each network's
    own start. Longer runs show a progress bar.

    Raises ``ValueError`` for a component of another shape or mean square, a size that is not a
    number, and as ``snapshots`` does. Source: Jacot et al. 2018, section 6.3.
    """
    x, _ = as_inputs(x)
    component = as_array("component", component, dtype=x.dtype)
    if component.shape != (len(x),):
        raise ValueError(f"component needs shape ({len(x)},), got {component.shape}")
    square = float(jnp.mean(component**2))
    if abs(square - 1) > 1e-3:
        raise ValueError(f"component needs mean square 1, got {square:.4g}")
    step = as_scalar("size", as_number("size", size), x.dtype) * component
    shared = {"activation": as_activation(activation), "beta": beta}

    def aim(network: list[Layer]) -> Array:
        return apply(network, x, **shared)[:, 0] + step

    def measure(network: list[Layer], goal: Array) -> tuple[Array, Array, Array, Array]:
        missing = goal - apply(network, x, **shared)[:, 0]
        along = jnp.mean(missing * component)
        rest = missing - along * component
        pulled = component @ mlp_ntk(network, x, **shared) / len(x) ** 2
        return along, jnp.sqrt(jnp.mean(rest**2)), pulled @ component, pulled @ rest

    many = {"key": key, "draws": draws, "width": width, "depth": depth}
    runs = _runs(x, aim, **many, steps=steps, rate=rate, **shared)
    table = [[measure(network, aim(start)) for network in path] for start, path in runs]
    return Learning(*np.moveaxis(np.array(table), -1, 0))

"""The neural tangent kernel: random at finite width, deterministic in the limit.

Serves the chapter ``limiting_ntk``. For a network f(x; w) with parameters w the neural tangent
kernel (NTK) is

    Θ(x, x') = Σ_p ∂f(x)/∂w_p · ∂f(x')/∂w_p        (Jacot et al. 2018, section 4).

Three ways to compute it stand side by side, and the tests hold each against the others:
``ntk``, the infinite-width limit of a multilayer perceptron, by the recursion (Theorem 1)

    Θ^(1) = Σ^(1),        Θ^(ℓ+1) = Θ^(ℓ)·Σ̇^(ℓ+1) + Σ^(ℓ+1),        Σ̇^(ℓ+1) = c·E[σ'(u)σ'(v)];

``tangent_kernels.empirical_ntk``, the definition, for any JAX function of a pytree of parameters;
and ``mlp_ntk``, the same number for a multilayer perceptron without a single Jacobian: the gradient
of the output with respect to W^(ℓ) is the outer product of a backward signal δ^(ℓ+1) = ∂f/∂α̃^(ℓ+1)
and a forward signal α^(ℓ)/√n_ℓ, so a layer adds

    (α^(ℓ)(x)·α^(ℓ)(x')/n_ℓ + β²) · δ^(ℓ+1)(x)·δ^(ℓ+1)(x').

The rest is what the chapter measures: kernels of many networks, their movement during training, and
the spectrum on the circle.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ntk_lib.engine.activations import Activation, Moments, as_activation
from ntk_lib.engine.arguments import (
    as_array,
    as_choice,
    as_inputs,
    as_key,
    as_numeric,
    as_positive,
    as_scalar,
    as_whole,
    check_known,
    check_numbers,
    check_params,
    on_one_device,
)
from ntk_lib.engine.evaluation import evaluate
from ntk_lib.engine.extras import needed
from ntk_lib.engine.tangent_kernels import OUTPUTS, sums_in, upper_mirrored
from ntk_lib.wide_networks import (
    Layer,
    batch_of,
    check_dimension,
    init,
    next_moments,
    preactivations,
)

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = [
    "circle_spectrum",
    "mlp_ntk",
    "ntk",
    "plot_on_circle",
    "random_kernels",
    "recursive_ntk",
]

# ---------------------------------------------------------------- the limit


def _ntk(
    moments: Moments, sigma: Activation, gain: Array, beta: Array, depth: ArrayLike
) -> Float[Array, "*pairs"]:
    """Θ^(depth) from Θ^(1) = Σ^(1), layer by layer."""

    def layer(_: Array, state: tuple[Array, Moments]) -> tuple[Array, Moments]:
        theta, moments = state
        sigma_dot = gain * sigma.slope(moments)
        moments = next_moments(moments, sigma, gain=gain, beta=beta)
        return theta * sigma_dot + moments.k, moments

    return jax.lax.fori_loop(0, depth - 1, layer, (moments.k, moments))[0]


def ntk(
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
    """The limiting NTK Θ^(depth) of a multilayer perceptron in the NTK parametrisation.

    ``x`` has shape (n, d) and ``y`` (m, d); without ``y`` the kernel of ``x`` with itself. Inputs
    are divided by √d, as in the paper. Returns shape (n, m), in the units of f²; how large ones are
    computed, and what ``mesh`` does, is said in ``evaluation``. With ``diagonal`` only the kernel
    of each point with itself, (n,), in memory of order n. ``gain`` and ``beta`` may be traced, for
    their gradients. With several outputs the limit is
    this kernel times the identity.

    Conventions, with a check of each on the book's page "Dictionary of conventions":

    - ``depth`` counts layers of weights: three hidden layers are ``depth=4``.
    - Each σ is √gain·σ; neither the inputs nor the output have that factor. Every bias is ``beta``
      times a number from N(0, 1).
    - neural-tangents with ``W_std``, ``b_std`` in each ``Dense``, and σ_w, σ_b of the NNGP
      literature: ``ntk(W_std * x, gain=W_std**2, beta=b_std)``, depth one more than hidden layers.
    - Arora et al. 2019 with c_σ: ``ntk(√d * x, gain=c_σ, beta=0)``; for ReLU c_σ is 2.
    - He initialisation is ``gain=2`` with inputs times √2, LeCun's is ``gain=1``. PyTorch's
      ``nn.Linear`` is ``gain=1/3``. All three concern the function at the start: training their
      weights directly multiplies each layer's share of the kernel by its fan-in over its gain.
    - s steps of rate η on C = (1/2N) Σ (f - y)² are the time t = sη. A mean of squares without
      the ½ makes it 2sη, a sum of squares 2Nsη.
    - The result is float32 unless ``jax.config.update("jax_enable_x64", True)`` came first.

    Raises ``ValueError`` or ``TypeError`` for what ``evaluate`` refuses.
    Source: Jacot et al. 2018, Theorem 1; with ``gain=2, beta=0`` and inputs times √d, Arora et al.
    2019, equations 7 to 9, where L = ``depth`` - 1 counts hidden layers.
    """
    setting = {"depth": depth, "activation": activation, "gain": gain, "beta": beta}
    return evaluate(_ntk, x, y, **setting, mesh=mesh, diagonal=diagonal)


def recursive_ntk(
    x: Float[ArrayLike, "n d"],
    y: Float[ArrayLike, "m d"] | None = None,
    *,
    depth: int,
    activation: str | Activation = "relu",
    gain: ArrayLike = 1.0,
    beta: ArrayLike = 0.1,
) -> Float[Array, "n m"]:
    """``ntk`` by the plain recursion at every pair, whatever the points: the reference.

    Takes and raises what ``ntk`` does; holds several arrays of shape (n, m).
    """
    setting = {"depth": depth, "activation": activation, "gain": gain, "beta": beta}
    return evaluate(_ntk, x, y, **setting, plain=True)


# ---------------------------------------------------------------- finite networks


# Points times outputs from which on half a Gram is worth the copies that put it together.
_LARGE = 1024


def _signals(
    params: Sequence[Layer], x: Array, sigma: Activation, gain: Array, beta: Array
) -> tuple[list[Array], list[Array]]:
    """Forward signals α^(ℓ), (n, n_ℓ), and backward signals δ^(ℓ+1), (n, n_L, n_(ℓ+1)).

    There is one δ less: that of the output layer is the identity.
    """
    pre = preactivations(params, x, activation=sigma, gain=gain, beta=beta)
    forward = [x] + [jnp.sqrt(gain) * sigma.function(z) for z in pre[:-1]]
    backward, above = [], None
    for (W, _), z in zip(params[:0:-1], pre[-2::-1], strict=True):
        slope = jax.jvp(sigma.function, (z,), (jnp.ones_like(z),))[1]
        above = jnp.expand_dims(W, 0) if above is None else above @ W
        above = above * (jnp.sqrt(gain / W.shape[1]) * slope)[:, None, :]
        backward.append(above)
    return forward, backward[::-1]


def _sum_of_layers(
    left: tuple[list[Array], list[Array]],
    right: tuple[list[Array], list[Array]],
    beta: Array,
    *,
    k: int,
    outputs: str,
) -> Array:
    """The kernel of two sets of signals: (n, m), (n, m, k) or, for "full", (n, k, m, k)."""
    *forward, last = (
        a @ b.T / a.shape[1] + beta**2 for a, b in zip(left[0], right[0], strict=True)
    )
    deltas = zip(left[1], right[1], strict=True)
    if outputs == "trace":
        layers = (
            f * (a.reshape(len(a), -1) @ b.reshape(len(b), -1).T)
            for f, (a, b) in zip(forward, deltas, strict=True)
        )
        return sum(layers, k * last)
    if outputs == "diagonal":
        layers = (
            f[:, :, None] * jnp.einsum("nip,mip->nmi", a, b)
            for f, (a, b) in zip(forward, deltas, strict=True)
        )
        return sum(layers, jnp.broadcast_to(last[:, :, None], (*last.shape, k)))
    # one product of matrices a layer, and no copy of it with its axes in another order
    total = last[:, None, :, None] * jnp.eye(k, dtype=last.dtype)[None, :, None, :]
    for f, (a, b) in zip(forward, deltas, strict=True):
        gram = a.reshape(-1, a.shape[2]) @ b.reshape(-1, b.shape[2]).T
        total = total + f[:, None, :, None] * gram.reshape(total.shape)
    return total


def _upper_rows(kernel: Callable[..., Array], signals: PyTree, *, axis: int) -> Array:
    """``kernel`` on and above the diagonal, in four rows of blocks; ``axis`` counts the columns."""
    points = len(signals[0][0])
    rows = []
    for start, end in itertools.pairwise(points * i // 4 for i in range(5)):
        block = kernel(
            jax.tree.map(operator.itemgetter(slice(start, end)), signals),
            jax.tree.map(operator.itemgetter(slice(start, None)), signals),
        )
        rows.append(jnp.pad(block, [(start * (i == axis), 0) for i in range(block.ndim)]))
    return jnp.concatenate(rows)


@functools.partial(jax.jit, static_argnames=("sigma", "outputs", "mirror"))
def mlp_ntk_of_arrays(
    params: Sequence[Layer],
    x: Array,
    y: Array | None,
    gain: Array,
    beta: Array,
    *,
    sigma: Activation,
    outputs: str = "full",
    mirror: bool = True,
) -> Float[Array, "n m *kk"]:
    """``mlp_ntk`` inside ``jit``, on arrays that its callers have checked."""
    k = len(params[-1].b)
    kernel = functools.partial(
        _sum_of_layers, beta=beta, k=k, outputs="trace" if outputs == "full" and k == 1 else outputs
    )
    left = _signals(params, x, sigma, gain, beta)
    if y is not None:
        theta = kernel(left, _signals(params, y, sigma, gain, beta))
    elif len(x) * k < _LARGE:
        theta = kernel(left, left)
    else:
        theta = _upper_rows(kernel, left, axis=2 if outputs == "full" and k > 1 else 1)
    if theta.ndim == 4:
        theta = theta.transpose(0, 2, 1, 3)
    return upper_mirrored(theta) if mirror and y is None else theta


def mlp_ntk(
    params: Sequence[Layer],
    x: Float[ArrayLike, "n d"],
    y: Float[ArrayLike, "m d"] | None = None,
    *,
    activation: str | Activation = "relu",
    gain: float = 1.0,
    beta: float = 0.1,
    outputs: str = "full",
) -> Float[Array, "n m *kk"]:
    """The NTK of a multilayer perceptron, layer by layer, holding no Jacobian.

    ``params`` as ``init`` draws them, ``x`` of shape (n, d), ``y`` (m, d); without ``y`` the kernel
    of ``x`` with itself, symmetric to the last bit (inside ``jit`` to rounding). ``outputs`` as for
    ``empirical_ntk``: "full" gives (n, m, k, k) for k > 1 outputs and (n, m) for one, "trace"
    (n, m), "diagonal" (n, m, k), in the units of f² (weights have none). Equal to ``empirical_ntk``
    of ``apply`` to rounding; for parameters in half precision it is computed in float32, and comes
    back so. Costs one forward and one backward pass and for each layer a Gram of
    the signals: n·m·width·k multiplications for trace and diagonal, k times that for the full
    kernel. Beyond the weights and the result it holds arrays of n × k × width.

    Raises ``ValueError`` or ``TypeError`` for what ``as_inputs`` and ``check_numbers`` refuse, for
    inputs that do not have the network's dimension and for another word in ``outputs``.
    Source: Novak, Sohl-Dickstein and Schoenholz 2022, section 3 (structured derivatives), for
    dense layers.
    """
    sigma = as_activation(activation)
    check_params(params)
    outputs = as_choice("outputs", outputs, OUTPUTS)
    gain, beta = check_numbers(depth=len(params), gain=gain, beta=beta)
    params, x, y = (on_one_device(n, t) for n, t in (("params", params), ("x", x), ("y", y)))
    x, y = as_inputs(x, y)
    check_dimension(params, x)
    dtype = sums_in(params[0].W.dtype)
    if dtype != params[0].W.dtype:
        params = jax.tree.map(lambda w: w.astype(dtype), params)
    x, y = x.astype(dtype), None if y is None else y.astype(dtype)
    gain, beta = as_scalar("gain", gain, dtype), as_scalar("beta", beta, dtype)
    theta = mlp_ntk_of_arrays(params, x, y, gain, beta, sigma=sigma, outputs=outputs, mirror=False)
    return upper_mirrored(theta) if y is None else theta  # a program of its own: see there


# ---------------------------------------------------------------- what the chapter measures


@functools.partial(jax.jit, static_argnames=("widths", "activation"))
def _random_kernels(
    keys: Array, x: Array, y: Array | None, gain: Array, beta: Array, *, widths: tuple, activation
) -> Array:
    def one(key: Array) -> Array:
        params = init(widths, key=key, dtype=x.dtype)
        return mlp_ntk_of_arrays(params, x, y, gain, beta, sigma=activation)

    return jax.lax.map(one, keys, batch_size=batch_of(len(keys), max(widths)))


def random_kernels(
    x: Float[ArrayLike, "n d"],
    y: Float[ArrayLike, "m d"] | None = None,
    *,
    key: PRNGKeyArray,
    draws: int,
    width: int,
    depth: int,
    activation: str | Activation = "relu",
    gain: float = 1.0,
    beta: float = 0.1,
) -> Float[Array, "draws n m"]:
    """NTKs at initialisation of ``draws`` independent networks, every hidden layer ``width`` wide.

    One output. Returns shape (draws, n, m).

    Raises ``ValueError`` for ``draws`` or ``width`` below 1, and as ``ntk`` does.
    """
    sigma = as_activation(activation)
    gain, beta = check_numbers(depth=depth, gain=gain, beta=beta)
    draws, width = as_whole("draws", draws, least=1), as_whole("width", width, least=1)
    x, y = as_inputs(x, y)
    widths = (x.shape[1], *[width] * (depth - 1), 1)
    return _random_kernels(
        jax.random.split(as_key("key", key), draws),
        x,
        y,
        as_scalar("gain", gain, x.dtype),
        as_scalar("beta", beta, x.dtype),
        widths=widths,
        activation=sigma,
    )


def plot_on_circle(
    angles: Float[ArrayLike, " n"],
    kernels: Float[ArrayLike, "draws n"],
    limit: Float[ArrayLike, " n"],
    *,
    top: float,
    title: str,
) -> "matplotlib.figure.Figure":
    """Kernels of random networks (thin) and their limit (thick) against the angle on the circle.

    The vertical axis runs from a little below 0 to ``top``, the same for all frames of a figure.

    Raises ``TypeError`` for what is no array of numbers, ``ValueError`` for shapes that do not fit
    and a ``top`` that is not positive, ``ModuleNotFoundError`` where matplotlib is not installed.
    """
    plt = needed("matplotlib.pyplot", by="plot_on_circle", extra="figures")
    check_known(angles=angles, kernels=kernels, limit=limit)
    angles, kernels, limit = (
        as_numeric(name, value)
        for name, value in (("angles", angles), ("kernels", kernels), ("limit", limit))
    )
    if angles.ndim != 1:
        raise ValueError(f"angles needs shape (n,), got {angles.shape}")
    if kernels.ndim != 2 or kernels.shape[1] != len(angles):
        raise ValueError(f"kernels needs shape (draws, {len(angles)}), got {kernels.shape}")
    if limit.shape != angles.shape:
        raise ValueError(f"limit needs shape {angles.shape}, got {limit.shape}")
    top = as_positive("top", top)
    fig, ax = plt.subplots()
    ax.plot(angles, kernels.T, color="C0", linestyle="-", linewidth=1)
    ax.plot(angles, limit, color="black", linestyle="-", linewidth=3)
    ax.plot([], [], color="C0", linestyle="-", linewidth=1, label="networks")
    ax.plot([], [], color="black", linestyle="-", linewidth=3, label="limit")
    ax.set(xlabel=r"angle $\gamma$", ylabel=r"$\Theta(x_0, x_\gamma)$", title=title)
    ax.set_ylim(-0.05 * top, top)
    ax.set_xticks([-np.pi, 0, np.pi], [r"$-\pi$", "0", r"$\pi$"])
    ax.legend(loc="upper left")
    return fig


def circle_spectrum(kernel: Float[ArrayLike, " n"]) -> Float[Array, " modes"]:
    """Eigenvalues λ₀, λ₁, … of a rotation-invariant kernel for the uniform measure on the circle.

    ``kernel`` holds Θ(x₀, x_j) at n equispaced angles 2πj/n, shape (n,). The Gram of these points
    is circulant, so its spectrum is a discrete Fourier transform: λ_k = (1/n) Σ_j Θ_j cos(2πjk/n),
    returned for k = 0 … n//2; λ_k with k > 0 belongs to both cos kγ and sin kγ.

    Raises ``ValueError`` for another rank or fewer than 2 angles.
    """
    kernel = as_array("kernel", kernel)
    if kernel.ndim != 1 or len(kernel) < 2:
        raise ValueError(f"kernel needs shape (angles,), at least 2 of them, got {kernel.shape}")
    return jnp.fft.rfft(kernel).real / len(kernel)

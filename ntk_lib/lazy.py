"""Training that hardly moves the weights: the linearised network and what makes a model lazy.

Serves the chapter ``lazy``.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float

from ntk_lib.arguments import (
    as_array,
    as_inputs,
    as_number,
    as_whole,
    check_numbers,
    check_params,
)
from ntk_lib.gradient_flow import Training, gradient_descent
from ntk_lib.wide_networks import Activation, Layer, apply, as_activation, check_dimension

__all__ = ["train"]


@functools.partial(jax.jit, static_argnames=("steps", "sigma"))
def _train(params, x, targets, rate, gain, beta, *, steps: int, sigma: Activation) -> Training:
    def cost(p):
        f = apply(p, x, activation=sigma, gain=gain, beta=beta)[:, 0]
        return jnp.mean((f - targets) ** 2) / 2

    return gradient_descent(cost, params, rate=rate, steps=steps)


def train(
    params: Sequence[Layer],
    x: Float[ArrayLike, "n d"],
    targets: Float[ArrayLike, " n"],
    *,
    steps: int,
    rate: float = 1.0,
    activation: str | Activation = "relu",
    gain: float = 1.0,
    beta: float = 0.1,
) -> Training:
    """Full-batch gradient descent on C = ½·mean (f(x) − target)² for a network with one output.

    ``x`` has shape (n, d), ``targets`` (n,). ``rate`` multiplies the plain gradient; ``steps`` of
    rate η are the time t = steps·η of the gradient flow (Jacot et al. 2018, section 6.1).

    Raises ``ValueError`` for targets of another shape, ``steps`` < 0 or ``rate`` ≤ 0, and as
    ``ntk`` does.
    """
    sigma = as_activation(activation)
    check_params(params)
    gain, beta = check_numbers(depth=len(params), gain=gain, beta=beta)
    x, _ = as_inputs(x)
    check_dimension(params, x)
    if len(params[-1].W) != 1:
        raise ValueError(f"params needs one output to train, got {len(params[-1].W)}")
    dtype = params[0].W.dtype
    targets = as_array("targets", targets, dtype=dtype)
    if targets.shape != (len(x),):
        raise ValueError(f"targets needs shape ({len(x)},), one a point of x, got {targets.shape}")
    steps, rate = as_whole("steps", steps, least=0), as_number("rate", rate)
    if rate <= 0:
        raise ValueError(f"rate needs to be positive, got {rate}")
    rate, gain, beta = (jnp.asarray(t, dtype) for t in (rate, gain, beta))
    return _train(
        list(params), x.astype(dtype), targets, rate, gain, beta, steps=steps, sigma=sigma
    )

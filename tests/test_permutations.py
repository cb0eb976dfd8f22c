"""Permutations: closed forms against the engine, sums over all words and networks trained plainly.

Means and variances are recomputed by ``predict`` and from the engine's kernels, counts by adding up
over every bit of every word and by sampling, training by gradients of the network function.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import KEY, RNG_SEED
from scipy.stats import norm

from ntk_lib.early_stopping import random_networks
from ntk_lib.limiting_ntk import ntk
from ntk_lib.permutations import (
    binary_words,
    bit_statistics,
    chance_all_right,
    networks_for_all_words,
    networks_needed,
    trained_on_basis,
    word_kernel,
)
from ntk_lib.wide_networks import Layer, apply, nngp

TAUS = [0.0, 0.3, 1.0, 7.0]


# ---------------------------------------------------------------- words and their kernel


def test_the_words_are_all_unit_vectors_of_bits_with_the_basis_first():
    table = binary_words(5)
    np.testing.assert_array_equal(table[:5], np.eye(5))
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1)
    numbers = (table > 0) @ 2 ** np.arange(5)
    assert sorted(numbers) == list(range(1, 32))
    ones = np.sum(table > 0, axis=1)
    assert np.all(np.diff(ones) >= 0)
    np.testing.assert_array_equal(binary_words(5, 3), table[ones == 3])


@pytest.mark.parametrize("tau", TAUS)
def test_the_kernel_is_that_of_the_two_layers_of_the_engine(x64, tau):
    x = np.random.default_rng(RNG_SEED).normal(size=(8, 4))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    both, last = ntk(x, depth=2, beta=0.0), nngp(x, depth=2, beta=0.0)
    expected = last + tau * (both - last)  # the first layer's part is the rest of the NTK
    # a cosine 1 is 1 to rounding, and its sine to the root of that
    np.testing.assert_allclose(word_kernel(x @ x.T, 4, tau=tau), expected, atol=1e-9)


def test_a_cosine_beyond_one_is_one():
    beyond = word_kernel(np.array([1 + 1e-12, -1 - 1e-12]), 3)
    np.testing.assert_allclose(beyond, [1 / 3, 0], atol=1e-6)


# ---------------------------------------------------------------- bits


@pytest.mark.parametrize("tau", TAUS)
def test_mean_and_variance_are_those_of_the_trained_gaussian_process(x64, tau):
    k = 4
    words = np.tril(np.ones((k, k))) / np.sqrt(np.arange(1, k + 1))[:, None]  # 1 to k ones
    x = np.concatenate([np.eye(k), words])
    both, sigma = (np.asarray(f(x, depth=2, beta=0.0)) for f in (ntk, nngp))
    kernel = sigma + tau * (both - sigma)
    for s in range(1, k + 1):
        bit, at = bit_statistics(k, s, tau=tau), k + s - 1
        M = np.linalg.solve(kernel[:k, :k], kernel[:k, at])
        np.testing.assert_allclose(M[:s], bit.one, atol=1e-12)
        np.testing.assert_allclose(M[s:], bit.zero, atol=1e-12)
        left = np.append(-M, 1)  # f₀ at the word less M times that at the basis
        variance = left @ sigma[np.ix_([*range(k), at], [*range(k), at])] @ left
        # on an example the engine's sine of an angle 0 is the root of a rounding error
        assert bit.variance == pytest.approx(variance, abs=1e-9)


def test_two_bits_by_hand():
    h = 1 / math.sqrt(2) + 2 / math.sqrt(2) * 0.75 * math.pi - 1
    assert bit_statistics(2, 2).one == pytest.approx((h + 1) / (2 * math.pi + 1), abs=1e-14)


def test_the_sign_is_the_bit_for_all_numbers_of_ones():
    for k, tau in itertools.product((2, 3, 9, 40, 300), [*TAUS, 100.0]):
        for s in range(2, k + 1):
            bit = bit_statistics(k, s, tau=tau)
            assert bit.one > 0
            assert bit.zero < 0
            assert min(bit.margins) > 0
    assert bit_statistics(9, 1) == (0.0, 1.0, 0.0)


def test_the_numbers_of_the_groundwork():
    bit = bit_statistics(10, 2)
    assert bit == pytest.approx((-0.009850, 0.565422, 0.006519), abs=5e-7)
    bit = bit_statistics(10, 2, tau=0.0)
    assert bit == pytest.approx((-0.023259, 0.617941, 0.006282), abs=5e-7)


# ---------------------------------------------------------------- counts


def test_the_chance_is_the_share_of_sampled_averages(x64):
    k, s, m = 6, 2, 90
    bit, rng = bit_statistics(k, s), np.random.default_rng(RNG_SEED)
    mean = np.where(np.arange(k) < s, bit.one, bit.zero)
    draws = mean + rng.normal(size=(40_000, k)) * math.sqrt(bit.variance / m)
    for threshold in (0.0, 0.05):
        right = np.all((draws > threshold) == (np.arange(k) < s), axis=1).mean()
        chance = chance_all_right(k, s, m, threshold=threshold)
        assert right == pytest.approx(chance, abs=4 * math.sqrt(0.25 / 40_000))


def test_the_number_needed_is_the_first_that_is_enough():
    for k, s, tau, threshold in ((10, 2, 1.0, 0.0), (7, 7, 0.0, 0.0), (9, 4, 0.3, 0.05)):
        options = {"tau": tau, "threshold": threshold}
        m = networks_needed(k, ones=s, miss=0.05, **options)
        assert chance_all_right(k, s, m, **options) >= 0.95
        assert m == 1 or chance_all_right(k, s, m - 1, **options) < 0.95
        assert m <= networks_needed(k, ones=s, miss=0.05, union=True, **options)


def test_the_bound_for_all_words_adds_up_over_every_bit_of_every_word():
    k, tau, miss = 6, 1.0, 0.2

    def failures(m):
        total = 0.0
        for word in itertools.product((0, 1), repeat=k):
            if sum(word) > 1:
                bit = bit_statistics(k, sum(word), tau=tau)
                sd = math.sqrt(bit.variance / m)
                total += sum(norm.sf(bit.one / sd) if b else norm.sf(-bit.zero / sd) for b in word)
        return total

    m = networks_for_all_words(k, tau=tau, miss=miss)
    assert failures(m) <= miss < failures(m - 1)
    assert m < networks_for_all_words(k, tau=tau, miss=miss, grouped=False)
    margin = bit_statistics(k, 2, tau=tau).margins[0]
    crude = networks_for_all_words(k, tau=tau, miss=miss, grouped=False)
    assert k * 2**k * norm.sf(math.sqrt(crude) * margin) <= miss
    assert k * 2**k * norm.sf(math.sqrt(crude - 1) * margin) > miss


def test_at_two_bits_the_only_unseen_word_has_ones_alone():
    assert networks_for_all_words(2, miss=1e-9) == networks_needed(2, miss=1e-9, union=True) > 1


def test_more_networks_than_can_be_counted_are_refused():
    with pytest.raises(ValueError, match="tau needs a smaller number"):
        networks_needed(10, tau=1e8)


# ---------------------------------------------------------------- real networks


@pytest.mark.parametrize(("tau", "width"), [(1.0, 6), (0.4, 4)])
def test_training_is_descent_on_the_network_function(x64, tau, width):
    k, steps, room = 3, 9, 6
    labels = np.random.default_rng(RNG_SEED).normal(size=(k, 2))
    at = np.concatenate([np.eye(k), binary_words(k, 2)])
    nets = random_networks((k, room, 2), key=KEY, draws=2, dtype="float64")
    found = trained_on_basis(
        labels, at, key=KEY, networks=2, width=width, tau=tau, steps=steps, room=room
    )
    largest = ((1 + tau) * math.pi - 1 + k) / (2 * math.pi * k) / k  # of the Gram matrix over k

    @jax.jit
    def step(W, A):
        def cost(W, A):
            net = [Layer(W, jnp.zeros(width)), Layer(A, jnp.zeros(2))]
            return jnp.sum((apply(net, jnp.eye(k), beta=0.0) - labels) ** 2) / (2 * k)

        first, last = jax.grad(cost, argnums=(0, 1))(W, A)
        return W - tau / largest * first, A - last / largest

    for i in range(2):
        W, A = nets[0].W[i, :width], nets[1].W[i][:, :width]
        for _ in range(steps):
            W, A = step(W, A)
        outputs = np.maximum(at @ np.asarray(W).T / math.sqrt(k), 0) @ np.asarray(A).T
        np.testing.assert_allclose(found[i], outputs / math.sqrt(width), atol=1e-12)


def test_trained_networks_fit_their_examples_and_have_the_limit_s_mean():
    k, labels = 4, np.eye(4)[[2, 0, 3, 1]]
    at = np.concatenate([np.eye(k), binary_words(k, 2)]).astype("float32")
    options = {"key": KEY, "networks": 256, "width": 128}
    outputs = np.asarray(trained_on_basis(labels, at, tau=k / 128, **options), float)
    np.testing.assert_allclose(outputs[:, :k], np.tile(labels, (256, 1, 1)), atol=1e-3)
    bit, right = bit_statistics(k, 2, tau=k / 128), at[k:] @ labels > 0
    for value, mean in ((True, bit.one), (False, bit.zero)):
        each = outputs[:, k:][:, right == value].mean(axis=1)
        assert each.mean() == pytest.approx(mean, abs=4 * each.std() / 16)


def test_examples_and_full_words_have_margins_too():
    assert bit_statistics(5, 1).margins == (0.0, math.inf)
    assert networks_needed(5, ones=5, threshold=-5.0) == 1
    assert chance_all_right(5, 5, 3, threshold=-5.0) == pytest.approx(1.0)

"""Programs looked up by what a trace says: what makes two of them equal, and what they compute."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import points

from ntk_lib.engine import programs
from ntk_lib.engine.programs import Traced, run, traced

X = jnp.asarray(points(3, 4, dtype="float32"))
W = jnp.asarray(points(4, 4, seed=1, dtype="float32"))

# ---------------------------------------------------------------- what a trace may hold


def with_control_flow(x):
    total, path = jax.lax.scan(lambda c, t: (c + t, jnp.tanh(c)), x[0], x)
    either = jax.lax.cond(total[0] > 0, jnp.sin, jnp.cos, x)
    often = jax.lax.fori_loop(0, 3, lambda i, t: t * 1.5, x)
    return path + either + often + jax.lax.while_loop(lambda t: t.sum() < 9, lambda t: t + 1, x)


def with_rules_of_its_own(x):
    layers = jax.nn.gelu(jax.nn.softmax(x @ W)) + jax.nn.relu(x) + jax.nn.silu(x)
    again = jax.checkpoint(lambda t: jnp.sin(jnp.sin(t @ W)))(x)
    return layers + again + jax.scipy.special.logsumexp(x, axis=1, keepdims=True)


def with_random_keys(x):
    key = jax.random.fold_in(jax.random.key(3), 1)
    kept = jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0)
    return kept + jax.random.normal(key, x.shape)


def with_places(x):
    taken = jnp.take(x, jnp.array([0, 1, 1]), axis=0).at[0].add(1.0)
    filters = jnp.ones((1, 1, 2, 2))
    seen = jax.lax.conv_general_dilated(x[None, None], filters, (1, 1), "SAME")[0, 0]
    return taken + seen + jnp.cumsum(x, axis=1) + jnp.linalg.norm(x, axis=1, keepdims=True)


KINDS = [with_control_flow, with_rules_of_its_own, with_random_keys, with_places]
every_kind = pytest.mark.parametrize("function", KINDS, ids=lambda f: f.__name__)


@every_kind
def test_a_program_gives_what_the_function_gives(function):
    program = traced(function, X)
    np.testing.assert_allclose(run(program, X), function(X), rtol=2e-5, atol=1e-6)
    assert program.gives.shape == X.shape


@every_kind
def test_new_functions_that_do_the_same_are_one_program(function):
    first, second = (traced(lambda x: function(x), X) for _ in range(2))
    assert first.program is second.program

    def derivative(x):
        return jax.jvp(function, (x,), (x,))[1]

    first, second = (traced(lambda x: derivative(x), X) for _ in range(2))
    assert first.program is second.program


def test_what_would_be_differentiated_again_keeps_its_rules_to_itself():
    first, second = (traced(with_rules_of_its_own, X, derivatives=True) for _ in range(2))
    assert first.program is not second.program
    assert (
        traced(with_places, X, derivatives=True).program
        is traced(with_places, X, derivatives=True).program
    )


# ---------------------------------------------------------------- equal and different


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x + 1.0, lambda x: x - 1.0),
        (lambda x: x + 1.0, lambda x: x + 2.0),
        (lambda x: x * 0.0, lambda x: x * -0.0),
        (lambda x: x.sum(0), lambda x: x.sum(1)),
        (lambda x: x - 2 * x.T, lambda x: x.T - 2 * x),
        (lambda x: x.astype("float16"), lambda x: x.astype("bfloat16")),
        (
            lambda x: jax.jit(lambda t: t * np.arange(4.0))(x),
            lambda x: jax.jit(lambda t: t * np.ones(4))(x),
        ),
        (
            lambda x: jax.lax.fori_loop(0, 2, lambda i, t: t * 2, x),
            lambda x: jax.lax.fori_loop(0, 2, lambda i, t: t * 3, x),
        ),
        (
            lambda x: jax.lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
            lambda x: jax.lax.cond(x[0, 0] > 0, jnp.cos, jnp.sin, x),
        ),
        (lambda x: (x, 2 * x), lambda x: (2 * x, x)),
        (lambda x: {"a": x}, lambda x: {"b": x}),
        (lambda x: x @ x.T, lambda x: jnp.matmul(x, x.T, precision="highest")),
    ],
)
def test_functions_that_differ_are_different_programs(one, other):
    x = jnp.asarray(points(4, 4, dtype="float32"))
    with jax.numpy_rank_promotion("allow"):
        assert traced(one, x).program is not traced(other, x).program
        assert traced(one, x).program is traced(lambda t: one(t), x).program


def test_shapes_and_dtypes_make_different_programs(x64):
    program = traced(jnp.sin, X).program
    assert traced(jnp.sin, X[:2]).program is not program
    assert traced(jnp.sin, X.astype("float64")).program is not program
    assert traced(jnp.sin, jax.ShapeDtypeStruct(X.shape, X.dtype)).program is program


def test_arrays_that_are_read_are_arguments_and_no_part_of_the_program():
    held = {"array": jnp.ones((3, 4)), "numpy": np.full((3, 4), 2.0, "f4"), "number": 1.0}

    def function(x):
        return held["number"] * x + held["array"] * held["numpy"]

    before = traced(function, X)
    np.testing.assert_allclose(run(before, X), X + 2, rtol=1e-6)
    held["array"] = 5 * jnp.ones((3, 4))
    held["numpy"][:] = 3
    after = traced(function, X)
    assert before.program is after.program
    np.testing.assert_allclose(run(after, X), X + 15, rtol=1e-6)
    np.testing.assert_allclose(run(before, X), X + 2, rtol=1e-6)
    held["number"] = 2.0
    np.testing.assert_allclose(run(traced(function, X), X), 2 * X + 15, rtol=1e-6)


def test_what_cannot_be_compared_is_different_from_everything():
    def asks_python(x):
        return jax.pure_callback(lambda t: np.asarray(t) * 2, x, x)

    first, second = (traced(asks_python, X) for _ in range(2))
    assert first.program is not second.program
    np.testing.assert_allclose(run(second, X), 2 * X)
    different = programs._Different()
    assert different != programs._Different()


def test_a_program_is_forgotten_with_its_last_user():
    program = traced(lambda x: x * 12345.5, X)
    before = len(programs._PROGRAMS)
    del program
    assert len(programs._PROGRAMS) < before


# ---------------------------------------------------------------- under transformations


def test_what_is_read_may_be_traced_itself():
    @functools.partial(jax.value_and_grad)
    def outer(scale):
        return run(traced(lambda x: jax.nn.relu(scale * x), X), X).sum()

    value, slope = outer(2.0)
    positive = np.maximum(X, 0).sum()
    np.testing.assert_allclose((value, slope), (2 * positive, positive), rtol=1e-6)
    values = jax.jit(jax.vmap(lambda s: outer(s)[0]))(jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(values, (positive, 3 * positive), rtol=1e-6)


def test_the_last_rule_of_a_function_is_the_one_that_counts():
    slopes = []
    for slope in (3.0, 7.0):
        own = jax.custom_jvp(jnp.sin)
        own.defjvp(lambda p, t, slope=slope: (jnp.sin(*p), slope * t[0]))
        slopes.append(jax.grad(lambda x: run(traced(own, x), x).sum())(X)[0, 0])  # noqa: B023
    assert slopes == [3.0, 7.0]


def test_a_traced_function_is_a_pytree_of_its_arrays():
    program = traced(lambda x: x @ W, X)
    leaves, structure = jax.tree.flatten(program)
    assert len(leaves) == 1
    again = jax.tree.unflatten(structure, leaves)
    assert isinstance(again, Traced)
    np.testing.assert_array_equal(again(X), X @ W)


def test_the_precision_of_a_program_is_that_of_its_coarsest_float():
    assert traced(jnp.sin, X).program.precision == pytest.approx(2.0**-23)
    inside = traced(jax.jit(lambda x: x.astype("bfloat16").astype("float32")), X)
    assert inside.program.precision == pytest.approx(2.0**-7)
    assert traced(jnp.sin, jnp.ones(2, "float16")).program.precision == pytest.approx(2.0**-10)

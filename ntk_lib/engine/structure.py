"""Where a model's parameters enter it, found in its trace: layers without a Jacobian of them.

Serves ``tangent_kernels``. The derivative of f by a weight W that enters a product aW is a δᵀ, with
the signal δ = ∂f/∂(aW); so two points add ⟨a, a'⟩⟨δ, δ'⟩ to the tangent kernel, and the Jacobian,
many times as large, is not needed (Novak, Sohl-Dickstein and Schoenholz 2022). f is traced at one
point; its operations are walked through, and where a parameter meets a product of matrices, a
convolution or a lookup, a zero is added to what comes out. The derivative by the zeros gives all
signals in one pass back. What enters in any other way (a bias, a scale, sin(W)) is derived as ever:
every derivative is the sum of both, so the kernel is the same whatever is found.
"""

import collections
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun
from jaxtyping import Array, PyTree

from ntk_lib.engine.programs import Program, Traced

__all__ = ["Leaf", "Plan", "Slices", "Use", "contract", "even", "layers", "planned", "signals"]

# Parameters that are contracted at a time, where there are more than a few slices.
_TOGETHER, _FEW = 4096, 65_536
# Derivatives of a point that are formed at a time, and the least rows of a matrix for them; by
# columns, a third faster, where one column has at most four times as many.
_AT_ONCE, _LEAST = 16384, 4

# ---------------------------------------------------------------- a use of a parameter


class Use(NamedTuple):
    """A parameter as a matrix (rows, columns) that is multiplied from the left.

    ``steps`` lead from leaf number ``leaf`` to the matrix: a permutation of axes, or a shape. The
    factor on the left has shape (places, rows), or, where rows are looked up, it is their numbers
    (places,); the signal has shape (places, columns). A bias that is added to a product at one
    place has the factor 1, and the signal of that product, whose number is ``shares``.
    """

    leaf: int
    steps: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    looked_up: bool
    places: int
    rows: int
    columns: int
    dtype: np.dtype
    shares: int = -1


class Leaf(NamedTuple):
    """How a parameter enters: by these uses, and whether in another way too."""

    uses: tuple[Use, ...]
    otherwise: bool
    size: int

    @property
    def places(self) -> int:
        return sum(use.places for use in self.uses)

    @property
    def alike(self) -> bool:
        """Does it enter as one and the same matrix everywhere?"""
        forms = {(use.steps, use.looked_up) for use in self.uses}
        return len(forms) == 1 and not self.otherwise


class _Value(NamedTuple):
    """A value of the walk.

    A parameter has a ``leaf``, the ``steps`` that it has gone, and a ``scale``; ``live`` is the
    same value as an argument of the derivative. ``fixed`` depends neither on parameters nor on x.
    ``product`` is the number of the use that it comes from as it is, at one place, or times the
    ``scale``; only of what is read once.
    """

    value: Any
    live: Any = None
    leaf: int = -1
    steps: tuple = ()
    scale: Any = None
    fixed: bool = False
    product: int = -1


class _Finder:
    """Collects uses; its zeros are constants. ``inside`` a loop biases share no signals."""

    def __init__(self, inside: bool = False) -> None:
        self.inside = inside
        self.uses: list[Use] = []
        self.factors: list[Array] = []
        self.otherwise: set[int] = set()
        self.held = 0  # bytes of all that is computed from a point

    def zero(self, use: Use) -> Array:
        self.uses.append(use)
        return jnp.zeros((use.places, use.columns), use.dtype)


class _Reader(_Finder):
    """Adds the zeros that it is given."""

    def __init__(self, zeros: Sequence[Array], inside: bool = False) -> None:
        super().__init__(inside)
        self.zeros = iter(zeros)

    def zero(self, use: Use) -> Array:
        return next(self.zeros)


# ---------------------------------------------------------------- operations


def _reshaped(given: _Value, shape: tuple[int, ...]) -> _Value:
    step = ("shape", jnp.shape(given.value), tuple(shape))
    return given._replace(
        value=given.value.reshape(shape),
        live=given.live.reshape(shape),
        steps=(*given.steps, step),
    )


def _transposed(given: _Value, axes: Sequence[int]) -> _Value:
    return given._replace(
        value=given.value.transpose(axes),
        live=given.live.transpose(axes),
        steps=(*given.steps, ("axes", tuple(axes), ())),
    )


def _back(matrix: Array, steps: tuple) -> Array:
    """A derivative by the matrix as the derivative by the leaf, each kept axis in front."""
    lead = matrix.ndim - len(steps[-1][2] if steps[-1][0] == "shape" else steps[-1][1])
    front = matrix.shape[:lead]
    for kind, first, _ in reversed(steps):
        if kind == "shape":
            matrix = matrix.reshape(*front, *first)
        else:
            matrix = matrix.transpose(*range(lead), *(lead + i for i in np.argsort(first)))
    return matrix


def _carried(name: str, given: list[_Value], equation: Any) -> _Value | None:
    """The result, where it is still the parameter: of another shape, order, dtype or scale."""
    first, shape = given[0], equation.outvars[0].aval.shape
    if name in ("mul", "div") and len(given) == 2:
        weight, other = given if first.leaf >= 0 else given[::-1]
        if not other.fixed or jnp.ndim(other.value) or (name == "div" and weight is not first):
            return None

        def scaled(t: Array) -> Array:
            return t * other.value if name == "mul" else t / other.value

        scale = scaled(jnp.ones((), first.value.dtype) if weight.scale is None else weight.scale)
        return weight._replace(value=scaled(weight.value), live=scaled(weight.live), scale=scale)
    if first.leaf < 0:
        return None
    if name == "transpose":
        return _transposed(first, equation.params["permutation"])
    same = math.prod(shape) == math.prod(jnp.shape(first.value))
    if name in ("squeeze", "expand_dims") or (
        name in ("reshape", "broadcast_in_dim")
        and same
        and equation.params.get("dimensions") is None
    ):
        return _reshaped(first, shape)
    dtype = equation.outvars[0].aval.dtype
    if name == "convert_element_type" and jnp.issubdtype(dtype, jnp.floating):
        return first._replace(value=first.value.astype(dtype), live=first.live.astype(dtype))
    return None


def _patches(x: Array, params: dict, kernel: tuple[int, ...]) -> Array:
    """What a convolution multiplies its kernel with, (places, offsets · channels)."""
    numbers = params["dimension_numbers"]
    x = x.transpose(numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1])
    pads = [
        (low, high, d - 1)
        for (low, high), d in zip(params["padding"], params["lhs_dilation"], strict=True)
    ]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    strides, dilation = params["window_strides"], params["rhs_dilation"]
    spans = [(size - 1) * d + 1 for size, d in zip(kernel, dilation, strict=True)]
    counts = [(n - span) // s + 1 for n, span, s in zip(x.shape[1:-1], spans, strides, strict=True)]
    parts = []
    for offset in np.ndindex(*kernel):
        start = [i * d for i, d in zip(offset, dilation, strict=True)]
        stop = [a + (c - 1) * s + 1 for a, c, s in zip(start, counts, strides, strict=True)]
        part = jax.lax.slice(x, (0, *start, 0), (len(x), *stop, x.shape[-1]), (1, *strides, 1))
        parts.append(part.reshape(-1, x.shape[-1]))
    return jnp.concatenate(parts, axis=1)


class _Met(NamedTuple):
    """Argument number ``at`` as a matrix, the factor on its left, the layout of what comes out."""

    at: int
    matrix: _Value
    factor: Array
    laid_out: Callable[[Array], Array]


def _dot(given: list[_Value], params: dict, shape: tuple[int, ...]) -> _Met | None:
    contracted, batch = params["dimension_numbers"]
    if any(batch):
        return None
    # of two parameters, the larger is the weight
    sizes = [math.prod(jnp.shape(v.value)) if v.leaf >= 0 else -1 for v in given]
    at = int(sizes[1] >= sizes[0])
    weight, own, other, theirs = given[at], contracted[at], given[1 - at], contracted[1 - at]
    kept = [i for i in range(weight.value.ndim) if i not in own]
    matrix = _transposed(weight, (*own, *kept))
    rows = math.prod(matrix.value.shape[: len(own)])
    matrix = _reshaped(matrix, (rows, weight.value.size // rows))
    left = _live(other)
    left = left.transpose(*(i for i in range(left.ndim) if i not in theirs), *theirs)
    return _Met(at, matrix, left.reshape(-1, rows), lambda t: (t if at else t.T).reshape(shape))


def _convolution(given: list[_Value], params: dict, shape: tuple[int, ...]) -> _Met | None:
    image, weight = given
    numbers = params["dimension_numbers"]
    grouped = params["feature_group_count"] != 1 or params["batch_group_count"] != 1
    if grouped or weight.leaf < 0 or image.leaf >= 0:
        return None
    out, into, *space = numbers.rhs_spec
    kernel = tuple(weight.value.shape[i] for i in space)
    matrix = _transposed(weight, (*space, into, out))
    matrix = _reshaped(matrix, (math.prod(matrix.value.shape[:-1]), matrix.value.shape[-1]))
    spec = numbers.out_spec
    laid = (spec[0], *spec[2:], spec[1])

    def laid_out(t: Array) -> Array:
        return t.reshape([shape[i] for i in laid]).transpose(np.argsort(laid))

    return _Met(1, matrix, _patches(image.value, params, kernel), laid_out)


def _lookup(given: list[_Value], params: dict, shape: tuple[int, ...]) -> _Met | None:
    table, index = given
    numbers, size = params["dimension_numbers"], table.value.shape
    whole_rows = (
        table.leaf >= 0
        and index.leaf < 0
        and len(size) > 1
        and tuple(numbers.start_index_map) == (0,)
        and tuple(numbers.collapsed_slice_dims) == (0,)
        and not numbers.operand_batching_dims
        and tuple(params["slice_sizes"]) == (1, *size[1:])
        and tuple(numbers.offset_dims) == tuple(range(len(shape) - len(size) + 1, len(shape)))
    )
    if not whole_rows:
        return None
    rows = index.value.reshape(-1).astype(jnp.int32)
    if params["mode"] == jax.lax.GatherScatterMode.FILL_OR_DROP:
        rows = jnp.where((rows >= 0) & (rows < size[0]), rows, -1)
    else:
        rows = jnp.clip(rows, 0, size[0] - 1)
    matrix = _reshaped(table, (size[0], math.prod(size[1:])))
    return _Met(0, matrix, rows, lambda t: t.reshape(shape))


_MEETINGS = {"dot_general": _dot, "conv_general_dilated": _convolution, "gather": _lookup}

# ---------------------------------------------------------------- the walk


def _live(given: _Value) -> Any:
    return given.value if given.leaf < 0 else given.live


def _inner(equation: Any) -> ClosedJaxpr | None:
    """The operations of a call that has no derivative rule of its own."""
    inside = equation.params.get("jaxpr")
    if equation.primitive.name in ("jit", "pjit", "remat2", "remat", "checkpoint", "closed_call"):
        return ClosedJaxpr(inside, ()) if isinstance(inside, Jaxpr) else inside
    return None


def _as_it_is(jaxpr: Jaxpr, used: Mapping, equation: Any, values: list) -> list:
    """The results of one operation of a jaxpr, of whatever kind."""
    pairs = {
        atom: value
        for atom, value in zip(equation.invars, values, strict=True)
        if not isinstance(atom, Literal)
    }
    wanted = [v for v in equation.outvars if v in used]
    names = jaxpr.debug_info._replace(
        arg_names=("",) * len(pairs), result_paths=("",) * len(wanted)
    )
    alone = Jaxpr((), list(pairs), wanted, [equation], equation.effects, names)
    results = jaxpr_as_fun(ClosedJaxpr(alone, ()))(*pairs.values())
    results = dict(zip(wanted, results, strict=True))
    return [results.get(v) for v in equation.outvars]


def _scan(finder: _Finder, equation: Any, given: list[_Value]) -> list[_Value]:
    """A loop: its zeros are rows that it reads, and its factors rows that it gives."""
    params = equation.params
    length, inside = params["length"], params["jaxpr"]
    first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
    finder.otherwise |= {v.leaf for v in given[first:] if v.leaf >= 0}
    given = [v._replace(product=-1) for v in given]
    start, rows = [_live(v) for v in given[first:last]], [_live(v) for v in given[last:]]

    def step(reader: _Finder, carry: list, row: list) -> list:
        arguments = [*given[:first], *(_Value(t) for t in (*carry, *row))]
        found = _walk(reader, inside.jaxpr, inside.consts, arguments)
        return [_live(v) for v in found]

    found = _Finder(inside=True)
    jax.eval_shape(functools.partial(step, found), start, [t[0] for t in rows])
    finder.otherwise |= found.otherwise
    finder.held += length * found.held
    uses = [use._replace(places=length * use.places) for use in found.uses]
    zeros = [
        finder.zero(use).reshape(length, one.places, one.columns)
        for use, one in zip(uses, found.uses, strict=True)
    ]

    def body(carry: list, row: tuple) -> tuple:
        reader = _Reader(row[0], inside=True)
        results = step(reader, carry, row[1])
        return results[: len(carry)], (results[len(carry) :], reader.factors)

    carry, (results, factors) = jax.lax.scan(
        body, start, (zeros, rows), length=length, reverse=params["reverse"]
    )
    finder.factors += [t.reshape(-1, *t.shape[2:]) for t in factors]
    return [_Value(t) for t in (*carry, *results)]


def _bias(finder: _Finder, given: list[_Value]) -> _Value | None:
    """The sum of a product at one place and a parameter of its shape."""
    weight, other = given if given[0].leaf >= 0 else given[::-1]
    if other.product < 0 or jnp.shape(weight.value) != jnp.shape(other.value):
        return None
    matrix = _reshaped(weight, (1, weight.value.size))
    shape, dtype = matrix.value.shape, matrix.value.dtype
    use = Use(weight.leaf, matrix.steps, False, 1, *shape, dtype, shares=other.product)
    finder.uses.append(use)
    one = jnp.ones((1, 1), dtype) / (1.0 if other.scale is None else other.scale)
    finder.factors.append(one if weight.scale is None else one * weight.scale.astype(dtype))
    return _Value(weight.value + other.value)


def _rescaled(name: str, given: list[_Value]) -> _Value | None:
    """A product at one place times or over a number that is written in f, and not 0."""
    if name not in ("mul", "div") or all(v.product < 0 for v in given):
        return None
    at = int(given[0].product < 0)
    product, other = given[at], given[1 - at].value
    number = isinstance(other, int | float | np.generic | np.ndarray) and not np.ndim(other)
    if not number or not np.isfinite(other) or other == 0 or (name == "div" and at):
        return None
    scale = 1.0 if product.scale is None else product.scale
    return product._replace(scale=scale * float(other) if name == "mul" else scale / float(other))


def _equation(
    finder: _Finder, equation: Any, given: list[_Value], result_of: Callable
) -> list[_Value]:
    name, params = equation.primitive.name, equation.params
    if all(v.leaf < 0 for v in given):
        fixed = all(v.fixed for v in given)
        results = result_of(equation, [v.value for v in given])
        if (product := _rescaled(name, given)) is not None:
            return [product._replace(value=results[0])]
        finder.held += (
            0 if fixed else sum(v.aval.size * v.aval.dtype.itemsize for v in equation.outvars)
        )
        return [_Value(t, fixed=fixed) for t in results]
    if (inside := _inner(equation)) is not None:
        return _walk(finder, inside.jaxpr, inside.consts, given)
    if name == "scan":
        return _scan(finder, equation, given)
    if (carried := _carried(name, given, equation)) is not None:
        return [carried]
    if name == "add" and (total := _bias(finder, given)) is not None:
        return [total]
    met = None
    if name in _MEETINGS:
        met = _MEETINGS[name](given, params, equation.outvars[0].aval.shape)
    if met is None:
        finder.otherwise |= {v.leaf for v in given if v.leaf >= 0}
        return [_Value(t) for t in result_of(equation, [_live(v) for v in given])]
    matrix = met.matrix
    finder.otherwise |= {v.leaf for i, v in enumerate(given) if i != met.at} - {-1}
    values = [v.value if i == met.at else _live(v) for i, v in enumerate(given)]
    (result,) = result_of(equation, values)
    places, looked_up = len(met.factor), met.factor.ndim == 1
    use = Use(matrix.leaf, matrix.steps, looked_up, places, *matrix.value.shape, result.dtype)
    zero, factor, number = finder.zero(use), met.factor, len(finder.factors)
    if matrix.scale is not None and looked_up:
        zero = zero * matrix.scale.astype(zero.dtype)
    elif matrix.scale is not None:
        factor = factor * matrix.scale.astype(factor.dtype)
    finder.factors.append(factor)
    finder.held += result.nbytes + factor.nbytes
    shared = places == 1 and not looked_up and not finder.inside
    return [_Value(result + met.laid_out(zero), product=number if shared else -1)]


def _walk(finder: _Finder, jaxpr: Jaxpr, consts: Sequence, given: list[_Value]) -> list[_Value]:
    """The results of a jaxpr, and in ``finder`` what it meets."""
    atoms = [*jaxpr.outvars, *(atom for e in jaxpr.eqns for atom in e.invars)]
    used = collections.Counter(atom for atom in atoms if not isinstance(atom, Literal))

    def kept(names: Sequence, found: Sequence[_Value]) -> dict:
        # a product that is read twice has a signal of its own, which is not that of its sum
        pairs = zip(names, found, strict=True)
        return {v: t if used[v] == 1 else t._replace(product=-1) for v, t in pairs}

    values = kept(jaxpr.invars, given)
    values |= {v: _Value(t, fixed=True) for v, t in zip(jaxpr.constvars, consts, strict=True)}

    def read(atom: Any) -> _Value:
        return _Value(atom.val, fixed=True) if isinstance(atom, Literal) else values[atom]

    result_of = functools.partial(_as_it_is, jaxpr, used)
    for equation in jaxpr.eqns:
        if not any(used[v] for v in equation.outvars):
            continue
        results = _equation(finder, equation, [read(a) for a in equation.invars], result_of)
        values |= kept(equation.outvars, results)
    return [read(atom) for atom in jaxpr.outvars]


def _outputs(
    finder: _Finder, program: Program, arrays: Sequence, held: list, live: dict, point: list
) -> Array:
    """f at a point; ``live`` has those parameters by which it is to be derived as ever."""
    weights = [_Value(t, live.get(i, t), leaf=i) for i, t in enumerate(held)]
    given = [*weights, *(_Value(t) for t in point)]
    (out,) = _walk(finder, program.jaxpr, arrays, given)
    finder.otherwise |= {out.leaf} - {-1}
    return _live(out)


class Found(NamedTuple):
    """All uses of parameters in their order, those of each, and bytes computed from a point."""

    uses: tuple[Use, ...]
    leaves: tuple[Leaf, ...]
    held: int


@functools.lru_cache(maxsize=256)
def layers(program: Program, leaves: int) -> Found:
    """Where the first ``leaves`` arguments of a program, its parameters, enter it.

    The program maps them and a point to the outputs there.
    """
    finder, (arrays, given) = _Finder(), program.takes

    def outputs(arrays: list, held: list, point: list) -> Array:
        return _outputs(finder, program, arrays, held, {}, point)

    jax.eval_shape(outputs, arrays, given[:leaves], given[leaves:])
    uses = tuple(finder.uses)
    entered = (
        Leaf(tuple(u for u in uses if u.leaf == i), i in finder.otherwise, math.prod(t.shape))
        for i, t in enumerate(given[:leaves])
    )
    return Found(uses, tuple(entered), finder.held)


# ---------------------------------------------------------------- the choice


class Slices(NamedTuple):
    """Derivatives by a matrix are formed ``step`` of its ``size`` rows, or columns, at a time."""

    columns: bool
    size: int
    step: int


class Plan(NamedTuple):
    """Points in a block of rows and of columns, and how each parameter's part is computed.

    ``slices`` has a place for each that enters, None where no derivatives are formed.
    """

    rows: int
    columns: int
    slices: tuple[Slices | None, ...]


def _slices(use: Use, k: int) -> Slices:
    if use.looked_up or k * use.rows > 4 * _AT_ONCE:
        step = even(use.rows, max(_LEAST, _AT_ONCE // (k * use.columns)))
        return Slices(False, use.rows, step)
    return Slices(True, use.columns, even(use.columns, max(1, _AT_ONCE // (k * use.rows))))


def even(points: int, most: int | float) -> int:
    """The size of equal blocks of at most ``most`` points, at least one."""
    blocks = math.ceil(points / max(1, min(points, int(most))))
    return math.ceil(points / blocks)


def _costs(leaf: Leaf, k: int, outputs: str, share: int | float) -> tuple[int | float, int | float]:
    """Multiplications for a pair of points: by pairs of places, and by derivatives.

    ``share`` is what a pair has of the work that is done for each point once.
    """
    both = float(k * k if outputs == "full" else k)
    formed = sum(k * u.places * u.rows * u.columns for u in leaf.uses)
    by_derivatives = both * leaf.size + share * formed
    if not leaf.alike:
        return math.inf, by_derivatives
    (use, *_), t = leaf.uses, leaf.places
    rows = 1 if use.looked_up else use.rows
    if t == 1:
        return rows + both * use.columns, by_derivatives
    pushed = k * t * t * use.columns + (k * k * t * use.columns if both > k else 0)
    return t * t * rows + 2 * pushed, by_derivatives  # many small products: half as fast


def planned(
    model: Traced, leaves: int, points: tuple[int, int], outputs: str, item: int, most: int
) -> tuple[Plan, int | float] | None:
    """How to compute the kernel of so many ``points`` by layers, and its multiplications a pair.

    ``item`` is the size of a number in bytes, ``most`` what the signals of a block may take, and
    what a pair of blocks may. None where no parameter enters by a product.
    """
    uses, entered, held = layers(model.program, leaves)
    if not uses:
        return None
    k = math.prod(model.program.jaxpr.outvars[0].aval.shape)
    n, m = points
    total, each, pair, slices = 0.0, held * (1 + k / 2), 1.0, []
    for leaf in entered:
        if not leaf.uses and not leaf.otherwise:
            continue
        by_pairs, by_derivatives = _costs(leaf, k, outputs, 1 / n + 1 / m)
        total += min(by_pairs, by_derivatives)
        slices.append(None)
        if not leaf.alike:
            each += 2 * item * k * leaf.size  # twice: it is laid out anew to be multiplied
            continue
        (use, *_), t = leaf.uses, leaf.places
        each += 2 * item * t * ((1 if use.looked_up else use.rows) + k * use.columns)
        if by_derivatives < by_pairs:
            slices[-1] = _slices(use, k)
            across = use.rows if slices[-1].columns else use.columns
            each += 2 * item * slices[-1].step * k * across
        elif t > 1:
            pair = max(pair, item * max(2 * t * t, k * t * use.columns))
    if n == m and 2 * most >= max(n * each, n * n * pair):  # one block, which is held once
        return Plan(n, n, tuple(slices)), total
    rows = even(n, min(most / each, max(1.0, math.sqrt(most / pair))))
    return Plan(rows, rows if n == m else even(m, rows), tuple(slices)), total


# ---------------------------------------------------------------- factors, signals, derivatives


def _derivative(use: Use, factor: Array, signal: Array, dtype: np.dtype) -> Array:
    """Of the outputs by a parameter, as far as it is by one use: (k, size)."""
    signal = signal.astype(dtype)
    if use.looked_up:
        kept = jnp.where(factor[:, None] >= 0, signal, jnp.zeros((), dtype))
        empty = jnp.zeros((len(signal), use.rows, use.columns), dtype)
        matrix = empty.at[:, factor].add(kept)
    else:
        matrix = jnp.einsum("tr,ktc->krc", factor.astype(dtype), signal)
    return _back(matrix, use.steps).reshape(len(signal), -1)


def signals(
    model: Traced,
    params: PyTree,
    points: PyTree,
    *,
    dtype: np.dtype,
) -> list[tuple[Array, ...]]:
    """What the kernel is made of, for each parameter that enters the model.

    Of one that enters as the same matrix everywhere, factors (n, places, rows) or (n, places) and
    signals (n, k, places, columns); of another the derivatives, (n, k, size). In ``dtype``, that of
    the sums.
    """
    held = jax.tree.leaves(params)
    uses, entered, _ = layers(model.program, len(held))
    (shape,) = model.program.jaxpr.outvars

    def one(point: PyTree) -> list[tuple[Array, ...]]:
        def forward(zeros: list, live: dict) -> tuple[Array, list]:
            reader = _Reader(zeros)
            given = jax.tree.leaves(point)
            out = _outputs(reader, model.program, model.arrays, held, live, given)
            return out, reader.factors

        own = [i for i, use in enumerate(uses) if use.shares < 0]
        zeros = [jnp.zeros((uses[i].places, uses[i].columns), uses[i].dtype) for i in own]
        live = {i: held[i] for i, leaf in enumerate(entered) if leaf.otherwise}
        _, back, factors = jax.vjp(forward, zeros, live, has_aux=True)
        rows = jnp.eye(*shape.aval.shape, dtype=shape.aval.dtype)
        deltas, slopes = jax.vmap(back)(rows)
        of = dict(zip(own, deltas, strict=True))
        deltas = [of[i if use.shares < 0 else use.shares] for i, use in enumerate(uses)]
        found = []
        for i, leaf in enumerate(entered):
            mine = [j for j, use in enumerate(uses) if use.leaf == i]
            if leaf.alike:
                factor = jnp.concatenate([factors[j] for j in mine])
                factor = factor.astype(dtype) if factor.ndim > 1 else factor
                delta = jnp.concatenate([deltas[j] for j in mine], axis=1).astype(dtype)
                found.append((factor, delta))
                continue
            parts = [_derivative(uses[j], factors[j], deltas[j], dtype) for j in mine]
            if leaf.otherwise:
                parts.append(slopes[i].reshape(len(rows), -1).astype(dtype))
            if parts:
                found.append((functools.reduce(jnp.add, parts),))
        return found

    return jax.vmap(one)(points)


# ---------------------------------------------------------------- the kernel of two blocks


def _over_parameters(a: Array, b: Array) -> Array:
    """a bᵀ of two tall Jacobians (rows, P), some thousand parameters at a time.

    That is two to three times as fast as one product, which XLA does not cut along so long an axis.
    """
    size = a.shape[1]
    whole = size // _TOGETHER if size > _FEW else 0

    def add(i: Array, total: Array) -> Array:
        part, other = (
            jax.lax.dynamic_slice_in_dim(t, i * _TOGETHER, _TOGETHER, axis=1) for t in (a, b)
        )
        return total + part @ other.T

    rest = slice(whole * _TOGETHER, size)
    total = a[:, rest] @ b[:, rest].T
    return jax.lax.fori_loop(0, whole, add, total) if whole else total


def _of_derivatives(a: Array, b: Array, outputs: str) -> Array:
    """Σ over the last axis of (n, k, P) and (m, k, P): (n, m), (n, m, k), or (n, k, m, k)."""
    if outputs == "diagonal":
        return jnp.einsum("nip,mip->nmi", a, b)
    if outputs == "trace":  # as one product of matrices: much faster than over two axes
        return _over_parameters(a.reshape(len(a), -1), b.reshape(len(b), -1))
    k = a.shape[1]
    theta = _over_parameters(a.reshape(len(a) * k, -1), b.reshape(len(b) * k, -1))
    return theta.reshape(len(a), k, len(b), k)


def _of_pairs(left: tuple[Array, Array], right: tuple[Array, Array], outputs: str) -> Array:
    """Σ over places t and s of ⟨a_t, a'_s⟩⟨δ_t, δ'_s⟩."""
    (a, d), (b, e) = left, right
    if a.ndim == 2:
        same = (a[:, :, None, None] == b[None, None]) & (a[:, :, None, None] >= 0)
        products = same.astype(d.dtype)
    else:
        products = jnp.tensordot(a, b, axes=(2, 2))  # (n, t, m, s)
    n, k, places, _ = d.shape
    m = len(e)
    over = {"full": (n, 1, m, 1), "trace": (n, m), "diagonal": (n, m, 1)}[outputs]
    if places == 1:
        return products.reshape(over) * _of_derivatives(d[:, :, 0], e[:, :, 0], outputs)
    if outputs == "full" and k > 1:
        pushed = jnp.einsum("ntms,nkto->nkmso", products, d)
        return jnp.einsum("nkmso,mlso->nkml", pushed, e)
    if outputs == "diagonal":
        each = jax.vmap(lambda d, e: jnp.tensordot(d, e, axes=(2, 2)), (1, 1), 4)(d, e)
        return jnp.sum(products[..., None] * each, axis=(1, 3))
    d, e = (t.transpose(0, 2, 1, 3).reshape(len(t), places, -1) for t in (d, e))
    theta = jnp.sum(products * jnp.tensordot(d, e, axes=(2, 2)), axis=(1, 3))
    return theta.reshape(over)


def _former(factor: Array, signal: Array, by: Slices, outputs: str) -> Callable:
    """The derivatives Σ_t a_t δ_tᵀ of so many rows or columns from a first one: (n, k, parameters).

    One product of matrices has all outputs. For the trace these are in one axis with the
    parameters, (n, 1, ·), in whatever order.
    """
    n, k, places, columns = signal.shape
    if by.columns:
        across = factor.transpose(0, 2, 1)
        along = signal.transpose(0, 2, 3, 1).reshape(n, places, columns * k)
    else:
        across = signal.transpose(0, 2, 1, 3).reshape(n, places, k * columns)
        along = factor[:, None] if factor.ndim == 2 else factor.transpose(0, 2, 1)

    def some(start: Array, size: int) -> Array:
        if by.columns:
            formed = across @ jax.lax.dynamic_slice_in_dim(along, start * k, size * k, axis=2)
            order, shape = (0, 3, 1, 2), (n, -1, size, k)
        else:
            if factor.ndim == 2:
                numbers = start + jnp.arange(size, dtype=factor.dtype)
                rows = (along == numbers[None, :, None]).astype(signal.dtype)
            else:
                rows = jax.lax.dynamic_slice_in_dim(along, start, size, axis=1)
            formed = rows @ across
            order, shape = (0, 2, 1, 3), (n, size, k, columns)
        if outputs == "trace":
            return formed.reshape(n, 1, -1)
        return formed.reshape(shape).transpose(order).reshape(n, k, -1)

    return some


def _in_slices(
    left: tuple[Array, Array], right: tuple[Array, Array], by: Slices, outputs: str
) -> Array:
    """The same by derivatives, some of the matrix's rows or columns at a time.

    What is formed is contracted at once: twice as fast as with a Jacobian that is held.
    """
    ours = _former(*left, by, outputs)
    theirs = ours if left is right else _former(*right, by, outputs)

    def product(start: Array, size: int) -> Array:
        a = ours(start, size)
        return _of_derivatives(a, a if theirs is ours else theirs(start, size), outputs)

    step = by.step
    whole, rest = divmod(by.size, step)
    parts = [product(jnp.int32(by.size - rest), rest)] if rest else []
    if whole:
        first = product(jnp.int32(0), step)
        parts.append(jax.lax.fori_loop(1, whole, lambda i, t: t + product(i * step, step), first))
    return functools.reduce(jnp.add, parts)


def contract(
    left: Sequence, right: Sequence, slices: Sequence[Slices | None], outputs: str
) -> Array:
    """Θ of two blocks of points by their ``signals``: (n, m, k, k), (n, m) or (n, m, k).

    ``slices`` are those of a ``Plan``.
    """
    parts = [
        _of_derivatives(a[0], b[0], outputs)
        if len(a) == 1
        else _in_slices(a, b, by, outputs)
        if by
        else _of_pairs(a, b, outputs)
        for a, b, by in zip(left, right, slices, strict=True)
    ]
    theta = functools.reduce(jnp.add, parts)
    return theta.transpose(0, 2, 1, 3) if outputs == "full" else theta

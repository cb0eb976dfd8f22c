"""Compiled programs of a caller's function that follow whatever the function reads.

Serves ``tangent_kernels`` and ``kernels``. ``jax.jit`` looks a compiled program up by the identity
of the function: what the function reads from outside (a global, the attribute of an object, an
entry of a list) keeps the value of the first call, and a new lambda compiles anew. Here the
function is traced at every call, which takes a few milliseconds, and the program is looked up by
what the trace says: the same operations on arrays of the same shapes are the same program, and
arrays read from outside are its arguments.

What the function itself gives to ``jax.jit`` or ``jax.lax.scan`` follows JAX's rule there.
"""

import enum
import functools
import hashlib
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Array, PyTree

__all__ = ["Program", "Traced", "run", "traced"]

# ---------------------------------------------------------------- equal programs


class _Different:
    """Stands for what cannot be compared by value: equal to nothing else."""


def _of_array(value: Any) -> tuple:
    weak = bool(getattr(value, "weak_type", False))
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return (value.dtype, *_of_array(jax.random.key_data(value)))
    array = np.asarray(value)
    return weak, array.dtype, array.shape, hashlib.blake2b(array.tobytes()).digest()


def _of_object(value: Any) -> Any:
    """An object of JAX or NumPy that never changes: a dtype, an abstract value, a sharding."""
    function = isinstance(value, types.FunctionType)
    module = (value if function else type(value)).__module__ or ""
    if not module.startswith(("jax", "numpy", "ml_dtypes")) or hasattr(value, "call_wrapped"):
        return _Different()
    # of what can be called, functions of JAX that hold nothing of the caller's
    held = value.__closure__ is not None if function else callable(value)
    if held and not isinstance(value, np.dtype | Mesh | AbstractMesh):
        return _Different()
    try:
        hash(value)
    except TypeError:
        return _Different()
    return value


class _Walk:
    """The structure of a jaxpr as nested tuples that are equal for equal programs."""

    def __init__(self, derivatives: bool) -> None:
        self.derivatives = derivatives
        self.seen: dict[int, tuple] = {}  # JAX shares the jaxprs of its own functions

    def jaxpr(self, jaxpr: Jaxpr) -> tuple:
        if id(jaxpr) not in self.seen:
            self.seen[id(jaxpr)] = self._jaxpr(jaxpr)
        return self.seen[id(jaxpr)]

    def _jaxpr(self, jaxpr: Jaxpr) -> tuple:
        numbers: dict[Any, int] = {}

        def read(atom: Any) -> Any:
            if isinstance(atom, Literal):
                return self.value(atom.val), self.value(atom.aval)
            return numbers[atom]

        def bind(variables: list) -> tuple:
            numbers.update((v, len(numbers) + i) for i, v in enumerate(variables))
            return tuple(self.value(v.aval) for v in variables)

        first = bind([*jaxpr.constvars, *jaxpr.invars])
        operations = tuple(
            (e.primitive, tuple(map(read, e.invars)), self.parameters(e), bind(e.outvars))
            for e in jaxpr.eqns
        )
        return len(jaxpr.constvars), first, operations, tuple(map(read, jaxpr.outvars))

    def parameters(self, equation: Any) -> tuple:
        own = getattr(equation.primitive, "name", "").startswith(("custom_jvp", "custom_vjp"))
        # nobody differentiates the program again: what its own rules are makes no difference
        left_out = own and not self.derivatives
        where = getattr(equation, "ctx", None)
        return (
            self.value(getattr(where, "compute_type", None)),
            self.value(getattr(where, "xla_metadata", None)),
            *(
                (name, self.value(value))
                for name, value in equation.params.items()
                if not left_out or isinstance(value, int | Jaxpr | ClosedJaxpr)
            ),
        )

    def value(self, value: Any) -> Any:
        if value is None or isinstance(value, enum.Enum | type):
            return value
        if isinstance(value, bool | int | str | bytes | complex | float):
            text = value.hex() if isinstance(value, float) else repr(value)  # -0.0 is not 0.0
            return type(value), getattr(value, "dtype", None), text
        if isinstance(value, ClosedJaxpr):
            return self.jaxpr(value.jaxpr), tuple(map(self.value, value.consts))
        if isinstance(value, Jaxpr):
            return self.jaxpr(value)
        if isinstance(value, tuple | list):
            return type(value), tuple(map(self.value, value))
        if isinstance(value, dict):
            return dict, tuple((self.value(k), self.value(v)) for k, v in value.items())
        if isinstance(value, set | frozenset):
            return type(value), frozenset(map(self.value, value))
        if isinstance(value, jax.core.Tracer):
            return _Different()
        if hasattr(value, "__array__") and hasattr(value, "dtype"):
            return _of_array(value)
        return _of_object(value)


# ---------------------------------------------------------------- programs


def _jaxprs(value: Any) -> Iterator[Jaxpr]:
    """A jaxpr and those inside it, in the parameters of its operations."""
    if isinstance(value, ClosedJaxpr):
        yield from _jaxprs(value.jaxpr)
    elif isinstance(value, Jaxpr):
        yield value
        for equation in value.eqns:
            yield from _jaxprs(list(equation.params.values()))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _jaxprs(entry)


class Program:
    """Operations without the arrays that they read from outside; equal ones are one object."""

    def __init__(self, jaxpr: Jaxpr, structure: PyTree) -> None:
        self.jaxpr, self.structure = jaxpr, structure

    def __call__(self, arrays: Sequence[Array], leaves: Sequence[Array]) -> list[Array]:
        """The outputs, for the arrays read from outside and the arguments."""
        return jaxpr_as_fun(ClosedJaxpr(self.jaxpr, list(arrays)))(*leaves)

    @property
    def takes(self) -> tuple[list[jax.ShapeDtypeStruct], ...]:
        """The shapes and dtypes of what it is called with."""
        return tuple(
            [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in variables]
            for variables in (self.jaxpr.constvars, self.jaxpr.invars)
        )

    @functools.cached_property
    def precision(self) -> float:
        """The largest eps of a float that occurs: what a rounding in here may amount to."""
        dtypes = {
            variable.aval.dtype
            for jaxpr in _jaxprs(self.jaxpr)
            for variable in [*jaxpr.invars, *(v for e in jaxpr.eqns for v in e.outvars)]
            if hasattr(variable.aval, "dtype")
        }
        floats = (dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating))
        return max((float(jnp.finfo(dtype).eps) for dtype in floats), default=0.0)


# held as long as some compiled program holds them
_PROGRAMS: weakref.WeakValueDictionary[tuple, Program] = weakref.WeakValueDictionary()


@jax.tree_util.register_pytree_node_class
class Traced:
    """A traced function: its program, and the arrays that it read from outside.

    As an argument of a function under ``jax.jit`` the arrays are arguments, and the program is a
    part of the key. Takes what it was traced with, in the same pytrees.
    """

    def __init__(self, program: Program, arrays: tuple) -> None:
        self.program, self.arrays = program, arrays

    def tree_flatten(self) -> tuple[tuple, Program]:
        return self.arrays, self.program

    @classmethod
    def tree_unflatten(cls, program: Program, arrays: tuple) -> "Traced":
        return cls(program, tuple(arrays))

    @property
    def gives(self) -> PyTree:
        """The shapes and dtypes of the result."""
        avals = [variable.aval for variable in self.program.jaxpr.outvars]
        shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
        return jax.tree.unflatten(self.program.structure, shapes)

    def __call__(self, *arguments: PyTree) -> PyTree:
        results = self.program(self.arrays, jax.tree.leaves(arguments))
        return jax.tree.unflatten(self.program.structure, results)


def traced(function: Callable, *arguments: PyTree, derivatives: bool = False) -> Traced:
    """``function`` as it is now, traced with the shapes and dtypes of the arguments.

    ``derivatives`` says that the result may be differentiated: where it calls functions with a
    derivative rule of their own, it is then equal to no other program. It is so anyway where
    an argument, or what the function reads, is traced itself.
    """
    # a function that is new each time, since JAX keeps a trace by the function's identity
    closed, shapes = jax.make_jaxpr(lambda *given: function(*given), return_shape=True)(*arguments)
    read = closed.jaxpr.constvars
    arrays = tuple(
        # a copy: what is NumPy's may be changed in place while the program runs
        const if isinstance(const, jax.Array) else np.array(const, dtype=variable.aval.dtype)
        for const, variable in zip(closed.consts, read, strict=True)
    )
    given = jax.tree.leaves((arguments, arrays))
    derivatives = derivatives or any(isinstance(t, jax.core.Tracer) for t in given)
    structure = jax.tree.structure(shapes)
    key = (_Walk(derivatives).jaxpr(closed.jaxpr), structure)
    program = _PROGRAMS.setdefault(key, Program(closed.jaxpr, structure))
    return Traced(program, arrays)


@jax.jit
def run(function: Traced, *arguments: PyTree) -> PyTree:
    """``function(*arguments)``, compiled."""
    return function(*arguments)

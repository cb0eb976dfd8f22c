"""One side of a comparison: a process that is asked in JSON lines and answers in JSON lines.

Serves ``ours`` and ``peers``, which run in two environments; so it needs NumPy alone. Both sides
make the same inputs from the same seeds here, and are timed by the same clock. A request is

    {"do": "prepare", "name": N, "task": T, "arguments": {...}}  make T's call, compile and warm it
    {"do": "save", "name": N, "path": P}                         the result of the last call, to P
    {"do": "time", "name": N}                                    one more call: its seconds
    {"do": "spend", "name": N}                                   the same, processor time and peak
    {"do": "memory", "task": T, "arguments": {...}}              peak of one call, in bytes
    {"do": "solve", "task": T, "n": n, "arguments": {...}}       time, peak and errors of one solve
    {"do": "versions"}                                           Python and the libraries

A task is a function that takes ``arguments`` and returns the call to be measured: a function
without arguments whose result is an array. A solver is a function that takes ``arguments`` and
returns the function to be measured: it takes x (n, d) and targets (n,), and returns ``Solved``.
"""

import contextlib
import ctypes
import gc
import json
import os
import platform
import resource
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["LENGTH", "SHIFT", "Solved", "laplace", "network", "points", "problem", "serve"]

Task = Callable[..., Callable[[], object]]

LENGTH, SHIFT = 5.0, 0.1  # of the kernel exp(−‖x − y‖/LENGTH), and what its diagonal gets on top
DIMENSIONS, NOISE, HELD_OUT = 20, 0.3, 2000
BLOCK = 2048  # points of the solve that compiles, and as many as the last block of n has
SAMPLE = 1000  # equations whose residual is recomputed


class Solved(NamedTuple):
    """f = kernel(·, points) coefficients, after so many steps (epochs, for an epoch method)."""

    points: np.ndarray
    coefficients: np.ndarray
    steps: int


def problem(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x (n, 20), targets (n,), and 2000 of both held out: float32, always the same.

    Coordinate i of a point has standard deviation 1/√i, so the inputs are nearly of low dimension,
    as real ones are. The truth is a sum of fifty cosines in random directions, of variance about
    0.4 over the points; the noise on all targets has variance 0.09.
    """
    law = np.random.default_rng(18061806)
    waves = law.normal(size=(DIMENSIONS, 50)) / 2
    phases = law.uniform(0, 2 * np.pi, 50)

    def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(count, DIMENSIONS)) / np.sqrt(np.arange(1, DIMENSIONS + 1))
        truth = np.cos(x @ waves + phases).sum(axis=1) / 5
        targets = truth + NOISE * rng.normal(size=count)
        return x.astype(np.float32), targets.astype(np.float32)

    return *draw(n, 1806), *draw(HELD_OUT, 1807)


def laplace(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """exp(−‖x − y‖/LENGTH) of all pairs, in float64: the referee's, fast for nobody."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    squares = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1) - 2 * x @ y.T
    return np.exp(-np.sqrt(np.maximum(squares, 0)) / LENGTH)


def points(data: str, n: int, d: int) -> np.ndarray:
    """Float32 inputs of shape (n, d), always the same.

    ``data`` is "gaussian" (independent standard normal entries), "equal norm" (the same, each row
    scaled to the norm √d), "different norms" (each row scaled to a norm between √d/10 and √d) or
    "digits" (the first n images of scikit-learn's digits, rows scaled to the norm √d, d = 64).

    Raises ``ValueError`` for another name.
    """
    rng = np.random.default_rng(18061806)
    if data == "digits":
        from sklearn.datasets import load_digits  # the one side that asks for them has it

        x = load_digits().data[:n]
    else:
        x = rng.normal(size=(n, d))
    if data not in ("gaussian", "equal norm", "different norms", "digits"):
        raise ValueError(f"data needs to be a known name, got {data!r}")
    if data != "gaussian":
        x *= np.sqrt(d) / np.linalg.norm(x, axis=1, keepdims=True)
    if data == "different norms":
        x *= rng.uniform(0.1, 1.0, size=(n, 1))
    return x.astype(np.float32)


def network(widths: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights (n_out, n_in) and biases (n_out,) of each layer, standard normal, always the same."""
    rng = np.random.default_rng(1806)
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    return [
        (
            rng.standard_normal((n_out, n_in), np.float32),
            rng.standard_normal(n_out, np.float32),
        )
        for n_out, n_in in shapes
    ]


def _finished(result: object) -> object:
    """The result, once it is there: JAX returns before the numbers are."""
    wait = getattr(result, "block_until_ready", None)
    return result if wait is None else wait()


def _status(field: str) -> int:
    """Bytes of this process: "VmRSS" now, "VmHWM" at its peak; elsewhere than on Linux the peak.

    Not ``ru_maxrss`` where it can be avoided: a process inherits that from the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(t for t in status.read_text().splitlines() if t.startswith(field))
        return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _held() -> int:
    """Bytes of this process now; from here its peak is counted anew.

    What is left behind unused goes back to the system first (on Linux; elsewhere the peak is that
    of the process).
    """
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _memory(call: Callable[[], object]) -> dict[str, int]:
    """Bytes that a call adds to this process at its peak, its result included.

    It is the second call that counts: the first compiles.
    """
    _finished(call())
    before = _held()
    result = _finished(call())
    return {"peak": _status("VmHWM") - before, "result": result.nbytes}


def _spent(call: Callable[[], object]) -> dict[str, float]:
    """Wall seconds, seconds of all processors, and bytes at the peak of a call, for a long one."""
    before = _held()
    clock, processor = time.perf_counter(), time.process_time()
    _finished(call())
    return {
        "seconds": time.perf_counter() - clock,
        "processor": time.process_time() - processor,
        "peak": _status("VmHWM") - before,
    }


def _errors(solved: Solved, n: int, kernel: Callable) -> dict[str, float]:
    """Mean squared error on held-out points, and of the equations ‖(K + SHIFT) α − y‖/‖y‖."""
    x, targets, new, truth = problem(n)
    alpha = np.asarray(solved.coefficients, np.float64)
    on = np.concatenate(
        [kernel(some, solved.points) @ alpha for some in np.split(new, 20)]  # 100 points at a time
    )
    errors = {"test error": float(f"{np.mean((on - truth) ** 2):.4g}"), "steps": int(solved.steps)}
    if len(alpha) == n:
        some = np.random.default_rng(1).choice(n, SAMPLE, replace=False)
        left = [kernel(x[part], x) @ alpha for part in np.split(some, 10)]
        left = np.concatenate(left) + SHIFT * alpha[some] - targets[some]
        residual = np.linalg.norm(left) / np.linalg.norm(targets[some])
        errors["residual"] = float(f"{residual:.2g}")
    return errors


def _solve(solve: Callable[..., Solved], n: int) -> dict[str, float]:
    """Wall seconds, seconds of all processors, peak in bytes and errors of one solve.

    A smaller one before it compiles. Time and peak are from arrays to coefficients, errors are
    measured after. Processor time counts what the process did, whatever else the machine does.
    """
    solve(*problem(BLOCK + n % BLOCK)[:2])
    x, targets, *_ = problem(n)
    before = _held()
    clock, processor = time.perf_counter(), time.process_time()
    solved = solve(x, targets)
    spent = {
        "seconds": float(f"{time.perf_counter() - clock:.4g}"),
        "processor": float(f"{time.process_time() - processor:.4g}"),
        "peak": _status("VmHWM") - before,
    }
    return spent | _errors(solved, n, getattr(solve, "kernel", laplace))


def serve(tasks: dict[str, Task], libraries: list[str]) -> None:
    """Answer requests on standard input until it ends; what is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    calls, results = {}, {}

    def answer(do: str, name: str = "", **more: object) -> dict:
        if do == "prepare":
            call = calls[name] = tasks[more["task"]](**more["arguments"])
            results[name] = _finished(call())
        elif do == "save":
            np.save(more["path"], np.asarray(results.pop(name)))
        elif do == "time":
            start = time.perf_counter()
            _finished(calls[name]())
            return {"seconds": time.perf_counter() - start}
        elif do == "spend":
            return _spent(calls[name])
        elif do == "memory":
            return _memory(tasks[more["task"]](**more["arguments"]))
        elif do == "solve":
            return _solve(tasks[more["task"]](**more["arguments"]), more["n"])
        elif do == "versions":
            return {"Python": platform.python_version()} | {t: version(t) for t in libraries}
        else:
            raise ValueError(f"do needs to be one of those listed above, got {do!r}")
        return {}

    for line in sys.stdin:
        try:
            reply = answer(**json.loads(line))
        except Exception:
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), file=answers, flush=True)

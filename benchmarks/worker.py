"""One side of a comparison: a process that is asked in JSON lines and answers in JSON lines.

Serves ``ours`` and ``peers``, which run in two environments; so it needs NumPy alone. Both sides
make the same inputs from the same seeds here, and are timed by the same clock. A request is

    {"do": "prepare", "name": N, "task": T, "arguments": {...}}  make T's call, compile and warm it
    {"do": "save", "name": N, "path": P}                         the result of the last call, to P
    {"do": "time", "name": N}                                    one more call: its seconds
    {"do": "memory", "task": T, "arguments": {...}}              peak of one call, in bytes
    {"do": "versions"}                                           Python and the libraries

A task is a function that takes ``arguments`` and returns the call to be measured: a function
without arguments whose result is an array.
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

import numpy as np

__all__ = ["network", "points", "serve"]

Task = Callable[..., Callable[[], object]]


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


def _memory(call: Callable[[], object]) -> dict[str, int]:
    """Bytes that a call adds to this process at its peak, its result included.

    It is the second call that counts: the first compiles. What that leaves behind unused goes back
    to the system, and the peak is counted anew (on Linux; elsewhere the peak is that of both).
    """
    _finished(call())
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    result = _finished(call())
    return {"peak": _status("VmHWM") - before, "result": result.nbytes}


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
        elif do == "memory":
            return _memory(tasks[more["task"]](**more["arguments"]))
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

"""Temporary."""
import jax, numpy as np
def fingerprint(f, *arguments):
    closed = jax.make_jaxpr(lambda *a: f(*a))(*arguments)
    return str(closed.jaxpr), tuple(np.asarray(c).tobytes() for c in closed.consts)

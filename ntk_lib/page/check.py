"""Claims that can fail.

Every claim of the book stands next to a cell that measures it. ``check`` prints what was measured
beside what was predicted and raises when they differ by more than the stated tolerance; ``slope``
fits the exponent of a power law with its confidence interval; ``typical`` sees to it that a random
frame shows what most draws show.
"""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from ntk_lib.engine.arguments import as_number, as_numeric, as_whole, check_known

__all__ = ["Slope", "check", "slope", "typical"]

MIDDLE = 60  # % of the draws among which a typical one lies
FEWEST = 100


def check(
    claim: str,
    measured: float,
    predicted: float = 0.0,
    *,
    within: float | None = None,
    relative: float | None = None,
    below: float | None = None,
    above: float | None = None,
    digits: int = 4,
) -> None:
    """Print a measurement beside its prediction, and fail if they disagree.

    Exactly one of the four tolerances is given. ``within`` bounds ``|measured - predicted|``,
    ``relative`` bounds it as a share of ``|predicted|``, ``below`` and ``above`` bound ``measured``
    itself (strictly, and ``predicted`` is not used). ``digits`` are printed of each number: fewer
    where the last ones differ between processors (results of float32 training, say), and of a
    rounding error none: ``digits=0`` prints the bounds alone.

    Raises ``AssertionError`` when the claim does not hold (also when ``measured`` is NaN),
    ``ValueError`` when not exactly one tolerance is given or it is negative or not finite, and
    ``TypeError`` for what is not a number.
    """
    given = {"within": within, "relative": relative, "below": below, "above": above}
    named = {name: as_number(name, value) for name, value in given.items() if value is not None}
    if len(named) != 1:
        got = ", ".join(named) or "none"
        raise ValueError(f"check needs exactly one of within, relative, below, above; got {got}")
    ((kind, bound),) = named.items()
    if kind in ("within", "relative") and bound < 0:
        raise ValueError(f"{kind} needs a number that is 0 or more, got {bound}")
    digits = as_whole("digits", digits, least=0, most=99)
    check_known(measured=measured, predicted=predicted)
    for name, value in {"measured": measured, "predicted": predicted}.items():
        if np.ndim(value) or np.asarray(value).dtype.kind not in "iufb":
            raise TypeError(f"{name} needs a real number, got {value!r}")
    measured, predicted = float(measured), float(predicted)
    form = f".{digits or 4}g"
    if kind == "below":
        holds, expected = measured < bound, f"below {bound:{form}}"
    elif kind == "above":
        holds, expected = measured > bound, f"above {bound:{form}}"
    else:
        slack = bound if kind == "within" else bound * abs(predicted)
        holds = abs(measured - predicted) <= slack
        expected = f"{predicted:{form}} ± {slack:.2g}"
    shown = f"{measured:{form}}"
    if kind == "below" and abs(measured) < bound / 100:
        # the digits of a rounding error differ between processors
        shown = f"under {bound / 100:{form}}"
    report = f"{claim}: {shown} (expected {expected})"
    if holds and not digits:
        report = f"{claim}: {expected}"
    if not holds:
        raise AssertionError(f"does not hold: {report}")
    print(f"✓ {report}")


def typical(claim: str, shown: Float[ArrayLike, "..."], draws: Float[ArrayLike, "..."]) -> None:
    """Fail if a number that is shown is no typical draw; print how far from the middle it lies.

    ``shown`` is the number of one frame, or those of several, shape (frames,); ``draws`` are the
    same numbers for at least a hundred other seeds, in the last axis. Each number needs to lie in
    the middle 60 % of its draws, from their 20th to their 80th percentile.

    ``claim`` starts with the name of the figure whose numbers these are.

    Raises ``AssertionError`` when one does not (also when one is NaN), ``ValueError`` for shapes
    that do not fit or fewer than a hundred draws, ``TypeError`` for what is no array of numbers.
    """
    check_known(shown=shown, draws=draws)
    shown, draws = as_numeric("shown", shown), as_numeric("draws", draws)
    if draws.ndim != shown.ndim + 1 or draws.shape[:-1] != shown.shape:
        raise ValueError(
            f"draws needs the shape of shown, {shown.shape}, and an axis of draws after it, "
            f"got {draws.shape}"
        )
    if draws.shape[-1] < FEWEST:
        raise ValueError(f"draws needs at least {FEWEST} draws, got {draws.shape[-1]}")
    if not shown.size:
        raise ValueError("shown needs at least one number, got none")
    low, high = np.percentile(draws, [50 - MIDDLE / 2, 50 + MIDDLE / 2], axis=-1)
    outside = ~((low <= shown) & (shown <= high))
    many = f"{shown.size} numbers, each" if shown.size > 1 else "the number shown is"
    if outside.any():
        at = np.flatnonzero(outside)[0]
        value, (a, b) = shown.flat[at], (low.flat[at], high.flat[at])
        where = f", number {at} of {shown.size}" if shown.size > 1 else ""
        raise AssertionError(
            f"does not hold: {claim}{where}: {value:.4g} is not in the middle {MIDDLE} % of "
            f"{draws.shape[-1]} draws, {a:.4g} to {b:.4g}"
        )
    print(f"✓ {claim}: {many} in the middle {MIDDLE} % of {draws.shape[-1]} draws")


class Slope(NamedTuple):
    """An exponent fitted on a log-log scale, and the half-width of its 95 % interval."""

    value: float
    halfwidth: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.halfwidth:.2f}"


def slope(
    x: Float[ArrayLike, " n"], y: Float[ArrayLike, " n"], y_se: Float[ArrayLike, " n"] | None = None
) -> Slope:
    """Exponent p of the power law y ≈ c·x^p, fitted by least squares on logarithms.

    ``x`` and ``y`` are positive, shape (n,), n ≥ 3. With ``y_se`` (the standard error of each
    ``y``) the points are weighted by it and the interval follows from it; without, the interval
    follows from the scatter of the points about the line. The interval is the usual Gaussian one,
    ±1.96 standard errors.

    Raises ``TypeError`` for what is no array of real numbers, ``ValueError`` for fewer than three
    points, unequal lengths, values that are not positive and finite, or x all the same.
    """
    given = {"x": x, "y": y} | ({} if y_se is None else {"y_se": y_se})
    check_known(**given)
    arrays = {name: as_numeric(name, values) for name, values in given.items()}
    for name, values in arrays.items():
        if values.ndim != 1 or arrays["x"].size < 3:
            raise ValueError(f"{name} needs shape (n,), n at least 3, got {values.shape}")
        if values.size != arrays["x"].size:
            raise ValueError(f"{name} needs the length of x, {arrays['x'].size}, got {values.size}")
        arrays[name] = values = values.astype(float)
        if not np.all(np.isfinite(values) & (values > 0)):
            raise ValueError(f"{name} needs positive, finite values: a power law is fitted on logs")
    if np.all(arrays["x"] == arrays["x"][0]):
        raise ValueError("x needs different values: one abscissa has no slope")
    u, v = np.log(arrays["x"]), np.log(arrays["y"])
    sigma = arrays["y_se"] / arrays["y"] if y_se is not None else np.ones_like(u)
    weight = sigma**-2.0
    centred = u - np.average(u, weights=weight)
    spread = np.sum(weight * centred**2)
    exponent = np.sum(weight * centred * v) / spread
    variance = 1.0 / spread
    if y_se is None:
        residual = v - np.mean(v) - exponent * centred
        variance *= np.sum(residual**2) / (u.size - 2)
    return Slope(float(exponent), float(1.96 * np.sqrt(variance)))

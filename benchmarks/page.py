"""From numbers to the page book/speed.md: tables, and sentences that the numbers must bear out.

Serves ``make bench``, which measures, and the tests, which hold the page against results.json.
Nothing is measured here.
"""

import json
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ntk_lib.page.check import slope

__all__ = [
    "CLAIMS",
    "PAGE",
    "RESULTS",
    "Claim",
    "Verdict",
    "described",
    "mebibytes",
    "median",
    "render",
    "stored",
    "verdicts",
]

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[1] / "book" / "speed.md"

Results = dict
Row = dict


def median(row: Row, name: str) -> float:
    """Seconds of that contestant: the median of its turns."""
    return statistics.median(row["seconds"][name])


def ratio(row: Row, name: str, reference: str) -> float:
    """How many times the seconds of ``reference`` that contestant takes."""
    return median(row, name) / median(row, reference)


def mebibytes(size: float) -> int:
    """Bytes as MiB, rounded."""
    return round(size / 2**20)


# ---------------------------------------------------------------- what the page claims


class Claim(NamedTuple):
    """A number that the page states: ``measure`` of the results keeps on its side of ``bound``."""

    name: str
    measure: Callable[[Results], float]
    bound: float
    least: bool


class Verdict(NamedTuple):
    """A claim held against results."""

    claim: Claim
    measured: float

    @property
    def holds(self) -> bool:
        """Does the measured number keep to the bound? NaN does not."""
        claim = self.claim
        return self.measured >= claim.bound if claim.least else self.measured <= claim.bound

    def __str__(self) -> str:
        side = "at least" if self.claim.least else "at most"
        mark = "✓" if self.holds else "✗"
        return f"{mark} {self.claim.name}: {self.measured:.3g} ({side} {self.claim.bound:g})"


def _by_angle(results: Results) -> list[Row]:
    """The rows in which the kernel is a function of the angle alone."""
    return [row for row in results["limit"] if row["data"] != "different norms"]


def _lead(depth: int) -> Callable[[Results], float]:
    return lambda results: min(
        ratio(row, "neural-tangents", "ntk_lib")
        for row in _by_angle(results)
        if row["depth"] == depth
    )


def _peaks(results: Results, library: str, n: int) -> list[float]:
    return [r["peak"] for r in results["memory"] if (r["library"], r["n"]) == (library, n)]


def _more_memory(results: Results) -> float:
    pairs = zip(
        _peaks(results, "ntk_lib", 2000), _peaks(results, "neural-tangents", 2000), strict=True
    )
    return max(mine / theirs for mine, theirs in pairs)


def _excess(results: Results) -> float:
    return max(
        (row["peak"] - row["result"]) / 2**20 for row in results["memory"] if row["n"] == 20_000
    )


def _network_lead(reference: str) -> Callable[[Results], float]:
    return lambda results: min(ratio(row, reference, "mlp_ntk") for row in results["empirical"])


def _relu_error(results: Results) -> float:
    return max(row["by entry"] for row in results["numerics"] if row["activation"] == "relu")


CLAIMS = {
    claim.name: claim
    for claim in (
        Claim("times faster than neural-tangents, depth 4", _lead(4), 4, True),
        Claim("times faster than neural-tangents, depth 11", _lead(11), 12, True),
        Claim(
            "times the product alone",
            lambda results: max(ratio(row, "ntk_lib", "product") for row in _by_angle(results)),
            3,
            False,
        ),
        Claim("memory as a share of neural-tangents'", _more_memory, 1.1, False),
        Claim("MiB beyond the result, n = 20000", _excess, 256, False),
        Claim(
            "times faster than structured derivatives",
            _network_lead("structured derivatives"),
            1,
            True,
        ),
        Claim(
            "times faster than Jacobian contraction",
            _network_lead("Jacobian contraction"),
            50,
            True,
        ),
        Claim("relative error of an entry, relu", _relu_error, 1e-5, False),
    )
}
"""What the sentences of the page say, by name: their bounds are printed from here."""


def verdicts(results: Results) -> list[Verdict]:
    """Each claim with its measured number."""
    return [Verdict(claim, float(claim.measure(results))) for claim in CLAIMS.values()]


# ---------------------------------------------------------------- results.json


def stored(results: Results) -> str:
    """Results as JSON, one row a line."""
    parts = []
    for name, part in results.items():
        if isinstance(part, list):
            rows = ",\n".join("  " + json.dumps(row) for row in part)
            parts.append(f' "{name}": [\n{rows}\n ]')
        else:
            parts.append(f' "{name}": {json.dumps(part)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


# ---------------------------------------------------------------- the page


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _milliseconds(row: Row, name: str) -> str:
    value = 1e3 * median(row, name)
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _times(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _power(value: float) -> str:
    """A number as a power of ten, 1.2e-06 as 1.2·10⁻⁶."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"${mantissa}\\cdot 10^{{{int(exponent)}}}$"


def described(machine: dict) -> str:
    """The machine, in one sentence."""
    ours, peers = machine["versions"]["ours"], machine["versions"]["peers"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory'] / 2**30:.0f} GiB of "
        f"memory, {machine['system']}, load {machine['load']} before the start; Python "
        f"{ours['Python']}, JAX {ours['jax']}; for the peers Python {peers['Python']}, JAX "
        f"{peers['jax']}, neural-tangents {peers['neural-tangents']}, scikit-ntk "
        f"{peers['scikit-ntk']}; {machine['date']}."
    )


DATA = {
    "gaussian": "Gaussian",
    "equal norm": "equal norms",
    "different norms": "different norms",
    "digits": "digits",
}


def _limit_table(rows: list[Row]) -> str:
    names = ["product", "recursion", "neural-tangents", "scikit-ntk"]

    def line(row: Row) -> list[str]:
        cells = [
            f"{_times(ratio(row, name, 'ntk_lib'))}" if name in row["seconds"] else ""
            for name in names
        ]
        libraries = [pair for name, pair in row["difference"].items() if name != "recursion"]
        return [
            f"{DATA[row['data']]}, $\\beta = {row['beta']:g}$",
            str(row["depth"]),
            _milliseconds(row, "ntk_lib"),
            *cells,
            *(_power(max(side)) for side in zip(*libraries, strict=True)),
        ]

    head = ["inputs", "depth", "`ntk`, ms", "product", "recursion", "`neural-tangents`"]
    return _table([*head, "`scikit-ntk`", "difference", "on the diagonal"], map(line, rows))


def _memory_table(rows: list[Row]) -> str:
    return _table(
        ["library", "inputs", "points", "depth", "peak, MiB", "beyond the result, MiB"],
        (
            [
                f"`{row['library']}`",
                f"{DATA[row['data']]}, $\\beta = {row['beta']:g}$",
                str(row["n"]),
                str(row["depth"]),
                str(mebibytes(row["peak"])),
                str(mebibytes(row["peak"] - row["result"])),
            ]
            for row in rows
        ),
    )


METHODS = {
    "mlp_ntk": "`mlp_ntk`, layer by layer",
    "contraction": '`empirical_ntk`, `method="contraction"`',
    "products": '`empirical_ntk`, `method="products"`',
    "structured derivatives": "`neural-tangents`, structured derivatives",
    "NTK-vector products": "`neural-tangents`, NTK-vector products",
    "Jacobian contraction": "`neural-tangents`, Jacobian contraction",
}


def _empirical_table(rows: list[Row]) -> str:
    head = ["method"]
    for row in rows:
        count = row["widths"][-1]
        head += [f"{count} output{'s' * (count > 1)}, ms", "times `mlp_ntk`"]
    lines = []
    for name, method in METHODS.items():
        line = [method]
        for row in rows:
            line += [_milliseconds(row, name), _times(ratio(row, name, "mlp_ntk"))]
        lines.append(line)
    return _table(head, lines)


def _exponent(rows: list[Row], name: str) -> str:
    sizes = np.array([row["value"] for row in rows], float)
    fit = slope(sizes, np.array([median(row, name) for row in rows]))
    return f"${fit.value:.2f} \\pm {fit.halfwidth:.2f}$"


def _scaling_table(rows: list[Row]) -> str:
    lines = []
    for against in ("points", "depth", "width"):
        mine = [row for row in rows if row["against"] == against]
        span = f"{mine[0]['value']} to {mine[-1]['value']}"
        for name in mine[0]["seconds"]:
            first, last = (_milliseconds(row, name) for row in (mine[0], mine[-1]))
            shown = name if name in ("recursion", "structured derivatives") else f"`{name}`"
            lines.append([against, span, shown, f"{first} to {last}", _exponent(mine, name)])
    return _table(["against", "from … to", "what", "ms", "exponent"], lines)


def _numerics_table(rows: list[Row]) -> str:
    depths = sorted({row["depth"] for row in rows})
    groups: dict[tuple, dict] = {}
    for row in rows:
        key = (row["data"], row["activation"], row["gain"], row["beta"])
        groups.setdefault(key, {})[row["depth"]] = row["error"]
    lines = [
        [
            f"{DATA[data]}, `{activation}`, $c = {gain:.3g}$, $\\beta = {beta:g}$",
            *(_power(errors[depth]) for depth in depths),
        ]
        for (data, activation, gain, beta), errors in groups.items()
    ]
    return _table(["inputs and network", *(f"depth {depth}" for depth in depths)], lines)


def render(results: Results) -> str:
    """The page, from nothing but ``results``."""
    bound = {name: f"{claim.bound:g}" for name, claim in CLAIMS.items()}
    turns, patience = results["machine"]["turns"], results["machine"]["patience"]
    return f"""\
# How fast, how exact: measured

<!-- Written by `make bench` from benchmarks/results.json: change benchmarks/page.py instead. -->

Speed is stated here as ratios. The contestants of a row were compiled, warmed up and then called in turns, {turns} times each (fewer where that would take more than {patience} seconds), in one run on one machine; a cell holds the ratio of two medians. Times in milliseconds stand beside them only to give the scale: another machine will show others, and the ratios will move less. Both sides had the same inputs, and their results were compared: a difference beyond rounding ends the run.

The machine: {described(results["machine"])} Computations are in float32 where nothing else is said. The peers run in an environment of their own, since `neural-tangents` {{cite:p}}`novak2020` does not import on a current JAX.

`make bench` measures all of it again and rewrites this page; the first time it also makes the peers' environment. It takes several minutes, and with ten outputs the Jacobians of the peers several GiB of memory; `make bench ONLY=limit` prints one part. A test compares each sentence with a bound in it with the numbers.

## The limiting kernel

{results["limit"][0]["n"]} points in {results["limit"][0]["d"]} dimensions, ReLU, gain {results["limit"][0]["gain"]:g}. Depth counts weight layers. A cell says how many times as long as `ntk` the contestant takes: the product $xx^\\top$ alone, which no method can avoid; the plain layer-by-layer recursion; and two libraries, `neural-tangents` and `scikit-ntk` {{cite:p}}`lencevicius2022`. The last has another bias, and stands only where there is none.

{_limit_table(results["limit"])}

On inputs of equal norm, and on any inputs when ReLU has no bias, the kernel is a function of the angle alone, and `ntk` evaluates an interpolant of it: it is at least {bound["times faster than neural-tangents, depth 4"]} times faster than `neural-tangents` at depth 4 and at least {bound["times faster than neural-tangents, depth 11"]} times at depth 11, and takes at most {bound["times the product alone"]} times as long as the product. With a bias and different norms there is no such function; there `ntk` is the recursion, and the lead is that of one implementation over another.

The last two columns hold the largest difference between an entry of `ntk` and of a library, off the diagonal and on it, relative to the largest entry. On the diagonal it is the rounding of `neural-tangents`: near a cosine of 1 float32 holds the angle to about $\\sqrt{{\\varepsilon}} \\approx 3\\cdot 10^{{-4}}$ only, and `ntk` takes the exact angle there.

## Memory

Peak memory of one call, beyond what its process held before: the second call of a fresh process, since the first compiles. The result is part of the peak.

{_memory_table(results["memory"])}

Beyond the result `ntk` holds a few blocks, about 1 MiB at 2000 points, where `neural-tangents` holds nothing: at most a tenth more in all. For 20 000 points, where the result alone fills 1.5 GiB, `ntk` takes at most {bound["MiB beyond the result, n = 20000"]} MiB beyond it.

## The kernel of one network

A ReLU network 784-512-512-$k$ on {results["empirical"][0]["n"]} points, its kernel between all pairs of points and of outputs. `empirical_ntk` takes any function of parameters; `mlp_ntk` knows that the network is a multilayer perceptron. `neural-tangents` has three ways for any function {{cite:p}}`novak2022`; its structured derivatives find out by themselves what `mlp_ntk` knows.

{_empirical_table(results["empirical"])}

`mlp_ntk` is not slower than structured derivatives, and at least {bound["times faster than Jacobian contraction"]} times faster than the contraction of Jacobians in `neural-tangents`, with one output and with ten.

## Growth

Time against one size, the others fixed as above (depth 4, 2000 points, 200 for a network's kernel), and the exponent $p$ of a fit by $x^p$ with its 95 % interval. Many points cost as much as their pairs, so that $p$ would be 2; here what every call costs, however small, still holds it down. An interpolant costs the same at every depth. A recursion adds a layer for each, which would make $p = 1$: less where the rest of the work weighs more than a layer, and more where a layer costs more the more of them there are. Against the width small networks cost mostly what does not depend on it, so the exponent stays below the 2 of a matrix product of fixed height.

{_scaling_table(results["scaling"])}

## Float32 against float64

`ntk` in float32 against the recursion in float64, 300 points: the largest difference of an entry, in units of $\\sqrt{{\\Theta(x, x)\\,\\Theta(x', x')}}$. The digits are the first 300 of scikit-learn's, $d = 64$; `leaky_relu` has slope 0.1 here.

{_numerics_table(results["numerics"])}

For ReLU the kernel is nowhere near zero, and each single entry is exact to {_power(CLAIMS["relative error of an entry, relu"].bound)}, relative to itself.
"""

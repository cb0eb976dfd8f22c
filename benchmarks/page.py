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

PEERS = ("structured derivatives", "NTK-vector products", "Jacobian contraction")

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[1] / "book" / "speed.md"

Results = dict
Row = dict


def median(row: Row, name: str, clock: str = "seconds") -> float:
    """Seconds of that contestant: the median of its turns, by the wall or by the "processor"."""
    return statistics.median(row[clock][name])


def ratio(row: Row, name: str, reference: str, clock: str = "seconds") -> float:
    """How many times the seconds of ``reference`` that contestant takes."""
    return median(row, name, clock) / median(row, reference, clock)


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


def _structure_lead(results: Results) -> float:
    rows = results["empirical"]
    return min(ratio(row, "structured derivatives", "structure") for row in rows)


def _compared_models(results: Results) -> list[Row]:
    """The models that the peers were measured on too."""
    return [row for row in results["models"] if "Jacobian contraction" in row["seconds"]]


def _models_lead(results: Results) -> float:
    """By the best of the peers' methods, on the model where that is nearest."""
    return min(
        min(ratio(row, name, "structure") for name in PEERS) for row in _compared_models(results)
    )


def _contraction_leads(results: Results) -> dict[str, float]:
    return {row["name"]: ratio(row, "contraction", "structure") for row in results["models"]}


def _contraction_lead(results: Results) -> float:
    return min(lead for name, lead in _contraction_leads(results).items() if name != "graph")


def _relu_error(results: Results) -> float:
    return max(row["by entry"] for row in results["numerics"] if row["activation"] == "relu")


def _compared(results: Results, size: int) -> list[Row]:
    """The rows with images of that size in which neural-tangents takes part."""
    return [
        row
        for row in results["images"]
        if row["size"] == size and "neural-tangents" in row["seconds"]
    ]


def _image_lead(size: int) -> Callable[[Results], float]:
    """By how much less processor time than neural-tangents, in batches or not."""
    return lambda results: min(
        ratio(row, name, "ntk_lib", "processor")
        for row in _compared(results, size)
        for name in row["seconds"]
        if name != "ntk_lib"
    )


def _image_share(results: Results) -> float:
    return max(
        row["peak"]["ntk_lib"] / row["peak"]["neural-tangents"] for row in _compared(results, 8)
    )


def _image_peak(results: Results) -> float:
    return max(r["peak"]["ntk_lib"] for r in results["images"] if r["size"] == 8) / 2**20


def _solve_of(rows: list[Row], name: str, n: int) -> Row:
    return next(row for row in rows if (row["solver"], row["n"]) == (name, n))


def _done(rows: list[Row], name: str) -> list[Row]:
    return [row for row in rows if row["solver"] == name and "left out" not in row]


def _largest(rows: list[Row], *names: str) -> int:
    """The largest size that all of them have solved."""
    return min(max(row["n"] for row in _done(rows, name)) for name in names)


def _solver_ratio(name: str, reference: str, key: str = "processor") -> Callable[[Results], float]:
    """What that solver needs as a multiple of another, at the largest size of both."""

    def ratio_of(results: Results) -> float:
        rows = results["solvers"]
        n = _largest(rows, name, reference)
        mine, theirs = (_solve_of(rows, one, n)[key] for one in (name, reference))
        return mine / theirs

    return ratio_of


def _solver_excess(results: Results) -> float:
    """Largest test error of a library, as a share of that of the exact solution."""
    rows = results["solvers"]
    return max(
        row["test error"] / _solve_of(rows, "regression", row["n"])["test error"]
        for name in ("GPyTorch", "Falkon", "EigenPro")
        for row in _done(rows, name)
        if "short" not in row
    )


def _solver_residual(results: Results) -> float:
    rows = results["solvers"]
    return max(
        row["residual"]
        for name in ("regression", "regression, blocks kept", "GPyTorch")
        for row in _done(rows, name)
    )


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
        Claim("times structured derivatives, found layers", _structure_lead, 1, True),
        Claim(
            "times faster than the best of neural-tangents, several positions",
            _models_lead,
            1.25,
            True,
        ),
        Claim("times faster than the contraction, several positions", _contraction_lead, 2, True),
        Claim(
            "times as fast as the contraction, graph network",
            lambda results: _contraction_leads(results)["graph"],
            1.05,
            True,
        ),
        Claim("relative error of an entry, relu", _relu_error, 1e-5, False),
        Claim("times less processor time, images of 8 x 8", _image_lead(8), 20, True),
        Claim("times less processor time, images of 32 x 32", _image_lead(32), 8, True),
        Claim("memory as a share of neural-tangents', images of 8 x 8", _image_share, 0.1, False),
        Claim("MiB of a kernel of images of 8 x 8", _image_peak, 100, False),
        Claim("residual of conjugate gradients", _solver_residual, 2e-4, False),
        Claim("test error of a library as a share of ours", _solver_excess, 1.02, False),
        Claim("GPyTorch's time by ours", _solver_ratio("GPyTorch", "regression"), 0.7, False),
        Claim(
            "our time with blocks kept by GPyTorch's",
            _solver_ratio("regression, blocks kept", "GPyTorch"),
            2,
            False,
        ),
        Claim(
            "our memory by GPyTorch's", _solver_ratio("regression", "GPyTorch", "peak"), 0.5, False
        ),
        Claim("EigenPro's time by ours", _solver_ratio("EigenPro", "regression"), 0.4, True),
        Claim("Falkon's time by ours", _solver_ratio("Falkon", "regression"), 0.8, True),
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


def described_solvers(machine: dict) -> str:
    """The versions of the part on many points, in one sentence."""
    ours, peers = machine["versions"]["ours"], machine["versions"]["peers"]
    return (
        f"JAX {ours['jax']}; torch {peers['torch']}, GPyTorch {peers['gpytorch']}, Falkon "
        f"{peers['falkon']} (commit 387d456, without KeOps), EigenPro's `eigenpro2` "
        f"{peers['eigenpro2']} (commit bec4927), as `benchmarks/solvers.txt` pins them; "
        f"{machine['date']}."
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
    "structure": '`empirical_ntk`, `method="structure"`',
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
        if name not in rows[0]["seconds"]:
            continue
        line = [method]
        for row in rows:
            line += [_milliseconds(row, name), _times(ratio(row, name, "mlp_ntk"))]
        lines.append(line)
    return _table(head, lines)


CONVOLUTIONAL = {
    "ntk_lib": "`architectures.kernel`",
    "neural-tangents": "`neural-tangents`, `jax.jit`",
    "in batches of 20": "`neural-tangents`, batches of 20",
}


def _images_table(rows: list[Row]) -> str:
    def line(row: Row, name: str) -> list[str]:
        entry = 1e3 * median(row, name, "processor") / row["n"] ** 2
        off, on = map(_power, row["difference"].get(name, ())) if name != "ntk_lib" else ("", "")
        return [
            CONVOLUTIONAL[name],
            f"{row['size']} × {row['size']} × {row['channels']}",
            str(row["n"]),
            f"{entry:.2g}" if entry < 10 else f"{entry:.0f}",
            _times(ratio(row, name, "ntk_lib", "processor")),
            _times(ratio(row, name, "ntk_lib")),
            str(mebibytes(row["peak"][name])),
            off,
            on,
        ]

    head = ["library", "images", "how many", "processor, ms an entry", "times ours"]
    return _table(
        [*head, "by the clock, times ours", "peak, MiB", "difference", "on the diagonal"],
        (line(row, name) for row in rows for name in CONVOLUTIONAL if name in row["seconds"]),
    )


def _images_in_words(results: Results) -> str:
    """What the table says, and what it means for larger data."""
    bound = {name: f"{claim.bound:g}" for name, claim in CLAIMS.items()}
    row = _compared(results, 32)[0]
    n = row["n"]
    pair = median(row, "ntk_lib", "processor") / (n * (n + 1) / 2)
    hours, years = pair * 1000 * 1001 / 2 / 3600, pair * 50_000 * 50_001 / 2 / (365.25 * 86_400)
    return f"""\
On images of 8 × 8 `architectures.kernel` needs at least {bound["times less processor time, images of 8 x 8"]} times less processor time than `neural-tangents`, compiled as a whole or in batches, and on images of 32 × 32 at least {bound["times less processor time, images of 32 x 32"]} times less. A factor of up to two of that is symmetry: of two entries that mirror each other it computes one. Between two different sets of images there is no mirror, and an entry costs it up to twice what stands here. How much of the rest is due to the older JAX of the peers was not measured. The last two columns are as in the first table; at 32 × 32 the difference is the rounding of `neural-tangents`, by our kernel in float64.

The whole in one call has arrays with a number for each two positions of each two images. `architectures.kernel` goes through the pairs a few at a time: on 100 images of 8 × 8 it needs at most {bound["memory as a share of neural-tangents', images of 8 x 8"]} of that memory, and under {bound["MiB of a kernel of images of 8 x 8"]} MiB for 200 as well. Batches save memory too, at nearly the time of the whole.

It is no road to large data. Pooling needs the covariance of every two positions, which grows as the fourth power of the side: a pair of images of 32 × 32 × 3 took {pair:.2g} s of processor time. At that rate the kernel of 1000 of them, half a million pairs, takes {hours:.0f} hours of one core, and that of the 50 000 training images of CIFAR-10 {years:.1f} years."""


MODELS = {
    "convolutional": "three convolutions",
    "transformer": "transformer block",
    "residual": "residual network",
    "gated": "gated recurrent unit",
    "graph": "graph network",
}


def _models_section(results: Results) -> str:
    """Of models with several positions."""
    compared = _compared_models(results)
    head, lines = ["method"], []
    for row in compared:
        head += [f"{MODELS[row['name']]}, ms", "times `structure`"]
    for name in compared[0]["seconds"]:
        line = [METHODS[name]]
        for row in compared:
            line += [_milliseconds(row, name), _times(ratio(row, name, "structure"))]
        lines.append(line)
    alone = _table(
        ["model", "points", "`structure`, ms", "`contraction`, ms", "times `structure`"],
        (
            [
                MODELS[row["name"]],
                str(row["n"]),
                _milliseconds(row, "structure"),
                _milliseconds(row, "contraction"),
                _times(ratio(row, "contraction", "structure")),
            ]
            for row in results["models"]
            if row not in compared
        ),
    )
    bound = {name: f"{claim.bound:g}" for name, claim in CLAIMS.items()}
    return f"""\
Two models that use a weight at many places, their kernel summed over 10 outputs, on {compared[0]["n"]} points: three convolutions of 64 channels on 8 × 8 pixels with ReLU, their mean and a dense layer; and a causal transformer block of 32 tokens with 64 channels and 4 heads.

{_table(head, lines)}

The lead over the best of the three is small here, at least {bound["times faster than the best of neural-tangents, several positions"]} times, for a reason. Where a weight is used at 64 places, the signals, the derivatives that are formed from them a few columns at a time and the products of these are as many multiplications as there are in a contraction of Jacobians; what is saved is holding the Jacobians.

And three that are measured by us alone, for the same kernel: a residual network of two blocks with 32 channels on 12 × 12 pixels, with batch normalisation in evaluation mode; a gated recurrent unit of 64 numbers over 32 steps; and three rounds of messages with 64 channels on graphs of 24 nodes. On all but the last of the five models found layers are at least {bound["times faster than the contraction, several positions"]} times as fast as our own contraction. The graph network has ten thousand parameters only: its Jacobian is small, the work nearly the same either way, and the gain small (at least {bound["times as fast as the contraction, graph network"]} times as fast).

{alone}
"""


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


SOLVERS = {
    "regression": "`regression`",
    "regression, blocks kept": "`regression`, `memory=2**31`",
    "GPyTorch": "GPyTorch",
    "Falkon": "Falkon",
    "EigenPro": "EigenPro",
    "regression, NTK": "`regression`, the NTK instead",
}

SETTINGS = {"GPyTorch": "rank {}", "Falkon": "{} centres", "EigenPro": "{} epochs"}


def _solvers_table(rows: list[Row]) -> str:
    def line(row: Row) -> list[str]:
        name = SOLVERS[row["solver"]]
        if "left out" in row:
            return [name, str(row["n"]), "left out", "", "", "", "", ""]
        setting = SETTINGS.get(row["solver"], "{} landmarks").format(row["setting"])
        return [
            name,
            str(row["n"]),
            setting,
            str(row["steps"]),
            f"{row['processor']:.3g}",
            f"{row['processor'] / _solve_of(rows, 'regression', row['n'])['processor']:.2g}",
            str(mebibytes(row["peak"])),
            f"{row['test error']:.4f}" + " †" * ("short" in row),
        ]

    order = list(SOLVERS)
    rows_in_order = sorted(rows, key=lambda row: (row["n"], order.index(row["solver"])))
    head = ["solver", "points", "setting", "steps", "processor, s", "times `regression`"]
    return _table([*head, "peak, MiB", "test error"], map(line, rows_in_order))


def _growth_table(rows: list[Row]) -> str:
    lines = []
    for name, shown in SOLVERS.items():
        mine = _done(rows, name)
        if len(mine) < 3:
            continue
        sizes = np.array([row["n"] for row in mine], float)
        fits = [
            slope(sizes, np.array([float(row[key]) for row in mine]))
            for key in ("processor", "peak")
        ]
        cells = [f"${fit.value:.2f} \\pm {fit.halfwidth:.2f}$" for fit in fits]
        lines.append([shown, f"{mine[0]['n']} to {mine[-1]['n']}", *cells])
    return _table(["solver", "points", "exponent of time", "exponent of peak memory"], lines)


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


def _solvers_in_words(results: Results) -> str:
    """What the tables of the part say."""
    bound = {name: f"{claim.bound:g}" for name, claim in CLAIMS.items()}
    rows = results["solvers"]
    n = _largest(rows, "regression", "GPyTorch")
    largest = max(row["n"] for row in rows)
    missing = (
        f" These numbers end at {largest} points: 40 000 and 80 000, which `make bench` measures too, "
        "were not run. " + results["solvers machine"].get("note", "")
        if largest < 80_000
        else ""
    )
    worst = max(
        row["test error"] / _solve_of(rows, "regression", row["n"])["test error"]
        for row in _done(rows, "Falkon")
    )
    return f"""\
`regression` does not win. At {n} points GPyTorch takes at most {bound["GPyTorch's time by ours"]} of its time: it holds the kernel, and `regression` computes it anew in each step, as it must when the kernel does not fit. For that it has at most {bound["our memory by GPyTorch's"]} of GPyTorch's memory. Where memory is to spare, `memory=` keeps blocks of the kernel from the first step on, half of it suffices, and at the largest size the time is at most {bound["our time with blocks kept by GPyTorch's"]} times GPyTorch's. The two that approximate take at least {bound["Falkon's time by ours"]} (Falkon) and {bound["EigenPro's time by ours"]} (EigenPro) of the time of `regression` at their largest size. EigenPro's grows most slowly of all. This problem is unkind to them: the kernel is rough and the noise small, so that an error within 2 % needs many centres and epochs. Falkon, with the largest setting that was tried, was up to {100 * (worst - 1):.0f} % above the exact solution; fewer centres are faster and further off (`make bench` prints each setting that it tries). Both were made for millions of points and for graphics processors, of which nothing is measured here.{missing}"""


def render(results: Results) -> str:
    """The page, from nothing but ``results``."""
    bound = {name: f"{claim.bound:g}" for name, claim in CLAIMS.items()}
    turns, patience = results["machine"]["turns"], results["machine"]["patience"]
    return f"""\
# How fast, how exact: measured

<!-- Written by `make bench` from benchmarks/results.json: change benchmarks/page.py instead. -->

Speed is stated here as ratios. The contestants of a row were compiled, warmed up and then called in turns, {turns} times each (fewer where that would take more than {patience} seconds), in one run on one machine; a cell holds the ratio of two medians. Times in milliseconds stand beside them only to give the scale: another machine will show others, and the ratios will move less. Both sides had the same inputs, and their results were compared: a difference beyond rounding ends the run.

The machine: {described(results["machine"])} Computations are in float32 where nothing else is said. The peers run in an environment of their own, since `neural-tangents` {{cite:p}}`novak2020` does not import on a current JAX.

`make bench` measures all of it again and rewrites this page; the first time it also makes the peers' environment. It takes several minutes, the part on images about seven more, and with ten outputs the Jacobians of the peers several GiB of memory; `make bench ONLY=limit` prints one part. A test compares each sentence with a bound in it with the numbers.

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

A ReLU network 784-512-512-$k$ on {results["empirical"][0]["n"]} points, its kernel between all pairs of points and of outputs. `empirical_ntk` takes any function of parameters; `mlp_ntk` knows that the network is a multilayer perceptron. `neural-tangents` has three ways for any function {{cite:p}}`novak2022`; its structured derivatives find out by themselves what `mlp_ntk` knows, and so does `method="structure"`, which `empirical_ntk` chooses by itself where it is less work.

{_empirical_table(results["empirical"])}

Neither `mlp_ntk` nor `structure` is slower than structured derivatives, and `mlp_ntk` is at least {bound["times faster than Jacobian contraction"]} times faster than the contraction of Jacobians in `neural-tangents`, with one output and with ten.

{_models_section(results)}

## The kernel of a convolutional network

Three layers of 3 × 3 filters with ReLU, gain {results["images"][0]["gain"]:g} and $\\beta = {results["images"][0]["beta"]:g}$, then the average over all positions and one dense layer: the limiting kernel of this network between images of independent normal pixels, by `architectures.kernel` and by `neural-tangents`. `neural-tangents` computes all entries in one compiled call, or by its `batch` 20 × 20 of them at a time; 200 images are for us alone, since it needs the better part of a minute for 100. A call of more than half of {patience} seconds is timed once.

Processor time, of all cores together, is what other programs on the machine change least: load was {results["images machine"]["load"]} at the start, on {results["images machine"]["date"]}. An entry costs the time of a call divided by the squared number of images. The peak is that of a call beyond what its process held before, the result included, after a first call that compiles.

{_images_table(results["images"])}

{_images_in_words(results)}

## Many points

When the kernel no longer fits, `scale.regression` solves $(K + n\\cdot\\text{{ridge}}\\cdot I)\\alpha = y$ by conjugate gradients, block by block. Three libraries solve the same problem another way. GPyTorch {{cite:p}}`gardner2018` solves the same equations by conjugate gradients; it holds the kernel while that fills at most 2 GiB, and computes 2048 rows at a time beyond. Falkon {{cite:p}}`rudi2017,meanti2020` has coefficients for some of the points only, its centres. EigenPro {{cite:p}}`ma2017,ma2019`, here its second version (a third, with centres of its own, is {{cite:t}}`abedsoltan2023`), descends with batches and has no ridge: it is stopped early.

The data: points of 20 dimensions, coordinate $i$ with standard deviation $1/\\sqrt i$; targets a sum of fifty cosines and noise of variance 0.09. All solvers have the kernel $e^{{-\\|x-x'\\|/5}}$ and, but for EigenPro, 0.1 added to its diagonal. The last row of a size has an NTK instead (ReLU, depth 3, $\\beta = 0.1$), the first kernel's setting otherwise. The two that solve the same equations stop at a residual of $10^{{-4}}$; recomputed in float64, on 1000 equations, it is at most {bound["residual of conjugate gradients"]} for each. The two that approximate get the fewest centres, or epochs, of 500, 1000, 2000, … and 1, 2, 4, … with which the error on 2000 held-out points is at most {bound["test error of a library as a share of ours"]} times that of the exact solution, and at most half of the points as centres; finding them is not timed, and † marks where the largest setting did not do. A solver is left out of a size where four times its time for half the points would be more than ten minutes.

Each solve runs in a process of its own, *on one core*, after a small one that compiles: from arrays to coefficients. The time is that of the processor, which other programs on the machine change less than the clock on the wall: load was {results["solvers machine"]["load"]} at the start. Memory is the peak beyond what the process held before. Versions: {described_solvers(results["solvers machine"])}

{_solvers_table(results["solvers"])}

{_growth_table(results["solvers"])}

{_solvers_in_words(results)}

## Growth

Time against one size, the others fixed as above (depth 4, 2000 points, 200 for a network's kernel), and the exponent $p$ of a fit by $x^p$ with its 95 % interval. Many points cost as much as their pairs, so that $p$ would be 2; here what every call costs, however small, still holds it down. An interpolant costs the same at every depth. A recursion adds a layer for each, which would make $p = 1$: less where the rest of the work weighs more than a layer, and more where a layer costs more the more of them there are. Against the width small networks cost mostly what does not depend on it, so the exponent stays below the 2 of a matrix product of fixed height.

{_scaling_table(results["scaling"])}

## Float32 against float64

`ntk` in float32 against the recursion in float64, 300 points: the largest difference of an entry, in units of $\\sqrt{{\\Theta(x, x)\\,\\Theta(x', x')}}$. The digits are the first 300 of scikit-learn's, $d = 64$; `leaky_relu` has slope 0.1 here.

{_numerics_table(results["numerics"])}

For ReLU the kernel is nowhere near zero, and each single entry is exact to {_power(CLAIMS["relative error of an entry, relu"].bound)}, relative to itself.
"""

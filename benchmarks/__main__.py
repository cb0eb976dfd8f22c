"""Measure, print the ratios, and write results.json and the page book/speed.md.

    make bench                           everything
    make bench ONLY=limit                one part, printed only (limit, memory, empirical, models,
                                         images, scaling, numerics, solvers)
    make bench ONLY=solvers KEEP=yes     one part, which takes the place of its old numbers

Every ratio is of two medians from one run: the contestants are compiled and warmed up, then called
in turns, so that whatever else the machine does hits all alike. Their results are compared too: a
difference beyond rounding ends the run, so that no wrong result can win.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import page
from benchmarks.page import median
from ntk_lib.page.check import slope

REPO = Path(__file__).parents[1]
PEERS = REPO / ".venv-peers" / "bin" / "python"
SOLVERS = REPO / ".venv-solvers" / "bin" / "python"

TURNS = 9
# Seconds: a contestant whose turns would take longer has fewer, as many as fit but at least one.
PATIENCE = 15
# Largest difference of an entry relative to the largest entry, off the diagonal and on it: sums of
# up to a million float32 products, through up to twenty layers. On the diagonal of a limit float32
# knows neural-tangents' angle, 0, to about √ε = 3e-4 only, and each layer adds its share of that.
# Of images of 32 x 32 it was off by 8e-5 off the diagonal, ours by 7e-8, from ours in float64.
TOLERANCES = {
    "limit": (1e-5, 1e-2),
    "empirical": (1e-5, 1e-5),
    "model": (1e-5, 1e-5),
    "images": (5e-4, 1e-2),
}

# ---------------------------------------------------------------- two processes


ONE_CORE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def _on_one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


class Worker:
    """A process of one side; a call sends a request and returns the answer.

    Ends the run when the answer is an error.
    """

    def __init__(self, python: Path | str, module: str, one_core: bool = False) -> None:
        # its threads would wait for each other, on a busy machine for long
        cores = dict.fromkeys(ONE_CORE, "1") if one_core else {}
        # progress bars and warnings of the libraries: shown only if the process dies
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [str(python), "-m", module],
            cwd=REPO,
            env=os.environ | {"JAX_PLATFORMS": "cpu"} | cores,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            preexec_fn=_on_one_core if one_core else None,
        )

    def __call__(self, do: str, **request: object) -> dict:
        print(json.dumps({"do": do, **request}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
        reply = json.loads(line) if line else {"error": f"the process ended\n{self.log.read()}"}
        if "error" in reply:
            raise SystemExit(f"{request.get('name', do)}: {reply['error']}")
        return reply

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


@contextlib.contextmanager
def workers() -> Iterator[tuple[Worker, Worker]]:
    """Our side and the peers', in processes that have done nothing yet."""
    if not PEERS.exists():
        raise SystemExit("the peers' environment is missing: start this with `make bench`")
    sides = Worker(sys.executable, "benchmarks.ours"), Worker(PEERS, "benchmarks.peers")
    try:
        yield sides
    finally:
        for side in sides:
            side.close()


class Contestant(NamedTuple):
    """A name in the results, who computes it and by which method, what is asked beyond the rest.

    ``rival`` says that its result is to agree with that of ntk_lib.
    """

    name: str
    side: Worker
    method: str
    rival: bool = True


def apart(one: np.ndarray, other: np.ndarray) -> list[float]:
    """Largest |one - other| off the diagonal and on it, relative to the largest entry of both."""
    gap = np.abs(one - other) / np.abs(one).max()
    points = np.arange(len(gap))
    on = gap[points, points].max()
    gap[points, points] = 0
    return [float(f"{value:.2g}") for value in (gap.max(), on)]


def race(
    contestants: list[Contestant], task: str, arguments: dict, ask: str = "time"
) -> dict[str, dict]:
    """Seconds of each contestant's calls, in turns, and how far each result is from the first.

    With ``ask`` "spend" also seconds of processor time, and the largest of the peaks in bytes.
    """
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, side, method, rival in contestants:
            request = {"method": method, **arguments}
            side("prepare", name=name, task=task, arguments=request)
            if rival:
                path = str(Path(folder) / "result.npy")
                side("save", name=name, path=path)
                results[name] = np.load(path)
    leader = contestants[0].name
    leading = results.pop(leader)
    difference = {name: apart(leading, result) for name, result in results.items()}
    for name, values in difference.items():
        if not np.all(np.array(values) <= TOLERANCES[task]):
            raise SystemExit(
                f"{name} and {leader} differ, as a share of the largest entry, by {values[0]} off "
                f"the diagonal and {values[1]} on it, more than {TOLERANCES[task]}, at {arguments}"
            )
    seconds, processor, peak = ({name: [] for name, *_ in contestants} for _ in range(3))
    for turn in range(TURNS):
        first = turn % len(contestants)  # nobody always runs after the same neighbour
        for name, side, *_ in contestants[first:] + contestants[:first]:
            mine = seconds[name]
            if not mine or sum(mine) + max(mine) <= PATIENCE:
                spent = side(ask, name=name)
                mine.append(float(f"{spent['seconds']:.4g}"))
                if ask == "spend":
                    processor[name].append(float(f"{spent['processor']:.4g}"))
                    peak[name].append(spent["peak"])
    raced = {"seconds": seconds, "difference": difference}
    if ask == "spend":
        peak = {name: max(peaks) for name, peaks in peak.items()}
        raced |= {"processor": processor, "peak": peak}
    return raced


def shown(row: dict) -> str:
    """Medians of a row, each also as a multiple of the first."""
    names = list(row["seconds"])
    first = median(row, names[0])
    return ", ".join(
        f"{name} {1e3 * median(row, name):.1f} ms"
        + ("" if name == names[0] else f" ({median(row, name) / first:.2g} times)")
        for name in names
    ) + "".join(
        f"; from {name} {off:.0e}, on the diagonal {on:.0e}"
        for name, (off, on) in row["difference"].items()
    )


# ---------------------------------------------------------------- the parts


def limit() -> list[dict]:
    """The limiting NTK against two libraries, its own recursion and the product alone."""
    rows = []
    with workers() as (ours, peers):
        for data, beta in (("gaussian", 0.0), ("equal norm", 0.1), ("different norms", 0.1)):
            for depth in (4, 11):
                at = {"data": data, "n": 2000, "d": 784, "depth": depth, "gain": 2.0, "beta": beta}
                at["activation"] = "relu"
                contestants = [
                    Contestant("ntk_lib", ours, "ntk"),
                    Contestant("recursion", ours, "recursion"),
                    Contestant("product", ours, "product", rival=False),
                    Contestant("neural-tangents", peers, "neural-tangents"),
                ]
                if beta == 0:
                    contestants.append(Contestant("scikit-ntk", peers, "scikit-ntk"))
                row = at | race(contestants, "limit", at)
                print(f"  {data}, beta {beta:g}, depth {depth}: {shown(row)}", flush=True)
                rows.append(row)
    return rows


def memory() -> list[dict]:
    """Bytes of one call, each in a process of its own."""
    rows = []
    for library, n, depth, data, beta in (
        ("ntk_lib", 2000, 4, "gaussian", 0.0),
        ("neural-tangents", 2000, 4, "gaussian", 0.0),
        ("ntk_lib", 2000, 11, "gaussian", 0.0),
        ("neural-tangents", 2000, 11, "gaussian", 0.0),
        ("ntk_lib", 20_000, 4, "gaussian", 0.0),
        ("ntk_lib", 20_000, 4, "different norms", 0.1),
    ):
        at = {"data": data, "n": n, "d": 784, "depth": depth, "gain": 2.0, "beta": beta}
        with workers() as (ours, peers):
            side, method = (ours, "ntk") if library == "ntk_lib" else (peers, library)
            arguments = at | {"method": method, "activation": "relu"}
            row = side("memory", task="limit", arguments=arguments)
        rows.append({"library": library} | at | row)
        print(
            f"  {library}, n {n}, depth {depth}, {data}: {page.mebibytes(row['peak'])} MiB, "
            f"{page.mebibytes(row['peak'] - row['result'])} beyond the result",
            flush=True,
        )
    return rows


def empirical() -> list[dict]:
    """The NTK of one network, by us and by each implementation of neural-tangents."""
    rows = []
    for outputs in (1, 10):
        at = {"widths": [784, 512, 512, outputs], "n": 200, "gain": 2.0, "beta": 0.1}
        with workers() as (ours, peers):
            contestants = [
                Contestant("mlp_ntk", ours, "layers"),
                Contestant("structure", ours, "structure"),
                Contestant("contraction", ours, "contraction"),
                Contestant("products", ours, "products"),
                Contestant("structured derivatives", peers, "STRUCTURED_DERIVATIVES"),
                Contestant("NTK-vector products", peers, "NTK_VECTOR_PRODUCTS"),
                Contestant("Jacobian contraction", peers, "JACOBIAN_CONTRACTION"),
            ]
            row = at | race(contestants, "empirical", at)
        print(f"  {outputs} outputs: {shown(row)}", flush=True)
        rows.append(row)
    return rows


# The models of the two libraries, and how many points there are for those of ours alone.
COMPARED = ("convolutional", "transformer")
ALONE = {"residual": 20, "gated": 50, "graph": 50}

# Pixels a side, channels, and how many images. neural-tangents needs most of a minute for 100
# small ones, so 200 are for us alone; its batches take 20 at once.
PICTURES = ((8, 1, 100), (8, 1, 200), (32, 3, 4))


def images(pictures: Sequence[tuple[int, int, int]] = PICTURES) -> list[dict]:
    """The kernel of a convolutional network with pooling, three layers of 3 x 3, of n images."""
    rows = []
    for size, channels, n in pictures:
        at = {"n": n, "size": size, "channels": channels, "depth": 3, "gain": 2.0, "beta": 0.1}
        with workers() as (ours, peers):
            contestants = [Contestant("ntk_lib", ours, "ntk_lib")]
            if n <= 100:
                contestants.append(Contestant("neural-tangents", peers, "whole"))
            if n <= 100 and n % 20 == 0:
                contestants.append(Contestant("in batches of 20", peers, "batched"))
            row = at | race(contestants, "images", at, ask="spend")
        print(f"  {n} images, {size} x {size} x {channels}: {shown(row)}")
        for name in row["seconds"]:
            print(
                f"    {name}: {1e3 * median(row, name, 'processor') / n**2:.3g} ms of processor "
                f"time an entry, {page.mebibytes(row['peak'][name])} MiB",
                flush=True,
            )
        rows.append(row)
    return rows


def models() -> list[dict]:
    """The trace kernels of models with several positions; the peers' of the first two."""
    rows = []
    for name, n in (*dict.fromkeys(COMPARED, 50).items(), *ALONE.items()):
        at = {"name": name, "n": n}
        with workers() as (ours, peers):
            contestants = [
                Contestant("structure", ours, "structure"),
                Contestant("contraction", ours, "contraction"),
            ]
            if name in COMPARED:
                contestants += [
                    Contestant("structured derivatives", peers, "STRUCTURED_DERIVATIVES"),
                    Contestant("NTK-vector products", peers, "NTK_VECTOR_PRODUCTS"),
                    Contestant("Jacobian contraction", peers, "JACOBIAN_CONTRACTION"),
                ]
            row = at | race(contestants, "model", at)
        print(f"  {name}: {shown(row)}", flush=True)
        rows.append(row)
    return rows


def scaling() -> list[dict]:
    """Seconds against the number of points, the depth and the width."""
    rows = []
    base = {"data": "gaussian", "n": 2000, "d": 784, "depth": 4, "gain": 2.0, "beta": 0.0}
    base["activation"] = "relu"
    network = {"widths": [], "n": 200, "gain": 2.0, "beta": 0.1}
    series = {
        "points": ("limit", "n", [{"n": n} for n in (500, 1000, 2000, 4000)]),
        "depth": ("limit", "depth", [{"depth": depth} for depth in (2, 3, 5, 10, 20)]),
        "width": (
            "empirical",
            "width",
            [{"widths": [784, w, w, 1]} for w in (256, 512, 1024, 2048, 4096)],
        ),
    }
    for against, (task, key, changes) in series.items():
        with workers() as (ours, peers):
            if task == "limit":
                contestants = [
                    Contestant("ntk_lib", ours, "ntk"),
                    Contestant("recursion", ours, "recursion"),
                    Contestant("neural-tangents", peers, "neural-tangents"),
                ]
            else:
                contestants = [
                    Contestant("mlp_ntk", ours, "layers"),
                    Contestant("structured derivatives", peers, "STRUCTURED_DERIVATIVES"),
                ]
            values = []
            for change in changes:
                at = (base if task == "limit" else network) | change
                values.append(at["widths"][1] if key == "width" else at[key])
                row = race(contestants, task, at)
                rows.append({"against": against, "value": values[-1]} | row)
        mine = rows[-len(values) :]
        for name, *_ in contestants:
            print(f"  seconds of {name} against {against}: power", end=" ")
            print(slope(values, [median(row, name) for row in mine]), flush=True)
    return rows


def numerics() -> list[dict]:
    """Float32 against the recursion in float64."""
    rows = []
    activations = {"relu": 2.0, "leaky_relu": 2.0 / 1.01, "erf": 1.0, "sin": 1.0}
    ours = Worker(sys.executable, "benchmarks.ours")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "kernel.npy")

        def kernel(method: str, at: dict) -> np.ndarray:
            ours("prepare", name=method, task="limit", arguments={"method": method} | at)
            ours("save", name=method, path=path)
            return np.load(path)

        for data, d in (("gaussian", 784), ("equal norm", 784), ("digits", 64)):
            for activation, gain in activations.items():
                for beta in (0.0, 0.1) if "relu" in activation else (0.1,):
                    errors = []
                    for depth in (2, 3, 5, 10, 20):
                        at = {"data": data, "n": 300, "d": d, "depth": depth, "gain": gain}
                        at |= {"beta": beta, "activation": activation}
                        exact, rounded = kernel("float64", at), kernel("ntk", at)
                        gap = np.abs(rounded - exact)
                        size = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
                        row = {"error": np.max(gap / size), "by entry": np.max(gap / abs(exact))}
                        rows.append(at | {key: float(f"{e:.2g}") for key, e in row.items()})
                        errors.append(row["error"])
                    print(
                        f"  {data}, {activation}, beta {beta:g}: "
                        + ", ".join(f"{error:.0e}" for error in errors),
                        flush=True,
                    )
    ours.close()
    return rows


# Points; what the peers that approximate may add to the test error; seconds of processor time from
# which a solver gets no larger problem; bytes that a solver may take for blocks of the kernel.
SIZES = (5000, 10_000, 20_000, 40_000, 80_000)
WITHIN, ENOUGH, BLOCKS = 1.02, 600, 2**31
EXACT = 1e-4  # residual at which conjugate gradients stop, ours and GPyTorch's
RANK = 100  # of GPyTorch's pivoted Cholesky factor: 25 steps at n = 5000, with its default 15 63
CENTRES = (500, 1000, 2000, 4000, 8000, 16_000)
EPOCHS = (1, 2, 4, 8, 16)


def _solved(side: str, task: str, n: int, **arguments: object) -> dict:
    python = sys.executable if side == "ours" else SOLVERS
    worker = Worker(python, f"benchmarks.{side}", one_core=True)
    try:
        return worker("solve", task=task, n=n, arguments=arguments)
    finally:
        worker.close()


def solvers(sizes: Sequence[int] = SIZES) -> list[dict]:
    """Kernel regression at growing n against three libraries, each solve in a fresh process.

    A library that approximates gets the smallest setting of its list with which its test error is
    within 2 % of the exact solution's; from the second size on the search begins one step below the
    setting of the size before. The time of the search does not count.
    """
    if not SOLVERS.exists():
        raise SystemExit("the solvers' environment is missing: start this with `make bench`")
    rows, above, begin = [], {}, {"Falkon": 0, "EigenPro": 0}
    for n in sizes:
        # the work with the columns, n·landmarks², then grows as that of a step, n²
        ours = {"landmarks": round(4 * n**0.5), "tolerance": EXACT}
        kept = ours | {"memory": BLOCKS}
        # GPyTorch holds the kernel where it fits into as many bytes, and goes by rows elsewhere
        rows_at_once = 0 if 4 * n**2 <= BLOCKS else 2048
        exact = [
            ("regression", "ours", "solver", {"method": "laplace", "memory": 0} | ours),
            ("regression, blocks kept", "ours", "solver", {"method": "laplace"} | kept),
            ("GPyTorch", "solvers", "gpytorch", {"rank": RANK, "tolerance": EXACT}),
            ("regression, NTK", "ours", "solver", {"method": "ntk", "memory": 0} | ours),
        ]
        approximate = [
            ("Falkon", "falkon", CENTRES, lambda m: {"centres": m}),
            ("EigenPro", "eigenpro", EPOCHS, lambda e: {"epochs": e, "gibibytes": 4}),
        ]
        found = {}

        def keep(name: str, setting: int, row: dict, n: int = n, found: dict = found) -> None:
            found[name] = row
            rows.append({"solver": name, "n": n, "setting": setting} | row)
            above[name] = row["processor"]
            print(f"  {n} points, {name} ({setting}): {_spent(row)}", flush=True)

        for name, side, task, arguments in exact:
            if above.get(name, 0) * 4 > ENOUGH:
                rows.append({"solver": name, "n": n, "left out": "time"})
                continue
            if task == "gpytorch":
                arguments["rows"] = rows_at_once
            setting = arguments.get("landmarks", RANK)
            keep(name, setting, _solved(side, task, n, **arguments))
        goal = WITHIN * found.get("regression", {"test error": 0})["test error"]
        for name, task, settings, arguments in approximate:
            if above.get(name, 0) * 4 > ENOUGH or not goal:
                rows.append({"solver": name, "n": n, "left out": "time"})
                continue
            for place in range(begin[name], len(settings)):
                if task == "falkon" and settings[place] > n // 2:
                    continue  # no approximation any more
                row = _solved("solvers", task, n, **arguments(settings[place]))
                if row["test error"] <= goal:
                    begin[name] = max(0, place - 1)
                    keep(name, settings[place], row)
                    break
                print(
                    f"    {name} ({settings[place]}): {row['test error']} > {goal:.4g}", flush=True
                )
                last = settings[place], row | {"short": True}
            else:
                keep(name, *last)
    return rows


def _spent(row: dict) -> str:
    return (
        f"{row['processor']:.3g} s of processor time, {row['seconds']:.3g} s by the clock, "
        f"{page.mebibytes(row['peak'])} MiB, test error {row['test error']}, {row['steps']} steps"
    )


PARTS: dict[str, Callable[[], list[dict]]] = {
    "limit": limit,
    "memory": memory,
    "empirical": empirical,
    "models": models,
    "images": images,
    "scaling": scaling,
    "numerics": numerics,
    "solvers": solvers,
}

# ---------------------------------------------------------------- the run


def machine() -> dict[str, object]:
    """What the numbers depend on: processor, memory, load at the start, versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    model = next((t.split(":")[1].strip() for t in lines if t.startswith("model name")), "")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with workers() as (ours, peers):
        versions = {"ours": ours("versions"), "peers": peers("versions")}
    return {
        "processor": model or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory": total,
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 1),
        "versions": versions,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "turns": TURNS,
        "patience": PATIENCE,
    }


def solving_machine() -> dict[str, object]:
    """The same for the solvers."""
    sides = {"ours": (sys.executable, "ours"), "peers": (SOLVERS, "solvers")}
    versions = {}
    for name, (python, module) in sides.items():
        worker = Worker(python, f"benchmarks.{module}")
        versions[name] = worker("versions")
        worker.close()
    return {
        "load": round(os.getloadavg()[0], 1),
        "versions": versions,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description="Speed, as ratios.")
    parser.add_argument("--only", choices=PARTS, help="run one part, and write nothing")
    parser.add_argument("--keep", action="store_true", help="write the one part all the same")
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="largest n of the solvers")
    given = parser.parse_args()
    only = given.only
    results = {}
    if only not in ("images", "solvers"):  # they keep the state of the machine by themselves
        results["machine"] = machine()
        print(page.described(results["machine"]))
    for name, part in PARTS.items():
        if only in (None, name):
            print(f"{name}: {part.__doc__}", flush=True)
            if name == "solvers":
                results["solvers machine"] = solving_machine()
                results[name] = part([n for n in SIZES if n <= given.largest])
            elif name == "images":
                results["images machine"] = machine()
                results[name] = part()
            else:
                results[name] = part()
    if only and not given.keep:
        return
    if only:
        results = json.loads(page.RESULTS.read_text(encoding="utf-8")) | results
    page.RESULTS.write_text(page.stored(results), encoding="utf-8")
    page.PAGE.write_text(page.render(results), encoding="utf-8")
    print(f"written: {page.RESULTS.relative_to(REPO)} and {page.PAGE.relative_to(REPO)}")
    verdicts = page.verdicts(results)
    for verdict in verdicts:
        print(verdict)
    if not all(verdict.holds for verdict in verdicts):
        raise SystemExit("what the page says does not hold here: see the lines marked ✗")


if __name__ == "__main__":
    main()

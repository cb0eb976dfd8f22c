"""Solvers of kernel regression by others: Falkon, EigenPro and GPyTorch.

    .venv-solvers/bin/python -m benchmarks.solvers        see ``worker`` for the protocol

All take the kernel exp(−‖x − y‖/LENGTH) and float32 points. GPyTorch solves the same equations as
``scale.regression``, by conjugate gradients with a pivoted Cholesky factor to help them. Falkon
(Rudi, Carratino and Rosasco 2017; Meanti et al. 2020) has coefficients for some points only, its
centres, and the same ridge. EigenPro (Ma and Belkin 2019) has no ridge: it is stopped early. A
process imports the one library that it measures.
"""

from collections.abc import Callable

import numpy as np
import torch

from benchmarks.worker import LENGTH, SHIFT, Solved, serve

__all__ = ["eigenpro", "falkon", "gpytorch_cg"]

Solver = Callable[[np.ndarray, np.ndarray], Solved]


def gpytorch_cg(*, rank: int, tolerance: float, rows: int) -> Solver:
    """GPyTorch's conjugate gradients: the kernel held, or so many ``rows`` at a time (0: held)."""
    import gpytorch
    from linear_operator import utils

    count, cg = 0, utils.linear_cg

    def counted(*arguments: object, **keywords: object) -> object:
        """The library's own, asked how often it takes the product."""
        product, *others = arguments

        def times(v: torch.Tensor) -> torch.Tensor:
            nonlocal count
            count += 1
            return product(v)

        return cg(times, *others, **keywords)

    utils.linear_cg = counted

    def solve(x: np.ndarray, targets: np.ndarray) -> Solved:
        nonlocal count
        count = 0
        kernel = gpytorch.kernels.MaternKernel(nu=0.5)
        kernel.lengthscale = LENGTH
        with (
            torch.no_grad(),
            gpytorch.settings.max_cholesky_size(0),
            gpytorch.settings.min_preconditioning_size(1),
            gpytorch.settings.max_preconditioner_size(rank),
            gpytorch.settings.cg_tolerance(tolerance),
            gpytorch.settings.max_cg_iterations(1000),
            gpytorch.beta_features.checkpoint_kernel(rows),
        ):
            matrix = kernel(torch.from_numpy(x)).evaluate_kernel()
            system = matrix.add_diagonal(torch.tensor([SHIFT]))
            alpha = system.solve(torch.from_numpy(targets)[:, None])[:, 0]
        return Solved(x, alpha.numpy(), count)

    return solve


def falkon(*, centres: int) -> Solver:
    """Falkon with so many centres, its own 20 steps, and its own products (not KeOps')."""
    from falkon import Falkon, FalkonOptions
    from falkon.kernels import LaplacianKernel

    def solve(x: np.ndarray, targets: np.ndarray) -> Solved:
        options = FalkonOptions(use_cpu=True, keops_active="no")
        kernel = LaplacianKernel(sigma=LENGTH, opt=options)
        model = Falkon(kernel, penalty=SHIFT / len(x), M=centres, seed=1806, options=options)
        model.fit(torch.from_numpy(x), torch.from_numpy(targets)[:, None])
        return Solved(model.ny_points_.numpy(), model.alpha_.numpy()[:, 0], model.maxiter)

    return solve


def eigenpro(*, epochs: int, gibibytes: int) -> Solver:
    """EigenPro's second version, stopped after so many epochs."""
    from eigenpro2.kernels import laplacian
    from eigenpro2.models import KernelModel

    def solve(x: np.ndarray, targets: np.ndarray) -> Solved:
        torch.manual_seed(1806)

        def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return laplacian(a, b, bandwidth=LENGTH)

        points, labels = torch.from_numpy(x), torch.from_numpy(targets)[:, None]
        model = KernelModel(kernel, points, 1, device="cpu")
        with torch.no_grad():
            model.fit(points, labels, epochs=epochs, mem_gb=gibibytes, run_epoch_eval=False)
        return Solved(x, model.weight.detach().numpy()[:, 0], epochs)

    return solve


if __name__ == "__main__":
    serve(
        {"falkon": falkon, "eigenpro": eigenpro, "gpytorch": gpytorch_cg},
        ["torch", "falkon", "eigenpro2", "gpytorch"],
    )

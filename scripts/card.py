"""The picture that a link to the book brings with it: book/assets/card.png.

    make card

Ten networks of width 128 and their limit, as in the first figure of the book, and its title.
"""

from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from ntk_lib.engine.any_size import kernels_of_any_size
from ntk_lib.limiting_ntk import ntk
from ntk_lib.wide_networks import circle

__all__ = ["CARD", "PIXELS", "draw"]

CARD = Path(__file__).parents[1] / "book" / "assets" / "card.png"
PIXELS = (1200, 630)  # what previews ask for


def draw(target: Path) -> None:
    angles = np.linspace(-np.pi, np.pi, 129)
    points, x0 = circle(angles), circle([0.0])
    size = {"width": 128, "depth": 3, "deepest": 3}
    kernels = kernels_of_any_size(points, key=jax.random.key(1), draws=10, **size)[:, :, 64]
    limit = ntk(points, x0, depth=3)[:, 0]
    fig = plt.figure(figsize=(PIXELS[0] / 100, PIXELS[1] / 100), dpi=100, facecolor="#0b4f7d")
    axes = fig.add_axes((0.06, 0.07, 0.88, 0.56))
    axes.plot(angles, kernels.T, color="white", linewidth=1.5, alpha=0.6)
    axes.plot(angles, limit, color="white", linewidth=6)
    axes.axis("off")
    fig.text(0.06, 0.77, "The Neural Tangent Kernel,\nInteractively", color="white", fontsize=44)
    fig.savefig(target, metadata={"Software": None})
    plt.close(fig)


if __name__ == "__main__":
    draw(CARD)
    print(f"{CARD.relative_to(CARD.parents[2])}: {CARD.stat().st_size / 1000:.0f} kB")

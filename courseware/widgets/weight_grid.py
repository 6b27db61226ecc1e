"""Draw attention weights, or a mask, as grids: a row for each query, a column for each key."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from courseware.widgets import figures

_FEW = 8  # up to so many keys, each weight is written into its cell


def weight_grid(
    weights: Tensor | Sequence[Tensor],
    tokens: Sequence[str],
    alt: str,
    titles: Sequence[str] = (),
    mask: Tensor | None = None,
) -> None:
    """Show one grid, or several side by side; viridis from 0 to 1, and cells that the mask forbids stay empty.

    weights: (T, T), or several of them. tokens: the T labels of rows and columns. titles: one for each grid. mask:
    (T, T), bool, True = may attend. Raises ValueError for a shape that does not fit the tokens.
    """
    import matplotlib.pyplot as plt

    grids = [weights] if isinstance(weights, Tensor) else list(weights)
    n_tokens = len(tokens)
    for grid in grids:
        if grid.shape != (n_tokens, n_tokens):
            raise ValueError(
                f"expected ({n_tokens}, {n_tokens}) weights for {n_tokens} tokens, got {tuple(grid.shape)}"
            )

    figures.style()
    side = min(3.6 if n_tokens <= 2 * _FEW else 5.2, figures.WIDTH / len(grids))
    fig, axes = plt.subplots(1, len(grids), figsize=(side * len(grids), side), squeeze=False)
    for number, (ax, grid) in enumerate(zip(axes[0], grids)):
        _draw(ax, grid.detach().float(), tokens, mask)
        if titles:
            ax.set_title(titles[number])
        ax.set_xlabel("key")
    axes[0][0].set_ylabel("query")
    figures.show(fig, alt)


def _draw(ax, grid: Tensor, tokens: Sequence[str], mask: Tensor | None) -> None:
    n_tokens = len(tokens)
    shown = grid if mask is None else grid.masked_fill(~mask, float("nan"))
    ax.pcolormesh(shown.numpy(), cmap=figures.ATTENTION_MAP, vmin=0, vmax=1)
    if n_tokens <= _FEW:
        for row in range(n_tokens):
            for column in range(n_tokens):
                weight = float(shown[row, column])
                if weight == weight:  # not empty
                    ink = "#111111" if weight > figures.LIGHT_WEIGHT else "#ffffff"
                    label = f"{weight:.2f}".replace("1.00", "1").replace("0.00", "0")
                    place = (column + 0.5, row + 0.5)
                    ax.text(*place, label, ha="center", va="center", color=ink)

    centres = [i + 0.5 for i in range(n_tokens)]
    ax.set_xticks(centres, tokens, rotation=90 if max(map(len, tokens)) > 3 else 0)
    ax.set_yticks(centres, tokens)
    ax.invert_yaxis()
    ax.set_aspect("equal")
    ax.grid(False)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)

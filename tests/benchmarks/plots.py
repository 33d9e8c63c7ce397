"""The plots of docs/benchmarks.md, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_SIZE = (7.0, 3.5)
_COLOUR = "#2f6f9f"
# The same figures give the same bytes: no date, no random ids.
plt.rcParams.update({"svg.hashsalt": "duckling", "svg.fonttype": "none", "axes.spines.top": False,
                     "axes.spines.right": False, "font.family": "sans-serif"})  # fmt: skip


def draw(samples: Mapping[str, Sequence[float]], folder: Path) -> list[Path]:
    """Draws what there are samples for, one file each in `folder`; returns the files.

    `freshness` is a list of ms; `batches` and `scattered` are pairs, flattened: a size, the rows/s at it.
    """
    folder.mkdir(exist_ok=True)
    drawn = []
    for name, plot in (("batches", _by_batch_size), ("scattered", _by_table_size), ("freshness", _freshness)):
        if samples.get(name):
            figure, axes = plt.subplots(figsize=_SIZE)
            plot(axes, samples[name])
            figure.tight_layout()
            drawn.append(folder / f"{name}.svg")
            figure.savefig(drawn[-1], metadata={"Date": None})
            plt.close(figure)
    return drawn


def _by_batch_size(axes: Axes, pairs: Sequence[float]) -> None:
    axes.plot(pairs[::2], [rate / 1000 for rate in pairs[1::2]], marker="o", color=_COLOUR)
    axes.set(xscale="log", xlabel="rows in a batch, at most", ylabel="thousand rows/s", ylim=(0, None))
    axes.set_title("Catching up, events of many rows", loc="left")


def _by_table_size(axes: Axes, pairs: Sequence[float]) -> None:
    labels = [f"{size:,.0f}" for size in pairs[::2]]
    axes.bar(labels, [rate / 1000 for rate in pairs[1::2]], width=0.5, color=_COLOUR)
    axes.set(xlabel="rows in the table", ylabel="thousand rows/s")
    axes.set_title("Updates by key, scattered over the whole table", loc="left")


def _freshness(axes: Axes, lags: Sequence[float]) -> None:
    axes.hist(lags, bins=40, color=_COLOUR)
    axes.set(xlabel="ms from the source's answer until a query shows the row", ylabel="inserts")
    axes.set_title("Freshness of a single insert, source idle", loc="left")

"""The plots: the front of speed and size, bits per byte by kind of text, the small-file curve.

Knows: matplotlib, rows. Does not know: where rows and pictures are kept.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks import report
from benchmarks.results import Row

OURS = "#d55e00"
THEIRS = "#555555"
COLORS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#f0e442",
    "#999999",
    "#6a3d9a",
)  # Okabe and Ito, and more
PLACES = (
    (6, 0),
    (6, 8),
    (6, -8),
    (-6, 0),
    (-6, 8),
    (-6, -8),
    (0, 11),
    (0, -11),
    (8, 16),
    (8, -16),
    (-8, 16),
    (-8, -16),
)
IN_BARS = ("gzip-9", "xz-9e", "zstd-22", "brotli-11", "bzip3-64", "7z-ppmd", "zpaq-5")

Groups = dict[str, list[Row]]


def save(figure: Figure | None, path: Path) -> list[Path]:
    """As PNG and SVG; nothing for no figure."""
    if figure is None:
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    for file in files:
        # without a date and with fixed ids the same rows give the same file
        metadata = {"Date": None} if file.suffix == ".svg" else None
        figure.savefig(file, dpi=150, bbox_inches="tight", metadata=metadata)
    plt.close(figure)
    return files


plt.rcParams.update(
    {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "lmcompress"}
)


def is_ours(name: str) -> bool:
    return name.startswith("lmcompress")


def put_labels(ax: Axes, points: list[tuple[float, float, str]]) -> None:
    """A name beside each point, where it covers no other name and no point."""
    renderer = ax.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    taken = []
    for x, y, _ in points:
        px, py = ax.transData.transform((x, y))
        taken.append((px - 6, py - 6, px + 6, py + 6))
    for x, y, name in points:
        color = OURS if is_ours(name) else THEIRS
        for dx, dy in PLACES:
            text = ax.annotate(
                name, (x, y), (dx, dy), textcoords="offset points", color=color, fontsize=8, va="center",
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            if not any(
                box.x0 < right and box.x1 > left and box.y0 < top and box.y1 > bottom
                for left, bottom, right, top in taken
            ):
                break
            if (dx, dy) != PLACES[-1]:
                text.remove()
        taken.append((box.x0, box.y0, box.x1, box.y1))


def front(groups: Groups) -> Figure:
    """Bits per byte against MB/s, both ways; hollow marks count the model or dictionary as part of what is coded."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 5.2), sharey=True)
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for ax, direction in zip(axes, ("encode", "decode"), strict=True):
        points, ours = [], []
        for name, rows in groups.items():
            rate, size = report.best_speed(rows, direction), report.bpb(rows)
            if rate is None:
                continue
            color = OURS if is_ours(name) else THEIRS
            points.append((rate, size, name))
            if is_ours(name):
                ours.append((name, rate, size))
            ax.plot(rate, size, "o", color=color, markersize=5)
            if rows[0].model_bytes:
                with_model = report.bpb(rows, model=True)
                ax.plot([rate, rate], [size, with_model], "-", color=color, linewidth=0.8, alpha=0.5)
                ax.plot(rate, with_model, "o", color=color, markersize=5, markerfacecolor="white")
        for threads in {name.partition(" ")[2] for name, _, _ in ours}:
            line = sorted(point for point in ours if point[0].partition(" ")[2] == threads)
            ax.plot([x for _, x, _ in line], [y for _, _, y in line], "-", color=OURS, linewidth=1, alpha=0.6)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(plain)
        ax.margins(x=0.16)
        ax.set_xlabel(f"{direction} MB/s")
        ax.grid(alpha=0.25, which="major")
        figure.canvas.draw()
        put_labels(ax, points)
    axes[0].set_ylabel("bits per byte (lower is better)")
    rows = next(iter(groups.values()), [])
    figure.suptitle(
        f"{len(rows)} files, {sum(row.bytes for row in rows) / 1e6:.1f} MB. Hollow: with the model or dictionary counted",
        y=0.98,
    )
    figure.tight_layout()
    return figure


def kinds(groups: Groups) -> Figure | None:
    """Bars of bits per byte for each kind of text."""
    names = [name for name in (*IN_BARS, "lmcompress-1", "lmcompress-5", "lmcompress-9") if name in groups]
    if not names:
        return None
    every = sorted({row.kind for name in names for row in groups[name]})
    figure, ax = plt.subplots(figsize=(10, 4.6))
    width = 0.84 / len(names)
    theirs = [name for name in names if not is_ours(name)]
    for i, name in enumerate(names):
        values = [report.bpb(row for row in groups[name] if row.kind == kind) for kind in every]
        if is_ours(name):
            color = ("#f3b489", "#e8873d", OURS)[min(i - len(theirs), 2)]
        else:
            shade = 0.82 - 0.6 * i / max(len(theirs) - 1, 1)
            color = (shade, shade, min(shade + 0.08, 1.0))  # type: ignore[assignment]
        ax.bar([k - 0.42 + (i + 0.5) * width for k in range(len(every))], values, width * 0.92, label=name, color=color)
    ax.set_xticks(range(len(every)), every)
    ax.set_ylabel("bits per byte (lower is better)")
    ax.grid(alpha=0.25, axis="y")
    ax.set_axisbelow(True)
    ax.legend(frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    figure.tight_layout()
    return figure


def small(groups: Groups) -> Figure:
    """Bits per byte against the size of the pieces that are coded by themselves."""
    figure, ax = plt.subplots(figsize=(7.5, 4.8))
    colors = iter(COLORS)
    ends = []
    for name, rows in groups.items():
        sizes = sorted({row.piece for row in rows} - {0})
        values = [report.mean_bpb(row for row in rows if row.piece == size) for size in sizes]
        color = OURS if is_ours(name) else next(colors, THEIRS)
        ax.plot(sizes, values, "o-", color=color, markersize=4, linewidth=1.4)
        ends.append((values[0], name, color))
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, [f"{size >> 10} KiB" for size in sizes])
    ax.minorticks_off()
    ax.set_xlim(sizes[0] / 4.5, sizes[-1] * 1.2)
    ax.set_ylim(0, 1.08 * max(value for value, _, _ in ends))
    ax.set_xlabel("size of a piece")
    ax.set_ylabel("bits per byte (lower is better)")
    ax.grid(alpha=0.25)
    low, step = 0.0, 0.045 * ax.get_ylim()[1]
    for value, name, color in sorted(ends):  # names at the left end, pushed apart upwards
        low = max(value, low + step)
        ax.annotate(
            name, (sizes[0], low), (-8, 0), textcoords="offset points", ha="right", va="center", color=color, fontsize=8,
            annotation_clip=False,
        )  # fmt: skip
    figure.tight_layout()
    return figure

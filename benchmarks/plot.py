"""The plots: the front of speed and size, bits per byte by kind of text, the small-file curve, where
the time goes.

Knows: matplotlib, rows. Does not know: where rows and pictures are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import Bbox

from benchmarks import codecs, report
from benchmarks.breakdown import PARTS, Breakdown
from benchmarks.results import Row
from lmcompress.methods import DEFAULT_LEVEL

POINT = 9  # points wide, of ours
OURS = "#d55e00"
THEIRS = "#555555"
COLORS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#8c6d31",
    "#999999",
    "#6a3d9a",
)  # Okabe and Ito, and more
PART_COLORS = ("#0072b2", "#56b4e9", "#009e73", "#b8d8e8", OURS, "#8c6d31", "#999999")
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
    (-8, 24),
    (-8, -24),
    (8, 24),
    (8, -24),
)
IN_BARS = ("gzip-9", "xz-9e", "zstd-22", "brotli-11", "bzip3-64", "7z-ppmd", "zpaq-5")
OUR_BARS = {"lmcompress-1": "#f3b489", "lmcompress-5": OURS, "lmcompress-6": "#8f3f00"}

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


@dataclass(frozen=True)
class Label:
    """What stands beside a point."""

    x: float
    y: float
    text: str
    color: str


def put_labels(ax: Axes, labels: list[Label], marks: list[tuple[float, float]]) -> None:
    """Each label where it is within the axes and covers neither a label nor a mark, if there is such a place near it."""
    renderer = ax.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame = ax.get_window_extent(renderer)
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in ax.transData.transform(marks)]
    for label in sorted(labels, key=lambda label: -label.x):
        for dx, dy in PLACES:
            text = ax.annotate(
                label.text, (label.x, label.y), (dx, dy), textcoords="offset points", color=label.color, fontsize=8,
                va="center", ha="left" if dx > 0 else "right" if dx < 0 else "center",
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            free = frame.x0 < box.x0 and box.x1 < frame.x1 and not any(box.overlaps(other) for other in taken)
            if free or (dx, dy) == PLACES[-1]:
                taken.append(box)
                if abs(dy) > 11:  # far: a line leads there
                    line = {"arrowstyle": "-", "color": label.color, "linewidth": 0.5}
                    ax.annotate("", (label.x, label.y), (dx, dy), textcoords="offset points", arrowprops=line)
                break
            text.remove()


def put_levels(ax: Axes, levels: list[Label]) -> list[Label]:
    """Each level in its point; of neighbours whose points cover one another the first and the last, as a label to put."""
    bunches: list[list[Label]] = []
    before = None
    for level, at in zip(levels, ax.transData.transform([(level.x, level.y) for level in levels]), strict=True):
        if before is not None and math.dist(before, at) < POINT * ax.figure.dpi / 72:
            bunches[-1].append(level)
        else:
            bunches.append([level])
        before = at
    for bunch in bunches:
        if len(bunch) == 1:
            ax.annotate(
                bunch[0].text, (bunch[0].x, bunch[0].y), color="white", fontsize=6, ha="center", va="center_baseline"
            )
    return [replace(bunch[-1], text=f"{bunch[0].text} to {bunch[-1].text}") for bunch in bunches if len(bunch) > 1]


def front(groups: Groups) -> Figure:
    """Bits per byte against MB/s, both ways; hollow marks count the dictionary as part of what is coded. Models, which ship with the program,
    are many times as large as what 18 files leave: the table counts them."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 5.2), sharey=True)
    most = max((name.partition(" ")[2] for name in groups if is_ours(name)), default="")
    for ax, direction in zip(axes, ("encode", "decode"), strict=True):
        labels, marks = [], []
        lines: dict[str, list[tuple[float, float, str]]] = {}  # ours, by threads
        for name, rows in groups.items():
            rate, size, with_model = report.best_speed(rows, direction), report.bpb(rows), report.bpb(rows, model=True)
            if rate is None:
                continue
            marks.append((rate, size))
            if is_ours(name):
                level, _, threads = name.partition(" ")
                if not codecs.find(level).threaded:
                    threads = most  # the same with any number
                lines.setdefault(threads, []).append((rate, size, level))
                continue
            labels.append(Label(rate, size, name, THEIRS))
            if with_model > size:
                marks.append((rate, with_model))
                ax.plot([rate, rate], [size, with_model], "-", color=THEIRS, linewidth=0.8, alpha=0.5)
                ax.plot(rate, with_model, "o", color=THEIRS, markersize=5, markerfacecolor="white")
            ax.plot(rate, size, "o", color=THEIRS, markersize=5)
        for threads, line in lines.items():
            line.sort(key=lambda point: point[2])
            rates, sizes, _ = zip(*line, strict=True)
            ax.plot(rates, sizes, "o-", color=OURS, markersize=POINT, markeredgecolor="white", linewidth=1.2)
            labels.append(Label(rates[0], sizes[0], f"lmcompress {threads}".strip(), OURS))
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.margins(x=0.1)
        ax.set_xlabel(f"{direction} MB/s")
        ax.grid(alpha=0.25, which="major")
        figure.canvas.draw()
        for line in lines.values():
            labels += put_levels(
                ax, [Label(rate, size, name.removeprefix("lmcompress-"), OURS) for rate, size, name in line]
            )
        put_labels(ax, labels, marks)
    axes[0].set_ylabel("bits per byte (lower is better)")
    rows = next(iter(groups.values()), [])
    total = sum(row.bytes for row in rows) / 1e6
    figure.suptitle(
        f"{len(rows)} files, {total:.1f} MB; models not counted; hollow: the dictionary counted; numbers: levels",
        y=0.98,
    )
    figure.tight_layout()
    return figure


def kinds(groups: Groups) -> Figure | None:
    """Bars of bits per byte for each kind of text."""
    codings = {rows[0].codec: rows for rows in groups.values()}  # the same with any number of threads
    names = [name for name in (*IN_BARS, *OUR_BARS) if name in codings]
    if not names:
        return None
    every = sorted({row.kind for name in names for row in codings[name]}, key=str.lower)
    figure, ax = plt.subplots(figsize=(10, 4.6))
    width = 0.84 / len(names)
    theirs = [name for name in names if not is_ours(name)]
    for i, name in enumerate(names):
        values = [report.bpb(row for row in codings[name] if row.kind == kind) for kind in every]
        shade = 0.82 - 0.6 * i / max(len(theirs) - 1, 1)
        color = OUR_BARS.get(name) or (shade, shade, min(shade + 0.08, 1.0))
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
    ax.set_xlim(sizes[0] / 6, sizes[-1] * 1.2)
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


def breakdown(rows: list[Breakdown]) -> Figure | None:
    """Stacked bars of the microseconds of a token; a mark where parts overlap and all of it takes less than their sum."""
    rows = [row for row in rows if row.level == DEFAULT_LEVEL]
    if not rows:
        return None
    rows.sort(key=lambda row: (row.bytes, row.file, row.direction, row.threads), reverse=True)
    figure, ax = plt.subplots(figsize=(9, 1.3 + 0.32 * len(rows)))
    at, names = 0.0, []
    for i, row in enumerate(rows):  # from below; some room between files
        at += 1.0 if i == 0 or row.sha256 == rows[i - 1].sha256 else 1.5
        names.append((at, f"{row.file}, {row.lanes} lane{'s' * (row.lanes > 1)}: {row.direction}, {threads_of(row)}"))
        left = 0.0
        for part, color in zip(PARTS, PART_COLORS, strict=True):
            width = 1e6 * getattr(row, part) / row.tokens
            ax.barh(at, width, 0.75, left, color=color, label=PARTS[part] if i == 0 else None)
            left += width
        elapsed = 1e6 * row.elapsed / row.tokens
        ax.plot([elapsed, elapsed], [at - 0.42, at + 0.42], "k-", linewidth=1.6, label="elapsed" if i == 0 else None)
    ax.set_yticks(*zip(*names, strict=True))
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"microseconds of a token (level {DEFAULT_LEVEL})")
    ax.set_ylim(0.3, at + 0.7)
    ax.grid(alpha=0.25, axis="x")
    ax.set_axisbelow(True)
    figure.tight_layout()
    figure.legend(
        *ax.get_legend_handles_labels(),
        frameon=False,
        ncols=4,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        fontsize=8,
    )
    return figure


def threads_of(row: Breakdown) -> str:
    return f"{row.threads} thread{'s' * (row.threads > 1)}"

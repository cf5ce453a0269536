"""All results -> tables in docs/BENCHMARKS.md, between its markers, and plots in docs/plots.

Knows: rows, Markdown, which figures belong side by side. Does not know: how anything was measured.
A total is given only for a codec that did all files of a set: sums over different files can't be compared.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import breakdown, kernels, results
from benchmarks.breakdown import Breakdown
from benchmarks.codecs import CODECS
from benchmarks.corpora import CORPORA
from benchmarks.results import R, Row
from lmcompress.methods import DEFAULT_LEVEL, LEVELS

DOCS = Path(__file__).parents[1] / "docs"
MAIN = (
    "gzip-9", "xz-9e", "zstd-22", "brotli-11", "bzip2-9", "bzip3-64", "7z-ppmd", "zpaq-5", "paq8px-8", "cmix",
    "lmcompress-1", "lmcompress-5", "lmcompress-6", "lmcompress-9",
)  # fmt: skip  # those in tables that have a column for each codec
COMMON = ("gzip-9", "bzip2-9", "xz-9e", "zstd-22", "brotli-11")  # of whose best on each file levels are a share
Table = list[list[str]]


def label(row: Row) -> str:
    return row.codec + (f" ({row.threads} threads)" if row.threads > 1 else "")


def collections() -> dict[str, dict[str, str]]:
    """Name of a set -> its files' SHA-256 -> names, as in the manifest."""
    manifest = json.loads((CORPORA / "manifest.json").read_text(encoding="utf-8"))
    return {
        name: {file["sha256"]: file["name"] for file in manifest[name]["files"]} for name in ("evaluation", "samples")
    }


def by_label(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(label(row), []).append(row)
    return found


def at_home(records: Sequence[R]) -> list[R]:
    home = results.home(records)
    return [record for record in records if record.processor == home]


def rows_at_home(rows: Sequence[Row]) -> list[Row]:
    """Of each study, the evaluation files apart, those of one processor. Sizes are the same on every one, though not of
    every version: those measured last on any."""
    last = {row.key()[1:]: row for row in sorted(rows, key=lambda row: row.date)}
    evaluation = collections()["evaluation"]
    groups: dict[tuple[str, bool], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.study, row.sha256 in evaluation), []).append(row)
    homes = {key: home(group) for key, group in groups.items()}
    return [
        replace(row, coded_bytes=found.coded_bytes, bpb=found.bpb, bpc=found.bpc, ok=row.ok and found.ok)
        for row in rows
        if row.processor == homes[row.study, row.sha256 in evaluation]
        for found in [last[row.key()[1:]]]
    ]


def home(rows: Sequence[Row]) -> str:
    """The processor on which most was measured of the versions that are the latest of their codecs."""
    latest = {row.codec: row.version for row in sorted(rows, key=lambda row: row.date)}
    return results.home(row for row in rows if row.version == latest[row.codec])


def complete(rows: Iterable[Row], count: int) -> dict[str, list[Row]]:
    """The rows of each codec that did `count` files and failed at none, best first."""
    sets = {
        name: group for name, group in by_label(rows).items() if len(group) == count and all(row.ok for row in group)
    }
    return dict(sorted(sets.items(), key=lambda item: bpb(item[1])))


def bpb(rows: Iterable[Row], model: bool = False) -> float:
    rows = list(rows)
    coded = sum(row.coded_bytes or 0 for row in rows) + (rows[0].model_bytes if model else 0)
    return 8 * coded / sum(row.bytes for row in rows)


def mean_bpb(rows: Iterable[Row]) -> float:
    """Every file counts the same, however many pieces were taken of it."""
    return statistics.mean(row.bpb or 0.0 for row in rows)


def speed(rows: Iterable[Row], what: str) -> float | None:
    """MB/s of all rows together, by the column `what`; None where one lacks it."""
    rows = list(rows)
    seconds = [getattr(row, what) for row in rows]
    if any(s is None for s in seconds) or not sum(seconds):
        return None
    return sum(row.bytes for row in rows) / sum(seconds) / 1e6


def best_speed(rows: list[Row], direction: str) -> float | None:
    return speed(rows, f"module_{direction}_s") or speed(rows, f"tool_{direction}_s")


def number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return ""
    if value >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def memory(rows: Iterable[Row], direction: str) -> str:
    peaks = [getattr(row, f"module_{direction}_memory") or getattr(row, f"tool_{direction}_memory") for row in rows]
    return f"{max(filter(None, peaks), default=0) / 1e6:,.0f}"


def summary_table(rows: list[Row], count: int) -> Table:
    table = [
        [
            "codec",
            "coded bytes",
            "bpb",
            "with model",
            "encode MB/s",
            "decode MB/s",
            "as command",
            "",
            "memory MB",
            "",
            "load",
        ],
        ["---", *["---:"] * 10],
    ]
    for name, group in complete(rows, count).items():
        speeds = [
            speed(group, f"{way}_{direction}_s") for way in ("module", "tool") for direction in ("encode", "decode")
        ]
        table.append(
            [
                name,
                f"{sum(row.coded_bytes or 0 for row in group):,}",
                f"{bpb(group):.4f}",
                f"{bpb(group, model=True):.4f}",
            ]
            + [number(value) for value in speeds]
            + [memory(group, direction) for direction in ("encode", "decode")]
            + [f"{max(row.load or 0 for row in group):.1f}"]
        )
    return table + duration(row for group in complete(rows, count).values() for row in group)


def duration(rows: Iterable[Row]) -> Table:
    """A line of text, where it is known of all rows."""
    rows = list(rows)
    if not rows or any(row.took is None for row in rows):
        return []

    def minutes(of: Iterable[Row]) -> str:
        return f"{sum(row.took or 0 for row in of) / 60:.1f}"

    usual = [row for row in rows if row.codec in CODECS and CODECS[row.codec].usual]
    named = (
        f", {minutes(usual)} of them those of the codecs that run when none is named" if len(usual) < len(rows) else ""
    )
    return [[], [f"All of these measurements took {minutes(rows)} minutes{named}."]]


def grid(
    rows: list[Row],
    across: list[str],
    down: list[str],
    place: Callable[[Row], tuple[str, str]],
    show: Callable[[list[Row]], str],
) -> Table:
    """A table of show(rows of a cell), one line for each of `down`; columns without any row are left out."""
    cells: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        cells.setdefault(place(row), []).append(row)
    across = [name for name in across if any((line, name) in cells for line in down)]
    table = [["", *across], ["---", *["---:"] * len(across)]]
    for line in down:
        group = [cells.get((line, name)) for name in across]
        if any(group):
            table.append([line, *(show(cell) if cell else "" for cell in group)])
    return table


def coded(rows: list[Row]) -> str:
    return f"{rows[0].coded_bytes:,}" if rows[0].ok else "failed"


def files_table(rows: list[Row], names: dict[str, str]) -> Table:
    sizes = {row.sha256: row.bytes for row in rows}
    lines = {sha256: f"{name} ({sizes[sha256]:,})" for sha256, name in names.items() if sha256 in sizes}
    return grid(rows, list(MAIN), list(lines.values()), lambda row: (lines[row.sha256], row.codec), coded)


def results_table(rows: list[Row], names: dict[str, str]) -> Table:
    """The README's: a few codecs, every file."""
    titles = {"xz-9e": "xz -9e", "zstd-22": "zstd --ultra -22", "brotli-11": "brotli -q 11", "7z-ppmd": "7z PPMd"}
    titles |= {"zpaq-5": "zpaq -m5", "lmcompress-1": "lmcompress -1"}
    titles |= {"lmcompress-5": "lmcompress -5", f"lmcompress-{DEFAULT_LEVEL}": "lmcompress"}
    kept = [row for row in rows if row.codec in titles]
    sizes = {row.sha256: f"{names[row.sha256]} ({row.bytes:,})" for row in kept}
    lines = [sizes[sha256] for sha256 in names if sha256 in sizes]
    return grid(kept, list(titles.values()), lines, lambda row: (sizes[row.sha256], titles[row.codec]), coded)


def levels_table(rows: list[Row], count: int) -> Table:
    """The README's: lmcompress at every level that did `count` files, with most threads; none if COMMON did not."""
    groups = complete(rows, count)
    if not groups.keys() >= set(COMMON):
        return []
    best: dict[str, int] = {}
    for row in (row for name in COMMON for row in groups[name]):
        best[row.sha256] = min(best.get(row.sha256, row.coded_bytes or 0), row.coded_bytes or 0)
    xz = sum(row.coded_bytes or 0 for row in groups["xz-9e"])
    table = [["level", "network", "of xz -9e", "of the best of five", "threads", "KB/s in", "out", "MB in", "out"]]
    table.append(["---:", "---", *["---:"] * 7])
    for level, point in LEVELS.items():
        found = [group for group in groups.values() if group[0].codec == f"lmcompress-{level}"]
        for group in sorted(found, key=lambda group: group[0].threads)[-1:]:
            share = sum(row.coded_bytes or 0 for row in group) / xz
            mean = statistics.geometric_mean((row.coded_bytes or 0) / best[row.sha256] for row in group)
            speeds = (best_speed(group, direction) for direction in ("encode", "decode"))
            table.append(
                [
                    f"-{level}",
                    point.model if point.network else "",
                    f"{share:.3f}",
                    f"{mean:.4f}",
                    str(group[0].threads),
                ]
                + ["" if value is None else f"{1000 * value:,.0f}" for value in speeds]
                + [memory(group, direction) for direction in ("encode", "decode")]
            )
    return table


def kinds_table(rows: list[Row], count: int) -> Table:
    groups = complete(rows, count)
    kept = [row for group in groups.values() for row in group]
    kinds = sorted({row.kind for row in kept})
    return grid(kept, kinds, list(groups), lambda row: (label(row), row.kind), lambda cell: f"{bpb(cell):.3f}")


def characters_table(rows: list[Row], names: dict[str, str]) -> Table:
    wide = [row for row in rows if row.ok and row.chars and row.chars < 0.97 * row.bytes]
    files = [name for sha256, name in names.items()]
    return grid(wide, list(MAIN), files, lambda row: (names[row.sha256], row.codec), lambda cell: f"{cell[0].bpc:.3f}")


def processors_table(rows: list[Row], count: int) -> Table:
    """The codecs that did `count` files on several processors, that of the other tables first."""
    table = [["codec", "on", "coded bytes", "encode MB/s", "decode MB/s", "memory MB", "", "load"]]
    table.append(["---", "---", *["---:"] * 6])
    first = home(rows)
    names = sorted({row.processor for row in rows}, key=lambda name: (name != first, name))
    sets = {name: complete((row for row in rows if row.processor == name), count) for name in names}
    for codec in sets.get(first, {}):
        groups = {name: group[codec] for name, group in sets.items() if codec in group}
        for name, group in groups.items() if len(groups) > 1 else ():
            table.append(
                [codec, name, f"{sum(row.coded_bytes or 0 for row in group):,}"]
                + [number(speed(group, f"module_{direction}_s")) for direction in ("encode", "decode")]
                + [memory(group, direction) for direction in ("encode", "decode")]
                + [f"{max(row.load or 0 for row in group):.1f}"]
            )
    return table


def small_table(rows: list[Row]) -> Table:
    kept = small_rows(rows)
    titles = {size: f"{size >> 10} KiB" for size in sorted({row.piece for row in kept} - {0})} | {0: "whole"}
    names = list(dict.fromkeys(sorted((label(row) for row in kept), key=rank)))
    table = grid(
        kept,
        list(titles.values()),
        names,
        lambda row: (label(row), titles[row.piece]),
        lambda cell: f"{mean_bpb(cell):.3f}",
    )
    return table + duration(row for row in kept if row.piece)


def small_rows(rows: list[Row]) -> list[Row]:
    """Of the files that are longer than the largest piece: study "small" of the codecs that did them all, and those of them that
    did them all in study "files"."""
    pieces = [row for row in rows if row.study == "small"]
    largest = max((row.piece for row in pieces), default=0)
    files = {row.sha256 for row in pieces if row.piece == largest}
    pieces = [row for row in pieces if row.sha256 in files]
    groups = complete(pieces, len({(row.sha256, row.piece) for row in pieces}))
    whole = [row for row in rows if row.study == "files" and row.sha256 in files and label(row) in groups]
    return [row for found in (groups, complete(whole, len(files))) for group in found.values() for row in group]


def rank(name: str) -> int:
    base = name.split(" ")[0]
    return MAIN.index(base) if base in MAIN else len(MAIN)


def scaling_table(rows: list[Row]) -> Table:
    table = [
        ["codec", "bytes", "coded", "encode s", "decode s", "as command", "", "memory MB", ""],
        ["---", *["---:"] * 8],
    ]
    for name, group in by_label(row for row in rows if row.ok).items():
        for row in sorted(group, key=lambda row: row.bytes):
            seconds = (row.module_encode_s, row.module_decode_s, row.tool_encode_s, row.tool_decode_s)
            table.append(
                [name, f"{row.bytes:,}", f"{row.coded_bytes:,}", *(number(s) for s in seconds)]
                + [memory([row], direction) for direction in ("encode", "decode")]
            )
    return table + duration(rows)


def machine_table(rows: list[Row]) -> Table:
    table = [["measured", "on", "commits", "load"], ["---"] * 4]
    for machine in dict.fromkeys(row.machine for row in rows):
        group = [row for row in rows if row.machine == machine]
        dates = sorted({row.date[:10] for row in group})
        loads = [row.load for row in group if row.load is not None]
        load = f"{min(loads):.1f} to {max(loads):.1f}" if loads else ""
        span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        table.append([span, machine, ", ".join(sorted({row.commit for row in group})), load])
    versions = sorted({f"{row.codec} {row.version}" for row in rows}, key=str.lower)
    lines: Table = [*table, [], ["Versions: " + "; ".join(versions) + "."]]
    if crowded := sorted({f"{label(row)} in {row.study}" for row in rows if under_load(row)}):
        lines += [[], [f"Some rows under load, so that their speeds are too low: {', '.join(crowded)}."]]
    return lines


def under_load(row: Row) -> bool:
    """Whether clearly more processes wanted to run than the machine and the codec's own threads account for."""
    cores = re.search(r"(\d+) cores", row.machine)
    return cores is not None and (row.load or 0) > int(cores[1]) + 1


def markdown(table: Table) -> str:
    """Lines of several cells are a table's, of one cell or none are text's."""
    return "\n".join("| " + " | ".join(line) + " |" if len(line) > 1 else "".join(line) for line in table)


def tables(rows: list[Row]) -> dict[str, Table]:
    """Those of codecs and files, speeds and memory on one processor but for the first and the second."""
    found = {"machine": machine_table(rows)}
    evaluation = collections()["evaluation"]
    found["processors"] = processors_table(
        [row for row in rows if row.study == "files" and row.sha256 in evaluation], len(evaluation)
    )
    rows = rows_at_home(rows)
    for name, names in collections().items():
        group = [row for row in rows if row.study == "files" and row.sha256 in names]
        if group:
            found[name] = summary_table(group, len(names))
            found[f"{name}-results"] = results_table(group, names)
            found[f"{name}-levels"] = levels_table(group, len(names))
            found[f"{name}-files"] = files_table(group, names)
            found[f"{name}-kinds"] = kinds_table(group, len(names))
            found[f"{name}-characters"] = characters_table(group, names)
    found["small"] = small_table(rows)
    found["scaling"] = scaling_table([row for row in rows if row.study == "scaling"])
    failed = [row for row in rows if not row.ok]
    if failed:
        found["machine"] += [
            [],
            [f"Failed: {'; '.join(f'{label(row)} on {row.file}: {row.error}' for row in failed)}."],
        ]
    return found


def insert(text: str, found: dict[str, Table]) -> str:
    """`text` with what stands between the markers of each table replaced by it, if that has any lines."""

    def replace(match: re.Match[str]) -> str:
        table = found.get(match[1])
        return (
            match[0]
            if table is None or len(table) <= 2
            else f"<!-- table {match[1]} -->\n{markdown(table)}\n\n<!-- end -->"
        )

    return re.sub(r"<!-- table ([\w-]+) -->\n.*?<!-- end -->", replace, text, flags=re.DOTALL)


def write(plots: bool = True, folder: Path = results.RESULTS, docs: Path = DOCS) -> list[Path]:
    """The files written."""
    rows, breakdowns = results.read_all(Row, folder), results.read_all(Breakdown, folder)
    found = tables(rows) | {
        "time": breakdown.table(breakdowns),
        "kernels": kernels.products_table(results.read_all(kernels.Product, folder)),
        "steps": kernels.steps_table(results.read_all(kernels.Step, folder)),
    }
    written = [docs / "BENCHMARKS.md", docs.parent / "README.md"]
    for page in written:
        page.write_text(insert(page.read_text(encoding="utf-8"), found), encoding="utf-8")
    if plots:
        from benchmarks import plot

        rows, breakdowns = rows_at_home(rows), at_home(breakdowns)
        sets = collections()
        measured = {name: [r for r in rows if r.study == "files" and r.sha256 in names] for name, names in sets.items()}
        name = "evaluation" if measured["evaluation"] else "samples"
        groups = complete(measured[name], len(sets[name]))
        small = small_rows(rows)
        for title, draw in (
            ("front", lambda: plot.front(groups)),
            ("kinds", lambda: plot.kinds(groups)),
            ("small", lambda: plot.small(by_label(small)) if small else None),
            ("time", lambda: plot.breakdown(breakdowns)),
        ):
            written += plot.save(draw(), docs / "plots" / title)
    return written

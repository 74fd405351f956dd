"""Figures as Markdown tables and as one picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Parts = dict[str, dict[str, Any]]

RIVAL = "rival "
"""Before the name of each server that ours is compared with."""
TARGETS = {"of_raw": 0.95, "overhead": 0.001, "goodput": 0.9, "refusal": 0.005, "over_rivals": 2.0}


def tables(parts: Parts) -> str:
    """What there is, a section each."""
    makers = {
        "throughput": _throughput,
        "batching": _batching,
        "overload": _overload,
        "health": _health,
        "event-loops": _event_loops,
    }
    sections = [maker(parts[name]) for name, maker in makers.items() if name in parts]
    rivals = {name.removeprefix(RIVAL): part for name, part in parts.items() if name.startswith(RIVAL)}
    return "\n\n".join(sections + ([_rivals(rivals)] if rivals else []))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds * 1e3:.2f}" if seconds < 0.1 else f"{seconds * 1e3:,.0f}"


def _throughput(part: dict[str, Any]) -> str:
    header = [
        "images", "in flight", "images/s", "of raw, same size", "of raw, 64 a run", "p50 (ms)", "p95", "p99",
        "echo p50: asyncio", "sync", "echoes/s: asyncio", "sync", "failures",
    ]  # fmt: skip
    rows = [
        [
            str(cell["rows"]),
            str(cell["in_flight"]),
            f"{cell['images_per_second']:,.0f}",
            f"{cell['over_raw']:.2f}",
            f"{cell['over_raw_largest']:.2f}",
            *(_milliseconds(cell["latency"][name]) for name in ("p50", "p95", "p99")),
            *(_milliseconds(cell["echo_p50"][name]) for name in ("asyncio", "sync")),
            *(f"{cell['echoes_per_second'][name]:,.0f}" for name in ("asyncio", "sync")),
            str(cell["failures"]),
        ]
        for cell in part["cells"]
    ]
    overheads = [
        f"{_images(cell['rows'])} {_milliseconds(cell['overhead'])} ms"
        for cell in part["cells"]
        if cell["in_flight"] == 1
    ]
    largest = [cell for cell in part["cells"] if cell["rows"] == max(each["rows"] for each in part["cells"])]
    best = max(largest, key=lambda cell: cell["over_raw"])
    return "\n\n".join(
        [
            _table(header, rows),
            f"Requests of {best['rows']}: {best['over_raw']:.2f} of raw at best, at {best['in_flight']} in flight "
            f"(aim {TARGETS['of_raw']}). Beyond a run, at one in flight, p50: {', '.join(overheads)} "
            f"(aim {_milliseconds(TARGETS['overhead'])} ms).",
        ]
    )


def _batching(part: dict[str, Any]) -> str:
    rates = {
        name: statistics.median(turn[name]["answered_per_second"] for turn in part["rounds"])
        for name in ("batched", "unbatched")
    }
    return (
        f"Single-image requests at 32 in flight: {rates['batched']:,.0f} images/s batched, {rates['unbatched']:,.0f} "
        f"with one row a run: {part['batched_over_unbatched']:.2f} times as many."
    )


def _overload(part: dict[str, Any]) -> str:
    during, memory = part["during"], [size / 2**20 for _, size in part["memory"]]
    failures = ", ".join(f"{count} {name}" for name, count in during["failures"].items()) or "none"
    return "\n".join(
        [
            f"Offered {part['offered_over_capacity']:.1f} times the capacity, {during['offered_per_second']:,.0f} "
            f"requests of 64 a second, for {during['seconds']:.0f} s:",
            "",
            _table(
                ["", "", "aim"],
                [
                    ["goodput over capacity", f"{part['goodput_share']:.2f}", f"{TARGETS['goodput']}"],
                    ["refusal, p50 (ms)", _milliseconds(during["refused"]["p50"]), ""],
                    ["refusal, p99 (ms)", _milliseconds(during["refused"]["p99"]), _milliseconds(TARGETS["refusal"])],
                    ["not answered", failures, ""],
                    ["resident memory, at first, most, at last (MiB)", _memory(memory), "flat"],
                ],
            ),
        ]
    )


def _memory(memory: Sequence[float]) -> str:
    return f"{memory[0]:.0f}, {max(memory):.0f}, {memory[-1]:.0f}" if memory else "–"


def _health(part: dict[str, Any]) -> str:
    names = {"idle": "idle", "busy": "256 requests of 64 images waiting"}
    rows = [
        [
            title,
            *(_milliseconds(part[name]["latency"][quantile]) for quantile in ("p50", "p99", "max")),
            str(part[name]["answered"]),
            str(sum(part[name]["failures"].values())),
        ]
        for name, title in names.items()
    ]
    return _table(["health check", "p50 (ms)", "p99", "longest", "answered", "failures"], rows)


def _event_loops(part: dict[str, Any]) -> str:
    rows = []
    for kind, found in part["medians"].items():
        rows.append(
            [
                {"sync": "threads (32)", "asyncio": "asyncio", "uvloop": "asyncio on uvloop"}[kind],
                _milliseconds(found["echo_p50"]),
                *(f"{rate:,.0f}" for rate in found["echoes_per_second"].values()),
                *(_milliseconds(found["beside"][name]) for name in ("p50", "p99", "max")),
                str(found["failures"]),
            ]
        )
    header = [
        "gRPC server", "echo p50 (ms)", "echoes/s: 1 in flight", "32", "256",
        "echo beside 256 waiting: p50 (ms)", "p99", "longest", "failures",
    ]  # fmt: skip
    return "\n\n".join([_table(header, rows), *(f"{name}: {why}" for name, why in part["missing"].items())])


def _rivals(rivals: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, part in rivals.items():
        if "not_run" in part:
            rows.append([name, "", f"not run: {part['not_run']}", "", "", "", ""])
            continue
        rows.append(
            [
                name,
                part.get("versions", {}).get(part.get("package"), ""),
                part["configuration"] + _settings(part),
                f"{_rate(part, 'theirs'):,.0f}",
                f"{_rate(part, 'ours'):,.0f}",
                f"**{part['ours_over_theirs']:.2f}**",
                str(sum(_failures(turn) for turn in part["rounds"])),
            ]
        )
    ran = {name: part for name, part in rivals.items() if "package" in part and "not_run" not in part}
    lines = [_table(["", "version", "configuration", "images/s", "ours beside it", "ours over it", "failures"], rows)]
    if ran:
        closest = min(ran, key=lambda name: ran[name]["ours_over_theirs"])
        ratio = ran[closest]["ours_over_theirs"]
        lines.append(f"Over the best of them, {closest}: {ratio:.2f} (aim {TARGETS['over_rivals']:g}).")
    return "\n\n".join(lines)


def _settings(part: dict[str, Any]) -> str:
    chosen = ", ".join(f"{name}={value}" for name, value in part.get("settings", {}).items())
    return f" ({chosen}, the best of {len(part['trials'])})" if chosen else ""


def _failures(turn: dict[str, Any]) -> int:
    return sum(sum(turn[side]["failures"].values()) for side in ("ours", "theirs"))


def _rate(part: dict[str, Any], side: str) -> float:
    return statistics.median(turn[side]["answered_per_second"] for turn in part["rounds"])


def plot(parts: Parts, path: Path) -> None:
    """Four panels: throughput over raw, latency, overload over time, and the other servers."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, ((of_raw, latency), (overload, rivals)) = pyplot.subplots(2, 2, figsize=(10, 7), layout="constrained")
    _plot_throughput(parts.get("throughput"), of_raw, latency)
    _plot_overload(parts.get("overload"), overload)
    _plot_rivals({name: part for name, part in parts.items() if name.startswith(RIVAL)}, rivals)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _plot_throughput(part: dict[str, Any] | None, of_raw: Any, latency: Any) -> None:
    of_raw.set(xscale="log", xlabel="requests in flight", ylabel="served over raw, 64 a run", ylim=(0, 1.1))
    latency.set(xscale="log", yscale="log", xlabel="requests in flight", ylabel="latency (ms)")
    of_raw.axhline(TARGETS["of_raw"], color="grey", linewidth=0.8, linestyle=":")
    of_raw.set_title("Throughput")
    latency.set_title("Latency: p50, to p99; dotted an echo")
    if part is None:
        return
    for position, size in enumerate(sorted({cell["rows"] for cell in part["cells"]})):
        cells = [cell for cell in part["cells"] if cell["rows"] == size]
        calls, colour = [cell["in_flight"] for cell in cells], f"C{position}"
        of_raw.plot(calls, [cell["over_raw_largest"] for cell in cells], "o-", color=colour, label=_images(size))
        low, high = ([_thousandfold(cell["latency"][name]) for cell in cells] for name in ("p50", "p99"))
        latency.plot(calls, low, "o-", color=colour, label=_images(size))
        latency.fill_between(calls, low, high, color=colour, alpha=0.15)
        floor = [_thousandfold(cell["echo_p50"]["asyncio"]) for cell in cells]
        latency.plot(calls, floor, ":", color=colour)
    ticks = sorted({cell["in_flight"] for cell in part["cells"]})
    for axes in (of_raw, latency):
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.legend(fontsize=8)


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _thousandfold(seconds: float | None) -> float:
    return float("nan") if seconds is None else seconds * 1e3


def _plot_overload(part: dict[str, Any] | None, axes: Any) -> None:
    axes.set(xlabel="seconds", ylabel="requests answered a second")
    axes.set_title("Ten times the capacity offered")
    if part is None:
        return
    answered = part["during"]["answered_in_second"]
    axes.step(range(len(answered) + 1), [*answered, answered[-1]], where="post", label="answered")
    capacity = statistics.mean(part[name]["answered_per_second"] for name in ("before", "after"))
    axes.axhline(capacity, color="grey", linewidth=0.8, linestyle=":", label="capacity")
    axes.set_ylim(0, 1.3 * max(capacity, *answered))
    memory = axes.twinx()
    seconds, sizes = zip(*part["memory"], strict=True) if part["memory"] else ((), ())
    memory.plot(seconds, [size / 2**20 for size in sizes], color="C3", label="resident memory")
    memory.set(ylabel="MiB", ylim=(0, 1.6 * max((size / 2**20 for size in sizes), default=1)))
    lines = [*axes.get_lines(), *memory.get_lines()]
    axes.legend(lines, [line.get_label() for line in lines], fontsize=8, loc="lower right")


def _plot_rivals(parts: Parts, axes: Any) -> None:
    axes.set(ylabel="single images a second, 32 in flight")
    axes.set_title("The same file behind other servers")
    shown = {name.removeprefix(RIVAL): part for name, part in parts.items() if "not_run" not in part}
    for position, part in enumerate(shown.values()):
        for shift, side, colour in ((-0.2, "ours", "C0"), (0.2, "theirs", "C1")):
            axes.bar(position + shift, _rate(part, side), 0.38, color=colour, label=side if position == 0 else None)
    axes.set_xticks(range(len(shown)), list(shown), fontsize=8)
    if shown:
        axes.legend(fontsize=8)

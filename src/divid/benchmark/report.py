"""The report of a benchmark or an ablation, made of whatever cells are done.

benchmark.json   every number
benchmark.md     tables, with the pictures beside it
benchmark.html   the same in one file
swaps-DATA.png   rows source, target, then each method
training-DATA.png
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from divid.benchmark.ablation import Variant
from divid.benchmark.cells import BenchmarkFolder
from divid.benchmark.figures import plot_training, swap_figure
from divid.benchmark.locks import try_lock
from divid.benchmark.numbers import ACCURACIES, CLASS_SCORES, RECONSTRUCTION, UNSEEN_MEASURE, collect
from divid.benchmark.pages import Block, Heading, Links, Paragraph, Picture, Table, to_html, to_markdown
from divid.benchmark.plan import CellSpec, Plan
from divid.benchmark.summaries import Measured
from divid.evaluation.leakage import DIRECTIONS
from divid.json_files import write_json
from divid.outputs import atomic_path, write_image

REPORT_NAME = "benchmark"
MARK = "†"
"""Beside whatever a judge said that is not to be trusted."""
NOTHING = "–"
POLL_SECONDS = 0.2


def write_report(
    plan: Plan, cells: Sequence[CellSpec], folder: BenchmarkFolder, variants: Mapping[str, Variant] | None = None
) -> Path:
    """Write the report of all cells that are done.

    Several processes may end at once: they write one after the other, and each reads the results afresh, so the last one's is
    whole.

    Args:
        plan: What was asked for.
        cells: All its cells.
        folder: Where they are.
        variants: Of an ablation.

    Returns:
        The Markdown file.

    Raises:
        InputError: A result is damaged.
        OutputError: A file cannot be written.
    """
    while (lock := try_lock(folder.path / "report.lock")) is None:
        time.sleep(POLL_SECONDS)
    with lock:
        report = collect(plan, cells, folder, variants)
        pictures = {name: _draw(plan, name, cells, folder) for name in plan.data}
        blocks = report_blocks(report, pictures)
        write_json(folder.path / f"{REPORT_NAME}.json", report)
        for ending, text in ((".md", to_markdown(blocks)), (".html", to_html(blocks))):
            with atomic_path(folder.path / f"{REPORT_NAME}{ending}") as temporary:
                temporary.write_text(text, encoding="utf-8")
    return folder.path / f"{REPORT_NAME}.md"


def report_blocks(report: Mapping[str, Any], pictures: Mapping[str, Sequence[Picture]]) -> list[Block]:
    """Lay out the page.

    Args:
        report: From `collect`.
        pictures: By data set.
    """
    states = [cell["state"] for cell in report["cells"].values()]
    seeds = ", ".join(map(str, report["plan"]["seeds"]))
    blocks: list[Block] = [
        Heading("Ablation" if report["kind"] == "ablation" else "Benchmark", 1),
        Paragraph(f"{states.count('done')} of {len(states)} cells are done. Seeds {seeds}."),
        Paragraph(_legend(report)),
    ]
    for name, data in report["data"].items():
        blocks += [Heading(name), *_data_blocks(data, report["kind"] == "ablation"), *pictures.get(name, ())]
        blocks += [*_class_blocks(data), *_failure_blocks(report, name)]
    blocks += [Heading("Cells"), _cell_table(report), Heading("How it was made"), *_provenance_blocks(report)]
    return blocks


def _legend(report: Mapping[str, Any]) -> str:
    seeds = "; ± the standard deviation over the seeds" if len(report["plan"]["seeds"]) > 1 else ""
    return (
        "Accuracies in percent, mean over the seeds, in brackets the 95 % interval (over test clips and, with several seeds, "
        f"over seeds){seeds}. A swap is A's appearance doing B's motion: static, who the judge sees is A; dynamic, what it sees "
        "done is B's; joint, both; N, swaps of each seed. Reconstructed: both right in clips made from their own codes."
    )


def _data_blocks(data: Mapping[str, Any], is_ablation: bool) -> list[Block]:
    blocks: list[Block] = [Paragraph(_judge_line(data["judge"]))]
    if not data["methods"]:
        return [*blocks, Paragraph("No cell is done yet.")]
    if is_ablation:
        blocks += [Heading("What each bias is worth", 3), Paragraph(_WORTH_TEXT), _worth_table(data)]
    blocks += [Heading("Swaps", 3), _main_table(data)]
    if data.get("differences"):
        blocks += [Heading("Differences", 3), Paragraph(_DIFFERENCE_TEXT), _difference_table(data)]
    if data["leakage_chance"]:
        blocks += [Heading("Leakage", 3), Paragraph(_LEAKAGE_TEXT), _leakage_table(data)]
    blocks += [Heading("Sizes and speeds", 3), _cost_table(data)]
    if data["feature_network"]:
        text = _LIKENESS_TEXT.format(network=data["feature_network"])
        blocks += [Heading("Likeness", 3), Paragraph(text), _plain_table(data, _LIKENESS)]
    if data.get("ground_truth_pairs"):
        text = _GROUND_TRUTH_TEXT.format(num=data["ground_truth_pairs"])
        blocks += [Heading("Ground truth", 3), Paragraph(text), _plain_table(data, _GROUND_TRUTH)]
    if data["sampled_notes"]:
        notes = map(Paragraph, data["sampled_notes"])
        blocks += [Heading("Sampled tokens", 3), _plain_table(data, _SAMPLED, _mark(data)), *notes]
    return blocks + [Paragraph(note) for note in data["notes"]]


def _class_blocks(data: Mapping[str, Any]) -> list[Block]:
    """Lay out for each factor how the methods fare by the class that is wanted."""
    kinds = {name: factor["kind"] for method in data["methods"].values() for name, factor in method["factors"].items()}
    tables = [_class_table(data, name, kind) for name, kind in kinds.items()]
    return [Heading("Swaps by class", 3), Paragraph(_CLASS_TEXT), *tables] if tables else []


def _class_table(data: Mapping[str, Any], name: str, kind: str) -> Table:
    methods = data["methods"].values()
    factors = [method["factors"].get(name, {"kept": None, "classes": {}}) for method in methods]
    wanted = dict.fromkeys(label for factor in factors for label in factor["classes"])
    lines = {"all": [factor["kept"] for factor in factors]}
    lines |= {label: [factor["classes"].get(label) for factor in factors] for label in wanted}
    rows = [
        [label, next(str(share["num"]) for share in shares if share), *(_summary(share, 100, 1) for share in shares)]
        for label, shares in lines.items()
    ]
    return Table([f"{name} ({kind})", "N", *(method["label"] + _mark(data) for method in methods)], rows)


def _failure_blocks(report: Mapping[str, Any], data: str) -> list[Block]:
    """Link the pictures of failed swaps of a data set's cells."""
    methods = report["data"][data]["methods"]
    paths = {
        f"{methods[cell['method']]['label']}, seed {cell['seed']}": cell["failed_swaps"]
        for cell in report["cells"].values()
        if cell["data"] == data and cell.get("failed_swaps")
    }
    return [Heading("Failed swaps", 3), Links(_FAILURE_TEXT, paths)] if paths else []


def _judge_line(judge: Mapping[str, Any] | None) -> str:
    if judge is None:
        return "The judge is not trained yet."
    if judge["held_out"] is None:
        return f"Judge {judge['architecture']}: not measured. {MARK} It is not to be trusted."
    joint = judge["held_out"]["joint"]
    text = f"Judge {judge['architecture']}: {_rate(joint)} % joint on {joint['num']} held-out real clips"
    parts = ", ".join(f"{name} {100 * judge['held_out'][name]['rate']:.1f} %" for name in ("static", "dynamic"))
    doubt = "" if judge["is_trusted"] else f" {MARK} Under {100 * judge['least']:.0f} %: it is not to be trusted."
    return f"{text} ({parts}).{doubt}"


def _mark(data: Mapping[str, Any]) -> str:
    return "" if data["judge"] is None or data["judge"]["is_trusted"] else f" {MARK}"


def _main_table(data: Mapping[str, Any]) -> Table:
    mark = _mark(data)
    has_unseen = any(UNSEEN_MEASURE in method["measures"] for method in data["methods"].values())
    shown = [*ACCURACIES, *([UNSEEN_MEASURE] if has_unseen else []), RECONSTRUCTION]
    rows = []
    for method in data["methods"].values():
        cells = [_summary(method["measures"].get(name), 100, 1) for name in shown]
        rows.append([method["label"] + mark, str(method["num_pairs"]), *cells, _summary(method["measures"]["psnr_db"], 1, 2)])
    for name, row in data["controls"].items():
        cells = [_rate(row[part]) if part in ACCURACIES else NOTHING for part in shown]
        rows.append([name + mark, str(row["joint"]["num"]), *cells, NOTHING])
    cells = [f"{100 * data['chance'][name]:.1f}" if name in data["chance"] else NOTHING for name in shown]
    rows.append(["chance", NOTHING, *cells, NOTHING])
    rows.append(["best still picture", NOTHING, *[NOTHING] * len(shown), f"{data['still_psnr_db']:.2f}"])
    return Table(["", "N", *shown, "PSNR dB"], rows)


def _leakage_table(data: Mapping[str, Any]) -> Table:
    shown = {"leakage": "leakage", "normalised leakage": "normalised", "strict leakage": "strict"} | {d: d for d in DIRECTIONS}
    rows = []
    for method in data["methods"].values():
        rows.append([method["label"], *(_summary(method["measures"].get(name), 100, 1) for name in shown)])
    chance = data["leakage_chance"]
    rows.append(["chance", *(f"{100 * chance[name]:.1f}" if name in chance else NOTHING for name in shown)])
    return Table(["", *shown.values()], rows)


def _cost_table(data: Mapping[str, Any]) -> Table:
    rows = []
    for method in data["methods"].values():
        sampling = method["sampling"]
        steps = "one pass" if sampling.get("is_one_pass") else f"{sampling['solver']}, {sampling['num_inference_steps']} steps"
        how = f"{steps}, {sampling['clips_at_once']} clips at once"
        trained = NOTHING if method["model_of"] else f"{method['training_seconds'] / 60:.1f} min"
        speed = [f"{1000 * method['sampling_seconds_per_clip']:.0f}", f"{method['sampling_frames_per_second']:.0f}"]
        rows.append([method["label"], f"{method['parameters'] / 1e6:.2f} M", str(method["training_steps"]), trained, *speed, how])
    return Table(["", "parameters", "steps", "training", "ms a swapped clip", "frames a second", "sampled by"], rows)


_LEAKAGE_TEXT = (
    "Leakage: mean of what probes read of the action in the static token (S->D) and of the person in mean and spread of the "
    "dynamic tokens (D->S), lower is better; normalised: 0 at chance, 1 at no errors; strict: the probe that reads the dynamic "
    "tokens in their order (Dseq->S) where that one reads more. S->S and D->D, what each token shall hold: higher is better, and "
    "a collapsed encoder has neither. Chance: the most frequent class."
)
_LIKENESS_TEXT = (
    "Feature network: {network}. SSIM, perceptual distance and flicker ratio are of reconstructions beside their clips, Frechet "
    "distances of swaps beside held-out clips. Of SSIM more is better, of distances less. Flicker ratio: change from frame to "
    "frame where the clips are still, over the clips' own; 1 is as steady as these. Read it with the two changes that it is of, "
    "in grey levels of 255: where clips stand quite still, a change that nobody sees is many times theirs."
)
_LIKENESS = {
    "SSIM": ("ssim", 1, 4), "perceptual distance": ("perceptual", 1, 4),
    "Frechet, frames": ("frechet_frame", 1, 3), "Frechet, clips": ("frechet_clip", 1, 3),
    "flicker ratio": ("flicker_ratio", 1, 3), "levels, made": ("flicker_made", 1, 3), "levels, clips": ("flicker_real", 1, 3),
}  # fmt: skip
_GROUND_TRUTH_TEXT = (
    "PSNR in dB of {num} random swaps to the clips that they should be, A in B's motion as it is drawn; no judge stands between. "
    "The ground truth decoded from its own codes is what a perfect swap would reach. Nearest: nearer to the ground truth than to "
    "A and to B."
)
_GROUND_TRUTH = {
    "swap, dB": ("ground truth, swap", 1, 2), "ground truth reconstructed, dB": ("ground truth, reconstruction", 1, 2),
    "swap moved to fit, dB": ("ground truth, swap_aligned", 1, 2),
    "A unchanged, dB": ("ground truth, copy_a", 1, 2), "B unchanged, dB": ("ground truth, copy_b", 1, 2),
    "nearest, %": ("nearest to the ground truth", 100, 1),
}  # fmt: skip
_CLASS_TEXT = (
    "Swaps that the judge takes for the class that they should be of, in percent: A's class of a static factor, B's of a dynamic "
    "one. N, swaps of each seed that should be of it."
)
_FAILURE_TEXT = "The first swaps that the judge did not accept, each below its A and its B, with what it took them for:"
_SAMPLED = {
    "look kept, motion sampled: static": ("static kept", 100, 1),
    "motion kept, look sampled: dynamic": ("dynamic kept", 100, 1),
    **{
        f"{kept} kept: {title}": (f"{kind} kept, {name}", 1, 3)
        for kept, kind in (("look", "static"), ("motion", "dynamic"))
        for title, name in zip(("IS", "H(y|x)", "H(y)"), CLASS_SCORES, strict=True)
    },
}


def _plain_table(data: Mapping[str, Any], columns: Mapping[str, tuple[str, float, int]], mark: str = "") -> Table:
    """Lay out measures, heading -> (name, factor, digits), by method."""
    rows = []
    for method in data["methods"].values():
        cells = [_summary(method["measures"].get(name), scale, digits) for name, scale, digits in columns.values()]
        rows.append([method["label"] + mark, *cells])
    return Table(["", *columns], rows)


_COMPARISON_TEXT = (
    "An interval that holds 0 shows nothing. Of leakage less is better, of all else more. Swap accuracies are compared pair by "
    "pair; the intervals of the others take both sides as independent, so they are rather too wide."
)
_DIFFERENCE_TEXT = (
    "The first method's result minus the second's, in percentage points (PSNR in dB) and with the 95 % interval, over the seeds "
    f"that both have. {_COMPARISON_TEXT}"
)
_WORTH_TEXT = (
    "The full recipe's value and the one that was tried; then, in percentage points (PSNR in dB) and with the 95 % interval, the "
    f"result with the bias minus the one without it. {_COMPARISON_TEXT}"
)
_COMPARED = {**dict.fromkeys((*ACCURACIES, RECONSTRUCTION, "leakage"), (100, 1)), "psnr_db": (1, 2)}
"""Measures that two methods are compared by, with factor and digits."""


def _difference_table(data: Mapping[str, Any]) -> Table:
    labels = {name: method["label"] + _mark(data) for name, method in data["methods"].items()}
    rows = []
    for row in data["differences"]:
        cells = [_summary(row["measures"].get(name), *form, sign="+") for name, form in _COMPARED.items()]
        rows.append([labels[row["method"]], labels[row["other"]], str(len(row["seeds"])), *cells])
    return Table(["method", "minus", "seeds", *("PSNR dB" if name == "psnr_db" else name for name in _COMPARED)], rows)


def _worth_table(data: Mapping[str, Any]) -> Table:
    names, mark = (*ACCURACIES, "leakage", "psnr_db"), _mark(data)
    rows = []
    for bias in data["worth"].values():
        measures = bias["measures"]
        cells = [_summary(measures.get(name), 1 if name == "psnr_db" else 100, 2, sign="+") for name in names]
        rows.append([bias["title"] + mark, bias["full"], bias["other"], str(len(bias["seeds"])), *cells])
    return Table(["bias", "full recipe", "tried", "seeds", *ACCURACIES, "leakage", "PSNR dB"], rows)


def _cell_table(report: Mapping[str, Any]) -> Table:
    rows = []
    for name, cell in report["cells"].items():
        measures = cell.get("measures", {})
        numbers = [_measured(measures[part]) if part in measures else NOTHING for part in (*ACCURACIES, "leakage")]
        psnr = f"{measures['psnr_db'][0]:.2f}" if measures else NOTHING
        times = f"{cell['training']['seconds'] / 60:.1f} min" if measures else NOTHING
        ended = cell["made"]["ended"] if measures else cell["remark"] or NOTHING
        mark = _mark(report["data"][cell["data"]]) if measures else ""
        rows.append([name + mark, cell["state"], *numbers, psnr, times, ended])
    return Table(["cell", "", *ACCURACIES, "leakage", "PSNR dB", "training", "ended"], rows)


def _provenance_blocks(report: Mapping[str, Any]) -> list[Block]:
    made = report["made"]
    titles = {"commands": "commands", "trained_by": "trained at", "commits": "evaluated at"}
    titles |= {name: name for name in ("machines", "devices")}
    rows = [(title, "; ".join(made[name])) for name, title in titles.items() if made.get(name)]
    rows += [(name, str(made[name])) for name in ("began", "ended") if made[name]]
    rows.append(("versions", ", ".join(f"{name} {version}" for name, version in made["versions"].items())))
    for name, data in report["data"].items():
        rows.append((f"data set {name}", f"{data['path']}, recipe {data['recipe']}"))
        if data["judge"] is not None:
            training = ", ".join(f"{key} {value}" for key, value in data["judge"]["training"].items())
            rows.append((f"judge of {name}", training))
    evaluation = ", ".join(f"{key} {value}" for key, value in report["plan"]["evaluation"].items())
    return [Table(["", ""], [*rows, ("evaluation", evaluation)])]


def _draw(plan: Plan, data: str, cells: Sequence[CellSpec], folder: BenchmarkFolder) -> list[Picture]:
    """Draw a data set's pictures: swaps of each method's first seed, and training of all cells that train."""
    first: dict[str, CellSpec] = {}
    for spec in cells:
        if spec.data == data and folder.cell(spec.name).is_done:
            first.setdefault(spec.method, spec)
    pictures = []
    if first:
        path = folder.path / f"swaps-{data}.png"
        seeds = ", ".join(dict.fromkeys(str(spec.seed) for spec in first.values()))
        figures = {plan.methods[method].label: folder.cell(spec.name).figure for method, spec in first.items()}
        write_image(path, swap_figure(figures, f"{data}, seed {seeds}"))
        pictures.append(Picture(path, f"Swaps on {data}: source, target, then each method"))
    runs = {
        f"{plan.methods[spec.method].label}, seed {spec.seed}": folder.cell(spec.name).run / "metrics.csv"
        for spec in cells
        if spec.data == data and not spec.model_of
    }
    path = folder.path / f"training-{data}.png"
    if plot_training(runs, data, path):
        pictures.append(Picture(path, f"Training on {data}"))
    return pictures


def _rate(rate: Mapping[str, Any]) -> str:
    measured = Measured.of_rate(rate)
    return _measured((measured.value, measured.low, measured.high))


def _measured(measure: Sequence[float]) -> str:
    value, low, high = measure
    return _interval(value, low, high, 100, 1)


def _summary(summary: Mapping[str, Any] | None, scale: float, digits: int, sign: str = "") -> str:
    if summary is None:
        return NOTHING
    spread = "" if summary["spread"] is None else f" ± {scale * summary['spread']:.{digits}f}"
    return _interval(summary["mean"], summary["low"], summary["high"], scale, digits, spread, sign)


def _interval(
    value: float, low: float | None, high: float | None, scale: float, digits: int, spread: str = "", sign: str = ""
) -> str:
    text = f"{scale * value:{sign}.{digits}f}{spread}"
    return text if low is None or high is None else f"{text} ({scale * low:{sign}.{digits}f} to {scale * high:{sign}.{digits}f})"


def list_cells(cells: Sequence[CellSpec], folder: BenchmarkFolder) -> list[str]:
    """Give a line for each cell: its name, where it stands, and what there is to say.

    Args:
        cells: Which ones.
        folder: Where.
    """
    width = max(len(spec.name) for spec in cells)
    states = [(spec.name, *folder.cell(spec.name).state()) for spec in cells]
    return [f"{name:<{width}}  {state:<6}  {remark}".rstrip() for name, state, remark in states]

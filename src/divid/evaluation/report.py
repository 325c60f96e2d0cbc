"""All that `divid evaluate` measured, as one page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from divid.evaluation.consistency import Consistency
from divid.evaluation.ground_truth import ROWS, GroundTruth
from divid.evaluation.inception import ClassScores
from divid.evaluation.intervals import Rate
from divid.evaluation.leakage import DIRECTIONS, Leakage
from divid.evaluation.likeness import Likeness
from divid.evaluation.overlap import Overlap
from divid.evaluation.quality import Estimate, Reconstruction
from divid.evaluation.sampled import SampledResult
from divid.evaluation.swap_result import SwapResult, judge_mark


def evaluation_report(
    facts: Mapping[str, Any],
    reconstruction: Reconstruction,
    *,
    consistency: Consistency | None = None,
    ground_truth: GroundTruth | None = None,
    likeness: Likeness | None = None,
    swaps: SwapResult | None = None,
    sampled: SampledResult | None = None,
    leakage: Leakage | None = None,
    overlap: Overlap | None = None,
    pictures: Mapping[str, str] | None = None,
) -> str:
    """Give the page; what was not measured has no section.

    Args:
        facts: What stands on top: model, data, seed and the like.
        reconstruction: Of held-out clips.
        consistency: Of swaps encoded again.
        ground_truth: Of swaps beside the clips that they should be.
        likeness: Of reconstructions and swaps.
        swaps: The swap test.
        sampled: Its sampled variants.
        leakage: The probes.
        overlap: What each token tells of the other.
        pictures: What each picture beside the page shows, by the name of its file.
    """
    parts = ["# Evaluation", markdown_table(("", ""), [(name, _fact(value)) for name, value in facts.items()])]
    parts += ["## Reconstruction", _reconstruction_table(reconstruction)]
    if consistency is not None:
        parts += ["## Self-consistency of swaps", *_consistency_parts(consistency)]
    if ground_truth is not None:
        parts += ["## Swaps beside their ground truth", *_ground_truth_parts(ground_truth)]
    if likeness is not None:
        parts += ["## Likeness", *_likeness_parts(likeness)]
    if swaps is not None:
        parts += ["## Swaps", *_swap_parts(swaps)]
    if sampled is not None:
        parts += ["## Sampled tokens", *_sampled_parts(sampled)]
    if leakage is not None:
        parts += ["## Leakage", *_leakage_parts(leakage)]
    if overlap is not None:
        parts += ["## Overlap of the tokens", *_overlap_parts(overlap)]
    if pictures:
        parts += ["## Pictures", *(f"{text}\n\n![{text}]({name})" for name, text in pictures.items())]
    return "\n\n".join(parts) + "\n"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Give a table; a `|` inside a cell is escaped.

    Args:
        header: Names of the columns.
        rows: Cells, as many a row as there are columns.
    """
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |" for cells in lines)


def percent(rate: Rate | None) -> str:
    """Give a share in percent with its interval.

    Args:
        rate: The share; of None, a dash.
    """
    if rate is None:
        return "-"
    low, high = rate.interval
    return f"{100 * rate.rate:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(item)}" for name, item in value.items() if item is not None)
    return str(value)


def _reconstruction_table(reconstruction: Reconstruction) -> str:
    names = {"model": "the model", "first_frame": "first frame, standing still", "mean_frame": "mean frame, standing still"}
    rows = [(text, *_estimate(getattr(reconstruction, name), 2)) for name, text in names.items()]
    return markdown_table(("", "PSNR in dB", "95 % over clips", "clips"), rows)


def _estimate(estimate: Estimate, digits: int) -> tuple[str, str, str]:
    has_interval = estimate.low == estimate.low
    interval = f"{estimate.low:.{digits}f} to {estimate.high:.{digits}f}" if has_interval else "-"
    return f"{estimate.mean:.{digits}f}", interval, str(estimate.num_clips)


def _consistency_parts(consistency: Consistency) -> list[str]:
    rates = [("look kept", consistency.static), ("motion kept", consistency.dynamic), ("both", consistency.joint)]
    rows = [(name, percent(rate), str(rate.num)) for name, rate in rates]
    reader = f"the encoder of {consistency.reader}" if consistency.reader else "the model itself"
    return [
        f"Swaps encoded again by {reader}: nearer to the tokens they were made of than to the others'? No labels.",
        markdown_table(("", "% (95 %)", "N"), rows),
    ]


def _ground_truth_parts(ground_truth: GroundTruth) -> list[str]:
    rows = [(text, *_estimate(getattr(ground_truth, name), 2)) for name, text in ROWS.items()]
    return [
        f"A in B's motion, as it would be drawn, of {ground_truth.num_pairs} pairs. No judge, no labels.",
        markdown_table(("", "PSNR in dB to the ground truth", "95 % over clips", "clips"), rows),
        f"Nearer to the ground truth than to A and to B: {percent(ground_truth.is_nearest)} % of the swaps.",
    ]


def _overlap_parts(overlap: Overlap) -> list[str]:
    explained = [("static from dynamic", overlap.static_from_dynamic), ("dynamic from static", overlap.dynamic_from_static)]
    rows = [(name, f"{row.share:.1%}", f"{row.low:.1%} to {row.high:.1%}", str(overlap.num_held_out)) for name, row in explained]
    return [
        "Share of each token's variance over held-out clips that a regression on the other explains. It was fitted to "
        f"{overlap.num_held_in} held-in clips. No labels.",
        markdown_table(("", "explained", "95 % over clips", "held-out clips"), rows),
    ]


def _likeness_parts(likeness: Likeness) -> list[str]:
    quality = likeness.quality
    assert quality.perceptual is not None
    measures = [("SSIM", *_estimate(quality.ssim, 4)), ("perceptual distance", *_estimate(quality.perceptual, 4))]
    distances = [
        (name, f"{realism.frame:.4g}", f"{realism.clip:.4g}", str(realism.num_made_clips), str(realism.num_real_clips))
        for name, realism in likeness.frechet.items()
    ]
    flicker = quality.flicker.to_text()
    return [
        f"Feature network: {likeness.network}.",
        markdown_table(("reconstruction", "", "95 % over clips", "clips"), measures),
        f"{flicker[0].upper()}{flicker[1:]}.",
        markdown_table(("Frechet distance to held-out clips", "frames", "clips", "N", "N held out"), distances),
        *likeness.notes,
    ]


def _swap_parts(swaps: SwapResult) -> list[str]:
    mark = judge_mark(swaps.judge)
    rows = []
    for name, row in swaps.rows.items():
        right = [percent(rate) for rate in (row.static, row.dynamic, row.joint)]
        leaked = [percent(rate) for rate in (row.static_of_b, row.dynamic_of_a)]
        rows.append((name + mark, *right, *leaked, str(row.joint.num)))
    guesses = [f"{100 * swaps.chance[name]:.1f}" for name in ("static", "dynamic", "joint")]
    header = ("", "static %", "dynamic %", "joint %", "B's look %", "A's motion %", "N")
    parts = [
        *_judge_parts(swaps.judge, swaps.notes),
        markdown_table(header, [*rows, ("chance", *guesses, "", "", "")]),
        "N of real clips and reconstructions: the clips that the pairs are made of. B's look and A's motion are what a swap "
        "should not show.",
    ]
    for name, factor in swaps.factors.items():
        classes = [(label, percent(rate), str(rate.num)) for label, rate in factor.classes.items()]
        head = [("all", percent(factor.kept), str(factor.kept.num))]
        parts.append(markdown_table((f"{name} ({factor.kind}), as wanted{mark}", "%", "N"), [*head, *classes]))
        parts.append(f"The other clip's {name} instead: {percent(factor.other)} %.")
    return parts


def _sampled_parts(sampled: SampledResult) -> list[str]:
    factors, mark = list(sampled.factors), judge_mark(sampled.judge)
    header = ("", "static %", "dynamic %", *(f"{name}: IS / H(y|x) / H(y)" for name in factors))
    rows = [
        (name + mark, percent(row.static), percent(row.dynamic), *(_scores(row.scores[factor]) for factor in factors))
        for name, row in sampled.rows.items()
    ]
    guesses = (f"{100 * sampled.chance['static']:.1f}", f"{100 * sampled.chance['dynamic']:.1f}")
    classes = [sampled.rows["real"].scores[factor].num_classes for factor in factors]
    chance = ("chance", *guesses, *(f"at most {count}" for count in classes))
    return [*_judge_parts(sampled.judge, sampled.notes), markdown_table(header, [*rows, chance])]


def _scores(scores: ClassScores) -> str:
    return f"{scores.inception_score:.2f} / {scores.conditional_entropy:.3f} / {scores.marginal_entropy:.3f}"


def _leakage_parts(leakage: Leakage) -> list[str]:
    rows = []
    for score in (score for direction in DIRECTIONS for score in leakage.scores if score.direction == direction):
        low, high = score.interval
        read, chance = f"{100 * score.accuracy:.1f}", f"{100 * score.chance:.1f}"
        rows.append((score.direction, score.factor, read, f"{100 * low:.1f} to {100 * high:.1f}", chance, str(score.total)))
    total = f"Leakage, the mean of S->D and D->S: {leakage.mean:.1%}; normalised by chance: {leakage.normalised:.1%}."
    total += f" Strict, with Dseq->S in place of D->S where it reads more: {leakage.strict:.1%}."
    return [markdown_table(("read", "factor", "%", "95 % (Wilson)", "chance %", "clips"), rows), total]


def _judge_parts(judge: Mapping[str, Any], notes: Sequence[str]) -> list[str]:
    """Give what has to be known before the table is read: whose answers it holds, and what is wrong with them."""
    held_out = judge["held_out"]
    accuracy = "unknown" if held_out is None else f"{percent(held_out['joint'])} % joint"
    line = f"Judge: {judge['architecture']}, trained on {judge['data']}; on held-out real clips {accuracy}."
    return [line, *notes, *([f"{judge_mark(judge).strip()} marks its rows."] if judge_mark(judge) else [])]

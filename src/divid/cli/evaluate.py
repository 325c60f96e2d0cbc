"""`divid evaluate`: what a model does on held-out clips, as numbers and as pictures."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from divid.cli import common
from divid.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from divid.data.clips import ClipDataset
    from divid.evaluation.judge import Judge
    from divid.evaluation.likeness import LikenessStudy
    from divid.evaluation.pairs import PairList
    from divid.evaluation.quality import Reconstruction

NEEDS = {
    "reverse": "judge",
    "sampled": "judge",
    "pair_list": "judge",
    "consistency_encoder": "consistency",
    "feature_network": "realism",
    "feature_weights": "realism",
}
"""Option -> option without which it means nothing."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--data", required=True, help="prepared data set")
    parser.add_argument("--out", required=True, help="folder for report.md, evaluation.json and swaps.png; made if not there")
    parser.add_argument("--split", choices=("test", "train"), default="test", help="which clips")
    parser.add_argument(
        "--clips",
        type=int,
        default=0,
        help="clips that are reconstructed, drawn at random by --seed; 0: all, of thousands in minutes",
    )
    parser.add_argument("--pairs", type=int, default=8, help="swaps on the sheet, pairs drawn at random by --seed")
    parser.add_argument(
        "--sheet-sources",
        type=Literal["recordings", "reconstructions"],
        default="recordings",
        help="show A and B of the sheet themselves, or as the model reconstructs them (for recordings that may not be passed on)",
    )
    parser.add_argument("--judge", default=None, metavar="FOLDER", help="judge of swaps, made by divid judge; adds swaps.json")
    parser.add_argument("--swap-pairs", type=int, default=2000, help="pairs of the swap test, the same for every method")
    parser.add_argument("--pair-list", default=None, metavar="FILE", help="saved pairs, in place of --swap-pairs")
    parser.add_argument("--reverse", action="store_true", help="with --judge: also swap every pair the other way round")
    parser.add_argument(
        "--sampled", action="store_true", help="with --judge: keep one token, sample the other from a prior fitted to codes"
    )
    parser.add_argument("--leakage", action="store_true", help="probe each token for the other's factor; adds leakage.json")
    parser.add_argument(
        "--consistency", action="store_true", help="encode swaps again, no label or judge needed; adds consistency.json"
    )
    parser.add_argument("--consistency-pairs", type=int, default=256, help="random swaps that --consistency encodes again")
    parser.add_argument(
        "--consistency-encoder",
        default=None,
        metavar="MODEL",
        help="with --consistency: another model, whose encoder reads the swaps (default: the model's own)",
    )
    parser.add_argument(
        "--ground-truth",
        action="store_true",
        help="puppets and sprites: swaps beside the clips of A in B's motion, which can be drawn there; adds ground_truth.json",
    )
    parser.add_argument("--ground-truth-pairs", type=int, default=256, help="random swaps that --ground-truth compares")
    parser.add_argument(
        "--overlap", action="store_true", help="how much of each token the other tells, no label needed; adds overlap.json"
    )
    parser.add_argument(
        "--realism", action="store_true", help="SSIM, perceptual and Frechet distance, flicker; adds realism.json"
    )
    parser.add_argument("--realism-pairs", type=int, default=256, help="random swaps whose Frechet distance is measured")
    parser.add_argument(
        "--feature-network",
        choices=("efficientnet_lite0", "vgg16"),
        default=None,
        help="with --realism: whose features (default: efficientnet_lite0, from its package)",
    )
    parser.add_argument("--feature-weights", default=None, metavar="FILE", help="with --realism: weights, .pth or .safetensors")
    common.add_model_arguments(parser)
    common.add_sampling_arguments(parser)


@dataclass
class _Job:
    """What is evaluated, opened and checked before anything takes time."""

    args: Namespace
    out: Path
    model: Any
    clips: ClipDataset
    training: ClipDataset | None
    options: dict[str, Any]
    judge: Judge | None = None
    pairs: PairList | None = None
    likeness: LikenessStudy | None = None
    reader: Any = None
    facts: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)


def run(args: Namespace) -> None:
    """Measure, write and print."""
    from divid.evaluation.report import evaluation_report
    from divid.outputs import atomic_path

    job = _open(args)
    reconstruction = _reconstruct(job)
    if args.consistency:
        _encode_again(job)
    if args.ground_truth:
        _compare_with_truth(job)
    if job.likeness is not None:
        _add_likeness(job, job.likeness)
    if job.judge is not None and job.pairs is not None:
        _test_swaps(job, job.judge, job.pairs)
        if args.sampled:
            _sample(job, job.judge)
    if args.leakage:
        _probe(job)
    if args.overlap:
        _regress(job)
    with atomic_path(job.out / "report.md") as temporary:
        text = evaluation_report(job.facts, reconstruction, **job.results, pictures=job.pictures)
        temporary.write_text(text, encoding="utf-8")
    written = {"report": "report.md", "numbers": "evaluation.json", **{Path(name).stem: name for name in job.pictures}}
    common.say("\n".join(f"{what:<8} {job.out / name}" for what, name in written.items()))


def _open(args: Namespace) -> _Job:
    """Open and check everything, so that what is wrong is said before the work."""
    from divid.data.clips import ClipDataset
    from divid.evaluation.judge import Judge
    from divid.evaluation.pairs import PairList
    from divid.pipeline import DividPipeline

    _check_options(args)
    pipeline = common.load_pipeline(args)
    options, model = pipeline.model.options, pipeline.model.eval()
    sizes: dict[str, Any] = {"image_size": options.image_size, "channels": options.channels}
    clips = ClipDataset.open(args.data, split=args.split, **sizes)
    measured = {"num_frames": options.frames_per_sequence, "sampling": common.chosen_sampling(args, pipeline.sampling)}
    shared, facts = {**measured, "seed": args.seed}, _facts(args, measured)
    job = _Job(args, Path(args.out), model, clips, _training_clips(args, sizes), shared, facts=facts)
    if args.judge is not None:
        job.judge = Judge.load(args.judge).to(common.choose_device(args.device))
        job.judge.check_fits(clips.info, options.frames_per_sequence)
        job.pairs = PairList.load(args.pair_list) if args.pair_list else PairList.draw(clips, args.swap_pairs)
        job.pairs.numbers(clips)
    if args.ground_truth:
        from divid.evaluation.ground_truth import ground_truth_source

        ground_truth_source(clips)
    if args.consistency_encoder is not None:
        job.reader = DividPipeline.from_pretrained(args.consistency_encoder).to(common.choose_device(args.device)).model.eval()
    if args.leakage and job.training is not None:
        from divid.evaluation.leakage import check_labels

        labels = [[part.labels(index) for index in range(len(part))] for part in (job.training, clips)]
        check_labels(labels[0], labels[1], clips.info.factors)
    if args.realism:
        from divid.evaluation.features import DEFAULT_NETWORK, open_network
        from divid.evaluation.likeness import LikenessStudy

        device = common.choose_device(args.device)
        name = args.feature_network or DEFAULT_NETWORK
        job.likeness = LikenessStudy(open_network(name, args.feature_weights or "", device))
    common.output_folder(args.out)  # last: what is refused leaves no empty folder
    return job


def _check_options(args: Namespace) -> None:
    for name, needed in NEEDS.items():
        if getattr(args, name) and not getattr(args, needed):
            raise ConfigError(f"--{name.replace('_', '-')} means nothing without --{needed}: add it")
    if args.clips < 0:
        raise ConfigError(f"--clips is {args.clips}, must be 1 or more, or 0 for all")
    for name in ("pairs", "realism_pairs", "consistency_pairs", "ground_truth_pairs"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(args, name)}, must be 1 or more")


def _training_clips(args: Namespace, sizes: dict[str, Any]) -> ClipDataset | None:
    """Open the training clips of the data set; where nothing that was asked for rests on them, there may be none."""
    from divid.data.clips import ClipDataset

    try:
        return ClipDataset.open(args.data, split="train", **sizes)
    except DatasetError:
        if args.sampled or args.leakage or args.overlap:
            raise
        return None


def _facts(args: Namespace, measured: dict[str, Any]) -> dict[str, Any]:
    """Give what every number depends on besides the model: it stands in every file and on top of the report."""
    from divid._version import __version__
    from divid.config import to_dict
    from divid.training.run_folder import describe_machine, git_commit

    return {
        "model": str(args.model),
        "data": str(args.data),
        "split": args.split,
        "seed": args.seed,
        "frames_per_clip": measured["num_frames"],
        "sampling": to_dict(measured["sampling"]),
        "device": common.choose_device(args.device),
        "machine": describe_machine(),
        "divid": __version__,
        "git_commit": git_commit(),
    }


def _reconstruct(job: _Job) -> Reconstruction:
    """Measure reconstructions, and draw a sheet of swaps."""
    from dataclasses import asdict

    from divid.evaluation.quality import measure_reconstruction
    from divid.evaluation.swap import draw_pairs, swap_sheet
    from divid.json_files import write_json

    args, clips = job.args, job.clips
    watch = None if job.likeness is None else job.likeness.watch
    try:
        pairs = draw_pairs(clips, args.pairs, args.seed)
    except DatasetError as error:
        pairs = []
        logging.getLogger("divid").warning("no sheet of swaps: %s", error)
    with common.progress_bar() as progress:
        reconstruction = measure_reconstruction(job.model, _reconstructed_clips(job), watch=watch, told=progress, **job.options)
    title = f"{Path(args.data).name}, {args.split} clips: {len(pairs)} random swaps, seed {args.seed}"
    if pairs:
        sheet = swap_sheet(job.model, clips, pairs, title=title, sources=args.sheet_sources, **job.options)
        _draw(job, "swaps.png", sheet, f"{len(pairs)} random swaps, seed {args.seed}")
    drawn = [[clips.clip_id(a), clips.clip_id(b)] for a, b in pairs]
    write_json(job.out / "evaluation.json", {**job.facts, "psnr_db": asdict(reconstruction), "pairs": drawn})
    for name, estimate in asdict(reconstruction).items():
        interval = f"[{estimate['low']:.2f}, {estimate['high']:.2f}]"
        common.say(f"PSNR {name:<12} {estimate['mean']:6.2f} dB  {interval}  over {estimate['num_clips']} clips")
    return reconstruction


def _reconstructed_clips(job: _Job) -> ClipDataset:
    """Give the clips that are reconstructed: all, or as many as were asked for, drawn at random."""
    import numpy as np

    from divid.randomness import derive_seed

    number, clips = job.args.clips, job.clips
    if not number or number >= len(clips):
        return clips
    drawn = np.random.default_rng(derive_seed(job.args.seed, "reconstructed clips")).choice(len(clips), number, replace=False)
    return clips.subset(np.sort(drawn))


def _add_likeness(job: _Job, study: LikenessStudy) -> None:
    from divid.evaluation.swap import draw_pairs

    pairs = draw_pairs(job.clips, job.args.realism_pairs, job.args.seed)
    with common.progress_bar() as progress:
        study.add_swaps(job.model, job.clips, pairs, told=progress, **job.options)
    if job.training is not None and job.args.split != "train":
        device = common.choose_device(job.args.device)
        study.add_training_clips(job.training, num_frames=job.options["num_frames"], device=device)
    likeness = study.result()
    _keep(job, "likeness", likeness, "realism.json", likeness.to_text())


def _test_swaps(job: _Job, judge: Judge, pairs: PairList) -> None:
    from divid.evaluation.swap import failure_sheet, measure_swaps

    known = None if job.args.split == "train" else job.training
    with common.progress_bar() as progress:
        swaps = measure_swaps(
            job.model, judge, job.clips, pairs, train_clips=known, reverse=job.args.reverse, told=progress, **job.options
        )
    pairs.save(job.out / "pairs.json")
    (job.out / "failures.png").unlink(missing_ok=True)
    sheet = failure_sheet(swaps, job.clips, title="swaps that the judge did not accept")
    _keep(job, "swaps", swaps, "swaps.json", "\n".join(swaps.lines()))
    if sheet is not None:
        _draw(job, "failures.png", sheet, "The first swaps that the judge did not accept, with what it took them for")
    else:
        common.say("the judge accepted every swap, so there is no failures.png")


def _sample(job: _Job, judge: Judge) -> None:
    from divid.evaluation.codes import encode_clips
    from divid.evaluation.prior import PriorOptions, fit_prior
    from divid.evaluation.sampled import measure_sampled, sampled_sheet

    assert job.training is not None
    with common.progress_bar() as progress:
        codes = encode_clips(
            job.model, job.training, num_frames=job.options["num_frames"], told=progress, stage="encoding for the prior"
        )
        prior = fit_prior(codes, PriorOptions(seed=job.args.seed), told=progress)
        sampled = measure_sampled(job.model, judge, prior, job.clips, told=progress, **job.options)
    title = f"tokens sampled from a prior that was fitted afterwards, seed {job.args.seed}"
    sheet = sampled_sheet(job.model, prior, job.clips, title=title, **job.options)
    _draw(job, "sampled.png", sheet, "One token kept, the other sampled from a prior that was fitted afterwards")
    _keep(job, "sampled", sampled, "sampled.json", "\n".join(sampled.lines()))


def _probe(job: _Job) -> None:
    from divid.evaluation.leakage import measure_leakage

    assert job.training is not None
    options = {name: job.options[name] for name in ("num_frames", "seed")}
    with common.progress_bar() as progress:
        leakage = measure_leakage(job.model, job.training, job.clips, told=progress, **options)
    _keep(job, "leakage", leakage, "leakage.json", leakage.to_text())


def _regress(job: _Job) -> None:
    from divid.evaluation.overlap import measure_overlap

    assert job.training is not None
    options = {name: job.options[name] for name in ("num_frames", "seed")}
    with common.progress_bar() as progress:
        overlap = measure_overlap(job.model, job.training, job.clips, told=progress, **options)
    _keep(job, "overlap", overlap, "overlap.json", overlap.to_text())


def _encode_again(job: _Job) -> None:
    from divid.evaluation.consistency import measure_consistency

    with common.progress_bar() as progress:
        num_pairs = job.args.consistency_pairs
        result = measure_consistency(job.model, job.clips, num_pairs=num_pairs, reader=job.reader, told=progress, **job.options)
    result = replace(result, reader=job.args.consistency_encoder or "")
    _keep(job, "consistency", result, "consistency.json", result.to_text())


def _compare_with_truth(job: _Job) -> None:
    from divid.evaluation.ground_truth import measure_ground_truth

    with common.progress_bar() as progress:
        result = measure_ground_truth(job.model, job.clips, num_pairs=job.args.ground_truth_pairs, told=progress, **job.options)
    _keep(job, "ground_truth", result, "ground_truth.json", result.to_text())


def _draw(job: _Job, name: str, sheet: Any, text: str) -> None:
    """Write a picture, and keep what it shows for the report."""
    from divid.outputs import write_image

    write_image(job.out / name, sheet)
    job.pictures[name] = text


def _keep(job: _Job, name: str, result: Any, file: str, text: str) -> None:
    """Write a result at once, print it, and keep it for the report."""
    from divid.json_files import write_json

    job.results[name] = result
    write_json(job.out / file, {**job.facts, **result.to_dict()})
    common.say(text)

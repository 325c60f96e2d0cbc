"""`divid solvers`: how few steps are enough, as a table and as curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from divid.cli import common
from divid.errors import ConfigError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

SETTINGS = ["ddpm:200", "dpmsolver++:1,2,4,10"]
STUDENT_SETTINGS = ["consistency:1,2,4"]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--data", required=True, help="prepared data set; its test clips are swapped")
    parser.add_argument("--out", required=True, help="folder for solvers.md, .json, .png and swaps.png; made if not there")
    parser.add_argument(
        "--settings",
        nargs="+",
        default=SETTINGS,
        metavar="SOLVER:STEPS",
        help="what is compared, the first is the reference; as in ddpm:1000 dpmsolver++:1,2,4 ddim:4@trailing (sampling.spacing)",
    )
    parser.add_argument("--student", default=None, metavar="MODEL", help="a student of the model, from divid distill")
    parser.add_argument(
        "--student-settings", nargs="+", default=STUDENT_SETTINGS, metavar="SOLVER:STEPS", help="how the student is sampled"
    )
    parser.add_argument("--judge", default=None, metavar="FOLDER", help="judge of swaps, made by divid judge")
    parser.add_argument("--swap-pairs", type=int, default=100, help="pairs that every setting swaps")
    parser.add_argument("--clips", type=int, default=32, help="clips that every setting reconstructs")
    parser.add_argument("--realism", action="store_true", help="Frechet distance of swaps too (network of divid[perceptual])")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples")
    common.add_model_arguments(parser)


def run(args: Namespace) -> None:
    """Measure, write and print."""
    from divid.data.clips import ClipDataset
    from divid.evaluation.judge import Judge
    from divid.evaluation.pairs import PairList
    from divid.evaluation.report import markdown_table
    from divid.evaluation.solvers import measure_solvers, parse_settings, plot_solvers, solver_sheet, solver_table
    from divid.export import load_model, resolve_model
    from divid.json_files import write_json
    from divid.outputs import atomic_path, write_image

    for name in ("swap_pairs", "clips"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(args, name)}, must be 1 or more")
    out, device = common.output_folder(args.out), common.choose_device(args.device)
    pipeline = common.load_pipeline(args)
    options = pipeline.model.options
    models: dict[str, Any] = {"model": pipeline.model.eval()}
    settings = parse_settings(args.settings, "model", pipeline.sampling)
    if args.student is not None:
        student, sampling = load_model(resolve_model(args.student))
        _check_same_clips(options, student.options, args.student)  # type: ignore[attr-defined]  # classes of METHODS have them
        models["student"] = student.to(device)  # type: ignore[attr-defined]  # a torch module
        settings += parse_settings(args.student_settings, "student", sampling)
    clips = ClipDataset.open(args.data, split="test", image_size=options.image_size, channels=options.channels)
    judge = None
    if args.judge is not None:
        judge = Judge.load(args.judge).to(device)
        judge.check_fits(clips.info, options.frames_per_sequence)
    network = None
    if args.realism:
        from divid.evaluation.features import DEFAULT_NETWORK, open_network

        network = open_network(DEFAULT_NETWORK, "", device)
    pairs = PairList.draw(clips, args.swap_pairs)
    facts = _facts(args, device, len(pairs))
    with common.progress_bar() as progress:
        rows = measure_solvers(
            models,
            settings,
            clips,
            pairs,
            num_frames=options.frames_per_sequence,
            num_clips=args.clips,
            judge=judge,
            network=network,
            seed=args.seed,
            told=progress,
        )
    header, cells = solver_table(rows)
    parts = ["# Solvers and steps", markdown_table(("", ""), [(name, str(value)) for name, value in facts.items()])]
    with atomic_path(out / "solvers.md") as temporary:
        temporary.write_text("\n\n".join([*parts, markdown_table(header, cells)]) + "\n", encoding="utf-8")
    write_json(out / "solvers.json", {**facts, "settings": [row.to_dict() for row in rows]})
    title = f"{Path(args.data).name}: {len(pairs)} swaps, seed {args.seed}"
    plot_solvers(rows, out / "solvers.png", title)
    write_image(out / "swaps.png", solver_sheet(rows, clips, pairs, title))
    widths = [max(len(line[column]) for line in (header, *cells)) for column in range(len(header))]
    for line in (header, *cells):
        common.say("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)))
    common.say(f"table   {out / 'solvers.md'}\ncurves  {out / 'solvers.png'}\nswaps   {out / 'swaps.png'}")


def _check_same_clips(options: Any, student: Any, name: str) -> None:
    shapes = [(model.image_size, model.channels, model.frames_per_sequence) for model in (options, student)]
    if shapes[0] != shapes[1]:
        raise ConfigError(
            f"--student {name} takes (size, channels, frames) {shapes[1]}, not {shapes[0]}: give a student of that model"
        )


def _facts(args: Namespace, device: str, num_pairs: int) -> dict[str, Any]:
    import torch

    from divid._version import __version__
    from divid.training.run_folder import git_commit

    machine = torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    return {
        "model": str(args.model),
        "student": args.student,
        "data": str(args.data),
        "judge": args.judge,
        "pairs": num_pairs,
        "seed": args.seed,
        "device": machine,
        "divid": __version__,
        "git_commit": git_commit(),
    }

"""`divid solvers`: how few steps are enough, as a table and as curves.

Each setting is kept in the folder as soon as it is measured, so that a command that was broken off goes on where it stood.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divid.cli import common
from divid.errors import ConfigError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from divid.config import SamplingConfig
    from divid.data.clips import ClipDataset
    from divid.evaluation.kept_settings import KeptSettings
    from divid.evaluation.pairs import PairList
    from divid.evaluation.solvers import Measured, Setting, SolverRow

SETTINGS = ["ddpm:200", "dpmsolver++:1,2,4,10"]
STUDENT_SETTINGS = ["consistency:1,2,4"]
KEPT_FOLDER = "settings"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--data", required=True, help="prepared data set; its test clips are swapped")
    parser.add_argument(
        "--out",
        required=True,
        help="folder for solvers.md, .json, .png and swaps.png; made if not there. What an earlier call measured there is kept",
    )
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
    parser.add_argument(
        "--batch-clips",
        type=int,
        default=None,
        help="clips that are decoded and timed together, all their frames at once (left out: 16, by the model's chunk_frames)",
    )
    parser.add_argument("--realism", action="store_true", help="Frechet distance of swaps too (network of divid[perceptual])")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples")
    common.add_model_arguments(parser)


def run(args: Namespace) -> None:
    """Measure, write and print."""
    from divid.data.clips import ClipDataset
    from divid.evaluation.codes import BATCH_CLIPS
    from divid.evaluation.features import DEFAULT_NETWORK, open_network
    from divid.evaluation.judge import Judge
    from divid.evaluation.kept_settings import KeptSettings
    from divid.evaluation.pairs import PairList
    from divid.evaluation.solvers import measure_solvers
    from divid.evaluation.swap import judge_notes

    for name in ("swap_pairs", "clips", "batch_clips"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}, must be 1 or more")
    out, device = common.output_folder(args.out), common.choose_device(args.device)
    models, settings, weights = _open_models(args, device)
    options = models["model"].options
    num_frames, batch_clips = options.frames_per_sequence, args.batch_clips or BATCH_CLIPS
    clips = ClipDataset.open(args.data, split="test", image_size=options.image_size, channels=options.channels)
    judge = None if args.judge is None else Judge.load(args.judge).to(device)
    if judge is not None:
        judge.check_fits(clips.info, num_frames)
    network = open_network(DEFAULT_NETWORK, "", device) if args.realism else None
    pairs = PairList.draw(clips, args.swap_pairs)
    facts = _facts(args, device, len(pairs), batch_clips)
    facts["notes"] = [] if judge is None else judge_notes(judge)
    made_with = _made_with(args, facts, pairs.pairs, num_frames, None if network is None else network.name)
    kept = KeptSettings(common.output_folder(str(out / KEPT_FOLDER)), made_with, weights, facts["git_commit"])
    before = kept.load(settings)

    def done(setting: Setting, measured: Measured, rows: Sequence[SolverRow]) -> None:
        kept.save(setting, measured)
        _write_table(out, facts, kept, rows, len(settings))

    sizes = {"num_frames": num_frames, "num_clips": args.clips, "batch_clips": batch_clips}
    with common.progress_bar() as progress:
        told: dict[str, Any] = {"kept": before, "done": done, "told": progress}
        rows = measure_solvers(models, settings, clips, pairs, **sizes, judge=judge, network=network, seed=args.seed, **told)
    _write_table(out, facts, kept, rows, len(settings))
    _draw_and_print(out, rows, clips, pairs, f"{Path(args.data).name}: {len(pairs)} swaps, seed {args.seed}", facts["notes"])


def _open_models(args: Namespace, device: str) -> tuple[dict[str, Any], list[Setting], dict[str, str]]:
    """Give models, settings, and digests of the models."""
    from divid.evaluation.solvers import parse_settings
    from divid.export import load_model, resolve_model

    pipeline = common.load_pipeline(args)
    options = pipeline.model.options
    models: dict[str, Any] = {"model": pipeline.model.eval()}
    digests = {"model": _digest(resolve_model(pipeline.config["_name_or_path"]) / "model")}

    def as_asked(sampling: SamplingConfig) -> SamplingConfig:
        if args.batch_clips is None:
            return sampling
        return replace(sampling, chunk_frames=args.batch_clips * options.frames_per_sequence)

    settings = parse_settings(args.settings, "model", as_asked(pipeline.sampling))
    if args.student is not None:
        folder = resolve_model(args.student)
        student, sampling = load_model(folder)
        _check_same_clips(options, student.options, args.student)  # type: ignore[attr-defined]  # classes of METHODS have them
        models["student"] = student.to(device)  # type: ignore[attr-defined]  # a torch module
        digests["student"] = _digest(folder / "model")
        settings += parse_settings(args.student_settings, "student", as_asked(sampling))
    return models, settings, digests


def _write_table(out: Path, facts: Mapping[str, Any], kept: KeptSettings, rows: Sequence[SolverRow], num_settings: int) -> None:
    """Write the rows that there are, as Markdown and as JSON."""
    from divid.evaluation.report import markdown_table
    from divid.evaluation.solvers import solver_table
    from divid.json_files import write_json
    from divid.outputs import atomic_path

    told = {"measured": f"{len(rows)} of {num_settings} settings", "git_commit": ", ".join(kept.commits) or None}
    facts = {**facts, **told}
    told_of = [(name, str(value)) for name, value in facts.items() if name != "notes" and value is not None]
    parts = ["# Solvers and steps", markdown_table(("", ""), told_of), *facts["notes"]]
    with atomic_path(out / "solvers.md") as temporary:
        temporary.write_text("\n\n".join([*parts, markdown_table(*solver_table(rows))]) + "\n", encoding="utf-8")
    write_json(out / "solvers.json", {**facts, "settings": [row.to_dict() for row in rows]})


def _draw_and_print(
    out: Path, rows: Sequence[SolverRow], clips: ClipDataset, pairs: PairList, title: str, notes: Sequence[str]
) -> None:
    from divid.evaluation.solvers import plot_solvers, solver_sheet, solver_table
    from divid.outputs import write_image

    plot_solvers(rows, out / "solvers.png", title)
    write_image(out / "swaps.png", solver_sheet(rows, clips, pairs, title))
    header, cells = solver_table(rows)
    for note in notes:
        common.say(note)
    widths = [max(len(line[column]) for line in (header, *cells)) for column in range(len(header))]
    for line in (header, *cells):
        common.say("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)))
    common.say(f"table   {out / 'solvers.md'}\ncurves  {out / 'solvers.png'}\nswaps   {out / 'swaps.png'}")


def _made_with(
    args: Namespace, facts: Mapping[str, Any], pairs: Sequence[Any], num_frames: int, network: str | None
) -> dict[str, Any]:
    """Give all that a setting's numbers depend on besides model and sampling."""
    from divid.evaluation.judge import INFO_NAME, WEIGHTS_NAME
    from divid.training.run_folder import fingerprint

    judge = None if args.judge is None else _digest(*(Path(args.judge) / name for name in (INFO_NAME, WEIGHTS_NAME)))
    return {
        "data": fingerprint(Path(args.data)),
        "pairs": len(pairs),
        "names_of_pairs": hashlib.blake2b(repr(pairs).encode(), digest_size=8).hexdigest(),
        "clips": args.clips,
        "frames": num_frames,
        "judge": judge,
        "feature_network": network,
        **{name: facts[name] for name in ("seed", "batch_clips", "device", "divid")},
    }


def _digest(*paths: Path) -> str:
    """Hash files, or all files of folders."""
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(f"{file.name}\n".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def _check_same_clips(options: Any, student: Any, name: str) -> None:
    shapes = [(model.image_size, model.channels, model.frames_per_sequence) for model in (options, student)]
    if shapes[0] != shapes[1]:
        raise ConfigError(
            f"--student {name} takes (size, channels, frames) {shapes[1]}, not {shapes[0]}: give a student of that model"
        )


def _facts(args: Namespace, device: str, num_pairs: int, batch_clips: int) -> dict[str, Any]:
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
        "batch_clips": batch_clips,
        "seed": args.seed,
        "device": machine,
        "divid": __version__,
        "git_commit": git_commit(),
    }

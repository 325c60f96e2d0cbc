"""Make a trained run part of the package, as a model that `--model NAME` finds without a network.

    .venv/bin/python scripts/bundle.py runs/puppets puppets --evaluation runs/puppets/evaluation --notes notes.yaml

Writes `src/divid/zoo/NAME`: weights in bfloat16, the card with the sheet of swaps, and the checksum of every file.
`notes.yaml` holds what no file of the run says, each key a section of the card: data and its terms, time, machine, limits.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from divid.export import SHEET_NAME, bundle_model


def main() -> None:
    """Read the run, write the bundled model and say where it is and how large."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("name", help="name of the bundled model")
    parser.add_argument("--evaluation", type=Path, help="folder that `divid evaluate` wrote for this run")
    parser.add_argument("--notes", type=Path, required=True, help="YAML: further sections of the card")
    args = parser.parse_args()
    sheet = args.evaluation / "swaps.png" if args.evaluation else None
    folder = bundle_model(args.run, args.name, make_card(args), sheet)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")


def make_card(args: argparse.Namespace) -> dict[str, Any]:
    """Give the card's sections: the notes, the numbers, and what the run was made with."""
    info = json.loads((args.run / "run.json").read_text(encoding="utf-8"))
    card: dict[str, Any] = {"title": f"divid: {args.name}", **yaml.safe_load(args.notes.read_text(encoding="utf-8"))}
    if args.evaluation:
        card["Samples"] = (
            "Held-out pairs drawn at random. Three rows each: A, B (themselves, or as reconstructed, as the labels say), and "
            f"A's look with B's motion.\n\n![Swaps]({SHEET_NAME})"
        )
        card["Numbers"] = read_numbers(args.evaluation)
    card["Made with"] = {key: info[key] for key in ("git_commit", "seed", "device", "versions")}
    card["Recipe"] = yaml.safe_load((args.run / "recipe.yaml").read_text(encoding="utf-8"))
    return card


def read_numbers(folder: Path) -> dict[str, Any]:
    """Give the numbers of an evaluation that fit on a card."""
    results = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    numbers: dict[str, Any] = {
        "held-out PSNR in dB": {name: round(row["mean"], 2) for name, row in results["psnr_db"].items()},
        "held-out clips": results["psnr_db"]["model"]["num_clips"],
        "sampling": results["sampling"],
        "seed": results["seed"],
    }
    if (folder / "swaps.json").is_file():
        swaps = json.loads((folder / "swaps.json").read_text(encoding="utf-8"))
        numbers["judge, joint on real held-out clips"] = _percent(swaps["judge"]["held_out"]["joint"]["rate"])
        numbers["pairs"] = swaps["num_pairs"]
        for row in ("swap", "reconstruction"):
            kept = {name: _percent(swaps["rows"][row][name]["rate"]) for name in ("static", "dynamic", "joint")}
            numbers[f"{row}, judged"] = kept
    if (folder / "leakage.json").is_file():
        leakage = json.loads((folder / "leakage.json").read_text(encoding="utf-8"))
        numbers["leakage"] = _percent(leakage["leakage"])
        numbers["probes"] = {name: _percent(row["accuracy"]) for name, row in leakage["directions"].items()}
    return numbers


def _percent(share: float) -> str:
    is_nearly_all = share < 1 and round(100 * share, 1) == 100  # one of 2,000 is not none
    return f"{100 * share:.{2 if is_nearly_all else 1}f} %"


if __name__ == "__main__":
    main()

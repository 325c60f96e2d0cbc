"""The page of Markdown: what was measured has a section, what was not has none, and every table is one."""

from dataclasses import replace

import pytest

from divid.config import SamplingConfig
from divid.data.clips import ClipDataset
from divid.evaluation.codes import encode_clips
from divid.evaluation.intervals import Rate
from divid.evaluation.leakage import DIRECTIONS, Leakage, ProbeScore
from divid.evaluation.likeness import LikenessStudy
from divid.evaluation.overlap import Explained, Overlap
from divid.evaluation.pairs import PairList
from divid.evaluation.prior import PriorOptions, fit_prior
from divid.evaluation.quality import measure_reconstruction
from divid.evaluation.realism import MapNetwork
from divid.evaluation.report import evaluation_report, markdown_table, percent
from divid.evaluation.sampled import measure_sampled
from divid.evaluation.swap import measure_swaps
from labelled_clips import NUM_FRAMES, KnowingJudge, LabelCodes, judge_config, prepare_clips

OPTIONS = {"num_frames": NUM_FRAMES, "sampling": SamplingConfig()}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    root = tmp_path_factory.mktemp("reported")
    folder = prepare_clips(root / "recordings", root / "set")
    train, test = (ClipDataset.open(folder, split=split) for split in ("train", "test"))
    model, judge = LabelCodes(), KnowingJudge(judge_config(test))
    study = LikenessStudy(MapNetwork("frames|means", lambda frames: [frames]))
    reconstruction = measure_reconstruction(model, test, watch=study.watch, **OPTIONS)
    prior = fit_prior(encode_clips(model, train, num_frames=NUM_FRAMES), PriorOptions(num_steps=1))
    scores = tuple(ProbeScore(direction, "action", 3, 4, 0.25) for direction in DIRECTIONS)
    return reconstruction, {
        "likeness": study.result(),
        "swaps": measure_swaps(model, judge, test, PairList.draw(test, 36), reverse=True, **OPTIONS),
        "sampled": measure_sampled(model, judge, prior, test, **OPTIONS),
        "leakage": Leakage(scores, 27),
        "overlap": Overlap(Explained(0.25, 0.125, 0.5), Explained(-0.01, -0.02, 0.0), 27, 9),
    }


def columns(line):
    return line.replace(r"\|", "").count("|")


def test_a_page_of_everything(measured):
    reconstruction, results = measured
    facts = {"model": "labels", "seed": 0, "sampling": {"solver": "ddim", "num_inference_steps": 3, "spacing": None}}
    pictures = {"swaps.png": "some swaps", "failures.png": "what failed"}
    page = evaluation_report(facts, reconstruction, **results, pictures=pictures)
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert headings == [
        "# Evaluation", "## Reconstruction", "## Likeness", "## Swaps", "## Sampled tokens", "## Leakage",
        "## Overlap of the tokens", "## Pictures",
    ]  # fmt: skip
    all_right, none_leaks = " | 100.0 (90.4 to 100.0)" * 3, " | 0.0 (0.0 to 9.6)" * 2
    assert f"| swap †{all_right}{none_leaks} | 36 |" in page
    all_of_b = " | 0.0 (0.0 to 9.6) | 100.0 (90.4 to 100.0)" * 2
    assert f"| copy B †{all_of_b} | 0.0 (0.0 to 9.6) | 36 |" in page
    assert "| swap, reversed † | 100.0 (90.4 to 100.0) |" in page
    assert "The other clip's action instead: 0.0 (0.0 to 9.6) %." in page
    assert "| sampling | solver ddim, num_inference_steps 3 |" in page
    assert "some swaps\n\n![some swaps](swaps.png)\n\nwhat failed\n\n![what failed](failures.png)" in page
    assert page.index("is not to be trusted") < page.index("| swap †")
    assert "Distances of clips are too large" not in page  # there are more
    assert "| anna | 100.0 (75.8 to 100.0) | 12 |" in page
    assert "Feature network: frames|means." in page
    assert "The judge is not to be trusted: its joint accuracy on held-out real clips is unknown" in page
    assert r"| action: IS / H(y\|x) / H(y) |" in page
    assert "3.00 / 0.000 / 1.099" in page
    assert "fitted afterwards to the codes of 27 training clips" in page
    assert "Leakage, the mean of S->D and D->S: 75.0%; normalised by chance: 66.7%." in page
    assert "Strict, with Dseq->S in place of D->S where it reads more: 75.0%." in page
    assert "| static from dynamic | 25.0% | 12.5% to 50.0% | 9 |" in page
    assert "nan" not in page
    for block in page.split("\n\n"):
        if block.startswith("|"):
            assert len({columns(line) for line in block.splitlines()}) == 1


def test_what_was_not_measured_has_no_section(measured):
    page = evaluation_report({"model": "labels"}, measured[0])
    assert page.count("\n## ") == 1
    assert "PSNR" in page


def test_distances_of_fewer_clips_than_dimensions_are_marked(measured):
    likeness = measured[1]["likeness"]
    few = replace(likeness.frechet["reconstruction"], num_made_clips=1)
    marked = replace(likeness, frechet={**likeness.frechet, "swap": few})
    expected = f"fewer clips than the {2 * few.frame_dim} dimensions of their features (swap 1): compare them with"
    assert likeness.notes == ()
    assert all(
        expected in text for text in (*marked.notes, marked.to_text(), evaluation_report({}, measured[0], likeness=marked))
    )


def test_a_judge_that_is_trusted_marks_nothing(measured):
    swaps = measured[1]["swaps"]
    trusted = replace(swaps, judge={**swaps.judge, "is_trusted": True}, notes=())
    assert "†" in "\n".join(swaps.lines())
    assert "†" not in evaluation_report({}, measured[0], swaps=trusted) + "\n".join(trusted.lines())


def test_tables_escape_bars_and_shares_have_the_wider_interval():
    assert markdown_table(("a", "b"), [("x|y", "1")]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"
    assert percent(None) == "-"
    assert percent(Rate(0.5, 2, (0.1, 0.9), (float("nan"), float("nan")))) == "50.0 (10.0 to 90.0)"
    assert percent(Rate(0.5, 2, (0.3, 0.7), (0.25, 0.65))) == "50.0 (25.0 to 70.0)"

"""The report says what the cells say, and marks what is not to be trusted."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from divid.benchmark.cells import BenchmarkFolder
from divid.benchmark.figures import loss_curves, plot_training, swap_figure
from divid.benchmark.pages import Heading, Links, Paragraph, Picture, Table, to_html, to_markdown
from divid.benchmark.plan import cells_of, load_plan
from divid.benchmark.report import MARK, NOTHING, list_cells, report_blocks, write_report
from divid.benchmark.scoring import FIGURE_PARTS, load_figure, save_figure
from divid.evaluation.intervals import wilson_interval
from divid.evaluation.leakage import DIRECTIONS
from divid.json_files import write_json
from divid.methods import METHODS


@pytest.fixture(scope="module")
def report(finished):
    return json.loads((finished[1].path / "benchmark.json").read_text())


@pytest.fixture(scope="module")
def page(finished):
    return (finished[1].path / "benchmark.md").read_text()


def test_numbers_equal_the_cells(finished, report):
    _, folder = finished
    for method, described in report["data"]["made"]["methods"].items():
        results = [folder.cell(name).read_result() for name in described["cells"]]
        assert [result["seed"] for result in results] == described["seeds"] == [0, 1]
        measures = described["measures"]
        for part in ("static", "dynamic", "joint"):
            rates = [result["swaps"]["rows"]["swap"][part]["rate"] for result in results]
            assert measures[part]["values"] == rates
            assert measures[part]["mean"] == pytest.approx(np.mean(rates))
            assert measures[part]["spread"] == pytest.approx(np.std(rates, ddof=1))
            assert 0 <= measures[part]["low"] <= measures[part]["mean"] <= measures[part]["high"] <= 1
        assert measures["leakage"]["values"] == pytest.approx([result["leakage"]["leakage"] for result in results])
        for direction in DIRECTIONS:
            read = [result["leakage"]["directions"][direction]["accuracy"] for result in results]
            assert measures[direction]["values"] == pytest.approx(read)
        assert measures["normalised leakage"]["values"] == [result["leakage"]["normalised_leakage"] for result in results]
        assert measures["strict leakage"]["values"] == [result["leakage"]["strict_leakage"] for result in results]
        reconstructed = [result["swaps"]["rows"]["reconstruction"]["joint"]["rate"] for result in results]
        assert measures["joint, reconstructed"]["values"] == reconstructed
        assert measures["psnr_db"]["values"] == [result["psnr_db"]["model"]["mean"] for result in results]
        assert described["parameters"] == results[0]["parameters"]
        assert described["training_seconds"] == pytest.approx(np.mean([result["training"]["seconds"] for result in results]))
        assert described["num_pairs"] == 12
        assert method in ("tiny", "fast", "few-steps")


def test_controls_and_chance_are_those_of_the_swap_test(finished, report):
    result = finished[1].cell("made/fast/seed-1").read_result()
    data = report["data"]["made"]
    assert {name: row["joint"]["rate"] for name, row in data["controls"].items()} == {
        name: result["swaps"]["rows"][name]["joint"]["rate"] for name in ("real", "copy A", "copy B")
    }
    assert data["chance"] == result["swaps"]["chance"]


def test_the_page_has_all_rows_marks_the_judge_and_says_how_it_was_made(page, report):
    data = report["data"]["made"]
    assert not data["judge"]["is_trusted"]
    assert f"{MARK} Under 95 %: it is not to be trusted." in page
    for row in ("Tiny", "fast", "few-steps"):
        assert re.search(rf"^\| {row} {MARK} \| 12 \|", page, flags=re.MULTILINE), row
    for row in ("real", "copy A", "copy B"):
        assert re.search(rf"^\| {row} {MARK} \|", page, flags=re.MULTILINE), row
    assert re.search(r"^\| chance \| – \| 33.3 \| 33.3 \| 11.1 \| – \|", page, flags=re.MULTILINE)
    joint = data["methods"]["tiny"]["measures"]["joint"]
    assert f"{100 * joint['mean']:.1f} ± {100 * joint['spread']:.1f} ({100 * joint['low']:.1f} to" in page
    for text in (
        "joint, unseen",
        "Seeds 0, 1.",
        "divid benchmark made-up",
        "| trained at |",
        "| evaluated at |",
        "joint, reconstructed",
        "strict",
        "| machines |",
        "judge of made",
        "S->D",
        "D->D",
    ):
        assert text in page


def table(page, heading):
    """Cells of the table that has a column of this heading, row by row; the first two are its head."""
    tables = ([[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()] for block in page.split("\n\n"))
    return next(rows for rows in tables if heading in rows[0])


def test_every_class_has_a_row_and_every_method_a_column(finished, report, page):
    _, folder = finished
    methods = report["data"]["made"]["methods"]
    for name, kind, labels in (("subject", "static", ["anna", "ben", "cleo"]), ("action", "dynamic", ["fall", "rise", "stay"])):
        head, _, *rows = table(page, f"{name} ({kind})")
        assert head[1:] == ["N", f"Tiny {MARK}", f"fast {MARK}", f"few-steps {MARK}"]
        assert [row[0] for row in rows] == ["all", *labels]
        assert int(rows[0][1]) == sum(int(row[1]) for row in rows[1:]) == 12
        for place, described in enumerate(methods.values(), start=2):
            factors = [folder.cell(cell).read_result()["swaps"]["factors"][name] for cell in described["cells"]]
            counted = {"all": [factor["kept"] for factor in factors]}
            counted |= {label: [factor["classes"][label] for factor in factors] for label in labels}
            known = {"all": described["factors"][name]["kept"], **described["factors"][name]["classes"]}
            assert list(known) == list(counted)
            for row, (label, rates) in zip(rows, counted.items(), strict=True):
                assert known[label]["values"] == [rate["rate"] for rate in rates]
                assert row[1] == str(known[label]["num"]) == str(rates[0]["num"])
                mean = 50 * (rates[0]["rate"] + rates[1]["rate"])
                assert row[place].startswith(f"{mean:.1f} ±")


def test_every_two_methods_are_compared_on_the_seeds_that_both_have(finished, report, page):
    _, folder = finished
    rows = report["data"]["made"]["differences"]
    names = list(report["data"]["made"]["methods"])
    assert [(row["method"], row["other"]) for row in rows] == [(names[0], names[1]), (names[0], names[2]), (names[1], names[2])]
    for row in rows:
        assert row["seeds"] == [0, 1]
        results = [
            [folder.cell(f"made/{row[side]}/seed-{seed}").read_result() for seed in (0, 1)] for side in ("method", "other")
        ]
        joint = [[result["swaps"]["rows"]["swap"]["joint"]["rate"] for result in side] for side in results]
        assert row["measures"]["joint"]["values"] == pytest.approx(np.subtract(*joint))
        psnr = [np.mean([result["psnr_db"]["model"]["mean"] for result in side]) for side in results]
        assert row["measures"]["psnr_db"]["mean"] == pytest.approx(psnr[0] - psnr[1])
    head, _, *shown = table(page, "minus")
    assert head == ["method", "minus", "seeds", "static", "dynamic", "joint", "joint, reconstructed", "leakage", "PSNR dB"]
    labels = ["Tiny", "fast", "few-steps"]
    assert [row[:3] for row in shown] == [
        [f"{labels[i]} {MARK}", f"{labels[k]} {MARK}", "2"] for i, k in ((0, 1), (0, 2), (1, 2))
    ]
    assert all(re.fullmatch(r"[+-]\d+\.\d\d ± .*", row[-1]) for row in shown)


def test_a_difference_pair_by_pair_is_narrower_than_that_of_strangers(rewrite):
    """Both are right in the same half of the pairs, and one of them in one more: most of the chance is common to both."""

    def change(method, seed, result, cell):
        answers = "111111000000" if method == "tiny" else "111111100000"
        result["swaps"]["outcomes"].update(static=answers, dynamic="1" * 12)
        result["leakage"] = None

    data = rewrite(change)[0]["data"]["made"]
    rows = {(row["method"], row["other"]): row["measures"] for row in data["differences"]}
    measured = rows["tiny", "fast"]["joint"]
    assert measured["values"] == pytest.approx([-1 / 12, -1 / 12])
    assert measured["low"] <= -1 / 12 <= measured["high"]
    widths = [wilson_interval(right, 12) for right in (6, 7)]
    assert measured["high"] - measured["low"] < np.hypot(*(high - low for low, high in widths))
    assert "leakage" not in rows["tiny", "fast"]
    alike = rows["fast", "few-steps"]["joint"]
    assert (alike["mean"], alike["spread"]) == (0, 0)
    assert -0.2 < alike["low"] == -alike["high"] < 0


@pytest.fixture
def rewrite(finished, tmp_path):
    """Change results in a copy of the finished benchmark, (method, seed, result, cell) at a time: (the report, its page)."""
    plan = load_plan(finished[0])
    copy = BenchmarkFolder(shutil.copytree(finished[1].path, tmp_path / "copy"))

    def written(change):
        for spec in cells_of(plan):
            cell = copy.cell(spec.name)
            result = cell.read_result()
            change(spec.method, spec.seed, result, cell)
            write_json(cell.result, result)
        page = write_report(plan, cells_of(plan), copy).read_text()
        return json.loads((copy.path / "benchmark.json").read_text()), page

    return written


def test_classes_are_averaged_over_the_seeds(rewrite):
    def change(method, seed, result, cell):
        if method == "fast":
            result["swaps"]["factors"]["subject"]["classes"]["ben"].update(rate=(0.25, 0.75)[seed], num=7)

    report, page = rewrite(change)
    ben = report["data"]["made"]["methods"]["fast"]["factors"]["subject"]["classes"]["ben"]
    assert (ben["mean"], ben["num"]) == (0.5, 7)
    assert ben["spread"] == pytest.approx(0.5 / 2**0.5)
    row = next(row for row in table(page, "subject (static)") if row[0] == "ben")
    assert row[3].startswith("50.0 ± 35.4 (")


def test_cells_without_classes_and_failures_have_empty_places(rewrite):
    def change(method, seed, result, cell):
        if (method, seed) == ("tiny", 1):
            del result["swaps"]["factors"]
            cell.failed_swaps.unlink(missing_ok=True)
        if method == "fast":
            del result["swaps"]["factors"]["action"]["classes"]["fall"]

    report, page = rewrite(change)
    methods = report["data"]["made"]["methods"]
    assert methods["tiny"]["factors"] == {}
    assert "fall" not in methods["fast"]["factors"]["action"]["classes"]
    rows = table(page, "action (dynamic)")[2:]
    assert [row[2] for row in rows] == [NOTHING] * 4
    assert {row[0]: row[3] == NOTHING for row in rows} == {"all": False, "rise": False, "stay": False, "fall": True}
    assert NOTHING not in [row[4] for row in rows]
    assert report["cells"]["made/tiny/seed-1"]["failed_swaps"] is None
    assert "[Tiny, seed 0](cells/made/tiny/seed-0/failures.png)" in page
    assert "[Tiny, seed 1]" not in page


def test_without_any_classes_and_failures_there_are_no_sections_of_them(rewrite):
    def change(method, seed, result, cell):
        del result["swaps"]["factors"]
        cell.failed_swaps.unlink(missing_ok=True)

    page = rewrite(change)[1]
    assert "Swaps by class" not in page
    assert "Failed swaps" not in page


def test_flicker_stands_beside_the_other_likeness_where_it_was_measured(rewrite):
    estimate = {"mean": 0.5, "low": 0.4, "high": 0.6, "num_clips": 9}
    flicker = {"fast": {"flicker": {"ratio": None, "made_levels": 0.5, "real_levels": 0.0}}, "few-steps": {}}

    def change(method, seed, result, cell):
        frechet = {"swap": {"frame": 3.0, "clip": 4.0}}
        likeness = {"network": "made-up", "ssim": estimate, "perceptual": estimate, "frechet": frechet}
        result["likeness"] = likeness | flicker.get(
            method, {"flicker": {"ratio": (1.5, 2.0)[seed], "made_levels": (0.3, 0.4)[seed], "real_levels": 0.2}}
        )

    report, page = rewrite(change)
    measures = {name: method["measures"] for name, method in report["data"]["made"]["methods"].items()}
    assert measures["tiny"]["flicker_ratio"]["values"] == [1.5, 2.0]
    assert measures["tiny"]["flicker_ratio"]["mean"] == 1.75
    assert report["cells"]["made/tiny/seed-1"]["measures"]["flicker_ratio"] == [2.0, None, None]
    assert all("flicker_ratio" not in measures[name] and "frechet_clip" in measures[name] for name in flicker)
    head, _, *rows = table(page, "flicker ratio")
    assert head == [
        "",
        "SSIM",
        "perceptual distance",
        "Frechet, frames",
        "Frechet, clips",
        "flicker ratio",
        "levels, made",
        "levels, clips",
    ]
    assert {row[0]: row[5] for row in rows} == {"Tiny": "1.750 ± 0.354", "fast": NOTHING, "few-steps": NOTHING}
    assert {row[0]: row[6] for row in rows} == {"Tiny": "0.350 ± 0.071", "fast": "0.500 ± 0.000", "few-steps": NOTHING}
    assert {row[0]: row[7] for row in rows} == {"Tiny": "0.200 ± 0.000", "fast": "0.000 ± 0.000", "few-steps": NOTHING}
    assert all(row[4] == "4.000 ± 0.000" for row in rows)


def test_links_lead_to_the_failed_swaps(finished, report, page):
    folder = finished[1].path
    html = (folder / "benchmark.html").read_text()
    paths = {name: cell["failed_swaps"] for name, cell in report["cells"].items() if cell["failed_swaps"]}
    assert paths
    for name, path in paths.items():
        method, seed = name.split("/")[1:]
        title = f"{report['data']['made']['methods'][method]['label']}, seed {seed.removeprefix('seed-')}"
        assert f"[{title}]({path})" in page
        assert f'<a href="{path}">{title}</a>' in html
        assert (folder / path).is_file()


def test_tables_are_whole(page):
    for block in page.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def test_pictures_stand_beside_the_page_and_in_the_html(finished, page):
    folder = finished[1].path
    for name in ("swaps-made.png", "training-made.png"):
        assert f"({name})" in page
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200
    text = (folder / "benchmark.html").read_text()
    assert text.count("data:image/png;base64,") == 2

    class Tables(HTMLParser):
        found = 0

        def handle_starttag(self, tag, attributes):
            self.found += tag == "table"

    parser = Tables()
    parser.feed(text)
    assert parser.found == sum(block.startswith("|") for block in page.split("\n\n"))


def test_the_figure_has_source_target_and_each_method_for_every_pair(finished):
    folder = finished[1]
    one = load_figure(folder.cell("made/tiny/seed-0").figure)
    assert set(one) == set(FIGURE_PARTS)
    assert one["swap"].shape == (3, 5, 8, 8, 1)
    methods = {name: folder.cell(f"made/{name}/seed-0").figure for name in ("tiny", "fast")}
    sheets = [swap_figure(dict(list(methods.items())[:count]), "title") for count in (1, 2)]
    rows = 3  # pairs
    assert sheets[1].height - sheets[0].height == rows * (64 + 4)


def test_figures_come_back_as_they_were_saved(tmp_path):
    frames = {name: np.arange(24, dtype=np.uint8).reshape(1, 2, 2, 2, 3)[::-1] for name in FIGURE_PARTS}
    save_figure(tmp_path / "f.safetensors", frames)
    assert all(np.array_equal(frames[name], again) for name, again in load_figure(tmp_path / "f.safetensors").items())


def test_losses_that_count_differently_are_drawn_over_their_own_at_the_end():
    def falling(height):
        return [{"step": step, "train/total": height * (1 + 99 * (step < 50))} for step in range(1, 101)]

    curves, is_relative = loss_curves({"mean": falling(0.02), "sum": falling(3e4), "none": []})
    assert is_relative
    assert curves["mean"] == pytest.approx(curves["sum"], rel=1e-6)
    assert (curves["mean"][0, 1], curves["mean"][-1, 1]) == (pytest.approx(100), pytest.approx(1))
    assert not len(curves["none"])
    near, is_relative = loss_curves({"a": falling(0.02), "b": falling(0.1)})
    assert not is_relative
    assert near["b"][-1, 1] == pytest.approx(0.1)
    noisy = [{"step": step, "train/total": 10.0 ** (step % 3 - 1)} for step in range(1, 100)]
    assert loss_curves({"noisy": noisy})[0]["noisy"][10:-10, 1] == pytest.approx(1)  # of nine rows, three of each


def test_training_without_values_gives_no_picture(tmp_path):
    assert not plot_training({"a": tmp_path / "none.csv"}, "title", tmp_path / "t.png")
    assert not (tmp_path / "t.png").exists()


def test_a_report_of_nothing_says_so(finished, tmp_path):
    plan = load_plan(finished[0])
    text = write_report(plan, cells_of(plan), BenchmarkFolder(tmp_path)).read_text()
    assert "0 of 6 cells are done." in text
    assert "The judge is not trained yet." in text
    assert "| made/tiny/seed-0 | open |" in text


def test_the_list_names_every_cell(finished):
    plan, folder = finished
    lines = list_cells(cells_of(load_plan(plan)), folder)
    assert len(lines) == 6
    assert all(line.endswith("done") for line in lines)


def test_pages_escape_what_their_language_takes_for_itself(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "p.png")
    blocks = [Heading("A <b>", 1), Paragraph("x & y"), Table(["", "n"], [["a|b", "<1"]]), Picture(tmp_path / "p.png", 'the "p"')]
    blocks.append(Links("<all>:", {"a [b]": "d/e f.png", "<c>": "g.png"}))
    assert to_markdown(blocks).splitlines() == [
        "# A <b>", "", "x & y", "", "|  | n |", "| --- | ---: |", "| a\\|b | <1 |", "", '![the "p"](p.png)', "",
        r"<all>: [a \[b\]](d/e%20f.png), [<c>](g.png)",
    ]  # fmt: skip
    text = to_html(blocks)
    for part in (
        "<h1>A &lt;b&gt;</h1>",
        "<title>A &lt;b&gt;</title>",
        "x &amp; y",
        "<td>a|b</td><td>&lt;1</td>",
        "the &quot;p&quot;",
        '<p>&lt;all&gt;: <a href="d/e%20f.png">a [b]</a>, <a href="g.png">&lt;c&gt;</a></p>',
    ):
        assert part in text


def test_a_method_that_decodes_in_one_pass_has_no_steps(finished, report, monkeypatch):
    assert "one pass" not in report_text(report)
    sampling = {**report["data"]["made"]["methods"]["tiny"]["sampling"], "is_one_pass": True}
    monkeypatch.setitem(report["data"]["made"]["methods"]["tiny"], "sampling", sampling)
    assert "| one pass, 3 clips at once |" in report_text(report)


def test_baselines_say_that_they_decode_in_one_pass():
    assert METHODS["dbse"].decodes_in_one_pass
    assert not hasattr(METHODS["divid"], "decodes_in_one_pass")


def report_text(report):
    return to_markdown(report_blocks(report, {}))

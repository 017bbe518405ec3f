"""The experiments' tables and report; the runs themselves are dance-train's, tested there."""
import contextlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")
pytest.importorskip("onnx")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from dance_deploy.bundle import open_bundle  # noqa: E402
from dance_deploy.cli.entry import exit_code_of  # noqa: E402
from dance_deploy.data import open_dataset  # noqa: E402
from dance_deploy.errors import InputError  # noqa: E402
from dance_deploy.export.bundle_from_checkpoint import bundle_from_checkpoint  # noqa: E402
from dance_deploy.export.untrained import untrained_checkpoint  # noqa: E402
from dance_deploy.runtime.kernels import library_path  # noqa: E402
from tools.experiments import __main__ as command  # noqa: E402
from tools.experiments import fresh, times  # noqa: E402
from tools.experiments.fresh_report import write_fresh  # noqa: E402
from tools.experiments.fresh_rows import ALONE, DENSE, Answers, of_common_seeds, rows_of  # noqa: E402
from tools.experiments.fresh_times import Times  # noqa: E402
from tools.experiments.report import rank_correlation, write_report  # noqa: E402
from tools.experiments.runs import dataset_of, options_of, random_network, runs_of  # noqa: E402
from tools.experiments.table import NO_GATES, TABLES, Setting, Table  # noqa: E402
from tools.experiments.times_report import GATED, UNGATED, Point, write_times  # noqa: E402


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_every_setting_is_one_that_training_takes(table):
    runs = list(runs_of(table, [], [], []))
    for run in runs:
        options_of(table, run, table.data or "videos", Path("x")).check()
    assert len({r.checkpoint(Path("x")) for r in runs}) == len(runs) == (
        len(table.settings) * len(table.seeds) * len(table.folds))
    for run in runs:
        if not run.setting.own_dense:  # what it starts from is trained before it
            assert any(r.setting.own_dense and (r.seed, r.fold) == (run.seed, run.fold)
                       for r in runs[:runs.index(run)])


@pytest.mark.parametrize("data", ["folder", "rendered"])
def test_a_table_is_trained_once_and_reported(data, tmp_path, monkeypatch, capfd):
    pytest.importorskip("av")
    settings = {"dance": Setting("gates", {"epochs_ava": 1, "epochs_aap": 1}, own_dense=True),
                "only": Setting("none", {"static_share": 0.5, "epochs_static": 1, **NO_GATES}),
                "half": Setting("smaller", {"epochs_dense": 1, **NO_GATES}, clip={"clip": "6x10x12"}),
                "both": Setting("smaller and pruned", {"epochs_dense": 1, "static_share": 0.5, "epochs_static": 1,
                                                       **NO_GATES}, clip={"clip": "6x10x12"})}
    table = Table("Tiny", "small", settings, options={"clip": "6x20x24"}, seeds=(0,),
                  changes={"epochs_dense": 1, "windows": 1})
    monkeypatch.setitem(TABLES, "tiny", table)
    runs = tmp_path / "runs"
    if data == "rendered":
        table.options["render_clips"] = 4
    else:
        data = tmp_path / "videos"
        open_dataset("rendered", render_dir=data, clips_per_class=4, size=(32, 32), frames=8)
    asked = ["tiny", "--data", str(data), "--runs", str(runs), "--out", str(tmp_path), "--threads", "1"]
    threads = torch.get_num_threads()
    try:
        assert exit_code_of(command.app, asked) == 0, capfd.readouterr().err
        first = {path: path.stat().st_mtime_ns for path in runs.glob("*.pt")}
        assert {path.name for path in first} == {"dance_s0.pt", "only_s0.pt", "half_s0.pt", "both_s0.pt"}
        assert exit_code_of(command.app, asked) == 0
        assert first == {path: path.stat().st_mtime_ns for path in runs.glob("*.pt")}
    finally:
        torch.set_num_threads(threads)
    report = (tmp_path / "tiny.md").read_text()
    for name, share in (("only", r"0\.[345]"), ("half", r"0\.[123]"), ("both", r"0\.[01]")):
        assert re.search(rf"\| `{name}` \(1\) \| {share}", report)
    # as the network was after its last phase without gates
    found = {line["setting"]: line for line in map(json.loads, (tmp_path / "tiny.jsonl").read_text().splitlines())}
    for name, stage in (("half", "dense"), ("both", "static")):
        scores = json.loads((runs / f"{name}_s0.train" / "results.json").read_text())["scores"]
        assert found[name]["static"] == scores[found[name]["split"]][stage]


@pytest.mark.skipif(library_path() is None, reason="the op library is not built: run make -C kernels")
def test_finished_runs_answer_new_clips_once(tmp_path, monkeypatch, capfd):
    pytest.importorskip("av")
    settings = {"dance": Setting("gates", {"epochs_ava": 1, "epochs_aap": 1}, own_dense=True),
                "only": Setting("none", {"static_share": 0.5, "epochs_static": 1, **NO_GATES}),
                "random": Setting("random masks", {"epochs_ava": 0, "epochs_aap": 1, "random_masks": True,
                                                   "kinds": ("channels", "features"), "static_share": 0.6,
                                                   "epochs_static": 1}),
                "half": Setting("smaller", {"epochs_dense": 1, **NO_GATES}, clip={"clip": "6x10x12"})}
    monkeypatch.setitem(TABLES, "tiny", Table(
        "Tiny", "small", settings, data="rendered", options={"clip": "6x20x24", "render_clips": 4}, seeds=(0,),
        changes={"epochs_dense": 1, "windows": 1}))
    runs = tmp_path / "runs"
    threads = torch.get_num_threads()
    try:
        asked = ["tiny", "--runs", str(runs), "--out", str(tmp_path)]
        assert exit_code_of(command.app, [*asked, "--threads", "1", "--as-trained"]) == 0, capfd.readouterr().err
    finally:
        torch.set_num_threads(threads)
    asked += ["--only", "dance,only,random,half", "--clips", "2"]
    assert exit_code_of(fresh.app, asked) == 0, capfd.readouterr().err
    monkeypatch.setattr(fresh, "Evaluator", lambda *_, **__: pytest.fail("was measured before"))
    assert exit_code_of(fresh.app, asked) == 0
    found = json.loads((tmp_path / "tiny-fresh.json").read_text())
    points = found["points"]
    assert {(p["setting"], p["what"]) for p in points} == {
        ("dance", "dense"), ("dance", "gated"), ("only", "without gates"), ("random", "gated"),
        ("half", "without gates")}
    assert len(found["difficulty"]) == 16 and all(len(p["right_windows"]) == len(p["right_clip"]) == 16 for p in points)
    assert all(0 <= right <= p["windows"] for p in points for right in p["right_windows"])
    own = {line["setting"]: line for line in map(json.loads, (tmp_path / "tiny.jsonl").read_text().splitlines())}
    for point in points:
        if point["what"] == "without gates":
            of = own[point["setting"]]
            assert point["shares"] == [pytest.approx(of["pruned_macs"] / of["original_macs"], abs=1e-4)] * 16
    # other clips than the table's own, but what its network answers to those is what training measured
    own_seeds, new_seeds = ({row.rsplit(",", 1)[1] for row in (runs / name / "manifest.csv").read_text().split()[1:]}
                            for name in ("rendered", "rendered-fresh-2"))
    assert own_seeds and new_seeds and not own_seeds & new_seeds
    run = next(run for run in runs_of(TABLES["tiny"], ["dance"], [0], []))
    monkeypatch.undo()
    monkeypatch.setitem(TABLES, "tiny", Table("Tiny", "small", settings, data="rendered", seeds=(0,),
                                              options={"clip": "6x20x24", "render_clips": 4}))
    dataset = dataset_of("rendered", runs, TABLES["tiny"], run)
    again = fresh._answers_of_run(run, runs, own["dance"], dataset)
    results = json.loads((runs / "dance_s0.train" / "results.json").read_text())
    scores = results["scores"][own["dance"]["split"]]["gated"]
    assert [(one.budget, sum(one.right_windows), sum(one.right_clip)) for one in again] == [
        (score["budget"], score["right_windows"], score["right_clips"]) for score in scores]
    assert [np.mean(one.shares) for one in again] == [pytest.approx(score["share"], abs=1e-3) for score in scores]
    # random masks: of the trained network, others for each clip, and as many as its gates would keep
    run = next(run for run in runs_of(TABLES["tiny"], ["random"], [0], []))
    assert not run.checkpoint(runs).is_file()
    network = random_network(run, runs)
    clip = next(fresh.Evaluator(dataset, workers=0, device=torch.device("cpu")).batches()).clip[:1]
    network(torch.cat([clip, clip]), torch.full((2,), 0.3))
    kept = [mask.flatten(1) for gate in network.gates for mask in gate.masks]
    assert kept[1][0].sum() == kept[1][1].sum() and any((mask[0] != mask[1]).any() for mask in kept)
    answers = fresh._answers_of_random(run, runs, own["random"], dataset)
    scores = json.loads((runs / "random_s0.train" / "results.json").read_text())["scores"][own["random"]["split"]]
    pruned = own["random"]["pruned_macs"] / own["random"]["original_macs"]
    assert [np.mean(one.shares) for one in answers] == [
        pytest.approx(pruned * score["share"], abs=0.03) for score in scores["gated"]]


def test_new_clips_are_rendered_ones(tmp_path, capfd):
    code = exit_code_of(fresh.app, ["weizmann", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path), "--only",
                                    "dance"])
    err = capfd.readouterr().err
    assert code == 2 and err.count("\n") == 1 and "'weizmann'" in err and list(tmp_path.iterdir()) == []


def test_points_with_gates_are_chosen_by_one_half_of_the_new_clips_and_measured_on_the_other(tmp_path):
    """Even clips are answered best at budget 0.5, odd ones at 0.4, so the odd are measured at 0.5, the even at 0.4."""
    def answers(setting, what, budget, right, share):
        return [Answers(setting, seed, what, budget, 5, right * 5, [1] * 9 + [0],
                        [share + 0.01 * i for i in range(10)]) for seed in (0, 1)]

    points = [*answers("dance", DENSE, None, [4, 5], 1.0), *answers("dance", GATED, 0.9, [5, 5], 0.9),
              *answers("dance", GATED, 0.5, [5, 3], 0.4), *answers("dance", GATED, 0.4, [4, 4], 0.3),
              *answers("only-bn-50", ALONE, None, [3, 3], 0.5), *answers("only-bn-25", ALONE, None, [3, 3], 0.25)]
    write_fresh(tmp_path, "rendered", points, [i / 10 for i in range(10)])
    text = (tmp_path / "rendered-fresh.md").read_text()
    assert "| dense network (the teacher) | 2 |  | 1.045 | 90.0 % (90.0-90.0) | 90.0 % (90.0-90.0) |  |  |" in text
    assert "| dance | 2 | 0.5 | 0.445 | 90.0 % (90.0-90.0) | 80.0 % (80.0-80.0) | -10.00 (" in text
    assert "| +1.00, +1.00 |" in text
    found = re.search(r"\| `only-bn-50` \(2\) \| 0.545 \| 90.0 % \| 60.0 % \| `dance` at budget 0.5, `dance` at budget "
                      r"0.4 \| 0.395 \| 90.0 % \| 70.0 % \| \+10.00 \((.*) to (.*)\) \| \+10.0, \+10.0 \|", text)
    assert 0.0 < float(found[1]) < 10.0 < float(found[2]) < 20.0  # five clips at +20, five at 0
    assert "| `only-bn-25` (2) | 0.295 | 90.0 % | 60.0 % | none |" in text
    assert (tmp_path / "rendered-fresh.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "rendered-fresh.json").read_text())["points"]) == 12


def test_seeds_are_compared_with_themselves_whatever_their_order(tmp_path):
    """Two points that answer alike, seed by seed; one in the order 0, 1, the other 1, 0. A third of seed 1 alone."""
    def answers(setting, what, budget, seed, share=0.5):
        return Answers(setting, seed, what, budget, 5, [1 + 3 * seed] * 10, [seed] * 10, [share + 0.1 * seed] * 10)

    points = [answers("dance", DENSE, None, 1), answers("dance", DENSE, None, 0), answers("dance", GATED, 0.5, 0),
              answers("dance", GATED, 0.5, 1), answers("only-bn-50", ALONE, None, 1),
              answers("only-bn-50", ALONE, None, 0), answers("only-bn-25", ALONE, None, 1, 0.45)]
    write_fresh(tmp_path, "rendered", points, [i / 10 for i in range(10)])
    text = (tmp_path / "rendered-fresh.md").read_text()
    assert "| dance | 2 | 0.5 | 0.550 | 50.0 % (0.0-100.0) | 50.0 % (20.0-80.0) | +0.00 (+0.00 to +0.00) |" in text
    assert re.search(r"\| `only-bn-50` \(2\) \|.* \| \+0.0, \+0.0 \|", text)
    assert "| `only-bn-25` (1) | 0.550 | 100.0 % | 80.0 % | none |" in text  # gates take 0.6 with that seed


def test_settings_that_differ_in_one_thing_stand_side_by_side_at_equal_budgets(tmp_path):
    """dance with seeds 2 and 0, ava-0 with 0 and 1: seed 0 is all they share; budget 0.3 only one of them has."""
    def answers(setting, budget, seed, right):
        return Answers(setting, seed, GATED, budget, 5, right * 5, [1] * 10, [budget] * 10)

    points = [answers("dance", 0.5, 2, [0, 0]), answers("dance", 0.5, 0, [5, 4]), answers("dance", 0.3, 0, [5, 5]),
              answers("dance", 0.4, 0, [4, 4]), answers("ava-0", 0.5, 0, [4, 4]), answers("ava-0", 0.4, 0, [4, 3]),
              answers("ava-0", 0.5, 1, [5, 5])]
    write_fresh(tmp_path, "rendered", points, [i / 10 for i in range(10)])
    text = (tmp_path / "rendered-fresh.md").read_text()
    assert "Rows of other runs do not compare" in text
    alike = of_common_seeds(rows_of(points))
    assert {row.seeds for row in alike} == {(0,)} and alike[0].windows.mean() == 90.0  # as the plot has it
    lines = [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| AVA")]
    assert lines == ["0.5", "0.4", "mean of 2"]
    found = re.search(r"\| AVA's term \| 0.5 \| 0.500, 0.500 \| \+10.00 \((.*) to (.*)\) \| \+10.0 \|", text)
    assert 0.0 < float(found[1]) < 10.0 < float(found[2]) < 20.0
    assert "| AVA's term | mean of 2 | 0.450, 0.450 | +10.00 (+10.00 to +10.00) | +10.0 |" in text


def test_points_with_gates_stand_beside_networks_of_the_same_time(tmp_path):
    """Halfway in time between networks with 40 and 80 % right; the windows of both seeds count, the others do not."""
    def answers(setting, what, budget, right):
        return [Answers(setting, seed, what, budget, 5, [right] * 10, [1] * 10, [0.2] * 10) for seed in (0, 1)]

    def timed(setting, what, budget, ms):
        return [Point(setting, seed, what, budget, 0.2, 1, 1, 1, 1, [ms - 1.0, ms + 1.0]) for seed in (1, 0)]

    gated = [("static25", GATED, 1.0, 4, 9.0), ("static25", GATED, 0.5, 4, 4.0), ("static25", GATED, 0.4, 3, 3.0),
             ("static25", GATED, 0.3, 3, 1.5)]
    alone = [("only-bn-15", 2, 3.0), ("only-bn-25", 4, 5.0), ("only-bn-10-all", 1, 2.0)]
    points = [one for setting, what, budget, right, _ in gated for one in answers(setting, what, budget, right)]
    points += [one for setting, right, _ in alone for one in answers(setting, ALONE, None, right)]
    points += [Answers("only-bn-20", 1, ALONE, None, 5, [5] * 10, [1] * 10, [0.2] * 10)]  # lacks a seed
    times = [one for setting, what, budget, _, ms in gated for one in timed(setting, what, budget, ms)]
    times += [one for setting, _, ms in alone for one in timed(setting, UNGATED, None, ms)]
    times += timed("only-bn-20", UNGATED, None, 4.0) + timed("only-bn-25", "OpenVINO", None, 6.0)
    times += timed("no-ava", GATED, 0.5, 4.0)
    write_fresh(tmp_path, "rendered", points, [i / 10 for i in range(10)], Times("rendered-time", times))
    text = (tmp_path / "rendered-fresh.md").read_text()
    lines = [line for line in text.splitlines() if "our kernels" in line or "OpenVINO" in line]
    head, rest = "| `static25` at budget {} | 0.200 | 100.0 % | {} % | {} | ", " | 0.200 | 100.0 % | {} % | {} | {} |"
    assert lines == [
        head.format(1, "80.0", "9.00") + "`only-bn-25`, our kernels | 5.00" + rest.format(
            "80.0", "+0.00 (+0.00 to +0.00)", "+0.0, +0.0"),
        head.format(0.5, "80.0", "4.00") + "`only-bn-15` to `only-bn-25`, our kernels | 3.00 to 5.00" + rest.format(
            "60.0", "+20.00 (+20.00 to +20.00)", "+20.0, +20.0"),
        head.format(0.4, "60.0", "3.00") + "`only-bn-15`, our kernels | 3.00" + rest.format(
            "40.0", "+20.00 (+20.00 to +20.00)", "+20.0, +20.0"),
        head.format(0.3, "60.0", "1.50") + "`only-bn-10-all`, our kernels | 2.00" + rest.format(
            "20.0", "+40.00 (+40.00 to +40.00)", "+40.0, +40.0"),
        *(head.format(budget, right, ms) + "`only-bn-25`, OpenVINO | 6.00" + rest.format(
            "80.0", f"{points} ({points} to {points})", f"{seed}, {seed}") for budget, right, ms, points, seed in (
                (1, "80.0", "9.00", "+0.00", "+0.0"), (0.5, "80.0", "4.00", "+0.00", "+0.0"),
                (0.4, "60.0", "3.00", "-20.00", "-20.0"), (0.3, "60.0", "1.50", "-20.00", "-20.0")))]


@pytest.mark.parametrize(("text", "why"), [("{", "cannot be read"), ('{"table": "rendered-large"}', "of table"),
                                           ('{"table": "rendered", "points": [1]}', "cannot be read"),
                                           ("[]", "cannot be read"), (None, "cannot be read")])
def test_times_are_those_of_the_table(tmp_path, capfd, text, why):
    if text is not None:
        (tmp_path / "t.json").write_text(text)
    asked = ["rendered", "--runs", str(tmp_path / "runs"), "--only", "dance", "--times", str(tmp_path / "t.json"),
             "--out", str(tmp_path / "out")]
    assert exit_code_of(fresh.app, asked) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "t.json" in err and why in err and not (tmp_path / "out").exists()


def test_an_unfinished_run_of_other_settings_is_begun_again_where_asked(tmp_path, monkeypatch, capfd):
    pytest.importorskip("av")
    changes = {"epochs_dense": 1, "epochs_ava": 0, "epochs_aap": 1, "windows": 1}
    asked = ["tiny", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path), "--threads", "1"]
    threads = torch.get_num_threads()

    def run(batch, *more):
        table = Table("Tiny", "small", {"dense": Setting("none", own_dense=True)}, data="rendered", seeds=(0,),
                      options={"clip": "6x20x24", "render_clips": 4}, changes={**changes, "batch": batch})
        monkeypatch.setitem(TABLES, "tiny", table)
        return exit_code_of(command.app, [*asked, *more])

    try:
        with monkeypatch.context() as patch:
            patch.setattr("dance_deploy.method.training.run._Run._finish", lambda _: pytest.fail("stopped here"))
            with pytest.raises(pytest.fail.Exception):
                run(8)
        assert run(7) == 2
        assert "batch" in capfd.readouterr().err
        assert run(7, "--restart") == 0
        results = json.loads((tmp_path / "runs" / "dense_s0.train" / "results.json").read_text())
        assert results["settings"]["batch"] == 7
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("arguments, said", [
    (["nothing"], "there is no table 'nothing'"), (["weizmann"], "--data is missing"),
    (["weizmann", "--data", ".", "--only", "nonsense"], "'nonsense'"),
    (["rendered", "--out", "/proc/none"], "--out '/proc/none' cannot be made"),
    (["rendered", "--threads", "0"], "--threads")])
@pytest.mark.parametrize("app", [command.app, times.app], ids=["experiments", "times"])
def test_what_cannot_be_is_said_before_the_work(app, arguments, said, tmp_path, monkeypatch, capfd):
    for module, work in ((command, "train_run"), (times, "dataset_of")):
        monkeypatch.setattr(module, work, lambda *_: pytest.fail("the work began"))
    monkeypatch.chdir(tmp_path)
    needed = ["--runs", "runs", *([] if app is command.app or "--only" in arguments else ["--only", "dance"])]
    code = exit_code_of(app, [*needed, "--out", "out", *arguments])
    out, err = capfd.readouterr()
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("arguments, said", [
    (["--only", " , "], "--only names nothing"), (["--only", "dance, random"], "dance_s0 is not finished"),
    (["--only", "random"], "random masks have no checkpoint")])
def test_times_of_what_is_not_there(arguments, said, tmp_path, capfd):
    code = exit_code_of(times.app, ["rendered", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path), *arguments])
    err = capfd.readouterr().err
    assert code == 2 and err.count("\n") == 1 and said in err and list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_drawn_is_known_before_training(tmp_path, monkeypatch, capfd):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    assert exit_code_of(command.app, ["rendered", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]) == 1
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "'matplotlib'" in err and list(tmp_path.iterdir()) == []


def test_names_that_the_table_does_not_have():
    with pytest.raises(InputError, match="'nonsense'"):
        list(runs_of(TABLES["weizmann"], ["nonsense"], [], []))


def test_what_trains_nothing_begins_nothing_again(tmp_path, capfd):
    asked = ["rendered", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path), "--restart", "--report-only"]
    assert exit_code_of(command.app, asked) == 2
    assert capfd.readouterr().err.startswith("error: --report-only trains nothing") and list(tmp_path.iterdir()) == []


@given(values=st.lists(st.integers(-50, 50), min_size=3, max_size=20, unique=True))
def test_rank_correlation_sees_order_alone(values):
    assert rank_correlation(values, [v**3 for v in values]) == pytest.approx(1.0)
    assert rank_correlation(values, [-v for v in values]) == pytest.approx(-1.0)
    assert rank_correlation(values, [7.0] * len(values)) == 0.0


def figures(setting, seed, pruned):
    score = {"right_clips": 9, "clips": 10, "right_windows": 44, "windows": 50, "share": 1.0}
    spread = {stage: {kind: {"variation": 0.1, "hoyer": 0.2} for kind in ("frames", "channels", "features")}
              for stage in ("dense", "aap")}
    clips = [[f"c{i}.mp4", i % 2, 1, 5, 0.3 + 0.01 * i] for i in range(10)]
    gated = [{**score, "budget": b, "share": b - 0.02, "per_clip": clips} for b in (1.0, 0.5)]
    return {"run": f"{setting}_s{seed}", "setting": setting, "seed": seed, "fold": None, "labels": ["a", "b"],
            "original_macs": 1000, "pruned_macs": pruned, "dense": score,
            "static": score if pruned < 1000 else None, "spread": spread, "gated": gated}


def test_report_says_shares_of_the_original_network_and_what_has_not_run(tmp_path):
    measured = [figures("dance", 0, 1000), figures("dance", 1, 1000), figures("static25", 0, 250)]
    write_report(TABLES["weizmann"], "weizmann", measured, tmp_path, {f"c{i}.mp4": i / 10 for i in range(10)})
    text = (tmp_path / "weizmann.md").read_text()
    assert "| 2 | 0.5 | 0.480 | 9.0 of 10 (9-9) | 88.0 % (88.0-88.0) |" in text
    assert "| 1 | 0.5 | 0.120 | 9.0 of 10 |" in text and "gates not yet trained | 1 |  | 0.250 |" in text
    assert "Not run: `no-ava`" in text and "| dance_s0 | 0.98 | 0.48 | -0.020 |" in text
    assert "| dance_s0 | 0.30 | 0.34 | 0.39 | +1.00 |" in text
    assert [json.loads(line)["run"] for line in (tmp_path / "weizmann.jsonl").read_text().splitlines()] == [
        "dance_s0", "dance_s1", "static25_s0"]
    assert (tmp_path / "weizmann.png").read_bytes().startswith(b"\x89PNG")
    assert "Mean share per class at budget 0.5 (`dance_s0`): a 0.34, b 0.35." in text


def test_dense_networks_alone_are_reported(tmp_path):
    table = Table("Tiny", "small", {"plain": Setting("a dense network", own_dense=True)})
    write_report(table, "tiny", [{**figures("plain", 0, 1000), "gated": []}], tmp_path, {})
    assert "| dense network (the teacher) | 1 |  | 1.000 | 9.0 of 10 | 88.0 % |" in (tmp_path / "tiny.md").read_text()
    assert (tmp_path / "tiny.png").read_bytes().startswith(b"\x89PNG")


def test_report_sums_folds_and_sets_settings_side_by_side(tmp_path):
    better = {**figures("dance", 0, 1000), "fold": "loso/a"}
    for score in better["gated"]:
        score["right_windows"] = 49
    measured = [better, {**figures("dance", 0, 1000), "fold": "loso/b"},
                {**figures("no-ava", 0, 1000), "fold": "loso/a"}]
    only = {**figures("only-bn-50", 0, 500), "gated": [], "fold": "loso/b"}
    random = {**figures("random", 0, 1000), "fold": "loso/a"}
    random["gated"] = random["gated"][1:]  # was not measured at every budget
    write_report(TABLES["weizmann"], "weizmann", [*measured, only, random], tmp_path, {})
    text = (tmp_path / "weizmann.md").read_text()
    assert "| 2 | 0.5 | 0.480 | 18.0 of 20 | 93.0 % |" in text  # one seed, two folds
    assert "| AVA: `dance`, `no-ava` | 1 | 0.5 | 0.480, 0.480 | 9.0, 9.0 of 10 | 98.0 %, 88.0 % | +10.0 |" in text
    assert text.count("| masks that follow the clip: ") == 1
    assert "| loso/a, seed 0 | 9, 44 of 10, 50 | 9, 49 of 10, 50 | 9, 49 of 10, 50 |" in text
    assert "| difference, points |  | +5.0 | +5.0 |" in text     # two folds are too few for an interval
    assert "| mean of 2: dance | 0.98 | 0.48 | -0.020 |" in text
    assert ("| `only-bn-50` (1) | 0.500 | 9.0 of 10 | 88.0 % | `dance` at budget 0.5 | 0.480 | 9.0 of 10 | 88.0 % |"
            in text)


@pytest.mark.skipif(library_path() is None, reason="the op library is not built: run make -C kernels")
def test_times_go_through_all_points_of_a_bundle(tmp_path):
    bundle_from_checkpoint(untrained_checkpoint("small"), tmp_path / "b")
    bundle = open_bundle(tmp_path / "b")
    clips = list(np.random.default_rng(0).standard_normal((2, *bundle.manifest.clip.shape)).astype(np.float32))
    with contextlib.ExitStack() as stack:
        points = list(times.points_of(stack, bundle, figures("dance", 0, 1000), 1))
        assert [(p.what, p.budget) for p, _ in points][:4] == [
            (GATED, 1.0), (GATED, 0.5), (UNGATED, None), ("ONNX Runtime", None)]
        times.measure([(*point, clips) for point in points], rounds=1)
    assert all(len(p.ms) == 2 and min(p.ms) > 0.0 for p, _ in points)
    with contextlib.ExitStack() as stack:
        static = list(times.points_of(stack, bundle, {**figures("only-bn-50", 0, 500), "gated": []}, 1))
    assert static[0][0].what == UNGATED and static[0][0].macs == 0.5


def test_a_point_answers_every_window_by_turns():
    """Streams of STREAM windows with LEAD before them; of each window one time a round."""
    clips = [np.full(1, float(i), np.float32) for i in range(times.STREAM + 2)]
    asked = {"a": [], "b": []}

    def answer(name):
        return lambda clip: asked[name].append(int(clip[0])) or float(clip[0])

    timed = [(Point(name, 0, GATED, 0.5, 0.5, 1, 1, 1, 1), answer(name), clips) for name in asked]
    times.measure(timed, rounds=3)
    last = len(clips) - 1
    for (point, _, _), name in zip(timed, asked):
        assert point.ms == [float(i) for i in range(len(clips))]
        lead = times.STREAM - times.LEAD
        assert asked[name] == 3 * [last - 2, last - 1, last, *range(times.STREAM), *range(lead, last + 1)]


def test_times_are_reported_beside_what_takes_as_long(tmp_path):
    points = [Point("dance", seed, GATED, budget, budget, right, 10, 5 * right, 50, [ms, ms + 0.2])
              for seed in (0, 1) for budget, right, ms in ((1.0, 9, 2.0), (0.5, 8, 1.0 + 0.2 * seed))]
    points += [Point("only-bn-50", seed, UNGATED, None, 0.5, 7, 10, 36, 50, [1.4]) for seed in (0, 1)]
    points += [Point("only-bn-50", 0, "OpenVINO", None, 0.5, 7, 10, 36, 50, [1.4]),
               Point("only-bn-15", 2, "OpenVINO", None, 0.5, 7, 10, 36, 50, [1.4])]
    settings = {"windows": 2, "rounds": 1, "threads": 1, "stream": 10, "machine": "a machine"}
    write_times(tmp_path, "weizmann", settings, points)
    text = (tmp_path / "weizmann-time.md").read_text()
    assert "| dance | 2 | gated | 0.5 | 0.500 | 8.0 of 10 | 80.0 % | 1.20 (1.15-1.25) |" in text
    assert ("| `only-bn-50`, our kernels | 1.40 | 0.500 | 7.0 of 10 | 72.0 % | `dance` at budget 0.5 | 1.20 | 0.500 | "
            "8.0 of 10 | 80.0 % |") in text
    # of one seed, beside gates of that seed; and no gates were run with the last
    assert ("| `only-bn-50`, OpenVINO | 1.40 | 0.500 | 7.0 of 10 | 72.0 % | `dance` at budget 0.5 | 1.10 | 0.500 | "
            "8.0 of 10 | 80.0 % |") in text
    assert "| `only-bn-15`, OpenVINO | 1.40 | 0.500 | 7.0 of 10 | 72.0 % | none |" in text
    assert (tmp_path / "weizmann-time.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "weizmann-time.json").read_text())["points"]) == len(points)

"""The experiments' tables and report; the runs themselves are dance-train's, tested there."""
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from dance_deploy.errors import InputError  # noqa: E402
from dance_deploy.method.training.settings import TrainSettings  # noqa: E402
from tools.experiments.report import rank_correlation, write_report  # noqa: E402
from tools.experiments.runs import runs_of  # noqa: E402
from tools.experiments.table import TABLES  # noqa: E402


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_every_setting_is_one_that_training_takes(table):
    for setting in table.settings.values():
        TrainSettings(**{**table.changes, **setting.changes}).check()
    runs = list(runs_of(table, [], [], []))
    assert len({r.checkpoint(Path("x")) for r in runs}) == len(runs) == (
        len(table.settings) * len(table.seeds) * len(table.folds))
    for run in runs:
        if not run.setting.own_dense:  # what it starts from is trained before it
            assert any(r.setting.own_dense and (r.seed, r.fold) == (run.seed, run.fold)
                       for r in runs[:runs.index(run)])


def test_names_that_the_table_does_not_have():
    with pytest.raises(InputError, match="'nonsense'"):
        list(runs_of(TABLES["weizmann"], ["nonsense"], [], []))


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
    return {"run": f"{setting}_s{seed}", "setting": setting, "seed": seed, "fold": None, "original_macs": 1000,
            "pruned_macs": pruned, "dense": score, "static": score if pruned < 1000 else None, "spread": spread,
            "gated": gated}


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

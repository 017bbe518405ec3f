"""The page of a run: what dance-run says there is what its JSON lines say; long videos; a browser shows it."""
import json
import os

import browser
import pytest
from power_trees import iio_nano
from tiny_video import write_video

from dance_deploy.cli import entry
from dance_deploy.cli.run import app
from dance_deploy.report.run_log import MOST_COLUMNS, RunLog
from dance_deploy.report.run_page import RunFacts, run_page

FACTS = RunFacts("bundle", "small", 3, True, "onnxruntime: dance kernels", "budget 0.50", None)


def record(number, macs=50, energy_j=None, label="wave", kept=3):
    return {"source": "v", "start_s": float(number), "end_s": number + 1.0, "top": [{"label": label, "score": 0.5}],
            "kept": [{"layer": "l<1>", "frames": [kept, 4], "channels": [8, 8], "features": [kept, 16]},
                     {"layer": "l2", "frames": [4, 4], "channels": [1, 8], "features": [16, 16]}],
            "macs": macs, "macs_dense": 100, "bytes": 70, "bytes_dense": 100, "energy_j": energy_j,
            "latency_ms": {"controller": 1.0, "body": 4.0, "total": 5.0}, "backend": "onnxruntime"}


def logged(count, **options):
    log = RunLog()
    log.begin_video("clip.mp4")
    for number in range(count):
        log.write(record(number, **options))
    log.end_video([{"label": "wave", "score": 0.91}, {"label": "bend", "score": 0.05}])
    return log


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "moving.mp4", 40)


def run(*arguments):
    return entry.exit_code_of(app, [str(argument) for argument in arguments])


def test_the_page_says_what_the_json_says(tiny_bundle, clip_file, tmp_path, capsys):
    assert run(tiny_bundle, clip_file, "--report", tmp_path / "r.html", "--json", tmp_path / "r.jsonl") == 0
    records = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    browser.read(page)
    text = browser.visible_text(page)
    share = sum(r["macs"] for r in records) / sum(r["macs_dense"] for r in records)
    latency_ms = sum(r["latency_ms"]["total"] for r in records) / len(records)
    assert f"MACs of dense, counted {100 * share:.0f} %" in text and f"latency a window {latency_ms:.1f} ms" in text
    assert f"{len(records)} windows" in text and os.path.basename(clip_file) in text
    for entry_ in records[0]["kept"]:
        for kind in ("frames", "channels", "features"):
            kept = sum(r["kept"][records[0]["kept"].index(entry_)][kind][0] for r in records)
            mean = f"{100 * kept / len(records) / entry_[kind][1]:.0f} %"
            assert f'aria-label="{entry_["layer"]}: {mean} of the {kind} kept"' in page
    assert "energy a window" not in text and "random weights" in text


def test_with_power_there_are_joules(tiny_bundle, clip_file, tmp_path, capsys):
    nano = "ina3221=" + iio_nano(tmp_path / "nano")
    assert run(tiny_bundle, clip_file, "--power", nano, "--power-interval-ms", 1, "--power-idle", 0.2, "--report",
               tmp_path / "r.html", "--dense", "-q") == 0
    printed = capsys.readouterr().out
    text = browser.visible_text((tmp_path / "r.html").read_text(encoding="utf-8"))
    joules = printed.split(" J a window")[0].split()[-1]
    assert f"energy a window {joules} J" in text and "dense: without gates" in text
    assert "What the gates kept" not in text


def test_inputs_that_break_off_are_named_and_the_others_drawn(tiny_bundle, clip_file, tmp_path, capsys):
    (tmp_path / "bad.mp4").write_bytes(b"nothing of a video")
    assert run(tiny_bundle, clip_file, tmp_path / "bad.mp4", "--report", tmp_path / "r.html") == 2
    text = browser.visible_text((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "bad.mp4" in text and "is text, not a video" in text and "5 windows" in text
    assert run(tiny_bundle, tmp_path / "bad.mp4", "--report", tmp_path / "none.html") == 2
    assert not (tmp_path / "none.html").exists()


@pytest.mark.parametrize("arguments, said", [
    (["--report", "OUT/r.json"], "ends in .html"), (["--report", "OUT/none/r.html"], "cannot be written"),
    (["--report", "OUT/r.html", "--json", "OUT/r.html"], "name the same file"),
    (["--self-test", "--report", "OUT/r.html"], "do not go with it")])
def test_what_is_refused(tiny_bundle, clip_file, tmp_path, capsys, arguments, said):
    inputs = [] if "--self-test" in arguments else [clip_file]
    assert run(tiny_bundle, *inputs, *[a.replace("OUT", str(tmp_path)) for a in arguments]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and said in err[0] and os.listdir(str(tmp_path)) == []


def test_long_videos_have_few_columns_and_the_same_sums():
    log = logged(1000, energy_j=0.25)
    columns = log.videos[0].columns
    assert len(columns) <= MOST_COLUMNS and sum(c.windows for c in columns) == 1000
    assert sum(c.macs for c in columns) == 50 * 1000 and sum(c.energy_j for c in columns) == pytest.approx(250.0)
    assert sum(c.kept[0][0] for c in columns) == 3 * 1000
    assert (columns[0].start_s, columns[-1].end_s) == (0.0, 1000.0)
    text = browser.visible_text(run_page(FACTS, log))
    assert "each column stands for 16 windows" in text and "MACs of dense, counted 50 %" in text


def test_one_unknown_joule_leaves_its_column_unknown():
    log = RunLog()
    log.begin_video("clip.mp4")
    for number in range(2 * MOST_COLUMNS):
        log.write(record(number, energy_j=None if number == 5 else 1.0))
    log.end_video([{"label": "wave", "score": 0.9}])
    energies = [c.energy_j for c in log.videos[0].columns]
    assert energies.count(None) == 1 and set(energies) == {None, 2.0}


def test_names_cannot_become_markup():
    log = logged(3, label="<script>alert(1)</script>")
    log.begin_video("<b>.mp4")
    log.drop_video("<i>broken</i>")
    page = run_page(FACTS._replace(model="<u>"), log)
    browser.read(page)
    assert not [tag for tag in ("<script", "<b>", "<i>b", "<u>") if tag in page]


@pytest.mark.parametrize("width", [500, 1100])
def test_chromium_shows_it(tmp_path, width):
    browser.chromium()
    (tmp_path / "run.html").write_text(run_page(FACTS, logged(90, energy_j=0.25)), encoding="utf-8")
    assert "What the gates kept" in browser.visible_text(browser.dom(tmp_path / "run.html", tmp_path / "profile"))
    found = browser.measured(tmp_path / "run.html", tmp_path / "profile", width)
    assert found["content"] <= found["width"] and found["overflowing"] == 0
    assert len(found["plots"]) == 4 and all(plot["outside"] == 0 and plot["width"] > 150 for plot in found["plots"])

"""The page of a recording: what stands in it, that it needs nothing but itself, and how a browser shows it."""
import ast
import re
from pathlib import Path

import browser
import numpy as np
import pytest
import recordings

from dance_deploy.cli import entry
from dance_deploy.cli.power import app
from dance_deploy.power import recording_file
from dance_deploy.power.recording import Recording, SourceFacts, Window
from dance_deploy.power.summary import summarize
from dance_deploy.power.trace import Trace
from dance_deploy.report.page import page, tag
from dance_deploy.report.plot import scale, tick_texts
from dance_deploy.report.power_curve import MOST_POINTS, power_curve
from dance_deploy.report.power_page import power_page

REPORT = Path(__file__).resolve().parents[2] / "dance_deploy" / "report"


@pytest.mark.parametrize("name", ["page.py", "plot.py", "power_curve.py", "power_page.py", "power_plots.py",
                                  "power_tables.py", "run_log.py", "run_page.py"])
def test_the_pages_can_be_drawn_on_the_board(name):
    """Python 3.6 syntax, and no import from outside but numpy."""
    tree = ast.parse((REPORT / name).read_text(encoding="utf-8"), name, feature_version=(3, 6))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= {"math", "numpy"}
        if isinstance(node, ast.ImportFrom):
            assert node.module.split(".")[0] in ("dance_deploy", "html", "typing")


def test_the_page_needs_nothing_but_itself():
    text = power_page([("a.json", recordings.comparison(gap_s=(9.0, 10.5))), ("b.json", recordings.comparison(3))])
    found = browser.read(text)
    assert {link for link in found.links if not link.startswith("#")} == {"data:,"}
    names = {name for name, _ in found.tags}
    assert not names & {"script", "img", "iframe", "object", "embed", "form", "base"}
    assert "url(" not in text and "@import" not in text and "default-src &#x27;none&#x27;" in text
    assert all("aria-label" in attributes for name, attributes in found.tags if attributes.get("role") == "img")
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(ids)


def test_the_figures_are_the_summarys():
    recording = recordings.comparison()
    summary, text = summarize(recording), browser.visible_text(power_page([("a.json", recording)]))
    ratio = summary["comparison"]["ratio"]
    assert summary["comparison"]["verdict"] == "LESS" and "B takes LESS energy than A" in text
    assert "B / A = {estimate:.3f} (95 % {low:.3f} to {high:.3f}) from 8 pairs".format(**ratio) in text
    assert "{:.1f} % less energy than A".format(100.0 * (1.0 - ratio["estimate"])) in text
    for label in ("a", "b"):
        entry = summary["commands"][label]
        assert "{:.2f} J".format(entry["energy_j"]["estimate"]) in text
        for rail in recordings.RAILS:
            assert "{:.2f} J".format(entry["rails"][rail]["energy_j"]) in text
    for words in ("POM_5V_IN *", "power mode MAXN MAXN", "temperature CPU-therm", "Windows: 17",
                  "dance-run bundle clips -q --dense"):
        assert words in text
    assert "Warning" not in text


@pytest.mark.parametrize("options, said", [
    (dict(gap_s=(9.0, 10.5)), ["Not measured: 1 stretch", "1 gap between samples", "its energy is unknown"]),
    (dict(total=()), ["No rail is known to be the total", "INCONCLUSIVE"]),
    (dict(pairs=2), ["INCONCLUSIVE", "no interval"]),
    (dict(pairs=8, commands={}), ["Power over time"])])
def test_what_is_not_known_is_said(options, said):
    text = power_page([("a.json", recordings.comparison(**options))])
    browser.read(text)
    for words in said:
        assert words in browser.visible_text(text)


def nothing(values=(), times=(), kind="power", windows=()):
    source = SourceFacts("rapl", kind, ("x",), ("x",), "", False, None)
    return Recording(source, {"run": ["true"]}, "2026-01-01T00:00:00Z", Trace(
        kind, np.array(times, dtype=float), ("x",), np.array(values, dtype=float).reshape(-1, 1), 0), windows, ())


@pytest.mark.parametrize("recording", [
    nothing(), nothing([5.0], [1.0]), nothing([np.nan] * 3, [1.0, 2.0, 3.0]), nothing([0.0] * 3, [1.0, 2.0, 3.0]),
    nothing([-300.0, -200.0, 5.0], [1.0, 2.0, 3.0]), nothing([1e12, -1e12], [0.0, 1e-6]),
    nothing([0.0, 1.0, np.nan, 2.0, 3.0], [0.0, 0.1, 0.2, 0.3, 0.4], "counter"),
    nothing([5.0] * 9, range(9), windows=(Window("run", 3.0, 3.0, 1, *[recordings.environment()] * 2),)),
    nothing([5.0] * 9, np.arange(9) * 1e6),
    recordings.comparison(commands={"a": ["\x1b[2J\x00", "</script><b>", "\ud800"], "b": ["\u202e" * 9]})],
    ids=range(10))
def test_odd_recordings_have_a_page(recording, tmp_path):
    text = power_page([("<&>\"'\x07\udcff.json", recording)])
    browser.read(text)
    assert "<b>" not in text and "\x00" not in text and "\x1b" not in text
    assert not re.search(r"\b(nan|inf)\b", text.lower())


def test_long_recordings_have_a_short_page_with_the_extremes_in_it():
    recording = recordings.comparison(pairs=40, period_s=0.002)
    values = recording.trace.values[:, 0]
    values[12345] = 50000.0
    assert len(values) > 100000
    curve = power_curve(recording.trace, values)
    assert not curve.whole and sum(len(piece.time_s) for piece in curve.pieces) <= MOST_POINTS
    assert max(piece.high_w.max() for piece in curve.pieces) == 50.0
    assert min(piece.low_w.min() for piece in curve.pieces) == pytest.approx(1e-3 * values.min())
    assert len(power_page([("a", recording)])) < 1 << 20


def test_many_runs_have_a_short_page():
    state = recordings.environment()
    windows = tuple(Window("run", 0.01 * i, 0.01 * i + 0.009, 0, state, state) for i in range(20000))
    text = power_page([("a", nothing(np.full(200000, 3000.0), 0.001 * np.arange(200000), windows=windows))])
    assert "Too many windows to mark them" in text and "400 of 20000 windows" in text
    assert text.count("<path") < 2500 and len(text) < 1 << 20


def test_the_curve_breaks_where_nothing_was_measured():
    recording = recordings.comparison(pairs=2, gap_s=(9.0, 10.5))
    curve = power_curve(recording.trace, recording.trace.values[:, 0])
    assert len(curve.pieces) == 2 and len(curve.gaps) == 1
    start_s, end_s = curve.gaps[0]
    assert start_s <= 9.0 < 10.5 <= end_s and curve.pieces[0].time_s[-1] == start_s
    many = recordings.comparison(pairs=20, period_s=0.01, gap_s=(9.0, 10.5))
    curve = power_curve(many.trace, many.trace.values[:, 0])
    assert len(curve.pieces) == 2 and len(curve.gaps) == 1 and not curve.whole


def test_a_counters_curve_is_its_mean_power_in_steps():
    trace = Trace("counter", np.array([0.0, 1.0, 2.0, 4.0]), ("x",), np.array([[0.0], [3.0], [8.0], [9.0]]), 0)
    curve = power_curve(trace, trace.values[:, 0])
    assert [piece.mean_w.tolist() for piece in curve.pieces] == [[3.0, 3.0, 5.0, 5.0, 0.5, 0.5]]
    assert curve.pieces[0].time_s.tolist() == [0.0, 1.0, 1.0, 2.0, 2.0, 4.0]


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (0.0, 7.31), (-0.4, 44.0), (1e-9, 3e-9), (5.0, 5.0), (0.0, 0.0),
                                       (123456.0, 123456.5), (-1e9, 1e9)])
@pytest.mark.parametrize("tight", [False, True])
def test_scales_are_round_and_cover(low, high, tight):
    found = scale(low, high, 5, tight)
    assert found.low <= low and found.high >= high and 1 <= len(found.ticks) <= 12
    texts = tick_texts(found.ticks)
    assert len(set(texts)) == len(texts)
    assert all(found.low - 1e-9 * abs(found.low) <= tick <= found.high * (1 + 1e-9) + 1e-12 for tick in found.ticks)


def test_text_cannot_become_markup():
    assert tag("p", "<b>&\"'", title="\"><script>") == \
        "<p title=\"&quot;&gt;&lt;script&gt;\">&lt;b&gt;&amp;&quot;&#x27;</p>"
    assert "&lt;/title&gt;" in page("</title>", tag("p", "x"))


def run(*arguments):
    return entry.exit_code_of(app, [str(argument) for argument in arguments])


def test_the_command_writes_the_page_and_still_prints(tmp_path, capsys):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, pairs in zip(files, (8, 3)):
        recording_file.save(recordings.comparison(pairs), str(file))
    assert run("report", *files) == 0
    plain = capsys.readouterr().out
    assert run("report", *files, "-o", tmp_path / "page.html") == 0
    assert capsys.readouterr().out == plain
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert str(files[0]) in text and str(files[1]) in text


@pytest.mark.parametrize("output, said", [("a.json", "ends in .html"), ("none/p.html", "cannot be written"),
                                          ("folder.html", "cannot be written"), ("", "ends in .html")])
def test_the_page_cannot_replace_a_recording_or_go_nowhere(tmp_path, capsys, output, said):
    (tmp_path / "folder.html").mkdir()
    recording_file.save(recordings.comparison(2), str(tmp_path / "a.json"))
    before = (tmp_path / "a.json").read_bytes()
    assert run("report", tmp_path / "a.json", "-o", tmp_path / output if output else "") == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and said in err[0]
    assert (tmp_path / "a.json").read_bytes() == before


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """(page of a comparison with a gap and of an unknown board, folder for Chromium's profile)."""
    browser.chromium()
    folder = tmp_path_factory.mktemp("page")
    (folder / "page.html").write_text(power_page([
        ("a.json", recordings.comparison(gap_s=(9.0, 10.5))),
        ("b.json", recordings.comparison(30, total=()))]), encoding="utf-8")
    return folder / "page.html", folder / "profile"


def test_chromium_builds_the_page_without_a_complaint(shown):
    html = browser.dom(*shown)
    text = browser.visible_text(html)
    for words in ("Energy report", "B takes LESS energy than A", "Not measured: 1 stretch", "POM_5V_CPU"):
        assert words in text
    assert html.count("<svg") >= 6 and "<parsererror" not in html


@pytest.mark.parametrize("width", [500, 1100])
def test_it_fits_wide_and_narrow_screens(shown, width):
    found = browser.measured(*shown, width)
    assert found["content"] <= found["width"] and found["overflowing"] == 0
    drawn = [plot for plot in found["plots"] if plot["width"]]      # those in closed details have no size
    assert len(drawn) >= 3
    for plot in drawn:
        assert plot["width"] > 0.4 * min(found["width"], 500) * (0.5 if width > 1000 else 1.0)
        assert plot["height"] >= 40 and plot["shapes"] >= 4 and plot["outside"] == 0
        ends = plot["ticks"]
        assert all(left[1] < right[0] for left, right in zip(ends, ends[1:])), "labels of the axis overlap"


def contrast(one, other):
    """Contrast of two "rgb(r, g, b)" by WCAG 2."""
    def luminance(color):
        parts = [int(part) / 255.0 for part in re.findall(r"\d+", color)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("options, dark", [((), False), (("--blink-settings=preferredColorScheme=0",), True)])
def test_it_is_legible_in_light_and_dark(shown, tmp_path, options, dark):
    found = browser.measured(*shown, 900, *options)
    assert found["dark"] == dark and contrast(found["ground"], found["color"]) >= 7.0
    image = browser.screenshot(*shown, tmp_path / "shot.png", 900, 1500, *options).astype(int)
    assert image.shape == (1500, 900, 3)
    ground = tuple(int(part) for part in re.findall(r"\d+", found["ground"]))
    assert (image == ground).all(axis=2).mean() > 0.3        # the ground's colour, not a blank page of another
    tones = {"a": (86, 180, 233), "b": (240, 161, 60)} if dark else {"a": (0, 114, 178), "b": (194, 65, 12)}
    for tone in tones.values():
        assert (abs(image - tone).max(axis=2) <= 3).sum() > 200      # the curves' levels, dots and cards are drawn

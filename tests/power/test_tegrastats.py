"""The parser: every board's layout, the genuine logs, and any text at all."""
import json
import os
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tegrastats_lines import LINES, check, mutated

from dance_deploy.power.boards import Boards
from dance_deploy.power.parse_log import json_from_line
from dance_deploy.power.tegrastats import LONGEST_LINE, sample_from_line

SHARED = Path(os.environ.get("DANCE_SHARED", Path(__file__).resolve().parents[3] / "shared"))
LOGS = SHARED / "data" / "tegrastats"
needs_logs = pytest.mark.skipif(not LOGS.is_dir(), reason=f"{LOGS} not present")


@pytest.fixture(scope="module")
def boards():
    return Boards()


@pytest.mark.parametrize("layout", LINES)
def test_layout(layout, boards):
    line, rails, scope, mw, profiles = LINES[layout]
    total = None if rails is None else {"scope": scope, "rails": rails, "mw": mw}
    assert json_from_line(line, boards)["total"] == total
    assert json_from_line("\ufeff" + line + " \r\n", boards)["total"] == total
    sample = sample_from_line(line)
    assert list(boards.board(tuple(rail.label for rail in sample.rails)).profiles) == profiles
    if layout != "tk1 to r28.1":
        assert sample.unknown == []


def test_columns_of_the_oldest_layout():
    sample = sample_from_line(LINES["tk1 to r28.1"][0])
    assert sample.ram_mb == (700, 1892) and sample.swap_mb is None and sample.timestamp is None
    assert sample.cpu_load_pct == (4, "off", "off", 11) and sample.cpu_mhz == (None,) * 4  # -1 is no clock
    assert (sample.gpu_load_pct, sample.gpu_mhz, sample.emc_load_pct, sample.emc_mhz) == (12, (852,), 7, 792)
    assert sample.engines == {"AVP": "0%@204", "VDE": "0"} and sample.unknown == ["EDP", "limit", "0"]
    assert sample_from_line(LINES["tx1 r28.1"][0]).cpu_mhz == (1734, None, 1734, 1734)


def test_columns_of_the_newest_layouts():
    orin = sample_from_line(LINES["agx orin r36"][0])
    assert orin.timestamp == "03-09-2025 08:07:06" and orin.gpu_mhz == (305, 306) and orin.cpu_mhz == (729, 729)
    assert orin.engines == {"NVENC": "79%@166", "NVDLA0": "off", "APE": "174"}
    thor = sample_from_line(LINES["thor r39"][0])
    assert thor.temps_c == [("cpu", 60.406), ("tj", 41.8, 43.1)] and thor.rails[0] == ("VDD_GPU", 37520, 37528, 37530)
    assert thor.gpu_load_pct is None and thor.emc_load_pct is None
    clock_only = sample_from_line(LINES["thor r38"][0])
    assert clock_only.gpu_load_pct is None and clock_only.gpu_mhz == (0, 0, 0) and clock_only.rails[0].now_mw == -392


def test_gpu_and_cpu_are_told_apart_by_what_follows(boards):
    found = json_from_line("RAM 1/2MB CPU [3%@4] GPU@35C CPU@36C GPU 467/468 CPU 5/6", boards)
    assert found["cpu_load_pct"] == [3] and found["temps_c"] == [["GPU", 35], ["CPU", 36]]
    assert found["rails_mw"] == [["GPU", 467, 468], ["CPU", 5, 6]] and found["total"] is None  # four rails are missing


@pytest.mark.parametrize("text, rails", [
    ("VDD_IN 532", []), ("VDD_IN 5328mW/53", []), ("VDD_IN 5328mW/5328m", []), ("VDD_IN 1mW/2mW/3", []),
    ("VDD_IN 5328/53", [["VDD_IN", 5328, 53]]),  # a cut that nothing shows; the instantaneous value is whole
    ("VDD_IN 1/2 VDD_I", [["VDD_IN", 1, 2]]), ("Epoch 3/10 VDD_IN 1/2", [["VDD_IN", 1, 2]]),
    ("vdd_carrier 3mW/10mW", [["vdd_carrier", 3, 10]]), ("VDD_IN " + "9" * 30 + "/1", [])])
def test_cut_and_foreign_tokens_give_no_rail(text, rails, boards):
    assert json_from_line("RAM 1/2MB (lfb 1x4MB) CPU [0%@1] " + text, boards)["rails_mw"] == rails


@pytest.mark.parametrize("text, cores", [("CPU [17%@1344,13%@", []), ("CPU [17%@1344,x%@1]", []), ("CPU []", []),
                                         ("CPU [7%,off]", [7, "off"]), ("cpu [1%,2%]@", [1, 2])])
def test_core_lists(text, cores):
    assert list(sample_from_line("RAM 1/2MB " + text).cpu_load_pct) == cores


def test_text_around_and_lines_run_together(boards):
    line = LINES["orin nano r36"][0]
    assert json_from_line("nano tegrastats[77]: " + line, boards) == json_from_line(line, boards)
    assert json_from_line(line[:-30] + line, boards) == json_from_line(line, boards)
    headless = json_from_line(line[40:], boards)  # broken off before: rails are whole, the rest is not there
    assert headless["ram_mb"] is None and headless["total"]["mw"] == 4820
    for text in ("", "\n", "[sudo] password for nvidia:", "Fri Mar  7 08:07:06 UTC 2025", "RAM", "x" * 100000,
                 line + " " * LONGEST_LINE):
        assert sample_from_line(text) is None


def test_permuted_labels_give_no_total(boards):
    base = "RAM 1/2MB CPU [0%@1] POM_5V_IN {} POM_5V_GPU {} POM_5V_CPU {}"
    assert json_from_line(base.format("3000/3000", "8000/8000", "1000/1000"), boards)["total"] is None
    # a burst between two rails of one sample; the averages say that the labels are right
    assert json_from_line(base.format("3000/4000", "2900/1000", "200/400"), boards)["total"]["mw"] == 3000


@needs_logs
def test_first_lines_of_the_genuine_logs(boards):
    text = (LOGS / "SOURCES.md").read_text(encoding="utf-8")
    expected = re.findall(r"^### (\S+\.log)\n+```json\n(.*?)```", text, re.S | re.M)
    assert {name for name, _ in expected} == {path.name for path in LOGS.glob("*.log")}
    for name, tree in expected:
        with open(LOGS / name, encoding="utf-8") as log:
            found = json_from_line(log.readline(), boards)
        assert found == json.loads(tree) and list(found) == list(json.loads(tree)), name


@needs_logs
@pytest.mark.parametrize("name", sorted(path.name for path in LOGS.glob("*.log")) if LOGS.is_dir() else [])
def test_every_line_of_the_genuine_logs(name, boards):
    """Nothing is left over; in runs from their first sample on, each average is the values' mean, rounded down."""
    sums, count = {}, 0
    whole_runs = name in ("nano-r32.7.1-1.log", "tx2-r32-1.log", "tx2-r32-2.log", "xaviernx-r35-1.log",
                          "agxorin-r36-1.log", "agxxavier-r32.4-1.log", "agxxavier-r32.4-2.log")
    with open(LOGS / name, encoding="utf-8") as log:
        for line in log:
            sample = sample_from_line(line)
            assert sample is not None and sample.unknown == [] and sample.cpu_load_pct
            check(line, boards)
            count += 1
            for rail in sample.rails if whole_runs else ():
                sums[rail.label] = sums.get(rail.label, 0) + rail.now_mw
                assert rail.avg_mw == sums[rail.label] // count


SHIPPED = Boards()
TEMPERATURE = st.decimals(-256, 130, places=3).map(float)
LABEL = st.from_regex(r"[A-Z][A-Z0-9_]{1,20}", fullmatch=True).filter(
    lambda name: name not in ("RAM", "SWAP", "IRAM", "MTS") and not name.startswith("GR3D") and "EMC" not in name)


@given(cores=st.lists(st.one_of(st.just("off"), st.integers(0, 100)), min_size=1, max_size=16), gpu=st.integers(0, 100),
       temps=st.lists(st.tuples(LABEL, TEMPERATURE), max_size=12), unit=st.sampled_from(("", "mW")), order=st.randoms(),
       rails=st.lists(st.tuples(LABEL, st.integers(-99999, 999999), st.integers(0, 999999)), max_size=8))
def test_what_is_printed_is_read_in_any_order(cores, gpu, temps, unit, order, rails):
    printed = ",".join(core if core == "off" else f"{core}%@729" for core in cores)
    columns = [f"CPU [{printed}]", f"GR3D_FREQ {gpu}%"]
    columns += [f"{zone}@{degrees}C" for zone, degrees in temps]
    columns += [f"{label} {now}{unit}/{avg}{unit}" for label, now, avg in rails]
    order.shuffle(columns)
    sample = sample_from_line("RAM 5/7MB (lfb 1x4MB) " + " ".join(columns))
    assert sample.cpu_load_pct == tuple(cores) and sample.gpu_load_pct == gpu and sample.unknown == []
    assert sorted(sample.temps_c) == sorted(temps) and sorted(map(tuple, sample.rails)) == sorted(
        (label, now, avg, None) for label, now, avg in rails)


@given(st.text(max_size=400))
def test_any_text(text):
    check(text, SHIPPED)
    check("RAM 1/2MB " + text, SHIPPED)


def test_mutated_lines(boards):
    """A million were run by `python tests/tegrastats_lines.py 1000000 ../shared/data/tegrastats/*.log`."""
    lines = [each[0] for each in LINES.values()]
    for seed in range(5000):
        line = mutated(random.Random(seed), lines)
        try:
            check(line, boards)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {line[:500]!r}") from error

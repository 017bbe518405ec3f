"""tools/benchmark_tables.py: what dance-bench measured, as the tables of docs/benchmarks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dance_deploy.bench.keep_cases import DENSE, keep_cases
from dance_deploy.bench.kernel_peers import AUTOMATIC, DIRECT, GATE, way
from dance_deploy.bench.kernels import result_of
from dance_deploy.bench.layers import Layer
from dance_deploy.geometry import Conv3dGeometry

ROOT = Path(__file__).resolve().parents[2]
GEOMETRY = Conv3dGeometry("a", 4, 8, (4, 6, 6), (3, 3, 3), (1, 1, 1), (1, 1, 1, 1, 1, 1))


def tables(*files):
    return subprocess.run([sys.executable, ROOT / "tools" / "benchmark_tables.py", *files], capture_output=True,
                          text=True, cwd=ROOT)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_layers_in_one_table_and_the_direct_kernel_in_another(tmp_path):
    cases = keep_cases(GEOMETRY)
    rounds = {way(how, case): [4.0, 4.0] for how in (AUTOMATIC, DIRECT) for case in cases}
    rounds.update({way(AUTOMATIC, case): [5.0, 5.0] for case in cases if case.kind == "random"})
    rounds.update({GATE: [0.1, 0.1], "openvino": [8.0, 8.0], "torch": [16.0, 16.0]})
    result = result_of(Layer("a", 3, GEOMETRY), cases, {case: "winograd 4x4" for case in cases}, rounds, seed=0)
    (tmp_path / "k.json").write_text(json.dumps({"layers": [result.to_json()]}))
    done = tables(tmp_path / "k.json")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.strip().split("\n\n")
    head, _, row = map(cells, first.splitlines())
    found = dict(zip(head, row))
    assert found["layer"] == "a: 4→8, 4x6x6, kernel 3x3x3 (x3)"
    assert found["dense / best"] == "0.50 (0.50-0.50) OV" and found["direct / OpenVINO"] == "0.50"
    assert found["slowest"] == "1.25 **!**"
    assert float(found["channels"].split(" / ")[1]) == pytest.approx(2, abs=0.01)    # as long as dense, for half
    assert found["channels"] == dict(zip(*map(cells, second.splitlines()[::2])))["channels"]
    assert DENSE not in [case.case for case in result.cases] and len(row) == len(head)


def test_models_in_a_table_a_number_of_threads(tmp_path):
    over = {"median": 2.0, "q1": 1.5, "q3": 2.5}
    peers = [{"peer": peer, "median_ms": ms, "time_over_gated": over, "peak_mb": 100.4}
             for peer, ms in (("gated", 2.0), ("kept", 4.0), ("onnxruntime", 6.0), ("openvino", 5.0))]
    files = []
    for threads, rates in ((2, {"frames": 0.71, "channels": 1.0}), (1, None)):
        files.append(tmp_path / f"{threads}.json")
        files[-1].write_text(json.dumps({"model": "c3d", "threads": threads, "rates": rates, "macs_share": 0.5,
                                         "peers": peers}))
    done = tables(*files)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("2 threads:") < done.stdout.index("1 thread:")
    rows = [cells(line) for line in done.stdout.splitlines() if "c3d" in line]
    assert rows[0] == ["`c3d`, 71% of frames forced", "50%", "2.0 ms", "2.00 (1.50-2.50)", "2.00 (1.50-2.50)", "-",
                       "2.00 (1.50-2.50)", "0.80", "100 / 100 / 100 / 100"]
    assert rows[1][0] == "`c3d`"


@pytest.mark.parametrize("text", ["", "{}", "[1", "3", "[]", '{"layers": [1]}', '{"layers": [{}]}', None])
def test_other_files_are_one_line(tmp_path, text):
    path = tmp_path / "other.json"
    if text is not None:
        path.write_text(text)
    done = tables(path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "other.json" in done.stderr, done.stderr

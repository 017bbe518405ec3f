"""dance-bench tune: fits what it is given, writes only what chose better elsewhere, and refuses in one line."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from dance_deploy.bench import native
from dance_deploy.bench.keep_cases import DENSE, KINDS, KeepCase, masks_of
from dance_deploy.bench.tune import command
from dance_deploy.bench.tune.cases import FITTED, LAYERS, OTHER_LAYERS, OTHER_MASKS, TuneCase, tune_cases
from dance_deploy.bench.tune.fit import Estimates, fit_costs, mean_regret, text_of
from dance_deploy.bench.tune.measure import VARIANTS, Plan, Timed, measure, unsteadiness
from dance_deploy.bench.tune.text import text_from_outcome
from dance_deploy.cli import bench, entry
from dance_deploy.runtime import tuned_costs
from dance_deploy.runtime.kernels import library_path, variant_used

LIBRARY = library_path()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="the op library is not built: run make -C kernels")
SLOW_TILES = {"in": 40.0, "out": 60.0, "product": 1.8, "weight": 0.4, "few": 0.5}


@pytest.fixture(scope="module")
def lib():
    return native.library()


@pytest.fixture(scope="module")
def built_in():
    return tuned_costs.built_in_costs(LIBRARY)


def made_up(lib, cases, costs, noise=0.0):
    """Cases with the times that a machine of these costs would take."""
    found, rng = [], np.random.default_rng(0)
    for case in cases:
        masks = [np.ascontiguousarray(mask, np.uint8) for mask in masks_of(case.keep, case.layer.geometry, case.seed)]
        _, steps = native.estimate(lib, native.conv_of(case.layer.geometry, costs=text_of(costs).encode()), masks)
        found.append(Timed(case, masks, np.array(steps) * np.exp(noise * rng.standard_normal((5, 3)))))
    return found


def part_of(timed, *parts):
    return [one for one in timed if one.case.part in parts]


@pytest.mark.parametrize("quick", (False, True))
def test_cases_are_of_layers_with_a_choice_and_checks_are_apart(lib, quick):
    cases = tune_cases(0, quick)
    assert len(set(cases)) == len(cases) and {case.layer for case in cases} == set(LAYERS)
    for case in cases:
        assert (case.part == OTHER_LAYERS) == (not case.layer.fitted)
        masks = [np.ascontiguousarray(mask, np.uint8) for mask in masks_of(case.keep, case.layer.geometry, case.seed)]
        assert min(native.estimate(lib, native.conv_of(case.layer.geometry), masks)[1]) > 0
    fitted = {(case.layer, case.keep, case.seed) for case in cases if case.part == FITTED}
    assert not fitted & {(case.layer, case.keep, case.seed) for case in cases if case.part == OTHER_MASKS}
    for part in (FITTED, OTHER_MASKS, OTHER_LAYERS):
        assert {case.keep.kind for case in cases if case.part == part} == {DENSE.kind, *KINDS}


def test_times_are_of_the_variants_they_are_named_after(lib):
    cases = [case for case in tune_cases(0, True) if case.layer == LAYERS[6]][:2]
    timed = measure(lib, cases, Plan(1, False, 0.0, 2, 5, 0), lambda text: None)
    assert [one.case for one in timed] == cases
    assert all(one.ms.shape == (2, len(VARIANTS)) and (one.ms > 0).all() for one in timed)
    one = Timed(cases[0], [], np.array([[2.0, 1.0, 4.0], [4.0, 2.0, 8.0], [3.0, 9.0, 3.0]]))
    np.testing.assert_allclose(one.log_ratios(), np.log([0.5, 2.0]))
    np.testing.assert_allclose(one.relative(), [2.0, 1.0, 4.0])
    steady = one._replace(ms=one.ms[:2])
    assert unsteadiness([steady, steady, one]) == pytest.approx(0) and unsteadiness([one]) > 0.3


def test_costs_of_a_made_up_machine_are_found(lib, built_in):
    """With noise of 3 %, and from half of the cases: the rest is chosen right as well."""
    machine = dict(built_in, **SLOW_TILES)
    timed = made_up(lib, tune_cases(0, False), machine, noise=0.03)
    fit = fit_costs(lib, part_of(timed, FITTED), built_in, bf16=False)
    assert set(fit) == set(built_in)
    rest = Estimates(lib, part_of(timed, OTHER_MASKS, OTHER_LAYERS), bf16=False)
    before, after = mean_regret(rest.regret(built_in)), mean_regret(rest.regret(fit))
    assert before > 1.05 and after < 1 + 0.2 * (before - 1)
    assert fit == fit_costs(lib, part_of(timed, FITTED), built_in, bf16=False)


def test_costs_of_the_built_in_machine_stay(lib, built_in):
    timed = made_up(lib, tune_cases(0, True), built_in)
    fit = fit_costs(lib, part_of(timed, FITTED), built_in, bf16=False)
    for name, value in built_in.items():
        assert abs(fit[name] - value) <= 0.01 * max(value, 1), name


def test_even_absurd_times_give_costs_that_are_accepted(lib, built_in):
    cases = part_of(made_up(lib, tune_cases(0, True), built_in), FITTED)
    for factors in ((1, 1e6, 1e6), (1e6, 1, 1), (1, 1e-3, 1e3)):
        absurd = [one._replace(ms=np.array(factors) * one.ms) for one in cases]
        assert native.estimate(lib, native.conv_of(LAYERS[0].geometry, costs=text_of(
            fit_costs(lib, absurd, built_in, bf16=False)).encode()), cases[0].masks)


@pytest.fixture
def tune(lib, monkeypatch, tmp_path, capsys):
    """tune(costs of the machine, *arguments) -> (exit code, stdout, lines of stderr, the file): nothing is timed."""
    monkeypatch.delenv("DANCE_COSTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(costs, *arguments):
        monkeypatch.setattr(command, "measure", lambda lib, cases, plan, progress: made_up(lib, cases, costs))
        code = entry.exit_code_of(bench.app, ["tune", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err.splitlines(), tuned_costs.path_of(tuned_costs.target_of(LIBRARY, "fp32"))
    return call


def test_what_chooses_better_is_written_and_used(tune, tmp_path, built_in):
    code, out, err, path = tune(dict(built_in, **SLOW_TILES), "--quick", "--json", tmp_path / "out.json")
    assert (code, err) == (0, []) and out.rstrip().endswith(f"written: {path}; used from now on")
    found = tuned_costs.find(LIBRARY, "fp32")
    assert found.problem is None and found.path == path
    tree = json.loads((tmp_path / "out.json").read_text())
    assert tree["accepted"] is True and tree["file"] == path and tree["tuned_costs"] == found.tuned.costs
    assert found.tuned.regret["tuned"] < found.tuned.regret["built_in"]
    assert len(tree["cases"]) == len(tune_cases(0, True))
    for case in tree["cases"]:
        fastest = min(case["ms"].values())
        for costs in ("built_in", "tuned"):
            judged = case[costs]
            assert judged["regret"] == pytest.approx(case["ms"][judged["variant"]] / fastest)


def test_what_does_not_is_not_and_takes_an_older_file_with_it(tune, built_in):
    code, out, err, path = tune(built_in, "--quick")
    assert (code, err) == (0, []) and "the built-in costs are kept" in out and not os.path.exists(path)
    assert tune(dict(built_in, **SLOW_TILES), "--quick")[0] == 0 and os.path.exists(path)
    code, out, err, _ = tune(built_in, "--quick")
    assert (code, err) == (0, []) and f"removed: {path}" in out and not os.path.exists(path)


def test_a_machine_that_does_other_work_is_told_so(tune, lib, monkeypatch, built_in):
    _, _, _, path = tune(dict(built_in, **SLOW_TILES), "--quick")
    before = open(path, encoding="utf-8").read()
    noisy = made_up(lib, tune_cases(0, True), built_in, noise=1.0)
    monkeypatch.setattr(sys.modules[__name__], "made_up", lambda *_: noisy)
    code, out, err, _ = tune(built_in, "--quick")
    assert (code, out) == (1, "") and len(err) == 1 and "from round to round" in err[0]
    assert open(path, encoding="utf-8").read() == before


def test_a_file_that_is_none_of_ours_is_never_touched(tune, monkeypatch, tmp_path, built_in):
    """Not even replaced by costs that choose better, and it is known before anything is timed."""
    mine = tmp_path / "thesis.txt"
    mine.write_text("years of work")
    for place in (mine, "/dev/null"):
        monkeypatch.setenv("DANCE_COSTS", str(place))
        code, out, err, _ = tune(dict(built_in, **SLOW_TILES), "--quick")
        assert (code, out) == (2, "") and len(err) == 1 and f"{place}: is there already and holds no costs" in err[0]
    assert mine.read_text() == "years of work" and os.path.exists("/dev/null")


def test_costs_of_something_else_stay_where_nothing_better_is_found(tune, monkeypatch, tmp_path, built_in):
    monkeypatch.setenv("DANCE_COSTS", str(tmp_path / "costs.json"))
    assert tune(dict(built_in, **SLOW_TILES), "--quick")[0] == 0
    found = tuned_costs.find(LIBRARY, "fp32").tuned
    other = found._replace(target=found.target._replace(precision="bf16"))
    tuned_costs.write(other, str(tmp_path / "costs.json"))
    code, out, _, _ = tune(built_in, "--quick")
    assert code == 0 and "holds costs of something else" in out
    assert tuned_costs.from_bytes((tmp_path / "costs.json").read_bytes()) == other


def test_the_table_has_every_layer_and_both_regrets(tune, built_in):
    _, out, _, _ = tune(dict(built_in, **SLOW_TILES), "--quick")
    for layer in LAYERS:
        assert layer.label + (" *" if not layer.fitted else "") in out
    assert all(len(line) <= 120 for line in out.splitlines() if "costs" not in line)


def test_the_table_tells_before_and_after(built_in, lib):
    timed = made_up(lib, [TuneCase(LAYERS[0], DENSE, FITTED, 0),
                          TuneCase(LAYERS[0], KeepCase("random", 0.5), OTHER_MASKS, 1),
                          TuneCase(LAYERS[-1], DENSE, OTHER_LAYERS, 2)], built_in)
    cases = [command.Judged(one, 1, 4, regret, 1.0) for one, regret in zip(timed, (1.0, 1.5, 2.0))]
    target = tuned_costs.Target("P", "avx2", "fp32")
    lines = text_from_outcome(command.Outcome(target, built_in, cases, True), 2, "M").splitlines()
    assert "avx2, fp32, 2 threads; M" in lines[0]
    assert [line.split() for line in lines if line.startswith(LAYERS[0].label)][0][-2:] == ["1.00", "1.50>1.00"]
    assert [line.split() for line in lines if line.startswith("all not fitted")][0][4:] == [
        "1.732", ">", "1.000", "2.00", ">", "1.00", "2", "2"]


@pytest.mark.parametrize("arguments, environment, code, said", [
    (["--precision", "int8"], {}, 2, "--precision: 'int8' is unknown; choose from fp32, bf16"),
    (["--json", "missing/x.json"], {}, 2, "'missing/x.json' cannot be written"),
    ([], {"DANCE_COSTS": "built-in"}, 2, "DANCE_COSTS asks for the built-in ones"),
    ([], {"DANCE_COSTS": "/proc/costs.json"}, 1, "/proc/costs.json: cannot be written"),
    ([], {"XDG_CACHE_HOME": "/proc/cache"}, 1, "cannot be written"),
    ([], {"DANCE_ISA": "mmx"}, 2, "environment variable DANCE_ISA is 'mmx'")])
def test_what_cannot_be_is_one_line_before_anything_is_timed(tune, monkeypatch, built_in, arguments, environment, code,
                                                            said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found, out, err, _ = tune(built_in, *arguments)
    assert (found, out) == (code, "") and len(err) == 1 and said in err[0]


def test_a_processor_without_bfloat16_says_so(tune, monkeypatch, built_in):
    monkeypatch.setattr(tuned_costs, "variant_used",
                        lambda library, precision: None if precision == "bf16" else variant_used(library, precision))
    code, out, err, _ = tune(built_in, "--precision", "bf16")
    assert (code, out) == (2, "")
    assert err == ["error: --precision bf16: this processor has no AVX512-BF16, or the kernels were built without it; "
                   "leave it out"]


def test_another_instruction_set_has_a_file_of_its_own(tmp_path):
    """A real run, of the instruction set that the environment names."""
    environment = dict(os.environ, DANCE_ISA="portable", DANCE_COSTS=str(tmp_path / "costs.json"))
    code = ("from dance_deploy.bench.tune import command, cases\n"
            "command.tune_cases = lambda seed, quick: [c for c in cases.tune_cases(seed, True)\n"
            "    if c.layer.geometry.in_size[1] == 7 and c.layer.geometry.in_channels < 100]\n"
            "command.WORTH = command.UNSTEADY = 1e9\n"
            "command.run_tune(precision='fp32', threads=2, quick=True, seed=1, json_file=None)\n")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    written = tuned_costs.from_bytes((tmp_path / "costs.json").read_bytes())
    assert (written.target.kernels, written.threads) == ("portable", 2)
    used = subprocess.run([sys.executable, "-c", "from dance_deploy.runtime import kernels, tuned_costs as t\n"
                           "print(t.find(kernels.library_path(), 'fp32').problem)"], env=environment,
                          capture_output=True, text=True)
    assert used.stdout == "None\n"

"""Tuned costs are read where they fit this machine and library, and else ignored with one line; never an error."""
import json
import logging
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dance_deploy import __version__
from dance_deploy.cli import doctor, entry
from dance_deploy.cli.run import app as run_app
from dance_deploy.errors import InputError, OperationError
from dance_deploy.machine import processor_name
from dance_deploy.runtime import kernels, tuned_costs
from dance_deploy.runtime.runner import open_runner
from dance_deploy.runtime.tuned_costs import Target, TunedCosts

LIBRARY = kernels.library_path()
needs_library = pytest.mark.skipif(LIBRARY is None, reason="the op library is not built: run make -C kernels")


def good(**changes):
    target = tuned_costs.target_of(LIBRARY, "fp32") if LIBRARY else Target("some processor", "avx2", "fp32")
    fields = dict(target=target, library_version=__version__, date="2026-01-02 03:04 UTC", threads=1,
                  cost_model=tuned_costs.cost_model(LIBRARY) if LIBRARY else 1,
                  regret={"built_in": 1.05, "tuned": 1.01}, costs={"in": 3.5, "out": 7.0, "product": 1.1})
    return TunedCosts(**dict(fields, **changes))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's cache folder, empty; tuned costs are looked for there."""
    monkeypatch.delenv("DANCE_COSTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def planted(tuned, **changes):
    """Write a file where it is looked for, some keys of it changed; returns its path."""
    path = tuned_costs.path_of(tuned_costs.target_of(LIBRARY, "fp32"))
    tuned_costs.write(tuned, path)
    if changes:
        with open(path, encoding="utf-8") as stream:
            tree = json.load(stream)
        for key, value in changes.items():
            if value is None:
                del tree[key]
            else:
                tree[key] = value
        with open(path, "w", encoding="utf-8") as stream:
            json.dump(tree, stream)
    return path


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "new" / "folder" / "costs.json"
    tuned_costs.write(good(), str(path))
    assert tuned_costs.from_bytes(path.read_bytes()) == good()
    assert os.listdir(path.parent) == ["costs.json"]
    tuned_costs.write(good(threads=3), str(path))
    assert tuned_costs.from_bytes(path.read_bytes()).threads == 3


def test_the_entry_is_the_same_for_the_same_costs():
    costs = {"out": 7.0, "in": 0.1, "weight": 1e-05}
    turned = dict(reversed(list(costs.items())))
    assert good(costs=costs).entry() == good(costs=turned).entry() == "in=0.1 out=7.0 weight=1e-05"


def test_where_the_file_is():
    target = Target("ACME R5, core 0x41/0xd08 / ../x", "neon", "fp32")
    name = "costs-acme-r5-core-0x41-0xd08-x-neon-fp32.json"
    assert tuned_costs.path_of(target, {"XDG_CACHE_HOME": "/c"}) == "/c/dance_deploy/" + name
    home = os.path.join(os.path.expanduser("~"), ".cache", "dance_deploy", name)
    assert tuned_costs.path_of(target, {}) == tuned_costs.path_of(target, {"XDG_CACHE_HOME": "relative"}) == home
    assert tuned_costs.path_of(target, {"DANCE_COSTS": "built-in", "XDG_CACHE_HOME": "/c"}) is None
    assert tuned_costs.path_of(target, {"DANCE_COSTS": "/my/file"}) == "/my/file"
    assert len({tuned_costs.path_of(target._replace(**change), {}) for change in (
        {}, {"processor": "other"}, {"kernels": "portable"}, {"precision": "bf16"})}) == 4


@needs_library
def test_a_session_gets_what_fits(cache, caplog):
    path = planted(good())
    found = tuned_costs.find(LIBRARY, "fp32")
    assert found == (path, good(), None) and path.startswith(str(cache))
    assert tuned_costs.for_session(LIBRARY, "fp32") == good() and not caplog.records


@needs_library
def test_without_a_file_nothing_is_said(cache, caplog):
    assert tuned_costs.for_session(LIBRARY, "fp32") is None
    cache.write_text("a file in place of the folder")
    assert tuned_costs.for_session(LIBRARY, "fp32") is None
    assert not caplog.records


@needs_library
@pytest.mark.parametrize("changes, said", [
    ({"processor": "another"}, "is of another processor: 'another', here it is"),
    ({"kernels": "sve9"}, "is of another instruction set: 'sve9'"), ({"precision": "bf16"}, "is of another precision"),
    ({"library_version": "0.0.1"}, "is of another version of the library: 0.0.1 (costs"),
    ({"cost_model": 999}, "(costs 999), here it is"),
    ({"format": 2}, "format is 2, expected a whole number from 1 to 1"), ({"format": None}, "key 'format' is missing"),
    ({"speed": 1}, "unknown key 'speed'"), ({"costs": {}}, "costs is {}, expected numbers by name"),
    ({"costs": [1]}, "costs is [1]"), ({"costs": {"in": "fast"}}, "costs.'in' is 'fast'"),
    ({"costs": {"in": True}}, "costs.'in' is True"),
    ({"costs": {"in": 1e9}}, "costs: 'in' is '1000000000.0', expected"),
    ({"costs": {"speed": 1}}, "costs: 'speed=1.0' is no cost"),
    ({"costs": {"in=3 out": 1}}, "expected numbers by name"),
    ({"threads": 0}, "threads is 0"), ({"date": "a\nb"}, "date is 'a\\nb'"), ({"regret": {"tuned": 1}}, "regret")])
def test_what_does_not_fit_is_ignored_in_one_line(cache, caplog, changes, said):
    path = planted(good(), **changes)
    with caplog.at_level(logging.WARNING, "dance_deploy"):
        logging.getLogger("dance_deploy").propagate = True
        assert tuned_costs.for_session(LIBRARY, "fp32") is None
    (record,) = caplog.records
    line = record.getMessage()
    assert said in line and path in line and "dance-bench tune" in line and "\n" not in line


@needs_library
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": 1, "format": 1}', b"[" * 100000,
                                  b'{"format": NaN}', b"1" * 70000])
def test_damaged_bytes_are_ignored(cache, data):
    path = planted(good())
    with open(path, "wb") as stream:
        stream.write(data)
    assert tuned_costs.for_session(LIBRARY, "fp32") is None
    assert tuned_costs.find(LIBRARY, "fp32").problem.startswith("is damaged or not ours: ")


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 500), st.booleans())
def test_any_damage_is_an_input_error_or_costs(noise, at, replace):
    """A good file with a piece replaced or inserted: read, or refused; nothing else."""
    tree = dict(good()._asdict(), format=1, **good().target._asdict())
    data = json.dumps({key: tree[key] for key in tuned_costs._KEYS}).encode()
    data = data[:at] + noise + data[at + (len(noise) if replace else 0):]
    try:
        assert isinstance(tuned_costs.from_bytes(data), TunedCosts)
    except InputError as error:
        assert "\n" not in str(error)


@needs_library
def test_a_file_that_was_named_must_be_there(tmp_path, monkeypatch):
    monkeypatch.setenv("DANCE_COSTS", str(tmp_path / "none.json"))
    assert "cannot be read" in tuned_costs.find(LIBRARY, "fp32").problem
    monkeypatch.setenv("DANCE_COSTS", str(tmp_path))
    assert "cannot be read" in tuned_costs.find(LIBRARY, "fp32").problem
    os.mkfifo(str(tmp_path / "pipe"))
    monkeypatch.setenv("DANCE_COSTS", str(tmp_path / "pipe"))  # nobody writes there: opening it would never end
    assert "is not a regular file" in tuned_costs.find(LIBRARY, "fp32").problem
    tuned_costs.write(good(), str(tmp_path / "mine.json"))
    monkeypatch.setenv("DANCE_COSTS", str(tmp_path / "mine.json"))
    assert tuned_costs.find(LIBRARY, "fp32").tuned == good()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "costs.json", "/proc/nothing/costs.json"):
        for step in (tuned_costs.check_place, lambda place: tuned_costs.write(good(), place)):
            with pytest.raises(OperationError, match="DANCE_COSTS=FILE"):
                step(str(path))
    for path in ("/proc/costs.json", str(tmp_path)):
        with pytest.raises(OperationError, match="DANCE_COSTS=FILE"):
            tuned_costs.check_place(path)
    assert os.listdir(tmp_path) == ["file"]


def test_a_library_that_is_none_has_no_costs(tmp_path):
    (tmp_path / "broken.so").write_bytes(b"not a library")
    broken = str(tmp_path / "broken.so")
    assert tuned_costs.find(broken, "fp32") == (None, None, None)
    assert tuned_costs.for_session(broken, "bf16") is None and tuned_costs.built_in_costs(broken) == {}


@needs_library
def test_a_runner_says_which_costs_it_goes_by(cache, tiny_bundle):
    def described(**how):
        with open_runner(tiny_bundle, threads=1, **how) as runner:
            return runner.backend.description
    assert described() == "dance kernels"
    planted(good())
    assert described() == "dance kernels, tuned costs"
    assert described(tuned_costs=False) == "dance kernels"
    if kernels.has_bf16(LIBRARY):
        assert described(precision="bf16") == "dance kernels, bfloat16"
    planted(good(), format=7)
    assert described() == "dance kernels"


@needs_library
def test_dance_run_says_it_and_can_do_without(cache, capsys, tiny_bundle):
    planted(good())
    for arguments, told in (((), True), (("--built-in-costs",), False)):
        assert entry.exit_code_of(run_app, [tiny_bundle, "--self-test", *arguments]) == 0
        assert ("tuned costs" in capsys.readouterr().out) is told


@needs_library
def test_dance_doctor_says_where_they_are_from(cache, capsys, monkeypatch):
    def costs_line():
        assert entry.exit_code_of(doctor.app, []) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if "costs, fp32" in line)
    assert "built-in; this machine's are found by: dance-bench tune" in costs_line()
    path = planted(good())
    assert " ok " in costs_line() and "2026-01-02 03:04 UTC" in costs_line() and path in costs_line()
    planted(good(), cost_model=999)
    assert "lacks" in costs_line() and "another version of the library" in costs_line()
    monkeypatch.setenv("DANCE_COSTS", "built-in")
    assert "as DANCE_COSTS says" in costs_line()


@pytest.mark.parametrize("cpuinfo, board, name", [
    ("model name\t: AMD EPYC\ncpu family\t: 26\nmodel\t\t: 2\nstepping\t: 1\n" * 2, None,
     "AMD EPYC, family 26, model 2, stepping 1"),
    ("CPU implementer\t: 0x41\nCPU part\t: 0xd08\n" * 4 + "Model\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
     "Raspberry Pi 4 Model B Rev 1.4\0", "Raspberry Pi 4 Model B Rev 1.4, core 0x41/0xd08"),
    ("CPU implementer\t: 0x41\nCPU part\t: 0xd05\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n", "Acme\0",
     "core 0x41/0xd05, core 0x41/0xd0b, Acme"),
    ("model name\t: ARMv8 \x1b[2J rev 1\nCPU implementer\t:\n", None, "ARMv8 ?[2J rev 1"), ("", None, "unknown")])
def test_what_a_processor_is_called(tmp_path, cpuinfo, board, name):
    (tmp_path / "proc" / "device-tree").mkdir(parents=True)
    (tmp_path / "proc" / "cpuinfo").write_text(cpuinfo)
    if board:
        (tmp_path / "proc" / "device-tree" / "model").write_text(board)
    assert processor_name(str(tmp_path)) == name

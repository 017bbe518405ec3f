"""Board identification and the power facts in the profiles."""
import json

import pytest
from tegrastats_lines import LINES

from dance_deploy import profiles
from dance_deploy.errors import InputError
from dance_deploy.power import boards
from dance_deploy.power.tegrastats import Rail

KNOWN = [profiles.load(name) for name in profiles.names() if profiles.load(name).power is not None]


def test_every_board_has_a_profile():
    for board in ("tk1", "tx1", "nano", "tx2", "xavier-nx", "agx-xavier", "orin-nano", "orin-nx", "agx-orin", "thor"):
        assert "jetson-" + board in [profile.name for profile in KNOWN]
    assert profiles.load("cpu").power is None


@pytest.mark.parametrize("profile", KNOWN, ids=lambda profile: profile.name)
def test_facts_have_sources_and_fit_each_other(profile):
    power = profile.power
    assert set(power.sources) == {"rails", "compatible"} | ({"modes"} if power.modes else set())
    assert len({mode.id for mode in power.modes}) == len(power.modes)
    for total in power.totals:
        for whole, parts in power.feeds.items():  # nothing is counted twice
            assert not (whole in total.rails and set(parts) & set(total.rails))
    for other in KNOWN:
        if other is not profile:
            assert not set(other.power.compatible) & set(power.compatible)


@pytest.mark.parametrize("words, profile", [
    (b"nvidia,p3449-0000-b00+p3448-0000-b00\0nvidia,jetson-nano\0nvidia,tegra210\0", "jetson-nano"),
    (b"nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0", "jetson-orin-nano"),
    (b"nvidia,p3768-0000+p3767-0000\0nvidia,p3767-0000\0nvidia,tegra234\0", "jetson-orin-nx"),
    (b"nvidia,p3509-0000+p3668-0000\0nvidia,tegra194\0", "jetson-xavier-nx")])
def test_the_device_tree_decides_where_labels_do_not(tmp_path, words, profile):
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/compatible").write_bytes(words)
    known = boards.Boards(machine=boards.machine_names(str(tmp_path)))
    labels = ("POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU") if profile == "jetson-nano" else (
        "VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
    assert known.board(labels).profiles == (profile,)
    assert known.board(labels + ("CARRIER_12V",)).total == known.board(labels).total  # a carrier's own sensor
    # a log of another board is not judged by this machine
    assert known.board(("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")).profiles == ("jetson-agx-orin",)


def test_no_device_tree(tmp_path):
    assert boards.machine_names(str(tmp_path)) == ()


def test_labels_that_no_profile_knows_have_no_total_and_are_listed():
    known = boards.Boards()
    for labels in (("VDD_FOO", "VDD_IN"), ("NC",), ()):
        board = known.board(labels)
        assert board.total is None and board.profiles == ()
    mw, why = boards.total_mw([Rail("VDD_FOO", 1, 1), Rail("VDD_IN", 9, 9)], known.board(("VDD_FOO", "VDD_IN")))
    assert mw is None and "VDD_FOO, VDD_IN" in why and "--total" in why


def test_a_sum_with_a_rail_missing_is_no_total():
    line = LINES["agx xavier"]
    for gone in line[1]:
        assert boards.Boards().board([label for label in line[1] if label != gone]).total is None


def test_thor_prefers_the_input_of_the_board():
    known = boards.Boards()
    three = ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0")
    assert known.board(three).total == ("module", three)
    assert known.board(three + ("VIN",)).total == ("board", ("VIN",))


def test_any_number_of_label_sets_is_remembered_within_bounds():
    known = boards.Boards()
    for i in range(3000):
        known.board((str(i),))
    assert len(known._by_labels) <= 1000


@pytest.mark.parametrize("change, why", [
    ({"rails": []}, "power.rails is [], expected an object"), ({"rails": {"A": 1}}, "power.rails.A is 1"),
    ({"totals": [{"scope": "house", "rails": ["VDD_IN"]}]}, "one of module, board"),
    ({"totals": [{"scope": "module", "rails": ["VDD_INN"]}]}, "power.totals[0].rails[0] is 'VDD_INN'"),
    ({"totals": [{"scope": "module", "rails": ["VDD_IN", "VDD_IN"]}]}, "stands there twice"),
    ({"feeds": {"X": ["VDD_IN"]}}, "power.feeds is 'X'"), ({"compatible": ["p37/67"]}, "power.compatible[0]"),
    ({"modes": [{"id": 0, "name": "A", "watts": -1, "where": "b"}]}, "power.modes[0].watts"), ({"more": 1}, "'more'")])
def test_wrong_power_facts_are_named(tmp_path, change, why):
    tree = json.loads(json.dumps({**profiles.load("jetson-orin-nx")._asdict(), "name": "a"}))
    power = dict(zip(profiles.PowerFacts._fields, tree["power"]))
    power["totals"] = [{"scope": "module", "rails": ["VDD_IN"]}]
    power["modes"] = []
    (tmp_path / "a.json").write_text(json.dumps({**tree, "power": {**power, **change}}))
    with pytest.raises(InputError) as caught:
        profiles.load("a", str(tmp_path))
    assert why in str(caught.value) and "a.json" in str(caught.value)

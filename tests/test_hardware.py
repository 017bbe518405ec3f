"""Hardware figures in profiles: each has a source and agrees with what makers publish; a wrong one is one line."""
import copy
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dance_deploy import profiles
from dance_deploy.checked import CheckError
from dance_deploy.hardware import hardware_from_tree

WANTED = ("jetson-nano", "jetson-tx2", "jetson-xavier-nx", "jetson-orin-nano", "jetson-agx-orin", "desktop-gpu",
          "x86-cpu", "snapdragon-8gen1")


def tree_of(name):
    with open(os.path.join(profiles.folder(), name + ".json"), encoding="utf-8") as stream:
        return json.load(stream)["hardware"]


@pytest.mark.parametrize("name", WANTED)
def test_the_device_has_figures_or_says_why_not(name):
    hardware = profiles.load(name).hardware
    for key in ("units", "clock_mhz", "bandwidth_gbs", "memory_gib", "tensorrt", "compute_capability"):
        assert getattr(hardware, key) is not None or hardware.unknown[key]
    assert all(document.title for document in hardware.documents.values())


@pytest.mark.parametrize("name, precision, published_tflops", [
    # what the makers print, two operations a MAC
    ("jetson-nano", "fp16", 0.472), ("jetson-tx2", "fp16", 1.33), ("jetson-xavier-nx", "fp16", 1.69),
    ("jetson-agx-orin", "fp32", 5.3), ("desktop-gpu", "fp32", 35.6)])
def test_peak_rates_agree_with_what_is_published(name, precision, published_tflops):
    assert profiles.load(name).hardware.peak_macs(precision) * 2e-12 == pytest.approx(published_tflops, rel=0.01)


@pytest.mark.parametrize("name, bus_bits", [
    ("jetson-nano", 64), ("jetson-tx2", 128), ("jetson-xavier-nx", 128), ("jetson-orin-nano", 128),
    ("jetson-orin-nx", 128), ("jetson-agx-orin", 256)])
def test_bandwidth_is_bus_times_clock(name, bus_bits):
    hardware = profiles.load(name).hardware
    assert hardware.bandwidth_gbs == pytest.approx(bus_bits / 8 * 2 * hardware.memory_mhz / 1e3, rel=0.01)


def test_a_power_mode_limits_the_rates():
    nano = profiles.load("jetson-nano").hardware
    assert nano.peak_macs("fp32", 1) / nano.peak_macs("fp32", 0) == pytest.approx(640 / 921.6)
    orin = profiles.load("jetson-agx-orin").hardware
    assert orin.peak_macs("fp32", 1) == 6 * 128 * 408e6  # fewer multiprocessors, and slower
    assert orin.bandwidth(1) == pytest.approx(204.8e9 * 2133 / 3200)
    assert orin.peak_macs("fp32", None) == orin.peak_macs("fp32", 0) and orin.peak_macs("fp16") is None


def test_short_names_and_old_names_work():
    assert profiles.load("agx-orin") == profiles.load("jetson-agx-orin")
    assert profiles.load("nano").name == "jetson-nano"


@pytest.mark.parametrize("change, why", [
    (lambda t: t["sources"].pop("clock_mhz"), "nothing says where clock_mhz is from"),
    (lambda t: t.update(l2_kib=None), "l2_kib is not known, and nothing says why"),
    (lambda t: t["documents"].update(more={"title": "t", "url": None}), "documents.more: no figure is from it"),
    (lambda t: t["sources"].update(units=["elsewhere"]), "sources.units[0] is 'elsewhere'"),
    (lambda t: t["sources"].update(speed=["query"]), "there is no figure 'speed'"),
    (lambda t: t.update(clock_mhz=-1), "clock_mhz is -1"),
    (lambda t: t.update(compute_capability="5"), "compute_capability is '5'"),
    (lambda t: t["watts"].update(idle=99), "idle <= busy <= most"),
    (lambda t: t["macs_per_clock"].update(fp64=1), "one of fp32, fp16, int8"),
    (lambda t: t.update(tensorrt=["8.2"]), "the oldest and the newest release"),
    (lambda t: t["documents"]["query"].update(url="file:///etc/passwd"), "an address, or null"),
    (lambda t: t.update(extra=1), "unknown key 'extra'")])
def test_a_wrong_figure_is_named(change, why):
    tree = tree_of("jetson-nano")
    change(tree)
    with pytest.raises(CheckError) as caught:
        hardware_from_tree(tree)
    assert why in str(caught.value) and str(caught.value).startswith("hardware")


def test_a_limit_of_a_mode_that_is_not_there_is_named(tmp_path):
    with open(os.path.join(profiles.folder(), "jetson-nano.json"), encoding="utf-8") as stream:
        tree = json.load(stream)
    tree["name"] = "a"
    tree["hardware"]["modes"]["7"] = tree["hardware"]["modes"]["1"]
    (tmp_path / "a.json").write_text(json.dumps(tree))
    with pytest.raises(profiles.InputError, match="a.json.*no power mode 7"):
        profiles.load("a", str(tmp_path))


JSON = st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
                    max_leaves=6)


@given(st.data())
def test_whatever_stands_at_a_key_is_taken_or_refused_in_one_line(data):
    tree = copy.deepcopy(tree_of("jetson-nano"))
    tree[data.draw(st.sampled_from(sorted(tree)))] = data.draw(JSON)
    try:
        hardware_from_tree(tree)
    except CheckError as error:
        assert "\n" not in str(error)


def test_the_page_repeats_the_profiles():
    page = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs", "profiles.md")
    with open(page, encoding="utf-8") as stream:
        rows = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in stream if line.startswith("| ")]
    by_name = {row[0].split(" ")[0]: row[1:] for row in rows if len(row) == 4}
    for name in profiles.names():
        hardware = profiles.load(name).hardware
        if hardware is None:
            assert name not in by_name
            continue
        rates, bandwidth, watts = by_name[name]
        peak = hardware.peak_macs("fp32")
        assert rates.startswith("no published rate" if peak is None else "{:.0f},".format(peak / 1e9))
        assert bandwidth == ("?" if hardware.bandwidth_gbs is None else "{:.4g}".format(hardware.bandwidth_gbs))
        assert watts in ("?", ", ".join("?" if w is None else "{:.3g}".format(w) for w in hardware.watts))

"""What dance-doctor says of boards, on trees as boards lay them out; each lack with the command that mends it."""
import pytest

from dance_deploy import jetson
from dance_deploy.machine import INFO, OK, OPTIONAL, machine_names

NANO = {
    "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3449-0000-b00+p3448-0000-b00\0nvidia,jetson-nano\0nvidia,tegra210\0",
    "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64\n",
    "usr/local/cuda/version.txt": "CUDA Version 10.2.300\n", "usr/local/cuda/bin/nvcc": "",
    "var/lib/nvpmodel/status": "pmode:0000", "etc/nvpmodel.conf": "# NAME\n< POWER_MODEL ID=0 NAME=MAXN >\nGPU 1\n"
                                                                 "< POWER_MODEL ID=1 NAME=5W >\n",
    "sys/class/devfreq/57000000.gpu/cur_freq": "921600000", "sys/class/devfreq/57000000.gpu/min_freq": "921600000",
    "sys/class/devfreq/57000000.gpu/max_freq": "921600000",
    "proc/meminfo": "MemTotal:        4059212 kB\nSwapTotal:       6223900 kB\n",
    "proc/swaps": "Filename\t\tType\t\tSize\tUsed\tPriority\n/dev/zram0 partition\t507396\t0\t5\n"
                  "/swapfile file\t\t4194300\t0\t-2\n",
}


def findings(root, changes=()):
    for path, text in {**NANO, **dict(changes)}.items():
        if text is not None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
    return {finding.name: finding for finding in jetson.board_findings(str(root))}


def test_a_nano_that_is_ready_lacks_nothing(tmp_path):
    found = findings(tmp_path)
    assert {name: f.state for name, f in found.items() if f.state != INFO} == dict.fromkeys(
        ("profile", "JetPack", "CUDA", "power mode", "GPU clock", "swap"), OK)
    assert not any(finding.mend for finding in found.values())
    assert found["profile"].detail.startswith("jetson-nano (") and found["JetPack"].detail.startswith("4.6.1")
    assert found["CUDA"].detail.startswith("10.2.300,") and found["power mode"].detail == "0 (MAXN)"
    assert found["GPU clock"].detail == "922 of 922 MHz, fixed"
    assert found["swap"].detail == "5.9 GiB, 4.0 of it on disk"


@pytest.mark.parametrize("changes, name, state, detail, mend", [
    ({"etc/nv_tegra_release": "# R32 (release), REVISION: 6.1, GCID: 1\n"}, "JetPack", OPTIONAL,
     "4.6, TensorRT 8.0: engines need 8.2.1 or newer", "flash a newer JetPack"),
    ({"etc/nv_tegra_release": "# R99 (release), REVISION: 1.0\n"}, "JetPack", INFO, "not known for this release", None),
    ({"proc/device-tree/compatible": "nvidia,p9999-0000\0"}, "profile", OPTIONAL, "no profile names this board",
     "docs/profiles.md"),
    ({"usr/local/cuda/bin/nvcc": None}, "CUDA", OPTIONAL, "no compiler", "sudo apt-get install nvidia-jetpack"),
    ({"usr/local/cuda/version.txt": None, "usr/local/cuda/version.json": '{"cuda": {"version" : "11.4.19"}}'},
     "CUDA", OK, "11.4.19,", None),
    ({"var/lib/nvpmodel/status": "pmode:0001 fmode:quiet"}, "power mode", INFO, "1 (5W), not the one",
     "sudo nvpmodel -m 0"),
    ({"var/lib/nvpmodel/status": None}, "power mode", INFO, "unknown", "sudo nvpmodel -q"),
    ({"etc/nvpmodel.conf": None, "var/lib/nvpmodel/status": "pmode:0001"}, "power mode", INFO, "1 (5W)", "-m 0"),
    ({"sys/class/devfreq/57000000.gpu/min_freq": "76800000"}, "GPU clock", INFO, "changing with the load",
     "sudo jetson_clocks"),
    ({"sys/class/devfreq/57000000.gpu/cur_freq": "?"}, "GPU clock", INFO, "unknown", "sudo jetson_clocks"),
    ({"proc/swaps": "Filename\n/dev/zram0 partition\t507396\t0\t5\n"}, "swap", OPTIONAL, "0.0 of it on disk",
     "sudo fallocate -l 4G /swapfile"),
    ({"proc/swaps": "", "proc/meminfo": "MemTotal: 15928000 kB\nSwapTotal: 7964000 kB\n"}, "swap", OK, "7.6 GiB",
     None)])
def test_each_lack_comes_with_what_mends_it(tmp_path, changes, name, state, detail, mend):
    finding = findings(tmp_path, changes)[name]
    assert finding.state == state and detail in finding.detail
    assert finding.mend is None if mend is None else mend in finding.mend


@pytest.mark.parametrize("line, l4t, jetpack, tensorrt", [
    ("R32 (release), REVISION: 7.4, GCID: 33514132", (32, 7, 4), "4.6.1 or newer", "8.2"),
    ("R35 (release), REVISION: 4.1, GCID: 33958178", (35, 4, 1), "5.1", "8.5"),
    ("R36 (release), REVISION: 4.3", (36, 4, 3), "6.1 or 6.2", "10.3"),
    ("R31 (release), REVISION: 1.0", (31, 1, 0), None, None),
    ("no release", (), None, None)])
def test_releases(line, l4t, jetpack, tensorrt):
    assert jetson.release_from_line(line) == jetson.Release(l4t, jetpack, tensorrt)


def test_an_orin_is_known_by_its_module(tmp_path):
    found = findings(tmp_path, {
        "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3\n", "var/lib/nvpmodel/status": "pmode:0002",
        "etc/nvpmodel.conf": None, "sys/class/devfreq/57000000.gpu/cur_freq": None,
        "sys/class/devfreq/17000000.gpu/cur_freq": "306000000", "sys/class/devfreq/17000000.gpu/min_freq": "306000000",
        "sys/class/devfreq/17000000.gpu/max_freq": "1020000000"})
    assert found["profile"].detail.startswith("jetson-orin-nano") and found["JetPack"].state == OK
    assert found["power mode"].detail.startswith("2 (MAXN_SUPER), not the one")
    assert found["GPU clock"].detail == "306 of 1020 MHz, changing with the load"
    assert machine_names(str(tmp_path)) == ("p3768-0000", "p3767-0005", "p3767-0005", "tegra234")


def test_elsewhere_there_is_nothing_to_say(tmp_path):
    assert jetson.board_findings(str(tmp_path)) == []

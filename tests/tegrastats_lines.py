"""Lines in the layout of each board and release, made up by us, and mutations of them. Used by tests/power; run as
a program it repeats the figures of docs/tegrastats.md:

    python tests/tegrastats_lines.py 1000000 [LOG...]      checks so many mutated lines
    python tests/tegrastats_lines.py speed [LOG...]        lines read in a second of CPU time
"""
import json
import random
import sys
import time
from pathlib import Path

# layout -> (line, rails of the total or None, its scope, its mW, profiles that know the labels)
LINES = {
    "tk1 to r28.1": (
        "RAM 700/1892MB (lfb 5x1MB) cpu [4%,off,off,11%]@-1 EMC 7%@792 AVP 0%@204 VDE 0 GR3D 12%@852 EDP limit 0",
        None, None, None, []),
    "tx1 r28.1": (
        "RAM 1500/3964MB (lfb 10x4MB) SWAP 3/1982MB (cached 1MB) cpu [7%,off,12%,100%]@1734 EMC 2%@1600 APE 25 "
        "GR3D 41%@76",
        None, None, None, []),
    "tx1 r32": (
        "RAM 1500/3964MB (lfb 10x4MB) CPU [1%@102,2%@102,3%@102,4%@102] EMC_FREQ 0% GR3D_FREQ 5% PLL@30C "
        "CPU@31.5C PMIC@100C GPU@29C AO@33C thermal@30.25C VDD_IN 3100/3050 VDD_CPU 700/650 VDD_GPU 300/310",
        ["VDD_IN"], "module", 3100, ["jetson-tx1", "jetson-tx2"]),
    "nano r32": (
        "RAM 1500/3964MB (lfb 10x4MB) SWAP 3/1982MB (cached 1MB) IRAM 0/252kB(lfb 252kB) CPU "
        "[9%@102,3%@102,0%@102,1%@102] EMC_FREQ 1%@204 GR3D_FREQ 33%@76 APE 25 PLL@24C CPU@27.5C PMIC@50C GPU@28C "
        "AO@29.5C thermal@28C POM_5V_IN 2100/1990 POM_5V_GPU 410/300 POM_5V_CPU 620/511",
        ["POM_5V_IN"], "module", 2100, ["jetson-nano"]),
    "tx2 r28.2": (
        "RAM 1500/3964MB (lfb 10x4MB) CPU [1%@2035,2%@2035,off,off,0%@2034,0%@2035] BCPU@35C MCPU@35C GPU@41C "
        "PLL@35C AO@32C Tboard@29C Tdiode@31.25C PMIC@100C thermal@33.8C VDD_IN 3600/3550 VDD_CPU 690/680 VDD_GPU "
        "370/371 VDD_SOC 650/651 VDD_WIFI 0/0 VDD_DDR 880/881",
        ["VDD_IN"], "module", 3600, ["jetson-tx2"]),
    "tx2 r32": (
        "RAM 1500/3964MB (lfb 10x4MB) SWAP 3/1982MB (cached 1MB) CPU [4%@345,off,off,1%@345,0%@345,0%@345] "
        "EMC_FREQ 2%@1600 GR3D_FREQ @0 APE 150 MTS fg 1% bg 2% PLL@34.5C MCPU@34.5C PMIC@50C Tboard@29C GPU@31C "
        "BCPU@34.5C thermal@32.8C Tdiode@30.5C VDD_SYS_GPU 150/151 VDD_SYS_SOC 380/383 VDD_4V0_WIFI 19/20 VDD_IN "
        "2900/2890 VDD_SYS_CPU 300/306 VDD_SYS_DDR 260/269",
        ["VDD_IN"], "module", 2900, ["jetson-tx2"]),
    "tx2 nx": (
        "RAM 1500/3964MB (lfb 10x4MB) SWAP 3/1982MB (cached 1MB) CPU [3%@345,off,off,0%@345,1%@345,1%@345] "
        "EMC_FREQ 0% GR3D_FREQ 0% PLL@50.5C thermal@50.3C",
        None, None, None, []),
    "xavier nx r32": (
        "RAM 1500/3964MB (lfb 10x4MB) SWAP 3/1982MB (cached 1MB) CPU [9%@1420,1%@1420,off,off,off,off] EMC_FREQ "
        "0% GR3D_FREQ 98% AO@42.5C GPU@44.5C PMIC@100C AUX@43.5C CPU@44.5C thermal@44.25C VDD_IN 9700/9680 "
        "VDD_CPU_GPU_CV 5870/5890 VDD_SOC 1400/1405",
        ["VDD_IN"], "module", 9700, ["jetson-orin-nano", "jetson-orin-nx", "jetson-xavier-nx"]),
    "xavier nx r35": (
        "03-09-2025 08:07:06 RAM 1500/3964MB (lfb 10x4MB) SWAP 3/1982MB (cached 1MB) CPU [9%@1189,off] EMC_FREQ "
        "1%@1600 GR3D_FREQ 5%@[114] VIC_FREQ 115 APE 150 AUX@41C CPU@43.5C PMIC@50C VDD_IN 4550mW/4552mW "
        "VDD_CPU_GPU_CV 630mW/637mW VDD_SOC 1230mW/1236mW",
        ["VDD_IN"], "module", 4550, ["jetson-orin-nano", "jetson-orin-nx", "jetson-xavier-nx"]),
    "agx xavier": (
        "RAM 1500/3964MB (lfb 10x4MB) CPU [1%@1160,2%@1161,off,off] EMC_FREQ 3%@665 GR3D_FREQ 4%@114 APE 150 MTS "
        "fg 0% bg 0% AO@29C GPU@30C iwlwifi@34C Tboard@30C PMIC@100C GPU 461/466 CPU 462/466 SOC 930/932 CV 0/0 "
        "VDDRQ 155/156 SYS5V 1850/1854",
        ["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"], "module", 3858, ["jetson-agx-xavier"]),
    "orin nx r35": (
        "03-09-2025 08:07:06 RAM 1500/3964MB (lfb 10x4MB) SWAP 3/1982MB (cached 1MB) CPU [6%@729,off] EMC_FREQ "
        "0%@2133 GR3D_FREQ 7%@611 GR3D2_FREQ 9%@0 VIC_FREQ 729 APE 174 CV0@-256C CPU@47.937C tj@48.875C VDD_IN "
        "5290mW/5299mW VDD_CPU_GPU_CV 770mW/773mW VDD_SOC 1420mW/1424mW",
        ["VDD_IN"], "module", 5290, ["jetson-orin-nano", "jetson-orin-nx", "jetson-xavier-nx"]),
    "orin nano r36": (
        "03-09-2025 08:07:06 RAM 1500/3964MB (lfb 10x4MB) SWAP 3/1982MB (cached 1MB) CPU [1%@729,2%@729] "
        "GR3D_FREQ 6% NVDEC off VIC 36%@115 APE 200 cpu@50.031C gpu@49.031C tj@50.25C VDD_IN 4820mW/4824mW "
        "VDD_CPU_GPU_CV 510mW/518mW VDD_SOC 1470mW/1475mW",
        ["VDD_IN"], "module", 4820, ["jetson-orin-nano", "jetson-orin-nx", "jetson-xavier-nx"]),
    "agx orin r34": (
        "03-09-2025 08:07:06 RAM 1500/3964MB (lfb 10x4MB) SWAP 3/1982MB (cached 1MB) CPU [0%@729,off] EMC_FREQ "
        "0%@204 GR3D_FREQ 8%@114 GR3D2_FREQ 0%@114 NVJPG1 729 CV0@-256C CPU@43.5C VDD_GPU_SOC 4780mW/4788mW "
        "VDD_CPU_CV 790mW/798mW VIN_SYS_5V0 3840mW/3842mW NC 0mW/0mW VDDQ_VDD2_1V8AO 700mW/707mW NC 0mW/0mW",
        ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"], "module", 9410, ["jetson-agx-orin"]),
    "agx orin r36": (
        "03-09-2025 08:07:06 RAM 1500/3964MB (lfb 10x4MB) SWAP 3/1982MB (cached 1MB) CPU [5%@729,1%@729] EMC_FREQ "
        "0%@2133 GR3D_FREQ 2%@[305,306] NVENC 79%@166 NVDLA0 off APE 174 cpu@47.687C tboard@36.75C VDD_GPU_SOC "
        "2800mW/2801mW VDD_CPU_CV 0mW/0mW VIN_SYS_5V0 4530mW/4536mW",
        ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"], "module", 7330, ["jetson-agx-orin"]),
    "thor r38": (
        "03-09-2025 08:07:06 RAM 1500/3964MB (lfb 10x4MB) SWAP 3/1982MB (cached 1MB) CPU [1%@972,0%@2601] "
        "EMC_FREQ 0%@665 GR3D_FREQ @[0,0,0] NVENC0_FREQ @0 VIC off cpu@34.468C soc012@33.781C VDD_GPU -392mW/0mW "
        "VDD_CPU_SOC_MSS 4160mW/4165mW VIN_SYS_5V0 4120mW/4126mW",
        ["VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"], "module", 7888, ["jetson-thor"]),
    "thor r39": (
        "03-09-2025 08:07:06 RAM 1500/3964MB (lfb 10x4MB) SWAP 3/1982MB (cached 1MB) CPU [2%@972,1%@972] "
        "cpu@60.406C tj@41.8C/43.1C VDD_GPU 37520mW/37528mW/37530mW VDD_CPU_SOC_MSS 18960mW/18961mW/18962mW "
        "VIN_SYS_5V0 18330mW/18331mW/18332mW VIN 87420mW/43710mW/87426mW",
        ["VIN"], "board", 87420, ["jetson-thor"]),
    "drive orin": (
        "03-09-2025 08:07:06 RAM 1500/3964MB (lfb 10x4MB) CPU [48%@2009,29%@2009] EMC_FREQ @3199 GR3D_FREQ "
        "99%@1274 GR3D2_FREQ 98%@1274 NVENC_LOAD 7% APE 81 CV0@73.218C tj@78.937C",
        None, None, None, []),
}

_JUNK = ("RAM", "RAM 1/2MB", "CPU", "CPU [", "GPU", "@", "[", "]", "(", ")", "/", "-", "mW", "%", "off", "MTS", "fg",
         "IRAM", "SWAP", "GR3D_FREQ", "@[", "1/2", "1/2/3", "-1mW/-1mW", "VDD_IN 1/1", "[sudo] password for nvidia:",
         "\0\0", "\x1b[0m", "\u0663\u0664", "\u00b2%", "1e9", "nan", "Epoch 3/10", "C", "x@C", "@-256C", "9" * 40,
         "%@" * 30, "[0," * 40, "1/" * 50, "\u2028", "\t", "MB (lfb", ",")


def mutated(rng: random.Random, lines: list[str]) -> str:
    """One line out of `lines` with one to four things wrong with it."""
    line = rng.choice(lines)
    for _ in range(rng.randint(1, 4)):
        at, end = sorted((rng.randint(0, len(line)), rng.randint(0, len(line))))
        kind = rng.randrange(9)
        if kind == 0:  # broken off
            line = line[:at]
        elif kind == 1:  # began in the middle
            line = line[at:]
        elif kind == 2:  # two lines ran into one
            other = rng.choice(lines)
            line = line[:at] + other[rng.randint(0, len(other)):]
        elif kind == 3:
            line = line[:at] + line[end:]
        elif kind == 4:
            line = line[:at] + rng.choice(_JUNK) + line[at:]
        elif kind == 5:  # bytes that flipped
            line = line[:at] + chr(rng.choice((rng.randrange(128), rng.randrange(0x3000)))) + line[at + 1:]
        elif kind == 6:  # columns in another order
            tokens = line.split(" ")
            rng.shuffle(tokens)
            line = " ".join(tokens)
        elif kind == 7:  # a piece many times
            line = line[:at] + line[at:min(end, at + 20)] * rng.randint(2, 200) + line[end:]
        else:
            line = line.replace(" ", rng.choice(("", "  ", "\t", "\n", " \r")), rng.randint(1, 5))
    return line


def check(line: str, boards) -> dict:
    """Parse `line`; what must hold of any text whatever holds, or AssertionError."""
    from dance_deploy.power.parse_log import json_from_line
    found = json_from_line(line, boards)
    assert list(found) == ["timestamp", "ram_mb", "swap_mb", "cpu_load_pct", "gpu_load_pct", "emc_load_pct", "temps_c",
                           "rails_mw", "total"]
    for rail in found["rails_mw"]:
        # no figure is made up: each stands in the line as it was printed
        assert len(rail) in (3, 4) and rail[0] in line and all(str(abs(mw)) in line for mw in rail[1:]), rail
    for temp in found["temps_c"]:
        assert len(temp) in (2, 3) and temp[0] + "@" in line
    if found["total"] is not None:
        now = {rail[0]: rail[1] for rail in found["rails_mw"]}
        assert found["total"]["mw"] == sum(now[label] for label in found["total"]["rails"])
    json.dumps(found, allow_nan=False)
    return found


def has_ended(pid: int, patience_s: float = 5.0) -> bool:
    """Whether the process is gone, or only waits for its parent to take note of that, within patience_s."""
    until_s = time.monotonic() + patience_s
    while time.monotonic() < until_s:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.02)
    return False


def speed(logs: list[str]) -> None:
    """Print lines a second of CPU time: the best of five passes over 20,000 lines, for the samples and for the JSON."""
    from dance_deploy.power.boards import Boards
    from dance_deploy.power.parse_log import json_from_line
    from dance_deploy.power.tegrastats import sample_from_line
    lines = [line for log in logs for line in Path(log).read_text(errors="replace").splitlines()]
    lines = (lines or [each[0] for each in LINES.values()])[:20000]
    lines = (lines * (20000 // len(lines) + 1))[:20000]
    boards = Boards()
    for name, work in (("samples", sample_from_line), ("JSON", lambda line: json.dumps(json_from_line(line, boards)))):
        passes_s = []
        for _ in range(5):
            began_s = time.process_time()
            for line in lines:
                work(line)
            passes_s.append(time.process_time() - began_s)
        print("%s: %.0f lines a second" % (name, len(lines) / min(passes_s)))


def main(count: int, logs: list[str]) -> None:
    from dance_deploy.power.boards import Boards
    lines = [each[0] for each in LINES.values()]
    for log in logs:
        lines += Path(log).read_text(errors="replace").splitlines()[:200]
    boards, slowest_s, kept, start_s = Boards(), 0.0, 0, time.perf_counter()
    for seed in range(count):
        line = mutated(random.Random(seed), lines)
        began_s = time.process_time()
        try:
            kept += check(line, boards)["ram_mb"] is not None
        except Exception:
            print("seed", seed, repr(line)[:2000])
            raise
        slowest_s = max(slowest_s, time.process_time() - began_s)
    print("%d mutated lines of %d: none raised, %.1f %% still a sample, slowest %.2f ms, %.0f s in all" % (
        count, len(lines), 100.0 * kept / count, slowest_s * 1e3, time.perf_counter() - start_s))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    if sys.argv[1] == "speed":
        speed(sys.argv[2:])
    else:
        main(int(sys.argv[1]), sys.argv[2:])

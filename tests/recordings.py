"""Recordings whose figures are known, for tests of pages and for the picture in docs/."""
import sys
from pathlib import Path

import numpy as np

from dance_deploy.power import recording_file
from dance_deploy.power.recording import Recording, SourceFacts, Window
from dance_deploy.power.trace import Trace

RAILS = ("POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU")
IDLE_W = 1.5
A_W, B_W = 5.0, 4.5
A_S, B_S = 3.2, 2.4
COMMANDS = {"a": ["dance-run", "bundle", "clips", "-q", "--dense"], "b": ["dance-run", "bundle", "clips", "-q"]}


def environment(warmth_c=0.0, **changes):
    """A snapshot as environment.snapshot() gives it."""
    return dict({"power_mode": "MAXN", "governor": "schedutil", "cpu_mhz": 1479.0, "cpu_limit_mhz": 1479.0,
                 "cpus_online": "0-3", "gpu_mhz": 921.6, "throttled": 0,
                 "temps_c": {"CPU-therm": 36.0 + warmth_c, "GPU-therm": 34.5 + 0.8 * warmth_c}}, **changes)


def comparison(pairs=8, period_s=0.1, seed=1, gap_s=None, total=("POM_5V_IN",), commands=None, noise=0.01):
    """A and B by turns, 16.0 J and 10.8 J a run but for `noise`; gap_s: (start, end) without samples."""
    random = np.random.RandomState(seed)
    time_s, power_w, windows, now_s = [], [], [], 0.0
    plan = [("idle", 5.0, IDLE_W, 0.0)]
    for i in range(pairs):
        both = [("a", A_S, A_W, 1.0), ("b", B_S, B_W, 1.0)]
        plan += both if i % 2 == 0 else both[::-1]
    for label, seconds, mean_w, swing_w in plan:
        level = mean_w * (1.0 + (noise if label != "idle" else 0.0) * random.randn())
        start_s = now_s + 0.4
        t = now_s + period_s * np.arange(int(round((seconds + 0.8) / period_s)))
        inside = (t >= start_s) & (t <= start_s + seconds)
        wave = level + swing_w * np.sin(8.0 * np.pi * (t - start_s) / seconds) + 0.15 * random.randn(len(t))
        power_w += np.where(inside, wave, IDLE_W + 0.02 * random.randn(len(t))).tolist()
        time_s += t.tolist()
        windows.append(Window(label, start_s, start_s + seconds, None if label == "idle" else 0,
                              environment(start_s / 20.0), environment((start_s + seconds) / 20.0)))
        now_s = t[-1] + period_s
    times, watts = np.array(time_s), np.array(power_w)
    if gap_s is not None:
        kept = (times < gap_s[0]) | (times > gap_s[1])
        times, watts = times[kept], watts[kept]
    values = 1e3 * np.stack([watts, 0.45 * watts - 0.4, 0.2 * watts], axis=1)
    source = SourceFacts("ina3221", "power", RAILS, tuple(total), "module", False, period_s)
    return Recording(source, COMMANDS if commands is None else commands, "2026-01-01T10:00:00Z",
                     Trace("power", times, RAILS, values, 0), tuple(windows), ())


if __name__ == "__main__":  # the recording of docs/images/energy-report.png
    recording_file.save(comparison(gap_s=(27.2, 28.0)), str(Path(sys.argv[1])))

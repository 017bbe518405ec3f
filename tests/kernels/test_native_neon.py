"""The NEON build, Winograd included: random cases on an emulated processor, where compiler and emulator are there."""
import os
import shutil
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COMPILER, EMULATORS = "aarch64-linux-gnu-g++", ("qemu-aarch64-static", "qemu-aarch64")


def test_random_cases_on_an_emulated_aarch64(tmp_path):
    emulator = next(filter(None, map(shutil.which, EMULATORS)), None)
    missing = [name for name, path in ((COMPILER, shutil.which(COMPILER)), (EMULATORS[0], emulator)) if path is None]
    if missing:
        pytest.skip(" and ".join(missing) + " not installed")
    done = subprocess.run(["make", "-C", os.path.join(ROOT, "kernels"), "neon", f"BUILD={tmp_path}", f"QEMU={emulator}",
                           "CASES=30"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "neon: 30 cases" in done.stdout and "all good" in done.stdout

#!/usr/bin/env python3
"""Compile every CUDA kernel and say what it takes: registers, shared memory, spills, resident blocks, inner loop.

    python kernels/cuda/compile_table.py           compile, print the table
    python kernels/cuda/compile_table.py --write   also write docs/benchmarks/cuda-compile.md and .json

No GPU and no nvcc is needed for compute capabilities 5.3 and 7.2: NVIDIA's NVRTC and ptxas 12.9 by pip,
    pip install "nvidia-cuda-nvrtc-cu12==12.9.*" "nvidia-cuda-nvcc-cu12==12.9.*" "nvidia-cuda-runtime-cu12==12.9.*"
The others are compiled by an nvcc on PATH that knows them, and left out where there is none. All of it is a check: on a
Jetson Nano the kernels are built by its own nvcc 10.2, whose figures may differ.
"""
import argparse
import ctypes
import json
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
DOCS = HERE.parents[1] / "docs" / "benchmarks"
PIP_ARCHITECTURES = (53, 72)
NVCC_ARCHITECTURES = (75, 87, 90)
# Jetson Nano (compute capability 5.3), CUDA C Programming Guide, "Technical Specifications per Compute Capability"
NANO = {"registers_sm": 65536, "registers_block": 32768, "shared_sm": 65536, "shared_block": 49152, "warps": 64,
        "blocks": 32, "register_unit": 256, "shared_unit": 256}
INCLUDE_ALL = '#include "kernels.cuh"\n'


def pip_toolkit():
    """Folder of NVIDIA's packages, or None where one of the three is missing."""
    root = pathlib.Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    needed = ("cuda_nvrtc/lib/libnvrtc.so.12", "cuda_nvcc/bin/ptxas", "cuda_runtime/include/cuda_fp16.h")
    return root if all((root / one).exists() for one in needed) else None


def nvrtc_ptx(root, architecture, extra=()):
    """PTX of all kernels by NVRTC. Raises SystemExit with the compiler's words."""
    nvrtc = ctypes.CDLL(str(root / "cuda_nvrtc" / "lib" / "libnvrtc.so.12"))
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), INCLUDE_ALL.encode(), b"kernels.cu", 0, None, None)
    options = [f"--gpu-architecture=compute_{architecture}", "--std=c++14", f"--include-path={HERE}",
               f"--include-path={root / 'cuda_runtime' / 'include'}"] + list(extra)
    failed = nvrtc.nvrtcCompileProgram(program, len(options),
                                       (ctypes.c_char_p * len(options))(*(o.encode() for o in options)))
    size = ctypes.c_size_t()
    if failed:
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        sys.exit(f"NVRTC, compute_{architecture}:\n{log.value.decode()}")
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, ptx)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return ptx.value


def run(command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(" ".join(str(c) for c in command) + "\n" + done.stdout.decode())
    return done.stdout.decode()


def parse_ptxas(text):
    """{kernel: registers, shared bytes, spilled bytes} of `ptxas -v`."""
    kernels, name = {}, None
    for line in text.splitlines():
        entry = re.search(r"Compiling entry function '(\w+)'", line)
        if entry:
            name = entry.group(1)
            kernels[name] = {"registers": 0, "shared_bytes": 0, "spill_bytes": 0, "stack_bytes": 0}
        for key, pattern in (("registers", r"Used (\d+) registers"), ("shared_bytes", r"(\d+) bytes smem"),
                             ("spill_bytes", r"(\d+) bytes spill stores"), ("stack_bytes", r"(\d+) bytes stack frame")):
            found = re.search(pattern, line)
            if name and found:
                kernels[name][key] = int(found.group(1))
    return kernels


def compile_by_pip(root, architecture):
    """(figures by kernel, cubin) of one architecture."""
    with tempfile.TemporaryDirectory() as folder:
        ptx, cubin = pathlib.Path(folder) / "k.ptx", pathlib.Path(folder) / "k.cubin"
        ptx.write_bytes(nvrtc_ptx(root, architecture).rstrip(b"\0"))
        text = run([root / "cuda_nvcc" / "bin" / "ptxas", f"-arch=sm_{architecture}", "-v", ptx, "-o", cubin])
        return parse_ptxas(text), cubin.read_bytes()


def compile_by_nvcc(architecture):
    """Figures by kernel, host side included, so that what a plugin builds is what is checked."""
    with tempfile.TemporaryDirectory() as folder:
        return parse_ptxas(run(["nvcc", "-std=c++14", "-O3", f"-arch=sm_{architecture}", "-Xptxas", "-v", "-c",
                                HERE / "dance_cuda.cu", "-o", pathlib.Path(folder) / "k.o"]))


def nvcc_knows():
    """Architectures among NVCC_ARCHITECTURES that the nvcc on PATH compiles for."""
    if shutil.which("nvcc") is None:
        return []
    listed = run(["nvcc", "--list-gpu-code"])
    return [a for a in NVCC_ARCHITECTURES if re.search(rf"sm_{a}\b", listed)]


# ---- Maxwell machine code: 64-bit instructions in threes, after a word with 21 bits of control codes for each ----
# (encoding: the notes of the maxas assembler, github.com/NervanaSystems/maxas/wiki/Control-Codes)

FMA = {0x598: "FFMA", 0x498: "FFMA", 0x5d0: "HFMA2", 0x5d1: "HFMA2"}


class Instruction:
    """One decoded instruction: its word, stall cycles (0: issued together with the next), and reuse-cache flags."""

    def __init__(self, word, control):
        self.word, self.stall, self.reuse = word, control & 15, control >> 17 & 15

    @property
    def is_fma(self):
        return self.word >> 52 in FMA

    @property
    def branch(self):
        """Relative target in bytes of a BRA, else None."""
        if self.word >> 52 != 0xe24:
            return None
        offset = self.word >> 20 & 0xffffff
        return offset - (1 << 24) if offset >> 23 else offset

    def banks_delay(self, held):
        """Cycles that an FMA waits for register banks. held: registers in the reuse cache, by operand slot."""
        registers = {}
        for slot, shift in enumerate((8, 20, 39)):
            register = self.word >> shift & 0xff
            if register != 255 and held.get(slot) != register:
                registers.setdefault(register % 4, set()).add(register)
        return max([len(r) for r in registers.values()] + [1]) - 1


def sections(cubin):
    """{name: bytes} of a 64-bit ELF file's sections."""
    table, = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3a)
    headers = [struct.unpack_from("<IIQQQQ", cubin, table + i * size) for i in range(count)]
    text = cubin[headers[names][4]:headers[names][4] + headers[names][5]]
    return {text[h[0]:text.index(b"\0", h[0])].decode(): cubin[h[4]:h[4] + h[5]] for h in headers if h[1] != 8}


def instructions(code):
    """[(address, Instruction)] of one kernel."""
    decoded = []
    for at in range(0, len(code) - 31, 32):
        control, *words = struct.unpack_from("<4Q", code, at)
        decoded += [(at + 8 + 8 * i, Instruction(word, control >> 21 * i & 0x1fffff)) for i, word in enumerate(words)]
    return decoded


def inner_loop(code):
    """Figures of the smallest loop that holds most FMAs, for the table; None where there are hardly any."""
    decoded = instructions(code)
    loops = [(at + 8 + one.branch, at) for at, one in decoded if one.branch is not None and one.branch < 0]
    best = None
    for start, end in loops:
        body = [one for at, one in decoded if start <= at <= end]
        fmas = sum(one.is_fma for one in body)
        if best is None or (fmas, -len(body)) > (best[0], -len(best[1])):
            best = (fmas, body)
    if best is None or best[0] < 64:
        return None
    fmas, body = best
    dual = sum(one.stall == 0 for one in body)
    delays, delayed, held = 0, 0, {}
    for one in body:
        if one.is_fma:
            wait = one.banks_delay(held)
            delays, delayed = delays + wait, delayed + (wait > 0)
        held = {slot: one.word >> shift & 0xff for slot, shift in enumerate((8, 20, 39)) if one.reuse >> slot & 1}
    slots = len(body) - dual
    return {"instructions": len(body), "dual_issued": dual, "fma": fmas, "fma_share": round(fmas / slots, 3),
            "fma_delayed": round(delayed / fmas, 3), "peak_share": round(fmas / (slots + delays), 3)}


# ---- the table ----

def threads_of():
    """{kernel: threads of a block} from variants.inc, the list that declares the kernels."""
    source = (HERE / "variants.inc").read_text()
    listed = source[source.index("\nDANCE_CONV_TILE"):]
    tiles = re.findall(r"^DANCE_CONV_TILE\((\w+), \w+, (\d), \d\)", listed, re.M)
    threads = {name: 32 * int(warps) for name, warps in tiles}
    names = re.findall(r"^DANCE_(?:PACK_)?KERNEL\((\w+),", listed, re.M)
    return dict(threads, **{name: 128 for name in names})


def nano_blocks(figures, threads):
    """Blocks of a kernel that one multiprocessor of the Nano holds (dynamic shared memory not counted)."""
    def up(value, unit):
        return -(-value // unit) * unit
    warps = -(-threads // 32)
    by_registers = NANO["registers_sm"] // (up(figures["registers"] * 32, NANO["register_unit"]) * warps)
    by_shared = NANO["shared_sm"] // max(up(figures["shared_bytes"], NANO["shared_unit"]), 1)
    return min(by_registers, by_shared, NANO["warps"] // warps, NANO["blocks"])


def collect(architectures=None):
    """{architecture: {kernel: figures}}; None: all that can be compiled here. Raises SystemExit where one fails."""
    root, by_nvcc, threads, table = pip_toolkit(), nvcc_knows(), threads_of(), {}
    for architecture in architectures or PIP_ARCHITECTURES + NVCC_ARCHITECTURES:
        if architecture in PIP_ARCHITECTURES and root:
            figures, cubin = compile_by_pip(root, architecture)
            if architecture == 53:
                code = sections(cubin)
                for name, one in figures.items():
                    one["nano_blocks"] = nano_blocks(one, threads[name])
                    one["loop"] = inner_loop(code[".text." + name])
        elif architecture in by_nvcc:
            figures = compile_by_nvcc(architecture)
        else:
            continue
        assert set(figures) == set(threads), set(figures) ^ set(threads)
        table[str(architecture)] = {name: dict(figures[name], threads=threads[name]) for name in threads}
    return table


def broken_limits(figures):
    """What of one kernel's sm_53 figures a Nano cannot run, or should not; [] where all is well."""
    broken = []
    if figures["spill_bytes"] or figures["stack_bytes"]:
        broken.append(f"spills {figures['spill_bytes']} bytes, stack {figures['stack_bytes']} bytes")
    if figures["registers"] * figures["threads"] > NANO["registers_block"]:
        broken.append(f"{figures['registers']} registers x {figures['threads']} threads, a block has 32768")
    if figures["shared_bytes"] > NANO["shared_block"]:
        broken.append(f"{figures['shared_bytes']} bytes of shared memory, a block has 49152")
    return broken


HEAD = """# CUDA kernels as compiled

Made by `python kernels/cuda/compile_table.py --write`; `tests/kernels/test_cuda_compile.py` compiles again and holds
the figures. **Compiled, not run**: this is what ptxas says, not what a device did. sm_53 and sm_72: NVRTC and ptxas
12.9; the others: nvcc. A Jetson Nano builds with its own nvcc 10.2, whose figures may differ.

Blocks: that one multiprocessor of the Nano holds by registers and static shared memory (64 Ki registers, 64 KiB).
Loop: instructions (of them issued together with their neighbour), share of FMAs (FFMA or HFMA2) in the issue
slots, FMAs that wait for register banks, and FMAs over slots and waits: a ceiling for the share of peak.

## sm_53 (Jetson Nano)

| kernel | threads | registers | shared bytes | spills | blocks | loop | FMA share | FMAs delayed | ceiling |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def markdown(table):
    """The committed page."""
    lines = [HEAD]
    for name, f in table["53"].items():
        loop = f["loop"]
        tail = ("{instructions} ({dual_issued}) | {:.0%} | {:.0%} | {:.0%}".format(
            loop["fma_share"], loop["fma_delayed"], loop["peak_share"], **loop) if loop else "- | - | - | -")
        lines.append(f"| `{name}` | {f['threads']} | {f['registers']} | {f['shared_bytes']} | {f['spill_bytes']} "
                     f"| {f['nano_blocks']} | {tail} |")
    others = [a for a in table if a != "53"]
    lines += ["", "## Other architectures: registers (spilled bytes)", "",
              "| kernel | " + " | ".join("sm_" + a for a in others) + " |", "| --- |" + " --- |" * len(others)]
    for name in table["53"]:
        cells = [f"{table[a][name]['registers']} ({table[a][name]['spill_bytes']})" for a in others]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/cuda-compile.md and .json")
    write = parser.parse_args().write
    if pip_toolkit() is None:
        sys.exit('needs NVRTC and ptxas 12.9: pip install "nvidia-cuda-nvrtc-cu12==12.9.*" '
                 '"nvidia-cuda-nvcc-cu12==12.9.*" "nvidia-cuda-runtime-cu12==12.9.*"')
    table = collect()
    print(markdown(table))
    if write:
        (DOCS / "cuda-compile.md").write_text(markdown(table))
        (DOCS / "cuda-compile.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Put one bug at a time into a copy of the CUDA kernels and see whether a short set of emulated cases notices.

    python kernels/cuda/tests/seeded_bugs.py            all of them (about ten seconds each)
    python kernels/cuda/tests/seeded_bugs.py NAME ...   some

Ends with 1 where a bug goes unnoticed. tests/kernels/test_cuda_seeded_bugs.py keeps the list applicable (each text is
found exactly once) and runs a few. A bug that changes no result (a needless zero, say) does not belong here.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

CUDA = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CUDA.parents[1] / "tests" / "kernels"), str(CUDA.parents[1])]

# name: (file, text, what it becomes)
BUGS = {
    "pruned features read": (
        "plan.cuh", "if (!kept(masks.feature, masks.as_float, (static_cast<long long>(n) * s.h + h) * s.w + w))",
        "if (false)"),
    "padding read to the right": ("plan.cuh", "if (h < 0 || h >= s.h || w < 0 || w >= s.w) continue;",
                                  "if (h < 0 || h >= s.h || w < 0 || w > s.w) continue;"),
    "second word of a pattern lost": ("plan.cuh", "live.high |= 1u << (bit - 32);", "live.low |= 0u;"),
    "dropped frames kept": (
        "plan.cuh", "if (in >= 0 && in < p.shape.t && kept(p.masks.frame, p.masks.as_float, "
        "static_cast<long long>(n) * p.shape.t + in))", "if (in >= 0 && in < p.shape.t)"),
    "frame classes merged": ("plan.cuh", "while (end < count && class_taps[end] == taps) ++end;",
                             "while (end < count && class_taps[end] >= taps - 1) ++end;"),
    "tiles of a class rounded down": ("plan.cuh", "* pixels + p.tile_rows - 1) /", "* pixels) /"),
    "counting sort without ranks": ("plan.cuh", "order[base + before] = pixel;", "order[base] = pixel;"),
    "counting sort without its barrier": (
        "plan.cuh", "bins[key] = base + equal;\n        }\n      }\n      __syncthreads();",
        "bins[key] = base + equal;\n        }\n      }"),
    "prefix sum without a barrier": ("plan.cuh", "  if (lane == 31) warp_sums[warp] = inclusive;\n  __syncthreads();",
                                     "  if (lane == 31) warp_sums[warp] = inclusive;"),
    "kept list not filled up": ("plan.cuh", "if (static_cast<int>(threadIdx.x) < missing) list", "if (false) list"),
    "input read in place with channels dropped": ("plan.cuh", "p.channels_last && count == p.shape.c && p.shape.c",
                                                  "p.channels_last && p.shape.c"),
    "input read in place with ragged groups": ("plan.cuh", "count == p.shape.c && p.shape.c % p.group_channels == 0",
                                               "count == p.shape.c"),
    "no zeros after the last kept channel": ("pack.cuh", "if (c < count) value = x", "value = x"),
    "kept list not used in packing": ("pack.cuh", "x[(list[c] * p.shape.t + t) * pixels + pixel]",
                                      "x[(c * p.shape.t + t) * pixels + pixel]"),
    "packing tile without a barrier": ("pack.cuh", "pixels + pixel]) : 0.0f;\n      }\n      __syncthreads();",
                                       "pixels + pixel]) : 0.0f;\n      }"),
    "slab without its barrier": ("conv.cuh", "      __syncthreads();\n      if (slab + 1 < end_slab) load_slab();",
                                 "      if (slab + 1 < end_slab) load_slab();"),
    "one buffer instead of two": ("conv.cuh", "buffer ^= 1;", ""),
    "last slab left out": ("conv.cuh", "end_slab = min(slabs, first_slab + each);",
                           "end_slab = min(slabs, first_slab + each) - 1;"),
    "flat reduction rounded down": ("conv.cuh", "* groups + kSlabGroups - 1) /", "* groups) /"),
    "second group used past the end": ("conv.cuh", "second = at[1].tap < taps;", "second = true;"),
    "second group's weights for both": ("conv.cuh", "((half ? tap[1].weights : tap[0].weights)", "((tap[1].weights)"),
    "rows read without their predicate": ("conv.cuh",
                                          "(static_cast<unsigned>(pattern >> tap[half].bit) & 1u);", "output >= 0;"),
    "warps skip too much": ("conv.cuh",
                            "(tap[0].warps | (second ? tap[1].warps : 0u)) >> warp", "tap[0].warps >> warp"),
    "union of one warp for all": ("conv.cuh", "low |= warp_patterns[2 * i], high |= warp_patterns[2 * i + 1];",
                                  "low |= warp_patterns[0], high |= warp_patterns[1];"),
    "list of taps without kernel frames": (
        "conv.cuh", "__popc(frame_taps & ((1u << kt) - 1u)) * frame_positions +", "kt * frame_positions +"),
    "dilation left out of offsets": ("conv.cuh", "kh * s.dilations[1]) * s.w", "kh) * s.w"),
    "surplus blocks stay": ("conv.cuh", "if (tile >= class_tile[classes]) return;", ""),
    "promotion forgotten": ("conv.cuh", "sums.promote();", ""),
    "halves never promoted in between": ("elements.cuh", "kPromoteSlabs = 8;", "kPromoteSlabs = 1 << 30;"),
    "halves' lanes swapped": ("elements.cuh", "__high2half2(words)", "__low2half2(words)"),
    "NaN clamped away": ("elements.cuh", "return value < minimum ? minimum : value;",
                         "return value > minimum ? value : minimum;"),
    "residual left out of a row": ("conv.cuh", "if (z) sum += to_float(residual.v[j]);", ""),
    "staging without its barrier": ("conv.cuh", "sums.at(i, j + c);\n    }\n    __syncthreads();",
                                    "sums.at(i, j + c);\n    }"),
    "splits added twice": ("conv.cuh", "for (int split = 0; split < p.splits; ++split) sum",
                           "for (int split = -(p.splits > 2); split < p.splits; ++split) sum"),
    "every item takes the first one's plan": (
        "conv.cuh", "const int* plan = p.plan + static_cast<long long>(n) * p.layout.ints;\n  const ConvShape& s",
        "const int* plan = p.plan;\n  const ConvShape& s"),
    "patches read what a mask drops": (
        "winograd.cuh", "d[row] = patch_kept(p, h + row, w + column) ?", "d[row] = h + row >= 0 && w + column >= 0 "
        "&& h + row < p.shape.h && w + column < p.shape.w ?"),
    "live tiles see one corner": ("winograd.cuh", "i < (kSize + 2) * (kSize + 2) && !live", "i < 1 && !live"),
    "outputs past the map written": ("winograd.cuh", "h < p.shape.out[1] && w < p.shape.out[2]", "h < p.shape.out[1]"),
    "output stage without its barrier": ("winograd.cuh", "= out[column][row];\n  __syncthreads();",
                                         "= out[column][row];"),
    "frame sums over all channels only once": ("gate.cuh", "for (int c = lane; c < p.c; c += 32) sum += sum_of",
                                               "for (int c = lane; c < min(p.c, 32); c += 32) sum += sum_of"),
    "channels judged on dropped frames": ("gate.cuh", "if (kept(p.frame_keep, p.as_float, first_frame + t)) sum",
                                          "if (true) sum"),
    "the largest may be dropped": ("gate.cuh", "!(value < threshold && value < tied)", "!(value < threshold)"),
    "on the threshold is dropped": ("gate.cuh", "!(value < threshold &&", "!(value <= threshold &&"),
    "extremes without a barrier": (
        "gate.cuh", "maxima[threadIdx.x / 32] = largest;\n  __syncthreads();", "maxima[threadIdx.x / 32] = largest;"),
    "features of dropped channels": (
        "gate.cuh", "if (kept(p.channel_keep, p.as_float, static_cast<long long>(n) * p.c + c)) sum.add",
        "if (true) sum.add"),
    "a chain's rest forgotten": ("gate.cuh", "  sum.flush();\n  const double all", "  const double all"),
    "depthwise ignores its channel's mask": ("plain.cuh", "if (!kept(channels, as_float, channel)) continue;", ""),
    "groups read the first group's channels": ("plain.cuh", "o.m / outputs_each * inputs + j;", "j;"),
}


def applicable(name):
    """Whether the bug's text is found exactly once; a list that has rotted catches nothing."""
    file, text, _ = BUGS[name]
    return (CUDA / file).read_text().count(text) == 1


def build(name, folder):
    """Emulator with this bug (None: without), without sanitizers: they are slow, and what they find shows here too."""
    copy = pathlib.Path(folder) / "kernels" / "cuda"
    shutil.copytree(CUDA, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CUDA.parent / "cpu", copy.parent / "cpu")
    if name is not None:
        file, text, becomes = BUGS[name]
        source = (copy / file).read_text()
        (copy / file).write_text(source.replace(text, becomes))
    made = subprocess.run(["make", "-s", "-C", str(copy), "emulator", "BUILD=" + str(copy / "built"), "SANITIZE=",
                           "HOST_FLAGS=-O1 -march=native"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        raise RuntimeError(f"{name} does not compile:\n{made.stdout.decode()[-2000:]}")
    return str(copy / "built" / "emulate")


def noticed(path):
    """What the cases say of an emulator; None where they find nothing wrong."""
    import cuda_cases
    import emulated_cuda

    emulator = emulated_cuda.Emulator(path)
    try:
        for case in cuda_cases.CASES:
            problem = cuda_cases.problem(emulator, case)
            if problem:
                return f"{case.name}: {problem}"
    finally:
        emulator.close()
    return None


def try_bug(name):
    """What the cases say of the kernels with this bug, None where nothing; name None: of the kernels as they are."""
    with tempfile.TemporaryDirectory() as folder:
        return noticed(build(name, folder))


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="bugs to try; all where none is given")
    names = parser.parse_args().names or list(BUGS)
    unknown = [name for name in names if name not in BUGS]
    if unknown:
        parser.error(f"no such bug: {unknown[0]}; known: " + ", ".join(BUGS))
    missed = []
    for name in names:
        found = try_bug(name)
        print(f"noticed  {name}  ({found.splitlines()[0][:90]})" if found else f"MISSED   {name}", flush=True)
        missed += [] if found else [name]
    print(f"{len(names) - len(missed)} of {len(names)} noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    os.chdir(CUDA)
    sys.exit(main())

#!/usr/bin/env python3
"""Markdown tables, as in docs/benchmarks/cpu.md, of what dance-bench measured.

    dance-bench kernels --arch c3d --against onnxruntime,torch,openvino --json c3d.json
    python tools/benchmark_tables.py c3d.json [...]

Files of `dance-bench kernels --json` give their tables one after the other: dense and pruned, and the direct kernel
alone. Files of `dance-bench model --json` give one table a number of threads, a row each.
"""
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dance_deploy.bench.kernels import NEVER_SLOWER
from dance_deploy.bench.kernels_text import describe
from dance_deploy.geometry import Conv3dGeometry

KINDS = ("frames", "channels", "blob", "random")
SHORT = {"openvino": "OV", "torch": "PT", "onnxruntime": "ORT"}
PEERS = {"gated": "gated", "kept": "all kept", "onnxruntime": "ONNX Runtime", "torch": "PyTorch",
         "openvino": "OpenVINO"}

NO_RESULT = "no result of dance-bench kernels or dance-bench model"
Json = dict[str, Any]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def spread(s: Json) -> str:
    """Median and quartiles."""
    return f"{s['median']:.2f} ({s['q1']:.2f}-{s['q3']:.2f})"


def ratios(layer: Json, what: str) -> list[str]:
    """A cell a kind: `what` of its cases, in the order of their rates."""
    return [" / ".join(f"{case[what]['median']:.2f}" for case in layer["cases"] if case["kind"] == kind) or "-"
            for kind in KINDS]


def label(layer: Json) -> str:
    """Name, geometry, and how often it runs."""
    fields: list[Any] = [tuple(v) if isinstance(v, list) else v for v in layer["geometry"].values()]
    text = describe(Conv3dGeometry(*fields))
    return f"{layer['layer']}: {text}" + (f" (x{layer['times']})" if layer["times"] > 1 else "")


def kernels_tables(found: Json) -> str:
    """Dense and pruned in one table, and the direct kernel alone in another."""
    dense, alone = [], []
    for layer in found["layers"]:
        best, direct = layer["best_peer"], layer["direct_over"].get("openvino")
        slowest = max((case["over_dense"]["median"] for case in layer["cases"]), default=0.0)
        even = [layer["break_even_kept_macs"].get(kind) for kind in KINDS]
        over_best = "-" if best is None else f"{spread(layer['dense_over_best_peer'])} {SHORT.get(best, best)}"
        dense.append([label(layer), over_best,
                      "-" if direct is None else f"{direct['median']:.2f}", *ratios(layer, "over_ideal"),
                      f"{slowest:.2f}" + (" **!**" if slowest > NEVER_SLOWER else ""),
                      " / ".join("-" if share is None else f"{100 * share:.0f}" for share in even)])
        if all(case["direct_over_ideal"] for case in layer["cases"]):
            alone.append([label(layer), *ratios(layer, "direct_over_ideal")])
    text = table(["layer", "dense / best", "direct / OpenVINO", *KINDS, "slowest", "break-even, % of MACs"], dense)
    return text + ("\n\n" + table(["direct kernel alone", *KINDS], alone) if alone else "")


def model_row(found: Json) -> list[str]:
    """One model: times over the gated time, and memory in MB."""
    peers = {peer["peer"]: peer for peer in found["peers"]}
    forced = ", ".join(f"{share:.0%} of {kind}" for kind, share in (found["rates"] or {}).items() if share < 1)
    over = [spread(peers[name]["time_over_gated"]) if name in peers else "-" for name in list(PEERS)[1:]]
    rival = f"{peers['kept']['median_ms'] / peers['openvino']['median_ms']:.2f}" if "openvino" in peers else "-"
    memory = " / ".join(f"{peers[name]['peak_mb']:.0f}" if name in peers else "-"
                        for name in ("gated", "kept", "onnxruntime", "openvino"))
    return [f"`{found['model']}`" + (f", {forced} forced" if forced else ""), f"{found['macs_share']:.0%}",
            f"{peers['gated']['median_ms']:.1f} ms", *over, rival, memory]


def model_tables(models: list[tuple[int, list[str]]]) -> str:
    """A table a number of threads. models: number of threads and row of each."""
    head = ["model", "MACs kept (counted)", *PEERS.values(), "all kept over OpenVINO",
            "memory: gated / all kept / ONNX Runtime / OpenVINO"]
    parts = []
    for threads in dict.fromkeys(threads for threads, _ in models):
        rows = [row for of, row in models if of == threads]
        parts.append(f"{threads} thread{'s' if threads > 1 else ''}:\n\n" + table(head, rows))
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables of the files."""
    parser = argparse.ArgumentParser(description="Markdown tables of what dance-bench --json wrote")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parts: list[str] = []
    models: list[tuple[int, list[str]]] = []
    for path in parser.parse_args(arguments).files:
        try:
            found = json.loads(path.read_text())
            if "layers" in found:
                parts.append(kernels_tables(found))
            else:
                models.append((found["threads"], model_row(found)))
        except (OSError, ValueError) as error:
            print(f"error: {path}: {error}", file=sys.stderr)
            return 2
        except (KeyError, TypeError, AttributeError, IndexError):  # JSON of something else, such as dance-bench predict
            print(f"error: {path}: {NO_RESULT}", file=sys.stderr)
            return 2
    if models:
        parts.append(model_tables(models))
    print("\n\n".join(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())

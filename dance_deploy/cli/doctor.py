"""dance-doctor: what this machine has and lacks for running a bundle, and what is in a bundle."""
import importlib
import importlib.util
import json
import shutil
import sys
from typing import Optional

import typer

from dance_deploy import sources
from dance_deploy.bundle import open_bundle
from dance_deploy.cli import entry
from dance_deploy.errors import InputError, OperationError
from dance_deploy.jetson import board_findings
from dance_deploy.machine import INFO, MISSING, OK, OPTIONAL, Finding, power_findings, system_findings
from dance_deploy.manifest import ENGINES_FOLDER
from dance_deploy.quantities import count_text

app = typer.Typer(add_completion=False)

_MARKS = {OK: "ok", INFO: "", OPTIONAL: "lacks", MISSING: "MISSING"}
_WORKSHOP = (("torch", "train"), ("onnx", "export"), ("rich", "train"), ("matplotlib", "train"))


@app.command()
def doctor(
    bundle: Optional[str] = typer.Argument(None, metavar="[BUNDLE]", help="Verify and describe this bundle too."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of lines."),
):
    """Say what this machine has and lacks, each lack with the command that mends it."""
    from dance_deploy.runtime.trt.findings import engine_findings, tensorrt_findings
    findings = system_findings() + board_findings() + package_findings() + kernel_findings() + tensorrt_findings()
    findings += power_findings()
    description, damage = None, None
    if bundle is not None:
        try:
            description = describe(bundle)
            findings += engine_findings(open_bundle(bundle, verify=False))
        except InputError as error:
            damage = error
    works = not any(finding.state == MISSING for finding in findings)
    if as_json:
        print(json.dumps({"works": works, "findings": [finding._asdict() for finding in findings],
                          "bundle": description, "bundle_error": None if damage is None else str(damage)}, indent=1))
    else:
        _print_findings(findings)
        _print_bundle(description)
        _print_verdict(findings, works)
    if damage is not None:
        raise damage
    raise typer.Exit(0 if works else 1)


def main():
    entry.run(app)


def package_findings():
    """The packages of both halves, with their versions."""
    found = [_imported("numpy", "packages", MISSING, "pip install numpy"), _onnxruntime()]
    decoders = [_imported("av", "packages", OPTIONAL, "pip install av"),
                _imported("cv2", "packages", OPTIONAL, "pip install opencv-python-headless")]
    if any(decoder.state == OK for decoder in decoders):  # one is enough
        found += [decoder for decoder in decoders if decoder.state == OK]
    else:
        found.append(Finding("packages", "video decoder", MISSING, "neither av nor cv2 can be imported",
                             "pip install av"))
    if _spec("torch"):
        found += [_present(name, "workshop", "pip install 'dance-deploy[{}]'".format(extra))
                  for name, extra in _WORKSHOP]
    else:
        found.append(Finding("workshop", "train, export", INFO, "not installed; running bundles does not need them",
                             "pip install 'dance-deploy[train,export]'" if sys.version_info >= (3, 10) else None))
    return found


def _onnxruntime():
    """What runs bundles by default; where TensorRT can instead (no wheel fits a Nano's Python) it may lack."""
    if _spec("tensorrt") and _spec("pycuda"):
        found = _imported("onnxruntime", "packages", OPTIONAL, None)
        return found if found.state == OK else found._replace(
            detail=found.detail + "; engines run without it: dance-run --backend tensorrt")
    return _imported("onnxruntime", "packages", MISSING, "pip install onnxruntime")


def kernel_findings():
    """Our op library: whether it is there and whether ONNX Runtime takes it."""
    try:
        from dance_deploy.runtime.kernels import library_path
        path = library_path()
    except ImportError:
        path = None
    if path is None:
        tools = [tool for tool in ("make", "c++") if shutil.which(tool) is None]
        mend = "make -C kernels" if not tools else "install {}, then: make -C kernels".format(" and ".join(tools))
        return [Finding("kernels", "op library", OPTIONAL, "not built: pruned work is not skipped, and bundles whose "
                        "profile leaves the functions out do not run", mend)]
    try:
        import onnxruntime
    except ImportError:
        return [Finding("kernels", "op library", INFO, "{} (not tried: no onnxruntime)".format(path))]
    from dance_deploy.runtime.onnxruntime_backend import register
    try:
        register(onnxruntime.SessionOptions(), path)
    except InputError as error:
        return [Finding("kernels", "op library", MISSING, str(error), "unset DANCE_ISA")]
    except OperationError as error:
        return [Finding("kernels", "op library", MISSING, str(error), "make -C kernels clean all")]
    return [Finding("kernels", "op library", OK, path)] + _cost_findings(path)


def _cost_findings(library):
    """Whether the kernels go by costs that were found on this machine."""
    from dance_deploy.runtime import tuned_costs
    found = []
    for precision in ("fp32", "bf16"):
        if tuned_costs.target_of(library, precision) is None:
            continue
        there, name = tuned_costs.find(library, precision), "costs, " + precision
        again = tuned_costs.AGAIN + ("" if precision == "fp32" else " --precision bf16")
        if there.problem is not None:
            found.append(Finding("kernels", name, OPTIONAL, "{} {}; the built-in ones are used".format(
                sources.printable(there.path), there.problem), again))
        elif there.tuned is None:
            found.append(Finding("kernels", name, INFO, "built-in; this machine's are found by: " + again
                                 if there.path is not None else "built-in, as {} says".format(tuned_costs.ENVIRONMENT)))
        else:
            found.append(Finding("kernels", name, OK, "tuned {}, {}".format(there.tuned.date,
                                                                            sources.printable(there.path))))
    return found


def describe(path):
    """What a verified bundle says of itself: a dict of plain values. Raises InputError where anything is wrong."""
    from dance_deploy.runtime.costs import CostCounter
    opened = open_bundle(path)
    manifest = opened.manifest
    return {
        "path": opened.path, "model": manifest.model.name, "classes": len(manifest.model.labels),
        "trained": manifest.model.trained, "clip": list(manifest.clip.shape), "clip_stride": manifest.clip.stride,
        "gates": len(manifest.gates), "macs_dense": CostCounter(manifest).dense.macs,
        "controller_macs": manifest.controller.macs, "budget_default": manifest.budget.default,
        "budget_reached": [list(pair) for pair in manifest.budget.reached], "profile": manifest.profile,
        "tools": manifest.tools, "files": {name: entry.size for name, entry in manifest.files.items()},
        # files in engines/ have records of their own: engine_findings
        "unlisted": [name for name in opened.unlisted() if not name.startswith(ENGINES_FOLDER + "/")],
    }


def _imported(name, section, lacking, mend):
    """A Finding from really importing a package: a wheel for another machine is present and does not work."""
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if _spec(name):
            reason = str(error).splitlines()[0] if str(error) else "unknown reason"
            return Finding(section, name, lacking, "installed, but does not import: {}".format(reason), mend)
        return Finding(section, name, lacking, "not installed", mend)
    return Finding(section, name, OK, getattr(module, "__version__", "version unknown"))


def _present(name, section, mend):
    """A Finding without importing: torch alone takes seconds."""
    if not _spec(name):
        return Finding(section, name, OPTIONAL, "not installed", mend)
    try:
        from importlib.metadata import version
        return Finding(section, name, OK, version(name))
    except Exception:  # before Python 3.8, or a package without metadata
        return Finding(section, name, OK, "installed")


def _spec(name):
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _print_findings(findings):
    section = None
    for finding in findings:
        if finding.section != section:
            section = finding.section
            print("\n" + section if findings[0] is not finding else section)
        print("  {:<14} {:<8} {}".format(finding.name, _MARKS[finding.state], finding.detail).rstrip())
        if finding.mend:
            print("  {:<14} {:<8} -> {}".format("", "", finding.mend))


def _print_bundle(about):
    if about is None:
        return
    reached = ", ".join("{:.2f} -> {:.2f}".format(*pair) for pair in about["budget_reached"])
    size = sum(about["files"].values())
    lines = [
        ("verified", "{} files, {}B, every hash right".format(len(about["files"]), count_text(size))),
        ("model", "{}, {} classes{}".format(about["model"], about["classes"], "" if about["trained"] else
                                             ", untrained: its labels mean nothing")),
        ("clip", "{} in [N,C,T,H,W], every {}. frame".format(about["clip"], about["clip_stride"])),
        ("cost", "{}MACs dense, {}MACs controller, {} gates".format(
            count_text(about["macs_dense"]), count_text(about["controller_macs"]), about["gates"])),
        ("budget", "{:.2f} by default{}".format(about["budget_default"],
                                                "; asked -> reached: " + reached if reached else "")),
        ("profile", about["profile"]),
        ("made with", ", ".join("{} {}".format(*item) for item in sorted(about["tools"].items()))),
    ]
    if about["unlisted"]:
        lines.append(("not part of it", sources.printable(", ".join(about["unlisted"][:8])) + "  (never read)"))
    print("\nbundle {}".format(sources.printable(about["path"])))
    for name, text in lines:
        print("  {:<14} {}".format(name, text))


def _print_verdict(findings, works):
    lacks = sum(finding.state == OPTIONAL for finding in findings)
    print()
    if not works:
        missing = [finding.name for finding in findings if finding.state == MISSING]
        print("dance-run does not work here yet: {} missing".format(", ".join(missing)))
    else:
        print("dance-run works here{}".format("; {} optional thing{} lacking".format(
            lacks, "" if lacks == 1 else "s") if lacks else ""))
    sys.stdout.flush()


if __name__ == "__main__":
    main()

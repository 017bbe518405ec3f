"""Writes trt_api.json: which names TensorRT's Python classes have, per generation, and which of them are deprecated.

    python tests/trt_api_from_source.py CHECKOUT      # of github.com/NVIDIA/TensorRT, with its tags

Names are read off the pybind11 definitions in python/src; those of TensorRT-RTX off the installed module.
"""
import json
import re
import subprocess
import sys
from pathlib import Path

TAGS = {"8.2": "8.2.1", "8.4": "8.4.1", "8.6": "v8.6.1", "10": "v10.3.0", "11": "v11.1"}
FILES = ("infer/pyCore.cpp", "infer/pyGraph.cpp", "infer/pyPlugin.cpp", "parsers/pyOnnx.cpp",
         "infer/pyFoundationalTypes.cpp")
CLASSES = ("Builder", "BuilderFlag", "DataType", "IBuilderConfig", "ICudaEngine", "IExecutionContext", "IHostMemory",
           "ILayer", "INetworkDefinition", "IOptimizationProfile", "IPluginRegistry", "IProgressMonitor",
           "ITensor", "ITimingCache", "LayerType", "MemoryPoolType", "NetworkDefinitionCreationFlag", "OnnxParser",
           "ParserError", "Runtime", "TensorIOMode")
DEFINITION = re.compile(r'\.(?:def|def_property|def_property_readonly|def_readonly|value)\(\s*"(\w+)"')
DEPRECATED = re.compile(r'\.(?:def|def_property|def_property_readonly)\(\s*"(\w+)",\s*(?:py::cpp_function\()?'
                        r'utils::deprecate(?:Member)?(InTrtRtxOnly)?\(')


def names_at(checkout, tag, rtx=False):
    found = {name: set() for name in CLASSES}
    deprecated = {name: set() for name in CLASSES}
    for file in FILES:
        text = subprocess.run(["git", "-C", checkout, "show", f"{tag}:python/src/{file}"], check=True,
                              capture_output=True, text=True).stdout
        text = re.sub(r"//[^\n]*", "", text)
        starts = list(re.finditer(r'py::(?:class_|enum_)<[^;]*?>\s*(?:\w+\s*)?[({]\s*(\w+)\s*,\s*"(\w+)"', text))
        for start, end in zip(starts, [s.start() for s in starts[1:]] + [len(text)]):
            if start.group(2) in found:
                body = re.split(r"\n    m\.(?:def|attr)\(", text[start.end():end])[0]
                found[start.group(2)] |= set(DEFINITION.findall(body))
                deprecated[start.group(2)] |= {n for n, only_rtx in DEPRECATED.findall(body) if rtx or not only_rtx}
    return {name: {"names": sorted(n for n in found[name] if not n.startswith("__")),
                   "deprecated": sorted(deprecated[name])} for name in CLASSES if found[name]}


def names_of_rtx(checkout):
    import tensorrt_rtx_bindings as trt
    source = names_at(checkout, TAGS["11"], rtx=True)
    return trt.__version__, {
        name: {"names": sorted(n for n in dir(getattr(trt, name)) if not n.startswith("_")),
               "deprecated": source[name]["deprecated"]} for name in CLASSES if hasattr(trt, name)}


def main():
    tree = {generation: dict(names_at(sys.argv[1], tag), source=tag) for generation, tag in TAGS.items()}
    version, names = names_of_rtx(sys.argv[1])
    tree["rtx"] = dict(names, source="tensorrt_rtx_bindings " + version)
    Path(__file__).with_name("trt_api.json").write_text(json.dumps(tree, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()

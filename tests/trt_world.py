"""What the parts of the stand-in for TensorRT share: one machine, names by generation, and how graphs are computed."""
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from pycuda_standin import Misuse

from dance_deploy.ops import names as op_names
from dance_deploy.runtime.reference_backend import evaluator_from_bytes

API = json.loads(Path(__file__).with_name("trt_api.json").read_text())
VERSIONS = {"8.2": "8.2.1.8", "8.4": "8.4.1.5", "8.6": "8.6.1", "10": "10.3.0", "11": "11.1.0.106", "rtx": "1.7.1.116"}
LEVELS = {"8.2": (8, 2), "8.4": (8, 4), "8.6": (8, 6), "10": (10, 3), "11": (11, 1), "rtx": (11, 1)}
PLAN_MARK = b"STANDIN-PLAN"


class World:
    """One machine: a GPU, the TensorRT on it, and all that went wrong without an exception."""

    def __init__(self, generation, device="NVIDIA Tegra X1", capability=(5, 3), memory_bytes=4 << 30):
        self.generation, self.device, self.capability = generation, device, capability
        self.level = LEVELS[generation]
        self.old = self.level < (10, 0)
        self.memory_bytes = memory_bytes
        self.names = API[generation]
        self.regions = {}           # device address -> bytes
        self.next_address = 0x7000000
        self.contexts = []          # CUDA contexts that are pushed
        self.streams = {}
        self.clock_ms = 0.0
        self.cost_ms = lambda model: 1.0
        self.damage = lambda name, value: value   # changes a tensor on its way, as broken arithmetic would
        self.plugins = set()
        self.builds = []            # (what was parsed, config) of every engine built
        self.violations = []        # found where an exception would be swallowed, such as in __del__
        self.copied_to_host = []
        self.graphs = {}            # handle -> recorded work of CUDA graphs
        self.launches, self.no_graphs = 0, False
        self.pinned = []            # weak references to page-locked memory
        self.gpus = 1
        self.fail_build = None

    def region(self, address, nbytes, what):
        if address not in self.regions:
            raise Misuse(f"{what}: {address:#x} is no device memory that is allocated")
        if len(self.regions[address]) < nbytes:
            raise Misuse(f"{what}: needs {nbytes} bytes, the memory has {len(self.regions[address])}")
        return self.regions[address]

    def need_context(self):
        if not self.contexts:
            raise Misuse("no CUDA context is current")

    def settled(self):
        """To be asked at the end of a test: nothing was misused, nothing is left behind."""
        assert self.violations == []
        assert self.regions == {} and self.contexts == [] and self.graphs == {}


def guarded(world, name):
    """A base class that has only the names that `name` has in this generation."""
    known = world.names.get(name)
    if known is None:
        return None
    allowed, deprecated = set(known["names"]), set(known["deprecated"])

    def check(attribute):
        if attribute.startswith("_"):
            return
        if attribute not in allowed:
            raise AttributeError(f"'{name}' of TensorRT {world.generation} has no attribute '{attribute}'")
        if attribute in deprecated:
            raise Misuse(f"{name}.{attribute} is deprecated in TensorRT {world.generation}")

    class Guarded:
        def __getattribute__(self, attribute):
            check(attribute)
            return object.__getattribute__(self, attribute)

        def __setattr__(self, attribute, value):
            check(attribute)
            if not attribute.startswith("_") and not hasattr(type(self), attribute):
                raise Misuse(f"the stand-in does not know what {name}.{attribute} = ... does")
            object.__setattr__(self, attribute, value)

    return Guarded


class Member(int):
    """A value of an enum: an int with a name, as py::arithmetic enums are."""

    def __new__(cls, value, name):
        self = int.__new__(cls, value)
        self.name = name
        return self

    def __repr__(self):
        return self.name

    def __hash__(self):
        return hash((int(self), self.name))

    def __eq__(self, other):
        return isinstance(other, Member) and (int(self), self.name) == (int(other), other.name)


def enum(world, name):
    members = [n for n in world.names.get(name, {"names": []})["names"] if n.isupper() or n[0].isupper()]
    made = type(name, (), {n: Member(i, n) for i, n in enumerate(members)})
    made.__members__ = {n: getattr(made, n) for n in members}
    return made


class HostMemory(bytearray):
    """IHostMemory: a buffer, and no bytes."""

    @property
    def nbytes(self):
        return memoryview(self).nbytes

    def __len__(self):
        raise Misuse("IHostMemory has no length; take its memoryview")

    def __add__(self, other):
        raise Misuse("IHostMemory is no bytes")

    __getitem__ = __iter__ = decode = __add__


def register_plugins(world, path):
    text = Path(path).read_bytes()
    if not text.startswith(b"plugin"):
        raise OSError(f"{path}: invalid ELF header")
    suits = (1, 11) if world.generation == "rtx" else world.level[:1]
    if not any(f"TensorRT {major}.".encode() in text for major in suits):
        raise Misuse("a plugin library of another generation is loaded, which may end the process")
    world.plugins |= set(op_names.OP_TYPES)


def cache_head(world):
    return "cache {} {}.{} ".format(VERSIONS[world.generation], *world.capability).encode()


def dtype_of(trt, array):
    """TensorRT's name of an array's type; 8 has no 64-bit integers, its parser narrows them."""
    names = {"float32": "FLOAT", "float16": "HALF", "int32": "INT32", "bool": "BOOL",
             "int64": "INT64" if hasattr(trt.DataType, "INT64") else "INT32"}
    return getattr(trt.DataType, names[array.dtype.name])


def need_logger(logger):
    if not getattr(logger, "_initialised", False):
        raise TypeError("ILogger.__init__ was not called")


def array_type(kind):
    return np.dtype({"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64", "BOOL": "bool"}[
        kind.name])


def nbytes(kind, shape):
    return int(np.prod(shape, dtype=np.int64)) * array_type(kind).itemsize


def np_type(info):
    return helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)


def computed(world, model, feeds):
    """{tensor: array} of every tensor of a graph, by onnx's evaluator with the numpy definition of our ops."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    del whole.functions[:]
    declared = {o.name for o in whole.graph.output} | {i.name for i in whole.graph.input}
    for node in whole.graph.node:
        whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output
                                  if name and name not in declared)
    wanted = [o.name for o in whole.graph.output]
    with np.errstate(all="ignore"):
        values = dict(zip(wanted, evaluator_from_bytes(whole.SerializeToString(), "stand-in").run(wanted, feeds)))
    masks = mask_types(model)
    arrays = {name: np.asarray(value) for name, value in values.items()}
    values = {name: array.astype(masks.get(name, array.dtype)) for name, array in arrays.items()}
    return dict(feeds, **values)


def mask_types(model):
    """Float masks where the graph declares them so: the numpy definition gives bool."""
    return {o.name: np.float32 for o in model.graph.output
            if o.name.split(".")[-1] in op_names.MASK_NAMES and o.type.tensor_type.elem_type == TensorProto.FLOAT}

"""The GPU as `dance-bench kernels --backend cuda` sees it: tensors, streams, events and graphs, by torch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Callable

import numpy as np

from dance_deploy.bench.cuda_library import CudaLibrary
from dance_deploy.errors import InputError
from dance_deploy.runtime import kernels

WARM_UP = 3


def open_gpu(library: str | None = None) -> "Gpu":
    """The first GPU, float32 without TF32; raises InputError, one line, that names what is not here.

    library: path of our CUDA kernels; default: where the build leaves them.
    """
    path = kernels.expected_cuda_path() if library is None else library
    what = "--backend cuda times our CUDA kernels on an NVIDIA GPU"
    predict = "without a GPU: dance-bench predict BUNDLE --profile NAME"
    try:
        import torch
    except ImportError:
        raise InputError(f"{what}, and torch is not installed; run: pip install torch (a build with CUDA)") from None
    if torch.version.cuda is None:
        raise InputError(f"{what}, and the torch that is installed ({torch.__version__}) is built without CUDA; "
                         f"install one that has it; {predict}")
    if not torch.cuda.is_available():
        raise InputError(f"{what}, and torch sees none here: look with nvidia-smi; {predict}")
    if not Path(path).is_file():
        build = kernels.BUILD_CUDA.format("sm_{}{}".format(*torch.cuda.get_device_capability()))
        needs = "" if shutil.which("nvcc") else " (it needs nvcc, which is not on the PATH: install the CUDA toolkit)"
        raise InputError(f"{what}, and they are not built; run: {build}{needs}")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True  # the fastest of its algorithms, tried before anything is timed
    return Gpu(CudaLibrary(path))


class Gpu:
    """A torch device with our library loaded. device: torch's name of it."""

    device = "cuda"

    def __init__(self, library: CudaLibrary) -> None:
        import torch

        self.torch, self.library = torch, library

    def describe(self) -> str:
        """Name, multiprocessors, versions."""
        properties = self.torch.cuda.get_device_properties(0)
        return (f"{properties.name}, {self.multiprocessors()} multiprocessors, CUDA {self.torch.version.cuda}, "
                f"cuDNN {self.torch.backends.cudnn.version()}, torch {self.torch.__version__}")

    def multiprocessors(self) -> int:
        """How many the device has."""
        return int(self.torch.cuda.get_device_properties(0).multi_processor_count)

    def tensor(self, array: np.ndarray) -> Any:
        """A copy on the device."""
        return self.torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def empty(self, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        """Device memory with anything in it."""
        return self.torch.empty(shape, dtype=getattr(self.torch, dtype), device=self.device)

    def stream(self) -> int | None:
        """The handle of the stream that torch launches on now; another one while a graph is captured."""
        return int(self.torch.cuda.current_stream().cuda_stream)

    def captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """`work` as one CUDA graph, warmed up: what Python takes to launch is in nobody's time."""
        side = self.torch.cuda.Stream()
        side.wait_stream(self.torch.cuda.current_stream())
        with self.torch.cuda.stream(side):  # what torch asks for before a capture
            for _ in range(WARM_UP):
                work()
        self.torch.cuda.current_stream().wait_stream(side)
        self.torch.cuda.synchronize()
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph):
            work()

        def replay(owner: object = work) -> None:  # a graph knows addresses only: `work` owns what lies there
            graph.replay()

        return replay

    def ms(self, work: Callable[[], object]) -> float:
        """Milliseconds between two CUDA events around what `work` launches."""
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    def array(self, tensor: Any) -> np.ndarray:
        """A tensor on the host, all that was launched before done."""
        return tensor.cpu().numpy()  # type: ignore[no-any-return]

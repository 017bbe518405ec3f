"""Work on a stream recorded once and launched as a whole: CUDA graphs, by the driver, because pycuda has none.

Needs a driver of CUDA 10.2 or newer. Source: CUDA driver API reference, Stream Management and Graph Management.
"""
import ctypes

from dance_deploy.errors import OperationError

DRIVER = "libcuda.so.1"
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads, such as the video decoder's, may allocate


class Graph(object):
    """What `work` enqueues on `stream` (a handle), recorded and not run. launch() as often as wanted, then close()."""

    def __init__(self, stream, work):
        self._stream = ctypes.c_void_p(stream)
        self._driver = _driver()
        self._executable = None
        graph = ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, _THREAD_LOCAL)
        try:
            work()
        finally:  # a stream left in capture takes no other work
            ended = self._driver.cuStreamEndCapture(self._stream, ctypes.byref(graph))
        _check(ended, "cuStreamEndCapture")
        try:
            self._executable = self._instantiate(graph)
        finally:
            self._driver.cuGraphDestroy(graph)

    def launch(self):
        """Start one run of the recorded work."""
        self._call("cuGraphLaunch", self._executable, self._stream)

    def close(self):
        """Give the graph back; nothing of it may still be running."""
        if self._executable is not None:
            self._driver.cuGraphExecDestroy(self._executable)
            self._executable = None

    def _instantiate(self, graph):
        made = ctypes.c_void_p()
        if hasattr(self._driver, "cuGraphInstantiateWithFlags"):  # CUDA 11.4 and newer
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(made), graph, ctypes.c_ulonglong(0))
        else:
            self._call("cuGraphInstantiate", ctypes.byref(made), graph, None, None, ctypes.c_size_t(0))
        return made

    def _call(self, name, *arguments):
        _check(getattr(self._driver, name)(*arguments), name)


def _driver():
    try:
        return ctypes.CDLL(DRIVER)
    except OSError as error:
        raise OperationError("{} does not load ({}); run without --cuda-graph".format(DRIVER, error)) from error


def _check(code, name):
    if code != 0:
        raise OperationError("the engines cannot be run as a CUDA graph: {} gives CUDA error {}; run without "
                             "--cuda-graph".format(name, code))

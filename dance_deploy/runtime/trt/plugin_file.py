"""What our plugin library says of itself, read from the file: loading one of another generation may end the process."""
import mmap
import re
from typing import NamedTuple, Optional, Tuple

from dance_deploy.errors import OperationError
from dance_deploy.runtime.kernels import BUILD_PLUGIN

# what dance_trt_built_for() of kernels/trt/tensorrt.cc returns, as it lies in the library
_BUILT_FOR = re.compile(br"IPluginV([23]), TensorRT (\d{1,4})\.(\d{1,4})\.(\d{1,4})\0")


class BuiltFor(NamedTuple):
    """interface: 2 (IPluginV2DynamicExt) or 3 (IPluginV3); headers: (major, minor, patch) of TensorRT's."""

    interface: int
    headers: Tuple[int, int, int]


def built_for(path) -> Optional[BuiltFor]:
    """The BuiltFor of the library at `path`, None where the file is none of ours; raises OSError."""
    with open(path, "rb") as stream:
        try:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return None
        try:
            found = _BUILT_FOR.search(data)
            if found is None:
                return None
            interface, major, minor, patch = (int(number) for number in found.groups())
        finally:
            del found  # it holds on to the mapping
            data.close()
    return BuiltFor(interface, (major, minor, patch))


def check_built_for(path, title, wanted):
    """Raise OperationError, one line, unless the library at `path` suits.

    title: of the TensorRT that is to load it; wanted: the major versions of headers that suit it.
    """
    found = built_for(path)
    if found is None:
        raise OSError("it is no plugin library of dance_deploy")
    if found.headers[0] not in wanted:
        raise OperationError("the plugin library '{}' was built for TensorRT {}, and {} is installed; build it anew: "
                             "{}".format(path, ".".join(map(str, found.headers)), title, BUILD_PLUGIN))

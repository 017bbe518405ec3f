"""NVIDIA's discrete GPUs by NVML (package pynvml or nvidia-ml-py). Jetson boards tell no power there.

Counts energy where the GPU does (Volta and newer); elsewhere power, which newer drivers average over a second.
"""
from dance_deploy.errors import MissingPackageError, OperationError
from dance_deploy.power.counters import WrappingCounter
from dance_deploy.power.source import COUNTER, POWER, PolledSource


class NvmlSource(PolledSource):
    """All GPUs, one rail each ("GPU-0"), and their sum as total."""

    name = "nvml"
    scope = "GPU boards; not CPU and memory of the machine"

    def __init__(self, nvml=None, **polling):
        """nvml: the module that speaks NVML; None: pynvml."""
        super(NvmlSource, self).__init__(**polling)
        self._nvml = nvml
        self._devices = {}
        self._counters = {}

    def open(self):
        nvml = self._nvml = self._nvml or _pynvml()
        try:
            nvml.nvmlInit()
            handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError as error:
            raise OperationError("nvml: {}; expected the NVIDIA driver of a discrete GPU (on a Jetson use ina3221 or "
                                 "tegrastats)".format(error)) from error
        devices = {"GPU-%d" % i: handle for i, handle in enumerate(handles)}
        counting = self._that_answer(nvml.nvmlDeviceGetTotalEnergyConsumption, devices)
        powered = self._that_answer(nvml.nvmlDeviceGetPowerUsage, devices)
        self.kind, self._devices = (COUNTER, counting) if len(counting) >= len(powered) else (POWER, powered)
        if not self._devices:
            raise OperationError("nvml: {}; use the board's own sensors (ina3221, tegrastats)".format(
                "no GPU tells its power" if devices else "there is no GPU"))
        self._counters = {label: WrappingCounter() for label in self._devices}
        self.rails = tuple(self._devices)
        self.total_rails = self.rails
        self.warnings = ["{} tells no power and is left out".format(label) for label in devices
                         if label not in self._devices]

    def sample(self):
        nvml, now = self._nvml, self._clock()
        function = nvml.nvmlDeviceGetPowerUsage if self.kind == POWER else nvml.nvmlDeviceGetTotalEnergyConsumption
        values = {label: self._asked(function, handle) for label, handle in self._devices.items()}
        values = {label: value for label, value in values.items() if value is not None}
        if not values:
            raise OperationError("nvml: no GPU answers any more")
        if self.kind == POWER:
            return {label: float(value) for label, value in values.items()}, None, None
        energy_j = {label: self._counters[label].add(now, value * 1e-3) for label, value in values.items()}
        return {}, {label: joules for label, joules in energy_j.items() if joules is not None}, None

    def close(self):
        super(NvmlSource, self).close()
        self._devices, ended = {}, self._devices
        if ended:
            self._nvml.nvmlShutdown()

    def _that_answer(self, function, devices):
        return {label: handle for label, handle in devices.items() if self._asked(function, handle) is not None}

    def _asked(self, function, handle):
        """What `function` says of a device; None where the device cannot tell."""
        try:
            return function(handle)
        except self._nvml.NVMLError:
            return None


def _pynvml():
    try:
        import pynvml
    except ImportError:
        raise MissingPackageError("pynvml", "nvml", "power source 'nvml'") from None
    return pynvml

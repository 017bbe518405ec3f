"""What an engine is good for, and nothing else: one device, one TensorRT, one plugin library."""
import hashlib
import re
from typing import Any, NamedTuple, Optional, Tuple

from dance_deploy.runtime.trt.api import RTX, TENSORRT, TITLES

_CHUNK_BYTES = 1 << 20


class Target(NamedTuple):
    """device: its name; compute_capability: (major, minor); product: "tensorrt" or "tensorrt_rtx"; version: in full;
    plugin: SHA-256 of the plugin library, None where there is none.
    """

    device: str
    compute_capability: Tuple[int, int]
    product: str
    version: str
    plugin: Optional[str]

    @property
    def key(self):
        """The name that the engines' files begin with: letters, digits, ".", "_" and "-"."""
        device = re.sub(r"[^a-z0-9]+", "-", self.device.lower()).strip("-")[:40] or "device"
        short = {TENSORRT: "trt", RTX: "rtx"}[self.product]
        return "{}_sm{}{}_{}{}_{}".format(device, self.compute_capability[0], self.compute_capability[1], short,
                                          re.sub(r"[^0-9A-Za-z.]+", "-", self.version),
                                          "plugin-" + self.plugin[:10] if self.plugin else "no-plugin")

    def describe(self):
        """For people: device, TensorRT, plugin."""
        return "{} (compute capability {}.{}), {} {}, {}".format(
            self.device, self.compute_capability[0], self.compute_capability[1], TITLES[self.product], self.version,
            "plugin " + self.plugin[:10] if self.plugin else "no plugin")

    def differences(self, other):
        """What differs between two targets, in words; empty where nothing does."""
        found = []
        if (self.device, self.compute_capability) != (other.device, other.compute_capability):
            found.append("device {} ({}.{})".format(other.device, *other.compute_capability))
        if (self.product, self.version) != (other.product, other.version):
            found.append("{} {}".format(TITLES[other.product], other.version))
        if self.plugin != other.plugin:
            found.append("plugin " + other.plugin[:10] if other.plugin else "no plugin")
        return found


def target_of(api, device, plugin_path) -> Target:
    """The Target of this machine. api: an Api; device: a cuda.Device; plugin_path: or None."""
    return Target(device.name, tuple(device.compute_capability), api.product, api.version_text, hash_of(plugin_path))


def hash_of(path) -> Any:
    """SHA-256 of a file in hexadecimal digits, read once; None for None."""
    if path is None:
        return None
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(_CHUNK_BYTES), b""):
            digest.update(chunk)
    return digest.hexdigest()

"""The roofline of a device: no kernel is faster than its arithmetic and its memory traffic allow.

Source: Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance Model", CACM 2009.
"""

from __future__ import annotations

from typing import NamedTuple

from dance_deploy.cost import Cost
from dance_deploy.errors import InputError
from dance_deploy.hardware import BYTES
from dance_deploy.profiles import Profile


class Roof(NamedTuple):
    """macs_per_s, bytes_per_s: peak rates; element_bytes: of one number."""

    macs_per_s: float
    bytes_per_s: float
    element_bytes: int

    @property
    def balance(self) -> float:
        """MACs per byte above which arithmetic is the limit."""
        return self.macs_per_s / self.bytes_per_s

    def ms(self, cost: Cost) -> float:
        """The least time that a cost takes, in milliseconds."""
        return 1e3 * max(cost.macs / self.macs_per_s, cost.bytes / self.bytes_per_s)

    def bound(self, cost: Cost) -> str:
        """What limits it: "FMA" or "memory"."""
        return "FMA" if cost.macs * self.bytes_per_s >= cost.bytes * self.macs_per_s else "memory"

    def reached(self, macs_share: float, bytes_share: float) -> Roof:
        """The roof of kernels that reach these shares of the peaks."""
        return self._replace(macs_per_s=self.macs_per_s * macs_share, bytes_per_s=self.bytes_per_s * bytes_share)


def roof_of(profile: Profile, precision: str, mode: int | None) -> Roof:
    """The Roof of a profile in a power mode; raises InputError where the profile states no such rate."""
    hardware = profile.hardware
    if hardware is None:
        raise InputError(f"profile '{profile.name}' states no peak rates, so nothing can be predicted for it")
    peak, bandwidth = hardware.peak_macs(precision, mode), hardware.bandwidth(mode)
    if peak is None or bandwidth is None:
        missing = f"{precision} rate" if peak is None else "memory bandwidth"
        reason = hardware.unknown.get("macs_per_clock" if peak is None else "bandwidth_gbs", "not stated")
        raise InputError(f"profile '{profile.name}' has no {missing} ({reason}), so nothing can be predicted for it")
    return Roof(peak, bandwidth, BYTES[precision])

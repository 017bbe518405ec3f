"""What an estimate assumes beyond the device's peak rates. One place, printed with every prediction.

None of it is measured on a board. The shares of the peak come from the kernels' compiled code for sm_53 (FMAs among the
issued instructions, operands that wait for a register bank) and from what the literature reports of cuDNN on Maxwell;
they hold for GPUs of that kind. Derivation: docs/predict.md.
"""

from __future__ import annotations

from typing import NamedTuple


class Assumptions(NamedTuple):
    """What is assumed of kernels.

    ours: share of the peak MAC rate that our kernels reach, by precision; rival: the same for a library's; bandwidth:
    share of the peak bandwidth; launch_us: one kernel launch; warp_rows: output rows that skip work together;
    channel_group: kept input channels are rounded up to it, by precision.
    """

    ours: dict[str, float] = {"fp32": 0.65, "fp16": 0.52}
    rival: float = 0.75
    bandwidth: float = 0.74
    launch_us: float = 5.0
    warp_rows: int = 32
    channel_group: dict[str, int] = {"fp32": 4, "fp16": 8}

    def lines(self, precision: str) -> list[str]:
        """In words, for people."""
        return [f"our kernels reach {self.ours[precision]:.0%} of the MAC peak, a library's {self.rival:.0%}, memory "
                f"{self.bandwidth:.0%} of its peak; {self.launch_us:g} us a kernel launch",
                f"the gates are kernels of their own; {self.warp_rows} output rows skip together, kept channels are "
                f"rounded up to {self.channel_group[precision]}; channels last, batch 1"]


# shares of peak were derived for these; elsewhere only the roofline is given
DERIVED_FOR = ("5.3", "6.2")

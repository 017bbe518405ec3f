"""What one clip costs: the manifest's fixed parts plus every gated convolution counted exactly from its masks."""
import numpy as np

from dance_deploy.cost import ConvCost, Cost, KeptMasks


class CostCounter(object):
    """Counts clips of one bundle. All Costs are for one clip, batch 1, float32."""

    def __init__(self, manifest):
        self._gates = [[ConvCost(conv) for conv in gate.convs] for gate in manifest.gates]
        everywhere = _total(ConvCost(conv).dense() for conv in manifest.ungated.convs) + Cost(
            manifest.ungated.linear_macs, manifest.ungated.linear_bytes)
        self._always = everywhere + Cost(manifest.controller.macs, manifest.controller.bytes)
        self.dense = everywhere + _total(conv.dense() for convs in self._gates for conv in convs)
        self.all_kept = np.array([[gate.input_size[1], gate.input_size[0], gate.input_size[2] * gate.input_size[3]]
                                  for gate in manifest.gates], np.int64)

    def gated(self, masks):
        """masks: one LayerMasks a gate; the controller is part of the sum."""
        macs, bytes_moved = self._always
        for layer, convs in zip(masks, self._gates):
            kept = KeptMasks(*layer)
            for conv in convs:
                cost = conv.of(kept)
                macs += cost.macs
                bytes_moved += cost.bytes
        return Cost(macs, bytes_moved)


def _total(costs):
    total = Cost(0, 0)
    for cost in costs:
        total = total + cost
    return total

"""What one clip costs: the manifest's fixed parts plus every gated convolution counted exactly from its masks."""
import numpy as np

from dance_deploy.cost import ConvCost, Cost


class CostCounter(object):
    """Counts clips of one bundle. All Costs are for one clip, batch 1, float32."""

    def __init__(self, manifest):
        self._gates = [[ConvCost(conv) for conv in gate.convs] for gate in manifest.gates]
        self._everywhere = _total(ConvCost(conv).dense() for conv in manifest.ungated.convs) + Cost(
            manifest.ungated.linear_macs, manifest.ungated.linear_bytes)
        self._controller = Cost(manifest.controller.macs, manifest.controller.bytes)
        self.dense = self._everywhere + _total(conv.dense() for convs in self._gates for conv in convs)
        self.all_kept = np.array([[gate.input_size[1], gate.input_size[0], gate.input_size[2] * gate.input_size[3]]
                                  for gate in manifest.gates], np.int64)

    def gated(self, masks):
        """masks: one LayerMasks a gate; the controller is part of the sum."""
        convs = (conv.gated(*layer) for layer, convs in zip(masks, self._gates) for conv in convs)
        return self._everywhere + self._controller + _total(convs)


def _total(costs):
    total = Cost(0, 0)
    for cost in costs:
        total = total + cost
    return total

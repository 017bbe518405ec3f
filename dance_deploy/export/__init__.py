"""Checkpoint -> ONNX graphs -> bundle, with a parity check at every gated layer on the way."""

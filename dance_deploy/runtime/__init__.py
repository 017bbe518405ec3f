"""Bundle -> predictions: controller first, then the gated body; backends, streaming, self-test."""

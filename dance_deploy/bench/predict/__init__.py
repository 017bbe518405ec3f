"""Latency and energy of a bundle on a device that is not at hand: predicted by roofline, never measured."""

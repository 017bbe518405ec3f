"""Teach, export and run input-adaptive 3D CNNs for video on small boards (the DANCE method)."""

__version__ = "0.1.0"

"""Lets the tests of this folder import their shared cases (pytest's importlib mode adds no folder to the path)."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

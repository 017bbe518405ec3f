"""The meaning of the dance ops: the definition in numpy and, for the workshop, their ONNX function bodies.

`definition` needs numpy only; `functions` imports onnx and is therefore not imported here.
"""

"""TensorRT on the device: engines built from a bundle, kept in it, and run; numpy, tensorrt and pycuda only.

What differs between TensorRT's generations is in api.py, and nowhere else.
"""

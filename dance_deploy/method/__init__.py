"""The DANCE method in torch: magnitudes, AVA, the AAP gate, the controller, surgery on any model, training.

Source: "DANCE: Dynamic 3D CNN Pruning: Joint Frame, Channel, and Feature Adaptation for Energy Efficiency on the
Edge" (arXiv 2603.17275); where the paper is silent, docs/method.md says what this package decides.
"""

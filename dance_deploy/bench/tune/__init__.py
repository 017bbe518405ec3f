"""`dance-bench tune`: the costs by which the CPU kernels choose a variant, found on this machine."""

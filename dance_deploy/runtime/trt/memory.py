"""Is there room to build an engine here? Asked before: on a 4 GB board the answer otherwise comes from the kernel.

Estimates, not measurements: they are meant to stop what cannot work and to size the workspace.
"""
from dance_deploy import machine, profiles
from dance_deploy.errors import InputError, OperationError

MIB = 1 << 20
# CUDA, cuDNN and cuBLAS in a process, before anything of ours (Jetson users report 0.6 to 1 GB)
_LIBRARIES = 800 * MIB
# of the weights: the file, the parser's copy, the network folded, the plan, the engine that is compared
_COPIES_OF_WEIGHTS = 5
_COPIES_OF_ACTIVATIONS = 4
LEAST_WORKSPACE, MOST_WORKSPACE = 64 * MIB, 4096 * MIB


def needed_bytes(manifest):
    """Bytes that building this bundle's engines takes, without the workspace (estimate)."""
    weights = max(entry.size for name, entry in manifest.files.items() if name.endswith(".onnx"))
    tensors = [manifest.clip.shape[1:]] + [gate.input_size for gate in manifest.gates]
    convs = [conv for gate in manifest.gates for conv in gate.convs] + list(manifest.ungated.convs)
    tensors += [(conv.out_channels,) + tuple(conv.out_size) for conv in convs]
    largest = max(4 * c * t * h * w for c, t, h, w in tensors)
    return _LIBRARIES + _COPIES_OF_WEIGHTS * weights + _COPIES_OF_ACTIVATIONS * largest


def free_bytes(device, root="/"):
    """What may be used: the device's free memory, and where it is the machine's own (Jetson) no more than that."""
    free, total = device.memory()
    numbers = machine.memory_bytes(root)
    if numbers is None:
        return free
    machine_total, available = numbers
    if total > machine_total * 0.9 or machine.read_line(root, "etc/nv_tegra_release"):
        # shared memory: what the page cache holds counts as used for the device, and is given up when asked for
        return available
    return free


def board_bytes(profile, device):
    """All memory of the device, and no more than the bundle's profile says: it may be for a smaller one."""
    try:
        hardware = profiles.load(profile).hardware
    except InputError:
        hardware = None  # a profile of the user's own, which this machine does not have
    total = device.memory()[1]
    return total if hardware is None or not hardware.memory_gib else min(total, int(hardware.memory_gib * (1 << 30)))


def workspace_bytes(manifest, free, wanted, board):
    """The limit for scratch memory: `wanted`, else an eighth of the board's memory, and what is left beside the rest.

    free, board: bytes that are free, and that the board has. Raises OperationError where too little is
    left.
    """
    needed = needed_bytes(manifest)
    left = free - needed
    workspace = min(max(LEAST_WORKSPACE, board // 8), MOST_WORKSPACE, left) if wanted is None else wanted
    if left < (LEAST_WORKSPACE if wanted is None else wanted):
        raise OperationError(
            "too little memory to build engines: {} MiB are free, about {} MiB are needed and {} MiB of workspace; end "
            "other programs (on a Jetson: sudo systemctl isolate multi-user.target){}".format(
                free // MIB, needed // MIB, (LEAST_WORKSPACE if wanted is None else wanted) // MIB,
                "" if wanted is None else ", or give less with --workspace-mib"))
    return workspace

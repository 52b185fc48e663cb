"""Compares fixtures made anew with those recorded: compare.py NEW RECORDED.

Inputs have to be equal. Numbers may differ by a millionth of the largest of their kind: enough for another processor's
order of summation, and a hundredth of what the Rust test allows.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

TOLERANCE = 1e-6

def difference(new, recorded):
    new, recorded = np.asarray(new, np.float64), np.asarray(recorded, np.float64)
    if new.shape != recorded.shape:
        return np.inf
    return np.max(np.abs(new - recorded)) / max(np.max(np.abs(recorded)), 1e-30)


def compare(new, recorded, where):
    """Yields what differs between two JSON values."""
    if isinstance(new, dict) and isinstance(recorded, dict) and new.keys() == recorded.keys():
        for key in new:
            yield from compare(new[key], recorded[key], f"{where}.{key}")
    elif isinstance(new, list) and isinstance(recorded, list) and len(new) == len(recorded):
        for i, (a, b) in enumerate(zip(new, recorded)):
            yield from compare(a, b, f"{where}[{i}]")
    elif isinstance(new, float) and isinstance(recorded, float):
        if difference(new, recorded) > TOLERANCE:
            yield f"{where}: {new} is not {recorded}"
    elif new != recorded:
        yield where


def main():
    new, recorded = (Path(argument) for argument in sys.argv[1:])
    names = sorted(path.name for path in new.iterdir())
    if names != sorted(path.name for path in recorded.iterdir()):
        sys.exit(f"the recorded files are not {', '.join(names)}")
    differing, numbers = [], 0
    for name in names:
        if name.endswith(".json"):
            documents = [json.loads((side / name).read_text()) for side in (new, recorded)]
            differing += compare(*documents, name)
            continue
        ours, theirs = load_file(new / name), load_file(recorded / name)
        if ours.keys() != theirs.keys():
            differing.append(f"{name}: its tensors' names")
            continue
        numbers += sum(tensor.size for tensor in ours.values())
        differing += [f"{name}: {key}" for key in ours if difference(ours[key], theirs[key]) > TOLERANCE]
    if differing:
        sys.exit("these differ from what is recorded:\n  " + "\n  ".join(differing))
    print(f"{numbers} numbers in {len(names)} files are as recorded, to {TOLERANCE} relative.")


if __name__ == "__main__":
    main()

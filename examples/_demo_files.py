"""What `demo.py` reads of TensorFlow's files in a process that never loads TensorFlow.

    python examples/_demo_files.py MODEL RECORDS RESULT

Saves the weights of the SavedModel and the texts and labels of the TFRecord file in RESULT, for
comparison, and prints one JSON object: the milliseconds of each, and whether TensorFlow was loaded.
"""

from __future__ import annotations

import json
import sys
import time

import torch

from tensor_bridge import StringTensor, checkpoint, records


def main(model: str, path: str, result: str) -> int:
    """Reads both, and saves and prints what came of it."""
    started = time.perf_counter()
    weights = dict(checkpoint.load(model))
    loaded = time.perf_counter()
    spec = {
        "text": records.FixedLenFeature((), bytes),
        "label": records.FixedLenFeature((), bytes),
    }
    batches = list(records.loader(path, spec, batch_size=64))
    read = time.perf_counter()
    stored = {
        name: StringTensor.from_list([value for batch in batches for value in batch[name].tolist()])
        for name in spec
    }
    torch.save({"weights": weights, **stored}, result)
    answer = {
        "weights_ms": (loaded - started) * 1e3,
        "records_ms": (read - loaded) * 1e3,
        "tensorflow": "tensorflow" in sys.modules,
    }
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

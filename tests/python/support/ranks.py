"""Two ranks of torch.distributed over gloo, each a separate process, and the values they saw."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from fresh import run_forked

_PRELUDE = """
import json, os, sys
rank = 0 if os.fork() else 1
status = 1
try:
    import torch.distributed as dist
    dist.init_process_group(
        "gloo", init_method="file://{folder}/rendezvous", rank=rank, world_size=2)
    def see(value):
        with open("{folder}/seen%d" % rank, "w") as file:
            json.dump(value, file)
    from tensor_bridge.data import TorchDataset, loader
{body}
    dist.barrier()
    status = 0
except BaseException:
    import traceback
    traceback.print_exc()
sys.stderr.flush()
if rank == 1:
    os._exit(status)
status = status or os.waitstatus_to_exitcode(os.wait()[1])
os._exit(status)
"""


def run_ranks(body: str, folder: Path, *, timeout: float = 200) -> list[Any]:
    """Runs `body`, which calls see(value) once, on two ranks; returns the two values."""
    body = textwrap.indent(textwrap.dedent(body), "    ")
    done = run_forked(_PRELUDE.format(folder=folder, body=body), timeout=timeout)
    assert done.code == 0, done.err
    return [json.loads((folder / f"seen{rank}").read_text()) for rank in (0, 1)]

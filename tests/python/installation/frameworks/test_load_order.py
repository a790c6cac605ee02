"""The libraries that are loaded before TensorFlow's. tests/python/gpu tests CUDA builds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fresh import run_python

pytestmark = pytest.mark.alone

LOADED = """
import sys
import tensor_bridge
from tensor_bridge import _load_order
{before}
import tensorflow
maps = open("/proc/self/maps").read()
print("torch" in sys.modules, "libtorch" in maps)
"""


@pytest.mark.skipif(torch.version.cuda is not None, reason="torch is built with CUDA")
def test_nothing_of_a_cpu_build_of_torch_is_loaded() -> None:
    assert run_python(LOADED.format(before="")).check() == "False False"


@pytest.mark.skipif(torch.version.cuda is not None, reason="torch is built with CUDA")
def test_a_torch_with_cuda_whose_libraries_do_not_load_is_left_alone(tmp_path: Path) -> None:
    """A broken torch raises when it is imported, not while TensorFlow is imported."""
    (tmp_path / "torch" / "lib").mkdir(parents=True)
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('no CUDA library')\n")
    for name in ("cuda", "python"):
        (tmp_path / "torch" / "lib" / f"libtorch_{name}.so").write_text("no library")
    before = f"sys.path.insert(0, {str(tmp_path)!r})\n_load_order._has_cuda_stubs = lambda: True"
    assert run_python(LOADED.format(before=before)).check() == "False False"

"""The real triton beside TensorFlow: our code does not abort, and warns before anything would."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import needs
import pytest
from fresh import TENSORFLOW_FIRST, Done, run_forked

# In a separate folder, if the tested torch comes without triton. A CUDA build requires it.
FOLDER = Path(sys.prefix) / "triton"
pytestmark = [
    pytest.mark.skipif(
        not (2, 19) <= needs.tensorflow_release <= (2, 21),
        reason="TensorFlow loads locally, so triton is safe",
    ),
    pytest.mark.skipif(
        not FOLDER.is_dir() and importlib.util.find_spec("triton") is None,
        reason="no triton; run make dev",
    ),
]

USES = {
    "optimizer": "torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], 0.1)",
    "triton": "import triton",
    "layer": """
        layer = tensor_bridge.autograd.TorchLayer(torch.nn.Linear(2, 3))
        assert layer(tf.keras.Input((2,))).shape == (None, 3)""",
    "graph": """
        f = tf.function(tensor_bridge.autograd.torch_to_tf(torch.tanh))
        assert abs(float(f(tf.constant([1.0]))[0]) - 0.7616) < 1e-3""",
    "ragged": """
        x = tensor_bridge.to_torch(tf.ragged.constant([[1.0], [2.0, 3.0]]))
        assert x._maybe_max_seqlen == 2
        assert x.sum().item() == 6.0""",
    "compile": """
        f = torch.compile(lambda x: x.sin() + 1, backend="eager")
        assert abs(f(torch.zeros(2)).sum().item() - 2) < 1e-6""",
    "loader": """
        made = tensor_bridge.data.loader(tf.data.Dataset.range(4))
        parameter = torch.nn.Parameter(torch.zeros(()))
        optimizer = torch.optim.Adam([parameter])
        for x in made:
            (parameter * x).sum().backward()
            optimizer.step()""",
    "kernel": f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import triton_kernel
        assert ".entry add_one" in triton_kernel.compiled()
        # And what TensorFlow compiles with its own LLVM.
        f = tf.function(lambda x: tf.sin(x) + 1, jit_compile=True)
        assert f(tf.zeros(2)).numpy().tolist() == [1.0, 1.0]
        assert ".entry add_one" in triton_kernel.compiled()""",
}
# Whether TensorFlow's symbols are global, which depends on triton's place in the order.
IS_GLOBAL = "import ctypes; print(hasattr(ctypes.CDLL(None), 'TFE_NewContext'))"


ON_PATH = f"import sys\nsys.path.insert(0, {str(FOLDER)!r})"
OURS_FIRST = f"{ON_PATH}\nimport tensor_bridge, tensorflow as tf, torch"


def run(code: str, after: str) -> Done:
    lines = [line.removeprefix("        ") for line in code.splitlines()]
    return run_forked("\n".join([ON_PATH, *lines]), after=(after,))


@pytest.mark.parametrize(
    "name",
    [
        n if n in ("optimizer", "layer") else pytest.param(n, marks=pytest.mark.exhaustive)
        for n in USES
    ],
)
def test_imported_before_tensorflow_nothing_is_to_be_done(name: str) -> None:
    done = run(f"{USES[name].strip()}\n{IS_GLOBAL}", OURS_FIRST)
    assert done.code == 0, done.err
    assert done.out.strip() == "True"


def test_imported_before_tensorflow_an_operator_that_counts_on_global_loading_runs(
    tmp_path: Path,
) -> None:
    """TensorFlow is loaded as without us: libraries that name no dependency find its symbols."""
    library = tmp_path / "operator.so"
    source = Path(__file__).with_name("operator.c")
    done = run(
        f"""import subprocess
        {USES["optimizer"]}
        subprocess.run(
            ["g++", "-x", "c++", "-std=c++17", "-w", "-shared", "-fPIC", "-o", {str(library)!r},
             {str(source)!r}, "-I", tf.sysconfig.get_include()],
            check=True,
        )
        same = tf.load_op_library({str(library)!r}).same_of_test
        x = tf.constant([3, 4])
        assert tensor_bridge.to_torch(same(x)).tolist() == [3, 4]
        assert tensor_bridge.to_torch(tf.function(same)(x)).tolist() == [3, 4]""",
        OURS_FIRST,
    )
    assert done.code == 0, done.err


def test_tensorflow_alone_is_not_altered() -> None:
    """If TensorFlow is imported first it is unchanged, and one warning tells the consequences."""
    done = run(
        f"""import warnings
        {IS_GLOBAL}
        import tensor_bridge
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                tensor_bridge.to_torch(tf.constant([1.0]))
            x = tensor_bridge.to_torch(tf.ragged.constant([[1.0], [2.0, 3.0]]))
            list(tensor_bridge.data.loader(tf.data.Dataset.range(2)))
        (warning,) = caught
        assert issubclass(warning.category, RuntimeWarning)
        assert "any optimizer" in str(warning.message)
        assert "import tensor_bridge (or triton) before TensorFlow" in str(warning.message)
        assert x._maybe_max_seqlen == 2
        refused = []
        for use in (
            lambda: tensor_bridge.autograd.TorchLayer(torch.nn.Linear(2, 3))(tf.keras.Input((2,))),
            lambda: tf.function(tensor_bridge.autograd.torch_to_tf(torch.tanh))(tf.constant([1.0])),
            tensor_bridge.autograd.compile_conversions,
            tensor_bridge.prepare,
        ):
            try:
                use()
            except tensor_bridge.FrameworkError as e:
                assert "before TensorFlow" in str(e), e
                refused.append(type(e).__name__)
        print(*refused)
        {IS_GLOBAL}""",
        TENSORFLOW_FIRST,
    )
    assert done.code == 0, done.err
    assert done.out.split() == ["True", *["FrameworkError"] * 4, "True"]


def test_an_optimizer_of_that_process_would_abort() -> None:
    """The danger is real; otherwise the tests above would prove nothing."""
    done = run(USES["optimizer"], TENSORFLOW_FIRST)
    # "LLVM ERROR" and SIGABRT with some releases of torch and Python, SIGSEGV with others.
    assert done.code in (-6, -11), done

"""The demo's real model: guesslang's, which tells the programming language of a source text.

Its SavedModel lies inside the PyPI package `guesslang`, which is found but never imported: its code
needs an old TensorFlow, its model does not.
"""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow loads, so set before

import tensorflow as tf

ROOT = Path(__file__).resolve().parent.parent
SOURCE_FOLDERS = ("include", "src", "python", "cmake", "tests", "benchmarks", "examples")
SUFFIXES = (".c", ".cc", ".cmake", ".h", ".py", ".sh")


@dataclass(frozen=True)
class Model:
    """The loaded SavedModel.

    Attributes:
        folder: Where it is.
        saved: What TensorFlow loaded; it keeps the variables alive.
        languages: Language names by the label that the model gives, for instance "py" to "Python".
    """

    folder: Path
    saved: Any
    languages: dict[str, str]

    @property
    def variables(self) -> list[tf.Variable]:
        """The trained weights, and the training step."""
        return list(self.saved.variables)

    def predict(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Runs the model in TensorFlow on a vector of texts."""
        outputs: dict[str, tf.Tensor] = self.saved.signatures["predict"](texts)
        return outputs

    def guess(self, texts: tf.Tensor) -> list[tuple[str, float]]:
        """The likeliest language of each text, and its probability."""
        outputs = self.predict(texts)
        labels = outputs["classes"][:, 0].numpy()
        best = tf.reduce_max(outputs["probabilities"], axis=1).numpy()
        return [
            (self.languages[label.decode()], float(probability))
            for label, probability in zip(labels, best, strict=True)
        ]


def load_model() -> Model:
    """Loads the SavedModel out of the installed package."""
    spec = importlib.util.find_spec("guesslang")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            "The demo needs the model inside guesslang: "
            "python -m pip install --no-deps guesslang==2.2.1"
        )
    data = Path(spec.submodule_search_locations[0]) / "data"
    labels = json.loads((data / "languages.json").read_text())
    return Model(
        data / "model",
        tf.saved_model.load(str(data / "model")),
        {label: language for language, label in labels.items()},
    )


def source_files() -> list[Path]:
    """This repository's own source files, in a stable order."""
    return [
        path
        for folder in SOURCE_FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in SUFFIXES and path.stat().st_size > 0
    ]


def read_texts(paths: list[Path]) -> tf.Tensor:
    """The files' contents as TensorFlow takes them: a vector of strings."""
    return tf.constant([path.read_bytes() for path in paths], tf.string)

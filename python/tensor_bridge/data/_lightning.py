"""Whether Lightning saves or loads a position; it has its own way of doing so."""

from __future__ import annotations

import warnings
from types import FrameType


def is_caller(frame: FrameType) -> bool:
    """Whether the caller is Lightning's function that asks loaders for their state."""
    return str(frame.f_globals.get("__name__")).endswith(
        (
            "lightning.pytorch.utilities.combined_loader",
            "pytorch_lightning.utilities.combined_loader",
        )
    )


def tell_of_length() -> None:
    """Warns that Lightning fetches one element more than it trains with."""
    warnings.warn(
        "Lightning fetches one batch ahead of a loader whose length is not known, so the position "
        "in this checkpoint is one batch too far. Where you know the number of batches, say so: "
        "loader(ds.apply(tf.data.experimental.assert_cardinality(n)))",
        stacklevel=3,
    )

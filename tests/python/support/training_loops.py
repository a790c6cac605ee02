"""Training loops of other libraries over our data and over torch's own, each a function of a draw.

They run on the ranks of `rank_pair` and return the elements that a rank has seen, by epoch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import accelerate
import example_bytes
import lightning.pytorch as lightning
import tensorflow as tf
import torch
import transformers
from accelerate.state import AcceleratorState, GradientState
from torch.utils.data import DataLoader, IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

import tensor_bridge
from tensor_bridge import records, testing
from tensor_bridge.data import TorchDataset, _elements, loader

transformers.logging.set_verbosity_error()
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

Seen = list[list[int]]
SPEC = {
    "x": records.FixedLenFeature((1,), "float32"),
    "labels": records.FixedLenFeature((), "int64"),
}


class Draw:
    """A test's draw, with the operations that all loops share."""

    def __init__(
        self,
        *,
        length: int = 12,
        batch: int = 2,
        seed: int | None = None,
        ours: bool = True,
        world_first: bool = True,
        epochs: int = 2,
        **more: Any,
    ) -> None:
        self.length, self.batch, self.seed, self.epochs = length, batch, seed, epochs
        self.ours, self.world_first = ours, world_first
        self.more = more

    def pipeline(self, batched: bool = True, length: int | None = None) -> tf.data.Dataset:
        length = self.length if length is None else length
        ds = tf.data.Dataset.range(length)
        if self.more.get("files"):
            ds = tf.data.TextLineDataset(self._files(length)).map(
                lambda line: tf.strings.to_number(line, tf.int64)
            )
            ds = ds.apply(tf.data.experimental.assert_cardinality(length))
        if self.seed is not None:
            ds = ds.shuffle(100, seed=self.seed)
        if self.more.get("unknown_length"):
            ds = ds.filter(lambda i: i >= 0)
        noise = self.more.get("random", False)  # state that TensorFlow does not save

        def example(i: tf.Tensor) -> dict[str, tf.Tensor]:
            x = tf.reshape(tf.cast(i, tf.float32), [1])
            return {"x": x + tf.random.uniform([1]) if noise else x, "labels": i}

        ds = ds.map(example)
        return ds.batch(self.batch) if batched else ds

    def loader(self, **options: Any) -> Any:
        """A loader of tf.data, or of records if the draw says so."""
        if self.more.get("source") != "records":
            return loader(self.pipeline(), **options)
        options.pop("shard", None)
        return records.loader(
            self._record_files(),
            SPEC,
            batch_size=self.batch,
            shuffle=self.seed is not None,
            seed=self.seed or 0,
            **options,
        )

    def _record_files(self) -> list[str]:
        folder, count = Path(tempfile.mkdtemp()), self.more.get("files") or 1
        # As TFDS names them.
        names = [
            str(folder / f"n-train.tfrecord-{number:05d}-of-{count:05d}") for number in range(count)
        ]
        for number, name in enumerate(names):
            with tf.io.TFRecordWriter(name) as writer:
                for i in range(number, self.length, count):
                    pairs = [("x", example_bytes.feature("float32", [i]))]
                    pairs.append(("labels", example_bytes.feature("int64", [i])))
                    writer.write(example_bytes.example(pairs))
        return names

    def _files(self, length: int) -> list[str]:
        folder, count = Path(tempfile.mkdtemp()), self.more["files"]
        for number in range(count):
            part = range(number, length, count)
            (folder / str(number)).write_text("".join(f"{i}\n" for i in part))
        return [str(folder / str(number)) for number in range(count)]

    def dataset(self, batched: bool = True, length: int | None = None, **options: Any) -> Any:
        """The TorchDataset or dataset of records, or torch's own dataset of the same elements."""
        source = self.more.get("source")
        if source is None:
            made = self.pipeline(batched, length)
            return TorchDataset(made, **options) if self.ours else Plain(made, self.epochs + 2)
        if self.ours:
            return getattr(self, f"_{source}")(batched, options.get("shard"))
        count = self.more.get("files") or 1
        order = torch.tensor(
            [i for first in range(count) for i in range(first, self.length, count)]
        )
        parts = order.split(self.batch) if batched and source == "iterable" else order
        elements = [{"x": part.float().unsqueeze(-1), "labels": part} for part in parts]
        if source == "iterable":
            return Unsized(elements)
        return elements

    def _iterable(self, batched: bool, shard: str | None) -> Any:
        size = self.batch if batched else None
        return records.IterableRecordDataset(
            self._record_files(), SPEC, batch_size=size, shard=shard
        )

    def _by_number(self, *_: Any) -> Any:
        return records.RecordDataset(self._record_files(), SPEC)

    def _tfds(self, *_: Any) -> Any:
        files = self._record_files()
        folder = Path(files[0]).parent
        lengths = [str(len(range(i, self.length, len(files)))) for i in range(len(files))]
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        split = {"name": "train", "shardLengths": lengths, "filepathTemplate": template}
        info = {"fileFormat": "tfrecord", "name": "n", "version": "1.0.0", "splits": [split]}
        (folder / "dataset_info.json").write_text(json.dumps(info))
        features = "tensorflow_datasets.core.features"
        tensors = {
            "x": {"dtype": "float32", "encoding": "none", "shape": {"dimensions": ["1"]}},
            "labels": {"dtype": "int64", "encoding": "none", "shape": {}},
        }
        kinds = {"x": f"{features}.tensor_feature.Tensor", "labels": f"{features}.scalar.Scalar"}
        tree = {name: {"pythonClassName": kinds[name], "tensor": tensors[name]} for name in kinds}
        whole = {"pythonClassName": f"{features}.features_dict.FeaturesDict"}
        whole |= {"featuresDict": {"features": tree}}
        (folder / "features.json").write_text(json.dumps(whole))
        return records.tfds(folder, "train")

    def dataloader(self, kind: Any = DataLoader, batched: bool = True, **options: Any) -> Any:
        """A DataLoader over the dataset. Datasets by number are batched and shuffled by it."""
        made = self.dataset(batched, **options)
        if isinstance(made, IterableDataset):
            return kind(made, batch_size=None if batched else self.batch)
        torch.manual_seed(self.seed or 0)
        own = {"collate_fn": records.collate} if self.ours else {}
        return kind(made, batch_size=self.batch, shuffle=self.seed is not None, **own)


class Unsized(IterableDataset[Any]):
    """Elements as a torch dataset that does not know how many they are."""

    def __init__(self, elements: list[Any]) -> None:
        self._elements = elements

    def __iter__(self) -> Iterator[Any]:
        return iter(self._elements)


class Plain(IterableDataset[Any]):
    """The elements that TensorFlow makes in each epoch, as a torch dataset."""

    def __init__(self, ds: tf.data.Dataset, epochs: int) -> None:
        self._epochs = [tensor_bridge.to_torch(list(ds), copy=True) for _ in range(epochs)]
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._epochs[0])

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        epoch = self._epoch
        self._epoch += 1
        return iter(self._epochs[epoch])


def numbers(batch: Any) -> list[int]:
    """The elements of a batch, by their labels."""
    return [int(i) for i in batch["labels"].reshape(-1)]


def forget_accelerate() -> None:
    """Resets accelerate, so that the next Accelerator is like the first."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def end_world() -> None:
    """Ends the world, so that the process has none."""
    forget_accelerate()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def begin_world() -> None:
    """Begins the world, unless there is one or the process is alone.

    There may be one world in a run: the ranks of a second one on the same store find the
    addresses of the first.
    """
    if "WORLD_SIZE" in os.environ and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")


def fail_on_one_rank(draw: Draw) -> None:
    """Rank 1 fails where rank 0 waits for it."""
    begin_world()
    if torch.distributed.get_rank() == 1:
        raise ValueError("rank 1 fails")
    torch.distributed.barrier()


class Addresses:
    """Whether the tensors of a step are at the addresses where a pass made them."""

    def __init__(self) -> None:
        self._made: set[int] = set()
        self.steps: list[bool] = []

    def __enter__(self) -> Addresses:
        self._kept = _elements.Elements.__next__, _elements.Elements.build
        following, build = self._kept

        def note(element: Any) -> Any:
            self._made.add(testing.torch_data_address(element["x"]))
            return element

        _elements.Elements.__next__ = lambda it: note(following(it))  # type: ignore[method-assign]
        _elements.Elements.build = lambda it, flat: note(build(it, flat))  # type: ignore
        return self

    def __exit__(self, *_: object) -> None:
        _elements.Elements.__next__, _elements.Elements.build = self._kept  # type: ignore

    def step(self, x: torch.Tensor) -> None:
        self.steps.append(testing.torch_data_address(x) in self._made)


# ---- plain torch.distributed ---------------------------------------------------------------------


def plain(draw: Draw) -> Seen:
    kind = draw.more["kind"]
    made: Any
    if draw.world_first:
        begin_world()
    if kind == "loader":
        made = draw.loader(shard=draw.more["shard"])
    else:
        kinds = {"dataloader": DataLoader, "stateful": StatefulDataLoader}
        made = draw.dataloader(kinds[kind], shard=draw.more["shard"])
    begin_world()
    return [[i for batch in made for i in numbers(batch)] for _ in range(draw.epochs)]


def left_and_resumed(draw: Draw) -> Seen:
    """An interrupted pass, and one that continues from its state."""
    begin_world()

    def make() -> Any:
        if draw.more["kind"] == "loader":
            return draw.loader()
        return StatefulDataLoader(draw.dataset(shard="auto"), batch_size=None)

    first, before, state = make(), [], None
    for count, batch in enumerate(first):
        before += numbers(batch)
        if count == draw.more["stop"]:
            state = first.state_dict()
            break
    second = make()
    if state is not None:
        second.load_state_dict(state)
    else:
        before = []
    return [before + [i for batch in second for i in numbers(batch)]]


# ---- accelerate ----------------------------------------------------------------------------------


def accelerator(draw: Draw, **options: Any) -> Any:
    config = accelerate.DataLoaderConfiguration(
        dispatch_batches=draw.more.get("dispatch"),
        use_stateful_dataloader=draw.more.get("stateful", False),
    )
    return accelerate.Accelerator(cpu=True, dataloader_config=config, **options)


def accelerate_loop(draw: Draw) -> Seen:
    kind = draw.more["kind"]
    batched = draw.more.get("dispatch") is not False
    if draw.world_first:
        made = accelerator(draw)
    if kind == "loader":
        data: Any = draw.loader(**draw.more.get("options", {}))
    else:
        kinds = {"dataloader": DataLoader, "stateful": StatefulDataLoader}
        data = draw.dataloader(kinds[kind], batched)
    if not draw.world_first:
        made = accelerator(draw)
    prepared = made.prepare(data)
    if kind == "loader":
        assert prepared is data
    seen = []
    for _ in range(draw.epochs):
        if draw.more.get("breaks"):
            for _batch in prepared:
                break
        seen.append([i for batch in prepared for i in numbers(batch)])
    return seen


def accelerate_accumulates(draw: Draw) -> Any:
    """The steps that the optimizer took, and whether the batches are our pass's own."""
    made = accelerator(draw, gradient_accumulation_steps=3)
    if draw.more["kind"] == "loader":
        data: Any = loader(draw.pipeline(), equal_steps=True)
    else:
        data = DataLoader(draw.dataset(), batch_size=None)
    model, data = made.prepare(torch.nn.Linear(1, 1), data)
    model, optimizer = made.prepare(model, torch.optim.SGD(model.parameters(), 1e-3))
    taken: list[list[bool]] = []
    with Addresses() as addresses:
        for _ in range(draw.epochs):
            taken.append([])
            for batch in data:
                addresses.step(batch["x"])
                with made.accumulate(model):
                    made.backward(model(batch["x"]).sum())
                    optimizer.step()
                    optimizer.zero_grad()
                taken[-1].append(made.sync_gradients)
                if draw.more.get("inner"):  # a pass within a pass, left in the middle
                    for _batch in data if draw.more["inner"] == "same" else loader(draw.pipeline()):
                        break
    return [taken, addresses.steps]


def accelerate_checkpoint(draw: Draw) -> Any:
    """save_state() in the middle of an epoch, load_state() into new objects."""
    kind = draw.more["kind"]
    begin_world()

    def make() -> tuple[Any, Any]:
        forget_accelerate()
        made = accelerator(draw)
        if kind == "loader":
            return made, made.prepare(draw.loader(**draw.more.get("options", {})))
        return made, made.prepare(DataLoader(draw.dataset(), batch_size=None))

    folder = draw.more["folder"]
    made, data = make()
    before: list[int] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for count, batch in enumerate(data):
            before += numbers(batch)
            if count == draw.more["stop"]:
                made.save_state(folder)
                rank_file = Path(folder) / f"data-{made.process_index}.pt"
                if kind == "loader":
                    torch.save(data.state_dict(), rank_file)
                break
        made.wait_for_everyone()
        made, data = make()
        made.load_state(folder)
        if draw.more.get("by_rank"):
            data.load_state_dict(torch.load(rank_file, weights_only=True))
    told = sum("leave the position of this loader out" in str(w.message) for w in caught)
    return [[before, *([i for batch in data for i in numbers(batch)] for _ in range(2))], told]


def accelerate_shared_twice(draw: Draw) -> str:
    made = accelerator(draw)
    batched = draw.more.get("dispatch") is not False
    context = draw.more.get("context")
    data = DataLoader(
        draw.dataset(batched, shard="auto"),
        batch_size=None if batched else draw.batch,
        num_workers=0 if context is None else 1,
        multiprocessing_context=context,
    )
    try:
        list(made.prepare(data))
    except tensor_bridge.InvalidOptionError as e:
        return str(e)
    return ""


# ---- transformers' Trainer -----------------------------------------------------------------------


class Model(torch.nn.Module):
    """Notes the elements of each step, in one list for training and one for evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.seen: Seen = []
        self.evaluated: Seen = []
        self.looks: Callable[[torch.Tensor], None] = lambda x: None

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        (self.seen if self.training else self.evaluated).append(numbers({"labels": labels}))
        self.looks(x)
        y = self.linear(x)
        return {"loss": y.mean(), "logits": y}


class HookedTrainer(transformers.Trainer):
    """Returns its own loaders."""

    loaders: tuple[Any, Any]

    def get_train_dataloader(self) -> Any:
        return self.loaders[0]

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        return self.loaders[1]


def trainer_loop(draw: Draw) -> Any:
    """Elements of training, of evaluation, and whether steps had the memory of the pass."""
    hooked = draw.more["kind"] == "loader"
    folder = draw.more.get("folder") or tempfile.mkdtemp()

    def arguments() -> Any:
        return transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=draw.batch,
            per_device_eval_batch_size=draw.batch,
            num_train_epochs=draw.epochs,
            max_steps=draw.more.get("max_steps", -1),
            accelerator_config={"dispatch_batches": draw.more.get("dispatch")},
            eval_strategy="epoch",
            save_strategy="steps" if draw.more.get("save") else "no",
            save_steps=draw.more.get("save") or 1,
            gradient_accumulation_steps=draw.more.get("accumulate", 1),
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )

    def data() -> Any:
        if hooked:
            return [draw.loader(equal_steps=True) for _ in range(2)]
        return [draw.dataset(batched=False), draw.dataset(batched=False)]

    if draw.world_first:
        args, made = arguments(), data()
    else:
        made, args = data(), arguments()
    model = Model()
    kind = HookedTrainer if hooked else transformers.Trainer
    trainer = kind(model, args, train_dataset=made[0], eval_dataset=made[1])
    if hooked:
        trainer.loaders = made
    with Addresses() as addresses:
        model.looks = addresses.step
        trainer.train(resume_from_checkpoint=draw.more.get("resume"))
        if draw.more.get("twice"):
            trainer.train()
    return [model.seen, model.evaluated, addresses.steps]


# ---- Lightning -----------------------------------------------------------------------------------


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.predicted: Seen = []

    def training_step(self, batch: Any, index: int) -> Any:
        return self.model(**batch)["loss"]

    def validation_step(self, batch: Any, index: int) -> None:
        self.model(**batch)

    def predict_step(self, batch: Any, index: int) -> Any:
        self.predicted.append(numbers(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-3)


class DataModule(lightning.LightningDataModule):
    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self._make = make

    def train_dataloader(self) -> Any:
        return self._make()

    def val_dataloader(self) -> Any:
        return self._make()


def lightning_loop(draw: Draw) -> Any:
    """Elements of training, of validation, of prediction, whether steps had their memory; and what
    was told of positions.
    """
    if draw.world_first:
        begin_world()

    def make() -> Any:
        if draw.more["kind"] == "loader":
            return draw.loader(equal_steps=True)
        kind = StatefulDataLoader if draw.more["kind"] == "stateful" else DataLoader
        return draw.dataloader(kind, shard=draw.more.get("shard", "auto"), equal_steps=True)

    callbacks = []
    if draw.more.get("folder"):
        callbacks.append(
            lightning.callbacks.ModelCheckpoint(
                draw.more["folder"], filename="{step}", every_n_train_steps=1, save_top_k=-1
            )
        )
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=int(os.environ.get("WORLD_SIZE", 1)),
        strategy="ddp" if "WORLD_SIZE" in os.environ else "auto",
        max_epochs=draw.epochs,
        callbacks=callbacks,
        enable_checkpointing=bool(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    module = Module()
    with warnings.catch_warnings(record=True) as caught, Addresses() as addresses:
        warnings.simplefilter("always")
        module.model.looks = addresses.step
        if draw.more.get("module"):
            trainer.fit(module, datamodule=DataModule(make), ckpt_path=draw.more.get("resume"))
        else:
            trainer.fit(module, make(), make(), ckpt_path=draw.more.get("resume"))
        if draw.more.get("predict"):
            trainer.predict(module, make(), return_predictions=False)
    told = [str(w.message) for w in caught if "this state" in str(w.message)]
    told += [str(w.message) for w in caught if "this checkpoint" in str(w.message)]
    return [module.model.seen, module.model.evaluated, module.predicted, addresses.steps, told]


# ---- the guides ----------------------------------------------------------------------------------


def guide(draw: Draw) -> list[int]:
    """The values in `seen` after the Python blocks of a page; their output is ignored."""
    begin_world()
    namespace: dict[str, Any] = {"__name__": "guide"}
    os.chdir(tempfile.mkdtemp())
    seen: list[int] = []
    for block in draw.more["blocks"]:
        before = list(namespace.get("seen", []))
        exec(compile(block, "guide", "exec"), namespace)
        after = list(namespace.get("seen", []))
        seen += after if after != before else []
    return seen


@contextlib.contextmanager
def no_world() -> Iterator[None]:
    """Makes the process like a program that was started without a world."""
    kept = {name: os.environ.pop(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    try:
        yield
    finally:
        os.environ.update(kept)


def run(name: str, draw: dict[str, Any], alone: bool = False) -> Any:
    """Calls the function of that name; our warnings are errors, except those that it catches."""
    end_world()  # of the last run, of which both ranks have given the result
    with warnings.catch_warnings(), no_world() if alone else contextlib.nullcontext():
        warnings.filterwarnings("error", module="tensor_bridge.*")
        warnings.filterwarnings("error", message=".*(TorchDataset|tensor_bridge).*")
        warnings.filterwarnings("ignore", message="'set_vital' is deprecated")
        return globals()[name](Draw(**draw))

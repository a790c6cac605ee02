"""The examples, tables, links and programs of README and docs are checked by running them."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import page_session
import pytest
from fresh import BOTH, COMPILER, Done, run_forked, run_python
from pages import PAGES, ROOT, Block, Page, spans
from tree import SUPPORT


def ids(pages: list[Page]) -> list[str]:
    return [page.name for page in pages]


# --- Python examples ------------------------------------------------------------------------------


def sessions(page: Page) -> Iterator[list[Block]]:
    """The page's Python blocks; `fresh` after the language starts a new process."""
    current: list[Block] = []
    for block in page.blocks("python"):
        if "fresh" in block.words and current:
            yield current
            current = []
        current.append(block)
    if current:
        yield current


def difference(block: Block, got: str, where: str) -> str | None:
    """The error in a block's output, or None."""
    if block.prints(got):
        return None
    return f"{where}:{block.line}: expected\n{block.output or ''}\ngot\n{got}"


def run_session(blocks: list[Block], page: Page, run: Callable[..., Done]) -> list[str]:
    code = f"""
import json, os, sys, tempfile
sys.path.insert(0, {str(SUPPORT)!r})
import page_session
# What a page imports may have the name of a module there.
sys.path[:] = [folder for folder in sys.path if folder != {str(SUPPORT)!r}]
blocks = {[(block.line, block.text) for block in blocks]!r}
with tempfile.TemporaryDirectory() as folder:  # examples write files
    os.chdir(folder)
    outputs = page_session.run(blocks, {str(page.path)!r})
    os.chdir("/")
print(json.dumps(outputs))
"""
    outputs: list[str] = json.loads(run(code, timeout=200).check().splitlines()[-1])
    return outputs


BEFORE_IMPORTS = r"os\.environ|tensor_bridge\.prepare\(\)"
WITH_PYTHON = [page for page in PAGES if page.blocks("python")]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=ids(WITH_PYTHON))
def test_python_examples_print_what_the_page_says(page: Page) -> None:
    wrong = []
    for blocks in sessions(page):
        # In a new process, like a reader, if the page shows imports or what must come before them.
        imports = page.name == "README.md" or re.search(BEFORE_IMPORTS, blocks[0].text)
        run = run_python if imports else partial(run_forked, after=(BOTH, COMPILER))
        outputs = run_session(blocks, page, run)
        wrong += [difference(b, got, page.name) for b, got in zip(blocks, outputs, strict=True)]
    assert not any(wrong), "\n".join(filter(None, wrong))


DOCTESTS = """
import doctest, importlib, os, pkgutil, tempfile
folder = tempfile.TemporaryDirectory()  # examples write files
os.chdir(folder.name)
names = [info.name for info in pkgutil.walk_packages(tensor_bridge.__path__, "tensor_bridge.")]
results = [
    doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    for name in ["tensor_bridge", *names]
    if not name.endswith("__main__") and ".lib" not in name  # our libraries lie beside the modules
]
os.chdir("/")
folder.cleanup()
failed, attempted = (sum(counts) for counts in zip(*results))
assert failed == 0
print(attempted)
"""


def test_examples_in_docstrings_print_what_they_say() -> None:
    done = run_forked(DOCTESTS)
    assert done.code == 0, done.out + done.err
    assert int(done.out.splitlines()[-1]) > 0


@pytest.mark.parametrize(
    ("code", "output", "right"),
    [
        ("print(1)", "1\n", True),
        ("print(1)", "2\n", False),
        ("print(1)", None, False),
        ("x = 1", None, True),
        ("raise ValueError('no')", "ValueError: no\n", True),
        ("raise ValueError('no')", None, False),
        ("print('a', 'b')", "a\n  b\n", True),
        ("print('long message')", "long ...\n", True),
    ],
)
def test_a_wrong_example_is_found(code: str, output: str | None, right: bool) -> None:
    block = Block("python", (), code, 1, output)
    (got,) = page_session.run([(1, code)], "page")
    assert (difference(block, got, "page") is None) == right


# --- tables ---------------------------------------------------------------------------------------


def load_tool(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_dtype_tables_say_what_dtypes_says() -> None:
    for name, text in load_tool("dtype_table").updated().items():
        found = (ROOT / name).read_text(encoding="utf-8")
        assert found == text, f"{name} is out of date; run python tools/dtype_table.py"


def test_benchmark_tables_say_what_was_measured() -> None:
    import draw

    for name, text in draw.dtype_table.updated(draw.TABLES).items():
        found = (ROOT / name).read_text(encoding="utf-8")
        assert found == text, f"{name} is out of date; run make bench-draw"
    for name, _, panels, _ in draw.CHARTS:
        files = draw.ASSETS.glob(f"{name}-*.svg")
        charts = [path.read_text(encoding="utf-8") for path in files]
        assert len(charts) == 2
        shown = {draw.quantity(ns, "ns") for _, times in panels() for ns in times.values()}
        assert all(f">{label}<" in chart for chart in charts for label in shown)


def test_figures_of_recipes_are_what_their_text_says() -> None:
    import recipe_figures

    drawn = recipe_figures.files()
    for path, text in drawn.items():
        found = path.read_text(encoding="utf-8")
        assert found == text, f"{path} is out of date; run python tools/recipe_figures.py"
    assert sorted(drawn) == sorted((ROOT / "docs/assets/recipes").iterdir())


def test_dtype_tables_name_every_dtype() -> None:
    import tensor_bridge

    names = [row.name for row in tensor_bridge.dtypes() if row.tf_enum]
    page = Page(ROOT / "docs/concepts/dtypes.md")
    full = [row[0].strip("`") for row in page.rows("dtypes")]
    summary = [name for row in page.rows("summary") for name in spans(row[0])]
    assert full == sorted(names, key=full.index)
    assert sorted(full) == sorted(summary) == sorted(names)


def test_the_table_of_exceptions_is_complete() -> None:
    from tensor_bridge import errors

    base = errors.TensorBridgeError
    expected = {}
    for name in errors.__all__:
        error = getattr(errors, name)
        if isinstance(error, type) and error is not base:
            builtin = next(c for c in error.__mro__ if c is not base and c.__module__ == "builtins")
            expected[name] = builtin.__name__
    rows = Page(ROOT / "docs/guides/python.md").rows("exceptions")
    assert {row[0].strip("`"): row[1].strip("`") for row in rows} == expected


def supported(name: str) -> tuple[str, str]:
    from tensor_bridge import _frameworks

    first, last = getattr(_frameworks, name)
    return ".".join(map(str, first)), ".".join(map(str, last))


@pytest.mark.parametrize(
    ("framework", "name"), [("torch", "TORCH_RANGE"), ("TensorFlow", "TENSORFLOW_RANGE")]
)
def test_readme_states_the_supported_versions(framework: str, name: str) -> None:
    first, last = supported(name)
    assert f"{framework} {first} to {last}" in " ".join(Page(ROOT / "README.md").text.split())


# --- links ----------------------------------------------------------------------------------------


def broken_links(page: Page) -> Iterator[str]:
    for target in page.links():
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.path.parent / name).resolve() if name else page.path
        if not path.exists():
            yield f"{page.name}: {target}: no such file"
        elif anchor and anchor not in Page(path).anchors():
            yield f"{page.name}: {target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_links_lead_somewhere(page: Page) -> None:
    assert not list(broken_links(page))


def test_every_page_is_linked_from_another() -> None:
    linked = {
        (page.path.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in page.links()
        if not re.match(r"[a-z]+:", target)
    }
    roots = {ROOT / "README.md", ROOT / "CHANGELOG.md"}
    assert not [page.name for page in PAGES if page.path not in linked | roots]


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_paths_in_the_text_exist(page: Page) -> None:
    folders = "src|include|python|tests|docs|tools|cmake|benchmarks|examples"
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", page.prose)
    # Files that the programs write are not in the repository.
    missing = [name for name in named if not (ROOT / name).exists() and "/results/" not in name]
    assert not missing


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("# A `b` heading\n[a](gone.md) [b](#a-b-heading) [c](#nowhere)\n")

    class Elsewhere(Page):
        @property
        def name(self) -> str:
            return "page.md"

    assert list(broken_links(Elsewhere(path))) == [
        "page.md: gone.md: no such file",
        "page.md: #nowhere: no such heading",
    ]

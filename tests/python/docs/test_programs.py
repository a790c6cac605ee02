"""The C and C++ code of README and docs: programs are built and run, fragments are compiled."""

from __future__ import annotations

import re

import pytest
from native import compile_and_run, compile_source
from pages import PAGES, Block, Page

BLOCKS = [
    (page, block) for page in PAGES for language in ("cpp", "c") for block in page.blocks(language)
]
PROGRAMS = [(page, block) for page, block in BLOCKS if "int main(" in block.text]
FRAGMENTS = [(page, block) for page, block in BLOCKS if "int main(" not in block.text]


@pytest.mark.parametrize(
    ("page", "block"), PROGRAMS, ids=[f"{page.name}:{block.line}" for page, block in PROGRAMS]
)
def test_a_program_prints_what_the_page_says(page: Page, block: Block) -> None:
    name = f"program-{page.path.stem}-{block.line}"
    printed = compile_and_run(block.text, block.language, name)
    assert block.output is not None, f"{page.name}:{block.line}: the block has no output"
    assert block.prints(printed), printed


@pytest.mark.parametrize("language", sorted({block.language for _, block in FRAGMENTS}))
def test_fragments_compile(language: str) -> None:
    includes = ["tensor_bridge/c_api.h" if language == "c" else "tensor_bridge/tensor_bridge.h"]
    bodies = []
    for number, (page, block) in enumerate(FRAGMENTS):
        if block.language != language:
            continue
        includes += re.findall(r"^#include <(.+)>$", block.text, re.MULTILINE)
        body = re.sub(r"^#include .*$", "", block.text, flags=re.MULTILINE)
        located = f'#line {block.line} "{page.name}"\n{body}'
        # Two fragments may define the same name.
        bodies.append(
            f"namespace fragment_{number} {{\n{located}\n}}" if language == "cpp" else located
        )
    source = "".join(f"#include <{include}>\n" for include in dict.fromkeys(includes))
    source += "\n".join(bodies)
    compile_source(source, language, f"fragments-{language}", "-fsyntax-only", "-")

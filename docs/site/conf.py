"""The documentation site: `make docs`.

Its sources are the Markdown pages as they are, with those in the root of the repository, which is
Sphinx's source folder. `toc.yml` has the order of the pages.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

SITE = Path(__file__).resolve().parent
ROOT = SITE.parent.parent

# --- project --------------------------------------------------------------------------------------

project = "tensor_bridge"
author = "the authors of tensor_bridge"
version = re.search(
    r'#define TENSOR_BRIDGE_VERSION "(.+)"', (ROOT / "include/tensor_bridge/version.h").read_text()
)[1]
release = version

root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "CODE_OF_CONDUCT.md",
    "docs/**",
]
exclude_patterns = [".*", "build", "dist", "docs/site"]
extensions = [
    "breathe",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_external_toc",
    "sphinxarg.ext",
]
external_toc_path = "docs/site/toc.yml"

# --- pages ----------------------------------------------------------------------------------------

myst_heading_anchors = 4
myst_links_external_new_tab = False
# Examples say what they print below, not in the block; nothing has a prompt but docstrings.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_copy_empty_lines = False

# --- reference ------------------------------------------------------------------------------------

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

breathe_default_project = "tensor_bridge"
breathe_domain_by_file_pattern = {"*c_api.h": "c"}
breathe_show_include = False
breathe_show_enumvalue_initializer = True
breathe_show_define_initializer = True
# Each header has something in the same namespace.
suppress_warnings = ["duplicate_declaration.cpp"]

# Every name that is referred to must be documented here, but for those of others: a site that is
# built offline does not know where they are.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|nn|os|pathlib|collections)\..*"),
    # A Rule of load_into, or a plain tuple that does as well; what checkers see of a tf.Tensor.
    (r"py:class", r"AnyRule|TfTensor"),
    (
        r"c(pp)?:identifier",
        r"u?int\d+_t|size_t|at(::Tensor)?|TF_Tensor|DLManagedTensorVersioned|_object",
    ),
    # Of c_api.h, which is in C's domain.
    (r"cpp:identifier", r"(tb|TB)_\w+"),
]

# --- looks ----------------------------------------------------------------------------------------

html_theme = "furo"
# Each token has the contrast of WCAG AA, and modules are not underlined like links.
pygments_dark_style = "a11y-dark"
html_title = f"tensor_bridge {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["extra"]
html_copy_source = False
html_search_scorer = str(SITE / "scorer.js")
# The search finds names.
html_use_index = False
html_domain_indices = False
html_show_sphinx = False
html_show_copyright = False
toc_object_entries_show_parents = "hide"


def follow_the_theme(app: Sphinx, name: str, content: list[str]) -> None:
    """GitHub's `<picture>` for light and dark as two images, of which the theme shows one."""
    picture = re.compile(
        r'^(?P<margin> *(?:- )?)<picture>\s*<source [^>]*srcset="(?P<dark>.+?)">\s*'
        r'<img alt="(?P<alt>.+?)" src="(?P<light>.+?)">\s*</picture>',
        re.MULTILINE,
    )

    def figures(found: re.Match[str]) -> str:
        lines = [
            line
            for scheme in ("light", "dark")
            for line in (
                f"```{{figure}} {found[scheme]}",
                f":alt: {found['alt']}",
                f":figclass: only-{scheme}",
                "```",
            )
        ]
        # In a list all lines but the first are indented.
        inside = "\n" + " " * len(found["margin"])
        return found["margin"] + inside.join(lines)

    content[0] = picture.sub(figures, content[0])


def run_doxygen(app: Sphinx) -> None:
    """Reads the public headers; a warning of doxygen's ends the build."""
    folder = Path(app.doctreedir) / "doxygen"
    folder.mkdir(parents=True, exist_ok=True)
    settings = (SITE / "Doxyfile").read_text() + f'\nOUTPUT_DIRECTORY = "{folder}"\n'
    done = subprocess.run(
        ["doxygen", "-"], input=settings, capture_output=True, text=True, cwd=ROOT, check=False
    )
    if done.returncode != 0:
        raise ExtensionError(f"doxygen: {done.stderr}")
    app.config.breathe_projects = {"tensor_bridge": str(folder / "xml")}


def setup(app: Sphinx) -> None:
    """Sphinx calls it."""
    app.connect("builder-inited", run_doxygen, priority=100)
    app.connect("source-read", follow_the_theme)

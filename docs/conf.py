"""How Sphinx builds the documentation: ``sphinx-build -W -n docs BUILD-DIRECTORY``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from msgspec import Struct

import fastindex
from fastindex import __version__
from fastindex.operations.builder import options

if TYPE_CHECKING:
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "fastindex"
release = version = __version__
project_copyright = "the fastindex authors"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_argparse_cli",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
smartquotes = False  # it makes a dash of the two hyphens of an option

myst_enable_extensions = ["attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"fastindex {release}"
html_theme_options: dict[str, object] = {"footer_icons": []}
html_show_sourcelink = False
highlight_language = "text"
html_static_path = ["_static"]
html_css_files = ["fastindex.css"]
copybutton_selector = ":not(.highlight-text) > div.highlight > pre"  # outputs are not to be pasted

# Annotations name it, and a build that starts quickly imports it for type checkers only.
vars(options)["Change"] = fastindex.Change

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
nitpick_ignore_regex = [(r"py:.*", r"(?!fastindex\b).*")]  # Python's and msgspec's own names


def setup(app: Sphinx) -> None:
    """Connect what follows."""
    app.connect("missing-reference", _find_public_name)
    app.connect("autodoc-process-signature", _drop_fields)
    app.connect("autodoc-process-docstring", _keep_field, priority=0)
    app.connect("autodoc-process-docstring", _restore_field, priority=1000)


def _find_public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: object
) -> object:
    """Return a link to where this site describes a public name that an annotation has."""
    name = node["reftarget"].rpartition(".")[2]
    if node.get("refdomain") != "py" or name not in fastindex.__all__:
        return None
    target = f"fastindex.{name}"
    python = env.get_domain("py")
    return python.resolve_xref(env, node["refdoc"], app.builder, "class", target, node, content)


def _drop_fields(app: Sphinx, what: str, name: str, documented: object, *_: object) -> object:
    """Show no signature of a value that nobody makes by hand: its fields follow one by one."""
    is_value = isinstance(documented, type) and issubclass(documented, Struct)
    return ("", "") if is_value else None


_fields: dict[str, list[str]] = {}


def _keep_field(app: Sphinx, what: str, name: str, *rest: object) -> None:
    """Remember a field's docstring: napoleon takes what stands before a colon for a type."""
    if what in ("attribute", "property"):
        _fields[name] = list(cast("list[str]", rest[-1]))


def _restore_field(app: Sphinx, what: str, name: str, *rest: object) -> None:
    """Undo what napoleon made of a field's docstring."""
    if name in _fields:
        cast("list[str]", rest[-1])[:] = _fields.pop(name)

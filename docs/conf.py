"""How Sphinx builds the documentation: ``sphinx-build -W -n docs BUILD-DIRECTORY``."""

from __future__ import annotations

from fastindex import __version__

project = "fastindex"
release = version = __version__
project_copyright = "the fastindex authors"

extensions = [
    "myst_parser",
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

"""The course and the reference as a web site: sphinx-build notebooks build/site. No notebook is executed; the kept
outputs are shown. The reference comes from the docstrings of the package, which is imported."""

import json
import sys
from pathlib import Path

from minillama.lessons import sliders

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "minillama"
html_title = "minillama: LLaMA in NumPy"
copyright = "the minillama authors"
language = "en"

extensions = [
    "myst_nb",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",  # named with hyphens
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "reference",  # _extensions/reference.py
]
exclude_patterns = ["data", "results", "**.ipynb_checkpoints", "_extensions"]

nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = "Show the solution"
nb_code_prompt_hide = "Hide the solution"
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3

smartquotes_action = "q"  # the "--" of an option and the "..." of a shape mean what they are
autodoc_typehints = "signature"
maximum_signature_line_length = 90
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = [
    (None, {"body": f"const SLIDERS = {json.dumps(sliders.described())};"}),
    ("sliders.js", {"defer": "defer"}),
    ("figures.js", {"defer": "defer"}),
]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072B2", "color-brand-content": "#0072B2"},
    "dark_css_variables": {"color-brand-primary": "#7cc4ee", "color-brand-content": "#7cc4ee"},
}
copybutton_selector = "div.cell_input div.highlight pre, div.highlight-sh pre"

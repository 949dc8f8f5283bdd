"""The course as a web site: sphinx-build notebooks build/site. Nothing is executed; the kept outputs are shown."""

project = "minillama"
html_title = "minillama: LLaMA in NumPy"
copyright = "the minillama authors"
language = "en"

extensions = ["myst_nb", "sphinx_copybutton", "sphinx-mathjax-offline"]  # the last one is named with hyphens
exclude_patterns = ["data", "results", "**.ipynb_checkpoints"]

nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = "Show the solution"
nb_code_prompt_hide = "Hide the solution"
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072B2", "color-brand-content": "#0072B2"},
    "dark_css_variables": {"color-brand-primary": "#7cc4ee", "color-brand-content": "#7cc4ee"},
}
copybutton_selector = "div.cell_input div.highlight pre, div.highlight-sh pre"

# Linux and macOS. The same steps for Windows stand in README.md.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test notebooks notebooks-student nbgrader site slides install clean

# Train the default model on stories and print one; runs/demo/loss.png is the loss curve with the entropy floor.
demo: install
	$(BIN)/python -m minillama train --out runs/demo --overwrite
	$(BIN)/python -m minillama sample runs/demo

# On all processors; what times itself or other processes comes last, alone.
test: install
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "not alone"
	$(BIN)/python -m pytest -m alone

# The course in JupyterLab, which opens the tour first.
notebooks: install
	$(BIN)/jupyter lab notebooks/tour.ipynb

# The course without solutions and outputs, for students. It refuses to replace notebooks that they have worked in.
notebooks-student: install
	$(BIN)/python -m minillama.lessons student build/student

# The course as assignments for nbgrader: build/nbgrader/source.
nbgrader: install
	$(BIN)/python -m minillama.lessons nbgrader build/nbgrader

# The course as a web site that needs no network: build/site/index.html.
site: install
	$(BIN)/python -m pip install --quiet --editable ".[site]"
	$(BIN)/python -m sphinx -q -W --keep-going notebooks build/site

# Slides of the lessons, as HTML and as PDF, which Chromium prints: build/slides/index.html.
slides: install
	$(BIN)/python -m pip install --quiet --editable ".[site]"
	$(BIN)/python -m minillama.lessons slides build/slides --overwrite

install: $(VENV)/installed

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable . --requirement requirements.txt
	touch $@

# What make itself made and can make again: the environment, if it is make's, and the web site. Trained runs (runs) and
# notebooks that students work in (build/student) stay.
clean:
	if [ -e $(VENV)/installed ]; then rm -rf $(VENV); fi
	rm -rf build/site build/slides

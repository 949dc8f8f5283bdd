# Linux and macOS. The same steps for Windows stand in README.md.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test notebooks notebooks-student site install clean

# Train the default model on stories, print one, and keep the loss curve with the entropy floor.
demo: install
	rm -rf runs/demo
	$(BIN)/python -m minillama train --out runs/demo
	$(BIN)/python -m minillama sample runs/demo
	mkdir -p figures
	cp runs/demo/loss.png figures/stories-loss.png

test: install
	$(BIN)/python -m pytest

# The course in JupyterLab.
notebooks: install
	$(BIN)/jupyter lab notebooks

# The course without solutions and outputs, for students.
notebooks-student: install
	$(BIN)/python -m minillama.lessons student build/student

# The course as a web site that needs no network: build/site/index.html.
site: install
	$(BIN)/python -m pip install --quiet --requirement requirements-site.txt
	$(BIN)/python -m sphinx -q -W --keep-going notebooks build/site

install: $(VENV)/installed

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

clean:
	rm -rf $(VENV) runs build

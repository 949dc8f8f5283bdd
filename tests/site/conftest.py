"""The site, built once, and a browser."""

import shutil

import pytest

from minillama.lessons.notebooks import FOLDER
from minillama.lessons.slides import CHROMIUM


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    from sphinx.cmd.build import build_main

    made = tmp_path_factory.mktemp("site")
    doctrees = tmp_path_factory.mktemp("doctrees")
    assert build_main(["-q", "-W", "--keep-going", "-d", str(doctrees), str(FOLDER), str(made)]) == 0
    return made


@pytest.fixture(scope="module")
def browser():
    """Closed behind each module: Playwright runs once in a process, and slides are printed with one of their own."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("there is no Chromium on the path")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()

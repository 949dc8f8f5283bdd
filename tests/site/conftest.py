"""The site, built once, and a browser."""

import shutil

import pytest

from minillama.lessons.notebooks import FOLDER

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    from sphinx.cmd.build import build_main

    made = tmp_path_factory.mktemp("site")
    doctrees = tmp_path_factory.mktemp("doctrees")
    assert build_main(["-q", "-W", "--keep-going", "-d", str(doctrees), str(FOLDER), str(made)]) == 0
    return made


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on the path")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()

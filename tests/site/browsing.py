"""A page of the site in a browser, as wide as a desk's or a phone's; it may say nothing and ask no network."""

from contextlib import contextmanager

WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
RENDERED = "async () => { if (window.MathJax) await MathJax.startup.promise }"


@contextmanager
def opened(browser, site, name, width):
    """The page of this name, drawn; what it says and asks for meanwhile is looked at in the end."""
    size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
    page = browser.new_page(viewport=size, has_touch=width == "phone")
    said, asked, failed = [], [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: failed.append(request.url))
    try:
        page.goto((site / f"{name}.html").as_uri())
        page.evaluate(RENDERED)
        yield page
    finally:
        page.close()
    assert said == [] and failed == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == [], "it asks the network for something"

"""Numbers that a lesson's text speaks of, each with the band that it is expected in."""

OUTSIDE = "OUTSIDE the expected band"


def claim(what, value, low, high, unit=""):
    """Print a number and the band in which the text expects it: `what: value unit (expected low to high)`

    Another machine prints another number; the text holds as long as it is in the band. One outside is said to be, and
    the test of the notebooks fails.
    """
    inside = low <= value <= high
    unit = f" {unit}" if unit else ""
    verdict = f"expected {low:.6g} to {high:.6g}" if inside else f"{OUTSIDE} {low:.6g} to {high:.6g}"
    print(f"{what}: {value:.4g}{unit} ({verdict})")

"""Areas for shares: what a model's parameters or operations are spent on, as rectangles."""

from ..messages import needs
from .figures import COLOURS, PALE

with needs("lessons", "drawing a lesson's figure"):
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

_SMALLEST = 0.05  # of the whole: a part below this is named under the figure, not in its rectangle


def treemap(title, parts):
    """A figure of a panel's size: one rectangle for each of the parts, {name: (size, colour)}, its area the share

    The order of the parts is kept where one can, so that two figures of the same parts can be compared.
    """
    figure, axes = plt.subplots(figsize=(4.4, 3.4))
    axes.set(xlim=(0, 4.4), ylim=(0, 3.0), aspect="equal")
    axes.set_title(title, fontsize=11)
    axes.axis("off")
    total = sum(size for size, _ in parts.values())
    shown = [(name, size, colour) for name, (size, colour) in parts.items() if size]
    small = []
    for (name, size, colour), (x, y, width, height) in zip(shown, _cut(shown, 0, 0, 4.4, 3.0), strict=True):
        axes.add_patch(Rectangle((x, y), width, height, facecolor=PALE[colour], edgecolor=COLOURS[colour], lw=1.2))
        share = size / total
        if share < _SMALLEST:
            small.append(f"{name} {share:.1%}")
        else:
            fits = width > 1.5
            label = f"{name} {share:.0%}" if fits and height < 0.5 else f"{name}\n{share:.0%}"
            axes.text(x + width / 2, y + height / 2, label, ha="center", va="center", fontsize=10 if fits else 8.5)
    if small:
        axes.text(4.4, -0.08, "the small ones: " + ", ".join(small), ha="right", va="top", fontsize=9)
    return figure


def _cut(parts, x, y, width, height):
    """The rectangles (x, y, width, height) of parts

    Cut in two where the halves are most alike, across the longer side, and so on.
    """
    if len(parts) == 1:
        return [(x, y, width, height)]
    sizes = [size for _, size, _ in parts]
    total = sum(sizes)
    at = min(range(1, len(sizes)), key=lambda n: abs(2 * sum(sizes[:n]) - total))
    share = sum(sizes[:at]) / total
    if width >= height:
        first, second = (x, y, width * share, height), (x + width * share, y, width * (1 - share), height)
    else:
        first = x, y + height * (1 - share), width, height * share
        second = x, y, width, height * (1 - share)
    return _cut(parts[:at], *first) + _cut(parts[at:], *second)

"""The look of the lessons' figures, and diagrams of shapes and data flow."""

from ..analysis.plots import COLOURS, SHARES
from ..messages import needs

with needs("lessons", "drawing a lesson's figure"):
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

PALE = {"blue": "#d6e8f3", "orange": "#fbeccb", "green": "#cfeae1", "red": "#f8ddcc", "grey": "#ececec"}
MARKERS = {"blue": "o", "orange": "s", "green": "^", "red": "D", "grey": "x"}  # lines are told apart in grey print too
__all__ = ["COLOURS", "MARKERS", "PALE", "SHARES", "Diagram", "style"]


def style():
    """Figures of one style from here on: the palette of minillama.analysis.plots, axes that are labelled, no frame."""
    mpl.rcParams.update(
        {
            "axes.prop_cycle": mpl.cycler(color=list(COLOURS.values())),
            "figure.figsize": (7, 4),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "image.cmap": "cividis",
        }
    )


class Diagram:
    """Boxes and arrows on a canvas of width x height units; about 90 units are the width of a page

    d = Diagram(90, 20)
    a = d.box(12, 10, "x\\n(N, C)", "blue")      # centre, text, colour
    b = d.box(40, 10, "RMSNorm", "green")
    d.arrow(a, b, "N rows")                      # from one box, or point, to another, with a label
    """

    def __init__(self, width, height):
        self.figure, self.axes = plt.subplots(figsize=(width * 0.085, height * 0.085))
        self.axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
        self.axes.axis("off")

    def box(self, x, y, text, colour="grey", width=16, height=8, size=9):
        """A box about (x, y); returns it, for arrows. colour: a key of COLOURS."""
        patch = FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=1",
            facecolor=PALE[colour],
            edgecolor=COLOURS[colour],
            lw=1.2,
        )
        self.axes.add_patch(patch)
        self.text(x, y, text, size=size)
        return patch

    def text(self, x, y, text, size=9, colour="black", align="center"):
        self.axes.text(x, y, text, ha=align, va="center", fontsize=size, color=colour)

    def arrow(self, start, end, label="", colour="grey", bend=0.0, dashed=False):
        """An arrow between two boxes, or points (x, y), from edge to edge; backward passes are dashed."""
        a, b = (_centre(place) for place in (start, end))
        arrow = FancyArrowPatch(
            a,
            b,
            patchA=None if isinstance(start, tuple) else start,
            patchB=None if isinstance(end, tuple) else end,
            arrowstyle="-|>",
            mutation_scale=11,
            color=COLOURS[colour],
            lw=1.3,
            ls="--" if dashed else "-",
            connectionstyle=f"arc3,rad={bend}",
            shrinkA=1,
            shrinkB=1,
        )
        self.axes.add_patch(arrow)
        if label:
            x, y = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
            self.axes.text(
                x - bend * (a[1] - b[1]) / 2, y + bend * (a[0] - b[0]) / 2 + 1.3, label, ha="center", va="bottom",
                fontsize=8, color=COLOURS[colour],
            )  # fmt: skip


def _centre(place):
    if isinstance(place, tuple):
        return place
    return place.get_x() + place.get_width() / 2, place.get_y() + place.get_height() / 2

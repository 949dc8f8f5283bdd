"""The map of the course: the decoder and what is around it, with the lesson that explains each part."""

from ..messages import needs
from .figures import COLOURS, Diagram

with needs("lessons", "drawing the map of the course"):
    from matplotlib.patches import Circle, FancyBboxPatch

# Lessons that exist; the numbers of the others are drawn pale.
WRITTEN = ("00", "01", "02", "03", "04", "05", "06", "07", "08")
_STREAM = 19  # where the residual stream runs, from top to bottom


def course_map(here=None):
    """Draw the map. here: the number of a lesson, "03", whose places are marked."""
    d = Diagram(100, 113)
    badge = _badges(d, here)
    _around_the_model(d, badge, here)
    _model(d, badge)
    return d.figure


def _badges(d, here):
    def badge(x, y, lesson):
        colour = COLOURS["grey"] if lesson in WRITTEN else "#b5b5b5"
        face = COLOURS["red"] if lesson == here else colour if lesson in WRITTEN else "white"
        d.axes.add_patch(Circle((x, y), 2.1, facecolor=face, edgecolor=face if face != "white" else colour, zorder=5))
        text = "white" if face != "white" else COLOURS["grey"]
        d.axes.text(x, y - 0.1, lesson, ha="center", va="center", fontsize=8, weight="bold", color=text, zorder=6)

    return badge


def _box(d, badge, x, y, text, colour, width, height, *lessons, size=9):
    """A box with the numbers of its lessons on the upper right corner."""
    made = d.box(x, y, text, colour, width, height, size)
    for i, lesson in enumerate(reversed(lessons)):
        badge(x + width / 2 - 1.2 - 4.5 * i, y + height / 2, lesson)
    return made


def _model(d, badge):
    s = _STREAM
    text = _box(d, badge, s, 107, "text\n“the cat sat on the mat”", "grey", 32, 7)
    ids = _box(d, badge, s, 95, "tokenizer\nids (B, T)", "blue", 22, 7, "01")
    embedding = _box(d, badge, s, 83, "embedding\nx (B, T, C)", "blue", 22, 7, "08")
    d.arrow(text, ids)
    d.arrow(ids, embedding)

    frame = FancyBboxPatch(
        (7, 28.5), 61, 47.5, boxstyle="round,pad=0,rounding_size=2", facecolor="#fafafa",
        edgecolor=COLOURS["grey"], lw=1, ls=(0, (4, 3)), zorder=0,
    )  # fmt: skip
    d.axes.add_patch(frame)
    d.text(63, 73.6, "one block, repeated L times", size=9, colour=COLOURS["grey"], align="right")
    badge(66, 76, "08")
    d.axes.plot([s, s], [79.5, 24.5], color=COLOURS["blue"], lw=7, solid_capstyle="butt", alpha=0.35, zorder=1)
    d.axes.text(
        s - 4.6, 50.5, "residual stream (B, T, C)", rotation=90, ha="center", va="center", fontsize=9,
        color=COLOURS["blue"],
    )  # fmt: skip
    for top, bottom in ((66.5, 53), (43, 34)):
        norm = _box(d, badge, 34, top, "RMSNorm", "green", 14, 6, "03")
        d.arrow((s, top), norm, colour="green")
        if top > 60:
            layer = _box(d, badge, 55, 62.5, "", "green", 20, 14, "05", "06")
            d.text(55, 66.5, "attention", size=9)
            d.text(55, 62.6, "heads, KV cache", size=8, colour=COLOURS["grey"])
            _box(d, badge, 55, 58.6, "RoPE", "green", 8.5, 3.8, size=8)
            badge(61.6, 58.6, "04")
            d.arrow(norm, (45, 66.5), colour="green")
            d.text(25, 57.5, "each position reads\nfrom earlier ones", size=8, align="left", colour=COLOURS["green"])
        else:
            layer = _box(d, badge, 55, 43, "SwiGLU\nfeed-forward", "green", 20, 8, "07")
            d.arrow(norm, layer, colour="green")
            d.text(25, 36.6, "each position on its own", size=8, align="left", colour=COLOURS["green"])
        d.axes.plot([55, 55], [layer.get_y(), bottom], color=COLOURS["green"], lw=1.3, zorder=1)
        d.arrow((55, bottom), (s + 1.9, bottom), colour="green")
        d.axes.add_patch(Circle((s, bottom), 1.9, facecolor="white", edgecolor=COLOURS["blue"], lw=1.2, zorder=4))
        d.axes.text(s, bottom - 0.15, "+", ha="center", va="center", fontsize=12, color=COLOURS["blue"], zorder=5)

    norm = _box(d, badge, s, 22, "RMSNorm", "green", 14, 5, "03")
    logits = _box(d, badge, s, 12.5, "output matrix\nlogits (B, T, V)", "blue", 22, 7, "08")
    loss = _box(d, badge, 57, 12.5, "softmax, cross-entropy\nloss in nats per token", "red", 28, 7, "00")
    d.arrow(norm, logits)
    d.arrow(logits, loss)
    targets = [(s - 11, 95), (3.5, 95), (3.5, 4.5), (57, 4.5)]
    d.axes.plot(*zip(*targets, strict=True), color=COLOURS["red"], lw=1.2, ls=(0, (1, 1.5)))
    d.arrow((57, 4.5), loss, colour="red")
    d.text(30, 2.4, "targets: the same ids, shifted by one", size=8, colour=COLOURS["red"])
    badge(51, 2.6, "00")


def _around_the_model(d, badge, here):
    x, width = 86, 25
    data = _box(d, badge, 57, 107, "data: sources and their mixture", "orange", 30, 7, "10")
    d.arrow(data, (_STREAM + 16, 107), colour="orange")
    sample = _box(
        d,
        badge,
        54.5,
        95,
        "sampling: draw a token from\nthe logits, append it, go on",
        "grey",
        31,
        8,
        "00",
        "13",
        size=8,
    )
    d.arrow(sample, (_STREAM + 11, 95), colour="grey")
    step = _box(d, badge, x, 25, "backpropagation:\na gradient for every\nparameter", "orange", width, 11, "02")
    optimizer = _box(d, badge, x, 43, "AdamW: a small step\nfor every parameter", "orange", width, 9, "09")
    d.arrow((71, 12.5), step, colour="orange", dashed=True, bend=0.25)
    d.arrow(step, optimizer, colour="orange", dashed=True)
    d.arrow(optimizer, (68, 43), colour="orange", dashed=True)
    rest = (
        ("LLaMA, GPT and BERT", "11"),
        ("NumPy and Numba kernels", "12"),
        ("released weights, int8", "13"),
        ("fine-tuned: chat, code", "14"),
        ("every claim, checked", "15"),
    )
    d.text(x - width / 2, 97, "the whole model", size=9, colour=COLOURS["grey"], align="left")
    for i, (text, lesson) in enumerate(rest):
        _box(d, badge, x, 91.5 - 8.7 * i, text, "grey", width, 5.6, lesson, size=8)
    another = "00" if here == "01" else "01"
    legend = [
        (lesson, text) for lesson, text in ((here, "this lesson"), (another, "written"), ("15", "planned")) if lesson
    ]
    for i, (lesson, text) in enumerate(legend):
        badge(x - 5, 12 - 4.7 * i, lesson)
        d.text(x - 1.5, 12 - 4.7 * i, text, size=8, align="left")

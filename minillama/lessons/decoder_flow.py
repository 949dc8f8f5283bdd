"""How data flows through a decoder of one block, with shapes: forward, and backward as its mirror (lesson 08)."""

from .figures import COLOURS, Diagram

# name -> centre, the forward's text, width; a box of the stream is blue, of a layer green
_BOXES = {
    "ids": ((11, 90), "ids\n(T,)", 14),
    "x": ((11, 79), "x\n(T, C)", 14),
    "h1": ((36, 79), "h1 = norm(x)\n(T, C)", 20),
    "q": ((26, 67), "q\n(T, H, D)", 11),
    "k": ((39, 67), "k\n(T, K, D)", 11),
    "v": ((52, 67), "v\n(T, K, D)", 11),
    "o": ((39, 54), "o\n(T, H, D)", 14),
    "middle": ((11, 47), "middle\n(T, C)", 14),
    "h2": ((36, 43), "h2 = norm(middle)\n(T, C)", 22),
    "gate": ((31, 32), "gate\n(T, F)", 11),
    "up": ((47, 32), "up\n(T, F)", 11),
    "hidden": ((39, 21), "silu(gate) ⊙ up\n(T, F)", 20),
    "out": ((11, 15), "out\n(T, C)", 14),
    "h": ((11, 4), "h = norm(out)\n(T, C)", 16),
    "logits": ((33, 4), "logits\n(T, V)", 12),
    "loss": ((51, 4), "loss", 9),
}
_STREAM = ("ids", "x", "middle", "out", "h", "logits", "loss")
_ARROWS = {  # from, to -> label
    "ids x": "embedding", "x h1": "", "h1 q": "w_q", "h1 k": "w_k", "h1 v": "w_v", "q o": "turn", "k o": "turn",
    "v o": "", "x middle": "", "o middle": "w_o", "middle h2": "", "h2 gate": "w_gate", "h2 up": "w_up",
    "gate hidden": "", "up hidden": "", "middle out": "", "hidden out": "w_down", "out h": "", "h logits": "output",
    "logits loss": "",
}  # fmt: skip
# how often a thing is used, where that is more than once: so many gradients add up
_USED_MORE_THAN_ONCE = {"x": 2, "h1": 3, "k": "G", "v": "G", "middle": 2, "h2": 2}


def decoder_flow(backward=False):
    """Draw it. backward: the gradients, with arrows that go back, and a red + where gradients are added up."""
    d = Diagram(60, 96)
    colour = "red" if backward else "grey"
    made = {}
    for name, (at, text, width) in _BOXES.items():
        text = _gradient_of(name, text) if backward else text
        made[name] = d.box(*at, text, "blue" if name in _STREAM else "green", width, 7)
    for pair, label in _ARROWS.items():
        start, end = pair.split()
        places = (made[end], made[start]) if backward else (made[start], made[end])
        d.arrow(*places, colour=colour, dashed=backward)
        _label(d, start, end, label, colour)
    for name, uses in _USED_MORE_THAN_ONCE.items() if backward else ():
        (x, y), _, width = _BOXES[name]
        d.axes.text(
            x + width / 2, y - 3.5, f"+{uses}", ha="center", va="center", fontsize=8, weight="bold", color="white",
            bbox={"boxstyle": "circle,pad=0.15", "facecolor": COLOURS["red"], "edgecolor": "white"},
        )  # fmt: skip
    return d.figure


def _gradient_of(name, text):
    """The box's text on the way back: the gradient has the shape of what it is the gradient of."""
    if name in ("ids", "loss"):
        return {"ids": "dembedding\nrows of ids", "loss": "1"}[name]
    return f"d{name}\n{text.splitlines()[1]}"


def _label(d, start, end, label, colour):
    (a, b), (c, e) = _BOXES[start][0], _BOXES[end][0]
    middle = (a + c) / 2, (b + e) / 2
    if not label:
        return
    if b == e:
        d.axes.text(middle[0], b + 1, label, ha="center", va="bottom", fontsize=8, color=COLOURS[colour])
    else:
        d.axes.text(
            *middle, label, ha="center", va="center", fontsize=8, color=COLOURS[colour],
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"},
        )  # fmt: skip

"""Numbers to be moved by hand: a picture that follows a few sliders, in the notebook and on the web site.

    sliders.rope_clocks()      # the last line of a cell tagged `slider`

In a notebook the picture and its sliders are a widget (ipywidgets). A widget lives as long as its kernel, so what the
file keeps is the picture at the start, as SVG and in words. On the site notebooks/_static/sliders.js puts the sliders
of `described` around that picture and draws it anew as they move: it has a twin of each function `draw` here, and
tests/site moves the sliders and compares the two, shape by shape.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

import numpy as np

from ..catalogue.presets import PRESETS
from ..messages import needs
from ..ops.norms import rmsnorm
from ..ops.positions.rope import rope_frequencies
from ..ops.softmax import softmax
from .sittings import has_figure, tags

_COLOURS = {"blue": "#0072B2", "orange": "#E69F00", "red": "#D55E00", "grey": "#666666", "pale": "#d6e8f3"}
_PICTURE_WIDTH = 360  # of every picture, in its own units: as wide as a phone, where its letters must be readable
_WIDGET = "application/vnd.jupyter.widget-view+json"


class Control(NamedTuple):
    """One slider: it stands on one of its options."""

    name: str
    label: str
    options: tuple[tuple[str, float], ...]  # what is shown, and the value
    start: float  # the value of one of the options


OWN = "own values"  # what the menu of presets says where the sliders stand as none of them


@dataclass(frozen=True)
class Slider:
    """A picture with its sliders. No tuple: IPython prints a tuple itself, and asks it for no words."""

    name: str
    title: str  # what the picture shows, for those who cannot see it
    height: int  # of the picture, whose width is _PICTURE_WIDTH
    controls: tuple[Control, ...]
    draw: Callable  # ({name: value}, {name: text}) -> the shapes of the picture, and in words what it shows
    presets: tuple[tuple[str, dict[str, float]], ...] = ()  # a name, and the values that it sets

    def start(self):
        return {control.name: control.start for control in self.controls}

    def _drawn(self, values):
        texts = {c.name: next(t for t, v in c.options if v == values[c.name]) for c in self.controls}
        return self.draw(values, texts)

    def words(self, values):
        """What the picture shows at these values, as a sentence."""
        return self._drawn(values)[1]

    def svg(self, values):
        """The picture at these values."""
        shapes = "".join(self._drawn(values)[0])
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_PICTURE_WIDTH} {self.height}" role="img" '
            f'font-family="sans-serif" font-size="13"><title>{escape(self.title)}</title>{shapes}</svg>'
        )

    def widget(self):
        """The picture under its sliders, for a running notebook."""
        with needs("lessons", "sliders in a notebook"):
            import ipywidgets

        style, layout = {"description_width": "9em"}, {"width": "32em", "max_width": "100%"}
        handles = {
            c.name: ipywidgets.SelectionSlider(
                options=c.options, value=c.start, description=c.label, style=style, layout=layout
            )
            for c in self.controls
        }
        picture = ipywidgets.HTML()
        named = [*(name for name, _ in self.presets), OWN]
        preset = ipywidgets.Dropdown(options=named, description="shape of", style=style, layout=layout)

        def redraw(_=None):
            values = {name: handle.value for name, handle in handles.items()}
            preset.value = next((n for n, set_to in self.presets if set_to.items() <= values.items()), OWN)
            drawn = f'<div style="max-width: 36em; background: white">{self.svg(values)}</div>'
            picture.value = f"{drawn}<p>{escape(self.words(values))}</p>"

        for handle in handles.values():
            handle.observe(redraw, "value")
        redraw()
        if not self.presets:
            return ipywidgets.VBox([*handles.values(), picture])

        def choose(_):
            for name, value in dict(self.presets).get(preset.value, {}).items():
                handles[name].value = value

        preset.observe(choose, "value")
        return ipywidgets.VBox([preset, *handles.values(), picture])

    def _repr_mimebundle_(self, include=None, exclude=None):
        alive = self.widget()._repr_mimebundle_()[_WIDGET]
        kept = {"text/plain": self.words(self.start()), "image/svg+xml": self.svg(self.start())}
        return {**kept, _WIDGET: alive}


def without_widgets(notebook):
    """Take the widgets out of the outputs of a notebook, in place: what is left is what a file can keep."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(_WIDGET, None)


def faults_of_slider(cell):
    """What is wrong with the outputs of a cell of code, if it shows a slider; a message each."""
    if any(_WIDGET in output.get("data", {}) for output in cell.get("outputs", ())):
        yield "keeps a widget, whose state no file has: run the lesson with minillama.lessons run"
    if "slider" in tags(cell) and not has_figure(cell):
        yield "is tagged slider, and keeps no picture of one"


def described():
    """All sliders as plain data, for the script of the site."""
    return {name: _described(make()) for name, make in SLIDERS.items()}


def _described(slider):
    indices = {c.name: {value: index for index, (_, value) in enumerate(c.options)} for c in slider.controls}
    return {
        "title": slider.title,
        "height": slider.height,
        "controls": [
            {"name": c.name, "label": c.label, "options": c.options, "start": indices[c.name][c.start]}
            for c in slider.controls
        ],
        "presets": [
            {"label": label, "indices": {name: indices[name][value] for name, value in values.items()}}
            for label, values in slider.presets
        ],
        "own": OWN,
    }


# Shapes


def _shape(tag, text=None, **attributes):
    written = "".join(f' {name.replace("_", "-")}="{_plain(value)}"' for name, value in attributes.items())
    return f"<{tag}{written}/>" if text is None else f"<{tag}{written}>{escape(text)}</{tag}>"


def _plain(value):
    return value if isinstance(value, str) else f"{value:.2f}"


def _line(x1, y1, x2, y2, stroke=_COLOURS["grey"], stroke_width=1, **more):
    return _shape("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke, stroke_width=stroke_width, **more)


def _text(x, y, text, anchor="middle", fill="black"):
    return _shape("text", text, x=x, y=y, text_anchor=anchor, fill=fill)


# The softmax with a temperature (lesson 00)

_WORDS = (("mat", 2.5), ("sofa", 2.0), ("floor", 1.0), ("roof", 0.0), ("moon", -1.5))


def softmax_temperature():
    """p = softmax(z / tau): five words that could follow "the cat sat on the", as bars."""
    temperatures = tuple((f"{tenths / 10:.1f}", tenths / 10) for tenths in range(1, 31))
    return Slider(
        "softmax_temperature",
        "The probabilities of five words as bars, for a temperature that divides their scores",
        190,
        (Control("temperature", "temperature τ", temperatures, 1.0),),
        _draw_softmax_temperature,
    )


def _draw_softmax_temperature(values, texts):
    p = softmax(np.array([score for _, score in _WORDS]) / values["temperature"])
    shapes = []
    for row, ((word, score), share) in enumerate(zip(_WORDS, p, strict=True)):
        y = 10 + 32 * row
        shapes += [
            _text(92, y + 16, f"{word} (z = {score:.1f})", "end"),
            _shape("rect", x=100, y=y, width=200 * share, height=22, fill=_COLOURS["blue"]),
            _text(106 + 200 * share, y + 16, f"{share:.3f}", "start"),
        ]
    shapes.append(_text(200, 184, "probability p = softmax(z / τ)", fill=_COLOURS["grey"]))
    entropy = -sum(share * math.log(share) for share in p if share > 0)
    return shapes, (
        f"Temperature {texts['temperature']}: mat has the probability {p[0]:.3f}, moon {p[4]:.3f}. "
        f"The entropy is {entropy:.3f} nats, of at most {math.log(len(p)):.3f}."
    )


# RoPE's clocks (lesson 04)

_HEAD_WIDTH = 16


def rope_clocks():
    """A head of width 16: each of its 8 pairs is a hand that has turned by m omega_i, omega_i = base^(-2i/16)."""
    bases = (100, 1_000, 10_000, 100_000, 500_000, 1_000_000)
    return Slider(
        "rope_clocks",
        "Eight clocks, one for each pair of a head: hands that turn with the position, each at a speed of its own",
        236,
        (
            Control("base", "base θ", tuple((f"{base:,}", base) for base in bases), 10_000),
            Control("position", "position m", tuple((str(m), m) for m in range(101)), 10),
            Control("pair", "pair i", tuple((str(i), i) for i in range(_HEAD_WIDTH // 2)), 1),
        ),
        _draw_rope_clocks,
    )


def _draw_rope_clocks(values, texts):
    frequencies = rope_frequencies(_HEAD_WIDTH, float(values["base"]))
    shapes = []
    for i, frequency in enumerate(frequencies):
        x, y, angle = 45 + 90 * (i % 4), 46 + 118 * (i // 4), values["position"] * frequency
        chosen = i == values["pair"]
        colour = _COLOURS["red"] if chosen else _COLOURS["blue"]
        shapes += [
            _shape("circle", cx=x, cy=y, r=38, fill="white", stroke=colour, stroke_width=2 if chosen else 1),
            _line(x, y, x + 38, y, stroke_dasharray="2 3"),
            _line(x, y, x + 34 * math.cos(angle), y - 34 * math.sin(angle), colour, 3),
            _text(x, y + 54, f"pair {i}", fill=colour),
            _text(x, y + 68, f"{angle / (2 * math.pi):.3f} turns", fill=colour),
        ]
    speed = float(frequencies[values["pair"]])
    return shapes, (
        f"Pair {texts['pair']} with the base {texts['base']} turns by ω = {speed:.6f} radians a position, once in "
        f"{2 * math.pi / speed:,.1f} positions. At position {texts['position']} it has turned by "
        f"{values['position'] * speed:.4f} radians."
    )


# eps in RMSNorm (lesson 03)


def norm_eps():
    """The size of y against that of x, as its root mean square, y = x / sqrt(mean(x^2) + eps)."""
    return Slider(
        "norm_eps",
        "The size of y = RMSNorm(x) against the size of x: 1 for a large x, and falling to 0 below the root of eps",
        220,
        (
            Control("eps", "eps ε", (("0", 0.0), *((f"1e-{k}", 10.0**-k) for k in range(12, 0, -1))), 1e-5),
            Control("size", "size of x", tuple((f"{10 ** (k / 4):.3g}", 10 ** (k / 4)) for k in range(-32, 9)), 0.01),
        ),
        _draw_norm_eps,
    )


def _draw_norm_eps(values, texts):
    def across(size):
        return 45 + 30 * (math.log10(size) + 8)

    def up(size):
        return 175 - 140 * size

    def out(size):
        return float(np.abs(rmsnorm(np.array([size]), 1.0, values["eps"])[0][0]))  # one number: its size is its RMS

    shapes = [_line(45, 175, 345, 175), _line(45, 175, 45, 25)]
    for power in range(-8, 3, 2):
        shapes += [_line(across(10**power), 175, across(10**power), 179), _text(across(10**power), 193, f"1e{power}")]
    for size in (0.0, 0.5, 1.0):
        shapes += [_line(41, up(size), 45, up(size)), _text(37, up(size) + 4, f"{size:.1f}", "end")]
    points = " ".join(f"{45 + 3 * k:.2f},{up(out(10 ** (k / 10 - 8))):.2f}" for k in range(101))
    shapes.append(_shape("polyline", points=points, fill="none", stroke=_COLOURS["blue"], stroke_width=2))
    if values["eps"] > 0:
        root = across(math.sqrt(values["eps"]))
        shapes += [
            _line(root, 175, root, up(out(math.sqrt(values["eps"]))), stroke_dasharray="3 3"),
            _text(root + 4, 168, "√ε", "start", _COLOURS["grey"]),
        ]
    y = out(values["size"])
    shapes += [
        _shape("circle", cx=across(values["size"]), cy=up(y), r=5, fill=_COLOURS["red"]),
        _text(195, 212, "size of x (root mean square)", fill=_COLOURS["grey"]),
        _text(45, 15, "size of y", "start", _COLOURS["grey"]),
    ]
    return shapes, f"With eps = {texts['eps']} an x of size {texts['size']} gives a y of size {y:.4f}."


# Bytes of the cache (lesson 06)

_UNITS = (("bytes", 1), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12))


def cache_bytes():
    """2 L K D bytes a token, times the tokens of a sequence, times the sequences of a batch."""
    models = {
        "Llama 2 7B": "llama-2-7b", "Llama 2 70B": "llama-2-70b", "Llama 3.1 8B": "llama-3.1-8b",
        "Llama 3.1 405B": "llama-3.1-405b",
    }  # fmt: skip
    presets = tuple(
        (name, {"layers": config.layers, "kv_heads": config.kv_heads, "width": config.head_dim})
        for name, config in ((name, PRESETS[key]) for name, key in models.items())
    )
    start = presets[0][1]

    def control(name, label, values, at):
        return Control(name, label, tuple((f"{value:,}", value) for value in values), at)

    return Slider(
        "cache_bytes",
        "The bytes of the key/value cache as bars on a logarithmic scale: of a token, of a sequence, of a batch",
        180,
        (
            control("layers", "blocks L", (1, 2, 4, 8, 16, 24, 32, 40, 60, 80, 100, 126), start["layers"]),
            control("kv_heads", "key/value heads K", (1, 2, 4, 8, 16, 32, 40, 52, 64), start["kv_heads"]),
            control("width", "head width D", (32, 64, 96, 128, 256), start["width"]),
            control("context", "tokens S", tuple(2**k for k in range(9, 18)), 4096),
            control("batch", "sequences B", tuple(2**k for k in range(9)), 1),
            control("bytes", "bytes a number", (1, 2, 4), 2),
        ),
        _draw_cache_bytes,
        presets,
    )


def _draw_cache_bytes(values, texts):
    token = 2 * values["layers"] * values["kv_heads"] * values["width"] * values["bytes"]
    sequence = token * values["context"]
    rows = (("a token", token), ("a sequence", sequence), ("the batch", sequence * values["batch"]))

    def across(count):
        return 80 + 19 * math.log10(count)

    shapes = []
    for row, (name, count) in enumerate(rows):
        y = 12 + 36 * row
        shapes += [
            _text(74, y + 17, name, "end"),
            _shape("rect", x=80, y=y, width=across(count) - 80, height=24, fill=_COLOURS["pale"]),
            _text(86, y + 17, _amount(count), "start"),
        ]
    for unit, count in _UNITS:
        shapes += [_line(across(count), 122, across(count), 127), _text(across(count), 140, f"1 {unit}".rstrip("s"))]
    shapes += [
        _line(80, 122, 346, 122),
        _line(across(80e9), 6, across(80e9), 122, _COLOURS["red"], 1, stroke_dasharray="3 3"),
        _text(across(80e9), 156, "80 GB, a large graphics card", "end", _COLOURS["red"]),
        _text(213, 174, "bytes, each unit a thousand times the last", fill=_COLOURS["grey"]),
    ]
    factors = " · ".join(texts[name] for name in ("layers", "kv_heads", "width", "bytes"))
    return shapes, (
        f"A token: 2 · {factors} = {token:,} bytes. "
        f"{texts['context']} tokens: {_amount(sequence)}. Sequences: {texts['batch']}, together {_amount(rows[2][1])}."
    )


def _amount(count):
    unit, size = [(unit, size) for unit, size in _UNITS if count >= size][-1]
    return f"{count / size:.2f} {unit}"


SLIDERS = {make.__name__: make for make in (softmax_temperature, norm_eps, rope_clocks, cache_bytes)}

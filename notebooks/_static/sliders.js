/* The sliders of the lessons: minillama/lessons/sliders.py, whose pictures these functions draw anew. SLIDERS, what that
   module says of them, stands in each page (conf.py). */
(() => {
  const NAMESPACE = "http://www.w3.org/2000/svg", WIDTH = 360;
  const COLOURS = { blue: "#0072B2", orange: "#E69F00", red: "#D55E00", grey: "#666666", pale: "#d6e8f3" };

  function shape(tag, attributes, text) {
    const made = document.createElementNS(NAMESPACE, tag);
    for (const [name, value] of Object.entries(attributes)) {
      made.setAttribute(name, typeof value === "number" ? value.toFixed(2) : value);
    }
    if (text !== undefined) made.textContent = text;
    return made;
  }
  const line = (x1, y1, x2, y2, stroke = COLOURS.grey, width = 1, dashes) =>
    shape("line", { x1, y1, x2, y2, stroke, "stroke-width": width, ...(dashes && { "stroke-dasharray": dashes }) });
  const text = (x, y, written, anchor = "middle", fill = "black") =>
    shape("text", { x, y, "text-anchor": anchor, fill }, written);
  const grouped = (number, decimals = 0) =>
    number.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  const range = (n) => Array.from({ length: n }, (_, i) => i);

  const DRAW = {
    softmax_temperature({ temperature }, texts) {
      const words = [["mat", 2.5], ["sofa", 2.0], ["floor", 1.0], ["roof", 0.0], ["moon", -1.5]];
      const weights = words.map(([, score]) => Math.exp((score - words[0][1]) / temperature));  // mat has the largest
      const total = weights.reduce((a, b) => a + b, 0);
      const p = weights.map((weight) => weight / total);
      const shapes = words.flatMap(([word, score], row) => {
        const y = 10 + 32 * row;
        return [
          text(92, y + 16, `${word} (z = ${score.toFixed(1)})`, "end"),
          shape("rect", { x: 100, y, width: 200 * p[row], height: 22, fill: COLOURS.blue }),
          text(106 + 200 * p[row], y + 16, p[row].toFixed(3), "start"),
        ];
      });
      shapes.push(text(200, 184, "probability p = softmax(z / τ)", "middle", COLOURS.grey));
      const entropy = -p.reduce((sum, share) => sum + (share > 0 ? share * Math.log(share) : 0), 0);
      return [shapes,
        `Temperature ${texts.temperature}: mat has the probability ${p[0].toFixed(3)}, moon ${p[4].toFixed(3)}. ` +
        `The entropy is ${entropy.toFixed(3)} nats, of at most ${Math.log(p.length).toFixed(3)}.`];
    },

    rope_clocks({ base, position, pair }, texts) {
      const shapes = range(8).flatMap((i) => {
        const x = 45 + 90 * (i % 4), y = 46 + 118 * Math.floor(i / 4), angle = position * base ** (-2 * i / 16);
        const colour = i === pair ? COLOURS.red : COLOURS.blue;
        return [
          shape("circle", { cx: x, cy: y, r: 38, fill: "white", stroke: colour, "stroke-width": i === pair ? 2 : 1 }),
          line(x, y, x + 38, y, COLOURS.grey, 1, "2 3"),
          line(x, y, x + 34 * Math.cos(angle), y - 34 * Math.sin(angle), colour, 3),
          text(x, y + 54, `pair ${i}`, "middle", colour),
          text(x, y + 68, `${(angle / (2 * Math.PI)).toFixed(3)} turns`, "middle", colour),
        ];
      });
      const speed = base ** (-2 * pair / 16);
      return [shapes,
        `Pair ${texts.pair} with the base ${texts.base} turns by ω = ${speed.toFixed(6)} radians a position, once in ` +
        `${grouped(2 * Math.PI / speed, 1)} positions. At position ${texts.position} it has turned by ` +
        `${(position * speed).toFixed(4)} radians.`];
    },

    norm_eps({ eps, size }, texts) {
      const across = (x) => 45 + 30 * (Math.log10(x) + 8), up = (y) => 175 - 140 * y;
      const out = (x) => x / Math.sqrt(x * x + eps);
      const shapes = [line(45, 175, 345, 175), line(45, 175, 45, 25)];
      for (const power of [-8, -6, -4, -2, 0, 2]) {
        const x = across(10 ** power);
        shapes.push(line(x, 175, x, 179), text(x, 193, `1e${power}`));
      }
      for (const y of [0, 0.5, 1]) {
        shapes.push(line(41, up(y), 45, up(y)), text(37, up(y) + 4, y.toFixed(1), "end"));
      }
      const points = range(101).map((k) => `${(45 + 3 * k).toFixed(2)},${up(out(10 ** (k / 10 - 8))).toFixed(2)}`);
      shapes.push(shape("polyline", { points: points.join(" "), fill: "none", stroke: COLOURS.blue, "stroke-width": 2 }));
      if (eps > 0) {
        const root = across(Math.sqrt(eps));
        shapes.push(line(root, 175, root, up(out(Math.sqrt(eps))), COLOURS.grey, 1, "3 3"));
        shapes.push(text(root + 4, 168, "√ε", "start", COLOURS.grey));
      }
      shapes.push(
        shape("circle", { cx: across(size), cy: up(out(size)), r: 5, fill: COLOURS.red }),
        text(195, 212, "size of x (root mean square)", "middle", COLOURS.grey),
        text(45, 15, "size of y", "start", COLOURS.grey));
      return [shapes, `With eps = ${texts.eps} an x of size ${texts.size} gives a y of size ${out(size).toFixed(4)}.`];
    },

    cache_bytes({ layers, kv_heads, width, context, batch, bytes }, texts) {
      const UNITS = [["bytes", 1], ["kB", 1e3], ["MB", 1e6], ["GB", 1e9], ["TB", 1e12]];
      const amount = (count) => {
        const [unit, size] = UNITS.filter(([, size]) => count >= size).pop();
        return `${(count / size).toFixed(2)} ${unit}`;
      };
      const token = 2 * layers * kv_heads * width * bytes, sequence = token * context, all = sequence * batch;
      const across = (count) => 80 + 19 * Math.log10(count);
      const shapes = [["a token", token], ["a sequence", sequence], ["the batch", all]].flatMap(([name, count], row) => {
        const y = 12 + 36 * row;
        return [
          text(74, y + 17, name, "end"),
          shape("rect", { x: 80, y, width: across(count) - 80, height: 24, fill: COLOURS.pale }),
          text(86, y + 17, amount(count), "start"),
        ];
      });
      for (const [unit, count] of UNITS) {
        shapes.push(line(across(count), 122, across(count), 127));
        shapes.push(text(across(count), 140, `1 ${unit}`.replace(/s$/, "")));
      }
      shapes.push(
        line(80, 122, 346, 122),
        line(across(80e9), 6, across(80e9), 122, COLOURS.red, 1, "3 3"),
        text(across(80e9), 156, "80 GB, a large graphics card", "end", COLOURS.red),
        text(213, 174, "bytes, each unit a thousand times the last", "middle", COLOURS.grey));
      return [shapes,
        `A token: 2 · ${texts.layers} · ${texts.kv_heads} · ${texts.width} · ${texts.bytes} = ${grouped(token)} bytes. ` +
        `${texts.context} tokens: ${amount(sequence)}. Sequences: ${texts.batch}, together ${amount(all)}.`];
    },
  };

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  /* In the place of the kept picture: the sliders, the picture, and its words, which a screen reader says as they change. */
  function alive(name, kept) {
    const { title, height, controls, presets, own } = SLIDERS[name];
    const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img" });
    const words = element("output", { className: "slider-words" });
    const handles = controls.map(({ name, label, options, start }) => {
      const shown = element("span", { className: "slider-value", ariaHidden: "true" });  // it is the input's valuetext
      const input = element("input", { type: "range", name, min: 0, max: options.length - 1, step: 1, value: start });
      input.addEventListener("input", redraw);
      return { name, options, shown, input, row: element("label", {}, element("span", {}, label), input, shown) };
    });

    function redraw() {
      const values = {}, texts = {};
      for (const { name, options, shown, input } of handles) {
        [texts[name], values[name]] = options[input.value];
        shown.textContent = texts[name];
        input.setAttribute("aria-valuetext", texts[name]);
      }
      const same = presets.findIndex(({ indices }) => handles.every(({ name, input }) =>
        !(name in indices) || Number(input.value) === indices[name]));
      menu.selectedIndex = same < 0 ? presets.length : same;
      const [shapes, said] = DRAW[name](values, texts);
      svg.replaceChildren(shape("title", {}, title), ...shapes);
      words.textContent = said;
    }

    const rows = handles.map(({ row }) => row);
    const labels = [...presets.map(({ label }) => label), own];
    const menu = element("select", {}, ...labels.map((label) => element("option", {}, label)));
    menu.addEventListener("change", () => {
      const chosen = menu.selectedIndex < presets.length ? presets[menu.selectedIndex].indices : {};
      for (const { name, input } of handles) if (name in chosen) input.value = chosen[name];
      redraw();
    });
    if (presets.length) rows.unshift(element("label", {}, element("span", {}, "shape of"), menu));
    redraw();
    const figure = element("figure", { className: "slider" }, ...rows, svg, words);
    figure.dataset.slider = name;
    kept.replaceWith(figure);
  }

  for (const cell of document.querySelectorAll("div.cell.tag_slider")) {
    const [, name] = cell.querySelector(".cell_input").textContent.match(/sliders\.(\w+)\(/);
    alive(name, cell.querySelector(".cell_output img"));
  }
})();

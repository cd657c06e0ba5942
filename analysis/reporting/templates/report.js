// The report's script: theme, tables that sort, long tables that draw what is in view, the chart of all measurements,
// pinned runs. It reads #page-json (analysis/reporting/page_data.py) and writes no number of its own but along the axes.
"use strict";
(function () {
  const data = JSON.parse(document.getElementById("page-json").textContent);
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);

  function element(tag, attributes, children) {
    const node = document.createElement(tag);
    return filled(node, attributes, children);
  }
  function drawn(tag, attributes, children) {
    return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  }
  function filled(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    node.append(...(children || []));
    return node;
  }

  // --- theme
  const theme = byId("theme");
  theme.hidden = false;
  function named() { theme.textContent = root.dataset.theme === "dark" ? "Light" : "Dark"; }
  theme.addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("tokenlaw-theme", root.dataset.theme); } catch (error) { /* a page from a file may keep nothing */ }
    named();
  });
  named();

  // --- the answer as a file, also of a page that was mailed alone
  const answer = new Blob([byId("answer-json").textContent], { type: "application/json" });
  byId("download").href = URL.createObjectURL(answer);

  // --- what a cell is worth for sorting: the first number in it, with its power of ten or its unit, else its text
  const UNITS = { k: 1e3, M: 1e6, G: 1e9, B: 1e9 };
  const NUMBER = /^[<>≤≥]?\s*([+\-−]?[\d,]*\.?\d+)(?:\s*×\s*10([−-]?\d+)|e([−-]?\d+))?([kMGB])?(?![\w-])/;
  function worth(text) {
    const plain = text.trim().replace(/\u00a0/g, " ");
    const found = NUMBER.exec(plain);
    if (!found) return plain === "–" || plain === "" ? null : plain.toLowerCase();
    const power = (found[2] || found[3] || "0").replace("−", "-");
    const value = Number(found[1].replace(/,/g, "").replace("−", "-")) * 10 ** Number(power) * (UNITS[found[4]] || 1);
    // "< 1" is below 1 and "> 99" above 99.
    return value * (plain[0] === "<" ? 0.999 : plain[0] === ">" ? 1.001 : 1);
  }
  // Missing values last in both directions; numbers before texts.
  function compared(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * (a < b ? -1 : a > b ? 1 : 0);
  }
  function nextDirection(heads, index) {
    const sign = heads[index].getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((head, i) => {
      if (i === index) head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    return sign;
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    if (body.rows.length < 2) continue;
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, i) => {
      const button = element("button", { type: "button" }, [...head.childNodes]);
      head.append(button);
      button.addEventListener("click", () => {
        const sign = nextDirection(heads, i);
        const rows = [...body.rows].map((row) => [worth(row.cells[i].textContent), row]);
        rows.sort((a, b) => compared(a[0], b[0], sign));
        body.append(...rows.map((row) => row[1]));
      });
    });
  }

  // --- long tables: only the rows in view are in the document
  const ROW = 32, SPARE = 16;
  function grid(box) {
    const name = box.dataset.grid, { columns, rows } = data.tables[name];
    let order = rows.map((_, i) => i), shown = order;
    const body = element("tbody");
    const heads = columns.map((column) => element("th", { scope: "col" }, [element("button", { type: "button" }, [column])]));
    const table = element("table", { "aria-rowcount": rows.length + 1 }, [
      element("thead", {}, [element("tr", { "aria-rowindex": 1 }, heads)]), body,
    ]);
    box.append(table);
    let first = -1, last = -1;
    function draw(force) {
      const top = Math.floor(box.scrollTop / ROW), bottom = Math.ceil((box.scrollTop + (box.clientHeight || 416)) / ROW);
      // What is in view lies among the rows drawn: nothing to do until they have run out.
      if (!force && top >= first && Math.min(shown.length, bottom) <= last) return;
      const from = Math.max(0, top - SPARE), to = Math.min(shown.length, bottom + SPARE);
      [first, last] = [from, to];
      const lines = [];
      const gap = (count) => element("tr", { "aria-hidden": "true" }, [
        element("td", { class: "gap", colspan: columns.length, style: `height:${count * ROW}px` })]);
      if (from > 0) lines.push(gap(from));
      for (let k = from; k < to; k++) {
        const i = shown[k];
        const cells = rows[i].map((text, c) => element("td", {}, [
          c === 0 && name === "runs" ? element("button", { type: "button", "data-pin": i }, [text]) : text]));
        lines.push(element("tr", { "aria-rowindex": k + 2 }, cells));
      }
      if (to < shown.length) lines.push(gap(shown.length - to));
      body.replaceChildren(...lines);
    }
    heads.forEach((head, c) => head.firstChild.addEventListener("click", () => {
      const sign = nextDirection(heads, c);
      const keys = rows.map((row) => worth(row[c]));
      order = order.slice().sort((a, b) => compared(keys[a], keys[b], sign));
      refresh();
    }));
    let allowed = null;
    function refresh() {
      shown = allowed ? order.filter((i) => allowed[i]) : order;
      table.setAttribute("aria-rowcount", shown.length + 1);
      box.scrollTop = 0;
      draw(true);
    }
    box.addEventListener("scroll", () => draw(false), { passive: true });
    draw(true);
    return { filter(mask) { allowed = mask; refresh(); }, draw };
  }
  const grids = {};
  for (const box of document.querySelectorAll("[data-grid]")) grids[box.dataset.grid] = grid(box);

  // --- boxes wider than the screen say so
  function cues() {
    for (const box of document.querySelectorAll(".scroll, .grid")) {
      const cue = box.previousElementSibling;
      if (!cue || !cue.classList.contains("cue")) continue;
      const across = box.scrollWidth > box.clientWidth + 1, down = box.scrollHeight > box.clientHeight + 1;
      cue.textContent = across && down ? "More than fits: scroll → and ↓" : across ? "Wider than the screen: scroll sideways →" : "Longer than the box: scroll ↓";
      cue.classList.toggle("on", across || down);
    }
  }
  for (const details of document.querySelectorAll("details")) {
    details.addEventListener("toggle", () => { for (const one of Object.values(grids)) one.draw(true); cues(); });
  }
  addEventListener("resize", cues);

  // --- on paper every table is open
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => { for (const details of opened) details.open = false; });

  // --- the chart
  const points = data.points, count = points.run.length;
  const explorer = byId("explorer");
  explorer.hidden = false;
  const choices = {};
  for (const [key, axis] of Object.entries(points.axes)) choices[key] = { ...axis, metric: false };
  for (const [key, metric] of Object.entries(points.metrics)) {
    choices[key] = { ...metric, at: metric.values.map((text) => (text === null ? null : worth(text))), metric: true };
  }
  const [selectX, selectY] = [byId("axis-x"), byId("axis-y")];
  for (const [key, choice] of Object.entries(choices)) {
    selectX.append(element("option", { value: key }, [choice.label]));
    if (choice.metric) selectY.append(element("option", { value: key }, [choice.label]));
  }
  const rows = data.tables.runs.rows;
  const haystacks = rows.map((row, i) => (row.join(" ") + " " + data.names[data.series[i]]).toLowerCase());
  const hiddenSeries = new Set();
  let mask = rows.map(() => true), marks = [], current = -1;
  const MOST = 3000, MOST_LINES = 400;
  const W = 900, L = 64, R = 14, T = 14;
  const SHAPES = [
    (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`,
    (x, y, r) => `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
    (x, y, r) => `M${x} ${y - r * 1.25}l${r * 1.2} ${r * 2.1}h${-2.4 * r}z`,
    (x, y, r) => `M${x} ${y - r * 1.35}l${r * 1.35} ${r * 1.35}l${-r * 1.35} ${r * 1.35}l${-r * 1.35} ${-r * 1.35}z`,
  ];
  const colour = (series) => (data.names.length > 8 ? `var(--rest)` : `var(--s${series})`);

  function axis(values) {
    const low = Math.min(...values), high = Math.max(...values), log = low > 0 && high / low > 1.5;
    const to = log ? Math.log10 : (v) => v;
    let [a, b] = [to(low), to(high)];
    const room = (b - a || Math.abs(a) || 1) * 0.05;
    [a, b] = [a - room, b + room];
    const ticks = [];
    if (log) {
      const wide = b - a, steps = wide > 4 ? [1] : wide > 1.4 ? [1, 3] : wide > 0.8 ? [1, 2, 5] : wide > 0.35 ? [1, 1.5, 2, 3, 4, 5, 7] : [1, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2, 2.25, 2.5, 2.75, 3, 3.5, 4, 4.5, 5, 5.5, 6, 7, 8, 9];
      for (let e = Math.floor(a); e <= Math.ceil(b); e++) for (const m of steps) ticks.push(m * 10 ** e);
    } else {
      const raw = (b - a) / 5, unit = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find((m) => m * unit >= raw) * unit;
      for (let v = Math.ceil(a / step) * step; v <= b; v += step) ticks.push(Math.abs(v) < step / 1e6 ? 0 : v);
    }
    return { place: (v) => (to(v) - a) / (b - a), ticks: ticks.filter((v) => to(v) >= a && to(v) <= b) };
  }
  const SUPER = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  function tick(value, key) {
    if (key === "images" || key === "step") {
      for (const [unit, size] of [["M", 1e6], ["k", 1e3]]) if (value >= size) return `${Number((value / size).toPrecision(3))}${unit}`;
    }
    const size = Math.abs(value);
    if (value !== 0 && (size >= 1e5 || size < 1e-3)) {
      const e = Math.floor(Math.log10(size) + 1e-9), m = Number((value / 10 ** e).toPrecision(2));
      return `${m === 1 ? "" : `${m}·`}10${[...String(e)].map((c) => SUPER[c]).join("")}`;
    }
    return String(Number(value.toPrecision(3)));
  }

  function visible(i) { return mask[points.run[i]] && !hiddenSeries.has(data.series[points.run[i]]); }

  function chart() {
    if (!selectY.options.length) return;
    const X = choices[selectX.value], Y = choices[selectY.value], box = byId("chart");
    const all = [];
    for (let i = 0; i < count; i++) if (visible(i) && X.at[i] !== null && Y.at[i] !== null) all.push(i);
    let kept = all;
    if (all.length > MOST) {
      // Evenly along y, so that both extremes stay.
      const sorted = all.slice().sort((a, b) => Y.at[a] - Y.at[b]);
      kept = Array.from({ length: MOST }, (_, k) => sorted[Math.round((k * (sorted.length - 1)) / (MOST - 1))]);
    }
    current = -1;
    hideTip();
    const told = all.length > MOST ? `${MOST.toLocaleString("en")} of ${all.length.toLocaleString("en")} measurements drawn, evenly along the vertical axis; a filter shows all of fewer runs. All are in the data.` : `${all.length.toLocaleString("en")} measurements drawn.`;
    const runs = mask.filter(Boolean).length;
    byId("counts").textContent = `${runs.toLocaleString("en")} of ${rows.length.toLocaleString("en")} runs. ${told}`;
    if (!kept.length) {
      marks = [];
      box.replaceChildren(element("p", { class: "note" }, ["No measurement has both of these; choose other axes or runs."]));
      return;
    }
    const narrow = box.clientWidth > 0 && box.clientWidth < 560, scale = narrow ? 2 : 1;
    const H = narrow ? 640 : 430, B = narrow ? 78 : 46;
    const ax = axis(kept.map((i) => X.at[i])), ay = axis(kept.map((i) => Y.at[i]));
    const px = (v) => L + ax.place(v) * (W - L - R), py = (v) => H - B - ay.place(v) * (H - T - B);
    const label = `${Y.label} against ${X.label}, ${kept.length} measurements. Arrow keys move between points, Enter keeps a run.`;
    const svg = drawn("svg", { viewBox: `0 0 ${W} ${H}`, tabindex: 0, role: "application", "aria-label": label });
    const frame = drawn("g", { "aria-hidden": "true" });
    const size = narrow ? "font-size:24px" : "";
    let lastX = -1e9;
    for (const v of ax.ticks) {
      const x = px(v);
      frame.append(drawn("line", { class: "grid-line", x1: x, x2: x, y1: T, y2: H - B }));
      if (x - lastX < (narrow ? 130 : 62)) continue;
      lastX = x;
      frame.append(drawn("text", { x, y: H - B + (narrow ? 26 : 16), "text-anchor": "middle", style: size }, [tick(v, selectX.value)]));
    }
    let lastY = 1e9;
    for (const v of ay.ticks) {
      const y = py(v);
      frame.append(drawn("line", { class: "grid-line", x1: L, x2: W - R, y1: y, y2: y }));
      if (lastY - y < (narrow ? 34 : 18)) continue;
      lastY = y;
      frame.append(drawn("text", { x: L - 6, y: y + 4, "text-anchor": "end", style: narrow ? "font-size:20px" : "" }, [tick(v, selectY.value)]));
    }
    frame.append(drawn("text", { x: (L + W - R) / 2, y: H - (narrow ? 14 : 6), "text-anchor": "middle", style: narrow ? "font-size:22px" : "font-size:13px" }, [X.label]));
    svg.append(frame);
    if (!X.metric && kept.length === all.length) {
      const lines = new Map();
      for (const i of kept) lines.set(points.run[i], [...(lines.get(points.run[i]) || []), i]);
      if (lines.size <= MOST_LINES) for (const [run, line] of lines) {
        if (line.length < 2) continue;
        line.sort((a, b) => X.at[a] - X.at[b]);
        svg.append(drawn("polyline", { class: "run-line", stroke: colour(data.series[run]), points: line.map((i) => `${px(X.at[i])},${py(Y.at[i])}`).join(" ") }));
      }
    }
    marks = kept.map((i) => ({ i, x: px(X.at[i]), y: py(Y.at[i]) })).sort((a, b) => a.x - b.x || b.y - a.y);
    const radius = (marks.length > 800 ? 2.6 : 4.4) * scale;
    for (const mark of marks) {
      const run = points.run[mark.i];
      const d = SHAPES[data.marks[run] % SHAPES.length](mark.x, mark.y, radius);
      svg.append(drawn("path", { class: "mark", d, fill: colour(data.series[run]), "data-run": data.ids[run] }));
    }
    const ring = drawn("circle", { class: "ring", r: radius * 1.9, visibility: "hidden" });
    svg.append(ring);
    const tip = element("div", { class: "tip", role: "status" });
    tip.hidden = true;
    const head = element("p", { class: "note", style: "margin:.2rem 0" }, [`↑ ${Y.label}${Y.meaning ? `: ${Y.meaning}` : ""}`]);
    box.replaceChildren(head, svg, tip);
    svg.addEventListener("pointermove", (event) => show(nearest(event)));
    svg.addEventListener("pointerleave", hideTip);
    svg.addEventListener("click", (event) => { const k = nearest(event); if (k >= 0) { show(k); pin(points.run[marks[k].i]); } });
    svg.addEventListener("blur", hideTip);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (step && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
        // To the next point up or down.
        const upwards = marks.map((_, k) => k).sort((a, b) => marks[b].y - marks[a].y);
        const at = upwards.indexOf(current);
        show(upwards[Math.max(0, Math.min(upwards.length - 1, at < 0 ? 0 : at + step))]);
      } else if (step) show(Math.max(0, Math.min(marks.length - 1, current < 0 ? 0 : current + step)));
      else if (event.key === "Enter" && current >= 0) pin(points.run[marks[current].i]);
      else if (event.key === "Escape") hideTip();
      else return;
      event.preventDefault();
    });
    function nearest(event) {
      const area = svg.getBoundingClientRect(), k = W / area.width;
      const x = (event.clientX - area.left) * k, y = (event.clientY - area.top) * k;
      let best = -1, least = (24 * k) ** 2;
      marks.forEach((mark, index) => {
        const d = (mark.x - x) ** 2 + (mark.y - y) ** 2;
        if (d < least) [best, least] = [index, d];
      });
      return best;
    }
    function show(index) {
      if (index < 0) { hideTip(); return; }
      current = index;
      const mark = marks[index], run = points.run[mark.i];
      ring.setAttribute("cx", mark.x); ring.setAttribute("cy", mark.y); ring.setAttribute("visibility", "visible");
      const lines = [[X, selectX.value], [Y, selectY.value]].map(([choice]) => `${choice.label} ${choice.values[mark.i]}`);
      for (const [key, choice] of Object.entries(points.axes)) if (key !== selectX.value && choice.values[mark.i] !== null) lines.push(`${choice.label} ${choice.values[mark.i]}`);
      tip.replaceChildren(element("b", {}, [rows[run][0]]), ...lines.map((line) => element("div", {}, [line])));
      tip.hidden = false;
      const area = svg.getBoundingClientRect(), outer = box.getBoundingClientRect(), k = area.width / W;
      const left = mark.x * k + 14, top = mark.y * k + (area.top - outer.top) + 12;
      tip.style.left = `${Math.max(0, Math.min(left, outer.width - tip.offsetWidth - 2))}px`;
      tip.style.top = `${top + tip.offsetHeight > outer.height ? Math.max(0, top - tip.offsetHeight - 24) : top}px`;
    }
  }
  function hideTip() {
    const tip = document.querySelector("#chart .tip"), ring = document.querySelector("#chart .ring");
    if (tip) tip.hidden = true;
    if (ring) ring.setAttribute("visibility", "hidden");
    current = -1;
  }

  // --- runs that a reader keeps
  const pinned = [];
  function pin(run) {
    const at = pinned.indexOf(run);
    if (at >= 0) pinned.splice(at, 1);
    pinned.push(run);
    if (pinned.length > 3) pinned.shift();
    byId("pins").replaceChildren(...pinned.map(card));
  }
  function card(run) {
    const id = data.ids[run], { columns } = data.tables.runs;
    const close = element("button", { type: "button", style: "float:right", "aria-label": `Close ${rows[run][0]}` }, ["Close"]);
    close.addEventListener("click", () => { pinned.splice(pinned.indexOf(run), 1); byId("pins").replaceChildren(...pinned.map(card)); });
    const facts = columns.slice(1).flatMap((column, c) => rows[run][c + 1] === "–" || rows[run][c + 1] === "" ? [] : [
      element("dt", {}, [column]), element("dd", {}, [rows[run][c + 1]])]);
    const box = element("section", { class: "pin", "aria-label": `Run ${rows[run][0]}`, "data-run": id }, [close, element("h3", {}, [rows[run][0]]), element("dl", {}, facts)]);
    const mine = [];
    for (let i = 0; i < count; i++) if (points.run[i] === run) mine.push(i);
    const along = ["path_flops", "images", "step"].filter((key) => points.axes[key] && mine.some((i) => points.axes[key].values[i] !== null)).slice(0, 2);
    const metrics = Object.keys(points.metrics).filter((key) => mine.some((i) => points.metrics[key].values[i] !== null)).slice(0, 4);
    if (mine.length && metrics.length) {
      const heads = [...along.map((key) => points.axes[key].label), ...metrics.map((key) => points.metrics[key].label)];
      const lines = mine.map((i) => [...along.map((key) => points.axes[key].values[i]), ...metrics.map((key) => points.metrics[key].values[i])]);
      box.append(element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Measurements" }, [element("table", {}, [
        element("thead", {}, [element("tr", {}, heads.map((text) => element("th", { scope: "col" }, [text])))]),
        element("tbody", {}, lines.map((line) => element("tr", {}, line.map((text) => element("td", {}, [text === null ? "–" : text]))))),
      ])]));
      box.lastChild.before(element("p", { class: "cue" }, ["Wider than the screen: scroll sideways →"]));
    }
    const curve = data.curves[run];
    if (curve) box.append(spark(curve));
    const shown = [...document.querySelectorAll(`img[data-run="${CSS.escape(id)}"]`)].filter((image) => !image.closest(".pin"));
    for (const image of shown) box.append(element("img", { src: image.src, alt: image.alt }));
    for (const content of data.samples[id] || []) box.append(element("img", { src: "data:image/png;base64," + content, alt: `Picture of ${rows[run][0]}` }));
    setTimeout(cues, 0);
    return box;
  }
  function spark(curve) {
    const ax = axis(curve.at), ay = axis(curve.values), w = 300, h = 110;
    const line = curve.at.map((v, i) => `${4 + ax.place(v) * (w - 8)},${h - 18 - ay.place(curve.values[i]) * (h - 34)}`).join(" ");
    const words = `${curve.term}: ${curve.last[1]} at ${curve.last[0]} ${curve.along.replace("training ", "")}`;
    return drawn("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": `Curve, ${words}` }, [
      drawn("polyline", { points: line, fill: "none", stroke: "var(--accent)", "stroke-width": 1.5 }),
      drawn("text", { x: 4, y: h - 4 }, [words]),
    ]);
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-pin]");
    if (!button) return;
    pin(Number(button.dataset.pin));
    byId("pins").lastElementChild.scrollIntoView({ block: "nearest" });
  });

  // --- which series, which runs, which axes
  const present = data.names.map((_, s) => s).filter((s) => points.run.some((run) => data.series[run] === s));
  if (present.length > 1 && data.names.length <= 8) for (const s of present) {
    const button = element("button", { type: "button", "aria-pressed": "true" }, [element("i", { style: `background:${colour(s)}` }), data.names[s]]);
    button.addEventListener("click", () => {
      if (hiddenSeries.has(s)) hiddenSeries.delete(s); else hiddenSeries.add(s);
      button.setAttribute("aria-pressed", String(!hiddenSeries.has(s)));
      chart();
    });
    byId("legend").append(button);
  }
  if (data.names.length > 8) byId("legend").append(element("span", { class: "note" }, [`${data.names.length} kinds of runs are more than colours tell apart: filter by name.`]));
  if (data.sizes.length > 1) byId("legend").append(element("span", { class: "note" }, [`Marks: ${data.sizes.map((size, i) => `${["●", "■", "▲", "◆"][i % 4]} ${size}`).join("  ")}`]));
  let waiting = 0;
  byId("filter").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      mask = haystacks.map((text) => words.every((word) => text.includes(word)));
      grids.runs.filter(mask);
      chart();
    }, rows.length > 1000 ? 150 : 0);
  });
  for (const select of [selectX, selectY]) select.addEventListener("change", chart);
  if (selectY.options.length) chart();
  else byId("chart").append(element("p", { class: "note" }, ["Nothing was measured yet."]));
  addEventListener("resize", chart);
  cues();
})();

// One interactive figure: sliders and menus that choose among drawn frames. The same file runs
// on the static page (views.js gives it a model read from the page, and a `page`: what a figure has
// there only, see the end of `render`) and in JupyterLab, Binder and Colab (anywidget gives it a
// model whose `send` reaches Python).

let serial = 0;

// JupyterLab takes the arrow keys for itself, except where this stands
const OURS = { "data-lm-suppress-shortcuts": "" };

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function render({ model, el, page }) {
  const controls = model.get("controls");
  const chunks = model.get("chunks");
  const frames = model.get("frames");
  const texts = model.get("texts");
  const position = [...model.get("start")];
  let timer = null; // of the play button, while it plays
  let button = null;
  const id = `ntk-explorer-${++serial}`;

  const text = element("figcaption", { class: "ntk-text", id: `${id}-text`, "aria-live": "polite" });
  const picture = element("div", { class: "ntk-picture", role: "img", "aria-labelledby": text.id });
  const panel = element("div", { class: "ntk-controls" });
  const said = element("span", { class: "ntk-said", role: "status" });
  const tools = element("div", { class: "ntk-tools" }, said);
  const figure = element("figure", { class: "ntk-explorer" }, picture, panel, tools, text);
  const title = model.get("name");
  if (title) figure.dataset.name = title;
  let shown = {}; // the values of the frame that is seen

  function show(svg, sentence) {
    picture.innerHTML = svg;
    if (text.textContent !== sentence) text.textContent = sentence;
  }

  const chosen = () => Object.fromEntries(controls.map((c, i) => [c.name, c.values[position[i]]]));

  function draw() {
    let index = 0;
    controls.forEach((control, i) => (index = index * control.values.length + position[i]));
    shown = chosen();
    call();
    show(frames[index].map((i) => chunks[i]).join(""), texts[index]);
  }

  const refresh = controls.map((control, i) => {
    const name = `${id}-${control.name}`;
    const label = element("label", { for: name }, control.label);
    if (control.kind === "choice") {
      const options = control.labels.map((word, j) => element("option", { value: j }, word));
      const menu = element("select", { id: name, "data-control": control.name, ...OURS }, ...options);
      menu.addEventListener("change", () => choose(i, menu.selectedIndex));
      panel.append(element("div", { class: "ntk-control" }, label, menu));
      return () => (menu.selectedIndex = position[i]);
    }
    const last = control.values.length - 1;
    const slider = element("input", {
      type: "range", id: name, min: 0, max: last, step: 1, "data-control": control.name, ...OURS,
    });
    const longest = Math.max(...control.labels.map((word) => word.length));
    const value = element("output", { for: name, "aria-live": "off", style: `min-width:${longest}ch` });
    slider.addEventListener("input", () => choose(i, slider.valueAsNumber));
    const row = element("div", { class: "ntk-control" }, label, slider, value);
    if (!panel.querySelector(".ntk-play")) row.append(playButton(i, last, control.label));
    panel.append(row);
    return () => {
      slider.value = position[i];
      slider.setAttribute("aria-valuetext", control.labels[position[i]]);
      value.textContent = control.labels[position[i]];
    };
  });

  function choose(i, j) {
    stop();
    move(i, j);
  }

  function move(i, j) {
    position[i] = j;
    refresh[i]();
    draw();
    said.textContent = "";
    page?.moved();
  }

  // ---- play: one step every 0.9 s, from the start again if it stands at the end

  function playButton(i, last, label) {
    button = element("button", { type: "button", class: "ntk-play" });
    button.addEventListener("click", () => {
      if (timer !== null) return stop();
      if (position[i] === last) move(i, 0);
      text.setAttribute("aria-live", "off");
      timer = setInterval(() => (position[i] < last ? move(i, position[i] + 1) : stop()), 900);
      name("Stop", "■");
    });
    const name = (word, sign) => {
      button.textContent = sign;
      button.title = `${word} ${label}`;
      button.setAttribute("aria-label", button.title);
    };
    button.rest = () => name("Play", "▶");
    button.rest();
    return button;
  }

  function stop() {
    if (timer === null) return;
    clearInterval(timer);
    timer = null;
    button.rest();
    text.setAttribute("aria-live", "polite");
  }

  // ---- any value: opened only when Python answers

  let question = 0;
  let asked = null;
  let message = null;

  function openLive() {
    if (message) return;
    message = element("span", { class: "ntk-message", role: "status" });
    const form = element("form", { class: "ntk-live" });
    const fields = model.get("live").map((bound) => {
      const i = controls.findIndex((control) => control.name === bound.name);
      const start = i < 0 ? bound.default : controls[i].values[position[i]];
      const field = element("input", {
        type: "number", id: `${id}-any-${bound.name}`, min: bound.low, max: bound.high,
        step: bound.integer ? 1 : "any", value: start, required: "", "data-live": bound.name,
      });
      // JupyterLab keeps Enter from sending a form
      field.addEventListener("keydown", (event) => {
        if (event.key !== "Enter") return;
        event.preventDefault();
        form.requestSubmit();
      });
      form.append(
        element("label", { for: field.id }, `any ${bound.label}`), field,
      );
      return [bound.name, field];
    });
    form.append(element("button", { type: "submit" }, "Draw"), message);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      stop();
      asked = chosen();
      for (const [name, field] of fields) asked[name] = field.valueAsNumber;
      message.textContent = "computing …";
      model.send({ kind: "draw", id: ++question, values: asked });
    });
    panel.append(form);
  }

  function receive(answer) {
    if (answer.kind === "pong") openLive();
    if (answer.kind !== "frame" || answer.id !== question) return;
    message.textContent = answer.error ?? "";
    if (answer.error) return;
    show(answer.svg, answer.text);
    shown = asked;
    call();
  }

  // ---- tools: the link to this frame, full screen, the same in Python

  function tool(word, act) {
    const node = element("button", { type: "button", ...OURS }, word);
    node.addEventListener("click", act);
    return node;
  }

  const copy = (what, words, otherwise) =>
    Promise.resolve(navigator.clipboard?.writeText(words) ?? Promise.reject()).then(
      () => (said.textContent = `${what} copied`),
      () => (said.textContent = otherwise),
    );

  if (page) tools.append(tool("Copy link", () => copy("Link", page.link(), "The link is this page’s address.")));

  if (document.fullscreenEnabled) {
    const isFull = () => document.fullscreenElement === figure;
    const full = tool("Full screen", () => {
      const done = isFull() ? document.exitFullscreen() : figure.requestFullscreen();
      done.catch(() => (said.textContent = "There is no full screen here."));
    });
    figure.addEventListener("fullscreenchange", () => {
      full.textContent = isFull() ? "Leave full screen" : "Full screen";
    });
    tools.append(full);
  }

  // a value as Python writes it: JavaScript does not know 1.0 from 1
  function literal(name, value) {
    const control = controls.find((c) => c.name === name);
    const bound = model.get("live").find((b) => b.name === name);
    const listed = control?.python?.[control.values.indexOf(value)];
    if (typeof value === "string") return JSON.stringify(value);
    if (typeof value === "boolean") return value ? "True" : "False";
    return listed ?? (Number.isInteger(value) && bound && !bound.integer ? `${value}.0` : `${value}`);
  }

  const line = element("code");
  function call() {
    const given = Object.entries(shown).map(([name, value]) => `${name}=${literal(name, value)}`);
    line.textContent = `${title}(${given.join(", ")})`;
  }

  if (title) {
    const where = page?.notebook ? element("a", { href: page.notebook }, "the notebook") : "the notebook";
    const lead = element("p", {}, "This frame, in ", where, " below the figure’s cell:");
    const take = tool("Copy", () => copy("Line", line.textContent, "Nothing was copied: select it."));
    const python = element("div", { class: "ntk-python", hidden: "" }, lead, element("pre", {}, line), take);
    if (page?.source) {
      const source = element("pre", { tabindex: 0 }, element("code", {}, page.source));
      python.append(element("details", {}, element("summary", {}, "The figure’s cell"), source));
    }
    const opens = tool("Python", () => {
      python.hidden = !python.hidden;
      opens.setAttribute("aria-expanded", !python.hidden);
    });
    opens.setAttribute("aria-expanded", false);
    tools.append(opens);
    figure.append(python);
  }

  refresh.forEach((update) => update());
  draw();
  el.replaceChildren(figure);
  if (model.send && model.get("live").length) {
    model.on("msg:custom", receive);
    model.send({ kind: "ping" });
  }
  if (page) {
    page.controls = controls;
    page.position = position;
    page.say = (words) => (said.textContent = words);
    // what a link asks for: a place for each control, and names of those that it locks and hides
    page.set = (places, locked, hidden) => {
      stop();
      controls.forEach(({ name }, i) => {
        position[i] = places[i];
        refresh[i]();
        const row = panel.children[i];
        row.hidden = hidden.includes(name);
        for (const field of row.querySelectorAll("input, select, button")) field.disabled = locked.includes(name);
      });
      draw();
    };
  }
  return () => {
    stop();
    if (model.send) model.off("msg:custom", receive);
  };
}

export default { render };

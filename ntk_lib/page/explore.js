// One interactive figure: sliders and menus that choose among drawn frames. The same file runs
// on the static page (page.js gives it a model read from the page) and in JupyterLab,
// Binder and Colab (anywidget gives it a model whose `send` reaches Python).

let serial = 0;

// JupyterLab takes the arrow keys for itself, except where this stands
const OURS = { "data-lm-suppress-shortcuts": "" };

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function render({ model, el }) {
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
  const figure = element("figure", { class: "ntk-explorer" }, picture, panel, text);
  if (model.get("name")) figure.dataset.name = model.get("name");

  function show(svg, sentence) {
    picture.innerHTML = svg;
    if (text.textContent !== sentence) text.textContent = sentence;
  }

  function draw() {
    let index = 0;
    controls.forEach((control, i) => (index = index * control.values.length + position[i]));
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
    const value = element("output", { for: name });
    slider.addEventListener("input", () => choose(i, slider.valueAsNumber));
    const row = element("div", { class: "ntk-control" }, label, slider, value);
    if (!panel.querySelector(".ntk-play")) row.append(playButton(i, last, control.label));
    panel.append(row);
    return () => {
      slider.value = position[i];
      slider.setAttribute("aria-valuetext", `${control.label} ${control.labels[position[i]]}`);
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
      button.setAttribute("aria-label", `${word} ${label}`);
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
      const values = Object.fromEntries(controls.map((c, i) => [c.name, c.values[position[i]]]));
      for (const [name, field] of fields) values[name] = field.valueAsNumber;
      message.textContent = "computing …";
      model.send({ kind: "draw", id: ++question, values });
    });
    panel.append(form);
  }

  function receive(answer) {
    if (answer.kind === "pong") openLive();
    if (answer.kind !== "frame" || answer.id !== question) return;
    message.textContent = answer.error ?? "";
    if (!answer.error) show(answer.svg, answer.text);
  }

  refresh.forEach((update) => update());
  draw();
  el.replaceChildren(figure);
  if (model.send && model.get("live").length) {
    model.on("msg:custom", receive);
    model.send({ kind: "ping" });
  }
  return () => {
    stop();
    if (model.send) model.off("msg:custom", receive);
  };
}

export default { render };

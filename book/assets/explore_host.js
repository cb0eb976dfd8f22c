// The static page's kernel-less home for explorers. Sphinx embeds the widgets' state in the page;
// each figure that names a model is given that model's own module (explore.js, carried in the
// state), called as anywidget calls it. A blob is how a page opened from a file may import.
addEventListener("DOMContentLoaded", async () => {
  const holder = document.querySelector('script[type="application/vnd.jupyter.widget-state+json"]');
  if (!holder) return;
  const models = JSON.parse(holder.textContent).state;
  const code = Object.values(models).find((entry) => entry.state._esm)?.state._esm;
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const { default: widget } = await import(url);
  for (const figure of document.querySelectorAll("figure[data-explorer]")) {
    const state = models[figure.dataset.explorer]?.state;
    if (!state) continue;
    const el = document.createElement("div");
    widget.render({ model: { get: (name) => state[name] }, el });
    figure.replaceWith(el);
  }
  document.documentElement.dataset.explorers = "ready";
});

// The theme makes code that is wider than the page scroll by keyboard, looking when the page opens
// and when it is resized: let it look again when the reader unfolds something.
for (const event of ["toggle", "click"])
  addEventListener(event, () => dispatchEvent(new Event("resize")), true);

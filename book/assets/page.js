// What a page does once it has loaded: wake its explorers, and mend three habits of the theme.

const script = (address) =>
  new Promise((resolve, reject) => {
    const tag = document.createElement("script");
    tag.addEventListener("load", resolve);
    tag.addEventListener("error", reject);
    tag.src = address;
    document.head.append(tag);
  });

// Each figure that names a file of frames is given the explorers' own code (explore_page.js, made
// from ntk_lib/explore.js), called as anywidget calls it. One after the other, and after the page
// has loaded: reading does not wait for them. The file of frames calls ntkFrames with its text.
addEventListener("load", async () => {
  const figures = document.querySelectorAll("figure[data-explorer]");
  if (figures.length) await script(`${document.documentElement.dataset.content_root}_static/explore_page.js`);
  for (const figure of figures) {
    let state;
    globalThis.ntkFrames = (text) => (state = JSON.parse(text));
    await script(figure.dataset.explorer);
    const el = document.createElement("div");
    ntkExplorer.render({ model: { get: (name) => state[name] ?? [] }, el });
    figure.replaceWith(el);
  }
});

// A page opened from a file may not fetch the pages that a search found, to quote them.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// The theme makes code that is wider than the page scroll by keyboard, looking when the page opens
// and when it is resized: let it look again when the reader unfolds something.
for (const event of ["toggle", "click"])
  addEventListener(event, () => dispatchEvent(new Event("resize")), true);

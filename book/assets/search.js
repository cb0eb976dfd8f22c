// A search says what it found, and its hits open at the word.

if (document.getElementById("search-results")) {
  // A page opened from a file may not fetch the pages that a search found, to quote them.
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

  // In quotes each formula stands once, as it is seen.
  addEventListener("DOMContentLoaded", () => {
    const toText = Search.htmlToText;
    Search.htmlToText = (page, anchor) =>
      toText(page.replace(/<span class="katex-mathml">.*?<\/math><\/span>/gs, ""), anchor);
  });

  // It says of every term that it finds only "Glossary", and of a theorem its name alone: they are
  // named as headings are. The index knows terms without capitals, the address of the place without
  // spaces; kinds and numbers of theorems come with the page (book/extension/previews.py).
  const kinds = JSON.parse(document.getElementById("search-kinds")?.textContent ?? "{}");
  const term = (place) => {
    const entries = Object.entries(Search._index.indexentries);
    const [name] = entries.find(([, places]) => places.some(([, id]) => id === place));
    const written = place.slice("term-".length);
    return name.length === written.length ? name.replace(/\S/g, (_, i) => written[i]) : name;
  };
  const named = ({ addedNodes }) => {
    for (const link of [...addedNodes].flatMap((node) => [...(node.querySelectorAll?.("a[href*='#']") ?? [])])) {
      const place = decodeURIComponent(link.hash.slice(1));
      if (place.startsWith("term-")) link.textContent += ` > ${term(place)}`;
      if (kinds[place]) link.textContent = link.textContent.replace(/ > +(?=\()/, ` > ${kinds[place]} `);
    }
  };
  const results = document.getElementById("search-results");
  new MutationObserver((changes) => changes.forEach(named)).observe(results, { childList: true, subtree: true });
}

// A hit without a place on its page opens where its words stand side by side, or in one part of the
// text, or at the first of them: not in a fold, if there is another. Sphinx marks the words 10 ms
// after its own script.
addEventListener("DOMContentLoaded", () =>
  setTimeout(() => {
    if (location.hash.length > 1) return;
    const all = [...document.querySelectorAll("article .highlighted")].filter((mark) => !mark.closest(".katex-mathml"));
    const open = all.filter((mark) => !mark.closest("details:not([open]), .toggle-hidden"));
    const words = [...new Set(all.map((mark) => mark.textContent.toLowerCase()))];
    const full = (mark) => {
      const text = mark.closest("p, li, dt, dd, td, h1, h2, h3, figcaption")?.textContent.toLowerCase() ?? "";
      return words.every((word) => text.includes(word));
    };
    const next = (mark) => {
      const [space, after] = [mark.nextSibling, mark.nextSibling?.nextSibling];
      return space?.data?.trim() === "" && after?.matches?.(".highlighted") ? after : null;
    };
    const phrase = (mark) => words.slice(1).reduce((last) => last && next(last), mark);
    const found = open.find(phrase) ?? open.find(full) ?? open[0] ?? all[0];
    const fold = found?.closest("details");
    if (fold) fold.open = true;
    if (found) hold(() => found.scrollIntoView({ behavior: "instant", block: "center" }));
  }, 10),
);

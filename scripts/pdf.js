// Makes one document of the articles of all pages, and fits it to the width of the sheet. Runs
// inside the page, by Playwright: the document itself has no scripts. Returns what is to be checked.

async (sheet) => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const name = (page, id) => (id ? `${page}--${id}` : page);
  const pages = all("article[id]").map((article) => article.id);

  // ---- ids are unique on a page, not in the book
  const REFERS = ["aria-labelledby", "aria-describedby", "aria-controls", "for"];
  for (const article of all("article[id]")) {
    const page = article.id;
    for (const node of all("*", article)) {
      for (const { name: attribute, value } of [...node.attributes]) {
        if (attribute === "id") node.id = name(page, value);
        else if (REFERS.includes(attribute))
          node.setAttribute(attribute, value.split(/\s+/).map((id) => name(page, id)).join(" "));
        else if (value.includes("url(#"))
          node.setAttribute(attribute, value.replaceAll("url(#", `url(#${page}--`));
        else if (attribute === "xlink:href" || (attribute === "href" && node.tagName !== "A"))
          node.setAttribute(attribute, value.replace(/^#/, `#${page}--`));
      }
    }
  }

  // ---- links: into the book, out of it, or to a file that the PDF does not have
  for (const article of all("article[id]")) {
    for (const link of all("a[href]", article)) {
      const href = link.getAttribute("href");
      const [, path, fragment] = /^([^#]*)#?(.*)$/.exec(href);
      const page = path === "" ? article.id : path.replace(/\.html$/, "");
      if (/^(https?|mailto):/.test(href)) continue;
      if (href === "#" || (path !== "" && !pages.includes(page))) {
        link.replaceWith(...link.childNodes);
        continue;
      }
      // a link to a frame leads to its figure, which stands at the first
      link.setAttribute("href", `#${name(page, decodeURIComponent(fragment).split("?")[0])}`);
      link.removeAttribute("title"); // of citations: the entry stands in the bibliography
    }
  }
  const counted = {
    explorers: all("article figure[data-explorer]").length,
    folded: all("article .solution, article .sd-dropdown").length,
  };

  // ---- what only a screen can use; what is folded
  const useless = ".d-print-none, .headerlink, .toctree-wrapper, .sd-summary-state-marker, .katex-mathml";
  all(`script, button, ${useless}`).forEach((node) => node.remove());
  all("details").forEach((node) => (node.open = true));

  // ---- contents
  const contents = document.querySelector(".pdf-contents ul");
  const entry = (kind, heading, id) => {
    const words = document.createElement("span");
    words.append(...[...heading.childNodes].map((node) => node.cloneNode(true)));
    const number = document.createElement("span");
    number.className = "number";
    const link = document.createElement("a");
    link.href = `#${id}`;
    link.append(words, number);
    const item = document.createElement("li");
    item.className = kind;
    item.append(link);
    return item;
  };
  for (const article of all("article[id]")) {
    const part = article.querySelector(":scope > .part");
    if (part) {
      const item = document.createElement("li");
      item.className = "part";
      item.textContent = part.textContent;
      contents.append(item);
    }
    contents.append(entry("chapter", article.querySelector("h1"), article.id));
    for (const heading of all("section > h2", article))
      contents.append(entry("section", heading, heading.parentElement.id));
  }
  const ids = new Set(all("[id]").map((node) => node.id));
  const unresolved = all("a[href^='#']")
    .map((link) => link.getAttribute("href"))
    .filter((href) => !ids.has(href.slice(1)));

  // ---- a token of code in the colour of its line needs no element: a quarter of the file's size
  const look = (node) => {
    const { color, fontWeight, fontStyle } = getComputedStyle(node);
    return color + fontWeight + fontStyle;
  };
  all("pre span:not(:has(*))")
    .filter((node) => look(node) === look(node.parentElement))
    .forEach((node) => node.replaceWith(...node.childNodes));
  all("pre").forEach((node) => node.normalize());

  // ---- fonts are fetched when they are first laid out
  document.body.getBoundingClientRect();
  await document.fonts.ready;

  // ---- formulas, tables and cells: measure all, then change all, so that layout runs once each
  const size = (node) => parseFloat(getComputedStyle(node).fontSize);
  const shrink = (found) => {
    const sizes = found.map(([node, ratio]) => [node, 0.995 * ratio * size(node)]);
    for (const [node, pixels] of sizes) node.style.fontSize = `${pixels.toFixed(2)}px`;
    return found.length;
  };
  const tooWide = (selector, room) =>
    all(selector)
      .map((node) => [node, room(node) / node.scrollWidth])
      .filter(([, ratio]) => ratio < 1);
  const formulas = tooWide(".katex-display > .katex", (node) => node.clientWidth);
  let shrunk = shrink(formulas);
  const tables = () => tooWide("article table", (node) => node.parentElement.clientWidth);
  for (let i = 0, found = tables(); i < 5 && found.length > 0; i++, found = tables())
    shrunk += shrink(found);
  const KEPT = ".cell_input, .cell_output, .admonition, .sd-card, table";
  all(`article :is(${KEPT})`)
    .filter((node) => node.getBoundingClientRect().height < sheet.height / 5)
    .forEach((node) => node.classList.add("pdf-whole"));

  // ---- what the sheet would cut or hide
  const where = (node) => `${node.closest("article").id}: ${node.outerHTML.slice(0, 120)}`;
  const edge = document.body.getBoundingClientRect().right + 1;
  const wide = all("article *")
    .filter((node) => node.getBoundingClientRect().right > edge && !node.closest("svg"))
    .map(where);
  const SEEN = { opacityProperty: true, visibilityProperty: true, contentVisibilityAuto: true };
  const hidden = all("article :is(p, pre, figure, .katex-html)")
    .filter((node) => !node.checkVisibility(SEEN) || node.getBoundingClientRect().height === 0)
    .filter((node) => node.textContent.trim() !== "" && !node.closest("details.hide > summary"))
    .map(where);
  const unread = all("article .katex [style*='#cc0000'], article .katex-error").map(where); // by KaTeX
  return { ...counted, shrunk, unresolved, wide, hidden, unread };
}

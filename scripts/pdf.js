// Makes one document of the articles of all pages, and fits it to the width of the sheet. Runs
// inside the page, by Playwright: the document itself has no scripts. Returns what is to be checked.

async ({ pages, sheet }) => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const name = (page, id) => (id ? `${page}--${id}` : page);

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
  const unresolved = [];
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
      link.setAttribute("href", `#${name(page, decodeURIComponent(fragment))}`);
      link.removeAttribute("title"); // of citations: the entry stands in the bibliography
    }
  }
  const counted = {
    explorers: all("article figure[data-explorer]").length,
    solutions: all("article .solution, article .sd-dropdown").length,
  };

  // ---- what only a screen can use; what is folded
  const useless = ".headerlink, .toctree-wrapper, .sd-summary-state-marker, details.hide > summary";
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
  for (const link of all("a[href^='#']"))
    if (!document.getElementById(link.hash.slice(1) && decodeURIComponent(link.hash.slice(1))))
      unresolved.push(link.getAttribute("href"));

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
  const KEPT = ".cell_input, .cell_output, .admonition, .sd-card, table, pre";
  all(`article :is(${KEPT})`)
    .filter((node) => node.getBoundingClientRect().height < sheet.height / 3)
    .forEach((node) => node.classList.add("pdf-whole"));

  // ---- what the printed page would cut or hide
  const wide = [];
  const hidden = [];
  const edge = document.body.getBoundingClientRect().right + 1;
  for (const node of all("article *")) {
    if (node.closest("svg, .katex-mathml, .visually-hidden")) continue;
    const box = node.getBoundingClientRect();
    if (box.width > 0 && box.right > edge) wide.push(`${node.closest("article").id}: ${node.tagName} ${node.className} ${Math.round(box.right - edge)}`);
  }
  for (const node of all("article :is(.solution, .proof, details) :is(p, pre, .katex-html)"))
    if (!node.checkVisibility({ opacityProperty: true, visibilityProperty: true, contentVisibilityAuto: true }) || node.getBoundingClientRect().height === 0)
      hidden.push(node.outerHTML.slice(0, 100));
  return { ...counted, unresolved, wide, hidden, shrunk, titles: all("article h1").map((h) => h.textContent) };
}

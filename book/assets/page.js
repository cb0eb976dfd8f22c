// What a page does besides standing there; its figures have views.js. Some habits of the theme are mended.

const script = (address) =>
  new Promise((resolve, reject) => {
    const tag = document.createElement("script");
    tag.addEventListener("load", resolve);
    tag.addEventListener("error", reject);
    tag.src = address;
    document.head.append(tag);
  });

// Code and tables that are wider than the page scroll by keyboard, the others are no stop on the
// way. Each is measured when it is laid out: near the window, unfolded, or resized.
const measure = new ResizeObserver((entries) => {
  for (const { target } of entries) target.tabIndex = target.scrollWidth > target.clientWidth ? 0 : -1;
});
for (const node of document.querySelectorAll("pre, .pst-scrollable-table-container")) measure.observe(node);

// What is copied holds each formula once, as it is written in TeX, and whole where it was begun.
addEventListener("copy", (event) => {
  const selection = getSelection();
  if (selection.isCollapsed) return;
  const range = selection.getRangeAt(0).cloneRange();
  const formula = (node) => (node.closest ? node : node.parentNode).closest(".katex");
  const [first, last] = [formula(range.startContainer), formula(range.endContainer)];
  if (first) range.setStartBefore(first);
  if (last) range.setEndAfter(last);
  const box = document.createElement("div");
  box.append(range.cloneContents());
  const formulas = box.querySelectorAll(".katex");
  if (!formulas.length) return;
  for (const node of formulas) {
    const mark = node.closest(".katex-display") ? "$$" : "$";
    node.replaceWith(`${mark}${node.querySelector("annotation").textContent}${mark}`);
  }
  box.style = "position: fixed; left: -200vw; width: 100vw"; // laid out: lines are lines
  document.body.append(box);
  event.clipboardData.setData("text/plain", box.innerText);
  event.clipboardData.setData("text/html", box.innerHTML);
  box.remove();
  event.preventDefault();
});

// Paper is white: a page in dark colours is printed in light ones.
{
  const root = document.documentElement;
  let onScreen = null;
  addEventListener("beforeprint", () => {
    onScreen ??= root.dataset.theme;
    root.dataset.theme = "light";
  });
  addEventListener("afterprint", () => {
    if (onScreen) root.dataset.theme = onScreen;
    onScreen = null;
  });
}

// A chapter is laid out bit by bit: while the parts near the window come, what was asked for moves.
// It is brought back until they stand, or until the reader scrolls.
let frames = 0;
for (const moved of ["wheel", "touchstart", "keydown", "pointerdown"]) addEventListener(moved, () => (frames = 0), true);
const hold = (bring) => {
  const again = () => {
    bring();
    if (frames-- > 0) requestAnimationFrame(again);
  };
  frames = 30;
  again();
};

// Links into the page, and addresses that name a place in it.
const placeOf = ({ hash }) => {
  try {
    return document.getElementById(decodeURIComponent(hash.slice(1)));
  } catch {
    return null; // a hash that is not well formed names no place
  }
};
const holdTarget = () => {
  if (placeOf(location)) hold(() => placeOf(location)?.scrollIntoView({ behavior: "instant" }));
};
addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href*='#']");
  if (link && link.pathname === location.pathname && link.hash.length > 1) requestAnimationFrame(holdTarget);
});

// The theme marks an entry of "Contents" when its heading is seen near the top of the window. Where
// scrolling comes to rest the section that is read is marked, though its heading was jumped over.
{
  const links = [...document.querySelectorAll("#pst-page-toc-nav a")];
  const top = (link) => placeOf(link).getBoundingClientRect().top;
  addEventListener("scrollend", () => {
    const ended = scrollY + innerHeight >= document.documentElement.scrollHeight - 2;
    const named = links.find((link) => link.hash === location.hash && top(link) > 0 && top(link) < innerHeight);
    const read = ended ? (named ?? links.at(-1)) : links.findLast((link) => top(link) < 0.3 * innerHeight);
    for (const link of links) {
      link.classList.toggle("active", link === read);
      link.ariaCurrent = link === read ? "true" : null;
      const entry = link.closest(".toc-entry");
      entry.classList.toggle("active", entry.contains(read ?? null));
    }
  });
}

// After a reload and on the way back the same distance from the top is another place: what is kept
// is the part that stood at the top of the window.
{
  const parts = () => [...document.querySelectorAll("article section > :not(section)")];
  const key = `place ${location.pathname}`;
  addEventListener("pagehide", () => {
    const all = parts();
    const index = all.findIndex((node) => node.getBoundingClientRect().bottom > 0);
    if (index >= 0) sessionStorage.setItem(key, JSON.stringify([index, all[index].getBoundingClientRect().top]));
  });
  const [visit] = performance.getEntriesByType("navigation");
  const kept = JSON.parse(sessionStorage.getItem(key));
  if (kept && ["reload", "back_forward"].includes(visit?.type)) {
    history.scrollRestoration = "manual";
    const [index, top] = kept;
    const part = parts()[index];
    if (part) hold(() => scrollBy({ top: part.getBoundingClientRect().top - top, behavior: "instant" }));
  } else if (location.hash.length > 1) holdTarget();
}

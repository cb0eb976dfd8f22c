// A reference to an equation, a theorem, a term or a source shows what it leads to: under the mouse,
// by keyboard, or at the first tap. What a page's links lead to stands in a script of its own
// (book/extension/previews.py), asked for with the first of them: pages may not read each other.
if ("popover" in HTMLElement.prototype) {
  const box = document.createElement("div");
  Object.assign(box, { id: "preview", className: "preview", popover: "manual", role: "dialog", tabIndex: -1 });
  box.ariaLabel = "Preview";
  document.body.append(box);

  let found; // the promise of what the links lead to
  const page = location.pathname.split("/").at(-1).replace(/\.html$/, "") || "index";
  const load = () =>
    (found ??= new Promise((resolve) => {
      globalThis.ntkPreviews = resolve;
      const file = document.createElement("script");
      file.src = `${document.documentElement.dataset.content_root}_static/previews/${page}.js`;
      file.addEventListener("error", () => {
        found = undefined; // once more with the next link
        resolve({});
      });
      document.head.append(file);
    }));

  let shown, wanted, timer;
  const hide = () => {
    wanted = undefined;
    if (!shown) return;
    box.hidePopover();
    shown.removeAttribute("aria-describedby");
    shown = undefined;
  };
  const place = () => {
    if (!shown) return;
    const at = shown.getClientRects()[0];
    if (!at || at.bottom < 0 || at.top > innerHeight) return hide();
    const { width, height } = box.getBoundingClientRect();
    const below = at.bottom + 6;
    const top = below + height > innerHeight && at.top - 6 >= height ? at.top - 6 - height : below;
    box.style.left = `${Math.max(8, Math.min(at.left, document.documentElement.clientWidth - width - 8))}px`;
    box.style.top = `${Math.max(8, Math.min(top, innerHeight - height - 8))}px`;
  };
  const show = async (link, byTouch) => {
    clearTimeout(timer);
    if (link === shown) return;
    wanted = link;
    const text = (await load())[link.getAttribute("href")];
    if (link !== wanted) return;
    if (!text) {
      hide();
      return byTouch && link.click(); // a section, say
    }
    box.innerHTML = text;
    if (byTouch) box.insertAdjacentHTML("beforeend", `<p><a href="${link.getAttribute("href")}">Go there</a></p>`);
    link.title = "";
    hide();
    box.showPopover({ source: link });
    shown = link;
    link.setAttribute("aria-describedby", box.id);
    box.scrollTop = 0;
    place();
  };
  const soon = (act, ms) => {
    clearTimeout(timer);
    timer = setTimeout(act, ms);
  };
  const linkOf = ({ target }) => target.closest?.("article a.reference.internal[href*='#']:not([href*='?'])");

  addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return;
    const link = linkOf(event);
    if (link) soon(() => show(link), 200);
    else if (box.contains(event.target)) clearTimeout(timer);
    else if (shown && !shown.matches(":focus-visible") && !box.contains(document.activeElement)) soon(hide, 300);
    else if (!shown) soon(hide, 0);
  });
  addEventListener("focusin", (event) => {
    const link = linkOf(event);
    if (link?.matches(":focus-visible")) show(link);
    else if (!box.contains(event.target)) hide();
  });
  addEventListener(
    "click",
    (event) => {
      if (box.contains(event.target) && event.target.closest("a")) return hide();
      const link = linkOf(event);
      if (!link) return;
      if (event.pointerType !== "touch" || link === shown) return hide();
      event.preventDefault();
      event.stopPropagation();
      show(link, true);
    },
    true,
  );
  addEventListener("pointerdown", ({ target }) => box.contains(target) || shown?.contains(target) || hide());
  addEventListener("keydown", ({ key }) => {
    if (key !== "Escape" || !shown) return;
    if (box.contains(document.activeElement)) shown.focus();
    hide();
  });
  addEventListener("scroll", place, { passive: true });
  addEventListener("beforeprint", hide);
}

// The figures of a page: each wakes when it is needed, and its frames have addresses,
// PAGE.html#FIGURE?width=512&lock=width&hide=depth (links in the text: book/extension/views.py).
// Needs `script` and `hold` of page.js.
{
  // ---- waking. A figure that names a file of frames is given the explorers' own code
  // (explore_page.js, made from ntk_lib/page/explore.js), called as anywidget calls it, when it
  // comes within a screen of the window, is reached by keyboard, or a link asks for it: a long
  // chapter opens as fast as its first screen. The files are asked for before, one after the other
  // and after the page has loaded, so that what is open lives on without a network. One that does
  // not arrive stops its own figure alone, and is asked for again. It calls ntkFrames with its text.
  const CODE = `${document.documentElement.dataset.content_root}_static/explore_page.js`;
  const texts = new Map(); // address of a file to what it holds
  const coming = new Map(); // address to the promise that it has run
  globalThis.ntkFrames = (text) => texts.set(document.currentScript.getAttribute("src"), text);
  const once = (address) => {
    const lost = (error) => {
      coming.delete(address);
      throw error;
    };
    if (!coming.has(address)) coming.set(address, script(address).catch(lost));
    return coming.get(address);
  };

  const views = new Map(); // name of a figure to { name, figure, frames, page once it is awake }
  for (const figure of document.querySelectorAll("figure[data-explorer]")) {
    views.set(figure.id, { name: figure.id, figure, frames: figure.dataset.explorer });
  }
  const load = async (view) => {
    await once(CODE);
    await once(view.frames);
    if (!view.page) view.figure.tabIndex = 0;
  };
  const wake = async (view, query = wanted[view.name]) => {
    await load(view);
    if (view.page) return;
    const asleep = view.figure;
    near.unobserve(asleep);
    const state = JSON.parse(texts.get(view.frames));
    texts.delete(view.frames);
    const cell = asleep.closest(".cell")?.querySelector(".cell_input pre");
    view.page = {
      start: state.start,
      locked: [],
      hidden: [],
      source: cell?.textContent.trim(),
      notebook: document.querySelector("meta[name=notebook]")?.content,
      moved: () => note(view),
      link() {
        note(view);
        write();
        return location.href;
      },
    };
    const el = document.createElement("div");
    ntkExplorer.render({ model: { get: (name) => state[name] ?? [] }, el, page: view.page });
    if (query) apply(view, query);
    view.figure = el.firstElementChild;
    view.figure.id = view.name;
    const focused = asleep === document.activeElement;
    asleep.replaceWith(el);
    if (focused) el.querySelector("input, select, button")?.focus();
  };
  const quietly = (promise) => promise.catch(() => {}); // the console has named the file
  const near = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) if (isIntersecting) quietly(wake(views.get(target.id)));
    },
    { rootMargin: "100%" },
  );
  const watch = async () => {
    for (const view of views.values()) {
      if (view.page) continue;
      await quietly(load(view));
      near.unobserve(view.figure); // it says again whether it is near
      if (!view.page) near.observe(view.figure);
    }
  };
  addEventListener("load", watch);
  addEventListener("online", watch);

  // ---- what a figure shows, as the part of its address after ?

  const written = ({ page: { controls, position, locked, hidden } }) =>
    [
      ...controls.map(({ name, kind, values, labels }, i) => {
        const word = kind === "choice" ? labels[position[i]] : values[position[i]];
        return `${name}=${encodeURIComponent(word)}`;
      }),
      ...(locked.length ? [`lock=${locked}`] : []),
      ...(hidden.length ? [`hide=${hidden}`] : []),
    ].join("&");

  const decoded = (text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text; // a % that stands for itself
    }
  };

  // the place of a word among a control's values, else of the nearest number
  const placed = ({ kind, values, labels }, word) => {
    const number = word.trim() === "" || kind === "choice" ? NaN : Number(word);
    const met = values.findIndex((v, j) => word === labels[j] || word === `${v}` || v === number);
    if (met >= 0 || Number.isNaN(number)) return [met, met >= 0];
    const within = Math.min(Math.max(number, Math.min(...values)), Math.max(...values));
    const apart = values.map((v) => Math.abs(v - within));
    return [apart.indexOf(Math.min(...apart)), false];
  };

  // sets the figure, and returns in words what was asked for and is not there
  const apply = ({ page }, query) => {
    const places = [...page.start];
    const names = new Map([["lock", []], ["hide", []]]);
    const missing = [];
    for (const pair of query.split("&").filter(Boolean)) {
      const [name, word] = [pair.split("=", 1)[0], pair.slice(pair.indexOf("=") + 1)].map(decoded);
      const i = page.controls.findIndex((control) => control.name === name);
      if (names.has(name)) names.get(name).push(...word.split(","));
      else if (i < 0) missing.push(`This figure has no ${name.slice(0, 20)}.`);
      else {
        const [j, met] = placed(page.controls[i], word);
        if (j >= 0) places[i] = j;
        const { label, labels } = page.controls[i];
        if (!met) missing.push(`No frame has ${label} ${word.slice(0, 20)}, this one has ${labels[places[i]]}.`);
      }
    }
    const known = (name) => page.controls.some((control) => control.name === name);
    [page.locked, page.hidden] = [...names.values()].map((list) => list.filter(known));
    page.set(places, page.locked, page.hidden);
    return missing.join(" ");
  };

  // ---- the address. It names the figure that moved last. What all show is kept with the entry of
  // the history, for the way back within the page, and in the session, for a reload and the way back
  // to the page (Sphinx takes what is kept with the entry when a page opens).

  const key = `views ${location.pathname}`;
  const wanted = {}; // name of a figure to its query, where it was set
  const keep = (address = location.href) => history.replaceState({ views: wanted }, "", address);
  let last = null;
  let next = 0; // browsers count how often a page writes its address
  let timer = null;
  const write = () => {
    clearTimeout(timer);
    timer = null;
    next = Date.now() + 400;
    keep(`#${last}?${wanted[last]}`);
  };
  const note = (view) => {
    last = view.name;
    wanted[last] = written(view);
    timer ??= setTimeout(write, Math.max(0, next - Date.now()));
  };
  addEventListener("pagehide", () => {
    if (timer) write();
    sessionStorage.setItem(key, JSON.stringify(wanted));
  });

  const named = (hash) => {
    const [, name, query] = /^#(\w+)\?(.*)$/s.exec(hash) ?? [];
    return [views.get(name), query];
  };

  // Shows the frame that a hash names: scrolls to its figure, wakes and sets it, and says what the
  // hash asks for in vain. Returns whether the page has the figure.
  const go = async (hash, block = "nearest") => {
    const [view, query] = named(hash);
    if (!view) return false;
    wanted[view.name] = query;
    const show = () => view.figure.scrollIntoView({ block, behavior: "instant" });
    hold(show);
    await quietly(wake(view, null)); // a frame is heard of when it comes into a figure that is there
    if (!view.page) return true;
    const missing = apply(view, query);
    note(view);
    view.page.say(missing);
    hold(show);
    return true;
  };
  globalThis.ntkView = { go };

  const restore = (kept) => {
    for (const view of views.values()) {
      const query = kept[view.name];
      if (query === wanted[view.name]) continue;
      wanted[view.name] = query;
      if (view.page) apply(view, query ?? "");
    }
  };

  addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href*='#']");
    const elsewhere = event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
    if (elsewhere || event.defaultPrevented || link?.pathname !== location.pathname || !named(link.hash)[0]) return;
    event.preventDefault();
    if (timer) write();
    if (link.hash !== location.hash) history.pushState({ views: wanted }, "", link.hash);
    go(link.hash);
  });
  addEventListener("hashchange", () => {
    if (timer) clearTimeout(timer), (timer = null);
    if (history.state?.views) return restore(history.state.views);
    go(location.hash, "start");
    keep();
  });
  if (views.size) {
    const [visit] = performance.getEntriesByType("navigation");
    const [view, query] = named(location.hash);
    if (["reload", "back_forward"].includes(visit?.type)) {
      Object.assign(wanted, JSON.parse(sessionStorage.getItem(key)));
      if (view) wanted[view.name] = query;
    } else go(location.hash, "start");
    keep();
  }
}

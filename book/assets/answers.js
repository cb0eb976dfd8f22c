// Predictions answer back, and a chapter knows where it was left. Both are kept on this device only.
{
  const keptHere = (change) => {
    try {
      const kept = { choices: {}, places: {}, ...JSON.parse(localStorage.getItem("ntk-book")) };
      if (change) localStorage.setItem("ntk-book", JSON.stringify(change(kept) ?? kept));
      return kept;
    } catch {
      return { choices: {}, places: {} }; // the reader's browser keeps nothing
    }
  };
  const made = (tag, properties, ...children) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };

  // The list of choices becomes a group of radio buttons. A choice is no answer yet: the figure comes
  // first, and on the way through the buttons by keyboard each is chosen once.
  const predictions = document.querySelectorAll("p.prediction");
  const folds = document.querySelectorAll("details.prediction-answer");
  const restores = [...predictions].map((question, i) => {
    const list = question.nextElementSibling;
    const [, right] = list.className.match(/\bright-(\w)/);
    const fold = folds[i];
    const said = fold.querySelector(".sd-summary-content");
    const decisive = [...said.querySelectorAll("a[href^='#']")].find((link) => link.hash.includes("?"));

    const field = made("fieldset", { className: "choices-field" });
    field.setAttribute("aria-labelledby", question.id);
    list.replaceWith(field);
    field.append(list);
    const inputs = [...list.children].map((item, index) => {
      const input = made("input", { type: "radio", name: question.id, value: "abcd"[index] });
      const text = item.querySelector("p") ?? item;
      text.replaceChildren(made("label", {}, input, ...text.childNodes));
      return input;
    });
    const hint = made("p", { className: "choice-hint", role: "status" });
    field.append(hint);
    const verdict = made("div", { className: "verdict" });

    const show = (chosen, seen) => {
      for (const input of inputs) {
        input.checked = input.value === chosen;
        const label = input.parentNode;
        label.querySelector(".choice-mark")?.remove();
        if (!seen || (input.value !== right && input.value !== chosen)) continue;
        label.append(made("span", { className: "choice-mark" }, input.value === right ? " ✓ right" : " ✗ not this"));
      }
      verdict.remove();
      for (const item of said.querySelectorAll("li[class*='against-']")) item.hidden = false;
      if (!chosen) return hint.replaceChildren();
      const won = chosen === right;
      verdict.replaceChildren(
        made("p", {}, made("strong", {}, won ? "✓ Right. " : "✗ Not this. "), `Your prediction: (${chosen}).`),
      );
      const against = !won && said.querySelector(`.against-${chosen}`);
      if (against) {
        verdict.append(...[...against.cloneNode(true).childNodes]);
        against.hidden = true;
      }
      if (decisive) verdict.append(made("p", {}, made("a", { href: decisive.hash }, "Show the deciding frame")));
      said.prepend(verdict);
    };
    const keep = (chosen, seen) => {
      keptHere(({ choices }) => void (choices[question.id] = [chosen, seen]));
      show(chosen, seen);
    };
    const restore = () => show(...(keptHere().choices[question.id] ?? []));

    field.addEventListener("change", ({ target }) => {
      keep(target.value, fold.open);
      const open = made("button", { type: "button" }, "open the answer");
      open.addEventListener("click", () => {
        fold.open = true;
        fold.firstElementChild.focus({ preventScroll: true });
        hold(() => fold.scrollIntoView({ behavior: "instant" }));
      });
      hint.replaceChildren(`Your prediction: (${target.value}). Try it in the figure, then `, open, ".");
    });
    fold.addEventListener("toggle", () => {
      const [chosen, seen] = keptHere().choices[question.id] ?? [];
      if (fold.open && chosen && !seen) keep(chosen, true);
    });
    restore();
    return restore;
  });

  // Where scrolling comes to rest a section is being read. The next visit offers to go on there, and
  // the front page to go on in the chapter read last.
  const page = location.pathname.split("/").at(-1);
  const isFront = document.querySelector("a.navbar-brand")?.getAttribute("href") === "#";
  const titleOf = (part) => {
    const title = part.querySelector("h1, h2, h3").cloneNode(true);
    title.querySelectorAll(".headerlink, .katex-mathml").forEach((node) => node.remove());
    return title.textContent.trim();
  };
  let keeps = true;
  if (predictions.length) {
    const sections = [...document.querySelectorAll("article section section[id]")];
    const keepPlace = () => {
      const read = sections.findLast((node) => node.getBoundingClientRect().top < 0.3 * innerHeight);
      if (!keeps || !read || scrollY < innerHeight) return;
      keptHere((kept) => {
        kept.places[page] = [read.id, titleOf(document.querySelector("article")), titleOf(read)];
        kept.last = page;
      });
    };
    addEventListener("scrollend", keepPlace);
    addEventListener("pagehide", keepPlace);
  }
  addEventListener("load", () => {
    const { places, last } = keptHere();
    const where = isFront ? last : page;
    const [visit] = performance.getEntriesByType("navigation");
    const asked = location.hash.length > 1 || document.querySelector(".highlighted");
    if (!places[where] || visit?.type !== "navigate" || asked) return;
    const [id, chapter, section] = places[where];
    const close = made("button", { type: "button", ariaLabel: "Close" }, "×");
    const link = made("a", { href: `${isFront ? where : ""}#${id}` }, section);
    const offer = made("aside", { className: "continue", ariaLabel: "Where you were" }, `Continue${isFront ? ` “${chapter}”` : ""} at `, link, close);
    close.addEventListener("click", () => {
      keptHere((kept) => void delete kept.places[where]);
      offer.remove();
    });
    link.addEventListener("click", () => offer.remove());
    addEventListener("scrollend", () => scrollY > 2 * innerHeight && offer.remove());
    document.body.append(offer);
  });

  if (predictions.length) {
    const forget = made("button", { type: "button" }, "Forget them");
    const note = made("p", { className: "kept-here" }, "Your predictions and your place in each chapter are kept in this browser alone. ", forget);
    forget.addEventListener("click", () => {
      keptHere(() => ({ choices: {}, places: {} }));
      keeps = false;
      restores.forEach((restore) => restore());
      note.replaceChildren("Forgotten.");
      note.role = "status";
    });
    document.querySelector("article").append(note);
  }
}

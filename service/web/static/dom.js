// Elements made of names, attributes and texts. Nothing here reads markup, so no text can become any.

export const $ = (id) => document.getElementById(id);

/** An element. attributes: by name; `onclick` and the like are listeners; null and false are left out. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Rows of a description list, for the pairs whose value is there. */
export function fillFacts(list, pairs) {
  list.replaceChildren(
    ...pairs
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
}

/** A text that is shown only while there is one. */
export function say(node, text) {
  node.textContent = text || "";
  node.hidden = !text;
}

export const count = (value) => value.toLocaleString("en");

/** A number of images and their noun. */
export const images = (n) => `${count(n)} ${n === 1 ? "image" : "images"}`;

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** Runs at most once at a time; asked for meanwhile, once more afterwards. */
export function inTurn(work) {
  let running = false;
  let again = false;
  return async function turn() {
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      do {
        again = false;
        await work();
      } while (again);
    } finally {
      running = false;
    }
  };
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// The jobs of this key, newest first, and what can be done with each.

import { call, get, isOver, save } from "./api.js";
import { showProblem } from "./ask.js";
import { $, count, el, inTurn } from "./dom.js";
import { className, close, doTo, openId, showStatus } from "./job.js";

const LOOK_EVERY_MS = 3000;
const PAGE = 10;
let wanted = PAGE;
let shown = [];

/** Shows the list as it is now. */
export const refresh = inTurn(async () => {
  const page = await get("/jobs", { query: { limit: Math.min(wanted, 200) } });
  shown = page.jobs;
  const focused = document.activeElement?.dataset.action;
  $("jobs").tBodies[0].replaceChildren(...shown.map(row));
  if (focused) document.querySelector(`[data-action="${focused}"]`)?.focus();
  $("jobs").hidden = !shown.length;
  $("jobs-none").hidden = shown.length > 0;
  $("older").hidden = !page.next_cursor || wanted >= 200;
});

const update = () => refresh().catch(showProblem);

/** Keeps the list true while somebody looks at it and a job is under way. */
export function keepFresh() {
  $("older").addEventListener("click", () => {
    wanted += 2 * PAGE;
    update();
  });
  setInterval(() => {
    if (!document.hidden && shown.some((job) => !isOver(job.status))) refresh().catch(() => {});
  }, LOOK_EVERY_MS);
}

function row(job) {
  const status = el("span");
  showStatus(status, job.status);
  const asked = new Date(job.created_at);
  const current = job.id === openId() ? "true" : null;
  return el(
    "tr",
    { "aria-current": current },
    el("th", { scope: "row" }, el("a", { href: `#${job.id}`, "data-action": `open ${job.id}` }, className(job))),
    el("td", {}, `${count(job.progress.done)} / ${count(job.n)}`),
    el("td", {}, el("code", {}, job.seed)),
    el("td", {}, status),
    el("td", {}, el("time", { datetime: job.created_at, title: job.id }, asked.toLocaleString())),
    el("td", { class: "actions" }, ...actions(job)),
  );
}

function actions(job) {
  const { cancel, retry, result } = job.links;
  const found = [];
  const add = (label, act) => {
    const name = `${label} ${className(job)}, seed ${job.seed}`;
    const attributes = { type: "button", class: "quiet", "aria-label": name, "data-action": `${label} ${job.id}`, onclick: act };
    found.push(el("button", attributes, label));
  };
  if (cancel && job.status !== "canceling") add("Cancel", (event) => doTo(cancel, event.currentTarget, update));
  if (retry) add("Retry", (event) => doTo(retry, event.currentTarget, update));
  if (result) add("Download", () => save(result, `${job.id}.${job.format}`).catch(showProblem));
  add("Delete", () => remove(job).catch(showProblem));
  return found;
}

async function remove(job) {
  if (!(await isConfirmed(`Delete ${className(job)}, seed ${job.seed}, with its images?`))) return;
  await call("DELETE", job.links.self);
  if (openId() === job.id) {
    close();
    history.replaceState(null, "", location.pathname);
  }
  await refresh();
}

function isConfirmed(question) {
  const dialog = $("confirm");
  $("confirm-text").textContent = question;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

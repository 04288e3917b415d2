// One job: how far it is, what it was asked for, and what can be done with it.

import { call, follow, get, isOver, save } from "./api.js";
import { repeat, showProblem } from "./ask.js";
import { $, count, duration, el, fillFacts, images, inTurn, say } from "./dom.js";
import { Gallery } from "./gallery.js";
import { WalkPlayer } from "./walk.js";

let open = null;

export const currentGallery = () => open.gallery;

/** Shows a job and follows it until another one is shown. onChange: called when its state has changed. */
export async function openJob(id, onChange) {
  close();
  const job = await get(`/jobs/${id}`);
  const stop = new AbortController();
  const mine = { id, stop, gallery: new Gallery(job), said: "" };
  if (job.walk_to_seed !== null) mine.player = new WalkPlayer(job, mine.gallery);
  open = mine;
  const look = inTurn(async () => {
    if (stop.signal.aborted) return;
    const before = mine.job?.status;
    mine.job = await get(`/jobs/${id}`, { signal: stop.signal });
    render(mine, onChange);
    if (before !== mine.job.status) onChange();
    if (mine.job.links.images) await mine.gallery.grow();
    mine.player?.update();
  });
  const update = () => look().catch((error) => stop.signal.aborted || showProblem(error));
  mine.update = update;
  $("more").onclick = () => mine.gallery.more().catch(showProblem);
  await update();
  if (!isOver(mine.job.status)) follow(mine.job, update, stop.signal).then(update);
}

/** Shows no job any more. */
export function close() {
  if (!open) return;
  open.stop.abort();
  open.gallery.close();
  open.player?.close();
  open = null;
  $("job-body").hidden = true;
  $("job-none").hidden = false;
  $("job-status").hidden = true;
  $("job-actions").replaceChildren();
  $("job-title").textContent = "Images";
}

export const openId = () => open?.id;

function render(mine, onChange) {
  const { job } = mine;
  $("job-none").hidden = true;
  $("job-body").hidden = false;
  $("job-title").textContent = `${images(job.n)}, ${className(job)}`;
  showStatus($("job-status"), job.status);
  $("job-progress").max = job.progress.total;
  $("job-progress").value = job.progress.done;
  $("job-progress").hidden = job.status === "succeeded";
  $("job-numbers").textContent = numbers(job);
  say($("job-error"), job.error && `${job.error.code}: ${job.error.message}`);
  fillFacts($("job-facts"), [
    ["Job", el("code", {}, job.id)],
    ["Seed", el("code", {}, job.seed)],
    ["Walk to seed", job.walk_to_seed && el("code", {}, job.walk_to_seed)],
    ["Truncation", String(job.truncation)],
    ["Checkpoint", `${job.model.name}@${job.model.version}`],
    ["Gate", job.gate],
    ["Files", `${job.image_format}${job.quality ? ` ${job.quality}` : ""} in ${job.format}`],
    ["Kept until", new Date(job.expires_at).toLocaleString()],
  ]);
  $("job-actions").replaceChildren(...actions(job, onChange));
  announce(mine);
}

/** Of what a job makes images; a walk says so. */
export function className(job) {
  if (job.class === "mixed") return Object.entries(job.mix).map(([slug, n]) => `${n} ${slug}`).join(", ");
  return job.walk_to_seed === null ? job.class : `${job.class}, walk to ${job.walk_to_seed}`;
}

export function showStatus(node, status) {
  node.textContent = status;
  node.className = `status ${status}`;
  node.hidden = false;
}

function numbers(job) {
  const { done, total, rejected, images_per_second: speed, eta_seconds: left, queue_position: place } = job.progress;
  const took = job.started_at && job.finished_at && (Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000;
  const parts = [
    done === total ? `${count(total)} made` : `${count(done)} of ${count(total)} made`,
    took ? `in ${duration(took)}` : null,
    speed && done ? `${speed.toFixed(1)} a second` : null,
    left !== null && !isOver(job.status) ? `about ${duration(left)} left` : null,
    place !== null ? `place ${place + 1} in the line` : null,
    rejected ? `${count(rejected)} replaced by the gate` : null,
  ];
  return parts.filter(Boolean).join(" \u00b7 ");
}

function announce(mine) {
  const { job } = mine;
  const quarter = Math.floor((4 * job.progress.done) / job.progress.total);
  const key = `${job.status}/${isOver(job.status) ? "" : quarter}`;
  if (mine.said === key) return;
  mine.said = key;
  $("announce").textContent = `Job ${job.status}, ${job.progress.done} of ${job.progress.total} images made.`;
}

function actions(job, onChange) {
  const found = [];
  if (job.links.result) {
    found.push(saving(`Download ${job.format}`, job.links.result, `${job.id}.${job.format}`, "main"));
    found.push(saving("Certificate", job.links.certificate, `${job.id}.certificate.json`, "quiet"));
  }
  if (job.links.cancel && job.status !== "canceling") found.push(acting("Cancel", job.links.cancel, onChange));
  if (job.links.retry) found.push(acting("Retry", job.links.retry, onChange));
  found.push(el("button", { type: "button", class: "quiet", onclick: () => repeat(job).catch(showProblem) }, "Ask again"));
  return found;
}

function saving(label, path, name, kind) {
  const download = () => save(path, name).catch(showProblem);
  return el("button", { type: "button", class: kind, onclick: download }, label);
}

function acting(label, path, onChange) {
  const act = (event) => doTo(path, event.currentTarget, onChange);
  return el("button", { type: "button", onclick: act }, label);
}

/** POSTs to a job's link, and shows what became of it. */
export async function doTo(path, button, onChange) {
  button.disabled = true;
  try {
    const job = await (await call("POST", path)).json();
    if (openId() === job.id && isOver(open.job.status)) await openJob(job.id, onChange);
    else if (openId() === job.id) await open.update();
    onChange();
  } catch (error) {
    showProblem(error);
  } finally {
    button.disabled = false;
  }
}

// The form that asks for images.

import { call, Problem } from "./api.js";
import { describe, fillCheckpoints } from "./checkpoints.js";
import { $, count, el, say } from "./dom.js";

const SEVERAL = "";
const WITHOUT_TRUNCATION = ["ldm"];

/** Fills the form; `onJob` is called with each job that is accepted. Throws Problem. */
export async function prepare(onJob) {
  const form = $("ask");
  await fillCheckpoints($("model"));
  await showCheckpoint();
  if (form.dataset.ready) return;
  form.dataset.ready = "yes";
  $("model").addEventListener("change", () => showCheckpoint().catch(showProblem));
  $("truncation").addEventListener("input", showTruncation);
  $("walk_to_seed").addEventListener("input", showWalk);
  $("draw-seed").addEventListener("click", () => {
    $("seed").value = crypto.getRandomValues(new BigUint64Array(1))[0];
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await submit(form, onJob);
  });
  showTruncation(); // fields may have been filled before, by a quick hand or by the browser
  showWalk();
}

/** Lets the form ask for what a job was asked for. */
export async function repeat(job) {
  const reference = `${job.model.name}@${job.model.version}`;
  $("model").value = reference;
  await showCheckpoint();
  const slugs = Object.keys(job.mix);
  chooseClass(slugs.length > 1 ? SEVERAL : slugs[0]);
  if (slugs.length > 1) {
    for (const field of $("mix").querySelectorAll("input")) field.value = job.mix[field.dataset.slug] || 0;
  }
  const values = { n: job.n, seed: job.seed, walk_to_seed: job.walk_to_seed, truncation: job.truncation };
  Object.assign(values, { format: job.format, image_format: job.image_format, quality: job.quality, gate: job.gate });
  for (const [name, value] of Object.entries(values)) $(name).value = value ?? "";
  showTruncation();
  showWalk();
  $("seed").focus();
}

async function showCheckpoint() {
  const chosen = document.querySelector('input[name="class"]:checked')?.value;
  const { model, classes, manifest } = await describe($("model").value);
  const slugs = classes.map(({ slug }) => slug);
  const learned = classes.reduce((sum, { images }) => sum + (images || 0), 0);
  $("classes").replaceChildren(
    ...classes.map(({ slug }) => radio(slug, slug)),
    ...(classes.length > 1 ? [radio(SEVERAL, "several")] : []),
  );
  $("mix").replaceChildren(...slugs.map(mixField));
  chooseClass(slugs.includes(chosen) || chosen === SEVERAL ? chosen : slugs.at(-1));
  const px = `${manifest.resolution} px`;
  const trained = learned ? `learned from ${count(learned)} real images` : "";
  const facts = [`${model.name}@${model.version}`, manifest.architecture, px, trained];
  $("model-facts").textContent = facts.filter(Boolean).join(" \u00b7 ");
  const fixed = WITHOUT_TRUNCATION.includes(manifest.architecture);
  $("truncation").disabled = fixed;
  if (fixed) $("truncation").value = 1;
  showTruncation();
}

function radio(value, label) {
  const input = el("input", { type: "radio", name: "class", value, onchange: showMix });
  return el("label", { class: "choice" }, input, el("span", {}, label));
}

function mixField(slug) {
  const attributes = { id: `mix-${slug}`, "data-slug": slug, type: "number", inputmode: "numeric", min: 0, value: 8 };
  return el("div", { class: "field" }, el("label", { for: `mix-${slug}` }, slug), el("input", attributes));
}

function chooseClass(slug) {
  for (const input of document.querySelectorAll('input[name="class"]')) input.checked = input.value === slug;
  showMix();
}

function showMix() {
  const isMix = isSeveral();
  $("mix").hidden = !isMix;
  $("n-field").hidden = isMix;
}

const isSeveral = () => document.querySelector('input[name="class"]:checked')?.value === SEVERAL;

function showTruncation() {
  $("truncation-value").textContent = Number($("truncation").value).toFixed(2);
}

/** A walk takes no gate: a frame that is replaced would not lie on it. */
function showWalk() {
  const isWalk = $("walk_to_seed").value.trim() !== "";
  if (isWalk) $("gate").value = "off";
  else if ($("gate").disabled) $("gate").value = $("gate").dataset.usual;
  $("gate").disabled = isWalk;
}

async function submit(form, onJob) {
  clearProblem();
  const button = form.querySelector("button[type=submit]");
  button.disabled = true;
  try {
    onJob(await ask());
  } catch (error) {
    showProblem(error);
  } finally {
    button.disabled = false;
  }
}

async function ask() {
  const names = ["model", "seed", "walk_to_seed", "truncation", "format", "image_format", "quality", "gate"];
  const query = Object.fromEntries(names.map((name) => [name, $(name).value.trim()]));
  const chosen = document.querySelector('input[name="class"]:checked')?.value;
  const headers = { "Idempotency-Key": randomKey() };
  let body;
  if (isSeveral()) {
    const fields = [...$("mix").querySelectorAll("input")];
    const mix = fields.map((field) => [field.dataset.slug, Number(field.value)]).filter(([, n]) => n !== 0);
    body = JSON.stringify({ mix: Object.fromEntries(mix) });
    headers["Content-Type"] = "application/json";
  } else {
    query.class = chosen;
    query.n = $("n").value.trim();
  }
  const send = () => call("POST", "/generate", { query, body, headers });
  // An answer that was lost on its way is asked for again; the key keeps that from making a second job.
  const response = await send().catch((error) => (error.status === 0 ? send() : Promise.reject(error)));
  return response.json();
}

/** randomUUID is there on secure origins alone. */
function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Tells what is wrong, and beside which field. */
export function showProblem(error) {
  if (!(error instanceof Problem)) throw error;
  say($("problem"), error.message);
  for (const { name } of error.errors) {
    const field = $(name) || document.querySelector(`[data-field="${name.split(".")[0]}"]`);
    if (!field) continue;
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-describedby", "problem");
    (field.matches("input, select") ? field : field.querySelector("input"))?.focus();
  }
}

export function clearProblem() {
  say($("problem"), "");
  for (const field of document.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-describedby");
  }
}

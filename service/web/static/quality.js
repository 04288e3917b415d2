// The page of a checkpoint's quality: what it says of itself, and its report as the service makes it.

import { call, get, Problem } from "./api.js";
import { describe, fillCheckpoints } from "./checkpoints.js";
import { $, count, fillFacts, inTurn, say } from "./dom.js";
import { withKey } from "./key.js";

const AS_THE_PAPER = "inception-v3-cellgan";
const frame = $("report");

/** Resolves once the frame can be told what to show. */
const isReady = new Promise((resolve) => {
  addEventListener("message", (event) => {
    if (event.source !== frame.contentWindow) return;
    if (event.data.isReady) resolve();
    if (event.data.height) frame.style.height = `${Math.ceil(event.data.height) + 8}px`;
  });
});
frame.src = frame.dataset.src; // now that somebody listens

const show = inTurn(async () => {
  say($("problem"), "");
  const reference = $("model").value;
  const { model, manifest, links } = await describe(reference);
  const learned = Object.values(manifest.dataset.images_per_class).reduce((sum, n) => sum + n, 0);
  fillFacts($("card"), [
    ["Checkpoint", `${model.name}@${model.version}, ${manifest.architecture}, ${manifest.resolution} px`],
    ["Meant for", manifest.intended_use],
    ["Not for", manifest.not_for],
    ["Learned from", `${count(learned)} images: ${manifest.dataset.name} (${manifest.dataset.license})`],
    ["Training", `${count(manifest.training.images_seen)} images seen, ${manifest.training.hours} h, ${manifest.training.device}`],
    ["Licence", manifest.license],
    ["Digest", model.digest],
  ]);
  const path = links.report_page;
  $("no-report").hidden = path !== null;
  frame.hidden = path === null;
  $("paper").hidden = path === null;
  if (path === null) return;
  $("paper").textContent = remark(await get("/reports/fid", { query: { model: `${model.name}@${model.version}` } }));
  const html = await (await call("GET", path, { headers: { Accept: "text/html" } })).text();
  await isReady;
  frame.contentWindow.postMessage({ html }, "*"); // it has no origin that could be named
});

/** Which of a report's figures may be held against the paper's: those taken in its way alone. */
function remark(report) {
  const judges = [report, ...report.judges];
  if (judges.some((judge) => judge.extractor === AS_THE_PAPER) && report.deduplicated === false) {
    return `The figures of ${AS_THE_PAPER} were taken as the paper's: those alone may be held against its FID column.`;
  }
  return (
    "Read each figure beside its floor. None of them may be held against the FID column of the paper: no judge here" +
    " saw the images as the paper's did, on all of the originals."
  );
}

const update = () =>
  show().catch((error) => {
    if (!(error instanceof Problem)) throw error;
    say($("problem"), error.message);
  });

$("model").addEventListener("change", update);
withKey(async () => {
  try {
    const asked = new URLSearchParams(location.search).get("model");
    await fillCheckpoints($("model"));
    if (asked) $("model").value = asked;
    $("workbench").hidden = false;
    await update();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    $("workbench").hidden = true;
    say($("problem"), error.message);
  }
});

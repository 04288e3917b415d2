// The page at /: ask for images, watch them come, look at them, and at the jobs of this key.

import { clearProblem, prepare, showProblem } from "./ask.js";
import { $ } from "./dom.js";
import { wireDialog } from "./gallery.js";
import { close, currentGallery, openId, openJob } from "./job.js";
import { keepFresh, refresh } from "./jobs.js";
import { withKey } from "./key.js";

const JOB = /^#(job_[0-9A-Z]+)$/;
const update = () => refresh().catch(showProblem);

function show() {
  const named = JOB.exec(location.hash);
  clearProblem();
  if (!named) close();
  else if (named[1] !== openId()) openJob(named[1], update).then(update).catch(showProblem);
}

function onAccepted(job) {
  location.hash = job.id; // which shows it
  if (matchMedia("(max-width: 52rem)").matches) $("job-title").scrollIntoView();
}

addEventListener("hashchange", show);
wireDialog(currentGallery);
keepFresh();
withKey(async () => {
  clearProblem();
  try {
    await prepare(onAccepted);
  } catch (error) {
    $("workbench").hidden = true;
    showProblem(error);
    return;
  }
  $("workbench").hidden = false;
  show();
  await update();
});

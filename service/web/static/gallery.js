// A job's images: tiles that come while it runs, and one image with all that is known of it.

import { call, get, Problem, save, show, showBlob } from "./api.js";
import { $, el, fillFacts, inTurn, say } from "./dom.js";

const PAGE = 60;
const MAX_PAGE = 250;
const GATE = {
  luma: ["Mean luma", "of 255"],
  luma_sd: ["Spread of luma", "standard deviation"],
  scale_bar: ["Scale bar", "0: none seen"],
  nearest: ["Nearest training image", "correlation, 1 is a copy"],
};

/** The tiles of one job; `grow` shows what has come since, up to as many as were asked for. */
export class Gallery {
  constructor(job) {
    this.job = job;
    this.rows = [];
    this.wanted = job.walk_to_seed === null ? PAGE : job.n;
    this.cursor = null;
    this.isOpen = true;
    this.grow = inTurn(() => this.load());
    $("gallery").replaceChildren();
    $("more").hidden = true;
  }

  close() {
    this.isOpen = false;
  }

  more() {
    this.wanted += PAGE;
    return this.grow();
  }

  async load() {
    while (this.isOpen && this.rows.length < this.wanted && this.cursor !== "end") {
      const query = { cursor: this.cursor, limit: Math.min(this.wanted - this.rows.length, MAX_PAGE) };
      const page = await get(`${this.job.links.self}/images`, { query });
      if (!this.isOpen) return;
      this.cursor = page.next_cursor ?? "end";
      for (const row of page.images) this.add(row);
      if (!page.images.length) break;
    }
    $("more").hidden = this.rows.length < this.wanted || this.rows.length >= this.job.n;
  }

  add(row) {
    const at = this.rows.push(row) - 1;
    const name = `Image ${row.i + 1}: ${row.class}, number ${row.index}`;
    const loading = this.job.walk_to_seed === null ? "lazy" : "eager"; // a walk is drawn from its tiles
    const picture = el("img", { alt: "", width: row.width, height: row.height, loading });
    const button = el("button", { type: "button", "aria-label": name, onclick: () => this.openImage(at) }, picture);
    $("gallery").append(el("li", {}, button));
    show(picture, row.url).catch(() => button.classList.add("missing"));
  }

  openImage(at) {
    const row = this.rows[at];
    this.at = at;
    $("image-title").textContent = `${row.class} ${row.index}`;
    show($("image-picture"), row.url).catch(tell);
    $("image-picture").alt = `A generated image of class ${row.class}`;
    fillFacts($("image-facts"), [
      ["Image id", el("code", {}, row.image_id)],
      ["Seed", el("code", {}, row.seed)],
      ["Class", row.class],
      ["Number in its class", String(row.index)],
      ["Attempt", row.attempt ? `${row.attempt}: the gate refused ${row.attempt} before it` : "0: the first"],
      ["Truncation", String(this.job.truncation)],
      ["Size", `${row.width} x ${row.height} px, ${row.bytes.toLocaleString("en")} bytes`],
      ["File", row.file],
      ["sha256", el("code", {}, row.sha256)],
    ]);
    fillFacts($("image-gate"), gateFacts(row.gate));
    $("again").hidden = true;
    say($("image-problem"), "");
    $("image-previous").disabled = at === 0;
    $("image-next").disabled = at === this.rows.length - 1;
    if (!$("image").open) $("image").showModal();
  }

  step(by) {
    const at = this.at + by;
    if (at >= 0 && at < this.rows.length) this.openImage(at);
  }

  /** Draws the image again from its id, and tells whether it is the same. */
  async regenerate() {
    const row = this.rows[this.at];
    const button = $("image-again");
    say($("image-problem"), "");
    button.disabled = true;
    try {
      const query = { pixels_sha256: row.pixels_sha256 };
      const headers = { Accept: "image/png", Prefer: "wait=60" };
      const response = await call("GET", `/images/${row.image_id}`, { query, headers });
      const blob = await response.blob();
      if (row !== this.rows[this.at]) return;
      showBlob($("again-picture"), blob);
      $("again-picture").alt = "The same image, drawn again";
      const isSame = response.headers.get("Masan-Digest-Match") === "true";
      const verdict = isSame ? "Drawn again: the same pixels" : "Drawn again: other pixels than were delivered";
      const why = this.job.quality ? " (the delivered file is lossy)" : " (another device or build may round otherwise)";
      $("again-verdict").textContent = verdict + (isSame ? "" : why);
      $("again").hidden = false;
    } catch (error) {
      tell(error);
    } finally {
      button.disabled = false;
    }
  }

  save() {
    const row = this.rows[this.at];
    save(row.url, row.file.replaceAll("/", "-")).catch(tell);
  }
}

function gateFacts(gate) {
  const found = Object.entries(gate).map(([name, value]) => {
    const [label, meaning] = GATE[name] || [name, ""];
    return [label, `${value}${meaning ? ` (${meaning})` : ""}`];
  });
  return found.length ? found : [["Not judged", "the job was made without the gate, or nothing could be measured"]];
}

function tell(error) {
  if (!(error instanceof Problem)) throw error;
  say($("image-problem"), error.message);
}

/** Lets the dialog's buttons and keys act on the gallery that is open. */
export function wireDialog(current) {
  const dialog = $("image");
  $("image-close").addEventListener("click", () => dialog.close());
  $("image-previous").addEventListener("click", () => current().step(-1));
  $("image-next").addEventListener("click", () => current().step(1));
  $("image-again").addEventListener("click", () => current().regenerate());
  $("image-save").addEventListener("click", () => current().save());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") current().step(-1);
    if (event.key === "ArrowRight") current().step(1);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // its backdrop
  });
}

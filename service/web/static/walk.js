// A walk between two seeds, frame by frame, by hand or by itself.

import { $, pause } from "./dom.js";

const FRAME_MS = 120;

/** Shows the frames of a gallery that are there; they are drawn from its tiles. */
export class WalkPlayer {
  constructor(job, gallery) {
    this.job = job;
    this.gallery = gallery;
    this.isPlaying = false;
    this.isOpen = true;
    $("walk").hidden = false;
    $("walk-at").value = 0;
    $("walk-at").oninput = () => this.draw();
    $("walk-play").onclick = () => this.toggle();
    $("walk-play").textContent = "Play";
    this.update();
  }

  close() {
    this.isOpen = this.isPlaying = false;
    $("walk").hidden = true;
  }

  /** More frames may have come. */
  update() {
    $("walk-at").max = Math.max(0, this.gallery.rows.length - 1);
    $("walk-play").disabled = this.gallery.rows.length < 2;
    this.draw();
  }

  draw() {
    const at = Number($("walk-at").value);
    const words = `frame ${at + 1} of ${this.job.n}`;
    $("walk-frame").textContent = words;
    $("walk-at").setAttribute("aria-valuetext", words);
    const tile = $("gallery").querySelectorAll("img")[at];
    const canvas = $("walk-picture");
    canvas.setAttribute("aria-label", `The walk from seed ${this.job.seed} to ${this.job.walk_to_seed}, ${words}`);
    if (!tile) return;
    if (!tile.complete || !tile.naturalWidth) {
      tile.addEventListener("load", () => this.isOpen && this.draw(), { once: true });
      return;
    }
    if (canvas.width !== tile.naturalWidth) canvas.width = canvas.height = tile.naturalWidth;
    canvas.getContext("2d").drawImage(tile, 0, 0);
  }

  async toggle() {
    this.isPlaying = !this.isPlaying;
    $("walk-play").textContent = this.isPlaying ? "Stop" : "Play";
    for (let step = 1; this.isPlaying; await pause(FRAME_MS)) {
      const at = Number($("walk-at").value);
      const last = this.gallery.rows.length - 1;
      if (at + step < 0 || at + step > last) step = -step;
      $("walk-at").value = at + step;
      this.draw();
    }
  }
}

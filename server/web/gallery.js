// The list of all videos, newest first, and the placeholder for an empty list.

import { element } from "./element.js";
import { paintEmerging } from "./noise.js";
import { playing } from "./screen.js";
import { Tile } from "./tile.js";
import { failure, isOver, plural, subject } from "./words.js";

const FRAMES = 6;

export class Gallery {
  #library;
  #media;
  #actions;
  #tiles = new Map();
  #parts = {};

  constructor(library, media, actions, say) {
    this.#library = library;
    this.#media = media;
    this.#actions = actions;
    for (const name of ["gallery", "empty", "emerging", "summary", "older", "motion", "gallery-head"]) {
      this.#parts[name] = document.getElementById(name);
    }
    this.#drawEmpty();
    library.addEventListener("change", ({ detail }) => {
      this.#show(detail);
      this.#announce(detail, say);
      this.#count();
    });
    library.addEventListener("remove", ({ detail }) => {
      this.#tiles.get(detail.id)?.close();
      this.#tiles.delete(detail.id);
      this.#count();
    });
    library.addEventListener("loaded", ({ detail }) => {
      this.#parts.older.hidden = !detail.hasMore;
      this.#parts.empty.hidden = this.#tiles.size > 0;
    });
    this.#parts.motion.addEventListener("click", () => this.#toggleMotion());
    matchMedia("(prefers-reduced-motion: reduce)").addEventListener("change", () => this.#labelMotion());
    this.#labelMotion();
  }

  /** Scroll a video into view; do nothing if it is visible. */
  reveal(id) {
    this.#tiles.get(id)?.element.scrollIntoView({ block: "nearest" });
  }

  focus(id) {
    this.#tiles.get(id)?.opener.focus();
  }

  #show({ video, live }) {
    const known = this.#tiles.get(video.id);
    if (known) return known.update(video, live);
    const tile = new Tile(this.#media, video, this.#actions);
    tile.update(video, live);
    const next = [...this.#tiles.values()].map((other) => other.element).filter((other) => other.dataset.id < video.id);
    const before = next.sort((a, b) => (a.dataset.id < b.dataset.id ? 1 : -1))[0] ?? null;
    this.#tiles.set(video.id, tile);
    this.#parts.gallery.insertBefore(tile.element, before);
  }

  #announce({ video, before }, say) {
    if (!before || before.status === video.status) return;
    if (video.status === "in_progress") say(`In progress: ${subject(video)}`);
    if (video.status === "completed") say(`Completed: ${subject(video)}`);
    if (video.status === "failed") say(`${failure(video)}: ${subject(video)}`);
  }

  #count() {
    const videos = this.#library.videos;
    const count = (status) => videos.filter((video) => video.status === status).length;
    const [queued, running] = [count("queued"), count("in_progress")];
    const done = videos.filter(isOver).length;
    const parts = [running && `${running} in progress`, queued && `${queued} queued`];
    this.#parts.summary.textContent = parts.filter(Boolean).join(", ") || plural(done, "video");
    this.#parts["gallery-head"].hidden = videos.length === 0;
    if (videos.length) this.#parts.empty.hidden = true;
  }

  #toggleMotion() {
    playing.on = !playing.on;
    this.#labelMotion();
  }

  #labelMotion() {
    this.#parts.motion.querySelector("span").textContent = playing.on ? "Pause all" : "Play all";
    this.#parts.motion.querySelector("use").setAttribute("href", playing.on ? "#icon-pause" : "#icon-play");
  }

  #drawEmpty() {
    for (let i = 0; i < FRAMES; i += 1) {
      const canvas = element("canvas", {});
      paintEmerging(canvas, i / (FRAMES - 1));
      this.#parts.emerging.append(canvas);
    }
  }
}

// Where a video is seen: noise while it waits, previews while it is made, then the video itself, all in one place.

import { element, icon } from "./element.js";
import { paintNoise } from "./noise.js";
import { isExpired, isOver } from "./words.js";

const motion = matchMedia("(prefers-reduced-motion: reduce)");
const CRISP_UP_TO = 128;

/** Whether videos move by themselves: as the system is set, until somebody says otherwise. */
export const playing = {
  get on() {
    return (localStorage.getItem("framedit.playing") ?? (motion.matches ? "no" : "yes")) === "yes";
  },
  set on(on) {
    localStorage.setItem("framedit.playing", on ? "yes" : "no");
    for (const screen of screens.values()) screen.moveOrRest();
  },
};

// Only what can be seen is loaded and moves.
const screens = new Map();
const watcher = new IntersectionObserver(
  (entries) => entries.forEach(({ target, isIntersecting }) => screens.get(target)?.seen(isIntersecting)),
  { rootMargin: "200px" },
);

export class Screen {
  #media;
  #video;
  #film = null;
  #files = [];
  #size;
  #visible = false;
  #controls;
  #closed = false;
  #askedForThumbnail = false;

  constructor(media, video, { controls = false } = {}) {
    this.#media = media;
    this.#controls = controls;
    this.#video = video;
    const [width, height] = video.size.split("x").map(Number);
    this.noise = element("canvas", { class: "noise" });
    this.preview = element("img", { class: "preview", alt: "", hidden: true });
    this.preview.addEventListener("error", () => (this.preview.hidden = true));
    const properties = { class: "screen", "aria-hidden": controls ? null : "true" };
    const sign = icon("none");
    sign.classList.add("sign");
    this.element = element("span", properties, this.noise, this.preview, sign);
    this.element.style.aspectRatio = `${width} / ${height}`;
    this.element.classList.toggle("crisp", Math.max(width, height) <= CRISP_UP_TO);
    this.#size = [width, height];
    screens.set(this.element, this);
    watcher.observe(this.element);
    this.update(video, {});
  }

  update(video, live) {
    this.#video = video;
    if (!this.#film) this.#paint(live);
    if (live.preview && video.status === "in_progress" && this.preview.src !== live.preview) {
      this.preview.src = live.preview;
      this.preview.hidden = false;
    }
    this.element.dataset.state = isOver(video) && isExpired(video) ? "expired" : video.status;
    this.#load();
  }

  seen(visible) {
    this.#visible = visible;
    this.moveOrRest();
  }

  moveOrRest() {
    this.#load();
    if (!this.#film || this.#controls) return;
    if (this.#visible && playing.on) this.#film.play().catch(() => {}); // a browser may forbid it; a still is fine
    else this.#film.pause();
  }

  close() {
    watcher.unobserve(this.element);
    screens.delete(this.element);
    this.#closed = true;
    this.#film?.removeAttribute("src"); // lets go of the connection
    this.#film?.load();
    for (const file of this.#files) file.close();
  }

  #paint(live) {
    const { status, seed, progress } = this.#video;
    const amount = status === "queued" ? 0.55 : status === "in_progress" ? 1 - 0.6 * (progress / 100) : 0.3;
    // New noise at each step; with less motion asked for, the same noise only fades.
    const step = status === "in_progress" && !motion.matches ? (live.step ?? progress) : 0;
    paintNoise(this.noise, ...this.#size, seed + step, amount);
  }

  #load() {
    if (!this.#visible || this.#video.status !== "completed" || isExpired(this.#video)) return;
    if (this.preview.hidden && !this.#askedForThumbnail) this.#showThumbnail();
    if (!this.#film && (playing.on || this.#controls)) this.#showFilm();
  }

  /** What is seen until the video has come, or where it is not to move; a preview is as good. */
  async #showThumbnail() {
    this.#askedForThumbnail = true;
    this.preview.hidden = false;
    const url = await this.#open("thumbnail").catch(() => null);
    if (url) this.preview.src = url;
    else this.preview.hidden = true;
  }

  async #showFilm() {
    const film = element("video", {
      class: "film",
      loop: true,
      playsinline: true,
      controls: this.#controls,
      autoplay: this.#controls && playing.on,
      tabindex: this.#controls ? null : "-1",
      "aria-label": this.#controls ? "The video" : null,
    });
    film.muted = true; // without this, it may not play by itself
    this.#film = film;
    film.addEventListener("loadeddata", () => this.element.classList.add("developed"), { once: true });
    film.addEventListener("error", () => this.#missing());
    this.element.append(film);
    try {
      const url = await this.#open("video");
      if (this.#closed) return;
      film.src = url;
      this.moveOrRest();
    } catch {
      this.#missing();
    }
  }

  async #open(variant) {
    const file = await this.#media.open(this.#video.id, variant);
    if (this.#closed) file.close();
    else this.#files.push(file);
    return file.url;
  }

  #missing() {
    if (!this.#closed) this.element.dataset.state = "missing";
  }
}

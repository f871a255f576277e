// The picture of one video: noise while it is queued, previews while it is in progress, then the video itself.

import { element, icon } from "./element.js";
import { paintNoise } from "./noise.js";
import { isExpired, isFilm, isImage, isOver, pictureOf } from "./words.js";

const motion = matchMedia("(prefers-reduced-motion: reduce)");
const CRISP_UP_TO = 128;

/** Whether videos play automatically: by the system's motion setting, until the user chooses. */
export const playing = {
  get on() {
    return (localStorage.getItem("framedit.playing") ?? (motion.matches ? "no" : "yes")) === "yes";
  },
  set on(on) {
    localStorage.setItem("framedit.playing", on ? "yes" : "no");
    for (const screen of screens.values()) screen.playOrPause();
  },
};

// Only visible videos are loaded and played.
const screens = new Map();
const visibility = new IntersectionObserver(
  (entries) => entries.forEach(({ target, isIntersecting }) => screens.get(target)?.setVisible(isIntersecting)),
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
  #driven;
  #label;
  #closed = false;
  #requestedThumbnail = false;

  /** With `driven`, others play the film: the function is called with it once its length is known. */
  constructor(media, video, { controls = false, driven = null, label = "The video" } = {}) {
    this.#media = media;
    this.#controls = controls;
    this.#driven = driven;
    this.#label = label;
    this.#video = video;
    const [width, height] = video.size.split("x").map(Number);
    this.noise = element("canvas", { class: "noise" });
    this.preview = element("img", { class: "preview", alt: "", hidden: true });
    this.preview.addEventListener("error", () => (this.preview.hidden = true));
    const properties = { class: "screen", "aria-hidden": controls || driven ? null : "true" };
    const sign = icon("none");
    sign.classList.add("sign");
    this.element = element("span", properties, this.noise, this.preview, sign);
    this.element.style.aspectRatio = `${width} / ${height}`;
    this.element.classList.toggle("crisp", Math.max(width, height) <= CRISP_UP_TO);
    this.#size = [width, height];
    screens.set(this.element, this);
    visibility.observe(this.element);
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

  setVisible(visible) {
    this.#visible = visible;
    this.playOrPause();
  }

  playOrPause() {
    this.#load();
    if (!this.#film || this.#controls || this.#driven) return;
    // Browsers may forbid autoplay. They show the first frame then.
    if (this.#visible && playing.on) this.#film.play().catch(() => {});
    else this.#film.pause();
  }

  close() {
    visibility.unobserve(this.element);
    screens.delete(this.element);
    this.#closed = true;
    this.#film?.removeAttribute("src"); // closes the connection
    this.#film?.load();
    for (const file of this.#files) file.close();
  }

  #paint(live) {
    const { status, seed, progress } = this.#video;
    const amount = status === "queued" ? 0.55 : status === "in_progress" ? 1 - 0.6 * (progress / 100) : 0.3;
    // New noise at each step. With reduced motion, the same noise only fades.
    const step = status === "in_progress" && !motion.matches ? (live.step ?? progress) : 0;
    paintNoise(this.noise, ...this.#size, seed + step, amount);
  }

  #load() {
    if ((!this.#visible && !this.#driven) || this.#video.status !== "completed" || isExpired(this.#video)) return;
    const isPicture = !isFilm(this.#video);
    if ((this.preview.hidden || isPicture) && !this.#requestedThumbnail) this.#showThumbnail();
    if (isPicture) return;
    if (!this.#film && (playing.on || this.#controls || this.#driven)) this.#showFilm();
  }

  /** Shown until the video is loaded, and in place of it while videos are paused. A preview serves as well. The viewer
   * shows an image or an animation itself. */
  async #showThumbnail() {
    this.#requestedThumbnail = true;
    this.preview.hidden = false;
    const shown = this.#controls && !isFilm(this.#video) ? pictureOf(this.#video) : "thumbnail";
    if (shown === "video") this.preview.alt = isImage(this.#video) ? "The image" : "The video";
    const url = await this.#open(shown).catch(() => null);
    if (url) this.preview.src = url;
    else this.preview.hidden = true;
  }

  async #showFilm() {
    const film = element("video", {
      class: "film",
      loop: !this.#driven,
      playsinline: true,
      controls: this.#controls,
      autoplay: this.#controls && playing.on,
      tabindex: this.#controls ? null : "-1",
      "aria-label": this.#controls || this.#driven ? this.#label : null,
    });
    film.muted = true; // browsers allow autoplay for muted videos only
    this.#film = film;
    film.addEventListener("loadeddata", () => this.element.classList.add("developed"), { once: true });
    if (this.#driven) film.addEventListener("loadedmetadata", () => this.#driven(film), { once: true });
    film.addEventListener("error", () => this.#missing());
    this.element.append(film);
    try {
      const url = await this.#open("video");
      if (this.#closed) return;
      film.src = url;
      this.playOrPause();
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

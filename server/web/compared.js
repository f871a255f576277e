// One model's column of a comparison: its film, its state, and what the video cost.

import { element } from "./element.js";
import { Screen } from "./screen.js";
import { failure, isImage, progress } from "./words.js";

export class Compared {
  #media;
  #screen = null;
  #onFilm;

  /** `onFilm(film, fps)` is called when the film can be played. */
  constructor(media, model, onFilm) {
    this.#media = media;
    this.#onFilm = onFilm;
    this.model = model;
    this.id = null;
    this.stage = element("div", { class: "compared-stage" });
    this.state = element("p", { class: "state" }, "Sending");
    this.facts = element("dl", { class: "facts" });
    this.element = element("li", {}, element("h3", {}, model), this.stage, this.state, this.facts);
  }

  update(video, live) {
    if (!this.#screen) {
      this.id = video.id;
      const driven = (film) => this.#onFilm(film, video.fps);
      this.#screen = new Screen(this.#media, video, { driven, label: `The video of ${this.model}` });
      this.stage.replaceChildren(this.#screen.element);
    }
    this.#screen.update(video, live);
    this.element.dataset.status = video.status;
    const isDone = video.status === "completed";
    this.state.textContent = video.status === "failed" ? failure(video) : isDone ? "" : progress(video, live);
    this.facts.replaceChildren(
      ...(isDone ? costs(video) : []).map(([name, value]) =>
        element("div", {}, element("dt", {}, name), element("dd", {}, value)),
      ),
    );
  }

  /** Show why there is no video. The other columns go on. */
  fail(message) {
    this.element.dataset.status = "failed";
    this.state.textContent = message;
  }

  close() {
    this.#screen?.close();
  }
}

function costs(video) {
  const { denoise_s = 0, decode_s = 0, encode_s = 0 } = video.timings ?? {};
  return [
    ["Time", `${(denoise_s + decode_s + encode_s).toFixed(1)} s`],
    ["Rows computed", String(video.rows_computed ?? "unknown")],
    ["Frames", isImage(video) ? "1, an image" : `${video.num_frames} at ${video.fps} fps`],
  ];
}

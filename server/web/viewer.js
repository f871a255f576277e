// The dialog with one video, its settings and its actions.

import { element, icon } from "./element.js";
import { Screen } from "./screen.js";
import * as snippets from "./snippets.js";
import { failure, isOver, progress, settings, subject } from "./words.js";

export class Viewer {
  #dialog = document.getElementById("viewer");
  #parts = {};
  #api;
  #library;
  #media;
  #actions;
  #screen = null;
  #id = null;
  #phase = "";

  constructor(api, library, media, actions) {
    this.#api = api;
    this.#library = library;
    this.#media = media;
    this.#actions = actions;
    for (const name of ["stage", "subject", "state", "settings", "actions", "snippet", "source", "seam"]) {
      this.#parts[name] = document.getElementById(`viewer-${name}`);
    }
    document.getElementById("viewer-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close());
    this.#dialog.addEventListener("close", () => this.#leave());
    library.addEventListener("change", ({ detail }) => detail.video.id === this.#id && this.#update());
    library.addEventListener("remove", ({ detail }) => detail.id === this.#id && this.#dialog.close());
  }

  open(video) {
    this.#leave();
    this.#id = video.id;
    this.#phase = "";
    this.#screen = new Screen(this.#media, video, { controls: true });
    this.#parts.stage.replaceChildren(this.#screen.element);
    this.#parts.snippet.hidden = true;
    this.#update();
    history.replaceState(null, "", `#${video.id}`);
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  close() {
    this.#dialog.close();
  }

  #leave() {
    this.#screen?.close();
    this.#screen = null;
    this.#id = null;
    history.replaceState(null, "", location.pathname + location.search);
  }

  #update() {
    const [video, live] = [this.#library.get(this.#id), this.#library.live(this.#id)];
    if (!video) return;
    this.#screen.update(video, live);
    this.#parts.subject.textContent = subject(video);
    this.#parts.state.textContent = stateOf(video, live);
    this.#parts.state.dataset.status = video.status;
    this.#parts.settings.replaceChildren(
      ...settings(video).map(([name, value]) =>
        element("div", {}, element("dt", {}, name), element("dd", {}, String(value))),
      ),
    );
    this.#showSource(video);
    this.#showSeam(video);
    const phase = isOver(video) ? video.status : "unfinished";
    if (phase !== this.#phase) this.#parts.actions.replaceChildren(...this.#buttons(video, phase));
    this.#phase = phase;
  }

  /** Mark where the continuation starts on the timeline of an extension. */
  #showSeam(video) {
    const isExtension = video.reference?.use === "extend";
    this.#parts.seam.hidden = !isExtension;
    if (!isExtension) return;
    this.#parts.seam.style.setProperty("--at", `${(100 * video.reference.num_frames) / video.num_frames}%`);
  }

  #showSource(video) {
    const id = video.remixed_from_video_id ?? video.source_video_id;
    this.#parts.source.hidden = !id || !this.#library.get(id);
    this.#parts.source.onclick = () => this.open(this.#library.get(id));
  }

  #buttons(video, phase) {
    const current = () => this.#library.get(video.id) ?? video;
    const button = (name, label, picture, act = () => this.#actions[name](current())) =>
      element("button", { type: "button", class: "button", onclick: act }, icon(picture), label);
    const curl = button("curl", "Copy as curl", "copy", () => this.#copy(snippets.curl(current(), this.#api)));
    const python = button("python", "Copy as Python", "copy", () => this.#copy(snippets.python(current(), this.#api)));
    const again = button("again", "Repeat", "again");
    const remix = video.prompt ? [button("remix", "Remix", "remix")] : [];
    const edit = video.prompt ? [button("edit", "Edit", "edit")] : [];
    const extend = button("extend", "Extend", "extend");
    const use = button("use", "Use settings", "sliders");
    const remove = button("remove", "Delete", "bin");
    if (phase === "unfinished") return [button("cancel", "Cancel", "close"), use, curl, python];
    if (phase === "failed") return [again, use, curl, python, remove];
    return [again, ...remix, ...edit, extend, use, button("download", "Download", "download"), curl, python, remove];
  }

  /** Also shows the code, so that it can be copied by hand where the browser denies access to its clipboard. */
  async #copy(text) {
    const [title, code] = this.#parts.snippet.children;
    code.textContent = text;
    this.#parts.snippet.hidden = false;
    try {
      await navigator.clipboard.writeText(text);
      title.textContent = "Copied";
    } catch {
      title.textContent = "Select and copy";
      getSelection().selectAllChildren(code);
    }
    this.#parts.snippet.scrollIntoView({ block: "nearest" });
  }
}

function stateOf(video, live) {
  if (video.status === "failed") return failure(video);
  return video.status === "completed" ? "" : progress(video, live);
}

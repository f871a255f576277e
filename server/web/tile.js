// One video in the gallery.

import { element, icon, iconButton } from "./element.js";
import { Screen } from "./screen.js";
import { failure, isCancelled, isExpired, isOver, progress, subject } from "./words.js";

export class Tile {
  #video;
  #actions;
  #phase = "";

  /** `actions`: functions of a video, by name: open, again, remix, edit, extend, download, cancel, remove. */
  constructor(media, video, actions) {
    this.#actions = actions;
    this.screen = new Screen(media, video);
    this.words = element("span", { class: "state" });
    this.bar = element("progress", { class: "meter", max: "100", "aria-label": "Progress" });
    this.opener = element(
      "button",
      { type: "button", class: "opener", onclick: () => actions.open(this.#video) },
      this.screen.element,
    );
    this.subject = element("p", { class: "subject" });
    this.seed = element("span", { class: "fact" });
    this.buttons = element("div", { class: "actions" });
    this.element = element(
      "li",
      { class: "tile", "data-id": video.id },
      this.opener,
      element("div", { class: "caption" }, this.subject, element("p", { class: "status" }, this.words), this.bar),
      this.buttons,
    );
    this.update(video, {});
  }

  update(video, live) {
    this.#video = video;
    this.screen.update(video, live);
    this.element.dataset.status = isCancelled(video) ? "cancelled" : video.status;
    this.subject.textContent = subject(video);
    this.opener.setAttribute("aria-label", `${subject(video)}: open`);
    this.words.textContent = state(video, live);
    this.bar.hidden = video.status !== "in_progress";
    this.bar.value = live.step ? (100 * live.step) / live.steps : video.progress;
    const phase = isOver(video) ? video.status : "unfinished";
    if (phase !== this.#phase) this.#offer(phase);
    this.#phase = phase;
  }

  close() {
    this.screen.close();
    this.element.remove();
  }

  #offer(phase) {
    const button = (name, label, picture = name) =>
      iconButton(picture, `${label}: ${subject(this.#video)}`, () => this.#actions[name](this.#video));
    const again = button("again", "Repeat with a new seed");
    const buttons = {
      unfinished: [this.#cancelButton()],
      completed: [
        again,
        ...(this.#video.prompt ? [button("remix", "Remix"), button("edit", "Edit")] : []),
        button("extend", "Extend"),
        button("download", "Download"),
        button("remove", "Delete", "bin"),
      ],
      failed: [again, button("remove", "Delete", "bin")],
    };
    this.buttons.replaceChildren(...buttons[phase]);
  }

  #cancelButton() {
    const label = `Cancel: ${subject(this.#video)}`;
    const onclick = () => this.#actions.cancel(this.#video);
    return element("button", { type: "button", class: "quiet", "aria-label": label, onclick }, icon("close"), "Cancel");
  }
}

function state(video, live) {
  if (video.status === "failed") return failure(video);
  if (video.status !== "completed") return progress(video, live);
  return isExpired(video) ? "Expired" : `Seed ${video.seed}`;
}

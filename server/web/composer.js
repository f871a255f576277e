// The form that creates a video: model, prompt or class, and settings, which start at the model's defaults.

import { element } from "./element.js";
import { randomSeed } from "./seed.js";
import { isImage, readable } from "./words.js";

const NO_ADAPTER = "none";
const MODEL = "framedit.model";
const FILTER_FROM = 25;
const WORDS = { remix: "Remix", edit: "Edit" };

/** The number fields of the settings: default and limits by the model's card. */
const NUMBERS = {
  num_inference_steps: (card) => ({ initial: card.num_inference_steps, min: 1, max: card.max_inference_steps }),
  guidance_scale: (card) => ({ initial: card.guidance_scale, min: 0, max: card.max_guidance_scale, step: 0.5 }),
  num_frames: (card) => ({ initial: card.num_frames, min: card.min_frames, max: card.max_frames }),
  fps: (card) => ({ initial: card.fps, min: 1, max: 60 }),
  n: () => ({ initial: 1, min: 1, max: 10 }),
};

export class Composer {
  #form = document.getElementById("composer");
  #models = null;
  #source = null;
  #mode = "";
  #file = null;
  #submit;

  /**
   * `submit(body, {source, mode, file})` sends the request and throws `ApiError`. With a `source` video, the request is
   * a "remix" or an "edit" of it. `file` is an image or a video to start from.
   */
  constructor(submit) {
    this.#submit = submit;
    this.#form.addEventListener("submit", (event) => this.#send(event));
    this.#form.addEventListener("input", () => this.#refresh());
    this.#field("model").addEventListener("change", () => this.#choose(this.#field("model").value));
    this.#field("prompt").addEventListener("keydown", (event) => this.#enter(event));
    this.#part("settings-button").addEventListener("click", () => this.#openSettings(this.#part("settings").hidden));
    this.#part("dice").addEventListener("click", () => this.#randomSeed());
    this.#part("reset").addEventListener("click", () => this.#reset());
    this.#part("filter").addEventListener("input", () => this.#filter());
    this.#part("remix-cancel").addEventListener("click", () => this.#cancelRemix());
    this.#part("file-button").addEventListener("click", () => this.#part("file").click());
    this.#part("file").addEventListener("change", ({ target }) => this.#attach(target.files[0] ?? null));
    this.#part("file-remove").addEventListener("click", () => this.#attach(null));
    this.#form.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
    this.#form.addEventListener("drop", (event) => this.#drop(event));
  }

  /** The available models, updated as workers start and stop. */
  set models(models) {
    const before = JSON.stringify(this.#models);
    if (before === JSON.stringify(models)) return;
    this.#form.hidden = false;
    const chosen = this.#card?.id ?? localStorage.getItem(MODEL);
    this.#models = models;
    this.#field("model").replaceChildren(...models.map(({ id }) => element("option", { value: id }, id)));
    this.#part("no-models").hidden = models.length > 0;
    this.#part("compare-button").hidden = models.length < 2;
    this.#part("with-models").hidden = models.length === 0;
    if (!models.length) return;
    const card = models.find(({ id }) => id === chosen) ?? models.find((m) => m.conditioning === "text") ?? models[0];
    if (card.id === this.#form.dataset.model) this.#describe();
    else this.#choose(card.id);
  }

  /** null until the first answer. */
  get models() {
    return this.#models;
  }

  /** The request as it is filled in. */
  get body() {
    return this.#body();
  }

  /** Fill the form with the settings of a video, including its seed. */
  use(video) {
    this.#endRemix();
    this.#attach(null);
    if (!this.#models?.some(({ id }) => id === video.model)) return;
    this.#choose(video.model);
    this.#field("prompt").value = video.prompt ?? "";
    for (const name of ["num_inference_steps", "guidance_scale", "num_frames", "fps", "seed", "sampler", "speed", "size"]) {
      this.#field(name).value = video[name];
    }
    this.#field("adapter").value = video.adapters?.[0]?.name ?? NO_ADAPTER;
    if (!this.#field("adapter").value) this.#field("adapter").value = NO_ADAPTER; // removed since
    this.#field("negative_prompt").value = video.negative_prompt ?? "";
    this.#field("clean_caption").value = String(video.clean_caption);
    if (!isImage(video)) this.#field("output_format").value = video.output_format;
    if (video.output_format !== "png") this.#field("output_quality").value = video.output_quality;
    const radio = this.#form.querySelector(`[name=class_label][value="${video.class_label}"]`);
    if (radio) radio.checked = true;
    this.#part("not-attached").hidden = !video.reference;
    this.#refresh();
    this.#focus();
  }

  /** Prepare a remix: the same model, seed and settings with a new prompt. */
  remix(video) {
    this.#startFrom(video, "remix");
  }

  /** Prepare an edit: a new prompt changes the video. */
  edit(video) {
    this.#startFrom(video, "edit");
  }

  #startFrom(video, mode) {
    this.use(video);
    this.#part("not-attached").hidden = true; // the server takes it from the video
    this.#source = video;
    this.#mode = mode;
    this.#form.dataset.mode = mode;
    this.#part("remix-of").textContent = video.prompt;
    this.#part("remix-cancel").textContent = `Cancel ${mode}`;
    this.#field("prompt").select();
    this.#refresh();
  }

  #attach(file) {
    this.#file = file;
    if (!file) this.#part("file").value = "";
    this.#part("file-name").textContent = file?.name ?? "";
    this.#part("attached").hidden = !file;
    this.#part("not-attached").hidden = true;
  }

  #drop(event) {
    if (!holdsFiles(event)) return; // text, which the browser drops into the prompt
    event.preventDefault();
    if (!this.#source && event.dataTransfer.files.length) this.#attach(event.dataTransfer.files[0]);
  }

  #field = (name) => this.#form.elements[name];
  #part = (name) => document.getElementById(name);

  get #card() {
    return this.#models?.find(({ id }) => id === this.#form.dataset.model);
  }

  #choose(id) {
    this.#form.dataset.model = id;
    const card = this.#card;
    localStorage.setItem(MODEL, id);
    this.#field("model").value = id;
    this.#form.dataset.conditioning = card.conditioning;
    this.#field("prompt").maxLength = card.max_prompt_characters;
    this.#field("prompt").placeholder = "Describe a scene";
    this.#part("examples").replaceChildren(...card.examples.map((example) => this.#example(example)));
    this.#part("classes").replaceChildren(...(card.class_names ?? []).map((name, index) => classChoice(name, index)));
    this.#part("filter").value = "";
    this.#part("filter").hidden = (card.class_names ?? []).length < FILTER_FROM;
    this.#reset();
    this.#describe();
  }

  #describe() {
    const card = this.#card;
    const away = "No worker serves this model at the moment. Videos stay queued until one starts.";
    this.#part("model-note").textContent = card.workers_alive ? card.description : away;
    this.#part("model-note").classList.toggle("warning", !card.workers_alive);
  }

  #reset() {
    const card = this.#card;
    for (const [name, limits] of Object.entries(NUMBERS)) {
      const { initial, min, max, step = 1 } = limits(card);
      Object.assign(this.#field(name), { value: initial, min, max, step, placeholder: initial });
      this.#part(`${name}-limits`).textContent = `${min} to ${max}`;
      this.#field(name).closest(".field").hidden = min === max;
    }
    this.#fill("sampler", card.samplers, card.sampler);
    this.#fill("speed", card.speeds ?? ["exact"], "exact");
    this.#fill("adapter", [NO_ADAPTER, ...(card.adapters ?? []).map(({ name }) => name)], NO_ADAPTER);
    this.#fill("size", card.sizes, card.sizes[0]);
    this.#field("negative_prompt").value = card.negative_prompt;
    this.#field("clean_caption").value = String(card.clean_caption);
    this.#field("priority").value = "normal";
    this.#field("output_format").value = "mp4";
    this.#field("output_quality").value = "high";
    this.#refresh();
  }

  #fill(name, values, initial) {
    const select = this.#field(name);
    select.replaceChildren(...values.map((value) => element("option", { value }, value)));
    select.value = initial;
    select.closest(".field").hidden = values.length < 2;
  }

  /** The settings that differ from the model's defaults. */
  #changes() {
    const card = this.#card;
    const changes = {};
    for (const [name, limits] of Object.entries(NUMBERS)) {
      const text = this.#field(name).value;
      if (text !== "" && Number(text) !== limits(card).initial) changes[name] = Number(text);
    }
    const initial = { sampler: card.sampler, size: card.sizes[0], speed: "exact", priority: "normal" };
    // One frame is a PNG, and PNG is lossless: the server refuses another value.
    if (this.#field("num_frames").value !== "1") initial.output_format = "mp4";
    if (initial.output_format && this.#field("output_format").value !== "png") initial.output_quality = "high";
    if (card.conditioning === "text") initial.negative_prompt = card.negative_prompt;
    for (const [name, value] of Object.entries(initial)) {
      if (this.#field(name).value.trim() !== value) changes[name] = this.#field(name).value.trim();
    }
    const adapter = this.#field("adapter").value;
    if (adapter !== NO_ADAPTER) changes.adapters = [{ name: adapter }];
    const cleans = this.#field("clean_caption").value === "true";
    if (card.conditioning === "text" && cleans !== card.clean_caption) changes.clean_caption = cleans;
    return changes;
  }

  #body() {
    const card = this.#card;
    const body = { model: card.id, ...this.#changes() };
    const label = this.#form.querySelector("[name=class_label]:checked")?.value;
    if (card.conditioning === "text") body.prompt = this.#field("prompt").value;
    if (card.conditioning === "class" && label) body.class_label = Number(label);
    if (this.#field("seed").value !== "") body.seed = Number(this.#field("seed").value);
    return body;
  }

  async #send(event) {
    event.preventDefault();
    if (this.#part("generate").disabled) return;
    this.#showError(null);
    this.#form.setAttribute("aria-busy", "true");
    this.#part("generate").disabled = true;
    try {
      await this.#submit(this.#body(), { source: this.#source, mode: this.#mode, file: this.#file });
      this.#attach(null);
      this.#endRemix();
    } catch (error) {
      this.#showError(error);
    } finally {
      this.#form.removeAttribute("aria-busy");
      this.#part("generate").disabled = false;
    }
  }

  /** Show what is wrong and focus the field that caused it. */
  #showError(error) {
    for (const field of this.#form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
    this.#part("composer-error").textContent = error ? this.#withLabel(error) : "";
    const found = error?.param ? this.#form.querySelector(`[name="${CSS.escape(error.param)}"]`) : null;
    if (!found) return;
    found.setAttribute("aria-invalid", "true");
    if (this.#part("settings").contains(found)) this.#openSettings(true);
    found.focus();
  }

  /** The message with the field's label instead of its name. */
  #withLabel(error) {
    const label = this.#form.elements[error.param]?.labels?.[0].textContent.trim();
    const name = error.param === "class_label" ? "Class" : label;
    return name ? error.message.replace(new RegExp(`^${error.param}\\b`, "i"), name) : error.message;
  }

  #enter(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#form.requestSubmit();
  }

  #openSettings(open) {
    this.#part("settings").hidden = !open;
    this.#part("settings-button").setAttribute("aria-expanded", String(open));
  }

  #randomSeed() {
    this.#field("seed").value = randomSeed();
    this.#refresh();
  }

  #example(text) {
    const onclick = () => {
      this.#field("prompt").value = text;
      this.#refresh();
      this.#field("prompt").focus();
    };
    return element("li", {}, element("button", { type: "button", class: "chip", onclick }, text));
  }

  #filter() {
    const wanted = this.#part("filter").value.toLowerCase().split(/\s+/);
    for (const choice of this.#part("classes").children) {
      const name = choice.textContent.toLowerCase();
      choice.hidden = !wanted.every((word) => name.includes(word));
    }
  }

  #cancelRemix() {
    this.#field("seed").value = ""; // it was the original's
    this.#endRemix();
  }

  #endRemix() {
    this.#source = null;
    delete this.#form.dataset.mode;
    this.#refresh();
  }

  #refresh() {
    const changed = this.#card ? Object.keys(this.#changes()).length : 0;
    this.#part("reset").hidden = changed === 0;
    const oneFrame = this.#field("num_frames").value === "1";
    this.#field("output_format").closest(".field").hidden = oneFrame;
    this.#field("output_quality").closest(".field").hidden = oneFrame || this.#field("output_format").value === "png";
    const words = [String(changed), element("span", { class: "wide-only" }, " changed")];
    this.#part("changed").replaceChildren(...(changed ? words : []));
    const count = Number(this.#field("n").value);
    this.#part("generate-words").textContent = this.#source ? WORDS[this.#mode] : count > 1 ? `Generate ${count}` : "Generate";
  }

  #focus() {
    this.#form.scrollIntoView({ block: "nearest" });
    const radio = this.#form.querySelector("[name=class_label]:checked");
    (this.#card.conditioning === "class" && radio ? radio : this.#field("prompt")).focus({ preventScroll: true });
  }
}

const holdsFiles = (event) => event.dataTransfer.types.includes("Files");

function classChoice(name, index) {
  const radio = element("input", { type: "radio", name: "class_label", value: index });
  return element("label", { class: "chip" }, radio, readable(name));
}

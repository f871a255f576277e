// Where a video is asked for: the model, what it is to show, and the settings, which are the model's own until changed.

import { element } from "./element.js";
import { readable } from "./words.js";

const MODEL = "framedit.model";
const FILTER_FROM = 25;
const MAX_SEED = 2 ** 31 - 1;

/** The number fields of the settings: what the card says of each. */
const NUMBERS = {
  num_inference_steps: (card) => ({ usual: card.num_inference_steps, min: 1, max: card.max_inference_steps }),
  guidance_scale: (card) => ({ usual: card.guidance_scale, min: 0, max: card.max_guidance_scale, step: 0.5 }),
  num_frames: (card) => ({ usual: card.num_frames, min: card.min_frames, max: card.max_frames }),
  fps: (card) => ({ usual: card.fps, min: 1, max: 60 }),
  n: () => ({ usual: 1, min: 1, max: 10 }),
};

export class Composer {
  #form = document.getElementById("composer");
  #models = null;
  #remixed = null;
  #submit;

  /** `submit(body, remixed)` asks for it and throws `ApiError`. */
  constructor(submit) {
    this.#submit = submit;
    this.#form.addEventListener("submit", (event) => this.#send(event));
    this.#form.addEventListener("input", () => this.#refresh());
    this.#field("model").addEventListener("change", () => this.#choose(this.#field("model").value));
    this.#field("prompt").addEventListener("keydown", (event) => this.#enter(event));
    this.#part("settings-button").addEventListener("click", () => this.#openSettings(this.#part("settings").hidden));
    this.#part("dice").addEventListener("click", () => this.#roll());
    this.#part("reset").addEventListener("click", () => this.#reset());
    this.#part("filter").addEventListener("input", () => this.#filter());
    this.#part("remix-cancel").addEventListener("click", () => this.#endRemix());
  }

  /** The models there are, asked for now and then: workers come and go. */
  set models(models) {
    const before = JSON.stringify(this.#models);
    if (before === JSON.stringify(models)) return;
    this.#form.hidden = false;
    const chosen = this.#card?.id ?? localStorage.getItem(MODEL);
    this.#models = models;
    this.#field("model").replaceChildren(...models.map(({ id }) => element("option", { value: id }, id)));
    this.#part("no-models").hidden = models.length > 0;
    this.#part("with-models").hidden = models.length === 0;
    if (!models.length) return;
    const card = models.find(({ id }) => id === chosen) ?? models.find((m) => m.conditioning === "text") ?? models[0];
    if (card.id === this.#form.dataset.model) this.#describe();
    else this.#choose(card.id);
  }

  /** null before it is known. */
  get models() {
    return this.#models;
  }

  /** Take over what a video was made with, its seed among it. */
  use(video) {
    this.#endRemix();
    if (!this.#models?.some(({ id }) => id === video.model)) return;
    this.#choose(video.model);
    this.#field("prompt").value = video.prompt ?? "";
    for (const name of ["num_inference_steps", "guidance_scale", "num_frames", "fps", "seed", "sampler", "size"]) {
      this.#field(name).value = video[name];
    }
    this.#field("negative_prompt").value = video.negative_prompt ?? "";
    const radio = this.#form.querySelector(`[name=class_label][value="${video.class_label}"]`);
    if (radio) radio.checked = true;
    this.#refresh();
    this.#focus();
  }

  /** The next video is this one's remix: the same model, seed and settings with other words. */
  remix(video) {
    this.use(video);
    this.#remixed = video;
    this.#form.dataset.mode = "remix";
    this.#part("remix-of").textContent = video.prompt;
    this.#field("prompt").select();
    this.#refresh();
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
    const away = "No worker serves this model right now: videos wait until one does.";
    this.#part("model-note").textContent = card.workers_alive ? card.description : away;
    this.#part("model-note").classList.toggle("warning", !card.workers_alive);
  }

  #reset() {
    const card = this.#card;
    for (const [name, limits] of Object.entries(NUMBERS)) {
      const { usual, min, max, step = 1 } = limits(card);
      Object.assign(this.#field(name), { value: usual, min, max, step, placeholder: usual });
      this.#part(`${name}-limits`).textContent = `${min} to ${max}`;
      this.#field(name).closest(".field").hidden = min === max;
    }
    this.#fill("sampler", card.samplers, card.sampler);
    this.#fill("size", card.sizes, card.sizes[0]);
    this.#field("negative_prompt").value = card.negative_prompt;
    this.#field("priority").value = "normal";
    this.#refresh();
  }

  #fill(name, values, usual) {
    const select = this.#field(name);
    select.replaceChildren(...values.map((value) => element("option", { value }, value)));
    select.value = usual;
    select.closest(".field").hidden = values.length < 2;
  }

  /** What differs from the model's own settings. */
  #changes() {
    const card = this.#card;
    const changes = {};
    for (const [name, limits] of Object.entries(NUMBERS)) {
      const text = this.#field(name).value;
      if (text !== "" && Number(text) !== limits(card).usual) changes[name] = Number(text);
    }
    const usual = { sampler: card.sampler, size: card.sizes[0], priority: "normal" };
    if (card.conditioning === "text") usual.negative_prompt = card.negative_prompt;
    for (const [name, value] of Object.entries(usual)) {
      if (this.#field(name).value.trim() !== value) changes[name] = this.#field(name).value.trim();
    }
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
    this.#complain(null);
    this.#form.setAttribute("aria-busy", "true");
    this.#part("generate").disabled = true;
    try {
      await this.#submit(this.#body(), this.#remixed);
      this.#endRemix();
    } catch (error) {
      this.#complain(error);
    } finally {
      this.#form.removeAttribute("aria-busy");
      this.#part("generate").disabled = false;
    }
  }

  /** Say what is wrong, and take the reader to the field that is at fault. */
  #complain(error) {
    for (const field of this.#form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
    this.#part("composer-error").textContent = error ? this.#inWords(error) : "";
    const found = error?.param ? this.#form.querySelector(`[name="${CSS.escape(error.param)}"]`) : null;
    if (!found) return;
    found.setAttribute("aria-invalid", "true");
    if (this.#part("settings").contains(found)) this.#openSettings(true);
    found.focus();
  }

  /** Fields are called as on the page. */
  #inWords(error) {
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

  #roll() {
    this.#field("seed").value = Math.floor(Math.random() * MAX_SEED);
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

  #endRemix() {
    this.#remixed = null;
    delete this.#form.dataset.mode;
    this.#refresh();
  }

  #refresh() {
    const changed = this.#card ? Object.keys(this.#changes()).length : 0;
    this.#part("reset").hidden = changed === 0;
    const inWords = [String(changed), element("span", { class: "wide-only" }, " changed")];
    this.#part("changed").replaceChildren(...(changed ? inWords : []));
    const count = Number(this.#field("n").value);
    this.#part("generate-words").textContent = this.#remixed ? "Remix" : count > 1 ? `Generate ${count}` : "Generate";
  }

  #focus() {
    this.#form.scrollIntoView({ block: "nearest" });
    const radio = this.#form.querySelector("[name=class_label]:checked");
    (this.#card.conditioning === "class" && radio ? radio : this.#field("prompt")).focus({ preventScroll: true });
  }
}

function classChoice(name, index) {
  const radio = element("input", { type: "radio", name: "class_label", value: index });
  return element("label", { class: "chip" }, radio, readable(name));
}

// The dialog that compares models: one prompt or class and one seed, and the videos of up to four models in step.

import { Compared } from "./compared.js";
import { element } from "./element.js";
import { playing } from "./screen.js";
import { randomSeed } from "./seed.js";
import { Transport } from "./transport.js";
import { failure, isOver, readable } from "./words.js";

const MOST = 4;

export class Compare {
  #dialog = document.getElementById("compare");
  #form = document.getElementById("compare-form");
  #library;
  #media;
  #models = [];
  #columns = [];
  #transport = new Transport();

  constructor(library, media) {
    this.#library = library;
    this.#media = media;
    this.#form.addEventListener("submit", (event) => this.#start(event));
    this.#form.addEventListener("change", ({ target }) => target.name === "model" && this.#offer());
    document.getElementById("compare-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => this.#transport.pause());
    library.addEventListener("change", ({ detail }) => this.#change(detail));
    library.addEventListener("remove", ({ detail }) => this.#column(detail.id)?.fail("Deleted."));
  }

  /** Open with the request of the composer, whose model is chosen. */
  open(models, body) {
    this.#models = models;
    const chosen = this.#chosen().map(({ id }) => id);
    const known = chosen.includes(body.model) ? chosen : [body.model];
    document.getElementById("compare-models").replaceChildren(...models.map((card) => choice(card, known)));
    this.#form.elements.prompt.value = body.prompt ?? this.#form.elements.prompt.value;
    this.#form.elements.seed.value = body.seed ?? this.#form.elements.seed.value;
    this.#offer();
    if (body.class_label !== undefined) this.#form.elements.class_label.value = body.class_label;
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  #chosen() {
    const ids = [...this.#form.querySelectorAll("[name=model]:checked")].map(({ value }) => value);
    return this.#models.filter(({ id }) => ids.includes(id));
  }

  #column = (id) => this.#columns.find((column) => column.id === id);

  /** Enable the models that take the same input as the first chosen one, and show the field of that input. */
  #offer() {
    const chosen = this.#chosen();
    for (const box of this.#form.querySelectorAll("[name=model]")) {
      const card = this.#models.find(({ id }) => id === box.value);
      const reason = box.checked ? "" : whyNot(card, chosen);
      box.disabled = Boolean(reason);
      box.parentElement.nextElementSibling.textContent = reason;
    }
    document.getElementById("compare-start").disabled = !chosen.length;
    if (!chosen.length) return;
    const { conditioning, class_names: names } = chosen[0];
    this.#form.dataset.conditioning = conditioning;
    const select = this.#form.elements.class_label;
    const before = select.value;
    select.replaceChildren(
      ...(names ?? []).map((name, index) => element("option", { value: index }, readable(name))),
    );
    if (names?.[before]) select.value = before;
  }

  async #start(event) {
    event.preventDefault();
    const { prompt, class_label: label, seed } = this.#form.elements;
    if (seed.value === "") seed.value = randomSeed();
    const { conditioning } = this.#chosen()[0];
    const input = {
      text: { prompt: prompt.value },
      class: { class_label: Number(label.value) },
      none: {},
    }[conditioning];
    this.#clear();
    this.#columns = this.#chosen().map(({ id }) => new Compared(this.#media, id, (film, fps) => this.#join(film, fps)));
    document.getElementById("compare-columns").replaceChildren(...this.#columns.map((column) => column.element));
    this.#form.setAttribute("aria-busy", "true");
    const columns = this.#columns;
    await Promise.all(columns.map((column) => this.#create(column, { ...input, seed: Number(seed.value) })));
    if (columns === this.#columns) this.#form.removeAttribute("aria-busy");
  }

  async #create(column, input) {
    try {
      const [video] = await this.#library.create({ model: column.model, ...input });
      const known = this.#library.get(video.id) ?? video;
      column.update(known, this.#library.live(video.id));
    } catch (error) {
      column.fail(error.message);
      this.#say(`${column.model}: ${error.message}`);
    }
  }

  #change({ video, live, before }) {
    const column = this.#column(video.id);
    if (!column) return;
    column.update(video, live);
    if (before?.status === video.status || !isOver(video)) return;
    this.#say(`${column.model}: ${video.status === "completed" ? "completed" : failure(video)}`);
  }

  /** A film is ready. Play as soon as there is one, where videos play by themselves. */
  #join(film, fps) {
    this.#transport.add(film, fps);
    if (playing.on && this.#dialog.open) this.#transport.play();
  }

  /** The page's own announcements are hidden from screen readers while a dialog is open. */
  #say(text) {
    document.getElementById("compare-said").textContent = text;
  }

  #clear() {
    this.#transport.clear();
    for (const column of this.#columns) column.close();
  }
}

/** Why a model cannot be compared with those that are chosen; empty if it can. */
function whyNot(card, chosen) {
  if (!chosen.length) return "";
  const [first] = chosen;
  const takes = { text: "takes a prompt", class: "takes a class", none: "takes no input" };
  if (card.conditioning !== first.conditioning) return takes[card.conditioning];
  if (JSON.stringify(card.class_names) !== JSON.stringify(first.class_names)) return "has other classes";
  return chosen.length >= MOST ? `at most ${MOST} models` : "";
}

function choice({ id }, chosen) {
  const reason = `compare-reason-${id}`;
  const box = element("input", {
    type: "checkbox",
    name: "model",
    value: id,
    checked: chosen.includes(id),
    "aria-describedby": reason,
  });
  const label = element("label", { class: "chip" }, box, id);
  return element("li", {}, label, element("span", { class: "limits", id: reason }));
}

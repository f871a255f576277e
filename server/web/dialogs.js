// The two small dialogs: the API key, and "are you sure".

/** The dialog for the API key; `changed` is called after it has been set or removed. */
export class KeyDialog {
  #dialog = document.getElementById("key-dialog");
  #input = document.getElementById("key");
  #api;

  constructor(api, changed) {
    this.#api = api;
    const button = document.getElementById("key-button");
    const mark = () => button.classList.toggle("marked", Boolean(api.key));
    mark();
    button.addEventListener("click", () => this.open());
    const set = (key) => {
      this.#dialog.close();
      if (key === api.key) return;
      api.key = key;
      mark();
      changed();
    };
    this.#dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      set(this.#input.value.trim());
    });
    document.getElementById("key-remove").addEventListener("click", () => set(""));
    document.getElementById("key-cancel").addEventListener("click", () => this.#dialog.close());
    addEventListener("storage", (event) => {
      if (event.key !== "framedit.key") return; // another tab has set it
      mark();
      changed();
    });
  }

  /** `reason`: the server's words, where it asked. */
  open(reason = "") {
    if (this.#dialog.open) return;
    this.#input.value = this.#api.key;
    document.getElementById("key-reason").textContent = reason;
    document.getElementById("key-remove").hidden = !this.#api.key;
    this.#dialog.showModal();
  }
}

/** Whether somebody agrees to lose a video. */
export function confirmRemoval(question) {
  const dialog = document.getElementById("confirm");
  document.getElementById("confirm-question").textContent = question;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

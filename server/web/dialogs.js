// The two small dialogs: for the API key, and to confirm a deletion.

/** The dialog for the API key. `changed` is called after the key was set or removed. */
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
      if (event.key !== "framedit.key") return; // set by another tab
      mark();
      changed();
    });
  }

  /** `reason` says why the server needs a key. */
  open(reason = "") {
    if (this.#dialog.open) return;
    this.#input.value = this.#api.key;
    document.getElementById("key-reason").textContent = reason;
    document.getElementById("key-remove").hidden = !this.#api.key;
    this.#dialog.showModal();
  }
}

/** Ask the user to confirm a deletion. */
export function confirmRemoval(question) {
  const dialog = document.getElementById("confirm");
  document.getElementById("confirm-question").textContent = question;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

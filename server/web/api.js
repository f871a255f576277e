// Client of the server's routes.

const KEY = "framedit.key";

export class ApiError extends Error {
  /** Status 0: the server did not answer. */
  constructor(message, { status = 0, param = null, code = null, waitSeconds = 0 } = {}) {
    super(message);
    Object.assign(this, { status, param, code, waitSeconds });
  }
}

export class Api {
  // Relative to the page: a proxy may serve it under a path of its own.
  #base = new URL("v1/", document.baseURI);

  get key() {
    return localStorage.getItem(KEY) ?? "";
  }

  set key(key) {
    if (key) localStorage.setItem(KEY, key);
    else localStorage.removeItem(KEY);
  }

  get base() {
    return this.#base.href.replace(/\/$/, "");
  }

  contentUrl(id, variant = "video") {
    return this.#url(`videos/${id}/content`, variant === "video" ? {} : { variant }).href;
  }

  models = async () => (await this.#json("models")).data;
  list = (limit, after) => this.#json("videos", { query: after ? { limit, after } : { limit } });
  retrieve = (id) => this.#json(`videos/${id}`);
  cancel = (id) => this.#json(`videos/${id}/cancel`, { method: "POST" });
  remove = (id) => this.#json(`videos/${id}`, { method: "DELETE" });
  /** `changes`: a prompt, a seed or both. */
  remix = (id, changes) => this.#json(`videos/${id}/remix`, { method: "POST", body: changes });

  edit = (id, prompt) => this.#json("videos/edits", { method: "POST", body: { video: { id }, prompt } });
  extend = (id) => this.#json("videos/extensions", { method: "POST", body: { video: { id } } });

  /** The new videos: one, or as many as `body.n` asks for. `file` is an image or a video that they start from. */
  async create(body, file) {
    const answer = await this.#json("videos", { method: "POST", body: file ? toForm(body, file) : body });
    return answer.object === "list" ? answer.data : [answer];
  }

  /** A file of a video, fetched with the API key. */
  content = async (id, variant) => (await this.request(this.contentUrl(id, variant))).blob();

  async request(path, { method = "GET", query = {}, body, headers = {}, signal } = {}) {
    const sent = { ...headers };
    if (this.key) sent.Authorization = `Bearer ${this.key}`;
    const isForm = body instanceof FormData;
    if (body && !isForm) sent["Content-Type"] = "application/json";
    const url = this.#url(path, query);
    let answer;
    try {
      const content = isForm ? body : body && JSON.stringify(body);
      answer = await fetch(url, { method, headers: sent, body: content, signal, cache: "no-cache" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      // The page repeats its own reads. Actions are for the user to repeat.
      throw new ApiError(`The server does not answer. ${method === "GET" ? "Retrying." : "Try again."}`);
    }
    if (!answer.ok) throw await toApiError(answer);
    return answer;
  }

  #json = async (path, options) => (await this.request(path, options)).json();

  #url(path, query = {}) {
    const url = new URL(path, this.#base);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    return url;
  }
}

function toForm(body, file) {
  const form = new FormData();
  for (const [name, value] of Object.entries(body)) {
    form.set(name, typeof value === "object" ? JSON.stringify(value) : value);
  }
  form.set("input_reference", file);
  return form;
}

async function toApiError(answer) {
  const error = (await answer.json().catch(() => null))?.error ?? {};
  let message = error.message ?? `the server answered ${answer.status} ${answer.statusText}`;
  const waitSeconds = Number(answer.headers.get("Retry-After"));
  if (answer.status === 429 && waitSeconds && !/\d+ ?s/.test(message)) message += `; try again in ${waitSeconds} s`;
  return new ApiError(sentence(message), { status: answer.status, param: error.param, code: error.code, waitSeconds });
}

/** The server's messages start in lower case without a full stop, because the commands print them after a prefix. */
export function sentence(text) {
  const starts = /^[a-z]+\b(?!_)/.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
  return /[.!?]$/.test(starts) ? starts : `${starts}.`;
}

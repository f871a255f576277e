// URLs of files for media elements. Without an API key: the URL of the route, with ranges and the browser's cache.
// With a key, which an element cannot send: a blob that is fetched once and kept while an element shows it.

export class Media {
  #api;
  #blobs = new Map(); // id and variant -> {url: a promise, users}

  constructor(api) {
    this.#api = api;
  }

  /** A URL for `src`, and a function that releases it. Throws `ApiError`. */
  async open(id, variant) {
    if (!this.#api.key) return { url: this.#api.contentUrl(id, variant), close: () => {} };
    const name = `${id} ${variant}`;
    const fetched = () => this.#api.content(id, variant).then(URL.createObjectURL);
    const blob = this.#blobs.get(name) ?? { url: fetched(), users: 0 };
    this.#blobs.set(name, blob);
    blob.users += 1;
    const close = () => this.#close(name, blob);
    try {
      return { url: await blob.url, close };
    } catch (error) {
      close();
      throw error;
    }
  }

  #close(name, blob) {
    blob.users -= 1;
    if (blob.users > 0) return;
    if (this.#blobs.get(name) === blob) this.#blobs.delete(name);
    blob.url.then(URL.revokeObjectURL, () => {});
  }

  /** Download the file under the name that the server suggests. */
  async download(id) {
    const answer = await this.#api.request(this.#api.contentUrl(id));
    const name = fileName(answer.headers.get("Content-Disposition") ?? "") ?? `${id}.mp4`;
    const url = URL.createObjectURL(await answer.blob());
    const link = Object.assign(document.createElement("a"), { href: url, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }
}

/** The file name of a `Content-Disposition` header (RFC 6266). */
function fileName(disposition) {
  const [, encoded, plain] = /filename\*=utf-8''([^;]+)|filename="([^"]+)"/i.exec(disposition) ?? [];
  return encoded ? decodeURIComponent(encoded) : plain;
}

// Where a video element finds a file. Without an API key: at its address, in ranges and from the browser's cache. With
// one, the file is fetched, since an element cannot send a key, and kept for as long as something shows it.

export class Media {
  #api;
  #blobs = new Map(); // id and variant -> {url: a promise, users}

  constructor(api) {
    this.#api = api;
  }

  /** An address for `src`, and a function to call when nothing shows it any more. Throws `ApiError`. */
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

  /** Save the file where the browser saves files, under the name that the server gives it. */
  async download(id) {
    const answer = await this.#api.request(this.#api.contentUrl(id));
    const name = fileName(answer.headers.get("Content-Disposition") ?? "") ?? `${id}.mp4`;
    const url = URL.createObjectURL(await answer.blob());
    const link = Object.assign(document.createElement("a"), { href: url, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }
}

/** As RFC 6266 writes it: quoted, or with `*` in percent signs. */
function fileName(disposition) {
  const [, encoded, plain] = /filename\*=utf-8''([^;]+)|filename="([^"]+)"/i.exec(disposition) ?? [];
  return encoded ? decodeURIComponent(encoded) : plain;
}

// Where a video element finds a file. Without an API key: at its address, in ranges and from the browser's cache. With
// one, the file is fetched, since an element cannot send a key, and kept for as long as something shows it.

export class Media {
  #api;
  #blobs = new Map(); // id -> {url: a promise, users}

  constructor(api) {
    this.#api = api;
  }

  /** An address for `src`, and a function to call when nothing shows it any more. Throws `ApiError`. */
  async open(id) {
    if (!this.#api.key) return { url: this.#api.contentUrl(id), close: () => {} };
    const blob = this.#blobs.get(id) ?? { url: this.#api.content(id).then(URL.createObjectURL), users: 0 };
    this.#blobs.set(id, blob);
    blob.users += 1;
    const close = () => this.#close(id, blob);
    try {
      return { url: await blob.url, close };
    } catch (error) {
      close();
      throw error;
    }
  }

  #close(id, blob) {
    blob.users -= 1;
    if (blob.users > 0) return;
    if (this.#blobs.get(id) === blob) this.#blobs.delete(id);
    blob.url.then(URL.revokeObjectURL, () => {});
  }

  /** Save the file where the browser saves files, under the name that the server gives it. */
  async download(id) {
    const answer = await this.#api.request(this.#api.contentUrl(id));
    const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? `${id}.mp4`;
    const url = URL.createObjectURL(await answer.blob());
    const link = Object.assign(document.createElement("a"), { href: url, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }
}

// Event streams of a few videos at once. A browser opens no more than six connections to a server, for all its tabs
// together: the streams may not take them all, so tabs share a few places, and one in the background takes none.

import { follow } from "./events.js";

// Where a page comes without TLS from another machine, tabs have no locks to share places by: there each takes fewer.
const MOST = navigator.locks ? 3 : 2;
const PLACES = ["framedit-0", "framedit-1", "framedit-2", "framedit-3"];

export class Followers {
  #api;
  #tell;
  #open = new Map(); // id -> AbortController
  #refused = new Set();

  /** `tell(id, name, data)` is called for each event. */
  constructor(api, tell) {
    this.#api = api;
    this.#tell = tell;
  }

  /** Follow the first of these, and no others. Answers how many are followed. */
  choose(ids) {
    const chosen = document.hidden ? [] : ids.filter((id) => !this.#refused.has(id)).slice(0, MOST);
    for (const [id, stream] of this.#open) if (!chosen.includes(id)) stream.abort();
    for (const id of chosen) if (!this.#open.has(id)) this.#start(id);
    return this.#open.size;
  }

  async #start(id) {
    const stream = new AbortController();
    this.#open.set(id, stream);
    try {
      await inPlace(() => follow(this.#api, id, stream.signal, (name, data) => this.#tell(id, name, data)));
    } catch (error) {
      if (error.name !== "AbortError") this.#refused.add(id); // asking for lists tells the rest
    } finally {
      this.#open.delete(id);
    }
  }
}

/** Does `work` once it has one of the places; nothing when all are taken. */
async function inPlace(work) {
  if (!navigator.locks) return work();
  for (const place of PLACES) {
    const free = await navigator.locks.request(place, { ifAvailable: true }, async (lock) => {
      if (lock) await work();
      return lock !== null;
    });
    if (free) return undefined;
  }
  return undefined;
}

// Event streams of a few videos at once. A browser opens at most six HTTP/1.1 connections to a server, for all tabs
// together. So the tabs share a few stream slots, and a tab in the background uses none.

import { follow } from "./events.js";

// Without TLS, pages from another machine have no Web Locks to share slots with: then each tab uses fewer streams.
const MAX_STREAMS = navigator.locks ? 3 : 2;
const SLOTS = ["framedit-0", "framedit-1", "framedit-2", "framedit-3"];

export class Followers {
  #api;
  #onEvent;
  #open = new Map(); // id -> AbortController
  #refused = new Set();

  /** `onEvent(id, name, data)` is called for each event. */
  constructor(api, onEvent) {
    this.#api = api;
    this.#onEvent = onEvent;
  }

  /** Follow the first of these videos and stop following others. Returns how many are followed. */
  choose(ids) {
    const chosen = document.hidden ? [] : ids.filter((id) => !this.#refused.has(id)).slice(0, MAX_STREAMS);
    for (const [id, stream] of this.#open) if (!chosen.includes(id)) stream.abort();
    for (const id of chosen) if (!this.#open.has(id)) this.#start(id);
    return this.#open.size;
  }

  async #start(id) {
    const stream = new AbortController();
    this.#open.set(id, stream);
    try {
      await inSlot(() => follow(this.#api, id, stream.signal, (name, data) => this.#onEvent(id, name, data)));
    } catch (error) {
      if (error.name !== "AbortError") this.#refused.add(id); // polling the list covers it
    } finally {
      this.#open.delete(id);
    }
  }
}

/** Run `work` in a free stream slot; do nothing when all are taken. */
async function inSlot(work) {
  if (!navigator.locks) return work();
  for (const slot of SLOTS) {
    const free = await navigator.locks.request(slot, { ifAvailable: true }, async (lock) => {
      if (lock) await work();
      return lock !== null;
    });
    if (free) return undefined;
  }
  return undefined;
}

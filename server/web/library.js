// The videos that the page knows, kept true by asking the server. Emits:
//   "change" {video, live, before}    a video is new or has changed; `before` is what it was, undefined for a new one
//   "remove" {id}                     it was deleted, here or elsewhere
//   "loaded" {hasMore}                a list came: the server answers
//   "trouble" {error}                 it did not

import { Followers } from "./followers.js";
import { isOver } from "./words.js";

const PAGE = 24;
const LARGEST_PAGE = 100;
const BUSY_MS = 1000;
const FOLLOWED_MS = 5000;
const SOON_MS = 300;
const IDLE_MS = 12_000;
const HIDDEN_FACTOR = 5;
const LONGEST_WAIT_MS = 15_000;
const STRAGGLERS = 4;

export class Library extends EventTarget {
  #api;
  #videos = new Map();
  #live = new Map();
  #followers;
  #removed = new Set();
  #timer = 0;
  #failures = 0;
  #restMs = 0; // what the server has asked for
  #asked = 0;
  #oldest = null;
  #hasMore = false;
  // Other tabs of this browser learn at once what is done in this one; everybody else's doings come with the lists.
  #tabs = new BroadcastChannel("framedit");

  constructor(api) {
    super();
    this.#api = api;
    this.#followers = new Followers(api, (id, name, data) => this.#hear(id, name, data));
    this.#tabs.addEventListener("message", () => this.refresh());
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#follow() : this.refresh()));
    addEventListener("online", () => this.refresh());
  }

  /** Newest first: ids sort by age. */
  get videos() {
    return [...this.#videos.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
  }

  get hasMore() {
    return this.#hasMore;
  }

  get = (id) => this.#videos.get(id);
  live = (id) => this.#live.get(id) ?? {};

  /** Forget everything and start over, as after a change of the API key. */
  reset() {
    for (const id of [...this.#videos.keys()]) this.#forget(id);
    this.#follow();
    this.#removed.clear();
    this.#oldest = null;
    this.refresh();
  }

  async create(body) {
    return this.#mine(await this.#api.create(body));
  }

  async remix(id, prompt) {
    return this.#mine([await this.#api.remix(id, prompt)]);
  }

  /** A video that need not be in a list yet. Throws `ApiError`. */
  async include(id) {
    if (!this.get(id)) this.#take([await this.#api.retrieve(id)]);
    return this.get(id);
  }

  async cancel(id) {
    return this.#mine([await this.#api.cancel(id)]);
  }

  async remove(id) {
    await this.#api.remove(id).catch((error) => {
      if (error.status !== 404) throw error; // another tab was first
    });
    this.#removed.add(id);
    this.#forget(id);
    this.#tabs.postMessage("changed");
  }

  async loadOlder() {
    const page = await this.#api.list(PAGE, this.#oldest);
    this.#take(page.data);
    this.#hasMore = page.has_more;
    this.#oldest = page.last_id ?? this.#oldest;
    this.#emit("loaded", { hasMore: this.#hasMore });
  }

  /** Ask now, and then again and again: often while something is being made. */
  async refresh() {
    clearTimeout(this.#timer);
    const turn = ++this.#asked;
    try {
      await this.#ask(turn);
      this.#failures = 0;
    } catch (error) {
      this.#failures += 1;
      this.#restMs = (error.waitSeconds ?? 0) * 1000;
      this.#emit("trouble", { error });
    }
    if (turn !== this.#asked) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.refresh(), this.#pause());
  }

  async #ask(turn) {
    const knownBefore = new Set(this.#videos.keys());
    const limit = Math.min(LARGEST_PAGE, Math.max(PAGE, knownBefore.size));
    const page = await this.#api.list(limit);
    if (turn !== this.#asked) return; // a later question has been asked since, whose answer is newer
    this.#take(page.data);
    const listed = new Set(page.data.map((video) => video.id));
    const within = (id) => !page.has_more || id >= page.last_id;
    for (const id of knownBefore) if (within(id) && !listed.has(id)) this.#forget(id);
    if (this.#oldest === null || this.#oldest >= (page.last_id ?? "")) {
      this.#oldest = page.last_id;
      this.#hasMore = page.has_more;
    }
    await this.#askForStragglers(listed);
    this.#emit("loaded", { hasMore: this.#hasMore });
  }

  /** Unfinished ones that are too old for the page; the oldest are the ones being made. */
  async #askForStragglers(listed) {
    const waiting = this.videos.filter((video) => !isOver(video) && !listed.has(video.id)).slice(-STRAGGLERS);
    for (const { id } of waiting) {
      await this.#api.retrieve(id).then(
        (video) => this.#take([video]),
        (error) => {
          if (error.status !== 404) throw error;
          this.#forget(id);
        },
      );
    }
  }

  #pause() {
    if (this.#failures) return Math.max(this.#restMs, Math.min(BUSY_MS * 2 ** this.#failures, LONGEST_WAIT_MS));
    const unfinished = this.videos.filter((video) => !isOver(video)).length;
    const usual = !unfinished ? IDLE_MS : this.#follow() < unfinished ? BUSY_MS : FOLLOWED_MS;
    return usual * (document.hidden ? HIDDEN_FACTOR : 1);
  }

  /** Have events told of the videos that are being made, and then of those that are next. */
  #follow() {
    const rank = (video) => (video.status === "in_progress" ? 0 : (video.queue_position ?? Infinity));
    const unfinished = this.videos.filter((video) => !isOver(video)).reverse();
    return this.#followers.choose(unfinished.sort((a, b) => rank(a) - rank(b)).map((video) => video.id));
  }

  #hear(id, name, data) {
    const known = this.#videos.get(id);
    if (!known || isOver(known)) return;
    if (data.error?.code === "deleted") return this.#forget(id);
    if (name === "queued") this.#live.delete(id);
    if (name !== "progress") return this.#take([data]);
    const preview = data.preview ?? this.live(id).preview; // only some events bring one
    this.#live.set(id, { ...data, preview });
    this.#take([{ ...known, status: "in_progress", progress: data.progress, queue_position: null }], true);
  }

  #mine(videos) {
    this.#take(videos);
    this.#tabs.postMessage("changed");
    this.refresh();
    return videos;
  }

  #take(videos, anyway = false) {
    for (const video of videos) {
      const before = this.#videos.get(video.id);
      // An answer that was on its way longer than a newer one must not undo it: what is over stays over.
      if (this.#removed.has(video.id) || (before && isOver(before) && !isOver(video))) continue;
      if (!anyway && before && JSON.stringify(before) === JSON.stringify(video)) continue;
      this.#videos.set(video.id, video);
      this.#emit("change", { video, live: this.live(video.id), before });
      // Its place at the streams is free, and what was behind it has moved up.
      if (before && before.status !== video.status) this.#soon();
    }
  }

  #soon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.refresh(), SOON_MS);
  }

  #forget(id) {
    this.#live.delete(id);
    if (this.#videos.delete(id)) this.#emit("remove", { id });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

// The videos known to the page, synchronised with the server by polling and events. Emits:
//   "change" {video, live, before}    a video is new or has changed; `before` is undefined for a new one
//   "remove" {id}                     a video was deleted, in this tab or elsewhere
//   "loaded" {hasMore}                a list was received
//   "trouble" {error}                 a list could not be received

import { Followers } from "./followers.js";
import { isOver } from "./words.js";

const PAGE = 24;
const MAX_PAGE = 100;
const UNFOLLOWED_MS = 1000;
const FOLLOWED_MS = 5000;
const SOON_MS = 300;
const IDLE_MS = 12_000;
const HIDDEN_FACTOR = 5;
const MIN_RETRY_MS = 1000;
const MAX_RETRY_MS = 15_000;
const STRAGGLERS = 4;

export class Library extends EventTarget {
  #api;
  #videos = new Map();
  #live = new Map();
  #followers;
  #removed = new Set();
  #timer = 0;
  #failures = 0;
  #retryAfterMs = 0; // from the server's `Retry-After`
  #polls = 0;
  #oldest = null;
  #hasMore = false;
  // Actions in this tab refresh other tabs of this browser at once. Other changes arrive by polling.
  #tabs = new BroadcastChannel("framedit");

  constructor(api) {
    super();
    this.#api = api;
    this.#followers = new Followers(api, (id, name, data) => this.#onEvent(id, name, data));
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

  /** Start over, for example after a change of the API key. */
  reset() {
    for (const id of [...this.#videos.keys()]) this.#forget(id);
    this.#follow();
    this.#removed.clear();
    this.#oldest = null;
    this.refresh();
  }

  async create(body, file) {
    return this.#changed(await this.#api.create(body, file));
  }

  async edit(id, prompt) {
    return this.#changed([await this.#api.edit(id, prompt)]);
  }

  async extend(id) {
    return this.#changed([await this.#api.extend(id)]);
  }

  async remix(id, prompt) {
    return this.#changed([await this.#api.remix(id, { prompt })]);
  }

  /** The same video with another seed, and with the image or video that it starts from. */
  async repeat(id, seed) {
    return this.#changed([await this.#api.remix(id, { seed })]);
  }

  /** Load a video that is in no list yet. Throws `ApiError`. */
  async include(id) {
    if (!this.get(id)) this.#merge([await this.#api.retrieve(id)]);
    return this.get(id);
  }

  async cancel(id) {
    return this.#changed([await this.#api.cancel(id)]);
  }

  async remove(id) {
    await this.#api.remove(id).catch((error) => {
      if (error.status !== 404) throw error; // deleted by another tab
    });
    this.#removed.add(id);
    this.#forget(id);
    this.#tabs.postMessage("changed");
  }

  async loadOlder() {
    const page = await this.#api.list(PAGE, this.#oldest);
    this.#merge(page.data);
    this.#hasMore = page.has_more;
    this.#oldest = page.last_id ?? this.#oldest;
    this.#emit("loaded", { hasMore: this.#hasMore });
  }

  /** Poll now and then repeatedly, more often while videos are unfinished. */
  async refresh() {
    clearTimeout(this.#timer);
    const poll = ++this.#polls;
    try {
      await this.#poll(poll);
      this.#failures = 0;
    } catch (error) {
      this.#failures += 1;
      this.#retryAfterMs = (error.waitSeconds ?? 0) * 1000;
      this.#emit("trouble", { error });
    }
    if (poll !== this.#polls) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.refresh(), this.#pause());
  }

  async #poll(poll) {
    const knownBefore = new Set(this.#videos.keys());
    const limit = Math.min(MAX_PAGE, Math.max(PAGE, knownBefore.size));
    const page = await this.#api.list(limit);
    if (poll !== this.#polls) return; // superseded by a later poll
    this.#merge(page.data);
    const listed = new Set(page.data.map((video) => video.id));
    const within = (id) => !page.has_more || id >= page.last_id;
    for (const id of knownBefore) if (within(id) && !listed.has(id)) this.#forget(id);
    if (this.#oldest === null || this.#oldest >= (page.last_id ?? "")) {
      this.#oldest = page.last_id;
      this.#hasMore = page.has_more;
    }
    await this.#pollStragglers(listed);
    this.#emit("loaded", { hasMore: this.#hasMore });
  }

  /** Retrieve unfinished videos that are too old for the listed page; the oldest ones are in progress. */
  async #pollStragglers(listed) {
    const missing = this.videos.filter((video) => !isOver(video) && !listed.has(video.id)).slice(-STRAGGLERS);
    for (const { id } of missing) {
      await this.#api.retrieve(id).then(
        (video) => this.#merge([video]),
        (error) => {
          if (error.status !== 404) throw error;
          this.#forget(id);
        },
      );
    }
  }

  #pause() {
    if (this.#failures) return Math.max(this.#retryAfterMs, Math.min(MIN_RETRY_MS * 2 ** this.#failures, MAX_RETRY_MS));
    const unfinished = this.videos.filter((video) => !isOver(video)).length;
    const interval = !unfinished ? IDLE_MS : this.#follow() < unfinished ? UNFOLLOWED_MS : FOLLOWED_MS;
    return interval * (document.hidden ? HIDDEN_FACTOR : 1);
  }

  /** Follow the events of videos in progress, then of those next in the queue. */
  #follow() {
    const rank = (video) => (video.status === "in_progress" ? 0 : (video.queue_position ?? Infinity));
    const unfinished = this.videos.filter((video) => !isOver(video)).reverse();
    return this.#followers.choose(unfinished.sort((a, b) => rank(a) - rank(b)).map((video) => video.id));
  }

  #onEvent(id, name, data) {
    const known = this.#videos.get(id);
    if (!known || isOver(known)) return;
    if (data.error?.code === "deleted") return this.#forget(id);
    if (name === "queued") this.#live.delete(id);
    if (name !== "progress") return this.#merge([data]);
    const preview = data.preview ?? this.live(id).preview; // only some events bring one
    this.#live.set(id, { ...data, preview });
    this.#merge([{ ...known, status: "in_progress", progress: data.progress, queue_position: null }], true);
  }

  #changed(videos) {
    this.#merge(videos);
    this.#tabs.postMessage("changed");
    this.refresh();
    return videos;
  }

  #merge(videos, force = false) {
    for (const video of videos) {
      const before = this.#videos.get(video.id);
      // A late answer must not undo a newer one: a terminal state never changes.
      if (this.#removed.has(video.id) || (before && isOver(before) && !isOver(video))) continue;
      if (!force && before && JSON.stringify(before) === JSON.stringify(video)) continue;
      this.#videos.set(video.id, video);
      this.#emit("change", { video, live: this.live(video.id), before });
      // Its stream slot is free, and queue positions have changed.
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

// Plays several films in step: one clock, to which each film's own time is corrected.

const DRIFT_SECONDS = 0.08;
const LEAST_STEP_SECONDS = 0.01;

export class Transport {
  #films = new Set();
  #seconds = 0;
  #then = null; // when the clock was read last; null while paused
  #button = document.getElementById("compare-play");
  #slider = document.getElementById("compare-time");
  #label = document.getElementById("compare-seconds");

  constructor() {
    this.#button.addEventListener("click", () => (this.playing ? this.pause() : this.play()));
    this.#slider.addEventListener("input", () => this.seek(Number(this.#slider.value)));
    this.#draw();
  }

  get playing() {
    return this.#then !== null;
  }

  /** Of the longest film. Shorter ones show their last frame until all start again. */
  get duration() {
    return Math.max(0, ...[...this.#films].map((film) => film.duration));
  }

  /** Drive `film`, whose length is known, at `fps` frames per second. */
  add(film, fps) {
    this.#films.add(film);
    const step = Math.max(LEAST_STEP_SECONDS, 1 / fps);
    this.#slider.step = this.#films.size === 1 ? step : Math.min(Number(this.#slider.step), step);
    this.seek(this.#seconds);
  }

  clear() {
    this.pause();
    this.#films.clear();
    this.#seconds = 0;
    this.#draw();
  }

  play() {
    if (this.playing || !this.#films.size) return;
    this.#then = performance.now();
    requestAnimationFrame((now) => this.#tick(now));
    this.#draw();
  }

  /** All films stop at the same moment. */
  pause() {
    this.#then = null;
    for (const film of this.#films) film.pause();
    this.seek(this.#seconds);
  }

  seek(seconds) {
    this.#seconds = Math.min(seconds, this.duration);
    for (const film of this.#films) film.currentTime = Math.min(this.#seconds, film.duration);
    this.#draw();
  }

  #tick(now) {
    if (!this.playing) return;
    this.#seconds += Math.max(0, now - this.#then) / 1000;
    this.#then = now;
    if (this.#seconds >= this.duration) this.seek(0);
    for (const film of this.#films) this.#follow(film);
    this.#draw();
    requestAnimationFrame((next) => this.#tick(next));
  }

  #follow(film) {
    if (this.#seconds >= film.duration) return film.pause();
    if (Math.abs(film.currentTime - this.#seconds) > DRIFT_SECONDS && !film.seeking) film.currentTime = this.#seconds;
    if (film.paused) film.play().catch(() => {});
  }

  #draw() {
    const label = this.playing ? "Pause" : "Play";
    const words = `${this.#seconds.toFixed(2)} of ${this.duration.toFixed(2)} s`;
    this.#button.disabled = this.#slider.disabled = !this.#films.size;
    this.#button.setAttribute("aria-label", label);
    this.#button.title = label;
    this.#button.querySelector("use").setAttribute("href", this.playing ? "#icon-pause" : "#icon-play");
    this.#slider.max = this.duration;
    this.#slider.value = this.#seconds;
    this.#slider.setAttribute("aria-valuetext", words);
    this.#label.textContent = words;
  }
}

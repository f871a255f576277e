// How things are said.

/** What a video shows. */
export function subject(video) {
  return video.prompt || (video.class_name && readable(video.class_name)) || `a video of ${video.model}`;
}

/** A class name, as people would write it. */
export function readable(className) {
  return className.replaceAll(/[-_]+/g, " ");
}

export function isOver(video) {
  return video.status === "completed" || video.status === "failed";
}

export function isCancelled(video) {
  return video.status === "failed" && video.error?.code === "cancelled";
}

export function isExpired(video) {
  return video.expires_at !== null && video.expires_at * 1000 <= Date.now();
}

/** "8 s", "2 min", "1 h 5 min" */
export function duration(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  if (whole < 90) return `${whole} s`;
  const minutes = Math.round(whole / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** What a video is waiting for, or how far it is; `live` is what events have told beyond the object. */
export function progress(video, live = {}) {
  const eta = live.eta_seconds ?? video.eta_seconds;
  const left = eta === null || eta === undefined ? "" : ` · ${duration(eta)} left`;
  if (video.status === "queued") {
    const place = video.queue_position;
    return `${place === 1 ? "Next in the queue" : place ? `${ordinal(place)} in the queue` : "In the queue"}${left}`;
  }
  const done = live.step ? `Step ${live.step} of ${live.steps}` : `${video.progress} %`;
  return video.progress >= 99 || (live.step && live.step >= live.steps) ? "Last touches" : done + left;
}

function ordinal(number) {
  const ending = { one: "st", two: "nd", few: "rd", other: "th" };
  return number + ending[new Intl.PluralRules("en", { type: "ordinal" }).select(number)];
}

/** Why there is no video. */
export function failure(video) {
  if (isCancelled(video)) return "Cancelled";
  return video.error?.message ? video.error.message[0].toUpperCase() + video.error.message.slice(1) : "Failed";
}

/** The settings of a video, for people: pairs of a name and a value. */
export function settings(video) {
  return [
    ["Model", video.model],
    ["Seed", video.seed],
    ["Steps", video.num_inference_steps],
    ["Guidance", video.guidance_scale],
    ["Sampler", video.sampler],
    ["Frames", `${video.num_frames} at ${video.fps} a second`],
    ["Size", video.size.replace("x", " × ")],
    ["Without", video.negative_prompt],
    ["Priority", video.priority === "normal" ? null : video.priority],
    ["Asked for", moment(video.created_at)],
    ["Expires", video.expires_at && moment(video.expires_at)],
    ["Took", took(video)],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
}

function took(video) {
  const { denoise_s, decode_s, encode_s } = video.timings ?? {};
  if (video.status !== "completed" || !denoise_s) return null;
  return duration(denoise_s + (decode_s ?? 0) + (encode_s ?? 0));
}

function moment(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

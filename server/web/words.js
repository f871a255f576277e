// Texts for states, times and settings of videos.

/** A short title: the prompt, the class, or the model. */
export function subject(video) {
  return video.original_prompt || video.prompt || (video.class_name && readable(video.class_name)) || `a video of ${video.model}`;
}

/** A class name without dashes and underscores. */
export function readable(className) {
  return className.replaceAll(/[-_]+/g, " ");
}

/** Whether the result is an image. */
export function isImage(video) {
  return video.num_frames === 1;
}

/** Whether the result is a film, which has controls; others are pictures, or the frames in a ZIP. */
export function isFilm(video) {
  return !isImage(video) && ["mp4", "webm"].includes(video.output_format);
}

const isAnimation = (video) => ["gif", "webp"].includes(video.output_format);

/** The variant of the content that shows a video which is no film. */
export function pictureOf(video) {
  return isImage(video) || isAnimation(video) ? "video" : "thumbnail";
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

/** Queue position or step, and the remaining time. `live` is the data of the last progress event. */
export function progress(video, live = {}) {
  const eta = live.eta_seconds ?? video.eta_seconds;
  const left = eta === null || eta === undefined ? "" : ` · ${duration(eta)} left`;
  if (video.status === "queued") {
    const place = video.queue_position;
    return `${place === 1 ? "Next in the queue" : place ? `${ordinal(place)} in the queue` : "In the queue"}${left}`;
  }
  const done = live.step ? `Step ${live.step} of ${live.steps}` : `${video.progress} %`;
  return video.progress >= 99 || (live.step && live.step >= live.steps) ? "Decoding and encoding" : done + left;
}

function ordinal(number) {
  const ending = { one: "st", two: "nd", few: "rd", other: "th" };
  return number + ending[new Intl.PluralRules("en", { type: "ordinal" }).select(number)];
}

/** Why a video failed. */
export function failure(video) {
  if (isCancelled(video)) return "Cancelled";
  return video.error?.message ? video.error.message[0].toUpperCase() + video.error.message.slice(1) : "Failed";
}

/** The settings of a video as pairs of a label and a value. */
export function settings(video) {
  return [
    ["Model", video.model],
    ["Enhanced prompt", video.original_prompt ? video.prompt : null],
    ["Seed", video.seed],
    ["Steps", video.num_inference_steps],
    ["Guidance", video.guidance_scale],
    ["Sampler", video.sampler],
    ["Speed", video.speed === "exact" ? null : video.speed],
    ["Frames", isImage(video) ? "1, an image" : `${video.num_frames} at ${video.fps} fps`],
    ["Format", isImage(video) ? null : format(video)],
    ["Size", video.size.replace("x", " × ")],
    ["Negative prompt", video.negative_prompt],
    ["Clean prompts", video.prompt === null ? null : video.clean_caption ? "yes" : "no"],
    ["Priority", video.priority === "normal" ? null : video.priority],
    ["Created", moment(video.created_at)],
    ["Expires", video.expires_at && moment(video.expires_at)],
    ["Generation time", generationTime(video)],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
}

function format(video) {
  if (video.output_format === "png") return "PNG frames (ZIP)";
  const name = { mp4: "MP4", webm: "WebM", gif: "GIF", webp: "WebP" }[video.output_format];
  return video.output_quality === "high" ? name : `${name}, ${video.output_quality} quality`;
}

function generationTime(video) {
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

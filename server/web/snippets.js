// Code that creates the same video with curl or Python. It reads the API key from the environment.

import { isImage } from "./words.js";

function fileName(video) {
  if (isImage(video)) return "image.png";
  return video.output_format === "png" ? "frames.zip" : `video.${video.output_format}`;
}

function body(video) {
  const fields = {
    model: video.model,
    prompt: video.prompt,
    class_label: video.class_name ?? video.class_label,
    negative_prompt: video.negative_prompt || null,
    clean_caption: video.prompt === null ? null : video.clean_caption,
    seed: video.seed,
    num_inference_steps: video.num_inference_steps,
    guidance_scale: video.guidance_scale,
    sampler: video.sampler,
    speed: video.speed === "exact" ? null : video.speed,
    adapters: video.adapters?.length ? video.adapters : null,
    num_frames: video.num_frames,
    fps: video.fps,
    size: video.size,
    output_format: isImage(video) || video.output_format === "mp4" ? null : video.output_format,
    output_quality: isImage(video) || video.output_quality === "high" ? null : video.output_quality,
  };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null && value !== undefined));
}

export function curl(video, { base, key }) {
  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  // The image or video that it starts from is on the server.
  const [path, fields] = video.reference ? [`videos/${video.id}/remix`, { seed: video.seed }] : ["videos", body(video)];
  return [
    `curl -s ${base}/${path} -H 'Content-Type: application/json'`,
    ...(key ? [`-H "Authorization: Bearer $FRAMEDIT_API_KEY"`] : []),
    `-d ${quoted(JSON.stringify(fields, null, 2))}`,
  ].join(" \\\n  ");
}

export function python(video, { base, key }) {
  const { model, prompt = "", ...others } = body(video);
  // These JSON strings and numbers are valid Python; truth values are not.
  const literal = (value) => ({ true: "True", false: "False" })[value] ?? JSON.stringify(value);
  const line = ([name, value]) => `        ${JSON.stringify(name)}: ${literal(value)},`;
  const created = [
    "video = client.videos.create_and_poll(",
    `    model=${JSON.stringify(model)},`,
    `    prompt=${JSON.stringify(prompt)},`,
    "    extra_body={",
    ...Object.entries(others).map(line),
    "    },",
    ")",
  ];
  const repeated = [
    "video = client.videos.remix(",
    `    ${JSON.stringify(video.id)}, prompt=${JSON.stringify(prompt)}, extra_body={"seed": ${video.seed}}`,
    ")",
    "client.videos.poll(video.id)",
  ];
  return [
    ...(key ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${base}", api_key=${key ? 'os.environ["FRAMEDIT_API_KEY"]' : '"unused"'})`,
    ...(video.reference ? repeated : created),
    `client.videos.download_content(video.id).write_to_file("${fileName(video)}")`,
    "",
  ].join("\n");
}

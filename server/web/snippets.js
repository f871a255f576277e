// The request that makes a video again, for a terminal and for Python. An API key is named, never written out.

function body(video) {
  const fields = {
    model: video.model,
    prompt: video.prompt,
    class_label: video.class_name ?? video.class_label,
    negative_prompt: video.negative_prompt || null,
    seed: video.seed,
    num_inference_steps: video.num_inference_steps,
    guidance_scale: video.guidance_scale,
    sampler: video.sampler,
    num_frames: video.num_frames,
    fps: video.fps,
    size: video.size,
  };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null && value !== undefined));
}

export function curl(video, { base, key }) {
  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  return [
    `curl -s ${base}/videos -H 'Content-Type: application/json'`,
    ...(key ? [`-H "Authorization: Bearer $FRAMEDIT_API_KEY"`] : []),
    `-d ${quoted(JSON.stringify(body(video), null, 2))}`,
  ].join(" \\\n  ");
}

export function python(video, { base, key }) {
  const { model, prompt = "", ...others } = body(video);
  // JSON is also Python here: there are only strings and numbers in it.
  const line = ([name, value]) => `        ${JSON.stringify(name)}: ${JSON.stringify(value)},`;
  return [
    ...(key ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${base}", api_key=${key ? 'os.environ["FRAMEDIT_API_KEY"]' : '"unused"'})`,
    "video = client.videos.create_and_poll(",
    `    model=${JSON.stringify(model)},`,
    `    prompt=${JSON.stringify(prompt)},`,
    "    extra_body={",
    ...Object.entries(others).map(line),
    "    },",
    ")",
    'client.videos.download_content(video.id).write_to_file("video.mp4")',
    "",
  ].join("\n");
}

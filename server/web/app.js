// Puts the parts of the page together.

import { Api } from "./api.js";
import { Composer } from "./composer.js";
import { confirmRemoval, KeyDialog } from "./dialogs.js";
import { Gallery } from "./gallery.js";
import { Library } from "./library.js";
import { Media } from "./media.js";
import { Viewer } from "./viewer.js";
import { subject } from "./words.js";

const MODELS_AGAIN_MS = 20_000;
const MODELS_SOON_MS = 3000;
const THEMES = ["auto", "light", "dark"];

const api = new Api();
const library = new Library(api);
const media = new Media(api);

/** For screen readers. */
const say = (text) => {
  document.getElementById("said").textContent = text;
};

const banner = document.getElementById("banner");
const locked = document.getElementById("locked");
let askedForKey = false;

/** The server's own words on a missing key are for programs. */
const onKey = (error) => (api.key ? error.message : "This server needs an API key.");

/** Until there is a key that the server knows. */
function lock(error) {
  document.getElementById("locked-words").textContent = onKey(error);
  locked.hidden = false;
  // Once: who closes the dialog has seen it, and the words stay.
  if (!askedForKey) keyDialog.open(onKey(error));
  askedForKey = true;
}

/** `passing`: it is over once the server answers again. */
function complain(error, passing = false) {
  if (error.status === 401) return lock(error);
  if (banner.textContent !== error.message) banner.textContent = error.message;
  banner.hidden = false;
  banner.dataset.passing = passing;
}

/** What somebody does with a video, and the words for it when it fails. */
const attempt = (action) => (video) => {
  banner.hidden = true;
  return action(video).catch((error) => {
    viewer.close(); // the words would be behind it
    complain(error);
  });
};

const actions = {
  open: (video) => viewer.open(library.get(video.id) ?? video),
  again: attempt(async (video) => {
    viewer.close();
    const [made] = await library.create(sameAgain(video));
    announce(made);
  }),
  remix: (video) => {
    viewer.close();
    composer.remix(video);
  },
  use: (video) => {
    viewer.close();
    composer.use(video);
  },
  download: attempt((video) => media.download(video.id)),
  cancel: attempt((video) => library.cancel(video.id)),
  remove: attempt(async (video) => {
    if (!(await confirmRemoval(`“${subject(video)}” and its file will be gone for good.`))) return;
    const ids = library.videos.map(({ id }) => id);
    const place = ids.indexOf(video.id);
    await library.remove(video.id);
    gallery.focus(ids[place + 1] ?? ids[place - 1]);
  }),
};

const viewer = new Viewer(api, library, media, actions);
const gallery = new Gallery(library, media, actions, say);
const keyDialog = new KeyDialog(api, () => {
  askedForKey = false;
  library.reset();
  loadModels();
});
const composer = new Composer(async (body, remixed) => {
  banner.hidden = true;
  try {
    const made = remixed ? await library.remix(remixed.id, body.prompt) : await library.create(body);
    announce(made[0]);
  } catch (error) {
    if (error.status === 401) keyDialog.open(onKey(error));
    throw error;
  }
});

function announce(video) {
  say(`In the queue: ${subject(video)}`);
  gallery.reveal(video.id);
}

/** The request of a video with the seed left open. */
function sameAgain(video) {
  const names = ["model", "prompt", "class_label", "negative_prompt", "num_inference_steps", "guidance_scale"];
  names.push("sampler", "num_frames", "fps", "size", "priority");
  return Object.fromEntries(names.map((name) => [name, video[name]]).filter(([, value]) => value !== null));
}

let modelsTimer = 0;
async function loadModels() {
  clearTimeout(modelsTimer);
  let pause = MODELS_AGAIN_MS;
  try {
    const models = (document.hidden && composer.models) || (await api.models());
    composer.models = models;
    // A worker that is starting has loaded its models soon.
    if (!models.length || models.some((model) => !model.workers_alive)) pause = MODELS_SOON_MS;
  } catch (error) {
    complain(error, true);
  }
  modelsTimer = setTimeout(loadModels, pause);
}

library.addEventListener("loaded", () => {
  locked.hidden = true;
  banner.hidden ||= banner.dataset.passing === "true";
});
library.addEventListener("trouble", ({ detail }) => complain(detail.error, true));
document.getElementById("older").addEventListener("click", () => {
  library.loadOlder().catch((error) => complain(error));
});
document.getElementById("unlock").addEventListener("click", () => keyDialog.open());
document.getElementById("theme").addEventListener("click", ({ currentTarget }) => {
  const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("framedit.theme", theme);
  labelTheme(currentTarget, theme);
});
function labelTheme(button, theme) {
  const label = { auto: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" }[theme];
  button.setAttribute("aria-label", label);
  button.title = label;
}
labelTheme(document.getElementById("theme"), document.documentElement.dataset.theme);

/** The address may name a video. */
async function openAddressed() {
  const id = location.hash.slice(1);
  if (!/^video_\w+$/.test(id)) return;
  await library.include(id).then(actions.open, (error) => complain(error));
}

await Promise.all([loadModels(), library.refresh()]);
await openAddressed();

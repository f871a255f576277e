// Assembles the page.

import { Api } from "./api.js";
import { Compare } from "./compare.js";
import { Composer } from "./composer.js";
import { confirmRemoval, KeyDialog } from "./dialogs.js";
import { Gallery } from "./gallery.js";
import { Library } from "./library.js";
import { Media } from "./media.js";
import { randomSeed } from "./seed.js";
import { Viewer } from "./viewer.js";
import { subject } from "./words.js";

const MODELS_INTERVAL_MS = 20_000;
const MODELS_RETRY_MS = 3000;
const THEMES = ["auto", "light", "dark"];

const api = new Api();
const library = new Library(api);
const media = new Media(api);

/** Announce a change to screen readers. */
const say = (text) => {
  document.getElementById("said").textContent = text;
};

const banner = document.getElementById("banner");
const locked = document.getElementById("locked");
let hasPromptedForKey = false;

/** The server's message about a missing key describes the header, which users of the page do not set. */
const keyMessage = (error) => (api.key ? error.message : "This server needs an API key.");

/** Hide the page behind a request for an API key. */
function lock(error) {
  document.getElementById("locked-words").textContent = keyMessage(error);
  locked.hidden = false;
  // Only once: after the dialog is closed, the message on the page remains.
  if (!hasPromptedForKey) keyDialog.open(keyMessage(error));
  hasPromptedForKey = true;
}

/** Show an error. A `transient` one disappears as soon as the server answers again. */
function showError(error, transient = false) {
  if (error.status === 401) return lock(error);
  if (banner.textContent !== error.message) banner.textContent = error.message;
  banner.hidden = false;
  banner.dataset.transient = transient;
}

/** An action on a video that shows its error when it fails. */
const reporting = (action) => (video) => {
  banner.hidden = true;
  return action(video).catch((error) => {
    viewer.close(); // it would cover the message
    showError(error);
  });
};

const actions = {
  open: (video) => viewer.open(library.get(video.id) ?? video),
  again: reporting(async (video) => {
    viewer.close();
    announce((await library.repeat(video.id, randomSeed()))[0]);
  }),
  remix: (video) => {
    viewer.close();
    composer.remix(video);
  },
  edit: (video) => {
    viewer.close();
    composer.edit(video);
  },
  extend: reporting(async (video) => {
    viewer.close();
    announce((await library.extend(video.id))[0]);
  }),
  use: (video) => {
    viewer.close();
    composer.use(video);
  },
  download: reporting((video) => media.download(video.id)),
  cancel: reporting((video) => library.cancel(video.id)),
  remove: reporting(async (video) => {
    if (!(await confirmRemoval(`“${subject(video)}” and its file will be deleted permanently.`))) return;
    const ids = library.videos.map(({ id }) => id);
    const index = ids.indexOf(video.id);
    await library.remove(video.id);
    gallery.focus(ids[index + 1] ?? ids[index - 1]);
  }),
};

const viewer = new Viewer(api, library, media, actions);
const gallery = new Gallery(library, media, actions, say);
const keyDialog = new KeyDialog(api, () => {
  hasPromptedForKey = false;
  library.reset();
  loadModels();
});
const composer = new Composer(async (body, { source, mode, file }) => {
  banner.hidden = true;
  try {
    const created = source ? await library[mode](source.id, body.prompt) : await library.create(body, file);
    announce(created[0]);
  } catch (error) {
    if (error.status === 401) keyDialog.open(keyMessage(error));
    throw error;
  }
});

const compare = new Compare(library, media);
document.getElementById("compare-button").addEventListener("click", () => compare.open(composer.models, composer.body));

function announce(video) {
  say(`Queued: ${subject(video)}`);
  gallery.reveal(video.id);
}

let modelsTimer = 0;
async function loadModels() {
  clearTimeout(modelsTimer);
  let pause = MODELS_INTERVAL_MS;
  try {
    const models = (document.hidden && composer.models) || (await api.models());
    composer.models = models;
    // A worker that starts announces its models within seconds.
    if (!models.length || models.some((model) => !model.workers_alive)) pause = MODELS_RETRY_MS;
  } catch (error) {
    showError(error, true);
  }
  modelsTimer = setTimeout(loadModels, pause);
}

library.addEventListener("loaded", () => {
  locked.hidden = true;
  banner.hidden ||= banner.dataset.transient === "true";
});
library.addEventListener("trouble", ({ detail }) => showError(detail.error, true));
document.getElementById("older").addEventListener("click", () => {
  library.loadOlder().catch((error) => showError(error));
});
document.getElementById("unlock").addEventListener("click", () => keyDialog.open());
document.getElementById("theme").addEventListener("click", ({ currentTarget }) => {
  const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("framedit.theme", theme);
  labelTheme(currentTarget, theme);
});
function labelTheme(button, theme) {
  const label = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" }[theme];
  button.setAttribute("aria-label", label);
  button.title = label;
}
labelTheme(document.getElementById("theme"), document.documentElement.dataset.theme);

/** The URL may name a video. */
async function openLinked() {
  const id = location.hash.slice(1);
  if (!/^video_\w+$/.test(id)) return;
  await library.include(id).then(actions.open, (error) => showError(error));
}

await Promise.all([loadModels(), library.refresh()]);
await openLinked();

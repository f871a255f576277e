// Loaded before the first paint, so that a theme chosen earlier does not come late; the rest of the page is modules.
document.documentElement.dataset.theme = localStorage.getItem("framedit.theme") ?? "auto";

// Loaded before the first paint, so that a stored theme does not flash. The rest of the page is modules.
document.documentElement.dataset.theme = localStorage.getItem("framedit.theme") ?? "auto";

// Creates elements. Strings are always inserted as text: nothing on the page parses a string as HTML.

/** element("button", {class: "x", disabled: true, onclick: f, "aria-label": "y"}, "text", child, null) */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") made.toggleAttribute(name, value);
    else if (value !== undefined && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** One of the symbols in index.html. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** A button with an icon; the label is its tooltip and its name for screen readers. */
export function iconButton(name, label, onclick) {
  const named = { "aria-label": label, title: label };
  return element("button", { type: "button", class: "icon-button", ...named, onclick }, icon(name));
}

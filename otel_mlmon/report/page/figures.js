// ---------------------------------------------------------------- figures, as in html.py

function measure(number) {
  if (number === null) return "";
  const size = Math.abs(number);
  const text = size < 1 ? size.toFixed(4) : size < 100 ? size.toFixed(2) : count(Math.round(size));
  return number < 0 && /[1-9]/.test(text) ? `−${text}` : text;
}

function share(part) {
  if (part === null) return "";
  return part === 0 ? "0" : part < 0.0005 ? "<0.1\u00a0%" : `${(part * 100).toFixed(1)}\u00a0%`;
}

function count(number) {
  return number.toLocaleString("en-US");
}

/** A value of the data: five significant digits. */
function value(number) {
  if (number === null) return "";
  const size = Math.abs(number);
  if (size !== 0 && (size >= 1e15 || size < 1e-4)) return number.toExponential(3).replace("-", "−");
  const digits = size >= 1e4 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 5 };
  return number.toLocaleString("en-US", digits).replace("-", "−");
}

function many(number, one, more = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : more}`;
}

/** A name in a line of a picture. */
function shorten(text, length) {
  const letters = [...(text.trim() ? text.replace(/\s+/g, " ") : "(no name)")];
  return letters.length > length ? `${letters.slice(0, length - 1).join("")}…` : letters.join("");
}

// ---------------------------------------------------------------- parts of the page

/** An element; children that are no nodes become text, never HTML. */
function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, content] of Object.entries(attributes)) element.setAttribute(key, content);
  element.append(...children);
  return element;
}

function svg(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, content] of Object.entries(attributes)) element.setAttribute(key, content);
  element.append(...children);
  return element;
}

/** The text that html.pack() made small. */
async function unpack(element) {
  const bytes = Uint8Array.from(atob(element.textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  URL.revokeObjectURL(url);
}

/** Copies without the clipboard's permission too, which files on disk do not have everywhere. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { readonly: "", class: "hidden", "aria-hidden": "true" });
    const focused = document.activeElement;
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return done;
  }
}

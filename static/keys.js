// Keys on every page: "/" goes to the field for words (data-text), or to the page that has one (data-search of the body); Esc leaves
// a field. Whoever writes somewhere is left alone.

const TEXT = "[data-text]";

function writes(element) {
  return element.matches("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]");
}

function goTo(field) {
  field.focus();
  field.select();
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && event.target.matches(TEXT)) {
    event.target.blur();
    return;
  }
  if (event.key !== "/" || writes(event.target) || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  const field = document.querySelector(TEXT);
  if (field) goTo(field);
  else if (document.body.dataset.search) location.assign(`${document.body.dataset.search}#text`);
});

const field = document.querySelector(TEXT);
if (field && location.hash === "#text") goTo(field);

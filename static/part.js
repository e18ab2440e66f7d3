// Lets a part of a picture be drawn and searched with. Reads data-part, data-draw, data-part-form. Of an image of the collection the
// address of the search is the page's own, with the box as left,top,right,bottom in shares of the picture. An upload, whose key stands in
// data-part, is sent again with the box, out of what this browser kept of it. The page works without this script.

import { fileOf, keepSent, nameSent } from "./kept.js";

const LEAST_SHARE = 0.02; // a slip of the finger is no box
const STEP = 0.05; // of an arrow key
const MIDDLE = [0.25, 0.25, 0.75, 0.75]; // where a box drawn by keys begins
const ARROWS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

function share(value, start, length) {
  return Math.min(1, Math.max(0, (value - start) / length));
}

/** Move a box by a step, or its lower right corner, never out of the picture. */
function moved([left, top, right, bottom], [x, y], sizes) {
  if (sizes) return [left, top, Math.min(1, Math.max(left + STEP, right + x)), Math.min(1, Math.max(top + STEP, bottom + y))];
  const [dx, dy] = [Math.min(1 - right, Math.max(-left, x)), Math.min(1 - bottom, Math.max(-top, y))];
  return [left + dx, top + dy, right + dx, bottom + dy];
}

function enhance(frame, button, search) {
  const outline = frame.querySelector("rect");
  const area = frame.querySelector("svg");
  let corner = null;
  let byKeys = null; // the box, while arrows move it

  function point(event) {
    const { left, top, width, height } = area.getBoundingClientRect();
    return [share(event.clientX, left, width), share(event.clientY, top, height)];
  }

  function boxTo([x, y]) {
    return [Math.min(corner[0], x), Math.min(corner[1], y), Math.max(corner[0], x), Math.max(corner[1], y)];
  }

  function outlineBox([left, top, right, bottom]) {
    outline.setAttribute("x", left);
    outline.setAttribute("y", top);
    outline.setAttribute("width", right - left);
    outline.setAttribute("height", bottom - top);
  }

  function draw(on) {
    frame.toggleAttribute("data-drawing", on);
    button.setAttribute("aria-pressed", on);
    if (on) frame.scrollIntoView({ block: "nearest", behavior: "smooth" });
    button.textContent = on ? "Now draw a box on the picture" : "Search with a part of it";
    corner = byKeys = null;
  }

  function searchBox(box) {
    search(box.map((edge) => edge.toFixed(4)).join(","));
  }

  button.addEventListener("click", (event) => {
    if (byKeys) {
      searchBox(byKeys);
      return;
    }
    draw(!frame.hasAttribute("data-drawing"));
    if (event.detail || !frame.hasAttribute("data-drawing")) return; // by a pointer
    byKeys = MIDDLE;
    outlineBox(byKeys);
    button.textContent = "Arrows move the box, with Shift they size it, Enter searches";
  });
  button.addEventListener("keydown", (event) => {
    if (!byKeys || !(event.key in ARROWS)) return;
    event.preventDefault();
    byKeys = moved(byKeys, ARROWS[event.key], event.shiftKey);
    outlineBox(byKeys);
  });

  area.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    area.setPointerCapture(event.pointerId);
    corner = point(event);
  });
  area.addEventListener("pointermove", (event) => {
    if (corner) outlineBox(boxTo(point(event)));
  });
  area.addEventListener("pointercancel", () => draw(false));
  area.addEventListener("pointerup", (event) => {
    if (!corner) return;
    const box = boxTo(point(event));
    corner = null;
    if (box[2] - box[0] < LEAST_SHARE || box[3] - box[1] < LEAST_SHARE) return;
    searchBox(box);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") draw(false);
  });
  window.addEventListener("pageshow", () => draw(false)); // going back shows the page as it was left

  button.hidden = false;
}

function searchHere(box) {
  const address = new URL(location.href);
  address.searchParams.set("box", box);
  address.searchParams.delete("page");
  location.assign(address);
}

function sendAgain(form, file) {
  return async (box) => {
    const list = new DataTransfer();
    list.items.add(file);
    form.elements.file.files = list.files;
    form.elements.box.value = box;
    const upload = document.querySelector("[data-kept-minutes]");
    await keepSent([file], Number(upload?.dataset.keptMinutes ?? 1));
    form.submit();
  };
}

const frame = document.querySelector("[data-part]");
const button = document.querySelector("[data-draw]");
const keys = [...document.querySelectorAll("[data-part]")].map((one) => one.dataset.part).filter(Boolean);
if (keys.length) await nameSent(keys);
if (frame && button && !frame.dataset.part) enhance(frame, button, searchHere);
else if (frame && button) {
  const file = await fileOf(frame.dataset.part);
  if (file) enhance(frame, button, sendAgain(document.querySelector("[data-part-form]"), file));
}

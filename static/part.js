// Lets a part of a picture be drawn and searched with. Reads data-part, data-draw; the address of the search is the page's own, with
// the box as left,top,right,bottom in shares of the picture. The page works without this script.

const LEAST_SHARE = 0.02; // a slip of the finger is no box

function share(value, start, length) {
  return Math.min(1, Math.max(0, (value - start) / length));
}

function enhance(frame, button) {
  const outline = frame.querySelector("rect");
  const area = frame.querySelector("svg");
  let corner = null;

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
    corner = null;
  }

  button.addEventListener("click", () => draw(!frame.hasAttribute("data-drawing")));

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
    const address = new URL(location.href);
    address.searchParams.set("box", box.map((edge) => edge.toFixed(4)).join(","));
    location.assign(address);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") draw(false);
  });
  window.addEventListener("pageshow", () => draw(false)); // going back shows the page as it was left

  button.hidden = false;
}

const frame = document.querySelector("[data-part]");
if (frame) enhance(frame, document.querySelector("[data-draw]"));
